"""The runtime's clock, and what a difference to ours must not shift."""

import itertools
import random

import pytest

from exporter.runs.clock import TOLERANCE, RuntimeClock
from tests.builders import NOON, Clock


def test_clocks_that_agree_are_not_corrected_by_the_time_an_answer_took() -> None:
    wall = Clock()
    clock = RuntimeClock(wall, wall)
    clock.observe(NOON - 0.8)
    assert clock.offset == 0.0, "a difference within the tolerance is none"


def test_before_the_first_observation_the_difference_is_unknown() -> None:
    clock = RuntimeClock(*2 * [Clock()])
    clock.begin()
    assert (clock.offset, clock.to_local(NOON), clock.now()) == (None, None, NOON)
    clock.observe(NOON)
    clock.begin()
    assert (clock.offset, clock.to_local(NOON)) == (0.0, NOON)


@pytest.mark.parametrize("difference", [90.0, -90.0, 86400.0])
def test_a_difference_is_taken_out(difference: float) -> None:
    wall = Clock()
    clock = RuntimeClock(wall, wall)
    clock.observe(NOON + difference)
    wall.advance(10)
    assert clock.now() == NOON + difference + 10
    assert clock.to_local(NOON + difference) == NOON


def test_an_offset_does_not_tremble_with_every_read() -> None:
    wall = Clock()
    clock = RuntimeClock(wall, wall)
    clock.observe(NOON + 90)
    before = clock.offset
    for jitter in (0.4, -0.9, TOLERANCE, -TOLERANCE):
        clock.begin()
        clock.observe(NOON + 90 + jitter)
    assert clock.offset == before


@pytest.mark.parametrize(
    "steps",
    [((5.0, 0.0), (20.0, 20.0), (15.0, 20.0), (0.0, 0.0)), ((5.5, 5.5), (20.0, 20.0), (14.5, 14.5), (5.5, 5.5))],
)
def test_a_difference_of_five_seconds_is_none_even_after_a_larger_one(steps: tuple[tuple[float, float], ...]) -> None:
    clock = RuntimeClock(*2 * [Clock()])
    for difference, offset in steps:
        answer(clock, NOON + difference)
        assert clock.offset == offset


def answer(clock: RuntimeClock, *runtime_times: float) -> None:
    """Syncs in which all answers agree, once for each time."""
    for each in runtime_times:
        clock.begin()
        for _ in range(3):
            clock.observe(each)


def test_a_slow_response_does_not_set_the_clock_back() -> None:
    """The runtime has set its time at some moment between request and response."""
    wall = Clock()
    clock = RuntimeClock(wall, wall)
    for _ in range(3):
        clock.begin()
        requested_at = wall()
        wall.advance(9)
        clock.observe(requested_at, requested_at)
        assert clock.offset == 0.0
    for _ in range(3):
        requested_at = wall()
        wall.advance(9)
        clock.observe(requested_at - 90, requested_at)
    assert clock.offset == -99, "it is behind by 90 seconds at least"


@pytest.mark.parametrize("difference", [7200.0, -7200.0, 86400.0 * 365])
def test_two_wrong_answers_in_a_row_change_nothing_and_three_are_believed(difference: float) -> None:
    clock = RuntimeClock(*2 * [Clock()])
    answer(clock, NOON + 90, NOON + 90)
    offsets = []
    for _ in range(3):
        clock.observe(NOON + difference)
        offsets.append(clock.offset)
    assert offsets == [90, 90, difference]


def test_of_two_differences_with_two_answers_each_the_present_one_is_believed() -> None:
    clock = RuntimeClock(*2 * [Clock()])
    for difference in (90.0, 90.0, 10.0, 10.0):
        clock.observe(NOON + difference)
    assert clock.offset == 90.0
    clock.observe(NOON + 10.0)
    assert clock.offset == 10.0


def test_of_answers_that_agree_the_one_that_is_furthest_ahead_is_the_most_exact() -> None:
    clock = RuntimeClock(*2 * [Clock()])
    for difference in (90.0, 7197.0, 7200.0, 7198.0):
        clock.observe(NOON + difference)
    assert clock.offset == 7200.0


@pytest.mark.parametrize("answers", [(0.0, 7200.0), (7200.0, 0.0), (90.0, -7200.0), (7200.0, 90.0)])
def test_of_the_first_two_answers_the_one_nearer_to_our_clock_is_believed(answers: tuple[float, float]) -> None:
    clock = RuntimeClock(*2 * [Clock()])
    for each in answers:
        clock.observe(NOON + each)
    assert clock.offset == min(answers, key=abs)


def test_a_clock_that_is_set_right_is_believed_at_the_next_sync() -> None:
    clock = RuntimeClock(*2 * [Clock()])
    answer(clock, NOON + 90, NOON + 0.2)
    assert clock.offset == 0.0


@pytest.mark.parametrize("step", [86400.0, -3600.0])
def test_a_step_of_our_own_clock_does_not_change_the_runtime_s_time(step: float) -> None:
    wall, monotonic = Clock(), Clock(5.0)
    clock = RuntimeClock(wall, monotonic)
    answer(clock, NOON + 90)
    wall.advance(step)
    monotonic.advance(30)
    assert clock.now() == NOON + 120
    steady = clock.steady()
    clock.begin()
    assert clock.offset == 120 - step, "without any answer"
    assert clock.to_local(clock.now()) == wall()
    assert steady == clock.steady() == NOON + 30


def test_a_slow_answer_among_quick_ones_does_not_set_the_clock_back() -> None:
    wall = Clock()
    clock = RuntimeClock(wall, wall)
    sent = wall()
    clock.observe(NOON + 90)
    wall.advance(30)
    clock.observe(NOON + 90, sent)
    assert clock.offset == 90
    assert TOLERANCE < 30


@pytest.mark.parametrize("apart", [3.0, 6.0, 20.0, 3600.0, -6.0])
@pytest.mark.parametrize("ahead", [0.0, 3.0, 90.0])
@pytest.mark.parametrize("answers", [2, 5, 50])
def test_servers_that_take_turns_and_have_different_clocks_are_one(apart: float, ahead: float, answers: int) -> None:
    """With every change of the difference all lines are rendered again."""
    scrapes = 4000 // answers
    wall, chance = Clock(), random.Random(1)
    clock, offsets = RuntimeClock(wall, wall), []
    for _ in range(scrapes):
        wall.advance(15)
        clock.begin()
        for _ in range(answers):
            clock.observe(wall() + ahead + chance.choice((0.0, apart)), wall())
        offsets.append(clock.offset)
    changes = sum(one != other for one, other in itertools.pairwise(offsets))
    assert changes <= 2, f"{changes} in {scrapes} scrapes"


def test_a_clock_that_is_set_while_servers_take_turns_is_believed() -> None:
    wall = Clock()
    clock = RuntimeClock(wall, wall)
    for ahead in (0.0, 20.0, 0.0, 20.0):
        answer(clock, wall() + ahead)
    offsets = []
    for _ in range(20):
        clock.observe(wall() + 7200)
        offsets.append(clock.offset)
    # With the 20th answer in a row that contradicts the present difference; nine came while the servers took turns.
    assert [offset == 7200.0 for offset in offsets] == [False] * 10 + [True] * 10


@pytest.mark.parametrize(("seconds", "offset"), [(3600, 0.0), (3601, 20.0)])
def test_servers_that_have_not_taken_turns_for_an_hour_are_one_again(seconds: float, offset: float) -> None:
    wall = Clock()
    clock = RuntimeClock(wall, wall)
    for ahead in (0.0, 20.0, 0.0):
        answer(clock, wall() + ahead)
    wall.advance(seconds)
    answer(clock, wall() + 20.0)
    assert clock.offset == offset


def test_servers_take_turns_as_long_as_two_answers_of_one_are_followed_by_one_of_the_other_each_hour() -> None:
    wall = Clock()
    clock = RuntimeClock(wall, wall)
    for ahead in (0.0, 20.0, 0.0):
        answer(clock, wall() + ahead)
    for _ in range(6):
        wall.advance(900)
        for ahead in (20.0, 20.0, 0.0):
            clock.observe(wall() + ahead)
    answer(clock, wall() + 20.0)
    assert clock.offset == 0.0


def test_a_time_that_the_other_answers_contradict_is_replaced() -> None:
    wall = Clock()
    clock = RuntimeClock(wall, wall)
    answer(clock, NOON)
    assert clock.agreed(NOON - 2, wall(), wall()) == NOON - 2
    assert clock.agreed(NOON + 7200, wall(), wall()) == NOON
    for seconds, agreed in ((30, NOON + 30), (31, NOON), (-30, NOON - 30), (-31, NOON)):
        assert clock.agreed(NOON + seconds, wall(), wall()) == agreed
    assert clock.agreed(NOON - 170, NOON - 180, wall()) == NOON - 170, "it took long to arrive"
    assert clock.agreed(NOON - 7200, NOON - 180, wall()) == NOON - 180, "what it says may be as old as its request"
    clock.observe(NOON - 7200)
    assert clock.now() == NOON


@pytest.mark.parametrize(("ago", "expected"), [(60.0, 60.0), (0.0, 0.0), (-0.5, 0.0), (-3600.0, 0.0)])
def test_no_moment_is_yet_to_come(ago: float, expected: float) -> None:
    now = Clock()
    clock = RuntimeClock(now, now)
    assert clock.moment(clock.wall() - ago) == clock.monotonic() - expected
