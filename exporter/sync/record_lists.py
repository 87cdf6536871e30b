"""Requests a list of records of some runs, within a budget, and knows whether the runtime has it.

Which runs are due, and what is kept of their records, is the caller's business. A list that cannot be read costs no
project its `up`.
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Literal

import structlog

from exporter.errors import ApiError
from exporter.runs.run import Run
from exporter.runs.watch import Key
from exporter.runtime.http_client import NotFoundError, PausedError, RefusedError, TransientError
from exporter.runtime.model import ListPage, OpenRecord, RunSnapshot
from exporter.sync.budget import Budget
from exporter.sync.problems import ProblemLog, one_read
from exporter.sync.together import together

log = structlog.get_logger(__name__)

MAX_PAGES = 4
"""Pages that are read for one run, which can have 50,000 such records."""

MAX_RECORDS = 2_000
"""Records that are kept of these pages, however many a page has."""

MAX_CONCURRENT = 4
"""Lists that are read concurrently, each time until one fails: too few failures to open the circuit breaker."""

RETRY_AFTER = 600.0
"""Seconds until a runtime that does not have the list is asked for it again: it may have been upgraded."""

NOT_LISTED = (400, 405, 422, 501)
"""Statuses of a runtime that does not have the list, or does not know its filter."""

REFUSALS = 3
"""Runs in a row that are not found, after which the list counts as missing: one can be gone since it was listed."""

Result = Literal["read", "failed", "postponed"]


class RecordLists:
    """The lists of one kind of records; several stores can share one, and with it the budget."""

    def __init__(
        self,
        kind: str,
        pages: Callable[[RunSnapshot], AsyncIterator[ListPage[OpenRecord]]],
        problems: ProblemLog,
        *,
        most_requests: int,
        concurrency: int,
        noted: Callable[[Result, int], None],
        monotonic: Callable[[], float],
    ) -> None:
        """`kind` names the records in the log; `pages` requests those of one run; at most so many requests in one sync.

        `noted` is called with what became of each list that was due: how many were read, could not be read, or were
        left for a later sync. `monotonic` is our clock.
        """
        self._kind = kind
        self._pages = pages
        self._problems = problems
        self._concurrency = min(concurrency, MAX_CONCURRENT)
        self._noted = noted
        self._monotonic = monotonic
        self._budget = Budget(most_requests)
        self._retry_at = -math.inf
        """Our monotonic time before which the runtime is not asked."""
        self._is_proven = False
        """Whether the runtime has the list."""
        self._not_found = 0

    @property
    def is_listed(self) -> bool | None:
        """Whether the runtime has the list, as far as is known; None before it was asked successfully."""
        return True if self._is_proven else None if self._retry_at == -math.inf else False

    def begin(self) -> None:
        """Begin a sync, or another round of probes, with a full budget."""
        self._budget.refill()

    async def read(
        self,
        due: Mapping[Key, Run],
        *,
        begun: Callable[[Key], None],
        keep: Callable[[Key, Sequence[OpenRecord], bool], None],
        share: float,
        seconds: float,
    ) -> None:
        """Read the records of these runs in their order, with at most a `share` of what is left of the budget.

        `begun` is called before a run is read, `keep` with its records and whether there are no others. A sync waits
        for the lists at most so many seconds.
        """
        asked_at = self._monotonic()
        if not due or asked_at < self._retry_at:
            return
        most = self._budget.take_some(max(int(self._budget.left * share), 1))
        budget = Budget(most)
        budget.refill()
        left, queue = set(due), iter(due)
        errors: dict[str, list[ApiError]] = {}

        async def work() -> None:
            for key in queue:
                if asked_at < self._retry_at or not budget.take(1):
                    return
                left.discard(key)
                # Also if the read is cut off: otherwise it would be the first again.
                begun(key)
                if not await self._read_run(key, due[key], budget, errors.setdefault(key[0], []), keep):
                    return

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await together(*(work() for _ in range(min(self._concurrency, most))))
        self._budget.give_back(budget.left)
        if left and asked_at >= self._retry_at:
            self._noted("postponed", len(left))
        for project_id, of_project in errors.items():
            self._problems.settle(self._kind, of_project, project=project_id)

    async def _read_run(
        self,
        key: Key,
        run: Run,
        budget: Budget,
        errors: list[ApiError],
        keep: Callable[[Key, Sequence[OpenRecord], bool], None],
    ) -> bool:
        """Read one run, for which a request is taken from the budget already; return whether to read others now."""
        records, is_whole = list[OpenRecord](), False
        result: Result = "failed"
        pages = aiter(self._pages(run.snapshot))
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
            self._noted(result, 1)
        self._is_proven, self._not_found = True, 0
        keep(key, records, is_whole)
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
                log.info(f"{self._kind} are not read: the runtime does not list them", reason=str(error))
            self._is_proven, self._not_found = False, 0
            self._retry_at = self._monotonic() + RETRY_AFTER
            errors.clear()
