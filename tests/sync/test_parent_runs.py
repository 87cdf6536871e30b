"""Runs that name the record that started them: the run of that record is found when its records are counted."""

import httpx
import msgspec
import pytest

from exporter.config.api_description import Resource
from exporter.runtime.model import FailedRecord, RecordSnapshot, RunSnapshot
from exporter.service import Exporter
from exporter.status import Status
from exporter.sync import record_counter
from exporter.sync.record_counter import ParentRuns
from tests.builders import NOON, RUNTIME, Clock, resources, snapshot
from tests.scripted import ScriptedRuntime, exporter_of, rfc3339

FIELDS = (
    "id",
    "projectId",
    "spinnerName",
    "status",
    "createdAt",
    "startedAt",
    "endedAt",
    "updatedAt",
    "parentRecordId",
)


class Nested(ScriptedRuntime):
    """A run in p1 whose record `calls` started a run in p2."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.projects = {"p1": "Sales", "p2": "Calls"}
        self.ended_at: float | None = None
        """When the only record of the child ended."""
        self.interfere = self._records
        self.put("parent")
        self.put("child", projectId="p2", parentRecordId="calls")

    def _records(self, request: httpx.Request) -> httpx.Response | None:
        if not request.url.path.endswith("/records"):
            return None
        if "/parent/" in request.url.path:
            return self._list(request, [{"id": "calls", "status": "running"}])
        status = "running" if self.ended_at is None else "completed"
        return self._list(request, [{"id": "call", "status": status, "endedAt": rfc3339(self.ended_at)}])


@pytest.fixture
def runtime() -> Nested:
    return Nested(Clock())


def nesting(runtime: Nested) -> Exporter:
    described = resources()
    assert isinstance(described.records, Resource)
    described = msgspec.structs.replace(
        described,
        counts="records",
        jobs=msgspec.structs.replace(described.jobs, fields={field: field for field in FIELDS}, across=None),
        records=msgspec.structs.replace(described.records, running=None, across=None, across_changed=None),
    )
    return exporter_of(runtime, described={"resources": described}, sync={"sweep_interval": 0.0})


async def child_of(exporter: Exporter) -> RunSnapshot:
    assert await exporter.refresh()
    shown = {each.run.id: each.run.snapshot for each in exporter.runtimes[RUNTIME].store.view.runs()}
    return shown["child"]


async def test_the_run_of_the_record_becomes_the_parent(runtime: Nested) -> None:
    made = nesting(runtime)
    await child_of(made)
    assert (await child_of(made)).parent_id == "parent"


async def test_a_parent_that_is_no_longer_counted_stays_the_parent(runtime: Nested) -> None:
    made = nesting(runtime)
    for _ in range(2):
        await child_of(made)
    runtime.put("parent", status="completed", endedAt=NOON)
    await child_of(made)
    # As after a restart, or when very many others were noted since.
    made.runtimes[RUNTIME]._sync._project_sync._parents._run_ids.clear()
    assert (await child_of(made)).parent_id == "parent"


async def test_a_record_that_no_run_has_is_no_parent(runtime: Nested) -> None:
    runtime.put("child", parentRecordId="unknown")
    made = nesting(runtime)
    await child_of(made)
    assert not (await child_of(made)).parent_id


@pytest.mark.parametrize(("own", "of_child"), [("p1", "p2"), ("p2", "p1")])
async def test_a_parent_is_not_silent_while_its_child_in_another_project_makes_progress(
    runtime: Nested, own: str, of_child: str
) -> None:
    runtime.put("parent", projectId=own)
    runtime.put("child", projectId=of_child)
    made, clock = nesting(runtime), runtime.clock
    for _ in range(2):
        await child_of(made)
    parent = made.runtimes[RUNTIME].store._projects[own].open["parent"]
    began = parent.pace.quiet_since()
    assert began is not None
    clock.advance(600)
    await child_of(made)
    assert parent.pace.quiet_since() == began, "nothing has happened"
    runtime.ended_at = clock()
    await child_of(made)
    assert made.runtimes[RUNTIME].store._projects[own].open["parent"].pace.quiet_since() == runtime.ended_at


async def test_an_end_that_is_yet_to_come_excuses_no_silence_in_the_future(runtime: Nested) -> None:
    made, clock = nesting(runtime), runtime.clock
    for _ in range(2):
        await child_of(made)
    runtime.ended_at = clock() + 20
    await child_of(made)
    assert made.runtimes[RUNTIME].store._projects["p1"].open["parent"].pace.quiet_since() == clock()


def test_of_very_many_records_that_started_runs_the_last_ones_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_counter, "MAX_CHILDREN", 2)
    parents = ParentRuns()
    children = [snapshot(f"child-{each}", parent_record_id=each) for each in "abcc"]
    for child in children:
        parents.note(child)
    records = {each: RecordSnapshot(Status.RUNNING, FailedRecord(each, "", "")) for each in "abc"}
    parents.look_in(records, snapshot("parent"))
    assert [parents.of(child) for child in children] == [None, *[("p1", "parent")] * 3]
