"""The runtime's clock, and what a difference to ours must not shift."""

import pytest

from exporter.runs.clock import TOLERANCE, RuntimeClock
from tests.builders import NOON, Clock


def test_clocks_that_agree_are_not_corrected_by_the_time_an_answer_took() -> None:
    wall = Clock()
    clock = RuntimeClock(wall)
    clock.observe(NOON - 0.8)
    assert clock.offset == 0.0, "a difference within the tolerance is none"


def test_before_the_first_observation_the_difference_is_unknown() -> None:
    clock = RuntimeClock(Clock())
    clock.begin()
    assert (clock.offset, clock.to_local(NOON), clock.now()) == (None, None, NOON)
    clock.observe(NOON)
    clock.begin()
    assert (clock.offset, clock.to_local(NOON)) == (0.0, NOON)


@pytest.mark.parametrize("difference", [90.0, -90.0, 86400.0])
def test_a_difference_is_taken_out(difference: float) -> None:
    wall = Clock()
    clock = RuntimeClock(wall)
    clock.observe(NOON + difference)
    wall.advance(10)
    assert clock.now() == NOON + difference + 10
    assert clock.to_local(NOON + difference) == NOON


def test_an_offset_does_not_tremble_with_every_read() -> None:
    wall = Clock()
    clock = RuntimeClock(wall)
    clock.observe(NOON + 90)
    before = clock.offset
    for jitter in (0.4, -0.9, TOLERANCE, -TOLERANCE):
        clock.begin()
        clock.observe(NOON + 90 + jitter)
    assert clock.offset == before


def test_a_difference_within_the_tolerance_is_none_even_after_a_larger_one() -> None:
    clock = RuntimeClock(Clock())
    for difference, offset in ((TOLERANCE, 0.0), (TOLERANCE + 1, TOLERANCE + 1), (2.0, TOLERANCE + 1), (0.0, 0.0)):
        clock.begin()
        clock.observe(NOON + difference)
        assert clock.offset == offset


def test_a_slow_response_does_not_set_the_clock_back() -> None:
    """The runtime has set its time at some moment between request and response."""
    wall = Clock()
    clock = RuntimeClock(wall)
    for _ in range(3):
        clock.begin()
        requested_at = wall()
        wall.advance(9)
        clock.observe(requested_at, requested_at)
        assert clock.offset == 0.0
    requested_at = wall()
    wall.advance(9)
    clock.begin()
    clock.observe(requested_at - 90, requested_at)
    assert clock.offset == -99, "it is behind by 90 seconds at least"


def test_a_clock_that_is_set_right_is_believed_at_the_next_read() -> None:
    wall = Clock()
    clock = RuntimeClock(wall)
    clock.observe(NOON + 90)
    clock.begin()
    clock.observe(NOON + 0.2)
    assert clock.offset == 0.0


def test_a_slow_answer_among_quick_ones_does_not_set_the_clock_back() -> None:
    wall = Clock()
    clock = RuntimeClock(wall)
    clock.observe(NOON + 90)
    wall.advance(30)
    clock.observe(NOON + 90)  # sent 30 s ago, read only now
    assert clock.offset == 90
    assert TOLERANCE < 30
