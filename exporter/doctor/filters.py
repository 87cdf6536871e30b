"""What shows whether an API selects what a filter asks for: some ignore a filter that they do not know."""

from exporter.config.api_description import Resource, TimeFormat

NOT_CHECKED = "whether the API selects them is not checked"


def listed(unseen: str) -> str:
    """Return the finding about a list that has what it should; `unseen` says why that may be by chance."""
    return "listed by the runtime" + (f"; {unseen}, so {NOT_CHECKED}" if unseen else "")


def long_before(since: float, resource: Resource) -> float:
    """Return the time before which nothing has changed that a list of what changed `since` a time can have.

    A format of its own can leave out the time of day, and the zone.
    """
    return since - (2 * 86400.0 if isinstance(resource.since, TimeFormat) else 3600.0)
