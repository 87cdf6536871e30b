"""Generated runs for the benchmarks: a store of them, and what changes between two scrapes."""

import random

from exporter.metrics.catalogue import ScrapeContext
from exporter.runs.store import Store
from exporter.runtime.model import RecordCounts, RunSnapshot
from exporter.status import Status
from tests.builders import NOON, Clock, read_project, snapshot, store

DAY = 86_400
PROJECTS = ("Clinic", "Dealership", "Shop", "Insurance", "School")
SPINNERS = ("Appointment reminders", "Lead qualification", "Newsletter", "Recall calls")
CHANGED = 0.02
"""Share of the runs that change between two scrapes."""

RECORDS = 10_000


class GeneratedRuns:
    """A store with the runs of a day, of which one in twenty has not ended. `advance` changes runs as between scrapes."""

    def __init__(self, runs: int) -> None:
        self.clock = Clock(NOON + DAY)
        self.runs = runs
        self.store: Store = store(
            self.clock,
            projects={f"p{number}": name for number, name in enumerate(PROJECTS)},
            limits={"runs": 10 * runs},
            retention=2 * DAY,
        )
        self._random = random.Random(1)
        self._done = 100
        self._open = [number for number in range(runs) if number % 20 == 7]
        for project in range(len(PROJECTS)):
            of_project = range(project, runs, len(PROJECTS))
            snapshots = [(self.run(number, ended=number % 20 != 7), self.clock()) for number in of_project]
            self._read(project, snapshots)

    def advance(self) -> None:
        """Advance by 15 seconds, in which 2% of the runs make progress and two of them end."""
        self.clock.advance(15)
        self._done += 1
        changed = self._random.sample(self._open, max(int(self.runs * CHANGED), 1))
        for number in changed[:2] if len(self._open) > self.runs // 25 else []:
            self._open.remove(number)
        for project in range(len(PROJECTS)):
            of_project = [number for number in changed if number % len(PROJECTS) == project]
            ended = [number not in self._open for number in of_project]
            self._read(
                project,
                [
                    (self.run(number, ended=has_ended), self.clock())
                    for number, has_ended in zip(of_project, ended, strict=True)
                ],
            )

    def now(self) -> ScrapeContext:
        return ScrapeContext(self.store, self.store.clock, api_up=True)

    def run(self, number: int, *, ended: bool) -> RunSnapshot:
        started_at = NOON + number * DAY / self.runs + 0.125
        return snapshot(
            f"job_{number:012x}",
            spinner=SPINNERS[number // len(PROJECTS) % len(SPINNERS)],
            project_id=f"p{number % len(PROJECTS)}",
            status=Status.COMPLETED if ended else Status.RUNNING,
            created_at=started_at - 2.5,
            started_at=started_at,
            updated_at=self.clock(),
            ended_at=min(started_at + 900.5, self.clock()) if ended else None,
            last_progress_at=min(started_at + 900.25, self.clock()),
            records=RecordCounts(RECORDS, 0, 0, 0, RECORDS, 0)
            if ended
            else RecordCounts(RECORDS, RECORDS - self._done - 5, 5, 0, self._done, 0),
        )

    def _read(self, project: int, seen: list[tuple[RunSnapshot, float]]) -> None:
        read_project(self.store, f"p{project}", seen, as_of=self.clock(), horizon=NOON - DAY)
