"""Writes samples with given times into a real Prometheus, over the remote-write protocol.

Prometheus scrapes at the present time only. What it would have scraped over hours is written here instead, with the
staleness markers that it would have added, so that its answers are those to a history of hours.
"""

import functools
import struct
from collections.abc import Iterable, Mapping

from tests.unknown.connection import Connection

STALE: float = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
"""The value with which Prometheus marks the end of a series (`value.StaleNaN`)."""

Labels = tuple[tuple[str, str], ...]
"""Names and values of labels, sorted by name, with `__name__`."""


class RemoteWriter:
    """Collects samples; `flush` sends them."""

    def __init__(self, prometheus_url: str) -> None:
        self._connection = Connection(prometheus_url)
        self._pending: dict[Labels, list[tuple[int, float]]] = {}

    def add(self, labels: Labels, time: float, value: float) -> None:
        """Add one sample; `time` is in seconds."""
        self._pending.setdefault(labels, []).append((round(time * 1000), value))

    def flush(self) -> None:
        """Send what was added."""
        if not self._pending:
            return
        body = _snappy(b"".join(_field(1, _series(labels, samples)) for labels, samples in self._pending.items()))
        self._pending.clear()
        status, answer = self._connection.post(
            "/api/v1/write",
            body,
            {
                "Content-Type": "application/x-protobuf",
                "Content-Encoding": "snappy",
                "X-Prometheus-Remote-Write-Version": "0.1.0",
            },
        )
        assert status in (200, 204), f"Prometheus refuses samples: {status} {answer!r}"

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def labels_of(name: str, labels: Mapping[str, str]) -> Labels:
    """Return the labels of a series; Prometheus treats an empty value as an absent label."""
    return tuple(sorted({"__name__": name, **{key: value for key, value in labels.items() if value}}.items()))


def _series(labels: Labels, samples: Iterable[tuple[int, float]]) -> bytes:
    points = b"".join(
        _field(2, b"\x09" + struct.pack("<d", value) + b"\x10" + _varint(time)) for time, value in samples
    )
    return _encoded(labels) + points


@functools.lru_cache(maxsize=100_000)
def _encoded(labels: Labels) -> bytes:
    return b"".join(_field(1, _field(1, name.encode()) + _field(2, value.encode())) for name, value in labels)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


# Most are lengths, or the time of all samples of a scrape.
@functools.lru_cache(maxsize=10_000)
def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _snappy(content: bytes) -> bytes:
    """Return snappy's block format without compression: literals of at most 64 KiB."""
    parts = [_varint(len(content))]
    for start in range(0, len(content), 65536):
        chunk = content[start : start + 65536]
        parts.append(bytes([61 << 2]) + struct.pack("<H", len(chunk) - 1) + chunk)
    return b"".join(parts)
