"""Rate limits, in whatever way an API tells them: all requests pause, and the error calls them by their name."""

from typing import Any

import pytest
import structlog

from tests.builders import NOON, Clock
from tests.faults.bench import two_projects, up
from tests.faults.server import Exchange, FaultyRuntime
from tests.faults.test_transport import exporter, scrapes
from tests.metrics.test_exposition import Samples, samples, value

RESET = int(NOON) + 100
"""When the limit ends, if the API tells a time; 85 s after its first refusal."""

LIMITS: list[tuple[int, dict[str, str]]] = [
    (403, {"Retry-After": "85"}),
    (429, {"Retry-After": "85"}),
    (429, {"Retry-After": "85.0"}),
    (403, {"Retry-After": "Mon, 24 Nov 2025 16:01:40 GMT"}),
    (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(RESET)}),
    (429, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(RESET)}),
    (429, {"X-RateLimit-Reset": str(RESET)}),
    (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(RESET * 1000)}),
    (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "85"}),
    (403, {"X-Rate-Limit-Remaining": "0", "X-Rate-Limit-Reset": str(RESET)}),
    (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "2025-11-24T16:01:40Z"}),
    (429, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset-After": "85.5"}),
    (403, {"RateLimit-Remaining": "0", "RateLimit-Reset": "85"}),
    (429, {"RateLimit": "limit=100, remaining=0, reset=85"}),
    (403, {"RateLimit": '"hour";r=0;t=85, "day";r=40;t=9000'}),
    (503, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(RESET)}),
    # What `Retry-After` says decides.
    (403, {"Retry-After": "85", "X-RateLimit-Remaining": "4000", "X-RateLimit-Reset": str(RESET + 3600)}),
]


@pytest.mark.parametrize(("status", "headers"), LIMITS, ids=lambda value: str(value)[:90])
async def test_a_rate_limit_pauses_all_requests_until_it_ends(status: int, headers: dict[str, str]) -> None:
    clock = Clock()

    async def refuse(exchange: Exchange) -> None:
        await exchange.send(b'{"message": "API rate limit exceeded"}', status=status, headers=headers)

    faulty = FaultyRuntime(two_projects(clock))
    async with faulty.serving() as url:
        made = exporter(url, clock)
        before, _ = await scrapes(made, clock, times=1)
        faulty.fault = refuse
        clock.now = NOON
        found, lines = await scrapes(made, clock, times=1)
        requests = faulty.requests
        during, more = await scrapes(made, clock, times=5)
        assert faulty.requests == requests, "a request was sent before the limit ended"
        assert up(found) == up(during) == (0, 0, 0)
        for each in (found, during):
            assert completed(each) == completed(before), "the last good data are shown"
        assert "rate limited" in str(lines + more)
        assert "may not read" not in str(lines + more)
        assert "exc_info" not in str(lines + more)
        assert "not requested: rate limited" in str([each.error for each in projects(made)])
        faulty.fault = None
        clock.advance(11)
        after, _ = await scrapes(made, clock, times=1)
        await made.close()
    assert up(after) == (1, 1, 1)


def completed(found: Samples) -> float | None:
    return value(found, "spinner_run_records", run_id="run-1", state="completed")


def projects(made: Any) -> list[Any]:
    (monitored,) = made.runtimes.values()
    return list(monitored.store.view.projects())


@pytest.mark.parametrize("reset", ["9999999999", "99999999", "1e300", "9" * 400])
async def test_no_reset_pauses_for_more_than_five_minutes(reset: str) -> None:
    clock = Clock()

    async def refuse(exchange: Exchange) -> None:
        await exchange.send(b"", status=403, headers={"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset})

    faulty = FaultyRuntime(two_projects(clock), fault=refuse)
    async with faulty.serving() as url:
        made = exporter(url, clock)
        await scrapes(made, clock, times=1)
        clock.advance(301)
        faulty.fault = None
        found, _ = await scrapes(made, clock, times=1)
        await made.close()
    assert up(found) == (1, 1, 1)


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (403, {}),
        (403, {"X-RateLimit-Remaining": "17", "X-RateLimit-Reset": str(RESET)}),
        (403, {"X-RateLimit-Remaining": "none", "X-RateLimit-Reset": "soon"}),
        (403, {"Retry-After": "soon"}),
        (403, {"RateLimit": '"hour";r=3;t=85'}),
        (401, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(RESET)}),
    ],
    ids=str,
)
async def test_what_is_no_rate_limit_pauses_nothing(status: int, headers: dict[str, str]) -> None:
    clock = Clock()

    async def refuse(exchange: Exchange) -> None:
        await exchange.send(b"", status=status, headers=headers)

    async with FaultyRuntime(two_projects(clock), fault=refuse, path="/p1/jobs").serving() as url:
        made = exporter(url, clock)
        found, lines = await scrapes(made, clock)
        await made.close()
    assert up(found) == (1, 0, 1)
    assert "rate limited" not in str(lines)


async def test_a_full_plan_is_no_rate_limit() -> None:
    clock = Clock()

    async def refuse(exchange: Exchange) -> None:
        await exchange.send(b'{"errorCode": "PLAN_LIMIT"}', status=403, headers={"Retry-After": "85"})

    async with FaultyRuntime(two_projects(clock), fault=refuse, path="/p1/jobs").serving() as url:
        made = exporter(url, clock)
        with structlog.testing.capture_logs() as lines:
            found = samples(str(await made.page(max_wait=20)))
        await made.close()
    assert up(found) == (1, 0, 1)
    assert "the plan is full (PLAN_LIMIT)" in str(lines)
    assert "rate limited" not in str(lines)
