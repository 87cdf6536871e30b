"""One project's runs: which are here, and which have left."""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator

import msgspec

from exporter.runs.counters import Counters
from exporter.runs.pace import SpinnerPace
from exporter.runs.run import Run
from exporter.runs.spinner import Spinner, TrackedRun
from exporter.runtime.model import FailedRecord, RunSnapshot
from exporter.status import Status

TOMBSTONE_RETENTION = 6 * 3600.0
"""Seconds for which a run that left is remembered, unless too many have left since.

The horizon of `apply` keeps runs from coming back as long as the runtime says when they ended. One that does not, and
moves `updatedAt` of runs that are over, would bring them back; it mostly does so soon after their end.
"""


class ProjectMetadata(msgspec.Struct, frozen=True):
    """What there is to know of a project beside its runs. Times are the runtime's."""

    name: str
    history: bool
    """Whether the project was there at the exporter's first look, so that what it first shows is not news."""
    read_as_of: float = float("-inf")
    """Time of the last good read."""
    watermark: float | None = None
    """Time up to which the project's list has been read; None before the first read."""


class RunEnd(msgspec.Struct, frozen=True, order=True, gc=False):
    """When a run ended, by the runtime's clock; the first to end is the least."""

    at: float
    run_id: str


class ProjectRuns:
    """One project's runs and counts, and when they were last read."""

    def __init__(self, metadata: ProjectMetadata, *, is_saved: bool) -> None:
        """`is_saved` says whether somebody asks for what is `unsaved`."""
        self.metadata = metadata
        self.has_been_read = metadata.watermark is not None
        """Whether a read has ever come to its end: before that nothing is whole, so nothing is shown or saved."""
        self.is_committing = False
        """Whether a later read is being applied or was cut off: the next one applies again what it brought."""
        self.dropped_unseen = 0
        """Runs that were dropped over the limit before a first read was through."""
        self._is_saved = is_saved
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
        self._uncounted: defaultdict[str, list[TrackedRun]] = defaultdict(list)
        self._learnt: set[str] = set()
        self._naming: dict[str, TrackedRun] = {}
        self._tombstones: dict[str, TrackedRun] = {}
        self._ends: list[RunEnd] = []
        self._new_failures: set[str] = set()
        self._unsaved_runs: set[str] = set()
        self._unsaved_spinners: set[str] = set()

    @property
    def name(self) -> str:
        """The project's name, which tells it from all others."""
        return self.metadata.name

    def begin(self) -> None:
        """Begin to apply a read; nothing of a first one is shown before it completes."""
        if self.has_been_read:
            self.is_committing = True
            self._publish()

    def complete(self, *, as_of: float, unchanged: bool, at: float) -> int:
        """Note a good read: of the runtime's time `as_of`, at our monotonic time `at`.

        Returns how many runs were dropped over the limit while a first read was under way.
        """
        watermark = self.metadata.watermark if unchanged else as_of
        self.metadata = msgspec.structs.replace(self.metadata, read_as_of=as_of, watermark=watermark)
        self.read_at = at
        self.error = None
        self.is_committing = False
        if not self.has_been_read:
            self.has_been_read = True
            self._moved_runs.update(self.runs)
            if self._is_saved:
                self._unsaved_runs.update(self.runs, self._tombstones)
        dropped, self.dropped_unseen = self.dropped_unseen, 0
        return dropped

    def _publish(self) -> None:
        """Show the true counts of the spinners that showed zeros so far.

        `increase()` sees nothing of a counter that begins at 1: a spinner's first failed run would be missed by
        every alert. So a spinner that becomes known shows zeros first, and its counts with the next read.
        """
        for name, spinner in self._spinners.items():
            if spinner.withheld:
                spinner.withheld = False
                self._note_spinner(name)

    def spinner_names(self) -> Iterable[str]:
        """Return the spinners that are known."""
        return self._spinners.keys()

    def spinner(self, name: str) -> tuple[Counters, dict[Status, int]]:
        """Return a spinner's counts, or zeros while it is new, and its runs by status."""
        spinner = self._spinners[name]
        return Counters() if spinner.withheld else spinner.counters, spinner.present

    def earlier(self, tracked: TrackedRun) -> SpinnerPace:
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

    def apply(self, snapshots: Iterable[RunSnapshot], seen_at: float | None, horizon: float) -> None:
        """Fold snapshots into the runs they belong to, and count what is new about them.

        `seen_at` is the runtime's time of the answer that they came in; None when it said none: then each run's own
        `updatedAt` has to do. Earlier reads were complete up to `horizon`: a run that ended before it and is not here
        was counted then.
        """
        for snapshot in snapshots:
            at = snapshot.updated_at if seen_at is None else seen_at
            tracked = self.runs.get(snapshot.id)
            if tracked is None:
                run = Run.first(snapshot, at)
                if self._tombstones and snapshot.id in self._tombstones:
                    tracked = self._readmit(run)
                elif run.ended_at is None or run.ended_at >= horizon:
                    # Else an earlier read has counted it, or it is older than our first.
                    tracked = TrackedRun(run)
                if tracked is None:
                    continue
            else:
                newer = tracked.run.fold(snapshot, at)
                if newer is tracked.run:
                    continue
                # What the state before this one shows must have been counted before it is gone.
                self._count()
                self._withdraw(tracked)
                tracked.change(newer, self.metadata.read_as_of)
            self._place(tracked)
            self._uncounted[tracked.run.snapshot.spinner].append(tracked)
        self._count()

    def _readmit(self, run: Run) -> TrackedRun | None:
        """Return the place of a run that left, unless this is but an echo of it."""
        left = self._tombstones[run.id]
        late = run.snapshot.updated_at <= left.run.snapshot.updated_at
        if left.run.ended and (late or run.ends_like(left.run)):
            return None
        # Begun anew under the same id, or not gone after all: what was counted of it stays counted.
        del self._tombstones[run.id]
        left.change(run, self.metadata.read_as_of)
        return left

    def _place(self, tracked: TrackedRun) -> None:
        # Once for each run of a first read: what it asks for often is asked for once.
        run = tracked.run
        snapshot = run.snapshot
        run_id, ended_at, records = snapshot.id, run.ended_at, snapshot.records
        self.runs[run_id] = tracked
        if self.has_been_read:
            self._note_run(run_id)
        if ended_at is None:
            self.open[run_id] = tracked
        else:
            heapq.heappush(self._ends, RunEnd(ended_at, run_id))
        if run.failed_records:
            self._naming[run_id] = tracked
        if (0 if records is None else records.failed) != tracked.records_read_for:
            self._new_failures.add(run_id)

    def _count(self) -> None:
        """Count what was placed, spinner by spinner: run by run it would take twice as long."""
        for name, placed in self._uncounted.items():
            spinner = self._spinners.get(name)
            if spinner is None:
                spinner = self._spinners[name] = Spinner()
                spinner.withheld = self.has_been_read or not self.metadata.history
            if spinner.count(placed):
                self._learnt.add(name)
            self._note_spinner(name)
        self._uncounted.clear()

    def _note_run(self, run_id: str) -> None:
        if not self.has_been_read:
            return
        self._moved_runs.add(run_id)
        if self._is_saved:
            self._unsaved_runs.add(run_id)

    def _note_spinner(self, name: str) -> None:
        self._moved_spinners.add(name)
        if self._is_saved:
            self._unsaved_spinners.add(name)

    def _withdraw(self, tracked: TrackedRun) -> None:
        run = tracked.run
        self._note_run(run.id)
        self._moved_spinners.add(run.snapshot.spinner)
        self._spinners[run.snapshot.spinner].present[run.status] -= 1
        self.open.pop(run.id, None)
        self._naming.pop(run.id, None)
        self._new_failures.discard(run.id)

    def drop(self, run_id: str, now: float) -> bool:
        """Remove a run and remember that it left; returns whether it was there."""
        tracked = self.runs.pop(run_id, None)
        if tracked is None:
            return False
        self._withdraw(tracked)
        tracked.run = tracked.run.with_failed_records(())
        tracked.records_read_for = 0
        tracked.hidden = False
        tracked.left_at = now
        self._tombstones[run_id] = tracked
        return True

    def first_end(self) -> RunEnd | None:
        """Return the first ending of a run that is here; None when none has ended."""
        while self._ends:
            first = self._ends[0]
            tracked = self.runs.get(first.run_id)
            if tracked is not None and tracked.run.ended_at == first.at:
                return first
            # Of a run that left, or of a life before.
            heapq.heappop(self._ends)
        return None

    def expire(self, now: float, retention: float) -> None:
        """Let go of runs that ended longer than `retention` ago; a run's retention begins at its end, never before."""
        while (first := self.first_end()) is not None and first.at < now - retention:
            self.drop(first.run_id, now)
        while (longest_gone := next(self.tombstones(), None)) is not None and longest_gone[
            0
        ] <= now - TOMBSTONE_RETENTION:
            self.drop_tombstone(longest_gone[1])

    @property
    def tombstone_count(self) -> int:
        """How many runs are remembered though they left."""
        return len(self._tombstones)

    def tombstones(self) -> Iterator[tuple[float, str]]:
        """Yield the runs that are remembered though they left, each with when it did; the first to leave first."""
        for run_id, tracked in self._tombstones.items():
            yield tracked.left_at or 0.0, run_id

    def drop_tombstone(self, run_id: str) -> None:
        """Remember a run that left no longer."""
        del self._tombstones[run_id]
        self._note_run(run_id)

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
        self._name_failed_records(tracked, records)
        tracked.records_read_for = run.records.failed
        if tracked.run.records.failed == run.records.failed:
            self._new_failures.discard(run.id)

    def trim_failed_records(self, run_id: str, records: tuple[FailedRecord, ...]) -> None:
        """Name only these failed records of a run; for which failed count they were read stays as it is."""
        self._name_failed_records(self.runs[run_id], records)

    def _name_failed_records(self, tracked: TrackedRun, records: tuple[FailedRecord, ...]) -> None:
        tracked.run = tracked.run.with_failed_records(records)
        self._naming.pop(tracked.run.id, None)
        if records:
            self._naming[tracked.run.id] = tracked
        self._note_run(tracked.run.id)

    def unsaved(self) -> Iterator[tuple[str, str, TrackedRun | Spinner | None]]:
        """Yield kind, key and value of what changed since `saved`; None stands for what is not known any more."""
        for name in self._unsaved_spinners:
            yield SPINNER, name, self._spinners[name]
        for run_id in self._unsaved_runs:
            yield RUN, run_id, self.runs.get(run_id) or self._tombstones.get(run_id)

    def saved(self) -> None:
        """Take note that what changed was saved."""
        self._unsaved_runs.clear()
        self._unsaved_spinners.clear()

    def restore(self, runs: Iterable[TrackedRun], spinners: dict[str, Spinner]) -> None:
        """Take what was saved by an earlier life of the exporter; this project must be new."""
        self._spinners = spinners
        for spinner in spinners.values():
            spinner.present = dict.fromkeys(Status, 0)
        for tracked in sorted(runs, key=lambda each: each.left_at or 0.0):
            tracked.hidden = False  # decided anew with the first read
            if tracked.left_at is None:
                spinners[tracked.run.snapshot.spinner].present[tracked.run.status] += 1
                self._place(tracked)
            else:
                self._tombstones[tracked.run.id] = tracked


RUN = "run"
SPINNER = "spinner"
