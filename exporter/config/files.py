"""Reads the files that the config names: up to a limit, since one may have no end."""

import os
import select
import stat
import time
from pathlib import Path

PIPE_TIMEOUT = 10.0
"""Seconds in which a pipe has to be written."""


class UnreadableFileError(Exception):
    """A file cannot be read. The text is the reason, without the file's name and content."""


def read_bytes(file: Path, *, limit: int, what: str, regular: bool = True) -> bytes:
    """Return the content of a file of at most `limit` bytes. Raises `UnreadableFileError`; `what` is for its text.

    With `regular`, pipes and devices are refused, since one may never write anything. Without it, they have
    `PIPE_TIMEOUT` to do so.
    """
    try:
        # Symbolic links are followed: Kubernetes mounts each secret as one.
        with open(file, "rb", opener=_without_waiting) as opened:
            if stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                content = opened.read(limit + 1)
            elif regular:
                raise UnreadableFileError("expected a regular file, not a pipe or a device")
            else:
                content = _read_pipe(opened.fileno(), limit + 1)
    except OSError as error:
        raise UnreadableFileError(error.strerror) from None
    if len(content) > limit:
        raise UnreadableFileError(f"expected {what}, not more than {limit:,} bytes")
    return content


def _without_waiting(path: str, flags: int) -> int:
    """Open a file. Without O_NONBLOCK, opening a pipe waits for its writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def _read_pipe(descriptor: int, limit: int) -> bytes:
    """Read a pipe or a device to its end or up to a limit. Raises `UnreadableFileError` after `PIPE_TIMEOUT`."""
    content, give_up = b"", time.monotonic() + PIPE_TIMEOUT
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while len(content) < limit:
        # Without a writer nothing happens; reading would look like the end of the file.
        if not poll.poll(max(give_up - time.monotonic(), 0) * 1000):
            raise UnreadableFileError(f"nobody wrote to this pipe for {PIPE_TIMEOUT:g} s")
        piece = os.read(descriptor, limit - len(content))
        if not piece:
            break
        content += piece
    return content


def others_can_access(file: Path) -> bool:
    """Return whether users other than the owner and the group can read or write a file.

    False for secrets of containers, which have no other users: Kubernetes links to a folder with the time in its name,
    Docker mounts into /run/secrets. Both often have mode 0444, although only the container sees them.
    """
    real = Path(os.path.realpath(file))
    if any(part.startswith("..") for part in real.parts) or real.is_relative_to("/run/secrets"):
        return False
    try:
        reachable = all(folder.stat().st_mode & stat.S_IXOTH for folder in real.parents)
        return reachable and bool(real.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH))
    except OSError:
        return False


def stamp(file: Path) -> object:
    """Return a value that differs after the file was written, replaced or removed."""
    try:
        status = file.stat()
    except OSError as error:
        return error.errno
    return status.st_mtime_ns, status.st_ino, status.st_size
