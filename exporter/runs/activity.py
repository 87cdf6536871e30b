"""What the records in flight of a silent run show: whether anything happens although no record finishes.

Activity is not progress. It moves the page, but only so far: a record can be tried again for ever, and records can
begin for ever of which none ends. What could not be read shows nothing.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import msgspec

from exporter.runs.pace import Expectation
from exporter.runs.run import AHEAD
from exporter.runtime.model import OpenRecord

MOVED_FACTOR = 2.0
"""Activity can move the page to this many times the threshold if a record went on to its next step.

A spinner has a few steps, so a record that goes on comes to an end. But steps can be repeated, and a run with a gap of
twice what is plausible is late even if it is alive. Three times avoids no further page in the replay.
"""

TRIED_FACTOR = 1.5
"""The same if records only began or were tried again, which can go on for ever."""

PICKUP = 60.0
"""Seconds after a record has finished in which the next one begins.

One that begins later in a silence takes no finished one's place. That it goes on counts as little as that it began.
"""


class Activity(msgspec.Struct, frozen=True):
    """When something last happened to the records in flight of a run, by the runtime's clock; None: nothing known."""

    moved_at: float | None = None
    """When one last went on to another step."""
    tried_at: float | None = None
    """When one last began or was tried again."""
    is_working: bool = False
    """Whether any were in progress when they were last read."""
    youngest_at: float | None = None
    """When the one of these that began last did; None unless the start of each is known."""

    @property
    def last_at(self) -> float | None:
        """When either of the two last happened."""
        return max((at for at in (self.moved_at, self.tried_at) if at is not None), default=None)

    def merged(self, other: Self) -> Self:
        """Return the later times of both, and otherwise what the other one says, which was read later."""
        moved, tried = _later(self.moved_at, other.moved_at), _later(self.tried_at, other.tried_at)
        return type(self)(moved, tried, other.is_working, other.youngest_at)

    def not_ahead_of(self, now: float) -> Self:
        """Return it for a runtime whose clock was set back to `now`: what was seen is not yet to come."""
        moved, tried, youngest = (
            None if at is None else min(at, now) for at in (self.moved_at, self.tried_at, self.youngest_at)
        )
        return type(self)(moved, tried, self.is_working, youngest)

    def allows(self, seconds: float, since: float) -> float:
        """Return the threshold `seconds` of a silence since `since`, counted from the activity as far as it may be."""
        allowed = [seconds]
        for at, factor in ((self.moved_at, MOVED_FACTOR), (self.tried_at, TRIED_FACTOR)):
            if at is not None:
                allowed.append(min(seconds + max(at - since, 0.0), factor * seconds))
        return max(allowed)

    def extended(self, expectation: Expectation, since: float, ceiling: float) -> Expectation:
        """Return which silence since `since` counts as a stall in view of the activity; at most the ceiling."""
        page = min(self.allows(expectation.page, since), max(ceiling, expectation.page))
        straggler = expectation.straggler
        if straggler is not None:
            straggler = min(self.allows(straggler, since), max(ceiling, straggler))
        if (page, straggler) == (expectation.page, expectation.straggler):
            return expectation
        return msgspec.structs.replace(expectation, page=page, straggler=straggler)


def _later(one: float | None, other: float | None) -> float | None:
    return max((at for at in (one, other) if at is not None), default=None)


class _Place(NamedTuple):
    """Where a record was in one read."""

    step: str | int
    attempts: int | None
    since: float | None
    """When the step began, as it was first told."""


class Seen:
    """The records of a run in one read, to compare the next read with."""

    __slots__ = ("is_whole", "places")

    def __init__(self, places: Mapping[int, _Place] | None = None, *, is_whole: bool = False) -> None:
        """`places` are those of the records by hashes of their ids, which take a fraction of their memory."""
        self.places = places or {}
        self.is_whole = is_whole

    def followed_by(self, records: Sequence[OpenRecord], *, is_whole: bool) -> "Seen":
        """Return what is known after the next read; `is_whole`: whether there are no other records."""
        places: dict[int, _Place] = {}
        for record in records:
            key, place = hash(record.id), _place(record)
            known = self.places.get(key)
            if known is not None and known.step == place.step and known.since is not None:
                place = place._replace(since=known.since)
            places[key] = place
        return Seen(places, is_whole=is_whole)

    def activity_until(self, records: Sequence[OpenRecord], now: float, since: float, *, is_whole: bool) -> Activity:
        """Return what a later read shows of a silence since `since`; `now` is the runtime's time of it.

        `is_whole`: whether there are no other records.

        What has no time of its own happened between the two reads; the time of the later one is taken. A time that is
        yet to come says nothing.
        """
        shown = [self._activity(record, now, since + PICKUP) for record in records]
        moved = (each.moved_at for each in shown if each.moved_at is not None)
        tried = (each.tried_at for each in shown if each.tried_at is not None)
        began = [_past(record.started_at, now) for record in records] if is_whole else []
        youngest = max((at for at in began if at is not None), default=None) if None not in began else None
        return Activity(max(moved, default=None), max(tried, default=None), bool(records), youngest)

    def _activity(self, record: OpenRecord, now: float, begun_by: float) -> Activity:
        known, place = self.places.get(hash(record.id)), _place(record)
        began, reached = (_past(at, now) for at in (record.started_at, record.step_started_at))
        tried_at, is_moved = began, began is not None and reached is not None and reached > began
        if known is None:
            if (record.started_at, record.step_started_at) == (None, None) and self.is_whole:
                # Of a list that was read in part, a record can have been in the other part.
                tried_at = now
        elif known.step != place.step:
            reached, is_moved = now if record.step_started_at is None else reached, True
        else:
            if known.attempts is not None and place.attempts is not None and place.attempts > known.attempts:
                tried_at = now
            # Some runtimes tell when the last attempt at the step began instead of the first.
            is_moved = is_moved and known.since in (None, place.since)
        if is_moved and began is not None and began <= begun_by:
            return Activity(reached, tried_at)
        return Activity(tried_at=_later(tried_at, reached))


def _place(record: OpenRecord) -> _Place:
    step = record.step if record.step_number is None else record.step_number
    return _Place(step, record.attempts, record.step_started_at)


def _past(at: float | None, now: float) -> float | None:
    return None if at is None or at > now + AHEAD else min(at, now)
