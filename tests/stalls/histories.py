"""Labelled histories of runs: what a runtime would have returned every half minute, and when it was truly stalled.

The runs of a spinner follow one another, because the exporter learns from earlier runs. A true stall is a hang that the
script contains, of at least 20 minutes and 8 times the run's longest gap before it. Nothing else is a stall, however
slow a run is.
"""

import dataclasses
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from exporter.runtime.model import RecordCounts, RunSnapshot
from exporter.status import Status

STEP = 30.0
"""Seconds between two scrapes."""

MINUTE, HOUR = 60.0, 3600.0


@dataclasses.dataclass(frozen=True, slots=True)
class Stall:
    """A time during which a run was truly stalled; `longest_gap` is its longest gap before that."""

    since: float
    until: float
    longest_gap: float

    @property
    def due(self) -> float:
        """The latest time at which a page counts as in time."""
        return self.since + max(20 * MINUTE, 3 * self.longest_gap)


@dataclasses.dataclass(frozen=True, slots=True)
class Outage:
    """A time during which the worker service was down, and what `/health` returned."""

    since: float
    until: float
    shown_as: str
    """`reported`, `old heartbeat` while the status is up, or `no heartbeat` at all."""


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """What else went wrong during a run."""

    unscraped: tuple[float, float] = (0.0, 0.0)
    """A time without scrapes."""
    restarted_at: float | None = None
    """When the exporter restarted."""
    keeps_state: bool = False
    """Whether the exporter that restarted had a state file."""
    ahead: float = 0.0
    """Seconds by which the runtime's clock is ahead of ours."""
    outage: Outage | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """When a record is worked on, and at which step it is."""

    began: float
    until: float
    """When it would finish."""
    hangs_at: float = math.inf
    """From when on nothing happens to it."""


@dataclasses.dataclass(frozen=True, slots=True)
class History:
    """One run: a snapshot for every scrape at which it had changed, and its true stalls.

    Times are the runtime's.
    """

    kind: str
    snapshots: Sequence[tuple[float, RunSnapshot]]
    until: float
    stalls: Sequence[Stall]
    problem: Problem = Problem()
    beside: Sequence["History"] = ()
    """Other runs of the same project at the same time."""
    work: Sequence[Work] = ()
    """What is known of its records; empty: nothing."""

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.snapshots[0][1].id

    @property
    def hours(self) -> float:
        """Hours from the first scrape until the run ended."""
        over = next((time for time, each in self.snapshots if each.status.ended), self.until)
        return (over - self.snapshots[0][0]) / HOUR


class Script:
    """Builds one run's history, event by event."""

    def __init__(
        self,
        kind: str,
        run_id: str,
        began: float,
        *,
        total: int | None,
        concurrency: int = 1,
        queued: bool = False,
        spinner: str = "",
        spinner_id: str = "",
        parent: str = "",
    ) -> None:
        """A run that is `queued` has no counts until it has a start. Without a `spinner` its kind is the name of it."""
        self._kind = kind
        self._spinner = spinner or kind
        self._spinner_id = spinner_id
        self._parent = parent
        self._run_id = run_id
        self._events: list[tuple[float, dict[str, Any]]] = []
        self._state: dict[str, Any] = {
            "status": Status.QUEUED if queued else Status.RUNNING,
            "created_at": began,
            "started_at": None if queued else began,
            "ended_at": None,
            "completed": 0,
            "failed": 0,
            "waiting": 0,
            "running": concurrency,
            "total": total,
            "touched": False,
            "counts_before_start": not queued,
            "progressed": began,
        }
        self._has_last_progress = True
        self.now = began
        self._last = began
        self._longest = 0.0
        self._stalls: list[Stall] = []
        self._note()

    def finish(self, after: float, *, failed: bool = False, running: int | None = None) -> None:
        """Let one record finish, `after` seconds after the last event; `running` are worked on then."""
        self.now += after
        if running is not None:
            self._state["running"] = running
        self._state["failed" if failed else "completed"] += 1
        self._longest = max(self._longest, self.now - self._last)
        self._last = self._state["progressed"] = self.now
        self._note()

    def hang(self, seconds: float, *, touched_every: float | None = None) -> None:
        """Hang; it counts as a stall if it is long enough in comparison with the gaps before."""
        until = self.now + seconds
        if touched_every is not None:
            while self.now + touched_every < until:
                self.now += touched_every
                self._note(touched=True)
        if until - self._last >= max(20 * MINUTE, 8 * self._longest):
            self._stalls.append(Stall(self._last, until, self._longest))
        self.now = until

    def set(self, after: float = 0.0, **state: Any) -> None:
        """Change other state, `after` seconds after the last event."""
        self.now += after
        self._state |= state
        if state.get("started_at") is not None:
            self._last = self._state["progressed"] = state["started_at"]
        self._note()

    def pause(self, seconds: float = 0.0) -> None:
        """Let time pass that counts neither as a gap nor as a stall."""
        self.now += seconds
        self._last = self.now

    def end(self, status: Status = Status.COMPLETED, *, has_end_time: bool = True) -> None:
        """End the run now."""
        self.set(status=status, ended_at=self.now if has_end_time else None, running=0)

    def omit_last_progress(self) -> None:
        """Leave out `lastProgressAt` from now on."""
        self._has_last_progress = False

    def play(self, *, updates_every: float = 0.0) -> History:
        """Return its state every `STEP` seconds, where it changed; the runtime updates it at most `updates_every`."""
        seen: list[tuple[float, RunSnapshot]] = []
        began = self._events[0][0]
        shown = ((_shown_at(at, began, updates_every), state) for at, state in self._events)
        events = iter([*shown, (float("inf"), {})])
        at, state = next(events)
        upcoming, after = next(events)
        scrape = at
        while scrape <= self.now + STEP:
            moved = False
            while upcoming <= scrape:
                at, state = upcoming, after
                upcoming, after = next(events)
                moved = True
            if moved or not seen:
                seen.append((scrape, self._snapshot(at, state)))
            scrape += STEP
        return History(self._kind, seen, self.now, self._stalls)

    def _note(self, *, touched: bool = False) -> None:
        self._events.append((self.now, {**self._state, "touched": touched}))

    def _snapshot(self, at: float, state: dict[str, Any]) -> RunSnapshot:
        finished = state["completed"] + state["failed"]
        total = state["total"]
        pending = 0 if total is None else max(total - finished - state["running"] - state["waiting"], 0)
        started = state["started_at"] is not None
        counted = started or state["counts_before_start"]
        running = min(state["running"], total - finished) if total is not None else state["running"]
        return RunSnapshot(
            id=self._run_id,
            project_id="p1",
            spinner=self._spinner,
            spinner_id=self._spinner_id,
            trigger="child" if self._parent else "schedule",
            parent_id=self._parent,
            status=state["status"],
            created_at=state["created_at"],
            updated_at=at,
            started_at=state["started_at"],
            ended_at=state["ended_at"],
            last_progress_at=state["progressed"] if self._has_last_progress and started and finished else None,
            records=RecordCounts(
                total=total,
                pending=pending,
                running=max(running, 0) if started else 0,
                waiting=state["waiting"],
                completed=state["completed"],
                failed=state["failed"],
            )
            if counted
            else None,
        )


def _shown_at(at: float, began: float, every: float) -> float:
    """Return when a runtime that updates a run every so many seconds shows a change; a run's first one is immediate."""
    return began + math.ceil((at - began) / every) * every if every else at


Kind = Callable[[random.Random, random.Random, str, float], History]
"""Builds a run that begins at a given time. The first generator is the same for all runs of a spinner and draws their
common properties; the second one is the run's own."""


def corpus(
    seed: int, spinners: int, runs: Sequence[int] = (4,), kinds: Mapping[str, Kind] | None = None
) -> Iterator[list[History]]:
    """Yield the histories of `spinners` spinners of every kind.

    The runs of a spinner follow one another; how many there are is taken from `runs` in turn.
    """
    for name, kind in (KINDS if kinds is None else kinds).items():
        for spinner in range(spinners):
            rng = random.Random(f"{seed} {name} {spinner}")
            began, histories = 1_764_000_000.0, []
            for number in range(runs[spinner % len(runs)]):
                spinner_rng = random.Random(f"{seed} {name} {spinner} law")
                history = kind(spinner_rng, rng, f"{name}-{spinner}-{number}", began)
                histories.append(history)
                began = history.until + rng.uniform(1, 60) * MINUTE
            yield histories


def steady_fast(spinner_rng: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Hundreds or thousands of records, seconds apart; half of the runs hang."""
    total = rng.randint(400, 3000)
    script = Script("steady fast", run_id, began, total=total, concurrency=spinner_rng.randint(1, 8))
    mean = spinner_rng.uniform(0.5, 8)
    return _work(script, rng, total, lambda: rng.expovariate(1 / mean), hangs=rng.random() < 0.5)


def slow(spinner_rng: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """One record every few minutes, for hours."""
    total = rng.randint(30, 120)
    script = Script("slow", run_id, began, total=total)
    mean = spinner_rng.uniform(2, 9) * MINUTE
    return _work(script, rng, total, lambda: mean * rng.lognormvariate(0, 0.35), hangs=rng.random() < 0.4)


def bursts(spinner_rng: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Batches: seconds between records, and up to half an hour or more between batches."""
    script = Script("bursts", run_id, began, total=None, concurrency=4)
    hangs = rng.random() < 0.4
    idle = spinner_rng.uniform(8, 25) * MINUTE
    batches = rng.randint(4, 14)
    hangs_in = rng.randint(1, batches)
    for batch in range(batches):
        for _ in range(rng.randint(10, 60)):
            script.finish(rng.expovariate(1 / 3))
        if hangs and batch + 1 == hangs_in:
            return _hang(script, rng)
        script.finish(idle * rng.uniform(0.6, 1.3))
    script.end()
    return script.play()


def straggler(spinner_rng: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Many concurrent records: the last one takes as long as any, which is the usual gap times the concurrency."""
    concurrent = spinner_rng.randint(4, 20)
    each = spinner_rng.uniform(5, 40) * MINUTE
    total = concurrent * rng.randint(4, 9)
    script = Script("straggler", run_id, began, total=total, concurrency=concurrent)
    busy = [began + each * rng.uniform(0.1, 1.2) for _ in range(concurrent)]
    ends = []
    for _ in range(total - concurrent):
        busy.sort()
        ends.append(busy[0])
        busy[0] += each * rng.lognormvariate(0, 0.3)
    ends = sorted(ends + busy)
    hangs_after = rng.randint(concurrent, total - concurrent) if rng.random() < 0.4 else total
    for end in ends[:hangs_after]:
        script.finish(max(end - script.now, 0.0))
    if hangs_after < total:
        return _hang(script, rng)
    script.end()
    return script.play()


def short(spinner_rng: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Ends within ten seconds: two scrapes."""
    total = rng.randint(1, 8)
    script = Script("short", run_id, began, total=total)
    return _work(script, rng, total, lambda: rng.uniform(0.2, 3), hangs=rng.random() < 0.2)


def stillborn(spinner_rng: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Half of the runs hang before their first record finishes."""
    total = rng.randint(20, 200)
    script = Script("stillborn", run_id, began, total=total)
    if rng.random() < 0.5:
        return _hang(script, rng)
    first = spinner_rng.uniform(0.5, 10) * MINUTE * rng.uniform(0.7, 1.4)
    script.finish(first)
    return _work(script, rng, total - 1, lambda: first * rng.uniform(0.1, 0.6), hangs=False)


def touched(spinner_rng: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """`updatedAt` changes every minute although nothing finishes; some runtimes send no `lastProgressAt`."""
    total = rng.randint(100, 600)
    script = Script("touched", run_id, began, total=total)
    if spinner_rng.random() < 0.5:
        script.omit_last_progress()
    mean = spinner_rng.uniform(2, 30)
    for _ in range(rng.randint(5, total - 1)):
        script.finish(rng.expovariate(1 / mean))
    script.hang(_stall_length(script, rng), touched_every=MINUTE)
    return script.play()


def waiting(spinner_rng: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Waits up to a day for a person; some runtimes show that in the counts only."""
    total = rng.randint(5, 30)
    script = Script("waiting", run_id, began, total=total, concurrency=2)
    has_status = spinner_rng.random() < 0.5
    for _ in range(rng.randint(1, total - 2)):
        script.finish(rng.uniform(10, 120))
    script.set(1.0, status=Status.WAITING if has_status else Status.RUNNING, waiting=2, running=0)
    script.set(rng.uniform(4, 26) * HOUR, status=Status.RUNNING, waiting=0, running=2)
    script.pause()
    return _work(script, rng, 2, lambda: rng.uniform(10, 120), hangs=rng.random() < 0.3)


def retry_storm(spinner_rng: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """All records fail, which is progress; half of the runs then hang."""
    total = rng.randint(200, 900)
    script = Script("retry storm", run_id, began, total=total, concurrency=4)
    for _ in range(rng.randint(50, total - 20)):
        script.finish(rng.expovariate(1 / 8), failed=True)
    if rng.random() < 0.5:
        return _hang(script, rng)
    script.end(Status.FAILED)
    return script.play()


def heals(spinner_rng: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Stalls, continues, and in half of the runs stalls again."""
    total = rng.randint(200, 900)
    script = Script("heals", run_id, began, total=total)
    mean = spinner_rng.uniform(3, 40)
    for _ in range(rng.randint(30, 100)):
        script.finish(rng.expovariate(1 / mean))
    script.hang(rng.uniform(25, 60) * MINUTE)
    for _ in range(rng.randint(30, 90)):
        script.finish(rng.expovariate(1 / mean))
    if rng.random() < 0.5:
        return _hang(script, rng)
    script.end()
    return script.play()


def restarted(spinner_rng: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Restarted under the same id: queued again, with its counts reset."""
    total = rng.randint(100, 400)
    script = Script("restarted", run_id, began, total=total)
    for _ in range(rng.randint(20, 90)):
        script.finish(rng.expovariate(1 / 10))
    script.set(30, status=Status.QUEUED, started_at=None, completed=0, failed=0)
    script.set(rng.uniform(1, 14) * MINUTE)
    script.set(status=Status.RUNNING, started_at=script.now)
    return _work(script, rng, rng.randint(50, total), lambda: rng.expovariate(1 / 10), hangs=rng.random() < 0.5)


def no_end(spinner_rng: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Ended according to its status, without an end time and with records that were never started."""
    script = Script("no end time", run_id, began, total=500)
    for _ in range(rng.randint(20, 200)):
        script.finish(rng.expovariate(1 / 10))
    script.end(rng.choice((Status.COMPLETED, Status.FAILED, Status.CANCELLED)), has_end_time=False)
    script.set(6 * HOUR)
    return script.play()


def total_unknown(spinner_rng: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """The total is unknown until the end."""
    script = Script("total unknown", run_id, began, total=None, concurrency=3)
    mean = spinner_rng.uniform(5, 90)
    return _work(script, rng, rng.randint(50, 300), lambda: rng.expovariate(1 / mean), hangs=rng.random() < 0.5)


def never_picked_up(spinner_rng: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Queued, without a start and without counts; half of the runs are picked up, half never."""
    script = Script("never picked up", run_id, began, total=None, queued=True)
    if rng.random() < 0.5:
        script.pause(rng.uniform(5, 600))
        script.set(status=Status.RUNNING, started_at=script.now)
        return _work(script, rng, rng.randint(20, 200), lambda: rng.expovariate(1 / 5), hangs=False)
    script.hang(rng.uniform(30, 90) * MINUTE)
    return script.play()


def in_line(spinner_rng: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Queued for up to hours behind a healthy run of its project, and then a healthy run itself."""
    ahead = Script("in line", f"{run_id}-ahead", began, total=None, concurrency=2)
    mean = spinner_rng.uniform(10, 500)
    for _ in range(30):
        ahead.finish(mean * rng.lognormvariate(0, 0.3))
    ahead.end()
    script = Script("in line", run_id, began, total=None, queued=True)
    script.pause(ahead.now + rng.uniform(1, 60) - began)
    script.set(status=Status.RUNNING, started_at=script.now)
    history = _work(script, rng, rng.randint(20, 200), lambda: rng.expovariate(1 / 5), hangs=False)
    return dataclasses.replace(history, beside=(ahead.play(),))


def exporter_restarts(spinner_rng: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """The exporter restarts while a run hangs; half of the runtimes send `lastProgressAt`."""
    script = Script("exporter restarts", run_id, began, total=rng.randint(200, 900))
    if spinner_rng.random() < 0.5:
        script.omit_last_progress()
    mean = spinner_rng.uniform(3, 60)
    for _ in range(rng.randint(20, 150)):
        script.finish(rng.expovariate(1 / mean))
    restarted_at = script.now + rng.uniform(1, 25) * MINUTE
    return dataclasses.replace(_hang(script, rng), problem=Problem(restarted_at=restarted_at))


def scrape_gap(spinner_rng: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Five minutes without a scrape, during a hang or during normal work."""
    script = Script("scrape gap", run_id, began, total=rng.randint(300, 900))
    if spinner_rng.random() < 0.5:
        script.omit_last_progress()
    mean = spinner_rng.uniform(3, 60)
    hangs = rng.random() < 0.6
    for _ in range(rng.randint(50, 250)):
        script.finish(rng.expovariate(1 / mean))
    gap_at = script.now + rng.uniform(0, 20) * MINUTE if hangs else rng.uniform(began, script.now)
    if hangs:
        history = _hang(script, rng)
    else:
        script.end()
        history = script.play()
    return dataclasses.replace(history, problem=Problem(unscraped=(gap_at, gap_at + 5 * MINUTE)))


def clocks_apart(spinner_rng: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """The runtime's clock is a minute and a half ahead or behind."""
    script = Script("clocks apart", run_id, began, total=rng.randint(300, 900))
    mean = spinner_rng.uniform(3, 60)
    ahead = spinner_rng.choice((-90.0, 90.0))
    history = _work(script, rng, rng.randint(50, 250), lambda: rng.expovariate(1 / mean), hangs=rng.random() < 0.5)
    return dataclasses.replace(history, problem=Problem(ahead=ahead))


def outages(seed: int, count: int) -> Iterator[History]:
    """Yield runs during which the worker service goes down.

    Each outage affects three runs. Two continue after it; the runtime lost the third, which is stalled from then on.
    """
    began = 1_764_000_000.0
    for number in range(count):
        rng = random.Random(f"{seed} outage {number}")
        shown_as = ("reported", "old heartbeat", "no heartbeat")[number % 3]
        since = began + rng.uniform(10, 60) * MINUTE
        outage = Outage(since, since + rng.uniform(10, 300) * MINUTE, shown_as)
        first, second, lost = (
            _through(outage, f"outage-{number}-{each}", began, rng, continues=each < 2) for each in range(3)
        )
        over = max(first.until, second.until, lost.until)
        whole = dataclasses.replace(first, until=over, problem=Problem(outage=outage), beside=(second, lost))
        yield whole
        began = over + HOUR


def _through(outage: Outage, run_id: str, began: float, rng: random.Random, *, continues: bool) -> History:
    """A run that makes no progress while the worker service is down."""
    script = Script(f"runtime down: {outage.shown_as}", run_id, began, total=None, concurrency=2)
    mean = rng.uniform(2, 90)
    while (gap := rng.expovariate(1 / mean)) + script.now < outage.since:
        script.finish(gap)
    script.pause(outage.until - script.now)
    if not continues:
        return _hang(script, rng)
    for _ in range(rng.randint(20, 200)):
        script.finish(rng.expovariate(1 / mean))
    script.end()
    return script.play()


KINDS: dict[str, Kind] = {
    kind.__name__: kind
    for kind in (
        steady_fast,
        slow,
        bursts,
        straggler,
        short,
        stillborn,
        touched,
        waiting,
        retry_storm,
        heals,
        restarted,
        no_end,
        total_unknown,
        never_picked_up,
        in_line,
        exporter_restarts,
        scrape_gap,
        clocks_apart,
    )
}


def _work(script: Script, rng: random.Random, records: int, gap: Callable[[], float], *, hangs: bool) -> History:
    """Let records finish one after the other; if `hangs`, the run hangs before the end."""
    last = rng.randint(0, max(records - 1, 0)) if hangs else records
    for _ in range(last):
        script.finish(gap())
    if hangs:
        return _hang(script, rng)
    script.end()
    return script.play()


def _hang(script: Script, rng: random.Random) -> History:
    script.hang(_stall_length(script, rng))
    return script.play()


def _stall_length(script: Script, rng: random.Random) -> float:
    """Return a length that counts as a stall, with a margin."""
    return max(30 * MINUTE, 9 * script._longest) * rng.uniform(1.0, 1.6)
