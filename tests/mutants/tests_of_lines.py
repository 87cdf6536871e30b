"""Which tests run which lines of the exporter, and how long each takes: measured once, cached in `.mutants/`."""

import ast
import functools
import hashlib
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Generator, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.mutants.children import Job, run_all

SECONDS_PER_TEST = 300.0

IMPORTS = ""
"""Stands for a test in what is measured: the lines that run while tests are imported."""


@dataclass(frozen=True)
class Taken:
    """How long something took."""

    seconds: float
    processor_seconds: float
    """Of this process, all threads: those that others use on a busy machine do not count."""

    def __add__(self, other: "Taken") -> "Taken":
        return Taken(self.seconds + other.seconds, self.processor_seconds + other.processor_seconds)

    def __sub__(self, other: "Taken") -> "Taken":
        return Taken(self.seconds - other.seconds, self.processor_seconds - other.processor_seconds)


def now() -> Taken:
    """Return the readings of both clocks, of which only differences mean something."""
    return Taken(time.perf_counter(), time.process_time())


@dataclass
class LineMap:
    """The tests of each line of each module, and how long each test takes."""

    seconds: dict[str, float] = field(default_factory=dict)
    """How long each test took, with what the machine did beside it: for time limits."""
    processor_seconds: dict[str, float] = field(default_factory=dict)
    """The processor time of each test, the same on a busy machine: for the selection of tests."""
    tests: dict[str, dict[int, set[str]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(set)))
    importing: dict[str, dict[int, set[str]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(set)))
    """The files of tests whose import runs a line of a module."""

    def add(self, tests_file: str, measured: dict[str, Any]) -> None:
        for file, lines in measured.get(IMPORTS, {"lines": {}})["lines"].items():
            for line in lines:
                self.importing[file][line].add(tests_file)
        for test, of_test in measured.items():
            if test == IMPORTS:
                continue
            self.seconds[test] = of_test["seconds"]
            self.processor_seconds[test] = of_test["processor_seconds"]
            for file, lines in of_test["lines"].items():
                for line in lines:
                    self.tests[file][line].add(test)

    def of_lines(self, file: str, lines: Iterable[int]) -> set[str]:
        """Return the tests that run at least one of these lines."""
        return set().union(*(self.tests[file].get(line, ()) for line in lines))

    def at_import(self, file: str, lines: Iterable[int]) -> set[str]:
        """Return the files of tests whose import runs at least one of these lines."""
        return set().union(*(self.importing[file].get(line, ()) for line in lines))

    def of_files(self, files: Collection[str]) -> set[str]:
        """Return the tests of these files."""
        return {test for test in self.seconds if test.partition("::")[0] in files}

    def of_modules(self, files: Iterable[str]) -> set[str]:
        """Return the tests that run a line of these modules, other than by importing them."""
        return set().union(*(self.of_lines(file, self.tests[file]) for file in list(files)))


def importers(root: Path, file: str) -> set[str]:
    """Return the modules of the exporter that import a module, by themselves or through a package's `__init__`."""
    found: set[str] = set()
    packages = [file]
    while packages:
        name = module_name(packages.pop())
        new = {each for each, imported in imports(root).items() if name in imported} - found
        found |= new
        packages += [each for each in new if each.endswith("/__init__.py")]
    return found


@functools.cache
def imports(root: Path) -> dict[str, set[str]]:
    """Return the names of the modules that each module of the exporter imports."""
    found: dict[str, set[str]] = {}
    for path in (root / "exporter").rglob("*.py"):
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        found[str(path.relative_to(root))] = names
    return found


def module_name(file: str) -> str:
    return ".".join(Path(file).with_suffix("").parts).removesuffix(".__init__")


def measured_map(root: Path, workers: int, say: Callable[[str], None]) -> LineMap:
    """Measure the test files that changed since the last time, or all of them if the exporter did."""
    measurement = Path(__file__)
    key = f"{digest(measurement.parent, [measurement])} {digest(root, sources(root))}"
    files = sorted(path for path in (root / "tests").rglob("test_*.py") if "mutants" not in path.parts)
    keys = {str(path.relative_to(root)): f"{key} {digest(root, [path])}" for path in files}
    measured = {file: read_cached(root, file, keys[file]) for file in keys}
    stale = [file for file, tests in measured.items() if tests is None]
    if stale:
        say(f"Measuring which lines the tests of {len(stale)} files run")
    jobs = [Job(file, functools.partial(measure, root, file), lambda _: SECONDS_PER_TEST) for file in stale]
    for ended in run_all(jobs, workers):
        file, result = ended.job.name, ended.folder / "tests.json"
        if ended.code is None or not result.exists():
            raise SystemExit(f"{file}: cannot be measured ({ended.step})\n{ended.output}")
        tests, failed = json.loads(result.read_text())
        measured[file] = tests
        if failed:
            say(f"Leaving out tests that fail without a mutation: {', '.join(failed)}")
        else:
            write_cached(root, file, keys[file], tests)
    line_map = LineMap()
    for file, tests in measured.items():
        line_map.add(file, tests or {})
    return line_map


def read_cached(root: Path, file: str, key: str) -> dict[str, Any] | None:
    path = cached_path(root, file)
    entry = json.loads(path.read_text()) if path.exists() else {"key": None}
    return entry["tests"] if entry["key"] == key else None


def write_cached(root: Path, file: str, key: str, tests: dict[str, Any]) -> None:
    path = cached_path(root, file)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"key": key, "tests": tests}))


def cached_path(root: Path, file: str) -> Path:
    return root / ".mutants" / f"{file.replace('/', '.')}.json"


def sources(root: Path) -> list[Path]:
    """List what every test depends on: the exporter, and all that is not a test in `tests/`."""
    files = [path for path in (root / "exporter").rglob("*") if path.is_file()]
    support = [path for path in (root / "tests").rglob("*") if path.is_file() and not path.name.startswith("test_")]
    return [path for path in sorted([*files, *support]) if path.suffix != ".pyc" and "mutants" not in path.parts]


def digest(root: Path, files: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for path in files:
        total.update(f"{path.relative_to(root)}\n".encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def measure(root: Path, file: str, report: Callable[[str], None], folder: Path) -> int:
    """Run one file of tests in this process and write what each of them runs."""
    os.environ["COVERAGE_CORE"] = "ctrace"  # sys.monitoring has no contexts
    import coverage

    lines = coverage.Coverage(data_file=None, config_file=False, source=[str(root / "exporter")])
    plugin = Measurement(lines, report)
    lines.start()
    code = run_pytest(root, folder, [file, "-m", "not programs and not servers and not slow"], plugin)
    lines.stop()
    if code not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED}:
        return code
    tests: dict[str, Any] = {
        test: {**asdict(taken), "lines": defaultdict(list)}
        for test, taken in plugin.taken_alone().items()
        if test not in plugin.failed | plugin.start_programs
    }
    tests[IMPORTS] = {"lines": defaultdict(list)}
    data = lines.get_data()
    for path in data.measured_files():
        for line, contexts in data.contexts_by_lineno(path).items():
            for test in {test for context in contexts for test in plugin.tests_in(context)} & tests.keys():
                tests[test]["lines"][str(Path(path).relative_to(root))].append(line)
    (folder / "tests.json").write_text(json.dumps([tests, sorted(plugin.failed)]))
    return 0


class Measurement:
    """Names each test to coverage, takes its time, and notes which tests start a program.

    A program imports the exporter from its files, so that no mutation reaches it.
    """

    def __init__(self, lines: Any, report: Callable[[str], None]) -> None:
        self._lines = lines
        self._report = report
        self._test = IMPORTS
        self._users: dict[str, list[str]] = defaultdict(list)
        self._shared: dict[str, tuple[str, Taken]] = {}
        """By the context of a fixture that tests share: the test that set it up, and how long that took."""
        self._taken: dict[str, Taken] = {}
        self.failed: set[str] = set()
        self.start_programs: set[str] = set()
        start: Any = subprocess.Popen.__init__

        @functools.wraps(start)
        def noted(popen: Any, *arguments: Any, **keywords: Any) -> None:
            self.start_programs.update(self.tests_in(self._test))
            start(popen, *arguments, **keywords)

        setattr(subprocess.Popen, "__init__", noted)  # noqa: B010 - mypy refuses the assignment

    def tests_in(self, context: str) -> list[str]:
        """Return the tests of a context: one test, or all that use a fixture which is set up once for them."""
        return self._users.get(context, [context])

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            for fixture in getattr(item, "fixturenames", ()):
                self._users[f"fixture {fixture}"].append(item.nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        clear_caches()
        self._report(item.nodeid)
        self._switch(item.nodeid)
        began = now()
        try:
            return (yield)
        finally:
            self._taken[item.nodeid] = now() - began
            self._switch(IMPORTS)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, Any, Any]:
        if fixturedef.scope == "function":
            return (yield)
        outer, context, began = self._test, f"fixture {fixturedef.argname}", now()
        self._switch(context)
        try:
            return (yield)
        finally:
            self._switch(outer)
            self._shared[context] = outer, now() - began

    def taken_alone(self) -> dict[str, Taken]:
        """Return how long each test takes if no other has set up what it uses."""
        alone = dict(self._taken)
        for context, (first, taken) in self._shared.items():
            for test in set(self._users[context]) & alone.keys() - {first}:
                alone[test] += taken
        return {test: Taken(round(each.seconds, 4), round(each.processor_seconds, 4)) for test, each in alone.items()}

    def _switch(self, context: str) -> None:
        self._test = context
        self._lines.switch_context(context)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)


def clear_caches() -> None:
    """Clear the caches of functions: otherwise only the first test of a file runs the lines of what is cached."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in {"exporter", "tests"}:
            for value in list(vars(module).values()):
                if callable(clear := getattr(value, "cache_clear", None)):
                    clear()


def run_pytest(root: Path, folder: Path, arguments: Iterable[str], plugin: object) -> int:
    """Run tests in this process: the same random values each time, and no file outside of `folder`."""
    from hypothesis.configuration import set_hypothesis_home_dir

    set_hypothesis_home_dir(folder / "hypothesis")
    os.chdir(root)
    options = ["-q", "--no-header", "-p", "no:cacheprovider", "--hypothesis-seed=0", f"--basetemp={folder / 'pytest'}"]
    # The parent imported the libraries before pytest could rewrite their assertions.
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    return int(pytest.main([*options, *arguments], plugins=[plugin]))
