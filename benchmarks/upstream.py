"""A runtime's API with almost no cost: jobs are encoded once, and a page joins them.

It runs as a separate process (`python -m benchmarks.upstream PORT PROJECTS RUNS LISTS_ALL`), so that the measurements contain the
reader only. It counts requests and bytes.
"""

import asyncio
import bisect
import contextlib
import email.utils
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from tests.stack import programs
from tests.stack.programs import free_port

LIMIT = 500
DAY = 86_400


@contextlib.contextmanager
def running(projects: int, runs: int, *, lists_all_projects: bool = True) -> Iterator[str]:
    """Run it with `projects` projects and `runs` runs in total, of which one in a hundred has not ended.

    `lists_all_projects`: whether it has the list of the runs of all projects, as newer runtimes do.
    """
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.upstream", *map(str, (port, projects, runs, int(lists_all_projects)))]
    url = f"http://127.0.0.1:{port}"
    with programs.running(command, url, Path(os.devnull), ready="/health", timeout=120):
        yield url


class _Runs:
    """Runs of one project, or of all."""

    def __init__(self) -> None:
        self.jobs: dict[int, bytes] = {}
        self.changed_at: list[tuple[float, int]] = []
        self.open: set[int] = set()
        self.at: dict[int, float] = {}

    def keep(self, run: int, at: float, job: bytes, *, is_open: bool) -> None:
        if run in self.at:
            del self.changed_at[bisect.bisect_left(self.changed_at, (self.at[run], run))]
        self.at[run] = at
        bisect.insort(self.changed_at, (at, run))
        (self.open.add if is_open else self.open.discard)(run)
        self.jobs[run] = job


class _Project(_Runs):
    def __init__(self, number: int, runs: range, now: float, every: _Runs) -> None:
        super().__init__()
        self.id = f"p{number}"
        self._every = every
        for place, run in enumerate(runs):
            is_open = run % 100 == 7
            # Evenly over twelve hours, at different times in each project.
            share = (place + number * 0.618 % 1) / len(runs)
            self.put(run, now - DAY / 2 + share * (DAY / 2 - 60), is_open=is_open, done=100)

    def put(self, run: int, at: float, *, is_open: bool, done: int, failed: int = 0) -> None:
        job = _job(self.id, run, at, is_open=is_open, done=done, failed=failed)
        self.keep(run, at, job, is_open=is_open)
        self._every.keep(run, at, job, is_open=is_open)


def _job(project: str, run: int, at: float, *, is_open: bool, done: int, failed: int) -> bytes:
    counts = {"pending": 195 - done, "running": 5} if is_open else {"pending": 0, "running": 0}
    document: dict[str, object] = {
        "id": f"job_{run:012x}",
        "projectId": project,
        "spinnerId": f"spn_{run % 4}",
        "spinnerName": ("Appointment reminders", "Lead qualification", "Newsletter", "Recall calls")[run % 4],
        "trigger": "schedule",
        "parentJobId": None,
        "status": "running" if is_open else "completed",
        "createdAt": _time(at - 302.5),
        "startedAt": _time(at - 300),
        "endedAt": None if is_open else _time(at),
        "updatedAt": _time(at),
        "lastProgressAt": _time(at - 0.25),
        "records": {
            "total": 200,
            "waiting": 0,
            "completed": done if is_open else 200 - failed,
            "failed": failed,
            **counts,
        },
        "failures": [],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _record(project: str, run: int, number: int, at: float) -> bytes:
    document = {
        "id": f"rec_{run:012x}_{number}",
        "jobId": f"job_{run:012x}",
        "projectId": project,
        "status": "failed",
        "failedStep": {"index": 1, "type": "email", "name": "Email"},
        "errorCode": "MAILBOX_FULL",
        "endedAt": _time(at),
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


class _Api:
    def __init__(self, projects: int, runs: int, *, lists_all_projects: bool) -> None:
        now = time.time()
        share = runs // projects
        self.every = _Runs()
        self.lists_all_projects = lists_all_projects
        self.projects = {
            f"p{number}": _Project(number, range(number * share, (number + 1) * share), now, self.every)
            for number in range(projects)
        }
        self.requests = self.bytes = 0
        self.done = 100
        self.failed: list[tuple[float, bytes]] = []
        """The failed records of all runs, in the order in which they failed."""
        self.failed_of: dict[str, list[bytes]] = {}
        """Those of each run, by its id."""

    def answer(self, target: str, etag: str) -> tuple[int, bytes, str]:
        """Return status, body and ETag."""
        url = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if url.path == "/count":
            counted = {"requests": self.requests, "bytes": self.bytes}
            self.requests = self.bytes = 0
            return 200, json.dumps(counted).encode(), ""
        if url.path == "/change":
            size = self.change(float(query["share"]))
            return 200, json.dumps({"bytes": size, "done": self.done}).encode(), ""
        if url.path == "/fail":
            return 200, json.dumps({"runs": self.fail(float(query["share"]))}).encode(), ""
        status, body, tag = self._resource(url.path, query, etag)
        self.requests += 1
        self.bytes += len(body)
        return status, body, tag

    def change(self, share: float) -> int:
        """Let a share of the runs make progress; return their size in bytes."""
        self.done += 1
        now, size = time.time(), 0
        due = 0.0
        for project in self.projects.values():
            due += len(project.jobs) * share
            for run in list(project.jobs)[: round(due)]:
                project.put(run, now, is_open=run in project.open, done=self.done)
                size += len(project.jobs[run])
            due -= round(due)
        return size

    def fail(self, share: float) -> int:
        """Let another record of a share of the runs fail; return how many runs that are."""
        now, due, count = time.time(), 0.0, 0
        for project in self.projects.values():
            due += len(project.jobs) * share
            for run in list(project.jobs)[: round(due)]:
                records = self.failed_of.setdefault(f"job_{run:012x}", [])
                records.append(_record(project.id, run, len(records), now))
                self.failed.append((now, records[-1]))
                project.put(run, now, is_open=run in project.open, done=self.done, failed=len(records))
                count += 1
            due -= round(due)
        return count

    def _resource(self, path: str, query: dict[str, str], etag: str) -> tuple[int, bytes, str]:
        as_of = _time(time.time())
        if path == "/health":
            runtime = {"status": "up", "lastHeartbeatAt": as_of, "workers": 4}
            return 200, json.dumps({"status": "ok", "runtime": runtime}).encode(), ""
        if path == "/api/v1/usage":
            return 200, b'{"plan":"pro","meters":[]}', ""
        if path == "/api/v1/projects":
            items = [json.dumps({"id": each, "name": f"Project {each}"}).encode() for each in self.projects]
            return self._page(items, query, etag, as_of)
        if path == "/api/v1/records" and self.lists_all_projects:
            since = datetime.fromisoformat(query["updatedSince"]).timestamp()
            first = bisect.bisect_left(self.failed, (since, b""))
            return self._page([record for _, record in self.failed[first:]], query, etag, as_of)
        if path.endswith("/records") and query.get("status") == "failed":
            # It does not list what a run works on: its open runs are silent, which would cost the same in each scrape.
            return self._page(self.failed_of.get(path.split("/")[-2], []), query, etag, as_of)
        if path.endswith("/jobs") and (path != "/api/v1/jobs" or self.lists_all_projects):
            project = self.every if path == "/api/v1/jobs" else self.projects[unquote(path.split("/")[-2])]
            if "active" in query:
                return self._page([project.jobs[run] for run in sorted(project.open)], query, etag, as_of)
            since = datetime.fromisoformat(query["updatedSince"]).timestamp() if "updatedSince" in query else 0.0
            first = bisect.bisect_left(project.changed_at, (since, -1))
            start = first + int(query.get("cursor", 0))
            chosen = [project.jobs[run] for _, run in project.changed_at[start : start + LIMIT]]
            more = len(project.changed_at) > start + LIMIT
            return _list(chosen, str(start - first + LIMIT) if more else None, etag, as_of)
        return 404, b"{}", ""

    def _page(self, items: list[bytes], query: dict[str, str], etag: str, as_of: str) -> tuple[int, bytes, str]:
        start = int(query.get("cursor", 0))
        cursor = str(start + LIMIT) if len(items) > start + LIMIT else None
        return _list(items[start : start + LIMIT], cursor, etag, as_of)


def _list(items: list[bytes], cursor: str | None, etag: str, as_of: str) -> tuple[int, bytes, str]:
    joined = b",".join(items)
    tag = f'"{hashlib.blake2b(joined, digest_size=8).hexdigest()}{cursor}"'
    if tag == etag:
        return 304, b"", tag
    next_cursor = json.dumps(cursor).encode()
    body = b'{"items":[' + joined + b'],"nextCursor":' + next_cursor + b',"asOf":"' + as_of.encode() + b'"}'
    return 200, body, tag


class _Connection(asyncio.Protocol):
    def __init__(self, api: _Api) -> None:
        self._api = api
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._read += data
        while b"\r\n\r\n" in self._read:
            head, _, self._read = self._read.partition(b"\r\n\r\n")
            line, *headers = head.decode().split("\r\n")
            etag = next((each.partition(":")[2].strip() for each in headers if each.lower().startswith("if-none")), "")
            status, body, tag = self._api.answer(line.split(" ")[1], etag)
            lines = [
                f"HTTP/1.1 {status} X",
                f"Content-Length: {len(body)}",
                f"Date: {email.utils.formatdate(usegmt=True)}",
            ]
            if tag:
                lines.append(f"ETag: {tag}")
            self._transport.write("\r\n".join([*lines, "", ""]).encode() + body)  # type: ignore[attr-defined]


async def _serve(port: int, projects: int, runs: int, lists_all_projects: int) -> None:
    api = _Api(projects, runs, lists_all_projects=bool(lists_all_projects))
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(api), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(*map(int, sys.argv[1:])))
