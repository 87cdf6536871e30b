"""Reads which records failed, of the runs whose failed count changed, within a budget of requests.

The newest and largest runs are read first, the others in the next syncs. Until then a run keeps the records that it
shows.
"""

import heapq
import itertools
from collections.abc import Iterable, Iterator, Mapping, Set

from exporter.config import Config
from exporter.errors import ApiError
from exporter.runs.run import Run
from exporter.runs.store import Store
from exporter.runs.watch import Key
from exporter.runtime.client import RuntimeClient
from exporter.runtime.model import FailedRecord
from exporter.sync.budget import Budget
from exporter.sync.common_records import CommonRecords
from exporter.sync.problems import ProblemLog, one_read
from exporter.sync.together import together

MAX_RECORD_PAGES = 20
"""Pages of failed records that are read for one run: 10,000 records, of which the newest few are shown."""


class FailedRecordReader:
    """Reads failed records; several stores can share one, and with it the budget."""

    def __init__(
        self, client: RuntimeClient, config: Config, problems: ProblemLog, *, common: CommonRecords | None = None
    ) -> None:
        """`common` reads the runs that are cheaper to read together; without it each is read by itself."""
        self._client = client
        self._common = common
        self._limits = config.limits
        self._concurrency = config.sync.concurrency
        self._problems = problems
        self._budget = Budget(config.limits.failed_record_requests)
        self._waiting: dict[Key, int] = {}
        """The runs that wait for their turn, the longest first, and for how many pages there must be enough left."""
        self._starts_with_waiting = False

    def begin(self) -> None:
        """Begin a sync, or another round of probes, with a full budget."""
        self._budget.refill()
        if self._common is not None:
            self._common.begin()

    def forget(self, project_id: str) -> None:
        """Forget the runs of a project that was removed."""
        for key in [key for key in self._waiting if key[0] == project_id]:
            del self._waiting[key]
        if self._common is not None:
            self._common.forget(project_id)

    async def read(self, store: Store, project_ids: Iterable[str], *, share: float = 1.0) -> None:
        """Read failed records of projects of a store, with at most a `share` of what is left of the budget."""
        if not self._client.has("records"):
            return
        due = self._due(store, set(project_ids))
        if self._common is not None:
            due = await self._common.read(due, self._waiting.keys(), self._budget)
        if not self._client.can_list_records_of_a_run:
            return
        queue = self._in_order(due)
        most = self._budget.take_some(max(int(self._budget.left * share), 1))
        budget = Budget(most)
        budget.refill()
        errors: dict[str, list[ApiError]] = {}

        async def work() -> None:
            for project_id, run in queue:
                await self._read_run(store, project_id, run, budget, errors.setdefault(project_id, []))
                if not budget.left:
                    return

        await together(*(work() for _ in range(min(self._concurrency, most))))
        self._budget.give_back(budget.left)
        for project_id, of_project in errors.items():
            self._problems.settle("failed records", of_project, project=project_id)

    def _due(self, store: Store, project_ids: Set[str]) -> Mapping[Key, Run]:
        """Return the runs whose failed records are to be read; those that have none any more are done with."""
        due: dict[Key, Run] = {}
        for project_id in store.missing_failed_records(list(project_ids)):
            for run in store.runs_missing_failed_records(project_id):
                if run.records.failed:
                    due[project_id, run.id] = run
                else:
                    store.keep_failed_records(project_id, run, ())
        for key in [key for key in self._waiting if key[0] in project_ids and key not in due]:
            del self._waiting[key]
        return due

    def _in_order(self, due: Mapping[Key, Run]) -> Iterator[tuple[str, Run]]:
        """Return the runs in the order in which they are read, with their projects; from now on they wait.

        The newest and those that have waited the longest take turns: otherwise, when many change all the time, some
        would never be read.
        """
        new = sorted((key for key in due if key not in self._waiting), key=lambda key: _importance(due[key]))
        waiting = [key for key in self._waiting if key in due]
        self._waiting.update(dict.fromkeys(new, 1))
        turns = (waiting, new) if self._starts_with_waiting else (new, waiting)
        self._starts_with_waiting = not self._starts_with_waiting
        in_turn = (key for pair in itertools.zip_longest(*turns) for key in pair if key is not None)
        return ((key[0], due[key]) for key in in_turn)

    async def _read_run(self, store: Store, project_id: str, run: Run, budget: Budget, errors: list[ApiError]) -> None:
        key, most = (project_id, run.id), min(MAX_RECORD_PAGES, self._limits.failed_record_requests)
        taken = min(self._waiting.get(key, 1), most)
        if not budget.take(taken):
            return
        keep, newest = self._limits.failed_records_per_run, list[FailedRecord]()
        pages = aiter(self._client.failed_records(run.snapshot))
        sent = found = 0
        try:
            while sent < most and not (sent == taken and found >= (run.records.failed or 0)):
                if sent == taken:
                    if not budget.take(1):
                        # It keeps what it shows; its next turn comes when enough is left for all its pages.
                        self._waiting[key] = most
                        return
                    taken += 1
                with one_read():
                    page = await anext(pages, None)
                if page is None:
                    break
                sent += 1
                found += len(page.items)
                if self._common is not None:
                    self._common.note(key, page.items)
                newest = heapq.nlargest(keep, (*newest, *page.items), key=lambda record: record.ended_at or 0.0)
        except ApiError as error:
            sent += 1
            errors.append(error)
            # It waits as the last one: runs that cannot be read must not stand in the way of others.
            self._waiting[key] = self._waiting.pop(key, 1)
            return
        finally:
            budget.give_back(taken - sent)
        self._waiting.pop(key, None)
        store.keep_failed_records(project_id, run, newest)


def _importance(run: Run) -> tuple[float, int]:
    """Sort the newest change first, and of several at the same time the run with the most failed records."""
    return -run.snapshot.updated_at, -(run.records.failed or 0)
