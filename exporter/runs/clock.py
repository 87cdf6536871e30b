"""The runtime's clock, which stamps what the API returns, and its difference to ours, which Prometheus shares.

Either clock can be wrong or be set, so neither decides alone. The runtime's time is a consensus of its last answers.
Between answers it advances by our monotonic clock, which nobody sets.
"""

import math
from collections import deque
from collections.abc import Callable

TOLERANCE = 5.0
"""Seconds by which the difference may change before it is corrected; below, the clocks count as equal.

An HTTP `Date` has whole seconds, and clocks drift. Every corrected timestamp changes with the difference, and so do the
lines of all runs.
"""

ANSWERS = 5
"""Answers whose majority decides.

Two wrong ones in a row change nothing. A clock that was set is believed after three, which one or two syncs bring.
"""


PATIENCE = 20
"""Answers in a row by another clock until it is believed, if the answers were by two clocks lately.

Several servers behind one address have clocks of their own, of which the majority of a few answers would be another one
in every scrape, and with it each corrected timestamp. A clock that was set never shows the time before again.
"""

ALTERNATION = 3600.0
"""Seconds for which answers by two clocks are remembered."""

MAX_DELAY = 30.0
"""Seconds between the time that a response carries and its arrival that delay alone can explain."""


class RuntimeClock:
    """The runtime's time: what most of its last responses agree on, advanced by our monotonic clock."""

    def __init__(self, wall: Callable[[], float], monotonic: Callable[[], float]) -> None:
        """`wall` returns our own time in seconds since the epoch; it can be set. `monotonic` never is."""
        self._wall = wall
        self._monotonic = monotonic
        self._steady_zero = wall() - monotonic()
        self._answers: deque[tuple[float, float]] = deque(maxlen=ANSWERS)
        """Of each answer the least and the most by which the runtime's time can exceed our monotonic one."""
        self._contradicted = 0
        """How many answers in a row contradict the present difference."""
        self._left: float | None = None
        """The difference before the present one."""
        self._alternated_at = -math.inf
        """Our monotonic time at which answers last returned to a difference."""
        self._lead: float | None = None
        """The runtime's time less our monotonic one; None before the first response."""
        self.offset: float | None = None
        """Seconds by which the runtime's clock is ahead of ours; 0 while they agree, None before the first response."""

    def begin(self) -> None:
        """Begin a sync: since the last one our own clock may have been set."""
        self._show()

    def observe(self, runtime_time: float, requested_at: float | None = None) -> None:
        """Note that a response that has arrived carries `runtime_time`.

        `requested_at` is our monotonic time of its request. The runtime has set its time at some moment in between. A
        response that took long makes the runtime's clock seem behind, so of the answers that agree the one that puts
        the runtime's clock furthest ahead is the most exact one.
        """
        least = runtime_time - self._monotonic()
        took = 0.0 if requested_at is None else self._monotonic() - requested_at
        answer = least, least + took
        self._answers.append(answer)
        self._follow(answer, self._elected())
        self._show()

    def _follow(self, answer: tuple[float, float], elected: float) -> None:
        """Set the difference to the elected one, unless two servers take turns."""
        now, lead = self._monotonic(), self._lead
        alternate = now - self._alternated_at <= ALTERNATION
        if lead is not None:
            is_confirmed = _agrees(answer, lead)
            if is_confirmed and alternate and self._contradicted >= ANSWERS // 2:
                self._alternated_at = now
            self._contradicted = 0 if is_confirmed else self._contradicted + 1
            if abs(elected - lead) > TOLERANCE:
                if alternate and self._contradicted < PATIENCE:
                    return
                if self._left is not None and abs(elected - self._left) <= TOLERANCE:
                    self._alternated_at = now
                self._left = lead
        self._lead = elected

    def _elected(self) -> float:
        """Return the difference that most answers agree on; of several the present one, if it is one of them."""
        lead = self._lead
        if lead is not None and all(_agrees(answer, lead) for answer in self._answers):
            return lead  # nearly always, and in a sixth of the time
        ours = self._wall() - self._monotonic()
        candidates = [ours, *sorted((least for least, _ in self._answers), reverse=True)]
        if lead is not None:
            candidates.insert(0, lead)
        votes = [sum(_agrees(answer, each) for answer in self._answers) for each in candidates]
        most = max(votes)
        elected = [each for each, count in zip(candidates, votes, strict=True) if count == most]
        if most == 1:
            # No two agree, as with the first answer: our own clock is one more witness.
            return min(elected, key=lambda each: abs(each - ours))
        return elected[0]

    def now(self) -> float:
        """Return the runtime's time; ours while the difference is unknown."""
        return self.at(self._monotonic())

    def at(self, monotonic: float) -> float:
        """Return the runtime's time at a moment of our monotonic clock."""
        if self._lead is None:
            return self._wall() - self._monotonic() + monotonic
        return self._lead + monotonic

    @property
    def lead(self) -> float | None:
        """Seconds by which the runtime's clock is ahead of our monotonic one; None before the first response."""
        return self._lead

    def agreed(self, runtime_time: float, requested_at: float, arrived_at: float) -> float:
        """Return the time of a response that was requested and arrived at moments of our monotonic clock.

        That is `runtime_time`, which it carries, unless the other responses contradict it. Then it is the time of its
        request, because what it says is not older, and may not be newer.
        """
        earliest, latest = self.at(requested_at), self.at(arrived_at)
        return runtime_time if earliest - MAX_DELAY <= runtime_time <= latest + MAX_DELAY else earliest

    def monotonic(self) -> float:
        """Return our monotonic time."""
        return self._monotonic()

    def wall(self) -> float:
        """Return our own clock's time."""
        return self._wall()

    def moment(self, wall: float) -> float:
        """Return our monotonic time when our own clock showed `wall`; now if that is yet to come."""
        return self._monotonic() - max(self._wall() - wall, 0.0)

    def steady(self) -> float:
        """Return a time that never steps: our own clock's when this process began, advanced by the monotonic one."""
        return self._steady_zero + self._monotonic()

    def steady_at(self, runtime_time: float) -> float:
        """Return `steady` when the runtime's clock showed `runtime_time`; now if that is yet to come."""
        steady = self.steady()
        return min(runtime_time + steady - self.now(), steady)

    def to_local(self, runtime_time: float) -> float | None:
        """Return our time when the runtime's clock showed `runtime_time`; None while the difference is unknown."""
        return None if self.offset is None else runtime_time - self.offset

    def _show(self) -> None:
        """Set the difference to our own clock, unless it is the same as before."""
        if self._lead is None:
            return
        offset = self.now() - self._wall()
        for possible in (self.offset, 0.0):
            if possible is not None and abs(offset - possible) <= TOLERANCE:
                offset = possible
                break
        self.offset = offset


def _agrees(answer: tuple[float, float], lead: float) -> bool:
    least, most = answer
    return least - TOLERANCE <= lead <= most + TOLERANCE
