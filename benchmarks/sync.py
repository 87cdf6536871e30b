"""The cost of reading a runtime compared with the minimum: requests, bytes, time, memory and delays of other requests.

The runtime is a separate process with almost no cost (`upstream`). So is the exporter where its memory or the delays of
its event loop are measured.
"""

import asyncio
import contextlib
import gc
import http.client
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import msgspec

from benchmarks.table import Row, mb, medians, ms
from benchmarks.upstream import LIMIT, running
from exporter import logs
from exporter.config import load
from exporter.runtime import wire
from exporter.service import Exporter
from tests.stack import programs
from tests.stack.programs import EXPORTER, free_port

MAX_WAIT = 600.0
MOST_RUNS = 1_000_000
LOOP_BUDGET = 0.05
"""Seconds that one step may hold the event loop."""


def rows() -> list[Row]:
    """Measure everything about reading."""
    return [
        *_nothing_changed(),
        _some_changed(),
        *_one_list_of_all(),
        _first_sync(),
        _memory_of_a_list(),
        _memory(),
        _event_loop_delay(),
        _scrapes_until_visible(),
    ]


def _nothing_changed() -> list[Row]:
    projects = 1_000
    with running(projects, 100_000, lists_all_projects=False) as url:
        first, later = asyncio.run(_two_syncs(url))
    return [
        Row(f"requests per scrape, nothing changed, {projects:,} projects, no list of all", "one per project",
            later["requests"] / projects, 1.01, {"requests": f"{later['requests']:,}"}),
        Row("bytes per scrape, nothing changed", "those of the first read", later["bytes"] / first["bytes"], 0.01,
            {"first": mb(first["bytes"]), "later": f"{later['bytes']:,} B"}),
    ]  # fmt: skip


async def _two_syncs(url: str) -> tuple[dict[str, int], dict[str, int]]:
    async with _exporter(url) as exporter:
        await exporter.refresh(MAX_WAIT)
        first = _counted(url)
        # The second read finds the overlap with the first one; then nothing changes.
        await exporter.refresh(MAX_WAIT)
        await exporter.refresh(MAX_WAIT)
        _counted(url)
        await exporter.refresh(MAX_WAIT)
        return first, _counted(url)


def _some_changed() -> Row:
    async def measure(url: str) -> tuple[int, int]:
        async with _exporter(url) as exporter:
            for _ in range(3):
                await exporter.refresh(MAX_WAIT)
            changed = httpx.get(f"{url}/change?share=0.01").json()["bytes"]
            _counted(url)
            await exporter.refresh(MAX_WAIT)
            return _counted(url)["bytes"], changed

    with running(10, 100_000, lists_all_projects=False) as url:
        read, changed = asyncio.run(measure(url))
    return Row("bytes per scrape, 1% of 100,000 runs changed, no list of all", "the bytes of those runs", read / changed, 2.0,
               {"read": mb(read), "changed": mb(changed)})  # fmt: skip


def _one_list_of_all() -> list[Row]:
    """Compare a runtime that lists the runs of all projects with one that does not, side by side."""

    async def measure(
        with_list: str, without: str
    ) -> tuple[dict[str, list[float]], dict[str, int], dict[str, int], int]:
        took: dict[str, list[float]] = {"one list": [], "one per project": []}
        # A run of a day is shown for an hour, as by default. The list of projects is not part of the comparison.
        hour = {"retention": "1h", "sync_projects_interval": "1h"}
        async with _exporter(with_list, settings=hour) as ours, _exporter(without, settings=hour) as theirs:
            for _ in range(4):
                await ours.page(max_wait=MAX_WAIT)
                await theirs.page(max_wait=MAX_WAIT)
            _counted(with_list)
            for _ in range(SIDE_BY_SIDE):
                for name, exporter in (("one list", ours), ("one per project", theirs)):
                    started = time.perf_counter()
                    await exporter.page(max_wait=MAX_WAIT)
                    took[name].append(time.perf_counter() - started)
            steady = _counted(with_list)
            changed = httpx.get(f"{with_list}/change?share=0.01").json()["bytes"]
            await ours.page(max_wait=MAX_WAIT)
            return took, steady, _counted(with_list), changed

    async def measure_failures(url: str) -> tuple[int, int, int]:
        """Return how many runs have new failures, and the requests of a scrape before and after."""
        settings = {"retention": "1h", "sync_projects_interval": "1h", "limits_failed_records": "100000"}
        async with _exporter(url, settings=settings) as exporter:
            for _ in range(3):
                await exporter.page(max_wait=MAX_WAIT)
            _counted(url)
            await exporter.page(max_wait=MAX_WAIT)
            before = _counted(url)["requests"]
            runs = httpx.get(f"{url}/fail?share=0.01").json()["runs"]
            page = await exporter.page(max_wait=MAX_WAIT)
            if str(page).count("spinner_run_failed_record_info{") != runs:
                raise RuntimeError("not every failed record is named")
            return runs, before, _counted(url)["requests"]

    projects, runs = 10_000, 100_000
    with running(projects, runs) as with_list, running(projects, runs, lists_all_projects=False) as without:
        took, steady, after, changed = asyncio.run(measure(with_list, without))
        failing, before, with_failures = asyncio.run(measure_failures(with_list))
    times = {name: statistics.median(each) for name, each in took.items()}
    requests, pages = steady["requests"] / SIDE_BY_SIDE, math.ceil(runs * 0.01 / LIMIT)
    return [
        Row(f"requests per scrape, nothing changed, {projects:,} projects", "6", requests / 6, 1.0,
            {"requests": f"{requests:.1f}"}),
        Row("the same, time", "the same with one list per project", times["one list"] / times["one per project"], 0.05,
            {name: ms(each) for name, each in times.items()}),
        Row("the same, time", "500 ms", times["one list"] / 0.5, 1.0, {"time": ms(times["one list"])}),
        Row(f"bytes per scrape, 1% of {runs:,} runs changed, {projects:,} projects", "the bytes of those runs",
            after["bytes"] / changed, 2.0, {"read": mb(after["bytes"]), "changed": mb(changed)}),
        Row("the same, requests", f"{pages} pages and 6", after["requests"] / (pages + 6), 1.0,
            {"requests": str(after["requests"])}),
        Row(f"requests for failed records, {failing:,} runs in {projects:,} projects with new ones", "one per run",
            (with_failures - before) / failing, 0.01, {"requests": str(with_failures - before)}),
    ]  # fmt: skip


SIDE_BY_SIDE = 5
"""Scrapes of each of two exporters, taken in turn."""


def _first_sync() -> Row:
    runs = 100_000

    def bare() -> float:
        started = time.perf_counter()
        if asyncio.run(_bare(url, projects)) != runs:
            raise RuntimeError("the bare loop did not read every run")
        return time.perf_counter() - started

    def ours() -> float:
        async def measure() -> float:
            started = time.perf_counter()
            async with _exporter(url) as exporter:
                if not await exporter.refresh(MAX_WAIT):
                    raise RuntimeError("the first sync failed")
                return time.perf_counter() - started

        gc.collect()
        return asyncio.run(measure())

    projects = 10
    with running(projects, runs) as url:
        time_of = medians({"bare": bare, "ours": ours})
    return Row(f"first sync of {runs:,} runs", "the same pages fetched and decoded by a bare httpx loop",
               time_of["ours"] / time_of["bare"], 1.5, {name: ms(each) for name, each in time_of.items()})  # fmt: skip


async def _bare(url: str, projects: int) -> int:
    decoder = msgspec.json.Decoder(wire.WirePage[wire.WireJob])  # the types that the exporter decodes
    seen = 0
    async with httpx.AsyncClient(base_url=url) as client:
        for project in range(projects):
            cursor: dict[str, str] | None = {}
            while cursor is not None:
                answer = await client.get(f"/api/v1/projects/p{project}/jobs", params={"limit": 500, **cursor})
                page = decoder.decode(answer.content)
                seen += len(page.items)
                cursor = {"cursor": page.next_cursor} if page.next_cursor else None
    return seen


def _memory_of_a_list() -> Row:
    """Compare the peaks of two first reads that keep the same number of runs, of lists of different lengths."""
    kept = 10_000
    short, long = (_memory_of(runs, limit=kept)["peak"] for runs in (20_000, 200_000))
    return Row(f"peak memory of a first read of 200,000 runs of which {kept:,} are kept", "the same of 20,000 runs",
               long / short, 1.1, {"20,000": mb(short), "200,000": mb(long)})  # fmt: skip


def _memory() -> Row:
    """Measure what 50,000 additional runs take, so that the process itself is not included."""
    few, many = (_memory_of(runs) for runs in (10_000, 60_000))
    memory = (many["memory"] - few["memory"]) / 50_000
    page = (many["page"] - few["page"]) / 50_000
    return Row("memory per tracked run, with its compressed form", "the bytes of its exposition", memory / page, 3.0,
               {"memory": f"{memory:,.0f} B", "exposition": f"{page:,.0f} B",
                "peak of the first sync": f"{(many['peak'] - few['peak']) / 50_000:,.0f} B"})  # fmt: skip


def _memory_of(runs: int, *, limit: int = MOST_RUNS) -> dict[str, float]:
    with running(10, runs) as url:
        command = [sys.executable, "-m", "benchmarks.sync", url, str(limit)]
        measured: dict[str, float] = json.loads(subprocess.check_output(command))
        return measured


async def _measure_memory(url: str, limit: int) -> None:
    async with _exporter(url, limit=limit) as exporter:
        await exporter.refresh(MAX_WAIT)
        peak = _status("VmHWM")
        for _ in range(3):
            page = await exporter.page(max_wait=MAX_WAIT)
            await page.gzip()
        size = page.size
        del page
        gc.collect()
        print(json.dumps({"memory": _status("VmRSS"), "peak": peak, "page": size}))


def _status(key: str) -> int:
    """Return a figure of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def _event_loop_delay() -> Row:
    """Request /-/healthy repeatedly during the first read and scrape of 10,000 runs."""
    with running(5, 10_000) as url, _process(url) as port:
        scrape = subprocess.Popen(
            [sys.executable, "-c", "import sys, urllib.request; urllib.request.urlopen(sys.argv[1]).read()",
             f"http://127.0.0.1:{port}/metrics"]
        )  # fmt: skip
        longest, requests = 0.0, 0
        connection = http.client.HTTPConnection("127.0.0.1", port)
        while scrape.poll() is None:
            started = time.perf_counter()
            connection.request("GET", "/-/healthy")
            connection.getresponse().read()
            longest, requests = max(longest, time.perf_counter() - started), requests + 1
    return Row("longest wait for /-/healthy while 10,000 runs are read and scraped", "50 ms", longest / LOOP_BUDGET, 1.0,
               {"longest": ms(longest), "requests": f"{requests:,}"})  # fmt: skip


def _scrapes_until_visible() -> Row:
    async def measure(url: str) -> int:
        async with _exporter(url) as exporter:
            for _ in range(3):
                await exporter.page(max_wait=MAX_WAIT)
            done = httpx.get(f"{url}/change?share=1").json()["done"]
            scrapes = 0
            while True:
                scrapes += 1
                if f'state="completed"}} {done}\n' in str(await exporter.page(max_wait=MAX_WAIT)):
                    return scrapes

    with running(5, 1_000) as url:
        scrapes = asyncio.run(measure(url))
    return Row("scrapes until a change in the runtime is visible", "1", scrapes, 1.0, {"scrapes": str(scrapes)})


def _counted(url: str) -> dict[str, int]:
    """Return the requests and bytes of the runtime since the last call."""
    counted: dict[str, int] = httpx.get(f"{url}/count").json()
    return counted


@contextlib.asynccontextmanager
async def _exporter(url: str, *, limit: int = MOST_RUNS, settings: Mapping[str, str] = MappingProxyType({})) -> Any:
    environ = _settings(url, limit=limit) | _named(settings)
    exporter = Exporter(load(None, environ=environ).runtimes)
    try:
        yield exporter
    finally:
        await exporter.close()


def _settings(url: str, *, limit: int = MOST_RUNS) -> dict[str, str]:
    prefix = "SPINNER_EXPORTER_"
    return {
        f"{prefix}RUNTIME_BASE_URL": url,
        f"{prefix}RETENTION": "2d",
        f"{prefix}LIMITS_RUNS": str(limit),
        f"{prefix}SYNC_MIN_INTERVAL": "0s",
        f"{prefix}SYNC_STALE_AFTER": "1h",
        f"{prefix}LIMITS_PROJECTS": "100000",
    }


def _named(settings: Mapping[str, str]) -> dict[str, str]:
    return {f"SPINNER_EXPORTER_{name.upper()}": value for name, value in settings.items()}


@contextlib.contextmanager
def _process(url: str, **settings: str) -> Iterator[int]:
    port = free_port()
    command = [*EXPORTER, "serve", f"--web.listen-address=127.0.0.1:{port}"]
    environ = _settings(url) | _named(settings)
    with programs.running(command, f"http://127.0.0.1:{port}", Path(os.devnull), ready="/-/healthy", environ=environ):
        yield port


if __name__ == "__main__":
    # On standard error: the figures are read from standard output.
    logs.configure("warn", "logfmt")
    asyncio.run(_measure_memory(sys.argv[1], int(sys.argv[2])))
