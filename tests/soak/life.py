"""Lives through days: time passes, things go wrong, and each day ends with measuring and comparing."""

import inspect
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from tests.metrics.test_exposition import samples
from tests.soak.organisation import DAY, HOUR
from tests.soak.plan import DAYS, Event
from tests.soak.report import Day
from tests.soak.world import World

INTERVAL = 300.0
"""Seconds between two scrapes while nothing goes wrong; a real Prometheus would scrape 20 times as often."""

CLOSE = 15.0
"""Seconds between the scrapes after an event, and at the end of a day."""


async def days(
    folder: Path, *, count: int, seed: int, projects: int, runs_per_day: int, plan: Sequence[Sequence[Event]] = DAYS
) -> AsyncIterator[Day]:
    """Live through days; yield each when it ends."""
    world = World(folder, seed=seed, projects=projects, runs_per_day=runs_per_day)
    await world.scrape()
    for number in range(1, count + 1):
        yield await _day(world, number, plan[(number - 1) % len(plan)])
    await world.close()


async def _day(world: World, number: int, events: Sequence[Event]) -> Day:
    ends, scrapes = world.organisation.time + DAY, list[float]()
    midnight = world.organisation.time
    for event in sorted(events, key=lambda event: event.hour):
        await _pass(world, midnight + event.hour * HOUR, scrapes)
        done = event.action(world)
        if inspect.isawaitable(done):
            await done
        for _ in range(4):
            world.advance(CLOSE)
            await world.scrape()
    # A read that was cut off by an event, and the zeros of a new spinner, need one more scrape.
    await _pass(world, ends - CLOSE, scrapes)
    world.advance(ends - world.organisation.time)
    page, _ = await world.scrape()
    shown = samples(str(page))
    wrong = world.organisation.truth.differences(shown)
    return Day.measured(
        number, [event.what for event in events], world, wrong=wrong, series=len(shown), scrapes=scrapes
    )


async def _pass(world: World, until: float, scrapes: list[float]) -> None:
    while world.organisation.time < until:
        world.advance(min(INTERVAL, until - world.organisation.time))
        _, took = await world.scrape()
        scrapes.append(took)
