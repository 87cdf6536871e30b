"""One run: the state that its snapshots result in, in any order."""

import pytest

from exporter.runs.run import Run, ended_before
from exporter.runs.spinner import Spinner, TrackedRun
from exporter.runtime.model import RunSnapshot
from exporter.status import Status
from tests.builders import NOON, counts, snapshot

SEEN = NOON + 100


def test_an_older_snapshot_of_the_same_read_does_not_replace_a_newer_one() -> None:
    newer = snapshot(records=counts(5), updated_at=NOON + 50)
    older = snapshot(records=counts(3), updated_at=NOON + 30)
    assert Run.first(newer, SEEN).fold(older, SEEN + 1, same_read=True).records.completed == 5
    assert Run.first(older, SEEN).fold(newer, SEEN + 1, same_read=True).records.completed == 5


@pytest.mark.parametrize(
    ("kept", "other"),
    [
        (snapshot(status=Status.COMPLETED, records=counts(3)), snapshot(records=counts(5))),
        (snapshot(records=counts(5)), snapshot(records=counts(3))),
        (snapshot(records=counts(1)), snapshot(records=counts(0, pending=5))),
        (snapshot(records=counts(1)), snapshot(records=None)),
        (snapshot(status=Status.WAITING), snapshot(status=Status.RUNNING)),
    ],
    ids=["ended", "more finished", "any finished", "counts are known", "whichever, but always the same"],
)
def test_of_two_states_with_the_same_times_the_further_one_is_kept_in_whatever_order_they_come(
    kept: RunSnapshot, other: RunSnapshot
) -> None:
    for first, second in ((kept, other), (other, kept)):
        assert Run.first(first, SEEN).fold(second, SEEN, same_read=True).snapshot == kept


def test_the_newest_read_decides_whatever_the_times_say() -> None:
    before = snapshot(records=counts(3), updated_at=NOON + 72_000)
    run = Run.first(before, SEEN)
    assert run.last_progress_at == SEEN, "what is seen is not yet to come"
    after = run.fold(snapshot(records=counts(5), updated_at=NOON + 130), SEEN + 60)
    assert (after.records.completed, after.last_progress_at) == (5, SEEN + 60)


def test_a_reported_progress_from_the_future_is_as_old_as_it_has_been_known() -> None:
    run = Run.first(snapshot(last_progress_at=NOON + 72_000), SEEN)
    again = run.fold(snapshot(last_progress_at=NOON + 72_000, updated_at=NOON + 700), SEEN + 600)
    assert (run.last_progress_at, again.last_progress_at) == (SEEN, SEEN)


def test_a_queued_state_that_is_older_is_not_a_restart() -> None:
    """A server that lags behind shows it once: records would be counted twice."""
    run = Run.first(snapshot(records=counts(7)), SEEN)
    queued = Run.first(snapshot(status=Status.QUEUED, records=counts(0), updated_at=NOON), SEEN + 60)
    assert not run.restarted_by(queued)
    queued = Run.first(snapshot(status=Status.QUEUED, records=counts(0)), SEEN + 60)
    assert not run.restarted_by(queued), "of the same time"
    assert run.restarted_by(Run.first(snapshot(status=Status.QUEUED, records=counts(0), updated_at=SEEN), SEEN))


@pytest.mark.parametrize(("ahead", "shown"), [(30, SEEN + 30), (31, SEEN)])
def test_a_time_that_is_half_a_minute_ahead_of_the_read_that_shows_it_is_believed(ahead: float, shown: float) -> None:
    at = SEEN + ahead
    assert Run.first(snapshot(records=counts(1), updated_at=at), SEEN).last_progress_at == shown
    assert Run.first(snapshot(last_progress_at=at), SEEN).last_progress_at == shown
    assert Run.first(snapshot(status=Status.FAILED, ended_at=None, updated_at=at), SEEN).ended_at == shown


def test_a_run_had_ended_before_each_time_after_its_end() -> None:
    ended = snapshot(status=Status.COMPLETED, ended_at=NOON + 60)
    assert [ended_before(ended, NOON + seconds) for seconds in (59, 60, 61)] == [False, False, True]
    untold = snapshot(status=Status.COMPLETED, ended_at=None, updated_at=NOON + 70)
    assert [ended_before(untold, NOON + seconds) for seconds in (70, 71)] == [False, True]
    assert not ended_before(snapshot(), NOON + 9999)


def test_counts_that_change_without_updated_at_are_seen_by_a_later_read() -> None:
    before = snapshot(records=counts(3), updated_at=NOON + 30)
    after = snapshot(records=counts(7), updated_at=NOON + 30)
    run = Run.first(before, SEEN).fold(after, SEEN + 60)
    assert run.records.completed == 7
    assert run.last_progress_at == SEEN + 60, "all we know is that it had moved when we looked"


def test_progress_is_completed_plus_failed() -> None:
    run = Run.first(snapshot(records=counts(3, failed=1, total=8)), SEEN)
    assert run.progress_ratio() == 0.5


@pytest.mark.parametrize("total", [None, 0])
def test_there_is_no_progress_while_the_total_is_unknown(total: int | None) -> None:
    assert Run.first(snapshot(records=counts(3, total=total)), SEEN).progress_ratio() is None


def test_progress_never_exceeds_the_whole() -> None:
    assert Run.first(snapshot(records=counts(30, total=10)), SEEN).progress_ratio() == 1.0


def test_updated_at_alone_does_not_change_the_progress_time() -> None:
    run = Run.first(snapshot(records=counts(3), updated_at=NOON + 30), SEEN)
    touched = run.fold(snapshot(records=counts(3), updated_at=NOON + 90), SEEN + 60)
    assert touched.last_progress_at == NOON + 30


def test_a_progress_time_from_the_runtime_takes_precedence() -> None:
    run = Run.first(snapshot(records=counts(3), last_progress_at=NOON + 20), SEEN)
    later = run.fold(snapshot(records=counts(4), last_progress_at=NOON + 33, updated_at=NOON + 90), SEEN + 60)
    assert later.last_progress_at == NOON + 33


def test_records_that_finish_are_progress_although_the_time_of_the_last_one_is_long_before() -> None:
    """It is the time of a worker whose clock is behind, or is told only now and then."""

    def at(seconds: float, completed: int, told: float) -> tuple[RunSnapshot, float]:
        updated_at = SEEN + seconds
        newest = snapshot(
            records=counts(completed),
            started_at=NOON - 7200,
            last_progress_at=NOON + told,
            updated_at=updated_at,
        )
        return newest, updated_at

    run = Run.first(*at(0, 3, told=-1200))
    assert run.last_progress_at == NOON - 1200
    run = run.fold(*at(600, 4, told=-600))
    assert run.last_progress_at == SEEN, "the fourth record had not finished then"
    run = run.fold(*at(900, 5, told=-600))
    assert run.last_progress_at == SEEN + 600
    for seconds, completed in ((960, 5), (990, 5), (1020, 4), (1050, 5)):
        run = run.fold(*at(seconds, completed, told=-600))
        assert run.last_progress_at == SEEN + 600, (
            "nothing has finished since, whatever a server shows that lags behind"
        )
    run = run.fold(*at(1100, 6, told=SEEN - NOON + 1070))
    assert run.last_progress_at == SEEN + 1070


def test_the_progress_time_of_a_run_without_finished_records_is_its_start() -> None:
    assert Run.first(snapshot(records=counts(0), updated_at=NOON + 500), SEEN).last_progress_at == NOON + 5


def test_a_queued_run_has_no_progress_time() -> None:
    assert Run.first(snapshot(status=Status.QUEUED), SEEN).last_progress_at is None


def test_the_progress_time_of_a_restarted_run_is_its_new_start() -> None:
    run = Run.first(snapshot(records=counts(0)), SEEN)
    again = run.fold(snapshot(records=counts(0), started_at=NOON + 500, updated_at=NOON + 500), SEEN + 500)
    assert again.last_progress_at == NOON + 500


def test_an_end_without_a_time_is_dated_by_its_first_snapshot() -> None:
    run = Run.first(snapshot(status=Status.COMPLETED, ended_at=None, updated_at=NOON + 60), SEEN)
    touched = run.fold(snapshot(status=Status.COMPLETED, ended_at=None, updated_at=NOON + 900), SEEN + 900)
    assert touched.ended_at == NOON + 60, "or its retention would never run out"


def test_a_status_in_progress_is_not_ended_by_an_end_time_left_over() -> None:
    assert not Run.first(snapshot(ended_at=NOON + 60), SEEN).ended


def test_a_run_of_unknown_status_ends_with_its_end_time() -> None:
    assert Run.first(snapshot(status=Status.UNKNOWN, ended_at=NOON + 60), SEEN).ended
    assert not Run.first(snapshot(status=Status.UNKNOWN), SEEN).ended


def test_duration_grows_until_the_end_and_is_constant_after_it() -> None:
    running = Run.first(snapshot(), SEEN)
    assert running.duration(NOON + 65) == 60
    ended = Run.first(snapshot(status=Status.FAILED), SEEN)
    assert ended.duration(NOON + 9999) == 55


def test_duration_is_never_negative() -> None:
    assert Run.first(snapshot(), SEEN).duration(NOON) == 0


@pytest.mark.parametrize(
    ("status", "waiting", "waits"),
    [
        (Status.RUNNING, 1, True),
        (Status.WAITING, 0, False),
        (Status.WAITING, None, True),
        (Status.RUNNING, None, False),
    ],
)
def test_whether_records_wait_is_told_by_their_number_or_else_by_the_status(
    status: Status, waiting: int | None, *, waits: bool
) -> None:
    for records in (counts(waiting=waiting), None) if waiting is None else (counts(waiting=waiting),):
        assert Run.first(snapshot(status=status, records=records), SEEN).has_waiting_records == waits


def test_the_same_snapshot_again_changes_nothing() -> None:
    run = Run.first(snapshot(records=counts(3)), SEEN)
    assert run.fold(snapshot(records=counts(3)), SEEN + 60) is run


def test_of_a_run_that_was_counted_and_forgotten_only_what_comes_later_is_counted() -> None:
    spinner = Spinner()
    run = TrackedRun(Run.first(snapshot(status=Status.COMPLETED, records=counts(4)), SEEN))
    run.count_nothing()
    spinner.count([run], is_own=True)
    run.run = run.run.fold(snapshot(records=counts(6, failed=2), updated_at=SEEN), SEEN + 60)
    spinner.count([run], is_own=True)
    counters = spinner.counters
    assert (counters.started, counters.completed_records, counters.failed_records) == (0, 2, 2)


@pytest.mark.parametrize(
    ("again", "completed", "failed"),
    [
        # Before it has started again, all that it has is from before.
        ([(Status.QUEUED, 3, 0), (Status.RUNNING, 3, 0), (Status.COMPLETED, 4, 0)], 4, 1),
        ([(Status.QUEUED, 2, 0), (Status.RUNNING, 3, 1)], 4, 2),
        ([(Status.QUEUED, 0, 0), (Status.RUNNING, 2, 0)], 5, 1),
        # Seen later, it is one of the failed records alone if no fewer have completed.
        ([(Status.RUNNING, 3, 0), (Status.COMPLETED, 4, 0)], 4, 1),
        ([(Status.RUNNING, 2, 0)], 5, 1),
    ],
    ids=["queued, failed only", "queued, some", "queued, all", "running, failed only", "running, all"],
)
def test_the_records_that_a_restarted_run_has_kept_are_not_counted_again(
    again: list[tuple[Status, int, int]], completed: int, failed: int
) -> None:
    spinner = Spinner()
    run = TrackedRun(Run.first(snapshot(status=Status.FAILED, records=counts(3, failed=1)), SEEN))
    spinner.count([run])
    for step, (status, of_completed, of_failed) in enumerate(again, start=1):
        at = SEEN + 60 * step
        started_at = None if status is Status.QUEUED else SEEN + 30
        records = counts(of_completed, failed=of_failed)
        newer = snapshot(status=status, records=records, started_at=started_at, updated_at=at, ended_at=None)
        run.change(run.run.fold(newer, at), at)
        spinner.count([run])
    counters = spinner.counters
    assert (counters.completed_records, counters.failed_records) == (completed, failed)
    assert (counters.started, sum(counters.finished.values())) == (1, 1)
