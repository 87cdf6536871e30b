"""One runtime under one config: the rooms from the client to the store, put together."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from exporter.config import Config, canonical_url
from exporter.metrics.catalogue import ScrapeContext
from exporter.metrics.exporter_metrics import RuntimeMetrics
from exporter.runs.clock import RuntimeClock
from exporter.runs.state_file import StateFile, StateWriter
from exporter.runs.store import Store
from exporter.runtime.auth import Credentials, Token
from exporter.runtime.client import RuntimeClient
from exporter.runtime.connections import Connections, Transport
from exporter.runtime.decoder import Decoder
from exporter.runtime.http_client import HttpClient
from exporter.runtime.statuses import StatusMap
from exporter.service.probes import Probes
from exporter.status import Status
from exporter.sync.project_list import ProjectList
from exporter.sync.runtime_sync import RuntimeSync
from exporter.sync.single_flight import SingleFlight

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What the exporter takes from outside, so that tests can give their own."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    transport: Transport | None = None
    """None: real connections."""
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep


class MonitoredRuntime:
    """Reads a runtime when it is asked to, and holds what it read."""

    def __init__(
        self,
        name: str,
        config: Config,
        own: RuntimeMetrics,
        dependencies: Dependencies,
        *,
        after: "MonitoredRuntime | None" = None,
        storage: Path | None = None,
    ) -> None:
        """Opens no connection; logs carry `name` unless it is empty.

        `after` is the reader in whose place this one comes: what it holds is gone on with, if it is of the same
        runtime, and not changed before `begin`. `storage` is the folder for what outlives the process, if anything is
        to. Raises `ConfigError` when files that the config names cannot be used.
        """
        self.config = config
        self._dependencies = dependencies
        self._own = own
        self.decoder = Decoder(
            status_map(config), _Findings(own), config.runtime.resources, label_length=config.limits.label_length
        )
        http_client = HttpClient(
            Connections(config.runtime, concurrency=config.sync.concurrency, transport=dependencies.transport),
            timeout=config.runtime.timeout,
            max_body=config.limits.body_bytes,
            observer=own,
            monotonic=dependencies.monotonic,
            sleep=dependencies.sleep,
        )
        self.client = RuntimeClient(
            http_client,
            config.runtime.base_url,
            config.runtime.resources,
            credentials=_credentials(config),
            decoder=self.decoder,
            max_pages=config.limits.pages,
            wall=dependencies.wall,
        )
        project_list = ProjectList(
            self.client,
            wanted=config.projects.wanted,
            only_project=config.runtime.project,
            sweep_interval=config.sync.sweep_interval,
            monotonic=dependencies.monotonic,
        )
        self._follows = after is not None and canonical_url(after.config.runtime.base_url) == canonical_url(
            config.runtime.base_url
        )
        self.store: Store
        self.state_writer: StateWriter | None = None
        if after is not None and self._follows:
            self.store, self.state_writer = after.store, after.state_writer
        else:
            self.store = self._make_store(is_saved=storage is not None)
            if storage is not None:
                file = StateFile(storage, name, config.runtime.base_url, wall=dependencies.wall)
                self.store.persistence.restore(file.load())
                self.state_writer = StateWriter(file, self.store.persistence, own)
        sync = RuntimeSync(self.client, self.store, project_list, config, own, monotonic=dependencies.monotonic)
        self.probes: Probes = Probes(
            self.client,
            project_list,
            config,
            own,
            make_store=self._make_store,
            min_interval=config.sync.min_interval,
            deadline=config.sync.stale_after,
            monotonic=dependencies.monotonic,
            held=after.probes.held if after is not None and self._follows else None,
        )

        self._log_context = {"runtime": name} if name else {}

        async def read() -> bool:
            with structlog.contextvars.bound_contextvars(**self._log_context):
                ok = await sync.run()
                await self._flush()
                return ok

        self._shared = SingleFlight(read, min_interval=config.sync.min_interval, monotonic=dependencies.monotonic)
        self._shared.ever_ok = after is not None and self._follows and after.ready

    def begin(self) -> None:
        """Let this reader's config hold for what it holds."""
        for store in (self.store, *self.probes.held.values()):
            store.config = self.config

    @property
    def ready(self) -> bool:
        """Whether the API has ever been read, so that there is something to say."""
        return self._shared.ever_ok

    async def refresh(self, patience: float) -> bool:
        """Have the store read, waiting at most `patience` seconds; return whether it shows a good read, had in time."""
        return await self._shared.fresh(patience)

    async def moment(self, patience: float) -> ScrapeContext:
        """Return what there is to show of this moment, after a `refresh`."""
        give_up = self._dependencies.monotonic() + patience
        api_up = await self.refresh(patience)
        # Of a read that goes on some projects may be here that are not saved yet: what is shown must not be taken back.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._flush(), max(give_up - self._dependencies.monotonic(), LEAST_PATIENCE))
        return ScrapeContext(self.store, self.store.clock, api_up)

    async def projects(self, patience: float) -> dict[str, str]:
        """Return the projects that can be probed, id to name; raises `UnreadableError` before the first good read."""
        with structlog.contextvars.bound_contextvars(**self._log_context):
            return await self.probes.projects(patience)

    async def probe(self, project_id: str, patience: float) -> ScrapeContext | None:
        """Return what there is to show of one project; None when there is no such project to be read."""
        with structlog.contextvars.bound_contextvars(**self._log_context):
            return await self.probes.moment(project_id, patience)

    async def close(self, *, heir: "MonitoredRuntime | None" = None) -> None:
        """End a sync that is under way and close connections and files; `heir` goes on with what it follows."""
        await self._shared.stop()
        await self.probes.stop()
        await self.client.close()
        if self.state_writer is not None and (heir is None or heir.state_writer is not self.state_writer):
            await self.state_writer.flush()
            self.state_writer.close()

    def _make_store(self, *, is_saved: bool = False) -> Store:
        return Store(
            self.config,
            RuntimeClock(self._dependencies.wall),
            monotonic=self._dependencies.monotonic,
            dropped=self._own.run_dropped,
            is_saved=is_saved,
        )

    async def _flush(self) -> None:
        if self.state_writer is not None:
            await self.state_writer.flush()


LEAST_PATIENCE = 0.2
"""Seconds that a disk is given even when the read has taken all the time: less than what is kept for the way back."""


class _Findings:
    """Counts what decoding finds, and logs each kind of it once."""

    def __init__(self, own: RuntimeMetrics) -> None:
        self._own = own
        self._logged: set[tuple[str, str]] = set()

    def invalid_item(self, kind: str, reason: str) -> None:
        self._own.invalid_item(kind)
        if (kind, reason) not in self._logged and len(self._logged) < MAX_LOGGED_REASONS:
            self._logged.add((kind, reason))
            log.warning("left out an item that is not what the API promises", kind=kind, reason=reason)

    def unmapped_status(self, label: str) -> None:
        if self._own.unmapped_status(label):
            log.warning("unknown status label; map it under statuses: in the config", label=label)


MAX_LOGGED_REASONS = 50
"""Different reasons for invalid items that are logged; the counter goes on."""


def status_map(config: Config) -> StatusMap:
    """Return what status labels mean here: those that are known, and the config's own."""
    return StatusMap({label: Status(idea) for label, idea in config.statuses.items()})


def _credentials(config: Config) -> Credentials:
    runtime, auth = config.runtime, config.runtime.auth
    token = Token(
        file=Path(runtime.token_file) if runtime.token_file else None,
        value=runtime.token.reveal() if runtime.token else None,
    )
    return Credentials(token, kind=auth.type, header=auth.header, username=auth.username)
