"""Exporters, their runtimes and a Prometheus over simulated time, an hour of it in seconds.

The exporters run in this process with injected clocks and read embedded runtimes; a real Prometheus receives what it
would have scraped (`remote_write`) and evaluates every expression (`rule_engine`).
"""

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import structlog
import yaml
from prometheus_client.parser import text_string_to_metric_families

from exporter.config import load
from exporter.service import Dependencies, Exporter
from exporter.simulator import Engine, ManualTimeline, Scenario, create_app, load_scenario
from tests.alerts.rule_files import RULE_FILES
from tests.scripted import no_sleep
from tests.stack.programs import prometheus_with
from tests.transport import FakeTransport
from tests.unknown.remote_write import STALE, Labels, RemoteWriter, labels_of
from tests.unknown.rule_engine import RuleEngine

SCRAPE_INTERVAL = 30
"""Longer than in deploy/prometheus/prometheus.yml, to keep the tests short: what is counted is known a scrape later."""

EVALUATION_INTERVAL = 60
"""Longer than in deploy/prometheus/prometheus.yml, to keep the tests short: alerts fire up to a minute later here."""

MIDNIGHT = 1_767_571_200.0
"""2026-01-05T00:00:00Z: a world begins here, so that what has happened since midnight can be known."""

HOUR = 3600.0

Change = Callable[[httpx.Request, httpx.Response], httpx.Response]
"""What replaces the response of a runtime."""


class Clock(ManualTimeline):
    """A timeline with its own time of day; with `follows`, it advances with another one."""

    def __init__(self, zero: float, *, follows: ManualTimeline | None = None) -> None:
        super().__init__()
        self._zero = zero
        self._followed = follows

    def start(self) -> float:
        """Return the wall-clock time of zero."""
        return self._zero

    def now(self) -> float:
        """Return the seconds since zero."""
        return super().now() if self._followed is None else self._followed.now()


class Runtime:
    """An embedded runtime that can refuse connections or change its responses."""

    def __init__(self, scenario: Scenario, *, seed: int, clock: Clock) -> None:
        self.is_down = False
        self.change: Change = lambda request, response: response
        # Of the old contract: with one list of all projects, that of a single project need not be readable.
        self.engine = Engine(scenario, seed=seed, timeline=clock)
        self._app = httpx.ASGITransport(create_app(self.engine, run_engine=False, lists_across_projects=False))

    async def answer(self, request: httpx.Request) -> httpx.Response:
        """Respond to a request."""
        if self.is_down:
            raise httpx.ConnectError("connection refused", request=request)
        response = await self._app.handle_async_request(request)
        await response.aread()
        return self.change(request, response)


def edit_json(edit: Callable[[str, Any], Any]) -> Change:
    """Return a change of the JSON that a runtime sends; `edit` gets the path and the decoded body."""

    def change(request: httpx.Request, response: httpx.Response) -> httpx.Response:
        if response.status_code != 200:
            return response
        body = edit(request.url.path, json.loads(response.content))
        headers = {name: value for name, value in response.headers.items() if name not in ("content-length", "etag")}
        return httpx.Response(200, json=body, headers=headers)

    return change


@dataclass
class Target:
    """A scrape target."""

    labels: dict[str, str]
    settings: dict[str, Any]
    exporter: Exporter | None
    """None while it is dead."""
    series: set[Labels] = field(default_factory=set)
    """Those of the last scrape."""


class World:
    """The simulated time, and everything that lives in it."""

    def __init__(
        self, folder: Path, prometheus_url: str, *, rules: Sequence[Path] = RULE_FILES, starts_at: float = MIDNIGHT
    ) -> None:
        self.folder = folder
        self.prometheus_url = prometheus_url
        self.clock = Clock(starts_at)
        self.targets: dict[str, Target] = {}
        """By instance."""
        self.runtimes: dict[str, Runtime] = {}
        self.is_scraping = True
        """Whether Prometheus is up."""
        self.fired: dict[tuple[str, str], float] = {}
        """When each alert first fired since `mark`, by name and runtime: minutes since then."""
        self._writer = RemoteWriter(prometheus_url)
        self._rules = RuleEngine(prometheus_url, self._writer, *rules)
        self._marked_at = 0.0

    @property
    def now(self) -> float:
        """The exporters' and Prometheus's time."""
        return self.clock.start() + self.clock.now()

    @property
    def minutes(self) -> float:
        """Return the minutes since `mark`."""
        return (self.clock.now() - self._marked_at) / 60

    def add_runtime(self, name: str, scenario: Scenario | None = None, *, seed: int = 1, ahead: float = 0.0) -> None:
        """Add a runtime, a healthy one by default. `ahead`: seconds by which its clock is ahead of the exporters'."""
        clock = Clock(self.clock.start() + ahead, follows=self.clock)
        self.runtimes[name] = Runtime(scenario or load_scenario("healthy"), seed=seed, clock=clock)

    def add_exporter(self, instance: str, runtime: str, **settings: Any) -> None:
        """Add an exporter of one runtime, and its target."""
        settings.setdefault("runtimes", [{"name": runtime, "base_url": f"http://{runtime}"}])
        self.targets[instance] = Target({"job": "spinner", "instance": instance}, settings, self._exporter(settings))

    def kill(self, instance: str) -> None:
        """Kill an exporter. Its target stays."""
        self.targets[instance].exporter = None

    def start(self, instance: str) -> None:
        """Start a new exporter, which knows nothing, in place of a killed one."""
        target = self.targets[instance]
        target.exporter = self._exporter(target.settings)

    def remove_target(self, instance: str) -> None:
        """Remove a target, as service discovery does with a pod that is gone."""
        target = self.targets.pop(instance)
        # Later than its last scrape: Prometheus has no two samples of one time.
        self._end(target.series | {labels_of("up", target.labels)}, self.now + 0.001)

    def mark(self) -> None:
        """Begin to measure when alerts fire."""
        self._marked_at = self.clock.now()
        self.fired = {}

    async def advance(self, minutes: float) -> None:
        """Let time pass, with scrapes and rule evaluations."""
        for _ in range(round(minutes * 60 / SCRAPE_INTERVAL)):
            await self.clock.advance(SCRAPE_INTERVAL)
            if not self.is_scraping:
                continue
            for target in self.targets.values():
                await self._scrape(target)
            if round(self.clock.now()) % EVALUATION_INTERVAL == 0:
                self._writer.flush()
                self._rules.evaluate(self.now)
                self._note_alerts()
        self._writer.flush()

    def close(self) -> None:
        """Close the connections to Prometheus."""
        self._writer.close()
        self._rules.close()

    def _exporter(self, settings: dict[str, Any]) -> Exporter:
        file = self.folder / "exporter.yml"
        file.write_text(yaml.safe_dump(settings))
        dependencies = Dependencies(lambda: self.now, self.clock.now, FakeTransport(self._answer), no_sleep)
        return Exporter(load(file, environ={}).runtimes, dependencies)

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        return await self.runtimes[request.url.host].answer(request)

    def _note_alerts(self) -> None:
        for alert in self._rules.firing():
            key = alert.name, alert.labels.get("runtime", "")
            self.fired.setdefault(key, self.minutes)

    async def _scrape(self, target: Target) -> None:
        text = "" if target.exporter is None else str(await target.exporter.page())
        own = tuple(target.labels.items())
        found = {
            _labels(series, own): float(value)
            for series, _, value in (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        }
        self._end(target.series - found.keys(), self.now)
        target.series = set(found)
        if target.exporter is not None:
            found[labels_of("scrape_samples_scraped", target.labels)] = float(len(target.series))
        found[labels_of("up", target.labels)] = float(target.exporter is not None)
        for labels, value in found.items():
            self._writer.add(labels, self.now, value)

    def _end(self, series: set[Labels], time: float) -> None:
        for labels in series:
            self._writer.add(labels, time, STALE)


@functools.lru_cache(maxsize=100_000)
def _labels(series: str, target: tuple[tuple[str, str], ...]) -> Labels:
    """Return the labels of a line of a page, without its value; parsing them takes longer than everything else."""
    ((sample,),) = (family.samples for family in text_string_to_metric_families(f"{series} 0\n"))
    return labels_of(sample.name, {**sample.labels, **dict(target)})


@contextlib.contextmanager
def world(folder: Path, *, rules: Sequence[Path] = RULE_FILES, starts_at: float = MIDNIGHT) -> Iterator[World]:
    """A world with an empty Prometheus, which evaluates `rules`, from a time of the day on."""
    with (
        prometheus_with(folder, {}, "--web.enable-remote-write-receiver") as url,
        contextlib.closing(World(folder, url, rules=rules, starts_at=starts_at)) as made,
        structlog.testing.capture_logs(),
    ):
        yield made
