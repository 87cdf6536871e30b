"""Name servers that do not respond: each lookup keeps a thread for as long as the system's resolver waits."""

import os
import time
from pathlib import Path

import httpx

from tests.builders import Clock
from tests.faults.server import FaultyRuntime
from tests.faults.test_end import exporting
from tests.scripted import ScriptedRuntime

WITHOUT_NAME_SERVER = """
import socket, sys, threading
from exporter.cli import main

real = socket.getaddrinfo

def hanging(host, *arguments, **named):
    if "runtime.test" in str(host):
        threading.Event().wait()
    return real(host, *arguments, **named)

socket.getaddrinfo = hanging
main()
"""


async def test_a_name_server_that_does_not_respond_does_not_prevent_the_end(tmp_path: Path) -> None:
    """It keeps a thread of each request, and Python waits for its threads."""
    program = ("-c", WITHOUT_NAME_SERVER)
    async with (
        exporting(tmp_path, "http://runtime.test", program=program) as running,
        httpx.AsyncClient(timeout=60) as client,
    ):
        response = await client.get(f"{running.url}/metrics", headers={"X-Prometheus-Scrape-Timeout-Seconds": "1"})
        assert '\nspinner_api_up{runtime="here"} 0\n' in response.text
        running.end()
        await running.ended_cleanly(within=30)


async def test_name_servers_that_do_not_respond_leave_threads_for_other_runtimes(tmp_path: Path) -> None:
    async with (
        FaultyRuntime(ScriptedRuntime(Clock(time.time()))).serving() as runtime_url,
        exporting(
            tmp_path,
            runtime_url.replace("127.0.0.1", "localhost"),
            program=("-c", WITHOUT_NAME_SERVER),
            others=2 * (os.cpu_count() or 1) + 8,
        ) as running,
        httpx.AsyncClient(timeout=60) as client,
    ):
        response = await client.get(f"{running.url}/metrics", headers={"X-Prometheus-Scrape-Timeout-Seconds": "6"})
        up = [line for line in response.text.splitlines() if line.startswith("spinner_api_up{")]
        assert up == [f'spinner_api_up{{runtime="other{number}"}} 0' for number in range(len(up) - 1)] + [
            'spinner_api_up{runtime="here"} 1'
        ]
