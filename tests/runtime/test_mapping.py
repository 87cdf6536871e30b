"""API descriptions: conversion of values, requests, and the errors for invalid descriptions."""

import math
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from exporter.config import load
from exporter.config.api_description import FieldSource, Resource
from exporter.errors import ApiError, ConfigError
from exporter.runtime import mapping as mapping_module
from exporter.runtime.endpoint import Endpoint
from exporter.runtime.mapping import ItemMapping, compiled, sources
from exporter.runtime.times import NONE
from exporter.service import Exporter
from tests.builders import only_runtime
from tests.stack.programs import ROOT


def mapped(item: Any, **fields: Any) -> dict[str, Any]:
    """Map an item with these fields, written as in a config."""
    names = {name.replace("__", "."): source for name, source in fields.items()}
    return ItemMapping("jobs", msgspec.convert({"path": "/", "fields": names}, Resource))(item)


@pytest.mark.parametrize(
    ("source", "value", "expected"),
    [
        ({"path": "t", "convert": "rfc3339"}, "2026-01-05T10:00:00+01:00", "2026-01-05T09:00:00+00:00"),
        ({"path": "t", "convert": "epoch_s"}, 1767603600, "2026-01-05T09:00:00+00:00"),
        ({"path": "t", "convert": "epoch_s"}, "1767603600.5", "2026-01-05T09:00:00.500000+00:00"),
        ({"path": "t", "convert": "epoch_ms"}, 1767603600250, "2026-01-05T09:00:00.250000+00:00"),
        (
            {"path": "t", "convert": "local", "zone": "Europe/Berlin"},
            "2026-01-05 10:00:00",
            "2026-01-05T09:00:00+00:00",
        ),
        (
            {"path": "t", "convert": "local", "zone": "Europe/Berlin"},
            "2026-07-05T10:00:00",
            "2026-07-05T08:00:00+00:00",
        ),
        ({"path": "t", "convert": "local", "zone": "Europe/Berlin"}, "2026-01-05T10:00Z", "2026-01-05T10:00:00+00:00"),
        # The clocks go from 2:00 to 3:00.
        (
            {"path": "t", "convert": "local", "zone": "Europe/Berlin"},
            "2026-03-29T02:30:00",
            "2026-03-29T01:30:00+00:00",
        ),
    ],
)
def test_times_are_converted_from_every_format(source: dict[str, str], value: Any, expected: str) -> None:
    (found,) = mapped({"t": value}, createdAt=source).values()
    assert found.astimezone(UTC).isoformat() == expected


@pytest.mark.parametrize(
    ("convert", "value", "seconds"),
    [
        ("seconds", 90, 90),
        ("seconds", 0, 0),
        ("milliseconds", "1500", 1.5),
        ("clock", "1:02:03.5", 3723.5),
        ("clock", "2 days, 0:00:01", 172801),
    ],
)
def test_a_duration_is_added_to_its_start(convert: str, value: Any, seconds: float) -> None:
    # The end comes before the start, because the order of keys in YAML has no meaning.
    ended = {"path": "took", "convert": convert, "after": "startedAt"}
    found = mapped({"took": value, "t": 1000}, endedAt=ended, startedAt={"path": "t", "convert": "epoch_s"})
    assert found["endedAt"] == datetime.fromtimestamp(1000 + seconds, UTC)


def test_a_duration_without_a_start_has_no_value() -> None:
    ended = {"path": "took", "convert": "seconds", "after": "startedAt"}
    assert mapped({"took": 5}, endedAt=ended) == {}


def test_fields_are_nested_labels_replaced_and_numbers_in_text_fields_become_text() -> None:
    found = mapped(
        {"key": 17, "s": "OK", "n": {"done": 3.0}},
        id="key",
        status={"path": "s", "labels": {"OK": "completed"}},
        trigger={"value": "api"},
        records__completed="n.done",
        records__failed="n.broken",
        ref__shard="key",
    )
    assert found == {
        "id": "17",
        "status": "completed",
        "trigger": "api",
        "records": {"completed": 3},
        "ref": {"shard": "17"},
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.5, "1.5"),
        (7, "7"),
        (123456789012345.0, "123456789012345"),
        (999999999999999.0, "999999999999999"),
        (1e15, "1000000000000000.0"),
        (-7.0, "-7"),
        (1e22, "1e+22"),
        (math.inf, None),
        (-math.inf, None),
        (math.nan, None),
        ([], None),
        ({"a": 1}, None),
    ],
)
def test_a_text_is_a_text_or_a_number_and_otherwise_nothing(value: Any, text: str | None) -> None:
    assert mapped({"name": value}, spinnerName="name").get("spinnerName") == text


@pytest.mark.parametrize(("value", "expected"), [(True, "running"), (False, "completed")])
def test_labels_of_true_and_false_are_written_as_in_json(value: bool, expected: str) -> None:
    labels = {"true": "running", "false": "completed"}
    assert mapped({"busy": value}, status={"path": "busy", "labels": labels}) == {"status": expected}
    earlier = {str(key).capitalize(): label for key, label in labels.items()}
    assert mapped({"busy": value}, status={"path": "busy", "labels": earlier}) == {"status": expected}
    assert mapped({"busy": value}, status="busy") == {"status": str(value).lower()}


@pytest.mark.parametrize(
    ("labels", "value", "expected"),
    [
        ({True: "up", False: "down"}, True, "up"),
        ({True: "up", False: "down"}, False, "down"),
        ({True: "up", False: "down"}, "false", "down"),
        # YAML reads `on` and `no` without quotes as booleans.
        ({True: "up", False: "down"}, "on", "up"),
        ({True: "up", False: "down"}, "no", "down"),
        ({True: "up", "on": "down"}, "on", "down"),
        ({None: "queued"}, None, "queued"),
        ({None: "queued", "*": "running"}, None, "queued"),
        ({"*": "running"}, None, None),
        ({"*": "running"}, "x", "running"),
        ({"a": "failed", "*": "running"}, "a", "failed"),
        ({"a": "failed", "*": "running"}, 5, "running"),
        ({5: "failed", 1.5: "queued"}, 5, "failed"),
        ({5: "failed", 1.5: "queued"}, 5.0, "failed"),
        ({5: "failed", 1.5: "queued"}, "1.5", "queued"),
        ({"a": "failed"}, "b", "b"),
    ],
)
def test_keys_of_labels_are_what_json_has(labels: dict[Any, str], value: Any, expected: str | None) -> None:
    found = mapped({"s": value}, status={"path": "s", "labels": labels})
    assert found == ({} if expected is None else {"status": expected})


@pytest.mark.parametrize(
    ("field", "pattern", "value", "expected"),
    [
        ("records.completed", r"(?P<value>\d+)/\d+", "45/120", 45),
        ("records.total", r"\d+/(?P<total>\d+)", "45/120", 120),
        ("records.completed", r"^(?P<value>[\d.]+)%$", "37.5%", 37),
        ("records.completed", r"(?P<value>\d+) of (?P<rest>\d+)", "step 3 of 9", 3),
        ("records.completed", r"^(?P<value>[\d.]+)%$", "1.2.3%", "1.2.3"),
        ("records.completed", r"(?P<value>\d+)/\d+", "unknown", None),
        ("records.completed", r"(?P<value>\d+)/\d+", None, None),
        ("records.completed", r"(?P<value>\w+)/\d+", "inf/9", math.inf),
        ("records.completed", r"(?P<value>\d+)", 12, 12),
        ("records.completed", r"(?P<value>\d+)", ["1"], None),
        ("records.completed", r"(?P<value>\d+)", "1" * 101, None),
        ("id", r"(?P<value>1+)", "1" * 100, "1" * 100),
        ("records.completed", r"(?P<value>\d+)?x", "x", None),
        ("id", r"runs/(?P<value>\w+)$", "https://api.example.com/runs/a7", "a7"),
        ("status", r"(?P<value>\w+):", "FAILED: sorry", "FAILED"),
    ],
)
def test_a_pattern_takes_a_part_of_a_text(field: str, pattern: str, value: Any, expected: Any) -> None:
    found = mapped({"v": value}, **{field: {"path": "v", "pattern": pattern}})
    for key in field.split("."):
        found = found.get(key, {}) if isinstance(found, dict) else found
    assert (found or None) == expected


def test_a_pattern_comes_before_labels_and_converters() -> None:
    found = mapped(
        {"s": "state=OK;", "began": "2026-01-05T10:00:00Z", "took": "98.3s", "end": "at 1767607200!"},
        status={"path": "s", "pattern": "=(?P<value>[A-Z]+)", "labels": {"OK": "completed", "*": "failed"}},
        startedAt={"path": "began", "convert": "rfc3339"},
        endedAt={"path": "took", "pattern": r"(?P<value>[\d.]+)s", "convert": "seconds", "after": "startedAt"},
        updatedAt={"path": "end", "pattern": r"(?P<value>\d+)", "convert": "epoch_s"},
    )
    assert found["status"] == "completed"
    assert (found["endedAt"] - found["startedAt"]).total_seconds() == 98.3
    assert found["updatedAt"].timestamp() == 1767607200


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?P<value>(a+)+)$", r"(?P<value>(?:a|ab)*)$", r"(?P<value>(\d+\s*)*)x", r"(?P<value>([a-z]{1,50}){1,50})$",
        r".*.*.*(?P<value>.*)x", "a?" * 30 + "(?P<value>a)", r"(?P<value>\d+)\d+\d+\d+\d+\d+\d+",
        r"(?P<value>((a?){30}){30})",
        r"\d+", r"(?P<a>\d+)/(?P<b>\d+)", r"(?P<value>", r"(?P<value>[^a]+[^b]+.*.*)", r"x{1,3}" * 9 + "(?P<value>a)",
        r"(?=.*.*.*)(?P<value>.)", r"(?!(a+)+)(?P<value>.)", r"(?P<value>.*.*(?=.*)x)", r"(?P<value>.)(?=(?:ab|c)*)",
        r"(?P<value>(?>(a+)+)b)", r"(?P<value>(?:x{1,3})+)y", r"(?P<value>x{1,5}x{1,5}x{1,5})x",
        # Three repetitions that what follows can match too: the last character of a range, letters of either case, what
        # is behind something that can be empty, and any of some alternatives.
        r"[a-z]+z[a-z]+z[a-z]+z(?P<value>x)", r"[ -\x7f]+\x7f[ -\x7f]+\x7f[ -\x7f]+\x7f(?P<value>x)",
        r"\x80+\x80+\x80+(?P<value>\x80)", r"[~-\x80]+\xe9[~-\x80]+\xe9[~-\x80]+\xe9(?P<value>x)",
        r"[^ab]+c[^ab]+c[^ab]+c(?P<value>x)", r"(?i)a+Aa+Aa+A(?P<value>x)", r"a+b?a+b?a+b?a(?P<value>x)",
        r"a+(?:ab|cd)a+(?:ab|cd)a+(?:ab|cd)(?P<value>x)", r"d+(?:bc|de)d+(?:bc|de)d+(?:bc|de)(?P<value>x)",
        r"a+(?!b)a+(?!b)a+(?!b)a(?P<value>x)", "(?:ab|cd)" * 9 + "(?P<value>x)",
    ],
)  # fmt: skip
def test_a_pattern_that_could_take_long_or_finds_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="pattern: expected"):
        msgspec.convert({"path": "a", "pattern": pattern}, FieldSource)


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?P<value>\d+)/\d+", r"^\s*(?P<value>\d+)\s*/\s*\d+\s*$", r".*(?P<value>\d+)x", r"(?P<value>\w+)\d+x",
        r"(?i)(?:done|finished):? (?P<value>\d+)(?:\.\d+)?%", r"(\d+):(\d+):(?P<value>\d+):(\d+):(\d+)",
        r"(?P<value>\d{1,3}(?:,\d{3})*)x", r"(?P<value>a?a?a?a?a?a?a?a?)a{90}x", r"x{1,3}" * 8 + "(?P<value>a)",
        r"(?P<value>\d+)(?=/\d+)", r"(?P<value>\w+)(?!\w)", r"x{9}" * 9 + "(?P<value>a)", r"(?P<value>.*.{9}.{9}.{9})x",
        r"(?P<value>(?>\d+))/", r"(?P<value>x{1,4}x{1,4}x{1,4})x", r".*.*(?P<value>x)", "a{0}" * 9 + "(?P<value>x)",
        r"\x7f+[^\x7f]\x7f+[^\x7f]\x7f+[^\x7f](?P<value>a)", r"a+Aa+Aa+A(?P<value>x)",
    ],
)  # fmt: skip
@pytest.mark.parametrize("part", ["1", "a", " ", "1/", "1:", "1 ", "1,", "a1", "done 1."])
def test_patterns_that_are_accepted_end_soon(pattern: str, part: str) -> None:
    text = (part * 100)[:100]
    started = time.process_time()
    mapped({"v": text}, id={"path": "v", "pattern": pattern})
    assert time.process_time() - started < 1, "a second, where the others take years"


@pytest.mark.parametrize(
    ("source", "value", "expected"),
    [
        ({"convert": {"format": "%Y-%m-%d %H:%M"}}, "2026-01-05 10:30", "2026-01-05T10:30:00+00:00"),
        (
            {"convert": {"format": "%Y-%m-%d %H:%M"}, "zone": "Europe/Rome"},
            "2026-07-05 10:30",
            "2026-07-05T08:30:00+00:00",
        ),
        (
            {"convert": {"format": "%d.%m.%y %H:%M", "zone": "Asia/Tokyo"}},
            "05.01.26 09:30",
            "2026-01-05T00:30:00+00:00",
        ),
        ({"convert": {"format": "%Y%m%dT%H%M%S%z"}}, "20260105T103000+0200", "2026-01-05T08:30:00+00:00"),
        ({"convert": {"format": "%b %d %Y %I:%M %p"}}, "Jan 05 2026 01:30 PM", "2026-01-05T13:30:00+00:00"),
        ({"convert": {"format": "%d/%b/%Y"}}, " 05/Jan/2026 ", "2026-01-05T00:00:00+00:00"),
    ],
)  # fmt: skip
def test_times_can_have_a_format(source: dict[str, Any], value: str, expected: str) -> None:
    found = mapped({"t": value}, startedAt={"path": "t", **source})["startedAt"]
    assert found.astimezone(UTC).isoformat() == expected


def test_a_time_that_does_not_have_its_format_is_an_error_and_none_is_none() -> None:
    source = {"path": "t", "convert": {"format": "%Y-%m-%d %H:%M"}}
    with pytest.raises(ValueError, match="startedAt: expected %Y-%m-%d %H:%M"):
        mapped({"t": "5 Jan"}, startedAt=source)
    for none in ("", "0000-00-00 00:00", "0001-01-01 00:00", 0):
        assert mapped({"t": none}, startedAt=source)["startedAt"].year == 1


@pytest.mark.parametrize(
    "text", ["%H:%M", "%d.%m. %H:%M", "%Y %H:%M", "%Y-%m", "%Y-%d", "%Y-%m-%d %I:%M", "yyyy-MM-dd", "%Y-%m-%d %Q", ""]
)
def test_a_format_without_a_date_or_with_half_a_clock_is_refused(text: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="format: expected a date and a time of day"):
        msgspec.convert({"path": "a", "convert": {"format": text}}, FieldSource)


def test_failures_can_be_mapped_from_a_list() -> None:
    found = mapped({"e": [{"at": "Send", "n": 2}]}, failures="e[].{step: at, errorCode: 'X', count: n}")
    assert found == {"failures": [{"step": "Send", "errorCode": "X", "count": 2}]}


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ({"path": "t", "convert": "rfc3339"}, "2026-01-05T10:00:00"),
        ({"path": "t", "convert": "rfc3339"}, "soon"),
        ({"path": "t", "convert": "epoch_ms"}, {"a": 1}),
        ({"path": "t", "convert": "clock", "after": "startedAt"}, "an hour"),
        ({"path": "length(t)"}, 5),
    ],
)
def test_the_error_for_an_invalid_value_names_the_field_and_does_not_quote_the_value(
    source: dict[str, str], value: Any
) -> None:
    started = {"value": "2026-01-05T09:00:00Z"}
    with pytest.raises(ValueError, match=r"^createdAt: ") as error:
        mapped({"t": value}, createdAt=source, startedAt=started)
    assert str(value) not in str(error.value) or value == 5


def test_a_number_that_is_too_large_for_any_time_is_an_error_of_its_field() -> None:
    with pytest.raises(ValueError, match="createdAt: expected epoch_s"):
        mapped({"t": 10**400}, createdAt={"path": "t", "convert": "epoch_s"})


def test_a_field_that_a_run_can_do_without_is_ignored_and_any_other_is_an_error() -> None:
    fields = {
        "id": "id",
        "records.total": "length(n)",
        "records.failed": "f",
        "createdAt": {"path": "t", "convert": "local"},
    }
    made = ItemMapping("jobs", msgspec.convert({"path": "/", "fields": fields}, Resource))
    ignored: list[str] = []
    assert made({"id": "r", "n": 5, "f": "2"}, 0.0, ignored) == {"id": "r", "records": {"failed": 2}}
    assert ignored == ["records.total"]
    with pytest.raises(ValueError, match=r"^records\.total: the expression cannot be applied to the item$"):
        made({"id": "r", "n": 5})
    with pytest.raises(ValueError, match=r"^createdAt: expected local$"):
        made({"id": "r", "t": "soon", "n": []}, 0.0, [])


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"jobs": {"fields": {"id": "a["}}}, r"runtime\.resources\.jobs\.fields\.id: invalid JMESPath"),
        (
            {"jobs": {"fields": {"idd": "a"}}},
            r"runtime\.resources\.jobs\.fields\.idd: unknown field; expected one of createdAt",
        ),
        ({"jobs": {"items": "]"}}, r"runtime\.resources\.jobs\.items: invalid JMESPath"),
        ({"jobs": {"items": "a|" * 600 + "a"}}, r"jobs\.items: invalid JMESPath: too many parts, or nested too deeply"),
        ({"records": {"path": "/x/{what}"}}, r"runtime\.resources\.records\.path: \{what\} is unknown"),
        *(
            (
                {"jobs": {"fields": {"id": {"path": "a", "zone": zone}}}},
                rf"jobs\.fields\.id\.zone: '{zone}' is not a time",
            )
            for zone in ("Mars/Base", "../UTC", "Europe")
        ),
        ({"jobs": {"fields": {"id": {"path": "a", "value": 1}}}}, r"expected either path or value"),
        (
            {"jobs": {"fields": {"endedAt": {"path": "a", "convert": "seconds"}}}},
            r"after: required with convert: seconds",
        ),
        (
            {"jobs": {"fields": {"endedAt": {"path": "a", "convert": "epoch_s", "after": "startedAt"}}}},
            r"after: required with convert: seconds, milliseconds or clock, and not allowed otherwise",
        ),
        ({"jobs": {"paging": {"style": "cursor", "parameter": "c"}}}, r"next: is required for the style cursor"),
        ({"jobs": {"paging": {"style": "offset"}}}, r"parameter: is required for the style offset"),
        (
            {"jobs": {"paging": {"style": "page", "parameter": "p", "size": 0}}},
            r"size: expected a whole number, 1 or more",
        ),
        (
            {"jobs": {"paging": {"style": "offset", "parameter": "o", "first": -1}}},
            r"first: expected a whole number, 0 or more",
        ),
        (
            {"jobs": {"paging": {"style": "cursor", "parameter": "c", "next": "n", "first": 1}}},
            r"first: only the styles page and offset have it",
        ),
        ({"jobs": {"paging": {"parameter": "p"}}}, r"style: expected cursor, page, offset or link with parameter"),
        ({"jobs": {"paging": {"next": "n"}}}, r"style: expected cursor, page, offset or link with parameter or next"),
        ({"records": {"statuses": {"SENT": "done"}}}, r"statuses\.SENT: expected one of queued, .*, got 'done'"),
        ({"jobs": {"body": {"a": 1}}}, r"body: requires method: POST"),
        ({"jobs": {"accept": []}}, r"accept: expected at least one HTTP status"),
        ({"jobs": {"accept": [99, 200]}}, r"accept: expected at least one HTTP status"),
        ({"jobs": {"accept": [200, 600]}}, r"accept: expected at least one HTTP status"),
        ({"jobs": {"path": "jobs"}}, r"path: expected a path that begins with /"),
        ({"job": "absent", "jobs": {"active": None}}, r"job: is required if jobs has changed without active"),
        ({"counts": "records", "records": "absent"}, r"counts: expected job, since records is absent"),
        ({"jobs": "absent"}, r"runtime\.resources\.jobs: expected"),
        ({"job": {"pathh": "/x"}}, r"pathh: unknown key"),
    ],
)
def test_an_invalid_description_is_an_error_that_names_the_key(
    resources: dict[str, Any], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "exporter.yml"
    file.write_text(yaml.safe_dump({"runtime": {"base_url": "http://runtime.test", "resources": resources}}))
    with pytest.raises(ConfigError, match=message):
        Exporter(load(file, environ={}).runtimes)


@pytest.mark.parametrize(
    "paging",
    [
        {"style": "page", "parameter": "p", "first": 0},
        {"style": "offset", "parameter": "o", "first": 1, "size": 1},
        {"style": "link"},
        {"style": "link", "next": "n"},
        {"style": "none", "size": 1},
    ],
    ids=str,
)
def test_what_a_style_of_paging_can_have(paging: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "exporter.yml"
    resources = {"jobs": {"paging": paging}}
    file.write_text(yaml.safe_dump({"runtime": {"base_url": "http://runtime.test", "resources": resources}}))
    Exporter(load(file, environ={}).runtimes)


def test_the_error_for_an_unknown_preset_lists_the_presets(tmp_path: Path) -> None:
    file = tmp_path / "exporter.yml"
    file.write_text("runtime: {base_url: 'http://runtime.test', preset: airfow}")
    with pytest.raises(ConfigError, match=r"runtime\.preset: expected one of .*contract.*got 'airfow'"):
        load(file, environ={})


def test_a_preset_can_be_a_file(tmp_path: Path) -> None:
    preset = tmp_path / "ours.yml"
    resources = dict.fromkeys(("health", "projects", "job", "records", "usage"), "absent")
    preset.write_text(yaml.safe_dump({"runtime": {"resources": {**resources, "jobs": {"path": "/runs"}}}}))
    file = tmp_path / "exporter.yml"
    file.write_text(yaml.safe_dump({"runtime": {"base_url": "http://runtime.test", "preset": str(preset)}}))
    assert only_runtime(load(file, environ={})).runtime.resources.jobs.path == "/runs"


@pytest.mark.parametrize(
    "preset", sorted((ROOT / "exporter" / "config" / "presets").glob("*.yml")), ids=lambda file: file.stem
)
def test_every_preset_works_without_further_keys(preset: Path, tmp_path: Path) -> None:
    file = tmp_path / "exporter.yml"
    file.write_text(f"runtime: {{base_url: 'http://runtime.test', preset: {preset.stem}}}")
    Exporter(load(file, environ={}).runtimes)


def test_a_key_overrides_the_preset_and_the_others_stay(tmp_path: Path) -> None:
    file = tmp_path / "exporter.yml"
    file.write_text(
        "runtime: {base_url: 'http://runtime.test', resources: {jobs: {path: '/runs/{project}', changed: ~}}}"
    )
    jobs = only_runtime(load(file, environ={})).runtime.resources.jobs
    assert (jobs.path, jobs.changed, jobs.paging.next) == ("/runs/{project}", None, "nextCursor")
    assert jobs.active is not None


# -- requests -------------------------------------------------------------------------------------------------


def endpoint(**resource: Any) -> Endpoint:
    return Endpoint("jobs", msgspec.convert({"path": "/x/{project}", **resource}, Resource))


@pytest.mark.parametrize("project", ["a/b", "../up", "a?b#c", "%2e", "ü", "http://evil.test/"])
def test_an_id_is_one_segment_of_the_path(project: str) -> None:
    path = endpoint().request({"project": project}).path
    assert path.count("/") == 2
    assert path.startswith("/x/")
    assert not {"?", "#", " "} & set(path)


@pytest.mark.parametrize("ids", [{}, {"project": "."}, {"project": ".."}], ids=str)
def test_a_path_is_not_made_without_an_id_or_with_one_that_would_change_it(ids: dict[str, str]) -> None:
    with pytest.raises(ApiError, match="jobs: no usable project for the path"):
        endpoint().request(ids)


def test_a_reference_can_keep_its_slashes() -> None:
    described = endpoint(path="/repos/{ref.full:path}/runs", query={"of": "{ref.full}"})
    request = described.request({"ref.full": "own er/re%po"})
    assert (request.path, request.query) == ("/repos/own%20er/re%25po/runs", {"of": "own er/re%po"})
    for other in ("../admin", "a/../b", "a/./b", "/a", "a/", "a//b", ".", "", "a/\ud800"):
        with pytest.raises(ApiError, match=r"jobs: no usable ref\.full for the path"):
            described.request({"ref.full": other})


@pytest.mark.parametrize(
    ("since", "written"),
    [
        ("rfc3339", "1970-01-02T00:00:01.250Z"),
        ("epoch_s", 86401),
        ("epoch_ms", 86401250),
    ],
)
def test_since_has_the_described_format(since: str, written: str | int) -> None:
    described = endpoint(changed={"query": {"after": "{since}"}}, since=since)
    assert described.request({"project": "p1"}, described.resource.changed, since=86401.25).query == {"after": written}


BERLIN = {"format": "%Y-%m-%d %H:%M", "zone": "Europe/Berlin"}


@pytest.mark.parametrize(
    ("since", "at", "written"),
    [
        ({"format": "%Y-%m-%d %H:%M"}, "2026-01-05T10:30:59.9+00:00", "2026-01-05 10:30"),
        ({"format": "%d.%m.%Y"}, "2026-01-05T23:59:00+00:00", "05.01.2026"),
        (BERLIN, "2026-01-05T10:30:59+00:00", "2026-01-05 11:30"),
        # 02:00 to 03:00 comes twice, and the API could understand the later one.
        (BERLIN, "2026-10-25T00:30:00+00:00", "2026-10-25 01:30"),
        (BERLIN, "2026-10-25T01:30:00+00:00", "2026-10-25 01:30"),
        (BERLIN, "2026-10-25T02:00:00+00:00", "2026-10-25 03:00"),
        ({**BERLIN, "format": "%Y-%m-%dT%H:%M:%S%z"}, "2026-10-25T01:30:00+00:00", "2026-10-25T02:30:00+0100"),
    ],
)
def test_since_can_have_a_format_and_is_never_later_than_it_should_be(
    since: dict[str, str], at: str, written: str
) -> None:
    described = endpoint(changed={"query": {"after": "{since}"}}, since=since)
    seconds = datetime.fromisoformat(at).timestamp()
    request = described.request({"project": "p1"}, described.resource.changed, since=seconds)
    assert request.query == {"after": written}


def test_what_is_not_restricted_leaves_the_other_restrictions() -> None:
    described = endpoint(changed={"query": {"after": "{since}"}}, query={"text": "since {since}, of {project}"})
    assert described.request({"project": "p1"}, None, described.resource.changed, since=0.0).query == {
        "text": "since 1970-01-01T00:00:00.000Z, of p1",
        "after": "1970-01-01T00:00:00.000Z",
    }
    assert described.request({"project": "p1"}, None).query == {"text": "since {since}, of p1"}


def test_values_in_a_body_keep_their_types() -> None:
    post = endpoint(
        method="POST",
        body={"where": {"project": "{project}", "text": "project {project}"}, "size": 1},
        changed={"body": {"where": {"after": "{since}"}}},
        since="epoch_ms",
        paging={"style": "offset", "parameter": "page.from", "size_parameter": "size", "size": 50},
    )
    request = post.request({"project": "p1"}, post.resource.changed, since=1.5)
    assert request.body == {
        "where": {"project": "p1", "text": "project p1", "after": 1500},
        "size": 50,
        "page": {"from": 0},
    }


def test_a_field_source_that_is_a_string_is_a_path() -> None:
    assert mapped({"a": "b"}, id="a") == mapped({"a": "b"}, id={"path": "a"}) == {"id": "b"}
    assert FieldSource(path="a").convert is None


def test_an_expression_has_ten_thousand_characters_at_most() -> None:
    assert compiled("a" * 10_000, "items").search({"a" * 10_000: 1}) == 1
    with pytest.raises(ConfigError, match="items: invalid JMESPath: expected at most 10,000 characters"):
        compiled("a" * 10_001, "items")


def test_the_reason_why_an_expression_is_invalid_has_200_characters_at_most() -> None:
    with pytest.raises(ConfigError) as error:
        compiled("a" * 500 + "[", "items")
    assert len(str(error.value)) == len("items: invalid JMESPath: ") + 200


@pytest.mark.parametrize(
    ("items", "counts"),
    [
        ("data.page.rows", []),
        ("data.page.rows[?kind == 'a']", [3]),
        ("data.page.rows[?kind == 'a'].{id: id}", [3]),
        ("data.page.rows[?kind == 'a'] | [0:1]", [1, 3]),
        ("sort_by(data.page.rows[?kind == 'a'], &id)", [1, 3]),
        ("data.page.groups[].rows[]", [4, 2, 2, 2]),
        ("data.page.by_id.*", [3]),
        ("data.page.rows[-1].parts", []),
        ("data.other || data.page.rows", [0, 3]),
        ("data.page.by_id || data.page.rows", [3, 3]),
        ("data.page.by_id | @", [0]),
        ("data.page.[rows, groups][0]", []),
        ("{rows: data.page.rows}.rows", []),
        ("`[1, 2]`", []),
        ("@", []),
    ],
)
def test_items_are_counted_where_an_expression_selects_them(items: str, counts: list[int]) -> None:
    page = {
        "rows": [{"id": 1, "kind": "a"}, {"id": 2, "kind": "b"}, {"id": 3, "parts": [1, 2]}],
        "groups": [{"rows": [1, 2, 3]}, {"rows": [4]}],
        "by_id": {"x": {}, "y": {}, "z": {}},
    }
    assert [each.count({"data": {"page": page}}) for each in sources(compiled(items, "items"))] == counts


BERLIN = {"convert": "local", "zone": "Europe/Berlin"}
END_OF_SUMMER = 1_761_440_400.0
"""2025-10-26, 01:00 UTC: in Berlin the clocks go from 3:00 back to 2:00."""


def berlin(now: float, texts: dict[str, str], *, using: ItemMapping | None = None) -> dict[str, float]:
    """Times of a run in minutes after the clocks changed, from local times of that night; `now` in minutes as well."""
    mapping = using or local_mapping()
    item = {name: f"2025-10-26T{text}:00" for name, text in texts.items()}
    found = mapping({"id": "r", **item}, END_OF_SUMMER + 60 * now)
    return {name: (found[name].timestamp() - END_OF_SUMMER) / 60 for name in texts}


def local_mapping() -> ItemMapping:
    names = ("createdAt", "startedAt", "endedAt", "updatedAt", "lastProgressAt")
    fields: dict[str, Any] = {name: FieldSource(path=name, **BERLIN) for name in names}  # type: ignore[arg-type]
    return ItemMapping("jobs", Resource(path="/jobs", fields={"id": "id", **fields}))


@pytest.mark.parametrize(
    ("now", "texts", "expected"),
    [
        (-20, {"updatedAt": "02:40"}, {"updatedAt": -20}),
        (40, {"updatedAt": "02:40"}, {"updatedAt": 40}),
        (10, {"updatedAt": "02:40"}, {"updatedAt": -20}),
        (10, {"startedAt": "02:50", "endedAt": "02:05"}, {"startedAt": -10, "endedAt": 5}),
        (70, {"startedAt": "02:50", "endedAt": "02:05"}, {"startedAt": -10, "endedAt": 5}),
        (70, {"createdAt": "02:55", "startedAt": "02:10"}, {"createdAt": -5, "startedAt": 10}),
        (70, {"createdAt": "01:55", "updatedAt": "03:05"}, {"createdAt": -65, "updatedAt": 65}),
    ],
)
def test_of_a_local_time_that_comes_twice_the_last_that_fits_is_meant(
    now: float, texts: dict[str, str], expected: dict[str, float]
) -> None:
    assert berlin(now, texts) == expected


@pytest.mark.parametrize(("seconds", "is_later"), [(60, True), (60.001, False)])
def test_a_time_may_be_a_minute_ahead_of_its_response(seconds: float, *, is_later: bool) -> None:
    assert berlin(40 - seconds / 60, {"updatedAt": "02:40"}) == {"updatedAt": 40 if is_later else -20}


def test_an_end_that_means_none_says_nothing_about_a_start() -> None:
    item = {"id": "r", "startedAt": "2025-10-26T02:10:00", "endedAt": "0001-01-01T00:00:00"}
    assert local_mapping()(item, END_OF_SUMMER + 4200)["startedAt"].timestamp() == END_OF_SUMMER + 600


def test_times_that_come_twice_are_told_apart_by_the_whole_id() -> None:
    made = local_mapping()
    for last, now, expected in (("a", -1200, -3000), ("b", 4200, 600)):
        item = {"id": "x" * 199 + last, "startedAt": "2025-10-26T02:10:00"}
        assert made(item, END_OF_SUMMER + now)["startedAt"].timestamp() == END_OF_SUMMER + expected


def test_times_that_come_once_are_not_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise what is noted of those that come twice would soon be forgotten."""
    monkeypatch.setattr(mapping_module, "MAX_REPEATED", 3)
    made = local_mapping()
    assert berlin(-20, {"startedAt": "02:10"}, using=made) == {"startedAt": -50}
    for number in range(10):
        made({"id": f"r{number}", "startedAt": "2025-10-26T01:10:00"}, END_OF_SUMMER)
    assert berlin(90, {"startedAt": "02:10"}, using=made) == {"startedAt": -50}


def test_a_start_that_comes_twice_does_not_move_when_its_text_comes_again() -> None:
    mapping = local_mapping()
    for now, updated in ((-50, "02:10"), (-20, "02:40"), (20, "02:20"), (90, "03:30")):
        times = berlin(now, {"startedAt": "02:10", "updatedAt": updated}, using=mapping)
        assert times == {"startedAt": -50, "updatedAt": now}


def test_what_is_noted_of_local_times_that_come_twice_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping_module, "MAX_REPEATED", 3)
    made = local_mapping()
    for number in range(10):
        made({"id": f"r{number}", "startedAt": "2025-10-26T02:10:00"}, END_OF_SUMMER)
        assert len(made._repeated) <= 3


def test_a_duration_is_added_to_the_time_and_not_to_what_the_clock_on_the_wall_shows() -> None:
    start = {"path": "begun", **BERLIN}
    found = mapped(
        {"begun": "2025-10-26T01:30:00", "took": 7200},
        startedAt=start,
        endedAt={"path": "took", "convert": "seconds", "after": "startedAt"},
    )
    assert found["endedAt"] - found["startedAt"] == timedelta(hours=2)


@pytest.mark.parametrize("took", [-1, "", "-1"])
def test_a_duration_that_means_none_is_no_time(took: object) -> None:
    found = mapped(
        {"took": took},
        startedAt={"value": "2026-01-05T09:00:00Z"},
        endedAt={"path": "took", "convert": "seconds", "after": "startedAt"},
    )
    assert found["endedAt"] == NONE


def test_an_unknown_total_is_no_path() -> None:
    item = {"unknown": 7, "done": 3}
    assert mapped(item, records__total="unknown") == {}
    assert mapped(item, records__total="done") == {"records": {"total": 3}}
