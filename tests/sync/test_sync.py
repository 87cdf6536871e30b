"""Incremental reads: what is requested, what is stored, and what a failed read must not change."""

import asyncio
import functools
import itertools
import re
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import structlog

from exporter.config import LimitsConfig, ProjectsConfig, SyncConfig, load
from exporter.runs.view import ShownRun
from exporter.service import Dependencies, Exporter
from exporter.status import Status
from exporter.sync import failed_records
from exporter.sync.single_flight import SingleFlight
from tests.builders import NOON, RUNTIME, Clock, resources
from tests.scripted import ScriptedRuntime, exporter_of

pytestmark = pytest.mark.usefixtures("each_way")


def runs_of(exporter: Exporter) -> dict[str, ShownRun]:
    return {shown.run.id: shown for shown in exporter.runtimes[RUNTIME].store.view.runs()}


def finished(exporter: Exporter) -> int:
    return sum(sum(spinner.counters.finished.values()) for spinner in exporter.runtimes[RUNTIME].store.view.spinners())


def ended(**fields: Any) -> dict[str, Any]:
    return {"status": "completed", "endedAt": NOON, **fields}


# -- what is requested ------------------------------------------------------------------------------------------


async def test_the_first_sync_requests_open_runs_and_those_that_ended_within_the_retention() -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.put("old-and-open", createdAt=NOON - 90 * 86400, startedAt=NOON - 90 * 86400, updated_at=NOON - 30 * 86400)
    runtime.put("just-ended", **ended(endedAt=NOON - 600), updated_at=NOON - 600)
    runtime.put("long-ended", **ended(endedAt=NOON - 7200), updated_at=NOON - 7200)
    runtime.put("long-ended-but-touched", **ended(endedAt=NOON - 7200), updated_at=NOON - 60)
    exporter = exporter_of(runtime)
    assert await exporter.refresh()
    assert set(runs_of(exporter)) == {"old-and-open", "just-ended"}
    assert finished(exporter) == 1


async def test_a_later_sync_requests_changes_by_the_runtime_s_clock_and_with_an_overlap() -> None:
    runtime = ScriptedRuntime(Clock())
    exporter = exporter_of(runtime, Clock(NOON - 5000), sync={"overlap": 60.0})
    await exporter.refresh()
    runtime.requests.clear()
    await exporter.refresh()
    (listing,) = runtime.job_lists()
    since = httpx.QueryParams(listing.url.query)["updatedSince"]
    assert since == "2025-11-24T15:59:00.000Z", "the last asOf, noon, less the overlap; our own clock plays no part"


async def test_an_unchanged_list_costs_one_conditional_request_per_project() -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.put(**ended())
    exporter = exporter_of(runtime)
    await exporter.refresh()
    await exporter.refresh()
    runtime.requests.clear()
    assert await exporter.refresh()
    (listing,) = runtime.job_lists()
    assert "If-None-Match" in listing.headers
    assert len(runtime.requests) == 4, "health, usage, projects and one list of jobs"
    assert set(runs_of(exporter)) == {"run-1"}


async def test_a_list_of_several_pages_is_never_requested_conditionally() -> None:
    """A change moves a job to the end: the first page of a long list can stay the same while the last one changes."""
    runtime = ScriptedRuntime(Clock())
    runtime.page_size = 2
    for number in range(5):
        runtime.put(f"run-{number}", updated_at=NOON - number)
    exporter = exporter_of(runtime)
    await exporter.refresh()
    runtime.put("run-0", records={"total": 9, "completed": 9}, updated_at=NOON)
    await exporter.refresh()
    assert runs_of(exporter)["run-0"].run.records.completed == 9


async def test_a_statement_that_nothing_has_changed_does_not_move_since_when_changes_are_requested() -> None:
    """It has no time but that of its header, which a proxy may have set."""
    runtime = ScriptedRuntime(Clock())
    runtime.put(**ended())
    exporter = exporter_of(runtime)
    since = []
    for _ in range(5):
        runtime.requests.clear()
        await exporter.refresh()
        (listing,) = [each for each in runtime.job_lists() if "updatedSince" in each.url.params]
        since.append((listing.url.params["updatedSince"], "If-None-Match" in listing.headers))
        runtime.clock.advance(15)
    assert since[-1] == since[-2] == since[-3]
    assert since[-1][1]


async def test_a_list_that_wrongly_says_that_nothing_has_changed_hides_a_run_until_the_next_sweep() -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.put("first")
    exporter = exporter_of(runtime)
    for _ in range(2):
        await exporter.refresh()
        runtime.clock.advance(15)

    def wrong(request: httpx.Request) -> httpx.Response | None:
        if request.url.path.endswith("/jobs") and "If-None-Match" in request.headers:
            return httpx.Response(304, headers={"ETag": request.headers["If-None-Match"], "Date": runtime._date()})
        return None

    runtime.interfere = wrong
    runtime.put("second", **ended())
    for _ in range(8):
        await exporter.refresh()
        runtime.clock.advance(15)
    assert set(runs_of(exporter)) == {"first", "second"}


async def test_only_projects_that_the_config_wants_are_read() -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.projects = {"p1": "Sales", "p2": "Sales test", "p3": "Support"}
    exporter = exporter_of(
        runtime, projects=ProjectsConfig(include=(re.compile("Sales.*"),), exclude=(re.compile(".* test"),))
    )
    await exporter.refresh()
    assert not [path for path in runtime.paths() if "/p2/" in path or "/p3/" in path]
    assert [project.name for project in exporter.runtimes[RUNTIME].store.view.projects()] == ["Sales"]


async def test_an_api_without_projects_has_one_with_the_configured_name() -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.put(projectId="default")
    described = msgspec.structs.replace(resources(), projects="absent")
    exporter = exporter_of(runtime, described={"resources": described, "project": "Everything"})
    assert await exporter.refresh()
    assert [shown.project for shown in runs_of(exporter).values()] == ["Everything"]
    assert "/api/v1/projects" not in runtime.paths()


async def test_a_project_that_a_reload_excludes_is_dropped() -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.projects = {"p1": "Sales", "p2": "Support"}
    exporter = exporter_of(runtime)
    await exporter.refresh()
    config = exporter.runtimes[RUNTIME].config
    without = ProjectsConfig(exclude=(re.compile("Sales"),))
    await exporter.reload({RUNTIME: msgspec.structs.replace(config, projects=without)})
    assert await exporter.refresh(), "the project is gone, but the sync that dropped it failed"
    assert [project.name for project in exporter.runtimes[RUNTIME].store.view.projects()] == ["Support"]
    await exporter.close()


async def test_a_project_that_was_dropped_and_returns_is_read_as_if_it_were_new() -> None:
    """What was known of its list would hide the runs that have not changed since."""
    runtime = ScriptedRuntime(Clock())
    runtime.put("open", createdAt=NOON - 9000, startedAt=NOON - 9000, updated_at=NOON - 9000)
    runtime.put("ended", **ended())
    exporter = exporter_of(runtime, projects=ProjectsConfig(exclude=(re.compile("Closed"),)))
    for name in ("Sales", "Sales", "Closed", "Sales"):
        runtime.projects = {"p1": name}
        assert await exporter.refresh()
        assert set(runs_of(exporter)) == (set() if name == "Closed" else {"open", "ended"})


async def test_a_project_that_is_dropped_while_it_cannot_be_read_has_not_recovered_when_it_returns() -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.lists_all_projects = False
    runtime.projects["p2"] = "Support"
    exporter = exporter_of(runtime, projects=ProjectsConfig(exclude=(re.compile("Closed"),)))
    runtime.interfere = lambda request: httpx.Response(500) if "/projects/p1/" in request.url.path else None
    with structlog.testing.capture_logs() as lines:
        for name in ("Sales", "Closed", "Sales"):
            runtime.projects["p1"] = name
            assert await exporter.refresh()
            runtime.interfere = lambda request: None
    assert [(line["event"], line["project"]) for line in lines] == [("cannot read", "Sales")]


async def test_of_more_projects_than_the_limit_those_that_are_read_already_stay() -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.projects = {"b": "B", "c": "C"}
    exporter = exporter_of(runtime, limits=LimitsConfig(projects=2))
    shown = []
    with structlog.testing.capture_logs() as lines:
        for projects in ({}, {"a": "A"}, {"a": "A"}, {}):
            runtime.projects = {**projects, "b": "B", "c": "C"}
            assert await exporter.refresh()
            names = [project.name for project in exporter.runtimes[RUNTIME].store.view.projects()]
            metric = re.search(
                r"^spinner_exporter_projects_not_read\S* (.*)$", str(await exporter.page()), re.MULTILINE
            )
            shown.append((names, metric and float(metric[1])))
    assert shown == [(["B", "C"], 0), (["B", "C"], 1), (["B", "C"], 1), (["B", "C"], 0)]
    assert [(line["event"], line["what"]) for line in lines] == [
        ("cannot read", "some projects"),
        ("recovered", "some projects"),
    ]
    assert lines[0]["error"] == "there are more than limits.projects (2)"


async def test_projects_with_the_same_name_get_unique_names() -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.projects = {"p1": "Sales", "p2": "Sales", "p3": "Support"}
    exporter = exporter_of(runtime)
    await exporter.refresh()
    assert [project.name for project in exporter.runtimes[RUNTIME].store.view.projects()] == [
        "Sales",
        "Sales (p2)",
        "Support",
    ]


async def test_failed_records_are_read_only_for_runs_whose_failed_count_changed() -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.put("fine", records={"total": 9, "completed": 3})
    runtime.put("bad", records={"total": 9, "completed": 3, "failed": 1})
    record = {"id": "rec-1", "jobId": "bad", "status": "failed", "failedStep": {"name": "send"}, "errorCode": "E1"}
    runtime.failed_records["bad"] = [record]
    exporter = exporter_of(runtime)
    await exporter.refresh()
    await exporter.refresh()
    assert [path for path in runtime.paths() if path.endswith("/records")] == ["/api/v1/jobs/bad/records"]
    (named,) = runs_of(exporter)["bad"].run.failed_records
    assert (named.id, named.step, named.error_code) == ("rec-1", "send", "E1")


# -- each run once ------------------------------------------------------------------------------------------


async def test_a_run_shorter_than_the_scrape_interval_is_counted_once() -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    exporter = exporter_of(runtime)
    await exporter.refresh()
    runtime.put("short", createdAt=NOON + 1, startedAt=NOON + 2, updated_at=NOON + 4, **ended(endedAt=NOON + 4))
    for _ in range(4):
        clock.advance(15)
        await exporter.refresh()
    assert finished(exporter) == 1


async def test_a_run_that_changes_while_pages_are_read_is_counted_once() -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    runtime.page_size = 1
    runtime.put("a", updated_at=NOON - 30)
    runtime.put("b", updated_at=NOON - 20)

    def end_a_after_the_first_page(request: httpx.Request) -> None:
        if "cursor" in request.url.params:
            runtime.put("a", updated_at=NOON, **ended())

    runtime.interfere = end_a_after_the_first_page
    exporter = exporter_of(runtime)
    for _ in range(3):
        await exporter.refresh()
        clock.advance(15)
    assert finished(exporter) == 1
    assert runs_of(exporter)["a"].run.status is Status.COMPLETED


async def test_a_watermark_does_not_pass_what_became_visible_late() -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    exporter = exporter_of(runtime)
    await exporter.refresh()
    clock.advance(60)
    await exporter.refresh()
    runtime.put("late", **ended(endedAt=NOON + 30), updated_at=NOON + 30)
    clock.advance(15)
    await exporter.refresh()
    await exporter.refresh()
    assert finished(exporter) == 1, "written before our last read, visible only after it: the overlap finds it"


# -- sweeps -------------------------------------------------------------------------------------------------


async def test_counts_that_change_without_updated_at_are_found_by_the_next_sweep() -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    runtime.put(updated_at=NOON - 3000)
    exporter = exporter_of(runtime)
    await exporter.refresh()
    runtime.put(records={"total": 9, "completed": 5}, updated_at=NOON - 3000)
    clock.advance(119)
    await exporter.refresh()
    assert runs_of(exporter)["run-1"].run.records.completed is None
    clock.advance(1)
    await exporter.refresh()
    assert runs_of(exporter)["run-1"].run.records.completed == 5


async def test_an_end_without_a_change_of_updated_at_is_found_by_the_next_sweep() -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    runtime.put(updated_at=NOON - 3000)
    exporter = exporter_of(runtime)
    await exporter.refresh()
    runtime.put(status="failed", endedAt=NOON + 10, updated_at=NOON - 3000)
    clock.advance(121)
    await exporter.refresh()
    assert runs_of(exporter)["run-1"].run.status is Status.FAILED
    assert finished(exporter) == 1


async def test_a_sweep_that_takes_several_scrapes_does_not_delay_the_next_one(each_way: bool) -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    for number in range(3):
        runtime.put(f"lost-{number}", updated_at=NOON - 3000)
    exporter = exporter_of(runtime, limits=LimitsConfig(rereads=1))
    await exporter.refresh()
    runtime.jobs.clear()
    swept = []
    for _ in range(17):
        clock.advance(15)
        runtime.requests.clear()
        await exporter.refresh()
        swept += [clock() - NOON for each in runtime.job_lists() if each.url.params.get("active") == "true"]
    assert swept == ([120, 240] if each_way else [120, 135, 150, 240])
    assert runs_of(exporter) == {}


async def test_a_run_that_vanished_leaves_with_the_next_sweep_and_never_counts_as_finished() -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    runtime.put("stays")
    runtime.put("vanishes")
    exporter = exporter_of(runtime)
    await exporter.refresh()
    del runtime.jobs["vanishes"]
    clock.advance(121)
    await exporter.refresh()
    assert set(runs_of(exporter)) == {"stays"}
    assert finished(exporter) == 0
    assert 'runs_dropped_total{reason="gone",runtime="runtime.test"} 1.0' in str(await exporter.page())


async def test_a_run_that_cannot_be_read_again_loses_its_counts_when_they_are_stale(each_way: bool) -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    runtime.put("other", records={"completed": 1})
    runtime.put(records={"total": 9, "completed": 5}, failures=[{"step": "send", "count": 1}])
    exporter = exporter_of(runtime)

    async def completed_after(seconds: float) -> int | None:
        clock.advance(seconds)
        await exporter.refresh()
        assert runs_of(exporter)["run-1"].run.status is Status.RUNNING
        assert runs_of(exporter)["other"].run.records.completed == 1
        return runs_of(exporter)["run-1"].run.records.completed

    assert await completed_after(0) == 5
    label = runtime.jobs["run-1"]["status"]
    for _ in range(2):
        runtime.jobs["run-1"]["status"] = None
        assert [await completed_after(150) for _ in range(2)] == [5, 5], "for less than sync.stale_after"
        runtime.jobs["run-1"]["status"] = label
        assert await completed_after(150) == 5
    runtime.jobs["run-1"]["status"] = None
    assert [await completed_after(150) for _ in range(4)] == [5, 5, None, None]
    run = runs_of(exporter)["run-1"].run
    assert (run.snapshot.failures, run.last_progress_at) == ((), None)
    runtime.jobs["run-1"]["status"] = label
    assert await completed_after(150) == 5
    assert (
        'spinner_records_processed_total{runtime="runtime.test",project="Sales",spinner="welcome",state="completed"} 6'
        in str(await exporter.page())
    ), "each record is counted once"


async def test_how_long_a_run_cannot_be_read_begins_anew_when_its_project_was_dropped_and_returns() -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    runtime.put("other")
    runtime.put(records={"total": 9, "completed": 5})
    exporter = exporter_of(runtime, projects=ProjectsConfig(exclude=(re.compile("Closed"),)))
    label = runtime.jobs["run-1"]["status"]
    for seconds, name, status in (
        (0, "Sales", label),
        (150, "Sales", None),
        (0, "Closed", None),
        (0, "Sales", label),
        (150, "Sales", None),
        (150, "Sales", None),
    ):
        clock.advance(seconds)
        runtime.projects["p1"], runtime.jobs["run-1"]["status"] = name, status
        await exporter.refresh()
    assert runs_of(exporter)["run-1"].run.records.completed == 5


async def test_a_run_leaves_when_its_retention_is_over() -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    runtime.put(**ended())
    exporter = exporter_of(runtime)
    await exporter.refresh()
    clock.advance(3600)
    await exporter.refresh()
    assert set(runs_of(exporter)) == {"run-1"}
    clock.advance(1)
    await exporter.refresh()
    assert set(runs_of(exporter)) == set()


async def test_without_single_runs_one_that_no_list_contains_is_gone() -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    runtime.put("gone")
    runtime.put("stays")
    described = msgspec.structs.replace(resources(), job="absent")
    exporter = exporter_of(runtime, described={"resources": described})
    await exporter.refresh()
    del runtime.jobs["gone"]
    clock.advance(600)
    assert await exporter.refresh()
    assert set(runs_of(exporter)) == {"stays"}
    assert not [path for path in runtime.paths() if path.startswith("/api/v1/jobs/gone")]


async def test_a_run_that_cannot_be_read_by_its_id_keeps_its_state_and_does_not_block_others() -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    runtime.put("odd", updated_at=NOON - 3000)
    exporter = exporter_of(runtime)
    await exporter.refresh()
    odd = runtime.jobs.pop("odd")
    runtime.interfere = lambda request: httpx.Response(500) if request.url.path.endswith("/jobs/odd") else None
    runtime.put("other")
    clock.advance(121)
    assert await exporter.refresh()
    assert set(runs_of(exporter)) == {"odd", "other"}
    runtime.jobs["odd"] = odd | {"status": "completed", "endedAt": NOON}
    runtime.interfere = lambda request: None
    clock.advance(121)
    await exporter.refresh()
    assert runs_of(exporter)["odd"].run.ended


async def test_a_problem_with_one_run_is_resolved_when_the_run_is_listed_again() -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    runtime.put("odd")
    exporter = exporter_of(runtime)
    await exporter.refresh()
    odd = runtime.jobs.pop("odd")
    runtime.interfere = lambda request: httpx.Response(500) if request.url.path.endswith("/jobs/odd") else None
    clock.advance(121)
    await exporter.refresh()
    runtime.jobs["odd"] = odd
    clock.advance(121)
    with structlog.testing.capture_logs() as lines:
        await exporter.refresh()
    assert [line["what"] for line in lines if line["event"] == "recovered"] == ["job"]


# -- failures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
async def test_a_page_that_fails_changes_nothing(status: int) -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    runtime.page_size = 2
    for number in range(5):
        runtime.put(f"run-{number}")
    exporter = exporter_of(runtime)
    await exporter.refresh()
    clock.advance(15)
    for number in range(5):
        runtime.put(f"run-{number}", status="completed", endedAt=NOON + 10)
    runtime.interfere = lambda request: httpx.Response(status) if request.url.params.get("cursor") == "4" else None
    assert not await exporter.refresh()
    assert {shown.run.status for shown in runs_of(exporter).values()} == {Status.RUNNING}
    assert finished(exporter) == 0
    page = str(await exporter.page())
    assert '\nspinner_api_up{runtime="runtime.test"} 0\n' in page
    assert 'spinner_project_up{runtime="runtime.test",project="Sales"} 0' in page
    runtime.interfere = lambda request: None
    clock.advance(15)
    assert await exporter.refresh()
    assert finished(exporter) == 5, "the next good read counts what the failed one did not"


async def test_a_first_read_that_fails_shows_nothing_and_the_next_one_counts_each_run_once() -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    runtime.page_size = 2
    for number in range(5):
        runtime.put(f"run-{number}", **ended())
    runtime.put("vanishes", createdAt=NOON - 600, updated_at=NOON - 600)
    runtime.interfere = lambda request: httpx.Response(500) if request.url.params.get("cursor") == "4" else None
    exporter = exporter_of(runtime)
    assert not await exporter.refresh()
    page = str(await exporter.page())
    assert "\nspinner_run_info{" not in page
    assert "\nspinner_runs_started_total{" not in page, "half of a history would be followed by a jump"
    runtime.interfere = lambda request: None
    del runtime.jobs["vanishes"]
    clock.advance(15)
    assert await exporter.refresh()
    assert set(runs_of(exporter)) == {f"run-{number}" for number in range(5)}
    assert finished(exporter) == 5, "what the failed read applied must not be counted again"


async def test_a_first_read_of_a_long_list_that_fails_is_not_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.runs.limits.MIN_TOMBSTONES", 5)
    runtime = ScriptedRuntime(Clock())
    runtime.page_size = 10
    for number in range(100):
        runtime.put(f"run-{number}", **ended())
    runtime.interfere = lambda request: httpx.Response(500) if request.url.params.get("cursor") == "90" else None
    exporter = exporter_of(runtime)
    store = exporter.runtimes[RUNTIME].store
    store.config = msgspec.structs.replace(store.config, limits=LimitsConfig(runs=5))
    assert not await exporter.refresh()
    runtime.interfere = lambda request: None
    assert await exporter.refresh()
    assert finished(exporter) == 100, "runs that were applied and dropped in the read that failed"


async def test_an_error_body_that_looks_like_an_empty_list_is_an_error() -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    runtime.put()
    exporter = exporter_of(runtime)
    await exporter.refresh()
    runtime.interfere = lambda request: httpx.Response(502, json={"items": [], "nextCursor": None})
    clock.advance(121)
    assert not await exporter.refresh()
    assert set(runs_of(exporter)) == {"run-1"}


async def test_a_list_of_runs_without_any_time_is_an_error() -> None:
    """The next read would not know since when it has to read."""
    runtime = ScriptedRuntime(Clock())
    runtime.interfere = lambda request: (
        httpx.Response(200, json={"items": []}) if request.url.path.endswith("/jobs") else None
    )
    exporter = exporter_of(runtime)
    with structlog.testing.capture_logs() as lines:
        assert not await exporter.refresh()
    assert [line["error"] for line in lines] == [
        "jobs: the response has neither asOf nor a Date header, so its time is unknown"
    ]


async def test_when_the_list_of_projects_fails_none_is_up_and_what_is_known_is_shown() -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.put()
    exporter = exporter_of(runtime)
    await exporter.refresh()
    runtime.interfere = lambda request: httpx.Response(500) if request.url.path.endswith("/projects") else None
    assert not await exporter.refresh()
    assert [each.error for each in exporter.runtimes[RUNTIME].store.view.projects()] == ["projects: HTTP 500"]
    assert set(runs_of(exporter)) == {"run-1"}
    runtime.interfere = lambda request: None
    assert await exporter.refresh()
    assert [each.error for each in exporter.runtimes[RUNTIME].store.view.projects()] == [None]


async def test_invalid_items_of_the_list_of_projects_are_a_problem_until_there_are_none() -> None:
    runtime = ScriptedRuntime(Clock())
    exporter = exporter_of(runtime)
    items = [{"id": "p1", "name": "Sales"}, {"name": "without an id"}]
    answer = httpx.Response(200, json={"items": items, "nextCursor": None, "asOf": "2025-11-24T16:00:00Z"})
    with structlog.testing.capture_logs() as lines:
        for instead in (answer, answer, None, None):
            runtime.interfere = lambda request, instead=instead: (  # type: ignore[misc]
                instead if request.url.path.endswith("/projects") else None
            )
            assert await exporter.refresh()
    assert [(line["event"], line["what"]) for line in lines if line.get("what") == "list of projects"] == [
        ("cannot read", "list of projects"),
        ("recovered", "list of projects"),
    ]


async def test_one_broken_project_does_not_hide_the_others() -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.lists_all_projects = False
    runtime.projects = {"p1": "Sales", "p2": "Support"}
    runtime.put("a")
    runtime.put("b", projectId="p2")
    runtime.interfere = lambda request: httpx.Response(500) if "/projects/p1/" in request.url.path else None
    exporter = exporter_of(runtime)
    assert await exporter.refresh()
    assert set(runs_of(exporter)) == {"b"}
    page = str(await exporter.page())
    assert 'spinner_project_up{runtime="runtime.test",project="Sales"} 0' in page
    assert 'spinner_project_up{runtime="runtime.test",project="Support"} 1' in page
    assert '\nspinner_api_up{runtime="runtime.test"} 1\n' in page


def lists_answered_with(answer: httpx.Response | None, request: httpx.Request) -> httpx.Response | None:
    return answer if request.url.path.endswith("/jobs") else None


async def test_a_project_that_can_be_read_again_has_recovered() -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.put("a")
    exporter = exporter_of(runtime)
    with structlog.testing.capture_logs() as lines:
        for status in (500, None):
            answer = None if status is None else httpx.Response(status)
            runtime.interfere = functools.partial(lists_answered_with, answer)
            await exporter.refresh()
            runtime.clock.advance(300)
    logged = [(line["event"], line["what"]) for line in lines if line.get("project") == "Sales"]
    assert logged == [("cannot read", "project"), ("recovered", "project")]


async def test_ids_that_several_runs_share_are_a_problem_of_their_project() -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.put("of a", id="12", spinnerName="A", createdAt=NOON - 400)
    runtime.put("of b", id="12", spinnerName="B", createdAt=NOON - 60)
    exporter = exporter_of(runtime)
    with structlog.testing.capture_logs() as lines:
        for _ in range(2):
            assert await exporter.refresh()
    assert [(line["what"], line["error"], line["project"]) for line in lines] == [
        ("some runs", "1 ids are those of several runs, of which one is read", "Sales")
    ]


async def test_a_project_that_is_missing_from_the_list_keeps_its_open_runs_until_its_own_list_is_gone() -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    runtime.put()
    exporter = exporter_of(runtime)
    await exporter.refresh()
    runtime.projects = {}
    clock.advance(15)
    await exporter.refresh()
    assert set(runs_of(exporter)) == {"run-1"}, "an empty list of projects must not resolve an alert"
    runtime.interfere = lambda request: httpx.Response(404) if "/projects/p1/" in request.url.path else None
    clock.advance(15)
    assert await exporter.refresh(), "the API is up, and has no such project"
    assert runs_of(exporter) == {}
    assert list(exporter.runtimes[RUNTIME].store.view.projects()) == []


@pytest.mark.parametrize(("seconds", "counted"), [(299, 1), (300, 0)])
async def test_a_project_whose_list_is_gone_keeps_its_counters_for_a_while(seconds: float, counted: int) -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    runtime.put(**ended())
    exporter = exporter_of(runtime)
    await exporter.refresh()
    projects, runtime.projects = runtime.projects, {}
    runtime.interfere = lambda request: httpx.Response(404) if "/projects/p1/" in request.url.path else None
    for after in (15, 15, seconds):
        clock.advance(after)
        await exporter.refresh()
    runtime.projects, runtime.interfere = projects, lambda request: None
    runtime.jobs.clear()
    await exporter.refresh()
    assert finished(exporter) == counted


async def test_an_idle_project_is_dropped_only_when_it_has_been_missing_for_a_while() -> None:
    """A list that is empty for a moment must not reset counters."""
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    runtime.put(status="completed", endedAt=NOON)
    exporter = exporter_of(runtime)
    projects = runtime.projects
    for listed, seconds in ((True, 15), (False, 15), (False, 290), (True, 15), (False, 15), (False, 0), (False, 299)):
        runtime.projects = projects if listed else {}
        clock.advance(seconds)
        await exporter.refresh()
        assert finished(exporter) == 1
    clock.advance(1)
    await exporter.refresh()
    assert list(exporter.runtimes[RUNTIME].store.view.projects()) == []


async def test_a_project_that_is_listed_is_kept_with_the_shortest_time_for_which_one_may_be_missing() -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.put(**ended())
    exporter = exporter_of(runtime, sync={"stale_after": 1.0})
    for _ in range(3):
        await exporter.refresh()
        assert finished(exporter) == 1


async def test_when_health_cannot_be_read_the_api_is_down_and_the_last_health_becomes_stale() -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    exporter = exporter_of(runtime)
    await exporter.refresh()
    runtime.interfere = lambda request: httpx.Response(500) if request.url.path == "/health" else None
    page = str(await exporter.page())
    assert '\nspinner_api_up{runtime="runtime.test"} 0\n' in page
    assert '\nspinner_runtime_up{runtime="runtime.test"} 1\n' in page
    clock.advance(301)
    assert '\nspinner_runtime_up{runtime="runtime.test"} 1\n' not in str(await exporter.page())


async def test_the_api_is_up_although_the_token_may_not_read_the_plan() -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.interfere = lambda request: httpx.Response(403) if request.url.path.endswith("/usage") else None
    exporter = exporter_of(runtime)
    with structlog.testing.capture_logs() as lines:
        assert await exporter.refresh()
        runtime.interfere = lambda request: None
        assert await exporter.refresh()
    assert [(line["event"], line["what"]) for line in lines] == [("cannot read", "usage"), ("recovered", "usage")]


@pytest.mark.parametrize(
    "health",
    [
        {"runtime": None},
        {"runtime": {"status": "up", "lastHeartbeatAt": None}},
        {"runtime": {"status": "down", "lastHeartbeatAt": "2025-11-24T16:00:00Z"}},
        {"status": "degraded", "runtime": {}},
    ],
)
async def test_a_runtime_without_a_status_or_a_heartbeat_is_down(health: dict[str, Any]) -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.health = health
    assert '\nspinner_runtime_up{runtime="runtime.test"} 0\n' in str(await exporter_of(runtime).page())


# -- sharing ------------------------------------------------------------------------------------------------


class HeldBack:
    """A sync that ends when the test lets it."""

    def __init__(self) -> None:
        self.calls = 0
        self.gate = asyncio.Event()

    async def __call__(self) -> bool:
        self.calls += 1
        await self.gate.wait()
        return True


async def test_scrapes_that_overlap_share_one_sync() -> None:
    sync = HeldBack()
    shared = SingleFlight(sync, min_interval=5, monotonic=Clock())
    scrapes = [asyncio.create_task(shared.fresh(60)) for _ in range(200)]
    await asyncio.sleep(0)
    sync.gate.set()
    assert await asyncio.gather(*scrapes) == [True] * 200
    assert sync.calls == 1


async def test_a_scrape_soon_after_the_last_sync_is_served_from_the_store() -> None:
    clock = Clock()
    sync = HeldBack()
    sync.gate.set()
    shared = SingleFlight(sync, min_interval=5, monotonic=clock)
    await shared.fresh(60)
    clock.advance(4)
    assert await shared.fresh(60)
    assert sync.calls == 1
    clock.advance(1)
    await shared.fresh(60)
    assert sync.calls == 2


async def test_a_sync_outlives_the_scrape_that_started_it_and_the_next_one_waits_for_the_same() -> None:
    sync = HeldBack()
    shared = SingleFlight(sync, min_interval=5, monotonic=Clock())
    assert not await shared.fresh(0)
    assert not shared.ever_ok
    waiting = asyncio.create_task(shared.fresh(60))
    await asyncio.sleep(0)
    sync.gate.set()
    assert await waiting
    assert sync.calls == 1


async def test_a_bug_shows_as_an_api_that_is_down_and_the_next_scrape_tries_again() -> None:
    clock = Clock()
    faults = iter([RuntimeError("a bug"), None, RuntimeError("another bug")])

    async def sync() -> bool:
        fault = next(faults)
        if fault:
            raise fault
        return True

    shared = SingleFlight(sync, min_interval=5, monotonic=clock)
    assert not await shared.fresh(60)
    clock.advance(6)
    assert await shared.fresh(60)
    clock.advance(6)
    assert not await shared.fresh(60)


async def test_a_bug_that_lasts_is_logged_once_and_again_after_a_good_sync() -> None:
    faults = iter([RuntimeError("a bug"), RuntimeError("a bug"), None, RuntimeError("a bug")])

    async def sync() -> bool:
        fault = next(faults)
        if fault:
            raise fault
        return True

    clock = Clock()
    shared = SingleFlight(sync, min_interval=5, monotonic=clock)
    logged = []
    for _ in range(4):
        with structlog.testing.capture_logs() as lines:
            await shared.fresh(60)
        logged.append(len(lines))
        clock.advance(6)
    assert logged == [1, 0, 0, 1]


async def test_another_bug_is_logged_too() -> None:
    faults = iter(["a bug", "another bug", "another bug"])

    async def sync() -> bool:
        raise RuntimeError(next(faults))

    clock = Clock()
    shared = SingleFlight(sync, min_interval=5, monotonic=clock)
    logged = []
    for _ in range(3):
        with structlog.testing.capture_logs() as lines:
            assert not await shared.fresh(60)
        logged.append(len(lines))
        clock.advance(6)
    assert logged == [1, 1, 0]


@pytest.mark.parametrize(("seconds", "is_in_time"), [(61, True), (61.1, False)])
async def test_what_was_read_before_the_process_was_stopped_for_a_while_is_not_of_now(
    seconds: float, is_in_time: bool
) -> None:
    clock = Clock()

    async def sync() -> bool:
        clock.advance(seconds)
        return True

    shared = SingleFlight(sync, min_interval=5, monotonic=clock)
    assert await shared.fresh(60) == is_in_time
    assert await shared.fresh(60), "the next scrape shows it as the last read"


async def test_after_a_stop_no_sync_is_started_and_the_last_result_stays() -> None:
    sync = HeldBack()
    sync.gate.set()
    clock = Clock()
    shared = SingleFlight(sync, min_interval=5, monotonic=clock)
    assert await shared.fresh(60)
    await shared.stop()
    clock.advance(60)
    assert await shared.fresh(60)
    assert sync.calls == 1


async def test_a_project_that_is_removed_leaves_no_run_that_waits_for_its_failed_records() -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.projects = {"p1": "Sales", "p2": "Support"}
    for number, project in itertools.product(range(3), runtime.projects):
        runtime.put(f"{project}-{number}", projectId=project, records={"total": 9, "failed": 2})
    exporter = exporter_of(runtime, limits=LimitsConfig(failed_record_requests=1))
    await exporter.refresh()
    sync = exporter.runtimes[RUNTIME]._sync
    waiting = sync._failed_records._waiting
    assert {project for project, _ in waiting} == {"p1", "p2"}
    sync._project_sync.drop("p1")
    assert {project for project, _ in waiting} == {"p2"}


async def test_a_sync_that_never_ends_in_time_logs_one_failure_and_no_recovery(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runtime = ScriptedRuntime(Clock())
    exporter = exporter_of(runtime)
    timeout, of_sync = asyncio.timeout, SyncConfig().stale_after
    # Not those of requests, which would be over at the same moment: either could be first.
    shortened = {of_sync: 0.05}
    monkeypatch.setattr(asyncio, "timeout", lambda seconds: timeout(shortened.get(seconds)))

    async def hang() -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    def interfere(request: httpx.Request) -> Any:
        return hang() if request.url.path.endswith("/jobs") else None

    runtime.interfere = interfere
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            assert not await exporter.refresh()
    assert [(line["what"], line["event"]) for line in lines] == [("everything", "cannot read")], lines
    assert [each.error for each in exporter.runtimes[RUNTIME].store.view.projects()] == ["not finished within 300 s"]
    runtime.interfere = lambda request: None
    # From here on nothing is to be late, however busy the machine is.
    shortened.clear()
    with structlog.testing.capture_logs() as lines:
        assert await exporter.refresh()
    assert [(line["what"], line["event"]) for line in lines] == [("everything", "recovered")], lines


async def test_a_scrape_that_cannot_wait_is_answered_at_once_and_the_sync_continues() -> None:
    release = asyncio.Event()

    async def sync() -> bool:
        await release.wait()
        return True

    shared = SingleFlight(sync, min_interval=5, monotonic=Clock())
    async with asyncio.timeout(0.9):
        assert not await shared.fresh(0.0)
        assert not await shared.fresh(-1.0)
    release.set()
    assert await shared.fresh(60.0)


async def test_an_api_without_health_is_up(tmp_path: Path) -> None:
    runtime = ScriptedRuntime(Clock())
    file = tmp_path / "exporter.yml"
    file.write_text('runtime: {base_url: "http://runtime.test", resources: {health: absent}}\n')
    dependencies = Dependencies(runtime.clock, runtime.clock, runtime.transport())
    exporter = Exporter(load(file, environ={}).runtimes, dependencies)
    assert await exporter.refresh()
    assert "/health" not in runtime.paths()
    page = str(await exporter.page())
    assert re.search(r"^spinner_api_up\S* 1$", page, re.MULTILINE)
    assert not re.search(r"^spinner_runtime_up", page, re.MULTILINE)


def with_failed_records(count: int) -> ScriptedRuntime:
    """A runtime with a run of which so many records failed, each on a page of its own."""
    runtime = ScriptedRuntime(Clock())
    runtime.page_size = 1
    runtime.put("run-1", records={"total": 99, "failed": count})
    runtime.failed_records["run-1"] = [{"id": f"r{n}", "jobId": "run-1", "status": "failed"} for n in range(count)]
    return runtime


async def test_of_a_long_list_of_failed_records_a_limited_number_of_pages_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(failed_records, "MAX_RECORD_PAGES", 2)
    runtime = with_failed_records(5)
    exporter = exporter_of(runtime)
    await exporter.refresh()
    assert sum(path.endswith("/records") for path in runtime.paths()) == 2
    assert len(runs_of(exporter)["run-1"].run.failed_records) == 2


async def test_of_a_run_twenty_pages_of_failed_records_are_read() -> None:
    runtime = with_failed_records(25)
    exporter = exporter_of(runtime)
    await exporter.refresh()
    assert len(runtime.runs_asked("failed")) == 20


async def test_an_open_run_that_no_list_contains_is_read_by_its_id_if_open_runs_cannot_be_listed(
    tmp_path: Path,
) -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    runtime.put("run-1", updated_at=NOON - 1000)
    file = tmp_path / "exporter.yml"
    file.write_text('runtime: {base_url: "http://runtime.test", resources: {jobs: {active: ~}}}\n')
    exporter = Exporter(load(file, environ={}).runtimes, Dependencies(clock, clock, runtime.transport()))
    await exporter.refresh()
    # It changes without a change of `updatedAt`, so no list of changes contains it.
    runtime.jobs["run-1"] |= {"status": "completed", "endedAt": NOON + 5}
    clock.advance(600)
    await exporter.refresh()
    assert "/api/v1/jobs/run-1" in runtime.paths()
    (monitored,) = exporter.runtimes.values()
    assert [shown.run.status for shown in monitored.store.view.runs()] == [Status.COMPLETED]
