"""The suggestion of a first config, from an OpenAPI document or from responses."""

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from exporter.config import load, load_tree, read_file
from exporter.doctor import from_responses, suggest_from_responses
from exporter.doctor.guesses import SuggestError, fields_of
from exporter.doctor.openapi import read_openapi
from exporter.doctor.suggest import from_openapi
from exporter.errors import ConfigError
from tests.builders import only_runtime
from tests.command_line import run
from tests.connecting.server import TOKEN, OddRuntime, serving
from tests.connecting.test_connecting import EXAMPLE
from tests.stack.programs import ROOT, runtime

OPENAPI = ROOT / "exporter" / "simulator" / "openapi.yaml"


def test_a_config_that_is_suggested_from_a_document_works_unchanged(tmp_path: Path) -> None:
    with runtime(tmp_path) as url:
        suggested = run("doctor", "--suggest", f"--openapi={OPENAPI}", f"--runtime.base-url={url}")
        assert suggested.returncode == 0, suggested.stderr
        tree = yaml.safe_load(suggested.stdout)
        del tree["runtime"]["token_file"]  # this runtime requires none
        file = tmp_path / "suggested.yml"
        file.write_text(yaml.safe_dump(tree))
        checked = run("doctor", f"--config.file={file}")
    assert checked.returncode == 0, checked.stdout
    assert "FAIL" not in checked.stdout
    assert "ok    full read: succeeded" in checked.stdout
    # All fields of the contract are found by their names, and runs are read incrementally.
    assert tree["runtime"]["resources"]["jobs"]["changed"] == {"query": {"updatedSince": "{since}"}}
    assert tree["runtime"]["resources"]["jobs"]["active"] == {"query": {"active": "true"}}


async def test_fields_are_suggested_from_responses_without_their_content(tmp_path: Path) -> None:
    odd = OddRuntime()
    (tmp_path / "token").write_text(TOKEN)
    without = {
        name: {key: value for key, value in each.items() if key != "fields"} if isinstance(each, dict) else each
        for name, each in EXAMPLE["runtime"]["resources"].items()
    }
    with serving(odd.app()) as url:
        token = str(tmp_path / "token")
        tree = {**EXAMPLE["runtime"], "base_url": f"{url}/automation", "token_file": token, "resources": without}
        (tmp_path / "exporter.yml").write_text(yaml.safe_dump({"runtime": tree}))
        file = tmp_path / "exporter.yml"
        text = await suggest_from_responses(only_runtime(load(file, environ={})), read_file(file))
    resources = yaml.safe_load(text)["runtime"]["resources"]
    assert resources["projects"]["fields"] == {"id": "key", "name": "title"}
    assert resources["jobs"]["fields"] == {
        "id": "uid",
        "spinnerName": "flow.title",
        "status": "state",
        "createdAt": {"path": "t.queued", "convert": "epoch_ms"},
        "startedAt": {"path": "t.begun", "convert": "local", "zone": "UTC"},
        "updatedAt": {"path": "t.touched", "convert": "epoch_s"},
        "ref.shard": "shard",
    }
    assert "Flow 1" not in text
    assert TOKEN not in text


def test_a_suggestion_keeps_what_the_config_says() -> None:
    own = {"path": "/v2/runs", "as_of": None, "fields": {"id": "number"}}
    config = {
        "runtime": {"token_file": "token", "resources": {"usage": "absent", "jobs": own}},
        "log": {"level": "warn"},
    }
    text = from_responses("http://127.0.0.1:8090", {"jobs": [{"id": "a", "state": "OK"}], "records": [{}]}, config)
    assert yaml.safe_load(text) == {
        "runtime": {
            "base_url": "http://127.0.0.1:8090",
            "token_file": "token",
            "resources": {"usage": "absent", "jobs": {**own, "fields": {"id": "number", "status": "state"}}},
        },
        "log": {"level": "warn"},
    }


def test_names_that_match_nothing_are_listed_next_to_the_fields_that_were_not_found() -> None:
    jobs = [{"id": 1, "made_on": "2026-01-01", "sheets": {"good": 1, "good_enough": 2}}, {"fase\x1b\n#": None}]
    config = {"runtime": {"resources": {"jobs": {"path": "/runs", "fields": {"records.completed": "sheets.good"}}}}}
    text = from_responses("http://127.0.0.1:8090", {"jobs": jobs, "usage": [{"name": "a"}], "health": [{}]}, config)
    comments = " ".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
    assert "jobs: not found: spinnerName, status, trigger," in comments
    assert 'jobs: not used: made_on, sheets.good_enough, "fase??#"' in comments
    assert "usage: " not in comments, "all names are used"
    assert "health: " not in comments, "there is no name to match"
    assert yaml.safe_load(text)["runtime"]["resources"]["jobs"]["fields"] == {
        "id": "id",
        "records.completed": "sheets.good",
    }


def test_what_is_no_code_is_not_suggested_as_one_and_no_address_is_printed() -> None:
    """Its values would become labels."""
    record = {"id": 1, "error": "No answer from Ann Smith", "reason": "TIMEOUT", "ann@example.com": {"status": "x"}}
    job = {"id": 1, "triggeredBy": "bob@example.com", "+49 170 1234567": 1}
    text = from_responses("http://127.0.0.1:8090", {"records": [record], "jobs": [job]}, {})
    resources = yaml.safe_load(text)["runtime"]["resources"]
    assert resources["records"]["fields"] == {"id": "id", "errorCode": "reason"}
    assert resources["jobs"]["fields"] == {"id": "id"}
    for secret in ("Ann", "ann@", "bob@", "1234567"):
        assert secret not in text


def test_responses_without_items_are_an_error() -> None:
    with pytest.raises(SuggestError, match="no items to guess fields from"):
        from_responses("http://127.0.0.1:8090", {"jobs": [], "health": [{}]}, {})


async def test_without_a_response_the_error_names_each_request(tmp_path: Path) -> None:
    file = tmp_path / "exporter.yml"
    with serving(OddRuntime().app()) as url:
        file.write_text(yaml.safe_dump({"runtime": {"base_url": f"{url}/nowhere"}}))
        with pytest.raises(SuggestError) as error:
            await suggest_from_responses(only_runtime(load(file, environ={})), read_file(file))
    assert str(error.value).startswith(
        "no resource responds as described: health: HTTP 404: not found (GET /nowhere/health); "
        "projects: HTTP 404: not found (GET /nowhere/api/v1/projects); jobs: not requested: no project's id is known; "
    )
    assert "the API has none of the paths: each is base_url joined with the path of a resource; check" in str(
        error.value
    )


def pipelines_of(*items: dict[str, Any], builds: Any = None) -> Starlette:
    """A build server that lists pipelines, and builds at the slug of a pipeline alone."""

    async def pipelines(request: Request) -> Response:
        return JSONResponse(items)

    async def listed(request: Request) -> Response:
        found = (builds or {}).get(request.path_params["slug"])
        return Response(status_code=404) if found is None else JSONResponse(found)

    async def steps(request: Request) -> Response:
        parts = request.path_params
        found = [{"key": "k1", "outcome": "x", "phase": "ok"}] if parts["number"] == "7" else None
        return Response(status_code=404) if found is None else JSONResponse(found)

    return Starlette(
        routes=[
            Route("/pipelines", pipelines),
            Route("/pipelines/{slug}/builds", listed),
            Route("/pipelines/{slug}/builds/{number}/steps", steps),
        ]
    )


async def suggested_for(app: Starlette, folder: Path, described: Any, **more: Any) -> tuple[dict[str, Any], str]:
    """Return the suggestion for a build server, as a tree and as text without the line breaks of its comments."""
    lists = {"items": "@", "paging": {"style": "none"}}
    jobs = {"path": "/pipelines/{project}/builds", **lists, "changed": None, "active": None, **more.pop("jobs", {})}
    tree = {
        "runtime": {
            "resources": {
                "health": "absent", "job": "absent", "usage": "absent", "jobs": jobs,
                "projects": {"path": "/pipelines", **lists, **described},
                "records": {"path": "/pipelines/{project}/builds/{run}/steps", **lists, **more.pop("records", {})},
            },
        },
        **more,
    }  # fmt: skip
    file = folder / "exporter.yml"
    with serving(app) as url:
        tree["runtime"]["base_url"] = url
        file.write_text(yaml.safe_dump(tree))
        text = await suggest_from_responses(only_runtime(load(file, environ={})), read_file(file))
    return yaml.safe_load(text)["runtime"]["resources"], text.replace("\n#   ", " ")


UWEB = {"id": "uweb", "slug": "web", "name": "Web", "org": {"key": "acme"}}
BUILD = {"id": "u7", "number": 7, "state": "passed", "pipeline": {"name": "x"}}


async def test_projects_are_requested_by_the_id_that_the_config_describes(tmp_path: Path) -> None:
    app = pipelines_of(UWEB, builds={"web": [BUILD]})
    fields = {"fields": {"id": "slug", "name": "name"}}
    found, text = await suggested_for(app, tmp_path, fields, jobs={"fields": {"id": "number"}})
    assert found["jobs"]["fields"] == {"id": "number", "spinnerName": "pipeline.name", "status": "state"}
    assert found["records"]["fields"] == {"id": "key", "status": "phase"}
    assert "nothing suggested" not in text


async def test_projects_and_runs_are_requested_by_their_described_references(tmp_path: Path) -> None:
    app = pipelines_of(UWEB, builds={"web": [BUILD]})
    found, text = await suggested_for(
        app,
        tmp_path,
        {"fields": {"id": "id", "name": "name", "ref.slug": "slug"}},
        jobs={"path": "/pipelines/{ref.slug}/builds", "fields": {"id": "id", "ref.build": "to_string(number)"}},
        records={"path": "/pipelines/{ref.slug}/builds/{ref.build}/steps"},
    )
    assert found["records"]["fields"] == {"id": "key", "status": "phase"}
    assert "nothing suggested" not in text


async def test_a_nested_id_that_is_guessed_is_used(tmp_path: Path) -> None:
    app = pipelines_of({"meta": {"slug": "web"}, "name": "Web"}, builds={"web": [BUILD]})
    found, _ = await suggested_for(app, tmp_path, {})
    assert found["jobs"]["fields"]["status"] == "state"


async def test_what_could_not_be_read_is_a_comment_with_the_reason(tmp_path: Path) -> None:
    app = pipelines_of(UWEB, builds={"web": [BUILD]})
    found, text = await suggested_for(app, tmp_path, {"fields": {"id": "id", "name": "name"}})
    assert "# jobs: HTTP 404: not found (GET /pipelines/uweb/builds); nothing suggested" in text
    assert "# records: not requested: no run is known; nothing suggested" in text
    assert "fields" not in found["jobs"]
    _, text = await suggested_for(pipelines_of({"name": "Web"}), tmp_path, {})
    assert "# jobs: not requested: no project's id is known; nothing suggested" in text
    _, text = await suggested_for(pipelines_of(UWEB, builds={"uweb": []}), tmp_path, {})
    assert "# jobs: the response has no items (GET /pipelines/uweb/builds); nothing suggested" in text


async def test_the_runs_of_the_first_project_that_has_some_and_is_read_are_used(tmp_path: Path) -> None:
    projects = [{"id": name, "name": name} for name in ("secret", "idle", "web")]
    app = pipelines_of(*projects, builds={"idle": [], "web": [BUILD]})
    found, text = await suggested_for(app, tmp_path, {}, projects={"exclude": ["secret"]})
    assert found["jobs"]["fields"]["status"] == "state"
    assert "nothing suggested" in text.partition("# records: HTTP 404")[2], "the id of a build is not its number"
    _, text = await suggested_for(app, tmp_path, {}, projects={"include": ["nobody"]})
    assert "# jobs: not requested: the config reads none of the projects in the response; nothing suggested" in text


async def test_fields_that_a_preset_describes_are_kept(tmp_path: Path) -> None:
    preset = tmp_path / "builds.yml"
    fields = {"id": "slug", "name": "org.key"}
    contract = read_file(ROOT / "exporter" / "config" / "presets" / "contract.yml")
    contract["runtime"]["resources"]["projects"] = {"path": "/pipelines", "items": "@", "fields": fields}
    preset.write_text(yaml.safe_dump(contract))
    lists = {"items": "@", "paging": {"style": "none"}}
    resources = {
        "health": "absent", "job": "absent", "usage": "absent", "records": "absent",
        "jobs": {"path": "/pipelines/{project}/builds", **lists, "changed": None, "active": None},
    }  # fmt: skip
    file = tmp_path / "exporter.yml"
    with serving(pipelines_of(UWEB, builds={"web": [BUILD]})) as url:
        file.write_text(yaml.safe_dump({"runtime": {"base_url": url, "preset": str(preset), "resources": resources}}))
        text = await suggest_from_responses(only_runtime(load(file, environ={})), read_file(file))
    found = yaml.safe_load(text)["runtime"]["resources"]
    assert "projects" not in found
    assert found["jobs"]["fields"]["status"] == "state"


@pytest.mark.parametrize(
    ("item", "fields"),
    [
        ({"id": 1, "state": "x", "createdAt": "soon"}, {"id": "id", "status": "state"}),
        ({"run": {"id": 1}, "Start-Time": "2026-01-01T00:00:00Z"}, {
            "id": "run.id", "startedAt": {"path": '"Start-Time"', "convert": "rfc3339"},
        }),
        ({"id": 1, "created": True}, {"id": "id"}),
        ([], {}),
        ("text", {}),
    ],
)  # fmt: skip
def test_a_field_with_the_name_of_a_time_is_suggested_only_if_it_is_a_time(item: Any, fields: dict[str, Any]) -> None:
    assert fields_of("jobs", [item]) == fields


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (None, "not an OpenAPI document"),
        ({"paths": []}, "not an OpenAPI document"),
        ({"paths": {"/pets": {"get": {}}}}, "no list of runs found: expected a path that ends in one of jobs"),
    ],
)
def test_a_document_without_runs_is_an_error(document: Any, says: str) -> None:
    with pytest.raises(SuggestError, match=says):
        from_openapi(document, "http://runtime.test")


def test_a_document_that_refers_to_itself_is_read() -> None:
    loop = {"properties": {"items": {"type": "array", "items": {"$ref": "#/components/schemas/Loop"}}}}
    schema = {"anyOf": [{"$ref": "#/components/schemas/Loop"}]}
    operation = {"responses": {"200": {"content": {"application/json": {"schema": loop}}}}}
    document = {"paths": {"/jobs": {"get": operation}}, "components": {"schemas": {"Loop": schema}}}
    assert "path: /jobs" in from_openapi(document, "http://runtime.test")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--suggest", "--openapi=/nowhere.json"), "/nowhere.json: cannot be read: No such file or directory"),
        (
            ("--suggest", "--openapi=http://127.0.0.1:9/x"),
            "http://127.0.0.1:9/x: no response (connection refused)",
        ),
        (("--suggest", f"--openapi={ROOT / 'LICENSE'}"), "LICENSE: neither JSON nor YAML"),
        (("--openapi=x.json",), "--openapi: requires --suggest"),
    ],
)
def test_a_document_that_cannot_be_read_is_an_error_in_one_line(flags: tuple[str, ...], says: str) -> None:
    failed = run("doctor", *flags)
    assert failed.returncode != 0
    assert says in failed.stderr
    assert failed.stderr.count("\n") == 1


@contextlib.asynccontextmanager
async def answering(body: bytes, *headers: bytes) -> AsyncIterator[str]:
    """A server that sends one response to every request."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"\r\n".join([b"HTTP/1.1 200 OK", b"Connection: close", *headers, b"", body]))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/openapi.json?token=hunter2"


ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("body", "headers", "says"),
    [
        (lambda: gzip.compress(bytes(200_000_000), 9), [b"Content-Encoding: gzip"], "more than 67,108,864 bytes"),
        (ALIASES.encode(), [], "neither JSON nor YAML: line 6: not YAML: aliases expand to too many values"),
        (b"a: " + b"1" * 2_000_000, [], "neither JSON nor YAML: line 1: not YAML: a number that is too long"),
        (b"- a\n" * 1_100_000, [], "not JSON, and more than 4,000,000 characters; convert it to JSON"),
        (b"[" * 100_000, [], "neither JSON nor YAML: not YAML: nested too deeply"),
        (b"\xff", [], "neither JSON nor YAML"),
        (b"", [b"Content-Encoding: br"], "the response has an encoding that was not requested: br"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_document_that_is_a_bomb_is_an_error_in_one_line_without_the_query(
    body: bytes | Callable[[], bytes], headers: list[bytes], says: str
) -> None:
    async with answering(body if isinstance(body, bytes) else body(), *headers) as url:
        with pytest.raises(SuggestError) as caught:
            await read_openapi(url)
    assert str(caught.value) == f"{url.partition('?')[0]}: {says}"


def _schema(schema: Any, **components: Any) -> dict[str, Any]:
    content = {"application/json": {"schema": schema}}
    return {
        "paths": {"/runs": {"get": {"responses": {"200": {"content": content}}}}},
        "components": {"schemas": components},
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


EXPONENTIAL = {f"s{n}": {"allOf": [_ref(f"s{n + 1}")] * 10} for n in range(12)}
WIDE = {"wide": {"type": "array", "items": _ref("w0")}} | {
    f"w{n}": {"properties": {f"p{each}": _ref(f"w{n + 1}") for each in range(100)}} for n in range(5)
}


@pytest.mark.parametrize(
    ("document", "says"),
    [
        pytest.param(_schema(_ref("s0"), **EXPONENTIAL), "too many parts that refer to each other", id="exponential"),
        pytest.param(_schema(_ref("wide"), **WIDE), "too many parts that refer to each other", id="wide"),
        (_schema(_ref("s"), s={"allOf": [_ref("s")]}), "nested too deeply"),
        (_schema({"properties": [1]}), "a part of it is not as expected"),
        (_schema({"anyOf": 5}), "a part of it is not as expected"),
        ({"paths": {"/runs": {"parameters": 5, "get": {}}}}, "a part of it is not as expected"),
        ({"paths": {"/runs": {"get": {"parameters": {"a": 1}, "responses": []}}}}, "a part of it is not as expected"),
    ],
    ids=str,
)
def test_a_document_whose_parts_are_not_as_expected_is_an_error(document: Any, says: str) -> None:
    with pytest.raises(SuggestError, match=says):
        from_openapi(document, "http://h")


# -- what is suggested can be loaded, and is what people would choose ----------------------------------------------


def operation(item: dict[str, Any], *, wrap: str = "items", parameters: tuple[str, ...] = ()) -> dict[str, Any]:
    """A list of items with these properties."""
    schema = {
        "properties": {wrap: {"type": "array", "items": {"properties": item}}, "total_entries": {"type": "integer"}}
    }
    return {
        "get": {
            "parameters": [{"name": name, "in": "query"} for name in parameters],
            "responses": {"200": {"content": {"application/json": {"schema": schema}}}},
        }
    }


TEXT, NUMBER, WHEN = {"type": "string"}, {"type": "integer"}, {"type": "string", "format": "date-time"}
RUN = {"dag_run_id": TEXT, "dag_id": TEXT, "state": TEXT, "queued_at": WHEN, "start_date": WHEN, "end_date": WHEN}
SCHEDULER_JOB = {"id": NUMBER, "state": TEXT, "start_date": WHEN, "end_date": WHEN, "latest_heartbeat": WHEN,
                 "executor_class": TEXT, "hostname": TEXT, "unixname": TEXT}  # fmt: skip
AIRFLOW = {
    "servers": [{"url": "{scheme}://air.example.com/api/v2/", "variables": {"scheme": {"default": "https"}}}],
    "paths": {
        "/jobs": operation(SCHEDULER_JOB, wrap="jobs"),
        "/dags": operation({"dag_id": TEXT, "dag_display_name": TEXT, "is_paused": {"type": "boolean"}}, wrap="dags"),
        "/dags/{dag_id}/dagRuns": operation(RUN, wrap="dag_runs", parameters=("limit", "offset", "updated_at_gte")),
        "/dags/{dag_id}/dagRuns/{dag_run_id}": {"get": {}},
        "/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances": operation({"id": TEXT, "task_id": TEXT, "state": TEXT}),
        "/monitor/health": {"get": {}},
    },
    "components": {"securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}},
}


def suggested(document: Any, base_url: str | None = None, **more: Any) -> tuple[dict[str, Any], str]:
    """The suggested `runtime`, which can be loaded, and the text."""
    text = from_openapi(document, base_url, **more)
    loaded = load_tree(yaml.safe_load(text))
    assert loaded.runtimes
    runtime: dict[str, Any] = yaml.safe_load(text)["runtime"]
    return runtime, text


def test_executions_are_preferred_to_the_housekeeping_of_a_scheduler() -> None:
    found, _ = suggested(AIRFLOW)
    assert found["base_url"] == "https://air.example.com/api/v2"
    resources = found["resources"]
    assert resources["jobs"]["path"] == "/dags/{project}/dagRuns"
    assert resources["jobs"]["paging"]["more"] == "total_entries"
    assert resources["jobs"]["fields"]["id"] == "dag_run_id"
    assert resources["jobs"]["fields"]["spinnerName"] == "dag_id"
    assert resources["job"]["path"] == "/dags/{project}/dagRuns/{run}"
    assert resources["records"]["path"] == "/dags/{project}/dagRuns/{run}/taskInstances"
    assert resources["projects"]["fields"] == {"id": "dag_id", "name": "dag_display_name"}


@pytest.mark.parametrize("path", ["/workflows/executions", "/executions", "/builds", "/pipelines", "/workflow-runs"])
def test_the_words_of_the_field_are_known(path: str) -> None:
    run = {"buildId": NUMBER, "pipelineName": TEXT, "status": TEXT, "createTime": WHEN, "closeTime": WHEN}
    found, _ = suggested({"paths": {path: operation(run), "/usage/{x}": operation({"name": TEXT, "used": NUMBER})}})
    assert found["resources"]["jobs"]["path"] == path
    assert found["resources"]["jobs"]["fields"] == {
        "id": "buildId", "spinnerName": "pipelineName", "status": "status",
        "createdAt": {"path": "createTime", "convert": "rfc3339"},
        "endedAt": {"path": "closeTime", "convert": "rfc3339"},
    }  # fmt: skip
    assert found["resources"]["usage"] == "absent"
    assert "token_file" not in found, "nothing says that it needs one"


@pytest.mark.parametrize(
    ("scheme", "auth"),
    [
        ({"type": "apiKey", "in": "header", "name": "X-N8N-API-KEY"}, {"type": "header", "header": "X-N8N-API-KEY"}),
        (
            {"type": "apiKey", "in": "cookie", "name": "sid"},
            {"type": "header", "header": "Cookie", "value": "sid={token}"},
        ),
        ({"type": "http", "scheme": "Basic"}, {"type": "basic", "username": "exporter"}),
        ({"type": "http", "scheme": "bearer"}, None),
        ({"type": "oauth2", "flows": {}}, None),
    ],
)
def test_the_header_of_the_key_is_that_of_the_document(scheme: dict[str, Any], auth: dict[str, str] | None) -> None:
    document = {"paths": {"/executions": operation({"id": TEXT})}, "components": {"securitySchemes": {"key": scheme}}}
    found, _ = suggested(document)
    assert found.get("auth") == auth
    assert found["token_file"] == "/run/secrets/token"


@pytest.mark.parametrize(
    ("servers", "given", "location", "expected"),
    [
        ([{"url": "/api/v1"}], None, "https://a.example.com/docs/openapi.json?key=1", "https://a.example.com/api/v1"),
        ([{"url": "/api/v1"}], "http://b.example.com/", "x.json", "http://b.example.com/api/v1"),
        ([{"url": "/api/v1"}], "http://b.example.com/own", "x.json", "http://b.example.com/own"),
        ([{"url": "https://c.example.com/x/"}], "http://b.example.com", "x.json", "http://b.example.com/x"),
        ([{"url": "https://c.example.com/x/"}], None, "x.json", "https://c.example.com/x"),
        ([], None, "x.json", "https://runtime.example.com"),
        ([{"url": "nonsense url"}], "http://b.example.com", "x.json", "http://b.example.com"),
    ],
)
def test_the_base_path_is_that_of_the_document(servers: Any, given: str | None, location: str, expected: str) -> None:
    document = {"servers": servers, "paths": {"/executions": operation({"id": TEXT})}}
    assert suggested(document, given, location=location)[0]["base_url"] == expected


def test_what_the_config_says_is_kept_with_a_document() -> None:
    given: dict[str, Any] = {
        "runtime": {
            "base_url": "http://127.0.0.1:8080/api/v2",
            "auth": {"login": {"path": "/auth/token", "body_file": "login"}},
            "resources": {
                "projects": "absent",
                "jobs": {"path": "/dags/~/dagRuns", "items": "dag_runs"},
                "usage": "absent",
            },
        },
        "retention": "2h",
    }
    text = from_openapi(AIRFLOW, None, given)
    tree = yaml.safe_load(text)
    load_tree(tree)
    assert tree["retention"] == "2h"
    assert tree["runtime"]["auth"] == given["runtime"]["auth"]
    assert "token_file" not in tree["runtime"]
    assert tree["runtime"]["base_url"] == "http://127.0.0.1:8080/api/v2"
    assert tree["runtime"]["resources"]["projects"] == "absent"
    assert tree["runtime"]["resources"]["jobs"] == {"path": "/dags/~/dagRuns", "items": "dag_runs"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"retention": 5}, "exporter.yml: retention: expected a duration such as 5s or 1h30m, got 5"),
        ({"projects": {"include": "Sales"}}, "exporter.yml: projects.include: expected a list"),
        ({"web": {"listen_address": "nonsense"}}, "exporter.yml: web.listen_address: expected host:port or :port"),
        ({"storage": {"folder": "/"}}, "exporter.yml: storage.folder: unknown key"),
        ({"runtime": {"auth": {"type": "nonsense"}}}, "exporter.yml: runtime.auth.type: expected one of bearer"),
        ({"runtime": {"timeout": 5}}, "exporter.yml: runtime.timeout: expected a duration"),
        ({"runtime": 5}, "exporter.yml: runtime: expected a mapping of keys"),
        ({"runtime": {"resources": ["jobs"]}}, "exporter.yml: runtime.resources: expected a mapping of keys"),
        ({"runtime": {"resources": {"jobs": 5}}}, "exporter.yml: runtime.resources.jobs: expected a mapping of keys"),
        ({"runtime": {"resources": {"counts": "no"}}}, "exporter.yml: runtime.resources.counts: expected one of job"),
        ({"runtime": {"resources": {"nonsense": {}}}}, "exporter.yml: runtime.resources.nonsense: unknown key"),
        (
            {"runtime": {"resources": {"jobs": {"paging": {"style": "nonsense"}}}}},
            "exporter.yml: runtime.resources.jobs.paging.style: expected one of none",
        ),
        (
            {"runtime": {"resources": {"health": {"error": "]"}}}},
            "exporter.yml: runtime.resources.health.error: invalid JMESPath",
        ),
        (
            {"runtime": {"resources": {"records": {"path": "/steps"}}}},
            "exporter.yml: runtime.resources.records: if its request names no run",
        ),
    ],
)
def test_a_mistake_of_the_config_is_reported_and_costs_no_guess(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        from_openapi(AIRFLOW, None, given, origin="exporter.yml")
    assert str(raised.value).startswith(says)


def test_a_mistake_of_the_config_is_status_2_and_prints_no_config(tmp_path: Path) -> None:
    (tmp_path / "exporter.yml").write_text("retention: 5\n")
    ended = run("doctor", "--suggest", f"--openapi={OPENAPI}", f"--config.file={tmp_path / 'exporter.yml'}")
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert f"{tmp_path / 'exporter.yml'}: retention: expected a duration" in ended.stderr


@pytest.mark.parametrize(
    "given",
    [
        {"runtime": None},
        {"runtime": {"auth": None, "token_file": None, "base_url": None, "resources": None}},
        {"runtime": {"resources": dict.fromkeys(("health", "projects", "jobs", "job", "records"))}},
        {"runtime": {"resources": {"jobs": {"fields": None}}}},
    ],
)
def test_a_key_without_a_value_is_guessed_as_if_it_were_not_there(given: dict[str, Any]) -> None:
    found, _ = suggested(AIRFLOW, config_file=given)
    assert {key: value for key, value in found.items() if value is not None} == suggested(AIRFLOW)[0]
    assert found["resources"]["jobs"]["fields"]["id"] == "dag_run_id"


def test_a_value_that_is_none_on_purpose_is_kept() -> None:
    found, _ = suggested(AIRFLOW, config_file={"runtime": {"resources": {"jobs": {"changed": None}}}})
    assert found["resources"]["jobs"]["changed"] is None


@pytest.mark.parametrize(
    "given",
    [{}, {"runtime": None}, {"runtime": {"resources": None}}, {"runtime": {"resources": {"jobs": {"fields": None}}}}],
)
def test_keys_without_a_value_are_filled_from_responses(given: dict[str, Any]) -> None:
    text = from_responses("http://a", {"projects": [{"id": "p"}], "jobs": [{"id": "a", "state": "OK"}]}, given)
    runtime = yaml.safe_load(text)["runtime"]
    assert runtime["base_url"] == "http://a"
    assert runtime["resources"]["jobs"]["fields"] == {"id": "id", "status": "state"}


@pytest.mark.parametrize("place", ["flag", "environment"])
def test_the_url_and_the_token_file_that_were_used_are_written_not_those_of_the_file(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    file = tmp_path / "exporter.yml"
    file.write_text(yaml.safe_dump({"runtime": {"base_url": "http://127.0.0.1:9", "token_file": "/nowhere"}}))
    with runtime(tmp_path) as url:
        settings = {"base_url": url, "token_file": str(tmp_path / "token")}
        flags = []
        for key, value in settings.items():
            flags.append(f"--runtime.{key.replace('_', '-')}={value}")
            if place == "environment":
                monkeypatch.setenv(f"SPINNER_EXPORTER_RUNTIME_{key.upper()}", value)
        flags = flags if place == "flag" else []
        for more in ((), (f"--openapi={OPENAPI}",)):
            ended = run("doctor", "--suggest", f"--config.file={file}", *more, *flags)
            assert ended.returncode == 0, ended.stderr
            found = yaml.safe_load(ended.stdout)["runtime"]
            assert {key: found[key] for key in settings} == settings, more


@pytest.mark.parametrize(
    "paths",
    [
        # A list of what changed, without a single run; a list of all without its projects; ids that nothing gives.
        {"/runs": operation({"id": TEXT}, parameters=("updatedSince",))},
        {"/projects": operation({"id": TEXT, "name": TEXT}), "/runs": operation({"id": TEXT})},
        {"/runs": operation({"id": TEXT}), "/steps": operation({"id": TEXT})},
        {"/a/{b}/runs/{c}/runs": operation({"id": TEXT}), "/health/{x}": {"get": {}}, "/runs/{a}/{b}": {"get": {}}},
        {"/runs": operation({"id": TEXT}, parameters=("page", "cursor", "nextPage"))},
    ],
)
def test_whatever_a_document_has_the_suggestion_can_be_loaded(paths: dict[str, Any]) -> None:
    suggested({"paths": paths})


def test_a_time_or_a_share_is_no_number_of_records() -> None:
    item = {"id": 1, "completed": "2026-01-01T00:00:00Z", "failed": 1_767_000_000, "running": 0.5, "pending": True,
            "waiting": None, "total": 7}  # fmt: skip
    fields = fields_of("jobs", [item])
    assert {name: path for name, path in fields.items() if name.startswith("records.")} == {"records.total": "total"}


def test_an_id_is_unique_in_the_sample() -> None:
    items = [
        {"id": 1, "uuid": f"u{n}", "flow": {"name": f"f{n}"}, "workflow_name": f"w{n % 2}", "n": n} for n in range(4)
    ]
    assert fields_of("jobs", items)["id"] == "uuid"
    numbered = [{"number": n % 2, "workflow_name": f"w{n // 2}"} for n in range(4)]
    fields = fields_of("jobs", numbered)
    assert fields["id"] == "join('/', [to_string(workflow_name), to_string(number)])"
    assert fields["ref.number"] == "number"
    assert load_tree({"runtime": {"base_url": "http://a", "resources": {"jobs": {"fields": fields}}}}).runtimes


def test_references_of_a_path_are_fields_of_the_projects() -> None:
    jobs = {"path": "/repos/{ref.owner}/{ref.nick}/runs", "changed": None}
    given = {"runtime": {"resources": {"projects": {"path": "/repos"}, "jobs": jobs, "records": "absent"}}}
    projects = [{"full_name": "a/b", "name": "b", "owner": {"login": "a"}}]
    text = from_responses("http://a", {"projects": projects, "jobs": [{"id": 1, "status": "x"}]}, given)
    tree = yaml.safe_load(text)
    load_tree(tree)
    assert tree["runtime"]["resources"]["projects"]["fields"]["ref.owner"] == "owner.login"
    assert tree["runtime"]["resources"]["projects"]["fields"]["ref.nick"] == "full_name"


def test_fields_that_would_make_a_config_unusable_are_left_out_and_said() -> None:
    given = {"runtime": {"resources": {"projects": {"path": "/teams"}, "jobs": {"path": "/runs", "changed": None}}}}
    text = from_responses("http://a", {"jobs": [{"id": 1, "status": "x"}]}, given)
    load_tree(yaml.safe_load(text))
    assert "# Left out what did not fit together: jobs.fields.projectId: is required" in text


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        (True, {True: "up", False: "down"}),
        ("healthy", {"healthy": "up", "*": "down"}),
        ("OK", {"OK": "up", "*": "down"}),
        ("unhealthy", {"unhealthy": "down"}),
        ("up", None),
        ("purple", None),
    ],
)
def test_a_known_state_of_the_workers_is_mapped_to_up_or_down(value: Any, labels: Any) -> None:
    text = from_responses("http://a", {"health": [{"state": value}]}, {})
    assert load_tree(yaml.safe_load(text)).runtimes
    found = yaml.safe_load(text)["runtime"]["resources"]["health"]["fields"]["runtime.status"]
    assert found == ("state" if labels is None else {"path": "state", "labels": labels})
