"""Tokens from a login: renewed before they expire and after a 401, by one login for all requests that wait."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import structlog

from exporter.config.files import UnreadableFileError, read_bytes, stamp
from exporter.config.schema import MAX_TOKEN, LoginConfig
from exporter.config.values import is_header_value
from exporter.errors import ApiError, ConfigError, UnusableError
from exporter.runtime.almost_json import document
from exporter.runtime.connections import Content
from exporter.runtime.http_client import ApiResponse, HttpClient, PausedError, RefusedError, TransientError
from exporter.runtime.mapping import MisfitError, compiled, search
from exporter.runtime.times import EPOCH_MS

log = structlog.get_logger(__name__)

WHERE = "runtime.auth.login"

MARGIN = 60.0
"""Seconds before its end at which a token is renewed, or `SHARE` of a short lifetime."""

SHARE = 0.2

FIRST_WAIT = 30.0
"""Seconds after a login that failed in which there is no other one; doubled with each further failure."""

LONGEST_WAIT = 600.0
"""The same at most: many servers lock an account after some wrong passwords."""

LONGEST_WAIT_FOR_SERVER = 30.0
"""The same at most if the login was not refused, but not answered: the server may be back at any time."""


class Login:
    """Logs in when a request needs a token, and keeps the token while it is valid.

    Raises `ConfigError` for an expression, and `UnusableError` for a body, that cannot be used.
    """

    def __init__(
        self,
        config: LoginConfig,
        http_client: HttpClient,
        base_url: str,
        *,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
        any_text: bool = False,
    ) -> None:
        """`any_text`: the token is encoded before it is sent, so that it need not be the value of a header."""
        self._config = config
        self.origin = f"from {WHERE}, with {WHERE}.body_file: {config.body_file}"
        self._http_client = http_client
        self._url = base_url.rstrip("/") + config.path
        self._monotonic = monotonic
        self._wall = wall
        self._any_text = any_text
        self._fixed = config.fixed_lifetime
        self._token_at, self._lifetime_at, self._expires_at = expressions(config)
        self._lock = asyncio.Lock()
        self._held: _Held | None = None
        self._body_file = Path(config.body_file)
        self._stamp = stamp(self._body_file)
        self._body = _body_in(self._body_file)
        self._failed = _Backoff()
        """After logins that failed."""
        self._refused = _Backoff()
        """After logins whose token was refused at once: for some reason that no login changes."""
        self._failure = ApiError("")
        """Why the last login failed."""

    async def current(self) -> str:
        """Return a valid token, after a login if there is none. Raises `ApiError` if that fails."""
        held = self._held
        if held is None or self._is_due(held):
            async with self._lock:
                held = self._held
                if held is None or self._is_due(held):
                    held = await self._renew(held)
        return held.token

    async def renewed(self, refused: str) -> str | None:
        """Return another token than one that was refused with 401; None while logins fail or change nothing.

        Raises `ApiError` if the login fails.
        """
        async with self._lock:
            self._note_other_body()
            if self._held is None or self._held.token == refused:
                now = self._monotonic()
                if self._failed.holds(now):
                    raise ApiError.of(self._failure)
                if self._refused.holds(now):
                    return None
                return (await self._log_in()).token
            return self._held.token

    def confirm(self, token: str, *, accepted: bool) -> None:
        """Note whether a request with a renewed token was accepted; if not, another login would not help either."""
        if accepted:
            self._refused.end()
        else:
            self._refused.extend(self._monotonic(), LONGEST_WAIT)

    def _is_due(self, held: "_Held") -> bool:
        return self._monotonic() >= held.renew_at or stamp(self._body_file) != self._stamp

    def _note_other_body(self) -> None:
        """Forget the failures if there is another body: those with the previous one say nothing about it."""
        if (now := stamp(self._body_file)) != self._stamp:
            self._stamp = now
            self._failed.end()
            self._refused.end()

    async def _renew(self, held: "_Held | None") -> "_Held":
        """Return what a login has, or while logins fail the held token if it is still valid."""
        self._note_other_body()
        valid = held if held is not None and self._monotonic() < held.expires_at else None
        if self._failed.holds(self._monotonic()):
            if valid is None:
                raise ApiError.of(self._failure)
            return valid
        try:
            return await self._log_in()
        except ApiError as error:
            if valid is None:
                raise
            log.warning("login failed; the token that is still valid stays in use", error=str(error))
            return valid

    async def _log_in(self) -> "_Held":
        try:
            held = self._understood(await self._response())
        except PausedError:
            raise  # the runtime was not contacted
        except ApiError as error:
            self._failure = ApiError.of(error)
            longest = LONGEST_WAIT_FOR_SERVER if isinstance(error, TransientError) else LONGEST_WAIT
            self._failed.extend(self._monotonic(), longest)
            raise
        self._failed.end()
        self._held = held
        return held

    async def _response(self) -> ApiResponse:
        try:
            self._body = _body_in(self._body_file)
        except ConfigError as error:
            raise ApiError(str(error), public="login: its body cannot be used; the log says why") from None
        try:
            return await self._http_client.send(
                "login",
                "POST",
                self._url,
                query={},
                body=self._body,
                headers={},
                accept=lambda response: 200 <= response.status < 300,
                retries=0,
            )
        except RefusedError as error:
            if error.status not in (400, 401, 403, 422):
                raise
            # Its own text is about a token.
            refused = f"login: HTTP {error.status}: refused"
            raise RefusedError(
                f"{refused}; check {WHERE}.body_file: {self._body_file}", status=error.status, public=refused
            ) from None

    def _understood(self, response: ApiResponse) -> "_Held":
        try:
            tree = document(response.body)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise ApiError("login: the response is not JSON") from None
        token = _found(self._token_at, tree)
        if not isinstance(token, str) or not token or len(token) > MAX_TOKEN:
            raise ApiError(f"login: no token in the response at {self._config.token}")
        if not (token.isprintable() if self._any_text else is_header_value(token)):
            raise ApiError("login: the token has characters that a header cannot contain")
        lifetime = self._lifetime(response, tree)
        return _Held(
            token,
            renew_at=response.requested_at + lifetime - min(MARGIN, SHARE * lifetime),
            expires_at=response.requested_at + lifetime,
        )

    def _lifetime(self, response: ApiResponse, tree: Any) -> float:
        """Return for how many seconds a token is valid; without an end if the response does not say it."""
        if self._fixed is not None:
            return self._fixed
        lifetime: float | None = None
        if self._lifetime_at is not None:
            lifetime = _seconds(_found(self._lifetime_at, tree), f"{WHERE}.lifetime")
        elif self._expires_at is not None:
            at = _time(_found(self._expires_at, tree), f"{WHERE}.expires")
            # By the server's clock, which may be wrong.
            now = self._wall() if response.date is None else response.date
            lifetime = None if at is None else at - now
        # Zero and negative numbers mean none in some APIs. If it is none, the first request finds out.
        return lifetime if lifetime is not None and lifetime > 0 else NO_END

    def __repr__(self) -> str:
        return "Login(***)"


def expressions(config: LoginConfig) -> tuple[Any, Any, Any]:
    """Return the compiled expressions to the token, its lifetime and its end. Raises `ConfigError`."""
    is_path = config.lifetime is not None and config.fixed_lifetime is None
    return (
        compiled(config.token, f"{WHERE}.token"),
        compiled(config.lifetime or "", f"{WHERE}.lifetime") if is_path else None,
        compiled(config.expires, f"{WHERE}.expires") if config.expires is not None else None,
    )


NO_END = 100 * 365 * 86400.0
"""Seconds of a token of which nothing says when it expires."""


class _Backoff:
    """How long nothing is tried after failures in a row."""

    def __init__(self) -> None:
        self._failures = 0
        self._until = float("-inf")

    def holds(self, now: float) -> bool:
        return now < self._until

    def extend(self, now: float, longest: float) -> None:
        self._failures += 1
        # Not of every number of failures, whose power of 2 becomes too large.
        self._until = now + min(FIRST_WAIT * 2 ** min(self._failures - 1, 10), longest)

    def end(self) -> None:
        self._failures, self._until = 0, float("-inf")


class _Held:
    """A token, and our monotonic times until which it is valid and at which it should be renewed."""

    __slots__ = ("expires_at", "renew_at", "token")

    def __init__(self, token: str, *, renew_at: float, expires_at: float) -> None:
        self.token = token
        self.renew_at = renew_at
        self.expires_at = expires_at


def _body_in(file: Path) -> Content:
    where = f"{WHERE}.body_file: {file}"
    expected = "expected a JSON document, or form data such as grant_type=client_credentials&client_id=…"
    try:
        content = read_bytes(file, limit=MAX_TOKEN, what="the body of a request").strip()
    except UnreadableFileError as error:
        raise UnusableError(f"{where}: cannot be read: {error}") from None
    if not content:
        raise UnusableError(f"{where}: is empty; {expected}")
    if content[:1] in (b"{", b"["):
        try:
            document(content)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise UnusableError(f"{where}: {expected}") from None
        return Content(content, "application/json")
    text = content.decode("ascii", errors="replace")
    if not text.isascii() or not text.isprintable() or " " in text or not parse_qsl(text):
        raise UnusableError(f"{where}: {expected}")
    return Content(content, "application/x-www-form-urlencoded")


def _found(expression: Any, tree: Any) -> Any:
    try:
        return search(expression, tree)
    except MisfitError:
        return None


def _seconds(value: Any, where: str) -> float | None:
    if value is None:
        return None
    try:
        seconds = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = float("nan")
    if not abs(seconds) <= NO_END:
        raise ApiError(f"login: expected a number of seconds where {where} points")
    return seconds


def _time(value: Any, where: str) -> float | None:
    """Return a time in seconds since the epoch, from such a number, from milliseconds, or from a text."""
    if value is None or value == "":
        return None
    try:
        at = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        try:
            time = datetime.fromisoformat(value if isinstance(value, str) else "")
            at = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            at = float("nan")
    if not abs(at) < float("inf"):
        raise ApiError(f"login: expected a time where {where} points")
    return at / 1000 if at >= EPOCH_MS else at
