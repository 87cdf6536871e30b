"""A reload replaces the generation as a whole; requests that wait for a read keep the one that they started with."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import TypeVar

import httpx
import pytest

from exporter.errors import UnreadableError
from exporter.metrics.formats import TEXT
from exporter.service import Exporter, ProbeTarget
from tests.metrics.test_exposition import Samples, value
from tests.metrics.test_exposition import samples as parsed_samples
from tests.service.test_several_runtimes import Deployment, samples

T = TypeVar("T")

RELOADS = {"swaps": ("us", "eu"), "removes one": ("us",)}
"""What becomes of the runtimes eu and us in a reload."""


class Reloading:
    """Two runtimes that have been read, whose runs and projects have different names."""

    def __init__(self) -> None:
        self.deployment = Deployment()
        for name, scripted in self.deployment.runtimes.items():
            scripted.projects = {"p1": f"Sales {name}"}
            scripted.put(f"run-{name}")
            del scripted.jobs["run-1"]
        self.exporter: Exporter = self.deployment.exporter()

    async def during(self, request: Coroutine[object, object, T], *runtimes: str) -> T:
        """Reload while a request waits for the runtime eu; return its result."""
        self.deployment.gates["eu"].clear()
        task = asyncio.create_task(request)
        await self.deployment.waiting["eu"].wait()
        assert not task.done()
        reload = asyncio.create_task(self.exporter.reload(self.deployment.configs(*runtimes)))
        try:
            return await asyncio.wait_for(task, 5)
        finally:
            self.deployment.gates["eu"].set()
            await reload
            assert list(self.exporter.runtimes) == list(runtimes)


@pytest.fixture
async def reloading() -> AsyncIterator[Reloading]:
    made = Reloading()
    for name in made.deployment.runtimes:
        assert await made.exporter.probe(name, "p1")
    await samples(made.exporter)
    yield made
    await made.exporter.close()


def runtimes_of_runs(found: Samples) -> dict[str, str]:
    """Run id to runtime, of every run that is shown."""
    pairs = [dict(labels) for name, labels in found if name == "spinner_run_info"]
    return {each["run_id"]: each["runtime"] for each in pairs}


@pytest.mark.parametrize("change", RELOADS)
async def test_a_scrape_that_waits_during_a_reload_shows_each_run_under_its_runtime(
    reloading: Reloading, change: str
) -> None:
    found = await reloading.during(samples(reloading.exporter), *RELOADS[change])
    assert runtimes_of_runs(found) == {"run-eu": "eu", "run-us": "us"}
    assert value(found, "spinner_api_up", runtime="eu") == 1


@pytest.mark.parametrize("change", RELOADS)
async def test_a_probe_that_waits_during_a_reload_shows_the_last_read_of_its_project(
    reloading: Reloading, change: str
) -> None:
    page = await reloading.during(reloading.exporter.probe("eu", "p1"), *RELOADS[change])
    assert page is not None
    assert runtimes_of_runs(parsed_samples(str(page))) == {"run-eu": "eu"}


@pytest.mark.parametrize("change", RELOADS)
async def test_service_discovery_that_waits_during_a_reload_lists_each_project_under_its_runtime(
    reloading: Reloading, change: str
) -> None:
    targets = await reloading.during(reloading.exporter.projects(), *RELOADS[change])
    assert targets == [ProbeTarget("eu", "p1", "Sales eu"), ProbeTarget("us", "p1", "Sales us")]


async def test_a_first_probe_of_a_project_that_waits_during_a_reload_is_refused_and_the_next_one_reads_it(
    reloading: Reloading,
) -> None:
    reloading.deployment.runtimes["eu"].projects["p2"] = "Support"
    await reloading.exporter.projects()
    with pytest.raises(UnreadableError, match="reloaded"):
        await reloading.during(reloading.exporter.probe("eu", "p2"), "us", "eu")
    page = await reloading.exporter.probe("eu", "p2")
    assert value(parsed_samples(str(page)), "spinner_project_up", project="Support") == 1


async def test_a_removed_runtime_gets_no_series_from_what_still_ends_in_it(reloading: Reloading) -> None:
    exporter = reloading.exporter
    metrics, old = exporter.own.of("eu"), exporter._generation
    await reloading.during(samples(exporter), "us")
    assert runtimes_of_runs(parsed_samples(str(await old.page(TEXT, 1)))) == {"run-eu": "eu", "run-us": "us"}
    # A read that ends late, and a request that is counted late.
    metrics.sync_ended(1.0, ok=True)
    metrics.request_sent("jobs", "200", 1.0)
    metrics.run_dropped("limit")
    metrics.runs_tracked(1)
    metrics.probing(projects=1, runs=1)
    found = await samples(exporter)
    assert not [name for name, pairs in found if dict(pairs).get("runtime") == "eu"]


async def test_a_late_page_of_an_old_generation_does_not_change_the_series_of_a_runtime_that_came_back(
    reloading: Reloading,
) -> None:
    exporter = reloading.exporter
    old = exporter.own.of("eu")
    await exporter.reload(reloading.deployment.configs("us"))
    await exporter.reload(reloading.deployment.configs("us", "eu"))
    old.sync_ended(1.0, ok=True)
    found = await samples(exporter)
    assert value(found, "spinner_exporter_sync_duration_seconds_count", runtime="eu") == 1


async def test_no_request_reaches_the_runtime_under_a_config_that_was_replaced(reloading: Reloading) -> None:
    old = reloading.exporter.runtimes["eu"]
    await reloading.exporter.reload(reloading.deployment.configs("us"))
    reloading.deployment.runtimes["eu"].requests.clear()
    assert await old.refresh(1), "the result of the last read"
    assert await old.projects(1) == {"p1": "Sales eu"}
    assert reloading.deployment.runtimes["eu"].requests == []


async def test_two_generations_never_read_one_runtime_at_the_same_time(reloading: Reloading) -> None:
    deployment, exporter = reloading.deployment, reloading.exporter
    for name, gate in deployment.gates.items():
        gate.clear()
        deployment.waiting[name].clear()
    first = asyncio.create_task(samples(exporter))
    for waiting in deployment.waiting.values():
        await waiting.wait()
    before = exporter.runtimes
    reload = asyncio.create_task(exporter.reload(deployment.configs()))
    while exporter.runtimes is before:  # noqa: ASYNC110 - the swap sets no event
        await asyncio.sleep(0)
    for waiting in deployment.waiting.values():
        waiting.clear()
    second = asyncio.create_task(samples(exporter))
    for waiting in deployment.waiting.values():
        await waiting.wait()
    for gate in deployment.gates.values():
        gate.set()
    await asyncio.gather(first, second, reload)
    assert deployment.most_lists_in_progress == 1


async def test_reloads_that_overlap_are_applied_one_after_the_other(tmp_path: Path) -> None:
    deployment = Deployment()
    deployment.runtimes["eu"].put(status="completed", endedAt=deployment.clock())
    exporter = deployment.exporter(storage=tmp_path)
    await samples(exporter)
    await asyncio.gather(exporter.reload(deployment.configs("us")), exporter.reload(deployment.configs("us", "eu")))
    deployment.clock.advance(10)
    deployment.runtimes["eu"].put("run-2", status="completed", endedAt=deployment.clock())
    found = await samples(exporter)
    assert value(found, "spinner_runs_finished_total", runtime="eu", status="completed") == 2, "the state was lost"
    assert value(found, "spinner_exporter_storage_failures_total", runtime="eu") == 0, "the file had been closed"
    await exporter.close()


async def test_a_list_that_cannot_be_read_after_a_reload_does_not_drop_what_was_probed(reloading: Reloading) -> None:
    deployment, exporter = reloading.deployment, reloading.exporter
    deployment.runtimes["eu"].put("run-eu", status="completed", endedAt=deployment.clock())
    await exporter.probe("eu", "p1")
    await exporter.reload(deployment.configs())
    store = exporter.runtimes["eu"].probes.held["p1"].store
    deployment.runtimes["eu"].interfere = lambda request: httpx.Response(500)
    with pytest.raises(UnreadableError):
        await exporter.probe("eu", "p1")
    deployment.runtimes["eu"].interfere = lambda request: None
    deployment.clock.advance(10)
    await exporter.probe("eu", "p1")
    assert exporter.runtimes["eu"].probes.held["p1"].store is store
