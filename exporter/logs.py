"""Logging: one event with fields per line, on standard error, as logfmt or JSON."""

import logging
import sys
import traceback
from typing import TextIO

import structlog


def configure(level: str, form: str, stream: TextIO | None = None) -> None:
    """Configure the exporter's events and those of libraries. `form` is logfmt or json."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        _traceback,
        structlog.processors.EventRenamer("msg"),
    ]
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.processors.LogfmtRenderer(key_order=("ts", "level", "msg"), bool_as_flag=False)
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _as_text, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=_LEVELS[level], force=True)
    # At level info they repeat the exporter's own events, and httpx logs URLs.
    for library in ("httpx", "httpcore"):
        logging.getLogger(library).setLevel(logging.WARNING)
    # Their warnings are about what a client did, one line for each request: it could fill the disk.
    for library in ("uvicorn", "asyncio"):
        logging.getLogger(library).setLevel(logging.ERROR)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}


def _traceback(logger: object, method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """Replace an error by its traceback, without its text, which can quote what a server sent."""
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    elif isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event["exception"] = "\nwhich led to:\n\n".join(_told(each) for each in reversed(_chain(error))).rstrip()
    return event


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and those that led to it, each once, the newest first."""
    chain = [error]
    while True:
        newest = chain[-1]
        before = newest.__cause__ or (None if newest.__suppress_context__ else newest.__context__)
        if before is None or any(before is each for each in chain):
            return chain
        chain.append(before)


def _told(error: BaseException) -> str:
    lines = "".join(traceback.format_tb(error.__traceback__))
    return f"Traceback (most recent call last):\n{lines}{type(error).__qualname__}\n"


def _as_text(logger: object, method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """Escape line breaks, which logfmt does not allow in values."""
    return {key: value.replace("\n", "\\n") if isinstance(value, str) else value for key, value in event.items()}
