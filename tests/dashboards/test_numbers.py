"""Checks that the numbers on dashboards are those of the runtime's own API at the same moment, in every scenario."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from dashboards.jobs import MOST_LISTED
from dashboards.style import NOT_KNOWN, STATUSES
from exporter.simulator import load_scenario
from tests.dashboards.grafana import Page
from tests.dashboards.shown import Shown, show, show_panel
from tests.stack.programs import ROOT
from tests.unknown.simulation import HOUR, MIDNIGHT, SCRAPE_INTERVAL, World, world
from tests.unknown.situations import BOARDS

SCENARIOS = sorted(
    file.stem
    for file in (ROOT / "exporter" / "simulator" / "scenarios").glob("*.yaml")
    if file.stem != "large-org"  # Its hour takes more than ten minutes here.
)

FIRST = {"healthy", "stalled", "plan-limit"}
"""Those of `make test`; `make test-all` has all of them."""

BEGINS = MIDNIGHT + 9 * HOUR
RETENTION = HOUR

STATUS = {
    "pending": "queued", "in_progress": "running", "active": "running", "partial": "completed",
    "completed_with_errors": "completed",
}  # fmt: skip
"""The status of the exporter for a label of the API, where it differs."""


@pytest.mark.parametrize(
    "scenario", [each if each in FIRST else pytest.param(each, marks=pytest.mark.slow) for each in SCENARIOS]
)
async def test_numbers_are_those_of_the_api(scenario: str, tmp_path: Path) -> None:
    with world(tmp_path, starts_at=BEGINS) as made:
        made.add_runtime("eu", load_scenario(scenario))
        made.add_exporter("a:10095", "eu")
        await made.advance(70)
        projects = await items(made, "/api/v1/projects")
        jobs = [job for each in projects for job in await items(made, f"/api/v1/projects/{each['id']}/jobs")]
        usage = await items(made, "/api/v1/usage", "meters")
        boards = {uid.removeprefix("spinner-"): shown(made, uid) for uid in BOARDS}
        compared = await check_waiting(made, jobs)
    assert compared or scenario not in ("healthy", "stalled"), "in these, records wait for a person"
    shown_jobs = [job for job in jobs if ends(job) >= made.now - RETENTION]
    check_runs(boards["live-ops"], boards["jobs"], shown_jobs, is_down=scenario == "runtime-down")
    check_today(boards["live-ops"], [job for job in jobs if ends(job) >= BEGINS - RETENTION])
    check_plan(boards["capacity"], usage)


def shown(made: World, uid: str) -> Mapping[str, Shown]:
    since = "now-3h" if uid == "spinner-health" else ""
    return show(Page(BOARDS[uid], made.prometheus_url, now=made.now, since=since, scrape_interval=SCRAPE_INTERVAL))


async def items(made: World, path: str, key: str = "items") -> list[dict[str, Any]]:
    """Read all pages of a list of the runtime."""
    found: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        params = {"limit": "500", **({"cursor": cursor} if cursor else {})} if key == "items" else {}
        response = await made.runtimes["eu"].answer(httpx.Request("GET", f"http://eu{path}", params=params))
        body = response.json()
        found += body[key]
        cursor = body.get("nextCursor")
    return found


def ends(job: Mapping[str, Any]) -> float:
    """Return when a run ended, in seconds since the epoch."""
    return datetime.fromisoformat(job["endedAt"]).timestamp() if job["endedAt"] else float("inf")


def status(job: Mapping[str, Any]) -> str:
    label: str = job["status"]
    return STATUS.get(label, label)


def check_runs(
    live_ops: Mapping[str, Shown], jobs: Mapping[str, Shown], expected: list[dict[str, Any]], *, is_down: bool
) -> None:
    counts = Counter(map(status, expected))
    for title in ("Running", "Waiting", "Queued"):
        assert number(live_ops[title]) == counts[title.lower()], title
    by_status = numbers(jobs["Runs that need a person"]) | numbers(jobs["Runs by status"])
    assert {name: by_status.pop(name, 0) for name in counts} == counts
    some_failed = sum(status(job) == "completed" and job["records"]["failed"] > 0 for job in expected)
    assert by_status.pop("failures", 0) == some_failed
    assert by_status.keys() <= {"stalled", "overdue"}
    rows = {str(row["Run"]).splitlines()[-1]: row for row in jobs["Runs"].rows}
    assert len(rows) == min(len(expected), MOST_LISTED)
    by_id = {job["id"]: job for job in expected}
    for run_id, row in rows.items():
        records = by_id[run_id]["records"]
        finished = records["completed"] + records["failed"]
        text = f"{finished}" if records["total"] is None else f"{finished} / {records['total']}"
        assert str(row["Records"]) == text, run_id
        assert number_of(str(row["Failed"])) == records["failed"], run_id
        assert str(row["Status"]) in possible(by_id[run_id], is_down=is_down), run_id


async def check_waiting(made: World, jobs: list[dict[str, Any]]) -> int:
    """The records that wait are those of the API, in each run that has not just changed; return in how many runs."""
    compared = 0
    board = BOARDS["spinner-jobs"]
    (panel,) = (each for each in board["panels"] if each["title"] == "Waiting records")
    for job in jobs:
        if not job["records"]["waiting"] or datetime.fromisoformat(job["updatedAt"]).timestamp() > made.now - 90:
            continue
        page = Page(board, made.prometheus_url, now=made.now, scrape_interval=SCRAPE_INTERVAL, run=job["id"])
        rows = show_panel(page, panel).rows
        records = await items(made, f"/api/v1/jobs/{job['id']}/records")
        waiting = [each for each in records if each["status"] == "waiting"]
        longest = sorted(waiting, key=lambda each: (each["step"]["startedAt"], each["id"]))[:10]
        told = {
            (each["id"], f"{each['step']['index'] + 1}: {each['step']['name']}", str(each["attempts"]))
            for each in longest
        }
        assert {tuple(str(row[name]) for name in ("Record", "Step", "Attempts")) for row in rows} == told
        assert {str(row["Named"]) for row in rows} == {f"{len(longest)} of {len(waiting)}"}
        compared += 1
    return compared


def possible(job: Mapping[str, Any], *, is_down: bool) -> set[str]:
    """Return how the status of a run can be shown: a running run can be stalled or overdue.

    While the worker service is down, nobody knows whether it is stalled.
    """
    plain = status(job)
    if plain == "completed" and job["records"]["failed"]:
        return {STATUSES["failures"][0]}
    if plain == "running" and is_down:
        return {STATUSES[plain][0], NOT_KNOWN["no workers"][0]}
    return {STATUSES[name][0] for name in ({plain, "stalled", "overdue"} if plain == "running" else {plain})}


def check_today(live_ops: Mapping[str, Shown], expected: list[dict[str, Any]]) -> None:
    assert number(live_ops["Runs failed today"]) == sum(status(job) == "failed" for job in expected)
    assert number(live_ops["Records failed today"]) == sum(job["records"]["failed"] for job in expected)


def check_plan(capacity: Mapping[str, Shown], usage: list[dict[str, Any]]) -> None:
    rows = {str(row["Meter and runtime"]).split("\n")[0]: row for row in capacity["Plan"].rows}
    assert set(rows) == {meter["name"] for meter in usage}
    for meter in usage:
        row = rows[meter["name"]]
        limit = "unlimited" if meter["limit"] is None else f"{meter['limit']:,}"
        assert (str(row["Used"]), str(row["Limit"])) == (f"{meter['used']:,}", limit)


def number(panel: Shown) -> int:
    """Return the number on a card. On the first day nobody is certain that none has failed."""
    (mark,) = panel.marks.values() if panel.marks else (panel.empty,)
    return number_of(str(mark))


def numbers(panel: Shown) -> dict[str, int]:
    """Return the numbers of a card with several, by the status."""
    return {name: number_of(str(mark)) for name, mark in panel.marks.items() if name != "none"}


def number_of(text: str) -> int:
    return 0 if text in ("✔ none", "? unknown") else int(text.replace(",", ""))
