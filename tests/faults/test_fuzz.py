"""Any JSON from the API results in a page that parses and has no duplicate series; the next good response is read."""

import asyncio
import json
from typing import Any

import httpx
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.metrics.formats import OPENMETRICS, TEXT
from tests.builders import NOON, Clock
from tests.metrics.test_exposition import parsed, samples, value
from tests.scripted import ScriptedRuntime, exporter_of

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=30)
    | st.sampled_from(["in_progress", "completed", "2026-01-05T09:00:00Z", "0001-01-01T00:00:00Z", "p1", "run-1"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)

JOB = {
    "id": "run-1", "projectId": "p1", "spinnerName": "welcome", "status": "in_progress", "trigger": "schedule",
    "parentJobId": None, "createdAt": "2025-11-24T11:00:00Z", "startedAt": "2025-11-24T11:00:01Z", "endedAt": None,
    "updatedAt": "2025-11-24T11:00:02Z", "lastProgressAt": None,
    "records": {"total": 10, "pending": 1, "running": 1, "waiting": 0, "completed": 5, "failed": 3},
    "failures": [{"step": "Mail", "errorCode": "BOUNCE", "count": 3}],
}  # fmt: skip
PROJECT = {"id": "p1", "name": "Sales"}
RECORD = {"id": "r1", "status": "failed", "failedStep": {"name": "Mail"}, "errorCode": "E", "endedAt": None}
METER = {"name": "jobs_month", "used": 1, "limit": 2, "resetsAt": None}
HEALTH = {"status": "ok", "runtime": {"status": "up", "workers": 2, "lastHeartbeatAt": "2025-11-24T11:00:00Z"}}


def damaged(item: dict[str, Any]) -> st.SearchStrategy[Any]:
    """An item with arbitrary values in some fields, or an arbitrary value instead of an item."""
    fields = st.dictionaries(st.sampled_from(sorted(item)), anything, max_size=3)
    return fields.map(lambda changed: {**item, **changed}) | anything


def lists(item: dict[str, Any], name: str = "items") -> st.SearchStrategy[Any]:
    page = st.lists(damaged(item), max_size=4).map(lambda items: {name: items, "asOf": "2025-11-24T12:00:00Z"})
    return page | st.fixed_dictionaries({name: anything, "nextCursor": anything, "asOf": anything}) | anything


RESPONSES = st.fixed_dictionaries(
    {
        "health": damaged(HEALTH),
        "projects": lists(PROJECT),
        "jobs": lists(JOB),
        "records": lists(RECORD),
        "usage": lists(METER, "meters"),
    }
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(RESPONSES, min_size=1, max_size=3))
def test_any_json_from_the_api_results_in_a_valid_page(rounds: list[dict[str, Any]]) -> None:
    asyncio.run(_read_all(rounds))


async def _read_all(rounds: list[dict[str, Any]]) -> None:
    clock = Clock(NOON)
    runtime = ScriptedRuntime(clock)
    exporter = exporter_of(runtime)
    for responses in rounds:

        def answer(request: httpx.Request, responses: dict[str, Any] = responses) -> httpx.Response:
            last = request.url.path.rstrip("/").rpartition("/")[2]
            document = responses.get(last, responses["jobs"])
            # As Python's encoder writes it: with NaN, Infinity and lone surrogates.
            return httpx.Response(200, content=json.dumps(document).encode())

        runtime.interfere = answer
        clock.advance(130)
        with structlog.testing.capture_logs() as lines:
            for page_format in (TEXT, OPENMETRICS):
                samples(str(await exporter.page(page_format)), page_format)
        assert "sync failed" not in str(lines), "the exporter itself failed"
    runtime.interfere = lambda request: None
    runtime.put("good", records={"total": 10, "completed": 7})
    for _ in range(2):
        clock.advance(130)
        page = str(await exporter.page())
    assert parsed(page, TEXT)
    assert value(samples(page), "spinner_run_records", run_id="good", state="completed") == 7, (
        "the next good response was not read"
    )
    await exporter.close()
