"""Jobs: is a run making progress, how long does it take, which records failed?

The dashboard does not refresh by itself, so that rows do not move while you read them.
"""

from dashboards.panels import (
    RUN_ON_A_TIMELINE,
    Column,
    GridPos,
    Panel,
    bar_gauge,
    choosing_a_run,
    custom_variable,
    dashboard,
    instant_query,
    product_url_variable,
    project_variable,
    query_variable,
    range_query,
    run_variables,
    runtime_variable,
    spinner_variable,
    stat,
    state_timeline,
    table,
    time_series,
)
from dashboards.queries import (
    LISTED,
    ON_RUN,
    PROJECT,
    REPLICAS,
    RUN,
    RUN_ID,
    RUN_LABELS,
    RUN_PLACE,
    SPINNER,
    all_counted,
    all_fresh,
    by_need,
    display_status,
    display_status_number,
    equals,
    listed_by_need,
    named_bars,
    no_failed_records,
    outages,
    per_run,
    per_selected_run,
    progress_known,
    recorded_by_need,
    recorded_stalls,
    series,
    stall_threshold,
    while_read,
)
from dashboards.runtimes import HEIGHT, runtimes
from dashboards.style import (
    GREEN,
    GREY,
    MAGENTA,
    ORANGE,
    PRODUCT_PAGES,
    RECORD_STATES,
    STATUSES,
    TEXT,
    UNKNOWN_IN_SHORT,
    status_name_mappings,
    status_number_mappings,
    thresholds,
    value_mapping,
)
from exporter.status import Status

UID = "spinner-jobs"

MOST_LISTED = 200
"""Rows of the table of runs, so that it stays quick and one can page through it."""

SELECTED_ENDED = per_selected_run("spinner_run_end_timestamp_seconds")

SELECTION = (
    f"/d/{UID}?${{datasource:queryparam}}&${{runtime:queryparam}}&${{project:queryparam}}&${{spinner:queryparam}}"
    "&${product_url:queryparam}&${__url_time_range}"
)
THIS_RUN = f"{SELECTION}&${{status:queryparam}}&{choosing_a_run()}"
PARENT = f"{SELECTION}&${{status:queryparam}}&{choosing_a_run('parent_run_id')}"
CHOSEN_BEFORE = "&".join(f"${{{variable.name}:queryparam}}" for variable in run_variables())

RUNTIMES = runtimes(11)


def listed(name: str, *matchers: str) -> str:
    """Return a metric of the runs in the table of runs."""
    return per_run(name, LISTED, *matchers)


STATUS_OF_LISTED = listed("spinner_run_status")
RUNNING_LISTED = listed("spinner_run_status", equals("status", "running"))
SILENCE = (
    f"((time() - {while_read(listed('spinner_run_last_progress_timestamp_seconds'))}) / {stall_threshold(LISTED)})"
)
AGE = f"(0.99 - 0.99 / (1 + clamp_min(time() - {listed('spinner_run_created_timestamp_seconds')}, 0) / 3600))"
NO_RUNS = f'label_replace({all_fresh(PROJECT)} unless on () ({STATUS_OF_LISTED}), "status", "none", "", "")'

ROWS = by_need(SILENCE, AGE, LISTED)


def place_if_several() -> str:
    """Return the listed runs with the label `place`: the project, and the runtime, as far as there are several."""
    projects = series("spinner_project_up", PROJECT)
    both = f'label_join({STATUS_OF_LISTED}, "place", "\\n", "project", "runtime")'
    project = f'label_replace({STATUS_OF_LISTED}, "place", "$1", "project", "(.*)")'
    return (
        f"{both} and on () (count(group by (runtime) ({projects})) > 1) or {ON_RUN} "
        f"{project} and on () (count(group by (runtime, project) ({projects})) > 1)"
    )


def as_text(label: str, expression: str) -> str:
    """Return an expression whose values have become the texts of a label."""
    return f'count_values by ({RUN_LABELS}) ("{label}", {expression})'


def records_text() -> str:
    """Return the listed runs with the label `records`: how many are finished of how many."""
    states = series("spinner_run_records", PROJECT, SPINNER, LISTED, 'state=~"completed|failed"')
    completed = listed("spinner_run_records", equals("state", "completed"))
    finished = f"sum by ({RUN_LABELS}) (max by ({RUN_LABELS}, state) ({states})) and {ON_RUN} {completed}"
    finished, total = as_text("finished", finished), as_text("total", listed("spinner_run_total_records"))
    both = f'label_join({finished} * {ON_RUN} group_left (total) {total}, "records", " / ", "finished", "total")'
    return f'max by ({RUN_LABELS}, records) ({both} or {ON_RUN} label_join({finished}, "records", "", "finished"))'


def named(expression: str) -> str:
    """Add the label `run`: the spinner, with a mark if the run is chosen, and the id, shortened if it is long."""
    whole = f'label_replace({expression}, "short", "$1", "run_id", "(.*)")'
    short = f'label_replace({whole}, "short", "$1…$2", "run_id", "(.{{8}}).{{5,}}(.{{6}})")'
    place = f'label_join({short}, "place_of_run", "\\n", "runtime", "project", "run_id")'
    runtime, project = RUN_PLACE
    marked = f'label_replace({place}, "mark", "➤ ", "place_of_run", `{runtime}\\n{project}\\n${{run:regex}}`)'
    return f'label_join(label_join({marked}, "name", "", "mark", "spinner"), "run", "\\n", "name", "short")'


EXPECTED_END_OF_LISTED = (
    f"((time() + {listed('spinner_run_duration_seconds')} "
    f"* (1 / {while_read(listed('spinner_run_progress_ratio'))} - 1) and {ON_RUN} {RUNNING_LISTED}) < Inf "
    f"unless {ON_RUN} {recorded_stalls(LISTED)} unless on (runtime) {outages()})"
)

# -1 stands for runs that should not make progress.
NO_SILENCE = f"-1 * ({STATUS_OF_LISTED} unless {ON_RUN} {RUNNING_LISTED})"

INFO = series("spinner_run_info", PROJECT, SPINNER, LISTED)
# The id of the parent would not fit; the link has it.
ORIGIN = (
    f"max by ({RUN_LABELS}, origin, parent_run_id) (label_replace("
    f'label_join({INFO}, "origin", " ↗", "trigger", "parent_run_id"), "origin", "$1$2", "origin", "(.* ↗).+|(.*) ↗")) '
    f"and on () (count(group by (trigger) ({INFO})) > 1)"
)


def with_status(*statuses: str) -> str:
    """Return the number of runs with each of these statuses, in their order."""
    return " or ".join(
        f"(sum by (status) ({REPLICAS} ({series('spinner_runs', PROJECT, SPINNER, equals('status', status))})) > 0)"
        for status in statuses
    )


def or_none(counts: str, known: str) -> str:
    """Return numbers of runs, or 0 with the status `none` if there are none and `known` has a sample."""
    return f'{counts} or label_replace(0 * ({known} unless on () ({counts})), "status", "none", "", "")'


STATUS_LINK = f"{SELECTION}&var-status=${{__field.labels.status:percentencode}}&{CHOSEN_BEFORE}"

NEEDING = ("stalled", "failed", "failures", "overdue", "unknown")
NEED_A_PERSON = " or ".join(f"count by (status) ({recorded_by_need(status)})" for status in NEEDING)
IN_NEED = stat(
    Panel(
        17,
        "Runs that need a person",
        "Runs of the selected projects and spinners that are stalled, failed, completed with failed records, or "
        "overdue, or have a status without a mapping. Stalled and overdue runs are counted as running too, and runs of "
        "which some records failed as completed. Recomputed every minute. None is certain only while the worker "
        "service is up and everything is read. Click a number to list these runs.",
        GridPos(x=0, y=HEIGHT, w=12, h=3),
    ),
    instant_query(
        or_none(
            NEED_A_PERSON,
            f"({all_counted(all_fresh(PROJECT))} unless on () {outages()} and on () {progress_known()})",
        ),
        "{{status}}",
    ),
    colours=thresholds(GREY, (0, TEXT)),
    names={
        "none": ("✔ none", GREEN),
        **{status: STATUSES[status] for status in NEEDING},
    },
    links=[("Show these runs", STATUS_LINK)],
)

OTHERS = ("running", "waiting", "queued", "completed", "cancelled")
COUNTS = stat(
    Panel(
        12,
        "Runs by status",
        "Runs of the selected projects and spinners that have not ended, or ended within the retention; the failed "
        "ones are on the left. Runs of which some records failed are completed too, so their number is not green. "
        "Click a number to list these runs.",
        GridPos(x=12, y=HEIGHT, w=12, h=3),
    ),
    instant_query(
        or_none(with_status(*OTHERS), all_fresh(PROJECT)),
        "{{status}}",
    ),
    colours=thresholds(GREY, (0, TEXT)),
    names={
        "none": ("none", TEXT),
        **{status: STATUSES[status] for status in OTHERS},
        "completed": (STATUSES["completed"][0], TEXT),
    },
    links=[("Show these runs", STATUS_LINK)],
)

RUNS = table(
    Panel(
        1,
        "Runs",
        f"Runs that need a person come first: stalled, failed, some records failed, overdue; then running, the most "
        f"silent first, waiting, queued, and ended. The first {MOST_LISTED}; the numbers above count all. Click a run "
        "to choose it. A completed run with failed records is orange, not green. Silence is the time without progress, "
        "as a percentage of the stall threshold; while the worker service is down it says nothing of a run. The end of "
        "a running run is the expected one.",
        GridPos(x=0, y=HEIGHT + 3, w=24, h=14),
    ),
    [
        instant_query(f"{named(ROWS)} or {NO_RUNS}"),
        instant_query(listed("spinner_run_progress_ratio")),
        instant_query(records_text()),
        instant_query(f"{SILENCE} unless on (runtime) {outages()} or {NO_SILENCE}"),
        instant_query(f"{listed('spinner_run_start_timestamp_seconds')} * 1000"),
        instant_query(f"({listed('spinner_run_end_timestamp_seconds')} or {EXPECTED_END_OF_LISTED}) * 1000"),
        instant_query(listed("spinner_run_duration_seconds")),
        instant_query(listed("spinner_run_failed_records")),
        instant_query(ORIGIN),
        instant_query(place_if_several()),
    ],
    [
        # The first columns say what needs a person: a phone shows no more of them without scrolling.
        Column("place", "Project", least_width=124, wrap=True),
        Column("run", "Run", least_width=146, wrap=True, links=[("Choose this run", THIS_RUN, False)]),
        Column(
            "status",
            "Status",
            width=112,
            filterable=True,
            coloured=True,
            mappings=[*status_name_mappings(), value_mapping({"none": ("no runs", TEXT)})],
        ),
        Column(
            "Value #D",
            "Silence",
            "ratio",
            width=61,
            decimals=0,
            coloured=True,
            align="right",
            mappings=[value_mapping({"-1": ("", TEXT)})],
            steps=thresholds(TEXT, (0.75, ORANGE), (1, MAGENTA)),
            empty=UNKNOWN_IN_SHORT,
        ),
        Column("Value #B", "Progress", "ratio", width=70, decimals=0, align="right", empty=UNKNOWN_IN_SHORT),
        # Not wrapped: Grafana would derive the height of a row from this narrow column, and ignore the lines of others.
        Column("records", "Records", width=106, align="right", empty=UNKNOWN_IN_SHORT),
        Column(
            "Value #H",
            "Failed",
            width=56,
            unit="count",
            coloured=True,
            steps=thresholds(TEXT, (1, ORANGE)),
            align="right",
            empty=UNKNOWN_IN_SHORT,
        ),
        Column("Value #G", "Duration", "duration to compare", width=76, wrap=True, empty=("none", TEXT)),
        Column("Value #E", "Started", "time", width=62, wrap=True, empty=("not yet", TEXT)),
        Column("Value #F", "End", "time", width=58, wrap=True, empty=("not yet", TEXT)),
        Column(
            "origin",
            "Trigger",
            width=72,
            wrap=True,
            empty=UNKNOWN_IN_SHORT,
            links=[("Choose the parent run", PARENT, False)],
        ),
        Column("runtime", "Runtime", hidden=True),
        Column("project", "Project of the run", hidden=True),
        Column("run_id", "Run id", hidden=True),
        Column("parent_run_id", "Parent", hidden=True),
    ],
    empty="? unknown: no run is reported. See the table at the top. Runs that ended leave after the retention.",
    sort=("Value #A", True),
    hidden=(
        "Value #A",
        "Value #C",
        "Value #I",
        "Value #J",
        "Value",
        "spinner",
        "mark",
        "name",
        "short",
        "place_of_run",
    ),
)

TOP = HEIGHT + 19
CHOOSE = "? no run chosen, or unknown"

SELECTED = per_selected_run("spinner_run_status")


def of_one(expression: str) -> str:
    """Return what belongs to the chosen run; nothing while several have its id, and none of them was clicked."""
    return f"({expression}) and on () (count({SELECTED}) == 1)"


# The source label does not exist, so its value is empty: the replacement is made if no run is chosen.
MISSING = (
    f'label_replace(label_replace({all_fresh(PROJECT)}, "missing", "gone", "", ""), '
    '"missing", "none", "no_such_label", `${run:regex}`)'
)
# While the chosen run is not reported, what else has its id: somebody who writes an id can mean one of these.
NOT_CHOSEN = (
    f'label_replace({per_run("spinner_run_status", RUN_ID)} unless on () {SELECTED}, "missing", "other", "", "")'
)


def in_two_lines(expression: str) -> str:
    """Add the labels `run` and `place`, of two lines each, so that they have room on a narrow screen."""
    run = f'label_join({expression}, "run", "\\n", "spinner", "run_id")'
    return f'label_join({run}, "place", "\\n", "project", "runtime")'


def named_records(info: str) -> str:
    """Return how many records of the chosen runs a metric names."""
    each = f"max by ({RUN_LABELS}, record_id) ({series(info, PROJECT, SPINNER, RUN)})"
    return f"count by ({RUN_LABELS}) ({each})"


NAMED_FAILURES = named_records("spinner_run_failed_record_info")
OF_ALL_FAILURES = (
    f"max by ({RUN_LABELS}, failures) (label_join({as_text('named', NAMED_FAILURES)} * {ON_RUN} "
    f"group_left (failed) {as_text('failed', per_selected_run('spinner_run_failed_records'))}, "
    '"failures", " newest of ", "named", "failed"))'
)

# Of two replicas that decide differently, one row is enough.
WHY = while_read(
    f"topk by ({RUN_LABELS}) (1, max by ({RUN_LABELS}, reason) "
    f"({series('spinner_run_stall_threshold_info', PROJECT, SPINNER, RUN)}))"
)

CHOSEN = table(
    Panel(
        13,
        "Chosen run",
        "The run that the panels below are about: click a run above, or write its id into Run at the top; if runs of "
        "several projects have that id, click one here. A run that ended longer than the retention ago is no longer "
        "reported: see the product's own page of it. Gaps are the times between two finished records; its stall "
        "threshold depends on them.",
        GridPos(x=0, y=TOP - 2, w=24, h=6),
    ),
    [
        instant_query(
            f"{in_two_lines(f'({display_status(RUN)} or {NOT_CHOSEN})')} or ({MISSING} unless on () {SELECTED})"
        ),
        instant_query(OF_ALL_FAILURES),
        instant_query(WHY),
        instant_query(while_read(per_selected_run("spinner_run_progress_interval_seconds"))),
        instant_query(while_read(per_selected_run("spinner_run_longest_progress_interval_seconds"))),
    ],
    [
        Column("run", "Run", width=176, wrap=True, links=[("Choose this run", THIS_RUN, False)]),
        Column("status", "Status", width=112, coloured=True, mappings=status_name_mappings()),
        # A column of its own for longer texts: Grafana makes no room for a second line of a mapped text.
        Column(
            "missing",
            "Status",
            coloured=True,
            mappings=[
                value_mapping(
                    {
                        "none": ("none: click a run above", TEXT),
                        "other": ("not chosen: click it to choose it", TEXT),
                        "gone": ("▲ not reported: past its retention, or another id", ORANGE),
                    }
                ),
            ],
        ),
        Column("reason", "Why its threshold", least_width=158, wrap=True, empty=("", TEXT)),
        Column("Value #D", "Usual gap", "duration in words", width=92, wrap=True, empty=("", TEXT)),
        Column("Value #E", "Longest gap", "duration in words", width=100, wrap=True, empty=("", TEXT)),
        Column(
            "failures",
            "Failures named",
            width=122,
            empty=("", TEXT),
            links=[("All records of the run", "${product_url}" + PRODUCT_PAGES["Records"], True)],
        ),
        Column("place", "Project and runtime", width=150, wrap=True),
        Column("runtime", "Runtime", hidden=True),
        Column("project", "Project", hidden=True),
        Column("run_id", "Run id", hidden=True),
    ],
    empty="? unknown: not all projects could be read. See the table at the top.",
    hidden=("Value #A", "Value #B", "Value #C", "spinner"),
    paginated=False,
)

RECORDS = bar_gauge(
    Panel(
        2,
        "Records by state",
        "Records of the chosen run. If many are pending and none is running, no worker processes them: see the "
        "worker service at the top.",
        GridPos(x=0, y=TOP + 4, w=6, h=9),
    ),
    instant_query(
        of_one(
            f"sum by (state) (max by ({RUN_LABELS}, state) ({series('spinner_run_records', PROJECT, SPINNER, RUN)}))"
        ),
        "{{state}}",
    ),
    empty=CHOOSE,
    colours=RECORD_STATES,
)

NONE_FAILED = no_failed_records(f"group({SELECTED})", RUN)

FAILURES = bar_gauge(
    Panel(
        3,
        "Failures by step and error",
        "Failed records of the chosen run by step and error code, most frequent first. One error at one step "
        "usually has its cause in a provider or a setting; many errors at many steps usually have it in the data.",
        GridPos(x=6, y=TOP + 4, w=8, h=9),
    ),
    instant_query(
        of_one(
            named_bars(
                f"topk(6, sum by (step, error_code) (max by ({RUN_LABELS}, step, error_code) "
                f"({series('spinner_run_failures', PROJECT, SPINNER, RUN)})))",
                ("step", "error_code"),
                none=NONE_FAILED,
                of_what="failed records",
            )
        ),
        "{{name}}",
    ),
    empty=CHOOSE,
    colour=ORANGE,
    none="✔ none",
    names_above=True,
)

FAILED_INFO = series("spinner_run_failed_record_info", PROJECT, SPINNER, RUN)
FAILED = f"max by ({RUN_LABELS}, record_id, step, error_code) ({FAILED_INFO})"
FAILED_AT = f'label_join({FAILED}, "failure", ": ", "step", "error_code")'

FAILED_RECORDS = table(
    Panel(
        4,
        "Failed records",
        "The newest failed records, up to the exporter's limits. Each links to the product: the record's outcomes, "
        "its journey with the duration of each step, and all records of the run.",
        GridPos(x=14, y=TOP + 4, w=10, h=9),
    ),
    # Two lines in one column, because three columns would not fit next to the runs on a narrow screen.
    [
        instant_query(
            of_one(
                f'label_join({FAILED_AT}, "record", "\\n", "record_id", "failure") or '
                f'label_replace({NONE_FAILED}, "none", "none", "", "")'
            )
        )
    ],
    [
        # A column of its own, because the other column links to a record.
        Column("none", "Record, step and error", coloured=True, mappings=[value_mapping({"none": ("✔ none", GREEN)})]),
        Column(
            "record",
            "Record, step and error",
            least_width=170,
            wrap=True,
            links=[(name, "${product_url}" + page, True) for name, page in PRODUCT_PAGES.items()],
        ),
        Column("record_id", "Record", hidden=True),
        Column("run_id", "Run", hidden=True),
    ],
    empty=CHOOSE,
    hidden=("Value", "runtime", "project", "spinner", "step", "error_code", "failure"),
)

FINISHED = series("spinner_run_records", PROJECT, SPINNER, RUN, 'state=~"completed|failed"')

PROGRESS = time_series(
    Panel(
        5,
        "Progress",
        "Progress of the chosen run over time. While the line is flat, no record finishes; whether that is a stall "
        "depends on the run's stall threshold.",
        GridPos(x=0, y=TOP + 13, w=9, h=9),
    ),
    [
        range_query(
            f"{while_read(per_selected_run('spinner_run_progress_ratio'))} unless {SELECTED_ENDED}",
            "{{spinner}} {{run_id}}",
            min_step="1m",
        )
    ],
    unit="ratio",
    empty="? no run chosen, or no progress reported in this range",
    axis_max=1,
)

RECORDS_PER_MINUTE = time_series(
    Panel(
        6,
        "Records per minute",
        "Records of the chosen run that complete or fail per minute. The rate drops near the end of a run, when "
        "fewer records are left than are processed concurrently.",
        GridPos(x=9, y=TOP + 13, w=9, h=9),
    ),
    [
        range_query(
            f"sum by ({RUN_LABELS}) "
            f"(max by ({RUN_LABELS}, state) ({while_read(f'deriv({FINISHED}[$__rate_interval])')})) * 60 "
            f"unless {ON_RUN} {SELECTED_ENDED}",
            "{{spinner}} {{run_id}}",
            min_step="1m",
        )
    ],
    unit="per minute",
    empty="? no run chosen, or no record counts reported in this range",
)

RUNNING = per_selected_run("spinner_run_status", equals("status", "running"))

# -1 stands for chosen runs that are known and not running.
IDLE = f"-1 * (group({SELECTED}) unless on () {RUNNING})"
NOT_RUNNING = value_mapping({"-1": ("not running", TEXT)})
STALLED = recorded_stalls(RUN)

EXPECTED_END = stat(
    Panel(
        7,
        "Expected end",
        "When the chosen run ends if it continues at its average rate; unknown while it is stalled or the "
        "worker service is down. If that is too late, look for the cause on Spinner health.",
        GridPos(x=18, y=TOP + 13, w=6, h=3),
    ),
    instant_query(
        of_one(
            "max((time() + "
            f"{per_selected_run('spinner_run_duration_seconds')} "
            f"* (1 / {while_read(per_selected_run('spinner_run_progress_ratio'))} - 1)"
            f" and {ON_RUN} {RUNNING}) < Inf unless {ON_RUN} {STALLED} unless on (runtime) {outages()}) * 1000 "
            f"or -2 * group({STALLED}) or -3 * group({RUNNING} and on (runtime) {outages()}) or {IDLE}"
        )
    ),
    unit="time",
    colours=thresholds(GREY, (-1, TEXT)),
    mappings=[
        NOT_RUNNING,
        value_mapping({"-2": ("? unknown: stalled", GREY), "-3": ("? unknown: worker down", GREY)}),
    ],
    empty=CHOOSE,
)

SINCE_PROGRESS = stat(
    Panel(
        8,
        "Time since progress",
        "Time since a record of the chosen run last finished. The run is stalled when this exceeds the stall "
        "threshold.",
        GridPos(x=18, y=TOP + 16, w=6, h=3),
    ),
    instant_query(
        of_one(
            f"max(time() - {while_read(per_selected_run('spinner_run_last_progress_timestamp_seconds'))} "
            f"and {ON_RUN} {RUNNING}) or {IDLE}"
        )
    ),
    unit="duration to compare",
    colours=thresholds(GREY, (-1, TEXT)),
    mappings=[NOT_RUNNING],
    empty=CHOOSE,
)

STALL_THRESHOLD = stat(
    Panel(
        9,
        "Stall threshold",
        "Time without progress after which the chosen run is stalled. The exporter learns it from the run's pace; "
        "Chosen run says why in words. "
        "Its last records have a longer one unless a run of the project is queued or the run is past its due time. "
        "To change it for a spinner, set stall_floor or stall_ceiling in the exporter's config.",
        GridPos(x=18, y=TOP + 19, w=6, h=3),
    ),
    instant_query(of_one(f"min({stall_threshold(RUN)}) or {IDLE}")),
    unit="duration to compare",
    colours=thresholds(GREY, (-1, TEXT)),
    mappings=[NOT_RUNNING],
    empty=CHOOSE,
)

STATUS = state_timeline(
    Panel(
        10,
        "Status",
        "Status of the chosen run over time. Queued for long: no worker is free. Waiting: a person has to respond. "
        "Stalled: no progress for longer than the stall threshold.",
        GridPos(x=0, y=TOP + 22, w=24, h=5),
    ),
    [
        range_query(
            display_status_number(RUN, statuses=tuple(status.value for status in Status)),
            RUN_ON_A_TIMELINE,
            min_step="1m",
        )
    ],
    mappings=status_number_mappings(),
    empty="? no run chosen, or no run reported in this range",
    rows_per_page=10,
)


def _of_records(name: str) -> str:
    found = series(name, PROJECT, SPINNER, RUN)
    each = f"max by (runtime, project, run_id, record_id, step, step_number) ({found})"
    at = f'label_join({each}, "at", ": ", "step_number", "step")'
    return while_read(f'label_replace({at}, "at", "$1", "at", ": (.*)")')


def _in_flight(name: str) -> str:
    return _of_records(f"spinner_run_record_in_flight_{name}")


def _waiting(name: str) -> str:
    return _of_records(f"spinner_run_waiting_record_{name}")


IN_FLIGHT = while_read(per_selected_run("spinner_run_records_in_flight"))
NONE_NAMED = (
    f'label_replace(group({IN_FLIGHT} == 0), "none", "zero", "", "") or '
    f"label_replace(group({while_read(SELECTED)}) unless on () ({IN_FLIGHT} or {_in_flight('attempts')}), "
    '"none", "unread", "", "")'
)

RECORD = Column(
    "record_id",
    "Record",
    width=169,
    wrap=True,
    links=[(name, "${product_url}" + page, True) for name, page in PRODUCT_PAGES.items()],
)

STEP = Column("at", "Step", least_width=100, wrap=True)
AT_STEP_FOR = Column(
    "Value #A",
    "For",
    "duration in words",
    width=92,
    decimals=0,
    empty=("", TEXT),
    mappings=[value_mapping({"-1": ("", TEXT)})],
)
ATTEMPTS = Column("Value #B", "Attempts", width=76, empty=("", TEXT))


def _time_at_step(since: str, known: str) -> str:
    """Return the seconds since `since`, and -1 for a `known` record of which nobody says since when."""
    return f"time() - {since} or -1 * group without () ({known})"


RECORDS_IN_FLIGHT = table(
    Panel(
        14,
        "Records in flight",
        "What the chosen run works on while it is silent: the records that began first, up to the exporter's limits. "
        "They are read from half of its stall threshold on, if the runtime lists them and its worker service is up. "
        "Many attempts at one step usually have their cause in its provider.",
        GridPos(x=0, y=TOP + 27, w=24, h=8),
    ),
    [
        instant_query(of_one(_time_at_step(_in_flight("step_start_timestamp_seconds"), _in_flight("attempts")))),
        instant_query(of_one(_in_flight("attempts"))),
        instant_query(of_one(NONE_NAMED)),
    ],
    [
        Column(
            "none",
            "State",
            coloured=True,
            width=335,  # Grafana makes no room for a second line of a mapped text.
            mappings=[
                value_mapping(
                    {
                        "zero": ("▲ no record is in progress", ORANGE),
                        "unread": ("not read: not silent, not listed, or worker down", TEXT),
                    }
                )
            ],
            empty=("in progress", TEXT),
        ),
        RECORD,
        STEP,
        AT_STEP_FOR,
        ATTEMPTS,
        Column("run_id", "Run", hidden=True),
    ],
    empty=CHOOSE,
    sort=("Value #A", True),
    hidden=("runtime", "project", "step", "step_number", "Value #C"),
)

WAIT = while_read(per_selected_run("spinner_run_records", equals("state", "waiting")))
WAITS = f"({WAIT} > 0 or {while_read(per_selected_run('spinner_run_status', equals('status', 'waiting')))})"
NAMED_WAITING = named_records("spinner_run_waiting_record_info")
NAMED_OF_WAITING = (
    f"{_waiting('info')} * on (runtime, project, run_id) group_left (named) "
    f"label_join({as_text('count', NAMED_WAITING)} * {ON_RUN} "
    f'group_left (waiting) {as_text("waiting", WAIT)}, "named", " of ", "count", "waiting")'
)
NO_NAMES = (
    f'label_replace(group({WAIT} == 0), "none", "zero", "", "") or '
    f'label_replace(group({WAITS}) unless on () ({_waiting("info")}), "none", "unread", "", "") or '
    f'label_replace(group({while_read(SELECTED)}) unless on () ({WAIT} or {WAITS}), "none", "untold", "", "")'
)

WAITING_RECORDS = table(
    Panel(
        15,
        "Waiting records",
        "What the chosen run waits for: the records that have waited the longest, up to the exporter's limits, and how "
        "many wait in all. They are read of the runs that have made no progress for the longest, a minute after they "
        "have changed. A person who was asked, or a time, ends the wait; see the step. It is not known which wait "
        "if they were not read yet, the runtime does not list them, or other runs wait longer.",
        GridPos(x=0, y=TOP + 35, w=18, h=8),
    ),
    [
        instant_query(of_one(_time_at_step(_waiting("step_start_timestamp_seconds"), _waiting("info")))),
        instant_query(of_one(_waiting("attempts"))),
        instant_query(of_one(NAMED_OF_WAITING)),
        instant_query(of_one(_waiting("info"))),
        instant_query(of_one(NO_NAMES)),
    ],
    [
        Column(
            "none",
            "State",
            coloured=True,
            width=215,  # Grafana makes no room for a second line of a mapped text.
            mappings=[
                value_mapping(
                    {
                        "zero": ("no record waits", TEXT),
                        "unread": ("▲ some wait, not known which", ORANGE),
                        "untold": ("? not reported by the runtime", TEXT),
                    }
                )
            ],
            empty=("waiting", TEXT),
        ),
        RECORD,
        STEP,
        AT_STEP_FOR,
        Column("named", "Named", width=76, empty=("", TEXT)),
        ATTEMPTS,
        Column("run_id", "Run", hidden=True),
    ],
    empty=CHOOSE,
    sort=("Value #A", True),
    hidden=("runtime", "project", "step", "step_number", "Value #C", "Value #D", "Value #E"),
)


def _by_step(name: str, state: str) -> str:
    found = while_read(f"max by (runtime, project, run_id, step) ({series(name, PROJECT, SPINNER, RUN)})")
    return f'label_replace(sum by (step) ({found}) > 0, "state", "{state}", "", "")'


WAITING_BY_STEP = _by_step("spinner_run_waiting_records", "waiting")
BY_STEP = f"{WAITING_BY_STEP} or {_by_step('spinner_run_records_in_flight', 'in progress')}"
RECORDS_BY_STEP = bar_gauge(
    Panel(
        16,
        "Records by step",
        "How many records of the chosen run wait at which step, and, while it is silent, how many are in progress. "
        "Many at one step: a person does not answer, or a provider is slow.",
        GridPos(x=18, y=TOP + 35, w=6, h=8),
    ),
    instant_query(
        of_one(
            named_bars(
                f"topk(8, {BY_STEP})",
                ("state", "step"),
                none=f"(group({WAIT} == 0) unless on () ({BY_STEP}))",
                of_what="records",
            )
        ),
        "{{name}}",
    ),
    empty="? no run chosen, or not read",
    none="✔ none waits",
    names_above=True,
)

VARIABLES = [
    runtime_variable(),
    project_variable(),
    spinner_variable(),
    custom_variable(
        "status", "Status", {status: text.split(" ", 1)[1].lower() for status, (text, _) in STATUSES.items()}
    ),
    *run_variables(),
    product_url_variable(),
    query_variable(
        "listed",
        "Runs in the table",
        f"query_result({listed_by_need(MOST_LISTED)})",
        regex=r'/\{run_id="(.+)"\}/',
        hidden=True,
    ),
]

DASHBOARD = dashboard(
    UID,
    "Jobs",
    "Is a run making progress, how long does it take, which records failed? Click a run to select it; press refresh to "
    "update.",
    [
        RUNTIMES,
        IN_NEED,
        COUNTS,
        RUNS,
        CHOSEN,
        RECORDS,
        FAILURES,
        FAILED_RECORDS,
        PROGRESS,
        RECORDS_PER_MINUTE,
        EXPECTED_END,
        SINCE_PROGRESS,
        STALL_THRESHOLD,
        STATUS,
        RECORDS_IN_FLIGHT,
        WAITING_RECORDS,
        RECORDS_BY_STEP,
    ],
    variables=VARIABLES,
    since="now-3h",
)
