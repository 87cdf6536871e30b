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
    is_word = text.isprintable() and " " not in text
    return is_word and len(text) <= MAX_CODE and not _NUMBER.fullmatch(text) and not is_personal(text)


def is_personal(text: str) -> bool:
    """Whether a text can contain an email address or a telephone number, as in "dialing 0151 2345678"."""
    return is_personal_id(text) or _NATIONAL.search(text) is not None


def is_personal_id(item_id: str) -> bool:
    """Whether an id can be an email address or a telephone number. One of digits alone is that of a row."""
    return "@" in item_id or _INTERNATIONAL.search(item_id) is not None


def hidden_id(item_id: str) -> str:
    """Return an id, or something that stands for it if it is personal."""
    return f"hidden-{hashlib.sha256(item_id.encode()).hexdigest()[:12]}" if is_personal_id(item_id) else item_id


_INTERNATIONAL = re.compile(r"[+(](?:[()./ -]{0,4}\d){7}")
"""Where a telephone number begins that is written with a plus or a parenthesis, with at least seven digits."""

_NATIONAL = re.compile(r"(?<![\w.-])0(?:[()./ -]{0,4}\d){8}")
"""Where one begins that is written as it is dialled, with at least nine digits. No date begins so."""
