"""Reads one runtime as a whole: health, plan meters, the list of projects, and each project.

There are no timers: a scrape starts a sync.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from exporter.config import Config
from exporter.errors import ApiError
from exporter.runs.store import Store
from exporter.runtime.client import RuntimeClient
from exporter.runtime.model import Health
from exporter.sync.budget import Budget
from exporter.sync.common_records import CommonRecords
from exporter.sync.common_sync import CommonSync
from exporter.sync.failed_records import FailedRecordReader
from exporter.sync.problems import ProblemLog, one_read
from exporter.sync.project_list import ProjectList
from exporter.sync.project_sync import ProjectSync
from exporter.sync.records_in_flight import RecordsInFlightObserver, RecordsInFlightReader
from exporter.sync.together import together
from exporter.sync.waiting_records import WaitingRecordsObserver, WaitingRecordsReader


class SyncObserver(RecordsInFlightObserver, WaitingRecordsObserver, Protocol):
    """Receives the result of every sync."""

    def sync_ended(self, seconds: float, *, ok: bool) -> None:
        """`ok`: whether the API could be read; `seconds`: how long it took."""

    def projects_not_read(self, count: int) -> None:
        """`count` projects are not read because of `limits.projects`."""


class RuntimeSync:
    """Reads one runtime: its health, its plan and its projects."""

    def __init__(
        self,
        client: RuntimeClient,
        store: Store,
        project_list: ProjectList,
        config: Config,
        observer: SyncObserver,
        *,
        monotonic: Callable[[], float],
    ) -> None:
        self._client = client
        self._store = store
        self._config = config
        self._observer = observer
        self._monotonic = monotonic
        self._project_list = project_list
        self.read_together = 0
        """How many projects the last sync read from one list of all."""
        self._health: tuple[Health, float] | None = None
        """What this sync has read, and our monotonic time of its request."""
        self._problems = ProblemLog(monotonic, name_of=project_list.name_of)
        self.common_records = CommonRecords(client, store, config, self._problems, monotonic=monotonic)
        """What reads the failed records of many runs together."""
        self._failed_records = FailedRecordReader(client, config, self._problems, common=self.common_records)
        self._records_in_flight = RecordsInFlightReader(client, config, self._problems, observer, monotonic=monotonic)
        self.waiting_records = WaitingRecordsReader(client, config, self._problems, observer, monotonic=monotonic)
        """What reads which records wait."""
        self._rereads = Budget(config.limits.rereads)
        self._project_sync = ProjectSync(
            client,
            store,
            config,
            self._problems,
            record_readers=(self._failed_records, self._records_in_flight, self.waiting_records),
            rereads=self._rereads,
            is_listed=project_list.has,
            listed_at=lambda: project_list.requested_at,
            monotonic=monotonic,
        )
        self._common = CommonSync(
            client,
            store,
            config,
            self._problems,
            project_sync=self._project_sync,
            project_list=project_list,
            monotonic=monotonic,
        )

    async def run(self) -> bool:
        """Read what changed; return whether the API could be read. No response of the API makes it raise."""
        started = self._monotonic()
        self._client.begin_sync()
        self._failed_records.begin()
        self._records_in_flight.begin()
        self.waiting_records.begin()
        self._rereads.refill()
        self._store.clock.begin()
        try:
            async with asyncio.timeout(self._config.sync.stale_after):
                projects_read, health_read, _ = await together(
                    self._read_projects(), self._read_health(), self._read_usage()
                )
            self._problems.resolve("everything")
            ok = bool(projects_read and health_read)
        except TimeoutError:
            # Each request was fast enough, but all of them were not.
            self._give_up(f"not finished within {self._config.sync.stale_after:.0f} s", before=started)
            ok = False
        if self._health is not None:
            # After the reads that tell whether a clock was set: a heartbeat would look old or new.
            self._store.keep_health(*self._health)
            self._health = None
        self._store.expire()
        self._problems.log()
        self._observer.sync_ended(self._monotonic() - started, ok=ok)
        return ok

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the last sync could not read something."""
        return self._problems.reasons

    def _give_up(self, why: str, *, before: float) -> None:
        """Note why the projects that were not read since `before` were not."""
        self._problems.report("everything", why)
        self._store.fail_unread_since(before, why)

    async def _read_health(self) -> bool:
        if not self._client.has("health"):
            return True
        requested_at = self._monotonic()
        health = await read_health(self._client, self._problems)
        if health is not None:
            self._health = health, requested_at
        return health is not None

    async def _read_usage(self) -> None:
        """Read the plan meters. If the token may not read the plan, the API still counts as up."""
        if not self._client.has("usage"):
            return
        requested_at = self._monotonic()
        try:
            with one_read():
                self._store.keep_meters(await self._client.usage(), requested_at)
        except ApiError as error:
            self._problems.report("usage", error)
        else:
            self._problems.resolve("usage")

    async def _read_projects(self) -> bool:
        try:
            with one_read():
                await self._list_projects()
        except ApiError as error:
            self._problems.report("projects", error)
            for project_id in self._store.project_ids():
                self._store.fail(project_id, error.public)
            return False
        self._problems.resolve("projects")
        reads = await self._read_together()
        # The list may have been read again meanwhile, and have dropped some.
        reads = {project_id: ok for project_id, ok in reads.items() if self._store.has(project_id)}
        self.read_together = len(reads)
        singles = [project_id for project_id in self._store.project_ids() if project_id not in reads]
        singles += self._common.to_check(reads)
        reads |= zip(singles, await together(*map(self._read_single, singles)), strict=True)
        readable = {project_id for project_id, ok in reads.items() if ok}
        readable.intersection_update(self._store.project_ids())
        # Before the failed records: they decide about pages.
        await self._records_in_flight.read(self._store, readable)
        await self._failed_records.read(self._store, readable)
        await self.waiting_records.read(self._store, readable)
        return not reads or any(reads.values())

    async def _read_together(self) -> dict[str, bool]:
        """Read the projects that one list is read for; return whether each could be read."""
        project_ids = self._store.project_ids()
        self._common.forget(set(project_ids))
        reads = await self._common.read(project_ids)
        if self._common.found_unknown():
            try:
                with one_read():
                    await self._list_projects()
            except ApiError as error:
                # What is known already has been read; the next sync tries again.
                self._problems.report("projects", error)
                return reads
            reads |= await self._common.read([each for each in self._store.project_ids() if each not in project_ids])
        return reads

    async def _list_projects(self) -> None:
        if self._config.projects.on_probe:
            # They were read before the config was reloaded.
            self._drop(self._store.project_ids())
        await self._project_list.refresh(self._store.clock.observe, held=self._store.project_names())
        wanted = {} if self._config.projects.on_probe else self._project_list.wanted
        known = set(self._store.project_ids())
        # Projects that are read already stay: otherwise the order of the list would decide in every sync.
        read = sorted(wanted, key=lambda project_id: project_id not in known)[: self._config.limits.projects]
        self._observer.projects_not_read(len(wanted) - len(read))
        if len(read) < len(wanted):
            self._problems.report(
                "some projects", f"there are more than limits.projects ({self._config.limits.projects})"
            )
        else:
            self._problems.resolve("some projects")
        if self._project_list.skipped:
            self._problems.report(
                "list of projects", f"{self._project_list.skipped} items are invalid, so no project counts as missing"
            )
        else:
            self._problems.resolve("list of projects")
        # After a reload or a restart fewer may be wanted. Those that the list lacks may come back.
        self._drop((known & self._project_list.names.keys()) - set(read))
        self._store.name_projects({project_id: wanted[project_id] for project_id in read})

    def _drop(self, project_ids: Iterable[str]) -> None:
        for project_id in project_ids:
            self._project_sync.drop(project_id)

    async def _read_single(self, project_id: str) -> bool:
        started, since = self._monotonic(), self._common.unseen_since(project_id)
        ok = await self._project_sync.read(project_id, self._project_list.names.get(project_id), since=since)
        if self._store.has(project_id):  # otherwise it was dropped
            self._common.note_single(project_id, ok=ok, at=started)
        return ok


async def read_health(client: RuntimeClient, problems: ProblemLog) -> Health | None:
    """Return the state of the worker service; None, with a report to `problems`, when it cannot be read."""
    try:
        with one_read():
            health = await client.health()
    except ApiError as error:
        problems.report("health", error)
        return None
    problems.resolve("health")
    return health
