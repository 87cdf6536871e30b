"""A page as the parts that it is made of: joined for whoever reads it, deflated once where they stay the same."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence

from exporter.metrics.squeeze import Squeezed

CHUNK = 1_000_000
"""Bytes that are joined and sent at once: a page of megabytes is not copied as a whole."""


class Part:
    """Some text of a page, which never changes."""

    __slots__ = ("_of", "_squeezed", "size", "texts")

    def __init__(self, *texts: bytes, of: Sequence["Part"] = ()) -> None:
        """Make a part of its own texts, or `of` other parts."""
        self.texts: tuple[bytes, ...] = texts or tuple(text for part in of for text in part.texts)
        self.size = sum(map(len, self.texts))
        self._of = of
        self._squeezed: Squeezed | None = None

    @property
    def is_squeezed(self) -> bool:
        """Whether it has been deflated."""
        return self._squeezed is not None

    def squeezed(self) -> Squeezed:
        """Return its deflated form."""
        if self._squeezed is None:
            if self._of:
                self._squeezed = Squeezed.joined(part.squeezed() for part in self._of)
            else:
                self._squeezed = Squeezed.of(b"".join(self.texts))
        return self._squeezed


class Page:
    """What a scrape is answered with."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self._parts = [part for part in parts if part.size]
        self.size = sum(part.size for part in self._parts)
        """Bytes."""

    def chunks(self) -> Iterator[bytes]:
        """Yield it in pieces of about a megabyte."""
        held: list[bytes] = []
        size = 0
        for part in self._parts:
            for text in part.texts:
                held.append(text)
                size += len(text)
                if size >= CHUNK:
                    yield b"".join(held)
                    held.clear()
                    size = 0
        yield b"".join(held)

    async def gzip(self) -> bytes:
        """Return it as gzip; lets others have their turn between parts that are deflated for the first time."""
        for part in self._parts:
            if not part.is_squeezed:
                part.squeezed()
                await asyncio.sleep(0)
        return Squeezed.joined(part.squeezed() for part in self._parts).gzip()

    def __bytes__(self) -> bytes:
        return b"".join(self.chunks())

    def __str__(self) -> str:
        return bytes(self).decode()
