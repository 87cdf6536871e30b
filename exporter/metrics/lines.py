"""From samples to lines, as both formats have them: label escaping, numbers, histograms."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from exporter.metrics.catalogue import Family, Samples
from exporter.runs.counters import Histogram, Observation

MAX_EXEMPLAR = 128
"""OpenMetrics's limit for the characters of an exemplar's label names and values together."""

Exemplar = Callable[[Observation | None, float], str]
"""Renders the exemplar of a bucket, if it has one; the number is the offset of the runtime's clock in seconds."""


def no_exemplar(observation: Observation | None, offset: float) -> str:
    """Return nothing: the format has no exemplars."""
    return ""


def exemplar(observation: Observation | None, offset: float) -> str:
    """Return the exemplar of a bucket in OpenMetrics; nothing for one that is too long."""
    if observation is None:
        return ""
    timestamp, value, run_id = observation
    if len("run_id") + len(run_id) > MAX_EXEMPLAR:
        return ""
    return f" # {_braces(pairs_of(('run_id',), (run_id,)))} {number(value)} {number(timestamp - offset)}"


def lines(
    family: Family[Any], labels: str, samples: Samples, exemplar: Exemplar = no_exemplar, offset: float = 0.0
) -> str:
    """Return one subject's samples of one family; `labels` are the pairs of its group, already escaped."""
    if samples is None:
        return ""
    if isinstance(samples, Histogram):
        return "".join(_histogram_lines(family.name, labels, samples, exemplar, offset))
    if isinstance(samples, NUMBERS):
        return f"{family.name}{_braces(labels)} {number(samples)}\n"
    name, pairs = f"{family.name}{{{labels}," if labels else f"{family.name}{{", _cached_pairs(family.labels)
    return "".join([f"{name}{pairs[values]}}} {number(value)}\n" for values, value in samples])


def number(value: float) -> str:
    """Return a value; whole numbers without ".0", which would be a quarter of the page."""
    if type(value) is int:
        return repr(value)
    text = repr(value)
    return text[:-2] if text[-2:] == ".0" else _SPECIAL.get(text, text)


_SPECIAL = {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}
NUMBERS = (int, float)


def pairs_of(names: Sequence[str], values: Sequence[str]) -> str:
    """Return labels as they are written between braces."""
    return ",".join([f'{name}="{escape(value)}"' for name, value in zip(names, values, strict=True)])


class _Pairs(dict[tuple[str, ...], str]):
    """Rendered labels by their values: states, steps and triggers are the same for many runs."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def __missing__(self, values: tuple[str, ...]) -> str:
        pairs = pairs_of(self._names, values)
        if len(self) < MAX_PAIRS:
            self[values] = pairs
        return pairs


MAX_PAIRS = 1000
"""Label values of one family that are cached."""

_cached_pairs = functools.cache(_Pairs)


def join(*pairs: str) -> str:
    """Return several rendered labels as one."""
    return ",".join(filter(None, pairs))


def encode(text: str) -> bytes:
    """Return text as UTF-8; a lone surrogate, which UTF-8 cannot encode, becomes a question mark."""
    return text.encode("utf-8", "replace")


def escape(text: str, *, quotes: bool = True) -> str:
    """Return text for a label value or a HELP line; text 0.0.4 does not escape quotes in HELP lines."""
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    return escaped.replace('"', '\\"') if quotes else escaped


def _histogram_lines(name: str, pairs: str, histogram: Histogram, exemplar: Exemplar, offset: float) -> Iterable[str]:
    bounds = (*histogram.buckets, float("inf"))
    count = 0
    for bound, own, observation in zip(bounds, histogram.counts, histogram.exemplars, strict=True):
        count += own
        # Always a float, in both formats: `le="1"` and `le="1.0"` would be two series.
        le = pairs_of(("le",), (number(bound) if bound == float("inf") else repr(float(bound)),))
        yield f"{name}_bucket{_braces(join(pairs, le))} {count}{exemplar(observation, offset)}\n"
    yield f"{name}_count{_braces(pairs)} {count}\n"
    yield f"{name}_sum{_braces(pairs)} {number(histogram.total)}\n"


def _braces(pairs: str) -> str:
    return "{" + pairs + "}" if pairs else ""
