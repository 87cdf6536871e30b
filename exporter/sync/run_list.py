"""Lists of runs while they are read: responses page by page, and a project's slice of a list of all projects."""

import dataclasses
import math
from collections.abc import Iterable, Sequence

from exporter.errors import ApiError
from exporter.runs.read import ProjectRead
from exporter.runs.run import ended_before
from exporter.runtime.held import Holding
from exporter.runtime.model import ListPage, RunSnapshot


@dataclasses.dataclass(frozen=True, slots=True)
class Response:
    """The runs of one response."""

    runs: Sequence[RunSnapshot]
    as_of: float | None
    """The runtime's time that it carries; None when it has none."""
    requested_at: float
    """Our monotonic time of its request: what it says is not older."""
    at: float
    """Our monotonic time of its arrival."""

    def divided(self, before: float) -> "tuple[Response, Response]":
        """Return it with the runs alone that ended before a time of the runtime's clock, and with the others alone."""
        ended = [run for run in self.runs if ended_before(run, before)]
        others = [run for run in self.runs if not ended_before(run, before)]
        return dataclasses.replace(self, runs=ended), dataclasses.replace(self, runs=others)


class RunList:
    """A list of runs while its pages are read."""

    def __init__(self, expected: Iterable[str], holding: Holding | None = None, *, asked_at: float = -math.inf) -> None:
        """`expected` are ids of runs that should be in it; `asked_at` is our monotonic time of the first request.

        `holding` is of the read, unless the caller counts what is held.
        """
        self.holding = holding
        if holding is not None:
            holding.when_refused(self.drain)
        self.asked_at = asked_at
        self.unseen = set(expected)
        """Expected runs that were on no page so far."""
        self.etag: str | None = None
        self.not_modified = False
        self.pages = 0
        self.count = 0
        """Runs on all pages so far."""
        self.changed_at = -math.inf
        """The runtime's time of the last change of any of them."""
        self._responses: list[Response] = []
        self.first = Response((), None, asked_at, asked_at)
        """The first page, without its runs: what changed after it may be missing from the list."""

    def add(self, page: ListPage[RunSnapshot], at: float) -> None:
        """Add the next page, which arrived at our monotonic time `at`. Raises `ApiError` if the read holds too much."""
        if self.holding is not None:
            self.holding.add(page.size)
        requested_at = at if page.requested_at is None else page.requested_at
        if self.first.as_of is None:
            self.first = Response((), page.as_of, requested_at, at)
        self.etag, self.not_modified = page.etag, page.not_modified
        self.pages += 1
        self.count += len(page.items)
        self.changed_at = max([self.changed_at, *[snapshot.updated_at for snapshot in page.items]])
        self._responses.append(Response(page.items, page.as_of, requested_at, at))
        if self.unseen:
            self.unseen.difference_update([snapshot.id for snapshot in page.items])

    def add_single(self, snapshot: RunSnapshot, requested_at: float, at: float) -> None:
        """Add a run that was read by its id, after the list; both are our monotonic times."""
        self._responses.append(Response([snapshot], None, requested_at, at))

    def drain(self) -> list[Response]:
        """Return what was added since the last call."""
        drained, self._responses = self._responses, []
        return drained

    def drain_ended(self, before: float) -> list[Response]:
        """Return the runs of the last page that ended before a time of the runtime's clock; the others stay."""
        ended, others = self._responses.pop().divided(before)
        self._responses.append(others)
        return [ended]

    def as_of(self) -> float:
        """Return the runtime's time that the first page carries."""
        if self.first.as_of is None:
            raise ApiError("jobs: the response has neither asOf nor a Date header, so its time is unknown")
        return self.first.as_of

    def lead(self) -> float:
        """Return how far the runtime's clock is ahead of our monotonic one by the first page."""
        return self.as_of() - self.first.at


@dataclasses.dataclass(frozen=True, slots=True)
class ListRead:
    """What one read of a list means for its project, or for each of all projects."""

    first: Response
    """The first page, without its runs."""
    since: float
    """The runtime's time since which changes were asked for."""
    watermark: float
    asked_at: float
    """Our monotonic time of the first request."""
    horizon: float = -math.inf
    """The one of a first read."""
    unchanged: bool = False
    """Whether the next read starts where this one did."""
    swept_at: float | None = None
    """Our monotonic time at which the list of all runs that have not ended was asked for; None if it was not."""


@dataclasses.dataclass(slots=True)
class Slice:
    """The part of a list of all projects that belongs to one of them."""

    responses: list[Response] = dataclasses.field(default_factory=list)
    """What has not been applied yet."""
    seen: set[str] = dataclasses.field(default_factory=set)
    """The runs that were in the list."""
    read: ProjectRead | None = None
    """The read of the project, if a part of it has been applied already."""
    error: ApiError | None = None
    """Why a part could not be applied."""
    unread: frozenset[str] = frozenset()
    """The runs that are still to be read one by one in this sweep."""

    def drain(self) -> list[Response]:
        """Return what was added since the last call."""
        drained, self.responses = self.responses, []
        return drained

    def drain_ended(self, before: float) -> list[Response]:
        """Return the runs that ended before a time of the runtime's clock; the others stay."""
        divided = [response.divided(before) for response in self.drain()]
        self.responses = [others for _, others in divided if others.runs]
        return [ended for ended, _ in divided if ended.runs]
