"""The contract's JSON, decoded and checked into the values of `model`. Nothing here speaks HTTP.

A list whose envelope is good gives all its good items: one bad item costs that item alone. Whatever can become
a label is cleaned here, once: control characters go, long names are cut.
"""

import dataclasses
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Generic, Protocol, TypeVar

import msgspec

from exporter.runtime.model import (
    FailedRecord,
    FailureCount,
    Health,
    Meter,
    Project,
    RecordCounts,
    RunSnapshot,
)
from exporter.runtime.statuses import StatusMap
from exporter.status import Status

T = TypeVar("T")

# 2^53: from there on a float, which is what a sample is, can no longer count.
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Time = Annotated[datetime, msgspec.Meta(tz=True)]

MALFORMED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding an arbitrary body can raise."""


class Findings(Protocol):
    """Is told what decoding found; nothing that it is told is personal data."""

    def invalid_item(self, kind: str, reason: str) -> None:
        """An item was left out. `kind` is job, record, project or meter; `reason` names the field."""

    def unmapped_status(self, label: str) -> None:
        """A status label means nothing to any mapping."""


@dataclasses.dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """A decoded page of a list."""

    items: tuple[T, ...]
    next_cursor: str | None
    as_of: float | None


class Decoder:
    """Decodes bodies. Every method raises one of `MALFORMED` when the body as a whole cannot be used."""

    def __init__(self, statuses: StatusMap, findings: Findings, *, label_length: int) -> None:
        self._statuses = statuses
        self._findings = findings
        self._label_length = label_length

    def projects(self, body: bytes) -> Listing[Project]:
        """Decode a page of `GET /api/v1/projects`."""
        return self._listing(body, _PROJECT, self._project)

    def jobs(self, body: bytes) -> Listing[RunSnapshot]:
        """Decode a page of `GET /api/v1/projects/{projectId}/jobs`."""
        return self._listing(body, _JOB, self._run)

    def job(self, body: bytes) -> RunSnapshot:
        """Decode `GET /api/v1/jobs/{jobId}`."""
        return self._run(_JOB.one.decode(body))

    def failed_records(self, body: bytes) -> Listing[FailedRecord]:
        """Decode a page of `GET /api/v1/jobs/{jobId}/records?status=failed`."""
        return self._listing(body, _RECORD, self._failed_record)

    def health(self, body: bytes) -> Health:
        """Decode `GET /health`. A runtime that says nothing of its state or heartbeat is down."""
        health = _HEALTH.decode(body)
        runtime = health.runtime or _RuntimeHealth()
        return Health(
            runtime_up=runtime.status == "up" and runtime.last_heartbeat_at is not None and health.status != "down",
            workers=runtime.workers,
            last_heartbeat_at=_epoch(runtime.last_heartbeat_at),
        )

    def usage(self, body: bytes) -> tuple[Meter, ...]:
        """Decode `GET /api/v1/usage`."""
        meters = {}
        for raw in _USAGE.decode(body).meters:
            meter = self._checked(_METER, raw)
            if meter is not None:
                name = self._label(meter.name)
                meters[name] = Meter(name, meter.used, meter.limit, _epoch(meter.resets_at))
        return tuple(meters.values())

    def _listing(self, body: bytes, kind: "_Kind[Any]", convert: Callable[[Any], T]) -> Listing[T]:
        try:
            page = kind.page.decode(body)
            wires: Sequence[Any] = page.items
        except msgspec.ValidationError:
            # Seldom: decode item by item to find the bad ones. A bad envelope fails here again, for good.
            page = _RAW_PAGE.decode(body)
            checked = (self._checked(kind, raw) for raw in page.items)
            wires = [wire for wire in checked if wire is not None]
        items = []
        for wire in wires:
            try:
                items.append(convert(wire))
            except ValueError as error:
                self._findings.invalid_item(kind.name, str(error))
        return Listing(tuple(items), page.next_cursor, _epoch(page.as_of))

    def _checked(self, kind: "_Kind[T]", raw: msgspec.Raw) -> T | None:
        try:
            return kind.one.decode(raw)
        except MALFORMED as error:
            self._findings.invalid_item(kind.name, str(error))
            return None

    def _project(self, wire: "_Project") -> Project:
        return Project(self._id(wire.id), self._label(wire.name))

    def _run(self, wire: "_Job") -> RunSnapshot:
        label = self._label(wire.status)
        status = self._statuses.idea(label)
        if status is Status.UNKNOWN:
            self._findings.unmapped_status(label)
        return RunSnapshot(
            id=self._id(wire.id),
            project_id=wire.project_id,
            spinner=self._label(wire.spinner_name),
            trigger=self._label(wire.trigger or ""),
            parent_id=self._label(wire.parent_job_id or ""),
            status=status,
            status_label=label,
            created_at=wire.created_at.timestamp(),
            updated_at=wire.updated_at.timestamp(),
            started_at=_epoch(wire.started_at),
            ended_at=_epoch(wire.ended_at),
            last_progress_at=_epoch(wire.last_progress_at),
            waiting_until=_epoch(wire.waiting_until),
            due_at=_epoch(wire.due_at),
            records=None if wire.records is None else _counts(wire.records),
            failures=tuple(self._failure(failure) for failure in wire.failures or ()),
        )

    def _failure(self, wire: "_Failure") -> FailureCount:
        return FailureCount(self._label(wire.step or ""), self._label(wire.error_code or ""), wire.count)

    def _failed_record(self, wire: "_Record") -> FailedRecord:
        step = wire.failed_step or _Step()
        return FailedRecord(
            self._id(wire.id),
            self._label(step.name or step.type or ""),
            self._label(wire.error_code or ""),
            _epoch(wire.ended_at),
        )

    def _id(self, text: str) -> str:
        """Return an id as it came: it goes into URLs and labels, so it is never cut, but refused if unfit."""
        if not text or not text.isprintable() or len(text) > self._label_length or text in (".", ".."):
            raise ValueError("id: expected printable characters, and not more than limits.label_length")
        return text

    def _label(self, text: str) -> str:
        if text.isprintable() and len(text) <= self._label_length:
            return text
        # isprintable() is false for control characters, separators other than space, and lone surrogates.
        printable = "".join(character if character.isprintable() else " " for character in text[: self._label_length])
        return printable.strip()


def _counts(wire: "_Counts") -> RecordCounts:
    return RecordCounts(
        wire.total,
        wire.pending or 0,
        wire.running or 0,
        wire.waiting or 0,
        wire.completed or 0,
        wire.failed or 0,
    )


def _epoch(time: datetime | None) -> float | None:
    return None if time is None else time.timestamp()


class _Wire(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """Unknown fields are ignored, as the contract says; what it does not star may be null or absent."""


class _Project(_Wire, frozen=True):
    id: str
    name: str


class _Counts(_Wire, frozen=True):
    total: _Count | None = None
    pending: _Count | None = None
    running: _Count | None = None
    waiting: _Count | None = None
    completed: _Count | None = None
    failed: _Count | None = None


class _Failure(_Wire, frozen=True):
    count: _Count
    step: str | None = None
    error_code: str | None = None


class _Job(_Wire, frozen=True):
    id: str
    project_id: str
    spinner_name: str
    status: str
    created_at: _Time
    updated_at: _Time
    trigger: str | None = None
    parent_job_id: str | None = None
    started_at: _Time | None = None
    ended_at: _Time | None = None
    last_progress_at: _Time | None = None
    waiting_until: _Time | None = None
    due_at: _Time | None = None
    records: _Counts | None = None
    failures: tuple[_Failure, ...] | None = None


class _Step(_Wire, frozen=True):
    name: str | None = None
    type: str | None = None


class _Record(_Wire, frozen=True):
    id: str
    failed_step: _Step | None = None
    error_code: str | None = None
    ended_at: _Time | None = None


class _RuntimeHealth(_Wire, frozen=True):
    status: str | None = None
    last_heartbeat_at: _Time | None = None
    workers: _Count | None = None


class _Health(_Wire, frozen=True):
    status: str | None = None
    runtime: _RuntimeHealth | None = None


class _Meter(_Wire, frozen=True):
    name: str
    used: Annotated[float, msgspec.Meta(ge=0)]
    limit: Annotated[float, msgspec.Meta(ge=0)] | None = None
    resets_at: _Time | None = None


class _Usage(_Wire, frozen=True):
    meters: tuple[msgspec.Raw, ...]


class _Page(_Wire, Generic[T], frozen=True):
    items: tuple[T, ...]
    next_cursor: str | None = None
    as_of: _Time | None = None


class _Kind(Generic[T]):
    """The decoders of one kind of item: alone, and in a page."""

    def __init__(self, name: str, wire: type[T]) -> None:
        self.name = name
        self.one = msgspec.json.Decoder(wire)
        self.page: msgspec.json.Decoder[_Page[T]] = msgspec.json.Decoder(_Page[wire])  # type: ignore[valid-type]


_PROJECT = _Kind("project", _Project)
_JOB = _Kind("job", _Job)
_RECORD = _Kind("record", _Record)
_METER = _Kind("meter", _Meter)
_RAW_PAGE = msgspec.json.Decoder(_Page[msgspec.Raw])
_HEALTH = msgspec.json.Decoder(_Health)
_USAGE = msgspec.json.Decoder(_Usage)
