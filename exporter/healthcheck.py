"""Asks a server on this machine for its health, for the health checks of containers. Imports next to nothing.

A check every few seconds would otherwise cost more than the exporter itself: nearly all of its time is imports.
"""

import socket
import sys
from collections.abc import Sequence

DEFAULT_URL = "http://127.0.0.1:10095/-/healthy"

TIMEOUT = 4.0
"""Seconds without a byte after which the server counts as not responding; shorter than the timeout of the check."""

_USAGE = f"Usage: spinner-exporter healthcheck [URL]\n\nExit status 0 if URL responds. Default: {DEFAULT_URL}\n"


def main(arguments: Sequence[str]) -> int:
    """Check the URL in the arguments and return the exit status."""
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        sys.stderr.write(_USAGE)
        return 2
    problem = check(arguments[0] if arguments else DEFAULT_URL)
    if problem:
        sys.stderr.write(f"spinner-exporter healthcheck: {problem}\n")
    return 1 if problem else 0


def check(url: str) -> str:
    """Return why the server is not healthy, or an empty string.

    A server that asks for a password (401) is healthy: this check has none.
    """
    scheme, _, rest = url.partition("://")
    address, slash, path = rest.partition("/")
    host, _, port = address.rpartition(":")
    if scheme not in ("http", "https") or not host or not port.isdecimal():
        return f"expected a URL such as {DEFAULT_URL}; got {url}"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), TIMEOUT) as connection:
            line = _status_line(_encrypted(connection) if scheme == "https" else connection, address, slash + path)
    except OSError as error:
        return f"{url}: {error}"
    status = line[9:12]
    return "" if line.startswith("HTTP/1.") and status in ("200", "401") else f"{url}: {line or 'no response'}"


def _status_line(connection: socket.socket, host: str, path: str) -> str:
    request = f"GET {path or '/'} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    connection.sendall(request.encode())
    with connection.makefile("rb") as response:
        return response.readline(1024).decode("latin-1").strip()


def _encrypted(connection: socket.socket) -> socket.socket:
    """Return a connection over TLS. The certificate is not for this address, and the server is on this machine."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connection)
