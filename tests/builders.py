"""Builders for tests: every field has a default, so that a test names only what matters to it."""

import functools
import itertools
import operator
from collections.abc import Callable, Iterable
from typing import Any

from exporter.config import (
    Config,
    ExporterConfig,
    LimitsConfig,
    RuntimeConfig,
    SpinnerConfig,
    StallsConfig,
    SyncConfig,
    load,
)
from exporter.config.api_description import Resources
from exporter.runs.clock import RuntimeClock
from exporter.runs.store import Store
from exporter.runtime.model import RecordCounts, RunSnapshot
from exporter.status import Status

NOON = 1_764_000_000.0
"""A time on the runtime's clock, and on ours unless a test sets them apart."""


RUNTIME = "runtime.test"
"""The label `runtime` of `runtime_config`."""


class Clock:
    """A clock that a test advances; serves as wall clock and as monotonic clock."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def snapshot(run_id: str = "run-1", status: Status = Status.RUNNING, **fields: Any) -> RunSnapshot:
    """A run of spinner `welcome`, created at noon, started 5 s later and read as it was 60 s after noon."""
    started = None if status is Status.QUEUED else NOON + 5
    ended = NOON + 60 if status.ended else None
    values: dict[str, Any] = {
        "id": run_id,
        "project_id": "p1",
        "spinner": "welcome",
        "trigger": "schedule",
        "parent_id": "",
        "status": status,
        "created_at": NOON,
        "updated_at": NOON + 60,
        "started_at": started,
        "ended_at": ended,
    }
    return RunSnapshot(**(values | fields))


def counts(
    completed: int | None = 0, failed: int | None = 0, total: int | None = 10, **others: int | None
) -> RecordCounts:
    """Record counts of all states; None is a count that the runtime does not tell."""
    given = {"pending": 0, "running": 0, "waiting": 0} | others
    return RecordCounts(total=total, completed=completed, failed=failed, **given)


def config_with(**sections: Any) -> Config:
    """A config with small limits; a section is given as a mapping of its keys."""
    limits = {"runs": 1000, "failed_records": 100, "failed_records_per_run": 5} | sections.pop("limits", {})
    return Config(
        runtime=runtime_config(),
        sync=SyncConfig(**sections.pop("sync", {})),
        stalls=StallsConfig(**sections.pop("stalls", {})),
        spinners=tuple(SpinnerConfig(**entry) for entry in sections.pop("spinners", ())),
        limits=LimitsConfig(**limits),
        **sections,
    )


def store(
    clock: Clock,
    *,
    projects: dict[str, str] | None = None,
    dropped: Callable[[str], None] = lambda reason: None,
    **sections: Any,
) -> Store:
    """A store that knows project `p1` by the name Sales, and that the runtime's clock is ours."""
    made = Store(config_with(**sections), RuntimeClock(clock, clock), monotonic=clock, dropped=dropped, is_saved=True)
    made.clock.observe(clock())
    made.name_projects({"p1": "Sales"} if projects is None else projects)
    return made


def read_project(
    target: Store,
    project_id: str,
    snapshots: Iterable[tuple[RunSnapshot, float | None]],
    *,
    as_of: float,
    horizon: float,
) -> None:
    """Read a project as a sync does: each snapshot with the runtime's time of the response that it came in."""
    with target.reading(project_id) as read:
        for seen_at, response in itertools.groupby(snapshots, key=operator.itemgetter(1)):
            read.apply([each for each, _ in response], seen_at, horizon=horizon)
        read.complete(as_of=as_of, since=horizon, horizon=horizon)


@functools.cache
def runtime_config(base_url: str = "http://runtime.test") -> RuntimeConfig:
    """The config of a runtime that follows the contract."""
    return only_runtime(load(None, environ={"SPINNER_EXPORTER_RUNTIME_BASE_URL": base_url})).runtime


def only_runtime(settings: ExporterConfig) -> Config:
    """The config of the single runtime of a config file."""
    (config,) = settings.runtimes.values()
    return config


def resources() -> Resources:
    """The description of the contract's API."""
    return runtime_config().resources
