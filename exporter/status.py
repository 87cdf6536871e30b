"""The words for how a run is doing, shared by config, runtime and all that follows."""

import enum
from typing import Self


class Status(enum.StrEnum):
    """The ideas behind the many wordings of a run's status."""

    ended: bool
    """Whether a run of this status is over; `UNKNOWN` is not, since nobody knows."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    def __new__(cls, word: str) -> Self:
        """Make a status; whether it is an end is asked too often, of every run of every page, to be worked out anew."""
        status = str.__new__(cls, word)
        status._value_ = word
        status.ended = word in ("completed", "failed", "cancelled")
        return status
