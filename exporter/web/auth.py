"""Who is let in, over what: the web config file of Prometheus's exporter-toolkit, read again when it changes.

https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md says what it means. What of it has
no counterpart here is refused by name rather than ignored: a file that says more than is done is a false comfort.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import re
import secrets
import ssl
from collections import OrderedDict
from pathlib import Path
from typing import Any

import bcrypt
import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.config import strict
from exporter.errors import ConfigError

log = structlog.get_logger(__name__)

REMEMBERED = 100
"""Passwords of which it is remembered that they were right: a scraper would else cost a bcrypt with every scrape."""

MAX_CONCURRENT_CHECKS = 2
"""Passwords that are checked at once: whoever tries many does not keep all processors busy."""


class TlsServer(strict.Section, frozen=True):
    """How we prove who we are, and whether those who connect have to."""

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
            raise ValueError("client_ca_file: expected where client_auth_type verifies certificates, and there alone")
        for key in ("min_version", "max_version"):
            if getattr(self, key) not in _VERSIONS:
                raise ValueError(f"{key}: expected one of {', '.join(_VERSIONS)}")
        if self.min_version > self.max_version:
            raise ValueError("min_version: expected at most max_version")


class HttpServer(strict.Section, frozen=True):
    """What every answer carries."""

    http2: bool = False
    headers: dict[str, str] = {}

    def __post_init__(self) -> None:
        if self.http2:
            raise ValueError("http2: expected false: this exporter speaks HTTP/1.1")
        for name, value in self.headers.items():
            if name not in _HEADERS:
                raise ValueError(f"headers.{name}: expected one of {', '.join(_HEADERS)}")
            if not value.isprintable():
                raise ValueError(f"headers.{name}: expected one line of text")


class WebFile(strict.Section, frozen=True):
    """The file."""

    tls_server_config: TlsServer | None = None
    http_server_config: HttpServer = HttpServer()
    basic_auth_users: dict[str, str] = {}

    def __post_init__(self) -> None:
        for user, hashed in self.basic_auth_users.items():
            if ":" in user or not re.fullmatch(r"\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}", hashed):
                # Not the value: it may be a password that somebody forgot to hash.
                raise ValueError(f"basic_auth_users.{user}: expected a bcrypt hash such as htpasswd -nBC 10 makes")


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


class Access:
    """What the file says now; a file that turns bad changes nothing, and is said once."""

    def __init__(self, file: Path) -> None:
        """Raises `ConfigError` when the file, or one that it names, cannot be used."""
        self._file = file
        self._stamps: dict[Path, object] = {}
        self._refused = ""
        self.settings, self._tls = self._load()

    @property
    def has_tls(self) -> bool:
        """Whether connections are encrypted; that cannot change while we listen."""
        return self._tls is not None

    def tls(self) -> ssl.SSLContext:
        """Return the context of the next connection."""
        self.refresh()
        if self._tls is None:
            raise RuntimeError("asked for TLS although has_tls is False")
        return self._tls

    def refresh(self) -> None:
        """Read the files again if one of them changed."""
        if {path: _stamp(path) for path in self._stamps} == self._stamps:
            return
        try:
            settings, tls = self._load()
            if (tls is None) != (self._tls is None):
                raise ConfigError(f"{self._file}: tls_server_config: coming or going, it needs a restart")
        except ConfigError as error:
            if str(error) != self._refused:
                self._refused = str(error)
                log.error("web config file not reloaded, the old one stays", error=str(error))
            return
        self.settings, self._tls, self._refused = settings, tls, ""
        log.info("web config file reloaded", file=str(self._file))

    def _load(self) -> tuple[WebFile, ssl.SSLContext | None]:
        # Before they are read: a change that comes meanwhile is seen the next time.
        self._stamps = {self._file: _stamp(self._file)}
        tree = strict.read(self._file, example="basic_auth_users: {prometheus: $2y$10$…}")
        try:
            settings = strict.decode(tree, WebFile)
        except strict.MisfitError as error:
            raise ConfigError(f"{self._file}: {'.'.join(error.path)}: {error.what}") from None
        tls = settings.tls_server_config
        if tls is None:
            return settings, None
        # Names of files are meant as the toolkit means them: from where the file is.
        files = {
            key: self._file.parent / name
            for key in ("cert_file", "key_file", "client_ca_file")
            if (name := getattr(tls, key)) is not None
        }
        self._stamps |= {path: _stamp(path) for path in files.values()}
        return settings, self._context(tls, files)

    def _context(self, tls: TlsServer, files: dict[str, Path]) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version, context.maximum_version = _VERSIONS[tls.min_version], _VERSIONS[tls.max_version]
        context.verify_mode = _CLIENT_AUTH[tls.client_auth_type]
        if tls.prefer_server_cipher_suites:
            context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
        place = "cert_file"
        try:
            context.load_cert_chain(files["cert_file"], files["key_file"])
            if "client_ca_file" in files:
                place = "client_ca_file"
                context.load_verify_locations(files["client_ca_file"])
        except (OSError, ssl.SSLError) as error:
            reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
            raise ConfigError(
                f"{self._file}: tls_server_config.{place}: {files[place]}: cannot be used: {reason}"
            ) from None
        return context


class CurrentContext(ssl.SSLContext):
    """Each connection gets the context of its moment: certificates change without a restart."""

    access: Access

    @classmethod
    def of(cls, access: Access) -> "CurrentContext":
        """Return a context that stands for those of `access`."""
        made = cls(ssl.PROTOCOL_TLS_SERVER)
        made.access = access
        return made

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        """Begin a connection; asyncio asks for nothing else."""
        return self.access.tls().wrap_bio(*arguments, **named)


class AuthMiddleware:
    """ASGI middleware: lets in whom the file names, and adds its headers to every answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access
        self._passwords = _Passwords()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._access.refresh()
        settings = self._access.settings

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(settings.http_server_config.headers)
            await send(message)

        app = self._app
        if settings.basic_auth_users:
            given = _credentials(Headers(scope=scope).get("Authorization", ""))
            if not await self._passwords.right(*given, settings.basic_auth_users):
                app = PlainTextResponse("Unauthorized\n", 401, {"WWW-Authenticate": "Basic"})
        await app(scope, receive, send_with_headers)


class _Passwords:
    """Checks passwords in the same time whether there is such a user or not."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes()
        self._right: OrderedDict[bytes, None] = OrderedDict()
        self._turns = asyncio.Semaphore(MAX_CONCURRENT_CHECKS)

    async def right(self, user: str, password: bytes, users: dict[str, str]) -> bool:
        hashed = users.get(user)
        mark = hmac.digest(self._secret, b"\0".join((user.encode(), (hashed or "").encode(), password)), hashlib.sha256)
        if mark in self._right:
            self._right.move_to_end(mark)
            return True
        async with self._turns:
            # For nobody against some hash, so that it takes as long as for somebody.
            some = hashed or next(iter(users.values()))
            fits = await asyncio.to_thread(_fits, password, some.encode())
        if hashed is None or not fits:
            return False
        self._right[mark] = None
        if len(self._right) > REMEMBERED:
            self._right.popitem(last=False)
        return True


def _fits(password: bytes, hashed: bytes) -> bool:
    try:
        return bcrypt.checkpw(password, hashed)
    except ValueError:
        return False  # longer than bcrypt takes, or with a NUL


def _credentials(header: str) -> tuple[str, bytes]:
    """Return user and password of an Authorization header, both empty when it has none."""
    scheme, _, coded = header.partition(" ")
    if scheme.lower() != "basic":
        return "", b""
    try:
        user, _, password = base64.b64decode(coded.strip(), validate=True).partition(b":")
        return user.decode(), password
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return "", b""


def _stamp(path: Path) -> object:
    try:
        status = path.stat()
    except OSError as error:
        return error.errno
    return status.st_mtime_ns, status.st_ino, status.st_size
