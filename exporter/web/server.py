"""The socket, and the HTTP server with its signals and timeouts."""

import asyncio
import contextlib
import errno
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from exporter.config import split_address
from exporter.errors import ConfigError
from exporter.web.auth import AuthMiddleware, CurrentContext, WebConfigFile

GRACE = 5
"""Seconds after SIGTERM in which responses in progress can end."""

REQUEST_TIMEOUT = 10.0
"""Seconds that a client has to send a request; a slower one only occupies a connection."""

STALLED_RESPONSE_TIMEOUT = 30.0
"""Seconds without progress after which a client that does not read its response is disconnected."""

PROGRESS_CHECKS = 4
"""How often progress is checked within that time."""

MAX_HEAD = 16_384
"""Bytes of a request's first line and headers."""


def listen(address: str) -> socket.socket:
    """Bind `host:port`, or `:port` for all interfaces of both families; raises `ConfigError`."""
    try:
        listener = _listener(*split_address(address))
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        if error.errno == errno.EADDRINUSE:
            reason += "; choose another address with --web.listen-address"
        raise ConfigError(f"web.listen_address: cannot listen on {address}: {reason}") from None
    # Inherited by every connection. asyncio sets it only on sockets that were created with a protocol number. Without
    # it, the last bytes of a response wait 40 ms until the client acknowledges those before.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _listener(host: str, port: int) -> socket.socket:
    if host:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def url_of(listener: socket.socket, scheme: str = "http") -> str:
    """Return the URL of a listener on this machine."""
    host, port = listener.getsockname()[:2]
    if host in ("", "::", "0.0.0.0"):  # noqa: S104 - compared with, not bound to
        host = "localhost"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


async def serve(
    app: ASGIApp,
    listener: socket.socket,
    *,
    on_hangup: Callable[[], None] | None = None,
    on_end: Callable[[], None] | None = None,
    date_header: bool = True,
    web_config_file: WebConfigFile | None = None,
) -> None:
    """Respond to requests until SIGTERM or SIGINT; then let responses in progress end, and return.

    `on_hangup` is called at every SIGHUP, `on_end` at SIGTERM and SIGINT. Without `date_header` the application sets
    the header. Without `web_config_file` there is no TLS and no authentication.
    """
    server = _server(app, date_header=date_header, web_config_file=web_config_file)
    loop = asyncio.get_running_loop()

    def end() -> None:
        server.end()
        if on_end is not None:
            on_end()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    if on_hangup is not None:
        loop.add_signal_handler(signal.SIGHUP, on_hangup)
    await server.serve(sockets=[listener])


@contextlib.asynccontextmanager
async def running_server(
    app: ASGIApp, listener: socket.socket, *, web_config_file: WebConfigFile | None = None
) -> AsyncIterator[None]:
    """Respond to requests during the block, without handling signals."""
    server = _server(app, date_header=True, web_config_file=web_config_file)
    task = asyncio.create_task(server.serve(sockets=[listener]), name="server")
    try:
        yield
    finally:
        server.end()
        await task


def _server(app: ASGIApp, *, date_header: bool, web_config_file: WebConfigFile | None = None) -> "_Server":
    config = uvicorn.Config(
        _EndMiddleware(app if web_config_file is None else AuthMiddleware(app, web_config_file)),
        http=_Protocol,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=date_header,
        timeout_graceful_shutdown=GRACE,
        h11_max_incomplete_event_size=MAX_HEAD,
    )
    if web_config_file is not None and web_config_file.has_tls:
        config.load()
        config.ssl = CurrentContext.of(web_config_file)
    return _Server(config)


class _EndMiddleware:
    """Responds with 503 to a request that is cancelled: it has not ended `GRACE` seconds after SIGTERM."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_started = False

        async def note(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self._app(scope, receive, note)
        except asyncio.CancelledError:
            if scope["type"] != "http":
                raise
            # Of a response that has started, uvicorn closes the connection.
            if not has_started:
                await PlainTextResponse("The exporter is ending.\n", 503)(scope, receive, send)


class ResponseWatch:
    """Disconnects a client that does not read its response.

    Progress means that the write buffer shrinks or becomes writable again. Over TLS, asyncio encrypts a chunk as a
    whole, so progress is visible only once per chunk.
    """

    def __init__(self, transport: asyncio.Transport, timeout: float, call_later: Callable[..., Any]) -> None:
        """`call_later(seconds, callback)` schedules a check, as an event loop does; `timeout` is in seconds."""
        self._transport = transport
        self._interval = timeout / PROGRESS_CHECKS
        self._call_later = call_later
        self._is_running = False
        self._is_ended = False
        self._resumed = 0
        self._last = (0, 0)
        self._unchanged = 0

    def start(self) -> None:
        """Watch until the write buffer is empty; does nothing while it is empty or watched already."""
        pending = self._transport.get_write_buffer_size()
        if pending and not self._is_running:
            self._is_running = True
            self._last, self._unchanged = (self._resumed, pending), 0
            self._call_later(self._interval, self._check)

    def resumed(self) -> None:
        """Note that the buffer has become writable again: bytes were taken, even if it is full again by the check."""
        self._resumed += 1

    def end(self) -> None:
        """Stop watching: the connection is closed."""
        self._is_ended = True

    def _check(self) -> None:
        pending = self._transport.get_write_buffer_size()
        if self._is_ended or not pending:
            self._is_running = False
            return
        state = (self._resumed, pending)
        self._unchanged = self._unchanged + 1 if state == self._last else 0
        self._last = state
        if self._unchanged >= PROGRESS_CHECKS:
            # `close` would wait for the client to read what is buffered.
            self._transport.abort()
            return
        self._call_later(self._interval, self._check)


class _Protocol(H11Protocol):
    """uvicorn's protocol with timeouts for a client that sends half a request or does not read its response."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timeout for the first request."""
        super().connection_made(transport)
        self._response_watch = ResponseWatch(transport, STALLED_RESPONSE_TIMEOUT, self.loop.call_later)
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching the response."""
        super().connection_lost(exc)
        self._response_watch.end()

    def pause_writing(self) -> None:
        """Watch whether the client reads: its response has filled the socket's buffers."""
        super().pause_writing()
        self._response_watch.start()

    def resume_writing(self) -> None:
        """Note that the client reads."""
        super().resume_writing()
        self._response_watch.resumed()

    def on_response_complete(self) -> None:
        """Start the timeout for the next request; watch what is still buffered of this response."""
        super().on_response_complete()
        self._response_watch.start()
        self._expect_request()

    def _expect_request(self) -> None:
        self.loop.call_later(REQUEST_TIMEOUT, self._close_if_idle, self.cycle)

    def _close_if_idle(self, previous: Any) -> None:
        # Not if the next request has arrived, or the connection is closing already.
        if self.cycle is previous and not self.transport.is_closing():
            self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: they raise the signal again, so that the process ends with an error."""

    def end(self) -> None:
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
