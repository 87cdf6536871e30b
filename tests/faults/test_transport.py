"""What a connection can raise: an error of a read costs that read alone, and is one line in the log."""

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
import trustme

from exporter.config import Config, Duration, RuntimeConfig, Secret, SyncConfig, TlsConfig
from exporter.config.api_description import Resources
from exporter.runtime.decoder import Decoder
from exporter.service import Exporter
from exporter.service.monitored_runtime import Dependencies
from tests.builders import RUNTIME, Clock
from tests.builders import resources as contract
from tests.faults.bench import two_projects, up
from tests.faults.server import FaultyRuntime
from tests.metrics.test_exposition import Samples, samples, value
from tests.scripted import ScriptedRuntime, no_sleep

CA = trustme.CA()
OTHER_CA = trustme.CA()


def exporter(url: str, clock: Clock, *, tls: TlsConfig | None = None, resources: Resources | None = None) -> Exporter:
    config = Config(
        runtime=RuntimeConfig(
            base_url=url,
            resources=resources or contract(),
            token=Secret("cxg_a_secret_of_the_test"),
            timeout=Duration(5),
            tls=tls or TlsConfig(),
        ),
        sync=SyncConfig(min_interval=Duration(0), projects_interval=Duration(0)),
    )
    return Exporter({RUNTIME: config}, Dependencies(clock, clock, sleep=no_sleep))


async def scrapes(made: Exporter, clock: Clock, times: int = 3) -> tuple[Samples, list[Any]]:
    """The last of several scrapes, and all that they logged."""
    with structlog.testing.capture_logs() as lines:
        for _ in range(times):
            clock.advance(15)
            page = str(await made.page(max_wait=20))
    return samples(page), lines


# -- TLS after the handshake ------------------------------------------------------------------------------------


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture
def ca_file(tmp_path: Path) -> str:
    CA.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return str(tmp_path / "ca.pem")


@contextlib.contextmanager
def refusing(context: ssl.SSLContext) -> Iterator[str]:
    """A server that answers each handshake without a certificate of its authority with an alert. Yields its URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with (
                context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False) as tls,
                contextlib.suppress(OSError),
            ):
                with contextlib.suppress(ssl.SSLError):
                    tls.do_handshake()
                # Closing with unread data would reset the connection, and the alert could be lost.
                tls.shutdown(socket.SHUT_WR)
                while tls.recv(65536):
                    pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"https://localhost:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(10)


@pytest.mark.parametrize(
    ("offered", "reason"),
    [("none", "tlsv13 alert certificate required"), ("of another authority", "tlsv1 alert unknown ca")],
)
async def test_a_client_certificate_that_is_refused_is_one_line(
    tmp_path: Path, ca_file: str, offered: str, reason: str
) -> None:
    """With TLS 1.3 the client learns of the refusal when it reads, after its handshake."""
    context = server_context()
    CA.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    tls = TlsConfig(ca_file=ca_file)
    if offered != "none":
        own = OTHER_CA.issue_cert("exporter@example.com")
        own.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
        own.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
        tls = TlsConfig(ca_file=ca_file, cert_file=str(tmp_path / "cert.pem"), key_file=str(tmp_path / "key.pem"))
    clock = Clock()
    with refusing(context) as url:
        made = exporter(url, clock, tls=tls)
        found, lines = await scrapes(made, clock)
        await made.close()
    assert value(found, "spinner_api_up") == 0
    assert "exc_info" not in str(lines)
    errors = {line["what"]: line["error"] for line in lines}
    assert errors.keys() <= {"health", "projects", "usage"}, lines
    assert f"no response (TLS: {reason})" in str(errors)


@contextlib.asynccontextmanager
async def damaged(url: str, when: Callable[[bytes], bool]) -> AsyncIterator[str]:
    """A network between client and server that damages the server's first record after a request as `when` tells."""
    port = int(url.rpartition(":")[2])
    tasks: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
        writers.extend((writer, server_writer))
        sent = 0

        async def to_server() -> None:
            nonlocal sent
            while chunk := await reader.read(65536):
                sent += 1
                server_writer.write(chunk)
                await server_writer.drain()

        async def to_client() -> None:
            while head := await server_reader.readexactly(5):
                body = await server_reader.readexactly(struct.unpack(">H", head[3:])[0])
                # The first flight of the client is its hello; with the second it sends the request.
                if sent >= 2 and head[0] == 23 and when(body):
                    body = bytes([body[0] ^ 255]) + body[1:]
                writer.write(head + body)
                await writer.drain()

        tasks.update((asyncio.create_task(swallow(to_server())), asyncio.create_task(swallow(to_client()))))

    async def swallow(work: Awaitable[None]) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await work

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    try:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()
        for _ in range(3):
            await asyncio.sleep(0)


DAMAGES: dict[str, Callable[[bytes], bool]] = {
    "every answer": lambda record: True,
    # Only the list of the project with many runs has more than one record, of at most 16 kB.
    "the beginning of a large answer": lambda record: len(record) > 16_000,
    "the end of a large answer": lambda record: 2_000 < len(record) < 16_000,
}


@pytest.mark.parametrize("which", DAMAGES)
async def test_a_damaged_record_costs_the_read_that_it_belongs_to(ca_file: str, which: str) -> None:
    clock = Clock()
    runtime = two_projects(clock)
    for number in range(100):
        runtime.put(f"other-{number}")
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    async with (
        FaultyRuntime(runtime).serving(server_context()) as server,
        damaged(server, DAMAGES[which]) as url,
    ):
        made = exporter(url, clock, tls=TlsConfig(ca_file=ca_file))
        found, lines = await scrapes(made, clock)
        await made.close()
    assert "exc_info" not in str(lines)
    assert "TLS: decryption failed or bad record mac" in str(lines)
    assert len(lines) <= 3, lines
    if which == "every answer":
        assert value(found, "spinner_api_up") == 0
    else:
        assert up(found) == (1, 0, 1)


# -- what else can be raised ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [ssl.SSLError(1, "[SSL] x"), OSError(113, "No route"), ValueError("a"), EOFError(), RuntimeError("b")]
)
async def test_an_error_of_a_socket_costs_the_read_alone(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    async with FaultyRuntime(two_projects(clock)).serving() as url:
        made = exporter(url, clock)
        connections = made.runtimes[RUNTIME].client._http_client._connections
        real = connections._response

        async def fail(transport: Any, request: Any) -> Any:
            if "/p1/" in request.url.path:
                raise error
            return await real(transport, request)

        monkeypatch.setattr(connections, "_response", fail)
        found, lines = await scrapes(made, clock)
        await made.close()
    assert up(found) == (1, 0, 1)
    assert len(lines) == 1, lines
    assert type(error).__name__ in lines[0]["error"]


@pytest.mark.parametrize("place", ["decoding", "store", "list", "health", "usage"])
async def test_an_unforeseen_error_costs_its_read_alone_and_is_one_line_with_its_traceback_once(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    async with FaultyRuntime(two_projects(clock)).serving() as url:
        made = exporter(url, clock)
        monitored = made.runtimes[RUNTIME]
        broken = monitored.client, {"list": "projects"}.get(place, place)
        match place:
            case "decoding":
                fail_for_p1(monkeypatch, Decoder, "jobs")
            case "store":
                fail_for_p1(monkeypatch, type(monitored.store), "has_been_read")
            case _:
                monkeypatch.setattr(*broken, crash)
        found, lines = await scrapes(made, clock)
        await made.close()
    expected = {"list": (0, None, None), "health": (0, 1, 1), "usage": (1, 1, 1)}
    assert up(found) == expected.get(place, (1, 0, 1))
    assert len(lines) == 1, lines
    assert lines[0]["exc_info"], "without its traceback"
    assert "unforeseen ZeroDivisionError" in lines[0]["error"]


def crash(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError("a bug in the exporter")


def fail_for_p1(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
    """Make a method raise when its arguments are about project p1."""
    real = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *arguments: crash() if "'p1'" in repr(arguments) else real(*arguments))


async def test_a_bug_that_a_thousand_projects_meet_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    runtime.projects = {f"p{number}": f"Project {number}" for number in range(100)}
    async with FaultyRuntime(runtime).serving() as url:
        made = exporter(url, clock)
        monkeypatch.setattr(made.runtimes[RUNTIME].client, "jobs", crash)
        _, lines = await scrapes(made, clock)
        await made.close()
    (line,) = lines
    assert (line["projects"], bool(line["exc_info"])) == (100, True)


async def test_an_etag_that_no_request_can_carry_is_not_used() -> None:
    """Python reads any byte in a header, and writes only ASCII."""
    clock = Clock()
    etags: list[str] = []

    async def tag(exchange: Any) -> None:
        etags.append(exchange.request.headers.get("If-None-Match", ""))
        await exchange.send(headers={"ETag": '"\N{LATIN SMALL LETTER U WITH DIAERESIS}"'})

    async with FaultyRuntime(two_projects(clock), fault=tag, path="/projects").serving() as url:
        made = exporter(url, clock)
        found, lines = await scrapes(made, clock)
        await made.close()
    assert (up(found), lines) == ((1, 1, 1), [])
    assert len(etags) >= 6
    assert not any(etags)


@pytest.mark.parametrize("cursor", ["a\ud800", "\udfff"])
async def test_a_cursor_that_no_url_can_contain_costs_the_read_alone(cursor: str) -> None:
    clock = Clock()

    async def answer(exchange: Any) -> None:
        await exchange.send(json.dumps({**exchange.document, "nextCursor": cursor}).encode())

    async with FaultyRuntime(two_projects(clock), fault=answer, path="/p1/jobs").serving() as url:
        made = exporter(url, clock)
        found, lines = await scrapes(made, clock)
        await made.close()
    assert up(found) == (1, 0, 1)
    assert len(lines) == 1
    assert "jobs: not requested" in lines[0]["error"]
    assert "exc_info" not in lines[0]


async def test_a_connection_that_cannot_be_closed_in_order_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    unhandled: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: unhandled.append(context))
    async with FaultyRuntime(two_projects(clock)).serving() as url:
        made = exporter(url, clock)
        closed = 0
        real = httpx.AsyncHTTPTransport.aclose

        async def fail(transport: httpx.AsyncHTTPTransport) -> None:
            nonlocal closed
            closed += 1
            await real(transport)
            raise ssl.SSLError(1, "[SSL: APPLICATION_DATA_AFTER_CLOSE_NOTIFY] application data after close notify")

        monkeypatch.setattr(httpx.AsyncHTTPTransport, "aclose", fail)
        await scrapes(made, clock)
        await made.close()
    assert closed > 1, "each of the others is closed too"
    assert not unhandled
