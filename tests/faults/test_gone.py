"""A run leaves as gone only when its own resource says so: an error is not an absence."""

import json
from typing import Any

import msgspec
import pytest

from exporter.config.api_description import Resource, Resources
from exporter.errors import ConfigError
from exporter.runtime.layout import Layout
from tests.builders import Clock, resources
from tests.faults.bench import two_projects
from tests.faults.server import Exchange, Fault, FaultyRuntime
from tests.faults.test_transport import exporter, scrapes
from tests.metrics.test_exposition import Samples, value

GONE = "data.runs.results == `[]`"


def wrapped(**more: Any) -> Resources:
    """The contract's API, but a single run is in a list, as in GraphQL."""
    contract = resources()
    job = {"path": "/api/v1/jobs/{run}", "item": "data.runs.results[0]", **more}
    return msgspec.structs.replace(contract, job=msgspec.convert(job, Resource))


def answers(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Fault:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda exchange: exchange.send(content, status=status, headers=headers)


async def sweep(fault: Fault, described: Resources | None = None, *, runs: int = 3) -> tuple[Samples, list[Any]]:
    """Let runs vanish from the lists of project Sales, and scrape when a sweep reads each by its id."""
    clock = Clock()
    runtime = two_projects(clock)
    for number in range(runs):
        runtime.put(f"lost-{number}")
    hide_lost = False

    async def answer(exchange: Exchange) -> None:
        path = exchange.request.url.path
        if path.startswith("/api/v1/jobs/lost-") and not path.endswith("/records"):
            await fault(exchange)
        elif hide_lost and path.endswith("/p1/jobs") and exchange.response.content:
            items = [item for item in exchange.document["items"] if not item["id"].startswith("lost")]
            await exchange.send(json.dumps({**exchange.document, "items": items}).encode(), headers={"ETag": ""})
        else:
            await exchange.send()

    async with FaultyRuntime(runtime, fault=answer).serving() as url:
        made = exporter(url, clock, resources=described)
        await scrapes(made, clock, times=1)
        hide_lost = True
        clock.advance(120)
        found, lines = await scrapes(made, clock)
        await made.close()
    return found, lines


def shown(found: Samples) -> int:
    return sum(value(found, "spinner_run_status", run_id=f"lost-{number}") is not None for number in range(3))


ERRORS: list[tuple[str, Fault, Resources | None]] = [
    ("an error in a 200", answers({"error": "database timeout", "errorCode": "DB"}), None),
    ("an empty object", answers({}), None),
    ("null", answers(b"null"), None),
    ("a GraphQL error", answers({"errors": [{"message": "timeout"}], "data": None}), wrapped()),
    ("a GraphQL error with data", answers({"errors": ["x"], "data": {"runs": None}}), wrapped(gone=GONE)),
    ("a typed error", answers({"data": {"runs": {"__typename": "PythonError"}}}), wrapped(gone=GONE)),
    ("nothing where the run should be", answers({"data": {"runs": {"results": []}}}), wrapped()),
    ("403", answers(b"", status=403), None),
    ("400", answers(b"", status=400), None),
    ("500", answers(b"", status=500), None),
    ("a redirect", answers(b"", status=302, headers={"Location": "/gone"}), None),
    ("204", answers(b"", status=204), None),
]


@pytest.mark.parametrize(("fault", "described"), [each[1:] for each in ERRORS], ids=[each[0] for each in ERRORS])
async def test_an_error_about_a_run_is_not_its_absence(fault: Fault, described: Resources | None) -> None:
    found, lines = await sweep(fault, described)
    assert shown(found) == 3
    assert value(found, "spinner_exporter_runs_dropped_total", reason="gone") in (None, 0)
    assert [line["what"] for line in lines if line["event"] == "cannot read"] == ["job"], lines
    assert "gone" not in str([line["event"] for line in lines])


@pytest.mark.parametrize(
    ("fault", "described"),
    [
        (answers(b"", status=404), None),
        (answers(b"", status=410), None),
        (answers(b"<html>", status=404, headers={"Content-Type": "text/html"}), None),
        (answers({"data": {"runs": {"results": []}}}), wrapped(gone=GONE)),
        (answers({"code": "NO_SUCH_RUN"}, status=400), wrapped(gone="code == 'NO_SUCH_RUN'", accept=[200, 400])),
    ],
    ids=["404", "410", "404 as HTML", "as described", "a status that is described"],
)
async def test_runs_whose_resource_is_gone_leave_and_are_logged_with_their_number(
    fault: Fault, described: Resources | None
) -> None:
    found, lines = await sweep(fault, described)
    assert shown(found) == 0
    assert value(found, "spinner_exporter_runs_dropped_total", reason="gone") == 3
    (line,) = lines
    assert (line["event"], line["runs"], line["project"]) == ("runs are gone", 3, "Sales")


@pytest.mark.parametrize("counts", ["job", "records"])
async def test_records_that_are_gone_do_not_remove_their_run(counts: str) -> None:
    clock = Clock()
    runtime = two_projects(clock)
    runtime.put("run-1", records={"total": 10, "completed": 5, "failed": 2})
    runtime.failed_records["run-1"] = [{"id": "r1", "status": "failed"}]
    faulty = FaultyRuntime(runtime, path="/records")
    async with faulty.serving() as url:
        made = exporter(url, clock, resources=msgspec.structs.replace(resources(), counts=counts))
        await scrapes(made, clock, times=1)
        faulty.fault = answers(b"", status=404)
        runtime.put("run-1", records={"total": 10, "completed": 5, "failed": 3})
        clock.advance(120)
        found, lines = await scrapes(made, clock)
        await made.close()
    assert value(found, "spinner_run_status", run_id="run-1", status="running") == 1
    assert value(found, "spinner_exporter_runs_dropped_total", reason="gone") in (None, 0)
    assert "gone" not in str([line["event"] for line in lines])


@pytest.mark.parametrize("job", ["absent", "present"])
@pytest.mark.parametrize("named", [{"error": "timeout"}, {"errors": [{"message": "timeout"}]}], ids=["error", "errors"])
@pytest.mark.parametrize("style", ["contract", "described"])
async def test_an_empty_list_that_names_an_error_is_an_error(job: str, named: dict[str, Any], style: str) -> None:
    clock = Clock()
    described = resources()
    jobs = msgspec.structs.replace(described.jobs, changed=None, active=None)
    if style == "described":
        fields = {name: name for name in ("id", "spinnerName", "status", "createdAt", "updatedAt")}
        jobs = msgspec.structs.replace(jobs, fields=fields)
    described = msgspec.structs.replace(described, jobs=jobs, job="absent" if job == "absent" else described.job)
    faulty = FaultyRuntime(two_projects(clock), path="/p1/jobs")
    async with faulty.serving() as url:
        made = exporter(url, clock, resources=described)
        await scrapes(made, clock, times=1)
        faulty.fault = answers({"items": [], "nextCursor": None, "asOf": "2025-11-24T16:00:00Z", **named})
        clock.advance(120)
        found, lines = await scrapes(made, clock)
        await made.close()
    assert value(found, "spinner_project_up", project="Sales") == 0
    assert value(found, "spinner_run_status", run_id="run-1", status="running") == 1
    assert "names an error" in str(lines)
    assert "timeout" not in str(lines)


def test_gone_is_for_single_runs_and_a_valid_expression() -> None:
    with pytest.raises(ConfigError, match=r"runtime\.resources\.job\.gone: invalid JMESPath"):
        Layout("job", Resource(path="/x", gone="a[?"))
    with pytest.raises(msgspec.ValidationError, match=r"jobs\.gone: only job can have it"):
        msgspec.convert(
            {
                "health": "absent",
                "projects": "absent",
                "jobs": {"path": "/x", "gone": "a"},
                "job": "absent",
                "records": "absent",
                "usage": "absent",
            },
            Resources,
        )
