"""Reads the failed records of all runs from one list, where the runtime has one, and gives each run its own.

The list says what failed since the last sync, and not which of the known records have not failed after all. So what it
has is believed of a run only if it accounts for the run's failed count: known and new ones together, or all of them.
Any other run is read by itself.
"""

import dataclasses
import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Set

from exporter.config import Config
from exporter.errors import ApiError
from exporter.runs.run import Run
from exporter.runs.store import Store
from exporter.runs.watch import Key
from exporter.runtime.client import RuntimeClient
from exporter.runtime.model import FailedRecord, RecordOfRun
from exporter.sync.availability import Availability
from exporter.sync.budget import Budget
from exporter.sync.problems import ProblemLog, one_read

FEW = 10
"""Runs whose records can be old and that are cheaper to read by themselves."""

RETRY_LONG_AFTER = 600.0
"""Seconds until a list that reaches far back is requested again after one that was too long."""

MAX_SEEN = 100_000
"""Ids of records that are noted. Without them a run is read by itself once more than needed."""

_Records = dict[str, FailedRecord]
"""Failed records of a run by their ids."""


class CommonRecords:
    """Reads the failed records of those runs of one store that are cheaper to read together."""

    def __init__(
        self,
        client: RuntimeClient,
        store: Store,
        config: Config,
        problems: ProblemLog,
        *,
        monotonic: Callable[[], float],
    ) -> None:
        self._client = client
        self._store = store
        self._config = config
        self._problems = problems
        self._monotonic = monotonic
        self._availability = Availability(monotonic, instead="failed records are read for each run again")
        self._begun_at = monotonic()
        self._read_at: float | None = None
        """Our monotonic time up to which the failed records of each run are known, or the run is unsettled."""
        self._long_at = -math.inf
        """Our monotonic time before which no list is requested that reaches far back."""
        self._pages = 1
        """About how many pages the list has."""
        self._took_all = False
        """Whether the last list took the whole budget: the next one is for the runs that it did not settle."""
        self._left: frozenset[Key] = frozenset()
        """Runs that could not be settled and that cannot be read by themselves."""
        self._seen: dict[Key, dict[str, float | None]] = {}
        """The records that are known already and that the list may have again, and when they failed."""

    @property
    def is_proven(self) -> bool | None:
        """Whether the runtime has the list; None while it was not needed."""
        return self._availability.is_proven

    def begin(self) -> None:
        """Begin a sync, before runs are read: what fails after it may be missing from their counts."""
        self._begun_at = self._monotonic()

    def forget(self, project_id: str) -> None:
        """Forget the runs of a project that was removed."""
        for key in [key for key in self._seen if key[0] == project_id]:
            del self._seen[key]

    def note(self, key: Key, records: Iterable[FailedRecord]) -> None:
        """Note that these records of a run were read by themselves: the list has the newest of them too."""
        since = self._store.clock.at(self._begun_at) - self._config.sync.overlap
        recent = {each.id: each.ended_at for each in records if _is_since(each.ended_at, since)}
        if recent:
            self._seen.setdefault(key, {}).update(recent)

    async def read(self, due: Mapping[Key, Run], unsettled: Set[Key], budget: Budget) -> dict[Key, Run]:
        """Read the records of runs whose failed count changed; return those that are to be read by themselves.

        Of `unsettled` ones among them earlier reads were not enough. Each page takes one of the `budget`.
        """
        reads_singly = self._client.can_list_records_of_a_run
        read_at, self._read_at = self._read_at, self._begun_at
        took_all, self._took_all = self._took_all, False
        window = self._window(due, read_at) if self._may_list() and not took_all else None
        rest = dict(due)
        if window is not None:
            try:
                with one_read():
                    listed = await self._list(window, due, budget)
            except ApiError as error:
                # Without the list, which only newer runtimes have, nothing is wrong.
                if not self._availability.is_missing(error) or not reads_singly:
                    self._problems.report("failed records of all runs", error)
                    # The next list reaches back as far as this one.
                    self._read_at = read_at
                    return {}
            else:
                self._problems.resolve("failed records of all runs")
                if listed is not None:
                    settled = {
                        key
                        for key, run in due.items()
                        if self._settle(key, run, listed.get(key, {}), window, is_unsettled=key in unsettled)
                    }
                    rest = {key: run for key, run in due.items() if key not in settled}
                self._took_all = reads_singly and bool(rest) and not budget.left
        self._forget_old()
        self._left = frozenset() if reads_singly else frozenset(rest)
        return rest if reads_singly else {}

    def _may_list(self) -> bool:
        if not self._client.can_list_records_of_all_runs:
            return False
        return self._availability.may_be_asked or not self._client.can_list_records_of_a_run

    def _window(self, due: Mapping[Key, Run], read_at: float | None) -> "_Window | None":
        """Return since when the list is needed; None if each of the runs is cheaper to read by itself."""
        clock, recent = self._store.clock, None
        if read_at is not None:
            # By the runtime's clock as it is now: it may have been set since.
            recent = clock.at(read_at) - self._config.sync.overlap
        old = [run for key, run in due.items() if recent is None or self._is_old(key, run, recent)]
        reads_singly = self._client.can_list_records_of_a_run
        if len(old) > (FEW if reads_singly else 0) and self._monotonic() >= self._long_at:
            first = clock.now() - self._config.retention
            if not reads_singly:
                first = min(run.snapshot.created_at for run in old)
            return _Window(first if recent is None else min(first, recent), recent)
        if recent is None or len(due) <= (self._pages if reads_singly else 0):
            self._pages = max(self._pages // 2, 1)
            return None
        return _Window(recent, recent)

    def _is_old(self, key: Key, run: Run, recent: float) -> bool:
        """Whether some of a run's records may have failed before those that the next list is needed for."""
        known = self._store.known_failed_records(*key)
        # With the same count others may have failed since its records were read, whenever that was.
        is_new = known == 0 or known == run.records.failed
        return key in self._left or (is_new and run.snapshot.created_at < recent)

    async def _list(self, window: "_Window", due: Mapping[Key, Run], budget: Budget) -> dict[Key, _Records] | None:
        """Return the records of these runs; None if the list is longer than what it would save, or than the budget.

        A list that is cut shows no run whole, so nothing of it is used.
        """
        listed: dict[Key, _Records] = {}
        key_of = _Keys(due)
        most = min(budget.left, len(due)) if self._client.can_list_records_of_a_run else budget.left
        pages = 0
        with self._client.held.open("records") as holding:
            async for page in self._client.failed_records_of_all_runs(updated_since=window.since):
                pages += budget.take(1)
                self._availability.note_success()
                own = [(key, each.record) for each in page.items if (key := key_of(each)) is not None]
                holding.add(page.size * len(own) // max(len(page.items), 1))
                for key, record in own:
                    listed.setdefault(key, {})[record.id] = record
                if not page.has_next:
                    break
                if pages >= most:
                    self._pages = 2 * pages
                    if window.is_long:
                        self._long_at = self._monotonic() + RETRY_LONG_AFTER
                    return None
        self._pages = max(pages, 1)
        return listed

    def _settle(self, key: Key, run: Run, listed: _Records, window: "_Window", *, is_unsettled: bool) -> bool:
        """Store a run's failed records if it is certain which those are; return whether it is."""
        failed, known = run.records.failed or 0, self._store.known_failed_records(*key)
        if run.snapshot.created_at >= window.since:
            if len(listed) < failed and self._client.can_list_records_of_a_run:
                return False
            # More than it says: the list is newer. If the next sync does not agree, its count is not exact.
            self._keep(key, run, listed, max(len(listed), failed) if failed > known else failed)
            return True
        if failed <= known:
            return False
        most = self._config.limits.failed_records_per_run
        if is_unsettled or window.recent is None:
            is_certain = len(listed) >= min(failed, most)
            if is_certain:
                self._keep(key, run, listed, max(len(listed), failed))
            return is_certain
        together = {each.id: each for each in run.failed_records} | listed
        count = known + self._count_new(key, run, listed, window)
        is_certain = len(listed) >= most or (count >= failed and len(together) >= min(most, count))
        if is_certain:
            self._keep(key, run, together, max(count, failed))
        return is_certain

    def _count_new(self, key: Key, run: Run, listed: _Records, window: "_Window") -> int:
        """Return how many records of the list are not known. One that failed again has the same id."""
        known = self._seen.get(key, {}).keys() | {each.id for each in run.failed_records}
        new = [each for record_id, each in listed.items() if record_id not in known]
        if window.is_long and window.recent is not None:
            # What failed earlier is known, though it is not noted any more.
            new = [each for each in new if _is_since(each.ended_at, window.recent)]
        return len(new)

    def _keep(self, key: Key, run: Run, records: _Records, count: int) -> None:
        most = self._config.limits.failed_records_per_run
        newest = heapq.nlargest(most, records.values(), key=lambda record: record.ended_at or 0.0)
        self._store.keep_failed_records(key[0], run, newest, count=count)
        self._seen[key] = {**self._seen.get(key, {}), **{each.id: each.ended_at for each in records.values()}}

    def _forget_old(self) -> None:
        """Forget the records that the next list cannot have."""
        since = self._store.clock.at(self._begun_at) - self._config.sync.overlap
        kept = {
            key: recent
            for key, seen in self._seen.items()
            if (recent := {record: at for record, at in seen.items() if _is_since(at, since)})
        }
        self._seen = kept if sum(map(len, kept.values())) <= MAX_SEEN else {}


class _Keys:
    """Finds the run that a record of the list belongs to."""

    def __init__(self, due: Mapping[Key, Run]) -> None:
        self._due = due
        times = Counter(run_id for _, run_id in due)
        # Run ids are unique only within their project.
        self._by_id = {key[1]: key for key in due if times[key[1]] == 1}

    def __call__(self, record: RecordOfRun) -> Key | None:
        if record.project_id is None:
            return self._by_id.get(record.run_id)
        key = record.project_id, record.run_id
        return key if key in self._due else None


@dataclasses.dataclass(frozen=True, slots=True)
class _Window:
    """Since when failed records are listed, by the runtime's clock."""

    since: float
    recent: float | None
    """Since when those that are not known yet have failed; None for the first list."""

    @property
    def is_long(self) -> bool:
        return self.since != self.recent


def _is_since(at: float | None, since: float) -> bool:
    return at is None or at >= since
