"""The exporter's metrics about itself, kept by prometheus-client; their names come from the catalogue."""

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import prometheus_client
from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry

from exporter.metrics.catalogue import EXPORTER_FAMILIES, RUNTIME_LABEL, ExporterFamily

MAX_UNMAPPED_LABELS = 20
"""Unmapped status labels that get their own series: a runtime with ever new labels must not fill the memory."""

# `_created` samples would double the series of every counter and histogram.
disable_created_metrics()  # type: ignore[no-untyped-call]


class ExporterMetrics:
    """The metrics about the process; `of` returns those about reading one runtime."""

    def __init__(self, *, version: str, wall: Callable[[], float]) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        self.wall = wall
        self._of: dict[str, RuntimeMetrics] = {}
        prometheus_client.ProcessCollector(registry=self.registry)
        self._metrics = {family.name: self._make(family) for family in EXPORTER_FAMILIES}
        self._metrics["spinner_exporter_build_info"].labels(version, platform.python_version()).set(1)
        self._metrics["spinner_exporter_time_seconds"].set_function(wall)

    def of(self, runtime: str) -> "RuntimeMetrics":
        """Return the metrics about reading a runtime; the first call creates its series."""
        if runtime not in self._of:
            self._of[runtime] = RuntimeMetrics(self._metrics, runtime, self.wall)
        return self._of[runtime]

    def forget(self, runtime: str) -> None:
        """Remove the series of a runtime, if there are any."""
        removed = self._of.pop(runtime, None)
        if removed is not None:
            removed.end()

    def config_reloaded(self, *, ok: bool) -> None:
        """Record whether the last start or reload of the config succeeded."""
        self._metrics["spinner_exporter_config_last_reload_successful"].labels().set(float(ok))

    def _make(self, family: ExporterFamily) -> Any:
        labels = (RUNTIME_LABEL, *family.labels) if family.of_runtime else family.labels
        kind = _KINDS[family.type] if family.starts_at_zero else _GaugeOfKnown
        return kind(family.name, family.help, labels, registry=self.registry)


class _GaugeOfKnown(Collector):
    """A gauge without a sample until its value is known; prometheus-client's starts at 0."""

    def __init__(self, name: str, documentation: str, labelnames: Sequence[str], registry: CollectorRegistry) -> None:
        self._name, self._help, self._labels = name, documentation, labelnames
        self._children: dict[tuple[str, ...], _Value] = {}
        registry.register(self)

    def labels(self, *values: str) -> "_Value":
        return self._children.setdefault(values, _Value())

    def remove_by_labels(self, labels: Mapping[str, str]) -> None:
        removed = labels.items()
        for values in [
            each for each in self._children if removed <= dict(zip(self._labels, each, strict=True)).items()
        ]:
            del self._children[values]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(self._name, self._help, labels=self._labels)
        for labels, child in self._children.items():
            if child.value is not None:
                family.add_metric(labels, child.value)
        yield family


class _Value:
    value: float | None = None

    def set(self, value: float) -> None:
        self.value = value


_KINDS: dict[str, type[Counter | Gauge | Histogram]] = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}


class RuntimeMetrics:
    """Counts what happens while one runtime is read; the observer of the sync and the HTTP client."""

    def __init__(self, metrics: Mapping[str, Any], runtime: str, wall: Callable[[], float]) -> None:
        self._metrics = metrics
        self._runtime = runtime
        self._wall = wall
        self._unmapped: set[str] = set()
        self._runs_probed = 0
        self._is_ended = False
        # Created at 0, so that increase() sees the first increment.
        for reason in ("limit", "spinner_limit", "gone", "project_gone", "shared_id"):
            self._at("runs_dropped_total", reason)
        for result in ("read", "failed", "postponed"):
            self._at("records_in_flight_reads_total", result)
            self._at("waiting_records_reads_total", result)
        for kind in ("job", "record", "project", "meter"):
            self._at("items_total", kind)
            self._at("invalid_items_total", kind)
        self._at("invalid_items_total", "health")
        for family in EXPORTER_FAMILIES:
            if family.of_runtime and not family.labels:
                self._at(family.name.removeprefix(_PREFIX))

    def sync_ended(self, seconds: float, *, ok: bool) -> None:
        """Record the duration and the success of a sync that ends now."""
        self._at("sync_duration_seconds").observe(seconds)
        if ok:
            self._at("snapshot_timestamp_seconds").set(self._wall() - seconds)

    def request_sent(self, resource: str, code: str, seconds: float) -> None:
        """Count a request to the runtime."""
        self._at("upstream_requests_total", resource, code).inc()
        self._at("upstream_request_duration_seconds", resource).observe(seconds)

    def decoded_items(self, kind: str, count: int) -> None:
        """Count the items of a page of a list, valid or not."""
        self._at("items_total", kind).inc(count)

    def invalid_item(self, kind: str) -> None:
        """Count an item that was skipped because it is invalid, or one value of it that cannot be right."""
        self._at("invalid_items_total", kind).inc()

    def unmapped_status(self, label: str) -> bool:
        """Count a status label without a mapping; return whether it is new and gets its own series."""
        new = label not in self._unmapped and len(self._unmapped) < MAX_UNMAPPED_LABELS
        if new:
            self._unmapped.add(label)
        self._at("unmapped_status_total", label if label in self._unmapped else "other").inc()
        return new

    def run_dropped(self, reason: str, count: int = 1) -> None:
        """Count runs whose series were removed before the end of the retention."""
        self._at("runs_dropped_total", reason).inc(count)

    def records_in_flight(self, result: str, count: int = 1) -> None:
        """Count lists of records in flight that were due, by what became of them."""
        self._at("records_in_flight_reads_total", result).inc(count)

    def waiting_records(self, result: str, count: int = 1) -> None:
        """Count lists of waiting records that were due, by what became of them."""
        self._at("waiting_records_reads_total", result).inc(count)

    def projects_not_read(self, count: int) -> None:
        """Record how many projects exceed the limit."""
        self._at("projects_not_read").set(count)

    def storage_failed(self) -> None:
        """Count a failed write of the state."""
        self._at("storage_failures_total").inc()

    def runs_tracked(self, count: int) -> None:
        """Record how many runs have series on `/metrics`."""
        self._at("runs_tracked").set(count + self._runs_probed)

    def probing(self, *, projects: int, runs: int) -> None:
        """Record how many projects are probed, and how many runs have series on `/probe`."""
        self._runs_probed = runs
        self._at("projects_probed").set(projects)

    def end(self) -> None:
        """Remove the series of this runtime; what is recorded later creates none again."""
        self._is_ended = True
        for family in EXPORTER_FAMILIES:
            if family.of_runtime:
                self._metrics[family.name].remove_by_labels({RUNTIME_LABEL: self._runtime})

    def _at(self, name: str, *values: str) -> Any:
        return _NOTHING if self._is_ended else self._metrics[_PREFIX + name].labels(self._runtime, *values)


class _Nothing:
    """Replaces every metric of a removed runtime, and ignores all values."""

    def inc(self, amount: float = 1) -> None: ...

    def set(self, value: float) -> None: ...

    def observe(self, amount: float) -> None: ...


_NOTHING = _Nothing()
_PREFIX = "spinner_exporter_"
