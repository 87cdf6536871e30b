"""A table of the ways in which a runtime's API misbehaves, and what holds whatever it does.

In every mode every scrape is answered in time and parses, the last good data are shown for `sync.stale_after` and no
longer, the log says what is wrong once and without a token or a traceback, and the next good answer heals it.
"""

import asyncio
import dataclasses
import gzip
import json
import random
import time
from collections.abc import Awaitable
from email.utils import formatdate
from enum import Enum
from typing import Any

import httpx
import pytest
import structlog

from exporter.config import Config, Duration, LimitsConfig, RuntimeConfig, Secret, SyncConfig
from exporter.service import Exporter
from exporter.service.monitored_runtime import Dependencies
from exporter.web.app import TIMEOUT_HEADER, create_app
from tests.builders import NOON, Clock, resources
from tests.faults.server import Exchange, Misbehaving, Spoil
from tests.metrics.test_exposition import Samples, samples, value
from tests.scripted import ScriptedRuntime, at_once, rfc3339

TOKEN = "cxg_a_secret_of_the_test"

RUNS = 60
"""Runs of the project that is spoilt."""

SCRAPE_TIMEOUT = 10.0
"""Seconds that each scrape has; nothing here takes a tenth of that, on a machine that is not busy."""

REQUEST_TIMEOUT = 5.0
"""Seconds that a request has, which no good answer takes; less than what a Retry-After here asks for."""

SOON = 0.6
"""The same where an answer never ends: good ones are small there, so that they come in time on a busy machine too."""


class Hurts(Enum):
    """What a mode does harm to."""

    NOTHING = "nothing: all is as if the answer were good"
    ITEM = "one run, and nothing else"
    PROJECT = "the project that the answers are of"
    HEALTH = "what the API says of itself"
    API = "everything"


@dataclasses.dataclass(frozen=True)
class Mode:
    """One way to misbehave."""

    name: str
    spoil: Spoil
    hurts: Hurts
    where: str = "/p1/jobs"
    """Which requests are spoilt: those with this in their path."""
    says: str = ""
    """What the log says."""
    endless: bool = False
    """Whether the answer never ends: it is waited for until it is too late."""


# -- on the wire --------------------------------------------------------------------------------------------


async def hangs(exchange: Exchange) -> None:
    await asyncio.sleep(60)


async def drips(exchange: Exchange) -> None:
    exchange.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        exchange.writer.write(b" ")
        await exchange.writer.drain()
        await asyncio.sleep(0.05)


async def drips_headers(exchange: Exchange) -> None:
    exchange.writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        exchange.writer.write(b"X-More: 1\r\n")
        await exchange.writer.drain()
        await asyncio.sleep(0.05)


async def says_nothing(exchange: Exchange) -> None:
    exchange.writer.close()


async def closes_mid_answer(exchange: Exchange) -> None:
    await exchange.send(exchange.answer.content[:-40], length=len(exchange.answer.content))


async def speaks_no_http(exchange: Exchange) -> None:
    exchange.writer.write(b"SSH-2.0-OpenSSH_9.2p1\r\n")
    await exchange.writer.drain()


async def without_end(exchange: Exchange) -> None:
    exchange.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        exchange.writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        await exchange.writer.drain()


async def gzip_bomb(exchange: Exchange) -> None:
    await exchange.send(BOMB, headers={"Content-Encoding": "gzip"})


BOMB = gzip.compress(bytes(100_000_000), 9)


def status(code: int, **headers: str) -> Spoil:
    async def spoil(exchange: Exchange) -> None:
        # Some servers put the request into the body of an error.
        problem = json.dumps({"error": f"no: {exchange.token}", "errorCode": "NO"})
        await exchange.send(problem.encode(), status=code, headers=headers)

    return spoil


async def plan_limit(exchange: Exchange) -> None:
    await exchange.send(b'{"error": "full", "errorCode": "PLAN_LIMIT"}', status=403)


async def not_modified(exchange: Exchange) -> None:
    await exchange.send(b"", status=304)


async def not_modified_whenever_it_may(exchange: Exchange) -> None:
    """An ETag that lies: whoever shows it is told that nothing changed."""
    asked = "If-None-Match" in exchange.request.headers
    await (exchange.send(b"", status=304) if asked else exchange.send())


# -- bodies -------------------------------------------------------------------------------------------------


def body(content: bytes, *, status: int = 200, **headers: str) -> Spoil:
    return lambda exchange: exchange.send(content, status=status, headers=headers)


def page(**fields: Any) -> Spoil:
    """The list with other fields beside its items."""
    return lambda exchange: exchange.send(json.dumps({**exchange.document, **fields}).encode())


async def truncated(exchange: Exchange) -> None:
    await exchange.send(exchange.answer.content[:-40])


async def cursor_without_end(exchange: Exchange) -> None:
    number = random.randrange(10**9)  # never the same twice
    await exchange.send(json.dumps({**exchange.document, "items": [], "nextCursor": str(number)}).encode())


async def same_cursor(exchange: Exchange) -> None:
    await exchange.send(json.dumps({**exchange.document, "nextCursor": "1"}).encode())


async def twice(exchange: Exchange) -> None:
    items = exchange.document["items"]
    await exchange.send(json.dumps({**exchange.document, "items": items + items[::-1]}).encode())


async def backwards(exchange: Exchange) -> None:
    """The clock of the runtime jumps back by an hour."""
    content = exchange.answer.content
    if content:
        content = json.dumps({**exchange.document, "asOf": rfc3339(NOON - 3600)}).encode()
    await exchange.send(content, headers={"Date": formatdate(NOON - 3600, usegmt=True)})


# -- one item -----------------------------------------------------------------------------------------------


def item(**fields: Any) -> Spoil:
    """The first run of the list with other fields; `...` takes a field away."""

    async def spoil(exchange: Exchange) -> None:
        document = exchange.document
        for job in document["items"]:
            if job["id"] == "run-0":
                job.update(fields)
                for name in [name for name, given in fields.items() if given is ...]:
                    del job[name]
        await exchange.send(json.dumps(document).encode())

    return spoil


def raw(field: str, text: bytes) -> Spoil:
    """The first run of the list with a value as no encoder would write it."""

    async def spoil(exchange: Exchange) -> None:
        document = exchange.document
        for job in document["items"]:
            if job["id"] == "run-0":
                job[field] = "@here@"
        await exchange.send(json.dumps(document).encode().replace(b'"@here@"', text))

    return spoil


def counts(**given: Any) -> Spoil:
    return item(records={"total": 10, "pending": 0, "running": 0, "waiting": 0, "completed": 5, "failed": 0, **given})


MODES = (
    # -- the connection
    Mode("hangs", hangs, Hurts.API, "/projects", "no response in time", endless=True),
    Mode("hangs for one project", hangs, Hurts.PROJECT, says="no response in time", endless=True),
    Mode("drips a byte at a time", drips, Hurts.API, "", "no response in time", endless=True),
    Mode("drips headers", drips_headers, Hurts.PROJECT, says="no response in time", endless=True),
    Mode("closes without a word", says_nothing, Hurts.API, "", "no response (RemoteProtocolError)"),
    Mode("closes in the middle", closes_mid_answer, Hurts.PROJECT, says="no response (RemoteProtocolError)"),
    Mode("speaks no HTTP", speaks_no_http, Hurts.API, "", "no response (RemoteProtocolError)"),
    Mode("sends a body without end", without_end, Hurts.PROJECT, says="larger than limits.body_bytes"),
    Mode("sends a gzip bomb", gzip_bomb, Hurts.PROJECT, says="larger than limits.body_bytes"),
    Mode("packs in a way nobody asked for", body(b"x", Content_Encoding="br"), Hurts.PROJECT, says="not requested"),
    # -- statuses
    Mode("401", status(401), Hurts.API, "/api", "HTTP 401: the token is missing, wrong or expired"),
    Mode("403 for one project", status(403), Hurts.PROJECT, says="HTTP 403: the token may not read this"),
    Mode("404 for a project that is listed", status(404), Hurts.PROJECT, says="HTTP 404"),
    Mode("429", status(429), Hurts.API, "/api", "HTTP 429"),
    Mode("429 with Retry-After", status(429, Retry_After="6"), Hurts.API, "/api", "HTTP 429"),
    Mode("429 as HTML", body(b"<html>slow down", status=429, Content_Type="text/html"), Hurts.PROJECT),
    Mode("500", status(500), Hurts.API, "", "HTTP 500"),
    Mode("503 with Retry-After", status(503, Retry_After="7"), Hurts.API, "/api", "HTTP 503"),
    Mode("PLAN_LIMIT", plan_limit, Hurts.PROJECT, says="the plan is full (PLAN_LIMIT)"),
    Mode("redirects to itself", status(302, Location="/api/v1/projects"), Hurts.API, "/projects", "a redirect"),
    Mode("redirects elsewhere", status(307, Location="http://elsewhere.test/"), Hurts.API, "/projects", "a redirect"),
    Mode("304 that nobody asked for", not_modified, Hurts.HEALTH, "/health", "HTTP 304"),
    Mode("204 without a body", status(204), Hurts.PROJECT, says="HTTP 204"),
    # -- bodies
    Mode("HTML", body(b"<html>sign in</html>", Content_Type="text/html"), Hurts.API, "/projects", "got text/html"),
    Mode("truncated JSON", truncated, Hurts.PROJECT, says="does not match the API description"),
    Mode("an empty body", body(b""), Hurts.PROJECT, says="does not match the API description"),
    Mode("null", body(b"null"), Hurts.PROJECT, says="does not match the API description"),
    Mode("a list without items", body(b"{}"), Hurts.PROJECT, says="does not match the API description"),
    Mode("100,000 nested brackets", body(b"[" * 100_000), Hurts.PROJECT, says="does not match the API description"),
    Mode("100,000 nested brackets within", body(b'{"items":' + b"[" * 100_000), Hurts.PROJECT),
    Mode("a cursor that never ends", cursor_without_end, Hurts.PROJECT, says="more pages than limits.pages"),
    Mode("a cursor that leads in a circle", same_cursor, Hurts.PROJECT, says="does not end"),
    Mode("asOf that is no time", page(asOf="yesterday"), Hurts.PROJECT, says="does not match the API description"),
    Mode(
        "asOf without a zone",
        page(asOf="2026-01-05T12:00:00"),
        Hurts.PROJECT,
        says="does not match the API description",
    ),
    Mode("an ETag that lies", not_modified_whenever_it_may, Hurts.NOTHING),
    Mode("every item twice", twice, Hurts.NOTHING),
    Mode("a clock that jumps back", backwards, Hurts.NOTHING, "/"),
    # -- one item among the others
    Mode("an id that is missing", item(id=...), Hurts.ITEM),
    Mode("an id that is empty", item(id=""), Hurts.ITEM),
    Mode("an id of a megabyte", item(id="x" * 1_000_000), Hurts.ITEM),
    Mode("an id that smuggles a path", item(id="../../usage"), Hurts.NOTHING),
    Mode("an id with a line break", item(id="a\nb"), Hurts.ITEM),
    Mode("a status that is missing", item(status=...), Hurts.ITEM),
    Mode("a status that is null", item(status=None), Hurts.ITEM),
    Mode("a status that is a number", item(status=7), Hurts.ITEM),
    Mode("a spinner that is missing", item(spinnerName=...), Hurts.ITEM),
    Mode("a time of creation that is missing", item(createdAt=...), Hurts.ITEM),
    Mode("a time without a zone", item(updatedAt="2026-01-05T12:00:00"), Hurts.ITEM),
    Mode("a time as a number", item(updatedAt=1767600000), Hurts.ITEM),
    Mode("a time that is none", item(startedAt="soon"), Hurts.ITEM),
    Mode("a time of long ago", item(startedAt="0001-01-01T00:00:00Z"), Hurts.NOTHING),
    Mode("a time of the far future", item(startedAt="9999-12-31T23:59:59Z"), Hurts.NOTHING),
    Mode("a time with an offset beyond all", item(startedAt="0001-01-01T00:00:00+23:59"), Hurts.NOTHING),
    Mode("a negative count", counts(completed=-1), Hurts.ITEM),
    Mode("a count of 2^63", counts(completed=2**63), Hurts.ITEM),
    Mode("half a record", counts(completed=0.5), Hurts.ITEM),
    Mode("a count that is text", counts(failed="three"), Hurts.ITEM),
    Mode("more completed than there are", counts(completed=11), Hurts.NOTHING),
    Mode("NaN", raw("records", b'{"completed": NaN}'), Hurts.ITEM),
    Mode("NaN where nothing is read", raw("owner", b"NaN"), Hurts.NOTHING),
    Mode("1e400", raw("records", b'{"completed": 1e400}'), Hurts.ITEM),
    Mode("1e400 where nothing is read", raw("owner", b"1e400"), Hurts.NOTHING),
    Mode("invalid UTF-8", raw("spinnerName", b'"\xff\xfe"'), Hurts.ITEM),
    Mode("a lone surrogate", raw("spinnerName", b'"a\\ud800b"'), Hurts.NOTHING),
    Mode("NUL", raw("spinnerName", b'"a\\u0000b"'), Hurts.NOTHING),
    Mode("a megabyte of name", item(spinnerName="n" * 1_000_000), Hurts.NOTHING),
    Mode("a name that would break a line", item(spinnerName='"} 1\nspinner_api_up 7\\'), Hurts.NOTHING),
    Mode("a name of nothing but control characters", item(spinnerName="\x00\x01"), Hurts.NOTHING),
    Mode("records that are a list", item(records=[1, 2]), Hurts.ITEM),
    Mode("failures that are a number", item(failures=3), Hurts.ITEM),
    Mode("an item that is null", lambda exchange: exchange.send(with_null(exchange)), Hurts.ITEM),
)


def with_null(exchange: Exchange) -> bytes:
    items = [None if job["id"] == "run-0" else job for job in exchange.document["items"]]
    return json.dumps({**exchange.document, "items": items}).encode()


class Bench:
    """An exporter with its web application, and the runtime that it reads over real connections."""

    def __init__(
        self, url: str, misbehaving: Misbehaving, clock: Clock, *, request_timeout: float = REQUEST_TIMEOUT
    ) -> None:
        self.misbehaving = misbehaving
        self.clock = clock
        self.lines: list[Any] = []
        self._moves = 0
        config = Config(
            runtime=RuntimeConfig(
                base_url=url, resources=resources(), token=Secret(TOKEN), timeout=Duration(request_timeout)
            ),
            sync=SyncConfig(min_interval=Duration(0)),
            limits=LimitsConfig(body_bytes=2_000_000, pages=20),
        )
        self.exporter = Exporter({"": config}, Dependencies(wall=clock, monotonic=clock, sleep=at_once))
        app = httpx.ASGITransport(create_app(self.exporter))
        self._client = httpx.AsyncClient(transport=app, base_url="http://exporter.test")

    async def scrape(self) -> Samples:
        """Move all runs on, and scrape; the answer comes in time and is a page."""
        self.clock.advance(15)
        self._moves += 1
        moved = {"total": 1000, "completed": self._moves}
        for name in ("run-0", "run-1", "other"):
            self.misbehaving.runtime.put(name, records=moved)
        asked_at = time.monotonic()
        with structlog.testing.capture_logs() as lines:
            answer = await self._client.get("/metrics", headers={TIMEOUT_HEADER: str(SCRAPE_TIMEOUT)})
        self.lines += lines
        assert answer.status_code == 200
        assert time.monotonic() - asked_at < SCRAPE_TIMEOUT + 5, "a scrape was not answered; 5 s are for a busy machine"
        assert TOKEN not in answer.text
        return samples(answer.text)

    def completed(self, found: Samples, run: str) -> float | None:
        return value(found, "spinner_run_records", run_id=run, state="completed")

    @property
    def moves(self) -> float:
        """What every run's count of completed records is now."""
        return self._moves

    async def close(self) -> None:
        await self.exporter.close()
        await self._client.aclose()


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
async def test_what_holds_whatever_the_api_does(mode: Mode) -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    runtime.projects = {"p1": "Sales", "p2": "Support"}
    for number in range(2 if mode.endless else RUNS):
        runtime.put(f"run-{number}")
    runtime.put("other", projectId="p2")
    misbehaving = Misbehaving(runtime)
    async with misbehaving.serving() as url:
        bench = Bench(url, misbehaving, clock, request_timeout=SOON if mode.endless else REQUEST_TIMEOUT)
        found = await bench.scrape()
        assert bench.completed(found, "run-0") == bench.completed(found, "other") == bench.moves

        misbehaving.spoil, misbehaving.where = mode.spoil, mode.where
        before = bench.moves
        for _ in range(3):
            await check(mode, bench, await bench.scrape(), kept=before)
        say_it_once(mode, bench.lines)

        clock.advance(301)
        found = await bench.scrape()
        gone = {Hurts.API: ("run-0", "run-1", "other"), Hurts.PROJECT: ("run-0", "run-1")}.get(mode.hurts, ())
        for run in gone:
            assert bench.completed(found, run) is None, "older than sync.stale_after: nobody may read it as new"

        misbehaving.spoil = None
        for _ in range(2):
            clock.advance(120)  # a sweep is due: an ETag that lied must not go on to
            found = await bench.scrape()
        assert value(found, "spinner_api_up") == 1
        for run in ("run-0", "run-1", "other"):
            assert bench.completed(found, run) == bench.moves, f"{run} is not healed within two scrapes"
        await bench.close()
    shown = json.dumps(bench.lines, default=str)
    assert TOKEN not in shown
    assert "exc_info" not in shown, "a traceback in the log"


async def check(mode: Mode, bench: Bench, found: Samples, *, kept: float) -> None:
    """What is up, what is fresh and what is kept in a mode."""
    fresh = bench.moves
    up = (
        value(found, "spinner_api_up"),
        value(found, "spinner_project_up", project="Sales"),
        value(found, "spinner_project_up", project="Support"),
    )
    runs = tuple(bench.completed(found, run) for run in ("run-0", "run-1", "other"))
    if mode.hurts is Hurts.NOTHING:
        # Of the spoilt run it depends on what is spoilt; nobody else may notice.
        assert (up, runs[2]) == ((1, 1, 1), fresh)
        return
    expected = {
        Hurts.API: ((0, 0, 0), (kept, kept, kept)),
        Hurts.HEALTH: ((0, 1, 1), (fresh, fresh, fresh)),
        Hurts.PROJECT: ((1, 0, 1), (kept, kept, fresh)),
        Hurts.ITEM: ((1, 1, 1), (kept, fresh, fresh)),
    }
    assert (up, runs) == expected[mode.hurts], f"up and counts are not those of a mode that hurts {mode.hurts.value}"
    if mode.hurts is Hurts.ITEM:
        assert (value(found, "spinner_exporter_invalid_items_total", kind="job") or 0) >= 1


def say_it_once(mode: Mode, lines: list[Any]) -> None:
    """After three scrapes."""
    told = [line for line in lines if line["log_level"] in ("warning", "error")]
    if mode.hurts is Hurts.NOTHING:
        assert not told
        return
    assert told, "nobody is told"
    assert mode.says in json.dumps(told)
    assert len(told) <= 5, f"one problem, and {len(told)} lines: {told}"


def test_every_mode_has_a_name_of_its_own() -> None:
    assert len({mode.name for mode in MODES}) == len(MODES) > 60


async def test_a_dead_api_is_asked_once_in_a_scrape() -> None:
    clock = Clock(NOON)
    runtime = ScriptedRuntime(clock)
    runtime.projects = {f"p{number}": f"Project {number}" for number in range(100)}
    misbehaving = Misbehaving(runtime)
    async with misbehaving.serving() as url:
        bench = Bench(url, misbehaving, clock)
        await bench.scrape()
        misbehaving.spoil = says_nothing
        for _ in range(2):
            await bench.scrape()
        asked = misbehaving.requests
        for _ in range(3):
            await bench.scrape()
        assert misbehaving.requests - asked == 3
        await bench.close()


async def test_many_scrapes_at_once_ask_no_more_than_one_would() -> None:
    clock = Clock(NOON)
    misbehaving = Misbehaving(ScriptedRuntime(clock), spoil=hangs)
    async with misbehaving.serving() as url:
        bench = Bench(url, misbehaving, clock)
        scrapes: list[Awaitable[httpx.Response]] = [
            bench._client.get("/metrics", headers={TIMEOUT_HEADER: "1"}) for _ in range(200)
        ]
        with structlog.testing.capture_logs():
            answers = await asyncio.gather(*scrapes)
        assert [answer.status_code for answer in answers] == [200] * 200
        assert misbehaving.requests <= 3, "health, projects and the plan"
        await bench.close()
