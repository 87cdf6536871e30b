"""The preset `dagster` with a real Dagster, which `make test-all` installs into its own environment."""

import contextlib
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporter.config import load
from exporter.service import Exporter
from tests.stack.programs import ROOT, TIMEOUT, free_port, running, server

JOBS = ROOT / "tests" / "servers" / "dagster_jobs.py"


class Dagster:
    """A Dagster server, and functions that run its jobs."""

    def __init__(self, url: str, python: Path, environ: dict[str, str]) -> None:
        self.url = url
        self._python = python
        self.environ = environ
        self.continue_file = Path(environ["CONTINUE_FILE"])

    def run(self, job: str) -> str:
        """Run a command of dagster_jobs.py until it ends; return what it printed."""
        ended = subprocess.run([self._python, JOBS, job], env=self.environ, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.strip()

    @contextlib.contextmanager
    def in_progress(self, job: str) -> Iterator[None]:
        """Run a job whose last steps wait until the end of the block; then it must succeed."""
        self.continue_file.unlink(missing_ok=True)
        started = self._start(job)
        try:
            yield
            self.continue_file.touch()
            assert started.wait(60) == 0
        finally:
            started.kill()
            started.wait()

    def _start(self, job: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [self._python, JOBS, job],
            env=self.environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


@pytest.fixture(scope="module")
def dagster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dagster]:
    programs = server("dagster")
    home = tmp_path_factory.mktemp("dagster")
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    environ = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "CONTINUE_FILE": str(home / "go"),
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
    }
    port = free_port()
    patch = pytest.MonkeyPatch()
    for name, value in environ.items():
        patch.setenv(name, value)
    try:
        command = [str(programs / "dagster-webserver"), f"--python-file={JOBS}", "--host=127.0.0.1", f"--port={port}"]
        log = home / "webserver.log"
        with running(command, f"http://127.0.0.1:{port}", log, ready="/server_info", timeout=180) as url:
            yield Dagster(url, programs / "python", environ)
    finally:
        patch.undo()


@pytest.fixture
async def exporter(dagster: Dagster, tmp_path: Path) -> AsyncIterator[Exporter]:
    file = tmp_path / "exporter.yml"
    # This is all that a user writes.
    file.write_text(f"runtime: {{preset: dagster, base_url: '{dagster.url}', project: Data}}")
    made = Exporter(load(file, environ={"SPINNER_EXPORTER_SYNC_MIN_INTERVAL": "0s"}).runtimes)
    yield made
    await made.close()


async def samples(exporter: Exporter) -> dict[tuple[str, ...], float]:
    """Read once; return the samples summed over projects and runs, by name, spinner and other labels."""
    page = str(await exporter.page(max_wait=60))
    assert "secret contact" not in page
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            others = (
                value
                for name, value in sorted(sample.labels.items())
                if name not in ("runtime", "project", "run_id", "spinner")
            )
            key = (sample.name, sample.labels.get("spinner", ""), *others)
            found[key] = found.get(key, 0) + sample.value
    return found


@pytest.mark.timeout(240)
async def test_runs_steps_and_failures_are_shown(dagster: Dagster, exporter: Exporter) -> None:
    dagster.run("reminders")
    dagster.run("queue")
    with dagster.in_progress("reports"):
        # Dagster stores a run's status and its steps separately, and does not read both at the same time. Before the
        # step that waits, another one runs for a moment.
        expected = [("spinner_runs", "reports", "running")]
        expected += [("spinner_run_records", "reports", state) for state in ("completed", "running")]
        give_up = time.monotonic() + 2 * TIMEOUT
        shown = await samples(exporter)
        while [shown.get(each) for each in expected] != [1, 1, 1]:
            assert time.monotonic() < give_up, f"the waiting run is not shown as running: {shown}"
            shown = await samples(exporter)

        assert shown["spinner_api_up", ""] == 1
        assert shown["spinner_runtime_up", ""] == 0, "no daemon runs, so the queued run will never start"

        assert shown["spinner_run_status", "reminders", "failed"] == 1
        states = {state: shown["spinner_run_records", "reminders", state] for state in ("completed", "failed")}
        assert states["failed"] == 1
        assert states["completed"] >= 1
        assert shown["spinner_run_failures", "reminders", "FAILURE", "send"] == 1
        assert ("spinner_run_failed_record_info", "reminders", "FAILURE", "send", "send") in shown
        assert shown["spinner_runs_finished_total", "reminders", "failed"] == 1

        assert shown["spinner_runs", "reports", "running"] == 1
        assert shown["spinner_runs", "reports", "queued"] == 1
        assert shown["spinner_run_records", "reports", "completed"] == 1
    shown = await samples(exporter)
    assert shown["spinner_runs_finished_total", "reports", "completed"] == 1
    assert shown["spinner_records_processed_total", "reports", "completed"] == 2


@pytest.mark.timeout(240)
async def test_a_run_whose_steps_grow_shows_no_ratio_and_what_it_works_on(dagster: Dagster, exporter: Exporter) -> None:
    """Of three mapped steps one has ended, and one waits: the run is not finished, and nobody knows how far it is."""
    with dagster.in_progress("calls"):
        give_up = time.monotonic() + 2 * TIMEOUT
        shown = await samples(exporter)
        while shown.get(("spinner_run_records", "calls", "completed")) != 2:
            assert time.monotonic() < give_up, f"the first mapped step does not end: {shown}"
            shown = await samples(exporter)
        assert ("spinner_run_progress_ratio", "calls") not in shown
        monitored = next(iter(exporter.runtimes.values()))
        open_runs = [run.snapshot for run in monitored.store.open_runs(project_of(exporter)).values()]
        (run,) = (each for each in open_runs if each.spinner == "calls")
        pages = [page async for page in monitored.client.records_in_flight(run)]
        (record,) = (record for page in pages for record in page.items)
        assert (record.id, record.step, record.attempts) == ("call[1]", "call[1]", 1)
        assert record.started_at is not None
        assert record.started_at == record.step_started_at
    shown = await samples(exporter)
    assert shown["spinner_run_progress_ratio", "calls"] == 1
    assert shown["spinner_records_processed_total", "calls", "completed"] == 4


@pytest.mark.timeout(240)
async def test_the_number_of_requests_does_not_depend_on_the_number_of_runs(
    dagster: Dagster, exporter: Exporter
) -> None:
    for _ in range(2):
        dagster.run("queue")
    await samples(exporter)
    # Health, the open runs when they are due, and what changed.
    assert await requests_of(exporter) <= 3


async def requests_of(exporter: Exporter) -> float:
    """Return how many requests the next scrape sends."""
    before = total_requests(str(await exporter.page(max_wait=60)))
    return total_requests(str(await exporter.page(max_wait=60))) - before


def total_requests(page: str) -> float:
    name = "spinner_exporter_upstream_requests_total"
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name
    )


def project_of(exporter: Exporter) -> str:
    (project_id,) = next(iter(exporter.runtimes.values())).store.project_ids()
    return project_id
