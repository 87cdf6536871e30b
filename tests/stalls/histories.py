"""Labelled histories of runs: what a runtime would have shown every half minute, and where it truly stood still.

A history is one spinner's runs, one after the other, since earlier runs are part of what is known of a later one. A
true stall is a hang that the story put there, of at least 20 minutes and 8 times the run's longest gap until then;
whatever else a run does, however slow it looks, is none.
"""

import dataclasses
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from exporter.runtime.model import RecordCounts, RunSnapshot
from exporter.status import Status

STEP = 30.0
"""Seconds between two looks at a run; the scrape interval of the corpus."""

MINUTE, HOUR = 60.0, 3600.0


@dataclasses.dataclass(frozen=True, slots=True)
class Stall:
    """A time for which a run truly stood still; `longest_gap` is its longest gap before that."""

    since: float
    until: float
    longest_gap: float

    @property
    def due(self) -> float:
        """When it has to be found at the latest."""
        return self.since + max(20 * MINUTE, 3 * self.longest_gap)


@dataclasses.dataclass(frozen=True, slots=True)
class Outage:
    """A time for which the worker service was down, and how that showed."""

    since: float
    until: float
    shows: str
    """`says so`, `heartbeat stands still` while health says up, or `no heartbeat` at all."""


@dataclasses.dataclass(frozen=True, slots=True)
class Trouble:
    """What else went wrong while a run was watched."""

    unseen: tuple[float, float] = (0.0, 0.0)
    """A time without a look: Prometheus scraped nothing."""
    restarted_at: float | None = None
    """When the exporter began anew, with nothing remembered."""
    ahead: float = 0.0
    """Seconds by which the runtime's clock is ahead of ours."""
    outage: Outage | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class History:
    """One run as it showed: a snapshot for every look at which it had changed, and the truth.

    Times are the runtime's.
    """

    kind: str
    snapshots: Sequence[tuple[float, RunSnapshot]]
    until: float
    stalls: Sequence[Stall]
    problem: Trouble = Trouble()
    beside: Sequence["History"] = ()
    """Other runs of the same project meanwhile."""

    @property
    def run_id(self) -> str:
        """The run that it is about."""
        return self.snapshots[0][1].id

    @property
    def hours(self) -> float:
        """How long the run was watched while it was not over."""
        over = next((time for time, each in self.snapshots if each.status.ended), self.until)
        return (over - self.snapshots[0][0]) / HOUR


class Script:
    """Writes one run's story, event by event, and plays it."""

    def __init__(
        self,
        kind: str,
        run_id: str,
        began: float,
        *,
        total: int | None,
        concurrency: int = 1,
        queued: bool = False,
    ) -> None:
        """A run that is `queued` shows no counts until it has a start."""
        self._kind = kind
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
        self._says_progress = True
        self.now = began
        self._last = began
        self._longest = 0.0
        self._stalls: list[Stall] = []
        self._note()

    def finish(self, after: float, *, failed: bool = False) -> None:
        """Let one record finish, so many seconds after the last event."""
        self.now += after
        self._state["failed" if failed else "completed"] += 1
        self._longest = max(self._longest, self.now - self._last)
        self._last = self._state["progressed"] = self.now
        self._note()

    def hang(self, seconds: float, *, touched_every: float | None = None) -> None:
        """Stand still; it counts as a stall when it is long enough for what the run did before."""
        until = self.now + seconds
        if touched_every is not None:
            while self.now + touched_every < until:
                self.now += touched_every
                self._note(touched=True)
        if until - self._last >= max(20 * MINUTE, 8 * self._longest):
            self._stalls.append(Stall(self._last, until, self._longest))
        self.now = until

    def set(self, after: float = 0.0, **state: Any) -> None:
        """Change anything else, so many seconds after the last event."""
        self.now += after
        self._state |= state
        if state.get("started_at") is not None:
            self._last = self._state["progressed"] = state["started_at"]
        self._note()

    def pause(self, seconds: float = 0.0) -> None:
        """Let time pass; the silence until then is nobody's fault and no gap."""
        self.now += seconds
        self._last = self.now

    def end(self, status: Status = Status.COMPLETED, *, says_when: bool = True) -> None:
        """End the run now."""
        self.set(status=status, ended_at=self.now if says_when else None, running=0)

    def keep_progress_to_itself(self) -> None:
        """Let the runtime not say when it last progressed."""
        self._says_progress = False

    def play(self) -> History:
        """Return what is seen of it every `STEP` seconds, a moment after each change became visible."""
        seen: list[tuple[float, RunSnapshot]] = []
        events = iter([*self._events, (float("inf"), {})])
        at, state = next(events)
        upcoming, after = next(events)
        look = at
        while look <= self.now + STEP:
            moved = False
            while upcoming <= look:
                at, state = upcoming, after
                upcoming, after = next(events)
                moved = True
            if moved or not seen:
                seen.append((look, self._snapshot(at, state)))
            look += STEP
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
            spinner=self._kind,
            trigger="schedule",
            parent_id="",
            status=state["status"],
            created_at=state["created_at"],
            updated_at=at,
            started_at=state["started_at"],
            ended_at=state["ended_at"],
            last_progress_at=state["progressed"] if self._says_progress and started and finished else None,
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


Kind = Callable[[random.Random, random.Random, str, float], History]
"""Writes a run that begins at a time. The first generator draws what its spinner is like, the same for each of its
runs; the second what happens in this one."""


def corpus(seed: int, spinners: int, runs: int = 4) -> Iterator[list[History]]:
    """Yield the histories of so many spinners of every kind, each with so many runs, one after the other."""
    for name, kind in KINDS.items():
        for spinner in range(spinners):
            rng = random.Random(f"{seed} {name} {spinner}")
            began, histories = 1_764_000_000.0, []
            for number in range(runs):
                law = random.Random(f"{seed} {name} {spinner} law")
                history = kind(law, rng, f"{name}-{spinner}-{number}", began)
                histories.append(history)
                began = history.until + rng.uniform(1, 60) * MINUTE
            yield histories


def steady_fast(law: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Thousands of records, seconds apart; half of the runs die somewhere."""
    total = rng.randint(400, 3000)
    script = Script("steady fast", run_id, began, total=total, concurrency=law.randint(1, 8))
    mean = law.uniform(0.5, 8)
    return _work(script, rng, total, lambda: rng.expovariate(1 / mean), dies=rng.random() < 0.5)


def slow(law: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """One record every few minutes, for hours."""
    total = rng.randint(30, 120)
    script = Script("slow", run_id, began, total=total)
    mean = law.uniform(2, 9) * MINUTE
    return _work(script, rng, total, lambda: mean * rng.lognormvariate(0, 0.35), dies=rng.random() < 0.4)


def bursts(law: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Seconds between records, and between bursts nothing for up to half an hour or more: it goes by batches."""
    script = Script("bursts", run_id, began, total=None, concurrency=4)
    dies = rng.random() < 0.4
    idle = law.uniform(8, 25) * MINUTE
    batches = rng.randint(4, 14)
    dies_in = rng.randint(1, batches)
    for batch in range(batches):
        for _ in range(rng.randint(10, 60)):
            script.finish(rng.expovariate(1 / 3))
        if dies and batch + 1 == dies_in:
            return _die(script, rng)
        script.finish(idle * rng.uniform(0.6, 1.3))
    script.end()
    return script.play()


def straggler(law: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Many at once, and the last record takes as long as a record takes: gap times concurrency."""
    at_once = law.randint(4, 20)
    each = law.uniform(5, 40) * MINUTE
    total = at_once * rng.randint(4, 9)
    script = Script("straggler", run_id, began, total=total, concurrency=at_once)
    busy = [began + each * rng.uniform(0.1, 1.2) for _ in range(at_once)]
    ends = []
    for _ in range(total - at_once):
        busy.sort()
        ends.append(busy[0])
        busy[0] += each * rng.lognormvariate(0, 0.3)
    ends = sorted(ends + busy)
    dies_after = rng.randint(at_once, total - at_once) if rng.random() < 0.4 else total
    for end in ends[:dies_after]:
        script.finish(max(end - script.now, 0.0))
    if dies_after < total:
        return _die(script, rng)
    script.end()
    return script.play()


def short(law: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Over in ten seconds: two looks in all."""
    total = rng.randint(1, 8)
    script = Script("short", run_id, began, total=total)
    return _work(script, rng, total, lambda: rng.uniform(0.2, 3), dies=rng.random() < 0.2)


def stillborn(law: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Some die before their first record is done."""
    total = rng.randint(20, 200)
    script = Script("stillborn", run_id, began, total=total)
    if rng.random() < 0.5:
        return _die(script, rng)
    first = law.uniform(0.5, 10) * MINUTE * rng.uniform(0.7, 1.4)
    script.finish(first)
    return _work(script, rng, total - 1, lambda: first * rng.uniform(0.1, 0.6), dies=False)


def touched(law: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """A runtime that moves `updatedAt` every minute although nothing finishes, and does not say when it progressed."""
    total = rng.randint(100, 600)
    script = Script("touched", run_id, began, total=total)
    if law.random() < 0.5:
        script.keep_progress_to_itself()
    mean = law.uniform(2, 30)
    for _ in range(rng.randint(5, total - 1)):
        script.finish(rng.expovariate(1 / mean))
    script.hang(_long(script, rng), touched_every=MINUTE)
    return script.play()


def waiting(law: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Waits a day for a person; some runtimes show it in the counts alone."""
    total = rng.randint(5, 30)
    script = Script("waiting", run_id, began, total=total, concurrency=2)
    shows = law.random() < 0.5
    for _ in range(rng.randint(1, total - 2)):
        script.finish(rng.uniform(10, 120))
    script.set(1.0, status=Status.WAITING if shows else Status.RUNNING, waiting=2, running=0)
    script.set(rng.uniform(4, 26) * HOUR, status=Status.RUNNING, waiting=0, running=2)
    script.pause()
    return _work(script, rng, 2, lambda: rng.uniform(10, 120), dies=rng.random() < 0.3)


def retry_storm(law: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Nothing completes and everything fails: that is progress, until it hangs as well."""
    total = rng.randint(200, 900)
    script = Script("retry storm", run_id, began, total=total, concurrency=4)
    for _ in range(rng.randint(50, total - 20)):
        script.finish(rng.expovariate(1 / 8), failed=True)
    if rng.random() < 0.5:
        return _die(script, rng)
    script.end(Status.FAILED)
    return script.play()


def heals(law: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Stalls, goes on, and stalls again."""
    total = rng.randint(200, 900)
    script = Script("heals", run_id, began, total=total)
    mean = law.uniform(3, 40)
    for _ in range(rng.randint(30, 100)):
        script.finish(rng.expovariate(1 / mean))
    script.hang(rng.uniform(25, 60) * MINUTE)
    for _ in range(rng.randint(30, 90)):
        script.finish(rng.expovariate(1 / mean))
    if rng.random() < 0.5:
        return _die(script, rng)
    script.end()
    return script.play()


def restarted(law: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Begun anew under the same id: counts reset, queued again with the queue's time begun anew, and as good as new."""
    total = rng.randint(100, 400)
    script = Script("restarted", run_id, began, total=total)
    for _ in range(rng.randint(20, 90)):
        script.finish(rng.expovariate(1 / 10))
    script.set(30, status=Status.QUEUED, started_at=None, completed=0, failed=0)
    script.set(rng.uniform(1, 14) * MINUTE)
    script.set(status=Status.RUNNING, started_at=script.now)
    return _work(script, rng, rng.randint(50, total), lambda: rng.expovariate(1 / 10), dies=rng.random() < 0.5)


def no_end(law: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Over by its status, without a word on when; records that nobody ever tried stay behind."""
    script = Script("no end time", run_id, began, total=500)
    for _ in range(rng.randint(20, 200)):
        script.finish(rng.expovariate(1 / 10))
    script.end(rng.choice((Status.COMPLETED, Status.FAILED, Status.CANCELLED)), says_when=False)
    script.set(6 * HOUR)
    return script.play()


def total_unknown(law: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """How many records there are turns out at the end."""
    script = Script("total unknown", run_id, began, total=None, concurrency=3)
    mean = law.uniform(5, 90)
    return _work(script, rng, rng.randint(50, 300), lambda: rng.expovariate(1 / mean), dies=rng.random() < 0.5)


def never_picked_up(law: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Queued, without a start and without counts; some are taken up in the end, some never."""
    script = Script("never picked up", run_id, began, total=None, queued=True)
    if rng.random() < 0.5:
        script.pause(rng.uniform(5, 600))
        script.set(status=Status.RUNNING, started_at=script.now)
        return _work(script, rng, rng.randint(20, 200), lambda: rng.expovariate(1 / 5), dies=False)
    script.hang(rng.uniform(30, 90) * MINUTE)
    return script.play()


def in_line(law: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Queued for hours behind a run of its project that works, and then as good as any."""
    ahead = Script("in line", f"{run_id}-ahead", began, total=None, concurrency=2)
    mean = law.uniform(10, 500)
    for _ in range(30):
        ahead.finish(mean * rng.lognormvariate(0, 0.3))
    ahead.end()
    script = Script("in line", run_id, began, total=None, queued=True)
    script.pause(ahead.now + rng.uniform(1, 60) - began)
    script.set(status=Status.RUNNING, started_at=script.now)
    history = _work(script, rng, rng.randint(20, 200), lambda: rng.expovariate(1 / 5), dies=False)
    return dataclasses.replace(history, beside=(ahead.play(),))


def exporter_restarts(law: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """The exporter begins anew while a run hangs; half of the runtimes say when it last progressed."""
    script = Script("exporter restarts", run_id, began, total=rng.randint(200, 900))
    if law.random() < 0.5:
        script.keep_progress_to_itself()
    mean = law.uniform(3, 60)
    for _ in range(rng.randint(20, 150)):
        script.finish(rng.expovariate(1 / mean))
    restarted_at = script.now + rng.uniform(1, 25) * MINUTE
    return dataclasses.replace(_die(script, rng), problem=Trouble(restarted_at=restarted_at))


def scrape_gap(law: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Five minutes without a scrape, somewhere in a hang or in good work."""
    script = Script("scrape gap", run_id, began, total=rng.randint(300, 900))
    if law.random() < 0.5:
        script.keep_progress_to_itself()
    mean = law.uniform(3, 60)
    dies = rng.random() < 0.6
    for _ in range(rng.randint(50, 250)):
        script.finish(rng.expovariate(1 / mean))
    gap_at = script.now + rng.uniform(0, 20) * MINUTE if dies else rng.uniform(began, script.now)
    if dies:
        history = _die(script, rng)
    else:
        script.end()
        history = script.play()
    return dataclasses.replace(history, problem=Trouble(unseen=(gap_at, gap_at + 5 * MINUTE)))


def clocks_apart(law: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """The runtime's clock and ours differ by a minute and a half, either way."""
    script = Script("clocks apart", run_id, began, total=rng.randint(300, 900))
    mean = law.uniform(3, 60)
    ahead = law.choice((-90.0, 90.0))
    history = _work(script, rng, rng.randint(50, 250), lambda: rng.expovariate(1 / mean), dies=rng.random() < 0.5)
    return dataclasses.replace(history, problem=Trouble(ahead=ahead))


def outages(seed: int, count: int) -> Iterator[History]:
    """Yield runs in the middle of which the worker service goes down, one after the other.

    Three runs each are under way. Two go on when it returns; the runtime lost the third, which is a stall from then on.
    """
    began = 1_764_000_000.0
    for number in range(count):
        rng = random.Random(f"{seed} outage {number}")
        shows = ("says so", "heartbeat stands still", "no heartbeat")[number % 3]
        since = began + rng.uniform(10, 60) * MINUTE
        outage = Outage(since, since + rng.uniform(10, 300) * MINUTE, shows)
        first, second, lost = (
            _through(outage, f"outage-{number}-{each}", began, rng, goes_on=each < 2) for each in range(3)
        )
        over = max(first.until, second.until, lost.until)
        whole = dataclasses.replace(first, until=over, problem=Trouble(outage=outage), beside=(second, lost))
        yield whole
        began = over + HOUR


def _through(outage: Outage, run_id: str, began: float, rng: random.Random, *, goes_on: bool) -> History:
    """A run that stands still while the worker service is down."""
    script = Script(f"runtime down: {outage.shows}", run_id, began, total=None, concurrency=2)
    mean = rng.uniform(2, 90)
    while (gap := rng.expovariate(1 / mean)) + script.now < outage.since:
        script.finish(gap)
    script.pause(outage.until - script.now)
    if not goes_on:
        return _die(script, rng)
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


def _work(script: Script, rng: random.Random, records: int, gap: Callable[[], float], *, dies: bool) -> History:
    """Let records finish one after the other; a run that dies does so somewhere on the way."""
    last = rng.randint(0, max(records - 1, 0)) if dies else records
    for _ in range(last):
        script.finish(gap())
    if dies:
        return _die(script, rng)
    script.end()
    return script.play()


def _die(script: Script, rng: random.Random) -> History:
    script.hang(_long(script, rng))
    return script.play()


def _long(script: Script, rng: random.Random) -> float:
    """Return a hang that is a stall for sure: it would be one also if the run were much slower."""
    return max(30 * MINUTE, 9 * script._longest) * rng.uniform(1.0, 1.6)
