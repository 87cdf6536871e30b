"""What is counted per spinner: starts, ends, records and durations. Only ever grows; who counts what is `store`'s."""

import bisect
import dataclasses
from collections.abc import Sequence

from exporter.status import Status

DURATION_BUCKETS: Sequence[float] = (1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400)
"""Upper bounds in seconds: runs take from seconds to a day, queues the same; steps near a factor of two or three."""

ENDED = tuple(status for status in Status if status.ended)


@dataclasses.dataclass(frozen=True, slots=True)
class Exemplar:
    """The run behind one observation."""

    run_id: str
    value: float
    timestamp: float


class Histogram:
    """Counts observations by bucket, with the newest observation of each bucket as its exemplar."""

    __slots__ = ("buckets", "counts", "exemplars", "total")

    def __init__(self, buckets: Sequence[float] = DURATION_BUCKETS) -> None:
        self.buckets = buckets
        # One place more than bounds: the bucket +Inf.
        self.counts = [0] * (len(buckets) + 1)
        self.exemplars: list[Exemplar | None] = [None] * (len(buckets) + 1)
        self.total = 0.0

    def observe(self, value: float, *, run_id: str, timestamp: float) -> None:
        """Count `value`; `timestamp` (seconds since the epoch) is when it came to be."""
        place = bisect.bisect_left(self.buckets, value)
        self.counts[place] += 1
        self.total += value
        last = self.exemplars[place]
        if last is None or last.timestamp <= timestamp:
            self.exemplars[place] = Exemplar(run_id, value, timestamp)


class Tally:
    """What one spinner's runs have come to since the exporter first saw them."""

    __slots__ = (
        "completed_records",
        "durations",
        "failed_records",
        "finished",
        "last_start_at",
        "last_success_at",
        "queue_times",
        "started",
    )

    def __init__(self) -> None:
        self.started = 0
        self.finished = dict.fromkeys(ENDED, 0)
        self.completed_records = 0
        self.failed_records = 0
        self.durations = Histogram()
        self.queue_times = Histogram()
        self.last_start_at: float | None = None
        self.last_success_at: float | None = None
