"""Requests for resources and the first pages of lists, built from a `Resource` of the API description."""

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from exporter.config.api_description import PLACEHOLDER, ListFilter, Resource, TimeFormat, merged
from exporter.errors import ApiError
from exporter.runtime.mapping import zone_of
from exporter.runtime.paging import Pages, PageSizes, Request, first_of, with_parameter


class Endpoint:
    """Builds the requests for one resource. Raises `ConfigError` for an invalid description."""

    def __init__(self, name: str, resource: Resource) -> None:
        self.name = name
        self.resource = resource
        self._sizes = PageSizes()
        since = resource.since
        zone = since.zone if isinstance(since, TimeFormat) else None
        self._zone = zone_of(zone or "UTC", f"runtime.resources.{name}.since")

    def request(self, ids: Mapping[str, str], *filters: ListFilter | None, since: float | None = None) -> Request:
        """Return the first request. `ids` has a value for each placeholder in the path; `since` is by the API's clock.

        An id is percent-encoded, so that it cannot change the path; its slashes too, except for `{NAME:path}`.
        """
        values: dict[str, Any] = dict(ids)
        if since is not None:
            values["since"] = self._since(since)
        path = PLACEHOLDER.sub(lambda found: self._part(ids, found[1], "/" if found[2] else ""), self.resource.path)
        query = dict(self.resource.query)
        body = self.resource.body
        for list_filter in filters:
            if list_filter is None:
                continue
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
            request = with_parameter(request, paging.size_parameter, paging.size)
        if paging.style in ("page", "offset"):
            request = with_parameter(request, paging.parameter, first_of(paging))
        return request

    def pages(self, first: Request, *, sizes: PageSizes | None = None) -> Pages:
        """Begin to read a list whose first page is at a request.

        What is learned about the pages is used for the next lists, unless it goes into other `sizes`.
        """
        return Pages(self.name, self.resource.paging, first, self._sizes if sizes is None else sizes)

    def _part(self, ids: Mapping[str, str], place: str, safe: str) -> str:
        """Return an id or a reference as a part of the path. Raises `ApiError` for one that would change the path."""
        value = ids.get(place, "")
        segments = value.split("/") if safe else [value]
        if {"", ".", ".."} & {*segments} or _SURROGATE.search(value):
            raise ApiError(f"{self.name}: no usable {place} for the path")
        return quote(value, safe=safe)

    def _since(self, seconds: float) -> str | int:
        if isinstance(self.resource.since, TimeFormat):
            return self._formatted(seconds, self.resource.since)
        if self.resource.since == "epoch_s":
            return int(seconds)
        if self.resource.since == "epoch_ms":
            return int(seconds * 1000)
        whole, milliseconds = divmod(int(seconds * 1000), 1000)
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{milliseconds:03d}Z"

    def _formatted(self, seconds: float, since: TimeFormat) -> str:
        """Return a time in a format, which may cut it: to the start of its minute, for example."""
        time = datetime.fromtimestamp(int(seconds), UTC).astimezone(self._zone)
        # Of an hour that comes twice, the API may mean either: the one before it is in both.
        while not since.has_offset and time.replace(fold=0).utcoffset() != time.replace(fold=1).utcoffset():
            time = (time.astimezone(UTC) - timedelta(hours=1)).astimezone(self._zone)
        return time.strftime(since.format)


_SURROGATE = re.compile("[\ud800-\udfff]")


def _filled(value: Any, values: Mapping[str, Any]) -> Any:
    """Replace the placeholders in a tree's texts; a text that is a single placeholder becomes the value itself."""
    if isinstance(value, Mapping):
        return {key: _filled(each, values) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(each, values) for each in value]
    if not isinstance(value, str):
        return value
    whole = PLACEHOLDER.fullmatch(value)
    if whole and whole[1] in values:
        return values[whole[1]]
    return PLACEHOLDER.sub(lambda found: str(values.get(found[1], found[0])), value)


def _plain(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value
