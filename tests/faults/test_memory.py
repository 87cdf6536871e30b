"""A bound on memory, whatever the API sends: measured on a real process, by its own process_resident_memory_bytes."""

import gzip
import json
from pathlib import Path

import httpx
import pytest

from exporter.config import LimitsConfig
from tests.builders import NOON, Clock
from tests.faults.server import Exchange, Misbehaving, Spoil
from tests.scripted import ScriptedRuntime, rfc3339
from tests.stack.programs import exporter_with

MEGABYTE = 1_000_000

EMPTY = 90 * MEGABYTE
"""What the process has when it has read nothing, with room for the interpreter and its libraries."""

PER_RUN = 8_000
"""Bytes of a run that is shown: its state, its lines, and those of the page that is on its way."""

PER_REMEMBERED_RUN = 1_000
"""Bytes of a run that was dropped: as many as are shown are remembered, so that they are not counted again."""

IN_FLIGHT = 8
"""Answers under way at once, each of `limits.body_bytes` at most: `sync.concurrency`."""


def job(number: int, **fields: object) -> bytes:
    made = {
        "id": f"job_{number:012x}",
        "projectId": "p1",
        "spinnerName": "Appointment reminders",
        "status": "completed",
        "trigger": "schedule",
        "createdAt": rfc3339(NOON),
        "startedAt": rfc3339(NOON + 1),
        "endedAt": rfc3339(NOON + 60),
        "updatedAt": rfc3339(NOON + 60),
        "records": {"total": 100, "pending": 0, "running": 0, "waiting": 0, "completed": 97, "failed": 3},
        **fields,
    }
    return json.dumps(made).encode()


def runs(count: int, **fields: object) -> Spoil:
    """So many runs in pages of 500."""

    async def spoil(exchange: Exchange) -> None:
        start = int(exchange.request.url.params.get("cursor", "0"))
        items = b",".join(job(number, **fields) for number in range(start, min(start + 500, count)))
        cursor = f'"{start + 500}"' if start + 500 < count else "null"
        page = b'{"items":[' + items + f'],"nextCursor":{cursor},"asOf":"{rfc3339(NOON + 61)}"}}'.encode()
        await exchange.send(page)

    return spoil


async def without_end(exchange: Exchange) -> None:
    exchange.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        exchange.writer.write(b"100000\r\n" + b" " * 0x100000 + b"\r\n")
        await exchange.writer.drain()


async def bomb(exchange: Exchange) -> None:
    await exchange.send(BOMB, headers={"Content-Encoding": "gzip"})


BOMB = gzip.compress(bytes(1_000 * MEGABYTE), 9)


@pytest.mark.parametrize(
    ("spoil", "most"),
    [
        pytest.param(
            runs(200_000),
            EMPTY + LimitsConfig().runs * (PER_RUN + PER_REMEMBERED_RUN),
            id="a list of 200,000 runs that ended",
        ),
        pytest.param(without_end, EMPTY + IN_FLIGHT * LimitsConfig().body_bytes, id="a body without end"),
        pytest.param(bomb, EMPTY + IN_FLIGHT * LimitsConfig().body_bytes, id="a gzip bomb of a gigabyte"),
    ],
)
async def test_memory_stays_under_its_bound(tmp_path: Path, spoil: Spoil, most: int) -> None:
    clock = Clock(NOON + 61)
    misbehaving = Misbehaving(ScriptedRuntime(clock), spoil=spoil, where="/jobs")
    async with misbehaving.serving() as url:
        config = tmp_path / "exporter.yml"
        config.write_text(f"runtime: {{base_url: '{url}'}}\nsync: {{min_interval: 0s}}\n")
        with exporter_with(config, ready="/-/healthy") as exporter_url:
            # The test is about memory: on a busy machine 200,000 runs may take their time.
            async with httpx.AsyncClient(timeout=300) as client:
                headers = {"X-Prometheus-Scrape-Timeout-Seconds": "50"}
                for _ in range(2):
                    page = (await client.get(f"{exporter_url}/metrics", headers=headers)).text
    used = float(
        next(line for line in page.splitlines() if line.startswith("process_resident_memory_bytes")).split()[1]
    )
    shown = page.count("\nspinner_run_info{")
    assert used <= most, f"{used / MEGABYTE:.0f} MB are more than {most / MEGABYTE:.0f}"
    assert shown <= LimitsConfig().runs
