"""Strangers who hold connections and responses: what they cost has a bound, and a scraper still gets its answer.

The exporter is a process of its own with a limit of open files; the attackers are sockets of another address.
"""

import asyncio
import contextlib
import dataclasses
import errno
import gc
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
import trustme
import yaml
from starlette.responses import PlainTextResponse
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from exporter.web import connections
from exporter.web.auth import WebConfigFile
from exporter.web.connections import MAX_UNREAD, Connection, Connections, client_of
from exporter.web.server import listen, running_server
from tests.builders import Clock
from tests.faults.attacker import Victim, clients, closed, victim
from tests.faults.server import FaultyRuntime
from tests.scripted import ScriptedRuntime
from tests.stack.programs import until

MEGABYTE = 1_000_000

REQUEST = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclasses.dataclass
class Stage:
    """An exporter under attack, and the runtime that it reads."""

    exporter: Victim
    runtime: ScriptedRuntime


@contextlib.asynccontextmanager
async def stage(
    folder: Path, *flags: str, runs: int = 5, files: int = 1024, scheme: str = "http"
) -> AsyncIterator[Stage]:
    runtime = ScriptedRuntime(Clock())
    for number in range(runs):
        runtime.put(f"run-{number}")
    async with FaultyRuntime(runtime).serving() as url:
        manager = victim(folder, url, *flags, files=files, scheme=scheme)
        exporter = await asyncio.to_thread(manager.__enter__)
        try:
            yield Stage(exporter, runtime)
        finally:
            await asyncio.to_thread(manager.__exit__, None, None, None)


def web_file(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Write a web config file with TLS; return it and a context that trusts the certificate."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    file = folder / "web.yml"
    file.write_text(yaml.safe_dump({"tls_server_config": {"cert_file": "cert.pem", "key_file": "key.pem"}}))
    return file, ssl.create_default_context(cafile=str(folder / "ca.pem"))


@pytest.mark.parametrize("has_tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("address", ["127.0.0.2", "127.0.0.1"], ids=["stranger", "scraper-s-address"])
async def test_1100_silent_connections_neither_stop_a_scrape_nor_fill_the_log(
    tmp_path: Path, has_tls: bool, address: str
) -> None:
    flags, verify, scheme = [], ssl.create_default_context(), "http"
    if has_tls:
        file, verify = web_file(tmp_path)
        flags, scheme = [f"--web.config.file={file}"], "https"
    async with stage(tmp_path, *flags, scheme=scheme) as stage_:
        exporter = stage_.exporter
        await asyncio.to_thread(exporter.scrape, verify)
        empty = exporter.memory

        def attack() -> None:
            with clients(exporter.port, 1100, address=address):
                until(lambda: exporter.logged("disconnected"), "there are more connections than the limit")
                exporter.scrape(verify)
                assert exporter.files < 512, "half of the files is for reading the API"
                assert exporter.memory - empty < 100 * MEGABYTE
                exporter.scrape(verify)
            exporter.scrape(verify)

        await asyncio.to_thread(attack)
        (line,) = exporter.logged("disconnected")
        assert 'reason="more connections than the limit"' in line
        assert f"top_client={address}" in line
        assert len(exporter.lines) < 10, exporter.lines


async def test_with_few_files_half_of_them_is_for_the_api(tmp_path: Path) -> None:
    async with stage(tmp_path, files=64) as stage_:
        exporter = stage_.exporter

        def attack() -> None:
            with clients(exporter.port, 100):
                until(lambda: exporter.logged("disconnected"), "there are more connections than the limit")
                assert "spinner_api_up" in exporter.scrape()
                assert exporter.files < 64 - 8

        await asyncio.to_thread(attack)


async def test_clients_that_never_read_hold_a_bounded_number_of_bytes(tmp_path: Path) -> None:
    async with stage(tmp_path, runs=5000) as stage_:
        exporter = stage_.exporter
        size = len(await asyncio.to_thread(exporter.scrape))
        assert size * 100 > 3 * MAX_UNREAD
        empty = exporter.memory

        def attack() -> None:
            with clients(exporter.port, 100, REQUEST) as opened:
                until(lambda: exporter.logged("disconnected"), "more is unread than may be", timeout=20)
                exporter.scrape()
                assert exporter.memory - empty < MAX_UNREAD + 60 * MEGABYTE
                assert closed(opened) < 100, "the last ones still have their time"
            exporter.scrape()

        await asyncio.to_thread(attack)
        (line,) = exporter.logged("disconnected")
        assert 'reason="more unread responses than the limit"' in line


INVALID = b"GET /\0 HTTP/1.1\r\n\r\n"
UPGRADE = b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n"


@pytest.mark.parametrize("sent", [INVALID, UPGRADE, REQUEST], ids=["invalid", "upgrade", "leaves"])
async def test_no_request_writes_a_line_into_the_log(tmp_path: Path, sent: bytes) -> None:
    async with stage(tmp_path, runs=1000) as stage_:
        exporter = stage_.exporter

        def attack() -> None:
            exporter.scrape()
            for _ in range(4):
                with clients(exporter.port, 50, sent):
                    pass
            exporter.scrape()

        await asyncio.to_thread(attack)
        assert len(exporter.lines) < 5, exporter.lines


# -- in the process of the test -------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def answering(web_config_file: WebConfigFile | None = None) -> AsyncIterator[int]:
    """Serve one sentence; yields the port."""
    listener = listen("127.0.0.1:0")
    async with running_server(PlainTextResponse("good"), listener, web_config_file=web_config_file):
        yield listener.getsockname()[1]


async def test_a_client_that_is_silent_in_the_handshake_is_disconnected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT", 0.3)
    file, verify = web_file(tmp_path)
    async with answering(WebConfigFile(file)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(20), httpx.AsyncClient(verify=verify) as client:
            assert await reader.read() == b""
            assert (await client.get(f"https://127.0.0.1:{port}")).text == "good"
        writer.close()


async def test_no_request_stays_in_memory_after_its_response() -> None:
    def kept() -> int:
        gc.collect()
        return sum(isinstance(each, RequestResponseCycle) for each in gc.get_objects())

    gc.collect()
    async with answering() as port:
        async with httpx.AsyncClient() as client:
            for _ in range(50):
                await client.get(f"http://127.0.0.1:{port}")
            assert kept() <= 1, "one connection keeps one request"
        for _ in range(50):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"good")
            writer.transport.abort()
        for _ in range(1000):  # iterations of the event loop
            await asyncio.sleep(0)
        assert kept() == 0
        assert not any(isinstance(each, H11Protocol) for each in gc.get_objects())


async def test_a_lack_of_files_is_one_line_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "RETRY", 0.0)
    loop = asyncio.get_running_loop()
    real, failures = loop.sock_accept, 100

    async def without_files(listener: socket.socket) -> Any:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return await real(listener)

    monkeypatch.setattr(loop, "sock_accept", without_files)
    with structlog.testing.capture_logs() as lines:
        async with answering() as port, httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{port}")).text == "good"
    (line,) = lines
    assert line["reason"] == "a connection cannot be accepted: Too many open files"


# -- who has to make room -------------------------------------------------------------------------------------


class Ended:
    """Connections by name, and which of them were ended."""

    def __init__(self, limit: int, max_unread: int = 100) -> None:
        self.clock = Clock()
        self.connections = Connections(limit, max_unread=max_unread, clock=self.clock)
        self.names: list[str] = []

    def admit(self, client: str, name: str = "") -> Connection | None:
        return self.connections.admit(client, lambda: self.names.append(name or client))


def test_the_client_with_most_connections_makes_room_with_the_one_that_waits_for_the_longest_time() -> None:
    ended = Ended(4)
    first = ended.admit("stranger", "1")
    assert first is not None
    first.is_waiting = False
    for name in ("2", "3"):
        ended.admit("stranger", name)
    assert ended.admit("scraper")
    for _ in range(2):
        assert ended.admit("other scraper")
    assert ended.names == ["2", "3"]


def test_a_request_in_progress_ends_only_for_a_client_with_fewer_connections() -> None:
    ended = Ended(3)
    for name in "123":
        connection = ended.admit("stranger", name)
        assert connection is not None
        connection.is_waiting = False
    assert ended.admit("stranger") is None
    assert ended.names == []
    assert ended.admit("scraper")
    assert ended.names == ["3"]


def test_of_equal_clients_the_one_that_waits_for_the_longest_time_makes_room() -> None:
    ended = Ended(3)
    kept = [ended.admit(name) for name in "abc"]
    assert kept[0] is not None
    ended.connections.waits(kept[0])  # it has just got a response
    ended.admit("d")
    assert ended.names == ["b"]


def test_closed_connections_count_no_more() -> None:
    ended = Ended(2)
    for _ in range(10):
        connection = ended.admit("scraper")
        assert connection is not None
        ended.connections.closed(connection)
        ended.connections.closed(connection)
    assert ended.names == []


def test_unread_responses_are_taken_from_the_client_that_holds_most() -> None:
    ended = Ended(10, max_unread=100)
    held = {name: ended.admit(name[0], name) for name in ("s1", "s2", "s3", "p1")}
    for connection in held.values():
        assert connection is not None
        ended.connections.unread(connection, 30)
    assert ended.names == ["s1"]


def test_a_response_that_was_read_counts_no_more() -> None:
    ended = Ended(20, max_unread=100)
    for _ in range(10):
        connection = ended.admit("p")
        assert connection is not None
        ended.connections.unread(connection, 90)
        ended.connections.unread(connection, 90)
        ended.connections.read(connection)
    huge = ended.admit("p")
    assert huge is not None
    ended.connections.unread(huge, 1000)
    assert ended.names == [], "a single response may be larger"


def test_the_log_says_when_it_begins_and_when_it_is_over() -> None:
    ended = Ended(1)
    with structlog.testing.capture_logs() as lines:
        for _ in range(50):
            ended.admit("stranger")
            ended.clock.advance(59)
        ended.clock.advance(1)
        ended.admit("scraper")
    assert [(line["event"], line.get("times")) for line in lines] == [
        ("clients are disconnected", None),
        ("clients are no longer disconnected", 49),
        ("clients are disconnected", None),
    ]


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
    ],
)
def test_a_client_is_an_address_or_a_network_that_one_has_for_oneself(host: str, client: str) -> None:
    assert client_of((host, 1)) == client
