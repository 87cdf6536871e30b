"""A list of runs while its pages are read: whose times count, and which runs wait."""

import pytest

from exporter.errors import ApiError
from exporter.runtime.model import ListPage, RunSnapshot
from exporter.status import Status
from exporter.sync.run_list import RunList
from tests.builders import NOON, snapshot


def page(*items: RunSnapshot, as_of: float | None = NOON, requested_at: float | None = 5.0) -> ListPage[RunSnapshot]:
    return ListPage(items, as_of, requested_at=requested_at)


@pytest.mark.parametrize(("told", "counts"), [(5.0, 5.0), (None, 9.0)])
def test_a_page_is_as_old_as_its_request_if_that_is_known(told: float | None, counts: float) -> None:
    runs = RunList(())
    runs.add(page(snapshot(), requested_at=told), 9.0)
    assert (runs.first.requested_at, runs.first.at) == (counts, 9.0)
    assert [(each.requested_at, each.at) for each in runs.drain()] == [(counts, 9.0)]
    assert runs.lead() == NOON - 9.0, "the runtime's time is that of the arrival"


def test_the_time_of_a_list_is_that_of_its_first_page_and_must_be_known() -> None:
    runs = RunList(())
    runs.add(page(as_of=None), 9.0)
    with pytest.raises(ApiError, match="neither asOf nor a Date header"):
        runs.as_of()
    runs.add(page(as_of=NOON), 10.0)
    runs.add(page(as_of=NOON + 7), 11.0)
    assert (runs.as_of(), runs.pages) == (NOON, 3)


def test_of_the_last_page_the_runs_that_ended_long_ago_leave_and_the_others_stay() -> None:
    runs = RunList(("a", "c"))
    old, new = snapshot("a", Status.COMPLETED), snapshot("b", Status.COMPLETED, ended_at=NOON + 99)
    runs.add(page(old, new), 9.0)
    assert [[run.id for run in each.runs] for each in runs.drain_ended(NOON + 70)] == [["a"]]
    assert [[run.id for run in each.runs] for each in runs.drain()] == [["b"]]
    assert (runs.unseen, runs.count) == ({"c"}, 2)
