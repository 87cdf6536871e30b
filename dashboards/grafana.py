"""The differences between the JSON that grafanalib writes and the JSON that Grafana 11 to 13 reads.

grafanalib 0.7 targets older versions of Grafana. Every key that is removed, corrected or added because of that is here,
each with its reason; `panels` and the dashboards' modules describe the current format only.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from grafanalib import core
from grafanalib._gen import DashboardEncoder

from dashboards.style import DATASOURCE

SCHEMA_VERSION = 42
"""The dashboard schema of Grafana 11 to 13. With grafanalib's default, 12, Grafana would migrate each dashboard."""

_DASHBOARD_KEYS = {
    "__inputs": "used by the import dialog only; provisioned files have no inputs",
    "gnetId": "the dashboard's number on grafana.com; these dashboards are not published there",
    "hideControls": "removed from Grafana",
    "rows": "rows are panels since Grafana 5",
    "sharedCrosshair": "replaced by graphTooltip",
    "style": "the theme is a setting of the user",
}

_PANEL_KEYS = {
    "cacheTimeout": "a setting of Graphite's queries",
    "color": "of the old table panel; now fieldConfig.defaults.color",
    "columns": "of the old table panel",
    "editable": "panels have no such flag; the dashboard has",
    "error": "state of the browser, not of the panel",
    "fontSize": "of the old table panel",
    "height": "the size is gridPos since Grafana 5",
    "mappings": "of the old table panel; now fieldConfig.defaults.mappings",
    "minSpan": "replaced by maxPerRow",
    "repeatDirection": "no panel is repeated",
    "maxPerRow": "no panel is repeated",
    "span": "the size is gridPos since Grafana 5",
}

_OPTION_KEYS = {
    "fieldOptions": "replaced by fieldConfig and reduceOptions in Grafana 7",
    "showThresholdLabels": "an option of gauges, which grafanalib writes for bar gauges too",
    "showThresholdMarkers": "an option of gauges, which grafanalib writes for bar gauges too",
}

_HEATMAP_KEYS = {
    "cards": "of the old heat map; now options",
    "dataFormat": "of the old heat map; the format of the query says it",
    "heatmap": "of the old heat map",
    "hideZeroBuckets": "of the old heat map; now options.filterValues",
    "highlightCards": "of the old heat map",
    "legend": "of the old heat map; now options.legend",
    "reverseYBuckets": "of the old heat map; now options.yAxis.reverse",
    "tooltip": "of the old heat map; now options.tooltip",
    "xAxis": "of the old heat map",
    "xBucketNumber": "of the old heat map",
    "xBucketSize": "of the old heat map",
    "yAxis": "of the old heat map; now options.yAxis",
    "yBucketBound": "of the old heat map",
    "yBucketNumber": "of the old heat map",
    "yBucketSize": "of the old heat map",
}

_CUSTOM_KEYS = {
    "displayMode": "replaced by cellOptions",
}

_FALSE_PANEL_KEYS = {
    "transparent": "Grafana omits it when it is false",
    "hideTimeOverride": "Grafana omits it when it is false",
}

_VARIABLE_KEYS = {
    "useTags": "tags of values are removed from Grafana",
    "tagsQuery": "tags of values are removed from Grafana",
    "tagValuesQuery": "tags of values are removed from Grafana",
    "auto": "only interval variables have it",
    "auto_min": "only interval variables have it",
    "auto_count": "only interval variables have it",
}

_QUERIED_VARIABLE_KEYS = {
    "refresh": "only a variable that is queried can be refreshed",
    "sort": "only values that are queried can be sorted",
    "regex": "only values that are queried can be filtered",
    "datasource": "only a variable that is queried has a data source",
}

_SELECTION_KEYS = {
    "allValue": "a text box, or the choice of a data source, has no All",
    "includeAll": "a text box, or the choice of a data source, has no All",
    "multi": "a text box, or the choice of a data source, has one value",
}

ALERT_ANNOTATIONS: dict[str, Any] = {
    "builtIn": 1,
    "datasource": {"type": "grafana", "uid": "-- Grafana --"},
    "enable": True,
    "hide": True,
    "iconColor": "rgba(0, 211, 255, 1)",
    "name": "Annotations & Alerts",
    "type": "dashboard",
}
"""Grafana adds this annotation when it is missing, and then reports unsaved changes; grafanalib omits it."""


@dataclasses.dataclass(frozen=True)
class Query:
    """A PromQL query. grafanalib's `Target` writes keys that were removed, and lacks `range` and `editorMode`."""

    expression: str
    legend: str = ""
    instant: bool = False
    min_step: str = ""
    """The minimum step, for a recording rule with a longer evaluation interval; empty for Grafana's default."""
    format: str = "time_series"
    exemplars: bool = False
    """Also ask for the exemplars, within the whole range, of every series that the expression selects."""
    ref_id: str = ""

    def to_json_data(self) -> dict[str, Any]:
        """Return the query as Grafana's Prometheus data source writes it."""
        return {
            "refId": self.ref_id,
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": self.expression,
            "format": self.format,
            "instant": self.instant,
            "range": not self.instant,
            "legendFormat": self.legend or "__auto",
            **({"exemplar": True} if self.exemplars else {}),
            **({"interval": self.min_step} if self.min_step else {}),
        }


def extra(
    *,
    defaults: Mapping[str, Any],
    options: Mapping[str, Any] | None = None,
    overrides: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return a panel's `extraJson`: the field defaults and options that its grafanalib class has no argument for."""
    config: dict[str, Any] = {"defaults": dict(defaults)}
    if overrides is not None:
        config["overrides"] = overrides
    return {"fieldConfig": config, **({"options": dict(options)} if options else {})}


def as_json(board: core.Dashboard) -> str:
    """Return a dashboard as the text of a JSON file that Grafana reads without migrating it."""
    data = json.loads(json.dumps(board.to_json_data(), cls=DashboardEncoder))
    _remove(data, _DASHBOARD_KEYS)
    for panel in data["panels"]:
        _correct_panel(panel)
    for variable in data["templating"]["list"]:
        _correct_variable(variable)
    data["timepicker"] = {}  # grafanalib writes lists of intervals that Grafana has its own defaults for.
    return json.dumps(_without_nulls(data), indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def _correct_panel(panel: dict[str, Any]) -> None:
    _remove(panel, _PANEL_KEYS)
    if panel["type"] == "heatmap":
        _remove(panel, _HEATMAP_KEYS)
    _remove(panel, {key: reason for key, reason in _FALSE_PANEL_KEYS.items() if not panel[key]})
    _remove(panel.get("options", {}), _OPTION_KEYS)
    config = panel["fieldConfig"]
    _remove(config["defaults"].get("custom", {}), _CUSTOM_KEYS)
    config.setdefault("overrides", [])  # Grafana adds the list when it is missing, and then reports unsaved changes.


def _correct_variable(variable: dict[str, Any]) -> None:
    _remove(variable, _VARIABLE_KEYS)
    if variable["type"] not in ("query", "datasource"):
        _remove(variable, _QUERIED_VARIABLE_KEYS)
    if variable["type"] in ("textbox", "datasource"):
        _remove(variable, _SELECTION_KEYS)
    # The hidden values of a query are its result: in the URL they would replace the result of the next query.
    variable["skipUrlSync"] = bool(variable["hide"]) and variable["type"] == "query"
    variable["current"].pop("tags", None)  # Tags of values are removed from Grafana.
    if variable.get("multi"):
        # grafanalib writes one value, where a variable with several has a list.
        variable["current"] = {"selected": True, "text": ["All"], "value": ["$__all"]}


def _remove(data: dict[str, Any], keys: Mapping[str, str]) -> None:
    for key in keys:
        data.pop(key, None)


def _without_nulls(value: Any) -> Any:
    """Drop keys with null as their value, except `value`: the lowest step of thresholds has null there on purpose."""
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None or key == "value"}
    if isinstance(value, list):
        return [_without_nulls(each) for each in value]
    return value
