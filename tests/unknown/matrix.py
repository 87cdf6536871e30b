"""`python -m tests.unknown.matrix`: observes every loss of data, and writes what was seen for review.

It writes `matrix.yml`, which `test_matrix` compares with, and the table in docs/reliability.md that is made from it.
With `--table` it writes the table only.
"""

import asyncio
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.alerts.rule_files import alert_rule
from tests.dashboards.display import Mark, Verdict
from tests.dashboards.shown import Shown
from tests.stack.programs import ROOT
from tests.unknown.situations import BOARDS, LIVE_OPS, SITUATIONS, Outcome, observe
from tests.yaml_files import read_yaml

FILE = Path(__file__).with_name("matrix.yml")
PAGE = ROOT / "docs" / "reliability.md"

BEGIN, END = "<!-- The table is generated: make matrix -->\n", "<!-- End of the table -->\n"

HEADER = """\
# What an engineer sees for each loss of data (situations.py): which alerts fire after how many minutes; what the
# table Runtimes says of API, worker service and data; what the card Stalled says; and which panels of each dashboard
# look good, bad or unknown. Panels that are not listed are neutral. `make matrix` writes it: review the difference.
"""

AS_BASELINE = "as when everything works"

Expected = dict[str, Any]
"""What is expected in one situation, as in `matrix.yml`."""


def main(arguments: Iterable[str]) -> None:
    """Write the files."""
    if "--table" not in arguments:
        FILE.write_text(HEADER + yaml.dump(asyncio.run(_observe_all()), Dumper=_Dumper, **_STYLE))
    PAGE.write_text(page_with(table(expectations())))


async def _observe_all() -> dict[str, Expected]:
    found: dict[str, Expected] = {}
    for situation in SITUATIONS:
        with tempfile.TemporaryDirectory() as folder:
            outcome = await observe(situation, Path(folder))
        found[situation.name] = described(outcome, baseline_of(found) if found else {})
    return found


def expectations() -> dict[str, Expected]:
    """Return what is expected, by situation."""
    read: dict[str, Expected] = read_yaml(FILE)
    return read


def baseline_of(expected: Mapping[str, Expected]) -> Mapping[str, Any]:
    """Return what is seen when everything works."""
    first = SITUATIONS[0]
    seen: Mapping[str, Any] = expected[first.name][_after(first.looks[0])]
    return seen


def described(outcome: Outcome, baseline: Mapping[str, Any]) -> Expected:
    """Return what was observed in the form of `matrix.yml`; `baseline` is what is seen when everything works."""
    alerts = {f"{name} ({runtime})" if runtime else name: round(at) for (name, runtime), at in outcome.alerts.items()}
    del alerts["SpinnerWatchdog"]
    looks = {_after(minute): _look(boards, baseline) for minute, boards in outcome.looks.items()}
    return {"alerts": alerts, **looks}


def _after(minutes: int) -> str:
    return f"after {minutes} min"


def _look(boards: Mapping[str, Mapping[str, Shown]], baseline: Mapping[str, Any]) -> dict[str, Any]:
    by_board = {BOARDS[uid]["title"]: _by_verdict(panels) for uid, panels in boards.items()}
    return {
        "runtimes": {str(row["Runtime"]): _state(row) for row in boards[LIVE_OPS]["Runtimes"].rows},
        "stalled": str(boards[LIVE_OPS]["Stalled"]),
        **{title: AS_BASELINE if found == baseline.get(title) else found for title, found in by_board.items()},
    }


def _state(row: Mapping[str, Mark]) -> str:
    return ", ".join(str(row[column]) for column in ("API", "Worker service", "Data"))


def _by_verdict(panels: Mapping[str, Shown]) -> dict[str, list[str]]:
    titles: dict[str, list[str]] = {}
    for title, panel in panels.items():
        if verdicts := panel.verdicts - {Verdict.NEUTRAL}:
            titles.setdefault(" and ".join(sorted(verdicts)), []).append(title)
    return dict(sorted(titles.items()))


def page_with(made: str) -> str:
    """Return docs/reliability.md with another table."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    assert after, f"{PAGE.name} has no place for the table"
    return f"{before}{BEGIN}{made}{END}{after}"


def table(expected: Mapping[str, Expected]) -> str:
    """Return the table of docs/reliability.md."""
    rows = [
        "| situation | after | API, worker service, data | Stalled | panels that become unknown | alerts |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for situation in SITUATIONS:
        for minute in situation.looks:
            seen = expected[situation.name][_after(minute)]
            cells = (
                situation.name,
                f"{minute} min",
                _listed(
                    f"{name}: {state}" if len(seen["runtimes"]) > 1 else state
                    for name, state in seen["runtimes"].items()
                )
                or "? unknown",
                seen["stalled"],
                _listed(_unknown(seen, baseline_of(expected))) or "none",
                _listed(_alerts(expected[situation.name]["alerts"], minute, with_runtime=len(seen["runtimes"]) > 1))
                or "none",
            )
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _listed(parts: Iterable[str]) -> str:
    return "<br>".join(parts)


def _unknown(seen: Mapping[str, Any], baseline: Mapping[str, Any]) -> Iterator[str]:
    """Yield what becomes unknown of each dashboard, apart from what lacks weeks of history in every situation."""
    for board in BOARDS.values():
        title = board["title"]
        if seen[title] != AS_BASELINE and seen[title] != baseline[title]:
            now, before = _unknown_titles(seen[title]), _unknown_titles(baseline[title])
            if len(now - before) > MOST_TITLES:
                yield f"{title}: {len(now - before)} of {len(board['panels']) - len(before)}"
            elif now - before:
                yield f"{title}: {', '.join(sorted(now - before))}"


MOST_TITLES = 3


def _unknown_titles(by_verdict: Mapping[str, list[str]]) -> set[str]:
    return {title for verdict, titles in by_verdict.items() if Verdict.UNKNOWN in verdict for title in titles}


def _alerts(alerts: Mapping[str, int], until: int, *, with_runtime: bool) -> Iterator[str]:
    for alert, at in sorted(alerts.items(), key=lambda each: each[1]):
        name = alert.partition(" ")[0]
        if at <= until:
            yield f"{alert if with_runtime else name}: {severity(name)} after {at} min"


def severity(alert: str) -> str:
    """Return the severity of an alert."""
    found: str = alert_rule(alert)["labels"]["severity"]
    return found


class _Dumper(yaml.SafeDumper):
    """Writes each list in as few lines as fit."""

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> Any:
        return super().represent_sequence(tag, sequence, flow_style=True)

    def ignore_aliases(self, data: Any) -> bool:
        return True


_STYLE: dict[str, Any] = {"sort_keys": False, "allow_unicode": True, "width": 118}

if __name__ == "__main__":
    main(sys.argv[1:])
