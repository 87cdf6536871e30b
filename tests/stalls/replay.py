"""Replays labelled histories through the exporter's store, and scores our alerts and other rules."""

import dataclasses
import heapq
import itertools
import math
import operator
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import median

from exporter.config import Config
from exporter.runs.clock import RuntimeClock
from exporter.runs.store import Store
from exporter.runs.view import ShownRun
from exporter.runtime.model import Health, RunSnapshot
from exporter.status import Status
from tests.builders import config_with, read_project
from tests.stalls.histories import HOUR, MINUTE, STEP, History, Outage
from tests.stalls.rivals import RIVALS, Rival, RivalRun


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
        """Return a line of a table; recall, precision and punctuality with their 95 % confidence intervals."""
        shares = (
            (self.found, self.stalls),
            (self.found, self.found + self.false_pages),
            (self.in_time, self.stalls),
        )
        cells = (f"{part / whole:.3f} {_interval(part, whole)}" if whole else "-" for part, whole in shares)
        return (
            f"{name:<37} {self.stalls:>6} {' '.join(f'{cell:>17}' for cell in cells)} "
            f"{self.median_delay / MINUTE:>6.1f}m {self.false_per_100_hours:>9.2f} {self.false_pages:>5} "
            f"{self.hours:>6.0f}"
        )


HEAD = f"{'':<37} stalls {'recall':>17} {'precision':>17} {'in time':>17}  median false/100h false  hours"


def score(
    spinners: Iterable[Iterable[History]],
    rules: Sequence[Rule],
    *,
    reads_more: Callable[[Scrape], None] = lambda scrape: None,
) -> list[list[tuple[str, Score]]]:
    """Return by rule the score of each spinner, with its kind.

    `reads_more` may read more into the store after each scrape, for the next one.
    """
    scores: list[list[tuple[str, Score]]] = [[] for _ in rules]
    for histories in spinners:
        mine: list[Score] = [Score() for _ in rules]
        kind = ""
        for history, found in play(histories, rules, reads_more=reads_more):
            kind = history.kind
            for score, pages in zip(mine, found, strict=True):
                score.add(history, pages)
        for each, score in zip(scores, mine, strict=True):
            each.append((kind, score))
    return scores


def play(
    histories: Iterable[History],
    rules: Sequence[Rule],
    *,
    reads_more: Callable[[Scrape], None] = lambda scrape: None,
) -> Iterator[tuple[History, list[list[float]]]]:
    """Yield each run of a spinner with the times at which it pages, by rule."""
    alerts = [(number, alert) for number, rule in enumerate(rules) for alert in rule.alerts]
    for _, seen in itertools.groupby(scrapes(histories), key=lambda scrape: scrape.history.run_id):
        states: dict[str, list[tuple[int, Condition, Pager]]] = {}
        history = None
        for scrape in seen:
            history = scrape.history
            # Evaluated now, because the store changes with the next scrape.
            for each in (history, *history.beside):
                if each.run_id not in states:
                    states[each.run_id] = [(number, alert.make(), Pager(alert)) for number, alert in alerts]
                shown = scrape.shown.get(each.run_id)
                for _, condition, pager in states[each.run_id]:
                    pager.see(scrape.now, holds=shown is not None and condition(shown, scrape))
            reads_more(scrape)
        for each in () if history is None else (history, *history.beside):
            found: list[list[float]] = [[] for _ in rules]
            for number, _, pager in states[each.run_id]:
                found[number] += pager.pages
            yield each, [sorted(times) for times in found]


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
        if store is not None:
            # Between two runs the exporter reads, and forgets.
            wall = now - STEP - problem.ahead
            store.clock.observe(now - STEP)
            read_project(store, "p1", [], as_of=now - STEP, horizon=0.0)
            store.expire()
        while now <= history.until + STEP:
            fresh = []
            while upcoming and upcoming[0][0] <= now:
                snapshot = upcoming.popleft()[1]
                newest[snapshot.id] = snapshot
                fresh.append((snapshot, now))
            if not problem.unscraped[0] <= now < problem.unscraped[1]:
                wall = now - problem.ahead
                if problem.restarted_at is not None and now - STEP < problem.restarted_at <= now:
                    rows = list(store.persistence.unsaved()) if store is not None and problem.keeps_state else []
                    store, fresh = _store(clock, project), [(each, now) for each in newest.values()]
                    store.persistence.restore(rows)
                elif store is None:
                    store = _store(clock, project)
                store.clock.begin()
                store.clock.observe(math.floor(now))  # whole seconds, as in an HTTP `Date`
                store.keep_health(_health(problem.outage, now))
                read_project(store, "p1", fresh, as_of=now, horizon=0.0)
                found = ((run_id, store.view.run(("p1", run_id))) for run_id in newest)
                yield Scrape(now, wall, history, {run_id: run for run_id, run in found if run is not None}, store)
            now += STEP
        # Hanging runs are removed from the runtime, as an operator would do.
        if store is not None:
            for run_id in newest:
                store.drop_run("p1", run_id)


class Pager:
    """One alert on one run: notes when it starts to fire."""

    def __init__(self, alert: Alert) -> None:
        self._alert = alert
        self._pending_since: float | None = None
        self._held_at = 0.0
        self._fires = False
        self.pages: list[float] = []

    def see(self, now: float, *, holds: bool) -> None:
        """Note whether the alert's expression holds at an evaluation."""
        if not holds:
            self._pending_since = None
            self._fires = self._fires and now - self._held_at <= self._alert.keep
            return
        self._held_at = now
        self._pending_since = now if self._pending_since is None else self._pending_since
        if not self._fires and now - self._pending_since >= self._alert.hold:
            self._fires = True
            self.pages.append(now)


def pages(results: Iterable[tuple[float, bool]], alert: Alert) -> list[float]:
    """Return when an alert starts to fire, from whether its expression holds at each evaluation."""
    pager = Pager(alert)
    for now, holds in results:
        pager.see(now, holds=holds)
    return pager.pages


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


def with_false_pages(false_pages: float) -> Rule:
    """Return our alerts with another value of `stalls.false_pages`."""
    config = _config({"false_pages": false_pages})

    def make_condition() -> Condition:
        def condition(shown: ShownRun, scrape: Scrape) -> bool:
            scrape.store.config = config
            other = scrape.store.view.run(("p1", shown.run.id))
            scrape.store.config = _CONFIG
            return other is not None and _silent(other, scrape) and not runtime_down(scrape)

        return condition

    return Rule(f"{false_pages:g}", (Alert(make_condition, hold=MINUTE, keep=10 * MINUTE), NOT_PICKED_UP))


def _by_rival(make: Callable[[], Rival]) -> Callable[[], Condition]:
    def make_condition() -> Condition:
        seen = RivalRun(make)

        def condition(shown: ShownRun, scrape: Scrape) -> bool:
            threshold, progress = seen.stall_threshold(shown), shown.run.last_progress_at
            at_work = shown.stall_threshold() is not None and not runtime_down(scrape)
            return at_work and progress is not None and scrape.now - progress > threshold

        return condition

    return make_condition


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
RIVAL_RULES = tuple(
    Rule(name, (Alert(_by_rival(make), hold=MINUTE, keep=10 * MINUTE), NOT_PICKED_UP)) for name, make in RIVALS.items()
)
OTHER_RULES = (
    *RIVAL_RULES,
    Rule("changes[15m] == 0", (Alert(_no_changes_in_15m),)),
    Rule("changes[15m] == 0, for 10m", (Alert(_no_changes_in_15m, hold=10 * MINUTE),)),
    Rule("running for an hour", (Alert(_running_for_an_hour),)),
)


def _config(stalls: Mapping[str, float] | None = None) -> Config:
    limits = {"runs": 100, "failed_records": 0, "failed_records_per_run": 0}
    return config_with(sync={"stale_after": HOUR}, limits=limits, stalls=stalls or {})


_CONFIG = _config()


def _store(wall: Callable[[], float], project: str) -> Store:
    store = Store(_CONFIG, RuntimeClock(wall, wall), monotonic=wall, is_saved=True)
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


def overall(scores: Iterable[tuple[str, Score]]) -> Score:
    """Return the sum of scores."""
    total = Score()
    for _, each in scores:
        total += each
    return total


def by_kind(scores: Iterable[tuple[str, Score]]) -> dict[str, Score]:
    """Return the sum of scores by kind."""
    kinds: dict[str, Score] = {}
    for kind, each in scores:
        total = kinds.setdefault(kind, Score())
        total += each
    return kinds


def table(scores: Sequence[tuple[str, Score]]) -> str:
    """Return a table of the scores by kind."""
    rows = [each.row(kind) for kind, each in by_kind(scores).items()]
    return "\n".join(["", HEAD, *rows, overall(scores).row("all")])


def bootstrapped(scores: Sequence[tuple[str, Score]]) -> str:
    """Return 95 % intervals of the figures, from samples of the spinners: the runs of one are not independent."""
    rng = random.Random(0)
    samples = [overall(rng.choices(scores, k=len(scores))) for _ in range(500)]
    figures = []
    for name, figure in FIGURES.items():
        values = sorted(figure(sample) for sample in samples)
        figures.append(f"{name} {values[12]:.3g}-{values[487]:.3g}")
    return ", ".join(figures)


def _interval(successes: int, trials: int) -> str:
    low, high = wilson(successes, trials)
    return f"{low:.2f}-{high:.2f}"


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a share, by Wilson."""
    if not trials:
        return 0.0, 1.0
    share, z = successes / trials, 1.96
    middle = (share + z * z / 2 / trials) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / 4 / trials / trials)
    return max(middle - half, 0.0), min(middle + half, 1.0)


FIGURES: dict[str, Callable[[Score], float]] = {
    "recall": lambda score: score.recall,
    "precision": lambda score: score.precision,
    "in time": lambda score: score.timely,
    "median": lambda score: score.median_delay / MINUTE,
    "false/100h": lambda score: score.false_per_100_hours,
}
