"""Which files a certificate and its key are loaded from, and which setting an error names."""

import ssl
from pathlib import Path

import pytest
import trustme

from exporter.config.certificates import CertificateError, load_certificate


def context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def test_one_file_may_have_the_certificate_and_its_key(tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    trustme.CA().issue_cert("runtime.test").private_key_and_cert_chain_pem.write_to_path(str(both))
    load_certificate(context(), both, None)


@pytest.mark.parametrize("key_file", ["missing.pem", "/dev/zero"])
def test_a_key_that_cannot_be_read_is_named(tmp_path: Path, key_file: str) -> None:
    """A device is not read: it does not end."""
    own = tmp_path / "cert.pem"
    trustme.CA().issue_cert("runtime.test").cert_chain_pems[0].write_to_path(str(own))
    with pytest.raises(CertificateError) as raised:
        load_certificate(context(), own, tmp_path / key_file)
    assert raised.value.key == "key_file"
