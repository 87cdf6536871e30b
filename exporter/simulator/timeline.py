"""Story time: how fast it goes, and who moves it. Nothing here knows what happens in a story."""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from typing import Protocol

_GRAIN = 0.05
"""Real seconds that a sleeper on a `RealTimeline` sleeps at least: what falls due meanwhile is done at once."""

_PATIENCE = 0.5
"""Real seconds that it sleeps at most: something earlier may have come up meanwhile."""


class Timeline(Protocol):
    """Where a story stands, in seconds of story time; zero is when its API opens."""

    @property
    def speed(self) -> float:
        """Seconds of story time in a second of wall-clock time."""

    def start(self) -> float:
        """Let story time begin at zero, unless it has begun; return the wall-clock time (epoch seconds) of zero."""

    def now(self) -> float:
        """Return how many seconds of story time have gone by."""

    async def sleep_until(self, due: float) -> None:
        """Sleep until about `due`; may return sooner, so a caller looks at `now` again."""


class RealTimeline:
    """Story time that goes with a clock, `speed` times as fast; the clock is by default the event loop's."""

    def __init__(
        self,
        speed: float = 1.0,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        if not 0 < speed < float("inf"):
            raise ValueError("speed: expected a number above zero")
        self.speed = speed
        self._clock = clock
        self._wall = wall
        self._began: float | None = None
        self._zero = 0.0

    def start(self) -> float:
        """Begin at zero, unless begun; return the wall-clock time of zero."""
        if self._began is None:
            self._began = self._clock()
            self._zero = self._wall()
        return self._zero

    def now(self) -> float:
        """Return the seconds of story time since the start; 0 before it."""
        return 0.0 if self._began is None else (self._clock() - self._began) * self.speed

    async def sleep_until(self, due: float) -> None:
        """Sleep until `due`, but from 0.05 to 0.5 real seconds in any case."""
        await asyncio.sleep(min(max((due - self.now()) / self.speed, _GRAIN), _PATIENCE))


MONDAY_MORNING = 1_767_603_600.0
"""2026-01-05T09:00:00Z: a time like any other, the same in every test."""


class ManualTimeline:
    """Story time that stands still until a test moves it, so that no test sleeps or depends on luck."""

    def __init__(self, speed: float = 1.0, *, zero: float = MONDAY_MORNING) -> None:
        self.speed = speed
        self._zero = zero
        self._now = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._arrivals = itertools.count()

    def start(self) -> float:
        """Return the wall-clock time of zero; time goes by in `advance` alone."""
        return self._zero

    def now(self) -> float:
        """Return how far `advance` has moved the story, in seconds."""
        return self._now

    async def advance(self, seconds: float) -> None:
        """Move on, waking each sleeper at its time: the earlier first, and of two at one time the first to sleep.

        Whatever a sleeper's waking sets off goes on until it sleeps or ends before the next is woken.
        """
        target = self._now + seconds
        await _until_idle()
        while self._sleepers and self._sleepers[0][0] <= target:
            due, _, sleeper = heapq.heappop(self._sleepers)
            if sleeper.done():
                continue
            self._now = max(self._now, due)
            sleeper.set_result(None)
            await _until_idle()
        self._now = target

    async def sleep_until(self, due: float) -> None:
        """Sleep until `advance` comes to `due`."""
        sleeper = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (due, next(self._arrivals), sleeper))
        await sleeper


_TURNS = 8
"""Turns of the event loop after which nothing moves any more: asyncio cannot be asked, and a task that was woken
needs one to go on and few more to hand on to others, as long as nobody waits for the world outside."""


async def _until_idle() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)
