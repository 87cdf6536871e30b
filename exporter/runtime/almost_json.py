"""JSON as servers write it: a byte order mark, UTF-16, NaN, or half of a surrogate pair makes no response unreadable.

What is valid JSON is decoded by msgspec; only the rest takes the slower way.
"""

import json
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")


class TypedDecoder(Generic[T]):
    """Decodes bodies into one type. Raises `msgspec.MsgspecError`, `ValueError` or `RecursionError`."""

    def __init__(self, of: type[T]) -> None:
        self._type = of
        self._decoder = msgspec.json.Decoder(of)

    def decode(self, body: bytes | msgspec.Raw) -> T:
        """Decode a body."""
        try:
            return self._decoder.decode(body)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            return msgspec.convert(_leniently(body), self._type)


def document(body: bytes | msgspec.Raw) -> Any:
    """Decode a body into Python's own types; raises the same."""
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return _leniently(body)


def _leniently(body: bytes | msgspec.Raw) -> Any:
    return json.loads(bytes(body))
