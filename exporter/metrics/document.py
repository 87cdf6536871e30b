"""`docs/metrics.md`, written from the catalogue so that it cannot say anything else."""

from collections.abc import Iterable, Sequence
from typing import Any

from exporter.metrics.catalogue import (
    EXPORTER_FAMILIES,
    GLOBAL_FAMILIES,
    PROJECT_FAMILIES,
    RUN_FAMILIES,
    RUN_LABELS,
    SPINNER_FAMILIES,
    SPINNER_LABELS,
    ExporterFamily,
    Family,
)

_HEAD = """\
# Metrics

For people who write dashboards, alert rules or queries: every metric that spinner-exporter has. This page is written
from the catalogue in the code by `make docs`; a test compares the two.

Base units throughout: timestamps and durations in seconds, ratios from 0 to 1. There is no sample for what is not
known, and an empty label value where a label's value is not known. Nothing of a contact is ever a label.

An exporter that reads several runtimes (`runtimes` in its config) puts a label `runtime` on every series, except on the
few that are about the exporter as a process.

`/metrics` has all of it. `/probe?project=ID` has what is per run, per spinner and per project, of that project.
"""

_RUNS = """
## Per run

From when a run is first seen until `retention` after its end. Series leave earlier only when the runtime does not have
the run any more, when its project is gone or has not been read for `sync.stale_after`, or when there are more runs than
`limits.runs`; `spinner_exporter_runs_dropped_total` counts those.
"""

_SPINNERS = """
## Per spinner

Counters and histograms count each run once, however often it was read, from the first read on; what ended within the
`retention` before that is counted too. A spinner that becomes known later shows zeros first and its counts with the
next scrape, so that `increase()` sees its first run. With a restart of the exporter the counters begin anew, unless
`storage.path` is set.
"""

_PROJECTS = """
## Per project
"""

_OTHERS = """
## The runtime, the API, the plan
"""

_OWN = """
## The exporter itself

Beside these there are `process_*` metrics, as every Prometheus client has them.
"""


def as_markdown() -> str:
    """Return the page."""
    parts = [
        _HEAD,
        _RUNS,
        _table(RUN_FAMILIES, RUN_LABELS),
        _SPINNERS,
        _table(SPINNER_FAMILIES, SPINNER_LABELS),
        _PROJECTS,
        _table(PROJECT_FAMILIES, ()),
        _OTHERS,
        _table(GLOBAL_FAMILIES, ()),
        _OWN,
        _table(EXPORTER_FAMILIES, ()),
    ]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _table(families: Iterable[Family[Any] | ExporterFamily], group: Sequence[str]) -> str:
    rows = ["| name | type | labels | meaning |", "| --- | --- | --- | --- |"]
    for family in families:
        labels = ", ".join(f"`{label}`" for label in (*group, *family.labels))
        rows.append(f"| `{family.name}` | {family.type} | {labels} | {family.help} |")
    return "\n".join(rows)
