"""The runs that the API knows, in the orders in which it lists them."""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from exporter.simulator.run import Run


class RunIndex:
    """Knows every run until it is forgotten."""

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}
        self._lists: dict[str, ProjectRuns] = {}
        self._ended: deque[Run] = deque()
        self._revision = 0

    @property
    def runs(self) -> Mapping[str, Run]:
        """Every run by its id, in order of creation."""
        return MappingProxyType(self._runs)

    def add_project(self, project_id: str) -> None:
        """Start a list for a project."""
        self._lists[project_id] = ProjectRuns()

    def of_project(self, project_id: str) -> "ProjectRuns":
        """Return one project's runs."""
        return self._lists[project_id]

    def changed(self, run: Run, now: float) -> None:
        """Note that a run is new or has changed, or ended, just now."""
        self._revision += 1
        run.revision = self._revision
        run.updated_at = now
        project_list = self._lists[run.project.id]
        self._runs.setdefault(run.id, run)
        project_list.changed(run)
        if run.ended_at is not None:
            self._ended.append(run)

    def forget_ended_before(self, horizon: float) -> None:
        """Let go of runs that ended before a time."""
        while self._ended and (ended_at := self._ended[0].ended_at) is not None and ended_at < horizon:
            run = self._ended.popleft()
            del self._runs[run.id]
            self._lists[run.project.id].forget(run)


class ProjectRuns:
    """One project's runs in three orders. A change costs the same however many there are."""

    def __init__(self) -> None:
        self._all: dict[int, Run] = {}
        self._active: dict[int, Run] = {}
        self._changes: list[_Change] = []

    def changed(self, run: Run) -> None:
        """Note that a run is new or has changed."""
        self._all.setdefault(run.number, run)
        if run.ended_at is None:
            self._active.setdefault(run.number, run)
        else:
            self._active.pop(run.number, None)
        self._changes.append(_Change(run.revision, run.updated_at, run))
        # A run's earlier changes stay behind as entries that no longer hold; sweep when they are the greater part.
        if len(self._changes) > 64 and len(self._changes) > 2 * len(self._all):
            self._changes = [change for change in self._changes if self._holds(change)]

    def forget(self, run: Run) -> None:
        """Let go of a run that has ended."""
        del self._all[run.number]

    def created_after(self, number: int, *, active: bool) -> Iterator[Run]:
        """Go through the runs, or those that have not ended, whose number is higher, in order of creation."""
        runs = self._active if active else self._all
        return (run for run in runs.values() if run.number > number)

    def changed_after(self, revision: int) -> Iterator[Run]:
        """Go through the runs whose revision is higher, in order of their last change."""
        return self._from(bisect_left(self._changes, revision + 1, key=lambda change: change.revision))

    def changed_since(self, is_since: Callable[[float], bool]) -> Iterator[Run]:
        """Go through the runs whose last change `is_since`, in order of it. Costs what it gives."""
        return self._from(bisect_left(self._changes, True, key=lambda change: is_since(change.at)))

    def _from(self, start: int) -> Iterator[Run]:
        for position in range(start, len(self._changes)):
            change = self._changes[position]
            if self._holds(change):
                yield change.run

    def _holds(self, change: "_Change") -> bool:
        return change.run.revision == change.revision and change.run.number in self._all


class _Change(NamedTuple):
    revision: int
    at: float
    run: Run
