"""What a watch reports: each change once, and everything of a project that becomes stale or fresh."""

from exporter.runs.activity import Activity
from exporter.runs.listed_records import RecordKind
from exporter.runs.store import Store
from exporter.runtime.model import Health, Meter, OpenRecord
from exporter.status import Status
from tests.builders import NOON, Clock, counts, read_project, snapshot, store


def test_a_change_is_reported_to_each_watch_once() -> None:
    clock = Clock(NOON + 60)
    held = store(clock)
    read_project(held, "p1", [(snapshot("a"), clock()), (snapshot("b"), clock())], as_of=clock(), horizon=NOON - 60)
    first, second = held.view.watch(), held.view.watch()
    everything = ([("p1", "a"), ("p1", "b")], [("p1", "welcome")])
    assert [sorted(keys) for keys in first.changed()] == list(everything)
    assert first.changed() == ([], [])
    ended = snapshot("a", Status.COMPLETED, updated_at=NOON + 61, ended_at=NOON + 61)
    read_project(held, "p1", [(ended, clock())], as_of=clock(), horizon=NOON - 60)
    assert first.changed() == ([("p1", "a")], [("p1", "welcome")])
    assert [sorted(keys) for keys in second.changed()] == list(everything)
    assert first.changed() == second.changed() == ([], [])


def test_everything_of_a_project_is_reported_once_when_it_becomes_stale_and_once_when_it_is_fresh_again() -> None:
    clock = Clock(NOON + 60)
    held = store(clock, projects={"p1": "Sales", "p2": "Support"}, sync={"stale_after": 300})

    def read(project_id: str) -> None:
        runs = [(snapshot("a", project_id=project_id), NOON)]
        read_project(held, project_id, runs, as_of=clock(), horizon=NOON - 60)

    read("p1")
    read("p2")
    watch = held.view.watch()
    watch.changed()
    clock.advance(299)
    read("p2")
    assert watch.changed() == ([], [])
    clock.advance(2)
    assert watch.changed() == ([("p1", "a")], [("p1", "welcome")]), "p1 is stale, p2 is not"
    assert watch.changed() == ([], [])
    read("p1")
    assert watch.changed() == ([("p1", "a")], [("p1", "welcome")])
    assert watch.changed() == ([], [])


def test_everything_of_a_project_is_reported_once_when_it_seems_to_be_gone_and_once_when_it_returns() -> None:
    clock = Clock(NOON + 60)
    held = store(clock, sync={"stale_after": 300})

    def read() -> None:
        read_project(held, "p1", [(snapshot("a"), clock())], as_of=clock(), horizon=NOON - 60)

    read()
    watch = held.view.watch()
    watch.changed()
    for is_gone in (True, False, True):
        held.withdraw("p1", is_gone=is_gone)
        assert watch.changed() == ([("p1", "a")], [("p1", "welcome")])
        assert watch.changed() == ([], [])
        assert len(list(held.view.runs())) == len(list(held.view.spinners())) == int(not is_gone)
        assert len(held.view.projects_up()) == len(list(held.view.projects())) == int(not is_gone)
    read()
    assert watch.changed() == ([("p1", "a")], [("p1", "welcome")])
    assert len(list(held.view.runs())) == len(held.view.projects_up()) == 1, "a good read shows it again"
    clock.advance(301)
    watch.changed()
    held.withdraw("p1")
    assert watch.changed()[1] == [("p1", "welcome")], "its counters are shown while it is stale"


def test_a_read_is_recent_enough_until_stale_after_is_over() -> None:
    clock = Clock(NOON + 60)
    held = store(clock, sync={"stale_after": 300})
    read_project(held, "p1", [(snapshot("a"), clock())], as_of=clock(), horizon=NOON - 60)
    held.keep_health(Health(runtime_up=True, workers=2))
    held.keep_meters((Meter("jobs_month", 1, 10, None),))
    watch = held.view.watch()
    watch.changed()
    for seconds, is_fresh in ((300, True), (1, False)):
        clock.advance(seconds)
        assert held.view.projects_up() == [(("Sales",), float(is_fresh))]
        assert len(list(held.view.runs())) == len(held.view.meters) == int(is_fresh)
        assert (held.view.run(("p1", "a")) is not None) == (held.view.health is not None) == is_fresh
        assert (watch.changed() == ([], [])) == is_fresh


def test_what_a_spinner_learned_changes_its_open_runs_once() -> None:
    clock = Clock(NOON + 60)
    held = store(clock)
    runs = [*(snapshot(run_id) for run_id in "abcd"), snapshot("new", spinner="new"), snapshot("x", spinner="x")]
    read_project(held, "p1", [(run, clock()) for run in runs], as_of=clock(), horizon=NOON - 60)
    watch = held.view.watch()
    watch.changed()
    for number, (run_id, others) in enumerate((("x", "abcd"), ("a", "bcd"), ("b", "cd"), ("c", "d"))):
        read_end(held, clock, run_id, number, spinner="x" if run_id == "x" else "welcome")
        assert {run_id for _, run_id in watch.changed()[0]} == {run_id, *others, "new"}
        assert watch.changed() == ([], [])
    read_end(held, clock, "d", 0)
    assert watch.changed()[0] == [("p1", "d")], "one more run tells new spinners little"


def read_end(held: Store, clock: Clock, run_id: str, number: int, spinner: str = "welcome") -> None:
    at = NOON + 61 + number
    ended = snapshot(run_id, Status.COMPLETED, updated_at=at, ended_at=NOON + 61, records=counts(9), spinner=spinner)
    read_project(held, "p1", [(ended, clock())], as_of=clock(), horizon=NOON - 60)


def test_a_new_spinner_changes_again_when_its_counts_are_shown_instead_of_zeros() -> None:
    clock = Clock(NOON + 60)
    held = store(clock)
    read_project(held, "p1", [], as_of=clock(), horizon=NOON - 60)
    watch = held.view.watch()
    watch.changed()
    changed = []
    for runs in ([(snapshot("a"), clock())], [], []):
        read_project(held, "p1", runs, as_of=clock(), horizon=NOON - 60)
        changed.append(watch.changed()[1])
    assert changed == [[("p1", "welcome")], [("p1", "welcome")], []]


def test_the_end_of_an_outage_changes_the_open_runs_whose_thresholds_it_excuses() -> None:
    clock = Clock(NOON + 60)
    held = store(clock)
    runs = [snapshot("open"), snapshot("ended", Status.COMPLETED)]
    read_project(held, "p1", [(run, clock()) for run in runs], as_of=clock(), horizon=NOON - 60)
    watch = held.view.watch()
    watch.changed()
    for health, changed in (
        (Health(runtime_up=False, beats=False), []),
        (Health(runtime_up=True, beats=False), [("p1", "open")]),
        (Health(runtime_up=True, beats=False), []),
        # Without heartbeats it is not known whether a silent run may only pause.
        (Health(runtime_up=True, last_heartbeat_at=NOON + 60), [("p1", "open")]),
        (Health(runtime_up=True, last_heartbeat_at=NOON + 60), []),
        (Health(runtime_up=True, beats=False), [("p1", "open")]),
    ):
        held.keep_health(health)
        assert watch.changed()[0] == changed


def test_what_records_show_of_a_run_changes_it_once() -> None:
    clock = Clock(NOON + 60)
    held = store(clock)
    read_project(held, "p1", [(snapshot("a"), clock())], as_of=clock(), horizon=NOON - 60)
    watch, key = held.view.watch(), ("p1", "a")
    watch.changed()
    record = OpenRecord("r1", "Call", None, NOON, NOON)
    kinds: tuple[RecordKind, ...] = ("in flight", "waiting")
    for is_working in (True, False):
        for changed in ([key], []):
            held.keep_activity(key, Activity(NOON, NOON, is_working))
            assert watch.changed()[0] == changed
    for kind in kinds:
        for changed in ([key], []):
            held.keep_listed(kind, key, [record], is_whole=True)
            assert watch.changed()[0] == changed
        for changed in ([key], []):
            held.forget_listed(kind, key)
            assert watch.changed()[0] == changed


def test_a_clock_that_is_set_back_changes_the_open_runs_whose_progress_would_be_yet_to_come() -> None:
    clock = Clock(NOON + 60)
    held = store(clock, sync={"stale_after": 1e9})
    early, late = (snapshot(run_id, last_progress_at=NOON + at) for run_id, at in (("early", 10), ("late", 50)))
    read_project(held, "p1", [(early, clock()), (late, clock())], as_of=clock(), horizon=NOON - 60)
    held.expire()
    watch = held.view.watch()
    watch.changed()
    for _ in range(5):
        held.clock.observe(NOON + 20)
    for changed in ([("p1", "late")], []):
        held.expire()
        assert watch.changed()[0] == changed
    assert {shown.run.id: shown.run.last_progress_at for shown in held.view.runs()} == {
        "early": NOON + 10,
        "late": NOON + 20,
    }


def test_progress_of_a_child_changes_its_parent_once() -> None:
    clock = Clock(NOON + 60)
    held = store(clock)
    parent = snapshot("parent", records=counts(1, running=1))
    runs = [parent, snapshot("child", parent_id="parent", records=counts(1))]
    read_project(held, "p1", [(run, clock()) for run in runs], as_of=clock(), horizon=NOON - 60)
    watch = held.view.watch()
    watch.changed()
    for finished, changed in ((2, ["child", "parent"]), (2, []), (3, ["child", "parent"])):
        clock.advance(10)
        moved = snapshot("child", parent_id="parent", records=counts(finished), updated_at=NOON + 70 + finished)
        read_project(held, "p1", [(moved, clock())], as_of=clock(), horizon=NOON - 60)
        assert sorted(run_id for _, run_id in watch.changed()[0]) == changed


def test_what_was_removed_is_reported_too() -> None:
    clock = Clock(NOON + 60)
    held = store(clock)
    runs = [(snapshot("a"), clock()), (snapshot("c"), clock())]
    read_project(held, "p1", runs, as_of=clock(), horizon=NOON - 60)
    watch = held.view.watch()
    watch.changed()
    for run_id in "ac":
        held.drop_run("p1", run_id)
        assert watch.changed() == ([("p1", run_id)], [("p1", "welcome")])
    read_project(held, "p1", [(snapshot("b"), clock())], as_of=clock(), horizon=NOON - 60)
    watch.changed()
    held.drop_project("p1")
    assert watch.changed() == ([("p1", "b")], [("p1", "welcome")])


def test_why_a_project_was_not_read_is_noted_unless_another_reason_is_known() -> None:
    clock = Clock(NOON + 60)
    held = store(clock, projects={"p1": "Sales", "p2": "Support", "p3": "Fresh"})
    held.fail("p1", "HTTP 500")
    started = clock()
    clock.advance(1)
    read_project(held, "p3", [], as_of=clock(), horizon=NOON - 60)
    held.fail_unread_since(started, "not finished within 300 s")
    assert [project.error for project in held.view.projects()] == ["HTTP 500", "not finished within 300 s", None]


def test_a_run_that_is_hidden_or_stale_is_shown_as_little_as_one_that_is_not_known() -> None:
    clock = Clock(NOON + 60)
    held = store(clock, projects={"p1": "Sales", "p2": "Support"}, limits={"runs": 1}, sync={"stale_after": 300})
    runs = [(snapshot("hidden", created_at=NOON - 9), clock()), (snapshot("shown"), clock())]
    read_project(held, "p1", runs, as_of=clock(), horizon=NOON - 60)
    held.expire()
    keys = [("p1", "shown"), ("p1", "hidden"), ("p1", "unknown"), ("p2", "shown"), ("p3", "shown")]
    for are_shown in ([True, False, False, False, False], [False] * 5):
        assert [held.view.run(key) is not None for key in keys] == are_shown
        clock.advance(301)


def test_when_a_run_ended_is_known_of_runs_that_ended_only() -> None:
    clock = Clock(NOON + 60)
    held = store(clock)
    ended = snapshot("ended", Status.COMPLETED, updated_at=NOON + 30, ended_at=NOON + 30)
    read_project(held, "p1", [(snapshot("open"), clock()), (ended, clock())], as_of=clock(), horizon=NOON - 60)
    assert held.view.ended_at(("p1", "ended")) == NOON + 30
    for unknown in (("p1", "open"), ("p1", "other"), ("p2", "ended")):
        assert held.view.ended_at(unknown) is None
