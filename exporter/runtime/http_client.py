"""One request and its whole response: bounded in time and in size, and retried where a retry can help.

All requests to one runtime share a concurrency limit, the pause that the runtime demands, and a circuit breaker.
"""

import asyncio
import contextlib
import dataclasses
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, Protocol

import httpx
import msgspec

from exporter.errors import ApiError
from exporter.runtime.almost_json import TypedDecoder
from exporter.runtime.body import BodyError, read_body
from exporter.runtime.connection_errors import reason_of
from exporter.runtime.connections import Connections, Content, Query
from exporter.runtime.rate_limits import http_date, is_rate_limit, pause

RETRIES = 2
"""Retries of one request, while its timeout lasts. After that the next scrape tries again."""

BACKOFF = 0.3
"""Average seconds before the first retry; doubled before the second."""

MAX_PAUSE = 300.0
"""Longest pause in seconds that a response can cause, so that no server can stop the exporter for a day."""

OPEN_AFTER = 5
"""Failures in a row that open the circuit breaker."""


class RefusedError(ApiError):
    """The runtime responded with a status that is none of a valid response, and that a retry does not change."""

    def __init__(self, text: str, *, status: int, public: str | None = None) -> None:
        super().__init__(text, public=public)
        self.status = status


class TokenRefusedError(RefusedError):
    """The runtime does not know the token (401), or does not let it read this (403)."""


class NotFoundError(RefusedError):
    """The runtime does not have the resource, or no longer has it: 404, 410, or as the API description says."""

    def __init__(self, text: str, *, status: int = 404) -> None:
        super().__init__(text, status=status)


class PausedError(ApiError):
    """The request was not sent: the runtime asked us to wait, or the circuit breaker is open."""


class RequestObserver(Protocol):
    """Observes every request that is sent."""

    def request_sent(self, resource: str, code: str, seconds: float) -> None:
        """`code` is the HTTP status, or `error` without a complete response; `seconds` is the request's duration."""


@dataclasses.dataclass(frozen=True, slots=True)
class ApiResponse:
    """A complete response."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    requested_at: float = 0.0
    """Our monotonic time at which the request was sent: what the response says is not older."""

    @property
    def date(self) -> float | None:
        """The header Date in seconds since the epoch; None without a valid one."""
        return http_date(self.headers.get("Date", ""))

    @property
    def age(self) -> float:
        """The header Age: for how many seconds a cache has had the response; 0 without a valid one."""
        digits = self.headers.get("Age", "").strip()
        return float(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= MAX_AGE_DIGITS else 0.0


MAX_AGE_DIGITS = 12
"""More are no number of seconds, and would be infinite."""


class HttpClient:
    """Sends requests."""

    def __init__(
        self,
        connections: Connections,
        *,
        timeout: float,
        max_body: int,
        observer: RequestObserver,
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`timeout` in seconds covers a request and its retries; `max_body` in bytes limits a decompressed body."""
        self._connections = connections
        self._timeout = timeout
        self._max_body = max_body
        self._observer = observer
        self._monotonic = monotonic
        self._sleep = sleep
        self._wall = wall
        self._breaker = _CircuitBreaker()
        self._paused_until = float("-inf")
        self._pause_reason = ""

    def begin_sync(self) -> None:
        """Allow one trial request if the circuit breaker is open."""
        self._breaker.allow_trial()

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.close()

    async def send(
        self,
        endpoint: str,
        method: str,
        url: str,
        *,
        query: Query,
        body: Mapping[str, Any] | Content | None,
        headers: Mapping[str, str],
        accept: Callable[[ApiResponse], bool],
        retries: int = RETRIES,
    ) -> ApiResponse:
        """Return the response if `accept` returns true for it; raises `ApiError` otherwise.

        The timeout starts when the request gets its slot, so that it does not include other requests' time.
        """
        give_up: float | None = None
        try:
            request = self._connections.request(method, url, query=query, body=body, headers=headers)
        except (httpx.InvalidURL, ValueError) as error:
            raise ApiError(f"{endpoint}: not requested ({reason_of(error)})") from None
        tries = 0
        while True:
            try:
                async with self._breaker.guard(endpoint):
                    async with self._connections.slots:
                        give_up = self._monotonic() + self._timeout if give_up is None else give_up
                        response = await self._send_once(endpoint, request, give_up)
                    if not accept(response):
                        raise self._refused(endpoint, response)
                    return response
            except TransientError as error:
                jitter = random.uniform(0.5, 1.5)  # noqa: S311 - needs no cryptographic randomness
                wait = jitter * BACKOFF * 2**tries if error.wait is None else error.wait
                tries += 1
                too_late = give_up is not None and self._monotonic() + wait >= give_up
                if tries > retries or self._breaker.is_open or too_late:
                    raise
                await self._sleep(wait)

    async def _send_once(self, endpoint: str, request: httpx.Request, give_up: float) -> ApiResponse:
        started = self._monotonic()
        if started < self._paused_until:
            # Without the number of seconds, which would make it a new problem with every scrape.
            raise PausedError(f"{endpoint}: not requested: {self._pause_reason} asked us to wait")
        code = "error"
        try:
            async with (
                asyncio.timeout(max(give_up - started, 0.0)),
                self._connections.send(request) as response,
            ):
                body = await read_body(response, self._max_body)
            if self._monotonic() > give_up:
                # The process was stopped or the machine suspended: it arrived in time, but long ago.
                raise TimeoutError
            code = str(response.status_code)
        except (TimeoutError, httpx.TimeoutException):
            # The timeout covers all retries, so there is no time left for one.
            raise TransientError(f"{endpoint}: no response in time", wait=float("inf"), counts=True) from None
        except httpx.HTTPError as error:
            # The error's own text can quote what a server sent.
            kind = NoConnectionError if isinstance(error, httpx.ConnectError | httpx.ProxyError) else TransientError
            raise kind(f"{endpoint}: no response ({reason_of(error)})", counts=True) from None
        except BodyError as error:
            raise ApiError(f"{endpoint}: {error}") from None
        finally:
            self._observer.request_sent(endpoint, code, self._monotonic() - started)
        return ApiResponse(response.status_code, response.headers, body, started)

    def _refused(self, endpoint: str, response: ApiResponse) -> ApiError:
        error = refusal(endpoint, response)
        limited = is_rate_limit(response.status, response.headers)
        if error_code(response) == "PLAN_LIMIT" or not (limited or is_transient(response.status)):
            return error
        now = self._wall() if response.date is None else response.date
        wait = pause(response.status, response.headers, now=now)
        if wait is not None:
            wait = min(wait, MAX_PAUSE)
            self._paused_until = max(self._paused_until, self._monotonic() + wait)
            self._pause_reason = "rate limited: the runtime" if limited else "the runtime"
        return TransientError(str(error), wait=wait, counts=response.status >= 500)


def is_transient(status: int) -> bool:
    """Whether the same request may succeed soon (RFC 9110).

    408 is what load balancers send on a kept connection that they are about to close, if a request meets it. Statuses
    from 520 are those of content delivery networks that cannot reach the runtime, and of some APIs under load.
    """
    return status in (408, 425, 429) or (status >= 500 and status not in (501, 505, 511))


def refusal(endpoint: str, response: ApiResponse) -> ApiError:
    """Explain a status as an error. It never quotes the body, since some servers echo the token there."""
    code = response.status
    if code in (404, 410):
        return NotFoundError(f"{endpoint}: HTTP {code}: {'not found' if code == 404 else 'gone'}", status=code)
    meaning = {
        401: ": the token is missing, wrong or expired",
        403: ": the token may not read this",
        407: ": the proxy refused",
        429: ": too many requests (rate limited)",
    }.get(code, "")
    if code != 429 and is_rate_limit(code, response.headers):
        meaning = ": rate limited"
    if error_code(response) == "PLAN_LIMIT":
        meaning = ": the plan is full (PLAN_LIMIT)"
    elif code in (301, 302, 303, 307, 308):
        meaning = ": a redirect, which is not followed; check runtime.base_url"
    elif code in (401, 403):
        return TokenRefusedError(f"{endpoint}: HTTP {code}{meaning}", status=code)
    return RefusedError(f"{endpoint}: HTTP {code}{meaning}", status=code)


def error_code(response: ApiResponse) -> str:
    """Return the `errorCode` of an error's body; empty without one."""
    with contextlib.suppress(msgspec.MsgspecError, ValueError, RecursionError):
        return _ERROR.decode(response.body).code or ""
    return ""


class _ErrorBody(msgspec.Struct):
    code: str | None = msgspec.field(default=None, name="errorCode")


_ERROR = TypedDecoder(_ErrorBody)


class TransientError(ApiError):
    """An error that a retry may avoid."""

    def __init__(self, text: str, *, wait: float | None = None, counts: bool) -> None:
        """`wait` is the seconds that the server demands before a retry; `counts` means towards the breaker's limit."""
        super().__init__(text)
        self.wait = wait
        self.counts = counts


class NoConnectionError(TransientError):
    """There is no connection to the runtime, whatever is requested."""


class _CircuitBreaker:
    """Stops requests to a runtime that does not respond, except for one trial request per sync.

    Closed: requests pass, until `OPEN_AFTER` in a row fail. Open: requests raise `PausedError`. Half-open, once per
    sync: one trial request passes while the others wait for its outcome; its success closes the breaker.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._tried = False
        self._trial = asyncio.Lock()

    @property
    def is_open(self) -> bool:
        return self._failures >= OPEN_AFTER

    def allow_trial(self) -> None:
        self._tried = False

    @contextlib.asynccontextmanager
    async def guard(self, endpoint: str) -> AsyncIterator[None]:
        """Run one request and count its failure. Raises `PausedError` instead when the breaker is open."""
        if self.is_open:
            async with self._trial:
                if self.is_open:
                    if self._tried:
                        raise PausedError(f"{endpoint}: not requested: the runtime does not respond")
                    self._tried = True
                    with self._counted():
                        yield
                    return
        with self._counted():
            yield

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except TransientError as error:
            self._failures = self._failures + 1 if error.counts else 0
            raise
        except PausedError:
            raise  # the runtime was not contacted
        except ApiError:
            self._failures = 0
            raise
        else:
            self._failures = 0
