"""The doctor: its report about a connection that works, and about each problem that a connection can have."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.config import load
from exporter.doctor.diagnosis import ABSENT_EFFECTS, EFFECTS, REQUIRED, Diagnosis, examine
from exporter.metrics import catalogue
from exporter.runtime.mapping import FIELDS
from exporter.runtime.statuses import propose
from tests.builders import only_runtime
from tests.command_line import run
from tests.connecting.server import TOKEN, OddRuntime, serving
from tests.connecting.test_connecting import EXAMPLE
from tests.stack.programs import free_port, runtime


def test_a_runtime_that_follows_the_contract_passes(tmp_path: Path) -> None:
    with runtime(tmp_path) as url:
        checked = run("doctor", "--runtime.base-url", url)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "FAIL" not in checked.stdout
    for line in ("ok    health: responds", "ok    clocks: in sync", "ok    full read: succeeded"):
        assert line in checked.stdout, f"{line!r} is not in\n{checked.stdout}"
    assert "records.completed" in checked.stdout
    assert "API requests per hour" in checked.stdout


def test_json_contains_the_same(tmp_path: Path) -> None:
    with runtime(tmp_path) as url:
        result = json.loads(run("doctor", "--runtime.base-url", url, "--json").stdout)
    assert result["ok"] is True
    report = result["runtimes"][url.removeprefix("http://")]
    assert report["ok"] is True
    assert report["runs"] > 5
    assert report["series"] > 100
    # Health, projects, usage, and the changes of each of three projects: the requests of a scrape without a sweep.
    assert report["requests_per_hour"] >= 6 * 240
    completed = next(
        each for each in report["fields"] if (each["resource"], each["field"]) == ("jobs", "records.completed")
    )
    assert completed["found"] == completed["items"] > 5


def test_an_unreachable_runtime_is_reported_in_one_line() -> None:
    checked = run("doctor", "--runtime.base-url", f"http://127.0.0.1:{free_port()}")
    assert checked.returncode == 1
    assert "FAIL  health: no response (ConnectError)" in checked.stdout
    assert "Traceback" not in checked.stdout + checked.stderr


async def odd_diagnosis(folder: Path, odd: OddRuntime, **resources: Any) -> Diagnosis:
    """Check the deployment of docs/connecting.md, with parts of its description replaced."""
    (folder / "token").write_text(TOKEN)
    with serving(odd.app()) as url:
        described = {
            name: {**EXAMPLE["runtime"]["resources"][name], **more} if isinstance(more, dict) else more
            for name, more in resources.items()
        }
        tree = {
            "runtime": {
                **EXAMPLE["runtime"],
                "base_url": f"{url}/automation",
                "token_file": str(folder / "token"),
                "resources": {**EXAMPLE["runtime"]["resources"], **described},
            },
        }
        (folder / "exporter.yml").write_text(yaml.safe_dump(tree))
        return await examine(only_runtime(load(folder / "exporter.yml", environ={})))


def check(diagnosis: Diagnosis, what: str) -> Any:
    (found,) = (each for each in diagnosis.checks if each.what == what)
    return found


async def test_a_described_deployment_passes_and_the_effect_of_each_missing_field_is_shown(tmp_path: Path) -> None:
    found = await odd_diagnosis(tmp_path, OddRuntime())
    assert found.ok, found.as_text()
    assert check(found, "usage").finding == "absent: no plan meters, and no alert before PLAN_LIMIT"
    assert "behind this one; the exporter corrects for it" in check(found, "clocks").finding, (
        "its clock does not advance"
    )
    effects = {(each.resource, each.field): each.effect for each in found.fields}
    assert effects["jobs", "records.completed"] == "none: it is counted from the records"
    assert effects["jobs", "endedAt"] == ""


async def test_the_effect_of_runs_without_counts_is_shown(tmp_path: Path) -> None:
    found = await odd_diagnosis(tmp_path, OddRuntime(), counts="job")
    effects = {(each.resource, each.field): each.effect for each in found.fields}
    assert effects["jobs", "records.completed"].startswith("no progress and no stall detection")
    assert effects["jobs", "lastProgressAt"].startswith("the exporter's own observations are used")


async def test_a_missing_required_field_fails(tmp_path: Path) -> None:
    fields = {**EXAMPLE["runtime"]["resources"]["jobs"]["fields"], "id": "nothing"}
    found = await odd_diagnosis(tmp_path, OddRuntime(), jobs={"fields": fields})
    assert not found.ok
    assert "5 items in the first response" not in check(found, "jobs").finding
    assert "2 would be skipped: Object missing required field `id`" in check(found, "jobs").finding
    assert next(each.effect for each in found.fields if (each.resource, each.field) == ("jobs", "id")) == "required"


async def test_unknown_labels_are_listed_with_a_proposed_status(tmp_path: Path) -> None:
    odd = OddRuntime()
    odd.executions[0]["state"] = "Completed-ish"
    odd.executions[1]["state"] = "Zurückgestellt"
    found = await odd_diagnosis(tmp_path, odd)
    assert found.labels == {"Completed-ish": "completed", "Zurückgestellt": None}
    proposed = yaml.safe_load("statuses:" + found.as_text().split("statuses:")[1].split("\n\n")[0])
    assert proposed == {"statuses": {"Completed-ish": "completed", "Zurückgestellt": None}}


async def test_a_wrong_path_and_a_wrong_field_fail(tmp_path: Path) -> None:
    found = await odd_diagnosis(
        tmp_path, OddRuntime(), projects={"path": "/nowhere"}, health={"fields": {"status": "x"}}
    )
    assert not found.ok
    assert check(found, "projects").finding == "HTTP 404: not found"


@pytest.mark.parametrize(
    ("label", "status"),
    [("Runing", "running"), ("step_failed_hard", "failed"), ("is waiting for customer", "waiting"), ("purple", None)],
)
def test_the_proposed_status_is_the_most_similar_one(label: str, status: str | None) -> None:
    proposed = propose(label)
    assert (proposed and proposed.value) == status


def test_effects_and_required_fields_name_existing_fields() -> None:
    for resource, field in [*EFFECTS, *((name, each) for name, fields in REQUIRED.items() for each in fields)]:
        assert field in FIELDS[resource]


def test_effects_name_existing_metrics() -> None:
    named = set(re.findall(r"spinner_\w+", " ".join((*EFFECTS.values(), *ABSENT_EFFECTS.values()))))
    assert named <= set(catalogue.names())
