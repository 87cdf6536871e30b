"""When runs page whose records in flight show activity, and what the page says: scenarios over simulated time."""

from pathlib import Path
from typing import Any

import pytest

from exporter.runs.activity import MOVED_FACTOR, TRIED_FACTOR
from exporter.simulator import load_scenario
from tests.unknown.simulation import HOUR, MIDNIGHT, World, world

STALLED = ("SpinnerRunStalled", "eu")

WITHOUT_LIST = {"resources": {"records": {"running": None}}}
"""The description of an API that does not list records in flight."""


async def paged_at(made: World, scenario: str, minutes: float, **described: Any) -> float | None:
    """Return the minute at which a stalled run pages in a scenario; None if none does."""
    made.add_runtime("eu", load_scenario(scenario))
    made.add_exporter("a:10095", "eu", runtimes=[{"name": "eu", "base_url": "http://eu", **described}])
    await made.advance(minutes)
    return made.fired.get(STALLED)


async def test_long_records_that_go_from_step_to_step_do_not_page(tmp_path: Path) -> None:
    with world(tmp_path, starts_at=MIDNIGHT + 9 * HOUR) as made:
        assert await paged_at(made, "long-records", 110) is None
        (job,) = (run for run in made.runtimes["eu"].engine.jobs.values() if run.project.name == "Research")
        assert job.completed == job.total


async def test_the_same_pages_where_the_runtime_does_not_list_records_in_flight(tmp_path: Path) -> None:
    with world(tmp_path, starts_at=MIDNIGHT + 9 * HOUR) as made:
        assert await paged_at(made, "long-records", 25, **WITHOUT_LIST) == pytest.approx(20, abs=2)


# The records of the run hang from minute 10 on. Without activity its threshold is 12 minutes, or 18 with idle workers.
@pytest.mark.parametrize(
    ("scenario", "threshold", "factor"),
    [("stalled", 12, 1.0), ("endless-retries", 12, TRIED_FACTOR), ("lost-records", 18.2, TRIED_FACTOR)],
)
async def test_a_run_of_which_no_record_ends_pages_however_active_it_is(
    scenario: str, threshold: float, factor: float, tmp_path: Path
) -> None:
    with world(tmp_path, starts_at=MIDNIGHT + 9 * HOUR) as made:
        with_list = await paged_at(made, scenario, 45)
    assert with_list == pytest.approx(10 + threshold * factor + 1.5, abs=1.5)
    assert factor < MOVED_FACTOR
