"""Histograms: which observation is the exemplar of a bucket, and what a change of the buckets keeps."""

import itertools

import msgspec

from exporter.runs.counters import DURATION_BUCKETS, QUEUE_BUCKETS, Counters, Histogram

BUCKETS = (1.0, 10.0)


def test_the_exemplar_of_a_bucket_is_its_newest_observation_in_whatever_order_they_are_read() -> None:
    histogram = Histogram(BUCKETS)
    histogram.observe([(100.0, 5.0, "a"), (90.0, 6.0, "earlier"), (95.0, 0.5, "fast")])
    histogram.observe([(99.0, 7.0, "also earlier")])
    assert [exemplar and exemplar[2] for exemplar in histogram.exemplars] == ["fast", "a", None]
    histogram.observe([(101.0, 8.0, "b"), (102.0, 11.0, "slow")])
    assert [exemplar and exemplar[2] for exemplar in histogram.exemplars] == ["fast", "b", "slow"]
    assert (histogram.counts, histogram.total) == ([1, 4, 1], 37.5)


def test_a_change_by_half_moves_a_duration_from_ten_minutes_to_six_hours_to_another_bucket() -> None:
    bounds = [bound for bound in DURATION_BUCKETS if 600 <= bound <= 21600]
    assert all(after / before <= 1.5 for before, after in itertools.pairwise(bounds) if after <= 14400)
    assert set(QUEUE_BUCKETS) < set(DURATION_BUCKETS)


def test_counters_of_a_state_file_with_fewer_buckets_go_on_with_those_of_now() -> None:
    counters = Counters(durations=Histogram(BUCKETS), queue_times=Histogram(BUCKETS))
    old = Histogram(QUEUE_BUCKETS)
    old.observe([(100.0, 590.0, "a"), (110.0, 700.0, "b"), (120.0, 1700.0, "c"), (130.0, 90_000.0, "d")])
    saved = msgspec.json.encode({**msgspec.to_builtins(counters), "durations": msgspec.to_builtins(old)})
    read = msgspec.json.decode(saved, type=Counters).durations
    assert read.buckets == DURATION_BUCKETS
    assert read.total == old.total
    cumulated = {bound: sum(read.counts[: index + 1]) for index, bound in enumerate(DURATION_BUCKETS)}
    assert {bound: cumulated[bound] for bound in (600, 900, 1200, 1800, 3600)} == {
        600: 1, 900: 1, 1200: 1, 1800: 3, 3600: 3,
    }  # fmt: skip
    assert sum(read.counts) == 4
    assert [exemplar and exemplar[2] for exemplar in read.exemplars if exemplar] == ["a", "c", "d"]
