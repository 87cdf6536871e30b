"""What a runtime tells us, in our own words: frozen values without a trace of HTTP or JSON.

Those that there are many of are nothing to the garbage collector (`gc=False`), which would go through all of them again
and again: they cannot be part of a cycle.

Times are seconds since the Unix epoch by the runtime's clock. `None` means that the runtime did not say.
"""

import dataclasses
from typing import Generic, TypeVar

import msgspec

from exporter.status import Status

T = TypeVar("T")


class Project(msgspec.Struct, frozen=True):
    """A project that the token can see."""

    id: str
    name: str


class RecordCounts(msgspec.Struct, frozen=True, gc=False):
    """A run's records by state. `total` is None while the runtime does not know it."""

    total: int | None = None
    pending: int = 0
    running: int = 0
    waiting: int = 0
    completed: int = 0
    failed: int = 0

    @property
    def finished(self) -> int:
        """Records that are done, one way or the other: progress is completed + failed."""
        return self.completed + self.failed


class FailureCount(msgspec.Struct, frozen=True, gc=False):
    """How many of a run's records failed at one step with one error code."""

    step: str
    error_code: str
    count: int


class RunSnapshot(msgspec.Struct, frozen=True, gc=False):
    """One run as one read saw it."""

    id: str
    project_id: str
    spinner: str
    trigger: str
    parent_id: str
    status: Status
    created_at: float
    updated_at: float
    started_at: float | None = None
    ended_at: float | None = None
    last_progress_at: float | None = None
    records: RecordCounts | None = None
    failures: tuple[FailureCount, ...] = ()
    refs: tuple[tuple[str, str], ...] = ()
    """What a description needs of the run for paths, by name (`ref.NAME` there)."""


class FailedRecord(msgspec.Struct, frozen=True, gc=False):
    """Which record failed and where. The error's message stays behind: it is personal data."""

    id: str
    step: str
    error_code: str
    ended_at: float | None = None


class RecordSnapshot(msgspec.Struct, frozen=True, gc=False):
    """One record as one read saw it: its state, and what would name it if it failed."""

    status: Status
    record: FailedRecord


class Health(msgspec.Struct, frozen=True):
    """The worker service, as the API describes it: the API can be up while it is down."""

    runtime_up: bool
    workers: int | None = None
    last_heartbeat_at: float | None = None
    beats: bool = True
    """Whether the API tells of heartbeats at all; where it does not, none is missed."""


class Meter(msgspec.Struct, frozen=True):
    """One plan meter of the organisation; `limit` is None when the plan has none."""

    name: str
    used: float
    limit: float | None = None
    resets_at: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class ListPage(Generic[T]):
    """One page of a list, or the whole answer when nothing changed.

    `as_of` is the runtime's time of this answer; None when it said none. `not_modified` means that the
    list is the one that the caller's `etag` stands for. `etag` is given only for a list that fits one page:
    of a longer list the first page can stay the same while a later one changes.
    """

    items: tuple[T, ...]
    as_of: float | None
    etag: str | None = None
    not_modified: bool = False
