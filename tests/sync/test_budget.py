"""The budget of requests of one sync."""

from exporter.sync.budget import Budget


def test_before_a_sync_begins_nothing_may_be_sent() -> None:
    budget = Budget(2)
    assert not budget.take(1)
    assert budget.take_some(1) == 0


def test_what_was_not_used_can_be_taken_again() -> None:
    budget = Budget(2)
    budget.refill()
    assert budget.take_some(5) == 2
    budget.give_back(1)
    assert budget.take(1)
    assert not budget.take(1)
