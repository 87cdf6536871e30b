"""A response's body: read whole, decompressed, and limited in size, since a small one can decompress to any size."""

import re
import zlib
from typing import Protocol

import httpx


class BodyError(Exception):
    """A body that cannot be read completely. The text never quotes it."""


class TooLargeError(BodyError):
    """A body that is larger than the limit."""


async def read_body(response: httpx.Response, limit: int) -> bytes:
    """Read and decompress a body. `limit` bytes apply to what is sent and to what it decompresses to."""
    decoder = _decoder_of(response.headers.get("Content-Encoding", ""))
    parts: list[bytes] = []
    received = size = 0
    async for chunk in response.aiter_raw():
        received += len(chunk)
        part = decoder.decode(chunk, limit - size + 1)
        size += len(part)
        if max(received, size) > limit:
            raise TooLargeError(f"the response is larger than limits.body_bytes ({limit})")
        parts.append(part)
    if received:
        decoder.finish()
    return b"".join(parts)


class _Decoder(Protocol):
    def decode(self, chunk: bytes, most: int) -> bytes:
        """Decode the next chunk; what is longer than `most` bytes is cut."""

    def finish(self) -> None:
        """Raise `BodyError` unless the body is complete."""


def _decoder_of(header: str) -> _Decoder:
    codings = [coding for each in header.lower().split(",") if (coding := each.strip()) not in ("", "identity")]
    if not codings:
        return _Identity()
    if codings in (["gzip"], ["x-gzip"]):
        return _Gzip()
    if codings == ["deflate"]:
        return _Deflate()
    named = ", ".join(codings)
    shown = f": {named}" if re.fullmatch(r"[a-z0-9, -]{1,40}", named) else ""
    raise BodyError(f"the response has an encoding that was not requested{shown}")


class _Identity:
    def decode(self, chunk: bytes, most: int) -> bytes:
        return chunk

    def finish(self) -> None:
        pass


class _Gzip:
    """One or more gzip members, which are one body (RFC 9110, RFC 1952)."""

    def __init__(self) -> None:
        self._member: zlib._Decompress | None = _gzip_member()
        self._is_first = True
        self._empty = 0
        self._is_empty = True

    def decode(self, chunk: bytes, most: int) -> bytes:
        parts: list[bytes] = []
        # What is behind a member is copied; with small pieces that takes no long time, however many members there are.
        step = len(chunk) if self._is_first else _PIECE
        for start in range(0, len(chunk), step):
            piece = chunk[start : start + step]
            while piece and most > 0:
                part, piece = self._decompress(piece, most)
                parts.append(part)
                most -= len(part)
        return b"".join(parts)

    def finish(self) -> None:
        if self._member is not None:
            raise BodyError("the response is truncated")

    def _decompress(self, chunk: bytes, most: int) -> tuple[bytes, bytes]:
        """Return what a member decompresses to, and what is behind its end."""
        if self._member is None:
            if not chunk.startswith(_GZIP):
                raise BodyError("the response has trailing data after its gzip stream")
            self._member, self._is_first = _gzip_member(), False
        try:
            part = self._member.decompress(chunk, most)
        except zlib.error:
            raise BodyError("the response is not valid gzip") from None
        self._is_empty = self._is_empty and not part
        if len(part) >= most or not self._member.eof:
            return part, b""
        self._empty += self._is_empty
        if self._empty > _EMPTY_MEMBERS:
            raise BodyError("the response consists of empty gzip members")
        rest = self._member.unused_data
        self._member, self._is_empty = None, True
        return part, rest


_GZIP = b"\x1f"
"""The first byte of each member."""

_PIECE = 4096

_EMPTY_MEMBERS = 100
"""More than any server writes; an endless row of them would never reach the limit of a body's size."""


def _gzip_member() -> "zlib._Decompress":
    return zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)


class _Deflate:
    """The zlib format, or raw deflate, which some servers send under the same name."""

    def __init__(self) -> None:
        self._start = b""
        self._stream: zlib._Decompress | None = None

    def decode(self, chunk: bytes, most: int) -> bytes:
        if self._stream is None:
            self._start += chunk
            if len(self._start) < 2:
                return b""
            chunk = self._start
            is_zlib = chunk[0] & 15 == 8 and int.from_bytes(chunk[:2], "big") % 31 == 0
            self._stream = zlib.decompressobj(wbits=zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS)
        try:
            part = self._stream.decompress(chunk, most)
        except zlib.error:
            raise BodyError("the response is not valid deflate") from None
        if self._stream.unused_data:
            raise BodyError("the response has trailing data after its deflate stream")
        return part

    def finish(self) -> None:
        if self._stream is None or not self._stream.eof:
            raise BodyError("the response is truncated")
