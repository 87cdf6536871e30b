"""kill -9 at random moments: in the end the counters equal the runtime's ledger."""

import asyncio
import contextlib
import random
from collections import Counter
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from exporter.simulator import Engine, ManualTimeline, create_app, load_scenario
from exporter.web.server import listen, running_server, url_of
from tests.stack.programs import EXPORTER, free_port

KILLS = 25
RETENTION = 600

Counts = dict[tuple[str, str, str, str], float]
"""By project, spinner, counter and status or state."""


async def test_kills_at_random_moments_lose_no_count_and_count_nothing_twice(tmp_path: Path) -> None:
    rng = random.Random(11)
    timeline = ManualTimeline()
    engine = Engine(load_scenario("provider-outage"), seed=3, timeline=timeline)
    engine_listener = listen("127.0.0.1:0")
    config = tmp_path / "exporter.yml"
    config.write_text(
        f'runtime: {{base_url: "{url_of(engine_listener)}"}}\nsync: {{min_interval: 0s}}\n'
        f"storage: {{path: {tmp_path / 'state'}}}\nretention: {RETENTION}s\n"
    )
    timeline.start()
    shown: Counts = {}
    async with running_server(create_app(engine, run_engine=False), engine_listener), httpx.AsyncClient() as client:
        process, url = await started(config, client)
        await client.get(f"{url}/metrics")  # runs that ended before the first read are not counted
        for _ in range(KILLS):
            await timeline.advance(rng.uniform(60, 1200))
            scrape = asyncio.create_task(client.get(f"{url}/metrics", timeout=30))
            # A read takes about 50 ms: most kills happen during a read, and some just after its page was sent.
            await asyncio.wait({scrape}, timeout=rng.choice((rng.uniform(0, 0.12), rng.uniform(0, 0.12), 30)))
            process.kill()
            await process.wait()
            with contextlib.suppress(httpx.HTTPError):
                seen = counts((await scrape).text)
                assert_no_decrease(shown, seen)
                shown = seen
            process, url = await started(config, client)
        await client.get(f"{url}/metrics")
        final = counts((await client.get(f"{url}/metrics")).text)
        process.terminate()
        assert await process.wait() == 0
    assert_no_decrease(shown, final)
    assert final == ledger_counts(engine), (
        "the counters differ from the runtime's ledger; look at StateWriter and Persistence.unsaved"
    )
    assert sum(final.values()) > 500, "too little happened in the scenario for this test to be meaningful"


async def started(config: Path, client: httpx.AsyncClient) -> tuple[asyncio.subprocess.Process, str]:
    port = free_port()
    command = [*EXPORTER, "serve", f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}"]
    with config.with_suffix(".log").open("ab") as output:
        process = await asyncio.create_subprocess_exec(*command, stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}"
    for _ in range(300):
        with contextlib.suppress(httpx.HTTPError):
            if (await client.get(f"{url}/-/healthy")).status_code == 200:
                return process, url
        assert process.returncode is None, f"the exporter ended by itself:\n{config.with_suffix('.log').read_text()}"
        await asyncio.sleep(0.1)
    raise AssertionError("the exporter did not start; its log is next to its config")


def counts(page: str) -> Counts:
    names = ("spinner_runs_started_total", "spinner_runs_finished_total", "spinner_records_processed_total")
    return {
        (sample.labels["project"], sample.labels["spinner"], sample.name, key): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name in names
        and (key := sample.labels.get("status", sample.labels.get("state", ""))) is not None
        and sample.value
    }


def assert_no_decrease(before: Counts, after: Counts) -> None:
    decreased = {key: (number, after.get(key)) for key, number in before.items() if after.get(key, 0) < number}
    assert not decreased, f"Prometheus would treat these decreases as counter resets: {decreased}"


def ledger_counts(engine: Engine) -> Counts:
    """Return the counts according to the runtime's ledger and its open runs."""
    made: Counter[tuple[str, str, str, str]] = Counter()
    for ended in engine.ledger.values():
        if ended.ended_at < -RETENTION:
            continue  # ended before the exporter's first read
        spinner = (ended.project, ended.spinner)
        made[(*spinner, "spinner_runs_started_total", "")] += ended.started_at is not None
        made[(*spinner, "spinner_runs_finished_total", ended.status)] += 1
        made[(*spinner, "spinner_records_processed_total", "completed")] += ended.completed
        made[(*spinner, "spinner_records_processed_total", "failed")] += ended.failed
    for run in engine.jobs.values():
        if run.ended_at is None:
            spinner = (run.project.name, run.spinner.name)
            made[(*spinner, "spinner_runs_started_total", "")] += run.started_at is not None
            made[(*spinner, "spinner_records_processed_total", "completed")] += run.completed
            made[(*spinner, "spinner_records_processed_total", "failed")] += run.failed
    return {key: float(number) for key, number in made.items() if number}
