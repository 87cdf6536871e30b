"""Runs every query of every panel and variable on a real Prometheus, which scrapes exporters of running scenarios."""

import json
import math
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from dashboards.__main__ import DASHBOARDS, DIST
from tests.dashboards.grafana import interpolate
from tests.stack.programs import ROOT, exporter, exporter_with, program, prometheus, query, runtime, until

# Panels, or queries of panels, without data in these scenarios, and why.
EMPTY_BY_DESIGN = {
    "spinner-live-ops/Runs failed today": "no run failed, and that is not certain of the time before the first scrape",
    "spinner-live-ops/Active runs/A": "the variable with the stalled runs has no value",
    "spinner-health/Run duration change": "there are no data of last week (test_freshness has some, with idle hours)",
    "spinner-health/Record time change": "there are no data of last week",
    "spinner-health/Failed runs of the week": "no run failed",
    "spinner-health/Run duration/median one week earlier": "there are no data of last week",
    "spinner-health/Run durations/A": "it asks for exemplars, and for no values",
    "spinner-capacity/Growth of runs": "there are no data of last month",
    "spinner-capacity/Growth of records": "there are no data of last month",
    "spinner-exporter/Skipped data/projects not read": "there are fewer projects than limits.projects",
    "spinner-exporter/Skipped data/unmapped: {{label}}": "these runtimes use known status labels",
}

# Queries of marks that are shown, or not, from one moment to the next.
DEPENDS = {"spinner-jobs/Records in flight/C": "whether the records in flight of the stalled run have been read yet"}

BOARDS = {uid: json.loads((DIST / f"{uid}.json").read_text()) for uid in DASHBOARDS}


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus with two exporters: one reads a healthy and a stalled runtime, one only the healthy one."""
    folder = tmp_path_factory.mktemp("scenarios")
    homes = {name: folder / name for name in ("healthy", "stalled")}
    for home in homes.values():
        home.mkdir()
    for name, home in homes.items():
        scenario = yaml.safe_load((ROOT / "exporter" / "simulator" / "scenarios" / f"{name}.yaml").read_text())
        scenario["plan"] = {"jobs_month": {"limit": 10000, "used": 4000}}
        (home / "scenario.yaml").write_text(yaml.safe_dump(scenario))
    settings = "sync: {min_interval: 0s}\nstalls: {floor: 2s, ceiling: 4s}\n"
    both = folder / "both.yml"
    with (
        runtime(homes["healthy"], scenario=homes["healthy"] / "scenario.yaml", speed=240, seed=1) as healthy,
        runtime(homes["stalled"], scenario=homes["stalled"] / "scenario.yaml", speed=240, seed=2) as stalled,
        exporter(homes["healthy"], healthy, settings) as alone,
        exporter_with(_of_two(both, healthy, stalled, settings)) as pair,
        prometheus(folder, alone, pair, rules=quick_rules(folder)) as url,
    ):
        until(
            lambda: query(url, 'ALERTS{alertname="SpinnerRunStalled"}'), "the stalled run's alert is pending or firing"
        )
        until(lambda: query(url, "project:spinner_runs_running:max1h > 0"), "recording rules are evaluated")
        until(
            lambda: query(url, "project_spinner:spinner_run_queue_seconds:p95_1h > 0"), "the queue times are recorded"
        )
        yield url


def _of_two(file: Path, healthy: str, stalled: str, settings: str) -> Path:
    file.write_text(
        f'runtimes: [{{name: fine, base_url: "{healthy}"}}, {{name: stuck, base_url: "{stalled}"}}]\n{settings}'
    )
    return file


def quick_rules(folder: Path, *, without_for: bool = True) -> Path:
    """The rules, evaluated every second, and without `for` where scenarios run faster than real time."""
    groups = []
    for file in sorted((ROOT / "alerts").glob("*.rules.yml")):
        groups += yaml.safe_load(file.read_text())["groups"]
    for group in groups:
        group["interval"] = "1s"
        for rule in group["rules"]:
            if without_for:
                rule.pop("for", None)
            # Subqueries evaluate at whole minutes or hours, and a fast scenario may be over before the next one.
            rule["expr"] = rule["expr"].replace(":1m]", ":1s]").replace("[1d:1h]", "[1m:1s]")
    rules = folder / "rules.yml"
    rules.write_text(yaml.safe_dump({"groups": groups}))
    return rules


def queries() -> Iterator[Any]:
    for uid, board in BOARDS.items():
        for panel in board["panels"]:
            several = len(panel["targets"]) > 1
            legends = [target["legendFormat"] for target in panel["targets"]]
            for target in panel["targets"]:
                is_named = target["legendFormat"] != "__auto" and legends.count(target["legendFormat"]) == 1
                part = (target["legendFormat"] if is_named else target["refId"]) if several else ""
                name = "/".join(filter(None, (uid, panel["title"], part)))
                yield pytest.param(target["expr"], id=name)


@pytest.mark.parametrize("expression", list(queries()))
def test_a_panel_s_query_returns_data(scenarios: str, expression: str, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.id
    ready = within_minutes(expression)
    if name in EMPTY_BY_DESIGN:
        assert not query(scenarios, ready), f"{name} has data; remove it from EMPTY_BY_DESIGN"
        return

    if name in DEPENDS:
        query(scenarios, ready)
        return

    def has_data() -> bool:
        clicks = runs(scenarios) if "${run:regex}" in expression else [{}]
        return any(
            value == value  # NaN counts as no data
            for each in clicks
            for _, value in query(scenarios, within_minutes(expression, **each))
        )

    until(has_data, f"{name} has data; query:\n{ready}")


def runs(scenarios: str) -> list[dict[str, str]]:
    """Each run that can be clicked."""
    return [
        chosen(labels) for labels, _ in query(scenarios, "group by (runtime, project, run_id) (spinner_run_status)")
    ]


def chosen(run: Mapping[str, str]) -> dict[str, str]:
    """The values of the variables after a click on a run."""
    place = {f"run_{label}": re.escape(run[label]) for label in ("runtime", "project")}
    return {"run": re.escape(run["run_id"]), "run_among": "()", **place}


def within_minutes(expression: str, **variables: str) -> str:
    """The hours and days of a query do not exist yet: the scenarios are over within minutes."""
    query = interpolate(expression, variables).replace(" offset -1h", "").replace(" offset -1d", "")
    return query.replace(":1h] offset -30m", ":1s]")


def test_the_runs_in_the_heat_map_are_exemplars_of_its_buckets(scenarios: str) -> None:
    """Grafana places them by `le`, which has to be written as in the buckets, and needs the other labels for links."""
    panel = next(panel for panel in BOARDS["spinner-health"]["panels"] if panel["type"] == "heatmap")
    of_runs, buckets = (target["expr"] for target in panel["targets"])
    parameters = {"query": interpolate(of_runs, {}), "start": "0", "end": "9999999999"}

    def marks() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = httpx.get(f"{scenarios}/api/v1/query_exemplars", params=parameters).json()["data"]
        return found

    def rows() -> set[str]:
        return {labels["le"] for labels, _ in query(scenarios, within_minutes(buckets))}

    until(marks, "a run has ended")
    found = marks()
    # Rules record an increase some scrapes after the end.
    until(lambda: {each["seriesLabels"]["le"] for each in found} <= rows(), f"each bucket of {found} is a row")
    for each in found:
        assert each["seriesLabels"].keys() >= {"runtime", "project", "spinner"}
        assert all(exemplar["labels"].keys() == {"run_id"} for exemplar in each["exemplars"])


def variables() -> Iterator[Any]:
    for uid, board in BOARDS.items():
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                yield pytest.param(variable, id=f"{uid}/{variable['name']}")


@pytest.mark.parametrize("variable", list(variables()))
def test_a_variable_s_query_returns_values(scenarios: str, variable: dict[str, Any]) -> None:
    text = interpolate(variable["query"]["query"], {})
    if match := re.fullmatch(r"label_values\((.+), (\w+)\)", text):
        answer = httpx.get(f"{scenarios}/api/v1/label/{match[2]}/values", params={"match[]": match[1]}).json()
        values = answer["data"]
    else:
        match = re.fullmatch(r"query_result\((.+)\)", text)
        assert match, text
        values = []
        pattern = re.compile(variable["regex"].strip("/"))
        for labels, _ in query(scenarios, match[1]):
            shown = "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"
            found = pattern.search(shown)
            assert found, f"{pattern.pattern} does not match {shown}"
            values.append(found[1])
    assert values, f"{text} has no values"


def test_selecting_a_run_filters_the_panels(scenarios: str) -> None:
    run = query(scenarios, "topk(1, spinner_run_failed_records)")[0][0]
    board = BOARDS["spinner-jobs"]
    records = next(panel for panel in board["panels"] if panel["title"] == "Records by state")
    ours = {
        labels["state"]: value
        for labels, value in query(scenarios, interpolate(records["targets"][0]["expr"], chosen(run)))
    }
    plain = query(scenarios, f'spinner_run_records{{run_id="{run["run_id"]}"}}')
    assert set(ours) == {labels["state"] for labels, _ in plain}


def test_a_stalled_run_is_shown_as_stalled_and_a_completed_one_with_failures_is_not_green(scenarios: str) -> None:
    board = BOARDS["spinner-jobs"]
    table = next(panel for panel in board["panels"] if panel["title"] == "Runs")

    listed = next(each for each in board["templating"]["list"] if each["name"] == "listed")
    match = re.fullmatch(r"query_result\((.+)\)", listed["query"]["query"])
    assert match

    def shown(**chosen: str) -> dict[tuple[str, str], str]:
        ids = [labels["run_id"] for labels, _ in query(scenarios, interpolate(match[1], chosen))]
        chosen["listed"] = f"({'|'.join(ids)})"
        rows = query(scenarios, interpolate(table["targets"][0]["expr"], chosen))
        runs = {run_of(labels): labels["status"] for labels, _ in rows}
        assert len(runs) == len(rows), "a run has exactly one status"
        return runs

    def run_of(labels: dict[str, str]) -> tuple[str, str]:
        return labels["runtime"], labels["run_id"]

    until(lambda: "stalled" in shown().values(), "the stalled run is shown as stalled")
    assert set(shown(status="stalled").values()) == {"stalled"}
    assert "stalled" not in shown(status="running").values()
    assert "stalled" not in shown(runtime="fine").values(), "the stalled run belongs to the other runtime"
    assert shown(runtime="127.0.0.1:.*"), "an exporter with a single runtime is shown too, by the runtime's address"
    completed = 'spinner_run_status{status="completed"}'
    failed = query(scenarios, f"spinner_run_failed_records > 0 and on (runtime, run_id) {completed}")
    statuses = shown()
    assert failed
    assert {statuses.get(run_of(labels), "failures") for labels, _ in failed} == {"failures"}


# -- steps longer than an hour ------------------------------------------------------------------------------

MINUTE, HOUR, DAY = 60, 3600, 86_400
MIDNIGHT = 20_000 * DAY
DAYS = 4
PEAKS = {"Sales": (MIDNIGHT + DAY + 3 * HOUR + 20 * MINUTE, 9), "Clinic": (MIDNIGHT + DAY + 15 * HOUR + 20 * MINUTE, 5)}
"""When each project had most runs in progress, and how many; otherwise it had one."""
FULL = MIDNIGHT + DAY + 7 * HOUR + 30 * MINUTE
"""The plan was full until then, for ten minutes."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus with what the recording rules would have recorded over some days, every five minutes."""
    folder = tmp_path_factory.mktemp("recorded")
    lines = []
    times = range(MIDNIGHT, MIDNIGHT + DAYS * DAY + 1, 5 * MINUTE)
    for name in ("project:spinner_runs_running:max1h", "project:spinner_run_queue_seconds:p95_1h"):
        lines.append(f"# TYPE {name} unknown")
        for project, (at, most) in PEAKS.items():
            lines += [f'{name}{{project="{project}"}} {most if at <= now < at + HOUR else 1} {now}' for now in times]
    lines.append("# TYPE project_status:spinner_runs_finished:increase1d unknown")
    finished = 'project_status:spinner_runs_finished:increase1d{project="Sales",status="completed"}'
    lines += [f"{finished} {7 if now == MIDNIGHT + 2 * DAY else 1} {now}" for now in times]
    lines.append("# TYPE meter:spinner_plan_used:max1h unknown")
    # Samples of the plan are five minutes apart, and each hour's maximum includes those of the hour before.
    within_an_hour = range(FULL - 10 * MINUTE, FULL + HOUR - 5 * MINUTE)
    lines += [
        f'meter:spinner_plan_used:max1h{{meter="jobs_month"}} {1 if now in within_an_hour else 0.5} {now}'
        for now in times
    ]
    (folder / "samples.om").write_text("\n".join([*lines, "# EOF\n"]))
    create = ("tsdb", "create-blocks-from", "--max-block-duration=744h", "openmetrics", "samples.om", "prometheus")
    subprocess.run([program("promtool"), *create], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    with prometheus(folder, keep="100y") as url:
        yield url


def drawn(url: str, title: str, step: int, *, above: float) -> dict[int, float]:
    """Return the points of a panel of Capacity that are above a value, if the graph has this step."""
    panel = next(panel for panel in BOARDS["spinner-capacity"]["panels"] if panel["title"] == title)
    (target,) = panel["targets"]
    params: dict[str, Any] = {
        "query": interpolate(target["expr"], {"__interval": f"{step}s"}),
        "start": MIDNIGHT + DAY,
        "end": MIDNIGHT + DAYS * DAY,
        "step": step,
    }
    answer = httpx.get(f"{url}/api/v1/query_range", params=params).json()
    assert answer["status"] == "success", answer
    (line,) = answer["data"]["result"]
    return {int(at): float(value) for at, value in line["values"] if float(value) > above}


@pytest.mark.parametrize("title", ["Peak concurrent runs", "Concurrent runs"])
def test_concurrent_runs_have_each_peak_in_its_step_only_however_long_the_steps_are(recorded: str, title: str) -> None:
    day = MIDNIGHT + DAY
    assert drawn(recorded, title, HOUR, above=2) == {day + 4 * HOUR: 10, day + 16 * HOUR: 6}
    assert drawn(recorded, title, 12 * HOUR, above=2) == {day + 12 * HOUR: 10, day + 24 * HOUR: 6}
    assert drawn(recorded, title, DAY, above=2) == {day + DAY: 10}, "peaks of different hours were not at the same time"


def test_the_queue_time_is_that_of_the_worst_hour_of_each_step(recorded: str) -> None:
    day = MIDNIGHT + DAY
    assert drawn(recorded, "Queue time", HOUR, above=1) == {day + 4 * HOUR: 9, day + 16 * HOUR: 5}
    assert drawn(recorded, "Queue time", DAY, above=1) == {day + DAY: 9}


def test_the_runs_of_a_day_stand_at_that_day(recorded: str) -> None:
    """They are recorded at its end."""
    assert drawn(recorded, "Runs per day", DAY, above=2) == {MIDNIGHT + DAY: 7}


def test_a_plan_that_was_full_for_minutes_is_shown_as_full(recorded: str) -> None:
    day = MIDNIGHT + DAY
    for step in (HOUR, 12 * HOUR, DAY):
        end_of_step = day + math.ceil((FULL - day) / step) * step
        assert drawn(recorded, "Plan usage", step, above=0.5) == {end_of_step: 1}
