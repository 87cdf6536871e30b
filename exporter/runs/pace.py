"""Which silence counts as a stall: how long a run may go without progress, learned from it and from earlier runs.

A fixed time is wrong in both directions: it pages for a huge slow table and is late for a fast run that hangs. So the
longest gap between two finished records is learned for each run, and a silence counts as a stall when it is longer than
that history makes plausible. `docs/alerting.md` says how the constants were measured and how often they are wrong.
"""

import itertools
import math
from collections.abc import Iterable
from statistics import median
from typing import Self

import msgspec

from exporter.config import SpinnerPolicy
from exporter.runs.run import Run
from exporter.runtime.model import RecordCounts
from exporter.status import Status

GAP_FACTOR = 2.6
"""A silence of this many times the run's longest gap so far is a stall; the corpus requires at most 3 times."""

EARLIER_FACTOR = 1.6
"""The same for the usual recurring gap of the spinner's earlier runs, which is better known than that of one run."""

STRAGGLER_FACTOR = 2.0
"""At the end of a run no other record finishes in the meantime: this many times the time that one record takes."""

STRANGER_FACTOR = 1.7
"""A silence of this many times the floor is a stall in a young run of a spinner without ended runs.

A run is young while it has been observed at work for less than the floor.
"""

NEGLIGIBLE = 230.0
"""Seconds of gaps that may be estimated rather than observed in a run that others learn from."""

EARLIER_RUNS = 9
"""Earlier runs that a spinner learns from; the median of an odd number is one of them."""


class SpinnerPace(msgspec.Struct):
    """What a spinner learned from its earlier runs, for a run without its own pace. The newest run is last."""

    _first_gaps: list[float] = []
    _recurring_gaps: list[float] = []
    _usual: tuple[float, float] | None = None
    """The medians of the two, cached because they are read far more often than they change."""

    def learn(self, newest_first: Iterable["RunPace"]) -> bool:
        """Learn from the paces of runs that ended; return whether there was anything to learn."""
        known = (
            (pace.first_gap, pace.recurring_gap) for pace in newest_first if pace.first_gap is not None and pace.known
        )
        learned = list(itertools.islice(known, EARLIER_RUNS))
        for first_gap, recurring_gap in reversed(learned):
            self._first_gaps.append(first_gap)
            self._recurring_gaps.append(recurring_gap)
        if learned:
            del self._first_gaps[:-EARLIER_RUNS], self._recurring_gaps[:-EARLIER_RUNS]
            self._usual = median(self._first_gaps), median(self._recurring_gaps)
        return bool(learned)

    def usual_first_gap(self) -> float | None:
        """Return the usual seconds from the start of a run to its first finished record; None before one has ended."""
        return self._usual[0] if self._usual else None

    def usual_recurring_gap(self) -> float | None:
        """Return the usual gap, in seconds, that a run has at least twice; None before one has ended."""
        return self._usual[1] if self._usual else None


class RunPace(msgspec.Struct, gc=False):
    """One run's pace, learned from each change of it. Times are the runtime's."""

    longest_gap: float = 0.0
    """Seconds of the longest gap between two finished records; the first gap begins at the start."""
    recurring_gap: float = 0.0
    """Seconds of the second longest gap: a single long one may have been a stall, two are normal for the run."""
    first_gap: float | None = None
    """Seconds from the start to the first finished record; None before it."""
    _most_running: int = 0
    _quiet_since: float | None = None
    _finished: int = 0
    _spent: float = 0.0
    _watched: float = 0.0
    _unwatched: float = 0.0

    @classmethod
    def first(cls, run: Run) -> Self:
        """Return the pace of a run at its first snapshot. If records have finished before, its gaps are estimates."""
        records, started_at = run.records, run.snapshot.started_at
        pace = cls(_most_running=records.running or 0, _quiet_since=run.last_progress_at)
        finished = records.finished
        if finished and started_at is not None and run.last_progress_at is not None:
            pace._add_gap(run.last_progress_at - started_at, finished)
            pace._finished = finished
            pace._unwatched = pace._spent
        return pace

    @property
    def known(self) -> bool:
        """Whether most of the gaps were observed rather than estimated, or are too short to matter."""
        return self._unwatched < max(self._watched, NEGLIGIBLE)

    @staticmethod
    def first_is_known(run: Run) -> bool:
        """Whether the `first` pace of a run is `known`; cheaper than `first`, for the many runs of a first read."""
        started_at, until = run.snapshot.started_at, run.last_progress_at
        return started_at is not None and until is not None and until - started_at < NEGLIGIBLE

    def learn(self, before: Run, after: Run, unchanged_until: float) -> Self:
        """Return the pace after a change of the run; `unchanged_until` is the time of the read before."""
        since, until = self._quiet_since, after.last_progress_at
        if since is None or until is None or before.restarted_by(after):
            return self.first(after)
        self._most_running = max(self._most_running, after.records.running or 0)
        finished = self._newly_finished(before, after)
        if not at_work(before):
            # A person has answered or a worker has continued it: the silence before does not count.
            self._quiet_since = max(until, after.changed_at) if at_work(after) else until
        elif finished > 0:
            silent = max(unchanged_until - since, 0.0)
            self._add_gap(until - since - silent, finished, silent=silent)
            self._watched += max(until - since, 0.0)
            self._quiet_since = until
        return self

    def _newly_finished(self, before: Run, after: Run) -> int:
        """Return how many records have finished since the last change, 1 for some if their number is unknown."""
        known = after.records.finished
        if known is None or before.records.finished is None:
            self._finished = known or 0
            return int(after.last_progress_at != before.last_progress_at)
        finished, self._finished = known - self._finished, known
        return finished

    def not_ahead_of(self, now: float) -> None:
        """Note that the runtime's clock was set back to `now`: no silence began later."""
        if self._quiet_since is not None:
            self._quiet_since = min(self._quiet_since, now)

    def quiet_since(self) -> float | None:
        """Return since when the run has been silent while at work; None before it starts."""
        return self._quiet_since

    def interval(self) -> float | None:
        """Return the usual seconds between two finished records; None before the first."""
        return self._spent / self._finished if self._finished and self._spent else None

    def stall_threshold(self, run: Run, earlier: SpinnerPace, policy: SpinnerPolicy) -> float:
        """Return the seconds of silence after which this run counts as stalled."""
        candidates = [policy.stall_floor, GAP_FACTOR * self.longest_gap]
        first = earlier.usual_first_gap()
        if self.first_gap is None and first is not None:
            candidates.append(GAP_FACTOR * first)
        usual = earlier.usual_recurring_gap()
        if usual is not None:
            candidates.append(EARLIER_FACTOR * usual)
        elif self._watched < policy.stall_floor:
            candidates.append(STRANGER_FACTOR * policy.stall_floor)
        candidates.append(STRAGGLER_FACTOR * self._straggler(run))
        return min(max(candidates), policy.stall_ceiling)

    def _add_gap(self, seconds: float, finished: int, *, silent: float = 0.0) -> None:
        """Learn that `finished` records finished within `seconds`, after an observed silence of `silent` seconds.

        For one record that is its gap. For several only the mean is known: when they finish at random times, the
        longest of n gaps is about (1 + ln n) times the mean.
        """
        seconds = max(seconds, 0.0)
        longest = silent + min(seconds, seconds / finished * (1 + math.log(finished)))
        self.recurring_gap = max(self.recurring_gap, min(longest, self.longest_gap))
        self.longest_gap = max(self.longest_gap, longest)
        self.first_gap = longest if self.first_gap is None else self.first_gap
        self._spent += silent + seconds

    def _straggler(self, run: Run) -> float:
        """Return how long the last records may take: the mean gap times the records worked on concurrently."""
        total, finished = run.records.total, run.records.finished
        if total is None or finished is None or total - finished > self._most_running:
            return 0.0
        return (self.interval() or 0.0) * self._most_running


def at_work(run: Run) -> bool:
    """Whether records should be finishing: the run has started, has not ended, and does not wait for a person.

    Some runtimes show a wait only in the counts: some records wait, none runs, and the status is in progress.
    """
    if run.ended or run.status not in (Status.RUNNING, Status.UNKNOWN) or not run.started:
        return False
    return not (run.records.waiting and _running(run.records) == 0)


def _running(records: RecordCounts) -> int | None:
    """Return how many records are worked on; None if unknown and not all others wait."""
    if records.running is not None or records.total is None or records.finished is None:
        return records.running
    return 0 if records.total - records.finished <= (records.waiting or 0) else None
