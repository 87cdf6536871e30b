"""The runs that the API returns, in the orders of its lists."""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from exporter.simulator.run import Record, Run


class RunIndex:
    """Holds all runs, from creation until the end of their history."""

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}
        self._lists: dict[str, RunList] = {}
        self._of_all_projects = RunList()
        self._failures = FailedRecords()
        self._ended: deque[Run] = deque()
        self._revision = 0

    @property
    def runs(self) -> Mapping[str, Run]:
        """All runs by id, in order of creation."""
        return MappingProxyType(self._runs)

    def add_project(self, project_id: str) -> None:
        """Add an empty list for a project."""
        self._lists[project_id] = RunList()

    def of_project(self, project_id: str) -> "RunList":
        """Return one project's runs."""
        return self._lists[project_id]

    def of_all_projects(self) -> "RunList":
        """Return the runs of all projects in one list."""
        return self._of_all_projects

    @property
    def failures(self) -> "FailedRecords":
        """The failed records of all runs."""
        return self._failures

    def changed(self, run: Run, now: float) -> None:
        """Record that a run is new, has changed or has ended at `now`."""
        self._revision += 1
        run.revision = self._revision
        run.updated_at = now
        self._runs.setdefault(run.id, run)
        self._lists[run.project.id].changed(run)
        self._of_all_projects.changed(run)
        self._failures.changed(run)
        if run.ended_at is not None:
            self._ended.append(run)

    def remove_ended_before(self, horizon: float) -> None:
        """Remove runs that ended before a time."""
        while self._ended and (ended_at := self._ended[0].ended_at) is not None and ended_at < horizon:
            run = self._ended.popleft()
            del self._runs[run.id]
            self._lists[run.project.id].remove(run)
            self._of_all_projects.remove(run)
            self._failures.remove(run)


class RunList:
    """Runs of one project, or of all, in three orders. The cost of a change does not depend on the number of runs."""

    def __init__(self) -> None:
        self._all: dict[int, Run] = {}
        self._active: dict[int, Run] = {}
        self._changes: list[_Change] = []

    def changed(self, run: Run) -> None:
        """Record that a run is new or has changed."""
        self._all.setdefault(run.number, run)
        if run.ended_at is None:
            self._active.setdefault(run.number, run)
        else:
            self._active.pop(run.number, None)
        self._changes.append(_Change(run.revision, run.updated_at, run))
        # Earlier changes of a run stay in the list as outdated entries; remove them when they are the majority.
        if len(self._changes) > 64 and len(self._changes) > 2 * len(self._all):
            self._changes = [change for change in self._changes if self._is_current(change)]

    def remove(self, run: Run) -> None:
        """Remove a run that has ended."""
        del self._all[run.number]

    def created_after(self, number: int, *, active: bool) -> Iterator[Run]:
        """Iterate over the runs with a higher number, in order of creation; `active` skips runs that have ended."""
        runs = self._active if active else self._all
        return (run for run in runs.values() if run.number > number)

    def changed_after(self, revision: int) -> Iterator[Run]:
        """Iterate over the runs with a higher revision, in order of their last change."""
        return self._from(bisect_left(self._changes, revision + 1, key=lambda change: change.revision))

    def changed_since(self, is_since: Callable[[float], bool]) -> Iterator[Run]:
        """Iterate over the runs for whose last change `is_since` holds, in order of that change."""
        return self._from(bisect_left(self._changes, True, key=lambda change: is_since(change.at)))

    def _from(self, start: int) -> Iterator[Run]:
        for position in range(start, len(self._changes)):
            change = self._changes[position]
            if self._is_current(change):
                yield change.run

    def _is_current(self, change: "_Change") -> bool:
        return change.run.revision == change.revision and change.run.number in self._all


class FailedRecords:
    """The failed records of all runs, in the order in which they failed."""

    def __init__(self) -> None:
        self._failures: list[Failure] = []
        self._noted: dict[int, int] = {}
        """How many failed records of each run are in the list, by its number."""
        self._last = 0

    def changed(self, run: Run) -> None:
        """Add the records of a run that have failed since the last call."""
        noted = self._noted.get(run.number, 0)
        if run.failed == noted:
            return
        for record in run.failed_records[noted:]:
            self._last += 1
            self._failures.append(Failure(self._last, run, record))
        self._noted[run.number] = run.failed

    def remove(self, run: Run) -> None:
        """Remove the records of a run that has ended."""
        self._noted.pop(run.number, None)
        # Removed when they are the majority, as outdated changes of runs are.
        if len(self._failures) > 64 and len(self._failures) > 2 * sum(self._noted.values()):
            self._failures = [failure for failure in self._failures if failure.run.number in self._noted]

    def after(self, position: int) -> "Iterator[Failure]":
        """Iterate over the failed records with a higher position."""
        return self._from(bisect_left(self._failures, position + 1, key=lambda failure: failure.position))

    def since(self, is_since: Callable[[float], bool]) -> "Iterator[Failure]":
        """Iterate over the records for whose time of failure `is_since` holds."""
        return self._from(bisect_left(self._failures, True, key=lambda failure: is_since(failure.record.ended_at or 0)))

    def _from(self, start: int) -> "Iterator[Failure]":
        for place in range(start, len(self._failures)):
            failure = self._failures[place]
            if failure.run.number in self._noted:
                yield failure


class Failure(NamedTuple):
    """A record that failed, with its run and its position in the list."""

    position: int
    run: Run
    record: Record


class _Change(NamedTuple):
    revision: int
    at: float
    run: Run
