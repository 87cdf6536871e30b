"""Values of another type than the contract's that can mean one thing only, as serializers of some languages write them.

Only an item that does not have the contract's types is looked at.
"""

import re
from typing import Any, get_args

import msgspec

from exporter.runtime.times import NONE, NOT_NEEDED, is_time, means_none, without_leap_second
from exporter.runtime.wire import Time


def repaired(item: Any) -> Any:
    """Return an item with the contract's types, as far as its values have one; the same object if it stays as it is."""
    if isinstance(item, dict):
        changed = {key: after for key, value in item.items() if (after := repaired_field(key, value)) is not value}
        return {**item, **changed} if changed else item
    if isinstance(item, list):
        parts = [repaired(part) for part in item]
        return parts if any(map(_is_other, parts, item)) else item
    return item


def repaired_field(name: str, value: Any) -> Any:
    """Return the value of one field of the contract in its type; the same object if it stays as it is."""
    if is_time(name):
        time = repaired_time(value)
        return NONE if name in NOT_NEEDED and not _is_usable(time, Time | None) else time
    if isinstance(value, dict | list):
        return repaired(value)
    if name in _COUNTS:
        return _whole(value)
    if name in _IDS and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value


_COUNTS = frozenset(
    {
        "total",
        "pending",
        "running",
        "waiting",
        "completed",
        "failed",
        "count",
        "used",
        "limit",
        "workers",
        "attempts",
        "index",
    }
)
_IDS = frozenset({"id", "projectId", "spinnerId", "parentJobId", "parentRecordId", "errorCode"})


DISPENSABLE: frozenset[str] = frozenset(
    {
        "records", "records.total", "records.pending", "records.running", "records.waiting", "records.completed",
        "records.failed", "failures", "trigger", "parentJobId", "failedStep", "errorCode", "attempts", "step",
        "step.index", "runtime.workers",
    }
)  # fmt: skip
"""Fields without which an item is of use: a value there that cannot be right is unknown, and costs no item.

None is a time: a format that the API description has wrong must not go unnoticed.
"""


def without_unusable(item: Any, of: Any, within: str = "") -> tuple[Any, list[str]]:
    """Return an item without those values of `DISPENSABLE` fields that cannot be right, and the names of the fields.

    `of` is the item's type, and `within` the name of the field whose value the item is.
    """
    if not isinstance(item, dict):
        return item, []
    kept, ignored = dict(item), list[str]()
    for field in msgspec.structs.fields(of):
        name, key = within + field.encode_name, field.encode_name
        if key not in item or _is_usable(item[key], field.type):
            continue
        part = _part_of(field.type)
        if part is not None and isinstance(item[key], dict):
            kept[key], of_part = without_unusable(item[key], part, f"{name}.")
            ignored += of_part
        elif name in DISPENSABLE:
            ignored.append(name)
            if part is not None and isinstance(item[key], list):
                kept[key] = [each for each in item[key] if _is_usable(each, part)]
            if not _is_usable(kept[key], field.type):
                del kept[key]
    return kept, ignored


def _part_of(type_: Any) -> Any:
    """Return the type of an object within another one, or of those in its list; None for any other type."""
    if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        return type_
    return next((part for each in get_args(type_) if (part := _part_of(each)) is not None), None)


def _is_usable(value: Any, type_: Any) -> bool:
    """Whether a value can be converted to a type as it is."""
    try:
        msgspec.convert(value, type_)
    except msgspec.ValidationError:
        return False
    return True


def repaired_time(value: Any) -> Any:
    """Return a time without what only some systems write; the same object if it stays as it is."""
    if value is not None and means_none(value):
        return NONE
    return without_leap_second(value) if isinstance(value, str) and ":60" in value else value


def _whole(value: Any) -> Any:
    """Return a whole number that is written as 10.0 or, as protobuf writes numbers of 64 bits, as "10"."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else value


_DIGITS = re.compile(r"[0-9]{1,19}")


def _is_other(one: Any, other: Any) -> bool:
    return one is not other
