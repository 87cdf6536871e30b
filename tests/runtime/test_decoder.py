"""Decoding: bodies become values or errors, and an invalid item is skipped."""

import json
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.config import load
from exporter.config.api_description import Resource
from exporter.runtime import decoder as decoder_module
from exporter.runtime import labels, wire
from exporter.runtime.decoder import MALFORMED, Decoder, RunDefaults
from exporter.runtime.labels import CodeCache, LabelCache
from exporter.runtime.layout import Layout, NullListError, flat
from exporter.runtime.model import Project, RecordCounts
from exporter.runtime.statuses import StatusMap
from exporter.runtime.times import Once, is_time, means_none
from exporter.status import Status
from tests.builders import NOON, Clock, only_runtime, resources
from tests.metrics.test_exposition import samples, value
from tests.scripted import ScriptedRuntime, exporter_of

JOB: dict[str, Any] = {
    "id": "job-1",
    "projectId": "p1",
    "spinnerName": "Mails",
    "status": "in_progress",
    "createdAt": "2026-01-05T09:00:00Z",
    "updatedAt": "2026-01-05T10:00:00.250+01:00",
}


class Observer:
    def __init__(self) -> None:
        self.invalid: list[tuple[str, str]] = []
        self.implausible: list[tuple[str, str]] = []
        self.unmapped: list[str] = []
        self.items: list[tuple[str, int]] = []

    def decoded_items(self, kind: str, count: int) -> None:
        self.items.append((kind, count))

    def invalid_item(self, kind: str, reason: str, bug: Exception | None = None) -> None:
        self.invalid.append((kind, reason))

    def ignored_value(self, kind: str, field: str) -> None:
        self.implausible.append((kind, field))

    def unmapped_status(self, label: str) -> None:
        self.unmapped.append(label)


def decoder(observer: Observer | None = None) -> Decoder:
    return Decoder(StatusMap(), observer or Observer(), resources(), label_length=40)


def page(*items: Any, **envelope: Any) -> bytes:
    return json.dumps({"items": list(items), "nextCursor": None, "asOf": "2026-01-05T09:00:01Z", **envelope}).encode()


LISTS: dict[str, Callable[[list[Any]], bytes]] = {
    "jobs": lambda items: page(*items),
    "projects": lambda items: page(*items),
    "records": lambda items: page(*items),
    "failed_records": lambda items: page(*items),
    "usage": lambda items: json.dumps({"meters": items}).encode(),
}
"""The lists, and how each lays out its items."""


def test_a_job_with_the_required_fields_only_is_decoded() -> None:
    (run,) = decoder().jobs(page(JOB)).items
    assert (run.id, run.spinner, run.status) == ("job-1", "Mails", Status.RUNNING)
    assert (run.created_at, run.says_created) == (1767603600.0, True)
    assert run.updated_at == 1767603600.25
    assert (run.started_at, run.records, run.failures, run.parent_id) == (None, None, (), "")


def test_every_item_of_a_list_is_reported_valid_or_not() -> None:
    observer = Observer()
    decoding = decoder(observer)
    decoding.jobs(page(JOB, {"id": 5}, {**JOB, "id": ""}))
    decoding.projects(page({"id": "p1", "name": "Sales"}))
    decoding.records(page())
    decoding.failed_records(page({"id": "r1"}))
    decoding.usage(json.dumps({"meters": [{"name": "jobs_month", "used": 1}, {"name": "records_month"}]}).encode())
    assert observer.items == [("job", 3), ("project", 1), ("record", 0), ("record", 1), ("meter", 2)]
    assert [kind for kind, _ in observer.invalid] == ["job", "job", "meter"]


def test_null_fields_are_absent_and_unknown_fields_are_ignored() -> None:
    job = JOB | {"startedAt": None, "records": {"total": None, "completed": None}, "failures": None, "colour": "red"}
    (run,) = decoder().jobs(page(job)).items
    assert run.records is not None
    assert (run.records.total, run.records.completed, run.records.failed) == (None, None, None), "null is not 0"


@pytest.mark.parametrize(
    "damage",
    [
        {"id": None},
        {"id": ""},
        {"id": "a\nb"},
        {"id": ".."},
        {"id": "x" * 41},
        {"status": None},
        {"updatedAt": None},
        {"updatedAt": "2026-01-05T09:00:00"},
        {"updatedAt": 1767603600},
        {"createdAt": "yesterday"},
        {"startedAt": "soon", "records": {"completed": -1}},
        {"spinnerName": ["a"]},
    ],
)
def test_an_invalid_item_is_skipped_and_the_others_are_decoded(damage: dict[str, Any]) -> None:
    observer = Observer()
    jobs = [JOB | {"id": f"job-{number}"} for number in range(499)]
    listing = decoder(observer).jobs(page(*jobs, JOB | damage))
    assert len(listing.items) == 499
    assert [kind for kind, _ in observer.invalid] == ["job"]


def test_of_a_record_that_is_worked_on_what_is_no_number_is_unknown() -> None:
    observer = Observer()
    step = {"index": -1, "name": "call", "startedAt": JOB["createdAt"]}
    record = {"id": "r", "status": "running", "attempts": "many", "step": step}
    (found,) = decoder(observer).open_records(page(record), Status.RUNNING).items
    assert found is not None
    assert (found.step, found.step_number, found.attempts) == ("call", None, None)
    assert found.step_started_at is not None
    assert observer.implausible == [("record", "attempts"), ("record", "step.index")]


@pytest.mark.parametrize("name", [None, "", "\x00\x01"])
def test_a_project_or_a_run_whose_name_is_none_is_decoded_and_noted(name: str | None) -> None:
    observer = Observer()
    decoding = decoder(observer)
    for _ in range(2):
        listing = decoding.projects(page({"id": "p1", "name": name}, {"id": "p2", "name": "Support"}, {"id": "p3"}))
        assert [(each.id, each.name) for each in listing.items] == [("p1", ""), ("p2", "Support")]
        assert listing.skipped == 1
        (run,) = decoding.jobs(page(JOB | {"spinnerName": name}), RunDefaults("p1", "Sales")).items
        assert run.spinner == ""
    assert observer.implausible == [("project", "name"), ("job", "spinnerName")], "once each"


def test_of_described_projects_one_needs_a_name(tmp_path: Path) -> None:
    """Otherwise the description is wrong, and each would be called by its id."""
    file = tmp_path / "exporter.yml"
    fields = {"id": "key", "name": "title"}
    described = {"base_url": "http://a.test", "resources": {"projects": {"fields": fields}}}
    file.write_text(yaml.safe_dump({"runtime": described}))
    mapped = only_runtime(load(file, environ={})).runtime.resources
    decoding = Decoder(StatusMap(), Observer(), mapped, label_length=40)
    listing = decoding.projects(page({"key": "p1"}, {"key": "p2", "title": "Support"}))
    assert [each.name for each in listing.items] == ["", "Support"]
    with pytest.raises(ValueError, match="none of the 2 items has a name"):
        decoding.projects(page({"key": "p1"}, {"key": "p2", "label": "Support"}))


@pytest.mark.parametrize("read", LISTS)
def test_a_page_of_which_no_item_is_valid_cannot_be_used(read: str) -> None:
    """Also if there is only one: nothing shows that the others would be valid."""
    observer = Observer()
    for count in (1, 2):
        with pytest.raises(ValueError, match=f"none of the {count} items is valid: .*missing"):
            getattr(decoder(observer), read)(LISTS[read]([{"id2": "x", "used": 1}] * count))
    assert (len(observer.items), len(observer.invalid)) == (2, 3)
    getattr(decoder(), read)(LISTS[read]([]))


def test_records_without_a_status_cannot_be_counted() -> None:
    with pytest.raises(ValueError, match="none of the 2 items has a status"):
        decoder().records(page({"id": "r1"}, {"id": "r2", "status": None}))
    observer = Observer()
    found = decoder(observer).records(page({"id": "r1"}, {"id": "r2", "status": "done"})).items
    assert [record.status for record in found] == [Status.UNKNOWN, Status.COMPLETED]


def test_the_reason_for_skipping_an_item_does_not_quote_it() -> None:
    observer = Observer()
    with pytest.raises(ValueError, match="none of the 2 items is valid") as error:
        decoder(observer).jobs(page(JOB | {"updatedAt": "anna@example.com"}, JOB | {"id": "anna\n@example.com"}))
    assert len(observer.invalid) == 2
    assert "anna" not in repr(observer.invalid) + str(error.value)


def test_names_are_cleaned_and_truncated() -> None:
    (run,) = decoder().jobs(page(JOB | {"spinnerName": "A\x00B\n" + "x" * 1_000_000})).items
    assert run.spinner.startswith("A B ")
    assert len(run.spinner) <= 40
    assert run.spinner.isprintable()


def test_an_unknown_status_is_reported_and_the_run_is_kept() -> None:
    observer = Observer()
    (run,) = decoder(observer).jobs(page(JOB | {"status": "teleported"})).items
    assert run.status is Status.UNKNOWN
    assert observer.unmapped == ["teleported"]


def test_every_count_of_a_run_is_decoded_into_its_own_state() -> None:
    records = {"total": 63, "pending": 1, "running": 2, "waiting": 4, "completed": 8, "failed": 16}
    (run,) = decoder().jobs(page(JOB | {"records": records})).items
    assert run.records == RecordCounts(**records)


@pytest.mark.parametrize(("count", "known"), [(0, True), (2**53, True), (2**53 + 1, False), (-1, False)])
def test_a_count_is_a_number_that_a_sample_has_exactly(count: int, *, known: bool) -> None:
    (run,) = decoder().jobs(page(JOB | {"records": {"total": count}})).items
    assert run.records == RecordCounts(total=count if known else None)


async def test_every_count_of_a_run_arrives_unchanged_in_its_sample() -> None:
    records = {"pending": 1, "running": 2, "waiting": 4, "completed": 8, "failed": 16}
    runtime = ScriptedRuntime(Clock(NOON))
    runtime.put("run-1", records={"total": 63, **records})
    exporter = exporter_of(runtime)
    shown = samples(str(await exporter.page()))
    await exporter.close()
    assert {state: value(shown, "spinner_run_records", run_id="run-1", state=state) for state in records} == records


def test_records_have_their_status_and_only_unmapped_labels_are_reported() -> None:
    observer = Observer()
    sent = ["queued", "In Progress", "paused", "completed", "timed-out", "canceled", "teleported"]
    records = [{"id": f"r{number}", "status": label} for number, label in enumerate(sent)]
    observed = decoder(observer).records(page(*records)).items
    assert [record.status for record in observed] == [
        Status.QUEUED, Status.RUNNING, Status.WAITING, Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.UNKNOWN
    ]  # fmt: skip
    assert observer.unmapped == ["teleported"]


def test_a_description_s_statuses_apply_to_records_and_not_to_runs() -> None:
    observer = Observer()
    described = resources()
    assert described.records != "absent"
    own = msgspec.structs.replace(described.records, statuses={"fine": "completed", "paused": "failed"})
    decoding = Decoder(StatusMap(), observer, msgspec.structs.replace(described, records=own), label_length=40)
    observed = decoding.records(page({"id": "r1", "status": "Fine"}, {"id": "r2", "status": "paused"})).items
    assert [record.status for record in observed] == [Status.COMPLETED, Status.FAILED]
    (run, other) = decoding.jobs(page(JOB | {"status": "paused"}, JOB | {"id": "job-2", "status": "fine"})).items
    assert (run.status, other.status, observer.unmapped) == (Status.WAITING, Status.UNKNOWN, ["fine"])


def test_an_unmapped_status_is_reported_every_time() -> None:
    observer = Observer()
    decoding = decoder(observer)
    for _ in range(2):
        decoding.jobs(page(JOB | {"status": "teleported"}))
    assert observer.unmapped == ["teleported"] * 2


def test_the_caches_of_labels_and_statuses_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more spinners, triggers and statuses than are cached, and with names that are too long to be cached."""
    for module in (labels, decoder_module):
        monkeypatch.setattr(module, "MAX_LABELS", 20)
    decoding = decoder()
    for number in range(100):
        spelling = f"run{'-' * (number % 30)}ning"
        invented = {"id": f"job-{number}", "spinnerName": f"Spinner {number}", "status": spelling}
        (run,) = decoding.jobs(page(JOB | invented)).items
        assert (run.spinner, run.status) == (f"Spinner {number}", Status.RUNNING)
        decoding.jobs(page(JOB | {"status": f"unknown {number}", "trigger": f"{number}" + "x" * 10_000}))
        decoding.records(page({"id": "r", "status": f"odd {number}", "errorCode": f"E{number}"}))
    assert len(decoding._labels) == 20
    assert len(decoding._run_statuses) == 20


def test_a_text_too_long_for_a_label_is_not_cached() -> None:
    cache = LabelCache(10)
    assert cache["x" * 11] == "x" * 10
    assert [cache[text] for text in ("short", "x" * 10)] == ["short", "x" * 10]
    assert list(cache) == ["short", "x" * 10]


@pytest.mark.parametrize(
    ("text", "label"), [(" a ", " a "), ("a".ljust(10), "a".ljust(10)), ("a".ljust(11), "a"), ("\n a\t", "a")], ids=repr
)
def test_a_text_that_can_be_a_label_as_it_is_keeps_its_blanks(text: str, label: str) -> None:
    assert LabelCache(10)[text] == label


def test_a_spelling_too_long_for_a_label_is_understood_and_not_cached() -> None:
    decoding = decoder()
    for dashes in range(100):
        (run,) = decoding.jobs(page(JOB | {"status": f"running{'-' * dashes}"})).items
        assert run.status is Status.RUNNING
    assert max(map(len, decoding._run_statuses)) == 40


def test_an_error_message_is_not_decoded() -> None:
    record = {"id": "r1", "failedStep": {"index": 1, "type": "sms"}, "errorCode": "E1", "errorMessage": "+1 555 0100"}
    (failed,) = decoder().failed_records(page(record)).items
    assert (failed.id, failed.step, failed.error_code) == ("r1", "sms", "E1")
    assert "555" not in repr(failed)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("TIMEOUT", "TIMEOUT"),
        ("smtp.550-5.1.1", "smtp.550-5.1.1"),
        ("30007", "30007"),
        ("", ""),
        ("No answer from Ann Smith", "other"),
        ("ann@example.com", "other"),
        ("Ann\u00a0Smith", "other"),
        ("Ann\nSmith", "other"),
        ("+15550100555", "other"),
        ("(555)0100-555", "other"),
        ("no-answer:+15550100555", "other"),
        ("5550100555", "other"),
        ("A" * 40 + "@example.com", "A" * 40),
    ],
)
def test_what_is_no_code_is_other(text: str, shown: str) -> None:
    """People write what happened where a code belongs."""
    made = decoder()
    record = {"id": "r1", "errorCode": text}
    job = {**JOB, "trigger": text, "failures": [{"step": "Mail", "errorCode": text, "count": 1}]}
    # From the second time on it comes from a cache.
    for _ in range(2):
        assert made.failed_records(page(record)).items[0].error_code == shown
        (run,) = made.jobs(page(job)).items
        assert (run.trigger, run.failures[0].error_code) == (shown, shown)


def test_a_code_has_64_characters_at_most() -> None:
    codes = CodeCache(100)
    assert (codes["A" * 64], codes["A" * 65]) == ("A" * 64, "other")


def test_only_the_largest_groups_of_failures_are_kept() -> None:
    groups = [{"step": f"Step {number}", "errorCode": "E", "count": number} for number in range(1, 1001)]
    (run,) = decoder().jobs(page({**JOB, "failures": groups})).items
    assert [(each.step, each.count) for each in run.failures] == [
        *((f"Step {number}", number) for number in range(1000, 990, -1)),
        ("other", sum(range(1, 991))),
    ]


PERSONAL = [
    "ann@example.com",
    "+4915112345678",
    "+49 151 1234-5678",
    "tel:+49.151.12345678",
    "(555) 010-0555",
    "row 7 +1 (555) 0100-555",
]


@pytest.mark.parametrize("personal", PERSONAL)
def test_an_address_or_a_telephone_number_is_no_id_of_a_record(personal: str) -> None:
    record = {"id": personal, "status": "running"}
    made = decoder()
    (failed,), (running,) = (
        made.failed_records(page(record)).items,
        made.open_records(page(record), Status.RUNNING).items,
    )
    assert running is not None
    assert failed.id == running.id == made.records(page(record)).items[0].record.id
    assert re.fullmatch("hidden-[0-9a-f]{12}", failed.id)
    assert made.failed_records(page({"id": personal + "1"})).items[0].id != failed.id, "they stay apart"


@pytest.mark.parametrize(
    "item_id",
    [
        "5550100555", "004915112345678", "0000012345", "550e8400-e29b-41d4-a716-446655440000", "row-2025-11-24-000017",
        "scheduled__2025-11-24T16:00:00+00:00", "20251124T160000+0000", "send[12]", "a+b", "(1) 2025",
    ],
)  # fmt: skip
def test_any_other_id_of_a_record_is_shown(item_id: str) -> None:
    assert decoder().failed_records(page({"id": item_id})).items[0].id == item_id


@pytest.mark.parametrize("personal", [*PERSONAL, "dialing 015112345678", "0351/123456-78"])
def test_an_address_or_a_telephone_number_is_no_status_and_no_step(personal: str) -> None:
    observer = Observer()
    made = decoder(observer)
    text = f"to {personal}"
    made.jobs(page({**JOB, "status": text}, {**JOB, "status": "odd"}))
    made.records(page({"id": "r", "status": text}, {"id": "r2", "status": "completed"}))
    assert observer.unmapped == ["other", "odd", "other"]
    # From the second time on it comes from a cache.
    for _ in range(2):
        (run,) = made.jobs(page({**JOB, "failures": [{"step": text, "count": 1}]})).items
        (failed,) = made.failed_records(page({"id": "r", "failedStep": {"name": text}})).items
        (running,) = made.open_records(
            page({"id": "r", "status": "running", "step": {"name": text}}), Status.RUNNING
        ).items
        assert running is not None
        assert run.failures[0].step == failed.step == running.step == "other"


@pytest.mark.parametrize("step", ["Call (2nd try)", "SMS 24/7", "Wait 0.5 h", "Since 2025-11-24 16:00", "Route 1001"])
def test_any_other_step_is_shown(step: str) -> None:
    (failed,) = decoder().failed_records(page({"id": "r", "failedStep": {"name": step}})).items
    assert failed.step == step


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"<html>",
        b'{"items": [',
        b'{"items": null}',
        b'{"error": "no", "errorCode": "E"}',
        b"[" * 100_000,
        b'{"items": ' + b"[" * 100_000,
        b'{"items": [], "asOf": "now"}',
        b'{"items": [{"id": 1e400}], "asOf": 1e400}',
    ],
)
def test_a_body_that_is_not_a_list_is_rejected(body: bytes) -> None:
    with pytest.raises(MALFORMED):
        decoder().jobs(body)


@pytest.mark.parametrize(
    "odd",
    [b"NaN", b'{"id": "\xff"}', b'{"id": "a\\ud800"}', b'{"id": 1e400}', b"null", b'"run"', b'{"id": NaN}'],
    ids=repr,
)
def test_an_item_that_is_not_valid_json_or_not_an_object_is_skipped(odd: bytes) -> None:
    observer = Observer()
    good = json.dumps(JOB).encode()
    body = b'{"items": [' + odd + b", " + good + b'], "nextCursor": "2", "asOf": "2026-01-05T09:00:00Z"}'
    listing = decoder(observer).jobs(body)
    assert [run.id for run in listing.items] == [JOB["id"]]
    assert (listing.next_cursor, listing.size, len(observer.invalid)) == ("2", 2, 1)


@pytest.mark.parametrize(
    ("health", "up"),
    [
        ({"status": "ok", "runtime": {"status": "up", "lastHeartbeatAt": "2026-01-05T09:00:00Z", "workers": 4}}, True),
        ({"status": "degraded", "runtime": {"status": "up", "lastHeartbeatAt": "2026-01-05T09:00:00Z"}}, True),
        ({"runtime": {"status": "up", "lastHeartbeatAt": "2026-01-05T09:00:00Z"}}, True),
        ({"status": "ok", "runtime": {"status": "upgrading", "lastHeartbeatAt": "2026-01-05T09:00:00Z"}}, False),
        ({"status": "ok", "runtime": {"status": "starting", "lastHeartbeatAt": "2026-01-05T09:00:00Z"}}, False),
        ({"status": "down", "runtime": {"status": "up", "lastHeartbeatAt": "2026-01-05T09:00:00Z"}}, False),
        ({"status": "ok", "runtime": {"status": "up"}}, False),
        ({"status": "ok"}, False),
        ({"runtime": {"workers": 0}}, False),
        ({"runtime": None}, False),
    ],
)
def test_the_runtime_is_up_only_if_its_status_is_up_and_it_has_a_heartbeat(health: dict[str, Any], up: bool) -> None:
    assert decoder().health(json.dumps(health).encode()).runtime_up is up


@pytest.mark.parametrize(
    ("told", "workers"), [(0, 0), (4, 4), (4.0, 4), (2.5, None), (-0.5, None), (-1.0, None), (None, None)]
)
def test_the_number_of_workers_is_a_whole_one(told: float | None, workers: int | None) -> None:
    assert decoder().health(json.dumps({"runtime": {"status": "up", "workers": told}}).encode()).workers == workers


@pytest.mark.parametrize("body", [{}, {"error": "overloaded"}, {"status": None, "runtime": {}}])
def test_a_health_without_a_field_of_it_is_unknown_and_not_down(body: dict[str, Any]) -> None:
    with pytest.raises(MALFORMED, match="neither status nor runtime"):
        decoder().health(json.dumps(body).encode())


@pytest.mark.parametrize("preset", ["airflow", "dagster", "prefect"])
@pytest.mark.parametrize("body", [{}, {"detail": "overloaded"}, {"message": "overloaded"}, {"errors": ["overloaded"]}])
def test_a_health_of_another_system_without_a_field_of_it_is_unknown_too(
    preset: str, body: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(MALFORMED):
        of_preset(preset, tmp_path).health(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("preset", "body"),
    [
        ("airflow", {"scheduler": {"status": None, "latest_scheduler_heartbeat": None}}),
        ("airflow", {"scheduler": {"status": "unhealthy", "latest_scheduler_heartbeat": "2026-01-05T09:00:00Z"}}),
        ("prefect", False),
    ],
)
def test_a_worker_service_of_another_system_that_is_down_is_down(preset: str, body: Any, tmp_path: Path) -> None:
    assert not of_preset(preset, tmp_path).health(json.dumps(body).encode()).runtime_up


def of_preset(preset: str, folder: Path) -> Decoder:
    file = folder / "exporter.yml"
    file.write_text(f'runtime: {{preset: {preset}, base_url: "http://a.test"}}')
    return Decoder(StatusMap(), Observer(), only_runtime(load(file, environ={})).runtime.resources, label_length=40)


def test_a_meter_without_a_limit_is_unlimited_and_an_invalid_one_is_skipped() -> None:
    meters = [{"name": "spinners", "used": 3, "limit": None}, {"name": "jobs_month", "used": -1}]
    (meter,) = decoder().usage(json.dumps({"meters": meters}).encode())
    assert (meter.name, meter.limit) == ("spinners", None)


@pytest.mark.parametrize("field", ["used", "limit"])
@pytest.mark.parametrize(
    ("number", "is_valid"), [(0, True), (0.5, True), (-0.5, False), (math.inf, False), (math.nan, False)]
)
def test_what_is_used_of_a_plan_and_its_limit_are_finite_and_not_negative(
    field: str, number: float, *, is_valid: bool
) -> None:
    observer = Observer()
    meters = [{"name": "runs", "used": 1}, {"name": "spinners", "used": 1, field: number}]
    found = decoder(observer).usage(json.dumps({"meters": meters}).encode())
    assert [getattr(meter, field) for meter in found[1:]] == ([number] if is_valid else [])
    assert len(observer.invalid) == (not is_valid)


DAY = 86400.0
LONG = 50 * 365.25 * DAY
"""Seconds in the past in which a time can be, and in the future if it is one of something that is planned."""


def at(seconds: float) -> str:
    return datetime.fromtimestamp(NOON + seconds, UTC).isoformat()


@pytest.mark.parametrize(
    ("field", "attribute", "first", "last"),
    [
        ("startedAt", "started_at", -LONG, DAY),
        ("endedAt", "ended_at", -LONG, DAY),
        ("lastProgressAt", "last_progress_at", -LONG, DAY),
        ("updatedAt", "updated_at", -LONG, DAY),
        ("createdAt", "created_at", -LONG, DAY),
        ("dueAt", "due_at", -LONG, LONG),
        ("waitingUntil", "waiting_until", -LONG, LONG),
    ],
)
def test_a_time_may_be_fifty_years_old_or_a_day_ahead_and_no_more(
    field: str, attribute: str, first: float, last: float
) -> None:
    observer = Observer()
    decoding = Decoder(StatusMap(), observer, resources(), label_length=40, wall=lambda: NOON)

    def read(seconds: float) -> float | None:
        job = JOB | {"createdAt": at(-60), "updatedAt": at(-60), field: at(seconds)}
        (run,) = decoding.jobs(page(job, asOf=at(0)), RunDefaults("p1", now=NOON)).items
        found: float | None = getattr(run, attribute)
        return found

    assert [read(first), read(last)] == [NOON + first, NOON + last]
    assert observer.implausible == []
    assert NOON + first - 1 != read(first - 1)
    assert observer.implausible == [("job", field)]
    assert NOON + last + 1 != read(last + 1)


def test_a_field_of_the_contract_is_a_time_if_its_name_says_so() -> None:
    """Otherwise an empty text or a zero, which some systems write for no time, would cost the item."""
    structs = [each for each in vars(wire).values() if isinstance(each, type) and issubclass(each, wire.WireStruct)]
    fields = {field.encode_name: field.type for each in structs for field in msgspec.structs.fields(each)}
    times = {name for name, kind in fields.items() if wire.Time in (kind, *get_args(kind))}
    assert {"createdAt", "lastHeartbeatAt", "resetsAt"} <= times
    assert times == {name for name in fields if is_time(name)}


@pytest.mark.parametrize(("seconds", "is_right"), [(-LONG, True), (LONG, True), (-LONG - 1, False), (LONG + 1, False)])
def test_the_time_of_a_response_may_be_fifty_years_away_and_no_more(seconds: float, *, is_right: bool) -> None:
    observer = Observer()
    decoding = Decoder(StatusMap(), observer, resources(), label_length=40, wall=lambda: NOON)
    found = decoding.projects(page({"id": "p1", "name": "Sales"}, asOf=at(seconds)))
    assert found.as_of == (NOON + seconds if is_right else None)
    assert observer.implausible == ([] if is_right else [("project", "asOf")])


@pytest.mark.parametrize("seconds", [-LONG, DAY])
def test_a_time_of_a_record_may_be_as_old_or_as_far_ahead_as_one_of_a_run(seconds: float) -> None:
    observer = Observer()
    decoding = Decoder(StatusMap(), observer, resources(), label_length=40, wall=lambda: NOON)
    beyond = seconds + (1 if seconds > 0 else -1)

    def read(told: float) -> list[float | None]:
        record = {"id": "r", "status": "running", "endedAt": at(told), "startedAt": at(told)}
        body = page(record | {"step": {"name": "call", "startedAt": at(told)}}, asOf=at(0))
        (failed,) = decoding.failed_records(body).items
        (running,) = decoding.open_records(body, Status.RUNNING).items
        assert running is not None
        return [failed.ended_at, running.started_at, running.step_started_at]

    assert (read(seconds), observer.implausible) == ([NOON + seconds] * 3, [])
    assert read(beyond) == [None] * 3
    assert [field for _, field in observer.implausible] == ["endedAt", "startedAt", "step.startedAt"]


@pytest.mark.parametrize("told_by", ["the response", "its date", "nothing"])
def test_times_are_compared_with_the_runtime_s_clock_too(told_by: str) -> None:
    decoding = Decoder(StatusMap(), Observer(), resources(), label_length=40, wall=lambda: NOON)
    started, now = NOON + 3 * DAY, NOON + 2.5 * DAY
    job = JOB | {"createdAt": at(0), "updatedAt": at(0), "startedAt": at(3 * DAY)}
    body = page(job, asOf=at(2.5 * DAY) if told_by == "the response" else None)
    (run,) = decoding.jobs(body, RunDefaults("p1", now=now if told_by == "its date" else None)).items
    assert run.started_at == (None if told_by == "nothing" else started)


def test_a_meter_may_reset_in_fifty_years_and_not_later() -> None:
    decoding = Decoder(StatusMap(), Observer(), resources(), label_length=40, wall=lambda: NOON)
    told = {-LONG: NOON - LONG, LONG: NOON + LONG, -LONG - 1: None, LONG + 1: None}
    meters = [{"name": f"m{number}", "used": 1, "resetsAt": at(seconds)} for number, seconds in enumerate(told)]
    assert [each.resets_at for each in decoding.usage(json.dumps({"meters": meters}).encode())] == [*told.values()]


@pytest.mark.parametrize("count", [2, 10])
def test_as_many_groups_of_failures_as_are_kept_have_no_others(count: int) -> None:
    steps = [f"Step {number}" for number in range(1, count + 1)]
    groups = [{"step": step, "errorCode": "E", "count": number} for number, step in enumerate(steps)]
    (run,) = decoder().jobs(page({**JOB, "failures": groups})).items
    assert [each.step for each in run.failures] == steps


@pytest.mark.parametrize(("told", "spinner_id"), [(None, ""), ("s-1", "s-1"), (7, "7"), (0, "0")])
def test_a_spinner_has_the_id_that_a_run_tells(told: str | int | None, spinner_id: str) -> None:
    (run,) = decoder().jobs(page(JOB | {"spinnerId": told})).items
    assert run.spinner_id == spinner_id


@pytest.mark.parametrize(("index", "number"), [(None, None), (0, 1), (2, 3)])
def test_steps_are_numbered_from_1_on(index: int | None, number: int | None) -> None:
    record = {"id": "r", "status": "running", "step": {"index": index}}
    (found,) = decoder().open_records(page(record), Status.RUNNING).items
    assert found is not None
    assert found.step_number == number


def test_what_cannot_be_right_is_noted_of_each_project_s_run_although_their_ids_are_the_same() -> None:
    observer = Observer()
    odd = JOB | {"records": {"total": -1}}
    assert len(decoder(observer).jobs(page(odd, odd | {"projectId": "p2"}, odd), RunDefaults(None)).items) == 3
    assert observer.implausible == [("job", "records.total")] * 2


def test_a_record_that_does_not_have_the_requested_status_is_none_of_these() -> None:
    """Some APIs ignore a filter that they do not know."""
    records = [{"id": status, "status": status} for status in ("running", "waiting", "odd")]
    found = decoder().open_records(page(*records, {"id": "none"}), Status.RUNNING).items
    assert [each and each.id for each in found] == ["running", None, None, None]


def test_a_step_has_its_name_or_else_its_type() -> None:
    made = decoder()
    for step, shown in (({"name": "Send", "type": "sms"}, "Send"), ({"type": "sms"}, "sms"), ({}, ""), (None, "")):
        (failed,) = made.failed_records(page({"id": "r", "failedStep": step})).items
        (running,) = made.open_records(page({"id": "r", "status": "running", "step": step}), Status.RUNNING).items
        assert running is not None
        assert (failed.step, running.step) == (shown, shown)


def test_an_id_may_be_as_long_as_a_label() -> None:
    (run,) = decoder().jobs(page(JOB | {"id": "x" * 40})).items
    assert run.id == "x" * 40


@pytest.mark.parametrize(("length", "is_usable"), [(1000, True), (1001, False)])
def test_a_reference_has_a_greatest_length(tmp_path: Path, length: int, is_usable: bool) -> None:
    fields = {"id": "id", "status": "status", "spinnerName": "name", "createdAt": "at", "ref.shard": "shard"}
    job = {"id": "a", "status": "running", "name": "welcome", "at": "2026-01-05T09:00:00Z"}
    observer = Observer()
    decoding = described(fields, tmp_path, observer)
    found = decoding.jobs(page({**job, "shard": "x" * length}, {**job, "id": "b"})).items
    assert [(run.id, run.refs) for run in found] == [("a", (("shard", "x" * length),)), ("b", ())][not is_usable :]
    assert observer.invalid == ([] if is_usable else [("job", "ref: expected at most 1,000 characters")])


def test_a_run_of_a_list_of_all_projects_tells_a_project_that_a_path_can_have() -> None:
    observer = Observer()
    runs = [JOB, JOB | {"projectId": ".."}, JOB | {"projectId": None}]
    assert [run.project_id for run in decoder(observer).jobs(page(*runs), RunDefaults(None)).items] == ["p1"]
    assert [kind for kind, _ in observer.invalid] == ["job", "job"]


def test_what_a_list_of_the_failed_records_of_all_runs_says_about_its_pages_is_kept() -> None:
    described = resources()
    paging = {"style": "page", "parameter": "page", "more": "total_pages"}
    fields, changed = {"id": "id", "jobId": "run"}, {"query": {"after": "{since}"}}
    records = msgspec.convert({"path": "/failures", "fields": fields, "changed": changed, "paging": paging}, Resource)
    observer = Observer()
    decoding = Decoder(StatusMap(), observer, msgspec.structs.replace(described, records=records), label_length=40)
    found = decoding.failed_records_of_all_runs(
        page({"id": "r1", "run": "job-1"}, {"id": "r2"}, total_pages=3), has_others=False
    )
    assert [(each.run_id, each.record.id) for each in found.items] == [("job-1", "r1")]
    assert (found.pages, found.skipped, found.size) == (3, 1, 2)
    assert observer.invalid == [("record", "jobId: is missing")]


@pytest.mark.parametrize(
    ("date", "is_none"),
    [("1970-12-31", True), ("1971-01-01", False), ("8999-12-31", False), ("9000-01-01", True), ("-0001-01-01", True)],
)
def test_a_year_that_no_run_had_means_none(date: str, *, is_none: bool) -> None:
    assert means_none(date) is is_none


def test_a_list_in_the_contract_s_layout_needs_no_description_of_it() -> None:
    described = msgspec.structs.replace(resources(), projects=Resource("/projects"))
    decoding = Decoder(StatusMap(), Observer(), described, label_length=40, wall=lambda: NOON)
    found = decoding.projects(page({"id": "p1", "name": "Sales"}, nextCursor="2"))
    assert (found.as_of, found.next_cursor) == (1_767_603_601.0, "2")


@pytest.mark.parametrize(
    ("described", "names"),
    [
        ({"items": "data"}, {"items": "data"}),
        ({"items": "rows"}, {"items": "rows"}),
        ({"as_of": "a"}, {"asOf": "a"}),
        ({"as_of": "told"}, {"asOf": "told"}),
        *(
            ({"paging": {"style": "cursor", "parameter": "c", "next": name}}, {"nextCursor": name})
            for name in ("after", "where")
        ),
    ],
    ids=str,
)
def test_a_list_of_the_contract_s_items_can_be_laid_out_in_another_way(
    described: dict[str, Any], names: dict[str, str]
) -> None:
    projects = msgspec.convert({"path": "/projects", "as_of": "asOf", **described}, Resource)
    decoding = Decoder(
        StatusMap(), Observer(), msgspec.structs.replace(resources(), projects=projects), label_length=40
    )
    told = {"items": [{"id": "p1", "name": "Sales"}], "nextCursor": "2", "asOf": "2026-01-05T09:00:01Z"}
    found = decoding.projects(json.dumps({names.get(key, key): each for key, each in told.items()}).encode())
    assert [project.id for project in found.items] == ["p1"]
    assert (found.as_of, found.next_cursor) == (1_767_603_601.0, "2" if "paging" in described else None)


@pytest.mark.parametrize(
    ("described", "body", "error"),
    [
        ({"item": "found"}, {"found": JOB}, None),
        ({"item": "found"}, JOB, "nothing at found"),
        ({"gone": "deleted"}, {**JOB, "deleted": False}, None),
        ({"gone": "deleted"}, {**JOB, "deleted": True}, "gone, as deleted says"),
        ({"error": "failed"}, {**JOB, "failed": False}, None),
        ({"error": "failed"}, {**JOB, "failed": True}, "the response is an error, as failed says"),
    ],
    ids=str,
)
def test_a_single_run_with_the_contract_s_fields_can_be_described(
    described: dict[str, Any], body: dict[str, Any], error: str | None
) -> None:
    job = msgspec.convert({"path": "/jobs/{run}", **described}, Resource)
    decoding = Decoder(StatusMap(), Observer(), msgspec.structs.replace(resources(), job=job), label_length=40)
    if error is None:
        assert decoding.job(json.dumps(body).encode()).id == "job-1"
    else:
        with pytest.raises(ValueError, match=f"^{error}$"):
            decoding.job(json.dumps(body).encode())


def layout(**described: Any) -> Layout:
    return Layout("projects", msgspec.convert({"path": "/projects", "fields": {"id": "id"}, **described}, Resource))


@pytest.mark.parametrize(
    ("tree", "is_null"),
    [
        ({"found": {"rows": None}}, True),
        ({"found": {"rows": 5}}, False),
        ({"found": {}}, False),
        ({"found": None}, False),
        ({"found": [None]}, False),
        ({}, False),
        ([], False),
    ],
)
def test_null_is_no_list_and_is_told_from_what_has_no_list(tree: Any, is_null: bool) -> None:
    """Behind the last page, some servers respond with it."""
    with pytest.raises(ValueError, match=r"^(null instead of a|no) list at found\.rows$") as error:
        layout(items="found.rows").page(json.dumps(tree).encode())
    assert isinstance(error.value, NullListError) is is_null


@pytest.mark.parametrize(("total", "told"), [(7, 7), ("7", 7), (7.0, 7), (0, 0), (None, None)])
def test_the_number_of_all_items_is_read(total: Any, told: int | None) -> None:
    paging = {"style": "page", "parameter": "page", "total": "total"}
    body = json.dumps({"items": [], "total": total}).encode()
    assert layout(paging=paging).page(body).total == told


@pytest.mark.parametrize("total", [True, -1, "many", [], "1e400"])
def test_a_number_of_all_items_that_is_none_is_an_error(total: Any) -> None:
    paging = {"style": "page", "parameter": "page", "total": "total"}
    with pytest.raises(ValueError, match=r"paging\.total: expected a number of items"):
        layout(paging=paging).page(json.dumps({"items": [], "total": total}).encode())


@pytest.mark.parametrize(
    ("name", "told", "says"),
    [
        ("has_more_pages", "true", (True, None, None)),
        ("has_more_pages", True, (True, None, None)),
        ("has_more_pages", "no", (False, None, None)),
        ("total_pages", "3.0", (None, None, 3)),
        ("page.total", 7.0, (None, 7, None)),
        ("total", 1, (None, 1, None)),
        ("more", "", (False, None, None)),
        ("more", None, (None, None, None)),
    ],
)
def test_what_says_whether_there_is_another_page_is_a_flag_or_a_number(
    name: str, told: Any, says: tuple[bool | None, int | None, int | None]
) -> None:
    paging = {"style": "page", "parameter": "page", "more": name}
    tree: dict[str, Any] = {"items": [{"id": "a"}]}
    if "." in name:
        tree["page"] = {"total": told}
    else:
        tree[name] = told
    found = layout(paging=paging).page(json.dumps(tree).encode())
    assert (found.more, found.total, found.pages) == says


@pytest.mark.parametrize(("cursor", "shown"), [(2, "2"), (2.0, "2"), (1.5, "1.5"), ("2.0", "2.0")], ids=repr)
def test_a_cursor_may_be_a_number(cursor: Any, shown: str) -> None:
    paging = {"style": "cursor", "parameter": "after", "next": "next"}
    assert layout(paging=paging).page(json.dumps({"items": [], "next": cursor}).encode()).cursor == shown


def test_items_are_counted_although_a_part_of_the_expression_that_was_not_needed_does_not_fit() -> None:
    page = layout(items="rows || sort(others)").page(b'{"rows": [{"id": "a"}, {"id": "b"}]}')
    assert (page.items, page.count) == ([{"id": "a"}, {"id": "b"}], 2)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*JOB, "records", "failures", "x"]), inner)
    ),
    max_leaves=12,
)


FUZZED = decoder()


@settings(max_examples=300)
@given(anything, st.lists(anything, max_size=3))
def test_any_json_is_decoded_or_rejected(body: Any, items: list[Any]) -> None:
    for text in (json.dumps(body), json.dumps({"items": items}), json.dumps({"items": [JOB | {"records": body}]})):
        for decode in (FUZZED.jobs, FUZZED.projects, FUZZED.failed_records, FUZZED.health, FUZZED.usage):
            try:
                decode(text.encode("utf-8", "surrogatepass"))
            except MALFORMED:
                continue


def described(fields: dict[str, Any], folder: Path, observer: Observer | None = None) -> Decoder:
    """A decoder of an API whose runs have these fields only."""
    file = folder / "exporter.yml"
    resources = {"jobs": {"path": "/{project}/runs", "fields": fields}, "job": "absent", "records": "absent"}
    file.write_text(yaml.safe_dump({"runtime": {"base_url": "http://h", "resources": resources}}))
    (config,) = load(file, environ={}).runtimes.values()
    return Decoder(StatusMap(), observer or Observer(), config.runtime.resources, label_length=40)


def test_an_item_that_meets_a_bug_is_skipped_and_named_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def buggy(item_id: str, *more: Any) -> Any:
        return Project(item_id, *more) if item_id != "p1" else item_id / 0  # type: ignore[operator]

    monkeypatch.setattr(decoder_module, "Project", buggy)
    observer = Observer()
    decoding = decoder(observer)
    found = decoding.projects(page({"id": "p1", "name": "Sales"}, {"id": "p2", "name": "Support"}))
    assert ([each.id for each in found.items], found.skipped) == (["p2"], 1)
    ((kind, reason),) = observer.invalid
    assert kind == "project"
    assert re.fullmatch(r"unforeseen TypeError in test_decoder\.py:\d+", reason)
    with pytest.raises(ValueError, match=f"^none of the 1 items is valid: {re.escape(reason)}$"):
        decoding.projects(page({"id": "p1", "name": "Sales"}))


def test_the_explanation_of_a_response_has_the_others_if_an_item_meets_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def buggy(item: Any, fields: Any) -> dict[str, Any]:
        return flat(item, fields) if item["id"] != "job-1" else item["id"] / 0

    monkeypatch.setattr(decoder_module, "flat", buggy)
    report = decoder().explain("jobs", page(JOB, JOB | {"id": "job-2"}))
    assert [item["id"] for item in report.items] == ["job-2"]
    (skipped,) = report.skipped
    assert re.fullmatch(r"unforeseen TypeError in test_decoder\.py:\d+", skipped)


def test_a_value_that_cannot_be_right_is_counted_again_only_after_very_many_others() -> None:
    once = Once(2)
    assert [once.is_first("job", key) for key in "abacbdca"] == [True, True, False, True, False, True, False, True]


def test_a_run_without_the_time_of_its_last_change_gets_that_of_the_response_or_of_its_creation(
    tmp_path: Path,
) -> None:
    decoder = described({"id": "id", "status": "status", "spinnerName": "name", "createdAt": "at"}, tmp_path)
    body = page({"id": "a", "status": "running", "name": "welcome", "at": "2026-01-05T09:00:00Z"})
    (dated,) = decoder.jobs(body, RunDefaults(now=NOON)).items
    (undated,) = decoder.jobs(body).items
    assert (dated.updated_at, undated.updated_at) == (NOON, undated.created_at)


def test_a_run_without_a_creation_has_that_of_its_start_and_one_without_both_is_invalid(tmp_path: Path) -> None:
    observer = Observer()
    decoder = described({"id": "id", "status": "status", "spinnerName": "name", "startedAt": "at"}, tmp_path, observer)
    job = {"id": "a", "status": "running", "name": "welcome", "at": "2026-01-05T09:00:00Z"}
    (started,) = decoder.jobs(page(job)).items
    assert started.created_at == started.started_at == 1_767_603_600.0
    assert not started.says_created
    assert len(decoder.jobs(page(job, {**job, "at": None})).items) == 1
    assert observer.invalid == [("job", "createdAt: is missing")]


def test_a_run_without_a_spinner_has_the_name_of_its_project_and_without_both_is_invalid(tmp_path: Path) -> None:
    observer = Observer()
    decoder = described({"id": "id", "status": "status", "createdAt": "at"}, tmp_path, observer)
    body = page({"id": "a", "status": "running", "at": "2026-01-05T09:00:00Z"})
    (run,) = decoder.jobs(body, RunDefaults(project_id="p1", spinner="Flow")).items
    assert (run.spinner, run.project_id) == ("Flow", "p1")
    with pytest.raises(ValueError, match="is valid"):
        decoder.jobs(body)
    assert observer.invalid == [("job", "spinnerName: is missing")]
