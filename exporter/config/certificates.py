"""Loads certificates and keys into TLS contexts, for the client and the server."""

import os
import ssl
from pathlib import Path

from exporter.config.files import UnreadableFileError, read_bytes

MAX_PEM = 16_777_216
"""Bytes of a file with certificates: a bundle of all public authorities has a quarter of a million."""


class CertificateError(Exception):
    """A file cannot be used. The text says why, without the file's name and content."""

    def __init__(self, key: str, reason: str) -> None:
        """`key` is the setting that names the file."""
        super().__init__(reason)
        self.key = key


def load_certificate(context: ssl.SSLContext, cert_file: Path, key_file: Path | None) -> None:
    """Load a certificate and its key, which `cert_file` contains without `key_file`. Raises `CertificateError`."""
    _check("cert_file", cert_file)
    if key_file is not None:
        _check("key_file", key_file)
    try:
        # Without this function, OpenSSL asks for the password on the terminal and waits for the answer.
        context.load_cert_chain(cert_file, key_file, password=_no_password)
    except (OSError, ssl.SSLError) as error:
        raise CertificateError("cert_file", _reason(error)) from None
    except _EncryptedKeyError:
        raise CertificateError(
            "cert_file" if key_file is None else "key_file", "expected a key without a password"
        ) from None


def client_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return a client's context, which trusts the authorities of a file, by default the system's.

    Raises `CertificateError`.
    """
    if ca_file is None:
        # OpenSSL reads the file that SSL_CERT_FILE names until it ends.
        system = os.environ.get(ssl.get_default_verify_paths().openssl_cafile_env)
        if system and Path(system).exists():
            _check("ca_file", Path(system))
        return ssl.create_default_context()
    _check("ca_file", ca_file)
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise CertificateError("ca_file", _reason(error)) from None


def load_client_authorities(context: ssl.SSLContext, client_ca_file: Path) -> None:
    """Accept clients with a certificate of the authorities in a file. Raises `CertificateError`."""
    _check("client_ca_file", client_ca_file)
    try:
        context.load_verify_locations(client_ca_file)
    except (OSError, ssl.SSLError) as error:
        raise CertificateError("client_ca_file", _reason(error)) from None


def _check(key: str, file: Path) -> None:
    """OpenSSL reads a pipe or a device until it ends."""
    try:
        content = read_bytes(file, limit=MAX_PEM, what="certificates")
    except UnreadableFileError as error:
        raise CertificateError(key, str(error)) from None
    if not content.strip():
        raise CertificateError(key, "it is empty")


class _EncryptedKeyError(Exception):
    """The key needs a password."""


def _no_password() -> str:
    raise _EncryptedKeyError


def _reason(error: OSError) -> str:
    reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
    return reason or type(error).__name__
