"""Runs jobs in forked processes: each inherits the imported libraries, and changes nothing in the parent."""

import contextlib
import functools
import os
import selectors
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

CRASH = 99
"""The exit code of a job that raises an exception."""


@dataclass(frozen=True)
class Job:
    """What a child does, and for how long."""

    name: str
    run: Callable[[Callable[[str], None], Path], int]
    """Gets a function that reports the next step and a folder of its own; returns an exit code."""
    limit: Callable[[str], float]
    """Seconds that a step may take. The first step, before any report, is the empty string."""


@dataclass(frozen=True)
class Ended:
    """A job that is done."""

    job: Job
    code: int | None
    """The exit code, negative for a signal; None if a step took too long."""
    step: str
    folder: Path

    @property
    def output(self) -> str:
        return (self.folder / "output").read_text(errors="replace")


class Child:
    def __init__(self, job: Job, folder: Path) -> None:
        self.job = job
        self.folder = folder
        self.step = ""
        self.pipe, write = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.pipe)
            become(job, folder, write)
        os.close(write)
        # Here as well as in the child, so that the group exists whichever of the two comes first.
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpgid(self.pid, self.pid)
        self.deadline = time.monotonic() + job.limit("")

    def read(self) -> bool:
        """Read what the child reports; return False at its end."""
        received = os.read(self.pipe, 65536)
        if received:
            self.step = received.decode().splitlines()[-1]
            self.deadline = time.monotonic() + self.job.limit(self.step)
        return bool(received)

    def end(self, *, kill: bool) -> int:
        """Wait for the child, end every process that it started, and return its exit code."""
        if kill:
            self.kill_group()
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.kill_group()
        os.close(self.pipe)
        return code

    def kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def become(job: Job, folder: Path, write: int) -> None:
    """Run the job in this process, which ends with it."""
    code = CRASH
    try:
        os.setpgid(0, 0)
        output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        code = job.run(functools.partial(report, write), folder)
    except BaseException:  # noqa: BLE001 - whatever it is, this process must not go on as the parent
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def report(pipe: int, step: str) -> None:
    os.write(pipe, f"{step}\n".encode())


def run_all(jobs: Iterable[Job], workers: int) -> Iterator[Ended]:
    """Run jobs in `workers` processes. Yields each when it ends; its folder lasts until the next one."""
    waiting = iter(jobs)
    running: set[Child] = set()
    with tempfile.TemporaryDirectory(prefix="mutants-") as temporary, selectors.DefaultSelector() as selector:
        try:
            while True:
                while len(running) < workers and (job := next(waiting, None)) is not None:
                    folder = Path(tempfile.mkdtemp(dir=temporary))
                    child = Child(job, folder)
                    running.add(child)
                    selector.register(child.pipe, selectors.EVENT_READ, child)
                if not running:
                    return
                patience = min(child.deadline for child in running) - time.monotonic()
                ready = {key.data for key, _ in selector.select(max(0.0, patience))}
                for child in list(running):
                    late = child not in ready and time.monotonic() > child.deadline
                    if late or (child in ready and not child.read()):
                        selector.unregister(child.pipe)
                        running.remove(child)
                        code = child.end(kill=late)
                        yield Ended(child.job, None if late else code, child.step, child.folder)
                        shutil.rmtree(child.folder, ignore_errors=True)
        finally:
            for child in running:
                child.end(kill=True)
