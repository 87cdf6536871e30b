"""One request and its whole answer: bounded in time and in size, and asked again where that can help.

All requests to one runtime share one budget: so many at once, none while a `Retry-After` runs, and a runtime that does
not answer is asked once in a sync until it does.
"""

import asyncio
import contextlib
import dataclasses
import email.utils
import random
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterator, Mapping
from typing import Any, Protocol

import httpx
import msgspec

from exporter.errors import ApiError
from exporter.runtime.connections import Connections, Transport

RETRIES = 2
"""Times that a request is repeated, when there is time for it: more is what the next scrape is for."""

BACKOFF = 0.3
"""Seconds before the first repetition, on average; twice that before the second."""

MAX_PAUSE = 300.0
"""Seconds that a `Retry-After` can hold us off at most: a server that says "tomorrow" must not blind us."""

OPEN_AFTER = 5
"""Requests in a row without an answer after which a sync asks just once."""


class NotFoundError(ApiError):
    """The runtime does not have it, or not any more (404)."""


class PausedError(ApiError):
    """Not asked, because the runtime wants us to wait, or has just not answered another request."""


class RequestObserver(Protocol):
    """Is told of every request that was sent."""

    def request_sent(self, endpoint: str, code: str, seconds: float) -> None:
        """`code` is the HTTP status, or `error` where no whole answer came; `seconds` is how long it took."""


@dataclasses.dataclass(frozen=True, slots=True)
class ApiResponse:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    next_link: str | None
    """The header Link's `next`."""

    @property
    def date(self) -> float | None:
        """The server's time of the answer, in seconds since the epoch; None when it says none."""
        return _parse_http_date(self.headers.get("Date", ""))


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
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        dice: random.Random | None = None,
    ) -> None:
        """`timeout` is for a request with all its repetitions, in seconds; `max_body` for an answer, in bytes."""
        self._connections = connections
        self._timeout = timeout
        self._max_body = max_body
        self._observer = observer
        self._monotonic = monotonic
        self._sleep = sleep
        self._dice = dice or random.Random()  # noqa: S311 - jitter is no secret
        self._circuit = _Circuit()
        self._paused_until = float("-inf")

    def begin(self) -> None:
        """Begin a sync: a runtime that did not answer the last one is asked once more."""
        self._circuit.begin()

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.close()

    async def ask(
        self,
        endpoint: str,
        method: str,
        url: str,
        *,
        query: Mapping[str, Any],
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str],
        accept: Container[int],
    ) -> ApiResponse:
        """Return the answer if its status is one of `accept`; raises `ApiError` otherwise."""
        give_up: float | None = None
        try:
            request = self._connections.request(method, url, query=query, body=body, headers=headers)
        except httpx.InvalidURL as error:
            raise ApiError(f"{endpoint}: not asked ({_kind(error)})") from None
        tries = 0
        while True:
            try:
                async with self._circuit.turn(endpoint):
                    async with self._connections.one() as connection:
                        # The time begins when it is this request's turn: others before it are not its fault.
                        give_up = self._monotonic() + self._timeout if give_up is None else give_up
                        answer = await self._once(endpoint, connection, request, give_up)
                    if answer.status not in accept:
                        raise self._refused(endpoint, answer)
                    return answer
            except _TransientError as error:
                wait = self._dice.uniform(0.5, 1.5) * BACKOFF * 2**tries if error.wait is None else error.wait
                tries += 1
                too_late = give_up is not None and self._monotonic() + wait >= give_up
                if tries > RETRIES or self._circuit.is_open() or too_late:
                    raise
                await self._sleep(wait)

    async def _once(self, endpoint: str, connection: Transport, request: httpx.Request, give_up: float) -> ApiResponse:
        started = self._monotonic()
        if started < self._paused_until:
            # Without the number of seconds, so that it is one problem and not a new one with every scrape.
            raise PausedError(f"{endpoint}: not asked: the runtime wants us to wait (Retry-After)")
        code = "error"
        try:
            async with asyncio.timeout(max(give_up - started, 0.0)):
                response = await connection.handle_async_request(request)
                try:
                    body = await _whole_body(response, self._max_body)
                finally:
                    await response.aclose()
            code = str(response.status_code)
        except (TimeoutError, httpx.TimeoutException):
            # The time is that of all repetitions, so it is up.
            raise _TransientError(f"{endpoint}: no answer in time", wait=float("inf"), dead=True) from None
        except httpx.HTTPError as error:
            # The error's own text can quote what a server sent; its class says what went wrong.
            raise _TransientError(f"{endpoint}: no answer ({_kind(error)})", dead=True) from None
        except _BodyError as error:
            raise ApiError(f"{endpoint}: {error}") from None
        finally:
            self._observer.request_sent(endpoint, code, self._monotonic() - started)
        return ApiResponse(response.status_code, response.headers, body, response.links.get("next", {}).get("url"))

    def _refused(self, endpoint: str, answer: ApiResponse) -> ApiError:
        error = refusal(endpoint, answer)
        if error_code(answer) == "PLAN_LIMIT" or answer.status not in _TRANSIENT:
            return error
        wait = _retry_after(answer) if answer.status in (429, 503) else None
        if wait is not None:
            self._paused_until = max(self._paused_until, self._monotonic() + wait)
        return _TransientError(str(error), wait=wait, dead=answer.status >= 500)


_TRANSIENT = (429, 500, 502, 503, 504)


def refusal(endpoint: str, answer: ApiResponse) -> ApiError:
    """Say what a status means. The body stays out of it: servers have been seen to echo tokens."""
    code = answer.status
    if code == 404:
        return NotFoundError(f"{endpoint}: HTTP 404: not found")
    meaning = {
        401: ": the token is missing, wrong or expired",
        403: ": the token may not read this",
        429: ": too many requests",
    }.get(code, "")
    if error_code(answer) == "PLAN_LIMIT":
        meaning = ": the plan is full (PLAN_LIMIT)"
    elif code in (301, 302, 303, 307, 308):
        meaning = ": a redirect, which is not followed; check runtime.base_url"
    return ApiError(f"{endpoint}: HTTP {code}{meaning}")


def error_code(answer: ApiResponse) -> str:
    """Return the contract's code of an error; empty where the body has none that we know."""
    with contextlib.suppress(msgspec.MsgspecError, ValueError, RecursionError):
        return _ERROR.decode(answer.body).code or ""
    return ""


class _Problem(msgspec.Struct):
    code: str | None = msgspec.field(default=None, name="errorCode")


_ERROR = msgspec.json.Decoder(_Problem)


class _TransientError(ApiError):
    """It may be over in a moment."""

    def __init__(self, text: str, *, wait: float | None = None, dead: bool) -> None:
        """`wait` is how long the server wants us to, in seconds; `dead` says that nobody seems to be there."""
        super().__init__(text)
        self.wait = wait
        self.dead = dead


class _Circuit:
    """Keeps a runtime that does not answer from being hammered, and finds out with the next sync that it does again."""

    def __init__(self) -> None:
        self._unanswered = 0
        self._tried = False
        self._probe = asyncio.Lock()

    def is_open(self) -> bool:
        return self._unanswered >= OPEN_AFTER

    def begin(self) -> None:
        self._tried = False

    @contextlib.asynccontextmanager
    async def turn(self, endpoint: str) -> AsyncIterator[None]:
        if not self.is_open():
            with self._noting():
                yield
            return
        # One goes ahead; the others wait for what becomes of it.
        async with self._probe:
            if self.is_open():
                if self._tried:
                    raise PausedError(f"{endpoint}: not asked: the runtime does not answer")
                self._tried = True
                with self._noting():
                    yield
                return
        with self._noting():
            yield

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except _TransientError as error:
            self._unanswered = self._unanswered + 1 if error.dead else 0
            raise
        except PausedError:
            raise  # says nothing of whether anybody is there
        except ApiError:
            self._unanswered = 0
            raise
        else:
            self._unanswered = 0


class _BodyError(Exception):
    """A body that is not to be had whole."""


async def _whole_body(response: httpx.Response, most: int) -> bytes:
    """Read and unpack a body, never more than `most` bytes of it: a small one can unpack to any size."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", ""):
        raise _BodyError("the answer has an encoding that was not asked for")
    unpack = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS) if encoding == "gzip" else None
    parts: list[bytes] = []
    size = 0
    async for chunk in response.aiter_raw():
        part = chunk
        if unpack is not None:
            try:
                part = unpack.decompress(chunk, most - size + 1)
            except zlib.error:
                raise _BodyError("the answer is not gzip, as it says") from None
        size += len(part)
        if size > most:
            raise _BodyError(f"the answer is larger than limits.body_bytes ({most})")
        parts.append(part)
    if unpack is not None and not unpack.eof and parts:
        raise _BodyError("the answer ends too early")
    return b"".join(parts)


def _kind(error: Exception) -> str:
    """Name an error; of a certificate that is refused, also why."""
    cause: BaseException | None = error
    while cause is not None:
        reason = getattr(cause, "verify_message", None)
        if isinstance(reason, str):
            return f"{type(error).__name__}: certificate: {reason}"
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


def _parse_http_date(text: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _retry_after(answer: ApiResponse) -> float | None:
    """Return the seconds that the server asks us to stay away; None when it does not."""
    text = answer.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), MAX_PAUSE)
    until = _parse_http_date(text)
    if until is None or answer.date is None:
        return None
    return min(max(until - answer.date, 0.0), MAX_PAUSE)
