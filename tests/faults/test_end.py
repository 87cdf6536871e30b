"""SIGTERM while requests are in progress: they are answered, nothing is printed as a crash, and the status is 0."""

import asyncio
import contextlib
import json
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from exporter.web import server
from exporter.web.server import GRACE
from tests.builders import Clock
from tests.faults.server import Exchange, FaultyRuntime
from tests.scripted import ScriptedRuntime
from tests.stack.programs import ROOT, free_port


class Running:
    """An exporter in a process of its own, and how it ended."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, log: Path) -> None:
        self.url = url
        self._process = process
        self._log = log

    def end(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    async def ended_cleanly(self, within: float) -> list[str]:
        """Wait for the end; return the messages of its log."""
        async with asyncio.timeout(within):
            assert await self._process.wait() == 0, self._log.read_text()
        lines = [json.loads(line) for line in self._log.read_text().splitlines()]
        assert not [line for line in lines if "exception" in line or "Traceback" in str(line)]
        assert lines[-1]["msg"] == "stopped"
        return [line["msg"] for line in lines]


@contextlib.asynccontextmanager
async def exporting(
    folder: Path,
    runtime_url: str,
    settings: str = "",
    *,
    program: tuple[str, ...] = ("-m", "exporter"),
    others: int = 0,
) -> AsyncIterator[Running]:
    """Start an exporter; `others` are runtimes that it reads too, whose names begin with "runtime.test"."""
    port = free_port()
    file = folder / "exporter.yml"
    urls = {f"other{number}": f"http://runtime.test{number}" for number in range(others)} | {"here": runtime_url}
    runtimes = [f"{{name: {name}, base_url: '{url}', timeout: 60s}}" for name, url in urls.items()]
    file.write_text(f"runtimes: [{', '.join(runtimes)}]\nsync: {{min_interval: 0s}}\n{settings}")
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *program,
            "serve",
            f"--config.file={file}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.format=json",
            stderr=log,
            cwd=ROOT,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient() as client, asyncio.timeout(60):
            while True:
                with contextlib.suppress(httpx.TransportError):
                    await client.get(f"{url}/-/healthy")
                    break
                await asyncio.sleep(0.05)
        yield Running(process, url, folder / "log")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class Hanging:
    """Faults of a runtime that stops responding when it is told."""

    def __init__(self) -> None:
        self.hangs = True
        self.asked = asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        if not self.hangs:
            await exchange.send()
            return
        self.asked.set()
        await asyncio.sleep(3600)


PATHS = {"/metrics": "", "/probe?project=p1": "projects: {on_probe: true}\n", "/sd": "", "/-/ready": ""}


@pytest.mark.parametrize("path", PATHS)
async def test_a_request_that_waits_for_a_read_is_answered_at_once(tmp_path: Path, path: str) -> None:
    hanging = Hanging()
    async with (
        FaultyRuntime(ScriptedRuntime(Clock(time.time())), fault=hanging).serving() as runtime_url,
        exporting(tmp_path, runtime_url, PATHS[path]) as running,
        httpx.AsyncClient(timeout=60) as client,
    ):
        request = asyncio.create_task(
            client.get(running.url + path, headers={"X-Prometheus-Scrape-Timeout-Seconds": "60"})
        )
        await hanging.asked.wait()
        running.end()
        response = await request
        messages = await running.ended_cleanly(within=GRACE)
    assert not [message for message in messages if "timeout graceful shutdown exceeded" in message]
    if path == "/metrics":
        assert response.status_code == 200
        assert '\nspinner_api_up{runtime="here"} 0\n' in response.text
    else:
        assert response.status_code == 503


async def test_a_scrape_is_answered_from_the_last_read(tmp_path: Path) -> None:
    hanging = Hanging()
    hanging.hangs = False
    runtime = ScriptedRuntime(Clock(time.time()))
    runtime.put("run-1", records={"total": 4, "completed": 1})
    async with (
        FaultyRuntime(runtime, fault=hanging).serving() as runtime_url,
        exporting(tmp_path, runtime_url) as running,
        httpx.AsyncClient(timeout=60) as client,
    ):
        first = await client.get(f"{running.url}/metrics")
        hanging.hangs = True
        scrapes = [asyncio.create_task(client.get(f"{running.url}/metrics")) for _ in range(3)]
        await hanging.asked.wait()
        running.end()
        pages = await asyncio.gather(*scrapes)
        await running.ended_cleanly(within=GRACE)
    progress = [line for line in first.text.splitlines() if line.startswith("spinner_run_progress_ratio{")]
    assert progress
    for page in pages:
        assert page.status_code == 200
        assert progress == [line for line in page.text.splitlines() if line.startswith("spinner_run_progress_ratio{")]


async def test_a_request_that_cannot_end_in_time_is_refused_without_a_traceback(tmp_path: Path) -> None:
    """A client that does not read its response."""
    runtime = ScriptedRuntime(Clock(time.time()))
    for number in range(3000):
        runtime.put(f"run-{number}", records={"total": 4, "completed": 1})
    async with (
        FaultyRuntime(runtime).serving() as runtime_url,
        exporting(tmp_path, runtime_url) as running,
        httpx.AsyncClient(timeout=60) as client,
    ):
        await client.get(f"{running.url}/metrics")
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", httpx.URL(running.url).port))
            deaf.sendall(b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await client.get(f"{running.url}/metrics")).status_code == 200
            running.end()
            await running.ended_cleanly(within=2 * GRACE)


async def test_a_request_that_hangs_is_refused_when_the_time_is_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "GRACE", 0)
    asked = asyncio.Event()

    async def hang(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        asked.set()
        await asyncio.sleep(3600)

    async with httpx.AsyncClient() as client:
        with contextlib.closing(server.listen("127.0.0.1:0")) as listener:
            async with server.running_server(hang, listener):
                request = asyncio.create_task(client.get(server.url_of(listener)))
                await asked.wait()
            response = await request
    assert (response.status_code, response.text) == (503, "The exporter is ending.\n")
    assert "Exception in ASGI" not in caplog.text
