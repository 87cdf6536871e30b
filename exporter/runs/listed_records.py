"""Which records of a run are in flight or wait: as they were last read, and what of it is kept."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal, Self

import msgspec

from exporter.runtime.model import OpenRecord

RecordKind = Literal["in flight", "waiting"]
"""Records that a silent run works on, or records of any run that wait for a person, a time or something else."""

OTHER_STEPS = "other"
"""Stands for the steps that are not named."""


class ListedRecords(msgspec.Struct, frozen=True, gc=False):
    """The records of one kind of a run, as they were last read."""

    named: tuple[OpenRecord, ...] = ()
    """Those that began first, or have waited the longest, at most `limits.failed_records_per_run`."""
    by_step: tuple[tuple[str, int], ...] = ()
    """How many are at each step: the largest groups, the others as `other`. Empty unless the whole list was read."""
    oldest_at: float | None = None
    """When the first of them began, or began to wait; None unless the whole list was read and each tells it."""
    first_at: float | None = None
    """The same of those that are named, as far as it is told."""

    @classmethod
    def of(
        cls, kind: RecordKind, records: Sequence[OpenRecord], *, is_whole: bool, most_named: int, most_steps: int
    ) -> Self:
        """Return what is kept of these records; `is_whole`: whether there are no others."""
        unique = tuple({record.id: record for record in records}.values())
        named = sorted(unique, key=lambda record: (_or_infinite(_since(kind, record)), record.id))[:most_named]
        starts = [_since(kind, record) for record in unique]
        known = [at for at in starts if at is not None]
        return cls(
            tuple(named),
            _by_step(unique, most_steps) if is_whole else (),
            # What is unknown can have begun earlier, so that the oldest would look younger than it is.
            min(known, default=None) if is_whole and len(known) == len(starts) else None,
            _since(kind, named[0]) if named else None,
        )

    def trimmed(self, most: int) -> Self:
        """Return it with at most so many named records."""
        return msgspec.structs.replace(self, named=self.named[:most])


def _since(kind: RecordKind, record: OpenRecord) -> float | None:
    """Return when a record began; of one that waits, when it came to the step at which it waits."""
    return record.step_started_at if kind == "waiting" else record.started_at


def _or_infinite(at: float | None) -> float:
    return math.inf if at is None else at


def _by_step(records: Sequence[OpenRecord], most: int) -> tuple[tuple[str, int], ...]:
    """Return how many records are at each step; none at all are 0 at a step without a name."""
    counted = Counter(record.step for record in records)
    rest = counted.pop(OTHER_STEPS, 0)
    largest = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    groups = dict(largest[:most])
    rest += sum(count for _, count in largest[most:])
    if rest:
        groups[OTHER_STEPS] = rest
    return tuple(groups.items()) or (("", 0),)
