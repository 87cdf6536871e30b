"""One run, merged from its snapshots. No clock, no I/O, no other runs."""

import math
from typing import Self

# A Struct instead of a dataclass, as in `runtime.model`: one is created for each change of each run, several times
# faster and in less memory.
import msgspec

from exporter.runtime.model import FailedRecord, RecordCounts, RunSnapshot
from exporter.status import Status


class Reached(msgspec.Struct, frozen=True, gc=False):
    """What a run had reached before an answer showed less of it. Times are the runtime's."""

    started_at: float | None
    finished: int | None
    updated_at: float
    progress_at: float


class Run(msgspec.Struct, frozen=True, gc=False):
    """A run as far as it is known. A snapshot that changes it creates a new object.

    Times are the runtime's, in seconds since the epoch.
    """

    snapshot: RunSnapshot
    """What the newest read says; within one read the newest `updatedAt`."""
    seen_at: float
    """The runtime's time of the read that brought the snapshot."""
    ended_at: float | None
    """When the run ended; from its first ended snapshot's `updatedAt` where the runtime does not say."""
    last_progress_at: float | None
    """When a record last finished, or the run started; None before it started, and while nothing tells.

    Never later than the read that showed it.
    """
    failed_records: tuple[FailedRecord, ...] = ()
    """The newest failed records, at most `limits.failed_records_per_run`."""
    reached: Reached | None = None
    """What it had reached before, if its snapshot shows fewer finished records or lacks what tells its progress.

    An answer without a field, or of a server that lags behind, is not progress, and neither is the next complete one.
    """

    @classmethod
    def first(cls, snapshot: RunSnapshot, seen_at: float) -> Self:
        """Return the run of a first snapshot."""
        changed_at = _not_ahead(snapshot.updated_at, seen_at)
        return cls(snapshot, seen_at, _end(snapshot, changed_at), _progress(snapshot, changed_at, seen_at))

    def fold(self, snapshot: RunSnapshot, seen_at: float, *, same_read: bool = False) -> Self:
        """Return the run merged with one more snapshot.

        The newest read decides: an `updatedAt` may have been in the future, and the runtime's clock may have been set
        back. Within one read, whose pages can be of different moments, the newest `updatedAt` wins and the order does
        not matter; with equal ones the newest response wins, since some runtimes change counts without `updatedAt`. An
        older snapshot can still show that the run ended, or reached its present counts, earlier than known.
        """
        if snapshot == self.snapshot:
            return self
        older, newer = self.snapshot, snapshot
        swapped = same_read and _newer(self.snapshot, self.seen_at, snapshot, seen_at)
        if swapped:
            older, newer = newer, older
        changed_at = _not_ahead(snapshot.updated_at, seen_at)
        ended_at = self.ended_at if swapped else _end(snapshot, changed_at)
        if ended_at is not None and newer.ended_at is None:
            # `updatedAt` can change after the end; the first snapshot that shows the end is nearest to it.
            known = (self.ended_at if self.snapshot.status.ended else None, _end(snapshot, changed_at))
            ended_at = min(time for time in known if time is not None)
        if swapped:
            progress = self._progress_with_older(older, seen_at)
            if ended_at == self.ended_at and progress == self.last_progress_at:
                return self
            return type(self)(newer, self.seen_at, ended_at, progress, self.failed_records, self.reached)
        progress = self._progress_with_newer(newer, seen_at)
        return type(self)(newer, seen_at, ended_at, progress, self.failed_records, self._reached_before(newer))

    def _progress_with_older(self, older: RunSnapshot, seen_at: float) -> float | None:
        """Return the last progress in view of an older snapshot of the same read."""
        newest, at = self.snapshot, self.last_progress_at
        earlier = _progress(older, _not_ahead(older.updated_at, seen_at), seen_at)
        is_told = newest.last_progress_at is not None
        if is_told or at is None or earlier is None or _finished(older) != _finished(newest):
            return at
        # Nothing finished between the two: the earlier snapshot of this count is nearer to the moment.
        return max(min(at, earlier), newest.started_at or 0.0)

    def _progress_with_newer(self, newer: RunSnapshot, seen_at: float) -> float | None:
        """Return the last progress in view of a newer snapshot."""
        older, at, reached = self.snapshot, self.last_progress_at, self.reached
        if newer.last_progress_at is not None:
            progress = _progress(newer, newer.updated_at, seen_at)
            is_same = (newer.last_progress_at, newer.started_at) == (older.last_progress_at, older.started_at)
            if at is not None and progress is not None and is_same:
                # A time from the future is as old as it has been known.
                progress = min(progress, at)
            counted_at = self._counted_at(newer)
            return progress if progress is None or counted_at is None else max(progress, counted_at)
        after = _finished(newer)
        if newer.started_at is None or after is None:
            return None
        started_at, before, at = self._last_known()
        if at is not None and before is not None and newer.started_at == started_at:
            if after <= before:
                return _not_ahead(at, seen_at)
            if reached is not None and after == reached.finished and newer.updated_at <= reached.updated_at:
                return _not_ahead(reached.progress_at, seen_at)
        if after == before:
            return max(at or 0.0, _not_ahead(newer.started_at, seen_at))
        # If `updatedAt` did not change, or went back, only the time of the read is known.
        is_later = newer.updated_at > older.updated_at
        return _progress(newer, _not_ahead(newer.updated_at, seen_at) if is_later else seen_at, seen_at)

    def _counted_at(self, newer: RunSnapshot) -> float | None:
        """Return when a record had not finished yet that has since, if the runtime's time of that is long before.

        Then that time is one of a worker whose clock is behind, or is told only now and then.
        """
        older, after = self.snapshot, _finished(newer)
        if newer.started_at != older.started_at or after is None or older.last_progress_at is None:
            return None
        before, at = _finished(older), self.last_progress_at
        if self.reached is not None:
            before, at = self.reached.finished, self.reached.progress_at
        if before is None or at is None:
            return None
        if after > before:
            return self.seen_at if _told(newer) < self.seen_at - TOLD_LATE else None
        # What the counts showed before stays.
        return at if at > _told(older) else None

    def _reached_before(self, newer: RunSnapshot) -> Reached | None:
        """Return what had been reached if a newer snapshot shows less; None if it does not."""
        started_at, before, at = self._last_known()
        after, is_same_start = _finished(newer), newer.started_at == started_at
        tells_nothing = newer.last_progress_at is None and (newer.started_at is None or after is None)
        if tells_nothing or (is_same_start and before is not None and after is not None and after < before):
            if self.reached is not None or at is None:
                return self.reached
            return Reached(started_at, before, self.snapshot.updated_at, at)
        return self.reached if is_same_start and after == before else None

    def _last_known(self) -> tuple[float | None, int | None, float | None]:
        """Return the last start, finished records and time of progress that were known together."""
        if self.last_progress_at is None and self.reached is not None:
            return self.reached.started_at, self.reached.finished, self.reached.progress_at
        return self.snapshot.started_at, _finished(self.snapshot), self.last_progress_at

    def not_ahead_of(self, now: float) -> Self:
        """Return the run for a runtime whose clock was set back to `now`: no progress that was seen is yet to come."""
        if self.last_progress_at is None or self.last_progress_at <= now:
            return self
        return type(self)(self.snapshot, min(self.seen_at, now), self.ended_at, now, self.failed_records, self.reached)

    @property
    def changed_at(self) -> float:
        """When it last changed, and not later than the read that showed it."""
        return _not_ahead(self.snapshot.updated_at, self.seen_at)

    @property
    def id(self) -> str:
        """The runtime's id of the run."""
        return self.snapshot.id

    @property
    def status(self) -> Status:
        """The status for the newest status label."""
        return self.snapshot.status

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return self.ended_at is not None

    @property
    def records(self) -> RecordCounts:
        """Record counts; all None while the runtime has none."""
        return self.snapshot.records or _NO_RECORDS

    @property
    def has_waiting_records(self) -> bool:
        """Whether some of its records wait: as their number says, or its status where no number is told."""
        waiting = self.records.waiting
        return self.status is Status.WAITING if waiting is None else waiting > 0

    @property
    def started(self) -> bool:
        """Whether a worker has ever started it."""
        return self.snapshot.started_at is not None or self.status in _STARTED

    def progress_ratio(self) -> float | None:
        """Return the share of records that are finished, 0 to 1; None while either is unknown or the total is 0."""
        total, finished = self.records.total, self.records.finished
        return min(finished / total, 1.0) if total and finished is not None else None

    def duration(self, now: float) -> float | None:
        """Return the seconds from start to end, or to `now`; None before the start."""
        if self.snapshot.started_at is None:
            return None
        return max((now if self.ended_at is None else self.ended_at) - self.snapshot.started_at, 0.0)

    def with_failed_records(self, records: tuple[FailedRecord, ...]) -> Self:
        """Return the run with these failed records."""
        if records == self.failed_records:
            return self
        return type(self)(self.snapshot, self.seen_at, self.ended_at, self.last_progress_at, records, self.reached)

    def ends_like(self, earlier: Self) -> bool:
        """Whether this is the same end as that of `earlier`, with a later `updatedAt` at most."""
        if self.ended_at is None or earlier.ended_at is None:
            return False
        return self.snapshot.ended_at is None or self.ended_at <= earlier.ended_at

    def restarted_by(self, newer: Self) -> bool:
        """Whether `newer` is a restart of this run under the same id: its counts are lower and its start is another.

        If one of the two has no start it must be newer, or a server that lags behind could make records count twice.
        """
        again = newer.snapshot.started_at != self.snapshot.started_at
        if newer.snapshot.started_at is None or self.snapshot.started_at is None:
            again = newer.snapshot.updated_at > self.snapshot.updated_at
        before, after = self.records.finished, newer.records.finished
        return again and before is not None and after is not None and after < before


_NO_RECORDS = RecordCounts()
_STARTED = (Status.RUNNING, Status.WAITING, Status.COMPLETED, Status.FAILED)


def _told(snapshot: RunSnapshot) -> float:
    """Return the time of the last progress that the runtime tells; minus infinity without one."""
    return max(snapshot.last_progress_at or -math.inf, snapshot.started_at or -math.inf)


def _newer(one: RunSnapshot, seen: float, other: RunSnapshot, other_seen: float) -> bool:
    """Whether `one` is the newer of two snapshots; ties are broken by content, so that the order does not matter."""
    if (one.updated_at, seen) != (other.updated_at, other_seen):
        return (one.updated_at, seen) > (other.updated_at, other_seen)
    mine, theirs = ((s.status.ended, _finished(s) or 0, repr(s)) for s in (one, other))
    return mine > theirs


def _finished(snapshot: RunSnapshot) -> int | None:
    return snapshot.records.finished if snapshot.records else None


def brings_progress(child: RunSnapshot) -> bool:
    """Whether a run is progress for the one that started it: a record of it is completed, or it is.

    That it starts, or fails, is none: it may do so again and again.
    """
    completed = None if child.records is None else child.records.completed
    if child.status is Status.COMPLETED or completed is not None:
        return child.status is Status.COMPLETED or bool(completed)
    has_ended = child.status.ended or child.ended_at is not None
    return not has_ended and _told(child) > (child.started_at or -math.inf)


def ended_before(snapshot: RunSnapshot, time: float) -> bool:
    """Whether the run had ended by a time of the runtime's clock."""
    ended_at = _end(snapshot, snapshot.updated_at)
    return ended_at is not None and ended_at < time


AHEAD = 30.0
"""Seconds by which a time may be ahead of the read that shows it: the run changed meanwhile."""


TOLD_LATE = 300.0
"""Seconds by which the time of the last progress may be before the last read although a record has finished since.

Counts can be told a little later than times.
"""


def _not_ahead(time: float, seen_at: float) -> float:
    """Return a time that has passed: that of the read for one that is ahead of it."""
    return time if time <= seen_at + AHEAD else seen_at


def _end(snapshot: RunSnapshot, changed_at: float) -> float | None:
    """Return when the run ended. The status decides; an unknown status ends with `endedAt`."""
    if snapshot.status.ended:
        return changed_at if snapshot.ended_at is None else snapshot.ended_at
    return snapshot.ended_at if snapshot.status is Status.UNKNOWN else None


def _progress(snapshot: RunSnapshot, finished_by: float, seen_at: float) -> float | None:
    """Return the time of the last progress; `finished_by` is when its finished records had finished at the latest."""
    reported, started_at = snapshot.last_progress_at, snapshot.started_at
    if reported is not None:
        return _not_ahead(reported if started_at is None or reported > started_at else started_at, seen_at)
    finished = _finished(snapshot)
    if started_at is None or finished is None:
        return None
    return _not_ahead(max(finished_by, started_at) if finished else started_at, seen_at)
