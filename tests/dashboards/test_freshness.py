"""Checks in which situations the dashboards take the data for fresh, on series that promtool feeds to Prometheus."""

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from dashboards.__main__ import DASHBOARDS, DIST
from dashboards.queries import PROJECT, RULES, all_fresh, or_zero, outages, scraped_throughout, stalled_runs
from dashboards.spinner_health import NO_RUN
from dashboards.style import GREY, UNKNOWN_NUMBER, status_number
from tests.alerts.rule_files import alert_rule
from tests.dashboards.display import Mark, display
from tests.dashboards.grafana import interpolate
from tests.stack.programs import program
from tests.yaml_files import read_yaml

NOW = 60
"""Minutes since the first sample; there is one for each minute."""

BOARDS = {uid: json.loads((DIST / f"{uid}.json").read_text()) for uid in DASHBOARDS}

Series = dict[str, str]
"""Values over time, in promtool's notation, by selector."""


def values(value: str, until: int = NOW) -> str:
    """A series that has the same value, or the time as its value, until a minute at which it ends.

    A value in promtool's notation is the series itself.
    """
    if not value.isalnum() or "x" in value:
        return value
    steps = f"0+60x{until}" if value == "time" else f"{value}x{until}"
    return steps if until == NOW else f"{steps} stale"


def target(instance: str, up: str = "1", *, job: str = "spinner", until: int = NOW) -> Series:
    return {f'up{{job="{job}", instance="{instance}"}}': values(up, until)}


def exporter(
    instance: str,
    runtime: str = "shop",
    *projects: str,
    until: int = NOW,
    job: str = "spinner",
    **other: str,
) -> Series:
    """What an exporter exposes of a runtime, without its `up`; `other` has values that differ, by metric."""
    own = f'job="{job}", instance="{instance}"'
    of_runtime = f'{own}, runtime="{runtime}"'
    exposed = {
        f"spinner_exporter_build_info{{{own}}}": "1",
        f"spinner_api_up{{{of_runtime}}}": "1",
        f"spinner_runtime_up{{{of_runtime}}}": "1",
        f"spinner_runtime_last_heartbeat_timestamp_seconds{{{of_runtime}}}": "time",
        f"spinner_runtime_heartbeat_timeout_seconds{{{of_runtime}}}": "180",
        f"spinner_exporter_stale_after_seconds{{{of_runtime}}}": "300",
        f"spinner_exporter_snapshot_timestamp_seconds{{{of_runtime}}}": "time",
        **{f'spinner_project_up{{{of_runtime}, project="{each}"}}': "1" for each in projects},
    }
    return {key: values(other.get(key.partition("{")[0], value), until) for key, value in exposed.items()}


def probed(project: str, *, until: int = NOW) -> Series:
    """What the probe of a project exposes."""
    labels = f'job="spinner", instance="{project}", runtime="shop", project="{project}"'
    return {f"spinner_project_up{{{labels}}}": values("1", until)}


DOWN, UNKNOWN, WARNING, UP = 0, 1, 2, 3
DOWN_SINCE_57 = target("a", "1x56 0x4")
MINUTES_AGO_4 = 4 * 60
"""Age of data that were read at minute 56."""

# For each situation: the series; API, worker service, data and age of the data for each runtime; whether all is fresh.
SITUATIONS: dict[str, tuple[Series, Mapping[str, tuple[int, int, int, int]], bool]] = {
    "one exporter": (
        target("a") | exporter("a", "shop", "Clinic"),
        {"shop": (UP, UP, UP, 0)},
        True,
    ),
    "Prometheus is empty": ({}, {}, False),
    "no project was read yet": (
        target("a") | exporter("a", "shop"),
        {"shop": (UP, UP, UNKNOWN, 0)},
        False,
    ),
    "the exporter is down": (
        DOWN_SINCE_57 | exporter("a", "shop", "Clinic", until=56),
        {"shop": (UNKNOWN, UNKNOWN, UNKNOWN, MINUTES_AGO_4)},
        False,
    ),
    "the exporter has vanished from the targets": (
        target("a", until=56) | exporter("a", "shop", "Clinic", until=56),
        {"shop": (UNKNOWN, UNKNOWN, UNKNOWN, MINUTES_AGO_4)},
        False,
    ),
    "the exporter of one of two runtimes is down": (
        DOWN_SINCE_57
        | exporter("a", "shop", "Clinic", until=56)
        | target("b")
        | exporter("b", "clinic", "Ward"),
        {"shop": (UNKNOWN, UNKNOWN, UNKNOWN, MINUTES_AGO_4), "clinic": (UP, UP, UP, 0)},
        False,
    ),
    "the exporter of one of two runtimes has vanished": (
        target("a", until=56)
        | exporter("a", "shop", "Clinic", until=56)
        | target("b")
        | exporter("b", "clinic", "Ward"),
        {"shop": (UNKNOWN, UNKNOWN, UNKNOWN, MINUTES_AGO_4), "clinic": (UP, UP, UP, 0)},
        False,
    ),
    "one of a pair is down": (
        DOWN_SINCE_57
        | exporter("a", "shop", "Clinic", until=56)
        | target("b")
        | exporter("b", "shop", "Clinic"),
        {"shop": (UP, UP, UP, 0)},
        True,
    ),
    "one of a pair cannot read the API": (
        target("a")
        | exporter("a", "shop", "Clinic", spinner_api_up="1x56 0x4", spinner_project_up="1x56 0x4")
        | target("b")
        | exporter("b", "shop", "Clinic"),
        {"shop": (UP, UP, UP, 0)},
        True,
    ),
    "a rollout replaced the exporter": (
        target("a", until=56)
        | exporter("a", "shop", "Clinic", until=56)
        | target("b")
        | exporter("b", "shop", "Clinic"),
        {"shop": (UP, UP, UP, 0)},
        True,
    ),
    "an upgrade replaced an exporter whose series had no runtime": (
        target("a", until=56) | exporter("a", "", "Clinic", until=56) | target("b") | exporter("b", "shop", "Clinic"),
        {"shop": (UP, UP, UP, 0)},
        True,
    ),
    "a reload removed one of two runtimes": (
        target("a") | exporter("a", "shop", "Clinic", until=56) | exporter("a", "clinic", "Ward"),
        {"clinic": (UP, UP, UP, 0)},
        True,
    ),
    "a project was removed": (
        target("a") | exporter("a", "shop", "Clinic") | {
            'spinner_project_up{job="spinner", instance="a", runtime="shop", project="Old"}': values("1", 56)
        },
        {"shop": (UP, UP, UP, 0)},
        True,
    ),
    "one of two shards with different projects is down": (
        DOWN_SINCE_57
        | exporter("a", "shop", "Clinic", until=56)
        | target("b")
        | exporter("b", "shop", "Ward"),
        {"shop": (UP, UP, WARNING, 0)},
        False,
    ),
    "one of two shards with different projects has vanished": (
        target("a", until=56)
        | exporter("a", "shop", "Clinic", until=56)
        | target("b")
        | exporter("b", "shop", "Ward"),
        {"shop": (UP, UP, WARNING, 0)},
        False,
    ),
    "probed projects": (
        target("a") | exporter("a", "shop") | target("Clinic") | probed("Clinic") | target("Ward") | probed("Ward"),
        {"shop": (UP, UP, UP, 0)},
        True,
    ),
    "a probe fails": (
        target("a")
        | exporter("a", "shop")
        | target("Clinic", "1x56 0x4")
        | probed("Clinic", until=56)
        | target("Ward")
        | probed("Ward"),
        {"shop": (UP, UP, WARNING, 0)},
        False,
    ),
    "a probed project was removed": (
        target("a")
        | exporter("a", "shop")
        | target("Clinic", until=56)
        | probed("Clinic", until=56)
        | target("Ward")
        | probed("Ward"),
        {"shop": (UP, UP, UP, 0)},
        True,
    ),
    "the API has been down for four minutes": (
        target("a")
        | exporter(
            "a",
            "shop",
            "Clinic",
            spinner_api_up="1x56 0x4",
            spinner_project_up="1x56 0x4",
            # The last heartbeat that was read grows old without anybody knowing of a later one.
            spinner_runtime_last_heartbeat_timestamp_seconds="0+60x56 3360x4",
            spinner_exporter_snapshot_timestamp_seconds="0+60x56 3360x4",
        ),
        {"shop": (DOWN, UNKNOWN, WARNING, MINUTES_AGO_4)},
        False,
    ),
    "the API has been down for an hour": (
        target("a")
        | exporter(
            "a",
            "shop",
            "Clinic",
            spinner_api_up="0x60",
            spinner_project_up="0x60",
            spinner_runtime_up="_",
            spinner_runtime_last_heartbeat_timestamp_seconds="_",
            spinner_exporter_snapshot_timestamp_seconds="0x60",
        ),
        {"shop": (DOWN, UNKNOWN, DOWN, 3600)},
        False,
    ),
    "the health of the runtime cannot be read": (
        target("a")
        | exporter(
            "a",
            "shop",
            "Clinic",
            spinner_api_up="0x60",
            spinner_runtime_up="_",
            spinner_runtime_last_heartbeat_timestamp_seconds="_",
            spinner_exporter_snapshot_timestamp_seconds="0x60",
        ),
        {"shop": (DOWN, UNKNOWN, WARNING, 3600)},
        False,
    ),
    "SpinnerExporterDown pages for an exporter that has vanished long ago": (
        target("b") | exporter("b", "clinic", "Ward") | {
            'spinner_exporter_snapshot_timestamp_seconds{job="spinner", instance="a", runtime="shop"}': "0x1 _x59",
            'ALERTS{alertname="SpinnerExporterDown", alertstate="firing", severity="page", runtime="shop"}': "1x60",
        },
        {"shop": (UNKNOWN, UNKNOWN, UNKNOWN, 3600), "clinic": (UP, UP, UP, 0)},
        False,
    ),
    "one of two projects cannot be read": (
        target("a") | exporter("a", "shop", "Clinic") | {
            'spinner_project_up{job="spinner", instance="a", runtime="shop", project="Ward"}': "1x56 0x4"
        },
        {"shop": (UP, UP, WARNING, 0)},
        False,
    ),
    "the worker service says that it is down": (
        target("a") | exporter("a", "shop", "Clinic", spinner_runtime_up="1x56 0x4"),
        {"shop": (UP, DOWN, UP, 0)},
        True,
    ),
    "the worker service sends no heartbeats": (
        target("a")
        | exporter("a", "shop", "Clinic", spinner_runtime_last_heartbeat_timestamp_seconds="0+60x56 3360x4"),
        {"shop": (UP, DOWN, UP, 0)},
        True,
    ),
    "the configured timeout of heartbeats is longer": (
        target("a")
        | exporter(
            "a",
            "shop",
            "Clinic",
            spinner_runtime_last_heartbeat_timestamp_seconds="0+60x56 3360x4",
            spinner_runtime_heartbeat_timeout_seconds="1800x60",
        ),
        {"shop": (UP, UP, UP, 0)},
        True,
    ),
    "the API says nothing of the worker service": (
        target("a")
        | exporter(
            "a",
            "shop",
            "Clinic",
            spinner_runtime_up="_",
            spinner_runtime_last_heartbeat_timestamp_seconds="_",
            spinner_runtime_heartbeat_timeout_seconds="_",
        ),
        {"shop": (UP, UNKNOWN, UP, 0)},
        True,
    ),
    "Prometheus was down for ten minutes and has not scraped yet": (
        {key: series.replace("x60", "x49 _x11") for key, series in (
            target("a") | exporter("a", "shop", "Clinic")
        ).items()},
        {"shop": (UNKNOWN, UNKNOWN, UNKNOWN, 11 * 60)},
        False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("situation", SITUATIONS)
def test_each_runtime_has_a_row_that_says_what_is_known_of_it(situation: str, tmp_path: Path) -> None:
    series, rows, _ = SITUATIONS[situation]
    columns = expressions("spinner-jobs", "Runtimes")
    assert len(columns) == 4
    expected = {
        expression: {f'{{runtime="{runtime}"}}': row[index] for runtime, row in rows.items()}
        for index, expression in enumerate(columns)
    }
    check(tmp_path, series, expected)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_zero_is_shown_only_if_everything_is_fresh(situation: str, tmp_path: Path) -> None:
    series, _, is_fresh = SITUATIONS[situation]
    number = {"spinner_runs": values("0"), 'spinner_runs{status="failed"}': values("2")}
    known = all_fresh(PROJECT)
    check(
        tmp_path,
        series | number,
        {
            or_zero('sum(spinner_runs{status=""})', known): {"{}": 0} if is_fresh else {},
            or_zero("sum(nothing)", known): {"{}": 0} if is_fresh else {},
            or_zero("sum(spinner_runs)", known): {"{}": 2},
        },
    )


@pytest.mark.parametrize("situation", SITUATIONS)
def test_without_the_recording_rules_no_runtime_and_no_zero_looks_well(situation: str, tmp_path: Path) -> None:
    series, *_ = SITUATIONS[situation]
    *_, data, _ = expressions("spinner-jobs", "Runtimes")
    check(tmp_path, series, {all_fresh(PROJECT): {}, f"({data}) == {UP}": {}}, rules=False)


def test_the_table_is_the_same_on_each_dashboard() -> None:
    tables = [
        panel["targets"] for board in BOARDS.values() for panel in board["panels"] if panel["title"] == "Runtimes"
    ]
    assert len(tables) == 3
    assert tables[0] == tables[1] == tables[2]


HEALTHY = SITUATIONS["one exporter"][0]

UNREADABLE = HEALTHY | {
    'spinner_project_up{job="spinner", instance="a", runtime="shop", project="Clinic"}': "0x60",
    'spinner_project_up{job="spinner", instance="a", runtime="shop", project="Ward"}': "1x60",
}


@pytest.mark.parametrize(
    ("api_up", "is_known"),
    [
        ("1x60", True),
        ("1x20 _x3 1x36", True),
        ("1x20 stale _x10 1x28", False),
        ("_x20 1x40", False),
    ],
    ids=["all the time", "with a short gap", "with a long gap", "since later"],
)
def test_none_in_a_range_is_certain_only_if_the_whole_range_was_scraped(
    api_up: str, is_known: bool, tmp_path: Path
) -> None:
    series = HEALTHY | {'spinner_api_up{job="spinner", instance="a", runtime="shop"}': api_up}
    expression = or_zero("sum(nothing)", scraped_throughout(all_fresh(PROJECT)))
    check(tmp_path, series, {expression: {"{}": 0} if is_known else {}})


MIDNIGHT, MORNING = 60, 420
"""Minutes: six hours of a day."""

FAILED = {
    "Runs failed today": 'spinner_runs_finished_total{{job="spinner", {}, status="failed"}}',
    "Records failed today": 'spinner_records_processed_total{{job="spinner", {}, state="failed"}}',
}


def counted(**by_instance: str) -> dict[str, str]:
    """The values of a counter, one for each minute from an hour before midnight on, by the exporter's instance."""
    return by_instance


# By name, which is also that of the project: the counter, and what a card shows.
RESTARTS: dict[str, tuple[Mapping[str, str], int | None]] = {
    "no restart": (counted(a="5x179 8x240"), 3),
    "none": (counted(a="5x420"), 0),
    "one after a restart": (counted(a="1x89 0x149 1x180"), 1),
    "one after a new pod has started": (counted(a="1x89 stale", b="_x91 0x148 1x180"), 1),
    "three before a restart": (counted(a="5x69 8x109 0x240"), 3),
    "three before a new pod has started": (counted(a="5x69 8x109 stale", b="_x183 0x237"), 3),
    "a new pod does not know the spinner": (counted(a="5x69 8x109 stale"), 3),
    "a new pod knows the spinner later": (counted(a="5x69 8x109 stale _x100 2x138"), 5),
    "two restarts": (counted(a="8x89 0x30 3x59 0x240"), 3),
    "none, with a restart": (counted(a="1x89 0x330"), 0),
    "of a new spinner": (counted(a="_x100 3x60 0x259"), 3),
    "a new pod continues the counter": (counted(a="5x89 stale _x4 5x325"), 0),
    "one of a pair restarts": (counted(a="8x89 0x330", b="8x420"), 0),
    "a restart just now": (counted(a="8x415 0x4"), None),
    "the counter is gone since just now": (counted(a="8x415 stale"), None),
    "a restart at midnight": (counted(a="8x59 0x360"), 0),
    "a restart before midnight": (counted(a="8x58 0x361"), 0),
}


def test_what_failed_today_is_known_although_the_exporter_started_again(tmp_path: Path) -> None:
    """All projects in one Prometheus, because evaluating seven hours of rules is what takes long."""
    series = target("a", until=MORNING) | exporter("a", "shop", *RESTARTS, until=MORNING)
    seconds = (MORNING - MIDNIGHT) * 60
    expected: dict[str, dict[str, float]] = {}
    for project, (counter, shown) in RESTARTS.items():
        place = f'runtime="shop", project="{project}", spinner="Recall"'
        for instance, each in counter.items():
            for name in FAILED.values():
                series[name.format(f'instance="{instance}", {place}')] = each
        variables = {"project": project, "__range": f"{seconds}s", "__range_s": f"{seconds}"}
        for title in FAILED:
            for expression in expressions("spinner-live-ops", title):
                expected[interpolate(expression, variables)] = {} if shown is None else {"{}": shown}
    assert len(expected) == len(RESTARTS) * len(FAILED)
    check(tmp_path, series, expected, now=MORNING)


@pytest.mark.parametrize("title", FAILED)
@pytest.mark.parametrize(
    ("start", "seconds"),
    [(MIDNIGHT * 60 + 1, 6 * 3600), (MIDNIGHT * 60 - 86400, 30 * 3600)],
    ids=["since another time", "of more than a day"],
)
def test_what_failed_today_is_unknown_in_an_absolute_time_range(
    title: str, start: int, seconds: int, tmp_path: Path
) -> None:
    """Grafana ignores that such a card begins at midnight while the range of the dashboard is absolute."""
    series = target("a", until=MORNING) | exporter("a", "shop", "Clinic", until=MORNING)
    place = 'instance="a", runtime="shop", project="Clinic", spinner="Recall"'
    series |= {FAILED[title].format(place): "5x179 8x240"}
    (expression,) = expressions("spinner-live-ops", title)
    today = {"__from": "0", "__range": "21600s", "__range_s": "21600"}
    absolute = {"__from": f"{(start - MIDNIGHT * 60) * 1000}", "__range": f"{seconds}s", "__range_s": f"{seconds}"}
    expected: dict[str, dict[str, float]] = {
        interpolate(expression, today): {"{}": 3},
        interpolate(expression, absolute): {},
    }
    check(tmp_path, series, expected, now=MORNING)


RUN = 'runtime="shop", project="Clinic", spinner="Recall", run_id="1"'


def run(status: str = "running", *, failed: str = "0", labels: str = RUN) -> Series:
    """A run that has made no progress for 20 minutes."""
    own = f'job="spinner", instance="a", {labels}'
    return {
        f'spinner_run_status{{{own}, status="{status}"}}': "1x60",
        f"spinner_run_failed_records{{{own}}}": values(failed),
        f"spinner_run_last_progress_timestamp_seconds{{{own}}}": "2400x60",
        f"spinner_run_stall_threshold_seconds{{{own}}}": "600x60",
    }


@pytest.mark.parametrize(
    ("situation", "is_stalled"),
    [
        ("one exporter", True),
        ("the API says nothing of the worker service", True),
        ("the configured timeout of heartbeats is longer", True),
        ("the worker service says that it is down", False),
        ("the worker service sends no heartbeats", False),
        ("the API has been down for four minutes", False),
        ("the project cannot be read", False),
    ],
)
def test_stalled_is_what_the_alert_pages_for(situation: str, is_stalled: bool, tmp_path: Path) -> None:
    series = (SITUATIONS[situation][0] if situation in SITUATIONS else UNREADABLE) | run()
    alert = alert_rule("SpinnerRunStalled")
    runs = {'{run_id="1"}': 1} if is_stalled else {}
    check(tmp_path, series, {f"group by (run_id) ({each})": runs for each in (stalled_runs(), alert["expr"])})


def other_run(project: str, status: str) -> Series:
    labels = f'runtime="shop", project="{project}", spinner="Calls", run_id="2", status="{status}"'
    return {f"spinner_run_status{{{labels}}}": "1x60"}


@pytest.mark.parametrize(
    ("waits", "is_stalled"),
    [
        ({}, False),
        (other_run("Clinic", "queued"), True),
        (other_run("Sales", "queued"), False),
        (other_run("Clinic", "running"), False),
        ({f"spinner_run_due_timestamp_seconds{{{RUN}}}": "3000x60"}, True),
        ({f"spinner_run_due_timestamp_seconds{{{RUN}}}": "7200x60"}, False),
    ],
    ids=["nothing", "a queued run", "another project's queued run", "a running run", "past its due time", "due later"],
)
def test_the_last_records_are_stalled_earlier_while_something_waits(
    waits: Series, is_stalled: bool, tmp_path: Path
) -> None:
    own = f'{{job="spinner", instance="a", {RUN}}}'
    thresholds = {
        f"spinner_run_stall_threshold_seconds{own}": "3600x60",
        f"spinner_run_straggler_threshold_seconds{own}": "600x60",
    }
    series = HEALTHY | run() | thresholds | waits
    runs = {'{run_id="1"}': 1} if is_stalled else {}
    alert = alert_rule("SpinnerRunStalled")
    check(tmp_path, series, {f"group by (run_id) ({each})": runs for each in (stalled_runs(), alert["expr"])})


def test_during_an_outage_it_is_not_certain_that_no_run_is_stalled(tmp_path: Path) -> None:
    series = SITUATIONS["the worker service says that it is down"][0]
    (stalled,) = expressions("spinner-live-ops", "Stalled")
    check(tmp_path, series, {stalled: {}, f"count({outages()})": {"{}": 1}})
    check(tmp_path, HEALTHY, {stalled: {"{}": 0}})


def moving(series: Series) -> Series:
    return {key: "0+60x60" if "last_progress" in key else each for key, each in series.items()}


@pytest.mark.parametrize(
    ("series", "rules", "number"),
    [
        (HEALTHY | moving(run()), True, status_number("running")),
        (HEALTHY | run(), True, status_number("stalled")),
        (UNREADABLE | run(), True, None),
        (HEALTHY | run(), False, UNKNOWN_NUMBER),
    ],
    ids=["running", "stalled", "stalled in a project that cannot be read", "rules are not loaded"],
)
def test_a_timeline_says_whether_it_is_known_that_a_run_is_not_stalled(
    series: Series, rules: bool, number: int | None, tmp_path: Path
) -> None:
    _, timeline = expressions("spinner-live-ops", "Active runs")  # of the runs that were not stalled when it was opened
    check(tmp_path, series, {timeline: {} if number is None else {f"{{{RUN}}}": number}}, rules=rules)


def test_a_rate_is_not_drawn_while_the_project_cannot_be_read(tmp_path: Path) -> None:
    rate = 'project_spinner_state:spinner_records_processed:rate5m{runtime="shop", project="Clinic", state="completed"}'
    (drawn,) = expressions("spinner-live-ops", "Records per minute")
    check(tmp_path, HEALTHY | {rate: "2x60"}, {drawn: {'{state="completed"}': 120}})
    check(tmp_path, UNREADABLE | {rate: "2x60"}, {drawn: {}})


OTHER = RUN.replace("1", "2")
FAILURE = {f'spinner_run_failures{{{RUN}, step="Call", error_code="BUSY"}}': "3x60"}
UNCOUNTED = {key: value for key, value in run(labels=OTHER).items() if "failed" not in key}


@pytest.mark.parametrize(
    ("series", "chosen", "shown"),
    [
        (HEALTHY | run() | run(labels=OTHER), "2", {'{name="failed records"}': 0}),
        (HEALTHY | run(failed="3") | FAILURE, "1", {'{step="Call", error_code="BUSY", name="Call: BUSY"}': 3}),
        (HEALTHY | run(failed="3"), "1", {}),
        (HEALTHY | run() | UNCOUNTED, "2", {}),
    ],
    ids=["none", "some", "some without steps", "not counted"],
)
def test_no_failed_records_is_certain_only_if_each_run_counts_them(
    series: Series, chosen: str, shown: Mapping[str, float], tmp_path: Path
) -> None:
    panels = ("spinner-jobs", "Failures by step and error"), ("spinner-live-ops", "Top failing steps")
    queries = (interpolate(expression, {"run": chosen}) for panel in panels for expression in expressions(*panel))
    check(tmp_path, series, dict.fromkeys(queries, shown))


@pytest.mark.parametrize("title", ["Expected end", "Time since progress", "Stall threshold"])
def test_a_run_is_not_running_only_if_it_is_reported(title: str, tmp_path: Path) -> None:
    (card,) = expressions("spinner-jobs", title)
    ended = {key: value for key, value in run("completed").items() if "threshold" not in key}
    check(tmp_path, HEALTHY | ended, {card: {"{}": -1}})
    check(tmp_path, HEALTHY, {card: {}})


def test_what_a_run_does_is_not_known_while_its_project_cannot_be_read(tmp_path: Path) -> None:
    since, end = expressions("spinner-jobs", "Time since progress") + expressions("spinner-jobs", "Expected end")
    half = {f"spinner_run_progress_ratio{{{RUN}}}": "0.5x60", f"spinner_run_duration_seconds{{{RUN}}}": "600x60"}
    check(tmp_path, HEALTHY | run() | half, {since: {"{}": 1200}})
    check(tmp_path, HEALTHY | moving(run()) | half, {end: {"{}": (3600 + 600) * 1000}})
    check(tmp_path, UNREADABLE | run() | half, {since: {}, end: {}})


FINISHED = 'project_spinner_status:spinner_runs_finished:increase1h{runtime="shop", project="Clinic", status="failed"}'


@pytest.mark.parametrize(
    ("series", "shown"),
    [
        (HEALTHY | {FINISHED: "0x60"}, {"{}": 0}),
        (HEALTHY | {FINISHED: "15x60"}, {"{}": 61}),
        (HEALTHY, {}),
        (SITUATIONS["the exporter is down"][0] | {FINISHED: "0x60"}, {}),
    ],
    ids=["none", "some", "no rules", "the exporter is down"],
)
def test_no_finished_runs_are_certain_only_if_they_are_recorded(
    series: Series, shown: Mapping[str, float], tmp_path: Path
) -> None:
    (card,) = expressions("spinner-health", "Runs finished")
    check(tmp_path, series, {card: shown})


def plan(runtime: str, used: str, until: int = NOW) -> Series:
    """What is known of a runtime's plan, and what the rules record of it."""
    return {
        f'spinner_plan_used{{job="spinner", instance="{runtime}", runtime="{runtime}", meter="jobs"}}': values(
            "5", until
        ),
        f'meter:spinner_plan_used:ratio{{job="spinner", runtime="{runtime}", meter="jobs"}}': values(used, until),
    }


@pytest.mark.parametrize(
    ("series", "highest", "unknown"),
    [
        (target("a") | exporter("a", "shop") | plan("shop", "0.5x60"), 0.5, None),
        (target("a") | exporter("a", "shop") | plan("shop", "_x60", 50), None, "shop"),
        (target("a") | exporter("a", "shop") | exporter("a", "clinic", until=50) | plan("shop", "0.5x60")
         | plan("clinic", "0.5x50 stale", 50), 0.5, None),
        (target("a", "0x60") | exporter("a", "clinic", until=50) | target("b") | exporter("b", "shop")
         | plan("shop", "0.5x60") | plan("clinic", "0.5x50 stale", 50), None, "clinic"),
        (target("a", "0x60") | exporter("a", "clinic", until=50) | target("b") | exporter("b", "shop")
         | plan("shop", "0.9x60") | plan("clinic", "0.5x50 stale", 50), 0.9, "clinic"),
        ({}, None, None),
    ],
    ids=["known", "no longer reported", "removed", "an exporter is down", "nearly full", "Prometheus is empty"],
)  # fmt: skip
def test_the_highest_usage_is_not_known_while_that_of_a_plan_is_not(
    series: Series, highest: float | None, unknown: str | None, tmp_path: Path
) -> None:
    (card,) = expressions("spinner-capacity", "Highest plan usage")
    used, *_ = expressions("spinner-capacity", "Plan")
    meter = 'label_replace(vector(1), "meter", "? unknown", "", "")'
    unknown_rows = f"group by (runtime, meter) ({used}) and on (meter) {meter}"
    rows = {f'{{runtime="{unknown}", meter="? unknown"}}': 1} if unknown else {}
    check(tmp_path, series, {card: {} if highest is None else {"{}": highest}, unknown_rows: rows})


def skipping(instance: str) -> Series:
    """An exporter that has 3,000 runs, does not read 5 projects, and has just skipped 4 things of each kind."""
    own = f'job="spinner", instance="{instance}", runtime="shop"'
    counters = {"runs_dropped_total": "reason", "invalid_items_total": "kind", "unmapped_status_total": "label"}
    return {
        f"spinner_exporter_runs_tracked{{{own}}}": "3000x60",
        f"spinner_exporter_projects_not_read{{{own}}}": "5x60",
        **{f'spinner_exporter_{name}{{{own}, {label}="a"}}': "0x55 4x4" for name, label in counters.items()},
    }


@pytest.mark.parametrize(
    ("projects", "times"),
    [
        ({"a": ["Clinic"]}, 1),
        ({"a": ["Clinic", "Ward"], "b": ["Clinic", "Ward"]}, 1),
        ({"a": ["Clinic"], "b": ["Ward"]}, 2),
        ({"a": ["Clinic"], "b": ["Clinic"], "c": ["Ward"], "d": ["Ward"]}, 2),
        ({each: [] for each in "abcdefghij"}, 10),
    ],
    ids=["one", "a pair", "two shards", "two shards of two", "ten whose projects are targets of their own"],
)
def test_replicas_count_once_and_shards_add_up(
    projects: Mapping[str, Sequence[str]], times: int, tmp_path: Path
) -> None:
    series: Series = {}
    for instance, each in projects.items():
        series |= target(instance) | exporter(instance, "shop", *each) | skipping(instance)
    (runs,) = expressions("spinner-exporter", "Runs shown")
    skipped = [interpolate(each, {"__rate_interval": "5m"}) for each in expressions("spinner-exporter", "Skipped data")]
    labels = ('{reason="a"}', '{runtime="shop"}', '{kind="a"}', '{label="a"}')
    numbers = {
        expression: {each: times * (5 if "runtime" in each else 4)}
        for expression, each in zip(skipped, labels, strict=True)
    }
    check(tmp_path, series, {runs: {"{}": 3000 * times}, **numbers})


def test_a_plan_with_all_its_spinners_published_refuses_no_runs(tmp_path: Path) -> None:
    (card,) = expressions("spinner-capacity", "Highest plan usage")
    full = {key.replace('"jobs"', '"spinners"'): each for key, each in plan("shop", "1x60").items()}
    series = target("a") | exporter("a", "shop") | plan("shop", "0.5x60") | full
    check(tmp_path, series, {card: {"{}": 0.5}})


def test_a_plan_is_unlimited_only_if_the_api_says_so(tmp_path: Path) -> None:
    used = {'spinner_plan_used{runtime="shop", meter="jobs"}': "5x60"}
    _, limit, *_ = expressions("spinner-capacity", "Plan")
    meter = '{runtime="shop", meter="jobs", name="jobs\\nshop"}'
    for value, shown in (("100x60", 100), ("Inf " * (NOW + 1), -1)):
        check(tmp_path, used | {'spinner_plan_limit{runtime="shop", meter="jobs"}': value}, {limit: {meter: shown}})
    check(tmp_path, used, {limit: {}})


WATCHDOG = {'ALERTS{alertname="SpinnerWatchdog", alertstate="firing", severity="none"}': values("1")}
PAGE = {'ALERTS{alertname="SpinnerRunStalled", alertstate="firing", severity="page", runtime="shop"}': values("1")}


@pytest.mark.parametrize(
    ("series", "count"),
    [
        (HEALTHY | WATCHDOG, 0),
        (HEALTHY | WATCHDOG | PAGE, 1),
        (PAGE, 1),
        (HEALTHY, None),
        (SITUATIONS["the exporter is down"][0] | WATCHDOG, None),
    ],
    ids=["nothing fires", "a page fires", "a page fires and nothing is known", "no rules", "the exporter is down"],
)
def test_no_alert_is_certain_only_if_rules_are_evaluated_on_fresh_data(
    series: Series, count: int | None, tmp_path: Path
) -> None:
    (card,) = expressions("spinner-live-ops", "Firing alerts")
    check(tmp_path, series, {card: {} if count is None else {"{}": count}})


def test_alerts_are_those_of_the_selected_projects_and_those_of_none(tmp_path: Path) -> None:
    of_sales = {key.replace('runtime="shop"', 'runtime="shop", project="Sales"'): each for key, each in PAGE.items()}
    (card,) = expressions("spinner-live-ops", "Firing alerts")
    for_sales, for_clinic = (interpolate(card, {"project": project}) for project in ("Sales", "Clinic"))
    series = HEALTHY | WATCHDOG
    check(tmp_path, series | of_sales, {for_sales: {"{}": 1}, for_clinic: {"{}": 0}, card: {"{}": 1}})
    check(tmp_path, series | PAGE, {for_sales: {"{}": 1}, for_clinic: {"{}": 1}})


def test_an_alert_says_since_when_it_is_active(tmp_path: Path) -> None:
    _, since = expressions("spinner-live-ops", "Pages")
    labels = '{alertname="SpinnerRunStalled", severity="page", runtime="shop"}'
    about = 'alert="SpinnerRunStalled\\nshop", mark="firing", place="shop", whose="shop"'
    shown = labels.replace("}", f", {about}}}")
    series = HEALTHY | PAGE | {f"ALERTS_FOR_STATE{labels}": "1200x60"}
    check(tmp_path, series, {since: {shown: 1_200_000}})
    check(tmp_path, HEALTHY | {f"ALERTS_FOR_STATE{labels}": "1200x60"}, {since: {}})


def test_pages_and_tickets_are_apart_and_say_what_they_are_about(tmp_path: Path) -> None:
    labels = '{alertname="SpinnerRunFailed", severity="ticket", runtime="shop", project="Clinic", spinner="Recall"}'
    firing = labels.replace("}", ', alertstate="firing"}')
    ticket = {f"ALERTS{firing}": "1x60"}
    pages, _ = expressions("spinner-live-ops", "Pages")
    tickets, _ = expressions("spinner-live-ops", "Tickets")
    of_other_project = interpolate(tickets, {"project": "Sales"})
    none = {'{mark="none"}': 1}
    about = 'alert="SpinnerRunFailed\\nClinic: Recall", mark="firing", place="Clinic: Recall", whose="Clinic"'
    shown = {labels.replace("}", f", {about}}}"): 1}
    check(tmp_path, HEALTHY | WATCHDOG | ticket, {pages: none, tickets: shown, of_other_project: {}})


def test_a_run_that_failed_within_the_week_is_listed_after_its_series_has_ended(tmp_path: Path) -> None:
    (failed,) = expressions("spinner-health", "Failed runs of the week")
    run = 'runtime="shop", project="Clinic", spinner="Recall", run_id="{}"'
    series = {
        f'spinner_run_status{{{run.format("old")}, status="failed"}}': "_x25 1x20 stale",
        f"spinner_run_end_timestamp_seconds{{{run.format('old')}}}": "_x25 1440x20 stale",
        f'spinner_run_status{{{run.format("new")}, status="failed"}}': "_x51 1x9",
        f'spinner_run_status{{{run.format("fine")}, status="completed"}}': "1x60",
        f"spinner_run_end_timestamp_seconds{{{run.format('fine')}}}": values("60"),
    }
    shown = f'{{{{{run}, place="Clinic\\nshop", run="Recall\\n{{}}"}}}}'
    # Of a run whose end the runtime does not tell, it is known that it was failed when the rule found it.
    listed = {shown.format("old", "old"): 1440_000.0, shown.format("new", "new"): 3600_000.0}
    check(tmp_path, series, {failed: listed, interpolate(failed, {"project": "Sales"}): {}})


def test_a_failed_run_is_recorded_when_it_is_first_seen(tmp_path: Path) -> None:
    """A week of all of them is read at once, so each has samples of ten minutes. promtool evaluates every minute."""
    record = "project_spinner_run:spinner_run_end_timestamp_seconds:failed"
    labels = 'runtime="shop", project="Clinic", spinner="Recall", run_id="a"'
    series = {
        f'spinner_run_status{{{labels}, instance="{replica}", status="failed"}}': f"_x{first} 1x60"
        for replica, first in (("1", 11), ("2", 12))
    } | {f"spinner_run_end_timestamp_seconds{{{labels}}}": "_x11 600x60"}
    counted = f"count_over_time({record}[1h])"
    check(
        tmp_path,
        series,
        {counted: {f"{{{labels}}}": 10}, f"last_over_time({record}[1h])": {f"{record}{{{labels}}}": 600}},
    )


def test_the_heat_map_sums_the_hours_of_a_step(tmp_path: Path) -> None:
    _, query = expressions("spinner-health", "Run durations")
    record = "project_spinner:spinner_run_finished_duration_seconds_bucket:increase1h"
    labels = 'runtime="shop", project="Clinic", spinner="Recall", le="900.0"'
    of_two_hours = interpolate(query, {"__interval": "7200s"})
    check(tmp_path, {f"{record}{{{labels}}}": "1x30 2x30"}, {of_two_hours: {'{le="900.0"}': 3}})


DAY = 24 * 60
"""Minutes."""


@pytest.mark.parametrize(
    ("recorded", "growth"),
    [
        ("10x59", 0),
        ("10x29 15x30", 0.5),
        ("_x20 10x39", None),
        ("_x30 10x29", None),
        ("10x49 _x10", None),
    ],
    ids=["the same", "half more", "40 days", "30 days", "nothing of the last ten days"],
)
def test_growth_is_known_only_of_two_whole_months(recorded: str, growth: float | None, tmp_path: Path) -> None:
    names = {
        "Growth of runs": 'runtime:spinner_runs_started:increase1d{runtime="shop"}',
        "Growth of records": 'runtime_state:spinner_records_processed:increase1d{runtime="shop", state="completed"}',
    }
    values = dict.fromkeys(names.values(), recorded)
    cards = [interpolate(card, {"project": "^$"}) for title in names for card in expressions("spinner-capacity", title)]
    shown = {} if growth is None else {"{}": growth}
    check(tmp_path, values, dict.fromkeys(cards, shown), rules=False, now=59 * DAY + 30, interval="1d")


def test_a_spinner_that_is_idle_most_of_the_day_has_become_slower_than_a_week_before(tmp_path: Path) -> None:
    """Of an hour in which no run ended, there is no median."""
    buckets = (
        'spinner_run_finished_duration_seconds_bucket{{runtime="shop", project="Clinic", spinner="Recall", le="{}"}}'
    )
    one_hour, another_a_week_later = "0x120 1+1x11", " 12x2003 13+1x11 24x300"
    series = {
        buckets.format("600.0"): f"{one_hour} 12x2400",
        **{buckets.format(le): one_hour + another_a_week_later for le in ("1200.0", "+Inf")},
    }
    (card,) = expressions("spinner-health", "Run duration change")
    median = "project_spinner:spinner_run_finished_duration_seconds:p50_1h"
    check(tmp_path, series, {card: {"{}": 900 / 300 - 1}}, rules=median, now=8 * DAY, interval="5m")


def test_each_spinner_has_its_success_rate_and_what_is_left_of_the_error_budget(tmp_path: Path) -> None:
    """The hours are recorded at minutes 0 and 60: 30 runs completed, and 10 failed."""
    failed = FINISHED.replace("}", ', spinner="Recall"}')
    series = {failed: "5x60", failed.replace('"failed"', '"completed"'): "15x60"}
    _, _, ended, success, budget = expressions("spinner-health", "All spinners")
    half, missed = (interpolate(budget, {"objective": objective}) for objective in ("50", "87.5"))
    spinner = '{runtime="shop", project="Clinic", spinner="Recall", place="Clinic\\nshop"}'
    shown: Mapping[str, Mapping[str, float]] = {
        ended: {spinner: 40},
        success: {spinner: 0.75},
        half: {spinner: 0.5},
        missed: {spinner: -1},
    }
    check(tmp_path, HEALTHY | series, shown)
    check(tmp_path, SITUATIONS["the exporter is down"][0] | series, {expression: {} for expression in shown})


def test_cells_of_a_spinner_are_empty_if_none_of_its_runs_ended_and_unknown_if_that_is_not_recorded(
    tmp_path: Path,
) -> None:
    idle = '{runtime="shop", project="Clinic", spinner="Idle", place="Clinic\\nshop"}'
    started = '{runtime="shop", project="Clinic", spinner="Started", place="Clinic\\nshop"}'
    series = {
        FINISHED.replace("}", ', spinner="Idle"}'): "0x60",
        'project_spinner:spinner_record_seconds:avg1d{runtime="shop", project="Clinic", spinner="Started"}': "3x60",
    }
    change, mean, ended, success, budget = expressions("spinner-health", "All spinners")
    (panel,) = (panel for panel in BOARDS["spinner-health"]["panels"] if panel["title"] == "All spinners")
    columns = {
        override["matcher"]["options"]: {each["id"]: each["value"] for each in override["properties"]}
        for override in panel["fieldConfig"]["overrides"]
    }
    shown: Mapping[str, Mapping[str, float]] = {
        change: {idle: NO_RUN, started: -2},
        mean: {idle: NO_RUN, started: 3},
        ended: {idle: 0},
        success: {idle: NO_RUN},
        budget: {idle: NO_RUN},
    }
    check(tmp_path, HEALTHY | series, shown)
    for letter in "ABDE":
        assert str(display(float(NO_RUN), columns[f"Value #{letter}"])) == ""
    assert display(-2.0, columns["Value #A"]) == Mark("?", GREY)
    for letter in "BCDE":
        assert str(display(None, columns[f"Value #{letter}"])) == "?"


def expressions(uid: str, title: str) -> list[str]:
    """The queries of a panel."""
    (panel,) = (each for each in BOARDS[uid]["panels"] if each["title"] == title)
    return [each["expr"] for each in panel["targets"]]


def check(
    folder: Path,
    series: Series,
    expected: Mapping[str, Mapping[str, float]],
    *,
    rules: bool | str = True,
    now: int = NOW,
    interval: str = "1m",
) -> None:
    """Let promtool compare the results of expressions now: the value of each sample by its labels.

    `rules` says whether the recording rules are evaluated, or which one, apart from those whose results are given.
    `interval` is that of the samples and evaluations.
    """
    tests = [
        {
            "expr": interpolate(expression, {}),
            "eval_time": f"{now}m",
            "exp_samples": [{"labels": labels, "value": value} for labels, value in samples.items()],
        }
        for expression, samples in expected.items()
    ]
    run_promtool(folder, series, tests, rules=rules, interval=interval)


def run_promtool(
    folder: Path, series: Series, tests: Sequence[Mapping[str, Any]], *, rules: bool | str = True, interval: str = "1m"
) -> None:
    given = {key.partition("{")[0] for key in series}
    groups = read_yaml(RULES)["groups"]
    usable = [
        rule
        for group in groups
        for rule in group["rules"]
        if rule["record"] not in given and (rules is True or rules == rule["record"])
    ]
    # The others would only take time.
    read = recorded_for([str(test["expr"]) for test in tests], usable)
    for group in groups:
        group["rules"] = [rule for rule in group["rules"] if rule["record"] in read]
    (folder / "rules.yml").write_text(json.dumps({"groups": groups if rules else []}))
    content = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": interval,
        "tests": [
            {
                "interval": interval,
                "input_series": [{"series": key, "values": each} for key, each in series.items()],
                "promql_expr_test": tests,
            }
        ],
    }
    file = folder / "test.yml"
    file.write_text(json.dumps(content))
    done = subprocess.run(
        [program("promtool"), "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, re.sub(r"\n +", "\n", done.stdout + done.stderr)


def recorded_for(expressions: Sequence[str], rules: Sequence[Mapping[str, str]]) -> set[str]:
    """Return the names that rules record of which expressions read the results, also through other rules."""
    found: set[str] = set()
    to_read = list(expressions)
    while to_read:
        names = set(re.findall(r"[A-Za-z_:][\w:]*", to_read.pop())) - found
        new = [rule for rule in rules if rule["record"] in names]
        found.update(rule["record"] for rule in new)
        to_read += [rule["expr"] for rule in new]
    return found
