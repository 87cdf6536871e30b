"""Spinners come and go: when they leave, who has counters of its own, and how they are told apart."""

import re
from collections import Counter
from typing import Any

import msgspec
import pytest

from exporter.runs.persistence import KINDS, Row
from exporter.runs.spinner import Spinner
from exporter.runs.spinners import KEPT_PACE, ONE_OFF_RETENTION, OTHER, ProjectSpinners
from exporter.runs.view import ShownSpinner
from exporter.runtime.model import RunSnapshot
from exporter.status import Status
from tests.builders import NOON, Clock, config_with, counts, read_project, snapshot, store

HOUR, DAY = 3600.0, 86400.0


class Project:
    """A store with a clock: runs are brought by reads, and each read is followed by what a sync does after it."""

    def __init__(self, **sections: Any) -> None:
        self.clock = Clock(NOON)
        self.dropped: list[str] = []
        self.saved: dict[tuple[str, str, str], bytes | None] = {}
        defaults: dict[str, Any] = {"retention": 60.0, "spinner_retention": 1000.0, "sync": {"stale_after": 600.0}}
        self.sections = defaults | sections
        self.store = store(self.clock, dropped=self.dropped.append, **self.sections)
        self.read()

    def read(self, *snapshots: RunSnapshot, project: str = "p1") -> None:
        now = self.clock()
        self.store.clock.observe(now)
        read_project(self.store, project, [(each, now) for each in snapshots], as_of=now, horizon=NOON - DAY)
        self.store.expire()

    def after(self, seconds: float) -> None:
        """Let time pass, and read that nothing changed."""
        self.clock.advance(seconds)
        self.read()

    def run(self, run_id: str, spinner: str, status: Status = Status.COMPLETED, **fields: Any) -> RunSnapshot:
        """A run that started, and ended if it did, just now."""
        now = self.clock()
        times = {"created_at": now, "started_at": now, "updated_at": now, "ended_at": now if status.ended else None}
        return snapshot(run_id, status, **{"spinner": spinner, **times, **fields})

    def shown(self, spinner: str, project: str = "p1") -> ShownSpinner | None:
        return self.store.view.spinner((project, spinner))

    def started(self) -> dict[str, int]:
        """The starts of each spinner, as a page shows them."""
        return {each.spinner: each.counters.started for each in self.store.view.spinners()}

    def present(self, status: Status) -> dict[str, int]:
        """The runs in a status now, of the spinners that have some."""
        return {each.spinner: each.runs[status] for each in self.store.view.spinners() if each.runs[status]}

    @property
    def spinners(self) -> ProjectSpinners:
        return self.store._projects["p1"].spinners

    def sizes(self) -> dict[str, int]:
        """How much is known of spinners, by attribute."""
        return {name: len(each) for name, each in vars(self.spinners).items() if hasattr(each, "__len__")}

    def save(self) -> None:
        for kind, project, key, value in self.store.persistence.unsaved():
            self.saved[kind, project, key] = value if value is None else msgspec.msgpack.encode(value)
        self.store.persistence.saved()

    def restart(self, *, without: tuple[str, ...] = ()) -> None:
        """Begin again with what was saved; `without` some fields of spinners, as an earlier release saved them."""
        self.save()
        rows: list[Row] = [
            (kind, project, key, msgspec.msgpack.decode(value, type=KINDS[kind]))
            for (kind, project, key), value in self.saved.items()
            if value is not None
        ]
        for _, _, _, spinner in rows:
            if isinstance(spinner, Spinner):
                for field in without:
                    setattr(spinner, field, getattr(Spinner(), field))
        self.store = store(self.clock, dropped=self.dropped.append, **self.sections | {"projects": {}})
        self.store.persistence.restore(rows)


def expecting(*names: str) -> list[dict[str, Any]]:
    return [{"project": re.compile("Sales"), "spinner": re.compile(name), "expected_interval": 300.0} for name in names]


# -- when they leave ----------------------------------------------------------------------------------------


def test_a_spinner_leaves_when_it_has_had_no_run_for_its_retention_and_counts_from_zero_when_it_returns() -> None:
    project = Project()
    project.read(project.run("a", "Report"))
    project.after(61)
    for _ in range(2):
        project.after(499)
        assert project.started() == {"Report": 1}
    project.after(3)
    assert project.started() == {}
    project.read(project.run("b", "Report"))
    assert project.started() == {"Report": 0}
    project.read()
    assert project.started() == {"Report": 1}


@pytest.mark.parametrize("restarts", [False, True])
def test_a_spinner_with_a_run_in_between_has_its_whole_retention_again(*, restarts: bool) -> None:
    project = Project()
    project.read(project.run("a", "Report"))
    project.after(61)
    project.after(900)
    project.read(project.run("b", "Report"))
    project.save()
    project.after(61)
    if restarts:
        project.restart()
    project.after(450)
    project.after(500)
    assert project.started() == {"Report": 2}
    project.after(51)
    assert project.started() == {}


@pytest.mark.parametrize("restarts", [False, True])
def test_a_spinner_with_a_run_under_way_stays_however_long_it_takes(*, restarts: bool) -> None:
    project = Project()
    project.read(project.run("a", "Report"))
    project.after(61)
    project.after(900)
    project.read(project.run("b", "Report", Status.RUNNING), project.run("c", "Report"))
    if restarts:
        project.restart()
    for _ in range(5):
        project.after(500)
    assert project.present(Status.RUNNING) == {"Report": 1}
    assert project.started() == {"Report": 3}


def test_what_runs_that_ended_before_the_first_read_tell_of_a_spinner_survives_a_restart() -> None:
    project = Project(projects={"p1": "Sales", "p2": "Support"})
    old = snapshot("old", Status.COMPLETED, spinner="Report", started_at=NOON - 500, ended_at=NOON - 400)
    read_project(project.store, "p2", [(old, NOON)], as_of=NOON, horizon=NOON - 60)
    project.restart()
    project.read(project="p2")
    shown = project.shown("Report", "p2")
    assert shown is not None
    assert (shown.counters.last_start_at, shown.counters.last_success_at) == (NOON - 500, NOON - 400)


@pytest.mark.parametrize("is_reversed", [False, True])
def test_of_runs_that_ended_before_the_first_read_the_newest_start_and_success_are_known(*, is_reversed: bool) -> None:
    project = Project(projects={"p1": "Sales", "p2": "Support"})
    old = [
        snapshot(f"{ago}", status, spinner="Report", started_at=NOON - started, ended_at=NOON - ago)
        for started, ago, status in (
            (500, 400, Status.COMPLETED),
            (900, 200, Status.COMPLETED),
            (450, 100, Status.FAILED),
        )
    ]
    runs = [(run, NOON) for run in (reversed(old) if is_reversed else old)]
    read_project(project.store, "p2", runs, as_of=NOON, horizon=NOON - 60)
    shown = project.shown("Report", "p2")
    assert shown is not None
    assert (shown.counters.last_start_at, shown.counters.last_success_at) == (NOON - 450, NOON - 200)


def test_what_old_runs_tell_of_a_spinner_of_a_project_that_appears_later_is_shown_with_the_second_read() -> None:
    project = Project()
    project.store.name_projects({"p2": "Support"})
    old = snapshot("old", Status.COMPLETED, spinner="Report", started_at=NOON - 500, ended_at=NOON - 400)
    seen = []
    for runs in ([(old, NOON)], []):
        read_project(project.store, "p2", runs, as_of=NOON, horizon=NOON - 60)
        shown = project.shown("Report", "p2")
        assert shown is not None
        seen.append((shown.counters.last_start_at, shown.counters.last_success_at))
    assert seen == [(None, None), (NOON - 500, NOON - 400)]


def test_of_spinners_whose_runs_ended_before_the_first_read_each_leaves_in_its_turn() -> None:
    project = Project(projects={"p1": "Sales", "p2": "Support"}, spinner_retention=3 * HOUR)
    old = [
        snapshot(f"{ago}", Status.COMPLETED, spinner=name, started_at=NOON - ago, ended_at=NOON - ago)
        for name, ago in (("Later", 2.5 * HOUR), ("First", 2.4 * HOUR), ("Later", 2 * HOUR))
    ]
    read_project(project.store, "p2", [(run, NOON) for run in old], as_of=NOON, horizon=NOON - HOUR)
    seen = []
    for _ in range(3):
        project.clock.advance(0.45 * HOUR)
        project.read(project="p2")
        seen.append(set(project.started()))
    assert seen == [{"Later", "First"}, {"Later"}, set()]


def test_a_spinner_whose_runs_ended_before_the_first_read_leaves_as_if_it_had_been_seen_then() -> None:
    project = Project(projects={"p1": "Sales", "p2": "Support"}, spinner_retention=3 * HOUR, limits={"spinners": 1})
    old = [
        snapshot(f"{name}-{ago}", Status.COMPLETED, spinner=name, started_at=NOON - ago, ended_at=NOON - ago)
        for name in ("Report", "Import")
        for ago in (2.5 * HOUR, 2 * HOUR, 2.2 * HOUR)
    ]
    read_project(project.store, "p2", [(run, NOON) for run in old], as_of=NOON, horizon=NOON - HOUR)
    assert project.started() == {"Report": 0}, "beyond the limit there is nothing to count"
    for seconds, names in ((0.9 * HOUR, {"Report": 0}), (0.2 * HOUR, {})):
        project.clock.advance(seconds)
        project.read(project="p2")
        assert project.started() == names


def test_the_one_without_runs_for_longest_leaves_first_and_the_others_in_their_turn() -> None:
    project = Project()
    for name in ("First", "Second", "Third"):
        project.read(project.run(name, name))
        project.after(61)
        project.after(100)
    seen = [set(project.started())]
    for _ in range(24):
        project.after(50)
        if set(project.started()) != seen[-1]:
            seen.append(set(project.started()))
    assert seen == [{"First", "Second", "Third"}, {"Second", "Third"}, {"Third"}, set()]


def test_no_spinner_leaves_while_its_project_is_not_read_or_seems_to_be_gone() -> None:
    """Whether it has had a run is not known then."""
    project = Project()
    project.read(project.run("a", "Report"))
    project.after(61)
    project.clock.advance(2000)
    project.store.expire()
    assert project.started() == {"Report": 1}
    project.store.name_projects({"p2": "Other"})
    project.store.withdraw("p1")
    project.store._projects["p1"].read_at = project.clock()
    project.store.expire()
    project.store.withdraw("p1", is_gone=False)
    assert project.started() == {"Report": 1}
    project.read()
    assert project.started() == {}


def test_a_spinner_that_the_config_expects_stays_until_the_config_no_longer_does() -> None:
    project = Project(spinners=expecting("Report"))
    project.read(project.run("a", "Report"), project.run("b", "Import"))
    project.after(61)
    for _ in range(5):
        project.after(700)
    assert project.started() == {"Report": 1}
    project.store.config = msgspec.structs.replace(project.store.config, spinners=())
    for _ in range(2):
        project.after(550)
    assert project.started() == {}


def test_the_sum_of_the_rest_leaves_too_when_none_of_them_has_runs() -> None:
    project = Project(limits={"spinners": 1})
    project.read(project.run("a", "Report", Status.RUNNING), project.run("b", "Import"))
    project.read()
    assert project.started() == {"Report": 1, OTHER: 1}
    project.after(61)
    project.after(500)
    project.read(project.run("c", "Mails"))
    project.after(61)
    project.after(990)
    assert project.started() == {"Report": 1, OTHER: 2}
    project.after(11)
    assert project.started() == {"Report": 1}


def test_a_clock_that_is_set_back_moves_the_last_times_with_it_also_in_the_file() -> None:
    """Or one that stops running would be missed too late."""
    project = Project()
    project.read(project.run("a", "Report"), project.run("b", "Import", started_at=NOON - 2 * HOUR))
    project.read()
    project.save()
    watch = project.store.view.watch()
    watch.changed()
    for _ in range(5):
        project.store.clock.observe(NOON - HOUR)
    project.store.expire()
    assert sorted(watch.changed()[1]) == [("p1", "Import"), ("p1", "Report")]
    project.restart()
    times = {}
    for name in ("Report", "Import"):
        shown = project.shown(name)
        assert shown is not None
        times[name] = shown.counters.last_start_at, shown.counters.last_success_at
    assert times == {"Report": (NOON - HOUR, NOON - HOUR), "Import": (NOON - 2 * HOUR, NOON - HOUR)}


# -- the limit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [{"spinners": 2}, {"spinners_per_project": 2}])
def test_beyond_the_limit_spinners_are_counted_together_and_each_run_is_reported(limits: dict[str, int]) -> None:
    project = Project(limits=limits)
    runs = [project.run(name, name, Status.RUNNING, records=counts(3)) for name in "abcd"]
    project.read(*runs)
    assert project.started() == {"a": 0, "b": 0, OTHER: 0}, "increase() needs a zero to rise from"
    project.read(*(msgspec.structs.replace(run, updated_at=NOON + 1, records=counts(4)) for run in runs))
    project.read()
    assert project.started() == {"a": 1, "b": 1, OTHER: 2}
    assert project.present(Status.RUNNING) == {"a": 1, "b": 1, OTHER: 2}
    assert project.dropped == ["spinner_limit"] * 2, "each run once, however often it changes"
    other = project.shown(OTHER)
    assert other is not None
    assert other.counters.completed_records == 8
    assert (other.counters.last_start_at, other.counters.last_success_at) == (None, None)
    project.read(project.run("e", "e", Status.RUNNING))
    assert project.dropped == ["spinner_limit"] * 3


def test_after_a_restart_the_spinners_of_before_have_their_slots() -> None:
    project = Project(limits={"spinners": 2})
    project.read(*(project.run(name, name, Status.RUNNING) for name in "ab"))
    project.restart()
    project.read(project.run("c", "c", Status.RUNNING))
    assert set(project.started()) == {"a", "b", OTHER}


def test_over_all_projects_no_more_paces_are_kept_than_there_may_be_spinners() -> None:
    projects = {"p1": "Sales", "p2": "Support"}
    project = Project(projects=projects, limits={"spinners": 1}, spinner_retention=100.0)
    for each in projects:
        run = project.run(each, f"Import of {each}", project_id=each, records=counts(3))
        project.read(run, project=each)
        for seconds in (61, 101):
            project.clock.advance(seconds)
            project.read(project=each)
    assert project.started() == {}
    assert [key for kind, _, key, _ in project.store.persistence.everything() if kind == "spinner"] == ["Import of p1"]


def test_while_the_limit_is_reached_a_spinner_that_ran_once_leaves_after_a_day_and_others_do_not() -> None:
    project = Project(limits={"spinners": 2}, spinner_retention=30 * DAY)
    project.read(project.run("a", "Regular"), project.run("b", "Import 1"))
    project.read(project.run("c", "Regular"))
    project.read(*(project.run(run_id, "Twice", Status.RUNNING) for run_id in "de"))
    project.after(61)
    project.after(DAY - 1)
    assert project.started() == {"Regular": 2, "Import 1": 1, OTHER: 2}
    project.after(1)
    assert project.started() == {"Regular": 2, "Twice": 0, OTHER: 2}
    assert project.dropped == ["spinner_limit"] * 3
    project.read(project.run("f", "Twice"))
    assert project.started() == {"Regular": 2, "Twice": 1, OTHER: 2}, "its zeros were shown before"


def test_the_sum_of_the_rest_shows_zeros_from_when_a_spinner_loses_its_place_and_the_next_run_at_once() -> None:
    project = Project()
    project.read(*(project.run(name, name, Status.RUNNING) for name in ("a", "b")))
    project.read()
    project.store.config = config_with(**project.sections, limits={"spinners": 1})
    project.store.expire()
    assert project.started()[OTHER] == 0
    project.read(project.run("c", "c", Status.RUNNING))
    assert project.started()[OTHER] == 1


def test_while_the_limit_is_reached_a_spinner_that_ran_once_stays_if_the_config_expects_it() -> None:
    project = Project(limits={"spinners": 2}, spinner_retention=30 * DAY, spinners=expecting("Yearly"))
    project.read(project.run("a", "Yearly"), project.run("b", "Import 1"))
    project.after(61)
    for _ in range(2):
        project.after(ONE_OFF_RETENTION + 1)
        assert project.started() == {"Yearly": 1}


def test_while_the_limit_is_reached_a_spinner_of_which_no_run_was_counted_is_not_one_that_ran_once() -> None:
    project = Project(projects={"p1": "Sales", "p2": "Support"}, limits={"spinners": 1}, spinner_retention=30 * DAY)
    old = snapshot("old", Status.COMPLETED, spinner="Report", started_at=NOON - 9, ended_at=NOON - 5)
    read_project(project.store, "p2", [(old, NOON)], as_of=NOON, horizon=NOON)
    for _ in range(2):
        project.clock.advance(ONE_OFF_RETENTION)
        project.read(project="p2")
    assert project.started() == {"Report": 0}


def test_a_spinner_that_ran_once_and_runs_again_keeps_its_counters() -> None:
    project = Project(limits={"spinners": 1}, spinner_retention=30 * DAY)
    project.read(project.run("a", "Monthly"))
    project.after(61)
    project.after(ONE_OFF_RETENTION - 1)
    project.read(project.run("b", "Monthly", Status.RUNNING))
    project.after(100)
    assert project.started() == {"Monthly": 2}
    project.read(project.run("b", "Monthly"))
    project.after(61)
    for _ in range(3):
        project.after(ONE_OFF_RETENTION)
    assert project.started() == {"Monthly": 2}


@pytest.mark.parametrize("restarts", [False, True])
def test_the_sum_of_the_rest_leaves_once_all_of_them_have_counters_of_their_own(*, restarts: bool) -> None:
    project = Project(limits={"spinners": 1})
    project.read(project.run("a", "First", Status.RUNNING), project.run("b", "Import"))
    project.after(61)
    project.after(500)
    project.read(*(project.run(run_id, "Twice", Status.RUNNING) for run_id in "cd"))
    project.store.drop_run("p1", "a")
    project.after(1001)
    project.save()
    project.after(1)
    assert project.present(Status.RUNNING) == {"Twice": 2}
    project.after(500)
    if restarts:
        project.restart()
    project.after(499)
    assert set(project.started()) == {"Twice", OTHER}
    project.after(2)
    assert set(project.started()) == {"Twice"}


def test_while_there_is_room_a_spinner_that_ran_once_stays_as_any_other() -> None:
    project = Project(limits={"spinners": 2}, spinner_retention=30 * DAY)
    project.read(project.run("b", "Import 1"))
    project.after(61)
    for _ in range(3):
        project.after(ONE_OFF_RETENTION)
    assert project.started() == {"Import 1": 1}
    assert project.dropped == []


@pytest.mark.parametrize("restarts", [False, True])
def test_a_slot_that_becomes_free_goes_to_a_spinner_with_several_runs_which_counts_from_zero(*, restarts: bool) -> None:
    project = Project(limits={"spinners": 2})
    project.read(project.run("a", "Leaves"), project.run("b", "Stays", Status.RUNNING))
    project.after(61)
    project.after(500)
    rest = [project.run(run_id, "Gone", Status.RUNNING) for run_id in "fg"]
    rest += [project.run("c", "Once", Status.RUNNING)]
    rest += [project.run(run_id, "Twice", Status.QUEUED, started_at=None) for run_id in "de"]
    project.read(*rest)
    project.read(*(project.run(run_id, "Twice", Status.RUNNING) for run_id in "de"))
    for run_id in "fg":
        project.store.drop_run("p1", run_id)
    project.read()
    assert project.started() == {"Leaves": 1, "Stays": 1, OTHER: 5}
    watch = project.store.view.watch()
    watch.changed()
    project.after(501)
    assert {name for _, name in watch.changed()[1]} == {"Leaves", "Twice", OTHER}
    if restarts:
        project.restart()
        project.read()
    assert project.started() == {"Stays": 1, "Twice": 0, OTHER: 5}
    assert project.present(Status.QUEUED) == {}
    assert project.present(Status.RUNNING) == {"Stays": 1, "Twice": 2, OTHER: 1}
    project.read(project.run("d", "Twice"))
    assert project.present(Status.RUNNING) == {"Stays": 1, "Twice": 1, OTHER: 1}
    project.read()
    shown = project.shown("Twice")
    assert shown is not None
    assert (shown.counters.started, shown.counters.finished[Status.COMPLETED]) == (0, 1)


def test_a_spinner_that_a_new_config_expects_takes_the_place_of_another() -> None:
    project = Project(limits={"spinners": 1})
    project.read(project.run("a", "First", Status.RUNNING), project.run("b", "Report", Status.RUNNING))
    assert set(project.started()) == {"First", OTHER}
    project.store.config = config_with(**project.sections, spinners=expecting("Report", "Unknown"))
    project.store.expire()
    assert project.present(Status.RUNNING) == {"Report": 1, OTHER: 1}
    assert project.spinners.slot_count == 1, "one that has no run needs none"
    project.read(project.run("a", "First"), project.run("b", "Report"))
    project.read()
    assert project.present(Status.COMPLETED) == {"Report": 1, OTHER: 1}


def test_of_too_many_those_that_the_config_names_keep_theirs_and_the_least_used_lose_them_first() -> None:
    project = Project()
    for name, runs in (("Expected", 1), ("Seldom", 2), ("Often", 4), ("Always", 5)):
        project.read(*(project.run(f"{name}-{number}", name, Status.RUNNING) for number in range(runs)))
    project.read()
    project.save()
    watch = project.store.view.watch()
    watch.changed()
    anywhere = {"spinner": re.compile(".*"), "expected_interval": 300.0}
    project.sections |= {"limits": {"spinners_per_project": 2}, "spinners": [*expecting("Expected"), anywhere]}
    project.store.config = config_with(**project.sections)
    project.store.expire()
    assert ("p1", OTHER) in watch.changed()[1]
    assert set(project.started()) == {"Expected", "Always", OTHER}
    assert project.dropped == ["spinner_limit"] * 2
    project.restart()
    project.read()
    assert project.present(Status.RUNNING) == {"Expected": 1, "Always": 5, OTHER: 6}
    other = project.shown(OTHER)
    assert other is not None
    assert other.policy.expected_interval is None
    project.read(project.run("Often-1", "Often"))
    assert project.present(Status.RUNNING) == {"Expected": 1, "Always": 5, OTHER: 5}
    assert project.present(Status.COMPLETED) == {OTHER: 1}


def test_of_those_without_runs_the_one_without_for_longest_loses_its_place_unless_it_is_expected() -> None:
    project = Project()
    for name in ("Expected", "First", "Second"):
        project.read(*(project.run(f"{name} {number}", name) for number in range(2)))
        project.after(61)
    project.read()
    for limit, names in ((2, {"Expected", "Second"}), (1, {"Expected"})):
        project.store.config = config_with(
            **project.sections, limits={"spinners_per_project": limit}, spinners=expecting("Expected")
        )
        project.store.expire()
        assert set(project.started()) == names
    assert project.dropped == ["spinner_limit"] * 2


def test_the_sum_of_the_rest_stays_when_it_gets_the_runs_of_one_that_lost_its_place() -> None:
    project = Project(limits={"spinners": 2})
    project.read(*(project.run(name, name, Status.RUNNING) for name in ("a", "b")), project.run("c", "c"))
    project.after(61)
    project.sections["limits"] = {"spinners": 1}
    project.store.config = config_with(**project.sections)
    for _ in range(3):
        project.after(501)
    assert project.present(Status.RUNNING) == {"b": 1, OTHER: 1}


@pytest.mark.parametrize("many", ["p1", "p2"])
def test_over_all_projects_those_with_the_most_spinners_lose_theirs(many: str) -> None:
    project = Project(projects={"p1": "Sales", "p2": "Support"})
    for each in ("p1", "p2"):
        names = "abc" if each == many else "d"
        project.read(*(project.run(name, name, Status.RUNNING, project_id=each) for name in names), project=each)
    project.store.config = config_with(**project.sections, limits={"spinners": 2})
    project.store.expire()
    slots = {each.name: each.spinners.slot_count for each in project.store.view.projects()}
    assert slots == {"Sales": 1, "Support": 1}
    assert project.dropped == ["spinner_limit"] * 2


def test_the_sum_of_the_rest_is_expected_only_if_a_spinner_is_really_called_so() -> None:
    """That some of many ran does not mean that one did."""

    def interval(name: str) -> float | None:
        shown = project.shown(name)
        assert shown is not None
        return shown.policy.expected_interval

    project = Project(limits={"spinners": 1}, spinners=[{"spinner": re.compile(".*"), "expected_interval": 300.0}])
    project.read(project.run("a", "Report"), project.run("b", "Import"))
    assert (interval("Report"), interval(OTHER)) == (300.0, None)
    for _ in range(4):
        project.after(500)
    assert set(project.started()) == {"Report"}, "so the sum leaves"
    project.read(project.run("c", OTHER, Status.QUEUED, started_at=None), project.run("d", "Import"))
    assert interval(OTHER) is None
    project.read(project.run("c", OTHER, Status.RUNNING))
    assert interval(OTHER) == 300.0
    for _ in range(4):
        project.read(project.run("c", OTHER))
        project.after(500)
    assert set(project.started()) == {"Report", OTHER}


# -- how they are told apart --------------------------------------------------------------------------------


def spinner_of(project: Project, run_id: str) -> str:
    return project.store.runs_of("p1")[run_id].snapshot.spinner


def test_beyond_so_many_namesakes_the_others_share_a_name_and_are_all_counted() -> None:
    project = Project()
    ids = [f"{'x' * 130}-{number}" for number in range(23)]
    runs = [project.run(f"r{number}", "Report", spinner_id=each) for number, each in enumerate(ids)]
    project.read(*runs)
    project.read()
    names = [spinner_of(project, run.id) for run in runs]
    assert [name for name, many in Counter(names).items() if many > 1] == [names[19]]
    assert sum(project.started().values()) == len(runs)
    assert all(len(name) <= 128 for name in names)


def test_a_name_is_free_again_when_its_spinner_has_left() -> None:
    project = Project()
    project.read(project.run("a", "Report", spinner_id="s1"))
    project.read(project.run("b", "Report", spinner_id="s2"))
    assert spinner_of(project, "b") == "Report (s2)"
    project.after(61)
    for _ in range(3):
        project.after(500)
    assert project.started() == {}
    project.read(project.run("c", "Report", spinner_id="s2"))
    assert spinner_of(project, "c") == "Report"


def test_a_name_is_not_free_while_its_spinner_has_runs() -> None:
    project = Project(limits={"spinners": 1})
    for name, spinner_id, status in (
        ("First", "s0", Status.RUNNING),
        ("Report", "s1", Status.RUNNING),
        ("Gone", "s2", Status.COMPLETED),
    ):
        project.read(project.run(name, name, status, spinner_id=spinner_id))
    for _ in range(3):
        project.after(61)
    project.read(*(project.run(f"New {name}", name, spinner_id="s9") for name in ("First", "Report", "Gone")))
    assert [spinner_of(project, f"New {name}") for name in ("First", "Report", "Gone")] == [
        "First (s9)",
        "Report (s9)",
        "Gone",
    ]


def test_a_run_without_a_name_of_its_spinner_has_the_last_one_of_its_id() -> None:
    project = Project()
    project.read(project.run("a", "Report", spinner_id="s1"))
    project.read(project.run("b", "", spinner_id="s1"))
    assert spinner_of(project, "b") == "Report"
    project.restart()
    project.read(project.run("c", "", spinner_id="s1"), project.run("d", "", spinner_id="s9"), project.run("e", ""))
    assert [spinner_of(project, run_id) for run_id in "cde"] == ["Report", "s9", "Sales"]


def test_a_spinner_that_was_saved_without_its_id_gets_it_with_its_next_run() -> None:
    project = Project()
    run = project.run("a", "Report", spinner_id="s1")
    project.read(run)
    project.restart(without=("id",))
    project.read(msgspec.structs.replace(run, updated_at=NOON + 1))
    project.restart()
    project.read(project.run("c", "Report", spinner_id="s2"))
    assert spinner_of(project, "c") == "Report (s2)", "the name is another spinner's"


@pytest.mark.parametrize("has_run", [False, True])
def test_a_spinner_that_was_saved_without_when_it_became_idle_has_been_so_since_its_last_run(*, has_run: bool) -> None:
    project = Project(retention=2000.0) if has_run else Project()
    project.read(project.run("a", "Report"))
    project.after(61)
    project.after(400)
    project.restart(without=("idle_since",))
    project.after(530)
    assert project.started() == {"Report": 1}, "999 seconds"
    project.after(20)
    assert project.started() == ({"Report": 1} if has_run else {})


@pytest.mark.parametrize("limits", [{"spinners": 5}, {"spinners": 1}], ids=["with slots", "counted together"])
def test_what_is_known_of_spinners_that_left_is_bounded(limits: dict[str, int]) -> None:
    project = Project(limits=limits, spinner_retention=100.0)
    if limits["spinners"] == 1:
        project.read(project.run("stays", "Stays", Status.RUNNING))
    for number in range(60):
        run = project.run(f"r{number}", f"Import {number}", spinner_id=f"s{number}", records=counts(3))
        project.read(run)
        project.after(61)
        project.after(101)
    sizes = project.sizes()
    assert max(size for name, size in sizes.items() if name not in ("_changed", "_unsaved")) <= 12, sizes
    project.store.drop_run("p1", "stays")
    project.clock.advance(KEPT_PACE)
    for _ in range(3):
        project.after(101)
    sizes = project.sizes()
    assert {sizes[name] for name in ("_tracked", "_left", "_ids", "_last_names", "_rest", "_idle")} == {0}, sizes
