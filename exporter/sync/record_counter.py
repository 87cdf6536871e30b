"""Record counts for runtimes whose runs carry none: lists the records and counts them, incrementally where possible.

An open run costs at least one request in every sync, one for each page of records; an ended run is counted once.
"""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Mapping

import msgspec

from exporter.errors import ApiError
from exporter.runs.clock import MAX_DELAY, RuntimeClock
from exporter.runs.run import Run
from exporter.runs.watch import Key
from exporter.runtime.client import RuntimeClient
from exporter.runtime.held import LEAST_PER_ITEM, Holding
from exporter.runtime.model import FailureCount, RecordCounts, RecordSnapshot, RunSnapshot
from exporter.status import Status

MAX_CHILDREN = 50_000
"""Runs of which it is noted which record started them; of more, the first are forgotten."""


class ParentRuns:
    """Finds the runs that started others, where a run names a record of its parent instead: when that is counted."""

    def __init__(self) -> None:
        self._run_ids: dict[str, Key | None] = {}
        """Project and run by the records that were named; None where its run has not been seen yet."""

    def note(self, snapshot: RunSnapshot) -> None:
        """Note the record that a run names, before records are counted."""
        if snapshot.parent_record_id:
            self._run_ids.setdefault(snapshot.parent_record_id, None)
            if len(self._run_ids) > MAX_CHILDREN:
                del self._run_ids[next(iter(self._run_ids))]

    def look_in(self, records: Mapping[str, RecordSnapshot], parent: RunSnapshot) -> None:
        """Look for the records that were named among those of a run."""
        if self._run_ids:
            found = dict.fromkeys(records.keys() & self._run_ids.keys(), (parent.project_id, parent.id))
            self._run_ids |= found

    def of(self, snapshot: RunSnapshot) -> Key | None:
        """Return project and id of the run that started a run; None if it is not known, or none did."""
        return self._run_ids.get(snapshot.parent_record_id)

    def named(self, snapshot: RunSnapshot, known: Run | None) -> RunSnapshot:
        """Return a run with the id of the one that started it, as far as it was found; `known` is the run before."""
        if not snapshot.parent_record_id:
            return snapshot
        found, before = self.of(snapshot), None if known is None else known.snapshot
        if found is None and before is not None and before.parent_record_id == snapshot.parent_record_id:
            # After a restart, for example, when the parent has ended.
            return msgspec.structs.replace(snapshot, parent_id=before.parent_id)
        return snapshot if found is None else msgspec.structs.replace(snapshot, parent_id=found[1])


class RecordCounter:
    """Counts the records of one project's runs."""

    def __init__(self, client: RuntimeClient, clock: RuntimeClock, *, overlap: float, parents: ParentRuns) -> None:
        """An incremental read begins `overlap` seconds before the time of the last one.

        `parents` are shown the records of all runs.
        """
        self._client = client
        self._clock = clock
        self._overlap = overlap
        self._parents = parents
        self._counted: dict[str, _Counted] = {}
        self._failing_since: dict[str, float] = {}
        """Our monotonic time since when the records of a run cannot be read, by its id."""
        self._kept: Holding | None = None
        """What is kept between reads."""

    def is_due(self, snapshot: RunSnapshot, known: Run | None) -> bool:
        """Whether the records of a run are to be read: those of one that has ended are counted once."""
        if not snapshot.status.ended or known is None or snapshot.id in self._failing_since:
            return True
        return not (known.ended and _same(known.snapshot, snapshot))

    def is_failing(self, run_id: str) -> bool:
        """Whether the records of a run could not be read when they were last due, and are still to be read."""
        return run_id in self._failing_since

    def uncounted(self, snapshot: RunSnapshot, known: Run | None, *, stale_after: float) -> RunSnapshot:
        """Return a snapshot whose records cannot be read: with the last counts, and after `stale_after` without any.

        So a run goes on and ends although its records cannot be read, and no count is quietly out of date. After that
        time the records of a run that has ended are not tried again.
        """
        now = self._clock.monotonic()
        since = self._failing_since.setdefault(snapshot.id, now)
        is_stale = now - since >= stale_after
        if is_stale and snapshot.status.ended:
            del self._failing_since[snapshot.id]
        if is_stale or known is None:
            return msgspec.structs.replace(snapshot, records=None, failures=())
        return _with_counts_of(known.snapshot, snapshot)

    async def count(self, snapshot: RunSnapshot, known: Run | None) -> RunSnapshot:
        """Return a snapshot with its records counted; `known` is the run in the store.

        Raises `ApiError` when the records cannot be read; `uncounted` returns what is known then.
        """
        if known is not None and not self.is_due(snapshot, known):
            return _with_counts_of(known.snapshot, snapshot)
        counted = self._counted.get(snapshot.id, _Counted())
        since = None
        if counted.as_of is not None:
            # Less if the runtime's clock was set back since, or that time was in the future.
            since = min(counted.as_of, self._clock.at(counted.at)) - self._overlap
        at = self._clock.monotonic()
        records = dict(counted.records) if since is not None else {}
        as_of = None
        with self._client.held.open("records") as holding:
            async for page in self._client.records(snapshot, changed_since=since):
                holding.add(page.size)
                as_of = page.as_of if as_of is None else as_of
                records |= {record.record.id: record for record in page.items}
        self._parents.look_in(records, snapshot)
        self._failing_since.pop(snapshot.id, None)
        if snapshot.status.ended:
            self._counted.pop(snapshot.id, None)
        elif self._client.can_list_changed_records:
            # Otherwise the next read lists all records again, and these are not needed.
            if as_of is not None and counted.as_of is not None and as_of < self._clock.at(at) - MAX_DELAY:
                # Until other responses agree, what changed may have times before those that were asked for.
                as_of, at = counted.as_of, counted.at
            self._counted[snapshot.id] = _Counted(records, as_of, at)
        # A run that has ended gets no more records.
        is_total = self._client.tells_total or snapshot.status.ended
        return _with_counts(snapshot, records, len(records) if is_total else None)

    def keep_only(self, run_ids: Mapping[str, object]) -> None:
        """Forget the records of all other runs, and of all runs if they take too much: they are listed again then."""
        self._counted = {run_id: counted for run_id, counted in self._counted.items() if run_id in run_ids}
        self._failing_since = {run_id: since for run_id, since in self._failing_since.items() if run_id in run_ids}
        self.close()
        self._kept = self._client.held.open("records")
        self._kept.when_refused(lambda: self._counted.clear())
        with contextlib.suppress(ApiError):
            self._kept.add(LEAST_PER_ITEM * sum(len(each.records) for each in self._counted.values()))

    def close(self) -> None:
        """Hold nothing any more; called when its project is dropped."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None


@dataclasses.dataclass(frozen=True, slots=True)
class _Counted:
    records: dict[str, RecordSnapshot] = dataclasses.field(default_factory=dict)
    as_of: float | None = None
    """The runtime's time of their read."""
    at: float = 0.0
    """Our monotonic time of it."""


def _with_counts(snapshot: RunSnapshot, records: Mapping[str, RecordSnapshot], total: int | None) -> RunSnapshot:
    states = Counter(each.status for each in records.values())
    failed = [each.record for each in records.values() if each.status is Status.FAILED]
    ends = [each.record.ended_at for each in records.values() if each.status.ended and each.record.ended_at]
    groups = Counter((record.step, record.error_code) for record in failed)
    counts = RecordCounts(
        total=total,
        pending=states[Status.QUEUED],
        running=states[Status.RUNNING],
        waiting=states[Status.WAITING],
        # A record that was cancelled or skipped is finished and did not fail.
        completed=states[Status.COMPLETED] + states[Status.CANCELLED],
        failed=states[Status.FAILED],
    )
    if records and states[Status.UNKNOWN] == len(records):
        # No label has a mapping, so none of these zeros is known.
        counts = RecordCounts(total=total)
    return msgspec.structs.replace(
        snapshot,
        records=counts,
        failures=tuple(FailureCount(step, code, count) for (step, code), count in sorted(groups.items())),
        last_progress_at=max([*ends, *filter(None, [snapshot.last_progress_at])], default=None),
    )


def _with_counts_of(counted: RunSnapshot, snapshot: RunSnapshot) -> RunSnapshot:
    return msgspec.structs.replace(
        snapshot,
        records=counted.records,
        failures=counted.failures,
        last_progress_at=counted.last_progress_at,
    )


def _same(one: RunSnapshot, other: RunSnapshot) -> bool:
    return (one.status, one.started_at, one.ended_at) == (other.status, other.started_at, other.ended_at)
