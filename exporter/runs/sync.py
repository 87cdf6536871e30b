"""Asks the runtime what changed and puts it into the store. Nothing here runs by itself: a scrape starts it.

`listing` knows which projects there are, `reading` reads one. `SharedSync` lets scrapes that overlap share one read.
"""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from exporter.errors import ApiError
from exporter.runs.listing import Directory
from exporter.runs.reading import ProjectReader, ReadRules, together
from exporter.runs.store import Store
from exporter.runs.troubles import Troubles
from exporter.runtime.client import RuntimeClient
from exporter.runtime.model import Health

log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class SyncRules:
    """What a sync reads."""

    read: ReadRules
    deadline: float
    """Seconds that a sync can take."""
    max_projects: int
    reads_projects: bool = True
    """Whether projects are read at all, rather than each when it is probed."""


class SyncObserver(Protocol):
    """Is told of every sync that ended."""

    def sync_ended(self, seconds: float, *, ok: bool) -> None:
        """`ok` says whether the API could be read; `seconds` is how long it took."""

    def projects_not_read(self, count: int) -> None:
        """So many projects are too many to be read."""


class Sync:
    """Reads one runtime as a whole: its health, its plan and its projects."""

    def __init__(
        self,
        client: RuntimeClient,
        store: Store,
        directory: Directory,
        rules: SyncRules,
        observer: SyncObserver,
        *,
        monotonic: Callable[[], float],
    ) -> None:
        self._client = client
        self._store = store
        self._rules = rules
        self._observer = observer
        self._monotonic = monotonic
        self._directory = directory
        self._troubles = Troubles(monotonic)
        self._reader = ProjectReader(client, store, rules.read, self._troubles, monotonic=monotonic)

    async def run(self) -> bool:
        """Read what changed; return whether the API could be read. Never raises for what an API can do."""
        started = self._monotonic()
        self._client.begin()
        self._store.clock.begin()
        try:
            async with asyncio.timeout(self._rules.deadline):
                reads = await together(self._read_projects(), self._read_health(), self._read_usage())
            ok = reads[0] and reads[1]
        except TimeoutError:
            # Each answer came in time, and all together would not.
            self._give_up(f"not through in {self._rules.deadline:.0f} s", before=started)
            ok = False
        self._store.expire()
        self._troubles.tell()
        self._observer.sync_ended(self._monotonic() - started, ok=ok)
        return ok

    def _give_up(self, why: str, *, before: float) -> None:
        """Note that the projects that have not been read since `before` will not be now."""
        self._troubles.note("everything", why)
        for project in self._store.projects():
            if project.read_at is None or project.read_at < before:
                project.error = project.error or why

    async def _read_health(self) -> bool:
        if not self._client.has("health"):
            return True
        health = await read_health(self._client, self._troubles)
        if health is not None:
            self._store.keep_health(health)
        return health is not None

    async def _read_usage(self) -> bool:
        """Read the plan meters. A token that may not see the plan is no reason to call the API down."""
        if not self._client.has("usage"):
            return True
        try:
            self._store.keep_meters(await self._client.usage())
        except ApiError as error:
            self._troubles.note("usage", str(error))
            return False
        self._troubles.clear("usage")
        return True

    async def _read_projects(self) -> bool:
        try:
            await self._list_projects()
        except ApiError as error:
            self._troubles.note("projects", str(error))
            for project_id in self._store.project_ids():
                self._store.fail(project_id, str(error))
            return False
        self._troubles.clear("projects")
        self._troubles.clear("everything")
        reads = await together(*map(self._read_project, self._store.project_ids()))
        return not reads or any(reads)

    async def _list_projects(self) -> None:
        await self._directory.refresh(self._store.clock.observe)
        if not self._rules.reads_projects:
            return
        wanted = self._directory.wanted
        known = set(self._store.project_ids())
        # Those that are read already stay: a project that came and went with the order of a list would be no use.
        read = sorted(wanted, key=lambda project_id: project_id not in known)[: self._rules.max_projects]
        self._observer.projects_not_read(len(wanted) - len(read))
        if len(read) < len(wanted):
            self._troubles.note("some projects", f"there are more than limits.projects ({self._rules.max_projects})")
        else:
            self._troubles.clear("some projects")
        self._store.name_projects({project_id: wanted[project_id] for project_id in read})
        for project_id in self._store.project_ids():
            if project_id in self._directory.names and project_id not in wanted:
                self._reader.forget(project_id)

    async def _read_project(self, project_id: str) -> bool:
        return await self._reader.read(project_id, self._directory.names.get(project_id))


async def read_health(client: RuntimeClient, troubles: Troubles) -> Health | None:
    """Return the state of the worker service, which the API must have; None, with a note, when it cannot be read."""
    try:
        health = await client.health()
    except ApiError as error:
        troubles.note("health", str(error))
        return None
    troubles.clear("health")
    return health


class SharedSync:
    """Lets any number of scrapes share one sync at a time, and none at all when the last is recent enough."""

    def __init__(
        self,
        sync: Callable[[], Awaitable[bool]],
        *,
        min_interval: float,
        monotonic: Callable[[], float],
    ) -> None:
        self._sync = sync
        self._monotonic = monotonic
        self._task: asyncio.Task[None] | None = None
        self._ended_at: float | None = None
        self.min_interval = min_interval
        self.ok = False
        """Whether the last sync that ended could read the API."""
        self.ever_ok = False
        """Whether any sync could."""

    async def fresh(self, patience: float) -> bool:
        """Have the store read, by a sync of our own or one under way, and wait for it at most `patience` seconds.

        Returns whether what the store shows is a good read. The sync goes on when the time is up.
        """
        if self._task is None:
            if self._ended_at is not None and self._monotonic() - self._ended_at < self.min_interval:
                return self.ok
            self._task = asyncio.create_task(self._run(), name="sync")
        done, _ = await asyncio.wait({self._task}, timeout=max(patience, 0.0))
        return bool(done) and self.ok

    async def stop(self) -> None:
        """End a sync that is under way, with nothing of its unfinished reads kept."""
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _run(self) -> None:
        try:
            self.ok = await self._sync()
        except Exception:
            # A fault of ours must not end the scrapes: it shows as an API that is down, and in the log.
            self.ok = False
            log.exception("sync failed")
        else:
            self.ever_ok = self.ever_ok or self.ok
        finally:
            self._ended_at = self._monotonic()
            self._task = None
