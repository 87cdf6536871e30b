"""`/probe`: the metrics of one project; and `/sd`: the list of projects for Prometheus."""

import asyncio
import gc
import re
import weakref
from collections.abc import AsyncIterator

import httpx
import msgspec
import pytest
import structlog

from exporter.config import Config, Duration, LimitsConfig, ProjectsConfig, SyncConfig
from exporter.metrics.catalogue import EXPORTER_FAMILIES, GLOBAL_FAMILIES
from exporter.metrics.formats import OPENMETRICS
from exporter.service import Exporter
from exporter.service.monitored_runtime import Dependencies
from exporter.service.probes import IDLE
from exporter.web.app import TIMEOUT_HEADER, create_app
from tests.builders import NOON, RUNTIME, Clock, runtime_config
from tests.metrics.test_exposition import parsed, samples, value
from tests.scripted import ScriptedRuntime, no_sleep
from tests.transport import FakeTransport


class Bench:
    """A runtime with three projects, an exporter, and a client."""

    def __init__(self, *, min_interval: float = 0.0, **config: object) -> None:
        self._gate: Gate | None = None
        self.clock = Clock()
        self.runtime = ScriptedRuntime(self.clock)
        self.runtime.projects = {"p1": "Sales", "p2": "Support", "p3": "Sandbox"}
        self.runtime.put("run-1", projectId="p1")
        self.runtime.put("run-2", projectId="p2")
        self.exporter = Exporter({RUNTIME: self.config(min_interval=min_interval, **config)}, self.dependencies())
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(create_app(self.exporter)), base_url="http://exporter.test:10095"
        )

    def config(self, *, min_interval: float = 0.0, **config: object) -> Config:
        sync = SyncConfig(min_interval=Duration(min_interval))
        return Config(runtime=runtime_config(), sync=sync, **config)  # type: ignore[arg-type]

    def dependencies(self) -> Dependencies:
        return Dependencies(self.clock, self.clock, FakeTransport(self._respond), no_sleep)

    def hold(self, path: str) -> "Gate":
        """From now on, do not respond to requests whose path ends like this."""
        self._gate = Gate(path)
        return self._gate

    async def _respond(self, request: httpx.Request) -> httpx.Response:
        if self._gate is not None and request.url.path.endswith(self._gate.path):
            self._gate.reached.set()
            await asyncio.Event().wait()
        return self.runtime._answer(request)

    async def probe(self, project: str, **headers: str) -> httpx.Response:
        return await self.client.get("/probe", params={"project": project}, headers=headers)

    def requested(self) -> list[str]:
        """Return the paths that were requested from the runtime since the last call."""
        paths = self.runtime.paths()
        self.runtime.requests.clear()
        return sorted(path.removeprefix("/api/v1") for path in paths)


class Gate:
    """Requests that get no response."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.reached = asyncio.Event()
        """Set when there is one."""


def changed_lists(runtime: ScriptedRuntime) -> list[httpx.Request]:
    return [request for request in runtime.job_lists() if "updatedSince" in request.url.params]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.exporter.close()


async def test_a_probe_shows_one_project_and_nothing_else(bench: Bench) -> None:
    response = await bench.probe("p1")
    found = samples(response.text)
    assert response.status_code == 200
    assert {dict(pairs)["project"] for _, pairs in found} == {"Sales"}
    assert value(found, "spinner_run_status", run_id="run-1") == 1
    assert value(found, "spinner_project_up", project="Sales") == 1
    others = {family.name for family in GLOBAL_FAMILIES} | {family.name for family in EXPORTER_FAMILIES}
    assert not [name for name, _ in found if name in others], "what is the runtime's is on /metrics, once"
    assert bench.requested() == ["/health", "/projects", "/projects/p1/jobs", "/projects/p1/jobs"]


async def test_a_probe_has_both_formats(bench: Bench) -> None:
    response = await bench.probe("p1", Accept="application/openmetrics-text;version=1.0.0")
    assert "spinner_run_info" in parsed(response.text, OPENMETRICS)


async def test_a_project_that_the_runtime_does_not_list_is_not_found_and_not_requested(bench: Bench) -> None:
    for project in ("p4", "../p1", "http://evil.test/", "p1/../../admin", "p1%2F..", "\x00"):
        response = await bench.probe(project)
        assert (response.status_code, project in response.text) == (404, False), project
    assert (await bench.client.get("/probe")).status_code == 400
    assert (await bench.client.get("/probe?project=p1&runtime=other")).status_code == 404
    assert set(bench.requested()) == {"/health", "/projects"}


async def test_a_new_project_can_be_probed_at_once(bench: Bench) -> None:
    await bench.probe("p1")
    bench.runtime.projects["p9"] = "New"
    assert (await bench.probe("p1")).status_code == 200
    found = samples((await bench.probe("p9")).text)
    assert value(found, "spinner_project_up", project="New") == 1


async def test_an_excluded_project_is_not_found_and_not_listed() -> None:
    bench = Bench(projects=ProjectsConfig(exclude=(re.compile("Sand.*"),)))
    assert (await bench.probe("p3")).status_code == 404
    listed = (await bench.client.get("/sd")).json()
    assert [group["labels"]["__param_project"] for group in listed] == ["p1", "p2"]


async def test_a_second_probe_requests_only_what_changed(bench: Bench) -> None:
    await bench.probe("p1")
    bench.clock.advance(15)
    bench.runtime.put("run-1", status="completed", endedAt=bench.clock())
    await bench.probe("p1")
    since = [request.url.params["updatedSince"] for request in changed_lists(bench.runtime)]
    found = samples((await bench.probe("p1")).text)
    assert since[-1] > since[0], "the second read begins where the first ended"
    assert value(found, "spinner_runs_finished_total", status="completed") == 1


async def test_probes_that_overlap_share_what_they_read() -> None:
    bench = Bench(min_interval=5.0)
    await asyncio.gather(*(bench.probe(project) for project in ("p1", "p1", "p2", "p1", "p3")))
    paths = bench.requested()
    assert (paths.count("/health"), paths.count("/projects")) == (1, 1)
    # The open runs, and what changed.
    assert paths.count("/projects/p1/jobs") == paths.count("/projects/p2/jobs") == 2
    await bench.probe("p1")
    assert bench.requested() == [], "within sync.min_interval a probe is responseed from memory"


async def test_a_project_that_is_no_longer_probed_is_dropped(bench: Bench) -> None:
    await bench.probe("p1")
    await bench.probe("p2")
    bench.clock.advance(IDLE - 1)
    await bench.probe("p1")
    assert set(bench.exporter.runtimes[RUNTIME].probes.held) == {"p1", "p2"}
    bench.clock.advance(2)
    await bench.probe("p1")
    assert set(bench.exporter.runtimes[RUNTIME].probes.held) == {"p1"}


async def test_a_dropped_project_is_removed_from_memory(bench: Bench) -> None:
    await bench.probe("p1")
    store = weakref.ref(bench.exporter.runtimes[RUNTIME].probes.held["p1"].store)
    bench.clock.advance(IDLE + 1)
    await bench.probe("p2")
    gc.collect()
    assert store() is None, "its cached lines keep the store alive"


async def dropped_runs(bench: Bench) -> float | None:
    found = samples((await bench.client.get("/metrics")).text)
    return value(found, "spinner_exporter_runs_dropped_total", reason="limit")


async def test_over_the_limit_the_projects_that_were_probed_least_recently_are_dropped() -> None:
    bench = Bench(projects=ProjectsConfig(on_probe=True), limits=LimitsConfig(runs=3))
    bench.runtime.put("run-3", projectId="p3")
    for project in ("p1", "p2", "p3", "p1"):
        await bench.probe(project)
        bench.clock.advance(1)
    held = bench.exporter.runtimes[RUNTIME].probes.held
    assert (set(held), await dropped_runs(bench)) == ({"p1", "p2", "p3"}, 0)

    for number in range(2):
        bench.runtime.put(f"more-{number}", projectId="p3")
    found = samples((await bench.probe("p3")).text)
    assert len([name for name, _ in found if name == "spinner_run_info"]) == 3
    assert set(held) == {"p3"}, "its three runs are the limit"
    assert await dropped_runs(bench) == 2

    found = samples((await bench.probe("p2")).text)
    assert value(found, "spinner_run_status", run_id="run-2") == 1
    assert set(held) == {"p2"}, "the project that is being read is not dropped, whenever it was probed"
    await bench.exporter.close()


async def test_the_read_of_a_project_that_is_dropped_ends_and_its_probe_shows_what_was_read_before() -> None:
    bench = Bench(limits=LimitsConfig(runs=1))
    await bench.probe("p1")
    bench.clock.advance(1)
    bench.runtime.interfere = lambda request: httpx.Response(500) if "/p1/" in request.url.path else None
    await bench.probe("p1")
    probes = bench.exporter.runtimes[RUNTIME].probes
    problems = probes._problems._known
    assert {project for _, project in problems} == {"p1"}
    gate = bench.hold("/p1/jobs")
    waiting = asyncio.create_task(bench.probe("p1"))
    await gate.reached.wait()
    bench.clock.advance(1)
    await bench.probe("p2")
    found = samples((await asyncio.wait_for(waiting, 5)).text)
    assert value(found, "spinner_run_status", run_id="run-1") == 1
    assert (set(probes.held), dict(problems)) == ({"p2"}, {}), "nothing is left of p1"
    await bench.exporter.close()


async def test_a_first_read_in_progress_is_not_dropped_for_the_runs_of_others() -> None:
    bench = Bench(limits=LimitsConfig(runs=1))
    bench.runtime.put("run-3", projectId="p2")
    gate = bench.hold("/p1/jobs")
    waiting = asyncio.create_task(bench.probe("p1"))
    await gate.reached.wait()
    bench.clock.advance(1)
    await bench.probe("p2")
    assert set(bench.exporter.runtimes[RUNTIME].probes.held) == {"p1", "p2"}
    await bench.exporter.close()
    await waiting


async def test_a_reload_applies_a_lower_limit_to_what_was_probed(bench: Bench) -> None:
    await bench.probe("p1")
    bench.clock.advance(1)
    await bench.probe("p2")
    await bench.exporter.reload({RUNTIME: bench.config(limits=LimitsConfig(runs=1))})
    assert set(bench.exporter.runtimes[RUNTIME].probes.held) == {"p2"}


async def test_a_project_that_is_gone_is_dropped(bench: Bench) -> None:
    await bench.probe("p1")
    del bench.runtime.projects["p1"]
    bench.runtime.interfere = lambda request: httpx.Response(404) if "/p1/" in request.url.path else None
    held = bench.exporter.runtimes[RUNTIME].probes.held
    bench.clock.advance(61)
    assert (await bench.probe("p1")).status_code == 200, "one list of projects that lacks it can be wrong"
    for seconds in (15, IDLE - 1):
        bench.clock.advance(seconds)
        assert (await bench.probe("p1")).status_code == 404
        assert set(held) == {"p1"}, "it could be a mistake for a moment"
    assert "p1" not in str((await bench.client.get("/sd")).json())
    bench.clock.advance(2)
    assert (await bench.probe("p1")).status_code == 404
    assert not held


async def test_a_project_that_cannot_be_read_shows_its_last_data_until_they_are_stale(bench: Bench) -> None:
    await bench.probe("p1")
    bench.runtime.interfere = lambda request: httpx.Response(500) if "/p1/" in request.url.path else None
    bench.clock.advance(60)
    found = samples((await bench.probe("p1")).text)
    assert (value(found, "spinner_project_up"), value(found, "spinner_run_status", run_id="run-1")) == (0, 1)
    bench.clock.advance(300)
    found = samples((await bench.probe("p1")).text)
    assert (value(found, "spinner_project_up"), value(found, "spinner_run_status", run_id="run-1")) == (0, None)


async def test_probes_are_unavailable_until_the_runtime_has_been_read(bench: Bench) -> None:
    bench.runtime.interfere = lambda request: httpx.Response(500)
    assert (await bench.probe("p1")).status_code == 503
    assert (await bench.client.get("/sd")).status_code == 503
    bench.runtime.interfere = lambda request: None
    assert (await bench.probe("p1")).status_code == 200


async def test_an_outage_of_the_runtime_excuses_the_silence_of_a_probed_run(bench: Bench) -> None:
    bench.runtime.put("run-1", records={"total": 9, "completed": 1}, lastProgressAt=NOON)
    await bench.probe("p1")
    before = value(samples((await bench.probe("p1")).text), "spinner_run_stall_threshold_seconds") or 0.0
    bench.runtime.health = {"status": "down", "runtime": {"status": "down"}}
    bench.clock.advance(600)
    await bench.probe("p1")
    bench.runtime.health = {"status": "ok"}
    bench.clock.advance(15)
    await bench.probe("p1")
    after = value(samples((await bench.probe("p1")).text), "spinner_run_stall_threshold_seconds") or 0.0
    assert after >= before + 600, "silence during an outage of the runtime counts as the run's"


async def test_projects_are_listed_in_the_format_of_http_service_discovery(bench: Bench) -> None:
    response = await bench.client.get("/sd")
    assert response.headers["Content-Type"] == "application/json"
    assert response.json()[0] == {
        "targets": ["exporter.test:10095"],
        "labels": {
            "__scheme__": "http",
            "__metrics_path__": "/probe",
            "__param_runtime": "runtime.test",
            "__param_project": "p1",
            "__meta_spinner_runtime": "runtime.test",
            "__meta_spinner_project": "Sales",
            "__meta_spinner_project_id": "p1",
        },
    }


@pytest.mark.parametrize("host", ["", "a b", "x/y", "evil.test@exporter.test", "a:b", "[::1", 'x"y'])
async def test_an_invalid_host_does_not_become_a_target(bench: Bench, host: str) -> None:
    response = await bench.client.get("/sd", headers={"Host": host})
    assert response.status_code == 400


async def test_with_on_probe_metrics_read_no_project() -> None:
    bench = Bench(projects=ProjectsConfig(on_probe=True))
    found = samples((await bench.client.get("/metrics")).text)
    assert not [name for name, _ in found if name.startswith(("spinner_run_", "spinner_project_"))]
    assert (value(found, "spinner_api_up"), value(found, "spinner_runtime_up")) == (1, 1)
    assert set(bench.requested()) == {"/health", "/projects", "/usage"}
    await bench.probe("p1")
    found = samples((await bench.client.get("/metrics")).text)
    assert value(found, "spinner_exporter_projects_probed") == 1
    assert value(found, "spinner_exporter_runs_tracked") == 1


async def test_a_list_of_projects_that_never_ends_is_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise no probe would read it again: each page of a long list has the time of a request."""
    patient = msgspec.structs.replace(runtime_config(), timeout=Duration(36_000))
    await bench.exporter.reload({RUNTIME: msgspec.structs.replace(bench.config(), runtime=patient)})
    gate = bench.hold("/projects")
    probe = asyncio.create_task(bench.probe("p1", **{TIMEOUT_HEADER: "3600"}))
    await gate.reached.wait()
    loop, stale_after = asyncio.get_running_loop(), bench.config().sync.stale_after
    now = loop.time
    monkeypatch.setattr(loop, "time", lambda: now() + stale_after + 1)
    with structlog.testing.capture_logs() as lines:
        async with asyncio.timeout(20):
            assert (await probe).status_code == 503
    assert [(line["what"], line["error"]) for line in lines] == [("projects", "not finished within 300 s")]
    bench.hold("/nothing")
    assert (await bench.probe("p1")).status_code == 200


async def test_when_nobody_probes_any_more_a_scrape_drops_what_was_probed(bench: Bench) -> None:
    """After a change to scrapes of all projects, what was probed last would stay for ever."""
    await bench.probe("p1")
    for seconds, held in ((IDLE, 1), (1, 0)):
        bench.clock.advance(seconds)
        found = samples((await bench.client.get("/metrics")).text)
        assert value(found, "spinner_exporter_projects_probed") == held
    assert not bench.exporter.runtimes[RUNTIME].probes.held


async def test_a_reload_keeps_what_was_probed(bench: Bench) -> None:
    bench.runtime.put("run-1", status="completed", endedAt=bench.clock())
    await bench.probe("p1")
    await bench.exporter.reload({RUNTIME: bench.config(retention=Duration(7200))})
    bench.runtime.interfere = lambda request: httpx.Response(500) if "/p1/" in request.url.path else None
    bench.clock.advance(15)
    found = samples((await bench.probe("p1")).text)
    assert value(found, "spinner_runs_finished_total", status="completed") == 1


async def test_each_of_several_runtimes_is_probed_by_its_name() -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    runtime.put()
    configs = {
        name: Config(runtime=runtime_config(f"http://{name}"), sync=SyncConfig(min_interval=Duration(0)))
        for name in ("eu", "us")
    }
    exporter = Exporter(configs, Dependencies(clock, clock, runtime.transport(), no_sleep))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(exporter)), base_url="http://exporter"
    ) as client:
        groups = (await client.get("/sd")).json()
        assert [(g["targets"], g["labels"]["__param_runtime"]) for g in groups] == [
            (["exporter:80"], "eu"), (["exporter:80"], "us"),
        ]  # fmt: skip
        found = samples((await client.get("/probe?runtime=eu&project=p1")).text)
        assert value(found, "spinner_run_status", run_id="run-1", runtime="eu") == 1
        assert (await client.get("/probe?project=p1")).status_code == 404
    await exporter.close()
