"""The contract's items and pages as JSON has them, for msgspec to decode and check."""

from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

import msgspec

T = TypeVar("T")

# A sample is a float, which counts exactly up to 2^53.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Time = Annotated[datetime, msgspec.Meta(tz=True)]


def epoch(time: datetime | None) -> float | None:
    """Return a time in seconds since the Unix epoch."""
    return None if time is None else time.timestamp()


class WireStruct(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """Ignores unknown fields; fields that the contract does not require can be null or absent."""


class WireProject(WireStruct, frozen=True):
    """A project. A name that is not known is null; a field of another name is an error."""

    id: str
    name: str | None


class MappedProject(WireStruct, frozen=True):
    """A project that an API description maps: it can have references for paths."""

    id: str
    name: str | None = None
    ref: dict[str, str] | None = None


class WireCounts(WireStruct, frozen=True):
    """A run's records by state."""

    total: Count | None = None
    pending: Count | None = None
    running: Count | None = None
    waiting: Count | None = None
    completed: Count | None = None
    failed: Count | None = None


class WireFailure(WireStruct, frozen=True):
    """The number of a run's records that failed at one step with one error code."""

    count: Count
    step: str | None = None
    error_code: str | None = None


class _AnyJob(WireStruct, frozen=True, kw_only=True):
    id: str
    status: str
    spinner_id: str | int | None = None
    trigger: str | None = None
    parent_job_id: str | None = None
    started_at: Time | None = None
    ended_at: Time | None = None
    last_progress_at: Time | None = None
    due_at: Time | None = None
    waiting_until: Time | None = None
    records: WireCounts | None = None
    failures: tuple[WireFailure, ...] | None = None


class WireJob(_AnyJob, frozen=True, kw_only=True):
    """A run in the contract's format. The request for its project's list says which project it belongs to."""

    project_id: str | None = None
    spinner_name: str | None
    """As `WireProject.name`."""
    created_at: Time
    updated_at: Time


class MappedJob(_AnyJob, frozen=True, kw_only=True):
    """A run that an API description maps: more fields can be missing, and it can have references for paths."""

    project_id: str | None = None
    spinner_name: str | None = None
    created_at: Time | None = None
    updated_at: Time | None = None
    parent_record_id: str | None = None
    ref: dict[str, str] | None = None


class WireStep(WireStruct, frozen=True):
    """The step at which a record failed."""

    name: str | None = None
    type: str | None = None


class WireRecord(WireStruct, frozen=True):
    """A record. Its error message is personal data and is not decoded."""

    id: str
    job_id: str | None = None
    project_id: str | None = None
    status: str | None = None
    failed_step: WireStep | None = None
    error_code: str | None = None
    ended_at: Time | None = None


class WireCurrentStep(WireStruct, frozen=True):
    """The step at which a record is that has begun and not ended."""

    index: Count | None = None
    """Starts at 0."""
    name: str | None = None
    type: str | None = None
    started_at: Time | None = None


class WireOpenRecord(WireStruct, frozen=True):
    """A record that a run works on or that waits. Its fields never cost a failed record, which is a `WireRecord`."""

    id: str
    status: str | None = None
    started_at: Time | None = None
    attempts: Count | None = None
    step: WireCurrentStep | None = None


class WireRuntimeHealth(WireStruct, frozen=True):
    """The worker service, as the API describes it."""

    status: str | None = None
    last_heartbeat_at: Time | None = None
    workers: Count | float | None = None


class WireHealth(WireStruct, frozen=True):
    """The API's own health."""

    status: str | None = None
    runtime: WireRuntimeHealth | msgspec.UnsetType | None = msgspec.UNSET
    """Null: the API knows of no worker service. A body without it can be another one than health."""


class WireMeter(WireStruct, frozen=True):
    """A plan meter."""

    name: str
    used: Annotated[float, msgspec.Meta(ge=0)]
    limit: Annotated[float, msgspec.Meta(ge=0)] | None = None
    resets_at: Time | None = None


class WirePage(WireStruct, Generic[T], frozen=True):
    """A page of a list."""

    items: tuple[T, ...]
    next_cursor: str | None = None
    as_of: Any = None
    """A time, or what means none."""
    error: Any = None
    errors: Any = None
