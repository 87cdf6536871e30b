"""Which tests are run for a mutation."""

from tests.mutants.tests_of_lines import IMPORT, LineMap


def line_map() -> LineMap:
    made = LineMap()
    made.add(
        {
            "test_a": {"seconds": 1.0, "lines": {"m.py": [1, 2]}},
            "test_b": {"seconds": 2.0, "lines": {"m.py": [2, 3], "other.py": [1]}},
            IMPORT: {"seconds": 0.0, "lines": {"m.py": [9]}},
        }
    )
    return made


def test_a_line_has_the_tests_that_run_it() -> None:
    assert line_map().of_lines("m.py", [1]) == {"test_a"}
    assert line_map().of_lines("m.py", [1, 3]) == {"test_a", "test_b"}
    assert line_map().of_lines("m.py", [5]) == set()


def test_a_line_that_an_import_runs_has_all_tests_of_its_module() -> None:
    assert line_map().of_lines("m.py", [9]) == line_map().of_module("m.py") == {"test_a", "test_b"}
    assert set(line_map().seconds) == {"test_a", "test_b"}
