"""A login goes the way of all other requests: through the proxy, and with the authority that the config names."""

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import trustme
import uvicorn
import yaml
from starlette.applications import Starlette

from exporter.config import load
from exporter.service import Exporter
from tests.connecting.server import serving
from tests.connecting.test_login import PASSWORD, Guarded, config_of
from tests.stack.programs import free_port, until

CA = trustme.CA()
HOST = "jobs.test"
"""No resolver knows it, so a request that does not go through the proxy fails."""


class Proxy:
    """Forwards every request to one port, whatever host it names, and keeps what it could read."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.targets: list[str] = []
        """The first line of each request."""
        self.read = b""
        """All that clients sent."""
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._tasks.add(asyncio.create_task(self._connection(reader, writer)))

        server = await asyncio.start_server(begin, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.targets.append(head.split(b"\r\n")[0].decode())
        self.read += head
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            if head.startswith(b"CONNECT "):
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                there_writer.write(_without_host(head))
            await asyncio.gather(
                self._forward(reader, there_writer, notes=True), self._forward(there_reader, writer, notes=False)
            )
        finally:
            for each in (writer, there_writer):
                each.close()
                with contextlib.suppress(OSError):
                    await each.wait_closed()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, notes: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                self.read += data if notes else b""
                writer.write(_without_host(data))
        writer.close()


def _without_host(data: bytes) -> bytes:
    """Return requests as a server expects them; of what is encrypted nothing changes."""
    return data.replace(f" http://{HOST}/".encode(), b" /")


@contextlib.contextmanager
def serving_tls(app: Starlette, folder: Path) -> Iterator[int]:
    """Serve an application as `HOST` with a certificate of `CA`; yields its port."""
    certificate = CA.issue_cert(HOST)
    certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, ssl_certfile=str(folder / "server.pem")))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        until(lambda: server.started, "the server listens")
        yield port
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def guarded(tmp_path: Path) -> Guarded:
    (tmp_path / "login").write_text(json.dumps({"user": "exporter", "password": PASSWORD}))
    CA.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return Guarded()


def exporter_of(folder: Path, url: str, **runtime: Any) -> Exporter:
    file = config_of(folder, url)
    tree = yaml.safe_load(file.read_text())
    tree["runtime"].update(runtime)
    file.write_text(yaml.safe_dump(tree))
    return Exporter(load(file, environ={}).runtimes)


async def test_a_login_over_tls_goes_through_the_proxy_which_sees_no_secret(guarded: Guarded, tmp_path: Path) -> None:
    with serving_tls(guarded.app(), tmp_path) as port:
        proxy = Proxy(port)
        async with proxy.serving() as proxy_url:
            made = exporter_of(tmp_path, f"https://{HOST}", proxy=proxy_url, tls={"ca_file": str(tmp_path / "ca.pem")})
            assert await made.refresh()
            await made.close()
    assert len(guarded.logins) == 1
    assert guarded.seen == ["Bearer jwt-1"] * 3, "the list of projects and the runs of two"
    assert set(proxy.targets) == {f"CONNECT {HOST}:443 HTTP/1.1"}
    assert PASSWORD.encode() not in proxy.read
    assert b"jwt-1" not in proxy.read


async def test_a_login_without_tls_goes_through_the_proxy(guarded: Guarded, tmp_path: Path) -> None:
    with serving(guarded.app()) as url:
        proxy = Proxy(int(url.rpartition(":")[2]))
        async with proxy.serving() as proxy_url:
            made = exporter_of(tmp_path, f"http://{HOST}", proxy=proxy_url)
            assert await made.refresh()
            await made.close()
    assert len(guarded.logins) == 1
    assert proxy.targets[0] == f"POST http://{HOST}/auth/token HTTP/1.1"


async def test_a_login_goes_through_the_proxy_of_the_environment(
    guarded: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_tls(guarded.app(), tmp_path) as port:
        proxy = Proxy(port)
        async with proxy.serving() as proxy_url:
            monkeypatch.setenv("HTTPS_PROXY", proxy_url)
            made = exporter_of(tmp_path, f"https://{HOST}", tls={"ca_file": str(tmp_path / "ca.pem")})
            assert await made.refresh()
            await made.close()
    assert len(guarded.logins) == 1


async def test_no_password_is_sent_to_a_server_whose_authority_is_not_trusted(guarded: Guarded, tmp_path: Path) -> None:
    with serving_tls(guarded.app(), tmp_path) as port:
        proxy = Proxy(port)
        async with proxy.serving() as proxy_url:
            with structlog.testing.capture_logs() as lines:
                made = exporter_of(tmp_path, f"https://{HOST}", proxy=proxy_url)
                assert not await made.refresh()
                page = str(await made.page())
                await made.close()
    assert proxy.targets, "it was tried"
    assert not guarded.logins
    assert "unable to get local issuer certificate" in str(lines)
    assert PASSWORD not in page + str(lines)


async def test_a_login_needs_the_client_certificate_that_the_server_requests(guarded: Guarded, tmp_path: Path) -> None:
    own = CA.issue_cert("exporter@example.com")
    own.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    own.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    CA.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    port = free_port()
    config = uvicorn.Config(
        guarded.app(),
        port=port,
        log_config=None,
        ssl_certfile=str(tmp_path / "server.pem"),
        ssl_ca_certs=str(tmp_path / "ca.pem"),
        ssl_cert_reqs=ssl.CERT_REQUIRED,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    tls = {"ca_file": str(tmp_path / "ca.pem")}
    own_files = {"cert_file": str(tmp_path / "cert.pem"), "key_file": str(tmp_path / "key.pem")}
    try:
        until(lambda: server.started, "the server listens")
        for files, works in ((tls | own_files, True), (tls, False)):
            made = exporter_of(tmp_path, f"https://localhost:{port}", tls=files)
            assert await made.refresh() is works
            await made.close()
    finally:
        server.should_exit = True
        thread.join(10)
    assert len(guarded.logins) == 1
