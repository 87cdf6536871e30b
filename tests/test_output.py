"""Commands whose output cannot be printed: one line and status 1, in processes of their own."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import click
import httpx
import pytest

from exporter.output import checked_output, print_for_people
from tests.stack.programs import EXPORTER, ROOT, free_port, runtime, until

CONFIG = "runtime: {{base_url: '{url}', name: here}}\nlog: {{level: error}}\n"

U_UMLAUT = "\N{LATIN SMALL LETTER U WITH DIAERESIS}"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A runtime that cannot be reached: the page contains metrics about the exporter only."""
    file = tmp_path / "exporter.yml"
    file.write_text(CONFIG.format(url="http://127.0.0.1:9"))
    return file


COMMANDS = {
    "once": ("once", "--config.file={config}"),
    "check-config": ("check-config", "{config}"),
    "doctor": ("doctor", "--config.file={config}"),
    "doctor as JSON": ("doctor", "--config.file={config}", "--json"),
    "doctor with an OpenAPI document": ("doctor", "--suggest", "--openapi={openapi}"),
    "metrics-doc": ("metrics-doc",),
    "the version": ("--version",),
    "help": ("once", "--help"),
    "the demo": ("demo", "--duration=1s", "--speed=600"),
}


def ended(command: tuple[str, ...], stdout: int | None, environ: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a command and return its status and standard error. Without `stdout`, standard output is closed."""
    close = () if stdout is not None else ("import os, sys; os.close(1); os.execv(sys.executable, sys.argv[1:])",)
    before = [sys.executable, "-c", *close] if close else []
    process = subprocess.run(
        [*before, *EXPORTER, *command],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
        env=os.environ | (environ or {}),
    )
    return process.returncode, process.stderr


@pytest.mark.parametrize(
    ("name", "problem", "unbuffered"),
    [
        *((name, "full", False) for name in COMMANDS),
        *((name, "no reader", False) for name in ("once", "doctor", "the demo")),
        *((name, "closed", False) for name in ("once", "check-config")),
        *((name, "full", True) for name in ("once", "help")),
    ],
)
def test_a_command_that_cannot_print_ends_with_one_line_and_status_1(
    config: Path, name: str, problem: str, unbuffered: bool
) -> None:
    openapi = ROOT / "exporter" / "simulator" / "openapi.yaml"
    command = tuple(argument.format(config=config, openapi=openapi) for argument in COMMANDS[name])
    # Without a PATH the demo starts no Prometheus.
    environ = {"PYTHONUNBUFFERED": "1" if unbuffered else "", "PATH": "/nowhere"}
    if problem == "full":
        with Path("/dev/full").open("wb") as full:
            status, stderr = ended(command, full.fileno(), environ)
        reason = "No space left on device"
    elif problem == "no reader":
        reading, writing = os.pipe()
        os.close(reading)
        status, stderr = ended(command, writing, environ)
        os.close(writing)
        reason = "Broken pipe"
    else:
        status, stderr = ended(command, None, environ)
        reason = "it is closed"
    assert (status, stderr) == (1, f"spinner-exporter: standard output: cannot be written: {reason}\n")


def test_once_on_a_terminal_without_utf_8_ends_with_one_line_and_prints_nothing(tmp_path: Path) -> None:
    file = tmp_path / "exporter.yml"
    file.write_text(CONFIG.format(url="http://127.0.0.1:9").replace("here", f"b{U_UMLAUT}ro"))
    with (tmp_path / "page").open("wb") as page:
        status, stderr = ended(("once", f"--config.file={file}"), page.fileno(), {"PYTHONIOENCODING": "ascii"})
    what = "spinner-exporter: standard output: ascii cannot encode '\\xfc'; set PYTHONIOENCODING=utf-8\n"
    assert (status, stderr) == (1, what)
    assert (tmp_path / "page").read_bytes() == b""
    with (tmp_path / "page").open("wb") as page:
        ended(("once", f"--config.file={file}"), page.fileno(), {"PYTHONIOENCODING": "utf-8"})
    assert f'runtime="b{U_UMLAUT}ro"' in (tmp_path / "page").read_text()


def test_what_people_read_is_printed_on_a_terminal_without_utf_8_too(tmp_path: Path) -> None:
    file, output = tmp_path / f"b{U_UMLAUT}ro.yml", tmp_path / "output"
    with runtime(tmp_path) as url:
        file.write_text(CONFIG.format(url=url).replace("here", f"b{U_UMLAUT}ro"))
        for command, shown in (
            (("doctor", f"--config.file={file}"), ("runtime b\\xfcro\n", "full read: succeeded")),
            (("check-config", str(file)), ("b\\xfcro.yml: good\n",)),
        ):
            with output.open("wb") as stdout:
                assert ended(command, stdout.fileno(), {"PYTHONIOENCODING": "ascii"}) == (0, "")
            text = output.read_bytes().decode("ascii")
            assert all(each in text for each in shown), text


def test_our_own_signs_have_a_plain_form() -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with contextlib.redirect_stdout(terminal), checked_output():
        print_for_people()
        click.echo("too lo\N{HORIZONTAL ELLIPSIS} \N{FULL BLOCK}\N{LIGHT SHADE}")
    assert terminal.buffer.getvalue() == b"too lo... #-\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_once_into_a_pipe_that_is_read_in_part_ends_with_one_line(config: Path, unbuffered: str) -> None:
    """As with `| head -1`; the page is larger than what this pipe holds."""
    process = subprocess.Popen(
        [*EXPORTER, "once", f"--config.file={config}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        bufsize=0,
        pipesize=4096,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.read(6) == b"# HELP"
    process.stdout.close()
    stderr = process.stderr.read().decode()
    process.stderr.close()
    assert (process.wait(timeout=60), stderr) == (
        1,
        "spinner-exporter: standard output: cannot be written: Broken pipe\n",
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_once_into_a_file_that_becomes_full_ends_with_one_line(tmp_path: Path, config: Path, unbuffered: str) -> None:
    script = (
        "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)); "
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    with (tmp_path / "page").open("wb") as page:
        ended = subprocess.run(
            [sys.executable, "-c", script, *EXPORTER[1:], "once", f"--config.file={config}"],
            stdout=page,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
            cwd=ROOT,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered, "PYTHONDONTWRITEBYTECODE": "1"},
        )
    assert (ended.returncode, ended.stderr) == (
        1,
        "spinner-exporter: standard output: cannot be written: File too large\n",
    )


def test_errors_that_cannot_be_printed_leave_their_status(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        for command, status in ((("once", "--config.file=/nowhere.yml"), 1), (("once", "--nothing"), 2)):
            process = subprocess.run([*EXPORTER, *command], stderr=full.fileno(), cwd=ROOT, check=False, timeout=60)
            assert process.returncode == status


def test_the_pager_ends_with_one_line_when_it_cannot_print_a_page(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with Path("/dev/full").open("wb") as full, (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*EXPORTER, "pages", f"--web.listen-address=127.0.0.1:{port}"], stdout=full, stderr=log, cwd=ROOT
        )
        try:
            until(lambda: _responds(url), "the pager responds")
            alert = {"status": "firing", "labels": {"alertname": "Test"}, "annotations": {}}
            httpx.post(f"{url}/page", json={"alerts": [alert]})
            assert process.wait(timeout=15) == 1
        finally:
            process.kill()
            process.wait()
    assert (tmp_path / "log").read_text() == (
        "spinner-exporter: standard output: cannot be written: No space left on device\n"
    )


def _responds(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/healthy").status_code == 200
    except httpx.HTTPError:
        return False
