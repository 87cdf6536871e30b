"""The connections behind `http_client`: TLS, proxy, and what every request carries."""

import asyncio
import contextlib
import ssl
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Mapping
from typing import Any

import anyio
import anyio.lowlevel
import httpx

from exporter.config import RuntimeConfig
from exporter.errors import ConfigError

Transport = httpx.AsyncBaseTransport
"""How requests travel; tests give their own."""


class Connections:
    """So many connections to one runtime, each opened when there is more to ask than those before can take.

    Each is a pool of its own: a pool looks all its connections over for every request, and with eight of them that is
    a quarter of what a request costs. Above the pools there is no client either, which costs another quarter for what
    must not happen here: redirects, which could carry the token to another host, and cookies.
    """

    def __init__(self, runtime: RuntimeConfig, *, most: int, transport: Transport | None = None) -> None:
        """Connects to nobody yet. Raises `ConfigError` for files, and a proxy, that cannot be used."""
        self._transport = transport
        self._verify = _verification(runtime)
        self._proxy = runtime.proxy or _usual_proxy(runtime.base_url)
        self._headers = {
            "Accept": "application/json",
            # What `http_client` can unpack without trusting what it unpacks to.
            "Accept-Encoding": "gzip",
            "User-Agent": "spinner-exporter",
            **runtime.headers,
        }
        self._query = runtime.query
        self._extensions = {"timeout": httpx.Timeout(runtime.timeout).as_dict()}
        self._turns = asyncio.Semaphore(most)
        self._opened: list[Transport] = []
        self._free: list[tuple[Transport, float]] = []
        """Those that nobody has, each with when it was given back; the last to be given back stands last."""
        self._closing: set[asyncio.Task[None]] = set()
        where = "runtime.proxy" if runtime.proxy else "the proxy that the environment names"
        try:
            self._free.append((self._open(), float("inf")))
        except ImportError:
            raise ConfigError(f"{where}: socks5 needs the package socksio: pip install 'httpx[socks]'") from None
        except (ValueError, httpx.InvalidURL):
            raise ConfigError(f"{where}: expected a URL such as http://proxy.example.com:3128") from None

    def request(
        self, method: str, url: str, *, query: Mapping[str, Any], body: Any, headers: Mapping[str, str]
    ) -> httpx.Request:
        """Return a request with what every one carries. Raises `httpx.InvalidURL`."""
        return httpx.Request(
            method,
            url,
            params={**self._query, **query},
            headers={**self._headers, **headers},
            json=body,
            extensions=self._extensions,
        )

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[Transport]:
        """Give one that nobody else has, as soon as there is one; one whose use fails is not given again.

        What is cancelled half way can leave a pool with its connection taken for ever.
        """
        async with self._turns:
            now = asyncio.get_running_loop().time()
            while self._free and self._free[0][1] < now - KEPT_IDLE:
                self._discard(self._free.pop(0)[0])
            connection = self._free.pop()[0] if self._free else self._open()
            try:
                yield connection
            except BaseException:
                self._discard(connection)
                raise
            self._free.append((connection, asyncio.get_running_loop().time()))

    async def close(self) -> None:
        """Close them all."""
        for connection in self._opened:
            await connection.aclose()
        if self._closing:
            await asyncio.wait(self._closing)

    def _discard(self, connection: Transport) -> None:
        self._opened.remove(connection)
        if connection is not self._transport:
            task = asyncio.create_task(connection.aclose(), name="close connection")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _open(self) -> Transport:
        connection = self._transport or httpx.AsyncHTTPTransport(
            verify=self._verify,
            proxy=self._proxy,
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
        )
        self._opened.append(connection)
        return connection


KEPT_IDLE = 5.0
"""Seconds for which a connection that is not used is kept, as httpx does."""


async def warm_up() -> None:
    """Load what the libraries load with a first request, where it would hold up whoever asks meanwhile for 40 ms."""
    await anyio.lowlevel.checkpoint()


def _usual_proxy(base_url: str) -> str | None:
    """Return the proxy that HTTPS_PROXY and its kin name for a URL; None where NO_PROXY excepts its host."""
    parts = urllib.parse.urlsplit(base_url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    host = parts.hostname or ""
    # With its port too, which NO_PROXY can have.
    if proxy is None or any(map(urllib.request.proxy_bypass, (host, f"{host}:{parts.port}"))):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _verification(runtime: RuntimeConfig) -> ssl.SSLContext:
    tls = runtime.tls
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"runtime.tls.ca_file: {tls.ca_file}: cannot be used: {_reason(error)}") from None
    if tls.cert_file is not None:
        try:
            context.load_cert_chain(tls.cert_file, tls.key_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"runtime.tls.cert_file: {tls.cert_file}: cannot be used: {_reason(error)}") from None
    return context


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
