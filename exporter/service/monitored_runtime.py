"""One runtime under one config: its client, its store and what reads into it."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from exporter.config import Config
from exporter.metrics.catalogue import ScrapeContext
from exporter.metrics.exporter_metrics import RuntimeMetrics
from exporter.metrics.formats import Format
from exporter.metrics.page import MetricsPage
from exporter.runs.clock import RuntimeClock
from exporter.runs.spinners import SpinnerSlots
from exporter.runs.state_file import StateFile, StateWriter
from exporter.runs.store import Store
from exporter.runtime.auth import Credentials, Token
from exporter.runtime.client import RuntimeClient
from exporter.runtime.connections import Connections, Transport
from exporter.runtime.decoder import Decoder
from exporter.runtime.http_client import HttpClient
from exporter.runtime.login import Login
from exporter.runtime.statuses import StatusMap
from exporter.service.probes import Probes
from exporter.status import Status
from exporter.sync.project_list import ProjectList
from exporter.sync.runtime_sync import RuntimeSync
from exporter.sync.single_flight import SingleFlight

log = structlog.get_logger(__name__)


def since_boot() -> float:
    """Return seconds of a clock that nobody sets, and that goes on while the machine is suspended.

    `time.monotonic` stops on Linux during a suspend: data would be as old after it as before.
    """
    return time.clock_gettime(_SINCE_BOOT) if _SINCE_BOOT is not None else time.monotonic()


_SINCE_BOOT: int | None = getattr(time, "CLOCK_BOOTTIME", None)


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What tests replace: clocks, transport and sleep."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = since_boot
    transport: Transport | None = None
    """None: real connections."""
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep


class MonitoredRuntime:
    """Reads a runtime when a request needs it, and holds what it read."""

    def __init__(
        self,
        name: str,
        config: Config,
        metrics: RuntimeMetrics,
        dependencies: Dependencies,
        *,
        after: "MonitoredRuntime | None",
        storage: Path | None,
        shares_url: bool = False,
    ) -> None:
        """Opens no connection; series and log lines carry `name`.

        `after` is the one that this one continues: its store is shared, and not changed before `begin`. `storage` is
        the folder for state that survives a restart; None keeps none. `shares_url`: another runtime has the same URL.
        Raises `ConfigError` if a file that the config names cannot be used.
        """
        self.config = config
        self._dependencies = dependencies
        self._metrics = metrics
        self.decoder = Decoder(
            status_map(config),
            _DecodeObserver(metrics),
            config.runtime.resources,
            label_length=config.limits.label_length,
            failure_groups=config.limits.failure_groups,
            wall=dependencies.wall,
        )
        http_client = HttpClient(
            Connections(
                config.runtime,
                concurrency=config.sync.concurrency,
                transport=dependencies.transport,
                monotonic=dependencies.monotonic,
            ),
            timeout=config.runtime.timeout,
            max_body=config.limits.body_bytes,
            observer=metrics,
            monotonic=dependencies.monotonic,
            sleep=dependencies.sleep,
            wall=dependencies.wall,
        )
        self.client = RuntimeClient(
            http_client,
            config.runtime.base_url,
            config.runtime.resources,
            credentials=_credentials(config, http_client, dependencies),
            decoder=self.decoder,
            limits=config.limits,
            max_age=config.sync.stale_after,
            wall=dependencies.wall,
        )
        project_list = ProjectList(
            self.client,
            wanted=config.projects.wanted,
            only_project=config.runtime.project,
            interval=config.sync.projects_interval,
            sweep_interval=config.sync.sweep_interval,
            label_length=config.limits.label_length,
            monotonic=dependencies.monotonic,
        )
        self.store: Store
        self.state_writer: StateWriter | None = None
        if after is not None:
            self.store, self.state_writer = after.store, after.state_writer
        else:
            self.store = self._make_store(is_saved=storage is not None)
            if storage is not None:
                file = StateFile(storage, name, config.runtime.base_url, shares_url=shares_url, wall=dependencies.wall)
                self.store.persistence.restore(file.load())
                self.state_writer = StateWriter(file, self.store.persistence, metrics, dependencies.monotonic)
        sync = RuntimeSync(self.client, self.store, project_list, config, metrics, monotonic=dependencies.monotonic)
        self._sync = sync
        self.probes = Probes(
            self.client,
            project_list,
            config,
            metrics,
            runtime=name,
            make_store=self._make_store,
            monotonic=dependencies.monotonic,
        )

        self._log_context = {"runtime": name}

        async def read() -> bool:
            with structlog.contextvars.bound_contextvars(**self._log_context):
                ok = await sync.run()
                await self._flush()
                return ok

        self._shared = SingleFlight(read, min_interval=config.sync.min_interval, monotonic=dependencies.monotonic)

    def begin(self, predecessor: "MonitoredRuntime") -> None:
        """Apply the config to the shared store, and take over what else the stopped `predecessor` holds."""
        self._shared.ever_ok = predecessor.ready
        self.probes.take_over(predecessor.probes)
        for store in (self.store, *(probed.store for probed in self.probes.held.values())):
            store.config = self.config
            store.dropped = self._metrics.run_dropped
        if self.state_writer is not None:
            self.state_writer.observer = self._metrics

    @property
    def ready(self) -> bool:
        """Whether the API has ever been read, so that there is something to show."""
        return self._shared.ever_ok

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the last sync could not read something, as the log says."""
        return self._sync.reasons

    @property
    def read_together(self) -> int:
        """How many projects the last sync read from one list of all."""
        return self._sync.read_together

    @property
    def has_records_of_all_runs(self) -> bool | None:
        """Whether the runtime has one list of the failed records of all runs; None while it was not needed."""
        return self._sync.common_records.is_proven

    @property
    def lists_waiting_records(self) -> bool | None:
        """Whether the runtime lists waiting records; None while it was not needed, or could not be read."""
        return self._sync.waiting_records.is_listed

    async def refresh(self, max_wait: float) -> bool:
        """Read, waiting at most `max_wait` seconds; return whether the last read succeeded and ended in time."""
        return await self._shared.fresh(max_wait)

    async def scrape(self, max_wait: float) -> ScrapeContext:
        """Read, and return what to show."""
        deadline = self._dependencies.monotonic() + max_wait
        api_up = await self.refresh(max_wait)
        # A read in progress may have stored projects that are not saved. A restart must not reset what a page shows.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._flush(), max(deadline - self._dependencies.monotonic(), LEAST_FLUSH_TIME))
        return ScrapeContext(self.store, self.store.clock, api_up)

    async def projects(self, max_wait: float) -> dict[str, str]:
        """Return the projects that can be probed, id to name; raises `UnreadableError` before the first good read."""
        with structlog.contextvars.bound_contextvars(**self._log_context):
            return await self.probes.projects(max_wait)

    async def probe(self, project_id: str, page_format: Format, max_wait: float) -> MetricsPage | None:
        """Return the page of one project; None if the runtime does not list it or the config excludes it."""
        with structlog.contextvars.bound_contextvars(**self._log_context):
            return await self.probes.page(project_id, page_format, max_wait)

    def report_probes(self) -> None:
        """Update the metrics about probed projects, of which those are dropped that nobody probes any more."""
        self.probes.forget_idle()
        held = self.probes.held.values()
        self._metrics.probing(projects=len(held), runs=sum(probed.store.view.run_count for probed in held))

    async def stop(self) -> None:
        """Cancel reads in progress and start no more. Requests are still answered, from the last successful reads."""
        await self._shared.stop()
        await self.probes.stop()

    async def close(self, *, is_continued: bool = False) -> None:
        """Stop; close connections, and the state file unless the one that continues this one writes it from now on."""
        await self.stop()
        await self.client.close()
        if self.state_writer is not None and not is_continued:
            await self.state_writer.flush(is_last=True)
            self.state_writer.close()

    def discard(self) -> None:
        """Close the state file of a runtime that was built, continues none and has read nothing."""
        if self.state_writer is not None:
            self.state_writer.close()

    def _make_store(self, *, is_saved: bool = False, slots: SpinnerSlots | None = None) -> Store:
        return Store(
            self.config,
            RuntimeClock(self._dependencies.wall, self._dependencies.monotonic),
            monotonic=self._dependencies.monotonic,
            dropped=self._metrics.run_dropped,
            is_saved=is_saved,
            slots=slots,
        )

    async def _flush(self) -> None:
        if self.state_writer is not None:
            await self.state_writer.flush()


LEAST_FLUSH_TIME = 0.2
"""Seconds for a write to disk even if the read used all the time; less than the default of `sync.timeout_offset`."""


class _DecodeObserver:
    """Counts items and unknown labels, and logs each reason why an item is invalid once."""

    def __init__(self, metrics: RuntimeMetrics) -> None:
        self._metrics = metrics
        self._logged: set[tuple[str, str]] = set()

    def decoded_items(self, kind: str, count: int) -> None:
        self._metrics.decoded_items(kind, count)

    def invalid_item(self, kind: str, reason: str, bug: Exception | None = None) -> None:
        self._metrics.invalid_item(kind)
        if self._is_first(kind, reason):
            log.warning("skipping invalid item", kind=kind, reason=reason, **({"exc_info": bug} if bug else {}))

    def ignored_value(self, kind: str, field: str) -> None:
        self._metrics.invalid_item(kind)
        if self._is_first(kind, f"{field}: not a value that can be right"):
            log.warning("ignoring a value that cannot be right", kind=kind, field=field)

    def unmapped_status(self, label: str) -> None:
        if self._metrics.unmapped_status(label):
            log.warning("unknown status label; map it under statuses: in the config", label=label)

    def _is_first(self, kind: str, reason: str) -> bool:
        """Whether a reason is to be logged: for the first time, and while there are not too many."""
        is_first = (kind, reason) not in self._logged and len(self._logged) < MAX_LOGGED_REASONS
        if is_first:
            self._logged.add((kind, reason))
        return is_first


MAX_LOGGED_REASONS = 50
"""Different reasons for invalid items that are logged; all of them are counted."""


def status_map(config: Config) -> StatusMap:
    """Return the statuses of all labels: the built-in ones, and those of the config."""
    return StatusMap({label: Status(status) for label, status in config.statuses.items()})


def _credentials(config: Config, http_client: HttpClient, dependencies: Dependencies) -> Credentials:
    runtime, auth = config.runtime, config.runtime.auth
    source: Token | Login
    if auth.login is not None:
        source = Login(
            auth.login,
            http_client,
            runtime.base_url,
            monotonic=dependencies.monotonic,
            wall=dependencies.wall,
            any_text=auth.type == "basic",
        )
    else:
        source = Token(
            file=Path(runtime.token_file) if runtime.token_file else None,
            value=runtime.token.reveal() if runtime.token else None,
        )
    return Credentials(source, kind=auth.type, header=auth.header, username=auth.username, value=auth.value)
