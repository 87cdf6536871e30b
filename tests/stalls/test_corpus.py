"""The accuracy of our alerts on labelled histories that were not used for tuning, compared with common other rules."""

import pytest

from tests.stalls.histories import KINDS, MINUTE, corpus
from tests.stalls.parts import HELD_OUT
from tests.stalls.replay import HEAD, OTHER_RULES, OURS, Score, by_kind, overall, score, table, wilson

SEED, SPINNERS, MORE_SPINNERS = 2, 4, 10
"""Of each kind; only `make test-all` takes more."""

LOOK_STALLED = ["waiting", "no end time", "retry storm", "short", "heals", "restarted"]

Scores = list[tuple[str, Score]]


@pytest.fixture(scope="module")
def all_scores() -> list[Scores]:
    return score(corpus(SEED, SPINNERS), (OURS, *OTHER_RULES))


@pytest.fixture(scope="module")
def ours(all_scores: list[Scores]) -> Scores:
    return all_scores[0]


def test_the_corpus_is_large_enough_and_has_runs_with_and_without_stalls() -> None:
    histories = [history for spinner in corpus(SEED, SPINNERS) for history in spinner]
    assert {history.kind for history in histories} == {name.replace("_", " ") for name in KINDS} ^ {
        "no end",
        "no end time",
    }
    assert sum(history.hours for history in histories) > 640
    assert sum(bool(history.stalls) for history in histories) > 80
    assert sum(not history.stalls for history in histories) > 80


def test_stalls_page_and_almost_nothing_else_does(ours: Scores) -> None:
    total = overall(ours)
    assert total.recall >= 0.98, table(ours)
    assert total.precision >= 0.95, table(ours)
    assert total.false_per_100_hours <= 0.5, table(ours)


def test_stalls_are_found_in_time(ours: Scores) -> None:
    total = overall(ours)
    assert total.timely >= 0.90, table(ours)
    assert total.median_delay <= 12 * MINUTE, table(ours)


@pytest.mark.parametrize("kind", LOOK_STALLED)
def test_runs_that_only_look_stalled_never_page(ours: Scores, kind: str) -> None:
    assert by_kind(ours)[kind].false_pages == 0, table(ours)


def test_no_other_rule_is_better_in_all_numbers(all_scores: list[Scores]) -> None:
    """Another rule may be better in one number, but is then much worse in another one."""
    best, *others = (overall(each) for each in all_scores)
    for rule, total in zip(OTHER_RULES, others, strict=True):
        row = f"\n{HEAD}\n{total.row(rule.name)}"
        assert total.recall <= best.recall, row
        assert total.precision < best.precision or total.timely < best.timely, row
        assert total.false_per_100_hours > 4 * best.false_per_100_hours, row


@pytest.mark.slow
def test_all_of_this_holds_on_more_histories() -> None:
    """In one test: as a fixture, the replay would run in each of the workers that share its tests."""
    more = score(corpus(SEED, MORE_SPINNERS), (OURS, *OTHER_RULES))
    test_stalls_page_and_almost_nothing_else_does(more[0])
    test_stalls_are_found_in_time(more[0])
    for kind in LOOK_STALLED:
        test_runs_that_only_look_stalled_never_page(more[0], kind)
    test_no_other_rule_is_better_in_all_numbers(more)


@pytest.mark.parametrize("spinners", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_the_figures_of_the_readme_hold_on_histories_that_are_held_out(spinners: int) -> None:
    total = overall(score(HELD_OUT.spinners(spinners), (OURS,))[0])
    row = f"\n{HEAD}\n{total.row(OURS.name)}"
    assert total.recall >= 0.98, row
    assert total.precision >= 0.90, row
    assert total.timely >= 0.95, row
    assert total.median_delay <= 15 * MINUTE, row


def test_intervals_of_shares() -> None:
    assert wilson(0, 0) == (0.0, 1.0), "nothing is known"
    assert wilson(50, 100) == pytest.approx((0.404, 0.596), abs=1e-3)
    assert wilson(10, 10) == pytest.approx((0.722, 1.0), abs=1e-3)
