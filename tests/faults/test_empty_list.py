"""A list of projects that is empty or incomplete for a moment: a real process forgets nothing, counts nothing again."""

import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from tests.builders import Clock
from tests.faults.server import Exchange, Fault, FaultyRuntime
from tests.faults.test_kills import started
from tests.metrics.test_exposition import samples, value
from tests.scripted import ScriptedRuntime

RUNS = 5

NONE = b'{"items": [], "nextCursor": null}'
ONE = b'{"items": [{"id": "p2", "name": "Support"}], "nextCursor": null}'


class Now(Clock):
    """The time of the machine, which is that of the exporter's process."""

    def __call__(self) -> float:
        return time.time() + self.now


async def empty(exchange: Exchange) -> None:
    """`/projects` answers 200 and has no items."""
    if exchange.request.url.path.endswith("/projects"):
        await exchange.send(NONE, status=200, headers={"ETag": ""})
    else:
        await exchange.send()


async def incomplete(exchange: Exchange) -> None:
    """The project is not in the list."""
    if exchange.request.url.path.endswith("/projects"):
        await exchange.send(ONE, status=200, headers={"ETag": ""})
    else:
        await exchange.send()


async def denied(exchange: Exchange) -> None:
    """As some servers do when a token has lost a permission: the list is empty, and everything else is not found."""
    if "/projects/" in exchange.request.url.path:
        await exchange.send(b'{"error": "not found"}', status=404)
    else:
        await empty(exchange)


def finished(response: httpx.Response) -> float | None:
    """The runs that ended; None when the page does not show them, or is an error."""
    if response.status_code != 200:
        return None
    labels = {"project": "Sales", "spinner": "welcome", "status": "completed"}
    return value(samples(response.text), "spinner_runs_finished_total", **labels)


def increase(shown: Sequence[float | None]) -> float:
    """What Prometheus makes of these scrapes: a decrease is a reset, after which a counter began at zero."""
    known = [0.0, *(number for number in shown if number is not None)]
    return sum(after - before if after >= before else after for before, after in itertools.pairwise(known))


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("restarts", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["", "with a restart"])
@pytest.mark.parametrize("path", ["/metrics", "/probe?project=p1"])
@pytest.mark.parametrize("fault", [empty, incomplete, denied])
async def test_projects_that_are_missing_from_the_list_for_a_moment_are_not_counted_again(
    tmp_path: Path, fault: Fault, path: str, restarts: bool
) -> None:
    is_probe = path != "/metrics"
    if is_probe and restarts:
        pytest.skip("the state of probed projects does not survive a restart")
    runtime = ScriptedRuntime(Now(0.0))
    runtime.projects = {"p1": "Sales", "p2": "Support"}
    faulty = FaultyRuntime(runtime)
    config = tmp_path / "exporter.yml"

    def end(run_id: str) -> None:
        now = time.time()
        times = {"createdAt": now - 9, "startedAt": now - 8, "endedAt": now - 1}
        runtime.put(run_id, status="completed", updated_at=now, **times)

    async with faulty.serving() as url, httpx.AsyncClient() as client:
        more = "projects: {on_probe: true}" if is_probe else f"storage: {{path: {tmp_path / 'state'}}}"
        config.write_text(f'runtime: {{base_url: "{url}"}}\nsync: {{min_interval: 0s}}\n{more}\n')
        process, exporter = await started(config, client)
        shown: list[float | None] = []
        listed: list[bool] = []

        async def scrape() -> None:
            shown.append(finished(await client.get(exporter + path, timeout=30)))
            listed.append('"p1"' in (await client.get(f"{exporter}/sd", timeout=30)).text)

        await scrape()
        for number in range(RUNS):
            end(f"run-{number}")
        for _ in range(2):
            await scrape()
        for number in range(3):
            faulty.fault = fault
            for _ in range(2):
                await scrape()
                if restarts:
                    process.kill()
                    await process.wait()
                    process, exporter = await started(config, client)
            faulty.fault = None
            for _ in range(2):
                await scrape()
            end(f"more-{number}")
            for _ in range(2):
                await scrape()
        process.terminate()
        assert await process.wait() == 0
    assert increase(shown) == RUNS + 3, f"{RUNS + 3} runs ended, shown were {shown}"
    if fault is not denied:
        assert None not in shown[3:], f"the last data were not shown for a moment: {shown}"
        assert all(listed) or not is_probe, "Prometheus would drop the target"
