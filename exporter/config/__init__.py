"""Configuration: file, environment and flags become frozen structs. Imports `errors` and `status` only."""

from exporter.config.exposure import warnings
from exporter.config.loading import ENVIRONMENT_PREFIX, flag_of, load, load_tree, read_file
from exporter.config.schema import (
    AuthConfig,
    Config,
    ExporterConfig,
    FileConfig,
    LimitsConfig,
    LogConfig,
    LoginConfig,
    ProjectsConfig,
    RuntimeConfig,
    SpinnerConfig,
    SpinnerPolicy,
    StallsConfig,
    StorageConfig,
    SyncConfig,
    TlsConfig,
    WebConfig,
)
from exporter.config.values import Duration, Secret, canonical_url, parse_duration, split_address

__all__ = [
    "ENVIRONMENT_PREFIX",
    "AuthConfig",
    "Config",
    "Duration",
    "ExporterConfig",
    "FileConfig",
    "LimitsConfig",
    "LogConfig",
    "LoginConfig",
    "ProjectsConfig",
    "RuntimeConfig",
    "Secret",
    "SpinnerConfig",
    "SpinnerPolicy",
    "StallsConfig",
    "StorageConfig",
    "SyncConfig",
    "TlsConfig",
    "WebConfig",
    "canonical_url",
    "flag_of",
    "load",
    "load_tree",
    "parse_duration",
    "read_file",
    "split_address",
    "warnings",
]
