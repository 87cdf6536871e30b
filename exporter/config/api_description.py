"""The description of an API in a config: paths, paging, and the location of the exporter's fields in responses.

Pure data: `config` reads it and `runtime` applies it. `presets/contract.yml` describes the contract's API in the same
format.
"""

import contextlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from exporter.config.patterns import value_pattern
from exporter.status import Status


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A section of the description; an unknown key is an error."""


class TimeFormat(_Section, frozen=True):
    """A format of times as `strptime` of Python and C understands it."""

    format: str
    zone: str | None = None
    """The IANA name of the time zone of times without an offset; without it that of the field, or UTC."""

    def __post_init__(self) -> None:
        # A time whose parts are all different, none of which is a default.
        sample = datetime(2023, 11, 22, 13, 14, 15, tzinfo=UTC)
        again = None
        with contextlib.suppress(ValueError):
            text = sample.strftime(self.format)
            # 2017 has the same weekdays. Python 3.13 warns of formats without a year before it refuses them.
            if text != sample.replace(year=2017).strftime(self.format):
                again = datetime.strptime(text, self.format)
        if again is None or again.date() != sample.date() or again.hour not in (0, sample.hour):
            raise ValueError("format: expected a date and a time of day, such as %Y-%m-%d %H:%M")

    @property
    def has_offset(self) -> bool:
        """Whether the times have their offset."""
        return "%z" in self.format


class FieldSource(_Section, frozen=True):
    """The source of a field's value, and its conversion."""

    path: str | None = None
    """JMESPath from the item to the value."""
    value: str | int | float | bool | None = None
    """The value itself, if it is the same for all items."""
    pattern: str | None = None
    """A regular expression, of which the named group finds the value within a text."""
    convert: (
        Literal["rfc3339", "epoch_s", "epoch_ms", "local", "seconds", "milliseconds", "clock"] | TimeFormat | None
    ) = None
    """The format of the value: a time, or a duration that is added to the time in `after`."""
    zone: str = "UTC"
    """The IANA name of the time zone of times without an offset."""
    after: str | None = None
    """For durations: the field that contains the start time."""
    labels: dict[str | bool | int | float | None, str] = {}
    """Maps values of the API to those of the contract. `*` maps all others, which without it are unchanged."""

    def __post_init__(self) -> None:
        if (self.path is None) == (self.value is None):
            raise ValueError("path: expected either path or value")
        if self.pattern is not None:
            if self.path is None:
                raise ValueError("pattern: requires path")
            try:
                value_pattern(self.pattern)
            except ValueError as error:
                raise ValueError(f"pattern: {error}") from None
        if (self.after is not None) != (self.convert in ("seconds", "milliseconds", "clock")):
            raise ValueError("after: required with convert: seconds, milliseconds or clock, and not allowed otherwise")


PLACEHOLDER = re.compile(r"\{([\w.]+)(:path)?\}")
"""A place in a request for the id of a project or a run, or for what one of their fields has (`ref.NAME`).

With `:path` its slashes stay slashes.
"""


def placeholders(part: Any) -> set[str]:
    """Return the placeholders for ids and references in a part of a request."""
    names = {name for name, _ in PLACEHOLDER.findall(str(part))}
    return {name for name in names if name in ("project", "run") or name.startswith("ref.")}


class ListFilter(_Section, frozen=True):
    """Query parameters and body keys that restrict a list to some of its items."""

    query: dict[str, Any] = {}
    body: dict[str, Any] = {}

    def __post_init__(self) -> None:
        _check_request(self.query, self.body)


def _check_request(query: Mapping[str, Any], body: Mapping[str, Any]) -> None:
    """Raise for a number that a request would not contain as it is written, or not at all."""
    for key, value in query.items():
        if any(isinstance(each, float) for each in (value if isinstance(value, list) else [value])):
            raise ValueError(f"query.{key}: expected a number with a fraction in quotes: 1.10 would be sent as 1.1")
    try:
        json.dumps(body, allow_nan=False)
    except ValueError:
        raise ValueError("body: expected numbers that JSON has, not .nan or .inf") from None


class Paging(_Section, frozen=True):
    """How a list is divided into pages."""

    style: Literal["none", "cursor", "page", "offset", "link"] = "none"
    parameter: str = ""
    """Query parameter that selects the page; with POST the dotted path in the body."""
    next: str | None = None
    """JMESPath from the response to the next page's cursor (`cursor`) or URL (`link`; without it, the header Link)."""
    first: int | None = None
    """The number of the first page (`page`; without it 1), or of the first item (`offset`; without it 0)."""
    size: int = 500
    """Items per page that are requested. A server may send fewer; the real number is learned."""
    size_parameter: str | None = None
    """Like `parameter`, for the size; without it, requests contain no size."""
    total: str | None = None
    """JMESPath from the response to the number of items of the whole list."""
    more: str | None = None
    """JMESPath from the response to whether there is another page, or to the number of all items or pages."""

    def __post_init__(self) -> None:
        if self.style in ("cursor", "page", "offset") and not self.parameter:
            raise ValueError(f"parameter: is required for the style {self.style}")
        if self.style == "cursor" and self.next is None:
            raise ValueError("next: is required for the style cursor")
        if self.size < 1:
            raise ValueError("size: expected a whole number, 1 or more")
        if self.first is not None and self.style not in ("page", "offset"):
            raise ValueError("first: only the styles page and offset have it")
        if self.first is not None and self.first < 0:
            raise ValueError("first: expected a whole number, 0 or more")
        if self.style == "none" and (self.parameter or self.next is not None):
            raise ValueError("style: expected cursor, page, offset or link with parameter or next")


class Resource(_Section, frozen=True):
    """One resource of the API. `{project}`, `{run}` and `{ref.NAME}` in its path are replaced by ids."""

    path: str
    method: Literal["GET", "POST"] = "GET"
    query: dict[str, Any] = {}
    body: dict[str, Any] = {}
    """JSON body of a POST request."""
    changed: ListFilter | None = None
    """Restricts the list to what changed since `{since}`; without it every read requests the whole list."""
    active: ListFilter | tuple[ListFilter, ...] | None = None
    """Restricts the list to runs that have not ended: in one request, or in one for each item of a list."""
    failed: ListFilter | None = None
    """Restricts the list to records that failed."""
    running: ListFilter | None = None
    """Restricts the list to records that are worked on; without it they are not read."""
    waiting: ListFilter | None = None
    """Restricts the list to records that wait; without it they are not read."""
    since: Literal["rfc3339", "epoch_s", "epoch_ms"] | TimeFormat = "rfc3339"
    """The format of `{since}`."""
    items: str = "items"
    """JMESPath from the response to the list of items, or to a mapping whose values are the items."""
    item: str | None = None
    """For a single item: JMESPath from the response to it; without it, the response is the item."""
    across: str | None = None
    """For `jobs`: the path of the same list of all projects, which is used where the API has it.

    For `records`: of the same list of all runs.
    """
    across_changed: ListFilter | None = None
    """For `records`: restricts the list of all runs to what changed since `{since}`, if that is not `changed`."""
    project: ListFilter | None = None
    """For `jobs` without `{project}` in its path: restricts the list to the runs of one project."""
    error: str | None = None
    """JMESPath to what is true in a response that is an error in spite of its status."""
    gone: str | None = None
    """For `job`: JMESPath to what is true in a response that says that the run no longer exists, as 404 and 410 do."""
    as_of: str | None = None
    """JMESPath to the API's time of the response; without it, the header Date is used."""
    paging: Paging = Paging()
    fields: dict[str, str | FieldSource] = {}
    """The source of each field: a JMESPath or a `FieldSource`. Empty: items have the contract's format.

    `job` without fields uses those of `jobs`.
    """
    statuses: dict[str, str] = {}
    """For records: the status of each status label."""
    token: bool = True
    """Whether the request carries the token."""
    accept: tuple[int, ...] = (200,)
    """HTTP statuses of a valid response."""

    def __post_init__(self) -> None:
        for key, path in (("path", self.path), ("across", self.across)):
            if path is not None and not path.startswith("/"):
                raise ValueError(f"{key}: expected a path that begins with /")
            if path is not None and not path.isprintable():
                raise ValueError(f"{key}: expected one line of text")
        known = [status.value for status in Status if status is not Status.UNKNOWN]
        for label, status in self.statuses.items():
            if status not in known:
                raise ValueError(f"statuses.{label}: expected one of {', '.join(known)}, got {status!r}")
        if self.across is not None and "{" in self.across:
            raise ValueError("across: expected a path without {project}, since the list is one of all projects")
        if self.across_changed is not None and self.across is None:
            raise ValueError("across_changed: not allowed without across")
        _check_request(self.query, self.body)
        if self.method == "GET" and self.body:
            raise ValueError("body: requires method: POST")
        if not self.accept or not all(100 <= status <= 599 for status in self.accept):
            raise ValueError("accept: expected at least one HTTP status, each from 100 to 599")
        if self.active == ():
            raise ValueError("active: expected at least one of the requests that together list what has not ended")

    @property
    def narrowings(self) -> tuple[ListFilter, ...]:
        """The restrictions to runs that have not ended: one for each request."""
        if self.active is None:
            return ()
        return (self.active,) if isinstance(self.active, ListFilter) else self.active

    @property
    def places(self) -> set[str]:
        """The ids and references that the request contains."""
        filters = [
            each
            for each in (self.changed, self.failed, self.running, self.waiting, self.project, *self.narrowings)
            if each is not None
        ]
        return placeholders([self.path, self.query, self.body, *([each.query, each.body] for each in filters)])

    @property
    def lists_all_projects(self) -> bool:
        """Whether the list is the same for each project, because no part of the request contains what it has."""
        return not msgspec.structs.replace(self, project=None).places

    @property
    def of_all_projects(self) -> "Resource | None":
        """The list of the runs of all projects; None if none is described, or its runs do not tell their project."""
        every = self if self.across is None else msgspec.structs.replace(self, path=self.across, across=None)
        return every if every.lists_all_projects and every.can_have("projectId") else None

    @property
    def lists_all_runs(self) -> bool:
        """Whether a list of records is the same for each run, because no part of the request names one."""
        filters = [each for each in (self.changed, self.failed) if each is not None]
        return not placeholders([self.path, self.query, self.body, *([each.query, each.body] for each in filters)])

    @property
    def of_all_runs(self) -> "Resource | None":
        """The list of the records of all runs; None if none is described, or it cannot tell what is new."""
        every = self
        if self.across is not None:
            changed = self.across_changed or self.changed
            every = msgspec.structs.replace(self, path=self.across, across=None, across_changed=None, changed=changed)
        is_usable = every.lists_all_runs and every.changed is not None and every.can_have("jobId")
        return every if is_usable else None

    def can_have(self, field: str) -> bool:
        """Whether items can have a field: it is described, or items have the contract's format."""
        return not self.fields or field in self.fields


KEYS_OF_SOME: Mapping[str, tuple[str, ...]] = {
    "gone": ("job",),
    "across": ("jobs", "records"),
    "across_changed": ("records",),
    "project": ("jobs",),
    "active": ("jobs",),
    "running": ("records",),
    "waiting": ("records",),
}
"""Keys of resources that only these can have."""

UNKNOWN_TOTAL = "unknown"
"""As `records.total`: the list of records grows while a run goes on, so that their number is no total."""

Absent = Literal["absent"]


class Resources(_Section, frozen=True):
    """The resources of the API. Without one that is `absent`, the metrics that need it are not exported."""

    health: Resource | Absent
    projects: Resource | Absent
    """Absent: all runs belong to one project, named by `runtime.project`."""
    jobs: Resource
    job: Resource | Absent
    """One run by its id. Absent: a run that no list contains any longer counts as deleted."""
    records: Resource | Absent
    usage: Resource | Absent
    counts: Literal["job", "records"] = "job"
    """The source of a run's record counts: its own fields, or its records, which are then listed and counted."""

    def __post_init__(self) -> None:
        if self.projects != "absent" and self.jobs.lists_all_projects and not self.jobs.can_have("projectId"):
            raise ValueError(
                "jobs.fields.projectId: is required if the request for jobs does not contain {project}, since one list "
                "then has the runs of all projects; without several projects, set projects: absent"
            )
        for name, resource in present(self).items():
            for key, owners in KEYS_OF_SOME.items():
                if getattr(resource, key) is not None and name not in owners:
                    raise ValueError(f"{name}.{key}: only {' and '.join(owners)} can have it")
            self._check_places(name, resource)
        if self.jobs.project is not None and not self.jobs.lists_all_projects:
            raise ValueError("jobs.project: not allowed if the request for jobs contains {project} already")
        if self.counts == "records" and self.records == "absent":
            raise ValueError("counts: expected job, since records is absent")
        if self.records != "absent" and self.records.lists_all_runs and self.records.of_all_runs is None:
            raise ValueError(
                "records: if its request names no run, the list has the records of all runs, and needs changed and "
                "fields.jobId"
            )
        if self.counts == "records" and self.records != "absent" and self.records.lists_all_runs:
            raise ValueError("counts: expected job, since the request for records names no run")
        if self.job == "absent" and self.jobs.active is None and self.jobs.changed is not None:
            raise ValueError(
                "job: is required if jobs has changed without active: nothing else shows that a run has ended"
            )

    @property
    def tells_total(self) -> bool:
        """Whether the number of a run's records that are listed while it goes on is their total."""
        return self.jobs.fields.get("records.total") != UNKNOWN_TOTAL

    def _check_places(self, name: str, resource: Resource) -> None:
        """Raise for an id or a reference in a request that nothing can give."""
        unknown = {place for place, _ in PLACEHOLDER.findall(resource.path)} - resource.places
        if unknown:
            raise ValueError(
                f"{name}.path: {{{min(unknown)}}} is unknown; expected {{project}}, {{run}} or {{ref.NAME}}"
            )
        of_run = (self.projects, self.jobs)
        sources = {"jobs": (self.projects,), "job": of_run, "records": of_run}
        described = [each for each in sources.get(name, ()) if isinstance(each, Resource)]
        known = {each for source in described for each in source.fields if each.startswith("ref.")}
        known |= {"project"} if name in sources else set()
        known |= {"run"} if name in ("job", "records") else set()
        for place in sorted(resource.places - known):
            # Who describes an API begins with its paths; without fields there is nothing to compare them with.
            if place.startswith("ref.") and not all(source.fields for source in described):
                continue
            expected = " or ".join(f"{{{each}}}" for each in sorted(known)) or "no id"
            fields = " and ".join(f"{each}.fields" for each in ("projects", "jobs")[: len(sources.get(name, ()))])
            why = f"; {fields} do not have it" if place.startswith("ref.") and fields else ""
            raise ValueError(f"{name}: the request contains {{{place}}}{why}; expected {expected}")


def reports_heartbeats(resources: Resources) -> bool:
    """Whether health contains the worker service's last heartbeat."""
    return isinstance(resources.health, Resource) and resources.health.can_have("runtime.lastHeartbeatAt")


def present(resources: Resources) -> dict[str, Resource]:
    """Return the resources that are not absent, by name."""
    named = {name: getattr(resources, name) for name in ("health", "projects", "jobs", "job", "records", "usage")}
    return {name: resource for name, resource in named.items() if isinstance(resource, Resource)}


def merged(under: Mapping[str, Any], over: Mapping[str, Any], *, depth: int = 100) -> dict[str, Any]:
    """Merge `over` into `under`: `depth` levels of mappings are merged, other values replaced; None removes a key."""
    result = dict(under)
    for key, value in over.items():
        below = result.get(key)
        if value is None:
            result.pop(key, None)
        elif depth > 1 and isinstance(value, Mapping) and isinstance(below, Mapping):
            result[key] = merged(below, value, depth=depth - 1)
        else:
            result[key] = value
    return result
