"""What is published: the exporter and the files that it or the demo uses, and nothing else; and the lock files."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]


def test_the_wheel_contains_the_exporter_alone_and_whole(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    package = wheel.name.removesuffix("-py3-none-any.whl")
    # The README, which the systemd unit names.
    assert {name.split("/")[0] for name in names} == {"exporter", f"{package}.dist-info", f"{package}.data"}
    included = {name for name in names if name.startswith("exporter/")}
    tracked = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "exporter").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    shared = {
        f"exporter/share/{path.relative_to(ROOT)}"
        for folder in ("alerts", "dashboards/dist", "deploy/grafana")
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
    }
    assert included == tracked | shared, "the wheel lacks a file that the code reads, or has a file too many"


def test_the_locks_hold_every_dependency_with_its_hashes() -> None:
    locks = sorted(ROOT.glob("requirements*.lock"))
    assert len(locks) == 8
    for lock in locks:
        lines = lock.read_text().splitlines()
        pinned = [line for line in lines if "==" in line]
        assert pinned
        assert all(line.endswith("\\") for line in pinned), f"{lock.name}: a package without hashes would not install"


def test_everything_that_is_installed_has_known_hashes() -> None:
    """Otherwise a job that can publish would run whatever an index has at that moment."""
    places = [ROOT / "Makefile", ROOT / "Dockerfile", *(ROOT / ".github" / "workflows").glob("*.yml")]
    lines = [line.strip() for place in places for line in place.read_text().splitlines()]
    installs = [line for line in lines if re.search(r"\bpip\b.*\binstall ", line) and not line.startswith("#")]
    of_our_own = [line for line in installs if re.search(r"--no-deps .*(--editable \.|/wheels/\*\.whl)$", line)]
    assert len(of_our_own) == 3
    without = [line for line in installs if "--require-hashes" not in line and line not in of_our_own]
    assert not without
    assert len(installs) >= 10


def test_the_job_that_may_publish_installs_nothing_but_uv() -> None:
    made = subprocess.run(
        ["make", "--dry-run", "--always-make", "publish"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    installed = re.findall(r"-r (\S+\.lock)", made.stdout)
    assert installed == ["requirements-uv.lock"]
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "requirements-uv.lock").read_text(), flags=re.MULTILINE)
    assert pinned == ["uv"]


def test_the_lock_is_of_the_dependencies_that_the_project_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)
    locked = {canonicalize_name(name): version for name, version in pins}
    for text in (*project["dependencies"], *project["optional-dependencies"]["demo"]):
        named = Requirement(text)
        version = locked.get(canonicalize_name(named.name))
        assert version is not None, f"{named.name} is not in requirements.lock: run `make lock`"
        assert named.specifier.contains(version), f"requirements.lock has {named.name} {version}: run `make lock`"


def test_development_and_published_dependencies_are_locked_to_the_same_versions() -> None:
    def pins(lock: str) -> set[str]:
        return {line.split(" ")[0] for line in (ROOT / lock).read_text().splitlines() if "==" in line}

    assert pins("requirements.lock") <= pins("requirements-dev.lock"), "run `make lock`: the tests test other versions"


def test_the_lowest_lock_has_each_dependency_at_its_lower_bound() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "requirements-lowest.lock").read_text(), flags=re.MULTILINE)
    locked = {canonicalize_name(name): version for name, version in pins}
    for text in (*project["dependencies"], *project["optional-dependencies"]["demo"]):
        named = Requirement(text)
        (bound,) = (each.version for each in named.specifier if each.operator == ">=")
        version = locked[canonicalize_name(named.name)]
        assert Version(version) == Version(bound), f"{named.name} {version} is tested, not {bound}: run `make lock`"


def test_versions_with_known_vulnerabilities_are_not_allowed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    allowed = {named.name: named.specifier for named in map(Requirement, project["dependencies"])}
    for name, version in (
        ("bcrypt", "4.3.0"),  # ignores what is behind 72 bytes
        ("h11", "0.14.0"),  # CVE-2025-43859
        ("starlette", "1.3.0"),  # CVE-2026-54283, and before CVE-2026-48710 and CVE-2025-62727
    ):
        assert not allowed[name].contains(version), f"{name} {version}"
