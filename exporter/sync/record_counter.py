"""Record counts for runtimes whose runs carry none: their records are listed and counted, incrementally where possible.

A run under way costs a request with every sync, more where its records fill pages; one that has ended is counted once.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping

import msgspec

from exporter.runs.run import Run
from exporter.runtime.client import RuntimeClient
from exporter.runtime.model import FailureCount, RecordCounts, RecordSnapshot, RunSnapshot
from exporter.status import Status


class RecordCounter:
    """Counts the records of one project's runs."""

    def __init__(self, client: RuntimeClient, *, overlap: float) -> None:
        """`overlap` is how far, in seconds, behind its last read an incremental one begins."""
        self._client = client
        self._overlap = overlap
        self._counted: dict[str, _Counted] = {}

    async def count(self, snapshot: RunSnapshot, known: Run | None) -> RunSnapshot:
        """Return a snapshot with its records counted; `known` is what the store holds of the run.

        Raises `ApiError` when the records cannot be read, and then has learnt nothing.
        """
        if snapshot.status.ended and known is not None and known.ended and _same(known.snapshot, snapshot):
            return _with_counts_of(known.snapshot, snapshot)
        counted = self._counted.get(snapshot.id, _Counted())
        since = None if counted.as_of is None else counted.as_of - self._overlap
        sights = dict(counted.sights) if since is not None else {}
        as_of = None
        async for page in self._client.records(snapshot, changed_since=since):
            as_of = page.as_of if as_of is None else as_of
            sights |= {sight.record.id: sight for sight in page.items}
        if snapshot.status.ended:
            self._counted.pop(snapshot.id, None)
        elif self._client.can_list_changed_records:
            # Else everything is read again, and what was seen before is of no use.
            self._counted[snapshot.id] = _Counted(sights, as_of)
        return _with_counts(snapshot, sights)

    def forget(self, run_ids: Mapping[str, object]) -> None:
        """Forget what was counted of runs that are not among these."""
        self._counted = {run_id: counted for run_id, counted in self._counted.items() if run_id in run_ids}


@dataclasses.dataclass(frozen=True, slots=True)
class _Counted:
    sights: dict[str, RecordSnapshot] = dataclasses.field(default_factory=dict)
    as_of: float | None = None
    """The runtime's time of the read that they come from."""


def _with_counts(snapshot: RunSnapshot, sights: Mapping[str, RecordSnapshot]) -> RunSnapshot:
    states = Counter(sight.status for sight in sights.values())
    failed = [sight.record for sight in sights.values() if sight.status is Status.FAILED]
    ends = [sight.record.ended_at for sight in sights.values() if sight.status.ended and sight.record.ended_at]
    groups = Counter((record.step, record.error_code) for record in failed)
    return msgspec.structs.replace(
        snapshot,
        records=RecordCounts(
            total=len(sights),
            pending=states[Status.QUEUED] + states[Status.UNKNOWN],
            running=states[Status.RUNNING],
            waiting=states[Status.WAITING],
            # A record that was cancelled or skipped is done with, and did not fail.
            completed=states[Status.COMPLETED] + states[Status.CANCELLED],
            failed=states[Status.FAILED],
        ),
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
