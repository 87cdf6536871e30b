"""The world of a scenario: its projects, spinners, runs, plan, and what goes wrong when. HTTP is in `api`.

The world does not move by itself: whoever looks at it has it catch up with the timeline first. So a snapshot is
never behind its own clock, and how often somebody looks changes nothing.
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
class Pulse:
    """What the worker service tells of itself."""

    up: bool
    last_heartbeat_at: float
    """Story time."""
    workers: int


class Engine:
    """Plays a scenario. Same scenario, seed and calls: same world, to the last record."""

    def __init__(self, scenario: Scenario, *, seed: int = 1, timeline: Timeline, epoch: float | None = None) -> None:
        """Play what was before the story, then start the timeline.

        `epoch` is the wall-clock time (epoch seconds) of the story's zero; None: what the timeline says.
        """
        self.scenario = scenario
        self._timeline = timeline
        self.cursor_key = str(seed).encode()  # so that another world's cursors are not taken for this one's
        self._dice = SeededRandom(seed)
        self._agenda = EventQueue(-scenario.before)
        self._faults = Faults()
        self._contacts = contacts()
        self._roster = RunIndex()
        self._ledger = Ledger()
        self._workers = Workers(
            scenario.runtime,
            agenda=self._agenda,
            dice=self._dice,
            faults=self._faults,
            contacts=self._contacts,
            changed=self._run_changed,
        )
        self._projects: dict[str, Project] = {}
        self._spinners: dict[str, Spinner] = {}
        self._runs_created = 0
        self._heart_started_at = -float(scenario.before)
        self._heart_stopped_at: float | None = None
        self._hidden_until = -math.inf
        self._story_began = False

        for project in scenario.projects:
            self._publish(project)
        self._schedule_repeated_runs()
        self._play_until(0.0)
        # The plan counts from here on: what was used before is said in the scenario.
        zero = timeline.start()
        self._zero = zero if epoch is None else epoch
        self._plan = Plan(scenario.plan, spinners=len(self._spinners), wall=self._zero)
        self._story_began = True
        self._schedule_month()
        self._schedule_story()

    async def run(self) -> None:
        """Keep up with the timeline until cancelled."""
        while True:
            self.catch_up()
            await self._timeline.sleep_until(self._agenda.next_due)

    def catch_up(self) -> float:
        """Play everything until the timeline's now; return that now, in seconds of story time."""
        self._play_until(self._timeline.now())
        return self._agenda.now

    def wall_ms(self, moment: float) -> int:
        """Return the wall-clock time of a moment of the story, in epoch milliseconds, rounded down."""
        return math.floor((self._zero + moment / self._timeline.speed) * 1000)

    def now_ms(self) -> int:
        """Catch up and return the wall-clock time, in epoch milliseconds."""
        return self.wall_ms(self.catch_up())

    @property
    def jobs(self) -> Mapping[str, Run]:
        """The runs that the API knows now, by id, in order of creation."""
        self.catch_up()
        return self._roster.runs

    @property
    def ledger(self) -> Mapping[str, EndedRun]:
        """Every run that ended, by id, in order of its end, including those that the API has forgotten."""
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
    def roster(self) -> RunIndex:
        """The runs that the API knows now, in the orders in which it lists them."""
        self.catch_up()
        return self._roster

    @property
    def plan(self) -> Plan:
        """The plan's meters as they are now."""
        self.catch_up()
        return self._plan

    @property
    def pulse(self) -> Pulse:
        """What the worker service tells of itself now; what it tells of being down may come late."""
        now = self.catch_up()
        beaten_until = now if self._heart_stopped_at is None else self._heart_stopped_at
        interval = self.scenario.runtime.heartbeat
        beats = math.floor((beaten_until - self._heart_started_at) / interval)
        up = self._workers.up or now < self._hidden_until
        workers = self.scenario.runtime.workers if up else 0
        return Pulse(up, self._heart_started_at + beats * interval, workers)

    def trigger(self, spinner_id: str, trigger: str = "manual") -> str:
        """Create a run now and return its id. Raises `UnknownSpinnerError` or `PlanLimitError`."""
        self.catch_up()
        spinner = self._spinners.get(spinner_id)
        if spinner is None:
            raise UnknownSpinnerError(f"no spinner has the id {spinner_id!r}")
        return self._create_run(spinner, trigger, self._draw_contacts(spinner)).id

    def take_runtime_down(self) -> None:
        """Kill the worker service now; the API stays up. Nothing happens if it is down already."""
        self.catch_up()
        self._take_down()

    def bring_runtime_up(self) -> None:
        """Start the worker service again now. Nothing happens if it is up."""
        self.catch_up()
        self._bring_up()

    def _publish(self, law: scenario.Project) -> None:
        """Make a project, or its copies, with their spinners."""
        for copy in range(1, law.copies + 1):
            name = law.name.replace("{n}", str(copy)) if law.copies > 1 else law.name
            project = Project(law.id or self._dice.name("prj", name), name, law.wording or self.scenario.wording)
            self._projects[project.id] = project
            self._roster.add_project(project.id)
            for spinner_law in law.spinners:
                spinner_id = spinner_law.id or self._dice.name("spn", project.id, spinner_law.name)
                self._spinners[spinner_id] = Spinner(spinner_id, project, spinner_law)

    def _schedule_repeated_runs(self) -> None:
        for spinner in self._spinners.values():
            for place, start in enumerate(spinner.law.runs):
                every, offset = start.every, start.offset
                if every is not None:
                    drawn = every * self._dice.roll(spinner.id, "schedule", place).first
                    first = drawn if offset is None else float(offset)
                    number = math.ceil((self._agenda.now - first) / every)
                    self._repeat(spinner, start, first, every, number)

    def _repeat(self, spinner: Spinner, start: scenario.Start, first: float, every: float, number: int) -> None:
        """Plan a run of a schedule, which plans the next. From the first: adding up would add rounding errors."""

        def create_and_repeat() -> None:
            self._start_run(spinner, start)
            self._repeat(spinner, start, first, every, number + 1)

        self._agenda.at(first + number * every, create_and_repeat)

    def _schedule_month(self) -> None:
        self._agenda.at((self._plan.resets_at - self._zero) * self._timeline.speed, self._begin_month)

    def _schedule_story(self) -> None:
        for spinner in self._spinners.values():
            for start in spinner.law.runs:
                if start.at is not None:
                    self._agenda.at(start.at, self._start_run, spinner, start)
        for incident in self.scenario.incidents:
            self._agenda.at(incident.at, self._strike, incident)

    def _play_until(self, end: float) -> None:
        self._agenda.play_until(end)
        self._roster.forget_ended_before(self._agenda.now - self.scenario.history)

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
        """Choose the rows of the table for a spinner's next run: as many as it has records, from anywhere on."""
        roll = self._dice.roll(spinner.id, "run", spinner.runs_created)
        rows = len(self._contacts)
        first = int(roll.first * rows)
        return tuple((first + index) % rows for index in range((count or spinner.law.records).at(roll.second)))

    def _create_run(self, spinner: Spinner, trigger: str, rows: tuple[int, ...], parent: Run | None = None) -> Run:
        if self._story_began:
            self._plan.book(len(rows))
        spinner.runs_created += 1
        self._runs_created += 1
        run = Run(
            # Numbered within its spinner: what happens elsewhere does not change which run this is.
            id=self._dice.name("job", spinner.id, spinner.runs_created),
            number=self._runs_created,
            spinner=spinner,
            trigger=trigger,
            contacts=rows,
            created_at=self._agenda.now,
            parent_id=None if parent is None else parent.id,
            generation=0 if parent is None else parent.generation + 1,
        )
        self._roster.changed(run, self._agenda.now)
        self._workers.queue(run)
        return run

    def _run_changed(self, run: Run) -> None:
        self._roster.changed(run, self._agenda.now)
        if run.ended_at is None:
            return
        self._ledger.enter(run)
        retry = run.spinner.law.retry
        if run.status is Status.CANCELLED or retry is None or run.generation >= retry.times:
            return
        if run.retryable:
            after = retry.after.at(self._dice.roll(run.id, "retry").first)
            self._agenda.at(self._agenda.now + after, self._retry, run)

    def _begin_month(self) -> None:
        self._plan.begin_month()
        self._schedule_month()

    def _strike(self, incident: scenario.Incident) -> None:
        match incident:
            case scenario.RuntimeDown():
                self._take_down(unnoticed=incident.unnoticed)
                self._after(incident.lasts, self._bring_up)
            case scenario.Stall():
                self._faults.strike(incident)
                self._after(incident.lasts, self._end_stall, incident)
            case scenario.Outage() | scenario.Slow():
                self._faults.strike(incident)
                self._after(incident.lasts, self._faults.heal, incident)
            case scenario.PlanLimit():
                before = self._plan.set_limit(incident.meter, incident.limit)
                self._after(incident.lasts, self._plan.set_limit, incident.meter, before)
            case scenario.Cancel():
                self._cancel_oldest(incident.spinner)

    def _after(self, seconds: float | None, action: Callable[..., object], *arguments: object) -> None:
        if seconds is not None:
            self._agenda.at(self._agenda.now + seconds, action, *arguments)

    def _end_stall(self, incident: scenario.Stall) -> None:
        self._faults.heal(incident)
        self._workers.release_hanging()

    def _cancel_oldest(self, spinner_name: str) -> None:
        for run in self._roster.runs.values():
            if run.spinner.name == spinner_name and run.ended_at is None:
                self._workers.cancel(run)
                return

    def _take_down(self, *, unnoticed: float = 0.0) -> None:
        if self._workers.up:
            self._workers.take_down()
            self._heart_stopped_at = self._agenda.now
            self._hidden_until = self._agenda.now + unnoticed

    def _bring_up(self) -> None:
        if not self._workers.up:
            self._heart_started_at = self._agenda.now
            self._heart_stopped_at = None
            self._workers.bring_up()
