"""Which records wait, read over real connections: of which runs and how often, what it costs, what cannot be read."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from exporter.config import Duration, LimitsConfig, ProjectsConfig, SyncConfig
from exporter.sync import record_lists, waiting_records
from exporter.sync.waiting_records import CHANGED_AFTER, UNCHANGED_AFTER
from tests.builders import NOON, RUNTIME, Clock
from tests.faults.bench import Bench, bench_of, up
from tests.faults.server import Exchange, Fault, an_error, failing, forbidden, hanging
from tests.metrics.test_exposition import Samples, samples, value
from tests.scripted import ScriptedRuntime

INFO = "spinner_run_waiting_record_info"
SINCE = "spinner_run_waiting_record_step_start_timestamp_seconds"


class Waiting(Bench):
    """A bench with runs of which records wait."""

    def wait(self, run_id: str = "run-1", *records: dict[str, Any], count: int | None = None, **fields: Any) -> None:
        """Let records of a run wait, which is new or has changed; `count` is how many it says if not as many."""
        self.runtime.waiting_records[run_id] = list(records)
        now = self.runtime.clock()
        counts = {"total": 100, "completed": 1, "running": 0, "waiting": len(records) if count is None else count}
        times = {} if run_id in self.runtime.jobs else {"startedAt": NOON - 100, "lastProgressAt": now}
        self.runtime.put(run_id, **{"status": "waiting", **times, "records": counts, **fields})

    async def scraped(self, seconds: float = 15) -> Samples:
        """The samples of a scrape so many seconds later, and what was requested for it."""
        self.runtime.requests.clear()
        return await self.next(seconds)

    async def asked_in(self, seconds: float, interval: float = 15) -> list[str]:
        """The runs that scrapes at an interval ask for, in order."""
        asked = []
        for _ in range(int(seconds / interval)):
            await self.scraped(interval)
            asked += self.asked
        return asked

    @property
    def asked(self) -> list[str]:
        """The runs whose waiting records were requested for the last scrape."""
        return self.runtime.runs_asked("waiting")


@contextlib.asynccontextmanager
async def bench(**settings: Any) -> AsyncIterator[Waiting]:
    settings.setdefault("sync", SyncConfig(min_interval=Duration(0), sweep_interval=Duration(1e6)))
    async with bench_of(Waiting, ScriptedRuntime(Clock()), path="/records", **settings) as made:
        await made.next(0)
        yield made


def record(record_id: str = "rec-1", *, since: float | None = 0, step: str = "Ask", attempts: int | None = 1) -> Any:
    """A record that waits since so many seconds after noon."""
    at = {"index": 1, "name": step, "startedAt": None if since is None else NOON + since}
    return {"id": record_id, "startedAt": NOON - 60, "attempts": attempts, "step": at}


def reads(found: Samples, result: str) -> float | None:
    return value(found, "spinner_exporter_waiting_records_reads_total", result=result)


def named(found: Samples, name: str = INFO) -> dict[str, set[str]]:
    """The records that are named, by run."""
    shown: dict[str, set[str]] = {}
    for each, pairs in found:
        if each == name:
            shown.setdefault(dict(pairs)["run_id"], set()).add(dict(pairs)["record_id"])
    return shown


async def test_records_that_wait_are_named_with_their_step_and_since_when() -> None:
    async with bench() as made:
        made.wait("run-1", record("rec-1", since=3, attempts=2), record("rec-2", since=1), record("rec-3", step="Call"))
        found = await made.scraped()
        assert made.asked == ["run-1"]
        assert named(found) == {"run-1": {"rec-1", "rec-2", "rec-3"}}
        assert value(found, "spinner_run_waiting_records", step="Ask") == 2
        assert value(found, "spinner_run_waiting_records", step="Call") == 1
        assert value(found, SINCE, record_id="rec-1", step="Ask", step_number="2") == NOON + 3
        assert value(found, "spinner_run_waiting_record_attempts", record_id="rec-1") == 2
        assert (reads(found, "read"), reads(found, "failed"), reads(found, "postponed")) == (1, 0, 0)


async def test_nothing_is_requested_while_no_record_waits() -> None:
    async with bench() as made:
        made.wait("run-1", count=0, status="running")
        made.wait("run-2", count=0, status="waiting")
        made.wait("run-3", record(), status="completed", endedAt=NOON)
        made.runtime.put("run-4", records={"total": 9, "completed": 1})
        assert await made.asked_in(UNCHANGED_AFTER) == []


async def test_a_run_that_tells_no_number_is_read_while_its_status_says_that_it_waits() -> None:
    async with bench() as made:
        made.wait("run-1", record(), records={"total": 9, "completed": 1})
        assert named(await made.scraped()) == {"run-1": {"rec-1"}}


async def test_a_run_is_read_again_when_it_has_changed_and_rarely_while_it_has_not() -> None:
    async with bench() as made:
        made.wait("run-1", record())
        assert await made.asked_in(UNCHANGED_AFTER) == ["run-1"]
        assert await made.asked_in(15) == ["run-1"]
        # As many wait, but others: the run has changed, at least by its `updatedAt`.
        made.wait("run-1", record("rec-2"))
        assert await made.asked_in(CHANGED_AFTER - 15) == []
        found = await made.scraped()
        assert made.asked == ["run-1"]
        assert named(found) == {"run-1": {"rec-2"}}


async def test_where_open_runs_are_read_more_often_so_are_their_waiting_records() -> None:
    async with bench(sync=SyncConfig(min_interval=Duration(0), sweep_interval=Duration(30))) as made:
        made.wait("run-1", record())
        assert await made.asked_in(150) == ["run-1"]
        assert await made.asked_in(15) == ["run-1"]
        made.wait("run-1", record("rec-2"))
        assert await made.asked_in(15) == ["run-1"]


async def test_a_count_that_changes_without_its_time_is_noticed() -> None:
    async with bench() as made:
        made.wait("run-1", record(), updated_at=NOON)
        await made.scraped()
        made.wait("run-1", record(), record("rec-2"), updated_at=NOON)
        assert await made.asked_in(CHANGED_AFTER) == ["run-1"]


async def test_what_it_costs_is_what_the_documentation_says() -> None:
    """With a scrape every 15 seconds: 6 requests per hour and run that waits, 60 if it changes all the time."""
    async with bench() as made:
        made.wait("still", record())
        await made.scraped()
        assert await made.asked_in(3600) == ["still"] * 6
        made.runtime.put("still", status="completed", endedAt=made.runtime.clock())
        asked = []
        for _ in range(240):
            made.wait("busy", record())
            asked += await made.asked_in(15)
        assert asked == ["busy"] * 60


async def test_a_run_that_goes_on_shows_none_at_once() -> None:
    async with bench() as made:
        made.wait("run-1", record())
        await made.scraped()
        made.wait("run-1", status="running")
        found = await made.scraped()
        assert [name for name, _ in found if name.startswith("spinner_run_waiting_record")] == []
        assert value(found, "spinner_run_records", state="waiting") == 0
        made.wait("run-1", record("rec-2"))
        assert named(await made.scraped()) == {"run-1": {"rec-2"}}, "it is not read as late as one that has changed"
        made.runtime.put("run-1", status="completed", endedAt=made.runtime.clock())
        assert named(await made.scraped()) == {}


async def test_a_list_without_records_of_a_run_of_which_some_wait_is_unknown_and_not_none() -> None:
    async with bench() as made:
        made.wait("run-1", record())
        await made.scraped()
        made.wait("run-1", count=2)
        await made.asked_in(CHANGED_AFTER)
        found = await made.scraped()
        assert value(found, "spinner_run_records", state="waiting") == 2
        assert [name for name, _ in found if name.startswith("spinner_run_waiting_record")] == []


async def test_records_of_another_status_are_ignored_where_the_filter_is() -> None:
    async with bench() as made:
        others = [{**record(f"rec-{status}"), "status": status} for status in ("running", "failed", None, "strange")]
        made.wait("run-1", record(), *others, count=1)
        found = await made.scraped()
        assert named(found) == {"run-1": {"rec-1"}}
        assert value(found, "spinner_run_waiting_records", step="Ask") == 1


async def test_what_is_not_told_has_no_sample() -> None:
    async with bench() as made:
        made.wait("run-1", {"id": "rec-1"}, record("rec-2", since=None, attempts=None), record("rec-3", since=7e8))
        found = await made.scraped()
        assert named(found) == {"run-1": {"rec-1", "rec-2", "rec-3"}}
        assert named(found, SINCE) == {}
        assert named(found, "spinner_run_waiting_record_attempts") == {"run-1": {"rec-3"}}
        assert value(found, "spinner_run_waiting_records", step="") == 1


def of_list(status: str, fault: Fault) -> Fault:
    """A fault of the lists of the records of one status."""

    async def applied(exchange: Exchange) -> None:
        if exchange.request.url.params.get("status") == status:
            await fault(exchange)
        else:
            await exchange.send()

    return applied


async def garbage(exchange: Exchange) -> None:
    await exchange.send(b'{"items": [{"id": "rec-1", "status": "waiting", "attempts": {}}], "asOf": 7}')


@pytest.mark.parametrize("fault", [failing, hanging, garbage, an_error, forbidden])
async def test_a_list_that_cannot_be_read_shows_nothing_and_costs_no_project_its_up(
    fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting_records, "MAX_SECONDS", 0.2)
    async with bench() as made:
        made.wait("run-1", record())
        made.faulty.fault = of_list("waiting", fault)
        found = await made.scraped()
        assert made.asked == ["run-1"]
        assert named(found) == {}
        assert value(found, "spinner_run_waiting_records") is None
        assert up(found) == (1, 1, None)
        assert (reads(found, "failed"), reads(found, "read")) == (1, 0)
        assert await made.asked_in(CHANGED_AFTER - 15) == []
        made.faulty.fault = None
        assert named(await made.scraped()) == {"run-1": {"rec-1"}}


async def test_what_was_read_before_a_failure_is_shown_until_it_is_stale() -> None:
    async with bench() as made:
        made.wait("run-1", record())
        await made.scraped()
        made.faulty.fault = of_list("waiting", failing)
        await made.asked_in(UNCHANGED_AFTER - 15)
        assert named(await made.scraped()) == {"run-1": {"rec-1"}}
        await made.asked_in(SyncConfig().stale_after - 15)
        assert named(await made.scraped()) == {"run-1": {"rec-1"}}
        assert named(await made.scraped()) == {}, "its turn has not come for longer than sync.stale_after"
        made.faulty.fault = None
        await made.asked_in(CHANGED_AFTER)
        assert named(await made.scraped()) == {"run-1": {"rec-1"}}


@pytest.mark.parametrize("status", [400, 405, 422, 501])
async def test_a_runtime_without_the_list_is_not_asked_again_for_ten_minutes(status: int) -> None:
    async def unknown(exchange: Exchange) -> None:
        await exchange.send(status=status)

    async with bench() as made:
        made.wait("run-1", record())
        assert made.exporter.runtimes[RUNTIME].lists_waiting_records is None
        made.faulty.fault = of_list("waiting", unknown)
        found = await made.scraped()
        assert made.asked == ["run-1"]
        assert up(found) == (1, 1, None)
        assert await made.asked_in(record_lists.RETRY_AFTER - 15) == []
        assert [line for line in made.problems if "waiting records" in line] == []
        assert made.exporter.runtimes[RUNTIME].lists_waiting_records is False
        assert "waiting records are not read: the runtime does not list them" in str(made.lines)
        made.faulty.fault = None
        assert named(await made.scraped(30)) == {"run-1": {"rec-1"}}
        assert made.exporter.runtimes[RUNTIME].lists_waiting_records is True


async def test_what_a_list_of_another_kind_lacks_is_not_held_against_this_one() -> None:
    async def unknown(exchange: Exchange) -> None:
        await exchange.send(status=400)

    async with bench() as made:
        made.faulty.fault = of_list("running", unknown)
        made.wait("run-1", record())
        made.runtime.put("run-2", startedAt=NOON, lastProgressAt=NOON, records={"total": 9, "completed": 1})
        found = await made.scraped(900)
        assert value(found, "spinner_exporter_records_in_flight_reads_total", result="failed") == 1
        assert named(found) == {"run-1": {"rec-1"}}


@pytest.mark.parametrize("per_slice", [2, 4, 500])
async def test_of_many_runs_as_many_are_read_as_can_be_named_the_most_silent_ones(
    per_slice: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting_records, "RUNS_PER_SLICE", per_slice)
    limits = LimitsConfig(failed_records_per_run=2, failed_records=5)
    async with bench(limits=limits) as made:
        for number in range(9):
            made.wait(f"run-{number}", *(record(f"rec-{each}") for each in range(4)), lastProgressAt=NOON - number)
        found = await made.scraped()
        assert sorted(made.asked) == ["run-6", "run-7", "run-8"]
        assert sum(map(len, named(found).values())) == 5
        assert value(found, "spinner_run_waiting_records", run_id="run-8") == 4
        made.wait("run-8", record(), lastProgressAt=made.runtime.clock())
        found = await made.scraped()
        assert made.asked == ["run-5"]
        assert value(found, "spinner_run_waiting_records", run_id="run-8") is None, "it is one of the others now"


async def test_those_that_wait_the_longest_are_named_within_the_limits() -> None:
    async with bench(limits=LimitsConfig(failed_records_per_run=2, failed_records=3)) as made:
        made.wait("run-1", *(record(f"rec-{each}", since=100 - each) for each in range(5)))
        made.wait("run-2", *(record(f"rec-{each}", since=50 - each) for each in range(5)))
        assert named(await made.scraped()) == {"run-1": {"rec-4"}, "run-2": {"rec-4", "rec-3"}}
    for limits in ({"failed_records": 0}, {"failed_records_per_run": 0}, {"waiting_record_requests": 0}):
        async with bench(limits=LimitsConfig(**limits)) as made:
            made.wait("run-1", record())
            assert await made.asked_in(30) == []


async def test_a_budget_is_read_in_each_scrape_and_each_run_gets_its_turn() -> None:
    async with bench(limits=LimitsConfig(waiting_record_requests=2), sync=SyncConfig(concurrency=2)) as made:
        for number in range(10):
            made.wait(f"run-{number}", record(), lastProgressAt=NOON - number)
        found = await made.scraped()
        assert sorted(made.asked) == ["run-8", "run-9"], "the most silent ones first"
        assert reads(found, "postponed") == 8
        asked = await made.asked_in(60)
        assert sorted(asked) == [f"run-{number}" for number in range(8)]
        seen: list[str] = []
        for _ in range(25):
            # All of them are due after four scrapes, in which eight are read.
            for number in range(10):
                made.wait(f"run-{number}", record())
            await made.scraped()
            assert len(made.asked) <= 2
            seen += made.asked
        assert {seen.count(f"run-{number}") for number in range(10)} == {5}, "also while all of them change"


async def test_of_very_many_records_a_few_pages_are_read() -> None:
    async with bench() as made:
        made.wait("run-1", *(record(f"rec-{each}") for each in range(5000)))
        found = await made.scraped()
        assert len(made.asked) == record_lists.MAX_PAGES
        assert value(found, "spinner_run_waiting_records") is None, "how many are at which step is unknown"
        assert len(named(found)["run-1"]) == LimitsConfig().failed_records_per_run


async def test_an_address_is_neither_a_label_nor_in_a_log_line() -> None:
    async with bench() as made:
        made.wait("run-1", record("jo@example.com"), {**record(), "errorMessage": "Jo Doe"})
        text = await made.page(15)
        assert "example.com" not in text
        assert "Jo Doe" not in text
        assert "hidden-" in text
        assert "example.com" not in str(made.lines)


async def test_probed_projects_share_a_budget() -> None:
    settings: dict[str, Any] = {"projects": ProjectsConfig(on_probe=True)}
    settings["sync"] = SyncConfig(min_interval=Duration(5), sweep_interval=Duration(1e6))
    async with bench(limits=LimitsConfig(waiting_record_requests=8), **settings) as made:
        made.runtime.projects = {f"p{number}": f"Project {number}" for number in range(4)}
        for number in range(40):
            made.wait(f"run-{number}", record(), projectId=f"p{number % 4}")
        made.play(15)
        made.runtime.requests.clear()
        pages = [str(await made.exporter.probe(RUNTIME, f"p{number}")) for number in range(4)]
        assert 4 <= len(made.asked) <= 8
        assert named(samples(pages[0])) != {}


async def test_what_is_not_read_any_more_after_a_reload_is_not_shown_for_ever() -> None:
    async with bench() as made:
        made.wait("run-1", record())
        made.runtime.put("run-2", startedAt=NOON, lastProgressAt=NOON, records={"total": 9, "completed": 1})
        made.runtime.records_in_flight["run-2"] = [record("rec-9")]
        found = await made.scraped(900)
        assert value(found, "spinner_run_records_in_flight") == 1
        limits = LimitsConfig(waiting_record_requests=0, record_in_flight_requests=0)
        await made.exporter.reload({RUNTIME: msgspec.structs.replace(made.config, limits=limits)})
        found = await made.scraped()
        assert named(found) == {}
        assert value(found, "spinner_run_records_in_flight") is None
