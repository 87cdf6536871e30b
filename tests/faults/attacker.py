"""Clients that attack the exporter, as small programs over real sockets, and the exporter as a process of its own."""

import contextlib
import os
import resource
import socket
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx

from exporter.web.app import TIMEOUT_HEADER
from tests.metrics.test_exposition import samples
from tests.stack.programs import EXPORTER, ROOT, free_port, until

STRANGER = "127.0.0.2"
"""The attackers' address; all of 127.0.0.0/8 is this machine."""


class Victim:
    """The exporter as a process."""

    def __init__(self, port: int, log: Path, process: subprocess.Popen[bytes], scheme: str = "http") -> None:
        self.port = port
        self.url = f"{scheme}://127.0.0.1:{port}"
        self.log = log
        self.process = process

    def scrape(self, verify: ssl.SSLContext | bool = True, timeout: float = 20) -> str:
        """Scrape from another address than the attackers'; checks that the response parses."""
        with httpx.Client(timeout=timeout, verify=verify) as client:
            answer = client.get(f"{self.url}/metrics", headers={TIMEOUT_HEADER: "15"})
        assert answer.status_code == 200
        assert samples(answer.text)
        return answer.text

    @property
    def memory(self) -> int:
        """Resident bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    @property
    def files(self) -> int:
        """Open files."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))  # noqa: PTH208

    @property
    def lines(self) -> list[str]:
        """The lines of its log."""
        return self.log.read_text().splitlines()

    def logged(self, text: str) -> list[str]:
        """The lines of its log that contain a text."""
        return [line for line in self.lines if text in line]


@contextlib.contextmanager
def victim(
    folder: Path, runtime_url: str, *flags: str, files: int = 1024, settings: str = "", scheme: str = "http"
) -> Iterator[Victim]:
    """Run the exporter with a limit of open files."""
    config, log, port = folder / "exporter.yml", folder / "exporter.log", free_port()
    config.write_text(f'runtime: {{base_url: "{runtime_url}"}}\n{settings}')
    command = [*EXPORTER, "serve", f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}", *flags]
    limited = ["prlimit", f"--nofile={files}:{files}", *command]
    with log.open("wb") as output:
        process = subprocess.Popen(limited, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=ROOT)
    try:
        until(lambda: "msg=listening" in log.read_text() or process.poll() is not None, "the exporter listens")
        assert process.poll() is None, log.read_text()
        yield Victim(port, log, process, scheme)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        process.kill()
        process.wait()


@contextlib.contextmanager
def clients(port: int, count: int, sent: bytes = b"", *, address: str = STRANGER) -> Iterator[list[socket.socket]]:
    """Open connections and send the same bytes on each; then they stay silent and read nothing."""
    opened: list[socket.socket] = []
    try:
        for _ in range(count):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.bind((address, 0))
            opened.append(client)
            # To be silent, nobody needs to wait until he is accepted.
            client.settimeout(5 if sent else 0)
            with contextlib.suppress(OSError):
                client.connect(("127.0.0.1", port))
                client.sendall(sent)
        yield opened
    finally:
        for client in opened:
            client.close()


def closed(opened: Sequence[socket.socket]) -> int:
    """Return how many connections the exporter has closed."""
    count = 0
    for client in opened:
        client.setblocking(False)
        try:
            while data := client.recv(65536):
                pass
            count += not data
        except BlockingIOError:
            pass
        except OSError:
            count += 1
    return count
