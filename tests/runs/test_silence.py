"""Since when a run is silent: odd answers, outages and restarts without progress do not hide for ever that it is."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.runs.pace import AGAIN_LEAST, RunPace
from exporter.runs.run import Run, brings_progress
from exporter.runs.runtime_state import PAGED, Outage
from exporter.runs.store import Store
from exporter.runs.view import ShownRun
from exporter.runtime.model import Health, RecordCounts
from exporter.status import Status
from tests.builders import NOON, Clock, counts, read_project, runtime_config, snapshot, store

MINUTE, HOUR = 60.0, 3600.0
START = NOON


class Watched:
    """A store that reads one run which does not say when it last made progress."""

    def __init__(self) -> None:
        self.clock = Clock(NOON)
        self.store: Store = store(self.clock, sync={"stale_after": 1e9})
        self.finished = 0
        self.fields: dict[str, Any] = {"started_at": START, "created_at": START}

    def work(self, records: int, gap: float = 2 * MINUTE) -> None:
        """Finish records one by one, at the pace at which it has worked since its start."""
        for _ in range(records):
            self.clock.advance(gap)
            self.finished += 1
            self.see(0, updated_at=self.clock(), records=counts(self.finished, total=1000, running=1, pending=900))

    def see(self, after: float = 30.0, **fields: Any) -> None:
        """Read the run; what is not given is as before."""
        self.clock.advance(after)
        self.fields |= fields
        self.answer(self.fields)

    def glitch(self, **fields: Any) -> None:
        """Read one odd answer about the run."""
        self.clock.advance(30)
        self.answer(self.fields | fields)

    def answer(self, fields: Mapping[str, Any]) -> None:
        now = self.clock()
        read_project(self.store, "p1", [(snapshot(**fields), now)], as_of=now, horizon=START - HOUR)

    def health(self, *, up: bool) -> None:
        beat = self.clock() if up else None
        self.store.keep_health(Health(runtime_up=up, workers=1, last_heartbeat_at=beat))

    @property
    def shown(self) -> ShownRun:
        (shown,) = self.store.view.runs()
        return shown

    @property
    def stalls_at(self) -> float:
        """When it counts as stalled if nothing happens."""
        threshold = self.shown.stall_threshold()
        assert threshold is not None
        assert self.shown.run.last_progress_at is not None
        return self.shown.run.last_progress_at + threshold

    def is_stalled(self) -> bool:
        return self.clock() > self.stalls_at


def state(watched: Watched) -> tuple[Any, ...]:
    shown = watched.shown
    pace = shown.pace
    return shown.run.last_progress_at, pace.quiet_since(), shown.stall_threshold(), pace.longest_gap, pace.interval()


ODD: dict[str, dict[str, Any]] = {
    "no start": {"started_at": None},
    "no counts": {"records": None},
    "no completed count": {"records": RecordCounts(total=1000, running=1, failed=0)},
    "no start and no counts": {"started_at": None, "records": None},
    "a server that lags behind": {
        "records": counts(19, total=1000, running=1, pending=901),
        "updated_at": NOON + 38 * MINUTE,
    },
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
@pytest.mark.parametrize("times", [1, 3])
def test_an_odd_answer_between_two_equal_ones_changes_neither_the_silence_nor_the_threshold(
    odd: dict[str, Any], times: int
) -> None:
    watched = Watched()
    watched.work(20)
    watched.see(4 * MINUTE, updated_at=watched.clock() + 4 * MINUTE)
    before = state(watched)
    for _ in range(times):
        watched.glitch(**odd)
        watched.see()
    assert state(watched) == before
    watched.see(2 * HOUR)
    assert watched.is_stalled(), "it has hung since the last record"


@given(st.lists(st.sampled_from([*ODD]), max_size=6))
def test_odd_answers_in_any_order_change_nothing(kinds: list[str]) -> None:
    watched = Watched()
    watched.work(20)
    watched.see()
    before = state(watched)
    for kind in kinds:
        watched.glitch(**ODD[kind])
    watched.see()
    assert state(watched) == before


def test_what_is_not_known_in_an_answer_is_not_shown() -> None:
    watched = Watched()
    watched.work(20)
    watched.glitch(records=None)
    assert watched.shown.run.last_progress_at is None
    assert watched.shown.stall_threshold() is None


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_progress_after_an_odd_answer_is_progress(odd: dict[str, Any]) -> None:
    watched = Watched()
    watched.work(20)
    watched.glitch(**odd)
    watched.work(1)
    assert watched.shown.run.last_progress_at == watched.clock()
    assert watched.shown.pace.quiet_since() == watched.clock()


def test_records_that_finish_around_an_answer_without_counts_are_all_counted() -> None:
    watched = Watched()
    watched.work(20)
    watched.glitch(records=None)
    watched.finished += 9
    watched.work(1, gap=10 * MINUTE)
    assert watched.shown.pace.longest_gap < 5 * MINUTE, "ten records in ten minutes"


def test_a_run_whose_failed_records_are_tried_again_makes_progress_with_the_next_record() -> None:
    watched = Watched()
    watched.work(20)
    last = watched.shown.run.last_progress_at
    watched.see(updated_at=watched.clock() + 30, records=counts(15, total=1000, running=5, pending=900))
    assert watched.shown.run.last_progress_at == last, "no record finished"
    watched.see(updated_at=watched.clock() + 30, records=counts(16, total=1000, running=4, pending=900))
    assert watched.shown.run.last_progress_at == watched.clock()


def test_fewer_records_than_the_last_answer_had_are_no_progress_when_that_happens_again() -> None:
    watched = Watched()
    watched.work(20)
    for _ in range(2):
        watched.glitch(records=counts(watched.finished - 1, total=1000, running=1, pending=901))
        watched.work(1)
        before = state(watched)
        watched.glitch(records=counts(watched.finished - 1, total=1000, running=1, pending=901))
        watched.see()
        assert state(watched) == before


def test_a_record_that_finishes_without_another_time_after_an_answer_with_fewer_is_progress() -> None:
    watched = Watched()
    watched.work(20)
    watched.glitch(records=counts(19, total=1000, running=1, pending=901))
    watched.see(records=counts(21, total=1000, running=1, pending=900))
    assert watched.shown.run.last_progress_at == watched.clock()


def test_a_run_that_starts_anew_with_fewer_records_makes_progress_at_its_new_start() -> None:
    watched = Watched()
    watched.work(20)
    again = watched.clock() + 10
    watched.see(started_at=again, updated_at=again, records=counts(0, total=1000, running=1))
    assert watched.shown.run.last_progress_at == again


@pytest.mark.parametrize("down", [20.0, 60.0, 110.0])
def test_outages_that_return_every_few_minutes_do_not_hide_a_stall(down: float) -> None:
    """A worker service that fails at the same record over and over: SpinnerRuntimeDown needs two minutes."""
    watched = Watched()
    watched.work(20)
    page = watched.shown.stall_threshold()
    assert page is not None
    since = watched.clock()
    while watched.clock() < since + 2 * page + PAGED:
        watched.health(up=False)
        watched.see(down)
        watched.health(up=True)
        watched.see(4 * MINUTE - down)
    assert watched.is_stalled(), "it has been silent for more than twice its threshold"


def test_a_worker_service_that_is_up_excuses_no_silence() -> None:
    watched = Watched()
    watched.work(20)
    stalls_at = watched.stalls_at
    for _ in range(3):
        watched.health(up=True)
        watched.see()
        assert watched.stalls_at == stalls_at


def test_a_run_gets_its_whole_threshold_again_after_a_short_outage() -> None:
    """A worker that was restarted begins its record anew."""
    watched = Watched()
    watched.work(20)
    page = watched.shown.stall_threshold()
    assert page is not None
    watched.see(page - MINUTE)
    watched.health(up=False)
    watched.see(MINUTE)
    watched.health(up=True)
    assert watched.stalls_at == watched.clock() + page


def test_a_run_gets_its_whole_threshold_again_after_each_outage_that_paged() -> None:
    watched = Watched()
    watched.work(20)
    page = watched.shown.stall_threshold()
    assert page is not None
    for _ in range(5):
        watched.health(up=False)
        watched.see(PAGED)
        watched.health(up=True)
        assert watched.stalls_at == watched.clock() + page
        watched.see(page - MINUTE)


TIMEOUT = runtime_config().heartbeat_timeout


@pytest.mark.parametrize(
    ("health", "is_down"),
    [
        (Health(runtime_up=True, last_heartbeat_at=NOON - TIMEOUT), False),
        (Health(runtime_up=True, last_heartbeat_at=NOON - TIMEOUT - 1), True),
        (Health(runtime_up=True), True),
        (Health(runtime_up=False, last_heartbeat_at=NOON), True),
        (Health(runtime_up=True, beats=False), False),
        (Health(runtime_up=True, last_heartbeat_at=NOON - TIMEOUT - 1, beats=False), False),
        (Health(runtime_up=False, beats=False), True),
    ],
)
def test_a_worker_service_is_down_that_says_so_or_is_silent_although_its_api_reports_heartbeats(
    health: Health, is_down: bool
) -> None:
    watched = Watched()
    watched.see(0)
    watched.store.keep_health(health)
    assert watched.shown.outage.is_down == is_down


def test_a_heartbeat_from_the_future_is_as_old_as_it_has_been_known() -> None:
    watched = Watched()
    for beat, after, shown in (
        (NOON + 30, 0, NOON + 30),
        (NOON + 7200, 0, NOON),
        (NOON + 7200, 40, NOON),
        (NOON + 7201, 0, NOON + 40),
        (NOON + 7201, 10, NOON + 40),
        (NOON + 45, 0, NOON + 45),
    ):
        watched.clock.advance(after)
        watched.store.keep_health(Health(runtime_up=True, last_heartbeat_at=beat))
        assert watched.store.view.health is not None
        assert watched.store.view.health.last_heartbeat_at == shown


def test_an_outage_of_five_minutes_has_paged_and_shorter_ones_excuse_a_silence_once() -> None:
    down = Outage(is_down=True, began_at=1000.0, paged_until=20.0)
    assert down.ended(1299.0) == Outage(excused_until=1299.0, began_at=1000.0, paged_until=20.0)
    assert down.ended(1300.0) == Outage(excused_until=1300.0, began_at=1000.0, paged_until=1300.0)
    short = down.ended(1299.0)
    assert [short.silent_since(since, page=600.0) for since in (0.0, 398.0, 400.0, 1400.0)] == [920, 1298, 1299, 1400]
    assert down.ended(1300.0).silent_since(0.0, page=600.0) == 1300


def test_no_outage_ended_later_than_now_after_the_clock_was_set_back() -> None:
    watched = Watched()
    watched.work(20)
    watched.health(up=False)
    watched.see(PAGED)
    watched.health(up=True)
    watched.store.expire()
    watched.health(up=False)
    for _ in range(5):
        watched.store.clock.observe(watched.clock() - HOUR)
    now = watched.clock() - HOUR
    watched.store.expire()
    assert watched.shown.outage == Outage(is_down=True, excused_until=now, began_at=now, paged_until=now)


def queue(watched: Watched, *, after: float) -> None:
    watched.see(after, status=Status.QUEUED, started_at=None, updated_at=watched.clock() + after)


def start(watched: Watched, *, after: float) -> None:
    at = watched.clock() + after
    watched.see(after, status=Status.RUNNING, started_at=at, updated_at=at)


@pytest.mark.parametrize("is_queued", [True, False])
def test_a_run_that_is_started_again_and_again_without_progress_pages(*, is_queued: bool) -> None:
    """What executes it fails each time; it is never silent for long."""
    watched = Watched()
    watched.see(records=counts(0, total=1000, running=1), updated_at=watched.clock(), started_at=watched.clock())
    page = watched.shown.stall_threshold()
    assert page is not None
    silent = 30.0
    while silent < 2 * page:
        if is_queued:
            queue(watched, after=5 * MINUTE)
        start(watched, after=HOUR if is_queued else 5 * MINUTE)
        silent += 5 * MINUTE
        assert watched.stalls_at - watched.clock() == pytest.approx(
            page if silent <= page else max(2 * page - silent, AGAIN_LEAST)
        ), f"after {silent:.0f} s of work without a record; the time in the queue does not count"
    assert watched.shown.expectation is not None
    assert watched.shown.expectation.basis == "started again"
    start(watched, after=2)
    watched.see(2)
    assert watched.is_stalled(), "however often it is started from now on"


def test_a_record_that_finishes_after_starts_without_progress_ends_that() -> None:
    watched = Watched()
    watched.see(records=counts(0, total=1000, running=1), updated_at=watched.clock(), started_at=watched.clock())
    for _ in range(8):
        start(watched, after=5 * MINUTE)
    watched.work(1)
    assert watched.shown.expectation is not None
    assert watched.shown.expectation.basis != "started again"


def test_a_person_who_answers_ends_that_too() -> None:
    watched = Watched()
    watched.see(records=counts(0, total=1000, running=1), updated_at=watched.clock(), started_at=watched.clock())
    for _ in range(8):
        start(watched, after=5 * MINUTE)
    watched.see(status=Status.WAITING, updated_at=watched.clock() + 30)
    watched.see(status=Status.RUNNING, updated_at=watched.clock() + 30)
    assert watched.shown.expectation is not None
    assert watched.shown.expectation.basis != "started again"


def test_the_end_of_a_child_whose_clock_is_ahead_excuses_its_parent_until_now() -> None:
    clock = Clock(NOON)
    made = store(clock, sync={"stale_after": 1e9})
    parent = snapshot("parent", records=counts(5, total=10, running=1))
    child = snapshot("child", Status.COMPLETED, parent_id="parent", ended_at=NOON + 2 * HOUR)
    clock.advance(100)
    read_project(made, "p1", [(parent, clock()), (child, clock())], as_of=clock(), horizon=START)
    assert made._projects["p1"].open["parent"].pace.quiet_since() == clock()


@pytest.mark.parametrize("told", ["counts", "no counts"])
@pytest.mark.parametrize("gap", [30.0, 5 * MINUTE])
def test_a_parent_whose_children_fail_one_after_the_other_pages_after_twice_its_threshold(
    *, told: str, gap: float
) -> None:
    watched = Watched()
    watched.work(20)
    quiet_since, page = watched.clock(), 10 * MINUTE
    for number in range(round(40 * MINUTE / gap)):
        watched.clock.advance(gap)
        now = watched.clock()
        fields: dict[str, Any] = {"parent_id": "run-1", "created_at": now - gap / 2, "updated_at": now}
        fields |= {"started_at": now - gap / 2, "records": counts(0, 1) if told == "counts" else None}
        child = snapshot(f"child-{number}", Status.FAILED, **fields, ended_at=now)
        read_project(watched.store, "p1", [(child, now)], as_of=now, horizon=START)
        shown = next(each for each in watched.store.view.runs() if each.run.id == "run-1")
        assert shown.expectation is not None
        assert shown.expectation.page == pytest.approx(page + min(now - quiet_since, page))
        assert shown.expectation.basis == "child runs"


@pytest.mark.parametrize(
    ("fields", "is_progress"),
    [
        ({"status": Status.RUNNING, "records": counts(0, 0)}, False),
        ({"status": Status.RUNNING, "records": counts(0, 3)}, False),
        ({"status": Status.RUNNING, "records": counts(1, 3)}, True),
        ({"status": Status.FAILED, "records": counts(1, 3)}, True),
        ({"status": Status.FAILED, "records": counts(0, 3)}, False),
        ({"status": Status.CANCELLED, "records": None, "last_progress_at": NOON + 30}, False),
        ({"status": Status.COMPLETED, "records": counts(0, 3)}, True),
        ({"status": Status.COMPLETED, "records": None}, True),
        ({"status": Status.RUNNING, "records": None, "last_progress_at": NOON + 5}, False),
        ({"status": Status.RUNNING, "records": None, "last_progress_at": NOON + 30}, True),
        ({"status": Status.QUEUED, "records": None}, False),
    ],
)
def test_a_child_is_progress_for_its_parent_if_a_record_of_it_is_completed(
    fields: dict[str, Any], *, is_progress: bool
) -> None:
    assert brings_progress(snapshot("child", **fields)) is is_progress


def test_children_that_fail_extend_the_threshold_from_the_last_progress_and_not_from_each_other() -> None:
    pace = RunPace(_quiet_since=100.0)
    assert pace.excuse_until(200.0, is_progress=False)
    assert not pace.excuse_until(200.0, is_progress=False)
    assert not pace.excuse_until(50.0, is_progress=False)
    assert pace.quiet_since() == 100
    assert pace.excuse_until(300.0, is_progress=True)
    assert not pace.excuse_until(250.0, is_progress=False), "before the last progress"
    assert pace.excuse_until(400.0, is_progress=False)
    pace.not_ahead_of(350.0)
    assert not pace.excuse_until(350.0, is_progress=False)


def test_what_was_reached_survives_a_clock_that_is_set_back() -> None:
    run = Run.first(snapshot(records=counts(5), updated_at=NOON + 60), NOON + 100)
    unknown = run.fold(snapshot(records=None, updated_at=NOON + 60), NOON + 130)
    again = unknown.fold(snapshot(records=counts(5), updated_at=NOON + 60), NOON - HOUR)
    assert again.last_progress_at == NOON - HOUR, "no progress is yet to come"


def test_a_start_that_is_yet_to_come_is_as_old_as_it_has_been_known() -> None:
    ahead: dict[str, Any] = {"started_at": NOON + 2 * HOUR, "records": counts(0)}
    run = Run.first(snapshot(updated_at=NOON + 60, **ahead), NOON + 100)
    for minute in range(2, 20):
        run = run.fold(snapshot(updated_at=NOON + minute * MINUTE, **ahead), NOON + minute * MINUTE + 40)
    assert run.last_progress_at == NOON + 100
    ahead["started_at"] += HOUR
    assert run.fold(snapshot(updated_at=NOON + HOUR, **ahead), NOON + HOUR).last_progress_at == NOON + HOUR
