"""Starts, checks and stops the programs of the demo."""

import asyncio
import contextlib
import dataclasses
import os
import random
import shutil
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import httpx

from exporter.config import ENVIRONMENT_PREFIX
from exporter.errors import ExporterError

START_TIMEOUT = 60.0
"""Longest time for a program to become ready, in seconds."""

STOP_TIMEOUT = 10.0
"""Longest time for a program to end after SIGTERM, in seconds."""


OTHER_PORTS = range(20_000, 32_000)
"""Ports to choose from at random. The system gives connections higher ones, which can be in use when a program starts
although they were free before."""


class DemoError(ExporterError):
    """The demo could not start, or one of its programs ended."""


@dataclasses.dataclass(frozen=True, slots=True)
class Program:
    """A program of the demo, running or not installed."""

    name: str
    url: str = ""
    page: str = ""
    """Path of the page that a person opens first."""
    hint: str = ""
    """How to install it."""
    process: asyncio.subprocess.Process | None = None
    log: Path | None = None

    def check(self) -> None:
        """Raise `DemoError` with the last lines of its log if it ended."""
        if self.process is not None and self.process.returncode is not None:
            lines = self.log.read_text(errors="replace").splitlines()[-5:] if self.log else []
            raise DemoError("\n".join([f"{self.name} ended with status {self.process.returncode}", *lines]))


def find(*names: str) -> str | None:
    """Return the path of the first of these programs on PATH, or None."""
    return next(filter(None, map(shutil.which, names)), None)


async def launch(
    program: Program,
    command: Sequence[str],
    folder: Path,
    exits: contextlib.AsyncExitStack,
    ended: asyncio.Event,
    *,
    ready: str,
    environ: Mapping[str, str] | None = None,
) -> Program:
    """Start a program and wait until it responds with 200 at the path `ready`. `exits` stops it. Raises `DemoError`.

    Its environment is the one of this process without `SETTINGS`, and with `environ`.
    """
    log = folder / f"{program.name}.log"
    with log.open("wb") as output:
        # In its own session, so that Ctrl-C reaches only this process, which stops the others in order.
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=without_settings(os.environ) | dict(environ or {}),
        )

    async def end() -> None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), timeout=STOP_TIMEOUT)
        except TimeoutError:
            process.kill()
            await process.wait()

    exits.push_async_callback(end)
    running = dataclasses.replace(program, process=process, log=log)

    async def is_ready() -> bool:
        running.check()
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.get(program.url.replace("localhost", "127.0.0.1") + ready)).status_code == 200

    await wait_until(is_ready, ended, f"{program.name} responds at {program.url}{ready}")
    return running


async def wait_until(condition: Callable[[], Awaitable[bool]], ended: asyncio.Event, what: str) -> None:
    """Wait until a condition holds or `ended` is set; connection errors count as not yet. Raises `DemoError`."""
    deadline = time.monotonic() + START_TIMEOUT
    while not ended.is_set():
        with contextlib.suppress(httpx.TransportError):
            if await condition():
                return
        if time.monotonic() > deadline:
            raise DemoError(f"timeout after {START_TIMEOUT:g} s: waited until {what}")
        await asyncio.sleep(0.1)


SETTINGS = (ENVIRONMENT_PREFIX, "GF_")
"""Beginnings of the variables that set an exporter and Grafana.

Those of the caller may name the runtime, the folder and the database of what runs in production.
"""


def without_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the variables that set a program of the demo, except where Grafana is installed."""
    return {name: value for name, value in environ.items() if not name.startswith(SETTINGS) or name == "GF_PATHS_HOME"}


def free_ports(preferred: Sequence[int]) -> list[int]:
    """Return a free loopback port for each preferred one: that port, or any other if it is in use."""
    with contextlib.ExitStack() as stack:
        return [stack.enter_context(reserve(port)).getsockname()[1] for port in preferred]


def reserve(port: int) -> socket.socket:
    """Listen on this loopback port, or on any other if it is 0 or in use."""
    for candidate in filter(None, (port, *random.sample(OTHER_PORTS, 20))):
        with contextlib.suppress(OSError):
            return socket.create_server(("127.0.0.1", candidate))
    return socket.create_server(("127.0.0.1", 0))
