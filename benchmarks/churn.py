"""What new series cost a Prometheus: one busy organisation for hours, written into a real server.

    python -m benchmarks.churn [--hours 7] [--interval 15]

The organisation and the clocks are those of `make soak`, without anything that goes wrong. Each scrape is written with
its own time through remote write, so that the server lives hours in minutes; it removes series from memory as it
does with scrapes. The table is for docs/scaling.md.
"""

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import httpx

from benchmarks.table import machine, mb
from tests.soak.organisation import HOUR
from tests.soak.world import World
from tests.stack.programs import prometheus_with
from tests.unknown.remote_write import Labels, RemoteWriter, labels_of

PROJECTS, RUNS_PER_DAY = 50, 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=int, default=7, help="at least 2")
    parser.add_argument("--interval", type=float, default=15.0)
    flags = parser.parse_args()
    print(", ".join(f"{name} {value}" for name, value in machine().items()), end="\n\n")
    print("| hour | series on the page | new series | series in Prometheus | memory of Prometheus |")
    print("| ---: " * 5 + "|")
    with tempfile.TemporaryDirectory() as folder:
        config: dict[str, object] = {"scrape_configs": []}
        with prometheus_with(Path(folder), config, "--web.enable-remote-write-receiver") as server:
            born = asyncio.run(live(server, Path(folder) / "state", hours=flags.hours, interval=flags.interval))
    runs = RUNS_PER_DAY / 24 * (flags.hours - 1)
    print("\n| family | new series per run |\n| --- | ---: |")
    for family, count in born.most_common():
        print(f"| {family} | {count / runs:.2f} |")
    print(f"| all | {born.total() / runs:.2f} |")


async def live(server: str, folder: Path, *, hours: int, interval: float) -> Counter[str]:
    """Live through hours and print a row for each; return how many series of runs began after the first, by family.

    In the first hour, all spinners begin as well.
    """
    world = World(folder, seed=1, projects=PROJECTS, runs_per_day=RUNS_PER_DAY)
    # The server refuses samples of the future.
    offset = time.time() - world.wall() - (hours + 1) * HOUR
    seen: set[str] = set()
    born: Counter[str] = Counter()
    with httpx.Client(timeout=60) as client, contextlib.closing(RemoteWriter(server)) as writer:
        empty = _value(client, server, "process_resident_memory_bytes")
        for hour in range(hours + 1):
            new, samples = 0, dict[str, float]()
            for _ in range(round(HOUR / interval) if hour else 1):
                world.advance(interval)
                page = str(await world.exporter.page(max_wait=60))
                samples = dict(_samples(page))
                appeared = samples.keys() - seen
                seen |= appeared
                new += len(appeared)
                if hour > 1:
                    born.update(series.partition("{")[0] for series in appeared if "run_id=" in series)
                for series, value in samples.items():
                    writer.add(_labels(series), world.wall() + offset, value)
                writer.flush()
            grown = _value(client, server, "process_resident_memory_bytes") - empty
            head = _value(client, server, "prometheus_tsdb_head_series")
            print(f"| {hour} | {len(samples):,} | {new:,} | {head:,.0f} | {mb(grown)} |", flush=True)
    await world.close()
    return born


def _samples(page: str) -> Iterator[tuple[str, float]]:
    for line in page.splitlines():
        if not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            yield series, float(value)


@cache
def _labels(series: str) -> Labels:
    name, _, text = series.removesuffix("}").partition("{")
    return labels_of(name, {"instance": "exporter:9942", "job": "spinner", **dict(_pairs(text))})


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    # No name of the organisation has a quotation mark in it.
    parts = text.split('"')
    for key, value in zip(parts[::2], parts[1::2], strict=False):
        yield key.strip(",="), value


def _value(client: httpx.Client, server: str, name: str) -> float:
    page = client.get(f"{server}/metrics").text
    return next(float(line.split()[-1]) for line in page.splitlines() if line.startswith(f"{name} "))


if __name__ == "__main__":
    main()
