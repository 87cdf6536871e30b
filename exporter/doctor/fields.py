"""What a description finds of each field: in how many items, one example, and the effect if it is missing."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from exporter.config import Config
from exporter.config.api_description import FieldSource, present, reports_heartbeats
from exporter.doctor.diagnosis import FieldFinding
from exporter.doctor.effects import EFFECTS, REQUIRED
from exporter.doctor.examples import example
from exporter.runtime.client import RuntimeClient
from exporter.runtime.codes import is_code
from exporter.runtime.mapping import FIELDS
from exporter.runtime.statuses import StatusMap
from exporter.service.monitored_runtime import status_map
from exporter.status import Status


class Fields:
    """The fields of a runtime's items, as its config describes them."""

    def __init__(self, config: Config, client: RuntimeClient) -> None:
        self._resources = config.runtime.resources
        self._client = client
        self._statuses = status_map(config)
        self._record_statuses = record_status_map(config)

    def findings(self, resource: str, items: Sequence[dict[str, Any]], raw: Sequence[Any]) -> Iterator[FieldFinding]:
        """Yield what was found of each field in `items`, whose undecoded form is `raw`."""
        for field in sorted(FIELDS[resource], key=lambda each: (each not in REQUIRED[resource], each)):
            values = [item[field] for item in items if field in item]
            expected = [item for item in items if self._should_have(resource, field, item)]
            effect = "" if values or not expected else EFFECTS.get((resource, field), "required")
            if effect and field == "runtime.lastHeartbeatAt" and reports_heartbeats(self._resources):
                effect = "the runtime counts as down"
            if not values and (substitute := self._substitute(resource, field)):
                effect = substitute
            path = self._path(resource, field)
            nulls = sum(_is_null(item, path) for item in raw) if path is not None and not values else 0
            instead = self._instead(resource, field, path, raw) if effect and nulls < len(raw) else ""
            if not effect and not values:
                effect = f"none: {_ONLY[resource, field]}"
            yield FieldFinding(resource, field, len(values), len(raw), example(field, values), effect, instead, nulls)

    def in_words(self, resource: str, reason: str) -> str:
        """Return why an item cannot be used; of a field that is missing, also what to change."""
        found = re.fullmatch(r"Object missing required field `(\w+)`", reason)
        if found is None:
            return reason
        is_described = found[1] in present(self._resources)[resource].fields
        what = f"fields.{found[1]} finds nothing" if is_described else f"map it under fields.{found[1]}"
        return f"`{found[1]}` is missing ({what})"

    def _path(self, resource: str, field: str) -> str | None:
        """Return where the description looks for a field; None if it does not."""
        described = present(self._resources)[resource].fields
        source = described.get(field, None if described else field)
        return source.path if isinstance(source, FieldSource) else source

    def _instead(self, resource: str, field: str, path: str | None, raw: Sequence[Any]) -> str:
        """Return the keys of items where the description looks for a field; empty if it does not."""
        if path is None:
            return _keys_of(raw, "") if field in REQUIRED[resource] else ""
        return _keys_of(raw, path)

    def _substitute(self, resource: str, field: str) -> str:
        """Return what is used instead of a missing field of runs; empty for nothing."""
        if resource != "jobs":
            return ""
        if field == "spinnerName" and self._client.has("projects"):
            return "none: the project's name is used"
        if field == "records.total" and not self._resources.tells_total:
            return "described as unknown: no spinner_run_progress_ratio while a run goes on"
        counted = field == "lastProgressAt" or field.startswith(("records.", "failures"))
        return "none: it is counted from the records" if counted and self._client.counts_records else ""

    def _should_have(self, resource: str, field: str, item: dict[str, Any]) -> bool:
        """Whether an item should have a field: an open one has no end, and one that did not fail no error."""
        statuses = self._record_statuses if resource == "records" else self._statuses
        status = statuses.status_for(str(item.get("status", "")))
        if (resource, field) == ("jobs", "endedAt"):
            return status.ended
        if resource == "records" and field in ("failedStep.name", "errorCode"):
            return status is Status.FAILED
        if resource == "records" and field == "endedAt":
            return status.ended
        if (resource, field) == ("records", "attempts"):
            return status is Status.RUNNING
        if resource == "records" and field.startswith("step."):
            return status in (Status.RUNNING, Status.WAITING)
        return not (resource == "jobs" and field == "startedAt" and status is Status.QUEUED)


def record_status_map(config: Config) -> StatusMap:
    """Return the statuses of all labels of records: those of runs, and their own."""
    records = present(config.runtime.resources).get("records")
    own = {} if records is None else records.statuses
    return status_map(config).extended({label: Status(status) for label, status in own.items()})


_IN_STEP = "only records in flight and waiting ones have one"

_ONLY = {
    ("jobs", "endedAt"): "only runs that have ended have one",
    ("jobs", "startedAt"): "only runs that have started have one",
    ("records", "endedAt"): "only records that have ended have one",
    ("records", "failedStep.name"): "only failed records have one",
    ("records", "errorCode"): "only failed records have one",
    ("records", "attempts"): "only records in flight have one",
    ("records", "step.name"): _IN_STEP,
    ("records", "step.index"): _IN_STEP,
    ("records", "step.startedAt"): _IN_STEP,
}
"""Which items have a field that not all items should have."""


def _steps(path: str) -> list[str]:
    """Return the keys of a path of keys alone; none of any other expression."""
    return [step.strip('"') for step in path.split(".")] if re.fullmatch(r'[\w".-]+', path) else []


def _is_null(item: Any, path: str) -> bool:
    """Whether an item has the key at a path, with null as its value."""
    *above, last = _steps(path) or [""]
    for step in above:
        item = item.get(step) if isinstance(item, dict) else None
    return isinstance(item, dict) and last in item and item[last] is None


def _keys_of(items: Sequence[Any], path: str) -> str:
    """Return the keys of the deepest mapping on a path to a value that is missing."""
    steps = _steps(path)
    found: dict[str, None] = {}
    place = ""
    for item in items:
        at, here = item, list[str]()
        for step in steps:
            if not isinstance(at, dict) or not isinstance(at.get(step), dict):
                break
            at, here = at[step], [*here, step]
        if isinstance(at, dict) and not (steps and at.get(steps[-1]) is not None):
            place = ".".join(here)
            found |= dict.fromkeys(str(key) for key in at if is_code(str(key)))
    names = list(found)
    more = f" and {len(names) - MAX_KEYS} more" if len(names) > MAX_KEYS else ""
    return f"{place or 'the items'} {'has' if place else 'have'} {', '.join(names[:MAX_KEYS])}{more}" if names else ""


MAX_KEYS = 12
"""Keys of items that are named."""
