"""Jobs, the control tower: is the run moving, how long is it taking, which records failed?

It never refreshes by itself: rows must not jump under somebody's hand. The person presses refresh.
"""

from dashboards.panels import (
    Column,
    bar_gauge,
    choice,
    chooser,
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
from dashboards.queries import (
    PROJECT,
    RUN,
    SPINNER,
    eq,
    of_chosen_run,
    of_runs,
    series,
    shown_status,
    shown_status_number,
    with_status,
)
from dashboards.style import (
    ORANGE,
    PRODUCT_PAGES,
    RECORD_STATES,
    TEXT,
    nothing_mapping,
    status_numbers,
    status_words,
    thresholds,
)
from exporter.status import Status

UID = "spinner-jobs"

CREATED = of_runs("spinner_run_created_timestamp_seconds")
ENDED = of_runs("spinner_run_end_timestamp_seconds")
CHOSEN_ENDED = of_chosen_run("spinner_run_end_timestamp_seconds")

THIS_RUN = (
    f"/d/{UID}?${{datasource:queryparam}}&${{project:queryparam}}&${{spinner:queryparam}}&${{status:queryparam}}"
    "&${product_url:queryparam}&var-run=${__data.fields.run_id}&${__url_time_range}"
)

RUNS = table(
    1,
    "Runs",
    [
        now(with_status(f"{CREATED} * 1000")),
        now(with_status(of_runs("spinner_run_progress_ratio"))),
        now(with_status(shown_status())),
        now(with_status(f"{of_runs('spinner_run_start_timestamp_seconds')} * 1000")),
        now(with_status(f"{ENDED} * 1000")),
        now(with_status(of_runs("spinner_run_duration_seconds"))),
        now(with_status(of_runs("spinner_run_failed_records"))),
    ],
    [
        Column("spinner", "Spinner", wrap=True, links=[("Show this run", THIS_RUN, False)]),
        Column("Value #B", "Progress", "ratio", bar=True),
        Column("status", "Status", width=115, filterable=True, colours="text", mappings=status_words()),
        Column("Value #D", "Started", "time", width=97, mappings=[nothing_mapping("not yet")]),
        Column("Value #E", "Ended", "time", width=97, mappings=[nothing_mapping("in progress")]),
        Column("Value #F", "Duration", "duration", width=74, mappings=[nothing_mapping("none")]),
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
    (0, 0, 16, 21),
    "Every run of the chosen projects and spinners, the newest first; a click on one shows its records on the right "
    "and its way below. A stalled run is silent for longer than its own pace makes plausible: open its runbook. A "
    "completed run with failed records is orange, never green.",
    empty="No runs in this range: has the spinner been started, and does the exporter read its project?",
    sort=("Value #A", True),
    hidden=("Value #A", "Value #C", "runtime", "project"),
)

RECORDS = bar_gauge(
    2,
    "Records by state",
    now(
        f"sum by (state) (max by (runtime, run_id, state) ({series('spinner_run_records', PROJECT, SPINNER, RUN)}))",
        "{{state}}",
    ),
    (16, 0, 8, 5),
    "The records of the chosen run. Many pending and none running: nobody works on them; see Runtime on Live Ops.",
    empty="The runtime gives no record counts for this run",
    colours=RECORD_STATES,
)

FAILURES = bar_gauge(
    3,
    "Failures by step and error",
    now(
        "topk(6, sum by (step, error_code) (max by (runtime, run_id, step, error_code) "
        f"({series('spinner_run_failures', PROJECT, SPINNER, RUN)})))",
        "{{step}}: {{error_code}}",
    ),
    (16, 5, 8, 7),
    "Where the failed records of the chosen run failed, the most common first. One error at one step is a provider or"
    " a setting; many at many steps is the data.",
    empty="No failed records in the chosen run",
    colour=ORANGE,
    names_above=True,
)

FAILED_INFO = series("spinner_run_failed_record_info", PROJECT, SPINNER, RUN)
FAILED = f"max by (runtime, run_id, record_id, step, error_code) ({FAILED_INFO})"
FAILED_AT = f'label_join({FAILED}, "failure", ": ", "step", "error_code")'

FAILED_RECORDS = table(
    4,
    "Failed records",
    # Two lines in one column: three columns of such names would not fit beside the runs on a narrow screen.
    [now(f'label_join({FAILED_AT}, "record", "\\n", "record_id", "failure")')],
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
    (16, 12, 8, 9),
    "The newest failed records, as many as the exporter's limits allow. A click opens the record in the product: its "
    "outcomes, its journey with the timing of each step, or Records for the contacts' view.",
    empty="No failed records in the chosen run",
    hidden=("Value", "runtime", "step", "error_code", "failure"),
)

FINISHED = series("spinner_run_records", PROJECT, SPINNER, RUN, 'state=~"completed|failed"')

PROGRESS = time_series(
    5,
    "Progress",
    [over_time(f"{of_chosen_run('spinner_run_progress_ratio')} unless {CHOSEN_ENDED}", "{{spinner}} {{run_id}}")],
    (0, 21, 9, 9),
    "How far the chosen run was when. A line that turns flat is a run that has stopped getting on; when it is a stall"
    " depends on the run's own pace.",
    unit="ratio",
    empty="No run with a known total chosen in this range",
    most=1,
)

PACE = time_series(
    6,
    "Pace",
    [
        over_time(
            "sum by (runtime, spinner, run_id) "
            f"(max by (runtime, spinner, run_id, state) (deriv({FINISHED}[$__rate_interval]))) * 60 "
            f"unless on (runtime, run_id) {CHOSEN_ENDED}",
            "{{spinner}} {{run_id}}",
        )
    ],
    (9, 21, 9, 9),
    "Records that the chosen run finishes in a minute, completed or failed. Falls towards the end of a run, when "
    "fewer are left than are worked on at once.",
    unit="per minute",
    empty="No run with record counts chosen in this range",
)

UNDER_WAY = of_chosen_run("spinner_run_status", eq("status", "running"))

EXPECTED_END = stat(
    7,
    "Expected end",
    now(
        "max((time() + "
        f"{of_chosen_run('spinner_run_duration_seconds')} * (1 / {of_chosen_run('spinner_run_progress_ratio')} - 1)"
        f" and on (runtime, run_id) {UNDER_WAY}) < Inf) * 1000"
    ),
    (18, 21, 6, 3),
    "When the chosen run is through if it goes on as it has gone so far; the last of them when several are chosen. "
    "Far later than people need it: see what takes so long under Spinner health.",
    unit="time",
    empty="not running",
)

SILENT = stat(
    8,
    "Silent for",
    now(
        f"max(time() - {of_chosen_run('spinner_run_last_progress_timestamp_seconds')} "
        f"and on (runtime, run_id) {UNDER_WAY})"
    ),
    (18, 24, 6, 3),
    "Time since a record of the chosen run last finished. Beside it: the silence after which it counts as stalled.",
    unit="duration",
    empty="none",
)

STALLED_AFTER = stat(
    9,
    "Stalled after",
    now(f"min({of_chosen_run('spinner_run_stall_threshold_seconds')})"),
    (18, 27, 6, 3),
    "The silence after which the chosen run counts as stalled, learnt from its own pace. Too short or too long for a "
    "spinner: set stalls.floor or stalls.ceiling for it in the exporter's config.",
    unit="duration",
    empty="none",
    colours=thresholds(TEXT),
)

STATUS = timeline(
    10,
    "Status",
    over_time(
        shown_status_number(RUN, statuses=tuple(status.value for status in Status)),
        "{{spinner}} {{run_id}}",
    ),
    (0, 30, 24, 9),
    "What the chosen run was when: queued for long means no free worker, waiting means a person, stalled means silent"
    " for longer than its pace makes plausible.",
    mappings=status_numbers(),
    empty="No runs in this range",
    rows=10,
)

VARIABLES = [
    runtime_chooser(),
    project_chooser(),
    spinner_chooser(),
    choice("status", "Status", [status.value for status in Status]),
    # All of them would be thousands: "All" means those under way, then the newest, twelve in all.
    chooser(
        "run",
        "Run",
        f"query_result(topk(12, max by (run_id) (({CREATED} unless {ENDED}) + 1e10 or {CREATED})))",
        regex='/run_id="([^"]+)"/',
        newest_first=True,
    ),
    product_url(),
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
