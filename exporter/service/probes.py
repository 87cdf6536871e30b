"""One project for one scrape: each probed project has a store of its own.

What a probe needs beside its project, the list of projects and the state of the worker service, is read once for all
that come within `sync.min_interval`. A project that nobody has asked for in a while is forgotten.
"""

import asyncio
import dataclasses
from collections.abc import Callable, Mapping

from exporter.config import Config
from exporter.errors import ApiError, UnreadableError
from exporter.metrics.catalogue import ScrapeContext
from exporter.runs.store import Store
from exporter.runtime.client import RuntimeClient
from exporter.runtime.model import Health
from exporter.sync.problems import ProblemLog
from exporter.sync.project_list import ProjectList
from exporter.sync.project_sync import ProjectSync
from exporter.sync.runtime_sync import SyncObserver, read_health
from exporter.sync.single_flight import SingleFlight

IDLE = 900.0
"""Seconds after which a project that nobody asks for is forgotten: longer than a Prometheus needs to be replaced."""


class Probes:
    """Reads single projects of one runtime when they are asked for, and holds what it read of them."""

    def __init__(
        self,
        client: RuntimeClient,
        project_list: ProjectList,
        config: Config,
        observer: SyncObserver,
        *,
        make_store: Callable[[], Store],
        min_interval: float,
        deadline: float,
        monotonic: Callable[[], float],
        held: Mapping[str, Store] | None = None,
    ) -> None:
        """`deadline` is how many seconds the read of one project can take.

        `held` are stores of projects that were probed before, by id, which is gone on with.
        """
        self._client = client
        self._project_list = project_list
        self._config = config
        self._observer = observer
        self._make_store = make_store
        self._min_interval = min_interval
        self._deadline = deadline
        self._monotonic = monotonic
        self._problems = ProblemLog(monotonic)
        self._health: Health | None = None
        self._shared = SingleFlight(self._read_what_is_shared, min_interval=min_interval, monotonic=monotonic)
        self._probed: dict[str, _Probed] = {}
        for project_id, store in (held or {}).items():
            self._probed[project_id] = self._probe(project_id, store)

    @property
    def held(self) -> dict[str, Store]:
        """What is held of each project that is probed, by id."""
        return {project_id: probed.store for project_id, probed in self._probed.items()}

    async def projects(self, patience: float) -> dict[str, str]:
        """Return the projects that can be probed, id to name; raises `UnreadableError` before the first good read."""
        await self._shared.fresh(patience)
        if not self._shared.ever_ok:
            raise UnreadableError("The runtime's list of projects has not been read yet; the log says why.")
        return self._project_list.wanted

    async def moment(self, project_id: str, patience: float) -> ScrapeContext | None:
        """Return what there is to show of one project; None when `projects` has it not; raises as that does.

        Waits at most `patience` seconds; what has not been read by then is as it was, with `api_up` false.
        """
        give_up = self._monotonic() + patience
        projects = await self.projects(patience)
        if project_id not in projects:
            return None
        probed = self._probed.get(project_id) or self._begin(project_id)
        probed.asked_at = self._monotonic()
        probed.store.name_projects({project_id: projects[project_id]})
        ok = await probed.shared.fresh(give_up - self._monotonic())
        return ScrapeContext(probed.store, probed.store.clock, ok)

    async def stop(self) -> None:
        """End reads that are under way."""
        await self._shared.stop()
        for probed in self._probed.values():
            await probed.shared.stop()

    def _begin(self, project_id: str) -> "_Probed":
        self._probed[project_id] = self._probe(project_id, self._make_store())
        return self._probed[project_id]

    def _probe(self, project_id: str, store: Store) -> "_Probed":
        reader = ProjectSync(self._client, store, self._config, self._problems, monotonic=self._monotonic)

        async def read() -> bool:
            started = self._monotonic()
            store.clock.begin()
            if self._health is not None:
                # It is not shown with a project, but says which silences are none of its runs' own.
                store.keep_health(self._health)
            try:
                async with asyncio.timeout(self._deadline):
                    ok = await reader.read(project_id, self._project_list.names.get(project_id))
            except TimeoutError:
                ok = False
                store.fail(project_id, f"not through in {self._deadline:.0f} s")
            store.expire()
            self._observer.sync_ended(self._monotonic() - started, ok=ok)
            return ok

        shared = SingleFlight(read, min_interval=self._min_interval, monotonic=self._monotonic)
        return _Probed(store, shared, self._monotonic())

    async def _read_what_is_shared(self) -> bool:
        self._client.begin_sync()
        try:
            await self._project_list.refresh()
        except ApiError as error:
            self._problems.report("projects", str(error))
            return False
        finally:
            self._forget_idle_and_gone()
            # Here rather than after each project: two hundred that fail alike are one line.
            self._problems.log()
        self._problems.resolve("projects")
        if self._client.has("health"):
            self._health = await read_health(self._client, self._problems)
        return True

    def _forget_idle_and_gone(self) -> None:
        listed, long_ago = self._project_list.wanted, self._monotonic() - IDLE
        for project_id, probed in list(self._probed.items()):
            if project_id not in listed or probed.asked_at < long_ago:
                del self._probed[project_id]
                self._problems.forget(project_id)


@dataclasses.dataclass(slots=True)
class _Probed:
    store: Store
    shared: SingleFlight
    asked_at: float
    """Our monotonic time."""
