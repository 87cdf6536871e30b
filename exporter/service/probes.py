"""Probes: each probed project has its own store.

The list of projects and the state of the worker service are read once for all probes within `sync.min_interval`. A
project that has not been probed for a while is dropped.
"""

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Protocol

from exporter.config import Config
from exporter.errors import ApiError, UnreadableError
from exporter.metrics.catalogue import ScrapeContext
from exporter.metrics.exposition import Exposition
from exporter.metrics.formats import Format
from exporter.metrics.page import MetricsPage
from exporter.runs.spinners import SpinnerSlots
from exporter.runs.store import Store
from exporter.runtime.client import RuntimeClient
from exporter.runtime.model import Health
from exporter.sync.budget import Budget
from exporter.sync.failed_records import FailedRecordReader
from exporter.sync.problems import ProblemLog, one_read
from exporter.sync.project_list import ProjectList
from exporter.sync.project_sync import ProjectSync
from exporter.sync.records_in_flight import RecordsInFlightReader
from exporter.sync.runtime_sync import SyncObserver, read_health
from exporter.sync.single_flight import SingleFlight
from exporter.sync.waiting_records import WaitingRecordsReader

IDLE = 900.0
"""Seconds after its last probe until a project is dropped: longer than the replacement of a Prometheus takes."""


PROBE_SHARE = 0.5
"""The part of each budget of records, as far as it is left, that the read of one project may use."""


class Probes:
    """Reads single projects of one runtime when they are probed, and holds their stores."""

    def __init__(
        self,
        client: RuntimeClient,
        project_list: ProjectList,
        config: Config,
        observer: "ProbeObserver",
        *,
        runtime: str,
        make_store: "MakeStore",
        monotonic: Callable[[], float],
    ) -> None:
        """`runtime` is its name. `limits.runs` and `limits.spinners` limit what all probed projects have together."""
        self._runtime = runtime
        self._client = client
        self._project_list = project_list
        self._config = config
        self._observer = observer
        self._make_store = make_store
        self.slots = SpinnerSlots()
        """The slots of the spinners of all probed projects."""
        self._monotonic = monotonic
        self._problems = ProblemLog(monotonic, name_of=project_list.name_of)
        self._failed_records = FailedRecordReader(client, config, self._problems)
        self._records_in_flight = RecordsInFlightReader(client, config, self._problems, observer, monotonic=monotonic)
        self._waiting_records = WaitingRecordsReader(client, config, self._problems, observer, monotonic=monotonic)
        self._rereads = Budget(config.limits.rereads)
        self._health: tuple[Health, float] | None = None
        """And our monotonic time of its request."""
        self._shared = SingleFlight(self._read_shared, min_interval=config.sync.min_interval, monotonic=monotonic)
        self._is_stopped = False
        self.held: dict[str, ProbedProject] = {}
        """The projects that are probed, by id."""

    async def projects(self, max_wait: float) -> dict[str, str]:
        """Return the projects that can be probed, id to name; raises `UnreadableError` before the first good read."""
        await self._refresh(max_wait)
        missing = self.held.keys() - self._project_list.wanted.keys()
        held = {project_id: name for project_id in missing if (name := self._name_of(project_id)) is not None}
        return self._project_list.wanted | held

    async def page(self, project_id: str, page_format: Format, max_wait: float) -> MetricsPage | None:
        """Return the page of one project; None if `projects` does not have it; raises `UnreadableError` as that does.

        Waits at most `max_wait` seconds. Without a successful read by then, it shows the one before.
        """
        deadline = self._monotonic() + max_wait
        if self._name_of(project_id) is None:
            # It may be new. `sync.min_interval` limits how often the list is read for that.
            self._project_list.look_again()
        await self._refresh(max_wait)
        name = self._name_of(project_id)
        if name is None:
            return None
        probed = self.held.get(project_id) or self._begin(project_id)
        probed.asked_at = self._monotonic()
        probed.store.name_projects({project_id: name})
        ok = await probed.shared.fresh(deadline - self._monotonic())
        if not any(probed.store.view.projects()):
            return None  # it is gone
        context = ScrapeContext(probed.store, probed.store.clock, ok)
        return await probed.exposition.page({self._runtime: context}, page_format)

    def take_over(self, predecessor: "Probes") -> None:
        """Continue with the stores of a stopped predecessor."""
        self.slots = predecessor.slots
        for project_id, probed in predecessor.held.items():
            self.held[project_id] = self._probe(project_id, probed.store, asked_at=probed.asked_at)
        self._limit_runs()

    def forget_idle(self) -> None:
        """Drop the projects that have not been probed for `IDLE` seconds."""
        long_ago = self._monotonic() - IDLE
        for project_id, probed in list(self.held.items()):
            if probed.asked_at < long_ago:
                self._forget(project_id)

    async def stop(self) -> None:
        """Cancel reads in progress and start no more."""
        self._is_stopped = True
        await self._shared.stop()
        for probed in list(self.held.values()):
            await probed.shared.stop()

    async def _refresh(self, max_wait: float) -> None:
        """Read what all probes share; raises `UnreadableError` before the first good read."""
        await self._shared.fresh(max_wait)
        if not self._shared.ever_ok:
            raise UnreadableError("The runtime's list of projects has not been read yet; the log says why.")

    def _name_of(self, project_id: str) -> str | None:
        """Return the unique name of a project that can be probed; None for any other.

        A list that is empty or incomplete for a moment must not end the probes of projects that are held.
        """
        name = self._project_list.wanted.get(project_id)
        probed = self.held.get(project_id)
        if name is not None or probed is None:
            return name
        return next((project.name for project in probed.store.view.projects()), None)

    def _begin(self, project_id: str) -> "ProbedProject":
        if self._is_stopped:
            raise UnreadableError(
                "The config was reloaded, or the exporter ends, before this project was read; the next probe reads it."
            )
        self.held[project_id] = self._probe(project_id, self._make_store(slots=self.slots), asked_at=self._monotonic())
        return self.held[project_id]

    def _probe(self, project_id: str, store: Store, *, asked_at: float) -> "ProbedProject":
        project_sync = ProjectSync(
            self._client,
            store,
            self._config,
            self._problems,
            record_readers=(self._failed_records, self._records_in_flight, self._waiting_records),
            rereads=self._rereads,
            is_listed=self._project_list.has,
            listed_at=lambda: self._project_list.requested_at,
            monotonic=self._monotonic,
        )

        async def read() -> bool:
            started, runs_before = self._monotonic(), store.view.run_count
            store.clock.begin()
            try:
                async with asyncio.timeout(self._config.sync.stale_after):
                    ok = await project_sync.read(project_id, self._project_list.names.get(project_id))
                    if ok:
                        # A part of what is left, so that something is left for the other projects of this round.
                        await self._records_in_flight.read(store, store.project_ids(), share=PROBE_SHARE)
                        await self._failed_records.read(store, store.project_ids(), share=PROBE_SHARE)
                        await self._waiting_records.read(store, store.project_ids(), share=PROBE_SHARE)
            except TimeoutError:
                ok = False
                store.fail(project_id, f"not finished within {self._config.sync.stale_after:.0f} s")
            if self._health is not None:
                # Not shown with a project, but the silence of its runs during an outage of the runtime is not a stall.
                # After the read, which tells whether a clock was set.
                store.keep_health(*self._health)
            store.expire()
            if store.view.run_count > runs_before:
                self._limit_runs(just_read=project_id)
            self._observer.sync_ended(self._monotonic() - started, ok=ok)
            return ok

        shared = SingleFlight(read, min_interval=self._config.sync.min_interval, monotonic=self._monotonic)
        return ProbedProject(store, Exposition(None), shared, asked_at)

    async def _read_shared(self) -> bool:
        self._client.begin_sync()
        self._failed_records.begin()
        self._records_in_flight.begin()
        self._waiting_records.begin()
        self._rereads.refill()
        try:
            async with asyncio.timeout(self._config.sync.stale_after):
                with one_read():
                    await self._project_list.refresh(held=self._names())
        except (ApiError, TimeoutError) as error:
            # Each page may have been fast enough, but all of them were not.
            late = f"not finished within {self._config.sync.stale_after:.0f} s"
            self._problems.report("projects", error if isinstance(error, ApiError) else late)
            return False
        finally:
            self.forget_idle()
            # Once for all projects, so that many that fail for the same reason are logged in one line.
            self._problems.log()
        self._problems.resolve("projects")
        for project_id in self.held.keys() - self._project_list.wanted.keys():
            if project_id in self._project_list.names or not self.held[project_id].store.project_ids():
                self._forget(project_id)
        if self._client.has("health"):
            requested_at = self._monotonic()
            health = await read_health(self._client, self._problems)
            self._health = None if health is None else (health, requested_at)
        return True

    def _names(self) -> dict[str, str]:
        return {each: name for probed in self.held.values() for each, name in probed.store.project_names().items()}

    def _limit_runs(self, *, just_read: str | None = None) -> None:
        """Drop the projects that were probed least recently until the others are within the limit."""
        excess = sum(probed.store.view.run_count for probed in self.held.values()) - self._config.limits.runs
        if excess <= 0:
            return
        for project_id, probed in sorted(self.held.items(), key=lambda item: item[1].asked_at):
            count = probed.store.view.run_count
            # Without runs it takes no part in the excess: its first read may be in progress.
            if excess > 0 and count and project_id != just_read:
                excess -= count
                self._forget(project_id)
                self._observer.run_dropped("limit", count)

    def _forget(self, project_id: str) -> None:
        # A read in progress would report problems of a project that is no longer probed.
        forgotten = self.held.pop(project_id)
        forgotten.shared.cancel()
        forgotten.store.release()
        self._problems.forget(project_id)
        self._failed_records.forget(project_id)
        self._records_in_flight.forget(project_id)
        self._waiting_records.forget(project_id)


class MakeStore(Protocol):
    """Makes the store of a project."""

    def __call__(self, *, slots: SpinnerSlots) -> Store:
        """`slots` are shared by all."""


class ProbeObserver(SyncObserver, Protocol):
    """Receives the result of every read of a project, and the number of dropped runs."""

    def run_dropped(self, reason: str, count: int) -> None:
        """`count` runs were removed before the end of their retention."""


@dataclasses.dataclass(slots=True)
class ProbedProject:
    """A project that is probed, with what was read of it."""

    store: Store
    exposition: Exposition
    """The cached lines of the store."""
    shared: SingleFlight
    asked_at: float
    """Monotonic time of the last probe."""
