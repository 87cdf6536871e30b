"""Commands of the exporter in the process of the test: an interpreter for each would take most of the time."""

import contextlib
import dataclasses
import io
import logging
from collections.abc import Iterator

import structlog

from exporter import cli


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def run(*arguments: str) -> Ended:
    """Run a command until it ends. A traceback is raised here, since the interpreter would print it."""
    stdout, stderr, status = io.StringIO(), io.StringIO(), 0
    with _logging_restored(), contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            cli.main(arguments)
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    return Ended(status, stdout.getvalue(), stderr.getvalue())


@contextlib.contextmanager
def _logging_restored() -> Iterator[None]:
    """A command configures logging for its process."""
    names = (None, "httpx", "httpcore", "uvicorn", "asyncio")
    levels = {name: logging.getLogger(name).level for name in names}
    handlers = logging.root.handlers[:]
    # `basicConfig(force=True)` closes the handlers that it replaces.
    logging.root.handlers.clear()
    try:
        yield
    finally:
        logging.root.handlers[:] = handlers
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        structlog.reset_defaults()
