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
    assert not clock.is_known
    clock.observe(NOON)
    clock.begin()
    assert clock.is_known


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
    for jitter in (0.4, -0.9, 1.2):
        clock.begin()
        clock.observe(NOON + 90 + jitter)
    assert clock.offset == before


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
