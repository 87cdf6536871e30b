"""Values of another type than the contract's that can mean one thing only, as serializers of some languages write them.

Only an item that does not have the contract's types is looked at.
"""

import re
from typing import Any

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
        return NONE if name in NOT_NEEDED and not _is_valid(time) else time
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
_IDS = frozenset({"id", "projectId", "spinnerId", "parentJobId", "parentRecordId"})


def repaired_time(value: Any) -> Any:
    """Return a time without what only some systems write; the same object if it stays as it is."""
    if value is not None and means_none(value):
        return NONE
    return without_leap_second(value) if isinstance(value, str) and ":60" in value else value


def _is_valid(time: Any) -> bool:
    """Whether a time can be decoded as it is."""
    try:
        msgspec.convert(time, Time | None)
    except msgspec.ValidationError:
        return False
    return True


def _whole(value: Any) -> Any:
    """Return a whole number that is written as 10.0 or, as protobuf writes numbers of 64 bits, as "10"."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else value


_DIGITS = re.compile(r"[0-9]{1,19}")


def _is_other(one: Any, other: Any) -> bool:
    return one is not other
