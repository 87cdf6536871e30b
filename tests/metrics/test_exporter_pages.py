"""What the exporter's pages show from one sync to the next: first values, and what is not known yet."""

import httpx

from exporter.metrics.exporter_metrics import MAX_UNMAPPED_LABELS, ExporterMetrics
from exporter.metrics.exposition import Exposition
from exporter.service import Exporter
from tests.builders import NOON, Clock
from tests.metrics.test_exposition import Samples, value
from tests.metrics.test_exposition import samples as parsed
from tests.scripted import ScriptedRuntime, exporter_of


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


def test_the_config_has_no_reload_result_before_it_is_applied() -> None:
    own = ExporterMetrics(version="0", wall=Clock())
    name = "spinner_exporter_config_last_reload_successful"
    assert value(parsed(str(Exposition(own).render({}))), name) is None
    own.config_reloaded(ok=False)
    assert value(parsed(str(Exposition(own).render({}))), name) == 0


def test_the_last_snapshot_of_a_removed_runtime_is_removed_and_the_others_stay() -> None:
    clock = Clock(NOON)
    own = ExporterMetrics(version="0", wall=clock)
    for runtime in ("eu", "us"):
        own.of(runtime).sync_ended(1.0, ok=True)
    own.forget("eu")
    found = parsed(str(Exposition(own).render({})))
    name = "spinner_exporter_snapshot_timestamp_seconds"
    assert value(found, name, runtime="eu") is None
    assert value(found, name, runtime="us") == NOON


async def test_counters_about_the_exporter_start_at_zero() -> None:
    exporter = exporter_of(ScriptedRuntime(Clock()))
    found = await page(exporter)
    assert value(found, "spinner_exporter_storage_failures_total") == 0
    assert value(found, "spinner_exporter_runs_dropped_total", reason="limit") == 0
    assert value(found, "spinner_exporter_invalid_items_total", kind="record") == 0
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
