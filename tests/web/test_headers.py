"""Headers that a client invents: none makes it another client, an error of the exporter, or a line in the log."""

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import structlog

from exporter.web import server
from exporter.web.app import TIMEOUT_HEADER, create_app
from exporter.web.auth import WebConfigFile
from exporter.web.passwords import MAX_CONCURRENT, MAX_WAITING
from exporter.web.server import listen, running_server
from tests.builders import Clock
from tests.scripted import ScriptedRuntime, exporter_of
from tests.web.gate import Gate
from tests.web.test_access import HASH, becomes, web_file

LONG = b"9" * (server.MAX_HEAD - 200)

VALUES = {
    "Host": [b"", b"[", b"[::::]", b"[::1", b"[1.2.3.4]:1", b"x:99999", b"x:y", b"\xff", b"a@b", b"x\x85", LONG],
    "Authorization": [b"Basic \xff", b"Basic " + b"A" * 12_000, b"Basic \xc2\xb2", b"\xff\xfe", b"Basic =", LONG],
    "Accept": [b"\xff/\xfe;q=\xb2", b'"', b";;;=", b"a/b;q=nan", b"a/b;q=-inf", b"*/*;q=1e999", b"," * 12_000, LONG],
    "Accept-Encoding": [b"\xff", b"gzip;q=\xb9", b"gzip;q=" + b"9" * 5_000, b'gzip;q="', b"*;q=nan", LONG],
    TIMEOUT_HEADER: [b"nan", b"inf", b"-1", b"1e308", b"5e-324", b"1_0", b"\xb2", b"0x1p3", LONG],
    "X-Forwarded-For": [b"x", b"", b",", b"[", b"[::1]:y", b"1.2.3.4:99999999999", b"fe80::1%\xff", LONG],
    "X-Forwarded-Proto": [b"https", b"wss", b"\xff", LONG],
    "Forwarded": [b"for=x;proto=https", b"\xff"],
    "Origin": [b"http://[", b"null", b"\xff", b"http://[::::]"],
    "Sec-Fetch-Site": [b"same-origin", b"\xff"],
    "Connection": [b"close, \xff", b"upgrade"],
    "Expect": [b"100-continue", b"\xff"],
    "Content-Length": [b"0", b"99999999999999999999", b"-1", b"\xb2"],
    "Transfer-Encoding": [b"chunked", b"gzip", b"\xff"],
    "Cookie": [LONG],
}


@contextlib.asynccontextmanager
async def serving(web_config_file: WebConfigFile | None, listener: socket.socket) -> AsyncIterator[int]:
    runtime = ScriptedRuntime(Clock())
    runtime.put()
    exporter = exporter_of(runtime)
    app = create_app(exporter, reload=lambda: asyncio.sleep(0))
    async with running_server(app, listener, web_config_file=web_config_file):
        yield listener.getsockname()[1]
    await exporter.close()


async def answer(port: int, head: bytes) -> bytes:
    """Return the first response to a request; without one it was closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)
    async with asyncio.timeout(20):
        line = await reader.readline()
    writer.close()
    return line


@pytest.mark.parametrize("has_users", [False, True], ids=["open", "users"])
@pytest.mark.parametrize("name", VALUES)
async def test_no_header_causes_an_error_or_a_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, has_users: bool
) -> None:
    users = {"prometheus": HASH} if has_users else {}
    caplog.set_level(logging.ERROR)
    with structlog.testing.capture_logs() as lines:
        async with serving(WebConfigFile(web_file(tmp_path, basic_auth_users=users)), listen("127.0.0.1:0")) as port:
            for value in VALUES[name]:
                for request in (b"GET /metrics", b"GET /sd", b"GET /probe?project=p1", b"GET /", b"POST /-/reload"):
                    head = request + b" HTTP/1.1\r\n" + (b"" if name == "Host" else b"Host: x\r\n")
                    line = await answer(port, head + name.encode() + b": " + value + b"\r\n\r\n")
                    assert b" 500 " not in line, (request, value[:40])
                    assert line.startswith(b"HTTP/1.1 "), (request, value[:40])
    assert [line for line in lines if line["log_level"] != "info"] == []
    assert warnings(caplog) == []


async def test_an_address_that_a_header_names_is_not_another_client(tmp_path: Path, gate: Gate) -> None:
    """Guesses under invented addresses took the places that addresses share."""
    file = WebConfigFile(web_file(tmp_path, basic_auth_users={"prometheus": HASH}))
    held = MAX_CONCURRENT + MAX_WAITING
    async with serving(file, listen("127.0.0.1:0")) as port, httpx.AsyncClient() as client:

        def guess(number: int) -> asyncio.Task[httpx.Response]:
            headers = {"X-Forwarded-For": f"192.0.2.{number}"}
            sent = client.get(f"http://127.0.0.1:{port}/", auth=("prometheus", str(number)), headers=headers)
            return asyncio.create_task(sent)

        guesses = [guess(number) for number in range(held)]
        await becomes(lambda: len(gate.started) + gate.waiting == held)
        assert not gate.has_waiting("192.0.2.9")
        assert (await guess(held)).status_code == 429
        gate.open()
        assert {(await each).status_code for each in guesses} == {401}


async def test_a_client_that_has_left_before_its_request_is_read_is_still_a_client(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, gate: Gate
) -> None:
    """The socket of a connection that was reset has no address any more."""
    file = WebConfigFile(web_file(tmp_path, basic_auth_users={"prometheus": HASH}))
    listener = listen("127.0.0.1:0")
    listener.listen()
    credentials = httpx.BasicAuth("prometheus", "wrong")._auth_header.encode()
    with socket.create_connection(listener.getsockname()) as leaving:
        leaving.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: " + credentials + b"\r\n\r\n")
        leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets it
    async with serving(file, listener) as port, httpx.AsyncClient() as client:
        staying = asyncio.create_task(client.get(f"http://127.0.0.1:{port}/", auth=("prometheus", "other")))
        await becomes(lambda: len(gate.started) + gate.waiting >= 1)
        gate.open()
        assert (await staying).status_code == 401
    assert warnings(caplog) == []


async def test_the_scheme_of_the_targets_is_that_of_the_connection() -> None:
    async with serving(None, listen("127.0.0.1:0")) as port, httpx.AsyncClient() as client:
        response = await client.get(f"http://127.0.0.1:{port}/sd", headers={"X-Forwarded-Proto": "https"})
    (group,) = response.json()
    assert group["labels"]["__scheme__"] == "http"


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What a server says when it starts and stops is logged or not, as earlier tests have set the level."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
