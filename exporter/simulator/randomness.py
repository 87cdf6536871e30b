"""Reproducible random numbers: each depends on the seed and on its subject, and never on earlier draws.

So the order of events does not change their outcome.
"""

import hashlib
import struct
from typing import NamedTuple


class Draws(NamedTuple):
    """Three independent uniform random numbers, each from 0 (inclusive) to 1 (exclusive)."""

    first: float
    second: float
    third: float


class SeededRandom:
    """The random numbers of one engine."""

    def __init__(self, seed: int) -> None:
        self._key = hashlib.blake2b(str(seed).encode(), digest_size=32).digest()

    def draws(self, *subject: str | int) -> Draws:
        """Return the numbers for a subject, for example run, record and step; the same subject always gets the same."""
        first, second, third = _THREE_INTEGERS.unpack(self._digest(subject, _THREE_INTEGERS.size))
        return Draws((first >> 11) * _TO_SHARE, (second >> 11) * _TO_SHARE, (third >> 11) * _TO_SHARE)

    def name(self, prefix: str, *subject: str | int) -> str:
        """Return an opaque id such as `job_3f9a0c1d2e4b`."""
        return f"{prefix}_{self._digest(subject, 6).hex()}"

    def _digest(self, subject: tuple[str | int, ...], size: int) -> bytes:
        return hashlib.blake2b("\0".join(map(str, subject)).encode(), digest_size=size, key=self._key).digest()


_THREE_INTEGERS = struct.Struct("<QQQ")
_TO_SHARE = 2.0**-53  # a float holds 53 bits; with more, the largest draws would round up to 1
