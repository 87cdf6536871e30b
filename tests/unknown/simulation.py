"""Exporters, their runtimes and a Prometheus over hours of simulated time, in minutes of real time.

The exporters run in this process with injected clocks and read embedded runtimes; a real Prometheus receives what it
would have scraped (`remote_write`) and evaluates every expression (`rule_engine`).
"""

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import structlog
import yaml
from prometheus_client.parser import text_string_to_metric_families

from exporter.config import Config, load
from exporter.service import Exporter
from exporter.service.monitored_runtime import Dependencies
from exporter.simulator import Engine, ManualTimeline, create_app, load_scenario
from tests.stack.programs import ROOT, prometheus_with
from tests.unknown.remote_write import STALE, Labels, RemoteWriter, labels_of
from tests.unknown.rule_engine import RuleEngine

SCRAPE_INTERVAL = 15
EVALUATION_INTERVAL = 60
"""Longer than in deploy/prometheus.yml, to keep the tests short: alerts fire up to a minute later here."""

SCENARIOS = ROOT / "exporter" / "simulator" / "scenarios"

Change = Callable[[httpx.Request, httpx.Response], httpx.Response]


class SimulatedRuntime(httpx.AsyncBaseTransport):
    """An embedded runtime on the timeline, as a transport that can fail or change its responses."""

    def __init__(self, timeline: ManualTimeline, scenario: Path, *, seed: int, ahead: float = 0.0) -> None:
        """`ahead`: seconds by which its clock is ahead of the exporters'."""
        own = _Ahead(timeline, ahead)
        self.engine = Engine(load_scenario(str(scenario)), seed=seed, timeline=own)
        own.start()
        self._transport = httpx.ASGITransport(create_app(self.engine, run_engine=False))
        self.is_down = False
        """Whether connections are refused."""
        self.change: Change = lambda request, response: response
        """Replaces a response."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.is_down:
            raise httpx.ConnectError("connection refused", request=request)
        response = await self._transport.handle_async_request(request)
        await response.aread()
        answer = self.change(request, response)
        # As from a server: not read yet.
        return httpx.Response(answer.status_code, headers=answer.headers, stream=httpx.ByteStream(answer.content))


class _Ahead(ManualTimeline):
    """The shared timeline with another wall clock."""

    def __init__(self, timeline: ManualTimeline, ahead: float) -> None:
        super().__init__()
        self._shared = timeline
        self._ahead = ahead

    def start(self) -> float:
        return self._shared.start() + self._ahead

    def now(self) -> float:
        return self._shared.now()


def edit_json(edit: Callable[[str, Any], Any]) -> Change:
    """Return a change of JSON bodies: `edit` gets the path and the body."""

    def change(request: httpx.Request, response: httpx.Response) -> httpx.Response:
        if response.status_code != 200:
            return response
        body = edit(request.url.path, json.loads(response.content))
        headers = {name: value for name, value in response.headers.items() if name not in ("content-length", "etag")}
        return httpx.Response(200, json=body, headers=headers)

    return change


class ByHost(httpx.AsyncBaseTransport):
    """One transport for several runtimes, by the host of their URLs."""

    def __init__(self, runtimes: Mapping[str, SimulatedRuntime]) -> None:
        self._runtimes = runtimes

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._runtimes[request.url.host].handle_async_request(request)


@dataclass
class Target:
    """A scrape target: an exporter, its labels in Prometheus, and which page it serves."""

    exporter: "SimulatedExporter"
    labels: dict[str, str]
    probe: tuple[str, str] | None = None
    """Runtime and project for /probe; None: /metrics."""
    series: set[Labels] = field(default_factory=set)
    """Those of the last scrape."""


class SimulatedExporter:
    """An exporter that can be killed and started again."""

    def __init__(self, world: "World", settings: Mapping[str, Any], *, storage: Path | None = None) -> None:
        self._world = world
        self._settings = settings
        self._storage = storage
        self.exporter: Exporter | None = None

    def start(self) -> None:
        timeline, zero = self._world.timeline, self._world.timeline.start()
        dependencies = Dependencies(
            wall=lambda: zero + timeline.now(),
            monotonic=timeline.now,
            transport=ByHost(self._world.runtimes),
            sleep=_at_once,
        )
        self.exporter = Exporter(self._configs(), dependencies, storage=self._storage)

    async def reload(self, settings: Mapping[str, Any]) -> None:
        assert self.exporter is not None
        self._settings = settings
        await self.exporter.reload(self._configs())

    def kill(self) -> None:
        self.exporter = None

    async def page(self, probe: tuple[str, str] | None) -> str | None:
        """Return what a scrape gets; None while it is dead."""
        if self.exporter is None:
            return None
        page = await (self.exporter.page() if probe is None else self.exporter.probe(*probe))
        return None if page is None else str(page)

    def _configs(self) -> Mapping[str, Config]:
        file = self._world.folder / "exporter.yml"
        file.write_text(yaml.safe_dump(dict(self._settings)))
        return load(file, environ={}).runtimes


async def _at_once(seconds: float) -> None:
    """A sleep that does not wait between a request and its retry."""


class World:
    """The simulated time, and everything that lives in it."""

    def __init__(self, folder: Path, prometheus_url: str, rules: Sequence[Path]) -> None:
        self.folder = folder
        self.prometheus_url = prometheus_url
        self.timeline = ManualTimeline()
        self.runtimes: dict[str, SimulatedRuntime] = {}
        self.targets: list[Target] = []
        self.writer = RemoteWriter(prometheus_url)
        self.rules = RuleEngine(prometheus_url, self.writer, *rules)
        self.is_scraping = True
        """Whether Prometheus is up."""
        self.fired: dict[tuple[str, str], float] = {}
        """When each alert first fired since `mark`, by name and runtime: seconds since then."""
        self._marked_at = 0.0

    @property
    def now(self) -> float:
        """The exporters' and Prometheus's time."""
        return self.timeline.start() + self.timeline.now()

    def add_runtime(self, name: str, scenario: str | Path = "healthy", *, seed: int = 1, ahead: float = 0.0) -> None:
        """Add a runtime at `http://NAME`."""
        file = SCENARIOS / f"{scenario}.yaml" if isinstance(scenario, str) else scenario
        self.runtimes[name] = SimulatedRuntime(self.timeline, file, seed=seed, ahead=ahead)

    def add_exporter(self, *targets: dict[str, str], storage: Path | None = None, **settings: Any) -> SimulatedExporter:
        """Add a running exporter with its targets' labels."""
        made = SimulatedExporter(self, settings, storage=storage)
        made.start()
        self.targets += [Target(made, labels) for labels in targets]
        return made

    def remove_targets(self, exporter: SimulatedExporter) -> None:
        """Remove an exporter's targets, as service discovery does with a pod that is gone."""
        for target in [each for each in self.targets if each.exporter is exporter]:
            self._end(target.series | {labels_of("up", target.labels)})
            self.targets.remove(target)

    def mark(self) -> None:
        """Begin to measure when alerts fire."""
        self._marked_at = self.timeline.now()
        self.fired = {}

    async def advance(self, seconds: float) -> None:
        """Let time pass, with scrapes and rule evaluations."""
        for _ in range(round(seconds / SCRAPE_INTERVAL)):
            await self.timeline.advance(SCRAPE_INTERVAL)
            if not self.is_scraping:
                continue
            for target in self.targets:
                await self._scrape(target)
            if round(self.timeline.now()) % EVALUATION_INTERVAL == 0:
                self.writer.flush()
                self.rules.evaluate(self.now)
                self._note_alerts()
        self.writer.flush()

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        return {alert.name for alert in self.rules.firing()}

    def close(self) -> None:
        self.writer.close()
        self.rules.close()

    def _note_alerts(self) -> None:
        for alert in self.rules.firing():
            key = alert.name, alert.labels.get("runtime", "")
            self.fired.setdefault(key, self.timeline.now() - self._marked_at)

    async def _scrape(self, target: Target) -> None:
        text = await target.exporter.page(target.probe)
        found: dict[Labels, float] = {}
        for family in text_string_to_metric_families(text or ""):
            for sample in family.samples:
                found[labels_of(sample.name, {**sample.labels, **target.labels})] = sample.value
        if text is not None:
            found[labels_of("scrape_samples_scraped", target.labels)] = float(len(found))
        self._end(target.series - found.keys())
        target.series = set(found)
        found[labels_of("up", target.labels)] = float(text is not None)
        for labels, value in found.items():
            self.writer.add(labels, self.now, value)

    def _end(self, series: set[Labels]) -> None:
        for labels in series:
            self.writer.add(labels, self.now, STALE)


RULES = (ROOT / "alerts" / "recording.rules.yml", ROOT / "alerts" / "alerts.rules.yml")


@contextlib.contextmanager
def world(folder: Path, *, rules: Sequence[Path] = RULES) -> Any:
    """A world with an empty Prometheus."""
    with prometheus_with(folder, {}, "--web.enable-remote-write-receiver") as url:
        made = World(folder, url, rules)
        with contextlib.closing(made), structlog.testing.capture_logs():
            yield made
