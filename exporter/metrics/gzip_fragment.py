"""Compressed once and joined for ever: one gzip stream out of parts that were deflated apart.

A page is mostly what it was at the last scrape, so its parts keep their deflated form. Deflate blocks can stand one
after the other; what has to be said of the whole, a checksum and a length, is computed from those of the parts
(https://www.rfc-editor.org/rfc/rfc1951, rfc1952). So the page is one gzip member, which every client reads; of several
members in a row, which the standard allows too, some read the first alone.
"""

import dataclasses
import functools
import struct
import zlib
from collections.abc import Iterable

LEVEL = 1
"""On these pages the higher ones cost several times as much for a few percent."""


@dataclasses.dataclass(frozen=True, slots=True)
class GzipFragment:
    """Deflated bytes, and what a checksum over more than them needs to know."""

    deflated: bytes
    size: int
    """Bytes before."""
    crc: int

    @classmethod
    def of(cls, text: bytes | memoryview) -> "GzipFragment":
        """Deflate some bytes."""
        if not text:
            return NOTHING
        deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        # Flushed to the end of a byte, so that another part can follow.
        deflated = deflate.compress(text) + deflate.flush(zlib.Z_SYNC_FLUSH)
        return cls(deflated, len(text), zlib.crc32(text))

    @classmethod
    def joined(cls, parts: Iterable["GzipFragment"]) -> "GzipFragment":
        """Return what the parts are, one after the other."""
        deflated = []
        size = crc = 0
        for part in parts:
            deflated.append(part.deflated)
            size += part.size
            crc = _times(crc, _shift(part.size)) ^ part.crc if crc else part.crc
        return cls(b"".join(deflated), size, crc)

    def gzip(self) -> bytes:
        """Return them as a whole gzip stream."""
        return b"".join((_HEAD, self.deflated, _LAST_BLOCK, struct.pack("<II", self.crc, self.size & 0xFFFFFFFF)))


_HEAD = b"\x1f\x8b\x08\0\0\0\0\0\x04\xff"
_LAST_BLOCK = b"\x03\0"

# Checksums are polynomials over GF(2), the lowest power in the highest bit: as many bytes more multiply what came
# before by x^(8n), modulo the polynomial of the CRC.
_POLYNOMIAL = 0xEDB88320
_ONE = 1 << 31
NOTHING = GzipFragment(b"", 0, 0)


def _times(one: int, other: int) -> int:
    product = 0
    while other:
        if other & _ONE:
            product ^= one
        one = one >> 1 ^ _POLYNOMIAL if one & 1 else one >> 1
        other = other << 1 & 0xFFFFFFFF
    return product


@functools.lru_cache(maxsize=10_000)
def _shift(size: int) -> int:
    """Return x^(8 * size): the factor that as many bytes more are to the checksum before them."""
    power, place = _ONE, 0
    while size:
        power = _times(_POWERS[place][size & 0xFF], power) if size & 0xFF else power
        size >>= 8
        place += 1
    return power


def _powers() -> tuple[tuple[int, ...], ...]:
    """Return x^(8 * n * 256^place) for each place of a number and each n of one byte."""
    places = []
    step = 1 << 23  # x^8
    for _ in range(5):
        row = [_ONE]
        for _ in range(255):
            row.append(_times(row[-1], step))
        places.append(tuple(row))
        step = _times(row[-1], step)
    return tuple(places)


_POWERS = _powers()
