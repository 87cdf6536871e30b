"""A socket, an application and the signals that end or reload it."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from exporter.config import split_address
from exporter.errors import ConfigError
from exporter.web.auth import Access, AuthMiddleware, CurrentContext

GRACE = 5
"""Seconds that answers under way have to end after SIGTERM."""

REQUEST_PATIENCE = 10.0
"""Seconds that a client has to send a request: who takes longer holds a connection and means no good."""

MAX_HEAD = 16_384
"""Bytes of a request's line and headers."""


def listen(address: str) -> socket.socket:
    """Bind `host:port`, or `:port` for all interfaces of both families; raises `ConfigError`."""
    try:
        listener = _listener(*split_address(address))
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise ConfigError(f"web.listen_address: cannot listen on {address}: {reason}") from None
    # Inherited by every connection. asyncio sets it on sockets that know their protocol by number, which these do not;
    # without it the last bytes of an answer wait 40 ms for the client to acknowledge those before.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _listener(host: str, port: int) -> socket.socket:
    if host:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def url_of(listener: socket.socket, scheme: str = "http") -> str:
    """Return the URL under which a listener can be reached from this machine."""
    host, port = listener.getsockname()[:2]
    if host in ("", "::", "0.0.0.0"):  # noqa: S104 - compared with, not bound to
        host = "localhost"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


async def serve(
    app: ASGIApp,
    listener: socket.socket,
    *,
    on_hangup: Callable[[], None] | None = None,
    date_header: bool = True,
    access: Access | None = None,
) -> None:
    """Answer requests until SIGTERM or SIGINT; then let answers under way end, and return.

    `on_hangup` is called at every SIGHUP; without `date_header` the application gives the date itself. `access` says
    who is let in; without it everybody is, and nothing is encrypted.
    """
    server = _server(app, date_header=date_header, access=access)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.end)
    if on_hangup is not None:
        loop.add_signal_handler(signal.SIGHUP, on_hangup)
    await server.serve(sockets=[listener])


@contextlib.asynccontextmanager
async def answering(app: ASGIApp, listener: socket.socket, *, access: Access | None = None) -> AsyncIterator[None]:
    """Answer requests while the block lasts, which handles the signals itself."""
    server = _server(app, date_header=True, access=access)
    task = asyncio.create_task(server.serve(sockets=[listener]), name="server")
    try:
        yield
    finally:
        server.end()
        await task


def _server(app: ASGIApp, *, date_header: bool, access: Access | None = None) -> "_Server":
    config = uvicorn.Config(
        app if access is None else AuthMiddleware(app, access),
        http=_Protocol,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=date_header,
        timeout_graceful_shutdown=GRACE,
        h11_max_incomplete_event_size=MAX_HEAD,
    )
    if access is not None and access.has_tls:
        config.load()
        config.ssl = CurrentContext.of(access)
    return _Server(config)


class _Protocol(H11Protocol):
    """uvicorn's, which waits for ever for a client that sends half of a request."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the client its time."""
        super().connection_made(transport)
        self._watch()

    def on_response_complete(self) -> None:
        """Give it its time again, for the next request."""
        super().on_response_complete()
        self._watch()

    def _watch(self) -> None:
        answered = self.cycle
        self.loop.call_later(REQUEST_PATIENCE, self._look, answered)

    def _look(self, answered: Any) -> None:
        # Another request has come, or is being answered, or nobody is there any more.
        if self.cycle is answered and not self.transport.is_closing():
            self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, which raise the signal again and so end in an error status."""

    def end(self) -> None:
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
