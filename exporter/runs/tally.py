"""What is counted per spinner: starts, ends, records and durations. Only ever grows; who counts what is `store`'s."""

import bisect

import msgspec

from exporter.status import Status

DURATION_BUCKETS: tuple[float, ...] = (1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400)
"""Upper bounds in seconds: runs take from seconds to a day, queues the same; steps near a factor of two or three."""

ENDED = tuple(status for status in Status if status.ended)


class Exemplar(msgspec.Struct, frozen=True, gc=False):
    """The run behind one observation."""

    run_id: str
    value: float
    timestamp: float


class Histogram(msgspec.Struct):
    """Counts observations by bucket, with the newest observation of each bucket as its exemplar."""

    buckets: tuple[float, ...] = DURATION_BUCKETS
    counts: list[int] = []
    """One place more than bounds: the bucket +Inf."""
    exemplars: list[Exemplar | None] = []
    total: float = 0.0

    def __post_init__(self) -> None:
        places = len(self.buckets) + 1
        self.counts = self.counts or [0] * places
        self.exemplars = self.exemplars or [None] * places

    def observe(self, value: float, *, run_id: str, timestamp: float) -> None:
        """Count `value`; `timestamp` (seconds since the epoch) is when it came to be."""
        place = bisect.bisect_left(self.buckets, value)
        self.counts[place] += 1
        self.total += value
        last = self.exemplars[place]
        if last is None or last.timestamp <= timestamp:
            self.exemplars[place] = Exemplar(run_id, value, timestamp)


class Tally(msgspec.Struct):
    """What one spinner's runs have come to since the exporter first saw them."""

    started: int = 0
    finished: dict[Status, int] = msgspec.field(default_factory=lambda: dict.fromkeys(ENDED, 0))
    completed_records: int = 0
    failed_records: int = 0
    durations: Histogram = msgspec.field(default_factory=Histogram)
    queue_times: Histogram = msgspec.field(default_factory=Histogram)
    last_start_at: float | None = None
    last_success_at: float | None = None
