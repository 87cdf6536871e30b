"""Live Ops: what is going on now, on a screen that refreshes by itself."""

from dashboards.panels import (
    Column,
    bar_gauge,
    dashboard,
    now,
    over_time,
    product_url,
    project_chooser,
    runtime_chooser,
    spinner_chooser,
    stat,
    table,
    time_series,
    timeline,
)
from dashboards.queries import FIRING as FIRING_NOW
from dashboards.queries import PROJECT, REPLICAS, RUNTIME, SPINNER, eq, series, shown_status_number, stalled, total
from dashboards.style import (
    BLUE,
    GREEN,
    GREY,
    MAGENTA,
    ORANGE,
    PURPLE,
    RED,
    status_numbers,
    thresholds,
    value_mapping,
)

UID = "spinner-live-ops"

FINISHED = series("project_spinner_state:spinner_records_processed:rate5m", PROJECT, SPINNER)

JOBS = (
    "/d/spinner-jobs?${datasource:queryparam}&${runtime:queryparam}&${project:queryparam}&${spinner:queryparam}"
    "&${__url_time_range}"
)


def runs(status: str) -> str:
    """Return the number of runs with a status."""
    return total(f"{REPLICAS} ({series('spinner_runs', PROJECT, SPINNER, eq('status', status))})")


def today(name: str, matcher: str) -> str:
    """Return by how much a counter grew in the panel's range."""
    grown = total(f"{REPLICAS} (increase({series(name, PROJECT, SPINNER, matcher)}[$__range]))")
    return f"round({grown})"


RUNNING = stat(
    1,
    "Running",
    over_time(runs("running"), "running"),
    (0, 0, 6, 4),
    "Runs in progress, stalled ones included. None at a time when there should be some: are runs queued, is the "
    "runtime up?",
    colours=thresholds(BLUE),
    graph=True,
)

WAITING = stat(
    2,
    "Waiting",
    over_time(runs("waiting"), "waiting"),
    (6, 0, 6, 4),
    "Runs that wait for a person or for something outside. That is no stall; SpinnerRunWaitingLong tells after a day.",
    colours=thresholds(PURPLE),
    graph=True,
)

QUEUED = stat(
    3,
    "Queued",
    over_time(runs("queued"), "queued"),
    (12, 0, 6, 4),
    "Runs that nobody has taken up. Growing while few are running: the workers are busy with something that hangs, or"
    " down.",
    colours=thresholds(GREY),
    graph=True,
)

STALLED = stat(
    4,
    "Stalled",
    now(f"count({stalled()}) or vector(0)"),
    (18, 0, 6, 4),
    "Runs that are silent for longer than their own pace makes plausible. A click lists them on Jobs; "
    "SpinnerRunStalled pages.",
    colours=thresholds(GREEN, (1, MAGENTA)),
    mappings=[value_mapping({"0": ("✔ none", GREEN)})],
    links=[("Jobs that are running", f"{JOBS}&var-status=running")],
)

FAILED_TODAY = stat(
    5,
    "Runs failed today",
    now(today("spinner_runs_finished_total", eq("status", "failed"))),
    (0, 4, 6, 3),
    "Runs that failed as a whole since midnight UTC. A click lists failed runs on Jobs.",
    colours=thresholds(GREEN, (1, RED)),
    mappings=[value_mapping({"0": ("✔ none", GREEN)})],
    since="now/d",
    links=[("Jobs that failed", f"{JOBS}&var-status=failed")],
)

FAILED_RECORDS_TODAY = stat(
    6,
    "Records failed today",
    now(today("spinner_records_processed_total", eq("state", "failed"))),
    (6, 4, 6, 3),
    "Records that failed since midnight UTC, also in runs that completed. Below: at which step.",
    colours=thresholds(GREEN, (1, ORANGE)),
    mappings=[value_mapping({"0": ("✔ none", GREEN)})],
    since="now/d",
)

RUNTIME = stat(
    7,
    "Runtime",
    over_time(
        f"min(max by (runtime) ({series('spinner_runtime_up', RUNTIME)}) * (time() - "
        f"max by (runtime) ({series('spinner_runtime_last_heartbeat_timestamp_seconds', RUNTIME)}) < bool 180))"
    ),
    (12, 4, 6, 3),
    "Whether the worker service, of every chosen runtime, is up and gave a heartbeat within 3 minutes. Down: runs are "
    "created and do not move; see SpinnerRuntimeDown.",
    colours=thresholds(RED, (1, GREEN)),
    mappings=[value_mapping({"0": ("✖ DOWN", RED), "1": ("✔ up", GREEN)})],
    empty="? unknown",
)

FIRING = stat(
    8,
    "Firing alerts",
    now(f"count(max by (alertname, runtime, project, spinner, run_id) ({series('ALERTS', *FIRING_NOW)})) or vector(0)"),
    (18, 4, 6, 3),
    "Pages and tickets of alerts/alerts.rules.yml that fire now; the table below names them.",
    colours=thresholds(GREEN, (1, RED)),
    mappings=[value_mapping({"0": ("✔ none", GREEN)})],
)

TIMELINE = timeline(
    9,
    "Active runs",
    over_time(
        f"({shown_status_number(statuses=('queued', 'running', 'waiting', 'unknown'))})",
        "{{spinner}} {{run_id}}",
    ),
    (0, 7, 14, 14),
    "Every run that has not ended, or had not in this range, and what it was when. A band that turns to stalled needs"
    " somebody.",
    mappings=status_numbers(),
    empty="No run under way in this range",
)

ALERTS = table(
    10,
    "What fires",
    [now(f"max by (alertname, severity, runtime, project, spinner, run_id) ({series('ALERTS', *FIRING_NOW)})")],
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
    (14, 7, 10, 7),
    "Alerts that fire now. What each means and what to do first is in its runbook (alerts/runbooks).",
    empty="✔ Nothing fires",
    sort=("severity", False),
    hidden=("Value", "runtime", "project"),
)

STEPS = bar_gauge(
    11,
    "Top failing steps",
    now(
        "topk(6, sum by (step, error_code) (max by (runtime, project, spinner, run_id, step, error_code) "
        f"({series('spinner_run_failures', PROJECT, SPINNER)})))",
        "{{step}}: {{error_code}}",
    ),
    (14, 14, 10, 7),
    "Failed records of all runs that the exporter shows, by step and error. One error far ahead of the others is a "
    "provider or a setting.",
    empty="✔ No failed records",
    colour=ORANGE,
    names_above=True,
)

THROUGHPUT = time_series(
    12,
    "Records per minute",
    [
        over_time(
            f"sum by (state) ({FINISHED}) * 60",
            "{{state}}",
        )
    ],
    (0, 21, 24, 8),
    "Records that finish in a minute, by how. Falls to nothing while runs are running: the runtime. The failed part "
    "grows: a provider.",
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
        runtime_chooser(),
        project_chooser(),
        spinner_chooser(),
        product_url(),
    ],
    since="now-1h",
    refresh="30s",
)
