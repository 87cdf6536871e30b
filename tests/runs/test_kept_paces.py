"""What a spinner's runs taught is kept: while it has no runs, over a restart, and when it is renamed."""

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from exporter.runs.pace import EARLIER_FACTOR, EARLIER_MOST, EARLIER_RUNS, UNKNOWN_FACTOR
from exporter.runs.persistence import KINDS, Row
from exporter.runs.store import Store
from exporter.runs.view import ShownRun
from exporter.runtime.model import RunSnapshot
from exporter.status import Status
from tests.builders import NOON, Clock, counts, read_project, snapshot, store

MINUTE, DAY = 60.0, 86400.0

KNOWN = EARLIER_MOST * 12 * MINUTE
"""The threshold of a young run whose spinner has gaps of 12 minutes."""

UNKNOWN = UNKNOWN_FACTOR * 600
"""The threshold of a young run of a spinner of which nothing is known, like its project."""


class Project:
    """A project whose spinners run from time to time."""

    def __init__(self, **sections: Any) -> None:
        self.clock = Clock(NOON)
        self.sections = sections
        self.store = self._store()
        self.saved: dict[tuple[str, str, str], bytes] = {}
        self.runs = 0

    def _store(self) -> Store:
        return store(self.clock, sync={"stale_after": 1e9}, **self.sections)

    def teach(self, spinner: str = "Monthly", spinner_id: str = "", gap: float = 12 * MINUTE) -> None:
        """Let a run of a spinner have some gaps, and end."""
        fields = self._new(spinner, spinner_id)
        for finished in range(5):
            self.clock.advance(gap if finished else 1.0)
            self._see(fields | {"finished": finished})
        self._see(fields | {"finished": 4, "status": Status.COMPLETED, "ended_at": self.clock.now})

    def threshold(self, spinner: str = "Monthly", spinner_id: str = "", *, finished: int = 1) -> float | None:
        """Return the threshold of a new run of a spinner after its first finished records; the run is removed."""
        fields = self._new(spinner, spinner_id)
        self._see(fields | {"finished": 0})
        for count in range(finished):
            self.clock.advance(1.0)
            self._see(fields | {"finished": count + 1})
        shown = self.store.view.run(("p1", fields["run_id"]))
        assert shown is not None
        self.store.drop_run("p1", fields["run_id"])
        return shown.stall_threshold()

    def idle(self, days: float) -> None:
        """Let days pass without a run, read every 12 hours."""
        until = self.clock.now + days * DAY
        while self.clock.now < until:
            self.clock.advance(DAY / 2)
            self._read()

    def restart(self) -> None:
        """Start again with what was saved."""
        self._save()
        rows: list[Row] = [
            (kind, project, key, msgspec.msgpack.decode(value, type=KINDS[kind]))
            for (kind, project, key), value in sorted(self.saved.items())
        ]
        self.store = self._store()
        self.store.persistence.restore(rows)

    def names_in_file(self) -> set[str]:
        self._save()
        return {key for kind, _, key in self.saved if kind == "spinner"}

    def _save(self) -> None:
        for kind, project, key, value in self.store.persistence.unsaved():
            if value is None:
                self.saved.pop((kind, project, key), None)
            else:
                self.saved[kind, project, key] = msgspec.msgpack.encode(value)
        self.store.persistence.saved()

    def _new(self, spinner: str, spinner_id: str) -> dict[str, Any]:
        self.runs += 1
        began = self.clock.now
        return {
            "run_id": f"run-{self.runs}",
            "spinner": spinner,
            "spinner_id": spinner_id,
            "created_at": began,
            "started_at": began,
        }

    def _see(self, fields: dict[str, Any]) -> None:
        finished = fields.pop("finished")
        now = self.clock.now
        progress = {"last_progress_at": now} if finished else {}
        records = counts(finished, total=90, running=1, pending=80)
        self._read([snapshot(**(fields | {"updated_at": now, "records": records} | progress))])

    def _read(self, snapshots: Iterable[Any] = ()) -> None:
        now = self.clock.now
        self.store.clock.observe(now)
        read_project(self.store, "p1", [(each, now) for each in snapshots], as_of=now, horizon=NOON - DAY)
        self.store.expire()


@pytest.mark.parametrize("restarts", [False, True])
def test_a_spinner_that_runs_every_other_month_keeps_what_it_learned(*, restarts: bool) -> None:
    project = Project()
    assert project.threshold() == UNKNOWN
    project.teach()
    if restarts:
        project.restart()
    project.idle(60)
    assert project.store.view.spinner(("p1", "Monthly")) is None, "its series have left"
    if restarts:
        project.restart()
        assert project.store.view.spinner(("p1", "Monthly")) is None, "nor return while nothing can be read"
    assert project.threshold() == KNOWN
    project.idle(60)
    assert project.threshold() == KNOWN, "it left once more"


def test_a_spinner_that_returns_counts_from_zero() -> None:
    project = Project()
    project.teach()
    project.idle(60)
    project.teach()
    shown = project.store.view.spinner(("p1", "Monthly"))
    assert shown is not None
    assert shown.counters.finished[Status.COMPLETED] == 1
    rows = [row[:3] for row in project.store.persistence.everything()]
    assert len(rows) == len(set(rows)), "what it knew is saved with it"


def removed_before_its_end(project: Project) -> dict[str, Any]:
    """A run with gaps of 20 minutes that the runtime no longer has; returns its fields."""
    removed = project._new("Monthly", "")
    for finished in range(5):
        project.clock.advance(20 * MINUTE)
        project._see(removed | {"finished": finished})
    project._save()
    project.store.drop_run("p1", removed["run_id"])
    return removed


def test_what_a_run_taught_that_was_removed_before_its_end_survives_a_restart() -> None:
    project = Project()
    open_run = project._new("Monthly", "")
    project._see(open_run | {"finished": 0})
    removed_before_its_end(project)
    project.restart()
    project._see(open_run | {"finished": 1})
    shown = project.store.view.run(("p1", open_run["run_id"]))
    assert shown is not None
    assert shown.earlier.usual_recurring_gap() == 20 * MINUTE


def test_what_a_removed_run_taught_changes_the_runs_of_its_spinner_on_the_page() -> None:
    project = Project()
    open_run, removed = project._new("Monthly", ""), project._new("Monthly", "")
    project._see(open_run | {"finished": 0})
    for finished in range(3):
        project._see(removed | {"finished": finished})
        project.clock.advance(MINUTE)
    watch = project.store.view.watch()
    watch.changed()
    project.store.drop_run("p1", removed["run_id"])
    assert {run_id for _, run_id in watch.changed()[0]} == {open_run["run_id"], removed["run_id"]}


def test_a_run_that_was_removed_and_had_never_changed_teaches_nothing() -> None:
    project = Project()
    fields = project._new("Monthly", "")
    project._see(fields | {"finished": 1})
    project.store.drop_run("p1", fields["run_id"])
    assert project.threshold() == UNKNOWN


def test_of_a_spinner_that_taught_nothing_nothing_is_kept() -> None:
    project = Project()
    project._see(
        project._new("Monthly", "")
        | {"finished": 0, "status": Status.CANCELLED, "started_at": None, "ended_at": project.clock()}
    )
    project.idle(60)
    assert project.names_in_file() == set()


def test_a_run_that_was_removed_before_its_end_teaches_new_spinners_too() -> None:
    project = Project()
    removed_before_its_end(project)
    assert project.threshold(spinner="New") == EARLIER_FACTOR * 20 * MINUTE


def test_a_run_that_returns_after_it_was_removed_teaches_once() -> None:
    project = Project()
    removed = removed_before_its_end(project)
    project.clock.advance(MINUTE)
    project._see(removed | {"finished": 5, "status": Status.COMPLETED, "ended_at": project.clock.now})
    shown = project.store.view.run(("p1", removed["run_id"]))
    assert shown is not None
    assert shown.earlier.runs == 1


def test_after_400_days_the_pace_is_forgotten_also_in_the_file() -> None:
    project = Project()
    project.teach()
    project.idle(399)
    assert project.names_in_file() == {"Monthly"}
    project.idle(3)
    assert project.names_in_file() == set()
    assert project.store.view.spinner(("p1", "Monthly")) is None


@pytest.mark.parametrize("days", [1, 60])
@pytest.mark.parametrize("restarts", [False, True])
def test_a_renamed_spinner_keeps_what_it_learned(days: float, *, restarts: bool) -> None:
    project = Project()
    project.teach(spinner="Old", spinner_id="s1")
    project.idle(days)
    if restarts:
        project.restart()
    assert project.threshold(spinner="New", spinner_id="s1") == KNOWN
    project.idle(60)
    if restarts:
        project.restart()
    assert project.threshold(spinner="Newest", spinner_id="s1") == KNOWN, "and when it is renamed once more"


def test_another_spinner_that_is_called_as_one_that_left_begins_anew() -> None:
    project = Project()
    project.teach(spinner="Mails", spinner_id="s1")
    project.teach(spinner="Others", spinner_id="s3", gap=1.0)
    project.idle(60)
    project.store.persistence.saved()
    assert project.store.view.spinner(("p1", "Mails")) is None
    fields = project._new("Mails", "s2")
    project._see(fields | {"finished": 0})
    shown = project.store.view.run(("p1", fields["run_id"]))
    assert shown is not None
    assert shown.earlier.runs == 0


def renamed_while_it_runs(project: Project) -> ShownRun:
    """Return a run of spinner Old that becomes one of spinner New when its first record has finished."""
    fields = project._new("Old", "")
    project._see(fields | {"finished": 0})
    project.clock.advance(1.0)
    project._see(fields | {"spinner": "New", "finished": 1})
    shown = project.store.view.run(("p1", fields["run_id"]))
    assert shown is not None
    return shown


@pytest.mark.parametrize("limits", [{}, {"spinners": 1}], ids=["", "without a slot for the new name"])
def test_the_spinner_of_a_run_that_is_renamed_while_it_runs_knows_what_the_old_name_did(limits: dict[str, int]) -> None:
    """Where the runtime has no ids of spinners."""
    project = Project(limits=limits)
    project.teach(spinner="Old")
    shown = renamed_while_it_runs(project)
    assert shown.run.snapshot.spinner == "New"
    assert shown.stall_threshold() == KNOWN
    project.restart()
    project._read()
    again = project.store.view.run(("p1", shown.run.id))
    assert again is not None
    assert again.earlier.runs == 1, "after a restart too"


@pytest.mark.parametrize("days", [0, 60])
def test_a_new_name_does_not_replace_what_a_spinner_of_that_name_knows(days: int) -> None:
    project = Project()
    project.teach(spinner="Old", gap=20 * MINUTE)
    project.teach(spinner="New")
    project.idle(days)
    shown = renamed_while_it_runs(project)
    assert shown.stall_threshold() == KNOWN


@pytest.mark.parametrize("limits", [{"spinners_per_project": 3}, {"spinners": 3}])
def test_no_more_paces_are_kept_than_there_may_be_spinners_and_names_that_ran_once_leave_first(
    limits: dict[str, int],
) -> None:
    project = Project(limits=limits, spinner_retention=DAY)
    for _ in range(2):
        project.teach()
    project.idle(3)
    for number in range(5, 0, -1):
        project.teach(spinner=f"Report {number}", gap=1.0)
        project.idle(3)
        project.restart()
        project.idle(1)
    assert project.names_in_file() == {"Monthly", "Report 2", "Report 1"}
    assert project.threshold() == KNOWN


def test_a_project_that_is_removed_makes_room() -> None:
    project = Project(limits={"spinners": 1}, spinner_retention=DAY, projects={"p1": "Sales", "p2": "Other"})
    project.teach()
    project.idle(3)
    slots = project.store._projects.slots
    assert slots.kept_paces == 1
    project.store.drop_project("p1")
    assert slots.kept_paces == 0


def test_a_spinner_that_lost_its_slot_still_knows_its_pace() -> None:
    project = Project()
    project.teach()
    project.store._projects["p1"].spinners.evict("Sales", 1, with_runs=True)
    fields = project._new("Monthly", "")
    project.store.config = msgspec.structs.replace(
        project.store.config, limits=msgspec.structs.replace(project.store.config.limits, spinners=1)
    )
    project.teach(spinner="Another", gap=1.0)
    project._see(fields | {"finished": 1})
    shown = project.store.view.run(("p1", fields["run_id"]))
    assert shown is not None
    assert shown.earlier.usual_recurring_gap() == 12 * MINUTE


def test_of_its_project_a_new_spinner_learns_from_runs_that_ended_before_the_first_read() -> None:
    threshold = after_history(ended_run(f"old-{number}", f"S{number}") for number in range(9))
    assert threshold is not None
    assert threshold < UNKNOWN, "nine runs without a stall are something"


@pytest.mark.parametrize("completes", [True, False])
def test_the_first_read_learns_once_from_a_run_that_two_lists_have(*, completes: bool) -> None:
    once = ended_run("old", "New")
    other = ended_run("older", "New")
    assert after_history([once, once], completes=completes) == after_history([once])
    assert after_history([once, other], completes=completes) != after_history([once]), "two runs are more than one"


def ended_run(run_id: str, spinner: str) -> RunSnapshot:
    ended = NOON - DAY
    times = {"created_at": ended - 60, "started_at": ended - 60, "last_progress_at": ended, "ended_at": ended}
    fields: dict[str, Any] = times | {"updated_at": ended, "status": Status.COMPLETED, "records": counts(1, total=1)}
    return snapshot(run_id=run_id, spinner=spinner, **fields)


def after_history(runs: Iterable[RunSnapshot], *, completes: bool = True) -> float | None:
    """The threshold of a run of the spinner New, after runs that ended long before the first read.

    Unless it `completes`, the first read is cut off after the first of them, and begins again.
    """
    project = Project()
    first, *others = ((run, run.updated_at) for run in runs)
    if not completes:
        with project.store.reading("p1") as read:
            read.apply([first[0]], first[1], horizon=NOON - DAY / 2)
    read_project(project.store, "p1", [first, *others], as_of=NOON, horizon=NOON - DAY / 2)
    return project.threshold(spinner="New", finished=2)


def test_of_its_project_a_new_spinner_learns_from_each_other_one_once() -> None:
    project = Project()
    project.teach(spinner="Slow", gap=15 * MINUTE)
    for _ in range(12):
        project.teach(spinner="Frequent", gap=1.0)
    slow = EARLIER_FACTOR * 15 * MINUTE
    assert project.threshold(spinner="New") == slow, "one that runs often does not replace the others"
    project.restart()
    project.idle(1)
    assert project.threshold(spinner="Newer") == slow


@pytest.mark.parametrize("restarts", [False, True])
def test_of_its_project_a_new_spinner_learns_from_those_that_learned_last(*, restarts: bool) -> None:
    project = Project()
    slow = ("Slow", "Slower")
    for name in slow + tuple(f"Quick {number}" for number in range(EARLIER_RUNS - 2)) + slow + ("Mails", "Calls"):
        project.teach(spinner=name, gap=15 * MINUTE if name in slow else 1.0)
    assert project.threshold(spinner="New") == EARLIER_FACTOR * 15 * MINUTE
    for number in range(EARLIER_RUNS):
        project.teach(spinner=f"Quicker {number}", gap=1.0)
    if restarts:
        project.restart()
    threshold = project.threshold(spinner="Newer")
    assert threshold is not None
    assert threshold < EARLIER_FACTOR * 15 * MINUTE, "what was long ago is forgotten"


def test_of_its_project_a_new_spinner_learns_from_as_many_as_a_spinner_from_its_runs() -> None:
    project = Project()
    slow = ("Slow", "Slower")
    for name in slow + tuple(f"Quick {number}" for number in range(EARLIER_RUNS - 2)):
        project.teach(spinner=name, gap=15 * MINUTE if name in slow else 1.0)
    assert project.threshold(spinner="New") == EARLIER_FACTOR * 15 * MINUTE
