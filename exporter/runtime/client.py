"""The runtime's HTTP API as async calls that return values of `model`.

Paths and parameters come from the API description; `http_client` sends the requests.
"""

import dataclasses
import functools
import math
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Generic, Protocol, TypeVar
from urllib.parse import urlsplit

from exporter.config import LimitsConfig
from exporter.config.api_description import ListFilter, Paging, Resources, present
from exporter.errors import ApiError, ConfigError
from exporter.runtime.auth import Credentials
from exporter.runtime.decoder import MALFORMED, DecodedPage, Decoder, RunDefaults
from exporter.runtime.endpoint import Endpoint
from exporter.runtime.held import LEAST_PER_ITEM, HeldBytes
from exporter.runtime.http_client import (
    RETRIES,
    ApiResponse,
    HttpClient,
    NotFoundError,
    RefusedError,
    TokenRefusedError,
    error_code,
    refusal,
)
from exporter.runtime.layout import GoneError, NullListError, ReportedError
from exporter.runtime.model import (
    FailedRecord,
    Health,
    ListPage,
    Meter,
    OpenRecord,
    Project,
    RecordOfRun,
    RecordSnapshot,
    RunSnapshot,
)
from exporter.runtime.paging import PageInfo, PageSizes, Request, digest, next_link
from exporter.runtime.rate_limits import Allowance, allowance
from exporter.runtime.time_slices import TimeSlices
from exporter.status import Status

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class RawResponse:
    """An undecoded response."""

    body: bytes
    date: float | None
    """The API's time, from the header Date."""
    local_time: float
    """The exporter's time, half way between request and response."""
    link: str | None = None
    """The URL of the next page in the header Link."""
    allowance: Allowance | None = None
    """The API's rate limit, if headers tell it."""

    @property
    def time(self) -> float:
        """The API's time of the response; the exporter's if the API does not tell it."""
        return self.local_time if self.date is None else self.date


class PageCache(Generic[T]):
    """The pages of a list as last read, so that each of them is requested on the condition that it has changed."""

    def __init__(self) -> None:
        self.pages: dict[str, CachedPage[T]] = {}
        """By their requests; only those with an ETag."""


@dataclasses.dataclass(frozen=True, slots=True)
class CachedPage(Generic[T]):
    """A page with what leads from it to the next one."""

    etag: str
    listing: DecodedPage[T]
    link: str | None


class ListTooLongError(ApiError):
    """A list has more pages than `limits.pages`."""


class _NullListError(ApiError):
    """A response with null where a list should be."""


class _DecodePage(Protocol[T]):
    def __call__(self, body: bytes, now: float | None) -> DecodedPage[T]: ...


class RuntimeClient:
    """Reads one runtime. Every call raises `ApiError` without a usable response.

    Resources that the description declares absent must not be requested; see `has`. The constructor raises
    `ConfigError` for an invalid description.
    """

    def __init__(
        self,
        http_client: HttpClient,
        base_url: str,
        resources: Resources,
        *,
        credentials: Credentials,
        decoder: Decoder,
        limits: LimitsConfig,
        max_age: float = math.inf,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`limits` bound what is read, in case a list never ends.

        A response that a cache has had for longer than `max_age` seconds is not usable: it says nothing about now, and
        its time would be taken for that of a clock that is behind.
        """
        self._http_client = http_client
        self._wall = wall
        self._base_url = base_url.rstrip("/")
        self._resources = resources
        self._endpoints = {name: Endpoint(name, resource) for name, resource in present(resources).items()}
        self._credentials = credentials
        self._decoder = decoder
        self._limits = limits
        self._max_age = max_age
        self.held = HeldBytes(limits.read_bytes)
        """What the reads hold; whoever collects pages adds them."""
        self.lists_all_projects = self.has("projects") and resources.jobs.lists_all_projects
        """Whether the list of a project's runs is one of all projects, of which each run tells its own."""
        every = resources.jobs.of_all_projects if self.has("projects") else None
        self._all_jobs = None if every is None else Endpoint("jobs", every)
        records = self._endpoints["records"].resource if self.has("records") else None
        of_all_runs = None if records is None else records.of_all_runs
        self._all_records = None if of_all_runs is None else Endpoint("records", of_all_runs)
        self.can_list_records_of_a_run = records is not None and not records.lists_all_runs
        """Whether the records of one run can be requested without those of the others."""
        self.can_list_one_project = not self.lists_all_projects or resources.jobs.project is not None
        """Whether the runs of one project can be requested without those of the others."""
        self._references: dict[str, dict[str, str]] = {}
        """What paths need of each project, by its id."""
        self.time_slices = TimeSlices()
        """Each long step, such as decoding a page, waits for its slice."""

    def begin_sync(self) -> None:
        """Begin a sync, which allows one trial request if the circuit breaker is open."""
        self._http_client.begin_sync()

    async def close(self) -> None:
        """Close the connections."""
        await self._http_client.close()

    def has(self, resource: str) -> bool:
        """Whether the deployment has a resource: health, projects, jobs, job, records or usage."""
        return resource in self._endpoints

    @property
    def can_list_active(self) -> bool:
        """Whether the API can list only runs that have not ended."""
        return self._resources.jobs.active is not None

    @property
    def counts_records(self) -> bool:
        """Whether runs have no record counts, so that their records must be counted."""
        return self._resources.counts == "records"

    @property
    def tells_total(self) -> bool:
        """Whether the number of a run's records that are listed while it goes on is their total."""
        return self._resources.tells_total

    async def raw_response(
        self,
        resource: str,
        run: RunSnapshot | None,
        *,
        project_id: str,
        restrictions: Iterable[ListFilter | None] = (),
        since: float | None = None,
        across: bool = False,
    ) -> RawResponse:
        """Request one resource, of a list its first page, and return the undecoded response.

        A list can have `restrictions`, of which one can be to what changed `since` a time of the runtime's clock.
        `across`: the list of all projects or of all runs, only if one is described.
        """
        endpoint = self._endpoint(resource, across=across)
        started = self._wall()
        request = endpoint.request(self._ids_of(run, project_id), *restrictions, since=since)
        response = await self._send(endpoint, request)
        now = (started + self._wall()) / 2
        limit = allowance(response.headers, now=now if response.date is None else response.date)
        return RawResponse(response.body, response.date, now, next_link(response.headers), limit)

    async def second_page(
        self, resource: str, run: RunSnapshot | None, first: PageInfo, *, project_id: str
    ) -> RawResponse | int | None:
        """Request the second page of a list, also if the first one is not full, and return the undecoded response.

        Instead of it, returns a status that means that the first page is the last, or None if nothing leads further.
        Raises `ApiError`, also if the first page contradicts itself.
        """
        endpoint = self._endpoints[resource]
        pages = endpoint.pages(endpoint.request(self._ids_of(run, project_id)), sizes=PageSizes())
        if not pages.next(first):
            return None
        response = await self._send(endpoint, pages.request, accept=pages.ends_with)
        if response.status not in endpoint.resource.accept:
            return response.status
        return RawResponse(response.body, response.date, self._wall())

    def paging(self, resource: str) -> Paging:
        """Return how a list is divided into pages, as the API description says."""
        return self._endpoints[resource].resource.paging

    def request_line(self, resource: str, run: RunSnapshot | None, *, project_id: str, across: bool = False) -> str:
        """Return the method and the whole path of the request that `raw_response` sends, for messages: no query."""
        endpoint = self._endpoint(resource, across=across)
        try:
            path = endpoint.request(self._ids_of(run, project_id)).path
        except ApiError:
            path = endpoint.resource.path
        return f"{endpoint.resource.method} {urlsplit(self._base_url).path}{path}"

    async def health(self) -> Health:
        """Read the state of the worker service."""
        response = await self._send(self._endpoints["health"], self._endpoints["health"].request({}))
        return self._decode("health", lambda body: self._decoder.health(body, response.date), response)

    async def projects(self, cache: PageCache[Project] | None = None) -> AsyncIterator[ListPage[Project]]:
        """Read the projects that the token has access to; `cache` has the pages of the last read, then of this one."""
        endpoint = self._endpoints["projects"]
        pages = self._pages(endpoint, endpoint.request({}), lambda body, now: self._decoder.projects(body), cache=cache)
        async for page in pages:
            self.note_projects(page.items)
            yield page

    def note_projects(self, projects: Iterable[Project]) -> None:
        """Note what paths need of some projects. Of very many the oldest are forgotten."""
        for project in projects:
            if project.refs:
                self._references.pop(project.id, None)
                self._references[project.id] = {f"ref.{name}": value for name, value in project.refs}
        while len(self._references) > REFERENCES_PER_PROJECT * self._limits.projects:
            del self._references[next(iter(self._references))]

    def jobs(
        self,
        project: Project,
        *,
        updated_since: float | None = None,
        active: bool = False,
        etag: str | None = None,
    ) -> AsyncIterator[ListPage[RunSnapshot]]:
        """Read a project's runs: updated since a time of the runtime's clock, or only those that have not ended.

        With `lists_all_projects` there are runs of other projects among them.
        """
        endpoint = self._endpoints["jobs"]
        project_id = None if self.lists_all_projects else project.id
        return self._runs(
            endpoint,
            self._ids_of(None, project.id),
            lambda body, now: self._decoder.jobs(body, RunDefaults(project_id, project.name, now)),
            endpoint.resource.project,
            updated_since=updated_since,
            active=active,
            etag=etag,
        )

    @property
    def can_list_all_projects(self) -> bool:
        """Whether one list of the runs of all projects is described; a runtime may not have it."""
        return self._all_jobs is not None

    def all_jobs(
        self,
        names: Mapping[str, str],
        *,
        updated_since: float | None = None,
        active: bool = False,
        etag: str | None = None,
    ) -> AsyncIterator[ListPage[RunSnapshot]]:
        """Read the runs of all projects, like `jobs`; only with `can_list_all_projects`.

        `names` are those of the projects by their ids.
        """
        endpoint = self._all_jobs
        if endpoint is None:
            raise ApiError("jobs: no list of all projects is described")
        return self._runs(
            endpoint,
            {},
            lambda body, now: self._decoder.jobs(body, RunDefaults(None, now=now, names=names)),
            None,
            updated_since=updated_since,
            active=active,
            etag=etag,
        )

    async def _runs(
        self,
        endpoint: Endpoint,
        ids: Mapping[str, str],
        decode: "_DecodePage[RunSnapshot]",
        project: ListFilter | None,
        *,
        updated_since: float | None,
        active: bool,
        etag: str | None,
    ) -> AsyncIterator[ListPage[RunSnapshot]]:
        """Read a list of runs. That of those that have not ended can be several, one after the other."""
        narrowings = endpoint.resource.narrowings if active else (endpoint.resource.changed,)
        for narrowing in narrowings or (None,):
            request = endpoint.request(ids, narrowing, project, since=updated_since)
            # An ETag is that of one list.
            async for page in self._pages(endpoint, request, decode, etag=etag if len(narrowings) == 1 else None):
                yield page if len(narrowings) == 1 else dataclasses.replace(page, etag=None)

    async def job(self, run: RunSnapshot) -> RunSnapshot:
        """Read one run again. Raises `NotFoundError` if it no longer exists."""
        endpoint = self._endpoints["job"]
        response = await self._send(endpoint, endpoint.request(self._ids(run)))
        known = RunDefaults(run.project_id, run.spinner, response.date)
        return self._decode("job", lambda body: self._decoder.job(body, known), response)

    async def failed_records(self, run: RunSnapshot) -> AsyncIterator[ListPage[FailedRecord]]:
        """Read a run's failed records; an API that cannot filter them is read whole.

        Each page is a single request: one that fails is not retried.
        """
        endpoint = self._endpoints["records"]
        if endpoint.resource.failed is not None:
            request = endpoint.request(self._ids(run), endpoint.resource.failed)
            pages = self._pages(endpoint, request, lambda body, now: self._decoder.failed_records(body), retries=False)
            async for page in pages:
                yield page
            return
        request = endpoint.request(self._ids(run))
        whole = self._pages(endpoint, request, lambda body, now: self._decoder.records(body), retries=False)
        async for all_records in whole:
            failed = tuple(each.record for each in all_records.items if each.status is Status.FAILED)
            yield ListPage(failed, all_records.as_of)

    @property
    def can_list_records_in_flight(self) -> bool:
        """Whether a list of the records that a run works on is described; a runtime may not have it."""
        return self.can_list_records_of_a_run and self._endpoints["records"].resource.running is not None

    def records_in_flight(self, run: RunSnapshot) -> AsyncIterator[ListPage[OpenRecord]]:
        """Read the records that a run works on; only with `can_list_records_in_flight`.

        Each page is a single request: one that fails is not retried.
        """
        return self._open_records(run, self._endpoints["records"].resource.running, Status.RUNNING)

    @property
    def can_list_waiting_records(self) -> bool:
        """Whether a list of the records that wait is described; a runtime may not have it."""
        return self.can_list_records_of_a_run and self._endpoints["records"].resource.waiting is not None

    def waiting_records(self, run: RunSnapshot) -> AsyncIterator[ListPage[OpenRecord]]:
        """Read the records of a run that wait; only with `can_list_waiting_records`.

        Each page is a single request: one that fails is not retried.
        """
        return self._open_records(run, self._endpoints["records"].resource.waiting, Status.WAITING)

    async def _open_records(
        self, run: RunSnapshot, restriction: ListFilter | None, status: Status
    ) -> AsyncIterator[ListPage[OpenRecord]]:
        endpoint = self._endpoints["records"]
        request = endpoint.request(self._ids(run), restriction)
        decode = self._decoder.open_records
        async for page in self._pages(endpoint, request, lambda body, now: decode(body, status), retries=False):
            found = tuple(record for record in page.items if record is not None)
            yield ListPage(found, page.as_of, requested_at=page.requested_at, has_next=page.has_next)

    @property
    def can_list_records_of_all_runs(self) -> bool:
        """Whether one list of the failed records of all runs is described; a runtime may not have it."""
        return self._all_records is not None

    def failed_records_of_all_runs(self, *, updated_since: float) -> AsyncIterator[ListPage[RecordOfRun]]:
        """Read the failed records of all runs that changed since a time of the runtime's clock.

        Only with `can_list_records_of_all_runs`. Each page is a single request: one that fails is not retried.
        """
        endpoint = self._all_records
        if endpoint is None:
            raise ApiError("records: no list of all runs is described")
        failed = endpoint.resource.failed
        request = endpoint.request({}, failed, endpoint.resource.changed, since=updated_since)
        return self._pages(
            endpoint,
            request,
            lambda body, now: self._decoder.failed_records_of_all_runs(body, has_others=failed is None),
            retries=False,
        )

    def records(
        self, run: RunSnapshot, *, changed_since: float | None = None
    ) -> AsyncIterator[ListPage[RecordSnapshot]]:
        """Read a run's records: all, or those changed since a time if `can_list_changed_records`."""
        endpoint = self._endpoints["records"]
        list_filter: ListFilter | None = endpoint.resource.changed if changed_since is not None else None
        request = endpoint.request(self._ids(run), list_filter, since=changed_since)
        return self._pages(endpoint, request, lambda body, now: self._decoder.records(body))

    @property
    def can_list_changed_records(self) -> bool:
        """Whether the API can list only records that changed."""
        return self.has("records") and self._endpoints["records"].resource.changed is not None

    async def usage(self) -> tuple[Meter, ...]:
        """Read the organisation's plan meters."""
        response = await self._send(self._endpoints["usage"], self._endpoints["usage"].request({}))
        meters = self._decode("usage", self._decoder.usage, response)
        if len(meters) > self._limits.meters:
            raise ApiError(f"usage: the plan has more meters than limits.meters ({self._limits.meters:,})")
        return meters

    async def _pages(
        self,
        endpoint: Endpoint,
        request: Request,
        decode: "_DecodePage[T]",
        *,
        etag: str | None = None,
        cache: PageCache[T] | None = None,
        retries: bool = True,
    ) -> AsyncIterator[ListPage[T]]:
        headers = {"If-None-Match": etag} if etag else {}
        cached, fresh = {} if cache is None else cache.pages, dict[str, CachedPage[T]]()
        pages = endpoint.pages(request)
        # Hashes, since thousands of projects can be between two pages at the same time.
        before = b"", hash(())
        while True:
            place = repr(pages.request)
            if (known := cached.get(place)) is not None:
                headers = {"If-None-Match": known.etag}
            response = await self._send(
                endpoint, pages.request, headers=headers, accept=pages.ends_with, retries=retries
            )
            if response.status == 304 and known is None:
                yield ListPage((), response.date, etag, not_modified=True, requested_at=response.requested_at)
                return
            if known is not None and response.status == 304:
                listing, link, etag = known.listing, known.link, known.etag
            elif response.status not in endpoint.resource.accept:
                if error_code(response) == "PLAN_LIMIT":
                    raise refusal(endpoint.name, response)
                pages.end()
                return
            else:
                await self.time_slices.next()
                try:
                    listing = self._decode(endpoint.name, functools.partial(decode, now=response.date), response)
                except _NullListError:
                    if not pages.is_counted or pages.number == 1:
                        raise
                    pages.end()
                    return
                link, etag = next_link(response.headers), _usable_etag(response)
            as_of = response.date if response.status == 304 or listing.as_of is None else listing.as_of
            if etag is not None and cache is not None:
                fresh[place] = CachedPage(etag, listing, link)
            has_next = pages.next(
                PageInfo(
                    listing.size,
                    listing.next_cursor,
                    link,
                    listing.total,
                    listing.more,
                    listing.pages,
                    # Also if the server ignores the page parameter.
                    repeats=(response.status != 304 and digest(response.body) == before[0])
                    or hash(listing.items) == before[1] != hash(()),
                )
            )
            etag = etag if pages.number == 1 else None
            size = max(len(response.body), LEAST_PER_ITEM * len(listing.items))
            yield ListPage(
                listing.items,
                as_of,
                etag,
                requested_at=response.requested_at,
                size=size,
                has_next=has_next,
                skipped=listing.skipped,
            )
            if not has_next:
                if cache is not None:
                    cache.pages = fresh
                return
            if pages.number > self._limits.pages:
                raise ListTooLongError(
                    f"{endpoint.name}: the list has more pages than limits.pages ({self._limits.pages})"
                )
            headers, before = {}, (digest(response.body), hash(listing.items))

    async def _send(
        self,
        endpoint: Endpoint,
        request: Request,
        *,
        headers: Mapping[str, str] | None = None,
        accept: Callable[[int], bool] = lambda status: False,
        retries: bool = True,
    ) -> ApiResponse:
        """Send a request. Statuses that `accept` returns true for are accepted too, and 304 to an `If-None-Match`.

        After a 401 it is sent once more if there is another token.
        """

        async def attempt(token: str | None) -> ApiResponse:
            try:
                response = await self._http_client.send(
                    endpoint.name,
                    request.method,
                    self._base_url + request.path,
                    query=request.query,
                    body=request.body,
                    headers={**(headers or {}), **self._credentials.headers(token)},
                    accept=lambda response: (
                        self._is_valid(endpoint, response)
                        or (bool(headers) and response.status == 304)
                        or accept(response.status)
                    ),
                    retries=RETRIES if retries else 0,
                )
            except TokenRefusedError as error:
                origin = self._origin_of_token(endpoint)
                raise TokenRefusedError(f"{error} ({origin})", status=error.status, public=str(error)) from None
            if response.age > self._max_age:
                # Without the number of seconds, which would make it a new problem with every scrape.
                raise ApiError(
                    f"{endpoint.name}: the response is one that a cache has had for longer than sync.stale_after; "
                    "let it cache nothing of the API"
                )
            return response

        if not endpoint.resource.token:
            return await attempt(None)
        tokens = self._credentials.source
        token = await self._usable(tokens.current())
        try:
            return await attempt(token)
        except RefusedError as error:
            another = await self._usable(tokens.renewed(token)) if error.status == 401 and token else None
            if another is None:
                raise
        try:
            response = await attempt(another)
        except RefusedError as error:
            if error.status == 401:
                tokens.confirm(another, accepted=False)
            raise
        tokens.confirm(another, accepted=True)
        return response

    def _endpoint(self, resource: str, *, across: bool) -> Endpoint:
        """Return the endpoint of a resource, or that of its list of all projects or of all runs."""
        of_all = self._all_jobs if resource == "jobs" else self._all_records
        return of_all if across and of_all is not None else self._endpoints[resource]

    def _origin_of_token(self, endpoint: Endpoint) -> str:
        if not endpoint.resource.token:
            return f"not sent: runtime.resources.{endpoint.name}.token: false"
        return self._credentials.source.origin

    def _is_valid(self, endpoint: Endpoint, response: ApiResponse) -> bool:
        """Whether a response has a status of a valid one, and is not an error that has the same status."""
        if response.status not in endpoint.resource.accept:
            return False
        return endpoint.name != "health" or response.status == 200 or self._decoder.tells_health(response.body)

    async def _usable(self, token: Awaitable[str | None]) -> str | None:
        try:
            return await token
        except ConfigError as error:
            raise ApiError(str(error), public="the token cannot be used; the log says why") from None

    def _ids_of(self, run: RunSnapshot | None, project_id: str) -> dict[str, str]:
        """Return what paths can contain of a run and its project."""
        return {"project": project_id, **self._references.get(project_id, {})} if run is None else self._ids(run)

    def _ids(self, run: RunSnapshot) -> dict[str, str]:
        refs = {f"ref.{name}": value for name, value in run.refs}
        return {**self._ids_of(None, run.project_id), "run": run.id, **refs}

    def _decode(self, endpoint: str, decode: Callable[[bytes], T], response: ApiResponse) -> T:
        try:
            return decode(response.body)
        except GoneError as error:
            raise NotFoundError(f"{endpoint}: {error}") from None
        except ReportedError as error:
            raise ApiError(f"{endpoint}: {error}") from None
        except NullListError as error:
            raise _NullListError(f"{endpoint}: the response does not match the API description: {error}") from None
        except MALFORMED as error:
            if response.status != 200:
                raise refusal(endpoint, response) from None
            kind = re.match(r"[a-z]+/[a-z.+-]+", response.headers.get("Content-Type", ""))
            if kind and kind[0] != "application/json":
                raise ApiError(f"{endpoint}: expected JSON, got {kind[0][:40]}; check runtime.base_url") from None
            raise ApiError(f"{endpoint}: the response does not match the API description: {error}") from None


def _usable_etag(response: ApiResponse) -> str | None:
    """Return the ETag; None without one, or if a request cannot carry it, or if it is too long to be kept."""
    etag = response.headers.get("ETag", "")
    return etag if etag.isascii() and etag.isprintable() and 0 < len(etag) <= MAX_ETAG else None


MAX_ETAG = 1000
"""Characters of an ETag: one is kept for each project."""

REFERENCES_PER_PROJECT = 2
"""Projects whose references are kept, for each of `limits.projects`: some leave the list and come back."""
