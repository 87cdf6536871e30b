"""The files of examples/: each is loaded, and read from a double in the shape that its head names."""

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from exporter.config import load
from exporter.service import Exporter
from exporter.service.monitored_runtime import Dependencies
from tests.builders import Clock
from tests.command_line import run
from tests.connecting.server import NOW, serving
from tests.stack.programs import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.yml"))
TOKEN = "token-0123456789"


def example(name: str, folder: Path, **runtime: Any) -> Path:
    """Write an example with a token file that exists, and these keys of `runtime`."""
    tree = yaml.safe_load((ROOT / "examples" / name).read_text())
    (folder / "token").write_text(TOKEN)
    tree["runtime"] |= {"token_file": str(folder / "token"), **runtime}
    (folder / name).write_text(yaml.safe_dump(tree))
    return folder / name


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_is_a_good_config_that_says_how_it_was_tried(file: Path, tmp_path: Path) -> None:
    checked = run("check-config", str(example(file.name, tmp_path)))
    assert checked.returncode == 0, checked.stderr
    head = " ".join(line.removeprefix("#").strip() for line in file.read_text().splitlines() if line.startswith("#"))
    assert "Written for" in head
    assert "tested with a double" in head
    assert f"[{file.name}]({file.name})" in (ROOT / "examples" / "README.md").read_text()


def test_there_are_examples() -> None:
    assert {file.stem for file in EXAMPLES} == {"flower", "github-actions", "n8n"}


async def samples(app: Starlette, name: str, folder: Path, scrapes: int = 1) -> dict[tuple[str, ...], float]:
    """Read a double as an example says; return samples by name and the values of their labels."""
    with serving(app) as url:
        settings = load(example(name, folder, base_url=url), environ={"SPINNER_EXPORTER_SYNC_MIN_INTERVAL": "0s"})
        made = Exporter(settings.runtimes, Dependencies(wall=lambda: NOW, monotonic=Clock()))
        for _ in range(scrapes):
            page = str(await made.page(max_wait=30))
        await made.close()
    return {
        (sample.name, *(value for key, value in sorted(sample.labels.items()) if key != "runtime")): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def statuses(shown: dict[tuple[str, ...], float]) -> dict[str, str]:
    """Return the status of each run by its id."""
    return {key[2]: key[4] for key, value in shown.items() if key[0] == "spinner_run_status" and value == 1}


def rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# -- Flower: flower/api/tasks.py, flower/api/workers.py -------------------------------------------------------------


def flower(tasks: list[dict[str, Any]], workers: dict[str, bool]) -> Starlette:
    async def listing(request: Request) -> Response:
        assert request.headers["authorization"].startswith("Basic ")
        query = request.query_params
        assert set(query) <= {"state", "limit", "offset", "received_start"}
        found = [each for each in tasks if query.get("state") in (None, each["state"])]
        if "received_start" in query:
            since = datetime.strptime(query["received_start"], "%Y-%m-%d %H:%M").replace(tzinfo=UTC).timestamp()
            found = [each for each in found if each["received"] >= since]
        first = int(query.get("offset", 0))
        return JSONResponse({each["uuid"]: each for each in found[first : first + int(query["limit"])]})

    async def info(request: Request) -> Response:
        found = [each for each in tasks if each["uuid"] == request.path_params["task"]]
        return JSONResponse(found[0]) if found else Response("Unknown task", status_code=404)

    async def alive(request: Request) -> Response:
        assert request.query_params["status"] == "1"
        return JSONResponse(workers)

    return Starlette(
        routes=[
            Route("/api/tasks", listing),
            Route("/api/task/info/{task}", info),
            Route("/api/workers", alive),
        ]
    )


def task(number: int, state: str, **times: float) -> dict[str, Any]:
    known = dict.fromkeys(("started", "succeeded", "failed", "revoked", "retried", "sent", "rejected"))
    return {
        "uuid": f"task-{number}",
        "name": "shop.tasks.mail",
        "args": "('secret contact',)",
        "exception": "ValueError('secret contact')",
        "parent_id": None,
        "received": NOW - 60.5,
        "timestamp": NOW - 20.25,
        "state": state,
        **known,
        **times,
    }


async def test_flower(tmp_path: Path) -> None:
    tasks = [
        task(1, "RECEIVED"),
        task(2, "STARTED", started=NOW - 50),
        task(3, "RETRY", started=NOW - 50),
        task(4, "SUCCESS", started=NOW - 50, succeeded=NOW - 20),
        task(5, "FAILURE", started=NOW - 50, failed=NOW - 20),
        task(6, "REVOKED", revoked=NOW - 20),
    ]
    shown = await samples(flower(tasks, {"celery@a": True, "celery@b": False}), "flower.yml", tmp_path)
    expected = ["queued", "running", "queued", "completed", "failed", "cancelled"]
    assert statuses(shown) == {f"task-{number}": status for number, status in enumerate(expected, 1)}
    counted = {key[3]: value for key, value in shown.items() if key[0] == "spinner_runs" and value}
    assert counted == Counter(expected)
    for ended in ("task-4", "task-5"):
        assert shown["spinner_run_duration_seconds", "Celery", ended, "shop.tasks.mail"] == 30
    assert (shown["spinner_runtime_up",], shown["spinner_runtime_workers",]) == (1, 1)
    assert "secret contact" not in str(shown)


async def test_flower_without_a_worker_that_is_alive(tmp_path: Path) -> None:
    shown = await samples(flower([], {"celery@a": False}), "flower.yml", tmp_path)
    assert (shown["spinner_api_up",], shown["spinner_runtime_up",]) == (1, 0)


async def test_flower_that_does_not_tell_its_workers(tmp_path: Path) -> None:
    shown = await samples(flower([], {"message": "overloaded"}), "flower.yml", tmp_path)  # type: ignore[dict-item]
    assert shown["spinner_api_up",] == 0
    assert ("spinner_runtime_up",) not in shown


# -- n8n: packages/cli/src/public-api/v1 ----------------------------------------------------------------------------


def n8n(workflows: dict[str, str], executions: list[dict[str, Any]], page: int) -> Starlette:
    def paged(request: Request, items: list[Any]) -> Response:
        assert request.headers["x-n8n-api-key"] == TOKEN
        first = int(json.loads(request.query_params.get("cursor", "0")))
        after = first + min(int(request.query_params["limit"]), page)
        following = str(after) if after < len(items) else None
        return JSONResponse({"data": items[first:after], "nextCursor": following})

    async def names(request: Request) -> Response:
        return paged(request, [{"id": key, "name": name, "active": True} for key, name in workflows.items()])

    async def listing(request: Request) -> Response:
        assert set(request.query_params) <= {"limit", "cursor"}
        return paged(request, executions)

    return Starlette(routes=[Route("/api/v1/workflows", names), Route("/api/v1/executions", listing)])


async def test_n8n(tmp_path: Path) -> None:
    labels = {
        "new": "queued",
        "running": "running",
        "waiting": "waiting",
        "success": "completed",
        "error": "failed",
        "crashed": "failed",
        "canceled": "cancelled",
    }
    executions = [
        {
            "id": number,
            "finished": label == "success",
            "mode": "webhook",
            "retryOf": None,
            "startedAt": rfc3339(NOW - 90),
            "stoppedAt": None if label in ("new", "running", "waiting") else rfc3339(NOW - 30),
            "workflowId": workflow,
            "waitTill": None,
            "status": label,
        }
        for number, (workflow, label) in enumerate(((each, label) for each in ("w1", "w2") for label in labels), 1000)
    ]
    shown = await samples(n8n({"w1": "Remind", "w2": "Invoice"}, executions, page=3), "n8n.yml", tmp_path)
    assert statuses(shown) == {str(each["id"]): labels[str(each["status"])] for each in executions}
    for name in ("Remind", "Invoice"):
        counted = {key[3]: value for key, value in shown.items() if key[:2] == ("spinner_runs", name) and value}
        assert counted == Counter(labels.values())
    assert shown["spinner_run_duration_seconds", "Remind", "1003", "Remind"] == 60
    assert ("spinner_run_info", "", "Remind", "1003", "Remind", "api") in shown


# -- GitHub Actions: https://docs.github.com/rest/actions -----------------------------------------------------------


def github(runs: list[dict[str, Any]], jobs: dict[str, list[dict[str, Any]]]) -> Starlette:
    def check(request: Request) -> None:
        assert request.headers["authorization"] == f"Bearer {TOKEN}"
        assert request.headers["x-github-api-version"] == "2022-11-28"
        assert request.query_params.get("per_page", "100") == "100"

    async def repositories(request: Request) -> Response:
        check(request)
        named = [("acme/site", False), ("acme/old", True)]
        return JSONResponse(
            [{"id": 1, "full_name": name, "archived": old, "disabled": False} for name, old in named],
        )

    async def listing(request: Request) -> Response:
        check(request)
        query, found = request.query_params, runs
        if "status" in query:
            found = [each for each in found if query["status"] in (each["status"], each["conclusion"])]
        if "created" in query:
            since = datetime.fromisoformat(query["created"].removeprefix(">="))
            found = [each for each in found if datetime.fromisoformat(each["created_at"]) >= since]
        return JSONResponse({"total_count": len(found), "workflow_runs": found})

    async def jobs_of(request: Request) -> Response:
        check(request)
        found = jobs.get(request.path_params["run"], [])
        return JSONResponse({"total_count": len(found), "jobs": found})

    base = "/repos/acme/site/actions/runs"
    return Starlette(
        routes=[
            Route("/orgs/acme/repos", repositories),
            Route(base, listing),
            Route(f"{base}/{{run}}/jobs", jobs_of),
        ]
    )


def action(number: int, status: str, conclusion: str | None = None) -> dict[str, Any]:
    return {
        "id": number,
        "name": "CI",
        "event": "schedule",
        "status": status,
        "conclusion": conclusion,
        "run_attempt": 1,
        "created_at": rfc3339(NOW - 100),
        "run_started_at": rfc3339(NOW - 90),
        "updated_at": rfc3339(NOW - 30),
    }


async def test_github_actions(tmp_path: Path) -> None:
    ends = {
        "success": "completed",
        "neutral": "completed",
        "failure": "failed",
        "startup_failure": "failed",
        "timed_out": "failed",
        "cancelled": "cancelled",
        "skipped": "cancelled",
        "stale": "cancelled",
        "action_required": "waiting",
    }
    opens = {"queued": "queued", "requested": "queued", "in_progress": "running", "waiting": "waiting"}
    runs = [action(number, "completed", end) for number, end in enumerate(ends, 1)]
    runs += [action(number, status) for number, status in enumerate(opens, 100)]
    for old in (100, 102, 103):
        # Before the first read begins: only the lists of what has not ended have them.
        (found,) = (each for each in runs if each["id"] == old)
        found["created_at"] = found["run_started_at"] = rfc3339(NOW - 90 * 86400)
    job = {"run_attempt": 1, "started_at": rfc3339(NOW - 80), "completed_at": None, "conclusion": None}
    ended = {**job, "status": "completed", "completed_at": rfc3339(NOW - 40)}
    jobs = {
        "102": [
            {**ended, "id": 1, "name": "lint", "conclusion": "success"},
            {**ended, "id": 2, "name": "test", "conclusion": "failure"},
            {**job, "id": 3, "name": "build", "status": "in_progress"},
            {**job, "id": 4, "name": "publish", "status": "queued"},
        ]
    }
    shown = await samples(github(runs, jobs), "github-actions.yml", tmp_path)
    expected = [*ends.values(), *opens.values()]
    assert statuses(shown) == {str(each["id"]): status for each, status in zip(runs, expected, strict=True)}
    counted = {key[3]: value for key, value in shown.items() if key[0] == "spinner_runs" and value}
    assert counted == Counter(expected)
    assert shown["spinner_run_duration_seconds", "acme/site", "1", "CI"] == 60
    records = {key[4]: value for key, value in shown.items() if key[0] == "spinner_run_records" and key[2] == "102"}
    assert {state: value for state, value in records.items() if value} == {
        "completed": 1, "failed": 1, "running": 1, "pending": 1
    }  # fmt: skip
    assert ("spinner_run_progress_ratio", "acme/site", "102", "CI") not in shown
    assert shown["spinner_run_failures", "failure", "acme/site", "102", "CI", "test"] == 1
    assert {key[1] for key in shown if key[0] == "spinner_project_up"} == {"acme/site"}
