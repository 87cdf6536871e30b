"""The preset `temporal` with a double of its HTTP API (see temporal_double.py): not with Temporal itself."""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporter.config import load
from exporter.service import Exporter
from exporter.service.monitored_runtime import Dependencies
from tests.builders import Clock
from tests.connecting.server import NOW, serving
from tests.connecting.temporal_double import PREFIX, Temporal

EXPECTED = {
    "RUNNING": "running",
    "COMPLETED": "completed",
    "FAILED": "failed",
    "CANCELED": "cancelled",
    "TERMINATED": "cancelled",
    "CONTINUED_AS_NEW": "completed",
    "TIMED_OUT": "failed",
}
"""What each status is shown as; `PAUSED` is in a test of its own."""

CAMEL = {label: "".join(part.title() for part in label.split("_")) for label in EXPECTED}
"""The statuses as older servers write them."""


@pytest.fixture
def temporal() -> Temporal:
    return Temporal("sales", "support")


@pytest.fixture
async def exporter(temporal: Temporal, tmp_path: Path) -> AsyncIterator[Exporter]:
    with serving(temporal.app()) as url:
        file = tmp_path / "exporter.yml"
        # This is all that a user writes.
        file.write_text(f"runtime: {{preset: temporal, base_url: '{url}'}}")
        settings = load(file, environ={"SPINNER_EXPORTER_SYNC_MIN_INTERVAL": "0s"})
        made = Exporter(settings.runtimes, Dependencies(wall=lambda: NOW, monotonic=Clock()))
        yield made
        await made.close()


async def samples(exporter: Exporter) -> dict[tuple[str, ...], float]:
    """Read once; return samples by name and the values of their labels."""
    return {
        (sample.name, *(value for key, value in sorted(sample.labels.items()) if key != "runtime")): sample.value
        for family in text_string_to_metric_families(str(await exporter.page(max_wait=30)))
        for sample in family.samples
    }


def statuses(shown: dict[tuple[str, ...], float]) -> dict[str, str]:
    """Return the status of each run by its id."""
    return {key[2]: key[4] for key, value in shown.items() if key[0] == "spinner_run_status" and value == 1}


@pytest.mark.parametrize("spelling", ["new", "old"])
async def test_every_status_is_shown_of_every_namespace(temporal: Temporal, exporter: Exporter, spelling: str) -> None:
    for namespace in ("sales", "support"):
        for label, status in EXPECTED.items():
            close = None if status == "running" else NOW - 30
            written = PREFIX + label if spelling == "new" else CAMEL[label]
            temporal.put(namespace, f"{namespace}-{label}", "Remind", written, NOW - 90, close=close)
    shown = await samples(exporter)
    assert shown["spinner_api_up",] == 1
    assert statuses(shown) == {
        f"{namespace}-{label}": status for namespace in ("sales", "support") for label, status in EXPECTED.items()
    }
    for namespace in ("sales", "support"):
        assert shown["spinner_run_duration_seconds", namespace, f"{namespace}-TIMED_OUT", "Remind"] == 60
        counts = Counter(EXPECTED.values())
        found = {status: shown["spinner_runs", namespace, "Remind", status] for status in counts}
        assert found == counts
    assert not [key for key in shown if "temporal-system" in key]


async def test_nothing_is_shown_that_the_api_does_not_tell(temporal: Temporal, exporter: Exporter) -> None:
    temporal.put("sales", "r1", "Remind", PREFIX + "RUNNING", NOW - 90)
    shown = await samples(exporter)
    assert statuses(shown) == {"r1": "running"}
    absent = ("spinner_run_progress_ratio", "spinner_run_records", "spinner_runtime_up", "spinner_plan_used")
    assert not [key for key in shown if key[0] in absent]
    assert not [key for key in shown if key[0] == "spinner_run_stall_threshold_seconds"]


async def test_a_run_that_ends_is_counted_once(temporal: Temporal, exporter: Exporter) -> None:
    temporal.put("sales", "r1", "Remind", PREFIX + "RUNNING", NOW - 90)
    await samples(exporter)
    temporal.put("sales", "r1", "Remind", PREFIX + "FAILED", NOW - 90, close=NOW - 1)
    for _ in range(2):
        shown = await samples(exporter)
        assert shown["spinner_runs_finished_total", "sales", "Remind", "failed"] == 1
    assert not [query for query in temporal.queries if query.startswith("RunId")]


async def test_a_paused_run_waits_and_one_that_was_deleted_leaves(temporal: Temporal, exporter: Exporter) -> None:
    for run in ("paused", "deleted"):
        temporal.put("sales", run, "Remind", PREFIX + "RUNNING", NOW - 90)
    await samples(exporter)
    temporal.put("sales", "paused", "Remind", PREFIX + "PAUSED", NOW - 90)
    temporal.namespaces["sales"] = [
        each for each in temporal.namespaces["sales"] if each["status"] != PREFIX + "RUNNING"
    ]
    shown = await samples(exporter)
    assert statuses(shown) == {"paused": "waiting"}
    assert shown["spinner_exporter_runs_dropped_total", "gone"] == 1


async def test_children_and_schedules_are_told(temporal: Temporal, exporter: Exporter) -> None:
    temporal.put("sales", "parent", "Campaign", PREFIX + "RUNNING", NOW - 90, schedule="nightly")
    temporal.put("sales", "child", "Call", PREFIX + "RUNNING", NOW - 80, parent="parent")
    temporal.put("sales", "other", "Call", PREFIX + "RUNNING", NOW - 80)
    shown = await samples(exporter)
    told = {key[3]: (key[1], key[5]) for key in shown if key[0] == "spinner_run_info"}
    assert told == {"parent": ("", "schedule"), "child": ("parent", "child"), "other": ("", "api")}


async def test_all_pages_are_read(temporal: Temporal, exporter: Exporter) -> None:
    temporal.page_size = 2
    for number in range(5):
        temporal.put("support", f"r{number}", "Remind", PREFIX + "RUNNING", NOW - 90)
    shown = await samples(exporter)
    assert shown["spinner_runs", "support", "Remind", "running"] == 5
    assert shown["spinner_project_up", "sales"] == 1, "an empty list is one"


@pytest.mark.parametrize("instead", [{"code": 7, "message": "no"}, {"html": "login"}, []])
async def test_what_is_no_list_is_an_error_and_not_an_empty_one(
    temporal: Temporal, exporter: Exporter, instead: Any
) -> None:
    temporal.put("sales", "r1", "Remind", PREFIX + "RUNNING", NOW - 90)
    await samples(exporter)
    temporal.instead = instead
    shown = await samples(exporter)
    assert shown["spinner_api_up",] == 0
    assert statuses(shown) == {"r1": "running"}, "the last good data stay"
