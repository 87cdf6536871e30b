"""One run and its records: what they are and how they count. What makes them move is in `workers`."""

import dataclasses
import enum
from collections.abc import Sequence

from exporter.simulator import scenario


class Status(enum.Enum):
    """The idea behind a status label."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class RecordStatus(enum.Enum):
    """How far a record is; unlike a run's, its wording never varies."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"


NO_PHONE_NUMBER = "NO_PHONE_NUMBER"
NO_EMAIL_ADDRESS = "NO_EMAIL_ADDRESS"
NO_ANSWER = "NO_ANSWER"
"""A person who was asked stayed silent."""


@dataclasses.dataclass(frozen=True, slots=True)
class Project:
    """A project of the organisation."""

    id: str
    name: str
    wording: scenario.Wording


@dataclasses.dataclass(slots=True, eq=False)
class Spinner:
    """A published pipeline of one project."""

    id: str
    project: Project
    law: scenario.Spinner
    runs_created: int = 0

    @property
    def name(self) -> str:
        """What people call it."""
        return self.law.name


@dataclasses.dataclass(slots=True, eq=False)
class Record:
    """One contact's passage through one run, from when it is taken on. Times are story time."""

    index: int
    """Its place in the run."""
    started_at: float
    status: RecordStatus = RecordStatus.RUNNING
    step: int = 0
    """The step where it is, or where it failed."""
    attempts: int = 1
    """At that step."""
    wait_ends_at: float | None = None
    """When the person who is asked counts as silent."""
    ended_at: float | None = None
    error_code: str | None = None
    error_message: str | None = None
    """Personal data."""


@dataclasses.dataclass(slots=True, eq=False)
class Run:
    """One execution of a spinner over many records. Times are story time."""

    id: str
    number: int
    """Runs are numbered as they are created, over all projects."""
    spinner: Spinner
    trigger: str
    contacts: Sequence[int]
    """Rows of the table, one for each record."""
    created_at: float
    parent_id: str | None = None
    generation: int = 0
    """0, or 1 more than its parent's."""

    status: Status = Status.QUEUED
    started_at: float | None = None
    ended_at: float | None = None
    updated_at: float = 0.0
    revision: int = 0
    """Moves with every change; of two runs the one changed later has the higher."""
    last_progress_at: float | None = None
    holds_slot: bool = False
    records: list[Record] = dataclasses.field(default_factory=list)
    """Those taken on, in order; the others are pending."""
    failed_records: list[Record] = dataclasses.field(default_factory=list)
    """In the order in which they failed."""
    waiting_records: set[Record] = dataclasses.field(default_factory=set)
    running: int = 0
    completed: int = 0
    failures: dict[tuple[str, str], int] = dataclasses.field(default_factory=dict)
    """Failed records by the step's name and the error code."""

    @property
    def project(self) -> Project:
        """Where it belongs."""
        return self.spinner.project

    @property
    def total(self) -> int:
        """All its records; the API does not always tell."""
        return len(self.contacts)

    @property
    def pending(self) -> int:
        """Records not taken on."""
        return len(self.contacts) - len(self.records)

    @property
    def waiting(self) -> int:
        """Records that wait for a person."""
        return len(self.waiting_records)

    @property
    def failed(self) -> int:
        """Records that failed."""
        return len(self.failed_records)

    @property
    def retryable(self) -> tuple[int, ...]:
        """The rows of the failed records that may do better another time."""
        return tuple(
            self.contacts[record.index]
            for record in self.failed_records
            if record.error_code not in (NO_PHONE_NUMBER, NO_EMAIL_ADDRESS)
        )

    @property
    def total_known(self) -> bool:
        """Whether the API tells the total: always at the end, earlier only if the spinner counts first."""
        return self.spinner.law.counted or self.ended_at is not None

    @property
    def due_at(self) -> float | None:
        """When it should be through."""
        due = self.spinner.law.due
        return None if due is None else self.created_at + due

    @property
    def waiting_until(self) -> float | None:
        """While it waits: when the first person counts as silent, so that it moves at the latest."""
        if self.status is not Status.WAITING:
            return None
        return min((record.wait_ends_at for record in self.waiting_records if record.wait_ends_at), default=None)

    @property
    def label(self) -> str:
        """Its status in its project's words."""
        wording = self.project.wording
        if self.status is Status.COMPLETED and self.failed_records:
            return wording.partial
        label: str = getattr(wording, self.status.value)
        return label
