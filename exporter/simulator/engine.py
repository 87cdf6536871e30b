"""Runs a scenario: its projects, spinners, runs, plan and incidents. `api` serves them over HTTP.

Every access first runs the events that are due (`catch_up`). So a snapshot is never older than its clock, and the
number of accesses does not change the result.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from exporter.simulator import scenario
from exporter.simulator.contacts import contacts
from exporter.simulator.durations import Count
from exporter.simulator.event_queue import EventQueue
from exporter.simulator.faults import Faults
from exporter.simulator.ledger import EndedRun, Ledger
from exporter.simulator.plan import Plan, PlanLimitError
from exporter.simulator.randomness import SeededRandom
from exporter.simulator.run import Project, Run, Spinner, Status
from exporter.simulator.run_index import RunIndex
from exporter.simulator.scenario import Scenario
from exporter.simulator.timeline import Timeline
from exporter.simulator.workers import Workers


class UnknownSpinnerError(LookupError):
    """There is no spinner with this id."""


@dataclasses.dataclass(frozen=True, slots=True)
class Heartbeat:
    """The state of the worker service as `/health` reports it."""

    up: bool
    last_at: float
    """Scenario time of the last heartbeat."""
    workers: int


class Engine:
    """Runs a scenario. The same scenario, seed and calls have the same result for every record."""

    def __init__(self, scenario: Scenario, *, seed: int = 1, timeline: Timeline) -> None:
        """Run the time before the scenario, then start the timeline."""
        self.scenario = scenario
        self._timeline = timeline
        self.cursor_key = str(seed).encode()  # rejects the cursors of an engine with another seed
        self._rng = SeededRandom(seed)
        self._events = EventQueue(-scenario.before)
        self._faults = Faults()
        self._contacts = contacts()
        self._run_index = RunIndex()
        self._ledger = Ledger()
        self._workers = Workers(
            scenario.runtime,
            events=self._events,
            rng=self._rng,
            faults=self._faults,
            contacts=self._contacts,
            changed=self._run_changed,
        )
        self._projects: dict[str, Project] = {}
        self._spinners: dict[str, Spinner] = {}
        self._runs_created = 0
        self._heartbeats_started_at = -float(scenario.before)
        self._heartbeats_stopped_at: float | None = None
        self._reported_up_until = -math.inf
        self._started = False

        for project in scenario.projects:
            self._publish(project)
        self._schedule_repeated_runs()
        self._run_until(0.0)
        # The plan counts from here on: the scenario says what was used before.
        self._zero = timeline.start()
        self._plan = Plan(scenario.plan, spinners=len(self._spinners), wall=self._zero)
        self._started = True
        self._schedule_month()
        self._schedule_scenario()

    async def run(self) -> None:
        """Keep up with the timeline until cancelled."""
        while True:
            self.catch_up()
            await self._timeline.sleep_until(self._events.next_due)

    def catch_up(self) -> float:
        """Run all events until the timeline's current time; return that scenario time."""
        self._run_until(self._timeline.now())
        return self._events.now

    def wall_ms(self, moment: float) -> int:
        """Return the wall-clock time of a scenario time, in epoch milliseconds, rounded down."""
        return math.floor((self._zero + moment / self._timeline.speed) * 1000)

    def now_ms(self) -> int:
        """Catch up and return the wall-clock time, in epoch milliseconds."""
        return self.wall_ms(self.catch_up())

    @property
    def jobs(self) -> Mapping[str, Run]:
        """The runs that the API returns, by id, in order of creation."""
        self.catch_up()
        return self._run_index.runs

    @property
    def ledger(self) -> Mapping[str, EndedRun]:
        """The results of all ended runs by id, in order of their end, also of runs that the API no longer returns."""
        self.catch_up()
        return self._ledger.runs

    @property
    def projects(self) -> Mapping[str, Project]:
        """All projects by id."""
        return MappingProxyType(self._projects)

    @property
    def spinners(self) -> Mapping[str, Spinner]:
        """All spinners by id."""
        return MappingProxyType(self._spinners)

    @property
    def run_index(self) -> RunIndex:
        """The runs that the API returns, in the orders of its lists."""
        self.catch_up()
        return self._run_index

    @property
    def plan(self) -> Plan:
        """The plan and the current state of its meters."""
        self.catch_up()
        return self._plan

    @property
    def heartbeat(self) -> Heartbeat:
        """The state of the worker service as `/health` reports it; an outage can be reported late."""
        now = self.catch_up()
        until = now if self._heartbeats_stopped_at is None else self._heartbeats_stopped_at
        interval = self.scenario.runtime.heartbeat
        count = math.floor((until - self._heartbeats_started_at) / interval)
        up = self._workers.up or now < self._reported_up_until
        workers = self.scenario.runtime.workers if up else 0
        return Heartbeat(up, self._heartbeats_started_at + count * interval, workers)

    def trigger(self, spinner_id: str, trigger: str = "manual") -> str:
        """Create a run now and return its id. Raises `UnknownSpinnerError` or `PlanLimitError`."""
        self.catch_up()
        spinner = self._spinners.get(spinner_id)
        if spinner is None:
            raise UnknownSpinnerError(f"no spinner has the id {spinner_id!r}")
        return self._create_run(spinner, trigger, self._draw_contacts(spinner)).id

    def take_runtime_down(self) -> None:
        """Stop the worker service while the API stays up. No effect if it is already down."""
        self.catch_up()
        self._take_down()

    def bring_runtime_up(self) -> None:
        """Start the worker service again. No effect if it is up."""
        self.catch_up()
        self._bring_up()

    def _publish(self, spec: scenario.Project) -> None:
        """Create a project, or its copies, with their spinners."""
        for copy in range(1, spec.copies + 1):
            name = spec.name.replace("{n}", str(copy)) if spec.copies > 1 else spec.name
            project = Project(spec.id or self._rng.name("prj", name), name, spec.labels or self.scenario.labels)
            self._projects[project.id] = project
            self._run_index.add_project(project.id)
            for spinner_spec in spec.spinners:
                spinner_id = spinner_spec.id or self._rng.name("spn", project.id, spinner_spec.name)
                self._spinners[spinner_id] = Spinner(spinner_id, project, spinner_spec)

    def _schedule_repeated_runs(self) -> None:
        for spinner in self._spinners.values():
            for index, start in enumerate(spinner.spec.runs):
                every, offset = start.every, start.offset
                if every is not None:
                    drawn = every * self._rng.draws(spinner.id, "schedule", index).first
                    first = drawn if offset is None else float(offset)
                    number = math.ceil((self._events.now - first) / every)
                    self._repeat(spinner, start, first, every, number)

    def _repeat(self, spinner: Spinner, start: scenario.Start, first: float, every: float, number: int) -> None:
        """Schedule a run that schedules the next one. Times are computed from the first, to avoid rounding errors."""

        def create_and_repeat() -> None:
            self._start_run(spinner, start)
            self._repeat(spinner, start, first, every, number + 1)

        self._events.schedule(first + number * every, create_and_repeat)

    def _schedule_month(self) -> None:
        self._events.schedule((self._plan.resets_at - self._zero) * self._timeline.speed, self._reset_plan)

    def _schedule_scenario(self) -> None:
        for spinner in self._spinners.values():
            for start in spinner.spec.runs:
                if start.at is not None:
                    self._events.schedule(start.at, self._start_run, spinner, start)
        for incident in self.scenario.incidents:
            self._events.schedule(incident.at, self._start_incident, incident)

    def _run_until(self, end: float) -> None:
        self._events.run_until(end)
        self._run_index.remove_ended_before(self._events.now - self.scenario.history)

    def _start_run(self, spinner: Spinner, start: scenario.Start) -> None:
        self._create_unless_refused(spinner, start.trigger, self._draw_contacts(spinner, start.records))

    def _retry(self, parent: Run) -> None:
        self._create_unless_refused(parent.spinner, "child", parent.retryable, parent)

    def _create_unless_refused(
        self, spinner: Spinner, trigger: str, rows: tuple[int, ...], parent: Run | None = None
    ) -> None:
        with contextlib.suppress(PlanLimitError):
            self._create_run(spinner, trigger, rows, parent)

    def _draw_contacts(self, spinner: Spinner, count: Count | None = None) -> tuple[int, ...]:
        """Choose the rows of the table for a spinner's next run: consecutive rows from a random one on."""
        draws = self._rng.draws(spinner.id, "run", spinner.runs_created)
        rows = len(self._contacts)
        first = int(draws.first * rows)
        return tuple((first + index) % rows for index in range((count or spinner.spec.records).at(draws.second)))

    def _create_run(self, spinner: Spinner, trigger: str, rows: tuple[int, ...], parent: Run | None = None) -> Run:
        if self._started:
            self._plan.book(len(rows))
        spinner.runs_created += 1
        self._runs_created += 1
        run = Run(
            # Numbered within its spinner, so that other spinners do not change the id.
            id=self._rng.name("job", spinner.id, spinner.runs_created),
            number=self._runs_created,
            spinner=spinner,
            trigger=trigger,
            contacts=rows,
            created_at=self._events.now,
            parent_id=None if parent is None else parent.id,
            generation=0 if parent is None else parent.generation + 1,
        )
        self._run_index.changed(run, self._events.now)
        self._workers.queue(run)
        return run

    def _run_changed(self, run: Run) -> None:
        self._run_index.changed(run, self._events.now)
        if run.ended_at is None:
            return
        self._ledger.add(run)
        retry = run.spinner.spec.retry
        if run.status is Status.CANCELLED or retry is None or run.generation >= retry.times:
            return
        if run.retryable:
            after = retry.after.at(self._rng.draws(run.id, "retry").first)
            self._events.schedule(self._events.now + after, self._retry, run)

    def _reset_plan(self) -> None:
        self._plan.reset()
        self._schedule_month()

    def _start_incident(self, incident: scenario.Incident) -> None:
        match incident:
            case scenario.RuntimeDown():
                self._take_down(unnoticed=incident.unnoticed)
                self._after(incident.lasts, self._bring_up)
            case scenario.Stall():
                self._faults.start(incident)
                self._after(incident.lasts, self._end_stall, incident)
            case scenario.Outage() | scenario.Slow():
                self._faults.start(incident)
                self._after(incident.lasts, self._faults.end, incident)
            case scenario.PlanLimit():
                before = self._plan.set_limit(incident.meter, incident.limit)
                self._after(incident.lasts, self._plan.set_limit, incident.meter, before)
            case scenario.Cancel():
                self._cancel_oldest(incident.spinner)

    def _after(self, seconds: float | None, action: Callable[..., object], *arguments: object) -> None:
        if seconds is not None:
            self._events.schedule(self._events.now + seconds, action, *arguments)

    def _end_stall(self, incident: scenario.Stall) -> None:
        self._faults.end(incident)
        self._workers.release_hanging()

    def _cancel_oldest(self, spinner_name: str) -> None:
        for run in self._run_index.runs.values():
            if run.spinner.name == spinner_name and run.ended_at is None:
                self._workers.cancel(run)
                return

    def _take_down(self, *, unnoticed: float = 0.0) -> None:
        if self._workers.up:
            self._workers.take_down()
            self._heartbeats_stopped_at = self._events.now
            self._reported_up_until = self._events.now + unnoticed

    def _bring_up(self) -> None:
        if not self._workers.up:
            self._heartbeats_started_at = self._events.now
            self._heartbeats_stopped_at = None
            self._workers.bring_up()
