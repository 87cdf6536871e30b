"""The counters of a spinner: starts, ends, records and durations. They only grow; `spinner` decides what to count."""

import bisect
import math
from collections.abc import Iterable

import msgspec

from exporter.status import Status

QUEUE_BUCKETS = tuple(map(float, (1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400)))
"""Upper bounds in seconds. Runs wait from seconds to a day; each bound is two to three times the last."""

DURATION_BUCKETS = tuple(sorted({*QUEUE_BUCKETS, 900.0, 1200.0, 2700.0, 5400.0, 10800.0, 21600.0}))
"""The same, with twice as many from 10 minutes to 12 hours, where most runs are and a change by a half must show."""

ENDED = tuple(status for status in Status if status.ended)


Observation = tuple[float, float, str]
"""Time in seconds since the epoch, value, and id of the run."""


class Histogram(msgspec.Struct):
    """Counts observations by bucket."""

    buckets: tuple[float, ...] = DURATION_BUCKETS
    counts: list[int] = []
    """One more than there are bounds: the last is the bucket +Inf."""
    exemplars: list[Observation | None] = []
    """The newest observation of each bucket."""
    total: float = 0.0

    def __post_init__(self) -> None:
        size = len(self.buckets) + 1
        self.counts = self.counts or [0] * size
        self.exemplars = self.exemplars or [None] * size

    def with_buckets(self, buckets: tuple[float, ...]) -> "Histogram":
        """Return the same observations with other buckets.

        Each counts in the lowest bucket that is certain to contain it: buckets with a bound of before keep their value,
        and the others can only be too low, which no increase shows.
        """
        if buckets == self.buckets:
            return self
        other = Histogram(buckets, total=self.total)
        for bound, count in zip((*self.buckets, math.inf), self.counts, strict=True):
            other.counts[bisect.bisect_left(buckets, bound)] += count
        for exemplar in filter(None, self.exemplars):
            other.exemplars[bisect.bisect_left(buckets, exemplar[1])] = exemplar
        return other

    def observe(self, observations: Iterable[Observation]) -> None:
        """Count observations."""
        # Sorted by time, the last observation of a bucket is its newest. One call for many halves the work.
        in_order = sorted(observations)
        values = [value for _, value, _ in in_order]
        indexes = [bisect.bisect_left(self.buckets, value) for value in values]
        self.total += sum(values)
        for index, newest in dict(zip(indexes, in_order, strict=True)).items():
            self.counts[index] += indexes.count(index)
            last = self.exemplars[index]
            if last is None or last < newest:
                self.exemplars[index] = newest


class Counters(msgspec.Struct):
    """The counters of one spinner since the exporter first read its project."""

    started: int = 0
    finished: dict[Status, int] = msgspec.field(default_factory=lambda: dict.fromkeys(ENDED, 0))
    completed_records: int | None = None
    """None: the runtime has not told it of any run."""
    failed_records: int | None = None
    """The same."""
    durations: Histogram = msgspec.field(default_factory=Histogram)
    queue_times: Histogram = msgspec.field(default_factory=lambda: Histogram(QUEUE_BUCKETS))
    last_start_at: float | None = None
    last_success_at: float | None = None
    finished_records: int | None = None
    """Records, completed or failed, of the runs whose durations were counted. None: as for `completed_records`."""

    def __post_init__(self) -> None:
        # A state file can be of a version with other buckets.
        self.durations = self.durations.with_buckets(DURATION_BUCKETS)
        self.queue_times = self.queue_times.with_buckets(QUEUE_BUCKETS)
