"""The HTTP client behind `client`: TLS, proxy, and what every request carries."""

import ssl

import httpx

from exporter.config import RuntimeConfig
from exporter.errors import ConfigError

Transport = httpx.AsyncBaseTransport
"""How requests travel; tests give their own."""


def connect(runtime: RuntimeConfig, *, concurrency: int, transport: Transport | None = None) -> httpx.AsyncClient:
    """Return a client of at most `concurrency` connections. Raises `ConfigError` for files that cannot be used."""
    return httpx.AsyncClient(
        transport=transport,
        verify=_verification(runtime),
        proxy=runtime.proxy,
        timeout=runtime.timeout,
        limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
        # A redirect could carry the token to another host, so it is an error like any other.
        follow_redirects=False,
        headers={
            "Accept": "application/json",
            # What `exchange` can unpack without trusting what it unpacks to.
            "Accept-Encoding": "gzip",
            "User-Agent": "spinner-exporter",
            **runtime.headers,
        },
        params=runtime.query,
    )


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
