"""The statuses of runs and records, shared by all layers."""

import enum
from typing import Self


class Status(enum.StrEnum):
    """The ideas behind the many wordings of a run's status."""

    ended: bool
    """Whether a run of this status is over; `UNKNOWN` counts as not over."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    def __new__(cls, value: str) -> Self:
        """Create a status. `ended` is an attribute, because it is read for every run of every page."""
        status = str.__new__(cls, value)
        status._value_ = value
        status.ended = value in ("completed", "failed", "cancelled")
        return status
