"""Reads YAML files strictly; each error names a place in the file and what is expected."""

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
import yaml

from exporter.config.files import UnreadableFileError, read_bytes
from exporter.errors import ConfigError, UnusableError

T = TypeVar("T")

MAX_FILE = 1_000_000
"""Bytes of a file."""

MAX_NODES = 100_000
"""Values in a file after its aliases are expanded: a few lines of aliases can expand to more than fits into memory."""


class NotYamlError(Exception):
    """A text is not YAML, or more than is read of it. The text is the line and the reason, without values."""


class MisfitError(Exception):
    """A value does not have the expected type or form."""

    def __init__(self, path: tuple[str, ...], what: str) -> None:
        super().__init__(what)
        self.path = path
        """Keys from the root to the value."""
        self.what = what
        """What is wrong, and what is expected."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A section of a file; an unknown key is an error."""


def read(file: Path, *, example: str, regular: bool = True) -> dict[str, Any]:
    """Return a file's mapping. Raises a `ConfigError` with file and line; `example` is part of it for an empty file.

    With `regular`, pipes and devices are refused. A file that cannot be read is an `UnusableError`.
    """
    try:
        content = read_bytes(file, limit=MAX_FILE, what="settings", regular=regular)
    except UnreadableFileError as error:
        raise UnusableError(f"{file}: cannot be read: {error}") from None
    try:
        tree = parse(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: expected UTF-8 text") from None
    except NotYamlError as error:
        raise ConfigError(f"{file}: {error}") from None
    if not isinstance(tree, dict):
        what = "is empty; " if not content.strip() else ""
        raise ConfigError(f"{file}: {what}expected settings such as {example}")
    not_text = next((key for key in tree if not isinstance(key, str)), None)
    if not_text is not None:
        raise ConfigError(f"{file}: {not_text!r}: expected a key that is text")
    return tree


def parse(text: str, *, most: int = MAX_NODES, unique_keys: bool = True) -> Any:
    """Return what a YAML text means: at most that many values. Raises `NotYamlError`.

    With `unique_keys`, duplicate keys are an error.
    """
    loader = _BoundedLoader(text, most=most, unique_keys=unique_keys)
    try:
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise NotYamlError(f"{line}not YAML: {_in_words(error.problem or error.context)}") from None
    except RecursionError:
        raise NotYamlError("not YAML: nested too deeply") from None
    except (yaml.YAMLError, ValueError, ArithmeticError):
        raise NotYamlError("not YAML") from None
    finally:
        loader.dispose()


def _in_words(problem: str | None) -> str:
    """Return a problem of the YAML library, those that are easily made in plainer words."""
    found = re.fullmatch("found character (.+) that cannot start any token", problem or "")
    if found is None:
        return problem or "it cannot be read"
    if found[1] == repr("\t"):
        return "a tab; indent with spaces"
    return f"a value that begins with {found[1]}; put it in quotes"


def decode(tree: Any, kind: type[T], hook: Callable[[type, object], object] | None = None) -> T:
    """Decode a tree; raises `MisfitError`. The checks of a section raise errors that start with a key ("floor: …")."""
    _check_texts(tree, ())
    try:
        return msgspec.convert(tree, kind, dec_hook=hook)
    except msgspec.ValidationError as error:
        raise _misfit(str(error), kind) from None


def _check_texts(value: Any, path: tuple[str, ...]) -> None:
    """Reject texts that can become neither a path nor a label nor a part of a request, wherever they are.

    YAML escapes and undecodable bytes of the environment become lone surrogates, which have no encoding.
    """
    if isinstance(value, dict):
        for key, below in value.items():
            _check_texts(key, path)
            _check_texts(below, (*path, str(key)))
    elif isinstance(value, list):
        for below in value:
            _check_texts(below, path)
    elif isinstance(value, str):
        if "\0" in value:
            raise MisfitError(path, "expected text without NUL")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise MisfitError(path, "expected text that UTF-8 can encode") from None


def keys_at(kind: type, path: tuple[str, ...]) -> list[str]:
    """Return the keys that a type has at a path."""
    section = _section_at(kind, path)
    return [] if section is None else list(get_type_hints(section))


def _section_at(kind: type, path: tuple[str, ...]) -> Any:
    section: Any = kind
    for key in path:
        kinds = _kinds(get_type_hints(section).get(key))
        section = next((each for each in kinds if isinstance(each, type) and issubclass(each, msgspec.Struct)), None)
        if section is None:
            return None
    return section


def _kinds(hint: Any) -> tuple[Any, ...]:
    """Return a type, of a union its members, and of a mapping or a list its values."""
    return (hint, *get_args(hint), *(each for inner in get_args(hint) for each in get_args(inner)))


def unknown_key(key: str, known: list[str]) -> str:
    """Return an error for an unknown key, with the most similar known key."""
    near = nearest(key, known)
    return "unknown key" + (f"; did you mean {near}?" if near else f"; known are {', '.join(known)}")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most likely meant; None if none is similar.

    Whole words weigh more than letters: RUNTIME_URL is rather RUNTIME_BASE_URL than RUNTIME_QUERY.
    """
    name = name[:100]
    words = _words(name)
    similar = difflib.SequenceMatcher(b=name)
    ranked = []
    for each in known:
        shared = len(words & _words(each))
        similar.set_seq1(each)
        ratio = similar.ratio()
        if ratio >= SIMILAR or (shared and shared == len(words)):
            ranked.append((shared, ratio, each))
    return max(ranked)[2] if ranked else None


SIMILAR = 0.6
"""How similar a name must be to be proposed, from 0 to 1: as `difflib.get_close_matches` has it."""


def _words(name: str) -> set[str]:
    return {word.casefold() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+", name)}


def _misfit(message: str, kind: type) -> MisfitError:
    """Split msgspec's message into the path and what is expected."""
    what, _, at = message.partition(" - at `$")
    if key_of := re.search(r" - at `key` in `\$(.*)`$", message):
        # YAML reads true, yes, on and no without quotes as true and false, and 5 as a number.
        what, at = "expected keys that are text; put true, yes, on, no, off and numbers in quotes", key_of[1]
    path = tuple(part for part in at.replace("[...]", "").rstrip("`").split(".") if part)
    if key := re.match(r"([\w.]+): ", what):
        path, what = (*path, *key[1].split(".")), what[key.end() :]
    if unknown := re.search(r"unknown field `(.+)`", what):
        return MisfitError((*path, unknown[1]), unknown_key(unknown[1], keys_at(kind, path)))
    if missing := re.search(r"missing required field `(.+)`", what):
        return MisfitError((*path, missing[1]), "is required")
    if wrong := re.match(r"Invalid enum value (.+)", what):
        what = f"{_choices(kind, path)}got {wrong[1]}"
    for pattern, words in _PLAIN_WORDS:
        what = re.sub(pattern, words, what)
    return MisfitError(path, what)


def _choices(kind: type, path: tuple[str, ...]) -> str:
    section = _section_at(kind, path[:-1])
    kinds = _kinds(get_type_hints(section).get(path[-1])) if section is not None and path else ()
    choices = [str(each) for kind in kinds if get_origin(kind) is Literal for each in get_args(kind)]
    if len(choices) == 1 and any(isinstance(kind, type) and issubclass(kind, msgspec.Struct) for kind in kinds):
        choices.append("a mapping of keys")
    return f"expected one of {', '.join(choices)}, " if choices else "not one of the known values: "


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


class _BoundedLoader(yaml.SafeLoader):
    """Rejects duplicate keys, of which YAML would keep the last, and what would take long or much memory to read.

    It reads fewer texts as other values than YAML 1.1: see `_PLAIN`.
    """

    def __init__(self, text: str, *, most: int, unique_keys: bool) -> None:
        try:
            super().__init__(text)
        except yaml.YAMLError as error:
            raise NotYamlError("not YAML: a character that is not text") from error
        self._most = most
        self._unique_keys = unique_keys
        self._composed = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        # While the text is read, not only after it: YAML is read slowly, about 10,000 values per second.
        self._composed += 1
        if self._composed > self._most:
            raise yaml.constructor.ConstructorError(None, None, "too many values", None)
        node: yaml.Node | None = super().compose_node(parent, index)
        if isinstance(node, yaml.ScalarNode) and node.tag in _PLAIN and len(node.value) > MAX_NUMBER:
            raise yaml.constructor.ConstructorError(None, None, "a number that is too long", node.start_mark)
        return node

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _expanded_size(node, {}, set(), self._most)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        # Not when it is constructed: until then, what is merged into it (`<<`) has been added to its keys.
        if self._unique_keys:
            counts = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
            twice = next((key for key, count in counts.items() if count > 1), None)
            if twice is not None:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {twice}", node.start_mark)
        return node

    def construct_plain(self, node: yaml.ScalarNode) -> object:
        """Return the value of a number, or of true and false, also of one with its tag in front (`!!int 010`)."""
        pattern, what, made = _PLAIN[node.tag]
        if not pattern.fullmatch(str(self.construct_scalar(node))):
            raise yaml.constructor.ConstructorError(None, None, f"expected {what}", node.start_mark)
        return made(self, node)


def _resolver_of(tag: str) -> re.Pattern[str]:
    resolvers = yaml.SafeLoader.yaml_implicit_resolvers.values()
    return next(pattern for each in resolvers for known, pattern in each if known == tag)


_NULL, _BOOL, _INT, _FLOAT, _TEXT, _LIST, _MAPPING, _MERGE = (
    f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map", "merge")
)

_PLAIN: Mapping[str, tuple[re.Pattern[str], str, Callable[[_BoundedLoader, yaml.ScalarNode], object]]] = {
    _BOOL: (_resolver_of(_BOOL), "true or false", yaml.SafeLoader.construct_yaml_bool),
    _INT: (re.compile("0|-?[1-9][0-9]*"), "a whole number such as 10", yaml.SafeLoader.construct_yaml_int),
    _FLOAT: (
        re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)\.[0-9]*(?:[eE][-+][0-9]+)?|\.(?:inf|Inf|INF))|\.(?:[0-9]+|nan|NaN|NAN)"),
        "a number with a fraction such as 0.4",
        yaml.SafeLoader.construct_yaml_float,
    ),
}
"""Plain values that are no texts, and what makes them.

YAML 1.1 also reads 010 as 8, 1:30 as 90, 0x10 as 16, 1_000 as 1000 and 2026-01-31 as a date, which is not what was
meant as a part of a request or a pattern. Here they are texts: a whole number is written in one way only.
"""

_BoundedLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in (_NULL, _BOOL, _MERGE)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_BoundedLoader.yaml_constructors = {
    # The last one refuses all other tags.
    tag: yaml.SafeLoader.yaml_constructors[tag]
    for tag in (_NULL, _TEXT, _LIST, _MAPPING, None)
}
for _tag in _PLAIN:
    _BoundedLoader.add_constructor(_tag, _BoundedLoader.construct_plain)
for _tag in (_INT, _FLOAT):
    _BoundedLoader.add_implicit_resolver(_tag, re.compile(f"(?:{_PLAIN[_tag][0].pattern})\\Z"), list("-+.0123456789"))

MAX_NUMBER = 100
"""Characters of a number: long ones take quadratic time to convert."""


def _expanded_size(node: yaml.Node, known: dict[int, int], above: set[int], most: int) -> int:
    """Return the number of values of a node after its aliases are expanded."""
    if id(node) in above:
        raise yaml.constructor.ConstructorError(None, None, "an alias refers to itself", node.start_mark)
    if id(node) not in known:
        above.add(id(node))
        values = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = [part for value in values for part in (value if isinstance(value, tuple) else (value,))]
        known[id(node)] = 1 + sum(_expanded_size(part, known, above, most) for part in parts)
        above.remove(id(node))
    if known[id(node)] > most:
        raise yaml.constructor.ConstructorError(None, None, "aliases expand to too many values", node.start_mark)
    return known[id(node)]
