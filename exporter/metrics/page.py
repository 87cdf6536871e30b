"""A page as the parts that it is made of: joined for whoever reads it, deflated once where they stay the same."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence

from exporter.metrics.gzip_fragment import GzipFragment

CHUNK = 1_000_000
"""Bytes that are joined and sent at once: a page of megabytes is not copied as a whole."""

ALONE = 200_000
"""Bytes from which a part is sent by itself: to copy them would take longer than to send once more."""


class Part:
    """Some text of a page, which never changes."""

    __slots__ = ("_gzip_fragment", "_of", "text")

    def __init__(self, text: bytes, *, of: Sequence["Part"] = ()) -> None:
        """`of` are parts that have the same text together, and may have been deflated."""
        self.text: bytes | memoryview = text
        self._of = of
        self._gzip_fragment: GzipFragment | None = None

    @classmethod
    def joined(cls, parts: Sequence["Part"]) -> "Part":
        """Return what the parts are, one after the other. They share its text from now on: none is held twice."""
        whole = cls(b"".join([part.text for part in parts]), of=parts)
        view = memoryview(whole.text)
        start = 0
        for part in parts:
            part.text = view[start : start + part.size]
            start += part.size
        return whole

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.text)

    @property
    def is_compressed(self) -> bool:
        """Whether it has been deflated."""
        return self._gzip_fragment is not None

    def gzip_fragment(self) -> GzipFragment:
        """Return its deflated form."""
        if self._gzip_fragment is None:
            if self._of:
                self._gzip_fragment = GzipFragment.joined(part.gzip_fragment() for part in self._of)
            else:
                self._gzip_fragment = GzipFragment.of(self.text)
        return self._gzip_fragment


class MetricsPage:
    """What a scrape is answered with."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self._parts = [part for part in parts if part.size]
        self.size = sum(part.size for part in self._parts)
        """Bytes."""

    def chunks(self) -> Iterator[bytes]:
        """Yield it in pieces: large parts as they are, small ones joined."""
        held: list[bytes | memoryview] = []
        size = 0
        for part in self._parts:
            is_large = part.size >= ALONE
            if held and (is_large or size >= CHUNK):
                yield b"".join(held)
                held.clear()
                size = 0
            if is_large:
                yield bytes(part.text)  # which copies nothing of what is bytes already
            else:
                held.append(part.text)
                size += part.size
        if held:
            yield b"".join(held)

    async def gzip(self) -> bytes:
        """Return it as gzip; lets others have their turn between parts that are deflated for the first time."""
        for part in self._parts:
            if not part.is_compressed:
                part.gzip_fragment()
                await asyncio.sleep(0)
        return GzipFragment.joined(part.gzip_fragment() for part in self._parts).gzip()

    def __bytes__(self) -> bytes:
        return b"".join(self.chunks())

    def __str__(self) -> str:
        return bytes(self).decode()
