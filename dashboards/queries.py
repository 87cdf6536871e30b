"""PromQL, and the only place of the dashboards with metric names: each is looked up where it comes from.

A name or a label that neither the exporter's catalogue nor a recording rule has fails the build, not a dashboard.
"""

import functools
import re
from pathlib import Path

import yaml

from dashboards.style import status_number
from exporter.metrics import catalogue

RULES = Path(__file__).parents[1] / "alerts" / "recording.rules.yml"

RUNTIME = 'runtime=~"$runtime"'
"""Also of an exporter that reads just one, whose series have no such label: "all" is `.*`, which that matches."""

PROJECT = f'{RUNTIME}, project=~"$project"'
"""Two runtimes can each have a project of the same name."""

SPINNER = 'spinner=~"$spinner"'
RUN = 'run_id=~"$run"'

BY_RUN = "max by (runtime, project, spinner, run_id)"
REPLICAS = "max without (instance, pod)"
"""Two exporters that read the same runtime are one."""

FIRING = ('alertstate="firing"', 'alertname=~"Spinner.+"', 'severity=~"page|ticket"')


def series(name: str, *matchers: str) -> str:
    """Return a selector of a metric. Raises `KeyError` for a metric, or a label of one, that nothing exposes."""
    labels = _labels().get(re.sub(r"_(bucket|sum|count)$", "", name), _labels().get(name))
    if labels is None:
        raise KeyError(f"{name} is neither in exporter/metrics/catalogue.py nor in {RULES.name}")
    for label in re.findall(r"(\w+)[=!]", ", ".join(matchers)):
        if ":" not in name and label not in labels:
            raise KeyError(f"{name} has no label {label}")
    return f"{name}{{{', '.join(matchers)}}}" if matchers else name


def eq(label: str, value: str) -> str:
    """Return the matcher of one value of a label."""
    return f'{label}="{value}"'


def of_runs(name: str, *matchers: str) -> str:
    """Return a metric of the runs of the chosen projects and spinners, one series for each run."""
    return f"{BY_RUN} ({series(name, PROJECT, SPINNER, *matchers)})"


def of_chosen_run(name: str, *matchers: str) -> str:
    """Return a metric of the chosen run."""
    return of_runs(name, RUN, *matchers)


def with_status(expression: str) -> str:
    """Return what an expression says of the runs that have one of the chosen statuses."""
    status = series("spinner_run_status", PROJECT, SPINNER, 'status=~"$status"')
    return f"({expression}) and on (runtime, project, spinner, run_id) {status}"


def stalled(*matchers: str) -> str:
    """Return the silence of the runs that are stalled: what SpinnerRunStalled asks."""
    progress = of_runs("spinner_run_last_progress_timestamp_seconds", *matchers)
    threshold = of_runs("spinner_run_stall_threshold_seconds", *matchers)
    return f"(time() - {progress} > {threshold})"


def completed_with_failures(*matchers: str) -> str:
    """Return the number of failed records of the runs that completed with some."""
    failed = of_runs("spinner_run_failed_records", *matchers)
    completed = series("spinner_run_status", PROJECT, SPINNER, 'status="completed"', *matchers)
    return f"({failed} > 0 and on (runtime, project, spinner, run_id) {completed})"


def shown_status(*matchers: str) -> str:
    """Return every run with a label `status` that says how it is shown (`style.STATUSES`)."""
    plain = series("spinner_run_status", PROJECT, SPINNER, *matchers)
    return " or on (runtime, project, spinner, run_id) ".join(
        (
            f'label_replace({stalled(*matchers)}, "status", "stalled", "", "")',
            f'label_replace({completed_with_failures(*matchers)}, "status", "failures", "", "")',
            f"max by (runtime, project, spinner, run_id, status) ({plain})",
        )
    )


def shown_status_number(*matchers: str, statuses: tuple[str, ...]) -> str:
    """Return the number (`style.status_number`) of how each run with one of the statuses is shown."""
    # Over time the recorded silence: that of the runs under way alone, where the exporter's own also has the thousands
    # that have ended.
    silence = series("project_spinner_run:spinner_run_silence:ratio", PROJECT, SPINNER, *matchers)
    parts = [f"({silence} > 1) * 0 + {status_number('stalled')}"]
    if "completed" in statuses:
        parts.append(f"{completed_with_failures(*matchers)} * 0 + {status_number('failures')}")
    parts += [
        f"{of_runs('spinner_run_status', eq('status', status), *matchers)} * {status_number(status)}"
        for status in statuses
    ]
    return " or ".join(f"({part})" for part in parts)


def total(expression: str) -> str:
    """Return the sum of an expression, 0 where it is empty."""
    return f"sum({expression}) or vector(0)"


@functools.cache
def _labels() -> dict[str, tuple[str, ...]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    recorded = {rule["record"]: () for group in groups for rule in group["rules"]}
    # Prometheus's own; what of it is asked here comes from alerts/alerts.rules.yml.
    alerts = {"ALERTS": ("alertname", "alertstate", "severity", "runtime", "project", "spinner", "run_id")}
    process = dict.fromkeys(("process_resident_memory_bytes", "scrape_samples_scraped", "scrape_duration_seconds"), ())
    return {**catalogue.names(), **recorded, **alerts, **process}
