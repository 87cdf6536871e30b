"""A day in figures, and the bounds that they must stay within."""

import dataclasses
import gc
import os
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from exporter.config import LimitsConfig
from tests.soak.world import PROBED, World, store_count

MEGABYTE = 1_000_000

WARM = 3
"""The day at whose end everything that is kept for a time is there: runs, tombstones, the organisation's own runs."""


@dataclasses.dataclass(frozen=True, slots=True)
class Day:
    """What was measured at the end of a day."""

    number: int
    events: str
    counters: int
    wrong: list[str]
    memory: float
    """Resident memory in MB, with the organisation's."""
    files: int
    objects: int
    """Those that Python's garbage collector tracks."""
    blocks: int
    """Blocks of memory in use, also of what is not tracked: numbers and texts."""
    stores: int
    series: int
    state: float
    """Size of the state file in MB."""
    scrape: float
    """Median of the processor time of a scrape in ms, with that of the organisation's answers."""

    @classmethod
    def measured(
        cls, number: int, events: Sequence[str], world: World, *, wrong: list[str], series: int, scrapes: list[float]
    ) -> "Day":
        """Measure a day that ends now."""
        gc.collect()
        blocks = sys.getallocatedblocks()
        tracked = gc.get_objects()
        return cls(
            number,
            _listed(events),
            len(world.organisation.truth.counts),
            wrong,
            int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MEGABYTE,
            len(list(Path("/proc/self/fd").iterdir())),
            len(tracked),
            blocks,
            store_count(tracked) - world.stores_before,
            series,
            world.state_bytes / MEGABYTE,
            statistics.median(scrapes) * 1000,
        )

    def row(self) -> str:
        """Return the day as a row of the table."""
        exact = f"{self.counters:,}" if not self.wrong else f"{self.counters:,}, {len(self.wrong):,} **wrong**"
        return (
            f"| {self.number} | {self.events} | {exact} | {self.memory:.0f} MB | {self.files} "
            f"| {self.objects:,} | {self.blocks:,} | {self.stores} | {self.series:,} | {self.state:.1f} MB "
            f"| {self.scrape:.0f} ms |"
        )


def _listed(events: Sequence[str]) -> str:
    """Return what went wrong, each once, with how often."""
    counts = Counter(each for each in events if each)
    return ", ".join(each if count == 1 else f"{each} {count} times" for each, count in counts.items()) or "nothing"


HEADER = (
    "| day | what goes wrong | exact counters | memory | files | objects | blocks | stores | series | state file "
    "| scrape |\n"
    "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Bound:
    """What a figure may be at most, and what to look at if it is more."""

    name: str
    value: Callable[[Day], float]
    look_at: str
    most: float = float("inf")
    growth: float = float("inf")
    """By what factor it may exceed what it was at the end of the day `WARM`."""

    def passed(self, days: Sequence[Day]) -> str | None:
        """Return by how much the last of these days exceeds the bound; None if it does not."""
        last, most, why = days[-1], self.most, ""
        if last.number > WARM and self.growth * self.value(days[WARM - 1]) < most:
            most, why = self.growth * self.value(days[WARM - 1]), f", {self.growth:g} times that of day {WARM}"
        found = self.value(last)
        if found <= most:
            return None
        return f"{self.name}: {found:,.1f} on day {last.number}, at most {most:,.1f}{why}. Look at {self.look_at}."


RUNS = LimitsConfig().runs

BOUNDS = (
    Bound(
        "wrong counters",
        lambda day: len(day.wrong),
        "ProjectRuns.apply and docs/reliability.md, When a clock is wrong",
        0,
    ),
    # docs/reliability.md, "When there is too much"; 100 MB are the organisation's.
    # What an outage needed for a while stays with the process in pieces; what is in use are the blocks.
    Bound(
        "memory in MB",
        lambda day: day.memory,
        "tracemalloc: runs, tombstones, line caches, decoder",
        90 + RUNS * 0.010 + 200 * 0.030 + 100,
        1.2,
    ),
    Bound("blocks", lambda day: day.blocks, "tracemalloc: what grows from day to day", growth=1.1),
    Bound("open files", lambda day: day.files, "Connections and StateFile.close", 64, 1.0),
    Bound("objects", lambda day: day.objects, "what holds them: gc.get_referrers", growth=1.15),
    Bound("stores", lambda day: day.stores, "Probes._forget and what refers to a Store", 1 + 2 * PROBED),
    Bound("series", lambda day: day.series, "ProjectRuns.expire and LimitEnforcer", 60_000, 1.3),
    # SQLite keeps the space of what was deleted, for example of the tombstones of an outage.
    Bound(
        "state file in MB",
        lambda day: day.state,
        "Persistence, LimitEnforcer._drop_tombstones and the size of the log (state_file.MAX_LOG)",
        60,
        1.3,
    ),
    # Other programs share the processor's caches.
    Bound("scrape in ms", lambda day: day.scrape, "py-spy, and what an empty scrape iterates over", growth=2.0),
)


def passed(days: Sequence[Day]) -> list[str]:
    """Return the bounds that the last of these days exceeds."""
    return [found for bound in BOUNDS if (found := bound.passed(days)) is not None]
