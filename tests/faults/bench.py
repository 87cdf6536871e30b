"""An exporter that reads a runtime over a real connection, each with a clock of its own that a test sets."""

import contextlib
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec
import structlog

from exporter.config import Config, Duration, RuntimeConfig, SyncConfig
from exporter.metrics.formats import TEXT, Format
from exporter.service import Exporter
from exporter.service.monitored_runtime import Dependencies
from tests.builders import RUNTIME, Clock, runtime_config
from tests.faults.server import Fault, FaultyRuntime
from tests.metrics.test_exposition import Samples, samples, value
from tests.scripted import ScriptedRuntime, no_sleep

HOUR = 3600.0
DAY = 86400.0


class Bench:
    """Time passes for both by `play`; `runtime.clock`, `wall` and `monotonic` can be set apart."""

    def __init__(self, faulty: FaultyRuntime, config: Config, storage: Path | None = None) -> None:
        self.faulty, self.runtime = faulty, faulty.runtime
        self.wall, self.monotonic = Clock(self.runtime.clock()), Clock(1000.0)
        self.config = config
        self.lines: list[Any] = []
        """What the exporter logged while it made pages."""
        self._storage = storage
        self.exporter = self._made()

    @classmethod
    def reading(cls, faulty: FaultyRuntime, url: str, runtime: Callable[[str], RuntimeConfig] = runtime_config) -> Self:
        """Return a bench whose exporter reads another URL than that of the runtime."""
        return cls(
            faulty,
            Config(runtime=runtime(url), sync=SyncConfig(min_interval=Duration(0), projects_interval=Duration(0))),
        )

    def _made(self) -> Exporter:
        dependencies = Dependencies(wall=self.wall, monotonic=self.monotonic, sleep=no_sleep)
        return Exporter({RUNTIME: self.config}, dependencies, storage=self._storage)

    async def restart(self, **settings: Any) -> None:
        """Stop the exporter and start another one on its files, with other settings in its config."""
        await self.exporter.close()
        self.monotonic = Clock(50_000.0)
        self.config = msgspec.structs.replace(self.config, **settings)
        self.exporter = self._made()

    def play(self, seconds: float) -> None:
        for clock in (self.runtime.clock, self.wall, self.monotonic):
            clock.advance(seconds)

    async def page(self, after: float = 0.0, page_format: Format = TEXT) -> str:
        """Let time pass and return a page; no series may be on it twice."""
        self.play(after)
        with structlog.testing.capture_logs() as lines:
            text = str(await self.exporter.page(page_format, max_wait=30))
        self.lines += lines
        series = Counter(line.rsplit(" ", 1)[0] for line in text.splitlines() if not line.startswith("#"))
        assert [each for each, count in series.items() if count > 1] == [], "Prometheus refuses this page"
        return text

    async def scrape(self) -> Samples:
        """Return the samples of a page."""
        return samples(await self.page())

    async def next(self, seconds: float = 30.0) -> Samples:
        """Let time pass, then scrape."""
        return samples(await self.page(seconds))

    @property
    def problems(self) -> list[str]:
        """The warnings and errors that were logged, each with its reason."""
        return [str(line) for line in self.lines if line["log_level"] in ("warning", "error")]


B = TypeVar("B", bound=Bench)


@contextlib.asynccontextmanager
async def bench(scripted: ScriptedRuntime | None = None, **options: Any) -> AsyncIterator[Bench]:
    """A bench whose exporter has not read anything yet; for the options see `bench_of`."""
    async with bench_of(Bench, scripted, **options) as made:
        yield made


@contextlib.asynccontextmanager
async def bench_of(
    kind: type[B],
    scripted: ScriptedRuntime | None = None,
    *,
    runtime: Callable[[str], RuntimeConfig] = runtime_config,
    storage: Path | None = None,
    fault: Fault | None = None,
    path: str = "",
    keeps: bool = False,
    tls: ssl.SSLContext | None = None,
    **settings: Any,
) -> AsyncIterator[B]:
    """A bench of a subclass.

    `runtime` makes the config of the runtime from its URL. `settings` are sections of the config; those of `sync` can
    be given as a mapping. The rest is for `FaultyRuntime`.
    """
    faulty = FaultyRuntime(scripted or ScriptedRuntime(Clock()), fault, path, keeps)
    sync = settings.pop("sync", {})
    if not isinstance(sync, SyncConfig):
        sync = SyncConfig(**{"min_interval": Duration(0), "projects_interval": Duration(0), **sync})
    async with faulty.serving(tls) as url:
        made = kind(faulty, Config(runtime=runtime(url), sync=sync, **settings), storage)
        yield made
        await made.exporter.close()


def configured(**fields: Any) -> Callable[[str], RuntimeConfig]:
    """Return the config of a runtime with these fields of its section."""
    return lambda url: msgspec.structs.replace(runtime_config(url), **fields)


def described(**resources: dict[str, Any]) -> Callable[[str], RuntimeConfig]:
    """Return the config for an API that differs from the contract in these keys of its resources."""

    def made(url: str) -> RuntimeConfig:
        config = runtime_config(url)
        tree = msgspec.to_builtins(config.resources)
        for name, changes in resources.items():
            tree[name] = {**(tree[name] or {}), **changes}
        return msgspec.structs.replace(config, resources=msgspec.convert(tree, type(config.resources)))

    return made


def two_projects(clock: Clock) -> ScriptedRuntime:
    """A runtime with the projects Sales and Support, each with a run."""
    runtime = ScriptedRuntime(clock)
    runtime.projects = {"p1": "Sales", "p2": "Support"}
    runtime.put("run-1", records={"total": 10, "completed": 5})
    runtime.put("run-2", projectId="p2", records={"total": 10, "completed": 5})
    return runtime


def up(found: Samples) -> tuple[float | None, ...]:
    """Whether the API, and the projects Sales and Support, could be read."""
    projects = [value(found, "spinner_project_up", project=name) for name in ("Sales", "Support")]
    return value(found, "spinner_api_up"), *projects
