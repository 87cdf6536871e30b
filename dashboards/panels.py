"""Panels as a dashboard's module writes them down.

All that grafanalib lacks, or writes for a Grafana of long ago, is here.
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import Any

from grafanalib import core
from grafanalib._gen import DashboardEncoder

from dashboards.queries import PROJECT, RUNTIME, series
from dashboards.style import BLUE, DATASOURCE, PRODUCT_URL, TAG, TEXT, UNITS, thresholds

SCHEMA_VERSION = 42
"""The dashboard schema of Grafana 11 to 13; grafanalib would write that of Grafana 4."""

Place = tuple[int, int, int, int]
"""Column (of 24), row, width and height of a panel."""


@dataclasses.dataclass(frozen=True)
class Query:
    """A PromQL query, over time or of the present; grafanalib's own writes what Grafana forgot long ago."""

    expression: str
    legend: str = ""
    instant: bool = False
    minimum: str = ""
    """The shortest step, for a recording rule that is not evaluated so often."""
    format: str = "time_series"
    letter: str = ""

    def to_json_data(self) -> dict[str, Any]:
        """Return it as Grafana's Prometheus data source writes it."""
        return {
            "refId": self.letter,
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": self.expression,
            "format": self.format,
            "instant": self.instant,
            "range": not self.instant,
            "legendFormat": self.legend or "__auto",
            **({"interval": self.minimum} if self.minimum else {}),
        }


def over_time(expression: str, legend: str = "", *, minimum: str = "") -> Query:
    """A query that draws a line for each series."""
    return Query(expression, legend, minimum=minimum)


def now(expression: str, legend: str = "") -> Query:
    """A query of the present."""
    return Query(expression, legend, instant=True)


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table: the field that it shows, and how."""

    field: str
    title: str
    unit: str = "word"
    width: int | None = None
    colours: str = ""
    """`text` or `background`: what the value's colour fills."""
    bar: bool = False
    """A bar in the cell, from 0 to 1."""
    mappings: Sequence[dict[str, Any]] = ()
    steps: dict[str, Any] | None = None
    links: Sequence[tuple[str, str, bool]] = ()
    """Title, URL, and whether it opens a new tab."""
    align: str = ""
    filterable: bool = False
    wrap: bool = False
    """Break long text into lines rather than cut it off."""
    hidden: bool = False
    """Not shown, but there for the links of others."""

    def override(self) -> dict[str, Any]:
        """Return the column as a field override."""
        cell: dict[str, Any] = {"type": f"color-{self.colours}"} if self.colours else {"type": "auto"}
        properties: dict[str, Any] = {"displayName": self.title, "unit": UNITS[self.unit]}
        if self.bar:
            cell = {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"}
            properties |= {"min": 0, "max": 1, "color": {"mode": "fixed", "fixedColor": BLUE}, "decimals": 0}
        if self.wrap:
            # The first is that of Grafana 11 to 12.1, the second that of those after it.
            cell["wrapText"] = properties["custom.wrapText"] = True
        properties["custom.cellOptions"] = cell
        if self.width:
            properties["custom.width"] = self.width
        if self.filterable:
            properties["custom.filterable"] = True
        if self.hidden:
            # The first is that of Grafana 11 to 12.1, the second that of those after it.
            properties["custom.hidden"] = True
            properties["custom.hideFrom.viz"] = True
        if self.align:
            properties["custom.align"] = self.align
        if self.mappings:
            properties["mappings"] = list(self.mappings)
        if self.steps:
            properties["thresholds"] = self.steps
            properties["color"] = {"mode": "thresholds"}
        if self.links:
            properties["links"] = [
                {"title": title, "url": url, "targetBlank": new_tab} for title, url, new_tab in self.links
            ]
        return by_name(self.field, properties)


def stat(
    number: int,
    title: str,
    query: Query,
    place: Place,
    description: str,
    *,
    unit: str = "count",
    colours: dict[str, Any] | None = None,
    mappings: Sequence[dict[str, Any]] = (),
    empty: str = "none",
    graph: bool = False,
    decimals: int | None = None,
    since: str | None = None,
    links: Sequence[tuple[str, str]] = (),
    name_is_value: bool = False,
    calculation: str = "lastNotNull",
) -> core.Panel:
    """One number, or with `name_is_value` the name of a series; the last of the range, or another `calculation` of it.

    `since` is a time range of its own, such as `now/d` for today.
    """
    return core.Stat(
        **_common(number, title, [query], place, description),
        format=UNITS[unit],
        reduceCalc=calculation,
        colorMode="value",
        graphMode="area" if graph else "none",
        textMode="name" if name_is_value else "value",
        mappings=list(mappings),
        noValue=empty,
        decimals=decimals,
        timeFrom=since,
        hideTimeOverride=since is not None,
        extraJson={
            "fieldConfig": {
                "defaults": {
                    "thresholds": colours or thresholds(TEXT),
                    "color": {"mode": "thresholds"},
                    "links": [{"title": name, "url": url} for name, url in links],
                }
            },
            "options": {"percentChangeColorMode": "standard", "showPercentChange": False, "wideLayout": True},
        },
    )


def time_series(
    number: int,
    title: str,
    queries: Sequence[Query],
    place: Place,
    description: str,
    *,
    unit: str = "count",
    empty: str,
    colours: dict[str, str] | None = None,
    stacked: bool = False,
    bars: bool = False,
    limit: float | None = None,
    least: float | None = 0,
    most: float | None = None,
    overrides: Sequence[dict[str, Any]] = (),
    legend_last: bool = False,
) -> core.Panel:
    """Lines or bars over time; `colours` by legend, `limit` as a dashed line that should not be crossed."""
    fixed = [
        by_name(name, {"color": {"mode": "fixed", "fixedColor": colour}}) for name, colour in (colours or {}).items()
    ]
    steps = thresholds(TEXT) if limit is None else thresholds("transparent", (limit, "#E0482E"))
    return core.TimeSeries(
        **_common(number, title, queries, place, description),
        unit=UNITS[unit],
        drawStyle="bars" if bars else "line",
        fillOpacity=70 if bars else 60 if stacked else 8,
        # The line of a stacked series that is zero would still be seen, on top of the others.
        lineWidth=0 if stacked else 1,
        showPoints="never",
        stacking={"mode": "normal" if stacked else "none", "group": "A"},
        tooltipMode="multi",
        tooltipSort="desc",
        legendDisplayMode="list",
        legendCalcs=["lastNotNull"] if legend_last else [],
        thresholdsStyleMode="off" if limit is None else "dashed",
        overrides=[*fixed, *overrides],
        extraJson={
            "fieldConfig": {
                "defaults": {
                    "thresholds": steps,
                    "min": least,
                    "max": most,
                    "noValue": empty,
                    "custom": {"insertNulls": False},
                }
            },
            "options": {"legend": {"showLegend": True}},
        },
    )


def table(
    number: int,
    title: str,
    queries: Sequence[Query],
    columns: Sequence[Column],
    place: Place,
    description: str,
    *,
    empty: str,
    sort: tuple[str, bool] | None = None,
    hidden: Sequence[str] = (),
    page: bool = True,
) -> core.Panel:
    """A row for each label set that the queries share; `sort` is a field and whether the greatest comes first.

    Fields without a column, and those `hidden` that only sort, are left out.
    """
    queries = [dataclasses.replace(query, format="table") for query in queries]
    transformations: list[dict[str, Any]] = [{"id": "merge", "options": {}}]
    if sort is not None:
        transformations.append({"id": "sortBy", "options": {"sort": [{"field": sort[0], "desc": sort[1]}]}})
    order = [column.field for column in columns]
    transformations.append(
        {
            "id": "organize",
            "options": {
                "excludeByName": dict.fromkeys(("Time", *hidden), True),
                "includeByName": {},
                "indexByName": {name: index for index, name in enumerate(order)},
                "renameByName": {},
            },
        }
    )
    return core.Table(
        **_common(number, title, queries, place, description),
        transformations=transformations,
        overrides=[column.override() for column in columns],
        extraJson={
            "fieldConfig": {
                "defaults": {
                    "color": {"mode": "thresholds"},
                    "thresholds": thresholds(TEXT),
                    "noValue": empty,
                    "custom": {"inspect": False, "minWidth": 50, "cellOptions": {"type": "auto"}},
                }
            },
            "options": {
                "cellHeight": "sm",
                "enablePagination": page,
                "footer": {"show": False, "reducer": ["sum"], "fields": "", "countRows": False},
            },
        },
    )


def bar_gauge(
    number: int,
    title: str,
    query: Query,
    place: Place,
    description: str,
    *,
    unit: str = "count",
    empty: str,
    colour: str = BLUE,
    colours: dict[str, str] | None = None,
    names_above: bool = False,
) -> core.Panel:
    """A bar for each series, now; long names stand above their bars."""
    fixed = [by_name(name, {"color": {"mode": "fixed", "fixedColor": each}}) for name, each in (colours or {}).items()]
    return core.BarGauge(
        **_common(number, title, [query], place, description),
        extraJson={
            "fieldConfig": {
                "defaults": {
                    "unit": UNITS[unit],
                    "min": 0,
                    "decimals": 0,
                    "noValue": empty,
                    "thresholds": thresholds(colour),
                    "color": {"mode": "fixed", "fixedColor": colour},
                },
                "overrides": fixed,
            },
            "options": {
                "displayMode": "basic",
                "orientation": "horizontal",
                "valueMode": "color",
                "namePlacement": "top" if names_above else "left",
                "showUnfilled": True,
                "sizing": "auto",
                "minVizWidth": 8,
                "minVizHeight": 12,
                "maxVizHeight": 30,
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
                "legend": {"showLegend": False, "displayMode": "hidden", "placement": "bottom", "calcs": []},
            },
        },
    )


def timeline(
    number: int,
    title: str,
    query: Query,
    place: Place,
    description: str,
    *,
    mappings: Sequence[dict[str, Any]],
    empty: str,
    rows: int = 20,
) -> core.Panel:
    """A band for each series, coloured by what its values mean; `rows` to a page."""
    return core.StateTimeline(
        **_common(number, title, [query], place, description),
        mappings=list(mappings),
        showValue="auto",
        fillOpacity=80,
        extraJson={
            "fieldConfig": {
                "defaults": {
                    "thresholds": thresholds(TEXT),
                    "noValue": empty,
                    "custom": {"spanNulls": False, "insertNulls": False},
                }
            },
            "options": {"perPage": rows, "legend": {"showLegend": True}},
        },
    )


def bars_by_hour(
    number: int, title: str, query: Query, place: Place, description: str, *, unit: str, empty: str
) -> core.Panel:
    """The mean of a series for each hour of the day, UTC."""
    return core.BarChart(
        **_common(number, title, [query], place, description),
        showLegend=False,
        colorMode="fixed",
        fixedColor=BLUE,
        transformations=[
            {
                "id": "formatTime",
                "options": {"timeField": "Time", "outputFormat": "HH", "timezone": "utc", "useTimezone": True},
            },
            {
                "id": "groupBy",
                "options": {
                    "fields": {
                        "Time": {"operation": "groupby", "aggregations": []},
                        "Value": {"operation": "aggregate", "aggregations": ["mean"]},
                    }
                },
            },
            {"id": "sortBy", "options": {"sort": [{"field": "Time"}]}},
        ],
        extraJson={
            "fieldConfig": {
                "defaults": {
                    "unit": UNITS[unit],
                    "min": 0,
                    "decimals": 0,
                    "noValue": empty,
                    "thresholds": thresholds(TEXT),
                }
            },
            "options": {
                "showValue": "never",
                "xTickLabelRotation": -45,
                "xTickLabelSpacing": 20,
                "fullHighlight": False,
            },
            # Every hour of a year: with fewer points hours would be left out.
            "maxDataPoints": 10_000,
        },
    )


def text(number: int, title: str, content: str, place: Place, description: str) -> core.Panel:
    """Words, in Markdown."""
    return core.Text(**_common(number, title, [], place, description), content=content)


def by_name(name: str, properties: dict[str, Any]) -> dict[str, Any]:
    """Return an override of one field or series."""
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": each, "value": value} for each, value in properties.items()],
    }


def second_axis(name: str, unit: str, colour: str) -> dict[str, Any]:
    """Return an override that draws one series against an axis of its own on the right."""
    return by_name(
        name,
        {
            "unit": UNITS[unit],
            "custom.axisPlacement": "right",
            "color": {"mode": "fixed", "fixedColor": colour},
            "max": None,
        },
    )


def dashboard(
    uid: str,
    title: str,
    description: str,
    panels: Sequence[core.Panel],
    *,
    variables: Iterable[core.Template] = (),
    since: str,
    refresh: str = "",
    annotations: Sequence[dict[str, Any]] = (),
) -> core.Dashboard:
    """A dashboard of ours: the data source variable, the links to the others and the times in UTC are part of each."""
    return core.Dashboard(
        uid=uid,
        title=title,
        description=description,
        tags=[TAG],
        timezone="utc",
        time=core.Time(since, "now"),
        refresh=refresh,
        schemaVersion=SCHEMA_VERSION,
        graphTooltip=core.GRAPH_TOOLTIP_MODE_SHARED_CROSSHAIR,
        templating=core.Templating([_datasource(), *variables]),
        annotations=core.Annotations([_alerts_on_panels(), *annotations]),
        links=[
            core.DashboardLink(title="Spinners", tags=[TAG], asDropdown=False, includeVars=True, keepTime=True),
        ],
        panels=list(panels),
    )


def chooser(name: str, label: str, query: str, *, regex: str = "", newest_first: bool = False) -> core.Template:
    """A variable whose values Prometheus knows; several can be chosen, and all."""
    return core.Template(
        name=name,
        label=label,
        query={"query": query, "refId": f"{name}-values", "qryType": 1},
        dataSource=DATASOURCE,
        regex=regex,
        multi=True,
        includeAll=True,
        allValue=None if name == "run" else ".*",
        default="$__all",
        refresh=core.REFRESH_ON_TIME_RANGE_CHANGE,
        sort=core.SORT_DISABLED if newest_first else core.SORT_ALPHA_IGNORE_CASE_ASC,
    )


def runtime_chooser() -> core.Template:
    """The variable that says which runtimes are shown; it has no values where the exporter reads just one."""
    return chooser("runtime", "Runtime", f"label_values({series('spinner_api_up')}, runtime)")


def project_chooser() -> core.Template:
    """The variable that says which projects of the chosen runtimes are shown."""
    return chooser("project", "Project", f"label_values({series('spinner_project_up', RUNTIME)}, project)")


def spinner_chooser() -> core.Template:
    """The variable that says which spinners of the chosen projects are shown."""
    return chooser("spinner", "Spinner", f"label_values({series('spinner_runs', PROJECT)}, spinner)")


def choice(name: str, label: str, values: Sequence[str]) -> core.Template:
    """A variable with a fixed list of values; several can be chosen, and all."""
    return core.Template(
        name=name,
        label=label,
        type="custom",
        query=",".join(values),
        multi=True,
        includeAll=True,
        allValue=".*",
        options=[
            {"text": "All", "value": "$__all", "selected": True},
            *({"text": value, "value": value, "selected": False} for value in values),
        ],
    )


def product_url() -> core.Template:
    """The variable that says where the product's own pages are."""
    return core.Template(
        name="product_url",
        label="Product",
        type="textbox",
        query=PRODUCT_URL,
        default=PRODUCT_URL,
        options=[{"text": PRODUCT_URL, "value": PRODUCT_URL, "selected": True}],
    )


def as_json(board: core.Dashboard) -> str:
    """Return a dashboard as Grafana reads it, without what grafanalib still writes for Grafanas of long ago."""
    data = json.loads(json.dumps(board.to_json_data(), cls=DashboardEncoder))
    for key in ("__inputs", "gnetId", "hideControls", "rows", "sharedCrosshair", "style"):
        data.pop(key, None)
    data["panels"] = [_clean_panel(panel) for panel in data["panels"]]
    for variable in data["templating"]["list"]:
        _clean_variable(variable)
    data["timepicker"] = {}
    return json.dumps(_without_nothing(data), indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def _common(number: int, title: str, queries: Sequence[Query], place: Place, description: str) -> dict[str, Any]:
    x, y, width, height = place
    return {
        "id": number,
        "title": title,
        "description": description,
        "dataSource": DATASOURCE,
        "targets": [dataclasses.replace(query, letter=chr(ord("A") + index)) for index, query in enumerate(queries)],
        "gridPos": core.GridPos(h=height, w=width, x=x, y=y),
        "maxDataPoints": None,
    }


_OLD_PANEL_KEYS = (
    "cacheTimeout", "color", "columns", "editable", "error", "fontSize", "height", "mappings",
    "minSpan", "repeatDirection", "maxPerRow", "span",
)  # fmt: skip
_OLD_OPTIONS = ("fieldOptions", "showThresholdLabels", "showThresholdMarkers")


def _clean_panel(panel: dict[str, Any]) -> dict[str, Any]:
    for key in _OLD_PANEL_KEYS:
        panel.pop(key, None)
    for key in _OLD_OPTIONS:
        panel.get("options", {}).pop(key, None)
    panel["fieldConfig"]["defaults"].get("custom", {}).pop("displayMode", None)
    panel["fieldConfig"].setdefault("overrides", [])
    if panel["type"] == "text":
        # It has no values: a data source would only make it wait.
        panel.pop("datasource")
        panel.pop("targets")
        panel["fieldConfig"] = {"defaults": {}, "overrides": []}
    for key in ("transparent", "hideTimeOverride"):
        if not panel[key]:
            panel.pop(key)
    return panel


def _clean_variable(variable: dict[str, Any]) -> None:
    for key in ("useTags", "tagsQuery", "tagValuesQuery", "auto", "auto_min", "auto_count"):
        variable.pop(key, None)
    if variable["type"] not in ("query", "datasource"):
        for key in ("refresh", "sort", "regex", "datasource"):
            variable.pop(key, None)
    if variable["type"] in ("textbox", "datasource"):
        for key in ("allValue", "includeAll", "multi"):
            variable.pop(key, None)
    variable["skipUrlSync"] = False
    current = variable["current"]
    current.pop("tags", None)
    if variable.get("multi"):
        variable["current"] = {"selected": True, "text": ["All"], "value": ["$__all"]}


def _without_nothing(value: Any) -> Any:
    """Drop keys without a value; a threshold's base has null as its value, and means it."""
    if isinstance(value, dict):
        return {key: _without_nothing(each) for key, each in value.items() if each is not None or key == "value"}
    if isinstance(value, list):
        return [_without_nothing(each) for each in value]
    return value


def _datasource() -> core.Template:
    return core.Template(
        name="datasource", label="Data source", type="datasource", query="prometheus", default="default", regex=""
    )


def _alerts_on_panels() -> dict[str, Any]:
    """Grafana adds this itself when it is missing, and then calls the dashboard changed."""
    return {
        "builtIn": 1,
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)",
        "name": "Annotations & Alerts",
        "type": "dashboard",
    }
