"""The JSON Schema of a config file: editors and `check-config` agree."""

import copy
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from exporter.config import load
from exporter.config.json_schema import json_schema
from exporter.errors import ConfigError
from tests.command_line import run
from tests.stack.programs import ROOT

SCHEMA = json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

RUNTIME: dict[str, Any] = {
    "base_url": "http://127.0.0.1:8090",
    "preset": "contract",
    "project": "Sales",
    "auth": {"type": "header", "header": "X-Key", "value": "Token {token}"},
    "tls": {"ca_file": "ca", "cert_file": "cert", "key_file": "key"},
    "proxy": "none",
    "headers": {"X-Tenant": "acme"},
    "query": {"region": "eu"},
    "token_file": "token",
    "timeout": "10s",
    "resources": {
        "counts": "records",
        "health": "absent",
        "projects": {"path": "/teams", "items": "@", "paging": {"style": "offset", "parameter": "o", "first": 1}},
        "jobs": {
            "path": "/teams/{project}/runs",
            "method": "POST",
            "query": {"a": [1, 2]},
            "body": {"b": {}},
            "changed": {"query": {"since": "{since}"}},
            "active": [{"query": {"state": "queued"}}, {"body": {"state": "running"}}],
            "since": {"format": "%Y-%m-%d %H:%M", "zone": "Europe/Berlin"},
            "error": "!ok",
            "as_of": None,
            "accept": [200, 203],
            "token": True,
            "paging": {"style": "cursor", "parameter": "c", "next": "n", "more": "m", "total": "t", "size": 10},
            "fields": {
                "id": "id",
                "status": {"path": "s", "labels": {"true": "running", "*": "queued"}},
                "trigger": {"value": "api"},
                "createdAt": {"path": "c", "convert": {"format": "%d.%m.%Y"}, "zone": "Europe/Berlin"},
                "startedAt": {"path": "b", "convert": "epoch_s"},
                "endedAt": {"path": "t", "pattern": "(?P<value>[0-9]+)s", "convert": "seconds", "after": "startedAt"},
                "records.total": "unknown",
            },
        },
        "job": {"path": "/runs/{run}", "gone": "code == 'x'", "item": "run"},
        "records": {"path": "/runs/{run}/records", "failed": None, "statuses": {"bad": "failed"}},
        "usage": "absent",
    },
}
WHOLE: dict[str, Any] = {
    "runtime": RUNTIME,
    "projects": {"include": ["a.*"], "exclude": [], "on_probe": False},
    "retention": "1h",
    "spinner_retention": "30d",
    "sync": {"min_interval": "5s", "concurrency": 8},
    "statuses": {"parked": "waiting"},
    "stalls": {"floor": "10m", "ceiling": "12h", "false_pages": 0.4},
    "spinners": [{"project": "a", "stall_floor": "5m", "expected_interval": "1d"}],
    "limits": {"runs": 10, "label_length": 64},
    "web": {"listen_address": ":10095"},
    "log": {"level": "info", "format": "json"},
    "storage": {"path": None},
}
SEVERAL: dict[str, Any] = {
    "runtimes": [{"name": "eu", "base_url": "http://a", "retention": "2h"}, {"name": "us", "base_url": "http://b"}],
    "sync": {"concurrency": 4},
}
BEYOND_A_SCHEMA = (
    "is unknown", "preset", "regular expression", "format: expected", "is required if", "invalid JMESPath", "conflict",
    "must not contain", "expected at least", "listen_address", "expected the name of a header", "pattern: expected",
    "requires method", "since one list then", "counts: expected", "jobs.project", "the request contains",
    "path: is required",
    "not allowed with projects.on_probe", "duplicate name", "one line of text", "path: expected one line",
    "the environment",
    "expected one line of", "stale_after", "proxy: expected", "headers:", "not allowed together with a token",
)  # fmt: skip
"""What only `check-config` finds."""


def agree(tree: Any, folder: Path) -> str:
    """Return what differs; empty if a schema and the exporter agree about a config."""
    file = folder / "x.yml"
    # YAML too, and written much faster.
    file.write_text(json.dumps(tree))
    problem = ""
    try:
        load(file, environ={})
    except ConfigError as error:
        problem = str(error).removeprefix(f"{file}: ")
    # JSON has text as keys only.
    errors = [each.message for each in VALIDATOR.iter_errors(json.loads(json.dumps(tree)))]
    if errors and not problem:
        return f"the schema refuses what is good: {errors[0][:200]}"
    if problem and not errors and not any(each in problem for each in BEYOND_A_SCHEMA):
        return f"the schema accepts what is bad: {problem}"
    return ""


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    for key, below in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield from places(below, (*path, key))


def changed(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    tree = copy.deepcopy(tree)
    at = tree
    for key in path[:-1]:
        at = at[key]
    if value is REMOVED:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return tree


REMOVED = object()
VALUES = [REMOVED, None, 5, "x", [], {"x": "y"}]


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("tree", [WHOLE, SEVERAL], ids=["one runtime", "several"])
def test_good_configs_are_good_for_both(tmp_path: Path, tree: Any) -> None:
    assert agree(tree, tmp_path) == ""
    assert VALIDATOR.is_valid(tree)


@pytest.mark.parametrize("tree", [WHOLE, SEVERAL], ids=["one runtime", "several"])
@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), len(VALUES) + 1], ids=["all", "some"])
def test_whatever_is_changed_both_agree(tmp_path: Path, tree: Any, step: int) -> None:
    """With all values at each place, or with one of them, which is another one at the next place."""
    differences = {}
    for path, value in list(itertools.product(places(tree), VALUES))[::step]:
        if found := agree(changed(tree, path, value), tmp_path):
            differences[".".join(map(str, path)), str(value)] = found
    assert differences == {}


@pytest.mark.parametrize("accept", [[], [99], [200, 600], [100, 599]], ids=str)
def test_both_know_what_can_be_an_http_status(tmp_path: Path, accept: list[int]) -> None:
    tree = changed(WHOLE, ("runtime", "resources", "jobs", "accept"), accept)
    assert agree(tree, tmp_path) == ""
    assert VALIDATOR.is_valid(tree) == (accept == [100, 599])


def test_an_unknown_key_is_one_for_both_wherever_it_is(tmp_path: Path) -> None:
    free = ("headers", "query", "body", "labels", "statuses", "fields")
    for path in [(), *places(WHOLE)]:
        at: Any = WHOLE
        for key in path:
            at = at[key]
        if isinstance(at, dict) and not any(key in free for key in path):
            tree = changed(WHOLE, (*path, "no_such_key"), 1)
            assert agree(tree, tmp_path) == ""
            assert not VALIDATOR.is_valid(tree), path


@pytest.mark.parametrize("file", sorted((ROOT / "exporter/config/presets").glob("*.yml")), ids=lambda each: each.stem)
def test_presets_and_examples_are_good(file: Path, tmp_path: Path) -> None:
    tree = yaml.safe_load(file.read_text())
    tree["runtime"]["base_url"] = "http://127.0.0.1"
    assert VALIDATOR.is_valid(tree)
    pages = "\n".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    for text in re.findall(r"```yaml\n(runtimes?:.+?)```", pages, flags=re.DOTALL):
        tree = yaml.safe_load(text)
        assert [each.message for each in VALIDATOR.iter_errors(json.loads(json.dumps(tree)))] == []


def test_every_key_has_its_description() -> None:
    resource = SCHEMA["$defs"]["Resource"]["properties"]
    assert resource["since"]["description"] == "The format of `{since}`."
    assert "description" in SCHEMA["properties"]["retention"]


def test_the_file_in_the_package_is_what_the_command_prints() -> None:
    printed = run("config-schema").stdout
    assert json.loads(printed) == SCHEMA
    assert (ROOT / "exporter" / "config" / "config.schema.json").read_text() == printed, "make docs writes it"


def test_connecting_explains_every_key_of_a_description() -> None:
    page = (ROOT / "docs" / "connecting.md").read_text()
    words = {
        word for text in re.findall(r"```.*?```|`[^`]+`", page, flags=re.DOTALL) for word in re.findall(r"\w+", text)
    }
    for name in (
        "Resource",
        "Resources",
        "Paging",
        "FieldSource",
        "TimeFormat",
        "ListFilter",
        "LoginConfig",
        "AuthConfig",
    ):
        missing = SCHEMA["$defs"][name]["properties"].keys() - words
        assert not missing, f"docs/connecting.md says nothing of {sorted(missing)} ({name})"
