"""Configs of Prometheus and Alertmanager for scenarios faster than real time: all durations are divided by the speed.

A rule with `for: 5m` then waits five minutes of scenario time. In expressions, durations are PromQL durations (`[10m]`,
`offset 1d`) and numbers from `LEAST_SECONDS` on, which are seconds in alerts/.
"""

import re
from typing import Any

from exporter.config import parse_duration

LEAST_SECONDS = 60
"""Numbers in the rules in alerts/ from here on are seconds (a test checks this)."""

SHORTEST = 0.5
"""Shortest interval of scrapes and evaluations, in seconds; the programs cannot keep up with a shorter one."""

_DURATIONS = {"for", "keep_firing_for", "group_wait", "group_interval", "repeat_interval"}
_INTERVALS = {"interval", "scrape_interval", "scrape_timeout", "evaluation_interval"}

_QUOTED = re.compile(r'("(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\')')
_TIME = re.compile(r"(?<![\w.])(?:(?P<duration>(?:\d+(?:ms|[smhdwy]))+)|(?P<number>\d+))(?![\w.])")


def interval(seconds: float, speed: float) -> float:
    """Return the real interval, in seconds, for an interval of scenario time."""
    return max(seconds / speed, SHORTEST)


def at_speed(document: Any, speed: float) -> Any:
    """Return a rule file or an Alertmanager config with durations divided by the speed; 1 changes nothing."""
    if speed == 1:
        return document
    if isinstance(document, list):
        return [at_speed(each, speed) for each in document]
    if not isinstance(document, dict):
        return document
    return {key: _value(key, value, speed) for key, value in document.items()}


def milliseconds(seconds: float) -> str:
    """Format seconds as a Prometheus duration in milliseconds, at least 1 ms."""
    return f"{max(round(seconds * 1000), 1)}ms"


def _value(key: str, value: Any, speed: float) -> Any:
    if key in _DURATIONS and value not in ("0s", "0"):
        return milliseconds(parse_duration(value) / speed)
    if key in _INTERVALS:
        return milliseconds(interval(parse_duration(value), speed))
    if key == "expr":
        return _expression(value, speed)
    return at_speed(value, speed)


def _expression(text: str, speed: float) -> str:
    def divided(match: re.Match[str]) -> str:
        if match["duration"]:
            return milliseconds(parse_duration(match["duration"]) / speed)
        seconds = int(match["number"])
        return match[0] if seconds < LEAST_SECONDS else f"{seconds / speed:.6g}"

    # Every other piece is a quoted string.
    pieces = _QUOTED.split(text)
    pieces[::2] = [_TIME.sub(divided, piece) for piece in pieces[::2]]
    return "".join(pieces)
