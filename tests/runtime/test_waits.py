"""How long a response asks us to wait, by its headers."""

import pytest

from exporter.runtime.rate_limits import http_date, is_rate_limit, pause
from tests.builders import NOON


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (503, {"Retry-After": "0"}, 0.0),
        (503, {"Retry-After": "12"}, 12.0),
        (503, {"Retry-After": "12.5"}, 12.5),
        (503, {"Retry-After": "12; comment"}, 12.0),
        (503, {"Retry-After": "Mon, 24 Nov 2025 15:00:00 GMT"}, 0.0),
        (503, {"Retry-After": "Mon, 24 Nov 2025 16:00:30 GMT"}, 30.0),
        (503, {"Retry-After": "soon"}, None),
        (503, {}, None),
        (429, {"X-RateLimit-Reset": "30, 30;w=60"}, 30.0),
        (429, {"X-RateLimit-Reset": f"{NOON + 90:.0f}"}, 90.0),
        (429, {"X-RateLimit-Reset": f"{(NOON + 90) * 1000:.0f}"}, 90.0),
        (429, {"X-RateLimit-Reset": f"{NOON - 90:.0f}"}, 1.0),
        # From 1e9 on, a number is a time, and from 1e11 on one in milliseconds.
        (429, {"X-RateLimit-Reset": "999999999"}, 999_999_999.0),
        (429, {"X-RateLimit-Reset": "1000000000"}, 1.0),
        (429, {"X-RateLimit-Reset": "99999999999"}, 99_999_999_999.0 - NOON),
        (429, {"X-RateLimit-Reset": "100000000000"}, 100_000_000.0),
        (429, {"X-RateLimit-Reset": "2025-11-24T16:00:30Z"}, 30.0),
        (429, {"X-RateLimit-Reset": "2025-11-24T16:00:30"}, None),
        (429, {"X-RateLimit-Reset": "soon", "X-Rate-Limit-Reset": "7"}, 7.0),
        (403, {"X-RateLimit-Remaining": "0, 0;w=60", "X-RateLimit-Reset-After": "7"}, 7.0),
        (403, {"X-RateLimit-Remaining": "1", "X-RateLimit-Reset-After": "7"}, None),
        (403, {"RateLimit": '"hour";r=0;t=5, "day";r=0;t=9000, "week";r=4;t=99999'}, 9000.0),
        (403, {"RateLimit": "limit=100, remaining=0, reset=5"}, 5.0),
    ],
)
def test_a_response_says_how_long_to_wait(status: int, headers: dict[str, str], seconds: float | None) -> None:
    assert pause(status, headers, now=NOON) == seconds


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (429, {}, True),
        (403, {}, False),
        (403, {"Retry-After": "1"}, True),
        (503, {"Retry-After": "1"}, False),
        (503, {"X-RateLimit-Remaining": "0"}, True),
        (500, {"X-RateLimit-Remaining": "0"}, False),
    ],
)
def test_a_refusal_because_of_a_rate_limit_is_known(status: int, headers: dict[str, str], *, expected: bool) -> None:
    assert is_rate_limit(status, headers) == expected


def test_a_date_before_there_was_http_is_none() -> None:
    assert http_date("Mon, 01 Jan 1990 00:00:00 GMT") == 631_152_000
    assert http_date("Sun, 31 Dec 1989 23:59:59 GMT") is None
