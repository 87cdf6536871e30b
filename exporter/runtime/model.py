"""What the exporter reads from a runtime, as frozen values that do not depend on HTTP or JSON.

The garbage collector ignores the numerous ones (`gc=False`), which would slow it down and cannot be part of a cycle.

Times are seconds since the Unix epoch by the runtime's clock. `None` means that the runtime gave no value.
"""

import dataclasses
from typing import Generic, TypeVar

import msgspec

from exporter.status import Status

T = TypeVar("T")


class Project(msgspec.Struct, frozen=True):
    """A project that the token has access to."""

    id: str
    name: str
    """Empty where the list names none, for a moment maybe."""
    refs: tuple[tuple[str, str], ...] = ()
    """Values that an API description needs for paths, by name (`ref.NAME` there)."""


class RecordCounts(msgspec.Struct, frozen=True, gc=False):
    """A run's records by state; None: the runtime does not tell how many."""

    total: int | None = None
    pending: int | None = None
    running: int | None = None
    waiting: int | None = None
    completed: int | None = None
    failed: int | None = None

    @property
    def finished(self) -> int | None:
        """Records that are done, completed or failed; at least the completed ones if the failed ones are unknown.

        None without completed records: from the failed ones alone nothing follows.
        """
        return None if self.completed is None else self.completed + (self.failed or 0)


class FailureCount(msgspec.Struct, frozen=True, gc=False):
    """How many of a run's records failed at one step with one error code."""

    step: str
    error_code: str
    count: int


class RunSnapshot(msgspec.Struct, frozen=True, gc=False):
    """One run at the time of one read."""

    id: str
    project_id: str
    spinner: str
    """Its name, which is unique in its project once the run is in the store; empty before if the runtime names none."""
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
    spinner_id: str = ""
    """Empty where the runtime has no ids of spinners."""
    refs: tuple[tuple[str, str], ...] = ()
    """Values that an API description needs for paths, by name (`ref.NAME` there)."""
    says_created: bool = True
    """Whether the runtime tells when it was created; otherwise `created_at` is when it started or changed."""
    due_at: float | None = None
    """When it should have ended."""
    parent_record_id: str = ""
    """The record of another run that started it, where the runtime names that instead of the run."""
    waiting_until: float | None = None
    """When it continues at the latest, or starts, if it waits."""


class FailedRecord(msgspec.Struct, frozen=True, gc=False):
    """A failed record and its step. Its error message is personal data and is not read."""

    id: str
    step: str
    error_code: str
    ended_at: float | None = None


class RecordOfRun(msgspec.Struct, frozen=True, gc=False):
    """A failed record of the list of all runs."""

    run_id: str
    project_id: str | None
    """None if the list does not say it."""
    record: FailedRecord


class RecordSnapshot(msgspec.Struct, frozen=True, gc=False):
    """One record at the time of one read: its status, and its description in case it failed."""

    status: Status
    record: FailedRecord


class OpenRecord(msgspec.Struct, frozen=True, gc=False):
    """A record that a run works on or that waits, and the step at which it is."""

    id: str
    step: str
    """Name of the step; empty where the runtime does not tell it."""
    step_number: int | None = None
    """Place of the step in its spinner, from 1 on."""
    started_at: float | None = None
    step_started_at: float | None = None
    """When the first attempt at the step began."""
    attempts: int | None = None
    """Attempts at the step so far."""


class Health(msgspec.Struct, frozen=True):
    """The state of the worker service, which can be down while the API is up."""

    runtime_up: bool
    workers: int | None = None
    last_heartbeat_at: float | None = None
    beats: bool = True
    """Whether the API reports heartbeats at all."""


class Meter(msgspec.Struct, frozen=True):
    """One plan meter of the organisation; `limit` is None for an unlimited one."""

    name: str
    used: float
    limit: float | None = None
    resets_at: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class ListPage(Generic[T]):
    """One page of a list, or the statement that the list has not changed.

    `as_of` is the runtime's time of this response; None without one. `requested_at` is our monotonic time of its
    request. `not_modified` means that the list is still the one of the caller's `etag`. `etag` is set only for a list
    with a single page: the first page of a longer list can stay the same while a later one changes.
    """

    items: tuple[T, ...]
    as_of: float | None
    etag: str | None = None
    not_modified: bool = False
    requested_at: float | None = None
    size: int = 0
    """Bytes that it takes in memory, about."""
    has_next: bool = False
    """Whether there is another page, as far as this one tells."""
    skipped: int = 0
    """Invalid items, of which nothing is known."""
