"""`python -m tests.stalls.one_at_a_time`: runs whose records take minutes, one after the other, some much longer.

They are the hardest: in hours there are few gaps, and some are several times as long as all before. The exporter starts
while the first run is under way, when it knows other spinners of the project only.
"""

import dataclasses
import random
import sys
from collections.abc import Callable, Iterator, Mapping

from tests.stalls.harder import run
from tests.stalls.histories import HOUR, MINUTE, History
from tests.stalls.pool import with_retries, worked
from tests.stalls.replay import HEAD, OURS, Score, play

SPINNERS = 200
"""Spinners of each law."""

Law = Callable[[random.Random, float], float]
"""Draws how many seconds a record takes; the number is the mean of the spinner, or near it."""

TUNE: Mapping[str, Law] = {
    "uniform": lambda rng, mean: mean * rng.uniform(0.25, 1.75),
    "exponential": lambda rng, mean: mean * (0.2 + 0.8 * rng.expovariate(1)),
    "lognormal": lambda rng, mean: 0.8 * mean * rng.lognormvariate(0, 0.7),
    "two kinds": lambda rng, mean: mean * rng.choice((0.25, 0.25, 2.5)) * rng.uniform(0.5, 1.5),
}
"""The constants were chosen on them."""

HELD_OUT: Mapping[str, Law] = {
    "gamma": lambda rng, mean: rng.gammavariate(1.5, mean / 1.5),
    "weibull": lambda rng, mean: rng.weibullvariate(0.9 * mean, 0.8),
    "retries": lambda rng, mean: with_retries(rng, 0.6 * mean * rng.lognormvariate(0, 0.4), 0.2, MINUTE),
}


def project(law: Law, seed: str) -> Iterator[History]:
    """Yield runs of three other spinners, then seven of a slow one, of which the first is seen from its middle on."""
    rng = random.Random(seed)
    mean = rng.uniform(3, 8) * MINUTE
    began = 1_764_000_000.0
    for number in range(10):
        run_id = f"run-{number}"
        if number < 3:
            durations = [rng.uniform(5, 60) for _ in range(200)]
            history = run("fast", rng, rng, run_id, began, worked(durations, 2), hangs=0.0, spinner=f"Fast {number}")
        else:
            durations = [law(rng, mean) for _ in range(rng.randint(10, 30))]
            history = run("slow", random.Random(seed), rng, run_id, began, worked(durations, 1), hangs=0.2)
        yield history if number != 3 else _from(rng.uniform(began, history.snapshots[-1][0]), history)
        began = history.until + HOUR


def _from(since: float, history: History) -> History:
    """Return what is seen of a run from some time on."""
    last = [each for each in history.snapshots if each[0] <= since][-1]
    seen = [(since, last[1]), *(each for each in history.snapshots if each[0] > since)]
    return dataclasses.replace(history, snapshots=seen, stalls=[each for each in history.stalls if each.since >= since])


def main() -> None:
    """Print the scores by law and by how many earlier runs of the spinner are known."""
    lines = [HEAD]
    for name, law in [*TUNE.items(), *HELD_OUT.items()]:
        scores = {"first run": Score(), "second run": Score(), "third to seventh run": Score()}
        for spinner in range(SPINNERS):
            found = play(project(law, f"{name} {spinner}"), (OURS,))
            for number, (history, (pages,)) in enumerate(found):
                if history.kind == "slow":
                    list(scores.values())[min(number - 3, 2)].add(history, pages)
        part = "to tune on" if name in TUNE else "held out"
        lines += [f"{name}, {part}", *(each.row(f"  {label}") for label, each in scores.items())]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
