"""Checks clocks: the difference between the API's clock and this one, and times that are ambiguous."""

from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from exporter.config.api_description import FieldSource, Resources, TimeFormat, present
from exporter.doctor.diagnosis import Check
from exporter.runs.clock import TOLERANCE
from exporter.runtime.client import RawResponse


def difference(sample: RawResponse) -> Check | None:
    """Compare the API's clock with this one; None for a response without a time."""
    if sample.date is None:
        return None
    seconds = sample.date - sample.local_time
    if abs(seconds) <= TOLERANCE:
        return Check("clocks", True, "in sync")
    direction = "ahead of" if seconds > 0 else "behind"
    return Check(
        "clocks", True, f"the API's clock is {abs(seconds):.0f} s {direction} this one; the exporter corrects for it"
    )


def local_times(resources: Resources) -> Iterator[Check]:
    """Say which times are ambiguous for an hour of each year."""
    ambiguous = [
        (f"{name}.{field}", zone)
        for name, resource in present(resources).items()
        for field, source in resource.fields.items()
        if isinstance(source, FieldSource) and (zone := _local_zone(source)) is not None and _has_summer_time(zone)
    ]
    if ambiguous:
        fields = ", ".join(field for field, _ in ambiguous)
        zones = ", ".join(sorted({zone for _, zone in ambiguous}))
        yield Check(
            "local times",
            True,
            f"{fields} have no offset and are read as {zones}; in the hour that comes twice when daylight "
            "saving time ends they can be wrong by an hour; let the API send UTC or an offset if it can",
            warns=True,
        )


def _local_zone(source: FieldSource) -> str | None:
    """Return the time zone of times without an offset; None for others."""
    convert = source.convert
    if isinstance(convert, TimeFormat):
        return None if convert.has_offset else convert.zone or source.zone
    return source.zone if convert == "local" else None


def _has_summer_time(zone: str) -> bool:
    year = datetime.now(UTC).year
    return len({datetime(year, month, 1, tzinfo=ZoneInfo(zone)).utcoffset() for month in range(1, 13)}) > 1
