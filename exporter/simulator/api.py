"""The HTTP API of the embedded runtime, as described in `openapi.yaml`. `engine` has its data."""

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
from exporter.simulator.run import Record, RecordStatus, Run
from exporter.simulator.run_index import RunList
from exporter.simulator.wire import problem

T = TypeVar("T")

STATUS_LABELS = frozenset(
    {"queued", "running", "in_progress", "waiting", "completed", "partial", "failed", "cancelled"}
)  # fmt: skip
"""Values of the parameter `status` that are always valid, in addition to the labels of the scenario."""

_JOB_FILTERS = ("limit", "cursor", "status", "active", "updatedSince")

_RECORD_STATUSES = frozenset(status.value for status in RecordStatus)


def create_app(
    engine: Engine, *, token: str | None = None, run_engine: bool = True, lists_across_projects: bool = True
) -> Starlette:
    """Return the API of an engine. The application runs the engine during its lifespan, unless `run_engine` is False.

    Without a running engine, each request first runs all events that are due. With a `token`, all paths under `/api`
    require it. Without `lists_across_projects` it has only the lists of one project and of one run.

    Every response has a Date header with the engine's clock, so start uvicorn with `date_header=False`.
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

    middleware = Middleware(
        ApiMiddleware, now_ms=engine.now_ms, token=token, requests_per_second=engine.scenario.api.requests_per_second
    )
    across = [Route("/api/v1/jobs", api.jobs_of_all_projects), Route("/api/v1/records", api.records_of_all_runs)]
    app = Starlette(
        routes=[
            *(across if lists_across_projects else ()),
            Route("/health", api.health),
            Route("/api/v1/projects", api.projects),
            Route("/api/v1/projects/{project_id}/jobs", api.jobs),
            Route("/api/v1/jobs/{job_id}", api.job),
            Route("/api/v1/jobs/{job_id}/records", api.records),
            Route("/api/v1/usage", api.usage),
            Route("/api/v1/public/trigger/{spinner_id}", api.trigger, methods=["POST"]),
        ],
        middleware=[middleware],
        exception_handlers={
            HTTPException: _http_error,
            QueryError: _bad_query,
            CursorError: _bad_cursor,
            Exception: api.internal_error,
        },
        lifespan=lifespan,
    )
    # A path with an extra slash is unknown, because clients need not follow redirects.
    app.router.redirect_slashes = False
    return app


class _Api:
    """The endpoints. Each lets the engine catch up and then responds without awaiting: a consistent snapshot."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._cursors = Cursors(engine.cursor_key)
        sets = [engine.scenario.labels, *(project.labels for project in engine.projects.values())]
        self._status_labels = STATUS_LABELS.union(*(_values(labels) for labels in sets))

    async def health(self, _: Request) -> Response:
        return _json(wire.health_view(self._engine.heartbeat, self._engine.wall_ms))

    async def projects(self, request: Request) -> Response:
        query = read_query(request.query_params, "limit", "cursor")
        after = self._position(request, query)
        projects = islice(enumerate(self._engine.projects.values(), 1), after, None)
        return self._page(request, query, ((position, wire.project_view(project)) for position, project in projects))

    async def jobs(self, request: Request) -> Response:
        query = read_query(request.query_params, *_JOB_FILTERS, statuses=self._status_labels)
        project = self._engine.projects.get(request.path_params["project_id"])
        if project is None:
            raise HTTPException(404, "There is no such project.")
        return self._job_page(request, query, self._engine.run_index.of_project(project.id))

    async def jobs_of_all_projects(self, request: Request) -> Response:
        query = read_query(request.query_params, *_JOB_FILTERS, "projectId", statuses=self._status_labels)
        if query.project_id is None:
            return self._job_page(request, query, self._engine.run_index.of_all_projects())
        # A filter: of a project that does not exist there are no runs.
        project = self._engine.projects.get(query.project_id)
        runs = RunList() if project is None else self._engine.run_index.of_project(project.id)
        return self._job_page(request, query, runs)

    def _job_page(self, request: Request, query: Query, runs: RunList) -> Response:
        after = self._position(request, query)
        by_change = query.updated_since_ms is not None
        found = self._changed_runs(runs, query, after) if by_change else runs.created_after(after, active=query.active)
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
            # In order of failure, so that a record that fails while a client reads pages is on a later page.
            return self._page(request, query, self._views(run, islice(enumerate(run.failed_records, 1), after, None)))
        return self._page(request, query, self._all_views(run, query, after))

    async def records_of_all_runs(self, request: Request) -> Response:
        names = ("limit", "cursor", "status", "updatedSince")
        query = read_query(request.query_params, *names, statuses=(RecordStatus.FAILED.value,))
        if query.status is None:
            raise QueryError("status: expected failed, since only failed records are listed for all runs")
        failures, since = self._engine.run_index.failures, query.updated_since_ms
        after = self._position(request, query)
        if query.cursor is not None or since is None:
            found = failures.after(after)
        else:
            found = failures.since(lambda moment: self._engine.wall_ms(moment) >= since)
        return self._page(
            request,
            query,
            (
                (each.position, wire.record_of_project_view(each.run, each.record, self._engine.wall_ms))
                for each in found
            ),
        )

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

    async def internal_error(self, _: Request, __: Exception) -> Response:
        # Starlette sends this response outside the middleware, so the Date header is added here.
        return problem(500, "INTERNAL", "Internal error.", {"Date": http_date(self._engine.now_ms())})

    def _run(self, request: Request) -> Run:
        run = self._engine.jobs.get(request.path_params["job_id"])
        if run is None:
            raise HTTPException(404, "There is no such job, or it is no longer kept.")
        return run

    def _changed_runs(self, runs: RunList, query: Query, after: int) -> Iterable[Run]:
        since = query.updated_since_ms
        if query.cursor is not None or since is None:
            changed = runs.changed_after(after)
        else:
            changed = runs.changed_since(lambda moment: self._engine.wall_ms(moment) >= since)
        return (run for run in changed if run.ended_at is None) if query.active else changed

    def _all_views(self, run: Run, query: Query, after: int) -> Iterator[tuple[int, wire.RecordView]]:
        started = islice(enumerate(run.records, 1), after, None)
        wanted = ((position, record) for position, record in started if query.status in (None, record.status.value))
        yield from self._views(run, wanted)
        if query.status in (None, RecordStatus.PENDING.value):
            for index in range(max(after, len(run.records)), run.total):
                yield index + 1, wire.pending_record_view(run, index)

    def _views(self, run: Run, records: Iterable[tuple[int, Record]]) -> Iterator[tuple[int, wire.RecordView]]:
        return ((position, wire.record_view(run, record, self._engine.wall_ms)) for position, record in records)

    def _position(self, request: Request, query: Query) -> int:
        """Return the position after which the page begins; positions start at 1."""
        return 0 if query.cursor is None else self._cursors.read(_scope(request, query), query.cursor)

    def _page(self, request: Request, query: Query, found: Iterator[tuple[int, T]]) -> Response:
        """Return a page with the first items of `found`, which yields positions in the list and items."""
        page = list(islice(found, query.limit))
        more = next(found, None) is not None
        cursor = self._cursors.write(_scope(request, query), page[-1][0]) if more else None
        items = msgspec.json.encode([item for _, item in page])
        etag = f'"{hashlib.blake2b(items + msgspec.json.encode(cursor), digest_size=12).hexdigest()}"'
        if _matches(request.headers.getlist("If-None-Match"), etag):
            return Response(status_code=304, headers={"ETag": etag})
        as_of = wire.rfc3339(self._engine.now_ms())
        return _json(wire.Page(msgspec.Raw(items), cursor, as_of), headers={"ETag": etag})


def _values(labels: scenario.StatusLabels) -> Iterable[str]:
    values: dict[str, str] = msgspec.structs.asdict(labels)
    return values.values()


def _scope(request: Request, query: Query) -> str:
    return f"{request.url.path}\0{query.scope}"


def _matches(conditions: Iterable[str], etag: str) -> bool:
    """Compare as `If-None-Match` requires: weakly, with any of several tags (RFC 9110, section 13.1.2)."""
    tags = [tag.strip().removeprefix("W/") for condition in conditions for tag in condition.split(",")]
    return "*" in tags or etag in tags


def _json(body: msgspec.Struct, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


async def _http_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    codes = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}
    return problem(error.status_code, codes.get(error.status_code, "REFUSED"), error.detail, error.headers)


async def _bad_query(_: Request, error: Exception) -> Response:
    return problem(400, "INVALID_PARAMETER", str(error))


async def _bad_cursor(_: Request, __: Exception) -> Response:
    return problem(
        400, "INVALID_PARAMETER", "cursor: expected the nextCursor of a page of this list with the same filters"
    )
