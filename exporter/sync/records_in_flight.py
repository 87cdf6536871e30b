"""Reads what silent runs work on, within a budget of requests, before their silence pages.

Nothing is read while no run has been silent for half of what counts as a stall. A list that cannot be read shows
nothing, and costs no project its `up`.
"""

import asyncio
import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, Protocol

import structlog

from exporter.config import Config
from exporter.errors import ApiError
from exporter.runs.activity import Seen
from exporter.runs.store import Store
from exporter.runs.view import SilentRun
from exporter.runs.watch import Key
from exporter.runtime.client import RuntimeClient
from exporter.runtime.http_client import NotFoundError, PausedError, RefusedError, TransientError
from exporter.runtime.model import RecordInFlight
from exporter.sync.budget import Budget
from exporter.sync.problems import ProblemLog, one_read
from exporter.sync.together import together

log = structlog.get_logger(__name__)

MAX_PAGES = 4
"""Pages that are read for one run, which can have 50,000 records in flight."""

MAX_RECORDS = 2_000
"""Records that are kept of these pages, however many a page has."""

MAX_SECONDS = 3.0
"""Seconds that one sync may wait for these lists: less than a scrape waits for a sync."""

MAX_CONCURRENT = 4
"""Lists that are read concurrently, each time until one fails: too few failures to open the circuit breaker."""

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

RETRY_AFTER = 600.0
"""Seconds until a runtime that does not have the list is asked for it again: it may have been upgraded."""

NOT_LISTED = (400, 405, 422, 501)
"""Statuses of a runtime that does not have the list, or does not know its filter."""

REFUSALS = 3
"""Runs in a row that are not found, after which the list counts as missing: one can be gone since it was listed."""

Result = Literal["read", "failed", "postponed"]


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
        self._problems = problems
        self._observer = observer
        self._monotonic = monotonic
        self._budget = Budget(config.limits.record_in_flight_requests)
        self._last: dict[Key, _LastRead] = {}
        """The silent runs that were read, the one that was read first is first."""
        self._retry_at = -math.inf
        """Our monotonic time before which the runtime is not asked."""
        self._is_proven = False
        """Whether the runtime has the list."""
        self._not_found = 0

    def begin(self) -> None:
        """Begin a sync, or another round of probes, with a full budget."""
        self._budget.refill()

    def forget(self, project_id: str) -> None:
        """Forget the runs of a project that was removed."""
        for key in [key for key in self._last if key[0] == project_id]:
            del self._last[key]

    async def read(self, store: Store, project_ids: Iterable[str], *, share: float = 1.0) -> None:
        """Read what silent runs of projects work on, with at most a `share` of what is left of the budget."""
        if not self._client.can_list_records_in_flight or not self._config.limits.record_in_flight_requests:
            return
        read_at, now = self._monotonic(), store.clock.now()
        silent = await self._silent(store, project_ids)
        due = self._due(silent, now, read_at)
        if not due or read_at < self._retry_at:
            return
        most = self._budget.take_some(max(int(self._budget.left * share), 1))
        budget = Budget(most)
        budget.refill()
        left, queue = set(due), iter(due)
        errors: dict[str, list[ApiError]] = {}

        async def work() -> None:
            for key in queue:
                if read_at < self._retry_at or not budget.take(1):
                    return
                left.discard(key)
                if not await self._read_run(store, key, silent[key], budget, errors.setdefault(key[0], [])):
                    return

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MAX_SECONDS):
                await together(*(work() for _ in range(min(self._config.sync.concurrency, MAX_CONCURRENT, most))))
        self._budget.give_back(budget.left)
        if left and read_at >= self._retry_at:
            self._observer.records_in_flight("postponed", len(left))
        for project_id, of_project in errors.items():
            self._problems.settle("records in flight", of_project, project=project_id)
        self._limit_seen()

    async def _silent(self, store: Store, project_ids: Iterable[str]) -> dict[Key, SilentRun]:
        """Return the silent runs; of the others it is forgotten what they work on, and so it is where that is old."""
        silent: dict[Key, SilentRun] = {}
        long_ago = self._monotonic() - self._config.sync.stale_after
        asked = dict.fromkeys(project_ids)
        for place, project_id in enumerate(store.with_open_runs(list(asked))):
            if place % PROJECTS_PER_SLICE == 0:
                await self._client.time_slices.next()
            for number, each in enumerate(store.view.silent_runs(project_id)):
                if number % RUNS_PER_SLICE == 0:
                    await self._client.time_slices.next()
                silent[project_id, each.run.id] = each
            for run_id in store.runs_with_records_in_flight(project_id):
                last = self._last.get((project_id, run_id))
                if (project_id, run_id) not in silent or last is None or last.succeeded_at < long_ago:
                    store.forget_records_in_flight(project_id, run_id)
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

    async def _read_run(
        self, store: Store, key: Key, silent: SilentRun, budget: Budget, errors: list[ApiError]
    ) -> bool:
        """Read one run, for which a request is taken from the budget already; return whether to read others now."""
        before = self._last.get(key, _LastRead())
        # Also if the read is cut off: otherwise it would be the first again.
        self._last[key] = dataclasses.replace(before, tried_at=self._monotonic())
        records, is_whole = list[RecordInFlight](), False
        result: Result = "failed"
        pages = aiter(self._client.records_in_flight(silent.run.snapshot))
        try:
            for number in range(1, MAX_PAGES + 1):
                if number > 1 and not budget.take(1):
                    break
                with one_read():
                    page = await anext(pages, None)
                items = () if page is None else page.items
                is_cut = len(records) + len(items) > MAX_RECORDS
                records += items[: MAX_RECORDS - len(records)]
                is_whole = not is_cut and (page is None or not page.has_next)
                if is_whole or is_cut:
                    break
            result = "read"
        except ApiError as error:
            self._note_failure(error, errors)
            return not isinstance(error, TransientError | PausedError)
        finally:
            self._observer.records_in_flight(result)
        self._is_proven, self._not_found = True, 0
        activity = before.seen.activity_until(records, store.clock.now(), silent.since)
        seen = before.seen.followed_by(records, is_whole=is_whole)
        at = self._last[key].tried_at
        self._last[key] = _LastRead(at, at, seen)
        store.keep_records_in_flight(key[0], silent.run, activity, records, is_whole=is_whole)
        return True

    def _note_failure(self, error: ApiError, errors: list[ApiError]) -> None:
        """Note that a list could not be read, and whether the runtime does not have it."""
        if isinstance(error, NotFoundError):
            # The run may be gone since it was listed.
            self._not_found += 1
            is_missing = not self._is_proven and self._not_found >= REFUSALS
        else:
            is_missing = isinstance(error, RefusedError) and error.status in NOT_LISTED
            if not is_missing:
                errors.append(error)
        if is_missing:
            if self._is_proven or self._retry_at == -math.inf:
                log.info("records in flight are not read: the runtime does not list them", reason=str(error))
            self._is_proven, self._not_found = False, 0
            self._retry_at = self._monotonic() + RETRY_AFTER
            errors.clear()

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
