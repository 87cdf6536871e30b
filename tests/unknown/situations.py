"""The ways to go blind: what happens in a simulated world, what it hides, and when somebody looks at the dashboards."""

import functools
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec

from dashboards.__main__ import DASHBOARDS, DIST
from dashboards.panels import AMONG_ITS_PROJECT
from exporter.simulator import Scenario, load_scenario
from exporter.simulator.durations import Duration
from exporter.simulator.scenario import Incident, RuntimeDown, Stall, Start
from tests.alerts.rule_files import RULE_FILES
from tests.dashboards.grafana import Page
from tests.dashboards.shown import Shown, show
from tests.stack.programs import query
from tests.unknown.simulation import HOUR, MIDNIGHT, SCRAPE_INTERVAL, Change, World, edit_json, world

BOARDS = {uid: json.loads((DIST / f"{uid}.json").read_text()) for uid in DASHBOARDS}

JOBS, LIVE_OPS, HEALTH, CAPACITY, EXPORTER = BOARDS

WARM_UP = 20
"""Minutes in which everything works before a situation begins."""

Panels = Mapping[str, frozenset[str]]
"""Titles of panels by dashboard."""


@functools.cache
def calm(*incidents: Incident) -> Scenario:
    """A scenario in which nothing fails, except for incidents."""
    return msgspec.structs.replace(load_scenario(str(Path(__file__).with_name("calm.yaml"))), incidents=incidents)


Layout = Callable[[World, Scenario], None]
Step = Callable[[World], Awaitable[None]]


@dataclass(frozen=True)
class Situation:
    """One way to go blind."""

    name: str
    layout: Layout
    begin: Step
    looks: tuple[int, ...]
    """Minutes after the begin at which somebody looks at the dashboards."""
    blind: Panels
    """The panels whose data come from what is lost: they must not look well."""
    pages_within: int | None = None
    """It hides stalls, and has to page within so many minutes. None: it hides none until the last look, and nothing may
    page."""
    scenario: Scenario = field(default_factory=calm)
    rules: tuple[Path, ...] = tuple(RULE_FILES)
    warm_up: int = WARM_UP
    starts_at: float = MIDNIGHT


@dataclass(frozen=True)
class Outcome:
    """What was observed in a situation."""

    alerts: Mapping[tuple[str, str], float]
    """When each alert fired, by name and runtime: minutes after the begin."""
    looks: Mapping[int, Mapping[str, Mapping[str, Shown]]]
    """What the panels show, by minute, dashboard and title."""


async def observe(situation: Situation, folder: Path) -> Outcome:
    """Let a situation happen, and look at the dashboards."""
    with world(folder, rules=situation.rules, starts_at=situation.starts_at) as made:
        situation.layout(made, situation.scenario)
        await made.advance(situation.warm_up)
        made.mark()
        await situation.begin(made)
        looks = {}
        for minute in situation.looks:
            await made.advance(minute - made.minutes)
            looks[minute] = {uid: show(_page(uid, made)) for uid in BOARDS}
        return Outcome(made.fired, looks)


def _page(uid: str, made: World) -> Page:
    # Spinner health begins weeks ago by default, with a point every half an hour: more than these worlds have.
    since = "now-3h" if uid == HEALTH else ""
    chosen = _newest_run(made) if uid == JOBS else {}
    return Page(BOARDS[uid], made.prometheus_url, now=made.now, since=since, scrape_interval=SCRAPE_INTERVAL, **chosen)


def _newest_run(made: World) -> dict[str, str]:
    """Return what a click on a run chooses that is reported: the newest that has not ended, if there is one."""
    created, ended = (f"spinner_run_{each}_timestamp_seconds @ {made.now}" for each in ("created", "end"))
    runs = query(made.prometheus_url, f"topk(1, ({created} unless on (run_id) {ended}) + 1e10 or {created})")
    if not runs:
        return {"run": "job_of_long_ago"}
    labels, _ = runs[0]
    place = {f"run_{label}": labels[label] for label in ("runtime", "project")}
    return {"run": labels["run_id"], "run_among": AMONG_ITS_PROJECT, **place}


# Layouts. The first runtime is eu, the first exporter is a:10095.

EXPECTED = {"spinners": [{"spinner": "Newsletter", "expected_interval": "10m"}]}


def one(made: World, scenario: Scenario) -> None:
    """One exporter reads one runtime."""
    made.add_runtime("eu", scenario)
    made.add_exporter("a:10095", "eu", **EXPECTED)


def one_with_retention(retention: str) -> Layout:
    """One exporter that shows runs for a while after their end."""

    def layout(made: World, scenario: Scenario) -> None:
        made.add_runtime("eu", scenario)
        made.add_exporter("a:10095", "eu", retention=retention)

    return layout


def clock_differs(hours: int) -> Layout:
    """One exporter reads a runtime whose clock is ahead."""

    def layout(made: World, scenario: Scenario) -> None:
        made.add_runtime("eu", scenario, ahead=hours * HOUR)
        made.add_exporter("a:10095", "eu", **EXPECTED)

    return layout


def pair(made: World, scenario: Scenario) -> None:
    """Two exporters read the same runtime."""
    one(made, scenario)
    made.add_exporter("b:10095", "eu", **EXPECTED)


def shards(made: World, scenario: Scenario) -> None:
    """Each of two exporters reads one of the runtime's two projects."""
    made.add_runtime("eu", scenario)
    for instance, project in (("a:10095", "Clinic"), ("b:10095", "Sales")):
        made.add_exporter(instance, "eu", projects={"include": [project]})


def one_each(made: World, scenario: Scenario) -> None:
    """Two runtimes, each with an exporter of its own."""
    one(made, scenario)
    made.add_runtime("us", scenario, seed=2)
    made.add_exporter("b:10095", "us", **EXPECTED)


def nothing(made: World, scenario: Scenario) -> None:
    """No exporter, and an empty Prometheus."""


# What happens.


async def as_before(made: World) -> None:
    """Nothing changes."""


async def kill(made: World) -> None:
    """The first exporter is killed; its target stays."""
    made.kill("a:10095")


async def remove(made: World) -> None:
    """The first exporter's host is gone, and service discovery removes its target."""
    made.remove_target("a:10095")


async def api_down(made: World) -> None:
    """The API refuses connections."""
    made.runtimes["eu"].is_down = True


def changed(change: Change) -> Step:
    """The API's responses are replaced."""

    async def begin(made: World) -> None:
        made.runtimes["eu"].change = change

    return begin


def fails(path: str) -> Step:
    """A path and those below it answer 500."""
    return changed(lambda request, response: httpx.Response(500) if path in request.url.path else response)


def in_jobs(edit: Callable[[dict[str, Any]], dict[str, Any]]) -> Step:
    """Every job that the API sends is edited."""

    def body(path: str, content: Any) -> Any:
        if path.endswith("/jobs"):
            return {**content, "items": [edit(item) for item in content["items"]]}
        return edit(content) if "/jobs/" in path and not path.endswith("/records") else content

    return changed(edit_json(body))


def renamed(job: dict[str, Any]) -> dict[str, Any]:
    """`status` is called `state`."""
    return {"state" if key == "status" else key: value for key, value in job.items()}


def retyped(job: dict[str, Any]) -> dict[str, Any]:
    """`createdAt` is a number."""
    return {**job, "createdAt": 1_767_603_600_000}


def without_counts(job: dict[str, Any]) -> dict[str, Any]:
    """The counts and the time of the last progress are null."""
    return {**job, "records": None, "lastProgressAt": None}


async def no_projects_once(made: World) -> None:
    """The list of projects is empty for one scrape."""
    runtime = made.runtimes["eu"]
    before = runtime.change
    runtime.change = edit_json(lambda path, body: {**body, "items": []} if path.endswith("/projects") else body)
    await made.advance(0.5)
    runtime.change = before


no_heartbeat = changed(edit_json(lambda path, body: {"status": "ok"} if path == "/health" else body))
"""/health no longer tells of a worker service."""


async def restart(made: World) -> None:
    """The exporter is killed and started again."""
    made.kill("a:10095")
    await made.advance(0.5)
    made.start("a:10095")


async def prometheus_down(made: World) -> None:
    """Prometheus is down for ten minutes: what it scraped before ends without staleness markers."""
    made.is_scraping = False
    await made.advance(10)
    made.is_scraping = True


async def dies_unseen(made: World) -> None:
    """The first exporter dies while Prometheus is down for ten minutes."""
    made.kill("a:10095")
    await prometheus_down(made)


WORKER_DOWN = RuntimeDown(at=Duration(WARM_UP * 60), lasts=Duration(4 * HOUR), unnoticed=Duration(20 * 60))
STALL = Stall(at=Duration(WARM_UP * 60), spinner="Reminders")


def one_short_run() -> Scenario:
    """A scenario with a single run, right at the start."""
    clinic, _ = calm().projects
    newsletter = clinic.spinners[1]
    once = msgspec.structs.replace(newsletter, runs=(Start(at=Duration(60)),))
    clinic = msgspec.structs.replace(clinic, spinners=(once,))
    return msgspec.structs.replace(calm(), before=Duration(0), projects=(clinic,))


# Which panels are blind.


def every_panel(but: Panels) -> Panels:
    """All panels of all dashboards, without those whose data come from elsewhere."""
    titles = {uid: frozenset(panel["title"] for panel in board["panels"]) for uid, board in BOARDS.items()}
    return {uid: found - but.get(uid, frozenset()) for uid, found in titles.items()}


EVERY_PANEL = every_panel({})
NO_PANEL: Panels = {}

FAILURES = frozenset({"Failures by step and error", "Failed records"})
OF_SELECTED = FAILURES | {"Records by step"}
"""Panels of Jobs. They are about the selected runs, which by default are the newest that are reported."""

HEAD = frozenset({"Runtimes"})

OF_THE_PROCESS = EVERY_PANEL[EXPORTER] - HEAD - {"Projects that cannot be read", "Runs shown"}
"""Panels of Exporter: what an exporter knows without the API."""

EXPORTER_ITSELF = {EXPORTER: OF_THE_PROCESS}

OTHER_SHARD = {
    JOBS: HEAD | OF_SELECTED,
    LIVE_OPS: HEAD,
    # Each exporter reads the plan.
    CAPACITY: frozenset({"Highest plan usage"}),
    EXPORTER: HEAD | OF_THE_PROCESS - {"Config"},
}
"""What the other exporter of the same runtime knows: its API and its worker service, and the failures of its runs."""

OTHER_PROJECT = {
    JOBS: HEAD | OF_SELECTED,
    LIVE_OPS: HEAD,
    CAPACITY: frozenset({"Highest plan usage"}),
    EXPORTER: HEAD | OF_THE_PROCESS,
}

ALERTS = frozenset({"Firing alerts", "Pages", "Tickets"})
RECORDED = {
    LIVE_OPS: EVERY_PANEL[LIVE_OPS] - HEAD,
    HEALTH: EVERY_PANEL[HEALTH],
    CAPACITY: EVERY_PANEL[CAPACITY] - {"Plan"},
    EXPORTER: frozenset({"Projects that cannot be read"}),
}
"""What needs the recording rules, or shows that they are missing."""

UNCOUNTED = {
    JOBS: FAILURES | {"Progress", "Records per minute", "Expected end", "Time since progress", "Stall threshold"},
    LIVE_OPS: frozenset({"Stalled", "Records failed today", "Top failing steps", "Records per minute"}),
    HEALTH: frozenset({"Failed records", "Records per minute"}),
}
"""What needs the counts of the runs."""

ALERTS_ONLY = tuple(file for file in RULE_FILES if file.name == "alerts.rules.yml")

SITUATIONS = (
    Situation("everything works", one, as_before, (10,), NO_PANEL),
    Situation("the exporter is killed", one, kill, (3, 60), EVERY_PANEL, pages_within=7),
    Situation("the exporter's host is gone, and its target too", one, remove, (10,), EVERY_PANEL, pages_within=7),
    Situation(
        "one of two exporters that share the projects is dead",
        shards,
        kill,
        (10,),
        every_panel(OTHER_SHARD),
        pages_within=7,
    ),
    Situation("one exporter of a pair is dead", pair, kill, (20,), {EXPORTER: frozenset({"Config"})}),
    Situation(
        "the exporter of one of two runtimes is dead",
        one_each,
        kill,
        (10,),
        every_panel({JOBS: OF_SELECTED, EXPORTER: OF_THE_PROCESS - {"Config"}}),
        pages_within=7,
    ),
    Situation("the API is down", one, api_down, (1, 6, 60), every_panel(EXPORTER_ITSELF), pages_within=7),
    Situation(
        "one project cannot be read",
        one,
        fails("/projects/sales/"),
        (3,),
        every_panel({**OTHER_PROJECT, JOBS: HEAD}),
    ),
    Situation(
        "one project cannot be read, and its data are withdrawn",
        one,
        fails("/projects/sales/"),
        (20,),
        every_panel(OTHER_PROJECT),
        pages_within=7,
    ),
    Situation(
        "a field of the runs has another name",
        one,
        in_jobs(renamed),
        (3, 20),
        every_panel(EXPORTER_ITSELF),
        pages_within=7,
    ),
    Situation(
        "a field of the runs has another type",
        one,
        in_jobs(retyped),
        (3, 20),
        every_panel(EXPORTER_ITSELF),
        pages_within=7,
    ),
    Situation("the runs lose their counts", one, in_jobs(without_counts), (3, 20), UNCOUNTED, pages_within=7),
    Situation("the list of projects is empty once", one, no_projects_once, (1, 10), NO_PANEL),
    Situation(
        "the health cannot be read",
        one,
        fails("/health"),
        (10,),
        every_panel({**EXPORTER_ITSELF, JOBS: OF_SELECTED}),
        pages_within=7,
    ),
    Situation(
        "the health tells no heartbeat", one, no_heartbeat, (10,), {LIVE_OPS: ALERTS | {"Stalled"}}, pages_within=7
    ),
    Situation(
        "the worker service is down",
        one,
        as_before,
        (10, 30),
        {LIVE_OPS: ALERTS | {"Stalled"}},
        pages_within=7,
        scenario=calm(WORKER_DOWN),
    ),
    Situation("the runtime's clock is 5 hours ahead", clock_differs(5), as_before, (10,), NO_PANEL),
    Situation("the runtime's clock is 5 hours behind", clock_differs(-5), as_before, (10,), NO_PANEL),
    Situation("Prometheus was down for 10 minutes", one, prometheus_down, (11, 20), NO_PANEL),
    Situation(
        "one of two exporters that share the projects died while Prometheus was down",
        shards,
        dies_unseen,
        (11, 25),
        # The chosen run is one of the other exporter, and has just begun.
        every_panel(OTHER_SHARD | {JOBS: OTHER_SHARD[JOBS] | {"Progress", "Records per minute"}}),
        # Until then Prometheus was down for 10 minutes, and what was exposed before is looked up every 4 minutes.
        pages_within=22,
    ),
    Situation("Prometheus is empty", nothing, as_before, (10,), EVERY_PANEL, pages_within=7, warm_up=0),
    Situation("the recording rules are not loaded", one, as_before, (20,), RECORDED, rules=ALERTS_ONLY, warm_up=0),
    Situation("the exporter was restarted without storage", one, restart, (1, 10), NO_PANEL),
    Situation(
        "all runs ended longer than the retention ago",
        one_with_retention("5m"),
        as_before,
        (10,),
        {JOBS: EVERY_PANEL[JOBS] - HEAD - {"Runs that need a person", "Runs by status"}},
        scenario=one_short_run(),
    ),
    Situation(
        "the range begins before the data",
        one,
        as_before,
        (10,),
        {LIVE_OPS: frozenset({"Runs failed today", "Records failed today"})},
        starts_at=MIDNIGHT + 9 * HOUR,
    ),
)
