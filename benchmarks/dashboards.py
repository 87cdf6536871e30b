"""The time that Prometheus needs for the queries of each dashboard, compared with a budget of one second, and the samples
that it reads.

100 projects, 200 open runs and 5,000 that ended within the last day, scraped every 15 seconds, and recorded series of a
year. promtool writes the samples; those that no query reads are not written.

    python -m benchmarks.dashboards [--keep FOLDER]
"""

import argparse
import json
import math
import random
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from dashboards.__main__ import DASHBOARDS, DIST
from dashboards.jobs import MOST_LISTED
from tests.dashboards.grafana import interpolate
from tests.stack.programs import program, prometheus, query

BUDGET = 1.0
"""Seconds of Prometheus's time for all queries of a dashboard together."""

RUNTIME = 'runtime="runtime.example.com"'
ACTIVE, ENDED = 200, 5_000
SCRAPE = 15
MINUTE, HOUR, DAY, YEAR = 60, 3600, 86_400, 365 * 86_400

RANGES = {"spinner-jobs": 3 * HOUR, "spinner-live-ops": HOUR, "spinner-health": 14 * DAY, "spinner-exporter": 3 * HOUR}
CAPACITY_RANGES = {"30 days": 30 * DAY, "a year": YEAR}
WIDTH = 800
"""Pixels of a panel, and so the most points that Grafana requests."""

PROJECTS = {
    "Clinic": ("Appointment reminders", "Recall calls", "Sales report"),
    "Dealership": ("Lead qualification", "Offer approval", "Service reminders"),
    "Shop": ("Newsletter", "Abandoned carts", "Reviews"),
}
STEPS = (
    ("Send by WhatsApp", "RECIPIENT_NOT_REACHABLE"),
    ("Send by WhatsApp", "NO_PHONE_NUMBER"),
    ("Send", "MAILBOX_FULL"),
)
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="write the data here, and leave Prometheus running until Ctrl-C")
    keep = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        end = int(time.time()) // HOUR * HOUR
        if not (folder / "prometheus").exists():
            write(folder, end)
        else:
            end = int((folder / "end").read_text())
        with prometheus(folder, keep="100y") as url:
            report(url, end)
            if keep:
                print(f"\nPrometheus at {url}; the data end at {end}")
                with_prometheus_until_interrupted()


def with_prometheus_until_interrupted() -> None:
    try:
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        pass


def report(url: str, end: int) -> None:
    newest = query(url, f"topk({MOST_LISTED}, spinner_run_created_timestamp_seconds @ {end})")
    listed = [labels["run_id"] for labels, _ in newest]
    print(f"{ACTIVE:,} open runs and {ENDED:,} ended runs, scraped every {SCRAPE} s; best of {ROUNDS} rounds\n")
    print(
        f"{'dashboard':<18} {'range':<9} {'queries':>7} {'Prometheus time':>16} {'of the budget':>14} {'samples':>9}   slowest panel"
    )
    for uid in DASHBOARDS:
        spans = CAPACITY_RANGES if uid == "spinner-capacity" else {f"{RANGES[uid] / HOUR:g} h": RANGES[uid]}
        for name, span in spans.items():
            rounds = [{name: cost for name, *cost in costs(url, uid, span, end, listed)} for _ in range(ROUNDS)]
            best = min(rounds, key=lambda each: sum(seconds for seconds, _ in each.values()))
            total = sum(seconds for seconds, _ in best.values())
            samples = sum(samples for _, samples in best.values())
            slowest = max(best, key=best.__getitem__)
            print(
                f"{uid:<18} {name:<9} {len(best):>7} {1000 * total:>13.0f} ms {total / BUDGET:>13.2f}x {samples:>9,.0f}   "
                f"{slowest} ({1000 * best[slowest][0]:.0f} ms)"
            )


def costs(url: str, uid: str, span: int, end: int, listed: list[str]) -> Iterator[tuple[str, float, int]]:
    """Yield the name of each query, the seconds that Prometheus took, and how many samples it read."""
    board = json.loads((DIST / f"{uid}.json").read_text())
    for variable in board["templating"]["list"]:
        if variable["type"] == "query" and (found := re.fullmatch(r"query_result\((.+)\)", variable["query"]["query"])):
            yield (f"variable {variable['name']}", *cost(url, found[1], {}, {"time": end}))
    for panel in board["panels"]:
        for target in panel["targets"]:
            step = max(span / WIDTH, seconds(target.get("interval", "15s")))
            rate = f"{max(int(step) + SCRAPE, 4 * SCRAPE)}s"
            variables = {
                "run": listed[0],
                "listed": f"({'|'.join(listed)})",
                "__range": f"{span}s",
                "__rate_interval": rate,
                "__interval": f"{int(step)}s",
            }
            times = {"start": end - span, "end": end, "step": math.ceil(step)} if target["range"] else {"time": end}
            yield (f"{panel['title']} {target['refId']}", *cost(url, target["expr"], variables, times))


def cost(url: str, expression: str, variables: dict[str, str], times: dict[str, int]) -> tuple[float, int]:
    path = "query_range" if "step" in times else "query"
    form = {"query": interpolate(expression, variables), "stats": "all", **times}
    answer = httpx.post(f"{url}/api/v1/{path}", data=form, timeout=120).json()
    assert answer["status"] == "success", (expression, answer)
    stats = answer["data"]["stats"]
    return stats["timings"]["execTotalTime"], stats["samples"]["totalQueryableSamples"]


def seconds(duration: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([smhd])", duration).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "m": MINUTE, "h": HOUR, "d": DAY}[unit]


def write(folder: Path, end: int) -> None:
    """Write the samples as OpenMetrics, and convert them to blocks with promtool."""
    text = folder / "samples.om"
    with text.open("w") as out:
        for name, samples in families(end):
            out.write(f"# TYPE {name} unknown\n")
            for labels, series in samples:
                out.writelines(f"{name}{{{RUNTIME},{labels}}} {value} {at}\n" for at, value in series)
        out.write("# EOF\n")
    command = [
        program("promtool"),
        "tsdb",
        "create-blocks-from",
        "--max-block-duration=744h",
        "openmetrics",
        "samples.om",
        "prometheus",
    ]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    text.unlink()
    (folder / "end").write_text(str(end))


Series = tuple[str, Iterator[tuple[int, float]]]


def families(end: int) -> Iterator[tuple[str, list[Series]]]:
    yield from run_families(end)
    yield from spinner_families(end)
    yield from recorded_families(end)


def run_families(end: int) -> Iterator[tuple[str, list[Series]]]:
    """The families of runs: over an hour if a panel draws them for all runs, otherwise as long as an instant query needs."""
    rng = random.Random(1)
    runs = []
    for number in range(ACTIVE + ENDED):
        project = rng.choice(list(PROJECTS))
        ended = number >= ACTIVE
        created = end - rng.randrange(DAY) if ended else end - rng.randrange(2 * HOUR)
        labels = f'project="{project}",spinner="{rng.choice(PROJECTS[project])}",run_id="job_{number:012x}"'
        runs.append((labels, created, min(created + rng.randrange(30, 3 * HOUR), end) if ended else end, ended))
    newest = sorted(runs, key=lambda run: (run[3], -run[1]))[:12]

    def steady(span: int, value: Any, only_active: bool = False, extra: str = "") -> list[Series]:
        chosen = [run for run in runs if not (only_active and run[3])]
        return [
            (
                run[0] + extra,
                (
                    (at, value(run, at))
                    for at in range(max(end - (3 * HOUR if run in newest else span), run[1]), end + 1, SCRAPE)
                ),
            )
            for run in chosen
        ]

    brief = 2 * MINUTE
    yield "spinner_run_last_progress_timestamp_seconds", steady(HOUR, lambda run, at: min(at - at % 20, run[2]))
    yield (
        "project_spinner_run:spinner_run_silence:ratio",
        steady(HOUR, lambda run, at: at % 20 / 600, only_active=True),
    )
    yield "spinner_run_stall_threshold_seconds", steady(HOUR, lambda run, at: 600, only_active=True)
    yield (
        "spinner_run_status",
        [
            (
                f'{labels},status="{"completed" if ended else "running"}"',
                ((at, 1) for at in range(max(end - HOUR, created), end + 1, SCRAPE)),
            )
            for labels, created, _, ended in runs
        ],
    )
    yield "spinner_run_created_timestamp_seconds", steady(brief, lambda run, at: run[1])
    yield "spinner_run_start_timestamp_seconds", steady(brief, lambda run, at: run[1] + 2)
    yield (
        "spinner_run_end_timestamp_seconds",
        [
            (labels, ((at, stop) for at in range(end - brief, end + 1, SCRAPE)))
            for labels, _, stop, ended in runs
            if ended
        ],
    )
    yield (
        "spinner_run_progress_ratio",
        steady(brief, lambda run, at: 1 if run[3] else min((at - run[1]) / (3 * HOUR), 1)),
    )
    yield "spinner_run_duration_seconds", steady(brief, lambda run, at: min(at, run[2]) - run[1])
    yield "spinner_run_failed_records", steady(brief, lambda run, at: run[1] % 7)
    records: list[Series] = []
    for state in ("pending", "running", "waiting", "completed", "failed"):
        records += steady(brief, lambda run, at: (at - run[1]) // 5, extra=f',state="{state}"')
    yield "spinner_run_records", records
    failures: list[Series] = []
    for step, code in STEPS[:2]:
        failures += steady(brief, lambda run, at: run[1] % 5, extra=f',step="{step}",error_code="{code}"')
    yield "spinner_run_failures", failures
    yield (
        "spinner_run_failed_record_info",
        [
            (
                f'{labels},record_id="rec_{number}",step="{STEPS[0][0]}",error_code="{STEPS[0][1]}"',
                ((at, 1) for at in range(end - brief, end + 1, SCRAPE)),
            )
            for number, (labels, *_) in enumerate(runs[:1000])
        ],
    )


def spinner_families(end: int) -> Iterator[tuple[str, list[Series]]]:
    """The families of spinners and of the runtime: scrapes of the last three hours, and of a day for counters."""
    spinners = [f'project="{project}",spinner="{name}"' for project, names in PROJECTS.items() for name in names]

    def counted(extra: str, rate: float, span: int = DAY) -> list[Series]:
        return [
            (labels + extra, ((at, int((at - end + DAY) * rate)) for at in range(end - span, end + 1, SCRAPE)))
            for labels in spinners
        ]

    yield (
        "spinner_runs",
        [
            each
            for number, status in enumerate(("queued", "running", "waiting"))
            for each in counted(f',status="{status}"', 0.0001 * (number + 1), 3 * HOUR)
        ],
    )
    yield "spinner_runs_finished_total", counted(',status="completed"', 0.005) + counted(',status="failed"', 0.0001)
    yield "spinner_records_processed_total", counted(',state="completed"', 1.2) + counted(',state="failed"', 0.02)
    scrapes = range(end - DAY, end + 1, SCRAPE)
    target = 'job="spinner",instance="a"'
    for name, value in (
        ("spinner_runtime_heartbeat_timeout_seconds", 180),
        ("spinner_exporter_stale_after_seconds", 300),
    ):
        yield name, [(target, ((at, value) for at in scrapes))]
    for name in ("up", "spinner_runtime_up", "spinner_api_up", "spinner_exporter_build_info"):
        yield name, [(target, ((at, 1) for at in scrapes))]
    for name in ("spinner_runtime_last_heartbeat_timestamp_seconds", "spinner_exporter_snapshot_timestamp_seconds"):
        yield name, [(target, ((at, at - 3) for at in scrapes))]
    names = [*PROJECTS, *(f"Project {number}" for number in range(100 - len(PROJECTS)))]
    yield "spinner_project_up", [(f'{target},project="{name}"', ((at, 1) for at in scrapes)) for name in names]
    yield (
        "ALERTS",
        [('alertname="SpinnerWatchdog",alertstate="firing",severity="none"', ((at, 1) for at in scrapes[-240:]))],
    )
    for name, value in (
        ("used", lambda at: 12000 * _month_part(at, end) * 0.9),
        ("limit", lambda at: 12000),
        ("reset_timestamp_seconds", lambda at: end + 20 * DAY),
    ):
        yield (
            f"spinner_plan_{name}",
            [('meter="jobs_month"', ((at, value(at)) for at in range(end - DAY, end + 1, 60)))],
        )


def recorded_families(end: int) -> Iterator[tuple[str, list[Series]]]:
    """What the recording rules would have recorded over a year, with daily and weekly patterns and growth."""
    rng = random.Random(2)
    spinners = [f'project="{project}",spinner="{name}"' for project, names in PROJECTS.items() for name in names]
    projects = [f'project="{project}"' for project in PROJECTS]

    def busy(at: int) -> float:
        """Return the load at a time: working hours and days, and growth by half in a year."""
        hour, day = at // HOUR % 24, at // DAY % 7
        rhythm = 0.15 + max(math.sin((hour - 6) / 14 * math.pi), 0.0) if 6 <= hour <= 20 else 0.15
        return (
            rhythm * (0.35 if day in (2, 3) else 1.0) * (1 + 0.5 * (at - end + YEAR) / YEAR) * rng.uniform(0.85, 1.15)
        )

    def recorded(groups: list[str], value: Any, every: int, span: int, extra: str = "") -> list[Series]:
        return [
            (labels + extra, ((at, round(value(at) * (1 + number % 3), 4)) for at in range(end - span, end + 1, every)))
            for number, labels in enumerate(groups)
        ]

    weeks = 28 * DAY
    yield (
        "project_spinner_state:spinner_records_processed:rate1h",
        [
            each
            for state, share in (("completed", 0.97), ("failed", 0.03))
            for each in recorded(spinners, lambda at, share=share: busy(at) * share, 300, weeks, f',state="{state}"')
        ],
    )
    yield (
        "project_spinner_state:spinner_records_processed:rate5m",
        [
            each
            for state, share in (("completed", 0.97), ("failed", 0.03))
            for each in recorded(spinners, lambda at, share=share: busy(at) * share, 60, DAY, f',state="{state}"')
        ],
    )
    yield (
        "project_spinner_status:spinner_runs:max",
        recorded(spinners, lambda at: 4, 60, DAY, ',status="running"'),
    )
    yield "project_spinner:spinner_records_processed:rate1h", recorded(spinners, busy, 300, weeks)
    yield (
        "project_spinner_status:spinner_runs_finished:increase1h",
        recorded(spinners, lambda at: 4 * busy(at), 300, weeks, ',status="completed"'),
    )
    yield (
        "project_spinner:spinner_run_finished_duration_seconds:p50_1h",
        recorded(spinners, lambda at: 40 + 5 * busy(at), 300, weeks),
    )
    yield (
        "project_spinner:spinner_run_finished_duration_seconds:p95_1h",
        recorded(spinners, lambda at: 90 + 20 * busy(at), 300, weeks),
    )
    yield (
        "project_spinner:spinner_record_seconds:avg1d",
        recorded(spinners, lambda at: 1.5 + 0.1 * busy(at), 300, weeks),
    )
    yield (
        "project_spinner_step:spinner_run_failures:ratio",
        [
            each
            for step, _ in STEPS[1:]
            for each in recorded(spinners, lambda at: 0.004 * (1 + busy(at)), 60, 14 * DAY, f',step="{step}"')
        ],
    )
    yield (
        "project:spinner_runs_started:increase1d",
        recorded(projects, lambda at: 90 * busy(at - at % DAY + 13 * HOUR), 300, YEAR),
    )
    yield (
        "project_status:spinner_runs_finished:increase1d",
        [
            each
            for status, share in (("completed", 86), ("failed", 3), ("cancelled", 1))
            for each in recorded(
                projects,
                lambda at, share=share: share * busy(at - at % DAY + 13 * HOUR),
                300,
                YEAR,
                f',status="{status}"',
            )
        ],
    )
    yield (
        "project_state:spinner_records_processed:increase1d",
        [
            each
            for state, share in (("completed", 8000), ("failed", 190))
            for each in recorded(
                projects,
                lambda at, share=share: share * busy(at - at % DAY + 13 * HOUR),
                300,
                YEAR,
                f',state="{state}"',
            )
        ],
    )
    yield "project:spinner_records_processed:increase1h", recorded(projects, lambda at: 500 * busy(at), 300, YEAR)
    yield "project:spinner_runs_running:max1h", recorded(projects, lambda at: round(6 * busy(at)), 300, YEAR)
    yield (
        "project:spinner_run_queue_seconds:p95_1h",
        recorded(projects, lambda at: 4 + 30 * max(busy(at) - 1.2, 0), 300, YEAR),
    )
    yield (
        "meter:spinner_plan_used:ratio",
        [
            (
                'meter="jobs_month"',
                ((at, round(_month_part(at, end) * 0.9, 4)) for at in range(end - YEAR, end + 1, 300)),
            )
        ],
    )


def _month_part(at: int, end: int) -> float:
    """Return the elapsed share of the plan's month; the last one began ten days before the end."""
    return (at - end + 10 * DAY) % (30 * DAY) / (30 * DAY)


if __name__ == "__main__":
    main()
