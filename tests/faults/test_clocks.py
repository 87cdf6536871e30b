"""Clocks that are wrong for one response, set back, set forward or read twice: nothing is lost or counted twice."""

from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.builders import NOON
from tests.faults.bench import DAY, HOUR, Bench, bench
from tests.faults.server import Exchange, changes, dated
from tests.faults.test_times import mapped
from tests.metrics.test_exposition import Samples, value
from tests.scripted import rfc3339

RECORDS = {"total": 100, "completed": 3}

pytestmark = pytest.mark.usefixtures("each_way")


def finished(shown: Samples) -> float | None:
    return value(shown, "spinner_runs_finished_total", status="completed")


def completed(shown: Samples, run: str = "r") -> float | None:
    return value(shown, "spinner_run_records", run_id=run, state="completed")


def ends(made: Bench, run: str) -> None:
    """A run that starts and ends now, between two scrapes."""
    now = made.runtime.clock()
    made.runtime.put(run, status="completed", createdAt=now - 9, startedAt=now - 8, endedAt=now, records=RECORDS)


async def test_a_run_whose_last_change_was_once_in_the_future_goes_on() -> None:
    async with bench() as made:
        made.runtime.put("r", updated_at=NOON + 20 * HOUR, records=RECORDS)
        shown = await made.scrape()
        assert completed(shown) == 3
        assert value(shown, "spinner_run_last_progress_timestamp_seconds", run_id="r") == made.wall()
        for number in range(4, 8):
            made.play(30)
            made.runtime.put("r", records={"total": 100, "completed": number})
            shown = await made.scrape()
            assert completed(shown) == number, "the newest read decides"
            progress = value(shown, "spinner_run_last_progress_timestamp_seconds", run_id="r")
            assert progress == made.wall(), "or no silence would be seen for 20 hours"


@pytest.mark.parametrize("ahead", [2 * HOUR, -2 * HOUR, 20 * HOUR])
@pytest.mark.parametrize("path", ["", "/p1/jobs", "/projects"])
async def test_a_time_of_one_scrape_that_is_hours_off_changes_nothing(ahead: float, path: str) -> None:
    async with bench() as made:
        runtime = made.runtime
        for number in range(5):
            ends(made, f"early-{number}")
        runtime.put("r", records=RECORDS)
        for _ in range(3):
            await made.next()

        made.play(30)
        made.faulty.path, made.faulty.fault = path, dated(lambda: runtime.clock() + ahead)
        shown = await made.scrape()
        made.faulty.fault = None
        assert finished(shown) == 5
        assert value(shown, "spinner_runs", status="completed") == 5, "they ended two minutes ago"
        if ahead > 0:
            assert value(shown, "spinner_runtime_clock_offset_seconds") == 0, (
                "the responses before outvote the wrong ones"
            )
        ends(made, "late")
        runtime.put("r", records={"total": 100, "completed": 50})
        for _ in range(3):
            shown = await made.next()
        assert finished(shown) == 6
        assert completed(shown) == 50
        assert value(shown, "spinner_runs", status="completed") == 6
        assert value(shown, "spinner_runtime_clock_offset_seconds") == 0


@pytest.mark.parametrize("back", [60.0, HOUR, 8 * HOUR, 30 * DAY])
@pytest.mark.parametrize("interval", [30.0, 600.0])
async def test_a_runtime_whose_clock_is_set_back_goes_on_at_once(back: float, interval: float) -> None:
    async with bench() as made:
        made.runtime.put("r", records=RECORDS)
        for number in range(20):
            ends(made, f"early-{number}")
            await made.next(interval)
        await made.next(30)  # so that the next read is no sweep, which would show the run anyway
        made.runtime.clock.advance(-back)
        made.runtime.put("r", records={"total": 100, "completed": 50})
        for number in range(3):
            made.play(interval)
            ends(made, f"late-{number}")
            made.runtime.put("r", records={"total": 100, "completed": 51 + number})
            shown = await made.scrape()
            assert completed(shown) == 51 + number, "it is shown with the first scrape"
        shown = await made.next()
        assert finished(shown) == 23
        assert value(shown, "spinner_runtime_clock_offset_seconds") == -back
        progress = value(shown, "spinner_run_last_progress_timestamp_seconds", run_id="r")
        assert made.wall() - 40 <= (progress or 0) <= made.wall()
        made.play(2 * HOUR)
        await made.scrape()
        shown = await made.next()
        assert finished(shown) == 23
        assert value(shown, "spinner_runs", status="completed") == 0, "ends in the future leave as well"


@pytest.mark.parametrize("back", [HOUR, 8 * HOUR])
async def test_a_run_that_is_silent_when_the_clock_is_set_back_is_noticed(back: float) -> None:
    async with bench() as made:
        for number in range(4):
            made.runtime.put("r", records={"total": 100, "completed": 3 + number})
            shown = await made.next()
        before = value(shown, "spinner_run_stall_threshold_seconds", run_id="r")
        made.runtime.clock.advance(-back)
        for _ in range(60):
            shown = await made.next(60)
            assert value(shown, "spinner_run_stall_threshold_seconds", run_id="r") == before, "an outage is made up"
        progress = value(shown, "spinner_run_last_progress_timestamp_seconds", run_id="r")
        assert made.wall() - (progress or 0) >= 58 * 60, "or its silence would be seen only hours later"
        assert value(shown, "spinner_last_start_timestamp_seconds") <= made.wall()  # type: ignore[operator]


async def test_a_clock_that_is_set_back_while_a_project_cannot_be_read_is_no_outage() -> None:
    async with bench() as made:
        for number in range(4):
            made.runtime.put("r", records={"total": 100, "completed": 3 + number})
            shown = await made.next()
        before = value(shown, "spinner_run_stall_threshold_seconds", run_id="r")

        async def fails(exchange: Exchange) -> None:
            await exchange.send(b"{}", status=500)

        made.faulty.path, made.faulty.fault = "/p1/jobs", fails
        made.runtime.clock.advance(-HOUR)
        for _ in range(6):
            await made.next()
        made.faulty.fault = None
        shown = await made.next()
        assert value(shown, "spinner_run_stall_threshold_seconds", run_id="r") == before, "an outage is made up"


@pytest.mark.parametrize("hours", [2, 30])
@pytest.mark.parametrize("with_storage", [False, True])
async def test_after_an_outage_of_hours_nothing_is_counted_twice(
    hours: int, with_storage: bool, tmp_path: Path
) -> None:
    async with bench(storage=tmp_path if with_storage else None) as made:
        for number in range(40):
            ends(made, f"early-{number}")
            await made.next(10)

        async def fails(exchange: Exchange) -> None:
            await exchange.send(b"{}", status=500)

        made.faulty.path, made.faulty.fault = "/api/v1", fails
        for _ in range(hours * 3):
            made.play(1200)
            ends(made, f"meanwhile-{made.wall()}")
            await made.scrape()
        made.faulty.fault = None
        await made.next()
        assert finished(await made.next()) == 40 + hours * 3
        assert value(await made.next(), "spinner_records_processed_total", state="completed") == 3 * (40 + hours * 3)


@pytest.mark.parametrize("step", [200.0, HOUR, DAY, -HOUR])
async def test_a_step_of_the_exporter_s_clock_is_no_outage(step: float) -> None:
    async with bench() as made:
        made.runtime.put("r", records=RECORDS)
        for number in range(4):
            made.runtime.put("r", records={"total": 100, "completed": 3 + number})
            shown = await made.next()
        before = value(shown, "spinner_run_stall_threshold_seconds", run_id="r")
        for _ in range(60):
            await made.page(240)
        made.wall.advance(step)
        shown = await made.next()
        assert value(shown, "spinner_run_stall_threshold_seconds", run_id="r") == before
        assert value(shown, "spinner_runtime_up") == 1
        shown = await made.next()
        assert value(shown, "spinner_run_stall_threshold_seconds", run_id="r") == before, "an outage is made up"
        progress = value(shown, "spinner_run_last_progress_timestamp_seconds", run_id="r")
        assert made.wall() - (progress or 0) == pytest.approx(240 * 60 + 60, abs=60)


@pytest.mark.parametrize("step", [200.0, HOUR, -HOUR])
async def test_a_restart_by_another_clock_is_no_outage(step: float, tmp_path: Path) -> None:
    async with bench(storage=tmp_path) as made:
        for number in range(4):
            made.runtime.put("r", records={"total": 100, "completed": 3 + number})
            shown = await made.next()
        for _ in range(60):
            await made.page(60)
        before = value(await made.next(), "spinner_run_stall_threshold_seconds", run_id="r")
        made.wall.advance(step)
        await made.restart()
        for _ in range(3):
            shown = await made.next()
            assert value(shown, "spinner_run_stall_threshold_seconds", run_id="r") == before, "an outage is made up"


async def test_while_the_api_fails_a_step_of_the_exporter_s_clock_drops_nothing() -> None:
    async with bench(sync={"stale_after": 600.0}) as made:
        for number in range(9):
            ends(made, f"early-{number}")
        made.runtime.put("r", records=RECORDS)
        await made.next()
        await made.next()

        async def fails(exchange: Exchange) -> None:
            await exchange.send(b"{}", status=500)

        made.faulty.path, made.faulty.fault = "/api/v1", fails
        made.wall.advance(DAY)
        shown = await made.next()
        assert value(shown, "spinner_runs", status="completed") == 9
        assert value(shown, "spinner_run_duration_seconds", run_id="r") == pytest.approx(95, abs=1)
        end = value(shown, "spinner_run_end_timestamp_seconds", run_id="early-1")
        assert made.wall() - (end or 0) == 90


async def test_a_heartbeat_from_the_future_is_as_old_as_it_has_been_seen() -> None:
    async with bench() as made:
        beat = rfc3339(NOON + 20 * HOUR)
        made.runtime.health = {"runtime": {"status": "up", "workers": 2, "lastHeartbeatAt": beat}}
        first = await made.next()
        shown = first
        for _ in range(10):
            shown = await made.next()
        age = made.wall() - (value(shown, "spinner_runtime_last_heartbeat_timestamp_seconds") or 0)
        assert age == 300, "a runtime that dies now would be noticed in 20 hours"


@pytest.mark.parametrize("begins", [3 * HOUR, 0.9 * HOUR, 0.2 * HOUR, -0.2 * HOUR])
async def test_the_hour_that_comes_twice_freezes_no_run(begins: float) -> None:
    """In Berlin the clocks go from 3:00 back to 2:00 on 2025-10-26 at 01:00 UTC."""
    end_of_summer = 1_761_440_400.0
    async with bench(runtime=lambda url: mapped(url, "local", "Europe/Berlin", every=True)) as made:
        for clock in (made.runtime.clock, made.wall):
            clock.now = end_of_summer - begins
        begun = made.runtime.clock()

        def local(page: Any) -> None:
            for job in page.get("items", ()):
                for field in ("createdAt", "startedAt", "endedAt", "updatedAt"):
                    if job.get(field):
                        time = datetime.fromisoformat(job[field]).astimezone(ZoneInfo("Europe/Berlin"))
                        job[field] = time.replace(tzinfo=None).isoformat()

        made.faulty.path, made.faulty.fault = "/p1/jobs", changes(local)
        worst = threshold = 0.0
        starts = set()
        for count in range(1, 3 * 30 + 1):
            made.play(120)
            made.runtime.put("r", createdAt=begun, startedAt=begun + 5, records={"total": 1000, "completed": count})
            if count % 5 == 0:
                ends(made, f"short-{count}")
            shown = await made.scrape()
            assert completed(shown) == count
            progress = value(shown, "spinner_run_last_progress_timestamp_seconds", run_id="r")
            starts.add(value(shown, "spinner_run_start_timestamp_seconds", run_id="r"))
            worst = max(worst, made.wall() - (progress or 0))
            threshold = max(threshold, value(shown, "spinner_run_stall_threshold_seconds", run_id="r") or 0)
        assert starts == {begun + 5}
        assert worst <= 120
        assert threshold <= 1100
        assert finished(shown) == 18
        assert value(shown, "spinner_run_finished_duration_seconds_sum") == pytest.approx(18 * 8)
