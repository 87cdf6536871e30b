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
from statistics import median, median_high
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

FEW_GAPS, FEW_FACTOR = 20, 2.4
"""While a run has had at most so many gaps, a silence may be this many times the longest: it is not yet typical."""

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

OPEN_FACTOR = 1.65
"""Such silences may be this many times longer while they are likelier than usual.

That is: more records may still arrive, because the total is unknown; or most of the run was not observed.
"""

HELD_BACK, PAUSED = 3.0, 6.0
"""Times the floor for which nothing may be in progress though records wait, until the run has continued twice.

Records that hang are in progress. If none is, the runtime mostly holds them back: a rate limit, a window, a night.
But what hands them out can be dead as well. The second number counts if everything speaks for a pause: the worker
service has heartbeats, and no other run of the project has continued in the meantime. It is an hour, after which most
quotas return.
"""

HELD_BACK_WORKED = 2.0
"""Times what the run has worked before for which it may be held back if that is longer.

Of a gate that opens and closes only the first opening is known then, and a closing is of the same order: a quota that
is exhausted in half an hour returns within an hour, and a night follows a day's work.
"""

HELD_BACK_MOST = 6.0
"""Times the floor for which it may be at most, unless everything speaks for a pause."""

OVERTAKEN = 3.0
"""Times the floor after which the progress of another run means that its project does not pause.

Before that, records that were in progress when the pause began come to their end.
"""

HELD_BACK_SEEN = 2
"""Gaps of that kind after which their lengths are known."""

HELD_BACK_LEAST = 60.0
"""Seconds of the shortest gap of that kind: between two records a worker is free for moments, too."""

USUAL_SHAPE, USUAL_WEIGHT = 3.0, 2.0
"""The exponent of the tail of a run's gaps before any is seen, and its weight in gaps."""

EARLIER_FACTOR = 1.5
"""A silence of this many times the usual recurring gap of the spinner's earlier runs, which is well known."""

EARLIER_MOST = 2.0
"""The same for runs of few gaps each, whose recurring one is less well known."""

FIRST_FACTOR = 2.0
"""The same for the usual time until the first record finishes, which one run has only once."""

STRAGGLER_FACTOR = 1.7
"""While few records are in progress, others do not finish in the meantime: this many times the time that one takes.

Chosen with the records in flight read, which show more than a longer wait.
"""

LAST_FACTOR = 5.1
"""The same, divided by the number of records in progress, while these are several."""

AGE_FACTOR = 2.0
"""If it is known when each of several began, the youngest may become this many times as old.

A single one can be one of the few that take much longer.
"""

BEYOND_BELIEF = 3.0
"""A straggler pages when it takes this many times as long as a silence that is a stall elsewhere."""

STRAGGLER_LEAST = 6.0
"""Times the floor that a straggler may take at least before it pages."""

FEW = 4
"""If less than a fourth of the records are in progress, something makes the others wait: the next stage, a machine."""

STRAGGLER_FINISHED = 50
"""Records that must have finished before the last one or two can be called stragglers."""

NEGLIGIBLE = 230.0
"""Seconds of gaps that may be estimated rather than observed in a run that others learn from."""

EARLIER_RUNS = 9
"""Earlier runs that a spinner learns from; the median of an odd number is one of them."""

UNNOTED = 600.0
"""Seconds for which a run was at work of which an earlier version noted its gaps only."""

WHOLE_RUN = 1 / 3
"""The share of the floor for which a whole run counts as observed at least, however short it was."""

AGAIN_LEAST = 1.0
"""Seconds that a run gets at least when it is started again without progress: dashboards divide by its threshold.

A share of the threshold would be too much: a run that is started again within that time would never stall.
"""

PAUSE = 7200.0
"""Seconds of a gap that may be a pause which returns at the same time of day, such as at night."""

PAUSES = 9
"""Last pauses that are kept of a run: a week has seven nights."""

PAUSE_FACTOR = 1.25
"""A pause may be this many times longer than the longest that began at the same time of day."""

OTHERS_WEIGHT = 4.0
"""The runs of other spinners of the project teach as much as a run of the same spinner in a fourth of the time."""

OTHERS_MOST = 3.0
"""Because of other spinners alone a run may be silent for this many times the floor."""

EULER = 0.5772156649
"""The mean of the longest of n exponential gaps is about (ln n + this) times their mean."""

DAY, HOUR = 86400.0, 3600.0
WEEK = 7 * DAY


class SpinnerPace(msgspec.Struct):
    """What a spinner learned from its earlier runs, for a run without its own pace. The newest run is last."""

    _first_gaps: list[float] = []
    _recurring_gaps: list[float] = []
    _usual: tuple[float, float] | None = None
    """The usual values of the two, cached because they are read far more often than they change."""
    _busy_gaps: list[float] = []
    """The recurring gaps of these runs in which records were in progress."""
    _usual_busy: float | None = None
    """The usual value of these, cached; None of what an earlier version learned, which did not tell them apart."""
    _observed: list[float] = []
    """Seconds for which each of these runs was at work."""
    _finished: list[int] = []
    """Records that finished in each; of the newest ones only, where an earlier version noted none."""
    _mean: float = 0.0
    """The mean gap, in seconds, that the recurring ones of these runs suggest; 0 if unknown."""
    _busy_mean: float = 0.0
    """The same of the gaps in which records were in progress."""
    _pauses: list[tuple[float, float]] = []
    """The pauses of the last of these runs: the runtime's time at which one began, and how long it was.

    An earlier version noted the second of the day.
    """

    def learn(self, newest_first: Iterable["RunPace"]) -> bool:
        """Learn from the paces of runs that ended; return whether there was anything to learn."""
        known = (pace for pace in newest_first if pace.first_gap is not None and pace.known)
        learned = list(itertools.islice(known, EARLIER_RUNS))
        for pace in reversed(learned):
            self._first_gaps.append(pace.first_gap or 0.0)
            self._recurring_gaps.append(pace.recurring_gap)
            self._busy_gaps.append(pace.recurring(while_busy=True))
            self._observed.append(pace.observed)
            self._finished.append(pace.finished)
            self._pauses += pace.pauses
        if learned:
            self._settle()
        return bool(learned)

    @classmethod
    def of_spinners(cls, paces: Iterable[Self]) -> Self:
        """Return what several spinners know together, each with an ended run; the last one is the newest."""
        known = cls()
        for pace in paces:
            known._first_gaps.append(pace.usual_first_gap() or 0.0)
            known._recurring_gaps.append(pace.usual_recurring_gap() or 0.0)
            known._busy_gaps.append(pace.usual_recurring_gap(while_busy=True) or 0.0)
            known._observed.append(pace.observed_with(0.0))
            known._pauses += pace.pauses[-1:]
        known._settle()
        return known

    @property
    def pauses(self) -> list[tuple[float, float]]:
        """The last pauses of its runs: the runtime's time at which one began, and how long it was."""
        return self._pauses

    @property
    def runs(self) -> int:
        """How many runs taught it, of the last few."""
        return len(self._first_gaps)

    def summary(self) -> tuple[float, ...]:
        """Return its usual gaps, how long it observed runs, and how many pauses they had."""
        busy = self.usual_recurring_gap(while_busy=True) or 0.0
        return *(self._usual or (0.0, 0.0)), busy, self.observed_with(0.0), len(self._pauses)

    def differs_from(self, other: Self) -> bool:
        """Whether it knows much more or less than another one: a quarter."""
        mine, theirs = (pace.summary() for pace in (self, other))
        return any(abs(one - another) > 0.25 * another for one, another in zip(mine, theirs, strict=True))

    def _settle(self) -> None:
        untold = len(self._recurring_gaps) - len(self._busy_gaps)
        self._busy_gaps[:0] = self._recurring_gaps[:untold]
        for values in (self._first_gaps, self._recurring_gaps, self._busy_gaps, self._observed):
            del values[:-EARLIER_RUNS]
        del self._finished[:-EARLIER_RUNS]
        del self._pauses[:-EARLIER_RUNS]
        self._usual = median(self._first_gaps), _without_outlier(self._recurring_gaps)
        self._usual_busy = _without_outlier(self._busy_gaps)
        self._mean, self._busy_mean = (self._mean_by(gaps) for gaps in (self._recurring_gaps, self._busy_gaps))

    def _mean_by(self, recurring_gaps: list[float]) -> float:
        """Return the mean gap that the recurring gaps suggest, each by how many gaps its run had; 0 if unknown.

        A run with one gap has no recurring one.
        """
        newest = zip(reversed(recurring_gaps), reversed(self._finished), strict=False)
        means = [gap / max(_longest_of(count) - 1.0, 1.0) for gap, count in newest if count > 1]
        return median(means) if means else 0.0

    def usual_first_gap(self) -> float | None:
        """Return the usual seconds from the start of a run to its first finished record; None before one has ended."""
        return self._usual[0] if self._usual else None

    def usual_recurring_gap(self, *, while_busy: bool = False) -> float | None:
        """Return the longest gap, in seconds, that runs have at least twice; None before one has ended.

        `while_busy`: of the gaps in which records were in progress.
        """
        if while_busy and self._usual_busy is not None:
            return self._usual_busy
        return self._usual[1] if self._usual else None

    def mean_gap(self, *, while_busy: bool) -> float:
        """Return the mean gap, in seconds, that the recurring gaps of its runs suggest; 0 if unknown.

        Of random gaps the second longest is one mean shorter than the longest. `while_busy`: as above.
        """
        return self._busy_mean if while_busy else self._mean

    def observed_with(self, floor: float) -> float:
        """Return the seconds for which the earlier runs were at work: each at least a third of the floor.

        That is what did not happen in a whole run, however short it was. `UNNOTED` where it is unknown.
        """
        return sum(max(each, WHOLE_RUN * floor) for each in self._observed) + UNNOTED * (
            len(self._first_gaps) - len(self._observed)
        )


def usual_pause(pauses: Iterable[tuple[float, float]], time: float) -> tuple[float, bool]:
    """Return how long a pause that begins at a time usually is, 0 if unknown, and whether several are known.

    Pauses count that began within an hour of the same time of day; those of the same weekday count before others, since
    a weekend begins like a night.
    """
    near = [(began, length) for began, length in pauses if _apart(began, time, DAY) <= HOUR]
    same_weekday = [length for began, length in near if _apart(began, time, WEEK) <= HOUR]
    if same_weekday:
        return max(same_weekday), len(near) > 1
    return (median_high([length for _, length in near]), len(near) > 1) if near else (0.0, False)


def _apart(one: float, other: float, period: float) -> float:
    """Return the seconds between two times of a day or a week."""
    return abs((one - other + period / 2) % period - period / 2)


def _without_outlier(gaps: list[float]) -> float:
    """Return the largest of a few values; of four or more the second largest, since one may have been a stall."""
    return sorted(gaps)[-2 if len(gaps) > 3 else -1]


class Expectation(msgspec.Struct, frozen=True):
    """Which silence of a run counts as a stall, and why."""

    page: float
    """Seconds of silence after which it counts as stalled."""
    basis: str
    """What decided, one of `REASONS`."""
    straggler: float | None = None
    """Seconds of silence after which the last records count as stragglers; None unless no others are left."""


REASONS = {
    "floor": "the configured minimum, because its gaps are shorter",
    "ceiling": "the configured maximum, because its pace would allow more",
    "own gaps": "a shorter silence would be normal, given its gaps so far",
    "little known": "little of this run and of its spinner has been seen",
    "first record": "the first record of earlier runs took about half as long",
    "earlier runs": "earlier runs of the spinner or of its project had such gaps",
    "few in progress": "fewer records are in progress than before, so one finishes more rarely",
    "last records": "the last records may take longer than the others",
    "held back": "nothing is in progress though records wait, so something holds them back",
    "pause": "earlier pauses began at this time of day",
    "started again": "it was queued or started again without progress, which extends its threshold once",
    "child runs": "its child runs start or fail without progress, which extends its threshold once",
}
"""What can decide how long a run may be silent, and why in words that a page and a dashboard show."""


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
    """Its last gaps of hours: the runtime's time at which one began, and how long it was."""
    _interrupted_at: float | None = None
    """When the runtime was found down during the present silence; None if it was not."""
    _worked: float = 0.0
    """Seconds that all records together have been in progress: by Little's law, how long one takes."""
    _held_back: int = 0
    """Gaps during which nothing was in progress though records waited."""
    _overtaken_since: float | None = None
    """When the silence began in which another run of the project continued, to compare with the present one."""
    _busy_gaps: tuple[float, float] | None = None
    """The longest and the recurring one of the gaps in which records were in progress.

    None of a run that an earlier version saw first: then all gaps count.
    """
    _silent_before: float = 0.0
    """Seconds of silence at work before it was queued or started again without progress; 0 mostly."""
    _tried_at: float | None = None
    """When a child of it last started or failed without progress, to compare with the silence; None before that."""

    @classmethod
    def first(cls, run: Run) -> Self:
        """Return the pace of a run at its first snapshot. If records have finished before, its gaps are estimates."""
        records, started_at = run.records, run.snapshot.started_at
        pace = cls(_most_running=records.running or 0, _quiet_since=run.last_progress_at, _busy_gaps=(0.0, 0.0))
        finished = records.finished
        if finished and started_at is not None and run.last_progress_at is not None:
            pace._add_gap(run.last_progress_at - started_at, finished)
            pace._finished = finished
            pace._unwatched = pace._spent
            pace._worked = pace._spent * (records.running or 1)
        return pace

    @property
    def known(self) -> bool:
        """Whether most of the gaps were observed rather than estimated, or are too short to matter."""
        return self._unwatched < max(self._watched, NEGLIGIBLE)

    @property
    def observed(self) -> float:
        """Seconds for which it was at work, up to its last finished record."""
        return self._spent

    @property
    def finished(self) -> int:
        """Records that have finished, as far as their number is known."""
        return self._finished

    @staticmethod
    def first_is_known(run: Run) -> bool:
        """Whether the `first` pace of a run is `known`; cheaper than `first`, for the many runs of a first read."""
        started_at, until = run.snapshot.started_at, run.last_progress_at
        return started_at is not None and until is not None and until - started_at < NEGLIGIBLE

    def learn(self, before: Run, after: Run, unchanged_until: float) -> Self:
        """Return the pace after a change of the run; `unchanged_until` is the time of the read before."""
        since, until = self._quiet_since, after.last_progress_at
        if since is None or before.restarted_by(after):
            return self.first(after)
        self._most_running = max(self._most_running, after.records.running or 0)
        finished = 0 if until is None else self._newly_finished(before, after)
        self._note_start_without_progress(before, after, since, finished)
        if until is None:
            # What is unknown in one answer is mostly known in the next one, which is compared with the one before.
            return self
        if not at_work(before):
            # A person has answered or a worker has continued it: the silence before does not count.
            self._quiet_since = max(until, after.changed_at) if at_work(after) else until
            self._interrupted_at = None
        elif finished > 0:
            down_at = math.inf if self._interrupted_at is None else self._interrupted_at
            was_held_back = self._is_held_back(before)
            running = self._most_running if before.records.running is None else before.records.running
            self._worked += running * self._learn_gap(
                since, min(until, down_at), finished, unchanged_until, was_held_back=was_held_back
            )
            self._quiet_since = until
            self._interrupted_at = None
        return self

    def _learn_gap(
        self, since: float, until: float, finished: int, unchanged_until: float, *, was_held_back: bool
    ) -> float:
        """Learn that nothing finished from `since` to `until`, as far as was seen, and then `finished` records.

        Returns the seconds from one to the other.
        """
        silent = max(min(unchanged_until, until) - since, 0.0)
        before = self.longest_gap, self.recurring_gap, self._busy_gaps
        longest = self._add_gap(until - since - silent, finished, silent=silent, while_busy=not was_held_back)
        self._watched += max(until - since, 0.0)
        self._held_back += was_held_back and longest >= HELD_BACK_LEAST
        if longest >= PAUSE:
            if usual_pause(self.pauses, since)[0]:
                # It returned at its time of day: at other times such a silence is not normal.
                self.longest_gap, self.recurring_gap, self._busy_gaps = before
            self.pauses = [*self.pauses, (since, longest)][-PAUSES:]
        return max(until - since, 0.0)

    def _note_start_without_progress(self, before: Run, after: Run, since: float, finished: int) -> None:
        """Note the silence of a run that is queued, or started, again: what executes it may fail each time."""
        if finished > 0 or after.ended or waits(after):
            self._silent_before = 0.0
            return
        if not at_work(before):
            return
        started_at, again_at = before.snapshot.started_at, after.snapshot.started_at
        if not at_work(after):
            self._silent_before += max(after.changed_at - since, 0.0)
        elif started_at is not None and again_at is not None and again_at > max(started_at, since):
            self._silent_before += again_at - since
            self._quiet_since = again_at

    def _newly_finished(self, before: Run, after: Run) -> int:
        """Return how many records have finished since the last change, 1 for some if their number is unknown."""
        known, last = after.records.finished, before.last_progress_at
        if known is None or (before.records.finished is None and not self._finished):
            self._finished = self._finished if known is None else known
            return int(after.last_progress_at != (self._quiet_since if last is None else last))
        finished, self._finished = known - self._finished, known
        return finished

    def interrupt(self, time: float) -> None:
        """Note that the runtime is down at `time`: the run may be silent because of that, which teaches nothing."""
        if self._interrupted_at is None and self._quiet_since is not None:
            self._interrupted_at = max(time, self._quiet_since)

    def excuse_until(self, time: float, *, is_progress: bool) -> bool:
        """Note that a child made progress at `time`, so that no silence before counts; return whether that is new.

        Unless it `is_progress`, it only extends the threshold, and once: a child can be started again and again.
        """
        if self._quiet_since is None or time <= self._quiet_since:
            return False
        if is_progress:
            self._quiet_since = time
            return True
        if self._tried_at is not None and time <= self._tried_at:
            return False
        self._tried_at = time
        return True

    def overtake(self, progress_at: float, floor: float) -> bool:
        """Note that another run of the project made progress; return whether that is new and shows something."""
        since = self._quiet_since
        if since is None or since == self._overtaken_since or progress_at - since < OVERTAKEN * floor:
            return False
        self._overtaken_since = since
        return True

    def not_ahead_of(self, now: float) -> None:
        """Note that the runtime's clock was set back to `now`: no silence began later."""
        if self._quiet_since is not None:
            self._quiet_since = min(self._quiet_since, now)
        if self._tried_at is not None:
            self._tried_at = min(self._tried_at, now)
        if self._interrupted_at is not None:
            self._interrupted_at = min(self._interrupted_at, now)

    @property
    def is_started_again(self) -> bool:
        """Whether it was silent at work before it was queued or started again without progress."""
        return self._silent_before > 0.0

    def quiet_since(self) -> float | None:
        """Return since when the run has been silent while at work; None before it starts."""
        return self._quiet_since

    def longest(self, *, while_busy: bool) -> float:
        """Return the longest gap; `while_busy`: of those in which records were in progress."""
        return self._gaps(while_busy=while_busy)[0]

    def recurring(self, *, while_busy: bool) -> float:
        """Return the second longest gap; `while_busy`: of those in which records were in progress."""
        return self._gaps(while_busy=while_busy)[1]

    def _gaps(self, *, while_busy: bool) -> tuple[float, float]:
        if while_busy and self._busy_gaps is not None:
            return self._busy_gaps
        return self.longest_gap, self.recurring_gap

    def interval(self) -> float | None:
        """Return the usual seconds between two finished records; None before the first."""
        return self._spent / self._finished if self._finished and self._spent else None

    def expectation(
        self,
        run: Run,
        earlier: SpinnerPace,
        others: SpinnerPace,
        policy: SpinnerPolicy,
        *,
        has_heartbeats: bool,
        is_working: bool,
        youngest_at: float | None,
    ) -> Expectation:
        """Return which silence counts as a stall.

        `earlier` is what the spinner learned from its earlier runs, and `others` what its project learned from all.
        `has_heartbeats`: whether the worker service would be known to be dead if it were. `is_working`: whether records
        are in progress, by their list; some runtimes count as running what waits for more. `youngest_at`: when the last
        one of these began, if all their starts are known.
        """
        pause, is_usual = self._by_pause(earlier, others)
        # While records are in progress, it says nothing how long none is, for example between two batches.
        is_busy = bool(run.records.running)
        is_open = run.records.total is None and not is_working
        candidates = [
            (policy.stall_floor, "floor"),
            (self._by_own_gaps(policy, while_busy=is_busy), "own gaps"),
            (self._by_what_is_unknown(earlier, others, policy, is_open=is_open), "little known"),
            (self._by_earlier_runs(earlier, others, policy, while_busy=is_busy), "earlier runs"),
            (self._by_few_in_progress(run, policy, youngest_at), "few in progress"),
            (self._by_last_records(run, policy), "last records"),
        ]
        if self.first_gap is None:
            candidates.append((self._by_first_record(earlier, policy), "first record"))
        seconds, basis = max(candidates, key=_seconds)
        ticket, is_held_back = None, self._is_held_back(run)
        if self._is_straggler(run):
            ticket = seconds
            seconds, basis = max(BEYOND_BELIEF * seconds, STRAGGLER_LEAST * policy.stall_floor), "last records"
        elif is_held_back and self._held_back < HELD_BACK_SEEN:
            ticket = seconds
            may_pause = has_heartbeats and (self._overtaken_since is None or self._overtaken_since != self._quiet_since)
            least, most = HELD_BACK * policy.stall_floor, HELD_BACK_MOST * policy.stall_floor
            if may_pause:
                least, most = PAUSED * policy.stall_floor, policy.stall_ceiling
            held_back = max(least, min(HELD_BACK_WORKED * self._spent, most))
            seconds, basis = max((seconds, basis), (held_back, "held back"), key=_seconds)
        if seconds > policy.stall_ceiling:
            seconds, basis = policy.stall_ceiling, "ceiling"
        if pause > seconds:
            # A single one may have been a stall, but what hangs now would be in progress.
            is_usual = is_usual or is_held_back
            seconds, basis = pause if is_usual else min(pause, policy.stall_ceiling), "pause"
        ticket = None if ticket is None else min(ticket, policy.stall_ceiling)
        if self._silent_before > seconds:
            seconds, basis = max(2 * seconds - self._silent_before, AGAIN_LEAST), "started again"
            ticket = None
        if self._tried_at is not None and self._quiet_since is not None and self._tried_at > self._quiet_since:
            seconds, basis = seconds + min(self._tried_at - self._quiet_since, seconds), "child runs"
        return Expectation(seconds, basis, ticket)

    def _by_own_gaps(self, policy: SpinnerPolicy, *, while_busy: bool) -> float:
        """Return a gap that is too rare for the accepted rate, by the tail of the gaps so far.

        The longest of n gaps in the time observed so far comes once in that time; one that is longer by a factor comes
        more rarely by a power of that factor. The power is known from how much longer than the mean the longest is: for
        random times it is 0.58 + ln n times the mean, and the tail has that exponent there; a heavier tail has less.
        Of few gaps the longest says little: it suggests a mean of random times, of which some are much longer.
        """
        longest = self.longest(while_busy=while_busy)
        if longest <= 0.0 or self._spent <= 0.0:
            return 0.0
        if not self._finished:
            # How many finished is unknown.
            return GAP_FACTOR * longest
        mean, count = self._spent / self._finished, self._finished
        shape = mean * (math.log(count) + EULER) ** 2 / longest
        shape = (shape * count + USUAL_SHAPE * USUAL_WEIGHT) / (count + USUAL_WEIGHT)
        rarer = max(1.0 / (policy.false_page_rate * self._spent), 1.0)
        seconds = longest * min(math.pow(rarer, 1.0 / max(shape, 1.0)), GAP_FACTOR)
        if count <= FEW_GAPS:
            most = max(FEW_FACTOR * longest, UNKNOWN_FACTOR * policy.stall_floor)
            seconds = max(seconds, min(_too_long(longest / _longest_of(count), policy), most))
        return seconds

    def _by_what_is_unknown(
        self, earlier: SpinnerPace, others: SpinnerPace, policy: SpinnerPolicy, *, is_open: bool
    ) -> float:
        """Return a silence of a kind that was not seen yet, such as the first wait between two bursts.

        The rule of succession: what did not happen within the time observed comes at most about once in that time.
        `is_open`: whether the run may be waiting for more records to arrive.
        """
        is_new = earlier.usual_first_gap() is None
        known = others if is_new else earlier
        observed = self._watched + known.observed_with(policy.stall_floor) / (OTHERS_WEIGHT if is_new else 1.0)
        if is_new and self._finished < ROUNDS * self._most_running:
            observed = 0.0
        unseen = UNSEEN / (1.0 + observed / (UNSEEN_WEIGHT * policy.stall_floor))
        factor = math.pow(unseen / policy.false_pages, 1.0 / UNSEEN_SHAPE)
        seconds = policy.stall_floor * min(factor, UNKNOWN_FACTOR)
        if self.first_gap is not None and (is_open or 0.0 < self._watched < self._unwatched):
            seconds *= OPEN_FACTOR
        return seconds

    def _by_earlier_runs(
        self, earlier: SpinnerPace, others: SpinnerPace, policy: SpinnerPolicy, *, while_busy: bool
    ) -> float:
        """Return what would be too long in the spinner's earlier runs; of a new spinner, in its project."""
        usual = earlier.usual_recurring_gap(while_busy=while_busy)
        if usual is not None:
            too_long = _too_long(earlier.mean_gap(while_busy=while_busy), policy)
            return max(EARLIER_FACTOR * usual, min(too_long, EARLIER_MOST * usual))
        known = others.usual_recurring_gap(while_busy=while_busy) or 0.0
        return min(EARLIER_FACTOR * known, OTHERS_MOST * policy.stall_floor)

    def _by_first_record(self, earlier: SpinnerPace, policy: SpinnerPolicy) -> float:
        """Return how long the first record may take."""
        usual = earlier.usual_first_gap()
        return 0.0 if usual is None else FIRST_FACTOR * usual

    def _by_pause(self, earlier: SpinnerPace, others: SpinnerPace) -> tuple[float, bool]:
        """Return how long a pause may be that begins when this silence began, and whether several such are known."""
        if self._quiet_since is None:
            return 0.0, False
        known = others if earlier.usual_first_gap() is None else earlier
        seconds, is_usual = usual_pause([*known.pauses, *self.pauses], self._quiet_since)
        return PAUSE_FACTOR * seconds, is_usual

    def _by_few_in_progress(self, run: Run, policy: SpinnerPolicy, youngest_at: float | None) -> float:
        """Return how long the records in progress may take while they are fewer than before; 0 otherwise.

        With n in progress, one finishes every n-th part of the time that one takes. Of very few nobody knows whether
        they are like the others. Those that began long before the last one finished have less time left.
        """
        running, total, finished = run.records.running, run.records.total, run.records.finished
        left = math.inf if total is None or finished is None else total - finished
        at_once = left if running is None else min(running, left)
        if not self._finished or at_once <= 0 or (at_once >= self._most_running and left > self._most_running):
            return 0.0
        takes = min(self._worked / self._finished, self._spent)
        least = UNKNOWN_FACTOR * policy.stall_floor if FEW * at_once <= self._most_running else 0.0
        seconds = min(STRAGGLER_FACTOR, LAST_FACTOR / at_once) * takes
        if youngest_at is not None and self._quiet_since is not None and at_once > 1:
            seconds = min(seconds, AGE_FACTOR * takes - (self._quiet_since - youngest_at))
        return max(seconds, least)

    def _by_last_records(self, run: Run, policy: SpinnerPolicy) -> float:
        """Return how long the last one or two records may take, however fast the others were; 0 before them."""
        total, finished, workers = run.records.total, run.records.finished, max(self._most_running, 1)
        if total is None or finished is None or not self._finished or total - finished > min(2, workers):
            return 0.0
        return UNKNOWN_FACTOR * policy.stall_floor

    def _is_held_back(self, run: Run) -> bool:
        """Whether nothing is in progress though records wait, or may still arrive: something holds them back.

        It must have been different before, or be unknown: some runtimes never report that a record is in progress.
        """
        records = run.records
        is_told = self._most_running > 0 or (self._unwatched > 0.0 and self._watched == 0.0)
        return is_told and records.running == 0 and (bool(records.pending) or records.total is None)

    def _is_straggler(self, run: Run) -> bool:
        """Whether one or two of many records are left, or one in 200, and all are in progress."""
        total, finished = run.records.total, run.records.finished
        if total is None or finished is None or finished < STRAGGLER_FINISHED:
            return False
        return 0 < total - finished <= min(max(2, total // 200), run.records.running or 0)

    def _add_gap(self, seconds: float, finished: int, *, silent: float = 0.0, while_busy: bool = True) -> float:
        """Learn that `finished` records finished within `seconds`, after an observed silence of `silent` seconds.

        Returns the longest gap in that time.

        For one record that is its gap. For several only the mean is known: when they finish at random times, the
        longest of n gaps is about (1 + ln n) times the mean.
        """
        seconds = max(seconds, 0.0)
        longest = silent + min(seconds, seconds / finished * (1 + math.log(finished)))
        self.longest_gap, self.recurring_gap = _with_gap(self._gaps(while_busy=False), longest)
        if while_busy and self._busy_gaps is not None:
            self._busy_gaps = _with_gap(self._busy_gaps, longest)
        self.first_gap = longest if self.first_gap is None else self.first_gap
        self._spent += silent + seconds
        return longest


def _with_gap(gaps: tuple[float, float], gap: float) -> tuple[float, float]:
    """Return the longest and the second longest gap after another one."""
    longest, recurring = gaps
    return max(longest, gap), max(recurring, min(gap, longest))


def _longest_of(count: int) -> float:
    """Return how many times the mean the longest of some random gaps is; by n + 0.5 it is right for one gap, too."""
    return math.log(count + 0.5) + EULER


def _too_long(mean: float, policy: SpinnerPolicy) -> float:
    """Return the seconds that a random gap exceeds at the accepted rate if such gaps follow one another; 0 for none."""
    return mean * max(-math.log(policy.false_page_rate * mean), 0.0) if mean else 0.0


def _seconds(candidate: tuple[float, str]) -> float:
    return candidate[0]


def at_work(run: Run) -> bool:
    """Whether records should be finishing: the run has started, has not ended, and does not wait for a person.

    Some runtimes show a wait only in the counts: some records wait, none runs, and the status is in progress.
    """
    if run.ended or run.status not in (Status.RUNNING, Status.UNKNOWN) or not run.started:
        return False
    return not waits(run)


def waits(run: Run) -> bool:
    """Whether a run waits for a person: its status says so, or its counts."""
    return run.status is Status.WAITING or bool(run.records.waiting and _running(run.records) == 0)


def _running(records: RecordCounts) -> int | None:
    """Return how many records are worked on; None if unknown and not all others wait."""
    if records.running is not None or records.total is None or records.finished is None:
        return records.running
    return 0 if records.total - records.finished <= (records.waiting or 0) else None
