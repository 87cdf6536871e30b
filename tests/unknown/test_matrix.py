"""Every loss of data: what each panel of each dashboard shows, and which alerts fire after how long."""

import dataclasses
from pathlib import Path

import pytest

from tests.dashboards.display import GAP, Mark, Verdict
from tests.dashboards.shown import Shown
from tests.unknown.matrix import PAGE, baseline_of, described, expectations, page_with, severity, table
from tests.unknown.situations import SITUATIONS, STALL, WARM_UP, Outcome, Situation, calm, observe

EXPECTED = expectations()

FINAL = "✔ completed"
"""What has completed stays so, whatever is lost."""

STALL_PAGES_WITHIN = 20
"""Minutes: 1.7 times the floor of the stall threshold, one minute of `for`, and two evaluations."""


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda each: each.name)
async def test_what_is_seen_when(situation: Situation, tmp_path: Path) -> None:
    outcome = await observe(situation, tmp_path)
    check_that_nothing_blind_looks_well(situation, outcome)
    check_that_what_hides_a_stall_pages(situation, outcome)
    baseline = {} if situation is SITUATIONS[0] else baseline_of(EXPECTED)
    assert described(outcome, baseline) == EXPECTED[situation.name], "if the change is right: make matrix"


def check_that_nothing_blind_looks_well(situation: Situation, outcome: Outcome) -> None:
    wrong = [
        f"after {minute} min, {uid}/{title}: {panel}"
        for minute, boards in outcome.looks.items()
        for uid, titles in situation.blind.items()
        for title in sorted(titles)
        if looks_well(panel := boards[uid][title])
    ]
    assert not wrong, "\n".join(wrong)


def looks_well(panel: Shown) -> bool:
    """Whether anything in a panel looks well: also a card with a zero, and a graph whose lines are all at zero.

    In the table Runtimes only the first runtime counts.
    """
    if panel.title == "Runtimes":
        return any(good(mark) for row in panel.rows if str(row["Runtime"]) == "eu" for mark in row.values())
    shown = [mark for mark in panel if mark != GAP]
    only_zeros = panel.type in ("stat", "timeseries") and bool(shown) and all(map(is_zero, shown))
    return only_zeros or any(map(good, shown))


def good(mark: Mark) -> bool:
    return mark.verdict == Verdict.GOOD and mark.text != FINAL


def is_zero(mark: Mark) -> bool:
    return mark.text.partition(" ")[0].rstrip("%") in ("0", "0.0")


def check_that_what_hides_a_stall_pages(situation: Situation, outcome: Outcome) -> None:
    pages = {alert: at for alert, at in outcome.alerts.items() if severity(alert[0]) == "page"}
    if situation.pages_within is None:
        assert not pages, "it hides no stall"
    else:
        of_the_runtime = [at for (_, runtime), at in pages.items() if runtime in ("eu", "")]
        assert min(of_the_runtime, default=999) <= situation.pages_within, f"it hides stalls, and pages: {pages}"


PAGES_SOON = 10
"""Minutes: what is watched for less may hide a stall and not have paged yet."""

WATCHED = [
    dataclasses.replace(each, looks=(STALL_PAGES_WITHIN,), scenario=calm(STALL), warm_up=WARM_UP)
    for each in SITUATIONS
    if each.pages_within is None and each.scenario == calm() and each.looks[-1] >= PAGES_SOON
]


@pytest.mark.parametrize("situation", WATCHED, ids=lambda each: each.name)
async def test_a_run_that_stalls_pages_although(situation: Situation, tmp_path: Path) -> None:
    outcome = await observe(situation, tmp_path)
    assert outcome.alerts.get(("SpinnerRunStalled", "eu"), 999) <= STALL_PAGES_WITHIN, outcome.alerts


def test_the_table_in_the_documentation_is_current() -> None:
    assert PAGE.read_text() == page_with(table(EXPECTED)), "make docs"


def test_every_situation_is_expected_and_no_other() -> None:
    assert list(EXPECTED) == [situation.name for situation in SITUATIONS]
