"""Jobs: is a run making progress, how long does it take, which records failed?

The dashboard does not refresh by itself, so that rows do not move while you read them.
"""

from dashboards.panels import (
    Column,
    GridPos,
    Panel,
    bar_gauge,
    custom_variable,
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
from dashboards.queries import (
    PROJECT,
    RUN,
    SPINNER,
    all_fresh,
    display_status,
    display_status_number,
    equals,
    no_failed_records,
    per_run,
    per_selected_run,
    series,
    while_read,
    with_selected_status,
)
from dashboards.runtimes import HEIGHT, runtimes
from dashboards.style import (
    GREEN,
    GREY,
    ORANGE,
    PRODUCT_PAGES,
    RECORD_STATES,
    TEXT,
    UNKNOWN,
    status_name_mappings,
    status_number_mappings,
    thresholds,
    value_mapping,
)
from exporter.status import Status

UID = "spinner-jobs"

CREATED = per_run("spinner_run_created_timestamp_seconds")
ENDED = per_run("spinner_run_end_timestamp_seconds")
SELECTED_ENDED = per_selected_run("spinner_run_end_timestamp_seconds")

THIS_RUN = (
    f"/d/{UID}?${{datasource:queryparam}}&${{project:queryparam}}&${{spinner:queryparam}}&${{status:queryparam}}"
    "&${product_url:queryparam}&var-run=${__data.fields.run_id:percentencode}&${__url_time_range}"
)

RUNTIMES = runtimes(11)

NO_RUNS = (
    f'label_replace({all_fresh(PROJECT)} unless on () ({with_selected_status(CREATED)}), "status", "none", "", "")'
)

RUNS = table(
    Panel(
        1,
        "Runs",
        "All runs of the selected projects and spinners, newest first. Click a run to see its records on the right "
        "and its history below. If a run is stalled, follow the runbook of SpinnerRunStalled. A completed run with "
        "failed records is orange, not green.",
        GridPos(x=0, y=HEIGHT, w=16, h=21),
    ),
    [
        instant_query(with_selected_status(f"{CREATED} * 1000")),
        instant_query(with_selected_status(per_run("spinner_run_progress_ratio"))),
        instant_query(f"{with_selected_status(display_status())} or {NO_RUNS}"),
        instant_query(with_selected_status(f"{per_run('spinner_run_start_timestamp_seconds')} * 1000")),
        instant_query(with_selected_status(f"{ENDED} * 1000")),
        instant_query(with_selected_status(per_run("spinner_run_duration_seconds"))),
        instant_query(with_selected_status(per_run("spinner_run_failed_records"))),
    ],
    [
        Column("spinner", "Spinner", wrap=True, links=[("Show this run", THIS_RUN, False)]),
        Column("Value #B", "Progress", "ratio", bar=True),
        Column(
            "status",
            "Status",
            width=115,
            filterable=True,
            colours="text",
            mappings=[*status_name_mappings(), value_mapping({"none": ("no runs", TEXT)})],
        ),
        Column("Value #D", "Started", "time", width=97, empty=("not started", TEXT)),
        Column("Value #E", "Ended", "time", width=97, empty=("in progress", TEXT)),
        Column("Value #F", "Duration", "duration", width=84, empty=("none", TEXT)),
        Column(
            "Value #G",
            "Failed",
            width=54,
            unit="count",
            colours="text",
            steps=thresholds(TEXT, (1, ORANGE)),
            align="right",
        ),
        Column("run_id", "Run", hidden=True),
    ],
    empty="? unknown: no run is reported. See the table at the top. Runs that ended leave after the retention.",
    sort=("Value #A", True),
    hidden=("Value #A", "Value #C", "Value", "runtime", "project"),
)

RECORDS = bar_gauge(
    Panel(
        2,
        "Records by state",
        "Records of the selected run. If many are pending and none is running, no worker processes them: see the "
        "worker service at the top.",
        GridPos(x=16, y=HEIGHT, w=8, h=5),
    ),
    instant_query(
        f"sum by (state) (max by (runtime, run_id, state) ({series('spinner_run_records', PROJECT, SPINNER, RUN)}))",
        "{{state}}",
    ),
    empty=UNKNOWN[0],
    colours=RECORD_STATES,
)

SELECTED = per_selected_run("spinner_run_status")
NONE_FAILED = no_failed_records(f"group({SELECTED})", RUN)

FAILURES = bar_gauge(
    Panel(
        3,
        "Failures by step and error",
        "Failed records of the selected run by step and error code, most frequent first. One error at one step "
        "usually has its cause in a provider or a setting; many errors at many steps usually have it in the data.",
        GridPos(x=16, y=HEIGHT + 5, w=8, h=7),
    ),
    instant_query(
        "topk(6, sum by (step, error_code) (max by (runtime, run_id, step, error_code) "
        f"({series('spinner_run_failures', PROJECT, SPINNER, RUN)}))) "
        f"or 0 * {NONE_FAILED}",
        "{{step}}: {{error_code}}",
    ),
    empty=UNKNOWN[0],
    colour=ORANGE,
    none="✔ none",
    names_above=True,
)

FAILED_INFO = series("spinner_run_failed_record_info", PROJECT, SPINNER, RUN)
FAILED = f"max by (runtime, run_id, record_id, step, error_code) ({FAILED_INFO})"
FAILED_AT = f'label_join({FAILED}, "failure", ": ", "step", "error_code")'

FAILED_RECORDS = table(
    Panel(
        4,
        "Failed records",
        "The newest failed records, up to the exporter's limits. Each links to the product: the record's outcomes, "
        "its journey with the duration of each step, and all records of the run.",
        GridPos(x=16, y=HEIGHT + 12, w=8, h=9),
    ),
    # Two lines in one column, because three columns would not fit next to the runs on a narrow screen.
    [
        instant_query(
            f'label_join({FAILED_AT}, "record", "\\n", "record_id", "failure") or '
            f'label_replace({NONE_FAILED}, "none", "none", "", "")'
        )
    ],
    [
        # A column of its own, because the other column links to a record.
        Column("none", "Record, step and error", colours="text", mappings=[value_mapping({"none": ("✔ none", GREEN)})]),
        Column(
            "record",
            "Record, step and error",
            wrap=True,
            links=[(name, "${product_url}" + page, True) for name, page in PRODUCT_PAGES.items()],
        ),
        Column("record_id", "Record", hidden=True),
        Column("run_id", "Run", hidden=True),
    ],
    empty=UNKNOWN[0],
    hidden=("Value", "runtime", "step", "error_code", "failure"),
)

FINISHED = series("spinner_run_records", PROJECT, SPINNER, RUN, 'state=~"completed|failed"')

PROGRESS = time_series(
    Panel(
        5,
        "Progress",
        "Progress of the selected run over time. While the line is flat, no record finishes; whether that is a stall "
        "depends on the run's stall threshold.",
        GridPos(x=0, y=HEIGHT + 21, w=9, h=9),
    ),
    [
        range_query(
            f"{while_read(per_selected_run('spinner_run_progress_ratio'))} unless {SELECTED_ENDED}",
            "{{spinner}} {{run_id}}",
        )
    ],
    unit="ratio",
    empty="? No progress reported in this range",
    axis_max=1,
)

RECORDS_PER_MINUTE = time_series(
    Panel(
        6,
        "Records per minute",
        "Records of the selected run that complete or fail per minute. The rate drops near the end of a run, when "
        "fewer records are left than are processed concurrently.",
        GridPos(x=9, y=HEIGHT + 21, w=9, h=9),
    ),
    [
        range_query(
            "sum by (runtime, spinner, run_id) "
            f"(max by (runtime, spinner, run_id, state) ({while_read(f'deriv({FINISHED}[$__rate_interval])')})) * 60 "
            f"unless on (runtime, run_id) {SELECTED_ENDED}",
            "{{spinner}} {{run_id}}",
        )
    ],
    unit="per minute",
    empty="? No record counts reported in this range",
)

RUNNING = per_selected_run("spinner_run_status", equals("status", "running"))

# -1 stands for selected runs that are known and not running.
IDLE = f"-1 * (group({SELECTED}) unless on () {RUNNING})"
NOT_RUNNING = value_mapping({"-1": ("not running", TEXT)})

EXPECTED_END = stat(
    Panel(
        7,
        "Expected end",
        "When the selected run ends if it continues at its average rate; with several runs selected, the latest end. "
        "If that is too late, look for the cause on Spinner health.",
        GridPos(x=18, y=HEIGHT + 21, w=6, h=3),
    ),
    instant_query(
        "max((time() + "
        f"{per_selected_run('spinner_run_duration_seconds')} "
        f"* (1 / {while_read(per_selected_run('spinner_run_progress_ratio'))} - 1)"
        f" and on (runtime, run_id) {RUNNING}) < Inf) * 1000 or {IDLE}"
    ),
    unit="time",
    colours=thresholds(GREY, (-1, TEXT)),
    mappings=[NOT_RUNNING],
)

SINCE_PROGRESS = stat(
    Panel(
        8,
        "Time since progress",
        "Time since a record of the selected run last finished. The run is stalled when this exceeds the stall "
        "threshold.",
        GridPos(x=18, y=HEIGHT + 24, w=6, h=3),
    ),
    instant_query(
        f"max(time() - {while_read(per_selected_run('spinner_run_last_progress_timestamp_seconds'))} "
        f"and on (runtime, run_id) {RUNNING}) or {IDLE}"
    ),
    unit="duration",
    colours=thresholds(GREY, (-1, TEXT)),
    mappings=[NOT_RUNNING],
)

STALL_THRESHOLD = stat(
    Panel(
        9,
        "Stall threshold",
        "Time without progress after which the selected run is stalled. The exporter learns it from the run's pace; "
        "spinner_run_stall_threshold_info says what it depends on. "
        "To change it for a spinner, set stall_floor or stall_ceiling in the exporter's config.",
        GridPos(x=18, y=HEIGHT + 27, w=6, h=3),
    ),
    instant_query(f"min({per_selected_run('spinner_run_stall_threshold_seconds')}) or {IDLE}"),
    unit="duration",
    colours=thresholds(GREY, (-1, TEXT)),
    mappings=[NOT_RUNNING],
)

STATUS = state_timeline(
    Panel(
        10,
        "Status",
        "Status of the selected run over time. Queued for long: no worker is free. Waiting: a person has to respond. "
        "Stalled: no progress for longer than the stall threshold.",
        GridPos(x=0, y=HEIGHT + 30, w=24, h=9),
    ),
    range_query(
        display_status_number(RUN, statuses=tuple(status.value for status in Status)),
        "{{spinner}} {{run_id}}",
    ),
    mappings=status_number_mappings(),
    empty="? No run reported in this range",
    rows_per_page=10,
)

VARIABLES = [
    runtime_variable(),
    project_variable(),
    spinner_variable(),
    custom_variable("status", "Status", [status.value for status in Status]),
    # There can be thousands of runs, so "All" means twelve: first the active ones, then the newest.
    query_variable(
        "run",
        "Run",
        f"query_result(topk(12, max by (run_id) (({CREATED} unless {ENDED}) + 1e10 or {CREATED})))",
        regex='/run_id="([^"]+)"/',
        newest_first=True,
    ),
    product_url_variable(),
]

DASHBOARD = dashboard(
    UID,
    "Jobs",
    "Is a run making progress, how long does it take, which records failed? Click a run to select it; press refresh to "
    "update.",
    [
        RUNTIMES,
        RUNS,
        RECORDS,
        FAILURES,
        FAILED_RECORDS,
        PROGRESS,
        RECORDS_PER_MINUTE,
        EXPECTED_END,
        SINCE_PROGRESS,
        STALL_THRESHOLD,
        STATUS,
    ],
    variables=VARIABLES,
    since="now-3h",
)
