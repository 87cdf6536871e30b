"""The API token, its source, and the headers that carry it."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from exporter.config.files import UnreadableFileError, read_bytes, stamp
from exporter.config.schema import MAX_TOKEN
from exporter.errors import UnusableError


class Token:
    """The API token: from a file, which is read again when it changes, or a fixed value."""

    def __init__(self, *, file: Path | None = None, value: str | None = None) -> None:
        """Without a file or value no token is sent. Raises `UnusableError` if the file cannot be used."""
        self._file = file
        self._value = value
        self.origin = f"from runtime.token_file: {file}" if file is not None else "from SPINNER_EXPORTER_RUNTIME_TOKEN"
        if file is None and value is None:
            self.origin = "none is configured, neither with runtime.token_file nor with runtime.auth.login"
        self._stamp: object = None
        if file is not None:
            self.value()

    def value(self) -> str | None:
        """Return the current token. Raises `UnusableError` if the file cannot be read or is empty."""
        if self._file is None:
            return self._value
        current = stamp(self._file)
        if current != self._stamp:
            self._value = _token_in(self._file)
            self._stamp = current
        return self._value

    async def current(self) -> str | None:
        """Return the current token, as `value` does."""
        return self.value()

    async def renewed(self, refused: str) -> str | None:
        """Return None: there is no other token before the file changes."""
        return None

    def confirm(self, token: str, *, accepted: bool) -> None:
        """Do nothing: a fixed token is never renewed."""

    def __repr__(self) -> str:
        return "Token(***)"


def _token_in(file: Path) -> str:
    try:
        token = read_bytes(file, limit=MAX_TOKEN, what="a token").decode("ascii").strip()
    except UnreadableFileError as error:
        raise UnusableError(f"runtime.token_file: {file}: cannot be read: {error}") from None
    except UnicodeDecodeError:
        raise UnusableError(f"runtime.token_file: {file}: expected a token in ASCII") from None
    if not token:
        raise UnusableError(f"runtime.token_file: {file}: is empty; expected one token")
    if not token.isprintable() or " " in token:
        raise UnusableError(f"runtime.token_file: {file}: expected one token and nothing else")
    return token


class TokenSource(Protocol):
    """Where a token comes from. Its methods raise `ApiError` or `UnusableError` if there is no usable one."""

    origin: str
    """The setting that it comes from, for messages; never the token."""

    async def current(self) -> str | None:
        """Return the token; None if requests are sent without one."""

    async def renewed(self, refused: str) -> str | None:
        """Return another token after a request with this one was answered with 401; None if there is none."""

    def confirm(self, token: str, *, accepted: bool) -> None:
        """Note whether a request with a renewed token was accepted."""


class Credentials:
    """The token as request headers: as a bearer token, in another header, or as a password."""

    def __init__(
        self,
        source: TokenSource,
        *,
        kind: str = "bearer",
        header: str = "Authorization",
        username: str = "",
        value: str | None = None,
    ) -> None:
        """`kind` is bearer, header or basic; `header` is for `header`, `username` for `basic`.

        `value` contains `{token}`, and is the value of the header.
        """
        self.source = source
        self._kind = kind
        self._header = header if kind == "header" else "Authorization"
        self._username = username
        self._value = value or ("{token}" if kind == "header" else "Bearer {token}")

    def headers(self, token: str | None) -> Mapping[str, str]:
        """Return the headers that carry a token, none without one."""
        if not token:
            return {}
        if self._kind == "basic":
            pair = base64.b64encode(f"{self._username}:{token}".encode()).decode()
            return {self._header: f"Basic {pair}"}
        return {self._header: self._value.replace("{token}", token)}

    def __repr__(self) -> str:
        return "Credentials(***)"
