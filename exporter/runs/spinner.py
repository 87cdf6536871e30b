"""One spinner: counts what its runs did, once for each run, however often a run is read."""

import math
from collections.abc import Sequence

import msgspec

from exporter.runs.activity import Activity
from exporter.runs.counters import Counters, Observation
from exporter.runs.pace import RunPace, SpinnerPace, at_work
from exporter.runs.run import AHEAD, Run
from exporter.runtime.model import FailureCount
from exporter.status import Status

STARTED, QUEUED, FINISHED, TAUGHT = 1, 2, 4, 8
"""What is counted once for each run: its start, its time in the queue, its end, its pace."""


class TrackedRun(msgspec.Struct, gc=False, rename={"learned": "learnt"}):
    """A run, or the tombstone of one that was dropped, with what has been counted for it.

    State files of version 2 contain the name `learnt`.
    """

    run: Run
    counted: int = 0
    """Which of the facts above have been counted, as a bit mask."""
    counted_completed: int = 0
    """Completed records that have been counted."""
    counted_failed: int = 0
    """Failed records that have been counted."""
    hidden: bool = False
    """Whether the limit on runs hides it from the page."""
    records_read_for: int = 0
    """The failed count for which failed records were last read."""
    left_at: float | None = None
    """The runtime's time at which it was dropped; None for a run that is not a tombstone."""
    read_in: int = 0
    """The number of the read that last brought it, of this process."""
    ended_steady: float | None = None
    """When it ended by `RuntimeClock.steady`; None while it has not, and for one that a state file brought."""
    learned: RunPace | None = None
    """Its pace as learned from its changes; None before the first, as for most runs: they are first read when ended."""
    activity: Activity | None = None
    """What its records in flight have shown during its present silence; None before they are read."""
    failures_read_for: tuple[FailureCount, ...] = ()
    """The groups of failures for which failed records were last read."""
    completed_read_for: int | None = None
    """The completed records at that time."""

    @property
    def is_new(self) -> bool:
        """Whether it has not changed since it was first seen."""
        return self.learned is None

    @property
    def has_new_failures(self) -> bool:
        """Whether other records may have failed than those that were read last.

        With the same count, one can have been tried again with success while another one failed. Other groups of
        failures show that; otherwise it is looked for once, when the run has ended, if records were completed since.
        """
        records = self.run.snapshot.records
        failed = 0 if records is None else records.failed or 0
        if failed != self.records_read_for:
            return True
        if records is None or not failed:
            return False
        # In whatever order they are told.
        if set(self.run.snapshot.failures) != set(self.failures_read_for):
            return True
        return self.run.ended and records.completed != self.completed_read_for

    def note_failed_records_read(self, run: Run, count: int) -> None:
        """Note that failed records were read for this state of the run, and how many there are."""
        self.records_read_for = count
        self.failures_read_for = run.snapshot.failures
        self.completed_read_for = run.records.completed

    @property
    def teaches(self) -> bool:
        """Whether its spinner can learn from a run that is dropped before its end: one that hung was removed."""
        return self.learned is not None and not self.counted & TAUGHT

    @property
    def is_started_again(self) -> bool:
        """Whether it was started again without progress, so that it may stall sooner than others."""
        return self.learned is not None and self.learned.is_started_again

    @property
    def pace(self) -> RunPace:
        """Its pace so far."""
        return RunPace.first(self.run) if self.learned is None else self.learned

    def change(self, newer: Run, unchanged_until: float) -> None:
        """Replace the run by its newer state; `unchanged_until` is the time of the read before.

        The records of a restarted run are counted again, except those that it has kept; the run itself is not.
        """
        if self.run.restarted_by(newer):
            self._keep_counted(newer)
        self.learned = self.pace.learn(self.run, newer, unchanged_until)
        self.run = newer
        self.left_at = None

    def _keep_counted(self, restarted: Run) -> None:
        """Keep as counted what the restarted run has kept.

        That is what it has before it has started again. Later it is the completed records if their number has not
        fallen: then only failed ones are tried again.
        """
        before, completed = self.run.records.completed or 0, restarted.records.completed or 0
        failed = restarted.records.failed or 0
        if restarted.started:
            completed, failed = (completed if completed >= before else 0), 0
        self.counted_completed = min(self.counted_completed, completed)
        self.counted_failed = min(self.counted_failed, failed)

    def not_ahead_of(self, now: float) -> None:
        """Note that the runtime's clock was set back to `now`: no silence began later."""
        self.run = self.run.not_ahead_of(now)
        if self.learned is not None:
            self.learned.not_ahead_of(now)
        if self.activity is not None:
            self.activity = self.activity.not_ahead_of(now)

    def interrupt(self, time: float) -> None:
        """Note that the runtime is down at `time`."""
        self._kept_pace().interrupt(time)

    def excuse_until(self, time: float, *, is_progress: bool) -> bool:
        """Note what a child of the run did at `time`; return whether that is new."""
        return self._kept_pace().excuse_until(time, is_progress=is_progress)

    def overtake(self, progress_at: float, floor: float) -> bool:
        """Note that another run of the project made progress; return whether that is new and shows something."""
        # Asked of every run: most have records in progress, and then it shows nothing.
        is_idle = self.run.records.running == 0 and at_work(self.run)
        return is_idle and self._kept_pace().overtake(progress_at, floor)

    def _kept_pace(self) -> RunPace:
        """Return its pace, which is kept from now on since it changes otherwise than by snapshots."""
        self.learned = self.pace
        return self.learned

    def count_nothing(self) -> None:
        """Note that everything about the run was counted before it was forgotten."""
        records = self.run.records
        self.counted = STARTED | QUEUED | FINISHED | TAUGHT
        self.counted_completed, self.counted_failed = records.completed or 0, records.failed or 0


class Spinner(msgspec.Struct, rename={"counters": "tally", "withheld": "veiled"}):
    """The counters and the pace of one spinner, and how many of its runs there are by status.

    State files of version 2 contain the names on the right; renaming them requires a new version.
    """

    pace: SpinnerPace = msgspec.field(default_factory=SpinnerPace)
    counters: Counters = msgspec.field(default_factory=Counters)
    present: dict[Status, int] = msgspec.field(default_factory=lambda: dict.fromkeys(Status, 0))
    withheld: bool = False
    """Whether it was new in the last read: then it shows zeros until the next."""
    id: str = ""
    """The runtime's id of the spinner; empty where it has none."""
    new_states: tuple[str, ...] = ()
    """The counters of records that were told for the first time in the last read: they show zero until the next."""
    idle_since: float | None = None
    """The runtime's time since which it has had no run; None while it has one."""
    sums_others: bool = False
    """Whether it has counted runs of other spinners, beyond the limit."""
    has_left: bool = False
    """Whether it has no series any more: only its pace is kept, in case it returns."""

    @property
    def ran_once(self) -> bool:
        """Whether a single run was counted."""
        return max(self.counters.started, sum(self.counters.finished.values())) == 1

    @property
    def last_known_at(self) -> float | None:
        """The runtime's time of the last start or success; None before the first."""
        return max(
            (at for at in (self.counters.last_start_at, self.counters.last_success_at) if at is not None), default=None
        )

    @property
    def shown(self) -> Counters:
        """The counters to show: an increase from nothing to a number would be none to `increase()`."""
        if self.withheld:
            return msgspec.structs.replace(Counters(), **dict.fromkeys(self._told(), 0))
        if not self.new_states:
            return self.counters
        return msgspec.structs.replace(self.counters, **dict.fromkeys(self.new_states, 0))

    def _told(self) -> tuple[str, ...]:
        """Return the counters of records that the runtime has told of any run."""
        names = ("completed_records", "failed_records", "finished_records")
        return tuple(name for name in names if getattr(self.counters, name) is not None)

    def publish(self) -> bool:
        """Show the counters from now on; return whether any has shown zero so far."""
        changed = self.withheld or bool(self.new_states)
        self.withheld, self.new_states = False, ()
        return changed

    def count(self, changed: Sequence[TrackedRun], *, is_own: bool = True) -> bool:
        """Count what is new about runs that were just added or changed; return whether the pace learned from them.

        `is_own`: whether they are its own. Runs of other spinners are counted only: their times and their pace say
        nothing about one spinner.
        """
        counters, present, finished = self.counters, self.present, self.counters.finished
        last_start_at = -math.inf if counters.last_start_at is None else counters.last_start_at
        last_success_at = -math.inf if counters.last_success_at is None else counters.last_success_at
        started = 0
        completed = failed = None
        finished_records = 0
        queue_times: list[Observation] = []
        durations: list[Observation] = []
        teachers: list[TrackedRun] = []
        for tracked in changed:
            run = tracked.run
            snapshot = run.snapshot
            status, started_at, ended_at = snapshot.status, snapshot.started_at, run.ended_at
            present[status] += 1
            facts = 0
            if started_at is not None:
                facts = STARTED | QUEUED
                if started_at > last_start_at:
                    # A time from the future would hide for so long that none starts any more.
                    last_start_at = max(last_start_at, min(started_at, run.seen_at + AHEAD))
            elif run.started:
                facts = STARTED
            if ended_at is not None:
                facts |= TAUGHT
                if status.ended:
                    facts |= FINISHED
                    if ended_at > last_success_at and status is Status.COMPLETED:
                        last_success_at = max(last_success_at, min(ended_at, run.seen_at + AHEAD))
            counted = tracked.counted
            new = facts & ~counted
            if new:
                tracked.counted = counted | facts
                if new & STARTED:
                    started += 1
                if started_at is not None and new & QUEUED and snapshot.says_created:
                    queued = started_at - snapshot.created_at
                    queue_times.append((started_at, queued if queued > 0 else 0.0, snapshot.id))
                if ended_at is not None and new & FINISHED:
                    finished[status] += 1
                    if started_at is not None:
                        duration = ended_at - started_at
                        durations.append((ended_at, duration if duration > 0 else 0.0, snapshot.id))
                if new & TAUGHT and (tracked.learned is not None or RunPace.first_is_known(run)):
                    teachers.append(tracked)
            records = snapshot.records
            before = tracked.counted_completed + tracked.counted_failed
            if records is not None:
                known = records.completed
                if known is not None:
                    completed = completed or 0
                    if known > tracked.counted_completed:
                        completed += known - tracked.counted_completed
                        tracked.counted_completed = known
                known = records.failed
                if known is not None:
                    failed = failed or 0
                    if known > tracked.counted_failed:
                        failed += known - tracked.counted_failed
                        tracked.counted_failed = known
            is_told = tracked.counted_completed > 0 or (records is not None and records.completed is not None)
            if is_told and facts & FINISHED and started_at is not None:
                # Of a run that was counted as ended before, what is told of it later.
                counted_records = tracked.counted_completed + tracked.counted_failed
                finished_records += counted_records if new & FINISHED else counted_records - before
        if is_own:
            counters.last_start_at = None if last_start_at == -math.inf else last_start_at
            counters.last_success_at = None if last_success_at == -math.inf else last_success_at
        counters.started += started
        told = self._told()
        if completed is not None:
            counters.completed_records = (counters.completed_records or 0) + completed
        if failed is not None:
            counters.failed_records = (counters.failed_records or 0) + failed
        if completed is not None or finished_records:
            counters.finished_records = (counters.finished_records or 0) + finished_records
        self.new_states += tuple(name for name in self._told() if name not in told)
        counters.queue_times.observe(queue_times)
        counters.durations.observe(durations)
        self.sums_others = self.sums_others or not is_own
        return is_own and self.pace.learn(tracked.pace for tracked in reversed(teachers))

    def not_ahead_of(self, now: float) -> bool:
        """Note that the runtime's clock was set back to `now`; return whether a last start or success was later."""
        counters = self.counters
        before = counters.last_start_at, counters.last_success_at
        counters.last_start_at, counters.last_success_at = (None if time is None else min(time, now) for time in before)
        return before != (counters.last_start_at, counters.last_success_at)

    def learn_from_history(self, run: Run) -> bool:
        """Learn from a run that ended too long ago to be counted; return whether the pace learned from it."""
        counters, started_at, ended_at = self.counters, run.snapshot.started_at, run.ended_at
        if started_at is not None and started_at > (counters.last_start_at or -math.inf):
            counters.last_start_at = started_at
        if run.status is Status.COMPLETED and ended_at is not None:
            counters.last_success_at = max(ended_at, counters.last_success_at or -math.inf)
        return RunPace.first_is_known(run) and self.pace.learn([RunPace.first(run)])
