"""A runtime with faults, over real HTTP: it sends the contract's responses altered, or none.

A fake, because no real runtime can be made to have all these faults. `ScriptedRuntime` provides the correct responses.
"""

import asyncio
import contextlib
import dataclasses
import itertools
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from email.utils import formatdate
from typing import Any

import httpx

from tests.scripted import ScriptedRuntime, rfc3339

Fault = Callable[["Exchange"], Awaitable[None]]
"""Writes what is sent instead of the correct response."""


@dataclasses.dataclass
class Exchange:
    """One request, its correct response, and the connection to the client."""

    request: httpx.Request
    response: httpx.Response
    writer: asyncio.StreamWriter
    number: int = 1
    """Of the request among those of its connection."""
    keeps: bool = False
    """Whether the connection stays open after the response."""

    @property
    def token(self) -> str:
        """The request's credentials."""
        return str(self.request.headers.get("Authorization", ""))

    @property
    def document(self) -> Any:
        """The body of the response, decoded."""
        return json.loads(self.response.content)

    async def send(
        self,
        body: bytes | None = None,
        *,
        status: int | None = None,
        length: int | None = None,
        headers: Mapping[str, str] | None = None,
        behind: bytes = b"",
    ) -> None:
        """Send the response with another body, status or headers; `length` is its Content-Length.

        `behind` is sent with it and is not part of it.
        """
        body = self.response.content if body is None else body
        named = {
            "Date": self.response.headers.get("Date", ""),
            "ETag": self.response.headers.get("ETag", ""),
            "Link": self.response.headers.get("Link", ""),
            "Content-Type": self.response.headers.get("Content-Type", "application/json"),
            "Content-Length": str(len(body) if length is None else length),
            **{name.replace("_", "-"): value for name, value in (headers or {}).items()},
        }
        connection = "keep-alive" if self.keeps else "close"
        head = [f"HTTP/1.1 {status or self.response.status_code} X", f"Connection: {connection}"]
        head += [f"{name}: {value}" for name, value in named.items() if value]
        self.writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + body + behind)
        await self.writer.drain()


def dated(by: Callable[[], float]) -> Fault:
    """A fault that dates a response, in its body and in its head, by another clock."""

    async def fault(exchange: Exchange) -> None:
        body, date = exchange.response.content, {"Date": formatdate(by(), usegmt=True)}
        if b'"asOf"' in body:
            body = json.dumps({**exchange.document, "asOf": rfc3339(by())}).encode()
        await exchange.send(body, headers=date)

    return fault


def changes(change: Callable[[Any], None]) -> Fault:
    """A fault that changes the JSON of a response; one without a body (304) stays as it is."""

    async def fault(exchange: Exchange) -> None:
        if not exchange.response.content:
            await exchange.send()
            return
        document = exchange.document
        change(document)
        await exchange.send(json.dumps(document).encode())

    return fault


@dataclasses.dataclass
class FaultyRuntime:
    """Serves a scripted runtime; `fault` replaces the responses to requests whose path contains `path`."""

    runtime: ScriptedRuntime
    fault: Fault | None = None
    path: str = ""
    keeps: bool = False
    """Whether connections stay open after a response."""
    requests: int = 0
    connections: int = 0
    _writers: list[asyncio.StreamWriter] = dataclasses.field(default_factory=list)

    @contextlib.asynccontextmanager
    async def serving(
        self, tls: ssl.SSLContext | None = None, *, host: str = "127.0.0.1", port: int = 0
    ) -> AsyncIterator[str]:
        """Serve; yields the URL."""
        server = await asyncio.start_server(self._connection, host, port, ssl=tls)
        port = server.sockets[0].getsockname()[1]
        try:
            yield f"{'https' if tls else 'http'}://localhost:{port}"
        finally:
            server.close()
            for writer in self._writers:
                # A transport that has closed after its last byte may not be aborted.
                if not writer.is_closing() or writer.transport.get_write_buffer_size():
                    writer.transport.abort()
            # In the next iterations of the event loop each connection is closed, and then its handler ends.
            for _ in range(3):
                await asyncio.sleep(0)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            for number in itertools.count(1):
                await self._respond(await reader.readuntil(b"\r\n\r\n"), writer, number)
                if not self.keeps or writer.is_closing():
                    break
        writer.close()

    async def _respond(self, head: bytes, writer: asyncio.StreamWriter, number: int) -> None:
        line, *fields = head.decode().split("\r\n")
        method, target, _ = line.split(" ")
        headers = dict(field.split(": ", 1) for field in fields if field)
        request = httpx.Request(method, f"http://runtime.test{target}", headers=headers)
        self.requests += 1
        exchange = Exchange(request, self.runtime._answer(request), writer, number, self.keeps)
        if self.fault is not None and self.path in request.url.path:
            await self.fault(exchange)
        else:
            await exchange.send()


async def failing(exchange: Exchange) -> None:
    """Answer 500."""
    await exchange.send(status=500)


async def hanging(exchange: Exchange) -> None:
    """Never answer."""
    await asyncio.sleep(60)


async def an_error(exchange: Exchange) -> None:
    """Answer 200 with an error beside an empty list."""
    await exchange.send(b'{"items": [], "error": "busy"}')


async def forbidden(exchange: Exchange) -> None:
    """Answer 403."""
    await exchange.send(status=403)
