"""The whole stack on one machine: all of it that is installed, fed by the embedded runtime.

Each part is a process of its own and they talk over HTTP, as in earnest: `stack` starts them, `speed` shortens the
durations in their configs, `pages` receives what the alerts send, and `table` shows the runs.
"""

import asyncio
import contextlib
import signal
import tempfile
from pathlib import Path

from exporter.demo.parts import DemoError
from exporter.demo.stack import Story, start

__all__ = ["DemoError", "Story", "run_demo"]


async def run_demo(story: Story, duration: float | None = None) -> None:
    """Start everything, show the runs and pages until Ctrl-C or SIGTERM, and end everything. Raises `DemoError`.

    With `duration`, in seconds of the story, it ends by itself.
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
    with tempfile.TemporaryDirectory(prefix="spinner-demo-") as folder:
        async with contextlib.AsyncExitStack() as exits:
            parts = await start(story, Path(folder), exits, ended, receive=lambda page: table.show_page(console, page))
            if duration is not None:
                loop.call_later(duration / story.speed, ended.set)
            if not ended.is_set():
                await table.show(parts, story, console, ended)
    console.print("Ended; nothing is left running.")
