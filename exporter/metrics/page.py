"""A page as the fragments that it consists of; a fragment that stays the same is compressed once."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence

from exporter.metrics.gzip_fragment import GzipFragment

PIECE = 1_000_000
"""Bytes of small fragments that are joined and sent together: a page of megabytes is never copied as a whole."""

LARGE = 200_000
"""Bytes from which a fragment is sent by itself: copying it would take longer than another send."""


class Fragment:
    """Text of a page, which never changes, and its compressed form once that is needed."""

    __slots__ = ("_gzip_fragment", "_sources", "text")

    def __init__(self, text: bytes, *, sources: Sequence["Fragment"] = ()) -> None:
        """`sources` are fragments whose joined text is `text`, and which may have been compressed already."""
        self.text: bytes | memoryview = text
        self._sources = sources
        self._gzip_fragment: GzipFragment | None = None

    @classmethod
    def joined(cls, fragments: Sequence["Fragment"]) -> "Fragment":
        """Join fragments. From now on they are views of the joined text, so that no text is in memory twice."""
        whole = cls(b"".join([fragment.text for fragment in fragments]), sources=fragments)
        view = memoryview(whole.text)
        start = 0
        for fragment in fragments:
            fragment.text = view[start : start + fragment.size]
            start += fragment.size
        return whole

    @property
    def size(self) -> int:
        """Bytes, uncompressed."""
        return len(self.text)

    @property
    def is_compressed(self) -> bool:
        """Whether the compressed form is cached."""
        return self._gzip_fragment is not None

    def gzip_fragment(self) -> GzipFragment:
        """Return the compressed form."""
        if self._gzip_fragment is None:
            if self._sources:
                self._gzip_fragment = GzipFragment.joined(source.gzip_fragment() for source in self._sources)
            else:
                self._gzip_fragment = GzipFragment.of(self.text)
        return self._gzip_fragment


class MetricsPage:
    """The response to a scrape."""

    def __init__(self, fragments: Iterable[Fragment]) -> None:
        self._fragments = [fragment for fragment in fragments if fragment.size]
        self.size = sum(fragment.size for fragment in self._fragments)
        """Bytes, uncompressed."""

    def pieces(self) -> Iterator[bytes]:
        """Yield the page in pieces: large fragments as they are, small ones joined."""
        small: list[bytes | memoryview] = []
        size = 0
        for fragment in self._fragments:
            is_large = fragment.size >= LARGE
            if small and (is_large or size >= PIECE):
                yield b"".join(small)
                small.clear()
                size = 0
            if is_large:
                yield bytes(fragment.text)  # no copy of what is bytes already
            else:
                small.append(fragment.text)
                size += fragment.size
        if small:
            yield b"".join(small)

    async def gzip(self) -> bytes:
        """Return the page as gzip; yields to other tasks after each fragment that is compressed for the first time."""
        for fragment in self._fragments:
            if not fragment.is_compressed:
                fragment.gzip_fragment()
                await asyncio.sleep(0)
        return GzipFragment.joined(fragment.gzip_fragment() for fragment in self._fragments).gzip()

    def __bytes__(self) -> bytes:
        return b"".join(self.pieces())

    def __str__(self) -> str:
        return bytes(self).decode()
