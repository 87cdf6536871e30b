"""PromQL selectors and expressions: the only module of the dashboards with metric names.

Each name and label is checked against the exporter's catalogue and the recording rules, so that a wrong one fails the
build instead of leaving a panel empty.
"""

import functools
import re
from pathlib import Path

import yaml

from dashboards.style import UNKNOWN_NUMBER, status_number
from exporter.metrics import catalogue
from exporter.status import Status

RULES = Path(__file__).parents[1] / "alerts" / "recording.rules.yml"

RUNTIME = "runtime=~`${runtime:regex}`"
"""Between backticks and escaped as a regular expression, because otherwise Grafana does not escape quotation marks.

All is `.*`: it also matches series that earlier versions recorded of a single runtime, which have no such label.
"""

NAMED = 'runtime!=""'
"""Leaves out the series that earlier versions exposed of a single runtime: an upgrade replaced them."""

NO_RUNTIME = 'runtime=""'
"""Selects the sample without labels of a recording rule, which proves that the rule was evaluated."""

PROJECT = f"{RUNTIME}, project=~`${{project:regex}}`"
"""Includes the runtime, because two runtimes can have projects with the same name."""

SPINNER = "spinner=~`${spinner:regex}`"
RUN_ID = "run_id=~`${run:regex}`"
"""The runs that have the chosen id: runs of different projects can have the same."""

RUN_PLACE = "${run_runtime:regex}${run_among:raw}", "${run_project:regex}${run_among:raw}"
"""The patterns of the runtime and the project of the chosen run: any at first, and after a click exactly its own."""

RUN = f"{RUN_ID}, runtime=~`{RUN_PLACE[0]}`, project=~`{RUN_PLACE[1]}`"

LISTED = "run_id=~`${listed:regex}`"
"""The runs that the table of runs shows."""

STALLED_NOW, NOT_STALLED_NOW = (f"run_id{sign}`${{stalled:regex}}`" for sign in ("=~", "!~"))
"""The runs that are stalled now, also in a range query, and the others."""

RUN_LABELS = "runtime, project, spinner, run_id"
BY_RUN = f"max by ({RUN_LABELS})"
ON_RUN = f"on ({RUN_LABELS})"
REPLICAS = "max without (instance, pod)"
"""Deduplicates the series of two exporters that read the same runtime."""

SELECTED_ALERTS = ("runtime=~`(${runtime:regex})|`", "project=~`(${project:regex})|`")
"""Alerts of the selected runtimes and projects, and those that belong to none, such as of a target that is down."""

FIRING = ('alertstate="firing"', 'alertname=~"Spinner.+"', 'severity=~"page|ticket"')


def series(name: str, *matchers: str) -> str:
    """Return a selector for a metric. Raises `KeyError` for a metric or a label that does not exist."""
    labels = _labels().get(re.sub(r"_(bucket|sum|count)$", "", name), _labels().get(name))
    if labels is None:
        raise KeyError(f"{name} is neither in exporter/metrics/catalogue.py nor in {RULES.name}")
    for label in re.findall(r"(\w+)[=!]", ", ".join(matchers)):
        if ":" not in name and label not in labels:
            raise KeyError(f"{name} has no label {label}")
    return f"{name}{{{', '.join(matchers)}}}" if matchers else name


def equals(label: str, value: str) -> str:
    """Return a matcher for one value of a label."""
    return f'{label}="{value}"'


def per_run(name: str, *matchers: str) -> str:
    """Return a metric with one series for each run of the selected projects and spinners."""
    return f"{BY_RUN} ({series(name, PROJECT, SPINNER, *matchers)})"


def per_selected_run(name: str, *matchers: str) -> str:
    """Return a metric of the selected runs."""
    return per_run(name, RUN, *matchers)


def outages() -> str:
    """Return the selected runtimes whose worker service is down: it says so, or its heartbeat is too old."""
    up = f"max by (runtime) ({series('spinner_runtime_up', RUNTIME)})"
    heartbeat = f"max by (runtime) ({series('spinner_runtime_last_heartbeat_timestamp_seconds', RUNTIME)})"
    timeout = f"max by (runtime) ({series('spinner_runtime_heartbeat_timeout_seconds', RUNTIME)})"
    return f"({up} == 0 or time() - {heartbeat} > {timeout})"


def stalled_runs(*matchers: str) -> str:
    """Return the stalled runs and their seconds without progress: the condition of SpinnerRunStalled."""
    return _outside_outages(_silent_runs(*matchers))


def _silent_runs(*matchers: str) -> str:
    """Return the runs that are silent for longer than their threshold, also while that says nothing about them."""
    progress = per_run("spinner_run_last_progress_timestamp_seconds", *matchers)
    return f"(time() - {progress} > {stall_threshold(*matchers)})"


def stall_threshold(*matchers: str) -> str:
    """Return the seconds without progress after which SpinnerRunStalled pages for each run.

    For the last records of a run it is their own, earlier threshold while something waits for them: a queued run of the
    project, or the time at which the run is due has passed.
    """
    straggler = per_run("spinner_run_straggler_threshold_seconds", *matchers)
    queued = series("spinner_run_status", PROJECT, equals("status", "queued"))
    due = series("spinner_run_due_timestamp_seconds", PROJECT, SPINNER, *matchers)
    return (
        f"({straggler} and on (runtime, project) {queued} or {straggler} and {ON_RUN} {due} < time() "
        f"or {per_run('spinner_run_stall_threshold_seconds', *matchers)})"
    )


def _outside_outages(stalled: str) -> str:
    """Leave out the runs of projects that cannot be read, and of runtimes that are down."""
    return f"({while_read(stalled)} unless on (runtime) {outages()})"


def while_read(expression: str) -> str:
    """Leave out what belongs to a project while it cannot be read: what was read last would look like no progress."""
    return f"({expression} and on (runtime, project) {_read_projects()})"


def unread_runs(*matchers: str) -> str:
    """Return the runs that were running when their project, which cannot be read now, was read last."""
    running = per_run("spinner_run_status", equals("status", "running"), *matchers)
    return f"({running} unless on (runtime, project) {_read_projects()})"


def _read_projects() -> str:
    return f"max by (runtime, project) ({series('spinner_project_up', PROJECT)}) == 1"


def completed_with_failures(*matchers: str) -> str:
    """Return the completed runs with failed records, and how many."""
    failed = per_run("spinner_run_failed_records", *matchers)
    completed = series("spinner_run_status", PROJECT, SPINNER, 'status="completed"', *matchers)
    return f"({failed} > 0 and {ON_RUN} {completed})"


def display_status(*matchers: str) -> str:
    """Return each run with a label `status`: a key of `style.STATUSES` or of `style.NOT_KNOWN`."""
    plain = series("spinner_run_status", PROJECT, SPINNER, *matchers)
    return f" or {ON_RUN} ".join(
        (
            f'label_replace({stalled_runs(*matchers)}, "status", "stalled", "", "")',
            f'label_replace({overdue_runs(*matchers)}, "status", "overdue", "", "")',
            f'label_replace({completed_with_failures(*matchers)}, "status", "failures", "", "")',
            f'label_replace({while_read(_silent_runs(*matchers))}, "status", "no workers", "", "")',
            f'label_replace({unread_runs(*matchers)}, "status", "unread", "", "")',
            f"max by ({RUN_LABELS}, status) ({plain})",
        )
    )


def by_need(silence: str, age: str, *matchers: str) -> str:
    """Return each run with its display status; the value is higher for a run that needs a person more.

    `silence` is the silence of a run divided by its stall threshold, of projects that can be read (`while_read`), and
    `age` a number below 1 that puts runs of the same status in an order while nothing else does.
    """
    silent = f"({silence} > 1)"
    failed = per_run("spinner_run_failed_records", *matchers)
    not_completed = series("spinner_run_status", PROJECT, SPINNER, 'status!="completed"', *matchers)
    parts = {
        "stalled": f"({silent} unless on (runtime) {outages()})",
        "overdue": overdue_runs(*matchers),
        "failures": f"({failed} > 0 unless {ON_RUN} {not_completed})",
        # Those that are silent and not stalled: nothing can make progress.
        "no workers": silent,
        "unread": unread_runs(*matchers),
    }
    ranked = [
        f'label_replace({part} * 0 + {_NEED[status]}, "status", "{status}", "", "")' for status, part in parts.items()
    ]
    for status in Status:
        plain = series("spinner_run_status", PROJECT, SPINNER, equals("status", status.value), *matchers)
        ranked.append(f"max by ({RUN_LABELS}, status) ({plain}) * {_NEED[status.value]}")
    ended = per_run("spinner_run_end_timestamp_seconds", *matchers)
    within = (
        f"0.99 - 0.99 / (1 + {silence}) or 0.99 / (1 + clamp_min(time() - {ended}, 0) / 3600) or {age}"  # newest first
    )
    return f"(({f' or {ON_RUN} '.join(ranked)}) + {ON_RUN} group_left () ({within}))"


RECORDED_NEED = "project_spinner_run_status:spinner_run_status:need"
"""The recorded need of each run, with its display status: a run has one of them."""


def recorded_by_need(*statuses: str) -> str:
    """Return the runs with one of these display statuses, as recorded within the last minute."""
    return series(RECORDED_NEED, PROJECT, SPINNER, f'status=~"{"|".join(statuses)}"')


def listed_by_need(most: int) -> str:
    """Return the ids of the runs with a selected status that need a person most, as the rules have recorded.

    A run that is not recorded yet is listed too if it has not ended. The status can be another one since.
    """
    selected = "status=~`${status:regex}`"
    need = series(RECORDED_NEED, PROJECT, SPINNER, selected)
    shown_otherwise = recorded_by_need("stalled", "overdue")
    active = f"{per_run('spinner_run_status', _ACTIVE, selected)} unless {ON_RUN} {shown_otherwise}"
    return f"topk({most}, max by (run_id) (topk({most}, {need}) or {ON_RUN} ({active})))"


_NEED = {
    "stalled": 9,
    "failed": 8,
    "failures": 7,
    "overdue": 6,
    "no workers": 5,
    "unread": 5,
    "unknown": 5,
    "running": 4,
    "waiting": 3,
    "queued": 2,
    "completed": 0,
    "cancelled": 0,
}
"""How much a run with a display status needs a person."""


def active_by_need() -> str:
    """Return the runs that were active within the range of the dashboard; the value is higher for a greater need.

    Those that have ended since are found at every fifth minute, because all samples of a range are too many.
    """
    status = series("spinner_run_status", PROJECT, SPINNER, _ACTIVE)
    ranked = [f"({recorded_stalls()} * 0 + {_NEED['stalled']})"]
    for name in ("unknown", "running", "waiting", "queued"):
        plain = per_run("spinner_run_status", equals("status", name))
        silence = series(RECORDED_SILENCE, PROJECT, SPINNER)
        ranked.append(
            f"({plain} * {_NEED[name]} + {ON_RUN} (0.99 - 0.99 / (1 + {silence})) or {plain} * {_NEED[name]})"
            if name == "running"
            else f"{plain} * {_NEED[name]}"
        )
    ranked.append(f"{BY_RUN} (last_over_time({status}[$__range:5m]))")
    return f"({' or '.join(ranked)})"


_ACTIVE = 'status!~"completed|failed|cancelled"'

RECORDED_SILENCE = "project_spinner_run:spinner_run_silence:ratio"
"""The recorded ratio of silence to stall threshold: only active runs have it."""


def overdue_runs(*matchers: str) -> str:
    """Return the running runs of which SpinnerRunOverdue says that they take much longer than usual."""
    alerts = series("ALERTS", PROJECT, SPINNER, equals("alertname", "SpinnerRunOverdue"), FIRING[0], *matchers)
    running = series("spinner_run_status", PROJECT, SPINNER, equals("status", "running"), *matchers)
    return f"({BY_RUN} ({alerts}) and {ON_RUN} {running})"


def display_status_number(*matchers: str, statuses: tuple[str, ...]) -> str:
    """Return each run that has one of the statuses, with the number (`style.status_number`) of its display status."""
    # A range query reads the recorded ratio: it has the active runs only, while the exporter's own series also include
    # thousands of runs that have ended.
    rules = series("project_spinner:spinner_run_failed_records:sum", NO_RUNTIME)
    parts = [
        f"({_recorded_as_silent(*matchers)} unless on (runtime) {outages()}) * 0 + {status_number('stalled')}",
        f"({_recorded_as_silent(*matchers)}) * 0 + {UNKNOWN_NUMBER}",
        # Without the recording rules nobody knows which of the runs that should make progress are stalled.
        f"({per_run('spinner_run_stall_threshold_seconds', *matchers)} unless on () {rules}) * 0 + {UNKNOWN_NUMBER}",
    ]
    if "completed" in statuses:
        parts.append(f"{completed_with_failures(*matchers)} * 0 + {status_number('failures')}")
    parts += [
        f"{per_run('spinner_run_status', equals('status', status), *matchers)} * {status_number(status)}"
        for status in statuses
    ]
    # A stalled run of a project that cannot be read would become a running one.
    return while_read(f"({' or '.join(f'({part})' for part in parts)})")


def highest_hour(expression: str) -> str:
    """Return the highest hourly value of an expression in each step of a graph, whose steps are whole hours.

    Without it, a graph with a step of a day shows the value of one hour of each day. The value of an hour is recorded
    at its end. Half an hour later the window contains exactly the hours of the step, whether it includes its own start
    (Prometheus 2) or not (Prometheus 3).
    """
    return f"max_over_time({expression}[$__interval:1h] offset -30m)"


RULES_RUN_EVERY = 30
"""Seconds between two evaluations of what was known of runtimes and projects."""

_SINCE_RULES = f"{3 * RULES_RUN_EVERY}s"
"""A range that contains everything that was exposed after the last evaluation, also where it is stored late."""


def lost_runtimes() -> str:
    """Return the selected runtimes that nobody reports, although they were not removed from a config.

    The rules record what each target exposed when it was last scraped: while it is down, and for an hour after it has
    vanished. SpinnerExporterDown can page for longer. What an exporter that is up no longer reports was removed.
    """
    known = _known("instance_runtime:spinner_api_up:known", "spinner_api_up", RUNTIME)
    exposing = f"({series('spinner_api_up')} or {series('spinner_exporter_build_info')})"
    pages = series("ALERTS", RUNTIME, NAMED, equals("alertname", "SpinnerExporterDown"), FIRING[0])
    return (
        f"(group by (runtime) ({known} unless on (job, instance) {exposing} or {pages}) "
        f"unless on (runtime) {series('spinner_api_up', RUNTIME, NAMED)})"
    )


def lost_projects(*matchers: str) -> str:
    """Return the projects that nobody reports, although they were not removed.

    The rules record what each target exposed when it was last scraped: while it is down, and for an hour after an
    exporter has vanished. A project was removed if its own target has vanished, or if an exporter that is up no longer
    reports it.
    """
    known = _known("instance_project:spinner_project_up:known", "spinner_project_up", *matchers)
    exposing = f"({series('spinner_exporter_build_info')} or {series('spinner_project_up')})"
    return (
        f"(group by (runtime, project) ({known} unless on (job, instance) {exposing}) "
        f"unless on (runtime, project) {series('spinner_project_up', NAMED, *matchers)})"
    )


def _known(recorded: str, exposed: str, *matchers: str) -> str:
    """Return what each target exposed when it was last scraped, also after the last evaluation of the rules."""
    now = f"last_over_time({series(exposed, NAMED, *matchers)}[{_SINCE_RULES}])"
    return f"({series(recorded, NAMED, *matchers)} or {now})"


def rules_evaluated() -> str:
    """Return one sample if the rules have recorded lately what is known; otherwise nobody knows what is lost."""
    ages = (
        f"time() - {series(record, NO_RUNTIME)} <= {3 * RULES_RUN_EVERY}"
        for record in ("instance_runtime:spinner_api_up:known", "instance_project:spinner_project_up:known")
    )
    return f"({' and on () '.join(ages)})"


def all_fresh(*matchers: str) -> str:
    """Return one sample if every selected runtime and project was read in its last scrape; otherwise nothing."""
    project = f"max by (runtime, project) ({series('spinner_project_up', *matchers)})"
    return (
        f"(min({project}) == 1 and on () {rules_evaluated()} "
        f"unless on () max by (runtime) ({series('spinner_api_up', RUNTIME)}) == 0 "
        f"unless on () {lost_runtimes()} unless on () {lost_projects(*matchers)})"
    )


def recorded_none(record: str, *matchers: str) -> str:
    """Return one sample if a rule was evaluated and recorded nothing above 0 of the selected projects."""
    return f"(group({series(record, NO_RUNTIME)}) unless on () {series(record, PROJECT, NAMED, *matchers)} > 0)"


def recorded_stalls(*matchers: str) -> str:
    """Return the stalled runs and their silence relative to the threshold, as recorded within the last minute.

    It reads the active runs only, where `stalled_runs` also reads thousands of runs that have ended.
    """
    return _outside_outages(f"({_recorded_as_silent(*matchers)})")


def _recorded_as_silent(*matchers: str) -> str:
    """Return the runs whose silence was recorded as longer than their threshold, also while that says nothing."""
    return f"{series(RECORDED_SILENCE, PROJECT, SPINNER, *matchers)} > 1"


def or_zero(expression: str, known: str) -> str:
    """Return a number if it is positive, 0 if `known` has a sample, and otherwise nothing: it is unknown."""
    return f"({expression} > 0) or 0 * {known}"


def no_failed_records(known: str, *matchers: str) -> str:
    """Return `known` if the failed records of these runs are known to be none.

    Of a run that has not ended they are known only while its project is read.
    """
    failed = per_run("spinner_run_failed_records", *matchers)
    active = per_run("spinner_run_status", _ACTIVE, *matchers)
    uncounted = f"{per_run('spinner_run_status', *matchers)} unless {ON_RUN} {failed}"
    return (
        f"({known} unless on () ({failed} > 0) unless on () ({uncounted}) "
        f"unless on () ({active} unless {ON_RUN} {while_read(active)}))"
    )


def named_bars(expression: str, labels: tuple[str, str], *, none: str, of_what: str) -> str:
    """Return an expression with the label `name`, of two labels, or the zero `none` with the name `of_what`."""
    first, second = labels
    return (
        f'label_join({expression}, "name", ": ", "{first}", "{second}") '
        f'or label_replace(0 * {none}, "name", "{of_what}", "", "")'
    )


def all_counted(known: str) -> str:
    """Return `known` if it is recorded that the failed records of all selected runs are known."""
    return f"({known} and on () {recorded_none('project_spinner:spinner_run_failed_records:unknown', SPINNER)})"


def progress_known() -> str:
    """Return one sample if it is recorded of each running run when it last made progress."""
    return recorded_none("project_spinner:spinner_run_last_progress_timestamp_seconds:unknown", SPINNER)


def no_recorded_failures(known: str) -> str:
    """Return `known`, which implies that all projects are read, if it is recorded that no record has failed."""
    return (
        f"({all_counted(known)} and on () {recorded_none('project_spinner:spinner_run_failed_records:sum', SPINNER)})"
    )


def targets_down() -> str:
    """Return the exporters of which Prometheus has the target and no metrics."""
    info = series("spinner_exporter_build_info")
    return f"(last_over_time({info}[1d]) and on (job, instance) {series('up')} == 0)"


def failures_in_range(name: str, failed: str, lost: str) -> str:
    """Return by how much the counters of failures of the selected spinners grew since the range of the panel began.

    It is the difference of two values, and what the rule `lost` recorded that the counter forgot when its exporter
    started again: `increase` would estimate what happened before the first sample and after the last, and reads every
    sample of the range. A counter that did not exist when the range began counts from zero: it is that of a new
    spinner, or its exporter is new. Otherwise nobody knows how much of it is from before the range.
    """
    counter = series(name, PROJECT, SPINNER, failed)
    # What is recorded within a minute after the range has begun is of the minute before.
    forgotten = f"sum_over_time({series(lost, PROJECT, SPINNER, NAMED)}[$__range] offset -59s)"
    now = f"({REPLICAS} ({counter}) or 0 * {forgotten})"
    in_all = f"({now} + {forgotten} or {now})"
    before = f"{REPLICAS} ({counter} offset $__range)"
    api = series("spinner_api_up", RUNTIME)
    watched = (
        f"(group by (runtime) ({api} offset $__range) or group by (runtime) "
        f"({api} unless on (runtime) last_over_time({api}[1d:5m] offset $__range)))"
    )
    return f"sum({in_all} - {before} >= 0 or {in_all} and on (runtime) {watched})"


def failures_remembered(name: str, failed: str, lost: str) -> str:
    """Return one sample if the rule `lost` has recorded since the range began what the counters forgot.

    It is not yet if one is lower than before: the rule waits for 8 minutes for a counter that is gone.
    """
    counter = series(name, PROJECT, SPINNER, failed)
    now = f"{REPLICAS} ({counter})"
    shortly_before = " or ".join(f"{REPLICAS} ({counter} offset {minutes}m)" for minutes in (5, 10))
    recorded = f"count_over_time({series(lost, NO_RUNTIME)}[$__range]) >= $__range_s / 60 - 6"
    return f"(group({recorded}) unless on () (({shortly_before}) > {now} or ({shortly_before}) > 0 unless {now}))"


def scraped_throughout(known: str) -> str:
    """Return `known` if the exporters of the selected runtimes were scraped during the whole range of the panel.

    Gaps of up to 6 minutes are accepted: the exporter counts what happened in a short gap when it is over.
    """
    runtimes = f"max by (runtime) ({series('spinner_api_up', RUNTIME)})"
    scraped = f"count_over_time({runtimes}[$__range:1m]) >= $__range_s / 60 - 6"
    return f"({known} unless on () ({runtimes} unless on (runtime) {scraped}))"


def since_midnight() -> str:
    """Return one sample if the range of the panel is a day so far, in UTC.

    While the range of a dashboard is absolute, as after zooming into a graph, Grafana ignores a panel's own range.
    """
    return "(vector($__from) % 86400000 == 0 and vector($__range_s) <= 86400)"


@functools.cache
def _labels() -> dict[str, tuple[str, ...]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    recorded = {rule["record"]: () for group in groups for rule in group["rules"]}
    # ALERTS and the process metrics come from Prometheus and from the client library.
    names = ("alertname", "severity", "runtime", "project", "spinner", "run_id")
    alerts = {"ALERTS": (*names, "alertstate"), "ALERTS_FOR_STATE": names}
    process = dict.fromkeys(("up", "process_resident_memory_bytes", "scrape_samples_scraped"), ())
    return {**catalogue.names(), **recorded, **alerts, **process}
