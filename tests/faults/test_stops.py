"""A process that is stopped, or a machine that is suspended, while it reads: old data never look new."""

import asyncio
import contextlib
import itertools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import httpx
import pytest

from exporter.service.monitored_runtime import Dependencies
from tests.builders import RUNTIME
from tests.faults.bench import Bench, bench
from tests.faults.server import Exchange, FaultyRuntime
from tests.metrics.test_exposition import Samples, samples, value
from tests.scripted import ScriptedRuntime
from tests.stack.programs import EXPORTER, free_port

STOP = 180.0


def age(made: Bench, shown: Samples) -> float:
    return made.wall() - (value(shown, "spinner_exporter_snapshot_timestamp_seconds") or 0)


async def learns(made: Bench) -> float | None:
    """Let a run make progress; return its stall threshold."""
    for number in range(4):
        made.runtime.put("r", records={"total": 100, "completed": 3 + number})
        shown = await made.next()
    return value(shown, "spinner_run_stall_threshold_seconds", run_id="r")


@pytest.mark.parametrize("path", ["/health", "/usage", "/projects", "/p1/jobs"])
async def test_a_response_that_arrived_before_a_stop_counts_as_none(path: str) -> None:
    async with bench() as made:
        before = await learns(made)

        async def stops(exchange: Exchange) -> None:
            await exchange.send()
            made.faulty.fault = None
            made.play(STOP)

        made.faulty.path, made.faulty.fault = path, stops
        shown = await made.next()
        assert value(shown, "spinner_api_up") == 0
        assert age(made, shown) >= STOP
        for _ in range(2):
            shown = await made.next()
            assert value(shown, "spinner_api_up") == 1
            assert age(made, shown) == 0
            assert value(shown, "spinner_run_stall_threshold_seconds", run_id="r") == before, "an outage is made up"


@contextlib.contextmanager
def stopped(made: Bench, seconds: float, *, at_slice: int) -> Iterator[None]:
    """Stop the process once, before the use of a response that has arrived: at a time slice of the next scrape."""
    slices = itertools.count(1)

    async def begin() -> None:
        if next(slices) == at_slice:
            made.play(seconds)

    with mock.patch.object(made.exporter.runtimes[RUNTIME].client.time_slices, "next", begin):
        yield
    assert next(slices) > at_slice


async def test_what_arrived_before_a_stop_is_as_old_as_its_request() -> None:
    async with bench() as made:
        before = await learns(made)
        await made.next()  # a sweep, which would read the run once more after the stop
        made.play(30)
        made.runtime.put("r", records={"total": 100, "completed": 50})
        with stopped(made, STOP, at_slice=2):
            shown = await made.scrape()
        assert value(shown, "spinner_run_records", run_id="r", state="completed") == 50
        assert value(shown, "spinner_api_up") == 0, "no scraper waits for so long"
        assert age(made, shown) >= STOP
        progress = value(shown, "spinner_run_last_progress_timestamp_seconds", run_id="r")
        assert made.wall() - (progress or 0) == STOP

        made.faulty.fault, made.faulty.path = fails, ""
        shown = await made.next(120)
        assert value(shown, "spinner_run_info", run_id="r") == 1
        shown = await made.next(1)
        assert value(shown, "spinner_run_info", run_id="r") is None, "its data are 301 s old"
        assert value(shown, "spinner_runtime_up") is None
        made.faulty.fault = None
        for _ in range(2):
            made.runtime.put("r", records={"total": 100, "completed": 50})
            shown = await made.next()
        threshold = value(shown, "spinner_run_stall_threshold_seconds", run_id="r")
        # It has learned from the progress since; an outage would add minutes.
        assert (threshold or 0) <= (before or 0), "an outage is made up"


async def test_a_stop_is_not_time_for_which_a_project_was_missing_from_the_list() -> None:
    async with bench() as made:
        made.runtime.put("r", status="completed", endedAt=made.wall(), records={"total": 3, "completed": 3})
        await made.next()
        projects, made.runtime.projects = made.runtime.projects, {}
        await made.next()
        made.runtime.projects = {"p2": "Service"}
        made.play(30)
        with stopped(made, 400, at_slice=1):
            await made.scrape()
        made.runtime.projects = projects
        shown = await made.next()
        assert value(shown, "spinner_runs_finished_total", status="completed") == 1, "its counters are kept"


async def fails(exchange: Exchange) -> None:
    await exchange.send(b"{}", status=500)


def test_time_goes_on_while_the_machine_is_suspended() -> None:
    """On Linux `time.monotonic` does not."""
    with mock.patch("time.clock_gettime", {time.CLOCK_BOOTTIME: 4711.0}.__getitem__):
        assert Dependencies().monotonic() == 4711.0


async def test_a_process_that_is_stopped_in_a_scrape_shows_how_old_its_data_are(tmp_path: Path) -> None:
    """With SIGSTOP. It lasts as long as the runtime may take, so that the response in flight is still used."""
    stop, faulty = 3.0, FaultyRuntime(ScriptedRuntime(time.time), path="/p1/jobs")  # type: ignore[arg-type]
    port = free_port()
    async with faulty.serving() as runtime, httpx.AsyncClient(timeout=60) as client:
        config = tmp_path / "exporter.yml"
        config.write_text(f"runtime: {{base_url: '{runtime}', timeout: 60s}}\nsync: {{min_interval: 0s}}\n")
        command = [*EXPORTER, "serve", f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}"]
        process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
        try:
            await answers(client, f"http://127.0.0.1:{port}/-/healthy")

            async def stops(exchange: Exchange) -> None:
                faulty.fault = None
                os.kill(process.pid, signal.SIGSTOP)
                is_stopped = False
                while not is_stopped:
                    is_stopped = "T (stopped)" in Path(f"/proc/{process.pid}/status").read_text()
                await exchange.send()
                await asyncio.sleep(stop)
                os.kill(process.pid, signal.SIGCONT)

            faulty.fault = stops
            headers = {"X-Prometheus-Scrape-Timeout-Seconds": "50"}
            shown = samples((await client.get(f"http://127.0.0.1:{port}/metrics", headers=headers)).text)
        finally:
            process.kill()
            await process.wait()
        read_at = value(shown, "spinner_exporter_snapshot_timestamp_seconds")
        assert value(shown, "spinner_api_up") == 1
        assert (value(shown, "spinner_exporter_time_seconds") or 0) - (read_at or 0) >= stop


async def answers(client: httpx.AsyncClient, url: str) -> None:
    while True:
        try:
            await client.get(url)
        except httpx.TransportError:
            await asyncio.sleep(0.05)
        else:
            return
