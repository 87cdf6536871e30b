"""Decodes and checks bodies: JSON becomes the values of `model`. Nothing here knows HTTP.

Items in the contract's layout are decoded straight into its types (`wire`). All others go through the mapping of their
API description first (`layout`, `mapping`).

An invalid item is skipped; it never costs the others of its page. A value that cannot be right, and that an item can do
without, is unknown and costs no item. A page without a valid item among its items is an
error, since it must not look like an empty one. Text that becomes a label is cleaned here (`labels`).
"""

import dataclasses
import functools
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar, cast

import msgspec

from exporter.config import LimitsConfig
from exporter.config.api_description import Resources, present, reports_heartbeats
from exporter.errors import unforeseen
from exporter.runtime.almost_json import document
from exporter.runtime.codes import OTHER, hidden_id, is_personal
from exporter.runtime.labels import MAX_LABELS, CodeCache, LabelCache
from exporter.runtime.layout import OPEN, Item, Layout, RawPage, flat
from exporter.runtime.mapping import FIELDS
from exporter.runtime.model import (
    FailedRecord,
    FailureCount,
    Health,
    Meter,
    OpenRecord,
    Project,
    RecordCounts,
    RecordOfRun,
    RecordSnapshot,
    RunSnapshot,
)
from exporter.runtime.statuses import StatusMap
from exporter.runtime.times import PAST, Bounds, Once
from exporter.runtime.wire import (
    MappedJob,
    MappedProject,
    WireCurrentStep,
    WireFailure,
    WireHealth,
    WireJob,
    WireMeter,
    WireOpenRecord,
    WireProject,
    WireRecord,
    WireRuntimeHealth,
    WireStep,
    epoch,
)
from exporter.status import Status

T = TypeVar("T")

MALFORMED = (msgspec.MsgspecError, ValueError, RecursionError)
"""What decoding an arbitrary body can raise."""


MAX_IMPLAUSIBLE = 20_000
"""Implausible times that are noted, so that each is counted once."""

MAX_REF = 1000
"""Characters of a value that becomes a part of a path."""

HEALTH_STATUSES = ("ok", "degraded", "down")
"""What `status` of health can be."""

_SINGLE = ("health", "job")
"""Resources that are one item, not a list."""


class DecodeObserver(Protocol):
    """Observes decoding; receives no personal data. `kind` is job, record, project or meter."""

    def decoded_items(self, kind: str, count: int) -> None:
        """A page of a list had so many items, valid or not."""

    def invalid_item(self, kind: str, reason: str, bug: Exception | None = None) -> None:
        """An item was skipped; `reason` names the field. `bug` is an error that no code expects."""

    def ignored_value(self, kind: str, field: str) -> None:
        """A value cannot be right and counts as missing, such as a time in the year 1: of each item and field once."""

    def unmapped_status(self, label: str) -> None:
        """No mapping has this status label."""


@dataclasses.dataclass(frozen=True, slots=True)
class DecodedPage(Generic[T]):
    """A decoded page of a list."""

    items: tuple[T, ...]
    next_cursor: str | None
    as_of: float | None
    size: int
    """Items that the server sent: also those that are skipped, or that `items` does not select."""
    total: int | None = None
    """How many items the whole list has, if the response says so."""
    more: bool | None = None
    """Whether there is another page, if the response says so."""
    pages: int | None = None
    """How many pages the whole list has, if the response says so."""
    skipped: int = 0
    """Invalid items, of which nothing is known."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunDefaults:
    """Values for fields that a run does not have."""

    project_id: str | None = ""
    """None: the list is of all projects, so that each run must tell its own."""
    spinner: str = ""
    """For a list the project's name; for a single run the spinner that an earlier read found."""
    now: float | None = None
    """The API's time, for a run without a time of its last change."""
    names: Mapping[str, str] | None = None
    """The names of all projects by their ids, of which one is the spinner of a run that has none of its own."""


@dataclasses.dataclass(frozen=True, slots=True)
class DecodeReport:
    """What a description finds in a response."""

    items: list[dict[str, Any]]
    """Each item's fields that have a value, by their names in the contract, dotted where nested."""
    skipped: list[str]
    """Why items would be skipped."""
    ignored: Counter[str]
    """By field, in how many items its value cannot be right and would be ignored."""
    page: RawPage
    """The undecoded items, and what the response says about further pages."""


class Decoder:
    """Decodes bodies. Every method raises one of `MALFORMED` when the body as a whole cannot be used.

    The constructor raises `ConfigError` for an invalid description.
    """

    def __init__(
        self,
        statuses: StatusMap,
        observer: DecodeObserver,
        resources: Resources,
        *,
        label_length: int,
        failure_groups: int = LimitsConfig().failure_groups,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`wall` returns our own time, near which the runtime's times should be."""
        self._wall = wall
        self._implausible = Once(MAX_IMPLAUSIBLE)
        self._statuses = statuses
        self._observer = observer
        self._label_length = label_length
        self._failure_groups = failure_groups
        self._labels = LabelCache(label_length)
        self._codes = CodeCache(label_length)
        self._steps = CodeCache(label_length, lambda label: not is_personal(label))
        self._run_statuses: dict[str, Status] = {}
        self._beats = reports_heartbeats(resources)
        described = present(resources)
        if "job" in described and not described["job"].fields:
            described["job"] = msgspec.structs.replace(described["job"], fields=resources.jobs.fields)
        self._layouts = {name: Layout(name, resource) for name, resource in described.items()}
        if "records" in described:
            self._open = Layout("records", described["records"], OPEN)
        labels = described["records"].statuses if "records" in described else {}
        self._record_statuses = statuses.extended({label: Status(status) for label, status in labels.items()})

    def raw_items(self, resource: str, body: bytes) -> list[Any]:
        """Return a response's items undecoded, to search them for fields. Raises one of `MALFORMED`."""
        return list(self._raw_page(resource, body).items)

    def explain(self, resource: str, body: bytes) -> DecodeReport:
        """Return what a description finds in a response, field by field.

        Raises one of `MALFORMED` when the response as a whole cannot be used.
        """
        layout = self._layouts[resource]
        found: list[dict[str, Any]] = []
        skipped: list[str] = []
        ignored = Counter[str]()
        page = self._raw_page(resource, body)
        for item in page.items:
            try:
                found.append(flat(layout.mapping(item, self._wall(), []) if layout.mapping else item, FIELDS[resource]))
                ignored.update(layout.item(item, self._wall()).ignored)
            except MALFORMED as error:
                skipped.append(str(error))
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not cost the other items
                skipped.append(unforeseen(error))
        return DecodeReport(found, skipped, ignored, page)

    def projects(self, body: bytes) -> DecodedPage[Project]:
        """Decode a page of the list of projects."""
        layout = self._layouts["projects"]
        page = self._listing(body, layout, lambda wire, bounds: self._project(wire))
        if layout.mapping and page.items and not any(project.name for project in page.items):
            raise ValueError(f"none of the {len(page.items)} items has a name")
        return page

    def jobs(self, body: bytes, known: RunDefaults | None = None) -> DecodedPage[RunSnapshot]:
        """Decode a page of a project's runs."""
        known = known or RunDefaults()
        return self._listing(body, self._layouts["jobs"], functools.partial(self._run, known), date=known.now)

    def job(self, body: bytes, known: RunDefaults | None = None) -> RunSnapshot:
        """Decode one run."""
        known = known or RunDefaults()
        bounds = Bounds(known.now, self._wall())
        wire = self._noted("job", self._layouts["job"].decode(body, bounds.as_of))
        # By itself, unlike in the list of its project, it can be one of another project: it was moved.
        return self._run(dataclasses.replace(known, project_id=wire.project_id or known.project_id), wire, bounds)

    def failed_records(self, body: bytes) -> DecodedPage[FailedRecord]:
        """Decode a page of a run's failed records."""
        return self._listing(body, self._layouts["records"], self._failed_record)

    def failed_records_of_all_runs(self, body: bytes, *, has_others: bool) -> DecodedPage[RecordOfRun]:
        """Decode a page of the failed records of all runs; `has_others`: those that did not fail are left out."""

        def record(wire: WireRecord, bounds: Bounds) -> RecordOfRun | None:
            if wire.job_id is None:
                raise ValueError("jobId: is missing")
            found = (
                self._record(wire, bounds)
                if has_others
                else RecordSnapshot(Status.FAILED, self._failed_record(wire, bounds))
            )
            project_id = None if wire.project_id is None else self._id(wire.project_id)
            return (
                RecordOfRun(self._id(wire.job_id), project_id, found.record) if found.status is Status.FAILED else None
            )

        page = self._listing(body, self._layouts["records"], record)
        failed = tuple(each for each in page.items if each is not None)
        # Not field by field: one that is forgotten would be lost.
        return cast("DecodedPage[RecordOfRun]", dataclasses.replace(page, items=failed))

    def records(self, body: bytes) -> DecodedPage[RecordSnapshot]:
        """Decode a page of a run's records, to count them."""
        has_status = False

        def record(wire: WireRecord, bounds: Bounds) -> RecordSnapshot:
            nonlocal has_status
            has_status = has_status or wire.status is not None
            return self._record(wire, bounds)

        page = self._listing(body, self._layouts["records"], record)
        if page.items and not has_status:
            raise ValueError(f"none of the {len(page.items)} items has a status")
        return page

    def open_records(self, body: bytes, status: Status) -> DecodedPage[OpenRecord | None]:
        """Decode a page of the records of one status, running or waiting; None stands for a record of another.

        Some APIs ignore a filter that they do not know, so each record must tell its status.
        """
        return self._listing(body, self._open, lambda wire, bounds: self._open_record(wire, bounds, status))

    def health(self, body: bytes, now: float | None = None) -> Health:
        """Decode the state of the worker service; without its state or a heartbeat it is down.

        A description without a heartbeat field does not need one. `now` is the API's time, if it is known. A body with
        none of the fields tells nothing, so it is invalid: it can be that of an error.
        """
        bounds = Bounds(now, self._wall())
        health: WireHealth = self._noted("health", self._layouts["health"].decode(body, bounds.as_of))
        if health.status is None and health.runtime in (msgspec.UNSET, WireRuntimeHealth()):
            raise ValueError("there is neither status nor runtime")
        runtime = health.runtime or WireRuntimeHealth()
        heartbeat = self._past(bounds, runtime.last_heartbeat_at, "health", "", "runtime.lastHeartbeatAt")
        return Health(
            runtime_up=runtime.status == "up"
            and (heartbeat is not None or not self._beats)
            and health.status != "down",
            workers=_whole(runtime.workers),
            last_heartbeat_at=heartbeat,
            beats=self._beats,
        )

    def tells_health(self, body: bytes) -> bool:
        """Whether a response with the status of an error tells the health, and not only that it is an error.

        It needs a field of the worker service, or a status that the contract has: bodies of errors can have a `status`
        too. A label that stands for no value tells nothing.
        """
        layout = self._layouts["health"]
        try:
            item = layout.single(body)
            told = layout.mapping.without_labels(item) if layout.mapping else flat(item, FIELDS["health"])
            status = layout.item(item, self._wall()).value.status
        except MALFORMED:
            return False
        return any(field != "status" for field in told) or ("status" in told and status in HEALTH_STATUSES)

    def usage(self, body: bytes) -> tuple[Meter, ...]:
        """Decode the plan meters."""
        meters = self._listing(body, self._layouts["usage"], self._meter).items
        return tuple({meter.name: meter for meter in meters}.values())

    def _raw_page(self, resource: str, body: bytes) -> RawPage:
        """Return a response with its items undecoded; of a single item, a page with it alone."""
        layout = self._layouts[resource]
        if resource in _SINGLE:
            return RawPage([layout.single(body)], 1, None, None)
        page = layout.page(body)
        items = [document(raw) if isinstance(raw, msgspec.Raw) else raw for raw in page.items]
        return dataclasses.replace(page, items=items)

    def _listing(
        self, body: bytes, layout: Layout, convert: Callable[[Any, Bounds], T], *, date: float | None = None
    ) -> DecodedPage[T]:
        """Decode a page of a list. One without a valid item cannot be used: it is not an empty list.

        `date` is the API's time, if the page itself has none.
        """
        decode: Callable[[Any, Bounds], Any]
        try:
            page = layout.typed_page(body)
            decode = convert
        except MALFORMED:
            # An invalid item or another layout: decode item by item. An invalid envelope raises here again.
            page = layout.page(body)

            def decode(raw: Any, bounds: Bounds) -> T:
                return convert(self._noted(layout.item_type.name, layout.item(raw, bounds.as_of)), bounds)

        kind, raws, as_of = layout.item_type.name, page.items, page.as_of
        now = self._wall()
        if as_of is not None and abs(as_of - now) > PAST:
            self._note_implausible(kind, "", "asOf")
            as_of = None
        bounds = Bounds(date if as_of is None else as_of, now)
        self._observer.decoded_items(kind, len(raws))
        items: list[T] = []
        reason = ""
        for raw in raws:
            try:
                items.append(decode(raw, bounds))
            except MALFORMED as error:
                reason = reason or str(error)
                self._observer.invalid_item(kind, str(error))
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not cost the other items
                reason = reason or unforeseen(error)
                self._observer.invalid_item(kind, unforeseen(error), error)
        if raws and not items:
            raise ValueError(f"none of the {len(raws)} items is valid: {reason}")
        skipped = len(raws) - len(items)
        return DecodedPage(tuple(items), page.cursor, as_of, page.count, page.total, page.more, page.pages, skipped)

    def _project(self, wire: WireProject | MappedProject) -> Project:
        refs = _references(wire.ref) if isinstance(wire, MappedProject) else ()
        own_id, name = self._id(wire.id), self._labels[wire.name or ""]
        if not name:
            self._note_implausible("project", own_id, "name")
        return Project(own_id, name, refs)

    def _run(self, known: RunDefaults, wire: WireJob | MappedJob, bounds: Bounds) -> RunSnapshot:
        labels = self._labels
        project_id = known.project_id
        if isinstance(wire, MappedJob) or project_id is None:
            project_id = wire.project_id or project_id
        if project_id is None:
            raise ValueError("projectId: is missing")
        started_at, updated_at, told_created_at = epoch(wire.started_at), epoch(wire.updated_at), epoch(wire.created_at)
        ended_at, progressed_at = epoch(wire.ended_at), epoch(wire.last_progress_at)
        earliest, latest = bounds.earliest, bounds.latest
        # Not in a function for all: this is called for each run of each page.
        if started_at is not None and not earliest <= started_at <= latest:
            self._note_implausible("job", project_id, wire.id, "startedAt")
            started_at = None
        if ended_at is not None and not earliest <= ended_at <= latest:
            self._note_implausible("job", project_id, wire.id, "endedAt")
            ended_at = None
        if progressed_at is not None and not earliest <= progressed_at <= latest:
            self._note_implausible("job", project_id, wire.id, "lastProgressAt")
            progressed_at = None
        due_at = epoch(wire.due_at)
        if due_at is not None and not earliest <= due_at <= bounds.latest_planned:
            self._note_implausible("job", project_id, wire.id, "dueAt")
            due_at = None
        waiting_until = epoch(wire.waiting_until)
        if waiting_until is not None and not earliest <= waiting_until <= bounds.latest_planned:
            self._note_implausible("job", project_id, wire.id, "waitingUntil")
            waiting_until = None
        if updated_at is not None and not earliest <= updated_at <= latest:
            self._note_implausible("job", project_id, wire.id, "updatedAt")
            updated_at = None
        created_at = told_created_at
        if created_at is not None and not earliest <= created_at <= latest:
            self._note_implausible("job", project_id, wire.id, "createdAt")
            created_at = None
        says_created = created_at is not None
        if created_at is None:
            # Of a contract's run that has not started, something that is told is better than to lose the run.
            instead = (started_at, updated_at, known.now) if told_created_at is not None else (started_at,)
            created_at = next((each for each in instead if each is not None), None)
        if created_at is None:
            raise ValueError("createdAt: is missing")
        if updated_at is None:
            updated_at = created_at if known.now is None else known.now
        spinner = labels[wire.spinner_name or ""]
        if not spinner and isinstance(wire, MappedJob):
            spinner = labels[known.spinner]
            if not spinner and known.names is not None:
                # Also of a project that is not known yet: whoever looks for it needs to see that it has runs.
                spinner = labels[known.names.get(project_id, project_id)]
            if not spinner:
                raise ValueError("spinnerName: is missing")
        elif not spinner:
            # Whoever knows the run knows its spinner.
            self._note_implausible("job", project_id, wire.id, "spinnerName")
        counts = wire.records
        refs: tuple[tuple[str, str], ...] = ()
        parent_record_id = ""
        if isinstance(wire, MappedJob):
            refs = _references(wire.ref)
            parent_record_id = hidden_id(self._id(wire.parent_record_id)) if wire.parent_record_id else ""
        return RunSnapshot(
            id=self._id(wire.id),
            project_id=project_id if project_id == known.project_id else self._id(project_id),
            spinner=spinner,
            trigger=self._codes[wire.trigger or ""],
            parent_id=labels[wire.parent_job_id or ""],
            status=self._run_statuses.get(wire.status) or self._run_status(wire.status),
            created_at=created_at,
            updated_at=updated_at,
            started_at=started_at,
            ended_at=ended_at,
            last_progress_at=progressed_at,
            records=None
            if counts is None
            else RecordCounts(
                total=counts.total,
                pending=counts.pending,
                running=counts.running,
                waiting=counts.waiting,
                completed=counts.completed,
                failed=counts.failed,
            ),
            failures=self._failures(wire.failures) if wire.failures else (),
            spinner_id="" if wire.spinner_id is None else self._id(str(wire.spinner_id)),
            refs=refs,
            says_created=says_created,
            due_at=due_at,
            parent_record_id=parent_record_id,
            waiting_until=waiting_until,
        )

    def _run_status(self, text: str) -> Status:
        label = self._labels[text]
        status = self._statuses.status_for(label)
        if status is Status.UNKNOWN:
            self._observer.unmapped_status(OTHER if is_personal(label) else label)
        elif len(self._run_statuses) < MAX_LABELS and len(text) <= self._label_length:
            self._run_statuses[text] = status
        return status

    def _failures(self, failures: tuple[WireFailure, ...]) -> tuple[FailureCount, ...]:
        """Return the largest groups; the others are one, as they are shown: an item can have a million of them."""
        found = [
            FailureCount(self._steps[each.step or ""], self._codes[each.error_code or ""], each.count)
            for each in failures
        ]
        if len(found) <= self._failure_groups:
            return tuple(found)
        found.sort(key=lambda each: -each.count)
        rest = sum(each.count for each in found[self._failure_groups :])
        return (*found[: self._failure_groups], FailureCount(OTHER, OTHER, rest))

    def _meter(self, wire: WireMeter, bounds: Bounds) -> Meter:
        for field, number in (("used", wire.used), ("limit", wire.limit)):
            if number is not None and not math.isfinite(number):
                raise ValueError(f"{field}: expected a finite number")
        resets_at = epoch(wire.resets_at)
        if resets_at is not None and not bounds.earliest <= resets_at <= bounds.latest_planned:
            self._note_implausible("meter", wire.name, "resetsAt")
            resets_at = None
        return Meter(self._labels[wire.name], wire.used, wire.limit, resets_at)

    def _failed_record(self, wire: WireRecord, bounds: Bounds) -> FailedRecord:
        step = wire.failed_step or WireStep()
        return FailedRecord(
            hidden_id(self._id(wire.id)),
            self._steps[step.name or step.type or ""],
            self._codes[wire.error_code or ""],
            self._past(bounds, wire.ended_at, "record", wire.id, "endedAt"),
        )

    def _open_record(self, wire: WireOpenRecord, bounds: Bounds, status: Status) -> OpenRecord | None:
        if wire.status is None or self._record_statuses.status_for(self._labels[wire.status]) is not status:
            return None
        step = wire.step or WireCurrentStep()
        return OpenRecord(
            hidden_id(self._id(wire.id)),
            self._steps[step.name or step.type or ""],
            None if step.index is None else step.index + 1,
            self._past(bounds, wire.started_at, "record", wire.id, "startedAt"),
            self._past(bounds, step.started_at, "record", wire.id, "step.startedAt"),
            wire.attempts,
        )

    def _past(self, bounds: Bounds, told: datetime | None, kind: str, item_id: str, field: str) -> float | None:
        """Return when something happened; None if that cannot be right."""
        at = epoch(told)
        if at is not None and not bounds.earliest <= at <= bounds.latest:
            self._note_implausible(kind, item_id, field)
            return None
        return at

    def _noted(self, kind: str, item: Item) -> Any:
        """Return an item without what cannot be right, which is noted."""
        wire = item.value
        for field in item.ignored:
            self._note_implausible(kind, getattr(wire, "project_id", None) or "", getattr(wire, "id", ""), field)
        return wire

    def _note_implausible(self, kind: str, *item_and_field: str) -> None:
        """Note that a value cannot be right, which therefore counts as missing."""
        if self._implausible.is_first(kind, *item_and_field):
            self._observer.ignored_value(kind, item_and_field[-1])

    def _record(self, wire: WireRecord, bounds: Bounds) -> RecordSnapshot:
        status = Status.UNKNOWN
        if wire.status is not None:
            label = self._labels[wire.status]
            status = self._record_statuses.status_for(label)
            if status is Status.UNKNOWN:
                self._observer.unmapped_status(OTHER if is_personal(label) else label)
        return RecordSnapshot(status, self._failed_record(wire, bounds))

    def _id(self, text: str) -> str:
        """Return an id unchanged. It is part of URLs, so an invalid one is an error and never cut."""
        if not text or not text.isprintable() or len(text) > self._label_length or text in (".", ".."):
            raise ValueError("id: expected printable characters, and not more than limits.label_length")
        return text


def _references(found: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    refs = tuple((found or {}).items())
    if any(len(value) > MAX_REF for _, value in refs):
        raise ValueError(f"ref: expected at most {MAX_REF:,} characters")
    return refs


def _whole(number: float | None) -> int | None:
    """Return a number as a whole one; None for what is no number of anything, such as NaN and -1."""
    return int(number) if number is not None and 0 <= number < math.inf and number == int(number) else None
