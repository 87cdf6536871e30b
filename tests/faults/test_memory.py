"""The limit of memory for any API response: the process_resident_memory_bytes of a real process."""

import functools
import gzip
import json
from pathlib import Path

import httpx
import pytest

from exporter.config import LimitsConfig
from exporter.runtime.held import LEAST_PER_ITEM
from tests.builders import NOON, Clock
from tests.faults.server import Exchange, Fault, FaultyRuntime
from tests.scripted import ScriptedRuntime, rfc3339
from tests.stack.programs import exporter_with

MEGABYTE = 1_000_000

EMPTY = 90 * MEGABYTE
"""A process that has read nothing, with a margin for the interpreter and its libraries."""

PER_RUN = 9_000
"""Bytes of a shown run: its state, its lines, and its part of the read and the page in progress."""

PER_TOMBSTONE = 1_000
"""Bytes of a dropped run: there can be as many tombstones as shown runs."""

PER_SPINNER = 30_000
"""Bytes of a spinner: its counters, its histograms and its lines."""

SPINNERS = LimitsConfig().spinners_per_project

CONCURRENT = 8
"""Responses at a time, each of `limits.body_bytes` at most: the default of `sync.concurrency`."""


JOB = json.dumps(
    {
        "id": "job_%012x",
        "projectId": "p1",
        "spinnerName": "Appointment reminders %d",
        "status": "completed",
        "trigger": "schedule",
        "createdAt": rfc3339(NOON),
        "startedAt": rfc3339(NOON + 1),
        "endedAt": rfc3339(NOON + 60),
        "updatedAt": rfc3339(NOON + 60),
        "records": {"total": 100, "pending": 0, "running": 0, "waiting": 0, "completed": 97, "failed": 3},
    }
).encode()
"""A job without its numbers: to serialize hundreds of thousands takes as long as to read them."""


def runs(count: int, *, spinners: int = 1) -> Fault:
    """Return that many runs of that many spinners, in pages of 500."""

    async def fault(exchange: Exchange) -> None:
        start = int(exchange.request.url.params.get("cursor", "0"))
        items = b",".join(JOB % (number, number % spinners) for number in range(start, min(start + 500, count)))
        cursor = f'"{start + 500}"' if start + 500 < count else "null"
        page = b'{"items":[' + items + f'],"nextCursor":{cursor},"asOf":"{rfc3339(NOON + 61)}"}}'.encode()
        await exchange.send(page)

    return fault


async def endless_list(exchange: Exchange) -> None:
    """Send runs that have not ended, as short as they can be, in pages without end; nothing else is fast."""
    if exchange.request.url.params.get("active") != "true":
        await exchange.send()
        return
    start = int(exchange.request.url.params.get("cursor", "0"))
    time = "2025-11-24T16:00:00Z"
    made = b",".join(
        b'{"id":"%d","spinnerName":"a","status":"r","createdAt":"%s","updatedAt":"%s"}'
        % (number, time.encode(), time.encode())
        for number in range(start, start + 10_000)
    )
    await exchange.send(b'{"items":[%s],"nextCursor":"%d"}' % (made, start + 10_000))


async def endless_body(exchange: Exchange) -> None:
    exchange.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        exchange.writer.write(b"100000\r\n" + b" " * 0x100000 + b"\r\n")
        await exchange.writer.drain()


async def gzip_bomb(exchange: Exchange) -> None:
    await exchange.send(bomb(), headers={"Content-Encoding": "gzip"})


@functools.cache
def bomb() -> bytes:
    return gzip.compress(bytes(1_000 * MEGABYTE), 9)


@pytest.mark.parametrize(
    ("fault", "most"),
    [
        pytest.param(
            runs(200_000),
            # The second read holds all of them until it applies them.
            EMPTY + LimitsConfig().runs * (PER_RUN + PER_TOMBSTONE) + 200_000 * LEAST_PER_ITEM,
            id="200,000 ended runs",
        ),
        pytest.param(
            runs(SPINNERS, spinners=SPINNERS),
            EMPTY + SPINNERS * (PER_RUN + PER_SPINNER),
            id=f"{SPINNERS:,} spinners",
        ),
        pytest.param(
            runs(20_000, spinners=20_000),
            EMPTY + 20_000 * PER_RUN + LimitsConfig().spinners_per_project * PER_SPINNER,
            id="20,000 names of spinners",
        ),
        pytest.param(
            endless_list,
            EMPTY + LimitsConfig().read_bytes + 10_000 * 2_000,
            id="an endless list of runs that have not ended",
        ),
        pytest.param(endless_body, EMPTY + CONCURRENT * LimitsConfig().body_bytes, id="an endless body"),
        pytest.param(gzip_bomb, EMPTY + CONCURRENT * LimitsConfig().body_bytes, id="a gzip bomb of a gigabyte"),
    ],
)
async def test_memory_stays_below_its_limit(tmp_path: Path, fault: Fault, most: int) -> None:
    clock = Clock(NOON + 61)
    faulty = FaultyRuntime(ScriptedRuntime(clock), fault=fault, path="/jobs")
    async with faulty.serving() as url:
        config = tmp_path / "exporter.yml"
        config.write_text(f"runtime: {{base_url: '{url}'}}\nsync: {{min_interval: 0s}}\n")
        with exporter_with(config, ready="/-/healthy") as exporter_url:
            # The test measures memory, not time, and a busy machine may need minutes for 200,000 runs.
            async with httpx.AsyncClient(timeout=300) as client:
                headers = {"X-Prometheus-Scrape-Timeout-Seconds": "50"}
                for _ in range(2):
                    page = (await client.get(f"{exporter_url}/metrics", headers=headers)).text
    used = float(
        next(line for line in page.splitlines() if line.startswith("process_resident_memory_bytes")).split()[1]
    )
    shown = page.count("\nspinner_run_info{")
    assert used <= most, f"{used / MEGABYTE:.0f} MB of memory, expected at most {most / MEGABYTE:.0f}"
    assert shown <= LimitsConfig().runs
