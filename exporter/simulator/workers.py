"""The worker service: it picks up queued runs and takes their records through the steps.

A worker here is no task of its own but a slot for runs, and a record under way is an entry in the agenda: that is
cheap enough for thousands, and what happens never depends on who is scheduled first.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from exporter.simulator import scenario
from exporter.simulator.contacts import Contact
from exporter.simulator.event_queue import EventQueue
from exporter.simulator.faults import Faults
from exporter.simulator.randomness import Roll, SeededRandom
from exporter.simulator.run import NO_ANSWER, NO_EMAIL_ADDRESS, NO_PHONE_NUMBER, Record, RecordStatus, Run, Status

_NEEDS_PHONE = frozenset({"whatsapp", "sms", "voice", "human_call"})


class Workers:
    """All slots of the runtime, and the runs in them. While it is down, nothing in it moves."""

    def __init__(
        self,
        runtime: scenario.Runtime,
        *,
        agenda: EventQueue,
        dice: SeededRandom,
        faults: Faults,
        contacts: Sequence[Contact],
        changed: Callable[[Run], None],
    ) -> None:
        """`changed` is called after every change of a run."""
        self._pickup = runtime.pickup
        self._slots = runtime.workers * runtime.slots
        self._agenda = agenda
        self._dice = dice
        self._faults = faults
        self._contacts = contacts
        self._changed = changed
        self._queue: deque[Run] = deque()
        self._slots_taken = 0
        self._held_by_down: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._hanging: list[tuple[Run, Record]] = []
        self.up = True

    def take_down(self) -> None:
        """Stop: steps under way do not end, nobody's answer is heard, nothing is picked up."""
        self.up = False

    def bring_up(self) -> None:
        """Go on where everything was: what fell due meanwhile happens now."""
        self.up = True
        held, self._held_by_down = self._held_by_down, []
        for action, arguments in held:
            self._agenda.at(self._agenda.now, self._while_up, action, *arguments)
        self._fill_slots()

    def queue(self, run: Run) -> None:
        """Take a new run; it starts when a slot is free."""
        self._queue.append(run)
        self._fill_slots()

    def cancel(self, run: Run) -> None:
        """End a run where it stands; its records stay as they are."""
        self._end(run, Status.CANCELLED)

    def release_hanging(self) -> None:
        """Let hanging records try again, after a stall has gone."""
        hanging, self._hanging = self._hanging, []
        for run, record in hanging:
            self._later(0, self._come_to_step, run, record)

    def _later(self, seconds: float, action: Callable[..., None], *arguments: Any) -> None:
        self._agenda.at(self._agenda.now + seconds, self._while_up, action, *arguments)

    def _while_up(self, action: Callable[..., None], *arguments: Any) -> None:
        if self.up:
            action(*arguments)
        else:
            self._held_by_down.append((action, arguments))

    def _fill_slots(self) -> None:
        while self.up and self._queue and self._slots_taken < self._slots:
            run = self._queue.popleft()
            if run.ended_at is None:  # or it was cancelled in the queue
                self._take_slot(run)
                self._later(self._pickup.at(self._dice.roll(run.id, "pickup").first), self._start, run)

    def _take_slot(self, run: Run) -> None:
        run.holds_slot = True
        self._slots_taken += 1

    def _leave_slot(self, run: Run) -> None:
        if run.holds_slot:
            run.holds_slot = False
            self._slots_taken -= 1
            self._fill_slots()

    def _start(self, run: Run) -> None:
        if run.ended_at is not None:
            return
        run.status = Status.RUNNING
        run.started_at = run.last_progress_at = self._agenda.now
        self._take_on_records(run)
        self._changed(run)

    def _take_on_records(self, run: Run) -> None:
        while run.pending and run.running < run.spinner.law.concurrency:
            record = Record(len(run.records), self._agenda.now)
            run.records.append(record)
            run.running += 1
            self._come_to_step(run, record)

    def _come_to_step(self, run: Run, record: Record) -> None:
        """Begin an attempt at the record's step; one that takes no time is over at once."""
        if run.ended_at is not None:
            return
        steps = run.spinner.law.steps
        while record.step < len(steps):
            step = steps[record.step]
            if self._faults.hangs(run, step):
                self._hanging.append((run, record))
                return
            # The child of a run has ids of its own, so a record that failed in the parent gets another chance.
            roll = self._dice.roll(run.id, record.index, record.step, record.attempts)
            latency = step.latency.at(roll.first) * self._faults.slowness(run, step)
            error_code = self._error_code(run, record, step, roll)
            if latency or error_code or step.wait:
                self._later(latency, self._end_attempt, run, record, step, error_code, roll.third)
                return
            record.step += 1
        # Not at once, as a run of such records would come back here and go deeper with each.
        self._later(0, self._end_record, run, record, None)

    def _error_code(self, run: Run, record: Record, step: scenario.Step, roll: Roll) -> str | None:
        contact = self._contacts[run.contacts[record.index]]
        if step.type in _NEEDS_PHONE and not contact.phone:
            return NO_PHONE_NUMBER
        if step.type == "email" and not contact.email:
            return NO_EMAIL_ADDRESS
        error_code = self._faults.error_code(step, roll.second)
        if error_code is not None:
            return error_code
        # One draw serves for all codes: each has a stretch of 0 to 1 as long as its chance.
        threshold = 0.0
        for code, chance in step.failures.items():
            threshold += chance
            if roll.second < threshold:
                return code
        return None

    def _end_attempt(self, run: Run, record: Record, step: scenario.Step, error_code: str | None, draw: float) -> None:
        if run.ended_at is not None:
            return
        if error_code is not None and record.attempts < step.attempts:
            record.attempts += 1
            self._come_to_step(run, record)
        elif error_code is not None:
            self._end_record(run, record, error_code)
        elif step.wait is not None:
            self._ask_person(run, record, step.wait, draw)
        else:
            self._go_on(run, record)

    def _go_on(self, run: Run, record: Record) -> None:
        record.step += 1
        record.attempts = 1
        if record.step < len(run.spinner.law.steps):
            self._come_to_step(run, record)
        else:
            self._end_record(run, record, None)

    def _ask_person(self, run: Run, record: Record, wait: scenario.Wait, draw: float) -> None:
        record.status = RecordStatus.WAITING
        record.wait_ends_at = self._agenda.now + wait.timeout
        run.running -= 1
        run.waiting_records.add(record)
        answer = wait.answer.at(draw)
        self._later(min(answer, wait.timeout), self._hear_person, run, record, answer <= wait.timeout)
        self._take_on_records(run)
        self._settle(run)

    def _hear_person(self, run: Run, record: Record, answered: bool) -> None:
        if run.ended_at is not None:
            return
        run.waiting_records.remove(record)
        run.running += 1
        record.status = RecordStatus.RUNNING
        record.wait_ends_at = None
        if answered:
            self._go_on(run, record)
            self._settle(run)
        else:
            self._end_record(run, record, NO_ANSWER)

    def _end_record(self, run: Run, record: Record, error_code: str | None) -> None:
        if run.ended_at is not None or record.ended_at is not None:
            return
        run.running -= 1
        record.ended_at = run.last_progress_at = self._agenda.now
        if error_code is None:
            record.status = RecordStatus.COMPLETED
            run.completed += 1
        else:
            step = run.spinner.law.steps[record.step]
            contact = self._contacts[run.contacts[record.index]]
            record.status = RecordStatus.FAILED
            record.error_code = error_code
            record.error_message = f"{step.name}: {contact.name}, {contact.phone or contact.email}: {error_code}"
            run.failed_records.append(record)
            group = (step.name, error_code)
            run.failures[group] = run.failures.get(group, 0) + 1
        self._take_on_records(run)
        self._settle(run)

    def _settle(self, run: Run) -> None:
        """Work out what a run is now that one of its records has moved."""
        if run.ended_at is not None:
            return
        if run.completed + run.failed == run.total:
            self._end(run, Status.COMPLETED if run.completed else Status.FAILED)
            return
        if run.running:
            run.status = Status.RUNNING
            if not run.holds_slot:  # back from waiting: it goes on even if that is one run more than there are slots
                self._take_slot(run)
        else:
            run.status = Status.WAITING
            self._leave_slot(run)
        self._changed(run)

    def _end(self, run: Run, status: Status) -> None:
        run.status = status
        run.ended_at = self._agenda.now
        self._leave_slot(run)
        self._changed(run)
