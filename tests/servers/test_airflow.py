"""The preset `airflow` with a real Airflow, which `make test-servers` installs into its own environment.

What the exporter shows is compared with what Airflow's API says of each run and each task instance.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from exporter.config import load
from exporter.service import Exporter
from tests.stack.programs import ROOT, free_port, running, server, spinner_exporter, until

DAGS = ROOT / "tests" / "servers" / "airflow_dags.py"

SETTLED = {
    "broken": {"load": "failed", "report": "upstream_failed", "archive": "skipped"},
    "flaky": {"call": "success", "remind": "up_for_retry"},
    "mailing": {"addresses": "success", "mail[0]": "success", "mail[1]": "failed", "mail[2]": "success"},
    "hanging": {"wait": "running", "after": None},
    "approval": {"approve": "awaiting_input", "delivery": "deferred"},
    "paused": {"write": None},
}
"""The task instances of the first run of each DAG when nothing moves any more, in the order in which they begin."""

STATES = {
    None: "pending",
    "scheduled": "pending",
    "queued": "pending",
    "running": "running",
    "up_for_retry": "waiting",
    "deferred": "waiting",
    "awaiting_input": "waiting",
    "success": "completed",
    "skipped": "completed",
    "failed": "failed",
    "upstream_failed": "failed",
}
"""What each state of a task instance is to the exporter."""

COUNTED = ("pending", "running", "waiting", "completed", "failed")

STATUSES = {"queued": "queued", "running": "running", "success": "completed", "failed": "failed"}
"""What each state of a DAG run is to the exporter."""

Labels = tuple[tuple[str, str], ...]
Samples = dict[tuple[str, Labels], float]
"""The values of samples by name and labels."""


class Airflow:
    """A real Airflow, and what its API says."""

    def __init__(self, url: str, folder: Path, scheduler: subprocess.Popen[bytes]) -> None:
        self.url = url
        self.folder = folder
        self.scheduler = scheduler
        token = httpx.post(f"{url}/auth/token", json=login("operator"), timeout=60).json()["access_token"]
        self._client = httpx.Client(base_url=f"{url}/api/v2", headers={"Authorization": f"Bearer {token}"}, timeout=60)

    def close(self) -> None:
        self._client.close()

    def get(self, path: str, **query: Any) -> Any:
        return self._client.get(path, params=query).raise_for_status().json()

    def post(self, path: str, **body: Any) -> Any:
        return self._client.post(path, json=body).raise_for_status().json()

    def fail(self, dag: str, run: str, task: str) -> None:
        """Mark a task instance as failed, as a person does."""
        path = f"/dags/{dag}/dagRuns/{run}/taskInstances/{task}"
        self._client.patch(path, json={"new_state": "failed"}).raise_for_status()

    def run(self, dag: str, run: str) -> None:
        self.post(f"/dags/{dag}/dagRuns", logical_date=None, dag_run_id=run)

    def clear(self, dag: str, *, only_failed: bool) -> None:
        run = self.runs(dag)[0]["dag_run_id"]
        self.post(f"/dags/{dag}/clearTaskInstances", dry_run=False, only_failed=only_failed, dag_run_id=run)

    def runs(self, dag: str = "~") -> list[dict[str, Any]]:
        listed = self.get(f"/dags/{dag}/dagRuns", order_by="id", limit=100)
        assert len(listed["dag_runs"]) == listed["total_entries"]
        return list(listed["dag_runs"])

    def instances(self, run: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Return a run's task instances by the name that a person gives them."""
        listed = self.get(f"/dags/{run['dag_id']}/dagRuns/{run['dag_run_id']}/taskInstances", limit=100)
        assert len(listed["task_instances"]) == listed["total_entries"]
        return {
            each["task_id"] + (f"[{each['map_index']}]" if each["map_index"] >= 0 else ""): each
            for each in listed["task_instances"]
        }

    def states(self, dag: str) -> dict[str, str | None]:
        """Return the states of the task instances of the first run of a DAG."""
        return {name: each["state"] for name, each in self.instances(self.runs(dag)[0]).items()}

    def goes_on(self, file: str) -> None:
        """Let go on what waits for a file."""
        (self.folder / "continue" / file).touch()

    def requests(self) -> list[str]:
        """Return the lines of the log of requests."""
        return [line for line in (self.folder / "api.log").read_text().splitlines() if "http.access" in line]


def settled(condition: Callable[[], object], what: str) -> None:
    """Look at Airflow until a condition holds; each answer takes a tenth of a second of its time."""
    until(condition, what, timeout=300, every=1.0)


def login(user: str) -> dict[str, str]:
    return {"username": user, "password": f"{user}-password"}


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    programs = server("airflow")
    home = tmp_path_factory.mktemp("airflow")
    for folder in ("dags", "continue"):
        (home / folder).mkdir()
    shutil.copy(DAGS, home / "dags")
    (home / "passwords.json").write_text(json.dumps({user: f"{user}-password" for user in ("exporter", "operator")}))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings = {
        "CORE__DAGS_FOLDER": home / "dags",
        "CORE__LOAD_EXAMPLES": False,
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": 2,
        "CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": "exporter:viewer,operator:admin",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": home / "passwords.json",
        "API_AUTH__JWT_SECRET": "secret of a test, long enough for its algorithm, which is HMAC with SHA-512",
        "API__SECRET_KEY": "secret of a test",
        "DAG_PROCESSOR__PARSING_PROCESSES": 1,
        "LOGGING__WORKER_LOG_SERVER_PORT": free_port(),
    }
    environ = {
        **os.environ,
        **{f"AIRFLOW__{name}": str(value) for name, value in settings.items()},
        "AIRFLOW_HOME": str(home),
        "CONTINUE_FOLDER": str(home / "continue"),
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
    }
    program = str(programs / "airflow")
    with contextlib.ExitStack() as stack:
        with (home / "database.log").open("wb") as log:
            subprocess.run([program, "db", "migrate"], env=environ, stdout=log, stderr=log, check=True)
        start = [program, "api-server", "--host=127.0.0.1", f"--port={port}", "--workers=1"]
        # Each of them takes some seconds of one processor to start.
        scheduler = stack.enter_context(process([program, "scheduler"], environ, home / "scheduler.log"))
        processor = stack.enter_context(process([program, "dag-processor", "--num-runs=1"], environ, home / "dags.log"))
        stack.enter_context(
            running(start, url, home / "api.log", ready="/api/v2/version", environ=environ, timeout=300)
        )
        processor.wait(300)
        made = Airflow(url, home, scheduler)
        stack.callback(made.close)
        # A task that hangs would outlive its worker.
        stack.callback(made.goes_on, "go")
        for dag in SETTLED:
            # The ids of DAG runs are unique only in their DAG.
            made.run(dag, "first")
        # It waits for the first one.
        made.run("hanging", "second")
        settled(
            lambda: (
                all(made.states(dag) == states for dag, states in SETTLED.items())
                and {run["dag_id"] for run in made.runs() if run["end_date"]} == {"broken", "mailing"}
            ),
            f"all task instances are as expected; the logs are in {home}",
        )
        yield made


@contextlib.contextmanager
def process(command: list[str], environ: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a part of Airflow, with the processes that it starts, for the duration of the block."""
    with log.open("wb") as output:
        started = subprocess.Popen(command, env=environ, stdout=output, stderr=output, start_new_session=True)
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()


@pytest.fixture
def config(airflow: Airflow, tmp_path: Path) -> Path:
    (tmp_path / "login.json").write_text(json.dumps(login("exporter")))
    file = tmp_path / "exporter.yml"
    # This is all that a user writes.
    file.write_text(
        f"""
        runtime:
          preset: airflow
          base_url: "{airflow.url}"
          project: Data
          auth: {{login: {{path: /auth/token, body_file: {tmp_path}/login.json}}}}
        """
    )
    return file


@pytest.fixture
async def exporter(config: Path) -> AsyncIterator[Exporter]:
    async with reading(config) as made:
        yield made


@contextlib.asynccontextmanager
async def reading(config: Path) -> AsyncIterator[Exporter]:
    made = Exporter(load(config, environ={"SPINNER_EXPORTER_SYNC_MIN_INTERVAL": "0s"}).runtimes)
    try:
        yield made
    finally:
        await made.close()


async def samples(exporter: Exporter) -> Samples:
    """Read once; return the samples by name and labels, without those of the exporter's only runtime and project."""
    page = str(await exporter.page(max_wait=60))
    assert "secret contact" not in page
    assert "-password" not in page
    return {
        (
            sample.name.removeprefix("spinner_"),
            tuple(sorted(each for each in sample.labels.items() if each[0] not in ("runtime", "project"))),
        ): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def of(run: dict[str, Any]) -> dict[str, str]:
    """Return the labels of a run's series."""
    return {"spinner": run["dag_id"], "run_id": f"{run['dag_id']}/{run['dag_run_id']}"}


def truth(airflow: Airflow) -> Samples:
    """Return the samples of runs and their records as Airflow's API has them."""
    expected: Samples = {}

    def add(name: str, value: float, **labels: str) -> None:
        expected[name, tuple(sorted(labels.items()))] = value

    runs = airflow.runs()
    for run in runs:
        add("run_info", 1, trigger="api", parent_run_id="", **of(run))
        add("run_status", 1, status=STATUSES[run["state"]], **of(run))
        for name, field in (("created", "queued_at"), ("start", "start_date"), ("end", "end_date")):
            if run[field] is not None:
                add(f"run_{name}_timestamp_seconds", datetime.fromisoformat(run[field]).timestamp(), **of(run))
        instances = airflow.instances(run)
        present = {name: each for name, each in instances.items() if each["state"] != "removed"}
        states = Counter(STATES[each["state"]] for each in present.values())
        for state in COUNTED:
            add("run_records", states[state], state=state, **of(run))
        add("run_failed_records", states["failed"], **of(run))
        if run["end_date"] is not None:
            add("run_duration_seconds", run["duration"], **of(run))
            add("run_total_records", len(present), **of(run))
            add("run_progress_ratio", 1, **of(run))
        failed = {name: each for name, each in present.items() if STATES[each["state"]] == "failed"}
        for name, each in failed.items():
            what = {"step": each["task_id"], "error_code": each["state"]}
            add("run_failed_record_info", 1, record_id=name, **what, **of(run))
        for (step, code), count in Counter((each["task_id"], each["state"]) for each in failed.values()).items():
            add("run_failures", count, step=step, error_code=code, **of(run))
    for dag in {run["dag_id"] for run in runs}:
        states = Counter(STATUSES[run["state"]] for run in runs if run["dag_id"] == dag)
        for status in ("queued", "running", "waiting", "completed", "failed", "cancelled", "unknown"):
            add("runs", states[status], spinner=dag, status=status)
    return expected


def of_runs(shown: Samples, expected: Samples) -> Samples:
    """Return the samples that are shown under the expected names; the duration only of runs that have ended."""
    names = {name for name, _ in expected}
    return {
        (name, labels): value
        for (name, labels), value in shown.items()
        if name in names and (name != "run_duration_seconds" or (name, labels) in expected)
    }


def value(shown: Samples, name: str, **labels: str) -> float | None:
    return shown.get((name, tuple(sorted(labels.items()))))


@pytest.mark.timeout(600)
async def test_each_run_and_each_record_is_as_airflow_says(airflow: Airflow, exporter: Exporter) -> None:
    shown = await samples(exporter)
    expected = truth(airflow)
    assert of_runs(shown, expected) == pytest.approx(expected, abs=1e-5)

    # That Airflow is as the test expects it to be.
    records = {
        dag: {state: number for state in COUNTED if (number := value(shown, "run_records", state=state, **of(run)))}
        for dag in SETTLED
        for run in [airflow.runs(dag)[0]]
    }
    assert records == {
        "broken": {"completed": 1, "failed": 2},
        "flaky": {"waiting": 1, "completed": 1},
        "mailing": {"completed": 3, "failed": 1},
        "hanging": {"pending": 1, "running": 1},
        "approval": {"waiting": 2},
        "paused": {"pending": 1},
    }
    assert value(shown, "runs", spinner="hanging", status="queued") == 1
    assert value(shown, "runs", spinner="paused", status="queued") == 1
    assert value(shown, "api_up") == 1
    assert value(shown, "runtime_up") == 1
    assert not [labels for name, labels in shown if name == "exporter_invalid_items_total" and shown[name, labels]]
    at_work = {dict(labels)["spinner"] for name, labels in shown if name == "run_stall_threshold_seconds"}
    assert at_work == {"hanging"}, "a run that waits for a person, an event or its next try does not stall"


@pytest.mark.timeout(600)
async def test_waiting_records_are_the_task_instances_that_wait_for_a_person_or_an_event(
    airflow: Airflow, exporter: Exporter
) -> None:
    shown = await samples(exporter)
    names = {dict(labels)["record_id"] for name, labels in shown if name == "run_waiting_record_info"}
    waiting = {
        name: told["try_number"]
        for run in airflow.runs("approval")
        for name, told in airflow.instances(run).items()
        if told["state"] in ("awaiting_input", "deferred", "up_for_reschedule", "up_for_retry")
    }
    assert waiting
    assert waiting.keys() <= names


@pytest.mark.timeout(600)
async def test_what_a_run_works_on_are_the_task_instances_that_run(airflow: Airflow, exporter: Exporter) -> None:
    await samples(exporter)
    run = airflow.runs("hanging")[0]
    (monitored,) = exporter.runtimes.values()
    (project,) = monitored.store.project_ids()
    snapshot = monitored.store.open_runs(project)[of(run)["run_id"]].snapshot
    (record,) = [each async for page in monitored.client.records_in_flight(snapshot) for each in page.items]
    told = airflow.instances(run)["wait"]
    assert (record.id, record.step, record.attempts) == ("wait", "wait", told["try_number"])
    started_at = datetime.fromisoformat(told["start_date"]).timestamp()
    assert (record.started_at, record.step_started_at) == pytest.approx((started_at, started_at), abs=1e-5)


@pytest.mark.timeout(600)
async def test_pages_make_up_the_whole_lists(airflow: Airflow, config: Path) -> None:
    tree = yaml.safe_load(config.read_text())
    paging = yaml.safe_load((ROOT / "exporter/config/presets/airflow.yml").read_text())["runtime"]["resources"]["jobs"]
    small = {"paging": {**paging["paging"], "size": 2}}
    tree["runtime"]["resources"] = {"jobs": small, "records": small}
    config.write_text(yaml.safe_dump(tree))
    async with reading(config) as exporter:
        shown = await samples(exporter)
    expected = truth(airflow)
    assert of_runs(shown, expected) == pytest.approx(expected, abs=1e-5)


@pytest.mark.timeout(600)
async def test_failed_task_instances_of_several_runs_are_read_from_one_list(
    airflow: Airflow, exporter: Exporter
) -> None:
    runs = ["second", "third", "fourth"]
    for run in runs:
        airflow.run("paused", run)
    await samples(exporter)
    for run in runs:
        airflow.fail("paused", run, "write")
    seen = len(airflow.requests())
    shown = await samples(exporter)
    expected = truth(airflow)
    assert of_runs(shown, expected) == pytest.approx(expected, abs=1e-5)
    for run in runs:
        named = {"spinner": "paused", "run_id": f"paused/{run}", "record_id": "write"}
        assert value(shown, "run_failed_record_info", step="write", error_code="failed", **named) == 1
    failed = [line for line in airflow.requests()[seen:] if "state=upstream_failed" in line]
    assert ["path=/api/v2/dags/~/dagRuns/~/taskInstances" in line for line in failed] == [True]


@pytest.mark.timeout(600)
async def test_a_cleared_task_instance_has_not_failed_any_more(airflow: Airflow, exporter: Exporter) -> None:
    run = of(airflow.runs("mailing")[0])

    def failed_records(shown: Samples) -> float | None:
        return value(shown, "run_failed_records", **run)

    def processed(shown: Samples) -> list[float | None]:
        states = ("completed", "failed")
        return [value(shown, "records_processed_total", spinner="mailing", state=state) for state in states]

    shown = await samples(exporter)
    assert (failed_records(shown), processed(shown)) == (1, [3, 1])
    airflow.goes_on("repaired")
    airflow.clear("mailing", only_failed=True)
    assert failed_records(await samples(exporter)) == 0
    settled(lambda: airflow.runs("mailing")[0]["state"] == "success", "the cleared run ends")
    shown, expected = await samples(exporter), truth(airflow)
    assert of_runs(shown, expected) == pytest.approx(expected, abs=1e-5)
    assert airflow.states("mailing") == dict.fromkeys(("addresses", "mail[0]", "mail[1]", "mail[2]"), "success")
    assert processed(shown) == [4, 1], "those that stayed as they were are not counted again"

    # All of it again, with one mail less.
    airflow.goes_on("shorter")
    airflow.clear("mailing", only_failed=False)
    settled(lambda: airflow.states("mailing").get("mail[2]") == "removed", "a mail is removed")
    settled(lambda: airflow.runs("mailing")[0]["state"] == "success", "the cleared run ends")
    shown, expected = await samples(exporter), truth(airflow)
    assert of_runs(shown, expected) == pytest.approx(expected, abs=1e-5)
    assert value(shown, "run_total_records", **run) == 3


@pytest.mark.timeout(600)
async def test_a_run_that_hung_ends_and_is_counted_once(airflow: Airflow, exporter: Exporter) -> None:
    await samples(exporter)
    airflow.goes_on("go")
    settled(lambda: all(run["state"] == "success" for run in airflow.runs("hanging")), "both runs end")
    await samples(exporter)
    shown, expected = await samples(exporter), truth(airflow)
    assert of_runs(shown, expected) == pytest.approx(expected, abs=1e-5)
    assert value(shown, "runs_finished_total", spinner="hanging", status="completed") == 2
    assert value(shown, "runs_started_total", spinner="hanging") == 2
    assert value(shown, "records_processed_total", spinner="hanging", state="completed") == 4


@pytest.mark.timeout(600)
def test_doctor_finds_nothing_wrong(config: Path) -> None:
    ended = spinner_exporter("doctor", f"--config.file={config}")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "ok    health: responds; the runtime is up" in ended.stdout
    assert "warn" not in ended.stdout


@pytest.mark.timeout(600)
async def test_without_its_scheduler_the_runtime_is_down_although_the_api_is_up(
    airflow: Airflow, exporter: Exporter
) -> None:
    assert value(await samples(exporter), "runtime_up") == 1
    airflow.scheduler.terminate()
    airflow.scheduler.wait(60)
    health = airflow.get("/monitor/health")
    assert health["scheduler"]["status"] == "unhealthy"
    shown = await samples(exporter)
    assert (value(shown, "runtime_up"), value(shown, "api_up")) == (0, 1)
    heartbeat = datetime.fromisoformat(health["scheduler"]["latest_scheduler_heartbeat"]).timestamp()
    assert value(shown, "runtime_last_heartbeat_timestamp_seconds") == pytest.approx(heartbeat, abs=1)
