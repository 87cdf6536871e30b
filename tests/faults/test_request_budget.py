"""How many requests a scrape sends, however many runs fail or are to be read one by one."""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from exporter.config import Config, Duration, LimitsConfig, ProjectsConfig, SyncConfig
from tests.builders import RUNTIME, Clock
from tests.faults.bench import Bench, bench_of
from tests.faults.server import Exchange
from tests.metrics.test_exposition import Samples
from tests.scripted import ScriptedRuntime

PROJECTS = 4

OTHERS = PROJECTS + 4
"""Requests for health, plan, projects, the runs of each, and whether there is one list of the records of all runs."""


class Failing(Bench):
    """A bench with several projects, of whose runs records fail."""

    def fail(self, run_id: str, failed: int, **fields: Any) -> None:
        """Let records of a run fail, so that there are `failed` of them."""
        number = int(run_id.removeprefix("run-"))
        records = {"total": 1000, "completed": 5, "failed": failed}
        self.runtime.put(run_id, projectId=f"p{number % PROJECTS}", records=records, **fields)
        self.runtime.failed_records[run_id] = [
            {"id": f"{run_id}-{each}", "jobId": run_id, "status": "failed", "errorCode": "E1"} for each in range(failed)
        ]

    async def requested(self) -> tuple[Samples, list[str]]:
        """The samples of a scrape 15 s later, and the paths that it requested."""
        self.runtime.requests.clear()
        found = await self.next(15)
        return found, [path.removeprefix("/api/v1") for path in self.runtime.paths()]


@contextlib.asynccontextmanager
async def bench(**settings: Any) -> AsyncIterator[Failing]:
    runtime = ScriptedRuntime(Clock())
    runtime.projects = {f"p{number}": f"Project {number}" for number in range(PROJECTS)}
    settings.setdefault("sync", SyncConfig(min_interval=Duration(0), sweep_interval=Duration(1e6)))
    # What silent runs work on has a budget of its own (test_records_in_flight.py).
    settings["limits"] = msgspec.structs.replace(settings.get("limits", LimitsConfig()), record_in_flight_requests=0)
    async with bench_of(Failing, runtime, path="/records", **settings) as made:
        yield made


def named(found: Samples) -> Counter[str]:
    """How many failed records each run shows."""
    return Counter(dict(pairs)["run_id"] for name, pairs in found if name == "spinner_run_failed_record_info")


def read(paths: list[str]) -> list[str]:
    """The runs whose records were requested, in this order."""
    return [path.split("/")[2] for path in paths if path.startswith("/jobs/") and path.endswith("/records")]


async def test_of_200_runs_whose_failed_count_changed_a_budget_is_read_in_each_scrape() -> None:
    async with bench() as made:
        await made.requested()
        for number in range(200):
            made.fail(f"run-{number}", 1)
        counts = []
        for scrape in range(4):
            found, paths = await made.requested()
            counts.append(len(paths))
            assert len(named(found)) == 50 * (scrape + 1)
        assert max(counts) <= OTHERS + LimitsConfig().failed_record_requests, f"{counts} requests"
        _, paths = await made.requested()
        assert read(paths) == []


async def test_the_newest_and_of_them_the_largest_are_read_first_over_all_projects() -> None:
    async with bench(limits=LimitsConfig(failed_record_requests=3), sync=SyncConfig(concurrency=1)) as made:
        await made.requested()
        for number, (age, failed) in enumerate([(9, 1), (3, 1), (5, 9), (3, 7), (5, 2), (3, 4)]):
            made.fail(f"run-{number}", failed, updated_at=made.runtime.clock() + 10 - age)
        order = [read((await made.requested())[1]) for _ in range(2)]
        assert order == [["run-3", "run-5", "run-1"], ["run-2", "run-4", "run-0"]]


async def test_a_run_that_waits_for_its_turn_keeps_what_it_shows() -> None:
    async with bench(limits=LimitsConfig(failed_record_requests=1)) as made:
        made.fail("run-0", 2)
        found, _ = await made.requested()
        assert named(found) == {"run-0": 2}
        made.fail("run-0", 3)
        made.play(1)
        made.fail("run-1", 1)
        found, paths = await made.requested()
        assert read(paths) == ["run-1"]
        assert named(found) == {"run-0": 2, "run-1": 1}
        found, _ = await made.requested()
        assert named(found) == {"run-0": 3, "run-1": 1}


@pytest.mark.parametrize("budget", [1, 2, 5])
async def test_when_all_change_all_the_time_each_gets_its_turn(budget: int) -> None:
    async with bench(limits=LimitsConfig(failed_record_requests=budget)) as made:
        seen: Counter[str] = Counter()
        for scrape in range(1, 60):
            for number in range(12):
                made.fail(f"run-{number}", scrape)
            _, paths = await made.requested()
            assert len(read(paths)) <= budget
            seen.update(read(paths))
        assert len(seen) == 12, f"{sorted(seen)}"
        assert min(seen.values()) >= budget


@pytest.mark.parametrize("status", [404, 500, 503])
async def test_runs_whose_records_cannot_be_read_cost_no_more_and_stop_no_other(status: int) -> None:
    """Without retries: the next scrape is one."""

    async def broken(exchange: Exchange) -> None:
        is_broken = int(exchange.request.url.path.split("/")[-2].removeprefix("run-")) < 30
        await exchange.send(status=status if is_broken else None)

    async with bench(limits=LimitsConfig(failed_record_requests=10)) as made:
        made.faulty.fault = broken
        await made.requested()
        for number in reversed(range(60)):
            made.fail(f"run-{number}", 1)
        for _ in range(12):
            found, paths = await made.requested()
            assert len(paths) <= OTHERS + 10
        assert len(named(found)) == 30


async def test_lists_of_several_pages_cost_a_request_for_each_and_are_shown_when_they_are_complete() -> None:
    async with bench(limits=LimitsConfig(failed_record_requests=12, failed_records_per_run=50)) as made:
        await made.requested()
        made.runtime.page_size = 5
        for number in range(6):
            made.fail(f"run-{number}", 23)  # five pages
        for _ in range(8):
            found, paths = await made.requested()
            assert len(read(paths)) <= 12
            assert set(named(found).values()) <= {23}, "the newest records can be on the last page"
        assert len(named(found)) == 6


async def test_a_list_with_more_pages_than_the_budget_is_read_as_far_as_it_suffices() -> None:
    async with bench(limits=LimitsConfig(failed_record_requests=3, failed_records_per_run=50)) as made:
        made.runtime.page_size = 5
        made.fail("run-0", 23)
        for _ in range(3):
            found, _ = await made.requested()
        assert named(found) == {"run-0": 15}
        assert read((await made.requested())[1]) == []


async def test_probed_projects_share_a_budget() -> None:
    settings: dict[str, Any] = {"projects": ProjectsConfig(on_probe=True)}
    settings["sync"] = SyncConfig(min_interval=Duration(5), sweep_interval=Duration(1e6))
    async with bench(limits=LimitsConfig(failed_record_requests=20), **settings) as made:
        for number in range(160):
            made.fail(f"run-{number}", 1)
        read_of: Counter[str] = Counter()
        for _ in range(40):
            made.play(15)
            made.runtime.requests.clear()
            for number in range(PROJECTS):
                await made.exporter.probe(RUNTIME, f"p{number}")
            paths = read([path.removeprefix("/api/v1") for path in made.runtime.paths()])
            assert len(paths) <= 20, f"{len(paths)} requests for failed records of probed projects"
            read_of.update(paths)
        assert len(read_of) == 160
        assert set(read_of.values()) == {1}


async def test_a_probed_project_of_which_all_fails_all_the_time_leaves_something_for_the_others() -> None:
    settings: dict[str, Any] = {"projects": ProjectsConfig(on_probe=True)}
    settings["sync"] = SyncConfig(min_interval=Duration(5), sweep_interval=Duration(1e6))
    async with bench(limits=LimitsConfig(failed_record_requests=4), **settings) as made:
        seen: Counter[str] = Counter()
        for scrape in range(1, 8):
            made.play(15)
            for number in range(0, 40, PROJECTS):
                made.fail(f"run-{number}", scrape)
            made.fail("run-1", 1)
            made.runtime.requests.clear()
            for number in range(PROJECTS):
                await made.exporter.probe(RUNTIME, f"p{number}")
            seen.update(read([path.removeprefix("/api/v1") for path in made.runtime.paths()]))
        assert seen["run-1"] == 1


async def test_runs_that_are_in_no_list_are_read_again_within_a_budget_and_each_in_its_turn() -> None:
    """An API that cannot list the open runs: each is read by its id."""
    async with bench() as made:
        jobs = msgspec.structs.replace(made.config.runtime.resources.jobs, active=None)
        described = msgspec.structs.replace(made.config.runtime.resources, jobs=jobs)
        runtime = msgspec.structs.replace(made.config.runtime, resources=described)
        limits = LimitsConfig(failed_records=0, rereads=10)
        sync = SyncConfig(min_interval=Duration(0), sweep_interval=Duration(120))
        await made.exporter.reload({RUNTIME: Config(runtime=runtime, sync=sync, limits=limits)})
        await made.requested()
        for number in range(35):
            made.runtime.put(f"run-{number}", projectId=f"p{number % PROJECTS}")
        await made.requested()
        made.play(600)
        await made.requested()  # its list begins before they were created
        made.play(120)
        ended: Counter[str] = Counter()
        for scrape in range(8):
            _, paths = await made.requested()
            read_again = [path.split("/")[2] for path in paths if path.startswith("/jobs/")]
            assert len(read_again) <= 10, f"{len(read_again)} runs read one by one"
            if scrape < 4:
                ended.update(read_again)
        assert len(ended) == 35
        assert set(ended.values()) == {1}, "some were read twice before others"
