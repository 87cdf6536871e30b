"""Spinners that should run: known before their first run, and after a restart that forgot what was counted."""

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.config import Config, Duration, LimitsConfig, ProjectsConfig, SpinnerConfig
from exporter.config.values import literal
from exporter.service import Exporter
from exporter.service.monitored_runtime import Dependencies
from exporter.sync.project_sync import ProjectSync
from tests.builders import NOON, RUNTIME, Clock, config_with
from tests.metrics.test_exposition import Samples, samples, value
from tests.scripted import ScriptedRuntime, exporter_of, no_sleep, rfc3339

HOUR, DAY = 3600.0, 86400.0
STARTED, FINISHED = "spinner_runs_started_total", "spinner_runs_finished_total"
LAST_START, LAST_SUCCESS = "spinner_last_start_timestamp_seconds", "spinner_last_success_timestamp_seconds"
WATCHED_SINCE, EXPECTED = "spinner_watched_since_timestamp_seconds", "spinner_expected_interval_seconds"


def expects(spinner: str = "Report", interval: float = DAY, project: str = "Sales") -> SpinnerConfig:
    return SpinnerConfig(project=re.compile(project), spinner=re.compile(spinner), expected_interval=Duration(interval))


async def page(exporter: Exporter) -> Samples:
    return samples(str(await exporter.page()))


def ran(runtime: ScriptedRuntime, run_id: str, ago: float, status: str = "completed", spinner: str = "Report") -> None:
    """A run that took ten minutes and ended `ago` seconds before noon."""
    ended = NOON - ago
    runtime.put(
        run_id,
        spinnerName=spinner,
        status=status,
        createdAt=ended - 660,
        startedAt=ended - 600,
        endedAt=ended,
        updated_at=ended,
        records={"total": 10, "pending": 0, "running": 0, "waiting": 0, "completed": 9, "failed": 1},
    )


def since(request: httpx.Request) -> float:
    return datetime.fromisoformat(request.url.params["updatedSince"]).timestamp()


def first_history(runtime: ScriptedRuntime) -> float:
    """How many seconds before noon the first read of changes began."""
    return NOON - since(next(each for each in runtime.job_lists() if "updatedSince" in each.url.params))


# -- what the config names ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("Report", "Report"),
        ("Appointment reminders", "Appointment reminders"),
        (r"Report \(EU\)", "Report (EU)"),
        (r"Q1\.report", "Q1.report"),
        (r"a\\b", "a\\b"),
        ("a\\\nb", "a\nb"),
        ("Q1.report", None),
        (".*report", None),
        ("a|b", None),
        (r"\d", None),
        ("(?i)report", None),
        ("[ab]", None),
        ("^Report$", None),
        ("", None),
    ],
)
def test_a_pattern_without_special_characters_is_a_name(pattern: str, text: str | None) -> None:
    assert literal(re.compile(pattern)) == text


@given(st.text(min_size=1))
def test_an_escaped_text_is_a_name(text: str) -> None:
    pattern = re.compile(re.escape(text))
    assert literal(pattern) == text
    assert pattern.fullmatch(text)


def test_the_config_names_a_spinner_by_a_project_and_a_name_and_expects_it_by_any_entry() -> None:
    config = config_with(
        spinners=[
            {"project": re.compile("Sales"), "spinner": re.compile("Report"), "stall_floor": 60.0},
            {"project": re.compile("Sales"), "spinner": re.compile("Import"), "expected_interval": 300.0},
            {"project": re.compile("Sales"), "spinner": re.compile("Mails"), "stall_floor": 60.0},
            {"project": re.compile("Sales.*"), "spinner": re.compile("Pattern"), "expected_interval": 300.0},
            {"spinner": re.compile("Anywhere"), "expected_interval": 300.0},
            {"spinner": re.compile("Rep.*"), "expected_interval": 600.0},
        ]
    )
    assert config.expected_spinners("Sales") == ("Report", "Import")
    assert config.expected_spinners("Support") == ()


@pytest.mark.parametrize(
    ("entries", "history"),
    [
        ([], HOUR),
        ([{"stall_floor": 60.0}], HOUR),
        ([{"expected_interval": 60.0}], HOUR),
        ([{"expected_interval": DAY}, {"expected_interval": HOUR}], 2.5 * DAY),
        ([{"project": re.compile("Sa.*"), "expected_interval": DAY}], 2.5 * DAY),
        ([{"project": re.compile("Support"), "expected_interval": DAY}], HOUR),
        ([{"expected_interval": 7 * DAY}], 8 * DAY),
    ],
)
def test_the_history_reaches_as_far_back_as_the_longest_interval_needs(
    entries: list[dict[str, object]], history: float
) -> None:
    assert config_with(spinners=entries).history("Sales") == history
    assert config_with(spinners=entries, retention=Duration(30 * DAY)).history("Sales") == 30 * DAY


# -- before the first run -----------------------------------------------------------------------------------


async def test_a_spinner_that_never_ran_is_known_by_its_name_and_counts_from_zero() -> None:
    clock = Clock(NOON)
    runtime = ScriptedRuntime(clock)
    exporter = exporter_of(runtime, spinners=(expects(), expects("Mails", project="Support")))
    found = await page(exporter)
    spinner = {"runtime": RUNTIME, "project": "Sales", "spinner": "Report"}
    assert value(found, EXPECTED, **spinner) == DAY
    assert value(found, WATCHED_SINCE, **spinner) == NOON - 2.5 * DAY
    assert (value(found, STARTED, **spinner), value(found, FINISHED, status="failed", **spinner)) == (0, 0)
    assert value(found, "spinner_runs", status="running", **spinner) == 0
    for name in (LAST_START, LAST_SUCCESS, "spinner_records_processed_total"):
        assert not [pairs for found_name, pairs in found if found_name == name], f"{name} is not known"
    assert not [name for name, pairs in found if ("spinner", "Mails") in pairs], "there is no such project"

    counts = []
    for _ in range(2):
        clock.advance(15)
        runtime.put("run-1", spinnerName="Report", startedAt=NOON + 15)
        found = await page(exporter)
        counts.append(value(found, STARTED, **spinner))
    assert counts == [0, 1]
    assert value(found, LAST_START, **spinner) == NOON + 15
    await exporter.close()


async def test_a_named_spinner_is_unknown_until_its_project_has_been_read() -> None:
    runtime = ScriptedRuntime(Clock(NOON))
    runtime.interfere = lambda request: httpx.Response(500) if request.url.path.endswith("/jobs") else None
    exporter = exporter_of(runtime, spinners=(expects(),))
    found = await page(exporter)
    assert not [name for name, pairs in found if ("spinner", "Report") in pairs]
    runtime.interfere = lambda request: None
    assert value(await page(exporter), EXPECTED, spinner="Report") == DAY
    await exporter.close()


async def test_named_spinners_follow_reloads_names_of_projects_and_what_is_read() -> None:
    clock = Clock(NOON)
    runtime = ScriptedRuntime(clock)
    exporter = exporter_of(runtime, spinners=(expects(),))

    async def shown() -> dict[str, float]:
        found = await page(exporter)
        return {dict(pairs)["spinner"]: number for (name, pairs), number in found.items() if name == EXPECTED}

    async def configure(**changes: object) -> None:
        config = exporter.runtimes[RUNTIME].config
        await exporter.reload({RUNTIME: msgspec.structs.replace(config, **changes)})

    assert await shown() == {"Report": DAY}
    await configure(spinners=(expects("Import", HOUR),))
    assert await shown() == {"Import": HOUR}
    runtime.projects["p1"] = "Sales EU"
    clock.advance(600)
    assert await shown() == {}
    runtime.projects["p1"] = "Sales"
    clock.advance(600)
    assert await shown() == {"Import": HOUR}
    runtime.interfere = lambda request: httpx.Response(500) if request.url.path.endswith("/jobs") else None
    clock.advance(600)
    found = await page(exporter)
    assert value(found, STARTED, spinner="Import") == 0, "counters stay"
    assert value(found, "spinner_runs", spinner="Import", status="running") is None, "the list is stale"
    runtime.interfere = lambda request: None
    assert await shown() == {"Import": HOUR}
    projects, runtime.projects = runtime.projects, {}
    for expected in ({"Import": HOUR}, {"Import": HOUR}, {}):  # dropped when it has been missing for a while
        clock.advance(600)
        assert await shown() == expected
    runtime.projects = projects
    clock.advance(600)
    assert await shown() == {"Import": HOUR}
    await configure(projects=ProjectsConfig(exclude=(re.compile(".*"),)))
    assert await shown() == {}
    await exporter.close()


# -- the first read -----------------------------------------------------------------------------------------


async def test_after_a_restart_without_storage_the_last_start_and_success_are_known() -> None:
    runtime = ScriptedRuntime(Clock(NOON))
    ran(runtime, "run-1", 47 * HOUR)
    ran(runtime, "run-2", 23 * HOUR, "failed")
    ran(runtime, "run-3", 20 * HOUR, spinner="Mails")
    exporter = exporter_of(runtime, spinners=(expects(),))
    found = await page(exporter)
    assert value(found, LAST_START, spinner="Report") == NOON - 23 * HOUR - 600
    assert value(found, LAST_SUCCESS, spinner="Report") == NOON - 47 * HOUR
    assert value(found, LAST_SUCCESS, spinner="Mails") == NOON - 20 * HOUR, "it is in the list too"
    assert value(found, WATCHED_SINCE, spinner="Report") == NOON - 60 * HOUR
    assert value(found, WATCHED_SINCE, spinner="Mails") is None
    assert not [pairs for name, pairs in found if name == "spinner_run_info"], "they ended longer than retention ago"
    await exporter.close()


async def test_history_changes_no_count() -> None:
    """After a restart `increase()` takes a counter's first value for new: it would count days again."""
    pages = []
    for entries in ((), (expects(),)):
        clock = Clock(NOON)
        runtime = ScriptedRuntime(clock)
        for hours in (50, 30, 20, 2, 0.5):
            ran(runtime, f"run-{hours}", hours * HOUR, "failed" if hours == 30 else "completed")
        exporter = exporter_of(runtime, spinners=entries)
        for _ in range(3):
            found = await page(exporter)
            clock.advance(130)
        pages.append({key: number for key, number in found.items() if ("spinner", "Report") in key[1]})
        await exporter.close()
    without, with_history = pages
    added = {name for name, _ in with_history.keys() - without.keys()}
    assert added == {EXPECTED, WATCHED_SINCE}
    assert {key: with_history[key] for key in without} == without
    assert value(without, FINISHED, status="completed") == 1


async def test_a_run_of_the_history_that_is_touched_later_is_not_counted() -> None:
    clock = Clock(NOON)
    runtime = ScriptedRuntime(clock)
    ran(runtime, "run-1", 20 * HOUR)
    exporter = exporter_of(runtime, spinners=(expects(),))
    await page(exporter)
    clock.advance(15)
    runtime.put("run-1")
    for _ in range(2):
        clock.advance(15)
        found = await page(exporter)
    assert value(found, FINISHED, status="completed", spinner="Report") == 0
    await exporter.close()


@pytest.mark.parametrize(("interval", "history"), [(DAY, 60 * HOUR), (7 * DAY, 8 * DAY), (600.0, HOUR)])
async def test_the_first_read_asks_for_the_history_and_later_ones_do_not(interval: float, history: float) -> None:
    clock = Clock(NOON)
    runtime = ScriptedRuntime(clock)
    exporter = exporter_of(runtime, spinners=(expects(interval=interval),))
    await page(exporter)
    assert first_history(runtime) == history
    clock.advance(15)
    await page(exporter)
    assert NOON - since(runtime.job_lists()[-1]) == 120, "the overlap"
    await exporter.close()


@pytest.mark.parametrize(("page_size", "pages"), [(10, 3), (30, 1)])
async def test_a_history_that_is_too_long_is_halved_until_it_can_be_read(page_size: int, pages: int) -> None:
    clock = Clock(NOON)
    runtime = ScriptedRuntime(clock)
    runtime.page_size = page_size
    for number in range(48):
        ran(runtime, f"run-{number}", number * HOUR)
    exporter = exporter_of(runtime, spinners=(expects(),), limits=LimitsConfig(pages=pages))
    ups = [value(await page(exporter), "spinner_project_up") for _ in range(3)]
    assert ups == [0, 0, 1]
    changes = [NOON - since(each) for each in runtime.job_lists() if "updatedSince" in each.url.params]
    assert sorted(set(changes), reverse=True) == [60 * HOUR, 30 * HOUR, 15 * HOUR]
    found = await page(exporter)
    assert value(found, WATCHED_SINCE) == NOON - 15 * HOUR
    await exporter.close()


async def test_a_project_that_was_dropped_and_returns_is_read_with_its_whole_history() -> None:
    runtime = ScriptedRuntime(Clock(NOON))
    runtime.page_size = 10
    for number in range(48):
        ran(runtime, f"run-{number}", number * HOUR)
    without = ProjectsConfig(exclude=(re.compile("Closed"),))
    exporter = exporter_of(runtime, spinners=(expects(),), projects=without)
    runtime.interfere = lambda request: httpx.Response(500) if "cursor" in request.url.params else None
    for _ in range(2):
        assert value(await page(exporter), "spinner_project_up") == 0
    runtime.interfere = lambda request: None
    for name in ("Closed", "Sales"):
        runtime.projects["p1"] = name
        runtime.requests.clear()
        await page(exporter)
    assert first_history(runtime) == 60 * HOUR
    await exporter.close()


async def test_an_api_that_is_down_at_first_does_not_shorten_the_history() -> None:
    runtime = ScriptedRuntime(Clock(NOON))
    runtime.interfere = lambda request: httpx.Response(500) if "updatedSince" in request.url.params else None
    exporter = exporter_of(runtime, spinners=(expects(),))
    for _ in range(3):
        assert value(await page(exporter), "spinner_project_up") == 0
    runtime.interfere = lambda request: None
    assert value(await page(exporter), WATCHED_SINCE) == NOON - 60 * HOUR
    await exporter.close()


async def test_a_long_history_is_not_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = ScriptedRuntime(Clock(NOON))
    runtime.page_size = 10
    for number in range(500):
        ran(runtime, f"run-{number}", 2 * HOUR + 60 * number)
    exporter = exporter_of(runtime, spinners=(expects(),))
    most = 0
    apply = ProjectSync.apply

    async def noted(self: ProjectSync, read: Any, responses: list[Any], horizon: float) -> None:
        nonlocal most
        most = max(most, sum(len(each.runs) for each in responses))
        await apply(self, read, responses, horizon)
        (project,) = self._store.view.projects()
        assert (len(project.runs), project.tombstone_count) == (0, 0)

    monkeypatch.setattr(ProjectSync, "apply", noted)
    found = await page(exporter)
    assert most == 10, "a page"
    assert value(found, LAST_SUCCESS) == NOON - 2 * HOUR
    await exporter.close()


async def test_watched_since_survives_a_restart_with_storage(tmp_path: Path) -> None:
    clock = Clock(NOON)
    runtime = ScriptedRuntime(clock)
    config = exporter_of(runtime, spinners=(expects(),)).runtimes[RUNTIME].config
    for _ in range(2):
        dependencies = Dependencies(clock, clock, runtime.transport(), no_sleep)
        exporter = Exporter({RUNTIME: config}, dependencies, storage=tmp_path)
        assert value(await page(exporter), WATCHED_SINCE) == NOON - 60 * HOUR
        await exporter.close()
        clock.advance(5 * DAY)
    assert len([each for each in runtime.job_lists() if "updatedSince" in each.url.params]) == 2


async def test_where_records_are_counted_those_of_the_history_are_not_requested() -> None:
    runtime = ScriptedRuntime(Clock(NOON))
    for name, ago in (("old", 20 * HOUR), ("recent", 600.0)):
        ran(runtime, name, ago)
        ended = {"id": f"rec-{name}", "status": "completed", "endedAt": rfc3339(NOON - ago)}
        runtime.failed_records[name] = [ended]
    counted = msgspec.structs.replace(config_with().runtime.resources, counts="records")
    config = exporter_of(runtime, spinners=(expects(),)).runtimes[RUNTIME].config
    config = Config(
        runtime=msgspec.structs.replace(config.runtime, resources=counted), sync=config.sync, spinners=config.spinners
    )
    exporter = Exporter({RUNTIME: config}, Dependencies(runtime.clock, runtime.clock, runtime.transport(), no_sleep))
    found = await page(exporter)
    assert [path for path in runtime.paths() if path.endswith("/records")] == ["/api/v1/jobs/recent/records"]
    assert value(found, LAST_SUCCESS) == NOON - 600
    assert value(found, FINISHED, status="completed") == 1
    await exporter.close()
