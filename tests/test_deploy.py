"""Files for deployments: compose file, Dockerfile, systemd unit and configs, checked by the programs that read them.

These tests need no Docker engine. The compose file is validated with the schema of the specification. The Dockerfile is
checked by hadolint, and the package is built from the files that it copies.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from exporter.config import LimitsConfig, SyncConfig, load
from exporter.errors import ConfigError
from exporter.healthcheck import DEFAULT_URL
from exporter.service import SCRAPE_INTERVAL
from tests.stack.programs import ROOT, program, spinner_exporter

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_the_compose_file_conforms_to_the_specification() -> None:
    (schema,) = (file for file in files("check-jsonschema") or () if file.name == "compose-spec.json")
    jsonschema.validate(COMPOSE, json.loads(schema.read_text()))


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_runs_unprivileged_and_read_only(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service.get("network_mode", "") != "host"
    assert not service.get("privileged")
    user = service.get("user") or re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE)[-1]
    assert not user.startswith(("0", "root")), f"{name} runs as root"
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), (
        "a port is published on other interfaces than loopback"
    )


@pytest.mark.parametrize("name", SERVICES)
def test_the_image_of_a_service_is_built_here_or_pinned_by_digest(name: str) -> None:
    assert name in OURS or re.fullmatch(r"[\w/-]+:v?\d+\.\d+\.\d+@sha256:[0-9a-f]{64}", SERVICES[name]["image"])


@pytest.mark.parametrize("name", OURS)
def test_the_health_check_of_our_services_asks_a_path_that_they_have(name: str) -> None:
    """Also in the compose file, because podman drops the image's."""
    command, *arguments = SERVICES[name]["healthcheck"]["test"][1:]
    assert (command, arguments[0]) == ("spinner-exporter", "healthcheck")
    served = SERVICES[name].get("command", ["serve"])[0]
    paths = {"serve": "http://127.0.0.1:10095/-/healthy", "runtime": "/health", "pages": "/-/receiving"}
    assert (arguments[1:] or [DEFAULT_URL])[0].endswith(paths[served])


def test_configs_are_mounted_as_folders() -> None:
    """A mounted file is the old one after an editor has replaced it."""
    mounted = [each.partition(":")[0] for service in SERVICES.values() for each in service.get("volumes", ())]
    sources = [each for each in mounted if each.startswith("./")]
    assert len(sources) >= 5
    assert all((ROOT / source).is_dir() for source in sources)


def test_alertmanager_sends_pages_to_a_service_of_the_compose_file() -> None:
    config = yaml.safe_load((ROOT / "alerts" / "alertmanager.yml").read_text())
    urls = [hook["url"] for receiver in config["receivers"] for hook in receiver.get("webhook_configs", ())]
    hosts = {url.removeprefix("http://").partition("/")[0] for url in urls if "pagerduty" not in url}
    assert hosts == {"pages:9099"}
    pages = SERVICES["pages"]
    assert "--web.listen-address=:9099" in pages["command"]
    assert "network_mode" not in pages, "it would stay in the old network after a restart of the other service"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_a_health_check_and_waits_until_its_dependencies_are_healthy(name: str) -> None:
    service = SERVICES[name]
    assert "healthcheck" in service or (name in OURS and "HEALTHCHECK" in DOCKERFILE)
    for other, condition in service.get("depends_on", {}).items():
        assert other in SERVICES
        assert condition["condition"] == "service_healthy"


def test_every_mounted_file_exists() -> None:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", ()):
            source, _, target = volume.partition(":")
            assert not target or source in COMPOSE["volumes"] or (ROOT / source).exists(), f"{name} mounts {source}"
    assert (ROOT / "deploy" / "secrets" / "demo-token").is_file()


def test_only_the_demo_allows_anonymous_access_to_grafana() -> None:
    anonymous = [name for name in SERVICES if "GF_AUTH_ANONYMOUS_ENABLED" in SERVICES[name].get("environment", {})]
    assert anonymous == ["grafana-demo"]
    assert SERVICES["grafana-demo"]["profiles"] == SERVICES["runtime"]["profiles"] == ["demo"]
    assert SERVICES["grafana-demo"]["environment"]["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


def test_every_variable_of_the_compose_file_is_in_the_example_and_none_is_a_secret() -> None:
    used = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    example = (ROOT / ".env.example").read_text()
    assert used == set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE)) - {"COMPOSE_PROFILES"}
    assert not re.search(r"^\w*(PASSWORD|TOKEN)=", example, re.MULTILINE), "a secret does not belong in the environment"
    ignored = subprocess.run(
        ["git", "check-ignore", ".env", "deploy/secrets/runtime-token", "deploy/secrets/grafana-admin-password"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert len(ignored.stdout.splitlines()) == 3, "a secret could be committed"


@pytest.mark.parametrize("name", ["exporter", "exporter-demo"])
def test_an_exporter_keeps_its_state_in_a_volume(name: str) -> None:
    service = SERVICES[name]
    folder = service["environment"]["SPINNER_EXPORTER_STORAGE_PATH"]
    assert folder in [volume.rpartition(":")[2] for volume in service["volumes"]], "a read-only image keeps nothing"
    assert f"install -d -m 0700 -o 65534 -g 65534 {folder}" in DOCKERFILE, "a new volume belongs to the folder's owner"


def test_memory_and_files_of_the_exporter_are_limited_as_in_the_chart() -> None:
    values = yaml.safe_load((ROOT / "deploy" / "helm" / "spinner-exporter" / "values.yaml").read_text())
    limit = values["resources"]["limits"]["memory"]
    unit = (ROOT / "deploy" / "spinner-exporter.service").read_text().splitlines()
    assert f"MemoryMax={limit.removesuffix('i')}" in unit
    assert {SERVICES[name].get("mem_limit") for name in ("exporter", "exporter-demo")} == {limit[:-1].lower()}
    (files_limit,) = (int(line.partition("=")[2]) for line in unit if line.startswith("LimitNOFILE="))
    assert files_limit >= 1024


def test_the_limit_of_memory_is_above_what_the_documentation_says_that_the_default_limits_need() -> None:
    reliability = (ROOT / "docs" / "reliability.md").read_text()
    said = re.search(
        r"Memory stays below (\d+) MB, plus (\d+) kB for each run .*?, plus (\d+) kB for each spinner .*?"
        r"plus (\d+) kB for each run that has not ended .*?plus `limits\.read_bytes` .*?"
        r"plus `sync\.concurrency` responses of `limits\.body_bytes`",
        reliability,
    )
    assert said, "docs/reliability.md no longer says how much memory is needed, or in other words"
    own, of_run, of_spinner, of_open_run = map(int, said.groups())
    limits, sync = LimitsConfig(), SyncConfig()
    needed = 1_000_000 * own + limits.read_bytes + sync.concurrency * limits.body_bytes
    needed += 1000 * (of_run * limits.runs + of_spinner * limits.spinners + of_open_run * limits.open_runs)
    values = yaml.safe_load((ROOT / "deploy" / "helm" / "spinner-exporter" / "values.yaml").read_text())
    limit = int(values["resources"]["limits"]["memory"].removesuffix("Mi")) * 2**20
    assert needed <= limit <= 1.2 * needed


def test_the_demo_and_your_runtime_have_the_same_services() -> None:
    """Each profile has one exporter and one Grafana, by the same name for the others."""
    for name in ("exporter", "grafana"):
        own, demo = SERVICES[name], SERVICES[f"{name}-demo"]
        assert (own["profiles"], demo["profiles"]) == (["own"], ["demo"])
        assert demo["networks"]["default"]["aliases"] == [name]
        assert demo["ports"] == own["ports"]


@pytest.mark.parametrize("name", OURS)
def test_the_commands_and_flags_of_our_services_exist(name: str) -> None:
    command = SERVICES[name].get("command") or ["serve"]
    helped = subprocess.run(
        [sys.executable, "-m", "exporter", command[0], "--help"], capture_output=True, text=True, check=False
    )
    assert helped.returncode == 0, helped.stderr
    for flag in command[1:]:
        assert flag.split("=")[0] in helped.stdout, f"{name}: {command[0]} has no {flag}"


def test_prometheus_accepts_its_config_which_names_existing_rules_and_services(tmp_path: Path) -> None:
    # As docker-compose.yml mounts them.
    shutil.copytree(ROOT / "deploy" / "prometheus", tmp_path / "config")
    shutil.copytree(ROOT / "alerts", tmp_path / "alerts")
    checked = subprocess.run(
        [program("promtool"), "check", "config", str(tmp_path / "config" / "prometheus.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "2 rule files found" in checked.stdout
    config = yaml.safe_load((tmp_path / "config" / "prometheus.yml").read_text())
    jobs = {job["job_name"]: job["static_configs"][0]["targets"][0] for job in config["scrape_configs"]}
    assert jobs.pop("prometheus") == "localhost:9090", "Prometheus does not scrape itself"
    targets = [*jobs.values(), config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"][0]]
    for target in targets:
        host, port = target.split(":")
        published = [each.split(":")[-1] for each in SERVICES[host]["ports"]]
        assert port in published, f"{target}: no service of docker-compose.yml publishes this port"
    assert config["global"]["scrape_interval"] == f"{SCRAPE_INTERVAL:g}s", "the demo assumes this interval"


def test_alertmanager_accepts_its_config() -> None:
    checked = subprocess.run(
        [program("amtool"), "check-config", str(ROOT / "alerts" / "alertmanager.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


DROP_INS = dict(
    re.findall(
        r"```ini\n# /etc/systemd/system/spinner-exporter\.service\.d/(\w+)\.conf[^\n]*\n(.+?)```",
        (ROOT / "docs" / "configuration.md").read_text(),
        re.DOTALL,
    )
)
"""The files that the documentation adds to the systemd unit, by their names."""


@pytest.mark.parametrize("drop_in", ["", *DROP_INS])
def test_systemd_accepts_the_unit(tmp_path: Path, drop_in: str) -> None:
    analyze = program("systemd-analyze")
    text = (ROOT / "deploy" / "spinner-exporter.service").read_text()
    installed = "/opt/spinner-exporter/bin/spinner-exporter"
    assert installed in text
    unit = tmp_path / "spinner-exporter.service"
    unit.write_text(text.replace(installed, sys.executable))  # the installed path does not exist here
    if drop_in:
        unit.with_name(f"{unit.name}.d").mkdir()
        (unit.with_name(f"{unit.name}.d") / "more.conf").write_text(DROP_INS[drop_in])
    libraries = list((ROOT / ".debian").rglob("libsystemd-shared-*.so"))
    checked = subprocess.run(
        [analyze, "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"LD_LIBRARY_PATH": os.pathsep.join(str(each.parent) for each in libraries)},
    )
    assert checked.returncode == 0, checked.stderr
    assert "spinner-exporter.service" not in checked.stderr, checked.stderr


def test_systemd_rates_the_unit_as_well_protected(tmp_path: Path) -> None:
    unit = tmp_path / "spinner-exporter.service"
    shutil.copy(ROOT / "deploy" / "spinner-exporter.service", unit)
    libraries = list((ROOT / ".debian").rglob("libsystemd-shared-*.so"))
    rated = subprocess.run(
        [program("systemd-analyze"), "security", "--offline=yes", "--no-pager", "--threshold=15", str(unit)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"LD_LIBRARY_PATH": os.pathsep.join(str(each.parent) for each in libraries)},
    )
    assert rated.returncode == 0, rated.stdout + rated.stderr
    assert "Overall exposure level" in rated.stdout


def test_systemd_does_not_restart_an_exporter_with_an_invalid_config(tmp_path: Path) -> None:
    (tmp_path / "exporter.yml").write_text("runtime: {}")
    ended = spinner_exporter("serve", f"--config.file={tmp_path / 'exporter.yml'}")
    unit = (ROOT / "deploy" / "spinner-exporter.service").read_text().splitlines()
    assert f"RestartPreventExitStatus={ended.returncode}" in unit, ended.stderr


def test_systemd_starts_an_exporter_again_whose_token_was_not_there_yet(tmp_path: Path) -> None:
    (tmp_path / "exporter.yml").write_text('runtime: {base_url: "http://127.0.0.1:9", token_file: /nowhere/token}')
    ended = spinner_exporter("serve", f"--config.file={tmp_path / 'exporter.yml'}")
    unit = (ROOT / "deploy" / "spinner-exporter.service").read_text().splitlines()
    assert ended.returncode != 0, "Restart=on-failure leaves out status 0"
    assert "Restart=on-failure" in unit
    assert f"RestartPreventExitStatus={ended.returncode}" not in unit, ended.stderr


# -- several runtimes, and tokens that are replaced -------------------------------------------------------------

TWO = """\
runtimes:
  - {{name: eu, base_url: "https://eu.example.com", token_file: {folder}/eu}}
  - {{name: us, base_url: "https://us.example.com", token_file: {folder}/us}}
"""
CREDENTIALS = "/run/credentials/spinner-exporter.service"


def under_systemd(drop_in: str = "") -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Return what the unit with a drop-in passes: variables, credentials with the files that are copied, and groups."""
    environ: dict[str, str] = {}
    credentials: dict[str, str] = {}
    groups: list[str] = []
    for line in [*(ROOT / "deploy" / "spinner-exporter.service").read_text().splitlines(), *drop_in.splitlines()]:
        key, _, value = line.partition("=")
        if key == "Environment":
            name, _, text = value.partition("=")
            environ[name] = text.replace("%d", CREDENTIALS).replace("%S", "/var/lib")
        elif key == "LoadCredential" and not value:
            credentials.clear()
        elif key == "LoadCredential":
            name, _, source = value.partition(":")
            credentials[f"{CREDENTIALS}/{name}"] = source
        elif key == "SupplementaryGroups":
            groups.append(value)
    return environ, credentials, groups


def test_the_documented_drop_in_lets_the_unit_read_several_runtimes(tmp_path: Path) -> None:
    (tmp_path / "exporter.yml").write_text(TWO.format(folder=CREDENTIALS))
    with pytest.raises(ConfigError, match="expected either runtime or runtimes, not both"):
        load(tmp_path / "exporter.yml", environ=under_systemd()[0])
    environ, credentials, _ = under_systemd(DROP_INS["runtimes"])
    settings = load(tmp_path / "exporter.yml", environ=environ)
    assert {each.runtime.token_file for each in settings.runtimes.values()} == set(credentials)
    assert settings.storage.path == "/var/lib/spinner-exporter"


def test_the_documented_drop_in_lets_the_unit_read_the_token_itself(tmp_path: Path) -> None:
    _, copied, _ = under_systemd()
    environ, credentials, groups = under_systemd(DROP_INS["token"])
    (tmp_path / "exporter.yml").write_text('runtime: {base_url: "https://runtime.example.com"}')
    ((_, config),) = load(tmp_path / "exporter.yml", environ=environ).runtimes.items()
    assert config.runtime.token_file == copied[f"{CREDENTIALS}/runtime_token"]
    assert not credentials, "the start would still need the file that is copied"
    for group in groups:
        assert f"chgrp {group} {config.runtime.token_file}\n" in (ROOT / "docs" / "configuration.md").read_text()
    assert groups


def test_compose_with_the_documented_override_reads_several_runtimes(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    (override,) = re.findall(r"```yaml\n# docker-compose\.override\.yml.*?\n(.+?)```", text, re.DOTALL)
    more = yaml.safe_load(override)
    (schema,) = (file for file in files("check-jsonschema") or () if file.name == "compose-spec.json")
    jsonschema.validate(more, json.loads(schema.read_text()))
    (tmp_path / "exporter.yml").write_text(TWO.format(folder="/run/secrets"))
    environ = SERVICES["exporter"]["environment"] | more["services"]["exporter"]["environment"]
    settings = load(tmp_path / "exporter.yml", environ=environ)
    mounted = {f"/run/secrets/{name}" for name in more["services"]["exporter"]["secrets"]}
    assert {each.runtime.token_file for each in settings.runtimes.values()} == mounted
    assert set(more["secrets"]) == set(more["services"]["exporter"]["secrets"])


@pytest.mark.parametrize("environ", [under_systemd()[0], SERVICES["exporter"]["environment"]])
def test_a_storage_path_of_the_environment_can_be_turned_off_for_probes(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    text = 'runtime: {base_url: "https://runtime.example.com"}\nprojects: {on_probe: true}'
    (tmp_path / "exporter.yml").write_text(text)
    environ = environ | {"SPINNER_EXPORTER_RUNTIME_BASE_URL": ""}
    with pytest.raises(ConfigError, match=r"storage\.path: not allowed with projects\.on_probe"):
        load(tmp_path / "exporter.yml", environ=environ)
    assert load(tmp_path / "exporter.yml", environ=environ | {"SPINNER_EXPORTER_STORAGE_PATH": ""})


def test_pip_installs_the_documentation_that_the_unit_names(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed = {name.partition(".data/data/")[2] for name in zipfile.ZipFile(wheel).namelist()}
    unit = (ROOT / "deploy" / "spinner-exporter.service").read_text()
    (named,) = re.findall(r"^Documentation=file:/opt/spinner-exporter/(.+)$", unit, re.MULTILINE)
    assert named in installed


def test_the_unit_keeps_the_exporter_s_state_in_its_state_directory() -> None:
    lines = (ROOT / "deploy" / "spinner-exporter.service").read_text().splitlines()
    (folder,) = (line.removeprefix("StateDirectory=") for line in lines if line.startswith("StateDirectory="))
    assert f"Environment=SPINNER_EXPORTER_STORAGE_PATH=%S/{folder}" in lines


def test_the_exporter_accepts_its_config_and_every_example_in_it(tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "exporter" / "exporter.yml").read_text()
    with_examples = re.sub(r"^#(?! )", "", text, flags=re.MULTILINE).replace("\n#  ", "\n  ")
    assert len(yaml.safe_load(with_examples)) == 5, with_examples
    # Of this machine, on which not every user can write to /var/lib.
    with_examples = with_examples.replace("/var/lib/spinner-exporter", str(tmp_path / "state"))
    assert str(tmp_path / "state") in with_examples
    for name, each in (("unchanged.yml", text), ("with-examples.yml", with_examples)):
        (tmp_path / name).write_text(each)
        checked = subprocess.run(
            [sys.executable, "-m", "exporter", "check-config", str(tmp_path / name)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, checked.stderr


def test_prometheus_keeps_the_runs_of_the_heat_map() -> None:
    assert "--enable-feature=exemplar-storage" in SERVICES["prometheus"]["command"]


def test_grafana_s_provisioning_names_existing_variables_and_files() -> None:
    provisioning = ROOT / "deploy" / "grafana" / "provisioning"
    variables = set()
    for file in provisioning.rglob("*.yml"):
        document = yaml.safe_load(file.read_text())
        assert document["apiVersion"] == 1
        variables |= set(re.findall(r"(?<!\$)\$(\w+)", file.read_text()))
    assert variables == {"PROMETHEUS_URL", "SCRAPE_INTERVAL", "DASHBOARDS"}
    for name in ("grafana", "grafana-demo"):
        service = SERVICES[name]
        assert variables <= set(service["environment"]), f"{name} does not set all variables of the provisioning files"
        mounts = dict(volume.split(":")[:2][::-1] for volume in service["volumes"])
        dashboards = ROOT / mounts[service["environment"]["DASHBOARDS"]]
        home = Path(service["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]).name
        assert (dashboards / home).is_file()


def test_the_base_image_can_be_pinned(tmp_path: Path) -> None:
    for name in ("Dockerfile", "Makefile"):
        shutil.copy(ROOT / name, tmp_path)
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text("#!/bin/sh\necho $DIGEST\n")
    docker.chmod(0o755)
    for digest, is_good in ((f"sha256:{'a' * 64}", True), (f"sha256:{'b' * 64}", True), ("denied", False)):
        environ = os.environ | {"PATH": f"{docker.parent}{os.pathsep}{os.environ['PATH']}", "DIGEST": digest}
        before = (tmp_path / "Dockerfile").read_text()
        made = subprocess.run(["make", "pin-image"], cwd=tmp_path, env=environ, capture_output=True, check=False)
        assert (made.returncode == 0) == is_good, made.stderr
        after = (tmp_path / "Dockerfile").read_text()
        bases = re.findall(r"^FROM (\S+)", after, re.MULTILINE)
        assert all(base.endswith(f"@{digest}") for base in bases) if is_good else after == before


def test_hadolint_accepts_the_dockerfile() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint is available for x86-64 only")
    linted = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout


def test_the_package_builds_from_the_files_that_the_dockerfile_copies(tmp_path: Path) -> None:
    context = tmp_path / "context"
    allowed = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    for line in re.findall(r"^COPY (?!--from)(.+)", DOCKERFILE, re.MULTILINE):
        *sources, target = line.split()
        for source in sources:
            assert source in allowed, f".dockerignore excludes {source}"
            to = context / (target if target != "./" else source)
            to.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, to, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, to)
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    built = subprocess.run(build, cwd=context, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert list(tmp_path.glob("*.whl"))


def test_the_image_runs_as_an_unprivileged_user_and_without_a_shell() -> None:
    final = DOCKERFILE.rpartition("FROM ")[2]
    assert "USER 65534:65534" in final
    assert "pip install" not in final
    assert "HEALTHCHECK" in final
    assert 'ENTRYPOINT ["spinner-exporter"]' in final
    assert 'CMD ["serve"' in final
    assert 'org.opencontainers.image.version="${VERSION}"' in final
    assert "org.opencontainers.image.licenses" in final
