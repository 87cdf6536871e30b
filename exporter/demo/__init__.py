"""The demo: the embedded runtime, the exporter, and those of Prometheus, Alertmanager and Grafana that are installed.

Each program is a separate process, and they communicate over HTTP as in production. `programs` starts and stops them,
`stack` knows their configs, `speed` divides the durations in these, `pages` receives Alertmanager's notifications, and
`table` prints the runs.
"""

import asyncio
import contextlib
import signal
import tempfile
from pathlib import Path

from exporter.demo.pages import Alert
from exporter.demo.programs import DemoError
from exporter.demo.stack import ScenarioOptions, start
from exporter.errors import OutputError

__all__ = ["DemoError", "ScenarioOptions", "run_demo"]


async def run_demo(options: ScenarioOptions, duration: float | None) -> None:
    """Start all programs, print runs and pages until Ctrl-C or SIGTERM, and stop all programs. Raises `DemoError`.

    With `duration`, in seconds of scenario time, it stops by itself.
    """
    try:
        from rich.console import Console

        from exporter.demo import table
    except ImportError:
        raise DemoError("the demo's table needs rich: pip install 'spinner-exporter[demo]'") from None
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    console = Console()

    def receive(page: Alert) -> None:
        # Standard output that fails once fails for the table too, which ends the demo.
        with contextlib.suppress(OutputError):
            table.show_page(console, page)

    with tempfile.TemporaryDirectory(prefix="spinner-demo-") as folder:
        async with contextlib.AsyncExitStack() as exits:
            programs = await start(options, Path(folder), exits, ended, receive=receive)
            if duration is not None:
                loop.call_later(duration / options.speed, ended.set)
            if not ended.is_set():
                await table.show(programs, options, console, ended)
    console.print("Stopped; no program is left running.")
