"""A queue of events, ordered by scenario time."""

import heapq
import itertools
from collections.abc import Callable
from typing import Any


class EventQueue:
    """Events, each with the time at which it is due. `now` is the time of the current event."""

    def __init__(self, now: float) -> None:
        self.now = now
        self._entries: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._order = itertools.count()

    @property
    def next_due(self) -> float:
        """When the next event is due; infinity if there is none."""
        return self._entries[0][0] if self._entries else float("inf")

    def schedule(self, due: float, action: Callable[..., object], *arguments: Any) -> None:
        """Call `action` at `due`, or now if `due` has passed. Events with the same time run in order of scheduling."""
        heapq.heappush(self._entries, (max(due, self.now), next(self._order), action, arguments))

    def run_until(self, end: float) -> None:
        """Run all events that are due up to and including `end`, also new ones; then set `now` to `end`."""
        entries = self._entries
        while entries and entries[0][0] <= end:
            self.now, _, action, arguments = heapq.heappop(entries)
            action(*arguments)
        self.now = max(self.now, end)
