"""`spinner-exporter healthcheck`, against real servers."""

import asyncio
import contextlib
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
import yaml

from exporter.healthcheck import check, main
from exporter.web.app import create_app
from exporter.web.auth import WebConfigFile
from exporter.web.server import listen, running_server, url_of
from tests.builders import Clock
from tests.scripted import ScriptedRuntime, exporter_of
from tests.stack.programs import ROOT, exporter_with, free_port

CONFIG = 'runtime: {base_url: "http://127.0.0.1:1"}\n'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "exporter.yml"
    file.write_text(CONFIG)
    return file


def test_a_running_exporter_is_healthy_and_another_path_is_not(config: Path) -> None:
    with exporter_with(config, ready="/-/healthy") as url:
        assert check(f"{url}/-/healthy") == ""
        assert main([f"{url}/-/healthy"]) == 0
        assert "404" in check(f"{url}/nothing")
        # A runtime that cannot be read does not make the exporter unhealthy.
        assert main([f"{url}/-/ready"]) == 1


@pytest.fixture
def tls(tmp_path: Path) -> dict[str, str]:
    """The files of a server, for a `tls_server_config`."""
    authority = trustme.CA()
    certificate = authority.issue_cert("exporter.example.com")
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return {"cert_file": str(tmp_path / "cert.pem"), "key_file": str(tmp_path / "key.pem")}


@pytest.mark.parametrize("version", ["TLS12", "TLS13"])
@pytest.mark.parametrize("client_auth", ["NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"])
async def test_an_exporter_with_tls_is_healthy_also_if_its_clients_need_a_certificate(
    tls: dict[str, str], tmp_path: Path, version: str, client_auth: str
) -> None:
    more = {"client_auth_type": client_auth, "min_version": version, "max_version": version}
    if client_auth != "NoClientCert":
        more["client_ca_file"] = str(tmp_path / "ca.pem")
    (tmp_path / "web.yml").write_text(yaml.safe_dump({"tls_server_config": tls | more}))
    exporter = exporter_of(ScriptedRuntime(Clock()))
    listener = listen("127.0.0.1:0")
    file = WebConfigFile(tmp_path / "web.yml")
    async with running_server(create_app(exporter), listener, web_config_file=file):
        url = f"{url_of(listener, 'https')}/-/healthy"
        assert await asyncio.to_thread(check, url) == ""
        without_tls = url.replace("https", "http")
        assert await asyncio.to_thread(check, without_tls) != ""
        # What the health check of the image does: it does not know whether there is TLS.
        assert await asyncio.to_thread(check, without_tls, url) == ""
    await exporter.close()


def test_without_a_url_both_ways_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.healthcheck.check", lambda *urls: "" if urls == EITHER else f"asked {urls}")
    assert main([]) == 0
    assert main([EITHER[0]]) == 1


EITHER = ("http://127.0.0.1:10095/-/healthy", "https://127.0.0.1:10095/-/healthy")


@contextlib.contextmanager
def listening(respond: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that gets one connection; yields its URL."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with server.accept()[0] as connection, contextlib.suppress(OSError):
                respond(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{server.getsockname()[1]}/-/healthy"
        thread.join()


def over_tls(
    tls: dict[str, str],
    version: ssl.TLSVersion,
    respond: Callable[[socket.socket], None],
    authority: Path | None = None,
) -> Callable[[socket.socket], None]:
    """Respond over TLS, with alerts, which the exporter's own server does not send."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(tls["cert_file"], tls["key_file"])
    if authority is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority)

    def accept(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as encrypted:
            respond(encrypted)

    return accept


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def read_and_close(connection: socket.socket) -> None:
    connection.recv(4096)


def read_and_reset(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def end_without_tls(connection: socket.socket) -> None:
    connection.recv(4096)
    os.write(connection.fileno(), b"HTTP/1.1 200 OK\r\n\r\n")


def test_a_url_that_is_reset_is_checked_the_other_way(tls: dict[str, str]) -> None:
    def respond(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        connection.recv(4096)

    with listening(over_tls(tls, VERSIONS[1], respond)) as url, listening(read_and_reset) as reset:
        assert check(reset.replace("https", "http"), url) == ""


@pytest.mark.parametrize("version", VERSIONS)
def test_an_alert_about_a_missing_certificate_is_a_response(
    tls: dict[str, str], tmp_path: Path, version: ssl.TLSVersion
) -> None:
    with listening(over_tls(tls, version, read_and_close, tmp_path / "ca.pem")) as url:
        assert check(url) == ""


def test_a_server_that_ends_the_handshake_at_once_or_does_not_respond_after_it_is_not_healthy(
    tls: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(read_and_close) as url:
        assert url in check(url)
    with listening(lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")) as url:
        assert url in check(url)
    # With this version, a certificate would have been asked for before.
    with listening(over_tls(tls, VERSIONS[0], read_and_close)) as url:
        assert check(url) == f"{url}: no response"
    with listening(over_tls(tls, VERSIONS[0], end_without_tls)) as url:
        assert url in check(url)
    monkeypatch.setattr("exporter.healthcheck.TIMEOUT", 0.2)
    checked = threading.Event()

    def stuck(_: socket.socket) -> None:
        checked.wait()

    for respond in (stuck, *(over_tls(tls, version, stuck) for version in VERSIONS)):
        checked.clear()
        with listening(respond) as url:
            found = check(url)
            checked.set()
        assert "timed out" in found


def test_a_server_that_does_not_run_is_not_healthy(capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://127.0.0.1:{free_port()}/-/healthy"
    assert main([url]) == 1
    assert url in capsys.readouterr().err


@pytest.mark.parametrize("url", ["127.0.0.1:10095", "ftp://127.0.0.1:1/", "http://127.0.0.1/", "http://:80/", ""])
def test_an_address_that_is_no_url_is_a_mistake(url: str) -> None:
    assert "expected a URL such as http://127.0.0.1:10095/-/healthy" in check(url)


@pytest.mark.parametrize("arguments", [["a", "b"], ["--timeout=3"]])
def test_other_arguments_are_a_mistake(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "Usage: spinner-exporter healthcheck [URL]" in capsys.readouterr().err


def test_it_imports_next_to_nothing() -> None:
    script = (
        "import sys; sys.argv[1:] = ['healthcheck', 'http://127.0.0.1:1/']\n"
        "from exporter.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code, *sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    status, *modules = ended.stdout.split()
    assert status == "1"
    assert "exporter.healthcheck" in modules
    assert not {"exporter.cli", "click", "ssl", "urllib.request", "http.client", "asyncio", "yaml"} & set(modules)


def test_help_is_that_of_the_other_commands() -> None:
    command = [sys.executable, "-m", "exporter", "healthcheck", "--help"]
    helped = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "Usage: spinner-exporter healthcheck" in helped.stdout.replace("python -m exporter", "spinner-exporter")
