"""The script that unpacks Prometheus and Alertmanager: what it prints, and when it fetches nothing."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.stack.programs import ROOT

SCRIPT = ROOT / "tests" / "stack" / "debian-packages.sh"
PACKAGES = ("prometheus", "prometheus-alertmanager")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A folder for PATH, with the shell's tools, and without apt and the programs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in (
        "basename",
        "bash",
        "cat",
        "chmod",
        "cp",
        "dirname",
        "env",
        "grep",
        "mkdir",
        "mktemp",
        "rm",
        "sed",
        "tail",
    ):
        (folder / tool).symlink_to(next(p for each in ("/usr/bin", "/bin") if (p := Path(each, tool)).exists()))
    return folder


def test_without_apt_it_prints_one_line_and_ends_with_status_0(path: Path, tmp_path: Path) -> None:
    unpacked = unpack(path, tmp_path)
    assert unpacked.returncode == 0
    assert unpacked.stderr == (
        "Continuing without Prometheus and Alertmanager: they are not on PATH, "
        "and there is no apt-get to fetch them with\n"
    )
    assert unpacked.stdout == ""


def test_if_the_download_fails_it_prints_the_reason_in_one_line(path: Path, tmp_path: Path) -> None:
    add(path, "timeout", 'shift; exec "$@"')
    add(path, "apt-get", 'echo "W: Failed to fetch http://deb.debian.org/debian: no network"; exit 100')
    unpacked = unpack(path, tmp_path)
    assert unpacked.returncode == 0
    assert (
        unpacked.stdout
        == f"Fetching Prometheus and Alertmanager with apt into {tmp_path / 'out'}, once; nothing is installed\n"
    )
    assert unpacked.stderr == (
        "Continuing without Prometheus and Alertmanager: apt-get cannot download them "
        "(W: Failed to fetch http://deb.debian.org/debian: no network)\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("alertmanager", ["alertmanager", "prometheus-alertmanager"])
def test_programs_on_path_are_used_and_nothing_is_fetched(path: Path, tmp_path: Path, alertmanager: str) -> None:
    add(path, "apt-get", "echo apt-get was called; exit 100")
    for program in ("prometheus", alertmanager):
        add(path, program, "exit 0")
    unpacked = unpack(path, tmp_path)
    assert (unpacked.returncode, unpacked.stdout, unpacked.stderr) == (0, "", "")


def test_what_was_unpacked_before_is_not_fetched_again(path: Path, tmp_path: Path) -> None:
    add(path, "apt-get", "echo apt-get was called; exit 100")
    (tmp_path / "out" / "usr" / "bin").mkdir(parents=True)
    for program in PACKAGES:
        add(tmp_path / "out" / "usr" / "bin", program, "exit 0")
    unpacked = unpack(path, tmp_path)
    assert (unpacked.returncode, unpacked.stdout, unpacked.stderr) == (0, "", "")


def add(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def unpack(path: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    command = [str(path / "bash"), str(SCRIPT), str(tmp_path / "out"), *PACKAGES]
    environ = os.environ | {"PATH": str(path), "TMPDIR": str(tmp_path)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
