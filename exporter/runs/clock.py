"""Two clocks: the runtime's, which stamps everything that we read, and ours, which Prometheus shares."""

from collections.abc import Callable

TOLERANCE = 1.5
"""Seconds by which the clocks may differ before it is corrected.

An HTTP `Date` is cut to whole seconds and an answer takes time to arrive, so a smaller difference cannot be told
from none; and an offset that trembles with every read would change every corrected timestamp at every scrape.
"""


class RuntimeClock:
    """The runtime's time, known from what its answers say and carried on by our own clock between them."""

    def __init__(self, wall: Callable[[], float]) -> None:
        """`wall` returns our own time in seconds since the epoch."""
        self._wall = wall
        self._offset = 0.0
        self._best: float | None = None

    def begin(self) -> None:
        """Begin a new series of observations: the clocks may have drifted, or been set, since the last."""
        self._best = None

    def observe(self, runtime_time: float) -> None:
        """Take note that an answer that just came shows `runtime_time`.

        Of a series the answer that was under way for the shortest time is right: the others are older than they
        look, so they can only make the runtime's clock seem further behind.
        """
        measured = runtime_time - self._wall()
        if self._best is not None and measured <= self._best:
            return
        self._best = measured
        if abs(measured - self._offset) > TOLERANCE:
            # Within the tolerance of no difference at all, there is none.
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
