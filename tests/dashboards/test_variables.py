"""Checks with Grafana's own code, from npm, what it makes of variables, queries and links.

`make test-all` installs the libraries into .servers/grafana.
"""

import functools
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import pytest
import yaml

from dashboards.__main__ import DASHBOARDS, DIST
from dashboards.panels import AMONG_ITS_PROJECT
from tests.dashboards.test_dashboards import urls
from tests.stack.programs import ROOT, prometheus, query

INSTALLED = ROOT / ".servers" / "grafana"
SCRIPT = Path(__file__).parent / "npm" / "variables.cjs"
BOARDS = {uid: json.loads((DIST / f"{uid}.json").read_text()) for uid in DASHBOARDS}
JOBS = BOARDS["spinner-jobs"]

pytestmark = pytest.mark.skipif(
    not (INSTALLED / "node_modules").is_dir(), reason="make test-all installs Grafana's libraries with npm"
)

ODD_NAMES = (
    'The "new" one',
    "it's",
    r"a\b",
    "a.b",
    "a|b",
    "(1+1)*2?",
    "{x}[y]^$",
    "$spinner",
    "${project}",
    "a/b#c&d=e",
    "100% über",
    " ",
)
IDS = ("job/1", "job#1", "job&var-product_url=https://evil.example", "job?x", "job 1", "100%", 'a"b', "ü", "a+b")


Answers = list[dict[str, Any]]
"""For each refresh, the `values` of variables, and the `queries` and `links` with them."""


def grafana(*tasks: Mapping[str, Any], board: Mapping[str, Any] = JOBS) -> list[Answers]:
    """Return what Grafana makes of each task with the variables of a dashboard; `variables.cjs` says what a task is."""
    empty = {
        "variables": board["templating"]["list"],
        "url": {},
        "refreshes": [{}],
        "queries": [],
        "links": [],
        "row": {},
    }
    script = started()
    assert script.stdin
    assert script.stdout
    print(json.dumps([{**empty, **task} for task in tasks]), file=script.stdin, flush=True)
    line = script.stdout.readline()
    if not line:
        started.cache_clear()
        with script:
            pytest.fail(f"the script ended with {script.wait()}; standard error says why")
    answers: list[Answers] = json.loads(line)
    return answers


@functools.cache
def started() -> subprocess.Popen[str]:
    """Start the script for all tests: it loads Grafana's libraries for two seconds."""
    return subprocess.Popen(["node", SCRIPT], cwd=INSTALLED, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="session", autouse=True)
def stopped() -> Iterator[None]:
    yield
    if started.cache_info().currsize:
        with started() as script:
            script.terminate()


def test_the_chosen_run_stays_chosen_however_many_newer_runs_there_are() -> None:
    refreshes = [{"listed": [f"job_{number}", f"job_{number + 1}"]} for number in range(3)]
    (answers,) = grafana({"refreshes": refreshes, "url": {"run": "job_0"}, "queries": ["x{run_id=~`${run:regex}`}"]})
    assert [each["values"]["run"] for each in answers] == ["job_0"] * 3
    assert {query for each in answers for query in each["queries"]} == {"x{run_id=~`job_0`}"}


def test_the_query_of_a_panel_with_a_range_of_its_own_begins_with_that_range() -> None:
    """What failed today is unknown unless `$__from` is midnight."""
    (card,) = (panel for panel in BOARDS["spinner-live-ops"]["panels"] if panel["title"] == "Runs failed today")
    assert "$__from" in card["targets"][0]["expr"]
    of_the_card, of_the_dashboard = grafana(
        {"since": card["timeFrom"], "queries": ["$__from"]}, {"queries": ["$__from"]}
    )
    day = 24 * 3600 * 1000
    assert int(of_the_card[0]["queries"][0]) % day == 0
    assert int(of_the_dashboard[0]["queries"][0]) % day != 0, "the last hour begins at another time"


def test_the_project_of_the_chosen_run_stays_chosen_and_is_any_before_a_click() -> None:
    text = "x{project=~`${run_project:regex}${run_among:raw}`}"
    refreshes = [{"project": ["A (new)", "B"]}, {"project": ["B"]}, {}]
    of_a_click = {"run": "1", "run_runtime": "eu", "run_project": "A (new)", "run_among": AMONG_ITS_PROJECT}
    first, chosen = grafana(
        {"refreshes": refreshes, "queries": [text], "url": {"run": "1"}},
        {"refreshes": refreshes, "queries": [text], "url": of_a_click},
    )
    assert [each["queries"] for each in first] == [["x{project=~`.*`}"]] * 3
    assert [each["queries"] for each in chosen] == [[r"x{project=~`A \(new\)()`}"]] * 3


def test_grafana_drops_a_value_that_is_no_longer_in_the_list() -> None:
    """What happened to the chosen run while it was a value of a list: the reason for the text."""
    ((first, second),) = grafana({"refreshes": [{"spinner": ["a", "b"]}, {"spinner": ["b"]}], "url": {"spinner": "a"}})
    assert (first["values"]["spinner"], second["values"]["spinner"]) == ("a", "All")


def test_the_list_of_runs_follows_its_query() -> None:
    refreshes = [{"listed": ["1"]}, {"listed": ["2", "3"]}, {"listed": []}]
    (answers,) = grafana({"refreshes": refreshes, "queries": ["${listed:regex}"]})
    assert [each["queries"] for each in answers] == [["1"], ["(2|3)"], ["()"]]


def test_a_name_selects_exactly_itself_in_every_query_of_every_dashboard(tmp_path: Path) -> None:
    variables = ("runtime", "project", "spinner", "listed", "stalled")
    cases = list(product(ODD_NAMES, BOARDS.values()))
    tasks = [
        {
            "variables": board["templating"]["list"],
            "url": dict.fromkeys(("runtime", "project", "spinner", "run", "run_runtime", "run_project"), name)
            | {"run_among": AMONG_ITS_PROJECT},
            "refreshes": [{variable: [name, "other"] for variable in variables}],
            "queries": list(expressions(board)),
        }
        for name, board in cases
    ]
    found: set[tuple[str, str, str]] = set()
    with prometheus(tmp_path) as url:
        for (name, _), (answer,) in zip(cases, grafana(*tasks), strict=True):
            for text in answer["queries"]:
                query(url, with_times(text))
                found.update((name, *each) for each in re.findall(r"\b(?!status)(\w+)=~`([^`]*)`", text))
    labels = ("runtime", "project", "spinner", "run_id")
    assert {(name, label) for name, label, _ in found} == set(product(ODD_NAMES, labels))
    for name, label, pattern in found:
        assert re.fullmatch(pattern, name), f"{label} has the pattern {pattern}"
        assert not re.fullmatch(pattern, f"{name}x"), f"{label} has the pattern {pattern}"


def expressions(board: Mapping[str, Any]) -> Iterator[str]:
    """Yield every query of a dashboard, also those of its variables."""
    for panel in board["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            match = re.fullmatch(r"label_values\((.+), \w+\)|query_result\((.+)\)", variable["query"]["query"])
            assert match, variable["query"]
            yield match[1] or match[2]


def with_times(text: str) -> str:
    """Replace the variables that the data source replaces for each panel."""
    return re.sub(r"\$__(rate_interval|interval|range)\b", "5m", text.replace("$__range_s", "300"))


@pytest.mark.parametrize("uid", ["spinner-jobs", "spinner-live-ops"])
def test_a_link_carries_the_id_whole_and_keeps_what_is_selected(uid: str) -> None:
    board = BOARDS[uid]
    selection = {"runtime": "eu", "project": 'The "new" one', "spinner": "a&b", "product_url": "https://p.example.com"}
    task = {
        "url": selection,
        "refreshes": [{name: [value] for name, value in selection.items()}],
        "links": list(urls(board["panels"])),
    }
    ids = ("run_id", "record_id", "parent_run_id")
    place = {"runtime": 'us "2"', "project": "R&D/#1"}
    row = {**place, "alertname": "SpinnerRunStalled"}
    tasks = [task | {"row": dict.fromkeys(ids, run_id) | row} for run_id in IDS]
    for run_id, (answer,) in zip(IDS, grafana(*tasks, board=board), strict=True):
        assert answer["links"]
        for link in answer["links"]:
            check(urlsplit(link), run_id, selection, place)


def test_an_alert_opens_its_run_also_if_it_is_not_of_the_selected_spinner() -> None:
    """The tables of alerts are not filtered by spinner."""
    board = BOARDS["spinner-live-ops"]
    (panel,) = (each for each in board["panels"] if each["title"] == "Pages")
    row = {"runtime": "eu", "project": "Sales", "run_id": "1", "alertname": "SpinnerRunStalled"}
    task = {
        "url": {"spinner": "Mails"},
        "refreshes": [{"spinner": ["Mails", "Calls"]}],
        "links": [url for url in urls(panel) if url.startswith("/d/")],
        "row": row,
    }
    ((answer,),) = grafana(task, board=board)
    (link,) = answer["links"]
    opened = {name.removeprefix("var-"): each for name, (each,) in parse_qs(urlsplit(link).query).items()}
    on_jobs = {"url": opened, "refreshes": [{"spinner": ["Mails", "Calls"]}], "queries": ["${spinner:regex}"]}
    ((jobs,),) = grafana(on_jobs)
    assert (jobs["values"]["run"], jobs["values"]["spinner"], jobs["queries"]) == ("1", "All", [".*"])


def test_a_click_on_a_spinner_leaves_out_one_of_another_project_with_its_name() -> None:
    board = BOARDS["spinner-health"]
    (panel,) = (each for each in board["panels"] if each["title"] == "All spinners")
    row = {"runtime": "eu", "project": "R&D", "spinner": "Welcome"}
    options = {"runtime": ["eu", "us"], "project": ["R&D", "Sales"], "spinner": ["Mails", "Welcome"]}
    task = {"refreshes": [options], "links": list(urls(panel)), "row": row}
    ((answer,),) = grafana(task, board=board)
    (link,) = answer["links"]
    opened = {name.removeprefix("var-"): each for name, (each,) in parse_qs(urlsplit(link).query).items()}
    median, *_ = next(each["targets"] for each in board["panels"] if each["title"] == "Run duration")
    ((there,),) = grafana({"url": opened, "refreshes": [options], "queries": [median["expr"]]}, board=board)
    assert [re.findall(f"{label}=~`(.*?)`", there["queries"][0]) for label in row] == [[each] for each in row.values()]


def test_a_failed_run_of_the_week_opens_jobs_at_the_time_at_which_it_had_failed() -> None:
    board = BOARDS["spinner-health"]
    failed_at = 1_795_932_000_123
    place = {"runtime": "us", "project": "R&D"}
    row = {**place, "run_id": "job/1", "spinner": 'The "new" one', "from": failed_at - 10_800_000, "to": failed_at}
    task = {
        "url": {"runtime": "eu", "product_url": "https://p.example.com"},
        "refreshes": [{"runtime": ["eu"]}],
        "links": [url for url in urls(board["panels"]) if "fields.from" in url],
        "row": row,
    }
    ((answer,),) = grafana(task, board=board)
    (link,) = answer["links"]
    found = parse_qs(urlsplit(link).query, strict_parsing=True)
    assert (found["var-run"], found["var-spinner"]) == (["job/1"], ['The "new" one'])
    assert (found["var-runtime"], found["var-product_url"]) == (["eu"], ["https://p.example.com"])
    assert (found["from"], found["to"]) == (["1795921200123"], ["1795932000123"])
    assert chosen_place(found) == place


def test_a_run_in_the_heat_map_opens_jobs_at_the_time_at_which_it_had_ended() -> None:
    board = BOARDS["spinner-health"]
    (panel,) = (panel for panel in board["panels"] if panel["type"] == "heatmap")
    file = ROOT / "deploy" / "grafana" / "provisioning" / "datasources" / "prometheus.yml"
    (source,) = yaml.safe_load(file.read_text().replace("$$", "$"))["datasources"]  # As Grafana reads $$.
    names = {"runtime": "eu", "project": 'The "new" one', "spinner": "a&b"}
    task = {
        "url": {"product_url": "https://p.example.com"},
        "destinations": source["jsonData"]["exemplarTraceIdDestinations"],
        "panel": panel,
        "histograms": ["spinner_run_finished_duration_seconds_bucket"],
    }
    rows = [{"Time": 1_795_932_000_000, "Value": 800, "le": "900.0", **names, "run_id": run_id} for run_id in IDS]
    answers = grafana(*({**task, "row": row} for row in rows), board=board)
    for run_id, (answer,) in zip(IDS, answers, strict=True):
        found = answer["exemplars"]
        assert found["asked"] == [panel["targets"][0]["refId"]]
        (link,) = found["links"]
        query = parse_qs(urlsplit(link).query, strict_parsing=True, keep_blank_values=True)
        carried = {**names, "run": run_id, "product_url": "https://p.example.com"}
        assert {name: query[f"var-{name}"] for name in carried} == {name: [value] for name, value in carried.items()}
        assert chosen_place(query) == {"runtime": names["runtime"], "project": names["project"]}
        assert found["ranges"] == [["2026-11-29T05:55:00.000Z", "2026-11-29T06:05:00.000Z"]]


def chosen_place(parameters: Mapping[str, list[str]]) -> dict[str, str]:
    """Return the runtime and the project of the run that a link chooses."""
    assert parameters["var-run_among"] == [AMONG_ITS_PROJECT]
    ((runtime,), (project,)) = (parameters[f"var-run_{name}"] for name in ("runtime", "project"))
    return {"runtime": runtime, "project": project}


def check(link: SplitResult, run_id: str, selection: Mapping[str, str], place: Mapping[str, str]) -> None:
    assert not link.fragment, link
    if link.hostname == "runbooks.example.com":
        assert link.path == "/SpinnerRunStalled.md", link
    elif link.hostname:
        assert link.hostname == "p.example.com"
        ids = [unquote(part) for part in (*link.path.split("/"), link.query.partition("=")[2])]
        assert run_id in ids, link
    else:
        query = parse_qs(link.query, strict_parsing=True, keep_blank_values=True)
        assert link.path == "/d/spinner-jobs"
        kept = set(selection) - ({"spinner"} if query["var-spinner"] == ["$__all"] else set())
        assert {name: query[f"var-{name}"] for name in kept} == {name: [selection[name]] for name in kept}
        if query.get("var-run", [""]) != [""]:
            assert query["var-run"] == [run_id], link
            assert chosen_place(query) == place
        assert query["from"] == ["now-1h"]
