"""Mistakes in files and on the command line: one line that names the place and what is expected, and exit status 2.

`test_config.py` and `tests/web/test_access.py` have more mistakes within a file.
"""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
import yaml

from tests.command_line import Ended, run

PRESETS = ", ".join(
    sorted(file.stem for file in (Path(__file__).parents[2] / "exporter" / "config" / "presets").glob("*.yml"))
)
GOOD = {"runtime": {"base_url": "http://127.0.0.1:1"}}

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


def config(folder: Path, **more: object) -> None:
    (folder / "exporter.yml").write_text(yaml.safe_dump({**GOOD, **more}))


def runtime(**more: object) -> Callable[[Path], None]:
    return lambda folder: config(folder, runtime={**GOOD["runtime"], **more})


def text(content: str | bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "exporter.yml").write_bytes(content.encode() if isinstance(content, str) else content)

    return write


def token(content: bytes | None) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        if content is not None:
            (folder / "token").write_bytes(content)
        config(folder, runtime={**GOOD["runtime"], "token_file": str(folder / "token")})

    return write


def web(content: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "web.yml").write_text(content)
        config(folder, web={"config_file": str(folder / "web.yml")})

    return write


def foreign_key(folder: Path) -> None:
    """A certificate and the key of another."""
    authority = trustme.CA()
    authority.issue_cert("localhost").cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    authority.issue_cert("localhost").private_key_pem.write_to_path(str(folder / "key.pem"))
    config(
        folder,
        runtime={
            **GOOD["runtime"],
            "tls": {"cert_file": str(folder / "cert.pem"), "key_file": str(folder / "key.pem")},
        },
    )


def occupied(folder: Path) -> None:
    (folder / "state").write_text("a file")
    config(folder, storage={"path": str(folder / "state")})


MISTAKES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no file": (lambda folder: None, "exporter.yml: cannot be read: No such file or directory"),
    "a folder": (lambda folder: (folder / "exporter.yml").mkdir(), "exporter.yml: cannot be read: Is a directory"),
    "an empty file": (text(""), "expected settings such as runtime: {base_url:"),
    "a comment": (text("# nothing"), "expected settings such as runtime:"),
    "a list": (text("- runtime"), "expected settings such as runtime:"),
    "two documents": (text("a: 1\n---\nb: 2"), "not YAML: but found another document"),
    "a tab": (text("runtime:\n\tbase_url: x"), "exporter.yml: line 2: not YAML"),
    "a bracket too few": (text("runtime: {base_url: http://h"), "line 1: not YAML"),
    "a YAML bomb": (text(BOMB), "not YAML: aliases expand to too many values"),
    "an alias of itself": (text("a: &a [*a]"), "not YAML: an alias refers to itself"),
    "10,000 brackets": (text("[" * 10_000), "exporter.yml: not YAML"),
    "two megabytes": (text("#" * 2_000_000), "expected settings, not more than 1,000,000 bytes"),
    "a Python object": (text("runtime: !!python/object/apply:os.system [ls]"), "line 1: not YAML: could not determine"),
    "binary": (text(b"\xff\xfe\x00"), "expected UTF-8 text"),
    "NUL": (text(b"runtime: \x00"), "exporter.yml: not YAML"),
    "a duplicate key": (text("runtime: {base_url: http://h}\nruntime: {}"), "duplicate key runtime"),
    "a key that is a number": (text("5: x"), "5: expected a key that is text"),
    "an unknown key": (lambda folder: config(folder, retenton="1h"), "retenton: unknown key; did you mean retention?"),
    "a wrong type": (lambda folder: config(folder, sync=[1]), "sync: expected a mapping of keys, got a list"),
    "no number": (lambda folder: config(folder, limits={"runs": float("nan")}), "limits.runs: expected a whole number"),
    "no runtime": (text("retention: 1h"), "runtime.base_url: is required; name the runtime's API in the config file"),
    "no URL": (runtime(base_url="runtime.example.com"), "runtime.base_url: expected a URL such as http://"),
    "a URL of another kind": (runtime(base_url="file:///etc/passwd"), "runtime.base_url: expected a URL such as"),
    "a port that is none": (runtime(base_url="http://h:99999"), "runtime.base_url: expected a URL such as"),
    "an unknown preset": (
        runtime(preset="airflow"),
        f"runtime.preset: expected one of {PRESETS}, or the path of a .yml file",
    ),
    "a preset that is not there": (runtime(preset="x.yml"), "x.yml: cannot be read: No such file"),
    "a token's file that is not there": (token(None), "runtime.token_file: "),
    "a token's file that is empty": (token(b"\n"), "expected one token and nothing else"),
    "a token's file with more": (token(b"a b"), "expected one token and nothing else"),
    "a token that is binary": (token(b"\xff"), "expected a token in ASCII"),
    "an authority that is not there": (
        runtime(tls={"ca_file": "/x.pem"}),
        "runtime.tls.ca_file: /x.pem: cannot be used",
    ),
    "the key of another certificate": (foreign_key, "runtime.tls.cert_file: "),
    "a proxy that is no URL": (runtime(proxy="proxy"), "runtime.proxy: expected a URL such as"),
    "a description that leads nowhere": (
        runtime(resources={"jobs": {"path": "/jobs/{nothing}"}}),
        "runtime.resources.jobs.path: {nothing} is unknown",
    ),
    "a paging style that does not exist": (
        runtime(resources={"jobs": {"path": "/x", "paging": {"style": "next"}}}),
        "runtime.resources.jobs.paging.style: expected one of none, cursor, page, offset, link, got 'next'",
    ),
    "a resource that is misspelt": (
        runtime(resources={"usage": "absnt"}),
        "runtime.resources.usage: expected one of absent, a mapping of keys, got 'absnt'",
    ),
    "a converter that does not exist": (
        runtime(resources={"jobs": {"path": "/x", "fields": {"createdAt": {"path": "t", "convert": "unix"}}}}),
        "convert: expected one of rfc3339, epoch_s, epoch_ms, local, seconds, milliseconds, clock, got 'unix'",
    ),
    "a key that YAML reads as true": (
        text("runtime: {base_url: http://h, resources: {job: {path: /x, fields: {id: {path: a, labels: {on: up}}}}}}"),
        "labels: expected keys that are text; put true, yes, on, no, off and numbers in quotes",
    ),
    "an expression that is none": (
        runtime(resources={"jobs": {"items": "a["}}),
        "runtime.resources.jobs.items: ",
    ),
    "a folder for state that is a file": (occupied, "storage.path: "),
    "a folder for state that probes would not use": (
        lambda folder: config(folder, storage={"path": str(folder / "state")}, projects={"on_probe": True}),
        "storage.path: not allowed with projects.on_probe",
    ),
    "a web config file that is not there": (
        lambda folder: config(folder, web={"config_file": "/x.yml"}),
        "/x.yml: cannot be read: No such file",
    ),
    "a password that is not hashed": (
        web("basic_auth_users: {a: secret}"),
        "basic_auth_users.a: expected a bcrypt hash",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_status_2(tmp_path: Path, mistake: str) -> None:
    make, says = MISTAKES[mistake]
    make(tmp_path)
    ended = serve(tmp_path)
    assert ended.returncode == 2, ended.stderr
    assert says in ended.stderr
    assert ended.stderr.count("\n") == 1, f"more than a line: {ended.stderr}"
    assert "secret" not in ended.stderr
    assert ended.stdout == ""


def serve(folder: Path) -> Ended:
    return run("serve", f"--config.file={folder / 'exporter.yml'}", "--web.listen-address=127.0.0.1:0")


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    config(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = run("serve", f"--config.file={tmp_path / 'exporter.yml'}", f"--web.listen-address={address}")
    assert ended.returncode == 2
    where = f"web.listen_address: cannot listen on {address}: Address already in use"
    assert f"{where}; choose another address with --web.listen-address" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["serve", "--nothing"], "No such option"),
        (["serve", "--web.enable-lifecycle=maybe"], "does not take a value"),
        (["serv"], "No such command 'serv'"),
        (["check-config"], "Missing argument 'FILE'"),
    ],
)
def test_an_invalid_command_line_is_a_usage_error(arguments: list[str], says: str) -> None:
    ended = run(*arguments)
    assert ended.returncode == 2
    assert says in ended.stderr
