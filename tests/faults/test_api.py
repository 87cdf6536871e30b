"""The failure modes of a runtime's API, and what the exporter guarantees in each.

Every scrape is answered in time and its page parses. The last good data is shown for `sync.stale_after` and no longer.
The log contains the reason once, and neither a token nor a traceback. After the next good response all data is current.
"""

import asyncio
import contextlib
import dataclasses
import functools
import gzip
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import formatdate
from enum import Enum
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from exporter.config import Config, Duration, LimitsConfig, Secret
from exporter.web.app import TIMEOUT_HEADER, create_app
from tests.builders import NOON, Clock
from tests.faults.bench import Bench, bench_of, configured
from tests.faults.server import Exchange, Fault, FaultyRuntime
from tests.metrics.test_exposition import Samples, samples, value
from tests.scripted import ScriptedRuntime, rfc3339

TOKEN = "cxg_a_secret_of_the_test"

RUNS = 60
"""Runs of the project whose responses have the fault."""

SCRAPE_TIMEOUT = 10.0
"""Seconds for each scrape: ten times what a scrape takes on an idle machine."""

REQUEST_TIMEOUT = 5.0
"""Seconds for each request: longer than any good response takes, and shorter than each Retry-After in these tests."""

SHORT_REQUEST_TIMEOUT = 1.0
"""The same for endless responses. The good responses there are small: even a busy machine sends them in time."""


class Affects(Enum):
    """What a failure mode affects."""

    NOTHING = "nothing"
    ITEM = "one run"
    PROJECT = "one project"
    HEALTH = "the state of the worker service"
    API = "everything"


@dataclasses.dataclass(frozen=True)
class Mode:
    """One failure mode of the API."""

    name: str
    fault: Fault
    affects: Affects
    path: str = "/p1/jobs"
    """Requests whose path contains this get the faulty response."""
    logged: str = ""
    """Part of the log line."""
    endless: bool = False
    """Whether the response never ends, so that the request times out."""


IGNORED = "ignoring a value that cannot be right"


# -- connections -------------------------------------------------------------------------------------------


async def hangs(exchange: Exchange) -> None:
    await asyncio.sleep(60)


async def sends_bytes_slowly(exchange: Exchange) -> None:
    exchange.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        exchange.writer.write(b" ")
        await exchange.writer.drain()
        await asyncio.sleep(0.05)


async def sends_headers_slowly(exchange: Exchange) -> None:
    exchange.writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        exchange.writer.write(b"X-More: 1\r\n")
        await exchange.writer.drain()
        await asyncio.sleep(0.05)


async def closes_without_response(exchange: Exchange) -> None:
    exchange.writer.close()


async def closes_in_the_middle(exchange: Exchange) -> None:
    await exchange.send(exchange.response.content[:-40], length=len(exchange.response.content))


async def is_not_http(exchange: Exchange) -> None:
    exchange.writer.write(b"SSH-2.0-OpenSSH_9.2p1\r\n")
    await exchange.writer.drain()


async def endless_body(exchange: Exchange) -> None:
    exchange.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        exchange.writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        await exchange.writer.drain()


async def gzip_bomb(exchange: Exchange) -> None:
    await exchange.send(bomb(), headers={"Content-Encoding": "gzip"})


@functools.cache
def bomb() -> bytes:
    return gzip.compress(bytes(100_000_000), 9)


def status(code: int, **headers: str) -> Fault:
    async def fault(exchange: Exchange) -> None:
        # Some servers repeat parts of the request in the body of an error.
        problem = json.dumps({"error": f"no: {exchange.token}", "errorCode": "NO"})
        await exchange.send(problem.encode(), status=code, headers=headers)

    return fault


async def plan_limit(exchange: Exchange) -> None:
    await exchange.send(b'{"error": "full", "errorCode": "PLAN_LIMIT"}', status=403)


async def not_modified(exchange: Exchange) -> None:
    await exchange.send(b"", status=304)


async def wrong_etag(exchange: Exchange) -> None:
    """An ETag that does not change with the list: every conditional request gets 304."""
    is_conditional = "If-None-Match" in exchange.request.headers
    await (exchange.send(b"", status=304) if is_conditional else exchange.send())


# -- bodies -------------------------------------------------------------------------------------------------


def body(content: bytes, *, status: int = 200, **headers: str) -> Fault:
    return lambda exchange: exchange.send(content, status=status, headers=headers)


def page(**fields: Any) -> Fault:
    """The list with other values in fields such as `asOf`."""
    return lambda exchange: exchange.send(json.dumps({**exchange.document, **fields}).encode())


async def truncated(exchange: Exchange) -> None:
    await exchange.send(exchange.response.content[:-40])


async def nulls_everywhere(exchange: Exchange) -> None:
    items = [dict.fromkeys(item) for item in exchange.document["items"]]
    await exchange.send(json.dumps({**exchange.document, "items": items}).encode())


def renamed(field: str) -> Fault:
    """All items of the list with a field under another name."""
    return every_item(lambda item: {key + "2" * (key == field): value for key, value in item.items()})


def retyped(field: str) -> Fault:
    """All items of the list with a number instead of the text of a field."""
    return every_item(lambda item: item | {field: 7} if field in item else item)


def every_item(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Fault:
    def spoilt(exchange: Exchange) -> bytes:
        items = [change(item) for item in exchange.document["items"]]
        return json.dumps({**exchange.document, "items": items}).encode()

    return lambda exchange: exchange.send(spoilt(exchange))


async def endless_cursors(exchange: Exchange) -> None:
    number = random.randrange(10**9)  # never the same twice
    await exchange.send(json.dumps({**exchange.document, "items": [], "nextCursor": str(number)}).encode())


async def same_cursor(exchange: Exchange) -> None:
    await exchange.send(json.dumps({**exchange.document, "nextCursor": "1"}).encode())


async def duplicates(exchange: Exchange) -> None:
    items = exchange.document["items"]
    await exchange.send(json.dumps({**exchange.document, "items": items + items[::-1]}).encode())


async def clock_set_back(exchange: Exchange) -> None:
    """The runtime's clock is set back by an hour."""
    content = exchange.response.content
    if content:
        content = json.dumps({**exchange.document, "asOf": rfc3339(NOON - 3600)}).encode()
    await exchange.send(content, headers={"Date": formatdate(NOON - 3600, usegmt=True)})


# -- one item -----------------------------------------------------------------------------------------------


def item(**fields: Any) -> Fault:
    """The first run of the list with other fields; `...` removes a field."""

    async def fault(exchange: Exchange) -> None:
        document = exchange.document
        for job in document["items"]:
            if job["id"] == "run-0":
                job.update(fields)
                for name in [name for name, value in fields.items() if value is ...]:
                    del job[name]
        await exchange.send(json.dumps(document).encode())

    return fault


def raw(field: str, text: bytes) -> Fault:
    """The first run of the list with a value that Python's JSON encoder cannot write."""

    async def fault(exchange: Exchange) -> None:
        document = exchange.document
        for job in document["items"]:
            if job["id"] == "run-0":
                job[field] = "@here@"
        await exchange.send(json.dumps(document).encode().replace(b'"@here@"', text))

    return fault


def counts(**changed: Any) -> Fault:
    return item(records={"total": 10, "pending": 0, "running": 0, "waiting": 0, "completed": 5, "failed": 0, **changed})


MODES = (
    # -- the connection
    Mode("hangs", hangs, Affects.API, "/projects", "no response in time", endless=True),
    Mode("hangs for one project", hangs, Affects.PROJECT, logged="no response in time", endless=True),
    Mode("sends a byte at a time", sends_bytes_slowly, Affects.API, "", "no response in time", endless=True),
    Mode(
        "sends endless headers slowly",
        sends_headers_slowly,
        Affects.PROJECT,
        logged="no response in time",
        endless=True,
    ),
    Mode("closes without a response", closes_without_response, Affects.API, "", "the connection was closed"),
    Mode(
        "closes in the middle of the body",
        closes_in_the_middle,
        Affects.PROJECT,
        logged="the response is truncated",
    ),
    Mode("is not an HTTP server", is_not_http, Affects.API, "", "no response (the "),
    Mode("sends an endless body", endless_body, Affects.PROJECT, logged="larger than limits.body_bytes"),
    Mode("sends a gzip bomb", gzip_bomb, Affects.PROJECT, logged="larger than limits.body_bytes"),
    Mode(
        "uses a compression that was not requested",
        body(b"x", Content_Encoding="br"),
        Affects.PROJECT,
        logged="not requested",
    ),
    # -- statuses
    Mode("401", status(401), Affects.API, "/api", "HTTP 401: the token is missing, wrong or expired"),
    Mode("403 for one project", status(403), Affects.PROJECT, logged="HTTP 403: the token may not read this"),
    Mode("404 for a project that is listed", status(404), Affects.PROJECT, logged="HTTP 404"),
    Mode("429", status(429), Affects.API, "/api", "HTTP 429"),
    Mode("429 with Retry-After", status(429, Retry_After="6"), Affects.API, "/api", "HTTP 429"),
    Mode("429 as HTML", body(b"<html>slow down", status=429, Content_Type="text/html"), Affects.PROJECT),
    Mode("500", status(500), Affects.API, "", "HTTP 500"),
    Mode("503 with Retry-After", status(503, Retry_After="7"), Affects.API, "/api", "HTTP 503"),
    Mode("PLAN_LIMIT", plan_limit, Affects.PROJECT, logged="the plan is full (PLAN_LIMIT)"),
    Mode("redirects to itself", status(302, Location="/api/v1/projects"), Affects.API, "/projects", "a redirect"),
    Mode("redirects elsewhere", status(307, Location="http://elsewhere.test/"), Affects.API, "/projects", "a redirect"),
    Mode("304 to an unconditional request", not_modified, Affects.HEALTH, "/health", "HTTP 304"),
    Mode(
        "an error with the status of an unhealthy runtime",
        body(b'{"error": "overloaded", "errorCode": "BUSY"}', status=503),
        Affects.HEALTH,
        "/health",
        "HTTP 503",
    ),
    Mode("a health without a field of it", body(b"{}"), Affects.HEALTH, "/health", "neither status nor runtime"),
    Mode("204 without a body", status(204), Affects.PROJECT, logged="HTTP 204"),
    # -- bodies
    Mode("HTML", body(b"<html>sign in</html>", Content_Type="text/html"), Affects.API, "/projects", "got text/html"),
    Mode("truncated JSON", truncated, Affects.PROJECT, logged="does not match the API description"),
    Mode("an empty body", body(b""), Affects.PROJECT, logged="does not match the API description"),
    Mode("null", body(b"null"), Affects.PROJECT, logged="does not match the API description"),
    Mode("a list without items", body(b"{}"), Affects.PROJECT, logged="does not match the API description"),
    Mode("100,000 nested brackets", body(b"[" * 100_000), Affects.PROJECT, logged="does not match the API description"),
    Mode("100,000 nested brackets within", body(b'{"items":' + b"[" * 100_000), Affects.PROJECT),
    Mode("a cursor that never ends", endless_cursors, Affects.PROJECT, logged="more pages than limits.pages"),
    Mode("a cursor that repeats", same_cursor, Affects.PROJECT, logged="does not end"),
    Mode(
        "asOf that is not a time", page(asOf="yesterday"), Affects.PROJECT, logged="does not match the API description"
    ),
    Mode(
        "asOf without a zone",
        page(asOf="2026-01-05T12:00:00"),
        Affects.PROJECT,
        logged="does not match the API description",
    ),
    Mode("a list of nulls", nulls_everywhere, Affects.PROJECT, logged="items is valid"),
    Mode("a field of all runs renamed", renamed("spinnerName"), Affects.PROJECT, logged="missing required field"),
    Mode("a field of all runs retyped", retyped("createdAt"), Affects.PROJECT, logged="Expected `datetime`, got `int`"),
    Mode(
        "a field of all projects renamed",
        body(b'{"items": [{"id": "p1", "title": "Sales"}, {"id": "p2", "title": "Support"}]}'),
        Affects.API,
        "/projects",
        "none of the 2 items is valid",
    ),
    Mode("an ETag that does not change", wrong_etag, Affects.NOTHING),
    Mode("every item twice", duplicates, Affects.NOTHING),
    Mode("a clock that is set back", clock_set_back, Affects.NOTHING, "/"),
    # -- one item among the others
    Mode("an id that is missing", item(id=...), Affects.ITEM),
    Mode("an id that is empty", item(id=""), Affects.ITEM),
    Mode("an id of a megabyte", item(id="x" * 1_000_000), Affects.ITEM),
    Mode("an id that contains a path", item(id="../../usage"), Affects.NOTHING),
    Mode("an id with a line break", item(id="a\nb"), Affects.ITEM),
    Mode("a status that is missing", item(status=...), Affects.ITEM),
    Mode("a status that is null", item(status=None), Affects.ITEM),
    Mode("a status that is a number", item(status=7), Affects.ITEM),
    Mode("a spinner that is missing", item(spinnerName=...), Affects.ITEM),
    Mode("a time of creation that is missing", item(createdAt=...), Affects.ITEM),
    Mode("a time without a zone", item(updatedAt="2026-01-05T12:00:00"), Affects.ITEM),
    Mode("a time as a number", item(updatedAt=1767600000), Affects.ITEM),
    Mode("a text that is not a time", item(startedAt="soon"), Affects.ITEM),
    Mode("a time in year 1", item(startedAt="0001-01-01T00:00:00Z"), Affects.NOTHING, logged=IGNORED),
    Mode("a time in year 9999", item(startedAt="9999-12-31T23:59:59Z"), Affects.NOTHING, logged=IGNORED),
    Mode("a time before year 1 in UTC", item(startedAt="0001-01-01T00:00:00+23:59"), Affects.NOTHING, logged=IGNORED),
    Mode("a due time that is text", item(dueAt="soon"), Affects.NOTHING, logged=IGNORED),
    Mode("the end of a wait that is text", item(waitingUntil="soon"), Affects.NOTHING, logged=IGNORED),
    Mode("a negative count", counts(completed=-1), Affects.NOTHING, logged=IGNORED),
    Mode("a count of 2^63", counts(completed=2**63), Affects.NOTHING, logged=IGNORED),
    Mode("half a record", counts(completed=0.5), Affects.NOTHING, logged=IGNORED),
    Mode("a count that is text", counts(failed="three"), Affects.NOTHING, logged=IGNORED),
    Mode("more completed records than there are", counts(completed=11), Affects.NOTHING),
    Mode("NaN", raw("records", b'{"completed": NaN}'), Affects.NOTHING, logged=IGNORED),
    Mode("NaN in an unused field", raw("owner", b"NaN"), Affects.NOTHING),
    Mode("1e400", raw("records", b'{"completed": 1e400}'), Affects.NOTHING, logged=IGNORED),
    Mode("1e400 in an unused field", raw("owner", b"1e400"), Affects.NOTHING),
    Mode("invalid UTF-8", raw("spinnerName", b'"\xff\xfe"'), Affects.ITEM),
    Mode("a lone surrogate", raw("spinnerName", b'"a\\ud800b"'), Affects.NOTHING),
    Mode("NUL", raw("spinnerName", b'"a\\u0000b"'), Affects.NOTHING),
    Mode("a name of a megabyte", item(spinnerName="n" * 1_000_000), Affects.NOTHING),
    Mode("a name that would end its line", item(spinnerName='"} 1\nspinner_api_up 7\\'), Affects.NOTHING),
    Mode("a name of control characters only", item(spinnerName="\x00\x01"), Affects.NOTHING, logged=IGNORED),
    Mode("records that are a list", item(records=[1, 2]), Affects.NOTHING, logged=IGNORED),
    Mode("failures that are a number", item(failures=3), Affects.NOTHING, logged=IGNORED),
    Mode("an item that is null", lambda exchange: exchange.send(with_null(exchange)), Affects.ITEM),
)


def with_null(exchange: Exchange) -> bytes:
    items = [None if job["id"] == "run-0" else job for job in exchange.document["items"]]
    return json.dumps({**exchange.document, "items": items}).encode()


class Moving(Bench):
    """A bench whose runs make progress before each scrape, which goes through the web application."""

    def __init__(self, faulty: FaultyRuntime, config: Config, storage: Path | None = None) -> None:
        super().__init__(faulty, config, storage)
        self._moves = 0
        app = httpx.ASGITransport(create_app(self.exporter))
        self.client = httpx.AsyncClient(transport=app, base_url="http://exporter.test")

    async def scrape(self) -> Samples:
        """Let all runs progress, and scrape; checks that the response is in time and parses."""
        self.play(15)
        self._moves += 1
        records = {"total": 1000, "completed": self._moves}
        for name in ("run-0", "run-1", "other"):
            self.runtime.put(name, records=records)
        started = time.monotonic()
        with structlog.testing.capture_logs() as lines:
            answer = await self.client.get("/metrics", headers={TIMEOUT_HEADER: str(SCRAPE_TIMEOUT)})
        self.lines += lines
        assert answer.status_code == 200
        assert time.monotonic() - started < SCRAPE_TIMEOUT + 5, "a scrape was not answered in time"
        assert TOKEN not in answer.text
        return samples(answer.text)

    def completed(self, found: Samples, run: str) -> float | None:
        return value(found, "spinner_run_records", run_id=run, state="completed")

    @property
    def moves(self) -> float:
        """The current number of completed records of every run."""
        return self._moves


@contextlib.asynccontextmanager
async def moving(
    runtime: ScriptedRuntime, *, request_timeout: float = REQUEST_TIMEOUT, **options: Any
) -> AsyncIterator[Moving]:
    config = configured(token=Secret(TOKEN), timeout=Duration(request_timeout))
    limits = LimitsConfig(body_bytes=2_000_000, pages=20)
    async with bench_of(Moving, runtime, runtime=config, limits=limits, **options) as made:
        yield made
        await made.client.aclose()


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
async def test_each_failure_mode_of_the_api_has_its_expected_effect_only(mode: Mode) -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.projects = {"p1": "Sales", "p2": "Support"}
    for number in range(2 if mode.endless else RUNS):
        runtime.put(f"run-{number}")
    runtime.put("other", projectId="p2")
    async with moving(runtime, request_timeout=SHORT_REQUEST_TIMEOUT if mode.endless else REQUEST_TIMEOUT) as made:
        for _ in range(20):
            found = await made.scrape()
            if made.completed(found, "run-0") == made.completed(found, "other") == made.moves:
                break  # On a busy machine the short timeout may be over before the first connections are open.
        else:
            pytest.fail("without a fault, no scrape showed the current runs; is the machine that busy?")

        made.faulty.fault, made.faulty.path = mode.fault, mode.path
        before = made.moves
        for _ in range(3):
            await check(mode, made, await made.scrape(), kept=before)
        check_log(mode, made.lines)

        made.play(301)
        found = await made.scrape()
        gone = {Affects.API: ("run-0", "run-1", "other"), Affects.PROJECT: ("run-0", "run-1")}.get(mode.affects, ())
        for run in gone:
            assert made.completed(found, run) is None, "data older than sync.stale_after must not look current"

        made.faulty.fault = None
        for _ in range(2):
            made.play(120)  # a sweep is due, which sends no ETag
            found = await made.scrape()
        assert value(found, "spinner_api_up") == 1
        for run in ("run-0", "run-1", "other"):
            assert made.completed(found, run) == made.moves, f"{run} is not current after two scrapes"
    shown = json.dumps(made.lines, default=str)
    assert TOKEN not in shown
    assert "exc_info" not in shown, "a traceback in the log"


async def check(mode: Mode, made: Moving, found: Samples, *, kept: float) -> None:
    """Check what is up, what is current and what is kept from before."""
    fresh = made.moves
    up = (
        value(found, "spinner_api_up"),
        value(found, "spinner_project_up", project="Sales"),
        value(found, "spinner_project_up", project="Support"),
    )
    runs = tuple(made.completed(found, run) for run in ("run-0", "run-1", "other"))
    if mode.affects is Affects.NOTHING:
        # The values of the faulty run depend on the fault; other runs must not be affected.
        assert (up, runs[2]) == ((1, 1, 1), fresh)
        return
    expected = {
        Affects.API: ((0, 0, 0), (kept, kept, kept)),
        Affects.HEALTH: ((0, 1, 1), (fresh, fresh, fresh)),
        Affects.PROJECT: ((1, 0, 1), (kept, kept, fresh)),
        Affects.ITEM: ((1, 1, 1), (kept, fresh, fresh)),
    }
    assert (up, runs) == expected[mode.affects], f"expected to affect {mode.affects.value}"
    if mode.affects is Affects.ITEM:
        assert (value(found, "spinner_exporter_invalid_items_total", kind="job") or 0) >= 1


def check_log(mode: Mode, lines: list[Any]) -> None:
    """Check what was logged in three scrapes."""
    problems = [line for line in lines if line["log_level"] in ("warning", "error")]
    if mode.affects is Affects.NOTHING:
        assert [line["event"] for line in problems] == ([mode.logged] if mode.logged else [])
        return
    assert problems, "nothing was logged"
    assert mode.logged in json.dumps(problems)
    assert len(problems) <= 5, f"{len(problems)} lines for one problem: {problems}"


def test_every_failure_mode_has_a_unique_name() -> None:
    assert len({mode.name for mode in MODES}) == len(MODES) > 60


async def test_an_api_that_does_not_respond_gets_one_request_per_scrape() -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.projects = {f"p{number}": f"Project {number}" for number in range(100)}
    async with moving(runtime) as made:
        await made.scrape()
        made.faulty.fault = closes_without_response
        for _ in range(2):
            await made.scrape()
        before = made.faulty.requests
        for _ in range(3):
            await made.scrape()
        assert made.faulty.requests - before == 3


async def test_200_concurrent_scrapes_send_no_more_requests_than_one() -> None:
    async with moving(ScriptedRuntime(Clock()), fault=hangs) as made:
        scrapes: list[Awaitable[httpx.Response]] = [
            made.client.get("/metrics", headers={TIMEOUT_HEADER: "1"}) for _ in range(200)
        ]
        with structlog.testing.capture_logs():
            answers = await asyncio.gather(*scrapes)
        assert [answer.status_code for answer in answers] == [200] * 200
        assert made.faulty.requests <= 3, "health, projects and the plan"
