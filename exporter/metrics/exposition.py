"""From runs to bytes: the page that a scrape gets, as Prometheus text 0.0.4 or OpenMetrics 1.0.

What is in it stands in the catalogue. Lines are kept from one page to the next (`kept`), and so are their compressed
forms (`page`): what a page costs follows what changed since the last.
"""

import asyncio
import functools
import sys
from collections.abc import Mapping
from typing import Any

from exporter.metrics.catalogue import (
    GLOBAL_FAMILIES,
    PROJECT_FAMILIES,
    RUN_FAMILIES,
    SPINNER_FAMILIES,
    Family,
    ScrapeContext,
)
from exporter.metrics.exporter_metrics import ExporterMetrics
from exporter.metrics.line_cache import LineCache
from exporter.metrics.lines import encode, header, lines
from exporter.metrics.page import MetricsPage, Part

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

RUNS_PER_SLICE = 40
"""Runs that are rendered before others have their turn: a millisecond or two."""


def negotiate(accept: str) -> str:
    """Return the content type to answer an `Accept` header with: `TEXT` or `OPENMETRICS`.

    prometheus-client has a function for this, but it takes no notice of `q` and fails on a version that is no number.
    """
    weights = {TEXT: 0.0, OPENMETRICS: 0.0}
    for part in accept.split(","):
        kind, *parameters = (word.strip() for word in part.lower().split(";"))
        pairs = dict(word.split("=", 1) for word in parameters if "=" in word)
        content_type = OPENMETRICS if kind == "application/openmetrics-text" else TEXT
        if content_type == OPENMETRICS and pairs.get("version", "1.0.0") not in ("1.0.0", "0.0.1"):
            continue
        try:
            weights[content_type] = max(weights[content_type], float(pairs.get("q", "1")))
        except ValueError:
            continue
    return OPENMETRICS if weights[OPENMETRICS] > 0 and weights[OPENMETRICS] >= weights[TEXT] else TEXT


class Exposition:
    """Makes pages; keeps what stays the same between them."""

    def __init__(self, own: ExporterMetrics | None) -> None:
        """`own` is what the exporter says of itself; None: pages have nothing but what is of projects."""
        self._own = own
        self._kept: dict[str, LineCache] = {}

    async def page(self, moments: Mapping[str, ScrapeContext], content_type: str = TEXT) -> MetricsPage:
        """Return the page of this moment: of each runtime by its name, which every series carries unless it is ``.

        When much has changed, others have their turn in between.
        """
        for kept, now in self._look(moments):
            is_done = False
            while not is_done:
                is_done = kept.catch_up(now, RUNS_PER_SLICE, openmetrics=content_type == OPENMETRICS)
                await asyncio.sleep(0)
        return self.render(moments, content_type)

    def render(self, moments: Mapping[str, ScrapeContext], content_type: str = TEXT) -> MetricsPage:
        """Return the same at once."""
        openmetrics = content_type == OPENMETRICS
        runtimes = self._look(moments)
        for kept, now in runtimes:
            kept.catch_up(now, EVERYTHING, openmetrics=openmetrics)
        runs = [kept.run_lines(now) for kept, now in runtimes]
        parts: list[Part] = []
        for place, family in enumerate(RUN_FAMILIES):
            text = _header(family, openmetrics=openmetrics) + "".join([each.single(place) for each in runs])
            parts.append(Part(encode(text)))
            parts.extend(part for each in runs for part in each.packed(place))
        for place, counted in enumerate(SPINNER_FAMILIES):
            parts.append(_header_part(counted, openmetrics=openmetrics))
            parts.extend(part for kept, _ in runtimes for part in kept.spinner_lines(place, openmetrics=openmetrics))
        rest = []
        for overall in (*PROJECT_FAMILIES, *(GLOBAL_FAMILIES if self._own else ())):
            rest.append(_header(overall, openmetrics=openmetrics))
            rest.extend(
                lines(overall, kept.labels, overall.samples(now.store, now), openmetrics=openmetrics)
                for kept, now in runtimes
            )
        parts.append(Part(encode("".join(rest))))
        if self._own:
            for kept, _ in runtimes:
                self._own.of(kept.runtime).runs_tracked(kept.count)
            # The library's OpenMetrics ends with the mark that ends the page.
            parts.append(Part(self._own.render(openmetrics=openmetrics)))
        elif openmetrics:
            parts.append(Part(b"# EOF\n"))
        return MetricsPage(parts)

    def _look(self, moments: Mapping[str, ScrapeContext]) -> list[tuple[LineCache, ScrapeContext]]:
        self._kept = {name: self._kept.get(name) or LineCache(name) for name in moments}
        runtimes = [(self._kept[name], now) for name, now in moments.items()]
        for kept, now in runtimes:
            kept.look(now)
        return runtimes


EVERYTHING = sys.maxsize

_header = functools.cache(header)


@functools.cache
def _header_part(family: Family[Any], *, openmetrics: bool) -> Part:
    return Part(encode(header(family, openmetrics=openmetrics)))
