"""Evaluates the project's rules at simulated times. A fake: Prometheus evaluates rules at the present time only.

A real Prometheus evaluates every expression; `for`, `keep_firing_for`, the intervals of groups and the series `ALERTS`
and `ALERTS_FOR_STATE` follow Prometheus's documentation. `tests/unknown/test_rule_engine.py` compares the result with
that of promtool.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from exporter.config import parse_duration
from tests.unknown.connection import Connection
from tests.unknown.remote_write import STALE, Labels, RemoteWriter, labels_of
from tests.yaml_files import read_yaml


@dataclass
class Alert:
    """An active alert. Times are seconds."""

    name: str
    labels: dict[str, str]
    since: float
    fired_at: float | None = None
    seen_at: float = 0.0
    """When the expression last returned it."""
    absent_since: float | None = None
    """Since when the expression does not return it; None while it does."""

    @property
    def firing(self) -> bool:
        return self.fired_at is not None


class _Group:
    """Rules that are evaluated together, at most once in their interval."""

    def __init__(self, group: dict[str, Any]) -> None:
        self.rules: list[dict[str, Any]] = group["rules"]
        self._interval = parse_duration(group.get("interval", "0s"))
        self._due_at = 0.0

    def begin(self, now: float) -> bool:
        """Whether the group is evaluated at a time. The first evaluation is at once; Prometheus spreads the groups."""
        if now < self._due_at:
            return False
        self._due_at = now + self._interval
        return True


class RuleEngine:
    """The rules of some files, with the state of their alerts."""

    def __init__(self, prometheus_url: str, writer: RemoteWriter, *files: Path) -> None:
        self._writer = writer
        self._connection = Connection(prometheus_url)
        self._groups = [_Group(group) for file in files for group in read_yaml(file)["groups"]]
        self._active: dict[Labels, Alert] = {}
        self._written: dict[int, set[Labels]] = {}

    def evaluate(self, now: float) -> None:
        """Evaluate the rules of all groups whose interval is over, in their order, and write their series."""
        unsent: set[str] = set()
        due = [rule for group in self._groups if group.begin(now) for rule in group.rules]
        for rule in due:
            # Few rules read what those right before them wrote, and each request takes a millisecond.
            if any(name in rule["expr"] for name in unsent):
                self._writer.flush()
                unsent.clear()
            found = self._query(rule["expr"], now)
            series = self._recorded(rule, found) if "record" in rule else self._alerts(rule, found, now)
            for labels in self._written.get(id(rule), set()) - series.keys():
                self._writer.add(labels, now, STALE)
            for labels, value in series.items():
                self._writer.add(labels, now, value)
            if series or self._written.get(id(rule)):
                unsent.add(rule.get("record", "ALERTS"))
            self._written[id(rule)] = set(series)
        self._writer.flush()

    def firing(self) -> list[Alert]:
        """Return the alerts that fire now."""
        return [alert for alert in self._active.values() if alert.firing]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _query(self, expression: str, now: float) -> list[tuple[dict[str, str], float]]:
        form = urlencode({"query": expression, "time": f"{now:.3f}"}).encode()
        _, answer = self._connection.post("/api/v1/query", form, {"Content-Type": "application/x-www-form-urlencoded"})
        body = json.loads(answer)
        assert body["status"] == "success", f"{expression}: {body}"
        return [(each["metric"], float(each["value"][1])) for each in body["data"]["result"]]

    def _recorded(self, rule: dict[str, Any], found: list[tuple[dict[str, str], float]]) -> dict[Labels, float]:
        return {
            labels_of(rule["record"], {**_plain(metric), **rule.get("labels", {})}): value for metric, value in found
        }

    def _alerts(
        self, rule: dict[str, Any], found: list[tuple[dict[str, str], float]], now: float
    ) -> dict[Labels, float]:
        name = rule["alert"]
        wait, keep = parse_duration(rule.get("for", "0s")), parse_duration(rule.get("keep_firing_for", "0s"))
        for metric, _ in found:
            labels = {**_plain(metric), **rule["labels"]}
            alert = self._active.setdefault(labels_of(name, labels), Alert(name, labels, now))
            alert.seen_at, alert.absent_since = now, None
            if alert.fired_at is None and now - alert.since >= wait:
                alert.fired_at = now
        for key, alert in list(self._active.items()):
            if alert.name == name and alert.seen_at < now:
                alert.absent_since = now if alert.absent_since is None else alert.absent_since
                if not alert.firing or now - alert.absent_since >= keep:
                    del self._active[key]
        series: dict[Labels, float] = {}
        for alert in self._active.values():
            if alert.name == name:
                of_alert = {**alert.labels, "alertname": name}
                state = "firing" if alert.firing else "pending"
                series[labels_of("ALERTS", {**of_alert, "alertstate": state})] = 1.0
                series[labels_of("ALERTS_FOR_STATE", of_alert)] = alert.since
        return series


def _plain(metric: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in metric.items() if name != "__name__"}
