"""Connections to a runtime: TLS, proxy, keepalive, and the headers and parameters of every request."""

import asyncio
import contextlib
import dataclasses
import time
import urllib.parse
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import anyio
import anyio.lowlevel
import httpcore
import httpx

from exporter.config import RuntimeConfig
from exporter.config.schema import DIRECT
from exporter.errors import ConfigError
from exporter.runtime.proxies import proxy_from_environment
from exporter.runtime.tls import ClientTls

Transport = httpx.AsyncBaseTransport
"""Sends requests; tests pass their own."""


Query = Mapping[str, Any] | Sequence[tuple[str, str]]
"""The parameters of a URL. In pairs their order stays, and so do all values of a parameter that occurs repeatedly."""


@dataclasses.dataclass(frozen=True, slots=True)
class Content:
    """A body that is sent as it is, and its media type."""

    content: bytes = dataclasses.field(repr=False)
    media_type: str


KEEPALIVE = 75.0
"""Seconds that an idle connection is kept: longer than a scrape interval, so that scrapes share their connections."""


MAX_AGE = 300.0
"""Seconds after which a connection is replaced although it is in use: its host's name may lead elsewhere by now.

A runtime that has moved may go on to answer at its old address, with data that no longer change.
"""


class BrokenConnectionError(httpx.ReadError):
    """An error that httpx does not map, such as one of TLS after the handshake; its `__cause__` is the original."""


class Connections:
    """Kept connections to one runtime, used by at most `concurrency` requests at a time.

    Each is an httpx transport with a pool of one connection. One pool for all takes 1.6 to 2 times the CPU time per
    request, since httpcore checks every connection for every request; httpx's client takes more than 2 times
    (`benchmarks/connections.py`). The client would also add what must not happen here: cookies, and redirects, which
    could carry the token to another host.
    """

    def __init__(
        self,
        runtime: RuntimeConfig,
        *,
        concurrency: int,
        transport: Transport | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Opens no connection yet. Raises `ConfigError` for TLS files or a proxy that cannot be used."""
        try:
            # The HTTP client rejects some hosts that `config` cannot check, such as those with an emoji.
            httpx.URL(runtime.base_url)
        except httpx.InvalidURL:
            raise ConfigError("runtime.base_url: expected a URL such as http://127.0.0.1:8090") from None
        self._transport = transport
        self._monotonic = monotonic
        self._tls = ClientTls(runtime.tls)
        self._verify = self._tls.context()
        self._proxy = _proxy(runtime)
        self._headers = httpx.Headers(
            {
                "Accept": "application/json",
                # `http_client` limits the size of what it decompresses, which it can do for gzip only.
                "Accept-Encoding": "gzip",
                # A cache on the way asks the API each time, also with `If-None-Match`.
                "Cache-Control": "no-cache",
                "User-Agent": "spinner-exporter",
            }
        )
        url = httpx.URL(runtime.base_url)
        self._host = url.host.removesuffix(".") if url.host.endswith(".") else None
        if self._host is not None:
            self._headers["Host"] = url.copy_with(host=self._host).netloc.decode("ascii")
        self._headers.update(runtime.headers)
        # The dot at the end of a complete name is for the name service. Neither certificates nor servers have it.
        self._tls_name = {} if self._host is None else {"sni_hostname": self._host}
        self._query = runtime.query
        self._timeout = httpx.Timeout(runtime.timeout).as_dict()
        self._closing: set[asyncio.Task[None]] = set()
        self.slots = asyncio.Semaphore(concurrency)
        """Acquire one before sending a request, and release it after reading the response."""
        where = "runtime.proxy" if runtime.proxy else "the proxy from the environment"
        try:
            self._idle = [self._new_connection()]
        except (ValueError, httpx.InvalidURL):
            raise ConfigError(f"{where}: expected a URL such as http://proxy.example.com:3128") from None
        self._busy: set[_Connection] = set()

    def request(self, method: str, url: str, *, query: Query, body: Any, headers: Mapping[str, str]) -> httpx.Request:
        """Build a request with the configured query and headers.

        Raises `httpx.InvalidURL`, or `ValueError` for text that a URL or a header cannot contain.
        """
        merged = self._headers.copy()
        merged.update(headers)
        content: dict[str, Any] = {"json": body}
        if isinstance(body, Content):
            content = {"content": body.content}
            merged["Content-Type"] = body.media_type
        if self._host is not None and self._proxy is not None:
            # It resolves the name itself, and httpcore does not verify another one behind a tunnel.
            url = str(httpx.URL(url).copy_with(host=self._host))
        if isinstance(query, Mapping):
            return httpx.Request(method, url, params={**self._query, **query}, headers=merged, **content)
        # httpx would move the values of one parameter together. Links can be signed, in the order of their parameters.
        given = {name for name, _ in query}
        pairs = [*(each for each in self._query.items() if each[0] not in given), *query]
        return httpx.Request(method, f"{url}?{urllib.parse.urlencode(pairs)}", headers=merged, **content)

    @contextlib.asynccontextmanager
    async def send(self, request: httpx.Request) -> AsyncIterator[httpx.Response]:
        """Send a request and yield its response, whose body is still to be read. Raises `httpx.HTTPError`.

        httpcore 1.0 never reuses a connection whose request was cancelled at certain steps, and counts it against the
        pool's limit for ever, so the pool of a cancelled request is dropped.
        """
        self._follow_tls_files()
        verify = self._verify
        connection = self._take()
        self._busy.add(connection)
        cancelled = False
        try:
            response = await self._response(connection.transport, request)
            with _mapped_errors():
                try:
                    yield response
                finally:
                    await response.aclose()
        except asyncio.CancelledError:
            cancelled = True
            raise
        finally:
            self._busy.discard(connection)
            if cancelled or verify is not self._verify or _has_unread_data(connection.transport):
                self._close_soon(connection)
            else:
                self._idle.append(connection)

    async def close(self) -> None:
        """Close all connections."""
        for connection in [*self._idle, *self._busy]:
            await _close(connection.transport)
        if self._closing:
            await asyncio.wait(self._closing)

    async def _response(self, transport: Transport, request: httpx.Request) -> httpx.Response:
        while True:
            trace = _Trace()
            request.extensions = {"timeout": self._timeout, "trace": trace, **self._tls_name}
            try:
                with _mapped_errors():
                    return await transport.handle_async_request(request)
            except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
                # The server may have closed the kept connection while the request was on its way. All our requests
                # read, so they can be repeated; each repetition uses up one kept connection.
                if not trace.used_kept_connection:
                    raise

    def _take(self) -> "_Connection":
        """Return the kept connection that was used last, since the server is least likely to have closed it."""
        while self._idle:
            connection = self._idle.pop()
            if self._monotonic() - connection.since < MAX_AGE:
                return connection
            self._close_soon(connection)
        return self._new_connection()

    def _follow_tls_files(self) -> None:
        """After a certificate was replaced, use no connection any more that was made with the previous one."""
        verify = self._tls.context()
        if verify is not self._verify:
            self._verify = verify
            for connection in self._idle:
                self._close_soon(connection)
            self._idle.clear()

    def _new_connection(self) -> "_Connection":
        transport = self._transport or httpx.AsyncHTTPTransport(
            verify=self._verify,
            proxy=self._proxy,
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEEPALIVE),
        )
        return _Connection(transport, self._monotonic())

    def _close_soon(self, connection: "_Connection") -> None:
        if connection.transport is self._transport:
            return  # that of a test, which serves all connections
        task = asyncio.create_task(_close(connection.transport), name="close connection")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class _Connection(NamedTuple):
    """A pool of at most one connection, and our monotonic time since which it exists."""

    transport: Transport
    since: float


def _has_unread_data(transport: Transport) -> bool:
    """Whether the server sent more than its response: httpcore 1.0 would take it for the response to the next request.

    There is no public way to know. What arrives later makes httpcore replace the connection.
    """
    for connection in getattr(getattr(transport, "_pool", None), "connections", ()):
        while hasattr(connection, "_connection"):
            connection = connection._connection  # noqa: SLF001, through the layers of a proxy
        state = getattr(connection, "_h11_state", None)
        if state is not None and state.trailing_data[0]:
            return True
    return False


async def _close(transport: Transport) -> None:
    # A connection that cannot be closed in an orderly way is of no use either.
    with contextlib.suppress(httpx.HTTPError), _mapped_errors():
        await transport.aclose()


@contextlib.contextmanager
def _mapped_errors() -> Iterator[None]:
    """Raise what a socket raises as `httpx.HTTPError`.

    httpcore 1.0 maps `ssl.SSLError` in the handshake only. With TLS 1.3 a refused client certificate comes after it. It
    does not map the errors of the library that speaks SOCKS.
    """
    try:
        yield
    except (OSError, EOFError, UnicodeError, httpx.StreamError, *_ANYIO_ERRORS) as error:
        raise BrokenConnectionError(type(error).__name__) from error
    except Exception as error:
        # By its name: socksio is a dependency of httpcore, not ours.
        if type(error).__module__.partition(".")[0] != "socksio":
            raise
        raise BrokenConnectionError(type(error).__name__) from error


_ANYIO_ERRORS = (
    anyio.BrokenResourceError,
    anyio.BusyResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
    anyio.IncompleteRead,
)


class _Trace:
    """Observes through httpcore's trace events whether a request uses a connection from an earlier request.

    Closes a connection to a proxy that does not speak SOCKS, which httpcore 1.0 leaves open.
    """

    def __init__(self) -> None:
        self.used_kept_connection = False
        self._connected = False
        self._stream: httpcore.AsyncNetworkStream | None = None

    async def __call__(self, event: str, details: Mapping[str, Any]) -> None:
        if event.endswith(".connect_tcp.started"):
            self._connected = True
        elif event.endswith(".connect_tcp.complete"):
            self._stream = details["return_value"]
        elif event.endswith(".setup_socks5_connection.failed") and self._stream is not None:
            await self._stream.aclose()
        elif event.endswith(".send_request_headers.started"):
            self.used_kept_connection = not self._connected


async def warm_up() -> None:
    """Import what httpcore and anyio import with the first request, which would block the event loop for 40 ms then."""
    await anyio.lowlevel.checkpoint()


def _proxy(runtime: RuntimeConfig) -> str | None:
    if runtime.proxy == DIRECT:
        return None
    return runtime.proxy or proxy_from_environment(runtime.base_url)
