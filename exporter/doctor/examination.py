"""Checks a connection: authentication, clocks, every field, and the expected number of series and requests.

Requests a page of each resource, then reads three times as the exporter does. For each missing field it shows the
effect.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import msgspec

from exporter.config import Config, Duration
from exporter.doctor import clocks
from exporter.doctor.diagnosis import Check, Diagnosis, FieldFinding
from exporter.doctor.effects import ABSENT_EFFECTS
from exporter.doctor.fields import Fields
from exporter.doctor.full_read import full_read
from exporter.doctor.health import examine_health
from exporter.doctor.paging import is_url, second_page
from exporter.doctor.record_lists import record_lists
from exporter.doctor.requests import Answer, Requests
from exporter.doctor.run_lists import RunLists
from exporter.doctor.stalls import stall_detection
from exporter.doctor.survey import PROJECTS_TRIED, wrong_base
from exporter.errors import ApiError
from exporter.runtime.client import RawResponse
from exporter.runtime.codes import is_personal
from exporter.runtime.decoder import MALFORMED, RunDefaults
from exporter.runtime.model import RunSnapshot
from exporter.runtime.statuses import propose
from exporter.service import SCRAPE_INTERVAL, Exporter
from exporter.service.monitored_runtime import MonitoredRuntime, status_map
from exporter.status import Status
from exporter.sync.project_list import ONLY_PROJECT


async def examine(config: Config) -> Diagnosis:
    """Check a connection, whatever the API does. Raises `ConfigError` for an invalid config."""
    # The second read follows immediately.
    sync = msgspec.structs.replace(config.sync, min_interval=Duration(0))
    exporter = Exporter({config.runtime.label: msgspec.structs.replace(config, sync=sync)})
    try:
        (monitored,) = exporter.runtimes.values()
        return await _examine(config, exporter, monitored)
    finally:
        await exporter.close()


async def _examine(config: Config, exporter: Exporter, monitored: MonitoredRuntime) -> Diagnosis:
    examination = _Examination(config, monitored)
    await examination.run()
    checks, series, runs, requests = examination.checks, 0, 0, None
    if all(check.ok is not False for check in checks):
        read = await full_read(exporter, monitored)
        checks += read.checks
        examination.note_labels(read.labels)
        if read.succeeded:
            if monitored.read_together and config.runtime.resources.jobs.across is not None:
                known = RunDefaults(None, names=monitored.store.project_names())
                lists = RunLists(config, examination.requests, monitored.decoder, known, across=True)
                checks += [check async for check in lists.checks()]
            checks += [check async for check in record_lists(config, monitored, examination.requests)]
            series, runs = read.series, read.runs
            requests = read.requests * 3600 / max(SCRAPE_INTERVAL, config.sync.min_interval)
            if monitored.client.has("projects"):
                requests += 3600 / max(config.sync.projects_interval, SCRAPE_INTERVAL)
    limit = examination.requests.allowance
    if limit is not None and limit.per_hour is not None and requests is not None:
        checks.append(Check("rate limit", requests <= limit.per_hour, f"the API allows {limit}"))
    told = "" if limit is None else str(limit)
    return Diagnosis(checks, examination.fields, examination.labels, series, runs, requests, told)


class _Examination:
    """Requests a page of each resource."""

    def __init__(self, config: Config, monitored: MonitoredRuntime) -> None:
        self._config = config
        self._client = monitored.client
        self._decoder = monitored.decoder
        self._fields = Fields(config, monitored.client)
        self._statuses = status_map(config)
        self.requests = Requests(monitored.client, monitored.decoder)
        self.checks: list[Check] = []
        self.fields: list[FieldFinding] = []
        self.labels: dict[str, str | None] = {}

    async def run(self) -> None:
        clock = None
        for resource in ("health", "projects"):
            sample = await self._check(resource)
            if sample is not None and clock is None and (clock := clocks.difference(sample)) is not None:
                self.checks.append(clock)
        self.checks += clocks.local_times(self._config.runtime.resources)
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
        if self.requests.found_nothing:
            self.checks.append(Check("base_url", None, wrong_base(self._config)))

    def note_labels(self, labels: Iterable[str]) -> None:
        """Note the unknown ones of these status labels."""
        for label in sorted({*labels} - {"other"}):
            if self._statuses.status_for(label) is Status.UNKNOWN and not is_personal(label):
                proposed = propose(label)
                self.labels[label] = None if proposed is None else proposed.value

    def _skip(self, why: str, *resources: str) -> None:
        self.checks += [Check(each, None, f"not requested: {why}") for each in resources if self._client.has(each)]

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
                lists = RunLists(self._config, self.requests, self._decoder, RunDefaults(project_id, name))
                self.checks += [check async for check in lists.checks(sample)]
                return max(runs, key=_failed), ""
            if self.checks[-1].ok is False:
                return None, "no run can be read"
            # The next project may have runs.
            del self.checks[before:]
        where = projects[0][1] if len(projects) == 1 else f"{len(projects)} projects, such as {projects[0][1]}"
        self.checks.append(Check("jobs", None, f"no run in {where}; without one, fields and statuses are not checked"))
        return None, "there is no run"

    async def _check(
        self, resource: str, run: RunSnapshot | None = None, *, project_id: str = ""
    ) -> RawResponse | None:
        """Request a resource, record the result, and return the response."""
        if not self._client.has(resource):
            self.checks.append(Check(resource, True, f"absent: {ABSENT_EFFECTS[resource]}"))
            return None
        answer = await self.requests.send(resource, resource, run, project_id=project_id)
        if isinstance(answer, Check):
            self.checks.append(answer)
            return None
        items, page = answer.report.items, answer.report.page
        check = self._usable(resource, answer)
        if self._client.paging(resource).style == "cursor" and is_url(page.cursor):
            check = _with(check, False, "; the next page is a URL: use paging: {style: link, next: …}")
        elif check.ok and resource in ("projects", "jobs", "records"):
            goes_on, more = await second_page(
                self._client, self._decoder, resource, run, answer.sample, page, project_id=project_id
            )
            check = _with(check, goes_on, more)
        if check.ok and not page.items:
            check = _with(check, None, "; without one, its fields are not checked")
        self.checks.append(check)
        if resource != "job" and page.items:
            self.fields += self._fields.findings(resource, items, page.items)
        if resource == "jobs":
            self.note_labels(label for item in items if isinstance(label := item.get("status"), str))
        return answer.sample

    def _usable(self, resource: str, answer: Answer) -> Check:
        """Check whether the exporter can use what a response has."""
        report = answer.report
        items, skipped = report.page.items, report.skipped
        is_single, ok = resource in ("health", "job"), len(skipped) < max(len(items), 1)
        finding = "responds" if is_single else f"{report.page.count} items in the first response"
        if report.page.count != len(items):
            finding += f", of which items selects {len(items)}"
        if skipped:
            reason = self._fields.in_words(resource, skipped[0])
            if ok:
                finding += f"; {len(skipped)} would be skipped: {reason}; {len(items) - len(skipped)} are left"
            else:
                what = "responds with what is not usable" if is_single else f"none of {len(items)} items is usable"
                finding = f"{what}: {reason}"
        for field, count in report.ignored.most_common():
            finding += f"; {field} of {count} cannot be right and would be ignored"
        if resource == "health" and ok:
            health = examine_health(self._config, self._decoder, answer.sample, report.items)
            return _with(health, health.ok, finding.removeprefix("responds"))
        return Check(resource, ok, finding)


def _with(check: Check, ok: bool | None, more: str) -> Check:
    """Return a check with another result, and more in its finding."""
    return dataclasses.replace(check, ok=ok, finding=check.finding + more)


def _failed(run: RunSnapshot) -> int:
    return (run.records.failed or 0) if run.records else 0
