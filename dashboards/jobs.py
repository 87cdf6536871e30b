"""Jobs, the control tower: is the run moving, how long is it taking, which records failed?

It never refreshes by itself: rows must not jump under somebody's hand. The person presses refresh.
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
    display_status,
    display_status_number,
    equals,
    per_run,
    per_selected_run,
    series,
    with_selected_status,
)
from dashboards.style import (
    ORANGE,
    PRODUCT_PAGES,
    RECORD_STATES,
    TEXT,
    null_mapping,
    status_name_mappings,
    status_number_mappings,
    thresholds,
)
from exporter.status import Status

UID = "spinner-jobs"

CREATED = per_run("spinner_run_created_timestamp_seconds")
ENDED = per_run("spinner_run_end_timestamp_seconds")
CHOSEN_ENDED = per_selected_run("spinner_run_end_timestamp_seconds")

THIS_RUN = (
    f"/d/{UID}?${{datasource:queryparam}}&${{project:queryparam}}&${{spinner:queryparam}}&${{status:queryparam}}"
    "&${product_url:queryparam}&var-run=${__data.fields.run_id}&${__url_time_range}"
)

RUNS = table(
    Panel(
        1,
        "Runs",
        "Every run of the chosen projects and spinners, the newest first; a click on one shows its records on the "
        "right and its way below. A stalled run is silent for longer than its own pace makes plausible: open its "
        "runbook. A completed run with failed records is orange, never green.",
        GridPos(x=0, y=0, w=16, h=21),
    ),
    [
        instant_query(with_selected_status(f"{CREATED} * 1000")),
        instant_query(with_selected_status(per_run("spinner_run_progress_ratio"))),
        instant_query(with_selected_status(display_status())),
        instant_query(with_selected_status(f"{per_run('spinner_run_start_timestamp_seconds')} * 1000")),
        instant_query(with_selected_status(f"{ENDED} * 1000")),
        instant_query(with_selected_status(per_run("spinner_run_duration_seconds"))),
        instant_query(with_selected_status(per_run("spinner_run_failed_records"))),
    ],
    [
        Column("spinner", "Spinner", wrap=True, links=[("Show this run", THIS_RUN, False)]),
        Column("Value #B", "Progress", "ratio", bar=True),
        Column("status", "Status", width=115, filterable=True, colours="text", mappings=status_name_mappings()),
        Column("Value #D", "Started", "time", width=97, mappings=[null_mapping("not yet")]),
        Column("Value #E", "Ended", "time", width=97, mappings=[null_mapping("in progress")]),
        Column("Value #F", "Duration", "duration", width=74, mappings=[null_mapping("none")]),
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
    empty="No runs in this range: has the spinner been started, and does the exporter read its project?",
    sort=("Value #A", True),
    hidden=("Value #A", "Value #C", "runtime", "project"),
)

RECORDS = bar_gauge(
    Panel(
        2,
        "Records by state",
        "The records of the chosen run. Many pending and none running: nobody works on them; see Runtime on Live Ops.",
        GridPos(x=16, y=0, w=8, h=5),
    ),
    instant_query(
        f"sum by (state) (max by (runtime, run_id, state) ({series('spinner_run_records', PROJECT, SPINNER, RUN)}))",
        "{{state}}",
    ),
    empty="The runtime gives no record counts for this run",
    colours=RECORD_STATES,
)

FAILURES = bar_gauge(
    Panel(
        3,
        "Failures by step and error",
        "Where the failed records of the chosen run failed, the most common first. One error at one step is a "
        "provider or a setting; many at many steps is the data.",
        GridPos(x=16, y=5, w=8, h=7),
    ),
    instant_query(
        "topk(6, sum by (step, error_code) (max by (runtime, run_id, step, error_code) "
        f"({series('spinner_run_failures', PROJECT, SPINNER, RUN)})))",
        "{{step}}: {{error_code}}",
    ),
    empty="No failed records in the chosen run",
    colour=ORANGE,
    names_above=True,
)

FAILED_INFO = series("spinner_run_failed_record_info", PROJECT, SPINNER, RUN)
FAILED = f"max by (runtime, run_id, record_id, step, error_code) ({FAILED_INFO})"
FAILED_AT = f'label_join({FAILED}, "failure", ": ", "step", "error_code")'

FAILED_RECORDS = table(
    Panel(
        4,
        "Failed records",
        "The newest failed records, as many as the exporter's limits allow. A click opens the record in the product: "
        "its outcomes, its journey with the timing of each step, or Records for the contacts' view.",
        GridPos(x=16, y=12, w=8, h=9),
    ),
    # Two lines in one column: three columns of such names would not fit beside the runs on a narrow screen.
    [instant_query(f'label_join({FAILED_AT}, "record", "\\n", "record_id", "failure")')],
    [
        Column(
            "record",
            "Record, step and error",
            wrap=True,
            links=[(name, "${product_url}" + page, True) for name, page in PRODUCT_PAGES.items()],
        ),
        Column("record_id", "Record", hidden=True),
        Column("run_id", "Run", hidden=True),
    ],
    empty="No failed records in the chosen run",
    hidden=("Value", "runtime", "step", "error_code", "failure"),
)

FINISHED = series("spinner_run_records", PROJECT, SPINNER, RUN, 'state=~"completed|failed"')

PROGRESS = time_series(
    Panel(
        5,
        "Progress",
        "How far the chosen run was when. A line that turns flat is a run that has stopped getting on; when it is a "
        "stall depends on the run's own pace.",
        GridPos(x=0, y=21, w=9, h=9),
    ),
    [range_query(f"{per_selected_run('spinner_run_progress_ratio')} unless {CHOSEN_ENDED}", "{{spinner}} {{run_id}}")],
    unit="ratio",
    empty="No run with a known total chosen in this range",
    axis_max=1,
)

PACE = time_series(
    Panel(
        6,
        "Pace",
        "Records that the chosen run finishes in a minute, completed or failed. Falls towards the end of a run, when "
        "fewer are left than are worked on at once.",
        GridPos(x=9, y=21, w=9, h=9),
    ),
    [
        range_query(
            "sum by (runtime, spinner, run_id) "
            f"(max by (runtime, spinner, run_id, state) (deriv({FINISHED}[$__rate_interval]))) * 60 "
            f"unless on (runtime, run_id) {CHOSEN_ENDED}",
            "{{spinner}} {{run_id}}",
        )
    ],
    unit="per minute",
    empty="No run with record counts chosen in this range",
)

UNDER_WAY = per_selected_run("spinner_run_status", equals("status", "running"))

EXPECTED_END = stat(
    Panel(
        7,
        "Expected end",
        "When the chosen run is through if it goes on as it has gone so far; the last of them when several are "
        "chosen. Far later than people need it: see what takes so long under Spinner health.",
        GridPos(x=18, y=21, w=6, h=3),
    ),
    instant_query(
        "max((time() + "
        f"{per_selected_run('spinner_run_duration_seconds')} "
        f"* (1 / {per_selected_run('spinner_run_progress_ratio')} - 1)"
        f" and on (runtime, run_id) {UNDER_WAY}) < Inf) * 1000"
    ),
    unit="time",
    empty="not running",
)

SILENT = stat(
    Panel(
        8,
        "Silent for",
        "Time since a record of the chosen run last finished. Beside it: the silence after which it counts as stalled.",
        GridPos(x=18, y=24, w=6, h=3),
    ),
    instant_query(
        f"max(time() - {per_selected_run('spinner_run_last_progress_timestamp_seconds')} "
        f"and on (runtime, run_id) {UNDER_WAY})"
    ),
    unit="duration",
    empty="none",
)

STALLED_AFTER = stat(
    Panel(
        9,
        "Stalled after",
        "The silence after which the chosen run counts as stalled, learnt from its own pace. Too short or too long "
        "for a spinner: set stalls.floor or stalls.ceiling for it in the exporter's config.",
        GridPos(x=18, y=27, w=6, h=3),
    ),
    instant_query(f"min({per_selected_run('spinner_run_stall_threshold_seconds')})"),
    unit="duration",
    empty="none",
    colours=thresholds(TEXT),
)

STATUS = state_timeline(
    Panel(
        10,
        "Status",
        "What the chosen run was when: queued for long means no free worker, waiting means a person, stalled means "
        "silent for longer than its pace makes plausible.",
        GridPos(x=0, y=30, w=24, h=9),
    ),
    range_query(
        display_status_number(RUN, statuses=tuple(status.value for status in Status)),
        "{{spinner}} {{run_id}}",
    ),
    mappings=status_number_mappings(),
    empty="No runs in this range",
    rows_per_page=10,
)

VARIABLES = [
    runtime_variable(),
    project_variable(),
    spinner_variable(),
    custom_variable("status", "Status", [status.value for status in Status]),
    # All of them would be thousands: "All" means those under way, then the newest, twelve in all.
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
    "Is the run moving, how long is it taking, which records failed? Choose a run with a click; press refresh for "
    "news.",
    [RUNS, RECORDS, FAILURES, FAILED_RECORDS, PROGRESS, PACE, EXPECTED_END, SILENT, STALLED_AFTER, STATUS],
    variables=VARIABLES,
    since="now-3h",
)
