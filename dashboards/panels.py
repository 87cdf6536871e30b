"""Builders for panels, variables and dashboards with the project's conventions.

`grafana` corrects the JSON that grafanalib writes from them.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from grafanalib import core

from dashboards.grafana import ALERT_ANNOTATIONS, SCHEMA_VERSION, Query, extra
from dashboards.queries import PROJECT, RUNTIME, series
from dashboards.style import (
    BLUE,
    DATASOURCE,
    GREEN,
    GREY,
    MAGENTA,
    PRODUCT_URL,
    PURPLE,
    RED,
    RUNBOOKS_URL,
    TAG,
    TEXT,
    UNITS,
    UNKNOWN,
    null_mapping,
    on_background,
    thresholds,
    value_mapping,
)


class GridPos(NamedTuple):
    """A panel's column, row, width and height: the page has 24 columns."""

    x: int
    y: int
    w: int
    h: int


@dataclasses.dataclass(frozen=True)
class Panel:
    """What every panel has: an id, a title, a description and a position."""

    id: int
    """Links and embedded panels refer to it: a panel keeps its id, and the id of a removed panel is not used again."""
    title: str
    description: str
    grid_pos: GridPos


def range_query(expression: str, legend: str = "", *, min_step: str = "") -> Query:
    """Return a range query: one line for each series."""
    return Query(expression, legend, min_step=min_step)


def instant_query(expression: str, legend: str = "") -> Query:
    """Return an instant query: the values at the end of the time range."""
    return Query(expression, legend, instant=True)


def exemplar_query(selector: str) -> Query:
    """Return a query for the exemplars of a histogram's buckets only.

    Grafana asks for exemplars beside values; of these the comparison, which is never true, returns none.
    """
    return Query(f"{selector} < 0", instant=True, exemplars=True)


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table: which field it shows, and how."""

    field: str
    title: str
    unit: str = "word"
    width: int | None = None
    least_width: int | None = None
    """So that a narrow screen scrolls instead of cutting words."""
    coloured: bool = False
    """Whether the colour of the value is the background of its cell."""
    bar: bool = False
    """Draw the value, from 0 to 1, as a bar."""
    mappings: Sequence[dict[str, Any]] = ()
    empty: tuple[str, str] = UNKNOWN
    """Text and colour of a cell without a value."""
    steps: dict[str, Any] | None = None
    links: Sequence[tuple[str, str, bool]] = ()
    """Title, URL, and whether the link opens in a new tab."""
    align: str = ""
    filterable: bool = False
    wrap: bool = False
    """Wrap long text instead of cutting it off."""
    decimals: int | None = None
    hidden: bool = False
    """Hide the column, and keep its field for the links of other columns."""

    def override(self) -> dict[str, Any]:
        """Return the column as a field override."""
        cell: dict[str, Any] = {"type": "color-background", "mode": "basic"} if self.coloured else {"type": "auto"}
        properties: dict[str, Any] = {"displayName": self.title, "unit": UNITS[self.unit]}
        if self.bar:
            cell = {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"}
            properties |= {"min": 0, "max": 1, "color": {"mode": "fixed", "fixedColor": BLUE}, "decimals": 0}
        if self.wrap:
            # Grafana 11 to 12.1 reads the first option, later versions read the second.
            cell["wrapText"] = properties["custom.wrapText"] = True
        properties["custom.cellOptions"] = cell
        if self.decimals is not None:
            properties["decimals"] = self.decimals
        if self.width:
            properties["custom.width"] = self.width
        if self.least_width:
            properties["custom.minWidth"] = self.least_width
        if self.filterable:
            properties["custom.filterable"] = True
        if self.hidden:
            # Grafana 11 to 12.1 reads the first option, later versions read the second.
            properties["custom.hidden"] = True
            properties["custom.hideFrom.viz"] = True
        if self.align:
            properties["custom.align"] = self.align
        properties["mappings"] = on_background([*self.mappings, null_mapping(*self.empty)])
        # An empty label is known, and must not show the text for a table without rows.
        properties["noValue"] = ""
        if self.steps:
            properties["thresholds"] = on_background(self.steps)
            properties["color"] = {"mode": "thresholds"}
        if self.links:
            properties["links"] = [
                {"title": title, "url": url, "targetBlank": new_tab} for title, url, new_tab in self.links
            ]
        return by_name(self.field, properties)


def stat(
    panel: Panel,
    query: Query,
    *,
    unit: str = "count",
    colours: dict[str, Any] | None = None,
    mappings: Sequence[dict[str, Any]] = (),
    decimals: int | None = None,
    since: str | None = None,
    links: Sequence[tuple[str, str]] = (),
    show_name: bool = False,
    calculation: str = "lastNotNull",
    empty: str = UNKNOWN[0],
    names: Mapping[str, tuple[str, str]] | None = None,
) -> core.Panel:
    """Show one number, or with `show_name` the name of the series; `empty` in grey if the query returns nothing.

    A card about the present has an instant query: the last value of a range can be hours old. `calculation` reduces
    the range of other cards to a number. `names` gives a series another name and a colour, and shows several side by
    side. `since` replaces the dashboard's time range, for example `now/d` for today.
    """
    return core.Stat(
        **_common(panel, [query]),
        format=UNITS[unit],
        reduceCalc=calculation,
        colorMode="background_solid",
        graphMode="none",
        textMode="value_and_name" if names else "name" if show_name else "value",
        overrides=[
            by_name(
                name,
                {
                    "displayName": shown,
                    "color": {"mode": "fixed", "fixedColor": on_background({"color": colour})["color"]},
                },
            )
            for name, (shown, colour) in (names or {}).items()
        ],
        mappings=on_background(list(mappings)),
        noValue=empty,
        decimals=decimals,
        timeFrom=since,
        hideTimeOverride=since is not None,
        extraJson=extra(
            defaults={
                "thresholds": on_background(colours or thresholds(GREY, (0, TEXT))),
                "color": {"mode": "thresholds"},
                "links": [{"title": name, "url": url} for name, url in links],
            },
            options={
                "percentChangeColorMode": "standard",
                "showPercentChange": False,
                "wideLayout": True,
                # Grafana's own sizes depend on the room: six names side by side on a phone would have 5 pixels.
                **({"text": {"titleSize": 13, "valueSize": 20}} if names else {}),
            },
        ),
    )


def time_series(
    panel: Panel,
    queries: Sequence[Query],
    *,
    unit: str = "count",
    empty: str,
    colours: dict[str, str] | None = None,
    stacked: bool = False,
    bars: bool = False,
    limit: float | None = None,
    axis_max: float | None = None,
    many: bool = False,
) -> core.Panel:
    """Show lines or bars over time. `colours` maps a legend to its colour; `limit` draws a dashed line.

    The axis includes the limit, so that it does not reach to 10,000% where everything is zero. The legend of `many`
    series is a table, the highest first.
    """
    fixed = [
        by_name(name, {"color": {"mode": "fixed", "fixedColor": colour}}) for name, colour in (colours or {}).items()
    ]
    steps = thresholds(TEXT) if limit is None else thresholds("transparent", (limit, RED))
    return core.TimeSeries(
        **_common(panel, queries),
        unit=UNITS[unit],
        drawStyle="bars" if bars else "line",
        fillOpacity=70 if bars else 60 if stacked else 8,
        # A stacked series of zeros would otherwise draw its line on top of the series below.
        lineWidth=0 if stacked else 1,
        # Otherwise a single sample, such as the first hour, would not be seen.
        showPoints="never" if stacked else "auto",
        stacking={"mode": "normal" if stacked else "none", "group": "A"},
        tooltipMode="multi",
        tooltipSort="desc",
        legendDisplayMode="table" if many else "list",
        legendCalcs=["max", "lastNotNull"] if many else [],
        thresholdsStyleMode="off" if limit is None else "dashed",
        overrides=fixed,
        extraJson=extra(
            defaults={
                "thresholds": steps,
                "min": 0,
                "max": axis_max,
                "noValue": empty,
                "custom": {"insertNulls": False} | ({} if limit is None else {"axisSoftMax": limit}),
            },
            options={"legend": {"showLegend": True} | ({"sortBy": "Max", "sortDesc": True} if many else {})},
        ),
    )


_LOWEST = "lowest"


def table(
    panel: Panel,
    queries: Sequence[Query],
    columns: Sequence[Column],
    *,
    empty: str,
    sort: tuple[str, bool] | None = None,
    lowest_of: Sequence[str] = (),
    shifted: Sequence[tuple[str, int, str]] = (),
    hidden: Sequence[str] = (),
    paginated: bool = True,
) -> core.Panel:
    """Show one row for each label set. `sort` is a field and whether to sort in descending order.

    `lowest_of` sorts by the lowest of several fields instead. `shifted` has fields, what to add to each, and the
    name of the field with the sum. `hidden` names fields to leave out, for example those that only sort. `empty` is
    the text of a table without rows.
    """
    queries = [dataclasses.replace(query, format="table") for query in queries]
    transformations: list[dict[str, Any]] = [{"id": "merge", "options": {}}]
    transformations += [
        {
            "id": "calculateField",
            "options": {
                "mode": "binary",
                # A number as a text: Grafana 11 knows no other form, and later versions read it too.
                "binary": {"left": field, "operator": "+", "right": str(number)},
                "alias": name,
            },
        }
        for field, number, name in shifted
    ]
    if lowest_of:
        transformations.append(
            {
                "id": "calculateField",
                "options": {
                    "mode": "reduceRow",
                    "reduce": {"reducer": "min", "include": list(lowest_of)},
                    "alias": _LOWEST,
                    "timeSeries": False,
                },
            }
        )
        sort, hidden = (_LOWEST, False), (*hidden, _LOWEST)
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
        **_common(panel, queries),
        transformations=transformations,
        overrides=[column.override() for column in columns],
        extraJson=extra(
            defaults={
                "color": {"mode": "thresholds"},
                "thresholds": thresholds(TEXT),
                "noValue": empty,
                "custom": {"inspect": False, "minWidth": 50, "cellOptions": {"type": "auto"}},
            },
            options={
                "cellHeight": "sm",
                "enablePagination": paginated,
                # Grafana 11 to 12.1 reads this option, later versions read the other.
                "footer": {
                    "show": False,
                    "reducer": ["sum"],
                    "fields": "",
                    "countRows": False,
                    "enablePagination": paginated,
                },
            },
        ),
    )


def bar_gauge(
    panel: Panel,
    query: Query,
    *,
    empty: str,
    colour: str = BLUE,
    colours: dict[str, str] | None = None,
    none: str = "",
    names_above: bool = False,
) -> core.Panel:
    """Show the current value of each series as a bar. With `names_above`, names are above the bars, for long names.

    `none` is the text, in green, of the value 0; `empty` is that of no value.
    """
    fixed = [by_name(name, {"color": {"mode": "fixed", "fixedColor": each}}) for name, each in (colours or {}).items()]
    return core.BarGauge(
        **_common(panel, [query]),
        extraJson=extra(
            defaults={
                "unit": UNITS["count"],
                "min": 0,
                "decimals": 0,
                "noValue": empty,
                "mappings": [value_mapping({"0": (none, GREEN)})] if none else [],
                # Without it, Grafana shows no name of a single bar; with it, no override matches a name.
                "displayName": "${__series.name}" if names_above else None,
                "thresholds": thresholds(GREY, (0, colour)),
                "color": {"mode": "thresholds"},
            },
            overrides=fixed,
            options={
                "displayMode": "basic",
                "orientation": "horizontal",
                "valueMode": "text",
                "namePlacement": "top" if names_above else "left",
                "showUnfilled": True,
                "sizing": "auto",
                "minVizWidth": 8,
                "minVizHeight": 12,
                "maxVizHeight": 30,
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
                "legend": {"showLegend": False, "displayMode": "hidden", "placement": "bottom", "calcs": []},
            },
        ),
    )


def heat_map(panel: Panel, query: Query, exemplars: Query, *, unit: str, empty: str) -> core.Panel:
    """Show how many observations each bucket of a histogram has over time; the query returns one series per `le`.

    Grafana places an exemplar by its time and its label `le`.
    """
    return core.Heatmap(
        # Grafana asks for no exemplars of a metric whose name a query before it contains, as that of a rule does.
        **_common(panel, [exemplars, dataclasses.replace(query, format="heatmap")]),
        extraJson=extra(
            defaults={"thresholds": thresholds(TEXT), "noValue": empty, "custom": {"hideFrom": _SHOWN_EVERYWHERE}},
            options={
                "calculate": False,
                # The same order in both themes: more is further from the background.
                "color": {"mode": "opacity", "fill": BLUE, "scale": "exponential", "exponent": 0.5, "steps": 64},
                "exemplars": {"color": MAGENTA},
                "rowsFrame": {"layout": "auto", "value": "Runs"},
                "filterValues": {"le": 1e-9},
                "yAxis": {"axisPlacement": "left", "reverse": False, "unit": UNITS[unit]},
                "cellGap": 1,
                "cellValues": {"unit": UNITS["count"], "decimals": 0},
                "showValue": "never",
                "legend": {"show": False},
                "tooltip": {"mode": "single", "yHistogram": True, "showColorScale": False},
            },
        ),
    )


_SHOWN_EVERYWHERE = {"legend": False, "tooltip": False, "viz": False}

RUN_ON_A_TIMELINE = "{{run_id}} {{spinner}}"
"""The name of a run's row: on a narrow screen Grafana cuts off its beginning, and the end of the id is left."""


def state_timeline(
    panel: Panel,
    queries: Sequence[Query],
    *,
    mappings: Sequence[dict[str, Any]],
    empty: str,
    rows_per_page: int = 20,
) -> core.Panel:
    """Show one band for each series, coloured by its value: those of the first query first, by their labels."""
    return core.StateTimeline(
        **_common(panel, queries),
        mappings=list(mappings),
        showValue="auto",
        # Mixed with the panel of the light theme, a colour would be too bright for white text.
        fillOpacity=100,
        extraJson=extra(
            defaults={
                "thresholds": thresholds(TEXT),
                "noValue": empty,
                "custom": {"spanNulls": False, "insertNulls": False},
            },
            options={"perPage": rows_per_page, "legend": {"showLegend": True}},
        ),
    )


def bars_by_hour(panel: Panel, query: Query, *, empty: str) -> core.Panel:
    """Show the mean of a series for each hour of the day, in UTC."""
    return core.BarChart(
        **_common(panel, [query]),
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
        extraJson=extra(
            defaults={
                "unit": UNITS["count"],
                "min": 0,
                "decimals": 0,
                "noValue": empty,
                "thresholds": thresholds(TEXT),
            },
            options={
                "showValue": "never",
                "xTickLabelRotation": -45,
                "xTickLabelSpacing": 20,
                "fullHighlight": False,
            },
        )
        | {"maxDataPoints": 10_000},  # One point for each hour of a year; with fewer, Grafana would skip hours.
    )


def by_name(name: str, properties: dict[str, Any]) -> dict[str, Any]:
    """Return an override for the field or series with this name."""
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": each, "value": value} for each, value in properties.items()],
    }


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
    """Return a dashboard with what all share: the data source variable, links to the other dashboards, times in UTC.

    Each dashboard begins with its own time range: an hour of Live Ops says nothing on Capacity.
    """
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
        annotations=core.Annotations([ALERT_ANNOTATIONS, DEPLOYS, *annotations]),
        links=[
            core.DashboardLink(title="Spinners", tags=[TAG], asDropdown=False, includeVars=True, keepTime=False),
        ],
        panels=list(panels),
    )


DEPLOYS: dict[str, Any] = {
    "datasource": {"type": "grafana", "uid": "-- Grafana --"},
    "enable": True,
    "hide": False,
    "iconColor": PURPLE,
    "name": "Deploys",
    "target": {"type": "tags", "tags": ["deploy"], "matchAny": False, "limit": 100},
}
"""Annotations with the tag `deploy`, which a pipeline writes through Grafana's API."""


def query_variable(
    name: str,
    label: str,
    query: str,
    *,
    regex: str = "",
    hidden: bool = False,
    one: bool = False,
    all_value: str = ".*",
) -> core.Template:
    """Return a variable with values from Prometheus; it allows several values and All, or `one` value.

    A hidden one always has all values that its query returns.
    """
    return core.Template(
        name=name,
        label=label,
        query={"query": query, "refId": f"{name}-values", "qryType": 1},
        dataSource=DATASOURCE,
        regex=regex,
        multi=not one,
        includeAll=not one,
        allValue=None if hidden or one else all_value,
        default=None if one else "$__all",
        hide=core.HIDE_VARIABLE if hidden else core.SHOW,
        refresh=core.REFRESH_ON_TIME_RANGE_CHANGE,
        sort=core.SORT_DISABLED if hidden else core.SORT_ALPHA_IGNORE_CASE_ASC,
    )


def runtime_variable() -> core.Template:
    """Return the variable for the runtimes."""
    return query_variable("runtime", "Runtime", f"label_values({series('spinner_api_up')}, runtime)")


def project_variable(*, all_value: str = ".*") -> core.Template:
    """Return the variable for the projects of the selected runtimes."""
    query = f"label_values({series('spinner_project_up', RUNTIME)}, project)"
    return query_variable("project", "Project", query, all_value=all_value)


def spinner_variable(*, one: bool = False) -> core.Template:
    """Return the variable for the spinners of the selected projects; at most `one`, at first the first one."""
    return query_variable("spinner", "Spinner", f"label_values({series('spinner_runs', PROJECT)}, spinner)", one=one)


def custom_variable(name: str, label: str, values: Mapping[str, str]) -> core.Template:
    """Return a variable with a fixed list of values and their texts; it allows several values and All."""
    return core.Template(
        name=name,
        label=label,
        type="custom",
        query=", ".join(f"{text} : {value}" for value, text in values.items()),
        multi=True,
        includeAll=True,
        allValue=".*",
        options=[
            {"text": "All", "value": "$__all", "selected": True},
            *({"text": text, "value": value, "selected": False} for value, text in values.items()),
        ],
    )


def text_variable(name: str, label: str, value: str, *, hidden: bool = False) -> core.Template:
    """Return a variable whose value is a text, which Grafana never replaces by another one.

    A hidden one is set by links.
    """
    return core.Template(
        name=name,
        label=label,
        type="textbox",
        query=value,
        default=value,
        options=[{"text": value, "value": value, "selected": True}],
        hide=core.HIDE_VARIABLE if hidden else core.SHOW,
    )


ALL = "%24__all"
"""Grafana's name of All in the URL of a link."""

AMONG_ALL, AMONG_ITS_PROJECT = ".*", "()"
"""What `queries.RUN_PLACE` has behind a runtime or project: any at first, and nothing more after a click."""


def run_variables() -> list[core.Template]:
    """Return the variables that say which run is chosen: its id, and what a click on a run sets besides.

    They are texts, because Grafana replaces the value of a list at each refresh if it is no longer in the list.
    """
    return [
        text_variable("run", "Run", ""),
        text_variable("run_runtime", "Runtime of the run", "", hidden=True),
        text_variable("run_project", "Project of the run", "", hidden=True),
        core.Template(
            name="run_among",
            label="Runs that can be chosen",
            type="custom",
            query=f"all : {AMONG_ALL}, those of its project : {AMONG_ITS_PROJECT}",
            options=[
                {"text": "all", "value": AMONG_ALL, "selected": True},
                {"text": "those of its project", "value": AMONG_ITS_PROJECT, "selected": False},
            ],
            hide=core.HIDE_VARIABLE,
        ),
    ]


def choosing_a_run(run_id: str = "run_id") -> str:
    """Return the parameters of a link to Jobs that choose the run of a row, which has these labels as fields.

    Its id would not be enough: it is unique within a project only.
    """
    fields = {"run_runtime": "runtime", "run_project": "project", "run": run_id}
    chosen = "&".join(f"var-{variable}=${{__data.fields.{field}:percentencode}}" for variable, field in fields.items())
    return f"{chosen}&var-run_among={AMONG_ITS_PROJECT}"


def product_url_variable() -> core.Template:
    """Return the variable for the base URL of the product's own pages."""
    return text_variable("product_url", "Product URL", PRODUCT_URL)


def runbooks_url_variable() -> core.Template:
    """Return the variable for the base URL of the runbooks, which links of alerts begin with."""
    return text_variable("runbooks_url", "Runbooks URL", RUNBOOKS_URL)


def _common(panel: Panel, queries: Sequence[Query]) -> dict[str, Any]:
    return {
        "id": panel.id,
        "title": panel.title,
        "description": panel.description,
        "dataSource": DATASOURCE,
        "targets": [dataclasses.replace(query, ref_id=chr(ord("A") + index)) for index, query in enumerate(queries)],
        "gridPos": core.GridPos(**panel.grid_pos._asdict()),
        "maxDataPoints": None,
    }


def _datasource() -> core.Template:
    return core.Template(
        name="datasource", label="Data source", type="datasource", query="prometheus", default="default", regex=""
    )
