"""All runtimes together: one exporter for one config, which can be swapped while it runs."""

import asyncio
import dataclasses
import weakref
from collections.abc import Mapping
from pathlib import Path

from exporter import __version__
from exporter.config import Config
from exporter.errors import ConfigError
from exporter.metrics.exporter_metrics import ExporterMetrics
from exporter.metrics.exposition import Exposition
from exporter.metrics.formats import TEXT, Format
from exporter.metrics.page import MetricsPage
from exporter.runs.store import Store
from exporter.service.monitored_runtime import Dependencies, MonitoredRuntime

SCRAPE_INTERVAL = 15.0
"""Seconds between two scrapes where nobody says otherwise: what deploy/prometheus.yml has."""

PATIENCE = 9.5
"""Seconds to wait for a sync when the scraper names no timeout: Prometheus's default of 10 s, less the way back."""


@dataclasses.dataclass(frozen=True, slots=True)
class ProbeTarget:
    """A project that can be probed."""

    runtime: str
    """The name of its runtime; empty when there is one alone."""
    project_id: str
    name: str


class Exporter:
    """Reads its runtimes when it is asked for a page, side by side, and answers in time."""

    def __init__(
        self, configs: Mapping[str, Config], dependencies: Dependencies | None = None, *, storage: Path | None = None
    ) -> None:
        """`configs` are those of the runtimes by name, which is empty for one that is alone.

        `storage` is the folder for what outlives the process; None: nothing does. Opens no connection. Raises
        `ConfigError` when files that a config names cannot be used.
        """
        self._dependencies = dependencies or Dependencies()
        self._storage = storage
        self.own = self._make_own(configs)
        self._exposition = Exposition(self.own)
        # The lines of what is probed go with what is held of it.
        self._probed: weakref.WeakKeyDictionary[Store, Exposition] = weakref.WeakKeyDictionary()
        self.runtimes = {
            name: MonitoredRuntime(name, config, self.own.of(name), self._dependencies, storage=storage)
            for name, config in configs.items()
        }
        self.own.config_reloaded(ok=True)

    @property
    def ready(self) -> bool:
        """Whether any runtime has ever been read, so that the page says something."""
        return any(reader.ready for reader in self.runtimes.values())

    @property
    def timeout_offset(self) -> float:
        """Seconds to be taken off a scrape's timeout: the most that any runtime's config asks for."""
        return max(reader.config.sync.timeout_offset for reader in self.runtimes.values())

    async def page(self, page_format: Format = TEXT, *, patience: float = PATIENCE) -> MetricsPage:
        """Return the page of this moment; waits for the reads at most `patience` seconds."""
        moments = await asyncio.gather(*(reader.moment(patience) for reader in self.runtimes.values()))
        for name, reader in self.runtimes.items():
            held = reader.probes.held.values()
            self.own.of(name).probing(projects=len(held), runs=sum(store.view.run_count for store in held))
        return await self._exposition.page(dict(zip(self.runtimes, moments, strict=True)), page_format)

    async def projects(self, patience: float = PATIENCE) -> list[ProbeTarget]:
        """Return what can be probed; raises `UnreadableError` while a runtime's list has never been read."""
        lists = await asyncio.gather(*(reader.projects(patience) for reader in self.runtimes.values()))
        targets: list[ProbeTarget] = []
        for name, projects in zip(self.runtimes, lists, strict=True):
            targets += [ProbeTarget(name, project_id, label) for project_id, label in sorted(projects.items())]
        return targets

    async def probe(
        self, runtime: str, project_id: str, page_format: Format = TEXT, *, patience: float = PATIENCE
    ) -> MetricsPage | None:
        """Return the page of one project; None when the runtime does not list it, or the config does not want it.

        Raises `UnreadableError` while the runtime's list has never been read, `KeyError` for a runtime that is none of
        ours.
        """
        now = await self.runtimes[runtime].probe(project_id, patience)
        if now is None:
            return None
        exposition = self._probed.setdefault(now.store, Exposition(None))
        return await exposition.page({runtime: now}, page_format)

    async def refresh(self, patience: float = PATIENCE) -> bool:
        """Have every runtime read; return whether all show a good read of their API, had in time."""
        return all(await asyncio.gather(*(reader.refresh(patience) for reader in self.runtimes.values())))

    async def reload(self, configs: Mapping[str, Config]) -> None:
        """Go on with another config. What is known and counted of a runtime stays while its name and URL do.

        Raises `ConfigError`, with nothing changed, when files that a config names cannot be used.
        """
        # Of one that was alone nothing can stay when it gets a name, and so labels.
        own = self.own if self.own.named == _named(configs) else self._make_own(configs)
        runtimes: dict[str, MonitoredRuntime] = {}
        try:
            for name, config in configs.items():
                before = self.runtimes.get(name)
                runtimes[name] = MonitoredRuntime(
                    name, config, own.of(name), self._dependencies, after=before, storage=self._storage
                )
        except ConfigError:
            for name in configs.keys() - self.runtimes.keys():
                own.forget(name)
            for name, reader in runtimes.items():
                await reader.close(heir=self.runtimes.get(name))
            raise
        old, self.runtimes = self.runtimes, runtimes
        if own is not self.own:
            self.own, self._exposition = own, Exposition(own)
        for name in old.keys() - runtimes.keys():
            own.forget(name)
        for reader in runtimes.values():
            reader.begin()
        for name, reader in old.items():
            await reader.close(heir=runtimes.get(name))

    async def close(self) -> None:
        """End syncs that are under way and close the connections."""
        for reader in self.runtimes.values():
            await reader.close()

    def _make_own(self, configs: Mapping[str, Config]) -> ExporterMetrics:
        return ExporterMetrics(version=__version__, wall=self._dependencies.wall, named=_named(configs))


def _named(configs: Mapping[str, Config]) -> bool:
    return "" not in configs
