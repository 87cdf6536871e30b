"""Warnings about a config that works, but shows secrets to others."""

import ipaddress
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from exporter.config.files import others_can_access
from exporter.config.schema import ExporterConfig, RuntimeConfig


def warnings(settings: ExporterConfig) -> list[str]:
    """Return one sentence for each secret that others can read, on this machine or on the way to the runtime."""
    each = (text for config in settings.runtimes.values() for text in _warnings(config.runtime))
    return list(dict.fromkeys(each))


def readable_files(files: Iterable[tuple[str, Path]]) -> Iterator[str]:
    """Yield a warning for each file, with the setting that names it, that other users can read or write."""
    for setting, file in files:
        if others_can_access(file):
            yield f"{setting}: {file}: every user of this machine can read or write it; remove that with chmod o="


def _warnings(runtime: RuntimeConfig) -> Iterator[str]:
    key = runtime.tls.key_file or runtime.tls.cert_file
    login = runtime.auth.login
    files = (
        ("runtime.token_file", runtime.token_file),
        ("runtime.auth.login.body_file", None if login is None else login.body_file),
        ("runtime.tls.key_file", key),
    )
    yield from readable_files((setting, Path(file)) for setting, file in files if file is not None)
    url = urlsplit(runtime.base_url)
    has_token = runtime.token_file is not None or runtime.token is not None or login is not None
    if url.scheme == "http" and has_token and not _is_this_machine(url.hostname or ""):
        yield f"runtime.base_url: {runtime.base_url}: the token is sent without encryption; use https"


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
