"""Connections: TLS, client certificates, keepalive, headers, proxies, and how the token is sent."""

import asyncio
import contextlib
import gc
import re
import socket
import ssl
import struct
import time
import urllib.request
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import pytest
import requests
import structlog
import trustme
import yaml
from hypothesis import given
from hypothesis import strategies as st

from exporter.config import load
from exporter.errors import ConfigError
from exporter.runtime.auth import Credentials, Token
from exporter.runtime.connections import KEEPALIVE, Connections
from exporter.runtime.proxies import proxy_from_environment
from tests.builders import Clock, only_runtime, runtime_config

CA = trustme.CA()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    CA.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    own = CA.issue_cert("exporter@example.com")
    own.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    own.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    return tmp_path


@contextlib.asynccontextmanager
async def https(*, name: str = "localhost", request_certificates: bool = False) -> AsyncIterator[str]:
    """A server that responds to every request with an empty object."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA.issue_cert(name).configure_cert(context)
    if request_certificates:
        CA.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    async with listening(context) as (port, _):
        yield f"https://localhost:{port}"


@contextlib.asynccontextmanager
async def listening(
    context: ssl.SSLContext | None = None, *, host: str = "127.0.0.1"
) -> AsyncIterator[tuple[int, list[bytes]]]:
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, host, 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], seen


def connections_to(folder: Path, url: str, *, concurrency: int = 1, **runtime: Any) -> Connections:
    file = folder / "exporter.yml"
    file.write_text(yaml.safe_dump({"runtime": {"base_url": url, **runtime}}))
    return Connections(only_runtime(load(file, environ={})).runtime, concurrency=concurrency)


async def get(connections: Connections, url: str, headers: Mapping[str, str] = MappingProxyType({})) -> int:
    """Send a request and return its status."""
    request = connections.request("GET", url, query={}, body=None, headers=headers)
    async with connections.slots, connections.send(request) as response:
        await response.aread()
        return response.status_code


async def status(folder: Path, url: str, **runtime: Any) -> int:
    """Send one request with this config and return its status."""
    connections = connections_to(folder, url, **runtime)
    try:
        return await get(connections, url)
    finally:
        await connections.close()


async def test_a_configured_authority_is_trusted(files: Path) -> None:
    async with https() as url:
        assert await status(files, url, tls={"ca_file": str(files / "ca.pem")}) == 200
        with pytest.raises(httpx.ConnectError):
            await status(files, url)


async def test_a_certificate_for_another_host_is_rejected(files: Path) -> None:
    async with https(name="other.example.com") as url:
        with pytest.raises(httpx.ConnectError):
            await status(files, url, tls={"ca_file": str(files / "ca.pem")})


async def test_a_client_certificate_is_sent_if_the_server_requests_one(files: Path) -> None:
    tls = {"ca_file": str(files / "ca.pem")}
    own = {"cert_file": str(files / "cert.pem"), "key_file": str(files / "key.pem")}
    async with https(request_certificates=True) as url:
        assert await status(files, url, tls=tls | own) == 200
        with pytest.raises(httpx.TransportError):
            await status(files, url, tls=tls)


async def test_requests_through_a_proxy_have_the_configured_headers_and_parameters(files: Path) -> None:
    async with listening() as (port, seen):
        proxied = await status(
            files,
            "http://runtime.test/x",
            proxy=f"http://127.0.0.1:{port}",
            headers={"X-Tenant": "acme"},
            query={"region": "eu"},
        )
    assert proxied == 200
    assert seen[0].startswith(b"GET http://runtime.test/x?region=eu HTTP/1.1\r\n")
    assert b"X-Tenant: acme" in seen[0]


# -- kept connections ---------------------------------------------------------------------------------------


class Server:
    """Keeps its connections open and lists them.

    With `fail` it closes a connection instead of sending a second response. While `release` is cleared it sends none.
    """

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []
        self.heads: list[bytes] = []
        self.fail = False
        self.resets = False
        """Whether `fail` resets the connection instead of ending it."""
        self.cookie = b""
        self.release = asyncio.Event()
        self.release.set()
        self.requested = asyncio.Event()
        """Set when so many requests have arrived."""
        self.expected: tuple[int, ...] = (3,)
        self.context: ssl.SSLContext | None = None
        """The TLS context for `serving` without `tls`; None: no TLS."""

    @contextlib.asynccontextmanager
    async def serving(self, *, tls: bool = False) -> AsyncIterator[str]:
        context = self.context
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            CA.issue_cert("localhost").configure_cert(context)
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, ssl=context)
        async with server:
            yield f"{'https' if context else 'http'}://localhost:{server.sockets[0].getsockname()[1]}"
            for writer in self.writers:
                if not writer.is_closing():  # With TLS, Python 3.11.2 cannot abort a closed connection.
                    writer.transport.abort()
            for _ in range(3):
                await asyncio.sleep(0)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            first = True
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                if len(self.heads) in self.expected:
                    self.requested.set()
                if self.fail and not first:
                    if self.resets:
                        # With this, closing sends RST instead of FIN.
                        raw = writer.get_extra_info("socket")
                        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        writer.transport.abort()
                    break
                first = False
                await self.release.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + self.cookie + b"\r\n{}")
                await writer.drain()
        writer.close()


@pytest.mark.parametrize("tls", [False, True])
async def test_scrapes_share_their_connections(files: Path, tls: bool) -> None:
    server = Server()
    async with server.serving(tls=tls) as url:
        connections = connections_to(files, url, concurrency=3, tls={"ca_file": str(files / "ca.pem")})
        for _ in range(4):
            assert await asyncio.gather(*(get(connections, url) for _ in range(10))) == [200] * 10
        assert len(server.writers) <= 3
        await connections.close()


@pytest.mark.parametrize(("idle", "opened"), [(KEEPALIVE - 1, 1), (KEEPALIVE + 1, 2)])
async def test_a_connection_is_kept_for_longer_than_a_scrape_interval(
    files: Path, monkeypatch: pytest.MonkeyPatch, idle: float, opened: int
) -> None:
    monotonic = time.monotonic
    server = Server()
    async with server.serving() as url:
        connections = connections_to(files, url)
        await get(connections, url)
        monkeypatch.setattr(time, "monotonic", lambda: monotonic() + idle)
        await get(connections, url)
        monkeypatch.undo()
        await connections.close()
    assert len(server.writers) == opened
    assert KEEPALIVE > 60, "the longest common scrape interval"


async def test_a_connection_is_replaced_after_five_minutes_although_it_is_in_use(files: Path) -> None:
    clock = Clock()
    server = Server()
    async with server.serving() as url:
        connections = Connections(runtime_config(url), concurrency=1, monotonic=clock)
        opened = []
        for seconds in (0, 150, 149, 1, 299):
            clock.advance(seconds)
            await get(connections, url)
            opened.append(len(server.writers))
        await connections.close()
    assert opened == [1, 1, 1, 2, 2]


@pytest.mark.parametrize("tls", [False, True])
async def test_a_kept_connection_that_the_server_closed_is_replaced(files: Path, tls: bool) -> None:
    server = Server()
    async with server.serving(tls=tls) as url:
        connections = connections_to(files, url, tls={"ca_file": str(files / "ca.pem")})
        await get(connections, url)
        server.writers[0].close()
        for _ in range(20):
            await asyncio.sleep(0)
        assert await get(connections, url) == 200
        assert len(server.writers) == 2
        await connections.close()


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("tls", [False, True])
async def test_a_request_is_repeated_if_the_server_closes_the_kept_connection_during_it(
    files: Path, tls: bool, resets: bool
) -> None:
    server = Server()
    server.resets = resets
    async with server.serving(tls=tls) as url:
        connections = connections_to(files, url, concurrency=3, tls={"ca_file": str(files / "ca.pem")})
        await asyncio.gather(*(get(connections, url) for _ in range(3)))
        server.fail = True
        assert await asyncio.gather(*(get(connections, url) for _ in range(3))) == [200] * 3
        await connections.close()


async def test_the_end_waits_for_connections_that_are_being_closed(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = asyncio.Event()
    close = httpx.AsyncHTTPTransport.aclose

    async def slow(transport: httpx.AsyncHTTPTransport) -> None:
        for _ in range(20):
            await asyncio.sleep(0)
        await close(transport)
        closed.set()

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "aclose", slow)
    server = Server()
    server.release.clear()
    server.expected = (1,)
    async with server.serving() as url:
        connections = connections_to(files, url)
        request = asyncio.create_task(get(connections, url))
        await server.requested.wait()
        request.cancel()
        await asyncio.wait([request])
        assert not closed.is_set()
        await connections.close()
        assert closed.is_set(), "the event loop would end with a connection half closed"
        assert not connections._closing, "each closed connection would stay in memory"
        server.release.set()


async def test_a_new_connection_that_the_server_closes_is_an_error_after_one_request(files: Path) -> None:
    requests = 0

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await reader.readuntil(b"\r\n\r\n")
        requests += 1
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        connections = connections_to(files, url)
        with pytest.raises(httpx.RemoteProtocolError):
            async with asyncio.timeout(10):
                await get(connections, url)
        await connections.close()
    assert requests == 1


class Failing(httpx.AsyncBaseTransport):
    """Fails some times, as httpcore does on a connection that is kept from an earlier request, or on a new one."""

    def __init__(self, error: type[httpx.TransportError], *, times: int, kept: bool) -> None:
        self._error = error
        self._times = times
        self._events = ["http11.send_request_headers.started"]
        if not kept:
            self._events.insert(0, "connection.connect_tcp.started")
        self.requests = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        for event in self._events:
            await request.extensions["trace"](event, {})
        if self.requests <= self._times:
            raise self._error("closed")
        return httpx.Response(200)


@pytest.mark.parametrize("error", [httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError])
@pytest.mark.parametrize("kept", [False, True])
async def test_however_a_kept_connection_breaks_the_request_is_repeated_and_on_a_new_one_it_is_not(
    error: type[httpx.TransportError], kept: bool
) -> None:
    transport = Failing(error, times=2, kept=kept)
    connections = Connections(runtime_config(), concurrency=1, transport=transport)
    if kept:
        assert await get(connections, "http://runtime.test") == 200
        assert transport.requests == 3
    else:
        with pytest.raises(error):
            await get(connections, "http://runtime.test")
        assert transport.requests == 1


async def test_a_timeout_on_a_kept_connection_is_not_repeated() -> None:
    transport = Failing(httpx.ReadTimeout, times=1, kept=True)
    with pytest.raises(httpx.ReadTimeout):
        await get(Connections(runtime_config(), concurrency=1, transport=transport), "http://runtime.test")
    assert transport.requests == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("kept", [False, True])
async def test_a_request_that_is_cancelled_at_any_step_leaks_no_connection(files: Path, tls: bool, kept: bool) -> None:
    """httpcore 1.0.9 leaks it at the last step, and for a new connection between connecting and sending."""
    # The garbage collector closes the socket of a connection that is cancelled in its TLS handshake, with a warning.
    server = Server()
    async with server.serving(tls=tls) as url:
        finished = False
        step = 0
        while not finished:
            connections = connections_to(files, url, timeout="2s", tls={"ca_file": str(files / "ca.pem")})
            if kept:
                await get(connections, url)
            task = asyncio.create_task(get(connections, url))
            for _ in range(step):
                await asyncio.sleep(0)
            finished = task.done()
            task.cancel()
            await asyncio.wait({task})
            assert await get(connections, url) == 200, f"cancelled at step {step}"
            await connections.close()
            step += 1
    gc.collect()
    assert step > 5


async def test_a_cancelled_request_closes_its_own_connection_only(files: Path) -> None:
    server = Server()
    async with server.serving() as url:
        connections = connections_to(files, url, concurrency=3)
        server.release.clear()
        cancelled, *others = [asyncio.create_task(get(connections, url)) for _ in range(3)]
        await server.requested.wait()
        cancelled.cancel()
        await asyncio.wait({cancelled})
        server.release.set()
        assert await asyncio.gather(*others) == [200, 200]
        assert await asyncio.gather(*(get(connections, url) for _ in range(2))) == [200, 200]
        assert len(server.writers) == 3
        assert not connections._busy, "each of a cancelled request would stay in memory"
        await connections.close()


# -- files with certificates --------------------------------------------------------------------------------


class Authenticated(Server):
    """Requires client certificates, and lists the common name of each request's client."""

    def __init__(self, authority: trustme.CA) -> None:
        super().__init__()
        self.clients: list[str] = []
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(self.context)
        CA.configure_trust(self.context)
        self.context.verify_mode = ssl.CERT_REQUIRED

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        subject = dict(pair for (pair,) in writer.get_extra_info("peercert")["subject"])
        self.clients.append(subject["commonName"])
        await super()._connection(reader, writer)


def write_client_certificate(folder: Path, name: str) -> None:
    own = CA.issue_cert(common_name=name)
    own.private_key_pem.write_to_path(str(folder / "new-key.pem"))
    own.cert_chain_pems[0].write_to_path(str(folder / "new-cert.pem"))


def replace(folder: Path, *names: str) -> None:
    for name in names:
        (folder / f"new-{name}").replace(folder / name)


def client_tls(folder: Path) -> dict[str, str]:
    return {key: str(folder / f"{key.removesuffix('_file')}.pem") for key in ("ca_file", "cert_file", "key_file")}


async def test_a_client_certificate_is_read_again_when_it_changes_and_no_connection_keeps_the_old_one(
    files: Path,
) -> None:
    server = Authenticated(CA)
    write_client_certificate(files, "first")
    replace(files, "cert.pem", "key.pem")
    async with server.serving() as url:
        connections = connections_to(files, url, concurrency=2, tls=client_tls(files))
        await asyncio.gather(*(get(connections, url) for _ in range(2)))
        write_client_certificate(files, "second")
        replace(files, "cert.pem", "key.pem")
        await asyncio.gather(*(get(connections, url) for _ in range(4)))
        await connections.close()
    assert server.clients == ["first"] * 2 + ["second"] * 2


async def test_a_request_that_lasts_while_its_certificate_changes_ends_and_its_connection_is_closed(
    files: Path,
) -> None:
    server = Authenticated(CA)
    write_client_certificate(files, "first")
    replace(files, "cert.pem", "key.pem")
    async with server.serving() as url:
        connections = connections_to(files, url, concurrency=2, tls=client_tls(files))
        server.release.clear()
        server.expected = (1, 2)
        first = asyncio.create_task(get(connections, url))
        await server.requested.wait()
        server.requested.clear()
        write_client_certificate(files, "second")
        replace(files, "cert.pem", "key.pem")
        second = asyncio.create_task(get(connections, url))
        await server.requested.wait()
        server.release.set()
        assert list(await asyncio.gather(first, second)) == [200, 200]
        await asyncio.gather(*(get(connections, url) for _ in range(2)))
        await connections.close()
    assert server.clients == ["first", "second", "second"]


async def test_a_half_replaced_client_certificate_changes_nothing_and_is_logged_once(files: Path) -> None:
    server = Authenticated(CA)
    write_client_certificate(files, "first")
    replace(files, "cert.pem", "key.pem")
    async with server.serving() as url:
        connections = connections_to(files, url, tls=client_tls(files))
        await get(connections, url)
        write_client_certificate(files, "second")
        replace(files, "cert.pem")
        with structlog.testing.capture_logs() as lines:
            for _ in range(3):
                assert await get(connections, url) == 200
        assert [line["event"] for line in lines] == ["certificates not reloaded; keeping the previous ones"]
        assert f"runtime.tls.cert_file: {files / 'cert.pem'}: cannot be used: KEY_VALUES_MISMATCH" in lines[0]["error"]
        replace(files, "key.pem")
        await get(connections, url)
        await connections.close()
    assert server.clients == ["first", "second"]


async def test_each_change_of_certificates_is_logged_with_its_outcome(files: Path) -> None:
    server = Authenticated(CA)
    for name in ("first", "second"):
        write_client_certificate(files, name)
        replace(files, "cert.pem", "key.pem")
    async with server.serving() as url:
        connections = connections_to(files, url, tls=client_tls(files))
        with structlog.testing.capture_logs() as lines:
            for name in ("third", "fourth"):
                write_client_certificate(files, name)
                replace(files, "cert.pem")
                await get(connections, url)
                replace(files, "key.pem")
                await get(connections, url)
        await connections.close()
    kept, loaded = "certificates not reloaded; keeping the previous ones", "certificates reloaded"
    assert [line["event"] for line in lines] == [kept, loaded, kept, loaded]


@pytest.mark.parametrize("named_by", ["config", "SSL_CERT_FILE"])
async def test_authorities_are_read_again_when_their_file_changes(
    files: Path, monkeypatch: pytest.MonkeyPatch, named_by: str
) -> None:
    other = trustme.CA()
    server = Authenticated(other)
    if named_by == "SSL_CERT_FILE":
        monkeypatch.setenv("SSL_CERT_FILE", str(files / "ca.pem"))
    write_client_certificate(files, "first")
    replace(files, "cert.pem", "key.pem")
    tls = client_tls(files)
    if named_by == "SSL_CERT_FILE":
        del tls["ca_file"]
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)  # the server's handshake fails too
    async with server.serving() as url:
        connections = connections_to(files, url, tls=tls)
        with pytest.raises(httpx.ConnectError):
            await get(connections, url)
        other.cert_pem.write_to_path(str(files / "new-ca.pem"))
        replace(files, "ca.pem")
        assert await get(connections, url) == 200
        CA.cert_pem.write_to_path(str(files / "new-ca.pem"))
        replace(files, "ca.pem")
        with pytest.raises(httpx.ConnectError):
            await get(connections, url)
        await connections.close()


# -- headers ------------------------------------------------------------------------------------------------


async def test_a_configured_header_replaces_the_exporter_s_whatever_its_case(files: Path) -> None:
    server = Server()
    async with server.serving() as url:
        connections = connections_to(files, url, headers={"accept": "application/vnd.x+json", "x-key": "configured"})
        await get(connections, url, {"X-Key": "of the request"})
        await connections.close()
    lines = server.heads[0].decode().lower().split("\r\n")
    assert [line for line in lines if line.startswith("accept:")] == ["accept: application/vnd.x+json"]
    assert [line for line in lines if line.startswith("x-key:")] == ["x-key: of the request"]


async def test_cookies_are_not_kept(files: Path) -> None:
    server = Server()
    server.cookie = b"Set-Cookie: session=1; Path=/\r\n"
    async with server.serving() as url:
        connections = connections_to(files, url)
        await get(connections, url)
        await get(connections, url)
        await connections.close()
    assert len(server.heads) == 2
    assert not [head for head in server.heads if b"cookie" in head.lower()]


# -- proxies ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("excepted", "through_proxy"), [("", True), ("runtime.test", False), ("runtime.test:80", False)]
)
async def test_the_environment_can_name_a_proxy_and_exceptions(
    files: Path, monkeypatch: pytest.MonkeyPatch, excepted: str, through_proxy: bool
) -> None:
    monkeypatch.setenv("NO_PROXY", excepted)
    monkeypatch.setenv("no_proxy", excepted)
    async with listening() as (port, seen):
        monkeypatch.setenv("http_proxy", f"127.0.0.1:{port}")
        if through_proxy:
            assert await status(files, "http://runtime.test:80/x") == 200
        else:
            with pytest.raises(httpx.ConnectError):
                await status(files, "http://runtime.test:80/x")
    assert bool(seen) == through_proxy


class SocksProxy:
    """Speaks SOCKS 5 (RFC 1928), and connects every host to one port of this machine."""

    def __init__(self, port: int, *, password: bytes = b"", answer: bytes | None = None) -> None:
        """With `password` clients must send it. `answer` is sent instead of what the protocol says."""
        self._port = port
        self._password = password
        self._answer = answer
        self.targets: list[tuple[str, int]] = []
        """What clients wanted to be connected to."""

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            await reader.readexactly(3)
            if self._answer is not None:
                writer.write(self._answer)
                return
            writer.write(b"\x05\x02" if self._password else b"\x05\x00")
            if self._password:
                (length,) = (await reader.readexactly(2))[1:]
                user = await reader.readexactly(length)
                password = await reader.readexactly((await reader.readexactly(1))[0])
                is_right = user + b":" + password == self._password
                writer.write(b"\x01\x00" if is_right else b"\x01\x01")
            kind, length = (await reader.readexactly(5))[3:]
            assert kind == 3, "the client has resolved the name"
            host, port = await reader.readexactly(length), await reader.readexactly(2)
            self.targets.append((host.decode(), int.from_bytes(port)))
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._port)
            writer.write(b"\x05\x00\x00\x01" + bytes(6))
            there_writer.write(await reader.readuntil(b"\r\n\r\n"))
            writer.write(await there_reader.read())
            there_writer.close()


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
@pytest.mark.parametrize("variable", ["", "ALL_PROXY", "http_proxy"])
async def test_a_proxy_may_speak_socks_and_resolves_the_name(
    files: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, variable: str
) -> None:
    async with listening() as (port, seen):
        proxy = SocksProxy(port)
        async with proxy.serving() as proxy_port:
            url = f"{scheme}://127.0.0.1:{proxy_port}"
            if variable:
                monkeypatch.setenv(variable, url)
            assert await status(files, "http://runtime.test:8090/x", **({} if variable else {"proxy": url})) == 200
    assert proxy.targets == [("runtime.test", 8090)]
    assert seen[0].startswith(b"GET /x HTTP/1.1\r\n")


async def test_a_socks_proxy_gets_the_password_of_its_url(files: Path) -> None:
    async with listening() as (port, _), SocksProxy(port, password=b"me:pass").serving() as proxy_port:
        assert await status(files, "http://runtime.test/", proxy=f"socks5://me:pass@127.0.0.1:{proxy_port}") == 200
        with pytest.raises(httpx.ProxyError):
            await status(files, "http://runtime.test/", proxy=f"socks5://me:wrong@127.0.0.1:{proxy_port}")


@pytest.mark.parametrize("answer", [b"", b"\x05", b"\x05\xff", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_what_is_no_socks_proxy_is_an_error_of_the_connection(files: Path, answer: bytes) -> None:
    async with SocksProxy(0, answer=answer).serving() as proxy_port:
        with pytest.raises(httpx.TransportError):
            await status(files, "http://runtime.test/", proxy=f"socks5://127.0.0.1:{proxy_port}")


IS_NAMED = [
    ("127.9.8.7", "127.0.0.0/8"),
    ("127.9.8.7", "127.9.8.7/32"),
    ("127.9.8.7", "127.1.2.3/8"),
    ("127.9.8.7", "127.0.0.0/255.0.0.0"),
    ("127.9.8.7", "10.0.0.0/8, 127.9.0.0/16"),
    ("127.9.8.7", "localhost 127.9.0.0/16"),
    ("127.9.8.7", "http://127.9.8.7"),
    ("127.9.8.7", "127.9.8.7:{port}"),
    ("127.9.8.7", "127.9.*"),
    ("127.9.8.7", '"127.9.8.7"'),
    ("127.9.8", "127.9.0.8"),
    ("0x7f000009", "127.0.0.0/8"),
    ("localhost", "127.0.0.0/8"),
    ("[::1]", "::1"),
    ("[::1]", "0:0:0:0:0:0:0:1"),
    ("[::1]", "[::1]"),
    ("[::1]", "[::1]:{port}"),
    ("[::1]", "http://[::1]:{port}"),
    ("[::1]", "::/64"),
    ("[::1]", "[::]/64"),
    ("[::1]", "[::/64]"),
    ("[::ffff:127.0.0.1]", "127.0.0.0/8"),
    ("runtime.test", "runtime.test"),
    ("runtime.test", "RUNTIME.Test"),
    ("Runtime.TEST", "runtime.test"),
    ("runtime.test", "runtime.test."),
    ("runtime.test", ".test"),
    ("runtime.test", "test"),
    ("runtime.test", ".runtime.test"),
    ("eu.runtime.test", ".runtime.test"),
    ("eu.runtime.test", "*.runtime.test"),
    ("runtime.test", "https://runtime.test"),
    ("runtime.test", "http://runtime.test:{port}/"),
    ("runtime.test", "runtime.test/api"),
    ("runtime.test", "runtime.test:{port}"),
    ("runtime.test", ".test:{port}"),
    ("runtime.test", "runtime.test:*"),
    ("runtime.test", "other.test;runtime.test"),
    ("runtime.test", "*"),
    ("runtime.test", "other.test,*"),
    ("b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.test", "xn--bcher-kva.test"),
    ("xn--bcher-kva.test", ".b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.test"),
]
IS_NOT_NAMED = [
    ("127.9.8.7", "10.0.0.0/8"),
    ("127.9.8.7", "127.9.8.7:1"),
    ("127.9.8.7", "::/0"),
    ("[::1]", "fd00::/8"),
    ("[::1]", "[::1]:1"),
    ("[::1]", "127.0.0.1"),
    ("runtime.test", "10.0.0.0/8"),
    ("runtime.test", "10/8"),
    ("runtime.test", "time.test"),
    ("runtime.test", "runtime.test:1"),
    ("runtime.test", "https://runtime.test:443"),
    ("runtime.test", "eu.runtime.test"),
    ("runtime.test", "*.runtime.test"),
    ("runtime.test", "runtime.test.example"),
    ("runtime.test", ""),
    ("runtime.test", " , "),
]


@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
@pytest.mark.parametrize(
    ("host", "excepted", "through_proxy"),
    [*((*case, False) for case in IS_NAMED), *((*case, True) for case in IS_NOT_NAMED)],
)
async def test_a_proxy_never_sees_the_token_for_a_host_that_no_proxy_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, host: str, excepted: str, through_proxy: bool
) -> None:
    address = {"[::1]": "::1", "127.9.8.7": "127.9.8.7", "127.9.8": "127.9.0.8", "0x7f000009": "127.0.0.9"}
    name_everything_this_machine(monkeypatch)
    async with (
        listening(host=address.get(host, "127.0.0.1")) as (port, direct),
        listening() as (proxy_port, proxied),
    ):
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy_port}")
        monkeypatch.setenv(variable, excepted.format(port=port))
        connections = connections_to(tmp_path, f"http://{host}:{port}")
        assert await get(connections, f"http://{host}:{port}/x", {"Authorization": "Bearer t"}) == 200
        await connections.close()
    reached, not_reached = (proxied, direct) if through_proxy else (direct, proxied)
    assert b"Authorization: Bearer t" in reached[0]
    assert not_reached == []


def name_everything_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a name server know every name of the domain `test`."""
    real = socket.getaddrinfo

    def here(host: Any, *arguments: Any, **named: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        return real("127.0.0.1" if name.lower().endswith("test") else host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", here)


async def test_both_spellings_of_the_variable_apply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go reads NO_PROXY first, curl no_proxy."""
    name_everything_this_machine(monkeypatch)
    monkeypatch.setenv("NO_PROXY", "a.test")
    monkeypatch.setenv("no_proxy", "b.test")
    async with listening() as (port, _), listening() as (proxy_port, proxied):
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy_port}")
        for host in ("a.test", "b.test"):
            assert await status(tmp_path, f"http://{host}:{port}") == 200
        assert proxied == []
        assert await status(tmp_path, f"http://c.test:{port}") == 200
        assert len(proxied) == 1


@pytest.mark.parametrize(("url", "port"), [("http://127.9.8.7", 80), ("https://127.9.8.7", 443)])
def test_an_entry_with_the_default_port_names_a_url_without_one(
    monkeypatch: pytest.MonkeyPatch, url: str, port: int
) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", f"127.9.8.7:{port}")
    assert proxy_from_environment(url) is None
    monkeypatch.setenv("NO_PROXY", f"127.9.8.7:{523 - port}")
    assert proxy_from_environment(url) == "http://proxy.test:3128"


@pytest.mark.parametrize("excepted", ["runtime.test", "runtime.test:8090"])
def test_what_the_system_excepts_outside_of_the_environment_needs_no_proxy(
    monkeypatch: pytest.MonkeyPatch, excepted: str
) -> None:
    """As macOS and Windows do, where an exception can have a port."""
    monkeypatch.setenv("ALL_PROXY", "http://proxy.test:3128")
    monkeypatch.setattr(urllib.request, "proxy_bypass", lambda host: host == excepted)
    assert proxy_from_environment("http://runtime.test:8090") is None
    assert proxy_from_environment("http://other.test:8090") == "http://proxy.test:3128"


@pytest.mark.parametrize("entry", ["10/8", "10.0.0.0/33", "127.9.8.7/x", "fd00::/129", "[::1"])
def test_a_network_that_cannot_be_read_is_an_error_if_it_may_name_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", entry)
    with pytest.raises(ConfigError, match=f"^NO_PROXY: '{re.escape(entry)}': expected an address or a network such as"):
        connections_to(tmp_path, "http://127.9.8.7")


@given(
    host=st.sampled_from(("runtime.test", "eu.runtime.test", "10.1.2.3", "::1", "localhost")),
    entries=st.lists(
        st.one_of(
            st.sampled_from((".test", "runtime.test:8090", "10.0.0.0/8", "10.1.2.3", "::1", "*", "localhost", "test")),
            st.text("runtime.test*:/[]1028", max_size=14),
        ),
        max_size=3,
    ),
)
def test_no_request_goes_through_a_proxy_that_requests_or_urllib_would_avoid(host: str, entries: list[str]) -> None:
    url, no_proxy = f"http://{f'[{host}]' if ':' in host else host}:8090", ",".join(entries)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("http_proxy", "http://proxy.test:3128")
        monkeypatch.setenv("no_proxy", no_proxy)
        try:
            proxy = proxy_from_environment(url)
        except ConfigError:
            return
        assert proxy is None or not requests.utils.should_bypass_proxies(url, no_proxy=no_proxy)
        assert proxy is None or not urllib.request.proxy_bypass(f"{host}:8090")


@pytest.mark.parametrize("source", ["config", "environment"])
async def test_no_proxy_is_used_if_the_config_says_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    async with listening() as (port, seen), listening() as (proxy_port, proxied):
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{proxy_port}")
        environ = {"SPINNER_EXPORTER_RUNTIME_BASE_URL": f"http://127.0.0.1:{port}"}
        if source == "environment":
            environ["SPINNER_EXPORTER_RUNTIME_PROXY"] = "none"
        (tmp_path / "exporter.yml").write_text("runtime: {proxy: none}" if source == "config" else "retention: 1h")
        config = only_runtime(load(tmp_path / "exporter.yml", environ=environ))
        connections = Connections(config.runtime, concurrency=1)
        assert await get(connections, f"http://127.0.0.1:{port}/") == 200
        await connections.close()
    assert (len(seen), len(proxied)) == (1, 0)


@pytest.mark.parametrize(
    ("runtime", "message"),
    [
        ({"tls": {"ca_file": "/nowhere.pem"}}, r"runtime\.tls\.ca_file: /nowhere\.pem: cannot be used: No such file"),
        (
            {"tls": {"cert_file": "/nowhere.pem"}},
            r"runtime\.tls\.cert_file: /nowhere\.pem: cannot be used: No such file",
        ),
        ({"tls": {"key_file": "/k.pem"}}, r"runtime\.tls\.key_file: requires cert_file"),
        ({"proxy": "proxy:3128"}, r"runtime\.proxy: expected a URL such as"),
        ({"proxy": "socks4://proxy:1080"}, r"runtime\.proxy: expected a URL such as"),
        ({"proxy": "http://proxy:abc"}, r"runtime\.proxy: expected a URL such as"),
        ({"auth": {"type": "digest"}}, r"runtime\.auth\.type: expected"),
        ({"auth": {"type": "basic"}}, r"runtime\.auth\.username: required with type: basic"),
        ({"auth": {"type": "header", "header": "X Key"}}, r"runtime\.auth\.header: expected the name of a header"),
        ({"headers": {"Authorization": "Bearer x"}}, r"runtime\.headers: a secret does not belong in this file"),
    ],
)
def test_an_invalid_connection_config_is_an_error_that_names_the_key(
    runtime: dict[str, object], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "exporter.yml"
    file.write_text(yaml.safe_dump({"runtime": {"base_url": "http://runtime.test", **runtime}}))
    with pytest.raises(ConfigError, match=message):
        Connections(only_runtime(load(file, environ={})).runtime, concurrency=1)


@pytest.mark.parametrize("proxy", ["http://proxy:abc", "http://pro\x01xy:3128", "socks4://proxy:1080"])
def test_a_proxy_of_the_environment_that_is_no_url_is_an_error_that_says_where_it_is_from(
    proxy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    file = tmp_path / "exporter.yml"
    file.write_text("runtime: {base_url: http://runtime.test}")
    with pytest.raises(ConfigError, match="the proxy from the environment: expected a URL such as"):
        Connections(only_runtime(load(file, environ={})).runtime, concurrency=1)


@pytest.mark.parametrize(
    ("credentials", "headers"),
    [
        (Credentials(Token(value="t")), {"Authorization": "Bearer t"}),
        (Credentials(Token(value="t"), kind="header", header="X-Api-Key"), {"X-Api-Key": "t"}),
        (Credentials(Token(value="pass"), kind="basic", username="user"), {"Authorization": "Basic dXNlcjpwYXNz"}),
        (Credentials(Token(value="t"), value="Token {token}"), {"Authorization": "Token t"}),
        (
            Credentials(Token(value="{token}"), kind="header", header="Cookie", value='session="{token}"'),
            {"Cookie": 'session="{token}"'},
        ),
        (Credentials(Token()), {}),
    ],
)
def test_the_token_is_sent_as_the_auth_type_says(credentials: Credentials, headers: dict[str, str]) -> None:
    assert isinstance(credentials.source, Token)
    assert credentials.headers(credentials.source.value()) == headers
    assert "***" in repr(credentials)
