"""What one refresh of each dashboard costs Prometheus, compared with budgets of a second and of 100,000 samples; and what
the recording rules cost that dashboards read instead of everything.

100 projects with 203 spinners, 1,000 open runs and 19,000 that ended within the last day, which is `limits.runs`, scraped
every 15 seconds, a tenth of as many runs that failed on each day of a week, and recorded series of a year. promtool writes the samples; those that no query reads are not written.

    python -m benchmarks.dashboards [--runs 20000] [--keep FOLDER]
"""

import argparse
import json
import math
import random
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import yaml

from dashboards.__main__ import DASHBOARDS, DIST
from dashboards.capacity import ALL_PROJECTS
from dashboards.queries import RULES
from exporter.runs.counters import DURATION_BUCKETS
from tests.dashboards.grafana import interpolate
from tests.stack.programs import program, prometheus

BUDGET = 1.0
"""Seconds of Prometheus's time for all queries of a dashboard together."""
MOST_SAMPLES = 100_000
"""Samples that all queries of a dashboard read together."""

RUNTIME = 'runtime="runtime.example.com"'
RUNS = 20_000
OPEN = 0.05
"""The share of the runs that have not ended."""
FAILED = 0.1
"""The share of the runs of a day that failed."""
PLAN_LIMIT = 12_000
"""Runs of a month that the plan allows; nine tenths of them are used."""
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
NAMES = [*PROJECTS, *(f"Project {number}" for number in range(100 - len(PROJECTS)))]
SPINNERS = [(name, each) for name in NAMES for each in PROJECTS.get(name, ("Import", "Export"))]
CHOSEN = {"spinner-health": {"spinner": "Appointment reminders"}, "spinner-capacity": {"project": ALL_PROJECTS}}
"""The values of variables, where they are not All by default."""
RULE_GROUPS = (
    "spinner_recording_known",
    "spinner_recording_known_1d",
    "spinner_recording_runs",
    "spinner_recording_replicas",
    "spinner_recording_resets",
)

STEPS = (
    ("Send by WhatsApp", "RECIPIENT_NOT_REACHABLE"),
    ("Send by WhatsApp", "NO_PHONE_NUMBER"),
    ("Send", "MAILBOX_FULL"),
)
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="write the data here, and leave Prometheus running until Ctrl-C")
    parser.add_argument("--runs", type=int, default=RUNS, help="how many runs the exporter shows")
    arguments = parser.parse_args()
    keep: Path | None = arguments.keep
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        end = int(time.time()) // HOUR * HOUR
        if not (folder / "prometheus").exists():
            write(folder, end, arguments.runs)
        else:
            end = int((folder / "end").read_text())
        with prometheus(folder, keep="100y") as url:
            report(url, end, arguments.runs)
            report_rules(url, end)
            if keep:
                print(f"\nPrometheus at {url}; the data end at {end}")
                with_prometheus_until_interrupted()


def with_prometheus_until_interrupted() -> None:
    try:
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        pass


def report(url: str, end: int, runs: int) -> None:
    (newest,) = at(url, "topk(1, spinner_run_created_timestamp_seconds)", end)
    print(f"{runs:,} runs, {runs * OPEN:,.0f} of them open, scraped every {SCRAPE} s; best of {ROUNDS} rounds\n")
    print(
        f"{'dashboard':<18} {'range':<9} {'queries':>7} {'Prometheus time':>16} {'of the budget':>14} "
        f"{'samples':>9} {'of the budget':>14}   most samples"
    )
    for uid in DASHBOARDS:
        spans = CAPACITY_RANGES if uid == "spinner-capacity" else {f"{RANGES[uid] / HOUR:g} h": RANGES[uid]}
        for name, span in spans.items():
            rounds = [
                {name: cost for name, *cost in costs(url, uid, span, end, newest["run_id"])} for _ in range(ROUNDS)
            ]
            best = min(rounds, key=lambda each: sum(seconds for seconds, _ in each.values()))
            total = sum(seconds for seconds, _ in best.values())
            samples = sum(samples for _, samples in best.values())
            most = max(best, key=lambda each: best[each][1])
            print(
                f"{uid:<18} {name:<9} {len(best):>7} {1000 * total:>13.0f} ms {total / BUDGET:>13.2f}x {samples:>9,.0f} "
                f"{samples / MOST_SAMPLES:>13.2f}x   {most} ({best[most][1]:,})"
            )


def report_rules(url: str, end: int) -> None:
    """Print what one evaluation of the rules costs that dashboards read."""
    print(f"\n{'rule':<74} {'every':>5} {'time':>7} {'samples':>9} {'per second':>10}")
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        if group["name"] in RULE_GROUPS:
            for rule in group["rules"]:
                time, samples = cost(url, rule["expr"], {}, {"time": end})
                rate = samples / seconds(group["interval"])
                print(
                    f"{rule['record']:<74} {group['interval']:>5} {1000 * time:>4.0f} ms {samples:>9,} {rate:>10,.0f}"
                )


def costs(url: str, uid: str, span: int, end: int, run: str) -> Iterator[tuple[str, float, int]]:
    """Yield the name of each query, the seconds that Prometheus took, and how many samples it read."""
    board = json.loads((DIST / f"{uid}.json").read_text())
    chosen = {"run": run, "__range": f"{span}s", "__range_s": f"{span}"} | CHOSEN.get(uid, {})
    for variable in board["templating"]["list"]:
        if variable["type"] == "query" and (found := re.fullmatch(r"query_result\((.+)\)", variable["query"]["query"])):
            yield (f"variable {variable['name']}", *cost(url, found[1], chosen, {"time": end}))
            listed = at(url, interpolate(found[1], chosen), end)
            chosen[variable["name"]] = f"({'|'.join(labels['run_id'] for labels in listed)})"
    for panel in board["panels"]:
        for target in panel["targets"]:
            step = max(span / WIDTH, seconds(target.get("interval", "15s")))
            rate = f"{max(int(step) + SCRAPE, 4 * SCRAPE)}s"
            variables = chosen | {"__rate_interval": rate, "__interval": f"{int(step)}s"}
            times = {"start": end - span, "end": end, "step": math.ceil(step)} if target["range"] else {"time": end}
            if panel.get("timeFrom") == "now/d":
                variables |= {"__range": f"{DAY}s", "__range_s": f"{DAY}"}
            yield (f"{panel['title']} {target['refId']}", *cost(url, target["expr"], variables, times))


def at(url: str, expression: str, time: int) -> list[dict[str, str]]:
    """Return the labels of the samples at a time."""
    answer = httpx.post(f"{url}/api/v1/query", data={"query": expression, "time": time}).json()
    return [each["metric"] for each in answer["data"]["result"]]


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


def write(folder: Path, end: int, runs: int) -> None:
    """Write the samples as OpenMetrics, and convert them to blocks with promtool."""
    text = folder / "samples.om"
    with text.open("w") as out:
        for name, samples in families(end, runs):
            out.write(f"# TYPE {name} unknown\n")
            for labels, series in samples:
                of_runtime = "" if labels == PROOF else f"{{{RUNTIME}{labels and ','}{labels}}}"
                out.writelines(f"{name}{of_runtime} {value} {at}\n" for at, value in series)
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


PROOF = "no label"
"""The sample without labels of a recording rule."""

Series = tuple[str, Iterator[tuple[int, float]]]


def families(end: int, runs: int) -> Iterator[tuple[str, list[Series]]]:
    yield from run_families(end, runs)
    yield from spinner_families(end)
    yield from recorded_families(end)


def run_families(end: int, count: int) -> Iterator[tuple[str, list[Series]]]:
    """The families of runs: over an hour if a panel draws them for all runs, otherwise as long as an instant query needs."""
    rng = random.Random(1)
    runs = []
    for number in range(count):
        project, spinner = rng.choice(SPINNERS)
        ended = number >= count * OPEN
        created = end - rng.randrange(DAY) if ended else end - rng.randrange(2 * HOUR)
        labels = f'project="{project}",spinner="{spinner}",run_id="job_{number:012x}"'
        runs.append((labels, created, min(created + rng.randrange(30, 3 * HOUR), end) if ended else end, ended))
    failed = []
    for number in range(int(7 * count * (1 - OPEN) * FAILED)):
        project, spinner = rng.choice(SPINNERS)
        labels = f'project="{project}",spinner="{spinner}",run_id="job_f{number:011x}"'
        failed.append((labels, end - rng.randrange(7 * DAY)))
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

    brief = 2 * SCRAPE
    yield "spinner_run_last_progress_timestamp_seconds", steady(brief, lambda run, at: min(at - at % 20, run[2]))
    yield (
        "project_spinner_run:spinner_run_silence:ratio",
        steady(HOUR, lambda run, at: at % 20 / 600, only_active=True),
    )
    yield "spinner_run_stall_threshold_seconds", steady(HOUR, lambda run, at: 600, only_active=True)
    statuses: list[Series] = [
        (
            f'{labels},status="{"completed" if ended else "running"}"',
            ((at, 1) for at in range(max(end - (brief if ended else HOUR), created), end + 1, SCRAPE)),
        )
        for labels, created, _, ended in runs
    ]
    yield "spinner_run_status", statuses
    yield (
        "project_spinner_run:spinner_run_end_timestamp_seconds:failed",
        [
            (labels, iter([(at, stop) for at in (stop + MINUTE, stop + 6 * MINUTE) if at <= end]))
            for labels, stop in failed
        ],
    )
    yield (
        "project_spinner_run_status:spinner_run_status:need",
        [
            (
                f'{labels},status="{"running" if not ended else "completed" if created % 10 else "failures"}"',
                ((at, 4.7 if not ended else 0.18 if created % 10 else 7.18) for at in (end - MINUTE, end)),
            )
            for labels, created, _, ended in runs
        ],
    )
    yield "spinner_run_created_timestamp_seconds", steady(brief, lambda run, at: run[1])
    yield "spinner_run_start_timestamp_seconds", steady(brief, lambda run, at: run[1] + 2)
    yield (
        "spinner_run_end_timestamp_seconds",
        [
            (labels, iter([(at, stop) for at in range(end - brief, end + 1, SCRAPE)]))
            for labels, _, stop, ended in runs
            if ended
        ],
    )
    yield (
        "spinner_run_progress_ratio",
        steady(brief, lambda run, at: 1 if run[3] else min((at - run[1]) / (3 * HOUR), 1)),
    )
    yield "spinner_run_duration_seconds", steady(brief, lambda run, at: min(at, run[2]) - run[1])
    yield "spinner_run_failed_records", steady(brief, lambda run, at: 0 if run[1] % 10 else 5)
    records: list[Series] = []
    for state in ("pending", "running", "waiting", "completed", "failed"):
        records += steady(brief, lambda run, at: (at - run[1]) // 5, extra=f',state="{state}"')
    yield "spinner_run_records", records
    failures: list[Series] = []
    for step, code in STEPS[:2]:
        of_each = steady(brief, lambda run, at: 3, extra=f',step="{step}",error_code="{code}"')
        failures += [each for run, each in zip(runs, of_each, strict=True) if run[1] % 10 == 0]
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
    """The families of spinners and of the runtime: scrapes of the last day where a query reads them."""
    spinners = [f'project="{project}",spinner="{name}"' for project, name in SPINNERS]
    ends = [*range(end - DAY - MINUTE, end - DAY + 1, SCRAPE), *range(end - 11 * MINUTE, end + 1, SCRAPE)]

    def counted(extra: str, rate: float) -> list[Series]:
        """Of a counter the queries read the beginning of the day, and its last minutes."""
        return [(labels + extra, ((at, int((at - end + 2 * DAY) * rate)) for at in ends)) for labels in spinners]

    yield (
        "spinner_runs",
        [
            each
            for number, status in enumerate(("queued", "running", "waiting"))
            for each in counted(f',status="{status}"', 0.0001 * (number + 1))
        ],
    )
    yield "spinner_runs_finished_total", counted(',status="completed"', 0.005) + counted(',status="failed"', 0.0001)
    yield (
        "spinner_run_finished_duration_seconds_bucket",
        [
            (f"{labels},{le(bound)}", ((at, 100) for at in (end - SCRAPE, end)))
            for labels in spinners
            for bound in (*DURATION_BUCKETS, math.inf)
        ],
    )
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
    projects = [f'{target},project="{name}"' for name in NAMES]
    yield "spinner_project_up", [(labels, ((at, 1) for at in scrapes)) for labels in projects]
    for name, exposed in (
        ("instance_runtime:spinner_api_up", [target]),
        ("instance_project:spinner_project_up", projects),
    ):
        for result, times in (
            ("known", range(end - 10 * MINUTE, end + 1, 30)),
            ("last1d", range(end - DAY, end + 1, 5 * MINUTE)),
        ):
            yield f"{name}:{result}", [(labels, ((at, at) for at in times)) for labels in (*exposed, PROOF)]
    for name in (
        "spinner_run_failed_records:unknown",
        "spinner_run_failed_records:sum",
        "spinner_records_processed:unknown",
        "spinner_run_last_progress_timestamp_seconds:unknown",
    ):
        yield f"project_spinner:{name}", [(PROOF, ((at, 0) for at in range(end - HOUR, end + 1, MINUTE)))]
    for name in ("project_spinner_status:spinner_runs_finished", "project_spinner_state:spinner_records_processed"):
        yield f"{name}:lost1m", [(PROOF, ((at, 0) for at in range(end - DAY, end + 1, MINUTE)))]
    yield (
        "project_spinner_step_error:spinner_run_failures:sum",
        [
            (
                f'{labels},step="{step}",error_code="{code}"',
                ((at, 3) for at in range(end - 5 * MINUTE, end + 1, MINUTE)),
            )
            for labels in spinners
            for step, code in STEPS
        ],
    )
    yield (
        "ALERTS",
        [('alertname="SpinnerWatchdog",alertstate="firing",severity="none"', ((at, 1) for at in scrapes[-240:]))],
    )
    meters: dict[str, Callable[[int], float]] = {
        "used": lambda at: PLAN_LIMIT * _month_part(at, end) * 0.9,
        "limit": lambda at: PLAN_LIMIT,
        "reset_timestamp_seconds": lambda at: end + 20 * DAY,
    }
    for name, value_at in meters.items():
        yield (
            f"spinner_plan_{name}",
            [('meter="jobs_month"', ((at, value_at(at)) for at in range(end - DAY, end + 1, 60)))],
        )


def le(bound: float) -> str:
    return 'le="+Inf"' if bound == math.inf else f'le="{bound}"'


def recorded_families(end: int) -> Iterator[tuple[str, list[Series]]]:
    """What the recording rules would have recorded over a year, with daily and weekly patterns and growth."""
    rng = random.Random(2)
    spinners = [f'project="{project}",spinner="{name}"' for project, names in PROJECTS.items() for name in names]
    every_spinner = [f'project="{project}",spinner="{name}"' for project, name in SPINNERS]

    def busy(at: int) -> float:
        """Return the load at a time: working hours and days, and growth by half in a year."""
        hour, day = at // HOUR % 24, at // DAY % 7
        rhythm = 0.15 + max(math.sin((hour - 6) / 14 * math.pi), 0.0) if 6 <= hour <= 20 else 0.15
        return (
            rhythm * (0.35 if day in (2, 3) else 1.0) * (1 + 0.5 * (at - end + YEAR) / YEAR) * rng.uniform(0.85, 1.15)
        )

    def recorded(groups: list[str], value: Any, every: int, span: int, extra: str = "") -> list[Series]:
        return [
            (
                ",".join(filter(None, (labels, extra))),
                ((at, round(value(at) * (1 + number % 3), 4)) for at in range(end - span, end + 1, every)),
            )
            for number, labels in enumerate(groups)
        ]

    def slower(at: int) -> float:
        """Return by how much the first spinner became slower three days before the end."""
        return 1.5 if at > end - 3 * DAY else 1.0

    def first_slower(value: Any, extra: str = "") -> list[Series]:
        """Return what is recorded of the spinners, of which `value` has two arguments: the time, and how slow it is."""
        return recorded(spinners[:1], lambda at: value(at, slower(at)), 300, weeks, extra) + recorded(
            spinners[1:], lambda at: value(at, 1.0), 300, weeks, extra
        )

    weeks = 28 * DAY
    often_failing = every_spinner[1::9]
    yield (
        "project_spinner_status:spinner_runs_finished:increase1d",
        [
            each
            for groups, failed in (
                (often_failing, 1.2),
                ([each for each in every_spinner if each not in often_failing], 0.1),
            )
            for status, count in (("completed", 24), ("failed", failed), ("cancelled", 0.1), ("unknown", 0))
            for each in recorded(groups, lambda at, count=count: count, 300, 10 * MINUTE, f'status="{status}"')
        ],
    )
    yield (
        "project_spinner_state:spinner_records_processed:rate1h",
        [
            each
            for state, share in (("completed", 0.97), ("failed", 0.03))
            for each in recorded(spinners, lambda at, share=share: busy(at) * share, 300, weeks, f'state="{state}"')
        ],
    )

    def at_most(seconds: float) -> Any:
        """Return how many of the runs that end in an hour take at most so long: half of them two and a half minutes."""
        return lambda at, slow: (
            12 * max(math.sin((at // HOUR % 24 - 6) / 14 * math.pi), 0.1) / (1 + (150 * slow / seconds) ** 3)
        )

    yield (
        "project_spinner:spinner_run_finished_duration_seconds_bucket:increase1h",
        [each for bound in (*DURATION_BUCKETS, math.inf) for each in first_slower(at_most(bound), le(bound))],
    )
    yield (
        "project_spinner_state:spinner_records_processed:rate5m",
        [
            each
            for state, share in (("completed", 0.97), ("failed", 0.03))
            for each in recorded(
                every_spinner, lambda at, share=share: busy(at) * share, 60, 2 * HOUR, f'state="{state}"'
            )
        ],
    )
    yield (
        "project_spinner_status:spinner_runs:max",
        recorded(every_spinner, lambda at: 4, 60, 2 * HOUR, 'status="running"'),
    )
    yield "project_spinner:spinner_records_processed:rate1h", recorded(spinners, busy, 300, weeks)
    yield (
        "project_spinner_status:spinner_runs_finished:increase1h",
        recorded(spinners, lambda at: 4 * busy(at), 300, weeks, 'status="completed"'),
    )
    yield (
        "project_spinner:spinner_run_finished_duration_seconds:p50_1h",
        first_slower(lambda at, slow: (40 + 5 * busy(at)) * slow),
    )
    yield (
        "project_spinner:spinner_run_finished_duration_seconds:p95_1h",
        first_slower(lambda at, slow: (90 + 20 * busy(at)) * slow),
    )
    yield (
        "project_spinner:spinner_record_seconds:avg1d",
        first_slower(lambda at, slow: (1.5 + 0.1 * busy(at)) * slow)
        + recorded(every_spinner[len(spinners) :], lambda at: 1.5, 300, 8 * DAY),
    )
    yield (
        "project_spinner_step:spinner_run_failures:ratio",
        [
            each
            for step, _ in STEPS[1:]
            for each in recorded(spinners, lambda at: 0.004 * (1 + busy(at)), 60, 14 * DAY, f'step="{step}"')
        ],
    )
    yield (
        "runtime:spinner_runs_started:increase1d",
        recorded([""], lambda at: 90 * busy(at - at % DAY + 13 * HOUR), 300, YEAR),
    )
    yield (
        "runtime_status:spinner_runs_finished:increase1d",
        [
            each
            for status, share in (("completed", 86), ("failed", 3), ("cancelled", 1))
            for each in recorded(
                [""],
                lambda at, share=share: share * busy(at - at % DAY + 13 * HOUR),
                300,
                YEAR,
                f'status="{status}"',
            )
        ],
    )
    yield (
        "runtime_state:spinner_records_processed:increase1d",
        [
            each
            for state, share in (("completed", 8000), ("failed", 190))
            for each in recorded(
                [""],
                lambda at, share=share: share * busy(at - at % DAY + 13 * HOUR),
                300,
                YEAR,
                f'state="{state}"',
            )
        ],
    )
    yield "runtime:spinner_records_processed:increase1h", recorded([""], lambda at: 500 * busy(at), 300, YEAR)
    yield "runtime:spinner_runs_running:max1h", recorded([""], lambda at: round(6 * busy(at)), 300, YEAR)
    yield (
        "runtime:spinner_run_queue_seconds:p95_1h",
        recorded([""], lambda at: 4 + 30 * max(busy(at) - 1.2, 0), 300, YEAR),
    )
    for operation in ("ratio", "max1h"):
        values = ((at, round(_month_part(at, end) * 0.9, 4)) for at in range(end - YEAR, end + 1, 300))
        yield f"meter:spinner_plan_used:{operation}", [('meter="jobs_month"', values)]
    growth = ((at, 0.9 * PLAN_LIMIT / (30 * DAY)) for at in range(end - DAY, end + 1, 300))
    yield "meter:spinner_plan_used:growth", [('meter="jobs_month"', growth)]


def _month_part(at: int, end: int) -> float:
    """Return the elapsed share of the plan's month; the last one began ten days before the end."""
    return (at - end + 10 * DAY) % (30 * DAY) / (30 * DAY)


if __name__ == "__main__":
    main()
