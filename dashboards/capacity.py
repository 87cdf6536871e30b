"""Capacity, the trend review: how much runs, when, and how long the plan lasts. It reads recording rules alone."""

from dashboards.panels import (
    Column,
    bars_by_hour,
    dashboard,
    now,
    over_time,
    project_chooser,
    runtime_chooser,
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
    nothing_mapping,
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
    """Return by which part a daily number grew from the 30 days before to the last 30."""
    month = f"sum(sum_over_time({expression}[30d:1d]))"
    before = f"sum(sum_over_time({expression}[30d:1d] offset 30d))"
    return f"{month} / ({before} > 0) - 1"


RUN_GROWTH = stat(
    1,
    "Growth of runs",
    now(growth(STARTED)),
    (0, 0, 6, 4),
    "Runs that started in the last 30 days, against the 30 days before. Grows faster than the plan: talk about the "
    "plan now.",
    unit="ratio",
    colours=thresholds(BLUE),
    empty="needs 60 days of data",
    decimals=1,
)

RECORD_GROWTH = stat(
    2,
    "Growth of records",
    now(growth(RECORDS)),
    (6, 0, 6, 4),
    "Records that finished in the last 30 days against the 30 days before: the work itself, whatever the number of "
    "runs.",
    unit="ratio",
    colours=thresholds(BLUE),
    empty="needs 60 days of data",
    decimals=1,
)

PEAK = stat(
    3,
    "Most runs at once",
    over_time(f"sum({MOST_AT_ONCE})", minimum="1h"),
    (12, 0, 6, 4),
    "The most runs in progress at any time of this range. Near the number of workers' places: runs queue.",
    colours=thresholds(BLUE),
    empty="no runs in this range",
    calculation="max",
)

FULLEST = stat(
    4,
    "Fullest plan meter",
    now(f"max({PLAN})"),
    (18, 0, 6, 4),
    "How full the fullest meter of the plan is. At 100 % the runtime refuses new runs (PLAN_LIMIT).",
    unit="ratio",
    colours=thresholds(GREEN, (0.8, ORANGE), (1, RED)),
    empty="the plan has no limits",
    decimals=0,
)

RUNS_PER_DAY = time_series(
    5,
    "Runs per day",
    [over_time(f"sum by (status) ({FINISHED})", "{{status}}", minimum="1d")],
    (0, 4, 12, 8),
    "Runs that ended in the 24 hours before each bar, by how. A higher failed part than last month: see Spinner "
    "health.",
    empty=DAYS,
    colours={"completed": GREEN, "failed": RED, "cancelled": GREY, "unknown": ORANGE},
    stacked=True,
    bars=True,
)

RECORDS_PER_DAY = time_series(
    6,
    "Records per day",
    [over_time(f"sum by (state) ({RECORDS})", "{{state}}", minimum="1d")],
    (12, 4, 12, 8),
    "Records that finished in the 24 hours before each bar, by how: what the plan's records meter counts.",
    empty=DAYS,
    colours={"completed": GREEN, "failed": RED},
    stacked=True,
    bars=True,
)

METERS = table(
    7,
    "Plan",
    [
        now(USED),
        now(LIMIT),
        now(f"{USED} / {LIMIT}"),
        now(f"{RESET} * 1000"),
        now(f"({USED} + {GROWTH} * clamp_min({RESET} - time(), 0)) / {LIMIT}"),
    ],
    [
        Column("runtime", "Runtime"),
        Column("meter", "Meter"),
        Column("Value #A", "Used", "count", width=75, align="right"),
        Column("Value #B", "Limit", "count", width=75, align="right", mappings=[nothing_mapping("unlimited")]),
        Column("Value #C", "Full", "ratio", width=95, bar=True),
        Column("Value #D", "Begins anew", "time", width=97, mappings=[nothing_mapping("never")]),
        Column(
            "Value #E",
            "Forecast",
            "ratio",
            width=82,
            colours="text",
            align="right",
            mappings=[nothing_mapping("none")],
            steps=thresholds(TEXT, (0.8, ORANGE), (1, RED)),
        ),
    ],
    (0, 12, 14, 7),
    "How full each meter of the plan is, and the forecast: how full it will be when it begins anew, at the pace of "
    "the last day. Over 100 %: new runs will be refused before that; SpinnerPlanLimitSoon opens a ticket.",
    empty="The runtime shows no plan meters",
    sort=("Value #C", True),
    page=False,
)

PLAN_OVER_TIME = time_series(
    8,
    "Plan use",
    [over_time(PLAN, "{{meter}}", minimum="1h")],
    (14, 12, 10, 7),
    "How full each meter was. The dashed line is where new runs are refused.",
    unit="ratio",
    empty="The plan has no limits, or Prometheus does not load alerts/recording.rules.yml",
    limit=1,
)

CONCURRENCY = time_series(
    9,
    "Runs at once",
    [over_time(f"sum({MOST_AT_ONCE})", "most in the hour", minimum="1h")],
    (0, 19, 8, 8),
    "The most runs in progress in each hour. A flat top is the number of places that the workers have.",
    empty="No runs in this range, or Prometheus does not load alerts/recording.rules.yml",
    colours={"most in the hour": BLUE},
)

QUEUE_TIME = time_series(
    10,
    "Time in the queue",
    [over_time(f"max({QUEUE})", "95 of 100 wait less", minimum="1h")],
    (8, 19, 8, 8),
    "How long runs wait for a worker. Grows in the same hours every day: more workers, or other times for the "
    "schedules.",
    unit="duration",
    empty="No run started in this range, or Prometheus does not load alerts/recording.rules.yml",
    colours={"95 of 100 wait less": PURPLE},
)

BUSIEST = bars_by_hour(
    11,
    "Busiest hours (UTC)",
    # Recorded at the end of each hour, and shown at its beginning.
    over_time(f"sum({HOURS} offset -1h)", minimum="1h"),
    (16, 19, 8, 8),
    "Records that finish in each hour of the day, the mean of the days in this range. Move schedules to the low hours.",
    unit="count",
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
    variables=[runtime_chooser(), project_chooser()],
    since="now-30d",
)
