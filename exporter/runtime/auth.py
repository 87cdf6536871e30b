"""The API token, its source, and the headers that carry it."""

import base64
from collections.abc import Mapping
from pathlib import Path

from exporter.config.files import UnreadableFileError, read_bytes, stamp
from exporter.config.schema import MAX_TOKEN
from exporter.errors import ConfigError


class Token:
    """The API token: from a file, which is read again when it changes, or a fixed value."""

    def __init__(self, *, file: Path | None = None, value: str | None = None) -> None:
        """Without a file or value no token is sent. Raises `ConfigError` if the file cannot be used."""
        self._file = file
        self._value = value
        self._stamp: object = None
        if file is not None:
            self.value()

    def value(self) -> str | None:
        """Return the current token. Raises `ConfigError` if the file cannot be read or is empty."""
        if self._file is None:
            return self._value
        current = stamp(self._file)
        if current != self._stamp:
            self._value = _token_in(self._file)
            self._stamp = current
        return self._value

    def __repr__(self) -> str:
        return "Token(***)"


def _token_in(file: Path) -> str:
    try:
        token = read_bytes(file, limit=MAX_TOKEN, what="a token").decode("ascii").strip()
    except UnreadableFileError as error:
        raise ConfigError(f"runtime.token_file: {file}: cannot be read: {error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"runtime.token_file: {file}: expected a token in ASCII") from None
    if not token or not token.isprintable() or " " in token:
        raise ConfigError(f"runtime.token_file: {file}: expected one token and nothing else")
    return token


class Credentials:
    """The token as request headers: as a bearer token, in another header, or as a password."""

    def __init__(
        self, token: Token, *, kind: str = "bearer", header: str = "Authorization", username: str = ""
    ) -> None:
        """`kind` is bearer, header or basic; `header` is for `header`, `username` for `basic`."""
        self._token = token
        self._kind = kind
        self._header = header
        self._username = username

    def headers(self) -> Mapping[str, str]:
        """Return the current headers, none without a token. Raises `ConfigError` as `Token.value` does."""
        token = self._token.value()
        if not token:
            return {}
        if self._kind == "header":
            return {self._header: token}
        if self._kind == "basic":
            pair = base64.b64encode(f"{self._username}:{token}".encode()).decode()
            return {"Authorization": f"Basic {pair}"}
        return {"Authorization": f"Bearer {token}"}

    def __repr__(self) -> str:
        return "Credentials(***)"
