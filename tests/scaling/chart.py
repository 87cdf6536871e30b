"""The chart, as Helm renders it."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.stack.programs import ROOT

CHART = ROOT / "deploy" / "helm" / "spinner-exporter"
IMAGE = "image.repository=registry.example.com/owner/spinner-exporter"
URL = "config.runtime.base_url=https://runtime.example.com"
KUBERNETES = "1.31"


def helm() -> str:
    """Return Helm: the one of HELM, or as `make test-all` unpacked it, or from PATH."""
    folder = ROOT / ".servers" / "helm"
    found = os.environ.get("HELM") or shutil.which("helm", path=str(folder)) or shutil.which("helm")
    if found is None:
        # The tests that need no Helm still run.
        pytest.skip("helm is neither on PATH nor in .servers/helm")
    return found


def rendered(
    *settings: str, values: object = None, kubernetes: str = KUBERNETES, chart: Path = CHART
) -> list[dict[str, Any]]:
    ended = template(*settings, values=values, kubernetes=kubernetes, chart=chart)
    assert ended.returncode == 0, ended.stderr
    return [document for document in yaml.safe_load_all(ended.stdout) if document]


def template(
    *settings: str, values: object = None, kubernetes: str = KUBERNETES, chart: Path = CHART
) -> subprocess.CompletedProcess[str]:
    """Render with `--set` and with a file of values."""
    flags = [word for setting in (IMAGE, *settings) for word in ("--set", setting)]
    options = ["--namespace=monitoring", f"--kube-version={kubernetes}.0", "--values=-", *flags]
    return subprocess.run(
        [helm(), "template", "demo", str(chart), *options],
        input=json.dumps(values or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def one(documents: list[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    (found,) = (each for each in documents if each["kind"] == kind and each["metadata"]["name"].endswith(name))
    return found


def of_the_operator(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for each in documents if each["apiVersion"].startswith("monitoring.coreos.com")]


def misfits(objects: list[dict[str, Any]]) -> list[str]:
    """Return a line for each object that does not conform to the schema of its kind."""
    node, installed = shutil.which("node"), ROOT / ".servers" / "operator"
    if node is None or not (installed / "node_modules").is_dir():
        pytest.skip("node or .servers/operator is missing; `make test-all` installs the latter if npm is there")
    command = [node, str(installed / "validate.mjs")]
    ended = subprocess.run(command, input=json.dumps(objects), capture_output=True, text=True, check=True)
    return ended.stdout.splitlines()
