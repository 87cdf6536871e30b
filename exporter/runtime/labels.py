"""Text from the API as it becomes a label: without control characters, cut to a maximum length, and cached.

Letters with accents can be written in two ways. They look the same, so they become the same (NFC), as in the config.
"""

import unicodedata
from collections.abc import Callable

from exporter.runtime.codes import OTHER, is_code

MAX_LABELS = 10_000
"""Maximum number of texts in a cache: a server that makes up new ones must not fill memory."""


class LabelCache(dict[str, str]):
    """Maps a text to its label. Most runs have the same few texts, so each is cleaned and stored once."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __missing__(self, text: str) -> str:
        label = unicodedata.normalize("NFC", text)
        if not text.isprintable() or len(text) > self._length:
            # isprintable() is false for control characters, separators other than space, and lone surrogates.
            cut = label[: self._length]
            label = "".join(character if character.isprintable() else " " for character in cut).strip()
        if len(self) < MAX_LABELS and len(text) <= self._length:
            self[text] = label
        return label


class CodeCache(LabelCache):
    """Maps a text to its label; what is no code, or not `is_shown`, becomes `other`."""

    def __init__(self, length: int, is_shown: Callable[[str], bool] = is_code) -> None:
        super().__init__(length)
        self._is_shown = is_shown

    def __missing__(self, text: str) -> str:
        label = super().__missing__(text)
        if not self._is_shown(label):
            label = OTHER
            if text in self:
                self[text] = label
        return label
