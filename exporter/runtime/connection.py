"""The connections behind `exchange`: TLS, proxy, and what every request carries."""

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
            # What `exchange` can unpack without trusting what it unpacks to.
            "Accept-Encoding": "gzip",
            "User-Agent": "spinner-exporter",
            **runtime.headers,
        }
        self._query = runtime.query
        self._extensions = {"timeout": httpx.Timeout(runtime.timeout).as_dict()}
        self._turns = asyncio.Semaphore(most)
        self._opened: list[Transport] = []
        try:
            self._free = [self._open()]
        except ImportError:
            raise ConfigError("runtime.proxy: socks5 needs the package socksio: pip install 'httpx[socks]'") from None

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
        """Give one that nobody else has, as soon as there is one."""
        async with self._turns:
            connection = self._free.pop() if self._free else self._open()
            try:
                yield connection
            finally:
                self._free.append(connection)

    async def close(self) -> None:
        """Close them all."""
        for connection in self._opened:
            await connection.aclose()

    def _open(self) -> Transport:
        connection = self._transport or httpx.AsyncHTTPTransport(
            verify=self._verify,
            proxy=self._proxy,
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
        )
        self._opened.append(connection)
        return connection


async def warm_up() -> None:
    """Load what the libraries load with a first request, where it would hold up whoever asks meanwhile for 40 ms."""
    await anyio.lowlevel.checkpoint()


def _usual_proxy(base_url: str) -> str | None:
    """Return the proxy that HTTPS_PROXY and its kin name for a URL; None where NO_PROXY excepts its host."""
    parts = urllib.parse.urlsplit(base_url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy is None or urllib.request.proxy_bypass(parts.hostname or ""):
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
