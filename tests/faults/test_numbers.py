"""Numbers as serializers write them: a whole number is read whatever its type, and what is none makes no other one."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from exporter.config import RuntimeConfig
from exporter.config.values import Duration
from tests.builders import NOON, runtime_config
from tests.faults.bench import bench, described
from tests.faults.server import Exchange
from tests.metrics.test_exposition import Samples, value
from tests.scripted import rfc3339

WAYS: dict[str, Callable[[int], Any]] = {"floats": float, "texts": str}
"""As JavaScript and Lua write all numbers (msgspec/msgspec#613), and protobuf those of 64 bits (grpc-gateway#438)."""

COUNTS = {
    f"records.{state}": f"records.{state}"
    for state in ("total", "pending", "running", "waiting", "completed", "failed")
}
FIELDS = {each: each for each in ("id", "projectId", "spinnerId", "spinnerName", "status", "createdAt", "startedAt")}
MAPPED = described(jobs={"fields": {**FIELDS, **COUNTS, "updatedAt": "updatedAt", "failures": "failures"}})
"""An API whose runs are described, so that they are not read by the contract's types."""


def written(way: Callable[[int], Any], document: Any) -> Any:
    """A document with all its whole numbers in another way."""
    if isinstance(document, dict):
        return {key: written(way, each) for key, each in document.items()}
    if isinstance(document, list):
        return [written(way, each) for each in document]
    return way(document) if type(document) is int else document


def shown(found: Samples) -> list[float | None]:
    return [
        value(found, "spinner_run_total_records", run_id="run-1"),
        value(found, "spinner_run_records", run_id="run-1", state="completed"),
        value(found, "spinner_run_failed_records", run_id="run-1"),
        value(found, "spinner_run_failures", run_id="run-1", step="send", error_code="E1"),
        value(found, "spinner_runtime_workers"),
        value(found, "spinner_plan_used", meter="records_month"),
        value(found, "spinner_plan_limit", meter="records_month"),
    ]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("runtime", [runtime_config, MAPPED], ids=["contract", "described"])
async def test_a_whole_number_is_read_however_it_is_written(runtime: Callable[[str], RuntimeConfig], way: str) -> None:
    async def rewrite(exchange: Exchange) -> None:
        document = exchange.document if exchange.response.content else None
        if exchange.request.url.path.endswith("/usage"):
            document = {"meters": [{"name": "records_month", "used": 40, "limit": 50_000}]}
        body = b"" if document is None else json.dumps(written(WAYS[way], document)).encode()
        await exchange.send(body)

    async with bench(runtime=runtime, fault=rewrite) as made:
        for done in (70, 80):
            records = {"total": 100, "pending": 7, "running": 0, "waiting": 0, "completed": done, "failed": 3}
            failures = [{"step": "send", "errorCode": "E1", "count": 3}]
            made.runtime.put(records=records, failures=failures)
            found = await made.next()
            assert shown(found) == [100, done, 3, 3, 2, 40, 50_000]
    assert made.problems == []


ODD = ["1e2", "1_0", "٣", " 5", "0x10", "", "-1", "5.5", 5.5, -1, -1.0, True, [5], 1e300, 2**63]
"""What is no count."""


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("runtime", [runtime_config, MAPPED], ids=["contract", "described"])
async def test_what_is_no_count_is_unknown_and_its_run_stays(
    runtime: Callable[[str], RuntimeConfig], odd: object
) -> None:
    async with bench(runtime=runtime) as made:
        made.runtime.put("other")
        for done in (5, 6):
            # As an API has it that computes what is pending from the other counts.
            made.runtime.put(records={"total": 10, "completed": done, "pending": odd, "failed": 0})
            found = await made.next()
            assert value(found, "spinner_run_records", run_id="run-1", state="completed") == done
            assert value(found, "spinner_run_records", run_id="run-1", state="pending") is None
            assert value(found, "spinner_run_progress_ratio", run_id="run-1") == done / 10
            assert value(found, "spinner_exporter_invalid_items_total", kind="job") == 1, "of each run and field once"
        made.runtime.put("other", records={"completed": odd, "waiting": odd})
        found = await made.next()
    assert value(found, "spinner_run_status", run_id="other") == 1
    assert value(found, "spinner_run_records", run_id="other", state="completed") is None
    assert value(found, "spinner_exporter_invalid_items_total", kind="job") == 3
    assert len(made.problems) == 3, "each field is a line in the log"


@pytest.mark.parametrize("runtime", [runtime_config, MAPPED], ids=["contract", "described"])
async def test_a_run_with_a_count_that_is_none_is_read_to_its_end(runtime: Callable[[str], RuntimeConfig]) -> None:
    async with bench(runtime=runtime, sync={"overlap": Duration(0), "sweep_interval": Duration(0)}) as made:
        made.runtime.put(records={"total": 10, "completed": 5, "pending": 5})
        await made.next()
        made.runtime.put(records={"total": 10, "completed": 11, "pending": -1})
        await made.next()
        made.runtime.put(records={"total": 10, "completed": 12, "pending": -2}, status="completed", endedAt=NOON)
        found = await made.next()
    assert value(found, "spinner_run_status", run_id="run-1", status="completed") == 1
    assert value(found, "spinner_run_records", run_id="run-1", state="completed") == 12


GROUP = {"step": "send", "errorCode": "E1", "count": 3}


@pytest.mark.parametrize(
    ("failures", "groups"),
    [
        ([GROUP, {"step": "call", "count": -1}, None, {"step": 7, "count": 1}], 1),
        ([GROUP, {"step": "call", "errorCode": 502, "count": 1}], 2),
        ([None], 0),
        (3, 0),
        ("none", 0),
    ],
)
@pytest.mark.parametrize("runtime", [runtime_config, MAPPED], ids=["contract", "described"])
async def test_a_group_of_failures_that_is_none_costs_neither_its_run_nor_the_other_groups(
    runtime: Callable[[str], RuntimeConfig], failures: object, groups: int
) -> None:
    async with bench(runtime=runtime) as made:
        made.runtime.put(records={"total": 10, "completed": 5, "failed": 4}, failures=failures)
        found = await made.next()
    assert value(found, "spinner_run_records", run_id="run-1", state="completed") == 5
    shown = [labels for name, labels in found if name == "spinner_run_failures"]
    assert len(shown) == groups
    if groups == 2:
        assert value(found, "spinner_run_failures", run_id="run-1", step="call", error_code="502") == 1


@pytest.mark.parametrize("field", ["trigger", "parentJobId"])
async def test_a_fact_of_a_run_that_is_no_text_is_unknown(field: str) -> None:
    async with bench() as made:
        made.runtime.put()
        made.runtime.jobs["run-1"][field] = ["x"]
        found = await made.next()
    assert value(found, "spinner_run_status", run_id="run-1") == 1
    assert value(found, "spinner_run_info", run_id="run-1", trigger="schedule" if field != "trigger" else "") == 1


@pytest.mark.parametrize("workers", ["four", -1, [4], True])
async def test_a_number_of_workers_that_is_no_number_costs_no_health(workers: object) -> None:
    async with bench() as made:
        runtime = {"status": "up", "lastHeartbeatAt": rfc3339(NOON), "workers": workers}
        made.runtime.health = {"status": "ok", "runtime": runtime}
        found = await made.next()
    assert (value(found, "spinner_api_up"), value(found, "spinner_runtime_up")) == (1, 1)
    assert value(found, "spinner_runtime_workers") is None
    assert value(found, "spinner_exporter_invalid_items_total", kind="health") == 1


async def test_an_expression_that_does_not_fit_a_count_costs_the_count_alone() -> None:
    fields = {**FIELDS, **COUNTS, "updatedAt": "updatedAt", "records.running": "length(active)"}
    async with bench(runtime=described(jobs={"fields": fields})) as made:
        made.runtime.put(records={"total": 10, "completed": 5})
        found = await made.next()
    assert value(found, "spinner_run_records", run_id="run-1", state="completed") == 5
    assert value(found, "spinner_run_records", run_id="run-1", state="running") is None
    assert value(found, "spinner_exporter_invalid_items_total", kind="job") == 1


ID = 9_007_199_254_740_993
"""2^53 + 1: a program whose numbers are all floats reads another one."""


@pytest.mark.parametrize("length", ["64 bits", "more"])
@pytest.mark.parametrize("runtime", [runtime_config, MAPPED], ids=["contract", "described"])
async def test_ids_that_are_large_numbers_are_read_exactly(
    runtime: Callable[[str], RuntimeConfig], length: str
) -> None:
    """brettlangdon/node-dogapi#16: two runs whose ids differ in the last digit are not one."""
    first = ID if length == "64 bits" else ID * 10**9
    async with bench(runtime=runtime) as made:
        for number in (first, first + 1):
            made.runtime.put(str(number), id=number, spinnerId=number)
        found = await made.next()
    runs = {dict(labels)["run_id"] for name, labels in found if name == "spinner_run_info"}
    assert runs == {str(first), str(first + 1)}
    assert made.problems == []
