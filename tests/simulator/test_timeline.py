"""Scenario time."""

import asyncio

import pytest

from exporter.simulator import Engine, ManualTimeline, RealTimeline, load_scenario


async def test_sleepers_wake_in_order_of_due_time() -> None:
    timeline = ManualTimeline()
    woken: list[tuple[str, float]] = []

    async def sleep(name: str, due: float) -> None:
        await timeline.sleep_until(due)
        woken.append((name, timeline.now()))

    async with asyncio.TaskGroup() as tasks:
        for name, due in (("late", 30.0), ("early", 10.0), ("second of two", 20.0), ("after it", 20.0)):
            tasks.create_task(sleep(name, due))
        await timeline.advance(60)
    assert woken == [("early", 10.0), ("second of two", 20.0), ("after it", 20.0), ("late", 30.0)]
    assert timeline.now() == 60


async def test_everything_that_a_sleeper_starts_ends_before_the_next_one_wakes() -> None:
    timeline = ManualTimeline()
    seen: list[str] = []

    async def repeat() -> None:
        for due in (10.0, 20.0):
            await timeline.sleep_until(due)
            seen.append(f"woken at {timeline.now():.0f}")
            await asyncio.sleep(0)
            seen.append(f"done at {timeline.now():.0f}")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(repeat())
        await timeline.advance(25)
    assert seen == ["woken at 10", "done at 10", "woken at 20", "done at 20"]


async def test_a_cancelled_sleeper_is_skipped() -> None:
    timeline = ManualTimeline()
    task = asyncio.create_task(timeline.sleep_until(5))
    await timeline.advance(1)
    task.cancel()
    await timeline.advance(10)
    assert task.cancelled()


def test_real_time_starts_at_zero_and_follows_the_clock_at_its_speed() -> None:
    clock = [100.0]
    timeline = RealTimeline(60, clock=lambda: clock[0], wall=lambda: 5000.0)
    clock[0] = 130.0
    assert timeline.now() == 0
    assert timeline.start() == 5000.0
    clock[0] = 132.5
    assert timeline.now() == 150
    assert timeline.start() == 5000.0  # a second start has no effect
    assert timeline.now() == 150


@pytest.mark.parametrize("speed", [0, -1, float("inf"), float("nan")])
def test_an_invalid_speed_is_rejected(speed: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        RealTimeline(speed)


async def test_a_running_engine_keeps_up_without_accesses() -> None:
    timeline = ManualTimeline()
    watched = Engine(load_scenario("healthy"), timeline=timeline)
    running = asyncio.create_task(watched.run())
    await timeline.advance(600)
    running.cancel()
    alone_timeline = ManualTimeline()
    alone = Engine(load_scenario("healthy"), timeline=alone_timeline)
    await alone_timeline.advance(600)
    assert list(watched.jobs) == list(alone.jobs)
    assert [run.updated_at for run in watched.jobs.values()] == [run.updated_at for run in alone.jobs.values()]
