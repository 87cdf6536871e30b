"""The one tree of errors that people see; `cli` maps it to exit codes, nobody else does."""


class ExporterError(Exception):
    """Base of every error that this project raises on purpose. Its text is one sentence for a person."""


class ConfigError(ExporterError):
    """A setting is wrong. The text names the place and the expected form."""


class StorageError(ExporterError):
    """What is to outlive the process could not be saved. The text names the file."""


class ApiError(ExporterError):
    """The runtime's API could not be read. The text names the endpoint, never a token or a body."""


class UnreadableError(ExporterError):
    """The runtime has never been read, so that nothing can be said of what it has."""
