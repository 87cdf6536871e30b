"""The worker service and the plan as they were last read, and when the worker service was last down."""

from collections.abc import Callable
from typing import Self

import msgspec

from exporter.runs.clock import RuntimeClock
from exporter.runs.run import AHEAD
from exporter.runtime.model import Health, Meter

PAGED = 300.0
"""Seconds after which an outage has paged for certain: SpinnerRuntimeDown needs two minutes, and up to two scrapes."""


class Outage(msgspec.Struct, frozen=True):
    """The worker service's last outage. Times are the runtime's."""

    is_down: bool = False
    excused_until: float = float("-inf")
    """When the last outage ended: no run is to blame for its silence until then."""
    began_at: float = float("-inf")
    """When the present outage was first seen; the last one while the worker service is up."""
    paged_until: float = float("-inf")
    """When the last outage ended that was long enough to page."""

    def silent_since(self, since: float, page: float) -> float:
        """Return from when on silence counts that began at `since`, for a run that may be silent for `page` seconds.

        After an outage a run may begin a record anew, so it gets its whole threshold again. Short outages, of which
        SpinnerRuntimeDown says nothing, do so once: a worker service that fails every few minutes must not hide for
        ever that nothing finishes.
        """
        since = max(since, self.paged_until)
        return min(max(since, self.excused_until), since + page + PAGED)

    def ended(self, now: float) -> Self:
        """Return it after its end."""
        has_paged = now - self.began_at >= PAGED
        return type(self)(False, now, self.began_at, now if has_paged else self.paged_until)

    def not_ahead_of(self, now: float) -> Self:
        """Return it for a runtime whose clock was set back to `now`: it began and ended by then."""
        times = (self.excused_until, self.began_at, self.paged_until)
        return type(self)(self.is_down, *(min(time, now) for time in times))


class RuntimeState:
    """What the runtime says about itself, each with our monotonic time at which it was requested."""

    def __init__(self, clock: RuntimeClock, monotonic: Callable[[], float]) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self.health: tuple[Health, float] | None = None
        self.meters: tuple[tuple[Meter, ...], float] | None = None
        self.outage = Outage()
        self._heartbeat: tuple[float | None, float] = None, 0.0
        """The last heartbeat from the future, and our monotonic time when it was first seen."""

    def keep_health(self, health: Health, *, heartbeat_timeout: float, read_at: float | None = None) -> bool:
        """Store the state of the worker service; return whether an outage has just ended.

        `read_at` is our monotonic time of its request, by default now. Called after the other reads of the same sync,
        which tell whether a clock was set.
        """
        read_at = self._monotonic() if read_at is None else read_at
        health = self._not_ahead(health, read_at)
        now = self._clock.at(read_at)
        is_down = counts_as_down(health, now, heartbeat_timeout=heartbeat_timeout)
        was_down = self.outage.is_down
        if was_down and not is_down:
            self.outage = self.outage.ended(now)
        elif is_down and not was_down:
            self.outage = msgspec.structs.replace(self.outage, is_down=True, began_at=now)
        self.health = health, read_at
        return was_down and not is_down

    @property
    def has_heartbeats(self) -> bool:
        """Whether the last health that was read is of an API that reports heartbeats."""
        return self.health is not None and self.health[0].beats

    def _not_ahead(self, health: Health, read_at: float) -> Health:
        """Return a health whose heartbeat has passed: one from the future is as old as it has been known."""
        told, beat, now = health.last_heartbeat_at, health.last_heartbeat_at, self._clock.at(read_at)
        if beat is not None and is_ahead(beat, now):
            first_seen = self._heartbeat[1] if told == self._heartbeat[0] else read_at
            self._heartbeat = told, first_seen
            return msgspec.structs.replace(health, last_heartbeat_at=self._clock.at(first_seen))
        return health

    def not_ahead_of(self, now: float) -> None:
        """Note that the runtime's clock was set back to `now`: the last outage has ended by then."""
        self.outage = self.outage.not_ahead_of(now)

    def keep_meters(self, meters: tuple[Meter, ...], read_at: float | None = None) -> None:
        """Store the meters of the plan, requested at our monotonic time `read_at`, by default now."""
        self.meters = meters, self._monotonic() if read_at is None else read_at


def counts_as_down(health: Health, now: float, *, heartbeat_timeout: float) -> bool:
    """Whether the worker service counts as down at `now`, the runtime's time.

    Without a heartbeat for `heartbeat_timeout` seconds it does, whatever it says: a runtime's own status has been seen
    to lag by half an hour (dagster-prometheus-exporter#88).
    """
    beat = health.last_heartbeat_at
    is_silent = beat is None or now - beat > heartbeat_timeout
    return not health.runtime_up or (health.beats and is_silent)


def is_ahead(heartbeat: float, now: float) -> bool:
    """Whether a heartbeat is so far in the future of `now`, the runtime's time, that its age is not known."""
    return heartbeat > now + AHEAD
