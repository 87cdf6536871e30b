"""A program of the demo: found, started, watched and ended; or missing, with how to get it."""

import asyncio
import contextlib
import dataclasses
import shutil
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import httpx

from exporter.errors import ExporterError

START_PATIENCE = 60.0
"""Seconds that a program has to do what it is waited for."""

END_PATIENCE = 10.0
"""Seconds that it has to end when it is asked to."""


class DemoError(ExporterError):
    """The demo could not be started, or a part of it ended."""


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """A program that runs, or one that is missing."""

    name: str
    url: str = ""
    page: str = ""
    """The path of what a person would open."""
    hint: str = ""
    """How to get it, where it is missing."""
    process: asyncio.subprocess.Process | None = None
    log: Path | None = None

    def check(self) -> None:
        """Raise `DemoError` with the last lines of its log when it ended by itself."""
        if self.process is not None and self.process.returncode is not None:
            lines = self.log.read_text(errors="replace").splitlines()[-5:] if self.log else []
            raise DemoError("\n".join([f"{self.name} ended with status {self.process.returncode}", *lines]))


def find(*names: str) -> str | None:
    """Return the path of the first of the programs that is on PATH."""
    return next(filter(None, map(shutil.which, names)), None)


async def launch(
    part: Part,
    command: Sequence[str],
    folder: Path,
    exits: contextlib.AsyncExitStack,
    ended: asyncio.Event,
    *,
    ready: str,
    environ: Mapping[str, str] | None = None,
) -> Part:
    """Start a program and wait until it answers 200 at the path `ready`; it ends with `exits`. Raises `DemoError`."""
    log = folder / f"{part.name}.log"
    with log.open("wb") as output:
        # In a session of its own: Ctrl-C reaches us alone, and we end the others in order.
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=environ,
        )

    async def end() -> None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), timeout=END_PATIENCE)
        except TimeoutError:
            process.kill()
            await process.wait()

    exits.push_async_callback(end)
    running = dataclasses.replace(part, process=process, log=log)

    async def answers() -> bool:
        running.check()
        async with httpx.AsyncClient() as client:
            return (await client.get(part.url.replace("localhost", "127.0.0.1") + ready)).status_code == 200

    await wait_until(answers, ended, f"{part.name} answers at {part.url}{ready}")
    return running


async def wait_until(condition: Callable[[], Awaitable[bool]], ended: asyncio.Event, what: str) -> None:
    """Wait until a condition holds, which may fail to connect until then, or `ended`. Raises `DemoError`."""
    give_up = time.monotonic() + START_PATIENCE
    while not ended.is_set():
        with contextlib.suppress(httpx.TransportError):
            if await condition():
                return
        if time.monotonic() > give_up:
            raise DemoError(f"waited {START_PATIENCE:g} s in vain until {what}")
        await asyncio.sleep(0.1)


def free_ports(preferred: Sequence[int]) -> list[int]:
    """Return a free loopback port for each: the preferred one, or any where that is taken."""
    with contextlib.ExitStack() as stack:
        return [stack.enter_context(reserve(port)).getsockname()[1] for port in preferred]


def reserve(port: int) -> socket.socket:
    """Listen on a loopback port: this one, or any where it is taken."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError:
        return socket.create_server(("127.0.0.1", 0))
