"""Examples of values without personal data."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from exporter.runtime.codes import OTHER, hidden_id, is_code, is_personal
from exporter.runtime.mapping import TEXTS


def example(field: str, values: Sequence[Any]) -> str:
    """Return the most frequent one of a field's values, cut; empty without any."""
    if not values:
        return ""
    texts = (_shown(field, value) for value in values)
    common = Counter(texts).most_common(1)[0][0]
    plain = "".join(character if character.isprintable() else " " for character in common)
    return plain if len(plain) <= EXAMPLE_LENGTH else plain[: EXAMPLE_LENGTH - 1] + "…"


def _shown(field: str, value: Any) -> str:
    """Return a value without personal data: only what could become a label or a number is shown of it."""
    if field == "failures" and isinstance(value, list):
        groups = [
            {key: _shown(key, each[key]) for key in ("step", "errorCode", "count") if key in each}
            for each in value
            if isinstance(each, dict)
        ]
        return json.dumps(groups, ensure_ascii=False)
    if isinstance(value, dict | list):
        return "a mapping of keys" if isinstance(value, dict) else "a list"
    if not isinstance(value, str):
        return str(value)
    if field in ("errorCode", "trigger"):
        return value if is_code(value) else OTHER
    if field in TEXTS or field in ("step", "status"):
        return hidden_id(value) if field.lower().endswith("id") else OTHER if is_personal(value) else value
    return value if _TIME_OR_NUMBER.fullmatch(value) and not is_personal(value) else "text"


_TIME_OR_NUMBER = re.compile(r"[\d:.,+ -]*(T|days?)?[\d:.,+ -]*Z?", re.IGNORECASE)

EXAMPLE_LENGTH = 40
"""Characters of an example value that are shown."""
