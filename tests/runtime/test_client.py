"""The API client: paging, errors, Retry-After, and what requests contain. Real HTTP where that matters."""

import asyncio
import contextlib
import itertools
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import uvicorn

from exporter.config import LimitsConfig
from exporter.config.api_description import FieldSource, Resource, Resources
from exporter.errors import ApiError
from exporter.runtime.auth import Credentials, Token, TokenSource
from exporter.runtime.client import PageCache, RuntimeClient
from exporter.runtime.connections import Connections
from exporter.runtime.decoder import Decoder
from exporter.runtime.http_client import HttpClient, NotFoundError, PausedError
from exporter.runtime.model import ListPage, Project
from exporter.runtime.statuses import StatusMap
from tests.builders import NOON, Clock, resources, runtime_config, snapshot
from tests.transport import FakeTransport

TOKEN = "cxg_0123456789"


class Observed:
    """Records requests, and ignores what decoding reports."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.seconds: list[float] = []

    def request_sent(self, resource: str, code: str, seconds: float) -> None:
        self.requests.append((resource, code))
        self.seconds.append(seconds)

    def decoded_items(self, kind: str, count: int) -> None: ...

    def invalid_item(self, kind: str, reason: str, bug: Exception | None = None) -> None: ...

    def ignored_value(self, kind: str, field: str) -> None: ...

    def unmapped_status(self, label: str) -> None: ...


def client(
    answer: Callable[[httpx.Request], Any] | None = None,
    *,
    observed: Observed | None = None,
    clock: Clock | None = None,
    base_url: str = "http://runtime.test",
    concurrency: int = 8,
    timeout: float = 10,
    max_body: int = 1_000_000,
    max_pages: int = 1000,
    max_projects: int = 1000,
    wall: Callable[[], float] = time.time,
    waits: list[float] | None = None,
    resources: Resources | None = None,
    source: TokenSource | None = None,
    max_age: float = 300,
) -> RuntimeClient:
    """A client that appends its waits between retries to `waits` instead of waiting."""
    observed = observed or Observed()
    runtime = runtime_config(base_url)
    resources = resources or runtime.resources

    async def sleep(seconds: float) -> None:
        if waits is not None:
            waits.append(seconds)

    http_client = HttpClient(
        Connections(runtime, concurrency=concurrency, transport=FakeTransport(answer) if answer else None),
        timeout=timeout,
        max_body=max_body,
        observer=observed,
        monotonic=clock or Clock(),
        sleep=sleep,
    )
    return RuntimeClient(
        http_client,
        base_url,
        resources,
        credentials=Credentials(source or Token(value=TOKEN)),
        decoder=Decoder(StatusMap(), observed, resources, label_length=128),
        limits=LimitsConfig(pages=max_pages, projects=max_projects),
        max_age=max_age,
        wall=wall,
    )


def a_list(*ids: str, cursor: str | None = None) -> dict[str, Any]:
    return {"items": [{"id": each, "name": each} for each in ids], "nextCursor": cursor, "asOf": "2026-01-05T09:00:00Z"}


async def read(pages: AsyncIterator[ListPage[Any]]) -> list[str]:
    return [item.id async for page in pages for item in page.items]


# -- paging -------------------------------------------------------------------------------------------------


async def test_all_pages_are_read_by_their_cursors() -> None:
    lists = {"": a_list("a", "b", cursor="x/&=y"), "x/&=y": a_list("c")}
    api = client(lambda request: httpx.Response(200, json=lists[request.url.params.get("cursor", "")]))
    assert await read(api.projects()) == ["a", "b", "c"]


async def test_a_page_of_a_list_that_fails_is_requested_again() -> None:
    answers = iter([httpx.Response(503), httpx.Response(200, json=a_list("a"))])
    waits: list[float] = []
    assert await read(client(lambda request: next(answers), waits=waits).projects()) == ["a"]
    assert len(waits) == 1


@pytest.mark.parametrize(("described", "requested"), [({}, "500"), ({"size": 1}, "1")])
async def test_a_page_has_the_described_size_or_500_items(described: dict[str, int], requested: str) -> None:
    sizes = []

    def answer(request: httpx.Request) -> httpx.Response:
        sizes.append(request.url.params["per_page"])
        return httpx.Response(200, json=a_list("a") if len(sizes) == 1 else a_list())

    described_paging = {"style": "page", "parameter": "page", "size_parameter": "per_page", **described}
    resources = msgspec.structs.replace(
        runtime_config("http://runtime.test").resources,
        projects=msgspec.convert({"path": "/projects", "paging": described_paging}, Resource),
    )
    await read(client(answer, resources=resources).projects())
    assert set(sizes) == {requested}


async def test_a_cursor_that_repeats_is_an_error() -> None:
    api = client(lambda request: httpx.Response(200, json=a_list("a", cursor="again")))
    with pytest.raises(ApiError, match="does not end"):
        await read(api.projects())


async def test_only_a_list_with_a_single_page_has_an_etag() -> None:
    lists = {"": a_list("a", cursor="2"), "2": a_list("b")}
    etag = {"ETag": '"1"'}
    many = client(lambda request: httpx.Response(200, json=lists[request.url.params.get("cursor", "")], headers=etag))
    assert [page.etag async for page in many.projects()] == [None, None]
    one = client(lambda request: httpx.Response(200, json=a_list("a"), headers=etag))
    assert [page.etag async for page in one.projects()] == ['"1"']


@pytest.mark.parametrize(("length", "kept"), [(1000, True), (1001, False)])
async def test_an_etag_that_is_too_long_is_not_kept(length: int, kept: bool) -> None:
    etag = {"ETag": f'"{"x" * (length - 2)}"'}
    api = client(lambda request: httpx.Response(200, json=a_list("a"), headers=etag))
    assert [bool(page.etag) async for page in api.projects()] == [kept]


async def test_304_means_not_modified_and_has_the_time_of_its_date_header() -> None:
    headers = {"Date": "Mon, 05 Jan 2026 09:00:00 GMT"}
    api = client(lambda request: httpx.Response(304, headers=headers))
    (page,) = [page async for page in api.jobs(Project("p1", "Sales"), etag='"1"')]
    assert (page.not_modified, page.items, page.as_of, page.etag) == (True, (), 1767603600.0, '"1"')


async def test_caches_on_the_way_are_told_to_ask_the_api_also_with_a_condition() -> None:
    asked: list[tuple[str, str | None]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((request.headers["Cache-Control"], request.headers.get("If-None-Match")))
        headers = {"ETag": '"1"', "Date": "Mon, 05 Jan 2026 09:00:00 GMT"}
        if "If-None-Match" in request.headers:
            return httpx.Response(304, headers=headers)
        return httpx.Response(200, json=a_list("a"), headers=headers)

    api, cache = client(answer), PageCache[Project]()
    assert await read(api.projects(cache)) == await read(api.projects(cache)) == ["a"]
    assert asked == [("no-cache", None), ("no-cache", '"1"')]


@pytest.mark.parametrize("status", [200, 304])
async def test_what_a_cache_has_had_for_too_long_is_an_error_and_not_what_the_api_says(status: int) -> None:
    ages = iter(["301", "3600", "300", "0", "soon", "-5", "9" * 400, "\u0663"])

    def answer(request: httpx.Request) -> httpx.Response:
        headers = [(b"Age", next(ages).encode()), (b"Date", b"Mon, 05 Jan 2026 09:00:00 GMT")]
        return httpx.Response(status, json=a_list("a") if status == 200 else None, headers=headers)

    api = client(answer)
    for _ in range(2):
        with pytest.raises(ApiError, match="a cache has had for longer"):
            [page async for page in api.jobs(Project("p1", "Sales"), etag='"1"')]
    for _ in range(6):
        pages = [page async for page in api.jobs(Project("p1", "Sales"), etag='"1"')] if status == 304 else [1]
        assert pages
        if status == 200:
            assert await read(api.projects()) == ["a"]


async def test_each_page_of_a_list_is_requested_on_the_condition_that_it_changed() -> None:
    lists = {"": a_list("a", cursor="2"), "2": a_list("b", cursor="3"), "3": a_list("c")}
    conditions: list[tuple[str, str | None]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        place, condition = request.url.params.get("cursor", ""), request.headers.get("If-None-Match")
        conditions.append((place, condition))
        etag = f'"{place}{len(lists[place]["items"])}"'
        headers = {"ETag": etag, "Date": "Mon, 05 Jan 2026 09:00:00 GMT"}
        return (
            httpx.Response(304, headers=headers)
            if condition == etag
            else httpx.Response(200, json=lists[place], headers=headers)
        )

    api, cache = client(answer), PageCache[Project]()
    assert await read(api.projects(cache)) == ["a", "b", "c"]
    conditions.clear()
    assert await read(api.projects(cache)) == ["a", "b", "c"], "304 stands for the page that it confirms"
    assert conditions == [("", '"1"'), ("2", '"21"'), ("3", '"31"')]
    lists["2"] = a_list("b", "d", cursor="4")
    lists["4"] = a_list("e")
    assert await read(api.projects(cache)) == ["a", "b", "d", "e"], "a page that changed leads to other pages"
    conditions.clear()
    assert await read(api.projects(cache)) == ["a", "b", "d", "e"]
    assert conditions == [("", '"1"'), ("2", '"22"'), ("4", '"41"')]


@pytest.mark.parametrize(
    ("lists", "conditions", "etags"),
    [(0, [None], [None]), (1, ['"1"'], ['"2"']), (2, [None, None], [None, None])],
    ids=str,
)
async def test_runs_in_several_lists_are_requested_without_the_etag_that_only_one_could_have(
    lists: int, conditions: list[str | None], etags: list[str | None]
) -> None:
    seen: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("If-None-Match"))
        return httpx.Response(200, json=a_list(), headers={"ETag": '"2"'})

    active = [{"query": {"status": status}} for status in ("queued", "running")[:lists]]
    jobs = msgspec.convert({"path": "/{project}/runs", "active": active or None}, Resource)
    api = client(answer, resources=msgspec.structs.replace(runtime_config().resources, jobs=jobs))
    pages = api.jobs(Project("p1", "Sales"), active=True, etag='"1"')
    assert [page.etag async for page in pages] == etags
    assert seen == conditions


async def test_a_plan_may_have_as_many_meters_as_the_limit() -> None:
    meters = [{"name": f"meter {number}", "used": 1} for number in range(1001)]
    answers = iter([meters[:1000], meters])
    api = client(lambda request: httpx.Response(200, json={"meters": next(answers)}))
    assert len(await api.usage()) == 1000
    with pytest.raises(ApiError, match=r"usage: the plan has more meters than limits\.meters \(1,000\)"):
        await api.usage()


async def test_a_list_that_fails_on_its_way_leaves_the_pages_of_the_last_read() -> None:
    lists = {"": a_list("a", cursor="2"), "2": a_list("b")}
    fails = False

    def answer(request: httpx.Request) -> httpx.Response:
        place = request.url.params.get("cursor", "")
        if fails and place:
            return httpx.Response(400)
        condition, headers = request.headers.get("If-None-Match"), {"ETag": f'"{place}"'}
        return (
            httpx.Response(304, headers=headers)
            if condition
            else httpx.Response(200, json=lists[place], headers=headers)
        )

    api, cache = client(answer), PageCache[Project]()
    assert await read(api.projects(cache)) == ["a", "b"]
    fails = True
    with pytest.raises(ApiError):
        await read(api.projects(cache))
    fails = False
    assert await read(api.projects(cache)) == ["a", "b"]


@pytest.mark.parametrize(("etag", "kept"), [({}, None), ({"ETag": ""}, None), ({"ETag": "x"}, "x")], ids=str)
async def test_a_list_without_an_etag_has_none(etag: dict[str, str], kept: str | None) -> None:
    conditions: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        conditions.append(request.headers.get("If-None-Match"))
        return httpx.Response(200, json=a_list("a"), headers=etag)

    api, cache = client(answer), PageCache[Project]()
    for _ in range(2):
        assert [page.etag async for page in api.projects(cache)] == [kept]
    assert conditions == [None, kept]


async def test_a_page_that_is_confirmed_is_as_old_as_the_confirmation() -> None:
    answers = iter(
        [
            httpx.Response(200, json=a_list("a"), headers={"ETag": '"1"'}),
            httpx.Response(304, headers={"Date": "Mon, 05 Jan 2026 09:00:30 GMT"}),
        ]
    )
    api, cache = client(lambda request: next(answers)), PageCache[Project]()
    assert [page.as_of for _ in range(2) async for page in api.projects(cache)] == [1_767_603_600.0, 1_767_603_630.0]


async def test_a_cached_page_that_no_longer_exists_ends_the_list() -> None:
    pages = {"1": a_list("a", "b"), "2": a_list("c", "d"), "3": a_list("e")}

    def answer(request: httpx.Request) -> httpx.Response:
        page = pages.get(request.url.params["page"])
        if page is None:
            return httpx.Response(404)
        etag = f'"{json.dumps(page)}"'
        is_known = request.headers.get("If-None-Match") == etag
        return httpx.Response(304) if is_known else httpx.Response(200, json=page, headers={"ETag": etag})

    described = {"path": "/projects", "paging": {"style": "page", "parameter": "page", "size": 2}}
    projects = msgspec.convert(described, Resource)
    api = client(answer, resources=msgspec.structs.replace(runtime_config().resources, projects=projects))
    cache = PageCache[Project]()
    for _ in range(2):
        assert await read(api.projects(cache)) == ["a", "b", "c", "d", "e"]
    del pages["3"]
    assert await read(api.projects(cache)) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("status", [204, 302, 404, 500])
async def test_only_304_says_that_what_an_etag_is_of_has_not_changed(status: int) -> None:
    api = client(lambda request: httpx.Response(status))
    with pytest.raises(ApiError, match=f"jobs: HTTP {status}"):
        await read(api.jobs(Project("p1", "Sales"), etag='"1"'))


async def test_304_to_an_unconditional_request_is_an_error() -> None:
    with pytest.raises(ApiError, match="HTTP 304"):
        await read(client(lambda request: httpx.Response(304)).projects())


# -- errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "HTTP 400"),
        (401, "HTTP 401: the token is missing, wrong or expired"),
        (403, "HTTP 403: the token may not read this"),
        (404, "HTTP 404: not found"),
        (407, "HTTP 407: the proxy refused"),
        (410, "HTTP 410: gone"),
        (429, "HTTP 429: too many requests"),
        *((each, f"HTTP {each}: a redirect, which is not followed") for each in (301, 302, 303, 307, 308)),
        *((each, f"HTTP {each}$") for each in (300, 304, 305, 306, 309, 402, 405, 406, 408, 409, 411, 428, 430)),
        (500, "HTTP 500"),
        (204, "HTTP 204"),
    ],
)
async def test_the_error_for_a_status_contains_neither_token_nor_body(status: int, message: str) -> None:
    def echo(request: httpx.Request) -> httpx.Response:
        body = {"error": f"bad {request.headers['Authorization']}", "errorCode": "X"}
        return httpx.Response(status, json=body, headers={"Location": "http://elsewhere.test/"})

    with pytest.raises(ApiError, match=f"^projects: {message}") as error:
        await read(client(echo).projects())
    assert TOKEN not in str(error.value)
    assert "bad" not in str(error.value)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (403, "HTTP 403: rate limited"),
        (429, r"HTTP 429: too many requests \(rate limited\)"),
        (503, "HTTP 503: rate limited"),
    ],
)
async def test_the_error_for_a_rate_limit_names_it(status: int, message: str) -> None:
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset-After": "20"}
    with pytest.raises(ApiError, match=f"^usage: {message}$"):
        await client(lambda request: httpx.Response(status, headers=headers)).usage()


async def test_404_for_a_run_is_an_error_of_its_own_type() -> None:
    with pytest.raises(NotFoundError):
        await client(lambda request: httpx.Response(404)).job(snapshot("gone"))


@pytest.mark.parametrize("body", [b"<html>sign in</html>", b'{"items"', b"[" * 100_000, b"\xff", b""])
async def test_the_error_for_a_body_that_is_not_json_does_not_quote_it(body: bytes) -> None:
    headers = {"Content-Type": "text/html" if body.startswith(b"<") else "application/json"}
    with pytest.raises(ApiError) as error:
        await read(client(lambda request: httpx.Response(200, content=body, headers=headers)).projects())
    assert "sign in" not in str(error.value)
    if body.startswith(b"<"):
        assert "expected JSON, got text/html; check runtime.base_url" in str(error.value)


@pytest.mark.parametrize(
    "named", ["application/atom+xml", "text/plain; charset=utf-8", f"text/{'x' * 35}", f"text/{'x' * 99}"]
)
async def test_the_error_for_a_body_of_another_media_type_has_the_first_40_characters_of_it(named: str) -> None:
    headers = {"Content-Type": named}
    with pytest.raises(
        ApiError, match=rf"^usage: expected JSON, got {re.escape(named.partition(';')[0][:40])}; check "
    ):
        await client(lambda request: httpx.Response(200, content=b"<", headers=headers)).usage()


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (httpx.ConnectError, r" \(no connection\)"),
        (httpx.ReadError, r" \(the connection was lost\)"),
        (httpx.ReadTimeout, " in time"),
        (httpx.RemoteProtocolError, r" \(the response is not valid HTTP\)"),
        (httpx.ProxyError, r" \(the proxy failed\)"),
        (httpx.TooManyRedirects, r" \(too many redirects\)"),
    ],
)
async def test_the_error_for_a_missing_response_says_why_in_words(fault: type[httpx.TransportError], says: str) -> None:
    observed = Observed()

    def fail(request: httpx.Request) -> httpx.Response:
        raise fault(f"with {TOKEN}")

    with pytest.raises(ApiError, match=f"^usage: no response{says}$") as error:
        await client(fail, observed=observed).usage()
    assert TOKEN not in str(error.value)
    # A request that timed out is not retried.
    assert observed.requests == [("usage", "error")] * (1 if fault is httpx.ReadTimeout else 3)


async def test_the_health_of_a_503_response_is_read() -> None:
    health = {"status": "down", "runtime": {"status": "down"}}
    assert not (await client(lambda request: httpx.Response(503, json=health)).health()).runtime_up
    with pytest.raises(ApiError, match="HTTP 503"):
        await client(lambda request: httpx.Response(503, content=b"<html>")).health()


@pytest.mark.parametrize(
    "error",
    [
        {"error": "overloaded", "errorCode": "BUSY"},
        {"message": "failure to get a peer from the ring-balancer"},
        {"status": "error", "message": "overloaded"},
        {"timestamp": "2026-01-05T09:00:00Z", "status": 503, "error": "Service Unavailable", "path": "/health"},
        {"status": None, "runtime": None},
        {},
        [],
    ],
    ids=repr,
)
async def test_an_error_with_the_status_of_an_unhealthy_runtime_is_an_error_that_may_pass(error: Any) -> None:
    observed, clock = Observed(), Clock()
    headers = {"Retry-After": "30", "Date": "Mon, 05 Jan 2026 09:00:00 GMT"}
    api = client(lambda request: httpx.Response(503, json=error, headers=headers), observed=observed, clock=clock)
    with pytest.raises(ApiError, match="HTTP 503"):
        await api.health()
    with pytest.raises(PausedError):
        await api.usage()
    assert observed.requests == [("health", "503")], "the pause is kept"
    answers = iter([httpx.Response(503, json=error), httpx.Response(503, json={"status": "down"})])
    assert not (await client(lambda request: next(answers)).health()).runtime_up, "it was retried"


async def test_what_a_description_makes_of_no_value_is_not_told_by_an_error() -> None:
    labels: dict[str | bool | int | float | None, str] = {"*": "down", None: "down"}
    fields: dict[str, str | FieldSource] = {"runtime.status": FieldSource(path="code", labels=labels)}
    described = msgspec.structs.replace(runtime_config().resources, health=Resource("/", fields=fields, accept=(503,)))
    answers = iter([{"error": "overloaded"}, {"code": 7}])
    api = client(lambda request: httpx.Response(503, json=next(answers)), resources=described)
    assert not (await api.health()).runtime_up
    always = client(lambda request: httpx.Response(503, json={"error": "overloaded"}), resources=described)
    with pytest.raises(ApiError, match="HTTP 503"):
        await always.health()


async def test_an_accepted_status_whose_body_is_no_list_is_that_error() -> None:
    accepting = Resource("/projects", accept=(200, 404))
    described = msgspec.structs.replace(runtime_config().resources, projects=accepting)
    api = client(lambda request: httpx.Response(404, content=b"<html>"), resources=described)
    with pytest.raises(NotFoundError, match="projects: HTTP 404: not found"):
        await read(api.projects())
    api = client(lambda request: httpx.Response(404, json=a_list("a")), resources=described)
    (page,) = [page async for page in api.projects()]
    assert ([project.id for project in page.items], page.as_of) == (["a"], 1_767_603_600.0)


async def test_a_list_that_is_not_described_is_not_requested() -> None:
    described = runtime_config().resources
    assert isinstance(described.records, Resource)
    described = msgspec.structs.replace(
        described,
        jobs=msgspec.structs.replace(described.jobs, across=None),
        records=msgspec.structs.replace(described.records, across=None, across_changed=None),
    )
    api = client(resources=described)
    assert not api.can_list_all_projects
    with pytest.raises(ApiError, match="jobs: no list of all projects is described"):
        api.all_jobs({})
    assert not api.can_list_records_of_all_runs
    with pytest.raises(ApiError, match="records: no list of all runs is described"):
        api.failed_records_of_all_runs(updated_since=NOON)


@pytest.mark.parametrize(("date", "resets_in"), [({}, 60.0), ({"Date": "Mon, 24 Nov 2025 16:00:20 GMT"}, 40.0)])
async def test_the_time_of_a_reset_is_compared_with_the_server_s_clock(date: dict[str, str], resets_in: float) -> None:
    told = {"X-RateLimit-Limit": "100", "X-RateLimit-Reset": f"{NOON + 60:.0f}"}
    api = client(lambda request: httpx.Response(200, json=a_list(), headers={**told, **date}), wall=Clock(NOON))
    limit = (await api.raw_response("projects", None, project_id="")).allowance
    assert limit is not None
    assert (limit.requests, limit.resets_in) == (100, resets_in)


async def test_the_local_time_of_a_response_is_half_way_between_request_and_response() -> None:
    clock = Clock(NOON)

    def answer(request: httpx.Request) -> httpx.Response:
        clock.advance(11)
        return httpx.Response(200, json=a_list())

    assert (await client(answer, wall=clock).raw_response("projects", None, project_id="")).local_time == NOON + 5.5


async def test_of_very_many_projects_the_references_of_the_oldest_are_forgotten() -> None:
    fields: dict[str, str | FieldSource] = {"id": "id", "name": "name", "ref.owner": "id"}
    described = msgspec.structs.replace(
        runtime_config().resources,
        projects=Resource("/projects", fields=fields),
        jobs=Resource("/{ref.owner}/jobs"),
    )
    lists = iter([a_list(*"abcdefg"), a_list("b", "h")])
    api = client(lambda request: httpx.Response(200, json=next(lists)), resources=described, max_projects=3)

    def known() -> str:
        lines = {each: api.request_line("jobs", None, project_id=each) for each in "abcdefgh"}
        assert {*lines.values()} <= {f"GET /{each}/jobs" for each in lines} | {"GET /{ref.owner}/jobs"}
        return "".join(each for each, line in lines.items() if "{" not in line)

    await read(api.projects())
    assert known() == "bcdefg", "twice as many as there may be"
    await read(api.projects())
    assert known() == "bdefgh", "b is in the list again"


async def test_a_page_takes_500_bytes_for_each_item_or_its_length() -> None:
    long = {**a_list("a"), "more": "x" * 2000}
    lists = iter([a_list("a", "b", "c"), long])
    api = client(lambda request: httpx.Response(200, json=next(lists)))
    assert [page.size async for page in api.projects()] == [1500]
    (page,) = [page async for page in api.projects()]
    assert page.size == len(httpx.Response(200, json=long).content)


@pytest.mark.parametrize("code", ["NOT_FOUND", "UNKNOWN_PAGE"])
async def test_an_error_with_a_code_ends_a_list_behind_its_last_page_as_one_without(code: str) -> None:
    described = {"path": "/projects", "paging": {"style": "page", "parameter": "page", "size": 1}}
    projects = msgspec.convert(described, Resource)
    answers = iter([httpx.Response(200, json=a_list("a")), httpx.Response(404, json={"errorCode": code})])
    resources = msgspec.structs.replace(runtime_config().resources, projects=projects)
    assert await read(client(lambda request: next(answers), resources=resources).projects()) == ["a"]


class Source:
    """A login whose first token is refused; notes what it is told."""

    origin = "from a login"

    def __init__(self) -> None:
        self.told: list[tuple[str, bool]] = []
        self.refused: list[str] = []

    async def current(self) -> str:
        return "t1"

    async def renewed(self, refused: str) -> str:
        self.refused.append(refused)
        return "t2"

    def confirm(self, token: str, *, accepted: bool) -> None:
        self.told.append((token, accepted))


@pytest.mark.parametrize(
    ("statuses", "sent", "told"),
    [
        ([200], ["t1"], []),
        *(([status], ["t1"], []) for status in (400, 402, 403)),
        ([401, 200], ["t1", "t2"], [("t2", True)]),
        ([401, 401], ["t1", "t2"], [("t2", False)]),
        *(([401, status], ["t1", "t2"], []) for status in (400, 402, 403, 404)),
    ],
    ids=str,
)
async def test_only_401_asks_for_another_token_and_says_that_it_is_refused_too(
    statuses: list[int], sent: list[str], told: list[tuple[str, bool]]
) -> None:
    tokens, source, answers = list[str](), Source(), iter(statuses)

    def answer(request: httpx.Request) -> httpx.Response:
        tokens.append(request.headers["Authorization"].removeprefix("Bearer "))
        return httpx.Response(next(answers), json={"meters": []})

    with contextlib.nullcontext() if statuses[-1] == 200 else pytest.raises(ApiError, match=f"HTTP {statuses[-1]}"):
        await client(answer, source=source).usage()
    assert (tokens, source.told) == (sent, told)
    assert source.refused == ["t1"] * (len(sent) - 1)


@pytest.mark.parametrize(
    ("lists", "requests"),
    [("failed", 1), ("all", 1), ("running", 1), ("waiting", 1), ("of all runs", 1), ("records", 3)],
)
async def test_the_records_that_cost_most_are_requested_once_in_a_scrape(lists: str, requests: int) -> None:
    resources = runtime_config().resources
    assert isinstance(resources.records, Resource)
    if lists == "all":
        resources = msgspec.structs.replace(resources, records=msgspec.structs.replace(resources.records, failed=None))
    observed, run = Observed(), snapshot("r1")
    api = client(lambda request: httpx.Response(500), observed=observed, resources=resources)
    pages: dict[str, Callable[[], AsyncIterator[ListPage[Any]]]] = {
        "failed": lambda: api.failed_records(run),
        "all": lambda: api.failed_records(run),
        "running": lambda: api.records_in_flight(run),
        "waiting": lambda: api.waiting_records(run),
        "of all runs": lambda: api.failed_records_of_all_runs(updated_since=NOON),
        "records": lambda: api.records(run),
    }
    with pytest.raises(ApiError, match="records: HTTP 500"):
        await anext(pages[lists]())
    assert observed.requests == [("records", "500")] * requests


# -- limits of requests --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("retry_after", "pause"),
    [("30", 30.0), ("Mon, 05 Jan 2026 09:00:40 GMT", 40.0), ("9999999", 300.0), ("soon", 0.0), ("-5", 0.0)],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_pauses_all_endpoints_for_that_time(status: int, retry_after: str, pause: float) -> None:
    clock, observed = Clock(), Observed()
    answers = iter(
        [httpx.Response(status, headers={"Retry-After": retry_after, "Date": "Mon, 05 Jan 2026 09:00:00 GMT"})]
    )
    good: dict[str, Any] = {"meters": []}
    api = client(lambda request: next(answers, httpx.Response(200, json=good)), clock=clock, observed=observed)
    with pytest.raises(ApiError):
        await read(api.projects())
    if pause:
        clock.advance(pause - 1)
        with pytest.raises(PausedError, match="asked us to wait"):
            await api.usage()
        assert len(observed.requests) == 1, "a request was sent during the pause"
        clock.advance(1)
    assert await api.usage() == ()


async def test_concurrent_requests_are_limited() -> None:
    in_progress = most = 0

    async def slow(request: httpx.Request) -> httpx.Response:
        nonlocal in_progress, most
        in_progress += 1
        most = max(most, in_progress)
        await asyncio.sleep(0)
        in_progress -= 1
        return httpx.Response(200, json={"meters": []})

    api = client(slow, concurrency=3)
    await asyncio.gather(*(api.usage() for _ in range(20)))
    assert most == 3


# -- requests ------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def real_server() -> AsyncIterator[tuple[str, list[tuple[str, dict[str, str]]]]]:
    """Yield a server's URL and the raw paths and headers that it receives."""
    seen: list[tuple[str, dict[str, str]]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raw = scope["raw_path"].decode() + ("?" + scope["query_string"].decode() if scope["query_string"] else "")
        seen.append((raw, {key.decode().lower(): value.decode() for key, value in scope["headers"]}))
        body = json.dumps({"items": [], "asOf": "2026-01-05T09:00:00Z", "status": "ok"}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", seen
        server.should_exit = True
        await serving


@pytest.mark.parametrize(
    "job_id", ["a/b", "../../usage", "a?x=1", "a#f", "%2e%2e", "a b", "ü", "http://evil.test/", "//evil"]
)
async def test_an_id_cannot_change_the_path_or_host_of_a_request(job_id: str) -> None:
    async with real_server() as (url, seen):
        api = client(base_url=url)
        await read(api.failed_records(snapshot(job_id)))
        await api.close()
    ((path, headers),) = seen
    assert path.startswith("/api/v1/jobs/")
    assert path.removeprefix("/api/v1/jobs/").partition("/records?")[1], path
    assert path.count("/") == 5, f"{path}: the id is more than one segment"
    assert headers["host"] == url.removeprefix("http://")


async def test_every_request_except_health_carries_the_token() -> None:
    async with real_server() as (url, seen):
        api = client(base_url=url + "/")
        await api.health()
        await read(api.jobs(Project("p1", "Sales"), updated_since=1767603600.1239, etag='"x"'))
        await api.close()
    (health_path, health), (jobs_path, jobs) = seen
    assert (health_path, "authorization" in health) == ("/health", False)
    assert jobs["authorization"] == f"Bearer {TOKEN}"
    assert jobs["if-none-match"] == '"x"'
    assert jobs_path == "/api/v1/projects/p1/jobs?updatedSince=2026-01-05T09%3A00%3A00.123Z&limit=500"


@pytest.mark.parametrize(
    "paging",
    [
        {"style": "offset", "parameter": "skip", "size": 2},
        {"style": "page", "parameter": "page", "size": 2},
        {"style": "link"},
        {"style": "link", "next": "links.next"},
    ],
    ids=lambda paging: "-".join(map(str, paging.values())),
)
async def test_a_page_that_repeats_is_an_error(paging: dict[str, object]) -> None:
    runtime = runtime_config()
    projects = msgspec.convert({"path": "/projects", "paging": paging}, Resource)
    resources = msgspec.structs.replace(runtime.resources, projects=projects)
    links = iter(["</projects?x=1>; rel=next", "</projects?x=2>; rel=next", "</projects?x=1>; rel=next"] * 3)

    def answer(request: httpx.Request) -> httpx.Response:
        link = next(links)
        in_body = {"links": {"next": link.removeprefix("<").partition(">")[0]}} if "next" in paging else {}
        body = {**a_list("a", "b"), **in_body}
        return httpx.Response(200, json=body, headers={"Link": link})

    observed = Observed()
    api = client(answer, observed=observed, resources=resources)
    with pytest.raises(ApiError, match="does not end"):
        await read(api.projects())
    assert len(observed.requests) <= 3


async def test_a_page_that_repeats_under_another_cursor_is_an_error() -> None:
    cursors, observed = itertools.count(), Observed()
    api = client(
        lambda request: httpx.Response(200, json=a_list("a", "b", cursor=str(next(cursors)))), observed=observed
    )
    with pytest.raises(ApiError, match="does not end"):
        await read(api.projects())
    assert len(observed.requests) == 2


@pytest.mark.parametrize("end", [{"links": {"next": None}}, {"links": {"next": ""}}, {"links": {}}, {}], ids=str)
async def test_the_url_of_the_next_page_can_be_in_the_body(end: dict[str, object]) -> None:
    runtime = runtime_config()
    paging = {"style": "link", "next": "links.next"}
    projects = msgspec.convert({"path": "/projects", "query": {"tag": "x"}, "paging": paging}, Resource)
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        following = {"links": {"next": "https://elsewhere.test/p?after=a%20b&tag=x&tag=y"}}
        # A header is not used if the body has the URL.
        headers = {"Link": "</projects?after=wrong>; rel=next"}
        more = following if len(seen) == 1 else end
        return httpx.Response(200, json={**a_list(f"p{len(seen)}"), **more}, headers=headers)

    api = client(answer, resources=msgspec.structs.replace(runtime.resources, projects=projects))
    assert await read(api.projects()) == ["p1", "p2"]
    base = seen[0].removesuffix("?tag=x")
    assert seen == [f"{base}?tag=x", f"{base}?after=a+b&tag=x&tag=y"], "the path and host are the described ones"


async def test_a_list_with_more_pages_than_the_limit_is_an_error() -> None:
    pages = iter(range(1000))
    endless = client(lambda request: httpx.Response(200, json=a_list(cursor=str(next(pages)))), max_pages=20)
    with pytest.raises(ApiError, match=r"more pages than limits\.pages \(20\)"):
        await read(endless.projects())
    assert next(pages) == 20


async def test_a_cursor_that_is_too_long_for_a_url_is_an_error() -> None:
    api = client(lambda request: httpx.Response(200, json=a_list("a", cursor="x" * 100_000)))
    with pytest.raises(
        ApiError, match=r"^projects: the cursor or the URL of the next page has more than 16,384 characters$"
    ):
        await read(api.projects())


async def test_an_empty_page_with_a_cursor_has_a_next_page() -> None:
    lists = {"": a_list(cursor="x"), "x": a_list(cursor="y"), "y": a_list("a")}
    api = client(lambda request: httpx.Response(200, json=lists[request.url.params.get("cursor", "")]))
    assert await read(api.projects()) == ["a"]


# -- descriptions -------------------------------------------------------------------------------------------


async def test_a_single_run_has_the_fields_of_the_list_unless_it_has_its_own() -> None:
    fields: dict[str, str | FieldSource]
    fields = {"id": "id", "spinnerName": "flow", "status": "state", "createdAt": "born", "updatedAt": "changed"}
    item = {"id": "r1", "flow": "welcome", "state": "running", "born": "2026-01-05T09:00:00Z", "flow2": "other"}
    jobs = msgspec.structs.replace(runtime_config().resources.jobs, fields=fields)
    own = Resource(path="/one/{run}", fields=fields | {"spinnerName": "flow2"})
    spinners = []
    for described in ({"jobs": jobs}, {"jobs": jobs, "job": own}):
        resources = msgspec.structs.replace(runtime_config().resources, **described)
        answering = client(lambda request: httpx.Response(200, json=item), resources=resources)
        spinners.append((await answering.job(snapshot("r1"))).spinner)
    assert spinners == ["welcome", "other"]


async def test_the_time_of_a_change_that_a_single_run_does_not_have_is_that_of_its_response() -> None:
    fields: dict[str, str | FieldSource]
    fields = {"id": "id", "spinnerName": "flow", "status": "state", "createdAt": "born", "updatedAt": "changed"}
    item = {"id": "r1", "flow": "welcome", "state": "running", "born": "2025-11-24T09:00:00Z"}
    resources = runtime_config().resources
    resources = msgspec.structs.replace(resources, jobs=msgspec.structs.replace(resources.jobs, fields=fields))
    headers = {"Date": "Mon, 24 Nov 2025 16:00:00 GMT"}
    answering = client(lambda request: httpx.Response(200, json=item, headers=headers), resources=resources)
    assert (await answering.job(snapshot("r1"))).updated_at == 1_764_000_000.0


async def test_a_response_that_a_described_expression_cannot_be_applied_to_is_an_error() -> None:
    jobs = msgspec.structs.replace(runtime_config().resources.jobs, items="sort(runs)")
    resources = msgspec.structs.replace(runtime_config().resources, jobs=jobs)
    api = client(lambda request: httpx.Response(200, json={"runs": "none"}), resources=resources)
    with pytest.raises(ApiError, match=r"an expression of runtime\.resources does not fit the response"):
        await read(api.jobs(Project("p1", "Sales")))


@pytest.mark.parametrize("can_filter", [True, False])
async def test_failed_records_are_requested_alone_if_the_api_can_filter_them(can_filter: bool) -> None:
    records = [{"id": f"r-{status}", "status": status} for status in ("failed", "completed")]
    queries: list[dict[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        queries.append(dict(request.url.params))
        wanted = request.url.params.get("status")
        return httpx.Response(200, json={"items": [each for each in records if wanted in (None, each["status"])]})

    resources = runtime_config().resources
    assert isinstance(resources.records, Resource)
    if not can_filter:
        resources = msgspec.structs.replace(resources, records=msgspec.structs.replace(resources.records, failed=None))
    assert await read(client(answer, resources=resources).failed_records(snapshot("r1"))) == ["r-failed"]
    assert [query.get("status") for query in queries] == ["failed" if can_filter else None]


@pytest.mark.parametrize(
    ("environ", "described", "origin"),
    [
        ({}, {}, "(none is configured, neither with runtime.token_file nor with runtime.auth.login)"),
        ({"TOKEN": "hunter2"}, {}, "(from SPINNER_EXPORTER_RUNTIME_TOKEN)"),
        ({"TOKEN_FILE": "{file}"}, {}, "(from runtime.token_file: {file})"),
        ({"TOKEN_FILE": "{file}"}, {"token": False}, "(not sent: runtime.resources.usage.token: false)"),
    ],
)
@pytest.mark.parametrize(
    ("status", "meaning"), [(401, "the token is missing, wrong or expired"), (403, "the token may not read this")]
)
async def test_the_error_of_a_refused_token_names_where_it_comes_from_and_not_to_everybody(
    tmp_path: Path, environ: dict[str, str], described: dict[str, Any], origin: str, status: int, meaning: str
) -> None:
    file = tmp_path / "token"
    file.write_text("hunter2")
    token = Token(file=file if "TOKEN_FILE" in environ else None, value=environ.get("TOKEN"))
    described_usage = Resource(path="/usage", **described)
    with_usage = msgspec.structs.replace(resources(), usage=described_usage)
    made = client(lambda request: httpx.Response(status), source=token, resources=with_usage)
    with pytest.raises(ApiError) as error:
        await made.usage()
    assert str(error.value) == f"usage: HTTP {status}: {meaning} {origin.replace('{file}', str(file))}"
    assert error.value.public == f"usage: HTTP {status}: {meaning}"
