"""Lists that servers divide into pages in their own ways: each is read to its end, or it is an error."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import pytest

from exporter.config.api_description import Resource, Resources
from exporter.errors import ConfigError
from exporter.runtime.layout import Layout
from exporter.service import Exporter
from tests.builders import Clock, resources
from tests.faults.server import FaultyRuntime
from tests.faults.test_transport import exporter, scrapes
from tests.metrics.test_exposition import Samples, value
from tests.scripted import ScriptedRuntime

Beyond = int | str
"""How a server answers the request for a page behind the last one: a status, or with `empty`, `null` or `last`."""


@dataclasses.dataclass
class Server:
    """A list of projects, divided into pages of at most `cap` items."""

    items: int
    cap: int = 10
    beyond: Beyond = "empty"
    rest: Callable[[int, int], dict[str, Any]] = lambda end, items: {}
    """What a page has beside its items, by the number of the items up to its end and that of all."""
    hidden: Callable[[int], bool] = lambda number: False
    """Which items are of another kind."""
    steps: Callable[[int], int] | None = None
    """The number of items of each page."""
    ignores: bool = False
    """Whether it ignores which page is requested."""
    asked: list[httpx.QueryParams] = dataclasses.field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response | None:
        if request.url.path != "/api/v1/projects":
            return None
        query = request.url.params
        self.asked.append(query)
        size = min(self.cap, int(query.get("limit", "1000")))
        start = int(query["skip"]) if "skip" in query else (int(query.get("page", "1")) - 1) * size
        start = 0 if self.ignores else start
        if start >= self.items and start > 0:
            if isinstance(self.beyond, int):
                return httpx.Response(self.beyond, json=None if self.beyond == 204 else {"error": "no such page"})
            if self.beyond == "null":
                return httpx.Response(200, json={"items": None, **self.rest(start, self.items)})
            start = (self.items - 1) // size * size if self.beyond == "last" else start
        numbers = range(self.items)[start : start + size]
        page = [{"id": f"p{n}", "name": f"Project {n}", "kind": "x" if self.hidden(n) else "project"} for n in numbers]
        return httpx.Response(200, json={"items": page, **self.rest(start + len(page), self.items)})


def described(paging: dict[str, Any], **more: Any) -> Resources:
    projects = {"path": "/api/v1/projects", "paging": paging, **more}
    return msgspec.structs.replace(resources(), projects=msgspec.convert(projects, Resource))


NUMBERS = {"style": "page", "parameter": "page", "size": 50, "size_parameter": "limit"}
OFFSETS = {"style": "offset", "parameter": "skip", "size": 50, "size_parameter": "limit"}


async def read(
    server: Callable[[httpx.Request], httpx.Response | None], paging: dict[str, Any], *, times: int = 1, **more: Any
) -> tuple[Samples, list[Any], Exporter]:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    runtime.interfere = server
    async with FaultyRuntime(runtime).serving() as url:
        made = exporter(url, clock, resources=described(paging, **more))
        found, lines = await scrapes(made, clock, times=times)
        await made.close()
    return found, lines, made


def projects(found: Samples) -> int:
    return sum(name == "spinner_project_up" for name, _ in found)


# -- the last page --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beyond", ["empty", 204, 400, 404, 416, "null", "last"])
@pytest.mark.parametrize("items", [1, 10, 25, 30, 60])
@pytest.mark.parametrize("paging", [NUMBERS, OFFSETS], ids=["page", "offset"])
async def test_a_list_whose_pages_are_shorter_than_requested_is_read_to_its_end(
    paging: dict[str, Any], items: int, beyond: Beyond
) -> None:
    found, lines, _ = await read(Server(items, beyond=beyond), paging, times=2)
    assert (projects(found), value(found, "spinner_api_up"), lines) == (items, 1, [])


@pytest.mark.parametrize("beyond", ["empty", 404, 400, "null", "last"])
@pytest.mark.parametrize("items", [20, 40, 41])
async def test_a_full_last_page_is_the_last_one(items: int, beyond: Beyond) -> None:
    found, lines, _ = await read(Server(items, beyond=beyond), NUMBERS | {"size": 10}, times=2)
    assert (projects(found), value(found, "spinner_api_up"), lines) == (items, 1, [])


async def test_a_size_that_no_request_contains_is_learned_as_well() -> None:
    found, lines, _ = await read(Server(25), {"style": "page", "parameter": "page"})
    assert (projects(found), lines) == (25, [])


async def test_the_real_size_of_a_page_is_learned_once() -> None:
    """Without it, each list whose first page is short costs another request in each scrape."""
    server = Server(25)
    await read(server, NUMBERS, times=4)
    assert [query["page"] for query in server.asked] == ["1", "2", "3"] * 4, "25 items are two full pages and one of 5"


async def test_a_list_that_is_shorter_than_one_that_was_whole_costs_one_request() -> None:
    server = Server(9)
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    runtime.interfere = server
    async with FaultyRuntime(runtime).serving() as url:
        made = exporter(url, clock, resources=described(NUMBERS))
        await scrapes(made, clock, times=1)
        assert [query["page"] for query in server.asked] == ["1", "2"]
        server.items = 8
        await scrapes(made, clock, times=1)
        assert [query["page"] for query in server.asked][2:] == ["1"]
        # The server's pages could have had 9 items; 25 show that they have 10.
        server.items = 25
        found, _ = await scrapes(made, clock, times=1)
        assert projects(found) == 25
        await made.close()


@pytest.mark.parametrize(
    ("items", "hidden", "expected"),
    [
        ("items[?kind == 'project']", lambda number: number % 3 == 0, 13),
        ("items[?kind == 'project'] | [*]", lambda number: number % 3 == 0, 13),
        ("sort_by(items[?kind == 'project'], &id)", lambda number: number % 3 == 0, 13),
        # No item of the first page is selected.
        ("items[?kind == 'project'].{id: id, name: name}", lambda number: number < 10, 10),
        ("not_null(items)", lambda number: False, 20),
    ],
)
@pytest.mark.parametrize("paging", [NUMBERS, OFFSETS], ids=["page", "offset"])
@pytest.mark.parametrize("size", [10, 50])
async def test_items_are_counted_before_they_are_selected(
    paging: dict[str, Any], size: int, items: str, hidden: Callable[[int], bool], expected: int
) -> None:
    found, lines, _ = await read(Server(20, hidden=hidden), paging | {"size": size}, items=items)
    assert (projects(found), lines) == (expected, [])


async def test_an_error_behind_the_last_page_that_says_nothing_about_it_is_an_error() -> None:
    for status in (401, 403, 409, 422, 500):
        found, lines, _ = await read(Server(20, beyond=status), NUMBERS | {"size": 10})
        assert (projects(found), value(found, "spinner_api_up")) == (0, 0)
        assert f"HTTP {status}" in str(lines)


async def test_a_full_plan_is_no_end() -> None:
    server = Server(20)

    def answer(request: httpx.Request) -> httpx.Response | None:
        if request.url.params.get("page") == "2":
            return httpx.Response(400, json={"errorCode": "PLAN_LIMIT"})
        return server(request)

    found, lines, _ = await read(answer, NUMBERS)
    assert value(found, "spinner_api_up") == 0
    assert "the plan is full (PLAN_LIMIT)" in str(lines)


@pytest.mark.parametrize("beyond", [404, 204, "null"])
@pytest.mark.parametrize(("named", "rest"), [({"total": "total"}, {"total": 31}), ({"more": "more"}, {"more": True})])
async def test_a_page_that_is_missing_although_it_was_promised_is_an_error(
    named: dict[str, str], rest: dict[str, Any], beyond: Beyond
) -> None:
    found, lines, _ = await read(Server(20, beyond=beyond, rest=lambda end, items: rest), NUMBERS | named)
    assert value(found, "spinner_api_up") == 0
    assert "the list ended after 20 of 31 items" in str(lines) or "the list has more pages" in str(lines)


async def test_null_instead_of_the_first_page_is_an_error() -> None:
    found, lines, _ = await read(null, NUMBERS)
    assert value(found, "spinner_api_up") == 0
    assert "null instead of a list at items" in str(lines)


def null(request: httpx.Request) -> httpx.Response | None:
    return httpx.Response(200, json={"items": None}) if request.url.path.endswith("/projects") else None


@pytest.mark.parametrize("status", [400, 404, 416])
async def test_a_first_page_that_is_an_error_is_no_end(status: int) -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    runtime.interfere = lambda request: httpx.Response(status) if request.url.path.endswith("projects") else None
    async with FaultyRuntime(runtime).serving() as url:
        made = exporter(url, clock, resources=described(NUMBERS))
        found, lines = await scrapes(made, clock, times=1)
        await made.close()
    assert value(found, "spinner_api_up") == 0
    assert f"HTTP {status}" in str(lines)


# -- pages without end ------------------------------------------------------------------------------------------------


async def test_a_server_that_ignores_the_page_parameter_is_an_error_if_its_page_is_full() -> None:
    found, lines, _ = await read(Server(60, cap=50, ignores=True), NUMBERS)
    assert value(found, "spinner_api_up") == 0
    assert "does not end" in str(lines)


async def test_a_server_that_ignores_the_page_parameter_and_has_one_page_is_read() -> None:
    found, lines, _ = await read(Server(7, cap=50, ignores=True), NUMBERS, times=2)
    assert (projects(found), lines) == (7, [])


async def test_a_list_that_repeats_itself_with_another_time_is_an_error() -> None:
    moments = iter(range(10_000))
    server = Server(60, cap=50, ignores=True, rest=lambda end, items: {"time": next(moments)})
    found, lines, _ = await read(server, NUMBERS)
    assert value(found, "spinner_api_up") == 0
    assert "does not end" in str(lines)
    assert len(server.asked) == 2


async def test_a_flag_that_always_promises_more_is_an_error() -> None:
    server = Server(25, rest=lambda end, items: {"more": True})
    for paging, reason in ((NUMBERS, "more pages, as paging.more says"), (OFFSETS, "does not end")):
        server.asked.clear()
        found, lines, _ = await read(server, paging | {"more": "more"})
        assert value(found, "spinner_api_up") == 0
        assert reason in str(lines)
        assert len(server.asked) <= 5


# -- what the description names ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "rest"),
    [
        ({"total": "total"}, lambda end, items: {"total": items}),
        ({"total": "meta.count"}, lambda end, items: {"meta": {"count": str(items)}}),
        ({"more": "more"}, lambda end, items: {"more": end < items}),
        ({"more": "more"}, lambda end, items: {"more": "true" if end < items else "false"}),
        ({"more": "next != null"}, lambda end, items: {"next": "x" if end < items else None}),
        ({"more": "total_entries"}, lambda end, items: {"total_entries": items}),
        ({"more": "meta.totalElements"}, lambda end, items: {"meta": {"totalElements": str(items)}}),
        ({"more": "meta.page_count"}, lambda end, items: {"meta": {"page_count": -(-items // 10)}}),
        ({"more": "to_number(totalPages)"}, lambda end, items: {"totalPages": str(-(-items // 10))}),
        ({"more": "has_more"}, lambda end, items: {"has_more": int(end < items)}),
    ],
    ids=[
        "total",
        "a total as text",
        "more",
        "more as text",
        "an expression",
        "a total as more",
        "one of Spring",
        "pages as more",
        "pages as text",
        "more as a number",
    ],
)
@pytest.mark.parametrize("items", [5, 10, 20, 25])
@pytest.mark.parametrize("paging", [NUMBERS, OFFSETS], ids=["page", "offset"])
async def test_totals_and_flags_end_a_list_without_another_request(
    paging: dict[str, Any], items: int, named: dict[str, str], rest: Callable[[int, int], dict[str, Any]]
) -> None:
    server = Server(items, rest=rest, beyond=500)
    found, lines, _ = await read(server, paging | named)
    assert (projects(found), lines) == (items, [])
    assert len(server.asked) == -(-items // 10)


@pytest.mark.parametrize("first", [0, 1, 7])
@pytest.mark.parametrize("style", ["page", "offset"])
async def test_a_list_can_begin_with_any_number(style: str, first: int) -> None:
    server = Server(25)
    key = {"page": "page", "offset": "skip"}[style]

    def from_first(request: httpx.Request) -> httpx.Response | None:
        if "/projects" not in request.url.path or request.url.path.endswith("/jobs"):
            return None
        number = int(request.url.params[key]) - first
        assert number >= 0
        moved = request.url.copy_set_param(key, number + (style == "page"))
        return server(httpx.Request("GET", moved))

    found, lines, _ = await read(from_first, {"style": style, "parameter": key, "size": 10, "first": first})
    assert (projects(found), lines) == (25, [])


@pytest.mark.parametrize(
    ("paging", "says"),
    [
        ({"style": "cursor", "parameter": "c", "next": "n", "first": 0}, "first: only the styles page and offset"),
        ({"style": "page", "parameter": "p", "first": -1}, "first: expected a whole number, 0 or more"),
        ({"parameter": "page"}, "style: expected cursor, page, offset or link"),
        ({"next": "links.next"}, "style: expected cursor, page, offset or link"),
    ],
)
def test_keys_that_do_not_fit_together_are_an_error(paging: dict[str, Any], says: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=says):
        described(paging)


@pytest.mark.parametrize("more", [None, "absent"])
async def test_a_flag_that_a_response_does_not_have_decides_nothing(more: Any) -> None:
    """Some servers write no flag that is false."""

    def rest(end: int, items: int) -> dict[str, Any]:
        return {"more": True} if end < items else ({} if more == "absent" else {"more": None})

    found, lines, _ = await read(Server(25, rest=rest), NUMBERS | {"more": "more"})
    assert (projects(found), lines) == (25, [])


@pytest.mark.parametrize(
    ("paging", "rest", "reason"),
    [
        (NUMBERS | {"total": "total"}, {"total": 31}, "the list ended after 25 of 31 items"),
        (OFFSETS | {"total": "total"}, {"total": 31}, "the list ended after 25 of 31 items"),
        (NUMBERS | {"total": "total"}, {"total": "many"}, "paging.total: expected a number of items"),
        (NUMBERS | {"more": "more"}, {"more": "maybe"}, "paging.more: expected true or false"),
        # Not 7 items, and nothing says that it is 7 pages.
        (NUMBERS | {"more": "last"}, {"last": 7}, "paging.more: expected true or false, or a number whose name"),
        (
            NUMBERS | {"more": "per_page"},
            {"per_page": 10},
            "paging.more: expected true or false, or a number whose name",
        ),
        (
            NUMBERS | {"more": "count"},
            {"count": 3},
            "paging.more: the number of all items is less than that of this page",
        ),
        (
            NUMBERS | {"more": "total"},
            {"total": 31},
            "the list ended after 25 of 31 items, which is what paging.more says",
        ),
        (NUMBERS | {"more": "pages"}, {"pages": 5}, "of 5 pages, which is what paging.more says"),
        ({"style": "none", "more": "pages"}, {"pages": 3}, "the list ended after 1 of 3 pages"),
        ({"style": "none", "total": "total"}, {"total": 25}, "the list ended after 10 of 25 items"),
        ({"style": "none", "more": "more"}, {"more": True}, "the list has more pages"),
        ({"style": "link", "more": "more"}, {"more": True}, "the list has more pages"),
    ],
)
async def test_a_list_that_ends_before_it_should_is_an_error(
    paging: dict[str, Any], rest: dict[str, Any], reason: str
) -> None:
    found, lines, _ = await read(Server(25, rest=lambda end, items: rest), paging)
    assert value(found, "spinner_api_up") == 0
    assert reason in str(lines)


async def test_a_cursor_behind_the_last_page_is_not_followed_if_a_flag_says_so() -> None:
    """Relay's `endCursor` is set on the last page as well."""

    def rest(end: int, items: int) -> dict[str, Any]:
        return {"pageInfo": {"endCursor": str(end), "hasNextPage": end < items}}

    paging = {"style": "cursor", "parameter": "skip", "next": "pageInfo.endCursor", "more": "pageInfo.hasNextPage"}
    server = Server(25, rest=rest, beyond=500)
    found, lines, _ = await read(server, paging)
    assert (projects(found), lines, len(server.asked)) == (25, [], 3)


@pytest.mark.parametrize("end", [None, False, ""])
async def test_a_cursor_that_is_none_ends_the_list(end: Any) -> None:
    server = Server(25, rest=lambda at, items: {"next": float(at) if at < items else end}, beyond=500)
    found, lines, _ = await read(server, {"style": "cursor", "parameter": "skip", "next": "next"})
    assert (projects(found), lines, len(server.asked)) == (25, [], 3)


def test_an_invalid_expression_names_its_key() -> None:
    for key in ("total", "more"):
        paging = msgspec.convert({"path": "/x", "paging": NUMBERS | {key: "a[?"}}, Resource)
        with pytest.raises(ConfigError, match=rf"runtime\.resources\.jobs\.paging\.{key}: invalid JMESPath"):
            Layout("jobs", paging)


# -- links ------------------------------------------------------------------------------------------------------------

QUERY = "state=a&page=2&state=b&filter%5B%5D=x&filter%5B%5D=y%26z&empty="


@pytest.mark.parametrize(
    "header",
    [
        f'</api/v1/projects?{QUERY}>; rel="next"',
        f"<https://elsewhere.example.com/x?{QUERY}>;rel=next",
        f'<?{QUERY}>; REL="Next"',
        f'<?page=1>; rel="prev first", <?{QUERY}>; title="a, b"; rel="last next", <?page=9>; rel="last"',
    ],
)
@pytest.mark.parametrize("where", ["header", "body"])
async def test_the_query_of_a_link_is_sent_as_it_is(header: str, where: str) -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response | None:
        if not request.url.path.endswith("/projects"):
            return None
        asked.append(request.url.query.decode())
        document = {"items": [{"id": f"p{len(asked)}", "name": f"Project {len(asked)}"}]}
        if len(asked) > 1:
            return httpx.Response(200, json=document)
        if where == "header":
            return httpx.Response(200, json=document, headers={"Link": header})
        return httpx.Response(200, json=document | {"next": f"/api/v1/projects?{QUERY}"})

    runtime.interfere = answer
    paging = {"style": "link"} | ({"next": "next"} if where == "body" else {})
    async with FaultyRuntime(runtime).serving() as url:
        made = exporter(url, clock, resources=described(paging, query={"state": ["a", "b"]}))
        found, lines = await scrapes(made, clock, times=1)
        await made.close()
    assert (projects(found), lines) == (2, [])
    assert asked == ["state=a&state=b", QUERY]


async def test_a_link_that_is_no_url_costs_the_read_alone() -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    runtime.interfere = lambda request: (
        httpx.Response(200, content=json.dumps({"items": [{"id": "p1", "name": "a"}], "next": "http://[x?a=b"}))
        if request.url.path.endswith("/projects")
        else None
    )
    async with FaultyRuntime(runtime).serving() as url:
        made = exporter(url, clock, resources=described({"style": "link", "next": "next"}))
        found, lines = await scrapes(made, clock)
        await made.close()
    assert value(found, "spinner_api_up") == 0
    assert [(line["what"], line["error"]) for line in lines] == [
        ("projects", "projects: the URL of the next page is invalid")
    ]
