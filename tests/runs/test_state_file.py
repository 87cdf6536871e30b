"""The state file: a restart changes nothing that is shown, and with an unusable file only the counters are lost."""

import asyncio
import itertools
import math
import os
import shutil
import sqlite3
import stat
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.config import Config, Duration, LimitsConfig, SyncConfig
from exporter.errors import ConfigError, StorageError, UnusableError
from exporter.runs.clock import RuntimeClock
from exporter.runs.persistence import KINDS
from exporter.runs.run import Run
from exporter.runs.runtime_state import Outage
from exporter.runs.spinner import TrackedRun
from exporter.runs.state_file import RETRY, StateFile, StateWriter, check_folder, file_name
from exporter.runs.store import Store
from exporter.runtime.model import FailedRecord, Health
from exporter.service import Exporter
from exporter.service.monitored_runtime import Dependencies
from exporter.status import Status
from tests.builders import NOON, RUNTIME, Clock, config_with, counts, read_project, runtime_config, snapshot, store
from tests.runs.test_store_properties import HORIZON, gauges, readings, spinners_in_full, worlds
from tests.scripted import ScriptedRuntime, exporter_of
from tests.transport import FakeTransport

URL = "http://runtime.test"


class Observer:
    def __init__(self) -> None:
        self.failures = 0

    def storage_failed(self) -> None:
        self.failures += 1


def opened(folder: Path) -> StateFile:
    return StateFile(folder, RUNTIME, URL, wall=lambda: NOON)


def save(file: StateFile, held: Store) -> None:
    file.stage(held.persistence.unsaved())
    held.persistence.saved()
    file.write()


def restarted(file: StateFile, held: Store, clock: Clock) -> tuple[StateFile, Store]:
    """Save, end, and begin again on the same file."""
    save(file, held)
    file.close()
    again = opened(file.path.parent)
    made = store(clock, projects={}, retention=held.config.retention)
    made.persistence.restore(again.load())
    made.name_projects({"p1": "Sales"})
    return again, made


def runs_in(file: StateFile) -> set[str]:
    return {key for (key,) in file._connection.execute("SELECT key FROM state WHERE kind = 'run'")}


def busy(clock: Clock) -> Store:
    held = store(clock)
    runs = [snapshot("open", records=counts(3)), snapshot("done", Status.COMPLETED, records=counts(9, failed=1))]
    read_project(held, "p1", [(each, clock()) for each in runs], as_of=clock(), horizon=HORIZON)
    read_project(held, "p1", [], as_of=clock(), horizon=HORIZON)
    return held


@settings(max_examples=60)
@given(st.data())
def test_a_restart_after_any_read_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    reads = data.draw(readings(data.draw(worlds())))
    # Before the file is opened: a draw can end an example, which then would not close it.
    steps = [(read, data.draw(st.integers(0, 300)), data.draw(st.booleans())) for read in reads]
    clock = Clock(NOON + 600)
    file = opened(tmp_path_factory.mktemp("state"))
    through, interrupted = store(clock, retention=60.0), store(clock, retention=60.0)
    for read, seconds, restarts in steps:
        for held in (through, interrupted):
            read_project(held, "p1", [(each, each.updated_at) for each in read], as_of=clock(), horizon=HORIZON)
        clock.advance(seconds)
        for held in (through, interrupted):
            held.expire()
        if restarts:
            file, interrupted = restarted(file, interrupted, clock)
    assert [each.counters for each in spinners_in_full(interrupted)] == [
        each.counters for each in spinners_in_full(through)
    ]
    assert gauges(interrupted) == gauges(through)
    thresholds = [
        {shown.run.id: shown.stall_threshold() for shown in held.view.runs()} for held in (interrupted, through)
    ]
    assert thresholds[0] == thresholds[1], "a run's pace is not what it was before the restart"
    file.close()


def test_after_a_restart_only_the_counters_are_shown_before_the_first_read(tmp_path: Path) -> None:
    clock = Clock(NOON + 60)
    file, held = restarted(opened(tmp_path), busy(clock), clock)
    (spinner,) = held.view.spinners()
    assert spinner.counters.finished[Status.COMPLETED] == 1
    assert list(held.view.runs()) == []
    assert spinner.runs == {}
    assert held.read_up_to("p1") == clock(), "the next read starts where the last one ended"
    file.close()


def test_a_new_spinner_shows_zeros_after_a_restart_too_and_its_counts_with_the_next_read(tmp_path: Path) -> None:
    """Otherwise `increase()` would miss its first run."""
    clock = Clock(NOON + 60)
    held = store(clock)
    read_project(held, "p1", [], as_of=NOON, horizon=HORIZON)
    read_project(held, "p1", [(snapshot(), NOON)], as_of=NOON, horizon=HORIZON)
    file, held = restarted(opened(tmp_path), held, clock)
    assert [each.counters.started for each in held.view.spinners()] == [0]
    assert [each.counters.started for each in spinners_in_full(held)] == [1]
    file.close()


def test_a_restart_in_the_middle_of_a_first_read_counts_nothing_twice(tmp_path: Path) -> None:
    clock = Clock(NOON + 60)
    held = store(clock)
    with held.reading("p1") as read:
        read.apply([snapshot("done", Status.COMPLETED), snapshot("open")], NOON + 60, horizon=HORIZON)
        file, again = restarted(opened(tmp_path), held, clock)
    file.close()
    read_project(again, "p1", [(snapshot("done", Status.COMPLETED), NOON + 60)], as_of=NOON + 60, horizon=HORIZON)
    (spinner,) = again.view.spinners()
    assert spinner.counters.finished[Status.COMPLETED] == 1
    assert [shown.run.id for shown in again.view.runs()] == ["done"], "the read starts over, and shows what it found"
    assert spinner.counters.started == 1, "its history is shown immediately: the first list of projects had it"


def test_failed_records_the_last_outage_and_tombstones_survive_a_restart(tmp_path: Path) -> None:
    clock = Clock(NOON + 60)
    held = busy(clock)
    (failing,) = held.runs_missing_failed_records("p1")
    held.keep_failed_records("p1", failing, [FailedRecord("rec-1", "Mail", "BOUNCE", NOON)])
    held.keep_health(Health(runtime_up=False))
    held.keep_health(Health(runtime_up=True, beats=False))
    held.drop_run("p1", "open")
    file, held = restarted(opened(tmp_path), held, clock)
    read_project(held, "p1", [(snapshot("open", records=counts(3)), NOON)], as_of=clock(), horizon=HORIZON)
    shown = {each.run.id: each for each in held.view.runs()}
    assert shown["open"].outage.excused_until == clock(), "the outage is excused after a restart too"
    assert [record.id for record in shown["done"].run.failed_records] == ["rec-1"]
    assert held.runs_missing_failed_records("p1") == []
    (spinner,) = held.view.spinners()
    assert spinner.counters.started == 2, "a run that was gone and came back is not counted again"
    file.close()


def test_the_retention_of_a_run_goes_on_after_a_restart_by_the_runtime_s_clock_once_that_is_known(
    tmp_path: Path,
) -> None:
    clock, ahead = Clock(NOON + 60), 3600.0
    held = store(clock, retention=600.0)

    def read() -> list[str]:
        for _ in range(5):
            held.clock.observe(clock() + ahead)
        read_project(held, "p1", [], as_of=clock() + ahead, horizon=HORIZON)
        held.expire()
        return [shown.run.id for shown in held.view.runs()]

    read()
    now = clock() + ahead
    done = snapshot("done", Status.COMPLETED, started_at=now - 9, ended_at=now, updated_at=now)
    read_project(held, "p1", [(done, now)], as_of=now, horizon=HORIZON)
    clock.advance(300)
    file, held = restarted(opened(tmp_path), held, clock)
    shown = [read()]
    for seconds in (299, 2):
        clock.advance(seconds)
        shown.append(read())
    assert shown == [["done"], ["done"], []]
    file.close()


def test_after_a_restart_with_a_clock_of_our_own_that_is_ahead_no_run_is_counted_that_was_forgotten() -> None:
    clock = Clock(NOON + 60)
    held = busy(clock)
    rows = [row for row in held.persistence.everything() if row[3] is not None]
    ahead, monotonic = Clock(clock() + 3 * 3600), Clock(5.0)
    again = Store(config_with(), RuntimeClock(ahead, monotonic), monotonic=monotonic, is_saved=True)
    again.persistence.restore(rows)
    again.clock.observe(clock())
    forgotten = snapshot("old", Status.COMPLETED, started_at=HORIZON - 90, ended_at=HORIZON - 60, updated_at=NOON + 59)
    read_project(again, "p1", [(forgotten, clock())], as_of=clock(), horizon=-math.inf)
    assert set(again.runs_of("p1")) == {"open", "done"}
    (spinner,) = spinners_in_full(again)
    assert spinner.counters.finished[Status.COMPLETED] == 1


def test_after_a_restart_retention_goes_by_what_the_clock_said_first(tmp_path: Path) -> None:
    clock = Clock(NOON + 60)
    held = store(clock, retention=600.0)
    done = snapshot("done", Status.COMPLETED)
    read_project(held, "p1", [(done, clock())], as_of=clock(), horizon=HORIZON)
    file, held = restarted(opened(tmp_path), held, clock)
    held.expire()
    clock.now = NOON + 300
    for _ in range(5):
        held.clock.observe(NOON + 100)
    for now, runs in ((NOON + 659, {"done"}), (NOON + 661, set())):
        clock.now = now
        held.expire()
        assert set(held.runs_of("p1")) == runs
    file.close()


def test_a_run_that_the_limit_hid_is_shown_after_a_restart_with_a_higher_limit(tmp_path: Path) -> None:
    clock = Clock(NOON + 60)
    held = store(clock, limits={"runs": 1})
    runs = [(snapshot(run_id), clock()) for run_id in ("a", "b")]
    read_project(held, "p1", runs, as_of=clock(), horizon=HORIZON)
    held.expire()
    assert len(list(held.view.runs())) == 1
    file, held = restarted(opened(tmp_path), held, clock)
    read_project(held, "p1", [], as_of=clock(), horizon=HORIZON)
    held.expire()
    assert {shown.run.id for shown in held.view.runs()} == {"a", "b"}
    file.close()


def test_the_first_read_after_a_restart_decides_whatever_the_times_say(tmp_path: Path) -> None:
    clock = Clock(NOON + 60)
    file, held = restarted(opened(tmp_path), busy(clock), clock)
    back = snapshot("open", records=counts(4), updated_at=NOON + 50)
    read_project(held, "p1", [(back, clock())], as_of=clock(), horizon=HORIZON)
    assert held.runs_of("p1")["open"].records.completed == 4
    file.close()


def test_a_removed_project_is_deleted_from_the_file(tmp_path: Path) -> None:
    clock = Clock(NOON + 60)
    file = opened(tmp_path)
    held = busy(clock)
    save(file, held)
    held.drop_project("p1")
    save(file, held)
    file.close()
    again = opened(tmp_path)
    assert again.load() == []
    again.close()


def test_runs_are_counted_by_status_once_after_a_restart(tmp_path: Path) -> None:
    clock = Clock(NOON + 60)
    file, held = restarted(opened(tmp_path), busy(clock), clock)
    read_project(held, "p1", [], as_of=clock(), horizon=HORIZON)
    (spinner,) = held.view.spinners()
    assert {status: count for status, count in spinner.runs.items() if count} == {
        Status.RUNNING: 1,
        Status.COMPLETED: 1,
    }
    file.close()


def test_a_project_removed_soon_after_a_restart_is_deleted_from_the_file(tmp_path: Path) -> None:
    clock = Clock(NOON + 60)
    file, held = restarted(opened(tmp_path), busy(clock), clock)
    held.drop_project("p1")
    save(file, held)
    file.close()
    again = opened(tmp_path)
    assert again.load() == []
    again.close()


def test_only_what_changed_is_written(tmp_path: Path) -> None:
    clock = Clock(NOON + 60)
    held = busy(clock)
    held.keep_health(Health(runtime_up=False))
    held.keep_health(Health(runtime_up=True, beats=False))
    file = opened(tmp_path)
    save(file, held)
    file.close()
    read_project(
        held,
        "p1",
        [(snapshot("open", records=counts(4), updated_at=NOON + 61), NOON + 61)],
        as_of=NOON + 61,
        horizon=HORIZON,
    )
    assert sorted((kind, key) for kind, _, key, _ in held.persistence.unsaved()) == [
        ("project", ""),
        ("run", "open"),
        ("spinner", "welcome"),
    ]


def test_a_restart_alone_writes_nothing(tmp_path: Path) -> None:
    clock = Clock(NOON + 60)
    file, held = restarted(opened(tmp_path), busy(clock), clock)
    assert list(held.persistence.unsaved()) == []
    file.close()


def test_of_a_project_that_is_removed_before_it_was_written_nothing_is_written(tmp_path: Path) -> None:
    held, file = busy(Clock(NOON + 60)), opened(tmp_path)
    file.stage(held.persistence.unsaved())
    held.persistence.saved()
    held.drop_project("p1")
    save(file, held)
    assert runs_in(file) == set()
    file.close()


def after(held: Store, clock: Clock) -> None:
    """One more run ends and is dropped, so that one of two tombstones can be dropped."""
    run = snapshot("after", Status.COMPLETED, ended_at=clock() - 5, updated_at=clock() - 5)
    for runs in ([run], []):
        read_project(held, "p1", [(each, clock()) for each in runs], as_of=clock(), horizon=HORIZON)
        clock.advance(7200)
        held.expire()


def test_a_run_leaves_the_file_with_its_tombstone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.runs.limits.MIN_TOMBSTONES", 0)
    clock = Clock(NOON + 60)
    file, held = opened(tmp_path), busy(clock)
    save(file, held)
    clock.advance(2 * 3600)
    held.expire()
    save(file, held)
    assert runs_in(file) == {"open", "done"}, "a tombstone keeps the run from being counted again after a restart"
    held.config = msgspec.structs.replace(held.config, limits=LimitsConfig(runs=1))
    held.expire()
    save(file, held)
    assert runs_in(file) == {"open", "done"}
    after(held, clock)
    save(file, held)
    assert runs_in(file) == {"open", "after"}, "the file would grow for ever"
    file.close()


def test_a_run_that_appears_and_leaves_between_two_saves_is_not_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.runs.limits.MIN_TOMBSTONES", 0)
    clock = Clock(NOON + 60)
    file, held = opened(tmp_path), busy(clock)
    clock.advance(2 * 3600)
    held.config = msgspec.structs.replace(held.config, limits=LimitsConfig(runs=1))
    after(held, clock)
    save(file, held)
    assert runs_in(file) == {"open", "after"}
    file.close()


async def test_what_a_page_shows_is_saved_even_while_the_sync_continues(tmp_path: Path) -> None:
    clock = Clock()
    runtime = SlowProject(clock)
    runtime.projects = {"p1": "Sales", "p2": "Support"}
    runtime.put()
    config = Config(runtime=runtime_config(), sync=SyncConfig(min_interval=Duration(0)))
    exporter = Exporter(
        {RUNTIME: config}, Dependencies(clock, time.monotonic, runtime.transport()), storage=tmp_path / "state"
    )
    await exporter.page(max_wait=1.5)
    page = str(await exporter.page(max_wait=1.5))
    assert 'spinner_runs_started_total{runtime="runtime.test",project="Sales",spinner="welcome"} 1' in page
    assert 'spinner_project_up{runtime="runtime.test",project="Support"} 0' in page, (
        "the read of the other project continues"
    )
    shutil.copytree(tmp_path / "state", tmp_path / "copy")  # as kill -9 would leave it
    file = StateFile(tmp_path / "copy", RUNTIME, config.runtime.base_url)
    restored = store(clock, projects={})
    restored.persistence.restore(file.load())
    assert [(each.spinner, each.counters.started) for each in restored.view.spinners()] == [("welcome", 1)]
    file.close()
    runtime.gate.set()
    await exporter.close()


def files(folder: Path) -> list[Path]:
    return list(folder.glob("*.db"))


class SlowProject(ScriptedRuntime):
    """FakeTransport for the second project when the test lets it."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.gate = asyncio.Event()

    def transport(self) -> FakeTransport:
        async def answer(request: httpx.Request) -> httpx.Response:
            if "/p2/" in request.url.path:
                await self.gate.wait()
            return self._answer(request)

        return FakeTransport(answer)


async def test_a_reload_continues_with_the_file_and_another_url_has_its_own(tmp_path: Path) -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    runtime.put()
    config = Config(runtime=runtime_config(), sync=SyncConfig(min_interval=Duration(0)))
    exporter = Exporter({RUNTIME: config}, Dependencies(clock, clock, runtime.transport()), storage=tmp_path)
    await exporter.page()
    await exporter.reload({RUNTIME: msgspec.structs.replace(config, retention=Duration(60))})
    await exporter.page()
    other = Config(runtime=runtime_config("http://other.test"), sync=config.sync)
    await exporter.reload({RUNTIME: other})
    page = str(await exporter.page())
    assert 'spinner_exporter_storage_failures_total{runtime="runtime.test"} 0.0' in page
    assert len(files(tmp_path)) == 2
    await exporter.close()
    for url in (config.runtime.base_url, other.runtime.base_url):
        file = StateFile(tmp_path, RUNTIME, url)
        assert file.load(), f"nothing was saved of {url}"
        file.close()


# -- files that cannot be used ------------------------------------------------------------------------------


def another_program_s(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE theirs (x)")
        other.execute("PRAGMA application_id = 7")
    other.close()


def another_program_s_with_a_larger_mark(path: Path) -> None:
    opened(path.parent).close()
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA application_id = 0x7fffffff")
    other.close()


def another_program_s_without_its_mark(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE theirs (x)")
    other.close()


def another_program_s_still_empty(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA application_id = 7")
    other.close()


def of_another_version(path: Path) -> None:
    opened(path.parent).close()
    with sqlite3.connect(path) as ours:
        ours.execute("PRAGMA user_version = 99")
    ours.close()


def of_an_earlier_version(path: Path) -> None:
    opened(path.parent).close()
    with sqlite3.connect(path) as ours:
        ours.execute("PRAGMA user_version = 1")
    ours.close()


def with_a_value_that_is_none_of_ours(path: Path) -> None:
    opened(path.parent).close()
    with sqlite3.connect(path) as ours:
        ours.execute("INSERT INTO state VALUES ('p1', 'run', 'r1', ?)", (b"\xc1 what is this",))
    ours.close()


def with_a_kind_that_is_none_of_ours(path: Path) -> None:
    opened(path.parent).close()
    with sqlite3.connect(path) as ours:
        ours.execute("INSERT INTO state VALUES ('p1', 'record', 'r1', ?)", (b"\xc0",))
    ours.close()


def without_its_spinners(path: Path) -> None:
    file = opened(path.parent)
    save(file, busy(Clock(NOON + 60)))
    file.close()
    with sqlite3.connect(path) as ours:
        ours.execute("DELETE FROM state WHERE kind = 'spinner'")
    ours.close()


def cut_short(path: Path) -> None:
    file = opened(path.parent)
    save(file, busy(Clock(NOON + 60)))
    file.close()
    path.write_bytes(path.read_bytes()[:-4096])


def scribbled_over(path: Path) -> None:
    file = opened(path.parent)
    save(file, busy(Clock(NOON + 60)))
    file.close()
    content = bytearray(path.read_bytes())
    content[4096 : 4096 + 512] = b"\xff" * 512
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_text("not a database, " * 500), "file is not a database"),
        (another_program_s, "it belongs to another program"),
        (another_program_s_with_a_larger_mark, "it belongs to another program"),
        (another_program_s_without_its_mark, "it belongs to another program"),
        (another_program_s_still_empty, "it belongs to another program"),
        (of_another_version, "it has version 99, and this exporter writes version 2"),
        (of_an_earlier_version, "it has version 1, and this exporter writes version 2"),
        (with_a_value_that_is_none_of_ours, ""),
        (with_a_kind_that_is_none_of_ours, "record"),
        (without_its_spinners, "the spinner of run "),
        (cut_short, "malformed"),
        (scribbled_over, "it is damaged: "),
    ],
    ids=[
        "no-database",
        "another-program",
        "another-program-with-a-larger-mark",
        "another-program-without-its-mark",
        "another-program-still-empty",
        "another-version",
        "earlier-version",
        "odd-value",
        "odd-kind",
        "no-spinners",
        "cut-short",
        "scribbled-over",
    ],
)
def test_an_unusable_file_is_renamed_and_logged_and_an_empty_one_is_created(
    tmp_path: Path, damage: object, reason: str
) -> None:
    made = opened(tmp_path)
    made.close()
    path = made.path
    path.unlink()
    damage(path)  # type: ignore[operator]
    damaged = path.read_bytes()
    with structlog.testing.capture_logs() as lines:
        file = opened(tmp_path)
    assert file.load() == []
    save(file, busy(Clock(NOON + 60)))
    file.close()
    (line,) = lines
    assert line["log_level"] == "error"
    assert reason in line["reason"]
    assert Path(line["kept"]).read_bytes() == damaged, "the unusable file is kept"
    again = opened(tmp_path)
    assert again.load(), "what was saved after the fresh start is there"
    again.close()


def test_a_file_that_another_process_has_open_is_a_config_error(tmp_path: Path) -> None:
    file = opened(tmp_path)
    with pytest.raises(ConfigError, match=r"storage\.path: .*another process has it open"):
        opened(tmp_path)
    file.close()


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="only Linux tells which files are locked")
def test_that_a_file_is_open_already_does_not_release_its_lock(tmp_path: Path) -> None:
    """Closing a second descriptor of a file releases all locks that the process has on it."""
    file = opened(tmp_path)

    def is_locked() -> bool:
        return f":{file.path.stat().st_ino} " in Path("/proc/locks").read_text()

    assert is_locked()
    with pytest.raises(ConfigError, match="another process has it open"):
        opened(tmp_path)
    assert is_locked()
    file.close()


def test_the_error_about_a_folder_that_cannot_be_written_names_it(tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("")
    with pytest.raises(
        ConfigError, match=r"storage\.path: .*occupied.*: cannot be used: (File exists|Not a directory)"
    ):
        opened(tmp_path / "occupied")


def test_only_the_owner_can_read_the_file(tmp_path: Path) -> None:
    file = opened(tmp_path / "state")
    assert (file.path.stat().st_mode & 0o077, file.path.parent.stat().st_mode & 0o077) == (0, 0)
    file.close()


# -- a disk that is full ------------------------------------------------------------------------------------


async def test_a_full_disk_is_logged_once_counted_each_time_and_nothing_is_lost(tmp_path: Path) -> None:
    """SQLite's limit on pages simulates it: the error is the same as that of a full disk."""
    clock = Clock(NOON + 60)
    file, observer = opened(tmp_path), Observer()
    held = busy(clock)
    state_writer = StateWriter(file, held.persistence, observer, clock)
    (pages,) = file._connection.execute("PRAGMA page_count").fetchone()
    file._connection.execute(f"PRAGMA max_page_count = {pages}")
    with structlog.testing.capture_logs() as lines:
        for number in range(3):
            more = [(snapshot(f"more-{number}-{each}"), clock()) for each in range(200)]
            read_project(held, "p1", more, as_of=clock(), horizon=HORIZON)
            await state_writer.flush()
    assert observer.failures == 3
    assert [line["event"] for line in lines] == [
        "state not saved; a restart would resume from the last successful save"
    ]
    assert "full" in lines[0]["error"]
    file._connection.execute("PRAGMA max_page_count = 1000000")
    with structlog.testing.capture_logs() as lines:
        await state_writer.flush()
    assert [line["event"] for line in lines] == ["state saved again"]
    state_writer.close()
    again, restored = opened(tmp_path), store(clock, projects={})
    restored.persistence.restore(again.load())
    assert [each.counters.started for each in restored.view.spinners()] == [
        each.counters.started for each in held.view.spinners()
    ]
    again.close()


@pytest.mark.parametrize(("too_many", "waits"), [(0, False), (1, True)])
async def test_the_rows_of_a_write_that_failed_are_written_with_the_next_one_unless_they_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, too_many: int, *, waits: bool
) -> None:
    clock, observer = Clock(NOON + 60), Observer()
    file, held = opened(tmp_path), busy(clock)
    monkeypatch.setattr("exporter.runs.state_file.MAX_STAGED", len(list(held.persistence.unsaved())) - too_many)
    state_writer = StateWriter(file, held.persistence, observer, clock)
    file._connection.execute("PRAGMA query_only = ON")
    await state_writer.flush()
    file._connection.execute("PRAGMA query_only = OFF")
    clock.advance(59)
    await state_writer.flush()
    assert (runs_in(file) == set()) == waits
    clock.advance(1)
    await state_writer.flush()
    assert runs_in(file) == {"open", "done"}
    assert observer.failures == 1 + waits
    state_writer.close()


@pytest.mark.parametrize("is_last", [False, True])
async def test_a_disk_that_stays_full_costs_the_same_all_the_time_and_the_file_is_whole_afterwards(
    tmp_path: Path, is_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most of what could not be written is gone when the disk has room again: runs, their tombstones, a project."""
    monkeypatch.setattr("exporter.runs.limits.MIN_TOMBSTONES", 50)
    monkeypatch.setattr("exporter.runs.state_file.MAX_STAGED", 200)
    clock, observer, compared = Clock(NOON + 60), Observer(), list[float]()
    file = opened(tmp_path / "full")
    held = store(clock, projects={"p1": "Sales", "p2": "Service"}, limits={"runs": 20}, retention=600.0)
    state_writer = StateWriter(file, held.persistence, observer, clock)
    replace = file.replace

    def counted() -> None:
        compared.append(clock())
        replace()

    monkeypatch.setattr(file, "replace", counted)

    def works(number: int) -> None:
        clock.advance(15)
        for project in held.project_ids():
            each = f"{project}-{number}"
            ended = snapshot(each, Status.COMPLETED, project_id=project, started_at=clock(), ended_at=clock())
            opened_run = snapshot(f"open-{each}", project_id=project, updated_at=clock())
            runs = [(msgspec.structs.replace(ended, updated_at=clock()), clock()), (opened_run, clock())]
            read_project(held, project, runs, as_of=clock(), horizon=HORIZON)
            held.drop_run(project, f"open-{project}-{number - 1}")
        held.expire()

    for number in range(50):
        works(number)
        await state_writer.flush()
    file._connection.execute("PRAGMA query_only = ON")
    began, flushes = clock(), 600
    for number in range(50, 50 + flushes):
        works(number)
        if number == 400:
            held.drop_project("p2")
        await state_writer.flush()
        assert file.staged_count <= 200
        assert not list(held.persistence.unsaved()), "it would be kept for as long as the disk is full"
    assert observer.failures > flushes / 2, "each flush that saves nothing is counted"
    assert 0 < len(compared) <= (clock() - began) / RETRY
    file._connection.execute("PRAGMA query_only = OFF")
    if not is_last:
        clock.advance(RETRY)
    await state_writer.flush(is_last=is_last)
    comparisons = len(compared)
    works(1000)
    await state_writer.flush()
    assert len(compared) == comparisons, "from now on what changed is enough"
    state_writer.close()
    assert_whole(tmp_path / "full", held)


def assert_whole(folder: Path, held: Store) -> None:
    """Check that a closed file has what a new one of the same store has."""
    whole = opened(folder / "whole")
    whole.stage(held.persistence.everything())
    whole.write()
    whole.close()
    found, expected = opened(folder), opened(folder / "whole")
    assert sorted(found.load(), key=repr) == sorted(expected.load(), key=repr)
    found.close()
    expected.close()


def test_after_a_large_write_the_log_becomes_small_again(tmp_path: Path) -> None:
    """As after an outage, or a disk that was full for long."""
    file, log = opened(tmp_path), Path()
    tracked = TrackedRun(Run.first(snapshot(), NOON))
    for count in (60_000, 1, 1):
        file.stage(("run", "p1", f"run-{number}", tracked) for number in range(count))
        file.write()
        log = file.path.with_name(file.path.name + "-wal")
    assert log.stat().st_size <= 4 * 2**20
    file.close()


@pytest.mark.parametrize("ends", [(1.0, 2.0), (2.0, 1.0)])
def test_a_file_that_is_written_anew_has_the_newest_value_of_each_row(
    tmp_path: Path, ends: tuple[float, float]
) -> None:
    file = opened(tmp_path)
    for end in ends:
        file.stage([("outage", "", key, Outage(excused_until=at)) for key, at in (("a", end), ("b", 5.0))])
        file.replace()
    rows = file._connection.execute("SELECT key, value FROM state ORDER BY key").fetchall()
    found = [(key, msgspec.msgpack.decode(value, type=Outage).excused_until) for key, value in rows]
    assert found == [("a", ends[1]), ("b", 5.0)]
    file.close()


# -- a file that is removed while it is open ----------------------------------------------------------------


def counters(folder: Path) -> list[int]:
    """How many runs of each spinner the file of a folder has counted."""
    again, restored = opened(folder), store(Clock(), projects={})
    restored.persistence.restore(again.load())
    again.close()
    return [each.counters.started for each in restored.view.spinners()]


@pytest.mark.parametrize("removed", ["*.db", "*", ""], ids=["the file alone", "its logs too", "the folder"])
async def test_a_file_that_is_removed_while_it_is_open_is_written_again(tmp_path: Path, removed: str) -> None:
    """WiseLibs/better-sqlite3#1237: SQLite goes on to write to a file that nobody can open any more."""
    clock, folder = Clock(NOON + 60), tmp_path / "state"
    file, observer = opened(folder), Observer()
    held = busy(clock)
    state_writer = StateWriter(file, held.persistence, observer, clock)
    await state_writer.flush()
    if removed:
        for each in folder.glob(removed):
            each.unlink()
    else:
        shutil.rmtree(folder)
    for number in range(2):
        read_project(held, "p1", [(snapshot(f"more-{number}"), clock())], as_of=clock(), horizon=HORIZON)
        with structlog.testing.capture_logs() as lines:
            await state_writer.flush()
        assert [line["event"] for line in lines] == ["the state file was removed and is written again"][number:]
    assert observer.failures == 0
    assert [stat.filemode(each.stat().st_mode) for each in folder.glob("*.db")] == ["-rw-------"]
    assert mode(folder) & 0o777 == 0o700
    with pytest.raises(ConfigError, match="another process has it open"):
        opened(folder)
    state_writer.close()
    assert counters(folder) == [each.counters.started for each in held.view.spinners()] == [4]
    assert [each.name for each in folder.iterdir()] == [file.path.name]


def test_a_file_that_is_removed_before_the_first_write_is_written_again(tmp_path: Path) -> None:
    file = opened(tmp_path)
    file.path.unlink()
    save(file, busy(Clock()))
    file.close()
    assert counters(tmp_path) == [2]


def test_a_copy_that_was_not_completed_is_in_nobody_s_way(tmp_path: Path) -> None:
    """As after the end of a process that was about to write a removed file again."""
    file, held = opened(tmp_path), busy(Clock())
    save(file, held)
    file.path.with_name(file.path.name + ".copy").write_text("incomplete")
    file.path.unlink()
    read_project(held, "p1", [(snapshot("more"), NOON)], as_of=NOON, horizon=HORIZON)
    save(file, held)
    file.close()
    assert [each.name for each in tmp_path.iterdir()] == [file.path.name]
    assert counters(tmp_path) == [3]


async def test_a_file_in_the_place_of_the_open_one_is_left_alone(tmp_path: Path) -> None:
    """It may be a backup that was restored, or belong to another exporter."""
    clock = Clock(NOON + 60)
    other = opened(tmp_path / "other")
    save(other, busy(clock))
    other.close()
    file, observer = opened(tmp_path / "own"), Observer()
    held = store(clock)
    state_writer = StateWriter(file, held.persistence, observer, clock)
    other.path.replace(file.path)
    before = file.path.read_bytes()
    with structlog.testing.capture_logs() as lines:
        for number in range(2):
            read_project(held, "p1", [(snapshot(f"more-{number}"), clock())], as_of=clock(), horizon=HORIZON)
            await state_writer.flush()
    assert observer.failures == 2
    (line,) = lines
    assert "it was replaced by another file, which a restart uses" in line["error"]
    state_writer.close()
    assert file.path.read_bytes() == before
    assert counters(tmp_path / "own") == [2]


async def test_each_failed_write_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = 0

    def fail(self: StateFile) -> None:
        nonlocal failures
        failures += 1
        raise StorageError("the disk is full")

    monkeypatch.setattr(StateFile, "write", fail)
    exporter = exporter_of(ScriptedRuntime(Clock()), storage=tmp_path)
    page = str(await exporter.page())
    assert failures > 0
    assert f'spinner_exporter_storage_failures_total{{runtime="runtime.test"}} {failures}.0' in page
    await exporter.close()


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = opened(tmp_path)
    held = busy(Clock(NOON + 60))
    save(file, held)
    before = file._connection.execute("SELECT * FROM state").fetchall()
    (pages,) = file._connection.execute("PRAGMA page_count").fetchone()
    file._connection.execute(f"PRAGMA max_page_count = {pages}")
    more = [(snapshot(f"more-{each}"), NOON) for each in range(500)]
    read_project(held, "p1", more, as_of=NOON + 61, horizon=HORIZON)
    file.stage(held.persistence.unsaved())
    with pytest.raises(StorageError, match=r"\.db: cannot be written: database or disk is full"):
        file.write()
    assert file._connection.execute("SELECT * FROM state").fetchall() == before
    file.close()


def test_rows_whose_write_failed_are_written_next_time_unless_newer_ones_are_staged(tmp_path: Path) -> None:
    file, held = opened(tmp_path), busy(Clock(NOON + 60))
    file.stage(held.persistence.unsaved())
    held.persistence.saved()
    failing_write(file)
    later = snapshot("open", records=counts(7), updated_at=NOON + 70)
    read_project(held, "p1", [(later, NOON + 70)], as_of=NOON + 70, horizon=HORIZON)
    save(file, held)
    file.close()
    again, restored = opened(tmp_path), store(Clock(NOON + 70), projects={})
    restored.persistence.restore(again.load())
    again.close()
    assert {run_id: run.records.completed for run_id, run in restored.runs_of("p1").items()} == {"open": 7, "done": 9}


@pytest.mark.parametrize("fails", ["the rows", "their deletion"])
def test_a_project_removed_around_a_failed_write_is_not_in_the_file(tmp_path: Path, fails: str) -> None:
    file, held = opened(tmp_path), busy(Clock(NOON + 60))
    if fails == "their deletion":
        save(file, held)
    file.stage(held.persistence.unsaved())
    held.persistence.saved()
    if fails == "the rows":
        failing_write(file)
    held.drop_project("p1")
    file.stage(held.persistence.unsaved())
    held.persistence.saved()
    if fails == "their deletion":
        failing_write(file)
    file.write()
    assert not file.has_staged
    file.close()
    again = opened(tmp_path)
    assert again.load() == []
    again.close()


def test_a_project_that_returns_before_its_removal_is_written_is_in_the_file(tmp_path: Path) -> None:
    file, held = opened(tmp_path), busy(Clock(NOON + 60))
    save(file, held)
    held.drop_project("p1")
    file.stage(held.persistence.unsaved())
    held.persistence.saved()
    failing_write(file)
    held.name_projects({"p1": "Sales"})
    read_project(held, "p1", [(snapshot("new"), NOON + 60)], as_of=NOON + 60, horizon=HORIZON)
    save(file, held)
    assert runs_in(file) == {"new"}
    read_project(held, "p1", [(snapshot("later"), NOON + 60)], as_of=NOON + 60, horizon=HORIZON)
    save(file, held)
    assert runs_in(file) == {"new", "later"}, "it is removed once"
    file.close()


def failing_write(file: StateFile) -> None:
    """Fail once: SQLite has no transaction within a transaction."""
    file._connection.execute("BEGIN")
    with pytest.raises(StorageError):
        file.write()


def test_a_file_of_an_earlier_release_keeps_its_counts(tmp_path: Path) -> None:
    written = sqlite3.connect(tmp_path / file_name(RUNTIME, URL))
    written.executescript((Path(__file__).parent / "state-version-2.sql").read_text())
    written.close()
    file, held = opened(tmp_path), store(Clock(), projects={})
    held.persistence.restore(file.load())
    file.close()
    assert {each.spinner: each.counters.started for each in held.view.spinners()} == {"welcome": 2, "later": 0}
    counted = {each.spinner: each.counters for each in spinners_in_full(held)}
    assert counted["later"].started == 1, "its counts were withheld, not lost"
    assert (counted["welcome"].completed_records, counted["welcome"].failed_records) == (12, 1)
    assert counted["welcome"].finished_records is None, "that release did not count them"


NO_LONGER_SAVED = {"status_label"}


def test_what_an_earlier_release_of_this_version_saved_is_saved_again_with_the_same_names_and_values() -> None:
    """A field that is renamed without a new version would lose its value without an error."""
    written = sqlite3.connect(":memory:")
    written.executescript((Path(__file__).parent / "state-version-2.sql").read_text())
    rows = written.execute("SELECT kind, value FROM state").fetchall()
    written.close()
    assert rows
    for kind, value in rows:
        again = msgspec.msgpack.encode(msgspec.msgpack.decode(value, type=KINDS[kind]))
        assert lost(msgspec.msgpack.decode(value), msgspec.msgpack.decode(again)) == []


def buckets(histogram: dict[str, Any]) -> dict[float, int]:
    """The values of a histogram's buckets by their upper bound, as they are exposed."""
    return dict(zip((*histogram["buckets"], math.inf), itertools.accumulate(histogram["counts"]), strict=True))


def lost(before: Any, now: Any) -> list[str]:
    """The keys and values of `before` that `now` does not have. A new key with a default loses nothing."""
    if not isinstance(before, dict):
        return [] if now == before else [f"{now!r} instead of {before!r}"]
    if "buckets" in before:
        # A version may have more buckets; those of before keep their values.
        values, kept = buckets(now), buckets(before)
        before, now = before | {"buckets": kept}, now | {"buckets": {bound: values[bound] for bound in kept}}
        for each in (before, now):
            each["exemplars"] = [exemplar for exemplar in each["exemplars"] if exemplar is not None]
            del each["counts"]
    missing = [key for key in before if key not in now and key not in NO_LONGER_SAVED]
    return missing + [each for key in now.keys() & before.keys() for each in lost(before[key], now[key])]


@pytest.mark.parametrize(
    "other", ["http://runtime.test/", "http://RUNTIME.test", "http://runtime.test:80", "http://runtime.test:80//"]
)
def test_every_spelling_of_a_url_has_the_same_file(tmp_path: Path, other: str) -> None:
    clock = Clock()
    file = opened(tmp_path)
    save(file, busy(clock))
    file.close()
    again = StateFile(tmp_path, RUNTIME, other)
    assert again.path == file.path
    assert any(kind == "run" for kind, *_ in again.load())
    again.close()


def test_a_file_named_after_another_spelling_is_adopted_with_its_write_ahead_log(tmp_path: Path) -> None:
    file = opened(tmp_path / "new")
    save(file, busy(Clock()))
    # As after kill -9: the write-ahead log is still next to the file.
    (tmp_path / "old").mkdir()
    for suffix in ("", "-wal"):
        source = file.path.with_name(file.path.name + suffix)
        shutil.copy(source, tmp_path / "old" / (file_name("runtime", URL + "/") + suffix))
    file.close()
    again = StateFile(tmp_path / "old", RUNTIME, URL + "/")
    assert again.path.name == file.path.name
    assert any(kind == "run" for kind, *_ in again.load())
    again.close()


def test_a_damaged_file_named_after_another_spelling_is_kept_like_any_unusable_file(tmp_path: Path) -> None:
    (tmp_path / file_name(RUNTIME, URL + "/")).write_bytes(b"damaged" * 100)
    with structlog.testing.capture_logs() as lines:
        file = StateFile(tmp_path, RUNTIME, URL + "/", wall=lambda: NOON)
    assert file.load() == []
    file.close()
    (line,) = lines
    assert Path(line["kept"]).read_bytes() == b"damaged" * 100


@pytest.mark.parametrize("spelling", [URL, URL + "/"])
def test_of_two_files_for_one_url_the_one_with_the_canonical_name_is_used_and_a_warning_names_both(
    tmp_path: Path, spelling: str
) -> None:
    file = opened(tmp_path)
    save(file, busy(Clock()))
    file.close()
    other = tmp_path / file_name(RUNTIME, URL + "/")
    shutil.copy(file.path, other)
    with structlog.testing.capture_logs() as lines:
        again = StateFile(tmp_path, RUNTIME, spelling)
    again.close()
    (line,) = lines
    assert (line["log_level"], line["used"], line["unused"]) == ("warning", str(file.path), str(other))
    assert other.exists(), "an unused file is for a person to delete"
    other.unlink()
    with structlog.testing.capture_logs() as lines:
        StateFile(tmp_path, RUNTIME, spelling).close()
    assert lines == []


def test_a_runtime_that_is_renamed_keeps_its_file(tmp_path: Path) -> None:
    file = opened(tmp_path)
    save(file, busy(Clock()))
    file.close()
    for name in ("runtime", "eu", RUNTIME):
        # The first is that of a single runtime in earlier versions.
        file.path.rename(tmp_path / file_name(name, URL))
        file = StateFile(tmp_path, "europe", URL)
        assert any(kind == "run" for kind, *_ in file.load()), f"the file of {name} was not found"
        file.close()
        assert [each.name for each in files(tmp_path)] == [file_name("europe", URL)]


def test_a_runtime_does_not_take_the_file_of_another_with_the_same_url(tmp_path: Path) -> None:
    """Two runtimes of one URL have different tokens or projects."""
    file = StateFile(tmp_path, "sales", URL)
    save(file, busy(Clock()))
    file.close()
    other = StateFile(tmp_path, "support", URL, shares_url=True)
    assert other.load() == []
    other.close()
    assert file.path.exists()


def test_of_several_files_of_a_url_none_is_taken(tmp_path: Path) -> None:
    for name in ("sales", "support"):
        StateFile(tmp_path, name, URL, shares_url=True).close()
    StateFile(tmp_path, "all", URL).close()
    assert len(files(tmp_path)) == 3


def test_a_long_url_has_a_file(tmp_path: Path) -> None:
    path = "/x" * 500
    file = StateFile(tmp_path, "runtime.test" + path, URL + path)
    file.close()
    assert file.path.exists()


def test_other_apis_have_other_files(tmp_path: Path) -> None:
    urls = [URL, "https://runtime.test", URL + ":8080", URL + "/eu", "http://runtime.test.example"]
    files = [StateFile(tmp_path, RUNTIME, url) for url in urls]
    assert len({file.path for file in files}) == len(urls)
    for file in files:
        file.close()


def test_a_file_named_after_another_spelling_is_not_renamed_while_another_process_has_it_open(tmp_path: Path) -> None:
    file = opened(tmp_path)
    save(file, busy(Clock()))
    file.close()
    earlier = file.path.rename(tmp_path / file_name("runtime", URL + "/"))
    other = sqlite3.connect(earlier, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(ConfigError, match="another process has it open"):
        StateFile(tmp_path, RUNTIME, URL + "/")
    other.close()
    assert earlier.exists(), "it was renamed under the process that uses it"
    again = StateFile(tmp_path, RUNTIME, URL + "/")
    assert any(kind == "run" for kind, *_ in again.load())
    again.close()


def test_the_name_of_a_file_is_that_of_earlier_releases(tmp_path: Path) -> None:
    """Another name would be another file: after an upgrade all counters would start again."""
    assert file_name("runtime.example.com", "https://runtime.example.com") == "runtime.example.com-f92cb2d5.db"
    assert file_name("eu west/1", "https://runtime.example.com") == "eu_west_1-f92cb2d5.db"
    assert file_name("e" * 100, "https://runtime.example.com") == "e" * 64 + "-f92cb2d5.db"


@pytest.mark.parametrize(("was_saved", "started"), [(True, [0, 1]), (False, [1, 1])])
def test_a_project_that_appears_while_the_exporter_is_down_shows_zeros_first(
    tmp_path: Path, was_saved: bool, started: list[int]
) -> None:
    """But what the first list of all has is history, and is shown at once."""
    clock = Clock(NOON + 60)
    file = opened(tmp_path)
    if was_saved:
        save(file, busy(clock))
    file.close()
    file = opened(tmp_path)
    held = Store(config_with(), RuntimeClock(clock, clock), monotonic=clock, is_saved=True)
    held.persistence.restore(file.load())
    held.name_projects({"p1": "Sales", "p2": "Support"})
    assert started_of_support(held, clock) == started
    file.close()


def started_of_support(held: Store, clock: Clock) -> list[int]:
    """Read a started run of the project twice, and return what its counter shows after each."""
    shown = []
    for _ in range(2):
        read_project(held, "p2", [(snapshot(project_id="p2"), clock())], as_of=clock(), horizon=HORIZON)
        shown += [each.counters.started for each in held.view.spinners() if each.project == "Support"]
    return shown


# -- other users of the machine ---------------------------------------------------------------------------------


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("suffix", ["", "-wal", "-journal"])
def test_a_link_in_the_place_of_the_file_or_a_log_is_refused_and_its_target_unchanged(
    tmp_path: Path, suffix: str
) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"")
    target.chmod(0o644)
    folder = tmp_path / "state"
    folder.mkdir(0o700)
    link = folder / (file_name(RUNTIME, URL) + suffix)
    link.symlink_to(target)
    with pytest.raises(ConfigError, match=r"storage\.path: .*: expected a file, not a symbolic link"):
        opened(folder)
    assert (target.read_bytes(), mode(target)) == (b"", 0o644)
    assert link.is_symlink(), "kept for a person to look at"


def test_the_target_of_a_link_in_the_place_of_the_file_is_not_created(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(0o700)
    (folder / file_name(RUNTIME, URL)).symlink_to(tmp_path / "target")
    with pytest.raises(ConfigError, match="expected a file, not a symbolic link"):
        opened(folder)
    assert [each.name for each in tmp_path.iterdir()] == ["state"]


def test_a_link_with_an_earlier_name_of_the_file_is_not_taken_over(tmp_path: Path) -> None:
    target, folder = tmp_path / "target", tmp_path / "state"
    target.write_bytes(b"")
    folder.mkdir(0o700)
    (folder / file_name("runtime", URL)).symlink_to(target)
    opened(folder).close()
    assert target.read_bytes() == b""
    assert (folder / file_name("runtime", URL)).is_symlink()


@pytest.mark.timeout(30)
def test_a_pipe_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / file_name(RUNTIME, URL), 0o600)
    with pytest.raises(ConfigError, match="expected a file, not something else"):
        opened(tmp_path)


def test_a_folder_in_which_every_user_can_write_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    for each in (0o777, 0o1777, 0o2777, 0o702):
        folder.chmod(each)
        with pytest.raises(ConfigError, match=r"every user can write to this folder; remove that with chmod o-w"):
            opened(folder)
        opened(folder / "below").close()
        assert mode(folder / "below") & 0o777 == 0o700
        shutil.rmtree(folder / "below")
    folder.chmod(0o2775)  # a volume of Kubernetes, which belongs to a group
    opened(folder).close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_any_user_can_keep_state_in_a_volume_of_its_group() -> None:
    """OpenShift chooses a user without a name, in the group 0 and in that of the volume, whose folder is root's."""
    user = 1_000_660_000
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        volume = Path(parent) / "volume"
        volume.mkdir()
        os.chown(volume, 0, user)
        volume.chmod(0o2775)
        groups = os.getgroups()
        os.setgroups([user])
        os.seteuid(user)
        try:
            for _ in range(2):
                opened(volume / "state").close()
            (file,) = (volume / "state").iterdir()
            assert (file.stat().st_uid, mode(file)) == (user, 0o600)
        finally:
            os.seteuid(0)
            os.setgroups(groups)


def checked(folder: Path) -> None:
    check_folder(folder, {RUNTIME: Config(runtime_config(URL))})


@pytest.mark.parametrize("place", ["", "state", "some/where/below"])
def test_a_folder_that_can_be_used_is_good_and_checking_it_leaves_nothing_behind(tmp_path: Path, place: str) -> None:
    checked(tmp_path / place)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_whose_file_is_open_can_be_checked(tmp_path: Path) -> None:
    file = opened(tmp_path)
    try:
        checked(tmp_path)
        with pytest.raises(ConfigError, match="another process has it open"):
            opened(tmp_path)  # checking has not released its lock
    finally:
        file.close()


@pytest.mark.parametrize("place", ["/proc/x", "/proc/x/y", "/proc", "/dev/null", "/dev/null/x"])
def test_a_folder_that_cannot_be_written_is_found_without_opening_its_file(place: str) -> None:
    with pytest.raises(UnusableError, match=rf"^storage\.path: {place}: cannot be used: \w+"):
        checked(Path(place))


def test_what_is_refused_at_the_start_is_found_before(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(UnusableError, match="every user can write to this folder"):
        checked(tmp_path)
    tmp_path.chmod(0o700)
    (tmp_path / file_name(RUNTIME, URL)).symlink_to("/dev/null")
    with pytest.raises(UnusableError, match="expected a file, not a symbolic link"):
        checked(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_file_of_another_user_is_found_before_the_start() -> None:
    user = 1_000_660_000
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent)
        opened(folder).close()
        os.chown(folder, user, user)
        # `access` asks for the real user, not for the effective one.
        os.setresuid(user, user, 0)
        try:
            with pytest.raises(UnusableError, match=r"storage\.path: .*\.db: cannot be used: Permission denied"):
                checked(folder)
        finally:
            os.setresuid(0, 0, 0)
        os.chown(folder, 0, 0)
        folder.chmod(0o755)
        os.setresuid(user, user, 0)
        try:
            with pytest.raises(UnusableError, match=r"storage\.path: .*below: cannot be used: Permission denied"):
                checked(folder / "below")
        finally:
            os.setresuid(0, 0, 0)


def test_only_the_owner_can_access_the_file_and_its_logs(tmp_path: Path) -> None:
    held = store(Clock())
    read_project(held, "p1", [(snapshot(), NOON)], as_of=NOON, horizon=HORIZON)
    earlier = os.umask(0)
    try:
        file = opened(tmp_path)
        save(file, held)
        log = file.path.with_name(file.path.name + "-wal")
        assert (mode(file.path), mode(log)) == (0o600, 0o600)
        file.path.chmod(0o666)
        log.chmod(0o666)
        for each in (file.path, log):  # as after a crash, which leaves the log
            shutil.copy(each, tmp_path / "copy")
            (tmp_path / "copy").chmod(0o666)
            shutil.move(tmp_path / "copy", tmp_path / f"kept{each.suffix}")
        file.close()
        for each in (file.path, log):
            shutil.move(tmp_path / f"kept{each.suffix}", each)
        with structlog.testing.capture_logs() as lines:
            again = opened(tmp_path)
        assert [line["event"] for line in lines] == ["every user could access the state file; now only its owner can"]
        assert again.load()
        assert {mode(each) for each in tmp_path.iterdir()} == {0o600}
        again.close()
        file.path.chmod(0o660)  # as Kubernetes does when it mounts a volume
        with structlog.testing.capture_logs() as lines:
            opened(tmp_path).close()
        assert (mode(file.path), lines) == (0o600, [])
    finally:
        os.umask(earlier)


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
def test_a_file_or_log_that_every_user_could_read_is_reported_whatever_the_others_are(
    tmp_path: Path, suffix: str
) -> None:
    opened(tmp_path).close()
    path = tmp_path / file_name(RUNTIME, URL)
    for each in ("", "-wal", "-shm", "-journal"):
        log = path.with_name(path.name + each)
        log.touch()
        log.chmod(0o604 if each == suffix else 0o600)
    with structlog.testing.capture_logs() as lines:
        opened(tmp_path).close()
    assert [line["event"] for line in lines] == ["every user could access the state file; now only its owner can"]


def test_making_a_file_private_leaves_nothing_open(tmp_path: Path) -> None:
    """As after each mount of a volume in Kubernetes."""
    file = opened(tmp_path)
    file.close()
    before = len(list(Path("/dev/fd").iterdir()))
    file.path.chmod(0o660)
    opened(tmp_path).close()
    assert mode(file.path) == 0o600
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_a_file_of_another_user_that_every_user_can_access_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(tmp_path).close()
    path = tmp_path / file_name(RUNTIME, URL)

    def refuse(descriptor: int, mode: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "fchmod", refuse)
    path.chmod(0o666)
    with pytest.raises(ConfigError, match="every user can access it, and its mode cannot be changed"):
        opened(tmp_path)
    path.chmod(0o660)
    opened(tmp_path).close()


def test_a_folder_that_is_a_link_is_used(tmp_path: Path) -> None:
    """systemd's StateDirectory of a DynamicUser is one."""
    (tmp_path / "private").mkdir(0o700)
    (tmp_path / "state").symlink_to(tmp_path / "private")
    opened(tmp_path / "state").close()
    assert list((tmp_path / "private").iterdir())
