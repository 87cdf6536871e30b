"""What silent runs work on, read over real connections: what it grants, what it costs, and what cannot be read."""

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from exporter.config import Duration, LimitsConfig, ProjectsConfig, SyncConfig
from exporter.runs.activity import MOVED_FACTOR, TRIED_FACTOR
from exporter.runs.pace import AGE_FACTOR, STRAGGLER_FACTOR
from exporter.sync import record_lists, records_in_flight
from tests.builders import NOON, RUNTIME, Clock
from tests.faults.bench import Bench, bench_of, up
from tests.faults.server import Exchange, Fault, an_error, dated, failing, forbidden, hanging
from tests.metrics.test_exposition import Samples, samples, value
from tests.scripted import ScriptedRuntime

THRESHOLD = 1092.0
"""Seconds that these runs may be silent: little is known about them."""

HALF = THRESHOLD / 2


class Silent(Bench):
    """A bench with runs that finished their last record when they were started."""

    def start(self, run_id: str = "run-1", *, records: list[dict[str, Any]] | None = None, **fields: Any) -> None:
        """Start a run that works on `records`."""
        counts = {"total": 100, "pending": 98, "completed": 0, "failed": 0, "running": 2}
        now = self.runtime.clock()
        self.runtime.put(
            run_id, **{"createdAt": now, "startedAt": now, "lastProgressAt": now, "records": counts, **fields}
        )
        self.runtime.records_in_flight[run_id] = [] if records is None else records

    async def at(self, seconds: float) -> Samples:
        """The samples of a scrape so many seconds after noon, and what was requested for it."""
        self.runtime.requests.clear()
        return await self.next(NOON + seconds - self.runtime.clock())

    async def scraped_until(self, seconds: float, interval: float = 15.0) -> Samples:
        """The last samples of scrapes at an interval until so many seconds after noon."""
        while self.runtime.clock() + interval < NOON + seconds:
            await self.next(interval)
        return await self.at(seconds)

    @property
    def asked(self) -> list[str]:
        """The runs whose records in flight were requested for the last scrape."""
        return self.runtime.runs_asked("running")


@contextlib.asynccontextmanager
async def bench(**settings: Any) -> AsyncIterator[Silent]:
    settings.setdefault("sync", SyncConfig(min_interval=Duration(0), sweep_interval=Duration(1e6)))
    async with bench_of(Silent, ScriptedRuntime(Clock()), path="/records", **settings) as made:
        await made.next(0)
        yield made


def threshold(found: Samples, run_id: str = "run-1") -> float | None:
    return value(found, "spinner_run_stall_threshold_seconds", run_id=run_id)


def reads(found: Samples, result: str) -> float | None:
    return value(found, "spinner_exporter_records_in_flight_reads_total", result=result)


def record(began: float, *, step: int = 0, reached: float | None = None, attempts: int = 1, name: str = "") -> Any:
    """A record in flight; times are seconds after noon."""
    at = {"index": step, "name": name or f"step-{step}", "startedAt": NOON + (began if reached is None else reached)}
    return {"id": f"rec-{began}", "startedAt": NOON + began, "attempts": attempts, "step": at}


async def test_nothing_is_requested_before_half_of_the_threshold() -> None:
    async with bench() as made:
        made.start(records=[record(1)])
        found = await made.scraped_until(HALF - 1)
        assert made.asked == []
        assert threshold(found) == THRESHOLD
        assert value(found, "spinner_run_last_activity_timestamp_seconds") is None
        assert reads(found, "read") == 0
        found = await made.at(HALF + 1)
        assert made.asked == ["run-1"]
        assert reads(found, "read") == 1
        assert value(found, "spinner_run_last_activity_timestamp_seconds") == NOON + 1


async def test_nothing_is_requested_for_a_run_that_waits_or_has_ended_or_while_the_runtime_is_down() -> None:
    async with bench() as made:
        made.start("run-1", status="waiting")
        made.start("run-2", status="completed", endedAt=NOON)
        await made.scraped_until(HALF + 60)
        assert made.asked == []
        made.start("run-3", startedAt=NOON, lastProgressAt=NOON)
        made.runtime.health = {"runtime": {"status": "down", "lastHeartbeatAt": None}}
        await made.at(HALF + 75)
        assert made.asked == ["run-3"], "the health is kept after the reads of the same scrape"
        await made.scraped_until(HALF + 600)
        assert made.asked == []


async def test_a_step_moves_the_page_until_twice_the_threshold() -> None:
    async with bench() as made:
        made.start(records=[record(1)])
        for minute in range(0, 36, 3):
            made.runtime.records_in_flight["run-1"] = [record(1, step=minute // 3, reached=60 * minute + 1)]
            found = await made.scraped_until(60 * minute + 120)
            if 60 * minute + 120 > HALF:
                assert threshold(found) == pytest.approx(min(THRESHOLD + 60 * minute + 1, MOVED_FACTOR * THRESHOLD))
        assert threshold(found) == MOVED_FACTOR * THRESHOLD
        assert value(found, "spinner_run_last_activity_timestamp_seconds") == NOON + 33 * 60 + 1


@pytest.mark.parametrize("grows", [True, False])
async def test_records_that_only_begin_move_it_until_one_and_a_half_times_the_threshold(grows: bool) -> None:
    """Whether the others go on beside them, or are lost."""
    async with bench() as made:
        made.start()
        for minute in range(0, 40, 2):
            began = 60 * minute + 61
            new = record(began, step=1, reached=began + 10)
            made.runtime.records_in_flight["run-1"] = [
                *(made.runtime.records_in_flight["run-1"] if grows else ()), new
            ]  # fmt: skip
            found = await made.scraped_until(began + 20)
        assert threshold(found) == TRIED_FACTOR * THRESHOLD


async def test_a_record_that_is_tried_for_ever_moves_it_until_one_and_a_half_times_the_threshold() -> None:
    async with bench() as made:
        made.start()
        for minute in range(1, 40):
            made.runtime.records_in_flight["run-1"] = [record(1, step=1, reached=2, attempts=minute)]
            found = await made.scraped_until(60 * minute)
        assert threshold(found) == TRIED_FACTOR * THRESHOLD
        assert value(found, "spinner_run_record_in_flight_attempts") == 39


async def test_some_runtimes_tell_when_the_last_attempt_at_a_step_began() -> None:
    async with bench() as made:
        made.start()
        for minute in range(1, 40):
            made.runtime.records_in_flight["run-1"] = [record(1, step=1, reached=60 * minute - 50)]
            found = await made.scraped_until(60 * minute)
        # The first read cannot know that it is not the first attempt.
        assert threshold(found) == pytest.approx(TRIED_FACTOR * THRESHOLD, abs=10)


@pytest.mark.parametrize("listed", ["all", "part", "one without a start"])
async def test_records_that_began_long_before_the_silence_have_less_time_left(listed: str) -> None:
    async with bench() as made:
        made.start(records=[record(1)])
        for number in range(1, 16):
            done = {"total": 18, "pending": 0, "completed": number, "failed": 0, "running": min(10, 18 - number)}
            await made.at(360 * number)
            made.runtime.put("run-1", lastProgressAt=made.runtime.clock(), records=done)
        since = 360 * 15
        takes = (threshold(await made.next(15)) or 0.0) / STRAGGLER_FACTOR
        assert takes == pytest.approx(3000, rel=0.1), "up to ten at once, and one every six minutes"
        began = [since - 6000, since - 5000, since - 3000]
        made.runtime.records_in_flight["run-1"] = [record(each) for each in began]
        if listed == "part":
            made.runtime.records_in_flight["run-1"] += [record(began[0] - each) for each in range(5000)]
        elif listed == "one without a start":
            del made.runtime.records_in_flight["run-1"][0]["startedAt"]
        found = await made.scraped_until(since + 0.6 * STRAGGLER_FACTOR * takes, interval=120)
        assert reads(found, "read")
        left = AGE_FACTOR * takes - 3000 if listed == "all" else STRAGGLER_FACTOR * takes
        assert threshold(found) == pytest.approx(left)


async def test_without_activity_the_threshold_is_as_it_was() -> None:
    """As with workers that died: their records are running for ever."""
    async with bench() as made:
        made.start(records=[record(0, step=2, attempts=4)])
        found = await made.scraped_until(THRESHOLD + 60)
        assert threshold(found) == THRESHOLD
        assert value(found, "spinner_run_records_in_flight", step="step-2") == 1
        assert value(found, "spinner_run_oldest_record_in_flight_start_timestamp_seconds") == NOON


@pytest.mark.parametrize(
    ("change", "granted"),
    [
        (lambda each: each.update(attempts=2), True),
        (lambda each: each.update(step={"index": 1, "name": "send"}), True),
        (lambda each: each.update(id="rec-2"), True),
        (lambda each: each.update(startedAt=None), False),
    ],
)
async def test_what_has_no_time_is_known_from_the_difference_of_two_reads(
    change: Callable[[dict[str, Any]], None], granted: bool
) -> None:
    async with bench() as made:
        only = {"id": "rec-1", "attempts": 1, "step": {"index": 0, "name": "find"}}
        made.start(records=[only])
        found = await made.scraped_until(HALF + 30)
        assert threshold(found) == THRESHOLD, "the first read has nothing to compare with"
        change(only)
        at = HALF + 30 + 15 * 8
        found = await made.scraped_until(at)
        shown = value(found, "spinner_run_last_activity_timestamp_seconds")
        assert (shown is not None and NOON + HALF + 30 < shown <= NOON + at) == granted
        assert (threshold(found) != THRESHOLD) == granted
        assert value(found, "spinner_run_oldest_record_in_flight_start_timestamp_seconds") is None


async def test_of_how_many_records_the_last_read_is_remembered_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose records are forgotten has nothing to compare with, like one that is read for the first time."""
    monkeypatch.setattr(records_in_flight, "MAX_SEEN", 1)
    async with bench() as made:
        records = {each: {"id": f"rec-{each}", "attempts": 1, "step": {"index": 0, "name": "find"}} for each in "ab"}
        for run_id, each in records.items():
            made.start(run_id, records=[each])
        await made.scraped_until(HALF + 30)
        for each in records.values():
            each["attempts"] = 2
        found = await made.scraped_until(HALF + 30 + 15 * 8)
        granted = [run_id for run_id in records if threshold(found, run_id) != THRESHOLD]
        assert len(granted) == 1, "one record fits"


async def test_a_time_that_is_yet_to_come_grants_nothing() -> None:
    async with bench() as made:
        made.start(records=[record(HALF + 3000), record(1, step=1, reached=HALF + 3000)])
        found = await made.scraped_until(HALF + 200)
        assert threshold(found) == THRESHOLD + 1


@pytest.mark.parametrize("ahead", [-5 * 3600.0, 3 * 86400.0])
async def test_the_clock_of_the_runtime_does_not_matter(ahead: float) -> None:
    async with bench() as made:
        made.wall.advance(-ahead)
        for _ in range(8):
            await made.next(15)
        began = made.runtime.clock() - NOON
        made.start(records=[record(began, step=1, reached=began + 300)])
        found = await made.scraped_until(began + HALF + 60)
        assert threshold(found) == pytest.approx(THRESHOLD + 300)
        shown = value(found, "spinner_run_last_activity_timestamp_seconds")
        assert shown == pytest.approx(made.wall() - HALF - 60 + 300)


async def garbage(exchange: Exchange) -> None:
    await exchange.send(b'{"items": [{"id": "rec-1", "status": "running", "attempts": {}}], "asOf": 7}')


@pytest.mark.parametrize("fault", [failing, hanging, garbage, an_error, forbidden])
async def test_a_list_that_cannot_be_read_grants_nothing_and_costs_no_project_its_up(
    fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records_in_flight, "MAX_SECONDS", 0.2)
    async with bench() as made:
        made.start(records=[record(300, step=1, reached=400)])
        made.faulty.fault = fault
        found = await made.at(HALF + 15)
        assert made.asked == ["run-1"]
        assert threshold(found) == THRESHOLD
        assert value(found, "spinner_run_records_in_flight") is None
        assert up(found) == (1, 1, None)
        assert (reads(found, "failed"), reads(found, "read")) == (1, 0)
        made.faulty.fault = None
        found = await made.scraped_until(HALF + 150)
        assert threshold(found) == TRIED_FACTOR * THRESHOLD or threshold(found) == THRESHOLD + 400
        assert reads(found, "failed") == 1


async def test_a_list_that_hangs_does_not_hold_up_the_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_in_flight, "MAX_SECONDS", 0.2)
    async with bench() as made:
        made.start(records=[record(1)])
        made.faulty.fault = hanging
        made.play(HALF + 15)
        # Less than the ten seconds after which the request itself ends.
        found = samples(str(await made.exporter.page(max_wait=6)))
        assert made.asked == ["run-1"]
        assert up(found) == (1, 1, None)


async def test_lists_that_fail_stop_neither_other_reads_of_the_scrape_nor_other_runs_for_ever() -> None:
    """The circuit breaker would stop everything after five failures in a row."""

    async def broken(exchange: Exchange) -> None:
        is_broken = "run-1" in exchange.request.url.path and "status=running" in str(exchange.request.url)
        await exchange.send(status=500 if is_broken else None)

    async with bench() as made:
        for number in range(10, 30):
            counts = {"total": 100, "completed": 0, "running": 2, "failed": 1}
            made.start(f"run-{number}", lastProgressAt=NOON - 30 + number, startedAt=NOON - 60)
            made.runtime.put(f"run-{number}", records=counts)
            made.runtime.failed_records[f"run-{number}"] = [{"id": "rec", "jobId": f"run-{number}", "status": "failed"}]
        made.faulty.fault = broken
        found = await made.at(HALF + 15)
        assert len(made.asked) == record_lists.MAX_CONCURRENT
        assert reads(found, "postponed") == 16
        assert up(found) == (1, 1, None)
        named = {dict(pairs)["run_id"] for name, pairs in found if name == "spinner_run_failed_record_info"}
        assert len(named) == 20
        for _ in range(8):
            found = await made.next(15)
        seen = {dict(pairs)["run_id"] for name, pairs in found if name == "spinner_run_records_in_flight"}
        assert seen == {f"run-{number}" for number in range(20, 30)}


async def test_what_was_read_before_a_failure_is_shown_until_it_is_stale_and_what_it_showed_stays() -> None:
    async with bench() as made:
        made.start(records=[record(1, step=1, reached=300)])
        await made.at(HALF + 15)
        made.faulty.fault = failing
        found = await made.scraped_until(HALF + 15 + 240)
        assert value(found, "spinner_run_records_in_flight") == 1
        found = await made.scraped_until(HALF + 15 + 420)
        assert value(found, "spinner_run_records_in_flight") is None
        assert threshold(found) == THRESHOLD + 300


@pytest.mark.parametrize("status", [400, 405, 501])
async def test_a_runtime_without_the_list_is_not_asked_again_for_ten_minutes(status: int) -> None:
    async def unknown(exchange: Exchange) -> None:
        await exchange.send(status=status)

    async with bench() as made:
        made.start(records=[record(1, step=1, reached=100)])
        made.faulty.fault = unknown
        await made.at(HALF + 15)
        assert made.asked == ["run-1"]
        begun = made.runtime.clock()
        while made.runtime.clock() < begun + record_lists.RETRY_AFTER - 15:
            made.runtime.requests.clear()
            found = await made.next(15)
            assert made.asked == []
        assert threshold(found) == THRESHOLD
        assert [line for line in made.problems if "records in flight" in line] == []
        made.faulty.fault = None
        found = await made.at(HALF + 15 + record_lists.RETRY_AFTER + 15)
        assert made.asked == ["run-1"]
        assert threshold(found) == THRESHOLD + 100


async def test_what_could_not_be_read_before_the_list_is_missing_is_no_problem() -> None:
    """It would stay one, since nothing is read that could show that it is over."""

    async def missing(exchange: Exchange) -> None:
        if "run-1/" in exchange.request.url.path:
            await exchange.send(b"{}")
        else:
            await exchange.send(status=405)

    async with bench(sync=SyncConfig(min_interval=Duration(0), concurrency=1)) as made:
        for number in (1, 2):
            made.start(f"run-{number}")
        made.faulty.fault = missing
        await made.at(HALF + 15)
        assert made.asked == ["run-1", "run-2"]
        assert [line for line in made.problems if "records in flight" in line] == []


async def test_a_run_that_is_gone_does_not_mean_that_the_list_is_missing_but_three_do() -> None:
    async def gone(exchange: Exchange) -> None:
        await exchange.send(status=404 if "run-1/" in exchange.request.url.path else None)

    async def all_gone(exchange: Exchange) -> None:
        await exchange.send(status=404)

    async with bench() as made:
        for number in range(1, 5):
            made.start(f"run-{number}", records=[record(1, step=1, reached=100)])
        made.faulty.fault = gone
        found = await made.at(HALF + 15)
        assert sorted(made.asked) == ["run-1", "run-2", "run-3", "run-4"]
        assert [threshold(found, f"run-{number}") for number in (1, 2)] == [THRESHOLD, THRESHOLD + 100]
    async with bench(sync=SyncConfig(min_interval=Duration(0), concurrency=1)) as made:
        for number in range(1, 9):
            made.start(f"run-{number}")
        made.faulty.fault = all_gone
        await made.at(HALF + 15)
        assert len(made.asked) == record_lists.REFUSALS


async def test_records_of_another_status_are_ignored_where_the_filter_is() -> None:
    async with bench() as made:
        done = {**record(400, step=1, reached=500), "status": "completed"}
        made.start(records=[done, {**done, "status": "pending"}, {**done, "status": None}, record(1)])
        found = await made.at(HALF + 15)
        assert threshold(found) == THRESHOLD + 1
        assert value(found, "spinner_run_records_in_flight") == 1


async def test_a_budget_is_read_in_each_scrape_and_first_the_run_that_pages_next() -> None:
    async with bench(limits=LimitsConfig(record_in_flight_requests=5), sync=SyncConfig(concurrency=1)) as made:
        for number in range(30):
            made.start(f"run-{number}", lastProgressAt=NOON + number)
        found = await made.at(HALF + 40)
        assert made.asked == [f"run-{number}" for number in range(5)]
        assert reads(found, "postponed") == 25
        seen = set(made.asked)
        for _ in range(5):
            await made.next(15)
            seen.update(made.asked)
        assert seen == {f"run-{number}" for number in range(30)}, "each gets its turn"


async def test_runs_that_count_as_stalled_take_turns_behind_the_others() -> None:
    async with bench(limits=LimitsConfig(record_in_flight_requests=2), sync=SyncConfig(concurrency=1)) as made:
        for number in range(5):
            made.start(f"old-{number}", startedAt=NOON - 3000, lastProgressAt=NOON - 3000)
        made.start("new", lastProgressAt=NOON)
        seen: list[str] = []
        for _ in range(4):
            await made.scraped_until(made.runtime.clock() - NOON + 61, interval=61)
            seen += made.asked
        assert sorted(seen[:5]) == [f"old-{number}" for number in range(5)]
        await made.at(HALF + 20)
        assert made.asked[0] == "new"


async def test_of_very_many_records_a_few_pages_are_read_and_what_they_leave_open_is_unknown() -> None:
    async with bench() as made:
        many = [record(each / 1000, step=each % 40) for each in range(5000)]
        made.start(records=[*many, record(1, step=1, reached=200)])
        found = await made.at(HALF + 15)
        assert len(made.asked) == record_lists.MAX_PAGES
        assert value(found, "spinner_run_records_in_flight") is None
        assert value(found, "spinner_run_oldest_record_in_flight_start_timestamp_seconds") is None
        named = [pairs for name, pairs in found if name == "spinner_run_record_in_flight_attempts"]
        assert len(named) == LimitsConfig().failed_records_per_run
        assert threshold(found) == pytest.approx(THRESHOLD + 2, abs=0.1)


async def test_a_page_of_very_many_records_is_cut() -> None:
    async with bench() as made:
        made.runtime.page_size = 10_000
        made.start(records=[record(each / 1000, step=each % 40) for each in range(5000)])
        found = await made.at(HALF + 15)
        assert made.asked == ["run-1"]
        assert value(found, "spinner_run_records_in_flight") is None
        assert len([1 for name, _ in found if name == "spinner_run_record_in_flight_attempts"]) == 10


async def test_steps_and_names_are_limited_like_failures_and_failed_records() -> None:
    limits = LimitsConfig(failure_groups=3, failed_records_per_run=4, failed_records=6)
    async with bench(limits=limits) as made:
        for run_id in ("run-1", "run-2"):
            made.start(run_id, records=[record(each / 10, step=each) for each in range(9)])
        found = await made.at(HALF + 15)
        by_step = {
            dict(pairs)["step"]: number
            for (name, pairs), number in found.items()
            if name == "spinner_run_records_in_flight" and ("run_id", "run-1") in pairs
        }
        assert by_step == {"step-0": 1, "step-1": 1, "step-2": 1, "other": 6}
        assert len([1 for name, _ in found if name == "spinner_run_record_in_flight_attempts"]) == 6
    async with bench(limits=LimitsConfig(failed_records_per_run=0)) as made:
        made.start(records=[record(1, step=1, reached=100)])
        found = await made.at(HALF + 15)
        assert value(found, "spinner_run_records_in_flight") == 1
        assert [pairs for name, pairs in found if "record_id" in dict(pairs)] == []


async def test_an_address_is_neither_a_label_nor_in_a_log_line() -> None:
    async with bench() as made:
        made.start(records=[{**record(1), "id": "jo@example.com"}, {**record(2), "id": "x" * 1000}])
        text = await made.page(HALF + 15)
        assert "example.com" not in text
        assert "hidden-" in text
        assert "example.com" not in str(made.lines)


async def test_no_record_in_flight_is_known_and_not_unknown() -> None:
    async with bench() as made:
        made.start()
        found = await made.at(HALF + 15)
        assert value(found, "spinner_run_records_in_flight", step="") == 0


async def test_progress_ends_what_is_shown_and_what_was_granted() -> None:
    async with bench() as made:
        made.start(records=[record(1, step=1, reached=400)])
        found = await made.at(HALF + 15)
        assert threshold(found) == THRESHOLD + 400
        now = made.runtime.clock()
        made.runtime.put("run-1", records={"total": 100, "completed": 1, "running": 2}, lastProgressAt=now)
        found = await made.next(15)
        assert made.asked == ["run-1"] or made.asked == []
        for name in ("spinner_run_records_in_flight", "spinner_run_last_activity_timestamp_seconds"):
            assert value(found, name) is None
        made.runtime.put("run-1", status="completed", endedAt=now)
        found = await made.next(15)
        assert not [name for name, _ in found if "in_flight" in name and name.startswith("spinner_run_")]


@pytest.mark.parametrize("is_told", [True, False])
async def test_a_restart_costs_no_page(is_told: bool, tmp_path: Path) -> None:
    """Times are read anew; what was known from differences only is saved."""
    async with bench(storage=tmp_path) as made:
        only = record(1, step=1, reached=400) if is_told else {"id": "rec-1", "attempts": 1}
        made.start(records=[only])
        await made.at(HALF + 15)
        only["attempts"] = 2
        before = await made.scraped_until(HALF + 200)
        extended = threshold(before)
        assert extended is not None
        assert extended > THRESHOLD
        await made.restart()
        made.faulty.fault = None if is_told else failing
        assert threshold(await made.next(15)) == extended


async def test_probed_projects_share_a_budget() -> None:
    settings: dict[str, Any] = {"projects": ProjectsConfig(on_probe=True)}
    settings["sync"] = SyncConfig(min_interval=Duration(5), sweep_interval=Duration(1e6))
    async with bench(limits=LimitsConfig(record_in_flight_requests=8), **settings) as made:
        made.runtime.projects = {f"p{number}": f"Project {number}" for number in range(4)}
        for number in range(40):
            made.start(f"run-{number}", projectId=f"p{number % 4}", records=[record(1, step=1, reached=100)])
        made.play(HALF + 15)
        made.runtime.requests.clear()
        pages = [str(await made.exporter.probe(RUNTIME, f"p{number}")) for number in range(4)]
        assert 4 <= len(made.asked) <= 8
        shown = samples(pages[0])
        assert [number for (name, _), number in shown.items() if name == "spinner_run_records_in_flight"] == [1] * 4


async def test_what_it_costs_is_what_the_documentation_says() -> None:
    """With a scrape every 15 seconds: 18 requests until a run pages after 18 minutes, and one per minute after that."""
    async with bench() as made:
        made.start()
        asked = [0, 0]
        for scrape in range(1, 4 * 78 + 2):
            made.runtime.requests.clear()
            await made.next(15)
            asked[scrape * 15 > THRESHOLD] += len(made.asked)
        assert asked == [18, 60]
        made.runtime.put("run-1", status="completed", endedAt=made.runtime.clock())
        for number in range(200):
            made.start(f"busy-{number}")
        for _ in range(8):
            for number in range(200):
                now = made.runtime.clock()
                counts = {"total": 100, "completed": int(now - NOON), "running": 2}
                made.runtime.put(f"busy-{number}", lastProgressAt=now, records=counts)
            made.runtime.requests.clear()
            await made.next(60)
            assert made.asked == [], "200 runs that are not silent cost nothing"


async def test_a_clock_that_is_set_back_leaves_no_activity_that_is_yet_to_come() -> None:
    async with bench() as made:
        made.start(records=[record(1, step=1, reached=500)])
        await made.at(HALF + 15)
        made.runtime.records_in_flight["run-1"] = []
        made.faulty.path, made.faulty.fault = "", dated(lambda: made.runtime.clock() - 3600)
        for _ in range(8):
            found = await made.next(15)
        shown = value(found, "spinner_run_last_activity_timestamp_seconds")
        assert shown is None or shown <= made.wall()
