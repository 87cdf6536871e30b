"""Where the bearer token comes from. It is handed to the client for a request and kept nowhere else."""

from pathlib import Path

from exporter.errors import ConfigError


class Token:
    """The token that opens the API: from a file, which is read again when it changes, or as a given value."""

    def __init__(self, *, file: Path | None = None, value: str | None = None) -> None:
        """Without file and value no token is sent. Raises `ConfigError` when the file cannot be used."""
        self._file = file
        self._value = value
        self._stamp: tuple[int, int, int] | None = None
        if file is not None:
            self.value()

    def value(self) -> str | None:
        """Return the token as it is now; raises `ConfigError` when the file cannot be read or is empty."""
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
