"""How a page is sent: the format and the compression that a request's headers prefer (RFC 9110, section 12.5)."""

import re
from collections.abc import Iterator, Mapping

from exporter.metrics.formats import FORMATS, OPENMETRICS, TEXT, Format

# Linear in the length of the header: an unclosed quote runs to its end.
_MEMBER = re.compile(r'(?:"(?:\\.|[^"\\])*\\?"?|[^",])+')
_PARAMETER = re.compile(r'(?:"(?:\\.|[^"\\])*\\?"?|[^";])+')


def best_format(accept: str) -> Format:
    """Return the format that an `Accept` header gives the highest quality; text if it accepts none.

    On a tie OpenMetrics wins if the header names it: Prometheus does, a browser's `*/*` does not.
    prometheus-client's own negotiation ignores `q`.
    """
    ranges = list(_members(accept))
    best, best_quality = TEXT, _format_match(TEXT, ranges)[1]
    for each in FORMATS:
        specificity, quality = _format_match(each, ranges)
        is_named = specificity >= _NAMED
        if quality > best_quality or (quality == best_quality > 0 and each is OPENMETRICS and is_named):
            best, best_quality = each, quality
    return best


def accepts_gzip(accept_encoding: str) -> bool:
    """Return whether an `Accept-Encoding` header allows gzip and does not prefer an uncompressed response."""
    qualities = {coding: quality for coding, _, quality in _members(accept_encoding)}
    gzip = max((qualities[name] for name in ("gzip", "x-gzip") if name in qualities), default=qualities.get("*", 0.0))
    return gzip > 0 and gzip >= qualities.get("identity", 0.0)


_Member = tuple[str, Mapping[str, str], float]
"""A media range or a coding in lower case, its parameters and its quality."""

_WITH_VERSION, _NAMED, _SAME_TYPE, _ANY = 3, 2, 1, 0


def _format_match(page_format: Format, ranges: list[_Member]) -> tuple[int, float]:
    """Return the specificity and the quality of the most specific range that the format matches."""
    top_level_type = page_format.media_type.partition("/")[0]
    matches = [(-1, 0.0)]
    for media_range, parameters, quality in ranges:
        if media_range == page_format.media_type:
            if "version" not in parameters:
                matches.append((_NAMED, quality))
            elif parameters["version"] in page_format.versions:
                matches.append((_WITH_VERSION, quality))
        elif media_range == f"{top_level_type}/*":
            matches.append((_SAME_TYPE, quality))
        elif media_range == "*/*":
            matches.append((_ANY, quality))
    return max(matches)


def _members(header: str) -> Iterator[_Member]:
    """Yield the members of a list header; skip those whose quality is invalid."""
    for member in _MEMBER.findall(header):
        name, *rest = (part.strip() for part in _PARAMETER.findall(member) or [""])
        pairs = (part.partition("=") for part in rest)
        parameters = {key.strip().lower(): _unquoted(value.strip()) for key, _, value in pairs}
        try:
            quality = float(parameters.get("q", "1"))
        except ValueError:
            continue
        if 0 <= quality <= 1:
            yield name.lower(), parameters, quality


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value[:1] == value[-1:] == '"' else value
