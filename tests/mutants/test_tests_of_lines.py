"""Which tests are run for a mutation."""

from tests.mutants.tests_of_lines import IMPORTS, LineMap


def line_map() -> LineMap:
    made = LineMap()
    made.add(
        {
            "test_a": {"seconds": 1.0, "processor_seconds": 0.1, "lines": {"m.py": [1, 2]}},
            "test_b": {"seconds": 2.0, "processor_seconds": 0.2, "lines": {"m.py": [2, 3], "other.py": [1]}},
            "test_c": {"seconds": 3.0, "processor_seconds": 0.3, "lines": {"other.py": [1]}},
            IMPORTS: {"lines": {"m.py": [9]}},
        }
    )
    return made


def test_a_line_has_the_tests_that_run_it() -> None:
    assert line_map().of_lines("m.py", [1]) == {"test_a"}
    assert line_map().of_lines("m.py", [1, 3]) == {"test_a", "test_b"}
    assert line_map().of_lines("m.py", [5]) == set()


def test_modules_have_the_tests_that_run_any_line_of_them() -> None:
    assert line_map().of_modules(["m.py"]) == {"test_a", "test_b"}
    assert line_map().of_modules(["m.py", "other.py"]) == {"test_a", "test_b", "test_c"}


def test_lines_that_run_at_import_are_known_and_are_no_test() -> None:
    assert line_map().at_import["m.py"] == {9}
    assert set(line_map().seconds) == {"test_a", "test_b", "test_c"}


def test_time_limits_are_by_the_clock_and_the_selection_is_by_processor_time() -> None:
    assert line_map().seconds == {"test_a": 1.0, "test_b": 2.0, "test_c": 3.0}
    assert line_map().processor_seconds == {"test_a": 0.1, "test_b": 0.2, "test_c": 0.3}
