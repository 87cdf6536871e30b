"""Record counts of runs that carry none: which records are requested, and what is counted of them."""

import re
from datetime import datetime
from typing import Any

import httpx
import msgspec
import pytest
import structlog

from exporter.config import Duration, LimitsConfig, SpinnerConfig
from exporter.config.api_description import ListFilter, Resource
from exporter.runtime.held import LEAST_PER_ITEM
from exporter.runtime.model import FailureCount, RecordCounts
from exporter.service import Exporter
from tests.builders import NOON, RUNTIME, Clock, counts, resources
from tests.scripted import ScriptedRuntime, exporter_of, rfc3339

pytestmark = pytest.mark.usefixtures("each_way")

STATUSES = {"queued": 1, "never heard of": 2, "running": 3, "waiting": 4, "completed": 5, "cancelled": 6, "failed": 7}


class Recorded(ScriptedRuntime):
    """A runtime whose jobs have no counts, and whose records can be listed by the time of their last change."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.records: dict[str, dict[str, Any]] = {}
        self.has_times = True
        self.interfere = self._records

    def record(self, record_id: str, status: str, **fields: Any) -> None:
        self.records[record_id] = {
            "id": record_id, "status": status, "updatedAt": self.clock(), **fields
        }  # fmt: skip

    def listed_since(self) -> list[str | None]:
        """Return the `updatedSince` of each request for records, and forget the requests."""
        lists = [request for request in self.requests if request.url.path.endswith("/records")]
        self.requests.clear()
        return [request.url.params.get("updatedSince") for request in lists]

    def _records(self, request: httpx.Request) -> httpx.Response | None:
        if not request.url.path.endswith("/records"):
            return None
        since = request.url.params.get("updatedSince")
        changed = [each for each in self.records.values() if since is None or str(rfc3339(each["updatedAt"])) >= since]
        response = self._list(request, [_wire(each) for each in changed])
        if self.has_times:
            return response
        return httpx.Response(200, json={"items": response.json()["items"]})


def _wire(record: dict[str, Any]) -> dict[str, Any]:
    return {key: rfc3339(value) if key.endswith("At") else value for key, value in record.items()}


def counting(runtime: ScriptedRuntime, **settings: Any) -> Exporter:
    described = resources()
    assert isinstance(described.records, Resource)
    records = msgspec.structs.replace(described.records, changed=ListFilter(query={"updatedSince": "{since}"}))
    described = msgspec.structs.replace(described, counts="records", records=records)
    return exporter_of(runtime, described={"resources": described}, sync={"overlap": 60.0}, **settings)


async def counts_of(exporter: Exporter, run_id: str = "run-1") -> RecordCounts | None:
    """Read, and return the counts of a run."""
    assert await exporter.refresh()
    (shown,) = [each for each in exporter.runtimes[RUNTIME].store.view.runs() if each.run.id == run_id]
    return shown.run.snapshot.records


@pytest.fixture
def runtime() -> Recorded:
    made = Recorded(Clock())
    made.put()
    return made


async def test_every_status_of_a_record_counts_into_one_state(runtime: Recorded) -> None:
    for status, many in STATUSES.items():
        for number in range(many):
            runtime.record(f"{status}-{number}", status)
    assert await counts_of(counting(runtime)) == counts(
        total=28,
        pending=1,
        running=3,
        waiting=4,
        completed=5 + 6,  # A cancelled one is finished and did not fail.
        failed=7,
    )


async def test_of_a_run_without_records_it_is_known_that_there_are_none(runtime: Recorded) -> None:
    assert await counts_of(counting(runtime)) == counts(total=0)


async def test_failed_records_are_counted_by_step_and_error_code(runtime: Recorded) -> None:
    failures = [("Send", "TIMEOUT"), ("Send", "BOUNCE"), ("Send", "BOUNCE"), ("Call", "BUSY")]
    for number, (step, code) in enumerate(failures):
        runtime.record(f"r{number}", "failed", failedStep={"name": step}, errorCode=code)
    runtime.record("fine", "completed", failedStep={"name": "Send"}, errorCode="BOUNCE")
    exporter = counting(runtime)
    await exporter.refresh()
    (shown,) = exporter.runtimes[RUNTIME].store.view.runs()
    assert shown.run.snapshot.failures == (
        FailureCount("Call", "BUSY", 1),
        FailureCount("Send", "BOUNCE", 2),
        FailureCount("Send", "TIMEOUT", 1),
    )


@pytest.mark.parametrize(
    ("of_run", "expected"), [(None, NOON - 2), (NOON - 3, NOON - 2), (NOON - 1, NOON - 1)], ids=str
)
async def test_the_last_end_of_a_record_is_the_last_progress(
    runtime: Recorded, of_run: float | None, expected: float
) -> None:
    runtime.put(lastProgressAt=of_run)
    runtime.record("first", "completed", endedAt=NOON - 4)
    runtime.record("last", "failed", endedAt=NOON - 2)
    runtime.record("without a time", "completed")
    runtime.record("not over", "running", endedAt=NOON - 0.5)
    exporter = counting(runtime)
    await exporter.refresh()
    (shown,) = exporter.runtimes[RUNTIME].store.view.runs()
    assert shown.run.last_progress_at == expected


async def test_only_changed_records_are_requested_again_and_the_others_stay_counted(runtime: Recorded) -> None:
    for number in range(3):
        runtime.record(f"r{number}", "running")
    exporter = counting(runtime)
    await exporter.refresh()
    assert runtime.listed_since() == [None]
    runtime.clock.advance(600)
    runtime.record("r0", "completed")
    assert await counts_of(exporter) == counts(total=3, running=2, completed=1)
    assert runtime.listed_since() == ["2025-11-24T15:59:00.000Z"], "noon, the time of the last list, less the overlap"
    runtime.clock.advance(600)
    assert await counts_of(exporter) == counts(total=3, running=2, completed=1)
    assert runtime.listed_since() == ["2025-11-24T16:09:00.000Z"]


async def test_a_record_that_a_whole_list_no_longer_has_is_not_counted(runtime: Recorded) -> None:
    described = msgspec.structs.replace(resources(), counts="records")
    exporter = exporter_of(runtime, described={"resources": described})
    for number in range(3):
        runtime.record(f"r{number}", "running")
    assert await counts_of(exporter) == counts(total=3, running=3)
    del runtime.records["r1"]
    runtime.clock.advance(600)
    assert await counts_of(exporter) == counts(total=2, running=2)
    assert set(runtime.listed_since()) == {None}


async def test_the_next_list_begins_at_the_first_page_of_the_last_one(runtime: Recorded) -> None:
    """What changes while later pages are read may be missing from them."""
    runtime.page_size = 1
    for number in range(3):
        runtime.record(f"r{number}", "running")
    answer = runtime.interfere

    def slow(request: httpx.Request) -> httpx.Response | None:
        response = answer(request)
        if response is not None:
            runtime.clock.advance(9)
        return response

    runtime.interfere = slow
    exporter = counting(runtime)
    await exporter.refresh()
    runtime.listed_since()
    await exporter.refresh()
    assert runtime.listed_since()[0] == "2025-11-24T15:59:00.000Z"


async def test_without_a_time_of_the_list_all_records_are_requested_each_time(runtime: Recorded) -> None:
    runtime.has_times = False
    runtime.record("r0", "running")
    runtime.record("r1", "running")
    exporter = counting(runtime)
    await exporter.refresh()
    del runtime.records["r1"]
    runtime.clock.advance(15)
    assert await counts_of(exporter) == counts(total=1, running=1)
    assert runtime.listed_since() == [None, None]


async def test_records_of_an_ended_run_are_counted_once(runtime: Recorded) -> None:
    runtime.record("r0", "running")
    exporter = counting(runtime)
    await exporter.refresh()
    runtime.clock.advance(15)
    runtime.record("r0", "completed")
    runtime.put(status="completed", endedAt=NOON + 10)
    assert await counts_of(exporter) == counts(total=1, completed=1)
    assert len(runtime.listed_since()) == 2
    runtime.put(trigger="api")  # A change that ends nothing.
    assert await counts_of(exporter) == counts(total=1, completed=1)
    assert runtime.listed_since() == []


@pytest.mark.parametrize("change", [{"status": "failed"}, {"endedAt": NOON + 12}, {"startedAt": NOON - 4}], ids=str)
async def test_records_of_a_run_that_ends_again_are_counted_again(runtime: Recorded, change: dict[str, Any]) -> None:
    runtime.record("r0", "completed")
    runtime.put(status="completed", endedAt=NOON + 10)
    exporter = counting(runtime)
    await exporter.refresh()
    runtime.clock.advance(15)
    runtime.record("r1", "failed")
    runtime.put(**change)
    assert await counts_of(exporter) == counts(total=2, completed=1, failed=1)


async def test_records_of_a_run_that_restarts_are_listed_whole(runtime: Recorded) -> None:
    runtime.record("r0", "completed")
    exporter = counting(runtime)
    await exporter.refresh()
    runtime.put(status="completed", endedAt=NOON + 10)
    await exporter.refresh()
    runtime.listed_since()
    runtime.put(status="running", endedAt=None, startedAt=NOON + 20)
    await exporter.refresh()
    assert runtime.listed_since() == [None], "what was known of the records went with the end"


async def test_records_of_a_run_that_is_gone_are_forgotten(runtime: Recorded) -> None:
    runtime.record("r0", "running")
    exporter = counting(runtime)
    await exporter.refresh()
    gone = runtime.jobs.pop("run-1")
    runtime.clock.advance(121)
    await exporter.refresh()
    await exporter.refresh()
    runtime.jobs["run-1"] = gone | {"updatedAt": runtime.clock()}
    runtime.listed_since()
    await exporter.refresh()
    assert runtime.listed_since() == [None]


async def test_a_run_whose_records_cannot_be_read_keeps_its_counts_and_the_others_are_counted(
    runtime: Recorded,
) -> None:
    runtime.put("run-2")
    runtime.record("r0", "running")
    exporter = counting(runtime)
    await exporter.refresh()
    runtime.clock.advance(15)
    runtime.record("r0", "completed")
    answer = runtime.interfere
    broken = "/jobs/run-1/records"
    runtime.interfere = lambda request: (
        httpx.Response(500) if request.url.path.endswith(broken) else answer(request)
    )  # fmt: skip
    assert await counts_of(exporter, "run-1") == counts(total=1, running=1)
    assert await counts_of(exporter, "run-2") == counts(total=1, completed=1)
    runtime.interfere = answer
    assert await counts_of(exporter, "run-1") == counts(total=1, completed=1)


def broken(runtime: Recorded, *runs: str, status: int = 500) -> None:
    """Let the records of some runs be refused."""
    paths, answer = {f"/api/v1/jobs/{run}/records" for run in runs}, runtime._records
    runtime.interfere = lambda request: (
        httpx.Response(status) if request.url.path in paths else answer(request)
    )  # fmt: skip


async def test_a_run_whose_records_cannot_be_read_loses_its_counts_when_they_are_stale(runtime: Recorded) -> None:
    runtime.put("run-2")
    runtime.record("r0", "failed", failedStep={"name": "send"})
    exporter = counting(runtime)
    assert await counts_of(exporter) == counts(total=1, failed=1)
    for _ in range(2):
        broken(runtime, "run-1")
        for _ in range(3):
            runtime.clock.advance(149)
            assert await counts_of(exporter) == (counts(total=1, failed=1))
        broken(runtime)
        assert await counts_of(exporter) == counts(total=1, failed=1)
    broken(runtime, "run-1")
    assert await counts_of(exporter) is not None
    runtime.clock.advance(300)
    assert await counts_of(exporter) is None, "what is not known is not shown as it was"
    assert await counts_of(exporter, "run-2") == counts(total=1, failed=1)
    assert (
        "spinner_run_failures{" + 'runtime="runtime.test",project="Sales",spinner="welcome",run_id="run-1"'
        not in str(await exporter.page())
    )
    broken(runtime)
    assert await counts_of(exporter) == counts(total=1, failed=1)


@pytest.mark.parametrize("status", [404, 500])
async def test_a_run_ends_although_its_records_cannot_be_read(runtime: Recorded, status: int) -> None:
    runtime.put("run-2")
    runtime.record("r0", "running")
    exporter = counting(runtime)
    await exporter.refresh()
    runtime.put(status="completed", endedAt=NOON + 10)
    broken(runtime, "run-1", status=status)
    runtime.clock.advance(15)
    assert await counts_of(exporter) == counts(total=1, running=1)
    assert (
        'spinner_run_status{runtime="runtime.test",project="Sales",spinner="welcome",run_id="run-1",status="completed"}'
        in str(await exporter.page())
    )
    runtime.record("r0", "completed")
    broken(runtime)
    runtime.clock.advance(120)
    assert await counts_of(exporter) == counts(total=1, completed=1), "they are tried again, in no list of changes too"
    runtime.listed_since()
    await exporter.refresh()
    assert len(runtime.listed_since()) == 1, "of an ended run they are counted once"


async def test_records_of_an_ended_run_that_cannot_be_read_are_tried_until_they_are_stale(runtime: Recorded) -> None:
    runtime.put("run-2", status="completed", endedAt=NOON + 10)
    broken(runtime, "run-1", "run-2", status=404)
    runtime.put(status="completed", endedAt=NOON + 10)
    exporter = counting(runtime)
    assert await counts_of(exporter) is None, (
        "a run that is not known is shown too, and what has ended takes no project down"
    )
    runtime.clock.advance(299)
    assert await counts_of(exporter) is None
    runtime.clock.advance(1)
    assert await counts_of(exporter) is None
    runtime.listed_since()
    assert await counts_of(exporter) is None
    assert runtime.listed_since() == []


async def test_a_run_whose_records_cannot_be_read_appears(runtime: Recorded) -> None:
    exporter = counting(runtime)
    await exporter.refresh()
    runtime.clock.advance(15)
    runtime.put("run-2")
    broken(runtime, "run-2")
    assert await counts_of(exporter, "run-2") is None


async def test_a_project_none_of_whose_records_that_are_due_can_be_read_is_down_and_goes_on(runtime: Recorded) -> None:
    runtime.record("r0", "running")
    runtime.put("run-2", status="completed", endedAt=NOON + 10)
    exporter = counting(runtime)
    assert await counts_of(exporter) == counts(total=1, running=1)
    broken(runtime, "run-1", "run-2")
    runtime.clock.advance(15)
    runtime.put("run-2", trigger="api")
    assert not await exporter.refresh(), "the other run has been counted, and needs no request"
    page = str(await exporter.page())
    assert 'spinner_project_up{runtime="runtime.test",project="Sales"} 0' in page
    runtime.put(status="completed", endedAt=NOON + 15)
    await exporter.refresh()
    assert 'run_id="run-1",status="completed"} 1' in str(await exporter.page())


async def test_a_project_without_runs_is_up(runtime: Recorded) -> None:
    runtime.jobs.clear()
    exporter = counting(runtime)
    for _ in range(2):
        assert await exporter.refresh()


async def test_runs_of_many_short_pages_take_no_room_either(runtime: Recorded) -> None:
    runtime.page_size = 1
    end = NOON - 2 * 86400
    for number in range(100):
        runtime.put(f"ended-{number}", status="completed", startedAt=end - 5, endedAt=end, updated_at=end)
    rarely = SpinnerConfig(re.compile("Sales"), re.compile("welcome"), expected_interval=Duration(7 * 86400))
    exporter = counting(runtime, limits=LimitsConfig(read_bytes=40 * LEAST_PER_ITEM), spinners=(rarely,))
    with structlog.testing.capture_logs() as lines:
        assert await exporter.refresh()
    assert lines == []


async def test_a_project_none_of_whose_records_can_be_read_is_down(runtime: Recorded) -> None:
    runtime.interfere = lambda request: httpx.Response(500) if request.url.path.endswith("/records") else None
    exporter = counting(runtime)
    with structlog.testing.capture_logs() as lines:
        assert not await exporter.refresh()
    assert {(line["what"], line["error"]) for line in lines} == {
        ("project", "records: HTTP 500"),
        ("records", "records: HTTP 500"),
    }
    assert 'spinner_project_up{runtime="runtime.test",project="Sales"} 0' in str(await exporter.page())


async def test_a_list_of_records_from_long_ago_does_not_move_back_what_is_asked_for(runtime: Recorded) -> None:
    runtime.record("a", "running")
    exporter = counting(runtime)
    await counts_of(exporter)
    current = runtime.interfere

    def by_a_clock_that_is_behind(request: httpx.Request) -> httpx.Response | None:
        response = current(request)
        if response is None:
            return None
        return httpx.Response(200, json=response.json() | {"asOf": rfc3339(runtime.clock() - 3600)})

    runtime.clock.advance(30)
    runtime.put()
    runtime.interfere = by_a_clock_that_is_behind
    await counts_of(exporter)
    runtime.clock.advance(30)
    runtime.put()
    runtime.interfere = current
    runtime.listed_since()
    await counts_of(exporter)
    (since,) = runtime.listed_since()
    assert since is not None
    assert datetime.fromisoformat(since).timestamp() == NOON - 60, "from the time of the first list, less the overlap"


async def test_what_changes_after_the_runtime_s_clock_was_set_back_is_counted(runtime: Recorded) -> None:
    own = Clock()
    runtime.record("a", "running")
    exporter = counting(runtime, clock=own)
    await counts_of(exporter)
    runtime.clock.advance(-3600)
    runtime.record("a", "completed")
    for _ in range(3):
        for clock in (own, runtime.clock):
            clock.advance(200)
        runtime.put()
        found = await counts_of(exporter)
    assert found == counts(total=1, completed=1)


async def test_records_that_take_too_much_memory_are_not_counted(runtime: Recorded) -> None:
    for number in range(30):
        runtime.record(f"r{number}", "running")
    exporter = counting(runtime, limits=LimitsConfig(read_bytes=20 * LEAST_PER_ITEM))
    with structlog.testing.capture_logs() as lines:
        assert not await exporter.refresh()
    assert {line["error"] for line in lines} == {"records: what is read takes more than limits.read_bytes (10,000)"}


async def test_a_project_that_is_removed_holds_no_records_any_more(runtime: Recorded) -> None:
    """What it held would count against `limits.read_bytes` for ever, and make other reads fail."""
    runtime.record("r0", "running")
    exporter = counting(runtime)
    await exporter.refresh()
    monitored = exporter.runtimes[RUNTIME]
    assert monitored.client.held.total > 0
    monitored._sync._project_sync.drop("p1")
    assert monitored.client.held.total == 0


async def test_records_that_are_kept_make_room_for_another_read_and_are_listed_again(runtime: Recorded) -> None:
    for number in range(30):
        runtime.record(f"r{number}", "running")
    exporter = counting(runtime, limits=LimitsConfig(read_bytes=40 * LEAST_PER_ITEM))
    held = exporter.runtimes[RUNTIME].client.held
    # So that the next list, which begins before the end of this one, has none of them.
    runtime.clock.advance(100)
    await exporter.refresh()
    for needed, lists_all in ((5 * LEAST_PER_ITEM, False), (20 * LEAST_PER_ITEM, True)):
        runtime.clock.advance(100)
        with held.open("another read") as other:
            other.add(needed)
        runtime.listed_since()
        assert await counts_of(exporter) == counts(total=30, running=30)
        assert [since is None for since in runtime.listed_since()] == [lists_all]


@pytest.mark.parametrize(("ago", "fits"), [(600, False), (2 * 86400, True)])
async def test_runs_that_ended_long_ago_take_no_room_while_others_wait_for_their_records(
    runtime: Recorded, each_way: bool, ago: float, fits: bool
) -> None:
    """A first read reaches back so far because a spinner is expected to run rarely."""
    runtime.page_size = 10
    for number in range(60):
        end = NOON - ago
        runtime.put(f"ended-{number}", status="completed", startedAt=end - 5, endedAt=end, updated_at=end)
    rarely = SpinnerConfig(re.compile("Sales"), re.compile("welcome"), expected_interval=Duration(7 * 86400))
    exporter = counting(runtime, limits=LimitsConfig(read_bytes=40 * LEAST_PER_ITEM), spinners=(rarely,))
    with structlog.testing.capture_logs() as lines:
        assert await exporter.refresh() == fits
    # The project's own list is read instead of a list of all that takes too much.
    assert ("/api/v1/projects/p1/jobs" in runtime.paths()) == (not each_way or not fits)
    too_much = "jobs: what is read takes more than limits.read_bytes (20,000)"
    assert [line["error"] for line in lines] == ([] if fits else [too_much])
