"""Colours, units and statuses that all dashboards share.

Colours are the background of a text, because no colour of a text is legible in both themes: Grafana writes in black on
what is bright, and in white on everything else. So each colour is either dark enough for white text, and still visible
on a dark panel, or bright enough for black text (`tests/dashboards/test_colours.py`). Colour is never the only signal:
a status is always a sign and a word.
"""

from typing import Any, Final

GREEN: Final = "#0C8058"
BLUE: Final = "#2F6FC9"
ORANGE: Final = "#F5B62A"
RED: Final = "#D0342C"
MAGENTA: Final = "#BF3F88"
PURPLE: Final = "#8457C2"
GREY: Final = "#6B7280"
TEXT: Final = "text"
"""The colour of text in either theme; where colours are a background, `on_background` replaces it."""

UNKNOWN: Final = ("? unknown", GREY)
"""Text and colour of what is not known. No other state has this sign; nothing that is unknown has another colour."""

UNKNOWN_IN_SHORT: Final = ("?", GREY)
"""The same in a column that has no room for a word: Grafana would cut off the sign."""

STATUSES: Final = {
    "stalled": ("✖ STALLED", MAGENTA),
    "failed": ("✖ failed", RED),
    "failures": ("▲ some failed", ORANGE),
    "overdue": ("▲ overdue", ORANGE),
    "running": ("▶ running", BLUE),
    "waiting": ("‖ waiting", PURPLE),
    "queued": ("○ queued", GREY),
    "completed": ("✔ completed", GREEN),
    "cancelled": ("⊘ cancelled", GREY),
    "unknown": ("▲ unmapped", ORANGE),
}
"""Text and colour of each display status: the status of a run, `stalled` for a run without progress, `overdue` for one
that takes much longer than usual, and `failures` for a completed run with failed records, which must never be green.
`unknown` is the status of a run whose label has no mapping. The worst come first; timelines use the position."""

NOT_KNOWN: Final = {
    "no workers": ("? worker down", GREY),
    "unread": ("? not read", GREY),
}
"""Text and colour of a running run of which nobody knows whether it is stalled.

It is silent while the worker service of its runtime is down, or its project cannot be read.
"""

RECORD_STATES: Final = {
    "completed": GREEN,
    "failed": RED,
    "running": BLUE,
    "waiting": PURPLE,
    "pending": GREY,
}

RUNBOOKS_URL: Final = "https://runbooks.example.com"
"""Default of the dashboard variable with the base URL of the runbooks: what the external label `runbooks_url` has."""

UNITS: Final = {
    "count": "locale",
    "ratio": "percentunit",
    "duration": "s",
    "duration in words": "dtdurations",
    "duration to compare": "dtdhms",
    "time": "time:MM-DD HH:mm",
    "per minute": "/min",
    "rate": "reqps",
    "bytes": "bytes",
    "word": "string",
}
"""The Grafana unit for each kind of value. Metrics have base units, so only rates per minute are scaled."""

TAG: Final = "spinner"

DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}

PRODUCT_URL: Final = "https://product.example.com"
"""Default of the dashboard variable with the base URL of the product's own pages."""

PRODUCT_PAGES: Final = {
    "Outcomes": "/jobs/${__data.fields.run_id:percentencode}/records/${__data.fields.record_id:percentencode}",
    "Journey": "/jobs/${__data.fields.run_id:percentencode}/records/${__data.fields.record_id:percentencode}/journey",
    "Records": "/records?job=${__data.fields.run_id:percentencode}",
}
"""The product's pages for a record: its outcomes, its journey with the timing of each step, and the run's records."""


UNKNOWN_NUMBER: Final = 0
"""The number on a timeline for a run of which nobody knows whether it is stalled."""


def status_number(status: str) -> int:
    """Return the number of a status on a timeline."""
    return list(STATUSES).index(status) + 1


def status_name_mappings() -> list[dict[str, Any]]:
    """Return the value mappings for a column of status names."""
    return [value_mapping({**STATUSES, **NOT_KNOWN})]


def status_number_mappings() -> list[dict[str, Any]]:
    """Return the value mappings for a timeline of status numbers."""
    numbers = {str(status_number(status)): shown for status, shown in STATUSES.items()}
    return [value_mapping({**numbers, str(UNKNOWN_NUMBER): UNKNOWN})]


def value_mapping(shown: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """Return a value mapping: for each value, the text and its colour."""
    return {
        "type": "value",
        "options": {
            value: {"index": index, "text": text, "color": colour}
            for index, (value, (text, colour)) in enumerate(shown.items())
        },
    }


def null_mapping(text: str, colour: str = TEXT) -> dict[str, Any]:
    """Return a value mapping for an absent value."""
    return {"type": "special", "options": {"match": "null+nan", "result": {"index": 0, "text": text, "color": colour}}}


def thresholds(base: str, *steps: tuple[float, str]) -> dict[str, Any]:
    """Return thresholds: `base` is the lowest colour, and each step starts at its value.

    An absent value has the base colour, so where a value can be absent the base is grey and the first step starts at
    the lowest value.
    """
    return {
        "mode": "absolute",
        "steps": [{"value": None, "color": base}, *({"value": value, "color": colour} for value, colour in steps)],
    }


def on_background(shown: Any) -> Any:
    """Return thresholds or mappings for colours that are a background: what is neutral has none."""
    if isinstance(shown, dict):
        return {
            key: "transparent" if key == "color" and value == TEXT else on_background(value)
            for key, value in shown.items()
        }
    if isinstance(shown, list):
        return [on_background(each) for each in shown]
    return shown
