"""Cached lines equal those of a page that is rendered from scratch, after any changes."""

import gzip
import math
import random
import zlib
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector, CollectorRegistry

from exporter.config import LimitsConfig
from exporter.metrics import line_cache
from exporter.metrics.catalogue import (
    GLOBAL_FAMILIES,
    PROJECT_FAMILIES,
    RUN_FAMILIES,
    RUN_LABELS,
    RUNTIME_LABEL,
    SPINNER_FAMILIES,
    SPINNER_LABELS,
    Family,
    ScrapeContext,
)
from exporter.metrics.exporter_metrics import ExporterMetrics
from exporter.metrics.exposition import Exposition
from exporter.metrics.formats import FORMATS, OPENMETRICS, TEXT, Format
from exporter.metrics.gzip_fragment import GzipFragment
from exporter.metrics.line_cache import LineCache
from exporter.runs.counters import Histogram
from exporter.runs.store import Store
from exporter.runtime.model import FailedRecord, FailureCount, Health, Meter
from exporter.status import Status
from tests.builders import NOON, RUNTIME, Clock, counts, read_project, snapshot, store
from tests.metrics.test_exposition import Samples, samples, value

PROJECTS = {"p1": "Sales", "p2": "Support"}


def exposition(clock: Clock) -> Exposition:
    return Exposition(ExporterMetrics(version="0", wall=clock))


def lines(text: str) -> list[str]:
    return sorted(text.splitlines())


class Scenario:
    """A store of two projects and what happens to it."""

    def __init__(self) -> None:
        self.clock = Clock(NOON)
        self.store = store(self.clock, projects=PROJECTS, retention=600.0, sync={"stale_after": 300.0})
        self.names = dict(PROJECTS)

    def runs(self, project: str, numbers: list[int], status: Status, finished: int, shift: int) -> None:
        """Read these runs of a project; another `shift` moves them to other spinners."""
        now = self.clock()
        seen = [
            snapshot(
                f"run-{number}",
                project_id=project,
                spinner=f"spinner {(number + shift) % 3}",
                status=status,
                created_at=now,
                started_at=None if status is Status.QUEUED else now,
                ended_at=now if status.ended else None,
                updated_at=now,
                records=counts(finished, number % 2),
            )
            for number in numbers
        ]
        read_project(self.store, project, [(each, now) for each in seen], as_of=now, horizon=NOON - 3600)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.store.expire()

    def read(self, project: str) -> None:
        read_project(self.store, project, [], as_of=self.clock(), horizon=NOON - 3600)

    def rename(self, name: str) -> None:
        self.store.name_projects({**PROJECTS, "p1": name})

    def lose(self, project: str, number: int) -> None:
        self.store.drop_run(project, f"run-{number}")

    def lose_project(self) -> None:
        self.store.drop_project("p2")
        self.store.name_projects(PROJECTS)

    def shift_clock(self, seconds: float) -> None:
        self.store.clock.begin()
        self.store.clock.observe(self.clock() + seconds)

    def limit(self, most: int) -> None:
        self.store.config = msgspec.structs.replace(self.store.config, limits=LimitsConfig(runs=most))
        self.store.expire()

    def beat(self, up: bool) -> None:
        self.store.keep_health(Health(up, workers=1, last_heartbeat_at=self.clock()))


def event(rng: random.Random) -> tuple[Any, ...]:
    """Return something that happens; reads are the most frequent."""
    project = rng.choice(["p1", "p1", "p2"])
    status = rng.choice([Status.RUNNING, Status.RUNNING, Status.COMPLETED, Status.COMPLETED, *Status])
    read = (
        "runs",
        project,
        rng.sample(range(40), rng.randint(1, 25)),
        status,
        rng.randint(0, 9),
        rng.choice([0, 0, 0, 1]),
    )
    others = [
        ("pass_time", rng.choice([15.0, 15.0, 200.0, 400.0, 700.0])),
        ("read", project),
        ("rename", rng.choice(["Sales", "Sales & Co", 'a"b\\c\n'])),
        ("lose", project, rng.randrange(40)),
        ("lose_project",),
        ("shift_clock", rng.choice([0.0, 0.0, 90.0])),
        ("limit", rng.choice([3, 20, 1000, 1000])),
        ("beat", rng.random() < 0.5),
    ]
    return read if rng.random() < 0.4 else rng.choice(others)


async def test_cached_lines_equal_lines_rendered_from_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    # Small, so that a few runs fill chunks and groups; a chunk is dissolved at a quarter, which must be some runs.
    monkeypatch.setattr(line_cache, "RUNS_PER_CHUNK", 8)
    monkeypatch.setattr(line_cache, "CHUNKS_PER_GROUP", 3)
    most = 0
    for seed in range(12):
        rng = random.Random(seed)
        scenario = Scenario()
        cached = Exposition(None)
        events = []
        for _ in range(50):
            events.append(event(rng))
            getattr(scenario, events[-1][0])(*events[-1][1:])
            if rng.random() < 0.5:
                continue
            contexts = {RUNTIME: ScrapeContext(scenario.store, scenario.store.clock, api_up=True)}
            page_format = rng.choice(FORMATS)
            page = await cached.page(contexts, page_format)
            fresh = Exposition(None).render(contexts, page_format)
            assert lines(str(page)) == lines(str(fresh)), f"the cache does not show a change; seed {seed}: {events}"
            assert gzip.decompress(await page.gzip()) == bytes(page), f"the compressed page differs; seed {seed}"
            most = max(most, str(page).count("spinner_run_status{"))
        samples(str(page), page_format)
    assert most > 30, "the scenarios have too few runs to fill chunks"


@pytest.mark.parametrize(
    ("called", "time"),
    [*(("lines", time) for time in range(1, 78, 6)), *(("number", time) for time in range(1, 42, 6))],
)
def test_an_error_while_a_page_is_rendered_leaves_no_line_that_is_old(
    monkeypatch: pytest.MonkeyPatch, called: str, time: int
) -> None:
    """The page with the error is none, which alerts; the one after it must not lack what failed, and look complete."""
    scenario = Scenario()
    scenario.runs("p1", [1, 2, 3], Status.RUNNING, 1, 0)
    cached = Exposition(None)
    contexts = {RUNTIME: ScrapeContext(scenario.store, scenario.store.clock, api_up=True)}
    cached.render(contexts, TEXT)
    scenario.pass_time(30)
    scenario.rename("Marketing")
    scenario.runs("p1", [1, 2], Status.RUNNING, 5, 0)
    scenario.runs("p1", [3, 4], Status.COMPLETED, 7, 1)
    usual, calls = getattr(line_cache, called), 0

    def failing(*arguments: Any) -> str:
        nonlocal calls
        calls += 1
        if calls == time:
            raise ArithmeticError
        rendered: str = usual(*arguments)
        return rendered

    with monkeypatch.context() as patch:
        patch.setattr(line_cache, called, failing)
        with pytest.raises(ArithmeticError):
            cached.render(contexts, TEXT)
    assert lines(str(cached.render(contexts, TEXT))) == lines(str(Exposition(None).render(contexts, TEXT)))


def test_an_update_renders_about_as_many_runs_as_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two updates other tasks run: 10,000 runs at once would hold them up for a second."""
    monkeypatch.setattr(line_cache, "RUNS_PER_CHUNK", 8)
    scenario = Scenario()
    context = ScrapeContext(scenario.store, scenario.store.clock, api_up=True)
    cache = LineCache(RUNTIME)

    def updates(limit: int) -> int:
        cache.observe(context)
        needed = 1
        while not cache.update(context, TEXT, limit):
            needed += 1
        return needed

    scenario.runs("p1", list(range(100)), Status.RUNNING, 3, 0)
    assert updates(10) == 10
    scenario.runs("p1", list(range(64)), Status.COMPLETED, 9, 0)
    updates(1000)
    for number in range(0, 64, 8):
        scenario.lose("p1", number)
    assert updates(8) >= 4, "one chunk of eight runs in each"
    assert updates(8) == 1


@pytest.mark.parametrize("event", [("runs", "p1", [1], Status.RUNNING, 3, 1), ("rename", "Sales & Co")], ids=str)
async def test_a_run_has_the_names_that_its_spinner_and_its_project_have_now(event: tuple[Any, ...]) -> None:
    scenario = Scenario()
    scenario.runs("p1", [1], Status.RUNNING, 3, 0)
    contexts = {RUNTIME: ScrapeContext(scenario.store, scenario.store.clock, api_up=True)}
    cached = Exposition(None)
    cached.render(contexts, TEXT)
    scenario.pass_time(15)
    getattr(scenario, event[0])(*event[1:])
    page = str(cached.render(contexts, TEXT))
    assert lines(page) == lines(str(Exposition(None).render(contexts, TEXT)))
    assert len({labels for name, labels in samples(page) if name == STATUS}) == 1


async def test_a_run_that_leaves_a_chunk_is_not_shown_and_the_others_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_cache, "RUNS_PER_CHUNK", 8)
    scenario = Scenario()
    scenario.runs("p1", list(range(8)), Status.COMPLETED, 9, 0)
    contexts = {RUNTIME: ScrapeContext(scenario.store, scenario.store.clock, api_up=True)}
    cached = Exposition(None)
    cached.render(contexts, TEXT)
    for number in range(8):
        scenario.lose("p1", number)
        shown = {
            dict(labels)["run_id"] for name, labels in samples(str(cached.render(contexts, TEXT))) if name == STATUS
        }
        assert shown == {f"run-{left}" for left in range(number + 1, 8)}


def test_the_runs_that_are_tracked_are_those_that_have_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a chunk, not in one yet, and not ended."""
    monkeypatch.setattr(line_cache, "RUNS_PER_CHUNK", 8)
    scenario = Scenario()
    scenario.runs("p1", list(range(11)), Status.COMPLETED, 9, 0)
    scenario.runs("p2", [20, 21], Status.RUNNING, 1, 0)
    contexts = {RUNTIME: ScrapeContext(scenario.store, scenario.store.clock, api_up=True)}
    found = samples(str(exposition(scenario.clock).render(contexts, TEXT)))
    assert value(found, "spinner_exporter_runs_tracked") == 13


STATUS = "spinner_run_status"


@settings(max_examples=200)
@given(parts=st.lists(st.binary(max_size=2000), max_size=12))
def test_fragments_compressed_separately_join_to_one_gzip_stream(parts: list[bytes]) -> None:
    whole = b"".join(parts)
    gzip_fragment = GzipFragment.joined(map(GzipFragment.of, parts))
    again = GzipFragment.joined(
        [GzipFragment.joined(map(GzipFragment.of, parts[:5])), *map(GzipFragment.of, parts[5:])]
    )
    assert (gzip_fragment.crc, gzip_fragment.size) == (again.crc, again.size) == (zlib.crc32(whole), len(whole))
    # One member: a reader that stops after the first gets all.
    reader = zlib.decompressobj(16 + zlib.MAX_WBITS)
    assert (reader.decompress(gzip_fragment.gzip()), reader.eof, reader.unused_data) == (whole, True, b"")


class Theirs(Collector):
    """The same samples, rendered by prometheus-client."""

    def __init__(self, held: Store) -> None:
        self.held = held

    def collect(self) -> Iterator[Metric]:
        now = ScrapeContext(self.held, self.held.clock, api_up=True)
        runs = [((RUNTIME, s.project, s.run.snapshot.spinner, s.run.id), s) for s in self.held.view.runs()]
        spinners = [((RUNTIME, s.project, s.spinner), s) for s in self.held.view.spinners()]
        for family in RUN_FAMILIES:
            yield self.metric(family, (RUNTIME_LABEL, *RUN_LABELS), runs, now)
        for counted in SPINNER_FAMILIES:
            yield self.metric(counted, (RUNTIME_LABEL, *SPINNER_LABELS), spinners, now)
        for overall in (*PROJECT_FAMILIES, *GLOBAL_FAMILIES):
            yield self.metric(overall, (RUNTIME_LABEL,), [((RUNTIME,), self.held.view)], now)

    def metric(self, family: Family[Any], group: tuple[str, ...], subjects: list[Any], now: ScrapeContext) -> Any:
        kinds: dict[str, Any] = {
            "gauge": GaugeMetricFamily, "counter": CounterMetricFamily, "histogram": HistogramMetricFamily,
        }  # fmt: skip
        made = kinds[family.type](family.name, family.help, labels=(*group, *family.labels))
        for values, subject in subjects:
            found = family.samples(subject, now)
            if isinstance(found, Histogram):
                made.add_metric(values, *cumulated(found))
            elif isinstance(found, int | float):
                made.add_metric(values, found)
            else:
                for more, value in found or ():
                    made.add_metric((*values, *more), value)
        return made


def cumulated(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    count, buckets = 0, []
    for bound, own in zip((*histogram.buckets, math.inf), histogram.counts, strict=True):
        count += own
        buckets.append(("+Inf" if bound == math.inf else repr(float(bound)), float(count)))
    return buckets, histogram.total


TEXTS = st.text(max_size=20)
TIMES = st.floats(0, 4e9) | st.floats(allow_nan=False, allow_infinity=False, min_value=-1e9, max_value=1e300)


@settings(max_examples=100)
@given(
    names=st.tuples(TEXTS, TEXTS, TEXTS, TEXTS, TEXTS),
    status=st.sampled_from(Status),
    times=st.tuples(TIMES, TIMES, TIMES),
    finished=st.integers(0, 2**53),
    total=st.integers(0, 2**53) | st.none(),
    used=st.floats(min_value=0),
)
@pytest.mark.parametrize("page_format", [TEXT, OPENMETRICS], ids=str)
def test_rendered_samples_equal_those_of_prometheus_client(
    page_format: Format,
    names: tuple[str, ...],
    status: Status,
    times: tuple[float, ...],
    finished: int,
    total: int | None,
    used: float,
) -> None:
    project, spinner, trigger, step, code = names
    clock = Clock(NOON + 60)
    held = store(clock, projects={"p1": project})
    run = snapshot(
        status=status,
        spinner=spinner,
        trigger=trigger,
        created_at=times[0],
        started_at=times[1],
        last_progress_at=times[2],
        records=counts(finished, 1, total=total),
        failures=(FailureCount(step, code, 1),),
    )
    read_project(held, "p1", [(run, NOON + 60)], as_of=NOON + 60, horizon=-math.inf)
    for shown in list(held.view.runs()):
        held.keep_failed_records("p1", shown.run, [FailedRecord("rec", step, code)])
    held.keep_meters((Meter(code, used),))
    registry = CollectorRegistry()
    registry.register(Theirs(held))
    theirs = generate_openmetrics(registry) if page_format == OPENMETRICS else generate_latest(registry)  # type: ignore[no-untyped-call]
    page = exposition(clock).render({RUNTIME: ScrapeContext(held, held.clock, api_up=True)}, page_format)
    mine = samples(str(page), page_format)
    assert known(mine) == known(samples(theirs.decode(), page_format))


def known(found: Samples) -> dict[Any, str]:
    """Samples that compare, a NaN with a NaN and -0 with 0, without what the exporter says of itself."""
    own = ("spinner_exporter_", "process_")
    return {key: repr(float(value) + 0.0) for key, value in found.items() if not key[0].startswith(own)}


def test_a_format_that_is_not_requested_does_not_remember_the_spinners_that_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(line_cache, "MIN_CHANGED", 20)
    clock = Clock(NOON)
    held = store(clock, retention=10.0, spinner_retention=20.0)
    cached = exposition(clock)
    for number in range(100):
        clock.advance(5)
        ended = snapshot(f"run-{number}", Status.COMPLETED, spinner=f"Import {number}", ended_at=clock())
        read_project(held, "p1", [(ended, clock())], as_of=clock(), horizon=NOON)
        held.expire()
        # Requested once, and never again.
        for page_format in (OPENMETRICS, *([TEXT] if number == 3 else [])):
            cached.render({RUNTIME: ScrapeContext(held, held.clock, api_up=True)}, page_format)
    idle = cached._caches[RUNTIME]._spinners[TEXT]
    assert len(idle._changed) <= 20
    assert len(idle._group_of) <= 4, "lines of spinners that left"
    context = {RUNTIME: ScrapeContext(held, held.clock, api_up=True)}
    fresh = str(exposition(clock).render(context, TEXT))

    def of_runtime(page: str) -> list[str]:
        return [line for line in lines(page) if "spinner_exporter_" not in line and "process_" not in line]

    assert of_runtime(str(cached.render(context, TEXT))) == of_runtime(fresh)
