"""Which alerts fire, and after how many minutes, when exporters or the API are gone: over an hour of simulated time."""

from pathlib import Path

from tests.unknown.simulation import World, world

ALWAYS = {("SpinnerWatchdog", ""): 1.0}


async def settled(made: World) -> World:
    """Two runtimes with an exporter each, after half an hour in which nothing is wrong."""
    for seed, (instance, runtime) in enumerate([("a:10095", "eu"), ("b:10095", "us")], start=1):
        made.add_runtime(runtime, seed=seed)
        made.add_exporter(instance, runtime)
    await made.advance(30)
    assert made.fired == ALWAYS, "something fires although nothing is wrong"
    made.mark()
    return made


async def test_a_dead_exporter_and_an_api_that_is_down_page_for_their_own_runtime(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        await settled(made)
        made.kill("a:10095")
        made.runtimes["us"].is_down = True
        await made.advance(20)
        assert made.fired == {**ALWAYS, ("SpinnerExporterDown", "eu"): 6.0, ("SpinnerApiDown", "us"): 6.0}


async def test_an_exporter_that_is_replaced_under_another_name_pages_nobody(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        await settled(made)
        made.remove_target("a:10095")
        made.add_exporter("c:10095", "eu")
        await made.advance(20)
        assert made.fired == ALWAYS


async def test_the_page_of_an_exporter_that_is_gone_continues_after_an_outage_of_prometheus(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        await settled(made)
        made.remove_target("a:10095")
        await made.advance(30)
        assert ("SpinnerExporterDown", "eu") in made.fired
        made.is_scraping = False
        await made.advance(10)
        made.is_scraping = True
        made.mark()
        await made.advance(2)
        assert made.fired == {**ALWAYS, ("SpinnerExporterDown", "eu"): 1.0}
