"""Builders for tests: small scenarios, an engine with manual time, and a client of its API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from exporter.simulator import Engine, ManualTimeline, Scenario, create_app, load_scenario

EMAIL = {"name": "Send", "type": "email", "latency": "10s"}
"""A step that always takes ten seconds."""


def scenario(folder: Path, *, spinner: dict[str, Any] | None = None, **keys: Any) -> Scenario:
    """Write a scenario file with one spinner (`mail`, ten records, one at a time, no schedule) and load it."""
    mail = {"name": "Mail", "id": "mail", "records": 10, "concurrency": 1, "steps": [EMAIL], **(spinner or {})}
    document = {
        "summary": "A test",
        "runtime": {"workers": 1, "slots": 2, "pickup": "1s"},
        "projects": [{"name": "Shop", "id": "shop", "spinners": [mail]}],
        **keys,
    }
    path = folder / "scenario.yaml"
    path.write_text(yaml.safe_dump(document))
    return load_scenario(str(path))


class Simulation:
    """An engine whose time is advanced by the test."""

    def __init__(self, scenario: Scenario, *, seed: int = 1, speed: float = 1.0) -> None:
        self.timeline = ManualTimeline(speed)
        self.engine = Engine(scenario, seed=seed, timeline=self.timeline)

    async def after(self, seconds: float) -> Engine:
        """Advance scenario time."""
        await self.timeline.advance(seconds)
        self.engine.catch_up()
        return self.engine

    def status(self, job_id: str) -> str:
        """Return a run's status label."""
        return self.engine.jobs[job_id].label

    def counts(self, job_id: str) -> tuple[int, int, int, int, int]:
        """Return a run's record counts: pending, running, waiting, completed, failed."""
        run = self.engine.jobs[job_id]
        return run.pending, run.running, run.waiting, run.completed, run.failed

    @asynccontextmanager
    async def client(self, token: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
        """Return a client that sends no token."""
        transport = httpx.ASGITransport(create_app(self.engine, token=token, run_engine=False))
        async with httpx.AsyncClient(transport=transport, base_url="http://runtime") as client:
            yield client
