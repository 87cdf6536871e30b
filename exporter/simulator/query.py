"""The query parameters of a request; unknown or invalid ones are rejected."""

import dataclasses
import re
from collections.abc import Container
from datetime import UTC, datetime, timedelta

from starlette.datastructures import QueryParams

MAX_LIMIT = 500
_DEFAULT_LIMIT = 100

# RFC 3339, section 5.6: "T" and "Z" may be lower case, and a minute may have a leap second.
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d):([0-5]\d|60)(?:\.(\d+))?(?:[Zz]|([+-])([01]\d|2[0-3]):([0-5]\d))", re.ASCII
)


class QueryError(ValueError):
    """A parameter is invalid; the message names it and says what was expected."""


@dataclasses.dataclass(frozen=True, slots=True)
class Query:
    """The parameters of one request."""

    limit: int
    cursor: str | None
    status: str | None
    active: bool
    updated_since_ms: float | None
    """Epoch milliseconds."""
    project_id: str | None

    @property
    def scope(self) -> str:
        """Identifies the list with its filters, independent of the page."""
        return f"{self.status}\0{self.active}\0{self.updated_since_ms}\0{self.project_id}"


def read_query(parameters: QueryParams, *names: str, statuses: Container[str] = ()) -> Query:
    """Read the parameters. Each name may occur once. Raises `QueryError`.

    Unknown names are rejected, so that a client with a misspelled filter does not get the whole list.
    """
    given: dict[str, str] = {}
    for name, value in parameters.multi_items():
        if name not in names:
            raise QueryError(f"expected no parameters but {', '.join(names)}")
        if name in given:
            raise QueryError(f"{name}: expected once")
        given[name] = value
    status = given.get("status")
    if status is not None and status not in statuses:
        raise QueryError("status: expected a status that this list can have")
    since = given.get("updatedSince")
    return Query(
        limit=_limit(given.get("limit")),
        cursor=given.get("cursor"),
        status=status,
        active=_flag(given.get("active")),
        updated_since_ms=None if since is None else _milliseconds(since),
        project_id=_project_id(given.get("projectId")),
    )


def _limit(text: str | None) -> int:
    if text is None:
        return _DEFAULT_LIMIT
    if not re.fullmatch(r"[1-9]\d{0,2}", text, re.ASCII) or int(text) > MAX_LIMIT:
        raise QueryError(f"limit: expected a whole number from 1 to {MAX_LIMIT}")
    return int(text)


def _project_id(text: str | None) -> str | None:
    if text == "":
        raise QueryError("projectId: expected an id")
    return text


def _flag(text: str | None) -> bool:
    if text not in (None, "true", "false"):
        raise QueryError("active: expected true or false")
    return text == "true"


def _milliseconds(text: str) -> float:
    match = _RFC3339.fullmatch(text)
    expected = "updatedSince: expected an RFC 3339 time with an offset, such as 2026-01-05T09:00:00.000Z"
    if match is None:
        # In a query string "+" means a space, so tell the client to escape the sign of the offset.
        raise QueryError(expected + ("; write + as %2B" if " " in text else ""))
    day, minute, second, fraction, sign, hours, minutes = match.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{minute}:00").replace(tzinfo=UTC)
    except ValueError:
        raise QueryError(expected) from None
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0)) * (-1 if sign == "-" else 1)
    # Calculated with numbers, because near the years 1 and 9999 the offset can exceed the range of datetime.
    seconds = (moment - _EPOCH - offset).total_seconds() + int(second)
    return seconds * 1000 + float(f"0.{fraction or 0}") * 1000


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
