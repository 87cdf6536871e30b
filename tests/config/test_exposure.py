"""Warnings about secrets that others can read; of `check-config` and in the log at the start."""

import os
import threading
from pathlib import Path

import bcrypt
import pytest
import trustme
import yaml

from exporter.config import files, load, warnings
from tests.command_line import run

TOKEN_FILE = "runtime.token_file: {}: every user of this machine can read or write it; remove that with chmod o="
HTTP = "runtime.base_url: {}: the token is sent without encryption; use https"


def config(folder: Path, *, web: object = None, **runtime: object) -> Path:
    settings: dict[str, object] = {"runtime": {"base_url": "https://runtime.example.com", **runtime}}
    if web is not None:
        settings["web"] = {"config_file": web}
    file = folder / "exporter.yml"
    file.write_text(yaml.safe_dump(settings))
    return file


def warned(folder: Path, **runtime: object) -> list[str]:
    return warnings(load(config(folder, **runtime), environ={}))


def secret(file: Path, mode: int = 0o600) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("secret")
    file.chmod(mode)
    return str(file)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that every user can enter, and those above it too."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    return tmp_path


@pytest.mark.parametrize(("mode", "is_exposed"), [(0o600, False), (0o640, False), (0o604, True), (0o602, True)])
def test_a_token_that_every_user_can_read_or_write_is_warned_of(shared: Path, mode: int, is_exposed: bool) -> None:
    token = secret(shared / "token", mode)
    assert warned(shared, token_file=token) == ([TOKEN_FILE.format(token)] if is_exposed else [])


def test_the_body_of_a_login_is_a_secret_like_a_token(shared: Path) -> None:
    body = secret(shared / "login", 0o604)
    url = "http://runtime.example.com"
    assert warned(shared, base_url=url, auth={"login": {"path": "/login", "body_file": body}}) == [
        TOKEN_FILE.format(body).replace("token_file", "auth.login.body_file"),
        HTTP.format(url),
    ]


@pytest.mark.parametrize(
    ("named", "warned_of"),
    [(("cert_file", "key_file"), "key_file"), (("cert_file",), "cert_file")],
    ids=["with a key of its own", "with its key"],
)
def test_the_key_of_a_client_certificate_is_a_secret(shared: Path, named: tuple[str, ...], warned_of: str) -> None:
    files = {name: secret(shared / name, 0o604) for name in named}
    expected = TOKEN_FILE.format(files[warned_of]).replace("token_file", "tls.key_file")
    assert warned(shared, tls=files) == [expected]


def test_a_file_that_is_not_there_is_none_that_others_can_read(shared: Path) -> None:
    assert warned(shared, token_file=str(shared / "token")) == []


def test_a_file_in_a_folder_that_others_cannot_enter_is_none_that_others_can_read(shared: Path) -> None:
    token = secret(shared / "private" / "token", 0o644)
    (shared / "private").chmod(0o700)
    assert warned(shared, token_file=token) == []
    (shared / "link").symlink_to(token)
    assert warned(shared, token_file=str(shared / "link")) == []


def test_a_secret_of_kubernetes_is_read_through_its_links_without_a_warning(shared: Path) -> None:
    """The kubelet makes these links, and mode 0444 is visible to the container only."""
    volume = shared / "secret"
    secret(volume / "..2026_11_29_10_00_00.123" / "token", 0o444)
    (volume / "..data").symlink_to("..2026_11_29_10_00_00.123")
    (volume / "token").symlink_to("..data/token")
    file = config(shared, token_file=str(volume / "token"))
    checked = run("check-config", str(file))
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, f"{file}: good\n", "")


@pytest.mark.parametrize(
    ("url", "is_exposed"),
    [
        ("http://runtime.example.com", True),
        ("http://api.example.com", True),
        ("http://10.0.0.7:8090", True),
        ("http://[2001:db8::1]", True),
        ("https://runtime.example.com", False),
        ("http://127.0.0.1:8090", False),
        ("http://127.8.0.1:8090", False),
        ("http://[::1]:8090", False),
        ("http://localhost:8090", False),
        ("http://runtime.localhost", False),
    ],
)
def test_a_token_over_plain_http_to_another_host_is_warned_of(tmp_path: Path, url: str, is_exposed: bool) -> None:
    expected = [HTTP.format(url)] if is_exposed else []
    assert warned(tmp_path, base_url=url, token_file=secret(tmp_path / "token")) == expected
    assert warned(tmp_path, base_url=url) == [], "there is no token"
    environ = {"SPINNER_EXPORTER_RUNTIME_TOKEN": "secret"}
    assert warnings(load(config(tmp_path, base_url=url), environ=environ)) == expected


def test_each_warning_is_given_once(shared: Path) -> None:
    token = secret(shared / "token", 0o644)
    runtimes = [{"name": name, "base_url": f"http://{name}.example.com", "token_file": token} for name in ("eu", "us")]
    (shared / "exporter.yml").write_text(yaml.safe_dump({"runtimes": runtimes}))
    assert warnings(load(shared / "exporter.yml", environ={})) == [
        TOKEN_FILE.format(token),
        HTTP.format("http://eu.example.com"),
        HTTP.format("http://us.example.com"),
    ]


def web_config(folder: Path) -> str:
    certificate = trustme.CA().issue_cert("localhost")
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    tls = {"cert_file": "cert.pem", "key_file": "key.pem"}
    users = {"prometheus": bcrypt.hashpw(b"x", bcrypt.gensalt(4)).decode()}
    (folder / "web.yml").write_text(yaml.safe_dump({"tls_server_config": tls, "basic_auth_users": users}))
    for name in ("key.pem", "web.yml"):
        (folder / name).chmod(0o644)
    return str(folder / "web.yml")


def test_check_config_warns_of_each_file_and_says_that_the_config_is_good(shared: Path) -> None:
    token = secret(shared / "token", 0o644)
    file = config(shared, web=web_config(shared), token_file=token)
    checked = run("check-config", str(file))
    assert (checked.returncode, checked.stdout) == (0, f"{file}: good\n")
    assert [line.removeprefix(f"{file}: warning: ").split("; ")[0] for line in checked.stderr.splitlines()] == [
        f"runtime.token_file: {token}: every user of this machine can read or write it",
        f"web.config_file: {shared / 'web.yml'}: every user of this machine can read or write it",
        f"tls_server_config.key_file: {shared / 'key.pem'}: every user of this machine can read or write it",
    ]


# -- pipes ------------------------------------------------------------------------------------------------------


def test_a_config_that_is_a_pipe_without_a_writer_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PIPE_TIMEOUT", 0.2)
    os.mkfifo(tmp_path / "pipe")
    checked = run("check-config", str(tmp_path / "pipe"))
    assert checked.returncode == 1
    expected = f"spinner-exporter: {tmp_path / 'pipe'}: cannot be read: nobody wrote to this pipe for 0.2 s\n"
    assert checked.stderr == expected


def test_a_config_that_is_a_pipe_with_a_slow_writer_is_read_whole(tmp_path: Path) -> None:
    text = 'runtime: {base_url: "http://127.0.0.1:1"}\n' + "# a comment\n" * 20_000  # more than a pipe holds
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=(text,))
    writer.start()
    checked = run("check-config", str(tmp_path / "pipe"))
    writer.join()
    assert (checked.returncode, checked.stderr) == (0, "")


def test_authorities_of_the_environment_that_are_a_pipe_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "pipe"))
    checked = run("check-config", str(config(tmp_path)))
    assert checked.returncode == 1
    assert "expected a regular file, not a pipe or a device" in checked.stderr
