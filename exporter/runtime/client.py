"""The runtime's HTTP API as async calls that return values of `model`; the only module that knows httpx.

What is asked for, and how, is the description's: nothing here knows a path or a parameter.

One client has one budget: at most `concurrency` requests at once, and none while a `Retry-After` runs. It does
not repeat a failed request: the next scrape comes soon enough, and a runtime in trouble is not helped by more.
"""

import asyncio
import dataclasses
import email.utils
import functools
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol, TypeVar

import httpx

from exporter.description import Narrowing, Resources, present
from exporter.errors import ApiError, ConfigError
from exporter.runtime.auth import Credentials
from exporter.runtime.layout import Layout, Request, Turn
from exporter.runtime.model import FailedRecord, Health, Meter, Page, Project, RecordSight, RunSnapshot
from exporter.runtime.wire import MALFORMED, Decoder, Known, Listing, MissingError
from exporter.status import Status

T = TypeVar("T")

MAX_PAUSE = 300.0
"""Seconds that a `Retry-After` can hold us off at most: a server that says "tomorrow" must not blind us."""


class NotFoundError(ApiError):
    """The runtime does not have it, or not any more (404)."""


class PausedError(ApiError):
    """Not asked, because the runtime's last `Retry-After` still runs."""


class RequestObserver(Protocol):
    """Is told of every request that was sent."""

    def request_sent(self, endpoint: str, code: str, seconds: float) -> None:
        """`code` is the HTTP status, or `error` where none came; `seconds` is how long it took."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """An answer as it came."""

    body: bytes
    dated: float | None
    """The API's time of it, by its header Date."""
    asked_at: float
    """Our time, half way between request and answer."""


class _DecodePage(Protocol[T]):
    def __call__(self, body: bytes, now: float | None) -> Listing[T]: ...


class RuntimeClient:
    """Reads one runtime. Every call raises `ApiError` when the answer cannot be had or used.

    What the description has as absent must not be asked for; `has` tells. Making a client raises `ConfigError` for a
    description that cannot be followed.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        base_url: str,
        resources: Resources,
        *,
        credentials: Credentials,
        decoder: Decoder,
        observer: RequestObserver,
        concurrency: int,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._http = http
        self._wall = wall
        self._base_url = base_url.rstrip("/")
        self._resources = resources
        self._layouts = {name: Layout(name, resource) for name, resource in present(resources).items()}
        self._credentials = credentials
        self._decoder = decoder
        self._observer = observer
        self._monotonic = monotonic
        self._slots = asyncio.Semaphore(concurrency)
        self._paused_until = float("-inf")

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def has(self, resource: str) -> bool:
        """Whether the deployment has it: health, projects, jobs, job, records or usage."""
        return resource in self._layouts

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
        layout = self._layouts[resource]
        started = self._wall()
        response = await self._send(layout, layout.request({"project": project_id} if run is None else _ids(run)))
        return Sample(response.content, _http_date(response), (started + self._wall()) / 2)

    async def health(self) -> Health:
        """Read how the worker service is."""
        response = await self._send(self._layouts["health"], self._layouts["health"].request({}))
        return self._decode("health", self._decoder.health, response)

    def projects(self, *, etag: str | None = None) -> AsyncIterator[Page[Project]]:
        """Read the projects that the token can see."""
        layout = self._layouts["projects"]
        return self._pages(layout, layout.request({}), lambda body, now: self._decoder.projects(body), etag=etag)

    def jobs(
        self,
        project: Project,
        *,
        updated_since: float | None = None,
        active: bool = False,
        etag: str | None = None,
    ) -> AsyncIterator[Page[RunSnapshot]]:
        """Read a project's runs: those updated since a time of the runtime's clock, or those that have not ended."""
        layout = self._layouts["jobs"]
        narrowing = layout.resource.active if active else layout.resource.changed
        request = layout.request({"project": project.id}, narrowing, since=updated_since)
        return self._pages(
            layout,
            request,
            lambda body, now: self._decoder.jobs(body, Known(project.id, project.name, now)),
            etag=etag,
        )

    async def job(self, run: RunSnapshot) -> RunSnapshot:
        """Read one run again; raises `NotFoundError` when it is gone."""
        layout = self._layouts["job"]
        response = await self._send(layout, layout.request(_ids(run)))
        now = _http_date(response)
        return self._decode(
            "job", lambda body: self._decoder.job(body, Known(run.project_id, run.spinner, now)), response
        )

    async def failed_records(self, run: RunSnapshot) -> AsyncIterator[Page[FailedRecord]]:
        """Read a run's failed records; where the API cannot be asked for those alone, they are picked out of all."""
        layout = self._layouts["records"]
        if layout.resource.failed is not None:
            request = layout.request(_ids(run), layout.resource.failed)
            async for page in self._pages(layout, request, lambda body, now: self._decoder.failed_records(body)):
                yield page
            return
        async for sights in self.records(run):
            failed = tuple(sight.record for sight in sights.items if sight.status is Status.FAILED)
            yield Page(failed, sights.as_of)

    def records(self, run: RunSnapshot, *, changed_since: float | None = None) -> AsyncIterator[Page[RecordSight]]:
        """Read a run's records: all of them, or those that changed since, where the API can tell."""
        layout = self._layouts["records"]
        narrowing: Narrowing | None = layout.resource.changed if changed_since is not None else None
        request = layout.request(_ids(run), narrowing, since=changed_since)
        return self._pages(layout, request, lambda body, now: self._decoder.records(body))

    @property
    def tells_changed_records(self) -> bool:
        """Whether `records` can ask for those that changed."""
        return self.has("records") and self._layouts["records"].resource.changed is not None

    async def usage(self) -> tuple[Meter, ...]:
        """Read the organisation's plan meters."""
        response = await self._send(self._layouts["usage"], self._layouts["usage"].request({}))
        return self._decode("usage", self._decoder.usage, response)

    async def _pages(
        self,
        layout: Layout,
        request: Request,
        decode: "_DecodePage[T]",
        *,
        etag: str | None = None,
    ) -> AsyncIterator[Page[T]]:
        headers = {"If-None-Match": etag} if etag else {}
        asked = {repr(request)}
        before = b""
        number = 1
        while True:
            response = await self._send(layout, request, headers=headers, not_modified=bool(headers))
            dated = _http_date(response)
            if response.status_code == 304:
                yield Page((), dated, etag, not_modified=True)
                return
            listing = self._decode(layout.name, functools.partial(decode, now=dated), response)
            as_of = listing.as_of if listing.as_of is not None else dated
            turn = Turn(listing.size, listing.next_cursor, response.links.get("next", {}).get("url"))
            following = layout.next(request, turn, number)
            whole = number == 1 and following is None
            yield Page(listing.items, as_of, response.headers.get("ETag") if whole else None)
            if following is None:
                return
            # Also where a server takes no notice of what says which page is wanted.
            if repr(following) in asked or response.content == before:
                raise ApiError(f"{layout.name}: the list does not end: it leads to the same page again")
            asked.add(repr(following))
            request, headers, before, number = following, {}, response.content, number + 1

    async def _send(
        self,
        layout: Layout,
        request: Request,
        *,
        headers: dict[str, str] | None = None,
        not_modified: bool = False,
    ) -> httpx.Response:
        endpoint = layout.name
        headers = dict(headers or {})
        if layout.resource.token:
            headers |= self._authorization()
        async with self._slots:
            pause = self._paused_until - self._monotonic()
            if pause > 0:
                raise PausedError(f"{endpoint}: not asked: the runtime wants us to wait {pause:.0f} s more")
            started = self._monotonic()
            code = "error"
            try:
                response = await self._http.request(
                    request.method,
                    self._base_url + request.path,
                    params=request.query,
                    json=request.body,
                    headers=headers,
                )
                code = str(response.status_code)
            except httpx.TimeoutException as error:
                raise ApiError(f"{endpoint}: no answer in time ({type(error).__name__})") from None
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                # The error's own text can quote what a server sent; its class says what went wrong.
                raise ApiError(f"{endpoint}: no answer ({type(error).__name__})") from None
            finally:
                self._observer.request_sent(endpoint, code, self._monotonic() - started)
        if response.status_code not in layout.resource.accept and not (not_modified and response.status_code == 304):
            raise self._refusal(endpoint, response)
        return response

    def _authorization(self) -> Mapping[str, str]:
        try:
            return self._credentials.headers()
        except ConfigError as error:
            raise ApiError(str(error)) from None

    def _refusal(self, endpoint: str, response: httpx.Response) -> ApiError:
        """Say what a status means. The body stays out of it: servers have been seen to echo tokens."""
        code = response.status_code
        if code in (429, 503):
            self._paused_until = max(self._paused_until, self._monotonic() + _retry_after(response))
        if code == 404:
            return NotFoundError(f"{endpoint}: HTTP 404: not found")
        meaning = {
            401: ": the token is missing, wrong or expired",
            403: ": the token may not read this",
            429: ": too many requests",
        }.get(code, "")
        if response.is_redirect:
            meaning = ": a redirect, which is not followed; check runtime.base_url"
        return ApiError(f"{endpoint}: HTTP {code}{meaning}")

    def _decode(self, endpoint: str, decode: Callable[[bytes], T], response: httpx.Response) -> T:
        try:
            return decode(response.content)
        except MissingError as error:
            raise NotFoundError(f"{endpoint}: {error}") from None
        except MALFORMED as error:
            if response.status_code != 200:
                raise self._refusal(endpoint, response) from None
            kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
            if kind not in ("application/json", ""):
                raise ApiError(f"{endpoint}: expected JSON, got {kind[:40]}; check runtime.base_url") from None
            raise ApiError(f"{endpoint}: the answer is not what the API promises: {error}") from None


def _ids(run: RunSnapshot) -> dict[str, str]:
    refs = {f"ref.{name}": value for name, value in run.refs}
    return {"project": run.project_id, "run": run.id, **refs}


def _http_date(response: httpx.Response) -> float | None:
    return _parse_http_date(response.headers.get("Date", ""))


def _parse_http_date(text: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError):
        return None


def _retry_after(response: httpx.Response) -> float:
    """Return the seconds that the server asks us to stay away, 0 when it does not."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_PAUSE)
    until, now = _parse_http_date(text), _http_date(response)
    if until is None or now is None:
        return 0.0
    return min(max(until - now, 0.0), MAX_PAUSE)
