"""Every query of every panel and variable, asked of a real Prometheus that scrapes real stories."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from dashboards.__main__ import DASHBOARDS, DIST
from tests.dashboards.grafana import interpolate
from tests.stack.programs import ROOT, exporter, exporter_with, prometheus, query, runtime, until

# Panels, or parts of them, that are empty in these stories, and why.
EMPTY_BY_DESIGN = {
    "spinner-health/Duration, week on week": "there was no week before",
    "spinner-health/Record, week on week": "there was no week before",
    "spinner-health/Duration of runs, against last week/median last week": "there was no week before",
    "spinner-capacity/Growth of runs": "there was no month before",
    "spinner-capacity/Growth of records": "there was no month before",
    "spinner-exporter/Left out/projects not read": "there are not more than limits.projects",
    "spinner-exporter/Left out/unmapped status: {{label}}": "these runtimes use words that are known",
}

BOARDS = {uid: json.loads((DIST / f"{uid}.json").read_text()) for uid in DASHBOARDS}


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that scrapes an exporter of a healthy and a stalled runtime, and one of the first alone."""
    folder = tmp_path_factory.mktemp("stories")
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
        prometheus(folder, alone, pair, rules=_quick_rules(folder)) as url,
    ):
        until(
            lambda: query(url, 'ALERTS{alertname="SpinnerRunStalled"}'), "the stalled run's alert is at least pending"
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


def _quick_rules(folder: Path) -> Path:
    """The rules as they are, but evaluated every second and alerting at once: stories at speed have no time to wait."""
    groups = []
    for file in sorted((ROOT / "alerts").glob("*.rules.yml")):
        groups += yaml.safe_load(file.read_text())["groups"]
    for group in groups:
        group["interval"] = "1s"
        for rule in group["rules"]:
            rule.pop("for", None)
            # Subqueries look at whole minutes, and a story at speed may be over before the next one.
            rule["expr"] = rule["expr"].replace(":1m]", ":1s]")
    rules = folder / "rules.yml"
    rules.write_text(yaml.safe_dump({"groups": groups}))
    return rules


def asked() -> Iterator[Any]:
    for uid, board in BOARDS.items():
        for panel in board["panels"]:
            several = len(panel["targets"]) > 1
            for target in panel["targets"]:
                part = target["legendFormat"] if several and target["legendFormat"] != "__auto" else ""
                name = "/".join(filter(None, (uid, panel["title"], part or (target["refId"] if several else ""))))
                yield pytest.param(target["expr"], id=name)


@pytest.mark.parametrize("expression", list(asked()))
def test_a_panel_s_query_returns_data(stories: str, expression: str, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.id
    # Asked of the present: what begins now, and is known when it is over, would not be there yet.
    ready = interpolate(expression, {}).replace(" offset -1h", "")
    if name in EMPTY_BY_DESIGN:
        assert not query(stories, ready), f"{name} has data; take it off the list of the empty ones"
        return

    def has_data() -> bool:
        return any(value == value for _, value in query(stories, ready))  # NaN is none

    until(has_data, f"{name} has data; its query is\n{ready}")


def variables() -> Iterator[Any]:
    for uid, board in BOARDS.items():
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                yield pytest.param(variable, id=f"{uid}/{variable['name']}")


@pytest.mark.parametrize("variable", list(variables()))
def test_a_variable_s_query_returns_values(stories: str, variable: dict[str, Any]) -> None:
    text = interpolate(variable["query"]["query"], {})
    if match := re.fullmatch(r"label_values\((.+), (\w+)\)", text):
        answer = httpx.get(f"{stories}/api/v1/label/{match[2]}/values", params={"match[]": match[1]}).json()
        values = answer["data"]
    else:
        match = re.fullmatch(r"query_result\((.+)\)", text)
        assert match, text
        values = []
        pattern = re.compile(variable["regex"].strip("/"))
        for labels, _ in query(stories, match[1]):
            shown = "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"
            found = pattern.search(shown)
            assert found, f"{pattern.pattern} finds nothing in {shown}"
            values.append(found[1])
    assert values, f"{text} has no values"


def test_choosing_one_run_narrows_the_panels_to_it(stories: str) -> None:
    run = query(stories, "topk(1, spinner_run_failed_records)")[0][0]["run_id"]
    board = BOARDS["spinner-jobs"]
    records = next(panel for panel in board["panels"] if panel["title"] == "Records by state")
    ours = {
        labels["state"]: value
        for labels, value in query(stories, interpolate(records["targets"][0]["expr"], {"run": run}))
    }
    plain = query(stories, f'spinner_run_records{{run_id="{run}"}}')
    assert set(ours) == {labels["state"] for labels, _ in plain}


def test_a_stalled_run_is_shown_as_stalled_and_a_completed_one_with_failures_is_not_green(stories: str) -> None:
    board = BOARDS["spinner-jobs"]
    table = next(panel for panel in board["panels"] if panel["title"] == "Runs")

    def shown(**chosen: str) -> dict[tuple[str, str], str]:
        rows = query(stories, interpolate(table["targets"][2]["expr"], chosen))
        runs = {run_of(labels): labels["status"] for labels, _ in rows}
        assert len(runs) == len(rows), "a run has one status"
        return runs

    def run_of(labels: dict[str, str]) -> tuple[str, str]:
        return labels.get("runtime", ""), labels["run_id"]

    until(lambda: "stalled" in shown().values(), "the stalled run is shown as stalled")
    assert "stalled" not in shown(runtime="fine").values(), "the stalled run is the other runtime's"
    assert shown(runtime=""), "an exporter of one runtime is shown too, though its series have no such label"
    completed = 'spinner_run_status{status="completed"}'
    failed = query(stories, f"spinner_run_failed_records > 0 and on (runtime, run_id) {completed}")
    statuses = shown()
    assert failed
    assert {statuses.get(run_of(labels), "failures") for labels, _ in failed} == {"failures"}
