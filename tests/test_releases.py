"""Releases: what the make targets of `.github/workflows/release.yml` build fits together."""

import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

from exporter import __version__
from tests.scaling.chart import URL, helm
from tests.stack.programs import ROOT

REGISTRY = "registry.example.com/owner"
RELEASE = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())["jobs"]


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    made = make("chart", folder)
    assert made.returncode == 0, made.stderr
    return folder / f"spinner-exporter-{__version__}.tgz"


def make(target: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a make target with the registry of the tests, Helm from the place where they find it, and no network."""
    environ = os.environ | {"PATH": os.pathsep.join((str(Path(helm()).parent), os.environ["PATH"]))}
    command = ["make", "--old-file=.servers/.helm", target, f"DIST={folder}", f"REGISTRY={REGISTRY}", *words]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=60)


def test_the_published_chart_names_the_published_image(packaged: Path) -> None:
    command = [helm(), "template", "demo", str(packaged), "--kube-version=1.31.0", "--set", URL]
    documents = yaml.safe_load_all(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    (workload,) = (each for each in documents if each and each["kind"] == "Deployment")
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    (tag,) = re.findall(r"--tag (\S+)", make("publish-image", packaged.parent, "--dry-run").stdout)
    assert container["image"] == tag == f"{REGISTRY}/spinner-exporter:{__version__}"


def test_the_published_chart_contains_the_rules_and_dashboards_that_are_links_here(packaged: Path) -> None:
    with tarfile.open(packaged) as archive:
        found = {member.name for member in archive.getmembers() if member.isfile()}
    assert {f"spinner-exporter/rules/{name}.rules.yml" for name in ("alerts", "recording")} <= found
    dashboards = {f"spinner-exporter/dashboards/{file.name}" for file in (ROOT / "dashboards" / "dist").iterdir()}
    assert dashboards <= found


def test_a_chart_with_the_image_of_another_registry_is_not_published(packaged: Path) -> None:
    pushed = make("publish-chart", packaged.parent, "REGISTRY=ghcr.io/somebody-else")
    assert pushed.returncode != 0
    assert "make: the packaged chart does not name the image of ghcr.io/somebody-else" in pushed.stderr


def test_the_chart_is_packaged_for_the_registry_that_it_is_published_to() -> None:
    commands = [step["run"].split() for job in RELEASE.values() for step in job["steps"] if "run" in step]
    registries = {
        target: [word for words in commands if target in words for word in words if word.startswith("REGISTRY=")]
        for target in ("chart", "publish-image", "publish-chart")
    }
    assert registries["chart"] == registries["publish-image"] == registries["publish-chart"]
    assert len(registries["chart"]) == 1
