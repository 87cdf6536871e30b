"""Why there is no response, in words for a log: never what a server or a proxy sent."""

import os
import re
import socket
import ssl

import httpx

from exporter.runtime.connections import BrokenConnectionError


def reason_of(error: Exception) -> str:
    """Return why a request failed, as far as it is known: because of a socket, of TLS, of a proxy, or of HTTP.

    Of what a server or a proxy sent, it has at most a status.
    """
    cause: BaseException | None = error.__cause__ if isinstance(error, BrokenConnectionError) else error
    kind = next((words for each, words in _KINDS if isinstance(cause, each)), "the connection failed")
    while cause is not None:
        if reason := _reason(cause):
            return reason
        # Of several addresses, each of which can fail for its own reason, the first one tells enough.
        several = cause.exceptions if isinstance(cause, BaseExceptionGroup) else ()
        cause = several[0] if several else cause.__cause__ or cause.__context__
    return kind


def _reason(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason.lower().replace('_', ' ')}" if error.reason else ""
    if isinstance(error, socket.gaierror):
        return f"the name cannot be resolved: {error.strerror}".lower()
    if isinstance(error, OSError):
        return os.strerror(error.errno).lower() if error.errno else ""
    text = str(error)
    if isinstance(error, httpx.ProxyError):
        status = re.match(r"\d{3}\b", text)
        return f"the proxy refused: HTTP {status[0]}" if status else ""
    if isinstance(error, httpx.RemoteProtocolError):
        return next((reason for start, reason in _VIOLATIONS.items() if text.lower().startswith(start)), "")
    return ""


_KINDS: tuple[tuple[type[Exception], str], ...] = (
    (TimeoutError, "it took too long"),
    (httpx.TimeoutException, "it took too long"),
    (httpx.ProxyError, "the proxy failed"),
    (httpx.ConnectError, "no connection"),
    (httpx.LocalProtocolError, "the request is not valid HTTP"),
    (httpx.RemoteProtocolError, "the response is not valid HTTP"),
    (httpx.UnsupportedProtocol, "the URL is not one of HTTP"),
    (httpx.DecodingError, "the response cannot be decompressed"),
    (httpx.TooManyRedirects, "too many redirects"),
    (httpx.InvalidURL, "the URL is not valid"),
    (ssl.SSLError, "TLS failed"),
    (httpx.NetworkError, "the connection was lost"),
    (ValueError, "the request has characters that HTTP does not allow"),
)
"""What is known of an error by its class; the first one that matches."""

_VIOLATIONS = {
    "server disconnected": "the connection was closed",
    "peer closed connection": "the response is truncated",
    "peer unexpectedly closed": "the response is truncated",
    "illegal status line": "the response is not HTTP",
    "illegal request line": "the response is not HTTP",
    "no response line": "the response is not HTTP",
    "illegal header line": "a header is invalid",
    "receive buffer too long": "the headers are too large",
    "conflicting content-length": "the length is contradictory",
    "only transfer-encoding": "the transfer encoding is not supported",
    "multiple transfer-encoding": "the transfer encoding is not supported",
    "illegal chunk header": "the chunked encoding is invalid",
    "received server _switch": "the server switched protocols",
}
"""How h11's and httpcore's texts begin. Some go on with what the server sent."""
