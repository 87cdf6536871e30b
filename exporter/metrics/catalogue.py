"""Every metric family that this exporter has: one entry is its name, type, help, labels and the way to its samples.

Names, units and meanings are an interface: dashboards, alert rules and `docs/metrics.md` are built from or checked
against this module. It reads as documentation; `exposition` does the rest. Timestamps and durations are in seconds,
ratios from 0 to 1; there is no sample for what is not known.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Generic, Literal, TypeVar

from exporter.runs.clock import RuntimeClock
from exporter.runs.counters import ENDED, Histogram
from exporter.runs.store import ShownRun, ShownSpinner, Store

S = TypeVar("S")

Sample = tuple[tuple[str, ...], float]
"""Label values, in the family's order and without those that every sample of its group has, and a value."""

Samples = float | Histogram | Sequence[Sample] | None
"""Of a family without labels of its own just the value, or None when there is none."""


@dataclasses.dataclass(frozen=True, slots=True)
class ScrapeContext:
    """One runtime at the moment of a scrape: what is computed anew at each."""

    store: Store
    clock: RuntimeClock
    api_up: bool
    time: float = dataclasses.field(init=False)
    """The runtime's."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "time", self.clock.now())


@dataclasses.dataclass(frozen=True, slots=True)
class Family(Generic[S]):
    """One metric family; `samples` takes a subject of its group and the moment.

    What it returns is compared with what it returned before, so that only what changed is rendered.
    """

    name: str
    type: Literal["gauge", "counter", "histogram"]
    help: str
    samples: Callable[[S, ScrapeContext], Samples]
    labels: tuple[str, ...] = ()
    """Beside the labels of the group."""
    live: bool = False
    """Whether it moves with time alone while a run has not ended."""

    @property
    def unit(self) -> str:
        """The unit, as Prometheus reads it off the name; empty where it counts things."""
        base = self.name.removesuffix("_total")
        return next((unit for unit in ("seconds", "ratio") if base.endswith("_" + unit)), "")


@dataclasses.dataclass(frozen=True, slots=True)
class ExporterFamily:
    """A metric of the exporter about itself; `own` keeps its value with prometheus-client."""

    name: str
    type: Literal["gauge", "counter", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    of_runtime: bool = True
    """Whether it is about reading one runtime, rather than about the process."""


RUNTIME_LABEL = "runtime"
"""On every series of a runtime, before all other labels, where the exporter reads several; else on none."""

RUN_LABELS = ("project", "spinner", "run_id")
SPINNER_LABELS = ("project", "spinner")


def _failures(shown: ShownRun, now: ScrapeContext) -> Sequence[Sample]:
    """Return the largest few failure groups and the sum of the others as `other`."""
    if not shown.run.snapshot.failures:
        return ()
    groups: dict[tuple[str, ...], int] = {}
    for failure in shown.run.snapshot.failures:
        key = (failure.step, failure.error_code)
        groups[key] = groups.get(key, 0) + failure.count
    largest = sorted(groups.items(), key=lambda item: (-item[1], item[0]))
    most = now.store.rules.max_failure_groups
    named = dict(largest[:most])
    rest = sum(count for _, count in largest[most:])
    if rest:
        named["other", "other"] = named.get(("other", "other"), 0) + rest
    return tuple(named.items())


def _local(now: ScrapeContext, time: float | None) -> float | None:
    return None if time is None else now.clock.to_local(time)


RUN_FAMILIES: tuple[Family[ShownRun], ...] = (
    Family(
        "spinner_run_info",
        "gauge",
        "Facts about a run that do not change; always 1.",
        lambda shown, now: [((shown.run.snapshot.trigger, shown.run.snapshot.parent_id), 1)],
        labels=("trigger", "parent_run_id"),
    ),
    Family(
        "spinner_run_status",
        "gauge",
        "The run's current status as the one series with value 1: queued, running, waiting, completed, failed, "
        "cancelled, or unknown for a label that no mapping knows.",
        lambda shown, now: [((shown.run.status.value,), 1)],
        labels=("status",),
    ),
    Family(
        "spinner_run_progress_ratio",
        "gauge",
        "Finished records (completed + failed) of all the run's records; absent while the total is unknown or 0.",
        lambda shown, now: shown.run.progress_ratio(),
    ),
    Family(
        "spinner_run_duration_seconds",
        "gauge",
        "Time since the run started, or from start to end once it ended, by the runtime's clock.",
        lambda shown, now: shown.run.duration(now.time),
        live=True,
    ),
    Family(
        "spinner_run_records",
        "gauge",
        "Records of the run by their present state: pending, running, waiting, completed, failed.",
        lambda shown, now: (
            [
                (("pending",), records.pending),
                (("running",), records.running),
                (("waiting",), records.waiting),
                (("completed",), records.completed),
                (("failed",), records.failed),
            ]
            if (records := shown.run.snapshot.records)
            else ()
        ),
        labels=("state",),
    ),
    Family(
        "spinner_run_failed_records",
        "gauge",
        "Records of the run that failed; a completed run can have some.",
        lambda shown, now: records.failed if (records := shown.run.snapshot.records) else None,
    ),
    Family(
        "spinner_run_created_timestamp_seconds",
        "gauge",
        "When the run was created, by the runtime's clock.",
        lambda shown, now: shown.run.snapshot.created_at,
    ),
    Family(
        "spinner_run_start_timestamp_seconds",
        "gauge",
        "When the run started, by the runtime's clock; absent before.",
        lambda shown, now: shown.run.snapshot.started_at,
    ),
    Family(
        "spinner_run_end_timestamp_seconds",
        "gauge",
        "When the run ended, by the runtime's clock; absent before.",
        lambda shown, now: shown.run.ended_at,
    ),
    Family(
        "spinner_run_last_progress_timestamp_seconds",
        "gauge",
        "When a record of the run last finished, or the run started, by the exporter's clock: the difference between "
        "the two clocks is taken out, so that time() minus this is the true silence.",
        lambda shown, now: _local(now, shown.run.last_progress_at),
    ),
    Family(
        "spinner_run_progress_interval_seconds",
        "gauge",
        "The run's usual time between two finished records, for people; absent before the first.",
        lambda shown, now: shown.pace.interval(),
    ),
    Family(
        "spinner_run_stall_threshold_seconds",
        "gauge",
        "The silence, counted from the last progress, after which the run counts as stalled: learnt from its own pace "
        "and that of its spinner's earlier runs, within the configured floor and ceiling. Absent while the run need "
        "not progress: queued, waiting for a person, ended.",
        lambda shown, now: shown.stall_threshold(),
    ),
    Family(
        "spinner_run_failures",
        "gauge",
        "Failed records of the run by step and error code; the largest few, the rest as other.",
        _failures,
        labels=("step", "error_code"),
    ),
    Family(
        "spinner_run_failed_record_info",
        "gauge",
        "Which records failed: the newest few per run, bounded over all runs; always 1.",
        lambda shown, now: [((r.id, r.step, r.error_code), 1) for r in shown.run.failed_records],
        labels=("record_id", "step", "error_code"),
    ),
)

SPINNER_FAMILIES: tuple[Family[ShownSpinner], ...] = (
    Family(
        "spinner_runs",
        "gauge",
        "Runs in the runtime's current list by status: those that have not ended, and those that ended within the "
        "retention.",
        lambda spinner, now: [((status.value,), count) for status, count in spinner.runs.items()],
        labels=("status",),
    ),
    Family(
        "spinner_runs_started_total",
        "counter",
        "Runs that started, each counted once.",
        lambda spinner, now: spinner.counters.started,
    ),
    Family(
        "spinner_runs_finished_total",
        "counter",
        "Runs that ended, each counted once, by the status they ended with.",
        lambda spinner, now: [((status.value,), spinner.counters.finished[status]) for status in ENDED],
        labels=("status",),
    ),
    Family(
        "spinner_records_processed_total",
        "counter",
        "Records that finished, by how: completed or failed.",
        lambda spinner, now: [
            (("completed",), spinner.counters.completed_records),
            (("failed",), spinner.counters.failed_records),
        ],
        labels=("state",),
    ),
    Family(
        "spinner_run_finished_duration_seconds",
        "histogram",
        "Time from start to end of the runs that ended.",
        lambda spinner, now: spinner.counters.durations,
    ),
    Family(
        "spinner_run_queue_seconds",
        "histogram",
        "Time from creation to start of the runs that started.",
        lambda spinner, now: spinner.counters.queue_times,
    ),
    Family(
        "spinner_last_start_timestamp_seconds",
        "gauge",
        "When a run of the spinner last started, by the runtime's clock.",
        lambda spinner, now: spinner.counters.last_start_at,
    ),
    Family(
        "spinner_last_success_timestamp_seconds",
        "gauge",
        "When a run of the spinner last completed, by the runtime's clock.",
        lambda spinner, now: spinner.counters.last_success_at,
    ),
    Family(
        "spinner_expected_interval_seconds",
        "gauge",
        "How often the spinner should run, as the config says; absent when it says nothing.",
        lambda spinner, now: spinner.rules.expected_interval,
    ),
    Family(
        "spinner_stall_floor_seconds",
        "gauge",
        "The least silence of the spinner's runs that can count as a stall, as configured.",
        lambda spinner, now: spinner.rules.bounds.floor,
    ),
    Family(
        "spinner_stall_ceiling_seconds",
        "gauge",
        "The most silence of the spinner's runs that can go without counting as a stall, as configured.",
        lambda spinner, now: spinner.rules.bounds.ceiling,
    ),
)

PROJECT_FAMILIES: tuple[Family[Store], ...] = (
    Family(
        "spinner_project_up",
        "gauge",
        "1 when the last read of the project succeeded.",
        lambda store, now: [
            ((project.name,), float(project.error is None and store.is_fresh(project))) for project in store.projects()
        ],
        labels=("project",),
    ),
)

GLOBAL_FAMILIES: tuple[Family[Store], ...] = (
    Family(
        "spinner_plan_used",
        "gauge",
        "How much of a plan meter is used.",
        lambda store, now: [((meter.name,), meter.used) for meter in store.meters],
        labels=("meter",),
    ),
    Family(
        "spinner_plan_limit",
        "gauge",
        "The plan's limit of a meter; +Inf when it is unlimited.",
        lambda store, now: [
            ((meter.name,), float("inf") if meter.limit is None else meter.limit) for meter in store.meters
        ],
        labels=("meter",),
    ),
    Family(
        "spinner_plan_reset_timestamp_seconds",
        "gauge",
        "When a meter begins anew, by the runtime's clock; absent for a meter that does not.",
        lambda store, now: [((m.name,), m.resets_at) for m in store.meters if m.resets_at is not None],
        labels=("meter",),
    ),
    Family(
        "spinner_runtime_up",
        "gauge",
        "1 when the API says that the worker service is up and gives its heartbeat. The API can answer while it is "
        "down.",
        lambda store, now: None if store.health is None else float(store.health.runtime_up),
    ),
    Family(
        "spinner_runtime_workers",
        "gauge",
        "Workers that the runtime says it has.",
        lambda store, now: None if store.health is None else store.health.workers,
    ),
    Family(
        "spinner_runtime_last_heartbeat_timestamp_seconds",
        "gauge",
        "When the worker service last gave a sign of life, by the exporter's clock; the age says more than the word.",
        lambda store, now: None if store.health is None else _local(now, store.health.last_heartbeat_at),
    ),
    Family(
        "spinner_api_up",
        "gauge",
        "1 when the last read of the API succeeded, in time for this scrape.",
        lambda store, now: float(now.api_up),
    ),
)

EXPORTER_FAMILIES: tuple[ExporterFamily, ...] = (
    ExporterFamily(
        "spinner_exporter_build_info", "gauge", "Version of the exporter and of Python.", ("version", "python"), False
    ),
    ExporterFamily(
        "spinner_exporter_sync_duration_seconds",
        "histogram",
        "Time that a read of everything that changed took.",
    ),
    ExporterFamily(
        "spinner_exporter_snapshot_timestamp_seconds",
        "gauge",
        "When the last good read of the API ended, by the exporter's clock.",
    ),
    ExporterFamily(
        "spinner_exporter_upstream_requests_total",
        "counter",
        "Requests sent to the runtime's API by endpoint and HTTP status; error where no status came.",
        ("endpoint", "code"),
    ),
    ExporterFamily(
        "spinner_exporter_upstream_request_duration_seconds",
        "histogram",
        "Time from sending a request to the runtime's API to its whole answer.",
        ("endpoint",),
    ),
    ExporterFamily("spinner_exporter_runs_tracked", "gauge", "Runs that have series of their own."),
    ExporterFamily(
        "spinner_exporter_runs_dropped_total",
        "counter",
        "Runs that lost their series although a person would still look for them, by reason: limit (too many runs), "
        "gone (the runtime does not have it any more), project_gone.",
        ("reason",),
    ),
    ExporterFamily("spinner_exporter_projects_probed", "gauge", "Projects that are read because they are probed."),
    ExporterFamily(
        "spinner_exporter_projects_not_read",
        "gauge",
        "Projects that are not read because there are more than limits.projects.",
    ),
    ExporterFamily(
        "spinner_exporter_invalid_items_total",
        "counter",
        "Items of the API's lists that could not be used, by kind: job, record, project, meter.",
        ("kind",),
    ),
    ExporterFamily(
        "spinner_exporter_unmapped_status_total",
        "counter",
        "Sightings of a status label that no mapping knows; the first labels by name, the rest as other.",
        ("label",),
    ),
    ExporterFamily(
        "spinner_exporter_storage_failures_total",
        "counter",
        "Saves to storage.path that failed; a restart would count again from the last one that did not.",
    ),
    ExporterFamily(
        "spinner_exporter_config_last_reload_successful",
        "gauge",
        "1 when the config was good at the last reload, or start.",
        of_runtime=False,
    ),
)


def names() -> dict[str, tuple[str, ...]]:
    """Return every family's name and all the labels that it can have."""
    return {
        **{family.name: (RUNTIME_LABEL, *RUN_LABELS, *family.labels) for family in RUN_FAMILIES},
        **{family.name: (RUNTIME_LABEL, *SPINNER_LABELS, *family.labels) for family in SPINNER_FAMILIES},
        **{family.name: (RUNTIME_LABEL, *family.labels) for family in (*PROJECT_FAMILIES, *GLOBAL_FAMILIES)},
        **{
            family.name: ((RUNTIME_LABEL,) if family.of_runtime else ()) + family.labels for family in EXPORTER_FAMILIES
        },
    }
