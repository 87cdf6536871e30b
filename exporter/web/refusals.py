"""Log lines about clients that are refused: one when that begins and one when it is over, however many they are."""

from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

CALM = 60.0
"""Seconds without a refusal after which it is over."""


class Refusals:
    """Refusals of one kind."""

    def __init__(self, begun: str, over: str, clock: Callable[[], float]) -> None:
        """`begun` and `over` are the texts of the two lines; `clock` is monotonic, in seconds."""
        self._begun = begun
        self._over = over
        self._clock = clock
        self._last = 0.0
        self._count = 0

    def note(self, reason: str, client: str) -> None:
        """Note a refusal, and the client that causes most of them."""
        self._last = self._clock()
        self._count += 1
        if self._count == 1:
            log.warning(self._begun, reason=reason, top_client=client)

    def note_calm(self) -> None:
        """Note that a client was not refused."""
        if self._count and self._clock() - self._last >= CALM:
            log.info(self._over, times=self._count)
            self._count = 0
