"""One exporter with several runtimes: a label distinguishes them, and one that fails does not affect the others."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
import structlog

from exporter.config import Config, Duration, RuntimeConfig, SyncConfig, load
from exporter.errors import ConfigError
from exporter.metrics import catalogue
from exporter.service import Exporter
from exporter.service.monitored_runtime import Dependencies
from exporter.web.app import create_app
from tests.builders import Clock, runtime_config
from tests.command_line import run
from tests.metrics.test_exposition import Samples, value
from tests.metrics.test_exposition import samples as parsed_samples
from tests.scripted import ScriptedRuntime, no_sleep
from tests.stack.programs import exporter_with, free_port, runtime
from tests.transport import FakeTransport


class Deployment:
    """Two runtimes behind one transport, which distinguishes them by host."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.runtimes = {"eu": ScriptedRuntime(self.clock), "us": ScriptedRuntime(self.clock)}
        self.gates = {name: asyncio.Event() for name in self.runtimes}
        for gate in self.gates.values():
            gate.set()
        self.waiting = {name: asyncio.Event() for name in self.runtimes}
        """Set when a request waits at a closed gate."""
        self.lists_in_progress = dict.fromkeys(self.runtimes, 0)
        self.most_lists_in_progress = 0
        """The largest number of requests for one runtime's list of projects at the same time: one per sync."""
        # All names are the same: only the runtime distinguishes the two runs.
        for scripted in self.runtimes.values():
            scripted.put()

    def exporter(self, *names: str, storage: Path | None = None, **changes: object) -> Exporter:
        dependencies = Dependencies(self.clock, self.clock, FakeTransport(self._answer), no_sleep)
        return Exporter(self.configs(*names, **changes), dependencies, storage=storage)

    def configs(self, *names: str, **changes: object) -> dict[str, Config]:
        made = {name: runtime_config(f"http://{name}") for name in names or self.runtimes}
        return {name: self._config(runtime, **changes) for name, runtime in made.items()}

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        name = request.url.host
        is_list = request.url.path.endswith("/projects")
        self.lists_in_progress[name] += is_list
        self.most_lists_in_progress = max(self.most_lists_in_progress, *self.lists_in_progress.values())
        try:
            if not self.gates[name].is_set():
                self.waiting[name].set()
            await self.gates[name].wait()
        finally:
            self.lists_in_progress[name] -= is_list
        return self.runtimes[name]._answer(request)

    def _config(self, runtime: RuntimeConfig, **changes: object) -> Config:
        sync = SyncConfig(min_interval=Duration(0), projects_interval=Duration(0))
        return Config(runtime=runtime, sync=sync, **changes)  # type: ignore[arg-type]


async def samples(exporter: Exporter, max_wait: float = 5.0) -> Samples:
    return parsed_samples(str(await exporter.page(max_wait=max_wait)))


async def test_every_series_of_a_runtime_carries_its_name() -> None:
    exporter = Deployment().exporter()
    found = await samples(exporter)
    about_the_process = {family.name for family in catalogue.EXPORTER_FAMILIES if not family.of_runtime}
    for name, pairs in found:
        if not name.startswith("process_") and name not in about_the_process:
            assert dict(pairs).get("runtime") in ("eu", "us"), (
                f"{name}{dict(pairs)} does not say of which runtime it is"
            )
    for name in ("eu", "us"):
        assert value(found, "spinner_run_status", runtime=name, project="Sales", run_id="run-1", status="running") == 1
        assert value(found, "spinner_exporter_runs_tracked", runtime=name) == 1
    await exporter.close()


@pytest.mark.parametrize(
    ("settings", "label"),
    [
        ("base_url: https://Runtime.example.com:443/", "runtime.example.com"),
        ("base_url: http://127.0.0.1:8090", "127.0.0.1:8090"),
        ("base_url: http://host/path/", "host/path"),
        ("base_url: 'http://[::1]:8090'", "[::1]:8090"),
        ("base_url: http://host, name: eu", "eu"),
        ("base_url: http://elsewhere, name: '[::1]:8090/path'", "[::1]:8090/path"),
    ],
)
def test_the_label_of_a_single_runtime_is_its_name_or_its_url_without_the_scheme(
    settings: str, label: str, tmp_path: Path
) -> None:
    assert list(read(f"runtime: {{{settings}}}", tmp_path)) == [label]


def test_a_runtime_of_a_list_has_its_name_as_its_label(tmp_path: Path) -> None:
    made = read(TWO, tmp_path)
    assert [config.runtime.label for config in made.values()] == list(made)


def test_a_single_runtime_cannot_have_any_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"runtime\.name: expected up to 64 letters.*; got 'e u'"):
        read('runtime: {base_url: "http://h", name: "e u"}', tmp_path)


@pytest.mark.parametrize("way", ["refuses", "hangs"])
async def test_a_runtime_that_fails_does_not_affect_the_others(way: str) -> None:
    deployment = Deployment()
    exporter = deployment.exporter()
    await samples(exporter)
    if way == "refuses":
        deployment.runtimes["eu"].interfere = lambda request: httpx.Response(500)
    else:
        deployment.gates["eu"].clear()
    deployment.clock.advance(10)
    deployment.runtimes["us"].put(status="completed", endedAt=deployment.clock())
    found = await samples(exporter, max_wait=1)
    assert (value(found, "spinner_api_up", runtime="eu"), value(found, "spinner_api_up", runtime="us")) == (0, 1)
    assert value(found, "spinner_run_status", runtime="us", run_id="run-1", status="completed") == 1
    assert value(found, "spinner_run_status", runtime="eu", run_id="run-1", status="running") == 1, "the last good data"
    deployment.clock.advance(301)
    found = await samples(exporter, max_wait=1)
    assert value(found, "spinner_run_status", runtime="eu", run_id="run-1", status="running") is None, "too old"
    assert value(found, "spinner_run_status", runtime="us", run_id="run-1", status="completed") == 1
    await exporter.close()


async def test_a_log_line_says_which_runtime_it_is_about() -> None:
    deployment = Deployment()
    deployment.runtimes["eu"].interfere = lambda request: httpx.Response(403)
    exporter = deployment.exporter()
    merged = [structlog.contextvars.merge_contextvars]
    with structlog.testing.capture_logs(processors=merged) as lines:
        await samples(exporter)
    assert lines
    assert {line["runtime"] for line in lines} == {"eu"}
    await exporter.close()


async def test_a_reload_adds_and_removes_runtimes_and_keeps_what_the_others_counted() -> None:
    deployment = Deployment()
    exporter = deployment.exporter("eu")
    await samples(exporter)
    deployment.clock.advance(10)
    deployment.runtimes["eu"].put(status="completed", endedAt=deployment.clock())
    await samples(exporter)

    await exporter.reload(deployment.configs("eu", "us"))
    deployment.clock.advance(10)
    found = await samples(exporter)
    finished = "spinner_runs_finished_total"
    assert value(found, finished, runtime="eu", status="completed") == 1
    assert value(found, "spinner_run_status", runtime="us", run_id="run-1", status="running") == 1

    await exporter.reload(deployment.configs("us"))
    found = await samples(exporter)
    assert not [name for name, pairs in found if dict(pairs).get("runtime") == "eu"], "nothing is left of one that went"
    assert value(found, "spinner_exporter_sync_duration_seconds_count", runtime="us") == 2
    await exporter.close()


async def test_a_runtime_that_is_renamed_keeps_its_runs_and_counts_under_its_new_name(tmp_path: Path) -> None:
    deployment = Deployment()
    exporter = deployment.exporter(storage=tmp_path)
    await samples(exporter)
    await exporter.probe("eu", "p1")
    deployment.clock.advance(10)
    deployment.runtimes["eu"].put(status="completed", endedAt=deployment.clock())
    await samples(exporter)
    configs = deployment.configs()
    deployment.runtimes["eu"].interfere = lambda request: httpx.Response(500) if "/p1/" in request.url.path else None

    await exporter.reload({"europe": configs["eu"], "us": configs["us"]})
    found = await samples(exporter)
    assert value(found, "spinner_runs_finished_total", runtime="europe", status="completed") == 1
    assert value(found, "spinner_api_up", runtime="europe") == 0
    probed = parsed_samples(str(await exporter.probe("europe", "p1")))
    assert value(probed, "spinner_run_status", runtime="europe", run_id="run-1", status="running") == 1
    assert not [name for name, pairs in found if dict(pairs).get("runtime") == "eu"], "the old name is still there"

    deployment.runtimes["eu"].interfere = lambda request: httpx.Response(404) if "/p1/" in request.url.path else None
    deployment.runtimes["eu"].projects = {}
    deployment.runtimes["eu"].jobs.clear()
    for seconds in (200, 0, 300):
        deployment.clock.advance(seconds)
        found = await samples(exporter)
    assert value(found, "spinner_exporter_runs_dropped_total", runtime="europe", reason="project_gone") == 1
    assert value(found, "spinner_exporter_storage_failures_total", runtime="europe") == 0
    await exporter.close()


async def test_names_that_are_exchanged_take_their_runs_with_them() -> None:
    deployment = Deployment()
    for name, scripted in deployment.runtimes.items():
        scripted.put(f"run-{name}")
    exporter = deployment.exporter()
    await samples(exporter)
    configs = deployment.configs()
    for scripted in deployment.runtimes.values():
        scripted.interfere = lambda request: httpx.Response(500)
    await exporter.reload({"us": configs["eu"], "eu": configs["us"]})
    found = await samples(exporter)
    assert value(found, "spinner_run_status", runtime="us", run_id="run-eu", status="running") == 1
    assert value(found, "spinner_run_status", runtime="us", run_id="run-us", status="running") is None
    await exporter.close()


async def test_two_runtimes_of_one_url_do_not_continue_one_that_was_renamed(tmp_path: Path) -> None:
    """Which of the two it is cannot be known."""
    deployment = Deployment()
    exporter = deployment.exporter("eu", storage=tmp_path)
    await samples(exporter)
    (config,) = deployment.configs("eu").values()
    deployment.runtimes["eu"].interfere = lambda request: httpx.Response(500)
    await exporter.reload({"a": config, "b": config})
    assert not [name for name, pairs in await samples(exporter) if name == "spinner_run_status"]
    await exporter.close()


async def test_a_reload_that_fails_leaves_nothing_of_the_new_runtime() -> None:
    deployment = Deployment()
    exporter = deployment.exporter("eu")
    bad = deployment.configs("eu", "us")
    broken = RuntimeConfig(base_url="http://us", resources=bad["us"].runtime.resources, token_file="/nowhere/token")
    bad["us"] = Config(runtime=broken)
    with pytest.raises(ConfigError, match="/nowhere/token: cannot be read"):
        await exporter.reload(bad)
    assert not [name for name, pairs in await samples(exporter) if dict(pairs).get("runtime") == "us"]
    await exporter.close()


async def test_the_landing_page_names_the_runtimes() -> None:
    exporter = Deployment().exporter()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_app(exporter)), base_url="http://e") as client:
        assert (await client.get("/-/ready")).status_code == 200
        page = (await client.get("/")).text
    assert "<code>http://eu</code>, <code>http://us</code>" in page
    assert "<th>Runtime</th><th>Project</th>" in page
    assert page.count('<td class="">eu</td><td class="">Sales</td>') == 1
    await exporter.close()


TWO = """\
retention: 2h
sync: {min_interval: 1s}
spinners: [{spinner: ".*", expected_interval: 1d}]
runtimes:
  - name: eu
    base_url: "http://eu.example.com"
  - name: flows
    base_url: "http://flows.example.com"
    preset: prefect
    retention: 30m
    statuses: {Parked: waiting}
    spinners: []
"""


def read(text: str, folder: Path, environ: dict[str, str] | None = None) -> Mapping[str, Config]:
    (folder / "exporter.yml").write_text(text)
    return load(folder / "exporter.yml", environ=environ or {}).runtimes


def test_a_runtime_s_config_is_merged_from_the_file_its_preset_and_its_entry(tmp_path: Path) -> None:
    made = read(TWO, tmp_path)
    assert list(made) == ["eu", "flows"]
    eu, flows = made["eu"], made["flows"]
    assert (eu.retention, flows.retention) == (7200.0, 1800.0)
    assert (eu.sync.min_interval, flows.sync.min_interval) == (1.0, 1.0)
    assert (eu.sync.sweep_interval, flows.sync.sweep_interval) == (120.0, 0.0), (
        "the settings of a preset apply to its runtime only"
    )
    assert (eu.statuses, flows.statuses) == ({}, {"Parked": "waiting"})
    assert (len(eu.spinners), len(flows.spinners)) == (1, 0)
    assert eu.runtime.resources.counts == "job"
    assert flows.runtime.resources.counts == "records"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("runtimes: {}", "runtimes: expected a list of runtimes such as"),
        ("runtimes: []", "runtimes: expected a list of runtimes such as"),
        ("runtimes: [eu]", "runtimes: expected a list of runtimes such as"),
        (
            'runtimes: [{base_url: "http://h"}]',
            "runtimes[0].name: expected up to 64 letters, digits and characters of .-_:/[]; is required",
        ),
        ('runtimes: [{name: "e u", base_url: "http://h"}]', "runtimes[0].name: expected up to 64 letters"),
        ("runtimes: [{name: 5}]", "runtimes[0].name: expected up to 64 letters"),
        (
            'runtimes: [{name: eu, base_url: "http://h"}, {name: eu, base_url: "http://i"}]',
            "runtimes[1].name: duplicate name eu",
        ),
        ("runtimes: [{name: eu}]", "runtimes.eu.base_url: is required"),
        ('runtimes: [{name: eu, base_ulr: "http://h"}]', "runtimes.eu.base_ulr: unknown key; did you mean base_url?"),
        (
            'runtimes: [{name: eu, base_url: "http://h", sync: {concurrency: 0}}]',
            "runtimes.eu.sync.concurrency: expected a number from 1 to 256",
        ),
        (
            'runtimes: [{name: eu, base_url: "http://h", limits: {runs: 0}}]',
            "runtimes.eu.limits.runs: expected a whole number, 1 to",
        ),
        (
            'sync: {concurrency: 0}\nruntimes: [{name: eu, base_url: "http://h"}]',
            "exporter.yml: sync.concurrency: expected a number from 1 to 256",
        ),
        ('runtimes: [{name: eu, base_url: "http://h", token: cxg_1}]', "a token does not belong in this file"),
        ('runtimes: [{name: eu, base_url: "http://h", log: {}}]', "runtimes.eu.log: unknown key"),
        ('runtime: {base_url: "http://h"}\nruntimes: [{name: eu}]', "expected either runtime or runtimes, not both"),
        (
            'sync: [5s]\nruntimes: [{name: eu, base_url: "http://h", sync: {concurrency: 3}}]',
            "exporter.yml: sync: expected a mapping of keys, got a list",
        ),
        (
            'statuses: 5\nruntimes: [{name: eu, base_url: "http://h", statuses: {Parked: waiting}}]',
            "exporter.yml: statuses: expected a mapping of keys, got a whole number",
        ),
        (
            'runtimes: [{name: eu, base_url: "http://h", tls: ca.pem}]',
            "exporter.yml: runtimes.eu.tls: expected a mapping of keys, got text",
        ),
        (
            'runtimes: [{name: eu, base_url: "http://h", sync: 5s}]',
            "exporter.yml: runtimes.eu.sync: expected a mapping of keys, got text",
        ),
        ('runtime: {base_url: "http://h"}\nruntims: []', "runtims: unknown key; did you mean runtimes?"),
    ],
)
def test_a_mistake_in_the_list_names_the_runtime(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(text, tmp_path)
    assert expected in str(error.value)
    assert "cxg_1" not in str(error.value)


def test_the_environment_and_flags_override_what_an_entry_sets_too(tmp_path: Path) -> None:
    entry = '{name: eu, base_url: "http://eu.example.com", sync: {min_interval: 7s, concurrency: 3}, retention: 30m}'
    text = f"runtimes: [{entry}, {entry.replace('eu', 'us').replace(', retention: 30m', '')}]"
    environ = {"SPINNER_EXPORTER_SYNC_MIN_INTERVAL": "11s", "SPINNER_EXPORTER_RETENTION": "2h"}
    made = read(text, tmp_path, environ)
    assert {name: (each.sync.min_interval, each.sync.concurrency, each.retention) for name, each in made.items()} == {
        "eu": (11.0, 3, 7200.0),
        "us": (11.0, 3, 7200.0),
    }
    flagged = load(tmp_path / "exporter.yml", environ=environ, flags={"retention": "3h"}).runtimes
    assert {each.retention for each in flagged.values()} == {10800.0}


def test_a_mistake_in_the_preset_of_one_of_them_names_its_file(tmp_path: Path) -> None:
    preset = tmp_path / "ours.yml"
    absent = ", ".join(f"{name}: absent" for name in ("health", "projects", "job", "records", "usage"))
    preset.write_text(f"runtime: {{timeout: 0s, resources: {{jobs: {{path: /x}}, {absent}}}}}\n")
    with pytest.raises(ConfigError) as error:
        read(f'runtimes: [{{name: eu, base_url: "http://h", preset: "{preset}"}}]', tmp_path)
    assert str(error.value) == f"{preset}: runtime.timeout: expected a duration above zero"


def test_a_mistake_in_a_variable_that_overrides_an_entry_names_the_variable(tmp_path: Path) -> None:
    text = 'runtimes: [{name: eu, base_url: "http://h", sync: {min_interval: 7s}}]'
    with pytest.raises(ConfigError) as error:
        read(text, tmp_path, {"SPINNER_EXPORTER_SYNC_MIN_INTERVAL": "soon"})
    assert str(error.value).startswith("SPINNER_EXPORTER_SYNC_MIN_INTERVAL: sync.min_interval: expected a duration")


def test_a_runtime_from_the_environment_conflicts_with_a_list_in_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="SPINNER_EXPORTER_RUNTIME_BASE_URL: runtime: expected either"):
        read(TWO, tmp_path, {"SPINNER_EXPORTER_RUNTIME_BASE_URL": "http://h"})


@pytest.mark.parametrize("name", ["LIMITS_RUNS", "SYNC_CONCURRENCY"])
def test_another_variable_of_the_environment_conflicts_with_no_list_and_is_no_source_of_a_conflict(
    tmp_path: Path, name: str
) -> None:
    environ = {f"SPINNER_EXPORTER_{name}": "7"}
    assert list(read(TWO, tmp_path, environ)) == ["eu", "flows"]
    with pytest.raises(ConfigError, match=r"exporter\.yml: runtime: expected either"):
        read('runtime: {base_url: "http://h"}\n' + TWO, tmp_path, environ)


def test_once_and_doctor_read_all_runtimes(tmp_path: Path) -> None:
    config = tmp_path / "exporter.yml"
    with runtime(tmp_path) as url:
        config.write_text(
            f'runtimes: [{{name: here, base_url: "{url}"}}, {{name: gone, base_url: "http://127.0.0.1:{free_port()}"}}]'
        )
        once = run("once", f"--config.file={config}")
        doctor = run("doctor", f"--config.file={config}")
        report = json.loads(run("doctor", "--json", f"--config.file={config}").stdout)
        with exporter_with(config) as exporter_url:
            page = httpx.get(f"{exporter_url}/metrics").text
    assert once.returncode == 1, "one of them could not be read"
    for text in (once.stdout, page):
        assert 'spinner_api_up{runtime="here"} 1' in text
        assert 'spinner_api_up{runtime="gone"} 0' in text
    assert "runtime=gone" in once.stderr
    assert "runtime gone cannot be read: " in once.stderr.splitlines()[-1]
    assert "runtime here" not in once.stderr
    assert doctor.returncode == 1
    assert "runtime here\nok    health: responds" in doctor.stdout
    assert "runtime gone\nFAIL  health: no response (" in doctor.stdout
    assert (report["ok"], report["runtimes"]["here"]["ok"], report["runtimes"]["gone"]["ok"]) == (False, True, False)
