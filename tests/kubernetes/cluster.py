"""A real Kubernetes API server with its store and its controllers. No kubelet runs the pods that they create."""

import contextlib
import os
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
import yaml

from tests.scaling.chart import CHART, IMAGE, URL, helm
from tests.stack.programs import ROOT, free_port, running, until

BUILT = ROOT / ".servers" / "kubernetes"
"""The programs, and the custom resource definitions of the Prometheus operator."""

TOKEN = "of-the-tests"

CONTROLLERS = ("deployment", "replicaset", "statefulset", "serviceaccount", "namespace", "garbage-collector")

NAMESPACE = "monitoring"


@dataclass(frozen=True)
class Cluster:
    """The API of a cluster, with a namespace that admits pods by the standard `restricted` only."""

    api: httpx.Client
    kubeconfig: Path

    def helm(self, *arguments: str, **values: Any) -> subprocess.CompletedProcess[str]:
        """Run Helm in the namespace."""
        command = [helm(), *arguments, f"--namespace={NAMESPACE}", f"--kubeconfig={self.kubeconfig}"]
        folder = self.kubeconfig.parent / "helm"
        places = {f"HELM_{each}_HOME": str(folder / each) for each in ("CACHE", "CONFIG", "DATA")}
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=120, env=os.environ | places, **values
        )

    def install(self, *settings: str) -> None:
        """Install the chart, or upgrade what is installed to these settings."""
        ended = self.upgrade(*settings)
        assert ended.returncode == 0, ended.stderr

    def upgrade(self, *settings: str) -> subprocess.CompletedProcess[str]:
        """Try to do the same."""
        flags = [word for setting in (IMAGE, URL, *settings) for word in ("--set", setting)]
        return self.helm("upgrade", "--install", "demo", str(CHART), "--reset-values", *flags)

    def create(self, document: dict[str, Any]) -> httpx.Response:
        """Ask the API whether it would create an object, as strictly as it can: without unknown fields."""
        path = self._path(document["apiVersion"], document["kind"])
        return self.api.post(path, params={"dryRun": "All", "fieldValidation": "Strict"}, json=document)

    def list(self, api_version: str, kind: str) -> list[dict[str, Any]]:
        """Return the objects of a kind in the namespace."""
        items: list[dict[str, Any]] = self._json(self._path(api_version, kind))["items"]
        return items

    def names(self, api_version: str, kind: str) -> set[str]:
        """Return their names."""
        return {each["metadata"]["name"] for each in self.list(api_version, kind)}

    def _path(self, api_version: str, kind: str) -> str:
        group = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
        (resource,) = (
            each["name"]
            for each in self._json(group)["resources"]
            if each["kind"] == kind and "/" not in each["name"] and each["namespaced"]
        )
        return f"{group}/namespaces/{NAMESPACE}/{resource}"

    def _json(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api.get(path).raise_for_status().json()
        return found


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Run a cluster. The test is skipped where its programs are missing."""
    if not (BUILT / "kube-apiserver").exists():
        pytest.skip("kube-apiserver is not in .servers/kubernetes; `make test-kubernetes` builds it where Go is")
    key = folder / "service-accounts.key"
    trustme.CA().private_key_pem.write_to_path(str(key))
    (folder / "tokens.csv").write_text(f"{TOKEN},admin,admin,system:masters\n")
    with etcd(folder) as store, api_server(folder, store, key) as url:
        kubeconfig = write_kubeconfig(folder, url)
        with httpx.Client(base_url=url, headers=authorization(), verify=unverified(), timeout=30) as api:
            labels = {"pod-security.kubernetes.io/enforce": "restricted"}
            namespace = {"metadata": {"name": NAMESPACE, "labels": labels}}
            api.post("/api/v1/namespaces", json=namespace).raise_for_status()
            define_kinds_of_the_operator(api)
            with controllers(folder, kubeconfig, key):
                yield Cluster(api, kubeconfig)


@contextlib.contextmanager
def etcd(folder: Path) -> Iterator[str]:
    url, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    command = [
        str(BUILT / "etcd"),
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
    ]
    with running(command, url, folder / "etcd.log", ready="/health"):
        yield url


@contextlib.contextmanager
def api_server(folder: Path, store: str, key: Path) -> Iterator[str]:
    port = free_port()
    command = [
        str(BUILT / "kube-apiserver"),
        f"--etcd-servers={store}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={folder / 'certificates'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=AlwaysAllow",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
    ]
    url = f"https://127.0.0.1:{port}"
    log = folder / "api-server.log"
    with running(command, url, log, ready="/readyz", headers=authorization(), verify=unverified()):
        yield url


@contextlib.contextmanager
def controllers(folder: Path, kubeconfig: Path, key: Path) -> Iterator[None]:
    port = free_port()
    command = [
        str(BUILT / "kube-controller-manager"),
        f"--kubeconfig={kubeconfig}",
        f"--service-account-private-key-file={key}",
        f"--controllers={','.join(f'{each}-controller' for each in CONTROLLERS)}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={folder / 'certificates-of-controllers'}",
    ]
    url = f"https://127.0.0.1:{port}"
    with running(command, url, folder / "controllers.log", ready="/healthz", verify=unverified()):
        yield


def define_kinds_of_the_operator(api: httpx.Client) -> None:
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for file in sorted((BUILT / "definitions").glob("*.yaml")):
        document = yaml.safe_load(file.read_text())
        api.post(definitions, json=document).raise_for_status()
        group, version = document["spec"]["group"], document["spec"]["versions"][0]["name"]
        resource = document["spec"]["names"]["plural"]
        path = f"/apis/{group}/{version}/{resource}"
        until(lambda path=path: api.get(path).is_success, f"the API serves {path}")  # type: ignore[misc]


def write_kubeconfig(folder: Path, url: str) -> Path:
    name = "tests"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": url, "insecure-skip-tls-verify": True}}],
        "users": [{"name": name, "user": {"token": TOKEN}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(document))
    file.chmod(0o600)
    return file


def authorization() -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKEN}"}


def unverified() -> ssl.SSLContext:
    """The server makes its certificate itself when it starts."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
