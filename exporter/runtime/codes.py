"""Which texts are codes and which are not: people write sentences with names and addresses where a code belongs.

What is no code is shown as `other`, so that no personal data becomes a label, a log line or an example.
"""

import hashlib
import re

OTHER = "other"
"""Shown instead of a text that is no code."""

MAX_CODE = 64
"""Characters of a code."""

_NUMBER = re.compile(r"[+(]*[\d()./-]{9,}")
"""A telephone number. Codes of that many digits are rare, and nothing tells them from one."""


def is_code(text: str) -> bool:
    """Whether a text can be shown as a code: short, without blanks, and neither an address nor a telephone number."""
    # Blanks that are not ASCII are not printable either.
    is_word = text.isprintable() and " " not in text and "@" not in text
    return is_word and len(text) <= MAX_CODE and not _NUMBER.fullmatch(text)


def is_address(text: str) -> bool:
    """Whether a text can contain an email address."""
    return "@" in text


def hidden_address(item_id: str) -> str:
    """Return an id, or something that stands for it if it is an address."""
    return f"hidden-{hashlib.sha256(item_id.encode()).hexdigest()[:12]}" if is_address(item_id) else item_id
