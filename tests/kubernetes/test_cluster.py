"""The chart in a real cluster: what its API accepts, and what its controllers do when settings change."""

from collections.abc import Iterator

import pytest

from tests.kubernetes.cluster import NAMESPACE, Cluster, cluster
from tests.scaling.chart import URL, rendered
from tests.scaling.test_helm import EVERYTHING, RUNTIMES
from tests.stack.programs import until

PERSISTENT = "persistence.enabled=true"

APPS = "apps/v1"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.mark.parametrize(
    "settings",
    [
        (URL,),
        RUNTIMES,
        EVERYTHING,
        (*EVERYTHING, "webConfig.caKey=ca.crt", "scrapeConfig.shards=2"),
        (URL, PERSISTENT, "persistence.storageClass=fast", "replicas=3"),
    ],
)
def test_the_api_accepts_each_object_without_a_field_that_it_does_not_know(
    running: Cluster, settings: tuple[str, ...]
) -> None:
    for document in rendered(*settings):
        answer = running.create(document)
        assert answer.is_success, f"{document['kind']} {document['metadata']['name']}: {answer.text}"


def test_the_api_is_asked_strictly(running: Cluster) -> None:
    """The check above relies on it."""
    deployment, service = (
        next(each for each in rendered(URL) if each["kind"] == kind) for kind in ("Deployment", "Service")
    )
    deployment["spec"]["template"]["spec"]["containers"][0]["imagePullPolcy"] = "Always"
    service["spec"]["ports"][0]["port"] = 123456
    monitor = next(each for each in rendered(*EVERYTHING) if each["kind"] == "ServiceMonitor")
    monitor["spec"]["endpoints"][0]["interval"] = "often"
    for document, field in ((deployment, "imagePullPolcy"), (service, "port"), (monitor, "interval")):
        answer = running.create(document)
        assert answer.is_client_error, document["kind"]
        assert field in answer.text


def test_a_release_is_installed_changed_rolled_back_and_removed(running: Cluster) -> None:
    running.install("replicas=2")
    wait_for_pods(running, 2)
    assert len(running.names(APPS, "Deployment")) == 1

    running.install("replicas=2", PERSISTENT)
    until(lambda: not running.names(APPS, "Deployment"), "the Deployment is replaced")
    wait_for_pods(running, 2, "StatefulSet")

    refused = running.upgrade("replicas=2", PERSISTENT, "persistence.size=2Gi")
    assert refused.returncode != 0, "Kubernetes cannot change the size of a StatefulSet's volumes"
    assert "delete statefulset" in refused.stderr, refused.stderr
    assert "Forbidden" not in refused.stderr, "it is refused with what to do, not by the API"

    running.install("replicas=2", "scrapeConfig.enabled=true", "serviceMonitor.enabled=true")
    wait_for_pods(running, 2, "StatefulSet")
    assert running.names("monitoring.coreos.com/v1", "ServiceMonitor")

    rolled_back = running.helm("rollback", "demo", "1")
    assert rolled_back.returncode == 0, rolled_back.stderr
    until(lambda: not running.names(APPS, "StatefulSet"), "the first revision had no StatefulSet")
    wait_for_pods(running, 2)

    removed = running.helm("uninstall", "demo")
    assert removed.returncode == 0, removed.stderr
    until(lambda: not running.names("v1", "Pod"), "nothing is left")
    left = running.names("v1", "PersistentVolumeClaim")
    assert len(left) == 2, "Kubernetes keeps the volumes of a StatefulSet, and with them the state"


def wait_for_pods(running: Cluster, number: int, kind: str = "ReplicaSet") -> None:
    """Wait until the controllers have created pods, which the namespace admits only if they are `restricted`."""

    def created() -> bool:
        refused = [each["message"] for each in running.list("v1", "Event") if each["reason"] == "FailedCreate"]
        assert not refused, "\n".join(refused)
        pods = running.list("v1", "Pod")
        return len([pod for pod in pods if pod["metadata"]["ownerReferences"][0]["kind"] == kind]) == number

    until(created, f"{number} pods of a {kind} are in {NAMESPACE}, and no others")


def test_a_pod_with_more_privileges_is_not_admitted(running: Cluster) -> None:
    """The test above relies on it."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "root"},
        "spec": {"containers": [{"name": "root", "image": "registry.example.com/root"}]},
    }
    answer = running.create(pod)
    assert answer.status_code == 403
    assert "restricted" in answer.text
