"""Other ways to tell which silence is a stall, with the same floor as ours."""

import math
from collections.abc import Callable
from statistics import median
from typing import Protocol

from exporter.runs.view import ShownRun

FLOOR = 600.0

PHI = 8.0
"""The threshold of both failure detectors, as Cassandra and Akka have it by default."""

AKKA_DEVIATIONS = 5.612
"""The quantile of the normal distribution that phi 8 is: one in a hundred million."""


class Rival(Protocol):
    """A rule that learns from the gaps between finished records."""

    def add(self, gap: float, times: int, running: int) -> None:
        """Learn that some records finished that far apart; `running` are worked on."""

    def threshold(self) -> float:
        """Return the seconds of silence after which the run counts as stalled."""


class Cassandra:
    """Phi accrual with exponential gaps, as in Cassandra."""

    def __init__(self) -> None:
        self._count, self._sum = 0, 0.0

    def add(self, gap: float, times: int, running: int) -> None:
        self._count += times
        self._sum += gap * times

    def threshold(self) -> float:
        return PHI * math.log(10) * self._sum / self._count if self._count else 0.0


class Akka:
    """Phi accrual with normal gaps, as in Akka."""

    def __init__(self) -> None:
        self._count, self._sum, self._squares = 0, 0.0, 0.0

    def add(self, gap: float, times: int, running: int) -> None:
        self._count += times
        self._sum += gap * times
        self._squares += gap * gap * times

    def threshold(self) -> float:
        if not self._count:
            return 0.0
        mean = self._sum / self._count
        return mean + AKKA_DEVIATIONS * math.sqrt(max(self._squares / self._count - mean * mean, 0.0))


class Speculation:
    """Three times the median of what a task takes, as in Spark; by Little's law, since only counts are known."""

    def __init__(self) -> None:
        self._gaps: list[float] = []
        self._most_running = 1

    def add(self, gap: float, times: int, running: int) -> None:
        self._gaps += [gap] * min(times, 1000)
        self._most_running = max(self._most_running, running)

    def threshold(self) -> float:
        return 3 * median(self._gaps) * self._most_running if self._gaps else 0.0


class RivalRun:
    """One run as a rival sees it, scrape by scrape."""

    def __init__(self, make: Callable[[], Rival]) -> None:
        self._rival = make()
        self._finished = 0
        self._progress: float | None = None
        self._threshold = FLOOR

    def stall_threshold(self, shown: ShownRun) -> float:
        """Return the seconds of silence after which the run counts as stalled."""
        finished, progress = shown.run.records.finished or 0, shown.run.last_progress_at
        if finished < self._finished:
            self._progress = None
        if progress is not None and progress != self._progress:
            if self._progress is not None and finished > self._finished:
                times = finished - self._finished
                self._rival.add(max(progress - self._progress, 0.0) / times, times, shown.run.records.running or 0)
                self._threshold = max(FLOOR, self._rival.threshold())
            self._finished, self._progress = finished, progress
        return self._threshold


RIVALS: dict[str, Callable[[], Rival]] = {
    "phi accrual, exponential (Cassandra)": Cassandra,
    "phi accrual, normal (Akka)": Akka,
    "3 times the median of a task (Spark)": Speculation,
}
