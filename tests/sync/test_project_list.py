"""The list of projects: conditional requests, filters, and names that are unique."""

from collections.abc import AsyncIterator

import pytest

from exporter.errors import ApiError
from exporter.runtime.model import ListPage, Project
from exporter.sync.project_list import ProjectList
from tests.builders import NOON, Clock

SWEEP = 120.0
LENGTH = 40


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
        label_length=LENGTH,
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


def named(**names: str) -> ListPage[Project]:
    return ListPage(tuple(Project(project_id, name) for project_id, name in names.items()), NOON)


async def test_a_namesake_that_appears_later_renames_nobody() -> None:
    api = Api(named(p9="Clinic"))
    projects = list_of(api, Clock())
    await projects.refresh()
    api.pages = [named(p1="Clinic", p9="Clinic")]
    await projects.refresh()
    assert projects.wanted == {"p9": "Clinic", "p1": "Clinic (p1)"}
    api.pages = [named(p1="Clinic")]
    await projects.refresh()
    assert projects.wanted == {"p1": "Clinic (p1)"}, "the other one may return"


async def test_the_names_that_are_in_use_stay_after_a_restart_and_while_the_list_is_empty() -> None:
    api = Api(named(p1="Clinic", p9="Clinic"))
    projects = list_of(api, Clock())
    held = {"p9": "Clinic", "p1": "Clinic (p1)"}
    await projects.refresh(held=held)
    assert projects.wanted == held
    api.pages = [named()]
    await projects.refresh(held=held)
    api.pages = [named(p1="Clinic", p2="Clinic", p9="Clinic")]
    await projects.refresh(held=held)
    assert projects.wanted == {**held, "p2": "Clinic (p2)"}


async def test_a_project_that_left_the_list_keeps_its_name_while_it_is_shown() -> None:
    projects = list_of(Api(named(p2="Clinic")), Clock())
    await projects.refresh(held={"p1": "Clinic"})
    assert projects.wanted == {"p2": "Clinic (p2)"}


async def test_projects_that_swap_their_names_are_renamed() -> None:
    api = Api(named(p1="Clinic", p2="Sales"))
    projects = list_of(api, Clock())
    await projects.refresh()
    held = dict(projects.wanted)
    api.pages = [named(p1="Sales", p2="Clinic")]
    await projects.refresh(held=held)
    assert projects.wanted == {"p1": "Sales", "p2": "Clinic"}
