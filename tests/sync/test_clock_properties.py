"""Nothing is forgotten that the next read may ask for: outages, steps of either clock, restarts, partial failures."""

import asyncio
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.config import Config, Duration, LimitsConfig, SyncConfig
from exporter.service import Exporter
from exporter.service.monitored_runtime import Dependencies
from tests.builders import RUNTIME, Clock, runtime_config
from tests.scripted import ScriptedRuntime, no_sleep, rfc3339

HOUR = 3600.0

STEPS = st.sampled_from((-30 * 24 * HOUR, -8 * HOUR, -HOUR, -200.0, -60.0, 60.0, 200.0, HOUR, 8 * HOUR))
"""Seconds by which a clock is set."""

EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.sampled_from((15.0, 60.0, 600.0, HOUR, 7 * HOUR))),
        st.tuples(st.just("set the runtime's clock"), STEPS),
        st.tuples(st.just("set our clock"), STEPS),
        st.tuples(st.just("fail"), st.sampled_from(("/api/v1", "/p1/jobs", "/p2/jobs", "/v1/jobs", "second page"))),
        st.tuples(st.just("recover"), st.just(0)),
        st.tuples(st.just("date one response wrongly"), STEPS),
        st.tuples(st.just("restart"), st.just(0)),
    ),
    max_size=14,
)


FORGETFUL = 4
"""A limit on tombstones with which runs are forgotten all the time."""


class World:
    """A runtime of two projects that counts what happens in it, and an exporter that reads it."""

    def __init__(self, folder: Path, limit: int, *, lists_all_projects: bool) -> None:
        self.runtime = ScriptedRuntime(Clock())
        self.runtime.lists_all_projects = lists_all_projects
        self.runtime.projects = {"p1": "Sales", "p2": "Service"}
        self.runtime.page_size = 3
        self.runtime.interfere = self._interfere
        self.wall, self.monotonic = Clock(), Clock(1000.0)
        self.folder, self.limit = folder, limit
        self.started: Counter[str] = Counter()
        self.finished: Counter[str] = Counter()
        self.number = 0
        self.open: list[str] = []
        self.fails, self.is_set = "", False
        self.wrong_by = 0.0
        self.exporter = self.made()

    def made(self) -> Exporter:
        config = Config(
            runtime=runtime_config(),
            sync=SyncConfig(min_interval=Duration(0), stale_after=Duration(1e9)),
            limits=LimitsConfig(runs=self.limit),
        )
        transport = self.runtime.transport()
        return Exporter(
            {RUNTIME: config}, Dependencies(self.wall, self.monotonic, transport, no_sleep), storage=self.folder
        )

    def _interfere(self, request: httpx.Request) -> httpx.Response | None:
        is_second_page = self.fails == "second page" and "cursor" in request.url.params
        if is_second_page or (self.fails and self.fails in request.url.path):
            return httpx.Response(500)
        if self.wrong_by and request.url.path.endswith("/jobs"):
            wrong_by, self.wrong_by = self.wrong_by, 0.0
            self.runtime.interfere = lambda request: None
            right = self.runtime._answer(request)
            self.runtime.interfere = self._interfere
            if right.content:
                body = {**right.json(), "asOf": rfc3339(self.runtime.clock() + wrong_by)}
                return httpx.Response(200, json=body, headers={"Date": right.headers["Date"]})
        return None

    def work(self) -> None:
        """In each project a run starts, one that started before ends, and one starts and ends."""
        now = self.runtime.clock()
        for run in self.open:
            job = self.runtime.jobs[run]
            self.runtime.put(run, projectId=job["projectId"], status="completed", endedAt=now)
            self.finished[job["projectId"]] += 1
        self.open = []
        for project in self.runtime.projects:
            self.number += 1
            times: dict[str, Any] = {"projectId": project, "createdAt": now, "startedAt": now}
            self.runtime.put(f"open-{self.number}", **times)
            self.open.append(f"open-{self.number}")
            self.runtime.put(f"short-{self.number}", **times, status="completed", endedAt=now)
            self.started[project] += 2
            self.finished[project] += 1

    def may_set(self) -> bool:
        """Whether a clock may be set: once while a list cannot be read.

        What happens between two steps has times that no clock explains afterwards: docs/reliability.md, "Limitations".
        """
        before, self.is_set = self.is_set, True
        return not self.fails or not before

    async def scrape(self) -> None:
        await self.exporter.page(max_wait=30)

    async def play(self, events: list[tuple[str, Any]]) -> None:
        for event, value in events:
            match event:
                case "pass":
                    self.advance(value)
                case "set the runtime's clock":
                    if self.may_set():
                        self.runtime.clock.advance(value)
                case "set our clock":
                    if self.may_set():
                        self.wall.advance(value)
                case "fail":
                    self.fails, self.is_set = value, False
                case "recover":
                    self.fails = ""
                case "date one response wrongly":
                    self.wrong_by = value
                case "restart":
                    await self.exporter.close()
                    self.monotonic = Clock(self.monotonic() + 12_345)
                    self.exporter = self.made()
            self.advance(15)
            self.work()
            self.advance(1)
            await self.scrape()

    def advance(self, seconds: float) -> None:
        for clock in (self.runtime.clock, self.wall, self.monotonic):
            clock.advance(seconds)


async def lives(events: list[tuple[str, Any]], limit: int, *, lists_all_projects: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), limit, lists_all_projects=lists_all_projects)
        # What happens before the first read is history.
        for _ in range(3):
            await world.play([("pass", 15.0)])
        await world.play(events)
        world.fails = ""
        for _ in range(4):
            world.advance(130)
            await world.scrape()
        shown = {}
        for name, project in world.runtime.projects.items():
            spinners = world.exporter.runtimes[RUNTIME].store.view.spinners()
            counters = [each.counters for each in spinners if each.project == project]
            ended = sum(sum(each.finished.values()) for each in counters)
            shown[name] = [sum(each.started for each in counters), ended]
        await world.exporter.close()
        assert shown == {name: [world.started[name], world.finished[name]] for name in world.runtime.projects}


@pytest.mark.parametrize(("lists_all_projects", "first_reads_alone"), [(False, 10), (True, 10), (True, 0)])
def test_each_run_is_counted_once_whatever_the_clocks_do(lists_all_projects: bool, first_reads_alone: int) -> None:
    @settings(max_examples=40, derandomize=True)
    @given(EVENTS, st.sampled_from((FORGETFUL, 1000)))
    def check(events: list[tuple[str, Any]], limit: int) -> None:
        counted_once(lists_all_projects, first_reads_alone, events, limit)

    check()


def counted_once(lists_all_projects: bool, first_reads_alone: int, events: list[tuple[str, Any]], limit: int) -> None:
    if limit == FORGETFUL:
        # What was forgotten cannot be told from what is new at the times to which the runtime's clock is set back.
        events = [each for each in events if each[0] != "set the runtime's clock" or each[1] > 0]
    with (
        mock.patch("exporter.runs.limits.MIN_TOMBSTONES", limit),
        mock.patch("exporter.sync.common_sync.FEW", first_reads_alone),
        structlog.testing.capture_logs(),
    ):
        asyncio.run(lives(events, limit, lists_all_projects=lists_all_projects))
