"""Which mutations there are: cosmic-ray's operators, and those of our own."""

import ast
import functools
import itertools
import pickle
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import MutationVisitor
from cosmic_ray.operators.provider import OperatorProvider
from parso.python.tree import Keyword, Name

from tests.mutants.tests_of_lines import module_name
from tests.mutants.trial import NEVER_RAISED

ARITHMETIC = {"Add", "Sub", "Mul", "Div", "FloorDiv", "Mod", "Pow"}
BITWISE = {"BitOr", "BitAnd", "BitXor", "LShift", "RShift"}
ORDER = {"Eq", "NotEq", "Lt", "LtE", "Gt", "GtE"}
IDENTITY = {"Is", "IsNot"}

BINARY_EXPRESSIONS = {"arith_expr", "term", "power", "expr", "xor_expr", "and_expr", "shift_expr"}
DECLARATIONS = {"frozen", "slots", "gc", "kw_only"}
"""Arguments of dataclasses and structs that the type checker knows or that save memory."""

COMPOUND = {"if_stmt", "while_stmt", "for_stmt", "try_stmt", "with_stmt", "async_stmt", "classdef", "decorated"}

REPLACED = {"ExceptionReplacer", "ZeroIterationForLoop"}
"""Operators of cosmic-ray that fail on some code; those below do the same for all code."""


@dataclass(frozen=True)
class Place:
    """A range of a module's source that at least one operator changes."""

    file: str
    """Relative to the root of the project."""
    line: int
    lines: range
    """The lines of the statement; a test that runs none of them cannot see the mutation."""
    function: str
    """The qualified name of the function or class that it is part of; empty for the rest of the module."""
    in_function: bool
    """Whether a call runs it; otherwise the import of the module does."""
    statement: int
    """The number of the statement of the module that it is part of, such as a class."""
    mutations: tuple[tuple[str, int], ...]
    """Operators by name, each with the number of the occurrence in this statement."""


@dataclass(frozen=True)
class Mutant:
    """A module with one mutation."""

    place: Place
    original: str
    """The lines that differ, with each run of white space as one space."""
    mutated: str
    source: str
    """The whole mutated module."""

    @property
    def module(self) -> str:
        return module_name(self.place.file)


class DeleteStatement:
    """Replace a call, an assignment to an attribute or item, or an augmented assignment by `pass`."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        if node.type in {"atom_expr", "power"} and node.parent.type == "simple_stmt":
            if ends_with(node, "("):
                yield node.start_pos, node.end_pos
        elif node.type == "expr_stmt":
            operator = node.children[1]
            target = node.children[0]
            augmented = operator.type == "operator" and operator.value != "=" and operator.value.endswith("=")
            if augmented or ends_with(target, ".", "["):
                yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        return Keyword("pass", node.start_pos, node.get_first_leaf().prefix)


class ReplaceException:
    """Replace an exception of an `except` clause, which may have a dotted name, by one that nothing raises."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        for each in caught(node):
            yield each.start_pos, each.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        replaced = caught(node)[index]
        siblings = replaced.parent.children
        prefix = replaced.get_first_leaf().prefix
        siblings[siblings.index(replaced)] = Name(NEVER_RAISED, replaced.start_pos, prefix)
        return node


def caught(node: Any) -> list[Any]:
    """Return the exceptions of an `except` clause."""
    if node.type != "except_clause":
        return []
    expression = node.children[1]
    if expression.type == "atom":  # In parentheses.
        expression = expression.children[1]
    return list(expression.children[::2]) if expression.type == "testlist_comp" else [expression]


class EmptyLoop:
    """Let a `for` loop have no items. An `async for` needs an asynchronous iterable."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        if node.type == "for_stmt":
            yield node.children[3].start_pos, node.children[3].end_pos

    def mutate(self, node: Any, index: int) -> Any:
        iterable = node.children[3]
        is_async = node.parent is not None and node.parent.type == "async_stmt"
        empty = f"(_ async for _ in {iterable.get_code(include_prefix=False)} if False)" if is_async else "[]"
        node.children[3] = Name(empty, iterable.start_pos, iterable.get_first_leaf().prefix)
        return node


OWN_OPERATORS = (DeleteStatement, ReplaceException, EmptyLoop)


def ends_with(node: Any, *brackets: str) -> bool:
    """Return whether the expression ends with a call, an attribute or an item."""
    last = node.children[-1] if node.type in {"atom_expr", "power"} else node
    return last.type == "trailer" and last.children[0].value in brackets


def all_operators() -> dict[str, Any]:
    provider = OperatorProvider()
    own = {operator.__name__: operator() for operator in OWN_OPERATORS}
    return {name: provider[name]() for name in provider if is_useful(name)} | own


def is_useful(operator: str) -> bool:
    """Leave out operators that nearly always raise TypeError, change names instead of behaviour, or are replaced."""
    kind, *values = operator.split("_")
    if kind in {"ReplaceBinaryOperator", "ReplaceComparisonOperator"}:
        return any(set(values) <= family for family in (ARITHMETIC, BITWISE, ORDER, IDENTITY))
    return kind not in {"VariableReplacer", "VariableInserter"} | REPLACED


OPERATORS = all_operators()
OF_OTHER_NODES = {
    name: operator for name, operator in OPERATORS.items() if not name.startswith("ReplaceBinaryOperator")
}
"""Those that change other nodes than operators, too."""


@functools.cache
def places(file: str, source: str) -> tuple[Place, ...]:
    """List the places of one module, in the order of its source, which takes seconds."""
    mutations = defaultdict(list)
    nodes = {}
    for number, statement in enumerate(parsed(source).children):
        occurrences: dict[str, int] = defaultdict(int)
        for node in ast_nodes(statement):
            if node.type in {"name", "newline", "string", "endmarker"}:
                continue
            # Most operators replace one binary operator by another, and are asked about a tenth of the nodes only.
            for name, operator in (OPERATORS if node.type == "operator" else OF_OTHER_NODES).items():
                for position in operator.mutation_positions(node):
                    if is_wanted(name, node):
                        mutations[position].append((name, occurrences[name]))
                        nodes[position] = number, node
                    occurrences[name] += 1
    return tuple(
        Place(
            file,
            position[0][0],
            statement_lines(node, *position),
            qualified_name(node),
            is_in_function(node),
            number,
            tuple(mutations[position]),
        )
        for position, (number, node) in sorted(nodes.items(), key=lambda each: each[0])
    )


def is_wanted(operator: str, node: Any) -> bool:
    if operator.startswith("ReplaceBinaryOperator") and node.parent.type not in BINARY_EXPRESSIONS:
        return False  # The star of `def f(*, key)` and of `{**other}`.
    return not any(is_annotation(child, parent) for child, parent in upwards(node))


def is_annotation(child: Any, parent: Any) -> bool:
    match parent.type:
        case "annassign":
            return child is parent.children[1]
        case "tfpdef":
            return child is parent.children[-1]
        case "funcdef":
            return child is parent.annotation
        case "argument":
            return parent.children[0].value in DECLARATIONS if parent.children[0].type == "name" else False
    return False


def is_in_function(node: Any) -> bool:
    return any(parent.type == "funcdef" and child is parent.children[-1] for child, parent in upwards(node))


def statement_lines(node: Any, start: tuple[int, int], end: tuple[int, int]) -> range:
    """Return the lines of the innermost statement; of a compound one, those of the clause.

    Not only the line of the mutation: a test for which `if a` is false never runs a second line ` and b`, but sees that
    the `and` became an `or`.
    """
    if node.type in COMPOUND:  # The operator changes one part of it, such as the condition of an `if`.
        return range(start[0], end[0] + (end[1] > 0))
    part, statement = next(((child, parent) for child, parent in upwards(node) if is_statement(parent)), (node, node))
    if statement.type not in COMPOUND | {"funcdef"}:
        part = statement
    return range(part.start_pos[0], part.get_last_leaf().start_pos[0] + 1)


def is_statement(node: Any) -> bool:
    return node.type in COMPOUND | {"funcdef"} or (
        node.parent is not None and node.parent.type in {"suite", "file_input"}
    )


def qualified_name(node: Any) -> str:
    """Return the name of the function or class that the node is part of, with those around it."""
    names: list[str] = []
    for child, parent in upwards(node):
        if parent.type in {"funcdef", "classdef"}:
            names.append(parent.name.value)
        elif parent.type == "decorated" and child is parent.children[0]:
            decorated = parent.children[-1]
            # That of `async def` has the function as its second child.
            names.append((decorated.children[-1] if decorated.type == "async_funcdef" else decorated).name.value)
    return ".".join(reversed(names))


def upwards(node: Any) -> Iterator[tuple[Any, Any]]:
    while node.parent is not None:
        yield node, node.parent
        node = node.parent


def mutants(original: str, place: Place, mutations: Iterable[tuple[str, int]] | None = None) -> Iterator[Mutant]:
    """Apply each mutation of a place to the source, skipping those that do not compile or change nothing."""
    return (mutant for mutant in edits(original, place, mutations) if differs(original, mutant.source))


def edits(original: str, place: Place, mutations: Iterable[tuple[str, int]] | None = None) -> Iterator[Mutant]:
    """Apply each mutation of a place to the source, also those that do not compile or change nothing."""
    before, statement, after = around(original, place.statement)
    for name, occurrence in place.mutations if mutations is None else mutations:
        # Of the whole module, it would take several times as long.
        mutated = mutate(statement, name, occurrence)
        if mutated is not None:
            source = before + mutated + after
            yield Mutant(place, *difference(original, source), source)


def mutate(code: str, operator: str, occurrence: int) -> str | None:
    """Apply an operator as cosmic-ray does, which parses the code each time: that takes five times as long."""
    visitor = MutationVisitor(occurrence, OPERATORS[operator])
    mutated = visitor.walk(pickle.loads(pickled_ast(code)))
    return str(mutated.get_code()) if visitor.mutation_applied else None


@functools.cache
def pickled_ast(code: str) -> bytes:
    return pickle.dumps(get_ast(code))


def around(source: str, number: int) -> tuple[str, str, str]:
    """Split a module into what is before one of its statements, the statement, and what is after it."""
    codes = statements(source)
    return "".join(codes[:number]), codes[number], "".join(codes[number + 1 :])


@functools.cache
def statements(source: str) -> list[str]:
    """Return the code of each statement of a module."""
    return [statement.get_code() for statement in parsed(source).children]


@functools.cache
def parsed(source: str) -> Any:
    """Parse a module, which nobody may change then: `mutate` changes a copy."""
    return get_ast(source)


def sample(root: Path, files: Iterable[str], count: int, seed: int) -> list[Mutant]:
    """Draw places, and one mutation for each."""
    random = Random(seed)
    sources = {file: (root / file).read_text() for file in files}
    drawn = [place for file, source in sources.items() for place in places(file, source)]
    random.shuffle(drawn)
    shuffled = ((place, random.sample(place.mutations, len(place.mutations))) for place in drawn)
    found = (next(mutants(sources[place.file], place, mutations), None) for place, mutations in shuffled)
    return list(itertools.islice((mutant for mutant in found if mutant is not None), count))


def differs(original: str, mutated: str) -> bool:
    try:
        return ast.dump(ast.parse(mutated)) != dumped(original)
    except SyntaxError:
        return False


@functools.cache
def dumped(code: str) -> str:
    return ast.dump(ast.parse(code))


def difference(original: str, mutated: str) -> tuple[str, str]:
    """Return the lines that differ, before and after."""
    before, after = original.splitlines(), mutated.splitlines()
    head = next(
        (i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after))
    )
    before, after = before[head:], after[head:]
    while before and after and before[-1] == after[-1]:
        before.pop()
        after.pop()
    return one_line(before), one_line(after)


def one_line(lines: Iterable[str]) -> str:
    return " ".join(" ".join(lines).split())
