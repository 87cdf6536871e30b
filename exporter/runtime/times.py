"""Which of the times that a runtime gives can be right, and what some systems write for none."""

import re
from datetime import UTC, datetime
from typing import Any

DAY = 86400.0
YEAR = 365.25 * DAY

PAST = 50 * YEAR
"""Seconds that a time can be in the past: zeros of most systems (0001, 1900, 1970) are further away."""

AHEAD = DAY
"""Seconds that a time of something that has happened can be in the future, since clocks can be wrong."""

PLANNED = 50 * YEAR
"""The same for something that is planned, such as the reset of a meter."""

EPOCH_MS = 1e11
"""As seconds since 1970 this would be the year 5138, so larger numbers are milliseconds."""

NONE = datetime.min.replace(tzinfo=UTC)
"""What every value that means none becomes, so that one check finds them all."""

_WORDS = frozenset({"", "0", "-1", "-", "null", "none", "never", "n/a", "nan", "infinity", "-infinity"})
_YEAR = re.compile(r"[+-]?\d{4,6}(?=-)")
_FIRST_YEAR, _LAST_YEAR = 1971, 8999


def means_none(value: Any) -> bool:
    """Whether a value that is not in the expected format stands for no time."""
    if isinstance(value, int | float):
        return not isinstance(value, bool) and not value > 0
    if not isinstance(value, str):
        return False
    text = value.strip().lower()
    year = _YEAR.match(text)
    return text in _WORDS or (year is not None and not _FIRST_YEAR <= int(year[0]) <= _LAST_YEAR)


def without_leap_second(text: str) -> str:
    """Return a time without a leap second: it is valid (RFC 3339), but neither msgspec nor `datetime` reads it."""
    return _LEAP_SECOND.sub(r"\1:59", text, count=1)


_LEAP_SECOND = re.compile(r"^(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d):60(?!\d)")


def is_time(field: str) -> bool:
    """Whether a field of the contract is a time."""
    return field.endswith(("At", "Until"))


NOT_NEEDED = frozenset({"dueAt", "waitingUntil"})
"""Times without which a run is watched as well: a value that is no time counts as missing and costs no run."""


class Bounds:
    """Which times of one response can be right. `as_of` is the runtime's time of it, if known, and `now` ours."""

    __slots__ = ("as_of", "earliest", "latest", "latest_planned")

    def __init__(self, as_of: float | None, now: float) -> None:
        known = (now,) if as_of is None else (now, as_of)
        self.as_of = now if as_of is None else as_of
        self.earliest = min(known) - PAST
        self.latest = max(known) + AHEAD
        self.latest_planned = max(known) + PLANNED


class Once:
    """Notes what was counted, so that it is counted once; of very much it forgets the oldest."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._recent: set[int] = set()
        self._earlier: set[int] = set()

    def is_first(self, *key: str) -> bool:
        """Whether this is the first call with this key."""
        # A hash takes a tenth of the memory of the key.
        short = hash(key)
        if short in self._recent:
            return False
        if len(self._recent) >= self._size:
            self._earlier, self._recent = self._recent, set()
        self._recent.add(short)
        return short not in self._earlier
