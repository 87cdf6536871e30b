"""Texts and colours of single values, as Grafana shows them. A fake of `getDisplayProcessor` in `@grafana/data`.

It knows the units, mappings and colours that the dashboards use, and fails on any other.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from dashboards.style import GREEN, GREY, MAGENTA, ORANGE, RED, TEXT

Value = float | str | None


class Verdict(StrEnum):
    """What a mark tells its reader."""

    GOOD = "good"
    BAD = "bad"
    NEUTRAL = "neutral"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Mark:
    """What is shown in one place: a text in a colour."""

    text: str
    colour: str = TEXT

    @property
    def verdict(self) -> Verdict:
        """The sign at the start of the text decides; without a sign, the colour."""
        if self.text.startswith("?") or self.text == "No data":
            return Verdict.UNKNOWN
        if self.text.startswith("✔"):
            return Verdict.GOOD
        if self.text.startswith(("✖", "▲")):
            return Verdict.BAD
        if not self.text:
            return Verdict.NEUTRAL
        return {GREEN: Verdict.GOOD, RED: Verdict.BAD, ORANGE: Verdict.BAD, MAGENTA: Verdict.BAD}.get(
            self.colour, Verdict.NEUTRAL
        )

    def __str__(self) -> str:
        return self.text


GAP = Mark("", GREY)
"""Nothing is drawn."""


def display(value: Value, config: Mapping[str, Any]) -> Mark:
    """Return what a field with this config shows for a value; NaN counts as absent."""
    number = None if value is None or isinstance(value, str) or math.isnan(value) else value
    mapped = _mapped(value if isinstance(value, str) else number, config.get("mappings", ()))
    text, colour = mapped.get("text"), mapped.get("color")
    if number is not None:
        text = _formatted(number, config.get("unit", ""), config.get("decimals")) if text is None else text
        colour = colour or _colour(number, config)
    if text is None:
        text = value if isinstance(value, str) and value else config.get("noValue", "")
    return Mark(text, colour or _colour(-math.inf, config))


def _mapped(value: Value, mappings: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    for mapping in mappings:
        options = mapping["options"]
        if mapping["type"] == "special":
            assert options["match"] == "null+nan", options
            if value is None:
                result: Mapping[str, Any] = options["result"]
                return result
        else:
            assert mapping["type"] == "value", mapping
            if value is not None and (found := options.get(_as_key(value))):
                return dict(found)
    return {}


def _as_key(value: float | str) -> str:
    """Return a value as JavaScript writes it as a key."""
    return value if isinstance(value, str) else str(int(value)) if value.is_integer() else repr(value)


def _colour(number: float, config: Mapping[str, Any]) -> str:
    color = config.get("color", {"mode": "thresholds"})
    if color["mode"] == "fixed":
        return str(color["fixedColor"])
    if color["mode"] == "palette-classic":
        return "palette"
    assert color["mode"] == "thresholds", color
    steps = config["thresholds"]["steps"]
    reached = [step["color"] for step in steps if step["value"] is None or number >= step["value"]]
    return str(reached[-1])


def _formatted(number: float, unit: str, decimals: int | None) -> str:
    if math.isinf(number):
        return "∞" if number > 0 else "-∞"
    if unit == "locale":
        rounded = _round(number, 3 if decimals is None else decimals)
        return f"{rounded:,.3f}".rstrip("0").rstrip(".")
    if unit == "percentunit":
        return _fixed(number * 100, decimals) + "%"
    if unit == "s":
        return _seconds(number, decimals)
    if unit == "dtdurations":
        return _words(number, decimals or 0)
    if unit == "dtdhms":
        return _clock(number)
    if unit == "time:MM-DD HH:mm":
        return datetime.fromtimestamp(number / 1000, UTC).strftime("%m-%d %H:%M")
    if unit == "bytes":
        return _scaled(number, 1024, (" B", " KiB", " MiB", " GiB", " TiB"), decimals)
    if unit == "reqps":
        return _scaled(number, 1000, (" req/s", "K req/s", "M req/s"), decimals)
    if unit == "/min":
        return f"{_fixed(number, decimals)} /min"
    assert unit in ("", "none", "string"), f"unit {unit} is unknown here"
    return _fixed(number, decimals)


def _seconds(number: float, decimals: int | None) -> str:
    size = abs(number)
    if size == 0:
        return "0 s"
    for limit, factor, suffix in ((1e-6, 1e9, "ns"), (1e-3, 1e6, "µs"), (1, 1e3, "ms")):
        if size < limit:
            return f"{_fixed(number * factor, decimals)} {suffix}"
    if size < 60:
        return f"{_fixed(number, decimals)} s"
    for limit, divisor, suffix in (
        (3600, 60, "min"),
        (86400, 3600, "hour"),
        (604800, 86400, "day"),
        (31536e3, 604800, "week"),
        (math.inf, 31556900, "year"),
    ):
        if size < limit:
            value = number / divisor
            return f"{_fixed(value, decimals)} {suffix}{'s' if abs(value) > 1 else ''}"
    raise AssertionError(number)


def _words(number: float, decimals: int) -> str:
    """Return a duration as `toDuration` does: the largest unit, and `decimals` smaller ones."""
    if number == 0:
        return "0 seconds"
    rest = round(number * 1000)
    parts: list[str] = []
    for name, size in (
        ("year", 31536e6), ("month", 2592e6), ("week", 6048e5), ("day", 864e5), ("hour", 36e5), ("minute", 6e4),
        ("second", 1e3), ("millisecond", 1),
    ):  # fmt: skip
        if (rest >= size or parts) and len(parts) <= decimals:
            whole, rest = divmod(rest, int(size))
            parts.append(f"{whole} {name}{'' if whole == 1 else 's'}")
    return ", ".join(parts)


def _clock(number: float) -> str:
    """Return a duration as `toDurationInDaysHoursMinutesSeconds` does."""
    days, seconds = divmod(math.floor(number), 86_400)
    return f"{f'{days} d ' if days else ''}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _scaled(number: float, factor: int, suffixes: Sequence[str], decimals: int | None) -> str:
    index = 0 if number == 0 else min(max(math.floor(math.log(abs(number), factor)), 0), len(suffixes) - 1)
    return f"{_fixed(number / factor**index, decimals)}{suffixes[index]}"


def _fixed(number: float, decimals: int | None) -> str:
    """Return a number with Grafana's own choice of decimals unless they are given."""
    if decimals is None:
        decimals = _decimals(number)
    return f"{_round(number, decimals):.{decimals}f}"


def _decimals(number: float) -> int:
    if number % 1 == 0:
        return 0
    size = abs(number)
    chosen = -math.floor(math.log10(size)) + 1
    return max(0, chosen + 1 if size * 10**chosen > 2.25 else chosen)


def _round(number: float, decimals: int) -> float:
    """Round as JavaScript does: halves go up."""
    factor = 10**decimals
    rounded: float = math.floor(number * factor + 0.5) / factor
    return rounded
