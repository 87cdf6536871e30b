"""Runs whose records are counted one by one, because the API gives no counts."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from exporter.errors import ApiError
from exporter.runs.clock import RuntimeClock
from exporter.runs.run import Run
from exporter.runtime.model import FailedRecord, FailureCount, ListPage, RecordSnapshot, RunSnapshot
from exporter.status import Status
from exporter.sync.record_counter import RecordCounter
from tests.builders import NOON, Clock, counts, snapshot

OVERLAP = 60.0


class Records:
    """A client with records of one run, which notes since when they were requested."""

    def __init__(self, *, can_list_changed: bool = True) -> None:
        self.can_list_changed_records = can_list_changed
        self.pages: list[ListPage[RecordSnapshot]] = []
        self.requested: list[float | None] = []
        self.fails = False

    async def records(
        self, run: RunSnapshot, *, changed_since: float | None = None
    ) -> AsyncIterator[ListPage[RecordSnapshot]]:
        self.requested.append(changed_since)
        if self.fails:
            raise ApiError("HTTP 500")
        for page in self.pages:
            yield page


def page(as_of: float | None, **statuses: Status) -> ListPage[RecordSnapshot]:
    records = [
        RecordSnapshot(status, FailedRecord(record_id, "call", "busy" if status is Status.FAILED else "", NOON + 10))
        for record_id, status in statuses.items()
    ]
    return ListPage(tuple(records), as_of)


def counter_of(records: Records) -> RecordCounter:
    return RecordCounter(records, RuntimeClock(*2 * [Clock(NOON + 30)]), overlap=OVERLAP)  # type: ignore[arg-type]


async def test_every_record_is_in_one_state_and_one_with_an_unmapped_status_in_the_total_only() -> None:
    records = Records()
    statuses = {
        "q": Status.QUEUED,
        "u": Status.UNKNOWN,
        "r1": Status.RUNNING,
        "r2": Status.RUNNING,
        "r3": Status.RUNNING,
        "w": Status.WAITING,
        "c": Status.COMPLETED,
        "x": Status.CANCELLED,
        "f": Status.FAILED,
    }
    records.pages = [page(NOON, **statuses)]
    counted = await counter_of(records).count(snapshot(last_progress_at=None), None)
    assert counted.records == counts(total=9, pending=1, running=3, waiting=1, completed=2, failed=1)
    assert counted.failures == (FailureCount("call", "busy", 1),)
    assert counted.last_progress_at == NOON + 10


async def test_later_reads_request_what_changed_and_keep_the_other_records() -> None:
    records = Records()
    counter = counter_of(records)
    records.pages = [page(NOON, a=Status.RUNNING, b=Status.RUNNING), page(NOON + 9, c=Status.QUEUED)]
    await counter.count(snapshot(), None)
    records.pages = [page(NOON + 30, a=Status.COMPLETED)]
    counted = await counter.count(snapshot(), None)
    assert counted.records == counts(total=3, pending=1, running=1, completed=1)
    records.pages = []
    await counter.count(snapshot(), None)
    # The time of the first page: what changed while the others were read is requested again.
    assert records.requested == [None, NOON - OVERLAP, NOON + 30 - OVERLAP]


async def test_an_api_that_cannot_list_changes_is_asked_for_all_records_each_time() -> None:
    records = Records(can_list_changed=False)
    counter = counter_of(records)
    records.pages = [page(NOON, a=Status.RUNNING, b=Status.RUNNING)]
    await counter.count(snapshot(), None)
    records.pages = [page(NOON + 30, a=Status.COMPLETED)]
    counted = await counter.count(snapshot(), None)
    assert counted.records == counts(total=1, completed=1)
    assert records.requested == [None, None]


async def test_a_run_that_has_ended_is_counted_once_more_and_then_never_again() -> None:
    records = Records()
    counter = counter_of(records)
    records.pages = [page(NOON, a=Status.COMPLETED)]
    ended = snapshot(status=Status.COMPLETED)
    known = Run.first(await counter.count(ended, Run.first(snapshot(), NOON)), NOON)
    assert len(records.requested) == 1
    again = await counter.count(ended, known)
    assert (again.records, len(records.requested)) == (counts(total=1, completed=1), 1)
    await counter.count(snapshot(status=Status.COMPLETED, ended_at=NOON + 90), known)
    assert records.requested == [None, None], "it was restarted and ended again; nothing of the first time is kept"


async def test_a_read_that_fails_forgets_nothing() -> None:
    records = Records()
    counter = counter_of(records)
    records.pages = [page(NOON, a=Status.RUNNING)]
    await counter.count(snapshot(), None)
    records.fails = True
    with pytest.raises(ApiError):
        await counter.count(snapshot(), None)
    records.fails, records.pages = False, []
    counted = await counter.count(snapshot(), None)
    assert counted.records == counts(total=1, running=1)


async def test_the_records_of_runs_that_left_are_forgotten() -> None:
    records = Records()
    counter = counter_of(records)
    records.pages = [page(NOON, a=Status.RUNNING)]
    for run_id in ("run-1", "run-2"):
        await counter.count(snapshot(run_id), None)
    counter.keep_only({"run-2": object()})
    records.requested.clear()
    for run_id in ("run-1", "run-2"):
        await counter.count(snapshot(run_id), None)
    assert records.requested == [None, NOON - OVERLAP]


@pytest.mark.parametrize(("reported", "expected"), [(NOON + 50, NOON + 50), (NOON + 5, NOON + 10)])
async def test_the_last_progress_is_the_later_of_what_the_run_and_its_records_say(
    reported: float, expected: float
) -> None:
    records = Records()
    records.pages = [page(NOON, a=Status.COMPLETED)]
    counted: Any = await counter_of(records).count(snapshot(last_progress_at=reported), None)
    assert counted.last_progress_at == expected
