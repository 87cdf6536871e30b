"""Asks a server on this machine for its health, for the health checks of containers. Imports next to nothing.

A check every few seconds would otherwise cost more than the exporter itself: nearly all of its time is imports.
"""

import socket
import sys
from collections.abc import Sequence

DEFAULT_URL = "http://127.0.0.1:10095/-/healthy"

DEFAULT_TLS_URL = "https://127.0.0.1:10095/-/healthy"
"""The same of an exporter with `tls_server_config`, which closes the connection of whoever asks without TLS."""

TIMEOUT = 4.0
"""Seconds without a byte after which the server counts as not responding; shorter than the timeout of the check."""

_USAGE = (
    "Usage: spinner-exporter healthcheck [URL]\n\n"
    f"Exit status 0 if URL responds. Default: {DEFAULT_URL}, or the same with https\n"
)


def main(arguments: Sequence[str]) -> int:
    """Check the URL in the arguments and return the exit status."""
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        sys.stderr.write(_USAGE)
        return 2
    problem = check(arguments[0]) if arguments else check(DEFAULT_URL, DEFAULT_TLS_URL)
    if problem:
        sys.stderr.write(f"spinner-exporter healthcheck: {problem}\n")
    return 1 if problem else 0


def check(url: str, otherwise: str = "") -> str:
    """Return why the server is not healthy, or an empty string.

    A server that asks for a password (401) or for a certificate is healthy: this check has none. If `url` is closed
    without a response, the URL `otherwise` is checked instead.
    """
    scheme, _, rest = url.partition("://")
    address, slash, path = rest.partition("/")
    host, _, port = address.rpartition(":")
    if scheme not in ("http", "https") or not host or not port.isdecimal():
        return f"expected a URL such as {DEFAULT_URL}; got {url}"
    ask = _status_line_over_tls if scheme == "https" else _status_line
    try:
        with socket.create_connection((host.strip("[]"), int(port)), TIMEOUT) as connection:
            line = ask(connection, address, slash + path)
    except (ConnectionResetError, BrokenPipeError) as error:
        return check(otherwise) if otherwise else f"{url}: {error}"
    except OSError as error:
        return f"{url}: {error}"
    if otherwise and not line.startswith("HTTP/"):
        return check(otherwise)
    is_healthy = line == CERTIFICATE_REQUIRED or (line.startswith("HTTP/1.") and line[9:12] in ("200", "401"))
    return "" if is_healthy else f"{url}: {line or 'no response'}"


def _status_line(connection: socket.socket, host: str, path: str) -> str:
    request = f"GET {path or '/'} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    connection.sendall(request.encode())
    with connection.makefile("rb") as response:
        return response.readline(1024).decode("latin-1").strip()


CERTIFICATE_REQUIRED = "certificate required"
"""Stands for the status line of a server that has ended the connection because its clients need a certificate."""


def _status_line_over_tls(connection: socket.socket, host: str, path: str) -> str:
    """Return the status line. The certificate is not for this address, and the server is on this machine.

    A server that requires a certificate goes on until it could have got one: with TLS 1.2 it ends the handshake after
    it has chosen a cipher, with TLS 1.3 the connection after the handshake. That it has come so far shows that it
    responds. It ends them by an alert, or by nothing but a close (asyncio).
    """
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with context.wrap_socket(connection, do_handshake_on_connect=False) as encrypted:
        version = None
        try:
            encrypted.do_handshake()
            version = encrypted.version()
            line = _status_line(encrypted, host, path)
        except TimeoutError:
            raise
        except OSError:
            # There is a cipher once the server has responded to the start of the handshake.
            if version == "TLSv1.2" or encrypted.cipher() is None:
                raise
            return CERTIFICATE_REQUIRED
        return line or (CERTIFICATE_REQUIRED if version == "TLSv1.3" else "")
