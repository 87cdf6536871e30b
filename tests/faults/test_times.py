"""Times that mean none: in every time field of every resource they count as missing, and once as invalid."""

import json
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any

import msgspec
import pytest

from exporter.config import RuntimeConfig
from tests.builders import NOON, Clock, runtime_config
from tests.faults.bench import DAY, HOUR, bench
from tests.faults.server import Exchange, changes
from tests.metrics.test_exposition import value
from tests.scripted import ScriptedRuntime, rfc3339

NONE = (
    "0001-01-01T00:00:00Z",  # Go
    "0001-01-01T00:00:00",  # .NET
    "0000-00-00 00:00:00",  # MySQL
    "1970-01-01T00:00:00Z",
    "1969-12-31T19:00:00-05:00",
    "9999-12-31T23:59:59Z",
    "9999-12-31T23:59:59.9999999",
    "infinity",  # PostgreSQL
    "",
    0,
    -1,
    rfc3339(NOON + 3 * DAY),
    rfc3339(NOON - 60 * 365 * DAY),
)

FIELDS = ("createdAt", "startedAt", "endedAt", "updatedAt", "lastProgressAt")


@pytest.mark.parametrize("none", NONE)
@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("status", ["in_progress", "completed"])
async def test_a_time_of_a_run_that_means_none_counts_as_missing(field: str, none: object, status: str) -> None:
    async with bench() as made:
        runtime = made.runtime
        ended = NOON + 60 if status == "completed" else None
        runtime.clock.now = made.wall.now = NOON + 70
        runtime.put("r", status=status, endedAt=ended, updated_at=NOON + 65, records={"total": 10, "completed": 3})

        def spoil(page: object) -> None:
            for job in page["items"]:  # type: ignore[index]
                job[field] = none

        made.faulty.path, made.faulty.fault = "/p1/jobs", changes(spoil)
        for _ in range(3):
            shown = await made.next()
        assert value(shown, "spinner_exporter_invalid_items_total", kind="job") == 1, "counted once, not at each read"
        start = value(shown, "spinner_run_start_timestamp_seconds", run_id="r")
        assert start == (None if field == "startedAt" else NOON - 5)
        assert value(shown, "spinner_run_created_timestamp_seconds", run_id="r") == pytest.approx(
            NOON - 10, abs=5 if field == "createdAt" else 0
        )
        progress = value(shown, "spinner_run_last_progress_timestamp_seconds", run_id="r")
        assert progress is None or NOON <= progress <= NOON + 200
        if status == "completed":
            assert value(shown, "spinner_runs_finished_total", status="completed") == 1
            end = value(shown, "spinner_run_end_timestamp_seconds", run_id="r")
            assert end == (NOON + 65 if field == "endedAt" else NOON + 60)
            longest = value(shown, "spinner_run_finished_duration_seconds_sum")
            assert longest == (0 if field == "startedAt" else end - NOON + 5)
            made.play(2 * HOUR)
            for _ in range(3):
                shown = await made.next()
            assert value(shown, "spinner_run_status", run_id="r") is None, "it leaves after its retention"
            assert value(shown, "spinner_runs_finished_total", status="completed") == 1


@pytest.mark.parametrize("none", NONE)
async def test_a_heartbeat_that_means_none_is_no_heartbeat(none: object) -> None:
    async with bench() as made:
        made.runtime.health = {"runtime": {"status": "up", "workers": 2, "lastHeartbeatAt": none}}
        for _ in range(3):
            shown = await made.next()
        assert value(shown, "spinner_api_up") == 1
        assert value(shown, "spinner_runtime_up") == 0, "without a heartbeat it is not known to be up"
        assert value(shown, "spinner_runtime_last_heartbeat_timestamp_seconds") is None
        assert value(shown, "spinner_exporter_invalid_items_total", kind="health") == 1


@pytest.mark.parametrize("none", [*NONE[:11], rfc3339(NOON - 60 * 365 * DAY), rfc3339(NOON + 80 * 365 * DAY)])
async def test_the_reset_of_a_meter_that_means_none_counts_as_missing(none: object) -> None:
    async with bench() as made:
        meters = [{"name": "jobs_month", "used": 3, "limit": 10, "resetsAt": none}]
        made.faulty.path, made.faulty.fault = "/usage", changes(lambda page: page.update(meters=meters))
        for _ in range(3):
            shown = await made.next()
        assert value(shown, "spinner_plan_used", meter="jobs_month") == 3
        assert value(shown, "spinner_plan_reset_timestamp_seconds") is None
        assert value(shown, "spinner_exporter_invalid_items_total", kind="meter") == 1


async def test_a_meter_may_reset_in_a_year() -> None:
    async with bench() as made:
        meters = [{"name": "jobs_year", "used": 3, "limit": 10, "resetsAt": rfc3339(NOON + 365 * DAY)}]
        made.faulty.path, made.faulty.fault = "/usage", changes(lambda page: page.update(meters=meters))
        shown = await made.next()
        assert value(shown, "spinner_plan_reset_timestamp_seconds") == NOON + 365 * DAY


@pytest.mark.parametrize("converted", [False, True])
@pytest.mark.parametrize(
    "none",
    [
        *NONE[:11],
        rfc3339(NOON - 60 * 365 * DAY),
        rfc3339(NOON + 80 * 365 * DAY),
        "soon",
        "2026-01-05",
        "2026-01-05T12:00:00",
        ["2026-01-05T12:00:00Z"],
    ],
    ids=str,
)
async def test_a_due_time_that_is_none_counts_as_missing_and_costs_no_run(none: object, *, converted: bool) -> None:
    async with bench(runtime=lambda url: mapped_due(url, converted=converted)) as made:
        made.runtime.put("r", records={"total": 10, "completed": 3})
        made.runtime.put("other", dueAt=NOON + HOUR)

        def spoil(page: object) -> None:
            for job in page["items"]:  # type: ignore[index]
                if job["id"] == "r":
                    job["dueAt"] = none

        made.faulty.path, made.faulty.fault = "/p1/jobs", changes(spoil)
        for _ in range(3):
            shown = await made.next()
        assert value(shown, "spinner_run_status", run_id="r") == 1
        assert value(shown, "spinner_run_due_timestamp_seconds", run_id="r") is None
        assert value(shown, "spinner_run_due_timestamp_seconds", run_id="other") == NOON + HOUR
        assert value(shown, "spinner_exporter_invalid_items_total", kind="job") == 1, "counted once"


async def test_a_run_may_be_due_in_a_year() -> None:
    async with bench() as made:
        made.runtime.put("r", dueAt=NOON + 365 * DAY)
        shown = await made.next()
        assert value(shown, "spinner_run_due_timestamp_seconds", run_id="r") == NOON + 365 * DAY


def mapped_due(url: str, *, converted: bool) -> RuntimeConfig:
    """The contract, with `dueAt` as it is or described as an RFC 3339 time."""
    config = runtime_config(url)
    if not converted:
        return config
    names = ("id", "projectId", "spinnerName", "status", "createdAt", "startedAt", "endedAt", "updatedAt")
    fields = {**{name: name for name in names}, "dueAt": {"path": "dueAt", "convert": "rfc3339"}}
    jobs = msgspec.convert(
        {**msgspec.to_builtins(config.resources.jobs), "fields": fields}, type(config.resources.jobs)
    )
    return msgspec.structs.replace(config, resources=msgspec.structs.replace(config.resources, jobs=jobs))


@pytest.mark.parametrize("none", NONE)
async def test_the_end_of_a_record_that_means_none_counts_as_missing(none: object) -> None:
    async with bench() as made:
        made.runtime.put("r", records={"total": 10, "completed": 3, "failed": 1})
        made.runtime.failed_records["r"] = [{"id": "broken", "status": "failed", "failedStep": {"name": "Send"}}]
        made.faulty.path = "/records"
        made.faulty.fault = changes(lambda page: page["items"][0].update(endedAt=none))
        for number in range(3):
            made.runtime.put("r", records={"total": 10, "completed": 3, "failed": 1 + number})
            shown = await made.next()
        assert value(shown, "spinner_run_failed_record_info", record_id="broken", step="Send") == 1
        assert value(shown, "spinner_exporter_invalid_items_total", kind="record") == 1


@pytest.mark.parametrize("none", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "1970-01-01T00:00:00Z", "", 0])
async def test_a_time_of_a_response_that_means_none_is_replaced_by_its_date(none: object) -> None:
    async with bench() as made:
        made.runtime.put("r", records={"total": 10, "completed": 3})
        made.faulty.fault = changes(lambda page: page.update(asOf=none) if "asOf" in page else None)
        for number in range(3):
            made.runtime.put("r", records={"total": 10, "completed": 3 + number})
            shown = await made.next()
            assert value(shown, "spinner_api_up") == value(shown, "spinner_project_up") == 1
            assert value(shown, "spinner_run_records", run_id="r", state="completed") == 3 + number
            assert value(shown, "spinner_runtime_clock_offset_seconds") == 0


CONVERSIONS = [
    *[("epoch_s", none) for none in (0, -1, "0", "", -62135596800, 253402300799, 2**63 - 1, 1e300)],
    *[("epoch_ms", none) for none in (0, -1, "", -62135596800000, 253402300799000, 2**63 - 1)],
    *[("local", none) for none in ("", "0001-01-01T00:00:00", "0001-01-01", "9999-12-31T23:59:59", "0000-00-00", 0)],
    *[("rfc3339", none) for none in NONE],
]


def mapped(url: str, convert: str | None, zone: str = "UTC", *, every: bool = False) -> RuntimeConfig:
    """The contract, but `startedAt` has another format, or `every` time."""
    config = runtime_config(url)
    names = ("id", "projectId", "spinnerName", "status", "createdAt", "endedAt", "updatedAt")
    fields = {name: name for name in names} | {
        "records.total": "records.total",
        "records.completed": "records.completed",
    }
    times = ("createdAt", "startedAt", "endedAt", "updatedAt") if every else ("startedAt",)
    sources = {name: {"path": name, "convert": convert, "zone": zone} for name in times}
    jobs = msgspec.convert(
        {**msgspec.to_builtins(config.resources.jobs), "fields": {**fields, **sources}},
        type(config.resources.jobs),
    )
    return msgspec.structs.replace(config, resources=msgspec.structs.replace(config.resources, jobs=jobs))


@pytest.mark.parametrize(("convert", "none"), CONVERSIONS)
async def test_a_converted_time_that_means_none_counts_as_missing(convert: str, none: object) -> None:
    async with bench(runtime=lambda url: mapped(url, convert)) as made:
        made.runtime.put("r")

        def spoil(page: object) -> None:
            for job in page["items"]:  # type: ignore[index]
                job["startedAt"] = none

        made.faulty.path, made.faulty.fault = "/p1/jobs", changes(spoil)
        for _ in range(3):
            shown = await made.next()
        assert value(shown, "spinner_run_status", run_id="r") == 1
        assert value(shown, "spinner_run_start_timestamp_seconds") is None
        assert value(shown, "spinner_exporter_invalid_items_total", kind="job") == 1


@pytest.mark.parametrize("year", [1970, 1980])
async def test_a_server_that_has_no_clock_dates_nothing(year: int) -> None:
    """Its header Date is that of its start: a run that was read by it would be 50 years old, and never stalled."""
    date = formatdate((year - 1970) * 365.25 * DAY, usegmt=True)

    async def undated(exchange: Exchange) -> None:
        document = {key: each for key, each in exchange.document.items() if key != "asOf" or dates_bodies}
        await exchange.send(json.dumps(document).encode(), headers={"Date": date, "ETag": ""})

    dates_bodies = True
    async with bench(fault=undated) as made:
        made.runtime.put("r", records={"total": 10, "completed": 3})
        shown = await made.next()
        assert value(shown, "spinner_runtime_clock_offset_seconds") == 0
        assert made.problems == []
        dates_bodies = False
        made.runtime.put("r", records={"total": 10, "completed": 4})
        shown = await made.next()
    assert value(shown, "spinner_project_up") == 0, "without any time, what has changed cannot be asked for"
    assert value(shown, "spinner_runtime_clock_offset_seconds") == 0
    assert value(shown, "spinner_run_created_timestamp_seconds", run_id="r") == NOON - 10


SECOND = "2016-12-31T23:59:60Z"


@pytest.mark.parametrize("field", ["asOf", "createdAt", "startedAt", "updatedAt", "lastProgressAt"])
@pytest.mark.parametrize("described", [None, "", "rfc3339"], ids=["contract", "described", "converted"])
async def test_a_leap_second_is_a_time(field: str, described: str | None) -> None:
    """RFC 3339 has it, and golang/go#77072 and `datetime` do not."""
    leap = datetime(2017, 1, 1, tzinfo=UTC).timestamp()

    def leaping(page: Any) -> None:
        for part in [page] if field == "asOf" else page["items"]:
            part[field] = SECOND

    runtime = runtime_config if described is None else lambda url: mapped(url, described or None, every=True)
    async with bench(ScriptedRuntime(Clock(leap)), runtime=runtime, fault=changes(leaping), path="/p1/jobs") as made:
        made.runtime.put("r", createdAt=leap - 9, startedAt=leap - 8, records={"total": 10, "completed": 3})
        shown = await made.next(2)
    assert made.problems == []
    start = value(shown, "spinner_run_start_timestamp_seconds", run_id="r")
    assert start == (leap - 1 if field == "startedAt" else leap - 8)
