"""Regular expressions that take a part of a text of the API: those that could take long are refused.

Such a text can be written by anybody, and Python's matcher tries every way to match it.
"""

import re
import re._constants as codes  # type: ignore[import-not-found]
import re._parser as parser  # type: ignore[import-not-found]
from collections.abc import Iterator
from typing import Any, NamedTuple

from exporter.config.values import compile_pattern

GROUP = "value"
"""The name of the group that is used, if there are several."""

FEW = 3
"""Variable repetitions of at most so many characters are short."""

MOST_SHORT = 8
"""Short repetitions in a pattern: with each more, it takes up to `FEW` times as long."""

MOST_AMBIGUOUS = 2
"""Long repetitions that can end at several places, in a pattern: with each more, it takes up to as many times as long
as a text has characters."""


def value_pattern(text: str) -> tuple[re.Pattern[str], str]:
    """Return a compiled pattern and the name of its group; raises `ValueError`."""
    compiled = compile_pattern(text)
    names = list(compiled.groupindex)
    if len(names) != 1 and GROUP not in names:
        raise ValueError(f"expected a regular expression with a group such as (?P<{GROUP}>[0-9]+), got {text[:100]!r}")
    parts = list(_parts(parser.parse(text), bool(compiled.flags & re.IGNORECASE)))
    if sum(part.is_short for part in parts) > MOST_SHORT:
        raise ValueError(f"expected at most {MOST_SHORT} optional parts, alternatives and short repetitions")
    ambiguous = sum(
        part.repeats and bool(part.matches & _following(parts[place + 1 :])) for place, part in enumerate(parts)
    )
    if ambiguous > MOST_AMBIGUOUS:
        raise ValueError(
            f"expected at most {MOST_AMBIGUOUS} repetitions that what follows can match too, such as .* before [0-9]+: "
            "more can take for ever"
        )
    return compiled, GROUP if GROUP in names else names[0]


class _Part(NamedTuple):
    """A part of a pattern, in its order."""

    matches: frozenset[int]
    """The characters that it can begin with."""
    repeats: bool = False
    """Whether it is a long repetition."""
    is_short: bool = False
    """Whether it is a short repetition of a variable number."""
    can_be_empty: bool = False


def _following(parts: list[_Part]) -> frozenset[int]:
    """Return the characters that these parts can begin with."""
    found: frozenset[int] = frozenset()
    for part in parts:
        found |= part.matches
        if not part.can_be_empty:
            break
    return found


def _parts(pattern: Any, ignores_case: bool) -> Iterator[_Part]:
    """Yield the parts of a pattern, without groups. Raises `ValueError` for a repetition within a repetition."""
    for code, argument in pattern:
        if code in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT):
            least, most, body = argument
            inner = list(_parts(body, ignores_case))
            if most == 1:
                # The same as nothing or its body.
                yield _Part(frozenset(), is_short=True, can_be_empty=True)
                yield from (part._replace(can_be_empty=True) for part in inner)
                continue
            if any(part.repeats or part.is_short or part.can_be_empty for part in inner):
                raise ValueError(
                    "expected neither a repetition nor alternatives within a repetition, such as (a+)+: "
                    "they can take for ever"
                )
            is_long = most is codes.MAXREPEAT or most - least > FEW
            yield _Part(_following(inner), is_long, most != least and not is_long, can_be_empty=least == 0)
        elif code is codes.BRANCH:
            yield _Part(frozenset(), is_short=True, can_be_empty=True)
            for branch in argument[1]:
                yield from (part._replace(can_be_empty=True) for part in _parts(branch, ignores_case))
        elif code is codes.SUBPATTERN:
            yield from _parts(argument[3], ignores_case)
        elif code is codes.ATOMIC_GROUP:
            yield from _parts(argument, ignores_case)
        elif code in (codes.ASSERT, codes.ASSERT_NOT):
            yield from (part._replace(can_be_empty=True) for part in _parts(argument[1], ignores_case))
        elif code is not codes.AT:
            yield _Part(_characters(code, argument, ignores_case), can_be_empty=code not in _CHARACTERS)


_OTHERS = (
    "\N{ARABIC-INDIC DIGIT THREE}",
    "\N{LATIN SMALL LETTER E WITH ACUTE}",
    "\N{EM SPACE}",
    "\N{RIGHTWARDS ARROW}",
)
"""One character for each kind outside of ASCII: digits, letters, spaces and others."""

OTHER_KINDS = frozenset(map(ord, _OTHERS))
EVERY = frozenset(range(128)) | OTHER_KINDS

_CHARACTERS = (codes.LITERAL, codes.NOT_LITERAL, codes.ANY, codes.IN)

_CATEGORIES = {
    codes.CATEGORY_DIGIT: r"\d",
    codes.CATEGORY_NOT_DIGIT: r"\D",
    codes.CATEGORY_SPACE: r"\s",
    codes.CATEGORY_NOT_SPACE: r"\S",
    codes.CATEGORY_WORD: r"\w",
    codes.CATEGORY_NOT_WORD: r"\W",
}


def _characters(code: Any, argument: Any, ignores_case: Any) -> frozenset[int]:
    """Return the characters that a part of one character matches; all of them for any other part."""
    if code is codes.LITERAL:
        cases = chr(argument).lower() + chr(argument).upper() if ignores_case else chr(argument)
        return OTHER_KINDS if argument >= 128 else frozenset(map(ord, cases)) & EVERY
    if code is codes.NOT_LITERAL:
        return EVERY - {argument}
    if code is codes.RANGE:
        first, last = argument
        letters = (_characters(codes.LITERAL, each, ignores_case) for each in range(first, min(last, 127) + 1))
        return frozenset().union(*letters, OTHER_KINDS if last >= 128 else ())
    if code is codes.CATEGORY and argument in _CATEGORIES:
        return frozenset(each for each in EVERY if re.match(_CATEGORIES[argument], chr(each)))
    if code is codes.IN:
        is_negated = argument[0][0] is codes.NEGATE
        found = frozenset[int]().union(*(_characters(kind, each, ignores_case) for kind, each in argument[is_negated:]))
        # Which of the others are excluded, nothing says.
        return (EVERY - found) | OTHER_KINDS if is_negated else found
    return EVERY
