"""Mistakes in files and on the command line: one line that names the place and what is expected, and exit status 2.

The status is 1 for what the machine may have at the next start: a file, a port, a folder.

`test_config.py` and `tests/web/test_access.py` have more mistakes within a file.
"""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
import yaml
from cryptography.hazmat.primitives import serialization

from exporter.runs.state_file import StateFile
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


def pipe(key: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        os.mkfifo(folder / "pipe")
        config(folder, runtime={**GOOD["runtime"], key: str(folder / "pipe")})

    return write


def terabyte(key: str) -> Callable[[Path], None]:
    """A sparse file."""

    def write(folder: Path) -> None:
        with (folder / "sparse").open("wb") as file:
            file.truncate(2**40)
        named = {key: str(folder / "sparse")}
        config(folder, runtime={**GOOD["runtime"], **({"tls": named} if key == "ca_file" else named)})

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


def encrypted_key(*, web: bool) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        own = trustme.CA().issue_cert("localhost")
        own.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
        key = serialization.load_pem_private_key(own.private_key_pem.bytes(), password=None)
        (folder / "key.pem").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"hunter2"),
            )
        )
        files = {"cert_file": str(folder / "cert.pem"), "key_file": str(folder / "key.pem")}
        if web:
            (folder / "web.yml").write_text(yaml.safe_dump({"tls_server_config": files}))
            config(folder, web={"config_file": str(folder / "web.yml")})
        else:
            config(folder, runtime={**GOOD["runtime"], "tls": files})

    return write


def client_authority(file: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        own = trustme.CA().issue_cert("localhost")
        own.private_key_and_cert_chain_pem.write_to_path(str(folder / "own.pem"))
        web(
            "tls_server_config: {cert_file: own.pem, key_file: own.pem, "
            f"client_auth_type: RequireAndVerifyClientCert, client_ca_file: {file}}}"
        )(folder)

    return write


REFERRING: dict[str, dict[str, object]] = {
    "projects": {"fields": {"id": "id", "name": "name", "ref.slug": "slug"}},
    "jobs": {"path": "/{ref.slug}/runs", "fields": {"id": "id", "status": "state", "ref.number": "number"}},
}


def preset(resources: dict[str, object]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        contract = Path(__file__).parents[2] / "exporter" / "config" / "presets" / "contract.yml"
        tree = yaml.safe_load(contract.read_text())
        for name, keys in resources.items():
            tree["runtime"]["resources"][name] |= keys
        (folder / "own.yml").write_text(yaml.safe_dump(tree))
        config(folder, runtime={**GOOD["runtime"], "preset": str(folder / "own.yml")})

    return write


def occupied(folder: Path) -> None:
    (folder / "state").write_text("a file")
    config(folder, storage={"path": str(folder / "state")})


MISTAKES: dict[str, tuple[Callable[[Path], None], str]] = {
    "an empty file": (text(""), "expected settings such as runtime: {base_url:"),
    "a comment": (text("# nothing"), "expected settings such as runtime:"),
    "a list": (text("- runtime"), "expected settings such as runtime:"),
    "two documents": (text("a: 1\n---\nb: 2"), "not YAML: but found another document"),
    "a tab": (text("runtime:\n\tbase_url: x"), "exporter.yml: line 2: not YAML: a tab; indent with spaces"),
    "a bracket too few": (text("runtime: {base_url: http://h"), "line 1: not YAML"),
    "a YAML bomb": (text(BOMB), "not YAML: aliases expand to too many values"),
    "an alias of itself": (text("a: &a [*a]"), "not YAML: an alias refers to itself"),
    "10,000 brackets": (text("[" * 10_000), "exporter.yml: not YAML"),
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
        runtime(preset="airfow"),
        f"runtime.preset: expected one of {PRESETS}, or the path of a .yml file",
    ),
    "a token's file with NUL in its name": (
        runtime(token_file="a\0b"),
        "runtime.token_file: expected text without NUL",
    ),
    "half a character": (
        text('runtime: {base_url: http://h}\nprojects: {include: ["\\ud800"]}'),
        "projects.include: expected text that UTF-8 can encode",
    ),
    "an expression of 3,000 parentheses": (
        runtime(resources={"jobs": {"items": "(" * 3000}}),
        "exporter.yml: runtime.resources.jobs.items: invalid JMESPath: too many parts, or nested too deeply",
    ),
    "an expression of 3,000 steps": (
        runtime(resources={"jobs": {"items": "a|" * 3000 + "a"}}),
        "exporter.yml: runtime.resources.jobs.items: invalid JMESPath: too many parts, or nested too deeply",
    ),
    "an expression of 100,000 characters": (
        runtime(resources={"jobs": {"path": "/{project}", "fields": {"id": "a" * 100_000}}}),
        "exporter.yml: runtime.resources.jobs.fields.id: invalid JMESPath: expected at most 10,000 characters",
    ),
    "an expression with a number of 5,000 digits": (
        runtime(resources={"jobs": {"items": f"a[{'9' * 5000}]"}}),
        "exporter.yml: runtime.resources.jobs.items: invalid JMESPath: a number or an escape that cannot be read",
    ),
    "an unknown field": (
        runtime(resources={"usage": {"path": "/usage", "fields": {"limt": "max"}}}),
        "exporter.yml: runtime.resources.usage.fields.limt: unknown field; expected one of",
    ),
    "a field with an expression that is none": (
        runtime(resources={"usage": {"path": "/usage", "fields": {"limit": "max["}}}),
        "exporter.yml: runtime.resources.usage.fields.limit: invalid JMESPath",
    ),
    "a field in a time zone that does not exist": (
        runtime(resources={"usage": {"fields": {"resetsAt": {"path": "at", "convert": "local", "zone": "Mars"}}}}),
        "exporter.yml: runtime.resources.usage.fields.resetsAt.zone: 'Mars' is not a time zone",
    ),
    "a field of one of several runtimes": (
        text('runtimes: [{name: eu, base_url: "http://h", resources: {usage: {items: "a["}}}]'),
        "exporter.yml: runtimes.eu.resources.usage.items: invalid JMESPath",
    ),
    "a field of a preset of one's own": (
        preset({"usage": {"items": "a["}}),
        "own.yml: runtime.resources.usage.items: inv",
    ),
    "an expression to the token of a login": (
        runtime(auth={"login": {"path": "/login", "body_file": "x", "token": "a["}}),
        "exporter.yml: runtime.auth.login.token: invalid JMESPath",
    ),
    "a reference of a run that no field has": (
        runtime(resources={"job": {"path": "/runs/{ref.num}"}, **REFERRING}),
        "exporter.yml: runtime.resources.job: the request contains {ref.num}; projects.fields and jobs.fields do not",
    ),
    "a reference of a run in a query": (
        runtime(resources={"records": {"path": "/records", "query": {"n": "{ref.num}"}}, **REFERRING}),
        "exporter.yml: runtime.resources.records: the request contains {ref.num}; projects.fields and jobs.fields do",
    ),
    "a reference of a run without projects": (
        runtime(
            resources={
                "projects": "absent",
                "jobs": {**REFERRING["jobs"], "path": "/runs"},
                "job": {"path": "/runs/{ref.num}"},
            }
        ),
        "exporter.yml: runtime.resources.job: the request contains {ref.num}; projects.fields and jobs.fields do not",
    ),
    "a reference of a project that no field has": (
        runtime(resources={**REFERRING, "jobs": {"path": "/{ref.org}", "fields": {"id": "id"}}}),
        "exporter.yml: runtime.resources.jobs: the request contains {ref.org}; projects.fields do not have it",
    ),
    "30,000 unknown keys": (text("".join(f"k{n}: 1\n" for n in range(30_000))), "exporter.yml: k0: unknown key"),
    "60,000 keys": (text("".join(f"k{n}: 1\n" for n in range(60_000))), "exporter.yml: not YAML: too many values"),
    "a key of 100,000 characters": (text(f'? "{"k" * 100_000}"\n: 1'), "kkk: unknown key; known are runtime"),
    "100,000 nested lists": (text("a: " + "[" * 100_000), "exporter.yml: not YAML: nested too deeply"),
    "a number with base 60 of 400,000 digits": (
        text(f"limits: {{runs: {'1:' * 400_000}1}}"),
        "exporter.yml: limits.runs: expected a whole number, got text",
    ),
    "a number of 5,000 digits": (
        text(f"limits: {{runs: {'9' * 5000}}}"),
        "exporter.yml: line 1: not YAML: a number that is too long",
    ),
    "a date that does not exist": (
        text("runtime: {base_url: http://h}\nretention: 2001-99-99"),
        "exporter.yml: retention: expected a duration such as 5s or 1h30m, got '2001-99-99'",
    ),
    "a limit that no computer has": (
        lambda folder: config(folder, limits={"body_bytes": 10**20}),
        "limits.body_bytes: expected a whole number, 1,024 to 1,000,000,000,000",
    ),
    "a duration of a million years": (
        lambda folder: config(folder, retention="1000000y"),
        "retention: expected a duration of at most 100y",
    ),
    "a duration without end": (
        lambda folder: config(folder, retention=f"{'9' * 400}y"),
        "retention: expected a duration of at most 100y",
    ),
    "a pattern of 5,000 parentheses": (
        lambda folder: config(folder, projects={"include": ["(" * 5000]}),
        "projects.include[0]: expected a regular expression that is not nested so deeply",
    ),
    "a pattern that repeats too often": (
        lambda folder: config(folder, projects={"include": ["a{99999999999}"]}),
        "projects.include[0]: expected a regular expression, got 'a{99999999999}': the repetition number is too large",
    ),
    "a URL with a space": (runtime(base_url="http://h/a b"), "runtime.base_url: expected a URL such as"),
    "a host with a space": (runtime(base_url="http://a b"), "runtime.base_url: expected a URL such as"),
    "a URL with a space at its end": (runtime(base_url="http://h "), "runtime.base_url: expected a URL such as"),
    "a URL with a line break": (runtime(base_url="http://h\n"), "runtime.base_url: expected a URL such as"),
    "a URL with a tab": (runtime(base_url="http://h\t/x"), "runtime.base_url: expected a URL such as"),
    "a URL with a space of no width": (
        runtime(base_url="http://h/\u200b"),
        "runtime.base_url: expected a URL such as",
    ),
    "a host with an empty part": (runtime(base_url="http://a..b"), "runtime.base_url: expected a URL such as"),
    "a host that is too long": (
        runtime(base_url=f"http://{'a' * 64}.test"),
        "runtime.base_url: expected a URL such as",
    ),
    "a host that no name server knows": (
        runtime(base_url="http://\N{GRINNING FACE}.test"),
        "runtime.base_url: expected a URL such as",
    ),
    "a path with a line break": (
        runtime(resources={"jobs": {"path": "/a\nb"}}),
        "runtime.resources.jobs.path: expected one line of text",
    ),
    "a header with a line break": (
        runtime(headers={"X-Tenant": "hunter2\r\nX-More: 1"}),
        "runtime.headers: X-Tenant: expected one line of printable ASCII text",
    ),
    "a header outside ASCII": (
        runtime(headers={"X-Tenant": "hunter2 \N{EURO SIGN}"}),
        "runtime.headers: X-Tenant: expected one line of printable ASCII text",
    ),
    "a header with a space at its end": (
        runtime(headers={"X-Tenant": "hunter2 "}),
        "runtime.headers: X-Tenant: expected one line of printable ASCII text",
    ),
    "a header whose name has a space": (
        runtime(headers={"X Tenant": "hunter2"}),
        "runtime.headers: expected the name of a header such as X-Tenant, got 'X Tenant'",
    ),
    "a header without a name": (
        runtime(headers={"": "hunter2"}),
        "runtime.headers: expected the name of a header such as X-Tenant, got ''",
    ),
    "a header that ends the request": (
        runtime(headers={"Content-Length": "5"}),
        "runtime.headers: Content-Length is not allowed",
    ),
    "a proxy's password as a header": (
        runtime(headers={"Proxy-Authorization": "hunter2"}),
        "runtime.headers: a secret does not belong in this file",
    ),
    "a user with a colon": (
        runtime(auth={"type": "basic", "username": "a:b"}),
        "runtime.auth.username: expected one line of text without a colon",
    ),
    "a user with a line break": (
        runtime(auth={"type": "basic", "username": "a\nb"}),
        "runtime.auth.username: expected one line of text without a colon",
    ),
    "a token in a header that ends the request": (
        runtime(auth={"type": "header", "header": "Transfer-Encoding"}),
        "runtime.auth.header: expected the name of a header",
    ),
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
        text("{runtime: {base_url: http://h}, statuses: {on: running}}"),
        "statuses: expected keys that are text; put true, yes, on, no, off and numbers in quotes",
    ),
    "an expression that is none": (
        runtime(resources={"jobs": {"items": "a["}}),
        "runtime.resources.jobs.items: ",
    ),
    "a folder for state that probes would not use": (
        lambda folder: config(folder, storage={"path": str(folder / "state")}, projects={"on_probe": True}),
        "storage.path: not allowed with projects.on_probe",
    ),
    "a header of responses outside ASCII": (
        web("http_server_config: {headers: {X-Frame-Options: \N{EURO SIGN}}}"),
        "headers.X-Frame-Options: expected one line of printable ASCII text",
    ),
    "a password that is not hashed": (
        web("basic_auth_users: {a: hunter2}"),
        "basic_auth_users.a: expected a bcrypt hash",
    ),
}

UNUSABLE: dict[str, tuple[Callable[[Path], None], str]] = {
    "no file": (lambda folder: None, "exporter.yml: cannot be read: No such file or directory"),
    "a folder": (lambda folder: (folder / "exporter.yml").mkdir(), "exporter.yml: cannot be read: Is a directory"),
    "two megabytes": (text("#" * 2_000_000), "expected settings, not more than 1,000,000 bytes"),
    "a preset that is not there": (runtime(preset="x.yml"), "x.yml: cannot be read: No such file"),
    "a token's file that is not there": (token(None), "runtime.token_file: "),
    "a token's file that is empty": (token(b"\n"), "token: is empty; expected one token"),
    "a token's file with more": (token(b"a b"), "expected one token and nothing else"),
    "a token that is binary": (token(b"\xff"), "expected a token in ASCII"),
    "a token's file that is a folder": (
        runtime(token_file="/"),
        "runtime.token_file: /: cannot be read: Is a directory",
    ),
    "a token's file that never ends": (
        runtime(token_file="/dev/zero"),
        "runtime.token_file: /dev/zero: cannot be read: expected a regular file, not a pipe or a device",
    ),
    "a login's file that is not there": (
        runtime(auth={"login": {"path": "/login", "body_file": "/nowhere"}}),
        "runtime.auth.login.body_file: /nowhere: cannot be read: No such file",
    ),
    "a token's file that is a pipe": (
        pipe("token_file"),
        "pipe: cannot be read: expected a regular file, not a pipe or a device",
    ),
    "a token's file of a terabyte": (
        terabyte("token_file"),
        "sparse: cannot be read: expected a token, not more than 65,536 bytes",
    ),
    "a config file that never ends": (
        lambda folder: (folder / "exporter.yml").symlink_to("/dev/zero"),
        "expected settings, not more than 1,000,000 bytes",
    ),
    "a web config file that never ends": (
        lambda folder: config(folder, web={"config_file": "/dev/zero"}),
        "/dev/zero: cannot be read: expected a regular file, not a pipe or a device",
    ),
    "an authority that is not there": (
        runtime(tls={"ca_file": "/x.pem"}),
        "runtime.tls.ca_file: /x.pem: cannot be used",
    ),
    "an authority that never ends": (
        runtime(tls={"ca_file": "/dev/zero"}),
        "runtime.tls.ca_file: /dev/zero: cannot be used: expected a regular file",
    ),
    "an authority that is a token": (
        runtime(tls={"ca_file": __file__}),
        f"runtime.tls.ca_file: {__file__}: cannot be used: NO_CERTIFICATE_OR_CRL_FOUND",
    ),
    "authorities of a terabyte": (
        terabyte("ca_file"),
        "runtime.tls.ca_file: {folder}/sparse: cannot be used: expected certificates, not more than 16,777,216 bytes",
    ),
    "a certificate that never ends": (
        runtime(tls={"cert_file": "/dev/zero"}),
        "runtime.tls.cert_file: /dev/zero: cannot be used: expected a regular file",
    ),
    "a key with a password": (
        encrypted_key(web=False),
        "key.pem: cannot be used: expected a key without a password",
    ),
    "a server's key with a password": (
        encrypted_key(web=True),
        "key.pem: cannot be used: expected a key without a password",
    ),
    "a server's certificate that never ends": (
        web("tls_server_config: {cert_file: /dev/zero, key_file: /dev/zero}"),
        "tls_server_config.cert_file: /dev/zero: cannot be used: expected a regular file",
    ),
    "a server's authority that never ends": (
        client_authority("/dev/zero"),
        "tls_server_config.client_ca_file: /dev/zero: cannot be used: expected a regular file",
    ),
    "a server's authority that is no certificate": (
        client_authority(__file__),
        f"tls_server_config.client_ca_file: {__file__}: cannot be used: NO_CERTIFICATE_OR_CRL_FOUND",
    ),
    "the key of another certificate": (foreign_key, "runtime.tls.cert_file: "),
    "a folder for state that is a file": (occupied, "storage.path: "),
    "a web config file that is not there": (
        lambda folder: config(folder, web={"config_file": "/x.yml"}),
        "/x.yml: cannot be read: No such file",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_status_2(tmp_path: Path, mistake: str) -> None:
    check(tmp_path, *MISTAKES[mistake], status=2)


@pytest.mark.parametrize("file", UNUSABLE)
def test_what_the_config_names_but_cannot_be_used_is_one_line_and_status_1(tmp_path: Path, file: str) -> None:
    """It may be there at the next start, which systemd leaves out after status 2."""
    check(tmp_path, *UNUSABLE[file], status=1)


def check(folder: Path, make: Callable[[Path], object], says: str, *, status: int) -> None:
    make(folder)
    ended = serve(folder)
    assert ended.returncode == status, ended.stderr
    assert says.replace("{folder}", str(folder)) in ended.stderr
    assert ended.stderr.count("\n") == 1, f"more than a line: {ended.stderr}"
    assert len(ended.stderr) < 2500
    assert "hunter2" not in ended.stderr
    assert ended.stdout == ""


@pytest.mark.parametrize(
    ("name", "value", "more", "says"),
    [
        ("TOKEN", "hunter2\n", {}, "runtime.token: expected one token, without line breaks"),
        ("TOKEN", "hunter2\nX-More: 1", {}, "runtime.token: expected one token, without line breaks"),
        ("TOKEN", "hunter2\t", {}, "runtime.token: expected one token, without line breaks"),
        ("TOKEN", "hunter2\N{EURO SIGN}", {}, "runtime.token: expected a token of ASCII characters"),
        ("TOKEN", "hunter2 \N{EURO SIGN}", {"type": "header"}, "runtime.token: expected a token of ASCII characters"),
        ("TOKEN", " hunter2", {"type": "header"}, "runtime.token: expected a token of ASCII characters"),
        ("TOKEN", "two hunter2", {}, "runtime.token: expected one token, without spaces"),
        ("TOKEN", "hunter2\n", {"type": "basic", "username": "u"}, "runtime.token: expected one token, without line"),
        ("TOKEN", "hunter2\udcff", {}, "runtime.token: expected text that UTF-8 can encode"),
        ("TOKEN", "hunter2".ljust(65_537, "x"), {}, "runtime.token: expected at most 65,536 characters"),
        ("BASE_URL", "http://h ", {}, "runtime.base_url: expected a URL such as"),
        ("PROXY", "http://user:hunter2@a b:3128", {}, "runtime.proxy: expected a URL such as"),
        ("HEADERS", "[" * 10_000, {}, "expected a YAML value such as 8, true or [a, b]"),
        ("HEADERS", "9" * 5_000, {}, "expected a YAML value such as 8, true or [a, b]"),
        ("HEADERS", 'X-Tenant: "hunter2\\n"', {}, "runtime.headers: X-Tenant: expected one line of printable ASCII"),
    ],
)
def test_a_mistake_in_the_environment_is_one_line_and_status_2_and_shows_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, more: dict[str, str], says: str
) -> None:
    runtime(auth=more)(tmp_path)
    monkeypatch.setenv(f"SPINNER_EXPORTER_RUNTIME_{name}", value)
    ended = serve(tmp_path)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert f"SPINNER_EXPORTER_RUNTIME_{name}: {says}" in ended.stderr
    assert "hunter2" not in ended.stderr


def serve(folder: Path) -> Ended:
    return run("serve", f"--config.file={folder / 'exporter.yml'}", "--web.listen-address=127.0.0.1:0")


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    config(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = run("serve", f"--config.file={tmp_path / 'exporter.yml'}", f"--web.listen-address={address}")
    assert ended.returncode == 1
    where = f"web.listen_address: cannot listen on {address}: Address already in use"
    assert f"{where}; choose another address with --web.listen-address" in ended.stderr


def test_an_address_that_the_machine_does_not_have_yet_is_named(tmp_path: Path) -> None:
    config(tmp_path)
    ended = run("serve", f"--config.file={tmp_path / 'exporter.yml'}", "--web.listen-address=192.0.2.1:10095")
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert "web.listen_address: cannot listen on 192.0.2.1:10095: Cannot assign requested address" in ended.stderr


def test_state_that_another_exporter_has_open_is_named(tmp_path: Path) -> None:
    config(tmp_path, storage={"path": str(tmp_path / "state")})
    state = StateFile(tmp_path / "state", "127.0.0.1:1", GOOD["runtime"]["base_url"])
    try:
        ended = serve(tmp_path)
    finally:
        state.close()
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert "storage.path: " in ended.stderr
    assert "another process has it open" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["serve", "--nothing"], "No such option"),
        (["serve", "--web.enable-lifecycle=maybe"], "does not take a value"),
        (["serv"], "No such command 'serv'"),
        (["check-config"], "Missing argument 'FILE', or --config.file=FILE."),
        (["check-config", "a.yml", "--config.file=b.yml"], "expected one config file, either as FILE or with"),
        *(
            ([command, "a.yml"], "Got unexpected extra argument (a.yml); name the config file with --config.file=FILE")
            for command in ("serve", "once", "doctor")
        ),
    ],
)
def test_an_invalid_command_line_is_a_usage_error(arguments: list[str], says: str) -> None:
    ended = run(*arguments)
    assert ended.returncode == 2
    assert says in ended.stderr
