"""A disk that does not respond, so that SQLite does not return: reads, reloads and the end do not wait for it."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from exporter.runs import state_file
from exporter.runs.state_file import RETRY, StateFile, StateWriter
from exporter.runs.store import Store
from tests.builders import NOON, Clock, read_project, snapshot
from tests.metrics.test_exposition import samples, value
from tests.runs.test_state_file import Observer, assert_whole, busy, counters, opened
from tests.runs.test_store_properties import HORIZON
from tests.scripted import ScriptedRuntime, exporter_of
from tests.service.test_several_runtimes import Deployment
from tests.stack.programs import ROOT

FAILED = "state not saved; a restart would resume from the last successful save"


class Disk:
    """Does not respond until it works again; notes the threads that wait for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waiting = 0
        self._works = threading.Event()
        real = {name: getattr(StateFile, name) for name in ("write", "replace")}
        for name in real:
            monkeypatch.setattr(StateFile, name, lambda file, name=name: self._run(lambda: real[name](file)))

    def _run(self, write: Callable[[], None]) -> None:
        self.waiting += 1
        assert self._works.wait(timeout=60)
        write()
        self.waiting -= 1

    def work(self) -> None:
        self._works.set()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    monkeypatch.setattr(state_file, "WRITE_TIMEOUT", 0.01)
    disk = Disk(monkeypatch)
    yield disk
    disk.work()


def writing(folder: Path) -> tuple[Clock, StateFile, Observer, Store, StateWriter]:
    """A store with something to save, and what saves it."""
    clock, observer = Clock(NOON + 60), Observer()
    file, held = opened(folder), busy(clock)
    return clock, file, observer, held, StateWriter(file, held.persistence, observer, clock)


async def ended(writer: StateWriter) -> None:
    """Wait until the write in progress has ended."""
    assert writer._write is not None
    async with asyncio.timeout(20):
        await asyncio.wait({writer._write})


async def test_one_write_waits_for_the_disk_and_each_flush_counts_a_failure(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, file, observer, held, writer = writing(tmp_path)
    with structlog.testing.capture_logs() as lines:
        for number in range(4):
            read_project(held, "p1", [(snapshot(f"more-{number}"), clock())], as_of=clock(), horizon=HORIZON)
            async with asyncio.timeout(20):
                await writer.flush()
            monkeypatch.setattr(state_file, "WRITE_TIMEOUT", 3600.0)  # it is not waited for again
            clock.advance(1)
        assert (disk.waiting, observer.failures) == (1, 4)
        assert [(line["event"], line["error"]) for line in lines] == [
            (FAILED, f"{file.path}: the disk does not respond")
        ]
        disk.work()
        await ended(writer)
        monkeypatch.setattr(state_file, "WRITE_TIMEOUT", 20.0)
        await writer.flush()
    assert [line["event"] for line in lines] == [FAILED, "state saved again"]
    writer.close()
    assert counters(tmp_path) == [each.counters.started for each in held.view.spinners()] == [6]


async def test_the_thread_that_waits_for_the_disk_does_not_keep_the_process_from_ending(
    tmp_path: Path, disk: Disk
) -> None:
    _, _, _, _, writer = writing(tmp_path)
    await writer.flush()
    threads = [thread for thread in threading.enumerate() if thread.name == "state file"]
    assert [thread.daemon for thread in threads] == [True]
    disk.work()
    await ended(writer)
    writer.close()


async def test_while_it_lasts_nothing_is_noted_and_the_file_is_whole_afterwards(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, _, _, held, writer = writing(tmp_path)
    for number in range(10):
        run = snapshot(f"more-{number}", updated_at=clock())
        read_project(held, "p1", [(run, clock())], as_of=clock(), horizon=HORIZON)
        if number:
            held.drop_run("p1", f"more-{number - 1}")
        await writer.flush()
        is_long = clock() - (NOON + 60) >= RETRY
        assert not (is_long and list(held.persistence.unsaved())), "it would be kept for as long as the disk hangs"
        clock.advance(15)
    disk.work()
    await ended(writer)
    monkeypatch.setattr(state_file, "WRITE_TIMEOUT", 20.0)
    await writer.flush()
    writer.close()
    assert_whole(tmp_path, held)


async def test_a_write_that_fails_after_nobody_waits_for_it_is_written_again(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, file, observer, _, writer = writing(tmp_path)
    file._connection.execute("PRAGMA query_only = ON")
    await writer.flush()
    disk.work()
    await ended(writer)
    file._connection.execute("PRAGMA query_only = OFF")
    monkeypatch.setattr(state_file, "WRITE_TIMEOUT", 20.0)
    await writer.flush()
    assert observer.failures == 2, "late, and then failed"
    writer.close()
    assert counters(tmp_path) == [2]


async def test_scrapes_go_on_reading(tmp_path: Path, disk: Disk) -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.put("run-0")
    exporter, failures = exporter_of(runtime, storage=tmp_path), []
    for number in range(1, 4):
        found = samples(str(await exporter.page()))
        assert value(found, "spinner_api_up") == 1
        assert value(found, "spinner_runs_started_total") == number
        failures.append(value(found, "spinner_exporter_storage_failures_total"))
        runtime.put(f"run-{number}")
        runtime.clock.advance(15)
    # Of each scrape that of its read, and its own.
    assert failures == [2, 4, 6]
    assert disk.waiting == 1
    async with asyncio.timeout(20):
        await exporter.close()


async def test_a_reload_does_not_wait_for_the_file_of_a_runtime_that_is_gone(tmp_path: Path, disk: Disk) -> None:
    deployment = Deployment()
    exporter = deployment.exporter(storage=tmp_path)
    await exporter.page()
    writer = exporter.runtimes["eu"].state_writer
    assert writer is not None
    async with asyncio.timeout(20):
        await exporter.reload(deployment.configs("us"))
    assert value(samples(str(await exporter.page())), "spinner_api_up", runtime="us") == 1
    disk.work()
    await ended(writer)
    await exporter.reload(deployment.configs())  # it could not open a file that is still open
    await exporter.close()


async def test_the_files_of_all_runtimes_are_closed_concurrently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes as long as its disk, and the time for the end is limited."""
    both = asyncio.Barrier(2)

    async def flush(writer: StateWriter, *, is_last: bool = False) -> None:
        await both.wait()

    exporter = Deployment().exporter(storage=tmp_path)
    monkeypatch.setattr(StateWriter, "flush", flush)
    async with asyncio.timeout(20):
        await exporter.close()


HANGING = """
import asyncio, pathlib, sys
from tests.service.test_several_runtimes import Deployment
from tests.scripted import ScriptedRuntime, exporter_of
from tests.builders import Clock
from exporter.runs.state_file import StateFile
import threading, exporter.runs.state_file as state_file

state_file.WRITE_TIMEOUT = 0.01

async def main():
    runtime = ScriptedRuntime(Clock())
    runtime.put()
    exporter = exporter_of(runtime, storage=pathlib.Path(sys.argv[1]))
    (monitored,) = exporter.runtimes.values()
    connection = monitored.state_writer._file._connection
    connection.create_function("hang", 0, threading.Event().wait)
    connection.execute("CREATE TEMP TRIGGER hangs BEFORE INSERT ON state BEGIN SELECT hang(); END")
    await exporter.page()
    assert monitored.state_writer._write is not None
    await exporter.close()

asyncio.run(main())
print("ended")
"""


def test_the_process_ends(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HANGING, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout.splitlines()[-1]) == (0, "ended"), ended.stderr
