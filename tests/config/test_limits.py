"""Which values of numbers and durations a config may have: the least and the most that is accepted."""

from pathlib import Path
from typing import get_args, get_type_hints

import jsonschema
import pytest
import yaml

from exporter.config import Config, Duration, LimitsConfig, load, parse_duration, strict
from exporter.config.json_schema import json_schema
from exporter.config.schema import FileConfig
from exporter.errors import ConfigError
from exporter.service import Dependencies, Exporter
from tests.builders import Clock
from tests.scripted import ScriptedRuntime, no_sleep

BASE = 'runtime: {base_url: "http://127.0.0.1:8090"%s}\n'

LEAST = {
    "limits.runs": 1,
    "limits.open_runs": 1,
    "limits.spinners": 1,
    "limits.spinners_per_project": 1,
    "limits.failed_records_per_run": 0,
    "limits.failed_records": 0,
    "limits.failed_record_requests": 1,
    "limits.record_in_flight_requests": 0,
    "limits.waiting_record_requests": 0,
    "limits.rereads": 1,
    "limits.failure_groups": 1,
    "limits.label_length": 16,
    "limits.projects": 1,
    "limits.pages": 1,
    "limits.body_bytes": 1024,
    "limits.read_bytes": 1024,
    "limits.meters": 1,
    "sync.concurrency": 1,
}


def read(text: str, folder: Path) -> Config:
    file = folder / "exporter.yml"
    file.write_text(text)
    (config,) = load(file, environ={}).runtimes.values()
    return config


def test_every_limit_is_tried() -> None:
    assert {name.removeprefix("limits.") for name in LEAST if "limits." in name} == set(LimitsConfig.__struct_fields__)


@pytest.mark.parametrize(("key", "least"), LEAST.items())
def test_a_number_is_accepted_from_its_least_value_on(tmp_path: Path, key: str, least: int) -> None:
    section, name = key.split(".")
    assert getattr(getattr(read(BASE % "" + f"{section}: {{{name}: {least}}}\n", tmp_path), section), name) == least
    with pytest.raises(ConfigError, match=f"{key}: expected a (whole )?number"):
        read(BASE % "" + f"{section}: {{{name}: {least - 1}}}\n", tmp_path)


def test_concurrency_has_a_greatest_value(tmp_path: Path) -> None:
    assert read(BASE % "" + "sync: {concurrency: 256}\n", tmp_path).sync.concurrency == 256
    with pytest.raises(ConfigError, match="from 1 to 256"):
        read(BASE % "" + "sync: {concurrency: 257}\n", tmp_path)


ABOVE_ZERO = (
    "runtime.timeout",
    "runtime.heartbeat_timeout",
    "spinner_retention",
    "sync.stale_after",
    "stalls.floor",
    "stalls.ceiling",
    "spinners.stall_floor",
    "spinners.stall_ceiling",
    "spinners.expected_interval",
)
"""The durations with which the exporter would do nothing, or divide by zero, if they could be zero."""

DURATIONS = sorted(
    {
        f"{section}.{key}".strip(".")
        for section, hint in [("", FileConfig), *get_type_hints(FileConfig).items()]
        for kind in (hint, *get_args(hint))
        if hasattr(kind, "__struct_fields__")
        for key, value in get_type_hints(kind).items()
        if Duration in (value, *get_args(value))
    }
)


def tree_with(key: str, value: str) -> dict[str, object]:
    """A config whose section has one duration, with what must not be greater than it as small."""
    section, _, name = key.rpartition(".")
    keys: dict[str, object] = {name: value}
    if name == "stale_after":
        keys["min_interval"] = "1ms"
    elif name.endswith("ceiling"):
        keys[name.replace("ceiling", "floor")] = "1ms"
    elif name.endswith("floor"):
        keys[name.replace("floor", "ceiling")] = "100y"
    elif name == "min_interval":
        keys["stale_after"] = "100y"
    tree: dict[str, object] = {"runtime": {"base_url": "http://runtime.test"}}
    if section == "runtime":
        tree["runtime"] = {"base_url": "http://runtime.test", **keys}
    elif section == "spinners":
        tree["spinners"] = [{"project": "Sales", "spinner": "welcome", **keys}]
    elif section:
        tree[section] = keys
    return {**tree, **({} if section else keys)}


def test_every_duration_is_tried() -> None:
    assert set(ABOVE_ZERO) < set(DURATIONS)


@pytest.mark.parametrize("key", DURATIONS)
@pytest.mark.parametrize("value", ["0s", "1ms", "1s", "100y"])
async def test_a_duration_that_a_config_may_have_gives_a_page_with_its_runs(
    tmp_path: Path, key: str, value: str
) -> None:
    """A file that `check-config` calls good must not take the page away, or what is on it."""
    tree = tree_with(key, value)
    (tmp_path / "exporter.yml").write_text(yaml.safe_dump(tree))
    is_good = jsonschema.Draft202012Validator(json_schema()).is_valid(tree)
    if (value == "0s" and key in ABOVE_ZERO) or (value == "1ms" and key == "sync.stale_after"):
        with pytest.raises(
            ConfigError, match=rf"{key.rpartition('.')[2]}: expected a duration (above zero|of at least)"
        ):
            load(tmp_path / "exporter.yml", environ={})
        assert is_good == (value != "0s"), "a schema knows zero only"
        return
    assert is_good
    runtime = ScriptedRuntime(Clock())
    runtime.put("run-1", records={"total": 50, "completed": 3, "running": 2, "pending": 45})
    dependencies = Dependencies(runtime.clock, runtime.clock, runtime.transport(), no_sleep)
    exporter = Exporter(load(tmp_path / "exporter.yml", environ={}).runtimes, dependencies)
    for completed in (3, 4, 4):
        runtime.put("run-1", records={"total": 50, "completed": completed, "running": 2, "pending": 48 - completed})
        page = b"".join((await exporter.page()).pieces()).decode()
        runtime.clock.advance(0.5)
    await exporter.close()
    if key != "runtime.timeout":
        # With one of a millisecond a slow machine reads nothing.
        assert "spinner_run_stall_threshold_seconds{" in page


@pytest.mark.parametrize("text", ["0.5ms", "0.000001s", "0.0009s", f"0.{'0' * 400}1y"])
def test_a_duration_is_zero_or_a_millisecond_or_more(text: str) -> None:
    """As in Prometheus. Of one that is far shorter, a third is zero."""
    with pytest.raises(ValueError, match="expected a duration of at least 1ms, or 0s"):
        parse_duration(text)
    assert [parse_duration(each) for each in ("0", "0s", "0.0ms", "1ms", "0.001s")] == [0, 0, 0, 0.001, 0.001]


@pytest.mark.parametrize("key", ["timeout", "heartbeat_timeout"])
def test_a_timeout_can_be_short_but_not_zero(tmp_path: Path, key: str) -> None:
    assert getattr(read(BASE % f", {key}: 1ms", tmp_path).runtime, key) == 0.001
    with pytest.raises(ConfigError, match=f"runtime.{key}: expected a duration above zero"):
        read(BASE % f", {key}: 0s", tmp_path)


def test_stale_after_may_equal_the_interval_of_reads_and_not_be_shorter(tmp_path: Path) -> None:
    sync = read(BASE % "" + "sync: {min_interval: 7s, stale_after: 7s}\n", tmp_path).sync
    assert (sync.min_interval, sync.stale_after) == (7.0, 7.0)
    with pytest.raises(ConfigError, match=r"sync\.stale_after: expected at least min_interval"):
        read(BASE % "" + "sync: {min_interval: 7s, stale_after: 6s}\n", tmp_path)


def test_a_read_may_take_a_second_at_least(tmp_path: Path) -> None:
    """`sync.stale_after` is also the longest time for one read: with less, every one would fail."""
    assert read(BASE % "" + "sync: {min_interval: 0s, stale_after: 1s}\n", tmp_path).sync.stale_after == 1.0
    with pytest.raises(ConfigError, match=r"sync\.stale_after: expected a duration of at least 1s"):
        read(BASE % "" + "sync: {min_interval: 0s, stale_after: 999ms}\n", tmp_path)


def test_the_ceiling_of_stall_thresholds_may_equal_the_floor_and_not_be_lower(tmp_path: Path) -> None:
    stalls = read(BASE % "" + "stalls: {floor: 1ms, ceiling: 1ms}\n", tmp_path).stalls
    assert stalls.floor == stalls.ceiling == 0.001
    for section, expected in (
        ("stalls: {floor: 0s}\n", "floor: expected a duration above zero"),
        ("stalls: {floor: 2m, ceiling: 1m}\n", "ceiling: expected at least the floor"),
        ("spinners: [{stall_floor: 2m, stall_ceiling: 1m}]\n", "stall_ceiling: expected at least stall_floor"),
    ):
        with pytest.raises(ConfigError, match=expected):
            read(BASE % "" + section, tmp_path)
    (spinner,) = read(BASE % "" + "spinners: [{stall_floor: 2m, stall_ceiling: 2m}]\n", tmp_path).spinners
    assert spinner.stall_floor == spinner.stall_ceiling == 120.0


def test_every_optional_setting_can_be_set_by_the_environment_as_text() -> None:
    environ = {
        "SPINNER_EXPORTER_RUNTIME_BASE_URL": "https://runtime.example.com",
        "SPINNER_EXPORTER_RUNTIME_PROXY": "http://proxy:3128",
        # As YAML these would be a number and a truth value.
        "SPINNER_EXPORTER_RUNTIME_TOKEN_FILE": "7",
        "SPINNER_EXPORTER_RUNTIME_TLS_CA_FILE": "yes",
        "SPINNER_EXPORTER_RUNTIME_TIMEOUT": "7s",
        "SPINNER_EXPORTER_STORAGE_PATH": "007",
    }
    made = load(None, environ=environ)
    (config,) = made.runtimes.values()
    assert (config.runtime.proxy, config.runtime.token_file) == ("http://proxy:3128", "7")
    assert (config.runtime.tls.ca_file, config.runtime.timeout, made.storage.path) == ("yes", 7.0, "007")


def test_a_file_may_have_a_megabyte_and_no_more(tmp_path: Path) -> None:
    settings = BASE % ""
    read(settings + "#" * (1_000_000 - len(settings)), tmp_path)
    with pytest.raises(ConfigError, match="not more than 1,000,000 bytes"):
        read(settings + "#" * (1_000_001 - len(settings)), tmp_path)


def test_aliases_may_expand_to_a_hundred_thousand_values_and_no_more(tmp_path: Path) -> None:
    def file(more: int) -> Path:
        # The mapping, its two keys, `a` with 1 + 999 values, `b` with 1 + 98 times those, and some more.
        text = f"a: &a [{'x, ' * 999}]\nb: [{'*a, ' * 98}{'x, ' * more}]\n"
        (tmp_path / "file.yml").write_text(text)
        return tmp_path / "file.yml"

    most = 100_000 - (1 + 2 + 1000 + 1 + 98 * 1000)
    assert set(strict.read(file(most), example="")) == {"a", "b"}
    with pytest.raises(ConfigError, match="aliases expand to too many values"):
        strict.read(file(most + 1), example="")
