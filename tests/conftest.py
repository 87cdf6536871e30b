"""Settings of every test."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
import trustme
from hypothesis import settings

from exporter.config import ENVIRONMENT_PREFIX
from tests.marks import MARKS
from tests.stack import programs

# A deadline on each example measures how busy the machine is, not the code.
settings.register_profile("default", deadline=None)
settings.load_profile("default")

CALLERS_VARIABLES = {
    *("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("COLUMNS", "FORCE_COLOR", "NO_COLOR"),
    *("MAKEFILES", "MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS"),
}
"""Environment variables, in upper case, that are removed before the first test."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """For `-m real_time`, import only files with such tests: each worker takes seconds for the thousands of others."""
    if config.getoption("markexpr") != "real_time" or not collection_path.name.startswith("test_"):
        return None
    name = str(collection_path.relative_to(config.rootpath))
    return None if any(prefix.startswith(name) for prefix in MARKS["real_time"]) else True


def pytest_collection_finish() -> None:
    """Leave the objects of thousands of collected tests out of garbage collection, which would search them again."""
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark, prefixes in MARKS.items():
            if item.nodeid.startswith(prefixes):
                item.add_marker(mark)


@pytest.fixture(scope="session", autouse=True)
def few_authorities(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Trust one authority instead of the system's hundred, which takes 18 ms for each exporter and HTTP client."""
    file = tmp_path_factory.mktemp("authorities") / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(file))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(file))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_settings_of_the_caller() -> Iterator[None]:
    """Remove what commands in this process and programs would obey: the tests say what they are given.

    An exporter's settings, a proxy, colors and the width of a terminal, and the flags of the make that runs the tests.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(ENVIRONMENT_PREFIX) or name.upper() in CALLERS_VARIABLES:
                patch.delenv(name)
        yield


@pytest.fixture(autouse=True)
def logs_are_configured_as_before() -> Iterator[None]:
    """A command that runs in a test configures the logs of the whole process: later tests would see no line."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture(scope="session", autouse=True)
def programs_in_go_use_one_thread() -> Iterator[None]:
    """Let programs in Go, such as Prometheus, use one thread and more memory: they take a quarter less processor time.

    Their collector would start whenever little has been allocated, with several threads that look for work.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOMAXPROCS", "1")
        patch.setenv("GOGC", "400")
        yield


def pytest_runtest_setup(item: pytest.Item) -> None:
    programs.allowed = {mark for mark in MARKS if item.get_closest_marker(mark)}


@pytest.fixture(params=[False, True], ids=["one list per project", "one list of all projects"])
def each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run a test with scripted runtimes without and with a list of all projects, which is read for any number of them.

    Returns whether they have it.
    """
    monkeypatch.setattr("tests.scripted.ScriptedRuntime.lists_all_projects", request.param)
    if request.param:
        monkeypatch.setattr("exporter.sync.common_sync.LEAST_PROJECTS", 1)
        monkeypatch.setattr("exporter.sync.common_sync.FEW", 0)
        # It reads a project's own list as well.
        monkeypatch.setattr("exporter.sync.common_sync.CommonSync.to_check", lambda self, reads: [])
    return bool(request.param)
