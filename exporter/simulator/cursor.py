"""Cursors: the position where the next page of a list begins, signed so that foreign cursors are rejected."""

import base64
import binascii
import hashlib
import hmac
import struct

_POSITION = struct.Struct(">Q")
_SIGNATURE_SIZE = 7  # with the position 15 bytes: base64 without padding


class CursorError(ValueError):
    """A cursor that does not belong to this list."""


class Cursors:
    """Encodes and decodes the cursors of one server."""

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.blake2b(key, digest_size=32).digest()

    def write(self, scope: str, position: int) -> str:
        """Return the cursor for a position in a list; `scope` is the list with its filters."""
        encoded = _POSITION.pack(position)
        return base64.urlsafe_b64encode(encoded + self._sign(scope, encoded)).decode()

    def read(self, scope: str, cursor: str) -> int:
        """Return the position. Raises `CursorError` for a cursor of another list or another server."""
        try:
            raw = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
        except (UnicodeEncodeError, binascii.Error):
            raise CursorError from None
        encoded, signature = raw[: _POSITION.size], raw[_POSITION.size :]
        if not hmac.compare_digest(signature, self._sign(scope, encoded)):
            raise CursorError
        position: int = _POSITION.unpack(encoded)[0]
        return position

    def _sign(self, scope: str, encoded: bytes) -> bytes:
        return hashlib.blake2b(scope.encode() + b"\0" + encoded, digest_size=_SIGNATURE_SIZE, key=self._key).digest()
