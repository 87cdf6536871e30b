"""Everything known about one runtime. No I/O: `sync` reads and writes here, a page shows `view`.

Runs are added through `reading` only. A run is dropped for one of four reasons: its retention is over, the runtime no
longer has it, its project was removed, or there are more runs than `limits.runs`. A spinner leaves when it has had no
run for `spinner_retention`.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set

from exporter.config import Config
from exporter.runs.activity import Activity
from exporter.runs.clock import TOLERANCE, RuntimeClock
from exporter.runs.limits import LimitEnforcer
from exporter.runs.listed_records import ListedRecords, RecordKind
from exporter.runs.persistence import Persistence
from exporter.runs.projects import Projects
from exporter.runs.read import ProjectRead
from exporter.runs.run import Run
from exporter.runs.runtime_state import RuntimeState
from exporter.runs.spinners import SpinnerSlots
from exporter.runs.view import StoreView
from exporter.runs.watch import Key
from exporter.runtime.model import FailedRecord, Health, Meter, OpenRecord


class Store:
    """What `sync` writes to. `view` is what a page shows, `persistence` what a state file saves."""

    def __init__(
        self,
        config: Config,
        clock: RuntimeClock,
        *,
        monotonic: Callable[[], float],
        dropped: Callable[[str], None] = lambda reason: None,
        is_saved: bool = False,
        slots: SpinnerSlots | None = None,
    ) -> None:
        """`dropped` is called with the reason for each run that is dropped before the end of its retention.

        `is_saved`: whether a state file saves what changes; otherwise changes are not noted for one. `slots` are those
        of the spinners if several stores share them.
        """
        self._config = config
        self.clock = clock
        self._monotonic = monotonic
        self.dropped = dropped
        self._expired_at = -math.inf
        """The runtime's time of the last `expire`."""
        self._projects = Projects(clock, slots or SpinnerSlots(), lambda: self._config, is_saved=is_saved)
        self._runtime = RuntimeState(clock, monotonic)
        self.persistence = Persistence(self._projects, self._runtime)
        self.view = StoreView(
            self._projects, self._runtime, clock=clock, config=lambda: self._config, monotonic=monotonic
        )
        self._limits = LimitEnforcer(self._projects, clock, self._note_dropped, self.view.stalls_at)

    @property
    def config(self) -> Config:
        """What is kept and shown; a new config applies to everything in the store."""
        return self._config

    @config.setter
    def config(self, config: Config) -> None:
        before, limits, self._config = self._config.limits, config.limits, config
        names_more = (
            limits.failed_records_per_run > before.failed_records_per_run
            or limits.failed_records > before.failed_records
        )
        for project in self._projects.values():
            project.mark_all_changed()
            if names_more:
                project.read_failed_records_again(limits.failed_records_per_run)

    # -- reading a project --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def reading(self, project_id: str) -> Iterator[ProjectRead]:
        """Open a read of a project, which must complete.

        A first read that does not complete leaves nothing behind: nothing of it has been shown, and the next one
        starts over. What a later read has applied stays: the next one applies it again, and it is counted once.
        """
        project = self._projects[project_id]
        try:
            yield ProjectRead(
                project,
                label_length=self._config.limits.label_length,
                stall_floor=self._config.least_stall_floor,
                applied=self._applied,
                has_room=functools.partial(self.has_room, project_id),
                dropped=self._note_dropped,
                monotonic=self._monotonic,
            )
        finally:
            if not project.has_been_read:
                self._projects.discard_first_read(project_id)

    def note_unchanged(
        self,
        project_ids: Sequence[str],
        *,
        as_of: float,
        since: float,
        watermark: float | None,
        asked_at: float,
        at: float,
    ) -> None:
        """Complete a read of each of these projects, which have been read before, that brought nothing of them.

        The times are those of `ProjectRead.complete`; a `watermark` of None means `unchanged`.
        """
        for project in self._projects.of(project_ids):
            project.begin()
            project.complete(as_of=as_of, since=since, horizon=-math.inf, watermark=watermark, asked_at=asked_at, at=at)
        self._projects.note_common(project_ids, as_of, is_unchanged=watermark is None)

    def _applied(self, count: int) -> None:
        self._limits.applied(count, self._config)

    def _note_dropped(self, reason: str) -> None:
        self.dropped(reason)

    def fail(self, project_id: str, error: str) -> None:
        """Note why a project could not be read, for everybody to read; its data stay until they are stale."""
        self._projects[project_id].error = error

    def withdraw(self, project_id: str, *, is_gone: bool = True) -> None:
        """Show nothing of a project that seems to be gone, or show it again; its counters are kept.

        A read that completes shows it again too.
        """
        self._projects[project_id].is_withdrawn = is_gone

    def fail_unread_since(self, monotonic: float, error: str) -> None:
        """Note why the projects without a good read since our `monotonic` time were not read, unless it is known."""
        for project in self._projects.values():
            if project.read_at is None or project.read_at < monotonic:
                project.error = project.error or error

    def has_been_read(self, project_id: str) -> bool:
        """Whether a read of a project has ever completed."""
        return self._projects[project_id].has_been_read

    def unread(self, project_ids: Sequence[str]) -> set[str]:
        """Return those of these projects of which no read has ever completed."""
        projects = zip(project_ids, self._projects.of(project_ids), strict=True)
        return {project_id for project_id, project in projects if not project.has_been_read}

    def read_up_to_each(self, project_ids: Iterable[str], lead: float | None = None) -> list[float]:
        """Return `read_up_to` for each of these projects."""
        lead = self.clock.lead if lead is None else lead
        return [project.read_up_to(lead) for project in self._projects.of(project_ids)]

    def read_up_to(self, project_id: str, lead: float | None = None) -> float:
        """Return the runtime's time up to which a project's list has been read; minus infinity before the first read.

        `lead` is how far the runtime's clock is ahead of our monotonic one by a single response.
        """
        return self._projects[project_id].read_up_to(lead)

    def runs_of(self, project_id: str) -> dict[str, Run]:
        """Return a project's runs by their ids."""
        return {run_id: tracked.run for run_id, tracked in self._projects[project_id].runs.items()}

    def open_runs(self, project_id: str) -> dict[str, Run]:
        """Return a project's runs that have not ended, by their ids."""
        return {run_id: tracked.run for run_id, tracked in self._projects[project_id].open.items()}

    def has_room(self, project_id: str, run_ids: Set[str]) -> bool:
        """Whether these runs of a project can be tracked, which have not ended.

        All are as long as they are not too many together; then those of a project that has less than its share.
        """
        known, limit = self._projects[project_id].open, self._config.limits.open_runs
        count = len(known) + sum(run_id not in known for run_id in run_ids)
        if count <= len(known) or count * len(self._projects) <= limit:
            return True
        return sum(len(project.open) for project in self._projects.values()) - len(known) + count <= limit

    def with_open_runs(self, project_ids: Sequence[str]) -> list[str]:
        """Return those of these projects that have runs that have not ended, or records in flight are known of."""
        projects = zip(project_ids, self._projects.of(project_ids), strict=True)
        return [project_id for project_id, project in projects if project.open or project.listed["in flight"]]

    def missing_failed_records(self, project_ids: Sequence[str]) -> list[str]:
        """Return those of these projects that have runs whose failed records are to be read."""
        projects = zip(project_ids, self._projects.of(project_ids), strict=True)
        return [project_id for project_id, project in projects if project.has_new_failures]

    def runs_missing_failed_records(self, project_id: str) -> list[Run]:
        """Return the runs whose failed count changed since their failed records were last read."""
        if not self.config.limits.failed_records_per_run or not self.config.limits.failed_records:
            return []
        return self._projects[project_id].runs_with_new_failures()

    def known_failed_records(self, project_id: str, run_id: str) -> int:
        """Return how many failed records of a run there were when they were last read."""
        tracked = self._projects[project_id].runs.get(run_id)
        return 0 if tracked is None else tracked.records_read_for

    def keep_failed_records(
        self, project_id: str, run: Run, records: Iterable[FailedRecord], *, count: int | None = None
    ) -> None:
        """Store a run's newest failed records, of which there are `count`; by default as many as the run says."""
        newest = sorted(records, key=lambda record: (record.ended_at or 0.0, record.id), reverse=True)
        unique = {record.id: record for record in newest}
        named = tuple(unique.values())[: self.config.limits.failed_records_per_run]
        self._projects[project_id].keep_failed_records(run, named, run.records.failed or 0 if count is None else count)

    def runs_with_waiting_records(self, project_ids: Sequence[str]) -> list[tuple[str, Run]]:
        """Return the shown runs of these projects of which records wait, with their projects."""
        projects = zip(project_ids, self._projects.of(project_ids), strict=True)
        return [
            (project_id, tracked.run)
            for project_id, project in projects
            for tracked in project.with_waiting.values()
            if not tracked.hidden
        ]

    def runs_with_listed(self, kind: RecordKind, project_ids: Sequence[str]) -> list[Key]:
        """Return the runs of these projects of which records of a kind are stored."""
        projects = zip(project_ids, self._projects.of(project_ids), strict=True)
        return [(project_id, run_id) for project_id, project in projects for run_id in project.listed[kind]]

    def keep_activity(self, key: Key, activity: Activity) -> None:
        """Store what the records in flight of a silent run have shown."""
        self._projects[key[0]].keep_activity(key[1], activity)

    def keep_listed(self, kind: RecordKind, key: Key, records: Sequence[OpenRecord], *, is_whole: bool) -> None:
        """Store the records of a kind that a run has; `is_whole`: whether there are no others."""
        limits = self.config.limits
        kept = ListedRecords.of(
            kind,
            records,
            is_whole=is_whole,
            most_named=limits.failed_records_per_run if limits.failed_records else 0,
            most_steps=limits.failure_groups,
        )
        self._projects[key[0]].keep_listed(kind, key[1], kept)

    def forget_listed(self, kind: RecordKind, key: Key) -> None:
        """Forget the records of a kind of a run, since it has none any more or they were read long ago."""
        self._projects[key[0]].forget_listed(kind, key[1])

    def excuse(self, project_id: str, run_id: str, time: float, *, is_progress: bool) -> None:
        """Note that a run of another project that this one started made progress at `time`, or only tried to."""
        if project_id in self._projects:
            self._projects[project_id].excuse(run_id, time, is_progress=is_progress)

    def drop_run(self, project_id: str, run_id: str) -> None:
        """Drop a run that the runtime no longer has; it does not count as finished."""
        if self._projects[project_id].drop(run_id, self.clock.now()):
            self.dropped("gone")

    # -- the runtime as a whole ---------------------------------------------------------------------------

    def has(self, project_id: str) -> bool:
        """Whether there is a project of this id."""
        return project_id in self._projects

    def project_ids(self) -> list[str]:
        """Return the ids of all projects."""
        return list(self._projects)

    def project_names(self) -> dict[str, str]:
        """Return the names of all projects by their ids."""
        return {project_id: project.name for project_id, project in self._projects.items()}

    def name_projects(self, names: Mapping[str, str]) -> None:
        """Add the projects of a list, id to name, and rename those that are known; none is removed."""
        self._projects.name(names)

    def drop_project(self, project_id: str) -> None:
        """Drop a project with all its runs and counts."""
        self.persistence.project_removed(project_id)
        self.view.remove(project_id)
        project = self._projects.remove(project_id)
        for _ in project.runs if project.has_been_read else ():
            self.dropped("project_gone")

    def keep_health(self, health: Health, read_at: float | None = None) -> None:
        """Store the state of the worker service, requested at our monotonic time `read_at`, by default now."""
        timeout, had_heartbeats = self.config.runtime.heartbeat_timeout, self._runtime.has_heartbeats
        has_recovered = self._runtime.keep_health(health, heartbeat_timeout=timeout, read_at=read_at)
        if has_recovered or self._runtime.has_heartbeats != had_heartbeats:
            for project in self._projects.values():
                project.mark_open_changed()
        if self._runtime.outage.is_down:
            for project in self._projects.values():
                project.interrupt()

    def keep_meters(self, meters: tuple[Meter, ...], read_at: float | None = None) -> None:
        """Store the meters of the plan, requested at our monotonic time `read_at`, by default now."""
        self._runtime.keep_meters(meters, read_at)

    def expire(self) -> None:
        """Drop the runs and the spinners whose retention is over, then enforce the limits."""
        now = self.clock.now()
        is_set_back, self._expired_at = now < self._expired_at - TOLERANCE, now
        if is_set_back:
            self._runtime.not_ahead_of(now)
        before, lead = self.clock.steady() - self.config.retention, self.clock.lead
        fresh_since = self._monotonic() - self.config.sync.stale_after
        for project in self._projects.values():
            if is_set_back:
                project.not_ahead_of(now)
            if lead is not None:
                project.expire(before, lead)
            if project.is_recent(fresh_since) and not project.is_withdrawn:
                project.spinners.expire(project.name, now)
        self._limits.enforce(self.config)

    def release(self) -> None:
        """Free the slots of the spinners: the store is no longer used, and others share them."""
        for project in self._projects.values():
            project.spinners.release()
