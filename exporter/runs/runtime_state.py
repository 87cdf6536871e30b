"""The worker service and the plan as they were last read, and when the worker service was last down."""

from collections.abc import Callable

import msgspec

from exporter.runs.clock import RuntimeClock
from exporter.runtime.model import Health, Meter


class Outage(msgspec.Struct, frozen=True):
    """The worker service's last outage. Times are the runtime's."""

    is_down: bool = False
    excused_until: float = float("-inf")
    """When the last outage ended: no run is to blame for its silence until then."""


class RuntimeState:
    """What the runtime says about itself, each with our monotonic time of the read."""

    def __init__(self, clock: RuntimeClock, monotonic: Callable[[], float]) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self.health: tuple[Health, float] | None = None
        self.meters: tuple[tuple[Meter, ...], float] | None = None
        self.outage = Outage()

    def keep_health(self, health: Health, *, heartbeat_timeout: float) -> bool:
        """Store the state of the worker service; return whether an outage has just ended.

        Without a heartbeat for `heartbeat_timeout` seconds the worker service counts as down, whatever it says: a
        runtime's own status has been seen to lag by half an hour (dagster-prometheus-exporter#88).
        """
        now, beat = self._clock.now(), health.last_heartbeat_at
        is_silent = beat is None or now - beat > heartbeat_timeout
        is_down = not health.runtime_up or (health.beats and is_silent)
        has_ended = self.outage.is_down and not is_down
        self.outage = Outage(is_down, now if has_ended else self.outage.excused_until)
        self.health = health, self._monotonic()
        return has_ended

    def keep_meters(self, meters: tuple[Meter, ...]) -> None:
        """Store the meters of the plan."""
        self.meters = meters, self._monotonic()
