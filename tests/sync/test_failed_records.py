"""Failed records that are read run by run: in which order, and what becomes of the budget."""

from typing import Any

import httpx
import pytest

from exporter.config import LimitsConfig, ProjectsConfig
from exporter.service import Exporter
from tests.builders import RUNTIME, Clock
from tests.scripted import ScriptedRuntime, exporter_of


def fails(runtime: ScriptedRuntime, run: str, many: int = 1, **fields: Any) -> None:
    """Let so many records of a run have failed."""
    runtime.put(run, **{"records": {"total": 100, "completed": 1, "failed": many}, **fields})
    runtime.failed_records[run] = [{"id": f"{run}-{number}", "status": "failed"} for number in range(many)]


def reading(runtime: ScriptedRuntime, requests: int, **settings: Any) -> Exporter:
    """An exporter that sends at most so many requests for failed records in a scrape, one after the other."""
    sync = {"concurrency": 1, **settings.pop("sync", {})}
    return exporter_of(runtime, limits=LimitsConfig(failed_record_requests=requests), sync=sync, **settings)


async def scrape(exporter: Exporter, runtime: ScriptedRuntime) -> list[str]:
    """Let time pass and scrape; return the runs whose failed records were requested."""
    runtime.clock.advance(15)
    runtime.requests.clear()
    await exporter.page()
    return runtime.runs_asked("failed")


@pytest.fixture
def runtime() -> ScriptedRuntime:
    return ScriptedRuntime(Clock())


async def test_the_newest_change_is_read_first_and_of_several_the_run_with_most_failures(
    runtime: ScriptedRuntime,
) -> None:
    exporter = reading(runtime, 4)
    fails(runtime, "old", 9)
    runtime.clock.advance(15)
    for run, many in (("one", 1), ("three", 3), ("two", 2)):
        fails(runtime, run, many)
    assert await scrape(exporter, runtime) == ["three", "two", "one", "old"]


async def test_a_run_that_changes_all_the_time_does_not_keep_others_waiting(runtime: ScriptedRuntime) -> None:
    exporter = reading(runtime, 1)
    fails(runtime, "quiet")
    runtime.clock.advance(1)
    seen: list[str] = []
    for number in range(1, 5):
        fails(runtime, "busy", number)
        seen += await scrape(exporter, runtime)
    assert seen == ["busy", "quiet", "busy", "busy"]


async def test_a_run_with_more_pages_than_are_left_waits_until_there_is_room_for_all(runtime: ScriptedRuntime) -> None:
    exporter = reading(runtime, 3)
    await scrape(exporter, runtime)
    runtime.page_size = 1
    fails(runtime, "large", 3)
    runtime.clock.advance(1)
    fails(runtime, "small", 1)
    assert await scrape(exporter, runtime) == ["small", "large", "large"]
    runtime.page_size = 500
    fails(runtime, "small", 2)
    assert await scrape(exporter, runtime) == ["small"], "two requests may not be enough"
    fails(runtime, "small", 3)
    assert await scrape(exporter, runtime) == ["large", "small"], "one was enough, and the others are given back"
    assert await scrape(exporter, runtime) == []


async def test_requests_that_fail_cost_the_budget_and_their_runs_wait_behind_the_others(
    runtime: ScriptedRuntime,
) -> None:
    exporter = reading(runtime, 2)
    for run in ("bad-1", "bad-2", "good-1", "good-2"):
        fails(runtime, run)
    runtime.put("bad-1")
    runtime.put("bad-2")
    runtime.interfere = lambda request: httpx.Response(403) if "/bad-" in request.url.path else None
    runtime.clock.advance(15)
    for run in ("bad-1", "bad-2"):
        runtime.put(run)
    assert sorted(await scrape(exporter, runtime)) == ["bad-1", "bad-2"]
    assert sorted(await scrape(exporter, runtime)) == ["good-1", "good-2"]
    assert sorted(await scrape(exporter, runtime)) == ["bad-1", "bad-2"]


async def test_a_run_that_has_no_failed_records_any_more_does_not_wait(runtime: ScriptedRuntime) -> None:
    exporter = reading(runtime, 1)
    for run in ("run-1", "run-2"):
        fails(runtime, run)
    await scrape(exporter, runtime)
    waiting = exporter.runtimes[RUNTIME]._sync._failed_records._waiting
    ((_, left),) = waiting
    fails(runtime, left, 0)
    assert await scrape(exporter, runtime) == []
    assert waiting == {}


async def test_probes_share_the_budget_and_give_back_what_they_do_not_need(runtime: ScriptedRuntime) -> None:
    for most in (1, 8):
        runtime.projects = {f"p{number}": f"Project {number}" for number in range(12)}
        for project in runtime.projects:
            fails(runtime, f"of-{project}", projectId=project)
        exporter = reading(runtime, most, projects=ProjectsConfig(on_probe=True), sync={"min_interval": 5.0})
        runtime.requests.clear()
        for project in runtime.projects:
            await exporter.probe(RUNTIME, project)
        assert runtime.runs_asked("failed") == [f"of-p{number}" for number in range(most)]
        await exporter.close()
