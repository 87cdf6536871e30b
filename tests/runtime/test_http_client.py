"""Requests: retries, timeouts, the size of bodies, and the circuit breaker."""

import asyncio
import contextlib
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from exporter.errors import ApiError
from exporter.runtime.http_client import OPEN_AFTER, RETRIES, PausedError
from tests.builders import Clock
from tests.runtime.test_client import Observed, client

GOOD = b'{"meters": []}'


def plan_limit(status: int) -> httpx.Response:
    return httpx.Response(status, json={"error": "full", "errorCode": "PLAN_LIMIT"}, headers={"Retry-After": "1"})


# -- retries ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [None, "BUSY", "UNAVAILABLE"])
@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 520, 524, 530])
async def test_transient_failures_are_retried_with_backoff(status: int, code: str | None) -> None:
    observed, waits = Observed(), list[float]()
    fails = httpx.Response(status, json={"errorCode": code})
    answers = iter([fails, fails, httpx.Response(200, content=GOOD)])
    assert await client(lambda request: next(answers), observed=observed, waits=waits).usage() == ()
    assert [code for _, code in observed.requests] == [str(status), str(status), "200"]
    first, second = waits
    assert 0.15 <= first <= 0.45
    assert 0.3 <= second <= 0.9


async def test_retries_have_jitter() -> None:
    waits = list[float]()
    for _ in range(10):
        with pytest.raises(ApiError):
            await client(lambda request: httpx.Response(500), waits=waits).usage()
    assert len(set(waits)) == len(waits) == 10 * RETRIES
    assert all(0.15 <= first <= 0.45 for first in waits[::2])
    assert all(0.3 <= second <= 0.9 for second in waits[1::2])


@pytest.mark.parametrize(
    "refusal",
    [httpx.Response(status) for status in (302, 400, 401, 403, 404, 407, 499, 501, 505, 511)]
    + [plan_limit(status) for status in (402, 403, 429, 503)],
    ids=lambda refusal: f"{refusal.status_code}-{len(refusal.content)}",
)
async def test_other_failures_are_not_retried(refusal: httpx.Response) -> None:
    observed = Observed()
    with pytest.raises(ApiError) as error:
        await client(lambda request: refusal, observed=observed).usage()
    assert len(observed.requests) == 1
    assert ("PLAN_LIMIT" in str(error.value)) == (b"PLAN_LIMIT" in refusal.content)


async def test_a_retry_waits_for_retry_after() -> None:
    clock = Clock()
    waits = list[float]()
    answers = iter([httpx.Response(503, headers={"Retry-After": "3"}), httpx.Response(200, content=GOOD)])
    api = client(lambda request: next(answers), clock=clock, waits=waits)
    with pytest.raises(PausedError):
        await api.usage()  # the test's sleep does not advance the clock, so the pause is not over
    assert waits == [3.0]


@pytest.mark.parametrize("seconds", ["10", "11"])
async def test_a_wait_that_lasts_until_the_timeout_or_longer_has_no_retry(seconds: str) -> None:
    observed = Observed()
    api = client(lambda request: httpx.Response(503, headers={"Retry-After": seconds}), observed=observed)
    with pytest.raises(ApiError, match="HTTP 503"):
        await api.usage()
    assert len(observed.requests) == 1


async def test_there_is_no_retry_after_the_timeout() -> None:
    clock, observed = Clock(), Observed()

    def slow(request: httpx.Request) -> httpx.Response:
        clock.advance(9.9)
        return httpx.Response(500)

    with pytest.raises(ApiError):
        await client(slow, clock=clock, observed=observed).usage()
    assert len(observed.requests) == 1


@pytest.mark.parametrize(("seconds", "in_time"), [(10, True), (10.1, False)])
async def test_a_response_that_is_read_after_the_timeout_is_none(seconds: float, *, in_time: bool) -> None:
    """As after the machine was suspended."""
    clock, observed = Clock(), Observed()

    def slow(request: httpx.Request) -> httpx.Response:
        clock.advance(seconds)
        return httpx.Response(200, content=GOOD)

    api = client(slow, clock=clock, observed=observed)
    if in_time:
        assert await api.usage() == ()
    else:
        with pytest.raises(ApiError, match="usage: no response in time"):
            await api.usage()
    assert observed.seconds == [pytest.approx(seconds)]


async def test_a_request_ends_with_its_timeout_however_short_that_is(monkeypatch: pytest.MonkeyPatch) -> None:
    timeout, waits = asyncio.timeout, list[float | None]()

    def noted(delay: float | None) -> asyncio.Timeout:
        waits.append(delay)
        return timeout(delay)

    monkeypatch.setattr(asyncio, "timeout", noted)
    assert await client(lambda request: httpx.Response(200, content=GOOD), timeout=0.25).usage() == ()
    assert waits == [0.25]


# -- time and size of responses ---------------------------------------------------------------------------------


class ByteByByte(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.02)


async def test_a_response_that_arrives_byte_by_byte_times_out() -> None:
    """httpx's timeout restarts with each byte; ours does not."""
    api = client(lambda request: httpx.Response(200, stream=ByteByByte()), timeout=0.1)
    async with asyncio.timeout(5):
        with pytest.raises(ApiError, match="no response in time"):
            await api.usage()


class Endless(httpx.AsyncByteStream):
    def __init__(self) -> None:
        self.sent = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            self.sent += 1000
            yield b" " * 1000


async def test_an_endless_body_is_read_up_to_the_limit_only() -> None:
    endless, observed = Endless(), Observed()
    api = client(lambda request: httpx.Response(200, stream=endless), max_body=50_000, observed=observed)
    with pytest.raises(ApiError, match=r"larger than limits\.body_bytes \(50000\)"):
        await api.usage()
    assert endless.sent <= 52_000
    assert len(observed.requests) == 1, "a retry would get the same body"


@pytest.mark.parametrize(("size", "members"), [(200_000_000, 1), (900_000, 50)])
async def test_a_gzip_bomb_is_decompressed_up_to_the_limit_only(
    monkeypatch: pytest.MonkeyPatch, size: int, members: int
) -> None:
    bomb = gzip.compress(bytes(size), 9) * members
    unpacked = 0
    real = zlib.decompressobj

    class Counting:
        def __init__(self, wbits: int) -> None:
            self._real = real(wbits=wbits)

        def decompress(self, data: bytes, most: int) -> bytes:
            nonlocal unpacked
            part = self._real.decompress(data, most)
            unpacked += len(part)
            return part

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

    monkeypatch.setattr(zlib, "decompressobj", Counting)
    headers = {"Content-Encoding": "gzip"}
    with pytest.raises(ApiError, match=r"larger than limits\.body_bytes"):
        await client(lambda request: httpx.Response(200, stream=Raw(bomb, 65_536), headers=headers)).usage()
    assert unpacked <= 1_000_001


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
async def test_a_body_may_have_as_many_bytes_as_the_limit(encoding: str) -> None:
    text = GOOD + b" " * 1000  # so that it is longer than its compressed form, which is limited too
    body = gzip.compress(text, mtime=0) if encoding == "gzip" else text
    headers = {"Content-Encoding": encoding}

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Raw(body, 7), headers=headers)

    assert await client(answer, max_body=len(text)).usage() == ()
    with pytest.raises(ApiError, match=r"larger than limits\.body_bytes"):
        await client(answer, max_body=len(text) - 1).usage()


class Raw(httpx.AsyncByteStream):
    """A body as it is sent, in pieces."""

    def __init__(self, content: bytes, piece: int = 1000) -> None:
        self._content = content
        self._piece = piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._content), self._piece):
            yield self._content[start : start + self._piece]


MEMBER = gzip.compress(b"", mtime=0)
"""An empty part of a gzip stream."""


async def test_what_is_sent_is_limited_too_if_it_is_longer_than_what_it_decompresses_to() -> None:
    body = MEMBER + gzip.compress(GOOD, mtime=0)
    headers = {"Content-Encoding": "gzip"}

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Raw(body), headers=headers)

    assert await client(answer, max_body=len(body)).usage() == ()
    with pytest.raises(ApiError, match=r"larger than limits\.body_bytes"):
        await client(answer, max_body=len(body) - 1).usage()


FAR = json.dumps({"meters": [], "is": [f"{number:06}" for number in range(3000)] * 2}).encode()


def stored(first: int, length: int) -> bytes:
    """A block of raw deflate that is not compressed; what is left of its first byte has no meaning."""
    size = length.to_bytes(2, "little")
    return bytes([first, *size, *(~byte & 255 for byte in size)]) + (GOOD.ljust(length) if length else b"")


@pytest.mark.parametrize(
    ("encoding", "body", "reason"),
    [
        ("gzip", gzip.compress(GOOD, mtime=0), None),
        ("GZIP", gzip.compress(GOOD, mtime=0), None),
        ("identity", GOOD, None),
        ("gzip", gzip.compress(GOOD, mtime=0)[:-9], "is truncated"),
        ("gzip", GOOD, "is not valid gzip"),
        ("x-gzip, identity", gzip.compress(GOOD, mtime=0), None),
        ("gzip", MEMBER * 100 + gzip.compress(GOOD, mtime=0), None),
        ("gzip", MEMBER * 101 + gzip.compress(GOOD, mtime=0), "consists of empty gzip members"),
        ("gzip", b"".join(gzip.compress(bytes([each]), mtime=0) for each in GOOD.ljust(200)), None),
        ("gzip", gzip.compress(GOOD, mtime=0) + b" ", "has trailing data after its gzip stream"),
        ("gzip", zlib.compress(GOOD), "is not valid gzip"),
        # What is repeated can be 32 KiB away.
        ("gzip", gzip.compress(FAR, mtime=0), None),
        ("deflate", zlib.compress(GOOD), None),
        ("deflate", zlib.compress(GOOD, wbits=-15), None),
        ("deflate", zlib.compress(GOOD)[:-1], "is truncated"),
        ("deflate", zlib.compress(GOOD)[:1], "is truncated"),
        ("deflate", zlib.compress(GOOD) + b" ", "has trailing data after its deflate stream"),
        # Raw deflate whose first two bytes have one mark of zlib's format only: an 8, or a multiple of 31.
        ("deflate", stored(0x08, 24) + stored(0x01, 0), None),
        ("deflate", stored(0x09, 21), None),
        ("deflate", stored(0x01, 23), None),
        ("deflate", b"\x03\x00", "the response does not match the API description"),
        ("deflate", GOOD, "is not valid deflate"),
        ("br", GOOD, "an encoding that was not requested: br$"),
        ("gzip, gzip", GOOD, "an encoding that was not requested: gzip, gzip$"),
        ("hunter2=", GOOD, "an encoding that was not requested$"),
    ],
)
@pytest.mark.parametrize("piece", [1, 7, 10_000])
async def test_only_whole_bodies_in_a_known_encoding_are_accepted(
    encoding: str, body: bytes, reason: str | None, piece: int
) -> None:
    api = client(lambda request: httpx.Response(200, stream=Raw(body, piece), headers={"Content-Encoding": encoding}))
    if reason is None:
        assert await api.usage() == ()
    else:
        with pytest.raises(ApiError, match=reason):
            await api.usage()


# -- the circuit breaker ----------------------------------------------------------------------------------------


async def test_an_open_circuit_breaker_allows_one_request_per_sync() -> None:
    observed = Observed()
    up = False

    def answer(request: httpx.Request) -> httpx.Response:
        if not up:
            raise httpx.ConnectError("refused")
        return httpx.Response(200, content=GOOD)

    api = client(answer, observed=observed)

    async def sync(calls: int = 50) -> int:
        before = len(observed.requests)
        api.begin_sync()
        results = await asyncio.gather(*(api.usage() for _ in range(calls)), return_exceptions=True)
        assert all(result == () if up else isinstance(result, ApiError) for result in results)
        return len(observed.requests) - before

    first = await sync()
    # Requests that were in progress when the circuit breaker opened are not cancelled.
    assert first <= OPEN_AFTER + 8
    assert [await sync() for _ in range(3)] == [1, 1, 1]
    up = True
    assert await sync() == 50, "the first sync after the recovery reads everything"


async def test_concurrent_requests_wait_for_the_trial_request_and_continue_after_its_success() -> None:
    gate = asyncio.Event()
    seen = 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal seen
        seen += 1
        if seen <= OPEN_AFTER:
            raise httpx.ConnectError("refused")
        await gate.wait()
        return httpx.Response(200, content=GOOD)

    api = client(answer)
    while seen < OPEN_AFTER:
        with pytest.raises(ApiError):
            await api.usage()
    api.begin_sync()
    waiting = [asyncio.create_task(api.usage()) for _ in range(20)]
    await asyncio.sleep(0.01)
    assert seen == OPEN_AFTER + 1
    gate.set()
    assert await asyncio.gather(*waiting) == [()] * 20


@pytest.mark.parametrize("status", [500, 599, None])
async def test_errors_of_the_server_and_requests_without_an_answer_open_the_circuit_breaker(status: int | None) -> None:
    observed = Observed()

    def answer(request: httpx.Request) -> httpx.Response:
        if status is None:
            raise httpx.ReadTimeout("")
        return httpx.Response(status)

    api = client(answer, observed=observed)
    for _ in range(8):
        with pytest.raises(ApiError):
            await api.usage()
    assert len(observed.requests) == 6


async def test_error_responses_do_not_open_the_circuit_breaker() -> None:
    observed = Observed()
    api = client(lambda request: httpx.Response(403), observed=observed)
    for _ in range(3 * OPEN_AFTER):
        with pytest.raises(ApiError, match="HTTP 403"):
            await api.usage()
    assert len(observed.requests) == 3 * OPEN_AFTER


@pytest.mark.parametrize("first", [200, 403, 429])
async def test_failures_are_counted_from_the_last_response(first: int) -> None:
    sent = 0
    status: int | None = None

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal sent
        sent += 1
        if status is None:
            raise httpx.ConnectError("refused")
        return httpx.Response(status, content=GOOD)

    api = client(answer)
    for each, calls in ((None, 1), (first, 1), (None, 5)):
        status = each
        sent = 0
        for _ in range(calls):
            with contextlib.suppress(ApiError):
                await api.usage()
    assert sent == 6, "five open it, and the last one is the trial"


async def test_a_request_that_a_pause_prevents_does_not_count_as_a_response() -> None:
    clock, observed = Clock(), Observed()
    api = client(lambda request: httpx.Response(503, headers={"Retry-After": "60"}), clock=clock, observed=observed)
    for _ in range(OPEN_AFTER):
        with pytest.raises(ApiError, match="HTTP 503"):
            await api.usage()
        with pytest.raises(PausedError):
            await api.usage()
        clock.advance(61)
    with pytest.raises(PausedError, match="the runtime does not respond"):
        await api.usage()
    assert len(observed.requests) == OPEN_AFTER


async def test_outside_of_a_sync_a_runtime_that_does_not_respond_gets_one_trial_too() -> None:
    """`doctor` and probes begin no sync before their first requests."""
    observed = Observed()

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    asked = client(refuse, observed=observed)
    while len(observed.requests) < OPEN_AFTER:
        with pytest.raises(ApiError):
            await asked.usage()
    before = len(observed.requests)
    with pytest.raises(ApiError, match="no response"):
        await asked.usage()
    with pytest.raises(PausedError):
        await asked.usage()
    assert len(observed.requests) == before + 1
