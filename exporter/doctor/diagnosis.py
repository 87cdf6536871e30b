"""Looks a connection over before it is relied on: is it let in, is every field there, what will it cost?

It reads what the exporter would read, once and once more, and says of everything that is missing what that costs.
"""

import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample as MetricSample

from exporter.config import Config, Duration
from exporter.doctor.suggest import fields_of, from_answers
from exporter.errors import ApiError
from exporter.metrics.page import MetricsPage
from exporter.runtime.client import RawResponse, RuntimeClient
from exporter.runtime.decoder import MALFORMED, Decoder, RunDefaults
from exporter.runtime.mapping import FIELDS
from exporter.runtime.model import RunSnapshot
from exporter.runtime.statuses import propose
from exporter.service import SCRAPE_INTERVAL, Exporter
from exporter.service.monitored_runtime import status_map
from exporter.status import Status
from exporter.sync.project_list import ONLY_PROJECT

CLOCK_TOLERANCE = 5.0
"""Seconds that the clocks may differ before it is worth a word; any difference is corrected."""

EXAMPLE_LENGTH = 40
"""Characters of an example value that are shown."""

REQUIRED = {
    "health": ("runtime.status",),
    "projects": ("id", "name"),
    "jobs": ("id", "status", "spinnerName"),
    "records": ("id",),
    "usage": ("name", "used"),
}
"""Fields without which an item is of no use."""

COSTS = {
    ("jobs", "startedAt"): "no duration and no time in the queue",
    ("jobs", "endedAt"): "a run's end is dated by updatedAt, or by when the exporter sees it",
    ("jobs", "updatedAt"): "every read of a run counts as a change of it",
    ("jobs", "createdAt"): "startedAt stands for it, and there is no time in the queue",
    (
        "jobs",
        "lastProgressAt",
    ): "stalls are timed from what the exporter sees; a restart of it delays a page by at most one threshold",
    ("jobs", "records.completed"): "no progress, and so no stall can be seen; where records can be listed, say "
    "resources.counts: records",
    ("jobs", "records.total"): "no spinner_run_progress_ratio",
    ("jobs", "records.failed"): "failed records are not counted",
    ("jobs", "records.waiting"): "a wait for a person is known by the run's status alone",
    ("jobs", "records.running"): "the last records of a run are given no more time than others",
    ("jobs", "records.pending"): 'no spinner_run_records{state="pending"}',
    ("jobs", "failures"): "no spinner_run_failures: failures are not told apart by step and error",
    ("health", "runtime.lastHeartbeatAt"): "a runtime that dies is noticed only when the API says so",
    ("health", "runtime.workers"): "no spinner_runtime_workers",
    ("records", "failedStep.name"): "failed records are named without their step",
    ("records", "errorCode"): "failed records are named without their error",
    ("records", "endedAt"): "which failed records are the newest is not known",
    ("usage", "resetsAt"): "no forecast of when a meter is full",
    ("usage", "limit"): "a meter without a limit is shown as unlimited",
}
"""What it costs when a field is not there; of those that are not here nothing depends on it."""

ABSENT_COSTS = {
    "health": "no spinner_runtime_up: a runtime that is down shows only in runs that stand still",
    "projects": "everything is one project",
    "job": "a run that is in no list any more is taken for gone",
    "records": "failed records are not named",
    "usage": "no plan meters, and no alert before PLAN_LIMIT",
}
"""What it costs when a deployment lacks a resource."""


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    what: str
    ok: bool
    finding: str


@dataclasses.dataclass(frozen=True, slots=True)
class FieldFinding:
    """One field of ours, in the items of one answer."""

    resource: str
    field: str
    found: int
    items: int
    example: str
    cost: str
    """What it costs that it is missing; empty where it was found, or where nothing depends on it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that was found."""

    checks: list[Check]
    fields: list[FieldFinding]
    labels: dict[str, str | None]
    """Status labels that nobody knows, and the idea that each most likely stands for."""
    series: int
    runs: int
    requests_per_hour: float | None

    @property
    def ok(self) -> bool:
        """Whether the exporter would serve."""
        return all(check.ok for check in self.checks)

    def as_tree(self) -> dict[str, Any]:
        """Return it for machines."""
        return {"ok": self.ok, **dataclasses.asdict(self)}

    def as_text(self) -> str:
        """Return it for people."""
        lines = [f"{'ok  ' if check.ok else 'FAIL'}  {check.what}: {check.finding}" for check in self.checks]
        for resource, findings in itertools.groupby(self.fields, key=lambda each: each.resource):
            lines += ["", *_table(resource, list(findings))]
        if self.labels:
            lines += ["", "Status labels that nobody knows; put them into the config, corrected:", "statuses:"]
            lines += [f"  {json.dumps(label)}: {idea or '# ' + IDEAS}" for label, idea in self.labels.items()]
        if self.requests_per_hour is not None:
            lines += [
                "",
                f"About {self.series:,} series now, of {self.runs:,} runs, and {self.requests_per_hour:,.0f} "
                f"requests to the API in an hour when it is scraped every {SCRAPE_INTERVAL:g} s and little changes.",
            ]
        return "\n".join(lines)


IDEAS = "one of queued, running, waiting, completed, failed, cancelled"


def as_json(diagnoses: Mapping[str, Diagnosis]) -> str:
    """Return what was found of each runtime for machines; the one of a config that has just one stands alone."""
    if "" in diagnoses:
        return json.dumps(diagnoses[""].as_tree(), indent=2)
    trees = {name: diagnosis.as_tree() for name, diagnosis in diagnoses.items()}
    return json.dumps({"ok": all(each.ok for each in diagnoses.values()), "runtimes": trees}, indent=2)


def as_text(diagnoses: Mapping[str, Diagnosis]) -> str:
    """Return the same for people."""
    heads = {name: f"runtime {name}\n" if name else "" for name in diagnoses}
    return "\n\n".join(heads[name] + diagnosis.as_text() for name, diagnosis in diagnoses.items())


async def examine(config: Config) -> Diagnosis:
    """Look a connection over, whatever the API does. Raises `ConfigError` for a config that cannot be followed."""
    # The second read has to come at once.
    sync = msgspec.structs.replace(config.sync, min_interval=Duration(0))
    exporter = Exporter({"": msgspec.structs.replace(config, sync=sync)})
    try:
        return await _examine(config, exporter)
    finally:
        await exporter.close()


async def suggest_from_answers(config: Config) -> str:
    """Return a config whose fields are guessed from what the described requests answer. Raises `SuggestError`."""
    exporter = Exporter({"": config})
    try:
        client, decoder = exporter.runtimes[""].client, exporter.runtimes[""].decoder
        answers: dict[str, list[Any]] = {}
        project, run = ONLY_PROJECT, None
        for resource in ("health", "projects", "jobs", "records", "usage"):
            if not client.has(resource) or (resource == "records" and run is None):
                continue
            try:
                sample = await client.raw_response(resource, run if resource == "records" else None, project_id=project)
                answers[resource] = decoder.raw_items(resource, sample.body)
            except (ApiError, *MALFORMED):
                continue  # what cannot be asked for is the doctor's to say
            if resource == "projects":
                project = _first_id(answers[resource]) or ONLY_PROJECT
            elif resource == "jobs" and (run_id := _first_id(answers[resource])):
                run = RunSnapshot(run_id, project, "", "", "", Status.UNKNOWN, 0.0, 0.0)
        return from_answers(config.runtime.base_url, answers)
    finally:
        await exporter.close()


def _first_id(items: list[Any]) -> str:
    """Return the first item's id, by whatever name it has; empty where it has none."""
    name = fields_of("projects", items).get("id")
    return str(items[0].get(name) or "") if name and isinstance(items[0], dict) else ""


async def _examine(config: Config, exporter: Exporter) -> Diagnosis:
    examination = _Examination(config, exporter.runtimes[""].client, exporter.runtimes[""].decoder)
    await examination.run()
    checks, series, runs, requests = examination.checks, 0, 0, None
    if all(check.ok for check in checks):
        first = _samples(await exporter.page(patience=float("inf")))
        second = _samples(await exporter.page(patience=float("inf")))
        api_up = any(sample.name == "spinner_api_up" and sample.value == 1 for sample in second)
        checks.append(
            Check("a whole read", api_up, "as the exporter does it" if api_up else "failed; see the log above")
        )
        series = len(second)
        runs = sum(sample.name == "spinner_run_status" for sample in second)
        steady = _requests(second) - _requests(first)
        requests = steady * 3600 / max(SCRAPE_INTERVAL, config.sync.min_interval)
    return Diagnosis(checks, examination.fields, examination.labels, series, runs, requests)


class _Examination:
    def __init__(self, config: Config, client: RuntimeClient, decoder: Decoder) -> None:
        self._config = config
        self._client = client
        self._decoder = decoder
        self._statuses = status_map(config)
        self.checks: list[Check] = []
        self.fields: list[FieldFinding] = []
        self.labels: dict[str, str | None] = {}

    async def run(self) -> None:
        clock_seen = False
        for resource in ("health", "projects"):
            sample = await self._look(resource)
            if sample is not None and not clock_seen:
                clock_seen = self._clock(sample)
        run = None
        for project_id, name in await self._projects():
            run = await self._jobs(project_id, name)
            if run is not None or not self.checks[-1].ok:
                break
        if run is None:
            for resource in ("job", "records"):
                if self._client.has(resource):
                    self.checks.append(Check(resource, True, "not asked for: no run is there to ask about"))
        else:
            await self._look("job", run)
            await self._look("records", run)
        await self._look("usage")

    async def _look(self, resource: str, run: RunSnapshot | None = None, *, project_id: str = "") -> RawResponse | None:
        """Ask for a resource, note what came of it, and return the answer."""
        if not self._client.has(resource):
            self.checks.append(Check(resource, True, f"absent: {ABSENT_COSTS[resource]}"))
            return None
        try:
            sample = await self._client.raw_response(resource, run, project_id=project_id)
            explanation = self._decoder.explain(resource, sample.body)
        except ApiError as error:
            self.checks.append(Check(resource, False, str(error).removeprefix(f"{resource}: ")))
            return None
        except MALFORMED as error:
            self.checks.append(Check(resource, False, f"the answer is not what is described: {error}"))
            return None
        items, unfit = explanation.items, explanation.skipped
        finding = "it answers" if resource in ("health", "job") else f"{len(items)} items in the first answer"
        if unfit:
            finding += f"; {len(unfit)} would be left out: {unfit[0]}"
        self.checks.append(Check(resource, not unfit or len(unfit) < max(len(items), 1), finding))
        if resource != "job":
            self.fields += self._findings(resource, items)
        if resource == "jobs":
            self._note_labels(str(item["status"]) for item in items if "status" in item)
        return sample

    def _findings(self, resource: str, items: list[dict[str, Any]]) -> Iterator[FieldFinding]:
        for field in sorted(FIELDS[resource], key=lambda each: (each not in REQUIRED[resource], each)):
            values = [item[field] for item in items if field in item]
            expected = [item for item in items if self._has_reason_for(resource, field, item)]
            cost = "" if values or not expected else COSTS.get((resource, field), "")
            if not values and items and field in REQUIRED[resource]:
                cost = "required"
            if not values and (stand_in := self._stand_in(resource, field)):
                cost = stand_in
            yield FieldFinding(resource, field, len(values), len(items), _example(values), cost)

    def _stand_in(self, resource: str, field: str) -> str:
        """Return what stands for a field of runs that is not there; empty for nothing."""
        if resource != "jobs":
            return ""
        if field == "spinnerName" and self._client.has("projects"):
            return "nothing: the project's name stands for it"
        counted = field == "lastProgressAt" or field.startswith(("records.", "failures"))
        return "nothing: it is counted from the records" if counted and self._client.counts_records else ""

    def _has_reason_for(self, resource: str, field: str, item: dict[str, Any]) -> bool:
        """Whether an item should have a field: one that has not ended has no end, and one that went well no error."""
        status = self._statuses.status_for(str(item.get("status", "")))
        if (resource, field) == ("jobs", "endedAt"):
            return status.ended
        if resource == "records" and field in ("failedStep.name", "errorCode"):
            return status is Status.FAILED
        if resource == "records" and field == "endedAt":
            return status.ended
        return not (resource == "jobs" and field == "startedAt" and status is Status.QUEUED)

    def _clock(self, sample: RawResponse) -> bool:
        if sample.date is None:
            return False
        difference = sample.date - sample.local_time
        finding = (
            f"the API's is {abs(difference):.0f} s {'ahead of' if difference > 0 else 'behind'} ours; it is corrected"
        )
        if abs(difference) < CLOCK_TOLERANCE:
            finding = "they agree"
        self.checks.append(Check("clocks", True, finding))
        return True

    async def _projects(self) -> list[tuple[str, str]]:
        if not self._client.has("projects"):
            return [(ONLY_PROJECT, self._config.runtime.project)]
        found: list[tuple[str, str]] = []
        try:
            async for page in self._client.projects():
                found += [(project.id, project.name) for project in page.items]
        except ApiError:
            return []  # noted when it was looked at
        wanted = [(each, name) for each, name in found if self._config.projects.wanted(name)]
        self.checks.append(Check("projects to read", bool(wanted), f"{len(wanted)} of {len(found)}"))
        return wanted[:_PROJECTS_TRIED]

    async def _jobs(self, project_id: str, name: str) -> RunSnapshot | None:
        """Look at a project's runs, and return one of them; None when there is none, or none can be read."""
        before = len(self.fields), len(self.checks)
        sample = await self._look("jobs", project_id=project_id)
        if sample is None:
            return None
        try:
            runs = self._decoder.jobs(sample.body, RunDefaults(project_id, name, sample.date)).items
        except MALFORMED:
            return None
        if not runs and self.checks[-1].ok:
            # The next project may have some; its answer says more.
            del self.fields[before[0] :]
            self.checks[before[1] :] = [Check("jobs", True, f"no runs in {name}")]
            return None
        return max(runs, key=lambda run: run.records.failed if run.records else 0, default=None)

    def _note_labels(self, labels: Iterable[str]) -> None:
        for label in sorted(set(labels)):
            if self._statuses.status_for(label) is Status.UNKNOWN:
                idea = propose(label)
                self.labels[label] = None if idea is None else idea.value


_PROJECTS_TRIED = 20
"""Projects that are asked for runs until one has some."""


def _samples(page: MetricsPage) -> list[MetricSample]:
    return [sample for family in text_string_to_metric_families(str(page)) for sample in family.samples]


def _requests(samples: Iterable[MetricSample]) -> float:
    return sum(sample.value for sample in samples if sample.name == "spinner_exporter_upstream_requests_total")


def _example(values: list[Any]) -> str:
    if not values:
        return ""
    common = Counter(str(value) for value in values).most_common(1)[0][0]
    plain = "".join(character if character.isprintable() else " " for character in common)
    return plain if len(plain) <= EXAMPLE_LENGTH else plain[: EXAMPLE_LENGTH - 1] + "…"


def _table(resource: str, findings: list[FieldFinding]) -> list[str]:
    rows = [
        (each.field, f"{each.found} of {each.items}" if each.items else "", each.example, each.cost)
        for each in findings
    ]
    head = (resource, "found", "example", "effect when missing")
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(3)]
    lines = [head, *rows]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[3]]).rstrip()
        for line in lines
    ]
