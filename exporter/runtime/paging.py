"""Which page of a list is next, and which is the last.

Cursors and links say it themselves. With page numbers and offsets the last page is the one that is not full; but what a
full page is, only the server knows: many send fewer items than a request asks for. So the size of a full page is
learned, and a short first page is followed by a request for the second until it is.
"""

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from exporter.config.api_description import Paging, merged
from exporter.errors import ApiError

BEYOND_THE_END = (204, 400, 404, 416)
"""Statuses that end a list if they answer the request for a page behind a full one."""


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One request: `body` is None for GET. The query is in pairs where it is that of a link."""

    method: str
    path: str
    query: dict[str, Any] | tuple[tuple[str, str], ...]
    body: dict[str, Any] | None


@dataclasses.dataclass(frozen=True, slots=True)
class PageInfo:
    """What a response says about its page and the next one."""

    count: int
    """Items as the server sent them, before `items` selects some."""
    cursor: str | None = None
    """What `paging.next` finds in the body: a cursor or, for the style `link`, a URL."""
    link: str | None = None
    """The URL of `rel=next` in the header Link."""
    total: int | None = None
    """How many items the whole list has, if the response says so."""
    more: bool | None = None
    """Whether there is another page, if the response says so."""
    pages: int | None = None
    """How many pages the whole list has, if the response says so."""
    repeats: bool = False
    """Whether it has the items of the page before."""


class PageSizes:
    """What is known about the pages of one resource."""

    def __init__(self) -> None:
        self.full: int | None = None
        """The items of a full page; None before a page with a successor was seen."""
        self.longest_whole = 0
        """The items of the longest page that was seen to be a whole list. A full page is at least as long."""


class Pages:
    """One list while its pages are read. Raises `ApiError` for one that contradicts itself or does not end."""

    def __init__(self, name: str, paging: Paging, first: Request, sizes: PageSizes) -> None:
        """`name` is that of the resource."""
        self.request = first
        """The request for the page that is to be read."""
        self.number = 1
        self._name = name
        self._paging = paging
        self._sizes = sizes
        self._requested = {_digest_of(first)}
        self._seen = 0
        self._before: PageInfo | None = None

    @property
    def is_counted(self) -> bool:
        """Whether page numbers or offsets select the pages."""
        return self._paging.style in ("page", "offset")

    def ends_with(self, status: int) -> bool:
        """Whether a status in answer to `request` says that the page before was the last one."""
        return self.is_counted and self.number > 1 and status in BEYOND_THE_END

    def end(self) -> None:
        """Note that there is no page at `request`, and that the list ended with the page before."""
        if self._before is not None:
            self._check_end(self._before, self.number - 1)
        self._learn_end()

    def next(self, page: PageInfo) -> bool:
        """Add the page at `request`; return whether there is another one, which is at `request` then."""
        if self._before is not None and page.count and not page.repeats:
            self._sizes.full = max(self._sizes.full or 0, self._before.count)
        self._seen += 0 if page.repeats else page.count
        following = self._counted(page) if self.is_counted else self._told(page)
        if following is None:
            return False
        if _digest_of(following) in self._requested or (page.repeats and not self.is_counted):
            raise self._error("the list does not end: the next page is one that was already read")
        self._requested.add(_digest_of(following))
        self.request, self._before, self.number = following, page, self.number + 1
        return True

    def _told(self, page: PageInfo) -> Request | None:
        """Return the request for what a cursor or a link leads to."""
        paging, following = self._paging, None
        if max(len(page.cursor or ""), len(page.link or "")) > MAX_CURSOR:
            raise self._error(f"the cursor or the URL of the next page has more than {MAX_CURSOR:,} characters")
        if paging.style == "cursor" and page.cursor:
            following = with_parameter(self.request, paging.parameter, page.cursor)
        elif paging.style == "link":
            following = _linked(self._name, self.request, page.link if paging.next is None else page.cursor)
        if page.more is False:
            following = None
        if following is None:
            self._check_end(page)
        return following

    def _counted(self, page: PageInfo) -> Request | None:
        """Return the request for the next number."""
        paging = self._paging
        if page.repeats:
            # The server ignores the number, or answers every number behind the last page with the last page.
            if self.number == 2 and page.count >= paging.size:
                raise self._error("the list does not end: the next page is one that was already read")
            self._learn_end()
            self._check_end(page, self.number - 1)
            return None
        if self._is_last(page):
            if not page.count:
                self._learn_end()
            self._check_end(page)
            return None
        where = first_of(paging) + (self.number if paging.style == "page" else self._seen)
        return with_parameter(self.request, paging.parameter, where)

    def _is_last(self, page: PageInfo) -> bool:
        if page.more is not None:
            return not page.more
        if page.pages is not None:
            return self.number >= page.pages
        if page.total is not None:
            return self._seen >= page.total or not page.count
        if not page.count or page.count >= self._paging.size:
            return not page.count
        if self._sizes.full is not None:
            return page.count < self._sizes.full
        return page.count < self._sizes.longest_whole

    def _learn_end(self) -> None:
        """Note that the list ended with the page before."""
        if self._before is not None and self.number == 2:
            self._sizes.longest_whole = max(self._sizes.longest_whole, self._before.count)

    def _check_end(self, page: PageInfo, read: int | None = None) -> None:
        """Raise if the list goes on according to its last page; `read` is the number of its pages."""
        read = self.number if read is None else read
        if page.more:
            raise self._error("the list has more pages, as paging.more says, and none could be read")
        if page.total is not None and page.total > self._seen:
            raise self._error(
                f"the list ended after {self._seen} of {page.total} items, which is what {self._says} says"
            )
        if page.pages is not None and page.pages > read:
            raise self._error(f"the list ended after {read} of {page.pages} pages, which is what paging.more says")

    @property
    def _says(self) -> str:
        return "paging.total" if self._paging.total is not None else "paging.more"

    def _error(self, what: str) -> ApiError:
        return ApiError(f"{self._name}: {what}")


def first_of(paging: Paging) -> int:
    """Return the number of the first page, or of the first item."""
    return paging.first if paging.first is not None else int(paging.style == "page")


MAX_CURSOR = 16_384
"""Characters of a cursor or a link: it becomes part of a request."""


def digest(content: bytes) -> bytes:
    """Return a short value that differs for different contents, to compare them later."""
    return hashlib.blake2b(content, digest_size=16).digest()


def _digest_of(request: Request) -> bytes:
    return digest(repr(request).encode(errors="backslashreplace"))


def with_parameter(request: Request, parameter: str, value: Any) -> Request:
    """Return a request with a query parameter or, with POST, a key of the body, dotted where nested."""
    if request.body is None:
        return dataclasses.replace(request, query={**dict(request.query), parameter: value})
    tree: Any = value
    for key in reversed(parameter.split(".")):
        tree = {key: tree}
    return dataclasses.replace(request, body=merged(request.body, tree))


def _linked(name: str, request: Request, link: str | None) -> Request | None:
    if not link:
        return None
    # Only the link's query is used: its host and path could send the token elsewhere.
    try:
        query = parse_qsl(urlsplit(link).query, keep_blank_values=True)
    except ValueError:
        raise ApiError(f"{name}: the URL of the next page is invalid") from None
    return dataclasses.replace(request, query=tuple(query))


def next_link(headers: Mapping[str, str]) -> str | None:
    """Return the URL of `rel=next` in the header Link (RFC 8288); None without one."""
    # Not with one expression for all: of a header that consists of `<` it would search the rest from each one.
    for link in headers.get("Link", "").split("<")[1:]:
        url, is_closed, parameters = link.partition(">")
        relation = re.search(r";\s*rel\s*=\s*(?:\"([^\"]*)\"|([^\s;,]+))", parameters, re.IGNORECASE)
        if is_closed and relation and "next" in (relation[1] or relation[2] or "").lower().split():
            return url
    return None
