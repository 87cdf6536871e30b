"""The log of problems: one line when a problem begins, one when it changes, one when it is over."""

from typing import Any

import pytest
import structlog

from exporter.sync.problems import ProblemLog
from tests.builders import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def problems(clock: Clock) -> ProblemLog:
    return ProblemLog(clock, name_of=lambda project_id: {"s1": "Sales"}.get(project_id, project_id))


def logged(problems: ProblemLog) -> list[Any]:
    with structlog.testing.capture_logs() as lines:
        problems.log()
    return lines


def warning(**fields: object) -> dict[str, object]:
    return {"event": "cannot read", "log_level": "warning", **fields}


def recovery(**fields: object) -> dict[str, object]:
    return {"event": "recovered", "log_level": "info", **fields}


def test_a_problem_of_one_project_names_it(problems: ProblemLog) -> None:
    problems.report("project", "HTTP 500", project="p1")
    assert logged(problems) == [warning(what="project", error="HTTP 500", project="p1")]


def test_a_problem_of_the_runtime_names_no_project(problems: ProblemLog) -> None:
    problems.report("health", "HTTP 500")
    assert logged(problems) == [warning(what="health", error="HTTP 500")]


def test_a_project_is_logged_by_its_name(problems: ProblemLog) -> None:
    problems.report("project", "HTTP 500", project="s1")
    assert logged(problems) == [warning(what="project", error="HTTP 500", project="Sales")]
    problems.resolve("project", project="s1")
    (recovered,) = logged(problems)
    assert recovered["project"] == "Sales"


@pytest.mark.parametrize("many", [2, 3])
def test_projects_that_fail_for_the_same_reason_are_one_line(problems: ProblemLog, many: int) -> None:
    for number in reversed(range(many)):
        problems.report("project", "HTTP 500", project=f"p{number}")
    problems.report("project", "HTTP 401", project="other")
    assert logged(problems) == [
        warning(what="project", error="HTTP 500", projects=many, such_as="p0"),
        warning(what="project", error="HTTP 401", project="other"),
    ]


def test_a_problem_that_lasts_is_one_line_until_it_is_over(problems: ProblemLog, clock: Clock) -> None:
    lines = []
    for _ in range(4):
        problems.report("health", "HTTP 500")
        lines += logged(problems)
        clock.advance(15.4)
    problems.resolve("health")
    lines += logged(problems)
    assert lines == [
        warning(what="health", error="HTTP 500"),
        recovery(what="health", failed_times=4, failed_seconds=62),
    ]
    problems.resolve("health")
    assert logged(problems) == []


def test_projects_that_recover_are_one_line_with_the_longest_and_most_frequent_failure(
    problems: ProblemLog, clock: Clock
) -> None:
    problems.report("project", "HTTP 500", project="long")
    clock.advance(100)
    for _ in range(3):
        problems.report("project", "HTTP 500", project="often")
    logged(problems)
    clock.advance(20)
    problems.resolve("project", project="often")
    problems.resolve("project", project="long")
    assert logged(problems) == [
        recovery(what="project", failed_times=3, failed_seconds=120, projects=2, such_as="long")
    ]


def test_a_changed_error_is_logged_when_the_last_line_is_old_enough(problems: ProblemLog, clock: Clock) -> None:
    problems.report("job", "run-1 cannot be decoded")
    logged(problems)
    clock.advance(299)
    problems.report("job", "run-2 cannot be decoded")
    assert logged(problems) == []
    clock.advance(1)
    problems.report("job", "run-3 cannot be decoded")
    assert logged(problems) == [warning(what="job", error="run-3 cannot be decoded")]
    clock.advance(1)
    problems.report("job", "run-4 cannot be decoded")
    assert logged(problems) == [], "each line starts the time again"


def test_the_same_error_is_not_logged_again_however_long_it_lasts(problems: ProblemLog, clock: Clock) -> None:
    problems.report("job", "HTTP 500")
    logged(problems)
    clock.advance(3000)
    problems.report("job", "HTTP 500")
    assert logged(problems) == []


def test_a_problem_that_is_over_before_it_was_logged_is_not_logged(problems: ProblemLog) -> None:
    problems.report("health", "HTTP 500")
    problems.resolve("health")
    assert logged(problems) == []


def test_a_problem_that_returns_is_logged_again(problems: ProblemLog) -> None:
    problems.report("health", "HTTP 500")
    logged(problems)
    problems.resolve("health")
    logged(problems)
    problems.report("health", "HTTP 500")
    assert logged(problems) == [warning(what="health", error="HTTP 500")]


def test_of_several_reads_the_first_error_is_reported_and_none_resolves(problems: ProblemLog) -> None:
    problems.settle("records", ["HTTP 500", "HTTP 401"], project="p1")
    assert logged(problems) == [warning(what="records", error="HTTP 500", project="p1")]
    problems.settle("records", [], project="p1")
    assert logged(problems) == [recovery(what="records", failed_times=1, failed_seconds=0, project="p1")]


def test_projects_are_found_by_the_kind_of_their_problem(problems: ProblemLog) -> None:
    for what, project in (("project", "p1"), ("job", "p2"), ("records", "p3"), ("project", "p4"), ("health", "")):
        problems.report(what, "HTTP 500", project=project)
    assert problems.projects_with("project") == {"p1", "p4"}
    assert problems.projects_with("usage") == set()


def test_problems_of_a_removed_project_neither_recover_nor_begin(problems: ProblemLog) -> None:
    problems.report("project", "HTTP 500", project="gone")
    problems.report("project", "HTTP 401", project="stays")
    problems.forget("gone")
    assert logged(problems) == [warning(what="project", error="HTTP 401", project="stays")]
    problems.resolve("project", project="gone")
    assert logged(problems) == []


def test_a_logged_problem_of_a_removed_project_does_not_recover(problems: ProblemLog) -> None:
    for what in ("project", "records"):
        problems.report(what, "HTTP 500", project="gone")
    problems.report("project", "HTTP 500", project="stays")
    logged(problems)
    problems.forget("gone")
    for what, project in (("project", "gone"), ("records", "gone"), ("project", "stays")):
        problems.resolve(what, project=project)
    assert logged(problems) == [recovery(what="project", failed_times=1, failed_seconds=0, project="stays")]


def test_how_long_something_failed_is_right_soon_after_the_machine_has_started(
    clock: Clock, problems: ProblemLog
) -> None:
    clock.now = 10.0
    problems.report("health", "HTTP 500")
    logged(problems)
    clock.now = 35.0
    problems.resolve("health")
    assert logged(problems) == [recovery(what="health", failed_times=1, failed_seconds=25)]
