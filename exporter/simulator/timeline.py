"""Scenario time: its speed, and what advances it."""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from typing import Protocol

_SHORTEST_SLEEP = 0.05
"""Shortest sleep on a `RealTimeline`, in real seconds: events that are due in the meantime run together."""

_LONGEST_SLEEP = 0.5
"""Longest sleep, in real seconds: an earlier event may have been scheduled in the meantime."""


class Timeline(Protocol):
    """The current scenario time, in seconds; zero is when the API starts."""

    @property
    def speed(self) -> float:
        """Seconds of scenario time per second of wall-clock time."""

    def start(self) -> float:
        """Start scenario time at zero, unless started; return the wall-clock time (epoch seconds) of zero."""

    def now(self) -> float:
        """Return the current scenario time, in seconds."""

    async def sleep_until(self, due: float) -> None:
        """Sleep until about `due`; may return earlier, so callers check `now` again."""


class RealTimeline:
    """Scenario time that follows a clock, `speed` times as fast."""

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
        self._started_at: float | None = None
        self._zero = 0.0

    def start(self) -> float:
        """Start at zero, unless started; return the wall-clock time of zero."""
        if self._started_at is None:
            self._started_at = self._clock()
            self._zero = self._wall()
        return self._zero

    def now(self) -> float:
        """Return the scenario time in seconds; 0 before the start."""
        return 0.0 if self._started_at is None else (self._clock() - self._started_at) * self.speed

    async def sleep_until(self, due: float) -> None:
        """Sleep until `due`, for at least 0.05 and at most 0.5 real seconds."""
        await asyncio.sleep(min(max((due - self.now()) / self.speed, _SHORTEST_SLEEP), _LONGEST_SLEEP))


MONDAY_MORNING = 1_767_603_600.0
"""2026-01-05T09:00:00Z: an arbitrary time, the same in every test."""


class ManualTimeline:
    """Scenario time that only a test advances, so that tests neither sleep nor depend on timing."""

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        self._now = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._arrivals = itertools.count()

    def start(self) -> float:
        """Return the wall-clock time of zero."""
        return MONDAY_MORNING

    def now(self) -> float:
        """Return the scenario time that `advance` has reached, in seconds."""
        return self._now

    async def advance(self, seconds: float) -> None:
        """Advance the time and wake each sleeper when it is due, in order of due time, then of arrival.

        Everything that a woken sleeper starts runs until it sleeps or ends before the next sleeper wakes.
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
        """Sleep until `advance` reaches `due`."""
        sleeper = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (due, next(self._arrivals), sleeper))
        await sleeper


_LOOP_ITERATIONS = 8
"""Iterations of the event loop after which all tasks are idle. asyncio has no such query; a woken task needs one
iteration to continue and a few more to wake others, as long as no task waits for I/O."""


async def _until_idle() -> None:
    for _ in range(_LOOP_ITERATIONS):
        await asyncio.sleep(0)
