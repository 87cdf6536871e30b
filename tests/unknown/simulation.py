"""Exporters, their runtimes and a Prometheus over simulated time, an hour of it in seconds.

The exporters run in this process with injected clocks and read embedded runtimes; a real Prometheus receives what it
would have scraped (`remote_write`) and evaluates every expression (`rule_engine`).
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import structlog
import yaml
from prometheus_client.parser import text_string_to_metric_families

from exporter.config import load
from exporter.service import Dependencies, Exporter
from exporter.simulator import Engine, ManualTimeline, create_app, load_scenario
from tests.alerts.rule_files import RULE_FILES
from tests.scripted import no_sleep
from tests.stack.programs import prometheus_with
from tests.transport import FakeTransport
from tests.unknown.remote_write import STALE, Labels, RemoteWriter, labels_of
from tests.unknown.rule_engine import RuleEngine

SCRAPE_INTERVAL = 15
EVALUATION_INTERVAL = 60
"""Longer than in deploy/prometheus.yml, to keep the tests short: alerts fire up to a minute later here."""


@dataclass
class Target:
    """A scrape target."""

    labels: dict[str, str]
    exporter: Exporter | None
    """None while it is dead."""
    series: set[Labels] = field(default_factory=set)
    """Those of the last scrape."""


class World:
    """The simulated time, and everything that lives in it."""

    def __init__(self, folder: Path, prometheus_url: str) -> None:
        self.folder = folder
        self.timeline = ManualTimeline()
        self.targets: dict[str, Target] = {}
        """By instance."""
        self.down: set[str] = set()
        """The runtimes whose API refuses connections."""
        self.fired: dict[tuple[str, str], float] = {}
        """When each alert first fired since `mark`, by name and runtime: minutes since then."""
        self._runtimes: dict[str, httpx.ASGITransport] = {}
        self._writer = RemoteWriter(prometheus_url)
        self._rules = RuleEngine(prometheus_url, self._writer, *RULE_FILES)
        self._marked_at = 0.0

    @property
    def now(self) -> float:
        """The exporters' and Prometheus's time."""
        return self.timeline.start() + self.timeline.now()

    def add_runtime(self, name: str, *, seed: int) -> None:
        """Add a healthy runtime."""
        engine = Engine(load_scenario("healthy"), seed=seed, timeline=self.timeline)
        self._runtimes[name] = httpx.ASGITransport(create_app(engine, run_engine=False))

    def add_exporter(self, instance: str, runtime: str) -> None:
        """Add an exporter of one runtime, and its target."""
        file = self.folder / "exporter.yml"
        file.write_text(yaml.safe_dump({"runtimes": [{"name": runtime, "base_url": f"http://{runtime}"}]}))
        dependencies = Dependencies(lambda: self.now, self.timeline.now, FakeTransport(self._answer), no_sleep)
        exporter = Exporter(load(file, environ={}).runtimes, dependencies)
        self.targets[instance] = Target({"job": "spinner", "instance": instance}, exporter)

    def remove_target(self, instance: str) -> None:
        """Remove a target, as service discovery does with a pod that is gone."""
        target = self.targets.pop(instance)
        # Later than its last scrape: Prometheus has no two samples of one time.
        self._end(target.series | {labels_of("up", target.labels)}, self.now + 0.001)

    def mark(self) -> None:
        """Begin to measure when alerts fire."""
        self._marked_at = self.timeline.now()
        self.fired = {}

    async def advance(self, minutes: float) -> None:
        """Let time pass, with scrapes and rule evaluations."""
        for _ in range(round(minutes * 60 / SCRAPE_INTERVAL)):
            await self.timeline.advance(SCRAPE_INTERVAL)
            for target in self.targets.values():
                await self._scrape(target)
            if round(self.timeline.now()) % EVALUATION_INTERVAL == 0:
                self._writer.flush()
                self._rules.evaluate(self.now)
                self._note_alerts()

    def close(self) -> None:
        """Close the connections to Prometheus."""
        self._writer.close()
        self._rules.close()

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.host in self.down:
            raise httpx.ConnectError("connection refused", request=request)
        response = await self._runtimes[request.url.host].handle_async_request(request)
        await response.aread()
        return response

    def _note_alerts(self) -> None:
        for alert in self._rules.firing():
            key = alert.name, alert.labels.get("runtime", "")
            self.fired.setdefault(key, (self.timeline.now() - self._marked_at) / 60)

    async def _scrape(self, target: Target) -> None:
        text = "" if target.exporter is None else str(await target.exporter.page())
        found = {
            labels_of(sample.name, {**sample.labels, **target.labels}): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        self._end(target.series - found.keys(), self.now)
        target.series = set(found)
        found[labels_of("up", target.labels)] = float(target.exporter is not None)
        for labels, value in found.items():
            self._writer.add(labels, self.now, value)

    def _end(self, series: set[Labels], time: float) -> None:
        for labels in series:
            self._writer.add(labels, time, STALE)


@contextlib.contextmanager
def world(folder: Path) -> Iterator[World]:
    """A world with an empty Prometheus."""
    with (
        prometheus_with(folder, {}, "--web.enable-remote-write-receiver") as url,
        contextlib.closing(World(folder, url)) as made,
        structlog.testing.capture_logs(),
    ):
        yield made
