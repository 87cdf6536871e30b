"""Whose numbers are these: projects and spinners with equal names, runs with equal ids, lists of several projects.

Each over real HTTP. A page that has a series twice is refused by Prometheus as a whole.
"""

import re
import time
import unicodedata
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from exporter.config import Duration, SpinnerConfig, load
from exporter.config.values import decode_value
from exporter.doctor.examination import examine
from exporter.errors import ConfigError
from tests.builders import NOON, Clock, only_runtime
from tests.faults.bench import bench, described
from tests.faults.server import FaultyRuntime
from tests.metrics.test_exposition import Samples, value
from tests.scripted import ScriptedRuntime

DROPPED = "spinner_exporter_runs_dropped_total"

FIELDS = {name: name for name in
          ("id", "projectId", "spinnerName", "status", "createdAt", "startedAt", "updatedAt")}  # fmt: skip
"""A description of runs that has the ids of their projects."""


def names(found: Samples, label: str) -> set[str]:
    return {dict(labels)[label] for name, labels in found if name == "spinner_runs_started_total"}


def lists_all(runtime: ScriptedRuntime) -> None:
    """Answer with the jobs of all projects, whatever was asked for."""

    def answer(request: httpx.Request) -> httpx.Response | None:
        if not request.url.path.endswith("/jobs"):
            return None
        every = [job for project in {job["projectId"] for job in runtime.jobs.values()} for job in
                 runtime._jobs(project, request.url.params)]  # fmt: skip
        return runtime._list(request, every)

    runtime.interfere = answer


# -- names -------------------------------------------------------------------------------------------------


async def test_projects_with_equal_names_have_series_of_their_own() -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.projects = {"1": "Report", "2": "Report", "x": "Report (2)"}
    for number, project in enumerate(runtime.projects):
        for run in range(number + 1):
            runtime.put(f"{project}-{run}", projectId=project)
    async with bench(runtime) as made:
        found = await made.scrape()
    started = [value(found, "spinner_runs_started_total", project=each) for each in
               ("Report", "Report (2) (2)", "Report (2)")]  # fmt: skip
    assert started == [1, 2, 3]


async def test_a_namesake_that_appears_later_does_not_rename_the_first() -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.projects = {"9": "Clinic"}
    runtime.put(projectId="9")
    async with bench(runtime) as made:
        assert names(await made.scrape(), "project") == {"Clinic"}
        runtime.projects = {"1": "Clinic", "9": "Clinic"}
        runtime.put("newer", projectId="1")
        await made.scrape()
        runtime.put(status="completed", endedAt=NOON, projectId="9")
        found = await made.scrape()
    assert names(found, "project") == {"Clinic", "Clinic (1)"}
    assert value(found, "spinner_runs_finished_total", project="Clinic", status="completed") == 1


async def test_names_that_were_given_survive_a_restart(tmp_path: Path) -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.projects = {"9": "Clinic"}
    runtime.put(projectId="9")
    async with bench(runtime, storage=tmp_path) as made:
        for _ in range(2):
            await made.scrape()
            await made.restart()
            runtime.projects = {"1": "Clinic", "9": "Clinic"}
            runtime.put("newer", projectId="1")
        found = await made.scrape()
    pairs = {dict(labels)["run_id"]: dict(labels)["project"] for name, labels in found if name == "spinner_run_info"}
    assert pairs == {"run-1": "Clinic", "newer": "Clinic (1)"}


async def test_two_spinners_of_a_project_with_equal_names_are_counted_apart(tmp_path: Path) -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.put("a", spinnerId="s1", spinnerName="Nightly")
    async with bench(runtime, storage=tmp_path) as made:
        await made.scrape()
        runtime.put("b", spinnerId="s2", spinnerName="Nightly")
        runtime.put("c", spinnerId=7, spinnerName="Weekly")
        await made.scrape()
        runtime.put("b", status="failed", endedAt=NOON)
        await made.scrape()
        await made.restart()
        runtime.put("d", spinnerId="s2", spinnerName="Nightly")
        runtime.put("e", spinnerId="s1", spinnerName="Nightly")
        await made.scrape()
        found = await made.scrape()
    started = {name: value(found, "spinner_runs_started_total", spinner=name) for name in names(found, "spinner")}
    assert started == {"Nightly": 2, "Nightly (s2)": 2, "Weekly": 1}
    assert value(found, "spinner_runs_finished_total", spinner="Nightly", status="failed") == 0
    assert value(found, "spinner_runs_finished_total", spinner="Nightly (s2)", status="failed") == 1


async def test_a_run_whose_spinner_has_no_name_keeps_the_one_that_it_had(tmp_path: Path) -> None:
    async with bench(storage=tmp_path) as made:
        made.runtime.put(spinnerId="s1", records={"total": 9, "completed": 5})
        made.runtime.put("other")
        await made.next()
        made.runtime.put(spinnerName=None, records={"total": 9, "completed": 6})
        made.runtime.put("next", spinnerId="s1", spinnerName=None)
        made.runtime.put("of another", spinnerId="s2", spinnerName=None)
        made.runtime.put("of none", spinnerName=None)
        found = await made.next()
        made.runtime.put(spinnerName="greeting")
        renamed = await made.next()
    assert value(found, "spinner_run_records", run_id="run-1", spinner="welcome", state="completed") == 6
    assert value(found, "spinner_run_info", run_id="next", spinner="welcome") == 1
    assert value(found, "spinner_run_info", run_id="of another", spinner="s2") == 1
    assert value(found, "spinner_run_info", run_id="of none", spinner="Sales") == 1
    assert value(found, "spinner_exporter_invalid_items_total", kind="job") == 4, "each is noted"
    assert value(renamed, "spinner_run_info", run_id="run-1", spinner="greeting") == 1


async def test_a_project_that_has_no_name_or_no_id_for_a_while_stays(each_way: bool) -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.projects = {"p1": "Sales", "p2": "Support"}
    runtime.put(records={"total": 9, "completed": 1})
    runtime.put("other", projectId="p2")
    items: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response | None:
        return runtime._list(request, items) if items and request.url.path.endswith("/projects") else None

    runtime.interfere = answer
    async with bench(runtime) as made:
        await made.next()
        for first in ({"id": "p1", "name": None}, {"id": None, "name": "Sales"}, {"name": "Sales"}):
            items[:] = [first, {"id": "p2", "name": "Support"}]
            for minute in range(9):
                runtime.put(records={"total": 9, "completed": minute})
                found = await made.next(60)
                assert value(found, "spinner_project_up", project="Sales") == 1
                assert value(found, "spinner_run_records", project="Sales", state="completed") == minute
        invalid = value(found, "spinner_exporter_invalid_items_total", kind="project") or 0
        assert invalid > 2, "in each answer that is read"
        assert "1 items are invalid, so no project counts as missing" in str(made.problems)
        items.clear()
        await made.next(60)
    recovered = [line["what"] for line in made.lines if line["event"] == "recovered"]
    assert recovered == ["list of projects"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
async def test_names_that_look_the_same_are_the_same_in_the_config_and_on_the_page(form: Any) -> None:
    """rclone/rclone#7757: a letter with an accent is one character or two, and nobody sees which of them was typed."""
    shown = "R\N{LATIN SMALL LETTER E WITH ACUTE}sum\N{LATIN SMALL LETTER E WITH ACUTE}"
    typed = re.compile(unicodedata.normalize(form, shown))
    runtime = ScriptedRuntime(Clock())
    runtime.projects = {"p1": unicodedata.normalize("NFD", shown), "p2": shown}
    for project in runtime.projects:
        runtime.put(f"of {project}", projectId=project, spinnerName=unicodedata.normalize("NFD", shown))
        runtime.put(f"also of {project}", projectId=project, spinnerName=shown)
    spinners = (SpinnerConfig(project=decode_pattern(typed), spinner=decode_pattern(typed), stall_floor=Duration(77)),)
    async with bench(runtime, spinners=spinners) as made:
        found = await made.scrape()
    assert names(found, "project") == {shown, f"{shown} (p2)"}
    assert value(found, "spinner_runs_started_total", project=shown, spinner=shown) == 2
    assert value(found, "spinner_stall_floor_seconds", project=shown, spinner=shown) == 77


def decode_pattern(pattern: re.Pattern[str]) -> re.Pattern[str]:
    """A pattern as it is read from a config."""
    decoded = decode_value(re.Pattern[str], pattern.pattern)
    assert isinstance(decoded, re.Pattern)
    return decoded


# -- ids ---------------------------------------------------------------------------------------------------


async def test_runs_of_two_projects_with_the_same_id_are_two_runs() -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.projects = {"p1": "Sales", "p2": "Support"}
    for project, done in (("p1", 3), ("p2", 8)):
        runtime.put(f"of {project}", id="1", projectId=project, records={"total": 10, "completed": done, "failed": 0})
    async with bench(runtime) as made:
        found = await made.scrape()
        ratios = [value(found, "spinner_run_progress_ratio", project=name) for name in ("Sales", "Support")]
        assert ratios == [0.3, 0.8]
        runtime.put("of p2", status="completed", endedAt=NOON)
        found = await made.scrape()
    assert value(found, "spinner_run_status", project="Sales", status="running") == 1
    assert value(found, "spinner_run_status", project="Support", status="completed") == 1
    assert value(found, DROPPED, reason="shared_id") == 0


async def test_runs_of_one_project_with_the_same_id_are_counted_and_one_that_can_stall_is_read() -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.put("of a", id="12", spinnerName="A", createdAt=NOON - 400)
    runtime.put("of b", id="12", spinnerName="B", createdAt=NOON - 60)
    async with bench(runtime) as made:
        for _ in range(3):
            found = await made.scrape()
            assert value(found, "spinner_run_status", run_id="12", spinner="A", status="running") == 1
            assert value(found, "spinner_run_status", run_id="12", spinner="B", status="running") is None
        assert value(found, DROPPED, reason="shared_id") == 1, "once, however often it is read"
        runtime.put("of a", status="completed", endedAt=NOON)
        await made.scrape()
        runtime.put("of b")
        for _ in range(2):
            found = await made.scrape()
            assert value(found, "spinner_run_status", run_id="12", spinner="B", status="running") == 1
    assert value(found, "spinner_runs", spinner="A", status="completed") == 0


async def test_doctor_says_that_ids_are_not_unique(tmp_path: Path) -> None:
    now = time.time()  # doctor compares the runtime's clock with the real one
    runtime = ScriptedRuntime(Clock(now))
    findings = []
    for key, spinner, age in (("12", "A", 400), ("other", "B", 60)):
        runtime.put(key, id="12", spinnerName=spinner, createdAt=now - age, startedAt=now - age)
        async with FaultyRuntime(runtime).serving() as url:
            (tmp_path / "exporter.yml").write_text(yaml.safe_dump({"runtime": {"base_url": url}}))
            diagnosis = await examine(only_runtime(load(tmp_path / "exporter.yml", environ={})))
        findings += [(each.ok, each.finding) for each in diagnosis.checks if each.what == "ids of runs"]
    unique, shared = findings
    assert unique == (True, "unique in each project")
    assert not shared[0]
    assert shared[1].startswith("1 ids are those of several runs of a project, of which only one is read; make the id")


# -- lists -------------------------------------------------------------------------------------------------


async def test_a_list_of_all_projects_counts_each_run_once() -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.projects = {"p1": "Sales", "p2": "Support"}
    runtime.put("a", projectId="p1")
    runtime.put("b", projectId="p2")
    runtime.put("c", projectId="of nobody")
    lists_all(runtime)
    async with bench(runtime, runtime=described(jobs={"path": "/api/v1/jobs"})) as made:
        for _ in range(2):
            found = await made.scrape()
    started = [value(found, "spinner_runs_started_total", project=name) for name in ("Sales", "Support")]
    assert started == [1, 1]
    shown = {dict(labels)["run_id"] for name, labels in found if name == "spinner_run_info"}
    assert shown == {"a", "b"}


async def test_a_run_of_such_a_list_that_does_not_tell_its_project_is_invalid() -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.projects = {"p1": "Sales", "p2": "Support"}
    runtime.put("a", projectId="p1")
    runtime.put("b", projectId=None)
    lists_all(runtime)
    async with bench(runtime, runtime=described(jobs={"path": "/api/v1/jobs"})) as made:
        found = await made.scrape()
    assert value(found, "spinner_exporter_invalid_items_total", kind="job") == 2, "in two lists"
    assert names(found, "project") == {"Sales"}


async def test_a_project_s_list_that_ignores_the_project_counts_each_run_once() -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.projects = {"p1": "Sales", "p2": "Support"}
    runtime.put("a", projectId="p1")
    runtime.put("b", projectId="p2")
    lists_all(runtime)
    async with bench(runtime, runtime=described(jobs={"fields": FIELDS})) as made:
        found = await made.scrape()
    assert [value(found, "spinner_runs_started_total", project=name) for name in ("Sales", "Support")] == [1, 1]


async def test_a_run_with_another_id_of_its_project_stays_in_the_project_s_list() -> None:
    """Some APIs have a number in the list and a key in the path."""
    runtime = ScriptedRuntime(Clock())
    runtime.put("a", projectId="p1")
    runtime.interfere = lambda request: (
        runtime._list(request, [{**job, "projectId": "4711"} for job in runtime._jobs("p1", request.url.params)])
        if request.url.path.endswith("/jobs")
        else None
    )
    async with bench(runtime, runtime=described(jobs={"fields": FIELDS})) as made:
        found = await made.scrape()
    assert value(found, "spinner_runs_started_total", project="Sales") == 1


def test_a_list_of_all_projects_without_their_ids_is_refused(tmp_path: Path) -> None:
    jobs = {"path": "/jobs", "fields": {"id": "id", "spinnerName": "name", "status": "state", "createdAt": "t"}}
    tree = {"runtime": {"base_url": "http://runtime.test", "resources": {"jobs": jobs}}}
    (tmp_path / "exporter.yml").write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError, match=r"projectId: is required if the request for jobs does not contain"):
        load(tmp_path / "exporter.yml", environ={})


@pytest.mark.parametrize("each_way", [False, True], ids=["project by project", "one list"])
async def test_a_run_that_is_moved_to_another_project_leaves_the_first_one(each_way: bool) -> None:
    """In both, it would stall twice, and nobody would see that the first one is over."""
    runtime = ScriptedRuntime(Clock())
    runtime.projects = {"p1": "Sales", "p2": "Support"}
    runtime.lists_all_projects = each_way
    runtime.put("a", projectId="p1")
    runtime.put("b", projectId="p1")
    async with bench(runtime) as made:
        await made.next()
        runtime.put("a", projectId="p2")
        found = await made.next(130)
    shown = {(dict(labels)["project"], dict(labels)["run_id"]) for name, labels in found if name == "spinner_run_info"}
    assert shown == {("Support", "a"), ("Sales", "b")}
    assert value(found, DROPPED, reason="gone") == 1


async def test_a_list_of_projects_that_is_empty_once_resets_no_counter() -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.put(status="completed", endedAt=NOON - 1)
    async with bench(runtime) as made:
        await made.scrape()
        listed, runtime.projects = runtime.projects, {}
        counts = []
        for _ in range(2):
            counts.append(value(await made.next(15), "spinner_runs_started_total", project="Sales"))
        runtime.projects = listed
        counts.append(value(await made.next(15), "spinner_runs_started_total", project="Sales"))
    assert counts == [1, 1, 1]
