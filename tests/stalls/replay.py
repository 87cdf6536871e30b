"""Plays labelled histories through the exporter's own store, asks it and three rivals who would page, and keeps score.

`python -m tests.stalls.replay [SEED]` prints the table.
"""

import dataclasses
import sys
from collections import deque
from collections.abc import Callable, Iterable
from statistics import median

from exporter.runs.clock import RuntimeClock
from exporter.runs.store import Rules, ShownRun, Store
from exporter.status import Status
from tests.stalls.histories import HOUR, MINUTE, STEP, History, corpus

Verdict = Callable[[ShownRun, float], bool]
"""Whether a rule holds for a run at a time of the runtime's clock; a rule that looks back remembers for itself."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """A way to tell a stall: a verdict, made anew for each run, that has to hold for so many seconds."""

    name: str
    make: Callable[[], Verdict]
    hold: float


@dataclasses.dataclass(slots=True)
class Score:
    """What a rule made of some histories."""

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
                # The rule sees the run every half minute, so it can't be blamed for one look.
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
        for history, pages in play(histories, rule):
            scores.setdefault(history.kind, Score()).add(history, pages)
    return scores


def play(histories: list[History], rule: Rule) -> Iterable[tuple[History, list[float]]]:
    """Yield each run of a spinner with the times at which it pages; the store sees them as they come."""
    now = histories[0].snapshots[0][0]
    clock = lambda: now  # noqa: E731
    store = Store(_RULES, RuntimeClock(clock), monotonic=clock)
    store.name_projects({"p1": "Corpus"})
    for history in histories:
        verdict, pages = rule.make(), []
        since: float | None = None
        snapshots = deque(history.snapshots)
        run_id = snapshots[0][1].id
        now = snapshots[0][0]
        while now <= history.until + STEP:
            fresh = []
            while snapshots and snapshots[0][0] <= now:
                fresh.append((snapshots.popleft()[1], now))
            store.commit("p1", fresh, as_of=now, horizon=0.0)
            shown = next((each for each in store.runs() if each.run.id == run_id), None)
            if shown is not None and verdict(shown, now):
                if since is None:
                    since = now
                elif since >= 0 and now - since >= rule.hold:
                    pages.append(now)
                    since = -1.0  # it pages once, until it is well again
            else:
                since = None
            now += STEP
        yield history, pages
        # What the product's people do with a run that hangs: it ends, one way or the other.
        store.forget_run("p1", run_id)


def _ours() -> Verdict:
    def verdict(shown: ShownRun, now: float) -> bool:
        threshold, progress = shown.stall_threshold(), shown.run.last_progress_at
        return threshold is not None and progress is not None and now - progress > threshold

    return verdict


def _no_changes_in_15m() -> Verdict:
    """`changes(finished[15m]) == 0`: true also of a series that is younger than that."""
    looks: deque[tuple[float, int]] = deque()

    def verdict(shown: ShownRun, now: float) -> bool:
        looks.append((now, shown.run.records.finished))
        while looks[0][0] <= now - 15 * MINUTE:
            looks.popleft()
        return _in_progress(shown) and len({finished for _, finished in looks}) == 1

    return verdict


def _running_for_an_hour() -> Verdict:
    def verdict(shown: ShownRun, now: float) -> bool:
        started_at = shown.run.snapshot.started_at
        return _in_progress(shown) and started_at is not None and now - started_at > HOUR

    return verdict


def _in_progress(shown: ShownRun) -> bool:
    return shown.run.status is Status.RUNNING


OURS = Rule("by the run's own pace", _ours, hold=MINUTE)
RIVALS = (
    Rule("changes[15m] == 0", _no_changes_in_15m, hold=0.0),
    Rule("changes[15m] == 0, for 10m", _no_changes_in_15m, hold=10 * MINUTE),
    Rule("running for an hour", _running_for_an_hour, hold=0.0),
)

_RULES = Rules(
    retention=HOUR,
    stale_after=HOUR,
    max_runs=100,
    max_failed_records=0,
    max_failed_records_per_run=0,
    max_failure_groups=1,
)


def overall(scores: dict[str, Score]) -> Score:
    total = Score()
    for each in scores.values():
        total += each
    return total


def main() -> None:
    """Print the score of our rule by kind, then of all rules."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    ours = score(seed, SPINNERS, OURS)
    lines = [HEAD, *(each.row(kind) for kind, each in ours.items()), "", HEAD, overall(ours).row(OURS.name)]
    lines += [overall(score(seed, SPINNERS, rival)).row(rival.name) for rival in RIVALS]
    sys.stdout.write("\n".join(lines) + "\n")


SPINNERS = 10
"""Spinners of each kind: about 1,800 run-hours."""

if __name__ == "__main__":
    main()
