"""The table of all benchmarks: what was measured, compared with what, the ratio, and its target."""

import dataclasses
import json
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

ROUNDS = 9
"""Measurements of each thing, taken in turn, so that other load on the machine affects all of them."""


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One comparison. `figures` are the measured values with their units."""

    what: str
    against: str
    ratio: float
    target: float
    figures: Mapping[str, str]

    @property
    def is_met(self) -> bool:
        return self.ratio <= self.target


def medians(measures: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """Take each measurement once per round, in turn, after a warm-up round; return the medians."""
    taken: dict[str, list[float]] = {name: [] for name in measures}
    for round_number in range(ROUNDS + 1):
        for name, measure in measures.items():
            value = measure()
            if round_number:
                taken[name].append(value)
    return {name: statistics.median(values) for name, values in taken.items()}


def machine() -> dict[str, str]:
    """Return the machine and the versions that the figures were measured with."""
    cpuinfo = Path("/proc/cpuinfo")
    models = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
    libraries = ("prometheus-client", "httpx", "msgspec", "uvicorn", "starlette")
    return {
        "processors": f"{len(os.sched_getaffinity(0))} of {models[0] if models else platform.machine()}",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: version(name) for name in libraries},
    }


def show(rows: Sequence[Row]) -> None:
    """Print the table in Markdown, for docs/performance.md."""
    print("| what | measured against | target | result | figures |")
    print("| --- | --- | --- | --- | --- |")
    for row in rows:
        mark = "" if row.is_met else " **missed**"
        figures = ", ".join(f"{name} {figure}" for name, figure in row.figures.items())
        print(f"| {row.what} | {row.against} | ≤ {_ratio(row.target)} | {_ratio(row.ratio)}{mark} | {figures} |")


def save(rows: Iterable[Row], path: Path) -> None:
    """Write the same as JSON, for later comparisons."""
    path.parent.mkdir(exist_ok=True)
    document = {"machine": machine(), "rows": [dataclasses.asdict(row) for row in rows]}
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def mb(size: float) -> str:
    return f"{size / 1e6:.1f} MB"


def _ratio(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio >= 0.2 else f"1/{1 / ratio:.0f}" if ratio else "0"
