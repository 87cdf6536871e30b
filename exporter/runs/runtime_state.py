"""The worker service and the plan as they were last read, and when the worker service was last down."""

from collections.abc import Callable

import msgspec

from exporter.runs.clock import RuntimeClock
from exporter.runs.run import AHEAD
from exporter.runtime.model import Health, Meter


class Outage(msgspec.Struct, frozen=True):
    """The worker service's last outage. Times are the runtime's."""

    is_down: bool = False
    excused_until: float = float("-inf")
    """When the last outage ended: no run is to blame for its silence until then."""


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

        Without a heartbeat for `heartbeat_timeout` seconds the worker service counts as down, whatever it says: a
        runtime's own status has been seen to lag by half an hour (dagster-prometheus-exporter#88).
        """
        read_at = self._monotonic() if read_at is None else read_at
        health = self._not_ahead(health, read_at)
        now, beat = self._clock.at(read_at), health.last_heartbeat_at
        is_silent = beat is None or now - beat > heartbeat_timeout
        is_down = not health.runtime_up or (health.beats and is_silent)
        has_ended = self.outage.is_down and not is_down
        self.outage = Outage(is_down, now if has_ended else self.outage.excused_until)
        self.health = health, read_at
        return has_ended

    @property
    def has_heartbeats(self) -> bool:
        """Whether the last health that was read is of an API that reports heartbeats."""
        return self.health is not None and self.health[0].beats

    def _not_ahead(self, health: Health, read_at: float) -> Health:
        """Return a health whose heartbeat has passed: one from the future is as old as it has been known."""
        told, beat, now = health.last_heartbeat_at, health.last_heartbeat_at, self._clock.at(read_at)
        if beat is not None and beat > now + AHEAD:
            first_seen = self._heartbeat[1] if told == self._heartbeat[0] else read_at
            self._heartbeat = told, first_seen
            return msgspec.structs.replace(health, last_heartbeat_at=self._clock.at(first_seen))
        return health

    def not_ahead_of(self, now: float) -> None:
        """Note that the runtime's clock was set back to `now`: the last outage has ended by then."""
        if self.outage.excused_until > now:
            self.outage = msgspec.structs.replace(self.outage, excused_until=now)

    def keep_meters(self, meters: tuple[Meter, ...], read_at: float | None = None) -> None:
        """Store the meters of the plan, requested at our monotonic time `read_at`, by default now."""
        self.meters = meters, self._monotonic() if read_at is None else read_at
