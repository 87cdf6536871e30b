"""Prints the URLs of all programs, the current runs and the pages. The only module that needs rich."""

import asyncio
import contextlib
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import httpx
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from exporter.demo.pages import Alert, as_block
from exporter.demo.programs import Program
from exporter.demo.stack import ScenarioOptions
from exporter.metrics.catalogue import RUN_LABELS, RUNTIME_LABEL

REFRESH = 1.0
"""Seconds between two updates on a terminal."""

PLAIN_REFRESH = 15.0
"""Seconds between two updates if standard output is not a terminal and tables are printed one below the other."""

BAR = 8
"""Width of a progress bar, in characters."""

PLAIN_ROWS = 20
"""Number of runs in each of these tables."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunRow:
    """A row of the table."""

    spinner: str
    run_id: str
    status: str
    created_at: float
    progress: float | None
    duration: float | None
    failed: int | None
    """None while the runtime does not say how many records failed."""

    @property
    def ended(self) -> bool:
        """Whether the run has ended."""
        return self.status in ("completed", "failed", "cancelled")


_READ = (
    "spinner_run_status{",
    "spinner_run_failed_records{",
    "spinner_run_created_timestamp_seconds{",
    "spinner_run_progress_ratio{",
    "spinner_run_duration_seconds{",
)
"""How the lines of a page that are in the table begin."""


def rows_of(page: str) -> list[RunRow]:
    """Return the runs of an exporter's page: active runs first, each group in descending order of creation."""
    values: dict[str, dict[str, float]] = {}
    spinners: dict[str, str] = {}
    statuses: dict[str, str] = {}
    # Parsing the whole page of a large runtime takes longer than a refresh.
    read = "".join(f"{line}\n" for line in page.split("\n") if line.startswith(_READ))
    for family in text_string_to_metric_families(read):
        for sample in family.samples:
            run_id = sample.labels.get("run_id")
            if run_id is None:
                continue
            spinners[run_id] = sample.labels["spinner"]
            if sample.name == "spinner_run_status":
                statuses[run_id] = sample.labels["status"]
            elif sample.labels.keys() == {RUNTIME_LABEL, *RUN_LABELS}:
                values.setdefault(run_id, {})[sample.name] = sample.value
    rows = [_row(spinners[run_id], run_id, status, values.get(run_id, {})) for run_id, status in statuses.items()]
    return sorted(rows, key=lambda row: (row.ended, -row.created_at))


def _row(spinner: str, run_id: str, status: str, values: Mapping[str, float]) -> RunRow:
    failed = values.get("spinner_run_failed_records")
    return RunRow(
        spinner,
        run_id,
        status,
        values.get("spinner_run_created_timestamp_seconds", 0.0),
        values.get("spinner_run_progress_ratio"),
        values.get("spinner_run_duration_seconds"),
        None if failed is None else int(failed),
    )


async def show(programs: Sequence[Program], options: ScenarioOptions, console: Console, ended: asyncio.Event) -> None:
    """Print the introduction, and the runs repeatedly until `ended`. Raises `DemoError` if a program ends."""
    introduction = introduce(programs, options)
    exporter = next(program for program in programs if program.name == "exporter")
    url = exporter.url.replace("localhost", "127.0.0.1") + exporter.page
    async with httpx.AsyncClient(trust_env=False) as client:
        live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        if live is None:
            console.print(introduction)
        # Minus title, header, rule, caption and empty lines.
        row_count = max(console.height - introduction.row_count - 7, 3)
        with live or contextlib.nullcontext():
            while not ended.is_set():
                for program in programs:
                    program.check()
                with contextlib.suppress(httpx.TransportError):  # it has ended, and the next check reports it
                    table = as_table(
                        rows_of((await client.get(url)).text), row_count if live else PLAIN_ROWS, console.width
                    )
                    if live:
                        live.update(Group(introduction, "", table), refresh=True)
                    else:
                        console.print(table)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), REFRESH if live else PLAIN_REFRESH)


def show_page(console: Console, alert: Alert) -> None:
    """Print an alert above the table."""
    firing = alert.status == "firing"
    paging = firing and alert.labels.get("severity") == "page"
    block = Text(as_block(alert))
    block.stylize("red bold" if paging else "yellow" if firing else "green", 0, len(alert.headline()))
    # Without wrapping, so that links stay intact.
    console.print(block, soft_wrap=True)


def introduce(programs: Iterable[Program], options: ScenarioOptions) -> Table:
    """Return the table with the URL of each program, or how to install it."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for program in programs:
        if program.process is not None:
            table.add_row(program.name, program.url + program.page)
        else:
            table.add_row(program.name, Text(f"not on PATH; to install it: {program.hint}", style="dim"))
    table.add_row("scenario", f"{options.scenario}, seed {options.seed}")
    table.add_row("speed", _pace(options.speed))
    names = {program.name for program in programs if program.process is not None}
    if {"prometheus", "alertmanager"} <= names:
        table.add_row("pages", "are printed here when they arrive")
    else:
        table.add_row("pages", Text("none: they need prometheus and alertmanager", style="dim"))
    table.add_row("", "Ctrl-C stops everything")
    return table


def _pace(speed: float) -> str:
    if speed == 1:
        return "real time"
    return f"one minute is {_human(60 * speed)} of the scenario; rules run {speed:g} times faster"


def as_table(rows: Sequence[RunRow], most: int, width: int) -> Table:
    """Return a table of at most `most` runs for a terminal with this width."""
    active = sum(not row.ended for row in rows)
    title = f"{active} active runs, {len(rows) - active} ended recently"
    table = Table(
        title=title, title_justify="left", title_style="bold", header_style="underline", box=None, padding=(0, 1, 0, 0)
    )
    # All columns except the name have a fixed width, so that the table fits into 80 columns.
    table.add_column("spinner", no_wrap=True, overflow="ellipsis", width=max(min(width - 58, 28), 8))
    table.add_column("run", no_wrap=True, overflow="ellipsis", style="dim", width=16)
    table.add_column("progress", no_wrap=True, width=BAR + 5)
    table.add_column("status", no_wrap=True, width=9)
    table.add_column("duration", justify="right", no_wrap=True, width=8)
    table.add_column("failed", justify="right", no_wrap=True, width=6)
    for row in rows[:most]:
        table.add_row(
            row.spinner,
            row.run_id,
            _bar(row.progress),
            Text(row.status, style=_style_of(row)),
            "" if row.duration is None else _human(row.duration),
            Text("?" if row.failed is None else str(row.failed), style="red bold" if row.failed else "dim"),
        )
    if len(rows) > most:
        table.caption = f"and {len(rows) - most} more"
        table.caption_justify = "left"
    return table


_STYLES = {
    "queued": "dim",
    "running": "cyan",
    "waiting": "yellow",
    "completed": "green",
    "failed": "red bold",
    "cancelled": "dim",
    "unknown": "magenta",
}


def _bar(progress: float | None) -> str:
    if progress is None:
        return "? unknown"
    full = math.floor(progress * BAR)
    return "█" * full + "░" * (BAR - full) + f" {math.floor(progress * 100):3d}%"


def _style_of(row: RunRow) -> str:
    # A completed run with failed records must not be green.
    return "yellow" if row.status == "completed" and row.failed else _STYLES.get(row.status, "")


def _human(seconds: float) -> str:
    """Format seconds with two units: 42s, 3m05s, 2h00m, 3d04h."""
    whole = int(seconds)
    for unit, size, smaller, divisor in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // divisor:02d}{smaller}"
    return f"{whole}s"
