"""What is counted per spinner: starts, ends, records and durations. Only ever grows; who counts what is `spinner`'s."""

import bisect
from collections.abc import Iterable

import msgspec

from exporter.status import Status

DURATION_BUCKETS = tuple(map(float, (1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400)))
"""Upper bounds in seconds: runs take from seconds to a day, queues the same; steps near a factor of two or three."""

ENDED = tuple(status for status in Status if status.ended)


Observation = tuple[float, float, str]
"""When it came to be, in seconds since the epoch; the value; and the run behind it."""


class Histogram(msgspec.Struct):
    """Counts observations by bucket."""

    buckets: tuple[float, ...] = DURATION_BUCKETS
    counts: list[int] = []
    """One place more than bounds: the bucket +Inf."""
    exemplars: list[Observation | None] = []
    """The newest observation of each."""
    total: float = 0.0

    def __post_init__(self) -> None:
        places = len(self.buckets) + 1
        self.counts = self.counts or [0] * places
        self.exemplars = self.exemplars or [None] * places

    def observe(self, observations: Iterable[Observation]) -> None:
        """Count them."""
        # By their times, so that of each bucket the last is the newest. All at once it is half of the work.
        in_order = sorted(observations)
        values = [value for _, value, _ in in_order]
        places = [bisect.bisect_left(self.buckets, value) for value in values]
        self.total += sum(values)
        for place, newest in dict(zip(places, in_order, strict=True)).items():
            self.counts[place] += places.count(place)
            last = self.exemplars[place]
            if last is None or last < newest:
                self.exemplars[place] = newest


class Counters(msgspec.Struct):
    """What one spinner's runs have come to since the exporter first saw them."""

    started: int = 0
    finished: dict[Status, int] = msgspec.field(default_factory=lambda: dict.fromkeys(ENDED, 0))
    completed_records: int = 0
    failed_records: int = 0
    durations: Histogram = msgspec.field(default_factory=Histogram)
    queue_times: Histogram = msgspec.field(default_factory=Histogram)
    last_start_at: float | None = None
    last_success_at: float | None = None
