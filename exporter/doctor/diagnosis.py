"""Checks a connection: authentication, clocks, every field, and the expected number of series and requests.

Requests a page of each resource, then reads three times as the exporter does. For each missing field it shows the
effect.
"""

import dataclasses
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample as MetricSample

from exporter.config import Config, Duration
from exporter.config.api_description import FieldSource, ListFilter, Resources, TimeFormat, present
from exporter.doctor.survey import PROJECTS_TRIED, wrong_base
from exporter.errors import ApiError, unforeseen
from exporter.metrics.page import MetricsPage
from exporter.runs.clock import TOLERANCE
from exporter.runs.run import Run
from exporter.runs.runtime_state import counts_as_down, is_ahead
from exporter.runs.store import Store
from exporter.runtime.client import RawResponse, RuntimeClient
from exporter.runtime.codes import OTHER, hidden_id, is_code, is_personal
from exporter.runtime.decoder import MALFORMED, Decoder, RunDefaults
from exporter.runtime.http_client import NoConnectionError, NotFoundError, PausedError, RefusedError
from exporter.runtime.layout import GoneError, NullListError, RawPage, ReportedError
from exporter.runtime.mapping import FIELDS, TEXTS
from exporter.runtime.model import Health, RecordCounts, RunSnapshot
from exporter.runtime.paging import PageInfo
from exporter.runtime.rate_limits import Allowance
from exporter.runtime.statuses import propose
from exporter.service import SCRAPE_INTERVAL, Exporter
from exporter.service.monitored_runtime import MonitoredRuntime, status_map
from exporter.status import Status
from exporter.sync.project_list import ONLY_PROJECT
from exporter.sync.record_lists import NOT_LISTED
from exporter.sync.waiting_records import most_runs

EXAMPLE_LENGTH = 40
"""Characters of an example value that are shown."""

REQUIRED = {
    "health": ("runtime.status",),
    "projects": ("id", "name"),
    "jobs": ("id", "status", "spinnerName"),
    "records": ("id",),
    "usage": ("name", "used"),
}
"""Fields without which an item cannot be used."""

EFFECTS = {
    ("health", "status"): "none",
    ("jobs", "projectId"): "none: the project whose list it is in is used",
    ("records", "jobId"): "none, unless one list has the records of all runs",
    ("records", "projectId"): "none: the run whose id it has is looked for in all projects",
    ("jobs", "spinnerId"): "none, unless two spinners of a project have the same name: they would be one",
    ("jobs", "trigger"): "the label trigger is empty",
    ("jobs", "parentJobId"): "the label parent_run_id is empty",
    ("jobs", "parentRecordId"): "none, unless runs name the record that started them instead of its run",
    ("records", "startedAt"): "a record that begins while its run is silent is noticed only by its id",
    ("records", "attempts"): "that a record is tried again is not noticed while its run is silent",
    ("records", "step.name"): "records in flight and waiting records are named without their step",
    ("records", "step.index"): "records in flight and waiting records are named without the number of their step",
    ("records", "step.startedAt"): "that a record went on to its next step is noticed only by the step's name",
    ("records", "status"): "records cannot be counted, and failed ones cannot be selected from all records",
    ("jobs", "startedAt"): "no duration and no queue time",
    ("jobs", "endedAt"): "updatedAt is used, or the time at which the exporter first sees the end",
    ("jobs", "updatedAt"): "each read of a run counts as a change",
    ("jobs", "createdAt"): "startedAt is used, and there is no queue time",
    (
        "jobs",
        "lastProgressAt",
    ): "the exporter's own observations are used; after its restart an alert can be late by one stall threshold",
    ("jobs", "dueAt"): "a run is overdue when it takes much longer than usual",
    ("jobs", "records.completed"): "no spinner_run_progress_ratio, and no stall detection without lastProgressAt; if "
    "records can be listed, set resources.counts: records",
    ("jobs", "records.total"): "no spinner_run_progress_ratio",
    ("jobs", "records.failed"): "no spinner_run_failed_records, and only completed records count as finished",
    ("jobs", "records.waiting"): "only the run's status shows that it waits for a person",
    (
        "jobs",
        "records.running",
    ): "a run that waits for a person can count as stalled, and the last records of a run get no additional time",
    ("jobs", "records.pending"): 'no spinner_run_records{state="pending"}',
    ("jobs", "failures"): "no spinner_run_failures: failures are not grouped by step and error code",
    ("health", "runtime.lastHeartbeatAt"): "a runtime that is down is noticed only when the API reports it",
    ("health", "runtime.workers"): "no spinner_runtime_workers",
    ("records", "failedStep.name"): "failed records are named without their step",
    ("records", "errorCode"): "failed records are named without their error code",
    ("records", "endedAt"): "the newest failed records cannot be selected",
    ("usage", "resetsAt"): "no forecast of when a meter reaches its limit",
    ("usage", "limit"): "the meter is shown as unlimited",
}
"""The effect when a field that is not required is missing."""

ABSENT_EFFECTS = {
    "health": "no spinner_runtime_up: only runs without progress show that the runtime is down",
    "projects": "all runs belong to one project",
    "job": "a run that no list contains any longer counts as deleted",
    "records": "failed records are not named",
    "usage": "no plan meters, and no alert before PLAN_LIMIT",
}
"""The effect when a deployment does not have a resource."""


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """The result of one check."""

    what: str
    ok: bool | None
    """None if there was nothing to check."""
    finding: str


@dataclasses.dataclass(frozen=True, slots=True)
class FieldFinding:
    """One field in the items of one response."""

    resource: str
    field: str
    found: int
    items: int
    example: str
    effect: str
    """The effect of its absence; empty if it was found, or if no item should have it."""
    instead: str = ""
    """The keys that the items have where the description looks for it; empty if it was found, or is not described."""
    nulls: int = 0
    """Items in which the key is there, and its value null; 0 if the field was found."""


@dataclasses.dataclass(frozen=True, slots=True)
class Diagnosis:
    """The result of all checks."""

    checks: list[Check]
    fields: list[FieldFinding]
    labels: dict[str, str | None]
    """Unknown status labels, each with the status that it most likely means."""
    series: int
    runs: int
    requests_per_hour: float | None
    rate_limit: str = ""
    """What headers say about the API's rate limit."""

    @property
    def ok(self) -> bool:
        """Whether the exporter could serve metrics."""
        return all(check.ok is not False for check in self.checks)

    def as_tree(self) -> dict[str, Any]:
        """Return it as values for JSON."""
        return {"ok": self.ok, **dataclasses.asdict(self)}

    def as_text(self) -> str:
        """Return it as text."""
        lines = [_line(check) for check in self.checks]
        for resource, findings in itertools.groupby(self.fields, key=lambda each: each.resource):
            lines += ["", *_table(resource, list(findings))]
        if self.labels:
            lines += ["", "Unknown status labels; check the proposals and add them to the config:", "statuses:"]
            lines += [f"  {json.dumps(label)}: {status or '# ' + STATUSES}" for label, status in self.labels.items()]
        if self.requests_per_hour is not None:
            lines += [
                "",
                f"About {self.series:,} series for {self.runs:,} runs, and {self.requests_per_hour:,.0f} API requests "
                f"per hour at a scrape interval of {SCRAPE_INTERVAL:g} s while little changes."
                + (f" The API allows {self.rate_limit}." if self.rate_limit else ""),
            ]
        return "\n".join(lines)


_MARKS = {True: "ok  ", False: "FAIL", None: "skip"}

STATUSES = "one of queued, running, waiting, completed, failed, cancelled"


def as_json(diagnoses: Mapping[str, Diagnosis], own: Sequence[Check] = ()) -> str:
    """Return the diagnosis of each runtime, and the checks of the exporter's own files, as JSON."""
    trees = {name: diagnosis.as_tree() for name, diagnosis in diagnoses.items()}
    checks = [dataclasses.asdict(check) for check in own]
    return json.dumps({"ok": are_ok(diagnoses, own), "checks": checks, "runtimes": trees}, indent=2)


def as_text(diagnoses: Mapping[str, Diagnosis], own: Sequence[Check] = ()) -> str:
    """Return the same as text."""
    parts = [f"runtime {name}\n{diagnosis.as_text()}" for name, diagnosis in diagnoses.items()]
    if own:
        parts.append("\n".join(["exporter", *map(_line, own)]))
    return "\n\n".join(parts)


def are_ok(diagnoses: Mapping[str, Diagnosis], own: Sequence[Check] = ()) -> bool:
    """Whether the exporter could serve the metrics of each runtime."""
    return all(diagnosis.ok for diagnosis in diagnoses.values()) and all(check.ok is not False for check in own)


def _line(check: Check) -> str:
    return f"{_MARKS[check.ok]}  {check.what}: {check.finding}"


async def examine(config: Config) -> Diagnosis:
    """Check a connection, whatever the API does. Raises `ConfigError` for an invalid config."""
    # The second read follows immediately.
    sync = msgspec.structs.replace(config.sync, min_interval=Duration(0))
    exporter = Exporter({config.runtime.label: msgspec.structs.replace(config, sync=sync)})
    try:
        return await _examine(config, exporter)
    finally:
        await exporter.close()


async def _examine(config: Config, exporter: Exporter) -> Diagnosis:
    (monitored,) = exporter.runtimes.values()
    examination = _Examination(config, monitored.client, monitored.decoder)
    await examination.run()
    checks, series, runs, requests = examination.checks, 0, 0, None
    if all(check.ok is not False for check in checks):
        # The first read finds the runs, and the second finds out whether there is one list of them all.
        await exporter.page(max_wait=float("inf"))
        first = _samples(await exporter.page(max_wait=float("inf")))
        second = _samples(await exporter.page(max_wait=float("inf")))
        full_read = _full_read(second, monitored.store)
        checks += (
            [full_read, _lists(monitored), *_lists_of_records(monitored), _ids(second)] if full_read.ok else [full_read]
        )
        if full_read.ok:
            await examination.record_lists(monitored)
        # The first page of a list need not have all labels.
        examination.note_labels(
            sample.labels["label"] for sample in second if sample.name == "spinner_exporter_unmapped_status_total"
        )
        # A read that failed shows only some of the series and of the requests.
        if full_read.ok:
            series = len(second)
            runs = sum(sample.name == "spinner_run_status" for sample in second)
            steady = _requests(second) - _requests(first)
            requests = steady * 3600 / max(SCRAPE_INTERVAL, config.sync.min_interval)
            if monitored.client.has("projects"):
                requests += 3600 / max(config.sync.projects_interval, SCRAPE_INTERVAL)
    limit = examination.allowance
    if limit is not None and limit.per_hour is not None and requests is not None:
        checks.append(Check("rate limit", requests <= limit.per_hour, f"the API allows {limit}"))
    told = "" if limit is None else str(limit)
    return Diagnosis(checks, examination.fields, examination.labels, series, runs, requests, told)


def _full_read(samples: Iterable[MetricSample], store: Store) -> Check:
    """Return whether everything could be read. The API counts as up even if some projects cannot be read."""
    errors = {project.name: project.error for project in store.view.projects() if project.error}
    if errors:
        name, error = min(errors.items())
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


def _ids(samples: Iterable[MetricSample]) -> Check:
    """Return whether each run of a project has an id of its own."""
    samples = list(samples)
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


class _Examination:
    def __init__(self, config: Config, client: RuntimeClient, decoder: Decoder) -> None:
        self._config = config
        self._client = client
        self._decoder = decoder
        self._statuses = self._record_statuses = status_map(config)
        records = present(config.runtime.resources).get("records")
        if records is not None:
            own = {label: Status(status) for label, status in records.statuses.items()}
            self._record_statuses = self._statuses.extended(own)
        self._not_found = self._has_responded = False
        """Whether a request was answered with 404, and whether one was answered otherwise."""
        self._silent_about: dict[str, str] = {}
        """Why a connection failed, with the first resource that it failed for."""
        self.checks: list[Check] = []
        self.fields: list[FieldFinding] = []
        self.labels: dict[str, str | None] = {}
        self._expects_heartbeats = False
        self.allowance: Allowance | None = None
        """The last rate limit that headers reported."""

    async def run(self) -> None:
        clock_seen = False
        for resource in ("health", "projects"):
            sample = await self._check(resource)
            if sample is not None and not clock_seen:
                clock_seen = self._clock(sample)
        self.checks += local_times(self._config.runtime.resources)
        projects = await self._projects()
        run = None
        if not projects:
            self._skip("the projects cannot be read" if projects is None else "there is no project to read", "jobs")
            why = "no run can be read" if projects is None else "there is no run"
        else:
            run, why = await self._run_of(projects)
        if run is not None:
            await self._check("job", run)
            await self._check("records", run)
        else:
            self._skip(why, "job", "records")
        await self._check("usage")
        if self._not_found and not self._has_responded:
            self.checks.append(Check("base_url", None, wrong_base(self._config)))

    def _skip(self, why: str, *resources: str) -> None:
        self.checks += [Check(each, None, f"not requested: {why}") for each in resources if self._client.has(each)]

    async def _check(
        self, resource: str, run: RunSnapshot | None = None, *, project_id: str = ""
    ) -> RawResponse | None:
        """Request a resource, record the result, and return the response."""
        if not self._client.has(resource):
            self.checks.append(Check(resource, True, f"absent: {ABSENT_EFFECTS[resource]}"))
            return None
        try:
            sample = await self._client.raw_response(resource, run, project_id=project_id)
            self._has_responded = True
            explanation = self._decoder.explain(resource, sample.body)
        except PausedError as error:
            # What failed before is the cause, and its check has failed.
            self.checks.append(Check(resource, None, str(error).removeprefix(f"{resource}: ")))
            return None
        except (ApiError, *MALFORMED) as error:
            line = self._client.request_line(resource, run, project_id=project_id)
            self._not_found |= isinstance(error, NotFoundError)
            self._has_responded |= not isinstance(error, NotFoundError)
            self.checks.append(self._failure(resource, error, line))
            return None
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
            self.checks.append(Check(resource, False, unforeseen(error)))
            return None
        self.allowance = sample.allowance or self.allowance
        items, skipped, page = explanation.items, explanation.skipped, explanation.page
        finding = "responds" if resource in ("health", "job") else f"{page.count} items in the first response"
        if page.count != len(page.items):
            finding += f", of which items selects {len(page.items)}"
        if skipped:
            reason = self._in_words(resource, skipped[0])
            if len(skipped) < len(page.items):
                finding += f"; {len(skipped)} would be skipped: {reason}; {len(page.items) - len(skipped)} are left"
            else:
                what = "responds with what is not usable" if finding == "responds" else ""
                finding = f"{what or f'none of {len(page.items)} items is usable'}: {reason}"
        for field, count in explanation.ignored.most_common():
            finding += f"; {field} of {count} cannot be right and would be ignored"
        ok: bool | None = len(skipped) < max(len(page.items), 1)
        if resource == "health" and ok:
            ok, told = self._health(sample, items)
            finding = told + finding.removeprefix("responds")
        if self._client.paging(resource).style == "cursor" and _URL.match(explanation.page.cursor or ""):
            ok, finding = False, f"{finding}; the next page is a URL: use paging: {{style: link, next: …}}"
        elif ok and resource in ("projects", "jobs", "records"):
            goes_on, more = await self._second_page(resource, run, sample, explanation.page, project_id=project_id)
            ok, finding = ok and goes_on, finding + more
        if ok and not page.items:
            ok, finding = None, f"{finding}; without one, its fields are not checked"
        self.checks.append(Check(resource, ok, finding))
        if resource != "job" and page.items:
            self.fields += self._findings(resource, items, page.items)
        if resource == "jobs":
            self.note_labels(label for item in items if isinstance(label := item.get("status"), str))
        return sample

    def _in_words(self, resource: str, reason: str) -> str:
        """Return why an item cannot be used; of a field that is missing, also what to change."""
        found = re.fullmatch(r"Object missing required field `(\w+)`", reason)
        if found is None:
            return reason
        is_described = found[1] in present(self._config.runtime.resources)[resource].fields
        what = f"fields.{found[1]} finds nothing" if is_described else f"map it under fields.{found[1]}"
        return f"`{found[1]}` is missing ({what})"

    def _failure(self, resource: str, error: Exception, line: str) -> Check:
        """Return the failed check of a resource that could not be read. One cause fails one check."""
        what = str(error).removeprefix(f"{resource}: ")
        if not isinstance(error, (ApiError, ReportedError, GoneError)):
            what = f"the response does not match its description: {what}"
        if isinstance(error, NoConnectionError):
            first = self._silent_about.setdefault(what, resource)
            if first != resource:
                return Check(resource, None, f"not checked: {what}, as for {first}")
        return Check(resource, False, f"{what} ({line})")

    async def _second_page(
        self, resource: str, run: RunSnapshot | None, first: RawResponse, page: RawPage, *, project_id: str
    ) -> tuple[bool, str]:
        """Return whether the list can be read further, and what the second page shows about its paging."""
        info = PageInfo(page.count, page.cursor, first.link, page.total, page.more, page.pages)
        try:
            second = await self._client.second_page(resource, run, info, project_id=project_id)
            if second is None:
                return True, ""
            if isinstance(second, int):
                return True, f"; the second page is HTTP {second}, which ends the list"
            following = self._decoder.explain(resource, second.body).page
        except NullListError:
            return True, "; the second page is empty"
        except ApiError as error:
            return False, f"; the second page fails: {str(error).removeprefix(f'{resource}: ')}"
        except MALFORMED as error:
            return False, f"; the second page does not match its description: {error}"
        return self._compare(resource, page, following)

    def _compare(self, resource: str, first: RawPage, second: RawPage) -> tuple[bool, str]:
        paging = self._client.paging(resource)
        is_counted = paging.style in ("page", "offset")
        if not second.count:
            return True, "; the second page is empty"
        if first.items == second.items:
            ignored = f"; the second page repeats the first: the API ignores {paging.parameter or 'what selects it'}"
            is_whole = is_counted and first.count < paging.size
            return is_whole, ignored + (", or there is only one" if is_whole else "")
        finding = f", {second.count} in the second"
        if is_counted and first.count < paging.size:
            finding += f"; its pages have {first.count} items, not {paging.size} (paging.size)"
        return True, finding

    def _health(self, sample: RawResponse, items: list[dict[str, Any]]) -> tuple[bool, str]:
        """Return whether health can be used, and the finding. Without its required field the runtime is always down."""
        if not any(items):
            return False, "responds with none of the fields, so that it is not known whether the runtime is up"
        health = self._decoder.health(sample.body, sample.date)
        self._expects_heartbeats = health.beats
        missing = [field for field in REQUIRED["health"] if not any(field in item for item in items)]
        if missing:
            return False, f"responds without {', '.join(missing)}, so the runtime counts as down"
        told = {str(item["runtime.status"]) for item in items if "runtime.status" in item}
        if unknown := sorted(told - {"up", "down"}):
            shown = json.dumps(_example("runtime.status", unknown), ensure_ascii=False)
            return False, (
                f"responds; runtime.status is {shown}, neither up nor down, so the runtime counts as down: add labels, "
                f"such as {{{shown}: up}}"
            )
        says_up = told == {"up"} and not any(item.get("status") == "down" for item in items)
        timeout, now = self._config.runtime.heartbeat_timeout, sample.local_time if sample.date is None else sample.date
        heartbeat = self._heartbeat(health, now, is_told=any("runtime.lastHeartbeatAt" in item for item in items))
        if not counts_as_down(health, now, heartbeat_timeout=timeout):
            warning = "warning: " if health.last_heartbeat_at and is_ahead(health.last_heartbeat_at, now) else ""
            return True, f"responds; {warning}the runtime is up{heartbeat}"
        if not says_up:
            return True, f"responds; the runtime is down{heartbeat}"
        return False, (
            f"responds; the runtime says that it is up{heartbeat}; after {timeout:g} s without a heartbeat "
            "(runtime.heartbeat_timeout) it counts as down: the worker service has stopped, or the description of "
            "runtime.lastHeartbeatAt is wrong, such as its zone"
        )

    def _heartbeat(self, health: Health, now: float, *, is_told: bool) -> str:
        """Return what to say of the last heartbeat; empty if none is described. `now` is the runtime's time."""
        if not health.beats:
            return ""
        if health.last_heartbeat_at is None:
            return f"; runtime.lastHeartbeatAt {'cannot be right and is ignored' if is_told else 'is missing'}"
        age = f"; its last heartbeat is {_age(now - health.last_heartbeat_at)}"
        if is_ahead(health.last_heartbeat_at, now):
            return f"{age}, so how old it is is not known: check the zone and the unit of runtime.lastHeartbeatAt"
        return age

    def _findings(self, resource: str, items: list[dict[str, Any]], raw: Sequence[Any]) -> Iterator[FieldFinding]:
        for field in sorted(FIELDS[resource], key=lambda each: (each not in REQUIRED[resource], each)):
            values = [item[field] for item in items if field in item]
            expected = [item for item in items if self._should_have(resource, field, item)]
            effect = "" if values or not expected else EFFECTS.get((resource, field), "required")
            if effect and field == "runtime.lastHeartbeatAt" and self._expects_heartbeats:
                effect = "the runtime counts as down"
            if not values and (substitute := self._substitute(resource, field)):
                effect = substitute
            path = self._path(resource, field)
            nulls = sum(_is_null(item, path) for item in raw) if path is not None and not values else 0
            instead = self._instead(resource, field, path, raw) if effect and nulls < len(raw) else ""
            if not effect and not values:
                effect = f"none: {_ONLY[resource, field]}"
            yield FieldFinding(resource, field, len(values), len(raw), _example(field, values), effect, instead, nulls)

    def _path(self, resource: str, field: str) -> str | None:
        """Return where the description looks for a field; None if it does not."""
        described = present(self._config.runtime.resources)[resource].fields
        source = described.get(field, None if described else field)
        return source.path if isinstance(source, FieldSource) else source

    def _instead(self, resource: str, field: str, path: str | None, raw: Sequence[Any]) -> str:
        """Return the keys of items where the description looks for a field; empty if it does not."""
        if path is None:
            return _keys_of(raw, "") if field in REQUIRED[resource] else ""
        return _keys_of(raw, path)

    def _substitute(self, resource: str, field: str) -> str:
        """Return what is used instead of a missing field of runs; empty for nothing."""
        if resource != "jobs":
            return ""
        if field == "spinnerName" and self._client.has("projects"):
            return "none: the project's name is used"
        if field == "records.total" and not self._config.runtime.resources.tells_total:
            return "described as unknown: no spinner_run_progress_ratio while a run goes on"
        counted = field == "lastProgressAt" or field.startswith(("records.", "failures"))
        return "none: it is counted from the records" if counted and self._client.counts_records else ""

    def _should_have(self, resource: str, field: str, item: dict[str, Any]) -> bool:
        """Whether an item should have a field: an open one has no end, and one that did not fail no error."""
        statuses = self._record_statuses if resource == "records" else self._statuses
        status = statuses.status_for(str(item.get("status", "")))
        if (resource, field) == ("jobs", "endedAt"):
            return status.ended
        if resource == "records" and field in ("failedStep.name", "errorCode"):
            return status is Status.FAILED
        if resource == "records" and field == "endedAt":
            return status.ended
        if (resource, field) == ("records", "attempts"):
            return status is Status.RUNNING
        if resource == "records" and field.startswith("step."):
            return status in (Status.RUNNING, Status.WAITING)
        return not (resource == "jobs" and field == "startedAt" and status is Status.QUEUED)

    def _clock(self, sample: RawResponse) -> bool:
        if sample.date is None:
            return False
        difference = sample.date - sample.local_time
        direction = "ahead of" if difference > 0 else "behind"
        finding = f"the API's clock is {abs(difference):.0f} s {direction} this one; the exporter corrects for it"
        if abs(difference) <= TOLERANCE:
            finding = "in sync"
        self.checks.append(Check("clocks", True, finding))
        return True

    async def _projects(self) -> list[tuple[str, str]] | None:
        """Return id and name of the projects to read; None if their list cannot be read."""
        if not self._client.has("projects"):
            return [(ONLY_PROJECT, self._config.runtime.project)]
        found: list[tuple[str, str]] = []
        try:
            async for page in self._client.projects():
                found += [(project.id, project.name) for project in page.items]
        except ApiError:
            return None  # `_check` has reported it
        wanted = [(each, name) for each, name in found if self._config.projects.wanted(name)]
        self.checks.append(Check("projects to read", bool(wanted), f"{len(wanted)} of {len(found)}"))
        return wanted[:PROJECTS_TRIED]

    async def _run_of(self, projects: Sequence[tuple[str, str]]) -> tuple[RunSnapshot | None, str]:
        """Check the runs of the first project that has some, and return one of them; else why there is none."""
        for project_id, name in projects:
            before = len(self.checks)
            sample = await self._check("jobs", project_id=project_id)
            if sample is None:
                return None, "no run can be read"
            try:
                runs = self._decoder.jobs(sample.body, RunDefaults(project_id, name, sample.date)).items
            except MALFORMED:
                return None, "no run can be read"
            if runs:
                if not self._client.counts_records:
                    self.checks.append(stall_detection(runs))
                return max(runs, key=_failed), ""
            if self.checks[-1].ok is False:
                return None, "no run can be read"
            # The next project may have runs.
            del self.checks[before:]
        where = projects[0][1] if len(projects) == 1 else f"{len(projects)} projects, such as {projects[0][1]}"
        self.checks.append(Check("jobs", None, f"no run in {where}; without one, fields and statuses are not checked"))
        return None, "there is no run"

    async def record_lists(self, monitored: MonitoredRuntime) -> None:
        """Check the lists that are restricted to records of one status, each with a run that has such records."""
        records = present(self._config.runtime.resources).get("records")
        if records is None:
            return
        store = monitored.store
        runs = [run for project_id in store.project_ids() for run in store.runs_of(project_id).values()]
        if self._client.can_list_records_of_a_run:
            if records.failed is not None:
                await self._record_list("failed records", records.failed, Status.FAILED, runs)
            if records.running is not None:
                await self._record_list("records in flight", records.running, Status.RUNNING, runs)
        if why := self._why_not_waiting(monitored):
            self.checks.append(Check("waiting records", True, f"how many wait is shown, and not which: {why}"))
        elif records.waiting is not None:
            await self._record_list("waiting records", records.waiting, Status.WAITING, runs)

    def _why_not_waiting(self, monitored: MonitoredRuntime) -> str:
        """Return why it is not read which records wait; empty if it may be."""
        if not self._client.can_list_waiting_records:
            return "no list of them is described (records.waiting)"
        if not most_runs(self._config):
            return "the limits allow none"
        return "the runtime does not list them" if monitored.lists_waiting_records is False else ""

    async def _record_list(self, what: str, restriction: ListFilter, status: Status, runs: Iterable[Run]) -> None:
        """Check whether a list has the records of one status, and no others."""
        having = [run for run in runs if _has_some(run, status)]
        if not having:
            self.checks.append(Check(what, None, f"no run has any now: {NOT_CHECKED}"))
            return
        # One that has others too shows whether the API selects.
        chosen = max(having, key=lambda each: _others(each.records, status))
        run = chosen.snapshot
        line = self._client.request_line("records", run, project_id=run.project_id)
        try:
            sample = await self._client.raw_response("records", run, project_id=run.project_id, restriction=restriction)
            items = self._decoder.explain("records", sample.body).items
        except (ApiError, *MALFORMED) as error:
            reason = str(error).removeprefix("records: ")
            is_missing = isinstance(error, RefusedError) and error.status in (*NOT_LISTED, 404)
            if status is not Status.FAILED and is_missing:
                self.checks.append(Check(what, None, f"the runtime does not list them: {reason} ({line})"))
            else:
                self.checks.append(Check(what, False, f"cannot be read: {reason} ({line})"))
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
            self.checks.append(Check(what, False, unforeseen(error)))
            return
        self.checks.append(self._told(what, status, items, is_mixed=_others(chosen.records, status) > 0))

    def _told(self, what: str, status: Status, items: Sequence[Mapping[str, Any]], *, is_mixed: bool) -> Check:
        """Return what the items of a list of records of one status show about it."""
        found = Counter(self._record_statuses.status_for(str(item["status"])) for item in items if "status" in item)
        # Some APIs count what was cancelled among what failed.
        wanted = (status, Status.UNKNOWN, *((Status.CANCELLED,) if status is Status.FAILED else ()))
        others = [each.value for each, _ in found.most_common() if each not in wanted]
        key = {Status.FAILED: "failed", Status.RUNNING: "running", Status.WAITING: "waiting"}[status]
        if not items:
            return Check(what, None, f"the list is empty, although a run has some: {NOT_CHECKED}")
        if others:
            effect = "would be named as failed" if status is Status.FAILED else "are not shown, and cost requests"
            finding = (
                f"the filter seems to be ignored: records of other statuses came back ({', '.join(others)}), which "
                f"{effect}; describe the API's filter, or set records.{key}: ~"
            )
            return Check(what, False if status is Status.FAILED else None, finding)
        if not found[status]:
            return Check(what, None, f"none of {len(items)} says that its status is {status.value}: {NOT_CHECKED}")
        unseen = "" if is_mixed else f"; no run with others was seen, so {NOT_CHECKED}"
        return Check(what, True, f"listed by the runtime{unseen}")

    def note_labels(self, labels: Iterable[str]) -> None:
        """Note the unknown ones of these status labels."""
        for label in sorted({*labels} - {"other"}):
            if self._statuses.status_for(label) is Status.UNKNOWN and not is_personal(label):
                proposed = propose(label)
                self.labels[label] = None if proposed is None else proposed.value


NOT_CHECKED = "whether the API selects them is not checked"


def _failed(run: RunSnapshot) -> int:
    return (run.records.failed or 0) if run.records else 0


def _has_some(run: Run, status: Status) -> bool:
    """Whether some of a run's records have a status: as their number says, or the run's where no number is told."""
    number: int | None = getattr(run.records, status.value)
    return run.status is status if number is None else number > 0


def _others(counts: RecordCounts, status: Status) -> int:
    """Return how many records have another status, as far as is known."""
    numbers = {name: getattr(counts, name) or 0 for name in ("pending", "running", "waiting", "completed", "failed")}
    own = numbers.pop(status.value)
    return max((counts.total or 0) - own, sum(numbers.values()))


def _age(seconds: float) -> str:
    """Return when something was, such as `12 s ago` or `5.5 h in the future`."""
    size, unit = next(((size, unit) for size, unit in _UNITS if abs(seconds) >= 2 * size), (1.0, "s"))
    number = round(abs(seconds) / size, 1 if size >= 3600 else None)
    return f"{number:g} {unit} {'in the future' if seconds < 0 and number else 'ago'}"


_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


_IN_STEP = "only records in flight and waiting ones have one"

_ONLY = {
    ("jobs", "endedAt"): "only runs that have ended have one",
    ("jobs", "startedAt"): "only runs that have started have one",
    ("records", "endedAt"): "only records that have ended have one",
    ("records", "failedStep.name"): "only failed records have one",
    ("records", "errorCode"): "only failed records have one",
    ("records", "attempts"): "only records in flight have one",
    ("records", "step.name"): _IN_STEP,
    ("records", "step.index"): _IN_STEP,
    ("records", "step.startedAt"): _IN_STEP,
}
"""Which items have a field that not all items should have."""


def _steps(path: str) -> list[str]:
    """Return the keys of a path of keys alone; none of any other expression."""
    return [step.strip('"') for step in path.split(".")] if re.fullmatch(r'[\w".-]+', path) else []


def _is_null(item: Any, path: str) -> bool:
    """Whether an item has the key at a path, with null as its value."""
    *above, last = _steps(path) or [""]
    for step in above:
        item = item.get(step) if isinstance(item, dict) else None
    return isinstance(item, dict) and last in item and item[last] is None


def _keys_of(items: Sequence[Any], path: str) -> str:
    """Return the keys of the deepest mapping on a path to a value that is missing."""
    steps = _steps(path)
    found: dict[str, None] = {}
    place = ""
    for item in items:
        at, here = item, list[str]()
        for step in steps:
            if not isinstance(at, dict) or not isinstance(at.get(step), dict):
                break
            at, here = at[step], [*here, step]
        if isinstance(at, dict) and not (steps and at.get(steps[-1]) is not None):
            place = ".".join(here)
            found |= dict.fromkeys(str(key) for key in at if is_code(str(key)))
    names = list(found)
    more = f" and {len(names) - MAX_KEYS} more" if len(names) > MAX_KEYS else ""
    return f"{place or 'the items'} {'has' if place else 'have'} {', '.join(names[:MAX_KEYS])}{more}" if names else ""


MAX_KEYS = 12
"""Keys of items that are named."""

_URL = re.compile(r"https?://|/[^?\s]*\?")


def local_times(resources: Resources) -> Iterator[Check]:
    """Say which times are ambiguous for an hour of each year."""
    ambiguous = [
        (f"{name}.{field}", zone)
        for name, resource in present(resources).items()
        for field, source in resource.fields.items()
        if isinstance(source, FieldSource) and (zone := _local_zone(source)) is not None and _has_summer_time(zone)
    ]
    if ambiguous:
        fields = ", ".join(field for field, _ in ambiguous)
        zones = ", ".join(sorted({zone for _, zone in ambiguous}))
        yield Check(
            "local times",
            True,
            f"warning: {fields} have no offset and are read as {zones}; in the hour that comes twice when daylight "
            "saving time ends they can be wrong by an hour; let the API send UTC or an offset if it can",
        )


def _local_zone(source: FieldSource) -> str | None:
    """Return the time zone of times without an offset; None for others."""
    convert = source.convert
    if isinstance(convert, TimeFormat):
        return None if convert.has_offset else convert.zone or source.zone
    return source.zone if convert == "local" else None


def _has_summer_time(zone: str) -> bool:
    year = datetime.now(UTC).year
    return len({datetime(year, month, 1, tzinfo=ZoneInfo(zone)).utcoffset() for month in range(1, 13)}) > 1


def stall_detection(runs: Sequence[RunSnapshot]) -> Check:
    """Say for which runs nothing shows whether they make progress."""
    # What a queued run does not show it may show once it has started.
    blind = [run for run in runs if not _shows_progress(run) and run.started_at is not None]
    if not blind and not any(_shows_progress(run) or run.started_at is not None for run in runs):
        return Check("stall detection", None, "no run in the first response has started")
    if not blind:
        return Check("stall detection", True, "possible")
    names = sorted({run.spinner for run in blind})
    more = f" and {len(names) - NAMED_SPINNERS} more" if len(names) > NAMED_SPINNERS else ""
    spinners = ", ".join(names[:NAMED_SPINNERS]) + more
    finding = (
        f"no record counts: no progress and no stall detection for {len(blind)} of {len(runs)} runs in the first "
        f"response, of {spinners}; their status, duration and expected interval are watched"
    )
    return Check("stall detection", None, finding)


def _shows_progress(run: RunSnapshot) -> bool:
    return run.last_progress_at is not None or bool(run.records and run.records.finished is not None)


NAMED_SPINNERS = 3
"""Spinners that a finding names."""


def _samples(page: MetricsPage) -> list[MetricSample]:
    return [sample for family in text_string_to_metric_families(str(page)) for sample in family.samples]


def _requests(samples: Iterable[MetricSample]) -> float:
    return sum(sample.value for sample in samples if sample.name == "spinner_exporter_upstream_requests_total")


def _example(field: str, values: list[Any]) -> str:
    if not values:
        return ""
    texts = (_shown(field, value) for value in values)
    common = Counter(texts).most_common(1)[0][0]
    plain = "".join(character if character.isprintable() else " " for character in common)
    return plain if len(plain) <= EXAMPLE_LENGTH else plain[: EXAMPLE_LENGTH - 1] + "…"


def _shown(field: str, value: Any) -> str:
    """Return a value without personal data: only what could become a label or a number is shown of it."""
    if field == "failures" and isinstance(value, list):
        groups = [
            {key: _shown(key, each[key]) for key in ("step", "errorCode", "count") if key in each}
            for each in value
            if isinstance(each, dict)
        ]
        return json.dumps(groups, ensure_ascii=False)
    if isinstance(value, dict | list):
        return "a mapping of keys" if isinstance(value, dict) else "a list"
    if not isinstance(value, str):
        return str(value)
    if field in ("errorCode", "trigger"):
        return value if is_code(value) else OTHER
    if field in TEXTS or field in ("step", "status"):
        return hidden_id(value) if field.lower().endswith("id") else OTHER if is_personal(value) else value
    return value if _TIME_OR_NUMBER.fullmatch(value) and not is_personal(value) else "text"


_TIME_OR_NUMBER = re.compile(r"[\d:.,+ -]*(T|days?)?[\d:.,+ -]*Z?", re.IGNORECASE)


def _table(resource: str, findings: list[FieldFinding]) -> list[str]:
    rows = [
        (
            each.field,
            f"null in all {each.items}" if each.nulls == each.items else f"{each.found} of {each.items}",
            each.example,
            each.effect,
        )
        for each in findings
    ]
    head = (resource, "found", "example", "effect when missing")
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(3)]
    # Of a field that can be missing without an effect, nobody looks for the key.
    keys = dict.fromkeys(each.instead for each in findings if each.instead and not each.effect.startswith("none"))
    return [
        *(
            "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[3]]).rstrip()
            for line in (head, *rows)
        ),
        *(f"{resource}: {each}" for each in keys),
    ]
