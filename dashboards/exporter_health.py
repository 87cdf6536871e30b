"""Exporter: can I trust these numbers? How old the data is, what was read, and what was skipped."""

from dashboards.panels import GridPos, Panel, dashboard, instant_query, range_query, runtime_variable, stat, time_series
from dashboards.queries import RUNTIME, all_fresh, lost_projects, lost_runtimes, or_zero, series, targets_down
from dashboards.runtimes import HEIGHT, runtimes
from dashboards.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, TEXT, UNKNOWN, thresholds, value_mapping

UID = "spinner-exporter"

RATE = "$__rate_interval"
READS = f"sum by (le) (rate({series('spinner_exporter_sync_duration_seconds_bucket', RUNTIME)}[{RATE}]))"


def process_metric(name: str) -> str:
    """Return a metric of the exporters' processes or targets, which has only the labels of the target."""
    return f"max by (instance) ({series(name)} and on (instance) {series('spinner_exporter_build_info')})"


def total(expression: str, *labels: str) -> str:
    """Return the sum of a metric over all exporters, by labels; those that read the same projects count as one."""
    replicas = series("instance_runtime:spinner_project_up:replicas", RUNTIME)
    exporter = "on (job, instance, runtime)"
    each = f"{expression} / {exporter} group_left () {replicas} or {expression} unless {exporter} {replicas}"
    return f"sum by ({', '.join(labels)}) ({each})"


RUNTIMES = runtimes(1)

FRESH = all_fresh(RUNTIME)
PROJECT_UP = f"max by (runtime, project) ({series('spinner_project_up', RUNTIME)})"

PROJECTS = stat(
    Panel(
        3,
        "Projects that cannot be read",
        "The runs of these projects are not monitored: they cannot be read, or their exporter is gone. The exporter's "
        "log names each with its error; 403 means that the token has no access.",
        GridPos(x=0, y=HEIGHT, w=8, h=3),
    ),
    instant_query(or_zero(f"count({PROJECT_UP} == 0 or {lost_projects(RUNTIME)})", FRESH)),
    colours=thresholds(GREY, (0, GREEN), (1, RED)),
    mappings=[value_mapping({"0": ("✔ none", GREEN)})],
)

RUNS = stat(
    Panel(
        4,
        "Runs shown",
        "Runs that have their own series: runs that have not ended, and runs that ended within the retention. "
        "Exporters that read the same projects count once, those of other projects add up.",
        GridPos(x=8, y=HEIGHT, w=5, h=3),
    ),
    instant_query(or_zero(total(series("spinner_exporter_runs_tracked", RUNTIME)), FRESH)),
    colours=thresholds(GREY, (0, TEXT)),
)

RELOADED = series("spinner_exporter_config_last_reload_successful")

CONFIG = stat(
    Panel(
        5,
        "Config",
        "Whether the last reload of the config succeeded. If it failed, the exporter keeps the previous config, and "
        "its log shows the error. Unknown while an exporter is down.",
        GridPos(x=13, y=HEIGHT, w=6, h=3),
    ),
    instant_query(
        f"min({RELOADED}) == 0 or min({RELOADED}) unless on () {lost_runtimes()} unless on () {targets_down()}"
    ),
    colours=thresholds(GREY, (0, RED), (1, GREEN)),
    mappings=[value_mapping({"0": ("✖ invalid", RED), "1": ("✔ loaded", GREEN)})],
)

BUILD_INFO = series("spinner_exporter_build_info")

VERSION = stat(
    Panel(
        6,
        "Version",
        "The version of the exporter. More than one version means that an upgrade is incomplete.",
        GridPos(x=19, y=HEIGHT, w=5, h=3),
    ),
    # The text for no value is not shown in the place of a name.
    instant_query(
        f"max by (version) ({BUILD_INFO}) or "
        f'label_replace(vector(0) unless on () {BUILD_INFO}, "version", "{UNKNOWN[0]}", "", "")',
        "{{version}}",
    ),
    colours=thresholds(GREY, (1, TEXT)),
    show_name=True,
)

SYNC = time_series(
    Panel(
        7,
        "Read duration",
        "How long it takes to read all changes from the API. Near the scrape timeout, scrapes return the data of the "
        "previous read.",
        GridPos(x=0, y=HEIGHT + 3, w=8, h=10),
    ),
    [
        range_query(f"histogram_quantile(0.5, {READS})", "median"),
        range_query(f"histogram_quantile(0.99, {READS})", "99th percentile"),
    ],
    unit="duration",
    empty="? No read in this range",
    colours={"median": BLUE, "99th percentile": PURPLE},
)

REQUESTS = time_series(
    Panel(
        8,
        "Requests to the API",
        "Requests per second by HTTP status; error means that there was no response. 401: invalid token. 403: no "
        "access, or a plan limit. 429: too many requests, raise sync.min_interval. 5xx: the API fails.",
        GridPos(x=8, y=HEIGHT + 3, w=8, h=10),
    ),
    [
        range_query(
            f"sum by (code) (rate({series('spinner_exporter_upstream_requests_total', RUNTIME)}[{RATE}]))", "{{code}}"
        )
    ],
    unit="rate",
    many=True,
    empty="? No request in this range",
    # Another status would get a colour of the palette, which can be that of a response that is well.
    colours={
        "200": GREEN,
        "304": BLUE,
        **dict.fromkeys(("400", "404", "410", "422", "429"), ORANGE),
        **dict.fromkeys(("401", "403", "500", "502", "503", "504", "error"), RED),
    },
    stacked=True,
)

LATENCY = time_series(
    Panel(
        9,
        "Request duration",
        "90th percentile of the request duration for each resource. If it grows, the runtime's API has become slower.",
        GridPos(x=16, y=HEIGHT + 3, w=8, h=10),
    ),
    [
        range_query(
            "histogram_quantile(0.9, sum by (le, resource) "
            f"(rate({series('spinner_exporter_upstream_request_duration_seconds_bucket', RUNTIME)}[{RATE}])))",
            "{{resource}}",
        )
    ],
    unit="duration",
    many=True,
    empty="? No request in this range",
)

SKIPPED = time_series(
    Panel(
        10,
        "Skipped data",
        "Data that the other dashboards do not show. Dropped runs: see the runbook of SpinnerRunsDropped. Projects not "
        "read: raise limits.projects. Invalid: the API violates its contract, see the exporter's log. Unmapped: map "
        "this label of a status under statuses in the config.",
        GridPos(x=0, y=HEIGHT + 13, w=8, h=10),
    ),
    [
        range_query(
            total(f"increase({series('spinner_exporter_runs_dropped_total', RUNTIME)}[{RATE}])", "reason"),
            "dropped: {{reason}}",
        ),
        range_query(
            f"{total(series('spinner_exporter_projects_not_read', RUNTIME), 'runtime')} > 0", "projects not read"
        ),
        range_query(
            total(f"increase({series('spinner_exporter_invalid_items_total', RUNTIME)}[{RATE}])", "kind"),
            "invalid: {{kind}}",
        ),
        range_query(
            total(f"increase({series('spinner_exporter_unmapped_status_total', RUNTIME)}[{RATE}])", "label"),
            "unmapped: {{label}}",
        ),
    ],
    many=True,
    empty="? No data in this range",
)

SIZE = time_series(
    Panel(
        11,
        "Series per scrape",
        "Number of series that Prometheus reads in each scrape. It grows with the runs within the retention, up to "
        "limits.runs.",
        GridPos(x=8, y=HEIGHT + 13, w=8, h=10),
    ),
    [
        range_query(
            process_metric("scrape_samples_scraped"),
            "{{instance}}",
        )
    ],
    many=True,
    empty="? No scrape in this range",
)

MEMORY = time_series(
    Panel(
        12,
        "Memory",
        "Resident memory of the exporter. It grows with the number of runs shown and does not shrink. If it grows "
        "without more runs, report a leak.",
        GridPos(x=16, y=HEIGHT + 13, w=8, h=10),
    ),
    [
        range_query(
            process_metric("process_resident_memory_bytes"),
            "{{instance}}",
        )
    ],
    unit="bytes",
    many=True,
    empty="? No exporter is scraped, or its platform has no /proc",
)

DASHBOARD = dashboard(
    UID,
    "Exporter",
    "Can I trust these numbers? How old they are, what was read, and what was skipped.",
    [RUNTIMES, PROJECTS, RUNS, CONFIG, VERSION, SYNC, REQUESTS, LATENCY, SKIPPED, SIZE, MEMORY],
    variables=[runtime_variable()],
    since="now-3h",
    refresh="1m",
)
