"""The words for how a run is doing, shared by config, runtime and all that follows."""

import enum


class Status(enum.StrEnum):
    """The ideas behind the many wordings of a run's status."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    @property
    def ended(self) -> bool:
        """Whether a run of this status is over; `UNKNOWN` is not, since nobody knows."""
        return self in (Status.COMPLETED, Status.FAILED, Status.CANCELLED)
