"""Checks an API description as far as it can be done without the API: its expressions, fields and time zones."""

from exporter.config import Config
from exporter.config.api_description import present
from exporter.runtime.decoder import Decoder
from exporter.runtime.endpoint import Endpoint
from exporter.runtime.login import expressions
from exporter.runtime.statuses import StatusMap


def check_description(config: Config) -> None:
    """Raise a `ConfigError` that begins with the path of the setting that cannot be used."""
    resources, login = config.runtime.resources, config.runtime.auth.login
    Decoder(StatusMap(), _Silent(), resources, label_length=config.limits.label_length)
    for name, resource in present(resources).items():
        Endpoint(name, resource)
    if login is not None:
        expressions(login)


class _Silent:
    """Observes nothing: no response is decoded."""

    def decoded_items(self, kind: str, count: int) -> None: ...
    def invalid_item(self, kind: str, reason: str, bug: Exception | None = None) -> None: ...
    def ignored_value(self, kind: str, field: str) -> None: ...
    def unmapped_status(self, label: str) -> None: ...
