"""What a list can hold: a read that holds too much fails alone, with an error that names the setting."""

import json
from typing import Any

import httpx
import msgspec
import pytest
import structlog

from exporter.config import LimitsConfig
from exporter.service import Exporter
from tests.builders import NOON, Clock
from tests.builders import resources as contract
from tests.faults.bench import two_projects, up
from tests.metrics.test_exposition import samples, value
from tests.scripted import ScriptedRuntime, exporter_of, rfc3339


async def scraped(made: Exporter, clock: Clock) -> tuple[Any, str]:
    clock.advance(130)
    with structlog.testing.capture_logs() as lines:
        page = samples(str(await made.page(max_wait=100)))
    return page, str(lines)


def endless(runtime: ScriptedRuntime, path: str, items: int, page: int = 100) -> None:
    """Let a list have that many more items than it has."""

    def answer(request: httpx.Request) -> httpx.Response | None:
        if not request.url.path.endswith(path) or "active" not in str(request.url.query):
            return None
        start = int(request.url.params.get("cursor", "0"))
        job = {"spinnerName": "welcome", "status": "running", "createdAt": "2025-11-24T16:00:00Z"}
        found = [{**job, "id": f"r{n}", "updatedAt": "2025-11-24T16:00:00Z"} for n in range(start, start + page)]
        following = str(start + page) if start + page < items else None
        return httpx.Response(200, json={"items": found, "nextCursor": following, "asOf": None})

    runtime.interfere = answer


async def test_a_list_of_runs_that_is_too_long_costs_its_project_alone() -> None:
    """Runs that have not ended are staged until the last page: 70 MB/s, and 3.3 GB in 45 s."""
    clock = Clock(NOON)
    runtime = two_projects(clock)
    made = exporter_of(runtime, limits=LimitsConfig(read_bytes=1_000_000))
    await scraped(made, clock)
    endless(runtime, "/projects/p1/jobs", 10_000)
    found, lines = await scraped(made, clock)
    assert up(found) == (1, 0, 1)
    assert value(found, "spinner_run_info", run_id="run-1") == 1, "a read that fails changes nothing"
    assert "jobs: what is read takes more than limits.read_bytes (1,000,000)" in lines
    assert len(runtime.job_lists()) < 50, "the list is read on"
    runtime.interfere = lambda request: None
    found, _ = await scraped(made, clock)
    assert up(found) == (1, 1, 1)
    await made.close()


async def test_a_read_that_is_refused_after_its_last_page_fails_too() -> None:
    """What it held is gone, and the next read must ask for it again."""
    clock = Clock(NOON)
    runtime = two_projects(clock)
    runtime.put("lost")
    made = exporter_of(runtime, limits=LimitsConfig(read_bytes=30_000))
    await scraped(made, clock)
    del runtime.jobs["lost"]
    for number in range(40):
        runtime.put(f"ended-{number}", status="completed", endedAt=clock(), updated_at=clock() + 100)
    (monitored,) = made.runtimes.values()

    def another(request: httpx.Request) -> httpx.Response | None:
        if request.url.path.endswith("/jobs/lost"):
            with monitored.client.held.open("another read") as other:
                other.add(15_000)
        return None

    runtime.interfere = another
    found, lines = await scraped(made, clock)
    assert up(found) == (1, 0, 1)
    assert "jobs: what is read takes more than limits.read_bytes (30,000)" in lines
    runtime.interfere = lambda request: None
    found, _ = await scraped(made, clock)
    assert value(found, "spinner_runs_finished_total", project="Sales", status="completed") == 40
    await made.close()


async def test_what_has_been_applied_is_not_held() -> None:
    """The whole history of a project is read at first, page by page."""
    clock = Clock(NOON)
    runtime = two_projects(clock)
    for number in range(3000):
        runtime.put(f"old-{number}", status="completed", endedAt=NOON - 1)
    made = exporter_of(runtime, limits=LimitsConfig(read_bytes=600_000))
    found, lines = await scraped(made, clock)
    assert up(found) == (1, 1, 1), lines
    await made.close()


async def test_a_list_of_all_projects_is_held_once_and_not_by_each_of_them() -> None:
    clock = Clock(NOON)
    runtime = ScriptedRuntime(clock)
    runtime.projects = {f"p{number}": f"Project {number}" for number in range(20)}
    job = {"spinnerName": "welcome", "status": "running", "createdAt": rfc3339(NOON), "updatedAt": rfc3339(NOON)}
    items = [{**job, "id": f"r{number}", "projectId": f"p{number % 20}"} for number in range(500)]
    body = json.dumps({"items": items, "nextCursor": None, "asOf": None})
    date = {"Date": runtime._date()}
    runtime.interfere = lambda request: (
        httpx.Response(200, content=body, headers=date) if request.url.path == "/api/v1/jobs" else None
    )
    described = contract()
    jobs = msgspec.structs.replace(described.jobs, path="/api/v1/jobs")
    resources = msgspec.structs.replace(described, jobs=jobs)
    made = exporter_of(runtime, limits=LimitsConfig(read_bytes=1_000_000), described={"resources": resources})
    for _ in range(2):
        found, lines = await scraped(made, clock)
        assert [value(found, "spinner_project_up", project=name) for name in runtime.projects.values()] == [1] * 20, (
            lines
        )
    await made.close()


@pytest.mark.parametrize("is_first", [True, False])
async def test_more_runs_that_have_not_ended_than_can_be_tracked_cost_their_project_alone(is_first: bool) -> None:
    """They are kept until they end, shown or not."""
    clock = Clock(NOON)
    runtime = two_projects(clock)
    made = exporter_of(runtime, limits=LimitsConfig(open_runs=100))
    if not is_first:
        await scraped(made, clock)
    endless(runtime, "/projects/p1/jobs", 150)
    found, lines = await scraped(made, clock)
    assert up(found) == (1, 0, 1)
    assert "jobs: there are more runs that have not ended than limits.open_runs (100)" in lines
    assert value(found, "spinner_run_info", run_id="run-1") == (None if is_first else 1)
    runtime.put("run-3", projectId="p2")
    endless(runtime, "/projects/p1/jobs", 80, page=80)
    found, lines = await scraped(made, clock)
    assert up(found) == (1, 1, 1), lines
    assert value(found, "spinner_run_info", run_id="r79") == value(found, "spinner_run_info", run_id="run-3") == 1
    await made.close()


async def test_a_project_with_few_runs_has_room_when_another_one_has_too_many() -> None:
    clock = Clock(NOON)
    runtime = two_projects(clock)
    endless(runtime, "/projects/p1/jobs", 100)
    made = exporter_of(runtime, limits=LimitsConfig(open_runs=102))
    await scraped(made, clock)
    for number in range(20):
        runtime.put(f"new-{number}", projectId="p2")
    found, lines = await scraped(made, clock)
    assert up(found) == (1, 1, 1), lines
    assert value(found, "spinner_run_info", run_id="new-19") == 1
    await made.close()


async def test_a_list_of_projects_that_is_too_long_is_an_error_and_the_projects_stay() -> None:
    clock = Clock(NOON)
    runtime = two_projects(clock)
    made = exporter_of(runtime, limits=LimitsConfig(read_bytes=1_000_000))
    await scraped(made, clock)
    runtime.projects |= {f"q{number}": f"Project {number}" for number in range(3_000)}
    found, lines = await scraped(made, clock)
    assert value(found, "spinner_api_up") == 0
    assert "projects: what is read takes more than limits.read_bytes (1,000,000)" in lines
    assert value(found, "spinner_run_info", run_id="run-1") == 1
    await made.close()


async def test_more_meters_than_a_plan_has_are_an_error_of_the_plan_alone() -> None:
    """200,000 meters were 600,199 series."""
    clock = Clock(NOON)
    runtime = two_projects(clock)
    made = exporter_of(runtime)
    meters = [{"name": f"m{number}", "used": 1} for number in range(1_001)]
    body = json.dumps({"plan": "pro", "meters": meters})
    runtime.interfere = lambda request: (
        httpx.Response(200, content=body) if request.url.path.endswith("/usage") else None
    )
    found, lines = await scraped(made, clock)
    assert up(found) == (1, 1, 1)
    assert "usage: the plan has more meters than limits.meters (1,000)" in lines
    assert not [sample for sample in found if sample[0] == "spinner_plan_used"]
    await made.close()
