"""Counters compared with the embedded runtime's ledger, after hours of work that was read over its HTTP API."""

from collections import Counter

import httpx
import pytest

from exporter.config import Config, SyncConfig
from exporter.service import Exporter
from exporter.service.monitored_runtime import Dependencies
from exporter.simulator import Engine, ManualTimeline, create_app, load_scenario
from exporter.status import Status
from tests.builders import RUNTIME, runtime_config

RETENTION = 3600.0


class Bench:
    """An embedded runtime and an exporter that reads it, both on a timeline that the test moves."""

    def __init__(self, scenario: str, *, scrape_interval: float, difference: float = 0.0) -> None:
        """`difference`: seconds by which the exporter's clock is ahead of the runtime's."""
        self.timeline = ManualTimeline()
        self.engine = Engine(load_scenario(scenario), seed=7, timeline=self.timeline)
        zero = self.timeline.start()
        self.scrape_interval = scrape_interval
        config = Config(
            runtime=runtime_config(),
            sync=SyncConfig(min_interval=0.0),  # type: ignore[arg-type]
        )
        transport = httpx.ASGITransport(create_app(self.engine, run_engine=False))
        clock = lambda: zero + self.timeline.now() + difference  # noqa: E731
        self.exporter = Exporter(
            {RUNTIME: config}, Dependencies(wall=clock, monotonic=self.timeline.now, transport=transport)
        )

    async def scrape(self) -> None:
        assert await self.exporter.refresh(), "the exporter could not read the runtime; its log says why"

    async def play(self, seconds: float) -> None:
        for _ in range(int(seconds / self.scrape_interval)):
            await self.timeline.advance(self.scrape_interval)
            await self.scrape()


@pytest.mark.parametrize("scenario", ["healthy", "provider-outage", "stalled"])
async def test_counters_and_gauges_equal_the_runtime_s_own_ledger(scenario: str) -> None:
    bench = Bench(scenario, scrape_interval=60)
    await bench.scrape()
    await bench.play(4 * 3600)
    await bench.scrape()
    ledger = [run for run in bench.engine.ledger.values() if run.ended_at >= -RETENTION]
    still_open = [run for run in bench.engine.jobs.values() if run.ended_at is None]
    assert len(ledger) > 10, f"the scenario {scenario} ends too few runs for this test to be meaningful"
    finished: Counter[tuple[str, str, str]] = Counter((run.project, run.spinner, run.status) for run in ledger)
    processed: Counter[tuple[str, str]] = Counter()
    for ended in ledger:
        processed[ended.project, "completed"] += ended.completed
        processed[ended.project, "failed"] += ended.failed
    for run in still_open:
        processed[run.project.name, "completed"] += run.completed
        processed[run.project.name, "failed"] += run.failed
    counted: Counter[tuple[str, str, str]] = Counter()
    counted_records: Counter[tuple[str, str]] = Counter()
    for shown in bench.exporter.runtimes[RUNTIME].store.view.spinners():
        for status, number in shown.counters.finished.items():
            counted[shown.project, shown.spinner, status.value] += number
        counted_records[shown.project, "completed"] += shown.counters.completed_records or 0
        counted_records[shown.project, "failed"] += shown.counters.failed_records or 0
    assert +counted == finished
    assert +counted_records == +processed
    shown_open = {shown.run.id for shown in bench.exporter.runtimes[RUNTIME].store.view.runs() if not shown.run.ended}
    assert shown_open == {run.id for run in still_open}
    assert all(shown.run.status is not Status.UNKNOWN for shown in bench.exporter.runtimes[RUNTIME].store.view.runs())


async def test_a_clock_that_is_ninety_seconds_off_changes_nothing_that_is_shown() -> None:
    pages = []
    for difference in (0.0, 90.0, -90.0):
        bench = Bench("healthy", scrape_interval=60, difference=difference)
        await bench.scrape()
        await bench.play(1800)
        now = bench.exporter.runtimes[RUNTIME].store.clock.now()
        pages.append(
            {
                shown.run.id: (shown.run.status, shown.run.duration(now))
                for shown in bench.exporter.runtimes[RUNTIME].store.view.runs()
            }
        )
    assert pages[0]
    assert pages[0] == pages[1] == pages[2]


@pytest.mark.parametrize("scenario", ["healthy", "stalled"])
async def test_the_records_that_are_named_as_waiting_are_those_of_the_runtime(scenario: str) -> None:
    bench = Bench(scenario, scrape_interval=60)
    await bench.scrape()
    store, names = bench.exporter.runtimes[RUNTIME].store, 0
    transport = httpx.ASGITransport(create_app(bench.engine, run_engine=False))
    async with httpx.AsyncClient(transport=transport, base_url="http://runtime.test") as api:
        for _ in range(180):
            await bench.play(60)
            for run in [run for run in bench.engine.jobs.values() if run.ended_at is None]:
                shown = store.view.run((run.project.id, run.id))
                response = await api.get(f"/api/v1/jobs/{run.id}/records", params={"status": "waiting"})
                told = {
                    each["id"]: (each["step"]["name"], each["attempts"], each["step"]["startedAt"])
                    for each in response.json()["items"]
                }
                longest = sorted(told, key=lambda record: (told[record][2], record))[:10]
                assert shown is not None
                kept = () if shown.waiting is None else shown.waiting.named
                assert [record.id for record in kept] == longest
                assert [(record.step, record.attempts) for record in kept] == [told[each][:2] for each in longest]
                assert (dict(shown.waiting.by_step) if shown.waiting else {}) == Counter(
                    step for step, _, _ in told.values()
                )
                names += len(kept)
    assert names > 100, f"too few records wait in {scenario} for this test to be meaningful"
