"""Builders of small stories: a scenario as a Python literal, an engine that stands still, a client of its API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from exporter.simulator import Engine, ManualTimeline, Scenario, create_app, load_scenario

EMAIL = {"name": "Send", "type": "email", "latency": "10s"}
"""A step that takes ten seconds, every time."""


def scenario(folder: Path, *, spinner: dict[str, Any] | None = None, **keys: Any) -> Scenario:
    """Write a scenario file with one spinner (`mail`, ten records, one at a time, no schedule) and load it."""
    mail = {"name": "Mail", "id": "mail", "records": 10, "concurrency": 1, "steps": [EMAIL], **(spinner or {})}
    story = {
        "summary": "A test",
        "runtime": {"workers": 1, "slots": 2, "pickup": "1s"},
        "projects": [{"name": "Shop", "id": "shop", "spinners": [mail]}],
        **keys,
    }
    path = folder / "story.yaml"
    path.write_text(yaml.safe_dump(story))
    return load_scenario(str(path))


class World:
    """An engine whose time a test moves."""

    def __init__(self, story: Scenario, *, seed: int = 1, speed: float = 1.0) -> None:
        self.timeline = ManualTimeline(speed)
        self.engine = Engine(story, seed=seed, timeline=self.timeline)

    async def after(self, seconds: float) -> Engine:
        """Let story time go by."""
        await self.timeline.advance(seconds)
        self.engine.catch_up()
        return self.engine

    def status(self, job_id: str) -> str:
        """Return a run's status, in the deployment's words."""
        return self.engine.jobs[job_id].label

    def counts(self, job_id: str) -> tuple[int, int, int, int, int]:
        """Return a run's records: pending, running, waiting, completed, failed."""
        run = self.engine.jobs[job_id]
        return run.pending, run.running, run.waiting, run.completed, run.failed

    @asynccontextmanager
    async def client(self, token: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
        """Connect a client that sends no token of its own."""
        transport = httpx.ASGITransport(create_app(self.engine, token=token, run_engine=False))
        async with httpx.AsyncClient(transport=transport, base_url="http://runtime") as client:
            yield client
