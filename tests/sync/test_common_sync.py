"""The runs of all projects from one list: what is requested, when it is trusted, and which projects are read alone."""

import itertools
import re
import sys
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import structlog

from exporter.config import Duration, LimitsConfig, ProjectsConfig, SpinnerConfig, SyncConfig
from exporter.config.api_description import ListFilter
from exporter.errors import ApiError
from exporter.runs.project import ProjectRuns
from exporter.service import Exporter
from exporter.status import Status
from exporter.sync import availability, common_sync
from exporter.sync.project_sync import ProjectSync
from tests.builders import NOON, RUNTIME, Clock, resources
from tests.scripted import ScriptedRuntime, exporter_of, rfc3339

ALL = "/api/v1/jobs"
MANY = common_sync.FEW + 2
IDLE = {f"idle-{number}": f"Idle {number}" for number in range(40)}
"""Names of projects without runs, by id."""

DAY = 86400.0

Answer = Callable[[httpx.Request], httpx.Response | None]


def runtime_of(projects: int = MANY, *, lists: bool = True) -> ScriptedRuntime:
    """A runtime whose projects have an ended run each."""
    runtime = ScriptedRuntime(Clock())
    runtime.lists_all_projects = lists
    runtime.projects = {f"p{number}": f"Project {number}" for number in range(1, projects + 1)}
    for project in runtime.projects:
        ends(runtime, f"old-{project}", project)
    return runtime


def ends(runtime: ScriptedRuntime, run: str, project: str) -> None:
    """A run that starts and ends now."""
    now = runtime.clock()
    runtime.put(run, projectId=project, status="completed", createdAt=now - 9, startedAt=now - 8, endedAt=now)


def up(exporter: Exporter) -> dict[str, bool]:
    return {each.name: each.error is None for each in exporter.runtimes[RUNTIME].store.view.projects()}


def finished(exporter: Exporter) -> Counter[str]:
    count: Counter[str] = Counter()
    for spinner in exporter.runtimes[RUNTIME].store.view.spinners():
        count[spinner.project] += sum(spinner.counters.finished.values())
    return count


def statuses(exporter: Exporter) -> dict[str, Status]:
    return {shown.run.id: shown.run.status for shown in exporter.runtimes[RUNTIME].store.view.runs()}


async def scrape(exporter: Exporter, runtime: ScriptedRuntime, seconds: float = 15.0) -> list[str]:
    """Let time pass and scrape; return the paths that were requested."""
    runtime.clock.advance(seconds)
    runtime.requests.clear()
    await exporter.page()
    return [path.removeprefix("/api/v1") for path in runtime.paths()]


async def exporter_after(reads: int, runtime: ScriptedRuntime, **settings: Any) -> Exporter:
    """An exporter that has read the runtime so many times."""
    exporter = exporter_of(runtime, **settings)
    for _ in range(reads):
        await scrape(exporter, runtime)
    return exporter


def own_lists(paths: list[str]) -> list[str]:
    return [path for path in paths if path.startswith("/projects/")]


def failing(path: str, status: int = 500, **fields: Any) -> Answer:
    return lambda request: httpx.Response(status, **fields) if request.url.path == path else None


# -- what is requested ------------------------------------------------------------------------------------------


async def test_the_first_read_of_many_projects_and_all_others_are_one_list_each() -> None:
    runtime = runtime_of(40)
    exporter = exporter_of(runtime, sync={"projects_interval": 60.0})
    assert sorted(await scrape(exporter, runtime)) == ["/health", "/jobs", "/jobs", "/projects", "/usage"]
    assert set(finished(exporter).values()) == {1}
    assert len(up(exporter)) == 40
    for _ in range(3):
        paths = await scrape(exporter, runtime)
        assert sorted(paths)[:3] == ["/health", "/jobs", "/usage"] if not own_lists(paths) else len(paths) == 4
    ends(runtime, "new", "p7")
    await scrape(exporter, runtime)
    assert finished(exporter)["Project 7"] == 2
    assert up(exporter) == dict.fromkeys(runtime.projects.values(), True)


async def test_between_sweeps_no_run_is_requested_because_another_one_of_its_project_changed() -> None:
    runtime = runtime_of()
    open_runs = [(f"{name}-{project}", project) for project in runtime.projects for name in "ab"]
    for run, project in open_runs:
        runtime.put(run, projectId=project)
    exporter = exporter_of(runtime, sync={"sweep_interval": DAY})
    for _ in range(3):
        await scrape(exporter, runtime, 600)
    for run, project in open_runs[::2]:
        runtime.put(run, projectId=project, records={"total": 9, "completed": 2})
    assert [path for path in await scrape(exporter, runtime) if path.startswith("/jobs")] == ["/jobs"]


async def test_a_project_that_leaves_while_the_list_finds_a_new_one_does_not_make_the_read_fail() -> None:
    """It was about to be checked, because it seemed idle."""
    runtime = runtime_of()
    only = ProjectsConfig(exclude=(re.compile("Closed"),))
    exporter = exporter_of(runtime, projects=only, sync={"projects_interval": DAY})
    for _ in range(12):
        # Until all others seem idle.
        ends(runtime, "new", "p1")
        await scrape(exporter, runtime, 30)
    runtime.projects = {each: name if each == "p1" else "Closed" for each, name in runtime.projects.items()}
    runtime.projects["p99"] = "New"
    ends(runtime, "first", "p99")
    runtime.clock.advance(30)
    assert await exporter.refresh()
    assert up(exporter) == {"Project 1": True, "New": True}
    await exporter.close()


async def test_a_quiet_night_is_few_requests_per_scrape_also_with_rare_sweeps() -> None:
    """304 leaves all projects where they are. Those that were checked were ahead, and the rest was read one by one."""
    runtime = runtime_of(common_sync.SAMPLE)
    exporter = exporter_of(runtime, sync={"projects_interval": 600.0, "sweep_interval": 2 * DAY})
    for _ in range(12):
        # Until only one project is in the list.
        ends(runtime, "new", "p1")
        await scrape(exporter, runtime, 30)
    for _ in range(100):
        paths = await scrape(exporter, runtime, 30)
        assert len(own_lists(paths)) <= common_sync.FEW_REQUESTS
    await exporter.close()


async def test_a_scrape_in_which_nothing_changes_calls_few_functions_for_each_project() -> None:
    calls = {}
    for projects in (50, 450):
        runtime = runtime_of(projects)
        exporter = exporter_of(runtime, sync={"projects_interval": 600.0})
        # Until the first runs are so old that the list no longer has them.
        for _ in range(4):
            await scrape(exporter, runtime, 61)
        count = 0

        def called(frame: object, event: str, argument: object) -> None:
            nonlocal count
            count += event == "call"

        sys.setprofile(called)
        try:
            assert len(await scrape(exporter, runtime, 1)) == 4
        finally:
            sys.setprofile(None)
        calls[projects] = count
    assert (calls[450] - calls[50]) / 400 < 45, calls


@pytest.mark.parametrize(("changed", "checked"), [(0, 3), (1, 3), (2, 2), (3, 1), (5, 1)])
async def test_requests_that_a_short_list_does_not_need_check_projects(
    monkeypatch: pytest.MonkeyPatch, changed: int, checked: int
) -> None:
    monkeypatch.setattr(common_sync, "PROJECTS_PER_CHECK", 2)
    runtime = runtime_of(20)
    exporter = exporter_of(runtime, sync={"sweep_interval": DAY})
    for _ in range(3):
        await scrape(exporter, runtime, 130)
    runtime.page_size = 1
    for number in range(1, changed + 1):
        ends(runtime, f"new-{number}", f"p{number}")
    paths = await scrape(exporter, runtime)
    assert (paths.count("/jobs"), len(own_lists(paths))) == (max(changed, 1), checked)


async def test_of_more_projects_more_are_checked_in_a_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common_sync, "PROJECTS_PER_CHECK", 11)
    for projects, checked in ((12, 2), (32, 3)):
        runtime = runtime_of(projects)
        exporter = exporter_of(runtime, sync={"sweep_interval": DAY})
        for _ in range(3):
            await scrape(exporter, runtime, 130)
        assert len(own_lists(await scrape(exporter, runtime))) == checked


async def test_a_check_begins_where_the_last_read_ended_and_is_no_sweep() -> None:
    runtime = runtime_of(4)
    exporter = exporter_of(runtime, sync={"overlap": 120.0, "sweep_interval": 300.0})
    await scrape(exporter, runtime)
    checked: set[str] = set()
    for number in range(60):
        ends(runtime, "new", "p1")
        paths = await scrape(exporter, runtime)
        own = [request for request in runtime.requests if "/projects/" in request.url.path]
        assert [request.url.params.get("active") for request in own] == [None] * len(own)
        starts = {datetime.fromisoformat(request.url.params["updatedSince"]).timestamp() for request in own}
        if number > 20:  # Until each has been checked for the first time.
            assert starts == {runtime.clock() - 120}
            checked.update(own_lists(paths))
    assert len(checked) == 3


async def test_a_list_that_has_not_changed_is_requested_on_that_condition() -> None:
    runtime = runtime_of()
    exporter = exporter_of(runtime)
    for _ in range(3):
        await scrape(exporter, runtime, 1)
    listing = runtime.only_request(ALL)
    assert "If-None-Match" in listing.headers
    ends(runtime, "new", "p7")
    await scrape(exporter, runtime, 1)
    assert finished(exporter)["Project 7"] == 2


async def test_few_projects_are_read_by_themselves_first_and_then_from_one_list() -> None:
    runtime = runtime_of(3)
    exporter = exporter_of(runtime)
    assert len(own_lists(await scrape(exporter, runtime))) == 6
    assert not own_lists(await scrape(exporter, runtime))
    assert set(finished(exporter).values()) == {1}


@pytest.mark.parametrize(("projects", "together"), [(10, False), (11, True)])
async def test_from_how_many_first_reads_on_one_list_is_cheaper(projects: int, together: bool) -> None:
    runtime = runtime_of(projects)
    exporter = exporter_of(runtime)
    paths = await scrape(exporter, runtime)
    assert (paths.count("/jobs"), len(own_lists(paths))) == ((2, 0) if together else (0, 2 * projects))


async def test_a_quiet_list_is_requested_without_its_etag_every_five_minutes() -> None:
    """What it leaves out is known from a list, and not from the statement that it has not changed."""
    runtime = runtime_of()
    exporter = exporter_of(runtime, sync={"projects_interval": DAY, "sweep_interval": DAY})
    for _ in range(2):
        await scrape(exporter, runtime, 600)
    conditional = []
    for _ in range(65):
        await scrape(exporter, runtime)
        listing = runtime.only_request(ALL)
        conditional.append("If-None-Match" in listing.headers)
    whole = [number for number, each in enumerate(conditional) if not each]
    assert [15 * (later - earlier) for earlier, later in itertools.pairwise(whole)] == [300, 300]


async def test_a_list_by_a_clock_that_is_behind_is_requested_again_without_its_etag() -> None:
    """Until other responses agree, what changed may have times before those that were asked for."""
    runtime = runtime_of()
    exporter = exporter_of(runtime, sync={"projects_interval": DAY, "sweep_interval": DAY})
    for _ in range(3):
        await scrape(exporter, runtime, 60)

    def by_a_clock_that_is_behind(request: httpx.Request) -> httpx.Response | None:
        if request.url.path != ALL:
            return None
        runtime.interfere = lambda request: None
        response = runtime._answer(request)
        runtime.interfere = by_a_clock_that_is_behind
        body = response.json() | {"asOf": rfc3339(runtime.clock() - DAY)}
        return httpx.Response(response.status_code, json=body, headers={"ETag": response.headers["ETag"]})

    ends(runtime, "new", "p1")
    runtime.interfere = by_a_clock_that_is_behind
    await scrape(exporter, runtime)
    before = runtime.clock()
    runtime.interfere = lambda request: None
    await scrape(exporter, runtime)
    listing = runtime.only_request(ALL)
    assert "If-None-Match" not in listing.headers
    since = datetime.fromisoformat(listing.url.params["updatedSince"]).timestamp()
    assert since < before - 15 - SyncConfig().overlap + 1, "from the time of the list before"
    await scrape(exporter, runtime)
    listing = runtime.only_request(ALL)
    assert "If-None-Match" in listing.headers
    assert finished(exporter)["Project 1"] == 2


@pytest.mark.parametrize(
    ("projects", "include", "together"),
    [(1, ".*", False), (2, ".*", True), (40, "Project [1-9]", False), (40, "Project ([1-9]|10)", True)],
)
async def test_from_how_many_projects_and_what_part_of_all_on_one_list_is_cheaper(
    projects: int, include: str, together: bool
) -> None:
    runtime = runtime_of(projects)
    exporter = exporter_of(runtime, projects=ProjectsConfig(include=(re.compile(include),)))
    await scrape(exporter, runtime)
    assert ("/jobs" in await scrape(exporter, runtime)) == together


async def test_a_single_project_and_a_small_part_of_all_are_read_by_their_own_lists() -> None:
    runtime = runtime_of(1)
    exporter = exporter_of(runtime)
    for _ in range(3):
        assert "/jobs" not in await scrape(exporter, runtime)
    runtime = runtime_of(40)
    exporter = exporter_of(runtime, projects=ProjectsConfig(include=(re.compile("Project [1-3]"),)))
    for _ in range(3):
        assert "/jobs" not in await scrape(exporter, runtime)
    assert set(finished(exporter)) == {"Project 1", "Project 2", "Project 3"}


# -- whether the runtime has it ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(404),
        httpx.Response(405),
        httpx.Response(403),
        httpx.Response(400),
        httpx.Response(500),
        httpx.Response(200, text="<html>", headers={"Content-Type": "text/html"}),
        httpx.Response(200, json={"id": "jobs"}),
        httpx.Response(200, json={"items": [{"id": "a", "status": "x"}], "nextCursor": None}),
    ],
    ids=["404", "405", "403", "400", "500", "HTML", "a single run", "other items"],
)
async def test_without_the_list_each_project_is_read_and_it_is_asked_for_again_after_a_while(
    answer: httpx.Response,
) -> None:
    runtime = runtime_of()
    runtime.interfere = lambda request: answer if request.url.path == ALL else None
    exporter = exporter_of(runtime)
    paths = await scrape(exporter, runtime)
    assert "/jobs" in paths
    assert set(finished(exporter).values()) == {1}
    assert set(up(exporter).values()) == {True}
    assert "/jobs" not in await scrape(exporter, runtime)
    runtime.interfere = lambda request: None
    await scrape(exporter, runtime, availability.RETRY_AFTER)
    assert len(own_lists(await scrape(exporter, runtime, 1))) <= 1, "it was upgraded"
    assert set(finished(exporter).values()) == {1}


@pytest.mark.parametrize(("status", "seconds"), [(404, 600), (500, 60)])
async def test_when_it_is_asked_for_again_depends_on_whether_it_is_missing_or_has_failed(
    status: int, seconds: float
) -> None:
    runtime = runtime_of()
    runtime.interfere = failing(ALL, status)
    exporter = exporter_of(runtime)
    asked = ["/jobs" in await scrape(exporter, runtime, after) for after in (15, seconds - 1, 1, seconds - 1, 1)]
    assert asked == [True, False, True, False, True]


@pytest.mark.parametrize("reads_before", [0, 2])
async def test_a_token_that_is_refused_says_nothing_about_the_list(reads_before: int) -> None:
    """It would be refused for each project as well."""
    runtime = runtime_of()
    exporter = await exporter_after(reads_before, runtime)
    runtime.interfere = failing(ALL, 401)
    for _ in range(availability.MAX_FAILURES + 1):
        paths = await scrape(exporter, runtime)
        assert ("/jobs" in paths, own_lists(paths)) == (True, [])
        assert set(up(exporter).values()) == {False}


async def test_a_list_that_could_be_read_in_between_has_not_failed_again_and_again() -> None:
    runtime = runtime_of()
    exporter = exporter_of(runtime)
    for _ in range(3):
        for _ in range(2):
            runtime.interfere = lambda request: None
            await scrape(exporter, runtime)
        runtime.interfere = failing(ALL)
        for _ in range(3):
            assert len(own_lists(await scrape(exporter, runtime))) <= 1, "one may be checked"
    assert len(own_lists(await scrape(exporter, runtime))) >= MANY, "that was the fourth time"


@pytest.mark.parametrize("reads_before", [0, 2])
async def test_that_the_list_is_missing_is_logged_if_the_runtime_had_it(reads_before: int) -> None:
    runtime = runtime_of()
    exporter = await exporter_after(reads_before, runtime)
    runtime.interfere = failing(ALL, 404)
    with structlog.testing.capture_logs() as lines:
        for _ in range(2):
            await scrape(exporter, runtime, availability.RETRY_AFTER)
    assert [line["event"] for line in lines] == ["each project is read separately again"] * bool(reads_before)


@pytest.mark.parametrize("status", [404, 405, 403])
async def test_a_runtime_that_is_downgraded_is_read_the_old_way_in_the_same_scrape(status: int) -> None:
    runtime = runtime_of()
    exporter = exporter_of(runtime)
    for _ in range(3):
        await scrape(exporter, runtime)
    runtime.interfere = failing(ALL, status)
    ends(runtime, "new", "p7")
    assert len(own_lists(await scrape(exporter, runtime))) >= MANY
    assert finished(exporter)["Project 7"] == 2
    assert set(up(exporter).values()) == {True}


@pytest.mark.parametrize("answer", [httpx.Response(200, json={"jobs": []}), httpx.Response(500)])
async def test_a_list_that_fails_again_and_again_is_an_error_first_and_then_no_list(answer: httpx.Response) -> None:
    runtime = runtime_of()
    exporter = exporter_of(runtime)
    for _ in range(3):
        await scrape(exporter, runtime)
    runtime.interfere = lambda request: answer if request.url.path == ALL else None
    ends(runtime, "new", "p7")
    for _ in range(availability.MAX_FAILURES - 1):
        assert not own_lists(await scrape(exporter, runtime))
        assert set(up(exporter).values()) == {False}
    await scrape(exporter, runtime)
    assert set(up(exporter).values()) == {True}
    assert finished(exporter)["Project 7"] == 2


@pytest.mark.parametrize("changed", [False, True])
async def test_a_list_that_returns_is_not_trusted_because_of_the_one_before(changed: bool) -> None:
    """It may leave out a project that the other one had."""
    runtime = runtime_of()
    runtime.put("open", projectId="p4", updated_at=NOON - 3000)
    exporter = exporter_of(runtime, sync={"sweep_interval": 10 * DAY})
    for _ in range(3):
        await scrape(exporter, runtime, 200)
    if changed:
        runtime.put("open")
        await scrape(exporter, runtime)
    runtime.interfere = failing(ALL, 404)
    await scrape(exporter, runtime, 15 if changed else 200)
    runtime.interfere = leaves_out(runtime, "p4")
    await scrape(exporter, runtime, availability.RETRY_AFTER)
    for _ in range(3):
        assert "/projects/p4/jobs" in await scrape(exporter, runtime, 150)


@pytest.mark.parametrize("contradicted", [1, 2])
async def test_a_list_that_returns_is_not_doubted_because_of_the_one_before(
    monkeypatch: pytest.MonkeyPatch, contradicted: int
) -> None:
    monkeypatch.setattr(common_sync, "SAMPLE", 10)
    monkeypatch.setattr(common_sync, "PROJECTS_PER_CHECK", 20)
    runtime = runtime_of(12)
    # With a run that has not ended and does not change, so that no list of changes names them.
    quiet = {f"quiet-{number}": f"Quiet {number}" for number in range(40)}
    runtime.projects |= quiet
    for project in quiet:
        runtime.put(
            f"open-{project}", projectId=project, createdAt=NOON - DAY, startedAt=NOON - DAY, updated_at=NOON - DAY
        )
    exporter = exporter_of(runtime, sync={"sweep_interval": 10 * DAY})
    await scrape(exporter, runtime)
    runtime.clock.advance(15)
    ends(runtime, "new", "quiet-0")
    runtime.interfere = leaves_out(runtime, "quiet-0")
    while "/projects/quiet-0/jobs" not in await scrape(exporter, runtime):
        pass
    for _ in range(contradicted - 1):
        await scrape(exporter, runtime)
    runtime.interfere = failing(ALL, 404)
    assert len(set(own_lists(await scrape(exporter, runtime)))) == 52
    del runtime.jobs["new"]
    runtime.interfere = lambda request: None
    assert (
        len(set(own_lists(await scrape(exporter, runtime, availability.RETRY_AFTER)))) <= 10 + common_sync.FEW_REQUESTS
    )


# -- failures ---------------------------------------------------------------------------------------------------


async def test_when_the_list_fails_all_projects_do_and_show_their_last_data() -> None:
    runtime = runtime_of()
    runtime.put("open", projectId="p3")
    exporter = exporter_of(runtime)
    for _ in range(2):
        await scrape(exporter, runtime)
    runtime.interfere = failing(ALL)
    ends(runtime, "new", "p7")
    for _ in range(3):
        assert not own_lists(await scrape(exporter, runtime, 60)), "that would be a request for each of them"
        assert set(up(exporter).values()) == {False}
        assert statuses(exporter)["open"] is Status.RUNNING
    runtime.interfere = lambda request: None
    await scrape(exporter, runtime)
    assert set(up(exporter).values()) == {True}
    assert finished(exporter)["Project 7"] == 2, "it was read since the last good read"


async def test_projects_of_which_the_list_has_nothing_have_recovered_when_it_can_be_read_again() -> None:
    runtime = runtime_of()
    exporter = exporter_of(runtime)
    for _ in range(3):
        await scrape(exporter, runtime, 200)
    with structlog.testing.capture_logs() as lines:
        runtime.interfere = failing(ALL)
        await scrape(exporter, runtime)
        runtime.interfere = lambda request: None
        await scrape(exporter, runtime)
    # One is checked by itself, and has recovered already.
    assert [(line["event"], line["what"], line["projects"]) for line in lines] == [
        ("cannot read", "project", MANY - 1),
        ("recovered", "project", MANY - 1),
    ]


async def test_a_bug_in_what_is_read_together_lets_each_project_be_read_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runtime = runtime_of()
    exporter = exporter_of(runtime)
    for _ in range(2):
        await scrape(exporter, runtime)

    def broken(*arguments: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(ProjectSync, "since_each", broken)
    ends(runtime, "new", "p7")
    paths = await scrape(exporter, runtime)
    assert "/jobs" not in paths
    assert len(own_lists(paths)) >= MANY
    assert set(up(exporter).values()) == {True}
    assert finished(exporter)["Project 7"] == 2


async def test_a_page_that_fails_changes_nothing() -> None:
    runtime = runtime_of()
    exporter = exporter_of(runtime)
    for _ in range(2):
        await scrape(exporter, runtime, 200)
    runtime.page_size = 1
    for project in ("p1", "p2"):
        ends(runtime, f"new-{project}", project)
    runtime.interfere = lambda request: httpx.Response(500) if "cursor" in request.url.params else None
    await scrape(exporter, runtime)
    assert set(finished(exporter).values()) == {1}
    runtime.interfere = lambda request: None
    await scrape(exporter, runtime)
    assert (finished(exporter)["Project 1"], finished(exporter)["Project 2"]) == (2, 2)


async def test_a_project_whose_slice_cannot_be_applied_fails_alone_and_is_read_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runtime = runtime_of()
    exporter = exporter_of(runtime)
    for _ in range(2):
        await scrape(exporter, runtime)
    apply = ProjectRuns.apply

    def broken(self: ProjectRuns, *arguments: Any, **options: Any) -> None:
        if self.name == "Project 2":
            raise RuntimeError("a bug")
        apply(self, *arguments, **options)

    monkeypatch.setattr(ProjectRuns, "apply", broken)
    for project in ("p1", "p2"):
        ends(runtime, f"new-{project}", project)
    await scrape(exporter, runtime)
    assert [name for name, is_up in up(exporter).items() if not is_up] == ["Project 2"]
    assert (finished(exporter)["Project 1"], finished(exporter)["Project 2"]) == (2, 1)
    for _ in range(3):
        assert "/projects/p2/jobs" in await scrape(exporter, runtime, 300)
    monkeypatch.setattr(ProjectRuns, "apply", apply)
    await scrape(exporter, runtime, 300)
    assert set(up(exporter).values()) == {True}
    assert finished(exporter)["Project 2"] == 2
    assert "/projects/p2/jobs" not in own_lists(await scrape(exporter, runtime))[1:]


@pytest.mark.parametrize("page_size", [500, 5])
@pytest.mark.parametrize("reads_before", [0, 2])
async def test_a_project_with_more_open_runs_than_may_be_tracked_fails_alone(reads_before: int, page_size: int) -> None:
    runtime = runtime_of()
    runtime.page_size = page_size
    exporter = await exporter_after(reads_before, runtime, limits=LimitsConfig(open_runs=2))
    runtime.put("new-p1", projectId="p1")
    for number in range(3):
        runtime.put(f"new-p2-{number}", projectId="p2")
    runtime.put("new-p3", projectId="p3")
    paths = await scrape(exporter, runtime)
    assert {path for path in own_lists(paths) if path != "/projects/p2/jobs"} == set(), "others are read again"
    assert [name for name, is_up in up(exporter).items() if not is_up] == ["Project 2"]
    assert {run for run in statuses(exporter) if run.startswith("new")} == {"new-p1", "new-p3"}
    for number in range(3):
        ends(runtime, f"new-p2-{number}", "p2")
    await scrape(exporter, runtime, 300)
    assert set(up(exporter).values()) == {True}
    assert finished(exporter)["Project 2"] == 4


async def test_a_first_read_that_fails_shows_nothing_and_is_tried_by_each_project_in_the_end() -> None:
    runtime = runtime_of()
    runtime.page_size = 5
    runtime.interfere = lambda request: (
        httpx.Response(500) if request.url.path == ALL and "cursor" in request.url.params else None
    )
    exporter = exporter_of(runtime)
    await scrape(exporter, runtime)
    assert set(finished(exporter).values()) == {1}, "it is not known whether the runtime has the list"
    runtime = runtime_of()
    exporter = exporter_of(runtime)
    runtime.page_size = 5
    pages = 0

    def fails_late(request: httpx.Request) -> httpx.Response | None:
        nonlocal pages
        pages += request.url.path == ALL and "cursor" in request.url.params
        return httpx.Response(500) if pages == 2 and request.url.path == ALL else None

    runtime.interfere = fails_late
    await scrape(exporter, runtime)
    await scrape(exporter, runtime)
    assert set(finished(exporter).values()) == {1}


@pytest.mark.parametrize("page", ["5", "10"])
async def test_new_projects_are_read_by_themselves_after_two_first_reads_that_did_not_complete(page: str) -> None:
    runtime = runtime_of()
    exporter = exporter_of(runtime)
    for _ in range(2):
        await scrape(exporter, runtime, 200)
    for number in range(MANY):
        runtime.projects[f"new-{number}"] = f"New {number}"
        ends(runtime, f"run-{number}", f"new-{number}")
    runtime.page_size = 5

    def fails_late(request: httpx.Request) -> httpx.Response | None:
        since = request.url.params.get("updatedSince")
        if request.url.path != ALL or since is None or request.url.params.get("cursor") != page:
            return None
        is_first = datetime.fromisoformat(since).timestamp() < runtime.clock() - 3000
        return httpx.Response(500) if is_first else None

    runtime.interfere = fails_late
    are_up = []
    for _ in range(3):
        await scrape(exporter, runtime)
        are_up.append({is_up for name, is_up in up(exporter).items() if name.startswith("New")})
    assert are_up == [{False}, {False}, {True}]


@pytest.mark.parametrize("first", [True, False])
async def test_a_list_with_more_pages_than_the_limit_is_read_project_by_project(first: bool) -> None:
    runtime = runtime_of()
    exporter = exporter_of(runtime, limits=LimitsConfig(pages=3))
    if not first:
        for _ in range(2):
            await scrape(exporter, runtime)
    for project in runtime.projects:
        ends(runtime, f"new-{project}", project)
    runtime.page_size = 4
    paths = await scrape(exporter, runtime)
    assert len(set(own_lists(paths))) == MANY
    assert set(up(exporter).values()) == {True}
    assert set(finished(exporter).values()) == {2}


async def test_more_runs_than_may_be_shown_are_applied_as_they_arrive() -> None:
    runtime = runtime_of()
    exporter = exporter_of(runtime, limits=LimitsConfig(runs=4))
    for _ in range(2):
        await scrape(exporter, runtime)
    runtime.page_size = 3
    for project in runtime.projects:
        for number in range(3):
            ends(runtime, f"new-{number}-{project}", project)
    await scrape(exporter, runtime)
    assert set(finished(exporter).values()) == {4}
    await scrape(exporter, runtime)
    assert set(finished(exporter).values()) == {4}


# -- when the list is trusted --------------------------------------------------------------------------


def leaves_out(runtime: ScriptedRuntime, project: str, *, own: int | None = None) -> Answer:
    """The list of all has no run of a project; `own` is the status of its own list."""

    def answer(request: httpx.Request) -> httpx.Response | None:
        if own is not None and request.url.path == f"/api/v1/projects/{project}/jobs":
            return httpx.Response(own)
        if request.url.path != ALL:
            return None
        jobs, runtime.jobs = runtime.jobs, {k: v for k, v in runtime.jobs.items() if v["projectId"] != project}
        runtime.interfere = lambda request: None
        response = runtime._answer(request)
        runtime.requests.pop()
        runtime.jobs, runtime.interfere = jobs, answer
        return response

    return answer


async def test_a_project_that_the_list_leaves_out_is_read_by_itself() -> None:
    runtime = runtime_of()
    exporter = exporter_of(runtime)
    runtime.interfere = leaves_out(runtime, "p4")
    for number in range(4):
        paths = await scrape(exporter, runtime)
        assert "/projects/p4/jobs" in paths
        assert finished(exporter)["Project 4"] == 1 + number
        ends(runtime, f"new-{number}", "p4")
    runtime.interfere = lambda request: None
    for _ in range(2):
        await scrape(exporter, runtime)
    assert finished(exporter)["Project 4"] == 5
    assert set(finished(exporter).values()) == {1, 5}


async def test_a_project_that_the_list_leaves_out_is_read_by_itself_while_a_run_is_open_in_it() -> None:
    """Also if it has not changed for so long that no list of changes has it."""
    runtime = runtime_of()
    del runtime.jobs["old-p4"]
    runtime.put("open", projectId="p4", createdAt=NOON - 9000, startedAt=NOON - 9000, updated_at=NOON - 9000)
    runtime.interfere = leaves_out(runtime, "p4")
    exporter = exporter_of(runtime, sync={"sweep_interval": DAY})
    for _ in range(4):
        assert "/projects/p4/jobs" in await scrape(exporter, runtime, 200)
    assert statuses(exporter)["open"] is Status.RUNNING


async def test_a_project_that_the_list_leaves_out_is_read_by_itself_while_its_own_list_does_not_change() -> None:
    """Its statement that it has not changed does not say that it is empty."""
    runtime = runtime_of()
    exporter = exporter_of(runtime, sync={"sweep_interval": DAY})
    for _ in range(3):
        await scrape(exporter, runtime, 130)
    runtime.interfere = leaves_out(runtime, "p4")
    runtime.clock.advance(15)
    ends(runtime, "new", "p4")
    while "/projects/p4/jobs" not in await scrape(exporter, runtime, 1):
        pass
    for _ in range(6):
        assert "/projects/p4/jobs" in await scrape(exporter, runtime, 1)
    (own,) = [request for request in runtime.requests if "/projects/p4/" in request.url.path]
    assert "If-None-Match" in own.headers


async def test_a_project_that_was_dropped_and_returns_is_not_trusted_because_of_before() -> None:
    runtime = runtime_of()
    only = ProjectsConfig(exclude=(re.compile("Closed"),))
    exporter = exporter_of(runtime, projects=only, sync={"sweep_interval": DAY})
    for name in ("Project 4", "Project 4", "Closed", "Project 4"):
        runtime.projects["p4"] = name
        if name == "Closed":
            del runtime.jobs["old-p4"]
            runtime.put("open", projectId="p4", createdAt=NOON - DAY, startedAt=NOON - DAY, updated_at=NOON - DAY)
            runtime.interfere = leaves_out(runtime, "p4")
        paths = await scrape(exporter, runtime, 200)
    for _ in range(4):
        assert "/projects/p4/jobs" in paths
        paths = await scrape(exporter, runtime, 15)
    assert statuses(exporter)["open"] is Status.RUNNING


async def test_a_run_that_changed_as_the_list_began_does_not_contradict_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clocks of two servers may differ by so much."""
    monkeypatch.setattr(common_sync, "SAMPLE", 10)
    monkeypatch.setattr(common_sync, "PROJECTS_PER_CHECK", 20)
    runtime = runtime_of(12)
    runtime.projects |= IDLE
    exporter = exporter_of(runtime)
    began = runtime.clock() + 15 - 3600
    runtime.put("early", projectId="idle-1", status="completed", endedAt=began + 3, updated_at=began + 3)
    runtime.interfere = leaves_out(runtime, "idle-1")
    await scrape(exporter, runtime)
    checked: list[str] = []
    for _ in range(20):
        own = own_lists(await scrape(exporter, runtime))
        assert len(own) <= common_sync.FEW_REQUESTS, "all are read by themselves"
        checked += own
    assert "/projects/idle-1/jobs" in checked


async def test_of_a_project_that_the_list_has_named_nothing_is_asked_from_the_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(common_sync, "SAMPLE", 10)
    runtime = runtime_of(12)
    runtime.projects |= IDLE
    exporter = exporter_of(runtime)
    await scrape(exporter, runtime)
    ends(runtime, "new", "idle-39")
    named_at = runtime.clock()
    own: list[httpx.Request] = []
    for _ in range(60):
        await scrape(exporter, runtime, 60)
        own += [each for each in runtime.requests if "/idle-39/" in each.url.path and "updatedSince" in each.url.params]
    assert own
    starts = [datetime.fromisoformat(request.url.params["updatedSince"]).timestamp() for request in own]
    assert min(starts) >= named_at - SyncConfig().overlap


async def test_a_project_that_the_token_may_not_read_is_not_taken_for_an_idle_one() -> None:
    runtime = runtime_of()
    runtime.interfere = leaves_out(runtime, "p4", own=403)
    exporter = exporter_of(runtime)
    for _ in range(4):
        await scrape(exporter, runtime)
        assert [name for name, is_up in up(exporter).items() if not is_up] == ["Project 4"]


@pytest.mark.parametrize("later", [None, 500])
async def test_only_the_last_read_of_a_project_says_whether_it_is_refused(later: int | None) -> None:
    runtime = runtime_of()
    exporter = exporter_of(runtime)
    own = exporter.runtimes[RUNTIME]._sync._project_sync
    for status in (403, later):
        runtime.interfere = leaves_out(runtime, "p4", own=status)
        await scrape(exporter, runtime)
        assert own.is_refused("p4") == (status == 403)


async def test_a_project_that_the_list_leaves_out_from_now_on_is_noticed() -> None:
    runtime = runtime_of()
    exporter = exporter_of(runtime)
    for _ in range(12):
        await scrape(exporter, runtime)
    runtime.interfere = leaves_out(runtime, "p4", own=403)
    for _ in range(2 * MANY):
        await scrape(exporter, runtime)
    assert [name for name, is_up in up(exporter).items() if not is_up] == ["Project 4"]


async def test_many_projects_without_runs_cost_a_sample_and_the_others_are_checked_in_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(common_sync, "SAMPLE", 10)
    monkeypatch.setattr(common_sync, "PROJECTS_PER_CHECK", 20)
    runtime = runtime_of(12)
    runtime.projects |= IDLE
    exporter = exporter_of(runtime)
    sample = {path.split("/")[2] for path in own_lists(await scrape(exporter, runtime))}
    assert len(sample) <= 10 + common_sync.FEW_REQUESTS
    assert up(exporter) == dict.fromkeys(runtime.projects.values(), True)
    checked: set[str] = set()
    for _ in range(12):
        paths = await scrape(exporter, runtime)
        assert len(paths) <= 7, "6, and the list of projects"
        checked |= {path.split("/")[2] for path in own_lists(paths)}
    assert checked >= IDLE.keys() - sample, "those first that neither list has shown"
    ends(runtime, "new", "idle-39")
    for _ in range(2):
        await scrape(exporter, runtime)
    assert finished(exporter)["Idle 39"] == 1


@pytest.mark.parametrize(("idle", "read"), [(100, 100), (101, 51 + 1)])
async def test_of_more_than_a_hundred_projects_without_runs_a_sample_is_read(idle: int, read: int) -> None:
    """And one of the others is checked."""
    runtime = runtime_of(40)
    runtime.projects |= {f"idle-{number}": f"Idle {number}" for number in range(idle)}
    exporter = exporter_of(runtime)
    assert len(set(own_lists(await scrape(exporter, runtime)))) == read


@pytest.mark.parametrize("own", [None, 403])
async def test_a_sample_that_contradicts_the_list_lets_all_projects_without_runs_be_read_alone(
    monkeypatch: pytest.MonkeyPatch, own: int | None
) -> None:
    monkeypatch.setattr(common_sync, "SAMPLE", 10)
    runtime = runtime_of(60)
    left_out = [f"p{number}" for number in range(1, 41)]
    refuses = [leaves_out(runtime, project, own=own) for project in left_out]
    every = dict(runtime.jobs)

    def answer(request: httpx.Request) -> httpx.Response | None:
        runtime.jobs = every
        if request.url.path == ALL:
            runtime.jobs = {run: job for run, job in every.items() if job["projectId"] not in left_out}
            return None
        return next(filter(None, (each(request) for each in refuses if own is not None)), None)

    runtime.interfere = answer
    exporter = exporter_of(runtime)
    assert len(set(own_lists(await scrape(exporter, runtime)))) <= 10 + common_sync.FEW_REQUESTS
    paths = await scrape(exporter, runtime)
    assert {path.split("/")[2] for path in own_lists(paths)} >= set(left_out)
    runtime.jobs = every
    for _ in range(2):
        await scrape(exporter, runtime)
        not_up = {name for name, is_up in up(exporter).items() if not is_up}
        assert not_up == ({runtime.projects[each] for each in left_out} if own else set())
        if own is None:
            assert set(finished(exporter).values()) == {1}


async def test_what_the_list_left_out_is_read_from_where_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common_sync, "SAMPLE", 10)
    runtime = runtime_of(12)
    runtime.projects |= IDLE
    exporter = exporter_of(runtime)
    runtime.interfere = leaves_out(runtime, "idle-39")
    await scrape(exporter, runtime)
    runtime.put("open", projectId="idle-39")
    ends(runtime, "early", "idle-39")
    for _ in range(41):
        await scrape(exporter, runtime, 60)
    assert finished(exporter)["Idle 39"] == 1
    assert statuses(exporter)["open"] is Status.RUNNING


async def test_what_a_list_left_out_is_not_lost_with_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common_sync, "SAMPLE", 10)
    runtime = runtime_of(12)
    runtime.projects |= IDLE
    exporter = exporter_of(runtime)
    runtime.interfere = leaves_out(runtime, "idle-39")
    await scrape(exporter, runtime)
    ends(runtime, "early", "idle-39")
    for _ in range(3):
        await scrape(exporter, runtime, 200)
    assert finished(exporter)["Idle 39"] == 0
    runtime.interfere = failing(ALL, 404)
    for _ in range(2):
        await scrape(exporter, runtime)
    assert finished(exporter)["Idle 39"] == 1


async def test_a_project_that_was_checked_is_not_read_from_the_beginning_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common_sync, "SAMPLE", 10)
    monkeypatch.setattr(common_sync, "PROJECTS_PER_CHECK", 20)
    runtime = runtime_of(12)
    runtime.projects |= IDLE
    exporter = exporter_of(runtime)
    # Until each has been checked once.
    for _ in range(25):
        await scrape(exporter, runtime, 60)
    starts: list[float] = []
    for _ in range(25):
        await scrape(exporter, runtime, 60)
        starts += [
            datetime.fromisoformat(request.url.params["updatedSince"]).timestamp()
            for request in runtime.requests
            if "/idle-" in request.url.path and "updatedSince" in request.url.params
        ]
    assert len(starts) > 40
    assert min(starts) > NOON + 60, "that was the first scrape"


async def test_a_run_that_begins_between_the_lists_does_not_contradict_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common_sync, "SAMPLE", 10)
    runtime = runtime_of(12)
    runtime.projects |= IDLE
    exporter = exporter_of(runtime)

    def begins(request: httpx.Request) -> httpx.Response | None:
        if "idle" in request.url.path:
            runtime.interfere = lambda request: None
            ends(runtime, "new", request.url.path.split("/")[4])
        return None

    runtime.interfere = begins
    assert len(set(own_lists(await scrape(exporter, runtime)))) <= 10 + common_sync.FEW_REQUESTS
    assert len(set(own_lists(await scrape(exporter, runtime)))) == 1
    assert sum(finished(exporter).values()) == 13


async def test_an_idle_project_is_followed_when_its_own_list_is_empty() -> None:
    runtime = runtime_of()
    runtime.projects["idle"] = "Idle"
    exporter = exporter_of(runtime)
    assert "/projects/idle/jobs" in await scrape(exporter, runtime)
    runtime.clock.advance(600)
    assert not set(own_lists(await scrape(exporter, runtime))) - {f"/projects/{each}/jobs" for each in runtime.projects}
    ends(runtime, "new", "idle")
    await scrape(exporter, runtime)
    await scrape(exporter, runtime)
    assert (up(exporter)["Idle"], finished(exporter)["Idle"]) == (True, 1)


async def test_a_run_of_an_unknown_project_makes_the_list_of_projects_be_read_at_once() -> None:
    runtime = runtime_of()
    exporter = exporter_of(runtime, sync={"projects_interval": 60.0})
    for _ in range(2):
        await scrape(exporter, runtime, 1)
    runtime.projects["new"] = "New"
    ends(runtime, "run", "new")
    assert "/projects" in await scrape(exporter, runtime, 1)
    assert up(exporter)["New"]
    await scrape(exporter, runtime, 1)
    assert finished(exporter)["New"] == 1
    for number in range(3):
        ends(runtime, f"odd-{number}", "nowhere")
        assert ("/projects" in await scrape(exporter, runtime, 1)) == (number == 0), "it was looked for"


async def test_when_the_list_of_projects_cannot_be_read_for_an_unknown_one_the_others_are_read() -> None:
    runtime = runtime_of()
    exporter = exporter_of(runtime, sync={"projects_interval": 60.0})
    for _ in range(2):
        await scrape(exporter, runtime, 1)
    runtime.projects["new"] = "New"
    for project in ("new", "p7"):
        ends(runtime, f"run-{project}", project)
    runtime.interfere = failing("/api/v1/projects")
    with structlog.testing.capture_logs() as lines:
        await scrape(exporter, runtime, 1)
        assert finished(exporter)["Project 7"] == 2
        assert up(exporter) == {name: True for name in runtime.projects.values() if name != "New"}
        runtime.interfere = lambda request: None
        await scrape(exporter, runtime, 1)
    assert up(exporter)["New"]
    assert [(line["event"], line["what"]) for line in lines] == [("cannot read", "projects"), ("recovered", "projects")]


async def test_a_project_that_is_dropped_when_it_is_read_by_itself_costs_no_other() -> None:
    runtime = runtime_of(lists=False)
    exporter = exporter_of(runtime)
    for _ in range(2):
        await scrape(exporter, runtime)
    del runtime.projects["p3"]
    runtime.interfere = failing("/api/v1/projects/p3/jobs", 404)
    for _ in range(3):
        ends(runtime, f"new-{runtime.clock()}", "p1")
        await scrape(exporter, runtime, 301)
        assert set(up(exporter).values()) == {True} or "Project 3" in up(exporter)
        assert exporter.runtimes[RUNTIME]._shared.ok
    assert "Project 3" not in up(exporter)


# -- sweeps -----------------------------------------------------------------------------------------------------


async def test_a_sweep_finds_what_no_change_told_and_drops_runs_that_are_gone() -> None:
    runtime = runtime_of()
    for number in range(5):
        runtime.put(f"open-{number}", projectId=f"p{number + 1}", updated_at=NOON - 3000)
    exporter = exporter_of(runtime, limits=LimitsConfig(rereads=2))
    await scrape(exporter, runtime)
    for number in range(4):
        del runtime.jobs[f"open-{number}"]
    runtime.put("open-4", records={"total": 9, "completed": 5}, updated_at=NOON - 3000)
    assert len(statuses(exporter)) == MANY + 5
    await scrape(exporter, runtime, 121)
    shown = {each.run.id: each.run for each in exporter.runtimes[RUNTIME].store.view.runs()}
    assert shown["open-4"].records.completed == 5
    assert sum(run.startswith("open") for run in shown) == 3, "the budget is two requests"
    paths = await scrape(exporter, runtime, 121)
    assert sum(path.startswith("/jobs/open") for path in paths) == 2
    assert sum(path == "/jobs" for path in paths) == 1, "the sweep goes on without its list, before the next one begins"
    assert [run for run in statuses(exporter) if run.startswith("open")] == ["open-4"]


async def test_a_project_that_is_dropped_during_a_sweep_does_not_prevent_the_next_one() -> None:
    runtime = runtime_of()
    for number in range(3):
        runtime.put(f"lost-{number}", projectId="p1", updated_at=NOON - 3000)
    only = ProjectsConfig(exclude=(re.compile("Closed"),))
    exporter = exporter_of(runtime, projects=only, limits=LimitsConfig(rereads=1))
    await scrape(exporter, runtime)
    for number in range(3):
        del runtime.jobs[f"lost-{number}"]
    swept = []
    for name in ("Project 1", "Closed", "Closed", "Closed"):
        runtime.projects["p1"] = name
        await scrape(exporter, runtime, 120)
        of_all = [request for request in runtime.requests if request.url.path == ALL]
        swept.append(sum(request.url.params.get("active") == "true" for request in of_all))
    assert swept == [1, 1, 1, 1]


# -- restarts, reloads, other descriptions ----------------------------------------------------------------------


async def test_a_restart_with_storage_counts_nothing_again(tmp_path: Path) -> None:
    runtime = runtime_of()
    exporter = exporter_of(runtime, storage=tmp_path)
    for _ in range(2):
        await scrape(exporter, runtime)
    await exporter.close()
    ends(runtime, "meanwhile", "p3")
    exporter = exporter_of(runtime, storage=tmp_path)
    for _ in range(2):
        await scrape(exporter, runtime)
    assert Counter(finished(exporter).values()) == {1: MANY - 1, 2: 1}
    await exporter.close()


async def test_projects_that_a_reload_includes_are_read_first_and_others_go_on() -> None:
    runtime = runtime_of(40)
    exporter = exporter_of(runtime, projects=ProjectsConfig(exclude=(re.compile("Project 1."),)))
    for _ in range(2):
        await scrape(exporter, runtime)
    config = exporter.runtimes[RUNTIME].config
    await exporter.reload({RUNTIME: msgspec.structs.replace(config, projects=ProjectsConfig())})
    for _ in range(2):
        await scrape(exporter, runtime)
    assert set(up(exporter)) == set(runtime.projects.values())
    assert set(finished(exporter).values()) == {1}


async def test_many_new_projects_do_not_let_others_be_read_by_themselves() -> None:
    runtime = runtime_of(30)
    exporter = exporter_of(runtime)
    for _ in range(3):
        await scrape(exporter, runtime, 200)
    for project in ("p1", "p2", "p3", "p4", "p5"):
        ends(runtime, f"new-{project}", project)
    for number in range(31, 61):
        runtime.projects[f"p{number}"] = f"Project {number}"
        ends(runtime, f"old-p{number}", f"p{number}")
    for _ in range(3):
        paths = await scrape(exporter, runtime, 200)
        assert len(own_lists(paths)) <= common_sync.FEW_REQUESTS
    assert up(exporter) == dict.fromkeys(runtime.projects.values(), True)
    assert Counter(finished(exporter).values()) == {1: 55, 2: 5}


def only_common(*, narrows: bool) -> dict[str, Any]:
    """A description whose list of runs is one of all projects."""
    described = resources()
    one = ListFilter(query={"projectId": "{project}"}) if narrows else None
    jobs = msgspec.structs.replace(described.jobs, path="/api/v1/jobs", across=None, project=one)
    return {"resources": msgspec.structs.replace(described, jobs=jobs)}


@pytest.mark.parametrize("narrows", [False, True])
async def test_a_list_that_is_described_as_one_of_all_projects_is_read_once(narrows: bool) -> None:
    runtime = runtime_of(5)
    exporter = exporter_of(runtime, described=only_common(narrows=narrows))
    await scrape(exporter, runtime)
    paths = await scrape(exporter, runtime)
    assert paths.count("/jobs") == 1
    ends(runtime, "new", "p3")
    await scrape(exporter, runtime)
    assert Counter(finished(exporter).values()) == {1: 4, 2: 1}
    runtime.interfere = failing(ALL, 404)
    await scrape(exporter, runtime)
    assert set(up(exporter).values()) == {False}
    runtime.interfere = lambda request: None
    await scrape(exporter, runtime, availability.RETRY_AFTER)
    assert set(up(exporter).values()) == {True}


async def test_a_first_read_that_begins_and_fails_makes_the_next_one_shorter() -> None:
    """As that of a project: a history that is too long to be read is halved until it can be."""
    runtime = runtime_of()
    runtime.page_size = 5
    expected = (SpinnerConfig(re.compile("Project 1"), re.compile("S"), expected_interval=Duration(7 * DAY)),)
    exporter = exporter_of(runtime, spinners=expected, described=only_common(narrows=False))
    asked: list[float] = []

    def fails(request: httpx.Request) -> httpx.Response | None:
        since = request.url.params.get("updatedSince")
        if request.url.path != ALL or since is None:
            return None
        if "cursor" in request.url.params:
            return httpx.Response(500) if len(asked) < 3 else None
        asked.append((runtime.clock() - datetime.fromisoformat(since).timestamp()) / DAY)
        return None

    runtime.interfere = fails
    for _ in range(3):
        await scrape(exporter, runtime)
    assert asked == [8.0, 4.0, 2.0]
    asked.clear()
    runtime.projects["later"] = "Project 1"
    ends(runtime, "new", "later")
    await scrape(exporter, runtime)
    assert max(asked) == 8.0, "that the first reads of others failed says nothing about this one"


async def test_a_project_that_leaves_the_list_of_projects_is_dropped_where_no_list_can_be_narrowed() -> None:
    runtime = runtime_of(3)
    exporter = exporter_of(runtime, described=only_common(narrows=False))
    for _ in range(2):
        await scrape(exporter, runtime, 130)
    del runtime.projects["p2"]
    for seconds, left in ((15, 3), (15, 3), (299, 3), (1, 2)):
        await scrape(exporter, runtime, seconds)
        assert len(up(exporter)) == left
    assert up(exporter) == {"Project 1": True, "Project 3": True}


@pytest.mark.parametrize("narrows", [False, True])
async def test_a_probe_narrows_the_list_where_it_can(narrows: bool) -> None:
    runtime = runtime_of(5)
    exporter = exporter_of(runtime, described=only_common(narrows=narrows), projects=ProjectsConfig(on_probe=True))
    page = await exporter.probe(RUNTIME, "p3")
    assert 'spinner_project_up{runtime="runtime.test",project="Project 3"} 1' in str(page)
    queries = {request.url.params.get("projectId") for request in runtime.requests if request.url.path == ALL}
    assert queries == {"p3" if narrows else None}


@pytest.mark.parametrize("other", ["p1", "p5", "nowhere"])
async def test_a_probe_of_a_project_without_runs_shows_none_of_others(other: str) -> None:
    runtime = runtime_of(5)
    runtime.jobs.clear()
    ends(runtime, "run", other)
    exporter = exporter_of(runtime, described=only_common(narrows=False), projects=ProjectsConfig(on_probe=True))
    page = str(await exporter.probe(RUNTIME, "p3"))
    assert 'spinner_project_up{runtime="runtime.test",project="Project 3"} 1' in page
    assert "spinner_run_info{" not in page


async def test_runs_of_other_projects_take_no_memory_of_a_probe() -> None:
    runtime = runtime_of(5)
    for number in range(100):
        ends(runtime, f"run-{number}", "p1")
    settings: dict[str, Any] = {"projects": ProjectsConfig(on_probe=True), "limits": LimitsConfig(read_bytes=20_000)}
    exporter = exporter_of(runtime, described=only_common(narrows=False), **settings)
    page = str(await exporter.probe(RUNTIME, "p3"))
    assert 'spinner_project_up{runtime="runtime.test",project="Project 3"} 1' in page
    assert page.count("spinner_run_info{") == 1


async def test_a_project_that_lags_behind_is_read_apart_where_no_list_can_be_narrowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runtime = runtime_of(3)
    exporter = exporter_of(runtime, described=only_common(narrows=False))
    for _ in range(2):
        await scrape(exporter, runtime)
    read = ProjectSync._read_slice

    async def broken(self: ProjectSync, *arguments: Any) -> Any:
        if arguments[1] == "p2":
            raise ApiError("cannot be applied")
        return await read(self, *arguments)

    monkeypatch.setattr(ProjectSync, "_read_slice", broken)
    ends(runtime, "new", "p2")
    for _ in range(5):
        await scrape(exporter, runtime, common_sync.MAX_LAG / 2)
    starts = [
        request.url.params["updatedSince"] for request in runtime.requests if "updatedSince" in request.url.params
    ]
    assert len(starts) == 2, "the others do not ask for what changed since then"
    assert [name for name, is_up in up(exporter).items() if not is_up] == ["Project 2"]
    monkeypatch.setattr(ProjectSync, "_read_slice", read)
    await scrape(exporter, runtime)
    assert finished(exporter)["Project 2"] == 2


async def test_after_a_restart_the_first_read_sweeps(tmp_path: Path) -> None:
    runtime = runtime_of()
    before = exporter_of(runtime, storage=tmp_path)
    for _ in range(2):
        await scrape(before, runtime)
    await before.close()
    exporter = exporter_of(runtime, storage=tmp_path)
    await scrape(exporter, runtime)
    await exporter.close()
    assert any(request.url.params.get("active") == "true" for request in runtime.requests), "what ended stays open"
