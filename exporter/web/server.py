"""The socket, and the HTTP server with its signals and timeouts."""

import asyncio
import contextlib
import errno
import os
import re
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from urllib.parse import unquote

import uvicorn
from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from exporter.config import split_address
from exporter.errors import UnusableError
from exporter.web import connections as limits
from exporter.web.auth import AuthMiddleware, CurrentContext, WebConfigFile
from exporter.web.browsers import HEADERS
from exporter.web.connections import CONNECTION, Acceptor, Connection, Connections, connection_limit

GRACE = 5
"""Seconds after SIGTERM in which responses in progress can end."""

KEEP_ALIVE = 75
"""Seconds that an idle connection is kept: longer than a scrape interval, so that no scrape meets one being closed."""

STALLED_RESPONSE_TIMEOUT = 30.0
"""Seconds without progress after which a client that does not read its response is disconnected."""

RESPONSE_TIMEOUT = 120.0
"""Seconds that a client has to read a response: one that reads a byte now and then makes progress for ever."""

PROGRESS_CHECKS = 4
"""How often progress is checked within `STALLED_RESPONSE_TIMEOUT`."""

MAX_HEAD = 16_384
"""Bytes of a request's first line and headers."""


def listen(address: str) -> socket.socket:
    """Bind `host:port`, or `:port` for all interfaces of both families; raises `UnusableError`."""
    try:
        listener = _listener(*split_address(address))
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        if error.errno == errno.EADDRINUSE:
            reason += "; choose another address with --web.listen-address"
        raise UnusableError(f"web.listen_address: cannot listen on {address}: {reason}") from None
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
    server = _server(app, listener, date_header=date_header, web_config_file=web_config_file)
    loop = asyncio.get_running_loop()

    def end() -> None:
        server.end()
        if on_end is not None:
            on_end()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    if on_hangup is not None:
        loop.add_signal_handler(signal.SIGHUP, on_hangup)
    await server.serve(sockets=[])


@contextlib.asynccontextmanager
async def running_server(
    app: ASGIApp, listener: socket.socket, *, web_config_file: WebConfigFile | None = None
) -> AsyncIterator[None]:
    """Respond to requests during the block, without handling signals."""
    server = _server(app, listener, date_header=True, web_config_file=web_config_file)
    task = asyncio.create_task(server.serve(sockets=[]), name="server")
    try:
        yield
    finally:
        server.end()
        await task


def _server(
    app: ASGIApp, listener: socket.socket, *, date_header: bool, web_config_file: WebConfigFile | None = None
) -> "_Server":
    connections = Connections(connection_limit())
    config = uvicorn.Config(
        _TargetMiddleware(
            _ResponseMiddleware(app if web_config_file is None else AuthMiddleware(app, web_config_file), connections)
        ),
        http=_Protocol,
        ws="none",
        log_config=None,
        access_log=False,
        # Otherwise a client on this machine can name any client, and any scheme for the targets of `/sd`.
        proxy_headers=False,
        server_header=False,
        date_header=date_header,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
        h11_max_incomplete_event_size=MAX_HEAD,
    )
    tls = CurrentContext.of(web_config_file) if web_config_file is not None and web_config_file.has_tls else None
    return _Server(config, listener, connections, tls)


class _TargetMiddleware:
    """Accepts the URL of a resource instead of its path (RFC 9112, section 3.2.2), as some proxies send it.

    Its host replaces the header Host.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match = _URL.fullmatch(scope["raw_path"]) if scope["type"] == "http" else None
        if match is not None:
            host, path = match[1], match[2] or b"/"
            headers = [(b"host", host), *(each for each in scope["headers"] if each[0] != b"host")]
            scope = {**scope, "raw_path": path, "path": unquote(path.decode("ascii")), "headers": headers}
        await self._app(scope, receive, send)


_URL = re.compile(rb"https?://([^/]*)(/.*)?", re.IGNORECASE | re.DOTALL)


class _ResponseMiddleware:
    """Counts each response as unread before it is sent, and adds the headers that browsers obey.

    Responds with 503 to a request that is cancelled: it has not ended `GRACE` seconds after SIGTERM.
    """

    def __init__(self, app: ASGIApp, connections: Connections) -> None:
        self._app = app
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_started = False

        async def note(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                size = int(headers.get("Content-Length", 0))
                if self._connections.unread(scope["state"][CONNECTION], size):
                    await asyncio.sleep(0)  # what the others hold is released before more is taken
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

    def __init__(self, transport: asyncio.Transport, call_later: Callable[..., asyncio.TimerHandle]) -> None:
        """`call_later(seconds, callback)` schedules a check, as an event loop does."""
        self._transport = transport
        self._interval = STALLED_RESPONSE_TIMEOUT / PROGRESS_CHECKS
        self._checks = RESPONSE_TIMEOUT // self._interval
        self._call_later = call_later
        self._next: asyncio.TimerHandle | None = None
        self._is_sending = False
        self._checked = 0
        self._resumed = 0
        self._last = (0, 0)
        self._unchanged = 0

    def start(self) -> None:
        """Watch a response that is being sent; does nothing if the write buffer is empty, or it is watched already."""
        self._is_sending = True
        self._watch()

    def sent(self) -> None:
        """Watch until the write buffer is empty: the response is complete."""
        self._is_sending = False
        self._watch()

    def resumed(self) -> None:
        """Note that the buffer has become writable again: bytes were taken, even if it is full again by the check."""
        self._resumed += 1

    def end(self) -> None:
        """Stop watching: the connection is closed."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _watch(self) -> None:
        pending = self._transport.get_write_buffer_size()
        if pending and self._next is None:
            self._checked, self._last, self._unchanged = 0, (self._resumed, pending), 0
            self._next = self._call_later(self._interval, self._check)

    def _check(self) -> None:
        self._next = None
        pending = self._transport.get_write_buffer_size()
        if not pending and not self._is_sending:
            return
        state = (self._resumed, pending)
        self._unchanged = self._unchanged + 1 if state == self._last else 0
        self._last = state
        self._checked += 1
        if self._unchanged >= PROGRESS_CHECKS or self._checked >= self._checks:
            # `close` would wait for the client to read what is buffered.
            self._transport.abort()
            return
        self._next = self._call_later(self._interval, self._check)


class _Protocol(H11Protocol):
    """uvicorn's protocol with limits for clients that send half a request or do not read their responses."""

    def __init__(self, *arguments: Any, connections: Connections, connection: Connection, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._connections = connections
        self._connection = connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take over the connection, whose deadline for the first request runs since it was accepted."""
        super().connection_made(transport)
        self._response_watch = ResponseWatch(transport, self.loop.call_later)
        self._connection.end = transport.abort

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget all timers: each would keep the request until it fires."""
        super().connection_lost(exc)
        self._response_watch.end()
        self._connections.closed(self._connection)
        self._unset_keepalive_if_required()

    def handle_events(self) -> None:
        """Note whether a request has arrived."""
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._connection.is_waiting = False
            self._connection.cancel_deadline()

    def pause_writing(self) -> None:
        """Watch whether the client reads: its response has filled the socket's buffers."""
        super().pause_writing()
        self._response_watch.start()

    def resume_writing(self) -> None:
        """Note that the client reads."""
        super().resume_writing()
        self._response_watch.resumed()
        if self.cycle.response_complete:
            self._connections.read(self._connection)

    def on_response_complete(self) -> None:
        """Start the timeout for the next request; watch what is still buffered of this response."""
        super().on_response_complete()
        self._response_watch.sent()
        if not self.flow.write_paused:
            self._connections.read(self._connection)
        # Not if the next request had arrived already.
        if self.cycle.response_complete:
            self._connections.waits(self._connection)
            self._expect_request(KEEP_ALIVE if self._is_idle else limits.REQUEST_TIMEOUT)

    def data_received(self, data: bytes) -> None:
        """Start the timeout for the next request with its first byte."""
        was_idle = self._is_idle
        super().data_received(data)
        if was_idle and not self._is_idle and self.cycle is not None and self.cycle.response_complete:
            self._expect_request(limits.REQUEST_TIMEOUT)

    def _should_upgrade(self) -> bool:
        """Ignore a request for another protocol (RFC 9110, section 7.8): some clients ask for HTTP/2 each time."""
        return False

    @property
    def _is_idle(self) -> bool:
        """Whether nothing of the next request has arrived."""
        # By its name: h11 is a dependency of uvicorn, not ours.
        return self.conn.their_state.__name__ == "IDLE" and not self.conn.trailing_data[0]

    def _expect_request(self, timeout: float) -> None:
        self._connection.cancel_deadline()
        self._connection.deadline = self.loop.call_later(timeout, self._disconnect_if_idle)

    def _disconnect_if_idle(self) -> None:
        # What it reads of the response is watched. Not `close`, which over TLS waits for the client.
        if self.transport.get_write_buffer_size():
            self._expect_request(limits.REQUEST_TIMEOUT)
        else:
            self.transport.abort()


class _Server(uvicorn.Server):
    """uvicorn with its own way to accept connections.

    It has no signal handlers: uvicorn's raise the signal again, so that the process ends with an error.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        listener: socket.socket,
        connections: Connections,
        tls: ssl.SSLContext | None,
    ) -> None:
        super().__init__(config)
        self._listener = listener
        self._connections = connections
        self._acceptor = Acceptor(listener, self._connections, self._protocol, tls)

    def end(self) -> None:
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and accept connections."""
        await super().startup(sockets)
        self._accepting = asyncio.create_task(self._acceptor.run(), name="acceptor")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more connections, and let responses in progress end."""
        self._accepting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._accepting
        self._listener.close()
        await super().shutdown(sockets)

    def _protocol(self, connection: Connection) -> _Protocol:
        return _Protocol(
            config=self.config,
            server_state=self.server_state,
            app_state={**self.lifespan.state, CONNECTION: connection},
            connections=self._connections,
            connection=connection,
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
