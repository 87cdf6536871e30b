"""TLS and authentication by the web config file of Prometheus's exporter-toolkit."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import bcrypt
import httpx
import pytest
import structlog
import trustme
import yaml

from exporter.errors import ConfigError
from exporter.web.app import create_app
from exporter.web.auth import WebConfigFile
from exporter.web.passwords import MAX_CONCURRENT, MAX_WAITING
from exporter.web.server import listen, running_server, url_of
from tests.builders import Clock
from tests.scripted import ScriptedRuntime, exporter_of
from tests.stack.programs import exporter_with, number, prometheus, runtime, until
from tests.web.gate import Gate

CA = trustme.CA()
PASSWORD = "correct horse"
# As htpasswd writes it; the least cost that there is, since these are tests.
HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$")
TLS = {"cert_file": "cert.pem", "key_file": "key.pem"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    renew(tmp_path)
    CA.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return tmp_path


def renew(folder: Path) -> None:
    certificate = CA.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))


def web_file(folder: Path, **settings: object) -> Path:
    file = folder / "web.yml"
    file.write_text(yaml.safe_dump(settings))
    return file


@contextlib.asynccontextmanager
async def serving(file: Path) -> AsyncIterator[str]:
    web_config_file = WebConfigFile(file)
    runtime = ScriptedRuntime(Clock())
    runtime.put()
    exporter = exporter_of(runtime)
    listener = listen("127.0.0.1:0")
    async with running_server(create_app(exporter), listener, web_config_file=web_config_file):
        yield url_of(listener, "https" if web_config_file.has_tls else "http")
    await exporter.close()


def trusting(folder: Path, own: trustme.LeafCert | None = None) -> httpx.AsyncClient:
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    if own is not None:
        own.configure_cert(context)
    return httpx.AsyncClient(verify=context)


# -- users --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/metrics", "/-/healthy", "/-/ready", "/-/reload", "/nowhere"])
async def test_every_path_requires_a_password(folder: Path, path: str) -> None:
    async with serving(web_file(folder, basic_auth_users={"prometheus": HASH})) as url, httpx.AsyncClient() as client:
        refused = await client.get(url + path)
        assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Basic")
        assert "spinner" not in refused.text
        accepted = await client.get(url + path, auth=("prometheus", PASSWORD))
        assert accepted.status_code != 401


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic",
        "Basic !!!",
        "Basic cHJvbWV0aGV1cw==",
        "Basic /////w==",
        "Bearer " + PASSWORD,
        httpx.BasicAuth("prometheus", "wrong")._auth_header,
        httpx.BasicAuth("somebody", PASSWORD)._auth_header,
        httpx.BasicAuth("", "")._auth_header,
        httpx.BasicAuth("prometheus", "x" * 100)._auth_header,
        httpx.BasicAuth("prometheus", "nul\0")._auth_header,
        httpx.BasicAuth("prometheus", HASH)._auth_header,
    ],
)
async def test_a_wrong_password_is_refused(folder: Path, header: str) -> None:
    async with serving(web_file(folder, basic_auth_users={"prometheus": HASH})) as url, httpx.AsyncClient() as client:
        assert (await client.get(url, headers={"Authorization": header})).status_code == 401


async def test_an_unknown_user_is_refused_as_slowly_as_a_known_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not measured, which would be luck: a password is checked either way, and against a hash of the same cost."""
    checked: list[bytes] = []
    real = bcrypt.checkpw

    def noting(password: bytes, hashed: bytes) -> bool:
        checked.append(hashed)
        return real(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", noting)
    async with serving(web_file(folder, basic_auth_users={"prometheus": HASH})) as url, httpx.AsyncClient() as client:
        await client.get(url, auth=("prometheus", "wrong"))
        await client.get(url, auth=("somebody", "wrong"))
    assert checked == [HASH.encode()] * 2


async def test_a_scraper_s_password_is_hashed_once_and_is_not_delayed_by_guesses(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = at_once = most = 0

    def slow(password: bytes, hashed: bytes) -> bool:
        nonlocal checks, at_once, most
        checks, at_once = checks + 1, at_once + 1
        most = max(most, at_once)
        time.sleep(0.02)
        at_once -= 1
        return password == PASSWORD.encode()

    monkeypatch.setattr(bcrypt, "checkpw", slow)
    async with serving(web_file(folder, basic_auth_users={"prometheus": HASH})) as url, httpx.AsyncClient() as client:
        good = [(await client.get(url, auth=("prometheus", PASSWORD))).status_code for _ in range(3)]
        assert (good, checks) == ([200] * 3, 1)
        guesses = [asyncio.create_task(client.get(url, auth=("prometheus", str(each)))) for each in range(15)]
        await asyncio.sleep(0.05)
        assert (await client.get(f"{url}/metrics", auth=("prometheus", PASSWORD))).status_code == 200
        assert not all(guess.done() for guess in guesses), "the scrape waited for all the guesses"
        assert {(await guess).status_code for guess in guesses} == {401}
    assert most <= MAX_CONCURRENT


async def becomes(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - nothing sets an event
            await asyncio.sleep(0.001)


async def test_guesses_over_many_connections_do_not_keep_a_scraper_out_whose_password_is_not_known_yet(
    folder: Path, gate: Gate
) -> None:
    held = MAX_CONCURRENT + MAX_WAITING
    async with serving(web_file(folder, basic_auth_users={"prometheus": HASH})) as url:
        strangers: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        for each in range(held + 100):
            port = int(url.rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
            header = httpx.BasicAuth("prometheus", f"guess {each}")._auth_header
            writer.write(f"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: {header}\r\n\r\n".encode())
            await becomes(lambda: len(gate.started) + gate.waiting >= min(len(strangers) + 1, held))
            strangers.append((reader, writer))
        for reader, _ in strangers[held:]:
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 429 ")
            assert b"retry-after: 5\r\n" in head.lower()
        async with httpx.AsyncClient() as client:
            scrape = asyncio.create_task(client.get(url, auth=("prometheus", PASSWORD)))
            await becomes(lambda: gate.has_waiting("127.0.0.1"))
            gate.open()
            assert (await scrape).status_code == 200
        assert gate.started.index(PASSWORD.encode()) <= MAX_CONCURRENT
        for _, writer in strangers:
            writer.close()


async def test_the_guesses_of_a_client_that_has_left_are_not_checked(folder: Path, gate: Gate) -> None:
    async with serving(web_file(folder, basic_auth_users={"prometheus": HASH})) as url:
        async with httpx.AsyncClient() as leaving:
            left = [asyncio.create_task(leaving.get(url, auth=("prometheus", str(each)))) for each in range(10)]
            await becomes(lambda: len(gate.started) + gate.waiting == 10)
            for each in left:
                each.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        await becomes(lambda: gate.waiting == 0)
        async with httpx.AsyncClient() as client:
            staying = asyncio.create_task(client.get(url, auth=("prometheus", "wrong")))
            await becomes(lambda: gate.waiting == 1)
            gate.open()
            assert (await staying).status_code == 401
    assert len(gate.started) == MAX_CONCURRENT + 1


# -- TLS ----------------------------------------------------------------------------------------------------


async def test_connections_are_encrypted_and_old_versions_refused(folder: Path) -> None:
    async with serving(web_file(folder, tls_server_config={**TLS, "min_version": "TLS13"})) as url:
        async with trusting(folder) as client:
            assert (await client.get(f"{url}/-/healthy")).status_code == 200
        context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        async with httpx.AsyncClient(verify=context) as client:
            with pytest.raises(httpx.TransportError):
                await client.get(f"{url}/-/healthy")
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.TransportError):
                await client.get(url.replace("https", "http") + "/-/healthy")


async def test_a_client_without_a_certificate_of_the_configured_authority_is_refused(folder: Path) -> None:
    tls = {**TLS, "client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": "ca.pem"}
    async with serving(web_file(folder, tls_server_config=tls)) as url:
        async with trusting(folder, CA.issue_cert("prometheus@example.com")) as client:
            assert (await client.get(f"{url}/-/healthy")).status_code == 200
        for own in (None, trustme.CA().issue_cert("prometheus@example.com")):
            async with trusting(folder, own) as client:
                with pytest.raises(httpx.TransportError):
                    await client.get(f"{url}/-/healthy")


# -- changes ------------------------------------------------------------------------------------------------


async def test_changed_files_apply_immediately_and_invalid_ones_change_nothing(folder: Path) -> None:
    file = web_file(folder, tls_server_config=TLS, basic_auth_users={"prometheus": HASH})
    async with serving(file) as url:

        async def serial() -> str:
            async with trusting(folder) as client:
                answer = await client.get(url, auth=("prometheus", PASSWORD))
                assert answer.status_code == 200
                peer = answer.extensions["network_stream"].get_extra_info("ssl_object").getpeercert()
                return str(peer["serialNumber"])

        first = await serial()
        renew(folder)
        second = await serial()
        assert first != second, "the new certificate is shown without a restart"
        with structlog.testing.capture_logs() as lines:
            (folder / "cert.pem").write_text("no certificate")
            assert [await serial() for _ in range(3)] == [second] * 3
        assert [line["event"] for line in lines] == ["web config file not reloaded; keeping the previous config"]
        renew(folder)
        other = bcrypt.hashpw(b"other", bcrypt.gensalt(4)).decode()
        web_file(folder, tls_server_config=TLS, basic_auth_users={"prometheus": other})
        async with trusting(folder) as client:
            assert (await client.get(url, auth=("prometheus", PASSWORD))).status_code == 401
            assert (await client.get(url, auth=("prometheus", "other"))).status_code == 200


async def test_every_response_has_the_configured_headers(folder: Path) -> None:
    headers = {"X-Content-Type-Options": "nosniff", "Strict-Transport-Security": "max-age=31536000"}
    users = {"prometheus": HASH}
    file = web_file(folder, http_server_config={"headers": headers}, basic_auth_users=users)
    async with serving(file) as url, httpx.AsyncClient() as client:
        for auth in (("prometheus", PASSWORD), ("prometheus", "wrong")):
            answer = await client.get(url, auth=auth)
            assert {name: answer.headers.get(name) for name in headers} == headers


# -- mistakes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"basic_auth_user": {}}, "basic_auth_user: unknown key; did you mean basic_auth_users?"),
        ({"basic_auth_users": {"a": "hunter2"}}, "basic_auth_users.a: expected a bcrypt hash such as htpasswd"),
        (
            {"basic_auth_users": {"a": HASH.replace("$04$", "$31$")}},
            "expected a cost from 4 to 18, got",
        ),
        (
            {"basic_auth_users": {"a": HASH.replace("$04$", "$03$")}},
            "expected a cost from 4 to 18, got",
        ),
        ({"basic_auth_users": ["a"]}, "basic_auth_users: expected a mapping of keys, got a list"),
        ({"tls_server_config": {}}, "tls_server_config.cert_file: is required"),
        ({"tls_server_config": {"cert_file": "cert.pem"}}, "tls_server_config.key_file: is required"),
        ({"tls_server_config": {**TLS, "cert_file": "gone.pem"}}, "gone.pem: cannot be used: No such file"),
        ({"tls_server_config": {**TLS, "key_file": "ca.pem"}}, "tls_server_config.cert_file: "),
        ({"tls_server_config": {**TLS, "min_version": "TLS10"}}, "min_version: expected one of TLS12, TLS13"),
        (
            {"tls_server_config": {**TLS, "min_version": "TLS13", "max_version": "TLS12"}},
            "min_version: expected at most max_version",
        ),
        ({"tls_server_config": {**TLS, "client_auth_type": "RequestClientCert"}}, "client_auth_type: expected one of"),
        (
            {"tls_server_config": {**TLS, "client_auth_type": "RequireAndVerifyClientCert"}},
            "client_ca_file: required if client_auth_type verifies",
        ),
        ({"tls_server_config": {**TLS, "cipher_suites": ["X"]}}, "tls_server_config.cipher_suites: unknown key"),
        ({"http_server_config": {"http2": True}}, "http2: expected false"),
        ({"http_server_config": {"headers": {"X-Other": "1"}}}, "headers.X-Other: expected one of Strict-Transport"),
        ({"rate_limit": {"burst": 3}}, "rate_limit: unknown key"),
    ],
)
def test_a_mistake_names_the_place_and_never_a_password(folder: Path, settings: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        WebConfigFile(web_file(folder, **settings))
    assert str(error.value).startswith(f"{folder / 'web.yml'}: ")
    assert says in str(error.value)
    assert "hunter2" not in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"web\.yml: cannot be read: No such file"):
        WebConfigFile(tmp_path / "web.yml")


# -- the real thing -----------------------------------------------------------------------------------------


def test_a_real_prometheus_scrapes_over_tls_with_a_password(folder: Path) -> None:
    file = web_file(folder, tls_server_config=TLS, basic_auth_users={"prometheus": HASH})
    scrape = {
        "scheme": "https",
        "basic_auth": {"username": "prometheus", "password": PASSWORD},
        "tls_config": {"ca_file": str(folder / "ca.pem"), "server_name": "localhost"},
    }
    with runtime(folder) as runtime_url:
        config = folder / "exporter.yml"
        config.write_text(f"runtime: {{base_url: '{runtime_url}'}}")
        verify = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        flags = [f"--web.config.file={file}"]
        with (
            exporter_with(config, ready="/-/healthy", flags=flags, verify=verify, auth=("prometheus", PASSWORD)) as url,
            prometheus(folder, url, scrape=scrape) as prometheus_url,
        ):
            until(lambda: number(prometheus_url, "spinner_api_up") == 1, "Prometheus scraped; look at its targets page")
