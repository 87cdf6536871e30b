"""Checks the table of runs on Jobs, as Grafana shows it: what is listed, in which order, and what is said of a run."""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dashboards.__main__ import DIST
from dashboards.jobs import MOST_LISTED
from dashboards.queries import RULES
from tests.dashboards.grafana import Page
from tests.dashboards.shown import Shown, show
from tests.stack.programs import prometheus_with
from tests.unknown.remote_write import RemoteWriter, labels_of
from tests.unknown.rule_engine import RuleEngine

BOARD = json.loads((DIST / "spinner-jobs.json").read_text())
NOW = 1_795_932_000  # 2026-11-29 06:00 UTC
HOUR = 3600

Samples = dict[str, float]
"""The value at `NOW` of each series."""


def fresh(*projects: str) -> Samples:
    """The series of an exporter that has just read these projects."""
    own = 'job="spinner",instance="a",runtime="eu"'
    return {
        'up{job="spinner",instance="a"}': 1,
        **{f"spinner_{name}{{{own}}}": 1 for name in ("api_up", "runtime_up")},
        **{f'spinner_project_up{{{own},project="{project}"}}': 1 for project in projects},
    }


def run(run_id: str, status: str, project: str = "Sales", spinner: str = "Welcome", **values: float) -> Samples:
    """The series of a run. `values` by the name of the metric, such as `end_timestamp_seconds`."""
    labels = f'runtime="eu",project="{project}",spinner="{spinner}",run_id="{run_id}"'
    values = {"created_timestamp_seconds": NOW - HOUR, "failed_records": 0} | values
    return {
        f'spinner_run_status{{{labels},status="{status}"}}': 1,
        f'spinner_run_info{{{labels},trigger="schedule",parent_run_id=""}}': 1,
        **{f"spinner_run_{name}{{{labels}}}": value for name, value in values.items()},
    }


def silent(run_id: str, seconds: float, threshold: float = 600) -> Samples:
    return run(run_id, "running", last_progress_timestamp_seconds=NOW - seconds, stall_threshold_seconds=threshold)


def ended(run_id: str, status: str, minutes: float, *, failed: int = 0, **labels: str) -> Samples:
    return run(run_id, status, **labels, end_timestamp_seconds=NOW - 60 * minutes, failed_records=failed)  # type: ignore[arg-type]


@contextmanager
def recorded(folder: Path, samples: Samples) -> Iterator[str]:
    """Run a Prometheus that has these samples, and what the rules record of them."""
    with (
        prometheus_with(folder, {}, "--web.enable-remote-write-receiver", "--storage.tsdb.retention.time=100y") as url,
        contextlib.closing(RemoteWriter(url)) as writer,
        contextlib.closing(RuleEngine(url, writer, RULES)) as rules,
    ):
        for selector, value in samples.items():
            name, _, labels = selector.partition("{")
            writer.add(labels_of(name, dict(re.findall(r'(\w+)="([^"]*)"', labels))), NOW, value)
        writer.flush()
        rules.evaluate(NOW)
        yield url


def clicked(run_id: str, project: str = "Sales") -> dict[str, str]:
    """What a click on a run chooses."""
    return {"run": run_id, "run_runtime": "eu", "run_project": project, "run_among": "()"}


def jobs(url: str, **chosen: Any) -> Mapping[str, Shown]:
    return show(Page(BOARD, url, now=NOW, **chosen))


def column(shown: Mapping[str, Shown], title: str) -> list[str]:
    return [str(row[title]) for row in shown["Runs"].rows]


def ids(shown: Mapping[str, Shown]) -> list[str]:
    return [each.splitlines()[-1] for each in column(shown, "Run")]


def statuses_of(shown: Mapping[str, Shown]) -> dict[str, str]:
    """The status of each listed run by its id, in their order."""
    return dict(zip((each.removeprefix("➤ ") for each in ids(shown)), column(shown, "Status"), strict=True))


UNREAD: Samples = {'spinner_project_up{job="spinner",instance="a",runtime="eu",project="Sales"}': 0}
"""Over those of `fresh`: the project Sales cannot be read."""

EACH_STATUS = (
    ended("some failed", "completed", 5, failed=3)
    | ended("completed", "completed", 1)
    | ended("completed before", "completed", 2)
    | ended("failed", "failed", 50)
    | ended("failed before", "failed", 55)
    | ended("cancelled", "cancelled", 3, failed=2)
    | silent("stalled", 700)
    | silent("silent", 500)
    | silent("moving", 5)
    | silent("overdue", 6)
    | {
        'ALERTS{alertname="SpinnerRunOverdue",alertstate="firing",runtime="eu",project="Sales",spinner="Welcome",'
        'run_id="overdue"}': 1
    }
    | run("waiting", "waiting")
    | run("queued", "queued", created_timestamp_seconds=NOW - 60)
    | run("queued for longer", "queued")
    | run("unmapped", "unknown")
)
BY_NEED = [
    "stalled", "failed", "failed before", "some failed", "overdue", "unmapped", "silent", "moving", "waiting",
    "queued for longer", "queued", "completed", "completed before", "cancelled",
]  # fmt: skip


def test_what_needs_a_person_comes_first(tmp_path: Path) -> None:
    with recorded(tmp_path, fresh("Sales") | EACH_STATUS) as url:
        assert ids(jobs(url)) == BY_NEED
        assert ids(jobs(url, status="stalled")) == ["stalled"]
        assert ids(jobs(url, status="failures")) == ["some failed"]
        assert ids(jobs(url, status="running")) == ["silent", "moving"]


def test_of_a_project_that_cannot_be_read_no_run_is_said_to_be_running(tmp_path: Path) -> None:
    with recorded(tmp_path, fresh("Sales") | UNREAD | EACH_STATUS) as url:
        shown = jobs(url, **clicked("stalled"))
        statuses = statuses_of(shown)
        assert {run_id for run_id, text in statuses.items() if text == "? not read"} == {"stalled", "silent", "moving"}
        assert "▶ running" not in statuses.values()
        order = list(statuses)
        assert order[:4] == ["failed", "failed before", "some failed", "overdue"]
        assert set(order[4:8]) == {"unmapped", "stalled", "silent", "moving"}
        last_running = ids(jobs(url, status="running"))
        assert sorted(last_running) == ["moving", "silent", "stalled"], "the filter knows the last status"
        (row,) = shown["Chosen run"].rows
        assert str(row["Status"]) == "? not read"


def test_while_the_worker_service_is_down_no_silent_run_is_said_to_be_running(tmp_path: Path) -> None:
    down = {'spinner_runtime_up{job="spinner",instance="a",runtime="eu"}': 0.0}
    with recorded(tmp_path, fresh("Sales") | down | EACH_STATUS) as url:
        shown = jobs(url, **clicked("stalled"))
    statuses = statuses_of(shown)
    assert {run_id for run_id, text in statuses.items() if text.startswith("?")} == {"stalled"}
    assert {statuses[run_id] for run_id in ("silent", "moving")} == {"▶ running"}, "within their thresholds"
    silence = dict(zip(statuses, column(shown, "Silence"), strict=True))
    assert [silence[run_id] for run_id in ("stalled", "silent", "moving", "waiting")] == ["?", "?", "?", ""]
    (row,) = shown["Chosen run"].rows
    assert str(row["Status"]) == statuses["stalled"] == "? worker down"
    assert [str(mark) for mark in shown["Status"].marks.values()] == ["? unknown"]


def test_a_run_that_is_not_recorded_yet_is_listed_if_it_has_not_ended(tmp_path: Path) -> None:
    with (
        recorded(tmp_path, fresh("Sales") | ended("a", "completed", 1)) as url,
        contextlib.closing(RemoteWriter(url)) as writer,
    ):
        labels = {"runtime": "eu", "project": "Sales", "spinner": "Welcome", "run_id": "new"}
        writer.add(labels_of("spinner_run_status", labels | {"status": "running"}), NOW, 1)
        writer.add(labels_of("spinner_run_created_timestamp_seconds", labels), NOW, NOW - 5)
        writer.flush()
        assert sorted(ids(jobs(url))) == ["a", "new"]
        assert ids(jobs(url, status="running")) == ["new"]
        assert "no runs" in str(jobs(url, status="waiting")["Runs"])


def test_of_many_runs_those_that_need_a_person_are_listed(tmp_path: Path) -> None:
    many: dict[str, Any] = {}
    for number in range(MOST_LISTED + 50):
        many |= ended(f"job_{number}", "completed", 1)
    with recorded(tmp_path, fresh("Sales") | many | EACH_STATUS) as url:
        listed = ids(jobs(url))
    assert len(listed) == MOST_LISTED
    assert listed[:11] == BY_NEED[:11]


def test_of_many_running_runs_those_of_a_project_that_cannot_be_read_are_listed(tmp_path: Path) -> None:
    many: dict[str, Any] = {}
    for number in range(MOST_LISTED + 50):
        many |= run(
            f"job_{number}", "running", "Clinic", last_progress_timestamp_seconds=NOW, stall_threshold_seconds=60
        )
    with recorded(tmp_path, fresh("Sales", "Clinic") | UNREAD | many | silent("unread", 30)) as url:
        assert ids(jobs(url))[0] == "unread"


def test_the_project_is_shown_where_there_is_more_than_one(tmp_path: Path) -> None:
    one, two = fresh("Sales"), fresh("Sales", "Clinic")
    runs = ended("a", "completed", 1) | ended("b", "completed", 2, project="Clinic")
    for samples, shown in ((one, False), (two, True)):
        folder = tmp_path / str(shown)
        folder.mkdir()
        with recorded(folder, samples | runs) as url:
            found = jobs(url)
            assert ("Project" in found["Runs"].rows[0]) == shown
    assert column(found, "Project") == ["Sales", "Clinic"]


def test_the_runtime_is_shown_with_the_project_where_there_is_more_than_one(tmp_path: Path) -> None:
    other = {key.replace('"eu"', '"us"').replace('"a"', '"b"'): value for key, value in fresh("Sales").items()}
    with recorded(tmp_path, fresh("Sales") | other | ended("a", "completed", 1)) as url:
        assert column(jobs(url), "Project") == ["Sales\neu"]


def test_the_trigger_is_shown_where_it_differs_and_a_parent_is_marked(tmp_path: Path) -> None:
    runs = ended("a", "completed", 1) | ended("b", "completed", 2)
    child = {
        key.replace('"schedule",parent_run_id=""', '"child",parent_run_id="a"') if 'run_id="b"' in key else key: value
        for key, value in runs.items()
    }
    for samples, triggers in ((runs, []), (child, ["schedule", "child ↗"])):
        folder = tmp_path / str(len(triggers))
        folder.mkdir()
        with recorded(folder, fresh("Sales") | samples) as url:
            assert [str(row["Trigger"]) for row in jobs(url)["Runs"].rows if "Trigger" in row] == triggers


def test_a_chosen_run_is_marked_and_one_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    runs = ended("a", "completed", 1) | ended("b", "completed", 2)
    with recorded(tmp_path, fresh("Sales") | runs) as url:
        assert column(jobs(url, run="b"), "Run") == ["Welcome\na", "➤ Welcome\nb"]
        assert column(jobs(url), "Run") == ["Welcome\na", "Welcome\nb"]
        assert "✔ completed" in str(jobs(url, run="b")["Chosen run"])
        assert "none: click a run" in str(jobs(url)["Chosen run"])
        gone = jobs(url, run="c")
        assert "▲ not reported" in str(gone["Chosen run"])
        assert str(gone["Records by state"]).startswith("? ")
    lost = {key: value for key, value in fresh("Sales").items() if "project_up" not in key}
    folder = tmp_path / "lost"
    folder.mkdir()
    with recorded(folder, lost | runs) as url:
        assert str(jobs(url, run="c")["Chosen run"]).startswith("? unknown")


def of_project(project: str, *, completed: int, pending: int, failed: int, **values: Any) -> Samples:
    """A run with the id 1 and its records."""
    labels = f'runtime="eu",project="{project}",spinner="Welcome",run_id="1"'
    counts = {"completed": completed, "pending": pending, "failed": failed}
    failures = f'{labels},step="Call",error_code="BUSY"'
    status = "failed" if failed else "running"
    return (
        run("1", status, project, failed_records=failed, **values)
        | {f'spinner_run_records{{{labels},state="{state}"}}': count for state, count in counts.items()}
        | (
            {
                f"spinner_run_failures{{{failures}}}": failed,
                f'spinner_run_failed_record_info{{{failures},record_id="rec"}}': 1,
            }
            if failed
            else {}
        )
    )


SAME_ID = (
    fresh("Sales", "Support")
    | of_project("Sales", completed=900, pending=0, failed=100, end_timestamp_seconds=NOW - 60)
    | of_project(
        "Support", completed=10, pending=90, failed=0,
        last_progress_timestamp_seconds=NOW - 120, stall_threshold_seconds=600,
        progress_ratio=0.1, duration_seconds=60,
    )
)  # fmt: skip
"""Two projects that count their runs from 1."""

OF_THE_CHOSEN_RUN = (
    "Records by state", "Failures by step and error", "Failed records", "Expected end", "Time since progress",
    "Stall threshold", "Records in flight", "Waiting records", "Records by step",
)  # fmt: skip


def test_no_end_is_expected_of_a_run_that_is_stalled_or_whose_worker_service_is_down(tmp_path: Path) -> None:
    labels = 'runtime="eu",project="Sales",spinner="Welcome",run_id="{}"'
    half: Samples = {}
    for run_id in ("moving", "stalled"):
        half[f"spinner_run_progress_ratio{{{labels.format(run_id)}}}"] = 0.5
        half[f"spinner_run_duration_seconds{{{labels.format(run_id)}}}"] = HOUR
    runs = fresh("Sales") | silent("moving", 5) | silent("stalled", 700) | half
    with recorded(tmp_path, runs) as url:
        moving, stalled = jobs(url, run="moving"), jobs(url, run="stalled")
        assert [str(each["Expected end"]) for each in (moving, stalled)] == ["11-29 07:00", "? unknown: stalled"]
        assert column(moving, "End") == ["not yet", "11-29 07:00"], "the stalled one comes first"
    folder = tmp_path / "down"
    folder.mkdir()
    down = {key: 0.0 if key.startswith("spinner_runtime_up") else value for key, value in runs.items()}
    with recorded(folder, down) as url:
        shown = jobs(url, run="moving")
        assert str(shown["Expected end"]) == "? unknown: worker down"
        assert "End" not in shown["Runs"].rows[0], "no run has one"


def test_a_chosen_run_is_not_mixed_with_one_of_another_project_that_has_its_id(tmp_path: Path) -> None:
    with recorded(tmp_path, SAME_ID) as url:
        support, sales = jobs(url, **clicked("1", "Support")), jobs(url, **clicked("1"))
        assert {name: str(mark) for name, mark in support["Records by state"].marks.items()} == {
            "completed": "10",
            "pending": "90",
            "failed": "0",
        }
        assert str(support["Failures by step and error"]) == "failed records: ✔ none"
        assert str(support["Failed records"]) == "✔ none"
        assert [str(support[title]) for title in ("Time since progress", "Stall threshold")] == ["00:02:00", "00:10:00"]
        assert str(support["Expected end"]) == "11-29 06:09"
        assert column(support, "Run") == ["Welcome\n1", "➤ Welcome\n1"]
        assert [str(row["Status"]) for row in support["Chosen run"].rows] == ["▶ running"]
        assert {name: str(mark) for name, mark in sales["Records by state"].marks.items()} == {
            "completed": "900",
            "pending": "0",
            "failed": "100",
        }
        assert str(sales["Failures by step and error"]) == "Call: BUSY: 100"
        assert "rec" in str(sales["Failed records"])
        assert [str(sales[title]) for title in ("Time since progress", "Stall threshold")] == ["not running"] * 2
        assert column(sales, "Run") == ["➤ Welcome\n1", "Welcome\n1"]


def test_while_several_runs_have_the_id_that_somebody_wrote_nothing_is_said_of_one_of_them(tmp_path: Path) -> None:
    with recorded(tmp_path, SAME_ID) as url:
        written = jobs(url, run="1")
        places = {str(row["Project and runtime"]): str(row["Status"]) for row in written["Chosen run"].rows}
        assert places == {"Sales\neu": "✖ failed", "Support\neu": "▶ running"}
        assert {str(written[title])[:2] for title in OF_THE_CHOSEN_RUN} == {"? "}
        assert str(jobs(url, run="1", project="Sales")["Failures by step and error"]) == "Call: BUSY: 100"


def test_an_id_that_somebody_writes_after_a_click_is_found_in_the_other_projects(tmp_path: Path) -> None:
    with recorded(tmp_path, SAME_ID | ended("2", "completed", 1)) as url:
        shown = jobs(url, **clicked("2", "Support"))
        assert [(str(row["Run"]), str(row["Status"])) for row in shown["Chosen run"].rows] == [
            ("Welcome\n2", "not chosen: click it to choose it"),
            ("", "▲ not reported: past its retention, or another id"),
        ]
        assert {str(shown[title])[:2] for title in OF_THE_CHOSEN_RUN} == {"? "}


def test_it_is_said_that_there_are_more_failed_records_than_the_named_ones(tmp_path: Path) -> None:
    labels = 'runtime="eu",project="Sales",spinner="Welcome",run_id="a",step="Call",error_code="BUSY"'
    named: Samples = {f'spinner_run_failed_record_info{{{labels},record_id="{number}"}}': 1 for number in range(10)}
    with recorded(tmp_path, fresh("Sales") | ended("a", "completed", 1, failed=510) | named) as url:
        (row,) = jobs(url, run="a")["Chosen run"].rows
    assert str(row["Failures named"]) == "10 newest of 510"


def test_it_is_said_in_words_why_the_chosen_run_has_its_stall_threshold(tmp_path: Path) -> None:
    labels = 'runtime="eu",project="Sales",spinner="Welcome",run_id="a"'
    learned: Samples = {
        f"spinner_run_progress_interval_seconds{{{labels}}}": 40,
        f"spinner_run_longest_progress_interval_seconds{{{labels}}}": 180,
    }
    for replica, basis, reason in (("1", "floor", "its pace is known"), ("2", "own gaps", "it had such gaps")):
        info = f'{labels},instance="{replica}",basis="{basis}",reason="{reason}"'
        learned[f"spinner_run_stall_threshold_info{{{info}}}"] = 1
    columns = ("Usual gap", "Longest gap", "Why its threshold")
    with recorded(tmp_path, fresh("Sales") | silent("a", 100) | learned) as url:
        (row,) = jobs(url, run="a")["Chosen run"].rows
        usual, longest, why = (str(row[each]) for each in columns)
    assert (usual, longest) == ("40 seconds", "3 minutes")
    assert why in ("its pace is known", "it had such gaps"), "one row, though two replicas decide differently"
    folder = tmp_path / "unreadable"
    folder.mkdir()
    unreadable = {key: 0.0 if "project_up" in key else value for key, value in fresh("Sales").items()}
    with recorded(folder, unreadable | silent("a", 100) | learned) as url:
        found = str(jobs(url, run="a")["Chosen run"])
        assert not any(each in found for each in ("its pace is known", "it had such gaps", "40 seconds", "3 minutes"))


def test_what_a_silent_run_works_on_is_listed_with_the_longest_at_its_step_first(tmp_path: Path) -> None:
    of_runs = 'runtime="eu",project="Sales",spinner="Welcome"'
    of_run = f'{of_runs},run_id="a"'
    of_records = {"rec-1": ('step="Find",step_number="1"', 60, 1), "rec-2": ('step="Enrich",step_number="3"', 840, 4)}
    in_flight: Samples = {f'spinner_run_records_in_flight{{{of_run},step="Enrich"}}': 2}
    for record_id, (step, seconds, attempts) in of_records.items():
        labels = f'{of_run},record_id="{record_id}",{step}'
        in_flight[f"spinner_run_record_in_flight_step_start_timestamp_seconds{{{labels}}}"] = NOW - seconds
        in_flight[f"spinner_run_record_in_flight_attempts{{{labels}}}"] = attempts
    runs = silent("a", 1200) | silent("b", 30) | silent("c", 1200)
    none: Samples = {f'spinner_run_records_in_flight{{{of_runs},run_id="c",step=""}}': 0}
    with recorded(tmp_path, fresh("Sales") | runs | in_flight | none) as url:
        shown = jobs(url, run="a")["Records in flight"]
        texts = [[str(row[name]) for name in ("Record", "Step", "For", "Attempts")] for row in shown.rows]
        assert texts == [["rec-2", "3: Enrich", "14 minutes", "4"], ["rec-1", "1: Find", "1 minute", "1"]]
        assert "not read" in str(jobs(url, run="b")["Records in flight"])
        assert "▲ no record is in progress" in str(jobs(url, run="c")["Records in flight"])
        assert str(jobs(url, run="d")["Records in flight"]).startswith("? ")
    lost = {key: value for key, value in fresh("Sales").items() if "project_up" not in key}
    folder = tmp_path / "lost"
    folder.mkdir()
    with recorded(folder, lost | runs | in_flight) as url:
        assert str(jobs(url, run="a")["Records in flight"]).startswith("? "), "what was read last is not of now"


def test_records_that_wait_are_listed_with_how_many_there_are_and_the_longest_first(tmp_path: Path) -> None:
    of_runs = 'runtime="eu",project="Sales",spinner="Welcome"'
    waiting: Samples = {f'spinner_run_records{{{of_runs},run_id="a",state="waiting"}}': 37}
    for record_id, seconds in (("rec-1", 300), ("rec-2", 7200), ("rec-3", None)):
        labels = f'{of_runs},run_id="a",record_id="{record_id}",step="Ask",step_number="2"'
        waiting[f"spinner_run_waiting_record_info{{{labels}}}"] = 1
        if seconds is not None:
            waiting[f"spinner_run_waiting_record_step_start_timestamp_seconds{{{labels}}}"] = NOW - seconds
            waiting[f"spinner_run_waiting_record_attempts{{{labels}}}"] = 1
    for step, count in (("Ask", 30), ("Call", 7)):
        waiting[f'spinner_run_waiting_records{{{of_runs},run_id="a",step="{step}"}}'] = count
    waiting[f'spinner_run_records{{{of_runs},run_id="b",state="waiting"}}'] = 0
    waiting[f'spinner_run_records{{{of_runs},run_id="c",state="waiting"}}'] = 5
    runs = run("a", "waiting") | silent("b", 5) | silent("c", 5) | silent("d", 5) | run("e", "waiting")
    with recorded(tmp_path, fresh("Sales") | runs | waiting) as url:
        shown = jobs(url, run="a")
        columns = ("Record", "Step", "For", "Attempts", "Named")
        assert [[str(row[name]) for name in columns] for row in shown["Waiting records"].rows] == [
            ["rec-2", "2: Ask", "2 hours", "1", "3 of 37"],
            ["rec-1", "2: Ask", "5 minutes", "1", "3 of 37"],
            ["rec-3", "2: Ask", "", "", "3 of 37"],
        ]
        assert "waiting: Ask" in str(shown["Records by step"])
        assert "30" in str(shown["Records by step"])
        said = {each: str(jobs(url, run=each)["Waiting records"]) for each in "bcdef"}
        assert "no record waits" in said["b"]
        assert "✔ none waits" in str(jobs(url, run="b")["Records by step"])
        assert [str(jobs(url, run=each)["Records by step"])[:2] for each in "cde"] == ["? "] * 3, "unknown is not none"
        assert "▲ some wait, not known which" in said["c"]
        assert "? not reported by the runtime" in said["d"], "unknown is not none"
        assert "▲ some wait, not known which" in said["e"], "its status says so"
        assert said["f"].startswith("? ")
    lost = {key: value for key, value in fresh("Sales").items() if "project_up" not in key}
    folder = tmp_path / "lost"
    folder.mkdir()
    with recorded(folder, lost | runs | waiting) as url:
        assert str(jobs(url, run="a")["Waiting records"]).startswith("? "), "what was read last is not of now"
        assert str(jobs(url, run="a")["Records by step"]).startswith("? ")
