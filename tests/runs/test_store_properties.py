"""Whatever the order and the duplicates within a read: the same gauges. Each finished run is counted once."""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.runs.store import Store
from exporter.runs.view import ShownSpinner
from exporter.runtime.model import RecordCounts, RunSnapshot
from exporter.status import Status
from tests.builders import NOON, Clock, counts, read_project, snapshot, store

HORIZON = NOON - 3600


COUNTS = ("total", "pending", "running", "waiting", "completed", "failed")


def counts_told(told: frozenset[str], **given: int) -> RecordCounts | None:
    """Record counts of a runtime that tells only some; without any it tells `records: null`."""
    every = msgspec.structs.asdict(counts(**given))
    return RecordCounts(**{name: every[name] for name in COUNTS if name in told}) if told else None


@st.composite
def histories(draw: st.DrawFn, run_id: str) -> list[RunSnapshot]:
    """One run's snapshots as a well-behaved runtime makes them: `updatedAt` moves with every change."""
    total = draw(st.integers(1, 50))
    created = NOON + draw(st.integers(0, 100))
    started = created + draw(st.integers(0, 100))
    says_progress = draw(st.booleans())
    told = draw(st.just(frozenset(COUNTS)) | st.frozensets(st.sampled_from(COUNTS)))
    queued = counts_told(told, total=total)
    made = [snapshot(run_id, Status.QUEUED, created_at=created, updated_at=created, records=queued)]
    time, completed, failed = float(started), 0, 0
    moved_at = time
    for done, bad, touched in draw(
        st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.booleans()), max_size=6)
    ):
        time += draw(st.integers(1, 60))
        if not touched:
            moved_at = time if done + bad else moved_at
            completed, failed = completed + done, failed + bad
        made.append(
            snapshot(
                run_id,
                draw(st.sampled_from((Status.RUNNING, Status.WAITING, Status.UNKNOWN))),
                created_at=created,
                started_at=started,
                updated_at=time,
                records=counts_told(told, completed=completed, failed=failed, total=total),
                last_progress_at=moved_at if says_progress else None,
            )
        )
    end = draw(st.sampled_from((None, Status.COMPLETED, Status.FAILED, Status.CANCELLED)))
    if end is not None:
        last = made[-1]
        time += draw(st.integers(1, 60))
        fields: dict[str, Any] = {
            "created_at": created,
            "started_at": last.started_at,
            "ended_at": draw(st.sampled_from((time, None))),
            "records": last.records,
            "last_progress_at": last.last_progress_at,
        }
        # Some runtimes touch a run after its end.
        made += [
            snapshot(run_id, end, updated_at=time + touch, **fields) for touch in draw(st.sampled_from(((0,), (0, 30))))
        ]
    return made


@st.composite
def worlds(draw: st.DrawFn) -> list[list[RunSnapshot]]:
    """Histories of a few runs."""
    return [draw(histories(f"run-{number}")) for number in range(draw(st.integers(1, 4)))]


@st.composite
def readings(draw: st.DrawFn, world: list[list[RunSnapshot]]) -> list[list[RunSnapshot]]:
    """Every snapshot of a world at least once, some twice, shuffled and cut into reads."""
    once = [each for history in world for each in history]
    shuffled = draw(st.permutations(once + draw(st.lists(st.sampled_from(once), max_size=5))))
    cuts = sorted(draw(st.lists(st.integers(0, len(shuffled)), max_size=4)))
    return [shuffled[start:end] for start, end in zip([0, *cuts], [*cuts, len(shuffled)], strict=True)]


def gauges(held: Store) -> dict[str, object]:
    return {
        shown.run.id: (
            shown.run.status,
            shown.run.records,
            shown.run.ended_at,
            shown.run.last_progress_at,
            shown.run.snapshot.updated_at,
        )
        for shown in held.view.runs()
    }


def in_order(world: list[list[RunSnapshot]]) -> Store:
    held = store(Clock(NOON + 600))
    for history in world:
        for each in history:
            read_project(held, "p1", [(each, each.updated_at)], as_of=NOON + 600, horizon=HORIZON)
    return held


def spinners_in_full(held: Store) -> list[ShownSpinner]:
    """The spinners after one more read, since one that is new shows zeros until then."""
    read_project(held, "p1", [], as_of=NOON + 600, horizon=HORIZON)
    return list(held.view.spinners())


def distinct_finished(world: list[list[RunSnapshot]]) -> int:
    return sum(any(each.status.ended for each in history) for history in world)


@st.composite
def reads_in_time(draw: st.DrawFn, world: list[list[RunSnapshot]]) -> list[list[RunSnapshot]]:
    """Every snapshot of a world at least once, some in the next read too; shuffled within each read only."""
    once = sorted((each for history in world for each in history), key=lambda each: each.updated_at)
    cuts = sorted(draw(st.lists(st.integers(0, len(once)), max_size=4)))
    reads = [once[start:end] for start, end in zip([0, *cuts], [*cuts, len(once)], strict=True)]
    overlaps: list[list[RunSnapshot]] = [[]]
    for before in reads[:-1]:
        # What a read brings again is not older than what another one brought of the same run.
        newest = {each.id: each for each in before}
        overlaps.append(draw(st.lists(st.sampled_from(list(newest.values())), max_size=3)) if newest else [])
    return [list(draw(st.permutations(overlap + read))) for overlap, read in zip(overlaps, reads, strict=True)]


@settings(max_examples=300)
@given(st.data())
def test_any_order_within_a_read_gives_the_same_gauges_and_counts_each_finished_run_once(data: st.DataObject) -> None:
    world = data.draw(worlds())
    held = store(Clock(NOON + 600))
    for read in data.draw(reads_in_time(world)):
        read_project(held, "p1", [(each, each.updated_at) for each in read], as_of=NOON + 600, horizon=HORIZON)
    assert gauges(held) == gauges(in_order(world)), "look at Run.fold: it must not matter which snapshot comes first"
    (spinner,) = spinners_in_full(held)
    assert sum(spinner.counters.finished.values()) == distinct_finished(world), "look at Spinner.count"
    last = [history[-1].records for history in world]
    completed = [records.completed for records in last if records and records.completed is not None]
    failed = [records.failed for records in last if records and records.failed is not None]
    assert spinner.counters.completed_records == (sum(completed) if completed else None), "0 is not unknown"
    assert spinner.counters.failed_records == (sum(failed) if failed else None), "0 is not unknown"
    assert sum(spinner.runs.values()) == len(world)


@settings(max_examples=200)
@given(st.data())
def test_the_newest_read_decides_and_any_order_counts_each_finished_run_once(data: st.DataObject) -> None:
    """Within a read the newest `updatedAt` wins, so that an older page does not."""
    world = data.draw(worlds())
    held = store(Clock(NOON + 600))
    said: dict[str, RunSnapshot] = {}
    for read in data.draw(readings(world)):
        read_project(held, "p1", [(each, NOON + 600) for each in read], as_of=NOON + 600, horizon=HORIZON)
        said |= {each.id: each for each in sorted(read, key=lambda each: (each.updated_at, each.status.ended))}
    assert {shown.run.id: (shown.run.snapshot.updated_at, shown.run.status.ended) for shown in held.view.runs()} == {
        each.id: (each.updated_at, each.status.ended) for each in said.values()
    }
    (spinner,) = spinners_in_full(held)
    assert sum(spinner.counters.finished.values()) == distinct_finished(world)


@settings(max_examples=200)
@given(st.data())
def test_one_response_with_all_runs_equals_one_response_for_each(data: st.DataObject) -> None:
    """A read's runs are counted together, and some change twice in it."""
    reads = data.draw(readings(data.draw(worlds())))
    together, apart = store(Clock(NOON + 600)), store(Clock(NOON + 600))
    for read in reads:
        read_project(together, "p1", [(each, NOON + 600) for each in read], as_of=NOON + 600, horizon=HORIZON)
        with apart.reading("p1") as one_by_one:
            for each in read:
                one_by_one.apply([each], NOON + 600, horizon=HORIZON)
            one_by_one.complete(as_of=NOON + 600, since=HORIZON)
    assert gauges(together) == gauges(apart)
    assert spinners_in_full(together) == spinners_in_full(apart), "look at ProjectRuns.apply: what is counted, and when"


@settings(max_examples=200)
@given(st.data())
def test_time_that_passes_between_reads_changes_no_count_and_no_run_outlives_its_retention(data: st.DataObject) -> None:
    """Retention is as short as it gets, so that runs leave between the reads that still speak of them."""
    world = data.draw(worlds())
    clock = Clock(NOON + 600)
    held = store(clock, retention=data.draw(st.sampled_from((1.0, 60.0, 3600.0))), sync={"stale_after": 1e9})
    for read in data.draw(readings(world)):
        read_project(held, "p1", [(each, each.updated_at) for each in read], as_of=NOON + 600, horizon=HORIZON)
        clock.advance(data.draw(st.integers(0, 300)))
        held.expire()
        for shown in held.view.runs():
            ended_at = shown.run.ended_at
            assert ended_at is None or clock.now - ended_at <= held.config.retention
    (spinner,) = spinners_in_full(held)
    assert sum(spinner.counters.finished.values()) == distinct_finished(world)
    still_open = {history[0].id for history in world if not any(each.status.ended for each in history)}
    assert still_open <= {shown.run.id for shown in held.view.runs()}, "retention must not expire live work"


@settings(max_examples=200)
@given(st.data(), st.integers(1, 3))
def test_the_limit_on_runs_holds_after_every_read_and_changes_no_count(data: st.DataObject, limit: int) -> None:
    world = data.draw(worlds())
    held = store(Clock(NOON + 600), limits={"runs": limit})
    for read in data.draw(readings(world)):
        read_project(held, "p1", [(each, each.updated_at) for each in read], as_of=NOON + 600, horizon=HORIZON)
        held.expire()
        assert len(list(held.view.runs())) <= limit
    (spinner,) = spinners_in_full(held)
    assert sum(spinner.counters.finished.values()) == distinct_finished(world)


def totals(held: Store) -> list[object]:
    """What all spinners have counted together."""
    counted = [each.counters for each in spinners_in_full(held)]
    return [
        sum(each.started for each in counted),
        [sum(each.finished[status] for each in counted) for status in counted[0].finished],
        sum(each.completed_records or 0 for each in counted),
        sum(each.failed_records or 0 for each in counted),
        [sum(numbers) for numbers in zip(*(each.durations.counts for each in counted), strict=True)],
        [sum(each.runs.get(status, 0) for each in held.view.spinners()) for status in Status],
    ]


@settings(max_examples=200)
@given(st.data(), st.integers(1, 3))
def test_the_limit_on_spinners_holds_after_every_read_and_changes_no_sum(data: st.DataObject, limit: int) -> None:
    """Some spinners are really called `other`; some get a slot in between, when others leave."""
    names = st.sampled_from(("Import", "Mails", "Report", "Renewals", "other"))
    world = []
    for history in data.draw(worlds()):
        name = data.draw(names)
        world.append([msgspec.structs.replace(each, spinner=name) for each in history])
    clock = Clock(NOON + 600)
    limited, unlimited = store(clock, limits={"spinners": limit}), store(clock)
    for read in data.draw(readings(world)):
        for held in (limited, unlimited):
            read_project(held, "p1", [(each, each.updated_at) for each in read], as_of=NOON + 600, horizon=HORIZON)
            held.expire()
        shown = [each.spinner for each in limited.view.spinners()]
        assert len(set(shown) - {"other"}) <= limit
        assert len(shown) == len(set(shown))
    assert totals(limited) == totals(unlimited)
