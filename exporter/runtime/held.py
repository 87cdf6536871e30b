"""How much the reads of one runtime hold until they are applied, in bytes: one that holds too much fails, and no other.

A list is applied after its last page, since a read that fails must change nothing. So its pages are in memory until
then, and an API decides how many there are.
"""

import weakref
from collections.abc import Callable

from exporter.errors import ApiError

LEAST_PER_ITEM = 500
"""Bytes that an item of a list takes at least in memory, however short it is in a response."""


class HeldTooMuchError(ApiError):
    """A read held too much, and was refused."""


class HeldBytes:
    """What all reads of one runtime hold together."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._holdings: weakref.WeakSet[Holding] = weakref.WeakSet()
        self.total = 0

    def open(self, what: str) -> "Holding":
        """Begin to hold responses of a read; `what` names it in its error."""
        holding = Holding(self, what)
        self._holdings.add(holding)
        return holding

    def enforce(self) -> None:
        """Refuse the reads that hold the most until there is room, and not the one that needs a little more."""
        while self.total > self._limit:
            most = max(self._holdings, key=lambda each: each.size)
            most.refuse(f"{most.what}: what is read takes more than limits.read_bytes ({self._limit:,})")


class Holding:
    """What one read holds; a context manager that ends it."""

    def __init__(self, held: HeldBytes, what: str) -> None:
        self.what = what
        self.size = 0
        self._held = held
        self._drops: list[Callable[[], object]] = []
        self._error = ""

    def when_refused(self, drop: Callable[[], object]) -> None:
        """Call `drop` when the read holds too much; it drops what is held."""
        self._drops.append(drop)

    def add(self, size: int) -> None:
        """Hold a response of so many bytes. Raises `ApiError` as `check` does."""
        self.check()
        self.size += size
        self._held.total += size
        self._held.enforce()
        self.check()

    def check(self) -> None:
        """Raise `ApiError` if the read held too much, so that what it held was dropped."""
        if self._error:
            raise HeldTooMuchError(self._error)

    def release(self, size: int | None = None) -> None:
        """Note that so many bytes have been applied; by default all."""
        size = self.size if size is None else min(size, self.size)
        self._held.total -= size
        self.size -= size

    def refuse(self, error: str) -> None:
        """Drop what is held; the read fails with its next page."""
        self._error = error
        for drop in self._drops:
            drop()
        self.release()

    def close(self) -> None:
        """End it. One that nothing refers to any longer ends by itself."""
        self.release()

    __del__ = close

    def __enter__(self) -> "Holding":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
