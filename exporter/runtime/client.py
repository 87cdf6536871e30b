"""The runtime's HTTP API as async calls that return values of `model`; the only module that knows httpx.

One client has one budget: at most `concurrency` requests at once, and none while a `Retry-After` runs. It does
not repeat a failed request: the next scrape comes soon enough, and a runtime in trouble is not helped by more.
"""

import asyncio
import email.utils
import time
from collections.abc import AsyncIterator, Callable
from typing import Protocol, TypeVar
from urllib.parse import quote

import httpx

from exporter.errors import ApiError, ConfigError
from exporter.runtime.auth import Token
from exporter.runtime.model import FailedRecord, Health, Meter, Page, Project, RunSnapshot
from exporter.runtime.wire import MALFORMED, Decoder, Listing

T = TypeVar("T")

Transport = httpx.AsyncBaseTransport
"""How requests travel; tests give their own."""

PAGE_SIZE = 500
"""The contract's largest page."""

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


class RuntimeClient:
    """Reads one runtime. Every call raises `ApiError` when the answer cannot be had or used."""

    def __init__(
        self,
        base_url: str,
        *,
        token: Token,
        decoder: Decoder,
        observer: RequestObserver,
        timeout: float,
        concurrency: int,
        transport: Transport | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._token = token
        self._decoder = decoder
        self._observer = observer
        self._monotonic = monotonic
        self._slots = asyncio.Semaphore(concurrency)
        self._paused_until = float("-inf")
        self._http = httpx.AsyncClient(
            transport=transport,
            timeout=timeout,
            limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
            # A redirect could carry the token to another host, so it is an error like any other.
            follow_redirects=False,
            headers={"Accept": "application/json", "User-Agent": "spinner-exporter"},
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def health(self) -> Health:
        """Read how the worker service is; an unhealthy runtime may say so with an error status."""
        response = await self._send("health", "/health", authorized=False, accept=(200, 503))
        return self._decode("health", self._decoder.health, response)

    def projects(self, *, etag: str | None = None) -> AsyncIterator[Page[Project]]:
        """Read the projects that the token can see."""
        return self._pages("projects", "/api/v1/projects", self._decoder.projects, etag=etag)

    def jobs(
        self,
        project_id: str,
        *,
        updated_since: float | None = None,
        active: bool = False,
        etag: str | None = None,
    ) -> AsyncIterator[Page[RunSnapshot]]:
        """Read a project's runs: those updated since a time of the runtime's clock, or those that have not ended."""
        parameters = {}
        if updated_since is not None:
            parameters["updatedSince"] = _rfc3339(updated_since)
        if active:
            parameters["active"] = "true"
        path = f"/api/v1/projects/{quote(project_id, safe='')}/jobs"
        return self._pages("jobs", path, self._decoder.jobs, parameters, etag=etag)

    async def job(self, job_id: str) -> RunSnapshot:
        """Read one run; raises `NotFoundError` when it is gone."""
        response = await self._send("job", f"/api/v1/jobs/{quote(job_id, safe='')}")
        return self._decode("job", self._decoder.job, response)

    def failed_records(self, job_id: str) -> AsyncIterator[Page[FailedRecord]]:
        """Read a run's failed records."""
        path = f"/api/v1/jobs/{quote(job_id, safe='')}/records"
        return self._pages("records", path, self._decoder.failed_records, {"status": "failed"})

    async def usage(self) -> tuple[Meter, ...]:
        """Read the organisation's plan meters."""
        response = await self._send("usage", "/api/v1/usage")
        return self._decode("usage", self._decoder.usage, response)

    async def _pages(
        self,
        endpoint: str,
        path: str,
        decode: Callable[[bytes], Listing[T]],
        parameters: dict[str, str] | None = None,
        *,
        etag: str | None = None,
    ) -> AsyncIterator[Page[T]]:
        query = {**(parameters or {}), "limit": str(PAGE_SIZE)}
        headers = {"If-None-Match": etag} if etag else {}
        accept = (200, 304) if etag else (200,)
        cursors: set[str] = set()
        while True:
            response = await self._send(endpoint, path, query, headers=headers, accept=accept)
            if response.status_code == 304:
                yield Page((), _http_date(response), etag, not_modified=True)
                return
            listing = self._decode(endpoint, decode, response)
            as_of = listing.as_of if listing.as_of is not None else _http_date(response)
            cursor = listing.next_cursor
            whole = not cursors and not cursor
            yield Page(listing.items, as_of, response.headers.get("ETag") if whole else None)
            if not cursor:
                return
            if cursor in cursors:
                raise ApiError(f"{endpoint}: the list does not end: it gave the same cursor twice")
            cursors.add(cursor)
            query["cursor"] = cursor
            headers, accept = {}, (200,)

    async def _send(
        self,
        endpoint: str,
        path: str,
        query: dict[str, str] | None = None,
        *,
        headers: dict[str, str] | None = None,
        authorized: bool = True,
        accept: tuple[int, ...] = (200,),
    ) -> httpx.Response:
        headers = dict(headers or {})
        if authorized:
            headers |= self._authorization()
        async with self._slots:
            pause = self._paused_until - self._monotonic()
            if pause > 0:
                raise PausedError(f"{endpoint}: not asked: the runtime wants us to wait {pause:.0f} s more")
            started = self._monotonic()
            code = "error"
            try:
                response = await self._http.get(self._base_url + path, params=query, headers=headers)
                code = str(response.status_code)
            except httpx.TimeoutException as error:
                raise ApiError(f"{endpoint}: no answer in time ({type(error).__name__})") from None
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                # The error's own text can quote what a server sent; its class says what went wrong.
                raise ApiError(f"{endpoint}: no answer ({type(error).__name__})") from None
            finally:
                self._observer.request_sent(endpoint, code, self._monotonic() - started)
        if response.status_code not in accept:
            raise self._refusal(endpoint, response)
        return response

    def _authorization(self) -> dict[str, str]:
        try:
            token = self._token.value()
        except ConfigError as error:
            raise ApiError(str(error)) from None
        return {"Authorization": f"Bearer {token}"} if token else {}

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
        except (*MALFORMED, ValueError) as error:
            if response.status_code != 200:
                raise self._refusal(endpoint, response) from None
            kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
            if kind not in ("application/json", ""):
                raise ApiError(f"{endpoint}: expected JSON, got {kind[:40]}; check runtime.base_url") from None
            raise ApiError(f"{endpoint}: the answer is not what the API promises: {error}") from None


def _rfc3339(seconds: float) -> str:
    whole, milliseconds = divmod(int(seconds * 1000), 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{milliseconds:03d}Z"


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
