"""The list of mutations that change nothing that a user could notice: `equivalent.toml`."""

import contextlib
import functools
import gc
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tests.mutants.mutations import Mutant, Place, differs, edits, one_line, places


class ListError(Exception):
    """An entry of the list is wrong, or does not fit the source any more."""


@dataclass(frozen=True)
class Equivalent:
    """One entry of the list. It names code by its text, since every edit above would change line numbers."""

    file: str
    """Relative to the root of the project."""
    function: str
    """Qualified name of the function or class; empty for the rest of the module."""
    original: str
    """The lines that the mutation changes; white space does not matter."""
    mutated: str
    reason: str

    def matches(self, mutant: Mutant) -> bool:
        """Whether this is the mutation that the entry means."""
        return (self.file, self.function, one_line([self.original]), one_line([self.mutated])) == (
            mutant.place.file,
            mutant.place.function,
            mutant.original,
            mutant.mutated,
        )


def read_equivalents(root: Path, path: Path) -> list[Equivalent]:
    """Read the list. Raises `ListError`, which names all wrong entries."""
    with _few_collections():
        return _read(root, tomllib.loads(path.read_text()).get("equivalent", []), path.name)


@contextlib.contextmanager
def _few_collections() -> Iterator[None]:
    """Collect garbage more rarely: each mutation copies a tree of objects, in which half of the time would be spent."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _read(root: Path, listed: list[dict[str, Any]], name: str) -> list[Equivalent]:
    entries: list[Equivalent] = []
    problems: list[str] = []
    for number, values in enumerate(listed, start=1):
        problem = wrong_keys(values)
        if not problem:
            entry = Equivalent(**values)
            entries.append(entry)
            problem = mismatch(root, entry)
        if problem:
            problems.append(f"{name}: entry {number}: {problem}")
    if problems:
        raise ListError("\n".join(problems))
    return entries


def wrong_keys(values: dict[str, object]) -> str:
    names = {field.name for field in fields(Equivalent)}
    if values.keys() != names:
        return f"has the keys {', '.join(values)} instead of {', '.join(sorted(names))}"
    empty = [name for name in ("file", "original", "reason") if not str(values[name]).strip()]
    return f"{empty[0]} is empty" if empty else ""


def mismatch(root: Path, entry: Equivalent) -> str:
    """Say why an entry does not name one mutation of the source; empty if it does."""
    named = f"{entry.file}, {entry.function or 'module'}: {entry.original!r} -> {entry.mutated!r}"
    if not (root / entry.file).is_file():
        return f"{named}: there is no such file"
    original = (root / entry.file).read_text()
    matching = {mutant.source for mutant in candidates(root, entry) if entry.matches(mutant)}
    # It takes as long as to mutate, and few of the candidates match.
    sources = [source for source in matching if differs(original, source)]
    if not sources:
        return f"{named}: no mutation matches"
    return f"{named}: {len(sources)} mutations match" if len(sources) > 1 else ""


def candidates(root: Path, entry: Equivalent) -> Iterator[Mutant]:
    """Apply every mutation of the lines that the entry could mean."""
    source = (root / entry.file).read_text()
    lines = source.splitlines()
    original = one_line([entry.original])
    for place in places(entry.file, source):
        if place.function == entry.function and one_line([lines[place.line - 1]]) in original:
            yield from _edits(source, place)


@functools.cache
def _edits(source: str, place: Place) -> list[Mutant]:
    """Apply every mutation of a place once for all of its entries."""
    return list(edits(source, place))
