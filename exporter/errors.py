"""The errors that users see. Only `cli` maps them to exit codes."""


class ExporterError(Exception):
    """Base of every error that the exporter raises on purpose. Its text is one sentence for the user."""


class ConfigError(ExporterError):
    """A setting is invalid. The text names its place and what is expected."""


class StorageError(ExporterError):
    """The state could not be saved. The text names the file."""


class ApiError(ExporterError):
    """The runtime's API could not be read. The text names the endpoint and never contains a token or a body."""


class OutputError(ExporterError):
    """The result of a command could not be printed. The text says why."""


class UnreadableError(ExporterError):
    """There is nothing to show yet, since the runtime or the project has not been read."""
