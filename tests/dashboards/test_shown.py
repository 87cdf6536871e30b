"""Checks the fake of Grafana that other tests ask what a panel shows."""

from collections.abc import Sequence
from typing import Any

import pytest

from dashboards.style import BLUE, GREEN, GREY, RED, TEXT, null_mapping, thresholds, value_mapping
from tests.dashboards.display import GAP, Mark, Value, Verdict, display
from tests.dashboards.grafana import Page, Series, TimeRange
from tests.dashboards.shown import Shown, show_panel

NOW = 1_795_932_000.0  # 2026-11-29 06:00 UTC


# The texts are those of `formattedValueToString(getValueFormat(unit)(value, decimals))` in @grafana/data 13.2.2.
@pytest.mark.parametrize(
    ("unit", "value", "decimals", "text"),
    [
        ("locale", 1234567, None, "1,234,567"),
        ("locale", 0.12345, None, "0.123"),
        ("percentunit", 0.2, None, "20%"),
        ("percentunit", 0.12345, None, "12.3%"),
        ("percentunit", 0.996, 0, "100%"),
        ("s", 0, None, "0 s"),
        ("s", 0.0004, None, "400 µs"),
        ("s", 0.141, None, "141 ms"),
        ("s", 9.4, 0, "9 s"),
        ("s", 59.99, None, "60.0 s"),
        ("s", 60, None, "1 min"),
        ("s", 188, None, "3.13 mins"),
        ("s", 5400, None, "1.50 hours"),
        ("s", 1209600, None, "2 weeks"),
        ("dtdurations", 0, 0, "0 seconds"),
        ("dtdurations", 3.12, 0, "3 seconds"),
        ("dtdurations", 1123200, 1, "1 week, 6 days"),
        ("dtdurations", 0.4, 0, "400 milliseconds"),
        ("dtdhms", 188.9, None, "00:03:08"),
        ("dtdhms", 1047845, None, "12 d 03:04:05"),
        ("bytes", 50226790, None, "47.9 MiB"),
        ("reqps", 0.0667, None, "0.0667 req/s"),
        ("reqps", 1500, None, "1.50K req/s"),
        ("/min", 7.25, None, "7.25 /min"),
        ("time:MM-DD HH:mm", NOW * 1000, None, "11-29 06:00"),
    ],
)
def test_a_number_is_written_as_grafana_writes_it(unit: str, value: float, decimals: int | None, text: str) -> None:
    config = {"unit": unit, "decimals": decimals, "thresholds": thresholds(TEXT)}
    assert display(value, config).text == text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, Mark("✔ none", GREEN)),
        (1.0, Mark("1", RED)),
        (0.5, Mark("0.500", BLUE)),
        (None, Mark("? unknown", GREY)),
        (float("nan"), Mark("? unknown", GREY)),
    ],
)
def test_mappings_come_before_thresholds_and_no_value_has_the_base_colour(value: Value, shown: Mark) -> None:
    config = {
        "mappings": [value_mapping({"0": ("✔ none", GREEN)})],
        "thresholds": thresholds(GREY, (0, BLUE), (1, RED)),
        "noValue": "? unknown",
    }
    assert display(value, config) == shown


def test_a_mapping_of_null_comes_before_the_text_for_no_value() -> None:
    config = {"mappings": [null_mapping("never")], "thresholds": thresholds(GREY), "noValue": "? unknown"}
    assert display(None, config) == Mark("never", TEXT)


def test_an_empty_label_has_the_text_for_no_value() -> None:
    assert display("", {"thresholds": thresholds(TEXT), "noValue": "✔ none"}).text == "✔ none"


@pytest.mark.parametrize(
    ("mark", "verdict"),
    [
        (Mark("✔ up", GREEN), Verdict.GOOD),
        (Mark("20%", GREEN), Verdict.GOOD),
        (Mark("✖ DOWN", RED), Verdict.BAD),
        (Mark("3", RED), Verdict.BAD),
        (Mark("▲ incomplete", TEXT), Verdict.BAD),
        (Mark("? unknown", GREY), Verdict.UNKNOWN),
        (Mark("? unknown", GREEN), Verdict.UNKNOWN),
        (Mark("No data", TEXT), Verdict.UNKNOWN),
        (Mark("0", GREY), Verdict.NEUTRAL),
        (Mark("", GREEN), Verdict.NEUTRAL),
        (Mark("▶ running", BLUE), Verdict.NEUTRAL),
    ],
)
def test_a_mark_is_judged_by_its_sign_and_else_by_its_colour(mark: Mark, verdict: Verdict) -> None:
    assert mark.verdict == verdict


def test_time_ranges_are_read_as_grafana_reads_them() -> None:
    assert TimeRange.of("now-3h", NOW) == TimeRange(NOW - 3 * 3600, NOW)
    assert TimeRange.of("now/d", NOW) == TimeRange(NOW - 6 * 3600, NOW)


class Answers(Page):
    """A page with given answers instead of Prometheus."""

    def __init__(self, *answers: Sequence[Series]) -> None:
        super().__init__({"title": "", "time": {"from": "now-1h"}, "templating": {"list": []}}, "", now=NOW)
        self._answers = dict(zip("ABCDEFG", answers, strict=False))

    def query(self, panel: Any, target: Any) -> list[Series]:
        return list(self._answers[target["refId"]])


def shown(kind: str, *answers: Sequence[Series], **panel: Any) -> Shown:
    defaults = {"thresholds": thresholds(GREY, (0, GREEN)), "noValue": "? unknown"}
    targets = [{"refId": ref_id, "instant": False} for ref_id, _ in zip("ABCDEFG", answers, strict=False)]
    return show_panel(
        Answers(*answers),
        {
            "title": "Panel",
            "type": kind,
            "gridPos": {"x": 0, "y": 0, "w": 24, "h": 4},
            "targets": targets,
            "fieldConfig": {"defaults": defaults, "overrides": panel.pop("overrides", [])},
            **panel,
        },
    )


def line(*values: float | None, until: float = NOW, name: str = "a", ref_id: str = "A", **labels: str) -> Series:
    times = [until - 15 * (len(values) - 1 - index) for index in range(len(values))]
    return Series(ref_id, name, labels, list(zip(times, values, strict=True)))


LAST = {"reduceOptions": {"calcs": ["lastNotNull"]}}


def test_a_card_with_a_range_shows_the_past_as_the_present() -> None:
    """The fault that this fake has to be able to see."""
    assert shown("stat", [line(1, 7, until=NOW - 3000)], options=LAST).marks == {"": Mark("7", GREEN)}


def test_a_card_without_a_series_or_without_a_value_is_unknown() -> None:
    assert shown("stat", [], options=LAST).empty == Mark("? unknown", GREY)
    assert shown("stat", [line(None)], options=LAST).marks == {"": Mark("? unknown", GREY)}


def test_a_card_of_names_shows_nothing_without_a_series() -> None:
    assert shown("stat", [], options={**LAST, "textMode": "name"}).empty == Mark("", GREY)


def test_a_graph_shows_a_line_that_has_ended_as_a_gap() -> None:
    graph = shown("state-timeline", [line(1, 2, name="now"), line(1, until=NOW - 300, name="ended")])
    assert graph.marks == {"now": Mark("2", GREEN), "ended": GAP}
    assert graph.verdicts == {Verdict.GOOD}
    assert shown("timeseries", [line(1, until=NOW - 300)]).verdicts == {Verdict.UNKNOWN}


def column(field: str, **properties: Any) -> dict[str, Any]:
    return {
        "matcher": {"id": "byName", "options": field},
        "properties": [{"id": key.replace("__", "."), "value": value} for key, value in properties.items()],
    }


def test_a_table_merges_sorts_and_hides() -> None:
    organize = {"id": "organize", "options": {"excludeByName": {"Time": True}, "indexByName": {"Value #B": 0}}}
    lowest = {
        "mode": "reduceRow",
        "reduce": {"reducer": "min", "include": ["Value #A", "Value #B"]},
        "alias": "lowest",
    }
    table = shown(
        "table",
        [line(3, runtime="good"), line(3, runtime="bad")],
        [line(2, ref_id="B", runtime="good"), line(0, ref_id="B", runtime="bad")],
        transformations=[
            {"id": "merge", "options": {}},
            {"id": "calculateField", "options": lowest},
            {"id": "sortBy", "options": {"sort": [{"field": "lowest", "desc": False}]}},
            organize,
        ],
        overrides=[column("Value #A", custom__hidden=True), column("Value #B", displayName="API")],
    )
    assert [[row["runtime"].text, row["API"].text] for row in table.rows] == [["bad", "0"], ["good", "2"]]
    assert "Value #A" not in table.rows[0]


def test_the_text_for_no_value_fills_every_empty_cell_unless_the_column_has_its_own() -> None:
    """A fault of the dashboards that this fake has to be able to see."""
    answers = ([line(1, run="a"), line(1, run="b")], [line(5, ref_id="B", run="a")])
    merge = [{"id": "merge", "options": {}}]
    assert shown("table", *answers, transformations=merge).rows[1]["Value #B"] == Mark("? unknown", GREY)
    own = column("Value #B", mappings=[null_mapping("in progress")])
    mended = shown("table", *answers, transformations=merge, overrides=[own])
    assert mended.rows[1]["Value #B"] == Mark("in progress", TEXT)
