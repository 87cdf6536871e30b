"""Runs and their records. `workers` processes them."""

import dataclasses
import enum
from collections.abc import Sequence

from exporter.simulator import scenario


class Status(enum.Enum):
    """Status of a run, independent of the labels of a deployment."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class RecordStatus(enum.Enum):
    """Status of a record. Its labels are the same in every deployment."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"


NO_PHONE_NUMBER = "NO_PHONE_NUMBER"
NO_EMAIL_ADDRESS = "NO_EMAIL_ADDRESS"
NO_ANSWER = "NO_ANSWER"
"""Error code of a record whose person did not respond."""


@dataclasses.dataclass(frozen=True, slots=True)
class Project:
    """A project of the organisation."""

    id: str
    name: str
    labels: scenario.StatusLabels


@dataclasses.dataclass(slots=True, eq=False)
class Spinner:
    """A published pipeline of one project."""

    id: str
    project: Project
    spec: scenario.Spinner
    runs_created: int = 0

    @property
    def name(self) -> str:
        """Its display name."""
        return self.spec.name


@dataclasses.dataclass(slots=True, eq=False)
class Record:
    """One contact in one run, from the start of its first step. Times are scenario time."""

    index: int
    """Its position in the run."""
    started_at: float
    status: RecordStatus = RecordStatus.RUNNING
    step: int = 0
    """Index of its current step, or of the step at which it failed."""
    step_started_at: float = dataclasses.field(init=False)
    """When its first attempt at that step started."""
    attempts: int = 1
    """Attempts at that step."""
    wait_ends_at: float | None = None
    """When the wait for a person times out."""
    ended_at: float | None = None
    error_code: str | None = None
    error_message: str | None = None
    """Personal data."""

    def __post_init__(self) -> None:
        self.step_started_at = self.started_at


@dataclasses.dataclass(slots=True, eq=False)
class Run:
    """One execution of a spinner over many records. Times are scenario time."""

    id: str
    number: int
    """Sequence number in order of creation, over all projects."""
    spinner: Spinner
    trigger: str
    contacts: Sequence[int]
    """Row indexes of the table, one per record."""
    created_at: float
    parent_id: str | None = None
    generation: int = 0
    """0 for a run without a parent, otherwise 1 more than the generation of its parent."""

    status: Status = Status.QUEUED
    started_at: float | None = None
    ended_at: float | None = None
    updated_at: float = 0.0
    revision: int = 0
    """Increases with every change of any run: a later change has a higher revision."""
    last_progress_at: float | None = None
    holds_slot: bool = False
    records: list[Record] = dataclasses.field(default_factory=list)
    """Records that have started, in order; the others are pending."""
    failed_records: list[Record] = dataclasses.field(default_factory=list)
    """Failed records, in the order in which they failed."""
    waiting_records: set[Record] = dataclasses.field(default_factory=set)
    leaked: set[Record] = dataclasses.field(default_factory=set)
    """Records that hang without a place of their own: others begin beside them."""
    running: int = 0
    completed: int = 0
    failures: dict[tuple[str, str], int] = dataclasses.field(default_factory=dict)
    """Number of failed records by step name and error code."""

    @property
    def project(self) -> Project:
        """Its project."""
        return self.spinner.project

    @property
    def total(self) -> int:
        """Number of all records; the API does not always report it."""
        return len(self.contacts)

    @property
    def pending(self) -> int:
        """Number of records that have not started."""
        return len(self.contacts) - len(self.records)

    @property
    def waiting(self) -> int:
        """Number of records that wait for a person."""
        return len(self.waiting_records)

    @property
    def failed(self) -> int:
        """Number of failed records."""
        return len(self.failed_records)

    @property
    def retryable(self) -> tuple[int, ...]:
        """Row indexes of the failed records for which a retry can succeed."""
        return tuple(
            self.contacts[record.index]
            for record in self.failed_records
            if record.error_code not in (NO_PHONE_NUMBER, NO_EMAIL_ADDRESS)
        )

    @property
    def total_known(self) -> bool:
        """Whether the API reports the total: before the end only if the spinner counts its records first."""
        return self.spinner.spec.counted or self.ended_at is not None

    @property
    def due_at(self) -> float | None:
        """When it should have ended."""
        due = self.spinner.spec.due
        return None if due is None else self.created_at + due

    @property
    def waiting_until(self) -> float | None:
        """When the first wait for a person times out, if the run is waiting."""
        if self.status is not Status.WAITING:
            return None
        return min((record.wait_ends_at for record in self.waiting_records if record.wait_ends_at), default=None)

    @property
    def label(self) -> str:
        """Its status label in its project."""
        labels = self.project.labels
        if self.status is Status.COMPLETED and self.failed_records:
            return labels.partial
        label: str = getattr(labels, self.status.value)
        return label
