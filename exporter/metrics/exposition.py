"""From runs to pages: what a scrape of `/metrics` or `/probe` gets, in any of the formats.

The catalogue says what is on a page. Lines are cached between pages (`line_cache`), and so are their compressed forms
(`page`): the cost of a page follows what changed since the previous one.
"""

import asyncio
import sys
from collections.abc import Iterable, Mapping

from exporter.metrics.catalogue import (
    GLOBAL_FAMILIES,
    PROJECT_FAMILIES,
    RUN_FAMILIES,
    SPINNER_FAMILIES,
    ScrapeContext,
)
from exporter.metrics.exporter_metrics import ExporterMetrics
from exporter.metrics.formats import TEXT, Format
from exporter.metrics.line_cache import LineCache
from exporter.metrics.lines import encode, lines
from exporter.metrics.page import Fragment, MetricsPage

RUNS_PER_SLICE = 40
"""Runs that are rendered in one time slice: one or two milliseconds of work."""


class Exposition:
    """Renders pages and caches what stays the same between them."""

    def __init__(self, own: ExporterMetrics | None, runtimes: Iterable[str] = ()) -> None:
        """`own` are the metrics about the exporter; None leaves them out, and everything that is not per project.

        `runtimes` are named before the first page, so that a late page does not create series of a removed one again.
        """
        self._own = own
        self._runtime_metrics = {name: own.of(name) for name in runtimes} if own else {}
        self._caches: dict[str, LineCache] = {}
        # One page per iteration of the event loop, so that a hundred that are asked for at once are not in memory at
        # once: each is sent, and slow clients are disconnected, before the next one is rendered.
        self._rendering = asyncio.Lock()

    async def page(self, contexts: Mapping[str, ScrapeContext], page_format: Format = TEXT) -> MetricsPage:
        """Return the current page of all runtimes by name, which every series about one carries as a label.

        Yields to other tasks between time slices when much has changed.
        """
        async with self._rendering:
            for cache, context in self._observe(contexts):
                is_done = False
                while not is_done:
                    is_done = cache.update(context, page_format, RUNS_PER_SLICE)
                    await asyncio.sleep(0)
            return self.render(contexts, page_format)

    def render(self, contexts: Mapping[str, ScrapeContext], page_format: Format = TEXT) -> MetricsPage:
        """Return the same page without yielding."""
        caches = self._observe(contexts)
        for cache, context in caches:
            cache.update(context, page_format, EVERYTHING)
        cached = [cache.lines(context, page_format) for cache, context in caches]
        fragments: list[Fragment] = []
        for place, family in enumerate(RUN_FAMILIES):
            text = page_format.header(family) + "".join([each.live(place) for each in cached])
            fragments.append(Fragment(encode(text)))
            fragments.extend(fragment for each in cached for fragment in each.ended(place))
        for place, counted in enumerate(SPINNER_FAMILIES):
            fragments.append(Fragment(encode(page_format.header(counted))))
            fragments.extend(fragment for each in cached for fragment in each.spinners(place))
        by_project = [cache.projects(context) for cache, context in caches]
        for place, of_project in enumerate(PROJECT_FAMILIES):
            fragments.append(Fragment(encode(page_format.header(of_project))))
            fragments.extend(each[place] for each in by_project)
        rest = []
        for overall in GLOBAL_FAMILIES if self._own else ():
            rest.append(page_format.header(overall))
            rest.extend(
                lines(overall, cache.labels, overall.samples(context.store.view, context)) for cache, context in caches
            )
        fragments.append(Fragment(encode("".join(rest))))
        if self._own:
            for cache, _ in caches:
                metrics = self._runtime_metrics.get(cache.runtime) or self._own.of(cache.runtime)
                metrics.runs_tracked(cache.count)
            fragments.append(Fragment(page_format.registry(self._own.registry)))
        else:
            fragments.append(Fragment(page_format.end))
        return MetricsPage(fragments)

    def _observe(self, contexts: Mapping[str, ScrapeContext]) -> list[tuple[LineCache, ScrapeContext]]:
        self._caches = {name: self._caches.get(name) or LineCache(name) for name in contexts}
        caches = [(self._caches[name], context) for name, context in contexts.items()]
        for cache, context in caches:
            cache.observe(context)
        return caches


EVERYTHING = sys.maxsize
