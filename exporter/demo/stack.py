"""The programs of the demo and their configs."""

import asyncio
import contextlib
import dataclasses
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from exporter.demo import pages, speed
from exporter.demo.programs import DemoError, Program, find, free_ports, launch, reserve, wait_until
from exporter.service import SCRAPE_INTERVAL
from exporter.web.server import running_server

HOUR = 3600.0
MINUTE = 60.0

PORTS = {"runtime": 8090, "exporter": 10095, "prometheus": 9090, "alertmanager": 9093, "grafana": 3000}
"""The preferred port of each program, its usual one."""

PAGES_PORT = 9099
"""Port for Alertmanager's notifications. If it is in use, another demo is running and keeps the usual ports."""

COMPOSE_FILE = Path(__file__).parents[2] / "docker-compose.yml"
"""Only in a clone of the repository: it starts the demo with Grafana in containers."""

GRAFANA_HOME = Path("/usr/share/grafana")
"""Home folder of an installed Grafana package."""

_GRAFANA_IS_INSTALLED = GRAFANA_HOME.is_dir()

_EXPORTER = (sys.executable, "-m", "exporter")


@dataclasses.dataclass(frozen=True, slots=True)
class ScenarioOptions:
    """The scenario of the embedded runtime."""

    scenario: str
    speed: float
    seed: int


async def start(
    options: ScenarioOptions,
    folder: Path,
    exits: contextlib.AsyncExitStack,
    ended: asyncio.Event,
    *,
    receive: Callable[[pages.Alert], None],
) -> list[Program]:
    """Start all installed programs; return all, also missing ones. `exits` stops them. Raises `DemoError`."""
    listener = reserve(PAGES_PORT)
    pages_port = listener.getsockname()[1]
    usual = list(PORTS.values()) if pages_port == PAGES_PORT else [0] * len(PORTS)
    ports = dict(zip(PORTS, free_ports(usual), strict=True)) | {"pages": pages_port}
    await exits.enter_async_context(running_server(pages.create_app(receive), listener))
    stack = _Stack(options, folder, exits, ended, ports)
    runtime = await stack.runtime()
    exporter = await stack.exporter()
    # Each program starts after those that it connects or links to.
    grafana = await stack.grafana()
    alertmanager = await stack.alertmanager()
    prometheus = await stack.prometheus(alertmanager, grafana)
    return [runtime, exporter, prometheus, alertmanager, grafana]


def shared(name: str) -> Path:
    """Return a folder of files for other programs, such as `alerts`, from the package or the checkout."""
    for parent in (Path(__file__).parents[1] / "share", Path(__file__).parents[2]):
        if (parent / name).is_dir():
            return parent / name
    raise DemoError(f"{name} is missing: neither in a checkout of the project nor in the installed package")


async def with_web_page(program: Program, paths: Sequence[str]) -> Program:
    """Return a program whose page is the first of these that it has; its API's page stays if it has none.

    Debian's builds lack web pages: Prometheus responds with an error there, Alertmanager with a text without script.
    """
    async with httpx.AsyncClient(follow_redirects=True, trust_env=False) as client:
        for path in paths:
            with contextlib.suppress(httpx.HTTPError):
                response = await client.get(program.url.replace("localhost", "127.0.0.1") + path)
                if response.status_code == 200 and "<script" in response.text:
                    return dataclasses.replace(program, page=path)
    return program


def exporter_config(runtime_url: str, pace: float, state: Path) -> str:
    """Return the exporter's config for this speed; `state` is the folder for what survives its restart."""
    scrape = speed.interval(SCRAPE_INTERVAL, pace)
    settings = {
        "runtime": {
            "name": "demo",
            "base_url": runtime_url,
            "proxy": "none",
            "heartbeat_timeout": speed.milliseconds(3 * MINUTE / pace),
        },
        # Ended runs stay in the table for a while at any speed.
        "retention": speed.milliseconds(max(HOUR / pace, 15 * MINUTE)),
        "sync": {
            "min_interval": speed.milliseconds(scrape / 3),
            "sweep_interval": speed.milliseconds(max(2 * MINUTE / pace, 1)),
            "projects_interval": speed.milliseconds(max(MINUTE / pace, 1)),
            "overlap": speed.milliseconds(max(2 * MINUTE / pace, 1)),
            "timeout_offset": speed.milliseconds(min(scrape / 5, 0.5)),
        },
        "stalls": {
            "floor": speed.milliseconds(10 * MINUTE / pace),
            "ceiling": speed.milliseconds(12 * HOUR / pace),
        },
        "storage": {"path": str(state)},
    }
    return yaml.safe_dump(settings, sort_keys=False)


class _Stack:
    """The programs of one demo."""

    def __init__(
        self,
        options: ScenarioOptions,
        folder: Path,
        exits: contextlib.AsyncExitStack,
        ended: asyncio.Event,
        ports: dict[str, int],
    ) -> None:
        self._options = options
        self._folder = folder
        self._exits = exits
        self._ended = ended
        self._ports = ports

    async def runtime(self) -> Program:
        command = [
            *(*_EXPORTER, "runtime", f"--web.listen-address={self._host('runtime')}"),
            f"--scenario={self._options.scenario}",
            f"--speed={self._options.speed:g}",
            f"--seed={self._options.seed}",
        ]
        return await self._launch(self._program("runtime", "/api/v1/projects"), command, ready="/health")

    async def exporter(self) -> Program:
        text = exporter_config(self._url("runtime"), self._options.speed, self._folder / "exporter")
        config = self._write("exporter.yml", text)
        command = [*_EXPORTER, "serve", f"--config.file={config}", f"--web.listen-address={self._host('exporter')}"]
        return await self._launch(self._program("exporter", "/metrics"), command, ready="/-/ready")

    async def alertmanager(self) -> Program:
        program = self._program("alertmanager", "/api/v2/alerts", "apt-get install prometheus-alertmanager")
        executable = find("alertmanager", "prometheus-alertmanager")
        if executable is None:
            return program
        source = shared("alerts")
        settings = speed.at_speed(yaml.safe_load((source / "alertmanager.yml").read_text()), self._options.speed)
        settings["templates"] = [str(source / pattern) for pattern in settings["templates"]]
        config = yaml.safe_dump(settings).replace("pages:9099", self._host("pages"))
        command = [
            executable,
            f"--config.file={self._write('alertmanager.yml', config)}",
            f"--storage.path={self._folder / 'alertmanager'}",
            f"--web.listen-address={self._host('alertmanager')}",
            f"--web.external-url={program.url}",
            "--cluster.listen-address=",
            "--log.level=warn",
        ]
        return await with_web_page(await self._launch(program, command, ready="/-/ready"), ["/#/alerts"])

    async def prometheus(self, alertmanager: Program, grafana: Program) -> Program:
        program = self._program("prometheus", "/api/v1/alerts", "apt-get install prometheus")
        executable = find("prometheus")
        if executable is None:
            return program
        pace = self._options.speed
        scrape = speed.milliseconds(speed.interval(SCRAPE_INTERVAL, pace))
        links = {"runbooks_url": str(shared("alerts") / "runbooks")}
        if grafana.process is not None:
            links["grafana_url"] = grafana.url
        settings: dict[str, Any] = {
            "global": {
                "scrape_interval": scrape,
                "scrape_timeout": scrape,
                "evaluation_interval": scrape,
                "external_labels": links,
            },
            "rule_files": [str(self._folder / "*.rules.yml")],
            "scrape_configs": [{"job_name": "spinner", "static_configs": [{"targets": [self._host("exporter")]}]}],
        }
        if alertmanager.process is not None:
            receivers = {"static_configs": [{"targets": [self._host("alertmanager")]}]}
            settings["alerting"] = {"alertmanagers": [receivers]}
        command = [
            executable,
            f"--config.file={self._write('prometheus.yml', yaml.safe_dump(settings))}",
            f"--storage.tsdb.path={self._folder / 'prometheus'}",
            f"--web.listen-address={self._host('prometheus')}",
            f"--web.external-url={program.url}",
            "--enable-feature=exemplar-storage",
            # Divided by the speed like all durations, but never shorter than a few scrapes.
            f"--query.lookback-delta={speed.milliseconds(max(5 * MINUTE / pace, 10 * speed.SHORTEST))}",
            "--log.level=warn",
        ]
        running = await self._launch(program, command, ready="/-/ready")
        # Prometheus starts to scrape after 5 s, which is minutes of scenario time: SpinnerExporterDown would page. So
        # the rules are added after the first scrape.
        await wait_until(lambda: self._has_scraped(running), self._ended, "prometheus has scraped the exporter")
        for file in shared("alerts").glob("*.rules.yml"):
            self._write(file.name, yaml.safe_dump(speed.at_speed(yaml.safe_load(file.read_text()), pace)))
        if running.process is not None:
            running.process.send_signal(signal.SIGHUP)
        return await with_web_page(running, ["/alerts", "/classic/alerts"])

    async def grafana(self) -> Program:
        hint = "https://grafana.com/grafana/download" + self._compose_hint()
        program = self._program("grafana", "/d/spinner-live-ops", hint)
        executable = find("grafana", "grafana-server")
        if executable is None:
            return program
        command = [executable, "server"] if Path(executable).name == "grafana" else [executable]
        if _GRAFANA_IS_INSTALLED:
            command.append(f"--homepath={GRAFANA_HOME}")
        dashboards = shared("dashboards") / "dist"
        settings = {
            "PROMETHEUS_URL": self._url("prometheus"),
            "SCRAPE_INTERVAL": speed.milliseconds(speed.interval(SCRAPE_INTERVAL, self._options.speed)),
            "DASHBOARDS": str(dashboards),
            "GF_PATHS_DATA": str(self._folder / "grafana"),
            "GF_PATHS_LOGS": str(self._folder / "grafana" / "log"),
            "GF_PATHS_PLUGINS": str(self._folder / "grafana" / "plugins"),
            "GF_PATHS_PROVISIONING": str(shared("deploy") / "grafana" / "provisioning"),
            "GF_SERVER_HTTP_ADDR": "127.0.0.1",
            "GF_SERVER_HTTP_PORT": str(self._ports["grafana"]),
            "GF_AUTH_ANONYMOUS_ENABLED": "true",
            "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
            "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": str(dashboards / "spinner-live-ops.json"),
            "GF_ANALYTICS_REPORTING_ENABLED": "false",
            "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
            "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
            "GF_PLUGINS_PREINSTALL_DISABLED": "true",
        }
        return await self._launch(program, command, ready="/api/health", environ=settings)

    def _compose_hint(self) -> str:
        """Return the command that shows the same scenario with Grafana, if Docker and the compose file are there."""
        scenario = self._options.scenario
        if find("docker") is None or not COMPOSE_FILE.is_file() or Path(scenario).suffix:
            return ""
        return (
            f"\n  or stop this demo and run, in {COMPOSE_FILE.parent}:"
            f" SCENARIO={scenario} docker compose --profile demo up"
        )

    async def _has_scraped(self, prometheus: Program) -> bool:
        prometheus.check()
        async with httpx.AsyncClient(trust_env=False) as client:
            url = f"http://{self._host('prometheus')}/api/v1/query"
            response = await client.get(url, params={"query": "spinner_exporter_build_info"})
        return response.status_code == 200 and bool(response.json()["data"]["result"])

    def _program(self, name: str, page: str, hint: str = "") -> Program:
        return Program(name, self._url(name), page, hint)

    def _url(self, name: str) -> str:
        return f"http://localhost:{self._ports[name]}"

    def _host(self, name: str) -> str:
        return f"127.0.0.1:{self._ports[name]}"

    def _write(self, name: str, text: str) -> Path:
        file = self._folder / name
        file.write_text(text)
        return file

    async def _launch(
        self, program: Program, command: list[str], *, ready: str, environ: dict[str, str] | None = None
    ) -> Program:
        return await launch(program, command, self._folder, self._exits, self._ended, ready=ready, environ=environ)
