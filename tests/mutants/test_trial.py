"""The runner of mutants: what it reports of a small project, whose files stay as they are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.tests_of_lines import LineMap, importers
from tests.mutants.trial import seconds_for, stages
from tests.stack.programs import ROOT

SOURCE = """\
import functools


def shorter(a, b):
    if len(a) < len(b):
        return a
    while len(b) > 100:
        b = b[1:]
    return b


@functools.cache
def limit():
    return 100


def computed():
    return 7


SEVEN = computed()
"""

TESTS = """\
import time

import pytest
from exporter.words import SEVEN, limit, shorter

@pytest.fixture(scope="module")
def short():
    time.sleep(0.05)
    return shorter("a", "bcd")

def test_the_shorter_word_is_returned():
    assert shorter("a", "bcd") == "a"
    assert shorter("abc", "d") == "d"

def test_a_long_word_is_cut():
    assert len(shorter("a" * 102, "b" * 102)) == 100

def test_the_limit():
    assert limit() == 100

def test_the_limit_again():
    assert limit() == 100

def test_with_a_shared_fixture(short):
    assert short

def test_with_a_shared_fixture_again(short):
    assert short == "a"
"""

SCRIPT = """\
import json, sys, tempfile
from pathlib import Path
from tests.mutants.children import Job, run_all
from tests.mutants.swap import Collected, SwapTrial
from tests.mutants.tests_of_lines import measured_map, run_pytest
from tests.mutants.trial import Trial, outcome

root = Path(sys.argv[1])
line_map = measured_map(root, 1, lambda message: print(message, file=sys.stderr))
source = (root / "exporter/words.py").read_text()
mutations = [(source.replace(old, new), new, limit) for old, new, limit in json.loads(sys.argv[2])]
tests = sorted(line_map.seconds)

def results_of(trials):
    results = {}
    for (_, mutated, limit), trial in zip(mutations, trials):
        job = trial.job(line_map.seconds)
        job = Job(job.name, job.run, lambda step: 120.0 if step in {"", "collection"} else limit)
        for ended in run_all([job], 1):
            results[mutated] = [outcome(ended), ended.step.rpartition(":")[2]]
    return results

def swap(items):
    chosen = [items[test] for test in tests]
    swapped.update(results_of(SwapTrial(chosen, "exporter.words", changed) for changed, *_ in mutations))

imported = results_of(Trial(root, "exporter.words", "exporter/words.py", each, [tests]) for each, *_ in mutations)
swapped = {}
if mutations:
    assert run_pytest(root, Path(tempfile.mkdtemp(dir=root)), ["tests"], Collected(swap)) in (0, 5)
print(json.dumps({"lines": {line: sorted(t) for line, t in line_map.tests["exporter/words.py"].items()},
                  "imported": imported, "swapped": swapped}))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "exporter").mkdir()
    (tmp_path / "exporter" / "__init__.py").touch()
    (tmp_path / "exporter" / "words.py").write_text(SOURCE)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_words.py").write_text(TESTS)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.pytest.ini_options]\naddopts = "--import-mode=importlib"\npythonpath = ["."]\n'
        'markers = ["programs", "servers", "slow"]\n'
    )
    return tmp_path


def run(project: Path, *mutations: tuple[str, str, float]) -> dict[str, dict[str, list[str]]]:
    """Return the tests of each line, and of each mutation its outcome and the last test that ran.

    Both for mutations that are imported and for those whose code is swapped.

    A mutation is the original, the mutated text, and the seconds that a test may take.
    """
    # The project comes first on the path, and its `exporter` before ours.
    code = f"import sys; sys.path[:0] = [{str(project)!r}, {str(ROOT)!r}]\n{SCRIPT}"
    # The plugins of libraries take seconds to import.
    environ = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "_hypothesis_pytestplugin"}
    command = [sys.executable, "-c", code, str(project), json.dumps(mutations)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    assert ended.returncode == 0, ended.stderr
    printed: dict[str, dict[str, list[str]]] = json.loads(ended.stdout[ended.stdout.index("{") :].splitlines()[0])
    return printed


def test_a_mutant_is_killed_survives_or_times_out(project: Path) -> None:
    before = {path: path.read_bytes() for path in project.rglob("*.py")}
    results = run(
        project,
        ("len(a) < len(b)", "len(a) > len(b)", 120.0),
        ("len(a) < len(b)", "len(a) <= len(b) - 1", 120.0),
        ("b = b[1:]", "b = b[0:]", 1.0),
    )
    expected = {
        "len(a) > len(b)": ["killed", "test_the_shorter_word_is_returned"],
        "len(a) <= len(b) - 1": ["survived", "test_with_a_shared_fixture_again"],
        "b = b[0:]": ["timeout", "test_a_long_word_is_cut"],
    }
    assert (results["imported"], results["swapped"]) == (expected, expected)
    assert {path: path.read_bytes() for path in project.rglob("*.py")} == before


def test_a_mutant_that_cannot_be_imported_is_killed(project: Path) -> None:
    source = SOURCE.replace("SEVEN = computed()", "SEVEN = computed() + ''")
    code = f"""import sys; sys.path[:0] = [{str(project)!r}, {str(ROOT)!r}]
from pathlib import Path
from tests.mutants.children import run_all
from tests.mutants.trial import Trial, outcome
trial = Trial(Path({str(project)!r}), "exporter.words", "exporter/words.py", {source!r}, [["tests/test_words.py::x"]])
print([(outcome(ended), ended.step) for ended in run_all([trial.job({{}})], 1)])
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.stdout.strip() == "[('killed', 'import')]", ended.stderr


def test_each_line_has_the_tests_that_run_it(project: Path) -> None:
    lines = run(project)["lines"]
    cut, returned, limit, limit_again, first, second = (
        f"tests/test_words.py::test_{name}"
        for name in (
            "a_long_word_is_cut",
            "the_shorter_word_is_returned",
            "the_limit",
            "the_limit_again",
            "with_a_shared_fixture",
            "with_a_shared_fixture_again",
        )
    )
    assert {line: set(tests) for line, tests in lines.items() if tests} == {
        "5": {cut, returned, first, second},
        "6": {returned, first, second},
        "7": {cut, returned},
        "8": {cut},
        "9": {cut, returned},
        "14": {limit, limit_again},  # Although the function is cached.
    }


def test_lines_that_run_while_tests_are_imported_are_known_as_such(project: Path) -> None:
    run(project)
    (cached,) = (project / ".mutants").iterdir()
    lines = json.loads(cached.read_text())["tests"][""]["lines"]["exporter/words.py"]
    assert 18 in lines
    assert not {5, 6, 7, 8, 9, 14} & set(lines)


def test_a_test_takes_as_long_as_if_it_had_to_set_up_the_fixtures_that_it_shares(project: Path) -> None:
    run(project)
    (cached,) = (project / ".mutants").iterdir()
    tests = json.loads(cached.read_text())["tests"].items()
    slow = {test.partition("::")[2] for test, measured in tests if measured.get("seconds", 0) >= 0.05}
    assert slow >= {"test_with_a_shared_fixture", "test_with_a_shared_fixture_again"}


def test_a_test_that_waits_has_little_processor_time(project: Path) -> None:
    """What a busy machine adds to the clock is waiting, too."""
    run(project)
    (cached,) = (project / ".mutants").iterdir()
    tests = json.loads(cached.read_text())["tests"]
    for name in ("with_a_shared_fixture", "with_a_shared_fixture_again"):  # They sleep for 0.05 seconds.
        measured = tests[f"tests/test_words.py::test_{name}"]
        assert 0 < measured["processor_seconds"] <= measured["seconds"] - 0.045


def test_importers_of_a_module_are_found_through_the_package_that_exports_its_names(tmp_path: Path) -> None:
    sources = {
        "exporter/config/__init__.py": "from exporter.config.schema import Config",
        "exporter/config/schema.py": "",
        "exporter/sync.py": "from exporter.config import Config",
        "exporter/web.py": "import exporter.sync",
        "exporter/logs.py": "import logging",
    }
    for file, source in sources.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(source)
    assert importers(tmp_path, "exporter/config/schema.py") == {"exporter/config/__init__.py", "exporter/sync.py"}
    assert importers(tmp_path, "exporter/sync.py") == {"exporter/web.py"}


def test_code_of_methods_properties_and_decorated_functions_is_swapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.mutants.swap import swap

    (tmp_path / "swappable.py").write_text(SWAPPABLE)
    monkeypatch.syspath_prepend(tmp_path)
    import swappable  # type: ignore[import-not-found]

    made = swappable.Counter()
    swap("swappable", SWAPPABLE.replace("return 1", "return 2"))
    with made.context() as in_context:
        assert (made.method(), made.value, made.cached, swappable.Counter.of_class(), swappable.function()) == (2,) * 5
        assert in_context() == 2
    swap("swappable", SWAPPABLE.replace("super().__init__(start=start)", "pass"))
    assert "start" not in swappable.More(start=3), "what it closes over may be unused"
    with pytest.raises(LookupError):
        swap("swappable", SWAPPABLE + "x = 1\n")


SWAPPABLE = """\
import contextlib
import functools


class Counter:
    def method(self):
        return 1

    @property
    def value(self):
        return 1

    @functools.cached_property
    def cached(self):
        return 1

    @classmethod
    def of_class(cls):
        return 1

    @contextlib.contextmanager
    def context(self):
        def inner():
            return 1

        yield inner


class More(dict):
    def __init__(self, start):
        super().__init__(start=start)


@functools.cache
def function():
    return 1
"""


def test_tests_of_the_own_package_come_first_and_the_fastest_of_them_before_the_others() -> None:
    seconds = {"tests/web/test_a.py::a": 0.1, "tests/runs/test_b.py::b": 3.0, "tests/runs/test_b.py::c": 2.0}
    assert stages(seconds, LineMap(processor_seconds=seconds), "runs", 240.0) == [
        ["tests/runs/test_b.py::c", "tests/runs/test_b.py::b"],
        ["tests/web/test_a.py::a"],
    ]


def test_tests_that_take_long_come_last_and_none_is_left_out() -> None:
    seconds = {"tests/runs/a": 20.0, "tests/runs/b": 20.5, "tests/web/c": 31.0, "tests/web/d": 1.0}
    assert stages(seconds, LineMap(processor_seconds=seconds), "runs", 240.0) == [
        ["tests/runs/a"],
        ["tests/web/d"],
        ["tests/runs/b", "tests/web/c"],
    ]


@pytest.mark.parametrize(
    ("most", "left"), [(75.0, ["b", "c"]), (72.0, ["b"]), (41.4, []), (20.9, []), (0.0, [])], ids=str
)
def test_the_tests_of_a_mutant_take_no_more_than_their_time_and_the_slowest_are_left_out(
    most: float, left: list[str]
) -> None:
    seconds = {"tests/runs/a": 20.0, "tests/runs/b": 20.5, "tests/web/c": 31.0, "tests/web/d": 1.0}
    chosen = stages(seconds, LineMap(processor_seconds=seconds), "runs", most)
    assert sum(seconds[test] for stage in chosen for test in stage) <= most
    assert [test[-1] for stage in chosen[2:] for test in stage] == left


def test_what_a_busy_machine_adds_to_a_test_changes_no_order_but_its_time_limit() -> None:
    took = LineMap(seconds={"a": 300.0, "b": 400.0}, processor_seconds={"a": 2.0, "b": 1.0})
    assert stages(["a", "b"], took, "runs", 240.0) == [["b", "a"]]
    assert seconds_for(took.seconds, "a") > 300
