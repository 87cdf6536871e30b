"""What all reads of a runtime may hold together until it is applied."""

import pytest

from exporter.runtime.held import HeldBytes, HeldTooMuchError


def test_reads_may_hold_as_much_as_the_limit_and_of_more_the_largest_is_refused() -> None:
    held, dropped = HeldBytes(100), list[str]()
    small, large = held.open("jobs of a"), held.open("jobs of b")
    large.when_refused(lambda: dropped.append("b"))
    small.add(40)
    large.add(60)
    large.check()
    small.add(1)
    assert (dropped, small.size, large.size, held.total) == (["b"], 41, 0, 41)
    for refused in (large.check, lambda: large.add(1)):
        with pytest.raises(
            HeldTooMuchError, match=r"^jobs of b: what is read takes more than limits\.read_bytes \(100\)$"
        ):
            refused()
    assert held.total == 41
    with pytest.raises(HeldTooMuchError, match=r"^jobs of a: "):
        small.add(60)
    assert held.total == 0


def test_what_is_applied_is_not_held() -> None:
    held = HeldBytes(100)
    with held.open("jobs") as holding:
        holding.add(90)
        holding.release(80)
        assert (holding.size, held.total) == (10, 10)
        holding.release(11)
        assert (holding.size, held.total) == (0, 0)
        holding.add(90)
        holding.release(50)
        holding.add(60)
        assert held.total == 100
        holding.release()
        holding.add(100)
    assert held.total == 0


def test_a_read_that_nothing_refers_to_holds_nothing() -> None:
    held = HeldBytes(100)
    holding = held.open("jobs")
    holding.add(100)
    del holding
    held.open("jobs").add(100)
    assert held.total == 0


def test_a_read_that_is_larger_than_the_limit_by_itself_fails_at_once() -> None:
    held = HeldBytes(100)
    holding = held.open("jobs")
    with pytest.raises(HeldTooMuchError):
        holding.add(101)
    assert held.total == 0
