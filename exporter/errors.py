"""The errors that users see. Only `cli` maps them to exit codes."""

import traceback
from pathlib import Path

MAX_CONFIG_ERROR = 2000
"""Characters of the text of a `ConfigError`: keys and values are part of it, and can be as long as a file."""


class ExporterError(Exception):
    """Base of every error that the exporter raises on purpose. Its text is one sentence for the user."""


class ConfigError(ExporterError):
    """A setting is invalid. The text names its place and what is expected; a long one is cut in its middle."""

    def __init__(self, text: str) -> None:
        half = MAX_CONFIG_ERROR // 2
        super().__init__(text if len(text) <= MAX_CONFIG_ERROR else f"{text[:half]} … {text[-half:]}")


class UnusableError(ConfigError):
    """What a valid setting names cannot be used: a file, a port or a folder. It may be usable at the next start."""


class StorageError(ExporterError):
    """The state could not be saved. The text names the file."""


class ApiError(ExporterError):
    """The runtime's API could not be read. The text names the endpoint and never contains a token or a body.

    It can name a file of this machine, such as that of the token: it is for the log, and for who runs a command.
    """

    def __init__(self, text: str, *, public: str | None = None) -> None:
        """`public` is the text without such names; by default there are none."""
        super().__init__(text)
        self.public = text if public is None else public
        """What everybody may read who can connect to the exporter."""

    @classmethod
    def of(cls, error: "ApiError") -> "ApiError":
        """Return an error with the texts of another one, and neither its class nor its traceback."""
        return ApiError(str(error), public=error.public)


class OutputError(ExporterError):
    """The result of a command could not be printed. The text says why."""


class UnreadableError(ExporterError):
    """There is nothing to show yet, since the runtime or the project has not been read."""


def unforeseen(error: Exception) -> str:
    """Describe an error that no code expects, by its class and place: its text may quote what a server sent."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"unforeseen {type(error).__name__} in {Path(place.filename).name}:{place.lineno}"
