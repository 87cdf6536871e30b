"""What outlives the process: one runtime's runs and counts in a SQLite file, so that a restart counts nothing twice.

A sync is saved before its page is shown, in one transaction: what somebody has seen is never taken back, and what was
not saved is read from the runtime again.
"""

import asyncio
import contextlib
import hashlib
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from exporter.config import canonical_url
from exporter.errors import ConfigError, StorageError
from exporter.runs.persistence import KINDS, Persistence, Row
from exporter.runs.spinner import TrackedRun

log = structlog.get_logger(__name__)

APPLICATION_ID = 0x73706E72
"""Marks a file as ours: "spnr"."""

VERSION = 2
"""The layout of the table and of the values in it; a file of another version is set aside."""

BUSY = 1.0
"""Seconds to wait for a process that has the file open and is about to end."""

Place = tuple[str, str, str]
"""Project, kind and key: the primary key."""


class StorageObserver(Protocol):
    """Is told when something could not be saved."""

    def storage_failed(self) -> None:
        """It stays to be saved."""


class StateWriter:
    """Keeps a runtime's file up with its store. The exporter goes on when it cannot: what it shows is still true."""

    def __init__(self, file: "StateFile", persistence: Persistence, observer: StorageObserver) -> None:
        self._file = file
        self._persistence = persistence
        self._observer = observer
        self._lock = asyncio.Lock()
        self._failing = ""

    async def flush(self) -> None:
        """Save what the store has that is not saved; return when that is done, or could not be."""
        async with self._lock:
            # Taken while nothing else can change the store: a count and the run that it counts are of one moment.
            self._file.stage(self._persistence.unsaved())
            self._persistence.saved()
            if not self._file.has_staged:
                return
            try:
                await asyncio.to_thread(self._file.write)
            except StorageError as error:
                self._observer.storage_failed()
                if str(error) != self._failing:
                    self._failing = str(error)
                    log.error("state not saved; a restart would count again from the last good save", error=str(error))
                return
            if self._failing:
                self._failing = ""
                log.info("state is saved again", file=str(self._file.path))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class StateFile:
    """One file, which this process alone has open."""

    def __init__(self, folder: Path, runtime: str, base_url: str, *, wall: Callable[[], float] = time.time) -> None:
        """Open the file of a runtime, or make it: each URL has its own, so that counts never go from one to another.

        A file that cannot be used as ours is set aside under another name. Raises `ConfigError` when the folder cannot
        be written, or another process has the file open.
        """
        self.path = folder / file_name(runtime, canonical_url(base_url))
        self._writing = threading.Lock()
        self._staged: dict[Place, bytes | None] = {}
        self._gone: set[str] = set()
        with _unusable_folder(self.path):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for spelling in (base_url, canonical_url(base_url) + "/"):
                _adopt(folder / file_name(runtime, spelling), self.path)
            try:
                self._connection, self._rows = _opened(self.path)
            except _ForeignError as error:
                aside = _set_aside(self.path, wall())
                log.error(
                    "state file cannot be used; beginning anew", file=str(self.path), reason=str(error), kept=aside
                )
                self._connection, self._rows = _opened(self.path)

    def load(self) -> list[Row]:
        """Return what was in the file when it was opened, once."""
        rows, self._rows = self._rows, []
        return rows

    def stage(self, rows: Iterable[Row]) -> None:
        """Take what is to be written, as it is now."""
        for kind, project, key, value in rows:
            if value is None and kind == "project":
                self._gone.add(project)
                self._staged = {place: each for place, each in self._staged.items() if place[0] != project}
            else:
                self._staged[project, kind, key] = None if value is None else _ENCODER.encode(value)

    @property
    def has_staged(self) -> bool:
        """Whether there is something to write."""
        return bool(self._staged or self._gone)

    def write(self) -> None:
        """Write all that is staged or nothing of it; raises `StorageError`, and then it stays staged.

        It waits for the disk, so it is not for the event loop's thread.
        """
        with self._writing:
            staged, self._staged = self._staged, {}
            gone, self._gone = self._gone, set()
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany("DELETE FROM state WHERE project = ?", [(project,) for project in gone])
                self._connection.executemany(
                    "DELETE FROM state WHERE project = ? AND kind = ? AND key = ?",
                    [place for place, value in staged.items() if value is None],
                )
                self._connection.executemany(
                    "INSERT OR REPLACE INTO state VALUES (?, ?, ?, ?)",
                    [(*place, value) for place, value in staged.items() if value is not None],
                )
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                # What was staged meanwhile is newer.
                self._staged = {**staged, **self._staged}
                self._gone |= gone
                raise StorageError(f"{self.path}: cannot be written: {error}") from None

    def close(self) -> None:
        """Close the file, after a write that is under way."""
        with self._writing:
            self._connection.close()


def file_name(runtime: str, base_url: str) -> str:
    """Return the name of a runtime's file."""
    readable = re.sub(r"[^\w.-]", "_", runtime) or "runtime"
    return f"{readable}-{hashlib.sha256(base_url.encode()).hexdigest()[:8]}.db"


_ENCODER = msgspec.msgpack.Encoder()
_DECODERS = {kind: msgspec.msgpack.Decoder(type_) for kind, type_ in KINDS.items()}

_TABLE = """
CREATE TABLE state (
    project TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (project, kind, key)
) WITHOUT ROWID
"""


class _ForeignError(Exception):
    """The file is none of ours, of another version, or damaged."""


def _opened(path: Path) -> tuple[sqlite3.Connection, list[Row]]:
    """Open a file and read all that is in it."""
    # Nobody but us is to look into it: it has the names of customers' projects.
    path.touch(mode=0o600, exist_ok=True)
    connection = sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)
    try:
        # Nobody else has any business in it, and without shared memory it works on any file system.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        _claim(connection)
        rows = _rows(connection)
        connection.execute("COMMIT")
        # Only now that it is known to be ours.
        connection.execute("PRAGMA journal_mode = WAL")
    except (sqlite3.OperationalError, OSError):
        connection.close()
        raise  # locked, or not to be written: not the file's fault
    except (sqlite3.DatabaseError, msgspec.MsgspecError, KeyError, ValueError) as error:
        connection.close()
        raise _ForeignError(str(error) or type(error).__name__) from None
    except _ForeignError:
        connection.close()
        raise
    return connection, rows


def _claim(connection: sqlite3.Connection) -> None:
    """Make an empty file ours, and look over one that is not empty."""
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if not tables and not application:
        connection.execute(_TABLE)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
    elif application != APPLICATION_ID:
        raise _ForeignError("it is another program's")
    elif version != VERSION:
        raise _ForeignError(f"it is of version {version}, and this exporter writes version {VERSION}")
    (finding,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if finding != "ok":
        raise _ForeignError(f"it is damaged: {' '.join(finding.split())}")


def _rows(connection: sqlite3.Connection) -> list[Row]:
    found = connection.execute("SELECT kind, project, key, value FROM state")
    rows: list[Row] = [(kind, project, key, _DECODERS[kind].decode(value)) for kind, project, key, value in found]
    places = {(project, kind, key) for kind, project, key, _ in rows}
    for _, project, key, value in rows:
        if isinstance(value, TrackedRun) and (project, "spinner", value.run.snapshot.spinner) not in places:
            raise _ForeignError(f"it has the run {key} and not its spinner")
    return rows


def _adopt(earlier: Path, path: Path) -> None:
    """Rename the file that an earlier version named after another spelling of the same URL.

    Raises `sqlite3.OperationalError` while another process has it open: a file is not renamed under its user.
    """
    if earlier == path or path.exists() or not earlier.exists():
        return
    connection = sqlite3.connect(earlier, timeout=BUSY, isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        pass  # damaged or another program's: set aside like any other such file
    finally:
        # Writes what is in the write-ahead log into the file, and removes the log.
        connection.close()
    earlier.rename(path)


def _set_aside(path: Path, now: float) -> str:
    aside = path.with_name(f"{path.name}.unusable-{now:.0f}")
    path.rename(aside)
    # What was under way in it is of no use without it.
    for suffix in ("-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return str(aside)


@contextlib.contextmanager
def _unusable_folder(path: Path) -> Iterator[None]:
    """Say what is wrong with a place where no file of ours can be."""
    try:
        yield
    except sqlite3.OperationalError as error:
        reason = "another process has it open" if "locked" in str(error) else str(error)
        raise ConfigError(f"storage.path: {path}: cannot be used: {reason}") from None
    except OSError as error:
        raise ConfigError(f"storage.path: {path}: cannot be used: {error.strerror}") from None
