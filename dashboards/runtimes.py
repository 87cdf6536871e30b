"""The table at the head of a dashboard: can its numbers be trusted? One row for each runtime, the worst first."""

from typing import Final

from grafanalib import core

from dashboards.panels import Column, GridPos, Panel, instant_query, table
from dashboards.queries import RUNTIME, lost_projects, lost_runtimes, outages, rules_evaluated, series
from dashboards.style import GREEN, GREY, ORANGE, RED, UNKNOWN, value_mapping

HEIGHT: Final = 5

# The numbers of a column, the worst first, so that rows can be sorted by the lowest of their numbers. A query returns
# a number for the unknown too: a column without any number would not be shown.
_BAD, _UNKNOWN, _WARNING, _GOOD = 0, 1, 2, 3
_NO_RULES = 1.5

_API_UP = f"max by (runtime) ({series('spinner_api_up', RUNTIME)})"
_PROJECT_UP = f"max by (runtime, project) ({series('spinner_project_up', RUNTIME)})"
_READ_AT = series("spinner_exporter_snapshot_timestamp_seconds", RUNTIME)

_API = f"{_GOOD} * {_API_UP} or {_UNKNOWN} * {lost_runtimes()}"

# While the API is down nobody knows more of the worker service than that its last heartbeat grows old.
_WORKER_SERVICE = " or ".join(
    (
        f"{_BAD} * {outages()} and on (runtime) {_API_UP} == 1",
        f"{_GOOD} * (max by (runtime) ({series('spinner_runtime_up', RUNTIME)}) == 1) and on (runtime) {_API_UP} == 1",
        f"{_UNKNOWN} * group by (runtime) ({_API_UP})",
        f"{_UNKNOWN} * {lost_runtimes()}",
    )
)

_DATA = " or ".join(
    (
        f"{_UNKNOWN} * {lost_runtimes()}",
        f"{_BAD} * (time() - max by (runtime) ({_READ_AT}) > "
        f"max by (runtime) ({series('spinner_exporter_stale_after_seconds', RUNTIME)})) "
        f"unless on (runtime) {_PROJECT_UP} == 1",
        f"{_WARNING} * group by (runtime) ({_API_UP} == 0 or {_PROJECT_UP} == 0 or {lost_projects(RUNTIME)})",
        f"{_GOOD} * ({_API_UP} == 1) and on (runtime) {_PROJECT_UP} == 1 and on () {rules_evaluated()}",
        f"{_NO_RULES} * ({_API_UP} == 1) and on (runtime) {_PROJECT_UP} == 1",
        f"{_UNKNOWN} * group by (runtime) ({_API_UP})",
    )
)

_LAST_READ_AT = series("runtime:spinner_exporter_snapshot_timestamp_seconds:last", RUNTIME)
_AGE = f"time() - (max by (runtime) ({_READ_AT}) or {_LAST_READ_AT}) and on (runtime) ({_API_UP} or {lost_runtimes()})"

_UP_OR_DOWN = value_mapping(
    {str(_BAD): ("✖ DOWN", RED), str(_UNKNOWN): UNKNOWN, str(_GOOD): ("✔ up", GREEN)},
)


def runtimes(panel_id: int) -> core.Panel:
    """Return the table for the selected runtimes, over the whole width at the top."""
    return table(
        Panel(
            panel_id,
            "Runtimes",
            "Whether the other panels can be trusted. API or worker service DOWN: see the runbook of SpinnerApiDown or "
            "SpinnerRuntimeDown. Incomplete: the API or a project could not be read in the last scrape. Stale: nothing "
            "was read for so long that the exporter shows no runs. Unknown: no exporter reports the runtime, see the "
            "runbook of SpinnerExporterDown. No rules: alerts/recording.rules.yml is not evaluated, so nobody knows "
            "whether a runtime or project is missing here. Data age is the time since the last read that succeeded.",
            GridPos(x=0, y=0, w=24, h=HEIGHT),
        ),
        [instant_query(query) for query in (_API, _WORKER_SERVICE, _DATA, _AGE)],
        [
            Column("runtime", "Runtime", wrap=True, align="left"),
            Column("Value #A", "API", width=88, coloured=True, mappings=[_UP_OR_DOWN], align="left"),
            Column("Value #B", "Worker service", width=113, coloured=True, mappings=[_UP_OR_DOWN], align="left"),
            Column(
                "Value #C",
                "Data",
                width=106,
                coloured=True,
                mappings=[
                    value_mapping(
                        {
                            str(_BAD): ("✖ stale", RED),
                            str(_UNKNOWN): UNKNOWN,
                            str(_NO_RULES): ("? no rules", GREY),
                            str(_WARNING): ("▲ incomplete", ORANGE),
                            str(_GOOD): ("✔ fresh", GREEN),
                        }
                    )
                ],
                align="left",
            ),
            # Short words, so that a row has one line on a phone, and three runtimes have room.
            Column("Value #D", "Data age", "duration", least_width=69, wrap=True, align="left", decimals=0),
        ],
        empty="? unknown: no exporter reports a runtime. See the runbook of SpinnerExporterDown.",
        lowest_of=("Value #A", "Value #B", "Value #C"),
        paginated=False,
    )
