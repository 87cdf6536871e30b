"""What the log says about problems of reading: one line when a kind of problem begins, changes or ends."""

import pytest
import structlog

from exporter.sync.problems import QUIET, ProblemLog
from tests.builders import Clock


class Log:
    """A problem log and the lines it writes."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.problems = ProblemLog(self.clock, name_of=lambda project_id: {"s1": "Sales"}.get(project_id, project_id))

    def lines(self) -> list[dict[str, object]]:
        with structlog.testing.capture_logs() as captured:
            self.problems.log()
        return [dict(each) for each in captured]


@pytest.fixture
def log() -> Log:
    return Log()


def test_a_problem_is_logged_once_until_it_is_over(log: Log) -> None:
    log.problems.report("health", "HTTP 500")
    assert log.lines() == [{"event": "cannot read", "log_level": "warning", "what": "health", "error": "HTTP 500"}]
    log.problems.report("health", "HTTP 500")
    assert log.lines() == []
    log.clock.advance(90)
    log.problems.resolve("health")
    (recovered,) = log.lines()
    assert (recovered["event"], recovered["failed_times"], recovered["failed_seconds"]) == ("recovered", 2, 90)
    log.problems.resolve("health")
    assert log.lines() == []


def test_a_problem_that_is_over_before_it_was_logged_is_not_logged(log: Log) -> None:
    log.problems.report("health", "HTTP 500")
    log.problems.resolve("health")
    assert log.lines() == []


def test_projects_that_fail_for_the_same_reason_are_one_line(log: Log) -> None:
    for project in ("b", "a"):
        log.problems.report("project", "HTTP 403", project=project)
    log.problems.report("project", "HTTP 500", project="c")
    together, alone = log.lines()
    assert (together["error"], together["projects"], together["such_as"]) == ("HTTP 403", 2, "a")
    assert (alone["error"], alone["project"]) == ("HTTP 500", "c")
    assert "projects" not in alone


def test_a_project_is_logged_by_its_name(log: Log) -> None:
    log.problems.report("project", "HTTP 500", project="s1")
    (line,) = log.lines()
    assert line["project"] == "Sales"
    log.problems.resolve("project", project="s1")
    (line,) = log.lines()
    assert line["project"] == "Sales"


def test_another_error_of_a_known_problem_is_logged_after_a_while_only(log: Log) -> None:
    log.problems.report("project", "item 1 is invalid", project="a")
    log.lines()
    log.clock.advance(QUIET - 1)
    log.problems.report("project", "item 2 is invalid", project="a")
    assert log.lines() == []
    log.clock.advance(1)
    log.problems.report("project", "item 3 is invalid", project="a")
    (changed,) = log.lines()
    assert changed["error"] == "item 3 is invalid"
    log.problems.report("project", "item 4 is invalid", project="a")
    assert log.lines() == [], "it was logged just now"


def test_several_projects_recover_in_one_line_with_the_longest_failure(log: Log) -> None:
    log.problems.report("project", "HTTP 500", project="a")
    log.lines()
    log.clock.advance(10)
    for project in ("a", "b"):
        log.problems.report("project", "HTTP 500", project=project)
    log.lines()
    log.clock.advance(10)
    for project in ("a", "b"):
        log.problems.resolve("project", project=project)
    (recovered,) = log.lines()
    assert (recovered["failed_times"], recovered["failed_seconds"], recovered["projects"]) == (2, 20, 2)


def test_the_problems_of_a_removed_project_are_forgotten(log: Log) -> None:
    log.problems.report("project", "HTTP 500", project="a")
    log.problems.report("records", "HTTP 500", project="a")
    log.problems.report("project", "HTTP 500", project="b")
    log.lines()
    log.problems.forget("a")
    for what, project in (("project", "a"), ("records", "a"), ("project", "b")):
        log.problems.resolve(what, project=project)
    (recovered,) = log.lines()
    assert recovered["project"] == "b"


def test_a_problem_that_is_forgotten_before_it_was_logged_is_not_logged(log: Log) -> None:
    log.problems.report("project", "HTTP 500", project="a")
    log.problems.forget("a")
    assert log.lines() == []


def test_of_several_reads_the_first_error_is_the_problem_and_none_resolves_it(log: Log) -> None:
    log.problems.settle("records", ["HTTP 500", "HTTP 404"], project="a")
    assert [line["error"] for line in log.lines()] == ["HTTP 500"]
    log.problems.settle("records", [], project="a")
    assert [line["event"] for line in log.lines()] == ["recovered"]
