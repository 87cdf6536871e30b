"""An exporter and a runtime over a real connection, each with a clock of its own that a test sets."""

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

from exporter.config import Config, Duration, RuntimeConfig, SyncConfig
from exporter.service import Exporter
from exporter.service.monitored_runtime import Dependencies
from tests.builders import RUNTIME, Clock, runtime_config
from tests.faults.server import Exchange, Fault, FaultyRuntime
from tests.metrics.test_exposition import Samples, samples
from tests.scripted import ScriptedRuntime, no_sleep, rfc3339

HOUR = 3600.0
DAY = 86400.0


class Bench:
    """Time passes for both by `play`; `runtime.clock`, `wall` and `monotonic` can be set apart."""

    def __init__(self, url: str, faulty: FaultyRuntime, storage: Path | None, config: Config) -> None:
        self.faulty, self.runtime = faulty, faulty.runtime
        self.wall, self.monotonic = Clock(), Clock(1000.0)
        self._url, self._storage, self._config = url, storage, config
        self.exporter = self._make()

    def _make(self) -> Exporter:
        return Exporter(
            {RUNTIME: self._config},
            Dependencies(wall=self.wall, monotonic=self.monotonic, sleep=no_sleep),
            storage=self._storage,
        )

    async def restart(self) -> None:
        """Stop the exporter and start another one on its files."""
        await self.exporter.close()
        self.monotonic = Clock(50_000.0)
        self.exporter = self._make()

    def play(self, seconds: float) -> None:
        for clock in (self.runtime.clock, self.wall, self.monotonic):
            clock.advance(seconds)

    async def scrape(self) -> Samples:
        return samples(str(await self.exporter.page(max_wait=30)))

    async def next(self, seconds: float = 30.0) -> Samples:
        """Let time pass, then scrape."""
        self.play(seconds)
        return await self.scrape()


@contextlib.asynccontextmanager
async def bench(
    *, storage: Path | None = None, runtime: Callable[[str], RuntimeConfig] = runtime_config, **settings: Any
) -> AsyncIterator[Bench]:
    """A bench whose exporter has not read anything yet."""
    faulty = FaultyRuntime(ScriptedRuntime(Clock()))
    async with faulty.serving() as url:
        sync = SyncConfig(min_interval=Duration(0), **settings.pop("sync", {}))
        config = Config(runtime=runtime(url), sync=sync, **settings)
        made = Bench(url, faulty, storage, config)
        yield made
        await made.exporter.close()


def dated(by: Callable[[], float]) -> Fault:
    """A fault that dates a response, in its body and in its head, by another clock."""

    async def fault(exchange: Exchange) -> None:
        body, date = exchange.response.content, {"Date": formatdate(by(), usegmt=True)}
        if b'"asOf"' in body:
            body = json.dumps({**exchange.document, "asOf": rfc3339(by())}).encode()
        await exchange.send(body, headers=date)

    return fault


def changes(change: Callable[[Any], None]) -> Fault:
    """A fault that changes the JSON of a response; one without a body (304) stays as it is."""

    async def fault(exchange: Exchange) -> None:
        if not exchange.response.content:
            await exchange.send()
            return
        document = exchange.document
        change(document)
        await exchange.send(json.dumps(document).encode())

    return fault
