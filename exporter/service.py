"""The rooms put together: one exporter for one config, which can be swapped while it runs."""

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from exporter import __version__
from exporter.config import Config
from exporter.metrics.catalogue import Now
from exporter.metrics.exposition import TEXT, Exposition
from exporter.metrics.own import OwnMetrics
from exporter.runs.clock import RuntimeClock
from exporter.runs.pace import Bounds, SpinnerRules
from exporter.runs.store import Rules, Store
from exporter.runs.sync import SharedSync, Sync, SyncRules
from exporter.runtime.auth import Credentials, Token
from exporter.runtime.client import RuntimeClient
from exporter.runtime.connection import Transport, connect
from exporter.runtime.statuses import StatusMap
from exporter.runtime.wire import Decoder
from exporter.status import Status

log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class World:
    """What the exporter takes from outside, so that tests can give their own."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    transport: Transport | None = None
    """None: real connections."""


class Exporter:
    """Reads the runtime when it is asked for a page, and answers in time."""

    def __init__(self, config: Config, world: World | None = None) -> None:
        """Opens no connection. Raises `ConfigError` when the token's file cannot be used."""
        self._world = world or World()
        self.own = OwnMetrics(version=__version__, wall=self._world.wall)
        self.config = config
        self.store = self._make_store(config)
        self._exposition = Exposition(self.own)
        self._reading = self._make_reading(config, self.store)
        self.own.config_reloaded(ok=True)

    @property
    def ready(self) -> bool:
        """Whether the API has ever been read, so that the page says something."""
        return self._reading.shared.ever_ok

    @property
    def connection(self) -> tuple[RuntimeClient, Decoder]:
        """What asks the runtime, and what reads its answers, for those who want to look both over."""
        return self._reading.client, self._reading.decoder

    async def page(self, content_type: str = TEXT, *, patience: float | None = None) -> bytes:
        """Return the page of this moment; waits for a sync at most `patience` seconds (None: `PATIENCE`)."""
        api_up = await self.refresh(patience)
        return self._exposition.render(Now(self.store, self.store.clock, api_up), content_type)

    async def refresh(self, patience: float | None = None) -> bool:
        """Have the store read; return whether it shows a good read of the API, had in time."""
        return await self._reading.shared.fresh(PATIENCE if patience is None else patience)

    async def reload(self, config: Config) -> None:
        """Go on with another config. What is known and counted stays, unless it is of another runtime.

        Raises `ConfigError`, with nothing changed, when the new token's file cannot be used.
        """
        same_runtime = config.runtime.base_url == self.config.runtime.base_url
        store = self.store if same_runtime else self._make_store(config)
        reading = self._make_reading(config, store)
        reading.shared.ever_ok = same_runtime and self.ready
        old, self._reading = self._reading, reading
        self.config, self.store = config, store
        self.store.rules = _store_rules(config)
        await old.close()

    async def close(self) -> None:
        """End a sync that is under way and close the connections."""
        await self._reading.close()

    def _make_store(self, config: Config) -> Store:
        return Store(
            _store_rules(config),
            RuntimeClock(self._world.wall),
            monotonic=self._world.monotonic,
            dropped=self.own.run_dropped,
        )

    def _make_reading(self, config: Config, store: Store) -> "_Reading":
        world = self._world
        decoder = Decoder(
            status_map(config), _Findings(self.own), config.runtime.resources, label_length=config.limits.label_length
        )
        client = RuntimeClient(
            connect(config.runtime, concurrency=config.sync.concurrency, transport=world.transport),
            config.runtime.base_url,
            config.runtime.resources,
            credentials=_credentials(config),
            decoder=decoder,
            observer=self.own,
            concurrency=config.sync.concurrency,
            monotonic=world.monotonic,
        )
        rules = SyncRules(
            retention=config.retention,
            overlap=config.sync.overlap,
            sweep_interval=config.sync.sweep_interval,
            wanted=config.projects.wanted,
            only_project=config.runtime.project,
        )
        sync = Sync(client, store, rules, self.own, monotonic=world.monotonic)
        shared = SharedSync(sync.run, min_interval=config.sync.min_interval, monotonic=world.monotonic)
        return _Reading(client, decoder, shared)


SCRAPE_INTERVAL = 15.0
"""Seconds between two scrapes where nobody says otherwise: what deploy/prometheus.yml has."""

PATIENCE = 9.5
"""Seconds to wait for a sync when the scraper names no timeout: Prometheus's default of 10 s, less the way back."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Reading:
    """What reads the runtime under one config."""

    client: RuntimeClient
    decoder: Decoder
    shared: SharedSync

    async def close(self) -> None:
        await self.shared.stop()
        await self.client.close()


class _Findings:
    """Counts what decoding finds, and logs each kind of it once."""

    def __init__(self, own: OwnMetrics) -> None:
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


def _store_rules(config: Config) -> Rules:
    return Rules(
        retention=config.retention,
        stale_after=config.sync.stale_after,
        max_runs=config.limits.runs,
        max_failed_records=config.limits.failed_records,
        max_failed_records_per_run=config.limits.failed_records_per_run,
        max_failure_groups=config.limits.failure_groups,
        heartbeat_timeout=config.runtime.heartbeat_timeout,
        spinner=_spinner_rules(config),
    )


def _spinner_rules(config: Config) -> Callable[[str, str], SpinnerRules]:
    """Return what finds the rules of a spinner; it is asked for every run of every page, so it remembers."""

    @functools.lru_cache(maxsize=10_000)
    def rules(project: str, spinner: str) -> SpinnerRules:
        entries = [entry for entry in config.spinners if entry.matches(project, spinner)]
        floor = next((e.stall_floor for e in entries if e.stall_floor is not None), config.stalls.floor)
        ceiling = next((e.stall_ceiling for e in entries if e.stall_ceiling is not None), config.stalls.ceiling)
        interval = next((e.expected_interval for e in entries if e.expected_interval is not None), None)
        return SpinnerRules(Bounds(floor, max(ceiling, floor)), interval)

    return rules
