"""How long a response asks us to wait, and whether that is because of a rate limit. There is no one way to say it.

`Retry-After` (RFC 9110) is the standard. GitHub and many others send 403 or 429 with `X-RateLimit-Remaining: 0` and the
time of the reset in `X-RateLimit-Reset`, in seconds since the epoch; others the seconds until then. The IETF's drafts
for `RateLimit` say both in one header.
"""

import dataclasses
import email.utils
import re
from collections.abc import Mapping
from datetime import datetime

_REMAINING = ("X-RateLimit-Remaining", "X-Rate-Limit-Remaining", "RateLimit-Remaining")

_RESET = (
    "X-RateLimit-Reset-After",
    "RateLimit-Reset",
    "X-RateLimit-Reset",
    "X-Rate-Limit-Reset",
)

_EPOCH = 1e9
"""Numbers from here are times since the epoch in seconds, and from 100 times of it in milliseconds."""


_BEFORE_HTTP = 631_152_000.0
"""1990, when there was no HTTP: a server without a clock dates its responses 1970 or 1980."""


def is_rate_limit(status: int, headers: Mapping[str, str]) -> bool:
    """Whether a response is a refusal because there were too many requests."""
    if status == 429:
        return True
    if status == 403 and _retry_after(headers, now=0.0) is not None:
        return True
    return status in (403, 503) and (_is_exhausted(headers) or bool(_exhausted_policies(headers)))


def pause(status: int, headers: Mapping[str, str], *, now: float) -> float | None:
    """Return for how many seconds a response asks us to wait; None if it does not, or not understandably.

    `now` is the time by the server's clock, or by ours if the response has none.
    """
    wait = _retry_after(headers, now=now)
    if wait is None and is_rate_limit(status, headers):
        wait = _until_reset(headers, now=now)
    return None if wait is None else max(wait, 0.0)


@dataclasses.dataclass(frozen=True, slots=True)
class Allowance:
    """How many requests an API allows."""

    requests: float
    window: float | None = None
    """In how many seconds; None if headers do not tell."""
    resets_in: float | None = None
    """Seconds until the next reset; None if headers do not tell."""

    @property
    def per_hour(self) -> float | None:
        """Requests per hour; None if headers do not tell."""
        return self.requests * 3600 / self.window if self.window else None

    def __str__(self) -> str:
        if self.per_hour is not None:
            return f"{self.per_hour:,.0f} requests per hour"
        if self.resets_in is not None:
            return f"{self.requests:,.0f} requests until a reset, the next one in {self.resets_in:,.0f} s"
        return f"{self.requests:,.0f} requests in a time that it does not tell"


def allowance(headers: Mapping[str, str], *, now: float) -> Allowance | None:
    """Return the rate limit that headers tell, of several the one with the fewest requests per hour; None without one.

    `RateLimit-Policy` is `100;w=60` in older drafts of the IETF, `"hour";q=1000;w=3600` in newer ones; some put it into
    `RateLimit-Limit`. Kong writes `X-RateLimit-Limit-Hour`.
    """
    found = [
        Allowance(float(number[1]), float(window[1]))
        for name in ("RateLimit-Policy", "RateLimit-Limit", "X-RateLimit-Limit")
        for policy in headers.get(name, "").split(",")
        if (window := re.search(r";\s*w(?:indow)?=(\d{1,9})", policy))
        and float(window[1]) > 0
        and (number := re.search(r";\s*q=(\d{1,12})", policy) or re.match(r"\s*(\d{1,12})", policy))
    ]
    for unit, seconds in (("Second", 1.0), ("Minute", 60.0), ("Hour", 3600.0), ("Day", 86400.0)):
        told = _number(headers.get(f"X-RateLimit-Limit-{unit}", headers.get(f"RateLimit-Limit-{unit}", "")))
        if told is not None:
            found.append(Allowance(told, seconds))
    if found:
        return min(found, key=lambda each: each.per_hour or 0.0)
    for name in ("X-RateLimit-Limit", "X-Rate-Limit-Limit", "RateLimit-Limit"):
        told = _number(headers.get(name, ""))
        if told is not None:
            return Allowance(told, resets_in=_until_reset(headers, now=now))
    newest = re.search(r"\blimit\s*=\s*(\d{1,12})", headers.get("RateLimit", ""))
    return Allowance(float(newest[1]), resets_in=_until_reset(headers, now=now)) if newest else None


def http_date(text: str) -> float | None:
    """Return the time of an HTTP header in seconds since the epoch; None for an invalid one, or one that means none."""
    try:
        time = email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError, OSError):
        return None
    return time if time >= _BEFORE_HTTP else None


def _retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    text = headers.get("Retry-After", "").strip()
    seconds = _number(text)
    if seconds is not None:
        return seconds
    until = http_date(text)
    return None if until is None else until - now


def _is_exhausted(headers: Mapping[str, str]) -> bool:
    remaining = [_number(headers[name]) for name in _REMAINING if name in headers]
    return any(number is not None and number <= 0 for number in remaining)


def _exhausted_policies(headers: Mapping[str, str]) -> list[float | None]:
    """Return the seconds until the reset of each exhausted policy in the header `RateLimit`.

    `limit=100, remaining=0, reset=5` in older drafts, `"hour";r=0;t=5, "day";r=40;t=9000` in newer ones.
    """
    header = headers.get("RateLimit", "")
    policies = header.split(",") if ";" in header else [header]
    found: list[dict[str, str]] = [
        dict(re.findall(r"\b(r|t|remaining|reset)\s*=\s*(\d+)", policy)) for policy in policies
    ]
    return [
        _number(policy.get("t", policy.get("reset", "")))
        for policy in found
        if _number(policy.get("r", policy.get("remaining", ""))) == 0
    ]


def _until_reset(headers: Mapping[str, str], *, now: float) -> float | None:
    waits = [each for each in _exhausted_policies(headers) if each is not None]
    if waits:
        return max(waits)
    for name in _RESET:
        text = headers.get(name, "").strip()
        at = _number(text)
        if at is None:
            at = http_date(text) or _rfc3339(text)
        if at is None:
            continue
        if at >= _EPOCH * 100:
            at /= 1000
        # A reset in the past is one by another clock, or has just been.
        return at if at < _EPOCH else max(at - now, 1.0)
    return None


def _rfc3339(text: str) -> float | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if time.tzinfo is None else time.timestamp()


def _number(text: str) -> float | None:
    """Return the number at the beginning of a header, which can have parameters; None if there is none."""
    found = re.match(r"\s*(\d{1,30}(?:\.\d+)?)\s*(?:[,;]|$)", text, re.ASCII)
    return float(found[1]) if found else None
