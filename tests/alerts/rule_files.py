"""The project's rule files, for tests that compare something with a rule."""

import functools
from pathlib import Path
from typing import Any

from tests.stack.programs import ROOT
from tests.yaml_files import read_yaml

RULE_FILES = sorted((ROOT / "alerts").glob("*.rules.yml"))


@functools.cache
def rules() -> tuple[dict[str, Any], ...]:
    """Return every rule of every group, which a test must not change."""
    groups = [group for file in RULE_FILES for group in read_yaml(file)["groups"]]
    return tuple(rule for group in groups for rule in group["rules"])


@functools.cache
def rule_tests(file: Path) -> list[dict[str, Any]]:
    """Return the tests of a file in alerts/tests, which a test must not change."""
    tests: list[dict[str, Any]] = read_yaml(file)["tests"]
    return tests


def alert_rule(name: str) -> dict[str, Any]:
    """Return the rule of an alert; there is exactly one."""
    (found,) = (rule for rule in rules() if rule.get("alert") == name)
    return found
