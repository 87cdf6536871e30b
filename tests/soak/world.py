"""An exporter that reads an organisation for days: time passes for both, and clocks, disk and processes fail."""

import asyncio
import contextlib
import gc
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from exporter.config import Config, Duration, StallsConfig, SyncConfig
from exporter.errors import UnreadableError
from exporter.metrics.page import MetricsPage
from exporter.runs.store import Store
from exporter.service import Exporter
from exporter.service.monitored_runtime import Dependencies
from tests.builders import NOON, RUNTIME, Clock, runtime_config
from tests.scripted import no_sleep
from tests.soak.organisation import HOUR, Organisation
from tests.transport import FakeTransport

PROBED = 3
"""Projects that are probed at a time."""


class World:
    """One organisation and the exporter that reads it, kept in a folder."""

    def __init__(self, folder: Path, *, seed: int, projects: int, runs_per_day: int) -> None:
        gc.collect()
        self.stores_before = store_count(gc.get_objects())
        """Stores that other tests of this process have left."""
        self.organisation = Organisation(NOON, seed=seed, projects=projects, runs_per_day=runs_per_day)
        self.wall, self.monotonic = Clock(), Clock(1000.0)
        self._folder, self._lives, self._reloads = folder, 0, 0
        self.exporter = self._begin(folder / "0")

    def advance(self, seconds: float) -> None:
        """Let time pass for everybody."""
        self.organisation.play(self.organisation.time + seconds)
        self.wall.advance(seconds)
        self.monotonic.advance(seconds)

    async def scrape(self) -> tuple[MetricsPage, float]:
        """Scrape, and probe some projects; return the page and the processor seconds that it took."""
        began = time.process_time()
        page = await self.exporter.page(max_wait=60)
        took = time.process_time() - began
        hours = int(self.monotonic() // HOUR)
        for number in range(PROBED):
            # Each is probed for an hour, and not for many hours then.
            project = (hours * PROBED + number) % len(self.organisation.projects)
            # While the API fails, an exporter that has just begun knows no project.
            with contextlib.suppress(UnreadableError):
                await self.exporter.probe(RUNTIME, f"p{project}", max_wait=60)
        return page, took

    async def kill(self) -> None:
        """End the exporter as kill -9 does, in the middle of a scrape, and start another one on its file."""
        scrape = asyncio.create_task(self.exporter.page(max_wait=60))
        for _ in range(40):
            await asyncio.sleep(0)
        writer = self.exporter.runtimes[RUNTIME].state_writer
        assert writer is not None
        before, self._lives = self._folder / str(self._lives), self._lives + 1
        after = self._folder / str(self._lives)
        with writer._file._writing:  # what a disk has is never of two moments
            shutil.copytree(before, after)
        scrape.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await scrape
        await self.exporter.close()
        shutil.rmtree(before)
        self.monotonic.advance(12_345)
        self.exporter = self._begin(after)

    async def reload(self) -> None:
        """Reload another config."""
        self._reloads += 1
        await self.exporter.reload({RUNTIME: self._config()})

    def fill_disk(self, *, is_full: bool) -> None:
        """Let each write to the state file fail, or no longer."""
        writer = self.exporter.runtimes[RUNTIME].state_writer
        assert writer is not None
        writer._file._connection.execute(f"PRAGMA query_only = {'ON' if is_full else 'OFF'}")

    @property
    def state_bytes(self) -> int:
        """The size of the state file, with its log."""
        return sum(file.stat().st_size for file in (self._folder / str(self._lives)).iterdir())

    async def close(self) -> None:
        """End the exporter."""
        await self.exporter.close()

    def _begin(self, folder: Path) -> Exporter:
        dependencies = Dependencies(self.wall, self.monotonic, FakeTransport(self.organisation.answer), no_sleep)
        return Exporter({RUNTIME: self._config()}, dependencies, storage=folder)

    def _config(self) -> Config:
        return Config(
            runtime=runtime_config(),
            sync=SyncConfig(min_interval=Duration(0)),
            stalls=StallsConfig(floor=Duration(600 + self._reloads % 2)),
        )


def store_count(objects: Iterable[object]) -> int:
    """Return how many of the objects are stores."""
    return sum(type(each) is Store for each in objects)
