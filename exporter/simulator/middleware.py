"""Middleware for all requests: the Date header, the token and the rate limit."""

import hmac
import math
from collections.abc import Callable
from email.utils import formatdate

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.simulator.wire import problem


class ApiMiddleware:
    """ASGI middleware. The token and the rate limit apply to paths under `/api` only, not to `/health`."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        now_ms: Callable[[], int],
        token: str | None,
        requests_per_second: float | None,
    ) -> None:
        """`now_ms` is the wall clock in epoch milliseconds, for the rate limit and the Date header."""
        self._app = app
        self._now_ms = now_ms
        self._expected = None if token is None else f"Bearer {token}".encode()
        self._bucket = None if requests_per_second is None else _TokenBucket(requests_per_second, now_ms())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or reject it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Date"] = http_date(self._now_ms())
            await send(message)

        app = self._rejection(scope) or self._app
        await app(scope, receive, send_dated)

    def _rejection(self, scope: Scope) -> ASGIApp | None:
        if not scope["path"].startswith("/api/"):
            return None
        given = Headers(scope=scope).get("authorization", "").encode()
        if self._expected is not None and not hmac.compare_digest(given, self._expected):
            headers = {"WWW-Authenticate": "Bearer"}
            return problem(401, "UNAUTHORIZED", "The token is missing, wrong or expired.", headers)
        wait = 0.0 if self._bucket is None else self._bucket.take(self._now_ms())
        if wait:
            headers = {"Retry-After": str(math.ceil(wait))}
            return problem(429, "RATE_LIMITED", "Too many requests.", headers)
        return None


def http_date(milliseconds: int) -> str:
    """Format a wall-clock time for the Date header."""
    return formatdate(milliseconds // 1000, usegmt=True)


class _TokenBucket:
    """A token bucket with a capacity of one second's requests, at least one."""

    def __init__(self, per_second: float, now_ms: int) -> None:
        self._per_ms = per_second / 1000
        self._most = max(per_second, 1.0)
        self._left = self._most
        self._filled_at = now_ms

    def take(self, now_ms: int) -> float:
        """Take a token for one request. Return 0, or the seconds until the next token if there is none."""
        self._left = min(self._left + (now_ms - self._filled_at) * self._per_ms, self._most)
        self._filled_at = now_ms
        if self._left < 1:
            return (1 - self._left) / self._per_ms / 1000
        self._left -= 1
        return 0.0
