"""The state file: one runtime's runs and counters in SQLite, so that a restart counts nothing twice.

The changes of a sync are saved in one transaction before the page shows them, so a counter that was shown never goes
back. What was not saved is read from the runtime again.
"""

import asyncio
import contextlib
import contextvars
import errno
import hashlib
import os
import re
import sqlite3
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from exporter.config import Config, canonical_url
from exporter.errors import StorageError, UnusableError
from exporter.runs.persistence import KINDS, Persistence, Row
from exporter.runs.project import SPINNER
from exporter.runs.spinner import TrackedRun
from exporter.runs.spinners import OTHER

log = structlog.get_logger(__name__)

APPLICATION_ID = 0x73706E72
"""Marks a file as the exporter's: "spnr"."""

VERSION = 2
"""Version of the table and of the values in it; a file of another version is renamed and kept."""

MAX_LOG = 4 * 2**20
"""Bytes that the write-ahead log keeps between writes; it would keep the size of the largest write for ever."""

BUSY = 1.0
"""Seconds to wait for a process that has the file open and is about to stop."""

PrimaryKey = tuple[str, str, str]
"""Project, kind and key."""


class StorageObserver(Protocol):
    """Receives failures of writes."""

    def storage_failed(self) -> None:
        """What changed could not be written; a later write includes it."""


MAX_STAGED = 2000
"""Rows that are kept for the next write while writes fail. If there are more, the next write compares everything."""

RETRY = 60.0
"""Seconds between two writes that compare everything, while they fail."""

WRITE_TIMEOUT = 5.0
"""Seconds that somebody waits for a write: a disk that does not respond must not stop the reads, nor the end."""


class StateWriter:
    """Writes what changes in a store to its file. If a write fails, the exporter continues.

    While writes fail, memory and the cost of a write stay the same: of what changes in a long time most is changed
    again, or is gone, when the disk has room again. While a write does not end, there is no other one.
    """

    def __init__(
        self, file: "StateFile", persistence: Persistence, observer: StorageObserver, monotonic: Callable[[], float]
    ) -> None:
        self._file = file
        self._persistence = persistence
        self.observer = observer
        self._monotonic = monotonic
        self._lock = asyncio.Lock()
        self._failing = ""
        self._compares_at: float | None = None
        """Our monotonic time of the next write that compares everything; None while staged rows are enough."""
        self._write: asyncio.Future[None] | None = None
        """The write in progress, or that has ended since the last flush."""
        self._write_began_at = 0.0
        self._write_compares = False
        self._is_late = False
        """Whether somebody has waited for it in vain."""

    async def flush(self, *, is_last: bool = False) -> None:
        """Save what is not saved yet; return when that is done, has failed or takes longer than `WRITE_TIMEOUT`."""
        async with self._lock:
            # The one that was late is waited for no more, except at the end.
            if not await self._has_ended(timeout=0 if self._is_late and not is_last else WRITE_TIMEOUT):
                return
            compares = self._compares_at is not None
            if self._compares_at is not None and self._monotonic() < self._compares_at and not is_last:
                self._persistence.saved()  # so that changes are not noted for as long as this lasts
                self.observer.storage_failed()
                return
            # Staged without an await in between: a counter and the runs that it counts are of the same moment.
            self._file.stage(self._persistence.everything() if compares else self._persistence.unsaved())
            self._persistence.saved()
            if not self._file.has_staged:
                return
            self._compares_at = None
            self._write_began_at, self._write_compares = self._monotonic(), compares
            self._write = _in_thread(self._file.replace if compares else self._file.write)
            await self._has_ended(timeout=WRITE_TIMEOUT)

    async def _has_ended(self, *, timeout: float) -> bool:  # noqa: ASYNC109 - a cancelled wait must not cancel the write
        """Wait for the write in progress, at most `timeout` seconds; return whether none is in progress any more."""
        if self._write is None:
            return True
        await asyncio.wait({self._write}, timeout=timeout)
        if not self._write.done():
            self._note_late()
            return False
        write, self._write, self._is_late = self._write, None, False
        try:
            write.result()
        except StorageError as error:
            self._note_failure(str(error))
        else:
            if self._failing:
                self._failing = ""
                log.info("state saved again", file=str(self._file.path))
        return True

    def _note_late(self) -> None:
        self._is_late = True
        self._report(f"{self._file.path}: the disk does not respond")
        if self._monotonic() - self._write_began_at >= RETRY:
            # So that changes are not noted for as long as this lasts.
            self._persistence.saved()
            self._compares_at = self._monotonic()

    def _note_failure(self, error: str) -> None:
        self._report(error)
        if self._write_compares or self._compares_at is not None or self._file.staged_count > MAX_STAGED:
            self._file.discard_staged()
            self._compares_at = self._monotonic() + RETRY

    def _report(self, error: str) -> None:
        self.observer.storage_failed()
        if error != self._failing:
            self._failing = error
            log.error("state not saved; a restart would resume from the last successful save", error=error)

    def close(self) -> None:
        """Close the file, after a write in progress, without waiting for it."""
        if self._write is None:
            self._file.close()
        else:
            self._write.add_done_callback(lambda _: self._file.close())


def _in_thread(work: Callable[[], None]) -> asyncio.Future[None]:
    """Run `work` in a thread of its own; cancelling the future does not end it.

    The threads of `asyncio.to_thread` are few, and resolve names and check passwords too. The process does not end
    before they do.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def note(error: Exception | None) -> None:
        if error is None:
            ended.set_result(None)
        else:
            ended.set_exception(error)

    def run() -> None:
        error: Exception | None = None
        try:
            work()
        except Exception as raised:  # noqa: BLE001 - whoever waits for the future gets it
            error = raised
        with contextlib.suppress(RuntimeError):  # the event loop is closed
            loop.call_soon_threadsafe(note, error)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(run,), name="state file", daemon=True).start()
    return ended


class StateFile:
    """One file, opened exclusively by this process."""

    def __init__(
        self,
        folder: Path,
        runtime: str,
        base_url: str,
        *,
        shares_url: bool = False,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Open or create the file of a runtime. Each URL has its own, so that the counters of two never mix.

        The file of a runtime that was renamed is renamed too, unless another runtime `shares_url`. A file that cannot
        be used is renamed and kept. Raises `UnusableError` when the folder cannot be written, or another process has
        the file open.
        """
        self.path = folder / file_name(runtime, canonical_url(base_url))
        self._writing = threading.Lock()
        self._staged: dict[PrimaryKey, bytes | None] = {}
        self._removed: set[str] = set()
        with _unusable_folder(self.path):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_folder(folder)
            earlier = _earlier_file(self.path, runtime, base_url, shares_url=shares_url)
            if earlier is not None and self.path.exists():
                log.warning(
                    "two state files for one runtime; delete the one that is not used",
                    used=str(self.path),
                    unused=str(earlier),
                )
            elif earlier is not None:
                _adopt(earlier, self.path)
            try:
                self._connection, self._rows = _opened(self.path)
            except _ForeignError as error:
                aside = _set_aside(self.path, wall())
                log.error(
                    "state file cannot be used; starting with an empty one",
                    file=str(self.path),
                    reason=str(error),
                    kept=aside,
                )
                self._connection, self._rows = _opened(self.path)
            self._own_inode = _inode(self.path)

    def load(self) -> list[Row]:
        """Return the rows that were in the file when it was opened; later calls return none."""
        rows, self._rows = self._rows, []
        return rows

    def stage(self, rows: Iterable[Row]) -> None:
        """Encode rows for the next `write`."""
        for kind, project, key, value in rows:
            if value is None and kind == "project":
                self._removed.add(project)
                self._staged = {key: each for key, each in self._staged.items() if key[0] != project}
            else:
                self._staged[project, kind, key] = None if value is None else _ENCODER.encode(value)

    @property
    def has_staged(self) -> bool:
        """Whether there is something to write."""
        return bool(self._staged or self._removed)

    @property
    def staged_count(self) -> int:
        """How many rows the next write has."""
        return len(self._staged) + len(self._removed)

    def discard_staged(self) -> None:
        """Forget the staged rows: the next write is `replace`."""
        self._staged, self._removed = {}, set()

    def write(self) -> None:
        """Write all staged rows in one transaction. Raises `StorageError`; then they stay staged.

        Blocks on the disk, so it must not run in the event loop's thread.
        """
        with self._writing:
            staged, self._staged = self._staged, {}
            removed, self._removed = self._removed, set()
            try:
                with self._transaction():
                    self._connection.executemany(
                        "DELETE FROM state WHERE project = ?", [(project,) for project in removed]
                    )
                    self._put(staged)
            except StorageError:
                # Rows that were staged in the meantime are newer.
                self._staged = {**staged, **self._staged}
                self._removed |= removed
                raise

    def replace(self) -> None:
        """Make the staged rows the only ones of the file; write those that differ. Raises and blocks as `write` does.

        If it fails, nothing stays staged.
        """
        with self._writing:
            staged, self._staged = self._staged, {}
            self._removed = set()
            with self._transaction():
                found = self._connection.execute("SELECT project, kind, key, value FROM state")
                gone: list[PrimaryKey] = []
                for project, kind, key, value in found:
                    if (project, kind, key) not in staged:
                        gone.append((project, kind, key))
                    elif staged[project, kind, key] == value:
                        del staged[project, kind, key]
                self._put({**staged, **dict.fromkeys(gone)})

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Run one transaction; an error rolls it back and is a `StorageError`."""
        try:
            self._return_to_path()
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except (sqlite3.Error, OSError, _ForeignError) as error:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise StorageError(f"{self.path}: cannot be written: {error}") from None

    def _put(self, rows: Mapping[PrimaryKey, bytes | None]) -> None:
        self._connection.executemany(
            "DELETE FROM state WHERE project = ? AND kind = ? AND key = ?",
            [key for key, value in rows.items() if value is None],
        )
        self._connection.executemany(
            "INSERT OR REPLACE INTO state VALUES (?, ?, ?, ?)",
            [(*key, value) for key, value in rows.items() if value is not None],
        )

    def close(self) -> None:
        """Close the file, after a write in progress."""
        with self._writing:
            self._connection.close()

    def _return_to_path(self) -> None:
        """Write the file again if it was removed: SQLite would go on to write what nobody can open any more.

        Raises `_ForeignError` if there is another one now: it may be that of another exporter, or have been restored.
        """
        found = _inode(self.path)
        if found == self._own_inode:
            return
        if found is not None:
            raise _ForeignError("it was replaced by another file, which a restart uses")
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        copy = self.path.with_name(self.path.name + ".copy")
        _remove(copy)
        copy.touch(mode=0o600)
        self._connection.execute("VACUUM INTO ?", (str(copy),))
        # The log of the removed file would be applied to this one.
        _remove(self.path)
        copy.rename(self.path)
        removed, (self._connection, _) = self._connection, _opened(self.path)
        removed.close()
        self._own_inode = _inode(self.path)
        log.warning("the state file was removed and is written again", file=str(self.path))


def check_folder(folder: Path, configs: Mapping[str, Config]) -> None:
    """Check that a folder can have the files of runtimes, given by name. Raises `UnusableError`.

    Nothing that it creates stays, and it opens no file: a running exporter has locked its own.
    """
    with _unusable_folder(folder):
        if os.path.lexists(folder):
            folder.mkdir(exist_ok=True)  # an error unless it is one
            _check_folder(folder)
            tempfile.TemporaryFile(dir=folder).close()
        else:
            # As `mkdir` does, it would be created with its parents.
            nearest = next(parent for parent in folder.parents if os.path.lexists(parent))
            Path(tempfile.mkdtemp(dir=nearest)).rmdir()
        for runtime, config in configs.items():
            path = folder / file_name(runtime, canonical_url(config.runtime.base_url))
            if os.path.lexists(path):
                _check_file(path)
                if not os.access(path, os.R_OK | os.W_OK):
                    raise UnusableError(f"storage.path: {path}: cannot be used: {os.strerror(errno.EACCES)}")


def file_name(runtime: str, base_url: str) -> str:
    """Return the name of a runtime's file."""
    readable = re.sub(r"[^\w.-]", "_", runtime)[:MAX_READABLE]
    return readable + _suffix(base_url)


def _suffix(base_url: str) -> str:
    return f"-{hashlib.sha256(base_url.encode()).hexdigest()[:8]}.db"


MAX_READABLE = 64
"""Characters of a runtime's name in the name of its file."""


_ENCODER = msgspec.msgpack.Encoder()
_DECODERS = {kind: msgspec.msgpack.Decoder(type_) for kind, type_ in KINDS.items()}

_TABLE = """
CREATE TABLE state (
    project TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (project, kind, key)
) WITHOUT ROWID
"""


LOGS = ("-wal", "-shm", "-journal")
"""What SQLite adds to the name of a file for its logs."""


class _ForeignError(Exception):
    """The file belongs to another program, has another version, or is damaged."""


def _opened(path: Path) -> tuple[sqlite3.Connection, list[Row]]:
    """Open a file and read all rows."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    was_accessible = _make_private(path)
    for suffix in LOGS:
        with contextlib.suppress(FileNotFoundError):
            was_accessible |= _make_private(path.with_name(path.name + suffix))
    connection = sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)
    try:
        # Exclusive locking needs no shared memory, so it works on any file system.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        _claim(connection)
        rows = _rows(connection)
        connection.execute("COMMIT")
        # Only after the checks: this changes the file.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA journal_size_limit = {MAX_LOG}")
        # Opens the log, which is not possible any more once the file is removed.
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("COMMIT")
        if was_accessible:
            log.warning("every user could access the state file; now only its owner can", file=str(path))
    except (sqlite3.OperationalError, OSError):
        connection.close()
        raise  # locked or not writable: the file itself may be good
    except (sqlite3.DatabaseError, msgspec.MsgspecError, KeyError, ValueError) as error:
        connection.close()
        raise _ForeignError(str(error) or type(error).__name__) from None
    except _ForeignError:
        connection.close()
        raise
    return connection, rows


def _check_folder(folder: Path) -> None:
    """Refuse a folder in which others could replace the file, by a link to another file for example."""
    if folder.stat().st_mode & stat.S_IWOTH:
        raise UnusableError(
            f"storage.path: {folder}: every user can write to this folder; remove that with chmod o-w, or name a "
            "folder below it, which the exporter creates"
        )


def _check_file(path: Path) -> int:
    """Return the mode of a file. Raises `UnusableError` if it is none, a link for example."""
    mode = path.lstat().st_mode
    if not stat.S_ISREG(mode):
        found = "a symbolic link" if stat.S_ISLNK(mode) else "something else"
        raise UnusableError(f"storage.path: {path}: expected a file, not {found}")
    return mode


def _make_private(path: Path) -> bool:
    """Let only its owner access a file, because it contains the names of customers' projects.

    Returns whether every user could access it. Raises `UnusableError` if it is no file, a link for example, or if its
    mode cannot be changed.
    """
    mode = _check_file(path)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        # Only then it is opened: closing it would release the locks that this process has on it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.fchmod(descriptor, 0o600)
        except PermissionError:
            # Of another owner. In Kubernetes the group of a volume may access its files.
            if mode & stat.S_IRWXO:
                what = "every user can access it, and its mode cannot be changed"
                raise UnusableError(f"storage.path: {path}: {what}") from None
        finally:
            os.close(descriptor)
    return bool(mode & stat.S_IRWXO)


def _claim(connection: sqlite3.Connection) -> None:
    """Initialize an empty file; check one that is not empty."""
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if not tables and not application:
        connection.execute(_TABLE)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
    elif application != APPLICATION_ID:
        raise _ForeignError("it belongs to another program")
    elif version != VERSION:
        raise _ForeignError(f"it has version {version}, and this exporter writes version {VERSION}")
    (finding,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if finding != "ok":
        raise _ForeignError(f"it is damaged: {' '.join(finding.split())}")


def _rows(connection: sqlite3.Connection) -> list[Row]:
    found = connection.execute("SELECT kind, project, key, value FROM state")
    rows: list[Row] = [(kind, project, key, _DECODERS[kind].decode(value)) for kind, project, key, value in found]
    keys = {(project, kind, key) for kind, project, key, _ in rows}
    for _, project, key, value in rows:
        # Tombstones can outlive their spinner.
        if isinstance(value, TrackedRun) and value.left_at is None:
            counted_by = (value.run.snapshot.spinner, OTHER)
            if not any((project, SPINNER, name) in keys for name in counted_by):
                raise _ForeignError(f"the spinner of run {key} is missing")
    return rows


def _earlier_file(path: Path, runtime: str, base_url: str, *, shares_url: bool) -> Path | None:
    """Return the file of the same URL under another name of the runtime or another spelling of the URL; None: none.

    `path` is the file under its present name, which is not an earlier one.
    """
    spellings = list(dict.fromkeys((canonical_url(base_url), base_url, canonical_url(base_url) + "/")))
    names = (runtime,) if shares_url else (runtime, _NAME_OF_SINGLE_RUNTIME)
    known = [path.with_name(file_name(name, spelling)) for name in names for spelling in spellings]
    if not shares_url:
        others = [file for spelling in spellings for file in path.parent.glob("*" + _suffix(spelling))]
        known += others if len(others) == 1 else []
    return next((file for file in known if file != path and file.is_file() and not file.is_symlink()), None)


_NAME_OF_SINGLE_RUNTIME = "runtime"
"""The name that earlier versions gave to the file of a single runtime."""


def _adopt(earlier: Path, path: Path) -> None:
    """Rename a file. Raises `sqlite3.OperationalError` while another process has it open: its user would lose it."""
    connection = sqlite3.connect(earlier, timeout=BUSY, isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        pass  # damaged or of another program: opening it will rename it
    finally:
        # Moves the write-ahead log into the file and removes the log.
        connection.close()
    earlier.rename(path)


def _set_aside(path: Path, now: float) -> str:
    aside = path.with_name(f"{path.name}.unusable-{now:.0f}")
    path.rename(aside)
    # The logs of transactions are useless without their file.
    _remove(path)
    return str(aside)


def _remove(path: Path) -> None:
    """Remove a file, if it exists, and its logs of transactions."""
    for suffix in ("", *LOGS):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _inode(path: Path) -> int | None:
    """Return what tells a file from another one at the same path, as SQLite does; None if there is none."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _unusable_folder(path: Path) -> Iterator[None]:
    """Turn an error of the folder into an `UnusableError` that names the file."""
    try:
        yield
    except sqlite3.OperationalError as error:
        reason = "another process has it open" if "locked" in str(error) else str(error)
        raise UnusableError(f"storage.path: {path}: cannot be used: {reason}") from None
    except OSError as error:
        raise UnusableError(f"storage.path: {path}: cannot be used: {error.strerror}") from None
