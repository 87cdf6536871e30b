"""The formats of a page, Prometheus text 0.0.4 and OpenMetrics 1.0: everything in which they differ."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, cast

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from exporter.metrics.catalogue import Family
from exporter.metrics.lines import Exemplar, escape, exemplar, no_exemplar


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Format:
    """One format; compared and hashed by identity."""

    content_type: str
    media_type: str
    """The type without its parameters, in lower case."""
    versions: frozenset[str]
    """Values of the media type's `version` for which this format is an acceptable response."""
    header: Callable[[Family[Any]], str]
    """Renders the comment lines before a family's samples."""
    exemplar: Exemplar
    """Renders what follows the value of a histogram's bucket."""
    registry: Callable[[CollectorRegistry], bytes]
    """Renders prometheus-client's metrics, including the end marker."""
    end: bytes
    """Marks the end of the page."""

    def __str__(self) -> str:
        return self.media_type


@functools.cache
def _text_header(family: Family[Any]) -> str:
    return f"# HELP {family.name} {escape(family.help, quotes=False)}\n# TYPE {family.name} {family.type}\n"


@functools.cache
def _openmetrics_header(family: Family[Any]) -> str:
    # A counter's family has no _total in its name; its samples have.
    name = family.name.removesuffix("_total")
    unit = f"# UNIT {name} {family.unit}\n" if family.unit else ""
    return f"# HELP {name} {escape(family.help)}\n# TYPE {name} {family.type}\n{unit}"


# The content types do not repeat the `escaping` parameter that Prometheus 3 sends: it says how to write names that are
# not legacy-valid, and there are none. https://prometheus.io/docs/instrumenting/content_negotiation/
TEXT = Format(
    content_type="text/plain; version=0.0.4; charset=utf-8",
    media_type="text/plain",
    # Text 1.0.0 adds quoted names; a page without any is valid in both versions.
    versions=frozenset({"0.0.4", "1.0.0"}),
    header=_text_header,
    exemplar=no_exemplar,
    registry=generate_latest,
    end=b"",
)
OPENMETRICS = Format(
    content_type="application/openmetrics-text; version=1.0.0; charset=utf-8",
    media_type="application/openmetrics-text",
    # Prometheus reads both versions with one parser.
    versions=frozenset({"1.0.0", "0.0.1"}),
    header=_openmetrics_header,
    exemplar=exemplar,
    registry=cast("Callable[[CollectorRegistry], bytes]", generate_openmetrics),
    end=b"# EOF\n",
)
FORMATS = (TEXT, OPENMETRICS)
