"""The workers of the histories: when records finish, and how many are worked on then."""

import random

import pytest

from tests.stalls.pool import Finish, by_day, in_stages, windows, with_retries, worked

HOUR = 3600.0


def test_two_workers_take_the_next_record_when_they_are_free() -> None:
    assert worked([10, 30, 15], 2) == [Finish(10, 2, 0), Finish(25, 1, 10), Finish(30, 0, 0)]


def test_a_stage_begins_when_the_one_before_is_done() -> None:
    assert in_stages([[10, 20], [5]], [2, 1]) == [Finish(10, 1, 0), Finish(20, 1, 0), Finish(25, 0, 20)]
    assert in_stages([[10, 20], [5]], [2, 2], pause=3) == [Finish(10, 1, 0), Finish(20, 0, 0), Finish(28, 0, 23)]


def test_a_window_admits_some_records() -> None:
    gate = windows(random.Random(1), 60, 2)
    times = [gate(0.0) for _ in range(6)]
    assert times[:2] == [0.0, 0.0]
    assert times[2] == times[3] < times[4] == times[5]
    assert times[4] - times[2] == pytest.approx(60)


def test_nothing_starts_at_night() -> None:
    gate = by_day(0.0, 8 * HOUR, 20 * HOUR)
    assert gate(12 * HOUR) == 12 * HOUR
    assert gate(20 * HOUR) == 32 * HOUR
    assert gate(7 * HOUR) == 8 * HOUR


@pytest.mark.parametrize(("chance", "takes"), [(0.0, 10), (1.0, 6 * 10 + 5 * (1 + 2 + 4 + 8 + 16))])
def test_a_record_is_tried_again_after_a_back_off_that_doubles(chance: float, takes: float) -> None:
    assert with_retries(random.Random(1), 10, chance, 5) == takes
