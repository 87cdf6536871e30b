"""What is to happen next, in order of story time."""

import heapq
import itertools
from collections.abc import Callable
from typing import Any


class EventQueue:
    """Things to do, each at its time. Its `now` is the time of what is being done."""

    def __init__(self, now: float) -> None:
        self.now = now
        self._entries: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._order = itertools.count()

    @property
    def next_due(self) -> float:
        """When the next thing is to happen; infinity when nothing is."""
        return self._entries[0][0] if self._entries else float("inf")

    def at(self, due: float, action: Callable[..., object], *arguments: Any) -> None:
        """Have `action` called at `due`, or next if that has gone by; of two at one time the first asked for."""
        heapq.heappush(self._entries, (max(due, self.now), next(self._order), action, arguments))

    def play_until(self, end: float) -> None:
        """Do everything that is due up to and including `end`, also what comes up on the way; then it is `end`."""
        entries = self._entries
        while entries and entries[0][0] <= end:
            self.now, _, action, arguments = heapq.heappop(entries)
            action(*arguments)
        self.now = max(self.now, end)
