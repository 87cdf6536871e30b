"""The organisation's plan: its meters, and the error when one is full."""

import dataclasses
from datetime import UTC, datetime

from exporter.simulator import scenario


class PlanLimitError(Exception):
    """The plan refuses a run, because one of its meters is full."""


@dataclasses.dataclass(slots=True)
class Meter:
    """Usage and limit of one resource."""

    name: str
    used: int
    limit: int | None
    """None means unlimited."""
    monthly: bool
    """Whether it resets on the 1st of each month."""

    @property
    def full(self) -> bool:
        """Whether the limit is reached."""
        return self.limit is not None and self.used >= self.limit


class Plan:
    """All meters. Months are wall-clock months (UTC), independent of the speed of the scenario."""

    def __init__(self, plan: scenario.Plan, *, spinners: int, wall: float) -> None:
        self.name = plan.name
        self._jobs = Meter("jobs_month", plan.jobs_month.used, plan.jobs_month.limit, monthly=True)
        self._records = Meter("records_month", plan.records_month.used, plan.records_month.limit, monthly=True)
        self._spinners = Meter("spinners", spinners, plan.spinner_limit, monthly=False)
        self.meters = (self._jobs, self._records, self._spinners)
        self.resets_at = _next_month(wall)
        """Epoch seconds."""

    def book(self, records: int) -> None:
        """Count a new run and its records. Raises `PlanLimitError` if a monthly meter is already full.

        The run that fills a meter is accepted, so `records_month` can exceed its limit.
        """
        for meter in (self._jobs, self._records):
            if meter.full:
                raise PlanLimitError(f"The plan's limit of {meter.limit} for {meter.name} is reached.")
        self._jobs.used += 1
        self._records.used += records

    def reset(self) -> None:
        """Reset the monthly meters."""
        self._jobs.used = self._records.used = 0
        self.resets_at = _next_month(self.resets_at)

    def set_limit(self, name: str, limit: int | None) -> int | None:
        """Change a meter's limit and return the previous one."""
        meter = next(meter for meter in self.meters if meter.name == name)
        before, meter.limit = meter.limit, limit
        return before


def _next_month(wall: float) -> float:
    """Return the start of the next month, in epoch seconds."""
    today = datetime.fromtimestamp(wall, UTC)
    year, month = (today.year + 1, 1) if today.month == 12 else (today.year, today.month + 1)
    return datetime(year, month, 1, tzinfo=UTC).timestamp()
