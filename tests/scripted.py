"""A fake runtime for responses that the embedded runtime cannot be made to return.

It follows the contract (filters, cursors, ETags, `asOf`) unless a test breaks it, and runs in the same process without
a network. Tests use `exporter.simulator` wherever its behaviour is enough.
"""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec

from exporter.config import Config, ProjectsConfig, SyncConfig
from exporter.service import Exporter
from exporter.service.monitored_runtime import Dependencies
from tests.builders import NOON, RUNTIME, Clock, runtime_config
from tests.transport import FakeTransport

Answer = Callable[[httpx.Request], httpx.Response | None]


def rfc3339(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()


class ScriptedRuntime:
    """Jobs and projects as plain dictionaries with the contract's keys, on the clock of a test."""

    lists_all_projects = False
    """Whether it has the list of the runs of all projects."""
    lists_all_runs = False
    """Whether it has the list of the failed records of all runs."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.projects = {"p1": "Sales"}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.failed_records: dict[str, list[dict[str, Any]]] = {}
        self.records_in_flight: dict[str, list[dict[str, Any]]] = {}
        """By job, with times in seconds; the status is running unless one is given."""
        self.waiting_records: dict[str, list[dict[str, Any]]] = {}
        """The same of those that wait."""
        self.health: dict[str, Any] = {"status": "ok"}
        self.page_size = 500
        self.requests: list[httpx.Request] = []
        self.interfere: Answer = lambda request: None
        """Returns a response that replaces the runtime's; None: the runtime responds."""

    def put(self, job_id: str = "run-1", *, updated_at: float | None = None, **fields: Any) -> None:
        """Create or change a job; `updatedAt` is now by default. Times are in seconds."""
        before = self.jobs.get(job_id, {})
        job = {
            "id": job_id,
            "projectId": "p1",
            "spinnerName": "welcome",
            "trigger": "schedule",
            "status": "in_progress",
            "createdAt": NOON - 10,
            "startedAt": NOON - 5,
            **before,
            **fields,
            "updatedAt": self.clock() if updated_at is None else updated_at,
        }
        self.jobs[job_id] = job

    def transport(self) -> FakeTransport:
        return FakeTransport(self._answer)

    def paths(self) -> list[str]:
        return [request.url.path for request in self.requests]

    def only_request(self, path: str) -> httpx.Request:
        """The only request with this path."""
        (request,) = [each for each in self.requests if each.url.path == path]
        return request

    def runs_asked(self, status: str) -> list[str]:
        """The runs whose records of a status were requested by their own lists."""
        lists = [each.url for each in self.requests if each.url.params.get("status") == status]
        return [url.path.split("/")[4] for url in lists if "/jobs/" in url.path]

    def job_lists(self) -> list[httpx.Request]:
        return [request for request in self.requests if request.url.path.endswith("/jobs")]

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        instead = self.interfere(request)
        if instead is not None:
            return instead
        parts = request.url.path.removeprefix("/api/v1").strip("/").split("/")
        match parts:
            case ["health"]:
                runtime = {"status": "up", "workers": 2, "lastHeartbeatAt": rfc3339(self.clock())}
                return httpx.Response(200, json={"runtime": runtime, **self.health}, headers={"Date": self._date()})
            case ["projects"]:
                return self._list(request, [{"id": key, "name": name} for key, name in self.projects.items()])
            case ["projects", project_id, "jobs"]:
                return self._list(request, self._jobs(project_id, request.url.params))
            case ["jobs"] if self.lists_all_projects:
                return self._list(request, self._jobs(request.url.params.get("projectId"), request.url.params))
            case ["jobs", job_id] if job_id in self.jobs:
                return httpx.Response(200, json=_wire(self.jobs[job_id]))
            case ["jobs", job_id, "records"] if request.url.params.get("status") == "running":
                return self._list(request, _records(job_id, "running", self.records_in_flight))
            case ["jobs", job_id, "records"] if request.url.params.get("status") == "waiting":
                return self._list(request, _records(job_id, "waiting", self.waiting_records))
            case ["jobs", job_id, "records"]:
                return self._list(request, self.failed_records.get(job_id, []))
            case ["records"] if self.lists_all_runs:
                return self._list(request, self.all_failed_records(request.url.params))
            case ["usage"]:
                return httpx.Response(200, json={"plan": "pro", "meters": []})
        return httpx.Response(404, json={"error": "not found", "errorCode": "NOT_FOUND"})

    def _jobs(self, project_id: str | None, query: httpx.QueryParams) -> list[dict[str, Any]]:
        jobs = sorted(
            (job for job in self.jobs.values() if project_id in (None, job["projectId"])),
            key=lambda job: job["updatedAt"],
        )
        if since := query.get("updatedSince"):
            jobs = [job for job in jobs if job["updatedAt"] >= datetime.fromisoformat(since).timestamp()]
        if query.get("active") == "true":
            jobs = [job for job in jobs if job["status"] not in ("completed", "partial", "failed", "cancelled")]
        return [_wire(job) for job in jobs]

    def all_failed_records(self, query: httpx.QueryParams) -> list[dict[str, Any]]:
        found = [
            {"jobId": run, "projectId": self.jobs[run]["projectId"], **record}
            for run, records in self.failed_records.items()
            if run in self.jobs
            for record in records
        ]
        since = datetime.fromisoformat(query["updatedSince"])
        found = [each for each in found if datetime.fromisoformat(each["endedAt"]) >= since]
        return sorted(found, key=lambda each: datetime.fromisoformat(each["endedAt"]))

    def _date(self) -> str:
        return datetime.fromtimestamp(self.clock(), UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")

    def _list(self, request: httpx.Request, items: list[dict[str, Any]]) -> httpx.Response:
        start = int(request.url.params.get("cursor", "0"))
        page = items[start : start + self.page_size]
        cursor = str(start + self.page_size) if start + self.page_size < len(items) else None
        etag = f'"{hashlib.sha256(json.dumps([page, cursor]).encode()).hexdigest()[:16]}"'
        date = self._date()
        if request.headers.get("If-None-Match") == etag:
            return httpx.Response(304, headers={"ETag": etag, "Date": date})
        body = {"items": page, "nextCursor": cursor, "asOf": rfc3339(self.clock())}
        return httpx.Response(200, json=body, headers={"ETag": etag, "Date": date})


def exporter_of(runtime: ScriptedRuntime, clock: Clock | None = None, **settings: Any) -> Exporter:
    """An exporter that reads the runtime; by default they share a clock.

    `settings` are sections of the config; `described` contains keys of `runtime`, and `storage` is a folder.
    """
    own = clock or runtime.clock
    storage = settings.pop("storage", None)
    sync = {"min_interval": 0.0, "sweep_interval": 120.0, "projects_interval": 0.0} | settings.pop("sync", {})
    config = Config(
        runtime=msgspec.structs.replace(runtime_config(), **settings.pop("described", {})),
        projects=settings.pop("projects", ProjectsConfig()),
        sync=SyncConfig(**sync),
        **settings,
    )
    return Exporter({RUNTIME: config}, Dependencies(own, own, runtime.transport(), no_sleep), storage=storage)


async def no_sleep(seconds: float) -> None:
    """Return immediately, so that a retry follows its request without a delay."""


def _wire(job: dict[str, Any]) -> dict[str, Any]:
    return {key: rfc3339(value) if key.endswith(("At", "Until")) else value for key, value in job.items()}


def _records(job_id: str, status: str, by_job: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [
        {
            "jobId": job_id,
            "status": status,
            **_wire(record),
            "step": None if record.get("step") is None else _wire(record["step"]),
        }
        for record in by_job.get(job_id, [])
    ]
