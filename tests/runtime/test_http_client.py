"""How requests fare: what is asked again and what never, how long and how large, and when nobody is asked at all."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator

import httpx
import pytest

from exporter.errors import ApiError
from exporter.runtime.http_client import BACKOFF, OPEN_AFTER, RETRIES, PausedError
from tests.builders import Clock
from tests.runtime.test_client import Observed, client

GOOD = b'{"meters": []}'


def plan_limit(status: int) -> httpx.Response:
    return httpx.Response(status, json={"error": "full", "errorCode": "PLAN_LIMIT"}, headers={"Retry-After": "1"})


# -- again --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_what_may_be_over_in_a_moment_is_asked_again(status: int) -> None:
    observed, waits = Observed(), list[float]()
    answers = iter([httpx.Response(status), httpx.Response(status), httpx.Response(200, content=GOOD)])
    assert await client(lambda request: next(answers), observed=observed, waits=waits).usage() == ()
    assert [code for _, code in observed.requests] == [str(status), str(status), "200"]
    first, second = waits
    assert BACKOFF * 0.5 <= first <= BACKOFF * 1.5
    assert BACKOFF <= second <= BACKOFF * 3


async def test_many_clients_do_not_come_back_all_at_once() -> None:
    waits = list[float]()
    for _ in range(10):
        with pytest.raises(ApiError):
            await client(lambda request: httpx.Response(500), waits=waits).usage()
    assert len(set(waits)) == len(waits) == 10 * RETRIES


@pytest.mark.parametrize(
    "refusal",
    [httpx.Response(400), httpx.Response(401), httpx.Response(403), httpx.Response(404), httpx.Response(302)]
    + [plan_limit(status) for status in (402, 403, 429, 503)],
    ids=lambda refusal: f"{refusal.status_code}-{len(refusal.content)}",
)
async def test_what_asking_again_cannot_help_is_asked_once(refusal: httpx.Response) -> None:
    observed = Observed()
    with pytest.raises(ApiError) as error:
        await client(lambda request: refusal, observed=observed).usage()
    assert len(observed.requests) == 1
    assert ("PLAN_LIMIT" in str(error.value)) == (b"PLAN_LIMIT" in refusal.content)


async def test_a_retry_after_that_fits_is_waited_for_and_one_that_does_not_ends_the_call() -> None:
    clock = Clock()
    waits = list[float]()
    answers = iter([httpx.Response(503, headers={"Retry-After": "3"}), httpx.Response(200, content=GOOD)])
    asked = client(lambda request: next(answers), clock=clock, waits=waits)
    with pytest.raises(PausedError):
        await asked.usage()  # the test's sleep takes no time, so the pause still runs
    assert waits == [3.0]
    observed = Observed()
    asked = client(lambda request: httpx.Response(503, headers={"Retry-After": "11"}), observed=observed)
    with pytest.raises(ApiError, match="HTTP 503"):
        await asked.usage()
    assert len(observed.requests) == 1


async def test_nothing_is_asked_again_when_the_time_is_up() -> None:
    clock, observed = Clock(), Observed()

    def slow(request: httpx.Request) -> httpx.Response:
        clock.advance(9.9)
        return httpx.Response(500)

    with pytest.raises(ApiError):
        await client(slow, clock=clock, observed=observed).usage()
    assert len(observed.requests) == 1


# -- how long, how large ------------------------------------------------------------------------------------


class Dripping(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.02)


async def test_an_answer_that_drips_is_given_up_on_in_time() -> None:
    """Each byte comes in time for the library's own timeout; the whole never would."""
    asked = client(lambda request: httpx.Response(200, stream=Dripping()), timeout=0.1)
    async with asyncio.timeout(5):
        with pytest.raises(ApiError, match="no response in time"):
            await asked.usage()


class Endless(httpx.AsyncByteStream):
    def __init__(self) -> None:
        self.sent = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            self.sent += 1000
            yield b" " * 1000


async def test_an_answer_without_an_end_is_read_no_further_than_the_limit() -> None:
    endless, observed = Endless(), Observed()
    asked = client(lambda request: httpx.Response(200, stream=endless), max_body=50_000, observed=observed)
    with pytest.raises(ApiError, match=r"larger than limits\.body_bytes \(50000\)"):
        await asked.usage()
    assert endless.sent <= 52_000
    assert len(observed.requests) == 1, "it would be as large again"


async def test_a_gzip_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = gzip.compress(bytes(200_000_000), 9)
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

    monkeypatch.setattr(zlib, "decompressobj", Counting)
    headers = {"Content-Encoding": "gzip"}
    with pytest.raises(ApiError, match=r"larger than limits\.body_bytes"):
        await client(lambda request: httpx.Response(200, stream=Raw(bomb), headers=headers)).usage()
    assert unpacked <= 1_000_001


class Raw(httpx.AsyncByteStream):
    """A body as it goes over the wire, in pieces."""

    def __init__(self, content: bytes, piece: int = 1000) -> None:
        self._content = content
        self._piece = piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._content), self._piece):
            yield self._content[start : start + self._piece]


@pytest.mark.parametrize(
    ("encoding", "body", "says"),
    [
        ("gzip", gzip.compress(GOOD, mtime=0), None),
        ("GZIP", gzip.compress(GOOD, mtime=0), None),
        ("identity", GOOD, None),
        ("gzip", gzip.compress(GOOD, mtime=0)[:-9], "is truncated"),
        ("gzip", GOOD, "is not valid gzip"),
        ("br", GOOD, "an encoding that was not requested"),
        ("gzip, gzip", GOOD, "an encoding that was not requested"),
    ],
)
async def test_packed_answers(encoding: str, body: bytes, says: str | None) -> None:
    asked = client(lambda request: httpx.Response(200, stream=Raw(body, 7), headers={"Content-Encoding": encoding}))
    if says is None:
        assert await asked.usage() == ()
    else:
        with pytest.raises(ApiError, match=says):
            await asked.usage()


# -- nobody there -------------------------------------------------------------------------------------------


async def test_a_runtime_that_does_not_answer_is_asked_once_in_a_sync_until_it_does() -> None:
    observed = Observed()
    up = False

    def answer(request: httpx.Request) -> httpx.Response:
        if not up:
            raise httpx.ConnectError("refused")
        return httpx.Response(200, content=GOOD)

    asked = client(answer, observed=observed)

    async def sync(calls: int = 50) -> int:
        before = len(observed.requests)
        asked.begin_sync()
        results = await asyncio.gather(*(asked.usage() for _ in range(calls)), return_exceptions=True)
        assert all(result == () if up else isinstance(result, ApiError) for result in results)
        return len(observed.requests) - before

    first = await sync()
    # Those under way when it is noticed are let through; nobody asks again.
    assert first <= OPEN_AFTER + 8
    assert [await sync() for _ in range(3)] == [1, 1, 1]
    up = True
    assert await sync() == 50, "it is back with the first sync after its return"


async def test_others_wait_for_the_one_that_tries_and_then_go_ahead() -> None:
    gate = asyncio.Event()
    seen = 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal seen
        seen += 1
        if seen <= OPEN_AFTER:
            raise httpx.ConnectError("refused")
        await gate.wait()
        return httpx.Response(200, content=GOOD)

    asked = client(answer)
    while seen < OPEN_AFTER:
        with pytest.raises(ApiError):
            await asked.usage()
    asked.begin_sync()
    waiting = [asyncio.create_task(asked.usage()) for _ in range(20)]
    await asyncio.sleep(0.01)
    assert seen == OPEN_AFTER + 1
    gate.set()
    assert await asyncio.gather(*waiting) == [()] * 20


async def test_refusals_do_not_mean_that_nobody_is_there() -> None:
    observed = Observed()
    asked = client(lambda request: httpx.Response(403), observed=observed)
    for _ in range(3 * OPEN_AFTER):
        with pytest.raises(ApiError, match="HTTP 403"):
            await asked.usage()
    assert len(observed.requests) == 3 * OPEN_AFTER
