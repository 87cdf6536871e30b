"""The truth about every run that ended, also after the API has forgotten it."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from exporter.simulator.run import Run

LEDGER_LENGTH = 100_000
"""Ended runs that the ledger remembers, the newest: a demo that is left alone must not fill memory."""


@dataclasses.dataclass(frozen=True, slots=True)
class EndedRun:
    """The truth about a run that ended, for tests to compare with. Times are story time."""

    id: str
    project: str
    spinner: str
    status: str
    """completed, failed or cancelled, whatever the deployment's word for it."""
    completed: int
    failed: int
    started_at: float | None
    """None: cancelled before it started."""
    ended_at: float


class Ledger:
    """Remembers ended runs, in the order of their ends."""

    def __init__(self) -> None:
        self._runs: dict[str, EndedRun] = {}

    @property
    def runs(self) -> Mapping[str, EndedRun]:
        """All that it remembers, by id."""
        return MappingProxyType(self._runs)

    def enter(self, run: Run) -> None:
        """Enter a run that has just ended."""
        if run.ended_at is None:
            raise ValueError("only runs that ended are entered")
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
