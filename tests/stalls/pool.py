"""Simulates the workers of a runtime: when each record of a run finishes, and how many are worked on then."""

import bisect
import dataclasses
import heapq
import itertools
import operator
import random
from collections.abc import Callable, Iterable, Sequence

Gate = Callable[[float], float]
"""Returns when a record may start that a worker takes at a given time; neither is before the other."""


@dataclasses.dataclass(frozen=True, slots=True)
class Finish:
    """One record finished: when, in seconds since the start of the run, and how many were worked on after that."""

    at: float
    running: int
    began: float = 0.0
    """When it began."""


def at_once(at: float) -> float:
    """A gate that is always open."""
    return at


def worked(durations: Sequence[float], workers: int, *, gate: Gate = at_once) -> list[Finish]:
    """Return the finishes of records that `workers` work on, each for its duration, in order."""
    return _finishes(_shifts(durations, workers, gate=gate))


def in_stages(stages: Iterable[Sequence[float]], workers: Sequence[int], *, pause: float = 0.0) -> list[Finish]:
    """Return the finishes of stages, each with its number of workers.

    Each begins `pause` seconds after the one before is done.
    """
    shifts: list[tuple[float, float]] = []
    since = 0.0
    for durations, number in zip(stages, workers, strict=True):
        shifts += _shifts(durations, number, since=since)
        since = max(end for _, end in shifts) + pause
    return _finishes(shifts)


def _shifts(
    durations: Sequence[float], workers: int, *, gate: Gate = at_once, since: float = 0.0
) -> list[tuple[float, float]]:
    """Return when each record starts and ends."""
    free = [since] * workers
    shifts = []
    for duration in durations:
        start = gate(heapq.heappop(free))
        shifts.append((start, start + duration))
        heapq.heappush(free, start + duration)
    return shifts


def _finishes(shifts: Sequence[tuple[float, float]]) -> list[Finish]:
    starts = sorted(start for start, _ in shifts)
    by_end = sorted(shifts, key=operator.itemgetter(1))
    return [
        Finish(end, bisect.bisect_right(starts, end) - number, start) for number, (start, end) in enumerate(by_end, 1)
    ]


def scaled(durations: Sequence[float], size_at: Callable[[float], int]) -> list[Finish]:
    """Return the finishes of records on a pool whose size changes: `size_at` tells how many may be worked on at a time.

    A record that is worked on is never interrupted; the size is looked at when one finishes, and every half minute.
    """
    working: list[float] = []
    shifts: list[tuple[float, float]] = []
    now = 0.0
    left = iter(durations)
    upcoming = next(left, None)
    while upcoming is not None:
        while working and working[0] <= now:
            heapq.heappop(working)
        while upcoming is not None and len(working) < max(size_at(now), 1):
            shifts.append((now, now + upcoming))
            heapq.heappush(working, now + upcoming)
            upcoming = next(left, None)
        now = min(working[0], now + 30.0)
    return _finishes(shifts)


def exhausted(rng: random.Random, admitted: int, closed: float) -> Gate:
    """A gate of a provider that closes for some time after so many records, and opens when that time is over."""
    left, opens = admitted, 0.0

    def gate(at: float) -> float:
        nonlocal left, opens
        start = max(at, opens)
        left -= 1
        if left == 0:
            left, opens = admitted, start + closed * rng.uniform(0.9, 1.2)
        return start

    return gate


def shifts_of_staff(began: float, opens: float, closes: float, lunch: float) -> Gate:
    """A gate that is open on weekdays from one second of the day to another, but not for `lunch` seconds at noon."""

    def gate(at: float) -> float:
        while True:
            of_day = (began + at) % 86400.0
            weekday = int((began + at) // 86400.0 + 3) % 7
            if weekday >= 5 or of_day >= closes:
                at += 86400.0 - of_day + opens
            elif of_day < opens:
                at += opens - of_day
            elif 43200.0 <= of_day < 43200.0 + lunch:
                at += 43200.0 + lunch - of_day
            else:
                return at

    return gate


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
