"""One project: its runs, its spinners, and the tombstones of runs that were dropped."""

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator

import msgspec

from exporter.runs.activity import Activity
from exporter.runs.clock import RuntimeClock
from exporter.runs.listed_records import ListedRecords, RecordKind
from exporter.runs.pace import SpinnerPace
from exporter.runs.run import Run, brings_progress
from exporter.runs.spinner import Spinner, TrackedRun
from exporter.runs.spinners import ProjectSpinners
from exporter.runtime.model import FailedRecord, RunSnapshot


class ProjectMetadata(msgspec.Struct, frozen=True):
    """What is known about a project besides its runs. Times are the runtime's."""

    name: str
    history: bool
    """Whether the first list of projects had it: then its first counts are history, which is shown immediately."""
    read_as_of: float = float("-inf")
    """Time of the last good read."""
    watermark: float | None = None
    """Time up to which the project's list has been read; None before the first read."""
    watched_since: float | None = None
    """Time since which every run has been seen: where the first read began. None before it."""
    remembered_since: float | None = None
    """Every run that ended at this time or later is remembered, so that an unknown one is new and is counted.

    One that ended earlier was counted and may be forgotten, or ended long before the first read. None before that.
    """
    read_at: float | None = None
    """Our own clock's time of the read that set the watermark."""
    is_common: bool = False
    """In a state file: `read_as_of`, `watermark` and `read_at` are those of the `CommonRead` there, and not these."""


class CommonRead(msgspec.Struct, frozen=True):
    """When a list of all projects was last read: what nearly all of them have in common, with the same meaning."""

    read_as_of: float
    watermark: float | None
    read_at: float | None

    def is_that_of(self, metadata: ProjectMetadata) -> bool:
        """Whether a project was read with it."""
        if metadata.read_as_of != self.read_as_of or metadata.watermark != self.watermark:
            return False
        if metadata.read_at is None or self.read_at is None:
            return metadata.read_at == self.read_at
        # Computed for each project from two clocks, a moment apart.
        return abs(metadata.read_at - self.read_at) < SAME_MOMENT


SAME_MOMENT = 1.0
"""Seconds by which the time of one read can differ between projects."""


class RunEnd(msgspec.Struct, frozen=True, order=True, gc=False):
    """When a run ended, by `RuntimeClock.steady`; sorts by time."""

    at: float
    run_id: str


class Progress:
    """When a run of a project last made progress, and when another one than that did. Times are the runtime's."""

    def __init__(self) -> None:
        self._last: tuple[float, str] | None = None
        self._before: tuple[float, str] | None = None
        """The last one of another run."""

    def note(self, run: Run) -> None:
        """Note the last progress of a run."""
        if run.last_progress_at is None:
            return
        progress = run.last_progress_at, run.id
        if self._last is None or run.id == self._last[1]:
            self._last = max(progress, self._last or progress)
        elif progress > self._last:
            self._last, self._before = progress, self._last
        else:
            self._before = max(progress, self._before or progress)

    def of_others(self, run_id: str) -> float | None:
        """Return when another run than this one last made progress; None if none has."""
        last = self._before if self._last is not None and self._last[1] == run_id else self._last
        return None if last is None else last[0]


class ProjectRuns:
    """One project's runs and counts, and when they were last read."""

    def __init__(
        self, metadata: ProjectMetadata, spinners: ProjectSpinners, clock: RuntimeClock, *, is_saved: bool
    ) -> None:
        """`spinners` are none yet; `is_saved`: whether changes are noted for `unsaved`."""
        self.metadata = metadata
        self.spinners = spinners
        self._clock = clock
        self.has_been_read = metadata.watermark is not None
        """Whether a read has ever completed; before that nothing is shown or saved."""
        self.is_committing = False
        """Whether a later read is being applied or was cut off: the next one applies again what it brought."""
        self.is_withdrawn = False
        """Whether nothing of it is shown, because it seems to be gone; when it returns, its counters continue."""
        self.dropped_unseen = 0
        """Runs that were dropped over the limit before the first read completed."""
        self._is_saved = is_saved
        self._reads = 0
        self._reads_up_to: float | None = None
        """Our monotonic time of the read that set the watermark."""
        self._is_moment_restored = False
        self._least_lead = math.inf
        """The least that the runtime's clock was ahead of our monotonic one since that read."""
        self._forgotten: float = -math.inf
        """The last end among the runs that were forgotten."""
        self._progress = Progress()
        self._again_since: float | None = None
        """Set while a read is applied that is the first since the runtime's clock was set back to a time of which runs
        may be forgotten: when the read before was, by the clock as it was set."""
        self._has_restored_ends = False
        self.runs: dict[str, TrackedRun] = {}
        self.read_at: float | None = None
        """Our monotonic time at which the last good read was requested: by how much what is shown can be old."""
        self.error: str | None = None
        """Why the last read failed, as everybody may read it; None when it did not."""
        self.shared_ids: set[str] = set()
        """Ids that two runs have; the second one is not tracked."""
        self.open: dict[str, TrackedRun] = {}
        """Those of `runs` that have not ended."""
        self._changed_runs: set[str] = set()
        self._uncounted: defaultdict[str, list[TrackedRun]] = defaultdict(list)
        self._learned: set[str] = set()
        self._history: set[str] = set()
        """The runs that the first read only learns from, until it completes.

        Two of its lists can have the same run, and a list whose pages shift has one on two of them.
        """
        self._others = spinners.all_paces
        self._with_failed_records: dict[str, TrackedRun] = {}
        self.with_waiting: dict[str, TrackedRun] = {}
        """Those of `open` of which records wait."""
        self.listed: dict[RecordKind, dict[str, ListedRecords]] = {"in flight": {}, "waiting": {}}
        """By run, which records silent runs work on, and which wait."""
        self._tombstones: dict[str, TrackedRun] = {}
        self._ends: list[RunEnd] = []
        self._new_failures: set[str] = set()
        self._unsaved_runs: set[str] = set()

    @property
    def name(self) -> str:
        """The project's name, which is unique."""
        return self.metadata.name

    def begin(self) -> None:
        """Begin to apply a read; nothing of a first one is shown before it completes."""
        self._reads += 1
        self._again_since = None
        if self.has_been_read:
            floor = self.metadata.remembered_since
            # After a restart only our own clock tells how long ago the last read was, and it may have been set.
            reached = self._clock.now() if self._is_moment_restored else self.read_up_to()
            if floor is not None and reached < floor:
                self._again_since = self.read_up_to()
            self.is_committing = True
            self.spinners.publish()

    def complete(
        self, *, as_of: float, since: float, horizon: float, watermark: float | None, asked_at: float, at: float
    ) -> int:
        """Note a good read of changes from the runtime's time `since` to `as_of`, requested at our monotonic time `at`.

        `watermark` is the time up to which the list is read, None if it is the same as before, and `asked_at` our
        monotonic time of that. `horizon` is the one of a first read. Returns how many runs were dropped over the limit
        during a first read.
        """
        floor = self.metadata.remembered_since
        if not self.has_been_read:
            # Of a longer list than what is kept, the first ends are forgotten already.
            floor = max(horizon, min(math.nextafter(self._forgotten, math.inf), as_of))
        elif self._again_since is not None and watermark is not None:
            floor = self._again_since
        self._again_since = None
        read_at = self.metadata.read_at
        if watermark is not None:
            self._reads_up_to, self._least_lead, self._is_moment_restored = asked_at, math.inf, False
            read_at = self._clock.wall() - (self._clock.monotonic() - asked_at)
        watched_since = self.metadata.watched_since
        if watched_since is None:
            # Also of a project that an earlier version saved.
            watched_since = since
            self.spinners.mark_changed(self.spinners)
        self.metadata = msgspec.structs.replace(
            self.metadata,
            read_as_of=as_of,
            watermark=self.metadata.watermark if watermark is None else watermark,
            watched_since=watched_since,
            remembered_since=floor,
            read_at=read_at,
        )
        self.read_at = at
        self.error = None
        self.is_withdrawn = False
        self.is_committing = False
        if not self.has_been_read:
            self.has_been_read = True
            self._history.clear()
            self._changed_runs.update(self.runs)
            if self._is_saved:
                self._unsaved_runs.update(self.runs, self._tombstones)
        dropped, self.dropped_unseen = self.dropped_unseen, 0
        return dropped

    def read_up_to(self, lead: float | None = None) -> float:
        """Return the time up to which the list has been read; minus infinity before the first read.

        By the runtime's clock as it is now: after it was set back, what changes gets earlier times than the watermark.
        `lead` is the difference to our monotonic clock by a single response, which may know that before the others.
        """
        watermark, at = self.metadata.watermark, self._reads_up_to
        if watermark is None:
            return -math.inf
        if at is None:
            return watermark
        lead = self._clock.lead if lead is None else lead
        # The clock may have been set back and forward while the project could not be read.
        return min(watermark, at + min(self._least_lead, math.inf if lead is None else lead))

    def earlier(self, tracked: TrackedRun) -> SpinnerPace:
        """Return what the spinner of a run learned from earlier runs."""
        return self.spinners.pace(tracked.run.snapshot.spinner)

    def is_recent(self, since: float) -> bool:
        """Whether the last good read was requested at our monotonic time `since` or later."""
        return self.read_at is not None and self.read_at >= since

    @property
    def has_changes(self) -> bool:
        """Whether `collect_changes` may return something."""
        return bool(self._changed_runs or self._learned or self.spinners.has_changes)

    def collect_changes(self) -> tuple[set[str], set[str]]:
        """Return the runs and the spinners that changed or were removed since the last call."""
        if self._learned:
            # The thresholds of open runs depend on what their spinner learned; of a new one, on what the project did.
            is_taught, self._others = self._others is not self.spinners.all_paces, self.spinners.all_paces
            others = ((run_id, tracked.run.snapshot.spinner) for run_id, tracked in self.open.items())
            self._changed_runs.update(
                run_id
                for run_id, spinner in others
                if spinner in self._learned or (is_taught and self.spinners.pace(spinner).usual_first_gap() is None)
            )
            self._learned.clear()
        if not self._changed_runs:
            return self._changed_runs, self.spinners.collect_changes()
        runs, self._changed_runs = self._changed_runs, set()
        return runs, self.spinners.collect_changes()

    def interrupt(self) -> None:
        """Note that the runtime is down: what the silence of a run lasts from now on teaches nothing."""
        now = self._clock.now()
        for tracked in self.open.values():
            tracked.interrupt(now)

    def mark_open_changed(self) -> None:
        """Mark all open runs as changed."""
        self._changed_runs.update(self.open)

    def mark_all_changed(self) -> None:
        """Mark all runs and spinners as changed."""
        self._changed_runs.update(self.runs)
        self.spinners.mark_changed(self.spinners)

    def apply(
        self, snapshots: Iterable[RunSnapshot], seen_at: float | None, horizon: float, *, label_length: int
    ) -> None:
        """Merge snapshots into the runs they belong to, and count what is new about them.

        `seen_at` is the runtime's time of the response; without one, each run's own `updatedAt` is used. An unknown run
        that ended before `horizon`, or before everything that is remembered, is not counted. In a first read it is only
        learned from: after a restart, `increase()` would count it again.
        """
        if self.metadata.remembered_since is not None:
            horizon = max(horizon, self.metadata.remembered_since)
        for snapshot in snapshots:
            if not snapshot.spinner:
                snapshot = self._with_spinner(snapshot)
            if not self.spinners.is_named(snapshot):
                snapshot = self.spinners.named(snapshot, label_length)
            at = snapshot.updated_at if seen_at is None else seen_at
            tracked = self.runs.get(snapshot.id)
            if tracked is None:
                run = Run.first(snapshot, at)
                if self._tombstones and snapshot.id in self._tombstones:
                    tracked = self._readmit(run)
                elif run.ended_at is None or run.ended_at >= horizon or self._is_new_again(run.ended_at):
                    # Otherwise an earlier read has counted it, or it ended long before the first.
                    tracked = TrackedRun(run)
                elif self._again_since is not None:
                    self._remember(run)
                elif not self.has_been_read and run.id not in self._history:
                    self._learn_from_history(run)
                if tracked is None:
                    continue
            else:
                is_another = self._is_another_run(tracked.run.snapshot, snapshot)
                if not is_another:
                    self.spinners.note_renamed(tracked.run.snapshot.spinner, snapshot.spinner)
                if is_another:
                    newer = Run.first(snapshot, at)
                else:
                    newer = tracked.run.fold(snapshot, at, same_read=tracked.read_in == self._reads)
                    tracked.read_in = self._reads
                if newer is tracked.run or (is_another and (newer.ended or not tracked.run.ended)):
                    continue
                # The previous state must be counted before this one replaces it.
                self._count()
                self._remove_from_indexes(tracked)
                if is_another:
                    tracked = TrackedRun(newer)
                else:
                    if newer.ended_at != tracked.run.ended_at:
                        tracked.ended_steady = None
                    tracked.change(newer, self.metadata.read_as_of)
            tracked.read_in = self._reads
            self._progress.note(tracked.run)
            self._add_to_indexes(tracked)
            self._uncounted[tracked.run.snapshot.spinner].append(tracked)
        self._count()

    def _with_spinner(self, snapshot: RunSnapshot) -> RunSnapshot:
        """Return a run that names no spinner with the one that it had, or whose id it has, or with the id itself.

        Without any of these it counts to one that is called like the project.
        """
        tracked = self.runs.get(snapshot.id) or self._tombstones.get(snapshot.id)
        known = self.spinners.last_name(snapshot.spinner_id) if tracked is None else tracked.run.snapshot.spinner
        return msgspec.structs.replace(snapshot, spinner=known or snapshot.spinner_id or self.name)

    def note_overtaken(self, stall_floor: float) -> None:
        """Note which runs are silent while others continue; `stall_floor` is the least of the config."""
        for run_id, tracked in self.open.items():
            progress_at = self._progress.of_others(run_id)
            if progress_at is not None and tracked.overtake(progress_at, stall_floor):
                self._note_run(run_id)

    def _is_another_run(self, known: RunSnapshot, snapshot: RunSnapshot) -> bool:
        """Whether two snapshots with the same id are of two runs: of another spinner, and created at another time.

        A renamed spinner, or a run that was restarted, changes only one of them. Of the two, one that has not ended is
        tracked: it can stall.
        """
        if snapshot.created_at == known.created_at or snapshot.spinner == known.spinner:
            return False
        if len(self.shared_ids) < MAX_SHARED_IDS:
            self.shared_ids.add(known.id)
        return True

    def _is_new_again(self, ended_at: float) -> bool:
        """Whether a run ended since the last read, by a clock that was set back to times that may be forgotten."""
        return self._again_since is not None and self._again_since <= ended_at <= self._clock.now()

    def _remember(self, run: Run) -> None:
        """Keep a tombstone of a run that was counted and forgotten: the next reads bring it again."""
        tracked = TrackedRun(run, left_at=self._clock.now(), read_in=self._reads)
        tracked.count_nothing()
        self._tombstones[run.id] = tracked
        self._note_run(run.id)

    def _learn_from_history(self, run: Run) -> None:
        self._history.add(run.id)
        if self.spinners.learn_from_history(self.name, run, at_once=self._shows_at_once):
            self._learned.add(run.snapshot.spinner)

    def _readmit(self, run: Run) -> TrackedRun | None:
        """Return the tracked run of a tombstone, which is removed; None when the snapshot brings nothing new."""
        tombstone = self._tombstones[run.id]
        if self._is_another_run(tombstone.run.snapshot, run.snapshot):
            del self._tombstones[run.id]
            return TrackedRun(run)
        late = run.snapshot.updated_at <= tombstone.run.changed_at
        if tombstone.run.ended and (late or run.ends_like(tombstone.run)):
            return None
        # It restarted under the same id, or was not gone after all: what was counted for it stays counted.
        del self._tombstones[run.id]
        tombstone.change(run, self.metadata.read_as_of)
        return tombstone

    def _add_to_indexes(self, tracked: TrackedRun) -> None:
        # Called for each run of a first read: local variables make it faster.
        run = tracked.run
        snapshot = run.snapshot
        run_id, ended_at, records = snapshot.id, run.ended_at, snapshot.records
        self.runs[run_id] = tracked
        if self.has_been_read:
            self._note_run(run_id)
        if ended_at is None:
            self.open[run_id] = tracked
            tracked.ended_steady = None
            if run.has_waiting_records:
                self.with_waiting[run_id] = tracked
        else:
            for listed in self.listed.values():
                if listed:
                    listed.pop(run_id, None)
            tracked.activity = None
            ended_steady = self._clock.steady_at(ended_at)
            if tracked.ended_steady is not None:
                ended_steady = min(ended_steady, tracked.ended_steady)
            tracked.ended_steady = ended_steady
            heapq.heappush(self._ends, RunEnd(ended_steady, run_id))
            if len(self._ends) > 2 * len(self.runs):
                # An ended run that changes is there again each time, and some APIs change it in every scrape.
                ends = ((run_id, each.ended_steady) for run_id, each in self.runs.items())
                self._ends = [RunEnd(at, run_id) for run_id, at in ends if at is not None]
                heapq.heapify(self._ends)
        if snapshot.parent_id:
            self._excuse_parent(run)
        if run.failed_records:
            self._with_failed_records[run_id] = tracked
        if (tracked.records_read_for or (records is not None and records.failed)) and tracked.has_new_failures:
            self._new_failures.add(run_id)

    def _excuse_parent(self, child: Run) -> None:
        """Note that a run whose child makes progress, or ends, is not silent: it may wait for it."""
        moved_at = child.last_progress_at if child.ended_at is None else child.ended_at
        if moved_at is not None:
            self.excuse(child.snapshot.parent_id, moved_at, is_progress=brings_progress(child.snapshot))

    def excuse(self, run_id: str, time: float, *, is_progress: bool) -> None:
        """Note that a child of a run made progress at `time`, or now if that is earlier, or only tried to."""
        run = self.open.get(run_id)
        if run is not None and run.excuse_until(min(time, self._clock.now()), is_progress=is_progress):
            self._note_run(run_id)

    def _count(self) -> None:
        """Count what was added or changed, grouped by spinner: one by one it would take twice as long."""
        for name, changed in self._uncounted.items():
            if self.spinners.count(self.name, name, changed, at_once=self._shows_at_once):
                self._learned.add(name)
        self._uncounted.clear()

    @property
    def _shows_at_once(self) -> bool:
        """Whether the counts of a new spinner are history."""
        return not self.has_been_read and self.metadata.history

    def _note_run(self, run_id: str) -> None:
        if not self.has_been_read:
            return
        self._changed_runs.add(run_id)
        if self._is_saved:
            self._unsaved_runs.add(run_id)

    def _remove_from_indexes(self, tracked: TrackedRun) -> None:
        run = tracked.run
        self._note_run(run.id)
        self.spinners.remove(run.snapshot.spinner, run.status)
        self.open.pop(run.id, None)
        self.with_waiting.pop(run.id, None)
        self._with_failed_records.pop(run.id, None)
        self._new_failures.discard(run.id)

    def drop(self, run_id: str, now: float) -> bool:
        """Drop a run and keep a tombstone; return whether there was such a run."""
        tracked = self.runs.pop(run_id, None)
        if tracked is None:
            return False
        self._remove_from_indexes(tracked)
        if tracked.teaches and self.spinners.learn(tracked):
            self._learned.add(tracked.run.snapshot.spinner)
        self.spinners.note_dropped(tracked.run.snapshot.spinner, now)
        self.forget_listed("in flight", run_id)
        self.forget_listed("waiting", run_id)
        tracked.activity = None
        tracked.run = tracked.run.with_failed_records(())
        tracked.records_read_for = 0
        tracked.hidden = False
        tracked.left_at = now
        self._tombstones[run_id] = tracked
        return True

    def first_end(self) -> RunEnd | None:
        """Return the first end among the runs; None when none has ended."""
        while self._ends:
            first = self._ends[0]
            tracked = self.runs.get(first.run_id)
            if tracked is not None and tracked.ended_steady == first.at:
                return first
            # Its run was dropped, or restarted since.
            heapq.heappop(self._ends)
        return None

    def expire(self, before: float, lead: float) -> None:
        """Drop the runs that ended before a time of `RuntimeClock.steady`; `lead` is that of the clock.

        How long ago a run ended is known when a read shows it; from then on only our monotonic clock counts.
        """
        self._least_lead = min(self._least_lead, lead)
        if self._has_restored_ends:
            self._has_restored_ends = False
            for tracked in self.runs.values():
                if tracked.run.ended_at is not None:
                    tracked.ended_steady = self._clock.steady_at(tracked.run.ended_at)
                    heapq.heappush(self._ends, RunEnd(tracked.ended_steady, tracked.run.id))
        while (first := self.first_end()) is not None and first.at < before:
            self.drop(first.run_id, self._clock.now())

    def not_ahead_of(self, now: float) -> None:
        """Note that the runtime's clock was set back to `now`: what has been seen is not yet to come."""
        for tracked in self.open.values():
            before = tracked.run
            tracked.not_ahead_of(now)
            if tracked.run is not before:
                self._note_run(tracked.run.id)
        self.spinners.not_ahead_of(now)
        self._progress = Progress()

    @property
    def tombstone_count(self) -> int:
        """How many tombstones are kept."""
        return len(self._tombstones)

    def tombstones_not_needed(self, overlap: float) -> Iterator[tuple[float, str]]:
        """Yield the tombstones of which no read will tell again, oldest first: time of the drop and the run's id.

        A read asks for what changed since `overlap` seconds before the end of the last one. What changed then did not
        end earlier. During a first read any may be dropped: its list may be longer than what can be kept.
        """
        before = self.read_up_to() - overlap if self.has_been_read else math.inf
        for run_id, tracked in self._tombstones.items():
            ended_at = tracked.left_at if tracked.run.ended_at is None else tracked.run.ended_at
            if ended_at is None or ended_at < before:
                yield tracked.left_at or 0.0, run_id

    def drop_tombstone(self, run_id: str) -> None:
        """Forget a run. From now on none that ended before it is taken for a new one."""
        ended_at = self._tombstones.pop(run_id).run.ended_at
        self._note_run(run_id)
        if ended_at is None:
            return
        self._forgotten = max(self._forgotten, ended_at)
        floor = self.metadata.remembered_since
        if floor is not None and self._forgotten >= floor:
            self.metadata = msgspec.structs.replace(
                self.metadata, remembered_since=math.nextafter(self._forgotten, math.inf)
            )

    def hide(self, hidden: set[str]) -> int:
        """Hide exactly these runs; return how many of them were shown before."""
        newly = 0
        for run_id, tracked in self.runs.items():
            if (run_id in hidden) != tracked.hidden:
                self._changed_runs.add(run_id)
                newly += not tracked.hidden
            tracked.hidden = run_id in hidden
        return newly

    @property
    def has_new_failures(self) -> bool:
        """Whether other records of a run may have failed than those of its last `keep_failed_records`."""
        return bool(self._new_failures)

    def runs_with_new_failures(self) -> list[Run]:
        """Return the shown runs of which other records may have failed than those of `keep_failed_records`."""
        tracked = (self.runs[run_id] for run_id in self._new_failures)
        return [each.run for each in tracked if not each.hidden]

    def runs_with_failed_records(self) -> list[Run]:
        """Return the runs whose failed records are stored."""
        return [tracked.run for tracked in self._with_failed_records.values()]

    def keep_failed_records(self, run: Run, records: tuple[FailedRecord, ...], count: int) -> None:
        """Store the newest failed records of a run, of which there are `count`."""
        tracked = self.runs.get(run.id)
        if tracked is None:
            return
        self._set_failed_records(tracked, records)
        tracked.note_failed_records_read(run, count)
        if tracked.has_new_failures:
            self._new_failures.add(run.id)
        else:
            self._new_failures.discard(run.id)

    def read_failed_records_again(self, most: int) -> None:
        """Let failed records be read again of the runs of which more could be named, which are at most `most` each."""
        for run_id, tracked in self.runs.items():
            if len(tracked.run.failed_records) < min(tracked.run.records.failed or 0, most):
                tracked.records_read_for = 0
                self._new_failures.add(run_id)

    def trim_failed_records(self, run_id: str, records: tuple[FailedRecord, ...]) -> None:
        """Keep only these failed records of a run; the failed count that they were read for stays."""
        self._set_failed_records(self.runs[run_id], records)

    def _set_failed_records(self, tracked: TrackedRun, records: tuple[FailedRecord, ...]) -> None:
        tracked.run = tracked.run.with_failed_records(records)
        self._with_failed_records.pop(tracked.run.id, None)
        if records:
            self._with_failed_records[tracked.run.id] = tracked
        self._note_run(tracked.run.id)

    def keep_activity(self, run_id: str, activity: Activity) -> None:
        """Store what the records in flight of a silent run have shown; nothing if the run has ended."""
        tracked = self.open.get(run_id)
        if tracked is None:
            return
        merged = activity if tracked.activity is None else tracked.activity.merged(activity)
        if merged != tracked.activity:
            tracked.activity = merged
            self._note_run(run_id)

    def keep_listed(self, kind: RecordKind, run_id: str, records: ListedRecords) -> None:
        """Store the records of one kind of a run; nothing if the run has ended."""
        if run_id in self.open and records != self.listed[kind].get(run_id):
            self.listed[kind][run_id] = records
            self._note_run(run_id)

    def forget_listed(self, kind: RecordKind, run_id: str) -> None:
        """Forget the records of one kind of a run; what those in flight have shown stays."""
        if self.listed[kind].pop(run_id, None) is not None:
            self._note_run(run_id)

    def unsaved(self) -> Iterator[tuple[str, str, TrackedRun | Spinner | None]]:
        """Yield kind, key and value of what changed since `saved`; a value of None deletes the row."""
        for name, spinner in self.spinners.unsaved():
            yield SPINNER, name, spinner
        for run_id in self._unsaved_runs:
            yield RUN, run_id, self.runs.get(run_id) or self._tombstones.get(run_id)

    def everything(self) -> Iterator[tuple[str, str, TrackedRun | Spinner]]:
        """Yield kind, key and value of everything that is to be saved."""
        for name, spinner in self.spinners.everything():
            yield SPINNER, name, spinner
        for runs in (self.runs, self._tombstones):
            for run_id, tracked in runs.items():
                yield RUN, run_id, tracked

    def saved(self) -> None:
        """Note that what changed is saved."""
        self._unsaved_runs.clear()
        self.spinners.saved()

    def restore(self, runs: Iterable[TrackedRun], spinners: dict[str, Spinner]) -> None:
        """Restore what an earlier process saved; this project must be new."""
        self._has_restored_ends = True
        metadata = self.metadata
        if metadata.watermark is not None and metadata.remembered_since is None:
            # An earlier version saved it, and counted nothing that ended before.
            self.metadata = msgspec.structs.replace(metadata, remembered_since=metadata.watermark)
        if metadata.read_at is not None:
            self._reads_up_to, self._is_moment_restored = self._clock.moment(metadata.read_at), True
        tombstones: list[TrackedRun] = []
        for tracked in runs:
            tracked.hidden = False  # the first read decides
            tracked.read_in, tracked.ended_steady = 0, None
            if tracked.left_at is None:
                self._add_to_indexes(tracked)
            else:
                tombstones.append(tracked)
        self._tombstones = {each.run.id: each for each in sorted(tombstones, key=lambda each: each.left_at or 0.0)}
        self.spinners.restore(spinners, self.runs.values(), self.metadata.read_as_of)


MAX_SHARED_IDS = 1000
"""Ids of one project that are noted as those of several runs."""

RUN = "run"
SPINNER = "spinner"
