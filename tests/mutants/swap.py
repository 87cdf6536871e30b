"""Runs the tests of mutated functions in forks of a process that has collected all tests: each only swaps their code.

Importing the exporter and collecting tests takes seconds, most tests milliseconds. What runs while modules are imported
cannot be mutated like this: see `trial`.
"""

import builtins
import functools
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

from tests.mutants.children import Job
from tests.mutants.trial import NEVER_RAISED, Selection, limit_memory, seconds_for


class Collected:
    """Collects tests and calls `then` instead of running them, with the collected ones by their ids."""

    def __init__(self, then: Callable[[Mapping[str, pytest.Item]], None]) -> None:
        self._then = then

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        capture = session.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():
            self._then({item.nodeid: item for item in session.items})
        return True


@dataclass(frozen=True)
class SwapTrial:
    """Tests, and the module whose functions get the code of another source; without one they run as they are."""

    items: Sequence[pytest.Item]
    module: str = ""
    source: str = ""

    def job(self, seconds: Mapping[str, float]) -> Job:
        return Job(self.module, functools.partial(run, self), functools.partial(seconds_for, seconds))


def run(trial: SwapTrial, report: Callable[[str], None], folder: Path) -> int:
    """Run tests in this process until one fails."""
    from hypothesis.configuration import set_hypothesis_home_dir

    limit_memory()
    set_hypothesis_home_dir(folder / "hypothesis")
    setattr(builtins, NEVER_RAISED, type(NEVER_RAISED, (Exception,), {}))
    if trial.module:
        swap(trial.module, trial.source)
    config = trial.items[0].config
    # Otherwise all processes would use the same folder for temporary files.
    config._tmp_path_factory._given_basetemp = folder / "pytest"  # type: ignore[attr-defined]
    # It would print the progress of every process.
    config.pluginmanager.unregister(name="terminalreporter")
    tests = Selection([item.nodeid for item in trial.items], report)
    config.pluginmanager.register(tests)
    for item, following in zip(trial.items, [*trial.items[1:], None], strict=True):
        config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if tests.failed:
            return int(pytest.ExitCode.TESTS_FAILED)
    return 0


def swap(name: str, source: str) -> None:
    """Give the functions of a module the code of another source. Raises `LookupError` if it changes none."""
    module = importlib.import_module(name)
    path = str(module.__file__)
    before, after = (codes(compile(each, path, "exec", dont_inherit=True)) for each in (Path(path).read_text(), source))
    swapped = False
    for function in functions(vars(module).values(), name, set()):
        code = after.get(function.__qualname__)
        if code is not None and code != before.get(function.__qualname__):
            # It keeps what it closes over, such as the class that `super()` needs, though it may not use it now.
            function.__code__ = code.replace(co_freevars=function.__code__.co_freevars)
            swapped = True
    if not swapped:
        raise LookupError(f"{name}: no function has another code")


def codes(code: CodeType) -> dict[str, CodeType]:
    """Return the code of every function below a module's, by its qualified name."""
    found: dict[str, CodeType] = {}
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            found |= {inner.co_qualname: inner, **codes(inner)}
    return found


def functions(values: Any, module: str, seen: set[int]) -> Iterator[FunctionType]:
    """Yield the functions that a module defines: its own, and those of its classes, without their decorators."""
    for value in values:
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, property):
            yield from functions([value.fget, value.fset], module, seen)
        elif isinstance(value, classmethod | staticmethod):
            yield from functions([value.__func__], module, seen)
        elif isinstance(value, functools.cached_property):
            yield from functions([value.func], module, seen)
        elif hasattr(value, "__wrapped__"):
            yield from functions([value.__wrapped__], module, seen)
        elif isinstance(value, type) and value.__module__ == module:
            yield from functions(list(vars(value).values()), module, seen)
        elif isinstance(value, FunctionType) and value.__module__ == module:
            yield value
