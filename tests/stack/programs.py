"""Real programs for tests: from PATH or unpacked by `make test`, started on free ports, and stopped after the test."""

import contextlib
import os
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest
import yaml

from exporter.demo.programs import reserve

ROOT = Path(__file__).parents[2]

TIMEOUT = 180.0
"""Seconds to wait for a real program, even on a busy machine; only a failing test waits that long."""

EXPORTER = (sys.executable, "-m", "exporter")


allowed: set[str] = {"programs", "servers"}
"""The marks of the test that runs, set by tests/conftest.py; outside tests, as in benchmarks, everything is allowed."""


def program(name: str) -> str:
    """Return the path of a program. If it is missing, the test is skipped; in CI it fails."""
    assert allowed & {"programs", "servers"}, f"this test starts {name}: list it under `programs` in tests/marks.py"
    folders = (os.environ.get("PROGRAMS", ""), str(ROOT / ".debian" / "usr" / "bin"), os.environ["PATH"])
    found = shutil.which(name, path=os.pathsep.join(filter(None, folders)))
    if found is None:
        missing(f"{name} is neither on PATH nor in .debian/; `make programs` unpacks it if apt is available")
    return found


def missing(message: str) -> NoReturn:
    """Skip a test because a program is missing; in CI, fail it."""
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def server(name: str) -> Path:
    """Return the folder with the programs of a real server. If it is missing, the test is skipped; in CI it fails."""
    assert "servers" in allowed, f"this test starts {name}: list it under `servers` in tests/marks.py"
    programs = ROOT / ".servers" / name / "bin"
    if not programs.exists():
        missing(f"{programs} does not exist; `make test-servers` installs it")
    return programs


def spinner_exporter(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the exporter until it ends."""
    return subprocess.run([*EXPORTER, *arguments], capture_output=True, text=True, timeout=120, check=False)


def free_port() -> int:
    """Return a port below those that the system gives to connections, so that it stays free until a program uses it."""
    with reserve(0) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def running(
    command: Sequence[str],
    url: str,
    log: Path,
    *,
    ready: str,
    timeout: float = TIMEOUT,
    environ: Mapping[str, str] | None = None,
    **ask: Any,
) -> Iterator[str]:
    """Run a program for the duration of the block, which starts when `url + ready` responds with 200. Yields `url`.

    `ask` are arguments of that request, such as headers.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=ROOT, env=environ
        )
    _processes[url] = process
    try:

        def responds() -> bool:
            assert process.poll() is None, f"{command[0]} ended with {process.returncode}:\n{log.read_text()}"
            with contextlib.suppress(httpx.HTTPError):
                return httpx.get(url + ready, **ask).status_code == 200
            return False

        until(responds, f"{command[0]} responds at {url}{ready}; its log is {log}", timeout=timeout)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


_processes: dict[str, subprocess.Popen[bytes]] = {}


def kill(url: str) -> None:
    """Kill (SIGKILL) the program that `running` started at a URL."""
    _processes[url].kill()
    _processes[url].wait()


def until(condition: Callable[[], object], what: str, *, timeout: float = TIMEOUT, every: float = 0.1) -> None:
    """Poll a condition `every` so many seconds until it holds; fails the test with `what` after the timeout."""
    give_up = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > give_up:
            pytest.fail(f"not within {timeout:.0f} s: {what}")
        time.sleep(every)


@contextlib.contextmanager
def runtime(
    folder: Path, *flags: str, scenario: str | Path = "healthy", speed: float = 60, seed: int = 1
) -> Iterator[str]:
    """Run the embedded runtime."""
    port = free_port()
    command = [
        *EXPORTER,
        "runtime",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--scenario={scenario}",
        f"--speed={speed}",
        f"--seed={seed}",
        *flags,
    ]
    with running(command, f"http://127.0.0.1:{port}", folder / "runtime.log", ready="/health") as url:
        yield url


@contextlib.contextmanager
def exporter(folder: Path, runtime_url: str, settings: str = "") -> Iterator[str]:
    """Run the exporter for one runtime, with more config in `settings`."""
    config = folder / "exporter.yml"
    config.write_text(f'runtime: {{base_url: "{runtime_url}"}}\n{settings}')
    with exporter_with(config) as url:
        yield url


@contextlib.contextmanager
def exporter_with(
    config: Path,
    *,
    ready: str = "/-/ready",
    flags: Sequence[str] = (),
    verify: ssl.SSLContext | None = None,
    **ask: Any,
) -> Iterator[str]:
    """Run the exporter with a config file; the block starts when `ready` responds, over TLS if `verify` is given."""
    port = free_port()
    command = [*EXPORTER, "serve", f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}", *flags]
    url = f"{'https' if verify else 'http'}://127.0.0.1:{port}"
    with running(command, url, config.with_suffix(".log"), ready=ready, verify=verify or True, **ask):
        yield url


@contextlib.contextmanager
def prometheus(
    folder: Path,
    *targets: str,
    rules: Path | None = None,
    alertmanager_url: str = "",
    keep: str = "15d",
    scrape: Mapping[str, object] | None = None,
) -> Iterator[str]:
    """Run a real Prometheus that scrapes the targets every second, on the data in `folder/prometheus`.

    `scrape` has more keys of its scrape config.
    """
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "scrape_configs": [
            {
                "job_name": "spinner",
                "static_configs": [{"targets": [host(each) for each in targets]}],
                **(scrape or {}),
            }
        ],
        "rule_files": [str(rules)] if rules else [],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [host(alertmanager_url)]}]}]}
        if alertmanager_url
        else {},
    }
    flags = (f"--storage.tsdb.retention.time={keep}", "--enable-feature=exemplar-storage")
    with prometheus_with(folder, config, *flags) as url:
        yield url


@contextlib.contextmanager
def prometheus_with(folder: Path, config: Mapping[str, object], *flags: str) -> Iterator[str]:
    """Run a real Prometheus with a config, on the data in `folder/prometheus`."""
    port = free_port()
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    command = [
        program("prometheus"),
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address=127.0.0.1:{port}",
        *flags,
    ]
    with running(command, f"http://127.0.0.1:{port}", folder / "prometheus.log", ready="/-/ready") as url:
        yield url


@contextlib.contextmanager
def victoria_metrics(folder: Path) -> Iterator[str]:
    """Run a real VictoriaMetrics with deduplication; skip the test where it is missing."""
    port = free_port()
    command = [
        built_by_go("victoria-metrics"),
        f"-httpListenAddr=127.0.0.1:{port}",
        f"-storageDataPath={folder / 'victoria'}",
        "-dedup.minScrapeInterval=1s",
        # Otherwise a query does not see the last 30 seconds.
        "-search.latencyOffset=0s",
    ]
    with running(command, f"http://127.0.0.1:{port}", folder / "victoria.log", ready="/health") as url:
        yield url


def built_by_go(name: str) -> str:
    """Return the path of a program of `make test-current`; skip the test where it is missing."""
    path = shutil.which(name, path=os.environ.get("PROGRAMS", ""))
    if path is None:
        pytest.skip(f"{name} is not in PROGRAMS; `make test-current` builds it")
    return path


@contextlib.contextmanager
def alertmanager(
    folder: Path, config: Path, *, cluster_port: int | None = None, peer: int | None = None
) -> Iterator[str]:
    """Run a real Alertmanager, in a cluster if it has a port for one; `peer` is the cluster port of another."""
    port = free_port()
    command = [
        program("prometheus-alertmanager"),
        f"--config.file={config}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--cluster.listen-address={f'127.0.0.1:{cluster_port}' if cluster_port else ''}",
        *([f"--cluster.peer=127.0.0.1:{peer}"] if peer else []),
        # How long the second one waits for the first one to notify.
        "--cluster.peer-timeout=3s",
        "--cluster.settle-timeout=1s",
    ]
    with running(command, f"http://127.0.0.1:{port}", folder / "alertmanager.log", ready="/-/ready") as url:
        yield url


def host(url: str) -> str:
    """Return a URL as a Prometheus target: host and port."""
    return url.partition("://")[2]


def query(prometheus_url: str, expression: str) -> list[tuple[dict[str, str], float]]:
    """Return an instant query's samples; an invalid query fails the test."""
    # As Grafana does: the ids of many runs are too long for a URL.
    response = httpx.post(f"{prometheus_url}/api/v1/query", data={"query": expression}, timeout=60).json()
    assert response["status"] == "success", f"{expression}: {response}"
    return [(each["metric"], float(each["value"][1])) for each in response["data"]["result"]]


def number(prometheus_url: str, expression: str) -> float | None:
    """Return the value of a query with at most one sample."""
    found = query(prometheus_url, expression)
    assert len(found) < 2, f"{expression} has {len(found)} samples"
    return found[0][1] if found else None
