"""The exporter's metrics about itself, kept by prometheus-client; their names come from the catalogue."""

import platform
from collections.abc import Callable
from typing import TypeVar

import prometheus_client
from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from exporter.metrics.catalogue import OWN_FAMILIES

MAX_UNMAPPED_LABELS = 20
"""Unmapped status labels that are named; a runtime that makes up labels must not make series."""

# `_created` samples double the series of every counter and histogram for a fact that nobody here asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]

M = TypeVar("M", Counter, Gauge, Histogram)


class OwnMetrics:
    """Is told what happens in the other rooms (it is their observer) and counts it."""

    def __init__(self, *, version: str, wall: Callable[[], float]) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        self._wall = wall
        self._unmapped: set[str] = set()
        prometheus_client.ProcessCollector(registry=self.registry)
        self._make("build_info", Gauge).labels(version, platform.python_version()).set(1)
        self._syncs = self._make("sync_duration_seconds", Histogram)
        self._snapshot = self._make("snapshot_timestamp_seconds", Gauge)
        self._requests = self._make("upstream_requests_total", Counter)
        self._request_durations = self._make("upstream_request_duration_seconds", Histogram)
        self._tracked = self._make("runs_tracked", Gauge)
        self._dropped = self._make("runs_dropped_total", Counter)
        self._invalid = self._make("invalid_items_total", Counter)
        self._unmapped_sightings = self._make("unmapped_status_total", Counter)
        self._reload = self._make("config_last_reload_successful", Gauge)
        # These begin at 0, so that their first increase is seen.
        for reason in ("limit", "gone", "project_gone"):
            self._dropped.labels(reason)
        for kind in ("job", "record", "project", "meter"):
            self._invalid.labels(kind)

    def render(self, *, openmetrics: bool) -> bytes:
        """Return the samples as text 0.0.4, or as OpenMetrics with the mark that ends a page."""
        if openmetrics:
            return bytes(generate_openmetrics(self.registry))  # type: ignore[no-untyped-call]
        return generate_latest(self.registry)

    def sync_ended(self, seconds: float, *, ok: bool) -> None:
        """Take note of a sync."""
        self._syncs.observe(seconds)
        if ok:
            self._snapshot.set(self._wall())

    def request_sent(self, endpoint: str, code: str, seconds: float) -> None:
        """Take note of a request to the runtime."""
        self._requests.labels(endpoint, code).inc()
        self._request_durations.labels(endpoint).observe(seconds)

    def invalid_item(self, kind: str) -> None:
        """Take note of an item that was left out."""
        self._invalid.labels(kind).inc()

    def unmapped_status(self, label: str) -> bool:
        """Take note of a status label without an idea; return whether it is the first sight of a named one."""
        new = label not in self._unmapped and len(self._unmapped) < MAX_UNMAPPED_LABELS
        if new:
            self._unmapped.add(label)
        self._unmapped_sightings.labels(label if label in self._unmapped else "other").inc()
        return new

    def run_dropped(self, reason: str) -> None:
        """Take note of a run that lost its series before its time."""
        self._dropped.labels(reason).inc()

    def runs_tracked(self, count: int) -> None:
        """Take note of how many runs have series."""
        self._tracked.set(count)

    def config_reloaded(self, *, ok: bool) -> None:
        """Take note of whether the last config was good."""
        self._reload.set(float(ok))

    def _make(self, name: str, kind: type[M]) -> M:
        family = _FAMILIES["spinner_exporter_" + name]
        return kind(family.name, family.help, family.labels, registry=self.registry)


_FAMILIES = {family.name: family for family in OWN_FAMILIES}
