"""The JSON of the contract. Absent values are null."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.responses import Response

from exporter.simulator.engine import Heartbeat
from exporter.simulator.plan import Plan
from exporter.simulator.run import Project, Record, RecordStatus, Run

WallMs = Callable[[float], int]
"""Converts scenario time to wall-clock epoch milliseconds."""


class _Wire(msgspec.Struct, frozen=True, rename="camel"):
    """Base of all objects, with the field names of the contract."""


class ProjectView(_Wire, frozen=True):
    """A project."""

    id: str
    name: str


class Counts(_Wire, frozen=True):
    """Records of a run by status. Total and pending are null while the number of records is unknown."""

    total: int | None
    pending: int | None
    running: int
    waiting: int
    completed: int
    failed: int


class Failure(_Wire, frozen=True):
    """Failed records with the same step and error code."""

    step: str
    error_code: str
    count: int


class Job(_Wire, frozen=True):
    """A run."""

    id: str
    project_id: str
    spinner_id: str
    spinner_name: str
    trigger: str
    parent_job_id: str | None
    status: str
    created_at: str
    started_at: str | None
    ended_at: str | None
    updated_at: str
    last_progress_at: str | None
    waiting_until: str | None
    due_at: str | None
    records: Counts
    failures: list[Failure]


class StepView(_Wire, frozen=True):
    """The step at which a record failed."""

    index: int
    type: str
    name: str


class CurrentStepView(StepView, frozen=True):
    """The step at which a record in progress is."""

    started_at: str


class RecordView(_Wire, frozen=True):
    """A record."""

    id: str
    job_id: str
    status: str
    failed_step: StepView | None
    error_code: str | None
    error_message: str | None
    started_at: str | None
    ended_at: str | None
    attempts: int
    step: CurrentStepView | None


class RecordOfProjectView(RecordView, frozen=True):
    """A record in the list of all runs."""

    project_id: str


class Page(_Wire, frozen=True):
    """A page of a list. The items are already encoded, because the ETag is computed from them."""

    items: msgspec.Raw
    next_cursor: str | None
    as_of: str


class MeterView(_Wire, frozen=True):
    """A meter of the plan."""

    name: str
    used: int
    limit: int | None
    resets_at: str | None


class Usage(_Wire, frozen=True):
    """The plan's meters."""

    plan: str
    meters: list[MeterView]


class RuntimeHealth(_Wire, frozen=True):
    """The worker service."""

    status: str
    last_heartbeat_at: str
    workers: int


class Health(_Wire, frozen=True):
    """The state of the API and the worker service."""

    status: str
    runtime: RuntimeHealth


class Created(_Wire, frozen=True):
    """The response to a trigger, with the id of the new run."""

    job_id: str


class Problem(_Wire, frozen=True):
    """An error response."""

    error: str
    error_code: str


def rfc3339(milliseconds: int) -> str:
    """Format a wall-clock time with three decimals.

    >>> rfc3339(1_767_603_600_250)
    '2026-01-05T09:00:00.250Z'
    """
    seconds, rest = divmod(milliseconds, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}.{rest:03d}Z"


def project_view(project: Project) -> ProjectView:
    """Return the JSON object of a project."""
    return ProjectView(project.id, project.name)


def job_view(run: Run, wall_ms: WallMs) -> Job:
    """Return the JSON object of a run."""
    known = run.total_known
    return Job(
        id=run.id,
        project_id=run.project.id,
        spinner_id=run.spinner.id,
        spinner_name=run.spinner.name,
        trigger=run.trigger,
        parent_job_id=run.parent_id,
        status=run.label,
        created_at=rfc3339(wall_ms(run.created_at)),
        started_at=_time(run.started_at, wall_ms),
        ended_at=_time(run.ended_at, wall_ms),
        updated_at=rfc3339(wall_ms(run.updated_at)),
        last_progress_at=_time(run.last_progress_at, wall_ms),
        waiting_until=_time(run.waiting_until, wall_ms),
        due_at=_time(run.due_at, wall_ms),
        records=Counts(
            total=run.total if known else None,
            pending=run.pending if known else None,
            running=run.running,
            waiting=run.waiting,
            completed=run.completed,
            failed=run.failed,
        ),
        failures=[Failure(step, code, count) for (step, code), count in run.failures.items()],
    )


def record_view(run: Run, record: Record, wall_ms: WallMs) -> RecordView:
    """Return the JSON object of a record that has started."""
    steps, failed_step, current_step = run.spinner.spec.steps, None, None
    # A record whose steps are all done is completed in a moment.
    if record.step < len(steps):
        step = steps[record.step]
        if record.status is RecordStatus.FAILED:
            failed_step = StepView(record.step, step.type, step.name)
        elif record.status in (RecordStatus.RUNNING, RecordStatus.WAITING):
            started_at = rfc3339(wall_ms(record.step_started_at))
            current_step = CurrentStepView(record.step, step.type, step.name, started_at)
    return RecordView(
        id=record_id(run, record.index),
        job_id=run.id,
        status=record.status.value,
        failed_step=failed_step,
        error_code=record.error_code,
        error_message=record.error_message,
        started_at=_time(record.started_at, wall_ms),
        ended_at=_time(record.ended_at, wall_ms),
        attempts=record.attempts,
        step=current_step,
    )


def record_of_project_view(run: Run, record: Record, wall_ms: WallMs) -> RecordOfProjectView:
    """Return the JSON object of a record that has started, with its project."""
    view: dict[str, Any] = msgspec.structs.asdict(record_view(run, record, wall_ms))
    return RecordOfProjectView(**view, project_id=run.project.id)


def pending_record_view(run: Run, index: int) -> RecordView:
    """Return the JSON object of a pending record."""
    return RecordView(record_id(run, index), run.id, RecordStatus.PENDING.value, None, None, None, None, None, 0, None)


def record_id(run: Run, index: int) -> str:
    """Return a record's id. It does not depend on the contact, so a retry of the same contact has another id."""
    return f"{run.id.replace('job_', 'rec_', 1)}_{index}"


def health_view(heartbeat: Heartbeat, wall_ms: WallMs) -> Health:
    """Return the JSON object of the worker service's state. The API itself is up, because it responds."""
    return Health(
        "ok" if heartbeat.up else "degraded",
        RuntimeHealth("up" if heartbeat.up else "down", rfc3339(wall_ms(heartbeat.last_at)), heartbeat.workers),
    )


def usage_view(plan: Plan) -> Usage:
    """Return the JSON object of the plan's meters."""
    resets_at = rfc3339(int(plan.resets_at * 1000))
    return Usage(
        plan.name,
        [MeterView(meter.name, meter.used, meter.limit, resets_at if meter.monthly else None) for meter in plan.meters],
    )


def problem(status: int, code: str, text: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an error response."""
    return Response(msgspec.json.encode(Problem(text, code)), status, headers, media_type="application/json")


def _time(moment: float | None, wall_ms: WallMs) -> str | None:
    return None if moment is None else rfc3339(wall_ms(moment))
