"""Capacity, the trend review: how much runs, when, and how long the plan lasts. It reads recording rules alone."""

from dashboards.panels import (
    Column,
    GridPos,
    Panel,
    bars_by_hour,
    dashboard,
    instant_query,
    project_variable,
    range_query,
    runtime_variable,
    stat,
    table,
    time_series,
)
from dashboards.queries import PROJECT, REPLICAS, RUNTIME, series
from dashboards.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    TEXT,
    null_mapping,
    thresholds,
)

UID = "spinner-capacity"

DAYS = "Needs alerts/recording.rules.yml in Prometheus, and a day of data"

FINISHED = series("project_status:spinner_runs_finished:increase1d", PROJECT)
STARTED = series("project:spinner_runs_started:increase1d", PROJECT)
RECORDS = series("project_state:spinner_records_processed:increase1d", PROJECT)
HOURS = series("project:spinner_records_processed:increase1h", PROJECT)
MOST_AT_ONCE = series("project:spinner_runs_running:max1h", PROJECT)
QUEUE = series("project:spinner_run_queue_seconds:p95_1h", PROJECT)
PLAN = series("meter:spinner_plan_used:ratio", RUNTIME)
USED = f"{REPLICAS} ({series('spinner_plan_used', RUNTIME)})"
LIMIT = f"({REPLICAS} ({series('spinner_plan_limit', RUNTIME)}) < Inf)"
GROWTH = f"clamp_min({REPLICAS} (deriv({series('spinner_plan_used', RUNTIME)}[1d])), 0)"
RESET = f"{REPLICAS} ({series('spinner_plan_reset_timestamp_seconds', RUNTIME)})"


def growth(expression: str) -> str:
    """Return the relative growth of a daily number: the last 30 days against the 30 days before."""
    month = f"sum(sum_over_time({expression}[30d:1d]))"
    before = f"sum(sum_over_time({expression}[30d:1d] offset 30d))"
    return f"{month} / ({before} > 0) - 1"


RUN_GROWTH = stat(
    Panel(
        1,
        "Growth of runs",
        "Runs that started in the last 30 days, against the 30 days before. Grows faster than the plan: talk about "
        "the plan now.",
        GridPos(x=0, y=0, w=6, h=4),
    ),
    instant_query(growth(STARTED)),
    unit="ratio",
    colours=thresholds(BLUE),
    empty="needs 60 days of data",
    decimals=1,
)

RECORD_GROWTH = stat(
    Panel(
        2,
        "Growth of records",
        "Records that finished in the last 30 days against the 30 days before: the work itself, whatever the number "
        "of runs.",
        GridPos(x=6, y=0, w=6, h=4),
    ),
    instant_query(growth(RECORDS)),
    unit="ratio",
    colours=thresholds(BLUE),
    empty="needs 60 days of data",
    decimals=1,
)

PEAK = stat(
    Panel(
        3,
        "Most runs at once",
        "The most runs in progress at any time of this range. Near the number of workers' places: runs queue.",
        GridPos(x=12, y=0, w=6, h=4),
    ),
    range_query(f"sum({MOST_AT_ONCE})", min_step="1h"),
    colours=thresholds(BLUE),
    empty="no runs in this range",
    calculation="max",
)

FULLEST = stat(
    Panel(
        4,
        "Fullest plan meter",
        "How full the fullest meter of the plan is. At 100 % the runtime refuses new runs (PLAN_LIMIT).",
        GridPos(x=18, y=0, w=6, h=4),
    ),
    instant_query(f"max({PLAN})"),
    unit="ratio",
    colours=thresholds(GREEN, (0.8, ORANGE), (1, RED)),
    empty="the plan has no limits",
    decimals=0,
)

RUNS_PER_DAY = time_series(
    Panel(
        5,
        "Runs per day",
        "Runs that ended in the 24 hours before each bar, by how. A higher failed part than last month: see Spinner "
        "health.",
        GridPos(x=0, y=4, w=12, h=8),
    ),
    [range_query(f"sum by (status) ({FINISHED})", "{{status}}", min_step="1d")],
    empty=DAYS,
    colours={"completed": GREEN, "failed": RED, "cancelled": GREY, "unknown": ORANGE},
    stacked=True,
    bars=True,
)

RECORDS_PER_DAY = time_series(
    Panel(
        6,
        "Records per day",
        "Records that finished in the 24 hours before each bar, by how: what the plan's records meter counts.",
        GridPos(x=12, y=4, w=12, h=8),
    ),
    [range_query(f"sum by (state) ({RECORDS})", "{{state}}", min_step="1d")],
    empty=DAYS,
    colours={"completed": GREEN, "failed": RED},
    stacked=True,
    bars=True,
)

METERS = table(
    Panel(
        7,
        "Plan",
        "How full each meter of the plan is, and the forecast: how full it will be when it begins anew, at the pace "
        "of the last day. Over 100 %: new runs will be refused before that; SpinnerPlanLimitSoon opens a ticket.",
        GridPos(x=0, y=12, w=14, h=7),
    ),
    [
        instant_query(USED),
        instant_query(LIMIT),
        instant_query(f"{USED} / {LIMIT}"),
        instant_query(f"{RESET} * 1000"),
        instant_query(f"({USED} + {GROWTH} * clamp_min({RESET} - time(), 0)) / {LIMIT}"),
    ],
    [
        Column("runtime", "Runtime"),
        Column("meter", "Meter"),
        Column("Value #A", "Used", "count", width=75, align="right"),
        Column("Value #B", "Limit", "count", width=75, align="right", mappings=[null_mapping("unlimited")]),
        Column("Value #C", "Full", "ratio", width=95, bar=True),
        Column("Value #D", "Begins anew", "time", width=97, mappings=[null_mapping("never")]),
        Column(
            "Value #E",
            "Forecast",
            "ratio",
            width=82,
            colours="text",
            align="right",
            mappings=[null_mapping("none")],
            steps=thresholds(TEXT, (0.8, ORANGE), (1, RED)),
        ),
    ],
    empty="The runtime shows no plan meters",
    sort=("Value #C", True),
    paginated=False,
)

PLAN_OVER_TIME = time_series(
    Panel(
        8,
        "Plan use",
        "How full each meter was. The dashed line is where new runs are refused.",
        GridPos(x=14, y=12, w=10, h=7),
    ),
    [range_query(PLAN, "{{meter}}", min_step="1h")],
    unit="ratio",
    empty="The plan has no limits, or Prometheus does not load alerts/recording.rules.yml",
    limit=1,
)

CONCURRENCY = time_series(
    Panel(
        9,
        "Runs at once",
        "The most runs in progress in each hour. A flat top is the number of places that the workers have.",
        GridPos(x=0, y=19, w=8, h=8),
    ),
    [range_query(f"sum({MOST_AT_ONCE})", "most in the hour", min_step="1h")],
    empty="No runs in this range, or Prometheus does not load alerts/recording.rules.yml",
    colours={"most in the hour": BLUE},
)

QUEUE_TIME = time_series(
    Panel(
        10,
        "Time in the queue",
        "How long runs wait for a worker. Grows in the same hours every day: more workers, or other times for the "
        "schedules.",
        GridPos(x=8, y=19, w=8, h=8),
    ),
    [range_query(f"max({QUEUE})", "95 of 100 wait less", min_step="1h")],
    unit="duration",
    empty="No run started in this range, or Prometheus does not load alerts/recording.rules.yml",
    colours={"95 of 100 wait less": PURPLE},
)

BUSIEST = bars_by_hour(
    Panel(
        11,
        "Busiest hours (UTC)",
        "Records that finish in each hour of the day, the mean of the days in this range. Move schedules to the low "
        "hours.",
        GridPos(x=16, y=19, w=8, h=8),
    ),
    # Recorded at the end of each hour, and shown at its beginning.
    range_query(f"sum({HOURS} offset -1h)", min_step="1h"),
    empty="Needs alerts/recording.rules.yml in Prometheus, and an hour of data",
)

DASHBOARD = dashboard(
    UID,
    "Capacity",
    "The trend review: runs and records per day, runs at once and time in the queue, busiest hours, and how long the "
    "plan lasts.",
    [
        RUN_GROWTH,
        RECORD_GROWTH,
        PEAK,
        FULLEST,
        RUNS_PER_DAY,
        RECORDS_PER_DAY,
        METERS,
        PLAN_OVER_TIME,
        CONCURRENCY,
        QUEUE_TIME,
        BUSIEST,
    ],
    variables=[runtime_variable(), project_variable()],
    since="now-30d",
)
