"""Exporter: can I trust these numbers? What the exporter reads, how old it is, and what it left out."""

from dashboards.panels import GridPos, Panel, dashboard, instant_query, range_query, runtime_variable, stat, time_series
from dashboards.queries import RUNTIME, series
from dashboards.style import BLUE, GREEN, ORANGE, RED, thresholds, value_mapping

UID = "spinner-exporter"

RATE = "$__rate_interval"
READS = f"sum by (le) (rate({series('spinner_exporter_sync_duration_seconds_bucket', RUNTIME)}[{RATE}]))"


def process_metric(name: str) -> str:
    """Return a metric of the exporters' processes or targets, which have no labels of their own."""
    return f"max by (instance) ({series(name)} and on (instance) {series('spinner_exporter_build_info')})"


API = stat(
    Panel(
        1,
        "API",
        "Whether the last read of the runtime's API succeeded, in time for its scrape. If not, its log says why, once.",
        GridPos(x=0, y=0, w=8, h=3),
    ),
    range_query(f"min(max by (runtime) ({series('spinner_api_up', RUNTIME)}))"),
    colours=thresholds(RED, (1, GREEN)),
    mappings=[value_mapping({"0": ("✖ DOWN", RED), "1": ("✔ up", GREEN)})],
    empty="? no exporter is scraped",
)

AGE = stat(
    Panel(
        2,
        "Age of the data",
        "Time since the last good read. More than a few scrape intervals: the numbers on every dashboard are that old.",
        GridPos(x=8, y=0, w=8, h=3),
    ),
    range_query(f"max(time() - max by (runtime) ({series('spinner_exporter_snapshot_timestamp_seconds', RUNTIME)}))"),
    unit="duration",
    colours=thresholds(GREEN, (120, ORANGE), (300, RED)),
    empty="? never read",
    decimals=0,
)

PROJECTS = stat(
    Panel(
        3,
        "Projects that cannot be read",
        "Their runs are not watched. 403: the token may not see them; the exporter's log names each.",
        GridPos(x=16, y=0, w=8, h=3),
    ),
    range_query(f"count(max by (runtime, project) ({series('spinner_project_up', RUNTIME)}) == 0) or vector(0)"),
    colours=thresholds(GREEN, (1, RED)),
    mappings=[value_mapping({"0": ("✔ none", GREEN)})],
)

RUNS = stat(
    Panel(
        4,
        "Runs shown",
        "Runs that have series of their own: those that have not ended, and those that ended within the retention.",
        GridPos(x=0, y=3, w=8, h=3),
    ),
    range_query(f"sum(max by (runtime) ({series('spinner_exporter_runs_tracked', RUNTIME)}))"),
    colours=thresholds(BLUE),
    empty="none",
)

CONFIG = stat(
    Panel(
        5,
        "Config",
        "Whether the config was good at the last reload. If not, the exporter goes on with the one before; its log "
        "names the place.",
        GridPos(x=8, y=3, w=8, h=3),
    ),
    range_query(f"min({series('spinner_exporter_config_last_reload_successful')})"),
    colours=thresholds(RED, (1, GREEN)),
    mappings=[value_mapping({"0": ("✖ refused", RED), "1": ("✔ good", GREEN)})],
    empty="? unknown",
)

VERSION = stat(
    Panel(
        6,
        "Version",
        "The exporter's version. Two of them: an upgrade that has not come to its end.",
        GridPos(x=16, y=3, w=8, h=3),
    ),
    instant_query(f"max by (version) ({series('spinner_exporter_build_info')})", "{{version}}"),
    empty="? no exporter is scraped",
    show_name=True,
)

SYNC = time_series(
    Panel(
        7,
        "Time of a read",
        "How long it takes to read what changed. Near the scrape's timeout, scrapes are answered with the data of the "
        "read before.",
        GridPos(x=0, y=6, w=8, h=8),
    ),
    [
        range_query(f"histogram_quantile(0.5, {READS})", "median"),
        range_query(f"histogram_quantile(0.99, {READS})", "99 of 100 are faster"),
    ],
    unit="duration",
    empty="No read in this range",
    colours={"median": BLUE, "99 of 100 are faster": ORANGE},
)

REQUESTS = time_series(
    Panel(
        8,
        "Requests to the API",
        "By HTTP status; error is none at all. 401: the token; 403: the project or the plan; 429: too many requests, "
        "raise sync.min_interval; 5xx: the runtime's API.",
        GridPos(x=8, y=6, w=8, h=8),
    ),
    [
        range_query(
            f"sum by (code) (rate({series('spinner_exporter_upstream_requests_total', RUNTIME)}[{RATE}]))", "{{code}}"
        )
    ],
    unit="rate",
    empty="No request in this range",
    colours={"200": GREEN, "304": BLUE, "401": RED, "403": RED, "429": ORANGE, "error": RED},
    stacked=True,
)

LATENCY = time_series(
    Panel(
        9,
        "Time of a request",
        "Nine of ten requests to each endpoint are faster. One that grows alone is the runtime's API.",
        GridPos(x=16, y=6, w=8, h=8),
    ),
    [
        range_query(
            "histogram_quantile(0.9, sum by (le, endpoint) "
            f"(rate({series('spinner_exporter_upstream_request_duration_seconds_bucket', RUNTIME)}[{RATE}])))",
            "{{endpoint}}",
        )
    ],
    unit="duration",
    empty="No request in this range",
)

LEFT_OUT = time_series(
    Panel(
        10,
        "Left out",
        "What the other dashboards do not show. Dropped: raise limits.runs, not read: limits.projects. Invalid: the "
        "API breaks its contract; the log names the first. Unmapped: give the label a place under statuses in the "
        "config.",
        GridPos(x=0, y=14, w=12, h=8),
    ),
    [
        range_query(
            f"sum by (reason) (increase({series('spinner_exporter_runs_dropped_total', RUNTIME)}[{RATE}]))",
            "runs dropped: {{reason}}",
        ),
        range_query(
            f"max by (runtime) ({series('spinner_exporter_projects_not_read', RUNTIME)}) > 0", "projects not read"
        ),
        range_query(
            f"sum by (kind) (increase({series('spinner_exporter_invalid_items_total', RUNTIME)}[{RATE}]))",
            "invalid: {{kind}}",
        ),
        range_query(
            f"sum by (label) (increase({series('spinner_exporter_unmapped_status_total', RUNTIME)}[{RATE}]))",
            "unmapped status: {{label}}",
        ),
    ],
    empty="✔ Nothing left out in this range",
)

SIZE = time_series(
    Panel(
        11,
        "Series in a scrape",
        "What Prometheus takes in with each scrape. Grows with the runs of the last retention; limits.runs bounds it.",
        GridPos(x=12, y=14, w=6, h=8),
    ),
    [
        range_query(
            process_metric("scrape_samples_scraped"),
            "{{instance}}",
        )
    ],
    empty="No scrape in this range",
)

MEMORY = time_series(
    Panel(
        12,
        "Memory",
        "Resident memory of the exporter. It grows with the runs shown and stays; growing without them is a leak: "
        "report it.",
        GridPos(x=18, y=14, w=6, h=8),
    ),
    [
        range_query(
            process_metric("process_resident_memory_bytes"),
            "{{instance}}",
        )
    ],
    unit="bytes",
    empty="No exporter is scraped, or it runs where there is no /proc",
)

DASHBOARD = dashboard(
    UID,
    "Exporter",
    "Can I trust these numbers? How old they are, what was read and what was left out.",
    [API, AGE, PROJECTS, RUNS, CONFIG, VERSION, SYNC, REQUESTS, LATENCY, LEFT_OUT, SIZE, MEMORY],
    variables=[runtime_variable()],
    since="now-3h",
    refresh="1m",
)
