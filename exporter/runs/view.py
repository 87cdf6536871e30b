"""What a page shows of a store: fresh data within the limits, and what changed since the last page."""

import dataclasses
import math
import weakref
from collections.abc import Callable, Iterator

import msgspec

from exporter.config import Config, SpinnerPolicy
from exporter.runs.activity import Activity
from exporter.runs.clock import RuntimeClock
from exporter.runs.counters import Counters
from exporter.runs.listed_records import ListedRecords
from exporter.runs.pace import Expectation, RunPace, SpinnerPace, at_work
from exporter.runs.project import ProjectRuns
from exporter.runs.projects import Projects
from exporter.runs.run import Run
from exporter.runs.runtime_state import Outage, RuntimeState
from exporter.runs.spinner import TrackedRun
from exporter.runs.watch import Key, Watch
from exporter.runtime.model import Health, Meter
from exporter.status import Status


class ShownRun(msgspec.Struct, frozen=True):
    """A run with the name of its project, as the page shows it."""

    run: Run
    project: str
    pace: RunPace
    earlier: SpinnerPace
    expectation: Expectation | None
    """Which silence counts as a stall, and why; None while the run need not show progress."""
    outage: Outage
    """The worker service's last outage, for which no run is to blame."""
    activity: Activity | None = None
    """What its records in flight have shown during its silence; the expectation takes it into account."""
    in_flight: ListedRecords | None = None
    """What it works on, as last read; None unless it is silent."""
    waiting: ListedRecords | None = None
    """Which of its records wait, as last read; None if that is not known."""

    def stall_threshold(self) -> float | None:
        """Return the seconds of silence after which the run counts as stalled; None while it need not show progress.

        Silence is counted from `Run.last_progress_at`. Time for which the run waited for a person, or the worker
        service was down, is added to the threshold.
        """
        return None if self.expectation is None else self._excused() + self.expectation.page

    def straggler_threshold(self) -> float | None:
        """Return the seconds of silence after which its last records count as stragglers; None for other runs."""
        if self.expectation is None or self.expectation.straggler is None:
            return None
        return self._excused() + self.expectation.straggler

    def silent_since(self) -> float:
        """Return the runtime's time since which its silence counts; of a run with an expectation."""
        page = 0.0 if self.expectation is None else self.expectation.page
        return self.outage.silent_since(self.pace.quiet_since() or 0.0, page)

    def _excused(self) -> float:
        """Return for how long no silence counted since the last progress."""
        return max(self.silent_since() - (self.run.last_progress_at or 0.0), 0.0)


class SilentRun(msgspec.Struct, frozen=True):
    """A run that has been silent for so long that it matters what it works on. Times are the runtime's."""

    run: Run
    silent_at: float
    """Since when it has been silent for so long."""
    since: float
    """Since when its silence counts."""
    stalled_at: float
    """When it counts as stalled or straggling, as far as is known now."""


class ShownSpinner(msgspec.Struct, frozen=True):
    """A spinner's counts with its names, as the page shows them."""

    project: str
    spinner: str
    counters: Counters
    policy: SpinnerPolicy
    runs: dict[Status, int]
    """Runs in the list now, by status; empty while the list is stale."""
    watched_since: float | None
    """The runtime's time since which every run of the spinner has been seen; None while unknown."""


class StoreView:
    """What is to be shown now of one store."""

    def __init__(
        self,
        projects: Projects,
        runtime: RuntimeState,
        *,
        clock: RuntimeClock,
        config: Callable[[], Config],
        monotonic: Callable[[], float],
    ) -> None:
        """`config` returns the current config: a reload replaces it."""
        self._projects = projects
        self._runtime = runtime
        self._clock = clock
        self._config = config
        self._monotonic = monotonic
        self._watches: weakref.WeakSet[Watch] = weakref.WeakSet()
        self._states: dict[str, tuple[bool, bool]] = {}
        """By project, whether it was fresh and whether it was withdrawn, as the watches know."""
        self._expected: dict[str, tuple[str, ...]] = {}
        """By project, the expected spinners that the watches know of."""

    # -- runs and spinners --------------------------------------------------------------------------------

    def run(self, key: Key) -> ShownRun | None:
        """Return a run; None when it is not to be shown: unknown, stale, or hidden by the limit."""
        project_id, run_id = key
        project = self._projects.get(project_id)
        if project is None or not self.is_fresh(project):
            return None
        tracked = project.runs.get(run_id)
        return None if tracked is None or tracked.hidden else self._shown_run(project, tracked)

    def runs(self) -> Iterator[ShownRun]:
        """Yield the runs to show."""
        for project in self._projects.values():
            if self.is_fresh(project):
                for tracked in project.runs.values():
                    if not tracked.hidden:
                        yield self._shown_run(project, tracked)

    def ended_at(self, key: Key) -> float | None:
        """Return the runtime's time at which a run ended; None while it has not, and for an unknown run."""
        project_id, run_id = key
        project = self._projects.get(project_id)
        tracked = None if project is None else project.runs.get(run_id)
        return None if tracked is None else tracked.run.ended_at

    def spinner(self, key: Key) -> ShownSpinner | None:
        """Return a spinner; a new one shows zeros until the next sync, and so does an expected one that never ran.

        None for an unknown one, and before the first read of its project completes: half of a history would be
        followed by a jump.
        """
        project_id, name = key
        project = self._projects.get(project_id)
        if project is None or not project.has_been_read or project.is_withdrawn:
            return None
        policy = self._config().spinner_policy(project.name, name)
        if name in project.spinners:
            counters, present = project.spinners.shown(name)
            if project.spinners.is_sum(name):
                # That some of many ran does not mean that one did.
                policy = dataclasses.replace(policy, expected_interval=None)
        elif name in self._config().expected_spinners(project.name):
            # That no run was seen is known, and `increase()` needs a zero to see the first one.
            counters, present = Counters(), dict.fromkeys(Status, 0)
        else:
            return None
        return ShownSpinner(
            project.name,
            name,
            counters,
            policy,
            present if self.is_fresh(project) else {},
            project.metadata.watched_since,
        )

    def spinners(self) -> Iterator[ShownSpinner]:
        """Yield every spinner to show."""
        for project_id, project in self._projects.items():
            for name in {**dict.fromkeys(project.spinners), **dict.fromkeys(self._expected_in(project))}:
                shown = self.spinner((project_id, name))
                if shown is not None:
                    yield shown

    def _expected_in(self, project: ProjectRuns) -> tuple[str, ...]:
        return self._config().expected_spinners(project.name) if project.has_been_read else ()

    def silent_runs(self, project_id: str) -> Iterator[SilentRun]:
        """Yield the shown runs of a project whose silence is longer than half of what counts as a stall.

        None while the worker service is down: then no silence counts.
        """
        project = self._projects[project_id]
        if self._runtime.outage.is_down or not self.is_fresh(project):
            return
        now = self._clock.now()
        latest = now - SILENT_SHARE * self._config().least_stall_floor
        for tracked in list(project.open.values()):
            last_at = tracked.run.last_progress_at
            # Before the threshold is computed, which takes much longer: it is at least the floor.
            if tracked.hidden or last_at is None or last_at > latest:
                continue
            shown = self._shown_run(project, tracked, extended=False)
            if shown.expectation is None:
                continue
            since = shown.silent_since()
            silent_at = since + SILENT_SHARE * _first_of(shown.expectation)
            if now > silent_at:
                extended = self._extended(project, tracked, shown.expectation, since)
                yield SilentRun(tracked.run, silent_at, since, since + _first_of(extended))

    def stalls_at(self, project: ProjectRuns, tracked: TrackedRun) -> float:
        """Return the runtime's time at which a run counts as stalled or straggling if it stays silent.

        Infinite if its silence does not count: it waits, or the worker service is down.
        """
        if self._runtime.outage.is_down:
            return math.inf
        shown = self._shown_run(project, tracked, extended=False)
        return math.inf if shown.expectation is None else shown.silent_since() + _first_of(shown.expectation)

    def _shown_run(self, project: ProjectRuns, tracked: TrackedRun, *, extended: bool = True) -> ShownRun:
        run, pace, earlier, expectation = tracked.run, tracked.pace, project.earlier(tracked), None
        if run.last_progress_at is not None and pace.quiet_since() is not None and at_work(run):
            # Computed once: several metrics show it.
            policy = self._config().spinner_policy(project.name, run.snapshot.spinner)
            activity = tracked.activity or Activity()
            expectation = pace.expectation(
                run,
                earlier,
                project.spinners.all_paces,
                policy,
                has_heartbeats=self._runtime.has_heartbeats,
                is_working=activity.is_working,
                youngest_at=activity.youngest_at,
            )
        shown = ShownRun(
            run,
            project.name,
            pace,
            earlier,
            expectation,
            self._runtime.outage,
            tracked.activity,
            project.listed["in flight"].get(run.id),
            project.listed["waiting"].get(run.id),
        )
        if not extended or expectation is None or tracked.activity is None:
            return shown
        expectation = self._extended(project, tracked, expectation, shown.silent_since())
        return msgspec.structs.replace(shown, expectation=expectation)

    def _extended(
        self, project: ProjectRuns, tracked: TrackedRun, expectation: Expectation, since: float
    ) -> Expectation:
        """Return the expectation in view of what the records in flight of a run have shown."""
        if tracked.activity is None:
            return expectation
        policy = self._config().spinner_policy(project.name, tracked.run.snapshot.spinner)
        return tracked.activity.extended(expectation, since, policy.stall_ceiling)

    # -- projects and runtime -----------------------------------------------------------------------------

    def projects(self) -> Iterator[ProjectRuns]:
        """Yield every project, except those that seem to be gone."""
        for project in self._projects.values():
            if not project.is_withdrawn:
                yield project

    def projects_up(self) -> list[tuple[tuple[str], float]]:
        """Return the name of each of these projects, and 1 if its last read succeeded, otherwise 0."""
        fresh_since = self._monotonic() - self._config().sync.stale_after
        return [
            ((project.metadata.name,), float(project.error is None and project.is_recent(fresh_since)))
            for project in self._projects.values()
            if not project.is_withdrawn
        ]

    @property
    def run_count(self) -> int:
        """Runs in the store, of projects that have been read."""
        return sum(len(project.runs) for _, project in self._projects.read())

    @property
    def health(self) -> Health | None:
        """The state of the worker service; None when no read of it is recent enough."""
        health = self._runtime.health
        return health[0] if health and self._is_recent(health[1]) else None

    @property
    def meters(self) -> tuple[Meter, ...]:
        """The meters of the plan; empty when no read of them is recent enough."""
        meters = self._runtime.meters
        return meters[0] if meters and self._is_recent(meters[1]) else ()

    def seconds_since_read(self, project: ProjectRuns) -> float | None:
        """Return how long ago the last good read of a project was; None when there was none."""
        return None if project.read_at is None else self._monotonic() - project.read_at

    def is_fresh(self, project: ProjectRuns) -> bool:
        """Whether a project's last good read is recent enough to be shown, and it does not seem to be gone."""
        return project.read_at is not None and self._is_recent(project.read_at) and not project.is_withdrawn

    def _is_recent(self, read_at: float) -> bool:
        return self._monotonic() - read_at <= self._config().sync.stale_after

    # -- changes ------------------------------------------------------------------------------------------

    def watch(self) -> Watch:
        """Return a watch on what changes; at first everything has."""
        watch = Watch(self._collect_changes)
        self._watches.add(watch)
        for project_id, project in self._projects.items():
            watch.note(
                ((project_id, run_id) for run_id in project.runs),
                ((project_id, spinner) for spinner in (*project.spinners, *self._expected_in(project))),
            )
        return watch

    def remove(self, project_id: str) -> None:
        """Report everything of a project as changed before the project is removed."""
        self._mark_all_changed(project_id)
        self._collect_changes()
        self._states.pop(project_id, None)
        self._expected.pop(project_id, None)

    def _collect_changes(self) -> None:
        """Report to every watch what reads changed, the projects that became fresh or stale, and other expectations."""
        config = self._config()
        # Asked once, since there can be thousands of projects.
        fresh_since = self._monotonic() - config.sync.stale_after
        has_expectations = bool(config.spinners or self._expected)
        for project_id, project in self._projects.read():
            state = (project.is_recent(fresh_since) and not project.is_withdrawn, project.is_withdrawn)
            if state != self._states.get(project_id, (False, False)):
                self._states[project_id] = state
                self._mark_all_changed(project_id)
            if has_expectations and (expected := self._expected_in(project)) != self._expected.get(project_id, ()):
                project.spinners.mark_changed((*expected, *self._expected.get(project_id, ())))
                self._expected[project_id] = expected
            if project.has_changes:
                runs, spinners = project.collect_changes()
                for watch in self._watches:
                    watch.note(
                        ((project_id, run_id) for run_id in runs), ((project_id, spinner) for spinner in spinners)
                    )

    def _mark_all_changed(self, project_id: str) -> None:
        """Mark everything of a project as changed, also the expected spinners, of which it knows nothing."""
        project = self._projects[project_id]
        project.mark_all_changed()
        project.spinners.mark_changed(self._expected.get(project_id, ()))


SILENT_SHARE = 0.5
"""The part of the threshold after which it matters what a silent run works on."""


def _first_of(expectation: Expectation) -> float:
    """Return the earlier of the two thresholds."""
    straggler = expectation.straggler
    return expectation.page if straggler is None else min(expectation.page, straggler)
