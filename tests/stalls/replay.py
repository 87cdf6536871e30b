"""Replays labelled histories through the exporter's store, and scores our alerts and three other rules.

`python -m tests.stalls.replay [SEED]` prints the table.
"""

import dataclasses
import heapq
import itertools
import math
import operator
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from statistics import median

from exporter.runs.clock import RuntimeClock
from exporter.runs.store import Store
from exporter.runs.view import ShownRun
from exporter.runtime.model import Health, RunSnapshot
from exporter.status import Status
from tests.builders import config_with, read_project
from tests.stalls.histories import HOUR, MINUTE, STEP, History, Outage, corpus


@dataclasses.dataclass(frozen=True, slots=True)
class Scrape:
    """One scrape: the time by the runtime's clock and by ours, and what the exporter knows."""

    now: float
    wall: float
    history: History
    shown: dict[str, ShownRun]
    store: Store


Condition = Callable[[ShownRun, Scrape], bool]
"""Whether a rule's expression holds for a run; one with a range selector keeps its samples itself."""


@dataclasses.dataclass(frozen=True, slots=True)
class Alert:
    """An alert: makes a condition for each run; with `for` and `keep_firing_for` in seconds."""

    make: Callable[[], Condition]
    hold: float = 0.0
    keep: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """A way to detect stalls: one or more alerts."""

    name: str
    alerts: tuple[Alert, ...]


@dataclasses.dataclass(slots=True)
class Score:
    """How well a rule did on some histories."""

    stalls: int = 0
    found: int = 0
    in_time: int = 0
    false_pages: int = 0
    hours: float = 0.0
    delays: list[float] = dataclasses.field(default_factory=list)

    @property
    def recall(self) -> float:
        return self.found / self.stalls if self.stalls else 1.0

    @property
    def precision(self) -> float:
        pages = self.found + self.false_pages
        return self.found / pages if pages else 1.0

    @property
    def timely(self) -> float:
        return self.in_time / self.stalls if self.stalls else 1.0

    @property
    def median_delay(self) -> float:
        return median(self.delays) if self.delays else 0.0

    @property
    def false_per_100_hours(self) -> float:
        return 100 * self.false_pages / self.hours if self.hours else 0.0

    def add(self, history: History, pages: Iterable[float]) -> None:
        pages = list(pages)
        self.hours += history.hours
        for stall in history.stalls:
            hits = [page for page in pages if stall.since <= page <= stall.until + STEP]
            self.stalls += 1
            if hits:
                self.found += 1
                self.delays.append(hits[0] - stall.since)
                # A rule is evaluated every half minute, so a delay of one scrape is not its fault.
                self.in_time += hits[0] <= stall.due + STEP
        self.false_pages += sum(
            not any(stall.since <= page <= stall.until + STEP for stall in history.stalls) for page in pages
        )

    def __iadd__(self, other: "Score") -> "Score":
        for field in dataclasses.fields(Score):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))
        return self

    def row(self, name: str) -> str:
        return (
            f"{name:<24} {self.stalls:>6} {self.recall:>7.3f} {self.precision:>9.3f} {self.timely:>8.3f} "
            f"{self.median_delay / MINUTE:>7.1f}m {self.false_per_100_hours:>10.2f} {self.hours:>7.0f}"
        )


HEAD = " " * 25 + "stalls  recall precision  in time   median false/100h   hours"


def score(seed: int, spinners: int, rule: Rule) -> dict[str, Score]:
    """Return the score of a rule by kind of history."""
    scores: dict[str, Score] = {}
    for histories in corpus(seed, spinners):
        for history, found in play(histories, rule):
            scores.setdefault(history.kind, Score()).add(history, found)
    return scores


def play(histories: Iterable[History], rule: Rule) -> Iterable[tuple[History, list[float]]]:
    """Yield each run of a spinner with the times at which it pages."""
    for _, seen in itertools.groupby(scrapes(histories), key=lambda scrape: scrape.history.run_id):
        holds: dict[tuple[str, int], list[tuple[float, bool]]] = {}
        conditions: dict[tuple[str, int], Condition] = {}
        for scrape in seen:
            # Evaluated now, because the store changes with the next scrape.
            for each in (scrape.history, *scrape.history.beside):
                for number, alert in enumerate(rule.alerts):
                    key = each.run_id, number
                    condition = conditions.setdefault(key, alert.make())
                    shown = scrape.shown.get(each.run_id)
                    holds.setdefault(key, []).append((scrape.now, shown is not None and condition(shown, scrape)))
        for each in (scrape.history, *scrape.history.beside):
            found = (pages(holds[each.run_id, number], alert) for number, alert in enumerate(rule.alerts))
            yield each, sorted(itertools.chain(*found))


def scrapes(histories: Iterable[History], project: str = "Corpus") -> Iterator[Scrape]:
    """Yield a scrape every `STEP` seconds of each run in turn; the store reads the snapshots as they come."""
    store: Store | None = None
    wall = 0.0

    def clock() -> float:
        return wall

    for history in histories:
        problem = history.problem
        upcoming = deque(
            heapq.merge(*(each.snapshots for each in (history, *history.beside)), key=operator.itemgetter(0))
        )
        newest: dict[str, RunSnapshot] = {}
        now = history.snapshots[0][0]
        while now <= history.until + STEP:
            fresh = []
            while upcoming and upcoming[0][0] <= now:
                snapshot = upcoming.popleft()[1]
                newest[snapshot.id] = snapshot
                fresh.append((snapshot, now))
            if not problem.unscraped[0] <= now < problem.unscraped[1]:
                wall = now - problem.ahead
                if problem.restarted_at is not None and now - STEP < problem.restarted_at <= now:
                    store, fresh = None, [(each, now) for each in newest.values()]
                if store is None:
                    store = _store(clock, project)
                store.clock.begin()
                store.clock.observe(math.floor(now))  # whole seconds, as in an HTTP `Date`
                store.keep_health(_health(problem.outage, now))
                read_project(store, "p1", fresh, as_of=now, horizon=0.0)
                yield Scrape(now, wall, history, {each.run.id: each for each in store.view.runs()}, store)
            now += STEP
        # Hanging runs are removed from the runtime, as an operator would do.
        if store is not None:
            for run_id in newest:
                store.drop_run("p1", run_id)


def pages(results: Iterable[tuple[float, bool]], alert: Alert) -> list[float]:
    """Return when an alert starts to fire, from whether its expression holds at each scrape."""
    found: list[float] = []
    pending_since: float | None = None
    held_at = 0.0
    fires = False
    for now, holds in results:
        if holds:
            held_at = now
            pending_since = now if pending_since is None else pending_since
            if not fires and now - pending_since >= alert.hold:
                fires = True
                found.append(now)
        else:
            pending_since = None
            fires = fires and now - held_at <= alert.keep
    return found


def runtime_down(scrape: Scrape) -> bool:
    """Whether the runtime is down: the condition of SpinnerRuntimeDown."""
    health = scrape.store.view.health
    if health is None:
        return False
    beat = health.last_heartbeat_at
    return not health.runtime_up or (beat is not None and scrape.now - beat > _CONFIG.runtime.heartbeat_timeout)


def _stalled() -> Condition:
    def condition(shown: ShownRun, scrape: Scrape) -> bool:
        return _silent(shown, scrape) and not runtime_down(scrape)

    return condition


def _not_picked_up() -> Condition:
    def condition(shown: ShownRun, scrape: Scrape) -> bool:
        if shown.run.status is not Status.QUEUED or runtime_down(scrape):
            return False
        return not any(
            each.stall_threshold() is not None and not _silent(each, scrape) for each in scrape.shown.values()
        )

    return condition


def _silent(shown: ShownRun, scrape: Scrape) -> bool:
    threshold, progress = shown.stall_threshold(), shown.run.last_progress_at
    return threshold is not None and progress is not None and scrape.now - progress > threshold


def _no_changes_in_15m() -> Condition:
    """`changes(finished[15m]) == 0`, which also holds for a series that is younger than that."""
    seen: deque[tuple[float, int | None]] = deque()

    def condition(shown: ShownRun, scrape: Scrape) -> bool:
        seen.append((scrape.now, shown.run.records.finished))
        while seen[0][0] <= scrape.now - 15 * MINUTE:
            seen.popleft()
        return _in_progress(shown) and len({finished for _, finished in seen}) == 1

    return condition


def _running_for_an_hour() -> Condition:
    def condition(shown: ShownRun, scrape: Scrape) -> bool:
        started_at = shown.run.snapshot.started_at
        return _in_progress(shown) and started_at is not None and scrape.now - started_at > HOUR

    return condition


def _in_progress(shown: ShownRun) -> bool:
    return shown.run.status is Status.RUNNING


STALLED = Alert(_stalled, hold=MINUTE, keep=10 * MINUTE)
NOT_PICKED_UP = Alert(_not_picked_up, hold=15 * MINUTE, keep=10 * MINUTE)

OURS = Rule("by the run's own pace", (STALLED, NOT_PICKED_UP))
OTHER_RULES = (
    Rule("changes[15m] == 0", (Alert(_no_changes_in_15m),)),
    Rule("changes[15m] == 0, for 10m", (Alert(_no_changes_in_15m, hold=10 * MINUTE),)),
    Rule("running for an hour", (Alert(_running_for_an_hour),)),
)

_CONFIG = config_with(
    sync={"stale_after": HOUR}, limits={"runs": 100, "failed_records": 0, "failed_records_per_run": 0}
)


def _store(wall: Callable[[], float], project: str) -> Store:
    store = Store(_CONFIG, RuntimeClock(wall, wall), monotonic=wall)
    store.name_projects({"p1": project})
    return store


def _health(outage: Outage | None, now: float) -> Health:
    if outage is None or not outage.since <= now < outage.until:
        return Health(runtime_up=True, workers=4, last_heartbeat_at=now)
    return {
        "reported": Health(runtime_up=False, workers=0, last_heartbeat_at=outage.since),
        "old heartbeat": Health(runtime_up=True, workers=4, last_heartbeat_at=outage.since),
        "no heartbeat": Health(runtime_up=False),
    }[outage.shown_as]


def overall(scores: dict[str, Score]) -> Score:
    total = Score()
    for each in scores.values():
        total += each
    return total


def main() -> None:
    """Print the score of our alerts by kind of history, and then of all rules."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    ours = score(seed, SPINNERS, OURS)
    lines = [HEAD, *(each.row(kind) for kind, each in ours.items()), "", HEAD, overall(ours).row(OURS.name)]
    lines += [overall(score(seed, SPINNERS, other)).row(other.name) for other in OTHER_RULES]
    sys.stdout.write("\n".join(lines) + "\n")


SPINNERS = 10
"""Spinners of each kind: about 1,800 run-hours."""

if __name__ == "__main__":
    main()
