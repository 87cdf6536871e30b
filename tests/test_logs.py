"""The log: what a line shows of an error."""

import io
import logging
from collections.abc import Iterator

import pytest
import structlog

from exporter import logs
from tests.command_line import _logging_restored


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    with _logging_restored():
        made = io.StringIO()
        logs.configure("info", "logfmt", made)
        yield made


SENT = "ann@example.com"


def _fail() -> None:
    try:
        int(SENT)
    except ValueError as error:
        raise RuntimeError(SENT) from error


def test_errors_that_led_to_each_other_are_told_once_each(stream: io.StringIO) -> None:
    one, other = ValueError(), KeyError()
    one.__cause__, other.__cause__ = other, one
    structlog.get_logger().warning("cannot read", exc_info=one)
    assert (stream.getvalue().count("ValueError"), stream.getvalue().count("KeyError")) == (1, 1)


def test_a_traceback_does_not_show_the_text_of_an_error(stream: io.StringIO) -> None:
    """It can quote what a server sent."""
    try:
        _fail()
    except RuntimeError as error:
        structlog.get_logger().warning("cannot read", exc_info=error)
        structlog.get_logger().exception("sync failed")
        logging.getLogger("asyncio").exception("of a library")
    written = stream.getvalue()
    assert written.count("\n") == 3
    assert written.replace("\\\\n", " ").count("ValueError  which led to:  Traceback (most recent call last):") == 3
    assert written.count("test_logs.py") >= 6
    assert SENT not in written
