"""Simulates the workers of a runtime: when each record of a run finishes, and how many are worked on then."""

import bisect
import dataclasses
import heapq
import itertools
import random
from collections.abc import Callable, Iterable, Sequence

Gate = Callable[[float], float]
"""Returns when a record may start that a worker takes at a given time; neither is before the other."""


@dataclasses.dataclass(frozen=True, slots=True)
class Finish:
    """One record finished: when, in seconds since the start of the run, and how many were worked on after that."""

    at: float
    running: int


def at_once(at: float) -> float:
    """A gate that is always open."""
    return at


def worked(durations: Sequence[float], workers: int, *, gate: Gate = at_once, since: float = 0.0) -> list[Finish]:
    """Return the finishes of records that `workers` work on, each for its duration, in order."""
    free = [since] * workers
    starts, ends = [], []
    for duration in durations:
        start = gate(heapq.heappop(free))
        starts.append(start)
        ends.append(start + duration)
        heapq.heappush(free, start + duration)
    starts.sort()
    ends.sort()
    return [Finish(end, bisect.bisect_right(starts, end) - number) for number, end in enumerate(ends, 1)]


def in_stages(stages: Iterable[Sequence[float]], workers: int, *, pause: float = 0.0) -> list[Finish]:
    """Return the finishes of stages of which each begins `pause` seconds after the one before is done."""
    finishes: list[Finish] = []
    since = 0.0
    for durations in stages:
        finishes += worked(durations, workers, since=since)
        since = finishes[-1].at + pause
    return finishes


def windows(rng: random.Random, every: float, admitted: int) -> Gate:
    """A gate of a rate-limited provider: each `every` seconds a window opens, which admits some records."""
    first = rng.uniform(0.0, every)
    left: dict[int, int] = {}

    def gate(at: float) -> float:
        window = max(int((at - first) // every), -1)
        while left.setdefault(window, admitted) == 0:
            window += 1
        left[window] -= 1
        return max(at, first + window * every)

    return gate


def by_day(began: float, opens: float, closes: float) -> Gate:
    """A gate that is open from one second of the day to another."""

    def gate(at: float) -> float:
        of_day = (began + at) % 86400.0
        if opens <= of_day < closes:
            return at
        return at + (opens - of_day) % 86400.0

    return gate


def with_retries(rng: random.Random, duration: float, chance: float, backoff: float) -> float:
    """Return how long a record takes that is tried up to six times, with a back-off that doubles."""
    total = duration
    for attempt in itertools.count():
        if attempt == 5 or rng.random() > chance:
            return total
        total += backoff * 2**attempt + duration
    raise AssertionError
