"""A list of projects that is empty or incomplete for a moment: a real process forgets nothing, counts nothing again."""

import contextlib
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


FAULTS: dict[str, Fault] = {"empty": empty, "incomplete": incomplete, "denied": denied}


def finished(response: httpx.Response, runtime: str) -> float | None:
    """The runs that ended; None when the page does not show them, or is an error."""
    if response.status_code != 200:
        return None
    labels = {"runtime": runtime, "project": "Sales", "spinner": "welcome", "status": "completed"}
    return value(samples(response.text), "spinner_runs_finished_total", **labels)


def is_listed(response: httpx.Response, runtime: str) -> bool:
    """Whether service discovery has the project."""
    labels = [target["labels"] for target in response.json()] if response.status_code == 200 else []
    return any((each["__param_runtime"], each["__param_project"]) == (runtime, "p1") for each in labels)


def increase(shown: Sequence[float | None]) -> float:
    """What Prometheus makes of these scrapes: a decrease is a reset, after which a counter began at zero."""
    known = [0.0, *(number for number in shown if number is not None)]
    return sum(after - before if after >= before else after for before, after in itertools.pairwise(known))


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("restarts", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["", "with a restart"])
@pytest.mark.parametrize("is_probe", [False, True], ids=["/metrics", "/probe"])
async def test_projects_that_are_missing_from_the_list_for_a_moment_are_not_counted_again(
    tmp_path: Path, is_probe: bool, restarts: bool
) -> None:
    """One exporter reads a runtime with each of the faults."""
    if is_probe and restarts:
        pytest.skip("the state of probed projects does not survive a restart")
    faulty = {name: FaultyRuntime(runtime()) for name in FAULTS}
    config = tmp_path / "exporter.yml"

    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient())
        urls = {name: await stack.enter_async_context(each.serving()) for name, each in faulty.items()}
        more = "projects: {on_probe: true}" if is_probe else f"storage: {{path: {tmp_path / 'state'}}}"
        runtimes = ", ".join(f'{{name: {name}, base_url: "{url}"}}' for name, url in urls.items())
        config.write_text(f"runtimes: [{runtimes}]\nsync: {{min_interval: 0s}}\n{more}\n")
        process, exporter = await started(config, client)
        shown: dict[str, list[float | None]] = {name: [] for name in FAULTS}
        listed: dict[str, list[bool]] = {name: [] for name in FAULTS}

        def end(run_id: str) -> None:
            now = time.time()
            times = {"createdAt": now - 9, "startedAt": now - 8, "endedAt": now - 1}
            for each in faulty.values():
                each.runtime.put(run_id, status="completed", updated_at=now, **times)

        async def scrape() -> None:
            page = None if is_probe else await client.get(f"{exporter}/metrics", timeout=30)
            for name in FAULTS:
                probe = f"{exporter}/probe?project=p1&runtime={name}"
                shown[name].append(finished(page or await client.get(probe, timeout=30), name))
            targets = await client.get(f"{exporter}/sd", timeout=30)
            for name in FAULTS:
                listed[name].append(is_listed(targets, name))

        await scrape()
        for number in range(RUNS):
            end(f"run-{number}")
        for _ in range(2):
            await scrape()
        for number in range(3):
            for name, fault in FAULTS.items():
                faulty[name].fault = fault
            for _ in range(2):
                await scrape()
                if restarts:
                    process.kill()
                    await process.wait()
                    process, exporter = await started(config, client)
            for each in faulty.values():
                each.fault = None
            for _ in range(2):
                await scrape()
            end(f"more-{number}")
            for _ in range(2):
                await scrape()
        process.terminate()
        assert await process.wait() == 0
    for name in FAULTS:
        assert increase(shown[name]) == RUNS + 3, f"{name}: {RUNS + 3} runs ended, shown were {shown[name]}"
    for name in ("empty", "incomplete"):
        assert None not in shown[name][3:], f"{name}: the last data were not shown for a moment: {shown[name]}"
        assert all(listed[name]) or not is_probe, f"{name}: Prometheus would drop the target"


def runtime() -> ScriptedRuntime:
    scripted = ScriptedRuntime(Now(0.0))
    scripted.projects = {"p1": "Sales", "p2": "Support"}
    return scripted
