"""The page: golden files, what prometheus-client's parsers read from it, and what is cached between scrapes."""

import asyncio
import functools
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.metrics import catalogue, lines
from exporter.metrics.catalogue import ScrapeContext
from exporter.metrics.exporter_metrics import ExporterMetrics
from exporter.metrics.exposition import RUNS_PER_SLICE, Exposition
from exporter.metrics.formats import OPENMETRICS, TEXT, Format
from exporter.metrics.lines import exemplar
from exporter.runs.activity import Activity
from exporter.runs.pace import EARLIER_RUNS
from exporter.runs.store import Store
from exporter.runtime.model import FailedRecord, FailureCount, Health, Meter, OpenRecord, RecordCounts
from exporter.status import Status
from tests.builders import NOON, RUNTIME, Clock, counts, read_project, snapshot, store

GOLDEN = Path(__file__).parent.parent / "golden"

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def exposition(clock: Clock) -> Exposition:
    return Exposition(ExporterMetrics(version="0", wall=clock))


def page(held: Store, page_format: Format = TEXT, *, using: Exposition | None = None) -> str:
    made = using or exposition(Clock())
    return str(made.render({RUNTIME: ScrapeContext(held, held.clock, api_up=True)}, page_format))


def parsed(text: str, page_format: Format) -> dict[str, Any]:
    parse: Any = parse_openmetrics if page_format == OPENMETRICS else parse_text
    return {family.name: family for family in parse(text)}


def samples(text: str, page_format: Format = TEXT) -> Samples:
    """Parse a page; refuse duplicate series and families."""
    found: Samples = {}
    families = FAMILY.split(text) if page_format == TEXT else [text]
    names = [family.split(" ", 3)[2] for family in families if family.startswith("# HELP ")]
    assert len(set(names)) == len(names), (
        f"a family is there twice: {[each for each in names if names.count(each) > 1]}"
    )
    for family in families:
        for key, number in _samples_of(family, page_format):
            assert key not in found, f"the series {key} is there twice: Prometheus would reject the page or mix them"
            found[key] = number
    return found


FAMILY = re.compile(r"^(?=# HELP )", re.MULTILINE)


Sample = tuple[tuple[str, tuple[tuple[str, str], ...]], float]


@functools.lru_cache(maxsize=5_000)
def _samples_of(family: str, page_format: Format) -> list[Sample]:
    """Parse one family of a page, or an OpenMetrics page; most are the same from one scrape to the next."""
    if page_format == OPENMETRICS:
        return _read(parse_openmetrics, family)
    comments = "".join(COMMENT.findall(family))
    return [sample for line in SAMPLE.findall(family) for sample in _samples_of_line(comments, line)]


COMMENT = re.compile(r"^#.*\n", re.MULTILINE)
SAMPLE = re.compile(r"^[^#].*\n?", re.MULTILINE)


@functools.lru_cache(maxsize=50_000)
def _samples_of_line(comments: str, line: str) -> list[Sample]:
    """Parse one line of a family in the text format; of a histogram, few lines differ from one scrape to the next."""
    return _read(parse_text, comments + line)


def _read(parse: Any, text: str) -> list[Sample]:
    return [
        ((sample.name, tuple(sorted(sample.labels.items()))), sample.value)
        for each in parse(text)
        for sample in each.samples
    ]


def value(found: Samples, name: str, **labels: str) -> float | None:
    matching = [
        number for (each, pairs), number in found.items() if each == name and labels.items() <= dict(pairs).items()
    ]
    assert len(matching) < 2, f"{name}{labels} is not one series"
    return matching[0] if matching else None


def busy_store(clock: Clock) -> Store:
    """One of everything: a running, a waiting, a queued and a completed run with failures, and a plan."""
    held = store(clock, projects={"p1": "Sales", "p2": 'Support "EU"'}, spinners=[{"expected_interval": 86400.0}])
    read_project(
        held,
        "p1",
        [
            (snapshot("run-1", records=counts(4, 1, pending=3, running=2), last_progress_at=NOON + 50), NOON + 60),
            (
                snapshot(
                    "run-2",
                    Status.COMPLETED,
                    trigger="child",
                    parent_id="run-0",
                    records=counts(7, 3),
                    failures=(FailureCount("send", "E_BOUNCE", 2), FailureCount("call", "", 1)),
                ),
                NOON + 60,
            ),
            (snapshot("run-3", Status.QUEUED, records=None, waiting_until=NOON + 600), NOON + 60),
            (snapshot("run-5", records=counts(99, total=100, running=1), due_at=NOON + 3600), NOON + 60),
        ],
        as_of=NOON + 60,
        horizon=NOON - 3600,
    )
    (moved,) = [run for run in held.runs_missing_failed_records("p1") if run.id == "run-2"]
    held.keep_failed_records("p1", moved, [FailedRecord("rec-9", "send", "E_BOUNCE", NOON + 40)])
    (works,) = [run for run in held.runs_of("p1").values() if run.id == "run-1"]
    in_flight = [
        OpenRecord("rec-5", "enrich", 2, NOON + 51, NOON + 55, 3),
        OpenRecord("rec-6", "find", 1, NOON + 52, NOON + 52, 1),
    ]
    held.keep_activity(("p1", works.id), Activity(NOON + 55, NOON + 52))
    held.keep_listed("in flight", ("p1", works.id), in_flight, is_whole=True)
    waits = snapshot("run-4", Status.WAITING, spinner="on\nboarding", records=counts(0, total=None, waiting=2))
    read_project(held, "p2", [(waits, NOON + 60)], as_of=NOON + 60, horizon=NOON - 3600)
    asked = [OpenRecord("rec-7", "ask", 2, NOON + 1, NOON + 3, 1), OpenRecord("rec-8", "ask", 2, NOON, NOON + 2, 2)]
    held.keep_listed("waiting", ("p2", "run-4"), asked, is_whole=True)
    held.fail("p2", "jobs: HTTP 500")
    held.keep_health(Health(runtime_up=True, workers=4, last_heartbeat_at=NOON + 58))
    held.keep_meters((Meter("jobs_month", 12, 500, NOON + 86400), Meter("spinners", 3)))
    return held


@pytest.mark.parametrize(("name", "page_format"), [("page.prom", TEXT), ("page.openmetrics", OPENMETRICS)])
def test_the_whole_page_equals_the_golden_file(name: str, page_format: Format) -> None:
    """A change here is a change for users: read the difference, then delete the file to write it again."""
    text = page(busy_store(Clock(NOON + 60)), page_format)
    ours = text[: text.index("# HELP process_")]
    golden = GOLDEN / name
    if not golden.exists():
        golden.write_text(ours)
        pytest.fail(f"{golden} was missing and has been written; review and commit it")
    assert ours == golden.read_text(), f"the page differs from {golden}"


@pytest.mark.parametrize("page_format", [TEXT, OPENMETRICS], ids=str)
def test_prometheus_client_reads_every_family_of_the_catalogue_once(page_format: Format) -> None:
    text = page(busy_store(Clock(NOON + 60)), page_format)
    families = parsed(text, page_format)
    entries: list[catalogue.Family[Any]] = [
        *catalogue.RUN_FAMILIES,
        *catalogue.SPINNER_FAMILIES,
        *catalogue.PROJECT_FAMILIES,
        *catalogue.GLOBAL_FAMILIES,
    ]
    for entry in entries:
        # The parsers call a counter's family without _total.
        family = families[entry.name.removesuffix("_total") if entry.type == "counter" else entry.name]
        assert family.type == entry.type
        assert family.samples, f"{entry.name} has no sample in a page that shows one of everything"
    samples(text, page_format)


def test_both_formats_have_the_same_samples() -> None:
    held = busy_store(Clock(NOON + 60))
    one, other = (
        {key: number for key, number in samples(page(held, kind), kind).items() if not key[0].startswith("process_")}
        for kind in (TEXT, OPENMETRICS)
    )
    assert one == other


def test_openmetrics_has_the_run_behind_an_observation_as_its_exemplar() -> None:
    families = parsed(page(busy_store(Clock(NOON + 60)), OPENMETRICS), OPENMETRICS)
    exemplars = [s.exemplar for s in families["spinner_run_finished_duration_seconds"].samples if s.exemplar]
    assert [exemplar.labels for exemplar in exemplars] == [{"run_id": "run-2"}]


def test_an_unknown_value_has_no_sample() -> None:
    found = samples(page(busy_store(Clock(NOON + 60))))
    assert value(found, "spinner_run_progress_ratio", run_id="run-4") is None
    assert value(found, "spinner_run_start_timestamp_seconds", run_id="run-3") is None
    assert value(found, "spinner_run_failed_records", run_id="run-3") is None
    assert value(found, "spinner_plan_limit", meter="spinners") == math.inf
    assert value(found, "spinner_plan_reset_timestamp_seconds", meter="spinners") is None


@pytest.mark.parametrize(
    ("fields", "is_shown"),
    [
        ({"status": Status.QUEUED, "started_at": None}, True),
        ({"status": Status.WAITING}, True),
        ({"records": counts(3, waiting=2, running=0)}, True),
        ({"records": counts(3, waiting=2, running=1)}, False),
        ({"status": Status.WAITING, "last_progress_at": NOON + 300}, False),
        ({"status": Status.COMPLETED, "records": counts(3, waiting=2, running=0)}, False),
    ],
    ids=["queued", "waiting", "waiting by its counts", "at work", "progress since", "ended"],
)
def test_until_when_a_run_waits_is_shown_while_it_does(fields: dict[str, Any], *, is_shown: bool) -> None:
    held = store(Clock(NOON + 900))
    run = snapshot(waiting_until=NOON + 300, **fields)
    read_project(held, "p1", [(run, NOON + 900)], as_of=NOON + 900, horizon=NOON - 3600)
    shown = samples(page(held, TEXT))
    assert value(shown, "spinner_run_waiting_until_timestamp_seconds") == (NOON + 300 if is_shown else None)


def test_counts_that_the_runtime_does_not_give_have_no_samples() -> None:
    held = store(Clock(NOON + 60))
    completed_only = RecordCounts(10, pending=None, running=None, waiting=None, completed=4, failed=None)
    failed_only = RecordCounts(10, pending=None, running=None, waiting=None, completed=None, failed=1)
    runs = [snapshot("run-1", records=completed_only), snapshot("run-2", records=failed_only)]
    read_project(held, "p1", [(run, NOON + 60) for run in runs], as_of=NOON + 60, horizon=NOON)
    found = samples(page(held))
    states = ("pending", "running", "waiting", "completed", "failed")
    shown = {
        run.id: [value(found, "spinner_run_records", run_id=run.id, state=state) for state in states] for run in runs
    }
    assert shown == {"run-1": [None, None, None, 4, None], "run-2": [None, None, None, None, 1]}
    assert value(found, "spinner_run_failed_records", run_id="run-1") is None
    assert value(found, "spinner_run_failed_records", run_id="run-2") == 1
    assert value(found, "spinner_run_progress_ratio", run_id="run-1") == 0.4
    assert value(found, "spinner_run_progress_ratio", run_id="run-2") is None, "how many completed is not known"


def test_a_clock_difference_shifts_neither_durations_nor_silences() -> None:
    texts = []
    for difference in (0, 90):
        clock = Clock(NOON + 60 - difference)
        held = store(clock)
        for _ in range(2):
            held.clock.observe(NOON + 60)
        read_project(
            held,
            "p1",
            [(snapshot(records=counts(4), last_progress_at=NOON + 50), NOON + 60)],
            as_of=NOON + 60,
            horizon=NOON,
        )
        clock.advance(15)
        found = samples(page(held))
        silence = clock.now - (value(found, "spinner_run_last_progress_timestamp_seconds") or 0)
        texts.append((value(found, "spinner_run_duration_seconds"), silence))
    assert texts == [(70.0, 25.0), (70.0, 25.0)]


def test_why_a_run_has_its_stall_threshold_includes_how_many_earlier_runs_are_known() -> None:
    clock = Clock(NOON + 60)
    held, kept = store(clock), exposition(clock)
    open_run = snapshot(records=counts(4, running=1), last_progress_at=NOON + 50)
    ended = [snapshot(f"ended-{number}", Status.COMPLETED, records=counts(10)) for number in range(10)]
    known = []
    for new in ([open_run], ended[:1], ended[1:2], ended[2:]):
        read_project(held, "p1", [(each, NOON + 60) for each in new], as_of=NOON + 60, horizon=NOON)
        found = samples(page(held, using=kept))
        ((_, labels),) = (key for key in found if key[0] == "spinner_run_stall_threshold_info")
        known.append(dict(labels)["reason"].partition("; ")[2])
    earlier = ["no earlier run is", "1 earlier run is", "2 earlier runs are", f"{EARLIER_RUNS} earlier runs are"]
    assert known == [f"{each} known" for each in earlier]


def test_a_longest_gap_without_a_record_in_progress_does_not_contradict_a_shorter_stall_threshold() -> None:
    clock = Clock(NOON + 60)
    held = store(clock)
    said = []
    for seconds, finished, running in ((50, 40, 1), (60, 40, 0), (960, 41, 1), (970, 41, 0)):
        clock.now = NOON + seconds
        progress_at = NOON + (50 if finished == 40 else 960)
        now = snapshot(
            records=counts(finished, total=100, running=running, pending=50),
            last_progress_at=progress_at,
            updated_at=clock.now,
        )
        read_project(held, "p1", [(now, clock.now)], as_of=clock.now, horizon=NOON)
        found = samples(page(held))
        ((_, labels),) = (key for key in found if key[0] == "spinner_run_stall_threshold_info")
        said.append(dict(labels)["reason"].split("; ")[1] == "no record was in progress in its longest gap")
    assert said == [False, False, True, False]


def test_the_duration_changes_at_every_scrape_until_the_run_ends_and_the_rest_is_cached() -> None:
    clock = Clock(NOON + 60)
    held = busy_store(clock)
    kept = exposition(clock)
    page(held, using=kept)
    clock.advance(15)
    found = samples(page(held, using=kept))
    assert value(found, "spinner_run_duration_seconds", run_id="run-1") == 70
    assert value(found, "spinner_run_duration_seconds", run_id="run-2") == 55
    assert page(held, using=kept).split("# HELP process_")[0] == page(held).split("# HELP process_")[0]


def test_a_cached_page_equals_one_rendered_from_scratch_after_changes() -> None:
    clock = Clock(NOON + 60)
    held = busy_store(clock)
    kept = exposition(clock)
    page(held, using=kept)
    for _ in range(3):
        held.clock.observe(NOON + 400)
    assert held.clock.offset == 340
    moved = snapshot("run-1", spinner="renamed", records=counts(9, 1), updated_at=NOON + 90)
    read_project(held, "p1", [(moved, NOON + 90)], as_of=NOON + 60, horizon=NOON - 3600)
    held.name_projects({"p1": "Sales & Co", "p2": "Support"})
    held.drop_run("p1", "run-3")
    assert page(held, using=kept).split("# HELP process_")[0] == page(held).split("# HELP process_")[0]


def test_more_failure_groups_than_the_limit_are_summed_as_other() -> None:
    held = store(Clock(NOON + 60), limits={"failure_groups": 2})
    failures = tuple(FailureCount(f"step{number}", "E", number) for number in range(1, 6))
    read_project(held, "p1", [(snapshot(failures=failures), NOON + 60)], as_of=NOON + 60, horizon=NOON)
    found = samples(page(held))
    groups = {dict(pairs)["step"]: number for (name, pairs), number in found.items() if name == "spinner_run_failures"}
    assert groups == {"step5": 5, "step4": 4, "other": 6}


def test_labels_that_a_runtime_makes_up_are_shown_and_not_all_of_them_are_cached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lines, "MAX_PAIRS", 3)
    lines._cached_pairs.cache_clear()
    held = store(Clock(NOON + 60))
    runs = [snapshot(f"run-{number}", trigger=f"trigger {number}") for number in range(9)]
    read_project(held, "p1", [(run, NOON + 60) for run in runs], as_of=NOON + 60, horizon=NOON)
    shown = [dict(pairs)["trigger"] for name, pairs in samples(page(held)) if name == "spinner_run_info"]
    assert sorted(shown) == [f"trigger {number}" for number in range(9)]
    assert len(lines._cached_pairs(("trigger", "parent_run_id"))) == 3


def test_of_failure_groups_of_the_same_size_the_same_ones_are_named_in_whichever_order_they_come() -> None:
    shown = []
    for order in ("abc", "cba"):
        held = store(Clock(NOON + 60), limits={"failure_groups": 2})
        failures = tuple(FailureCount(step, "E", 2) for step in order)
        run = snapshot(records=counts(failed=6), failures=failures)
        read_project(held, "p1", [(run, NOON + 60)], as_of=NOON + 60, horizon=NOON - 3600)
        found = samples(page(held))
        shown.append({dict(labels)["step"] for name, labels in found if name == "spinner_run_failures"})
    assert shown == [{"a", "b", "other"}] * 2


def test_failure_groups_with_the_same_labels_are_one_series() -> None:
    held = store(Clock(NOON + 60))
    failures = (FailureCount("send", "E", 2), FailureCount("send", "E", 3))
    read_project(held, "p1", [(snapshot(failures=failures), NOON + 60)], as_of=NOON + 60, horizon=NOON)
    assert value(samples(page(held)), "spinner_run_failures") == 5


@settings(max_examples=200)
@given(
    spinner=st.text(min_size=1, max_size=20),
    project=st.text(max_size=20),
    step=st.text(max_size=10),
    finished=st.integers(0, 2**53),
    total=st.integers(0, 2**53) | st.none(),
    start=st.floats(0, 4e9),
)
@pytest.mark.parametrize("page_format", [TEXT, OPENMETRICS], ids=str)
def test_the_parser_reads_any_label_and_number_as_it_was_written(
    page_format: Format, spinner: str, project: str, step: str, finished: int, total: int | None, start: float
) -> None:
    held = store(Clock(NOON + 60), projects={"p1": project})
    run = snapshot(
        spinner=spinner,
        started_at=start,
        records=counts(finished, total=total),
        failures=(FailureCount(step, "\\", 1),),
    )
    read_project(held, "p1", [(run, NOON + 60)], as_of=NOON + 60, horizon=NOON)
    found = samples(page(held, page_format), page_format)
    expected = {"project": project, "spinner": spinner, "run_id": "run-1"}
    assert value(found, "spinner_run_start_timestamp_seconds", **expected) == start
    assert value(found, "spinner_run_records", state="completed", **expected) == finished
    assert value(found, "spinner_run_failures", step=step, error_code="\\", **expected) == 1


@pytest.mark.parametrize(("length", "has_exemplar"), [(122, True), (123, False)])
def test_a_run_id_is_an_exemplar_if_openmetrics_allows_its_length(length: int, has_exemplar: bool) -> None:
    """Names and values of an exemplar's labels have 128 characters at most, and `run_id` has six."""
    assert bool(exemplar((NOON, 1.0, "r" * length), 0.0)) == has_exemplar


async def test_other_tasks_run_while_a_page_with_many_changes_is_rendered() -> None:
    clock = Clock(NOON + 3600)
    held = store(clock)
    many = 5 * RUNS_PER_SLICE
    read_project(held, "p1", [(snapshot(f"r{n}"), clock()) for n in range(many)], as_of=clock(), horizon=NOON)
    contexts = {RUNTIME: ScrapeContext(held, held.clock, api_up=True)}
    rendering = asyncio.create_task(exposition(clock).page(contexts))
    turns = 0
    while not rendering.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 4, f"a page of {many} runs is rendered in {turns} steps; see Exposition.page"
