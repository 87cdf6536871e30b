"""A short soak test: `make soak` simulates two weeks, this two days of a small organisation with the same faults."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import structlog

from tests.soak import plan
from tests.soak.__main__ import main
from tests.soak.life import days
from tests.soak.organisation import Truth
from tests.soak.report import BOUNDS, WARM, Day, passed
from tests.stack.programs import ROOT

SHORT = (
    [*plan.reloads(1), *plan.fails("/api/v1", "API down", 3, 11), *plan.kill(7, 15), *plan.full_disk(16, 22)],
    [
        *plan.two_servers(1, 20),
        *plan.list_of_all(2, exists=True),
        *plan.runtime_clock(4, 2),
        *plan.own_clock(7, -1),
        *plan.fails("/p1", "p1 fails", 9, 18),
        *plan.kill(12, 20),
        *plan.reloads(22),
    ],
)


async def test_after_two_days_in_which_everything_goes_wrong_each_counter_is_exact(tmp_path: Path) -> None:
    lived: list[Day] = []
    with structlog.testing.capture_logs():
        async for day in days(tmp_path, count=2, seed=3, projects=4, runs_per_day=1500, plan=SHORT):
            lived.append(day)
            assert day.wrong == []
            assert passed(lived) == []
    assert [day.counters for day in lived] == [4 * 4 * 46] * 2


GOOD = Day(
    1,
    "nothing",
    8000,
    wrong=[],
    memory=250,
    files=11,
    objects=300_000,
    blocks=900_000,
    stores=4,
    series=26_000,
    state=30.0,
    scrape=50.0,
)


@pytest.mark.parametrize("bound", BOUNDS, ids=lambda bound: bound.name)
def test_a_bound_that_is_exceeded_is_named_with_what_to_look_at(bound: object) -> None:
    worse = {
        "wrong counters": {"wrong": ["spinner_runs_started_total"]},
        "memory in MB": {"memory": 301.0},
        "open files": {"files": 12},
        "objects": {"objects": 350_000},
        "blocks": {"blocks": 1_000_000},
        "stores": {"stores": 8},
        "series": {"series": 40_000},
        "state file in MB": {"state": 40.0},
        "scrape in ms": {"scrape": 110.0},
    }[bound.name]  # type: ignore[attr-defined]
    lived = [dataclasses.replace(GOOD, number=number) for number in range(1, WARM + 3)]
    assert not any(passed(lived[:count]) for count in range(1, len(lived) + 1))
    (text,) = passed([*lived, dataclasses.replace(GOOD, number=WARM + 3, **worse)])  # type: ignore[arg-type]
    assert text.startswith(f"{bound.name}: ")  # type: ignore[attr-defined]
    assert bound.look_at in text  # type: ignore[attr-defined]


def test_the_status_is_1_when_a_bound_is_exceeded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--days=1", "--projects=1", "--runs-per-day=20"]
    # In a process of its own: the memory of this one is that of the tests before, too.
    assert subprocess.run([sys.executable, "-m", "tests.soak", *flags], cwd=ROOT, check=False).returncode == 0
    monkeypatch.setattr("sys.argv", ["soak", *flags])
    monkeypatch.setattr(Truth, "differences", lambda self, shown: ["spinner_runs_started_total: 3 instead of 4"])
    assert main() == 1
    found = capsys.readouterr()
    assert "1 **wrong**" in found.out
    assert "wrong counters: 1.0 on day 1, at most 0.0. Look at " in found.err
