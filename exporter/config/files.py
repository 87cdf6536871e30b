"""Reads the files that the config names: up to a limit, since one may have no end."""

import os
import stat
from pathlib import Path


class UnreadableFileError(Exception):
    """A file cannot be read. The text is the reason, without the file's name and content."""


def read_bytes(file: Path, *, limit: int, what: str, regular: bool = True) -> bytes:
    """Return the content of a file of at most `limit` bytes. Raises `UnreadableFileError`; `what` is for its text.

    With `regular`, pipes and devices are refused, since one may never write anything.
    """
    try:
        with open(file, "rb", opener=_without_waiting if regular else None) as opened:
            if regular and not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise UnreadableFileError("expected a regular file, not a pipe or a device")
            content = opened.read(limit + 1)
    except OSError as error:
        raise UnreadableFileError(error.strerror) from None
    if len(content) > limit:
        raise UnreadableFileError(f"expected {what}, not more than {limit:,} bytes")
    return content


def _without_waiting(path: str, flags: int) -> int:
    """Open a file. Without O_NONBLOCK, opening a pipe waits for its writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def stamp(file: Path) -> object:
    """Return a value that differs after the file was written, replaced or removed."""
    try:
        status = file.stat()
    except OSError as error:
        return error.errno
    return status.st_mtime_ns, status.st_ino, status.st_size
