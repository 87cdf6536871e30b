"""Clients that are slow, silent, or send too much or invalid data: none delays a scrape or changes the page."""

import asyncio
import contextlib
import dataclasses
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from starlette.types import Receive, Scope, Send

from exporter.web import connections, server
from exporter.web.app import TIMEOUT_HEADER, create_app
from exporter.web.server import KEEP_ALIVE, MAX_HEAD, ResponseWatch, listen, running_server, url_of
from tests.builders import Clock
from tests.metrics.test_exposition import samples
from tests.scripted import ScriptedRuntime, exporter_of


@contextlib.asynccontextmanager
async def serving(runs: int = 5) -> AsyncIterator[str]:
    runtime = ScriptedRuntime(Clock())
    for number in range(runs):
        runtime.put(f"run-{number}", status="completed", endedAt=runtime.clock())
    exporter = exporter_of(runtime)
    listener = listen("127.0.0.1:0")
    async with running_server(create_app(exporter), listener):
        yield url_of(listener)
    await exporter.close()


async def scrape(url: str) -> None:
    """Scrape as Prometheus does; checks that the response is in time and parses."""
    async with httpx.AsyncClient(timeout=30) as client:
        answer = await client.get(f"{url}/metrics", headers={TIMEOUT_HEADER: "25"})
    assert answer.status_code == 200
    assert samples(answer.text)


async def connected(url: str, sent: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(sent)
    await writer.drain()
    return reader, writer


@pytest.mark.parametrize(
    "sent",
    [b"", b"G", b"GET /metrics HTTP/1.1\r\n", b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-More: "],
    ids=["nothing", "one-byte", "no-headers", "half-a-header"],
)
async def test_a_client_that_sends_half_a_request_is_disconnected_and_delays_no_other(
    monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT", 0.5)
    async with serving() as url:
        clients = [await connected(url, sent) for _ in range(200)]
        await scrape(url)
        async with asyncio.timeout(10):
            for reader, writer in clients:
                # An error response may come first. On a busy machine the connection may be reset instead.
                with contextlib.suppress(ConnectionError):
                    while await reader.read(1000):
                        pass
                writer.close()
        await scrape(url)


async def test_a_client_that_does_not_read_its_response_delays_no_other() -> None:
    async with serving(runs=3000) as url:
        port = int(url.rpartition(":")[2])
        clients = []
        for _ in range(20):
            client = socket.create_connection(("127.0.0.1", port))
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            clients.append(client)
        await scrape(url)
        await scrape(url)
        for client in clients:
            client.close()


LARGE = 8_000_000
"""Bytes of a response, more than the socket's buffers hold."""


class LargeResponse:
    """An application whose response is larger than the socket's buffers, sent in one piece or in many."""

    def __init__(self, pieces: int) -> None:
        self.pieces = pieces
        self.is_disconnected = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        length = str(LARGE).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        for _ in range(self.pieces):
            await send({"type": "http.response.body", "body": bytes(LARGE // self.pieces), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        while (await receive())["type"] != "http.disconnect":
            pass
        self.is_disconnected.set()


@pytest.mark.parametrize("pieces", [1, 100])
async def test_a_client_that_does_not_read_its_response_is_disconnected(
    monkeypatch: pytest.MonkeyPatch, pieces: int
) -> None:
    monkeypatch.setattr(server, "STALLED_RESPONSE_TIMEOUT", 0.4)
    app = LargeResponse(pieces)
    listener = listen("127.0.0.1:0")
    async with running_server(app, listener):
        client = socket.create_connection(listener.getsockname())
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(20):
            await app.is_disconnected.wait()
        client.close()


class Buffer:
    """A transport's write buffer with a scheduler whose checks a test runs."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.is_aborted = False
        self.waiting: list[Check] = []
        self.watch = ResponseWatch(self, self.call_later)  # type: ignore[arg-type]

    def get_write_buffer_size(self) -> int:
        return self.size

    def abort(self) -> None:
        self.is_aborted = True

    def call_later(self, seconds: float, callback: Callable[[], None]) -> "Check":
        self.waiting.append(Check(self, seconds, callback))
        return self.waiting[-1]

    def run(self) -> float:
        """Run the next check; return after how many seconds it was due."""
        check = self.waiting.pop(0)
        check.callback()
        return check.seconds


@dataclasses.dataclass
class Check:
    buffer: Buffer
    seconds: float
    callback: Callable[[], None]

    def cancel(self) -> None:
        self.buffer.waiting.remove(self)


@pytest.mark.parametrize("is_complete", [False, True])
def test_a_client_without_progress_is_disconnected_after_the_timeout(is_complete: bool) -> None:
    buffer = Buffer(100)
    buffer.watch.start()
    if is_complete:
        buffer.watch.sent()
    waited = 0.0
    while not buffer.is_aborted:
        waited += buffer.run()
    assert waited == 30.0
    assert not buffer.waiting, "nothing is scheduled for a connection that is closed"


def test_a_slow_client_with_progress_is_not_disconnected_for_two_minutes() -> None:
    buffer = Buffer(1000)
    buffer.watch.start()
    waited = 0.0
    while not buffer.is_aborted:
        if len(buffer.waiting) and waited % 22.5 == 0:
            buffer.size -= 1
        if waited == 60:  # the buffer is refilled to the same size between two checks
            buffer.watch.resumed()
        waited += buffer.run()
    assert waited == 120


def test_two_minutes_are_for_a_response_also_if_its_buffer_is_empty_for_a_moment() -> None:
    buffer = Buffer(1000)
    buffer.watch.start()
    waited = 0.0
    while not buffer.is_aborted:
        waited += buffer.run()
        buffer.size = 0 if buffer.size else 1000
        buffer.watch.start()
    assert waited == 120


def test_an_empty_buffer_ends_the_watch_until_the_next_response() -> None:
    buffer = Buffer(0)
    buffer.watch.start()
    assert not buffer.waiting, "nothing to watch"
    buffer.size = 10
    buffer.watch.start()
    buffer.watch.sent()
    assert len(buffer.waiting) == 1, "watched once"
    buffer.size = 0
    buffer.run()
    assert not buffer.waiting
    buffer.size = 10
    buffer.watch.start()
    assert len(buffer.waiting) == 1


def test_a_closed_connection_is_not_watched() -> None:
    buffer = Buffer(10)
    buffer.watch.start()
    buffer.watch.end()
    assert not buffer.waiting
    assert not buffer.is_aborted


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 10 * MAX_HEAD + b"\r\n\r\n",
        b"GET /" + b"x" * 10 * MAX_HEAD + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n",
        b"\r\n\r\n\r\n\r\n",
        b"GET /metrics HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=["header", "path", "tls", "empty-lines", "version", "http2"],
)
async def test_an_invalid_request_is_refused(sent: bytes) -> None:
    async with serving() as url:
        reader, writer = await connected(url, sent)
        writer.write_eof()
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionError):
                answer = await reader.read(100_000)
                assert b" 200 " not in answer
        writer.close()
        await scrape(url)


@pytest.mark.parametrize(
    "upgrade",
    [
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
        b"Connection: upgrade\r\nUpgrade: TLS/1.0\r\n",
    ],
    ids=["HTTP/2", "websocket", "TLS"],
)
async def test_a_request_for_another_protocol_gets_its_page_and_no_line_in_the_log(
    upgrade: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Kludex/uvicorn#1967: Java's client asks for HTTP/2 each time, and got two warnings that recommend a package."""
    async with serving() as url:
        reader, writer = await connected(url, b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n" + upgrade + b"\r\n")
        async with asyncio.timeout(5):
            assert b" 200 OK\r\n" in await reader.readline()
        writer.close()
    assert [record.getMessage() for record in caplog.records if record.name.startswith("uvicorn")] == []


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        (b"http://exporter.test:10095/-/healthy", b"spinner-exporter is healthy."),
        (b"HTTPS://exporter.test/-/healthy?a=b", b"spinner-exporter is healthy."),
        (b"http://exporter.test", b"<title>"),
        (b"http://exporter.test:10095/sd", b'"targets":["exporter.test:10095"]'),
        (b"http://exporter.test/%2D/healthy", b"spinner-exporter is healthy."),
        (b"ftp://exporter.test/-/healthy", b"Not Found"),
    ],
)
async def test_a_url_instead_of_a_path_is_accepted(target: bytes, answer: bytes) -> None:
    """Kludex/uvicorn#3097: RFC 9112 requires it, and some proxies send it. The host in it is the one that counts."""
    async with serving() as url:
        request = b"GET " + target + b" HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n"
        reader, writer = await connected(url, request)
        async with asyncio.timeout(5):
            assert answer in await reader.read()
        writer.close()


@pytest.mark.parametrize("interval", [5, 10, 15, 30, 60])
async def test_a_scrape_finds_its_connection_open_after_any_common_interval(
    interval: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """volcengine/OpenViking#3743: a client that reuses a connection while the server closes it reports an error."""
    request = b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n"
    loop = asyncio.get_running_loop()
    async with serving() as url:
        reader, writer = await connected(url, request)
        await reader.readuntil(b"healthy.\n")
        time = loop.time
        monkeypatch.setattr(loop, "time", lambda: time() + interval)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not reader.at_eof()
        writer.write(request)
        assert b"200 OK" in await reader.readuntil(b"healthy.\n")
        monkeypatch.setattr(loop, "time", lambda: time() + interval + 2 * KEEP_ALIVE)
        assert await reader.read() == b"", "it is not kept for ever"
        writer.close()


async def test_a_second_request_that_is_never_finished_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT", 0.2)
    async with serving() as url:
        reader, writer = await connected(url, b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\nGET /-/hea")
        await reader.readuntil(b"healthy.\n")
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
        reader, writer = await connected(url, b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"healthy.\n")
        writer.write(b"G")
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()


async def test_an_unexpected_body_is_not_read_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """No endpoint reads a body. A client that continues to send after the response is disconnected."""
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT", 0.5)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536

    async with serving() as url:
        async with httpx.AsyncClient() as client, asyncio.timeout(10):
            with contextlib.suppress(httpx.TransportError):
                answer = await client.request("GET", f"{url}/metrics", content=endless())
                assert answer.status_code == 200
        await scrape(url)


async def test_no_part_of_a_request_becomes_a_label() -> None:
    async with serving() as url, httpx.AsyncClient() as client:
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "MARK"):
            answer = await client.request(
                method, f"{url}/mark?mark=mark", headers={"User-Agent": "mark", "X-Mark": "mark"}
            )
            assert answer.status_code in (404, 405)
            answer = await client.request(method, f"{url}/metrics?mark=mark&collect[]=mark")
            assert answer.status_code == (200 if method in ("GET", "HEAD") else 405)
        page = (await client.get(f"{url}/metrics")).text
    assert "mark" not in page.lower()


# -- generated requests -------------------------------------------------------------------------------------

TEXT: dict[str, Any] = {"content": {"text/plain": {}}}
DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "spinner-exporter", "version": "1"},
    "paths": {
        "/": {"get": {"responses": {"200": {"description": "landing", "content": {"text/html": {}}}}}},
        "/metrics": {
            "get": {
                "parameters": [
                    {"name": name, "in": "header", "schema": {"type": "string"}}
                    for name in ("Accept", "Accept-Encoding", TIMEOUT_HEADER)
                ],
                "responses": {
                    "200": {"description": "page", "content": {"text/plain": {}, "application/openmetrics-text": {}}}
                },
            }
        },
        "/probe": {
            "get": {
                "parameters": [
                    {
                        "name": "project",
                        "in": "query",
                        "required": True,
                        "schema": {"type": "string", "minLength": 1},
                    },
                    *({"name": name, "in": "query", "schema": {"type": "string"}} for name in ("runtime", "target")),
                    {"name": TIMEOUT_HEADER, "in": "header", "schema": {"type": "string"}},
                ],
                "responses": {
                    "200": {"description": "page", "content": {"text/plain": {}, "application/openmetrics-text": {}}},
                    "400": {"description": "no project", **TEXT},
                    "404": {"description": "unknown project", **TEXT},
                },
            }
        },
        "/sd": {
            "get": {
                "responses": {
                    "200": {
                        "description": "targets",
                        "content": {
                            "application/json": {
                                "schema": {
                                    "type": "array",
                                    "items": {"type": "object", "required": ["targets", "labels"]},
                                }
                            }
                        },
                    },
                },
            }
        },
        "/-/healthy": {"get": {"responses": {"200": {"description": "healthy", **TEXT}}}},
        "/-/ready": {
            "get": {"responses": {"200": {"description": "ready", **TEXT}, "503": {"description": "not yet", **TEXT}}}
        },
        "/-/reload": {"post": {"responses": {"403": {"description": "off", **TEXT}}}},
    },
}

RUNTIME = ScriptedRuntime(Clock())
RUNTIME.put()
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
SCHEMA.app = create_app(exporter_of(RUNTIME))


@SCHEMA.parametrize()
@settings(max_examples=60, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_response_to_generated_requests_is_documented(case: schemathesis.Case[Any]) -> None:
    case.call_and_validate()


def test_the_document_above_has_every_path() -> None:
    paths = {route.path for route in create_app(exporter_of(RUNTIME)).routes}  # type: ignore[attr-defined]
    assert paths == set(DOCUMENT["paths"])
