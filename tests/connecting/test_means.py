"""What a description can say, each with a server that needs it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import structlog
import yaml
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from exporter.config import load
from exporter.doctor import examine
from exporter.service import Exporter
from exporter.service.monitored_runtime import Dependencies
from tests.builders import Clock
from tests.command_line import run
from tests.connecting.server import NOW, serving

REPOSITORIES = ["acme/site", "acme/shop app", "b.b/shop app"]


class Forge:
    """An API like that of a code host: the paths have owners and repositories, and a list has one status."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.runs: dict[str, list[dict[str, Any]]] = {
            name: [job(1, "queued"), job(2, "in_progress"), job(3, "completed")] for name in REPOSITORIES
        }
        self.error: dict[str, Any] | None = None
        self.ignores_status = False
        self.moves: Callable[[], None] = lambda: None
        """Called after each list of queued runs."""

    def app(self) -> Starlette:
        async def repositories(request: Request) -> Response:
            items = [
                {"full_name": name, "owner": {"login": name.split("/")[0]}, "name": name.split("/")[1]}
                for name in REPOSITORIES
            ]
            return JSONResponse({"ok": True, "items": items})

        async def listing(request: Request) -> Response:
            self.asked.append(f"{request.url.path}?{request.url.query}")
            if self.error is not None:
                return JSONResponse(self.error)
            found = self.runs.get(repository_of(request))
            if found is None:
                return Response(status_code=404)
            status = request.query_params.get("status")
            response = JSONResponse(
                {
                    "ok": True,
                    "items": [each for each in found if self.ignores_status or status in (None, each["status"])],
                }
            )
            if status == "queued":
                self.moves()
            return response

        async def one(request: Request) -> Response:
            self.asked.append(request.url.path)
            for each in self.runs[repository_of(request)]:
                if str(each["id"]) == request.path_params["run"]:
                    return JSONResponse(each)
            return JSONResponse({"ok": False, "code": "NO_RUN"})

        async def everything(request: Request) -> Response:
            self.asked.append(f"{request.url.path}?{request.url.query}")
            status = request.query_params.get("status")
            found = [each | {"repo": name} for name, runs in self.runs.items() for each in runs]
            return JSONResponse({"items": [each for each in found if status in (None, each["status"])]})

        base = "/repos/{owner}/{name}/runs"
        return Starlette(
            routes=[
                Route("/runs", everything),
                Route("/repos", repositories),
                Route(base, listing),
                Route(f"{base}/{{run}}", one),
            ]
        )


def repository_of(request: Request) -> str:
    # The server gets the path as it was sent.
    return unquote(f"{request.path_params['owner']}/{request.path_params['name']}")


def job(number: int, status: str) -> dict[str, Any]:
    return {"id": number, "workflow": f"w{number}", "status": status, "made": "2025-11-24T16:00:00Z"}


def tree_of(url: str, **jobs: Any) -> dict[str, Any]:
    listed = {
        "path": "/repos/{ref.owner}/{ref.repo}/runs",
        "changed": None,
        "active": [{"query": {"status": "queued"}}, {"query": {"status": "in_progress"}}],
        "fields": {"id": "id", "spinnerName": "workflow", "status": "status", "createdAt": "made"},
        **jobs,
    }
    fields = {"id": "full_name", "name": "full_name", "ref.owner": "owner.login", "ref.repo": "name"}
    resources = {
        "projects": {"path": "/repos", "fields": fields},
        "jobs": listed,
        "job": {"path": "/repos/{project:path}/runs/{run}", "gone": "code == 'NO_RUN'"},
        **dict.fromkeys(("health", "records", "usage"), "absent"),
    }
    return {
        "runtime": {"base_url": url, "resources": resources},
        "sync": {"min_interval": "0s", "sweep_interval": "0s"},
        "retention": "30d",
    }


def exporter(folder: Path, tree: dict[str, Any]) -> Exporter:
    (folder / "exporter.yml").write_text(yaml.safe_dump(tree))
    settings = load(folder / "exporter.yml", environ={})
    return Exporter(settings.runtimes, Dependencies(wall=lambda: NOW, monotonic=Clock()))


async def shown(made: Exporter) -> dict[tuple[str, ...], float]:
    """Read once, and return samples by name, project, spinner and status."""
    return {
        (sample.name, *(sample.labels.get(name, "") for name in ("project", "spinner", "status"))): sample.value
        for family in text_string_to_metric_families(str(await made.page(max_wait=30)))
        for sample in family.samples
    }


def statuses(samples: dict[tuple[str, ...], float]) -> set[tuple[str, ...]]:
    return {key[1:] for key, value in samples.items() if key[0] == "spinner_run_status" and value == 1}


EXPECTED = {(name, *run) for name in REPOSITORIES for run in (("w1", "queued"), ("w2", "running"), ("w3", "completed"))}


@pytest.mark.parametrize("path", ["/repos/{ref.owner}/{ref.repo}/runs", "/repos/{project:path}/runs"])
async def test_paths_can_have_what_the_projects_have(tmp_path: Path, path: str) -> None:
    forge = Forge()
    with serving(forge.app()) as url:
        made = exporter(tmp_path, tree_of(url, path=path))
        assert statuses(await shown(made)) == EXPECTED
        # A run in no list is read by its id, in the same repository.
        forge.runs["acme/site"].pop(0)
        assert statuses(await shown(made)) == EXPECTED - {("acme/site", "w1", "queued")}
        assert "/repos/acme/site/runs/1" in forge.asked
        await made.close()


async def test_runs_that_have_not_ended_can_be_listed_in_several_requests(tmp_path: Path) -> None:
    forge = Forge()
    with serving(forge.app()) as url:
        made = exporter(tmp_path, tree_of(url, changed={"query": {"status": "completed"}}))
        assert statuses(await shown(made)) == EXPECTED
        asked = [each.partition("?")[2] for each in forge.asked if each.startswith("/repos/acme/site/")]
        assert asked == [f"status={each}&limit=500" for each in ("queued", "in_progress", "completed")]
        await made.close()


async def test_a_list_of_all_projects_can_be_listed_in_several_requests(tmp_path: Path) -> None:
    forge = Forge()
    with serving(forge.app()) as url:
        fields = {"id": "id", "spinnerName": "workflow", "status": "status", "createdAt": "made", "projectId": "repo"}
        made = exporter(tmp_path, tree_of(url, path="/runs", changed={"query": {"status": "completed"}}, fields=fields))
        assert statuses(await shown(made)) == EXPECTED
        forge.asked.clear()
        assert statuses(await shown(made)) == EXPECTED
        asked = [each.partition("&")[0] for each in forge.asked]
        assert asked[:3] == ["/runs?status=queued", "/runs?status=in_progress", "/runs?status=completed"]
        await made.close()


@pytest.mark.parametrize("moves", [True, False])
async def test_a_run_in_several_of_these_lists_or_between_them_is_one_run(tmp_path: Path, moves: bool) -> None:
    forge = Forge()
    forge.ignores_status = not moves
    with serving(forge.app()) as url:
        made = exporter(tmp_path, tree_of(url, changed={"query": {"status": "completed"}}))
        await shown(made)
        if moves:
            # Back to the queue, after that has been read: in no list, and read by its id.
            forge.moves = lambda: forge.runs["acme/site"][1].update(status="queued")
            expected = EXPECTED - {("acme/site", "w2", "running")} | {("acme/site", "w2", "queued")}
        else:
            expected = EXPECTED
        samples = await shown(made)
        assert statuses(samples) == expected
        assert not [
            value for key, value in samples.items() if key[0] == "spinner_exporter_runs_dropped_total" and value
        ]
        await made.close()


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("ok == `false`", {"ok": False, "message": "secret-0123"}),
        ("!ok", {"message": "secret-0123", "items": []}),
        ("code", {"code": 17, "items": []}),
        ("errors[0]", {"errors": [{"message": "secret-0123"}], "items": [job(9, "queued")]}),
    ],
)
async def test_a_response_can_be_an_error_in_spite_of_its_status(
    tmp_path: Path, expression: str, answer: dict[str, Any]
) -> None:
    forge = Forge()
    with serving(forge.app()) as url:
        made = exporter(tmp_path, tree_of(url, error=expression))
        before = await shown(made)
        forge.error = answer
        with structlog.testing.capture_logs() as lines:
            after = await shown(made)
        assert statuses(after) == statuses(before)
        assert after["spinner_project_up", "acme/site", "", ""] == 0
        assert f"the response is an error, as {expression} says" in str(lines)
        assert "secret-0123" not in str(lines)
        await made.close()
        (config,) = load(tmp_path / "exporter.yml", environ={}).runtimes.values()
        found = (await examine(config)).as_text()
    assert f"jobs: the response is an error, as {expression} says" in found
    assert "secret-0123" not in found


async def test_an_error_of_zero_is_none(tmp_path: Path) -> None:
    forge = Forge()
    forge.error = {"code": 0, "items": [job(7, "queued")]}
    with serving(forge.app()) as url:
        made = exporter(tmp_path, tree_of(url, error="code"))
        assert ("acme/site", "w7", "queued") in statuses(await shown(made))
        await made.close()


@pytest.mark.parametrize(
    ("resources", "says"),
    [
        ({"projects": {"path": "/p/{run}"}}, "projects: the request contains {run}; expected no id"),
        ({"projects": "absent"}, "jobs: the request contains {ref.owner}; projects.fields do not have it"),
        (
            {"projects": {"path": "/p", "fields": {"id": "id", "name": "id", "ref.owner": "o"}}},
            "jobs: the request contains {ref.repo}; projects.fields do not have it; expected {project} or {ref.owner}",
        ),
        ({"jobs": {"path": "/x", "active": []}}, "jobs.active: expected at least one of the requests"),
        ({"records": {"path": "/{run}", "active": {"query": {"a": "b"}}}}, "records.active: only jobs can have it"),
        ({"projects": {"path": "/p", "gone": "x"}}, "projects.gone: only job can have it"),
        ({"usage": {"path": "/u", "error": "a.["}}, "usage.error: invalid JMESPath"),
        (
            {"jobs": {"path": "/x", "across": "/{project}/x"}},
            "jobs.across: expected a path without {project}, since the list is one of all projects",
        ),
        ({"jobs": {"path": "/x", "across": "x"}}, "jobs.across: expected a path that begins with /"),
        ({"jobs": {"path": "/x", "across": "/x\ny"}}, "jobs.across: expected one line of text"),
        (
            {"records": {"path": "/{run}", "across_changed": {"query": {"a": "b"}}}},
            "records.across_changed: not allowed without across",
        ),
        (
            {"jobs": {"path": "/{project}/x", "project": {"query": {"of": "{project}"}}}},
            "jobs.project: not allowed if the request for jobs contains {project} already",
        ),
        (
            {
                "counts": "records",
                "records": {"path": "/x", "changed": {"query": {"a": "{since}"}}, "fields": {"id": "id", "jobId": "j"}},
            },
            "counts: expected job, since the request for records names no run",
        ),
        (
            {"jobs": {"path": "/x", "fields": {"id": {"value": "a", "pattern": "(?P<value>a)"}}}},
            "jobs.fields.pattern: requires path",
        ),
    ],
)
def test_what_does_not_fit_together_is_one_line(tmp_path: Path, resources: dict[str, Any], says: str) -> None:
    tree = tree_of("http://localhost")
    tree["runtime"]["resources"] |= resources
    (tmp_path / "x.yml").write_text(yaml.safe_dump(tree))
    ended = run("check-config", str(tmp_path / "x.yml"))
    assert ended.returncode == 2, ended.stdout
    assert ended.stderr.count("\n") == 1
    assert f"runtime.resources.{says}" in ended.stderr
