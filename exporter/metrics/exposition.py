"""From runs to bytes: the page that a scrape gets, as Prometheus text 0.0.4 or OpenMetrics 1.0.

A run's lines are rendered when the run changes and kept; a scrape renders what moves with time and joins the rest.
The lines of gauges are the same in both formats, so they are kept once.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from exporter.metrics.catalogue import (
    GLOBAL_FAMILIES,
    RUN_FAMILIES,
    RUN_LABELS,
    RUNTIME_LABEL,
    SPINNER_FAMILIES,
    SPINNER_LABELS,
    Family,
    Now,
)
from exporter.metrics.own import OwnMetrics
from exporter.runs.run import Run
from exporter.runs.store import ShownRun, ShownSpinner
from exporter.runs.tally import Exemplar, Histogram

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

MAX_EXEMPLAR = 128
"""Characters of an exemplar's label names and values together, as OpenMetrics has it."""


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
    """Renders pages; keeps the lines of every run between them."""

    def __init__(self, own: OwnMetrics) -> None:
        self._own = own
        self._kept: dict[str, _Kept] = {}

    def render(self, moments: Mapping[str, Now], content_type: str = TEXT) -> bytes:
        """Return the page of this moment: of each runtime by its name, which every series carries unless it is ``."""
        openmetrics = content_type == OPENMETRICS
        self._kept = {name: self._kept.get(name) or _Kept(name) for name in moments}
        runtimes = [(self._kept[name], now) for name, now in moments.items()]
        blocks: list[_Block] = []
        spinners: list[tuple[str, ShownSpinner, Now]] = []
        for kept, now in runtimes:
            fresh = kept.fresh_blocks(now)
            self._own.of(kept.runtime).runs_tracked(len(fresh))
            blocks += fresh
            spinners += [
                (_join(kept.labels, _pairs(SPINNER_LABELS, (shown.project, shown.spinner))), shown, now)
                for shown in now.store.spinners()
            ]
        page: list[bytes] = []
        for place, family in enumerate(RUN_FAMILIES):
            page.append(_header(family, openmetrics=openmetrics))
            page.extend(block.lines[place] for block in blocks)
        for counted in SPINNER_FAMILIES:
            page.append(_header(counted, openmetrics=openmetrics))
            page.extend(_lines(counted, labels, shown, now, openmetrics=openmetrics) for labels, shown, now in spinners)
        for overall in GLOBAL_FAMILIES:
            page.append(_header(overall, openmetrics=openmetrics))
            page.extend(_lines(overall, kept.labels, now.store, now, openmetrics=openmetrics) for kept, now in runtimes)
        # The library's OpenMetrics ends with the mark that ends the page.
        page.append(self._own.render(openmetrics=openmetrics))
        return b"".join(page)


class _Kept:
    """The lines of one runtime's runs."""

    def __init__(self, runtime: str) -> None:
        self.runtime = runtime
        self.labels = _pairs((RUNTIME_LABEL,), (runtime,)) if runtime else ""
        self._blocks: dict[tuple[str, str], _Block] = {}
        self._offset = 0.0

    def fresh_blocks(self, now: Now) -> Sequence["_Block"]:
        """Return every shown run's lines, rendered anew where the run changed or moves with time."""
        if now.clock.offset != self._offset:
            # Seldom: what was corrected for the old difference between the clocks is wrong now.
            self._blocks.clear()
            self._offset = now.clock.offset
        fresh: dict[tuple[str, str], _Block] = {}
        for shown in now.store.runs():
            key = (shown.project, shown.run.id)
            block = self._blocks.get(key)
            if block is None or block.run is not shown.run:
                block = _Block.render(self.labels, shown, now)
            elif not shown.run.ended:
                block.render_live(shown, now)
            fresh[key] = block
        # Runs that left the store leave the blocks with it.
        self._blocks = fresh
        return list(fresh.values())


@dataclasses.dataclass(slots=True)
class _Block:
    """One run's lines, by family."""

    run: Run
    labels: str
    lines: list[bytes]

    @classmethod
    def render(cls, runtime: str, shown: ShownRun, now: Now) -> "_Block":
        labels = _join(runtime, _pairs(RUN_LABELS, (shown.project, shown.run.snapshot.spinner, shown.run.id)))
        return cls(shown.run, labels, [_lines(family, labels, shown, now) for family in RUN_FAMILIES])

    def render_live(self, shown: ShownRun, now: Now) -> None:
        for place in _LIVE:
            self.lines[place] = _lines(RUN_FAMILIES[place], self.labels, shown, now)


_LIVE = tuple(place for place, family in enumerate(RUN_FAMILIES) if family.live)


def _header(family: Family[Any], *, openmetrics: bool) -> bytes:
    # A counter's family is called without _total in OpenMetrics, and with it in the older format.
    name = family.name.removesuffix("_total") if openmetrics else family.name
    lines = [f"# HELP {name} {_escape(family.help, quotes=openmetrics)}\n", f"# TYPE {name} {family.type}\n"]
    if openmetrics and family.unit:
        lines.append(f"# UNIT {name} {family.unit}\n")
    return "".join(lines).encode()


def _lines(family: Family[Any], labels: str, subject: Any, now: Now, *, openmetrics: bool = False) -> bytes:
    """Render one subject's samples of one family; `labels` are the pairs of its group, already escaped."""
    lines: list[str] = []
    for values, value in family.samples(subject, now):
        pairs = _join(labels, _pairs(family.labels, values))
        if isinstance(value, Histogram):
            lines.extend(_histogram_lines(family.name, pairs, value, openmetrics=openmetrics))
        else:
            lines.append(f"{family.name}{_braces(pairs)} {_number(value)}\n")
    return "".join(lines).encode("utf-8", "replace")


def _histogram_lines(name: str, pairs: str, histogram: Histogram, *, openmetrics: bool) -> Iterable[str]:
    bounds = (*histogram.buckets, float("inf"))
    count = 0
    for bound, own, exemplar in zip(bounds, histogram.counts, histogram.exemplars, strict=True):
        count += own
        # Floats always, in both formats: `le="1"` and `le="1.0"` would be two series.
        le = _pairs(("le",), (_number(bound) if bound == float("inf") else repr(float(bound)),))
        mark = _exemplar(exemplar) if openmetrics else ""
        yield f"{name}_bucket{_braces(_join(pairs, le))} {count}{mark}\n"
    yield f"{name}_count{_braces(pairs)} {count}\n"
    yield f"{name}_sum{_braces(pairs)} {_number(histogram.total)}\n"


def _exemplar(exemplar: Exemplar | None) -> str:
    if exemplar is None or len("run_id") + len(exemplar.run_id) > MAX_EXEMPLAR:
        return ""
    pairs = _pairs(("run_id",), (exemplar.run_id,))
    return f" # {_braces(pairs)} {_number(exemplar.value)} {_number(exemplar.timestamp)}"


def _pairs(names: Sequence[str], values: Sequence[str]) -> str:
    return ",".join(f'{name}="{_escape(value)}"' for name, value in zip(names, values, strict=True))


def _join(*pairs: str) -> str:
    return ",".join(filter(None, pairs))


def _braces(pairs: str) -> str:
    return "{" + pairs + "}" if pairs else ""


def _escape(text: str, *, quotes: bool = True) -> str:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    return escaped.replace('"', '\\"') if quotes else escaped


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    if value == float("inf"):
        return "+Inf"
    if value == float("-inf"):
        return "-Inf"
    if value != value:
        return "NaN"
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
