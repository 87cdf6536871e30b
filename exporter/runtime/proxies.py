"""The proxy for a URL, from the environment.

Which hosts `NO_PROXY` names has no standard, and no library reads all common forms of it: `urllib.request` and httpx
know no networks, requests knows no networks of IPv6 and no schemes, and curl no schemes. A request that wrongly goes
through a proxy shows it the token, so an entry applies if any of them would apply it. `urllib.request` compares names,
`ipaddress` addresses and networks, `fnmatch` the rest.
"""

import contextlib
import fnmatch
import ipaddress
import os
import re
import socket
import urllib.request
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from exporter.errors import ConfigError


def proxy_from_environment(url: str) -> str | None:
    """Return the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names for a URL; None if NO_PROXY names its host.

    Raises `ConfigError` for an entry of NO_PROXY that may name the host, but cannot be read.
    """
    parts = urlsplit(url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy is None:
        return None
    host, port = _plain(parts.hostname or ""), parts.port or _DEFAULT_PORTS[parts.scheme]
    if any(_names(entry, host, port) for entry in _no_proxy()):
        return None
    # Outside the environment: what macOS and Windows configure.
    if any(map(urllib.request.proxy_bypass, (host, f"{host}:{port}"))):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


_DEFAULT_PORTS = {"http": 80, "https": 443}


def _no_proxy() -> Iterable[str]:
    """Yield the entries of NO_PROXY and no_proxy: programs disagree on which of the two applies if both are set."""
    for name, value in os.environ.items():
        if name.lower() == "no_proxy":
            yield from filter(None, (entry.strip("\"'") for entry in re.split(r"[,;\s]+", value)))


def _names(entry: str, host: str, port: int) -> bool:
    """Whether an entry names a host. Its scheme is ignored: whatever it is, the entry names the host."""
    try:
        name, only_port = _split(entry)
    except ValueError:
        if _addresses(host):
            raise ConfigError(f"NO_PROXY: {entry!r}: expected an address or a network such as 10.0.0.0/8") from None
        return False
    if only_port not in (None, port):
        return False
    with contextlib.suppress(ValueError):
        network = ipaddress.ip_network(name, strict=False)
        return any(address in network for address in _addresses(host) if address.version == network.version)
    # typeshed lacks this function of the standard library.
    is_in = urllib.request.proxy_bypass_environment(host, {"no": name})  # type: ignore[attr-defined]
    return is_in or fnmatch.fnmatchcase(host, name)


def _split(entry: str) -> tuple[str, int | None]:
    """Return the name, address or network of an entry, and its port. Raises `ValueError` for half an address."""
    bare = re.sub(r"^\[(.*)\](/\d+)?$", r"\1\2", entry.lower())
    if _NETWORK.fullmatch(bare):
        return str(ipaddress.ip_network(bare, strict=False)), None
    parts = urlsplit(entry if "://" in entry else f"//{entry}")
    try:
        port = parts.port
    except ValueError:
        port = None  # such as `*`
    return _plain(parts.hostname or ""), port


_NETWORK = re.compile(r"[\d.]+/.*|[\da-f]*:[\da-f:]*:[\da-f:.]*(%.*|/.*)?")
"""What can only be a network, or an address of IPv6."""


def _plain(host: str) -> str:
    """Return a host as the name service knows it, without a dot at its ends."""
    host = host.strip(".").lower()
    with contextlib.suppress(UnicodeError):
        host = host.encode("idna").decode()
    return host


def _addresses(host: str) -> Sequence[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Return the addresses that a host is by itself, without asking a name server; none for a name."""
    if host == "localhost" or host.endswith(".localhost"):
        return ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv6Address("::1")
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host.partition("%")[0])
        mapped = address.ipv4_mapped if address.version == 6 else None
        return (address,) if mapped is None else (address, mapped)
    with contextlib.suppress(OSError):
        return (ipaddress.IPv4Address(socket.inet_aton(host)),)  # other spellings, such as 127.1
    return ()
