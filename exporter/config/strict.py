"""Reading what a person wrote: YAML without surprises, decoded, with every mistake as a place and a remedy."""

import difflib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec
import yaml

from exporter.errors import ConfigError

T = TypeVar("T")

MAX_FILE = 1_000_000
"""Bytes of a file that a person wrote."""

MAX_NODES = 100_000
"""Values in such a file once its aliases are followed: few lines of them can stand for more than any memory holds."""


class MisfitError(Exception):
    """A value is not what its place expects."""

    def __init__(self, path: tuple[str, ...], what: str) -> None:
        super().__init__(what)
        self.path = path
        """Keys from the top to the place."""
        self.what = what
        """What is wrong there, and what is expected."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of a file; a key that it does not know is refused."""


def read(file: Path, *, example: str) -> dict[str, Any]:
    """Return a file's mapping; `example` is what one could say. Raises `ConfigError` naming file and line."""
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_FILE + 1)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    if len(content) > MAX_FILE:
        raise ConfigError(f"{file}: expected settings, not more than {MAX_FILE:,} bytes")
    try:
        tree = yaml.load(content.decode("utf-8"), Loader=_StrictLoader)  # noqa: S506 - a SafeLoader, only stricter
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: expected UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}:" if error.problem_mark else ""
        raise ConfigError(f"{file}:{line} not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError, ValueError):
        raise ConfigError(f"{file}: not YAML") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{file}: expected settings such as {example}")
    odd = next((key for key in tree if not isinstance(key, str)), None)
    if odd is not None:
        raise ConfigError(f"{file}: {odd!r}: expected a key that is text")
    return tree


def decode(tree: Any, kind: type[T], hook: Callable[[type, object], object] | None = None) -> T:
    """Decode a tree; raises `MisfitError`. A check of a section names its own key first ("floor: expected …")."""
    try:
        return msgspec.convert(tree, kind, dec_hook=hook)
    except msgspec.ValidationError as error:
        raise _misfit(str(error), kind) from None


def keys_at(kind: type, path: tuple[str, ...]) -> list[str]:
    """Return the keys that a type knows at a place."""
    section: Any = kind
    for key in path:
        hint: Any = get_type_hints(section).get(key)
        # Of a choice, the one that has keys; of a mapping or a list, what it holds.
        kinds = (hint, *get_args(hint), *(each for inner in get_args(hint) for each in get_args(inner)))
        section = next((each for each in kinds if isinstance(each, type) and issubclass(each, msgspec.Struct)), None)
        if section is None:
            return []
    return list(get_type_hints(section))


def unknown_key(key: str, known: list[str]) -> str:
    """Say that a key is not known, and which was meant."""
    near = difflib.get_close_matches(key, known, n=1)
    return "unknown key" + (f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}")


def _misfit(message: str, kind: type) -> MisfitError:
    """Turn msgspec's sentence into: the path, what was expected."""
    what, _, at = message.partition(" - at `$")
    path = tuple(part for part in at.replace("[...]", "").rstrip("`").split(".") if part)
    if key := re.match(r"([\w.]+): ", what):
        path, what = (*path, *key[1].split(".")), what[key.end() :]
    if unknown := re.search(r"unknown field `(.+)`", what):
        return MisfitError((*path, unknown[1]), unknown_key(unknown[1], keys_at(kind, path)))
    if missing := re.search(r"missing required field `(.+)`", what):
        return MisfitError((*path, missing[1]), "is required")
    for theirs, ours in _PLAIN_WORDS:
        what = re.sub(theirs, ours, what)
    return MisfitError(path, what)


_PLAIN_WORDS = (
    ("Expected", "expected"),
    ("`int`", "a whole number"),
    ("`float`", "a number with a fraction"),
    ("`str`", "text"),
    ("`bool`", "true or false"),
    ("`array`", "a list"),
    ("`object`", "a mapping of keys"),
    ("`null`", "nothing"),
    ("`(.+?)`", r"\1"),
)


class _StrictLoader(yaml.SafeLoader):
    """Refuses what a person did not mean: a key that stands twice, of which YAML would keep the last; and bombs."""

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _weigh(node, {}, ())
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice} stands twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


def _weigh(node: yaml.Node, known: dict[int, int], above: tuple[int, ...]) -> int:
    """Return how many values a node stands for once its aliases are followed."""
    if id(node) in above:
        raise yaml.constructor.ConstructorError(None, None, "an alias leads back to itself", node.start_mark)
    if id(node) not in known:
        below = (*above, id(node))
        values = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = [part for value in values for part in (value if isinstance(value, tuple) else (value,))]
        known[id(node)] = 1 + sum(_weigh(part, known, below) for part in parts)
    if known[id(node)] > MAX_NODES:
        raise yaml.constructor.ConstructorError(None, None, "aliases that stand for too much", node.start_mark)
    return known[id(node)]
