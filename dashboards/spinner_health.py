"""Spinner health: one spinner over weeks, for the people who build it: did the change do good or harm?"""

from dashboards.panels import (
    GridPos,
    Panel,
    dashboard,
    instant_query,
    project_variable,
    range_query,
    runtime_variable,
    spinner_variable,
    stat,
    time_series,
)
from dashboards.queries import PROJECT, REPLICAS, SPINNER, series
from dashboards.style import BLUE, DATASOURCE, GREEN, GREY, ORANGE, RED, thresholds

UID = "spinner-health"

EVERY = "5m"
"""Evaluation interval of the 1h recording rules: 12 times an hour, each over the last hour."""

P50 = series("project_spinner:spinner_run_finished_duration_seconds:p50_1h", PROJECT, SPINNER)
P95 = series("project_spinner:spinner_run_finished_duration_seconds:p95_1h", PROJECT, SPINNER)
RECORD_SECONDS = series("project_spinner:spinner_record_seconds:avg1d", PROJECT, SPINNER)
RATE = series("project_spinner:spinner_records_processed:rate1h", PROJECT, SPINNER)
STATE_RATE = series("project_spinner_state:spinner_records_processed:rate1h", PROJECT, SPINNER)
FAILED_RATE = series("project_spinner_state:spinner_records_processed:rate1h", PROJECT, SPINNER, 'state="failed"')
STEPS = series("project_spinner_step:spinner_run_failures:ratio", PROJECT, SPINNER)
FINISHED = series("project_spinner_status:spinner_runs_finished:increase1h", PROJECT, SPINNER)


def week_on_week(expression: str) -> str:
    """Return the relative change of a mean against the same range one week earlier."""
    mean = f"avg(avg_over_time({expression}[$__range]))"
    return f"{mean} / avg(avg_over_time({expression}[$__range] offset 1w)) - 1"


DURATION_CHANGE = stat(
    Panel(
        1,
        "Duration, week on week",
        "How much longer the median run takes than in the same range one week earlier. Grew after a change: compare "
        "with seconds per record, since larger tables take longer too.",
        GridPos(x=0, y=0, w=6, h=4),
    ),
    instant_query(week_on_week(P50)),
    unit="ratio",
    colours=thresholds(GREEN, (0.2, ORANGE)),
    empty="no runs a week earlier to compare with",
    decimals=1,
)

RECORD_CHANGE = stat(
    Panel(
        2,
        "Record, week on week",
        "The same for one record: what a change of a step, a model or a channel costs, whatever the size of the "
        "tables.",
        GridPos(x=6, y=0, w=6, h=4),
    ),
    instant_query(week_on_week(RECORD_SECONDS)),
    unit="ratio",
    colours=thresholds(GREEN, (0.2, ORANGE)),
    empty="no runs a week earlier to compare with",
    decimals=1,
)

FAILURE_RATIO = stat(
    Panel(
        3,
        "Failed records",
        "The share of all finished records of this range that failed. Below it is divided by step.",
        GridPos(x=12, y=0, w=6, h=4),
    ),
    instant_query(f"sum(avg_over_time({FAILED_RATE}[$__range])) / (sum(avg_over_time({STATE_RATE}[$__range])) > 0)"),
    unit="ratio",
    colours=thresholds(GREEN, (0.05, ORANGE), (0.2, RED)),
    empty="no records finished in this range",
    decimals=1,
)

RUNS = stat(
    Panel(
        4,
        "Runs finished",
        "How many runs of it ended in this range: whether the other numbers stand on enough of them.",
        GridPos(x=18, y=0, w=6, h=4),
    ),
    instant_query(f"round(sum(sum_over_time({FINISHED}[$__range])) / 12)"),
    colours=thresholds(BLUE),
    empty="no runs ended in this range",
)

DURATIONS = time_series(
    Panel(
        5,
        "Duration of runs, against last week",
        "How long its runs take from start to end, and took a week before. Higher with equal seconds per record: the "
        "tables grew.",
        GridPos(x=0, y=4, w=12, h=9),
    ),
    [
        range_query(f"max(quantile_over_time(0.5, {P50}[1h]))", "median", min_step=EVERY),
        range_query(f"max(quantile_over_time(0.5, {P95}[1h]))", "95 of 100 are faster", min_step=EVERY),
        range_query(f"max(quantile_over_time(0.5, {P50}[1h] offset 1w))", "median last week", min_step=EVERY),
    ],
    unit="duration",
    empty="No run ended in this range, or Prometheus does not load alerts/recording.rules.yml",
    colours={"median": BLUE, "95 of 100 are faster": ORANGE, "median last week": GREY},
)

PER_RECORD = time_series(
    Panel(
        6,
        "Seconds per record",
        "Seconds of runs per record that they finished, over the last day: what a record costs, whatever the size of "
        "the table. A step here is a change of the spinner or of a channel.",
        GridPos(x=12, y=4, w=12, h=9),
    ),
    [range_query(RECORD_SECONDS, "{{spinner}}", min_step=EVERY)],
    unit="duration",
    empty="No run ended in this range, or Prometheus does not load alerts/recording.rules.yml",
)

BY_STEP = time_series(
    Panel(
        7,
        "Failed records by step",
        "The share of the records of the runs of the last day that failed at each step. One step that grows is its "
        "provider or its setting.",
        GridPos(x=0, y=13, w=12, h=9),
    ),
    [range_query(f"max by (spinner, step) ({STEPS})", "{{spinner}}: {{step}}")],
    unit="ratio",
    empty="No failed records in this range",
)

THROUGHPUT = time_series(
    Panel(
        8,
        "Records per minute",
        "Records that its runs finish in a minute, over an hour. SpinnerSlowdown opens a ticket when it is under 30 % "
        "of last week's while runs are under way.",
        GridPos(x=12, y=13, w=12, h=9),
    ),
    [range_query(f"sum by (spinner) ({RATE}) * 60", "{{spinner}}", min_step=EVERY)],
    unit="per minute",
    empty="No records finished in this range, or Prometheus does not load alerts/recording.rules.yml",
)

STARTS = {
    "datasource": DATASOURCE,
    "enable": True,
    "hide": False,
    "iconColor": BLUE,
    "name": "Run starts",
    "expr": f"{REPLICAS} ({series('spinner_last_start_timestamp_seconds', PROJECT, SPINNER)}) * 1000",
    "step": "1h",
    "useValueForTime": True,
    "titleFormat": "Run started",
    "textFormat": "{{spinner}} in {{project}}",
    "tagKeys": "spinner",
}

DASHBOARD = dashboard(
    UID,
    "Spinner health",
    "One spinner over weeks: durations, seconds per record and failures, before and after a change. Choose a spinner.",
    [DURATION_CHANGE, RECORD_CHANGE, FAILURE_RATIO, RUNS, DURATIONS, PER_RECORD, BY_STEP, THROUGHPUT],
    variables=[
        runtime_variable(),
        project_variable(),
        spinner_variable(),
    ],
    since="now-14d",
    annotations=[STARTS],
)
