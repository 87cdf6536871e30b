"""What the values of a YAML file mean: numbers are written in one way only, and other texts stay as they are."""

import math
from pathlib import Path
from typing import Any

import pytest

from exporter.config import Config, load, strict
from exporter.errors import ConfigError
from exporter.runtime.endpoint import Endpoint
from tests.builders import only_runtime

TEXTS = (
    "007",
    "010",
    "-010",
    "+7",
    "-0",
    "0b11",
    "0o17",
    "0x10",
    "1_000",
    "12:30",
    "12:30:45.5",
    "01.5",
    "1_0.5",
    "2026-01-31",
    "2026-02-30",
    "2026-01-31T10:00:00Z",
    "2026-01-31 10:00:00 +1",
    "=",
    "1e3",
)
"""Of which YAML 1.1 makes other values, or nothing."""

JOBS = (
    "runtime: {base_url: 'http://h', resources: {jobs: {path: '/x/{project}', fields: {id: id}, paging: {style: none}, "
)


def read(text: str, folder: Path, environ: dict[str, str] | None = None) -> Config:
    (folder / "exporter.yml").write_text(text)
    return only_runtime(load(folder / "exporter.yml", environ=environ or {}))


def request(text: str, folder: Path) -> Any:
    jobs = read(JOBS + text + "}}}", folder).runtime.resources.jobs
    return Endpoint("jobs", jobs).request({"project": "p1"})


@pytest.mark.parametrize("text", TEXTS)
def test_a_request_and_a_pattern_contain_what_is_written(tmp_path: Path, text: str) -> None:
    assert strict.parse(text) == text
    sent = request(f"method: POST, query: {{code: {text}}}, body: {{code: {text}, all: [{text}]}}", tmp_path)
    assert (sent.query, sent.body) == ({"code": text}, {"code": text, "all": [text]})
    if text.isalnum():
        projects = read(f"runtime: {{base_url: 'http://h'}}\nprojects: {{exclude: [{text}]}}", tmp_path).projects
        assert (projects.wanted(text), projects.wanted("8")) == (False, True)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("7", 7),
        ("-12", -12),
        ("0.4", 0.4),
        (".5", 0.5),
        ("-1.", -1.0),
        ("+1.0e-3", 0.001),
        (".inf", math.inf),
    ],
)
def test_what_is_written_as_a_number_is_one(text: str, value: float) -> None:
    assert strict.parse(text) == value
    assert type(strict.parse(text)) is type(value)


def test_what_is_no_number_is_refused_where_one_is_expected(tmp_path: Path) -> None:
    for text in ("010000", "1:30", "1_000", "0x10", "2026-01-31"):
        with pytest.raises(ConfigError, match=r"exporter\.yml: limits\.runs: expected a whole number, got text"):
            read(f"runtime: {{base_url: 'http://h'}}\nlimits: {{runs: {text}}}", tmp_path)
        with pytest.raises(ConfigError, match=r"SPINNER_EXPORTER_LIMITS_RUNS: limits\.runs: expected a whole number"):
            read("runtime: {base_url: 'http://h'}", tmp_path, {"SPINNER_EXPORTER_LIMITS_RUNS": text})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("!!int 010", "expected a whole number such as 10"),
        ("!!int ''", "expected a whole number such as 10"),
        ("!!float 1:30", "expected a number with a fraction such as 0.4"),
        ("!!bool maybe", "expected true or false"),
        ("!!timestamp 2026-02-30", "could not determine a constructor"),
        ("!!binary aGk=", "could not determine a constructor"),
        ("!!set {x}", "could not determine a constructor"),
    ],
)
def test_a_tag_in_front_of_a_value_changes_nothing(text: str, says: str) -> None:
    """Of these, the exporter would send other values, or could send none."""
    with pytest.raises(strict.NotYamlError, match=f"line 2: not YAML: {says}"):
        strict.parse(f"a:\n  {text}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("query: {version: 1.10}", "jobs.query.version: expected a number with a fraction in quotes"),
        ("query: {version: [1, 1.10]}", "jobs.query.version: expected a number with a fraction in quotes"),
        (
            "changed: {query: {version: 1.10}}",
            "jobs.changed.query.version: expected a number with a fraction in quotes",
        ),
        ("method: POST, body: {most: [.inf]}", "jobs.body: expected numbers that JSON has"),
        ("method: POST, active: {body: {most: .nan}}", "jobs.active.body: expected numbers that JSON has"),
    ],
)
def test_a_number_that_would_be_sent_as_another_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        request(text, tmp_path)
    assert f"runtime.resources.{says}" in str(error.value)


def test_a_number_with_a_fraction_in_quotes_is_sent_as_it_is(tmp_path: Path) -> None:
    sent = request("method: POST, query: {version: '1.10', page: 3}, body: {share: 0.5}", tmp_path)
    assert (sent.query, sent.body) == ({"version": "1.10", "page": 3}, {"share": 0.5})


def test_a_text_has_as_many_values_as_are_read_of_it_and_no_more() -> None:
    assert strict.parse("[a, b]", most=3) == ["a", "b"]
    with pytest.raises(strict.NotYamlError, match="too many values"):
        strict.parse("[a, b, c]", most=3)


def test_a_number_has_a_hundred_characters_at_most() -> None:
    assert strict.parse("9" * 100) == int("9" * 100)
    with pytest.raises(strict.NotYamlError, match="line 1: not YAML: a number that is too long"):
        strict.parse("9" * 101)


def test_a_mapping_into_which_another_is_merged_can_be_merged_again() -> None:
    """Also if it has a key of the other, and is deeper in the file, so that it is constructed after what it is in."""
    text = "a: &a {x: 1, y: 1}\nlist: [&b {<<: *a, x: 2}]\nc: {<<: *b, x: 3}\nd: {<<: [*a, *b]}\n"
    assert strict.parse(text) == {
        "a": {"x": 1, "y": 1},
        "list": [{"x": 2, "y": 1}],
        "c": {"x": 3, "y": 1},
        "d": {"x": 1, "y": 1},
    }


@pytest.mark.parametrize("text", ["a: 1\na: 2", "b: {<<: {a: 1}, a: 2, a: 3}", "{x: {a: 1, a: 2}}", "- {'a': 1, a: 2}"])
def test_a_duplicate_key_is_one_wherever_it_is(text: str) -> None:
    with pytest.raises(strict.NotYamlError, match="line 1: not YAML: duplicate key a"):
        strict.parse(text)
