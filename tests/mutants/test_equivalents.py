"""The list of equivalent mutations: what an entry names, and what is said of one that names nothing."""

from pathlib import Path
from types import ModuleType

import pytest

from tests.stack.programs import ROOT, missing

SOURCE = """\
def first(a):
    return a > 1


def second(a):
    return a > 1


def third(a):
    if a:
        x = 1
    else:
        x = 1
    return x
"""


@pytest.fixture
def equivalents() -> ModuleType:
    try:
        from tests.mutants import equivalents
    except ImportError:
        missing("cosmic-ray is not installed; `make test-all` installs it")
    return equivalents


def listed(folder: Path, source: str = SOURCE, **changed: str) -> Path:
    (folder / "words.py").write_text(source)
    entry = {
        "file": "words.py",
        "function": "second",
        "original": "return a > 1",
        "mutated": "return a > 2",
        "reason": "Callers pass 0 or 3.",
    }
    lines = [f"{key} = {value!r}" for key, value in (entry | changed).items()]
    path = folder / "equivalent.toml"
    path.write_text("[[equivalent]]\n" + "\n".join(lines))
    return path


def test_an_entry_means_the_mutation_of_its_function_only(equivalents: ModuleType, tmp_path: Path) -> None:
    from tests.mutants.mutations import mutants, places

    (entry,) = equivalents.read_equivalents(tmp_path, listed(tmp_path))
    every = [mutant for place in places("words.py", SOURCE) for mutant in mutants(SOURCE, place)]
    (meant,) = [mutant for mutant in every if entry.matches(mutant)]
    assert (meant.place.function, meant.mutated.split()) == ("second", ["return", "a", ">", "2"])


def test_an_entry_stays_valid_when_lines_are_added_above(equivalents: ModuleType, tmp_path: Path) -> None:
    assert equivalents.read_equivalents(tmp_path, listed(tmp_path, f"import re\n\n\n{SOURCE}"))


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (
            {"original": "return a > 5"},
            "entry 1: words.py, second: 'return a > 5' -> 'return a > 2': no mutation matches",
        ),
        ({"function": "fourth"}, "entry 1: words.py, fourth: 'return a > 1' -> 'return a > 2': no mutation matches"),
        (
            {"file": "gone.py"},
            "entry 1: gone.py, second: 'return a > 1' -> 'return a > 2': there is no such file",
        ),
        (
            {"function": "third", "original": "x = 1", "mutated": "x = 2"},
            "entry 1: words.py, third: 'x = 1' -> 'x = 2': 2 mutations match",
        ),
        ({"reason": " "}, "entry 1: reason is empty"),
        (
            {"line": "2"},
            "entry 1: has the keys file, function, original, mutated, reason, line instead of "
            "file, function, mutated, original, reason",
        ),
    ],
)
def test_an_entry_that_names_no_single_mutation_is_an_error_that_names_the_entry(
    equivalents: ModuleType, tmp_path: Path, changed: dict[str, str], problem: str
) -> None:
    with pytest.raises(equivalents.ListError) as raised:
        equivalents.read_equivalents(tmp_path, listed(tmp_path, **changed))
    assert str(raised.value) == f"equivalent.toml: {problem}"


def test_every_entry_of_our_list_is_a_mutation_of_the_source(equivalents: ModuleType) -> None:
    equivalents.read_equivalents(ROOT, ROOT / "tests" / "mutants" / "equivalent.toml")
