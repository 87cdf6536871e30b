"""The house style: what a colour, a word, a unit means, the same on every dashboard.

The colours are told apart by colour-blind people as well (after Okabe and Ito), and none of them speaks alone: a status
is always a word with a sign.
"""

from typing import Any, Final

GREEN: Final = "#1A9E77"
BLUE: Final = "#3B82D6"
ORANGE: Final = "#E69F00"
RED: Final = "#E0482E"
MAGENTA: Final = "#D65FA5"
PURPLE: Final = "#9A7BD0"
GREY: Final = "#8E96A3"
TEXT: Final = "text"

STATUSES: Final = {
    "stalled": ("✖ STALLED", MAGENTA),
    "failed": ("✖ failed", RED),
    "failures": ("▲ some failed", ORANGE),
    "running": ("▶ running", BLUE),
    "waiting": ("‖ waiting", PURPLE),
    "queued": ("○ queued", GREY),
    "completed": ("✔ completed", GREEN),
    "cancelled": ("⊘ cancelled", GREY),
    "unknown": ("? unknown", ORANGE),
}
"""How a run is shown: its status, but `stalled` where it is silent for too long, and `failures` where it completed with
failed records, which must never look all green. The worst stand first; their places are their numbers on timelines."""

RECORD_STATES: Final = {
    "completed": GREEN,
    "failed": RED,
    "running": BLUE,
    "waiting": PURPLE,
    "pending": GREY,
}

UNITS: Final = {
    "count": "locale",
    "ratio": "percentunit",
    "duration": "s",
    "time": "time:MM-DD HH:mm",
    "per minute": "/min",
    "rate": "reqps",
    "bytes": "bytes",
    "word": "string",
}
"""What a quantity is shown in; metrics have base units, so nothing is scaled for any but those per minute."""

TAG: Final = "spinner"

DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}

PRODUCT_URL: Final = "https://product.example.com"
"""Where the product's own pages are; a variable of the dashboard, this is its default."""

PRODUCT_PAGES: Final = {
    "Outcomes": "/jobs/${__data.fields.run_id}/records/${__data.fields.record_id}",
    "Journey": "/jobs/${__data.fields.run_id}/records/${__data.fields.record_id}/journey",
    "Records": "/records?job=${__data.fields.run_id}",
}
"""The product's pages for a record: its outcomes, its way through the pipeline with the timing of each step, and the
contacts' view of the run."""


def status_number(status: str) -> int:
    """Return the number that stands for a status on a timeline."""
    return list(STATUSES).index(status) + 1


def status_words() -> list[dict[str, Any]]:
    """Return the value mappings of a column that holds a status."""
    return [value_mapping({status: (text, colour) for status, (text, colour) in STATUSES.items()})]


def status_numbers() -> list[dict[str, Any]]:
    """Return the value mappings of a timeline that holds numbers of statuses."""
    return [value_mapping({str(status_number(status)): shown for status, shown in STATUSES.items()})]


def value_mapping(shown: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """Return a mapping from values to a text and its colour."""
    return {
        "type": "value",
        "options": {
            value: {"index": index, "text": text, "color": colour}
            for index, (value, (text, colour)) in enumerate(shown.items())
        },
    }


def nothing_mapping(text: str) -> dict[str, Any]:
    """Return a mapping that says what it means when there is no value."""
    return {"type": "special", "options": {"match": "null+nan", "result": {"index": 0, "text": text, "color": TEXT}}}


def thresholds(base: str, *steps: tuple[float, str]) -> dict[str, Any]:
    """Return colours by value: `base` from below, then each from its value on."""
    return {
        "mode": "absolute",
        "steps": [{"value": None, "color": base}, *({"value": value, "color": colour} for value, colour in steps)],
    }
