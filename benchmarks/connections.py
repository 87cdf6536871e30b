"""CPU time of a request over TLS: our connections against one httpx client, and kept connections against new ones.

The server is a separate process (`python -m benchmarks.connections PORT CERTIFICATE`), and counts TLS handshakes.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import httpx
import msgspec
import trustme

from benchmarks.table import Row
from exporter.config import RuntimeConfig, TlsConfig
from exporter.runtime.connections import KEEPALIVE, Connections
from tests.builders import runtime_config
from tests.stack import programs
from tests.stack.programs import free_port

CONCURRENCY = 8
REQUESTS = 100
"""Requests of one scrape."""

SCRAPES = 9
BODY = json.dumps({"items": [{"id": f"p{number}", "name": "Sales"} for number in range(50)]}).encode()


def rows() -> list[Row]:
    """Measure scrapes without a pause between them."""
    with tempfile.TemporaryDirectory() as folder, _server(Path(folder)) as url:
        taken = asyncio.run(_measure(url, Path(folder) / "ca.pem"))
    kept, client, reopened = (taken[name] for name in ("kept", "client", "reopened"))
    return [
        Row("CPU time of a request, kept connections", "one httpx.AsyncClient", kept.cpu / client.cpu, 0.8,
            {"ours": _us(kept.cpu), "client": _us(client.cpu), "TLS handshakes per scrape": f"{kept.handshakes:g}"}),
        Row("CPU time of a request, kept connections", "new connections for each scrape", kept.cpu / reopened.cpu, 1.05,
            {"kept": _us(kept.cpu), "new": _us(reopened.cpu),
             "TLS handshakes per scrape": f"{kept.handshakes:g} and {reopened.handshakes:g}"}),
    ]  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class _Cost:
    cpu: float
    """Seconds of CPU time per request."""
    handshakes: float
    """Per scrape."""


class _Client(Protocol):
    async def get(self, url: str) -> bytes: ...

    async def close(self) -> None: ...


class _Ours:
    def __init__(self, runtime: RuntimeConfig) -> None:
        self._connections = Connections(runtime, concurrency=CONCURRENCY)

    async def get(self, url: str) -> bytes:
        request = self._connections.request("GET", url, query={"limit": 500}, body=None, headers={})
        async with self._connections.slots, self._connections.send(request) as response:
            return b"".join([part async for part in response.aiter_raw()])

    async def close(self) -> None:
        await self._connections.close()


class _Httpx:
    def __init__(self, ca: Path) -> None:
        limits = httpx.Limits(
            max_connections=CONCURRENCY, max_keepalive_connections=CONCURRENCY, keepalive_expiry=KEEPALIVE
        )
        context = ssl.create_default_context(cafile=ca)
        self._client = httpx.AsyncClient(verify=context, limits=limits, trust_env=False)
        self._slots = asyncio.Semaphore(CONCURRENCY)

    async def get(self, url: str) -> bytes:
        async with self._slots, self._client.stream("GET", url, params={"limit": 500}) as response:
            return b"".join([part async for part in response.aiter_raw()])

    async def close(self) -> None:
        await self._client.aclose()


async def _measure(url: str, ca: Path) -> dict[str, _Cost]:
    runtime = msgspec.structs.replace(runtime_config(url), tls=TlsConfig(ca_file=str(ca)))
    makers: dict[str, Callable[[], _Client]] = {
        "kept": lambda: _Ours(runtime),
        "client": lambda: _Httpx(ca),
        "reopened": lambda: _Ours(runtime),
    }
    counter = _Ours(runtime)
    clients = {name: make() for name, make in makers.items()}
    taken: dict[str, list[tuple[float, int]]] = {name: [] for name in makers}
    for scrape in range(SCRAPES + 1):
        for name, make in makers.items():
            await _handshakes(counter, url)
            cpu = time.process_time()
            await asyncio.gather(*(clients[name].get(url) for _ in range(REQUESTS)))
            cpu = time.process_time() - cpu
            if scrape:
                taken[name].append((cpu / REQUESTS, await _handshakes(counter, url)))
            if name == "reopened":
                await clients[name].close()
                clients[name] = make()
    for each in (*clients.values(), counter):
        await each.close()
    return {
        name: _Cost(statistics.median(cpu for cpu, _ in costs), statistics.mean(count for _, count in costs))
        for name, costs in taken.items()
    }


async def _handshakes(counter: _Client, url: str) -> int:
    """Return the TLS handshakes since the last call."""
    return int(await counter.get(f"{url}/handshakes"))


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} µs"


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[str]:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    ca.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.connections", str(port), str(folder / "server.pem")]
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    with programs.running(command, f"https://localhost:{port}", Path(os.devnull), ready="/", verify=context) as url:
        yield url


class _Connection(asyncio.Protocol):
    handshakes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        _Connection.handshakes += 1
        self._transport = transport
        self._read = b""

    def data_received(self, data: bytes) -> None:
        self._read += data
        while b"\r\n\r\n" in self._read:
            head, _, self._read = self._read.partition(b"\r\n\r\n")
            body = BODY
            if b"/handshakes" in head:
                body, _Connection.handshakes = str(_Connection.handshakes).encode(), 0
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            self._transport.write(head + body)  # type: ignore[attr-defined]


async def _serve(port: int, certificate: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", port, ssl=context)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2]))
