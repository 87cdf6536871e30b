"""Which silence counts as a stall: how long a run may go without progress, learned from it and from earlier runs.

A fixed time is wrong in both directions: it pages for a huge slow table and is late for a fast run that hangs. How long
to wait depends on how much is known: the longest gap between two finished records says little after five minutes, and
much after five hours. `stalls.false_pages` says how many false pages per 100 hours of runs are acceptable; each rule
below returns the silence that is longer than what the history makes plausible at that rate. `docs/alerting.md` says how
the constants were chosen and how often they are wrong.
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

GAP_FACTOR = 2.0
"""A silence of this many times the longest gap so far is a stall, however little is known: later is too late."""

UNKNOWN_FACTOR = 1.82
"""A silence of this many times the floor is a stall, however little is known: later is too late."""

UNSEEN = 1.2
"""Silences of another kind, longer than the floor, per 100 hours of a run that was never observed.

It is the prior of the rule of succession: each observed second makes them less likely.
"""

UNSEEN_WEIGHT = 1 / 3
"""The weight of that prior: as much as an observation of this many times the floor."""

UNSEEN_SHAPE = 1.05
"""How fast longer ones become rarer: the exponent of their Pareto distribution."""

ROUNDS = 2
"""Rounds of the records that are worked on at once before anything is known about the gaps between them."""

IDLE_FACTOR = 1.65
"""Such silences may be this many times longer while they are likelier than usual.

That is: nothing is in progress, such as before the next window of a rate limit; more records may still arrive, because
the total is unknown; or most of the run was not observed.
"""

USUAL_SHAPE, USUAL_WEIGHT = 3.0, 2.0
"""The exponent of the tail of a run's gaps before any is seen, and its weight in gaps."""

EARLIER_FACTOR = 1.5
"""A silence of this many times the usual recurring gap of the spinner's earlier runs, which is well known."""

FIRST_FACTOR = 2.0
"""The same for the usual time until the first record finishes, which one run has only once."""

STRAGGLER_FACTOR = 2.0
"""At the end of a run no other record finishes in the meantime: this many times the time that one record takes."""

LAST_FACTOR = 6.0
"""The same, divided by the number of records that are left, while these are several."""

BEYOND_BELIEF = 3.0
"""A straggler pages when it takes this many times as long as a silence that is a stall elsewhere."""

STRAGGLER_LEAST = 6.0
"""Times the floor that a straggler may take at least before it pages."""

STRAGGLER_FINISHED = 50
"""Records that must have finished before the last one or two can be called stragglers."""

NEGLIGIBLE = 230.0
"""Seconds of gaps that may be estimated rather than observed in a run that others learn from."""

EARLIER_RUNS = 9
"""Earlier runs that a spinner learns from; the median of an odd number is one of them."""

UNNOTED = 600.0
"""Seconds for which a run was at work of which an earlier version noted its gaps only."""

PAUSE = 7200.0
"""Seconds of a gap that may be a pause which returns at the same time of day, such as at night."""

PAUSE_FACTOR = 1.25
"""A pause may be this many times longer than the longest that began at the same time of day."""

OTHERS_WEIGHT = 4.0
"""The runs of other spinners of the project teach as much as a run of the same spinner in a fourth of the time."""

OTHERS_MOST = 3.0
"""Because of other spinners alone a run may be silent for this many times the floor."""

EULER = 0.5772156649
"""The mean of the longest of n exponential gaps is about (ln n + this) times their mean."""

DAY, HOUR = 86400.0, 3600.0


class SpinnerPace(msgspec.Struct):
    """What a spinner learned from its earlier runs, for a run without its own pace. The newest run is last."""

    _first_gaps: list[float] = []
    _recurring_gaps: list[float] = []
    _usual: tuple[float, float] | None = None
    """The usual values of the two, cached because they are read far more often than they change."""
    _observed: list[float] = []
    """Seconds for which each of these runs was at work."""
    _pauses: list[tuple[float, float]] = []
    """The pauses of the last of these runs: second of the day at which one began, and how long it was."""

    def learn(self, newest_first: Iterable["RunPace"]) -> bool:
        """Learn from the paces of runs that ended; return whether there was anything to learn."""
        known = (pace for pace in newest_first if pace.first_gap is not None and pace.known)
        learned = list(itertools.islice(known, EARLIER_RUNS))
        for pace in reversed(learned):
            self._first_gaps.append(pace.first_gap or 0.0)
            self._recurring_gaps.append(pace.recurring_gap)
            self._observed.append(pace.observed)
            self._pauses += pace.pauses
        if learned:
            self._settle()
        return bool(learned)

    def note(self, other: Self) -> None:
        """Learn what another one learned last, if anything."""
        newest = other.newest()
        if newest is not None:
            first_gap, recurring_gap, observed, pauses = newest
            self._first_gaps.append(first_gap)
            self._recurring_gaps.append(recurring_gap)
            self._observed.append(observed)
            self._pauses += pauses
            self._settle()

    def newest(self) -> tuple[float, float, float, list[tuple[float, float]]] | None:
        """Return what the newest run taught: first gap, recurring gap, seconds at work, last pause; None without."""
        if self._usual is None:
            return None
        return self._first_gaps[-1], self._recurring_gaps[-1], (self._observed or [0.0])[-1], self._pauses[-1:]

    def summary(self) -> tuple[float, ...]:
        """Return its usual gaps, how long it observed runs, and how many pauses they had."""
        return *(self._usual or (0.0, 0.0)), self.observed, len(self._pauses)

    def differs_from(self, other: Self) -> bool:
        """Whether it knows much more or less than another one: a quarter."""
        mine, theirs = (pace.summary() for pace in (self, other))
        return any(abs(one - another) > 0.25 * another for one, another in zip(mine, theirs, strict=True))

    def _settle(self) -> None:
        for values in (self._first_gaps, self._recurring_gaps, self._observed):
            del values[:-EARLIER_RUNS]
        del self._pauses[:-EARLIER_RUNS]
        self._usual = median(self._first_gaps), _without_outlier(self._recurring_gaps)

    def usual_first_gap(self) -> float | None:
        """Return the usual seconds from the start of a run to its first finished record; None before one has ended."""
        return self._usual[0] if self._usual else None

    def usual_recurring_gap(self) -> float | None:
        """Return the longest gap, in seconds, that runs have at least twice; None before one has ended."""
        return self._usual[1] if self._usual else None

    @property
    def observed(self) -> float:
        """Seconds for which the earlier runs were at work; an earlier version of the exporter did not note it."""
        return sum(self._observed) + UNNOTED * (len(self._first_gaps) - len(self._observed))

    def pause_at(self, second_of_day: float) -> float:
        """Return the seconds of the longest pause that began within an hour of a time of day; 0 without any."""
        near = (
            length for began, length in self._pauses if abs((began - second_of_day + DAY / 2) % DAY - DAY / 2) <= HOUR
        )
        return max(near, default=0.0)


def _without_outlier(gaps: list[float]) -> float:
    """Return the largest of a few values; of four or more the second largest, since one may have been a stall."""
    return sorted(gaps)[-2 if len(gaps) > 3 else -1]


class Expectation(msgspec.Struct, frozen=True):
    """Which silence of a run counts as a stall, and why."""

    page: float
    """Seconds of silence after which it counts as stalled."""
    basis: str
    """What decided, one of `BASES`."""
    straggler: float | None = None
    """Seconds of silence after which the last records count as stragglers; None unless no others are left."""


BASES = ("floor", "ceiling", "own gaps", "little known", "first record", "earlier runs", "last records", "pause")
"""What can decide how long a run may be silent."""


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
    pauses: list[tuple[float, float]] = []
    """Its last gaps of hours: second of the day at which one began, and how long it was."""
    _interrupted_at: float | None = None
    """When the runtime was found down during the present silence; None if it was not."""

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

    @property
    def observed(self) -> float:
        """Seconds for which it was at work, up to its last finished record."""
        return self._spent

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
            self._interrupted_at = None
        elif finished > 0:
            down_at = math.inf if self._interrupted_at is None else self._interrupted_at
            self._learn_gap(since, min(until, down_at), finished, unchanged_until)
            self._quiet_since = until
            self._interrupted_at = None
        return self

    def _learn_gap(self, since: float, until: float, finished: int, unchanged_until: float) -> None:
        """Learn that nothing finished from `since` to `until`, as far as was seen, and then `finished` records."""
        silent = max(min(unchanged_until, until) - since, 0.0)
        longest = self._add_gap(until - since - silent, finished, silent=silent)
        self._watched += max(until - since, 0.0)
        if longest >= PAUSE:
            self.pauses = [*self.pauses, (since % DAY, longest)][-3:]

    def _newly_finished(self, before: Run, after: Run) -> int:
        """Return how many records have finished since the last change, 1 for some if their number is unknown."""
        known = after.records.finished
        if known is None or before.records.finished is None:
            self._finished = known or 0
            return int(after.last_progress_at != before.last_progress_at)
        finished, self._finished = known - self._finished, known
        return finished

    def interrupt(self, time: float) -> None:
        """Note that the runtime is down at `time`: the run may be silent because of that, which teaches nothing."""
        if self._interrupted_at is None and self._quiet_since is not None:
            self._interrupted_at = max(time, self._quiet_since)

    def excuse_until(self, time: float) -> bool:
        """Note that no silence before `time` counts; return whether that is new."""
        if self._quiet_since is None or time <= self._quiet_since:
            return False
        self._quiet_since = time
        return True

    def not_ahead_of(self, now: float) -> None:
        """Note that the runtime's clock was set back to `now`: no silence began later."""
        if self._quiet_since is not None:
            self._quiet_since = min(self._quiet_since, now)
        if self._interrupted_at is not None:
            self._interrupted_at = min(self._interrupted_at, now)

    def quiet_since(self) -> float | None:
        """Return since when the run has been silent while at work; None before it starts."""
        return self._quiet_since

    def interval(self) -> float | None:
        """Return the usual seconds between two finished records; None before the first."""
        return self._spent / self._finished if self._finished and self._spent else None

    def expectation(self, run: Run, earlier: SpinnerPace, others: SpinnerPace, policy: SpinnerPolicy) -> Expectation:
        """Return which silence counts as a stall.

        `earlier` is what the spinner learned from its earlier runs, and `others` what its project learned from all.
        """
        candidates = [
            (policy.stall_floor, "floor"),
            (self._by_own_gaps(policy), "own gaps"),
            (self._by_what_is_unknown(run, earlier, others, policy), "little known"),
            (self._by_earlier_runs(earlier, others, policy), "earlier runs"),
            (self._by_pause(earlier, others), "pause"),
        ]
        if self.first_gap is None:
            candidates.append((self._by_first_record(earlier, policy), "first record"))
        last = self._by_last_records(run, policy)
        if last:
            candidates.append((last, "last records"))
        seconds, basis = max(candidates, key=_seconds)
        straggler = min(seconds, policy.stall_ceiling) if self._is_straggler(run) else None
        if straggler is not None:
            seconds, basis = max(BEYOND_BELIEF * straggler, STRAGGLER_LEAST * policy.stall_floor), "last records"
        if seconds > policy.stall_ceiling:
            seconds, basis = policy.stall_ceiling, "ceiling"
        return Expectation(seconds, basis, straggler)

    def _by_own_gaps(self, policy: SpinnerPolicy) -> float:
        """Return a gap that is too rare for the accepted rate, by the tail of the gaps so far.

        The longest of n gaps in the time observed so far comes once in that time; one that is longer by a factor comes
        more rarely by a power of that factor. The power is known from how much longer than the mean the longest is: for
        random times it is 0.58 + ln n times the mean, and the tail has that exponent there; a heavier tail has less.
        """
        if self.longest_gap <= 0.0 or self._spent <= 0.0:
            return 0.0
        if not self._finished:
            # How many finished is unknown.
            return GAP_FACTOR * self.longest_gap
        mean, count = self._spent / self._finished, self._finished
        shape = mean * (math.log(count) + EULER) ** 2 / self.longest_gap
        shape = (shape * count + USUAL_SHAPE * USUAL_WEIGHT) / (count + USUAL_WEIGHT)
        rarer = max(1.0 / (policy.false_page_rate * self._spent), 1.0)
        return self.longest_gap * min(math.pow(rarer, 1.0 / max(shape, 1.0)), GAP_FACTOR)

    def _by_what_is_unknown(self, run: Run, earlier: SpinnerPace, others: SpinnerPace, policy: SpinnerPolicy) -> float:
        """Return a silence of a kind that was not seen yet, such as the first wait between two bursts.

        The rule of succession: what did not happen within the time observed comes at most about once in that time.
        """
        is_new = earlier.usual_first_gap() is None
        observed = self._watched + (others.observed / OTHERS_WEIGHT if is_new else earlier.observed)
        if is_new and self._finished < ROUNDS * self._most_running:
            observed = 0.0
        unseen = UNSEEN / (1.0 + observed / (UNSEEN_WEIGHT * policy.stall_floor))
        factor = math.pow(unseen / policy.false_pages, 1.0 / UNSEEN_SHAPE)
        seconds = policy.stall_floor * min(factor, UNKNOWN_FACTOR)
        is_idle = self._most_running > 0 and run.records.running == 0 and bool(run.records.pending)
        is_open = run.records.total is None
        if self.first_gap is not None and (is_idle or is_open or 0.0 < self._watched < self._unwatched):
            seconds *= IDLE_FACTOR
        return seconds

    def _by_earlier_runs(self, earlier: SpinnerPace, others: SpinnerPace, policy: SpinnerPolicy) -> float:
        """Return what would be too long in the spinner's earlier runs; of a new spinner, in its project."""
        usual = earlier.usual_recurring_gap()
        if usual is not None:
            return EARLIER_FACTOR * usual
        return min(EARLIER_FACTOR * (others.usual_recurring_gap() or 0.0), OTHERS_MOST * policy.stall_floor)

    def _by_first_record(self, earlier: SpinnerPace, policy: SpinnerPolicy) -> float:
        """Return how long the first record may take."""
        usual = earlier.usual_first_gap()
        return 0.0 if usual is None else FIRST_FACTOR * usual

    def _by_pause(self, earlier: SpinnerPace, others: SpinnerPace) -> float:
        """Return how long a pause may be that begins when this silence began, if earlier runs had one."""
        if self._quiet_since is None:
            return 0.0
        known = others if earlier.usual_first_gap() is None else earlier
        return PAUSE_FACTOR * known.pause_at(self._quiet_since % DAY)

    def _by_last_records(self, run: Run, policy: SpinnerPolicy) -> float:
        """Return how long the last records may take, since no other one finishes in the meantime; 0 before them."""
        total, finished, workers = run.records.total, run.records.finished, max(self._most_running, 1)
        if total is None or finished is None or total - finished > workers or not self._finished:
            return 0.0
        left = max(total - finished, 1)
        takes = min((self.interval() or 0.0) * workers, self._spent)
        least = UNKNOWN_FACTOR * policy.stall_floor if left <= 2 < total else 0.0
        return max(min(STRAGGLER_FACTOR, LAST_FACTOR / left) * takes, least)

    def _is_straggler(self, run: Run) -> bool:
        """Whether one or two of many records are left, or one in 200, and all are in progress."""
        total, finished = run.records.total, run.records.finished
        if total is None or finished is None or finished < STRAGGLER_FINISHED:
            return False
        return 0 < total - finished <= min(max(2, total // 200), run.records.running or 0)

    def _add_gap(self, seconds: float, finished: int, *, silent: float = 0.0) -> float:
        """Learn that `finished` records finished within `seconds`, after an observed silence of `silent` seconds.

        Returns the longest gap in that time.

        For one record that is its gap. For several only the mean is known: when they finish at random times, the
        longest of n gaps is about (1 + ln n) times the mean.
        """
        seconds = max(seconds, 0.0)
        longest = silent + min(seconds, seconds / finished * (1 + math.log(finished)))
        self.recurring_gap = max(self.recurring_gap, min(longest, self.longest_gap))
        self.longest_gap = max(self.longest_gap, longest)
        self.first_gap = longest if self.first_gap is None else self.first_gap
        self._spent += silent + seconds
        return longest


def _seconds(candidate: tuple[float, str]) -> float:
    return candidate[0]


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
