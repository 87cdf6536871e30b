"""The worker service: it picks up queued runs and processes their records step by step.

Workers are not asyncio tasks but slots for runs, and a record in progress is an event in the queue. This is cheap
enough for thousands of runs, and the result does not depend on scheduling.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from exporter.simulator import scenario
from exporter.simulator.contacts import Contact
from exporter.simulator.event_queue import EventQueue
from exporter.simulator.faults import Faults
from exporter.simulator.randomness import Draws, SeededRandom
from exporter.simulator.run import NO_ANSWER, NO_EMAIL_ADDRESS, NO_PHONE_NUMBER, Record, RecordStatus, Run, Status

_NEEDS_PHONE = frozenset({"whatsapp", "sms", "voice", "human_call"})


class Workers:
    """All slots of the runtime and the runs in them. While the service is down, no run makes progress."""

    def __init__(
        self,
        runtime: scenario.Runtime,
        *,
        events: EventQueue,
        rng: SeededRandom,
        faults: Faults,
        contacts: Sequence[Contact],
        changed: Callable[[Run], None],
    ) -> None:
        """Call `changed` after every change of a run."""
        self._pickup = runtime.pickup
        self._slots = runtime.workers * runtime.slots
        self._events = events
        self._rng = rng
        self._faults = faults
        self._contacts = contacts
        self._changed = changed
        self._queue: deque[Run] = deque()
        self._slots_used = 0
        self._postponed: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._hanging: list[tuple[Run, Record]] = []
        self.up = True

    def take_down(self) -> None:
        """Stop: steps in progress do not end, responses of persons are not processed, no run is picked up."""
        self.up = False

    def bring_up(self) -> None:
        """Continue where everything stopped: events that were due in the meantime run now."""
        self.up = True
        held, self._postponed = self._postponed, []
        for action, arguments in held:
            self._events.schedule(self._events.now, self._while_up, action, *arguments)
        self._fill_slots()

    def queue(self, run: Run) -> None:
        """Queue a new run; it starts when a slot is free."""
        self._queue.append(run)
        self._fill_slots()

    def cancel(self, run: Run) -> None:
        """End a run immediately; its records stay as they are."""
        self._end(run, Status.CANCELLED)

    def release_hanging(self) -> None:
        """Retry hanging records after the end of a stall."""
        hanging, self._hanging = self._hanging, []
        for run, record in hanging:
            self._later(0, self._start_step, run, record)

    def _later(self, seconds: float, action: Callable[..., None], *arguments: Any) -> None:
        self._events.schedule(self._events.now + seconds, self._while_up, action, *arguments)

    def _while_up(self, action: Callable[..., None], *arguments: Any) -> None:
        if self.up:
            action(*arguments)
        else:
            self._postponed.append((action, arguments))

    def _fill_slots(self) -> None:
        while self.up and self._queue and self._slots_used < self._slots:
            run = self._queue.popleft()
            if run.ended_at is None:  # it may have been cancelled in the queue
                self._acquire_slot(run)
                self._later(self._pickup.at(self._rng.draws(run.id, "pickup").first), self._start, run)

    def _acquire_slot(self, run: Run) -> None:
        run.holds_slot = True
        self._slots_used += 1

    def _release_slot(self, run: Run) -> None:
        if run.holds_slot:
            run.holds_slot = False
            self._slots_used -= 1
            self._fill_slots()

    def _start(self, run: Run) -> None:
        if run.ended_at is not None:
            return
        run.status = Status.RUNNING
        run.started_at = run.last_progress_at = self._events.now
        self._start_records(run)
        self._changed(run)

    def _start_records(self, run: Run) -> None:
        while run.pending and run.running - len(run.leaked) < run.spinner.spec.concurrency:
            record = Record(len(run.records), self._events.now)
            run.records.append(record)
            run.running += 1
            self._start_step(run, record)

    def _start_step(self, run: Run, record: Record) -> None:
        """Start an attempt at the record's step; steps without latency finish immediately."""
        if run.ended_at is not None:
            return
        steps = run.spinner.spec.steps
        while record.step < len(steps):
            step = steps[record.step]
            stall = self._faults.stall(run, step)
            if stall is not None:
                self._hang(run, record, stall)
                return
            # A child run has other ids, so a record that failed in the parent gets new random numbers.
            draws = self._rng.draws(run.id, record.index, record.step, record.attempts)
            latency = step.latency.at(draws.first) * self._faults.latency_factor(run, step)
            error_code = self._error_code(run, record, step, draws)
            if latency or error_code or step.wait:
                self._later(latency, self._end_attempt, run, record, step, error_code, draws.third)
                return
            self._next_step(record)
        # Not immediately, because each such record would add a level of recursion.
        self._later(0, self._end_record, run, record, None)

    def _hang(self, run: Run, record: Record, stall: scenario.Stall) -> None:
        """Let a record hang at its step."""
        if stall.retries is not None:
            self._later(stall.retries, self._try_again, run, record)
        else:
            self._hanging.append((run, record))
        if stall.leaks:
            run.leaked.add(record)
            self._start_records(run)

    def _try_again(self, run: Run, record: Record) -> None:
        record.attempts += 1
        self._start_step(run, record)

    def _error_code(self, run: Run, record: Record, step: scenario.Step, draws: Draws) -> str | None:
        contact = self._contacts[run.contacts[record.index]]
        if step.type in _NEEDS_PHONE and not contact.phone:
            return NO_PHONE_NUMBER
        if step.type == "email" and not contact.email:
            return NO_EMAIL_ADDRESS
        error_code = self._faults.error_code(step, draws.second)
        if error_code is not None:
            return error_code
        # One random number for all codes: each has an interval of the length of its probability.
        threshold = 0.0
        for code, chance in step.failures.items():
            threshold += chance
            if draws.second < threshold:
                return code
        return None

    def _end_attempt(self, run: Run, record: Record, step: scenario.Step, error_code: str | None, draw: float) -> None:
        if run.ended_at is not None:
            return
        if error_code is not None and record.attempts < step.attempts:
            record.attempts += 1
            self._start_step(run, record)
        elif error_code is not None:
            self._end_record(run, record, error_code)
        elif step.wait is not None:
            self._wait_for_person(run, record, step.wait, draw)
        else:
            self._finish_step(run, record)

    def _finish_step(self, run: Run, record: Record) -> None:
        self._next_step(record)
        if record.step < len(run.spinner.spec.steps):
            self._start_step(run, record)
        else:
            self._end_record(run, record, None)

    def _next_step(self, record: Record) -> None:
        record.step += 1
        record.step_started_at = self._events.now
        record.attempts = 1

    def _wait_for_person(self, run: Run, record: Record, wait: scenario.Wait, draw: float) -> None:
        record.status = RecordStatus.WAITING
        record.wait_ends_at = self._events.now + wait.timeout
        run.running -= 1
        run.waiting_records.add(record)
        delay = wait.answer.at(draw)
        self._later(min(delay, wait.timeout), self._receive_response, run, record, delay <= wait.timeout)
        self._start_records(run)
        self._update_status(run)

    def _receive_response(self, run: Run, record: Record, in_time: bool) -> None:
        if run.ended_at is not None:
            return
        run.waiting_records.remove(record)
        run.running += 1
        record.status = RecordStatus.RUNNING
        record.wait_ends_at = None
        if in_time:
            self._finish_step(run, record)
            self._update_status(run)
        else:
            self._end_record(run, record, NO_ANSWER)

    def _end_record(self, run: Run, record: Record, error_code: str | None) -> None:
        if run.ended_at is not None or record.ended_at is not None:
            return
        run.running -= 1
        run.leaked.discard(record)
        record.ended_at = run.last_progress_at = self._events.now
        if error_code is None:
            record.status = RecordStatus.COMPLETED
            run.completed += 1
        else:
            step = run.spinner.spec.steps[record.step]
            contact = self._contacts[run.contacts[record.index]]
            record.status = RecordStatus.FAILED
            record.error_code = error_code
            record.error_message = f"{step.name}: {contact.name}, {contact.phone or contact.email}: {error_code}"
            run.failed_records.append(record)
            group = (step.name, error_code)
            run.failures[group] = run.failures.get(group, 0) + 1
        self._start_records(run)
        self._update_status(run)

    def _update_status(self, run: Run) -> None:
        """Update the status of a run after a change of one of its records."""
        if run.ended_at is not None:
            return
        if run.completed + run.failed == run.total:
            self._end(run, Status.COMPLETED if run.completed else Status.FAILED)
            return
        if run.running:
            run.status = Status.RUNNING
            if not run.holds_slot:  # it waited before, and continues even if all slots are in use
                self._acquire_slot(run)
        else:
            run.status = Status.WAITING
            self._release_slot(run)
        self._changed(run)

    def _end(self, run: Run, status: Status) -> None:
        run.status = status
        run.ended_at = self._events.now
        self._release_slot(run)
        self._changed(run)
