"""Spinner health: one spinner over weeks, for the people who build it: did a change make it better or worse?"""

from dashboards.panels import (
    Column,
    GridPos,
    Panel,
    choosing_a_run,
    dashboard,
    exemplar_query,
    heat_map,
    instant_query,
    product_url_variable,
    project_variable,
    range_query,
    runtime_variable,
    spinner_variable,
    stat,
    table,
    text_variable,
    time_series,
)
from dashboards.queries import BY_RUN, PROJECT, REPLICAS, SPINNER, all_counted, all_fresh, or_zero, series, while_read
from dashboards.style import (
    BLUE,
    DATASOURCE,
    GREEN,
    GREY,
    ORANGE,
    PRODUCT_PAGES,
    PURPLE,
    RED,
    TEXT,
    UNKNOWN_IN_SHORT,
    thresholds,
    value_mapping,
)

UID = "spinner-health"

THIS_SPINNER = (
    f"/d/{UID}?${{datasource:queryparam}}&${{objective:queryparam}}&${{product_url:queryparam}}&${{__url_time_range}}&"
    + "&".join(f"var-{each}=${{__data.fields.{each}:percentencode}}" for each in ("runtime", "project", "spinner"))
)
"""Also its project and runtime: another project can have a spinner of that name, and would be mixed with it."""

SHOWN_BEFORE = 3 * 3600 * 1000
"""Milliseconds before the end of a failed run in which Jobs shows it."""

SEEN_AFTER = 4 * 60 * 1000
"""Milliseconds after its end after which it has been scraped; Prometheus finds what was scraped 5 minutes before."""

# Until shortly after the failure: the run is reported for no longer than the retention, and weeks are too many samples.
JOBS = (
    "/d/spinner-jobs?${datasource:queryparam}&${runtime:queryparam}&${project:queryparam}&${product_url:queryparam}"
    f"&var-spinner=${{__data.fields.spinner:percentencode}}&{choosing_a_run()}"
    "&from=${__data.fields.from.numeric:percentencode}&to=${__data.fields.to.numeric:percentencode}"
)

MOST_FAILED = 100
"""Rows of the table of failed runs, so that one can page through it."""

WORSE = 0.2
"""A relative change from which on a duration is shown in orange."""

MANY_FAILED = 0.05
"""A share of failed records from which on it is shown in orange."""

EVERY = "4m"
"""Evaluation interval of the recording rules over one hour."""

PER_HOUR = 15
"""How often they are evaluated in an hour."""

P50 = series("project_spinner:spinner_run_finished_duration_seconds:p50_1h", PROJECT, SPINNER)
P95 = series("project_spinner:spinner_run_finished_duration_seconds:p95_1h", PROJECT, SPINNER)
RECORD_SECONDS = series("project_spinner:spinner_record_seconds:avg1d", PROJECT, SPINNER)
RATE = series("project_spinner:spinner_records_processed:rate1h", PROJECT, SPINNER)
STATE_RATE = series("project_spinner_state:spinner_records_processed:rate1h", PROJECT, SPINNER)
FAILED_RATE = series("project_spinner_state:spinner_records_processed:rate1h", PROJECT, SPINNER, 'state="failed"')
STEPS = series("project_spinner_step:spinner_run_failures:ratio", PROJECT, SPINNER)
BY_DURATION = series("project_spinner:spinner_run_finished_duration_seconds_bucket:increase1h", PROJECT, SPINNER)
FINISHED = series("project_spinner_status:spinner_runs_finished:increase1h", PROJECT, SPINNER)


FRESH = all_fresh(PROJECT)


def week_on_week(expression: str) -> str:
    """Return the relative change of a mean of the last day against the same day one week earlier.

    Over a longer range the change would hide between the days before it.
    """
    last, before = (f"avg(avg_over_time({expression}[1d]{offset}))" for offset in ("", " offset 1w"))
    return well_only_if_fresh(f"({last} / {before} - 1)", WORSE)


def well_only_if_fresh(expression: str, bad: float, *, known: str = FRESH) -> str:
    """Return a number from `bad` on, and a lower one only with `known`: the rest may be worse."""
    return f"{expression} >= {bad} or {expression} and on () {known}"


DURATION_CHANGE = stat(
    Panel(
        1,
        "Run duration change",
        "Change of the median run duration of the last day, from the same day one week earlier. If it grew, Run "
        "duration shows since when; compare it with the time per record, because larger tables take longer too.",
        GridPos(x=0, y=0, w=6, h=4),
    ),
    instant_query(week_on_week(P50)),
    unit="ratio",
    colours=thresholds(GREY, (-1, GREEN), (WORSE, ORANGE)),
    decimals=1,
)

RECORD_CHANGE = stat(
    Panel(
        2,
        "Record time change",
        "Change of the seconds per record of the last day, from the same day one week earlier. It shows the effect of "
        "a changed step, model or channel, independent of the size of the tables.",
        GridPos(x=6, y=0, w=6, h=4),
    ),
    instant_query(week_on_week(RECORD_SECONDS)),
    unit="ratio",
    colours=thresholds(GREY, (-1, GREEN), (WORSE, ORANGE)),
    decimals=1,
)

FAILURE_RATIO = stat(
    Panel(
        3,
        "Failed records",
        "Percentage of the records that finished in this range and failed. Failed records by step shows where.",
        GridPos(x=12, y=0, w=6, h=4),
    ),
    instant_query(
        well_only_if_fresh(
            f"(sum(avg_over_time({FAILED_RATE}[$__range])) / (sum(avg_over_time({STATE_RATE}[$__range])) > 0))",
            MANY_FAILED,
            known=all_counted(FRESH),
        )
    ),
    unit="ratio",
    colours=thresholds(GREY, (0, GREEN), (MANY_FAILED, ORANGE), (0.2, RED)),
    decimals=1,
)

RUNS = stat(
    Panel(
        4,
        "Runs finished",
        "Number of runs that ended in this range. The fewer they are, the less reliable the other numbers are. Zero is "
        "certain only if the whole range was recorded.",
        GridPos(x=18, y=0, w=6, h=4),
    ),
    instant_query(
        or_zero(
            f"round(sum(sum_over_time({FINISHED}[$__range])) / {PER_HOUR})",
            f"({FRESH} and on () count_over_time(group({FINISHED})[$__range:1h]) >= $__range_s / 3600 - 2)",
        )
    ),
    colours=thresholds(GREY, (0, TEXT)),
)

DURATIONS = time_series(
    Panel(
        5,
        "Run duration",
        "Duration of runs from start to end, and the median one week earlier. If it is higher with the same seconds "
        "per record, the tables grew.",
        GridPos(x=0, y=4, w=12, h=9),
    ),
    [
        range_query(f"max({P50})", "median", min_step=EVERY),
        range_query(f"max({P95})", "95th percentile", min_step=EVERY),
        range_query(f"max({P50} offset 1w)", "median one week earlier", min_step=EVERY),
    ],
    unit="duration to compare",
    empty="? No data in this range, or Prometheus does not load alerts/recording.rules.yml",
    colours={"median": BLUE, "95th percentile": PURPLE, "median one week earlier": GREY},
)

PER_RECORD = time_series(
    Panel(
        6,
        "Seconds per record",
        "Run duration divided by finished records, over the last day, so that it does not depend on the size of the "
        "tables. A sudden change usually comes from a change of the spinner or a channel. One line for each project.",
        GridPos(x=12, y=4, w=12, h=9),
    ),
    [range_query(RECORD_SECONDS, "{{project}}: {{spinner}}", min_step=EVERY)],
    unit="duration",
    many=True,
    empty="? No data in this range, or Prometheus does not load alerts/recording.rules.yml",
)

BY_STEP = time_series(
    Panel(
        7,
        "Failed records by step",
        "Percentage of records that failed at each step, over the runs that the exporter shows: active runs, and runs"
        " that ended within its retention. If one step grows, check its provider and its settings.",
        GridPos(x=0, y=13, w=12, h=9),
    ),
    [range_query(f"max by (spinner, step) ({STEPS})", "{{spinner}}: {{step}}")],
    unit="ratio",
    many=True,
    empty="? No failed record reported in this range",
)

THROUGHPUT = time_series(
    Panel(
        8,
        "Records per minute",
        "Records that finish per minute, averaged over one hour. SpinnerSlowdown opens a ticket when the rate is "
        "below 30% of last week's while runs are under way.",
        GridPos(x=12, y=13, w=12, h=9),
    ),
    [range_query(f"sum by (spinner) ({RATE}) * 60", "{{spinner}}", min_step=EVERY)],
    unit="per minute",
    empty="? No data in this range, or Prometheus does not load alerts/recording.rules.yml",
)

DURATION_MAP = heat_map(
    Panel(
        10,
        "Run durations",
        "How many runs ended with which duration. Two bands are two kinds of runs; a band that moves up is a spinner "
        "that became slower. Between 10 minutes and 6 hours, a bucket begins a third to a half above the one before. A "
        "mark is a run: a click on it shows which, with a link to Jobs.",
        GridPos(x=0, y=22, w=24, h=9),
    ),
    range_query(f"sum by (le) (sum_over_time({BY_DURATION}[$__interval:1h] offset -30m))", "{{le}}", min_step="1h"),
    exemplar_query(series("spinner_run_finished_duration_seconds_bucket", PROJECT, SPINNER)),
    unit="duration",
    empty="? No run ended in this range, or Prometheus does not load alerts/recording.rules.yml",
)

FAILED_AT = series("project_spinner_run:spinner_run_end_timestamp_seconds:failed", PROJECT)
NEWEST_FAILED = f"topk({MOST_FAILED}, {BY_RUN} (last_over_time({FAILED_AT}[1w])))"


def placed(expression: str) -> str:
    """Add the label `place`, the project and the runtime: two lines in each row, so that none is cut off."""
    return f'label_join({expression}, "place", "\\n", "project", "runtime")'


FAILED_RUNS = table(
    Panel(
        11,
        "Failed runs of the week",
        f"Runs of the selected projects that failed within seven days, the newest {MOST_FAILED} at most. Click a run "
        "for Jobs as it was when the run had failed, with its failed records, or for the product's own page.",
        GridPos(x=0, y=44, w=24, h=9),
    ),
    [
        instant_query(
            f'label_join({placed(f"round({NEWEST_FAILED} * 1000)")}, "run", "\\n", "spinner", "run_id")',
        )
    ],
    [
        Column("place", "Project", wrap=True, least_width=140),
        Column(
            "run",
            "Run",
            wrap=True,
            least_width=140,
            links=[
                ("Show this run", JOBS, False),
                ("All records of the run", "${product_url}" + PRODUCT_PAGES["Records"], True),
            ],
        ),
        # Not of a fixed width: if no run failed it is the only column, and the text that says so needs the whole table.
        Column("Value", "Failed at", "time", align="left", least_width=110),
        Column("from", "From", hidden=True),
        Column("to", "To", hidden=True),
        Column("runtime", "Runtime", hidden=True),
        Column("project", "Project of the run", hidden=True),
        Column("spinner", "Spinner", hidden=True),
        Column("run_id", "Run id", hidden=True),
    ],
    empty="? No failed run is known of the last seven days",
    sort=("Value", True),
    shifted=[("Value", -SHOWN_BEFORE, "from"), ("Value", SEEN_AFTER, "to")],
)

NOT_FAILED = 'status!="failed"'
EACH = "runtime, project, spinner"


def ended_in_a_day(*matchers: str) -> str:
    """Return how many runs of each spinner ended within the last day."""
    ended = series("project_spinner_status:spinner_runs_finished:increase1d", PROJECT, *matchers)
    return f"sum by ({EACH}) ({while_read(ended)})"


ENDED = ended_in_a_day()
SUCCESS = f"({ended_in_a_day(NOT_FAILED)} / ({ENDED} > 0))"
PER_RECORD_OF_ALL = series("project_spinner:spinner_record_seconds:avg1d", PROJECT)
MEAN = f"max by ({EACH}) ({while_read(PER_RECORD_OF_ALL)})"
MEAN_BEFORE = f"max by ({EACH}) ({PER_RECORD_OF_ALL} offset 1w)"
# Of a spinner of which no run ended, nothing else is unknown: its cells are empty. This number stands for them.
NO_RUN = -1_000_000
NONE_ENDED = f"{NO_RUN} * group by ({EACH}) ({ENDED} == 0)"
EMPTY_WITHOUT_A_RUN = value_mapping({str(NO_RUN): ("", TEXT)})

SPINNERS = table(
    Panel(
        9,
        "All spinners",
        "The last day of each spinner of the selected projects, those that became slower than a week earlier first. "
        "Slower in a week compares the time per record, which does not depend on the size of the tables. Error budget "
        "is what is left of the failed runs that the objective allows: below 0 the objective is missed. It, Runs ended "
        "and Successful are of the last 24 whole hours. "
        "Click a spinner to choose it with its project; All at the top brings the others back.",
        GridPos(x=0, y=31, w=24, h=13),
    ),
    [
        instant_query(placed(each))
        for each in (
            # Every row has a number: Grafana cannot sort by a column that has none in some rows.
            f"{MEAN} / {MEAN_BEFORE} - 1 or -2 * group by ({EACH}) ({MEAN} or {ENDED} > 0) or {NONE_ENDED}",
            f"{MEAN} or {NONE_ENDED}",
            f"round({ENDED})",
            f"{SUCCESS} or {NONE_ENDED}",
            f"1 - (1 - {SUCCESS}) / (1 - ${{objective}} / 100) or {NONE_ENDED}",
        )
    ],
    [
        Column("place", "Project and runtime", wrap=True, least_width=162),
        Column("spinner", "Spinner", wrap=True, least_width=150, links=[("Choose this spinner", THIS_SPINNER, False)]),
        Column(
            "Value #A",
            "Slower in a week",
            "ratio",
            width=130,
            decimals=0,
            coloured=True,
            align="right",
            steps=thresholds(TEXT, (WORSE, ORANGE)),
            mappings=[value_mapping({"-2": UNKNOWN_IN_SHORT}), EMPTY_WITHOUT_A_RUN],
        ),
        Column(
            "Value #B",
            "Time per record",
            "duration",
            width=122,
            align="right",
            mappings=[EMPTY_WITHOUT_A_RUN],
            empty=UNKNOWN_IN_SHORT,
        ),
        Column("Value #C", "Runs ended", "count", width=92, align="right", empty=UNKNOWN_IN_SHORT),
        Column(
            "Value #D",
            "Successful",
            "ratio",
            width=100,
            decimals=1,
            align="right",
            mappings=[EMPTY_WITHOUT_A_RUN],
            empty=UNKNOWN_IN_SHORT,
        ),
        Column(
            "Value #E",
            "Error budget",
            "ratio",
            width=110,
            decimals=0,
            coloured=True,
            align="right",
            steps=thresholds(RED, (0, TEXT)),
            mappings=[EMPTY_WITHOUT_A_RUN],
            empty=UNKNOWN_IN_SHORT,
        ),
        Column("runtime", "Runtime", hidden=True),
        Column("project", "Project", hidden=True),
    ],
    empty="? unknown: nothing is recorded of the last day, or no project can be read",
    sort=("Value #A", True),
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
    "One spinner over weeks: duration, seconds per record and failures, before and after a change. Select a spinner.",
    [
        DURATION_CHANGE,
        RECORD_CHANGE,
        FAILURE_RATIO,
        RUNS,
        DURATIONS,
        PER_RECORD,
        BY_STEP,
        THROUGHPUT,
        DURATION_MAP,
        SPINNERS,
        FAILED_RUNS,
    ],
    variables=[
        runtime_variable(),
        project_variable(),
        spinner_variable(one=True),
        text_variable("objective", "Objective: successful runs, %", "99"),
        product_url_variable(),
    ],
    since="now-14d",
    annotations=[STARTS],
)
