"""What the exporter's pages show from one sync to the next: first values, and what is not known yet."""

import platform
import re
from pathlib import Path

import httpx
import msgspec
import pytest
import structlog
import yaml

from exporter.config import Duration, SpinnerConfig, StallsConfig, load
from exporter.metrics import catalogue
from exporter.metrics.catalogue import ScrapeContext
from exporter.metrics.exporter_metrics import MAX_UNMAPPED_LABELS, ExporterMetrics
from exporter.metrics.exposition import Exposition
from exporter.metrics.formats import OPENMETRICS
from exporter.service import Exporter
from exporter.service.monitored_runtime import Dependencies
from tests.builders import NOON, RUNTIME, Clock
from tests.metrics.test_exposition import Samples, value
from tests.metrics.test_exposition import parsed as families_of
from tests.metrics.test_exposition import samples as parsed
from tests.scripted import ScriptedRuntime, exporter_of, no_sleep, rfc3339
from tests.transport import FakeTransport


async def page(exporter: Exporter) -> Samples:
    return parsed(str(await exporter.page()))


async def test_the_last_snapshot_and_the_projects_over_the_limit_have_no_sample_before_the_first_good_read() -> None:
    clock = Clock(NOON)
    runtime = ScriptedRuntime(clock)
    runtime.interfere = lambda request: httpx.Response(401)
    exporter = exporter_of(runtime)
    before = await page(exporter)
    assert value(before, "spinner_api_up") == 0
    assert value(before, "spinner_exporter_snapshot_timestamp_seconds") is None, "time() minus 0 would be 56 years"
    assert value(before, "spinner_exporter_projects_not_read") is None
    runtime.interfere = lambda request: None
    clock.advance(600)
    after = await page(exporter)
    assert value(after, "spinner_exporter_snapshot_timestamp_seconds") == clock()
    assert value(after, "spinner_exporter_projects_not_read") == 0
    read_at = clock()
    runtime.interfere = lambda request: httpx.Response(401)
    clock.advance(600)
    failed = await page(exporter)
    assert value(failed, "spinner_exporter_snapshot_timestamp_seconds") == read_at, "a failed read gave a new snapshot"
    await exporter.close()


async def test_the_settings_that_rules_compare_with_are_metrics_and_follow_a_reload() -> None:
    exporter = exporter_of(ScriptedRuntime(Clock(NOON)))
    names = ("spinner_runtime_heartbeat_timeout_seconds", "spinner_exporter_stale_after_seconds")
    found = await page(exporter)
    assert [value(found, name, runtime=RUNTIME) for name in names] == [180, 300]
    config = exporter.runtimes[RUNTIME].config
    runtime = msgspec.structs.replace(config.runtime, heartbeat_timeout=Duration(1800))
    sync = msgspec.structs.replace(config.sync, stale_after=Duration(60))
    await exporter.reload({RUNTIME: msgspec.structs.replace(config, runtime=runtime, sync=sync)})
    found = await page(exporter)
    assert [value(found, name, runtime=RUNTIME) for name in names] == [1800, 60]
    await exporter.close()


@pytest.mark.parametrize(
    ("health", "has_timeout"),
    [
        (None, True),
        ("absent", False),
        ({"runtime.status": "state"}, False),
        ({"runtime.status": "state", "runtime.lastHeartbeatAt": "beat"}, True),
    ],
)
def test_the_heartbeat_timeout_is_absent_where_there_are_no_heartbeats(
    health: dict[str, str] | str | None, has_timeout: bool, tmp_path: Path
) -> None:
    described = {"path": "/health", "fields": health} if isinstance(health, dict) else health
    resources = {} if health is None else {"resources": {"health": described}}
    file = tmp_path / "exporter.yml"
    file.write_text(yaml.safe_dump({"runtime": {"base_url": "http://runtime.test", **resources}}))
    exporter = Exporter(load(file, environ={}).runtimes)
    context = exporter.runtimes[RUNTIME]
    held = context.store
    found = parsed(str(Exposition(exporter.own).render({RUNTIME: ScrapeContext(held, held.clock, api_up=False)})))
    assert (value(found, "spinner_runtime_heartbeat_timeout_seconds") is not None) == has_timeout


def test_the_version_is_the_label_of_an_info_that_is_one() -> None:
    found = parsed(str(Exposition(ExporterMetrics(version="1.2.3", wall=Clock())).render({})))
    assert value(found, "spinner_exporter_build_info", version="1.2.3", python=platform.python_version()) == 1


async def test_the_offset_of_the_runtime_s_clock_is_shown_once_it_is_known() -> None:
    clock, own = Clock(NOON), Clock(NOON + 5 * 3600)
    runtime = ScriptedRuntime(clock)
    runtime.interfere = lambda request: httpx.Response(500)
    exporter = exporter_of(runtime, own)
    assert value(await page(exporter), "spinner_runtime_clock_offset_seconds") is None
    runtime.interfere = lambda request: None
    own.advance(60)
    clock.advance(60)
    assert value(await page(exporter), "spinner_runtime_clock_offset_seconds") == -5 * 3600
    await exporter.close()


async def test_every_sample_has_the_labels_that_the_catalogue_names() -> None:
    """Rules and dashboards are checked against them."""
    runtime = ScriptedRuntime(Clock(NOON))
    runtime.put(records={"total": 9, "completed": 3}, status="teleported")
    exporter = exporter_of(runtime)
    labels = {name: set(of_family) for name, of_family in catalogue.names().items()}
    shown: dict[str, set[str]] = {}
    for full, pairs in await page(exporter):
        name = full if full in labels else re.sub("_(bucket|count|sum|created)$", "", full)
        if name.startswith("spinner_"):
            shown.setdefault(name, set()).update(dict(pairs).keys() - {"le"})
    assert shown == {name: labels[name] for name in shown}
    assert {name for name in labels if name.startswith("spinner_exporter_")} <= shown.keys()
    await exporter.close()


@pytest.mark.parametrize("only", ["/projects", "/jobs"])
async def test_the_clock_is_known_from_any_list(only: str) -> None:
    """Other responses may be cached, or come from another server."""
    clock, own = Clock(NOON), Clock(NOON + 3600)
    runtime = ScriptedRuntime(clock)

    def untimed(request: httpx.Request) -> httpx.Response | None:
        if request.url.path.endswith(only) or not request.url.path.endswith(("/projects", "/jobs")):
            return None
        return httpx.Response(200, json={"items": [{"id": "p1", "name": "Sales"}]})

    runtime.interfere = untimed
    exporter = exporter_of(runtime, own)
    assert value(await page(exporter), "spinner_runtime_clock_offset_seconds") == -3600
    await exporter.close()


@pytest.mark.parametrize("ahead", [-5 * 3600.0, 90.0, 86400.0 * 3])
async def test_all_timestamps_are_by_our_clock(ahead: float) -> None:
    """With another clock the runtime gives other times, and the page shows the same."""
    same, other = [await timestamps(NOON + offset) for offset in (0.0, ahead)]
    expected = {name for name in catalogue.names() if name.endswith("_timestamp_seconds")}
    assert {name for name, _ in same} == expected, "the scenario does not have all timestamps"
    assert other == same
    assert {number for (name, _), number in same.items() if name == "spinner_last_start_timestamp_seconds"} == {NOON}


class SlowRuntime(ScriptedRuntime):
    """Sets the time of each response nine seconds before it arrives."""

    def transport(self) -> FakeTransport:
        def answer(request: httpx.Request) -> httpx.Response:
            response = self._answer(request)
            self.clock.advance(9)
            return response

        return FakeTransport(answer)


async def test_slow_responses_do_not_make_the_runtime_s_clock_seem_behind() -> None:
    exporter = exporter_of(SlowRuntime(Clock(NOON)))
    for _ in range(3):  # the last ones are 304 with the header Date
        found = await page(exporter)
        assert value(found, "spinner_runtime_clock_offset_seconds") == 0
    await exporter.close()


async def test_the_duration_of_syncs_and_requests_is_observed() -> None:
    exporter = exporter_of(SlowRuntime(Clock(NOON)))
    for syncs in (1, 2):
        found = await page(exporter)
        assert value(found, "spinner_exporter_sync_duration_seconds_count") == syncs
        assert syncs * 2 * 9 <= (value(found, "spinner_exporter_sync_duration_seconds_sum") or 0) <= syncs * 10 * 9
        assert value(found, "spinner_exporter_upstream_request_duration_seconds_count", resource="health") == syncs
        assert (
            value(found, "spinner_exporter_upstream_request_duration_seconds_sum", resource="health") or 0
        ) >= syncs * 9
    await exporter.close()


async def test_restored_timestamps_are_absent_while_the_runtime_s_clock_is_unknown(tmp_path: Path) -> None:
    """They are by its clock, which may be hours off."""
    clock = Clock(NOON)
    runtime = ScriptedRuntime(clock)
    runtime.put()
    config = exporter_of(runtime).runtimes[RUNTIME].config
    for is_down in (False, True):
        runtime.interfere = lambda request, is_down=is_down: httpx.Response(500) if is_down else None  # type: ignore[misc]
        dependencies = Dependencies(clock, clock, runtime.transport(), no_sleep)
        exporter = Exporter({RUNTIME: config}, dependencies, storage=tmp_path)
        found = await page(exporter)
        assert value(found, "spinner_runs_started_total", spinner="welcome") == 1
        last_start = value(found, "spinner_last_start_timestamp_seconds", spinner="welcome")
        assert last_start == (None if is_down else NOON - 5)
        await exporter.close()


async def timestamps(runtime_time: float) -> Samples:
    """The timestamps of a page; the exporter's clock shows noon when the runtime's shows `runtime_time`."""
    clock, own = Clock(runtime_time), Clock(NOON)
    runtime = ScriptedRuntime(clock)
    for number, status in enumerate(["in_progress", "completed"]):
        runtime.put(
            f"run-{number}",
            status=status,
            createdAt=runtime_time - 20,
            startedAt=runtime_time - 10 * number,
            endedAt=runtime_time + 15 if status == "completed" else None,
            lastProgressAt=runtime_time + 5,
            dueAt=runtime_time + 3600,
            records={"running": 1, "waiting": 1} if status == "in_progress" else None,
        )
    runtime.put("run-2", status="queued", createdAt=runtime_time - 20, startedAt=None, waitingUntil=runtime_time + 1800)
    meter = {"name": "jobs_month", "used": 1, "limit": None, "resetsAt": rfc3339(runtime_time + 86400)}
    usage = {"plan": "pro", "meters": [meter]}
    runtime.interfere = lambda request: httpx.Response(200, json=usage) if request.url.path.endswith("/usage") else None
    step = {"index": 1, "name": "send", "startedAt": runtime_time + 8}
    runtime.records_in_flight["run-0"] = [{"id": "rec-1", "startedAt": runtime_time + 6, "step": step, "attempts": 2}]
    runtime.waiting_records["run-0"] = [{"id": "rec-2", "step": step}]
    exporter = exporter_of(
        runtime,
        own,
        spinners=(SpinnerConfig(expected_interval=Duration(60)),),
        stalls=StallsConfig(floor=Duration(10)),
    )
    clock.advance(30)
    own.advance(30)
    text = str(await exporter.page(OPENMETRICS))
    await exporter.close()
    exemplars = [
        float(sample.exemplar.timestamp)
        for family in families_of(text, OPENMETRICS).values()
        for sample in family.samples
        if sample.exemplar
    ]
    assert sorted(exemplars) == [NOON - 10, NOON, NOON + 15]
    shown = parsed(text, OPENMETRICS)
    return {key: number for key, number in shown.items() if key[0].endswith("_timestamp_seconds")}


async def test_meters_of_which_none_can_be_decoded_are_withdrawn_when_they_are_stale() -> None:
    """They are not an empty list, which would remove them at once."""
    clock = Clock(NOON)
    runtime = ScriptedRuntime(clock)
    items = [{"name": "jobs_month", "used": 12, "limit": 500}]

    def usage(request: httpx.Request) -> httpx.Response | None:
        return httpx.Response(200, json={"meters": items}) if request.url.path.endswith("/usage") else None

    runtime.interfere = usage
    exporter = exporter_of(runtime)
    assert value(await page(exporter), "spinner_plan_used", meter="jobs_month") == 12
    items = [{"name": "jobs_month", "consumed": 499, "limit": 500}]
    with structlog.testing.capture_logs() as lines:
        for seconds, used in ((15, 12), (290, None)):
            clock.advance(seconds)
            found = await page(exporter)
            assert value(found, "spinner_plan_used", meter="jobs_month") == used
    assert value(found, "spinner_exporter_invalid_items_total", kind="meter") == 2
    assert [line["what"] for line in lines if line["event"] == "cannot read"] == ["usage"]
    items = []
    clock.advance(15)
    assert value(await page(exporter), "spinner_plan_used", meter="jobs_month") is None
    await exporter.close()


async def test_items_are_counted_valid_or_not() -> None:
    runtime = ScriptedRuntime(Clock(NOON))
    runtime.put("run-1", status="completed")
    runtime.put("run-2", status="completed", spinnerName=None)
    exporter = exporter_of(runtime)
    found = await page(exporter)
    items, invalid = "spinner_exporter_items_total", "spinner_exporter_invalid_items_total"
    assert (value(found, items, kind="job"), value(found, invalid, kind="job")) == (2, 1)
    assert (value(found, items, kind="project"), value(found, invalid, kind="project")) == (1, 0)
    assert (value(found, items, kind="meter"), value(found, invalid, kind="meter")) == (0, 0)
    await exporter.close()


def test_the_config_has_no_reload_result_before_it_is_applied() -> None:
    own = ExporterMetrics(version="0", wall=Clock())
    name = "spinner_exporter_config_last_reload_successful"
    assert value(parsed(str(Exposition(own).render({}))), name) is None
    own.config_reloaded(ok=False)
    assert value(parsed(str(Exposition(own).render({}))), name) == 0


def test_each_list_that_was_due_and_each_run_that_was_dropped_counts_once() -> None:
    own = ExporterMetrics(version="0", wall=Clock())
    metrics = own.of("eu")
    metrics.records_in_flight("read")
    metrics.waiting_records("read")
    metrics.run_dropped("limit")
    found = parsed(str(Exposition(own).render({})))
    for name in ("records_in_flight_reads", "waiting_records_reads"):
        assert value(found, f"spinner_exporter_{name}_total", runtime="eu", result="read") == 1
    assert value(found, "spinner_exporter_runs_dropped_total", runtime="eu", reason="limit") == 1


def test_the_last_snapshot_of_a_removed_runtime_is_removed_and_the_others_stay() -> None:
    clock = Clock(NOON)
    own = ExporterMetrics(version="0", wall=clock)
    for runtime in ("eu", "us"):
        own.of(runtime).sync_ended(1.0, ok=True)
    own.forget("eu")
    found = parsed(str(Exposition(own).render({})))
    name = "spinner_exporter_snapshot_timestamp_seconds"
    assert value(found, name, runtime="eu") is None
    assert value(found, name, runtime="us") == NOON - 1, "it is as old as its requests"


async def test_counters_about_the_exporter_start_at_zero() -> None:
    exporter = exporter_of(ScriptedRuntime(Clock()))
    found = await page(exporter)
    assert value(found, "spinner_exporter_storage_failures_total") == 0
    assert value(found, "spinner_exporter_runs_dropped_total", reason="limit") == 0
    for kind in ("health", "job", "meter", "project", "record"):
        assert value(found, "spinner_exporter_invalid_items_total", kind=kind) == 0
    assert value(found, "spinner_exporter_config_last_reload_successful") == 1
    await exporter.close()


async def test_a_new_project_shows_zeros_on_its_first_page_and_its_counts_on_the_next() -> None:
    """Without the zeros, increase() would never see the first run."""
    clock = Clock(NOON)
    runtime = ScriptedRuntime(clock)
    runtime.put("run-1")
    exporter = exporter_of(runtime)
    await page(exporter)
    clock.advance(15)
    runtime.projects["p2"] = "Support"
    runtime.put("run-2", projectId="p2", status="failed", endedAt=NOON + 10)
    counts = []
    for _ in range(2):
        found = await page(exporter)
        counts.append(
            (
                value(found, "spinner_runs_finished_total", project="Support", status="failed"),
                value(found, "spinner_runs_started_total", project="Support"),
                value(found, "spinner_run_finished_duration_seconds_count", project="Support"),
            )
        )
        clock.advance(15)
    assert counts == [(0, 0, 0), (1, 1, 1)]
    await exporter.close()


async def test_status_labels_that_a_runtime_invents_are_counted_by_name_up_to_a_limit() -> None:
    runtime = ScriptedRuntime(Clock())
    for number in range(MAX_UNMAPPED_LABELS + 30):
        runtime.put(f"run-{number}", status=f"odd {number}")
    exporter = exporter_of(runtime)
    found = await page(exporter)
    counted = {dict(pairs)["label"]: number for (name, pairs), number in found.items() if name == UNMAPPED}
    assert len(counted) == MAX_UNMAPPED_LABELS + 1, "every label has its own series: they would fill the memory"
    others = counted.pop("other")
    assert others == 30 * min(counted.values())
    await exporter.close()


UNMAPPED = "spinner_exporter_unmapped_status_total"
