"""Durations, spans and counts in the format of scenario files."""

import re

_DURATION = re.compile(r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?", re.ASCII)
_UNITS = (604800.0, 86400.0, 3600.0, 60.0, 1.0, 0.001)


class Duration(float):
    """Seconds of scenario time, in the format of Prometheus durations.

    >>> Duration.parse("1h30m")
    Duration(5400.0)
    """

    @classmethod
    def parse(cls, text: object) -> "Duration":
        """Parse a duration. Raises `ValueError` with the expected format."""
        match = _DURATION.fullmatch(text) if isinstance(text, str) and text else None
        if match is None:
            raise ValueError(f"expected a duration such as 90s, 1h30m or 2d, got {text!r}")
        return cls(sum(int(count) * unit for count, unit in zip(match.groups(), _UNITS, strict=True) if count))

    def __repr__(self) -> str:
        return f"Duration({float(self)!r})"


class Span:
    """A duration that varies: `5s` (fixed) or `2s..30s`.

    >>> Span.parse("2s..30s").at(0.5)
    9.0
    """

    __slots__ = ("longest", "shortest")

    def __init__(self, shortest: float, longest: float) -> None:
        self.shortest = shortest
        self.longest = longest

    @classmethod
    def parse(cls, text: object) -> "Span":
        """Parse a span. Raises `ValueError` with the expected format."""
        if not isinstance(text, str):
            raise ValueError(f"expected a duration such as 5s, or two such as 2s..30s, got {text!r}")
        shortest, dots, longest = text.partition("..")
        span = cls(Duration.parse(shortest), Duration.parse(longest if dots else shortest))
        if span.longest < span.shortest:
            raise ValueError(f"expected the shorter duration first, got {text!r}")
        return span

    def at(self, share: float) -> float:
        """Return the seconds for a uniform random number from 0 to 1. The square makes short durations more likely."""
        return self.shortest + (self.longest - self.shortest) * share * share

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Span) and (self.shortest, self.longest) == (other.shortest, other.longest)

    def __hash__(self) -> int:
        return hash((self.shortest, self.longest))

    def __repr__(self) -> str:
        return f"Span({self.shortest!r}, {self.longest!r})"


class Count:
    """A number that varies: `40` (fixed) or `40..120`.

    >>> Count.parse("40..120").at(0.5)
    80
    """

    __slots__ = ("least", "most")

    def __init__(self, least: int, most: int) -> None:
        self.least = least
        self.most = most

    @classmethod
    def parse(cls, text: object) -> "Count":
        """Parse a count. Raises `ValueError` with the expected format."""
        match = re.fullmatch(r"(\d{1,6})(?:\.\.(\d{1,6}))?", str(text), re.ASCII) if type(text) in (int, str) else None
        if match is None:
            raise ValueError(f"expected a number such as 40, or two such as 40..120, got {text!r}")
        count = cls(int(match[1]), int(match[2] or match[1]))
        if not 1 <= count.least <= count.most:
            raise ValueError(f"expected at least 1 and the smaller number first, got {text!r}")
        return count

    def at(self, share: float) -> int:
        """Return the number for a uniform random number from 0 (inclusive) to 1 (exclusive)."""
        return self.least + int((self.most - self.least + 1) * share)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Count) and (self.least, self.most) == (other.least, other.most)

    def __hash__(self) -> int:
        return hash((self.least, self.most))

    def __repr__(self) -> str:
        return f"Count({self.least!r}, {self.most!r})"
