"""A config to begin with: from an OpenAPI document, or from answers; and it has to work."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.config import load
from exporter.doctor import suggest_from_answers
from exporter.doctor.suggest import SuggestError, fields_of, from_openapi
from tests.command_line import run
from tests.connecting.server import TOKEN, OddRuntime, serving
from tests.connecting.test_connecting import EXAMPLE
from tests.stack.programs import ROOT, runtime

OPENAPI = ROOT / "exporter" / "simulator" / "openapi.yaml"


def test_what_is_suggested_from_a_document_connects_at_once(tmp_path: Path) -> None:
    with runtime(tmp_path) as url:
        suggested = run("doctor", "--suggest", f"--openapi={OPENAPI}", f"--runtime.base-url={url}")
        assert suggested.returncode == 0, suggested.stderr
        tree = yaml.safe_load(suggested.stdout)
        del tree["runtime"]["token_file"]  # this runtime wants none
        file = tmp_path / "suggested.yml"
        file.write_text(yaml.safe_dump(tree))
        looked = run("doctor", f"--config.file={file}")
    assert looked.returncode == 0, looked.stdout
    assert "FAIL" not in looked.stdout
    assert "ok    a whole read: as the exporter does it" in looked.stdout
    # Everything that the contract has is found by its name, and read incrementally.
    assert tree["runtime"]["resources"]["jobs"]["changed"] == {"query": {"updatedSince": "{since}"}}
    assert tree["runtime"]["resources"]["jobs"]["active"] == {"query": {"active": "true"}}


async def test_fields_are_suggested_from_answers_and_nothing_of_their_content(tmp_path: Path) -> None:
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
        text = await suggest_from_answers(load(tmp_path / "exporter.yml", environ={}).runtimes[""])
    resources = yaml.safe_load(text)["runtime"]["resources"]
    assert resources["projects"]["fields"] == {"id": "key", "name": "title"}
    assert resources["jobs"]["fields"] == {
        "id": "uid",
        "spinnerName": "flow.title",
        "status": "state",
        "createdAt": {"path": "t.queued", "convert": "epoch_ms"},
        "startedAt": {"path": "t.begun", "convert": "local", "zone": "UTC"},
        "updatedAt": {"path": "t.touched", "convert": "epoch_s"},
    }
    assert "Flow 1" not in text
    assert TOKEN not in text


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
def test_a_name_is_not_enough_where_a_time_is_due(item: Any, fields: dict[str, Any]) -> None:
    assert fields_of("jobs", [item]) == fields


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (None, "this is no OpenAPI document"),
        ({"paths": []}, "this is no OpenAPI document"),
        ({"paths": {"/pets": {"get": {}}}}, "no list of runs is described; looked for a path that ends in one of jobs"),
    ],
)
def test_a_document_without_runs_is_refused(document: Any, says: str) -> None:
    with pytest.raises(SuggestError, match=says):
        from_openapi(document, "http://runtime.test")


def test_a_document_that_refers_to_itself_ends() -> None:
    loop = {"properties": {"items": {"type": "array", "items": {"$ref": "#/components/schemas/Loop"}}}}
    schema = {"anyOf": [{"$ref": "#/components/schemas/Loop"}]}
    operation = {"responses": {"200": {"content": {"application/json": {"schema": loop}}}}}
    document = {"paths": {"/jobs": {"get": operation}}, "components": {"schemas": {"Loop": schema}}}
    assert "path: /jobs" in from_openapi(document, "http://runtime.test")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--suggest", "--openapi=/nowhere.json"), "/nowhere.json: cannot be read: No such file or directory"),
        (("--suggest", "--openapi=http://127.0.0.1:9/x"), "http://127.0.0.1:9/x: no answer (ConnectError)"),
        (("--suggest", f"--openapi={ROOT / 'LICENSE'}"), "LICENSE: neither JSON nor YAML"),
        (("--openapi=x.json",), "--openapi: expected with --suggest alone"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_line(flags: tuple[str, ...], says: str) -> None:
    failed = run("doctor", *flags)
    assert failed.returncode != 0
    assert says in failed.stderr
    assert "Traceback" not in failed.stderr
