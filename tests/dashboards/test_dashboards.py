"""The dashboards as files: as generated, readable by Grafana, and in the house style."""

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
import yaml
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards import queries, spinner_health
from dashboards.__main__ import DASHBOARDS, DIST
from dashboards.grafana import as_json
from dashboards.style import STATUSES, TAG
from exporter.status import Status
from tests.dashboards.grafana import interpolate
from tests.stack.programs import ROOT

BOARDS = {uid: json.loads((DIST / f"{uid}.json").read_text()) for uid in DASHBOARDS}
PANELS = [
    pytest.param(uid, panel, id=f"{uid}-{panel['title']}") for uid, board in BOARDS.items() for panel in board["panels"]
]

AXES = {"timeseries", "barchart", "stat", "bargauge"}


def expressions(panel: dict[str, Any]) -> Iterator[str]:
    yield from (target["expr"] for target in panel.get("targets", ()))


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_what_is_checked_in_is_what_the_code_says(uid: str) -> None:
    assert (DIST / f"{uid}.json").read_text() == as_json(DASHBOARDS[uid]), (
        "run `make dashboards` and commit dashboards/dist"
    )


def test_no_file_outlives_its_dashboard() -> None:
    assert {file.stem for file in DIST.glob("*.json")} == set(DASHBOARDS)


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_grafana_s_own_models_read_it(uid: str) -> None:
    """They drop what they don't know, so each panel's title, type and queries are compared as well."""
    read = Dashboard.from_json(BOARDS[uid])
    assert read.uid == uid
    assert read.schema_version == 42
    assert read.panels is not None
    for panel, ours in zip(read.panels, BOARDS[uid]["panels"], strict=True):
        assert (panel.title, panel.type_val) == (ours["title"], ours["type"])
        assert panel.grid_pos is not None
        again = panel.to_json()
        assert len(again["targets"]) == len(ours["targets"])  # type: ignore[arg-type]


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_a_dashboard_is_tagged_linked_and_in_utc(uid: str) -> None:
    board = BOARDS[uid]
    assert board["tags"] == [TAG]
    assert board["timezone"] == "utc"
    assert board["description"]
    (link,) = board["links"]
    assert link["tags"] == [TAG]
    assert link["includeVars"]
    assert link["keepTime"]


def test_only_what_should_refreshes_by_itself() -> None:
    refreshes = {uid: board["refresh"] for uid, board in BOARDS.items()}
    assert refreshes["spinner-jobs"] == "", "rows must not jump: the person presses refresh"
    assert refreshes["spinner-live-ops"] == "30s"


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_panels_have_ids_of_their_own_and_lie_beside_each_other(uid: str) -> None:
    panels = BOARDS[uid]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for one, other in itertools.combinations(panels, 2):
        a, b = one["gridPos"], other["gridPos"]
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        assert apart, f"{one['title']} and {other['title']} overlap"
    for panel in panels:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24, f"{panel['title']} is out of the grid"


def test_panel_ids_are_stable() -> None:
    """Links and embedded panels go by them: a panel keeps its number for as long as it lives."""
    ids = {uid: {panel["title"]: panel["id"] for panel in board["panels"]} for uid, board in BOARDS.items()}
    assert ids["spinner-jobs"]["Runs"] == 1
    assert ids["spinner-live-ops"]["Stalled"] == 4
    assert ids["spinner-capacity"]["Plan"] == 7


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_a_panel_says_what_it_means_and_what_its_emptiness_means(uid: str, panel: dict[str, Any]) -> None:
    assert len(panel["description"]) > 60, "a description says what to do about it"
    assert panel["title"]
    if "or vector(0)" not in "".join(expressions(panel)):
        assert panel["fieldConfig"]["defaults"].get("noValue"), "an empty panel says what is missing"


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_a_panel_names_its_unit_and_no_data_source_of_its_own(uid: str, panel: dict[str, Any]) -> None:
    if panel["type"] in AXES:
        assert panel["fieldConfig"]["defaults"]["unit"], "a number without a unit is a riddle"
    for thing in (panel, *panel["targets"]):
        assert thing["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    if panel["type"] == "timeseries":
        assert panel["options"]["legend"]["displayMode"] in ("list", "table")
        assert all(target["legendFormat"] for target in panel["targets"])


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_a_query_parses_and_takes_its_rates_over_grafana_s_own_interval(uid: str, panel: dict[str, Any]) -> None:
    for expression in expressions(panel):
        promql_parser.parse(interpolate(expression, {}))
        if panel["type"] == "timeseries":
            assert not re.search(r"\b(i?rate|i?delta|increase|deriv)\(\w+(\{[^}]*\})?\[\d", expression), (
                f"{expression}: a fixed range loses samples when the step is longer; use $__rate_interval"
            )


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_two_exporters_are_one_in_every_query(uid: str, panel: dict[str, Any]) -> None:
    """`sum` over a metric of the exporter counts a pair of exporters twice, unless a `max` stands in between."""
    if uid == "spinner-exporter":
        return  # there each exporter counts for itself
    for expression in expressions(panel):
        assert not re.search(r"\bsum( by \([^)]*\)| without \([^)]*\))? ?\(+(rate|increase)?\(*spinner_", expression), (
            expression
        )


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_runs_of_one_runtime_are_not_taken_for_those_of_another(uid: str, panel: dict[str, Any]) -> None:
    for expression in expressions(panel):
        for labels in re.findall(r"\b(?:max by|on) \(([^)]+)\)", expression):
            names = labels.split(", ")
            assert "runtime" in names or not {"project", "run_id"} & set(names), f"{expression}: ({labels})"


@pytest.mark.parametrize("uid", ["spinner-capacity", "spinner-health"])
def test_the_long_view_reads_recording_rules(uid: str) -> None:
    recorded = re.compile(r"\w+:spinner_\w+:\w+")
    for panel in BOARDS[uid]["panels"]:
        if panel["type"] == "table":
            continue  # the plan as it is now
        for expression in expressions(panel):
            rest = recorded.sub("", interpolate(expression, {}))
            assert "spinner_" not in rest, f"{panel['title']} reads {expression}, which takes too long over a year"


def test_what_is_recorded_is_found_at_any_time_that_a_graph_asks_about() -> None:
    """Prometheus looks back 5 minutes, and evaluates a group at a moment of its interval that nobody can choose."""
    groups = yaml.safe_load(queries.RULES.read_text())["groups"]
    intervals = {group["name"]: group["interval"] for group in groups}
    assert set(intervals.values()) <= {"1m", "5m"}, intervals
    assert intervals["spinner_recording_1h"] == spinner_health.EVERY


def test_a_metric_that_nobody_exposes_fails_the_build() -> None:
    with pytest.raises(KeyError, match="spinner_run_progres"):
        queries.series("spinner_run_progres")
    with pytest.raises(KeyError, match="has no label stat"):
        queries.series("spinner_run_status", 'stat="queued"')


def test_every_status_has_a_look_and_no_two_share_word_and_sign() -> None:
    assert set(STATUSES) == {status.value for status in Status} | {"stalled", "failures"}
    texts = [text for text, _ in STATUSES.values()]
    assert len(set(texts)) == len(texts)
    assert all(not text[0].isalnum() for text in texts), "a sign stands before the word: colour alone says nothing"
    assert STATUSES["failures"][1] != STATUSES["completed"][1], "failed records must never look all green"


def test_a_stall_is_the_same_on_a_dashboard_as_in_the_alert() -> None:
    groups = yaml.safe_load((ROOT / "alerts" / "alerts.rules.yml").read_text())["groups"]
    alert = next(rule for group in groups for rule in group["rules"] if rule.get("alert") == "SpinnerRunStalled")
    words = re.sub(r"max (by|without) \([^)]*\)|\{[^}]*\}|[\s()]", "", queries.stalled_runs())
    assert words in re.sub(r"max (by|without) \([^)]*\)|[\s()]", "", alert["expr"])
