"""The list of projects: when it is read, when a project leaves it, filters, and names that are unique."""

from collections.abc import AsyncIterator

import pytest

from exporter.errors import ApiError
from exporter.runtime.client import CachedPage, PageCache
from exporter.runtime.decoder import DecodedPage
from exporter.runtime.held import HeldBytes
from exporter.runtime.model import ListPage, Project
from exporter.sync import project_list
from exporter.sync.project_list import ProjectList
from tests.builders import NOON, Clock

INTERVAL = 60.0
SWEEP = 150.0
LENGTH = 40


class Api:
    """A client with a list of projects, which notes whether the pages before were given to a request."""

    def __init__(self, *pages: ListPage[Project]) -> None:
        self.pages = list(pages)
        self.reads: list[bool] = []
        self.held = HeldBytes(1_000_000)

    def has(self, resource: str) -> bool:
        return resource == "projects"

    async def projects(self, cache: PageCache[Project]) -> AsyncIterator[ListPage[Project]]:
        self.reads.append(bool(cache.pages))
        for page in self.pages:
            yield page
        cache.pages = {"": CachedPage('"1"', DecodedPage((), None, None, 0), None)}


def page(*names: str) -> ListPage[Project]:
    return ListPage(tuple(Project(name.lower(), name) for name in names), NOON)


def unnamed(*ids: str, skipped: int = 0) -> ListPage[Project]:
    return ListPage(tuple(Project(each, "") for each in ids), NOON, skipped=skipped)


def list_of(api: Api, clock: Clock, *, interval: float = 0.0) -> ProjectList:
    return ProjectList(
        api,  # type: ignore[arg-type]
        wanted=lambda name: name != "Secret",
        only_project="default",
        interval=interval,
        sweep_interval=SWEEP,
        label_length=LENGTH,
        monotonic=clock,
    )


# -- when it is read --------------------------------------------------------------------------------------------


async def test_it_is_read_once_per_interval() -> None:
    clock, api = Clock(), Api(page("Sales"))
    projects = list_of(api, clock, interval=INTERVAL)
    for _ in range(9):
        await projects.refresh()
        clock.advance(15)
    assert len(api.reads) == 3, "at 0, 60 and 120 seconds"


async def test_it_is_read_at_once_when_it_may_lack_a_project() -> None:
    clock, api = Clock(), Api(page("Sales"))
    projects = list_of(api, clock, interval=INTERVAL)
    await projects.refresh()
    api.pages = [page("Sales", "Support")]
    projects.look_again()
    await projects.refresh()
    assert projects.has("support")
    await projects.refresh()
    assert len(api.reads) == 2


async def test_one_that_is_empty_or_that_failed_is_read_again_at_once() -> None:
    class Failing(Api):
        async def projects(self, cache: PageCache[Project]) -> AsyncIterator[ListPage[Project]]:
            async for each in super().projects(cache):
                if len(self.reads) == 3:
                    raise ApiError("HTTP 500")
                yield each

    clock, api = Clock(), Failing(page())
    projects = list_of(api, clock, interval=INTERVAL)
    for _ in range(2):
        await projects.refresh()
    api.pages = [page("Sales")]
    with pytest.raises(ApiError):
        await projects.refresh()
    await projects.refresh()
    await projects.refresh()
    assert projects.has("sales")
    assert len(api.reads) == 4


@pytest.mark.parametrize(
    ("seconds", "conditional"),
    [(INTERVAL, [False, True, True, False, True, True]), (SWEEP / 2, [False, True, False, True, False, True])],
)
async def test_after_the_interval_of_sweeps_its_pages_are_read_without_conditions(
    seconds: float, conditional: list[bool]
) -> None:
    clock, api = Clock(), Api(page("Sales"))
    projects = list_of(api, clock, interval=INTERVAL)
    for _ in range(6):
        await projects.refresh()
        clock.advance(seconds)
    assert api.reads == conditional


async def test_each_project_that_it_lacks_is_looked_for_once_and_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project_list, "MAX_LOOKED_FOR", 2)
    clock, api = Clock(), Api(page("Sales"))
    projects = list_of(api, clock, interval=INTERVAL)
    await projects.refresh()
    looked, reads = [], []
    for project in ("sales", "a", "a", "b", "c"):
        looked.append(projects.look_for([project]))
        await projects.refresh()
        reads.append(len(api.reads))
    assert looked == [False, True, False, True, False]
    assert reads == [1, 2, 2, 3, 3]


async def test_where_the_api_has_no_projects_the_only_one_has_a_name_that_no_other_one_is_shown_by() -> None:
    """After a reload, projects of the config before may still be shown."""

    class Without(Api):
        def has(self, resource: str) -> bool:
            return False

    clock, api = Clock(), Without()
    projects = list_of(api, clock, interval=INTERVAL)
    await projects.refresh()
    assert (projects.wanted, projects.requested_at) == ({"default": "default"}, clock())
    projects = list_of(api, clock, interval=INTERVAL)
    await projects.refresh(held={"p1": "default"})
    assert projects.wanted == {"default": "default (default)"}
    assert api.reads == []


# -- what it has ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [(), ("Support",)])
async def test_a_project_leaves_when_two_answers_in_a_row_lack_it(left: tuple[str, ...]) -> None:
    clock, api = Clock(), Api(page("Sales", "Support"))
    projects = list_of(api, clock, interval=INTERVAL)
    await projects.refresh()
    for _ in range(3):
        api.pages = [page(*left)]
        clock.advance(INTERVAL)
        await projects.refresh()
        assert projects.has("sales"), "one answer is not enough"
        api.pages = [page("Sales", "Support")]
        await projects.refresh()
        assert projects.has("sales")
    api.pages = [page(*left)]
    clock.advance(INTERVAL)
    for _ in range(2):
        await projects.refresh()
    assert not projects.has("sales")
    assert not projects.wanted.keys() - {name.lower() for name in left}


async def test_the_second_answer_is_asked_for_at_once() -> None:
    clock, api = Clock(), Api(page("Sales", "Support"))
    projects = list_of(api, clock, interval=INTERVAL)
    await projects.refresh()
    api.pages = [page("Sales")]
    clock.advance(INTERVAL)
    for _ in range(3):
        await projects.refresh()
    assert (len(api.reads), projects.names) == (3, {"sales": "Sales"})


async def test_the_time_of_every_response_is_observed() -> None:
    times: list[float] = []
    await list_of(Api(page("Sales"), ListPage((), None), ListPage((), NOON + 1)), Clock()).refresh(
        lambda as_of, requested_at: times.append(as_of)
    )
    assert times == [NOON, NOON + 1]


async def test_a_read_that_fails_leaves_the_list_as_it_was() -> None:
    class Failing(Api):
        async def projects(self, cache: PageCache[Project]) -> AsyncIterator[ListPage[Project]]:
            yield page("Other")
            if self.reads:
                raise ApiError("HTTP 500")
            self.reads.append(True)

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
    for _ in range(2):
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


# -- a list that is not as it should be -------------------------------------------------------------------------------


async def test_a_project_whose_name_is_missing_keeps_the_one_that_it_had_or_has_its_id() -> None:
    clock, api = Clock(), Api(page("Sales", "Secret"))
    projects = list_of(api, clock)
    await projects.refresh()
    api.pages = [unnamed("sales", "secret", "new")]
    await projects.refresh()
    assert projects.wanted == {"sales": "Sales", "new": "new"}, "a project that is not wanted stays so"
    restarted = list_of(api, clock)
    await restarted.refresh(held={"sales": "Sales"})
    assert restarted.wanted == {"sales": "Sales", "secret": "secret", "new": "new"}


async def test_while_an_item_cannot_be_read_no_project_counts_as_missing() -> None:
    clock, api = Clock(), Api(page("Sales", "Support"))
    projects = list_of(api, clock, interval=INTERVAL)
    await projects.refresh()
    api.pages = [unnamed("sales", skipped=1), page("Marketing")]
    for _ in range(5):
        clock.advance(INTERVAL)
        await projects.refresh()
        assert projects.wanted == {"sales": "Sales", "support": "Support", "marketing": "Marketing"}
        assert projects.skipped == 1
    reads = len(api.reads)
    await projects.refresh()
    assert len(api.reads) == reads, "it is not requested more often"
    api.pages = [page("Sales", "Marketing")]
    clock.advance(INTERVAL)
    await projects.refresh()
    assert set(projects.wanted) == {"sales", "support", "marketing"}, "until two whole answers in a row lack it"
    await projects.refresh()
    assert set(projects.wanted) == {"sales", "marketing"}
    assert projects.skipped == 0
