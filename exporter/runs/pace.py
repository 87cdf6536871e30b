"""What silence is suspicious: how a run's own history, and its spinner's, says how long it may go without progress.

A fixed time gets it wrong both ways: it pages for a huge slow table and sleeps through a fast run that died. So the
longest gap between two finished records is learnt, run by run, and a silence counts as a stall when it is longer than
that history makes plausible. `docs/alerting.md` says what the constants were measured on and what they cost.
"""

import itertools
import math
from collections.abc import Iterable
from statistics import median
from typing import Self

import msgspec

from exporter.config import SpinnerPolicy
from exporter.runs.run import Run
from exporter.status import Status

GAP_FACTOR = 2.6
"""A silence this many times the run's longest gap so far is a stall: the corpus allows 3 times to find one."""

EARLIER_FACTOR = 1.6
"""The same for the usual recurring gap of the spinner's earlier runs, which is known better than that of one run."""

STRAGGLER_FACTOR = 2.0
"""At the end of a run no other record finishes while one takes its time: this many times what a record takes."""

STRANGER_FACTOR = 1.7
"""Times the floor that every silence of a young run is given while no run of its spinner has ended.

Its way is not known. Young is a run that was watched at work for less than the floor.
"""

NEGLIGIBLE = 230.0
"""Seconds of gaps that may have been estimated rather than seen without mattering to what is learnt from a run."""

EARLIER_RUNS = 9
"""Earlier runs that are remembered per spinner; of an odd number the median is one of them."""


class SpinnerPace(msgspec.Struct):
    """What the earlier runs of a spinner say about one that has no pace of its own yet; the newest stand last."""

    _first_gaps: list[float] = []
    _recurring_gaps: list[float] = []
    _usual: tuple[float, float] | None = None
    """The medians of the two, which are asked for far more often than they change."""

    def learn(self, newest_first: Iterable["RunPace"]) -> bool:
        """Take the paces of runs that ended, no more of them than are remembered; return whether any told something."""
        telling = (
            (pace.first_gap, pace.recurring_gap) for pace in newest_first if pace.first_gap is not None and pace.known
        )
        learnt = list(itertools.islice(telling, EARLIER_RUNS))
        for first_gap, recurring_gap in reversed(learnt):
            self._first_gaps.append(first_gap)
            self._recurring_gaps.append(recurring_gap)
        if learnt:
            del self._first_gaps[:-EARLIER_RUNS], self._recurring_gaps[:-EARLIER_RUNS]
            self._usual = median(self._first_gaps), median(self._recurring_gaps)
        return bool(learnt)

    def usual_first_gap(self) -> float | None:
        """Return the usual seconds from the start of a run to its first finished record; None when none ended yet."""
        return self._usual[0] if self._usual else None

    def usual_recurring_gap(self) -> float | None:
        """Return the usual gap that a run has at least twice, in seconds; None when none ended yet."""
        return self._usual[1] if self._usual else None


class RunPace(msgspec.Struct, gc=False):
    """One run's pace, learnt from one state of it to the next. Times are the runtime's."""

    longest_gap: float = 0.0
    """Seconds of the longest known gap between two finished records, the first counted from the start."""
    recurring_gap: float = 0.0
    """Seconds of the second longest: a single long one may have been a stall, two are the run's way."""
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
        """Return the pace of a run as it is found; of one that is found half way the longest gap is an estimate."""
        records, started_at = run.records, run.snapshot.started_at
        pace = cls(_most_running=records.running, _quiet_since=run.last_progress_at)
        finished = records.finished
        if finished and started_at is not None and run.last_progress_at is not None:
            pace._take_gap(run.last_progress_at - started_at, finished)
            pace._finished = finished
            pace._unwatched = pace._spent
        return pace

    @property
    def known(self) -> bool:
        """Whether most of the gaps were seen rather than estimated, or are too short for that to matter."""
        return self._unwatched < max(self._watched, NEGLIGIBLE)

    @staticmethod
    def first_is_known(run: Run) -> bool:
        """Whether `first` of a run would be `known`: told without it, since of a first read's runs most are not."""
        started_at, until = run.snapshot.started_at, run.last_progress_at
        return started_at is not None and until is not None and until - started_at < NEGLIGIBLE

    def learn(self, before: Run, after: Run, looked_at: float) -> Self:
        """Return the pace after the run's next state; until `looked_at`, the read before, it was as before."""
        since, until = self._quiet_since, after.last_progress_at
        if since is None or until is None or before.restarted_by(after):
            return self.first(after)
        self._most_running = max(self._most_running, after.records.running)
        finished = after.records.finished - self._finished
        self._finished = after.records.finished
        if not at_work(before):
            # A person answered, or a worker took it up again: the silence before is not the run's.
            self._quiet_since = max(until, after.snapshot.updated_at) if at_work(after) else until
        elif finished > 0:
            silent = max(looked_at - since, 0.0)
            self._take_gap(until - since - silent, finished, silent=silent)
            self._watched += max(until - since, 0.0)
            self._quiet_since = until
        return self

    def quiet_since(self) -> float | None:
        """Return since when the run has been silent while at work; None before it started."""
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

    def _take_gap(self, seconds: float, finished: int, *, silent: float = 0.0) -> None:
        """Learn that this many records finished within so many seconds, after a silence of which every second was seen.

        Of one record that is its gap. Of several only the mean is known; when their ends fall at random, the longest
        of n gaps is about (1 + ln n) times the mean.
        """
        seconds = max(seconds, 0.0)
        longest = silent + min(seconds, seconds / finished * (1 + math.log(finished)))
        self.recurring_gap = max(self.recurring_gap, min(longest, self.longest_gap))
        self.longest_gap = max(self.longest_gap, longest)
        self.first_gap = longest if self.first_gap is None else self.first_gap
        self._spent += silent + seconds

    def _straggler(self, run: Run) -> float:
        """Return how long the last records may take: the gap between records times how many are worked on at once."""
        records = run.records
        if records.total is None or records.total - records.finished > self._most_running:
            return 0.0
        return (self.interval() or 0.0) * self._most_running


def at_work(run: Run) -> bool:
    """Whether records should be finishing: started, not ended, and not waiting for a person.

    Some runtimes show a wait only in the counts: records that wait, none that runs, and a status in progress.
    """
    if run.ended or run.status not in (Status.RUNNING, Status.UNKNOWN) or not run.started:
        return False
    return not (run.records.waiting and not run.records.running)
