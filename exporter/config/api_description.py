"""How an API is laid out, as a config describes it: paths, paging, and where in the answers our fields are.

Pure data, which `config` reads and `runtime` follows. What the contract says of its own API stands in
`presets/contract.yml`, in the same words.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from exporter.status import Status


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of the description; a key that it does not know is refused."""


class FieldSource(_Part, frozen=True):
    """Where one of our fields comes from, and how it is written there."""

    path: str | None = None
    """JMESPath from the item to the value."""
    value: str | int | float | bool | None = None
    """The value itself, where every item has the same."""
    convert: Literal["rfc3339", "epoch_s", "epoch_ms", "local", "seconds", "milliseconds", "clock"] | None = None
    """How the value is written: a time, or a duration that is added to the time in `after`."""
    zone: str = "UTC"
    """The time zone of `local` times, by its IANA name."""
    after: str | None = None
    """For durations: the field of ours from whose time on they count."""
    labels: dict[str, str] = {}
    """Their words and what each means in ours; a word that is not there stays as it is."""

    def __post_init__(self) -> None:
        if (self.path is None) == (self.value is None):
            raise ValueError("path: expected either path or value")
        if (self.after is not None) != (self.convert in ("seconds", "milliseconds", "clock")):
            raise ValueError("after: expected beside seconds, milliseconds or clock, and there alone")


class ListFilter(_Part, frozen=True):
    """What a request carries in addition to ask for a part of a list."""

    query: dict[str, Any] = {}
    body: dict[str, Any] = {}


class Paging(_Part, frozen=True):
    """How a long list is cut into pages."""

    style: Literal["none", "cursor", "page", "offset", "link"] = "none"
    parameter: str = ""
    """Of the query, or with POST the dotted path in the body, that says which page is wanted."""
    next: str | None = None
    """For `cursor`: JMESPath from the answer to the next page's cursor."""
    first: int = 1
    """For `page`: the number of the first."""
    size: int = 500
    """Items of a page that are asked for."""
    size_parameter: str | None = None
    """Like `parameter`, for the size; without it none is asked for."""

    def __post_init__(self) -> None:
        if self.style in ("cursor", "page", "offset") and not self.parameter:
            raise ValueError(f"parameter: is required for the style {self.style}")
        if self.style == "cursor" and self.next is None:
            raise ValueError("next: is required for the style cursor")
        if self.size < 1:
            raise ValueError("size: expected a whole number, 1 or more")


class Resource(_Part, frozen=True):
    """One thing that can be asked for. `{project}`, `{run}` and `{ref.NAME}` in its path stand for ids."""

    path: str
    method: Literal["GET", "POST"] = "GET"
    query: dict[str, Any] = {}
    body: dict[str, Any] = {}
    """JSON that goes with POST."""
    changed: ListFilter | None = None
    """Asks for what changed since `{since}`; without it every read asks for the whole list."""
    active: ListFilter | None = None
    """Asks for runs that have not ended."""
    failed: ListFilter | None = None
    """Asks for records that failed."""
    since: Literal["rfc3339", "epoch_s", "epoch_ms"] = "rfc3339"
    """How `{since}` is written."""
    items: str = "items"
    """JMESPath from the answer to the list of items, or to a mapping whose values they are."""
    item: str | None = None
    """For what is one item, not a list: JMESPath from the answer to it, where it is not the answer itself."""
    as_of: str | None = None
    """JMESPath to the API's own time of the answer; without it the header Date says it."""
    paging: Paging = Paging()
    fields: dict[str, str | FieldSource] = {}
    """From our fields to theirs: a JMESPath, or a `FieldSource`. Empty: items are as the contract has them.

    `job` without fields of its own has those of `jobs`.
    """
    statuses: dict[str, str] = {}
    """Of records: their words for states and the idea behind each."""
    token: bool = True
    """Whether the request is authorised."""
    accept: tuple[int, ...] = (200,)
    """HTTP statuses whose body is an answer."""

    def __post_init__(self) -> None:
        if not self.path.startswith("/"):
            raise ValueError("path: expected a path that begins with /")
        ideas = [status.value for status in Status if status is not Status.UNKNOWN]
        for word, idea in self.statuses.items():
            if idea not in ideas:
                raise ValueError(f"statuses.{word}: expected one of {', '.join(ideas)}, got {idea!r}")
        if self.method == "GET" and self.body:
            raise ValueError("body: expected with method: POST alone")


Absent = Literal["absent"]


class Resources(_Part, frozen=True):
    """All that is read. What a deployment lacks is `absent`, and the metrics that need it are not exported."""

    health: Resource | Absent
    projects: Resource | Absent
    """Absent: everything belongs to one project, with the runtime's name."""
    jobs: Resource
    job: Resource | Absent
    """One run by its id; absent: a run that is in no list any more is gone."""
    records: Resource | Absent
    usage: Resource | Absent
    counts: Literal["job", "records"] = "job"
    """Where a run's record counts are: in the run itself, or to be counted from its records."""

    def __post_init__(self) -> None:
        if self.counts == "records" and self.records == "absent":
            raise ValueError("counts: expected job, since records is absent")
        if self.job == "absent" and self.jobs.active is None and self.jobs.changed is not None:
            raise ValueError("job: is required where jobs has changed and no active: nothing else tells of an end")


def present(resources: Resources) -> dict[str, Resource]:
    """Return what a deployment has, by name."""
    named = {name: getattr(resources, name) for name in ("health", "projects", "jobs", "job", "records", "usage")}
    return {name: resource for name, resource in named.items() if isinstance(resource, Resource)}


def merged(under: Mapping[str, Any], over: Mapping[str, Any], *, depth: int = 100) -> dict[str, Any]:
    """Lay one tree over another: `depth` levels of mappings are merged, what is below is replaced, None removes."""
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
