"""Which tests are run for a mutation."""

from tests.mutants.tests_of_lines import IMPORTS, LineMap


def line_map() -> LineMap:
    made = LineMap()
    made.add(
        "tests/a.py",
        {
            "tests/a.py::a": {"seconds": 1.0, "processor_seconds": 0.1, "lines": {"m.py": [1, 2]}},
            "tests/a.py::b": {"seconds": 2.0, "processor_seconds": 0.2, "lines": {"m.py": [2, 3], "other.py": [1]}},
            "tests/a.py::c": {"seconds": 3.0, "processor_seconds": 0.3, "lines": {"other.py": [1]}},
            IMPORTS: {"lines": {"m.py": [9]}},
        },
    )
    return made


def test_a_line_has_the_tests_that_run_it() -> None:
    assert line_map().of_lines("m.py", [1]) == {"tests/a.py::a"}
    assert line_map().of_lines("m.py", [1, 3]) == {"tests/a.py::a", "tests/a.py::b"}
    assert line_map().of_lines("m.py", [5]) == set()


def test_modules_have_the_tests_that_run_any_line_of_them() -> None:
    assert line_map().of_modules(["m.py"]) == {"tests/a.py::a", "tests/a.py::b"}
    assert line_map().of_modules(["m.py", "other.py"]) == {"tests/a.py::a", "tests/a.py::b", "tests/a.py::c"}


def test_lines_that_run_at_import_are_known_and_are_no_test() -> None:
    made = line_map()
    made.add("tests/b.py", {"tests/b.py::d": {"seconds": 1.0, "processor_seconds": 0.1, "lines": {}}})
    assert made.at_import("m.py", [8, 9]) == {"tests/a.py"}
    assert made.at_import("m.py", [1, 2]) == set()
    assert made.of_files({"tests/b.py"}) == {"tests/b.py::d"}
    assert set(line_map().seconds) == {"tests/a.py::a", "tests/a.py::b", "tests/a.py::c"}


def test_time_limits_are_by_the_clock_and_the_selection_is_by_processor_time() -> None:
    assert line_map().seconds == {"tests/a.py::a": 1.0, "tests/a.py::b": 2.0, "tests/a.py::c": 3.0}
    assert line_map().processor_seconds == {"tests/a.py::a": 0.1, "tests/a.py::b": 0.2, "tests/a.py::c": 0.3}
