"""What settings of the chart lead to: shards, tokens of several runtimes, network policies, passwords and volumes."""

import contextlib
import json
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from exporter.config import ExporterConfig, TlsConfig, load
from tests.scaling.chart import CHART, IMAGE, URL, helm, misfits, of_the_operator, one, rendered, template
from tests.scaling.relabeling import scrape_config
from tests.stack.programs import ROOT, prometheus_with, until

RUNTIMES = (
    "config.runtimes[0].name=eu",
    "config.runtimes[0].base_url=https://eu.example.com:8443",
    "config.runtimes[0].token_file=/run/secrets/spinner-exporter/eu",
    "config.runtimes[1].name=us",
    "config.runtimes[1].base_url=http://us.example.com",
    "config.runtimes[1].token_file=/run/secrets/spinner-exporter/us",
)
PROJECTS = 200


# -- shards -----------------------------------------------------------------------------------------------------


def test_each_of_the_operator_s_shards_scrapes_its_own_projects(tmp_path: Path) -> None:
    spec = one(rendered(URL, "scrapeConfig.enabled=true", "scrapeConfig.shards=2", "replicas=2"), "ScrapeConfig")[
        "spec"
    ]
    kept = [projects_of(tmp_path, spec, shard) for shard in range(2)]
    assert Counter(instance for shard in kept for instance in shard) == {f"eu/p{n}": 1 for n in range(PROJECTS)}
    for shard in kept:
        replicas = Counter(shard.values())
        assert len(replicas) == 2, f"a shard uses one replica only: {replicas}"
        assert min(replicas.values()) > PROJECTS / 10


def test_without_shards_in_the_chart_the_operator_s_first_shard_scrapes_all_projects(tmp_path: Path) -> None:
    """The operator adds no shards of its own, so that every shard would scrape everything."""
    spec = one(rendered(URL, "scrapeConfig.enabled=true"), "ScrapeConfig")["spec"]
    assert [len(projects_of(tmp_path, spec, shard)) for shard in range(2)] == [PROJECTS, 0]


def projects_of(folder: Path, spec: dict[str, Any], shard: int) -> dict[str, str]:
    """Return the address at which a real Prometheus scrapes each project (`instance`) as a shard of the operator."""
    targets = [
        {
            "targets": ["any-replica:10095"],
            "labels": {"__metrics_path__": "/probe", "__param_runtime": "eu", "__param_project": f"p{number}"},
        }
        for number in range(PROJECTS)
    ]
    (folder / "targets.json").write_text(json.dumps(targets))
    job = scrape_config(spec, shard) | {"file_sd_configs": [{"files": [str(folder / "targets.json")]}]}
    found: list[dict[str, Any]] = []

    def discovered() -> bool:
        answer = httpx.get(f"{url}/api/v1/targets").json()["data"]
        found[:] = answer["activeTargets"]
        return len(found) + len(answer["droppedTargets"]) == PROJECTS

    with prometheus_with(folder, {"scrape_configs": [job]}) as url:
        until(discovered, "Prometheus has discovered all projects")
    return {each["labels"]["instance"]: each["scrapeUrl"].partition("/probe")[0] for each in found}


def test_every_shard_scrapes_the_series_of_the_runtime() -> None:
    both = (URL, "serviceMonitor.enabled=true", "scrapeConfig.enabled=true")
    (endpoint,) = one(rendered(*both), "ServiceMonitor")["spec"]["endpoints"]
    assert {"targetLabel": "__tmp_disable_sharding", "replacement": "true"} in endpoint["relabelings"]


# -- Secrets, and several runtimes ------------------------------------------------------------------------------

SECRETS = "/run/secrets/spinner-exporter"


def settings_of_the_pod(folder: Path, *settings: str) -> tuple[ExporterConfig, dict[str, Any]]:
    """Return the settings that the exporter of a rendered pod loads, and the pod."""
    documents = rendered(*settings)
    pod = one(documents, "Deployment")["spec"]["template"]["spec"]
    environ = {each["name"]: each["value"] for each in pod["containers"][0]["env"]}
    (folder / "exporter.yml").write_text(one(documents, "ConfigMap", "spinner-exporter")["data"]["exporter.yml"])
    return load(folder / "exporter.yml", environ=environ), pod


LOGIN = ("auth.login.path=/auth/token", f"auth.login.body_file={SECRETS}/login.json")
CERTIFICATES = (f"tls.ca_file={SECRETS}/ca.crt", f"tls.cert_file={SECRETS}/tls.crt", f"tls.key_file={SECRETS}/tls.key")


@pytest.mark.parametrize(
    ("settings", "token", "login"),
    [
        (("token.key=api-key",), f"{SECRETS}/api-key", None),
        (("config.runtime.token_file=/run/secrets/spinner-exporter/eu",), f"{SECRETS}/eu", None),
        (("config.runtime.token_file=/vault/token", f"config.runtime.tls.ca_file={SECRETS}/ca"), "/vault/token", None),
        ([f"config.runtime.{each}" for each in LOGIN], None, f"{SECRETS}/login.json"),
        ([f"config.runtime.{each}" for each in CERTIFICATES], f"{SECRETS}/token", None),
        (["token.key=", *(f"config.runtime.{each}" for each in CERTIFICATES)], None, None),
    ],
)
def test_a_single_runtime_reads_its_token_its_login_and_its_certificates_from_one_secret(
    settings: Sequence[str], token: str | None, login: str | None, tmp_path: Path
) -> None:
    loaded, pod = settings_of_the_pod(tmp_path, URL, "token.secretName=runtime", *settings)
    ((_, config),) = loaded.runtimes.items()
    assert config.runtime.token_file == token
    assert (config.runtime.auth.login and config.runtime.auth.login.body_file) == login
    if any("tls.cert_file" in each for each in settings):
        assert config.runtime.tls == TlsConfig(*(f"{SECRETS}/{name}" for name in ("ca.crt", "tls.crt", "tls.key")))
    assert all_keys_are_mounted(pod)


def all_keys_are_mounted(pod: dict[str, Any]) -> bool:
    (volume,) = (each["secret"] for each in pod["volumes"] if each["name"] == "token")
    (mount,) = (each for each in pod["containers"][0]["volumeMounts"] if each["name"] == "token")
    return "items" not in volume and "subPath" not in mount and mount["mountPath"] == SECRETS


@pytest.mark.parametrize("nothing", [[], None])
def test_an_empty_list_of_runtimes_beside_a_runtime_is_left_out(nothing: object, tmp_path: Path) -> None:
    values = {"config": {"runtime": {"base_url": "https://runtime.example.com"}, "runtimes": nothing}}
    config = one(rendered(values=values), "ConfigMap", "spinner-exporter")["data"]["exporter.yml"]
    (tmp_path / "exporter.yml").write_text(config)
    assert list(load(tmp_path / "exporter.yml", environ={}).runtimes) == ["runtime.example.com"]


@pytest.mark.parametrize("nothing", [{}, None])
def test_an_empty_runtime_beside_a_list_of_runtimes_is_left_out(nothing: object, tmp_path: Path) -> None:
    runtimes = [{"name": name, "base_url": f"https://{name}.example.com"} for name in ("eu", "us")]
    documents = rendered(values={"config": {"runtime": nothing, "runtimes": runtimes}})
    (tmp_path / "exporter.yml").write_text(one(documents, "ConfigMap", "spinner-exporter")["data"]["exporter.yml"])
    assert set(load(tmp_path / "exporter.yml", environ={}).runtimes) == {"eu", "us"}


def test_several_runtimes_read_their_logins_from_one_secret(tmp_path: Path) -> None:
    login = [f"config.runtimes[0].{each}" for each in LOGIN]
    flows = ("config.runtimes[0].name=flows", "config.runtimes[0].base_url=https://flows.example.com")
    airflow = "config.runtimes[0].preset=airflow"
    loaded, pod = settings_of_the_pod(tmp_path, *flows, airflow, *login, "token.secretName=runtime")
    assert loaded.runtimes["flows"].runtime.auth.login is not None
    assert loaded.runtimes["flows"].runtime.auth.login.body_file == f"{SECRETS}/login.json"
    assert all_keys_are_mounted(pod)


def test_variables_volumes_and_mounts_can_be_added(tmp_path: Path) -> None:
    more = (
        "config.runtime.preset=/etc/presets/ours.yml",
        "extraEnv[0].name=HTTPS_PROXY",
        "extraEnv[0].value=http://proxy:3128",
        "extraVolumes[0].name=presets",
        "extraVolumes[0].configMap.name=presets",
        "extraVolumeMounts[0].name=presets",
        "extraVolumeMounts[0].mountPath=/etc/presets",
    )
    for shape in ((), ("token.secretName=runtime",), ("config.projects.on_probe=true",)):
        pod = one(rendered(URL, *more, *shape), "Deployment")["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert container["env"][-1] == {"name": "HTTPS_PROXY", "value": "http://proxy:3128"}
        assert pod["volumes"][-1] == {"name": "presets", "configMap": {"name": "presets"}}
        assert container["volumeMounts"][-1] == {"name": "presets", "mountPath": "/etc/presets"}


@pytest.mark.parametrize("more", [(), ("config.runtime=null",)])
def test_several_runtimes_read_their_tokens_from_keys_of_one_secret(tmp_path: Path, more: tuple[str, ...]) -> None:
    loaded, pod = settings_of_the_pod(tmp_path, *RUNTIMES, "token.secretName=tokens", *more)
    assert all_keys_are_mounted(pod)
    assert {name: each.runtime.token_file for name, each in loaded.runtimes.items()} == {
        name: f"{SECRETS}/{name}" for name in ("eu", "us")
    }


def test_the_example_of_several_runtimes_in_the_values_is_valid(tmp_path: Path) -> None:
    values = (CHART / "values.yaml").read_text()
    lines = values[values.index("#  runtimes:") :].splitlines()
    example = [line[1:] for line in lines[: lines.index("")]]
    (tmp_path / "exporter.yml").write_text("\n".join(line.removeprefix("  ") for line in example))
    assert set(load(tmp_path / "exporter.yml", environ={}).runtimes) == {"eu", "us"}


# -- network policies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "ports"),
    [
        (("config.runtime.base_url=https://runtime.example.com",), [443]),
        (("config.runtime.base_url=http://runtime.example.com/path:1/",), [80]),
        (("config.runtime.base_url=http://runtime:8090",), [8090]),
        (("config.runtime.base_url=http://[fd00::1]",), [80]),
        (("config.runtime.base_url=http://[fd00::1]:8090",), [8090]),
        ((URL, "config.runtime.proxy=http://proxy:3128"), [443, 3128]),
        ((URL, "config.runtime.proxy=socks5://proxy"), [443, 1080]),
        ((URL, "config.runtime.proxy=socks5h://proxy"), [443, 1080]),
        ((URL, "config.runtime.proxy=none"), [443]),
        ((URL, "networkPolicy.runtimePorts[0]=8443", "networkPolicy.runtimePorts[1]=443"), [443, 8443]),
        (RUNTIMES, [8443, 80]),
        ((*RUNTIMES, "config.runtimes[1].proxy=https://proxy:3129"), [8443, 80, 3129]),
    ],
)
def test_a_pod_may_reach_dns_the_runtimes_and_their_proxies(
    settings: tuple[str, ...], ports: list[int], tmp_path: Path
) -> None:
    documents = rendered(*settings)
    dns, runtimes = one(documents, "NetworkPolicy")["spec"]["egress"]
    assert dns["ports"] == [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]
    assert runtimes == {"ports": [{"port": port} for port in ports]}
    (tmp_path / "exporter.yml").write_text(one(documents, "ConfigMap", "spinner-exporter")["data"]["exporter.yml"])
    assert load(tmp_path / "exporter.yml", environ={}), "the chart has a port for what the exporter refuses"


def test_no_setting_of_the_network_policy_opens_everything() -> None:
    """A rule with `ports: null` or `from: null` allows everything."""
    empty = ("networkPolicy.runtimePorts=null", "networkPolicy.dnsPorts=null", "networkPolicy.from=null")
    spec = one(rendered(URL, *empty), "NetworkPolicy")["spec"]
    assert spec["egress"] == [{"ports": [{"port": 443}]}]
    assert spec["ingress"] == [{"ports": [{"port": "http"}], "from": [{"podSelector": {}}]}]


# -- passwords and TLS ------------------------------------------------------------------------------------------

SCRAPED = (URL, "serviceMonitor.enabled=true", "scrapeConfig.enabled=true", "replicas=2")
PASSWORD = {"username": {"name": "web", "key": "username"}, "password": {"name": "web", "key": "password"}}


def scraping(*settings: str) -> list[dict[str, Any]]:
    """Return the parts of the rendered objects that say how Prometheus scrapes and lists."""
    documents = rendered(*SCRAPED, *settings)
    spec = one(documents, "ScrapeConfig")["spec"]
    return [*one(documents, "ServiceMonitor")["spec"]["endpoints"], spec, *spec["httpSDConfigs"]]


def test_prometheus_authenticates_with_keys_of_the_web_config_s_secret() -> None:
    parts = scraping("webConfig.secretName=web")
    assert len(parts) == 4
    assert all(part["basicAuth"] == PASSWORD for part in parts)
    assert not any("tlsConfig" in part for part in parts)


def test_prometheus_trusts_the_certificate_authority_of_the_web_config_s_secret() -> None:
    parts = scraping("webConfig.secretName=web", "webConfig.caKey=ca.crt")
    trust = {
        "ca": {"secret": {"name": "web", "key": "ca.crt"}},
        "serverName": "demo-spinner-exporter.monitoring.svc",
    }
    assert all(part["tlsConfig"] == trust for part in parts)
    endpoint, spec, *lists = parts
    assert (endpoint["scheme"], spec["scheme"]) == ("https", "HTTPS")
    assert all(each["url"].startswith("https://") for each in lists)


def test_a_web_config_without_users_sends_no_password() -> None:
    assert not any("basicAuth" in part for part in scraping("webConfig.secretName=web", "webConfig.usernameKey="))


def test_settings_of_their_own_override_those_of_the_web_config() -> None:
    own = ("scrapeConfig.basicAuth.username.name=own", "scrapeConfig.basicAuth.username.key=u")
    endpoint, *parts = scraping("webConfig.secretName=web", *own)
    assert endpoint["basicAuth"] == PASSWORD
    assert all(part["basicAuth"] == {"username": {"name": "own", "key": "u"}} for part in parts)


@pytest.mark.parametrize(("kubernetes", "policy"), [("1.26", None), ("1.27", "AlwaysAllow"), ("1.31", "AlwaysAllow")])
def test_pods_that_are_not_ready_do_not_block_the_drain_of_their_node(kubernetes: str, policy: str | None) -> None:
    budget = one(rendered(URL, "replicas=2", kubernetes=kubernetes), "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget.get("unhealthyPodEvictionPolicy") == policy


# -- readiness and notes ----------------------------------------------------------------------------------------

TLS = ("webConfig.secretName=web", "webConfig.caKey=ca.crt")
WITHOUT_USERS = ("webConfig.usernameKey=",)
CLIENT_CERTIFICATES = ("serviceMonitor.tlsConfig.cert.secret.name=client",)


@pytest.mark.parametrize(
    ("settings", "scheme"),
    [
        ((), "HTTP"),
        ((*TLS, *WITHOUT_USERS), "HTTPS"),
        (TLS, None),
        ((*TLS, *WITHOUT_USERS, *CLIENT_CERTIFICATES), None),
        (("webConfig.secretName=web",), None),
        (("webConfig.secretName=web", *WITHOUT_USERS), None),
    ],
)
def test_a_pod_is_ready_after_the_first_read_where_the_kubelet_can_ask(
    settings: tuple[str, ...], scheme: str | None, tmp_path: Path
) -> None:
    (container,) = one(rendered(URL, *settings), "Deployment")["spec"]["template"]["spec"]["containers"]
    probe = container["readinessProbe"]
    expected = None if scheme is None else {"path": "/-/ready", "port": "http", "scheme": scheme}
    assert probe.get("httpGet") == expected
    assert ("tcpSocket" in probe) == (scheme is None)
    assert ("tcpSocket" in container["livenessProbe"]) == bool(settings)
    assert ("Pods are ready as soon as they listen" in notes(tmp_path, *settings)) == (scheme is None)


@pytest.mark.parametrize(
    ("settings", "command"),
    [
        ((), "curl -s http://localhost:10095/metrics"),
        (("webConfig.secretName=web",), "curl -s -u USER http://localhost:10095/metrics"),
        (TLS, "curl -sk -u USER https://localhost:10095/metrics"),
        ((*TLS, *WITHOUT_USERS), "curl -sk https://localhost:10095/metrics"),
        (
            ("webConfig.secretName=web", "serviceMonitor.scheme=https"),
            "curl -sk -u USER https://localhost:10095/metrics",
        ),
    ],
)
def test_the_notes_say_how_to_ask_the_exporter(settings: tuple[str, ...], command: str, tmp_path: Path) -> None:
    assert f"  {command} | grep spinner_api_up" in notes(tmp_path, *settings).splitlines()


def notes(folder: Path, *settings: str) -> str:
    """Return what `helm install` prints, which `helm template` leaves out."""
    chart = folder / "chart"
    shutil.copytree(CHART, chart)
    (chart / "templates" / "NOTES.txt").rename(chart / "notes")
    text = '{{ dict "kind" "Notes" "metadata" (dict "name" "notes") "text" (tpl (.Files.Get "notes") .) | toYaml }}'
    (chart / "templates" / "notes.yaml").write_text(text)
    documents = rendered(URL, *settings, chart=chart)
    return str(one(documents, "Notes")["text"])


# -- more fields of the operator's objects -----------------------------------------------------------------------


def test_fields_that_runbooks_and_docs_name_can_be_added() -> None:
    """As `SpinnerHistogramsConverted` and docs/scaling.md say."""
    classic = {"scrapeClassicHistograms": True, "convertClassicHistogramsToNHCB": False}
    runbook = (ROOT / "alerts" / "runbooks" / "SpinnerHistogramsConverted.md").read_text()
    assert all(name in runbook for name in classic)
    drop = {"metricRelabelings": [{"sourceLabels": ["__name__"], "regex": "spinner_run_info", "action": "drop"}]}
    values = {
        "serviceMonitor": {"spec": classic, "endpoint": drop},
        "scrapeConfig": {"spec": classic | drop | {"sampleLimit": 2_000_000}},
    }
    documents = rendered(*SCRAPED, "webConfig.secretName=web", values=values)
    before = rendered(*SCRAPED, "webConfig.secretName=web")
    monitor, monitor_before = (one(each, "ServiceMonitor")["spec"] for each in (documents, before))
    assert monitor == {**monitor_before, **classic, "endpoints": [{**monitor_before["endpoints"][0], **drop}]}
    projects, projects_before = (one(each, "ScrapeConfig")["spec"] for each in (documents, before))
    assert projects == {**projects_before, **classic, **drop, "sampleLimit": 2_000_000}
    assert not misfits(of_the_operator(documents))


def test_relabelings_that_are_added_keep_those_of_the_chart() -> None:
    """Without them every shard scrapes everything, and the rules find no job."""
    own = {"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"}
    values = {"serviceMonitor": {"endpoint": {"relabelings": [own]}}, "scrapeConfig": {"spec": {"relabelings": [own]}}}
    added, chart_s = (relabelings(rendered(*SCRAPED, values=each)) for each in (values, None))
    assert added == [[*of_the_chart, own] for of_the_chart in chart_s]


def relabelings(documents: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    (endpoint,) = one(documents, "ServiceMonitor")["spec"]["endpoints"]
    return [endpoint["relabelings"], one(documents, "ScrapeConfig")["spec"]["relabelings"]]


@pytest.mark.parametrize("key", ["selector", "endpoints"])
def test_what_the_service_monitor_scrapes_cannot_be_added_twice(key: str) -> None:
    ended = template(*SCRAPED, values={"serviceMonitor": {"spec": {key: {}}}})
    assert ended.returncode != 0
    assert key in ended.stderr


# -- values that are null ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [(), ("webConfig.secretName=web",), ("persistence.enabled=true",)])
def test_what_is_empty_by_default_and_times_can_be_null(more: tuple[str, ...]) -> None:
    """Helm removes such a key, and a template that reads a key below it fails with words of its own."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    del values["config"], values["image"]
    probed = () if "persistence.enabled=true" in more else ("scrapeConfig.enabled=true",)
    everything = (URL, "serviceMonitor.enabled=true", "prometheusRule.enabled=true", "dashboards.enabled=true", *probed)
    ended = template(*everything, *more, values=with_nulls(values))
    assert ended.returncode == 0, ended.stderr


def with_nulls(values: dict[str, Any]) -> dict[str, Any]:
    """Return null for each value that is empty or a duration."""
    nulls: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            nulls[name] = with_nulls(value)
        elif value in ({}, [], "") or name in ("interval", "scrapeTimeout"):
            nulls[name] = None
    return nulls


def test_the_notes_say_that_there_is_no_token_only_if_there_is_none(tmp_path: Path) -> None:
    word = "No Secret is set (token.secretName)"
    own = "config.runtime.token_file=/vault/token"
    for number, (settings, expected) in enumerate((((), True), (("token.secretName=x",), False), ((own,), False))):
        assert (word in notes(tmp_path / str(number), *settings)) == expected


# -- times ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["serviceMonitor", "scrapeConfig"])
@pytest.mark.parametrize(
    ("interval", "timeout", "refused"),
    [
        ("15s", "10s", False),
        ("15s", "15s", False),
        ("15s", "15001ms", True),
        ("15s", "16s", True),
        ("1m", "30s", False),
        ("1m", "61s", True),
        ("1m30s", "90s", False),
        ("1m30s", "1m31s", True),
        ("500ms", "1s", True),
        ("1h", "59m60s", False),
        ("1d", "25h", True),
    ],
)
def test_a_timeout_longer_than_the_interval_is_refused(kind: str, interval: str, timeout: str, refused: bool) -> None:
    """The operator ignores such an object, and nothing would be scraped without a word."""
    times = (f"{kind}.interval={interval}", f"{kind}.scrapeTimeout={timeout}")
    ended = template(URL, f"{kind}.enabled=true", *times)
    expected = f"{kind}.scrapeTimeout: expected at most the interval, {interval}; got {timeout}"
    assert (ended.returncode != 0, expected in ended.stderr) == (refused, refused)
    assert template(URL, *times).returncode == 0, "the times of an object that is not made matter"


# -- volumes ----------------------------------------------------------------------------------------------------


def test_workloads_whose_volumes_differ_have_names_of_their_own() -> None:
    """Kubernetes does not allow to change a StatefulSet's volumes; a workload with another name replaces it."""
    shapes = ((), ("persistence.enabled=true",), ("scrapeConfig.enabled=true",))
    workloads = [document for shape in shapes for document in rendered(URL, *shape) if "Set" in document["kind"]]
    workloads += [one(rendered(URL), "Deployment")]
    assert len({workload["metadata"]["name"] for workload in workloads}) == len(shapes)


def test_a_long_release_name_leaves_room_for_the_controller_s_hash() -> None:
    release = "a" * 53
    command = [helm(), "template", release, str(CHART), "--kube-version=1.31.0", "--set", IMAGE, "--set", URL]
    for shape in ("persistence.enabled=true", "scrapeConfig.enabled=true"):
        ended = subprocess.run([*command, "--set", shape], capture_output=True, text=True, check=True)
        documents = [document for document in yaml.safe_load_all(ended.stdout) if document]
        name = one(documents, "StatefulSet")["metadata"]["name"]
        # Kubernetes appends `-` and ten characters, and the whole is the value of a label.
        assert len(name) <= 63 - 11, name


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ((), False),
        (("persistence.size=1024Mi",), False),
        (("persistence.size=1073741824",), False),
        (("persistence.size=2Gi",), True),
    ],
)
def test_another_size_of_an_existing_volume_is_refused_with_what_to_do(
    settings: tuple[str, ...], refused: bool, tmp_path: Path
) -> None:
    message = install(tmp_path, "persistence.enabled=true", *settings).stderr
    delete = "kubectl -n monitoring delete statefulset demo-spinner-exporter-persistent --cascade=orphan"
    assert (delete in message, f"edit pvc -l {CLAIMS}" in message, "size 1Gi" in message) == (refused,) * 3, message


@pytest.mark.parametrize("more", [(), ("persistence.size=2Gi",)])
def test_another_class_of_an_existing_volume_is_refused_and_loses_the_state(
    more: tuple[str, ...], tmp_path: Path
) -> None:
    """A claim keeps its class, and a new pod takes the claim of its name."""
    message = install(tmp_path, "persistence.enabled=true", "persistence.storageClass=fast", *more).stderr
    assert (
        "lose the state: delete it (kubectl -n monitoring delete statefulset demo-spinner-exporter-persistent)"
        in message
    )
    assert f"kubectl -n monitoring delete pvc -l {CLAIMS}" in message
    assert "--cascade=orphan" not in message


CLAIMS = "app.kubernetes.io/name=spinner-exporter,app.kubernetes.io/instance=demo"


def test_claims_are_selected_by_the_labels_that_kubernetes_gives_them() -> None:
    """Those of the selector, which another chart of the same release does not have."""
    selector = one(rendered(URL, "persistence.enabled=true"), "StatefulSet")["spec"]["selector"]["matchLabels"]
    assert ",".join(f"{name}={value}" for name, value in selector.items()) == CLAIMS


def install(folder: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    """Install the chart into a cluster that has a StatefulSet with a volume of 1Gi, and accepts nothing new."""
    flags = [word for setting in (IMAGE, URL, *settings) for word in ("--set", setting)]
    with cluster(folder) as config:
        command = [helm(), "install", "demo", str(CHART), "--namespace=monitoring", f"--kubeconfig={config}", *flags]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Path]:
    """Run the part of a Kubernetes API that Helm's `lookup` needs, and yield its kubeconfig."""
    server = HTTPServer(("127.0.0.1", 0), _Cluster)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    config = folder / "kubeconfig.json"
    config.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
                "users": [{"name": "test", "user": {}}],
            }
        )
    )
    config.chmod(0o600)
    try:
        yield config
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


_VOLUME = {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}
_ANSWERS: dict[str, object] = {
    "/version": {"major": "1", "minor": "31", "gitVersion": "v1.31.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {
        "kind": "APIGroupList",
        "groups": [
            {
                "name": "apps",
                "versions": [{"groupVersion": "apps/v1", "version": "v1"}],
                "preferredVersion": {"groupVersion": "apps/v1", "version": "v1"},
            }
        ],
    },
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": []},
    "/apis/apps/v1": {
        "kind": "APIResourceList",
        "groupVersion": "apps/v1",
        "resources": [{"name": "statefulsets", "namespaced": True, "kind": "StatefulSet", "verbs": ["get"]}],
    },
    "/api/v1/namespaces/monitoring/secrets": {"kind": "SecretList", "apiVersion": "v1", "items": []},
    "/apis/apps/v1/namespaces/monitoring/statefulsets/demo-spinner-exporter-persistent": {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "demo-spinner-exporter-persistent", "namespace": "monitoring"},
        "spec": {"volumeClaimTemplates": [_VOLUME]},
    },
}


class _Cluster(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answer = _ANSWERS.get(self.path.partition("?")[0])
        body = json.dumps(answer or {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404}).encode()
        self.send_response(200 if answer else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *args: object) -> None:
        """Stay silent."""


# -- contradictions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((*RUNTIMES, URL), "config.runtime: expected either runtime or runtimes, not both"),
        ((*RUNTIMES, "config.runtime.timeout=5s"), "config.runtime: expected either runtime or runtimes, not both"),
        ((URL, "image.repository="), "image.repository: expected the name of an image that the cluster can pull"),
        (("config.runtime=null",), "config.runtime.base_url: expected the URL"),
        (("config.runtimes[0].name=eu",), "base_url"),
        (("config.runtime.base_url=runtime.example.com",), "expected a URL such as https://runtime.example.com"),
        ((*RUNTIMES[:2], "token.secretName=tokens"), "token.secretName: the config does not use it"),
        ((URL, "token.secretName=tokens", "token.key="), "token.secretName: the config does not use it"),
        (
            (URL, "config.runtime.token_file=/a", "token.secretName=tokens"),
            "token.secretName: the config does not use it",
        ),
        ((*RUNTIMES, "persistence.enabled=true", "scrapeConfig.enabled=true"), "persistence.enabled: expected false"),
    ],
)
def test_contradictions_are_rejected(settings: tuple[str, ...], message: str) -> None:
    ended = template(*settings)
    assert ended.returncode != 0
    assert message in ended.stderr
