"""A reload: what the next scrape shows is what the new config says, and not what was read under the one before."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from exporter.config import Config, ProjectsConfig, SyncConfig
from exporter.service import Exporter
from exporter.service.monitored_runtime import Dependencies
from tests.builders import RUNTIME, Clock, runtime_config
from tests.metrics.test_exposition import Samples, samples, value
from tests.scripted import ScriptedRuntime, no_sleep, rfc3339

Settings = Mapping[str, Any]
"""Sections of the config; of one that is a mapping, only these keys."""

BOTH_WAYS: list[tuple[Settings, Settings]] = [
    ({}, {"projects": ProjectsConfig(exclude=(re.compile("Sa.*"),))}),
    ({}, {"projects": ProjectsConfig(include=(re.compile("Sa.*"),))}),
    ({}, {"projects": ProjectsConfig(on_probe=True)}),
    ({}, {"limits": {"projects": 2}}),
    ({}, {"limits": {"failed_records_per_run": 2}}),
    ({}, {"limits": {"failed_records_per_run": 0}}),
    ({}, {"limits": {"failed_records": 3}}),
    ({}, {"limits": {"failed_records": 0}}),
    ({}, {"limits": {"waiting_record_requests": 0}}),
    ({}, {"stalls": {"floor": 3000.0}}),
    ({}, {"stalls": {"floor": 100.0, "ceiling": 300.0}}),
    ({}, {"stalls": {"false_pages": 50.0}}),
    ({}, {"runtime": {"heartbeat_timeout": 1.0}}),
    ({"statuses": {"Parked": "running"}}, {"statuses": {"Parked": "waiting"}}),
]

ONE_WAY: list[tuple[Settings, Settings]] = [
    ({}, {"limits": {"runs": 7}}),
    ({}, {"retention": 700.0}),
    ({}, {"statuses": {"Parked": "failed"}}),
    ({"limits": {"projects": 2}}, {"projects": ProjectsConfig(on_probe=True)}),
]
"""What was removed does not return, and what was learned stays."""

OWN = re.compile(
    r"spinner_exporter_(?!projects_not_read)|spinner_(runs_|records_|run_finished|run_queue|last_st|last_su)"
)
"""Metrics that count what the exporter has done or seen."""


class World:
    """A runtime, and exporters that read it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.runtime = ScriptedRuntime(self.clock)
        self.runtime.projects = {"p1": "Sales", "p2": "Support", "p3": "Sandbox"}
        for project in self.runtime.projects:
            end = self.clock() - 100
            records = {"total": 20, "completed": 2, "failed": 5, "waiting": 2}
            for status in ("in_progress", "Parked", "completed"):
                run_id, ended_at = f"{status}-{project}", end if status == "completed" else None
                self.runtime.put(run_id, projectId=project, status=status, endedAt=ended_at, records=records)
                self.runtime.failed_records[run_id] = [
                    {"id": f"rec-{number}", "status": "failed", "endedAt": rfc3339(end - number)} for number in range(5)
                ]
                self.runtime.waiting_records[run_id] = [{"id": "rec-9", "step": {"index": 1, "startedAt": end}}]

    def config(self, settings: Settings) -> Config:
        sync = SyncConfig(min_interval=0.0, projects_interval=60.0)  # type: ignore[arg-type]
        plain = Config(runtime=runtime_config(), sync=sync)
        sections = {
            name: msgspec.structs.replace(getattr(plain, name), **section)
            if isinstance(section, dict) and name != "statuses"
            else section
            for name, section in settings.items()
        }
        return msgspec.structs.replace(plain, **sections)

    def exporter(self, settings: Settings, storage: Path | None = None) -> Exporter:
        dependencies = Dependencies(self.clock, self.clock, self.runtime.transport(), no_sleep)
        return Exporter({RUNTIME: self.config(settings)}, dependencies, storage=storage)

    async def scrape(self, exporter: Exporter) -> Samples:
        self.clock.advance(15)
        return samples(str(await exporter.page()))

    async def fresh(self, settings: Settings) -> Samples:
        """Return what an exporter shows that has never had another config."""
        exporter = self.exporter(settings)
        found = await self.scrape(exporter)
        await exporter.close()
        return found


def shown(found: Samples) -> set[tuple[Any, ...]]:
    # The values of others change with the clock, and when a run was read.
    exact = ("_info", "_up", "_not_read", "_threshold_seconds", "_timeout_seconds")
    return {
        (name, labels, number if name.endswith(exact) else None)
        for (name, labels), number in found.items()
        if not OWN.match(name)
    }


@pytest.mark.parametrize(
    ("before", "after"),
    [*BOTH_WAYS, *((after, before) for before, after in BOTH_WAYS), *ONE_WAY],
    ids=lambda settings: re.sub(r"[^\w.]+", "-", str(settings)).strip("-") or "default",
)
async def test_the_next_scrape_shows_what_the_new_config_says(before: Settings, after: Settings) -> None:
    world = World()
    exporter = world.exporter(before)
    await world.scrape(exporter)
    # Longer ago than what a read asks for again.
    world.clock.advance(600)
    assert shown(await world.scrape(exporter)) != shown(await world.fresh(after)), "the change makes no difference"
    await exporter.reload({RUNTIME: world.config(after)})
    assert shown(await world.scrape(exporter)) == shown(await world.fresh(after))
    await exporter.close()


async def test_fewer_projects_are_read_after_a_restart_with_a_lower_limit(tmp_path: Path) -> None:
    world = World()
    exporter = world.exporter({}, tmp_path)
    await world.scrape(exporter)
    await exporter.close()
    exporter = world.exporter({"limits": {"projects": 1}}, tmp_path)
    found = await world.scrape(exporter)
    assert [dict(labels)["project"] for name, labels in found if name == "spinner_project_up"] == ["Sales"]
    assert value(found, "spinner_exporter_projects_not_read") == 2
    await exporter.close()
