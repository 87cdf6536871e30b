"""The API token, its source, and the headers that carry it."""

import base64
from collections.abc import Mapping
from pathlib import Path

from exporter.errors import ConfigError


class Token:
    """The API token: from a file, which is read again when it changes, or a fixed value."""

    def __init__(self, *, file: Path | None = None, value: str | None = None) -> None:
        """Without a file or value no token is sent. Raises `ConfigError` if the file cannot be used."""
        self._file = file
        self._value = value
        self._stamp: tuple[int, int, int] | None = None
        if file is not None:
            self.value()

    def value(self) -> str | None:
        """Return the current token. Raises `ConfigError` if the file cannot be read or is empty."""
        if self._file is None:
            return self._value
        try:
            status = self._file.stat()
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
            if stamp != self._stamp:
                self._value = self._clean(self._file.read_text(encoding="ascii"))
                self._stamp = stamp
        except OSError as error:
            raise ConfigError(f"runtime.token_file: {self._file}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"runtime.token_file: {self._file}: expected a token in ASCII") from None
        return self._value

    def _clean(self, text: str) -> str:
        token = text.strip()
        if not token or not token.isprintable() or " " in token:
            raise ConfigError(f"runtime.token_file: {self._file}: expected one token and nothing else")
        return token

    def __repr__(self) -> str:
        return "Token(***)"


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
