"""From samples to lines, as Prometheus text 0.0.4 and OpenMetrics 1.0 both have them: escaping, numbers, histograms."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

from exporter.metrics.catalogue import Family, Samples
from exporter.runs.counters import Histogram, Observation

MAX_EXEMPLAR = 128
"""Characters of an exemplar's label names and values together, as OpenMetrics has it."""


def header(family: Family[Any], *, openmetrics: bool) -> str:
    """Return what stands before a family's samples."""
    # A counter's family is called without _total in OpenMetrics, and with it in the older format.
    name = family.name.removesuffix("_total") if openmetrics else family.name
    lines = [f"# HELP {name} {_escape(family.help, quotes=openmetrics)}\n", f"# TYPE {name} {family.type}\n"]
    if openmetrics and family.unit:
        lines.append(f"# UNIT {name} {family.unit}\n")
    return "".join(lines)


def lines(family: Family[Any], labels: str, samples: Samples, *, openmetrics: bool = False) -> str:
    """Return one subject's samples of one family; `labels` are the pairs of its group, already escaped."""
    if samples is None:
        return ""
    if isinstance(samples, Histogram):
        return "".join(_histogram_lines(family.name, labels, samples, openmetrics=openmetrics))
    if isinstance(samples, NUMBERS):
        return f"{family.name}{_braces(labels)} {number(samples)}\n"
    name, pairs = f"{family.name}{{{labels}," if labels else f"{family.name}{{", _known_pairs(family.labels)
    return "".join([f"{name}{pairs[values]}}} {number(value)}\n" for values, value in samples])


def number(value: float) -> str:
    """Return a value: whole ones without their ".0", which would be a quarter of the page."""
    if type(value) is int:
        return repr(value)
    text = repr(value)
    return text[:-2] if text[-2:] == ".0" else _SPECIAL.get(text, text)


_SPECIAL = {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}
NUMBERS = (int, float)


def pairs_of(names: Sequence[str], values: Sequence[str]) -> str:
    """Return labels as they stand between braces."""
    return ",".join([f'{name}="{_escape(value)}"' for name, value in zip(names, values, strict=True)])


class _Pairs(dict[tuple[str, ...], str]):
    """The same by their values, for what comes again with every run: states, steps, triggers."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def __missing__(self, values: tuple[str, ...]) -> str:
        pairs = pairs_of(self._names, values)
        if len(self) < MAX_PAIRS:
            self[values] = pairs
        return pairs


MAX_PAIRS = 1000
"""Values of a family's labels that are remembered."""

_known_pairs = functools.cache(_Pairs)


def join(*pairs: str) -> str:
    """Return several such pairs as one."""
    return ",".join(filter(None, pairs))


def encode(text: str) -> bytes:
    """Return text as it goes over the wire; half of a surrogate pair, which is no text, becomes a question mark."""
    return text.encode("utf-8", "replace")


def _histogram_lines(name: str, pairs: str, histogram: Histogram, *, openmetrics: bool) -> Iterable[str]:
    bounds = (*histogram.buckets, float("inf"))
    count = 0
    for bound, own, exemplar in zip(bounds, histogram.counts, histogram.exemplars, strict=True):
        count += own
        # Floats always, in both formats: `le="1"` and `le="1.0"` would be two series.
        le = pairs_of(("le",), (number(bound) if bound == float("inf") else repr(float(bound)),))
        mark = _exemplar(exemplar) if openmetrics else ""
        yield f"{name}_bucket{_braces(join(pairs, le))} {count}{mark}\n"
    yield f"{name}_count{_braces(pairs)} {count}\n"
    yield f"{name}_sum{_braces(pairs)} {number(histogram.total)}\n"


def _exemplar(exemplar: Observation | None) -> str:
    if exemplar is None:
        return ""
    timestamp, value, run_id = exemplar
    if len("run_id") + len(run_id) > MAX_EXEMPLAR:
        return ""
    return f" # {_braces(pairs_of(('run_id',), (run_id,)))} {number(value)} {number(timestamp)}"


def _braces(pairs: str) -> str:
    return "{" + pairs + "}" if pairs else ""


def _escape(text: str, *, quotes: bool = True) -> str:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    return escaped.replace('"', '\\"') if quotes else escaped
