"""Checks what the exporter needs besides its runtimes: the files of its web server, and the folder of its state."""

from pathlib import Path

from exporter.config import ExporterConfig
from exporter.doctor.diagnosis import Check
from exporter.errors import ConfigError
from exporter.runs.state_file import check_folder
from exporter.web.auth import WebConfigFile


def examine_own_files(settings: ExporterConfig) -> list[Check]:
    """Check them, without opening a state file, which a running exporter has locked."""
    checks: list[Check] = []
    if settings.web.config_file:
        checks.append(_web_config_file(Path(settings.web.config_file)))
    if settings.storage.path:
        checks.append(_storage(Path(settings.storage.path), settings))
    return checks


def _web_config_file(file: Path) -> Check:
    try:
        WebConfigFile(file)
    except ConfigError as error:
        return Check("web.config_file", False, str(error))
    return Check("web.config_file", True, "can be used")


def _storage(folder: Path, settings: ExporterConfig) -> Check:
    try:
        check_folder(folder, settings.runtimes)
    except ConfigError as error:
        return Check("storage.path", False, str(error).removeprefix("storage.path: "))
    return Check("storage.path", True, "can be used")
