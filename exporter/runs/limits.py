"""Enforces `limits`: drops, hides and trims what is more than the config allows. Counters are not affected."""

import heapq
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

from exporter.config import Config, LimitsConfig
from exporter.runs.clock import RuntimeClock
from exporter.runs.listed_records import RecordKind
from exporter.runs.pace import AGAIN_LEAST
from exporter.runs.project import ProjectRuns
from exporter.runs.projects import Projects
from exporter.runs.spinner import TrackedRun
from exporter.status import Status

MIN_TOMBSTONES = 10_000
"""Tombstones that are kept at least: `limits.runs` may be much smaller."""

LOOK_AGAIN = 60.0
"""Seconds after which it is computed again when a silent run will count as stalled."""

QUEUED, HEALTHY, NEEDED = 0, 1, 2
"""Which runs are hidden first."""


class LimitEnforcer:
    """Keeps the projects of one store within the limits."""

    def __init__(
        self,
        projects: Projects,
        clock: RuntimeClock,
        dropped: Callable[[str], None],
        stalls_at: Callable[[ProjectRuns, TrackedRun], float],
    ) -> None:
        """`dropped` is called with `limit` for each run that is dropped or hidden, and with `spinner_limit`.

        The latter for each run that is counted as spinner `other`, and each spinner that loses its slot. `stalls_at`
        returns the runtime's time at which a silent run counts as stalled.
        """
        self._projects = projects
        self._clock = clock
        self._dropped = dropped
        self._stalls_at = stalls_at
        self._hides = False
        self._silent: dict[tuple[str, str], _Silence] = {}
        """The runs that are silent, by project and run, while runs are hidden."""
        self._applied_since_enforced = 0

    def applied(self, count: int, config: Config) -> None:
        """Note that a read has applied `count` snapshots: a list may be much longer than what is kept of it."""
        self._applied_since_enforced += count
        if self._applied_since_enforced > config.limits.runs / 4:
            self._enforce_runs(config)

    def enforce(self, config: Config) -> None:
        """Enforce all limits."""
        self._enforce_runs(config)
        self._enforce_spinners(config.limits)
        self._trim_failed_records(config.limits)
        self._trim_listed("in flight", config.limits.failed_records)
        self._trim_listed("waiting", config.limits.failed_records)

    def _enforce_runs(self, config: Config) -> None:
        """Drop the runs over the limit that ended first; hide some of those that have not ended.

        Runs of first reads in progress have a separate limit, so that they do not displace runs that are shown.
        """
        self._applied_since_enforced = 0
        limit = config.limits.runs
        read = [project for project in self._projects.values() if project.has_been_read]
        unread = [project for project in self._projects.values() if not project.has_been_read]
        for projects in (read, unread):
            excess = sum(len(project.runs) for project in projects) - limit
            if excess > 0:
                excess -= self._drop_ended(projects, excess)
            if projects is read and (excess > 0 or self._hides):
                self._hide_open(projects, max(excess, 0), config.least_stall_floor)
            self._drop_tombstones(projects, max(limit, MIN_TOMBSTONES), config.sync.overlap)

    def _drop_ended(self, projects: list[ProjectRuns], most: int) -> int:
        """Drop at most `most` runs, those that ended first; return how many were dropped.

        The order is that of their ends, not of their starts, because users look for runs that have just ended.
        """
        # Visits only runs that are dropped: this is called while a list is read that is longer than what is kept of it.
        endings = [(first, index) for index, project in enumerate(projects) if (first := project.first_end())]
        heapq.heapify(endings)
        now, count = self._clock.now(), 0
        while endings and count < most:
            first, index = heapq.heappop(endings)
            projects[index].drop(first.run_id, now)
            if projects[index].has_been_read:
                self._dropped("limit")
            else:
                projects[index].dropped_unseen += 1
            count += 1
            if (following := projects[index].first_end()) is not None:
                heapq.heappush(endings, (following, index))
        return count

    def _hide_open(self, projects: list[ProjectRuns], count: int, floor: float) -> None:
        """Hide exactly `count` open runs. They are not dropped: each is counted once when it ends.

        First those in the queue, the newest first; then those that are not silent for too long, the oldest first. At
        last those that somebody may have been paged for, as their page would resolve: the stalled ones, and the first
        of the queue of a project in which nothing makes progress; of these the last that became silent.
        """
        silent: dict[tuple[str, str], _Silence] = {}
        # With the index of its project, since run ids are unique only within their project.
        runs = (
            (*rank, index, run_id)
            for index, project in enumerate(projects)
            for run_id, rank in self._ranks(project, floor, silent)
        )
        hidden = heapq.nsmallest(count, runs)
        self._silent = silent
        by_project: defaultdict[int, set[str]] = defaultdict(set)
        for *_, index, run_id in hidden:
            by_project[index].add(run_id)
        for index, project in enumerate(projects):
            for _ in range(project.hide(by_project[index])):
                self._dropped("limit")
        self._hides = bool(hidden)

    def _ranks(
        self, project: ProjectRuns, floor: float, silent: dict[tuple[str, str], "_Silence"]
    ) -> Iterator[tuple[str, tuple[int, float]]]:
        """Yield the open runs of a project with what sorts them: those to be hidden first come first."""
        now = self._clock.now()
        latest = now - floor
        waits_longest = _waits_longest(project, now, latest)
        for run_id, tracked in project.open.items():
            created_at, since = tracked.run.snapshot.created_at, tracked.run.last_progress_at
            if tracked.run.status is Status.QUEUED:
                yield run_id, (NEEDED if run_id == waits_longest else QUEUED, -created_at)
            elif since is not None and (since <= latest or tracked.is_started_again):
                # Before it is computed when it stalls, which takes much longer: that is rarely before the floor.
                key = project.name, run_id
                silent[key] = silence = self._silence(project, tracked, self._silent.get(key), since, now)
                yield run_id, (NEEDED, -since) if silence.is_stalled else (HEALTHY, created_at)
            else:
                yield run_id, (HEALTHY, created_at)

    def _silence(
        self, project: ProjectRuns, tracked: TrackedRun, known: "_Silence | None", since: float, now: float
    ) -> "_Silence":
        """Return the silence of a run, computed again only after a while: there may be many."""
        if known is not None and known.since == since and (known.is_stalled or now < known.again_at):
            return known
        stalls_at = self._stalls_at(project, tracked)
        # A run that is started again and again has a moment only each time.
        return _Silence(since, now + AGAIN_LEAST >= stalls_at, min(stalls_at, now + LOOK_AGAIN))

    def _enforce_spinners(self, limits: LimitsConfig) -> None:
        """Take the slots that are too many, after a restart or a reload: otherwise none are given.

        From spinners without runs first, and from the projects with the most.
        """
        read = [project for project in self._projects.values() if project.has_been_read]
        for project in [each for each in read if each.spinners.slot_count > limits.spinners_per_project]:
            self._evict(project, project.spinners.slot_count - limits.spinners_per_project)
        if self._projects.slots.taken > limits.spinners:
            read.sort(key=lambda project: project.spinners.slot_count, reverse=True)
            for with_runs in (False, True):
                for project in read:
                    excess = self._projects.slots.taken - limits.spinners
                    project.spinners.evict(project.name, max(excess, 0), with_runs=with_runs)
        for project in [each for each in read if each.spinners.has_not_shown]:
            for _ in range(project.spinners.collect_not_shown()):
                self._dropped("spinner_limit")

    def _evict(self, project: ProjectRuns, count: int) -> None:
        for with_runs in (False, True):
            if count > 0:
                count -= project.spinners.evict(project.name, count, with_runs=with_runs)

    def _drop_tombstones(self, projects: list[ProjectRuns], most: int, overlap: float) -> None:
        """Drop the oldest tombstones over the limit, but none of a run that the next read may bring again.

        And none of a project whose read is being applied or was cut off: the next read would count them again.
        """
        projects = [project for project in projects if not project.is_committing]
        excess = sum(project.tombstone_count for project in projects) - most
        if excess > 0:
            by_project = [
                zip(project.tombstones_not_needed(overlap), itertools.repeat(index))
                for index, project in enumerate(projects)
            ]
            for (_, run_id), index in list(itertools.islice(heapq.merge(*by_project), excess)):
                projects[index].drop_tombstone(run_id)

    def _trim_failed_records(self, limits: LimitsConfig) -> None:
        """Keep the failed records of the runs that changed last, and of each run those within its limit."""
        most = limits.failed_records_per_run
        runs = [(project, run) for project in self._projects.values() for run in project.runs_with_failed_records()]
        excess = max(sum(min(len(run.failed_records), most) for _, run in runs) - limits.failed_records, 0)
        if excess > 0:
            runs.sort(key=lambda pair: pair[1].snapshot.updated_at)
        for project, run in runs:
            # A run has more than its limit if they were read before the config was reloaded, or before a restart.
            allowed = min(len(run.failed_records), most)
            kept = max(allowed - excess, 0)
            excess -= allowed - kept
            if kept < len(run.failed_records):
                project.trim_failed_records(run.id, run.failed_records[:kept])

    def _trim_listed(self, kind: RecordKind, limit: int) -> None:
        """Name as many records of a kind as failed ones, of the runs whose first one began or waits the longest."""
        kept = [
            (project, run_id, records)
            for project in self._projects.values()
            for run_id, records in project.listed[kind].items()
            if records.named
        ]
        excess = sum(len(records.named) for _, _, records in kept) - limit
        if excess <= 0:
            return
        for project, run_id, records in sorted(kept, key=lambda each: -(each[2].first_at or 0.0)):
            if excess <= 0:
                return
            trimmed = records.trimmed(max(len(records.named) - excess, 0))
            excess -= len(records.named) - len(trimmed.named)
            project.keep_listed(kind, run_id, trimmed)


def _waits_longest(project: ProjectRuns, now: float, latest: float) -> str | None:
    """Return the run that has been queued the longest; None if there is none, or a run made progress after `latest`.

    A page on the queue names its runs; one of them is enough. One that is to start later pages nobody.
    """
    queued: list[tuple[float, str]] = []
    for run_id, tracked in project.open.items():
        run = tracked.run
        if run.status is not Status.QUEUED:
            if run.last_progress_at is not None and run.last_progress_at > latest:
                return None
        elif (run.snapshot.waiting_until or now) <= now:
            queued.append((run.snapshot.created_at, run_id))
    return min(queued)[1] if queued else None


class _Silence(NamedTuple):
    """Whether a silent run counts as stalled, and until when that is known. Times are the runtime's."""

    since: float
    is_stalled: bool
    """Then it does as long as the silence lasts, so that it is not hidden and shown in turn."""
    again_at: float
