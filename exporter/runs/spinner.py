"""One spinner: what its runs have come to, each thing of each run counted once, however often it is seen."""

import math
from collections.abc import Sequence

import msgspec

from exporter.runs.counters import Counters, Observation
from exporter.runs.pace import RunPace, SpinnerPace
from exporter.runs.run import Run
from exporter.status import Status

STARTED, QUEUED, FINISHED, TAUGHT = 1, 2, 4, 8
"""What there is to count of a run once: that it started, how long it was queued, how it ended, its pace."""


class TrackedRun(msgspec.Struct, gc=False):
    """A run that is here, or was, with what has been counted of it."""

    run: Run
    counted: int = 0
    """The sum of what was counted once."""
    counted_completed: int = 0
    """Completed records that were counted."""
    counted_failed: int = 0
    """The same of failed ones."""
    hidden: bool = False
    """Whether there are too many runs for this one to be shown."""
    records_read_for: int = 0
    """The failed count for which failed records were last read."""
    left_at: float | None = None
    """The runtime's time at which it left; None while it is here."""
    learnt: RunPace | None = None
    """Its pace as learnt from state to state; None while one was seen alone, as of most runs, which are found ended."""

    @property
    def pace(self) -> RunPace:
        """What is learnt of how it goes on."""
        return RunPace.first(self.run) if self.learnt is None else self.learnt

    def change(self, newer: Run, looked_at: float) -> None:
        """Take the run's newer state; until `looked_at` it was as before.

        Records of a run begun anew count anew; the run itself does not.
        """
        if self.run.restarted_by(newer):
            self.counted_completed = self.counted_failed = 0
        self.learnt = self.pace.learn(self.run, newer, looked_at)
        self.run = newer
        self.left_at = None


class Spinner(msgspec.Struct, rename={"counters": "tally", "withheld": "veiled"}):
    """What one spinner's runs have come to, and its runs that are here by status.

    State files of version 2 have the names on the right; a file is read for as long as its version is ours.
    """

    pace: SpinnerPace = msgspec.field(default_factory=SpinnerPace)
    counters: Counters = msgspec.field(default_factory=Counters)
    present: dict[Status, int] = msgspec.field(default_factory=lambda: dict.fromkeys(Status, 0))
    withheld: bool = False
    """Whether it became known with the last read, and shows zeros until the next."""

    def count(self, placed: Sequence[TrackedRun]) -> bool:
        """Count what these runs, which have just got their places, newly show; return whether they taught something."""
        counters, present, finished = self.counters, self.present, self.counters.finished
        last_start_at = -math.inf if counters.last_start_at is None else counters.last_start_at
        last_success_at = -math.inf if counters.last_success_at is None else counters.last_success_at
        started = completed = failed = 0
        queue_times: list[Observation] = []
        durations: list[Observation] = []
        teachers: list[TrackedRun] = []
        for tracked in placed:
            run = tracked.run
            snapshot = run.snapshot
            status, started_at, ended_at = snapshot.status, snapshot.started_at, run.ended_at
            present[status] += 1
            facts = 0
            if started_at is not None:
                facts = STARTED | QUEUED
                if started_at > last_start_at:
                    last_start_at = started_at
            elif run.started:
                facts = STARTED
            if ended_at is not None:
                facts |= TAUGHT
                if status.ended:
                    facts |= FINISHED
                    if ended_at > last_success_at and status is Status.COMPLETED:
                        last_success_at = ended_at
            counted = tracked.counted
            new = facts & ~counted
            if new:
                tracked.counted = counted | facts
                if new & STARTED:
                    started += 1
                if started_at is not None and new & QUEUED:
                    queued = started_at - snapshot.created_at
                    queue_times.append((started_at, queued if queued > 0 else 0.0, snapshot.id))
                if ended_at is not None and new & FINISHED:
                    finished[status] += 1
                    if started_at is not None:
                        duration = ended_at - started_at
                        durations.append((ended_at, duration if duration > 0 else 0.0, snapshot.id))
                if new & TAUGHT and (tracked.learnt is not None or RunPace.first_is_known(run)):
                    teachers.append(tracked)
            records = snapshot.records
            if records is not None:
                if records.completed > tracked.counted_completed:
                    completed += records.completed - tracked.counted_completed
                    tracked.counted_completed = records.completed
                if records.failed > tracked.counted_failed:
                    failed += records.failed - tracked.counted_failed
                    tracked.counted_failed = records.failed
        counters.last_start_at = None if last_start_at == -math.inf else last_start_at
        counters.last_success_at = None if last_success_at == -math.inf else last_success_at
        counters.started += started
        counters.completed_records += completed
        counters.failed_records += failed
        counters.queue_times.observe(queue_times)
        counters.durations.observe(durations)
        return self.pace.learn(tracked.pace for tracked in reversed(teachers))
