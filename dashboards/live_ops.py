"""Live Ops: the current state of all runs, for a screen that refreshes by itself."""

from grafanalib import core

from dashboards.panels import (
    ALL,
    RUN_ON_A_TIMELINE,
    Column,
    GridPos,
    Panel,
    bar_gauge,
    choosing_a_run,
    dashboard,
    instant_query,
    product_url_variable,
    project_variable,
    query_variable,
    range_query,
    runbooks_url_variable,
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
    NOT_STALLED_NOW,
    PROJECT,
    REPLICAS,
    RUN_LABELS,
    RUNTIME,
    SELECTED_ALERTS,
    SPINNER,
    STALLED_NOW,
    active_by_need,
    all_counted,
    all_fresh,
    display_status_number,
    equals,
    failures_in_range,
    failures_remembered,
    named_bars,
    no_recorded_failures,
    or_zero,
    outages,
    progress_known,
    recorded_stalls,
    scraped_throughout,
    series,
    since_midnight,
    while_read,
)
from dashboards.runtimes import HEIGHT, runtimes
from dashboards.style import (
    GREEN,
    GREY,
    MAGENTA,
    ORANGE,
    RED,
    TEXT,
    UNKNOWN,
    UNKNOWN_IN_SHORT,
    status_number_mappings,
    thresholds,
    value_mapping,
)

UID = "spinner-live-ops"

MOST_LISTED = 60
"""Rows of the timeline, so that it stays quick and one can page through it."""

FINISHED = series("project_spinner_state:spinner_records_processed:rate5m", PROJECT, SPINNER)

SELECTION = (
    "/d/spinner-jobs?${datasource:queryparam}&${runtime:queryparam}&${project:queryparam}"
    "&${product_url:queryparam}&${__url_time_range}"
)
JOBS = f"{SELECTION}&${{spinner:queryparam}}"
# Alerts are those of all spinners, so that none is missed.
RUN_OF_ALERT = f"{SELECTION}&var-spinner={ALL}&{choosing_a_run()}"


FRESH = all_fresh(PROJECT)
NONE = value_mapping({"0": ("✔ none", GREEN)})


def run_count(status: str) -> str:
    """Return the number of runs with a status."""
    return or_zero(f"sum({REPLICAS} ({series('spinner_runs', PROJECT, SPINNER, equals('status', status))}))", FRESH)


def failures_of_today(name: str, failed: str, lost: str, *, known: str = FRESH) -> str:
    """Return how many failures were counted since midnight; zero is certain only with `known`."""
    remembered = failures_remembered(name, failed, lost)
    known = f"({scraped_throughout(known)} and on () {remembered})"
    return f"({or_zero(failures_in_range(name, failed, lost), known)}) and on () {since_midnight()}"


RUNTIMES = runtimes(7)

RUNNING = stat(
    Panel(
        1,
        "Running",
        "Runs in progress, including stalled ones. If there are none although there should be, check Queued and "
        "the worker service above.",
        GridPos(x=0, y=HEIGHT + 10, w=6, h=3),
    ),
    instant_query(run_count("running"), "running"),
    colours=thresholds(GREY, (0, TEXT)),
)

WAITING = stat(
    Panel(
        2,
        "Waiting",
        "Runs that wait for a person or an external event. They are not stalled; SpinnerRunWaitingLong opens a ticket"
        " after a day.",
        GridPos(x=6, y=HEIGHT + 10, w=6, h=3),
    ),
    instant_query(run_count("waiting"), "waiting"),
    colours=thresholds(GREY, (0, TEXT)),
)

QUEUED = stat(
    Panel(
        3,
        "Queued",
        "Runs that no worker has picked up. If this grows while few runs are running, the workers are down or "
        "occupied by stalled runs.",
        GridPos(x=12, y=HEIGHT + 10, w=6, h=3),
    ),
    instant_query(run_count("queued"), "queued"),
    colours=thresholds(GREY, (0, TEXT)),
)

STALLED = stat(
    Panel(
        4,
        "Stalled",
        "Runs without progress for longer than their stall threshold: SpinnerRunStalled pages for them. Unknown during "
        "an outage of the worker service, and while the progress of a running run is not known. Click to list them "
        "on Jobs.",
        GridPos(x=0, y=HEIGHT, w=6, h=3),
    ),
    instant_query(
        or_zero(
            f"count({recorded_stalls()})",
            f"({FRESH} unless on () {outages()} and on () {progress_known()})",
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
        "retention before it began. None is certain only if Prometheus watched the exporter since midnight. Unknown in "
        "an absolute time range. Click to list the failed runs that Jobs still shows.",
        GridPos(x=12, y=HEIGHT, w=6, h=3),
    ),
    instant_query(
        failures_of_today(
            "spinner_runs_finished_total",
            equals("status", "failed"),
            "project_spinner_status:spinner_runs_finished:lost1m",
        )
    ),
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
        "of runs that ended since one retention before it began. Unknown in an absolute time range. Top failing steps "
        "shows where they failed.",
        GridPos(x=18, y=HEIGHT, w=6, h=3),
    ),
    instant_query(
        failures_of_today(
            "spinner_records_processed_total",
            equals("state", "failed"),
            "project_spinner_state:spinner_records_processed:lost1m",
            known=all_counted(FRESH),
        )
    ),
    colours=thresholds(GREY, (0, GREEN), (1, ORANGE)),
    mappings=[NONE],
    since="now/d",
)

ALERT_LABELS = f"alertname, severity, {RUN_LABELS}"


def firing(*matchers: str) -> str:
    """Return the alerts of the selected runtimes and projects that are firing now."""
    return f"max by ({ALERT_LABELS}) ({series('ALERTS', *FIRING_NOW, *matchers, *SELECTED_ALERTS)})"


# SpinnerWatchdog always fires: without it Prometheus does not evaluate the rules. No rule fires for what is not known.
def nothing_fires(*matchers: str) -> str:
    """Return one sample if it is certain that no such alert is firing."""
    return (
        f"(group({series('ALERTS', equals('alertname', 'SpinnerWatchdog'))}) and on () {FRESH} "
        f"unless on () {series('ALERTS', *FIRING_NOW, *matchers, *SELECTED_ALERTS)})"
    )


FIRING = stat(
    Panel(
        8,
        "Firing alerts",
        "Number of pages and tickets from alerts/alerts.rules.yml that are firing now; the tables below list them. "
        "None is certain only if Prometheus evaluates the rules and the data are fresh.",
        GridPos(x=6, y=HEIGHT, w=6, h=3),
    ),
    instant_query(or_zero(f"count({firing()})", nothing_fires())),
    colours=thresholds(GREY, (0, GREEN), (1, RED)),
    mappings=[NONE],
)

WORKERS = stat(
    Panel(
        14,
        "Workers",
        "Workers of the selected runtimes, as their APIs report them. The API does not say how many are busy: if runs "
        "are queued while there are workers, all of them are. Unknown while a runtime cannot be read.",
        GridPos(x=18, y=HEIGHT + 10, w=6, h=3),
    ),
    instant_query(
        f"sum(max by (runtime) ({series('spinner_runtime_workers', RUNTIME)})) and on () {FRESH} unless on () "
        f"({series('spinner_api_up', RUNTIME)} unless on (runtime) {series('spinner_runtime_workers', RUNTIME)})"
    ),
    colours=thresholds(GREY, (0, RED), (1, TEXT)),
)

TIMELINE = state_timeline(
    Panel(
        9,
        "Active runs",
        "Status over time of runs that were active in this range. A run that turns to STALLED needs attention. Of more "
        f"than {MOST_LISTED} runs the stalled ones are shown, then running, waiting, queued, and ended ones. Stalled "
        "runs are in the first rows; the others are in the order of their projects and ids.",
        GridPos(x=0, y=HEIGHT + 13, w=14, h=17),
    ),
    [
        range_query(
            f"({display_status_number(LISTED, stalled, statuses=('queued', 'running', 'waiting', 'unknown'))})",
            RUN_ON_A_TIMELINE,
            min_step="1m",
        )
        for stalled in (STALLED_NOW, NOT_STALLED_NOW)
    ],
    mappings=status_number_mappings(),
    empty="? No active run reported in this range",
)


def alerts(panel: Panel, severity: str, sign: str, colour: str, *, none: str) -> core.Panel:
    """Return the table of the firing alerts with a severity; `none` is a sample with a `mark` if there are none."""
    matcher = equals("severity", severity)
    since = f"max by ({ALERT_LABELS}) ({series('ALERTS_FOR_STATE', FIRING_NOW[1], matcher, *SELECTED_ALERTS)})"
    return table(
        panel,
        [
            instant_query(f"{placed(firing(matcher))} or ({none})"),
            instant_query(placed(f"({since} and on ({ALERT_LABELS}) {firing(matcher)}) * 1000")),
        ],
        [
            Column(
                "mark",
                " ",
                width=65,
                coloured=True,
                mappings=[
                    value_mapping({"firing": (sign, colour), "none": ("✔ none", GREEN), "besides": ("none", GREY)})
                ],
                empty=UNKNOWN_IN_SHORT,
            ),
            Column(
                "alert",
                "Alert, and what it is about",
                wrap=True,
                least_width=220,
                empty=("", TEXT),
                links=[
                    ("Runbook", RUNBOOK, False),
                    ("Show on Jobs", RUN_OF_ALERT, False),
                ],
            ),
            Column("Value #B", "Since", "time", width=84, wrap=True, empty=("", TEXT)),
            Column("alertname", "Name", hidden=True),
            Column("runtime", "Runtime", hidden=True),
            Column("project", "Project", hidden=True),
            Column("run_id", "Run", hidden=True),
        ],
        empty=UNKNOWN[0],  # the column that is left without rows has no room for more
        sort=("Value #B", False),
        hidden=("Value #A", "Value", "spinner", "severity", "whose", "place"),
    )


def placed(alerts: str) -> str:
    """Add the label `alert`: the name, and on a second line the project or runtime, and the spinner.

    Each row has two lines, because Grafana divides a table into pages by the mean height of its rows, and cuts off the
    last of those that are higher.
    """
    runtime = f'label_replace({alerts}, "whose", "$1", "runtime", "(.+)")'
    whose = f'label_replace({runtime}, "whose", "$1", "project", "(.+)")'
    place = f'label_replace(label_join({whose}, "place", ": ", "whose", "spinner"), "place", "$1", "place", "(.*): ")'
    return marked(f'label_join({place}, "alert", "\\n", "alertname", "place")', "firing")


def marked(expression: str, mark: str) -> str:
    """Add the label `mark`."""
    return f'label_replace({expression}, "mark", "{mark}", "", "")'


RUNBOOK = "${runbooks_url}/${__data.fields.alertname:percentencode}.md"

PAGES = alerts(
    Panel(
        10,
        "Pages",
        "Alerts of the selected runtimes and projects, of all spinners, that page somebody now, the oldest first. "
        "Click an alert for its runbook, which says what it means and what to do, and for the run on Jobs. Unknown: "
        "the rules are not evaluated, or the data are not fresh.",
        GridPos(x=0, y=HEIGHT + 3, w=12, h=7),
    ),
    "page",
    "✖ page",
    RED,
    none=marked(nothing_fires(equals("severity", "page")), "none"),
)

TICKETS = alerts(
    Panel(
        13,
        "Tickets",
        "Alerts of the selected runtimes and projects, of all spinners, that have opened a ticket, the oldest "
        "first: they can wait until the morning. Click an alert for its runbook, and for the run on Jobs. Unknown: "
        "the rules are not evaluated, or the data are not fresh.",
        GridPos(x=12, y=HEIGHT + 3, w=12, h=7),
    ),
    "ticket",
    "▲ ticket",
    ORANGE,
    # While a page is firing, what opens a ticket may be unknown: that there are none is not good then.
    none=f"{marked(nothing_fires(), 'none')} or on () {marked(nothing_fires(equals('severity', 'ticket')), 'besides')}",
)

STEPS = bar_gauge(
    Panel(
        11,
        "Top failing steps",
        "Failed records of all runs that the exporter shows, by step and error code. If one error dominates, its "
        "cause is usually a provider or a setting.",
        GridPos(x=14, y=HEIGHT + 13, w=10, h=9),
    ),
    instant_query(
        named_bars(
            "topk(6, sum by (step, error_code) "
            f"({series('project_spinner_step_error:spinner_run_failures:sum', PROJECT, SPINNER)}))",
            ("step", "error_code"),
            none=no_recorded_failures(FRESH),
            of_what="failed records",
        ),
        "{{name}}",
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
        "worker service. If the failed part grows, check the providers. Zero is shown only if the runtime reports the "
        "counts of every running spinner.",
        GridPos(x=14, y=HEIGHT + 22, w=10, h=8),
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
        STALLED,
        FIRING,
        FAILED_TODAY,
        FAILED_RECORDS_TODAY,
        PAGES,
        TICKETS,
        RUNNING,
        WAITING,
        QUEUED,
        WORKERS,
        TIMELINE,
        STEPS,
        THROUGHPUT,
    ],
    variables=[
        runtime_variable(),
        project_variable(),
        spinner_variable(),
        product_url_variable(),
        runbooks_url_variable(),
        query_variable(
            "listed",
            "Runs in the timeline",
            f"query_result(topk({MOST_LISTED}, max by (run_id) ({active_by_need()})))",
            regex=r'/\{run_id="(.+)"\}/',
            hidden=True,
        ),
        query_variable(
            "stalled",
            "Stalled runs",
            f"query_result(max by (run_id) ({recorded_stalls()}))",
            regex=r'/\{run_id="(.+)"\}/',
            hidden=True,
        ),
    ],
    since="now-1h",
    refresh="30s",
)
