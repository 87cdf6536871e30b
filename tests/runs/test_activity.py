"""How far activity moves a threshold, and what two reads of records in flight show."""

import pytest

from exporter.runs.activity import Activity, Seen
from exporter.runs.listed_records import ListedRecords
from exporter.runs.pace import Expectation
from exporter.runtime.model import OpenRecord

SINCE = 1000.0
"""Since when the run is silent."""


@pytest.mark.parametrize(
    ("activity", "seconds"),
    [
        (Activity(), 600),
        (Activity(moved_at=SINCE - 50), 600),
        (Activity(moved_at=SINCE + 50), 650),
        (Activity(moved_at=SINCE + 5000), 1200),
        (Activity(tried_at=SINCE + 50), 650),
        (Activity(tried_at=SINCE + 5000), 900),
        (Activity(moved_at=SINCE + 50, tried_at=SINCE + 5000), 900),
        (Activity(moved_at=SINCE + 400, tried_at=SINCE + 5000), 1000),
    ],
)
def test_the_silence_is_counted_from_the_activity_within_bounds(activity: Activity, seconds: float) -> None:
    assert activity.allows(600, SINCE) == seconds


def test_both_thresholds_are_moved_and_neither_beyond_the_ceiling() -> None:
    active = Activity(moved_at=SINCE + 5000)
    extended = active.extended(Expectation(3600, "last records", 600), SINCE, ceiling=5000)
    assert extended == Expectation(5000, "last records", 1200)
    assert active.extended(Expectation(5000, "ceiling"), SINCE, ceiling=5000).page == 5000
    unmoved = Expectation(600, "floor")
    assert Activity(moved_at=SINCE - 1).extended(unmoved, SINCE, ceiling=5000) is unmoved


def test_the_later_times_are_kept_and_none_is_yet_to_come() -> None:
    one, other = Activity(moved_at=5.0), Activity(moved_at=3.0, tried_at=7.0)
    assert one.merged(other) == other.merged(one) == Activity(5.0, 7.0)
    assert Activity(youngest_at=5.0).merged(Activity(youngest_at=3.0)).youngest_at == 3.0, "as the last read says"
    assert Activity(youngest_at=5.0).merged(Activity()).youngest_at is None
    assert (Activity(5.0, 7.0).last_at, Activity().last_at) == (7.0, None)
    assert Activity(5.0, 7.0, True, 9.0).not_ahead_of(6.0) == Activity(5.0, 6.0, True, 6.0)


def in_flight(
    record_id: str = "rec-1", began: float | None = None, step: int | None = None, **fields: object
) -> OpenRecord:
    return OpenRecord(record_id, "", step, began, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("began", "is_whole", "youngest_at"),
    [
        ((SINCE - 900, SINCE - 300), True, SINCE - 300),
        ((SINCE - 900, SINCE - 300), False, None),
        ((SINCE - 900, None), True, None),
        ((SINCE - 900, SINCE + 3600), True, None),
        ((SINCE + 310,), True, SINCE + 300),
        ((), True, None),
    ],
)
def test_the_youngest_is_known_if_the_start_of_each_record_is(
    began: tuple[float | None, ...], is_whole: bool, youngest_at: float | None
) -> None:
    records = [in_flight(f"rec-{number}", each) for number, each in enumerate(began)]
    assert Seen().activity_until(records, SINCE + 300, SINCE, is_whole=is_whole).youngest_at == youngest_at


def test_a_record_without_times_is_new_only_if_the_whole_list_was_read_before() -> None:
    for is_whole, tried_at in ((True, SINCE + 300), (False, None)):
        seen = Seen().followed_by([in_flight("rec-0")], is_whole=is_whole)
        assert seen.activity_until([in_flight("rec-1")], SINCE + 300, SINCE, is_whole=True) == Activity(
            tried_at=tried_at, is_working=True
        )


def test_a_step_without_times_counts_as_little_as_an_attempt() -> None:
    """Whether the record began during the silence is not known."""
    seen = Seen().followed_by([in_flight(step=1)], is_whole=True)
    shown = seen.activity_until([in_flight(step=2)], SINCE + 300, SINCE, is_whole=True)
    assert (shown.moved_at, shown.tried_at) == (None, SINCE + 300)
    seen = Seen().followed_by([in_flight(began=SINCE, step=1)], is_whole=True)
    shown = seen.activity_until([in_flight(began=SINCE, step=2)], SINCE + 300, SINCE, is_whole=True)
    assert (shown.moved_at, shown.tried_at) == (SINCE + 300, SINCE)


@pytest.mark.parametrize(
    ("began", "reached", "moved_at", "tried_at"),
    [
        (SINCE + 60, SINCE + 70, SINCE + 70, SINCE + 60),
        (SINCE + 61, SINCE + 70, None, SINCE + 70),
        (SINCE + 60, SINCE + 60, None, SINCE + 60),
        (SINCE + 60, SINCE + 59, None, SINCE + 60),
        (SINCE - 9, SINCE + 330, SINCE + 300, SINCE - 9),
        (SINCE - 9, SINCE + 331, None, SINCE - 9),
    ],
    ids=["went on", "began late", "at its first step", "times that contradict", "just now", "yet to come"],
)
def test_a_record_that_began_within_a_minute_of_the_last_one_that_finished_moves_when_it_goes_on(
    began: float, reached: float, moved_at: float | None, tried_at: float | None
) -> None:
    shown = Seen().activity_until([in_flight(began=began, step_started_at=reached)], SINCE + 300, SINCE, is_whole=False)
    assert shown == Activity(moved_at, tried_at, is_working=True)


def test_an_attempt_that_begins_the_step_again_is_no_step_forward() -> None:
    """Some runtimes tell when the last attempt at the step began instead of the first."""
    seen = Seen()
    for at in (SINCE + 10, SINCE + 100):
        seen = seen.followed_by([in_flight(began=SINCE - 9, step=2, step_started_at=at)], is_whole=True)
    shown = seen.activity_until(
        [in_flight(began=SINCE - 9, step=2, step_started_at=SINCE + 200)], SINCE + 300, SINCE, is_whole=False
    )
    assert (shown.moved_at, shown.tried_at) == (None, SINCE + 200)
    shown = seen.activity_until(
        [in_flight(began=SINCE - 9, step=2, step_started_at=SINCE + 10)], SINCE + 300, SINCE, is_whole=False
    )
    assert shown.moved_at == SINCE + 10
    shown = seen.activity_until(
        [in_flight(began=SINCE - 9, step=3, step_started_at=SINCE + 200)], SINCE + 300, SINCE, is_whole=False
    )
    assert shown.moved_at == SINCE + 200


def test_fewer_attempts_than_before_are_no_attempt() -> None:
    seen = Seen().followed_by([in_flight(step=1, attempts=3)], is_whole=True)
    assert seen.activity_until([in_flight(step=1, attempts=2)], SINCE + 300, SINCE, is_whole=True).last_at is None
    assert seen.activity_until([in_flight(step=1)], SINCE + 300, SINCE, is_whole=True).last_at is None


def test_the_oldest_is_unknown_if_one_of_the_records_does_not_tell_when_it_began() -> None:
    known, unknown = in_flight("rec-1", 5.0), in_flight("rec-2")
    kept = ListedRecords.of("in flight", [unknown, known], is_whole=True, most_named=1, most_steps=1)
    assert (kept.named, kept.oldest_at, kept.by_step) == ((known,), None, (("", 2),))
    assert ListedRecords.of("in flight", [known], is_whole=True, most_named=1, most_steps=1).oldest_at == 5.0
    kept = ListedRecords.of("in flight", [known], is_whole=False, most_named=1, most_steps=1)
    assert (kept.oldest_at, kept.by_step) == (None, ())
    assert ListedRecords.of("in flight", [], is_whole=True, most_named=1, most_steps=1).by_step == (("", 0),)
