"""Which programs the demo consists of, and their configs."""

import asyncio
import contextlib
import dataclasses
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import yaml

from exporter.demo import pages, speed
from exporter.demo.parts import DemoError, Part, find, free_ports, launch, reserve, wait_until
from exporter.service import SCRAPE_INTERVAL
from exporter.web.server import running_server

HOUR = 3600.0
MINUTE = 60.0

PORTS = {"runtime": 8090, "exporter": 10095, "prometheus": 9090, "alertmanager": 9093, "grafana": 3000}
"""Where each is if the port is free: the program's usual one."""

PAGES_PORT = 9099
"""Where pages are received. Whoever has it is the machine's first demo; later ones leave it the usual ports."""

GRAFANA_HOME = Path("/usr/share/grafana")
"""Where Grafana's packages put what the program needs beside itself."""

_GRAFANA_IS_INSTALLED = GRAFANA_HOME.is_dir()

_OURSELVES = (sys.executable, "-m", "exporter")


@dataclasses.dataclass(frozen=True, slots=True)
class Story:
    """What the embedded runtime is to play."""

    scenario: str
    speed: float
    seed: int


async def start(
    story: Story,
    folder: Path,
    exits: contextlib.AsyncExitStack,
    ended: asyncio.Event,
    *,
    receive: Callable[[pages.Alert], None],
) -> list[Part]:
    """Start all that is installed, and return it with what is missing. All ends with `exits`. Raises `DemoError`."""
    listener = reserve(PAGES_PORT)
    pages_port = listener.getsockname()[1]
    usual = list(PORTS.values()) if pages_port == PAGES_PORT else [0] * len(PORTS)
    ports = dict(zip(PORTS, free_ports(usual), strict=True)) | {"pages": pages_port}
    await exits.enter_async_context(running_server(pages.create_app(receive), listener))
    stack = _Stack(story, folder, exits, ended, ports)
    runtime = await stack.runtime()
    exporter = await stack.exporter()
    # Each after those that it talks to, or that are named in what it says.
    grafana = await stack.grafana()
    alertmanager = await stack.alertmanager()
    prometheus = await stack.prometheus(alertmanager, grafana)
    return [runtime, exporter, prometheus, alertmanager, grafana]


def shared(name: str) -> Path:
    """Return a folder of files for other programs, such as `alerts`: what the wheel took along, or the checkout's."""
    for parent in (Path(__file__).parents[1] / "share", Path(__file__).parents[2]):
        if (parent / name).is_dir():
            return parent / name
    raise DemoError(f"{name} is missing: neither in a checkout of the project nor in the installed package")


def exporter_config(runtime_url: str, pace: float) -> str:
    """Return the exporter's config for a story at that speed."""
    scrape = speed.interval(SCRAPE_INTERVAL, pace)
    settings = {
        "runtime": {"base_url": runtime_url, "heartbeat_timeout": speed.milliseconds(3 * MINUTE / pace)},
        # Runs stay in the table for a while, however fast the story.
        "retention": speed.milliseconds(max(HOUR / pace, 15 * MINUTE)),
        "sync": {
            "min_interval": speed.milliseconds(scrape / 3),
            "sweep_interval": speed.milliseconds(max(2 * MINUTE / pace, 1)),
            "overlap": speed.milliseconds(max(2 * MINUTE / pace, 1)),
            "timeout_offset": speed.milliseconds(min(scrape / 5, 0.5)),
        },
        "stalls": {
            "floor": speed.milliseconds(10 * MINUTE / pace),
            "ceiling": speed.milliseconds(12 * HOUR / pace),
        },
    }
    return yaml.safe_dump(settings, sort_keys=False)


class _Stack:
    """The programs of one demo."""

    def __init__(
        self, story: Story, folder: Path, exits: contextlib.AsyncExitStack, ended: asyncio.Event, ports: dict[str, int]
    ) -> None:
        self._story = story
        self._folder = folder
        self._exits = exits
        self._ended = ended
        self._ports = ports

    async def runtime(self) -> Part:
        command = [
            *(*_OURSELVES, "runtime", f"--web.listen-address={self._host('runtime')}"),
            f"--scenario={self._story.scenario}",
            f"--speed={self._story.speed:g}",
            f"--seed={self._story.seed}",
        ]
        return await self._launch(self._part("runtime", "/api/v1/projects"), command, ready="/health")

    async def exporter(self) -> Part:
        config = self._write("exporter.yml", exporter_config(self._url("runtime"), self._story.speed))
        command = [*_OURSELVES, "serve", f"--config.file={config}", f"--web.listen-address={self._host('exporter')}"]
        return await self._launch(self._part("exporter", "/metrics"), command, ready="/-/ready")

    async def alertmanager(self) -> Part:
        part = self._part("alertmanager", "/#/alerts", "apt-get install prometheus-alertmanager")
        program = find("alertmanager", "prometheus-alertmanager")
        if program is None:
            return part
        source = shared("alerts")
        settings = speed.at_speed(yaml.safe_load((source / "alertmanager.yml").read_text()), self._story.speed)
        settings["templates"] = [str(source / pattern) for pattern in settings["templates"]]
        config = yaml.safe_dump(settings).replace("127.0.0.1:9099", self._host("pages"))
        command = [
            program,
            f"--config.file={self._write('alertmanager.yml', config)}",
            f"--storage.path={self._folder / 'alertmanager'}",
            f"--web.listen-address={self._host('alertmanager')}",
            f"--web.external-url={part.url}",
            "--cluster.listen-address=",
            "--log.level=warn",
        ]
        return await self._launch(part, command, ready="/-/ready")

    async def prometheus(self, alertmanager: Part, grafana: Part) -> Part:
        part = self._part("prometheus", "/alerts", "apt-get install prometheus")
        program = find("prometheus")
        if program is None:
            return part
        pace = self._story.speed
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
            program,
            f"--config.file={self._write('prometheus.yml', yaml.safe_dump(settings))}",
            f"--storage.tsdb.path={self._folder / 'prometheus'}",
            f"--web.listen-address={self._host('prometheus')}",
            f"--web.external-url={part.url}",
            # How far Prometheus looks back for a sample has to shrink with the rest, but not below a few scrapes.
            f"--query.lookback-delta={speed.milliseconds(max(5 * MINUTE / pace, 10 * speed.SHORTEST))}",
            "--log.level=warn",
        ]
        running = await self._launch(part, command, ready="/-/ready")
        # Prometheus takes 5 s to begin with its targets, which is minutes of the story: too long for a rule that pages
        # when there are none. So the rules come when the first scrape has been.
        await wait_until(lambda: self._has_scraped(running), self._ended, "prometheus has scraped the exporter")
        for file in shared("alerts").glob("*.rules.yml"):
            self._write(file.name, yaml.safe_dump(speed.at_speed(yaml.safe_load(file.read_text()), pace)))
        if running.process is not None:
            running.process.send_signal(signal.SIGHUP)
        return running

    async def grafana(self) -> Part:
        part = self._part("grafana", "/d/spinner-live-ops", "https://grafana.com/grafana/download")
        program = find("grafana", "grafana-server")
        if program is None:
            return part
        command = [program, "server"] if Path(program).name == "grafana" else [program]
        if _GRAFANA_IS_INSTALLED:
            command.append(f"--homepath={GRAFANA_HOME}")
        dashboards = shared("dashboards") / "dist"
        settings = {
            "PROMETHEUS_URL": self._url("prometheus"),
            "SCRAPE_INTERVAL": speed.milliseconds(speed.interval(SCRAPE_INTERVAL, self._story.speed)),
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
        return await self._launch(part, command, ready="/api/health", environ=os.environ | settings)

    async def _has_scraped(self, prometheus: Part) -> bool:
        prometheus.check()
        async with httpx.AsyncClient() as client:
            url = f"http://{self._host('prometheus')}/api/v1/query"
            answer = await client.get(url, params={"query": "spinner_exporter_build_info"})
        return answer.status_code == 200 and bool(answer.json()["data"]["result"])

    def _part(self, name: str, page: str, hint: str = "") -> Part:
        return Part(name, self._url(name), page, hint)

    def _url(self, name: str) -> str:
        return f"http://localhost:{self._ports[name]}"

    def _host(self, name: str) -> str:
        return f"127.0.0.1:{self._ports[name]}"

    def _write(self, name: str, text: str) -> Path:
        file = self._folder / name
        file.write_text(text)
        return file

    async def _launch(
        self, part: Part, command: list[str], *, ready: str, environ: dict[str, str] | None = None
    ) -> Part:
        return await launch(part, command, self._folder, self._exits, self._ended, ready=ready, environ=environ)
