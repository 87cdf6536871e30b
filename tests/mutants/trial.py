"""Runs the tests of a mutant, in a process where its module has the mutated source."""

import builtins
import functools
import importlib
import itertools
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

import pytest

from tests.mutants.children import CRASH, Ended, Job
from tests.mutants.tests_of_lines import LineMap, run_pytest

RUNNER_ERRORS = {pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED, CRASH, -signal.SIGKILL}
"""Exit codes that say nothing about the mutant. SIGKILL comes from outside, where memory is short."""

IMPORTING = "import"
"""The step in which the mutated module is imported."""

COLLECTING = "collection"
"""The step in which pytest imports the tests."""

NEVER_RAISED = "NeverRaised"
"""The exception that mutated `except` clauses name."""

SECONDS_PER_STAGE = 30.0
"""How much processor time the tests of each of the first stages take together."""

COLLECTION = 300
"""Seconds in which pytest has to import the tests."""

MEMORY = 4 << 30
"""Bytes of address space for the tests of a mutant that allocates without end."""


@dataclass(frozen=True)
class Trial:
    """A mutated module and the tests that may see the difference."""

    root: Path
    module: str
    file: str
    source: str
    stages: Sequence[Sequence[str]]
    """Ids of tests. The tests of a stage run after those of the last one have passed."""

    def job(self, seconds: Mapping[str, float]) -> Job:
        return Job(self.module, functools.partial(run, self), functools.partial(seconds_for, seconds))


def seconds_for(seconds: Mapping[str, float], step: str) -> float:
    """Return how long a step may take; `seconds` is how long each test takes without a mutation."""
    return 60 + 10 * seconds[step] if step in seconds else COLLECTION


def outcome(ended: Ended) -> str:
    """Say what became of a mutant."""
    if ended.code in RUNNER_ERRORS:
        return "error"
    return {None: "timeout", 0: "survived"}.get(ended.code, "killed")


def stages(tests: Iterable[str], line_map: LineMap, package: str, most: float) -> list[list[str]]:
    """Order tests: those in the package's own folder come first, since they find most; in each stage the fastest.

    The first two stages have tests that take at most `SECONDS_PER_STAGE` together, and the last one the fastest of the
    others, so that all take at most `most` seconds. Processor time: by the clock, the order and the selection would
    depend on what else the machine does.
    """
    seconds = line_map.processor_seconds
    ordered = sorted(tests, key=lambda test: (seconds[test], test))
    own = [test for test in ordered if test.startswith(f"tests/{package}/")]
    first = within(min(SECONDS_PER_STAGE, most), own, seconds)
    taken = sum(seconds[test] for test in first)
    second = within(min(SECONDS_PER_STAGE, most - taken), without(own, ordered), seconds)
    taken += sum(seconds[test] for test in second)
    third = within(most - taken, without([*first, *second], ordered), seconds)
    return [stage for stage in (first, second, third) if stage]


def within(most: float, tests: Sequence[str], seconds: Mapping[str, float]) -> list[str]:
    """Return the first tests, as many as take `most` seconds together."""
    ends = itertools.accumulate(seconds[test] for test in tests)
    return [test for test, end in zip(tests, ends, strict=True) if end <= most]


def without(some: Iterable[str], tests: Iterable[str]) -> list[str]:
    """Return tests without some of them, in their order."""
    excluded = set(some)
    return [test for test in tests if test not in excluded]


def run(trial: Trial, report: Callable[[str], None], folder: Path) -> int:
    """Run the tests of a mutant in this process until one fails."""
    limit_memory()
    imported = trial.module.partition(".")[0]
    assert imported not in sys.modules, f"{imported} was imported before the mutation"
    sys.meta_path.insert(0, MutatedModule(trial.module, str(trial.root / trial.file), trial.source))
    setattr(builtins, NEVER_RAISED, type(NEVER_RAISED, (Exception,), {}))
    report(IMPORTING)
    try:
        importlib.import_module(trial.module)
    except Exception:  # noqa: BLE001 - whatever it is, every test would see it
        return pytest.ExitCode.TESTS_FAILED
    for stage in trial.stages:
        files = dict.fromkeys(test.partition("::")[0] for test in stage)
        report(COLLECTING)
        selection = Selection(stage, report)
        try:
            code = run_pytest(trial.root, folder, ["-x", *files], selection)
        except Warning:
            # Sockets and tasks of a failed test that are never closed are an error at the end of pytest.
            code = pytest.ExitCode.TESTS_FAILED
            if not selection.failed:
                raise
        if code:
            return code
    return 0


def limit_memory() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


class MutatedModule(SourceFileLoader):
    """Finds one module before every other finder does, and loads it from the mutated source."""

    def __init__(self, module: str, path: str, source: str) -> None:
        super().__init__(module, path)
        self._source = source

    def find_spec(self, name: str, path: object, target: ModuleType | None = None) -> ModuleSpec | None:
        return spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._source, self.path, "exec", dont_inherit=True)


class Selection:
    """Runs these tests only, in this order."""

    def __init__(self, tests: Sequence[str], report: Callable[[str], None]) -> None:
        self._rank = {test: rank for rank, test in enumerate(tests)}
        self._report = report
        self.failed = False

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self._rank), key=lambda item: self._rank[item.nodeid]
        )

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._report(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed |= report.failed
