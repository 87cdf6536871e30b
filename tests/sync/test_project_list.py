"""The list of projects: conditional requests, filters, and names that are unique."""

from collections.abc import AsyncIterator

import pytest

from exporter.errors import ApiError
from exporter.runtime.model import ListPage, Project
from exporter.sync.project_list import ProjectList
from tests.builders import NOON, Clock

SWEEP = 120.0


class Api:
    """A client with a list of projects, which notes the ETags of requests."""

    def __init__(self, *pages: ListPage[Project]) -> None:
        self.pages = list(pages)
        self.etags: list[str | None] = []

    def has(self, resource: str) -> bool:
        return resource == "projects"

    async def projects(self, *, etag: str | None = None) -> AsyncIterator[ListPage[Project]]:
        self.etags.append(etag)
        for page in self.pages:
            yield page


def page(*names: str, etag: str | None = None) -> ListPage[Project]:
    return ListPage(tuple(Project(name.lower(), name) for name in names), NOON, etag)


def list_of(api: Api, clock: Clock) -> ProjectList:
    return ProjectList(
        api,  # type: ignore[arg-type]
        wanted=lambda name: name != "Secret",
        only_project="default",
        sweep_interval=SWEEP,
        monotonic=clock,
    )


async def test_the_etag_of_a_list_with_one_page_is_sent_until_the_next_sweep() -> None:
    clock = Clock()
    api = Api(page("Sales", etag='"1"'))
    projects = list_of(api, clock)
    await projects.refresh()
    api.pages = [ListPage((), NOON, '"1"', not_modified=True)]
    clock.advance(SWEEP - 1)
    await projects.refresh()
    assert projects.names == {"sales": "Sales"}, "304 means the same list"
    clock.advance(1)
    api.pages = [page("Sales", "Support", etag='"2"')]
    await projects.refresh()
    await projects.refresh()
    assert api.etags == [None, '"1"', None, '"2"']
    assert projects.names == {"sales": "Sales", "support": "Support"}


async def test_no_etag_is_sent_for_a_list_with_several_pages() -> None:
    api = Api(page("Sales", etag='"1"'), page("Support", etag='"2"'))
    projects = list_of(api, Clock())
    await projects.refresh()
    await projects.refresh()
    assert api.etags == [None, None]
    assert projects.names == {"sales": "Sales", "support": "Support"}


async def test_the_time_of_every_response_is_observed() -> None:
    times: list[float] = []
    await list_of(Api(page("Sales"), ListPage((), None), ListPage((), NOON + 1)), Clock()).refresh(
        lambda as_of, requested_at: times.append(as_of)
    )
    assert times == [NOON, NOON + 1]


async def test_a_read_that_fails_leaves_the_list_as_it_was() -> None:
    class Failing(Api):
        async def projects(self, *, etag: str | None = None) -> AsyncIterator[ListPage[Project]]:
            yield page("Other")
            if self.etags:
                raise ApiError("HTTP 500")
            self.etags.append(etag)

    projects = list_of(Failing(), Clock())
    await projects.refresh()
    with pytest.raises(ApiError):
        await projects.refresh()
    assert projects.names == {"other": "Other"}


async def test_only_wanted_projects_are_read() -> None:
    projects = list_of(Api(page("Sales", "Secret")), Clock())
    await projects.refresh()
    assert projects.wanted == {"sales": "Sales"}
    assert set(projects.names) == {"sales", "secret"}
