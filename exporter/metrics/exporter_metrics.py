"""The exporter's metrics about itself, kept by prometheus-client; their names come from the catalogue."""

import platform
from collections.abc import Callable, Mapping
from typing import Any

import prometheus_client
from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from exporter.metrics.catalogue import EXPORTER_FAMILIES, RUNTIME_LABEL, ExporterFamily

MAX_UNMAPPED_LABELS = 20
"""Unmapped status labels that are named; a runtime that makes up labels must not make series."""

# `_created` samples double the series of every counter and histogram for a fact that nobody here asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]


class ExporterMetrics:
    """What the exporter says of itself as a process; `of` gives what it says of reading one runtime."""

    def __init__(self, *, version: str, wall: Callable[[], float], named: bool = False) -> None:
        """`named`: there are several runtimes, and each series of one carries its name."""
        self.registry = prometheus_client.CollectorRegistry()
        self.named = named
        self.wall = wall
        self._of: dict[str, RuntimeMetrics] = {}
        prometheus_client.ProcessCollector(registry=self.registry)
        self._metrics = {family.name: self._make(family) for family in EXPORTER_FAMILIES}
        self._metrics["spinner_exporter_build_info"].labels(version, platform.python_version()).set(1)

    def of(self, runtime: str) -> "RuntimeMetrics":
        """Return what is said of reading a runtime; its series begin with the first call."""
        if runtime not in self._of:
            self._of[runtime] = RuntimeMetrics(self._metrics, (runtime,) if self.named else (), self.wall)
        return self._of[runtime]

    def forget(self, runtime: str) -> None:
        """End the series of a runtime that is not read any more, if there are any."""
        ended = self._of.pop(runtime, None)
        if ended is not None:
            ended.end()

    def render(self, *, openmetrics: bool) -> bytes:
        """Return the samples as text 0.0.4, or as OpenMetrics with the mark that ends a page."""
        if openmetrics:
            return bytes(generate_openmetrics(self.registry))  # type: ignore[no-untyped-call]
        return generate_latest(self.registry)

    def config_reloaded(self, *, ok: bool) -> None:
        """Take note of whether the last config was good."""
        self._metrics["spinner_exporter_config_last_reload_successful"].set(float(ok))

    def _make(self, family: ExporterFamily) -> Any:
        labels = (RUNTIME_LABEL, *family.labels) if self.named and family.of_runtime else family.labels
        return _KINDS[family.type](family.name, family.help, labels, registry=self.registry)


_KINDS: dict[str, type[Counter | Gauge | Histogram]] = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}


class RuntimeMetrics:
    """Is told what happens where one runtime is read (it is the observer of those rooms) and counts it."""

    def __init__(self, metrics: Mapping[str, Any], labels: tuple[str, ...], wall: Callable[[], float]) -> None:
        self._metrics = metrics
        self._labels = labels
        self._wall = wall
        self._unmapped: set[str] = set()
        self._runs_probed = 0
        # These begin at 0, so that their first increase is seen.
        for reason in ("limit", "gone", "project_gone"):
            self._at("runs_dropped_total", reason)
        for kind in ("job", "record", "project", "meter"):
            self._at("invalid_items_total", kind)
        for family in EXPORTER_FAMILIES:
            if family.of_runtime and not family.labels:
                self._at(family.name.removeprefix(_PREFIX))

    def sync_ended(self, seconds: float, *, ok: bool) -> None:
        """Take note of a sync."""
        self._at("sync_duration_seconds").observe(seconds)
        if ok:
            self._at("snapshot_timestamp_seconds").set(self._wall())

    def request_sent(self, endpoint: str, code: str, seconds: float) -> None:
        """Take note of a request to the runtime."""
        self._at("upstream_requests_total", endpoint, code).inc()
        self._at("upstream_request_duration_seconds", endpoint).observe(seconds)

    def invalid_item(self, kind: str) -> None:
        """Take note of an item that was left out."""
        self._at("invalid_items_total", kind).inc()

    def unmapped_status(self, label: str) -> bool:
        """Take note of a status label without an idea; return whether it is the first sight of a named one."""
        new = label not in self._unmapped and len(self._unmapped) < MAX_UNMAPPED_LABELS
        if new:
            self._unmapped.add(label)
        self._at("unmapped_status_total", label if label in self._unmapped else "other").inc()
        return new

    def run_dropped(self, reason: str) -> None:
        """Take note of a run that lost its series before its time."""
        self._at("runs_dropped_total", reason).inc()

    def projects_not_read(self, count: int) -> None:
        """Take note of how many projects are too many."""
        self._at("projects_not_read").set(count)

    def storage_failed(self) -> None:
        """Take note of state that could not be saved."""
        self._at("storage_failures_total").inc()

    def runs_tracked(self, count: int) -> None:
        """Take note of how many runs have series on the page of all."""
        self._at("runs_tracked").set(count + self._runs_probed)

    def probing(self, *, projects: int, runs: int) -> None:
        """Take note of how many projects are probed, and how many runs have series there."""
        self._runs_probed = runs
        self._at("projects_probed").set(projects)

    def end(self) -> None:
        """End the series that carry this runtime's name."""
        for family in EXPORTER_FAMILIES:
            if family.of_runtime and self._labels:
                self._metrics[family.name].remove_by_labels({RUNTIME_LABEL: self._labels[0]})

    def _at(self, name: str, *values: str) -> Any:
        labels = (*self._labels, *values)
        metric = self._metrics[_PREFIX + name]
        return metric.labels(*labels) if labels else metric


_PREFIX = "spinner_exporter_"
