"""The format and the compression that a client prefers, by the headers that real clients send."""

import time

import pytest

from exporter.metrics.formats import OPENMETRICS, TEXT, Format
from exporter.web.negotiation import accepts_gzip, best_format

PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
OM1, OM0 = "application/openmetrics-text;version=1.0.0", "application/openmetrics-text;version=0.0.1"
TEXT1, TEXT0 = "text/plain;version=1.0.0", "text/plain;version=0.0.4"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        pytest.param(f"{OM1},{OM0};q=0.75,{TEXT0};q=0.5,*/*;q=0.1", OPENMETRICS, id="Prometheus 2.42"),
        pytest.param(
            f"{PROTOBUF},{OM1};q=0.8,{OM0};q=0.75,{TEXT0};q=0.5,*/*;q=0.1",
            OPENMETRICS,
            id="Prometheus 2.42, native histograms",
        ),
        pytest.param(f"{OM1};q=0.5,{OM0};q=0.4,{TEXT0};q=0.3,*/*;q=0.2", OPENMETRICS, id="Prometheus 2.49"),
        pytest.param(
            f"{PROTOBUF};q=0.5,{OM1};q=0.4,{OM0};q=0.3,{TEXT0};q=0.2,*/*;q=0.1",
            OPENMETRICS,
            id="Prometheus 2.49, native histograms",
        ),
        pytest.param(
            f"{PROTOBUF};escaping=allow-utf-8;q=0.6,{OM1};escaping=allow-utf-8;q=0.5,{OM0};escaping=allow-utf-8;q=0.4,"
            f"{TEXT1};escaping=allow-utf-8;q=0.3,{TEXT0};escaping=allow-utf-8;q=0.2,*/*;q=0.1",
            OPENMETRICS,
            id="Prometheus 3.0, native histograms",
        ),
        pytest.param(
            f"{OM1};escaping=allow-utf-8;q=0.6,{OM0};q=0.5,{TEXT1};escaping=allow-utf-8;q=0.4,{TEXT0};q=0.3,*/*;q=0.2",
            OPENMETRICS,
            id="Prometheus 3.4",
        ),
        pytest.param(
            f"{PROTOBUF};q=0.6,{OM1};escaping=underscores;q=0.5,{OM0};q=0.4,{TEXT1};escaping=underscores;q=0.3,"
            f"{TEXT0};q=0.2,*/*;q=0.1",
            OPENMETRICS,
            id="Prometheus 3.4, native histograms, legacy names",
        ),
        pytest.param(f"{TEXT0};q=0.6,{OM1};q=0.5,*/*;q=0.4", TEXT, id="scrape_protocols: text, OpenMetrics"),
        pytest.param(f"{PROTOBUF};q=0.6,{TEXT0};q=0.5,*/*;q=0.4", TEXT, id="scrape_protocols: protobuf, text"),
        pytest.param(f"{PROTOBUF};q=0.6,*/*;q=0.5", TEXT, id="scrape_protocols: protobuf"),
        pytest.param(f"{TEXT1};q=0.6,*/*;q=0.5", TEXT, id="scrape_protocols: text 1.0.0"),
        pytest.param(f"{OM0};q=0.6,*/*;q=0.5", OPENMETRICS, id="scrape_protocols: OpenMetrics 0.0.1"),
        pytest.param(f"{TEXT0};q=1,*/*;q=0.1", TEXT, id="Prometheus 1, vmagent"),
        pytest.param(f"{PROTOBUF};q=0.7,{TEXT0};q=0.3", TEXT, id="telegraf"),
        pytest.param("", TEXT, id="no header"),
        pytest.param("*/*", TEXT, id="curl"),
        pytest.param(
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
            "application/signed-exchange;v=b3;q=0.7",
            TEXT,
            id="Chrome",
        ),
        pytest.param("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", TEXT, id="Firefox"),
        pytest.param("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", TEXT, id="Java"),
        pytest.param(OM1, OPENMETRICS, id="no q is 1"),
        pytest.param(f"{TEXT0}, {OM1}", OPENMETRICS, id="a tie between named formats"),
        pytest.param("text/*, application/*", TEXT, id="a tie between wildcards"),
        pytest.param("application/*, text/*;q=0.9", OPENMETRICS, id="a wildcard of a type"),
        pytest.param("text/plain;q=0.5, application/openmetrics-text;q=0.4, */*;q=0.9", TEXT,
                     id="specific beats general"),
        pytest.param("text/plain;q=0.1, application/openmetrics-text;q=0.5, text/*;q=0.9", OPENMETRICS,
                     id="a specific range takes precedence over a general one, regardless of quality"),
        pytest.param("text/plain;q=0.2, text/plain;version=0.0.4;q=0.6, application/openmetrics-text;q=0.5", TEXT,
                     id="a version beats none"),
        pytest.param("application/openmetrics-text;q=0, */*", TEXT, id="OpenMetrics excluded"),
        pytest.param("text/plain;q=0, application/json", TEXT, id="everything excluded"),
        pytest.param("application/json", TEXT, id="nothing offered"),
        pytest.param("application/openmetrics-text;version=2.0.0, text/plain;q=0.1", TEXT, id="an unknown version"),
        pytest.param('Application/OpenMetrics-Text; Version="1.0.0"; Q=0.5, text/plain; q=0.4', OPENMETRICS,
                     id="case, spaces and quotes"),
        pytest.param("application/openmetrics-text;Q=0.3, text/plain;q=0.4", TEXT, id="case of q"),
        pytest.param(r'text/csv;note="a, text/plain;q=1, \" b", application/openmetrics-text;q=0.2', OPENMETRICS,
                     id="separators inside quotes"),
        pytest.param("application/openmetrics-text;q=often, text/plain;q=0.1", TEXT, id="q is no number"),
        pytest.param("application/openmetrics-text;q=nan, text/plain;q=0.1", TEXT, id="q is NaN"),
        pytest.param("application/openmetrics-text;q=7, text/plain;q=0.1", TEXT, id="q is out of range"),
        pytest.param('application/openmetrics-text;q=;;=,,"', TEXT, id="garbage"),
        pytest.param(",;=;\",\\", TEXT, id="more garbage"),
    ],
)  # fmt: skip
def test_the_format_is_the_one_with_the_highest_quality(accept: str, expected: Format) -> None:
    assert best_format(accept) is expected


@pytest.mark.parametrize(
    ("accept_encoding", "expected"),
    [
        ("", False),
        ("gzip", True),
        ("GZIP;Q=1.0", True),
        ("x-gzip", True),
        ("gzip, deflate, br, zstd", True),
        ("gzip;q=0.5, br", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("gzip;q=0, *", False),
        ("*", True),
        ("*;q=0", False),
        ("br, *;q=0.1", True),
        ("identity", False),
        ("identity;q=0", False),
        ("identity;q=0, *;q=0.5", True),
        ("identity, gzip", True),
        ("identity, gzip;q=0.5", False),
        ("identity;q=0.5, gzip;q=1", True),
        ("br", False),
        ("gzip;q=maybe", False),
    ],
)
def test_a_page_is_compressed_if_the_client_accepts_gzip_and_does_not_prefer_identity(
    accept_encoding: str, expected: bool
) -> None:
    assert accepts_gzip(accept_encoding) is expected


@pytest.mark.parametrize("header", ['"\\' * 30_000, '"' * 60_000, ",;" * 30_000, "q=" * 30_000])
def test_a_header_of_the_largest_size_is_parsed_in_linear_time(header: str) -> None:
    started = time.process_time()
    assert best_format(header) is TEXT
    assert not accepts_gzip(header)
    assert time.process_time() - started < 5, "milliseconds are expected; quadratic time would be minutes"
