"""Reads which records wait, of the runs that have made no progress for the longest, within a budget of requests.

Nothing is read while no record waits. A run is read again when it has changed, and rarely while it has not. A list that
cannot be read shows nothing once it is old, and costs no project its `up`.
"""

import dataclasses
import heapq
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from exporter.config import Config
from exporter.runs.run import Run
from exporter.runs.store import Store
from exporter.runs.watch import Key
from exporter.runtime.client import RuntimeClient
from exporter.runtime.model import OpenRecord, RecordCounts
from exporter.sync.problems import ProblemLog
from exporter.sync.record_lists import RecordLists, Result

MAX_SECONDS = 2.0
"""Seconds that one sync may wait for these lists: less than a scrape waits for a sync."""

CHANGED_AFTER = 60.0
"""Seconds after which a run that has changed is read again, and one that could not be read.

Or half of `sync.sweep_interval`, if that is shorter.
"""

UNCHANGED_AFTER = 600.0
"""Seconds after which a run is read again that has not changed: some runtimes are careless about `updatedAt`.

Or five times `sync.sweep_interval`, if that is shorter.
"""


RUNS_PER_SLICE = 500
"""Runs that are compared in one time slice: about a millisecond."""


class WaitingRecordsObserver(Protocol):
    """Receives what became of each list that was due."""

    def waiting_records(self, result: Result, count: int = 1) -> None:
        """`count` lists were read, could not be read, or were left for a later sync."""


class WaitingRecordsReader:
    """Reads waiting records; several stores can share one, and with it the budget."""

    def __init__(
        self,
        client: RuntimeClient,
        config: Config,
        problems: ProblemLog,
        observer: WaitingRecordsObserver,
        *,
        monotonic: Callable[[], float],
    ) -> None:
        """`monotonic` is our clock."""
        self._client = client
        self._config = config
        self._monotonic = monotonic
        self._most_runs = most_runs(config) if client.can_list_waiting_records else 0
        self._lists = RecordLists(
            "waiting records",
            client.waiting_records,
            problems,
            most_requests=config.limits.waiting_record_requests,
            concurrency=config.sync.concurrency,
            noted=observer.waiting_records,
            monotonic=monotonic,
        )
        self._changed_after = min(CHANGED_AFTER, config.sync.sweep_interval / 2)
        self._unchanged_after = min(UNCHANGED_AFTER, 5 * config.sync.sweep_interval)
        self._last: dict[Key, _LastRead] = {}

    @property
    def is_listed(self) -> bool | None:
        """Whether the runtime lists waiting records; None while it was not needed, or could not be read."""
        return self._lists.is_listed

    def begin(self) -> None:
        """Begin a sync, or another round of probes, with a full budget."""
        self._lists.begin()

    def forget(self, project_id: str) -> None:
        """Forget the runs of a project that was removed."""
        for key in [key for key in self._last if key[0] == project_id]:
            del self._last[key]

    async def read(self, store: Store, project_ids: Iterable[str], *, share: float = 1.0) -> None:
        """Read which records of runs of projects wait, with at most a `share` of what is left of the budget."""
        asked = list(dict.fromkeys(project_ids))
        runs, read_at = await self._chosen(store, asked), self._monotonic()
        due = self._due(runs, read_at)
        self._forget_old(store, asked, runs, read_at)

        def begun(key: Key) -> None:
            self._last[key] = dataclasses.replace(self._last[key], tried_at=self._monotonic())

        def keep(key: Key, records: Sequence[OpenRecord], is_whole: bool) -> None:
            at = self._last[key].tried_at
            self._last[key] = _LastRead(at, at, _state(runs[key]))
            if records:
                store.keep_listed("waiting", key, records, is_whole=is_whole)
            else:
                # The run says that some wait: which ones is unknown, not none.
                store.forget_listed("waiting", key)

        await self._lists.read(due, begun=begun, keep=keep, share=share, seconds=MAX_SECONDS)

    async def _chosen(self, store: Store, project_ids: Sequence[str]) -> Mapping[Key, Run]:
        """Return the runs whose waiting records are to be known: as many as can be named, the most silent ones."""
        if not self._most_runs:
            return {}
        waiting, first = store.runs_with_waiting_records(project_ids), list[tuple[str, Run]]()
        for begin in range(0, len(waiting), RUNS_PER_SLICE):
            await self._client.time_slices.next()
            compared = (*first, *waiting[begin : begin + RUNS_PER_SLICE])
            first = heapq.nsmallest(self._most_runs, compared, key=_silent_since)
        return {(project_id, run.id): run for project_id, run in first}

    def _due(self, runs: Mapping[Key, Run], read_at: float) -> Mapping[Key, Run]:
        """Return the runs whose turn it is: those that have not been read first, then those whose read is the oldest.

        So each gets its turn, whatever the others do.
        """
        due: dict[Key, Run] = {}
        for key, run in runs.items():
            last = self._last.setdefault(key, _LastRead())
            is_same = last.state == _state(run) and last.succeeded_at == last.tried_at
            if read_at - last.tried_at >= (self._unchanged_after if is_same else self._changed_after):
                due[key] = run
                self._last[key] = dataclasses.replace(last, due_since=min(last.due_since, read_at))
        return {key: due[key] for key in sorted(due, key=lambda key: self._last[key].tried_at)}

    def _forget_old(self, store: Store, project_ids: Sequence[str], runs: Mapping[Key, Run], read_at: float) -> None:
        """Forget the records of the runs that are not chosen, or whose turn has not come for too long."""
        for key in store.runs_with_listed("waiting", project_ids):
            last = self._last.get(key)
            if key not in runs or last is None or read_at - last.due_since > self._config.sync.stale_after:
                store.forget_listed("waiting", key)
        asked = set(project_ids)
        for key in [key for key in self._last if key[0] in asked and key not in runs]:
            del self._last[key]


def most_runs(config: Config) -> int:
    """Return of how many runs waiting records are read: as many as can be named within the limits."""
    limits = config.limits
    if not limits.failed_records or not limits.failed_records_per_run or not limits.waiting_record_requests:
        return 0
    return math.ceil(limits.failed_records / limits.failed_records_per_run)


def _silent_since(of_project: tuple[str, Run]) -> tuple[float, str, str]:
    """Sort by when a record last finished, or the run was created; what is equal always the same way."""
    project_id, run = of_project
    return run.snapshot.created_at if run.last_progress_at is None else run.last_progress_at, project_id, run.id


_State = tuple[float, RecordCounts]


def _state(run: Run) -> _State:
    """Return what changes when another record waits."""
    return run.snapshot.updated_at, run.records


@dataclasses.dataclass(frozen=True, slots=True)
class _LastRead:
    """When a run was last read, by our monotonic clock, and what it was then."""

    tried_at: float = -math.inf
    succeeded_at: float = -math.inf
    state: _State | None = None
    due_since: float = math.inf
    """Since when it is its turn to be read again."""
