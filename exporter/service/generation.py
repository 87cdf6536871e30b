"""One generation of the exporter: the runtimes of one config, their metrics and their cached pages."""

import asyncio
import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from exporter.metrics.exporter_metrics import ExporterMetrics
from exporter.metrics.exposition import Exposition
from exporter.metrics.formats import Format
from exporter.metrics.page import MetricsPage
from exporter.service.monitored_runtime import MonitoredRuntime


@dataclasses.dataclass(frozen=True, slots=True)
class ProbeTarget:
    """A project that can be probed."""

    runtime: str
    """The name of its runtime."""
    project_id: str
    name: str


class Generation:
    """Responds to scrapes, probes and service discovery from the runtimes of one config.

    Never changes its runtimes, so a request that waits for a read is not affected by a reload.
    """

    def __init__(self, runtimes: Mapping[str, MonitoredRuntime], own: ExporterMetrics) -> None:
        """`runtimes` is by name; `own` are the metrics about the exporter, which may outlive this generation."""
        self.runtimes = MappingProxyType(dict(runtimes))
        self.own = own
        self._exposition = Exposition(own, self.runtimes)

    async def page(self, page_format: Format, max_wait: float) -> MetricsPage:
        """Return the page of `/metrics`; waits at most `max_wait` seconds for reads."""
        contexts = await asyncio.gather(*(monitored.scrape(max_wait) for monitored in self.runtimes.values()))
        for monitored in self.runtimes.values():
            monitored.report_probes()
        return await self._exposition.page(dict(zip(self.runtimes, contexts, strict=True)), page_format)

    async def projects(self, max_wait: float) -> list[ProbeTarget]:
        """Return what can be probed; raises `UnreadableError` while a runtime's list has never been read."""
        lists = await asyncio.gather(*(monitored.projects(max_wait) for monitored in self.runtimes.values()))
        targets: list[ProbeTarget] = []
        for name, projects in zip(self.runtimes, lists, strict=True):
            targets += [ProbeTarget(name, project_id, label) for project_id, label in sorted(projects.items())]
        return targets

    async def probe(self, runtime: str, project_id: str, page_format: Format, max_wait: float) -> MetricsPage | None:
        """Return the page of one project; None if the runtime does not list it or the config excludes it.

        Raises `UnreadableError` while there is nothing to show, `KeyError` for an unknown runtime.
        """
        return await self.runtimes[runtime].probe(project_id, page_format, max_wait)

    async def refresh(self, max_wait: float) -> bool:
        """Read every runtime; return whether each had a successful read within `max_wait` seconds."""
        return all(await asyncio.gather(*(monitored.refresh(max_wait) for monitored in self.runtimes.values())))

    async def stop(self) -> None:
        """Cancel reads in progress and start no more. Requests are still answered, from the last successful reads."""
        await asyncio.gather(*(monitored.stop() for monitored in self.runtimes.values()))

    def take_over(self, predecessor: "Generation") -> None:
        """Continue with what a stopped generation holds of the same runtimes; remove the series of those that are gone.

        From now on the rules of this generation apply to it.
        """
        for name in predecessor.runtimes.keys() - self.runtimes.keys():
            self.own.forget(name)
        before = {monitored.store: monitored for monitored in predecessor.runtimes.values()}
        for monitored in self.runtimes.values():
            if monitored.store in before:
                monitored.begin(before[monitored.store])

    async def close(self, *, successor: "Generation | None" = None) -> None:
        """Stop, and close connections and files, except files that `successor` has taken over."""
        continued = set() if successor is None else {monitored.store for monitored in successor.runtimes.values()}
        # Concurrently: each may wait for a disk that does not respond.
        await asyncio.gather(
            *(monitored.close(is_continued=monitored.store in continued) for monitored in self.runtimes.values())
        )
