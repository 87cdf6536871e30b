"""The TLS context of requests, made again when a file with certificates changes."""

import ssl
from pathlib import Path

import structlog

from exporter.config import TlsConfig
from exporter.config.certificates import CertificateError, client_context, load_certificate
from exporter.config.files import stamp
from exporter.errors import UnusableError

log = structlog.get_logger(__name__)


class ClientTls:
    """The current TLS context. Files that become invalid change nothing and are logged once.

    A certificate and its key are replaced one after the other; in between they do not fit together.
    """

    def __init__(self, config: TlsConfig) -> None:
        """Raises `UnusableError` if a file cannot be used."""
        self._config = config
        # Without `ca_file` OpenSSL uses this one, which SSL_CERT_FILE can name.
        authorities = config.ca_file or ssl.get_default_verify_paths().cafile
        self._files = [Path(file) for file in (authorities, config.cert_file, config.key_file) if file]
        self._stamps = self._stamps_now()
        self._refused = ""
        self._context = _context(config)

    def context(self) -> ssl.SSLContext:
        """Return the context for the next connection: another object after a file has changed."""
        stamps = self._stamps_now()
        if stamps != self._stamps:
            # Before the files are read, so that a change in between is noticed the next time.
            self._stamps = stamps
            self._load()
        return self._context

    def _load(self) -> None:
        try:
            self._context = _context(self._config)
        except UnusableError as error:
            if str(error) != self._refused:
                self._refused = str(error)
                log.error("certificates not reloaded; keeping the previous ones", error=str(error))
            return
        self._refused = ""
        log.info("certificates reloaded")

    def _stamps_now(self) -> list[object]:
        return [stamp(file) for file in self._files]


def _context(config: TlsConfig) -> ssl.SSLContext:
    try:
        context = client_context(Path(config.ca_file) if config.ca_file else None)
        if config.cert_file is not None:
            load_certificate(context, Path(config.cert_file), Path(config.key_file) if config.key_file else None)
    except CertificateError as error:
        file = getattr(config, error.key)
        raise UnusableError(f"runtime.tls.{error.key}: {file}: cannot be used: {error}") from None
    return context
