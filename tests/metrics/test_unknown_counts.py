"""Record counts that a runtime does not tell: what follows from them is absent, and everything else is as if it did."""

from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.metrics.catalogue import ScrapeContext
from exporter.metrics.exposition import Exposition
from exporter.runs.pace import GAP_FACTOR
from exporter.runs.store import Store
from exporter.runtime.model import RecordCounts, RunSnapshot
from exporter.status import Status
from tests.builders import NOON, RUNTIME, Clock, counts, read_project, snapshot, store
from tests.metrics.test_exposition import Samples, samples, value

STATES = ("pending", "running", "waiting", "completed", "failed")
COUNTS = ("total", *STATES)
HORIZON = NOON - 3600
DEPENDENT = {
    "spinner_run_records", "spinner_run_failed_records", "spinner_run_total_records", "spinner_run_progress_ratio",
    "spinner_run_last_progress_timestamp_seconds", "spinner_run_progress_interval_seconds",
    "spinner_run_longest_progress_interval_seconds", "spinner_run_stall_threshold_seconds",
    "spinner_run_stall_threshold_info", "spinner_run_straggler_threshold_seconds", "spinner_records_processed_total",
    "spinner_run_finished_records_total",
}  # fmt: skip
"""The metrics that depend on counts."""

Told = frozenset[str]


def masked(history: Iterable[RunSnapshot], told: Told, *, says_progress: bool) -> list[RunSnapshot]:
    """The history as a runtime gives it that tells only these counts."""
    made = []
    for each in history:
        given = {name: getattr(each.records, name) for name in COUNTS if name in told}
        records = RecordCounts(**given) if given else None
        progress = each.last_progress_at if says_progress else None
        made.append(msgspec.structs.replace(each, records=records, last_progress_at=progress))
    return made


def shown(history: Iterable[RunSnapshot]) -> Samples:
    """The page after each snapshot of a run has been read in its own read, and one more."""
    clock = Clock(NOON)
    held = store(clock)
    for each in history:
        clock.now = each.updated_at
        read(held, clock, [each])
    read(held, clock, [])
    page = Exposition(None).render({RUNTIME: ScrapeContext(held, held.clock, api_up=True)})
    return samples(str(page))


def read(held: Store, clock: Clock, runs: list[RunSnapshot]) -> None:
    read_project(held, "p1", [(each, clock()) for each in runs], as_of=clock(), horizon=HORIZON)


@st.composite
def histories(draw: st.DrawFn) -> list[RunSnapshot]:
    """One run of 60 records, and when it says that it made progress."""
    completed = failed = 0
    moved_at, made = NOON + 5, []
    for number, (more, worse, running) in enumerate(
        draw(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=8))
    ):
        now = NOON + 60 * (number + 1)
        completed, failed = completed + more, failed + worse
        moved_at = now if more + worse else moved_at
        records = counts(completed, failed, 60, running=running, pending=60 - completed - failed - running)
        made.append(snapshot(updated_at=now, records=records, last_progress_at=moved_at))
    if draw(st.booleans()):
        made.append(msgspec.structs.replace(made[-1], status=Status.COMPLETED, updated_at=now + 60, ended_at=now + 60))
    return made


@settings(max_examples=300)
@given(history=histories(), told=st.frozensets(st.sampled_from(COUNTS)), says_progress=st.booleans())
def test_what_is_not_told_is_not_shown_and_everything_else_is_the_same(
    history: list[RunSnapshot], told: Told, says_progress: bool
) -> None:
    whole, found = shown(history), shown(masked(history, told, says_progress=says_progress))
    for state in STATES:
        assert_same_or_absent(whole, found, "spinner_run_records", told={state} <= told, state=state)
    for state in ("completed", "failed"):
        assert_same_or_absent(whole, found, "spinner_records_processed_total", told={state} <= told, state=state)
    of_ended = value(found, "spinner_run_finished_records_total")
    assert (of_ended is None) == ("completed" not in told)
    if of_ended is not None:
        all_of_ended = value(whole, "spinner_run_finished_records_total") or 0.0
        assert of_ended == all_of_ended if "failed" in told else of_ended <= all_of_ended
    assert_same_or_absent(whole, found, "spinner_run_failed_records", told={"failed"} <= told)
    assert_same_or_absent(whole, found, "spinner_run_total_records", told={"total"} <= told)
    ratio = value(found, "spinner_run_progress_ratio")
    assert (ratio is None) == (not {"total", "completed"} <= told)
    if ratio is not None:
        all_finished = value(whole, "spinner_run_progress_ratio") or 0.0
        assert ratio == all_finished if "failed" in told else ratio <= all_finished
    progress, threshold = "spinner_run_last_progress_timestamp_seconds", "spinner_run_stall_threshold_seconds"
    is_known = says_progress or "completed" in told
    assert (value(found, progress) is None) == (not is_known)
    assert (value(found, threshold) is None) == (not is_known or value(whole, threshold) is None)
    bases = [key for key in found if key[0] == "spinner_run_stall_threshold_info"]
    assert len(bases) == (value(found, threshold) is not None), "why, exactly where there is a threshold"
    if says_progress or {"completed", "failed"} <= told:
        assert value(found, progress) == value(whole, progress)
    assert without_counts(found) == without_counts(whole)


def assert_same_or_absent(whole: Samples, found: Samples, name: str, *, told: bool, **labels: str) -> None:
    assert value(found, name, **labels) == (value(whole, name, **labels) if told else None), (name, labels)


def without_counts(found: Samples) -> Samples:
    return {key: number for key, number in found.items() if key[0] not in DEPENDENT}


@pytest.mark.parametrize(
    ("records", "is_at_work"),
    [
        (counts(5, total=10, waiting=5, running=0), False),
        (counts(5, total=10, waiting=3, running=2), True),
        (counts(5, total=10, waiting=5, running=None), False),
        (counts(5, total=10, waiting=3, running=None), True),
        (counts(5, total=None, waiting=3, running=None), True),
        (counts(5, total=10, waiting=None, running=None), True),
    ],
)
def test_a_run_waits_for_a_person_only_if_the_counts_say_that_nothing_else_goes_on(
    records: RecordCounts, is_at_work: bool
) -> None:
    """Otherwise a stall could be hidden by what is not told."""
    found = shown([snapshot(records=records)])
    assert (value(found, "spinner_run_stall_threshold_seconds") is not None) == is_at_work


def test_records_that_are_told_late_are_counted_from_zero() -> None:
    """A queued run without counts makes its spinner known; `increase()` must see what its end brings."""
    clock = Clock(NOON)
    held = store(clock)
    read(held, clock, [snapshot(status=Status.QUEUED, updated_at=clock())])
    exposition, increases = Exposition(None), []
    for records in (None, counts(90, 10, 100), None):
        clock.advance(15)
        done = snapshot(status=Status.COMPLETED, updated_at=clock(), records=records)
        read(held, clock, [done] if records else [])
        found = samples(str(exposition.render({RUNTIME: ScrapeContext(held, held.clock, api_up=True)})))
        increases.append(value(found, "spinner_records_processed_total", state="failed"))
    assert increases == [None, 0, 10]


def test_the_pace_of_a_run_is_learned_from_its_own_times_of_progress() -> None:
    """Without counts each new time is one finished record at least."""
    runs = [
        snapshot(records=None, updated_at=NOON + 60 + at, last_progress_at=NOON + 60 + at)
        for at in (0.0, 2000.0, 4000.0)
    ]
    found = shown(runs)
    assert value(found, "spinner_run_stall_threshold_seconds") == 2000 * GAP_FACTOR
    assert value(found, "spinner_run_progress_interval_seconds") is None, "how many finished is unknown"
