"""Live Ops: the current state of all runs, for a screen that refreshes by itself."""

from dashboards.panels import (
    Column,
    GridPos,
    Panel,
    bar_gauge,
    dashboard,
    instant_query,
    product_url_variable,
    project_variable,
    query_variable,
    range_query,
    runtime_variable,
    spinner_variable,
    stat,
    state_timeline,
    table,
    time_series,
)
from dashboards.queries import FIRING as FIRING_NOW
from dashboards.queries import (
    LISTED,
    NO_RUNTIME,
    PROJECT,
    REPLICAS,
    SELECTED_ALERTS,
    SPINNER,
    active_by_need,
    all_counted,
    all_fresh,
    display_status_number,
    equals,
    increase_in_range,
    no_recorded_failures,
    or_zero,
    outages,
    recorded_none,
    recorded_stalls,
    scraped_throughout,
    series,
    while_read,
)
from dashboards.runtimes import HEIGHT, runtimes
from dashboards.style import (
    BLUE,
    GREEN,
    GREY,
    MAGENTA,
    ORANGE,
    PURPLE,
    RED,
    TEXT,
    UNKNOWN,
    status_number_mappings,
    thresholds,
    value_mapping,
)

UID = "spinner-live-ops"

MOST_LISTED = 60
"""Rows of the timeline, so that it stays quick and one can page through it."""

FINISHED = series("project_spinner_state:spinner_records_processed:rate5m", PROJECT, SPINNER)

JOBS = (
    "/d/spinner-jobs?${datasource:queryparam}&${runtime:queryparam}&${project:queryparam}&${spinner:queryparam}"
    "&${product_url:queryparam}&${__url_time_range}"
)


FRESH = all_fresh(PROJECT)
NONE = value_mapping({"0": ("✔ none", GREEN)})


def run_count(status: str) -> str:
    """Return the number of runs with a status."""
    return or_zero(f"sum({REPLICAS} ({series('spinner_runs', PROJECT, SPINNER, equals('status', status))}))", FRESH)


def count_of_today(name: str, matcher: str, *, known: str = FRESH) -> str:
    """Return how many were counted in the panel's range; zero is certain only with `known`."""
    return or_zero(increase_in_range(name, matcher), scraped_throughout(known))


PROGRESS_KNOWN = recorded_none("project_spinner:spinner_run_last_progress_timestamp_seconds:unknown", SPINNER)

RUNTIMES = runtimes(7)

RUNNING = stat(
    Panel(
        1,
        "Running",
        "Runs in progress, including stalled ones. If there are none although there should be, check Queued and "
        "the worker service above.",
        GridPos(x=0, y=HEIGHT, w=6, h=4),
    ),
    instant_query(run_count("running"), "running"),
    colours=thresholds(GREY, (0, BLUE)),
)

WAITING = stat(
    Panel(
        2,
        "Waiting",
        "Runs that wait for a person or an external event. They are not stalled; SpinnerRunWaitingLong opens a ticket"
        " after a day.",
        GridPos(x=6, y=HEIGHT, w=6, h=4),
    ),
    instant_query(run_count("waiting"), "waiting"),
    colours=thresholds(GREY, (0, PURPLE)),
)

QUEUED = stat(
    Panel(
        3,
        "Queued",
        "Runs that no worker has picked up. If this grows while few runs are running, the workers are down or "
        "occupied by stalled runs.",
        GridPos(x=12, y=HEIGHT, w=6, h=4),
    ),
    instant_query(run_count("queued"), "queued"),
    colours=thresholds(GREY, (0, GREY)),
)

STALLED = stat(
    Panel(
        4,
        "Stalled",
        "Runs without progress for longer than their stall threshold: SpinnerRunStalled pages for them. Unknown during "
        "an outage of the worker service, and while the progress of a running run is not known. Click to list them "
        "on Jobs.",
        GridPos(x=18, y=HEIGHT, w=6, h=4),
    ),
    instant_query(
        or_zero(
            f"count({recorded_stalls()})",
            f"({FRESH} unless on () {outages()} and on () {PROGRESS_KNOWN})",
        )
    ),
    colours=thresholds(GREY, (0, GREEN), (1, MAGENTA)),
    mappings=[NONE],
    links=[("Show stalled runs", f"{JOBS}&var-status=stalled")],
)

FAILED_TODAY = stat(
    Panel(
        5,
        "Runs failed today",
        "Runs that ended with the status failed since midnight UTC, or, on the exporter's first day, since one "
        "retention before it began. None is certain only if Prometheus watched the exporter since midnight. Click to "
        "list the failed runs that Jobs still shows.",
        GridPos(x=0, y=HEIGHT + 4, w=8, h=3),
    ),
    instant_query(count_of_today("spinner_runs_finished_total", equals("status", "failed"))),
    colours=thresholds(GREY, (0, GREEN), (1, RED)),
    mappings=[NONE],
    since="now/d",
    links=[("Show failed runs", f"{JOBS}&var-status=failed")],
)

FAILED_RECORDS_TODAY = stat(
    Panel(
        6,
        "Records failed today",
        "Records that failed since midnight UTC, including those of completed runs; on the exporter's first day, those "
        "of runs that ended since one retention before it began. Top failing steps shows where they failed.",
        GridPos(x=8, y=HEIGHT + 4, w=8, h=3),
    ),
    instant_query(
        count_of_today(
            "spinner_records_processed_total",
            equals("state", "failed"),
            known=all_counted(FRESH),
        )
    ),
    colours=thresholds(GREY, (0, GREEN), (1, ORANGE)),
    mappings=[NONE],
    since="now/d",
)

ALERT_LABELS = "alertname, severity, runtime, project, spinner, run_id"
FIRING_ALERTS = f"max by ({ALERT_LABELS}) ({series('ALERTS', *FIRING_NOW, *SELECTED_ALERTS)})"
SINCE = f"max by ({ALERT_LABELS}) ({series('ALERTS_FOR_STATE', *FIRING_NOW[1:], *SELECTED_ALERTS)})"
# SpinnerWatchdog always fires: without it Prometheus does not evaluate the rules. No rule fires for what is not known.
NOTHING_FIRES = (
    f"(group({series('ALERTS', equals('alertname', 'SpinnerWatchdog'))}) and on () {FRESH} "
    f"unless on () {series('ALERTS', *FIRING_NOW, *SELECTED_ALERTS)})"
)

FIRING = stat(
    Panel(
        8,
        "Firing alerts",
        "Number of pages and tickets from alerts/alerts.rules.yml that are firing now. The table below lists them. "
        "None is certain only if Prometheus evaluates the rules and the data are fresh.",
        GridPos(x=16, y=HEIGHT + 4, w=8, h=3),
    ),
    instant_query(or_zero(f"count({FIRING_ALERTS})", NOTHING_FIRES)),
    colours=thresholds(GREY, (0, GREEN), (1, RED)),
    mappings=[NONE],
)

TIMELINE = state_timeline(
    Panel(
        9,
        "Active runs",
        f"Status over time of runs that were active in this range, at most {MOST_LISTED}: stalled first, then running, "
        "waiting, queued, and ended ones. A run that turns to STALLED needs attention.",
        GridPos(x=0, y=HEIGHT + 7, w=14, h=14),
    ),
    range_query(
        f"({display_status_number(LISTED, statuses=('queued', 'running', 'waiting', 'unknown'))})",
        "{{spinner}} {{run_id}}",
        min_step="1m",
    ),
    mappings=status_number_mappings(),
    empty="? No active run reported in this range",
)

ALERTS = table(
    Panel(
        10,
        "Alerts",
        "Alerts of the selected runtimes and projects that are firing now, pages first. The runbook of each alert "
        "(alerts/runbooks) says what it means and what to do.",
        GridPos(x=14, y=HEIGHT + 7, w=10, h=7),
    ),
    [
        instant_query(f'{FIRING_ALERTS} or label_replace({NOTHING_FIRES}, "severity", "none", "", "")'),
        instant_query(f"({SINCE} and on ({ALERT_LABELS}) {FIRING_ALERTS}) * 1000"),
    ],
    [
        Column(
            "severity",
            "Severity",
            width=85,
            colours="text",
            mappings=[
                value_mapping({"page": ("✖ page", RED), "ticket": ("▲ ticket", ORANGE), "none": ("✔ none", GREEN)})
            ],
        ),
        Column("alertname", "Alert", wrap=True),
        Column("Value #B", "Since", "time", width=97, empty=("", TEXT)),
        Column("project", "Project", width=100, wrap=True),
        Column(
            "spinner",
            "Spinner",
            wrap=True,
            links=[("Show this run", f"{JOBS}&var-run=${{__data.fields.run_id:percentencode}}", False)],
        ),
        Column("run_id", "Run", hidden=True),
    ],
    empty="? unknown: the rules are not evaluated, or the data are not fresh",
    sort=("severity", False),
    hidden=("Value #A", "runtime"),
)

STEPS = bar_gauge(
    Panel(
        11,
        "Top failing steps",
        "Failed records of all runs that the exporter shows, by step and error code. If one error dominates, its "
        "cause is usually a provider or a setting.",
        GridPos(x=14, y=HEIGHT + 14, w=10, h=7),
    ),
    instant_query(
        "topk(6, sum by (step, error_code) "
        f"({series('project_spinner_step_error:spinner_run_failures:sum', PROJECT, SPINNER)})) "
        f"or 0 * {no_recorded_failures(FRESH)}",
        "{{step}}: {{error_code}}",
    ),
    empty=UNKNOWN[0],
    colour=ORANGE,
    none="✔ none",
    names_above=True,
)

UNCOUNTED = "project_spinner:spinner_records_processed:unknown"
# 0 while a spinner runs whose records nobody counts, so that no zero is drawn; -1 otherwise.
MORE_THAN = f"(clamp_max(sum({series(UNCOUNTED, PROJECT, SPINNER)} or {series(UNCOUNTED, NO_RUNTIME)}), 1) - 1)"

THROUGHPUT = time_series(
    Panel(
        12,
        "Records per minute",
        "Records that finish per minute, by state. If the rate drops to zero while runs are running, check the "
        "worker service. If the failed part grows, check the providers. Zero is shown only if the runtime tells the "
        "counts of every running spinner.",
        GridPos(x=0, y=HEIGHT + 21, w=24, h=8),
    ),
    [
        range_query(
            f"sum by (state) ({while_read(FINISHED)}) * 60 > on () group_left () {MORE_THAN}",
            "{{state}}",
            min_step="1m",
        )
    ],
    unit="per minute",
    empty="? No data in this range, or Prometheus does not load alerts/recording.rules.yml",
    colours={"completed": GREEN, "failed": RED},
    stacked=True,
)

DASHBOARD = dashboard(
    UID,
    "Live Ops",
    "The current state of all runs: counts by status, firing alerts, failing steps. Refreshes every 30 seconds.",
    [
        RUNTIMES,
        RUNNING,
        WAITING,
        QUEUED,
        STALLED,
        FAILED_TODAY,
        FAILED_RECORDS_TODAY,
        FIRING,
        TIMELINE,
        ALERTS,
        STEPS,
        THROUGHPUT,
    ],
    variables=[
        runtime_variable(),
        project_variable(),
        spinner_variable(),
        product_url_variable(),
        query_variable(
            "listed",
            "Runs in the timeline",
            f"query_result(topk({MOST_LISTED}, max by (run_id) ({active_by_need()})))",
            regex=r'/\{run_id="(.+)"\}/',
            hidden=True,
        ),
    ],
    since="now-1h",
    refresh="30s",
)
