"""Variables, time ranges and queries of dashboards, as Grafana's Prometheus data source sends them.

A fake, because tests have no Grafana server. `shown` says what panels make of the results.
"""

import contextlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import httpx

from tests.unknown.connection import Connection

BUILT_IN = {
    "__rate_interval": "20s",
    "__interval": "15s",
    "__range": "3600s",
    "__range_s": "3600",
    "__from": "0",
    "__interval_ms": "15000",
}

ALL = ".*"

FORM = {"Content-Type": "application/x-www-form-urlencoded"}

PAGE_WIDTH = 1600
"""Pixels of the browser's window: they decide how many points a graph asks for."""

Choice = str | Sequence[str]
"""The selected value or values of a variable."""


def interpolate(expression: str, variables: Mapping[str, str]) -> str:
    """Return a query with its variables substituted. A variable without a given value selects all values.

    `$1` stays as it is: it belongs to `label_replace`.
    """
    values = {
        "runtime": ALL,
        "project": ALL,
        "spinner": ALL,
        "status": ALL,
        "run": ALL,
        "run_runtime": "",
        "run_project": "",
        "run_among": ALL,
        "listed": ALL,
        "stalled": "()",
        "objective": "99",
        **BUILT_IN,
        **variables,
    }

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        assert name in values, f"{expression} uses ${name}, which is not a variable"
        return values[name]

    return re.sub(r"\$\{(\w+)(?::\w+)?\}|\$([A-Za-z_]\w*)", value, expression)


@dataclass(frozen=True)
class TimeRange:
    """Seconds since the epoch."""

    start: float
    end: float

    @classmethod
    def of(cls, since: str, end: float) -> "TimeRange":
        """Return the range from `since`, such as `now-3h` or `now/d`, until `end`, which is now."""
        if since == "now/d":
            day = datetime.fromtimestamp(end, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
            return cls(day.timestamp(), end)
        match = re.fullmatch(r"now-(\d+)([mhd])", since)
        assert match, since
        return cls(end - int(match[1]) * {"m": 60, "h": 3600, "d": 86400}[match[2]], end)


@dataclass(frozen=True)
class Series:
    """One series of a query's result: times in seconds, values without NaN, which Grafana reads as null."""

    ref_id: str
    name: str
    labels: Mapping[str, str]
    points: Sequence[tuple[float, float | None]]


class Page:
    """A dashboard that is open in a browser: its variables are resolved, its panels can query."""

    def __init__(
        self,
        board: Mapping[str, Any],
        prometheus_url: str,
        *,
        now: float,
        since: str = "",
        scrape_interval: float = 15,
        **selected: Choice,
    ) -> None:
        """`since`: the start of the time range if it is not the dashboard's own; `selected`: values of variables."""
        self.board = board
        self.time = TimeRange.of(since or board["time"]["from"], now)
        self._url = prometheus_url
        self._scrape_interval = scrape_interval
        self._variables: dict[str, str] = {}
        for variable in board["templating"]["list"]:
            if variable["type"] == "custom" and not variable["includeAll"]:
                value = selected.pop(variable["name"], variable["current"]["value"])
                assert value in [each["value"] for each in variable["options"]]
                self._variables[variable["name"]] = str(value)  # its queries say `raw`
            elif variable["type"] in ("query", "custom"):
                name = variable["name"]
                chosen = selected.pop(name, None)
                self._variables[name] = self._all(variable) if chosen is None else _joined(chosen)
            elif variable["type"] == "textbox":
                self._variables[variable["name"]] = _joined(selected.pop(variable["name"], variable["query"]))
        assert not selected, f"{board['title']} has no variable {', '.join(selected)}"

    def time_of(self, panel: Mapping[str, Any]) -> TimeRange:
        """Return the time range of a panel."""
        return TimeRange.of(panel["timeFrom"], self.time.end) if panel.get("timeFrom") else self.time

    def query(self, panel: Mapping[str, Any], target: Mapping[str, Any]) -> list[Series]:
        """Run one query of a panel. It fails the test if Prometheus refuses it."""
        time = self.time_of(panel)
        step, rate_interval = self._steps(panel, target, time)
        seconds = round(time.end - time.start)
        expression = interpolate(
            target["expr"],
            self._variables
            | {
                "__interval": f"{step:.0f}s",
                "__interval_ms": f"{step * 1000:.0f}",
                "__rate_interval": f"{rate_interval:.0f}s",
                "__range": f"{seconds}s",
                "__range_s": str(seconds),
                "__from": f"{time.start * 1000:.0f}",
            },
        )
        if target["instant"]:
            answer = self._ask("query", query=expression, time=time.end)
            results = [{"metric": {}, "value": answer["result"]}] if answer["resultType"] == "scalar" else None
            found = [(each["metric"], [each["value"]]) for each in results or answer["result"]]
        else:
            start, end = (math.floor(each / step) * step for each in (time.start, time.end))
            answer = self._ask("query_range", query=expression, start=start, end=end, step=step)
            found = [(each["metric"], each["values"]) for each in answer["result"]]
        return [
            Series(target["refId"], _name(target["legendFormat"], labels), labels, [*map(_point, points)])
            for labels, points in found
        ]

    def step(self, panel: Mapping[str, Any], target: Mapping[str, Any]) -> float:
        """Return the seconds between two points of a range query."""
        return self._steps(panel, target, self.time_of(panel))[0]

    def _steps(self, panel: Mapping[str, Any], target: Mapping[str, Any], time: TimeRange) -> tuple[float, float]:
        """Return the step and `$__rate_interval`, after Grafana's `calculatePrometheusInterval`."""
        minimum = _seconds(target["interval"]) if target.get("interval") else self._scrape_interval
        columns = panel["gridPos"]["w"]
        width = round((PAGE_WIDTH - 32 - 8 * 23) / 24 * columns + 8 * (columns - 1))
        span = time.end - time.start
        points = panel.get("maxDataPoints") or max(width, 100)
        step = max(_rounded(span / points), minimum, math.ceil(span / 11000))
        return step, max(step + minimum, 4 * minimum)

    def _all(self, variable: Mapping[str, Any]) -> str:
        """Return what is chosen at first: what All stands for, or the first value."""
        if variable.get("allValue"):
            return str(variable["allValue"])
        if not variable.get("includeAll"):
            return self._first(variable)
        match = re.fullmatch(r"query_result\((.+)\)", variable["query"]["query"])
        assert match, f"{variable['name']} needs an allValue, or a query_result"
        seconds = round(self.time.end - self.time.start)
        variables = self._variables | {"__range": f"{seconds}s"}
        answer = self._ask("query", query=interpolate(match[1], variables), time=self.time.end)
        pattern = re.compile(variable["regex"].strip("/"))
        texts = [
            "{" + ",".join(f'{name}="{value}"' for name, value in each["metric"].items()) + "}"
            for each in answer["result"]
        ]
        return _joined([found[1] for text in texts if (found := pattern.search(text))])

    def _first(self, variable: Mapping[str, Any]) -> str:
        match = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
        assert match, variable["query"]
        parameters = {
            "match[]": interpolate(match[1], self._variables),
            "start": str(self.time.start),
            "end": str(self.time.end),
        }
        answer = httpx.get(f"{self._url}/api/v1/label/{match[2]}/values", params=parameters, verify=False).json()
        return re.escape(min(answer["data"], key=str.casefold, default=""))

    def _ask(self, resource: str, **parameters: Any) -> Any:
        form = urlencode(parameters).encode()
        with contextlib.closing(Connection(self._url)) as connection:
            _, body = connection.post(f"/api/v1/{resource}", form, FORM)
        answer = json.loads(body)
        assert answer["status"] == "success", f"{parameters['query']}: {answer}"
        return answer["data"]


def _joined(chosen: Choice) -> str:
    """Return values with the format `regex`; as Grafana does, `()` where there are none."""
    escaped = [re.escape(value) for value in ([chosen] if isinstance(chosen, str) else chosen)]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


def _name(legend: str, labels: Mapping[str, str]) -> str:
    if legend == "__auto":
        return ", ".join(labels.values()) or "Value"
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda match: labels.get(match[1], ""), legend)


def _point(point: tuple[float, str]) -> tuple[float, float | None]:
    value = float(point[1])
    return point[0], None if math.isnan(value) else value


def _seconds(duration: str) -> float:
    return float(duration[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[duration[-1]]


_ROUNDED = (
    (0.015, 0.01), (0.035, 0.02), (0.075, 0.05), (0.15, 0.1), (0.35, 0.2), (0.75, 0.5), (1.5, 1), (3.5, 2), (7.5, 5),
    (12.5, 10), (17.5, 15), (25, 20), (45, 30), (90, 60), (210, 120), (450, 300), (750, 600), (1050, 900), (1500, 1200),
    (2700, 1800), (5400, 3600), (9000, 7200), (16200, 10800), (32400, 21600), (86400, 43200), (604800, 86400),
    (1814400, 604800), (3628800, 2592000), (math.inf, 31536000),
)  # fmt: skip
"""Intervals below the first number become the second: `roundInterval` in `@grafana/data`."""


def _rounded(interval: float) -> float:
    return next(rounded for limit, rounded in _ROUNDED if interval < limit)
