"""How cost grows with projects and runs: one exporter and one real Prometheus, for organisations of different sizes.

    python -m benchmarks.scaling

It takes some minutes. The table is for docs/scaling.md.
"""

import subprocess
import tempfile
import time
from pathlib import Path

import httpx

from benchmarks.sync import _counted, _process
from benchmarks.table import machine, mb, ms
from benchmarks.upstream import running
from tests.stack.programs import prometheus_with, query, until

SIZES = ((1, 10), (1, 1_000), (100, 1_000), (100, 100_000), (1_000, 100_000), (10_000, 100_000))
"""Projects, and runs of a day in all of them together."""

RETENTION = "1h"
SCRAPES = 4
INTERVAL = 2
"""Seconds between scrapes; the costs per scrape do not depend on it."""


def main() -> None:
    print(", ".join(f"{name} {value}" for name, value in machine().items()), end="\n\n")
    print(
        "| projects | runs a day | shown | series | page | compressed | scrape | processor time | requests "
        "| exporter | Prometheus |"
    )
    print("| ---: " * 11 + "|")
    for projects, runs in SIZES:
        # `upstream` has the runs of 12 hours.
        with running(projects, max(runs // 2, projects, 5)) as url, tempfile.TemporaryDirectory() as folder:
            print(f"| {projects:,} | {runs:,} | " + " | ".join(_measure(url, Path(folder))) + " |", flush=True)


def _measure(url: str, folder: Path) -> list[str]:
    with _process(url, retention=RETENTION, limits_projects="100000") as port:
        target = f"http://127.0.0.1:{port}/metrics"
        timeout_header = {"X-Prometheus-Scrape-Timeout-Seconds": "110"}
        page = httpx.get(target, headers={"Accept-Encoding": "identity", **timeout_header}, timeout=120).text
        for _ in range(2):
            httpx.get(target, headers=timeout_header, timeout=120)
        _counted(url)
        before, started = _processor(port, target), time.perf_counter()
        gzip_fragment = _size(target, timeout_header)
        took = time.perf_counter() - started
        requests = _counted(url)["requests"]
        used = _processor(port, target) - before
        config = {
            "global": {
                "scrape_interval": f"{max(INTERVAL, int(took) + 3)}s",
                "scrape_timeout": f"{max(INTERVAL, int(took) + 3)}s",
            },
            "scrape_configs": [
                {"job_name": "spinner", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]},
                {"job_name": "self", "static_configs": [{"targets": ["localhost"]}]},
            ],
        }
        with prometheus_with(folder, config) as server:
            empty = _resident(server)
            until(
                lambda: (query(server, 'count_over_time(up{job="spinner"}[1h])') or [({}, 0)])[0][1] >= SCRAPES,
                "enough scrapes",
                timeout=600,
            )
            series = query(server, 'scrape_samples_scraped{job="spinner"}')[0][1]
            grown = _resident(server) - empty
        return [
            f"{page.count('spinner_run_status{'):,}",
            f"{series:,.0f}",
            mb(len(page)),
            mb(gzip_fragment),
            ms(took),
            ms(used),
            f"{requests:,}",
            mb(_value(page_of(target, timeout_header), "process_resident_memory_bytes")),
            mb(max(grown, 0)),
        ]


def _size(target: str, headers: dict[str, str]) -> int:
    """Return the bytes of a page as Prometheus requests it."""
    with httpx.stream("GET", target, headers={"Accept-Encoding": "gzip", **headers}, timeout=120) as answer:
        return sum(map(len, answer.iter_raw()))


def page_of(target: str, headers: dict[str, str]) -> str:
    return httpx.get(target, headers=headers, timeout=120).text


def _processor(port: int, target: str) -> float:
    """Return the processor seconds that the exporter has used."""
    pid = subprocess.check_output(["pgrep", "-f", f"listen-address=127.0.0.1:{port}"], text=True).split()[0]
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _resident(server: str) -> float:
    return _value(httpx.get(f"{server}/metrics").text, "process_resident_memory_bytes")


def _value(page: str, name: str) -> float:
    return next(float(line.split()[-1]) for line in page.splitlines() if line.startswith(f"{name} "))


if __name__ == "__main__":
    main()
