"""JSON, decoded and checked into the values of `model`. Nothing here speaks HTTP.

What is laid out as in the contract is decoded straight into its types; anything else goes through its description first
(`mapping`), which puts the contract's words in place of theirs.

A list whose envelope is good gives all its good items: one bad item costs that item alone. Whatever can become
a label is cleaned here, once: control characters go, long names are cut.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any, Generic, Protocol, TypeVar

import msgspec
from jmespath.exceptions import JMESPathError

from exporter.config.api_description import Resource, Resources, present
from exporter.runtime.mapping import FIELDS, ItemMapping, compiled
from exporter.runtime.model import (
    FailedRecord,
    FailureCount,
    Health,
    Meter,
    Project,
    RecordCounts,
    RecordSnapshot,
    RunSnapshot,
)
from exporter.runtime.statuses import StatusMap
from exporter.status import Status

T = TypeVar("T")

# 2^53: from there on a float, which is what a sample is, can no longer count.
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Time = Annotated[datetime, msgspec.Meta(tz=True)]

MAX_LABELS = 10_000
"""Different labels that are remembered."""

MALFORMED = (msgspec.MsgspecError, ValueError, RecursionError)
"""What decoding an arbitrary body can raise."""


class MissingError(ValueError):
    """The answer is good, and what was asked for is not in it."""


class DecodeObserver(Protocol):
    """Is told what decoding found; nothing that it is told is personal data."""

    def invalid_item(self, kind: str, reason: str) -> None:
        """An item was left out. `kind` is job, record, project or meter; `reason` names the field."""

    def unmapped_status(self, label: str) -> None:
        """A status label means nothing to any mapping."""


@dataclasses.dataclass(frozen=True, slots=True)
class DecodedPage(Generic[T]):
    """A decoded page of a list."""

    items: tuple[T, ...]
    next_cursor: str | None
    as_of: float | None
    size: int
    """Items that the page had, also those that were left out."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunDefaults:
    """What is known of runs before they are decoded, for what a description does not find in them."""

    project_id: str = ""
    spinner: str = ""
    """The spinner of runs that name none: of a run that is read again its own, of a list the project's name."""
    now: float | None = None
    """The API's time, for a run that does not say when it changed."""


@dataclasses.dataclass(frozen=True, slots=True)
class DecodeReport:
    """What was found in an answer."""

    items: list[dict[str, Any]]
    """Each item's fields in our words, dotted where they nest, and only those that have a value."""
    unfit: list[str]
    """Why items would be left out."""


class Decoder:
    """Decodes bodies. Every method raises one of `MALFORMED` when the body as a whole cannot be used.

    Making one raises `ConfigError` for a description that does not fit.
    """

    def __init__(
        self, statuses: StatusMap, observer: DecodeObserver, resources: Resources, *, label_length: int
    ) -> None:
        self._statuses = statuses
        self._observer = observer
        self._label_length = label_length
        self._labels = _Labels(label_length)
        self._words: dict[str, tuple[Status, str]] = {}
        described = present(resources)
        if "job" in described and not described["job"].fields:
            described["job"] = msgspec.structs.replace(described["job"], fields=resources.jobs.fields)
        self._shapes = {name: _Shape(name, resource) for name, resource in described.items()}
        words = described["records"].statuses if "records" in described else {}
        self._record_statuses = statuses.extended({word: Status(idea) for word, idea in words.items()})

    def raw_items(self, resource: str, body: bytes) -> list[Any]:
        """Return an answer's items as they came, to look for fields in. Raises one of `MALFORMED`."""
        shape = self._shapes[resource]
        raws = [shape.single(body)] if resource in ("health", "job") else list(shape.page(body)[0])
        return [msgspec.json.decode(raw) if isinstance(raw, msgspec.Raw) else raw for raw in raws]

    def explain(self, resource: str, body: bytes) -> DecodeReport:
        """Return what a description finds in an answer, field by field, without making anything of it.

        Raises one of `MALFORMED` when the answer as a whole cannot be used.
        """
        shape = self._shapes[resource]
        found: list[dict[str, Any]] = []
        unfit: list[str] = []
        for item in self.raw_items(resource, body):
            try:
                found.append(_flat(shape.mapping(item) if shape.mapping else item, FIELDS[resource]))
                shape.item(item)
            except MALFORMED as error:
                unfit.append(str(error))
        return DecodeReport(found, unfit)

    def projects(self, body: bytes) -> DecodedPage[Project]:
        """Decode a page of the list of projects."""
        return self._listing(body, self._shapes["projects"], self._project)

    def jobs(self, body: bytes, known: RunDefaults | None = None) -> DecodedPage[RunSnapshot]:
        """Decode a page of a project's runs."""
        return self._listing(body, self._shapes["jobs"], functools.partial(self._run, known or RunDefaults()))

    def job(self, body: bytes, known: RunDefaults | None = None) -> RunSnapshot:
        """Decode one run."""
        return self._run(known or RunDefaults(), self._shapes["job"].decode(body))

    def failed_records(self, body: bytes) -> DecodedPage[FailedRecord]:
        """Decode a page of a run's failed records."""
        return self._listing(body, self._shapes["records"], self._failed_record)

    def records(self, body: bytes) -> DecodedPage[RecordSnapshot]:
        """Decode a page of a run's records, to count them."""
        return self._listing(body, self._shapes["records"], self._record)

    def health(self, body: bytes) -> Health:
        """Decode the state of the worker service; when nothing is said of it, or of its heartbeat, it is down.

        Where a description has no heartbeat, none is missed.
        """
        shape = self._shapes["health"]
        health: _Health = shape.decode(body)
        runtime = health.runtime or _RuntimeHealth()
        beats = not shape.mapping or "runtime.lastHeartbeatAt" in shape.resource.fields
        return Health(
            runtime_up=runtime.status == "up"
            and (runtime.last_heartbeat_at is not None or not beats)
            and health.status != "down",
            workers=runtime.workers,
            last_heartbeat_at=_epoch(runtime.last_heartbeat_at),
            beats=beats,
        )

    def usage(self, body: bytes) -> tuple[Meter, ...]:
        """Decode the plan meters."""
        meters = {}
        for raw in self._shapes["usage"].page(body)[0]:
            meter = self._checked(self._shapes["usage"], raw)
            if meter is not None:
                name = self._labels[meter.name]
                meters[name] = Meter(name, meter.used, meter.limit, _epoch(meter.resets_at))
        return tuple(meters.values())

    def _listing(self, body: bytes, shape: "_Shape", convert: Callable[[Any], T]) -> DecodedPage[T]:
        try:
            wires, cursor, as_of = shape.typed_page(body)
            size = len(wires)
        except MALFORMED:
            # Seldom, or laid out otherwise: item by item. A bad envelope fails here again, for good.
            raws, cursor, as_of = shape.page(body)
            size = len(raws)
            checked = (self._checked(shape, raw) for raw in raws)
            wires = [wire for wire in checked if wire is not None]
        items = []
        for wire in wires:
            try:
                items.append(convert(wire))
            except ValueError as error:
                self._observer.invalid_item(shape.kind.name, str(error))
        return DecodedPage(tuple(items), cursor, as_of, size)

    def _checked(self, shape: "_Shape", raw: Any) -> Any:
        try:
            return shape.item(raw)
        except MALFORMED as error:
            self._observer.invalid_item(shape.kind.name, str(error))
            return None

    def _project(self, wire: "_Project") -> Project:
        return Project(self._id(wire.id), self._labels[wire.name])

    def _run(self, known: RunDefaults, wire: "_Job | _MappedJob") -> RunSnapshot:
        # This is done for every run of every page, so it calls little, and gives the fields by place.
        labels = self._labels
        started, ended, progressed, updated = wire.started_at, wire.ended_at, wire.last_progress_at, wire.updated_at
        created = started if wire.created_at is None else wire.created_at
        if created is None:
            raise ValueError("createdAt: is missing")
        created_at = created.timestamp()
        updated_at = created_at if known.now is None else known.now
        if updated is not None:
            updated_at = updated.timestamp()
        spinner = wire.spinner_name or known.spinner
        if not spinner:
            raise ValueError("spinnerName: is missing")
        status, label = self._words.get(wire.status) or self._word(wire.status)
        counts = wire.records
        project_id: str = known.project_id
        refs: tuple[tuple[str, str], ...] = ()
        if isinstance(wire, _MappedJob):
            project_id = wire.project_id or project_id
            refs = tuple((wire.ref or {}).items())
        return RunSnapshot(
            self._id(wire.id),
            project_id,
            labels[spinner],
            labels[wire.trigger or ""],
            labels[wire.parent_job_id or ""],
            status,
            label,
            created_at,
            updated_at,
            None if started is None else started.timestamp(),
            None if ended is None else ended.timestamp(),
            None if progressed is None else progressed.timestamp(),
            None
            if counts is None
            else RecordCounts(
                counts.total,
                counts.pending or 0,
                counts.running or 0,
                counts.waiting or 0,
                counts.completed or 0,
                counts.failed or 0,
            ),
            tuple([self._failure(failure) for failure in wire.failures]) if wire.failures else (),
            refs,
        )

    def _word(self, text: str) -> tuple[Status, str]:
        """Return a status label, and the idea behind it."""
        label = self._labels[text]
        status = self._statuses.status_for(label)
        if status is Status.UNKNOWN:
            self._observer.unmapped_status(label)
        elif len(self._words) < MAX_LABELS and len(text) <= self._label_length:
            self._words[text] = status, label
        return status, label

    def _failure(self, wire: "_Failure") -> FailureCount:
        return FailureCount(self._labels[wire.step or ""], self._labels[wire.error_code or ""], wire.count)

    def _failed_record(self, wire: "_Record") -> FailedRecord:
        step = wire.failed_step or _Step()
        return FailedRecord(
            self._id(wire.id),
            self._labels[step.name or step.type or ""],
            self._labels[wire.error_code or ""],
            _epoch(wire.ended_at),
        )

    def _record(self, wire: "_Record") -> RecordSnapshot:
        word = self._labels[wire.status or ""]
        status = self._record_statuses.status_for(word)
        if status is Status.UNKNOWN:
            self._observer.unmapped_status(word)
        return RecordSnapshot(status, self._failed_record(wire))

    def _id(self, text: str) -> str:
        """Return an id as it came: it goes into URLs and labels, so it is never cut, but refused if unfit."""
        if not text or not text.isprintable() or len(text) > self._label_length or text in (".", ".."):
            raise ValueError("id: expected printable characters, and not more than limits.label_length")
        return text


class _Labels(dict[str, str]):
    """Text as it may become a label. The same few come with every run: kept once, they take no room nor time again."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __missing__(self, text: str) -> str:
        label = text
        if not text.isprintable() or len(text) > self._length:
            # isprintable() is false for control characters, separators other than space, and lone surrogates.
            cut = text[: self._length]
            label = "".join(character if character.isprintable() else " " for character in cut).strip()
        if len(self) < MAX_LABELS and len(text) <= self._length:
            self[text] = label
        return label


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


class _AnyJob(_Wire, frozen=True, kw_only=True):
    id: str
    status: str
    trigger: str | None = None
    parent_job_id: str | None = None
    started_at: _Time | None = None
    ended_at: _Time | None = None
    last_progress_at: _Time | None = None
    records: _Counts | None = None
    failures: tuple[_Failure, ...] | None = None


class _Job(_AnyJob, frozen=True, kw_only=True):
    """A run as the contract has it; its project is the one that it was asked for."""

    spinner_name: str
    created_at: _Time
    updated_at: _Time


class _MappedJob(_AnyJob, frozen=True, kw_only=True):
    """A run as a description found it: more of it may be missing, and it may carry references for paths."""

    project_id: str | None = None
    spinner_name: str | None = None
    created_at: _Time | None = None
    updated_at: _Time | None = None
    ref: dict[str, str] | None = None


class _Step(_Wire, frozen=True):
    name: str | None = None
    type: str | None = None


class _Record(_Wire, frozen=True):
    id: str
    status: str | None = None
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


class _Page(_Wire, Generic[T], frozen=True):
    items: tuple[T, ...]
    next_cursor: str | None = None
    as_of: _Time | None = None


class _Kind:
    """What one kind of item is called in the metrics, and its types: the contract's, and that of mapped ones."""

    def __init__(self, name: str, wire: type, mapped: type | None = None) -> None:
        self.name = name
        self.wire = wire
        self.mapped = mapped or wire


_KINDS = {
    "health": _Kind("health", _Health),
    "projects": _Kind("project", _Project),
    "jobs": _Kind("job", _Job, _MappedJob),
    "job": _Kind("job", _Job, _MappedJob),
    "records": _Kind("record", _Record),
    "usage": _Kind("meter", _Meter),
}


class _Shape:
    """How one resource's answers are laid out."""

    def __init__(self, name: str, resource: Resource) -> None:
        self.kind = _KINDS[name]
        self.resource = resource
        self.mapping = ItemMapping(name, resource)
        where = f"runtime.resources.{name}"
        paging = resource.paging
        self._items = compiled(resource.items, f"{where}.items")
        self._next = compiled(paging.next, f"{where}.paging.next") if paging.next is not None else None
        self._as_of = compiled(resource.as_of, f"{where}.as_of") if resource.as_of is not None else None
        self._item = compiled(resource.item, f"{where}.item") if resource.item is not None else None
        as_in_contract = (resource.items, paging.next or "nextCursor", resource.as_of or "asOf")
        self._is_typed = not self.mapping and as_in_contract == ("items", "nextCursor", "asOf")
        self._one: msgspec.json.Decoder[Any] = msgspec.json.Decoder(self.kind.wire)
        self._page: msgspec.json.Decoder[_Page[Any]] = msgspec.json.Decoder(_Page[self.kind.wire])  # type: ignore[name-defined]

    def typed_page(self, body: bytes) -> tuple[Sequence[Any], str | None, float | None]:
        """Decode a page that is laid out as in the contract; raises `ValidationError` when it is not."""
        if not self._is_typed:
            raise msgspec.ValidationError("laid out otherwise")
        page = self._page.decode(body)
        return page.items, page.next_cursor, _epoch(page.as_of)

    def page(self, body: bytes) -> tuple[Sequence[Any], str | None, float | None]:
        """Decode any page into its raw items, the next cursor and the API's time."""
        if self._is_typed:
            try:
                raw = _RAW_PAGE.decode(body)
            except msgspec.ValidationError:
                raise
            except msgspec.DecodeError:
                raw = msgspec.convert(_lenient(body), _Page[Any])
            return raw.items, raw.next_cursor, _epoch(raw.as_of)
        document = _document(body)
        items = _search(self._items, document)
        if isinstance(items, dict):
            items = list(items.values())
        if not isinstance(items, list):
            raise ValueError(f"no list at {self.resource.items}")
        cursor = _search(self._next, document) if self._next else None
        as_of = _search(self._as_of, document) if self._as_of else None
        return items, None if cursor is None else str(cursor), _epoch(msgspec.convert(as_of, _Time | None))

    def item(self, raw: Any) -> Any:
        """Return one raw item of a page as the contract's type."""
        if isinstance(raw, msgspec.Raw):
            return self._one.decode(raw)
        if self.mapping:
            return msgspec.convert(self.mapping(raw), self.kind.mapped)
        return msgspec.convert(raw, self.kind.wire)

    def decode(self, body: bytes) -> Any:
        """Decode a body that is one item."""
        if not self.mapping and self._item is None:
            return self._one.decode(body)
        return self.item(self.single(body))

    def single(self, body: bytes) -> Any:
        """Return the raw item that a body is, or holds."""
        document = _document(body)
        if self._item is None:
            return document
        item = _search(self._item, document)
        if item is None:
            raise MissingError(f"nothing at {self.resource.item}")
        return item


def _flat(item: Any, fields: Iterable[str]) -> dict[str, Any]:
    found = {}
    for field in fields:
        value = item
        for key in field.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            found[field] = value
    return found


def _search(expression: Any, document: Any) -> Any:
    try:
        return expression.search(document)
    except JMESPathError:
        raise ValueError("an expression of runtime.resources does not fit the answer") from None


def _document(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return _lenient(body)


def _lenient(body: bytes) -> Any:
    """Decode what is not quite JSON: some servers write NaN, or half of a surrogate pair, and mean one item by it."""
    return json.loads(body)


_RAW_PAGE = msgspec.json.Decoder(_Page[msgspec.Raw])
