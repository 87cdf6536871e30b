"""Histograms: which observation is the exemplar of a bucket."""

from exporter.runs.counters import Histogram

BUCKETS = (1.0, 10.0)


def test_the_exemplar_of_a_bucket_is_its_newest_observation_in_whatever_order_they_are_read() -> None:
    histogram = Histogram(BUCKETS)
    histogram.observe([(100.0, 5.0, "a"), (90.0, 6.0, "earlier"), (95.0, 0.5, "fast")])
    histogram.observe([(99.0, 7.0, "also earlier")])
    assert [exemplar and exemplar[2] for exemplar in histogram.exemplars] == ["fast", "a", None]
    histogram.observe([(101.0, 8.0, "b"), (102.0, 11.0, "slow")])
    assert [exemplar and exemplar[2] for exemplar in histogram.exemplars] == ["fast", "b", "slow"]
    assert (histogram.counts, histogram.total) == ([1, 4, 1], 37.5)
