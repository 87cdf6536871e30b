"""Whether a runtime has a list that only newer ones have, as its responses show."""

import math
from collections.abc import Callable

import structlog

from exporter.errors import ApiError
from exporter.runtime.client import ListTooLongError
from exporter.runtime.held import HeldTooMuchError
from exporter.runtime.http_client import PausedError, RefusedError, TransientError

log = structlog.get_logger(__name__)

RETRY_AFTER = 600.0
"""Seconds until a runtime that does not have the list is asked for it again: it may have been upgraded."""

RETRY_AFTER_FAILURE = 60.0
"""The same if it is not known whether the runtime has it, since it failed."""

MAX_FAILURES = 4
"""Failures in a row after which a list that could be read before counts as missing: it may fail for its length."""


class Availability:
    """What is known about one such list."""

    def __init__(
        self, monotonic: Callable[[], float], *, instead: str, lost: Callable[[], object] = lambda: None
    ) -> None:
        """`instead` says in the log what is read when the list is missing; `lost` is called when it has become so."""
        self._monotonic = monotonic
        self._instead = instead
        self._lost = lost
        self._retry_at = -math.inf
        self._failures = 0
        self.is_proven: bool | None = None
        """Whether the runtime has the list, as far as is known; None before it was asked."""

    @property
    def may_be_asked(self) -> bool:
        """Whether the runtime has the list, or may have it."""
        return self._monotonic() >= self._retry_at

    def note_success(self) -> None:
        """Note that the list could be read."""
        self.is_proven, self._failures = True, 0

    def is_missing(self, error: ApiError) -> bool:
        """Note an error of the list; return whether something else is to be read instead of it.

        Otherwise no other request would be answered, or it is better to try the list again.
        """
        if isinstance(error, ListTooLongError | HeldTooMuchError):
            return True
        is_refused = isinstance(error, RefusedError)
        if isinstance(error, PausedError) or (isinstance(error, RefusedError) and error.status == 401):
            return False
        if isinstance(error, TransientError) and not self.is_proven:
            self._retry_at = self._monotonic() + RETRY_AFTER_FAILURE
            return True
        self._failures += 1
        if self.is_proven and not is_refused and self._failures < MAX_FAILURES:
            return False
        self._retry_at = self._monotonic() + RETRY_AFTER
        if self.is_proven:
            log.info(self._instead, reason=str(error))
        self.is_proven, self._failures = False, 0
        self._lost()
        return True
