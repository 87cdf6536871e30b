"""Scores our alerts and other rules on one part of the histories: `python -m tests.stalls.report [tune|"held out"]`.

It prints our figures by kind and those of all rules, then the tables of the documentation. As in the product, what
silent runs work on is read where a history tells it; a last row shows our rules without that. The held-out part also
draws the picture.
"""

import sys

import click

from tests.stalls.frontier import BUDGETS, PICTURE, picture
from tests.stalls.histories import MINUTE
from tests.stalls.in_flight import Reader
from tests.stalls.parts import HELD_OUT, TUNE
from tests.stalls.replay import (
    HEAD,
    OTHER_RULES,
    OURS,
    RIVAL_RULES,
    Score,
    bootstrapped,
    by_kind,
    overall,
    score,
    table,
    wilson,
    with_false_pages,
)

SPINNERS = 10
"""Spinners of each kind."""

PARTS = {part.name: part for part in (TUNE, HELD_OUT)}


@click.command()
@click.argument("name", type=click.Choice(tuple(PARTS)), default=TUNE.name)
def main(name: str) -> None:
    """Replay a part once with all rules, and report."""
    part = PARTS[name]
    rules = (OURS, *OTHER_RULES, *map(with_false_pages, BUDGETS))
    scores = score(part.spinners(SPINNERS), rules, reads_more=Reader())
    totals = {rule.name: overall(each) for rule, each in zip(rules, scores, strict=True)}
    totals["without records in flight"] = overall(score(part.spinners(SPINNERS), (OURS,))[0])
    lines = [table(scores[0]), "", HEAD, *(total.row(name) for name, total in totals.items())]
    lines += [f"95 %: {bootstrapped(scores[0])}", "", *(_row(name, each) for name, each in totals.items()), ""]
    lines += [_kind_row(kind, each) for kind, each in by_kind(scores[0]).items() if not _is_perfect(each)]
    sys.stdout.write("\n".join(lines) + "\n")
    if part is HELD_OUT:
        ours = {f"{each:g}": totals[f"{each:g}"] for each in BUDGETS}
        PICTURE.write_text(picture(ours, {rule.name: totals[rule.name] for rule in RIVAL_RULES}))


def _row(name: str, each: Score) -> str:
    """Return the row of a rule in README.md."""
    return _cells(
        name,
        f"{each.recall:.3f}",
        f"{each.precision:.3f}",
        f"{each.timely:.3f}",
        f"{each.median_delay / MINUTE:.1f} min",
        f"{each.false_per_100_hours:.2f}",
    )


def _kind_row(kind: str, each: Score) -> str:
    """Return the row of a kind in docs/accuracy.md."""
    pages = each.found + each.false_pages
    shares = (_share(each.found, each.stalls), _share(each.found, pages), _share(each.in_time, each.stalls))
    half = f"{each.median_delay / MINUTE:.1f} min" if each.delays else "-"
    return _cells(kind, f"{each.hours:.0f}", f"{each.stalls}", *shares, half, f"{each.false_pages}")


def _share(part: int, whole: int) -> str:
    low, high = wilson(part, whole)
    return f"{part / whole:.3f} ({low:.2f}-{high:.2f})" if whole else "-"


def _is_perfect(each: Score) -> bool:
    return each.in_time == each.stalls and not each.false_pages


def _cells(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
