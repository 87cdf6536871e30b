"""Capacity: how much runs, when, and how long the plan lasts. Its graphs read recording rules only."""

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
from dashboards.queries import PROJECT, REPLICAS, RUNTIME, highest_hour, lost_runtimes, series
from dashboards.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    TEXT,
    UNKNOWN,
    thresholds,
    value_mapping,
)

UID = "spinner-capacity"

DAYS = "? No data yet: needs alerts/recording.rules.yml in Prometheus and one day of data"

ALL_PROJECTS = "^$"
"""The pattern of All: it matches what is recorded over all projects, so that not each of them has to be read."""


DAY_BEFORE = " offset -1d"
"""A day is recorded at its end, and shown at its beginning: Saturday's runs stand at Saturday."""


def recorded(level: str, metric: str, offset: str = "") -> str:
    """Return a recorded metric of the selected projects, or of all of them together."""
    of_project, of_all = (f"{series(f'{each}{level}:{metric}', PROJECT)}{offset}" for each in ("project", "runtime"))
    return f"({of_project} or {of_all})"


FINISHED_FROM = recorded("_status", "spinner_runs_finished:increase1d", DAY_BEFORE)
STARTED = recorded("", "spinner_runs_started:increase1d")
RECORDS = recorded("_state", "spinner_records_processed:increase1d")
RECORDS_FROM = recorded("_state", "spinner_records_processed:increase1d", DAY_BEFORE)
# The recording rule has the value at the end of each hour; the chart shows it at the beginning.
HOURS = recorded("", "spinner_records_processed:increase1h", " offset -1h")
CONCURRENT = f"sum({recorded('', 'spinner_runs_running:max1h')})"
QUEUE = f"max({recorded('', 'spinner_run_queue_seconds:p95_1h')})"
PLAN_HOUR = series("meter:spinner_plan_used:max1h", RUNTIME)
USED = f"{REPLICAS} ({series('spinner_plan_used', RUNTIME)})"
ANY_LIMIT = f"{REPLICAS} ({series('spinner_plan_limit', RUNTIME)})"
LIMIT = f"({ANY_LIMIT} < Inf)"
NO_LIMIT = f"clamp_max({ANY_LIMIT} == Inf, -1)"
UNLIMITED = value_mapping({"-1": ("unlimited", TEXT)})
GROWTH = series("meter:spinner_plan_used:growth", RUNTIME)
RESET = f"{REPLICAS} ({series('spinner_plan_reset_timestamp_seconds', RUNTIME)})"
# Runtimes that had a plan within the last day, of which nothing is known now.
PLAN_UNKNOWN = (
    f"(group by (runtime) (last_over_time({series('spinner_plan_used', RUNTIME)}[1d]) "
    f"and on (runtime) ({lost_runtimes()} or {series('spinner_api_up', RUNTIME)})) "
    f"unless on (runtime) {series('spinner_plan_used', RUNTIME)})"
)
API_DOWN = f"(max by (runtime) ({series('spinner_api_up', RUNTIME)}) == 0)"
NEARLY_FULL = 0.8
REFUSING = 'meter!="spinners"'
"""The meters that refuse new runs when they are full. All spinners of a plan can be published for ever."""
REFUSING_PLAN = series("meter:spinner_plan_used:ratio", RUNTIME, REFUSING)


def growth(expression: str) -> str:
    """Return the relative growth of a daily number: the last 30 days compared with the 30 days before.

    Nothing is known if a day of either is missing: with fewer days, the same load would be growth.
    """
    month, before = (f"avg_over_time(sum({expression})[30d:1d]{offset})" for offset in ("", " offset 30d"))
    whole = " and on () ".join(
        f"count_over_time(sum({expression})[30d:1d]{offset}) >= 29" for offset in ("", " offset 30d")
    )
    return f"{month} / ({before} > 0) - 1 and on () ({whole})"


RUN_GROWTH = stat(
    Panel(
        1,
        "Growth of runs",
        "Runs started in the last 30 days, compared with the 30 days before. If they grow faster than the plan's "
        "limits, you need a larger plan. Needs 60 days of data.",
        GridPos(x=0, y=0, w=6, h=4),
    ),
    instant_query(growth(STARTED)),
    unit="ratio",
    colours=thresholds(GREY, (-1, TEXT)),
    decimals=1,
)

RECORD_GROWTH = stat(
    Panel(
        2,
        "Growth of records",
        "Records finished in the last 30 days, compared with the 30 days before. This is the amount of work, "
        "independent of the number of runs. Needs 60 days of data.",
        GridPos(x=6, y=0, w=6, h=4),
    ),
    instant_query(growth(RECORDS)),
    unit="ratio",
    colours=thresholds(GREY, (-1, TEXT)),
    decimals=1,
)

PEAK = stat(
    Panel(
        3,
        "Peak concurrent runs",
        "Highest number of runs in progress at the same time in this range; for several projects, the highest sum of "
        "their hourly maxima. Near the capacity of the workers, runs have to queue.",
        GridPos(x=12, y=0, w=6, h=4),
    ),
    range_query(highest_hour(CONCURRENT), min_step="1h"),
    colours=thresholds(GREY, (0, TEXT)),
    calculation="max",
)

HIGHEST_USAGE = stat(
    Panel(
        4,
        "Highest plan usage",
        "Usage of the plan meter that is closest to its limit; not of the meter spinners, as all of them can be "
        "published. At 100% the runtime refuses new runs (PLAN_LIMIT).",
        GridPos(x=18, y=0, w=6, h=4),
    ),
    instant_query(
        f"max({REFUSING_PLAN}) >= {NEARLY_FULL} or max({REFUSING_PLAN}) "
        f"unless on () {PLAN_UNKNOWN} unless on () {API_DOWN}",
    ),
    unit="ratio",
    colours=thresholds(GREY, (0, GREEN), (NEARLY_FULL, ORANGE), (1, RED)),
    decimals=0,
)

RUNS_PER_DAY = time_series(
    Panel(
        5,
        "Runs per day",
        "Runs that ended in the 24 hours from each bar on, by status; the last whole day is yesterday. If more of them "
        "fail than a month ago, see Spinner health.",
        GridPos(x=0, y=4, w=12, h=8),
    ),
    [range_query(f"sum by (status) ({FINISHED_FROM})", "{{status}}", min_step="1d")],
    empty=DAYS,
    colours={"completed": GREEN, "failed": RED, "cancelled": GREY, "unknown": ORANGE},
    stacked=True,
    bars=True,
)

RECORDS_PER_DAY = time_series(
    Panel(
        6,
        "Records per day",
        "Records that finished in the 24 hours from each bar on, by state. The plan's records meter counts these.",
        GridPos(x=12, y=4, w=12, h=8),
    ),
    [range_query(f"sum by (state) ({RECORDS_FROM})", "{{state}}", min_step="1d")],
    empty=DAYS,
    colours={"completed": GREEN, "failed": RED},
    stacked=True,
    bars=True,
)

METERS = table(
    Panel(
        7,
        "Plan",
        "Current usage of each plan meter, and a forecast of its usage at the next reset, at the rate of the last "
        "day, or of the last week if that is lower; unknown within the first day. Above 100%, new runs will be refused "
        "before the reset; SpinnerPlanLimitSoon opens a ticket.",
        GridPos(x=0, y=12, w=24, h=10),
    ),
    [
        instant_query(f'label_join({each}, "name", "\\n", "meter", "runtime")')
        for each in (
            f'{USED} or label_replace({PLAN_UNKNOWN} * NaN, "meter", "{UNKNOWN[0]}", "", "")',
            f"{LIMIT} or {NO_LIMIT}",
            f"{USED} / {LIMIT}",
            f"{RESET} * 1000 or clamp_max({USED} unless {RESET}, -1)",
            f"({USED} + {GROWTH} * clamp_min({RESET} - time(), 0)) / {LIMIT} "
            f"or {NO_LIMIT} or clamp_max({USED} unless {RESET}, -2)",
            # The order: what is unknown may be full. Every row has a number, or Grafana could not sort by it.
            f'{USED} / {LIMIT} or label_replace({PLAN_UNKNOWN}, "meter", "{UNKNOWN[0]}", "", "") or {USED} * 0 - 1',
        )
    ],
    [
        Column("name", "Meter and runtime", wrap=True, least_width=160),
        Column("Value #C", "Usage", "ratio", width=95, bar=True, empty=("", TEXT)),
        Column(
            "Value #E",
            "Forecast",
            "ratio",
            width=88,
            decimals=0,
            coloured=True,
            align="right",
            mappings=[UNLIMITED, value_mapping({"-2": ("no reset", TEXT)})],
            steps=thresholds(TEXT, (NEARLY_FULL, ORANGE), (1, RED)),
        ),
        Column("Value #A", "Used", "count", width=88, align="right"),
        Column("Value #B", "Limit", "count", width=88, align="right", mappings=[UNLIMITED]),
        Column("Value #D", "Resets", "time", width=102, mappings=[value_mapping({"-1": ("never", TEXT)})]),
    ],
    empty="? unknown: no plan meter is reported",
    sort=("Value #F", True),
    hidden=("job", "meter", "runtime", "Value #F"),
)

PLAN_OVER_TIME = time_series(
    Panel(
        8,
        "Plan usage",
        "Highest usage of each plan meter in each step of the graph. At the dashed line the runtime refuses new runs; "
        "at that of the meter spinners, all of them are published.",
        GridPos(x=0, y=22, w=12, h=9),
    ),
    [range_query(highest_hour(PLAN_HOUR), "{{meter}} {{runtime}}", min_step="1h")],
    unit="ratio",
    empty="? No data in this range, or Prometheus does not load alerts/recording.rules.yml",
    limit=1,
    many=True,
)

CONCURRENCY = time_series(
    Panel(
        9,
        "Concurrent runs",
        "Highest number of runs in progress at the same time, in each step of the graph; for several projects, the "
        "highest sum of their hourly maxima. A flat top usually means that all workers were busy.",
        GridPos(x=12, y=22, w=12, h=9),
    ),
    [range_query(highest_hour(CONCURRENT), "hourly maximum", min_step="1h")],
    empty="? No data in this range, or Prometheus does not load alerts/recording.rules.yml",
    colours={"hourly maximum": BLUE},
)

QUEUE_TIME = time_series(
    Panel(
        10,
        "Queue time",
        "How long runs wait for a worker: the 95th percentile of the worst hour in each step of the graph. If it grows "
        "at the same hours every day, add workers or move schedules to other hours.",
        GridPos(x=0, y=31, w=12, h=8),
    ),
    [range_query(highest_hour(QUEUE), "95th percentile", min_step="1h")],
    unit="duration to compare",
    empty="? No data in this range, or Prometheus does not load alerts/recording.rules.yml",
    colours={"95th percentile": PURPLE},
)

BUSIEST = bars_by_hour(
    Panel(
        11,
        "Busiest hours (UTC)",
        "Records that finish in each hour of the day, averaged over the days in this range. Move schedules to hours "
        "with few records.",
        GridPos(x=12, y=31, w=12, h=8),
    ),
    range_query(f"sum({HOURS})", min_step="1h"),
    empty="? No data yet: needs alerts/recording.rules.yml in Prometheus and one hour of data",
)

DASHBOARD = dashboard(
    UID,
    "Capacity",
    "Trends: runs and records per day, concurrent runs, queue time, busiest hours, and how long the plan lasts.",
    [
        RUN_GROWTH,
        RECORD_GROWTH,
        PEAK,
        HIGHEST_USAGE,
        RUNS_PER_DAY,
        RECORDS_PER_DAY,
        METERS,
        PLAN_OVER_TIME,
        CONCURRENCY,
        QUEUE_TIME,
        BUSIEST,
    ],
    variables=[runtime_variable(), project_variable(all_value=ALL_PROJECTS)],
    since="now-30d",
)
