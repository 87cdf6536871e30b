"""Exporter: can I trust these numbers? What the exporter reads, how old it is, and what it left out."""

from dashboards.panels import dashboard, now, over_time, runtime_chooser, stat, time_series
from dashboards.queries import RUNTIME, series
from dashboards.style import BLUE, GREEN, ORANGE, RED, thresholds, value_mapping

UID = "spinner-exporter"

RATE = "$__rate_interval"
READS = f"sum by (le) (rate({series('spinner_exporter_sync_duration_seconds_bucket', RUNTIME)}[{RATE}]))"


def of_exporters(name: str) -> str:
    """Return what Prometheus knows of the exporters as processes and as targets."""
    return f"max by (instance) ({series(name)} and on (instance) {series('spinner_exporter_build_info')})"


API = stat(
    1,
    "API",
    over_time(f"min(max by (runtime) ({series('spinner_api_up', RUNTIME)}))"),
    (0, 0, 8, 3),
    "Whether the last read of the runtime's API succeeded, in time for its scrape. If not, its log says why, once.",
    colours=thresholds(RED, (1, GREEN)),
    mappings=[value_mapping({"0": ("✖ DOWN", RED), "1": ("✔ up", GREEN)})],
    empty="? no exporter is scraped",
)

AGE = stat(
    2,
    "Age of the data",
    over_time(f"max(time() - max by (runtime) ({series('spinner_exporter_snapshot_timestamp_seconds', RUNTIME)}))"),
    (8, 0, 8, 3),
    "Time since the last good read. More than a few scrape intervals: the numbers on every dashboard are that old.",
    unit="duration",
    colours=thresholds(GREEN, (120, ORANGE), (300, RED)),
    empty="? never read",
    decimals=0,
)

PROJECTS = stat(
    3,
    "Projects that cannot be read",
    over_time(f"count(max by (runtime, project) ({series('spinner_project_up', RUNTIME)}) == 0) or vector(0)"),
    (16, 0, 8, 3),
    "Their runs are not watched. 403: the token may not see them; the exporter's log names each.",
    colours=thresholds(GREEN, (1, RED)),
    mappings=[value_mapping({"0": ("✔ none", GREEN)})],
)

RUNS = stat(
    4,
    "Runs shown",
    over_time(f"sum(max by (runtime) ({series('spinner_exporter_runs_tracked', RUNTIME)}))"),
    (0, 3, 8, 3),
    "Runs that have series of their own: those that have not ended, and those that ended within the retention.",
    colours=thresholds(BLUE),
    empty="none",
)

CONFIG = stat(
    5,
    "Config",
    over_time(f"min({series('spinner_exporter_config_last_reload_successful')})"),
    (8, 3, 8, 3),
    "Whether the config was good at the last reload. If not, the exporter goes on with the one before; its log names "
    "the place.",
    colours=thresholds(RED, (1, GREEN)),
    mappings=[value_mapping({"0": ("✖ refused", RED), "1": ("✔ good", GREEN)})],
    empty="? unknown",
)

VERSION = stat(
    6,
    "Version",
    now(f"max by (version) ({series('spinner_exporter_build_info')})", "{{version}}"),
    (16, 3, 8, 3),
    "The exporter's version. Two of them: an upgrade that has not come to its end.",
    empty="? no exporter is scraped",
    name_is_value=True,
)

SYNC = time_series(
    7,
    "Time of a read",
    [
        over_time(f"histogram_quantile(0.5, {READS})", "median"),
        over_time(f"histogram_quantile(0.99, {READS})", "99 of 100 are faster"),
    ],
    (0, 6, 8, 8),
    "How long it takes to read what changed. Near the scrape's timeout, scrapes are answered with the data of the "
    "read before.",
    unit="duration",
    empty="No read in this range",
    colours={"median": BLUE, "99 of 100 are faster": ORANGE},
)

REQUESTS = time_series(
    8,
    "Requests to the API",
    [
        over_time(
            f"sum by (code) (rate({series('spinner_exporter_upstream_requests_total', RUNTIME)}[{RATE}]))", "{{code}}"
        )
    ],
    (8, 6, 8, 8),
    "By HTTP status; error is none at all. 401: the token; 403: the project or the plan; 429: too many requests, raise "
    "sync.min_interval; 5xx: the runtime's API.",
    unit="rate",
    empty="No request in this range",
    colours={"200": GREEN, "304": BLUE, "401": RED, "403": RED, "429": ORANGE, "error": RED},
    stacked=True,
)

LATENCY = time_series(
    9,
    "Time of a request",
    [
        over_time(
            "histogram_quantile(0.9, sum by (le, endpoint) "
            f"(rate({series('spinner_exporter_upstream_request_duration_seconds_bucket', RUNTIME)}[{RATE}])))",
            "{{endpoint}}",
        )
    ],
    (16, 6, 8, 8),
    "Nine of ten requests to each endpoint are faster. One that grows alone is the runtime's API.",
    unit="duration",
    empty="No request in this range",
)

LEFT_OUT = time_series(
    10,
    "Left out",
    [
        over_time(
            f"sum by (reason) (increase({series('spinner_exporter_runs_dropped_total', RUNTIME)}[{RATE}]))",
            "runs dropped: {{reason}}",
        ),
        over_time(
            f"max by (runtime) ({series('spinner_exporter_projects_not_read', RUNTIME)}) > 0", "projects not read"
        ),
        over_time(
            f"sum by (kind) (increase({series('spinner_exporter_invalid_items_total', RUNTIME)}[{RATE}]))",
            "invalid: {{kind}}",
        ),
        over_time(
            f"sum by (label) (increase({series('spinner_exporter_unmapped_status_total', RUNTIME)}[{RATE}]))",
            "unmapped status: {{label}}",
        ),
    ],
    (0, 14, 12, 8),
    "What the other dashboards do not show. Dropped: raise limits.runs, not read: limits.projects. Invalid: the API "
    "breaks its contract; the log names the first. Unmapped: give the label a place under statuses in the config.",
    empty="✔ Nothing left out in this range",
)

SIZE = time_series(
    11,
    "Series in a scrape",
    [
        over_time(
            of_exporters("scrape_samples_scraped"),
            "{{instance}}",
        )
    ],
    (12, 14, 6, 8),
    "What Prometheus takes in with each scrape. Grows with the runs of the last retention; limits.runs bounds it.",
    empty="No scrape in this range",
)

MEMORY = time_series(
    12,
    "Memory",
    [
        over_time(
            of_exporters("process_resident_memory_bytes"),
            "{{instance}}",
        )
    ],
    (18, 14, 6, 8),
    "Resident memory of the exporter. It grows with the runs shown and stays; growing without them is a leak: report "
    "it.",
    unit="bytes",
    empty="No exporter is scraped, or it runs where there is no /proc",
)

DASHBOARD = dashboard(
    UID,
    "Exporter",
    "Can I trust these numbers? How old they are, what was read and what was left out.",
    [API, AGE, PROJECTS, RUNS, CONFIG, VERSION, SYNC, REQUESTS, LATENCY, LEFT_OUT, SIZE, MEMORY],
    variables=[runtime_chooser()],
    since="now-3h",
    refresh="1m",
)
