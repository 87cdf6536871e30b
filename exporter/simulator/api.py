"""The HTTP API of the embedded runtime, as `openapi.yaml` describes it. What it tells of is in `engine`."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from typing import TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from exporter.simulator import scenario, wire
from exporter.simulator.cursor import CursorError, Cursors
from exporter.simulator.engine import Engine, UnknownSpinnerError
from exporter.simulator.middleware import ApiMiddleware, http_date
from exporter.simulator.plan import PlanLimitError
from exporter.simulator.query import Query, QueryError, read_query
from exporter.simulator.run import Project, Record, RecordStatus, Run
from exporter.simulator.wire import problem

T = TypeVar("T")

STATUS_LABELS = frozenset(
    {"queued", "running", "in_progress", "waiting", "completed", "partial", "failed", "cancelled"}
)  # fmt: skip
"""The labels that can always be asked for; a scenario's own wording comes on top."""

_RECORD_STATUSES = frozenset(status.value for status in RecordStatus)


def create_app(engine: Engine, *, token: str | None = None, run_engine: bool = True) -> Starlette:
    """Return the API of an engine, which runs for as long as the application does.

    With a `token`, everything under `/api` asks for it. With `run_engine` False the caller runs the engine, or
    nobody does: the world catches up with its timeline whenever it is asked.

    Every answer has a Date header of the engine's clock, so uvicorn is to be started with `date_header=False`.
    """
    api = _Api(engine)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        if not run_engine:
            yield
            return
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(engine.run(), name="engine")
            yield
            running.cancel()

    gate = Middleware(
        ApiMiddleware, now_ms=engine.now_ms, token=token, requests_per_second=engine.scenario.api.requests_per_second
    )
    app = Starlette(
        routes=[
            Route("/health", api.health),
            Route("/api/v1/projects", api.projects),
            Route("/api/v1/projects/{project_id}/jobs", api.jobs),
            Route("/api/v1/jobs/{job_id}", api.job),
            Route("/api/v1/jobs/{job_id}/records", api.records),
            Route("/api/v1/usage", api.usage),
            Route("/api/v1/public/trigger/{spinner_id}", api.trigger, methods=["POST"]),
        ],
        middleware=[gate],
        exception_handlers={
            HTTPException: _refused,
            QueryError: _bad_query,
            CursorError: _bad_cursor,
            Exception: api.broken,
        },
        lifespan=lifespan,
    )
    # A path with a slash too many is unknown: a redirect would lead clients astray that rightly follow none.
    app.router.redirect_slashes = False
    return app


class _Api:
    """The endpoints. Each has the world catch up, and then answers without waiting, so from one moment."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._cursors = Cursors(engine.cursor_key)
        wordings = [engine.scenario.wording, *(project.wording for project in engine.projects.values())]
        self._status_labels = STATUS_LABELS.union(*(_labels(wording) for wording in wordings))

    async def health(self, _: Request) -> Response:
        return _json(wire.health_view(self._engine.pulse, self._engine.wall_ms))

    async def projects(self, request: Request) -> Response:
        query = read_query(request.query_params, "limit", "cursor")
        after = self._position(request, query)
        projects = islice(enumerate(self._engine.projects.values(), 1), after, None)
        return self._page(request, query, ((place, wire.project_view(project)) for place, project in projects))

    async def jobs(self, request: Request) -> Response:
        names = ("limit", "cursor", "status", "active", "updatedSince")
        query = read_query(request.query_params, *names, statuses=self._status_labels)
        project = self._engine.projects.get(request.path_params["project_id"])
        if project is None:
            raise HTTPException(404, "There is no such project.")
        after = self._position(request, query)
        by_change = query.updated_since_ms is not None
        found = self._changed_runs(project, query, after) if by_change else self._created_runs(project, query, after)
        wanted = (run for run in found if query.status in (None, run.label))
        return self._page(
            request,
            query,
            ((run.revision if by_change else run.number, wire.job_view(run, self._engine.wall_ms)) for run in wanted),
        )

    async def job(self, request: Request) -> Response:
        return _json(wire.job_view(self._run(request), self._engine.wall_ms))

    async def records(self, request: Request) -> Response:
        run = self._run(request)
        query = read_query(request.query_params, "limit", "cursor", "status", statuses=_RECORD_STATUSES)
        after = self._position(request, query)
        if query.status == RecordStatus.FAILED.value:
            # In the order in which they failed, so that one that fails while pages are read is on a later page.
            return self._page(request, query, self._views(run, islice(enumerate(run.failed_records, 1), after, None)))
        return self._page(request, query, self._all_views(run, query, after))

    async def usage(self, _: Request) -> Response:
        return _json(wire.usage_view(self._engine.plan))

    async def trigger(self, request: Request) -> Response:
        try:
            job_id = self._engine.trigger(request.path_params["spinner_id"], "api")
        except UnknownSpinnerError:
            raise HTTPException(404, "There is no such spinner.") from None
        except PlanLimitError as error:
            return problem(403, "PLAN_LIMIT", str(error))
        return _json(wire.Created(job_id), 201)

    async def broken(self, _: Request, __: Exception) -> Response:
        # Starlette answers this one outside the gate, which else gives the date.
        return problem(500, "INTERNAL", "Something broke here.", {"Date": http_date(self._engine.now_ms())})

    def _run(self, request: Request) -> Run:
        run = self._engine.jobs.get(request.path_params["job_id"])
        if run is None:
            raise HTTPException(404, "There is no such job, or not any more.")
        return run

    def _created_runs(self, project: Project, query: Query, after: int) -> Iterable[Run]:
        return self._engine.roster.of_project(project.id).created_after(after, active=query.active)

    def _changed_runs(self, project: Project, query: Query, after: int) -> Iterable[Run]:
        runs = self._engine.roster.of_project(project.id)
        since = query.updated_since_ms
        if query.cursor is not None or since is None:
            changed = runs.changed_after(after)
        else:
            changed = runs.changed_since(lambda moment: self._engine.wall_ms(moment) >= since)
        return (run for run in changed if run.ended_at is None) if query.active else changed

    def _all_views(self, run: Run, query: Query, after: int) -> Iterator[tuple[int, wire.RecordView]]:
        taken_on = islice(enumerate(run.records, 1), after, None)
        wanted = ((place, record) for place, record in taken_on if query.status in (None, record.status.value))
        yield from self._views(run, wanted)
        if query.status in (None, RecordStatus.PENDING.value):
            for index in range(max(after, len(run.records)), run.total):
                yield index + 1, wire.pending_record_view(run, index)

    def _views(self, run: Run, records: Iterable[tuple[int, Record]]) -> Iterator[tuple[int, wire.RecordView]]:
        return ((place, wire.record_view(run, record, self._engine.wall_ms)) for place, record in records)

    def _position(self, request: Request, query: Query) -> int:
        """Return the place after which the page begins; every list numbers its places from 1."""
        return 0 if query.cursor is None else self._cursors.read(_scope(request, query), query.cursor)

    def _page(self, request: Request, query: Query, found: Iterator[tuple[int, T]]) -> Response:
        """Answer with the first of what was found, each with its place in the list."""
        placed = list(islice(found, query.limit))
        more = next(found, None) is not None
        cursor = self._cursors.write(_scope(request, query), placed[-1][0]) if more else None
        items = msgspec.json.encode([item for _, item in placed])
        etag = f'"{hashlib.blake2b(items + msgspec.json.encode(cursor), digest_size=12).hexdigest()}"'
        if _matches(request.headers.getlist("If-None-Match"), etag):
            return Response(status_code=304, headers={"ETag": etag})
        as_of = wire.rfc3339(self._engine.now_ms())
        return _json(wire.Page(msgspec.Raw(items), cursor, as_of), headers={"ETag": etag})


def _labels(wording: scenario.Wording) -> Iterable[str]:
    labels: dict[str, str] = msgspec.structs.asdict(wording)
    return labels.values()


def _scope(request: Request, query: Query) -> str:
    return f"{request.url.path}\0{query.scope}"


def _matches(conditions: Iterable[str], etag: str) -> bool:
    """Compare as `If-None-Match` asks for: weakly, and any of several (RFC 9110, section 13.1.2)."""
    tags = [tag.strip().removeprefix("W/") for condition in conditions for tag in condition.split(",")]
    return "*" in tags or etag in tags


def _json(body: msgspec.Struct, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


async def _refused(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    codes = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}
    return problem(error.status_code, codes.get(error.status_code, "REFUSED"), error.detail, error.headers)


async def _bad_query(_: Request, error: Exception) -> Response:
    return problem(400, "INVALID_PARAMETER", str(error))


async def _bad_cursor(_: Request, __: Exception) -> Response:
    return problem(400, "INVALID_PARAMETER", "cursor: expected the nextCursor of a page of this very list")
