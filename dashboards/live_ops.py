"""Live Ops: what is going on now, on a screen that refreshes by itself."""

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
    grown = sum_or_zero(f"{REPLICAS} (increase({series(name, PROJECT, SPINNER, matcher)}[$__range]))")
    return f"round({grown})"


RUNNING = stat(
    Panel(
        1,
        "Running",
        "Runs in progress, stalled ones included. None at a time when there should be some: are runs queued, is the "
        "runtime up?",
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
        "Runs that wait for a person or for something outside. That is no stall; SpinnerRunWaitingLong tells after a "
        "day.",
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
        "Runs that nobody has taken up. Growing while few are running: the workers are busy with something that "
        "hangs, or down.",
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
        "Runs that are silent for longer than their own pace makes plausible. A click lists them on Jobs; "
        "SpinnerRunStalled pages.",
        GridPos(x=18, y=0, w=6, h=4),
    ),
    instant_query(f"count({stalled_runs()}) or vector(0)"),
    colours=thresholds(GREEN, (1, MAGENTA)),
    mappings=[value_mapping({"0": ("✔ none", GREEN)})],
    links=[("Jobs that are running", f"{JOBS}&var-status=running")],
)

FAILED_TODAY = stat(
    Panel(
        5,
        "Runs failed today",
        "Runs that failed as a whole since midnight UTC. A click lists failed runs on Jobs.",
        GridPos(x=0, y=4, w=6, h=3),
    ),
    instant_query(increase_in_range("spinner_runs_finished_total", equals("status", "failed"))),
    colours=thresholds(GREEN, (1, RED)),
    mappings=[value_mapping({"0": ("✔ none", GREEN)})],
    since="now/d",
    links=[("Jobs that failed", f"{JOBS}&var-status=failed")],
)

FAILED_RECORDS_TODAY = stat(
    Panel(
        6,
        "Records failed today",
        "Records that failed since midnight UTC, also in runs that completed. Below: at which step.",
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
        "Whether the worker service, of every chosen runtime, is up and gave a heartbeat within 3 minutes. Down: runs "
        "are created and do not move; see SpinnerRuntimeDown.",
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
        "Pages and tickets of alerts/alerts.rules.yml that fire now; the table below names them.",
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
        "Every run that has not ended, or had not in this range, and what it was when. A band that turns to stalled "
        "needs somebody.",
        GridPos(x=0, y=7, w=14, h=14),
    ),
    range_query(
        f"({display_status_number(statuses=('queued', 'running', 'waiting', 'unknown'))})",
        "{{spinner}} {{run_id}}",
    ),
    mappings=status_number_mappings(),
    empty="No run under way in this range",
)

ALERTS = table(
    Panel(
        10,
        "What fires",
        "Alerts that fire now. What each means and what to do first is in its runbook (alerts/runbooks).",
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
    empty="✔ Nothing fires",
    sort=("severity", False),
    hidden=("Value", "runtime", "project"),
)

STEPS = bar_gauge(
    Panel(
        11,
        "Top failing steps",
        "Failed records of all runs that the exporter shows, by step and error. One error far ahead of the others is "
        "a provider or a setting.",
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
        "Records that finish in a minute, by how. Falls to nothing while runs are running: the runtime. The failed "
        "part grows: a provider.",
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
    "What is going on now: how many runs are in which state, what fires, what fails. Refreshes every 30 seconds.",
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
