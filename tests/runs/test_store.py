"""The store: each run is counted once and leaves for one of four reasons, and no dropped run returns."""

import asyncio
import contextlib
import math
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from exporter.config import LimitsConfig
from exporter.runs import limits
from exporter.runs.activity import Activity
from exporter.runs.clock import RuntimeClock
from exporter.runs.listed_records import RecordKind
from exporter.runs.project import ProjectMetadata
from exporter.runs.spinner import TrackedRun
from exporter.runs.store import Store
from exporter.runs.view import ShownSpinner
from exporter.runtime.model import FailedRecord, OpenRecord, RunSnapshot
from exporter.status import Status
from tests.builders import NOON, Clock, config_with, counts, read_project, snapshot, store

LONG_AGO = NOON - 3600


def commit(
    target: Store, *snapshots: RunSnapshot, horizon: float = LONG_AGO, seen_at: float = NOON + 60, project: str = "p1"
) -> None:
    read_project(target, project, [(each, seen_at) for each in snapshots], as_of=seen_at, horizon=horizon)
    target.expire()


def shown_ids(target: Store) -> list[str]:
    return [shown.run.id for shown in target.view.runs()]


def tally_of(target: Store, spinner: str = "welcome") -> ShownSpinner:
    return next(shown for shown in target.view.spinners() if shown.spinner == spinner)


def finished(target: Store) -> int:
    return sum(tally_of(target).counters.finished.values())


# -- counting -----------------------------------------------------------------------------------------------


def test_a_run_that_ends_between_scrapes_is_counted_once() -> None:
    held = store(Clock(NOON + 60))
    commit(held, snapshot(status=Status.COMPLETED, records=counts(9, failed=1)))
    commit(held, snapshot(status=Status.COMPLETED, records=counts(9, failed=1), updated_at=NOON + 70))
    counters = tally_of(held).counters
    assert (counters.started, counters.finished[Status.COMPLETED]) == (1, 1)
    assert (counters.completed_records, counters.failed_records) == (9, 1)
    assert sum(counters.durations.counts) == sum(counters.queue_times.counts) == 1


@pytest.mark.parametrize(
    ("change", "counted"),
    [
        ({"started_at": NOON + 6, "records": counts(6)}, 6),
        ({"started_at": NOON + 5, "records": counts(2)}, 5),
        ({"started_at": NOON + 6, "records": counts(2)}, 5 + 2),
    ],
    ids=["another start", "lower counts", "both: a restart"],
)
def test_only_the_records_of_a_restarted_run_are_counted_again(change: dict[str, Any], counted: int) -> None:
    held = store(Clock(NOON + 60))
    commit(held, snapshot(records=counts(5)))
    commit(held, snapshot(updated_at=NOON + 70, **change))
    assert tally_of(held).counters.completed_records == counted


def test_a_start_that_is_corrected_is_no_restart() -> None:
    held = store(Clock(NOON + 60))
    commit(held, snapshot(records=counts(5, failed=2)))
    commit(held, snapshot(records=counts(5, failed=2), started_at=NOON + 6, updated_at=NOON + 70))
    counters = tally_of(held).counters
    assert (counters.completed_records, counters.failed_records) == (5, 2)


def test_a_spinner_whose_runs_are_queued_has_neither_a_last_start_nor_a_last_success() -> None:
    held = store(Clock(NOON + 60))
    commit(held, snapshot(status=Status.QUEUED))
    counters = tally_of(held).counters
    assert (counters.last_start_at, counters.last_success_at) == (None, None)


def test_a_run_that_ends_with_an_unknown_status_is_counted_once_its_status_is_known() -> None:
    held = store(Clock(NOON + 60))
    over = snapshot(status=Status.UNKNOWN, ended_at=NOON + 50, records=counts(10))
    commit(held, over)
    counters = tally_of(held).counters
    assert (counters.started, finished(held), sum(counters.durations.counts)) == (1, 0, 0)
    commit(held, msgspec.structs.replace(over, status=Status.COMPLETED, updated_at=NOON + 61))
    assert (counters.started, finished(held), sum(counters.durations.counts)) == (1, 1, 1)
    assert counters.last_success_at == NOON + 50


def test_the_same_run_on_two_pages_is_counted_once() -> None:
    held = store(Clock(NOON + 60))
    commit(
        held, snapshot(records=counts(3)), snapshot(status=Status.COMPLETED, records=counts(10), updated_at=NOON + 61)
    )
    assert finished(held) == 1
    assert tally_of(held).counters.completed_records == 10


def test_a_queued_run_has_not_started_and_a_cancelled_one_never_did() -> None:
    held = store(Clock(NOON + 60))
    commit(held, snapshot(status=Status.QUEUED))
    commit(held, snapshot(status=Status.CANCELLED, started_at=None, updated_at=NOON + 61))
    counters = tally_of(held).counters
    assert counters.started == 0
    assert counters.finished[Status.CANCELLED] == 1
    assert sum(counters.durations.counts) == 0


def test_records_of_a_restarted_run_are_counted_again_and_the_run_is_not() -> None:
    held = store(Clock(NOON + 60))
    commit(held, snapshot(records=counts(8)))
    commit(held, snapshot(records=counts(2), started_at=NOON + 70, updated_at=NOON + 80))
    counters = tally_of(held).counters
    assert counters.started == 1
    assert counters.completed_records == 10


def test_records_of_ended_runs_are_counted_at_the_end_of_their_run_and_with_its_duration() -> None:
    """Divided by each other they say how long a record takes, whatever is running meanwhile."""
    held = store(Clock(NOON + 60))
    commit(held, snapshot("job_1", records=counts(9, failed=1)), snapshot("job_2", records=counts(3000)))
    assert tally_of(held).counters.finished_records == 0
    commit(held, snapshot("job_1", status=Status.COMPLETED, records=counts(18, failed=2), updated_at=NOON + 70))
    counters = tally_of(held).counters
    assert (counters.finished_records, sum(counters.durations.counts)) == (20, 1)


def test_records_that_are_told_after_the_end_of_their_run_count_as_those_of_an_ended_run() -> None:
    held = store(Clock(NOON + 60))
    commit(held, snapshot(status=Status.COMPLETED, records=counts(8)))
    commit(held, snapshot(status=Status.COMPLETED, records=counts(10), updated_at=NOON + 70))
    assert tally_of(held).counters.finished_records == 10


def test_of_an_ended_run_that_tells_no_completed_records_what_it_told_before_counts() -> None:
    """Whatever other runs tell in the same read."""
    held = store(Clock(NOON + 60))
    untold = counts(None, failed=1)
    commit(held, snapshot("other", records=counts(3)), snapshot(records=counts(7)))
    commit(
        held,
        snapshot("other", records=counts(4), updated_at=NOON + 70),
        snapshot("never", status=Status.COMPLETED, records=untold, updated_at=NOON + 70),
    )
    assert tally_of(held).counters.finished_records == 0
    commit(held, snapshot(status=Status.COMPLETED, records=None, updated_at=NOON + 70))
    assert tally_of(held).counters.finished_records == 7


def test_records_of_a_run_that_was_never_started_have_no_duration_and_do_not_count() -> None:
    held = store(Clock(NOON + 60))
    commit(held, snapshot(status=Status.CANCELLED, started_at=None, records=counts(0, failed=5)))
    assert (tally_of(held).counters.failed_records, tally_of(held).counters.finished_records) == (5, 0)


def test_a_count_that_is_corrected_downwards_is_not_counted_twice() -> None:
    held = store(Clock(NOON + 60))
    commit(held, snapshot(records=counts(5, failed=3)))
    commit(held, snapshot(records=counts(6, failed=2), updated_at=NOON + 70))
    commit(held, snapshot(records=counts(7, failed=3), updated_at=NOON + 80))
    counters = tally_of(held).counters
    assert (counters.completed_records, counters.failed_records) == (7, 3)


def test_only_a_completed_run_is_a_success() -> None:
    held = store(Clock(NOON + 600))
    commit(held, snapshot("failed", status=Status.FAILED), snapshot("stopped", status=Status.CANCELLED))
    assert tally_of(held).counters.last_success_at is None
    commit(held, snapshot("done", status=Status.COMPLETED, ended_at=NOON + 70))
    commit(held, snapshot("failed-later", status=Status.FAILED, ended_at=NOON + 500))
    assert tally_of(held).counters.last_success_at == NOON + 70


def test_the_last_success_and_the_last_start_are_the_newest_whatever_the_order() -> None:
    held = store(Clock(NOON + 600))
    for number in (3, 9, 6):
        at = NOON + number
        commit(held, snapshot(f"r{number}", status=Status.COMPLETED, started_at=at, ended_at=at + 1))
    counters = tally_of(held).counters
    assert (counters.last_start_at, counters.last_success_at) == (NOON + 9, NOON + 10)


@pytest.mark.parametrize(
    "uninteresting",
    [
        snapshot("counted"),
        snapshot("too-old", status=Status.COMPLETED, ended_at=LONG_AGO - 1),
        snapshot("dropped", status=Status.COMPLETED),
    ],
    ids=["counted-before", "ended-before-the-horizon", "dropped-before"],
)
def test_the_runs_after_one_that_brings_nothing_new_are_counted(uninteresting: RunSnapshot) -> None:
    held = store(Clock(NOON + 60))
    commit(held, snapshot("counted"), snapshot("dropped", status=Status.COMPLETED))
    held.drop_run("p1", "dropped")
    commit(held, snapshot("first"), uninteresting, snapshot("last"))
    assert shown_ids(held) == ["counted", "first", "last"]
    assert tally_of(held).counters.started == 4


def test_a_spinner_that_becomes_known_later_shows_zeros_first() -> None:
    held = store(Clock(NOON + 60))
    commit(held, snapshot("old", status=Status.COMPLETED))
    assert finished(held) == 1, "the first read of the first projects is history, which is shown immediately"
    commit(held, snapshot("new", spinner="reminder", status=Status.FAILED))
    assert sum(tally_of(held, "reminder").counters.finished.values()) == 0, "increase() needs a zero to rise from"
    commit(held)
    assert tally_of(held, "reminder").counters.finished[Status.FAILED] == 1


@pytest.mark.parametrize("spinner", ["welcome", "reminder"])
def test_records_that_are_told_for_the_first_time_show_zeros_first(spinner: str) -> None:
    held = store(Clock(NOON + 60))
    commit(held, snapshot("old"))
    run = snapshot("new", spinner=spinner, status=Status.COMPLETED, records=counts(3, failed=2))
    seen = []
    for runs in ([run], []):
        commit(held, *runs)
        counters = tally_of(held, spinner).counters
        seen.append((counters.completed_records, counters.failed_records, counters.finished_records))
    assert seen == [(0, 0, 0), (3, 2, 5)]


def test_a_project_that_becomes_known_later_shows_zeros_first() -> None:
    held = store(Clock(NOON + 60))
    held.name_projects({"p1": "Sales", "p2": "Support"})
    commit(held, snapshot(project_id="p2", status=Status.FAILED), project="p2")
    assert finished(held) == 0
    commit(held, project="p2")
    assert finished(held) == 1


def test_a_run_that_ended_while_the_api_was_down_counts_although_its_retention_is_over() -> None:
    clock = Clock(NOON + 60)
    held = store(clock)
    commit(held, snapshot())
    clock.advance(4 * 3600)
    commit(
        held,
        snapshot(status=Status.COMPLETED, updated_at=NOON + 100, ended_at=NOON + 100),
        snapshot("short", status=Status.COMPLETED, updated_at=NOON + 200, ended_at=NOON + 200),
        horizon=NOON,
    )
    assert finished(held) == 2
    assert shown_ids(held) == []


def tombstones(held: Store) -> int:
    return sum(project.tombstone_count for project in held.view.projects())


def cut_off(target: Store, *snapshots: RunSnapshot) -> None:
    """A read that applies these and is cancelled before it completes."""
    with contextlib.suppress(asyncio.CancelledError), target.reading("p1") as read:
        read.apply(snapshots, NOON + 60, horizon=LONG_AGO)
        raise asyncio.CancelledError
    target.expire()


def test_a_first_read_that_is_cut_off_leaves_nothing_and_counts_nothing_twice() -> None:
    held = store(Clock(NOON + 60))
    cut_off(held, snapshot("vanishes"), snapshot("done", status=Status.COMPLETED))
    assert (shown_ids(held), list(held.view.spinners())) == ([], [])
    commit(held, snapshot("done", status=Status.COMPLETED))
    assert shown_ids(held) == ["done"]
    assert finished(held) == tally_of(held).counters.started == 1


def test_of_a_first_read_that_fails_the_reason_stays_and_no_slot_of_a_spinner() -> None:
    held = store(Clock(NOON + 60), limits={"spinners": 1})
    with contextlib.suppress(asyncio.CancelledError), held.reading("p1") as read:
        read.apply([snapshot(spinner="first")], NOON + 60, horizon=LONG_AGO)
        held.fail("p1", "HTTP 500")
        raise asyncio.CancelledError
    assert [project.error for project in held.view.projects()] == ["HTTP 500"]
    commit(held, snapshot(spinner="second"))
    assert [shown.spinner for shown in held.view.spinners()] == ["second"]


def with_few_tombstones(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store that shows two runs, of which one is there, and keeps three tombstones."""
    monkeypatch.setattr("exporter.runs.limits.MIN_TOMBSTONES", 3)
    held = store(clock, limits={"runs": 2})
    commit(held, snapshot("open"))
    return held


def test_a_later_read_that_is_cut_off_counts_nothing_twice_however_many_runs_were_dropped_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = with_few_tombstones(clock := Clock(NOON + 60), monkeypatch)
    many = [ended(f"r{number}", NOON) for number in range(20)]
    cut_off(held, *many)
    assert tombstones(held) == 19, "the next read brings these runs again"
    commit(held, *many)
    assert finished(held) == 20
    assert tombstones(held) == 19, "the next read brings these runs again"
    clock.advance(240)
    commit(held, seen_at=clock.now)
    assert tombstones(held) == 3, "it asks for later changes"


def test_runs_that_became_visible_late_are_counted_on_whatever_page_of_one_read_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = with_few_tombstones(clock := Clock(NOON + 60), monkeypatch)
    clock.advance(600)
    with held.reading("p1") as read:
        for ended_at in (NOON - 500, NOON - 800):
            late: dict[str, Any] = {
                "status": Status.COMPLETED,
                "created_at": ended_at - 60,
                "started_at": ended_at - 60,
            }
            page = [snapshot(f"{ended_at}-{number}", **late, ended_at=ended_at) for number in range(20)]
            read.apply(page, clock.now, horizon=LONG_AGO)
        read.complete(as_of=clock.now, since=NOON - 60)
    assert finished(held) == 40, "a tombstone that is dropped in a read costs the runs of its later pages"


def test_the_counts_of_a_new_spinner_are_published_when_the_next_read_begins_to_apply() -> None:
    held = store(Clock(NOON + 60))
    commit(held)
    commit(held, snapshot("new", status=Status.FAILED))
    with held.reading("p1"):
        assert finished(held) == 0, "this read may still fail before it says anything"
    assert finished(held) == 0
    with held.reading("p1") as read:
        read.apply([], NOON + 60, horizon=LONG_AGO)
        assert finished(held) == 1


# -- leaving ------------------------------------------------------------------------------------------------


def test_a_finished_run_stays_until_its_retention_is_over_and_then_leaves() -> None:
    clock = Clock(NOON + 60)
    held = store(clock, retention=600, sync={"stale_after": 9999})
    commit(held, snapshot(status=Status.COMPLETED))  # ends 60 s after noon
    clock.now = NOON + 659
    held.expire()
    assert shown_ids(held) == ["run-1"]
    clock.now = NOON + 661
    held.expire()
    assert shown_ids(held) == []


def test_a_run_that_ended_in_the_future_leaves_after_its_retention() -> None:
    clock = Clock(NOON + 60)
    held = store(clock, retention=600, sync={"stale_after": 9999})
    commit(held, snapshot(status=Status.COMPLETED, ended_at=NOON + 72_000))
    clock.advance(599)
    commit(held)
    assert shown_ids(held) == ["run-1"]
    clock.advance(2)
    commit(held)
    assert shown_ids(held) == []


def test_a_run_whose_creation_is_unknown_was_not_queued_for_no_time() -> None:
    held = store(Clock(NOON + 60))
    commit(held, snapshot("a", created_at=NOON + 5, says_created=False), snapshot("b"))
    assert sum(tally_of(held).counters.queue_times.counts) == 1


@pytest.mark.parametrize(
    ("started", "ended", "queued", "took"), [(0.5, 1.25, 0.5, 0.75), (-0.5, -0.75, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0)]
)
def test_no_run_was_queued_or_took_less_than_no_time(started: float, ended: float, queued: float, took: float) -> None:
    held = store(Clock(NOON + 60))
    commit(held, snapshot(status=Status.COMPLETED, started_at=NOON + started, ended_at=NOON + ended))
    counters = tally_of(held).counters
    assert (counters.queue_times.total, counters.durations.total) == (queued, took)


@pytest.mark.parametrize(("at", "shown"), [(NOON + 60, NOON + 60), (NOON + 90, NOON + 90), (NOON + 72_000, NOON + 90)])
def test_the_last_start_and_the_last_success_are_not_in_the_future(at: float, shown: float) -> None:
    held = store(Clock(NOON + 60))
    commit(held, snapshot(status=Status.COMPLETED, started_at=at, ended_at=at))
    counters = tally_of(held).counters
    assert (counters.last_start_at, counters.last_success_at) == (shown, shown), (
        "or one that stopped is missed too late"
    )


def test_scrapes_that_follow_each_other_closely_are_no_clock_that_was_set_back() -> None:
    held = store(clock := Clock(NOON + 60))
    commit(held, snapshot(started_at=NOON + 80))
    for _ in range(3):
        clock.advance(1)
        held.expire()
    assert tally_of(held).counters.last_start_at == NOON + 80


def test_a_run_that_is_known_to_have_started_before_its_start_is_told_started_once_and_was_queued_once() -> None:
    held = store(Clock(NOON + 60))
    commit(held, snapshot(started_at=None))
    counters = tally_of(held).counters
    assert (counters.started, sum(counters.queue_times.counts)) == (1, 0)
    for seconds in (1, 2):
        commit(held, snapshot(updated_at=NOON + 60 + seconds))
        assert (counters.started, sum(counters.queue_times.counts)) == (1, 1)


@pytest.mark.parametrize(
    ("run", "counted"),
    [
        (snapshot(status=Status.QUEUED), 0),
        (snapshot(started_at=None), 1),
        (snapshot(), 3),
        (snapshot(status=Status.CANCELLED, started_at=None), 12),
        (snapshot(status=Status.UNKNOWN, ended_at=NOON + 60), 11),
        (snapshot(status=Status.COMPLETED), 15),
    ],
)
def test_what_was_counted_of_a_run_is_saved_as_by_earlier_releases(run: RunSnapshot, counted: int) -> None:
    """With other numbers, an upgrade would count runs again, or never."""
    held = store(Clock(NOON + 60))
    commit(held, run)
    (saved,) = (value for kind, _, _, value in held.persistence.everything() if kind == "run")
    assert isinstance(saved, TrackedRun)
    assert saved.counted == counted


def test_the_retention_of_a_run_that_has_not_ended_does_not_begin() -> None:
    clock = Clock(NOON + 60)
    held = store(clock, retention=600)
    commit(held, snapshot(status=Status.WAITING))
    clock.advance(30 * 86400)
    commit(held)
    assert shown_ids(held) == ["run-1"]


def test_retention_goes_by_the_runtime_s_clock() -> None:
    clock = Clock(NOON + 60)
    held = store(clock, retention=600)
    held.clock.observe(NOON + 60 + 90)
    commit(held, snapshot(status=Status.COMPLETED, ended_at=NOON + 150, updated_at=NOON + 150))
    clock.now = NOON + 150 - 90 + 599
    commit(held)
    assert shown_ids(held) == ["run-1"]
    clock.now = NOON + 150 - 90 + 601
    commit(held)
    assert shown_ids(held) == []


def test_a_late_snapshot_does_not_bring_back_a_dropped_run() -> None:
    clock = Clock(NOON + 60)
    held = store(clock, retention=60)
    commit(held, snapshot(status=Status.COMPLETED))
    clock.now = NOON + 200
    commit(held)
    for late in (
        snapshot(),
        snapshot(status=Status.COMPLETED),
        snapshot(status=Status.COMPLETED, updated_at=NOON + 190),
        snapshot(status=Status.COMPLETED, updated_at=NOON + 190, ended_at=None),
    ):
        commit(held, late)
        assert shown_ids(held) == []
    assert finished(held) == 1


def test_open_runs_of_a_first_read_that_is_cut_off_are_not_counted_as_dropped() -> None:
    reasons: list[str] = []
    held = store(Clock(NOON + 60), limits={"runs": 2}, dropped=reasons.append)
    cut_off(held, *(snapshot(f"r{number}") for number in range(5)))
    assert reasons == [], "none of them was shown"


@pytest.mark.parametrize("says_when_it_ended", [True, False])
def test_a_touched_run_that_was_dropped_over_the_limit_is_not_dropped_again(says_when_it_ended: bool) -> None:
    reasons: list[str] = []
    held = store(Clock(NOON + 60), limits={"runs": 1}, dropped=reasons.append)
    fields: dict[str, Any] = {
        "status": Status.COMPLETED,
        "ended_at": NOON + 50 if says_when_it_ended else None,
        "updated_at": NOON + 50,
    }
    commit(held, snapshot("dropped", **fields), snapshot("kept", status=Status.COMPLETED))
    commit(held, snapshot("dropped", **fields | {"updated_at": NOON + 59}))
    assert (shown_ids(held), reasons) == (["kept"], ["limit"])


@pytest.mark.parametrize("says_when_it_ended", [True, False])
def test_a_dropped_run_does_not_return_after_its_tombstone_is_dropped(
    says_when_it_ended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(NOON + 60)
    held = store(clock, retention=60)
    done = snapshot(status=Status.COMPLETED, ended_at=NOON + 60 if says_when_it_ended else None)
    commit(held, done)
    monkeypatch.setattr("exporter.runs.limits.MIN_TOMBSTONES", 0)
    held.config = msgspec.structs.replace(held.config, limits=LimitsConfig(runs=1))
    clock.advance(7 * 3600)
    commit(held, seen_at=clock.now)
    commit(held, snapshot("other", status=Status.COMPLETED, ended_at=clock.now - 50), seen_at=clock.now)
    clock.advance(600)
    commit(held, seen_at=clock.now)
    assert tombstones(held) == 1
    commit(held, done, seen_at=clock.now)
    assert (shown_ids(held), finished(held)) == ([], 2)


def test_runs_that_were_forgotten_are_not_counted_again_after_the_runtime_s_clock_was_set_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("exporter.runs.limits.MIN_TOMBSTONES", 0)
    clock, back = Clock(NOON + 60), 3 * 3600
    held = store(clock, retention=60, limits={"runs": 1})
    old = [snapshot(f"e{at}", Status.COMPLETED, ended_at=NOON + at, updated_at=NOON + at) for at in (50, 55)]
    commit(held, *old)
    clock.advance(7200)
    for _ in range(2):
        commit(held, seen_at=clock())
    assert tombstones(held) == 1, "the other one is forgotten"
    held.persistence.saved()
    for _ in range(5):
        held.clock.observe(clock() - back)
    clock.advance(30)
    now = clock() - back
    new = snapshot("new", Status.COMPLETED, started_at=now - 20, ended_at=now - 10, updated_at=now - 10)
    before_that = snapshot("missed", Status.COMPLETED, started_at=now - 900, ended_at=now - 800, updated_at=now - 800)
    for _ in range(3):
        commit(held, *old, new, before_that, seen_at=now, horizon=-math.inf)
        assert finished(held) == 3, "only one of them ended since the last read"
    assert "e50" in {key for kind, _, key, _ in held.persistence.unsaved() if kind == "run"}


def test_a_run_that_ended_since_the_last_read_counts_although_the_clock_was_set_back_to_before_the_first() -> None:
    held = store(clock := Clock(NOON + 60))
    commit(held, horizon=NOON)
    clock.advance(600)
    for _ in range(5):
        held.clock.observe(clock() - 90)
    done = snapshot(status=Status.COMPLETED, started_at=NOON - 20, ended_at=NOON - 10, updated_at=NOON - 10)
    for _ in range(2):
        commit(held, done, horizon=-math.inf, seen_at=clock() - 90)
    assert finished(held) == 1


def test_a_read_is_saved_with_the_time_of_its_request_by_our_own_clock() -> None:
    wall, monotonic = Clock(NOON), Clock(500.0)
    held = Store(config_with(), RuntimeClock(wall, monotonic), monotonic=monotonic, is_saved=True)
    held.name_projects({"p1": "Sales"})
    with held.reading("p1") as read:
        requested_at = monotonic()
        for each in (wall, monotonic):
            each.advance(9)
        read.complete(as_of=NOON, since=LONG_AGO, horizon=LONG_AGO, asked_at=requested_at)
    (metadata,) = (value for kind, _, _, value in held.persistence.everything() if kind == "project")
    assert isinstance(metadata, ProjectMetadata)
    assert metadata.read_at == NOON


def test_how_far_a_project_was_read_is_told_by_the_clock_of_a_single_response_if_there_is_one() -> None:
    held = store(Clock(NOON + 60))
    commit(held)
    assert held.clock.lead is not None
    set_back = held.clock.lead - 7200
    for lead, up_to in ((None, NOON + 60), (set_back, NOON + 60 - 7200)):
        assert held.read_up_to("p1", lead) == up_to
        assert held.read_up_to_each(["p1"], lead) == [up_to]


def test_a_project_is_known_up_to_where_the_clock_would_have_been_that_was_set_back_and_forward_since() -> None:
    held = store(Clock(NOON + 60))
    commit(held)
    for seconds in (-7200, 0):
        for _ in range(5):
            held.clock.observe(NOON + 60 + seconds)
        held.expire()
    assert held.read_up_to("p1") == NOON + 60 - 7200
    commit(held)
    assert held.read_up_to("p1") == NOON + 60


def test_before_its_first_read_a_project_is_known_up_to_no_time() -> None:
    held = store(Clock(NOON + 60))
    assert (held.read_up_to("p1"), held.read_up_to_each(["p1"])) == (-math.inf, [-math.inf])


def test_what_records_in_flight_show_of_a_run_that_has_ended_or_left_is_ignored() -> None:
    held = store(Clock(NOON + 60))
    commit(held, snapshot("ended", Status.COMPLETED), snapshot("left"))
    held.drop_run("p1", "left")
    for run_id in ("ended", "left"):
        held.keep_activity(("p1", run_id), Activity(NOON + 55, NOON + 52))
    commit(held, snapshot("left", updated_at=NOON + 61))
    assert [shown.activity for shown in held.view.runs()] == [None, None]


def test_a_dropped_run_that_restarts_is_shown_again_and_stays_counted_once() -> None:
    clock = Clock(NOON + 60)
    held = store(clock, retention=60)
    commit(held, snapshot(status=Status.COMPLETED, records=counts(10)))
    clock.now = NOON + 200
    commit(held)
    commit(held, snapshot(records=counts(1), started_at=NOON + 190, updated_at=NOON + 195))
    assert shown_ids(held) == ["run-1"]
    commit(
        held,
        snapshot(
            status=Status.FAILED, records=counts(1), started_at=NOON + 190, updated_at=NOON + 199, ended_at=NOON + 199
        ),
    )
    assert finished(held) == 1
    assert tally_of(held).counters.completed_records == 11


@pytest.mark.parametrize("was_gone", [False, True])
def test_a_restarted_run_is_not_dropped_because_of_its_earlier_end(*, was_gone: bool) -> None:
    clock = Clock(NOON + 60)
    held = store(clock, retention=600)
    commit(held, snapshot(status=Status.COMPLETED, records=counts(10)))
    if was_gone:
        held.drop_run("p1", "run-1")
    commit(held, snapshot(records=counts(1), started_at=NOON + 100, updated_at=NOON + 110))
    clock.advance(700)
    commit(held)
    assert shown_ids(held) == ["run-1"], "retention must not expire live work"


def test_the_retention_of_a_run_that_ended_again_between_two_reads_begins_anew() -> None:
    clock = Clock(NOON + 60)
    held = store(clock, retention=600)
    commit(held, snapshot(status=Status.COMPLETED))
    clock.now = NOON + 500
    again: dict[str, Any] = {"started_at": NOON + 400, "ended_at": NOON + 500, "updated_at": NOON + 500}
    commit(held, snapshot(status=Status.COMPLETED, **again), seen_at=clock())
    for now, shown in ((NOON + 1099, ["run-1"]), (NOON + 1101, [])):
        clock.now = now
        commit(held, seen_at=clock())
        assert shown_ids(held) == shown


def test_a_run_that_changes_after_the_runtime_s_clock_was_set_back_leaves_after_its_retention() -> None:
    clock = Clock(NOON + 60)
    held = store(clock, retention=600)
    commit(held, snapshot(status=Status.COMPLETED))
    clock.now = NOON + 300
    for _ in range(5):
        held.clock.observe(NOON + 100)
    commit(held, snapshot(status=Status.COMPLETED, updated_at=NOON + 90), seen_at=NOON + 100)
    for now, shown in ((NOON + 659, ["run-1"]), (NOON + 661, [])):
        clock.now = now
        commit(held, seen_at=held.clock.now())
        assert shown_ids(held) == shown


def test_runs_leave_in_the_order_of_their_ends_however_often_one_of_them_changes() -> None:
    clock = Clock(NOON + 60)
    held = store(clock, retention=600, sync={"stale_after": 9999})
    runs = [snapshot(f"r{at}", Status.COMPLETED, ended_at=NOON + at) for at in (50, 40, 30, 20, 10)]
    commit(held, *runs)
    for number in range(6):
        commit(held, msgspec.structs.replace(runs[0], updated_at=NOON + 61 + number))
    clock.now = NOON + 625
    held.expire()
    assert shown_ids(held) == ["r50", "r40", "r30"]


def test_a_run_that_ended_before_the_first_horizon_is_neither_shown_nor_counted() -> None:
    held = store(Clock(NOON + 60))
    old = snapshot(status=Status.COMPLETED, started_at=NOON - 8000, ended_at=NOON - 7200, updated_at=NOON + 50)
    commit(held, old, horizon=NOON - 3600)
    assert shown_ids(held) == []
    counters = tally_of(held).counters
    assert (counters.started, sum(counters.finished.values()), sum(counters.durations.counts)) == (0, 0, 0)
    assert (counters.last_start_at, counters.last_success_at) == (NOON - 8000, NOON - 7200), "but it is learned from"


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(("ended_at", "counted"), [(LONG_AGO, 1), (LONG_AGO - 1, 0)])
def test_a_run_that_ended_when_the_first_read_begins_to_look_is_counted(
    ended_at: float, counted: int, *, is_first: bool
) -> None:
    held = store(Clock(NOON + 60), retention=7200)
    if not is_first:
        commit(held)
    times: dict[str, Any] = {
        "created_at": ended_at - 9,
        "started_at": ended_at - 9,
        "ended_at": ended_at,
        "updated_at": ended_at,
    }
    commit(held, snapshot(status=Status.COMPLETED, **times))
    commit(held)
    assert len(shown_ids(held)) == counted
    assert sum(sum(shown.counters.finished.values()) for shown in held.view.spinners()) == counted


def test_a_run_that_ended_then_is_not_counted_again_once_it_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.runs.limits.MIN_TOMBSTONES", 0)
    held = store(Clock(NOON + 60), retention=60, limits={"runs": 1})
    commit(held)
    runs = [
        snapshot(f"{at}", Status.COMPLETED, started_at=at - 9, ended_at=at, updated_at=at)
        for at in (LONG_AGO, LONG_AGO + 5)
    ]
    commit(held, *runs)
    assert tombstones(held) == 1, "the first one is forgotten"
    commit(held, *runs)
    assert finished(held) == 2


def test_a_run_that_is_gone_counts_as_dropped_and_never_as_finished() -> None:
    reasons: list[str] = []
    held = store(Clock(NOON + 60), dropped=reasons.append)
    commit(held, snapshot())
    held.drop_run("p1", "run-1")
    assert shown_ids(held) == []
    assert finished(held) == 0
    assert reasons == ["gone"]


def test_a_run_that_was_gone_and_returns_is_shown_again_and_has_started_once() -> None:
    held = store(Clock(NOON + 60))
    commit(held, snapshot())
    held.drop_run("p1", "run-1")
    commit(held, snapshot())
    assert shown_ids(held) == ["run-1"], (
        "the updatedAt of a stalled run does not change: it must not be ignored as late"
    )
    assert tally_of(held).counters.started == 1


def test_a_dropped_project_is_dropped_with_its_runs_and_counts() -> None:
    reasons: list[str] = []
    held = store(Clock(NOON + 60), dropped=reasons.append)
    commit(held, snapshot("a"), snapshot("b"))
    held.drop_project("p1")
    assert shown_ids(held) == []
    assert list(held.view.spinners()) == []
    assert reasons == ["project_gone", "project_gone"]


def test_over_the_limit_the_run_that_ended_first_leaves_whichever_project_it_is_of() -> None:
    projects = {"p1": "A", "p2": "B", "p3": "C"}
    reasons: list[str] = []
    held = store(Clock(NOON + 60), projects=projects, limits={"runs": 1}, dropped=reasons.append)
    for project, ended_at in zip(projects, (NOON + 30, NOON + 10, NOON + 20), strict=True):
        run = snapshot(project, Status.COMPLETED, project_id=project, ended_at=ended_at)
        read_project(held, project, [(run, NOON + 60)], as_of=NOON + 60, horizon=LONG_AGO)
    held.expire()
    assert shown_ids(held) == ["p1"]
    assert reasons == ["limit", "limit"]


def test_records_are_named_only_where_failed_records_are() -> None:
    for bounds, named in (({}, 1), ({"failed_records": 0}, 0), ({"failed_records_per_run": 0}, 0)):
        held = store(Clock(NOON + 60), limits=bounds)
        commit(held, snapshot("run-1"))
        held.keep_listed("waiting", ("p1", "run-1"), [OpenRecord("r1", "Call")], is_whole=True)
        shown = held.view.run(("p1", "run-1"))
        assert shown is not None
        assert shown.waiting is not None
        assert len(shown.waiting.named) == named
        assert dict(shown.waiting.by_step) == {"Call": 1}, "how many there are is known all the same"


def test_a_run_that_was_hidden_when_it_left_is_shown_when_it_returns() -> None:
    held = store(Clock(NOON + 60), limits={"runs": 1})
    commit(held, snapshot("hidden", created_at=NOON - 9), snapshot("new"))
    assert shown_ids(held) == ["new"]
    for run_id in ("hidden", "new"):
        held.drop_run("p1", run_id)
    held.expire()
    commit(held, snapshot("hidden", created_at=NOON - 9, updated_at=NOON + 70))
    assert shown_ids(held) == ["hidden"]


def test_a_run_that_ended_or_left_is_no_longer_open() -> None:
    held = store(Clock(NOON + 60))
    commit(held, *(snapshot(run_id) for run_id in ("ends", "leaves", "stays")))
    assert set(held.open_runs("p1")) == {"ends", "leaves", "stays"}
    commit(held, snapshot("ends", Status.COMPLETED, updated_at=NOON + 61))
    held.drop_run("p1", "leaves")
    assert set(held.open_runs("p1")) == {"stays"}


def test_a_run_that_is_not_known_cannot_be_gone() -> None:
    reasons: list[str] = []
    held = store(Clock(NOON + 60), dropped=reasons.append)
    commit(held, snapshot())
    for run_id in ("unknown", "run-1", "run-1"):
        held.drop_run("p1", run_id)
    assert reasons == ["gone"]


@pytest.mark.parametrize("updated_at", [NOON + 50, NOON + 60])
def test_an_older_state_of_a_run_that_left_does_not_bring_it_back(updated_at: float) -> None:
    clock = Clock(NOON + 60)
    held = store(clock, retention=100.0)
    commit(held, snapshot(status=Status.COMPLETED))
    clock.advance(200)
    held.expire()
    commit(held, snapshot(updated_at=updated_at))
    assert shown_ids(held) == []


def test_an_older_state_on_a_later_page_of_a_read_that_brought_the_known_one_changes_nothing() -> None:
    held = store(Clock(NOON + 60))
    known = snapshot(records=counts(5), updated_at=NOON + 50)
    commit(held, known)
    commit(held, known, snapshot(records=counts(3), updated_at=NOON + 40))
    assert [shown.run.records.completed for shown in held.view.runs()] == [5]


@pytest.mark.parametrize("left", [False, True])
def test_a_run_that_no_longer_names_its_spinner_stays_with_it(*, left: bool) -> None:
    held = store(Clock(NOON + 60))
    commit(held, snapshot(records=counts(3)))
    if left:
        held.drop_run("p1", "run-1")
    commit(held, snapshot(spinner="", records=counts(4), updated_at=NOON + 70))
    assert [shown.run.snapshot.spinner for shown in held.view.runs()] == ["welcome"]
    assert tally_of(held).counters.started == 1


@pytest.mark.parametrize(("seen_at", "progress"), [(NOON + 90, NOON + 90), (None, NOON)])
def test_progress_without_a_change_of_updated_at_was_made_when_it_was_seen(
    seen_at: float | None, progress: float
) -> None:
    held = store(Clock(NOON + 90))
    for completed, at in ((3, NOON), (4, seen_at)):
        run = snapshot(started_at=NOON - 5, updated_at=NOON, records=counts(completed))
        read_project(held, "p1", [(run, at)], as_of=NOON + 90, horizon=LONG_AGO)
    (shown,) = held.view.runs()
    assert (shown.run.records.completed, shown.run.last_progress_at) == (4, progress)


def test_a_project_that_is_read_again_has_no_error() -> None:
    held = store(Clock(NOON + 60))
    held.fail("p1", "HTTP 500")
    commit(held)
    assert [project.error for project in held.view.projects()] == [None]


def test_while_a_long_list_is_read_the_runs_and_tombstones_in_memory_are_limited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "MIN_TOMBSTONES", 20)
    held = store(Clock(NOON + 60), limits={"runs": 8})
    (project,) = held.view.projects()
    most = 0
    with held.reading("p1") as read:
        for number in range(60):
            read.apply([snapshot(f"r{number}", Status.COMPLETED)], NOON + 60, horizon=LONG_AGO)
            most = max(most, len(project.runs))
        assert most == 10, "a quarter more than the limit: enforcing it for each run would take too long"
        assert project.tombstone_count == 20
        read.complete(as_of=NOON + 60, since=LONG_AGO)
    assert finished(held) == 60


# -- two runs with one id -----------------------------------------------------------------------------------

MAILS: dict[str, Any] = {"spinner": "Mails", "created_at": NOON - 500}
"""What tells a run from another one with its id: a spinner of its own, and when it was created."""


@pytest.mark.parametrize(
    ("first", "second", "shown"),
    [
        (Status.RUNNING, Status.RUNNING, "welcome"),
        (Status.RUNNING, Status.COMPLETED, "welcome"),
        (Status.COMPLETED, Status.COMPLETED, "welcome"),
        (Status.COMPLETED, Status.RUNNING, "Mails"),
    ],
)
def test_of_two_runs_with_one_id_the_one_that_has_not_ended_is_shown_and_that_is_reported_once(
    first: Status, second: Status, shown: str
) -> None:
    reasons: list[str] = []
    held = store(Clock(NOON + 60), dropped=reasons.append)
    for _ in range(2):
        commit(held, snapshot(status=first), snapshot(status=second, **MAILS))
    assert [each.run.snapshot.spinner for each in held.view.runs()] == [shown]
    assert reasons == ["shared_id"]
    present = {each.spinner: sum(each.runs.values()) for each in held.view.spinners() if any(each.runs.values())}
    assert present == {shown: 1}
    assert tally_of(held).counters.started == 1, "what was counted stays counted"
    if shown == "Mails":
        assert tally_of(held).counters.finished[Status.COMPLETED] == 1
        commit(held)
        assert tally_of(held, "Mails").counters.started == 1


def test_of_very_many_ids_that_two_runs_have_only_so_many_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.runs.project.MAX_SHARED_IDS", 2)
    reasons: list[str] = []
    held = store(Clock(NOON + 60), dropped=reasons.append)
    for fields in ({}, MAILS):
        commit(held, *(snapshot(f"r{number}", **fields) for number in range(4)))
    assert reasons == ["shared_id"] * 2


@pytest.mark.parametrize("change", [{"spinner": "Mails"}, {"created_at": NOON + 30}], ids=["renamed", "restarted"])
def test_a_run_whose_spinner_is_renamed_or_that_is_created_anew_is_the_same_run(change: dict[str, Any]) -> None:
    reasons: list[str] = []
    held = store(Clock(NOON + 60), dropped=reasons.append)
    commit(held, snapshot(records=counts(3)))
    commit(held, snapshot(records=counts(4), updated_at=NOON + 70, **change))
    assert [shown.run.records.completed for shown in held.view.runs()] == [4]
    assert sum(shown.counters.started for shown in held.view.spinners()) == 1
    assert reasons == []


def test_another_run_with_the_id_of_one_that_left_is_shown_and_counted() -> None:
    held = store(Clock(NOON + 60))
    commit(held, snapshot(status=Status.COMPLETED))
    held.drop_run("p1", "run-1")
    for _ in range(2):
        commit(held, snapshot(status=Status.COMPLETED, **MAILS))
    assert [each.run.snapshot.spinner for each in held.view.runs()] == ["Mails"]
    assert tombstones(held) == 0
    assert (tally_of(held).counters.started, tally_of(held, "Mails").counters.started) == (1, 1)


# -- too old to be shown ------------------------------------------------------------------------------------


def test_runs_of_a_project_that_cannot_be_read_are_hidden_when_stale_and_return_with_the_next_good_read() -> None:
    clock = Clock(NOON + 60)
    held = store(clock, sync={"stale_after": 300})
    commit(held, snapshot())
    held.fail("p1", "jobs: HTTP 500")
    clock.advance(299)
    assert shown_ids(held) == ["run-1"]
    clock.advance(2)
    assert shown_ids(held) == []
    assert tally_of(held).runs == {}, "the number of runs is stale too"
    assert tally_of(held).counters.started == 1, "the counters stay"
    commit(held, snapshot())
    assert shown_ids(held) == ["run-1"]


# -- limits -------------------------------------------------------------------------------------------------


def ended(run_id: str, created_at: float) -> RunSnapshot:
    return snapshot(run_id, status=Status.COMPLETED, created_at=created_at)


def names(prefix: str, many: Iterable[int]) -> list[str]:
    return [f"{prefix}{number}" for number in many]


def test_over_the_limit_the_newest_and_those_that_have_not_ended_are_kept() -> None:
    reasons: list[str] = []
    held = store(Clock(NOON + 60), limits={"runs": 3}, dropped=reasons.append)
    commit(held, *(ended(f"e{n}", NOON + n) for n in range(4)), snapshot("open", created_at=NOON - 999))
    assert sorted(shown_ids(held)) == ["e2", "e3", "open"]
    assert reasons == ["limit", "limit"]
    assert finished(held) == 4, "runs that are not shown are counted too"


def test_over_the_limit_a_long_run_that_has_just_ended_stays_before_short_ones_that_ended_earlier() -> None:
    held = store(Clock(NOON + 60), limits={"runs": 1})
    short = snapshot("short", Status.COMPLETED, created_at=NOON + 20, started_at=NOON + 21, ended_at=NOON + 30)
    long = snapshot("long", Status.FAILED, created_at=NOON - 3000, started_at=NOON - 2999, ended_at=NOON + 50)
    commit(held, short, long)
    assert shown_ids(held) == ["long"], "an alert on runs that failed must see it, however long it took"


def test_a_list_that_is_longer_than_the_limit_is_dropped_while_it_is_read() -> None:
    held = store(Clock(NOON + 60), limits={"runs": 100})
    with held.reading("p1") as read:
        for start in range(0, 10_000, 50):
            page = [ended(f"r{number}", NOON + number / 1000) for number in range(start, start + 50)]
            read.apply(page, NOON + 60, horizon=NOON - 3600)
            here = sum(len(project.runs) for project in held.view.projects())
            assert here <= 150, "memory must be bounded by what is kept and a page, not by the list"
        read.complete(as_of=NOON + 60, since=NOON - 3600)
    held.expire()
    assert held.view.run_count == 100
    assert finished(held) == 10_000


def test_the_number_of_tombstones_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.runs.limits.MIN_TOMBSTONES", 3)
    held = store(Clock(NOON + 240), limits={"runs": 2}, projects={"p1": "Sales", "p2": "Service"})
    for project in ("p1", "p2"):
        runs = [ended(f"{project}-{number}", NOON + number) for number in range(5)]
        read_project(held, project, [(each, NOON + 60) for each in runs], as_of=NOON + 240, horizon=NOON - 3600)
    held.expire()
    assert tombstones(held) == 3


def test_a_first_read_in_progress_displaces_nothing_that_is_shown() -> None:
    reasons: list[str] = []
    held = store(
        Clock(NOON + 60), limits={"runs": 5}, projects={"p1": "Sales", "p2": "Service"}, dropped=reasons.append
    )
    commit(held, *(ended(f"e{number}", NOON) for number in range(5)))
    with held.reading("p2") as read:
        read.apply([ended(f"f{number}", NOON) for number in range(50)], NOON + 60, horizon=LONG_AGO)
        held.expire()
        assert len(shown_ids(held)) == 5
        assert reasons == [], "the runs of p2 have not been shown, and its read may still fail"
    held.expire()
    assert sum(len(project.runs) for project in held.view.projects()) == 5


def test_each_project_has_room_for_its_share_of_the_runs_that_have_not_ended_and_for_what_others_leave() -> None:
    projects = {"p1": "Sales", "p2": "Support", "p3": "Service"}
    held = store(Clock(NOON + 60), projects=projects, limits={"open_runs": 6})

    def has_room(project: str, ids: str) -> list[bool]:
        return [held.has_room(project, set(ids[:many])) for many in range(len(ids) + 1)]

    assert has_room("p1", "abcdefgh") == [True] * 7 + [False] * 2
    commit(held, *(snapshot(run_id) for run_id in "wxyz"), project="p2")
    assert has_room("p1", "abc") == [True] * 3 + [False]
    assert has_room("p2", "wxyzabc") == [True] * 7 + [False]
    commit(held, *(snapshot(run_id) for run_id in "abc"), project="p2")
    assert has_room("p2", "wxyzabc") == [True] * 8, "those that are tracked stay"
    assert has_room("p1", "abc") == [True] * 3 + [False]


def test_a_run_whose_spinner_changes_counts_among_the_runs_of_its_new_spinner() -> None:
    held = store(Clock(NOON + 300))
    commit(held, snapshot(spinner="old", updated_at=NOON + 60, records=counts(1)))
    late = snapshot(spinner="old", updated_at=NOON + 50, records=counts(1))
    commit(held, snapshot(spinner="new", updated_at=NOON + 90, records=counts(1)), late, seen_at=NOON + 90)
    by_name = {shown.spinner: shown.runs[Status.RUNNING] for shown in held.view.spinners()}
    assert by_name == {"old": 0, "new": 1}


def test_without_a_state_file_no_changes_are_noted_for_one() -> None:
    clock = Clock(NOON + 60)
    held = Store(config_with(), RuntimeClock(clock, clock), monotonic=clock)
    held.name_projects({"p1": "Sales"})
    for number in range(10):
        commit(held, ended(f"r{number}", NOON))
    assert [row for row in held.persistence.unsaved() if row[0] != "project"] == []


def test_an_open_run_over_the_limit_is_hidden_counted_at_its_end_and_shown_again_below_the_limit() -> None:
    reasons: list[str] = []
    held = store(Clock(NOON + 60), limits={"runs": 2}, dropped=reasons.append)
    commit(held, *(snapshot(f"r{n}", created_at=NOON + n) for n in range(3)))
    assert sorted(shown_ids(held)) == ["r1", "r2"]
    commit(held)
    assert reasons == ["limit"], "each run is dropped once, not once a scrape"
    held.drop_run("p1", "r2")
    commit(held)
    assert sorted(shown_ids(held)) == ["r0", "r1"]
    commit(held, snapshot("r0", status=Status.COMPLETED, updated_at=NOON + 90, created_at=NOON))
    assert finished(held) == 1


def at_work(run_id: str, progress_at: float, **fields: Any) -> RunSnapshot:
    """A run of which a record finished at this time."""
    return snapshot(run_id, last_progress_at=progress_at, records=counts(3, running=2, pending=5), **fields)


def test_a_stalled_run_over_the_limit_is_shown_however_old_it_is_until_it_continues() -> None:
    clock = Clock(NOON + 60)
    held = store(clock, limits={"runs": 2})
    commit(held, *(at_work(f"r{n}", NOON + 60, created_at=NOON + n) for n in range(4)))
    assert sorted(shown_ids(held)) == ["r2", "r3"]
    for minute in range(1, 60):
        clock.now = at = NOON + 60 + 60 * minute
        others = (at_work(f"r{n}", at, created_at=NOON + n, updated_at=at) for n in range(1, 4))
        commit(held, *others, seen_at=at)
        assert sorted(shown_ids(held)) == (["r2", "r3"] if minute <= 18 else ["r0", "r3"]), minute
    changed_at = clock.now + 1
    commit(held, at_work("r0", changed_at, created_at=NOON, updated_at=changed_at), seen_at=changed_at)
    assert sorted(shown_ids(held)) == ["r2", "r3"]


def test_a_run_that_is_started_again_and_again_without_progress_is_shown_once_it_stalls() -> None:
    clock = Clock(NOON + 60)
    held = store(clock, limits={"runs": 1})
    commit(held, at_work("again", NOON + 60, created_at=NOON - 9), at_work("other", NOON + 60))
    for minute in range(1, 60):
        clock.now = at = NOON + 60 + 60 * minute
        again = at_work("again", NOON + 60, created_at=NOON - 9, started_at=at, updated_at=at)
        commit(held, again, at_work("other", at, updated_at=at), seen_at=at)
        assert shown_ids(held) == (["again"] if minute >= 37 else ["other"]), minute


def test_of_more_stalled_runs_than_the_limit_those_that_stalled_first_stay() -> None:
    clock = Clock(NOON + 60)
    held = store(clock, limits={"runs": 2})
    commit(held, *(at_work(f"r{n}", NOON + 60 - n) for n in range(4)))
    clock.now += 3 * 3600
    for _ in range(3):
        commit(held, seen_at=clock.now)
        assert sorted(shown_ids(held)) == ["r2", "r3"]
        clock.now += 600


def test_when_a_silent_run_stalls_is_computed_once_a_minute_and_not_again_once_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(NOON + 60)
    held = store(clock, limits={"runs": 1})
    asked: list[float] = []
    computed = held.view.stalls_at
    monkeypatch.setattr(
        held._limits,
        "_stalls_at",
        lambda *of: asked.append(clock.now) or computed(*of),  # type: ignore[func-returns-value]
    )
    commit(held, at_work("silent", NOON + 60), at_work("other", NOON + 60))
    for _ in range(240):
        clock.now += 15
        commit(held, at_work("other", clock.now, updated_at=clock.now), seen_at=clock.now)
    assert 8 <= len(asked) <= 12
    assert min(asked) >= NOON + 60 + 600


def test_runs_in_the_queue_are_hidden_first_but_not_the_first_one_where_nothing_moves() -> None:
    clock = Clock(NOON + 60)
    held = store(clock, projects={"p1": "Sales", "p2": "Support"}, limits={"runs": 3})
    queue = [snapshot(f"q{n}", Status.QUEUED, created_at=NOON + n) for n in range(5)]
    commit(held, at_work("busy", NOON + 60), *queue)
    assert sorted(shown_ids(held)) == ["busy", "q0", "q1"], "those that have been queued the longest are next"
    commit(
        held,
        *(snapshot(f"b{n}", Status.QUEUED, project_id="p2", created_at=NOON + 9 + n) for n in range(3)),
        project="p2",
    )
    assert sorted(shown_ids(held)) == ["b0", "busy", "q0"], "no worker takes anything of the second project"
    later = snapshot("later", Status.QUEUED, project_id="p2", created_at=NOON - 9, waiting_until=NOON + 3600)
    commit(held, later, project="p2")
    assert sorted(shown_ids(held)) == ["b0", "busy", "later"], "nobody is paged for one that is to start later"


def test_open_runs_with_the_same_id_in_two_projects_are_hidden_independently() -> None:
    held = store(Clock(NOON + 60), projects={"p1": "Sales", "p2": "Support"}, limits={"runs": 2})
    for place, project_id in enumerate(("p1", "p2")):
        runs = [snapshot(run_id, project_id=project_id, created_at=NOON + place) for run_id in ("1", "2")]
        read_project(held, project_id, [(run, NOON) for run in runs], as_of=NOON, horizon=NOON - 100)
    held.expire()
    assert {(shown.project, shown.run.id) for shown in held.view.runs()} == {("Support", "1"), ("Support", "2")}


def test_an_ended_run_that_changes_with_every_read_takes_no_more_memory_each_time() -> None:
    held = store(Clock(NOON + 60))
    for number in range(50):
        commit(held, snapshot(status=Status.COMPLETED, ended_at=NOON + 60, updated_at=NOON + 60 + number))
    (project,) = held.view.projects()
    sizes = {name: len(each) for name, each in vars(project).items() if hasattr(each, "__len__")}
    assert max(sizes.values()) <= 3, sizes
    assert project.first_end() is not None


# -- records that a run works on, or that wait --------------------------------------------------------------


@pytest.mark.parametrize("leaves", [False, True], ids=["ends", "leaves"])
@pytest.mark.parametrize("kind", ["in flight", "waiting"])
def test_what_a_run_worked_on_is_forgotten_with_it(kind: RecordKind, *, leaves: bool) -> None:
    held = store(Clock(NOON + 60))
    commit(held, snapshot("run"), snapshot("other"))
    for run_id in ("run", "other"):
        held.keep_listed(kind, ("p1", run_id), [OpenRecord("r1", "Call")], is_whole=True)
        held.keep_activity(("p1", run_id), Activity(NOON + 55, NOON + 52))
    if leaves:
        held.drop_run("p1", "run")
    else:
        commit(held, snapshot("run", Status.COMPLETED, updated_at=NOON + 61, ended_at=NOON + 61))
    assert held.runs_with_listed(kind, ["p1"]) == [("p1", "other")]
    commit(held, snapshot("run", started_at=NOON + 62, updated_at=NOON + 63))
    activities = {shown.run.id: shown.activity for shown in held.view.runs()}
    assert activities == {"run": None, "other": Activity(NOON + 55, NOON + 52)}, "or it would excuse a later silence"


@pytest.mark.parametrize("kind", ["in flight", "waiting"])
def test_records_over_all_runs_are_bounded_and_those_that_began_first_stay_named(kind: RecordKind) -> None:
    held = store(Clock(NOON + 60), limits={"failed_records": 3})
    commit(held, *(snapshot(f"r{number}") for number in range(3)))
    for number in range(3):
        at = NOON - number
        records = [OpenRecord(f"{number}{each}", "Call", None, at, at) for each in "ab"]
        held.keep_listed(kind, ("p1", f"r{number}"), records, is_whole=True)
    watch = held.view.watch()
    watch.changed()
    held.expire()
    listed = {shown.run.id: shown.in_flight if kind == "in flight" else shown.waiting for shown in held.view.runs()}
    assert {run_id: each and len(each.named) for run_id, each in listed.items()} == {"r0": 0, "r1": 1, "r2": 2}
    assert [each and each.by_step for each in listed.values()] == [(("Call", 2),)] * 3
    assert sorted(watch.changed()[0]) == [("p1", "r0"), ("p1", "r1")]


# -- failed records -----------------------------------------------------------------------------------------


def failed_record(record_id: str, ended_at: float = NOON) -> FailedRecord:
    return FailedRecord(record_id, "send", "E_BOUNCE", ended_at)


def test_failed_records_are_missing_only_for_runs_whose_failed_count_changed() -> None:
    held = store(Clock(NOON + 60))
    commit(held, snapshot("fine", records=counts(3)), snapshot("bad", records=counts(3, failed=2)))
    (bad,) = held.runs_missing_failed_records("p1")
    assert bad.id == "bad"
    held.keep_failed_records("p1", bad, [failed_record("r1"), failed_record("r2")])
    assert held.runs_missing_failed_records("p1") == []
    commit(held, snapshot("bad", records=counts(3, failed=3), updated_at=NOON + 70))
    assert [run.id for run in held.runs_missing_failed_records("p1")] == ["bad"]


@pytest.mark.parametrize(("completed", "missing"), [(4, ["bad"]), (5, []), (6, ["bad"])])
def test_failed_records_are_missing_at_the_end_of_a_run_if_its_completed_ones_changed(
    completed: int, missing: list[str]
) -> None:
    """One can have been tried again with success while another one failed."""
    held = store(Clock(NOON + 60))
    commit(held, snapshot("bad", records=counts(5, failed=1)))
    (bad,) = held.runs_missing_failed_records("p1")
    held.keep_failed_records("p1", bad, [failed_record("r1")])
    commit(held, snapshot("bad", Status.COMPLETED, records=counts(completed, failed=1), updated_at=NOON + 70))
    assert [run.id for run in held.runs_missing_failed_records("p1")] == missing


@pytest.mark.parametrize("reason", ["gone", "retention", "limit"])
def test_failed_records_of_a_run_that_was_dropped_are_not_missing(reason: str) -> None:
    clock = Clock(NOON + 60)
    held = store(clock, retention=100.0)
    commit(held, snapshot("bad", Status.COMPLETED, records=counts(3, failed=2)), snapshot("other", updated_at=NOON))
    if reason == "gone":
        held.drop_run("p1", "bad")
    elif reason == "retention":
        clock.advance(200)
    else:
        held.config = config_with(limits={"runs": 1})
    held.expire()
    assert shown_ids(held) == ["other"]
    assert held.runs_missing_failed_records("p1") == []


def test_failed_records_of_a_hidden_run_are_read_when_it_is_shown_again() -> None:
    held = store(Clock(NOON + 60), limits={"runs": 1})
    commit(held, snapshot("old", created_at=NOON - 9, records=counts(failed=1)), snapshot("new"))
    assert shown_ids(held) == ["new"]
    assert held.runs_missing_failed_records("p1") == []
    held.drop_run("p1", "new")
    held.expire()
    assert [run.id for run in held.runs_missing_failed_records("p1")] == ["old"]


def test_a_run_that_left_and_returns_has_its_failed_records_read_again() -> None:
    held = store(Clock(NOON + 60))
    commit(held, snapshot("bad", records=counts(3, failed=1)))
    (bad,) = held.runs_missing_failed_records("p1")
    held.keep_failed_records("p1", bad, [failed_record("r1")])
    held.drop_run("p1", "bad")
    commit(held, snapshot("bad", records=counts(3, failed=1), updated_at=NOON + 70))
    assert [run.id for run in held.runs_missing_failed_records("p1")] == ["bad"]


def test_failed_records_that_are_no_longer_counted_are_forgotten_and_not_missing() -> None:
    held = store(Clock(NOON + 60))
    commit(held, snapshot("bad", records=counts(3, failed=1)))
    (bad,) = held.runs_missing_failed_records("p1")
    held.keep_failed_records("p1", bad, [failed_record("r1")])
    commit(held, snapshot("bad", records=counts(4, failed=0), updated_at=NOON + 70))
    (bad,) = held.runs_missing_failed_records("p1")
    held.keep_failed_records("p1", bad, [])
    assert [shown.run.failed_records for shown in held.view.runs()] == [()]
    assert held.runs_missing_failed_records("p1") == []


def test_failed_records_of_a_run_that_left_while_they_were_read_are_ignored() -> None:
    held = store(Clock(NOON + 60))
    commit(held, snapshot("bad", records=counts(3, failed=2)))
    (bad,) = held.runs_missing_failed_records("p1")
    held.drop_run("p1", "bad")
    held.keep_failed_records("p1", bad, [failed_record("r1")])
    commit(held, snapshot("bad", records=counts(3, failed=2), updated_at=NOON + 61))
    assert [shown.run.failed_records for shown in held.view.runs()] == [()]
    assert [run.id for run in held.runs_missing_failed_records("p1")] == ["bad"]


def test_once_more_may_be_named_failed_records_are_missing_of_runs_of_which_not_all_are_named() -> None:
    bounds = {"failed_records_per_run": 2, "failed_records": 5}
    held = store(Clock(NOON + 60), limits=bounds)
    commit(held, *(snapshot(run_id, records=counts(failed=many)) for run_id, many in (("none", 0), ("untold", None))))
    for run_id, many, at in (("left out", 1, NOON), ("all", 1, NOON + 1), ("some", 3, NOON + 2), ("two", 2, NOON + 3)):
        commit(held, snapshot(run_id, records=counts(failed=many), updated_at=at))
        (run,) = held.runs_missing_failed_records("p1")
        held.keep_failed_records("p1", run, [failed_record(f"{run_id}-{number}") for number in range(many)])
    held.expire()
    for change, missing in (
        ({}, []),
        ({"failed_records_per_run": 1, "failed_records": 4}, []),
        ({"failed_records": 6}, ["left out"]),
        ({"failed_records_per_run": 3}, ["left out", "some"]),
    ):
        held.config = config_with(limits=bounds | change)
        assert sorted(run.id for run in held.runs_missing_failed_records("p1")) == missing
        held.config = config_with(limits=bounds)
        for run in held.runs_missing_failed_records("p1"):
            held.keep_failed_records("p1", run, run.failed_records)


@pytest.mark.parametrize("limit", ["failed_records_per_run", "failed_records"])
def test_no_failed_records_are_missing_if_none_are_to_be_shown(limit: str) -> None:
    held = store(Clock(NOON + 60), limits={limit: 0})
    commit(held, snapshot("bad", records=counts(3, failed=2)))
    assert held.runs_missing_failed_records("p1") == []


def test_only_the_newest_failed_records_of_a_run_are_named_each_once() -> None:
    held = store(Clock(NOON + 60), limits={"failed_records_per_run": 2})
    commit(held, snapshot(records=counts(0, failed=3)))
    (run,) = held.runs_missing_failed_records("p1")
    records = [failed_record("a", 1), failed_record("b", 3), failed_record("b", 3), failed_record("c", 2)]
    held.keep_failed_records("p1", run, records)
    (shown,) = held.view.runs()
    assert [record.id for record in shown.run.failed_records] == ["b", "c"]


def test_failed_records_over_all_runs_are_bounded_and_those_that_changed_last_are_kept() -> None:
    held = store(Clock(NOON + 60), limits={"failed_records": 3})
    for number in range(3):
        commit(held, snapshot(f"r{number}", records=counts(0, failed=2), updated_at=NOON + number))
        (run,) = held.runs_missing_failed_records("p1")
        held.keep_failed_records("p1", run, [failed_record(f"{number}a"), failed_record(f"{number}b")])
    held.expire()
    named = {shown.run.id: len(shown.run.failed_records) for shown in held.view.runs()}
    assert named == {"r0": 0, "r1": 1, "r2": 2}
    watch = held.view.watch()
    watch.changed()
    held.expire()
    assert watch.changed() == ([], []), "what is within the limit stays as it is"


def test_of_each_run_as_many_failed_records_are_named_as_a_lower_limit_says_whatever_others_lose() -> None:
    held = store(Clock(NOON + 60))
    for number in range(2):
        commit(held, snapshot(f"r{number}", records=counts(0, failed=3), updated_at=NOON + number))
        (run,) = held.runs_missing_failed_records("p1")
        held.keep_failed_records("p1", run, [failed_record(f"{number}{each}") for each in "abc"])
    held.config = config_with(limits={"failed_records": 3, "failed_records_per_run": 2})
    held.expire()
    assert {shown.run.id: len(shown.run.failed_records) for shown in held.view.runs()} == {"r0": 1, "r1": 2}


def test_failed_records_of_a_dropped_run_do_not_count_towards_the_limit() -> None:
    held = store(Clock(NOON + 60), limits={"failed_records": 2})
    for run_id, updated_at in (("gone", NOON), ("stays", NOON + 1), ("last", NOON + 2)):
        commit(held, snapshot(run_id, records=counts(0, failed=1), updated_at=updated_at))
        (run,) = held.runs_missing_failed_records("p1")
        held.keep_failed_records("p1", run, [failed_record(run_id)])
    held.drop_run("p1", "gone")
    held.config = config_with(limits={"failed_records": 1})
    held.expire()
    assert {shown.run.id: len(shown.run.failed_records) for shown in held.view.runs()} == {"stays": 0, "last": 1}


def test_trimming_named_records_does_not_mark_a_run_as_read_whose_request_failed() -> None:
    held = store(Clock(NOON + 60), limits={"failed_records": 2})
    commit(held, snapshot("run", records=counts(3, failed=2)))
    (run,) = held.runs_missing_failed_records("p1")
    held.keep_failed_records("p1", run, [failed_record("a"), failed_record("b")])
    # Another record fails, the request for the records does too, and the limit becomes smaller.
    commit(held, snapshot("run", records=counts(3, failed=3), updated_at=NOON + 70))
    held.config = config_with(limits={"failed_records": 1})
    held.expire()
    assert [len(shown.run.failed_records) for shown in held.view.runs()] == [1]
    assert [run.id for run in held.runs_missing_failed_records("p1")] == ["run"], "it is never requested again"


def test_a_run_without_named_records_does_not_delay_the_trimming_of_others() -> None:
    held = store(Clock(NOON + 60), limits={"failed_records": 2})
    for run_id, names in (("first", "ab"), ("second", "")):
        commit(held, snapshot(run_id, records=counts(0, failed=2)))
        (run,) = held.runs_missing_failed_records("p1")
        held.keep_failed_records("p1", run, [failed_record(name) for name in names])
    project = next(held.view.projects())
    assert [run.id for run in project.runs_with_failed_records()] == ["first"]
    held.keep_failed_records("p1", held.runs_of("p1")["first"], [])
    assert project.runs_with_failed_records() == []


def test_spinners_of_a_removed_project_free_their_slots() -> None:
    held = store(Clock(NOON + 60), projects={"p1": "Sales", "p2": "Support"}, limits={"spinners": 1})
    commit(held, snapshot("a", spinner="Mails"))
    held.drop_project("p1")
    commit(held, snapshot("b", spinner="Report"), project="p2")
    assert [shown.spinner for shown in held.view.spinners()] == ["Report"], "a slot is still taken"


def test_a_lower_limit_takes_slots_from_spinners_without_runs_first_and_counts_them() -> None:
    reasons: list[str] = []
    held = store(Clock(NOON + 60), dropped=reasons.append)
    commit(
        held, snapshot("a", Status.COMPLETED, spinner="Idle"), *(snapshot(name, spinner=name) for name in ("b", "c"))
    )
    held.drop_run("p1", "a")
    held.config = config_with(limits={"spinners_per_project": 2})
    held.expire()
    assert {shown.spinner for shown in held.view.spinners()} == {"b", "c"}
    held.config = config_with(limits={"spinners_per_project": 1})
    held.expire()
    assert len({shown.spinner for shown in held.view.spinners()} & {"b", "c"}) == 1
    assert {shown.spinner for shown in held.view.spinners()} > {"other"}
    assert reasons == ["gone", "spinner_limit", "spinner_limit"]
