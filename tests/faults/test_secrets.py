"""The token is sent to the configured origin only, after its certificate is verified, and is never shown."""

import asyncio
import contextlib
import datetime
import io
import os
import re
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
import trustme

from exporter import logs
from exporter.config import Config, Duration, RuntimeConfig, SyncConfig, TlsConfig, load
from exporter.service import Exporter
from exporter.service.monitored_runtime import Dependencies
from exporter.web.app import create_app
from tests.builders import RUNTIME, Clock, resources
from tests.command_line import run
from tests.faults.server import Exchange, FaultyRuntime
from tests.scripted import ScriptedRuntime, no_sleep
from tests.stack.programs import exporter_with, free_port, spinner_exporter

TOKEN = "cxg_0123456789_secret"
CA = trustme.CA()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    return file


def exporter(url: str, token_file: Path, clock: Clock, ca_file: Path | None = None) -> Exporter:
    config = Config(
        runtime=RuntimeConfig(
            base_url=url,
            resources=resources(),
            token_file=str(token_file),
            timeout=Duration(2),
            tls=TlsConfig(ca_file=str(ca_file) if ca_file else None),
        ),
        sync=SyncConfig(min_interval=Duration(0)),
    )
    return Exporter({RUNTIME: config}, Dependencies(clock, clock, sleep=no_sleep))


def served(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


YESTERDAY = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        (trustme.CA().issue_cert("localhost"), "certificate: unable to get local issuer certificate"),
        (CA.issue_cert("localhost", not_after=YESTERDAY), "certificate: certificate has expired"),
        (CA.issue_cert("other.example.com"), "certificate: Hostname mismatch"),
    ],
    ids=["unknown authority", "expired", "wrong-host"],
)
async def test_a_server_without_a_valid_certificate_never_receives_the_token(
    tmp_path: Path, token_file: Path, certificate: trustme.LeafCert, reason: str
) -> None:
    CA.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    clock = Clock()
    faulty = FaultyRuntime(ScriptedRuntime(clock))
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)  # the server's handshake fails too
    async with faulty.serving(served(certificate)) as url:
        made = exporter(url, token_file, clock, tmp_path / "ca.pem")
        with structlog.testing.capture_logs() as lines:
            page = str(await made.page())
        await made.close()
    assert faulty.requests == 0
    assert '\nspinner_api_up{runtime="runtime.test"} 0\n' in page
    assert reason in str(lines)


async def test_a_valid_certificate_is_accepted(tmp_path: Path, token_file: Path) -> None:
    CA.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    clock = Clock()
    faulty = FaultyRuntime(ScriptedRuntime(clock))
    async with faulty.serving(served(CA.issue_cert("localhost"))) as url:
        made = exporter(url, token_file, clock, tmp_path / "ca.pem")
        assert await made.refresh()
        await made.close()


@contextlib.asynccontextmanager
async def other_host() -> AsyncIterator[tuple[str, list[httpx.Request]]]:
    """A server that must not get any request."""
    seen: list[httpx.Request] = []

    async def note(exchange: Exchange) -> None:
        seen.append(exchange.request)
        await exchange.send(b"{}")

    async with FaultyRuntime(ScriptedRuntime(Clock()), fault=note).serving() as url:
        yield url, seen


async def test_no_response_sends_the_token_to_another_host(token_file: Path) -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    async with other_host() as (elsewhere, seen):
        host = elsewhere.removeprefix("http://")
        runtime.projects = {"p1": "Sales", elsewhere: "A URL", f"@{host}": "A host", f"//{host}/x": "A path"}
        runtime.put("run-1", records={"total": 2, "failed": 1})
        runtime.put(elsewhere, records={"total": 2, "failed": 1})
        runtime.put(f"/../..//{host}", records={"total": 2, "failed": 1})

        async def redirect(exchange: Exchange) -> None:
            document = exchange.document
            headers = {"Link": f'<{elsewhere}/api/v1/projects>; rel="next"', "Content-Location": elsewhere}
            match exchange.request.url.path:
                case "/api/v1/usage":
                    await exchange.send(b"", status=307, headers={"Location": elsewhere})
                case "/api/v1/projects" if "cursor" not in exchange.request.url.params:
                    document["nextCursor"] = f"{elsewhere}/?x="
                    await exchange.send(httpx.Response(200, json=document).content, headers=headers)
                case _:
                    await exchange.send(headers=headers)

        faulty = FaultyRuntime(runtime, fault=redirect)
        async with faulty.serving() as url:
            made = exporter(url, token_file, clock)
            with structlog.testing.capture_logs():
                for _ in range(3):
                    clock.advance(130)
                    await made.refresh()
            await made.close()
        assert faulty.requests > 5
        assert not seen, f"the exporter sent a request to {seen[0].url} with {list(seen[0].headers)}"


async def test_a_token_in_a_response_is_never_shown(token_file: Path) -> None:
    clock = Clock()

    async def echo(exchange: Exchange) -> None:
        token = exchange.request.headers.get("Authorization", "")
        problem = httpx.Response(400, json={"error": token, "errorCode": token, token: token})
        headers = {"Content-Type": f"text/{token}", "X-Echo": token, "Retry-After": token, "Location": token}
        await exchange.send(problem.content, status=codes[calls % len(codes)], headers=headers)

    codes, calls = (200, 302, 400, 401, 403, 404, 418, 429, 500, 503), 0
    stream = io.StringIO()
    logs.configure("debug", "logfmt", stream)
    async with FaultyRuntime(ScriptedRuntime(clock), fault=echo).serving() as url:
        made = exporter(url, token_file, clock)
        async with browser(made) as client:
            pages = []
            for number in range(len(codes)):
                calls = number
                clock.advance(400)
                pages += [(await client.get(path)).text for path in ("/metrics", "/", "/-/ready")]
        await made.close()
    logs.configure("error", "logfmt")
    assert "cannot read" in stream.getvalue()
    monitored = made.runtimes[RUNTIME]
    for text in (stream.getvalue(), *pages, repr(monitored.config), repr(vars(monitored.client))):
        assert TOKEN not in text


async def test_a_crash_shows_no_token(token_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    made = exporter("http://runtime.test", token_file, clock)

    def crash(*_: object, **__: object) -> Any:
        raise RuntimeError("a bug in the exporter")

    monkeypatch.setattr(made.runtimes[RUNTIME].client._http_client, "_send_once", crash)
    stream = io.StringIO()
    logs.configure("debug", "json", stream)
    await made.page()
    logs.configure("error", "logfmt")
    assert "a bug in the exporter" in stream.getvalue()
    assert TOKEN not in stream.getvalue()
    await made.close()


async def test_the_token_is_read_again_when_its_file_changes(token_file: Path) -> None:
    clock = Clock()
    shown: list[str] = []

    async def note(exchange: Exchange) -> None:
        shown.append(exchange.token)
        await exchange.send()

    async with FaultyRuntime(ScriptedRuntime(clock), fault=note, path="/usage").serving() as url:
        made = exporter(url, token_file, clock)
        await made.refresh()
        token_file.write_text("cxg_another")
        await made.refresh()
        with structlog.testing.capture_logs() as lines:
            token_file.unlink()
            assert not await made.refresh()
        assert "runtime.token_file" in str(lines)
        token_file.write_text("cxg_third")
        assert await made.refresh()
        await made.close()
    assert shown == [f"Bearer {TOKEN}", "Bearer cxg_another", "Bearer cxg_third"]


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("TOKEN", f"{TOKEN}\n", "runtime.token: expected one token, without line breaks"),
        ("TOKEN", f"{TOKEN}\N{EURO SIGN}", "runtime.token: expected a token of ASCII characters"),
        ("HEADERS", f'X-Tenant: "{TOKEN}\\nX-More: 1"', "runtime.headers: X-Tenant: expected one line of printable"),
        ("HEADERS", f"X-Tenant: {TOKEN}\N{EURO SIGN}", "runtime.headers: X-Tenant: expected one line of printable"),
    ],
)
async def test_what_cannot_be_a_header_is_refused_at_the_start_and_not_with_each_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, says: str
) -> None:
    monkeypatch.setenv(f"SPINNER_EXPORTER_RUNTIME_{variable}", value)
    faulty = FaultyRuntime(ScriptedRuntime(Clock()))
    async with faulty.serving() as url:
        ended = await asyncio.to_thread(spinner_exporter, "once", f"--runtime.base-url={url}")
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert f"SPINNER_EXPORTER_RUNTIME_{variable}: {says}" in ended.stderr
    assert TOKEN not in ended.stdout + ended.stderr
    assert faulty.requests == 0


@pytest.mark.parametrize(
    ("auth", "token", "sent"),
    [
        ({"type": "header", "header": "Authorization"}, "Token x_y", b"Authorization: Token x_y"),
        # A password is encoded before it is sent.
        ({"type": "basic", "username": "user"}, "p\N{EURO SIGN} s", b"Authorization: Basic dXNlcjpw4oKsIHM="),
    ],
)
async def test_a_token_of_the_environment_is_sent_as_it_is(auth: dict[str, str], token: str, sent: bytes) -> None:
    seen: list[str] = []

    async def note(exchange: Exchange) -> None:
        seen.append(exchange.token)
        await exchange.send()

    async with FaultyRuntime(ScriptedRuntime(Clock()), fault=note, path="/usage").serving() as url:
        environ = {
            "SPINNER_EXPORTER_RUNTIME_BASE_URL": url,
            "SPINNER_EXPORTER_RUNTIME_TOKEN": token,
            "SPINNER_EXPORTER_RUNTIME_AUTH_TYPE": auth["type"],
            "SPINNER_EXPORTER_RUNTIME_AUTH_HEADER": auth.get("header", "X-Api-Key"),
            "SPINNER_EXPORTER_RUNTIME_AUTH_USERNAME": auth.get("username", ""),
        }
        made = Exporter(load(None, environ=environ).runtimes)
        assert await made.refresh()
        await made.close()
    assert [f"Authorization: {each}".encode() for each in seen] == [sent]


async def test_a_token_file_that_never_ends_or_is_too_large_is_not_read(tmp_path: Path, token_file: Path) -> None:
    """Also if it becomes so while the exporter runs."""
    clock = Clock()
    async with FaultyRuntime(ScriptedRuntime(clock)).serving() as url:
        made = exporter(url, token_file, clock)
        assert await made.refresh()
        for kind, says in (
            ("device", "expected a regular file"),
            ("terabyte", "expected a token, not more than 65,536 bytes"),
            ("pipe", "expected a regular file"),
        ):
            clock.advance(400)  # a problem that changes is logged again after this time
            token_file.unlink()
            if kind == "device":
                token_file.symlink_to("/dev/zero")
            elif kind == "pipe":
                os.mkfifo(token_file)
            else:
                with token_file.open("wb") as sparse:
                    sparse.truncate(2**40)
            with structlog.testing.capture_logs() as lines:
                async with asyncio.timeout(10):
                    assert not await made.refresh()
            assert f"runtime.token_file: {token_file}: cannot be read: {says}" in str(lines)
        token_file.unlink()
        token_file.write_text(TOKEN)
        assert await made.refresh()
        await made.close()


@contextlib.asynccontextmanager
async def browser(made: Exporter) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_app(made)), base_url="http://e") as client:
        yield client


def test_no_flag_accepts_a_token_so_none_is_in_the_process_list() -> None:
    flags = re.findall(r"--[\w.-]+", run("serve", "--help").stdout)
    assert [flag for flag in flags if "token" in flag] == ["--runtime.token-file"]


def test_a_token_in_the_config_is_refused_without_printing_it(tmp_path: Path) -> None:
    for text in (
        f"runtime: {{base_url: 'http://h', token: {TOKEN}}}",
        f"runtimes: [{{name: eu, base_url: 'http://h', token: {TOKEN}}}]",
        f"runtime: {{base_url: 'http://user:{TOKEN}@h'}}",
        f"runtime: {{base_url: 'http://h', headers: {{Authorization: {TOKEN}}}}}",
    ):
        (tmp_path / "exporter.yml").write_text(text)
        refused = run("check-config", str(tmp_path / "exporter.yml"))
        assert refused.returncode == 2
        assert TOKEN not in refused.stdout + refused.stderr


def test_no_endpoint_accepts_a_url(tmp_path: Path) -> None:
    """Otherwise a client could make the exporter send requests to internal hosts."""
    config = tmp_path / "exporter.yml"
    config.write_text(f"runtime: {{base_url: 'http://127.0.0.1:{free_port()}'}}")
    with exporter_with(config, ready="/-/healthy") as url:
        plain = httpx.get(f"{url}/metrics").text
        with_parameters = httpx.get(
            f"{url}/metrics", params={"target": "http://evil.test", "collect[]": "x", "project": "y"}
        ).text
    assert "evil" not in with_parameters
    assert plain.count("\n") == with_parameters.count("\n")


async def test_the_token_never_reaches_a_proxy_for_a_host_that_no_proxy_names(
    tmp_path: Path, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own; `tests/runtime/test_connections.py` tries more spellings."""
    faulty = FaultyRuntime(ScriptedRuntime(Clock()))
    async with faulty.serving() as url, other_host() as (proxy, proxied):
        address = url.replace("localhost", "127.0.0.1")
        monkeypatch.setenv("HTTP_PROXY", proxy)
        arguments = (f"--runtime.base-url={address}", f"--runtime.token-file={token_file}")
        for entry in ("127.0.0.0/8", ".internal, 127.0.0.1:{port}", "[::1],http://127.0.0.1/"):
            monkeypatch.setenv("NO_PROXY", entry.format(port=url.rpartition(":")[2]))
            ended = await asyncio.to_thread(spinner_exporter, "once", *arguments)
            assert (ended.returncode, proxied) == (0, []), f"{entry}: {ended.stderr}"
        assert faulty.requests > 5
        monkeypatch.setenv("NO_PROXY", "10.0.0.0/8")
        ended = await asyncio.to_thread(spinner_exporter, "once", *arguments)
        assert proxied
        proxied.clear()
        ended = await asyncio.to_thread(spinner_exporter, "doctor", *arguments)
        assert proxied
        proxied.clear()
        monkeypatch.setenv("SPINNER_EXPORTER_RUNTIME_PROXY", "none")
        ended = await asyncio.to_thread(spinner_exporter, "once", *arguments)
        assert (ended.returncode, proxied) == (0, [])
        monkeypatch.delenv("SPINNER_EXPORTER_RUNTIME_PROXY")
        monkeypatch.setenv("NO_PROXY", "10/8")
        ended = await asyncio.to_thread(spinner_exporter, "once", *arguments)
        assert (ended.returncode, ended.stderr.count("\n"), proxied) == (2, 1, [])
        assert "NO_PROXY: '10/8': expected an address or a network such as 10.0.0.0/8" in ended.stderr
