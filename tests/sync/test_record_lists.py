"""Records in flight and records that wait: what is said of lists that fail, and what is forgotten of runs."""

from typing import Any

import httpx
import pytest
import structlog

from exporter.config import LimitsConfig
from exporter.service import Exporter
from exporter.sync import records_in_flight
from tests.builders import NOON, RUNTIME, Clock
from tests.metrics.test_exposition import Samples, samples, value
from tests.scripted import ScriptedRuntime, exporter_of

THRESHOLD = 1092.0
"""Seconds that these runs may be silent: little is known about them."""

HALF = THRESHOLD / 2

ACTIVITY = "spinner_run_last_activity_timestamp_seconds"


def silent(runtime: ScriptedRuntime, run_id: str = "run-1", **fields: Any) -> None:
    """Start a run that works on a record and finishes none, or let it finish one now."""
    now = runtime.clock()
    completed = 1 if run_id in runtime.jobs else 0
    counts = {"total": 100, "pending": 98, "completed": completed, "failed": 0, "running": 1}
    started = {} if run_id in runtime.jobs else {"createdAt": now, "startedAt": now}
    runtime.put(run_id, **{**started, "lastProgressAt": now, "records": counts, **fields})
    runtime.records_in_flight.setdefault(run_id, [{"id": "rec-1", "attempts": 1, "step": {"name": "find"}}])


def waits(runtime: ScriptedRuntime, run_id: str = "run-1", *, records: int = 1, **fields: Any) -> None:
    """Start a run of which records wait, or change it."""
    counts = {"total": 100, "completed": 1, "running": 0, "waiting": records}
    runtime.put(run_id, **{"status": "waiting", "lastProgressAt": NOON, "records": counts, **fields})
    runtime.waiting_records[run_id] = [
        {"id": f"rec-{each}", "attempts": 1, "step": {"name": "Ask", "startedAt": NOON}} for each in range(records)
    ]


def with_waiting_runs(count: int) -> tuple[ScriptedRuntime, list[str]]:
    """A runtime with so many runs of which records wait, and their ids."""
    runtime, runs = ScriptedRuntime(Clock()), [f"run-{number}" for number in range(count)]
    for run in runs:
        waits(runtime, run)
    return runtime, runs


async def scrape(exporter: Exporter, runtime: ScriptedRuntime, seconds: float = 15.0) -> Samples:
    """Let time pass and scrape."""
    runtime.clock.advance(seconds)
    runtime.requests.clear()
    return samples(str(await exporter.page()))


@pytest.mark.parametrize(
    ("start", "status", "what"),
    [(silent, "running", "records in flight"), (waits, "waiting", "waiting records")],
    ids=["in flight", "waiting"],
)
async def test_a_list_that_cannot_be_read_is_a_problem_until_it_can(start: Any, status: str, what: str) -> None:
    runtime = ScriptedRuntime(Clock())
    start(runtime)
    exporter = exporter_of(runtime)
    runtime.interfere = lambda request: httpx.Response(500) if request.url.params.get("status") == status else None
    with structlog.testing.capture_logs() as lines:
        await scrape(exporter, runtime, HALF + 15)
        assert runtime.runs_asked(status) == ["run-1"]
        await scrape(exporter, runtime, 120)
        runtime.interfere = lambda request: None
        await scrape(exporter, runtime, 120)
    assert [(line["event"], line["what"], line["project"]) for line in lines] == [
        ("cannot read", what, "Sales"),
        ("recovered", what, "Sales"),
    ]


def refusing(runtime: ScriptedRuntime, status: int, run: str = "run-") -> None:
    """Refuse the lists of waiting records of some runs."""
    runtime.interfere = lambda request: (
        httpx.Response(status)
        if request.url.params.get("status") == "waiting" and f"/{run}" in request.url.path
        else None
    )


async def test_a_list_that_the_runtime_has_is_not_missing_because_several_runs_are_gone() -> None:
    runtime, runs = with_waiting_runs(5)
    exporter = exporter_of(runtime, sync={"concurrency": 1})
    asked = []
    for status in (None, 404, None):
        runtime.interfere = lambda request: None
        if status is not None:
            refusing(runtime, status)
        for run in runs:
            waits(runtime, run)
        await scrape(exporter, runtime, 60)
        asked.append(runtime.runs_asked("waiting"))
    assert asked == [runs, runs, runs]
    assert exporter.runtimes[RUNTIME]._sync.waiting_records.is_listed


async def test_after_a_while_it_takes_as_many_refusals_again_until_the_list_counts_as_missing() -> None:
    runtime, runs = with_waiting_runs(4)
    exporter = exporter_of(runtime, sync={"concurrency": 1})
    refusing(runtime, 404)
    await scrape(exporter, runtime)
    assert runtime.runs_asked("waiting") == runs[:-1]
    refusing(runtime, 404, runs[-1])
    await scrape(exporter, runtime, 600)
    assert runtime.runs_asked("waiting") == [runs[-1], *runs[:-1]]
    assert exporter.runtimes[RUNTIME]._sync.waiting_records.is_listed


async def test_a_list_that_is_missing_is_not_asked_for_within_ten_minutes() -> None:
    runtime = ScriptedRuntime(Clock())
    waits(runtime)
    exporter = exporter_of(runtime)
    refusing(runtime, 405)
    asked = []
    for seconds in (15, 599, 1):
        await scrape(exporter, runtime, seconds)
        asked.append(runtime.runs_asked("waiting"))
    assert asked == [["run-1"], [], ["run-1"]]


@pytest.mark.parametrize(("records", "page_size", "requests"), [(6, 1, 4), (2000, 1000, 2), (2001, 1000, 3)])
async def test_of_a_run_four_pages_are_read_or_two_thousand_records(
    records: int, page_size: int, requests: int
) -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.page_size = page_size
    waits(runtime, records=records)
    found = await scrape(exporter_of(runtime), runtime)
    assert len(runtime.runs_asked("waiting")) == requests
    whole = records if records == 2000 else None
    assert value(found, "spinner_run_waiting_records") == whole


async def test_that_the_runtime_does_not_have_a_list_is_logged_once_and_again_after_it_had_it() -> None:
    runtime = ScriptedRuntime(Clock())
    waits(runtime)
    exporter = exporter_of(runtime)
    waiting = exporter.runtimes[RUNTIME]._sync.waiting_records
    logged, listed = [], [waiting.is_listed]
    for status in (405, 405, None, 405, 405):
        runtime.interfere = lambda request: None
        if status is not None:
            refusing(runtime, status)
        with structlog.testing.capture_logs() as lines:
            found = await scrape(exporter, runtime, 600)
        assert runtime.runs_asked("waiting") == ["run-1"]
        assert value(found, "spinner_project_up") == 1
        logged.append([line["event"] for line in lines])
        listed.append(waiting.is_listed)
    line = "waiting records are not read: the runtime does not list them"
    assert logged == [[line], [], [], [line], []]
    assert listed == [None, False, False, True, False, False]


async def test_a_list_is_read_as_far_as_the_budget_suffices_and_then_its_number_is_unknown() -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.page_size = 1
    waits(runtime, records=3)
    exporter = exporter_of(runtime, limits=LimitsConfig(waiting_record_requests=2))
    found = await scrape(exporter, runtime)
    assert runtime.runs_asked("waiting") == ["run-1", "run-1"]
    named = {dict(labels)["record_id"] for name, labels in found if name == "spinner_run_waiting_record_info"}
    assert named == {"rec-0", "rec-1"}
    assert value(found, "spinner_run_waiting_records") is None


async def test_after_progress_records_are_not_compared_with_those_before_it() -> None:
    """A record that was tried again before the progress shows nothing about the silence after it."""
    runtime = ScriptedRuntime(Clock())
    silent(runtime)
    exporter = exporter_of(runtime, sync={"sweep_interval": 1e6})
    await scrape(exporter, runtime, HALF + 15)
    assert runtime.runs_asked("running") == ["run-1"]
    silent(runtime)
    await scrape(exporter, runtime)
    runtime.records_in_flight["run-1"][0]["attempts"] = 2
    found: Samples = {}
    while not runtime.runs_asked("running"):
        found = await scrape(exporter, runtime, 60)
    assert value(found, ACTIVITY) is None
    runtime.records_in_flight["run-1"][0]["attempts"] = 3
    for _ in range(8):
        found = await scrape(exporter, runtime, 60)
    assert value(found, ACTIVITY) is not None


async def test_of_how_many_records_in_flight_the_last_read_is_remembered_is_limited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run whose records are forgotten has nothing to compare with, like one that is read for the first time."""
    monkeypatch.setattr(records_in_flight, "MAX_SEEN", 2)
    runtime = ScriptedRuntime(Clock())
    for number in range(3):
        silent(runtime, f"run-{number}")
    exporter = exporter_of(runtime, sync={"sweep_interval": 1e6})
    await scrape(exporter, runtime, HALF + 15)
    last = exporter.runtimes[RUNTIME]._sync._records_in_flight._last
    assert [len(each.seen.places) for each in last.values()] == [0, 1, 1]
    for records in runtime.records_in_flight.values():
        records[0]["attempts"] = 2
    found: Samples = {}
    for _ in range(8):
        found = await scrape(exporter, runtime)
    active = {dict(labels)["run_id"] for name, labels in found if name == ACTIVITY}
    assert active == {"run-1", "run-2"}


async def test_nothing_is_remembered_of_runs_that_ended_and_of_projects_that_were_removed() -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.lists_all_runs = True
    runtime.projects = {"p1": "Sales", "p2": "Support"}
    exporter = exporter_of(runtime, limits=LimitsConfig(failed_record_requests=2))
    await scrape(exporter, runtime)
    for project in runtime.projects:
        for number in range(3):
            silent(runtime, f"silent-{number}-{project}", projectId=project)
            waits(runtime, f"waits-{number}-{project}", projectId=project)
    await scrape(exporter, runtime, HALF + 15)
    now = runtime.clock()
    for project in runtime.projects:
        for number in range(3):
            failed = {"total": 100, "completed": 0, "running": 1, "failed": 1}
            run = f"failed-{number}-{project}"
            runtime.put(run, projectId=project, status="running", startedAt=now, records=failed)
            runtime.failed_records[run] = [{"id": f"failed-{run}", "endedAt": "2025-11-24T16:10:00Z"}]
    await scrape(exporter, runtime)
    assert runtime.clock() - now < 60
    sync = exporter.runtimes[RUNTIME]._sync
    remembered: dict[str, dict[tuple[str, str], Any]] = {
        "in flight": sync._records_in_flight._last,
        "waiting": sync.waiting_records._last,
        "failed": sync.common_records._seen,
    }

    def count(project: str) -> dict[str, int]:
        return {kind: sum(key[0] == project for key in keys) for kind, keys in remembered.items()}

    assert count("p1") == count("p2") == {"in flight": 3, "waiting": 3, "failed": 3}
    for run in ("silent-0-p1", "waits-0-p1"):
        runtime.put(run, status="completed", endedAt=runtime.clock())
    await scrape(exporter, runtime)
    remembered["failed"] = sync.common_records._seen
    assert count("p1") == {"in flight": 2, "waiting": 2, "failed": 3}
    sync._project_sync.drop("p1")
    assert count("p1") == dict.fromkeys(remembered, 0)
    assert count("p2") == {"in flight": 3, "waiting": 3, "failed": 3}
