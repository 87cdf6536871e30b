"""The difference between the runtime's clock, which stamps what the API returns, and ours, which Prometheus shares."""

from collections.abc import Callable

TOLERANCE = 1.5
"""Seconds by which the clocks may differ before it is corrected.

An HTTP `Date` has whole seconds and a response takes time to arrive, so a smaller difference is noise. An offset that
changes with every read would also change every corrected timestamp at every scrape.
"""


class RuntimeClock:
    """The runtime's time: the time of its last responses, advanced by our own clock."""

    def __init__(self, wall: Callable[[], float]) -> None:
        """`wall` returns our own time in seconds since the epoch."""
        self._wall = wall
        self._offset = 0.0
        self._best: float | None = None
        self.is_known = False
        """Whether the runtime's time has ever been observed; until then the clocks count as equal."""

    def begin(self) -> None:
        """Begin a new series of observations: since the last one the clocks may have drifted or been set."""
        self._best = None

    def observe(self, runtime_time: float) -> None:
        """Note that a response that has just arrived carries `runtime_time`.

        A response that took long to arrive makes the runtime's clock seem behind. So the observation of a series that
        puts the runtime's clock furthest ahead is the most exact one.
        """
        measured = runtime_time - self._wall()
        self.is_known = True
        if self._best is not None and measured <= self._best:
            return
        self._best = measured
        if abs(measured - self._offset) > TOLERANCE:
            # Below the tolerance the clocks count as equal.
            self._offset = 0.0 if abs(measured) <= TOLERANCE else measured

    @property
    def offset(self) -> float:
        """Seconds by which the runtime's clock is ahead of ours; 0 while they agree."""
        return self._offset

    def now(self) -> float:
        """Return the runtime's time."""
        return self._wall() + self._offset

    def to_local(self, runtime_time: float) -> float:
        """Return when, by our clock, the runtime's clock showed `runtime_time`."""
        return runtime_time - self._offset
