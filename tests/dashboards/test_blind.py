"""What the dashboards show of a real Prometheus when an exporter, the API or everything is gone."""

import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from dashboards.__main__ import DASHBOARDS, DIST
from dashboards.queries import rules_evaluated
from tests.dashboards.display import Verdict
from tests.dashboards.grafana import Page
from tests.dashboards.shown import Shown, show
from tests.dashboards.test_queries import quick_rules
from tests.stack.programs import exporter, exporter_with, kill, number, prometheus, runtime, until

BOARDS = {uid: json.loads((DIST / f"{uid}.json").read_text()) for uid in DASHBOARDS}


def shown(url: str, uid: str) -> dict[str, Shown]:
    return show(Page(BOARDS[uid], url, now=time.time(), scrape_interval=1))


def good(panels: dict[str, Shown]) -> list[str]:
    """The panels that show something that looks well."""
    return [f"{title}: {panel}" for title, panel in panels.items() if Verdict.GOOD in panel.verdicts]


FINE = ["✔ up", "✔ up", "✔ fresh"]

CARDS = (
    "Running",
    "Waiting",
    "Queued",
    "Stalled",
    "Runs failed today",
    "Records failed today",
    "Firing alerts",
    "Pages",
    "Tickets",
    "Top failing steps",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("shop", "clinic"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def world(folder: Path) -> Iterator[tuple[str, str, str, str]]:
    """A Prometheus, an exporter each of two runtimes, and one of the runtimes."""
    with (
        runtime(folder / "shop", seed=1) as shop,
        runtime(folder / "clinic", scenario="stalled", seed=2) as clinic,
        _exporter(folder / "shop", shop) as one,
        _exporter(folder / "clinic", clinic) as other,
        prometheus(folder, one, other, rules=quick_rules(folder, without_for=False)) as url,
    ):
        until(lambda: number(url, "count(spinner_api_up) + sum(up)") == 4, "both exporters are scraped")
        until(lambda: number(url, 'count(ALERTS{alertname="SpinnerWatchdog"})') == 1, "the rules are evaluated")
        until(lambda: number(url, f"count({rules_evaluated()})") == 1, "it is recorded what is known")
        until(lambda: number(url, 'count(project_spinner:spinner_run_failed_records:sum{runtime=""})') == 1, "and sums")
        yield url, one, other, shop


def _exporter(home: Path, runtime_url: str) -> AbstractContextManager[str]:
    config = home / "exporter.yml"
    config.write_text(f'runtimes: [{{name: {home.name}, base_url: "{runtime_url}"}}]\nsync: {{min_interval: 0s}}\n')
    return exporter_with(config)


def rows(panel: Shown) -> dict[str, list[str]]:
    return {
        row["Runtime"].text: [row[column].text for column in ("API", "Worker service", "Data")] for row in panel.rows
    }


def test_each_exporter_that_dies_makes_more_unknown(world: tuple[str, str, str, str]) -> None:
    url, one, other, _ = world
    check_that_zeros_are_certain(url)
    kill(one)
    until(lambda: number(url, "count(up == 0)") == 1, "Prometheus notices that one is dead")
    check_that_only_what_is_known_looks_well(url)
    kill(other)
    until(lambda: number(url, "count(up == 0)") == 2, "Prometheus notices that both are dead")
    check_that_nothing_looks_well(url)


def check_that_zeros_are_certain(url: str) -> None:
    live_ops, jobs, exporters = (shown(url, uid) for uid in ("spinner-live-ops", "spinner-jobs", "spinner-exporter"))
    for board in (live_ops, jobs, exporters):
        assert rows(board["Runtimes"]) == {"shop": FINE, "clinic": FINE}
    assert {str(live_ops[title]) for title in ("Stalled", "Firing alerts", "Pages", "Tickets")} == {"✔ none"}
    assert str(exporters["Projects that cannot be read"]) == "✔ none"
    assert str(exporters["Config"]) == "✔ loaded"
    # Prometheus has not watched the exporters since midnight.
    assert str(live_ops["Runs failed today"]) == "? unknown"


def check_that_only_what_is_known_looks_well(url: str) -> None:
    live_ops, exporters = shown(url, "spinner-live-ops"), shown(url, "spinner-exporter")
    assert list(rows(live_ops["Runtimes"]).items()) == [("shop", ["? unknown"] * 3), ("clinic", FINE)], (
        "the worst first"
    )
    assert good({title: live_ops[title] for title in CARDS}) == []
    assert exporters["Projects that cannot be read"].verdicts == {Verdict.BAD}
    assert str(exporters["Config"]) == "? unknown"
    assert number(url, 'sum(spinner_runs{status="running"})') == float(str(live_ops["Running"])), (
        "what is known is shown"
    )


def check_that_nothing_looks_well(url: str) -> None:
    for uid in ("spinner-live-ops", "spinner-jobs", "spinner-exporter"):
        board = shown(url, uid)
        assert good(board) == [], uid
        assert rows(board["Runtimes"]) == {"shop": ["? unknown"] * 3, "clinic": ["? unknown"] * 3}
        for title, panel in board.items():
            if title != "Runtimes" and panel.type not in ("timeseries", "state-timeline"):
                # What failed today, and how many projects are lost, is known.
                assert panel.verdicts <= {Verdict.UNKNOWN, Verdict.BAD}, f"{title}: {panel}"
        for title in set(board) & {"Running", "Stalled", "Firing alerts", "Runs", "Expected end", "Config", "Version"}:
            assert board[title].verdicts == {Verdict.UNKNOWN}, f"{title}: {board[title]}"


def test_while_the_api_is_down_zeros_are_uncertain(world: tuple[str, str, str, str]) -> None:
    url, *_, shop = world
    kill(shop)
    until(lambda: number(url, 'spinner_api_up{runtime="shop"}') == 0, "the exporter notices")
    live_ops = shown(url, "spinner-live-ops")
    down = ["✖ DOWN", "? unknown", "▲ incomplete"]
    assert list(rows(live_ops["Runtimes"]).items()) == [("shop", down), ("clinic", FINE)]
    assert good({title: live_ops[title] for title in CARDS}) == []


def test_of_an_empty_prometheus_everything_is_unknown(tmp_path: Path) -> None:
    with prometheus(tmp_path) as url:
        for uid in BOARDS:
            for title, panel in shown(url, uid).items():
                assert panel.verdicts == {Verdict.UNKNOWN}, f"{uid}/{title}: {panel}"


def test_of_a_run_that_is_no_longer_reported_nothing_is_known(folder: Path) -> None:
    with (
        runtime(folder / "shop") as shop,
        exporter(folder / "shop", shop) as one,
        prometheus(folder, one) as url,
    ):
        until(lambda: number(url, "count(spinner_run_status)"), "runs are scraped")
        page = Page(BOARDS["spinner-jobs"], url, now=time.time(), run="job_that_ended_long_ago")
        board = show(page)
        for title in (
            "Records by state", "Failures by step and error", "Failed records", "Records in flight", "Expected end",
            "Status",
        ):  # fmt: skip
            assert board[title].verdicts == {Verdict.UNKNOWN}, f"{title}: {board[title]}"
