"""The preset `dagster` against a real Dagster, which `make test` installs into an environment of its own."""

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporter.config import load
from exporter.service import Exporter
from tests.stack.programs import ROOT, free_port, running

PROGRAMS = ROOT / ".servers" / "dagster" / "bin"
STORY = ROOT / "tests" / "servers" / "dagster_story.py"


class Dagster:
    """A Dagster, and what is needed to have it run something."""

    def __init__(self, url: str, environ: dict[str, str]) -> None:
        self.url = url
        self.environ = environ
        self.go = Path(environ["STORY_GO"])

    def tell(self, part: str) -> str:
        """Tell a part of the story to its end; returns what was printed."""
        told = subprocess.run(
            [PROGRAMS / "python", STORY, part], env=self.environ, capture_output=True, text=True, check=False
        )
        assert told.returncode == 0, told.stderr
        return told.stdout.strip()

    def begin(self, part: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [PROGRAMS / "python", STORY, part],
            env=self.environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


@pytest.fixture(scope="module")
def dagster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dagster]:
    if not PROGRAMS.exists():
        message = f"{PROGRAMS} is not there; `make test` installs it"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    home = tmp_path_factory.mktemp("dagster")
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    environ = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "STORY_GO": str(home / "go"),
        "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
    }
    port = free_port()
    patch = pytest.MonkeyPatch()
    for name, value in environ.items():
        patch.setenv(name, value)
    try:
        command = [str(PROGRAMS / "dagster-webserver"), f"--python-file={STORY}", "--host=127.0.0.1", f"--port={port}"]
        log = home / "webserver.log"
        with running(command, f"http://127.0.0.1:{port}", log, ready="/server_info", patience=90) as url:
            yield Dagster(url, environ)
    finally:
        patch.undo()


@pytest.fixture
async def exporter(dagster: Dagster, tmp_path: Path) -> AsyncIterator[Exporter]:
    file = tmp_path / "exporter.yml"
    # This is all that a user writes.
    file.write_text(f"runtime: {{preset: dagster, base_url: '{dagster.url}', project: Data}}")
    made = Exporter(load(file, environ={"SPINNER_EXPORTER_SYNC_MIN_INTERVAL": "0s"}))
    yield made
    await made.close()


async def samples(exporter: Exporter) -> dict[tuple[str, ...], float]:
    """Read once; samples by name, spinner and what else tells them apart but the project and the run."""
    page = (await exporter.page(patience=60)).decode()
    assert "secret contact" not in page
    return {
        (
            sample.name,
            sample.labels.get("spinner", ""),
            *(value for key, value in sorted(sample.labels.items()) if key not in ("project", "run_id", "spinner")),
        ): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


@pytest.mark.timeout(240)
async def test_runs_their_steps_and_their_failures_are_shown(dagster: Dagster, exporter: Exporter) -> None:
    dagster.tell("reminders")
    dagster.tell("queue")
    under_way = dagster.begin("reports")
    try:

        async def shown_running() -> dict[tuple[str, ...], float]:
            for _ in range(200):
                shown = await samples(exporter)
                # Dagster keeps a run's status and its steps in two places, which it does not read at one moment.
                if (
                    shown.get(("spinner_run_records", "reports", "running"), 0)
                    and shown["spinner_runs", "reports", "running"]
                ):
                    return shown
            pytest.fail(f"the run that waits is not shown at work: {shown}")

        shown = await shown_running()
        assert shown["spinner_api_up", ""] == 1
        assert shown["spinner_runtime_up", ""] == 0, "no daemon runs, so that the queued run will never move"

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

        dagster.go.touch()
        assert under_way.wait(60) == 0
    finally:
        under_way.kill()
        under_way.wait()
    shown = await samples(exporter)
    assert shown["spinner_runs_finished_total", "reports", "completed"] == 1
    assert shown["spinner_records_processed_total", "reports", "completed"] == 2
