"""One gzip stream joined from fragments that were compressed separately.

Most of a page is the same as at the last scrape, so its fragments keep their compressed form. Deflate blocks can be
concatenated; the checksum and the length of the whole are computed from those of the fragments
(https://www.rfc-editor.org/rfc/rfc1951, rfc1952). The result is a single gzip member: gzip allows several members, but
some clients read only the first.
"""

import dataclasses
import functools
import struct
import zlib
from collections.abc import Iterable

LEVEL = 1
"""On these pages higher levels cost several times as much CPU time and save a few percent."""


@dataclasses.dataclass(frozen=True, slots=True)
class GzipFragment:
    """Deflated bytes with the size and the checksum of the original."""

    deflated: bytes
    size: int
    """Bytes before compression."""
    crc: int

    @classmethod
    def of(cls, text: bytes | memoryview) -> "GzipFragment":
        """Compress some bytes."""
        if not text:
            return NOTHING
        deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        # A sync flush ends at a byte boundary, so that another fragment can follow.
        deflated = deflate.compress(text) + deflate.flush(zlib.Z_SYNC_FLUSH)
        return cls(deflated, len(text), zlib.crc32(text))

    @classmethod
    def joined(cls, fragments: Iterable["GzipFragment"]) -> "GzipFragment":
        """Concatenate fragments."""
        deflated = []
        size = crc = 0
        for fragment in fragments:
            deflated.append(fragment.deflated)
            size += fragment.size
            crc = _times(crc, _shift(fragment.size)) ^ fragment.crc if crc else fragment.crc
        return cls(b"".join(deflated), size, crc)

    def gzip(self) -> bytes:
        """Return a complete gzip stream."""
        return b"".join((_HEAD, self.deflated, _LAST_BLOCK, struct.pack("<II", self.crc, self.size & 0xFFFFFFFF)))


_HEAD = b"\x1f\x8b\x08\0\0\0\0\0\x04\xff"
_LAST_BLOCK = b"\x03\0"

# Checksums are polynomials over GF(2) with the lowest power in the highest bit: appending n bytes multiplies the
# checksum by x^(8n), modulo the polynomial of the CRC.
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
    """Return x^(8 * size), the factor by which appending that many bytes multiplies a checksum."""
    power, place = _ONE, 0
    while size:
        power = _times(_POWERS[place][size & 0xFF], power) if size & 0xFF else power
        size >>= 8
        place += 1
    return power


def _powers() -> tuple[tuple[int, ...], ...]:
    """Return x^(8 * n * 256^place) for each byte n of a number at each place."""
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
