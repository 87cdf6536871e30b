"""A busy organisation on an injected clock: it answers as the runtime's API does, and knows what counters must show.

Its clock can be set, it can fail as a whole or in part, and two servers with different clocks can answer for it.
"""

import bisect
import hashlib
import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any

import httpx
import msgspec

from exporter.runs.counters import DURATION_BUCKETS, QUEUE_BUCKETS
from tests.builders import RUNTIME
from tests.metrics.test_exposition import Samples

DAY = 86_400.0
HOUR = 3_600.0

SPINNERS = ("Appointment reminders", "Lead qualification", "Newsletter", "Recall calls")
PAGE = 500
RECORDS = 40
"""Records of a run on average."""

FAILED = 0.01
"""Share of the records that fail."""

KEPT = 2 * DAY
"""Seconds after its end until the organisation deletes a run."""


class Run:
    """One run, as its runtime knows it."""

    def __init__(self, run_id: str, project: str, spinner: str, total: int, created: float) -> None:
        self.id, self.project, self.spinner, self.total, self.created = run_id, project, spinner, total, created
        self.status = "queued"
        self.updated = created
        self.started: float | None = None
        self.ended: float | None = None
        self.completed = self.failed = 0

    def body(self) -> bytes:
        finished = self.completed + self.failed
        running = 0 if self.ended is not None or self.started is None else min(2, self.total - finished)
        return msgspec.json.encode(
            {
                "id": self.id,
                "projectId": self.project,
                "spinnerId": f"{self.project}-{self.spinner}",
                "spinnerName": self.spinner,
                "trigger": "schedule",
                "parentJobId": None,
                "status": self.status,
                "createdAt": rfc3339(self.created),
                "startedAt": rfc3339(self.started),
                "endedAt": rfc3339(self.ended),
                "updatedAt": rfc3339(self.updated),
                "records": {
                    "total": self.total,
                    "pending": self.total - finished - running,
                    "running": running,
                    "waiting": 0,
                    "completed": self.completed,
                    "failed": self.failed,
                },
                "failures": [{"step": "voice", "errorCode": "NO_ANSWER", "count": self.failed}] if self.failed else [],
            }
        )


class Project:
    """One project's runs, in the order of their last changes."""

    def __init__(self, project_id: str, name: str) -> None:
        self.id, self.name = project_id, name
        self.runs: dict[str, Run] = {}
        self.open: dict[str, None] = {}
        self.bodies: dict[str, bytes] = {}
        self.changes: list[tuple[float, str]] = []

    def put(self, run: Run, at: float) -> None:
        self._forget_change(run)
        run.updated = at
        bisect.insort(self.changes, (at, run.id))
        self.runs[run.id] = run
        self.bodies[run.id] = run.body()
        if run.ended is None:
            self.open[run.id] = None
        else:
            self.open.pop(run.id, None)

    def delete(self, run: Run) -> None:
        self._forget_change(run)
        for of_run in (self.runs, self.open, self.bodies):
            of_run.pop(run.id, None)

    def _forget_change(self, run: Run) -> None:
        place = bisect.bisect_left(self.changes, (run.updated, run.id))
        if place < len(self.changes) and self.changes[place] == (run.updated, run.id):
            del self.changes[place]


BUCKETS = {"spinner_run_finished_duration_seconds": DURATION_BUCKETS, "spinner_run_queue_seconds": QUEUE_BUCKETS}


class Truth:
    """What the counters must show."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()

    def add(self, name: str, project: str, spinner: str, amount: float = 1, **labels: str) -> None:
        self.counts[_series(name, project, spinner, **labels)] += amount  # type: ignore[assignment]

    def begin(self, project: str, spinner: str) -> None:
        """Start the counters of a spinner at zero."""
        self.add("spinner_runs_started_total", project, spinner, 0)
        for status in ("completed", "failed", "cancelled"):
            self.add("spinner_runs_finished_total", project, spinner, 0, status=status)
        for state in ("completed", "failed"):
            self.add("spinner_records_processed_total", project, spinner, 0, state=state)
        for name, buckets in BUCKETS.items():
            self.add(f"{name}_count", project, spinner, 0)
            self.add(f"{name}_sum", project, spinner, 0)
            for bound in (*buckets, float("inf")):
                self.add(f"{name}_bucket", project, spinner, 0, le=_bound(bound))

    def observe(self, name: str, project: str, spinner: str, value: float) -> None:
        self.add(f"{name}_count", project, spinner)
        self.add(f"{name}_sum", project, spinner, value)
        for bound in (*BUCKETS[name], float("inf")):
            if value <= bound:
                self.add(f"{name}_bucket", project, spinner, le=_bound(bound))

    def differences(self, shown: Samples) -> list[str]:
        """Return what is shown otherwise, or not at all."""
        wrong = []
        for (name, labels), expected in self.counts.items():
            found = shown.get((name, labels))
            if found is None or abs(found - expected) > 1e-6 * max(abs(expected), 1):
                wrong.append(f"{name}{dict(labels)}: {found} instead of {expected}")
        return wrong


class Organisation:
    """Projects whose runs begin, make progress and end as time passes."""

    def __init__(self, begins: float, *, seed: int, projects: int, runs_per_day: int) -> None:
        self.time = begins
        """The true time. The runtime's clock is `ahead` of it."""
        self.ahead = 0.0
        self.apart = 0.0
        """Seconds by which the clock of a second server is ahead of that of the first one."""
        self.lists_all = False
        """Whether there is a list of the runs of all projects."""
        self.fails: Callable[[str], bool] = lambda path: False
        self.truth = Truth()
        self.requests = 0
        self._random = random.Random(seed)
        self._interval = DAY / runs_per_day
        self.projects = {f"p{number}": Project(f"p{number}", f"Project {number}") for number in range(projects)}
        self._numbers = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._at(self._interval, self._create)

    def clock(self) -> float:
        """The runtime's time."""
        return self.time + self.ahead

    def play(self, until: float) -> None:
        """Let time pass until a true time."""
        while self._events and self._events[0][0] <= until:
            self.time, _, event = heapq.heappop(self._events)
            event()
        self.time = until

    # -- what happens -------------------------------------------------------------------------------------

    def _at(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.time + seconds, next(self._numbers), event))

    def _create(self) -> None:
        chance = self._random
        self._at(chance.expovariate(1 / self._interval), self._create)
        project = chance.choice([*self.projects.values()])
        spinner = chance.choice(SPINNERS)
        total = 1 + int(chance.expovariate(1 / (RECORDS - 0.5)))
        run = Run(f"job_{next(self._numbers):012x}", project.id, spinner, total, self.clock())
        if _series("spinner_runs_started_total", project.name, spinner) not in self.truth.counts:
            self.truth.begin(project.name, spinner)
        project.put(run, self.clock())
        if chance.random() < 0.01:
            self._at(chance.uniform(1, 600), lambda: self._end(run, "cancelled"))
        else:
            self._at(chance.expovariate(1 / 20), lambda: self._start(run))

    def _start(self, run: Run) -> None:
        chance, project = self._random, self.projects[run.project]
        run.started, run.status = self.clock(), "running"
        self.truth.add("spinner_runs_started_total", project.name, run.spinner)
        queued = max(run.started - run.created, 0.0)
        self.truth.observe("spinner_run_queue_seconds", project.name, run.spinner, queued)
        project.put(run, self.clock())
        # Most take minutes, and some hours.
        lasts = chance.uniform(2, 20) * HOUR if chance.random() < 0.005 else chance.expovariate(1 / 400)
        steps = 1 if lasts < 60 else 3
        for step in range(1, steps):
            self._at(lasts * step / steps, lambda: self._work(run, run.total // steps))
        self._at(lasts, lambda: self._end(run, "failed" if chance.random() < 0.03 else "completed"))

    def _work(self, run: Run, count: int) -> None:
        project = self.projects[run.project]
        failed = sum(self._random.random() < FAILED for _ in range(count))
        run.completed, run.failed = run.completed + count - failed, run.failed + failed
        for state, amount in (("completed", count - failed), ("failed", failed)):
            self.truth.add("spinner_records_processed_total", project.name, run.spinner, amount, state=state)
        project.put(run, self.clock())

    def _end(self, run: Run, status: str) -> None:
        project = self.projects[run.project]
        run.ended, run.status = self.clock(), status
        if status == "completed":
            self._work(run, run.total - run.completed - run.failed)
        else:
            project.put(run, self.clock())
        self.truth.add("spinner_runs_finished_total", project.name, run.spinner, status=status)
        if run.started is not None:
            lasted = max(run.ended - run.started, 0.0)
            self.truth.observe("spinner_run_finished_duration_seconds", project.name, run.spinner, lasted)
        self._at(KEPT, lambda: project.delete(run))

    # -- what it answers ----------------------------------------------------------------------------------

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer as the API does."""
        self.requests += 1
        path = request.url.path
        now = self.clock() + self._random.choice((0.0, self.apart))
        if self.fails(path):
            return httpx.Response(500, json={"error": "broken", "errorCode": "BROKEN"})
        match path.removeprefix("/api/v1").strip("/").split("/"):
            case ["health"]:
                runtime = {"status": "up", "workers": 4, "lastHeartbeatAt": rfc3339(now - 5)}
                return self._response(msgspec.json.encode({"status": "ok", "runtime": runtime}), now)
            case ["projects"]:
                names = [msgspec.json.encode({"id": each.id, "name": each.name}) for each in self.projects.values()]
                return self._list(request, names, now)
            case ["projects", project_id, "jobs"]:
                return self._jobs(request, [self.projects[project_id]], now)
            case ["jobs"] if self.lists_all:
                return self._jobs(request, [*self.projects.values()], now)
            case ["jobs", run_id, "records"]:
                return self._list(request, self._failed_records(run_id), now)
            case ["jobs", run_id]:
                for project in self.projects.values():
                    if run_id in project.bodies:
                        return self._response(project.bodies[run_id], now)
            case ["usage"]:
                meter = {"name": "jobs_month", "used": 1, "limit": None, "resetsAt": None}
                return self._response(msgspec.json.encode({"plan": "pro", "meters": [meter]}), now)
        return httpx.Response(404, json={"error": "not found", "errorCode": "NOT_FOUND"})

    def _jobs(self, request: httpx.Request, projects: list[Project], now: float) -> httpx.Response:
        query = request.url.params
        if query.get("active") == "true":
            return self._list(request, [each.bodies[run_id] for each in projects for run_id in each.open], now)
        since = datetime.fromisoformat(query["updatedSince"]).timestamp()
        changed = [
            (at, each.bodies[run_id])
            for each in projects
            for at, run_id in each.changes[bisect.bisect_left(each.changes, (since, "")) :]
        ]
        changed.sort(key=lambda change: change[0])
        return self._list(request, [body for _, body in changed], now)

    def _failed_records(self, run_id: str) -> list[bytes]:
        run = next((each.runs[run_id] for each in self.projects.values() if run_id in each.runs), None)
        return [] if run is None else [_failed_record(run, number) for number in range(run.failed)]

    def _list(self, request: httpx.Request, items: list[bytes], now: float) -> httpx.Response:
        start = int(request.url.params.get("cursor", "0"))
        page, more = b",".join(items[start : start + PAGE]), len(items) > start + PAGE
        etag = f'"{hashlib.blake2b(page, digest_size=8).hexdigest()}{more}"'
        if request.headers.get("If-None-Match") == etag:
            return httpx.Response(304, headers={"ETag": etag, "Date": formatdate(now, usegmt=True)})
        cursor = msgspec.json.encode(str(start + PAGE) if more else None)
        body = b'{"items":[' + page + b'],"nextCursor":' + cursor + b',"asOf":"' + rfc3339(now).encode() + b'"}'
        return self._response(body, now, ETag=etag)

    def _response(self, body: bytes, now: float, **headers: str) -> httpx.Response:
        return httpx.Response(200, content=body, headers={"Date": formatdate(now, usegmt=True), **headers})


def _failed_record(run: Run, number: int) -> bytes:
    record: dict[str, Any] = {
        "id": f"{run.id}-{number}",
        "jobId": run.id,
        "status": "failed",
        "failedStep": {"index": 2, "type": "voice", "name": "voice"},
        "errorCode": "NO_ANSWER",
        "endedAt": rfc3339(run.updated),
    }
    return msgspec.json.encode(record)


def rfc3339(at: float | None) -> Any:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat()


def _bound(bound: float) -> str:
    return "+Inf" if bound == float("inf") else str(bound)


def _series(name: str, project: str, spinner: str, **labels: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    every = {"runtime": RUNTIME, "project": project, "spinner": spinner, **labels}
    return name, tuple(sorted(every.items()))
