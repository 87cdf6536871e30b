"""What a steady scrape writes: of projects that are read together, when that was is saved once and not for each."""

from collections import Counter
from datetime import datetime
from pathlib import Path

import httpx
import msgspec
import pytest

from exporter.runs.persistence import Row, Saved
from exporter.runs.project import CommonRead, ProjectMetadata
from exporter.runs.state_file import StateFile
from exporter.runs.store import Store
from exporter.service import Exporter
from exporter.status import Status
from exporter.sync import common_sync
from tests.builders import NOON, RUNTIME, Clock, read_project, snapshot, store
from tests.scripted import ScriptedRuntime, exporter_of

MANY = common_sync.FEW + 30


@pytest.fixture
def runtime() -> ScriptedRuntime:
    made = ScriptedRuntime(Clock())
    made.lists_all_projects = True
    made.projects = {f"p{number}": f"Project {number}" for number in range(MANY)}
    for project in made.projects:
        now = made.clock()
        made.put(f"of-{project}", projectId=project, status="completed", createdAt=now - 9, endedAt=now)
    return made


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """The rows that were staged since it was cleared: each of them is written."""
    rows: list[Row] = []
    stage = StateFile.stage

    def noting(self: StateFile, staged: list[Row]) -> None:
        staged = list(staged)
        rows.extend(staged)
        stage(self, staged)

    monkeypatch.setattr(StateFile, "stage", noting)
    return rows


async def scrape(made: Exporter, runtime: ScriptedRuntime, seconds: float = 15.0) -> None:
    runtime.clock.advance(seconds)
    await made.page()


async def steady(runtime: ScriptedRuntime, folder: Path) -> Exporter:
    made = exporter_of(runtime, storage=folder)
    for _ in range(20):
        await scrape(made, runtime)
    return made


def watermarks(made: Exporter) -> dict[str, float | None]:
    projects = made.runtimes[RUNTIME].store._projects
    return {project_id: project.metadata.watermark for project_id, project in projects.items()}


async def test_a_scrape_in_which_nothing_changes_writes_a_few_rows(
    runtime: ScriptedRuntime, tmp_path: Path, written: list[Row]
) -> None:
    made = await steady(runtime, tmp_path)
    written.clear()
    for _ in range(10):
        await scrape(made, runtime)
    await made.close()
    kinds = Counter(kind for kind, *_ in written)
    assert kinds["common"] == 10
    # Of those that are checked by themselves in each scrape: when that was, and that they follow the others again.
    assert kinds["project"] <= 10 * 2 * common_sync.FEW_REQUESTS < 10 * MANY
    assert kinds.keys() <= {"common", "project"}


async def test_a_change_writes_what_changed(runtime: ScriptedRuntime, tmp_path: Path, written: list[Row]) -> None:
    made = await steady(runtime, tmp_path)
    written.clear()
    runtime.put("new", projectId="p7")
    await scrape(made, runtime)
    await made.close()
    assert {key for kind, _, key, _ in written if kind == "run"} == {"new"}
    assert len(written) <= 4 + 2 * common_sync.FEW_REQUESTS


async def test_a_restart_continues_where_the_last_scrape_ended(runtime: ScriptedRuntime, tmp_path: Path) -> None:
    made = await steady(runtime, tmp_path)
    before = watermarks(made)
    await made.close()
    again = exporter_of(runtime, storage=tmp_path)
    assert watermarks(again) == before
    runtime.requests.clear()
    await scrape(again, runtime)
    # From where the last read ended, less the overlap: not from the first time that a row was written.
    asked = [request.url.params["updatedSince"] for request in runtime.requests if "updatedSince" in request.url.params]
    earliest = min(each for each in before.values() if each is not None)
    assert asked
    assert min(datetime.fromisoformat(each).timestamp() for each in asked) == earliest - 120
    await again.close()


async def test_a_project_that_falls_behind_is_saved_with_its_own_time(runtime: ScriptedRuntime, tmp_path: Path) -> None:
    made = await steady(runtime, tmp_path)
    behind = "p3"

    def unreadable(request: httpx.Request) -> httpx.Response | None:
        return httpx.Response(500) if request.url.path.endswith(f"/projects/{behind}/jobs") else None

    runtime.interfere = unreadable
    # As after a slice that could not be applied.
    made.runtimes[RUNTIME]._sync._common._apart.add(behind)
    for number in range(3):
        runtime.put(f"new-{number}", projectId="p5")
        await scrape(made, runtime)
    before = watermarks(made)
    common = made.runtimes[RUNTIME].store._projects.common
    assert common is not None
    assert common.watermark == max(each for each in before.values() if each is not None)
    assert before[behind] != common.watermark
    await made.close()
    again = exporter_of(runtime, storage=tmp_path)
    assert watermarks(again) == before
    await again.close()


def test_a_project_that_is_not_read_after_a_restart_is_saved_with_its_own_time() -> None:
    """What it has in the file are the times of the read that it had in common with the others, which moves on."""
    clock = Clock(NOON)
    held = store(clock, projects={"p1": "Sales", "p2": "Support"})
    saved: dict[tuple[str, str, str], Saved] = {}

    def read_together(*project_ids: str) -> None:
        clock.advance(15)
        now = clock()
        held.note_unchanged(project_ids, as_of=now, since=now - 15, watermark=now, asked_at=now, at=now)

    def restart() -> Store:
        for kind, project, key, value in held.persistence.unsaved():
            assert value is not None
            saved[kind, project, key] = value
        again = store(clock, projects={})
        again.persistence.restore([(*key, value) for key, value in saved.items()])
        assert list(again.persistence.unsaved()) == [], "a restart alone writes nothing"
        return again

    for project in ("p1", "p2"):
        read_project(held, project, [], as_of=clock(), horizon=clock() - 60)
    read_together("p1", "p2")
    behind = clock()
    held = restart()
    read_together("p2")
    held = restart()
    assert (held.read_up_to("p1"), held.read_up_to("p2")) == (behind, behind + 15)


def test_what_a_project_forgot_or_is_called_is_saved_although_it_is_read_with_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise, after a restart, it would count again what it forgot."""
    monkeypatch.setattr("exporter.runs.limits.MIN_TOMBSTONES", 0)
    clock = Clock(NOON)
    held = store(clock, projects={"p1": "Sales", "p2": "Support"}, retention=60.0, limits={"runs": 1})
    old = [
        snapshot(f"{ago}", Status.COMPLETED, started_at=NOON - 55, ended_at=NOON - ago, updated_at=NOON - ago)
        for ago in (50, 40)
    ]
    for project, runs in (("p1", old), ("p2", [])):
        read_project(held, project, [(run, NOON) for run in runs], as_of=NOON, horizon=NOON - 60)
    clock.advance(300)
    held.note_unchanged(["p1", "p2"], as_of=clock(), since=NOON, watermark=clock(), asked_at=clock(), at=clock())
    held.persistence.saved()
    held.expire()
    assert [row[:2] for row in held.persistence.unsaved() if row[0] == "project"] == [("project", "p1")]
    held.persistence.saved()
    held.name_projects({"p2": "Service"})
    assert [row[:2] for row in held.persistence.unsaved() if row[0] == "project"] == [("project", "p2")]


def test_without_the_times_that_projects_have_in_common_each_goes_on_from_its_own_earlier_ones() -> None:
    """As in a file that was changed by hand: what happened since then is read again."""
    held = store(Clock(NOON), projects={})
    saved = ProjectMetadata("Sales", history=True, read_as_of=NOON - 60, watermark=NOON - 60, is_common=True)
    held.persistence.restore([("project", "p1", "", saved)])
    assert held.read_up_to("p1") == NOON - 60
    (again,) = (value for kind, _, _, value in held.persistence.everything() if kind == "project")
    assert again == msgspec.structs.replace(saved, is_common=False, remembered_since=NOON - 60)


@pytest.mark.parametrize(
    ("field", "value"),
    [("read_as_of", 99.0), ("watermark", 89.0), ("watermark", None), ("read_at", 78.9), ("read_at", None)],
)
def test_a_project_was_read_with_the_others_if_all_times_say_so(field: str, value: float | None) -> None:
    common = CommonRead(read_as_of=100.0, watermark=90.0, read_at=80.0)
    metadata = ProjectMetadata("Sales", history=True, read_as_of=100.0, watermark=90.0, read_at=80.1)
    assert common.is_that_of(metadata)
    assert not common.is_that_of(msgspec.structs.replace(metadata, **{field: value}))
