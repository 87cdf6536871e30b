"""Which mutations of a module there are."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.stack.programs import missing

SOURCE = """\
from dataclasses import dataclass


@dataclass(frozen=True)
class Meter:
    limit: int | None = 3

    def add(self, value: int | None, *, log: str = "") -> int | None:
        if value is not None and value > 2:
            self.total += value
            self.last = value
            print(
                value,
            )
        return self.total
"""


@pytest.fixture
def mutations() -> ModuleType:
    try:
        from tests.mutants import mutations
    except ImportError:
        missing("cosmic-ray is not installed; `make test-all` installs it")
    return mutations


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "meter.py").write_text(SOURCE)
    return tmp_path


def test_every_mutation_compiles_and_annotations_are_left_alone(mutations: ModuleType) -> None:
    found = [mutant for place in mutations.places("meter.py", SOURCE) for mutant in mutations.mutants(SOURCE, place)]
    assert {(mutant.place.line, mutant.mutated) for mutant in found} == {
        (4, ""),  # The decorator.
        (6, "limit: int | None = 2"),
        (6, "limit: int | None = 4"),
        (9, "if not value is not None and value > 2:"),
        (9, "if value is None and value > 2:"),
        (9, "if value is not None or value > 2:"),
        *((9, f"if value is not None and value {sign} 2:") for sign in ("<", "<=", "==", "!=", ">=")),
        (9, "if value is not None and value > 1:"),
        (9, "if value is not None and value > 3:"),
        (10, "pass"),
        (11, "pass"),
        (12, "pass"),
    }


def test_a_place_has_the_lines_of_its_statement(mutations: ModuleType) -> None:
    places = {(place.lines, place.in_function) for place in mutations.places("meter.py", SOURCE)}
    assert places == {
        (range(4, 5), False),
        (range(6, 7), False),
        (range(9, 10), True),
        (range(10, 11), True),
        (range(11, 12), True),
        (range(12, 15), True),
    }


def test_a_seed_draws_the_same_mutants_again_and_one_for_each_place(mutations: ModuleType, root: Path) -> None:
    drawn = mutations.sample(root, ["meter.py"], 4, seed=1)
    assert drawn == mutations.sample(root, ["meter.py"], 4, seed=1)
    assert len({mutant.place for mutant in drawn}) == 4
    assert drawn != mutations.sample(root, ["meter.py"], 4, seed=2)


ASYNC = """\
import http.client
import json


class Reader:
    @property
    async def pages(self):
        try:
            async for page in self.client.read(1):
                self.use(page)
        except http.client.HTTPException:
            pass
        except (json.JSONDecodeError, OSError):
            pass
        if (
            self.first
            and self.second
        ):
            pass


class Page:
    limit = 2
"""


def mutated(mutations: ModuleType, source: str) -> dict[tuple[str, str], Any]:
    found = [mutant for place in mutations.places("reader.py", source) for mutant in mutations.mutants(source, place)]
    return {(mutant.original, mutant.mutated): mutant for mutant in found}


def test_each_exception_of_an_except_clause_is_replaced_whole(mutations: ModuleType) -> None:
    excepts = {pair for pair in mutated(mutations, ASYNC) if pair[0].startswith("except")}
    assert excepts == {
        ("except http.client.HTTPException:", "except NeverRaised:"),
        ("except (json.JSONDecodeError, OSError):", "except (NeverRaised, OSError):"),
        ("except (json.JSONDecodeError, OSError):", "except (json.JSONDecodeError, NeverRaised):"),
    }


def test_an_async_loop_without_items_is_still_an_async_loop(mutations: ModuleType) -> None:
    loop = "async for page in self.client.read(1):"
    empty = "async for page in (_ async for _ in self.client.read(1) if False):"
    assert (loop, empty) in mutated(mutations, ASYNC)
    assert (loop, "async for page in []:") not in mutated(mutations, ASYNC)


def test_a_mutated_condition_has_all_lines_of_its_clause(mutations: ModuleType) -> None:
    # A test for which `first` is false runs the first line only, and sees the mutation.
    changed = mutated(mutations, ASYNC)["and self.second", "or self.second"]
    assert changed.place.lines == range(15, 19)


def test_a_place_names_its_function_or_class(mutations: ModuleType) -> None:
    names = {pair[0]: mutant.place.function for pair, mutant in mutated(mutations, ASYNC).items()}
    assert names["self.use(page)"] == names["@property"] == "Reader.pages"
    assert names["limit = 2"] == "Page"
