"""The doctor: what it says of a connection that is well, and of each thing that can be wrong with one."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.config import load
from exporter.doctor.diagnosis import ABSENT_COSTS, COSTS, REQUIRED, Diagnosis, examine
from exporter.metrics import catalogue
from exporter.runtime.mapping import FIELDS
from exporter.runtime.statuses import propose
from tests.command_line import run
from tests.connecting.server import TOKEN, OddRuntime, serving
from tests.connecting.test_connecting import EXAMPLE
from tests.stack.programs import free_port, runtime


def test_a_runtime_of_the_contract_is_well(tmp_path: Path) -> None:
    with runtime(tmp_path) as url:
        looked = run("doctor", "--runtime.base-url", url)
    assert looked.returncode == 0, looked.stdout + looked.stderr
    assert "FAIL" not in looked.stdout
    for line in ("ok    health: it answers", "ok    clocks: they agree", "ok    a whole read: as the exporter does it"):
        assert line in looked.stdout, f"{line!r} is not in\n{looked.stdout}"
    assert "records.completed" in looked.stdout
    assert "requests to the API in an hour" in looked.stdout


def test_machines_are_told_the_same(tmp_path: Path) -> None:
    with runtime(tmp_path) as url:
        told = json.loads(run("doctor", "--runtime.base-url", url, "--json").stdout)
    assert told["ok"] is True
    assert told["runs"] > 5
    assert told["series"] > 100
    # Health, projects, usage, and each of three projects' changes: what a scrape asks for when nothing is swept.
    assert told["requests_per_hour"] >= 6 * 240
    completed = next(
        each for each in told["fields"] if (each["resource"], each["field"]) == ("jobs", "records.completed")
    )
    assert completed["found"] == completed["items"] > 5


def test_nobody_there_is_said_in_a_line() -> None:
    looked = run("doctor", "--runtime.base-url", f"http://127.0.0.1:{free_port()}")
    assert looked.returncode == 1
    assert "FAIL  health: no response (ConnectError)" in looked.stdout
    assert "Traceback" not in looked.stdout + looked.stderr


async def odd_diagnosis(folder: Path, odd: OddRuntime, token: str = TOKEN, **resources: Any) -> Diagnosis:
    """Look docs/connecting.md's deployment over, with some of its description said otherwise."""
    (folder / "token").write_text(token)
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
        return await examine(load(folder / "exporter.yml", environ={}).runtimes[""])


def check(diagnosis: Diagnosis, what: str) -> Any:
    (found,) = (each for each in diagnosis.checks if each.what == what)
    return found


async def test_another_deployment_is_well_and_what_it_lacks_is_said_with_its_cost(tmp_path: Path) -> None:
    found = await odd_diagnosis(tmp_path, OddRuntime())
    assert found.ok, found.as_text()
    assert check(found, "usage").finding == "absent: no plan meters, and no alert before PLAN_LIMIT"
    assert "behind ours; it is corrected" in check(found, "clocks").finding, "its clock stands still"
    costs = {(each.resource, each.field): each.cost for each in found.fields}
    assert costs["jobs", "records.completed"] == "nothing: it is counted from the records"
    assert costs["jobs", "endedAt"] == ""


async def test_where_runs_have_no_counts_that_is_what_it_costs(tmp_path: Path) -> None:
    found = await odd_diagnosis(tmp_path, OddRuntime(), counts="job")
    costs = {(each.resource, each.field): each.cost for each in found.fields}
    assert costs["jobs", "records.completed"].startswith("no progress, and so no stall can be seen")
    assert costs["jobs", "lastProgressAt"].startswith("stalls are timed from what the exporter sees")


async def test_a_field_that_is_required_and_missing_is_no_way_to_begin(tmp_path: Path) -> None:
    fields = {**EXAMPLE["runtime"]["resources"]["jobs"]["fields"], "id": "nothing"}
    found = await odd_diagnosis(tmp_path, OddRuntime(), jobs={"fields": fields})
    assert not found.ok
    assert "5 items in the first answer" not in check(found, "jobs").finding
    assert "2 would be left out: Object missing required field `id`" in check(found, "jobs").finding
    assert next(each.cost for each in found.fields if (each.resource, each.field) == ("jobs", "id")) == "required"


async def test_labels_that_nobody_knows_are_named_with_what_they_may_mean(tmp_path: Path) -> None:
    odd = OddRuntime()
    odd.executions[0]["state"] = "Completed-ish"
    odd.executions[1]["state"] = "Zurückgestellt"
    found = await odd_diagnosis(tmp_path, odd)
    assert found.labels == {"Completed-ish": "completed", "Zurückgestellt": None}
    proposed = yaml.safe_load("statuses:" + found.as_text().split("statuses:")[1].split("\n\n")[0])
    assert proposed == {"statuses": {"Completed-ish": "completed", "Zurückgestellt": None}}


async def test_a_path_that_is_wrong_and_an_answer_that_is_something_else(tmp_path: Path) -> None:
    found = await odd_diagnosis(
        tmp_path, OddRuntime(), projects={"path": "/nowhere"}, health={"fields": {"status": "x"}}
    )
    assert not found.ok
    assert check(found, "projects").finding == "HTTP 404: not found"


@pytest.mark.parametrize(
    ("label", "idea"),
    [("Runing", "running"), ("step_failed_hard", "failed"), ("is waiting for customer", "waiting"), ("purple", None)],
)
def test_a_proposal_is_the_nearest_word(label: str, idea: str | None) -> None:
    proposed = propose(label)
    assert (proposed and proposed.value) == idea


def test_costs_and_required_fields_are_fields() -> None:
    for resource, field in [*COSTS, *((name, each) for name, fields in REQUIRED.items() for each in fields)]:
        assert field in FIELDS[resource]


def test_what_it_costs_names_metrics_that_there_are() -> None:
    named = set(re.findall(r"spinner_\w+", " ".join((*COSTS.values(), *ABSENT_COSTS.values()))))
    assert named <= set(catalogue.names())
