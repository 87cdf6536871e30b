"""Checks of the dashboard files: they are up to date, valid for Grafana, and follow the project's conventions."""

import ast
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import promql_parser
import pytest
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards import queries, spinner_health
from dashboards.__main__ import DASHBOARDS, DIST
from dashboards.grafana import as_json
from dashboards.style import GREY, STATUSES, TAG, TEXT, UNKNOWN, thresholds
from exporter.config import parse_duration
from exporter.status import Status
from tests.alerts.rule_files import alert_rule
from tests.dashboards.display import Mark, Verdict, display
from tests.dashboards.grafana import interpolate
from tests.stack.programs import ROOT
from tests.yaml_files import read_yaml

BOARDS = {uid: json.loads((DIST / f"{uid}.json").read_text()) for uid in DASHBOARDS}
PANELS = [
    pytest.param(uid, panel, id=f"{uid}-{panel['title']}") for uid, board in BOARDS.items() for panel in board["panels"]
]

AXES = {"timeseries", "barchart", "stat", "bargauge"}


def expressions(panel: dict[str, Any]) -> Iterator[str]:
    yield from (target["expr"] for target in panel.get("targets", ()))


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_the_files_are_up_to_date(uid: str) -> None:
    assert (DIST / f"{uid}.json").read_text() == as_json(DASHBOARDS[uid]), (
        "run `make dashboards` and commit dashboards/dist"
    )


@pytest.mark.parametrize("file", sorted((ROOT / "dashboards").glob("*.py")), ids=lambda file: file.stem)
def test_a_module_does_not_give_an_imported_name_to_a_panel(file: Path) -> None:
    """A panel below would use the other panel in its query, and mypy does not know the types of grafanalib."""
    body = ast.parse(file.read_text()).body
    imported = {
        name.asname or name.name
        for each in body
        if isinstance(each, ast.Import | ast.ImportFrom)
        for name in each.names
    }
    assigned = {
        name.id for each in body if isinstance(each, ast.Assign) for name in each.targets if isinstance(name, ast.Name)
    }
    assert not imported & assigned


def test_every_file_belongs_to_a_dashboard() -> None:
    assert {file.stem for file in DIST.glob("*.json")} == set(DASHBOARDS)


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_grafana_s_models_parse_the_file(uid: str) -> None:
    """The models ignore unknown keys, so the test also compares each panel's title, type and queries."""
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
    assert not link["keepTime"], "each dashboard has a time range of its own"


def urls(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        yield from (value for key, value in tree.items() if key == "url" and value)
        yield from (url for value in tree.values() for url in urls(value))
    elif isinstance(tree, list):
        yield from (url for value in tree for url in urls(value))


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_no_value_can_add_a_part_to_the_url_of_a_link(uid: str) -> None:
    """A run called `r0&var-product_url=https://…` would set another variable of the dashboard that it links to."""
    for url in urls(BOARDS[uid]):
        # The base URLs of the product and of the runbooks are variables that a person sets, and begin a URL.
        for variable in re.findall(
            r"\$\{?([^}&?/]*)", url.removeprefix("${product_url}/").removeprefix("${runbooks_url}/")
        ):
            name, _, form = variable.partition(":")
            # Grafana writes the latter as parameters, and encodes their values.
            assert form in ("percentencode", "queryparam") or name == "__url_time_range", f"{variable} in {url}"


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_a_table_with_pages_has_them_in_every_version_of_grafana(uid: str, panel: dict[str, Any]) -> None:
    if panel["type"] == "table":
        options = panel["options"]
        assert options["footer"]["enablePagination"] == options["enablePagination"], (
            "11 to 12.1 reads that of the footer"
        )
    if panel["type"] == "state-timeline":
        assert panel["options"]["perPage"]


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_a_dashboard_shows_deployments(uid: str) -> None:
    """Those of the curl command in docs/dashboards.md."""
    (deploys,) = (each for each in BOARDS[uid]["annotations"]["list"] if each["name"] == "Deploys")
    assert deploys["datasource"] == {"type": "grafana", "uid": "-- Grafana --"}
    assert deploys["enable"]
    assert deploys["target"]["type"] == "tags"
    (tag,) = deploys["target"]["tags"]
    assert f'{{"tags": ["{tag}"]' in (ROOT / "docs" / "dashboards.md").read_text()


def test_the_heat_map_has_recorded_buckets_that_are_not_counted_again() -> None:
    (panel,) = (panel for panel in BOARDS["spinner-health"]["panels"] if panel["type"] == "heatmap")
    exemplars, buckets = panel["targets"]
    assert (buckets["format"], buckets["legendFormat"]) == ("heatmap", "{{le}}")
    assert exemplars["exemplar"]
    assert "exemplar" not in buckets, "rules record none"
    assert not panel["options"]["calculate"], "it is for values that are not in buckets yet"
    assert not {"dataFormat", "yAxis", "cards"} & panel.keys(), "keys of the heat map of Grafana 8"


LINKS = [
    pytest.param(uid, url, id=f"{uid}-{panel['title']}-{number}")
    for uid, board in BOARDS.items()
    for panel in board["panels"]
    for number, url in enumerate(urls(panel))
]


@pytest.mark.parametrize(("uid", "url"), LINKS)
def test_a_link_takes_along_what_the_dashboard_that_it_opens_can_select(uid: str, url: str) -> None:
    """Otherwise a click loses the runtime, the product's address or the time that somebody chose."""
    if not url.startswith("/d/"):
        assert url.startswith(("${product_url}/", "${runbooks_url}/")), "what somebody set for the whole dashboard"
        return
    target, _, query = url.removeprefix("/d/").partition("?")
    parts = query.split("&")
    given = {part.partition("=")[0] for part in parts}
    passed = {
        name
        for part in parts
        for found in re.findall(r"^\$\{(\w+):queryparam\}$|^var-(\w+)=", part)
        for name in found
        if name
    }
    here, there = (
        {each["name"] for each in BOARDS[board]["templating"]["list"] if not each["skipUrlSync"]}
        for board in (uid, target)
    )
    needed = {"datasource", "runtime", "project", "product_url"} & there
    assert needed <= here, "what the link cannot take along"
    assert here & there <= passed <= there
    assert "${__url_time_range}" in given or {"from", "to"} <= given, "the time range"


@pytest.mark.parametrize(("uid", "url"), LINKS)
def test_a_link_that_chooses_a_run_chooses_its_project_and_runtime_too(uid: str, url: str) -> None:
    """Ids of runs are unique within a project only."""
    if re.search(r"[&?]var-run=", url):
        assert "&var-run_among=()" in url
        for name in ("runtime", "project"):
            assert f"var-run_{name}=${{__data.fields.{name}:percentencode}}&" in url


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_the_fields_that_a_link_of_a_table_needs_are_columns(uid: str, panel: dict[str, Any]) -> None:
    """Of a field that a table leaves out, Grafana knows no value."""
    if panel["type"] == "table":
        needed = {name for url in urls(panel) for name in re.findall(r"__data\.fields\.(\w+)", url)}
        columns = {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]}
        (organized,) = (each["options"] for each in panel["transformations"] if each["id"] == "organize")
        assert needed <= columns - organized["excludeByName"].keys()


def test_a_failed_run_links_to_jobs_at_the_time_at_which_it_had_failed() -> None:
    """Weeks of a run would be too many samples, and it is not reported for longer than the retention."""
    (panel,) = (panel for panel in BOARDS["spinner-health"]["panels"] if panel["title"] == "Failed runs of the week")
    (link,) = (url for url in urls(panel) if url.startswith("/d/spinner-jobs?"))
    assert "&var-run=${__data.fields.run_id:percentencode}&" in link
    assert link.endswith(
        "&from=${__data.fields.from.numeric:percentencode}&to=${__data.fields.to.numeric:percentencode}"
    )
    shifted = [each["options"] for each in panel["transformations"] if each["id"] == "calculateField"]
    assert {each["alias"]: each["binary"] for each in shifted} == {
        "from": {"left": "Value", "operator": "+", "right": "-10800000"},
        "to": {"left": "Value", "operator": "+", "right": "240000"},
    }


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_no_table_scrolls_sideways_at_1000_pixels(uid: str, panel: dict[str, Any]) -> None:
    """Grafana divides what fixed columns leave among the others, and does not make up for one that needs more."""
    if panel["type"] == "table":
        grid = panel["gridPos"]["w"]
        width = (1000 - 32 - 8 * 23) / 24 * grid + 8 * (grid - 1) - 2  # 8 pixels between columns, and the border
        needed = sum(widths(panel, width))
        assert needed <= width + 1, f"{needed:.0f} of {width:.0f} pixels"
        assert share(panel, width) >= 84, "a column without a fixed width cuts words"


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_no_title_is_cut_off_at_1000_pixels(uid: str, panel: dict[str, Any]) -> None:
    grid = panel["gridPos"]["w"]
    needed = pixels(panel["title"]) + 60  # with the padding and the symbol of the description
    assert needed <= (1000 - 32 - 8 * 23) / 24 * grid + 8 * (grid - 1), panel["title"]


@pytest.mark.parametrize("panel", [panel for panel in BOARDS["spinner-live-ops"]["panels"] if panel["type"] == "table"])
def test_no_table_of_live_ops_scrolls_sideways_on_a_phone(panel: dict[str, Any]) -> None:
    """Below 768 pixels, each panel has the whole width."""
    width = 480 - 32 - 2
    assert sum(widths(panel, width)) <= width


FIRST_ON_A_PHONE = {
    "Runs": ["Project", "Run", "Status", "Silence"],
    "Chosen run": ["Run", "Status", "Why its threshold"],
    "Failed records": ["Record, step and error"],
    "Records in flight": ["Record", "Step", "For", "Attempts"],
    "Waiting records": ["Record", "Step", "For", "Named"],
    "Plan": ["Meter and runtime", "Usage", "Forecast"],
    "All spinners": ["Project and runtime", "Spinner", "Slower in a week"],
    "Failed runs of the week": ["Project", "Run", "Failed at"],
}
"""The columns of tables with more columns than a phone has room for that say what needs a person."""


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_on_a_phone_the_first_columns_say_what_needs_a_person(uid: str, panel: dict[str, Any]) -> None:
    """The others can be reached by scrolling; Grafana has no way to leave them out on a narrow screen."""
    if panel["type"] != "table" or uid == "spinner-live-ops" or panel["title"] == "Runtimes":
        return
    first = FIRST_ON_A_PHONE[panel["title"]]
    assert [each["displayName"] for each in columns_shown(panel)[: len(first)]] == first
    width = 480 - 32 - 2
    assert sum(widths(panel, width)[: len(first)]) <= width


INSTEAD_OF_ROWS = {"none", "missing"}
"""Columns that a table has only while it has no rows, with the reason."""


def columns_shown(panel: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the properties of the columns of rows that are not hidden, in their order."""
    columns = [
        {each["id"]: each["value"] for each in override["properties"]}
        for override in panel["fieldConfig"]["overrides"]
        if override["matcher"]["options"] not in INSTEAD_OF_ROWS
    ]
    return [each for each in columns if not each.get("custom.hidden")]


def widths(panel: Mapping[str, Any], width: float) -> list[float]:
    """Return how many pixels each column of a table takes: `computeColWidths` in @grafana/ui 13.2.2."""
    return [
        each.get("custom.width", max(each.get("custom.minWidth", 50), share(panel, width)))
        for each in columns_shown(panel)
    ]


def share(panel: Mapping[str, Any], width: float) -> float:
    """Return the share of each column without a fixed width."""
    fixed = [each["custom.width"] for each in columns_shown(panel) if "custom.width" in each]
    return float((width - sum(fixed)) / (len(columns_shown(panel)) - len(fixed)))


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_a_column_has_room_for_its_title_and_for_what_is_said_of_an_absent_value(
    uid: str, panel: dict[str, Any]
) -> None:
    """Grafana cuts off the beginning of a text that is aligned to the right: "? unknown" would be "unknown"."""
    for column in columns_shown(panel) if panel["type"] == "table" else ():
        width = column.get("custom.width", max(84, column.get("custom.minWidth", 0)))
        sign = 22 if column.get("custom.filterable") else 0
        assert pixels(column["displayName"], of_title=True) + sign <= width - 8, column["displayName"]
        empty = column["mappings"][-1]["options"]["result"]["text"]
        shown = max(empty.split(), key=pixels, default="") if column.get("custom.wrapText") else empty
        assert pixels(shown) <= width - 13, f"{column['displayName']}: {empty}"


LONGEST = {
    "dtdhms": "12 d 03:04:05",
    "dtdurations": "59 minutes",
    "time:MM-DD HH:mm": "12-31 23:59",
    "percentunit": "-100%",
}
"""A text of each unit that takes the most room that a column has to have: two digits of days."""


def pixels(text: str, *, of_title: bool = False) -> float:
    """At most, with Grafana's font and size; about, of a title."""
    if of_title:
        return 7.1 * len(text)
    return sum(4.5 if each in " :.ijlt" else 12.5 if each in "m%" else 8.7 for each in text)


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_a_column_has_room_for_its_durations_and_times(uid: str, panel: dict[str, Any]) -> None:
    """A text that wraps needs room for its longest word."""
    for override in panel["fieldConfig"]["overrides"] if panel["type"] == "table" else ():
        column = {each["id"]: each["value"] for each in override["properties"]}
        text = LONGEST.get(column["unit"], "")
        width = column.get("custom.width", column.get("custom.minWidth", 84))
        shown = max(text.split(), key=pixels, default="") if column.get("custom.wrapText") else text
        assert pixels(shown) <= width - 13, f"{column['displayName']}: {shown} needs {pixels(shown) + 13:.0f} pixels"


OF_SECONDS = {"Seconds per record", "Time per record", "Read duration", "Request duration"}
"""What usually takes less than a minute."""

IN_ROUND_NUMBERS = {"Data age"}
"""What has no decimals: 95 seconds are 2 minutes."""


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_a_duration_of_minutes_or_hours_is_no_decimal_number(uid: str, panel: dict[str, Any]) -> None:
    """Grafana writes 95 of the unit `s` as 1.58 mins."""
    shown = {panel["title"]: panel["fieldConfig"]["defaults"]}
    for override in panel["fieldConfig"]["overrides"]:
        properties = {each["id"]: each["value"] for each in override["properties"]}
        shown[properties.get("displayName")] = properties
    assert {title for title, each in shown.items() if each.get("unit") == "s"} <= OF_SECONDS | IN_ROUND_NUMBERS
    assert all(each["decimals"] == 0 for title, each in shown.items() if title in IN_ROUND_NUMBERS)


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_a_single_bar_has_a_name_too(uid: str, panel: dict[str, Any]) -> None:
    """Grafana shows the name of a series only beside others, unless the panel's defaults set one.

    There are always several states; and with such a default, no override matches the name of a state.
    """
    if panel["type"] == "bargauge":
        defaults, overrides = panel["fieldConfig"]["defaults"], panel["fieldConfig"]["overrides"]
        assert (defaults.get("displayName") == "${__series.name}") == (not overrides)


COUNTS = [panel for panel in BOARDS["spinner-jobs"]["panels"] if panel["options"].get("textMode") == "value_and_name"]


@pytest.mark.parametrize("panel", COUNTS, ids=[panel["title"] for panel in COUNTS])
def test_the_names_of_statuses_are_legible_on_a_phone_too(panel: dict[str, Any]) -> None:
    """Grafana would give five of them 5 pixels. With a given size they are wrapped, and words must not overlap."""
    title, value = panel["options"]["text"]["titleSize"], panel["options"]["text"]["valueSize"]
    assert title >= 13
    assert 1.2 * (2 * title + value) <= 58, "two lines of a name and the number, below the title of the panel"
    shown = [
        {each["id"]: each["value"] for each in override["properties"]}["displayName"]
        for override in panel["fieldConfig"]["overrides"]
        if override["matcher"]["options"] != "none"
    ]
    width = (480 - 32 - 2 * 9) / len(shown) - 3
    words = {word for name in shown for word in name.split()}
    assert max(map(pixels, words)) * title / 14 <= width - 8, f"{width:.0f} pixels with a margin of 8"


def test_each_status_is_counted_and_completed_runs_are_not_counted_in_green() -> None:
    """Some of their records can have failed; "some failed" says of how many runs."""
    colours = [
        {
            override["matcher"]["options"]: each["value"]["fixedColor"]
            for override in panel["fieldConfig"]["overrides"]
            for each in override["properties"]
            if each["id"] == "color"
        }
        for panel in COUNTS
    ]
    assert {**colours[0], **colours[1]}.keys() == {"none", *STATUSES}
    assert colours[1]["completed"] == "transparent"
    for panel, each in zip(COUNTS, colours, strict=True):
        (target,) = panel["targets"]
        counted = re.findall(r'status(?:=~"|="|", ")(\w+[|\w]*)"', target["expr"].partition("or label_replace(0")[0])
        assert "|".join(counted).split("|") == [name for name in each if name != "none"]


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_the_row_of_a_run_on_a_timeline_can_be_told_from_the_others_on_a_phone(uid: str, panel: dict[str, Any]) -> None:
    """A name has 40% of the width, and of a longer one Grafana cuts off the beginning: the end of an id is enough."""
    if panel["type"] == "state-timeline":
        assert {target["legendFormat"] for target in panel["targets"]} == {"{{run_id}} {{spinner}}"}


def test_the_axis_of_an_unlimited_plan_ends_at_the_limit() -> None:
    (panel,) = (panel for panel in BOARDS["spinner-capacity"]["panels"] if panel["title"] == "Plan usage")
    assert panel["fieldConfig"]["defaults"]["custom"]["axisSoftMax"] == 1


def test_live_ops_refreshes_by_itself_and_jobs_does_not() -> None:
    refreshes = {uid: board["refresh"] for uid, board in BOARDS.items()}
    assert refreshes["spinner-jobs"] == "", "rows must not move while somebody reads them"
    assert refreshes["spinner-live-ops"] == "30s"


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_panels_have_unique_ids_and_do_not_overlap(uid: str) -> None:
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
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24, f"{panel['title']} exceeds the grid"


def test_panel_ids_are_stable() -> None:
    """Links and embedded panels refer to panels by id, so a panel never changes its id."""
    ids = {uid: {panel["title"]: panel["id"] for panel in board["panels"]} for uid, board in BOARDS.items()}
    assert ids["spinner-jobs"]["Runs"] == 1
    assert ids["spinner-live-ops"]["Stalled"] == 4
    assert ids["spinner-capacity"]["Plan"] == 7
    assert [ids[uid]["Runtimes"] for uid in ("spinner-jobs", "spinner-live-ops", "spinner-exporter")] == [11, 7, 1]
    assert 2 not in ids["spinner-exporter"].values(), "it was the age of the data"


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_a_panel_has_a_title_and_a_description(uid: str, panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert len(panel["description"]) > 60, "the description is too short to say what to do"


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_a_panel_without_data_says_that_it_does_not_know(uid: str, panel: dict[str, Any]) -> None:
    text = panel["fieldConfig"]["defaults"]["noValue"]
    assert text.startswith("? "), f"{text!r} claims to know why there are no data"


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_no_query_turns_missing_data_into_a_number(uid: str, panel: dict[str, Any]) -> None:
    for expression in expressions(panel):
        assert not re.search(r"or vector|absent", expression), expression


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_a_panel_about_the_present_asks_for_the_present(uid: str, panel: dict[str, Any]) -> None:
    """The last value of a range can be hours old."""
    if panel["type"] in ("table", "bargauge") or "lastNotNull" in panel["options"].get("reduceOptions", {}).get(
        "calcs", ()
    ):
        assert all(target["instant"] and not target["range"] for target in panel["targets"])


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_no_value_is_grey(uid: str, panel: dict[str, Any]) -> None:
    if panel["type"] in ("stat", "bargauge"):
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["color"] == {"mode": "thresholds"}
        assert display(None, defaults) == Mark(defaults["noValue"], GREY)


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_an_empty_cell_has_a_text_of_its_own(uid: str, panel: dict[str, Any]) -> None:
    """Otherwise it has the text for a table without rows."""
    if panel["type"] != "table":
        return
    for override in panel["fieldConfig"]["overrides"]:
        properties = {each["id"]: each["value"] for each in override["properties"]}
        assert properties["noValue"] == ""
        assert properties["mappings"][-1]["type"] == "special"
        assert display(None, {"thresholds": thresholds(TEXT), **properties}).verdict in (
            Verdict.UNKNOWN,
            Verdict.NEUTRAL,
        )


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_a_panel_has_a_unit_and_uses_the_data_source_variable(uid: str, panel: dict[str, Any]) -> None:
    if panel["type"] in AXES:
        assert panel["fieldConfig"]["defaults"]["unit"], "the panel has no unit"
    for thing in (panel, *panel["targets"]):
        assert thing["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    if panel["type"] == "timeseries":
        assert panel["options"]["legend"]["displayMode"] in ("list", "table")
        assert all(target["legendFormat"] for target in panel["targets"])


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_a_legend_in_a_table_has_room_for_a_name_at_1000_pixels(uid: str, panel: dict[str, Any]) -> None:
    """Beside the highest and the last value: of a narrower one Grafana shows "a:10…"."""
    if panel["type"] == "timeseries" and panel["options"]["legend"]["displayMode"] == "table":
        assert panel["gridPos"]["w"] >= 8


ONE_LINE_EACH = {
    "spinner-jobs": {"spinner", "run_id"},  # of the chosen run
    "spinner-health": {"spinner"},  # the variable has one value
}
"""Labels with a single value on a dashboard."""


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_a_legend_that_can_have_more_than_five_lines_is_a_table_with_the_highest_first(
    uid: str, panel: dict[str, Any]
) -> None:
    if panel["type"] != "timeseries":
        return
    labels = {label for target in panel["targets"] for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])}
    legend = panel["options"]["legend"]
    if labels - {"state", "status"} - ONE_LINE_EACH.get(uid, set()):
        assert (legend["displayMode"], legend.get("sortBy"), legend.get("sortDesc")) == ("table", "Max", True)
        assert "max" in legend["calcs"]
    else:
        assert len(panel["targets"]) <= 5


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_a_query_parses_and_computes_rates_over_rate_interval(uid: str, panel: dict[str, Any]) -> None:
    for expression in expressions(panel):
        promql_parser.parse(interpolate(expression, {}))
        if panel["type"] == "timeseries":
            assert not re.search(r"\b(i?rate|i?delta|increase|deriv)\(\w+(\{[^}]*\})?\[\d", expression), (
                f"{expression}: a fixed range loses samples when the step is longer; use $__rate_interval"
            )


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_every_query_deduplicates_replicas(uid: str, panel: dict[str, Any]) -> None:
    """A `sum` of an exporter's metric counts a pair of exporters twice, unless a `max` comes first."""
    if uid == "spinner-exporter":
        return  # this dashboard shows each exporter separately
    for expression in expressions(panel):
        assert not re.search(r"\bsum( by \([^)]*\)| without \([^)]*\))? ?\(+(rate|increase)?\(*spinner_", expression), (
            expression
        )


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_a_query_never_mixes_runs_of_different_runtimes_or_projects(uid: str, panel: dict[str, Any]) -> None:
    """Ids of runs are unique within a project only."""
    for expression in expressions(panel):
        for labels in re.findall(r"\b(?:by|on) \(([^)]+)\)", expression):
            names = set(labels.split(", "))
            assert "runtime" in names or not {"project", "run_id"} & names, f"{expression}: ({labels})"
            assert "project" in names or "run_id" not in names, f"{expression}: ({labels})"


@pytest.mark.parametrize("uid", ["spinner-capacity", "spinner-health"])
def test_dashboards_with_long_ranges_use_recording_rules(uid: str) -> None:
    recorded = re.compile(r"\w+:spinner_\w+:\w+")
    # Other series are read of the present and of the last day, to see whether the data are fresh.
    present = re.compile(r"spinner_\w+(\{[^}]*\})?(?! offset)(\[(1[dh]|90s)\]|[^\w\[{])")
    for panel in BOARDS[uid]["panels"]:
        for target in panel["targets"]:
            expression = recorded.sub("", interpolate(target["expr"], {}))
            rest = present.sub("", expression) if target["instant"] else expression
            assert "spinner_" not in rest, f"{panel['title']} reads {rest}, which is too slow over a year"


def test_recording_rules_are_evaluated_within_the_lookback_time() -> None:
    """Prometheus looks back 5 minutes for a sample, and takes some time to evaluate a group."""
    groups = read_yaml(queries.RULES)["groups"]
    intervals = {group["name"]: group["interval"] for group in groups}
    assert set(intervals.values()) <= {"30s", "1m", "4m"}, intervals
    assert intervals["spinner_recording_1h"] == spinner_health.EVERY
    assert parse_duration(spinner_health.EVERY) * spinner_health.PER_HOUR == 3600


def test_an_unknown_metric_or_label_fails_the_build() -> None:
    with pytest.raises(KeyError, match="spinner_run_progres"):
        queries.series("spinner_run_progres")
    with pytest.raises(KeyError, match="has no label stat"):
        queries.series("spinner_run_status", 'stat="queued"')


def test_every_status_has_its_own_text_and_colour() -> None:
    assert set(STATUSES) == {status.value for status in Status} | {"stalled", "overdue", "failures"}
    texts = [text for text, _ in (*STATUSES.values(), UNKNOWN)]
    assert len(set(texts)) == len(texts)
    assert all(not text[0].isalnum() for text in texts), (
        "each text starts with a symbol, because colour alone is not enough"
    )
    assert STATUSES["failures"][1] != STATUSES["completed"][1], "a run with failed records must not be green"


def test_only_what_is_unknown_has_a_question_mark() -> None:
    """A status without a mapping is a warning: the exporter knows the run, and somebody has to map the status."""
    assert [status for status, (text, _) in STATUSES.items() if text.startswith("?")] == []
    assert Mark(*UNKNOWN).verdict == Verdict.UNKNOWN
    assert Mark(*STATUSES["unknown"]).verdict == Verdict.BAD


def test_dashboards_and_the_alert_define_a_stall_in_the_same_way() -> None:
    alert = alert_rule("SpinnerRunStalled")
    stalled = interpolate(queries.stalled_runs(), {})
    condition = re.sub(r"max (by|without) \([^)]*\)|\{[^}]*\}|[\s()]", "", stalled)
    assert condition in re.sub(r"max (by|without) \([^)]*\)|\{[^}]*\}|[\s()]", "", alert["expr"])
