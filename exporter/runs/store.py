"""All projects with their runs, the runtime and the plan. No I/O: `sync` reads, the store remembers.

Runs come in through `reading` alone. There are four ways out, and each run leaves by one:
its retention ran out, the runtime does not have it any more, its project is gone, or the page would grow too big.
"""

import contextlib
import heapq
import itertools
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from exporter.config import Config, SpinnerPolicy
from exporter.runs.clock import RuntimeClock
from exporter.runs.counters import Counters
from exporter.runs.pace import RunPace, SpinnerPace, at_work
from exporter.runs.project import RUN, SPINNER, ProjectMetadata, ProjectRuns
from exporter.runs.read import ProjectRead
from exporter.runs.run import Run
from exporter.runs.spinner import Spinner, TrackedRun
from exporter.runs.watch import Key, Watch
from exporter.runtime.model import FailedRecord, Health, Meter
from exporter.status import Status


class ShownRun(msgspec.Struct, frozen=True):
    """A run with the name of its project, as the page shows it."""

    run: Run
    project: str
    pace: RunPace
    earlier: SpinnerPace
    policy: SpinnerPolicy
    excused_until: float
    """The runtime's time until which no silence is the run's own: the runtime itself was down."""

    def stall_threshold(self) -> float | None:
        """Return the seconds of silence after which the run counts as stalled; None while it need not progress.

        Silence is counted from `Run.last_progress_at`. What of it was a wait for a person, or the runtime's own
        absence, is no silence of the run, and is granted on top.
        """
        since, quiet_since = self.run.last_progress_at, self.pace.quiet_since()
        if since is None or quiet_since is None or not at_work(self.run):
            return None
        granted = max(quiet_since, self.excused_until) - since
        return max(granted, 0.0) + self.pace.stall_threshold(self.run, self.earlier, self.policy)


class ShownSpinner(msgspec.Struct, frozen=True):
    """A spinner's counts with its names, as the page shows them."""

    project: str
    spinner: str
    counters: Counters
    policy: SpinnerPolicy
    runs: dict[Status, int]
    """Runs in the list now, by status; empty while the list is not to be trusted."""


class Outage(msgspec.Struct, frozen=True):
    """What is known of the worker service's absences. Times are the runtime's."""

    is_down: bool = False
    excused_until: float = float("-inf")
    """Time at which the last one ended: no silence until then is any run's own."""


MIN_TOMBSTONES = 10_000
"""Runs that left which are remembered at least, when there are so many; the limit on runs may be a small one."""

Saved = ProjectMetadata | Spinner | TrackedRun | Outage
"""What can be saved: a project's metadata, a spinner, a run, the outages."""

Row = tuple[str, str, str, Saved | None]
"""Kind, project and key of something that is saved, which together are its place, and what is there.

None: nothing any more; in the place of a project that means nothing of the whole project.
"""

KINDS: dict[str, type[Saved]] = {"project": ProjectMetadata, SPINNER: Spinner, RUN: TrackedRun, "outage": Outage}


class Store:
    """Runs by project, counts by spinner, and the last good word on runtime and plan."""

    def __init__(
        self,
        config: Config,
        clock: RuntimeClock,
        *,
        monotonic: Callable[[], float],
        dropped: Callable[[str], None] = lambda reason: None,
        is_saved: bool = False,
    ) -> None:
        """`dropped` is told the reason whenever a run leaves that a person would still look for.

        `is_saved` says whether somebody saves what is here, and so asks for what is `unsaved`.
        """
        self._config = config
        self._is_saved = is_saved
        self.clock = clock
        self._monotonic = monotonic
        self._dropped = dropped
        self._projects: dict[str, ProjectRuns] = {}
        self._first_look_done = False
        self._health: tuple[Health, float] | None = None
        self._meters: tuple[tuple[Meter, ...], float] | None = None
        self._hides = False
        self._applied_since_limited = 0
        self._outage = Outage()
        self._saved_metadata: dict[str, ProjectMetadata] = {}
        self._forgotten: set[str] = set()
        self._saved_outage = self._outage
        self._watches: weakref.WeakSet[Watch] = weakref.WeakSet()
        self._shown: set[str] = set()

    @property
    def config(self) -> Config:
        """What is kept and shown; a config that is set holds for everything that is here."""
        return self._config

    @config.setter
    def config(self, config: Config) -> None:
        self._config = config
        for project in self._projects.values():
            project.all_moved()

    # -- what a sync does ---------------------------------------------------------------------------------

    def name_projects(self, names: dict[str, str]) -> None:
        """Take the list of projects, id to label. A project that is new gets its place; none leaves by this."""
        for project_id, name in names.items():
            known = self._projects.get(project_id)
            if known is None:
                metadata = ProjectMetadata(name, history=not self._first_look_done)
                self._projects[project_id] = ProjectRuns(metadata, is_saved=self._is_saved)
            elif known.name != name:
                known.metadata = msgspec.structs.replace(known.metadata, name=name)
                known.all_moved()
        self._first_look_done = True

    @contextlib.contextmanager
    def reading(self, project_id: str) -> Iterator["ProjectRead"]:
        """Open a read of a project; it counts once it is completed.

        A first read that does not complete leaves nothing behind: nobody has seen any of it, and the next one starts
        over. What a later read has applied stays: the next one applies it again, and it is counted once.
        """
        project = self._projects[project_id]
        try:
            yield ProjectRead(project, applied=self._applied, dropped=self._dropped, monotonic=self._monotonic)
        finally:
            if not project.has_been_read:
                self._projects[project_id] = ProjectRuns(project.metadata, is_saved=self._is_saved)

    def _applied(self, count: int) -> None:
        # A list may be much longer than what is kept of it.
        self._applied_since_limited += count
        if self._applied_since_limited > self.config.limits.runs / 4:
            self._limit_runs()

    def keep_health(self, health: Health) -> None:
        """Take the last good word on the worker service."""
        now = self.clock.now()
        beat = health.last_heartbeat_at
        is_silent = beat is None or now - beat > self.config.runtime.heartbeat_timeout
        is_down = not health.runtime_up or (health.beats and is_silent)
        if self._outage.is_down and not is_down:
            self._outage = Outage(is_down, now)
            for project in self._projects.values():
                project.open_moved()
        else:
            self._outage = Outage(is_down, self._outage.excused_until)
        self._health = (health, self._monotonic())

    def keep_meters(self, meters: tuple[Meter, ...]) -> None:
        """Take the last good word on the plan."""
        self._meters = (meters, self._monotonic())

    def fail(self, project_id: str, error: str) -> None:
        """Note that a project could not be read; what we hold of it stays until it is stale."""
        self._projects[project_id].error = error

    def forget_run(self, project_id: str, run_id: str) -> None:
        """Let go of a run that the runtime does not have any more; it is dropped, not finished."""
        if self._projects[project_id].drop(run_id, self.clock.now()):
            self._dropped("gone")

    def forget_project(self, project_id: str) -> None:
        """Let go of a project with all its runs and counts."""
        self._forgotten.add(project_id)
        self._projects[project_id].all_moved()
        self._collect_moved()
        self._shown.discard(project_id)
        project = self._projects.pop(project_id)
        for _ in project.runs if project.has_been_read else ():
            self._dropped("project_gone")

    def keep_failed_records(self, project_id: str, run: Run, records: Sequence[FailedRecord]) -> None:
        """Take a run's newest failed records, read for its present failed count."""
        newest = sorted(records, key=lambda record: (record.ended_at or 0.0, record.id), reverse=True)
        unique = {record.id: record for record in newest}
        named = tuple(unique.values())[: self.config.limits.failed_records_per_run]
        self._projects[project_id].keep_failed_records(run, named)

    def expire(self) -> None:
        """Let go of the runs whose retention ran out, then of what is over the limits."""
        now = self.clock.now()
        for project in self._projects.values():
            project.expire(now, self.config.retention)
        self._limit_runs()
        self._limit_failed_records()

    # -- what outlives the process ------------------------------------------------------------------------

    def unsaved(self) -> Iterator[Row]:
        """Yield what changed since `saved` was last called."""
        for project_id in self._forgotten:
            yield "project", project_id, "", None
        for project_id, project in self._projects.items():
            if self._saved_metadata.get(project_id) != project.metadata:
                yield "project", project_id, "", project.metadata
            # What a first read has brought so far would be counted again by the one that begins anew.
            if project.has_been_read:
                for kind, key, value in project.unsaved():
                    yield kind, project_id, key, value
        if self._outage != self._saved_outage:
            yield "outage", "", "", self._outage

    def saved(self) -> None:
        """Take note that everything was saved that `unsaved` gave; nothing may have changed meanwhile."""
        self._forgotten.clear()
        self._saved_metadata = {project_id: project.metadata for project_id, project in self._projects.items()}
        self._saved_outage = self._outage
        for _, project in self._read_projects():
            project.saved()

    def restore(self, rows: Iterable[Row]) -> None:
        """Take what an earlier life of the exporter saved; until the first read only the counts of it are shown."""
        metadata_by_id: dict[str, ProjectMetadata] = {}
        spinners: dict[str, dict[str, Spinner]] = defaultdict(dict)
        runs: dict[str, list[TrackedRun]] = defaultdict(list)
        for _, project_id, key, value in rows:
            match value:
                case ProjectMetadata():
                    metadata_by_id[project_id] = value
                case Spinner():
                    spinners[project_id][key] = value
                case TrackedRun():
                    runs[project_id].append(value)
                case Outage():
                    self._outage = value
        for project_id, metadata in metadata_by_id.items():
            self._projects[project_id] = ProjectRuns(metadata, is_saved=self._is_saved)
            self._projects[project_id].restore(runs[project_id], spinners[project_id])
        self._first_look_done = bool(metadata_by_id)
        self.saved()

    # -- what a sync asks ---------------------------------------------------------------------------------

    def watermark(self, project_id: str) -> float | None:
        """Return the runtime's time up to which a project's list has been read; None before the first read."""
        return self._projects[project_id].metadata.watermark

    def project_ids(self) -> list[str]:
        """Return every project that has a place here."""
        return list(self._projects)

    def runs_of(self, project_id: str) -> dict[str, Run]:
        """Return a project's runs by their ids."""
        return {run_id: tracked.run for run_id, tracked in self._projects[project_id].runs.items()}

    def open_runs(self, project_id: str) -> dict[str, Run]:
        """Return a project's runs that have not ended, by their ids."""
        return {run_id: tracked.run for run_id, tracked in self._projects[project_id].open.items()}

    def runs_missing_failed_records(self, project_id: str) -> list[Run]:
        """Return the runs whose failed count moved since their failed records were last read, newest first."""
        if not self.config.limits.failed_records_per_run or not self.config.limits.failed_records:
            return []
        moved = self._projects[project_id].runs_with_new_failures()
        return sorted(moved, key=lambda run: run.snapshot.updated_at, reverse=True)

    @property
    def count(self) -> int:
        """Runs that are here, of projects that have been read."""
        return sum(len(project.runs) for _, project in self._read_projects())

    # -- what a page shows --------------------------------------------------------------------------------

    def watch(self) -> Watch:
        """Return a watch, which says what to show anew."""
        watch = Watch(self._collect_moved)
        self._watches.add(watch)
        for project_id, project in self._projects.items():
            watch.note(
                ((project_id, run_id) for run_id in project.runs),
                ((project_id, spinner) for spinner in project.spinner_names()),
            )
        return watch

    def run(self, key: Key) -> ShownRun | None:
        """Return a run to show: known well, recent enough, and within the limit; None when it is not to be shown."""
        project_id, run_id = key
        project = self._projects.get(project_id)
        if project is None or not self.is_fresh(project):
            return None
        tracked = project.runs.get(run_id)
        return None if tracked is None or tracked.hidden else self._shown_run(project, tracked)

    def ended_at(self, key: Key) -> float | None:
        """Return the runtime's time at which a run ended; None while it is under way, or is not here."""
        project_id, run_id = key
        project = self._projects.get(project_id)
        tracked = None if project is None else project.runs.get(run_id)
        return None if tracked is None else tracked.run.ended_at

    def runs(self) -> Iterator[ShownRun]:
        """Yield the runs to show."""
        for project in self._projects.values():
            if self.is_fresh(project):
                for tracked in project.runs.values():
                    if not tracked.hidden:
                        yield self._shown_run(project, tracked)

    def spinner(self, key: Key) -> ShownSpinner | None:
        """Return a spinner that we ever saw a run of; a new one shows zeros until the next sync.

        None where there is none, and while its project is read for the first time: half of its history would be
        followed by a jump.
        """
        project_id, name = key
        project = self._projects.get(project_id)
        if project is None or not project.has_been_read or name not in project.spinner_names():
            return None
        counters, present = project.spinner(name)
        present = present if self.is_fresh(project) else {}
        return ShownSpinner(project.name, name, counters, self.config.spinner_policy(project.name, name), present)

    def spinners(self) -> Iterator[ShownSpinner]:
        """Yield every spinner."""
        for project_id, project in self._projects.items():
            for name in project.spinner_names():
                shown = self.spinner((project_id, name))
                if shown is not None:
                    yield shown

    def _shown_run(self, project: ProjectRuns, tracked: TrackedRun) -> ShownRun:
        policy = self._config.spinner_policy(project.name, tracked.run.snapshot.spinner)
        earlier = project.earlier(tracked)
        return ShownRun(tracked.run, project.name, tracked.pace, earlier, policy, self._outage.excused_until)

    def _collect_moved(self) -> None:
        """Let every watch know what moved: what was read, and what time alone has made too old to be shown."""
        for project_id, project in self._read_projects():
            fresh = self.is_fresh(project)
            if fresh != (project_id in self._shown):
                self._shown ^= {project_id}
                project.all_moved()
            runs, spinners = project.collect_moved()
            if runs or spinners:
                for watch in self._watches:
                    watch.note(
                        ((project_id, run_id) for run_id in runs), ((project_id, spinner) for spinner in spinners)
                    )

    def projects(self) -> Iterator[ProjectRuns]:
        """Yield every project."""
        yield from self._projects.values()

    def _read_projects(self) -> Iterator[tuple[str, ProjectRuns]]:
        for project_id, project in self._projects.items():
            if project.has_been_read:
                yield project_id, project

    @property
    def health(self) -> Health | None:
        """The last good word on the worker service; None when there is none that is recent enough."""
        return self._health[0] if self._health and self._is_recent(self._health[1]) else None

    @property
    def meters(self) -> tuple[Meter, ...]:
        """The last good word on the plan; empty when there is none that is recent enough."""
        return self._meters[0] if self._meters and self._is_recent(self._meters[1]) else ()

    def seconds_since_read(self, project: ProjectRuns) -> float | None:
        """Return how long ago a project was last read well; None when it never was."""
        return None if project.read_at is None else self._monotonic() - project.read_at

    def is_fresh(self, project: ProjectRuns) -> bool:
        """Whether a project's last good read is recent enough to be shown as the present."""
        return project.read_at is not None and self._is_recent(project.read_at)

    def _is_recent(self, read_at: float) -> bool:
        return self._monotonic() - read_at <= self.config.sync.stale_after

    # -- limits -------------------------------------------------------------------------------------------

    def _limit_runs(self) -> None:
        """Drop the runs over the limit that ended first; hide the oldest of those that have not ended.

        What first reads have brought that are not through has a limit of its own: it must not displace what is shown.
        """
        self._applied_since_limited = 0
        read = [project for _, project in self._read_projects()]
        unread = [project for project in self._projects.values() if not project.has_been_read]
        for projects in (read, unread):
            excess = sum(len(project.runs) for project in projects) - self.config.limits.runs
            if excess > 0:
                excess -= self._drop_ended(projects, excess)
            if projects is read and (excess > 0 or self._hides):
                self._hide_open(projects, max(excess, 0))
            self._drop_tombstones(projects)

    def _drop_ended(self, projects: list[ProjectRuns], most: int) -> int:
        """Let go of the runs that ended first; return how many there were.

        By their ends and not by their beginnings: what has just ended is what somebody wants to know of, however long
        it took.
        """
        # Looks only at those that leave: this is done while a list is read that is longer than what is kept of it.
        endings = [(first, place) for place, project in enumerate(projects) if (first := project.first_end())]
        heapq.heapify(endings)
        now, gone = self.clock.now(), 0
        while endings and gone < most:
            first, place = heapq.heappop(endings)
            projects[place].drop(first.run_id, now)
            if projects[place].has_been_read:
                self._dropped("limit")
            else:
                projects[place].dropped_unseen += 1
            gone += 1
            if (following := projects[place].first_end()) is not None:
                heapq.heappush(endings, (following, place))
        return gone

    def _hide_open(self, projects: list[ProjectRuns], count: int) -> None:
        """Hide so many, and no others. They are not dropped: each must still be counted once, whenever it ends."""
        # With the place of its project, since run ids need only be unique within their project.
        runs = (
            (tracked.run.snapshot.created_at, place, run_id)
            for place, project in enumerate(projects)
            for run_id, tracked in project.open.items()
        )
        hidden = heapq.nsmallest(count, runs)
        by_project: defaultdict[int, set[str]] = defaultdict(set)
        for _, place, run_id in hidden:
            by_project[place].add(run_id)
        for place, project in enumerate(projects):
            for _ in range(project.hide(by_project[place])):
                self._dropped("limit")
        self._hides = bool(hidden)

    def _drop_tombstones(self, projects: list[ProjectRuns]) -> None:
        """Remember no more of the runs that left than may be here, of a long list all the same: the last to leave.

        Not those of a project whose read is being applied or was cut off: the next read would count them again.
        """
        projects = [project for project in projects if not project.is_committing]
        excess = sum(project.tombstone_count for project in projects) - max(self.config.limits.runs, MIN_TOMBSTONES)
        if excess > 0:
            gone = [[(*left, place) for left in project.tombstones()] for place, project in enumerate(projects)]
            for _, run_id, place in list(itertools.islice(heapq.merge(*gone), excess)):
                projects[place].drop_tombstone(run_id)

    def _limit_failed_records(self) -> None:
        """Keep the failed records of the runs that changed last."""
        naming = [(project, run) for project in self._projects.values() for run in project.runs_naming_records()]
        excess = sum(len(run.failed_records) for _, run in naming) - self.config.limits.failed_records
        for project, run in sorted(naming, key=lambda pair: pair[1].snapshot.updated_at):
            if excess <= 0:
                return
            kept = run.failed_records[: max(len(run.failed_records) - excess, 0)]
            excess -= len(run.failed_records) - len(kept)
            project.trim_failed_records(run.id, kept)
