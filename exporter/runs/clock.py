"""The difference between the runtime's clock, which stamps what the API returns, and ours, which Prometheus shares."""

from collections.abc import Callable

TOLERANCE = 5.0
"""Seconds by which the difference may change before it is corrected; below, the clocks count as equal.

An HTTP `Date` has whole seconds, and clocks drift. Every corrected timestamp changes with the difference, and so do the
lines of all runs.
"""


class RuntimeClock:
    """The runtime's time: the time of its last responses, advanced by our own clock."""

    def __init__(self, wall: Callable[[], float]) -> None:
        """`wall` returns our own time in seconds since the epoch."""
        self._wall = wall
        self._best: float | None = None
        self.offset: float | None = None
        """Seconds by which the runtime's clock is ahead of ours; 0 while they agree, None before the first response."""

    def begin(self) -> None:
        """Begin a new series of observations: since the last one the clocks may have drifted or been set."""
        self._best = None

    def observe(self, runtime_time: float, requested_at: float | None = None) -> None:
        """Note that a response that has arrived carries `runtime_time`; `requested_at` is our time of its request.

        The runtime has set it at some time in between. A response that took long makes the runtime's clock seem behind,
        so the observation of a series that puts the runtime's clock furthest ahead is the most exact one.
        """
        least = runtime_time - self._wall()
        most = least if requested_at is None else runtime_time - requested_at
        if self._best is not None and least <= self._best:
            return
        self._best = least
        before = 0.0 if self.offset is None else self.offset
        for possible in (before, 0.0):
            if least - TOLERANCE <= possible <= most + TOLERANCE:
                self.offset = possible
                return
        self.offset = least

    def now(self) -> float:
        """Return the runtime's time; ours while the difference is unknown."""
        return self._wall() + (self.offset or 0.0)

    def to_local(self, runtime_time: float) -> float | None:
        """Return our time when the runtime's clock showed `runtime_time`; None while the difference is unknown."""
        return None if self.offset is None else runtime_time - self.offset
