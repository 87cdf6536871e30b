"""Requests for resources and their pages, built from a `Resource` of the API description."""

import dataclasses
import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from exporter.config.api_description import ListFilter, Resource, merged
from exporter.errors import ApiError, ConfigError


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One request: `body` is None for GET."""

    method: str
    path: str
    query: dict[str, Any]
    body: dict[str, Any] | None


@dataclasses.dataclass(frozen=True, slots=True)
class PageInfo:
    """What a response says about the next page."""

    items: int
    cursor: str | None
    """What `paging.next` finds in the body: a cursor or, for the style `link`, a URL."""
    link: str | None
    """The URL of `rel=next` in the header Link."""


class Endpoint:
    """Builds the requests for one resource. Raises `ConfigError` for an invalid description."""

    def __init__(self, name: str, resource: Resource) -> None:
        self.name = name
        self.resource = resource
        unknown = set(_PLACEHOLDERS.findall(resource.path)) - {"project", "run"}
        unknown = {name for name in unknown if not name.startswith("ref.")}
        if unknown:
            raise ConfigError(
                f"runtime.resources.{name}.path: {{{min(unknown)}}} is unknown; "
                "expected {project}, {run} or {ref.NAME}"
            )

    def request(
        self, ids: Mapping[str, str], list_filter: ListFilter | None = None, *, since: float | None = None
    ) -> Request:
        """Return the first request. `ids` has a value for each placeholder in the path; `since` is by the API's clock.

        An id is percent-encoded, including its slashes, so that it cannot change the path.
        """
        values: dict[str, Any] = dict(ids)
        if since is not None:
            values["since"] = self._since(since)
        path = _PLACEHOLDERS.sub(lambda found: quote(self._id(ids, found[1]), safe=""), self.resource.path)
        query = dict(self.resource.query)
        body = self.resource.body
        if list_filter is not None:
            query |= list_filter.query
            body = merged(body, list_filter.body)
        query = {key: _plain(_filled(value, values)) for key, value in query.items()}
        request = Request(
            self.resource.method,
            path,
            query,
            _filled(body, values) if self.resource.method == "POST" else None,
        )
        paging = self.resource.paging
        if paging.size_parameter is not None:
            request = _with(request, paging.size_parameter, paging.size)
        if paging.style == "page":
            request = _with(request, paging.parameter, paging.first)
        elif paging.style == "offset":
            request = _with(request, paging.parameter, 0)
        return request

    def next(self, request: Request, page: PageInfo, number: int) -> Request | None:
        """Return the request for the page after `number` (from 1), or None after the last."""
        paging = self.resource.paging
        if paging.style == "cursor":
            return _with(request, paging.parameter, page.cursor) if page.cursor else None
        if paging.style == "link":
            return _linked(request, page.link if paging.next is None else page.cursor)
        # Without a cursor, the last page is the one that is not full.
        if paging.style == "none" or page.items < paging.size:
            return None
        where = paging.first + number if paging.style == "page" else number * paging.size
        return _with(request, paging.parameter, where)

    def _id(self, ids: Mapping[str, str], place: str) -> str:
        usable = place in ids and ids[place] not in (".", "..") and not _SURROGATE.search(ids[place])
        if not usable:
            raise ApiError(f"{self.name}: no usable {place} for the path")
        return ids[place]

    def _since(self, seconds: float) -> str | int:
        if self.resource.since == "epoch_s":
            return int(seconds)
        if self.resource.since == "epoch_ms":
            return int(seconds * 1000)
        whole, milliseconds = divmod(int(seconds * 1000), 1000)
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{milliseconds:03d}Z"


_SURROGATE = re.compile("[\ud800-\udfff]")
_PLACEHOLDERS = re.compile(r"\{([\w.]+)\}")


def _filled(value: Any, values: Mapping[str, Any]) -> Any:
    """Replace the placeholders in a tree's texts; a text that is a single placeholder becomes the value itself."""
    if isinstance(value, Mapping):
        return {key: _filled(each, values) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(each, values) for each in value]
    if not isinstance(value, str):
        return value
    whole = _PLACEHOLDERS.fullmatch(value)
    if whole and whole[1] in values:
        return values[whole[1]]
    return _PLACEHOLDERS.sub(lambda found: str(values.get(found[1], found[0])), value)


def _plain(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def _with(request: Request, parameter: str, value: Any) -> Request:
    if request.body is None:
        return dataclasses.replace(request, query={**request.query, parameter: value})
    tree: Any = value
    for key in reversed(parameter.split(".")):
        tree = {key: tree}
    return dataclasses.replace(request, body=merged(request.body, tree))


def _linked(request: Request, link: str | None) -> Request | None:
    if not link:
        return None
    # Only the link's query is used: its host and path could send the token elsewhere. A parameter can occur repeatedly.
    return dataclasses.replace(request, query=dict(parse_qs(urlsplit(link).query, keep_blank_values=True)))
