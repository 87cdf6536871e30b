"""One run: what its snapshots add up to. No clock, no I/O, nothing of other runs."""

from typing import Self

# A Struct instead of a dataclass, here as in `runtime.model`: one is made for each change of each run, and it is
# made several times faster and takes less room.
import msgspec

from exporter.runtime.model import FailedRecord, RecordCounts, RunSnapshot
from exporter.status import Status


class Run(msgspec.Struct, frozen=True, gc=False):
    """A run as far as we know it. A new snapshot makes a new value, so "changed" means "another object".

    Times are the runtime's, in seconds since the epoch.
    """

    snapshot: RunSnapshot
    """The newest snapshot; late ones never replace it."""
    seen_at: float
    """The runtime's time of the read that brought the newest snapshot."""
    ended_at: float | None
    """When the run ended; from its first ended snapshot's `updatedAt` where the runtime does not say."""
    last_progress_at: float | None
    """When a record last finished, or the run started; None before it started."""
    failed_records: tuple[FailedRecord, ...] = ()
    """The newest failed records, at most `limits.failed_records_per_run`."""

    @classmethod
    def first(cls, snapshot: RunSnapshot, seen_at: float) -> Self:
        """Return the run that a first snapshot shows."""
        return cls(snapshot, seen_at, _end(snapshot), _progress(snapshot, snapshot.updated_at))

    def fold(self, snapshot: RunSnapshot, seen_at: float) -> Self:
        """Return the run after one more snapshot, in whatever order they come.

        The newest `updatedAt` wins, then the newest read: some runtimes move counts without `updatedAt`. An
        older snapshot can still show that the run ended, or stood where it stands, earlier than we knew.
        """
        if snapshot == self.snapshot:
            return self
        older, newer = self.snapshot, snapshot
        swapped = _newer(self.snapshot, self.seen_at, snapshot, seen_at)
        if swapped:
            older, newer = newer, older
        ended_at = _end(newer)
        if ended_at is not None and newer.ended_at is None:
            # `updatedAt` can move on after the end; the first sight of the end is nearest to it.
            known = (self.ended_at if self.snapshot.status.ended else None, _end(snapshot))
            ended_at = min(time for time in known if time is not None)
        progress = self._fold_progress(older, newer, seen_at, swapped=swapped)
        kept = self.seen_at if swapped else seen_at
        if swapped and ended_at == self.ended_at and progress == self.last_progress_at:
            return self
        return type(self)(newer, kept, ended_at, progress, self.failed_records)

    def _fold_progress(self, older: RunSnapshot, newer: RunSnapshot, seen_at: float, *, swapped: bool) -> float | None:
        if newer.last_progress_at is not None or newer.started_at is None:
            return _progress(newer, newer.updated_at)
        if _finished(older) == _finished(newer):
            # Nothing finished between the two: the earlier sight of this count is nearer to the moment.
            sights = (self.last_progress_at, _progress(older, older.updated_at))
            return max(min((time for time in sights if time is not None), default=0.0), newer.started_at)
        if swapped:
            return self.last_progress_at
        # Counts that moved while `updatedAt` stood still: all we know is that we see it now.
        return _progress(newer, newer.updated_at if newer.updated_at > older.updated_at else seen_at)

    @property
    def id(self) -> str:
        """The runtime's id of the run."""
        return self.snapshot.id

    @property
    def status(self) -> Status:
        """The idea behind the newest status label."""
        return self.snapshot.status

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return self.ended_at is not None

    @property
    def records(self) -> RecordCounts:
        """Record counts; all zero while the runtime gives none."""
        return self.snapshot.records or _NO_RECORDS

    @property
    def started(self) -> bool:
        """Whether a worker has ever taken it up."""
        return self.snapshot.started_at is not None or self.status in _STARTED

    def progress_ratio(self) -> float | None:
        """Return the share of records that are finished, 0 to 1; None while the total is unknown or 0."""
        if not self.records.total:
            return None
        return min(self.records.finished / self.records.total, 1.0)

    def duration(self, now: float) -> float | None:
        """Return the seconds from start to end, or to `now`; None before the start."""
        if self.snapshot.started_at is None:
            return None
        return max((now if self.ended_at is None else self.ended_at) - self.snapshot.started_at, 0.0)

    def with_failed_records(self, records: tuple[FailedRecord, ...]) -> Self:
        """Return the same run with these failed records named; itself when it names them already."""
        if records == self.failed_records:
            return self
        return type(self)(self.snapshot, self.seen_at, self.ended_at, self.last_progress_at, records)

    def ends_like(self, earlier: Self) -> bool:
        """Whether this is the end of `earlier` once more: an `updatedAt` that moved on, and nothing else."""
        if self.ended_at is None or earlier.ended_at is None:
            return False
        return self.snapshot.ended_at is None or self.ended_at <= earlier.ended_at

    def restarted_by(self, newer: Self) -> bool:
        """Whether `newer` is this run begun anew under the same id: counts fell back and it starts again."""
        again = newer.snapshot.started_at is None or newer.snapshot.started_at != self.snapshot.started_at
        return again and newer.records.finished < self.records.finished


_NO_RECORDS = RecordCounts()
_STARTED = (Status.RUNNING, Status.WAITING, Status.COMPLETED, Status.FAILED)


def _newer(one: RunSnapshot, seen: float, other: RunSnapshot, other_seen: float) -> bool:
    """Whether `one` is the newer of two snapshots; ties fall the same way in whatever order they come."""
    if (one.updated_at, seen) != (other.updated_at, other_seen):
        return (one.updated_at, seen) > (other.updated_at, other_seen)
    mine, theirs = ((s.status.ended, _finished(s), repr(s)) for s in (one, other))
    return mine > theirs


def _finished(snapshot: RunSnapshot) -> int:
    return snapshot.records.finished if snapshot.records else 0


def _end(snapshot: RunSnapshot) -> float | None:
    """Return when the run ended. A status that nobody knows ends with `endedAt`; otherwise the status decides."""
    if snapshot.status.ended:
        return snapshot.updated_at if snapshot.ended_at is None else snapshot.ended_at
    return snapshot.ended_at if snapshot.status is Status.UNKNOWN else None


def _progress(snapshot: RunSnapshot, finished_by: float) -> float | None:
    """Return when the run last got further; `finished_by` is when its finished records had finished at the latest."""
    told, started_at = snapshot.last_progress_at, snapshot.started_at
    if told is not None:
        return told if started_at is None or told > started_at else started_at
    if started_at is None:
        return None
    return max(finished_by, started_at) if _finished(snapshot) else started_at
