"""The exporter: answers requests from the current generation, which a reload replaces as a whole."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from exporter import __version__
from exporter.config import Config, canonical_url
from exporter.errors import ConfigError
from exporter.metrics.exporter_metrics import ExporterMetrics
from exporter.metrics.formats import TEXT, Format
from exporter.metrics.page import MetricsPage
from exporter.service.generation import Generation, ProbeTarget
from exporter.service.monitored_runtime import Dependencies, MonitoredRuntime

SCRAPE_INTERVAL = 15.0
"""Seconds between two scrapes if nothing else is known: the interval in deploy/prometheus/prometheus.yml."""

MAX_WAIT = 9.5
"""Seconds to wait for a read if the scraper sends no timeout: Prometheus's default of 10 s, less the offset."""


class Exporter:
    """Reads its runtimes concurrently when a page is requested, and responds in time.

    Each request uses only the generation that is current when it arrives.
    """

    def __init__(
        self, configs: Mapping[str, Config], dependencies: Dependencies | None = None, *, storage: Path | None = None
    ) -> None:
        """`configs` are those of the runtimes by name, which is the value of the label `runtime`.

        `storage` is the folder for state that survives a restart; None keeps none. Opens no connection. Raises
        `ConfigError` if a file that a config names cannot be used.
        """
        self._dependencies = dependencies or Dependencies()
        self._storage = storage
        self._reloading = asyncio.Lock()
        self.own = ExporterMetrics(version=__version__, wall=self._dependencies.wall)
        """The metrics about the exporter."""
        self._generation = self._build(configs)
        self.own.config_reloaded(ok=True)

    @property
    def runtimes(self) -> Mapping[str, MonitoredRuntime]:
        """The runtimes of the current generation, by name."""
        return self._generation.runtimes

    @property
    def ready(self) -> bool:
        """Whether any runtime has ever been read, so that there is something to show."""
        return any(monitored.ready for monitored in self.runtimes.values())

    @property
    def timeout_offset(self) -> float:
        """Seconds to subtract from a scrape's timeout: the largest offset of all runtimes."""
        return max(monitored.config.sync.timeout_offset for monitored in self.runtimes.values())

    async def page(self, page_format: Format = TEXT, *, max_wait: float = MAX_WAIT) -> MetricsPage:
        """Return the page of `/metrics`; waits at most `max_wait` seconds for reads."""
        return await self._generation.page(page_format, max_wait)

    async def projects(self, max_wait: float = MAX_WAIT) -> list[ProbeTarget]:
        """Return what can be probed; raises `UnreadableError` while a runtime's list has never been read."""
        return await self._generation.projects(max_wait)

    async def probe(
        self, runtime: str, project_id: str, page_format: Format = TEXT, *, max_wait: float = MAX_WAIT
    ) -> MetricsPage | None:
        """Return the page of one project; None if the runtime does not list it or the config excludes it.

        Raises `UnreadableError` while there is nothing to show, `KeyError` for an unknown runtime.
        """
        return await self._generation.probe(runtime, project_id, page_format, max_wait)

    async def refresh(self, max_wait: float = MAX_WAIT) -> bool:
        """Read every runtime; return whether each had a successful read within `max_wait` seconds."""
        return await self._generation.refresh(max_wait)

    async def reload(self, configs: Mapping[str, Config]) -> None:
        """Replace the generation by one of another config. A runtime's data stay if its URL does.

        Raises `ConfigError`, with nothing changed, if a file that a config names cannot be used.
        """
        # One at a time: a later reload must find the files closed that an earlier one no longer uses.
        async with self._reloading:
            old, new = self._generation, self._build(configs, self._generation)
            # Two generations must not read into one store at the same time.
            await old.stop()
            self._generation = new
            new.take_over(old)
            self.own.config_reloaded(ok=True)
            await old.close(successor=new)

    async def stop(self) -> None:
        """Cancel reads in progress and start no more. Requests are still answered, from the last successful reads."""
        async with self._reloading:
            await self._generation.stop()

    async def close(self) -> None:
        """Cancel reads in progress; close connections and files."""
        async with self._reloading:
            await self._generation.close()

    def _build(self, configs: Mapping[str, Config], current: Generation | None = None) -> Generation:
        before = {} if current is None else current.runtimes
        continued = _continued(configs, before)
        urls = [_url(config) for config in configs.values()]
        runtimes: dict[str, MonitoredRuntime] = {}
        try:
            for name, config in configs.items():
                runtimes[name] = MonitoredRuntime(
                    name,
                    config,
                    self.own.of(name),
                    self._dependencies,
                    after=continued.get(name),
                    storage=self._storage,
                    shares_url=urls.count(_url(config)) > 1,
                )
        except ConfigError:
            for name in configs.keys() - before.keys():
                self.own.forget(name)
            for name in runtimes.keys() - continued.keys():
                runtimes[name].discard()
            raise
        return Generation(runtimes, self.own)


def _continued(
    configs: Mapping[str, Config], running: Mapping[str, MonitoredRuntime]
) -> Mapping[str, MonitoredRuntime]:
    """Return the runtime that each config continues, by the config's name: one of the same URL.

    Of several with this URL it is the one of the same name. Without one of this name the runtime was renamed, if it is
    clear which one.
    """
    found = {
        name: running[name]
        for name, config in configs.items()
        if name in running and _url(running[name].config) == _url(config)
    }
    removed = defaultdict(list)
    for name in running.keys() - found.keys():
        removed[_url(running[name].config)].append(running[name])
    added = defaultdict(list)
    for name in configs.keys() - found.keys():
        added[_url(configs[name])].append(name)
    for url, names in added.items():
        if len(names) == len(removed[url]) == 1:
            found[names[0]] = removed[url][0]
    return found


def _url(config: Config) -> str:
    return canonical_url(config.runtime.base_url)
