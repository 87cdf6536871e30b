"""What a scrape costs in function calls, which are the same on every machine, however busy it is.

`make bench` measures time; these tests catch a change that makes a scrape go run by run again.
"""

import asyncio
import gc
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from exporter.metrics.catalogue import ScrapeContext
from exporter.metrics.exporter_metrics import ExporterMetrics
from exporter.metrics.exposition import Exposition
from exporter.metrics.formats import OPENMETRICS
from exporter.runs.clock import TOLERANCE
from exporter.runs.store import Store
from exporter.runtime.model import RunSnapshot
from exporter.status import Status
from tests.builders import NOON, RUNTIME, Clock, counts, read_project, snapshot, store

OPEN = 20


def calls(work: Callable[[], Any]) -> int:
    """Return how many functions the work calls, in Python and in C."""
    counted = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    gc.disable()  # What runs when garbage is collected does not belong to the work.
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
        gc.enable()
    return counted


class Bench:
    """Many runs that have ended, and a few that have not."""

    def __init__(self, ended: int) -> None:
        self.clock = Clock(NOON + 3600)
        self.store: Store = store(self.clock, limits={"runs": 100_000}, retention=7200.0)
        runs = [self.run(number, over=number >= OPEN) for number in range(ended + OPEN)]
        self.commit(runs)
        self.exposition = Exposition(ExporterMetrics(version="0", wall=self.clock))
        self.scrape()

    def run(self, number: int, *, over: bool, finished: int = 3) -> RunSnapshot:
        return snapshot(
            f"run-{number}",
            status=Status.COMPLETED if over else Status.RUNNING,
            updated_at=self.clock(),
            ended_at=NOON + number / 10 if over else None,
            records=counts(finished),
        )

    def commit(self, runs: list[RunSnapshot]) -> None:
        now = self.clock()
        read_project(self.store, "p1", [(run, now) for run in runs], as_of=now, horizon=NOON - 3600)

    def scrape(self) -> None:
        page = self.exposition.render({RUNTIME: ScrapeContext(self.store, self.store.clock, api_up=True)}, OPENMETRICS)
        self.size = sum(map(len, page.pieces()))
        asyncio.run(page.gzip())

    def scrape_with_changes(self) -> None:
        """Scrape after all open runs made progress and one of them ended."""
        self.store.expire()
        self.commit([self.run(number, over=False, finished=5) for number in range(1, OPEN)] + [self.run(0, over=True)])
        self.scrape()


@pytest.mark.parametrize("scrape", [Bench.scrape, Bench.scrape_with_changes])
def test_a_scrape_costs_the_same_however_many_runs_have_ended(scrape: Callable[[Bench], None]) -> None:
    few, many = Bench(ended=256), Bench(ended=4096)
    costs = []
    for bench in (few, many):
        bench.clock.advance(15)
        costs.append(calls(lambda bench=bench: scrape(bench)))  # type: ignore[misc]
    assert many.size > 10 * few.size
    assert costs[1] < 1.5 * costs[0], (
        f"a scrape of 4,096 ended runs calls {costs[1]:,} functions, one of 256 {costs[0]:,}: something goes run by run"
    )


def test_only_what_changes_with_time_is_rendered_again() -> None:
    bench = Bench(ended=1024)
    unchanged = calls(bench.scrape)
    bench.clock.advance(15)
    moved = calls(bench.scrape) - unchanged
    assert moved < OPEN * 10, f"{moved / OPEN:.0f} more calls for each open run when only time has passed"


def test_a_clock_that_seems_to_jitter_renders_nothing_again() -> None:
    bench = Bench(ended=1024)
    for _ in range(2):  # The first one also does what Python does once, such as importing.
        unchanged = calls(bench.scrape)
    for jitter in (TOLERANCE, -TOLERANCE, 0.3):
        bench.store.clock.begin()
        bench.store.clock.observe(bench.clock() + jitter)
        assert calls(bench.scrape) < 1.1 * unchanged


def test_a_run_that_is_removed_costs_its_chunk_and_no_other() -> None:
    costs = []
    for ended in (1024, 4096):
        bench = Bench(ended=ended)
        bench.store.drop_run("p1", f"run-{OPEN + 5}")
        costs.append(calls(bench.scrape))
    assert costs[1] < 1.5 * costs[0], f"one removed run costs {costs[0]:,} calls of 1,024 runs, {costs[1]:,} of 4,096"


def test_a_sync_of_a_few_runs_costs_the_same_however_many_there_are() -> None:
    costs = []
    for ended in (256, 4096):
        bench = Bench(ended=ended)
        bench.clock.advance(15)

        def sync(bench: Bench = bench) -> None:
            bench.commit([bench.run(1, over=False, finished=7)])
            bench.store.expire()

        costs.append(calls(sync))
    assert costs[1] <= 1.1 * costs[0], f"{costs[0]:,} calls of 256 ended runs, {costs[1]:,} of 4,096"


def test_a_scrape_and_a_sync_cost_the_same_however_many_spinners_have_no_run() -> None:
    costs = []
    for idle in (64, 960):
        bench = Bench(ended=0)
        for number in range(idle):
            bench.commit([msgspec.structs.replace(bench.run(OPEN + number, over=True), spinner=f"Import {number}")])
        bench.clock.advance(7200)
        bench.commit([])
        bench.store.expire()
        bench.scrape()
        bench.clock.advance(15)
        costs.append(calls(bench.scrape_with_changes))
        assert len(list(bench.store.view.spinners())) == idle + 1
    assert costs[1] < 1.5 * costs[0], f"{costs[0]:,} calls of 64 spinners without runs, {costs[1]:,} of 960"
