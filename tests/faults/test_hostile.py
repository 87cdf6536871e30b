"""Hostile values in every header and every field that is read: one costs its item or its project alone.

A healthy project beside it stays up, `spinner_api_up` stays 1, nothing is logged with a traceback, and the page of the
project says what is wrong.
"""

import contextlib
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import structlog

from exporter.config import load
from exporter.config.api_description import FieldSource, Resources
from exporter.doctor import suggest_from_responses
from exporter.doctor.examination import examine
from exporter.doctor.guesses import SuggestError
from exporter.runtime.decoder import Decoder
from exporter.service import Exporter
from tests.builders import NOON, Clock, only_runtime
from tests.builders import resources as contract
from tests.faults.bench import two_projects, up
from tests.faults.server import Exchange, FaultyRuntime
from tests.faults.test_fuzz import HEALTH, JOB, METER, PROJECT, RECORD
from tests.faults.test_transport import exporter
from tests.metrics.test_exposition import Samples, samples, value
from tests.scripted import ScriptedRuntime, exporter_of

HEADERS = (
    "ETag", "Link", "Retry-After", "X-RateLimit-Remaining", "X-RateLimit-Reset", "X-RateLimit-Reset-After",
    "RateLimit", "Date", "Content-Type", "Content-Encoding", "Content-Length", "Transfer-Encoding",
    "X-Unknown",
)  # fmt: skip

MANY = 60_000
"""Bytes of a long header: the HTTP client accepts up to 100 kB of them."""

IN_HEADERS = (
    b"", b"\xc3\xa9", b"\xe9", b"\xff\xfe", b'"', b"-1", b"NaN", b"1e999", b"9" * 400, b"9" * 5000, b"a\x0bb",
    b"a\x00b", b"<" * MANY, b"<a>" + b"; " * (MANY // 2), b"<a>;" + b" rel" * (MANY // 4), b'<a>;rel="' * (MANY // 9),
    b"," * MANY,
    b'<http://[>; rel="next"', b"<http://[::1>; rel=next", b"<?%ff%00=\xc3\xa9>; rel=next",
    b"<?a=" + b"1" * MANY + b">; rel=next", b"Mon, 01 Jan 0001 00:00:00 +2359", b"Fri, 31 Dec 9999 23:59:59 -2359",
    b"Thu, 99 Foo 99999 99:99:99 GMT", b"(" * MANY, b'"' * MANY, b"\\" * MANY, b"." * MANY,
    b"0001-01-01T00:00:00+23:59", b"9999-12-31T23:59:59-23:59", b"application/json; charset=utf-32-\xff",
    b"text/html; charset=../../x", b"chunked, chunked", b"gzip, gzip", b"br" * 1000,
    b"limit=1, remaining=0, reset=" + b"9" * 5000, b'"a";r=0;t=' + b"1" * 400, b";r=0" * (MANY // 4),
)  # fmt: skip


OF_RATE_LIMITS = ("Retry-After", "X-RateLimit-Remaining", "X-RateLimit-Reset", "RateLimit")


@pytest.mark.parametrize(
    ("header", "status"), [*((header, 200) for header in HEADERS), *((header, 503) for header in OF_RATE_LIMITS)]
)
async def test_a_header_costs_at_most_its_project(header: str, status: int) -> None:
    clock = Clock(NOON)
    hostile = b""

    async def fault(exchange: Exchange) -> None:
        body = exchange.response.content
        fields = {b"Date": exchange.response.headers["Date"].encode(), b"Content-Length": str(len(body)).encode()}
        if header == "Transfer-Encoding":
            del fields[b"Content-Length"]
        fields[header.encode()] = hostile
        head = b"".join(name + b": " + content + b"\r\n" for name, content in fields.items())
        exchange.writer.write(b"HTTP/1.1 %d X\r\nConnection: close\r\n%s\r\n%s" % (status, head, body))
        await exchange.writer.drain()

    faulty = FaultyRuntime(two_projects(clock), fault=fault, path="/projects/p1/jobs")
    async with faulty.serving() as url:
        for hostile in IN_HEADERS:
            made = exporter(url, clock)
            found, lines = await _scrape(made, clock)
            api, _, healthy = up(found)
            assert healthy == 1 or _pauses(lines), f"{header}: {hostile[:40]!r} costs another project: {lines}"
            assert api == 1 or _pauses(lines), f"{header}: {hostile[:40]!r} costs the API: {lines}"
            assert not _bugs(lines), f"{header}: {hostile[:40]!r}"
            _check_that_the_page_says_why(made, lines)
            await made.close()


def _pauses(lines: list[Any]) -> bool:
    """Whether the runtime asked for a pause, which is for all projects."""
    return "asked us to wait" in str(lines)


async def _scrape(made: Exporter, clock: Clock) -> tuple[Samples, list[Any]]:
    clock.advance(130)
    with structlog.testing.capture_logs() as lines:
        page = str(await made.page(max_wait=20))
    return samples(page), lines


def _bugs(lines: list[Any]) -> list[Any]:
    return [line for line in lines if "exc_info" in line or "unforeseen" in str(line) or line["log_level"] == "error"]


def _check_that_the_page_says_why(made: Exporter, lines: list[Any]) -> None:
    (monitored,) = made.runtimes.values()
    errors = {project.name: project.error for project in monitored.store.view.projects()}
    logged = [line for line in lines if line.get("what") == "project" and line["event"] == "cannot read"]
    if logged and not any(line["event"] == "recovered" for line in lines):
        assert errors["Sales"], f"no error for the landing page: {lines}"


# -- fields -----------------------------------------------------------------------------------------------------------

IN_FIELDS = {
    "null": "null", "true": "true", "0": "0", "-1": "-1", "2^63": str(2**63), "2^64": str(2**64), "2^70": str(2**70),
    "400 digits": "1" * 400, "1e999": "1e999", "-1e999": "-1e999", "1e308": "1e308", "NaN": "NaN", "inf": "Infinity",
    "1.5": "1.5", "empty": '""', "space": '" "', "half a character": '"\\ud800"', "two halves": '"\\udfff\\ud800"',
    "NUL": '"\\u0000"', "direction": '"\\u202eabc"', "line": '"a\\nb"', "header": '"a\\r\\nX: y"', "dots": '".."',
    "path": '"../../x?y#z"', "place": '"{project}"', "long": '"' + "a" * 100_000 + '"',
    "text of digits": f'"{"9" * 6000}"',
    "text NaN": '"NaN"', "list": "[]", "object": "{}", "nested": "[" * 400 + "]" * 400,
    "nested objects": '{"createdAt":' * 400 + "1" + "}" * 400, "year 1": '"0001-01-01T00:00:00+23:59"',
    "year 9999": '"9999-12-31T23:59:59-23:59"', "year -1": '"-0001-01-01T00:00:00Z"',
    "year 99999": '"99999-01-01T00:00:00Z"',
    "long year": f'"{"1" * 5000}-01-01"', "other digits": '"\\u0663\\u0663\\u0663\\u0663-01-01T00:00:00Z"',
    "URL": '"https://elsewhere.test/?token=x"',
}  # fmt: skip

WHOLE = {
    "5,000 digits": "1" * 5000,
    "deeply nested": "[" * 100_000 + "]" * 100_000,
    "deeply nested objects": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "not closed": "[" * 100_000,
}
"""What no decoder reads, so that it costs its whole response."""

MARK = "value of the attacker"


def places(item: Mapping[str, Any], above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, below in item.items():
        yield (*above, key)
        if isinstance(below, dict):
            yield from places(below, (*above, key))
        elif isinstance(below, list):
            yield from places(below[0], (*above, key, 0))


def with_mark(item: Mapping[str, Any], place: tuple[Any, ...]) -> Any:
    changed = json.loads(json.dumps(item))
    at = changed
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = MARK
    return changed


def body_of(document: Any, hostile: str) -> bytes:
    return json.dumps(document).replace(json.dumps(MARK), hostile).encode()


LISTS: Mapping[str, tuple[str, str, dict[str, Any]]] = {
    "jobs": ("/projects/p1/jobs", "items", JOB),
    "projects": ("/api/v1/projects", "items", PROJECT),
    "records": ("/jobs/run-1/records", "items", RECORD),
    "usage": ("/usage", "meters", METER),
}


def _runtime(clock: Clock) -> ScriptedRuntime:
    runtime = two_projects(clock)
    runtime.put("run-1", records={"total": 10, "completed": 5, "failed": 1})
    return runtime


def _answering(runtime: ScriptedRuntime, path: str, body: bytes) -> None:
    date = {"Date": runtime._date()}
    runtime.interfere = lambda request: (
        httpx.Response(200, content=body, headers=date) if request.url.path.endswith(path) else None
    )


@pytest.mark.parametrize(
    ("resource", "place"), [(name, place) for name, (*_, item) in LISTS.items() for place in places(item)], ids=str
)
async def test_a_field_costs_its_item_alone(tmp_path: Path, resource: str, place: tuple[Any, ...]) -> None:
    """In one list with what is valid: the state file is written, too."""
    path, key, item = LISTS[resource]
    clock = Clock(NOON)
    runtime = _runtime(clock)
    made = exporter_of(runtime, storage=tmp_path)
    await _scrape(made, clock)
    for number, (name, hostile) in enumerate(IN_FIELDS.items()):
        good = [{"id": "p1", "name": "Sales"}, {"id": "p2", "name": "Support"}] if resource == "projects" else [item]
        odd = with_mark({**item, "id": "odd", "name": "odd"} if "name" in item else {**item, "id": "odd"}, place)
        runtime.put("run-1", records={"total": 10, "completed": 5, "failed": number + 2})
        _answering(runtime, path, body_of({key: [*good, odd], "nextCursor": None, "asOf": None}, hostile))
        found, lines = await _scrape(made, clock)
        assert up(found) == (1, 1, 1), f"{place}: {name}: {lines}"
        assert not _bugs(lines), f"{place}: {name}: {lines}"
        if resource == "jobs":
            assert value(found, "spinner_run_info", run_id="run-1") == 1, "the other run of the list is lost"
    await made.close()


@pytest.mark.parametrize("resource", LISTS)
async def test_a_response_that_cannot_be_decoded_costs_what_it_is_for(resource: str) -> None:
    path, key, item = LISTS[resource]
    clock = Clock(NOON)
    documents: list[Any] = [{key: [item], each: MARK} for each in ("nextCursor", "asOf", key)]
    documents += [MARK, {key: [{**item, "more": MARK}]}, {key: [], "error": MARK}]
    runtime = _runtime(clock)
    made = exporter_of(runtime)
    await _scrape(made, clock)
    failed = itertools.count(2)
    for hostile in (*IN_FIELDS.values(), *WHOLE.values()):
        for document in documents:
            runtime.put("run-1", records={"total": 1000, "completed": 5, "failed": next(failed)})
            _answering(runtime, path, body_of(document, hostile))
            found, lines = await _scrape(made, clock)
            api, _, healthy = up(found)
            assert not _bugs(lines), f"{document} with {hostile[:40]}: {lines}"
            if resource != "projects":
                assert (api, healthy) == (1, 1), f"{document} with {hostile[:40]}: {lines}"
    await made.close()


@pytest.mark.parametrize("place", [*places(HEALTH), None], ids=str)
async def test_a_state_of_the_worker_service_costs_itself_alone(place: tuple[Any, ...] | None) -> None:
    clock = Clock(NOON)
    runtime = _runtime(clock)
    made = exporter_of(runtime)
    for hostile in (*IN_FIELDS.values(), *WHOLE.values()):
        _answering(runtime, "/health", body_of(with_mark(HEALTH, place) if place else MARK, hostile))
        found, lines = await _scrape(made, clock)
        assert up(found)[1:] == (1, 1)
        assert not _bugs(lines), lines
    await made.close()


# -- expressions ------------------------------------------------------------------------------------------------------

EXPRESSIONS = (
    "contains(v, 'a')", "ceil(v)", "floor(v)", "abs(v)", "avg(v)", "sum(v)", "max(v)", "min(v)", "keys(v)", "values(v)",
    "join('', v)", "length(v)", "reverse(v)", "sort(v)", "sort_by(v, &a)", "max_by(v, &a)", "map(&a, v)", "merge(v, v)",
    "not_null(v)", "starts_with(v, 'a')", "ends_with(v, 'a')", "to_array(v)", "to_number(v)", "to_string(v)", "type(v)",
    "v[*].a", "v[]", "v[?a > `1`]", "v.a", "v[::-1]", "v > `1`", "[v, v]", "{a: v}", "v | [0]", "floor(to_number(v))",
    "ceil(to_number(to_string(v)))",
)  # fmt: skip


def mapped(path: str, convert: str | None) -> Resources:
    """The contract's API, described field by field, with an expression for a text, a number and a time."""
    found = contract()
    fields: dict[str, Any] = {
        "id": "id", "projectId": "projectId", "spinnerName": "spinnerName", "status": "status",
        "createdAt": "createdAt",
        "records.total": path, "records.completed": "records.completed", "trigger": path, "ref.x": path,
        "lastProgressAt": FieldSource(path=path, convert=convert),  # type: ignore[arg-type]
    }  # fmt: skip
    return msgspec.structs.replace(found, jobs=msgspec.structs.replace(found.jobs, fields=fields))


@pytest.mark.parametrize("convert", ["rfc3339", "epoch_ms"])
async def test_an_expression_that_raises_costs_its_item_alone(convert: str) -> None:
    clock = Clock(NOON)
    for path in EXPRESSIONS:
        runtime = _runtime(clock)
        made = exporter_of(runtime, described={"resources": mapped(f"v && ({path})", convert)})
        odd = [body_of({**JOB, "id": f"odd-{n}", "v": MARK}, each) for n, each in enumerate(IN_FIELDS.values())]
        good = json.dumps({**JOB, "v": None, "id": "good"}).encode()
        without = json.dumps({**JOB, "id": "without"}).encode()
        page = b'{"items": [' + b",".join([good, *odd, without]) + b'], "nextCursor": null, "asOf": null}'
        _answering(runtime, "/projects/p1/jobs", page)
        found, lines = await _scrape(made, clock)
        assert up(found)[0::2] == (1, 1), f"{path}: {lines}"
        assert not _bugs(lines), f"{path}: {lines}"
        _check_that_the_page_says_why(made, lines)
        await made.close()


async def test_a_bug_that_an_item_causes_costs_this_item_and_is_one_line_with_its_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(NOON)
    runtime = _runtime(clock)
    runtime.put("odd", trigger="odd")
    made = exporter_of(runtime)
    real = Decoder._run

    def faulty(self: Decoder, known: Any, wire: Any, bounds: Any) -> Any:
        if wire.trigger == "odd":
            raise ZeroDivisionError("a secret of the response")
        return real(self, known, wire, bounds)

    monkeypatch.setattr(Decoder, "_run", faulty)
    lines = []
    for _ in range(5):
        found, more = await _scrape(made, clock)
        lines += more
    assert up(found) == (1, 1, 1)
    assert value(found, "spinner_run_info", run_id="run-1") == 1
    (line,) = [line for line in lines if "exc_info" in line]
    assert line["reason"].startswith("unforeseen ZeroDivisionError in test_hostile.py:")
    await made.close()


ALL = {**IN_FIELDS, **WHOLE}


@pytest.mark.parametrize("kind", range(3))
@pytest.mark.parametrize("name", list(ALL))
async def test_the_doctor_reports_whatever_it_gets(name: str, kind: int) -> None:
    runtime = _runtime(Clock(NOON))
    items: dict[str, tuple[str | None, dict[str, Any]]] = {
        "health": (None, HEALTH), "run-1": (None, JOB), **{last: (key, item) for last, (_, key, item) in LISTS.items()}
    }  # fmt: skip

    def answer(request: httpx.Request) -> httpx.Response:
        key, item = items[request.url.path.rpartition("/")[2]]
        odd = {field: value if field == "id" else MARK for field, value in item.items()}
        envelope = {key: [item], "nextCursor": MARK, "asOf": MARK}
        documents = [{key: [item, odd]}, envelope, MARK] if key else [odd, item, MARK]
        return httpx.Response(200, content=body_of(documents[kind], ALL[name]))

    runtime.interfere = answer
    async with FaultyRuntime(runtime).serving() as url:
        config = only_runtime(load(None, environ={"SPINNER_EXPORTER_RUNTIME_BASE_URL": url}))
        diagnosis = await examine(config)
        assert "unforeseen" not in diagnosis.as_text()
        assert json.dumps(diagnosis.as_tree()).isascii()
        diagnosis.as_text().encode()
        with contextlib.suppress(SuggestError):
            (await suggest_from_responses(config, {})).encode()
