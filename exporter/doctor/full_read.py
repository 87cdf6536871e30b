"""Reads three times as the exporter does, and says what could be read, from which lists, and at which cost."""

import dataclasses
from collections.abc import Iterable, Sequence

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample as MetricSample

from exporter.doctor.diagnosis import Check
from exporter.metrics.page import MetricsPage
from exporter.service import Exporter
from exporter.service.monitored_runtime import MonitoredRuntime


@dataclasses.dataclass(frozen=True, slots=True)
class FullRead:
    """What the reads show. One that failed has only some of the series and of the requests, so it has none."""

    checks: list[Check]
    labels: frozenset[str]
    """Status labels that have no status."""
    succeeded: bool = False
    series: int = 0
    runs: int = 0
    requests: float = 0.0
    """Requests of a read while little changes, without the list of projects."""


async def full_read(exporter: Exporter, monitored: MonitoredRuntime) -> FullRead:
    """Read the only runtime of an exporter."""
    # The first read finds the runs, and the second finds out whether there is one list of them all.
    await exporter.page(max_wait=float("inf"))
    first = _samples(await exporter.page(max_wait=float("inf")))
    second = _samples(await exporter.page(max_wait=float("inf")))
    read = _read(second, monitored)
    # The first page of a list need not have all labels.
    labels = frozenset(
        sample.labels["label"] for sample in second if sample.name == "spinner_exporter_unmapped_status_total"
    )
    if not read.ok:
        return FullRead([read], labels)
    return FullRead(
        [read, _lists(monitored), *_lists_of_records(monitored), _ids(second)],
        labels,
        succeeded=True,
        series=len(second),
        runs=sum(sample.name == "spinner_run_status" for sample in second),
        requests=_requests(second) - _requests(first),
    )


def _read(samples: Iterable[MetricSample], monitored: MonitoredRuntime) -> Check:
    """Return whether everything could be read. The API counts as up even if some projects cannot be read."""
    errors = {project.name: project.error for project in monitored.store.view.projects() if project.error}
    if errors:
        name, error = min(errors.items())
        # Where the token comes from is for whoever runs this, and not among what the store holds for everybody.
        error = next((reason for reason in monitored.reasons if reason.startswith(error)), error)
        others = f"; so do {len(errors) - 1} other projects" if len(errors) > 1 else ""
        return Check("full read", False, f"project {name} fails{others}: {error}")
    api_up = any(sample.name == "spinner_api_up" and sample.value == 1 for sample in samples)
    return Check("full read", api_up, "succeeded" if api_up else "failed; `spinner-exporter once` logs why")


def _lists(monitored: MonitoredRuntime) -> Check:
    """Return from which lists the runs are read: that decides how many requests a scrape costs."""
    together, count = monitored.read_together, len(monitored.store.project_ids())
    if together:
        each = f" for {together} of {count} projects; the others are read separately" if together < count else ""
        return Check("lists of runs", True, f"one list of all projects{each}")
    reason = "the runtime has none of all projects, or the config reads few of them"
    if not monitored.client.can_list_all_projects:
        reason = "none of all projects is described (jobs.across)"
    return Check("lists of runs", True, "one list per project" + (f": {reason}" if count > 1 else ""))


def _lists_of_records(monitored: MonitoredRuntime) -> list[Check]:
    """Return from which lists failed records are read."""
    client, has_list = monitored.client, monitored.has_records_of_all_runs
    if not client.has("records"):
        return []
    if has_list or not client.can_list_records_of_a_run:
        found = "one list of all runs"
    elif not client.can_list_records_of_all_runs:
        found = "one list per run: none of all runs is described (records.across)"
    elif has_list is None:
        found = "one list per run: too few runs have new ones to look for a list of all runs"
    else:
        found = "one list per run: the runtime has none of all runs"
    return [Check("lists of failed records", True, found)]


def _ids(samples: Sequence[MetricSample]) -> Check:
    """Return whether each run of a project has an id of its own."""
    if not any(sample.name == "spinner_run_status" for sample in samples):
        return Check("ids of runs", None, "no run was seen")
    shared = sum(
        sample.value
        for sample in samples
        if sample.name == "spinner_exporter_runs_dropped_total" and sample.labels["reason"] == "shared_id"
    )
    if not shared:
        return Check("ids of runs", True, "unique in each project")
    return Check(
        "ids of runs",
        False,
        f"{shared:.0f} ids are those of several runs of a project, of which only one is read; make the id of several "
        "fields, such as join('/', [spinner, id]), and use ref.NAME in paths",
    )


def _samples(page: MetricsPage) -> list[MetricSample]:
    return [sample for family in text_string_to_metric_families(str(page)) for sample in family.samples]


def _requests(samples: Iterable[MetricSample]) -> float:
    return sum(sample.value for sample in samples if sample.name == "spinner_exporter_upstream_requests_total")
