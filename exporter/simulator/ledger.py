"""The results of all runs that ended, including those that the API no longer returns."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from exporter.simulator.run import Run

LEDGER_LENGTH = 100_000
"""Number of ended runs to keep, the newest ones, so that a long demo does not fill memory."""


@dataclasses.dataclass(frozen=True, slots=True)
class EndedRun:
    """The result of a run, for tests to compare with. Times are scenario time."""

    id: str
    project: str
    spinner: str
    status: str
    """completed, failed or cancelled, independent of the status labels of the project."""
    completed: int
    failed: int
    started_at: float | None
    """None if the run was cancelled before it started."""
    ended_at: float


class Ledger:
    """Keeps the results of ended runs, in the order in which they ended."""

    def __init__(self) -> None:
        self._runs: dict[str, EndedRun] = {}

    @property
    def runs(self) -> Mapping[str, EndedRun]:
        """All results by run id."""
        return MappingProxyType(self._runs)

    def add(self, run: Run) -> None:
        """Add a run that has just ended."""
        if run.ended_at is None:
            raise ValueError("expected a run that has ended")
        self._runs[run.id] = EndedRun(
            id=run.id,
            project=run.project.name,
            spinner=run.spinner.name,
            status=run.status.value,
            completed=run.completed,
            failed=run.failed,
            started_at=run.started_at,
            ended_at=run.ended_at,
        )
        if len(self._runs) > LEDGER_LENGTH:
            del self._runs[next(iter(self._runs))]
