"""The whole stack on one machine: embedded runtime, exporter, and a Prometheus where there is one.

Each is a process of its own and they talk over HTTP, as in earnest; the live table is read from the exporter's page.
"""

import asyncio
import contextlib
import dataclasses
import math
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from prometheus_client.parser import text_string_to_metric_families

from exporter.errors import ExporterError

if TYPE_CHECKING:  # rich is an extra, for this module alone
    from rich.console import Console
    from rich.table import Table

START_PATIENCE = 30.0
"""Seconds that a program has to answer after its start."""

REFRESH = 1.0
"""Seconds between two looks at the exporter's page."""

PLAIN_REFRESH = 15.0
"""The same where standard output is no terminal, and each look is printed below the last."""

BAR = 10
"""Characters of a progress bar."""

PLAIN_ROWS = 20
"""Runs that are printed each time there."""

_CONFIG = """\
runtime: {{base_url: "{runtime}"}}
# The demo's story is short, so everything that takes time takes less of it.
retention: 15m
sync: {{min_interval: 1s, sweep_interval: 15s}}
"""

_PROMETHEUS_CONFIG = """\
global: {{scrape_interval: 5s}}
scrape_configs:
  - job_name: spinner
    static_configs: [{{targets: ["{exporter}"]}}]
"""


class DemoError(ExporterError):
    """The demo could not be started, or a part of it ended."""


@dataclasses.dataclass(frozen=True, slots=True)
class Story:
    """What the embedded runtime is to play."""

    scenario: str
    speed: float
    seed: int


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


async def run_demo(story: Story) -> None:
    """Start everything, show the runs until Ctrl-C or SIGTERM, and end everything. Raises `DemoError`."""
    try:
        from rich.console import Console
    except ImportError:
        raise DemoError("the demo's table needs rich: pip install 'spinner-exporter[demo]'") from None
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    console = Console()
    with tempfile.TemporaryDirectory(prefix="spinner-demo-") as folder:
        async with contextlib.AsyncExitStack() as stack:
            parts = await _start(story, Path(folder), stack, ended)
            if not ended.is_set():
                await _show(parts, _introduction(parts, story), console, ended)
    console.print("Ended; nothing is left running.")


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


@dataclasses.dataclass(frozen=True, slots=True)
class _Part:
    """A program of the demo that runs, or one that is missing (its URL says how to get it)."""

    name: str
    url: str
    process: asyncio.subprocess.Process | None = None
    log: Path | None = None

    def check(self) -> None:
        if self.process is not None and self.process.returncode is not None:
            lines = self.log.read_text(errors="replace").splitlines()[-5:] if self.log else []
            raise DemoError("\n".join([f"{self.name} ended with status {self.process.returncode}", *lines]))


async def _start(story: Story, folder: Path, stack: contextlib.AsyncExitStack, ended: asyncio.Event) -> list[_Part]:
    runtime_port, exporter_port, prometheus_port = _free_ports((8090, 10095, 9090))
    runtime = await _launch(
        "runtime",
        [
            *_OURSELVES,
            "runtime",
            f"--web.listen-address=127.0.0.1:{runtime_port}",
            f"--scenario={story.scenario}",
            f"--speed={story.speed:g}",
            f"--seed={story.seed}",
        ],
        f"http://localhost:{runtime_port}",
        folder,
        stack,
    )
    await _answers(runtime, "/health", ended)
    config = folder / "exporter.yml"
    config.write_text(_CONFIG.format(runtime=f"http://127.0.0.1:{runtime_port}"))
    exporter = await _launch(
        "exporter",
        [*_OURSELVES, "serve", f"--config.file={config}", f"--web.listen-address=127.0.0.1:{exporter_port}"],
        f"http://localhost:{exporter_port}",
        folder,
        stack,
    )
    await _answers(exporter, "/-/ready", ended)
    program = shutil.which("prometheus")
    if program is None:
        hint = "not on PATH; on Debian: apt-get install prometheus"
        return [runtime, exporter, _Part("prometheus", hint)]
    prometheus_config = folder / "prometheus.yml"
    prometheus_config.write_text(_PROMETHEUS_CONFIG.format(exporter=f"127.0.0.1:{exporter_port}"))
    prometheus = await _launch(
        "prometheus",
        [
            program,
            f"--config.file={prometheus_config}",
            f"--storage.tsdb.path={folder / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{prometheus_port}",
            "--log.level=warn",
        ],
        f"http://localhost:{prometheus_port}",
        folder,
        stack,
    )
    await _answers(prometheus, "/-/ready", ended)
    return [runtime, exporter, prometheus]


_OURSELVES = (sys.executable, "-m", "exporter")


async def _launch(name: str, command: Sequence[str], url: str, folder: Path, stack: contextlib.AsyncExitStack) -> _Part:
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        # In a session of its own: Ctrl-C reaches us alone, and we end the others in order.
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )

    async def end() -> None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), timeout=10)
        except TimeoutError:
            process.kill()
            await process.wait()

    stack.push_async_callback(end)
    return _Part(name, url, process, log)


async def _answers(part: _Part, path: str, ended: asyncio.Event) -> None:
    """Wait until a program answers 200; raises `DemoError` when it ends first or takes too long."""
    give_up = time.monotonic() + START_PATIENCE
    async with httpx.AsyncClient() as client:
        while not ended.is_set():
            part.check()
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get(part.url.replace("localhost", "127.0.0.1") + path)).status_code == 200:
                    return
            if time.monotonic() > give_up:
                raise DemoError(f"{part.name} does not answer at {part.url}{path}")
            await asyncio.sleep(0.1)


def _introduction(parts: Iterable[_Part], story: Story) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    pages = {"runtime": "/api/v1/projects", "exporter": "/metrics", "prometheus": "/graph"}
    for part in parts:
        running = part.process is not None
        table.add_row(part.name, Text(part.url + (pages[part.name] if running else ""), style="" if running else "dim"))
    pace = "real time" if story.speed == 1 else f"a minute shows {_human(60 * story.speed)} of the story"
    table.add_row("scenario", f"{story.scenario}, seed {story.seed}; {pace}")
    table.add_row("", "Ctrl-C ends everything")
    return table


async def _show(parts: Sequence[_Part], introduction: "Table", console: "Console", ended: asyncio.Event) -> None:
    from rich.console import Group
    from rich.live import Live

    exporter = next(part for part in parts if part.name == "exporter")
    url = exporter.url.replace("localhost", "127.0.0.1") + "/metrics"
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
                page = (await client.get(url)).text
                table = _table(rows_of(page), room if live else PLAIN_ROWS, console.width)
                if live:
                    live.update(Group(introduction, "", table), refresh=True)
                else:
                    console.print(table)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), REFRESH if live else PLAIN_REFRESH)


def _table(rows: Sequence[RunRow], most: int, width: int) -> "Table":
    from rich.table import Table
    from rich.text import Text

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


def _free_ports(preferred: Sequence[int]) -> list[int]:
    """Return a free loopback port for each: the preferred one, or any where that is taken."""
    with contextlib.ExitStack() as stack:
        return [stack.enter_context(_reserve(port)).getsockname()[1] for port in preferred]


def _reserve(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError:
        return socket.create_server(("127.0.0.1", 0))
