"""The preset `prefect` with a real Prefect server, which `make test-all` installs into its own environment."""

import contextlib
import itertools
import re
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from exporter.config import load
from exporter.doctor.suggest import from_openapi
from exporter.service import Exporter
from tests.stack.programs import ROOT, free_port, running, server


class Prefect:
    """A Prefect server, and the calls that create flows and runs."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._keys = itertools.count()

    def post(self, path: str, **body: Any) -> Any:
        answer = httpx.post(f"{self.url}/api/{path}", json=body, timeout=30)
        assert answer.is_success, f"{path}: {answer.text}"
        return answer.json()

    def get(self, path: str) -> Any:
        return httpx.get(f"{self.url}/api/{path}", timeout=30).json()

    def flow(self, name: str) -> str:
        return str(self.post("flows/", name=name)["id"])

    def run(self, flow: str, *states: str, parent: str | None = None) -> str:
        """`parent` is the task run of a flow run that stands for this subflow."""
        made = self.post("flow_runs/", flow_id=flow, state={"type": "PENDING"}, parent_task_run_id=parent)
        for state in states:
            self.move(made["id"], state)
        return str(made["id"])

    def move(self, run: str, state: str, name: str | None = None) -> None:
        self.post(f"flow_runs/{run}/set_state", state={"type": state, "name": name}, force=True)

    def task(self, run: str, key: str, state: str, message: str = "") -> str:
        number = next(self._keys)
        made = self.post(
            "task_runs/",
            flow_run_id=run,
            task_key=key,
            dynamic_key=str(number),
            name=f"{key}-{number}",
            state={"type": state, "message": message},
        )
        return str(made["id"])


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    program = server("prefect") / "prefect"
    home = tmp_path_factory.mktemp("prefect")
    port = free_port()
    environ = {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_ENABLED": "false",
    }
    with contextlib.ExitStack() as stack:
        patch = pytest.MonkeyPatch()
        stack.callback(patch.undo)
        for name, value in environ.items():
            patch.setenv(name, value)
        # Without its services, which would change runs.
        command = [str(program), "server", "start", "--host=127.0.0.1", f"--port={port}", "--no-services"]
        url = stack.enter_context(
            running(command, f"http://127.0.0.1:{port}", home / "server.log", ready="/api/health", timeout=180)
        )
        yield Prefect(url)


@pytest.fixture
async def exporter(prefect: Prefect, tmp_path: Path) -> AsyncIterator[Exporter]:
    file = tmp_path / "exporter.yml"
    # This is all that a user writes.
    file.write_text(f"runtime: {{preset: prefect, base_url: '{prefect.url}'}}")
    made = Exporter(load(file, environ={"SPINNER_EXPORTER_SYNC_MIN_INTERVAL": "0s"}).runtimes)
    yield made
    await made.close()


async def samples(exporter: Exporter, spinner: str) -> dict[tuple[str, str], float]:
    page = str(await exporter.page(max_wait=60))
    assert "secret contact" not in page
    return {
        (
            sample.name,
            "/".join(
                value for key, value in sorted(sample.labels.items()) if key not in ("runtime", "project", "spinner")
            ),
        ): (sample.value)
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.labels.get("spinner") == spinner
    }


@pytest.mark.timeout(180)
async def test_runs_records_and_failures_are_shown(prefect: Prefect, exporter: Exporter) -> None:
    flow = prefect.flow("reminders")
    run = prefect.run(flow, "RUNNING")
    for state in ("COMPLETED", "COMPLETED", "RUNNING", "PENDING"):
        prefect.task(run, "send", state)
    prefect.task(run, "call", "FAILED", message="secret contact")
    paused = prefect.run(flow, "RUNNING", "PAUSED")
    crashed = prefect.run(flow, "RUNNING", "CRASHED")
    later = prefect.post("flow_runs/", flow_id=flow, state={"type": "SCHEDULED"})["id"]

    shown = await samples(exporter, "reminders")
    records = {
        state: shown["spinner_run_records", f"{run}/{state}"] for state in ("pending", "running", "completed", "failed")
    }
    assert records == {"pending": 1, "running": 1, "completed": 2, "failed": 1}
    assert shown["spinner_run_failures", f"Failed/{run}/call"] == 1
    assert ("spinner_run_progress_ratio", run) not in shown, "a flow creates task runs while it goes on"
    assert shown["spinner_run_status", f"{run}/running"] == 1
    assert shown["spinner_run_status", f"{paused}/waiting"] == 1
    assert shown["spinner_run_status", f"{crashed}/failed"] == 1
    assert shown["spinner_runs_finished_total", "failed"] == 1
    assert not [name for name, run_id in shown if run_id.startswith(later)], (
        "a run that is scheduled for later is not queued"
    )

    # A record changes while its run does not; then the run ends.
    prefect.task(run, "send", "COMPLETED")
    shown = await samples(exporter, "reminders")
    assert shown["spinner_run_records", f"{run}/completed"] == 3
    prefect.move(run, "COMPLETED")
    shown = await samples(exporter, "reminders")
    assert shown["spinner_run_status", f"{run}/completed"] == 1
    assert shown["spinner_runs_finished_total", "completed"] == 1
    assert shown["spinner_records_processed_total", "completed"] == 3


@pytest.mark.timeout(180)
async def test_a_subflow_has_the_run_that_started_it_as_its_parent(prefect: Prefect, exporter: Exporter) -> None:
    parent = prefect.run(prefect.flow("campaign"), "RUNNING")
    stands_for = prefect.task(parent, "letters", "RUNNING")
    child = prefect.run(prefect.flow("letters"), "RUNNING", parent=stands_for)
    await samples(exporter, "letters")
    # The task runs of the parent may have been counted after the child.
    shown = await samples(exporter, "letters")
    assert ("spinner_run_info", f"{parent}/{child}/child") in shown
    # Also when the parent is not counted again.
    prefect.move(parent, "COMPLETED")
    prefect.move(child, "COMPLETED")
    shown = await samples(exporter, "letters")
    assert shown["spinner_run_status", f"{child}/completed"] == 1
    assert ("spinner_run_info", f"{parent}/{child}/child") in shown


@pytest.mark.timeout(180)
async def test_records_in_flight_are_the_task_runs_that_run(prefect: Prefect, exporter: Exporter) -> None:
    flow = prefect.flow("surveys")
    run = prefect.run(flow, "RUNNING")
    prefect.task(run, "ask", "COMPLETED")
    asked = prefect.task(run, "ask", "RUNNING")
    prefect.task(run, "ask", "PENDING")
    await samples(exporter, "surveys")
    monitored = next(iter(exporter.runtimes.values()))
    pages = [page async for page in monitored.client.records_in_flight(monitored.store.open_runs(flow)[run].snapshot)]
    (record,) = (record for page in pages for record in page.items)
    told = prefect.get(f"task_runs/{asked}")
    assert (record.id, record.step, record.attempts) == (asked, "ask", told["run_count"])
    assert record.started_at == datetime.fromisoformat(told["start_time"]).timestamp()
    assert record.step_started_at == record.started_at


@pytest.mark.timeout(180)
async def test_waiting_records_are_the_task_runs_that_are_paused(prefect: Prefect, exporter: Exporter) -> None:
    flow = prefect.flow("approvals")
    run = prefect.run(flow, "RUNNING")
    prefect.task(run, "ask", "RUNNING")
    paused = prefect.task(run, "ask", "PAUSED")
    shown = await samples(exporter, "approvals")
    assert shown["spinner_run_records", f"{run}/waiting"] == 1
    assert shown["spinner_run_waiting_record_info", f"{paused}/{run}/ask/"] == 1


@pytest.mark.timeout(180)
async def test_requests_do_not_grow_with_the_flows(prefect: Prefect, exporter: Exporter) -> None:
    flows = [prefect.flow(f"idle-{number}") for number in range(30)]
    runs = [prefect.run(flow, "RUNNING") for flow in flows]
    for run in runs:
        prefect.task(run, "send", "RUNNING")
    page = ""
    for _ in range(3):
        before, page = page, str(await exporter.page(max_wait=60))
    sent = requests_between(before, page)
    # What is open and what ended since, and the same of two flows whose own lists are compared with it.
    assert sent["jobs"] <= 6
    assert sent.get("projects", 0) == 0


def requests_between(before: str, after: str) -> dict[str, float]:
    """Return the requests by what they read."""
    counts: list[dict[str, float]] = []
    for page in (before, after):
        counts.append({})
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if sample.name == "spinner_exporter_upstream_requests_total":
                    resource = sample.labels["resource"]
                    counts[-1][resource] = counts[-1].get(resource, 0) + sample.value
    return {resource: count - counts[0].get(resource, 0) for resource, count in counts[1].items()}


@pytest.mark.timeout(180)
async def test_a_late_run_is_queued(prefect: Prefect, exporter: Exporter) -> None:
    flow = prefect.flow("reports")
    run = prefect.run(flow)
    prefect.move(run, "SCHEDULED", "Late")
    shown = await samples(exporter, "reports")
    assert shown["spinner_run_status", f"{run}/queued"] == 1


@pytest.mark.timeout(180)
async def test_long_lists_are_read_page_by_page_and_a_healthy_server_is_up(
    prefect: Prefect, exporter: Exporter
) -> None:
    flow = prefect.flow("newsletter")
    run = prefect.run(flow, "RUNNING")
    for _ in range(205):
        prefect.task(run, "mail", "COMPLETED")
    shown = await samples(exporter, "newsletter")
    assert shown["spinner_run_records", f"{run}/completed"] == 205, "more than a page of records"
    page = str(await exporter.page())
    assert re.search(r"\nspinner_runtime_up\{\S+\} 1\n", page)
    assert "\nspinner_runtime_last_heartbeat_timestamp_seconds{" not in page, "Prefect reports no heartbeat"


@pytest.mark.timeout(180)
def test_the_suggestion_from_an_openapi_document_agrees_with_the_preset(prefect: Prefect) -> None:
    """Prefect's own document results in the same requests as the preset, but for those whose bodies name a run."""
    document = httpx.get(f"{prefect.url}/openapi.json", timeout=30).json()
    suggested = yaml.safe_load(from_openapi(document, prefect.url))["runtime"]["resources"]
    preset = yaml.safe_load((ROOT / "exporter" / "config" / "presets" / "prefect.yml").read_text())["runtime"][
        "resources"
    ]
    for resource in ("jobs", "job"):
        assert "/api" + suggested[resource]["path"] == preset[resource]["path"]
        assert suggested[resource].get("method") == preset[resource].get("method")
    assert [suggested[name] for name in ("projects", "records", "usage")] == ["absent"] * 3
    for field in ("createdAt", "startedAt", "endedAt", "updatedAt"):
        assert suggested["jobs"]["fields"][field]["path"] == preset["jobs"]["fields"][field]
    assert suggested["jobs"]["fields"]["status"] == preset["jobs"]["fields"]["status"]["path"]
