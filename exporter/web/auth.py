"""TLS and authentication: the web config file of Prometheus's exporter-toolkit, read again when it changes.

Its format: https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md. A setting that is not
supported here is an error and never ignored, since its user relies on it.
"""

import asyncio
import base64
import binascii
import re
import ssl
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.config import strict
from exporter.config.certificates import CertificateError, load_certificate, load_client_authorities
from exporter.config.exposure import readable_files
from exporter.config.files import stamp
from exporter.config.values import is_header_value
from exporter.errors import ConfigError, UnusableError
from exporter.web.connections import CONNECTION
from exporter.web.passwords import BusyError, Passwords, cost

log = structlog.get_logger(__name__)

RETRY_AFTER = 5
"""Seconds after which a client should try again if too many passwords are being checked."""

MIN_COST, MAX_COST = 4, 18
"""Costs of bcrypt: below, it knows none; above, one check takes more than 15 seconds."""


class TlsServer(strict.Section, frozen=True):
    """The server's certificate, and whether clients need one."""

    cert_file: str
    key_file: str
    client_auth_type: str = "NoClientCert"
    client_ca_file: str | None = None
    min_version: str = "TLS12"
    max_version: str = "TLS13"
    prefer_server_cipher_suites: bool = True

    def __post_init__(self) -> None:
        if self.client_auth_type not in _CLIENT_AUTH:
            raise ValueError(f"client_auth_type: expected one of {', '.join(_CLIENT_AUTH)}")
        if (self.client_ca_file is None) != (self.client_auth_type == "NoClientCert"):
            raise ValueError(
                "client_ca_file: required if client_auth_type verifies certificates, and not allowed otherwise"
            )
        for key in ("min_version", "max_version"):
            if getattr(self, key) not in _VERSIONS:
                raise ValueError(f"{key}: expected one of {', '.join(_VERSIONS)}")
        if self.min_version > self.max_version:
            raise ValueError("min_version: expected at most max_version")


class HttpServer(strict.Section, frozen=True):
    """Headers of every response."""

    http2: bool = False
    headers: dict[str, str] = {}

    def __post_init__(self) -> None:
        if self.http2:
            raise ValueError("http2: expected false: this exporter supports HTTP/1.1 only")
        for name, value in self.headers.items():
            if name not in _HEADERS:
                raise ValueError(f"headers.{name}: expected one of {', '.join(_HEADERS)}")
            if not is_header_value(value):
                raise ValueError(f"headers.{name}: expected one line of printable ASCII text")


class WebSettings(strict.Section, frozen=True):
    """The content of the file."""

    tls_server_config: TlsServer | None = None
    http_server_config: HttpServer = HttpServer()
    basic_auth_users: dict[str, str] = {}

    def __post_init__(self) -> None:
        for user, hashed in self.basic_auth_users.items():
            if ":" in user or not re.fullmatch(r"\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}", hashed):
                # Without the value, which may be a password that is not hashed.
                raise ValueError(f"basic_auth_users.{user}: expected a bcrypt hash such as htpasswd -nBC 10 makes")
            if not MIN_COST <= cost(hashed) <= MAX_COST:
                raise ValueError(
                    f"basic_auth_users.{user}: expected a cost from {MIN_COST} to {MAX_COST}, got {cost(hashed)}"
                )


_CLIENT_AUTH = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_HEADERS = (
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-XSS-Protection",
    "Content-Security-Policy",
)
_VERSIONS = {
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}


class WebConfigFile:
    """The current settings of the web config file. A file that becomes invalid changes nothing and is logged once."""

    def __init__(self, file: Path) -> None:
        """Raises `ConfigError` if the file, or one that it names, cannot be used."""
        self._file = file
        self._stamps: dict[Path, object] = {}
        self._refused = ""
        self.settings, self._tls = self._load()

    @property
    def has_tls(self) -> bool:
        """Whether connections are encrypted; that cannot change while the server listens."""
        return self._tls is not None

    def warnings(self) -> list[str]:
        """Return one sentence for each file with secrets that others can read."""
        tls = self.settings.tls_server_config
        files = [("web.config_file", self._file)]
        if tls is not None:
            files.append(("tls_server_config.key_file", self._file.parent / tls.key_file))
        return list(readable_files(files))

    def tls(self) -> ssl.SSLContext:
        """Return the context for the next connection."""
        self.refresh()
        if self._tls is None:
            raise RuntimeError("asked for TLS although has_tls is False")
        return self._tls

    def refresh(self) -> None:
        """Read the files again if one of them changed."""
        if {path: stamp(path) for path in self._stamps} == self._stamps:
            return
        try:
            settings, tls = self._load()
            if (tls is None) != (self._tls is None):
                raise ConfigError(f"{self._file}: tls_server_config: adding or removing it requires a restart")
        except ConfigError as error:
            if str(error) != self._refused:
                self._refused = str(error)
                log.error("web config file not reloaded; keeping the previous config", error=str(error))
            return
        self.settings, self._tls, self._refused = settings, tls, ""
        log.info("web config file reloaded", file=str(self._file))

    def _load(self) -> tuple[WebSettings, ssl.SSLContext | None]:
        # Before the files are read, so that a change in between is noticed the next time.
        self._stamps = {self._file: stamp(self._file)}
        tree = strict.read(self._file, example="basic_auth_users: {prometheus: $2y$10$…}")
        try:
            settings = strict.decode(tree, WebSettings)
        except strict.MisfitError as error:
            raise ConfigError(f"{self._file}: {'.'.join(error.path)}: {error.what}") from None
        tls = settings.tls_server_config
        if tls is None:
            return settings, None
        # Relative to the folder of the web config file, as in the toolkit.
        files = {
            key: self._file.parent / name
            for key in ("cert_file", "key_file", "client_ca_file")
            if (name := getattr(tls, key)) is not None
        }
        self._stamps |= {path: stamp(path) for path in files.values()}
        return settings, self._context(tls, files)

    def _context(self, tls: TlsServer, files: dict[str, Path]) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version, context.maximum_version = _VERSIONS[tls.min_version], _VERSIONS[tls.max_version]
        context.verify_mode = _CLIENT_AUTH[tls.client_auth_type]
        if tls.prefer_server_cipher_suites:
            context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
        try:
            load_certificate(context, files["cert_file"], files["key_file"])
            if "client_ca_file" in files:
                load_client_authorities(context, files["client_ca_file"])
        except CertificateError as error:
            raise UnusableError(
                f"{self._file}: tls_server_config.{error.key}: {files[error.key]}: cannot be used: {error}"
            ) from None
        return context


class CurrentContext(ssl.SSLContext):
    """Uses the current certificate for each connection, so that it can be replaced without a restart."""

    file: WebConfigFile

    @classmethod
    def of(cls, file: WebConfigFile) -> "CurrentContext":
        """Return a context that follows a web config file."""
        context = cls(ssl.PROTOCOL_TLS_SERVER)
        context.file = file
        return context

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        """Return the TLS state of a new connection; asyncio calls nothing else."""
        return self.file.tls().wrap_bio(*arguments, **named)


class AuthMiddleware:
    """ASGI middleware: checks passwords, and adds the configured headers to every response."""

    def __init__(self, app: ASGIApp, file: WebConfigFile) -> None:
        self._app = app
        self._file = file
        self._passwords = Passwords()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or respond with 401."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._file.refresh()
        settings = self._file.settings

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(settings.http_server_config.headers)
            await send(message)

        app: ASGIApp | None = self._app
        if settings.basic_auth_users:
            app = await self._authenticated(scope, receive, settings.basic_auth_users)
        if app is not None:
            await app(scope, receive, send_with_headers)

    async def _authenticated(self, scope: Scope, receive: Receive, users: dict[str, str]) -> ASGIApp | None:
        """Return what responds to a request; None if its client has left while it waited."""
        user, password = _credentials(Headers(scope=scope).get("Authorization", ""))
        if self._passwords.is_known(user, password, users):
            return self._app
        # The client that was accepted: the scope has none if it has left, and headers can name any.
        client = scope["state"][CONNECTION].client
        check = self._passwords.are_correct(user, password, users, client)
        try:
            is_correct = await _while_connected(check, receive)
        except BusyError:
            text = "Too many passwords are being checked. Try again later.\n"
            return PlainTextResponse(text, 429, {"Retry-After": str(RETRY_AFTER)})
        if is_correct is None:
            return None
        return self._app if is_correct else PlainTextResponse("Unauthorized\n", 401, {"WWW-Authenticate": "Basic"})


async def _while_connected(work: Coroutine[Any, Any, bool], receive: Receive) -> bool | None:
    """Return the result of `work`; None if the client leaves before, which cancels it."""
    working, leaving = asyncio.create_task(work), asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        leaving.cancel()


async def _disconnected(receive: Receive) -> None:
    """Return when the client has left. The body of its request is dropped: no endpoint reads one."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _credentials(header: str) -> tuple[str, bytes]:
    """Return user and password of an Authorization header; both are empty if it has none."""
    scheme, _, coded = header.partition(" ")
    if scheme.lower() != "basic":
        return "", b""
    try:
        user, _, password = base64.b64decode(coded.strip(), validate=True).partition(b":")
        return user.decode(), password
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return "", b""
