"""What an exporter holds does not grow with the scrapes, however often the same things change."""

import functools
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, MappingProxyType, MethodType

import pytest

from exporter.config import LimitsConfig
from exporter.runs import limits
from tests.builders import Clock
from tests.scripted import ScriptedRuntime, exporter_of, rfc3339

CONTAINERS = (list, dict, set, frozenset, tuple, deque, MappingProxyType)


def sizes(root: object) -> Counter[str]:
    """Return how many items the containers have that an attribute refers to, directly or through others."""
    found, seen = Counter[str](), set[int]()
    rest: list[tuple[str, object]] = [("", root)]
    while rest:
        owner, each = rest.pop()
        if id(each) in seen or isinstance(each, str | bytes | int | float | type | None):
            continue
        seen.add(id(each))
        if isinstance(each, CONTAINERS):
            found[owner] += len(each)
            rest += ((owner, item) for item in each)
            if isinstance(each, dict | MappingProxyType):
                rest += ((owner, item) for item in each.values())
        elif isinstance(each, functools.partial):
            rest += ((owner, part) for part in (each.func, *each.args, *each.keywords.values()))
        elif isinstance(each, MethodType):
            rest.append((owner, each.__self__))
        elif isinstance(each, FunctionType):
            rest += ((owner, cell.cell_contents) for cell in each.__closure__ or ())
        elif type(each).__module__.startswith("exporter."):
            rest += ((f"{type(each).__name__}.{name}", value) for name, value in attributes(each))
    return found


def attributes(owner: object) -> Iterator[tuple[str, object]]:
    names = set(getattr(owner, "__dict__", ()))
    for kind in type(owner).__mro__:
        slots = getattr(kind, "__slots__", ())
        names.update((slots,) if isinstance(slots, str) else slots)
    names.update(getattr(owner, "__struct_fields__", ()))
    for name in names - {"__dict__", "__weakref__"}:
        if hasattr(owner, name):
            yield name, getattr(owner, name)


@pytest.mark.parametrize(("together", "has_short_runs"), [(False, False), (False, True), (True, False)])
async def test_nothing_grows_with_the_scrapes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: bool, has_short_runs: bool
) -> None:
    """A run that has ended is changed in each scrape, one makes progress, fails and waits, and one may be new."""
    monkeypatch.setattr(limits, "MIN_TOMBSTONES", 10)
    runtime = ScriptedRuntime(Clock())
    runtime.lists_all_projects = runtime.lists_all_runs = together
    runtime.projects = {f"p{number}": f"Project {number}" for number in range(1, 13)}
    for project in runtime.projects:
        runtime.put(f"silent-{project}", projectId=project)
    ended_at, retention = runtime.clock() - 20, 90.0 if has_short_runs else 7200.0
    exporter = exporter_of(
        runtime, storage=tmp_path, retention=retention, limits=LimitsConfig(runs=40), sync={"sweep_interval": 60.0}
    )

    async def scrape(number: int) -> None:
        now = runtime.clock()
        runtime.put("ended", status="completed", endedAt=ended_at)
        failed = {"total": 10_000, "completed": number, "failed": number, "waiting": 1, "running": 1}
        runtime.put("open", records=failed, failures=[{"step": "s", "errorCode": "E", "count": number}])
        records = [{"id": f"rec-{each}", "status": "failed", "endedAt": rfc3339(now)} for each in range(number)]
        runtime.failed_records["open"] = records[-10:]
        for listed in (runtime.records_in_flight, runtime.waiting_records):
            listed["open"] = [{"id": f"rec-{number}", "step": {"index": 1, "startedAt": now - 9}}]
        if has_short_runs:
            short = f"short-{number}"
            runtime.put(short, projectId="p2", status="failed", createdAt=now - 3, startedAt=now - 2, endedAt=now)
            runtime.jobs.pop(f"short-{number - 30}", None)
        runtime.put(f"strange-{number % 7}", projectId="p3", status=f"Strange {number % 7}")
        await exporter.page()
        await exporter.probe(next(iter(exporter.runtimes)), f"p{number % 3 + 1}")
        runtime.clock.advance(15)

    for number in range(40):
        await scrape(number)
    before = sizes(exporter)
    for number in range(40, 80):
        await scrape(number)
    after = sizes(exporter)
    await exporter.close()
    assert min(before["ProjectSync._cursors"], before["LineCache._projects"]) > 0, "not everything was found"
    grown = {name: (before[name], size) for name, size in after.items() if size > 1.2 * before[name] + 10}
    assert not grown
