"""The organisation's plan: meters that fill, and what happens when one is full."""

import dataclasses
from datetime import UTC, datetime

from exporter.simulator import scenario


class PlanLimitError(Exception):
    """A run was refused, because a meter of the plan is full."""


@dataclasses.dataclass(slots=True)
class Meter:
    """How much of one thing was used, and how much may be."""

    name: str
    used: int
    limit: int | None
    """None: unlimited."""
    monthly: bool
    """Whether it begins again on the 1st."""

    @property
    def full(self) -> bool:
        """Whether nothing is left."""
        return self.limit is not None and self.used >= self.limit


class Plan:
    """All meters. Its months are wall-clock months (UTC), so that they do not rush by in a fast story."""

    def __init__(self, plan: scenario.Plan, *, spinners: int, wall: float) -> None:
        self.name = plan.name
        self._jobs = Meter("jobs_month", plan.jobs_month.used, plan.jobs_month.limit, monthly=True)
        self._records = Meter("records_month", plan.records_month.used, plan.records_month.limit, monthly=True)
        self._spinners = Meter("spinners", spinners, plan.spinner_limit, monthly=False)
        self.meters = (self._jobs, self._records, self._spinners)
        self.resets_at = _next_month(wall)
        """Epoch seconds."""

    def book(self, records: int) -> None:
        """Count a new run and its records; raises `PlanLimitError` when a monthly meter is full already.

        The run that fills a meter still goes through, so `records_month` can end above its limit.
        """
        for meter in (self._jobs, self._records):
            if meter.full:
                raise PlanLimitError(f"The plan's limit of {meter.limit} for {meter.name} is reached.")
        self._jobs.used += 1
        self._records.used += records

    def begin_month(self) -> None:
        """Empty the monthly meters, on the 1st."""
        self._jobs.used = self._records.used = 0
        self.resets_at = _next_month(self.resets_at)

    def set_limit(self, name: str, limit: int | None) -> int | None:
        """Change a meter's limit; return what it was."""
        meter = next(meter for meter in self.meters if meter.name == name)
        before, meter.limit = meter.limit, limit
        return before


def _next_month(wall: float) -> float:
    """Return when the next month begins, in epoch seconds."""
    today = datetime.fromtimestamp(wall, UTC)
    year, month = (today.year + 1, 1) if today.month == 12 else (today.year, today.month + 1)
    return datetime(year, month, 1, tzinfo=UTC).timestamp()
