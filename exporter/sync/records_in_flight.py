"""Reads what silent runs work on, within a budget of requests, before their silence pages.

Nothing is read while no run has been silent for half of what counts as a stall. A list that cannot be read shows
nothing, and costs no project its `up`.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from exporter.config import Config
from exporter.runs.activity import Seen
from exporter.runs.store import Store
from exporter.runs.view import SilentRun
from exporter.runs.watch import Key
from exporter.runtime.client import RuntimeClient
from exporter.runtime.model import OpenRecord
from exporter.sync.problems import ProblemLog
from exporter.sync.record_lists import RecordLists, Result

MAX_SECONDS = 3.0
"""Seconds that one sync may wait for these lists: less than a scrape waits for a sync."""

PROJECTS_PER_SLICE = 200
"""Projects with open runs that are searched in one time slice: about a millisecond if none is silent."""

RUNS_PER_SLICE = 100
"""Silent runs whose thresholds are computed in one time slice: about a millisecond."""

MAX_SEEN = 50_000
"""Records of all runs that are remembered, to compare the next read with."""

SHARE_OF_REST = 1 / 8
"""A run is read again after this part of the time that is left until it counts as stalled."""

AFTER_STALL = 60.0
"""Seconds after which a run that counts as stalled is read again: its page says what it works on."""


class RecordsInFlightObserver(Protocol):
    """Receives what became of each list that was due."""

    def records_in_flight(self, result: Result, count: int = 1) -> None:
        """`count` lists were read, could not be read, or were left for a later sync."""


class RecordsInFlightReader:
    """Reads records in flight; several stores can share one, and with it the budget."""

    def __init__(
        self,
        client: RuntimeClient,
        config: Config,
        problems: ProblemLog,
        observer: RecordsInFlightObserver,
        *,
        monotonic: Callable[[], float],
    ) -> None:
        """`monotonic` is our clock."""
        self._client = client
        self._config = config
        self._monotonic = monotonic
        self._lists = RecordLists(
            "records in flight",
            client.records_in_flight,
            problems,
            most_requests=config.limits.record_in_flight_requests,
            concurrency=config.sync.concurrency,
            noted=observer.records_in_flight,
            monotonic=monotonic,
        )
        self._last: dict[Key, _LastRead] = {}
        """The silent runs that were read, the one that was read first is first."""

    def begin(self) -> None:
        """Begin a sync, or another round of probes, with a full budget."""
        self._lists.begin()

    def forget(self, project_id: str) -> None:
        """Forget the runs of a project that was removed."""
        for key in [key for key in self._last if key[0] == project_id]:
            del self._last[key]

    async def read(self, store: Store, project_ids: Iterable[str], *, share: float = 1.0) -> None:
        """Read what silent runs of projects work on, with at most a `share` of what is left of the budget."""
        asked = list(dict.fromkeys(project_ids))
        if not self._client.can_list_records_in_flight or not self._config.limits.record_in_flight_requests:
            for key in store.runs_with_listed("in flight", asked):
                # They were read before the config was reloaded.
                store.forget_listed("in flight", key)
            return
        read_at, now = self._monotonic(), store.clock.now()
        silent = await self._silent(store, asked)

        def begun(key: Key) -> None:
            before = self._last.get(key, _LastRead())
            self._last[key] = dataclasses.replace(before, tried_at=self._monotonic())

        def keep(key: Key, records: Sequence[OpenRecord], is_whole: bool) -> None:
            before = self._last[key]
            activity = before.seen.activity_until(records, store.clock.now(), silent[key].since, is_whole=is_whole)
            seen = before.seen.followed_by(records, is_whole=is_whole)
            self._last[key] = _LastRead(before.tried_at, before.tried_at, seen)
            store.keep_activity(key, activity)
            store.keep_listed("in flight", key, records, is_whole=is_whole)

        due = {key: silent[key].run for key in self._due(silent, now, read_at)}
        await self._lists.read(due, begun=begun, keep=keep, share=share, seconds=MAX_SECONDS)
        self._limit_seen()

    async def _silent(self, store: Store, project_ids: Sequence[str]) -> dict[Key, SilentRun]:
        """Return the silent runs; of the others it is forgotten what they work on, and so it is where that is old."""
        silent: dict[Key, SilentRun] = {}
        long_ago = self._monotonic() - self._config.sync.stale_after
        for place, project_id in enumerate(store.with_open_runs(project_ids)):
            if place % PROJECTS_PER_SLICE == 0:
                await self._client.time_slices.next()
            for number, each in enumerate(store.view.silent_runs(project_id)):
                if number % RUNS_PER_SLICE == 0:
                    await self._client.time_slices.next()
                silent[project_id, each.run.id] = each
            for key in store.runs_with_listed("in flight", [project_id]):
                last = self._last.get(key)
                if key not in silent or last is None or last.succeeded_at < long_ago:
                    store.forget_listed("in flight", key)
        asked = set(project_ids)
        for key in [key for key in self._last if key[0] in asked and key not in silent]:
            del self._last[key]
        return silent

    def _due(self, silent: Mapping[Key, SilentRun], now: float, read_at: float) -> list[Key]:
        """Return the runs whose turn it is, in the order in which they are read.

        A run is read the more often the sooner it counts as stalled, and waits the less for others; but each gets its
        turn. Those that count as stalled already are behind them: that they are stalled is known.
        """
        urgencies: list[tuple[bool, float, Key]] = []
        for key, run in silent.items():
            last, rest = self._last.get(key), run.stalled_at - now
            waited = now - run.silent_at if last is None else read_at - last.tried_at
            wait = rest * SHARE_OF_REST if rest > 0 else AFTER_STALL
            if last is None or waited >= wait:
                urgencies.append((rest <= 0, -waited / max(wait, 1.0), key))
        return [key for _, _, key in sorted(urgencies)]

    def _limit_seen(self) -> None:
        """Forget the records of the runs that were read first, if there are too many."""
        count = sum(len(last.seen.places) for last in self._last.values())
        for key, last in list(self._last.items()):
            if count <= MAX_SEEN:
                return
            count -= len(last.seen.places)
            self._last[key] = dataclasses.replace(last, seen=Seen())


@dataclasses.dataclass(frozen=True, slots=True)
class _LastRead:
    """When a run was last read, by our monotonic clock, and its records then."""

    tried_at: float = -math.inf
    succeeded_at: float = -math.inf
    seen: Seen = dataclasses.field(default_factory=Seen)
