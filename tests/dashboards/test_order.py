"""Checks the order of rows in tables that are sorted by a number which some rows do not have."""

import contextlib
import json
from pathlib import Path

from dashboards.__main__ import DIST
from tests.dashboards.grafana import Page
from tests.dashboards.shown import show_panel
from tests.dashboards.test_runs import NOW, Samples, fresh, recorded, silent
from tests.stack.programs import prometheus_with
from tests.unknown.remote_write import RemoteWriter, labels_of

WEEK = 7 * 24 * 3600


def column(url: str, uid: str, title: str, name: str) -> list[str]:
    board = json.loads((DIST / f"{uid}.json").read_text())
    (panel,) = (each for each in board["panels"] if each["title"] == title)
    return [str(row[name]) for row in show_panel(Page(board, url, now=NOW), panel).rows]


def test_a_full_meter_comes_first_and_an_unlimited_one_last(tmp_path: Path) -> None:
    plan: Samples = {}
    for meter, used, limit in (("runs", 5, float("inf")), ("records", 40, 100), ("minutes", 100, 100)):
        labels = f'job="spinner",instance="a",runtime="eu",meter="{meter}"'
        plan |= {f"spinner_plan_used{{{labels}}}": used, f"spinner_plan_limit{{{labels}}}": limit}
    with recorded(tmp_path, fresh("Sales") | plan) as url:
        meters = column(url, "spinner-capacity", "Plan", "Meter and runtime")
    assert meters == ["minutes\neu", "records\neu", "runs\neu"]


def test_a_spinner_that_became_slower_comes_before_one_that_is_new(tmp_path: Path) -> None:
    means = {
        NOW - WEEK: {"slower": 1.0, "faster": 2.0},
        NOW: {"new": 9.0, "slower": 2.0, "faster": 1.0},
    }
    with (
        prometheus_with(
            tmp_path, {}, "--web.enable-remote-write-receiver", "--storage.tsdb.retention.time=100y"
        ) as url,
        contextlib.closing(RemoteWriter(url)) as writer,
    ):
        for time, each in means.items():
            for spinner, mean in each.items():
                labels = {"runtime": "eu", "project": "Sales", "spinner": spinner}
                writer.add(labels_of("project_spinner:spinner_record_seconds:avg1d", labels), time, mean)
            writer.add(labels_of("spinner_project_up", {"runtime": "eu", "project": "Sales"}), time, 1)
            writer.flush()
        spinners = column(url, "spinner-health", "All spinners", "Spinner")
        changes = column(url, "spinner-health", "All spinners", "Slower in a week")
    assert spinners == ["slower", "faster", "new"]
    assert changes == ["100%", "-50%", "?"]


def test_a_stalled_run_is_in_the_first_row_of_the_timeline(tmp_path: Path) -> None:
    """Of runs on several pages of 20 rows, nobody would see it."""
    board = json.loads((DIST / "spinner-live-ops.json").read_text())
    (panel,) = (each for each in board["panels"] if each["title"] == "Active runs")
    with recorded(tmp_path, fresh("Sales") | silent("a", 5) | silent("b", 5) | silent("z", 700)) as url:
        rows = show_panel(Page(board, url, now=NOW), panel).marks
    assert [(name.split()[0], str(status)) for name, status in rows.items()] == [
        ("z", "✖ STALLED"),
        ("a", "▶ running"),
        ("b", "▶ running"),
    ]
