"""The runtime's HTTP API as async calls that return values of `model`.

What is asked for, and how, is the description's: nothing here knows a path or a parameter. How requests fare on their
way is `http_client`'s.
"""

import dataclasses
import functools
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol, TypeVar

from exporter.config.api_description import ListFilter, Resources, present
from exporter.errors import ApiError, ConfigError
from exporter.runtime.auth import Credentials
from exporter.runtime.decoder import MALFORMED, DecodedPage, Decoder, RunDefaults
from exporter.runtime.endpoint import Endpoint, PageInfo, Request
from exporter.runtime.http_client import ApiResponse, HttpClient, NotFoundError, refusal
from exporter.runtime.layout import MissingError
from exporter.runtime.model import FailedRecord, Health, ListPage, Meter, Project, RecordSnapshot, RunSnapshot
from exporter.runtime.time_slices import TimeSlices
from exporter.status import Status

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """An answer as it came."""

    body: bytes
    dated: float | None
    """The API's time of it, by its header Date."""
    asked_at: float
    """Our time, half way between request and answer."""


class _DecodePage(Protocol[T]):
    def __call__(self, body: bytes, now: float | None) -> DecodedPage[T]: ...


class RuntimeClient:
    """Reads one runtime. Every call raises `ApiError` when the answer cannot be had or used.

    What the description has as absent must not be asked for; `has` tells. Making a client raises `ConfigError` for a
    description that cannot be followed.
    """

    def __init__(
        self,
        http_client: HttpClient,
        base_url: str,
        resources: Resources,
        *,
        credentials: Credentials,
        decoder: Decoder,
        max_pages: int,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`max_pages` is how many pages a list can have before it is taken for one without an end."""
        self._http_client = http_client
        self._wall = wall
        self._base_url = base_url.rstrip("/")
        self._resources = resources
        self._endpoints = {name: Endpoint(name, resource) for name, resource in present(resources).items()}
        self._credentials = credentials
        self._decoder = decoder
        self._max_pages = max_pages
        self.time_slices = TimeSlices()
        """What takes long, which decoding a page does, is done in a turn of these."""

    def begin_sync(self) -> None:
        """Begin a sync, which allows one trial request if the circuit breaker is open."""
        self._http_client.begin_sync()

    async def close(self) -> None:
        """Close the connections."""
        await self._http_client.close()

    def has(self, resource: str) -> bool:
        """Whether the deployment has it: health, projects, jobs, job, records or usage."""
        return resource in self._endpoints

    @property
    def tells_active(self) -> bool:
        """Whether runs that have not ended can be asked for."""
        return self._resources.jobs.active is not None

    @property
    def counts_records(self) -> bool:
        """Whether a run's records have to be counted one by one, since the run itself has no counts."""
        return self._resources.counts == "records"

    async def sample(self, resource: str, run: RunSnapshot | None = None, *, project_id: str = "") -> Sample:
        """Ask for one resource as it is, its first page of a list, and return the answer undecoded."""
        endpoint = self._endpoints[resource]
        started = self._wall()
        answer = await self._send(endpoint, endpoint.request({"project": project_id} if run is None else _ids(run)))
        return Sample(answer.body, answer.date, (started + self._wall()) / 2)

    async def health(self) -> Health:
        """Read how the worker service is."""
        answer = await self._send(self._endpoints["health"], self._endpoints["health"].request({}))
        return self._decode("health", self._decoder.health, answer)

    def projects(self, *, etag: str | None = None) -> AsyncIterator[ListPage[Project]]:
        """Read the projects that the token can see."""
        endpoint = self._endpoints["projects"]
        return self._pages(endpoint, endpoint.request({}), lambda body, now: self._decoder.projects(body), etag=etag)

    def jobs(
        self,
        project: Project,
        *,
        updated_since: float | None = None,
        active: bool = False,
        etag: str | None = None,
    ) -> AsyncIterator[ListPage[RunSnapshot]]:
        """Read a project's runs: those updated since a time of the runtime's clock, or those that have not ended."""
        endpoint = self._endpoints["jobs"]
        narrowing = endpoint.resource.active if active else endpoint.resource.changed
        request = endpoint.request({"project": project.id}, narrowing, since=updated_since)
        return self._pages(
            endpoint,
            request,
            lambda body, now: self._decoder.jobs(body, RunDefaults(project.id, project.name, now)),
            etag=etag,
        )

    async def job(self, run: RunSnapshot) -> RunSnapshot:
        """Read one run again; raises `NotFoundError` when it is gone."""
        endpoint = self._endpoints["job"]
        answer = await self._send(endpoint, endpoint.request(_ids(run)))
        known = RunDefaults(run.project_id, run.spinner, answer.date)
        return self._decode("job", lambda body: self._decoder.job(body, known), answer)

    async def failed_records(self, run: RunSnapshot) -> AsyncIterator[ListPage[FailedRecord]]:
        """Read a run's failed records; where the API cannot be asked for those alone, they are picked out of all."""
        endpoint = self._endpoints["records"]
        if endpoint.resource.failed is not None:
            request = endpoint.request(_ids(run), endpoint.resource.failed)
            async for page in self._pages(endpoint, request, lambda body, now: self._decoder.failed_records(body)):
                yield page
            return
        async for sights in self.records(run):
            failed = tuple(sight.record for sight in sights.items if sight.status is Status.FAILED)
            yield ListPage(failed, sights.as_of)

    def records(
        self, run: RunSnapshot, *, changed_since: float | None = None
    ) -> AsyncIterator[ListPage[RecordSnapshot]]:
        """Read a run's records: all of them, or those that changed since, where the API can tell."""
        endpoint = self._endpoints["records"]
        narrowing: ListFilter | None = endpoint.resource.changed if changed_since is not None else None
        request = endpoint.request(_ids(run), narrowing, since=changed_since)
        return self._pages(endpoint, request, lambda body, now: self._decoder.records(body))

    @property
    def tells_changed_records(self) -> bool:
        """Whether `records` can ask for those that changed."""
        return self.has("records") and self._endpoints["records"].resource.changed is not None

    async def usage(self) -> tuple[Meter, ...]:
        """Read the organisation's plan meters."""
        answer = await self._send(self._endpoints["usage"], self._endpoints["usage"].request({}))
        return self._decode("usage", self._decoder.usage, answer)

    async def _pages(
        self,
        endpoint: Endpoint,
        request: Request,
        decode: "_DecodePage[T]",
        *,
        etag: str | None = None,
    ) -> AsyncIterator[ListPage[T]]:
        headers = {"If-None-Match": etag} if etag else {}
        asked = {repr(request)}
        before = b""
        number = 1
        while True:
            answer = await self._send(endpoint, request, headers=headers)
            if answer.status == 304:
                yield ListPage((), answer.date, etag, not_modified=True)
                return
            await self.time_slices.next()
            listing = self._decode(endpoint.name, functools.partial(decode, now=answer.date), answer)
            as_of = listing.as_of if listing.as_of is not None else answer.date
            turn = PageInfo(listing.size, listing.next_cursor, answer.next_link)
            following = endpoint.next(request, turn, number)
            whole = number == 1 and following is None
            yield ListPage(listing.items, as_of, answer.headers.get("ETag") if whole else None)
            if following is None:
                return
            # Also where a server takes no notice of what says which page is wanted.
            if repr(following) in asked or answer.body == before:
                raise ApiError(f"{endpoint.name}: the list does not end: it leads to the same page again")
            if number == self._max_pages:
                raise ApiError(f"{endpoint.name}: the list has more pages than limits.pages ({self._max_pages})")
            asked.add(repr(following))
            request, headers, before, number = following, {}, answer.body, number + 1

    async def _send(
        self, endpoint: Endpoint, request: Request, *, headers: Mapping[str, str] | None = None
    ) -> ApiResponse:
        """Send a request; with an `If-None-Match` among its headers 304 is an answer as well."""
        return await self._http_client.send(
            endpoint.name,
            request.method,
            self._base_url + request.path,
            query=request.query,
            body=request.body,
            headers={**(headers or {}), **(self._authorization() if endpoint.resource.token else {})},
            accept=(*endpoint.resource.accept, 304) if headers else endpoint.resource.accept,
        )

    def _authorization(self) -> Mapping[str, str]:
        try:
            return self._credentials.headers()
        except ConfigError as error:
            raise ApiError(str(error)) from None

    def _decode(self, endpoint: str, decode: Callable[[bytes], T], answer: ApiResponse) -> T:
        try:
            return decode(answer.body)
        except MissingError as error:
            raise NotFoundError(f"{endpoint}: {error}") from None
        except MALFORMED as error:
            if answer.status != 200:
                raise refusal(endpoint, answer) from None
            kind = re.match(r"[a-z]+/[a-z.+-]+", answer.headers.get("Content-Type", ""))
            if kind and kind[0] != "application/json":
                raise ApiError(f"{endpoint}: expected JSON, got {kind[0][:40]}; check runtime.base_url") from None
            raise ApiError(f"{endpoint}: the answer is not what the API promises: {error}") from None


def _ids(run: RunSnapshot) -> dict[str, str]:
    refs = {f"ref.{name}": value for name, value in run.refs}
    return {"project": run.project_id, "run": run.id, **refs}
