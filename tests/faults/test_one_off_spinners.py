"""Names of spinners that come and go: they leave, and there is a limit, whatever the runtime invents."""

import contextlib
import re
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec

from exporter.config import Config, Duration, LimitsConfig, ProjectsConfig, SpinnerConfig
from exporter.runs.spinners import KEPT_ONE_OFFS
from tests.builders import NOON, RUNTIME
from tests.faults.bench import Bench, bench_of
from tests.faults.server import FaultyRuntime
from tests.metrics.test_exposition import samples, value

HOUR, DAY = 3600.0, 86400.0

STARTED, FINISHED = "spinner_runs_started_total", "spinner_runs_finished_total"
RECORDS = "spinner_records_processed_total"
LAST_START, LAST_SUCCESS = "spinner_last_start_timestamp_seconds", "spinner_last_success_timestamp_seconds"
EXPECTED = 'spinner_expected_interval_seconds{runtime="runtime.test",project="Sales",spinner="%s"}'
DROPPED = "spinner_exporter_runs_dropped_total"

PER_SPINNER = 60
"""Lines of a spinner."""


class Spinning(Bench):
    """A bench with runs of spinners and a look at what is saved of them."""

    def __init__(self, faulty: FaultyRuntime, config: Config, storage: Path | None = None) -> None:
        super().__init__(faulty, config, storage)
        self._runs = 0

    def run(self, spinner: str, **fields: Any) -> None:
        """A run that has just ended, of ten records of which one failed."""
        self._runs += 1
        now = self.runtime.clock()
        ended: dict[str, Any] = {"status": "completed", "createdAt": now - 60, "startedAt": now - 50, "endedAt": now}
        records = {"total": 10, "pending": 0, "running": 0, "waiting": 0, "completed": 9, "failed": 1}
        self.runtime.put(f"run-{self._runs}", spinnerName=spinner, records=records, **ended | fields)

    async def probes(self, after: float = 0, projects: tuple[str, ...] = ("p1", "p2")) -> list[str]:
        """The pages of projects after some seconds."""
        self.play(after)
        return [str(await self.exporter.probe(RUNTIME, project)) for project in projects]

    def saved(self) -> list[str]:
        """The names of the spinners in the state file."""
        assert self._storage is not None
        (file,) = self._storage.glob("*.db")
        copy = sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)
        try:
            return [name for (name,) in copy.execute("SELECT key FROM state WHERE kind = 'spinner'")]
        finally:
            copy.close()


@contextlib.asynccontextmanager
async def bench(folder: Path | None = None, **settings: Any) -> AsyncIterator[Spinning]:
    settings.setdefault("limits", LimitsConfig(failed_records=0))
    async with bench_of(Spinning, storage=folder, **settings) as made:
        yield made


def series(page: str) -> list[str]:
    return [line.rpartition(" ")[0] for line in page.splitlines() if not line.startswith("#")]


def spinners(page: str) -> set[str]:
    return set(re.findall(rf'^{STARTED}{{.*spinner="([^"]*)"', page, re.MULTILINE))


def total(page: str, metric: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    found = re.findall(rf"^{metric}({{.*}}) (\S+)$", page, re.MULTILINE)
    return sum(
        float(number) for pairs, number in found if all(f'{key}="{each}"' in pairs for key, each in labels.items())
    )


# -- spinners that have no more runs ------------------------------------------------------------------------


async def test_4000_one_off_spinners_leave_after_30_days_also_from_the_state_file(tmp_path: Path) -> None:
    limits = LimitsConfig(failed_records=0, spinners=5_000, spinners_per_project=5_000)
    async with bench(tmp_path, limits=limits) as made:
        await made.page()
        for number in range(4_000):
            made.run(f"Import {number}")
        assert len(spinners(await made.page(15))) == 4_000
        made.runtime.jobs.clear()
        made.run("Report")
        for _ in range(2):
            await made.page(2 * HOUR)
        await made.restart()
        made.run("Report", updated_at=NOON + 29 * DAY)
        assert len(spinners(await made.page(29 * DAY))) == 4_001
        await made.page(DAY)
        page = await made.page(DAY)
        assert page.count("\nspinner_") < 500, f"{page.count('spinner='):,} lines; all but one ran once, 31 days ago"
        assert spinners(page) == {"Report"}
        assert total(page, STARTED, spinner="Report") == 2
        await made.exporter.close()
        assert "Report" in made.saved()
        assert len(made.saved()) == 1 + KEPT_ONE_OFFS, "of which only the pace is kept"
        await made.restart()
        assert spinners(await made.page()) == {"Report"}


async def test_a_spinner_that_runs_from_time_to_time_never_leaves_and_one_that_returns_begins_at_zero(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as made:
        await made.page()
        shown = []
        for day in range(0, 80, 20):
            made.run("Monthly")
            if day in (0, 60):
                made.run("Seldom")
            await made.page(15)
            shown.append(total(await made.page(15), STARTED, spinner="Monthly"))
            await made.page(2 * HOUR)
            await made.restart()
            await made.page(10 * DAY)
            await made.page(10 * DAY - 2 * HOUR - 30)
        assert shown == [1, 2, 3, 4]
        assert total(await made.page(), STARTED, spinner="Seldom") == 1


async def test_a_run_that_is_under_way_for_more_than_30_days_keeps_its_spinner(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.page()
        made.run("Migration", status="in_progress", endedAt=None)
        for _ in range(5):
            page = await made.page(10 * DAY)
        await made.restart()
        page = await made.page(10 * DAY)
        assert total(page, STARTED, spinner="Migration") == 1
        made.runtime.put("run-1", status="completed", endedAt=made.runtime.clock())
        page = await made.page(15)
        assert total(page, FINISHED, spinner="Migration", status="completed") == 1


async def test_no_spinner_leaves_while_its_project_cannot_be_read() -> None:
    """That it had no run is unknown: an error is not an absence."""
    async with bench() as made:
        await made.page()
        made.run("Import")
        for _ in range(3):
            await made.page(2 * HOUR)
        made.runtime.interfere = lambda request: httpx.Response(403) if "/jobs" in request.url.path else None
        for _ in range(5):
            page = await made.page(10 * DAY)
        assert total(page, STARTED, spinner="Import") == 1
        made.runtime.interfere = lambda request: None
        made.run("Import")
        await made.page(15)
        assert total(await made.page(15), STARTED, spinner="Import") == 2, "it ran during the outage"


async def test_spinners_that_the_config_expects_never_leave(tmp_path: Path) -> None:
    """The alert on a run that is missing must not resolve because it has been missing for long."""
    entries = (
        SpinnerConfig(project=re.compile("Sales"), spinner=re.compile("Report"), expected_interval=Duration(DAY)),
        SpinnerConfig(spinner=re.compile("Daily.*"), expected_interval=Duration(DAY)),
    )
    async with bench(tmp_path, spinners=entries) as made:
        await made.page()
        for name in ("Report", "Daily mails", "Import"):
            made.run(name)
        await made.page(15)
        for _ in range(5):
            await made.page(20 * DAY)
            await made.restart()
        page = await made.page(15)
        assert spinners(page) == {"Report", "Daily mails"}
        assert value(samples(page), "spinner_last_success_timestamp_seconds", spinner="Daily mails") == NOON
        # When the config expects them no longer, they leave as others do.
        await made.restart(spinners=())
        for _ in range(5):
            page = await made.page(20 * DAY)
        assert spinners(page) == set()


# -- the limit ----------------------------------------------------------------------------------------------


async def test_4000_one_off_spinners_are_limited_and_no_run_is_lost(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.page()
        for number in range(4_000):
            made.run(f"Import {number}")
        await made.page(15)
        for _ in range(2):
            page = await made.page(15)
            lines = len(re.findall("^spinner_(?!run_|exporter_)", page, re.MULTILINE))
            assert len(spinners(page)) == 1_001, f"{lines:,} lines of spinners"
            assert total(page, STARTED) == 4_000
            assert total(page, STARTED, spinner="other") == 3_000
            assert total(page, FINISHED, status="completed") == 4_000
            assert total(page, RECORDS, state="failed") == 4_000
            assert total(page, "spinner_run_finished_duration_seconds_count") == 4_000
            assert total(page, "spinner_runs", status="completed") == 4_000
            await made.restart()
            await made.page(15)
        assert len(made.saved()) == 1_001


async def test_runs_that_are_counted_as_other_are_in_the_metric_of_what_is_dropped() -> None:
    async with bench(limits=LimitsConfig(spinners=2)) as made:
        page = await made.page()
        assert total(page, DROPPED, reason="spinner_limit") == 0
        for number in range(5):
            made.run(f"Import {number}")
        for _ in range(3):
            page = await made.page(15)
        assert total(page, DROPPED, reason="spinner_limit") == 3
        assert spinners(page) == {"Import 0", "Import 1", "other"}
        assert len(re.findall("^spinner_run_info", page, re.MULTILINE)) == 5, "the runs themselves are shown"


async def test_the_limit_holds_for_all_projects_together_and_each_has_its_other() -> None:
    async with bench(limits=LimitsConfig(spinners=5, spinners_per_project=3)) as made:
        made.runtime.projects = {"p1": "Sales", "p2": "Support"}
        await made.page()
        for number in range(6):
            for project in ("p1", "p2"):
                made.run(f"Import {number}", projectId=project)
        for _ in range(2):
            page = await made.page(15)
        assert {project: total(page, STARTED, project=project) for project in ("Sales", "Support")} == {
            "Sales": 6,
            "Support": 6,
        }
        own = sorted(
            total(page, STARTED, project=each) - total(page, STARTED, project=each, spinner="other")
            for each in ("Sales", "Support")
        )
        assert own == [2, 3]


async def test_500_new_names_in_each_scrape_for_days_stay_within_the_limit(tmp_path: Path) -> None:
    """Also what is not on a page: the state, the lines of a format that nobody requests, and the file."""
    limits = LimitsConfig(failed_records=0, spinners=100, runs=500)
    async with bench(tmp_path, limits=limits) as made:
        await made.page()
        made.run("Regular")
        await made.page(15)
        largest = lines = 0
        for scrape in range(60):
            made.runtime.jobs.clear()
            for number in range(500):
                made.run(f"Import {scrape}-{number}")
            made.run("Regular")
            page = await made.page(2 * HOUR if scrape % 3 else 15)
            largest, lines = max(largest, len(spinners(page))), max(lines, page.count("\nspinner_"))
        assert largest <= 101, f"{largest:,} spinners"
        assert lines < 101 * PER_SPINNER + 500 * 20
        assert total(page, STARTED, spinner="Regular") > 20, "it ran more than once, so it keeps its slot"
        (project,) = made.exporter.runtimes[RUNTIME].store.view.projects()
        cache = made.exporter._generation._exposition._caches[RUNTIME]
        sizes = {name: len(each) for name, each in vars(project.spinners).items() if hasattr(each, "__len__")}
        assert max(sizes.values()) <= 501, sizes
        waiting = [len(each._changed) for each in cache._spinners.values()]
        assert max(waiting) < 3_000, "lines of a format that nobody requests"
        await made.exporter.close()
        assert len(made.saved()) <= 101 + KEPT_ONE_OFFS


async def test_among_new_names_a_spinner_that_runs_regularly_gets_its_own_series_within_a_day() -> None:
    async with bench(limits=LimitsConfig(failed_records=0, spinners=20)) as made:
        await made.page()
        for scrape in range(165):
            if scrape % 40 == 0:
                made.runtime.jobs.clear()
            for number in range(10):
                made.run(f"Import {scrape}-{number}")
            if scrape > 4:
                made.run("Regular")
            page = await made.page(600)
            assert len(spinners(page)) <= 21
        assert total(page, STARTED, spinner="Regular") > 1


async def test_when_there_is_room_a_spinner_gets_its_own_series_from_zero_and_other_does_not_decrease() -> None:
    async with bench(limits=LimitsConfig(spinners=1)) as made:
        await made.page()
        made.run("First")
        made.run("Second", status="in_progress", endedAt=None)
        for _ in range(2):
            page = await made.page(15)
        assert {name: total(page, STARTED, spinner=name) for name in spinners(page)} == {"First": 1, "other": 1}
        assert total(page, "spinner_runs", spinner="other", status="running") == 1
        # The first ran once, a day ago.
        for _ in range(3):
            page = await made.page(DAY)
        made.runtime.put("run-2", status="completed", endedAt=made.runtime.clock())
        pages = [await made.page(15), await made.page(15)]
        for name, counted in (("Second", [0, 1]), ("other", [0, 0])):
            assert [total(page, FINISHED, spinner=name, status="completed") for page in pages] == counted
        assert [total(page, STARTED) for page in pages] == [1, 1], "its start was counted as that of other"
        assert total(pages[1], "spinner_runs", spinner="Second", status="completed") == 1
        assert total(pages[1], "spinner_runs", spinner="other") == 0


async def test_a_spinner_that_is_really_called_other_is_counted_with_the_rest_and_keeps_its_times(
    tmp_path: Path,
) -> None:
    entries = (SpinnerConfig(spinner=re.compile(".*"), expected_interval=Duration(DAY)),)
    async with bench(tmp_path, limits=LimitsConfig(spinners=1), spinners=entries) as made:
        await made.page()
        made.run("First")
        made.run("Second")
        for _ in range(2):
            page = await made.page(15)
        assert EXPECTED % "First" in page
        assert EXPECTED % "other" not in page, "that some of many ran does not mean that one did"
        assert total(page, STARTED, spinner="other") == 1
        made.run("other", status="failed")
        for _ in range(2):
            page = await made.page(15)
            assert not [line for line, times in Counter(series(page)).items() if times > 1], "duplicate series"
        assert total(page, STARTED, spinner="other") == 2
        assert EXPECTED % "other" in page
        found = samples(page)
        assert value(found, LAST_START, spinner="other") == NOON + 30 - 50
        assert value(found, LAST_SUCCESS, spinner="other") is None, "the real one has not succeeded"
        made.run("Second")
        for _ in range(2):
            page = await made.page(15)
        assert value(samples(page), LAST_START, spinner="other") == NOON + 30 - 50
        await made.restart()
        page = await made.page(15)
        assert total(page, STARTED) == 4
        assert total(page, STARTED, spinner="other") == 3


async def test_a_real_other_alone_is_a_spinner_as_any(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.page()
        made.run("other")
        await made.page(15)
        await made.restart()
        page = await made.page(15)
        assert {name: total(page, STARTED, spinner=name) for name in spinners(page)} == {"other": 1}
        assert value(samples(page), LAST_SUCCESS, spinner="other") == NOON
        await made.page(2 * HOUR)
        assert spinners(await made.page(31 * DAY)) == set()


async def test_a_spinner_that_the_config_names_has_its_place_whatever_the_limit_also_after_a_reload() -> None:
    def named(name: str) -> SpinnerConfig:
        return SpinnerConfig(project=re.compile("Sales"), spinner=re.compile(name), expected_interval=Duration(DAY))

    async with bench(limits=LimitsConfig(spinners=2), spinners=(named("Report"),)) as made:
        await made.page()
        for name in ("First", "Later", "Report", "Latest"):
            made.run(name, status="in_progress", endedAt=None)
        for _ in range(2):
            page = await made.page(15)
        assert "Report" in spinners(page)
        assert len(spinners(page)) == 3
        await made.exporter.reload({RUNTIME: msgspec.structs.replace(made.config, spinners=(named("Latest"),))})
        page = await made.page(15)
        assert total(page, "spinner_runs", spinner="Latest", status="running") == 1, "it has a run, counted as other's"
        assert total(page, "spinner_runs", status="running") == 4, "each run belongs to one spinner"
        assert len(spinners(page)) == 3
        made.runtime.put("run-4", status="completed", endedAt=made.runtime.clock())
        for _ in range(2):
            page = await made.page(15)
        assert total(page, FINISHED, spinner="Latest", status="completed") == 1
        assert value(samples(page), LAST_SUCCESS, spinner="Latest") is not None


async def test_a_lower_limit_takes_the_places_of_those_without_runs_first(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.page()
        for number in range(20):
            made.run(f"Old {number}")
        await made.page(15)
        for _ in range(2):
            await made.page(HOUR)
        made.run("Under way")
        made.run("Under way", status="in_progress", endedAt=None)
        made.run("New", status="in_progress", endedAt=None)
        await made.page(15)
        await made.restart(limits=LimitsConfig(spinners=1))
        page = await made.page(15)
        assert spinners(page) == {"Under way", "other"}
        assert total(page, "spinner_runs", spinner="other", status="running") == 1
        assert total(page, DROPPED, reason="spinner_limit") == 21
        made.runtime.put("run-23", status="completed", endedAt=made.runtime.clock())
        for _ in range(2):
            page = await made.page(15)
        assert total(page, FINISHED, spinner="other", status="completed") == 1
        assert total(page, "spinner_runs", spinner="other", status="running") == 0


async def test_probed_projects_share_the_limit_and_their_spinners_leave_too() -> None:
    limits = LimitsConfig(failed_records=0, spinners=5)
    retention: dict[str, Any] = {"retention": Duration(60), "spinner_retention": Duration(2 * HOUR)}
    async with bench(limits=limits, projects=ProjectsConfig(on_probe=True), **retention) as made:
        made.runtime.projects = {"p1": "Sales", "p2": "Support"}
        await made.probes()
        for number in range(4):
            for project in ("p1", "p2"):
                made.run(f"Import {number}", projectId=project)
        await made.probes(15)
        pages = await made.probes(15)
        assert [total(page, STARTED) for page in pages] == [4, 4]
        assert [len(spinners(page) - {"other"}) for page in pages] == [4, 1]
        assert total(await made.page(), DROPPED, reason="spinner_limit") == 3
        # The slot of a project that is no longer probed is free.
        made.play(1000)
        made.run("Another", projectId="p2")
        page = (await made.probes(15, projects=("p2",)))[0]
        assert "Another" in spinners(page)
        for _ in range(14):
            made.play(600)
            page = (await made.probes(0, projects=("p2",)))[0]
        assert spinners(page) == set()
