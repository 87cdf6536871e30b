"""Runs as other job systems tell them: ends before starts, ends of runs that go on, and groups of failures twice."""

import pytest

from tests.builders import NOON, Clock
from tests.faults.bench import bench, two_projects
from tests.metrics.test_exposition import value


@pytest.mark.parametrize("early", [1, 30, 900])
async def test_a_run_that_ends_before_it_starts_took_no_time(early: float) -> None:
    """phsmith/rundeck_exporter#41, actions/actions-runner-controller#4611: a sum that decreases is a counter reset."""
    async with bench(two_projects(Clock())) as made:
        await made.next()
        made.runtime.put("long", status="completed", startedAt=NOON - 100, endedAt=NOON)
        before = value(await made.next(), "spinner_run_finished_duration_seconds_sum", project="Sales")
        made.runtime.put("odd", status="failed", startedAt=NOON, endedAt=NOON - early, createdAt=NOON + early)
        found = await made.next()
    assert value(found, "spinner_run_duration_seconds", run_id="odd") == 0
    assert value(found, "spinner_run_finished_duration_seconds_sum", project="Sales") == before == 100
    assert value(found, "spinner_run_finished_duration_seconds_count", project="Sales") == 2
    assert (value(found, "spinner_run_queue_seconds_sum", project="Sales") or 0) >= 0


async def test_a_run_that_was_started_again_has_not_ended_whatever_its_end_says() -> None:
    """apache/airflow#30124: a cleared run keeps times of its earlier attempt."""
    async with bench(two_projects(Clock())) as made:
        made.runtime.put("run-1", status="completed", endedAt=NOON)
        await made.next()
        made.runtime.put("run-1", status="in_progress", endedAt=NOON, records={"total": 10, "completed": 1})
        found = await made.next()
    assert value(found, "spinner_run_end_timestamp_seconds", run_id="run-1") is None
    assert value(found, "spinner_run_stall_threshold_seconds", run_id="run-1") is not None, "it can stall again"
    assert value(found, "spinner_run_duration_seconds", run_id="run-1") == made.runtime.clock() - NOON + 5


async def test_groups_of_failures_with_the_same_labels_are_one_series() -> None:
    """kubernetes/kube-state-metrics#2834: of a page with a series twice Prometheus reads nothing, or a part."""
    groups = [
        ("send", "E1"),
        ("send\n", "E1"),
        ("send", "E1"),
        ("other", "other"),
        ("x" * 200, "E2"),
        ("x" * 300, "E2"),
    ]
    async with bench(two_projects(Clock())) as made:
        failures = [{"step": step, "errorCode": code, "count": 2} for step, code in groups]
        more = [{"step": f"step {number}", "errorCode": "E3", "count": 1} for number in range(20)]
        made.runtime.put("run-1", records={"total": 99, "failed": 32}, failures=failures + more)
        made.runtime.failed_records["run-1"] = [
            {"id": "record", "jobId": "run-1", "status": "failed", "failedStep": {"name": step}, "errorCode": code}
            for step, code in groups
        ]
        found = await made.next()
    assert value(found, "spinner_run_failures", run_id="run-1", step="send", error_code="E1") == 6
    counts = [number for (name, _), number in found.items() if name == "spinner_run_failures"]
    assert sum(counts) == 32
