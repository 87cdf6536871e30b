"""The example config of docs/connecting.md, with a server whose API differs from the contract in every way."""

import re
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from exporter.config import load
from exporter.service import Exporter
from exporter.service.monitored_runtime import Dependencies
from tests.builders import Clock
from tests.connecting.server import EPOCH, NOW, TOKEN, OddRuntime, contact, serving
from tests.stack.programs import ROOT

EXAMPLES = [
    textwrap.dedent(text)
    for text in re.findall(r"```yaml\n( *runtime:.+?)```", (ROOT / "docs" / "connecting.md").read_text(), re.DOTALL)
]
EXAMPLE: dict[str, Any] = yaml.safe_load(max(EXAMPLES, key=len))


@pytest.fixture
def odd() -> OddRuntime:
    return OddRuntime()


@pytest.fixture
async def exporter(odd: OddRuntime, tmp_path: Path) -> AsyncIterator[Exporter]:
    (tmp_path / "token").write_text(TOKEN)
    with serving(odd.app()) as url:
        tree = {**EXAMPLE, "sync": {"min_interval": "0s"}, "retention": "30d"}
        tree["runtime"] = {
            **EXAMPLE["runtime"],
            "base_url": f"{url}/automation",
            "token_file": str(tmp_path / "token"),
        }
        (tmp_path / "exporter.yml").write_text(yaml.safe_dump(tree))
        made = Exporter(
            load(tmp_path / "exporter.yml", environ={}).runtimes, Dependencies(wall=lambda: NOW, monotonic=Clock())
        )
        yield made
        await made.close()


async def samples(exporter: Exporter) -> dict[tuple[str, str], float]:
    """Read once, and return the samples by name and labels, without the project."""
    page = str(await exporter.page(max_wait=30))
    return {
        (
            sample.name,
            "/".join(value for name, value in sorted(sample.labels.items()) if name not in ("runtime", "project")),
        ): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


@pytest.mark.parametrize("text", EXAMPLES, ids=range(len(EXAMPLES)))
async def test_every_example_is_a_valid_config(text: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "login").write_text("{}")
    text = re.sub(r"token_file: \S+", f"token_file: {tmp_path / 'token'}", text)
    text = re.sub(r"body_file: \S+", f"body_file: {tmp_path / 'login'}", text)
    (tmp_path / "exporter.yml").write_text(text)
    await Exporter(load(tmp_path / "exporter.yml", environ={}).runtimes).close()


async def test_every_described_field_is_read(exporter: Exporter) -> None:
    shown = await samples(exporter)
    assert shown["spinner_api_up", ""] == 1
    assert shown["spinner_runtime_up", ""] == 1
    assert shown["spinner_runtime_last_heartbeat_timestamp_seconds", ""] == NOW - 5
    assert shown["spinner_runtime_workers", ""] == 3
    statuses = ("running", "waiting", "queued", "completed", "failed")
    for number, status in enumerate(statuses, start=1):
        assert shown["spinner_run_status", f"e/{number}/Flow {number}/{status}"] == 1
    # 17:00:10 in Berlin is 16:00:10 UTC.
    assert shown["spinner_run_start_timestamp_seconds", "e/1/Flow 1"] == EPOCH + 10
    assert ("spinner_run_start_timestamp_seconds", "e/3/Flow 3") not in shown
    records = {state: shown["spinner_run_records", f"e/1/Flow 1/{state}"] for state in STATES}
    assert records == {"pending": 1, "running": 1, "waiting": 1, "completed": 1, "failed": 1}
    assert shown["spinner_run_failures", "TIMEOUT/e/1/Flow 1/Send"] == 1
    assert ("spinner_run_failed_record_info", "TIMEOUT/2/e/1/Flow 1/Send") in shown
    assert shown["spinner_run_last_progress_timestamp_seconds", "e/1/Flow 1"] == EPOCH + 360
    assert not [name for name, _ in shown if name.startswith("spinner_plan")], "usage is absent"


async def test_the_end_of_a_run_is_its_start_plus_its_duration(exporter: Exporter) -> None:
    shown = await samples(exporter)
    ended = {run: value for (name, run), value in shown.items() if name == "spinner_run_end_timestamp_seconds"}
    assert ended == {"e/4/Flow 4": EPOCH + 610, "e/5/Flow 5": EPOCH - 86400 + 10 + 86430.5}


async def test_records_that_change_without_their_run_are_counted_again(exporter: Exporter, odd: OddRuntime) -> None:
    await samples(exporter)
    odd.contacts["e/1"][2] = contact(3, "fine", done="2025-11-24T16:59:00Z")
    shown = await samples(exporter)
    assert shown["spinner_run_records", "e/1/Flow 1/completed"] == 2
    assert shown["spinner_run_records", "e/1/Flow 1/running"] == 0
    assert shown["spinner_run_last_progress_timestamp_seconds", "e/1/Flow 1"] == EPOCH + 3540


async def test_records_that_cannot_be_decoded_leave_the_counts_of_their_run(
    exporter: Exporter, odd: OddRuntime
) -> None:
    before = await samples(exporter)
    rename(odd, "e/1")
    shown = await samples(exporter)
    assert counts_of(shown) == counts_of(before)
    assert error_of(exporter, "Workspace 1") is None, "the records of other runs could be read"
    rename(odd, "e/2")
    rename(odd, "e/3")
    shown = await samples(exporter)
    assert counts_of(shown) == counts_of(before)
    assert "none of the 2 items has a status" in (error_of(exporter, "Workspace 1") or "")


async def test_records_whose_labels_have_no_mapping_are_in_no_state(exporter: Exporter, odd: OddRuntime) -> None:
    odd.contacts["e/1"] = [each | {"phase": "elsewhere"} for each in odd.contacts["e/1"]]
    odd.contacts["e/2"].append(contact(10, "elsewhere"))
    shown = await samples(exporter)
    states = {labels: value for labels, value in counts_of(shown).items() if labels.startswith(("e/1", "e/2"))}
    expected = {"pending": 0, "running": 0, "waiting": 1, "completed": 0, "failed": 0}
    assert states == {f"e/2/Flow 2/{state}": value for state, value in expected.items()}
    totals = [shown["spinner_run_total_records", f"e/{number}/Flow {number}"] for number in (1, 2)]
    assert totals == [5, 2]


def rename(odd: OddRuntime, run: str) -> None:
    """Rename the field that says how each of a run's records is."""
    odd.contacts[run] = [
        {("stage" if key == "phase" else key): each[key] for key in each} for each in odd.contacts[run]
    ]


def error_of(exporter: Exporter, project: str) -> str | None:
    (monitored,) = exporter.runtimes.values()
    return next(each.error for each in monitored.store.view.projects() if each.name == project)


def counts_of(shown: dict[tuple[str, str], float]) -> dict[str, float]:
    return {labels: value for (name, labels), value in shown.items() if name == "spinner_run_records"}


async def test_the_number_of_records_is_no_total_where_it_is_unknown(odd: OddRuntime, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    odd.contacts["e/1"] = [contact(1, "fine", done="2025-11-24T16:05:00Z")]
    with serving(odd.app()) as url:
        tree = yaml.safe_load(yaml.safe_dump(EXAMPLE))
        tree["runtime"] |= {"base_url": f"{url}/automation", "token_file": str(tmp_path / "token")}
        tree["sync"], tree["retention"] = {"min_interval": "0s"}, "30d"
        for total in ("unknown", None):
            if total:
                tree["runtime"]["resources"]["jobs"]["fields"]["records.total"] = total
            else:
                del tree["runtime"]["resources"]["jobs"]["fields"]["records.total"]
            (tmp_path / "exporter.yml").write_text(yaml.safe_dump(tree))
            settings = load(tmp_path / "exporter.yml", environ={})
            made = Exporter(settings.runtimes, Dependencies(wall=lambda: NOW, monotonic=Clock()))
            shown = await samples(made)
            await made.close()
            ratios = {run: ratio for (name, run), ratio in shown.items() if name == "spinner_run_progress_ratio"}
            totals = {run for name, run in shown if name == "spinner_run_total_records"}
            assert shown["spinner_run_records", "e/1/Flow 1/completed"] == 1
            if total:
                assert ratios == {"e/4/Flow 4": 1, "e/5/Flow 5": 1}, "those that have ended"
                assert totals == ratios.keys()
            else:
                assert ratios["e/1/Flow 1"] == 1
                assert len(totals) == 5


async def test_the_records_of_an_ended_run_are_read_once(exporter: Exporter, odd: OddRuntime) -> None:
    await samples(exporter)
    odd.requests.clear()
    await samples(exporter)
    counted = {path.split("/")[-2] for path, _ in odd.requests if path.endswith("/contacts")}
    assert counted == {"e\N{DIVISION SLASH}1", "e\N{DIVISION SLASH}2", "e\N{DIVISION SLASH}3"}


async def test_all_pages_of_every_paging_style_are_read(exporter: Exporter, odd: OddRuntime) -> None:
    shown = await samples(exporter)
    assert sum(name == "spinner_project_up" for name, _ in shown) == 1, "the samples here have no project label"
    assert [path for path, _ in odd.requests].count("/automation/workspaces") == 3, "page numbers, two items per page"
    bodies = [body for path, body in odd.requests if path.endswith("search") and body["workspace"] == "w1"]
    changed = [body["page"]["skip"] for body in bodies if "touchedAfter" in body["filter"]]
    active = [body["page"]["skip"] for body in bodies if "states" in body["filter"]]
    assert (changed, active) == ([0, 2, 4], [0, 2]), "offsets, two items per page, until a page is not full"
    contacts = [path for path, _ in odd.requests if path.endswith("1/contacts")]
    assert len(contacts) >= 3, "links, of which only the query is used and never the host"


async def test_a_run_that_is_missing_from_the_list_is_requested_by_a_path_with_references(
    exporter: Exporter, odd: OddRuntime
) -> None:
    await samples(exporter)
    first = odd.executions[0]
    # It ended without a newer time of change: only a sweep notices that it is no longer active.
    odd.executions[0] = {**first, "state": "OK", "t": {**first["t"], "took": "0:00:20"}}
    exporter._dependencies.monotonic.advance(121)  # type: ignore[attr-defined]
    shown = await samples(exporter)
    assert "/automation/executions/s\N{DIVISION SLASH}1/e\N{DIVISION SLASH}1" in [path for path, _ in odd.requests]
    assert shown["spinner_run_end_timestamp_seconds", "e/1/Flow 1"] == EPOCH + 30


STATES = ("pending", "running", "waiting", "completed", "failed")
