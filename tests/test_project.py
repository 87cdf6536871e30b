"""The project as people find it on a code host: workflows whose steps are make targets, and one version."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from exporter import __version__
from tests.marks import MARKS

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
# What only a code host has.
OF_THE_HOST = ("docker login", "gh release create")


def steps() -> list[tuple[str, dict[str, str]]]:
    return [
        (f"{file.name}: {name}", step)
        for file in WORKFLOWS
        for name, job in yaml.safe_load(file.read_text())["jobs"].items()
        for step in job["steps"]
    ]


def test_every_step_of_the_workflows_is_an_existing_make_target() -> None:
    commands = [(where, step["run"]) for where, step in steps() if "run" in step]
    assert len(commands) >= 10
    for where, command in commands:
        if command.startswith(OF_THE_HOST):
            continue
        assert command.startswith("make "), f"{where}: {command}"
        named = [word for word in command.split()[1:] if "=" not in word]
        assert named, where
        assert set(named) <= TARGETS, f"{where}: {command}"


@pytest.mark.parametrize("prefix", [prefix for prefixes in MARKS.values() for prefix in prefixes])
def test_a_mark_is_for_tests_that_exist(prefix: str) -> None:
    place, _, name = prefix.partition("::")
    files = [ROOT / place] if place.endswith("/") else list(ROOT.glob(f"{place}*"))
    assert any(file.exists() for file in files), f"tests/marks.py: no file begins with {place}"
    function = name.partition("[")[0]
    assert not name or any(re.search(rf"^(async )?def {function}", file.read_text(), re.MULTILINE) for file in files), (
        f"tests/marks.py: no test of {place} begins with {function}"
    )


def test_actions_are_pinned_and_no_job_has_more_permissions_than_it_names() -> None:
    for where, step in steps():
        if "uses" in step:
            assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", step["uses"]), where
    for file in WORKFLOWS:
        workflow = yaml.safe_load(file.read_text())
        assert workflow["permissions"] == {}
        assert all("timeout-minutes" in job for job in workflow["jobs"].values())


def test_every_file_with_pinned_versions_of_others_is_updated() -> None:
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    watched = {each["package-ecosystem"] for each in updates if each["directory"] == "/"}
    pinned = {
        "github-actions": ".github/workflows/*.yml",
        "docker": "Dockerfile",
        "docker-compose": "docker-compose.yml",
    }
    assert watched == set(pinned)
    assert all(list(ROOT.glob(pattern)) for pattern in pinned.values())


def test_the_tests_run_on_every_python_that_the_package_names() -> None:
    named = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text())
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == named


def test_a_tag_must_be_that_of_the_version() -> None:
    wrong = subprocess.run(["make", "check-tag", "TAG=v9.9.9"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert wrong.returncode != 0
    assert f"the tag is v9.9.9 and the version {__version__}" in wrong.stderr


def test_links_of_the_pages_for_contributors_exist() -> None:
    for name in ("CONTRIBUTING.md", "SECURITY.md"):
        for target in re.findall(r"\]\(([^)#]+)", (ROOT / name).read_text()):
            assert (ROOT / target).exists(), f"{name}: {target}"
