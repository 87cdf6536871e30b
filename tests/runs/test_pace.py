"""Which silence counts as a stall, one rule per test; `tests/stalls` has whole histories."""

import itertools
import math
import re
from typing import Any

import msgspec
import pytest

from exporter.config import StallsConfig
from exporter.runs.activity import Activity
from exporter.runs.pace import (
    AGE_FACTOR,
    BEYOND_BELIEF,
    EARLIER_FACTOR,
    EARLIER_MOST,
    FEW,
    FEW_FACTOR,
    FIRST_FACTOR,
    GAP_FACTOR,
    HELD_BACK,
    HELD_BACK_LEAST,
    HELD_BACK_MOST,
    HELD_BACK_SEEN,
    HELD_BACK_WORKED,
    LAST_FACTOR,
    NEGLIGIBLE,
    OPEN_FACTOR,
    OTHERS_MOST,
    OVERTAKEN,
    PAUSED,
    PAUSES,
    STRAGGLER_FACTOR,
    STRAGGLER_FINISHED,
    STRAGGLER_LEAST,
    UNKNOWN_FACTOR,
    WHOLE_RUN,
    Expectation,
    RunPace,
    SpinnerPace,
)
from exporter.runs.project import Progress
from exporter.runs.run import Run
from exporter.runs.store import Store
from exporter.runs.view import ShownRun
from exporter.runtime.model import Health, RecordCounts, RunSnapshot
from exporter.status import Status
from tests.builders import NOON, Clock, config_with, counts, read_project, snapshot, store

MINUTE, HOUR = 60.0, 3600.0
FLOOR = StallsConfig().floor


class Watch:
    """A store that sees one run every half minute."""

    def __init__(self, **sections: Any) -> None:
        self.clock = Clock(NOON)
        self.store: Store = store(self.clock, sync={"stale_after": 1e9}, **sections)
        self.fields: dict[str, Any] = {"started_at": NOON, "created_at": NOON, "updated_at": NOON}
        self.finished = 0

    def see(self, *, after: float = 30.0, finished: int = 0, run_id: str = "run-1", **fields: Any) -> None:
        """Read the run `after` seconds later, in which `finished` records finished, the last one now."""
        self.clock.advance(after)
        self.finished += finished
        self.fields |= {"updated_at": self.clock.now, **fields}
        self.fields.setdefault("status", Status.RUNNING)
        if finished:
            self.fields["last_progress_at"] = self.clock.now
        if "records" not in fields:
            self.fields["records"] = counts(self.finished, total=100_000, running=1, pending=1)
        self._commit(snapshot(run_id, **self.fields))

    def see_beside(self, *, after: float, **fields: Any) -> None:
        """Read another run `after` seconds later, in which a record finished now."""
        self.clock.advance(after)
        fields |= {"updated_at": self.clock.now, "last_progress_at": self.clock.now}
        self._commit(snapshot("beside", spinner="Other", records=counts(1, total=100, running=1, pending=98), **fields))

    def expectation(self, run_id: str) -> Expectation:
        shown = self.store.view.run(("p1", run_id))
        assert shown is not None
        assert shown.expectation is not None
        return shown.expectation

    def look(self, after: float = 30.0) -> None:
        """Read when nothing has changed."""
        self.clock.advance(after)
        self._commit()

    def work(self, records: int, gap: float) -> None:
        for _ in range(records):
            self.see(after=gap, finished=1)

    def end(self, run_id: str = "run-1", **fields: Any) -> None:
        """Let the run complete; what is seen next is a run that starts now."""
        self.see(run_id=run_id, status=Status.COMPLETED, ended_at=self.clock.now, **fields)
        self.begin()

    def begin(self) -> None:
        self.fields |= {
            "status": Status.RUNNING,
            "ended_at": None,
            "last_progress_at": None,
            "created_at": self.clock.now,
            "started_at": self.clock.now,
        }
        self.finished = 0

    def threshold(self) -> float | None:
        shown = self.shown()
        return shown.stall_threshold()

    def stalled(self) -> bool:
        shown = self.shown()
        threshold, progress = shown.stall_threshold(), shown.run.last_progress_at
        return threshold is not None and progress is not None and self.clock.now - progress > threshold

    def shown(self) -> ShownRun:
        (shown,) = (each for each in self.store.view.runs() if not each.run.ended)
        return shown

    def basis(self) -> str:
        expectation = self.shown().expectation
        assert expectation is not None
        return expectation.basis

    def _commit(self, *snapshots: RunSnapshot) -> None:
        sightings = [(each, self.clock.now) for each in snapshots]
        read_project(self.store, "p1", sightings, as_of=self.clock.now, horizon=NOON - HOUR)


def test_the_threshold_of_a_fast_run_is_the_floor_once_its_pace_is_known() -> None:
    watch = Watch()
    watch.work(60, gap=30)
    assert watch.threshold() == 600


def test_a_young_run_of_a_spinner_without_ended_runs_has_a_higher_threshold() -> None:
    watch = Watch()
    watch.work(3, gap=30)
    assert watch.threshold() == UNKNOWN_FACTOR * StallsConfig().floor


def test_a_run_without_a_finished_record_has_a_threshold_too() -> None:
    watch = Watch()
    watch.see()
    assert watch.threshold() == UNKNOWN_FACTOR * StallsConfig().floor
    watch.clock.advance(20 * MINUTE)
    assert watch.stalled(), "it hangs before its first record has finished"


def test_the_threshold_of_a_slow_run_is_a_multiple_of_its_longest_gap() -> None:
    watch = Watch()
    watch.work(10, gap=8 * MINUTE)
    assert watch.threshold() == FEW_FACTOR * 8 * MINUTE
    assert watch.basis() == "own gaps"


def after_gaps(*gaps: float, false_pages: float = 0.4) -> float:
    """The threshold of a run without a floor that has had these gaps, and whose spinner is known."""
    watch = Watch(stalls={"floor": 1.0, "false_pages": false_pages})
    for gap in gaps:
        watch.see(after=gap, finished=1)
    return watch.threshold() or 0.0


def test_the_longer_gaps_were_observed_the_less_longer_than_the_longest_may_the_next_be() -> None:
    factors = [after_gaps(*[95.0, 105.0] * pairs) / 105 for pairs in (20, 100, 1000)]
    assert GAP_FACTOR > factors[0] > factors[1] > factors[2] > 1.0


@pytest.mark.parametrize(("count", "shape"), [(21, (13.12 * 21 + 3 * 2) / 23), (300, (39.47 * 300 + 3 * 2) / 302)])
def test_few_gaps_have_the_usual_tail_in_part_and_many_have_their_own(count: int, shape: float) -> None:
    """That of equal gaps is steep: their longest is their mean, and of random ones it would be ln n + 0.58 times it."""
    pages = 20.0
    rarer = 360_000 / pages / (count * 100)
    expected = 100 * max(rarer, 1.0) ** (1 / shape)
    assert after_gaps(*[100.0] * count, false_pages=pages) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("gaps", "threshold"),
    [
        ((4.5, 3), 600 * UNKNOWN_FACTOR),
        ((9, 3, 5), FEW_FACTOR * 9 * MINUTE),
        ((2.7, 2), (mean := 2.7 * MINUTE / 1.49) * math.log(900_000 / mean)),
        ((1, 0.8, 1, 0.5), 600),
        ((2.5, *[0.4] * 20), 600),
    ],
)
def test_after_few_gaps_of_minutes_the_next_may_be_several_times_longer(
    gaps: tuple[float, ...], threshold: float
) -> None:
    """The other spinners of the project are known so well that little is unknown."""
    watch = Watch()
    watch.work(400, gap=30)
    watch.end()
    for gap in gaps:
        watch.see(run_id="run-2", spinner="another", after=gap * MINUTE, finished=1)
    assert watch.threshold() == pytest.approx(threshold, rel=0.01), "how long a run of such gaps may be silent"


@pytest.mark.parametrize(
    ("records", "factor"),
    [(20, EARLIER_MOST), (150, 8.6 / (math.log(150.5) + 0.577 - 1)), (900, EARLIER_FACTOR)],
)
def test_the_fewer_gaps_earlier_runs_had_the_less_their_recurring_one_says(records: int, factor: float) -> None:
    watch = Watch()
    watch.work(records - 2, gap=20)
    watch.work(2, gap=12 * MINUTE)
    watch.end()
    watch.see(run_id="run-2", finished=1)
    assert watch.threshold() == pytest.approx(factor * 12 * MINUTE, rel=0.02)


def test_gaps_with_a_heavy_tail_may_be_followed_by_a_longer_one() -> None:
    regular, heavy = after_gaps(*[100.0] * 300), after_gaps(*[90.0] * 299, 6000.0)
    assert regular / 100 < heavy / 6000 == GAP_FACTOR


def test_with_fewer_acceptable_false_pages_a_silence_may_be_longer() -> None:
    thresholds = [after_gaps(*[100.0] * 300, false_pages=pages) for pages in (10, 1, 0.1)]
    assert thresholds == sorted(set(thresholds))
    young = [after_gaps(0.1, false_pages=pages) for pages in (2, 0.8, 0.1)]
    assert young == sorted(set(young))


def test_idle_gaps_between_bursts_are_normal_for_a_run_that_had_them_before() -> None:
    watch = Watch()
    for _ in range(3):
        watch.work(10, gap=3)
        for _ in range(60):
            watch.look()
        watch.see(after=1, finished=20)
    watch.look(after=35 * MINUTE)
    assert not watch.stalled(), "the mean gap is seconds, the longest half an hour: the longest counts"


def test_the_last_record_may_take_as_long_as_a_record_takes() -> None:
    watch = Watch()
    for number in range(1, 38):
        watch.see(after=2 * MINUTE, finished=1, records=counts(number, total=48, running=10))
        if number > 20:
            assert watch.threshold() == 600, "more wait than are worked on: another record finishes in the meantime"
    watch.see(after=2 * MINUTE, finished=1, records=counts(38, total=48, running=8))
    assert watch.threshold() == LAST_FACTOR / 8 * 20 * MINUTE, "ten at once and one every 2 minutes: each takes 20"
    for number in range(39, 46):
        watch.see(after=2 * MINUTE, finished=1, records=counts(number, total=48, running=48 - number))
    assert watch.threshold() == pytest.approx(STRAGGLER_FACTOR * 20 * MINUTE, rel=0.06), "three are left"
    assert watch.basis() == "few in progress"


@pytest.mark.parametrize(
    ("older", "longer"),
    [(-1, STRAGGLER_FACTOR), (0.2, STRAGGLER_FACTOR), (0.5, AGE_FACTOR - 0.5), (1.0, AGE_FACTOR - 1), (3.0, 0.0)],
)
@pytest.mark.parametrize("left", [3, 2, 1])
def test_records_that_began_long_before_the_silence_have_less_time_left(older: float, longer: float, left: int) -> None:
    """`older`: than the silence, in times that a record takes. `longer`: of these, what the silence may take."""
    watch = Watch()
    for number in range(1, 49 - left):
        watch.see(after=2 * MINUTE, finished=1, records=counts(number, total=48, running=min(10, 48 - number)))
    takes = (watch.threshold() or 0.0) / STRAGGLER_FACTOR
    assert takes == pytest.approx(20 * MINUTE, rel=0.1)
    since = watch.shown().silent_since()
    watch.store.keep_activity(("p1", "run-1"), Activity(is_working=True, youngest_at=since - older * takes))
    if left == 1:
        longer = STRAGGLER_FACTOR  # a single one may be one of the few that take much longer
    least = 600 if left == 3 else 600 * UNKNOWN_FACTOR
    assert watch.threshold() == pytest.approx(max(longer * takes, least)), "never less than what the other rules say"


def test_what_had_finished_when_the_number_was_first_told_shortens_no_later_gap() -> None:
    watch = Watch()
    watch.see(records=None, last_progress_at=NOON)
    watch.finished = 100
    watch.see()
    watch.see(after=20 * MINUTE, finished=1)
    assert watch.shown().pace.longest_gap == pytest.approx(21 * MINUTE), "one record has finished since, and not 101"


@pytest.mark.parametrize(("most", "waits_longer"), [(8, True), (7, False)])
def test_records_of_which_at_most_a_fourth_is_in_progress_may_wait_for_something(most: int, waits_longer: bool) -> None:
    watch = Watch()
    for number in range(1, 100):
        watch.see(after=30, finished=1, records=counts(number, total=1000, running=most, pending=900))
    watch.see(after=30, finished=1, records=counts(100, total=1000, running=2, pending=898))
    assert watch.threshold() == (UNKNOWN_FACTOR if waits_longer else 1.0) * FLOOR


def test_a_record_takes_no_longer_than_the_run_has_been_at_work() -> None:
    watch = Watch()
    watch.see(records=counts(0, total=10, running=10))
    watch.see(after=20 * MINUTE, finished=7, records=counts(7, total=10, running=3))
    spent = 20.5 * MINUTE
    assert watch.threshold() == pytest.approx(STRAGGLER_FACTOR * spent), "not ten times a seventh of it"


def test_one_or_two_records_that_are_left_may_take_longer_however_fast_the_others_were() -> None:
    watch = Watch()
    for number in range(1, 29):
        watch.see(after=MINUTE, finished=1, records=counts(number, total=31, running=3))
    assert watch.threshold() == 600
    watch.see(after=MINUTE, finished=1, records=counts(29, total=31, running=2))
    assert watch.threshold() == UNKNOWN_FACTOR * 600


def at_the_end(finished: int, left: int, *, stalls: dict[str, float] | None = None, **states: int | None) -> Watch:
    """A run of which one record finished every 20 seconds, four at once, and some are left."""
    watch = Watch(stalls=stalls or {})
    watch.see(records=counts(0, total=finished + left, running=4))
    for number in range(1, finished):
        watch.see(after=20, finished=1, records=counts(number, total=finished + left, running=4))
    watch.see(after=20, finished=1, records=counts(finished, total=finished + left, **({"running": left} | states)))
    return watch


def test_a_run_that_has_finished_all_of_its_records_and_does_not_end_has_no_stragglers() -> None:
    shown = at_the_end(STRAGGLER_FINISHED, 0, running=0).shown()
    assert shown.straggler_threshold() is None
    assert shown.stall_threshold() == UNKNOWN_FACTOR * 600


def test_the_last_one_or_two_of_many_records_are_stragglers_and_page_later() -> None:
    for left in (1, 2):
        shown = at_the_end(STRAGGLER_FINISHED, left).shown()
        assert shown.straggler_threshold() == UNKNOWN_FACTOR * 600
        assert shown.stall_threshold() == max(BEYOND_BELIEF * UNKNOWN_FACTOR, STRAGGLER_LEAST) * 600


def test_stragglers_are_not_later_than_the_ceiling() -> None:
    watch = at_the_end(STRAGGLER_FINISHED, 1, stalls={"floor": 600.0, "ceiling": 700.0})
    shown = watch.shown()
    assert shown.straggler_threshold() == shown.stall_threshold() == 700


@pytest.mark.parametrize(
    ("watch", "why"),
    [
        (at_the_end(STRAGGLER_FINISHED - 1, 1), "few records finished"),
        (at_the_end(STRAGGLER_FINISHED, 3), "three are left"),
        (at_the_end(STRAGGLER_FINISHED, 2, running=1, pending=1), "one waits behind the other"),
        (at_the_end(STRAGGLER_FINISHED, 1, running=None, pending=1), "nobody knows what is in progress"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_records_are_no_stragglers(watch: Watch, why: str) -> None:
    assert watch.shown().straggler_threshold() is None, why
    assert (watch.threshold() or 0) < STRAGGLER_LEAST * 600


def test_of_hundreds_of_records_one_in_200_is_a_straggler() -> None:
    assert at_the_end(597, 3).shown().straggler_threshold() is not None
    assert at_the_end(596, 4).shown().straggler_threshold() is None


@pytest.mark.parametrize("total", [None, 1, 5])
def test_before_the_first_record_only_the_floor_counts_however_low_it_is(total: int | None) -> None:
    watch = Watch(stalls={"floor": 1.0})
    watch.see(records=counts(0, total=total, running=1))
    assert watch.threshold() == UNKNOWN_FACTOR


def test_concurrent_records_of_the_first_snapshot_count_for_the_last_records_too() -> None:
    watch = Watch()
    watch.see(after=75 * MINUTE, finished=36, records=counts(36, total=40, running=9))
    watch.see(after=5 * MINUTE, finished=1, records=counts(37, total=40, running=1))
    assert watch.threshold() == pytest.approx(STRAGGLER_FACTOR * 80 * MINUTE / 37 * 9), (
        "80 minutes for 37 records, nine at once"
    )


def test_records_that_are_worked_on_concurrently_later_count_for_the_last_records_too() -> None:
    watch = Watch()
    watch.see(records=counts(0, total=42, running=1))
    for number in range(1, 39):
        watch.see(after=2 * MINUTE, finished=1, records=counts(number, total=42, running=10))
    watch.see(after=2 * MINUTE, finished=1, records=counts(39, total=42, running=3))
    worked = 1 * 2.5 * MINUTE + 38 * 10 * 2 * MINUTE
    assert watch.threshold() == pytest.approx(STRAGGLER_FACTOR * worked / 39), (
        "ten were worked on at once, although one at first"
    )


def with_a_pool_of(*sizes: int, **states: int | None) -> Watch:
    """A run that works in stages of 100 records, each of which takes 20 minutes, on pools of these sizes."""
    watch = Watch()
    finished = 0
    watch.see(after=0, records=counts(0, total=9000, running=sizes[0], pending=9000))
    for size in sizes:
        watch.see(after=0, records=counts(finished, total=9000, running=size, pending=9000))
        for _ in range(100):
            finished += 1
            watch.see(
                after=20 * MINUTE / size, finished=1, records=counts(finished, total=9000, running=size, pending=9000)
            )
    if states:
        watch.see(after=1, records=counts(finished, total=9000, **states))
    return watch


def test_while_fewer_are_in_progress_than_before_a_record_finishes_more_rarely() -> None:
    """Little's law: what one takes is known from how many were in progress, and for how long."""
    assert with_a_pool_of(40).threshold() == 600
    watch = with_a_pool_of(20, running=6, pending=5000)
    assert watch.threshold() == pytest.approx(LAST_FACTOR / 6 * 20 * MINUTE, rel=0.01), "a minute each before"
    assert watch.basis() == "few in progress"
    assert with_a_pool_of(40, running=3, pending=5000).threshold() == pytest.approx(
        STRAGGLER_FACTOR * 20 * MINUTE, rel=0.01
    )
    assert with_a_pool_of(40, running=39, pending=5000).threshold() == 600


def test_how_long_a_record_takes_does_not_depend_on_how_large_the_pool_once_was() -> None:
    """With the largest number that was ever in progress a record would seem to take 20 times as long."""
    watch = with_a_pool_of(20, 1, 1, 1, running=1, pending=500)
    assert watch.threshold() == pytest.approx(STRAGGLER_FACTOR * 20 * MINUTE, rel=0.02)


@pytest.mark.parametrize(("running", "threshold"), [(FEW, UNKNOWN_FACTOR * 600), (FEW + 1, 600)])
def test_a_fourth_of_the_pool_or_less_may_work_on_records_of_another_kind(running: int, threshold: float) -> None:
    watch = Watch()
    size = FEW * FEW
    for number in range(1, 200):
        watch.see(after=10, finished=1, records=counts(number, total=900, running=size, pending=500))
    watch.see(after=1, records=counts(199, total=900, running=running, pending=500))
    assert watch.threshold() == threshold


def test_a_run_that_is_held_back_for_the_first_time_pages_later_and_opens_a_ticket_before() -> None:
    shown = at_the_end(40, 500, running=0, pending=500).shown()
    assert shown.expectation is not None
    assert shown.expectation.basis == "held back"
    assert shown.stall_threshold() == HELD_BACK * 600
    assert shown.straggler_threshold() == 600, "at that of a run that works; it pages then if something waits for it"
    assert (
        at_the_end(
            STRAGGLER_FINISHED, 500, stalls={"floor": 600.0, "ceiling": 700.0}, running=0, pending=500
        ).threshold()
        == 700
    )


def test_a_run_may_be_held_back_for_longer_the_longer_it_has_worked() -> None:
    watch = at_the_end(60, 500, running=0, pending=500)
    assert watch.threshold() == HELD_BACK_WORKED * (20 * MINUTE + 30)
    assert watch.basis() == "held back"
    assert watch.shown().straggler_threshold() == 600, "the ticket does not wait for it"
    watch.store.keep_health(Health(runtime_up=True, last_heartbeat_at=watch.clock.now))
    assert watch.threshold() == PAUSED * 600, "most quotas return within the hour"


def test_without_heartbeats_a_run_is_held_back_for_an_hour_at_most() -> None:
    """What dispatches its records may have died, and nothing would say so."""
    watch = at_the_end(240, 500, running=0, pending=500)
    assert watch.threshold() == HELD_BACK_MOST * 600
    watch.store.keep_health(Health(runtime_up=True, beats=False))
    assert watch.threshold() == HELD_BACK_MOST * 600
    changes = watch.store.view.watch()
    assert changes.changed()[0]
    watch.store.keep_health(Health(runtime_up=True, last_heartbeat_at=watch.clock.now))
    assert watch.threshold() == pytest.approx(HELD_BACK_WORKED * 80 * MINUTE, rel=0.01), "the night after a day's work"
    assert changes.changed()[0] == [("p1", "run-1")], "its threshold is shown anew"
    watch.store.keep_health(Health(runtime_up=True, last_heartbeat_at=watch.clock.now))
    assert changes.changed()[0] == []


OVERTAKEN_AFTER = OVERTAKEN * 600


@pytest.mark.parametrize(
    ("after", "is_overtaken"), [(OVERTAKEN_AFTER, True), (OVERTAKEN_AFTER - 1, False)], ids=["continues", "ends"]
)
def test_a_run_that_another_run_overtakes_does_not_pause(after: float, is_overtaken: bool) -> None:
    """At night records that were in progress come to their end; those of other runs do not begin."""
    watch = held_back_with_heartbeats()
    held_back = watch.expectation("run-1")
    changes = watch.store.view.watch()
    changes.changed()
    watch.see_beside(after=after)
    expectation = watch.expectation("run-1")
    assert expectation == (msgspec.structs.replace(held_back, page=HELD_BACK_MOST * 600) if is_overtaken else held_back)
    assert (("p1", "run-1") in changes.changed()[0]) == is_overtaken, "its threshold is shown anew"
    watch.see_beside(after=60)
    if is_overtaken:
        assert ("p1", "run-1") not in changes.changed()[0], "once"


def test_only_the_present_silence_is_overtaken() -> None:
    watch = held_back_with_heartbeats()
    watch.see_beside(after=OVERTAKEN_AFTER)
    assert watch.expectation("run-1").page == HELD_BACK_MOST * 600
    watch.see(after=60, finished=1, records=counts(241, total=740, running=0, pending=499))
    assert watch.expectation("run-1").page > HELD_BACK_MOST * 600


def test_a_run_does_not_overtake_itself_and_its_child_does_not_either() -> None:
    watch = held_back_with_heartbeats()
    watch.see(after=OVERTAKEN_AFTER, finished=1, records=counts(241, total=740, running=0, pending=499))
    assert watch.expectation("run-1").page > HELD_BACK_MOST * 600
    watch.see_beside(after=2 * OVERTAKEN_AFTER, parent_id="run-1")
    assert watch.expectation("run-1").page > HELD_BACK_MOST * 600, "it may wait for its child"


def test_a_clock_that_was_set_back_overtakes_nothing() -> None:
    watch = held_back_with_heartbeats()
    watch.see_beside(after=60)
    watch.store.clock.observe(watch.clock.now)
    watch.store.expire()
    for _ in range(5):
        watch.store.clock.observe(watch.clock.now - HOUR)
    watch.store.expire()
    watch.clock.advance(-HOUR)
    watch._commit(snapshot("new", Status.QUEUED, spinner="Other"))
    assert watch.expectation("run-1").page > HELD_BACK_MOST * 600


def test_the_runs_that_made_progress_last_are_known_whatever_the_order() -> None:
    for order in itertools.permutations([(NOON, "a"), (NOON + 1, "a"), (NOON + 2, "b"), (NOON + 3, "c")]):
        progress = Progress()
        for at, run_id in order:
            progress.note(Run.first(snapshot(run_id, started_at=NOON - 9, last_progress_at=at), at))
        progress.note(Run.first(snapshot("d", status=Status.QUEUED, started_at=None), NOON + 9))
        assert progress.of_others("c") == NOON + 2, order
        assert progress.of_others("a") == progress.of_others("d") == NOON + 3, order
    assert Progress().of_others("a") is None


def held_back_with_heartbeats() -> Watch:
    """Return a run that has worked for 80 minutes, and in which nothing is in progress now."""
    watch = at_the_end(240, 500, running=0, pending=500)
    watch.store.keep_health(Health(runtime_up=True, last_heartbeat_at=watch.clock.now))
    return watch


@pytest.mark.parametrize(
    ("running", "pending", "why"),
    [(1, 499, "one is in progress, and may hang"), (0, 0, "nothing waits"), (None, 500, "unknown")],
)
def test_a_run_is_not_held_back_if(running: int | None, pending: int, why: str) -> None:
    shown = at_the_end(STRAGGLER_FINISHED, 500, running=running, pending=pending).shown()
    assert shown.straggler_threshold() is None, why
    assert (shown.stall_threshold() or 0) <= UNKNOWN_FACTOR * 600


def test_a_run_that_is_held_back_may_be_silent_at_least_as_long_as_otherwise() -> None:
    watch = Watch()
    for gap in (20, 50 * MINUTE, 50 * MINUTE):
        watch.see(after=gap, finished=1)
    watch.end()
    for _ in range(4):
        watch.see(run_id="run-2", after=20, finished=1)
    watch.see(run_id="run-2", after=0, records=counts(4, total=550, running=0, pending=500))
    assert watch.threshold() == EARLIER_MOST * 50 * MINUTE
    assert watch.basis() == "earlier runs"


def test_one_worker_that_has_two_records_left_finishes_the_first_one_as_usual() -> None:
    watch = Watch()
    for number in range(1, 41):
        watch.see(after=20, finished=1, records=counts(number, total=42, running=1, pending=41 - number))
    assert watch.threshold() == 600


def test_in_its_last_round_a_full_pool_has_nothing_else_to_finish() -> None:
    watch = Watch()
    for number in range(1, 101):
        watch.see(after=4 * MINUTE, finished=1, records=counts(number, total=104, running=4, pending=100 - number))
    assert watch.threshold() == pytest.approx(LAST_FACTOR / 4 * 16 * MINUTE, rel=0.01)
    assert watch.basis() == "few in progress"


def test_a_tail_without_a_mean_counts_as_one_with_an_exponent_of_one() -> None:
    rarer = 360_000 / 40 / (299 * 1.0 + 6000)
    assert after_gaps(*[1.0] * 299, 6000.0, false_pages=40) == pytest.approx(6000 * rarer, rel=1e-3)


def test_a_run_whose_total_is_unknown_is_held_back_while_nothing_is_in_progress() -> None:
    watch = Watch()
    for number in range(1, 90):
        watch.see(finished=1, records=counts(number, total=None, running=2))
    watch.see(records=counts(89, total=None, running=0, pending=None))
    assert watch.basis() == "held back"


@pytest.mark.parametrize(
    ("gap", "times", "basis"),
    [
        (HELD_BACK_LEAST, HELD_BACK_SEEN, "floor"),
        (HELD_BACK_LEAST, HELD_BACK_SEEN - 1, "held back"),
        (HELD_BACK_LEAST - 1, HELD_BACK_SEEN, "held back"),
        (15 * MINUTE, HELD_BACK_SEEN, "own gaps"),
    ],
)
def test_how_long_a_run_is_held_back_is_known_after_two_windows(gap: float, times: int, basis: str) -> None:
    """A provider opens a window every few minutes."""
    watch = Watch()
    finished = 0
    for _ in range(times):
        for _ in range(40):
            finished += 1
            watch.see(after=20, finished=1, records=counts(finished, total=900, running=2, pending=500))
        watch.see(after=0, records=counts(finished, total=900, running=0, pending=500))
        finished += 1
        watch.see(after=gap, finished=1, records=counts(finished, total=900, running=2, pending=500))
    watch.see(after=0, records=counts(finished, total=900, running=0, pending=500))
    assert watch.basis() == basis


def in_batches(watch: Watch, *, batches: int, run_id: str = "run-1") -> None:
    """Let a run of 900 records work in batches of 40, of which the next begins after a quarter of an hour."""
    finished = 0
    for _ in range(batches):
        for _ in range(40):
            finished += 1
            watch.see(run_id=run_id, after=20, finished=1, records=with_running(finished, 2))
        watch.see(run_id=run_id, after=0, records=with_running(finished, 0))
        finished += 1
        watch.see(run_id=run_id, after=15 * MINUTE, finished=1, records=with_running(finished, 2))


def with_running(finished: int, running: int) -> RecordCounts:
    return counts(finished, total=900, running=running, pending=500)


def test_how_long_no_record_is_in_progress_says_nothing_of_those_that_are() -> None:
    watch = Watch()
    in_batches(watch, batches=3)
    assert (watch.basis(), watch.threshold()) == ("floor", 600.0)
    watch.see(after=0, records=with_running(123, 0))
    assert watch.basis() == "own gaps", "the next batch begins later"


@pytest.mark.parametrize(
    ("spinner", "factor"),
    [("welcome", 1.91), ("Another", EARLIER_FACTOR)],
    ids=["of the same spinner, with 123 gaps", "of another one"],
)
def test_what_earlier_runs_teach_of_records_in_progress_is_apart_from_what_they_teach_of_pauses(
    spinner: str, factor: float
) -> None:
    watch = Watch()
    in_batches(watch, batches=3)
    watch.end()
    for number in range(1, 50):
        watch.see(run_id="run-2", spinner=spinner, after=20, finished=1, records=with_running(number, 2))
    assert (watch.basis(), watch.threshold()) == ("floor", 600.0)
    # Held back twice for a minute, so that it is known of this run, too.
    for number in (50, 51):
        watch.see(run_id="run-2", after=0, records=with_running(number - 1, 0))
        watch.see(run_id="run-2", after=MINUTE, finished=1, records=with_running(number, 2))
    watch.see(run_id="run-2", after=0, records=with_running(51, 0))
    assert watch.basis() == "earlier runs"
    assert watch.threshold() == pytest.approx(factor * 15 * MINUTE, rel=0.01)


def test_long_gaps_in_which_records_were_in_progress_are_learned_as_such() -> None:
    watch = Watch()
    for number in range(1, 9):
        watch.see(after=15 * MINUTE, finished=1, records=with_running(number, 2))
    assert watch.basis() == "own gaps"
    watch.end()
    watch.see(run_id="run-2", finished=1, records=with_running(1, 2))
    assert (watch.basis(), watch.threshold()) == ("earlier runs", EARLIER_MOST * 15 * MINUTE)


def test_what_an_earlier_version_learned_counts_whether_or_not_records_are_in_progress() -> None:
    """It did not note which gaps had records in progress: a lower threshold could page for what is usual."""
    pace = RunPace(longest_gap=1800.0, recurring_gap=1200.0, first_gap=20.0, _finished=500, _spent=9000.0)
    spinner = SpinnerPace(_first_gaps=[20.0], _recurring_gaps=[1200.0], _observed=[9000.0], _usual=(20.0, 1200.0))
    assert spinner.usual_recurring_gap(while_busy=True) == 1200
    policy = config_with().spinner_policy("p1", "welcome")
    run = Run.first(snapshot(records=with_running(500, 2)), NOON)
    expectation = pace.expectation(
        run, SpinnerPace(), SpinnerPace(), policy, has_heartbeats=True, is_working=False, youngest_at=None
    )
    assert expectation.basis == "own gaps"
    assert pace.recurring(while_busy=True) == 1200
    newer = RunPace(first_gap=20.0, recurring_gap=1200.0, _spent=9000.0, _busy_gaps=(30.0, 25.0))
    spinner.learn([newer])
    assert spinner.usual_recurring_gap(while_busy=True) == 1200, "of two runs the larger one counts"
    spinner.learn([newer] * 2)
    assert spinner.usual_recurring_gap(while_busy=True) == 25, "of four runs the second largest"
    assert spinner.usual_recurring_gap() == 1200


def test_other_spinners_of_a_project_learn_when_gaps_with_records_in_progress_change() -> None:
    rarely, often = SpinnerPace(), SpinnerPace()
    for spinner, gap in ((rarely, 25.0), (often, 900.0)):
        spinner.learn([RunPace(first_gap=20.0, recurring_gap=1200.0, _spent=9000.0, _busy_gaps=(gap, gap))])
    assert rarely.differs_from(often)
    assert not often.differs_from(often)


@pytest.mark.parametrize("records", [counts(3, total=9), counts(3, total=9, waiting=2, running=1)])
def test_a_run_without_waiting_records_or_with_running_ones_is_at_work(records: RecordCounts) -> None:
    watch = Watch()
    watch.see(records=records)
    watch.look(after=HOUR)
    assert watch.stalled()


@pytest.mark.parametrize("shown_as", [{"status": Status.WAITING}, {"records": counts(3, total=9, waiting=2)}])
def test_waiting_for_a_person_is_never_a_stall(shown_as: dict[str, Any]) -> None:
    watch = Watch()
    watch.work(3, gap=30)
    watch.see(**shown_as)
    watch.look(after=24 * HOUR)
    assert watch.threshold() is None
    watch.see(status=Status.RUNNING, records=counts(3, total=9, running=2))
    assert not watch.stalled(), "the wait does not count as silence"
    watch.look(after=25 * MINUTE)
    assert watch.stalled(), "silence after it does"


def test_a_wait_does_not_make_the_run_look_slow() -> None:
    watch = Watch()
    watch.work(60, gap=30)
    watch.see(status=Status.WAITING)
    watch.see(after=24 * HOUR, finished=1, status=Status.RUNNING)
    watch.see(finished=1)
    assert watch.threshold() == 600


@pytest.mark.parametrize("status", [Status.QUEUED, Status.COMPLETED, Status.FAILED, Status.CANCELLED])
def test_a_run_that_need_not_progress_has_no_threshold(status: Status) -> None:
    watch = Watch()
    watch.see(status=status, started_at=None if status is Status.QUEUED else NOON)
    (shown,) = watch.store.view.runs()
    assert shown.stall_threshold() is None


def test_failing_records_are_progress() -> None:
    watch = Watch()
    for number in range(1, 60):
        watch.see(finished=1, records=counts(0, number, total=100, running=1))
    assert not watch.stalled()
    watch.look(after=11 * MINUTE)
    assert watch.stalled()


def test_a_change_of_updated_at_alone_is_not_progress() -> None:
    watch = Watch()
    watch.work(60, gap=30)
    for _ in range(22):
        watch.see()
    assert watch.stalled()


def test_the_recurring_gap_of_earlier_runs_raises_the_threshold_of_a_young_one() -> None:
    watch = Watch()
    watch.work(20, gap=12 * MINUTE)
    watch.end()
    watch.see(run_id="run-2", finished=1)
    assert watch.threshold() == pytest.approx(EARLIER_MOST * 12 * MINUTE)
    assert watch.basis() == "earlier runs"


def test_a_spinner_does_not_learn_from_a_single_stall_of_an_earlier_run() -> None:
    watch = Watch()
    watch.work(60, gap=30)
    watch.see(after=2 * HOUR, finished=1)
    watch.end()
    watch.see(run_id="run-2", finished=1)
    assert watch.threshold() == 600


def test_before_the_first_record_the_threshold_depends_on_the_first_gap_of_earlier_runs() -> None:
    watch = Watch()
    watch.see(after=MINUTE)
    watch.see(after=39 * MINUTE, finished=1)
    watch.work(60, gap=30)
    watch.end()
    watch.see(run_id="run-2")
    assert watch.threshold() == pytest.approx(FIRST_FACTOR * 40 * MINUTE)
    watch.see(run_id="run-2", finished=1)
    assert watch.threshold() == 600, "once it is done, the others take seconds"


def test_the_longest_gap_of_several_records_between_two_reads_is_estimated_from_their_mean() -> None:
    watch = Watch()
    watch.see(after=100 * MINUTE, finished=7)
    mean = 100 * MINUTE / 7
    assert watch.threshold() == pytest.approx(FEW_FACTOR * mean * (1 + math.log(7)), rel=1e-6)


def test_the_gap_of_the_first_record_is_known_if_it_was_waited_for() -> None:
    watch = Watch()
    for _ in range(3):
        watch.see(after=10 * MINUTE)
    watch.see(after=10 * MINUTE, finished=1)
    assert watch.threshold() == pytest.approx(FEW_FACTOR * 40 * MINUTE)


def test_records_that_finished_before_a_queued_run_was_seen_to_start_are_estimated_too() -> None:
    watch = Watch()
    watch.see(status=Status.QUEUED, started_at=None)
    watch.see(after=100 * MINUTE, finished=10, status=Status.RUNNING, started_at=NOON + 30)
    assert watch.threshold() == pytest.approx(FEW_FACTOR * 10 * MINUTE * (1 + math.log(10)))


def test_of_two_changes_in_one_read_the_second_was_not_preceded_by_an_observed_silence() -> None:
    watch = Watch()
    watch.see(finished=1)
    changes = [
        snapshot(
            created_at=NOON,
            started_at=NOON,
            updated_at=NOON + seconds,
            last_progress_at=NOON + seconds,
            records=counts(finished, total=None, running=1),
        )
        for finished, seconds in ((2, 10 * MINUTE), (4, 50 * MINUTE))
    ]
    watch.clock.now = NOON + 50 * MINUTE
    sightings = [(each, watch.clock.now) for each in changes]
    read_project(watch.store, "p1", sightings, as_of=watch.clock.now, horizon=NOON)
    assert watch.threshold() == pytest.approx(FEW_FACTOR * 20 * MINUTE * (1 + math.log(2)), rel=1e-6)


def test_a_record_that_finished_at_the_start_says_nothing_about_the_pace() -> None:
    watch = Watch()
    watch.see(records=counts(1, total=9, running=1), last_progress_at=NOON)
    assert watch.shown().pace.interval() is None


def test_a_silence_of_another_kind_becomes_less_likely_while_none_is_observed() -> None:
    watch = Watch()
    thresholds = []
    for _ in range(16):
        watch.work(1, gap=30)
        thresholds.append(watch.threshold() or 0)
    assert thresholds[0] == UNKNOWN_FACTOR * 600
    assert thresholds == sorted(thresholds, reverse=True)
    assert 600 < thresholds[10] < UNKNOWN_FACTOR * 600
    assert thresholds[-1] == 600, "after seven minutes"


def test_nothing_is_known_before_two_rounds_of_the_concurrent_records() -> None:
    watch = Watch()
    for number in range(1, 40):
        watch.see(after=MINUTE, finished=1, records=counts(number, total=900, running=20, pending=9))
    assert watch.threshold() == UNKNOWN_FACTOR * 600
    watch.see(after=MINUTE, finished=1, records=counts(40, total=900, running=20, pending=9))
    assert watch.threshold() == 600


@pytest.mark.parametrize(
    ("records", "factor"),
    [
        (counts(1, total=None, running=1), OPEN_FACTOR),
        (counts(1, total=90, running=1, pending=88), 1.0),
        (counts(1, total=90, running=0, pending=0), 1.0),
        (counts(1, total=90, running=None, pending=89), 1.0),
    ],
    ids=["more may arrive", "at work", "nothing is left to start", "unknown"],
)
def test_a_young_run_may_be_silent_longer_while_it_may_wait_for_work(records: RecordCounts, factor: float) -> None:
    watch = Watch()
    watch.see(records=counts(0, total=records.total, running=1, pending=89))
    watch.see(finished=1, records=records)
    assert watch.threshold() == pytest.approx(factor * UNKNOWN_FACTOR * 600)


def test_a_run_does_not_wait_for_more_records_while_some_are_listed_as_in_progress() -> None:
    watch = Watch()
    watch.see(records=counts(0, total=None, running=1))
    watch.see(finished=1, records=counts(1, total=None, running=1))
    changes = watch.store.view.watch()
    changes.changed()
    for is_working, factor in ((True, 1.0), (False, OPEN_FACTOR)):
        watch.store.keep_activity(("p1", "run-1"), Activity(is_working=is_working))
        assert watch.threshold() == pytest.approx(factor * UNKNOWN_FACTOR * 600)
        assert changes.changed()[0] == [("p1", "run-1")], "its threshold is shown anew"


def test_a_runtime_that_never_tells_a_running_record_does_not_look_idle() -> None:
    watch = Watch()
    watch.see(finished=1, records=counts(1, total=90, running=0, pending=89))
    assert watch.basis() == "held back", "found half way, it may be held back"
    watch.see(finished=1, records=counts(2, total=90, running=0, pending=88))
    assert watch.threshold() == UNKNOWN_FACTOR * 600
    new = Watch()
    new.see(records=counts(0, total=90, running=0, pending=90))
    assert new.threshold() == UNKNOWN_FACTOR * 600


def test_a_run_that_was_found_half_way_may_be_silent_longer_until_most_of_it_was_watched() -> None:
    watch = Watch()
    watch.see(after=HOUR, finished=2000)
    assert watch.threshold() == UNKNOWN_FACTOR * 600, "a silence that may have begun before"
    watch.see(finished=1)
    assert watch.threshold() == pytest.approx(OPEN_FACTOR * UNKNOWN_FACTOR * 600)
    watch.work(130, gap=30)
    assert watch.threshold() == 600


def test_of_a_new_spinner_the_others_of_its_project_teach() -> None:
    watch = Watch()
    watch.work(20, gap=12 * MINUTE)
    watch.end()
    watch.see(run_id="run-2", finished=2, spinner="another")
    assert watch.threshold() == pytest.approx(EARLIER_FACTOR * 12 * MINUTE)
    watch.end("run-2")
    for _ in range(40):
        watch.see(run_id="run-3", after=HOUR, finished=1)
    watch.end("run-3")
    watch.see(run_id="run-4", finished=2, spinner="a third")
    assert watch.threshold() == OTHERS_MOST * 600, "but not without limit"


def test_other_spinners_of_a_project_teach_more_slowly() -> None:
    watch = Watch()
    watch.work(30, gap=30)
    watch.end()
    watch.see(run_id="run-2", finished=1)
    assert watch.threshold() == 600
    watch.end("run-2")
    watch.see(run_id="run-3", finished=2, spinner="another")
    assert 600 < (watch.threshold() or 0) < UNKNOWN_FACTOR * 600


def test_a_run_that_is_removed_while_it_hangs_has_taught_its_spinner() -> None:
    watch = Watch()
    watch.work(20, gap=12 * MINUTE)
    watch.look(after=2 * HOUR)
    watch.store.drop_run("p1", "run-1")
    watch.begin()
    watch.see(run_id="run-2", finished=1)
    assert watch.threshold() == pytest.approx(EARLIER_MOST * 12 * MINUTE), "without the silence at its end"


def test_a_run_that_is_dropped_after_its_end_teaches_once() -> None:
    watch = Watch()
    watch.work(20, gap=12 * MINUTE)
    watch.see(status=Status.COMPLETED, ended_at=watch.clock.now)
    watch.store.drop_run("p1", "run-1")
    watch.begin()
    watch.see(run_id="run-2", finished=1)
    assert watch.shown().earlier.observed_with(FLOOR) == 20 * 12 * MINUTE


def test_a_pause_of_hours_that_earlier_runs_had_at_this_time_of_day_is_normal() -> None:
    watch = Watch()
    watch.work(60, gap=60)
    watch.see(after=9 * HOUR, finished=1)
    watch.end()
    for number, (hour, threshold) in enumerate([(0.5, 1.25 * 9 * HOUR), (3, 600), (-0.5, 1.25 * 9 * HOUR)]):
        watch.clock.now = NOON + HOUR + (2 + 2 * number) * 24 * HOUR + (hour - 1) * HOUR
        watch.begin()
        for _ in range(60):
            watch.see(run_id=f"run-{number + 2}", after=60, finished=1)
        assert watch.threshold() == threshold, hour
        watch.store.drop_run("p1", f"run-{number + 2}")


NIGHT = 15 * HOUR
EVENING = NOON - NOON % 86400 + 18 * HOUR
"""A Monday."""


def after_pauses(*pauses: tuple[float, float]) -> Watch:
    """A run that is silent since an evening and knows pauses: how many days ago they began, and their hours."""
    watch = Watch()
    watch.clock.now = EVENING - 120 * 60 - 30
    watch.fields |= {"started_at": watch.clock.now, "created_at": watch.clock.now}
    watch.begin()
    watch.work(120, gap=60)
    watch.see(after=30, finished=1)
    watch.shown().pace.pauses = [(EVENING - days * 86400, hours * HOUR) for days, hours in pauses]
    return watch


def test_a_pause_that_returns_may_be_longer_than_the_ceiling() -> None:
    once, twice = after_pauses((1, 15)), after_pauses((1, 15), (2, 14))
    assert once.threshold() == after_pauses((7, 15)).threshold() == 12 * HOUR, "it may have been a stall"
    assert twice.threshold() == 1.25 * 15 * HOUR, "a night is no stall each day"
    assert twice.basis() == "pause"


def test_what_held_a_run_back_once_at_this_time_of_day_may_do_so_again_for_longer_than_the_ceiling() -> None:
    held_back = after_pauses((1, 15))
    held_back.see(after=0, records=counts(121, total=100_000, running=0, pending=99_879))
    assert held_back.threshold() == 1.25 * 15 * HOUR, "a run that hangs has records in progress"
    assert held_back.basis() == "pause"


def test_a_weekend_does_not_make_the_nights_longer_nor_is_a_night_expected_before_a_weekend() -> None:
    nights = [(days, 15) for days in (1, 2, 4, 5)]
    assert after_pauses(*nights, (3, 63)).threshold() == 1.25 * 15 * HOUR
    assert after_pauses(*nights, (7, 63)).threshold() == 1.25 * 63 * HOUR
    assert after_pauses((1, 20), *nights[1:]).threshold() == 1.25 * 15 * HOUR, "yesterday was another weekday"


def test_a_pause_that_returned_does_not_make_the_rest_of_the_run_slow() -> None:
    watch = Watch()
    watch.work(60, gap=60)
    for _ in range(3):
        watch.see(after=13 * HOUR, finished=1)
        watch.work(11 * 60, gap=60)
    pace = watch.shown().pace
    assert pace.longest_gap == 13 * HOUR, "the first one may have been a stall"
    assert pace.recurring(while_busy=True) == 60
    assert pace.recurring_gap == 60
    assert len(pace.pauses) == 3


def test_a_run_keeps_its_last_pauses() -> None:
    watch = Watch()
    for number in range(PAUSES + 2):
        watch.see(after=(2 + number) * HOUR, finished=1)
    assert [round(length / HOUR) for _, length in watch.shown().pace.pauses] == list(range(4, PAUSES + 4))


def test_an_outage_of_the_runtime_is_neither_a_pause_nor_a_gap() -> None:
    """Otherwise a run that it lost, or that hangs after it, would be silent as long as the outage was."""
    watch = Watch()
    watch.work(60, gap=60)
    watch.look(after=90)
    watch.store.keep_health(Health(runtime_up=False))
    watch.look(after=9 * HOUR)
    watch.store.keep_health(Health(runtime_up=False))
    watch.see(after=60, finished=1)
    watch.store.keep_health(Health(runtime_up=True, workers=1, last_heartbeat_at=watch.clock.now))
    pace = watch.shown().pace
    assert pace.pauses == []
    assert pace.longest_gap == 90, "what was seen before the outage"
    assert watch.threshold() == 600
    watch.see(after=9 * HOUR, finished=1)
    assert watch.shown().pace.longest_gap == 9 * HOUR, "the next silence is the run's own"


def test_what_was_not_watched_is_no_pause() -> None:
    """While the API cannot be read, records finish that are seen together afterwards."""
    watch = Watch()
    watch.work(60, gap=60)
    watch.see(after=9 * HOUR, finished=540)
    assert watch.shown().pace.pauses == []


def test_a_run_whose_child_makes_progress_is_not_silent() -> None:
    watch = Watch()
    watch.work(60, gap=30)
    own = dict(watch.fields)
    for number in range(1, 40):
        watch.see(run_id="child", parent_id="run-1", after=60, records=counts(number, total=99, running=1),
                  last_progress_at=watch.clock.now + 60, created_at=NOON + HOUR, started_at=NOON + HOUR)  # fmt: skip
    shown = watch.store.view.run(("p1", "run-1"))
    assert shown is not None
    assert shown.stall_threshold() == 39 * 60 + 600, "the silence begins with the last progress of the child"
    watch.see(run_id="child", after=600, status=Status.COMPLETED, ended_at=watch.clock.now + 600)
    watch.fields = own
    assert watch.threshold() == 39 * 60 + 600 + 600, "and when the child ends"


def test_a_silence_that_was_watched_is_known_and_only_the_rest_is_estimated() -> None:
    watch = Watch()
    watch.see(after=30, finished=1)
    watch.look(after=40 * MINUTE)
    watch.see(after=10 * MINUTE, finished=5)
    assert watch.threshold() == pytest.approx(FEW_FACTOR * (40 * MINUTE + 2 * MINUTE * (1 + math.log(5))))


def found_after(seconds: float, *, then_watched: float = 0.0) -> Watch:
    """A run that is found with 100 records finished, is watched for a while, and ends; then the next one starts."""
    watch = Watch()
    watch.see(after=seconds, finished=100)
    for _ in range(round(then_watched / 30)):
        watch.see(finished=1)
    watch.end()
    watch.see(run_id="run-2", finished=1)
    return watch


def test_a_run_that_was_found_half_way_teaches_nothing_unless_most_of_it_was_watched() -> None:
    assert found_after(HOUR).threshold() == UNKNOWN_FACTOR * 600, "its gaps are estimates"
    assert found_after(HOUR, then_watched=HOUR - 60).threshold() == UNKNOWN_FACTOR * 600
    assert found_after(HOUR, then_watched=HOUR + 60).threshold() == 600


def test_a_record_that_finished_before_a_wait_was_over_adds_nothing_to_the_time_that_was_watched() -> None:
    watch = Watch()
    watch.see(after=HOUR, finished=100)
    watch.see(status=Status.WAITING)
    watch.see(status=Status.RUNNING)
    longest = watch.shown().pace.longest_gap
    watch.see(records=counts(101, total=None, running=1), last_progress_at=watch.clock.now - 10)
    assert watch.shown().pace.longest_gap == longest
    watch.end()
    watch.see(run_id="run-2", finished=1)
    assert watch.threshold() == UNKNOWN_FACTOR * 600, "of the first run nearly everything is an estimate"


def test_a_run_that_was_found_soon_after_its_start_teaches_its_spinner() -> None:
    assert found_after(NEGLIGIBLE - 1).shown().earlier.usual_first_gap() is not None
    assert found_after(NEGLIGIBLE).shown().earlier.usual_first_gap() is None
    assert found_after(NEGLIGIBLE + 1).shown().earlier.usual_first_gap() is None


@pytest.mark.parametrize(("took", "teaches"), [(NEGLIGIBLE - 1, True), (NEGLIGIBLE + 1, False)])
def test_a_run_that_is_found_ended_teaches_its_spinner_when_it_was_short(took: float, teaches: bool) -> None:
    watch = Watch()
    watch.see(after=took, finished=100, status=Status.COMPLETED, ended_at=NOON + took)
    watch.begin()
    watch.see(run_id="run-2", finished=1)
    assert (watch.shown().earlier.usual_first_gap() is not None) == teaches


def test_floor_and_ceiling_come_from_the_config() -> None:
    quick = Watch(stalls={"floor": 60.0, "ceiling": 3600.0})
    quick.work(60, gap=30)
    assert (quick.threshold() or 0) < 600
    slow = Watch(stalls={"floor": 60.0, "ceiling": 900.0})
    slow.work(10, gap=30 * MINUTE)
    assert slow.threshold() == 900
    own = Watch(spinners=[{"spinner": re.compile("welcome"), "stall_floor": 60.0, "stall_ceiling": 900.0}])
    own.work(10, gap=30 * MINUTE)
    assert own.threshold() == 900, "an entry for the spinner counts before that for all"


def test_a_restart_of_the_exporter_does_not_reset_the_silence() -> None:
    watch = Watch()
    watch.clock.advance(HOUR)
    watch.see(finished=0, records=counts(100, total=None, running=1), last_progress_at=NOON + 20 * MINUTE)
    assert watch.stalled(), "the runtime says when it last progressed, and that was 40 minutes ago"


def test_a_gap_between_scrapes_is_not_a_gap_of_the_run() -> None:
    watch = Watch()
    watch.work(60, gap=30)
    watch.see(after=5 * MINUTE, finished=300)
    assert watch.threshold() == 600, "300 records in 5 minutes are a second apart"


def test_an_outage_of_the_runtime_is_not_silence_of_a_run_and_silence_after_it_is() -> None:
    watch = Watch()
    watch.work(60, gap=30)
    watch.store.keep_health(Health(runtime_up=False))
    watch.look(after=2 * HOUR)
    watch.store.keep_health(Health(runtime_up=True, workers=1, last_heartbeat_at=watch.clock.now))
    assert not watch.stalled(), "the recovery of the runtime must not page for every run"
    watch.look(after=11 * MINUTE)
    assert watch.stalled(), "a run that the runtime lost must page"


def test_an_old_heartbeat_is_an_outage_whatever_the_status_says() -> None:
    watch = Watch()
    watch.work(60, gap=30)
    watch.store.keep_health(Health(runtime_up=True, workers=1, last_heartbeat_at=watch.clock.now - 10 * MINUTE))
    watch.look(after=2 * HOUR)
    watch.store.keep_health(Health(runtime_up=True, workers=1, last_heartbeat_at=watch.clock.now))
    assert not watch.stalled()


def taught(*gaps: float) -> SpinnerPace:
    pace = SpinnerPace()
    for gap in gaps:
        pace.learn([RunPace(longest_gap=gap, recurring_gap=gap, first_gap=gap)])
    return pace


def test_a_spinner_learns_the_longest_recurring_gap_of_its_runs_from_four_on_without_the_longest() -> None:
    assert taught(10.0, 30.0, 20.0).usual_recurring_gap() == 30.0
    assert taught(10.0, 30.0, 20.0, 5.0).usual_recurring_gap() == 20.0


def test_a_spinner_learns_from_its_last_nine_runs() -> None:
    pace = taught(*[100.0] * 5, *[10.0] * 4)
    assert (pace.usual_first_gap(), pace.usual_recurring_gap()) == (100.0, 100.0)
    for first, recurring in ((10.0, 100.0), (10.0, 100.0), (10.0, 100.0), (10.0, 10.0)):
        pace.learn([RunPace(longest_gap=10.0, recurring_gap=10.0, first_gap=10.0)])
        assert (pace.usual_first_gap(), pace.usual_recurring_gap()) == (first, recurring)


def test_runs_of_which_an_earlier_version_noted_only_the_gaps_count_as_observed_for_the_floor() -> None:
    pace = SpinnerPace(_first_gaps=[1.0, 1.0], _recurring_gaps=[1.0, 1.0], _usual=(1.0, 1.0))
    assert pace.observed_with(FLOOR) == 1200
    pace.learn([RunPace(first_gap=1.0, _spent=250.0)])
    assert pace.observed_with(FLOOR) == 1450


def test_a_whole_run_counts_as_observed_however_short_it_was() -> None:
    pace = SpinnerPace()
    least = WHOLE_RUN * FLOOR
    pace.learn([RunPace(first_gap=1.0, _spent=least - 1), RunPace(first_gap=1.0, _spent=least + 1)])
    assert pace.observed_with(FLOOR) == 2 * least + 1


def test_a_young_run_of_a_spinner_whose_runs_take_seconds_has_the_floor_after_three_runs() -> None:
    watch = Watch()
    for number in range(3):
        watch.see(run_id=f"run-{number}", finished=5)
        watch.end(f"run-{number}")
    watch.see(run_id="run-4", finished=1)
    assert watch.threshold() == 600


@pytest.mark.parametrize("is_new", [True, False])
def test_what_short_runs_count_for_depends_on_the_floor(*, is_new: bool) -> None:
    """Otherwise a scenario that is played 12 times as fast would learn more from its short runs than a slow one."""

    def in_floors(floor: float) -> float:
        spinner = SpinnerPace()
        spinner.learn([RunPace(first_gap=floor / 60, _spent=floor / 60)] * 3)
        earlier, others = (SpinnerPace(), SpinnerPace.of_spinners([spinner])) if is_new else (spinner, SpinnerPace())
        policy = config_with(stalls={"floor": floor, "ceiling": 100 * floor}).spinner_policy("p1", "welcome")
        pace = RunPace(_finished=100, _watched=floor / 6)
        return pace._by_what_is_unknown(earlier, others, policy, is_open=False) / floor

    assert in_floors(50.0) == pytest.approx(in_floors(600.0))
    assert in_floors(600.0) < UNKNOWN_FACTOR, "otherwise it depends on nothing that was observed"


def test_what_happened_before_the_silence_began_excuses_none_of_it() -> None:
    pace = RunPace(_quiet_since=NOON)
    assert not pace.excuse_until(NOON - 60, is_progress=True)
    assert not pace.excuse_until(NOON, is_progress=True)
    assert pace.quiet_since() == NOON
    assert pace.excuse_until(NOON + 1, is_progress=True)
    assert pace.quiet_since() == NOON + 1
    queued = RunPace()
    assert not queued.excuse_until(NOON, is_progress=True)
    assert queued.quiet_since() is None
