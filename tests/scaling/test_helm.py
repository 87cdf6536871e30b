"""The chart: rendered by Helm, and checked with Kubernetes's schemas, promtool and the exporter's config check."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from exporter.config import load
from tests.scaling.chart import CHART, KUBERNETES, URL, misfits, of_the_operator, one, rendered, template
from tests.scaling.relabeling import scrape_config
from tests.stack.programs import ROOT, program, spinner_exporter

RULES = ("alerts", "recording")
EVERYTHING = (
    URL,
    "token.secretName=runtime-token",
    "webConfig.secretName=web",
    "replicas=2",
    "serviceMonitor.enabled=true",
    "serviceMonitor.labels.release=prometheus",
    "scrapeConfig.enabled=true",
    "prometheusRule.enabled=true",
    "dashboards.enabled=true",
    "service.annotations.team=sre",
    "podAnnotations.team=sre",
    "podLabels.team=sre",
)
RUNTIMES = (
    "config.runtimes[0].name=eu",
    "config.runtimes[0].base_url=https://eu.example.com",
    "config.runtimes[1].name=us",
    "config.runtimes[1].base_url=https://us.example.com",
)


@pytest.mark.parametrize(
    "settings", [(URL,), EVERYTHING, (URL, "persistence.enabled=true", "persistence.storageClass=fast", "replicas=3")]
)
def test_rendered_objects_conform_to_kubernetes_schemas(settings: tuple[str, ...]) -> None:
    documents = rendered(*settings)
    for document in documents:
        if document["apiVersion"].startswith("monitoring.coreos.com"):
            continue  # kinds of the Prometheus operator, which tests below check
        try:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            pytest.fail(f"{document['kind']}: {'.'.join(map(str, error.path))}: {error.message}")
    names = [(document["kind"], document["metadata"]["name"]) for document in documents]
    assert len(set(names)) == len(names), "two objects have the same name"


def test_rendered_objects_conform_to_the_schemas_of_the_prometheus_operator() -> None:
    assert not misfits(of_the_operator(rendered(*EVERYTHING, "webConfig.caKey=ca.crt", "scrapeConfig.shards=2")))


def test_the_schemas_of_the_prometheus_operator_are_applied() -> None:
    objects = of_the_operator(rendered(*EVERYTHING))
    one(objects, "ScrapeConfig")["spec"]["scrapeInterval"] = "often"
    one(objects, "ServiceMonitor")["spec"]["endpoints"] = "all"
    assert sorted(line.split()[0] for line in misfits(objects)) == ["ScrapeConfig", "ServiceMonitor"]


def test_the_exporter_accepts_the_rendered_config(tmp_path: Path) -> None:
    config = one(rendered(*EVERYTHING), "ConfigMap", "spinner-exporter")["data"]["exporter.yml"]
    (tmp_path / "exporter.yml").write_text(config)
    ended = spinner_exporter("check-config", str(tmp_path / "exporter.yml"))
    assert ended.returncode == 0, ended.stderr
    assert "on_probe: true" in config


def test_the_pod_runs_unprivileged_and_reads_its_token_from_a_secret() -> None:
    documents = rendered(*EVERYTHING)
    pod = one(documents, "StatefulSet")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        **dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), 65534),
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert not pod["automountServiceAccountToken"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    environ = {each["name"]: each["value"] for each in container["env"]}
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert environ["SPINNER_EXPORTER_RUNTIME_TOKEN_FILE"].startswith(mounts["token"] + "/")
    assert not [document for document in documents if document["kind"] == "Secret"], (
        "the chart must not create a Secret"
    )


def test_openshift_can_choose_the_user() -> None:
    """With an id of ours, its security context constraints admit no pod."""
    text = (ROOT / "docs" / "scaling.md").read_text()
    (values,) = (yaml.safe_load(each) for each in re.findall(r"```yaml\n(.+?)```", text, re.DOTALL) if "5353" in each)
    for shape in ((), ("persistence.enabled=true",)):
        documents = rendered(URL, *shape, values=values)
        (workload,) = (each for each in documents if each["kind"] in ("Deployment", "StatefulSet"))
        pod = workload["spec"]["template"]["spec"]
        assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        assert not {"runAsUser", "runAsGroup"} & pod["containers"][0]["securityContext"].keys()
        dns = one(documents, "NetworkPolicy")["spec"]["egress"][0]["ports"]
        assert {each["port"] for each in dns} == {5353}


@pytest.mark.parametrize(
    ("settings", "kind", "volume"),
    [
        ((URL,), "Deployment", {"emptyDir": {"sizeLimit": "1Gi"}}),
        ((URL, "persistence.enabled=true"), "StatefulSet", None),
        ((URL, "config.projects.on_probe=true"), "Deployment", None),
        (RUNTIMES, "Deployment", {"emptyDir": {"sizeLimit": "1Gi"}}),
        ((*RUNTIMES, "config.runtimes[1].projects.on_probe=true"), "Deployment", None),
        (EVERYTHING, "StatefulSet", None),
    ],
)
def test_state_survives_a_restart_of_the_container_unless_projects_are_probed(
    settings: tuple[str, ...], kind: str, volume: dict[str, Any] | None, tmp_path: Path
) -> None:
    documents = rendered(*settings)
    workload = one(documents, kind)["spec"]
    pod = workload["template"]["spec"]
    (container,) = pod["containers"]
    environ = {each["name"]: each["value"] for each in container.get("env", ())}
    mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    volumes = {each.pop("name"): each for each in pod["volumes"]}
    claims = [each["metadata"]["name"] for each in workload.get("volumeClaimTemplates", ())]
    folder = environ.get("SPINNER_EXPORTER_STORAGE_PATH")
    assert volumes.get("state") == volume
    assert (folder is None) == (volume is None and not claims)
    if folder is not None:
        assert mounts[str(Path(folder).parent)] == "state"
        assert "state" in [*volumes, *claims]
    (tmp_path / "exporter.yml").write_text(one(documents, "ConfigMap", "spinner-exporter")["data"]["exporter.yml"])
    storage = {} if folder is None else {"SPINNER_EXPORTER_STORAGE_PATH": folder}
    assert load(tmp_path / "exporter.yml", environ=storage).storage.path == folder


@pytest.mark.parametrize(
    ("settings", "sources"),
    [
        ((URL,), [{"podSelector": {}}]),
        (
            (URL, "networkPolicy.from[0].namespaceSelector.matchLabels.name=prometheus"),
            [{"namespaceSelector": {"matchLabels": {"name": "prometheus"}}}],
        ),
    ],
)
def test_pods_of_other_namespaces_may_scrape_only_if_they_are_named(
    settings: tuple[str, ...], sources: list[dict[str, Any]]
) -> None:
    (rule,) = one(rendered(*settings), "NetworkPolicy")["spec"]["ingress"]
    assert rule["from"] == sources


def test_the_flags_of_the_container_exist() -> None:
    arguments = one(rendered(*EVERYTHING), "StatefulSet")["spec"]["template"]["spec"]["containers"][0]["args"]
    help_text = spinner_exporter("serve", "--help").stdout
    for argument in arguments[1:]:
        assert argument.partition("=")[0] in help_text


def test_rendered_rules_and_dashboards_are_those_of_the_project() -> None:
    documents = rendered(*EVERYTHING)
    for name in RULES:
        ours = yaml.safe_load((ROOT / "alerts" / f"{name}.rules.yml").read_text())
        assert one(documents, "PrometheusRule", name)["spec"] == ours
    for file in sorted((ROOT / "dashboards" / "dist").glob("*.json")):
        made = one(documents, "ConfigMap", f"exporter-{file.stem.removeprefix('spinner-')}")
        assert json.loads(made["data"][file.name]) == json.loads(file.read_text())
        assert made["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_promtool_accepts_the_rendered_rules(tmp_path: Path) -> None:
    for name in RULES:
        file = tmp_path / f"{name}.yml"
        file.write_text(yaml.safe_dump(one(rendered(*EVERYTHING), "PrometheusRule", name)["spec"]))
        subprocess.run([program("promtool"), "check", "rules", str(file)], check=True, capture_output=True)


def test_promtool_accepts_the_scrape_config_and_its_replicas_exist(tmp_path: Path) -> None:
    documents = rendered(*EVERYTHING)
    scraping, replicas = one(documents, "ScrapeConfig")["spec"], one(documents, "StatefulSet")
    to = next(each["replacement"] for each in scraping["relabelings"] if each.get("targetLabel") == "__address__")
    headless = replicas["spec"]["serviceName"]
    assert to == f"{replicas['metadata']['name']}-${{1}}.{headless}.monitoring.svc:10095"
    assert one(documents, "Service", headless)["spec"]["clusterIP"] == "None"
    lists = [each["url"] for each in scraping["httpSDConfigs"]]
    assert lists == [f"http://{to.replace('${1}', str(replica))}/sd" for replica in range(2)]
    config = {"scrape_configs": [scrape_config(scraping) | {"http_sd_configs": [{"url": url} for url in lists]}]}
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    subprocess.run(
        [program("promtool"), "check", "config", str(tmp_path / "prometheus.yml")], check=True, capture_output=True
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((), "config.runtime.base_url: expected the URL of the runtime's API"),
        ((URL, "replica=2"), "replica"),
        ((URL, "replicas=none"), "replicas"),
        ((URL, "serviceMonitor.interval=often"), "serviceMonitor.interval"),
        ((URL, "scrapeConfig.enabled=true", "persistence.enabled=true"), "persistence.enabled: expected false"),
        ((URL, "config.projects.on_probe=true", "persistence.enabled=true"), "persistence.enabled: expected false"),
    ],
)
def test_invalid_values_are_rejected(settings: tuple[str, ...], message: str) -> None:
    ended = template(*settings)
    assert ended.returncode != 0
    # Helm 4 writes a key as /serviceMonitor/interval.
    assert message in ended.stderr.replace("/serviceMonitor/", "serviceMonitor.")


# -- without Helm -----------------------------------------------------------------------------------------------


def test_the_values_conform_to_their_schema_which_has_all_of_them() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(values, schema)
    assert set(values) == set(schema["properties"]) - {"global"}


def test_templates_use_existing_values() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for file in sorted((CHART / "templates").iterdir()):
        for path in re.findall(r"\.Values\.([A-Za-z.]*[A-Za-z])", file.read_text()):
            if path.startswith("config."):
                continue  # the exporter's own keys
            at: Any = values
            for key in path.split("."):
                assert key in at, f"{file.name} uses .Values.{path}, which is not in values.yaml"
                at = at[key]


def test_the_rules_and_dashboards_of_the_chart_are_links() -> None:
    for name in RULES:
        assert (CHART / "rules" / f"{name}.rules.yml").resolve() == ROOT / "alerts" / f"{name}.rules.yml"
    assert (CHART / "dashboards").resolve() == ROOT / "dashboards" / "dist"


def test_the_chart_has_the_version_of_the_exporter() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert spinner_exporter("--version").stdout.split()[-1].startswith(chart["appVersion"])
