"""The demo: what it prints, which programs it starts, and that it stops them."""

import asyncio
import inspect
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from exporter.demo import table
from exporter.demo.programs import OTHER_PORTS, Program, reserve
from exporter.demo.stack import with_web_page
from exporter.demo.table import _human, as_table, rows_of
from exporter.metrics import catalogue
from tests.stack.programs import ROOT, until

PAGE = (ROOT / "tests" / "golden" / "page.prom").read_text()

# Replaces Grafana, which is not available in the tests: it responds like a ready Grafana, and writes its arguments and
# environment to a file.
FAKE_GRAFANA = """\
#!{python}
import http.server, json, os, sys
json.dump({{"arguments": sys.argv[1:], "environment": dict(os.environ)}}, open({seen!r}, "w"))
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/api/health" else 404)
        self.end_headers()
address = (os.environ["GF_SERVER_HTTP_ADDR"], int(os.environ["GF_SERVER_HTTP_PORT"]))
http.server.HTTPServer(address, Health).serve_forever()
"""


def test_the_table_has_active_runs_first() -> None:
    rows = {row.run_id: row for row in rows_of(PAGE)}
    assert [row.ended for row in rows.values()] == [False, False, False, False, True]
    assert (rows["run-1"].status, rows["run-1"].progress, rows["run-1"].duration, rows["run-1"].failed) == (
        "running",
        0.5,
        55,
        1,
    )
    assert rows["run-3"].duration is None, "a queued run has no duration"
    assert rows["run-3"].failed is None, "without counts it is not known whether records failed"
    assert rows["run-4"].progress is None, "without a total there is no progress"


def test_the_table_has_only_metrics_of_the_catalogue() -> None:
    """A name that the exporter does not have would leave a column empty."""
    names = set(re.findall(r'"(spinner_\w+)"', inspect.getsource(table)))
    assert names
    assert names <= {family.name for family in catalogue.RUN_FAMILIES}


def test_the_table_fits_into_eighty_columns() -> None:
    page = PAGE.replace('spinner="welcome"', 'spinner="Appointment reminders"')
    console = Console(width=80, file=io.StringIO())
    console.print(as_table(rows_of(page), 10, 80))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for word in ("failed", "duration", "completed", "? unknown", "████░░░░  50%", "Appointment reminders"):
        assert word in text, f"{word!r} is cut off:\n{text}"


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0s"), (61, "1m01s"), (7200, "2h00m"), (273600, "3d04h")])
def test_durations_are_formatted_with_two_units(seconds: float, text: str) -> None:
    assert _human(seconds) == text


def test_ctrl_c_stops_all_programs_of_the_demo(tmp_path: Path) -> None:
    with demo(tmp_path, "--speed=600", path=f"{tmp_path}") as (process, output):
        urls = re.findall(r"http://localhost:(\d+)", output.read_text())
        assert len(urls) == 2, "expected only the runtime and the exporter"
        assert all(responds(port) for port in urls)
        for program in ("prometheus", "alertmanager", "grafana"):
            assert re.search(rf"{program} +not on PATH; to install it: \S+", output.read_text()), program
        assert "none: they need prometheus and alertmanager" in output.read_text()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
    assert "no program is left running" in output.read_text()
    assert not any(responds(port) for port in urls), "a program of the demo is still running"


@pytest.mark.parametrize(("docker", "offered"), [(True, True), (False, False)])
def test_without_grafana_docker_is_offered_for_the_same_scenario(tmp_path: Path, docker: bool, offered: bool) -> None:
    if docker:
        (tmp_path / "docker").write_text("#!/bin/sh\n")
        (tmp_path / "docker").chmod(0o755)
    with demo(tmp_path, "--speed=600", "--scenario=backlog", path=f"{tmp_path}") as (_, output):
        command = "SCENARIO=backlog docker compose --profile demo up"
        assert (command in output.read_text()) == offered, output.read_text()


@pytest.mark.parametrize(
    ("pages", "shown"),
    [
        ({"/alerts": "<script src=ui.js></script>"}, "/alerts"),
        ({"/classic/alerts": "<script src=ui.js></script>", "/alerts": ""}, "/classic/alerts"),
        # Debian's Alertmanager responds with a text that says so; its unpacked Prometheus with an error.
        ({"/alerts": "<p>The Debian package does not include a web application.</p>"}, "/api/v1/alerts"),
        ({}, "/api/v1/alerts"),
    ],
)
def test_the_link_to_a_program_without_web_pages_is_its_api(pages: dict[str, str], shown: str) -> None:
    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path in pages else 500)
            self.end_headers()
            self.wfile.write(pages.get(self.path, "").encode())

        def log_message(self, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        program = Program("prometheus", f"http://localhost:{server.server_port}", "/api/v1/alerts")
        assert asyncio.run(with_web_page(program, ["/alerts", "/classic/alerts"])).page == shown
        server.shutdown()


def test_a_port_in_use_is_replaced_by_one_that_the_system_gives_to_no_connection() -> None:
    with reserve(0) as taken, reserve(taken.getsockname()[1]) as other:
        ports = [taken.getsockname()[1], other.getsockname()[1]]
        assert len(set(ports)) == 2
        assert set(ports) <= set(OTHER_PORTS)


def test_grafana_is_started_with_the_dashboards_and_without_login_or_the_caller_s_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen.json"
    grafana = tmp_path / "grafana"
    grafana.write_text(FAKE_GRAFANA.format(python=sys.executable, seen=str(seen)))
    grafana.chmod(0o755)
    caller = {
        "SPINNER_EXPORTER_RUNTIME_BASE_URL": "http://127.0.0.1:9",
        "SPINNER_EXPORTER_STORAGE_PATH": str(tmp_path / "production"),
        "SPINNER_EXPORTER_NO_SUCH_SETTING": "x",
        "GF_DATABASE_URL": "postgres://production",
    }
    for name, value in caller.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GF_PATHS_HOME", "/opt/grafana")
    with demo(tmp_path, "--speed=600", path=f"{tmp_path}") as (_, output):
        assert re.search(r"grafana +http://localhost:\d+/d/spinner-live-ops", output.read_text())
    started = json.loads(seen.read_text())
    environ = started["environment"]
    assert started["arguments"][0] == "server"
    assert environ["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert environ["GF_PATHS_HOME"] == "/opt/grafana", "it is not a setting of what runs there"
    assert not caller.keys() & environ.keys(), "the demo must not use what runs in production"
    assert not (tmp_path / "production").exists()
    assert Path(environ["DASHBOARDS"], "spinner-jobs.json").is_file()
    assert Path(environ["GF_PATHS_PROVISIONING"], "datasources").is_dir()
    assert Path(environ["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]).is_file()


def test_the_demo_stops_after_its_duration(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "exporter", "demo", "--speed=600", "--duration=10m"]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={"PATH": str(tmp_path)}, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "no program is left running" in ended.stdout


def test_an_invalid_duration_is_an_error_of_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "exporter", "demo", "--duration=soon"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert ended.stderr == "spinner-exporter: --duration: expected a duration such as 5s or 1h30m, got 'soon'\n"


@contextmanager
def demo(folder: Path, *flags: str, path: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run a demo that finds programs only in `path`; yield it and its output file when it has printed its table."""
    output = folder / "demo.txt"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "exporter", "demo", *flags],
            stdout=file,
            stderr=file,
            env={**os.environ, "PATH": path, "COLUMNS": "200"},
        )
    try:

        def shows_runs() -> bool:
            assert process.poll() is None, f"the demo ended:\n{output.read_text()}"
            return "active runs" in output.read_text()

        until(shows_runs, f"the demo printed its table; see {output}")
        yield process, output
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=20)
        finally:
            process.kill()


def responds(port: str) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/")
    except httpx.HTTPError:
        return False
    return True
