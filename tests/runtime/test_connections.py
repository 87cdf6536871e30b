"""Who is let in where: TLS with a CA of one's own, client certificates, a proxy, and how the token is shown."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trustme
import yaml

from exporter.config import load
from exporter.errors import ConfigError
from exporter.runtime.auth import Credentials, Token
from exporter.runtime.connections import Connections

CA = trustme.CA()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    CA.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    own = CA.issue_cert("exporter@example.com")
    own.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    own.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    return tmp_path


@contextlib.asynccontextmanager
async def https(*, name: str = "localhost", ask_for_certificates: bool = False) -> AsyncIterator[str]:
    """A server that answers everything with an empty object."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA.issue_cert(name).configure_cert(context)
    if ask_for_certificates:
        CA.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    async with listening(context) as (port, _):
        yield f"https://localhost:{port}"


@contextlib.asynccontextmanager
async def listening(context: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[bytes]]]:
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], seen


async def status(folder: Path, url: str, **runtime: object) -> int:
    """Ask with a config's settings; returns the HTTP status."""
    file = folder / "exporter.yml"
    file.write_text(yaml.safe_dump({"runtime": {"base_url": url, **runtime}}))
    connections = Connections(load(file, environ={}).runtimes[""].runtime, most=1)
    try:
        async with connections.one() as connection:
            request = connections.request("GET", url, query={}, body=None, headers={})
            return (await connection.handle_async_request(request)).status_code
    finally:
        await connections.close()


async def test_an_authority_of_one_s_own_is_trusted_when_it_is_named(files: Path) -> None:
    async with https() as url:
        assert await status(files, url, tls={"ca_file": str(files / "ca.pem")}) == 200
        with pytest.raises(httpx.ConnectError):
            await status(files, url)


async def test_a_certificate_for_another_host_is_refused(files: Path) -> None:
    async with https(name="other.example.com") as url:
        with pytest.raises(httpx.ConnectError):
            await status(files, url, tls={"ca_file": str(files / "ca.pem")})


async def test_a_client_certificate_is_shown_where_it_is_asked_for(files: Path) -> None:
    tls = {"ca_file": str(files / "ca.pem")}
    own = {"cert_file": str(files / "cert.pem"), "key_file": str(files / "key.pem")}
    async with https(ask_for_certificates=True) as url:
        assert await status(files, url, tls=tls | own) == 200
        with pytest.raises(httpx.TransportError):
            await status(files, url, tls=tls)


async def test_requests_go_through_the_proxy_with_their_headers_and_parameters(files: Path) -> None:
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


@pytest.mark.parametrize("step", range(12))
async def test_a_request_that_is_cancelled_at_any_step_costs_no_connection(files: Path, step: int) -> None:
    file = files / "exporter.yml"
    async with listening() as (port, _):
        url = f"http://127.0.0.1:{port}"
        file.write_text(yaml.safe_dump({"runtime": {"base_url": url, "timeout": "2s"}}))
        connections = Connections(load(file, environ={}).runtimes[""].runtime, most=1)

        async def ask() -> int:
            async with connections.one() as connection:
                request = connections.request("GET", url, query={}, body=None, headers={})
                response = await connection.handle_async_request(request)
                await response.aread()
                await response.aclose()
                return response.status_code

        task = asyncio.create_task(ask())
        for _ in range(step):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert await ask() == 200
        await connections.close()


@pytest.mark.parametrize(
    ("excepted", "through_proxy"), [("", True), ("runtime.test", False), ("runtime.test:80", False)]
)
async def test_the_usual_variables_name_a_proxy_and_what_does_not_go_through_it(
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


@pytest.mark.parametrize(
    ("runtime", "says"),
    [
        ({"tls": {"ca_file": "/nowhere.pem"}}, r"runtime\.tls\.ca_file: /nowhere\.pem: cannot be used: No such file"),
        (
            {"tls": {"cert_file": "/nowhere.pem"}},
            r"runtime\.tls\.cert_file: /nowhere\.pem: cannot be used: No such file",
        ),
        ({"tls": {"key_file": "/k.pem"}}, r"runtime\.tls\.key_file: expected beside cert_file alone"),
        ({"proxy": "proxy:3128"}, r"runtime\.proxy: expected a URL such as"),
        ({"proxy": "socks5://proxy:1080"}, r"runtime\.proxy: socks5 needs the package socksio"),
        ({"proxy": "http://proxy:abc"}, r"runtime\.proxy: expected a URL such as"),
        ({"auth": {"type": "digest"}}, r"runtime\.auth\.type: expected"),
        ({"auth": {"type": "basic"}}, r"runtime\.auth\.username: expected with type: basic"),
        ({"auth": {"type": "header", "header": "X Key"}}, r"runtime\.auth\.header: expected a header's name"),
        ({"headers": {"Authorization": "Bearer x"}}, r"runtime\.headers: a secret does not belong in this file"),
    ],
)
def test_what_cannot_work_is_refused_by_name(runtime: dict[str, object], says: str, tmp_path: Path) -> None:
    file = tmp_path / "exporter.yml"
    file.write_text(yaml.safe_dump({"runtime": {"base_url": "http://runtime.test", **runtime}}))
    with pytest.raises(ConfigError, match=says):
        Connections(load(file, environ={}).runtimes[""].runtime, most=1)


@pytest.mark.parametrize(
    ("credentials", "headers"),
    [
        (Credentials(Token(value="t")), {"Authorization": "Bearer t"}),
        (Credentials(Token(value="t"), kind="header", header="X-Api-Key"), {"X-Api-Key": "t"}),
        (Credentials(Token(value="pass"), kind="basic", username="user"), {"Authorization": "Basic dXNlcjpwYXNz"}),
        (Credentials(Token()), {}),
    ],
)
def test_the_token_is_shown_as_the_api_wants_it(credentials: Credentials, headers: dict[str, str]) -> None:
    assert credentials.headers() == headers
    assert "***" in repr(credentials)
