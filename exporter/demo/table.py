"""What the demo prints: where everything is, the runs as they go, and the pages. The only module that needs rich."""

import asyncio
import contextlib
import dataclasses
import math
from collections.abc import Iterable, Sequence

import httpx
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from exporter.demo.pages import Alert, as_block
from exporter.demo.parts import Part
from exporter.demo.stack import Story

REFRESH = 1.0
"""Seconds between two looks at the exporter's page."""

PLAIN_REFRESH = 15.0
"""The same where standard output is no terminal, and each look is printed below the last."""

BAR = 10
"""Characters of a progress bar."""

PLAIN_ROWS = 20
"""Runs that are printed each time there."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunRow:
    """A run as the table shows it."""

    spinner: str
    run_id: str
    status: str
    created_at: float
    progress: float | None
    duration: float | None
    failed: int

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.status in ("completed", "failed", "cancelled")


def rows_of(page: str) -> list[RunRow]:
    """Return the runs on an exporter's page: those that have not ended first, the newest of each first."""
    facts: dict[str, dict[str, float]] = {}
    spinners: dict[str, str] = {}
    statuses: dict[str, str] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            run_id = sample.labels.get("run_id")
            if run_id is None:
                continue
            spinners[run_id] = sample.labels["spinner"]
            if sample.name == "spinner_run_status":
                statuses[run_id] = sample.labels["status"]
            elif len(sample.labels) == 3:
                facts.setdefault(run_id, {})[sample.name.removeprefix("spinner_run_")] = sample.value
    rows = [
        RunRow(
            spinners[run_id],
            run_id,
            status,
            facts.get(run_id, {}).get("created_timestamp_seconds", 0.0),
            facts.get(run_id, {}).get("progress_ratio"),
            facts.get(run_id, {}).get("duration_seconds"),
            int(facts.get(run_id, {}).get("failed_records", 0)),
        )
        for run_id, status in statuses.items()
    ]
    return sorted(rows, key=lambda row: (row.ended, -row.created_at))


async def show(parts: Sequence[Part], story: Story, console: Console, ended: asyncio.Event) -> None:
    """Print where everything is, and the runs again and again until `ended`. Raises `DemoError` when a part ends."""
    introduction = introduce(parts, story)
    exporter = next(part for part in parts if part.name == "exporter")
    url = exporter.url.replace("localhost", "127.0.0.1") + exporter.page
    async with httpx.AsyncClient() as client:
        live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        if live is None:
            console.print(introduction)
        # Title, head, rule, caption and a line of space above and below.
        room = max(console.height - introduction.row_count - 7, 3)
        with live or contextlib.nullcontext():
            while not ended.is_set():
                for part in parts:
                    part.check()
                with contextlib.suppress(httpx.TransportError):  # it is ending: the next check says so
                    table = as_table(rows_of((await client.get(url)).text), room if live else PLAIN_ROWS, console.width)
                    if live:
                        live.update(Group(introduction, "", table), refresh=True)
                    else:
                        console.print(table)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), REFRESH if live else PLAIN_REFRESH)


def show_page(console: Console, alert: Alert) -> None:
    """Print an alert above the table as it comes in."""
    firing = alert.status == "firing"
    paging = firing and alert.labels.get("severity") == "page"
    block = Text(as_block(alert))
    block.stylize("red bold" if paging else "yellow" if firing else "green", 0, len(alert.headline()))
    # Not cut off: a link that was could not be followed.
    console.print(block, soft_wrap=True)


def introduce(parts: Iterable[Part], story: Story) -> Table:
    """Return the table of what runs where, what is missing and how to get it."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for part in parts:
        if part.process is not None:
            table.add_row(part.name, part.url + part.page)
        else:
            table.add_row(part.name, Text(f"not on PATH; to get it: {part.hint}", style="dim"))
    table.add_row("scenario", f"{story.scenario}, seed {story.seed}")
    table.add_row("speed", _pace(story.speed))
    names = {part.name for part in parts if part.process is not None}
    if {"prometheus", "alertmanager"} <= names:
        table.add_row("pages", "are printed here as they come in")
    else:
        table.add_row("pages", Text("none will come: they need prometheus and alertmanager", style="dim"))
    table.add_row("", "Ctrl-C ends everything")
    return table


def _pace(speed: float) -> str:
    if speed == 1:
        return "real time"
    return f"a minute shows {_human(60 * speed)} of the story; rules too wait {speed:g} times less"


def as_table(rows: Sequence[RunRow], most: int, width: int) -> Table:
    """Return the runs as a table, `most` of them, in so many columns."""
    open_runs = sum(not row.ended for row in rows)
    title = f"{open_runs} runs under way, {len(rows) - open_runs} ended lately"
    table = Table(
        title=title, title_justify="left", title_style="bold", header_style="underline", box=None, padding=(0, 1, 0, 0)
    )
    # All but the name have a fixed width, so that 80 columns have room for everything.
    table.add_column("spinner", no_wrap=True, overflow="ellipsis", width=max(min(width - 62, 28), 8))
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
            Text(str(row.failed), style="red bold" if row.failed else "dim"),
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
        return "total unknown"
    full = math.floor(progress * BAR)
    return "█" * full + "░" * (BAR - full) + f" {math.floor(progress * 100):3d}%"


def _style_of(row: RunRow) -> str:
    # A completed run with failed records must not look as if all were well.
    return "yellow" if row.status == "completed" and row.failed else _STYLES.get(row.status, "")


def _human(seconds: float) -> str:
    """Write seconds as people do: 42s, 3m05s, 2h00m, 3d04h."""
    whole = int(seconds)
    for unit, size, smaller, divisor in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // divisor:02d}{smaller}"
    return f"{whole}s"
