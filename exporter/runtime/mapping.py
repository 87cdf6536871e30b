"""Converts items of any API to the contract's format, with the fields of an API description."""

import math
import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.parser import ParsedResult

from exporter.config.api_description import UNKNOWN_TOTAL, FieldSource, Resource, TimeFormat
from exporter.config.patterns import value_pattern
from exporter.errors import ConfigError
from exporter.runtime.repairs import DISPENSABLE, repaired_field
from exporter.runtime.times import NONE, NOT_NEEDED, means_none, without_leap_second

_RUN = frozenset(
    {
        "id",
        "projectId",
        "spinnerId",
        "spinnerName",
        "status",
        "trigger",
        "parentJobId",
        "parentRecordId",
        "createdAt",
        "startedAt",
        "endedAt",
        "updatedAt",
        "lastProgressAt",
        "dueAt",
        "waitingUntil",
        "records.total",
        "records.pending",
        "records.running",
        "records.waiting",
        "records.completed",
        "records.failed",
        "failures",
    }
)

FIELDS: Mapping[str, frozenset[str]] = {
    "health": frozenset({"status", "runtime.status", "runtime.lastHeartbeatAt", "runtime.workers"}),
    "projects": frozenset({"id", "name"}),
    "jobs": _RUN,
    "job": _RUN,
    "records": frozenset(
        {
            "id",
            "jobId",
            "projectId",
            "status",
            "startedAt",
            "endedAt",
            "failedStep.name",
            "errorCode",
            "attempts",
            "step.name",
            "step.index",
            "step.startedAt",
        }
    ),
    "usage": frozenset({"name", "used", "limit", "resetsAt"}),
}
"""The fields of each resource: the names of the contract, dotted where nested."""

TEXTS = frozenset(
    {
        "id",
        "name",
        "jobId",
        "projectId",
        "spinnerId",
        "spinnerName",
        "status",
        "trigger",
        "parentJobId",
        "parentRecordId",
        "failedStep.name",
        "errorCode",
        "runtime.status",
        "step.name",
    }
)
"""Text fields; a number in one, such as an id, becomes text."""


class ItemMapping:
    """Compiled expressions for one resource's items. Raises `ConfigError` for an invalid one."""

    def __init__(self, name: str, resource: Resource) -> None:
        where = f"runtime.resources.{name}.fields"
        known = FIELDS[name]
        self._fields = []
        for field, source in resource.fields.items():
            if field not in known and not (name in _WITH_REFERENCES and _REFERENCE.fullmatch(field)):
                raise ConfigError(f"{where}.{field}: unknown field; expected one of {', '.join(sorted(known))}")
            if field == "records.total" and source == UNKNOWN_TOTAL:
                continue
            self._fields.append(_Field(field, source, f"{where}.{field}"))
        # The id tells items apart, a local time is not after the one that follows it, and durations are added to times.
        self._fields.sort(key=lambda each: (each.source.after is not None, _ORDER.get(each.name, len(_ORDER))))
        self._repeated: dict[tuple[str, str, str], datetime] = {}
        """Local times that come twice, by item, field and text, as they were understood first."""

    def __bool__(self) -> bool:
        return bool(self._fields)

    def __call__(self, item: Any, now: float = math.inf, ignored: list[str] | None = None) -> dict[str, Any]:
        """Return an item in the contract's format. Raises `ValueError` that names an invalid field.

        `now` is the time of the response: of a local time that comes twice, the last one that has passed is meant. An
        invalid field that is `DISPENSABLE` has no value, and is appended to `ignored`.
        """
        values: dict[str, Any] = {}
        for field in self._fields:
            try:
                value = field.find(item, values)
            except ValueError:
                if field.name not in DISPENSABLE or ignored is None:
                    raise
                ignored.append(field.name)
                continue
            if isinstance(value, _Repeated):
                value = self._understood(value, field.name, values, now)
            if value is not None:
                values[field.name] = value
        return _nested(values)

    def without_labels(self, item: Any) -> dict[str, Any]:
        """Return what an item has at the paths of the fields, as it is there. Raises `MisfitError`."""
        return {field.name: value for field in self._fields if (value := field.raw(item)) is not None}

    def _understood(self, time: "_Repeated", field: str, values: Mapping[str, Any], now: float) -> datetime:
        """Return which of the two times is meant.

        A time that does not change, and was seen before its text could mean the later time, stays the earlier one.
        """
        key = str(values.get("id", ""))[:MAX_ID], field, time.text
        known = self._repeated.get(key)
        if known is not None and field in _FIXED:
            return known
        following = (values.get(each) for each in _FOLLOWING.get(field, ()))
        ends = [each.timestamp() for each in following if isinstance(each, datetime) and each > NONE]
        is_past = time.later.timestamp() <= min([now + MARGIN, *ends])
        if len(self._repeated) >= MAX_REPEATED:
            self._repeated.clear()
        understood = self._repeated[key] = time.later if is_past else time.earlier
        return understood


_WITH_REFERENCES = ("projects", "jobs", "job")
_REFERENCE = re.compile(r"ref\.\w+")

MARGIN = 60.0
"""Seconds by which a time may be ahead of that of its response."""

MAX_ID = 200
"""Characters of an id by which such a time is noted: one that is longer is invalid."""

MAX_REPEATED = 20_000
"""Local times that come twice whose meaning is noted: all times of one hour in a year."""

_ORDER = {name: place for place, name in enumerate(("id", "endedAt", "lastProgressAt", "startedAt", "createdAt"))}
_FIXED = ("createdAt", "startedAt", "endedAt")
_FOLLOWING = {
    "lastProgressAt": ("endedAt",),
    "startedAt": ("endedAt", "lastProgressAt"),
    "createdAt": ("endedAt", "lastProgressAt", "startedAt"),
}
"""The times of a run that are not before a time."""


class _Repeated(NamedTuple):
    """A local time of the hour that comes twice when daylight saving time ends."""

    text: str
    earlier: datetime
    later: datetime


class _Field:
    def __init__(self, name: str, source: str | FieldSource, where: str) -> None:
        self.name = name
        self.source = FieldSource(path=source) if isinstance(source, str) else source
        self._expression = compiled(self.source.path, where) if self.source.path is not None else None
        convert = self.source.convert
        self._format = convert if isinstance(convert, TimeFormat) else None
        self._zone = zone_of((self._format and self._format.zone) or self.source.zone, where)
        self._pattern = value_pattern(self.source.pattern) if self.source.pattern is not None else None
        self._labels = _by_text(self.source.labels)
        self._others = self._labels.pop(OTHERS, None)

    def find(self, item: Any, values: Mapping[str, Any]) -> Any:
        try:
            value = self.source.value if self._expression is None else search(self._expression, item)
        except MisfitError:
            raise ValueError(f"{self.name}: the expression cannot be applied to the item") from None
        if self._pattern is not None:
            value = self._part(value)
        if self.source.labels:
            value = self._label(value)
        if value is None:
            return None
        if self.source.convert is not None:
            return self._converted(value, values)
        if self.name in TEXTS or self.name.startswith("ref."):
            is_nothing = isinstance(value, float) and not math.isfinite(value)
            return _text(value) if isinstance(value, str | int | float) and not is_nothing else None
        return repaired_field(self.name.rpartition(".")[2], value)

    def raw(self, item: Any) -> Any:
        """Return what an item has at the path; None for a value of the description. Raises `MisfitError`."""
        return None if self._expression is None else search(self._expression, item)

    def _part(self, value: Any) -> Any:
        """Return what the pattern finds in a value; None for nothing."""
        pattern, group = self._pattern or (None, "")
        if pattern is None or not isinstance(value, str | int | float):
            return None
        text = unicodedata.normalize("NFC", _text(value))
        found = pattern.search(text) if len(text) <= MAX_SEARCHED else None
        part = None if found is None else found[group]
        if part is None or self.name.rpartition(".")[2] not in _NUMBERS:
            return part
        try:
            number = float(part)
        except ValueError:
            return part
        # Half a record is not finished.
        is_whole = self.name.startswith("records.") and math.isfinite(number)
        return math.floor(number) if is_whole else number

    def _label(self, value: Any) -> Any:
        """Return the label of a value; the value itself if it has none."""
        if value is None:
            # What is missing is no other value.
            return self._labels.get(_text(None))
        # Also with True and False, as descriptions had to be written for earlier versions.
        found = self._labels.get(_text(value), self._labels.get(str(value)))
        return (value if self._others is None else self._others) if found is None else found

    def _converted(self, value: Any, values: Mapping[str, Any]) -> "datetime | _Repeated | None":
        try:
            return self._time(value, values)
        except (ValueError, TypeError, OverflowError, OSError):
            # A number that is no time is too large for one.
            if means_none(value) or _is_number(value) or self.name in NOT_NEEDED:
                return NONE
            expected = self.source.convert if self._format is None else self._format.format
            raise ValueError(f"{self.name}: expected {expected}") from None

    def _time(self, value: Any, values: Mapping[str, Any]) -> "datetime | _Repeated | None":
        kind = self.source.convert
        if self.source.after is not None:
            start = values.get(self.source.after)
            if isinstance(start, str):
                start = datetime.fromisoformat(start)
            duration = _duration(str(kind), value)
            if start is None or start == NONE:
                return None
            return start + duration if duration >= timedelta() else NONE
        if kind in ("epoch_s", "epoch_ms"):
            return datetime.fromtimestamp(float(value) / (1 if kind == "epoch_s" else 1000), UTC)
        if self._format is not None:
            time = datetime.strptime(str(value).strip()[:MAX_SEARCHED], self._format.format)
        else:
            time = datetime.fromisoformat(without_leap_second(str(value)))
        if (kind == "local" or self._format is not None) and time.tzinfo is None:
            # In UTC: a duration that is added to a local time would ignore that the clocks change meanwhile.
            earlier, later = (time.replace(tzinfo=self._zone, fold=fold).astimezone(UTC) for fold in (0, 1))
            return _Repeated(str(value), earlier, later) if earlier < later else earlier
        if time.tzinfo is None:
            raise ValueError("no zone")
        return time


OTHERS = "*"
"""The key of `labels` for all other values."""

MAX_SEARCHED = 100
"""Characters of a text in which a pattern searches, so that none takes long."""

_NUMBERS = frozenset(
    {"total", "pending", "running", "waiting", "completed", "failed", "workers", "used", "limit"}
)  # fmt: skip

_SPELLINGS = {True: ("true", "yes", "on"), False: ("false", "no", "off")}
"""What is a boolean as a key in YAML 1.1."""


def _by_text(labels: Mapping[Any, str]) -> dict[str, str]:
    """Return labels by the texts of their keys."""
    texts = {_text(key): label for key, label in labels.items() if not isinstance(key, bool)}
    for key, label in labels.items():
        if isinstance(key, bool):
            texts = {**dict.fromkeys(_SPELLINGS[key], label), **texts}
    return texts


def zone_of(name: str, where: str) -> ZoneInfo:
    """Return a time zone. Raises `ConfigError`."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(f"{where}.zone: {name!r} is not a time zone; expected a name such as Europe/Berlin") from None


class MisfitError(ValueError):
    """An expression cannot be applied to a value."""


def search(expression: Any, tree: Any) -> Any:
    """Apply a compiled expression. Raises `MisfitError`.

    The functions of JMESPath raise what Python raises for their arguments: `ceil` of infinity an `OverflowError`,
    `contains` of a number in a text a `TypeError`, and a deep tree a `RecursionError`.
    """
    try:
        return expression.search(tree)
    except Exception as error:  # noqa: BLE001 - there is no end to what a function can raise
        raise MisfitError(type(error).__name__) from None


def compiled(expression: str, where: str) -> Any:
    """Compile a JMESPath. Raises `ConfigError`."""
    if len(expression) > MAX_EXPRESSION:
        raise ConfigError(f"{where}: invalid JMESPath: expected at most {MAX_EXPRESSION:,} characters")
    try:
        made = jmespath.compile(expression)
        _check_depth(made)
    except JMESPathError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{where}: invalid JMESPath: {reason[:200]}") from None
    except RecursionError:
        raise ConfigError(f"{where}: invalid JMESPath: too many parts, or nested too deeply") from None
    except Exception:  # noqa: BLE001 - whatever Python does not accept
        raise ConfigError(f"{where}: invalid JMESPath: a number or an escape that cannot be read") from None
    return made


def _check_depth(made: Any) -> None:
    """Raise `RecursionError` for an expression whose steps are more than Python can nest, each within the next one."""
    sources(made)
    try:
        made.search(None)
    except RecursionError:
        raise
    except Exception:  # noqa: BLE001, S110 - the expression is for responses, and this is none
        pass


MAX_EXPRESSION = 10_000
"""Characters of an expression."""


def sources(expression: Any) -> list["Source"]:
    """Return where a compiled expression selects or rearranges items: `a.b` for `a.b[?c].d`; empty if nowhere."""
    return [Source(expression.expression, nodes, in_values=each) for nodes, each in _sources(expression.parsed)]


class Source:
    """An expression to a list, or with `in_values` to a mapping, of which a part or another order is used."""

    def __init__(self, text: str, nodes: tuple[Any, ...], *, in_values: bool) -> None:
        self._steps = [ParsedResult(text, node) for node in nodes]
        self._kinds = (list, dict) if in_values else (list,)

    def count(self, tree: Any) -> int:
        """Return the number of its items in a response. Raises `MisfitError`."""
        for step in self._steps:
            tree = search(step, tree)
        return len(tree) if isinstance(tree, self._kinds) else 0


def _sources(node: Any) -> list[tuple[tuple[Any, ...], bool]]:
    kind, children = node["type"], node["children"]
    if kind == "subexpression":
        # `a.b.c` has three children, each of which is applied to what the ones before lead to.
        return [
            ((*children[:place], *nodes), each)
            for place, child in enumerate(children)
            for nodes, each in _sources(child)
        ]
    if kind in _CHAINS:
        children = children[:1]
    elif kind not in _CHOICES:
        return []
    found: list[tuple[tuple[Any, ...], bool]] = []
    for child in children:
        if child["type"] not in ("literal", "expref"):
            found += [((child,), kind != "pipe"), *_sources(child)]
    return found


_CHAINS = ("projection", "value_projection", "filter_projection", "flatten", "pipe")
"""Expressions of which only the first part is applied to the whole document."""

_CHOICES = ("function_expression", "or_expression", "and_expression", "multi_select_list")
"""Expressions whose parts are all applied to the whole document."""


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (ValueError, TypeError, OverflowError):
        return False
    return not isinstance(value, bool)


def _duration(kind: str, value: Any) -> timedelta:
    if kind == "clock":  # 1:02:03.5, or 2 days, 1:02:03 as Python writes it
        days, _, clock = str(value).rpartition(", ")
        hours, minutes, seconds = clock.split(":")
        return timedelta(
            days=int(days.split()[0]) if days else 0, hours=int(hours), minutes=int(minutes), seconds=float(seconds)
        )
    return timedelta(seconds=float(value) / (1 if kind == "seconds" else 1000))


def _text(value: Any) -> str:
    """Return a value as text; true, false and null as in JSON."""
    if value is None:
        return "null"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *path, last = name.split(".")
        at = tree
        for key in path:
            at = at.setdefault(key, {})
        at[last] = value
    return tree
