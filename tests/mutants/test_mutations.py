"""Which mutations of a module there are."""

from pathlib import Path
from types import ModuleType

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


def test_every_mutation_compiles_and_annotations_are_left_alone(mutations: ModuleType, root: Path) -> None:
    found = [mutant for place in mutations.places(root, "meter.py") for mutant in mutations.mutants(root, place)]
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


def test_a_place_has_the_lines_of_its_statement(mutations: ModuleType, root: Path) -> None:
    places = {(place.lines, place.in_function) for place in mutations.places(root, "meter.py")}
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


def test_each_exception_of_a_handler_is_replaced_by_one_that_nothing_raises(
    mutations: ModuleType, tmp_path: Path
) -> None:
    handlers = ("OSError", "json.JSONDecodeError", "(OSError, json.JSONDecodeError)")
    source = "try:\n    read()\n" + "".join(f"except {each}:\n    raise\n" for each in handlers)
    (tmp_path / "reader.py").write_text(source)
    found = [
        mutant for place in mutations.places(tmp_path, "reader.py") for mutant in mutations.mutants(tmp_path, place)
    ]
    other = "CosmicRayTestingException"
    assert [mutant.mutated for mutant in found if mutant.original.startswith("except")] == [
        f"except {other}:",
        f"except {other}:",
        f"except ({other}, json.JSONDecodeError):",
        f"except (OSError, {other}):",
    ]
