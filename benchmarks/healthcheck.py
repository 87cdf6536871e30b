"""Processor time of one health check of a container, compared with Python's urllib."""

import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer

from benchmarks.table import Row, medians


def rows() -> list[Row]:
    """Measure a check of a server on this machine, from the start of Python to its end."""
    server = HTTPServer(("127.0.0.1", 0), _Healthy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/-/healthy"
    with_urllib = f"import urllib.request; urllib.request.urlopen({url!r}, timeout=4)"
    taken = medians({
        "ours": _processor_time([sys.executable, "-m", "exporter", "healthcheck", url]),
        "urllib": _processor_time([sys.executable, "-c", with_urllib]),
    })  # fmt: skip
    server.shutdown()
    return [
        Row("CPU time of a health check", "urllib", taken["ours"] / taken["urllib"], 0.6,
            {name: f"{seconds * 1000:.0f} ms" for name, seconds in taken.items()}),
    ]  # fmt: skip


def _processor_time(command: Sequence[str]) -> Callable[[], float]:
    def measure() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return measure


class _Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: object) -> None: ...
