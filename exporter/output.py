"""Standard output and standard error that may be closed, full, or without an encoding for what is printed."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO, cast

import click

from exporter.errors import OutputError


@contextlib.contextmanager
def checked_output() -> Iterator[None]:
    """Replace `sys.stdout` in the block by one that raises `OutputError`; at the end also for what is still buffered.

    Everything prints through it: the commands, click's help and rich's tables.
    """
    output = _CheckedOutput(sys.stdout)
    with contextlib.redirect_stdout(cast("TextIO", output)):
        try:
            yield
        finally:
            output.flush()


def print_for_people() -> None:
    """From now on, print what standard output cannot encode in another way: people read it, and no program."""
    if isinstance(sys.stdout, _CheckedOutput):
        sys.stdout.is_for_people = True


def print_error(message: str) -> None:
    """Print a line on standard error; if that is impossible, the exit status has to do."""
    try:
        click.echo(message, err=True)
    except (OSError, ValueError):
        _discard(sys.stderr)


def show_error(error: click.ClickException) -> None:
    """Print an error of the command line with its usage on standard error, as `print_error` does."""
    try:
        error.show()
        sys.stderr.flush()
    except (OSError, ValueError):
        _discard(sys.stderr)


class _CheckedOutput:
    """A text stream. It has no `buffer`, so that nothing is written past it."""

    def __init__(self, stream: TextIO | None) -> None:
        """`stream` is None if standard output was closed when the process started."""
        self._stream = stream
        self._failure: OutputError | None = None
        self.is_for_people = False
        self.encoding = getattr(stream, "encoding", None) or "utf-8"
        self.errors = getattr(stream, "errors", None) or "strict"

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError("expected text")
        if text:  # click writes none to learn whether this is a text stream
            with self._checked() as stream:
                _write_all(stream, self._encodable(text) if self.is_for_people else text)
        return len(text)

    def _encodable(self, text: str) -> str:
        try:
            text.encode(self.encoding, self.errors)
        except UnicodeEncodeError:
            return text.translate(_PLAIN).encode(self.encoding, "backslashreplace").decode(self.encoding)
        return text

    def flush(self) -> None:
        if self._stream is not None or self._failure is not None:
            with self._checked() as stream:
                stream.flush()

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    @contextlib.contextmanager
    def _checked(self) -> Iterator[TextIO]:
        if self._stream is None:
            self._failure = OutputError("standard output: cannot be written: it is closed")
        if self._failure is not None:
            # Also if the caller of an earlier call caught it: what was printed is incomplete.
            raise self._failure
        try:
            yield self._stream  # type: ignore[misc]
        except UnicodeEncodeError as error:
            character = ascii(error.object[error.start])
            self._failure = OutputError(
                f"standard output: {error.encoding} cannot encode {character}; set PYTHONIOENCODING=utf-8"
            )
            raise self._failure from None
        except OSError as error:
            _discard(self._stream)
            self._failure = OutputError(f"standard output: cannot be written: {error.strerror}")
            raise self._failure from None


_PLAIN = str.maketrans({"…": "...", "█": "#", "░": "-"})
"""Signs of our own texts; any other character becomes an escape such as \\xfc."""


def _write_all(stream: TextIO, text: str) -> None:
    """Write a text. With PYTHONUNBUFFERED, `stream.write` loses silently what one system call does not take."""
    raw = getattr(stream, "buffer", None)
    if not isinstance(raw, io.RawIOBase):
        stream.write(text)
        return
    rest = memoryview(text.encode(stream.encoding, stream.errors or "strict"))
    while rest:
        written = raw.write(rest)
        if written is None:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        rest = rest[written:]


def _discard(stream: TextIO | None) -> None:
    """Let a stream lose what it holds. At its end Python would try to write that, and report another error."""
    if stream is not None:
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
