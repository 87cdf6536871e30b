"""Numbers as serializers write them: a whole number is read whatever its type, and what is none makes no other one."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from exporter.config import RuntimeConfig
from tests.builders import runtime_config
from tests.faults.bench import bench, described
from tests.faults.server import Exchange
from tests.metrics.test_exposition import Samples, value

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


@pytest.mark.parametrize("odd", ["1e2", "1_0", "٣", " 5", "0x10", "", "-1", "5.5", 5.5, -1.0, True, [5], 1e300])
@pytest.mark.parametrize("runtime", [runtime_config, MAPPED], ids=["contract", "described"])
async def test_what_is_no_whole_number_makes_its_run_invalid(
    runtime: Callable[[str], RuntimeConfig], odd: object
) -> None:
    async with bench(runtime=runtime) as made:
        made.runtime.put(records={"total": 10, "completed": odd})
        made.runtime.put("other")
        found = await made.next()
    assert value(found, "spinner_run_status", run_id="run-1") is None
    assert value(found, "spinner_run_status", run_id="other") == 1
    assert value(found, "spinner_exporter_invalid_items_total", kind="job") == 2, "in two lists"


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
