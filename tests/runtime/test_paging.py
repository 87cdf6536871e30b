"""Which page is the next one, and when a list has ended. `tests/faults/test_paging.py` reads whole lists over HTTP."""

from typing import Any

import msgspec
import pytest

from exporter.config.api_description import Paging
from exporter.errors import ApiError
from exporter.runtime.paging import PageInfo, Pages, PageSizes, Request, next_link

FIRST = Request("GET", "/projects", {}, None)


def pages(sizes: PageSizes | None = None, **paging: Any) -> Pages:
    described = {"style": "page", "parameter": "page", "size": 50, **paging}
    if described["style"] in ("none", "link"):
        del described["parameter"]
    return Pages("projects", msgspec.convert(described, Paging), FIRST, sizes or PageSizes())


def goes_on(sizes: PageSizes, *read: int) -> bool:
    """Whether a list goes on after pages with so many items, of which all but the last one have a next one."""
    reading = pages(sizes)
    assert all(reading.next(PageInfo(count)) for count in read[:-1])
    return reading.next(PageInfo(read[-1]))


# -- page numbers and offsets --------------------------------------------------------------------------------------


def test_a_page_that_is_longer_than_the_full_ones_is_not_the_last() -> None:
    assert goes_on(PageSizes(), 10, 10, 12)


@pytest.mark.parametrize("count", [50, 55])
def test_a_page_with_the_requested_items_or_more_may_have_a_next_one_although_others_had_more(count: int) -> None:
    sizes = PageSizes()
    goes_on(sizes, 60, 60, 0)
    assert goes_on(sizes, count)
    assert not goes_on(sizes, 49)


@pytest.mark.parametrize("ends", ["empty", "missing", "repeated"])
def test_a_page_as_long_as_the_longest_whole_list_may_be_a_full_one_and_a_shorter_one_is_none(ends: str) -> None:
    sizes = PageSizes()
    reading = pages(sizes)
    assert reading.next(PageInfo(9))
    if ends == "missing":
        reading.end()
    else:
        assert not reading.next(PageInfo(0) if ends == "empty" else PageInfo(9, repeats=True))
    assert goes_on(sizes, 9)
    assert not goes_on(sizes, 8)


@pytest.mark.parametrize("style", ["page", "offset", "cursor"])
def test_only_behind_the_first_page_of_numbered_ones_an_error_can_be_an_end(style: str) -> None:
    described: dict[str, Any] = {"next": "next"} if style == "cursor" else {}
    reading = pages(style=style, **described)
    statuses = (200, 203, 204, 205, 304, 399, 400, 401, 403, 404, 405, 409, 415, 416, 417, 422, 500)
    assert not any(reading.ends_with(status) for status in statuses)
    assert reading.next(PageInfo(50, cursor="2"))
    ends = [] if style == "cursor" else [204, 400, 404, 416]
    assert [status for status in statuses if reading.ends_with(status)] == ends


@pytest.mark.parametrize("said", [{"total": 0}, {"pages": 0}, {"more": False}], ids=str)
def test_a_list_without_items_has_one_page(said: dict[str, Any]) -> None:
    assert not pages(total="total").next(PageInfo(0, **said))


def test_a_list_that_became_shorter_while_it_was_read_has_ended() -> None:
    told: list[tuple[dict[str, Any], dict[str, Any]]]
    told = [({"total": 100}, {"total": 99}), ({"pages": 3}, {"pages": 1})]
    for before, after in told:
        reading = pages(total="total")
        assert reading.next(PageInfo(50, **before))
        assert not reading.next(PageInfo(50, **after))


@pytest.mark.parametrize("ends", ["missing", "repeated"])
@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"total": 21}, "the list ended after 20 of 21 items, which is what paging.total says"),
        ({"pages": 3}, "the list ended after 2 of 3 pages, which is what paging.more says"),
        ({"more": True}, "the list has more pages, as paging.more says, and none could be read"),
    ],
)
def test_a_list_that_ends_with_an_error_or_repeats_its_last_page_before_it_should_is_an_error(
    ends: str, said: dict[str, Any], message: str
) -> None:
    reading = pages(total="total")
    for _ in range(2):
        assert reading.next(PageInfo(10, **said))
    following = reading.end if ends == "missing" else lambda: reading.next(PageInfo(10, repeats=True, **said))
    with pytest.raises(ApiError, match=f"^projects: {message}$"):
        following()


@pytest.mark.parametrize("count", [50, 51])
def test_a_second_page_that_repeats_a_full_first_one_is_no_end(count: int) -> None:
    reading = pages()
    reading.next(PageInfo(count))
    with pytest.raises(
        ApiError, match=r"^projects: the list does not end: the next page is one that was already read$"
    ):
        reading.next(PageInfo(count, repeats=True))


@pytest.mark.parametrize(
    ("described", "numbers"),
    [
        ({"style": "page"}, [2, 3]),
        ({"style": "page", "first": 0}, [1, 2]),
        ({"style": "page", "first": 7}, [8, 9]),
        ({"style": "offset"}, [10, 22]),
        ({"style": "offset", "first": 7}, [17, 29]),
    ],
    ids=str,
)
def test_numbers_count_pages_and_offsets_items(described: dict[str, Any], numbers: list[int]) -> None:
    reading, found = pages(**described), []
    for count in (10, 12):
        assert reading.next(PageInfo(count))
        found.append(reading.request.query)
    assert found == [{"page": number} for number in numbers]


@pytest.mark.parametrize("said", [{"total": 20}, {"pages": 2}], ids=str)
def test_a_list_ends_with_the_page_that_it_says(said: dict[str, Any]) -> None:
    reading = pages(total="total")
    assert [reading.next(PageInfo(10, **said)) for _ in range(2)] == [True, False]


def test_a_later_page_that_repeats_a_full_one_is_the_end() -> None:
    reading = pages()
    assert reading.next(PageInfo(50))
    assert reading.next(PageInfo(50))
    assert not reading.next(PageInfo(50, repeats=True))


# -- cursors and links ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["cursor", "link"])
def test_a_cursor_or_a_link_has_16384_characters_at_most(where: str) -> None:
    described: dict[str, Any] = {"style": "cursor", "next": "next"} if where == "cursor" else {"style": "link"}
    longest: dict[str, Any] = {where: "/projects?after=".ljust(16_384, "x")}
    assert pages(**described).next(PageInfo(1, **longest))
    with pytest.raises(ApiError, match="more than 16,384 characters"):
        pages(**described).next(PageInfo(1, **{where: longest[where] + "x"}))


def test_a_cursor_is_a_parameter_and_a_link_has_all_of_them() -> None:
    described: list[dict[str, Any]]
    described = [{"style": "cursor", "next": "next"}, {"style": "link", "next": "next"}, {"style": "link"}]
    found = []
    for each in described:
        reading = pages(**each)
        assert reading.next(PageInfo(1, cursor="?a=1", link="?b=2"))
        found.append(reading.request.query)
    assert found == [{"page": "?a=1"}, (("a", "1"),), (("b", "2"),)]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"total": 1}, None),
        ({"total": 2}, "the list ended after 1 of 2 items"),
        ({"pages": 2}, "the list ended after 1 of 2 pages"),
        ({"more": True}, "the list has more pages"),
        ({"more": False, "cursor": "2"}, None),
        ({"more": False, "cursor": "2", "total": 2}, "the list ended after 1 of 2 items"),
    ],
    ids=str,
)
def test_a_list_without_a_cursor_or_with_a_flag_that_says_so_has_ended(
    said: dict[str, Any], message: str | None
) -> None:
    reading = pages(style="cursor", next="next", total="total")
    if message is None:
        assert not reading.next(PageInfo(1, **said))
    else:
        with pytest.raises(ApiError, match=f"^projects: {message}"):
            reading.next(PageInfo(1, **said))


@pytest.mark.parametrize("where", ["cursor", "link"])
def test_a_list_that_leads_back_to_any_of_its_pages_is_an_error(where: str) -> None:
    described: dict[str, Any] = {"style": "cursor", "next": "next"} if where == "cursor" else {"style": "link"}
    for back in "abc":
        reading = pages(**described)
        for count, each in enumerate("abc", start=1):
            following: dict[str, Any] = {where: f"?at={each}"}
            assert reading.next(PageInfo(count, **following))
        following = {where: f"?at={back}"}
        with pytest.raises(ApiError, match=r"^projects: the list does not end"):
            reading.next(PageInfo(4, **following))


@pytest.mark.parametrize("style", ["none", "page", "offset"])
def test_a_header_with_the_next_page_is_used_for_links_only(style: str) -> None:
    reading = pages(style=style, total="total")
    assert not reading.next(PageInfo(1, link="/projects?page=2", total=1))


@pytest.mark.parametrize(
    "header",
    ["/projects?page=2>; rel=next", "</projects?page=2; rel=next", "</projects?page=2>; title=next", ">;rel=next"],
)
def test_a_header_that_names_no_next_page_leads_nowhere(header: str) -> None:
    assert next_link({"Link": header}) is None
    assert next_link({"Link": f"{header}, </projects?page=3>; rel=next"}) == "/projects?page=3"
