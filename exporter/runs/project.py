"""One project's runs: which are here, which have left, and what has been counted of each."""

import heapq
from collections.abc import Iterable, Iterator
from typing import Self

import msgspec

from exporter.runs.pace import RunPace, SpinnerPace
from exporter.runs.run import Run
from exporter.runs.tally import ENDED, Tally
from exporter.runtime.model import FailedRecord, RunSnapshot
from exporter.status import Status

MEMORY = 6 * 3600.0
"""Seconds for which a run that left is remembered.

The horizon of `take` keeps runs from coming back as long as the runtime says when they ended. One that does not, and
moves `updatedAt` of runs that are over, would bring them back; it mostly does so soon after their end.
"""


class Header(msgspec.Struct, frozen=True):
    """What there is to know of a project beside its runs. Times are the runtime's."""

    name: str
    history: bool
    """Whether the project was there at the exporter's first look, so that what it first shows is not news."""
    read_as_of: float = float("-inf")
    """Time of the last good read."""
    watermark: float | None = None
    """Time up to which the project's list has been read; None before the first read."""


class ProjectRuns:
    """One project's runs and counts, and when they were last read."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self.runs: dict[str, TrackedRun] = {}
        self.read_at: float | None = None
        """Our monotonic time of the last good read."""
        self.error: str | None = None
        """Why the last read failed; None when it did not."""
        self._spinners: dict[str, Spinner] = {}
        self.open: dict[str, TrackedRun] = {}
        """Those of `runs` that have not ended."""
        self._moved_runs: set[str] = set()
        self._moved_spinners: set[str] = set()
        self._learnt: set[str] = set()
        self._naming: dict[str, TrackedRun] = {}
        self._left: dict[str, TrackedRun] = {}
        self._endings: list[tuple[float, str]] = []
        self._new_failures: set[str] = set()
        self._unsaved_runs: set[str] = set()
        self._unsaved_spinners: set[str] = set()

    @property
    def name(self) -> str:
        """The project's name, which tells it from all others."""
        return self.header.name

    def read(self, *, as_of: float, watermark: float | None, at: float) -> None:
        """Note a good read: of the runtime's time `as_of`, at our monotonic time `at`."""
        self.header = msgspec.structs.replace(self.header, read_as_of=as_of, watermark=watermark)
        self.read_at = at
        self.error = None

    def unveil(self) -> None:
        """Show the true counts of the spinners that showed zeros so far.

        `increase()` sees nothing of a counter that begins at 1: a spinner's first failed run would be missed by
        every alert. So a spinner that becomes known shows zeros first, and its counts with the next read.
        """
        for name, spinner in self._spinners.items():
            if spinner.veiled:
                spinner.veiled = False
                self._moved_spinners.add(name)
                self._unsaved_spinners.add(name)

    def spinner_names(self) -> Iterable[str]:
        """Return the spinners that are known."""
        return self._spinners.keys()

    def spinner(self, name: str) -> tuple[Tally, dict[Status, int]]:
        """Return a spinner's counts, or zeros while it is new, and its runs by status."""
        spinner = self._spinners[name]
        return Tally() if spinner.veiled else spinner.tally, spinner.present

    def earlier(self, tracked: "TrackedRun") -> SpinnerPace:
        """Return what the earlier runs of a run's spinner taught."""
        return self._spinners[tracked.run.snapshot.spinner].pace

    def collect_moved(self) -> tuple[set[str], set[str]]:
        """Return the runs and the spinners that changed since this was last asked; also what is not here any more."""
        if self._learnt:
            # What is expected of a run under way is not what it was when an earlier one has taught something.
            others = ((run_id, tracked.run.snapshot.spinner) for run_id, tracked in self.open.items())
            self._moved_runs.update(run_id for run_id, spinner in others if spinner in self._learnt)
            self._learnt.clear()
        runs, self._moved_runs = self._moved_runs, set()
        spinners, self._moved_spinners = self._moved_spinners, set()
        return runs, spinners

    def open_moved(self) -> None:
        """Note that all runs under way show otherwise than before."""
        self._moved_runs.update(self.open)

    def all_moved(self) -> None:
        """Note that everything of the project shows otherwise than before."""
        self._moved_runs.update(self.runs)
        self._moved_spinners.update(self._spinners)

    def take(self, snapshot: RunSnapshot, seen_at: float, horizon: float) -> None:
        """Fold a snapshot into the run it belongs to and count what is new about it.

        Earlier reads were complete up to `horizon`: a run that ended before it and is not here was counted then.
        """
        tracked = self.runs.get(snapshot.id)
        if tracked is None:
            tracked = self._admit(Run.first(snapshot, seen_at), horizon)
            if tracked is None:
                return
        else:
            newer = tracked.run.fold(snapshot, seen_at)
            if newer is tracked.run:
                return
            self._withdraw(tracked)
            tracked.change(newer, self.header.read_as_of)
        self._present(tracked)

    def _admit(self, run: Run, horizon: float) -> "TrackedRun | None":
        """Return a place for a run that is not here, unless it is an echo of one that was here before."""
        left = self._left.get(run.id)
        if left is None:
            # A run that ended before the horizon was counted by an earlier read, or is older than our first.
            return None if run.ended_at is not None and run.ended_at < horizon else TrackedRun.first(run)
        late = run.snapshot.updated_at <= left.run.snapshot.updated_at
        if left.run.ended and (late or run.ends_like(left.run)):
            return None
        # Begun anew under the same id, or not gone after all: what was counted of it stays counted.
        del self._left[run.id]
        left.change(run, self.header.read_as_of)
        return left

    def _present(self, tracked: "TrackedRun") -> None:
        run = tracked.run
        self._unsaved_runs.add(run.id)
        self._unsaved_spinners.add(run.snapshot.spinner)
        spinner = self._spinners.get(run.snapshot.spinner)
        if spinner is None:
            spinner = self._spinners[run.snapshot.spinner] = Spinner()
            spinner.veiled = self.header.watermark is not None or not self.header.history
        tracked.count_into(spinner.tally)
        if tracked.teach(spinner.pace):
            self._learnt.add(run.snapshot.spinner)
        self._place(tracked, spinner)

    def _place(self, tracked: "TrackedRun", spinner: "Spinner") -> None:
        run = tracked.run
        self.runs[run.id] = tracked
        self._moved(run)
        spinner.present[run.status] += 1
        if run.ended_at is None:
            self.open[run.id] = tracked
        else:
            heapq.heappush(self._endings, (run.ended_at, run.id))
        if run.failed_records:
            self._naming[run.id] = tracked
        if run.records.failed != tracked.records_read_for:
            self._new_failures.add(run.id)

    def _withdraw(self, tracked: "TrackedRun") -> None:
        run = tracked.run
        self._moved(run)
        self._spinners[run.snapshot.spinner].present[run.status] -= 1
        self.open.pop(run.id, None)
        self._naming.pop(run.id, None)
        self._new_failures.discard(run.id)

    def _moved(self, run: Run) -> None:
        self._moved_runs.add(run.id)
        self._moved_spinners.add(run.snapshot.spinner)

    def let_go(self, run_id: str, now: float) -> bool:
        """Remove a run and remember that it left; returns whether it was there."""
        tracked = self.runs.pop(run_id, None)
        if tracked is None:
            return False
        self._withdraw(tracked)
        tracked.run = tracked.run.with_failed_records(())
        tracked.records_read_for = 0
        tracked.left_at = now
        self._left[run_id] = tracked
        self._unsaved_runs.add(run_id)
        return True

    def expire(self, now: float, retention: float) -> None:
        """Let go of runs that ended longer than `retention` ago; a run's retention begins at its end, never before."""
        while self._endings and self._endings[0][0] < now - retention:
            ended_at, run_id = heapq.heappop(self._endings)
            tracked = self.runs.get(run_id)
            # An ending that is no longer the run's own is of a life before.
            if tracked is not None and tracked.run.ended_at == ended_at:
                self.let_go(run_id, now)
        while self._left:
            run_id, longest_gone = next(iter(self._left.items()))
            if longest_gone.left_at is not None and longest_gone.left_at > now - MEMORY:
                return
            del self._left[run_id]
            self._unsaved_runs.add(run_id)

    def hide(self, hidden: set[str]) -> int:
        """Hide just these runs; return how many were shown until now."""
        newly = 0
        for run_id, tracked in self.runs.items():
            if (run_id in hidden) != tracked.hidden:
                self._moved_runs.add(run_id)
                newly += not tracked.hidden
            tracked.hidden = run_id in hidden
        return newly

    def runs_with_new_failures(self) -> list[Run]:
        """Return the shown runs whose failed count moved since `keep_failed_records`."""
        tracked = (self.runs[run_id] for run_id in self._new_failures)
        return [each.run for each in tracked if not each.hidden]

    def runs_naming_records(self) -> list[Run]:
        """Return the runs that have failed records by name."""
        return [tracked.run for tracked in self._naming.values()]

    def keep_failed_records(self, run: Run, records: tuple[FailedRecord, ...]) -> None:
        """Take the failed records that belong to the failed count of `run`."""
        tracked = self.runs.get(run.id)
        if tracked is None:
            return
        tracked.run = tracked.run.with_failed_records(records)
        tracked.records_read_for = run.records.failed
        self._naming.pop(run.id, None)
        if records:
            self._naming[run.id] = tracked
        self._moved_runs.add(run.id)
        self._unsaved_runs.add(run.id)
        if tracked.run.records.failed == run.records.failed:
            self._new_failures.discard(run.id)

    def unsaved(self) -> Iterator[tuple[str, str, "TrackedRun | Spinner | None"]]:
        """Yield kind, key and value of what changed since `saved`; None stands for what is not known any more."""
        for name in self._unsaved_spinners:
            yield SPINNER, name, self._spinners[name]
        for run_id in self._unsaved_runs:
            yield RUN, run_id, self.runs.get(run_id) or self._left.get(run_id)

    def saved(self) -> None:
        """Take note that what changed was saved."""
        self._unsaved_runs.clear()
        self._unsaved_spinners.clear()

    def restore(self, runs: Iterable["TrackedRun"], spinners: dict[str, "Spinner"]) -> None:
        """Take what was saved by an earlier life of the exporter; this project must be new."""
        self._spinners = spinners
        for spinner in spinners.values():
            spinner.present = dict.fromkeys(Status, 0)
        for tracked in sorted(runs, key=lambda each: each.left_at or 0.0):
            tracked.hidden = False  # decided anew with the first read
            if tracked.left_at is None:
                self._place(tracked, spinners[tracked.run.snapshot.spinner])
            else:
                self._left[tracked.run.id] = tracked


RUN = "run"
SPINNER = "spinner"


class TrackedRun(msgspec.Struct, gc=False):
    """A run that is here, or was, with what has been counted of it: each thing once, however often it is seen."""

    run: Run
    pace: RunPace
    hidden: bool = False
    """Whether there are too many runs for this one to be shown."""
    records_read_for: int = 0
    """The failed count for which failed records were last read."""
    left_at: float | None = None
    """The runtime's time at which it left; None while it is here."""
    _taught: bool = False
    _counted_start: bool = False
    _counted_queue: bool = False
    _counted_finish: bool = False
    _counted_completed: int = 0
    _counted_failed: int = 0

    @classmethod
    def first(cls, run: Run) -> Self:
        """Return a place for a run that was never here."""
        return cls(run, RunPace.first(run))

    def change(self, newer: Run, looked_at: float) -> None:
        """Take the run's newer state; until `looked_at` it was as before.

        Records of a run begun anew count anew; the run itself does not.
        """
        if self.run.restarted_by(newer):
            self._counted_completed = self._counted_failed = 0
        self.pace = self.pace.learn(self.run, newer, looked_at)
        self.run = newer
        self.left_at = None

    def teach(self, spinner: SpinnerPace) -> bool:
        """Let the spinner know the pace of a run that ended, once; return whether it learnt something."""
        if not self.run.ended or self._taught:
            return False
        self._taught = True
        return spinner.learn(self.pace)

    def count_into(self, tally: Tally) -> None:
        """Count what this run newly shows."""
        run = self.run
        if not self._counted_start and run.started:
            self._counted_start = True
            tally.started += 1
        started_at = run.snapshot.started_at
        if started_at is not None:
            tally.last_start_at = _later(started_at, tally.last_start_at)
            queued = run.queue_time()
            if queued is not None and not self._counted_queue:
                self._counted_queue = True
                tally.queue_times.observe(queued, run_id=run.id, timestamp=started_at)
        if run.ended_at is not None and run.status in ENDED:
            self._count_end(run, run.ended_at, tally)
        records = run.records
        if records.completed > self._counted_completed:
            tally.completed_records += records.completed - self._counted_completed
            self._counted_completed = records.completed
        if records.failed > self._counted_failed:
            tally.failed_records += records.failed - self._counted_failed
            self._counted_failed = records.failed

    def _count_end(self, run: Run, ended_at: float, tally: Tally) -> None:
        if run.status is Status.COMPLETED:
            tally.last_success_at = _later(ended_at, tally.last_success_at)
        if self._counted_finish:
            return
        self._counted_finish = True
        tally.finished[run.status] += 1
        duration = run.duration(ended_at)
        if duration is not None:
            tally.durations.observe(duration, run_id=run.id, timestamp=ended_at)


def _later(time: float, known: float | None) -> float:
    return time if known is None or time > known else known


class Spinner(msgspec.Struct):
    """What one spinner's runs have come to, and its runs that are here by status."""

    pace: SpinnerPace = msgspec.field(default_factory=SpinnerPace)
    tally: Tally = msgspec.field(default_factory=Tally)
    present: dict[Status, int] = msgspec.field(default_factory=lambda: dict.fromkeys(Status, 0))
    veiled: bool = False
    """Whether it became known with the last read, and shows zeros until the next."""
