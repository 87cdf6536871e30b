"""The failed records of all runs from one list: what is requested, and of which runs it is believed."""

from datetime import datetime
from typing import Any

import httpx
import msgspec
import pytest
import structlog

from exporter.config import LimitsConfig, ProjectsConfig
from exporter.config.api_description import ListFilter, Resource
from exporter.service import Exporter
from exporter.sync import availability, common_records
from tests.builders import NOON, RUNTIME, Clock, resources
from tests.scripted import ScriptedRuntime, exporter_of, rfc3339

ALL = "/api/v1/records"


OLD: dict[str, Any] = {"createdAt": NOON - 9000, "startedAt": NOON - 9000}
"""Fields of a run that began so long ago that its failed records may be old."""


def runtime_of(runs: int = 5, *, lists: bool = True, **fields: Any) -> ScriptedRuntime:
    """A runtime with open runs of which nothing has failed."""
    runtime = ScriptedRuntime(Clock())
    runtime.lists_all_runs = lists
    for number in range(runs):
        runtime.put(f"run-{number}", records={"total": 100, "completed": 1, "failed": 0}, **fields)
    return runtime


def fail(runtime: ScriptedRuntime, run: str, *ids: str, at: float | None = None, **fields: Any) -> None:
    """Let records of a run fail now."""
    ended_at = rfc3339(runtime.clock() if at is None else at)
    records = runtime.failed_records.setdefault(run, [])
    records += [{"id": each, "status": "failed", "endedAt": ended_at, "failedStep": {"name": "Mail"}} for each in ids]
    runtime.put(run, records={"total": 100, "completed": 1, "failed": len(records)}, **fields)


async def after_failures_of_two_runs(**settings: Any) -> tuple[ScriptedRuntime, Exporter]:
    """A runtime of which two runs have two failed records each, and an exporter that knows them."""
    runtime = runtime_of()
    exporter = exporter_of(runtime, **settings)
    await scrape(exporter, runtime)
    for run in ("run-0", "run-1"):
        fail(runtime, run, f"a-{run}", f"b-{run}")
    await scrape(exporter, runtime, 600)
    return runtime, exporter


def recover(runtime: ScriptedRuntime, run: str, record: str) -> None:
    """Let a failed record succeed after all."""
    left = [each for each in runtime.failed_records[run] if each["id"] != record]
    runtime.failed_records[run] = left
    runtime.put(run, records={"total": 100, "completed": 1, "failed": len(left)})


async def scrape(exporter: Exporter, runtime: ScriptedRuntime, seconds: float = 15.0) -> list[str]:
    """Let time pass and scrape; return the requests for failed records."""
    runtime.clock.advance(seconds)
    runtime.requests.clear()
    await exporter.page()
    failed = [each for each in runtime.requests if each.url.params.get("status") == "failed"]
    return [each.url.path.removeprefix("/api/v1") for each in failed]


def shown(exporter: Exporter) -> dict[str, set[str]]:
    """Return the failed records that are shown, by run."""
    runs = exporter.runtimes[RUNTIME].store.view.runs()
    return {each.run.id: {record.id for record in each.run.failed_records} for each in runs if each.run.failed_records}


def truth(runtime: ScriptedRuntime) -> dict[str, set[str]]:
    return {run: {each["id"] for each in records} for run, records in runtime.failed_records.items() if records}


# -- what is requested ------------------------------------------------------------------------------------------


async def test_new_failures_of_many_runs_are_one_request() -> None:
    runtime = runtime_of(60)
    exporter = exporter_of(runtime)
    assert await scrape(exporter, runtime) == []
    for number in range(60):
        fail(runtime, f"run-{number}", f"a{number}", f"b{number}")
    assert await scrape(exporter, runtime) == ["/records"]
    assert shown(exporter) == truth(runtime)
    for number in range(50):
        fail(runtime, f"run-{number}", f"c{number}")
    assert await scrape(exporter, runtime) == ["/records"], "those of the last scrape are listed again"
    assert shown(exporter) == truth(runtime)
    assert await scrape(exporter, runtime) == []


async def test_those_of_a_single_run_are_requested_by_themselves_and_known_to_the_next_list() -> None:
    runtime = runtime_of()
    exporter = exporter_of(runtime)
    await scrape(exporter, runtime)
    fail(runtime, "run-0", "a", "b")
    assert await scrape(exporter, runtime) == ["/jobs/run-0/records"]
    for run in ("run-0", "run-1"):
        fail(runtime, run, f"later-{run}")
    assert await scrape(exporter, runtime) == ["/records"]
    assert shown(exporter) == truth(runtime)


async def test_the_first_list_has_the_runs_of_the_last_hour_and_older_ones_are_read_by_themselves() -> None:
    runtime = runtime_of(20)
    for number in range(20):
        fail(runtime, f"run-{number}", f"a{number}")
    runtime.put("old", **OLD)
    fail(runtime, "old", "long-ago", at=NOON - 8000)
    exporter = exporter_of(runtime)
    assert await scrape(exporter, runtime) == ["/records", "/jobs/old/records"]
    assert shown(exporter) == truth(runtime)
    assert await scrape(exporter, runtime) == []


@pytest.mark.parametrize("runs", [10, 11])
async def test_from_how_many_runs_on_that_may_be_old_one_list_is_cheaper(runs: int) -> None:
    runtime = runtime_of(runs)
    for number in range(runs):
        fail(runtime, f"run-{number}", f"a{number}")
    exporter = exporter_of(runtime)
    assert len(await scrape(exporter, runtime)) == (1 if runs > 10 else runs)
    assert shown(exporter) == truth(runtime)


async def test_more_than_are_shown_of_an_old_run_need_no_request_of_its_own() -> None:
    runtime = runtime_of(20, **OLD)
    for number in range(20):
        fail(runtime, f"run-{number}", f"long-ago-{number}", at=NOON - 8000)
        fail(runtime, f"run-{number}", f"a{number}", f"b{number}")
    exporter = exporter_of(runtime, limits=LimitsConfig(failed_records_per_run=2))
    assert await scrape(exporter, runtime) == ["/records"]
    assert shown(exporter) == {f"run-{number}": {f"a{number}", f"b{number}"} for number in range(20)}
    assert await scrape(exporter, runtime) == [], "three are known, and not two"


async def test_as_many_as_are_shown_need_no_request_of_their_run_although_the_list_lacks_an_older_one() -> None:
    runtime = runtime_of(2, **OLD)
    exporter = exporter_of(runtime, limits=LimitsConfig(failed_records_per_run=2))
    await scrape(exporter, runtime)
    for number in range(2):
        fail(runtime, f"run-{number}", f"a{number}")
    await scrape(exporter, runtime)
    await scrape(exporter, runtime, 600)
    for number in range(2):
        fail(runtime, f"run-{number}", f"long-ago-{number}", at=NOON - 8000)
        fail(runtime, f"run-{number}", f"b{number}", f"c{number}")
    assert await scrape(exporter, runtime) == ["/records"]
    assert shown(exporter) == {f"run-{number}": {f"b{number}", f"c{number}"} for number in range(2)}


async def test_after_an_outage_that_is_longer_than_the_retention_one_list_has_all_that_failed_in_it() -> None:
    runtime = runtime_of(20, **OLD)
    exporter = exporter_of(runtime)
    await scrape(exporter, runtime)
    for number in range(20):
        fail(runtime, f"run-{number}", f"a{number}", at=NOON + 60)
    assert await scrape(exporter, runtime, 7200) == ["/records"]
    assert shown(exporter) == truth(runtime)


@pytest.mark.parametrize("runs", [3, 4])
async def test_a_list_that_is_longer_than_what_it_saves_is_left_and_tried_again_later(runs: int) -> None:
    runtime = runtime_of()
    exporter = exporter_of(runtime)
    await scrape(exporter, runtime)
    runtime.page_size = 2
    for number in range(5):
        fail(runtime, f"run-{number}", *(f"{each}-{number}" for each in "abcdef"))
    requests = await scrape(exporter, runtime)
    assert requests[:5] == ["/records"] * 5
    assert requests.count("/records") == 5, "for 5 runs 5 pages are worth a try"
    runtime.page_size = 500
    asked = []
    for round_number in range(3):
        for number in range(runs):
            fail(runtime, f"run-{number}", f"{round_number}-{number}")
        asked.append(await scrape(exporter, runtime, 600))
    single = [f"/jobs/run-{number}/records" for number in range(runs)]
    assert [sorted(each) for each in asked] == [single, single, ["/records"]], "10 pages, 5, and then 2 are expected"
    assert shown(exporter).keys() == truth(runtime).keys()


async def test_after_a_long_list_few_runs_are_read_by_themselves_until_a_shorter_one_is_expected() -> None:
    runtime = runtime_of(40)
    runtime.page_size = 4
    exporter = exporter_of(runtime)
    await scrape(exporter, runtime)
    for number in range(40):
        fail(runtime, f"run-{number}", f"a{number}")
    assert await scrape(exporter, runtime) == ["/records"] * 10
    runtime.page_size = 500
    asked = []
    for name in "bc":
        for number in range(10):
            fail(runtime, f"run-{number}", f"{name}{number}")
        asked.append(sorted(await scrape(exporter, runtime, 600)))
    assert asked == [[f"/jobs/run-{number}/records" for number in range(10)], ["/records"]]


async def test_a_list_that_reaches_far_back_and_is_too_long_is_not_tried_again_for_ten_minutes() -> None:
    runtime = runtime_of(0)
    exporter = exporter_of(runtime)
    await scrape(exporter, runtime)

    async def read_old_runs(name: str, *ids: str, after: float) -> list[str]:
        """Let runs appear that began long ago, and scrape."""
        for number in range(12):
            runtime.put(f"{name}-{number}", **OLD)
            fail(runtime, f"{name}-{number}", *(f"{each}-{name}-{number}" for each in ids))
        requests = await scrape(exporter, runtime, after)
        assert shown(exporter) == truth(runtime)
        return requests

    runtime.page_size = 1
    assert (await read_old_runs("first", "a", "b", after=15)).count("/records") == 12
    runtime.page_size = 500
    assert "/records" not in await read_old_runs("second", "a", after=599)
    assert await read_old_runs("third", "a", after=1) == ["/records"]


async def test_what_is_known_but_not_shown_does_not_count_again_in_a_list_that_reaches_far_back() -> None:
    runtime = runtime_of(1, **OLD)
    exporter = exporter_of(runtime, limits=LimitsConfig(failed_records_per_run=1))
    await scrape(exporter, runtime)
    fail(runtime, "run-0", "a", "b")
    assert await scrape(exporter, runtime) == ["/jobs/run-0/records"]
    assert await scrape(exporter, runtime, 600) == []
    for number in range(12):
        runtime.put(f"old-{number}", **OLD)
        fail(runtime, f"old-{number}", f"a{number}")
    fail(runtime, "run-0", "c")
    assert await scrape(exporter, runtime) == ["/records"]
    assert shown(exporter)["run-0"] == {"c"}
    assert await scrape(exporter, runtime) == [], "three are known, and not four"


async def test_what_was_read_of_a_run_by_itself_and_is_not_shown_does_not_count_again_in_the_next_list() -> None:
    runtime = runtime_of(2, **OLD)
    exporter = exporter_of(runtime, limits=LimitsConfig(failed_records_per_run=1))
    await scrape(exporter, runtime)
    # The first of them when the next list begins: the overlap before the next scrape.
    fail(runtime, "run-0", "a", at=NOON + 30 - 120)
    fail(runtime, "run-0", "b")
    assert await scrape(exporter, runtime) == ["/jobs/run-0/records"]
    for run in ("run-0", "run-1"):
        fail(runtime, run, f"later-{run}")
    assert await scrape(exporter, runtime) == ["/records"]
    assert shown(exporter) == {"run-0": {"later-run-0"}, "run-1": {"later-run-1"}}
    assert await scrape(exporter, runtime) == [], "three are known, and not four"


async def test_of_very_many_records_it_is_not_noted_that_they_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common_records, "MAX_SEEN", 2)
    runtime = runtime_of()
    exporter = exporter_of(runtime)
    await scrape(exporter, runtime)
    seen = []
    for ids in ("a", "bc"):
        for run in ("run-0", "run-1"):
            fail(runtime, run, *(f"{each}-{run}" for each in ids))
        await scrape(exporter, runtime)
        seen.append(sum(map(len, exporter.runtimes[RUNTIME]._sync.common_records._seen.values())))
        assert shown(exporter) == truth(runtime)
    assert seen == [2, 0]


# -- when the list is believed ----------------------------------------------------------------------------------


async def test_a_record_that_has_not_failed_after_all_leaves() -> None:
    runtime, exporter = await after_failures_of_two_runs()
    recover(runtime, "run-0", "a-run-0")
    fail(runtime, "run-1", "c")
    assert await scrape(exporter, runtime, 600) == ["/records", "/jobs/run-0/records"]
    assert shown(exporter) == truth(runtime)


async def test_a_record_that_leaves_while_others_fail_is_found_by_the_next_scrape() -> None:
    runtime, exporter = await after_failures_of_two_runs()
    recover(runtime, "run-0", "a-run-0")
    for run in ("run-0", "run-1"):
        fail(runtime, run, f"c-{run}", f"d-{run}")
    assert await scrape(exporter, runtime, 600) == ["/records"], "the list may be newer than the count"
    assert await scrape(exporter, runtime) == ["/jobs/run-0/records"]
    assert shown(exporter) == truth(runtime)


def replace(runtime: ScriptedRuntime, run: str, before: str, after: str, **fields: Any) -> None:
    """Let a failed record succeed after all while another one fails, so that their number stays."""
    kept = [each for each in runtime.failed_records[run] if each["id"] != before]
    failed = {"id": after, "status": "failed", "endedAt": rfc3339(runtime.clock()), "failedStep": {"name": "Call"}}
    runtime.failed_records[run] = [*kept, failed]
    runtime.put(run, records={"total": 100, "completed": 2, "failed": len(kept) + 1}, **fields)


@pytest.mark.parametrize("lists", [False, True])
async def test_other_groups_of_failures_show_that_other_records_failed(lists: bool) -> None:
    runtime = runtime_of(lists=lists)
    exporter = exporter_of(runtime)
    groups = [{"step": "Mail", "count": 1}, {"step": "Post", "count": 1}]
    fail(runtime, "run-0", "a", "b", failures=groups)
    await scrape(exporter, runtime)
    runtime.put("run-0", failures=groups[::-1])
    assert await scrape(exporter, runtime) == [], "their order says nothing"
    replace(runtime, "run-0", "a", "c", failures=[{"step": "Call", "count": 1}, groups[1]])
    assert await scrape(exporter, runtime) == ["/jobs/run-0/records"]
    assert shown(exporter) == truth(runtime)
    assert await scrape(exporter, runtime) == []


@pytest.mark.parametrize("lists", [False, True])
async def test_after_the_end_it_is_looked_once_whether_other_records_failed(lists: bool) -> None:
    runtime = runtime_of(lists=lists)
    exporter = exporter_of(runtime)
    for run in ("run-0", "run-1", "run-2"):
        fail(runtime, run, f"a-{run}", f"b-{run}")
    await scrape(exporter, runtime)
    for run in ("run-0", "run-1"):
        replace(runtime, run, f"a-{run}", f"c-{run}")
    assert await scrape(exporter, runtime) == [], "nothing shows it while it goes on"
    runtime.clock.advance(600)
    ended: dict[str, Any] = {"status": "completed", "endedAt": runtime.clock()}
    runtime.put("run-0", **ended)
    runtime.put("run-2", **ended)
    assert await scrape(exporter, runtime) == ["/jobs/run-0/records"], "of run-2 no record was completed since"
    assert shown(exporter)["run-0"] == truth(runtime)["run-0"]
    runtime.put("run-0", trigger="api")
    assert await scrape(exporter, runtime) == []
    runtime.put("run-1", **ended)
    fail(runtime, "run-1", "d")
    assert len(await scrape(exporter, runtime)) == 1, "one request for a count that changes and an end"


async def test_a_list_of_what_failed_lately_does_not_show_what_failed_before_the_end() -> None:
    runtime, exporter = await after_failures_of_two_runs()
    replace(runtime, "run-0", "a-run-0", "c")
    assert await scrape(exporter, runtime) == []
    runtime.clock.advance(600)
    runtime.put("run-0", status="completed", endedAt=runtime.clock())
    fail(runtime, "run-1", "d")
    assert await scrape(exporter, runtime) == ["/records", "/jobs/run-0/records"]
    assert shown(exporter) == truth(runtime)


async def test_of_many_runs_that_end_it_is_looked_in_one_list() -> None:
    runtime = runtime_of(60)
    exporter = exporter_of(runtime)
    for number in range(60):
        fail(runtime, f"run-{number}", f"a{number}", f"b{number}")
    await scrape(exporter, runtime)
    runtime.clock.advance(1200)
    for number in range(60):
        replace(runtime, f"run-{number}", f"a{number}", f"c{number}")
    await scrape(exporter, runtime)
    runtime.clock.advance(1200)
    for number in range(60):
        runtime.put(f"run-{number}", status="completed", endedAt=runtime.clock())
    assert await scrape(exporter, runtime) == ["/records"]
    assert shown(exporter) == truth(runtime)
    assert await scrape(exporter, runtime) == []


async def test_failed_records_of_a_run_whose_counts_are_lost_are_not_shown_as_they_were() -> None:
    runtime = runtime_of()
    exporter = exporter_of(runtime)
    fail(runtime, "run-0", "a")
    await scrape(exporter, runtime)
    runtime.put("run-0", records=None)
    await scrape(exporter, runtime)
    assert shown(exporter) == {}


async def test_new_failures_of_many_runs_that_are_known_are_asked_for_since_the_last_list() -> None:
    """However long ago the runs began."""
    runtime = runtime_of(20, **OLD)
    exporter = exporter_of(runtime)
    await scrape(exporter, runtime)
    starts = []
    for name in "abc":
        for number in range(20):
            fail(runtime, f"run-{number}", f"{name}{number}")
        assert await scrape(exporter, runtime) == ["/records"]
        listing = runtime.only_request(ALL)
        starts.append(NOON - datetime.fromisoformat(listing.url.params["updatedSince"]).timestamp())
    assert starts[0] > 3000, "of runs of which none had failed yet, records may be old"
    assert starts[1:] == [90, 75], "the overlap before the last scrape"
    assert shown(exporter) == truth(runtime)


@pytest.mark.parametrize("seconds", [15, 600])
async def test_a_list_that_is_newer_than_the_counts_costs_no_other_request(seconds: float) -> None:
    runtime = runtime_of()
    exporter = exporter_of(runtime)
    for run in ("run-0", "run-1"):
        fail(runtime, run, f"long-ago-{run}")
    await scrape(exporter, runtime)
    await scrape(exporter, runtime, seconds)
    for run in ("run-0", "run-1"):
        fail(runtime, run, f"a-{run}")

    def fails_meanwhile(request: httpx.Request) -> httpx.Response | None:
        if request.url.path == ALL:
            runtime.interfere = lambda request: None
            fail(runtime, "run-0", "b")
        return None

    runtime.interfere = fails_meanwhile
    assert await scrape(exporter, runtime) == ["/records"]
    assert await scrape(exporter, runtime) == []
    assert shown(exporter) == truth(runtime)


async def test_a_run_of_which_the_list_lacks_a_record_is_read_by_itself() -> None:
    runtime = runtime_of()
    exporter = exporter_of(runtime)
    await scrape(exporter, runtime)
    for run in ("run-0", "run-1"):
        fail(runtime, run, f"a-{run}", f"b-{run}")
    lacking = runtime.failed_records["run-1"].pop()
    answer = httpx.Response(
        200,
        json={"items": runtime.all_failed_records(httpx.QueryParams(updatedSince=rfc3339(NOON))), "nextCursor": None},
    )
    runtime.failed_records["run-1"].append(lacking)
    runtime.interfere = lambda request: answer if request.url.path == ALL else None
    assert await scrape(exporter, runtime) == ["/records", "/jobs/run-1/records"]
    assert shown(exporter) == truth(runtime)


@pytest.mark.parametrize(("many", "requests"), [(2, 1), (5, 2)])
async def test_after_a_list_that_was_cut_the_next_ones_show_which_records_failed(many: int, requests: int) -> None:
    """Records were replaced by others in the meantime, so their number was as before."""
    runtime = runtime_of()
    exporter = exporter_of(runtime, limits=LimitsConfig(failed_record_requests=requests))
    await scrape(exporter, runtime)
    runs = [f"run-{number}" for number in range(many)]
    for run in runs:
        fail(runtime, run, f"a-{run}", f"b-{run}", failures=[{"step": "Mail", "count": 2}])
    assert await scrape(exporter, runtime, 600) == ["/records"]
    assert shown(exporter) == truth(runtime)
    runtime.page_size = 1
    runtime.clock.advance(600)
    for run in runs:
        replace(runtime, run, f"a-{run}", f"c-{run}", failures=[{"step": "Call", "count": 2}])
    assert await scrape(exporter, runtime, 600) == ["/records"] * requests
    runtime.page_size = 500
    runtime.clock.advance(600)
    for run in runs:
        fail(runtime, run, f"d-{run}")
    for _ in range(8):
        await scrape(exporter, runtime)
    assert shown(exporter) == truth(runtime)


async def test_what_was_trimmed_is_read_again() -> None:
    runtime = runtime_of()
    exporter = exporter_of(runtime, limits=LimitsConfig(failed_records=4, failed_records_per_run=3))
    await scrape(exporter, runtime)
    for run in ("run-0", "run-1"):
        fail(runtime, run, *(f"{each}-{run}" for each in "abc"))
    await scrape(exporter, runtime, 600)
    assert sum(map(len, shown(exporter).values())) == 4
    runtime.clock.advance(600)
    for run in ("run-0", "run-1"):
        fail(runtime, run, f"d-{run}")
    requests = await scrape(exporter, runtime)
    assert requests[0] == "/records"
    assert len(requests) == 2, "of the other one everything is known"
    assert sum(map(len, shown(exporter).values())) == 4


async def test_records_of_other_runs_and_projects_are_left_out() -> None:
    runtime = runtime_of()
    runtime.projects["p2"] = "Other"
    exporter = exporter_of(runtime, projects=ProjectsConfig(on_probe=False))
    await scrape(exporter, runtime)
    for run in ("run-0", "run-1"):
        fail(runtime, run, f"a-{run}")
    answer = httpx.Response(
        200,
        json={
            "items": [
                *runtime.all_failed_records(httpx.QueryParams(updatedSince=rfc3339(NOON))),
                {"id": "x", "jobId": "unknown", "projectId": "p1", "endedAt": rfc3339(runtime.clock())},
                {"id": "y", "jobId": "run-0", "projectId": "p2", "endedAt": rfc3339(runtime.clock())},
                {"id": "z", "jobId": "run-0", "projectId": "nowhere", "endedAt": rfc3339(runtime.clock())},
                {"id": "without a run", "projectId": "p1"},
            ],
            "nextCursor": None,
        },
    )
    runtime.interfere = lambda request: answer if request.url.path == ALL else None
    assert await scrape(exporter, runtime) == ["/records"]
    assert shown(exporter) == truth(runtime)


async def test_a_restart_reads_nothing_twice_and_goes_on(tmp_path: Any) -> None:
    runtime = runtime_of()
    exporter = exporter_of(runtime, storage=tmp_path)
    await scrape(exporter, runtime)
    for run in ("run-0", "run-1", "run-2"):
        fail(runtime, run, f"a-{run}", f"b-{run}")
    await scrape(exporter, runtime)
    await exporter.close()
    fail(runtime, "run-0", "meanwhile")
    exporter = exporter_of(runtime, storage=tmp_path)
    assert await scrape(exporter, runtime) == ["/jobs/run-0/records"]
    for run in ("run-0", "run-1", "run-2"):
        fail(runtime, run, f"c-{run}")
    assert await scrape(exporter, runtime) == ["/records"]
    assert shown(exporter) == truth(runtime)
    await exporter.close()


# -- pages and limits -------------------------------------------------------------------------------------------


async def test_its_pages_are_read_within_the_budget_and_a_list_that_is_cut_settles_nothing() -> None:
    runtime = runtime_of(30)
    runtime.page_size = 4
    exporter = exporter_of(runtime, limits=LimitsConfig(failed_record_requests=10))
    await scrape(exporter, runtime)
    for number in range(30):
        fail(runtime, f"run-{number}", f"a{number}")
    assert await scrape(exporter, runtime) == ["/records"] * 8
    assert shown(exporter) == truth(runtime)
    for number in range(30):
        fail(runtime, f"run-{number}", f"b{number}", f"c{number}")
    assert await scrape(exporter, runtime, 600) == ["/records"] * 10
    assert all(records == {f"a{run.removeprefix('run-')}"} for run, records in shown(exporter).items())
    for _ in range(6):
        await scrape(exporter, runtime)
    assert shown(exporter) == truth(runtime)


async def test_a_list_that_takes_the_whole_budget_leaves_the_next_one_to_the_runs_that_it_does_not_settle() -> None:
    runtime, exporter = await after_failures_of_two_runs(limits=LimitsConfig(failed_record_requests=1))
    assert shown(exporter) == truth(runtime)
    for run in ("run-0", "run-1"):
        recover(runtime, run, f"a-{run}")
    requested = [await scrape(exporter, runtime) for _ in range(5)]
    assert shown(exporter) == truth(runtime)
    single = [[f"/jobs/run-{number}/records"] for number in (0, 1)]
    assert requested in ([["/records"], one, other, [], []] for one, other in (single, single[::-1]))


async def test_a_list_that_takes_too_much_memory_is_not_read() -> None:
    runtime = runtime_of(4)
    exporter = exporter_of(runtime, limits=LimitsConfig(read_bytes=30_000))
    await scrape(exporter, runtime)
    for number in range(4):
        fail(runtime, f"run-{number}", *(f"{number}-{each}" for each in range(20)))
    requests = await scrape(exporter, runtime)
    assert requests[0] == "/records"
    assert len(requests) == 5
    assert {run: len(records) for run, records in shown(exporter).items()} == dict.fromkeys(runtime.failed_records, 10)


async def test_records_of_other_runs_take_no_memory() -> None:
    runtime = runtime_of(4)
    exporter = exporter_of(runtime, limits=LimitsConfig(read_bytes=30_000))
    await scrape(exporter, runtime)
    for number in range(4):
        fail(runtime, f"run-{number}", f"a{number}")
    own = runtime.all_failed_records(httpx.QueryParams(updatedSince=rfc3339(NOON)))
    others = [{"id": f"x{number}", "jobId": "unknown", "projectId": "p1"} for number in range(100)]
    answer = httpx.Response(200, json={"items": [*own, *others], "nextCursor": None})
    runtime.interfere = lambda request: answer if request.url.path == ALL else None
    assert await scrape(exporter, runtime) == ["/records"]
    assert shown(exporter) == truth(runtime)


# -- whether the runtime has it ---------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [404, 405, 400, 500])
async def test_without_the_list_each_run_is_read_and_it_is_asked_for_again_after_a_while(status: int) -> None:
    runtime = runtime_of()
    exporter = exporter_of(runtime)
    await scrape(exporter, runtime)
    runtime.interfere = lambda request: httpx.Response(status) if request.url.path == ALL else None
    with structlog.testing.capture_logs() as lines:
        for turn in range(2):
            for run in ("run-0", "run-1"):
                fail(runtime, run, f"{turn}-{run}")
            requests = await scrape(exporter, runtime)
            assert sorted(requests) == ["/jobs/run-0/records", "/jobs/run-1/records"] + ["/records"] * (turn == 0)
            assert shown(exporter) == truth(runtime)
    assert lines == [], "a runtime of the old contract is no problem"
    runtime.interfere = lambda request: None
    await scrape(exporter, runtime, availability.RETRY_AFTER)
    for run in ("run-0", "run-1"):
        fail(runtime, run, f"later-{run}")
    assert await scrape(exporter, runtime) == ["/records"], "it was upgraded"
    assert shown(exporter) == truth(runtime)


async def test_when_the_list_fails_runs_keep_what_they_show_and_nothing_is_lost() -> None:
    runtime = runtime_of()
    exporter = exporter_of(runtime)
    await scrape(exporter, runtime)
    for run in ("run-0", "run-1"):
        fail(runtime, run, f"a-{run}")
    await scrape(exporter, runtime)
    before = truth(runtime)
    runtime.interfere = lambda request: httpx.Response(503) if request.url.path == ALL else None
    for run in ("run-0", "run-1"):
        fail(runtime, run, f"b-{run}")
    with structlog.testing.capture_logs() as lines:
        for _ in range(availability.MAX_FAILURES - 1):
            assert await scrape(exporter, runtime, 200) == ["/records"]
            assert shown(exporter) == before
        runtime.interfere = lambda request: None
        assert await scrape(exporter, runtime, 200) == ["/records"]
    assert shown(exporter) == truth(runtime)
    of_all = "failed records of all runs"
    assert [(line["event"], line["what"]) for line in lines] == [("cannot read", of_all), ("recovered", of_all)]


async def test_a_probe_reads_the_runs_of_its_project_by_themselves() -> None:
    runtime = runtime_of()
    exporter = exporter_of(runtime, projects=ProjectsConfig(on_probe=True))
    await exporter.probe(RUNTIME, "p1")
    for number in range(5):
        fail(runtime, f"run-{number}", f"a{number}")
    runtime.clock.advance(15)
    runtime.requests.clear()
    page = str(await exporter.probe(RUNTIME, "p1"))
    assert page.count("spinner_run_failed_record_info{") == 5
    assert ALL not in runtime.paths()


# -- other descriptions -----------------------------------------------------------------------------------------


def only_common(**changes: Any) -> dict[str, Any]:
    """A description whose list of records is one of all runs."""
    described = resources()
    assert isinstance(described.records, Resource)
    changed = ListFilter(query={"updatedSince": "{since}"})
    records = msgspec.structs.replace(
        described.records, path=ALL, across=None, across_changed=None, changed=changed, **changes
    )
    return {"resources": msgspec.structs.replace(described, records=records)}


@pytest.mark.parametrize("fields", [{}, {"id": "id", "jobId": "jobId", "endedAt": "endedAt"}])
async def test_a_list_that_is_described_as_one_of_all_runs_is_read_alone(fields: dict[str, Any]) -> None:
    runtime = runtime_of()
    runtime.put("old", **OLD)
    fail(runtime, "old", "long-ago", at=NOON - 8000)
    exporter = exporter_of(runtime, described=only_common(fields=fields))
    assert await scrape(exporter, runtime) == ["/records"]
    assert shown(exporter) == truth(runtime)
    fail(runtime, "old", "a")
    assert await scrape(exporter, runtime) == ["/records"]
    assert shown(exporter) == truth(runtime)
    runtime.clock.advance(600)
    recover(runtime, "old", "long-ago")
    for _ in range(2):
        assert await scrape(exporter, runtime) == ["/records"]
    assert shown(exporter) == truth(runtime)
    assert await scrape(exporter, runtime) == []


async def test_a_list_that_is_read_alone_is_read_in_each_scrape_although_it_takes_the_whole_budget() -> None:
    runtime = runtime_of()
    exporter = exporter_of(runtime, described=only_common(), limits=LimitsConfig(failed_record_requests=1))
    runtime.put("old", **OLD)
    fail(runtime, "old", "a", "b")
    await scrape(exporter, runtime)
    runtime.clock.advance(600)
    recover(runtime, "old", "a")
    assert [await scrape(exporter, runtime) for _ in range(2)] == [["/records"]] * 2
    assert shown(exporter) == truth(runtime)


async def test_a_record_that_names_no_project_belongs_to_no_run_if_two_have_its_id() -> None:
    runtime = runtime_of(1)
    runtime.projects["p2"] = "Other"
    for project in runtime.projects:
        runtime.put(f"of {project}", id="1", projectId=project)
        fail(runtime, f"of {project}", f"a-{project}")
        runtime.failed_records[f"of {project}"][0]["jobId"] = "1"
    fail(runtime, "run-0", "b")
    fields = {"id": "id", "jobId": "jobId", "endedAt": "endedAt"}
    exporter = exporter_of(runtime, described=only_common(fields=fields))
    await scrape(exporter, runtime)
    assert shown(exporter) == {"run-0": {"b"}}
