"""`docs/metrics.md`, generated from the catalogue."""

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

For people who write dashboards, alert rules or queries: every metric of spinner-exporter. `make docs` generates this
page from the catalogue in the code. [Terms](../README.md#terms) defines run, record, silent, stalled and in flight.

Timestamps are Unix times in seconds, durations are in seconds, ratios are from 0 to 1. All timestamps are corrected for
the difference between the clocks of the runtime and the exporter, so that `time()` minus a timestamp is its age. An
unknown value has no sample; an unknown label value is empty. Labels never contain data about a contact.

Every series has a label `runtime` in addition, except those about the exporter's process. Its value is `runtime.name`,
or the name in `runtimes`, or by default the runtime's URL without its scheme, such as `runtime.example.com`.

Projects and spinners are labelled with their names. If two projects, or two spinners of a project, have the same name,
the one that was seen first has it, and the other one has its id behind it, as in `Report (17)`. Patterns for `spinners`
in the config are matched with these names.

`/metrics` serves all metrics. `/probe?project=ID` serves the metrics per run, per spinner and per project of one
project.
"""

_RUNS = """
## Per run

A run has series from its first read until `retention` after its end. Its series are removed earlier only when the
runtime no longer lists the run, when its project is gone or has not been read for `sync.stale_after`, or when there are
more runs than `limits.runs`. `spinner_exporter_runs_dropped_total` counts runs that are removed early.
"""

_SPINNERS = """
## Per spinner

Counters and histograms count each run once, however often it is read. The first read also counts runs that ended
within the `retention` before it. A spinner that appears later has zeros on the first page and its counts on the next,
so that `increase()` sees its first run. A restart of the exporter resets the counters unless `storage.path` is set.

A spinner has series until `spinner_retention` after its last run was removed; one that the config expects keeps them.
When there are more spinners than `limits.spinners` or `limits.spinners_per_project`, the runs of a new one are counted
as spinner `other` of its project, together with those of a spinner that is really called so. Sums over all spinners are
still right, but `other` has no last start and no last success, except those of a spinner that is called so. The series
of a run have the name of its own spinner.

While a limit is reached, the series of spinners that ran once are removed after a day without a run. Others get their
place, first those with several runs; their series begin at zero. `spinner_exporter_runs_dropped_total` with the reason
`spinner_limit` counts each run that is counted as `other`, and each spinner that is removed because of a limit.
"""

_PROJECTS = """
## Per project
"""

_OTHERS = """
## Runtime, API and plan
"""

_OWN = """
## Exporter

The standard `process_*` metrics of Prometheus client libraries are served as well.
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
    rows = ["| name | type | labels | description |", "| --- | --- | --- | --- |"]
    for family in families:
        labels = ", ".join(f"`{label}`" for label in (*group, *family.labels))
        rows.append(f"| `{family.name}` | {family.type} | {labels} | {family.help} |")
    return "\n".join(rows)
