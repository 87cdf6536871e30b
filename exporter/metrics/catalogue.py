"""Every metric family of the exporter: name, type, help, labels, and the function that returns its samples.

Names, units and meanings are an interface: dashboards, alert rules and `docs/metrics.md` are built from or checked
against this module. Timestamps are Unix times in seconds, by the exporter's clock, durations seconds, ratios from 0 to
1. An unknown value has no sample.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Generic, Literal, TypeVar

from exporter.config.api_description import reports_heartbeats
from exporter.runs.clock import RuntimeClock
from exporter.runs.counters import ENDED, Histogram
from exporter.runs.listed_records import ListedRecords
from exporter.runs.pace import EARLIER_RUNS, REASONS, waits
from exporter.runs.run import Run
from exporter.runs.store import Store
from exporter.runs.view import ShownRun, ShownSpinner, StoreView
from exporter.runtime.model import OpenRecord
from exporter.status import Status

S = TypeVar("S")

Sample = tuple[tuple[str, ...], float]
"""The values of the family's own labels, in order, and the value of the sample."""

Samples = float | Histogram | Sequence[Sample] | None
"""A family without further labels has just a value, or None when there is no sample."""


@dataclasses.dataclass(frozen=True, slots=True)
class ScrapeContext:
    """One runtime at the time of a scrape."""

    store: Store
    clock: RuntimeClock
    api_up: bool
    time: float = dataclasses.field(init=False)
    """Unix time by the runtime's clock."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "time", self.clock.now())


@dataclasses.dataclass(frozen=True, slots=True)
class Family(Generic[S]):
    """One metric family; `samples` returns the samples of one run, spinner or store.

    The result is compared with the previous one, so that only changes are rendered.
    """

    name: str
    type: Literal["gauge", "counter", "histogram"]
    help: str
    samples: Callable[[S, ScrapeContext], Samples]
    labels: tuple[str, ...] = ()
    """In addition to the labels of the group."""
    live: bool = False
    """Whether it changes with time, without any news from the runtime, until the run ends."""

    @property
    def unit(self) -> str:
        """The unit at the end of the name, in OpenMetrics's sense; empty if there is none."""
        base = self.name.removesuffix("_total")
        return next((unit for unit in ("seconds", "ratio") if base.endswith("_" + unit)), "")


@dataclasses.dataclass(frozen=True, slots=True)
class ExporterFamily:
    """A metric of the exporter about itself; `exporter_metrics` keeps its value with prometheus-client."""

    name: str
    type: Literal["gauge", "counter", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    of_runtime: bool = True
    """Whether it is about reading one runtime, rather than about the process."""
    starts_at_zero: bool = True
    """Whether the value is 0 before anything happens; if not, there is no sample until the value is known."""


RUNTIME_LABEL = "runtime"
"""The first label of every series about a runtime."""

RUN_LABELS = ("project", "spinner", "run_id")
SPINNER_LABELS = ("project", "spinner")


def _failures(shown: ShownRun, now: ScrapeContext) -> Sequence[Sample]:
    """Return the largest failure groups, and the sum of the others as `other`."""
    if not shown.run.snapshot.failures:
        return ()
    groups: dict[tuple[str, ...], int] = {}
    for failure in shown.run.snapshot.failures:
        key = (failure.step, failure.error_code)
        groups[key] = groups.get(key, 0) + failure.count
    rest = groups.pop(("other", "other"), 0)
    largest = sorted(groups.items(), key=lambda item: (-item[1], item[0]))
    most = now.store.config.limits.failure_groups
    named = dict(largest[:most])
    rest += sum(count for _, count in largest[most:])
    if rest:
        named["other", "other"] = rest
    return tuple(named.items())


def _records(shown: ShownRun, now: ScrapeContext) -> Sequence[Sample]:
    records = shown.run.snapshot.records
    if records is None:
        return ()
    by_state = (records.pending, records.running, records.waiting, records.completed, records.failed)
    return [(state, count) for state, count in zip(_RECORD_STATES, by_state, strict=True) if count is not None]


_RECORD_STATES = (("pending",), ("running",), ("waiting",), ("completed",), ("failed",))


def _basis(shown: ShownRun, now: ScrapeContext) -> Samples:
    expectation, runs = shown.expectation, shown.earlier.runs
    if expectation is None:
        return None
    # Words and no series of its own: it stays the same after a spinner's first few runs.
    words = [REASONS[expectation.basis], f"{runs or 'no'} earlier {'run is' if runs < 2 else 'runs are'} known"]
    if shown.run.records.running and shown.pace.longest(while_busy=True) < shown.pace.longest_gap:
        # A page shows the longest of all gaps, which may be longer than the threshold.
        words.insert(1, "no record was in progress in its longest gap")
    return [((expectation.basis, "; ".join(words)), 1)]


def _last_activity(shown: ShownRun, now: ScrapeContext) -> float | None:
    activity = shown.activity
    at = None if activity is None or shown.expectation is None else activity.last_at
    if at is None or (shown.in_flight is None and at <= shown.silent_since()):
        # Of an earlier silence.
        return None
    return _local(now, at)


def _waiting_until(run: Run) -> float | None:
    until = run.snapshot.waiting_until
    if until is None or run.ended or not (run.status is Status.QUEUED or waits(run)):
        return None
    # Of an earlier wait: the run has continued.
    return until if run.last_progress_at is None or run.last_progress_at < until else None


def _by_step(listed: ListedRecords | None) -> Sequence[Sample]:
    return () if listed is None else [((step,), count) for step, count in listed.by_step]


def _named(listed: ListedRecords | None, value: Callable[[OpenRecord], float | None]) -> Sequence[Sample]:
    if listed is None:
        return ()
    return [
        ((record.id, record.step, "" if record.step_number is None else str(record.step_number)), number)
        for record in listed.named
        if (number := value(record)) is not None
    ]


def _local(now: ScrapeContext, time: float | None) -> float | None:
    return None if time is None else now.clock.to_local(time)


RUN_FAMILIES: tuple[Family[ShownRun], ...] = (
    Family(
        "spinner_run_info",
        "gauge",
        "Labels of a run that do not change; always 1.",
        lambda shown, now: [((shown.run.snapshot.trigger, shown.run.snapshot.parent_id), 1)],
        labels=("trigger", "parent_run_id"),
    ),
    Family(
        "spinner_run_status",
        "gauge",
        "The current status of the run; always 1. The status is queued, running, waiting, completed, failed, "
        "cancelled, or unknown for a status label without a mapping.",
        lambda shown, now: [((shown.run.status.value,), 1)],
        labels=("status",),
    ),
    Family(
        "spinner_run_progress_ratio",
        "gauge",
        "Ratio of finished records (completed or failed) to all records of the run; absent while either is unknown, or "
        "the total is 0.",
        lambda shown, now: shown.run.progress_ratio(),
    ),
    Family(
        "spinner_run_duration_seconds",
        "gauge",
        "Seconds since the start of the run, or from its start to its end.",
        lambda shown, now: shown.run.duration(now.time),
        live=True,
    ),
    Family(
        "spinner_run_records",
        "gauge",
        "Number of records of the run by state: pending, running, waiting, completed or failed. A state that the "
        "runtime does not report is absent, so the sum can be less than spinner_run_total_records.",
        _records,
        labels=("state",),
    ),
    Family(
        "spinner_run_failed_records",
        "gauge",
        "Number of failed records of the run; a completed run can have failed records. Absent while unknown.",
        lambda shown, now: shown.run.records.failed,
    ),
    Family(
        "spinner_run_total_records",
        "gauge",
        "Number of all records of the run; absent while unknown.",
        lambda shown, now: shown.run.records.total,
    ),
    Family(
        "spinner_run_created_timestamp_seconds",
        "gauge",
        "Unix time of the creation of the run.",
        lambda shown, now: now.clock.to_local(shown.run.snapshot.created_at),
    ),
    Family(
        "spinner_run_start_timestamp_seconds",
        "gauge",
        "Unix time of the start of the run; absent before it starts.",
        lambda shown, now: _local(now, shown.run.snapshot.started_at),
    ),
    Family(
        "spinner_run_end_timestamp_seconds",
        "gauge",
        "Unix time of the end of the run; absent before it ends.",
        lambda shown, now: _local(now, shown.run.ended_at),
    ),
    Family(
        "spinner_run_last_progress_timestamp_seconds",
        "gauge",
        "Unix time when the run last made progress: when a record last finished, or when the run started. Absent if "
        "the runtime reports neither this time nor how many records have finished.",
        lambda shown, now: _local(now, shown.run.last_progress_at),
    ),
    Family(
        "spinner_run_last_activity_timestamp_seconds",
        "gauge",
        "Unix time when a record in flight last began, went on to its next step or was tried again, although none may "
        "have finished. Only of runs that have been silent for half of their stall threshold, if the runtime lists "
        "records in flight.",
        _last_activity,
    ),
    Family(
        "spinner_run_progress_interval_seconds",
        "gauge",
        "Typical seconds between two finished records of the run; absent before the first.",
        lambda shown, now: shown.pace.interval(),
    ),
    Family(
        "spinner_run_longest_progress_interval_seconds",
        "gauge",
        "Longest seconds so far between two finished records of the run, or from its start to the first; absent before "
        "the first.",
        lambda shown, now: None if shown.pace.first_gap is None else shown.pace.longest_gap,
    ),
    Family(
        "spinner_run_stall_threshold_seconds",
        "gauge",
        "Seconds without progress after which the run counts as stalled: learned from the pace of the run and of "
        "earlier runs of its spinner, within the configured floor and ceiling, or above the ceiling in a recurring "
        "pause; plus the time for which silence is excused, such as an outage of the worker service. Absent while no "
        "progress is expected: when the run is queued, waiting for a person, or has ended; and while its last progress "
        "is unknown.",
        lambda shown, now: shown.stall_threshold(),
    ),
    Family(
        "spinner_run_stall_threshold_info",
        "gauge",
        "What decided the stall threshold of the run, and why in words; always 1. The basis is "
        f"{', '.join(list(REASONS)[:-1])} or {list(REASONS)[-1]}. The reason also says how many of the spinner's last "
        f"{EARLIER_RUNS} runs it was learned from.",
        _basis,
        labels=("basis", "reason"),
    ),
    Family(
        "spinner_run_straggler_threshold_seconds",
        "gauge",
        "Seconds without progress after which SpinnerRunStraggling opens a ticket, which is before the run counts as "
        "stalled. Only of runs whose last one or two of many records are left, or that are held back: nothing is in "
        "progress though records wait.",
        lambda shown, now: shown.straggler_threshold(),
    ),
    Family(
        "spinner_run_records_in_flight",
        "gauge",
        "Number of records in flight of a silent run by step, when they were last read: the largest groups are "
        "named, the rest are summed as other; 0 at an empty step if there are none. Absent if there are more than "
        "2,000.",
        lambda shown, now: _by_step(shown.in_flight),
        labels=("step",),
    ),
    Family(
        "spinner_run_oldest_record_in_flight_start_timestamp_seconds",
        "gauge",
        "Unix time when the oldest record in flight of a silent run began. Absent if there are more than 2,000, or the "
        "runtime does not report when each began.",
        lambda shown, now: None if shown.in_flight is None else _local(now, shown.in_flight.oldest_at),
    ),
    Family(
        "spinner_run_record_in_flight_step_start_timestamp_seconds",
        "gauge",
        "Unix time since which a record in flight of a silent run has been at its step. Only of the records that began "
        "first; their number is limited like that of failed records. The step number starts at 1.",
        lambda shown, now: _named(shown.in_flight, lambda record: _local(now, record.step_started_at)),
        labels=("record_id", "step", "step_number"),
    ),
    Family(
        "spinner_run_record_in_flight_attempts",
        "gauge",
        "Number of attempts at its step of a record in flight of a silent run. Only of the records that began first.",
        lambda shown, now: _named(shown.in_flight, lambda record: record.attempts),
        labels=("record_id", "step", "step_number"),
    ),
    Family(
        "spinner_run_waiting_records",
        "gauge",
        "Number of waiting records of the run by step, when they were last read: the largest groups are named, "
        "the rest are summed as other. Only of the runs that have made no progress for the longest. Absent if there "
        "are more than 2,000.",
        lambda shown, now: _by_step(shown.waiting),
        labels=("step",),
    ),
    Family(
        "spinner_run_waiting_record_info",
        "gauge",
        "The records of the run that have waited the longest; always 1. Only of the runs that have "
        "made no progress for the longest; their number is limited like that of failed records. The step number starts "
        "at 1.",
        lambda shown, now: _named(shown.waiting, lambda record: 1),
        labels=("record_id", "step", "step_number"),
    ),
    Family(
        "spinner_run_waiting_record_step_start_timestamp_seconds",
        "gauge",
        "Unix time since which a waiting record has been at its step. Only of those that have waited the longest.",
        lambda shown, now: _named(shown.waiting, lambda record: _local(now, record.step_started_at)),
        labels=("record_id", "step", "step_number"),
    ),
    Family(
        "spinner_run_waiting_record_attempts",
        "gauge",
        "Number of attempts at its step of a waiting record. Only of those that have waited the longest.",
        lambda shown, now: _named(shown.waiting, lambda record: record.attempts),
        labels=("record_id", "step", "step_number"),
    ),
    Family(
        "spinner_run_due_timestamp_seconds",
        "gauge",
        "Unix time at which the run should have ended, as the runtime says; absent if it does not, and after the end.",
        lambda shown, now: None if shown.run.ended else _local(now, shown.run.snapshot.due_at),
    ),
    Family(
        "spinner_run_waiting_until_timestamp_seconds",
        "gauge",
        "Unix time at which the run continues or starts at the latest, as the runtime says. Only while it waits or is "
        "queued, and unless it has made progress since.",
        lambda shown, now: _local(now, _waiting_until(shown.run)),
    ),
    Family(
        "spinner_run_failures",
        "gauge",
        "Number of failed records of the run by step and error code: the largest groups are named, the rest are "
        "summed as other.",
        _failures,
        labels=("step", "error_code"),
    ),
    Family(
        "spinner_run_failed_record_info",
        "gauge",
        "The latest failed records of the run; always 1. Their number is limited per run and over all runs.",
        lambda shown, now: [((r.id, r.step, r.error_code), 1) for r in shown.run.failed_records],
        labels=("record_id", "step", "error_code"),
    ),
)

SPINNER_FAMILIES: tuple[Family[ShownSpinner], ...] = (
    Family(
        "spinner_runs",
        "gauge",
        "Number of runs by status: those that have not ended, and those that ended within the retention.",
        lambda spinner, now: [((status.value,), count) for status, count in spinner.runs.items()],
        labels=("status",),
    ),
    Family(
        "spinner_runs_started_total",
        "counter",
        "Total number of runs that started.",
        lambda spinner, now: spinner.counters.started,
    ),
    Family(
        "spinner_runs_finished_total",
        "counter",
        "Total number of runs that ended, by final status.",
        lambda spinner, now: [((status.value,), spinner.counters.finished[status]) for status in ENDED],
        labels=("status",),
    ),
    Family(
        "spinner_records_processed_total",
        "counter",
        "Total number of records that finished, by state: completed or failed. A state that the runtime has never "
        "reported for a run of the spinner is absent.",
        lambda spinner, now: [
            (state, count)
            for state, count in (
                (("completed",), spinner.counters.completed_records),
                (("failed",), spinner.counters.failed_records),
            )
            if count is not None
        ],
        labels=("state",),
    ),
    Family(
        "spinner_run_finished_duration_seconds",
        "histogram",
        "Seconds from the start to the end of runs that ended.",
        lambda spinner, now: spinner.counters.durations,
    ),
    Family(
        "spinner_run_finished_records_total",
        "counter",
        "Total number of records, completed or failed, of the runs that spinner_run_finished_duration_seconds counts: "
        "its sum divided by this is the usual time per record. Absent if the runtime has never reported how many "
        "completed for a run of the spinner.",
        lambda spinner, now: spinner.counters.finished_records,
    ),
    Family(
        "spinner_run_queue_seconds",
        "histogram",
        "Seconds from the creation to the start of runs that started.",
        lambda spinner, now: spinner.counters.queue_times,
    ),
    Family(
        "spinner_last_start_timestamp_seconds",
        "gauge",
        "Unix time of the last start of a run of the spinner.",
        lambda spinner, now: _local(now, spinner.counters.last_start_at),
    ),
    Family(
        "spinner_last_success_timestamp_seconds",
        "gauge",
        "Unix time when a run of the spinner last completed successfully.",
        lambda spinner, now: _local(now, spinner.counters.last_success_at),
    ),
    Family(
        "spinner_expected_interval_seconds",
        "gauge",
        "Configured seconds between two runs of the spinner; absent if not configured. A spinner that the config names "
        "has it, and counters of 0, before its first run.",
        lambda spinner, now: spinner.policy.expected_interval,
    ),
    Family(
        "spinner_watched_since_timestamp_seconds",
        "gauge",
        "Unix time since which the exporter has seen every run of the spinner; only of spinners with an expected "
        "interval. Without a last start, no run has started since then.",
        lambda spinner, now: None if spinner.policy.expected_interval is None else _local(now, spinner.watched_since),
    ),
    Family(
        "spinner_stall_floor_seconds",
        "gauge",
        "Configured lower limit of the stall threshold of the spinner's runs, in seconds.",
        lambda spinner, now: spinner.policy.stall_floor,
    ),
    Family(
        "spinner_stall_ceiling_seconds",
        "gauge",
        "Configured upper limit of the stall threshold of the spinner's runs, in seconds.",
        lambda spinner, now: spinner.policy.stall_ceiling,
    ),
)

PROJECT_FAMILIES: tuple[Family[StoreView], ...] = (
    Family(
        "spinner_project_up",
        "gauge",
        "1 if the last read of the project succeeded, 0 otherwise.",
        lambda view, now: view.projects_up(),
        labels=("project",),
    ),
)

GLOBAL_FAMILIES: tuple[Family[StoreView], ...] = (
    Family(
        "spinner_plan_used",
        "gauge",
        "Used amount of the plan meter.",
        lambda view, now: [((meter.name,), meter.used) for meter in view.meters],
        labels=("meter",),
    ),
    Family(
        "spinner_plan_limit",
        "gauge",
        "Limit of the plan meter; +Inf if it is unlimited.",
        lambda view, now: [
            ((meter.name,), float("inf") if meter.limit is None else meter.limit) for meter in view.meters
        ],
        labels=("meter",),
    ),
    Family(
        "spinner_plan_reset_timestamp_seconds",
        "gauge",
        "Unix time of the next reset of the plan meter; absent if it does not reset.",
        lambda view, now: [
            ((meter.name,), time) for meter in view.meters if (time := _local(now, meter.resets_at)) is not None
        ],
        labels=("meter",),
    ),
    Family(
        "spinner_runtime_up",
        "gauge",
        "1 if the API reports that the worker service is up and gives its heartbeat, 0 otherwise. The API can be up "
        "while the worker service is down.",
        lambda view, now: None if view.health is None else float(view.health.runtime_up),
    ),
    Family(
        "spinner_runtime_workers",
        "gauge",
        "Number of workers, as reported by the API.",
        lambda view, now: None if view.health is None else view.health.workers,
    ),
    Family(
        "spinner_runtime_last_heartbeat_timestamp_seconds",
        "gauge",
        "Unix time of the last heartbeat of the worker service.",
        lambda view, now: None if view.health is None else _local(now, view.health.last_heartbeat_at),
    ),
    Family(
        "spinner_runtime_heartbeat_timeout_seconds",
        "gauge",
        "Configured seconds without a heartbeat after which the worker service counts as down; absent if the API "
        "reports no heartbeats.",
        lambda view, now: (
            config.heartbeat_timeout if reports_heartbeats((config := now.store.config.runtime).resources) else None
        ),
    ),
    Family(
        "spinner_runtime_clock_offset_seconds",
        "gauge",
        "Seconds by which the clock of the runtime is ahead of the exporter's; 0 while they agree. Absent before the "
        "first response of the API.",
        lambda view, now: now.clock.offset,
    ),
    Family(
        "spinner_api_up",
        "gauge",
        "1 if the last read of the API succeeded, in time for this scrape, 0 otherwise.",
        lambda view, now: float(now.api_up),
    ),
    Family(
        "spinner_exporter_stale_after_seconds",
        "gauge",
        "Configured seconds for which the last data of a project are shown while it cannot be read.",
        lambda view, now: now.store.config.sync.stale_after,
    ),
)

EXPORTER_FAMILIES: tuple[ExporterFamily, ...] = (
    ExporterFamily(
        "spinner_exporter_build_info",
        "gauge",
        "Versions of the exporter and of Python; always 1.",
        ("version", "python"),
        False,
    ),
    ExporterFamily(
        "spinner_exporter_sync_duration_seconds",
        "histogram",
        "Seconds that a sync with the runtime took.",
    ),
    ExporterFamily(
        "spinner_exporter_snapshot_timestamp_seconds",
        "gauge",
        "Unix time of the start of the last successful sync: what it read is not older. Absent before the first.",
        starts_at_zero=False,
    ),
    ExporterFamily(
        "spinner_exporter_upstream_requests_total",
        "counter",
        "Total number of requests to the runtime's API by resource and HTTP status code; error if there was no "
        "response.",
        ("resource", "code"),
    ),
    ExporterFamily(
        "spinner_exporter_upstream_request_duration_seconds",
        "histogram",
        "Seconds from sending a request to the runtime's API until the whole response arrived.",
        ("resource",),
    ),
    ExporterFamily("spinner_exporter_runs_tracked", "gauge", "Number of runs that have series."),
    ExporterFamily(
        "spinner_exporter_runs_dropped_total",
        "counter",
        "Total number of runs whose series were removed before the end of the retention, by reason: limit (more runs "
        "than limits.runs), gone (the runtime no longer lists the run), project_gone (the "
        "runtime no longer lists its project, or the config no longer allows it), or shared_id "
        "(another run of the project has the same id). The reason "
        "spinner_limit (more spinners than limits.spinners or limits.spinners_per_project) stands for runs that are "
        "counted as spinner other, and for spinners whose series were removed.",
        ("reason",),
    ),
    ExporterFamily(
        "spinner_exporter_projects_probed", "gauge", "Number of projects that are read because they are probed."
    ),
    ExporterFamily(
        "spinner_exporter_projects_not_read",
        "gauge",
        "Number of projects that are not read because of limits.projects; absent before the first list of projects.",
        starts_at_zero=False,
    ),
    ExporterFamily(
        "spinner_exporter_items_total",
        "counter",
        "Total number of items in the lists that were read, valid or not, by kind: job, record, project or meter.",
        ("kind",),
    ),
    ExporterFamily(
        "spinner_exporter_invalid_items_total",
        "counter",
        "Total number of items in these lists that were invalid and therefore skipped, by kind; and of values "
        "that cannot be right and count as missing, once for each item and field, also of health.",
        ("kind",),
    ),
    ExporterFamily(
        "spinner_exporter_records_in_flight_reads_total",
        "counter",
        "Total number of due reads of a silent run's records in flight, by result: read, failed, or "
        "postponed (left for a later scrape, because limits.record_in_flight_requests are used up or others failed).",
        ("result",),
    ),
    ExporterFamily(
        "spinner_exporter_waiting_records_reads_total",
        "counter",
        "Total number of due reads of a run's waiting records, by result: read, failed, or "
        "postponed (left for a later scrape, because limits.waiting_record_requests are used up or others failed).",
        ("result",),
    ),
    ExporterFamily(
        "spinner_exporter_unmapped_status_total",
        "counter",
        "Total number of status labels without a mapping in responses of the API: the first labels are named, "
        "the rest are summed as other.",
        ("label",),
    ),
    ExporterFamily(
        "spinner_exporter_storage_failures_total",
        "counter",
        "Total number of times that storage.path could not be written, or not in time; after a restart the counters "
        "continue from the last successful write.",
    ),
    ExporterFamily(
        "spinner_exporter_time_seconds",
        "gauge",
        "Unix time of the response, by the exporter's clock. All timestamps are by this clock.",
        of_runtime=False,
    ),
    ExporterFamily(
        "spinner_exporter_config_last_reload_successful",
        "gauge",
        "1 if the last start or reload of the config succeeded, 0 otherwise.",
        of_runtime=False,
        starts_at_zero=False,
    ),
)


def names() -> dict[str, tuple[str, ...]]:
    """Return the name of every family and all labels that it can have."""
    return {
        **{family.name: (RUNTIME_LABEL, *RUN_LABELS, *family.labels) for family in RUN_FAMILIES},
        **{family.name: (RUNTIME_LABEL, *SPINNER_LABELS, *family.labels) for family in SPINNER_FAMILIES},
        **{family.name: (RUNTIME_LABEL, *family.labels) for family in (*PROJECT_FAMILIES, *GLOBAL_FAMILIES)},
        **{
            family.name: ((RUNTIME_LABEL,) if family.of_runtime else ()) + family.labels for family in EXPORTER_FAMILIES
        },
    }
