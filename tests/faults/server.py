"""A runtime that misbehaves, over real HTTP: the contract's answers, spoilt on their way out, or none at all.

A fake, since no runtime can be made to do all of this; what it does not spoil it takes from `ScriptedRuntime`.
"""

import asyncio
import contextlib
import dataclasses
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import httpx

from tests.scripted import ScriptedRuntime

Spoil = Callable[["Exchange"], Awaitable[None]]
"""Writes what comes instead of the answer."""


@dataclasses.dataclass
class Exchange:
    """One request, the answer that the contract has for it, and the way back."""

    request: httpx.Request
    answer: httpx.Response
    writer: asyncio.StreamWriter

    @property
    def token(self) -> str:
        """What the request showed to be let in."""
        return str(self.request.headers.get("Authorization", ""))

    @property
    def document(self) -> Any:
        """The answer, decoded."""
        return json.loads(self.answer.content)

    async def send(
        self,
        body: bytes | None = None,
        *,
        status: int | None = None,
        length: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send the answer with another body, status or headers; `length` is what it says of its length."""
        body = self.answer.content if body is None else body
        named = {
            "Date": self.answer.headers.get("Date", ""),
            "ETag": self.answer.headers.get("ETag", ""),
            "Content-Type": self.answer.headers.get("Content-Type", "application/json"),
            "Content-Length": str(len(body) if length is None else length),
            **{name.replace("_", "-"): value for name, value in (headers or {}).items()},
        }
        head = [f"HTTP/1.1 {status or self.answer.status_code} X", "Connection: close"]
        head += [f"{name}: {value}" for name, value in named.items() if value]
        self.writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        await self.writer.drain()


@dataclasses.dataclass
class Misbehaving:
    """Serves a scripted runtime; `spoil` spoils the answers to those requests that `where` is part of the path of."""

    runtime: ScriptedRuntime
    spoil: Spoil | None = None
    where: str = ""
    requests: int = 0
    _writers: list[asyncio.StreamWriter] = dataclasses.field(default_factory=list)

    @contextlib.asynccontextmanager
    async def serving(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
        """Serve; yields the URL."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, ssl=tls)
        port = server.sockets[0].getsockname()[1]
        try:
            yield f"{'https' if tls else 'http'}://localhost:{port}"
        finally:
            server.close()
            for writer in self._writers:
                writer.transport.abort()
            # Each is told with the loop's next turn that it is over, and closes its socket; then its handler ends.
            for _ in range(3):
                await asyncio.sleep(0)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *fields = head.split("\r\n")
            method, target, _ = line.split(" ")
            headers = dict(field.split(": ", 1) for field in fields if field)
            request = httpx.Request(method, f"http://runtime.test{target}", headers=headers)
            self.requests += 1
            answer = self.runtime._answer(request)
            exchange = Exchange(request, answer, writer)
            if self.spoil is not None and self.where in request.url.path:
                await self.spoil(exchange)
            else:
                await exchange.send()
        writer.close()
