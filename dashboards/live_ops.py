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
    PROJECT,
    REPLICAS,
    RUNTIME,
    SPINNER,
    display_status_number,
    equals,
    series,
    stalled_runs,
    sum_or_zero,
)
from dashboards.style import (
    BLUE,
    GREEN,
    GREY,
    MAGENTA,
    ORANGE,
    PURPLE,
    RED,
    status_number_mappings,
    thresholds,
    value_mapping,
)

UID = "spinner-live-ops"

FINISHED = series("project_spinner_state:spinner_records_processed:rate5m", PROJECT, SPINNER)

JOBS = (
    "/d/spinner-jobs?${datasource:queryparam}&${runtime:queryparam}&${project:queryparam}&${spinner:queryparam}"
    "&${__url_time_range}"
)


def run_count(status: str) -> str:
    """Return the number of runs with a status."""
    return sum_or_zero(f"{REPLICAS} ({series('spinner_runs', PROJECT, SPINNER, equals('status', status))})")


def increase_in_range(name: str, matcher: str) -> str:
    """Return a counter's increase in the panel's time range."""
    increase = sum_or_zero(f"{REPLICAS} (increase({series(name, PROJECT, SPINNER, matcher)}[$__range]))")
    return f"round({increase})"


RUNNING = stat(
    Panel(
        1,
        "Running",
        "Runs in progress, including stalled ones. If there are none although there should be, check Queued and "
        "Runtime.",
        GridPos(x=0, y=0, w=6, h=4),
    ),
    range_query(run_count("running"), "running"),
    colours=thresholds(BLUE),
    graph=True,
)

WAITING = stat(
    Panel(
        2,
        "Waiting",
        "Runs that wait for a person or an external event. They are not stalled; SpinnerRunWaitingLong opens a ticket"
        " after a day.",
        GridPos(x=6, y=0, w=6, h=4),
    ),
    range_query(run_count("waiting"), "waiting"),
    colours=thresholds(PURPLE),
    graph=True,
)

QUEUED = stat(
    Panel(
        3,
        "Queued",
        "Runs that no worker has picked up. If this grows while few runs are running, the workers are down or "
        "occupied by stalled runs.",
        GridPos(x=12, y=0, w=6, h=4),
    ),
    range_query(run_count("queued"), "queued"),
    colours=thresholds(GREY),
    graph=True,
)

STALLED = stat(
    Panel(
        4,
        "Stalled",
        "Runs without progress for longer than their stall threshold. SpinnerRunStalled pages for them. Click to list"
        " them on Jobs.",
        GridPos(x=18, y=0, w=6, h=4),
    ),
    instant_query(f"count({stalled_runs()}) or vector(0)"),
    colours=thresholds(GREEN, (1, MAGENTA)),
    mappings=[value_mapping({"0": ("✔ none", GREEN)})],
    links=[("Show running runs", f"{JOBS}&var-status=running")],
)

FAILED_TODAY = stat(
    Panel(
        5,
        "Runs failed today",
        "Runs with the status failed since midnight UTC. Click to list failed runs on Jobs.",
        GridPos(x=0, y=4, w=6, h=3),
    ),
    instant_query(increase_in_range("spinner_runs_finished_total", equals("status", "failed"))),
    colours=thresholds(GREEN, (1, RED)),
    mappings=[value_mapping({"0": ("✔ none", GREEN)})],
    since="now/d",
    links=[("Show failed runs", f"{JOBS}&var-status=failed")],
)

FAILED_RECORDS_TODAY = stat(
    Panel(
        6,
        "Records failed today",
        "Records that failed since midnight UTC, including those of completed runs. Top failing steps shows where "
        "they failed.",
        GridPos(x=6, y=4, w=6, h=3),
    ),
    instant_query(increase_in_range("spinner_records_processed_total", equals("state", "failed"))),
    colours=thresholds(GREEN, (1, ORANGE)),
    mappings=[value_mapping({"0": ("✔ none", GREEN)})],
    since="now/d",
)

RUNTIME = stat(
    Panel(
        7,
        "Runtime",
        "Whether the worker service of every selected runtime is up and has sent a heartbeat within 3 minutes. If it "
        "is down, runs are created but not processed: see the runbook of SpinnerRuntimeDown.",
        GridPos(x=12, y=4, w=6, h=3),
    ),
    range_query(
        f"min(max by (runtime) ({series('spinner_runtime_up', RUNTIME)}) * (time() - "
        f"max by (runtime) ({series('spinner_runtime_last_heartbeat_timestamp_seconds', RUNTIME)}) < bool 180))"
    ),
    colours=thresholds(RED, (1, GREEN)),
    mappings=[value_mapping({"0": ("✖ DOWN", RED), "1": ("✔ up", GREEN)})],
    empty="? unknown",
)

FIRING = stat(
    Panel(
        8,
        "Firing alerts",
        "Number of pages and tickets from alerts/alerts.rules.yml that are firing now. The table below lists them.",
        GridPos(x=18, y=4, w=6, h=3),
    ),
    instant_query(
        f"count(max by (alertname, runtime, project, spinner, run_id) ({series('ALERTS', *FIRING_NOW)})) or vector(0)"
    ),
    colours=thresholds(GREEN, (1, RED)),
    mappings=[value_mapping({"0": ("✔ none", GREEN)})],
)

TIMELINE = state_timeline(
    Panel(
        9,
        "Active runs",
        "Status over time of all runs that were active in this range. A run that turns to STALLED needs attention.",
        GridPos(x=0, y=7, w=14, h=14),
    ),
    range_query(
        f"({display_status_number(statuses=('queued', 'running', 'waiting', 'unknown'))})",
        "{{spinner}} {{run_id}}",
    ),
    mappings=status_number_mappings(),
    empty="No active runs in this range",
)

ALERTS = table(
    Panel(
        10,
        "Alerts",
        "Alerts that are firing now, pages first. The runbook of each alert (alerts/runbooks) says what it means and "
        "what to do.",
        GridPos(x=14, y=7, w=10, h=7),
    ),
    [
        instant_query(
            f"max by (alertname, severity, runtime, project, spinner, run_id) ({series('ALERTS', *FIRING_NOW)})"
        )
    ],
    [
        Column(
            "severity",
            "Severity",
            width=85,
            colours="text",
            mappings=[value_mapping({"page": ("✖ page", RED), "ticket": ("▲ ticket", ORANGE)})],
        ),
        Column("alertname", "Alert", wrap=True),
        Column(
            "spinner",
            "Spinner",
            wrap=True,
            links=[("Show this run", f"{JOBS}&var-run=${{__data.fields.run_id}}", False)],
        ),
        Column("run_id", "Run", hidden=True),
    ],
    empty="✔ No alerts are firing",
    sort=("severity", False),
    hidden=("Value", "runtime", "project"),
)

STEPS = bar_gauge(
    Panel(
        11,
        "Top failing steps",
        "Failed records of all runs that the exporter shows, by step and error code. If one error dominates, its "
        "cause is usually a provider or a setting.",
        GridPos(x=14, y=14, w=10, h=7),
    ),
    instant_query(
        "topk(6, sum by (step, error_code) (max by (runtime, project, spinner, run_id, step, error_code) "
        f"({series('spinner_run_failures', PROJECT, SPINNER)})))",
        "{{step}}: {{error_code}}",
    ),
    empty="✔ No failed records",
    colour=ORANGE,
    names_above=True,
)

THROUGHPUT = time_series(
    Panel(
        12,
        "Records per minute",
        "Records that finish per minute, by state. If the rate drops to zero while runs are running, check the "
        "runtime. If the failed part grows, check the providers.",
        GridPos(x=0, y=21, w=24, h=8),
    ),
    [
        range_query(
            f"sum by (state) ({FINISHED}) * 60",
            "{{state}}",
        )
    ],
    unit="per minute",
    empty="No records finished in this range, or Prometheus does not load alerts/recording.rules.yml",
    colours={"completed": GREEN, "failed": RED},
    stacked=True,
)

DASHBOARD = dashboard(
    UID,
    "Live Ops",
    "The current state of all runs: counts by status, firing alerts, failing steps. Refreshes every 30 seconds.",
    [
        RUNNING,
        WAITING,
        QUEUED,
        STALLED,
        FAILED_TODAY,
        FAILED_RECORDS_TODAY,
        RUNTIME,
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
    ],
    since="now-1h",
    refresh="30s",
)
