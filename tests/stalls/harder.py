"""Harder kinds of histories: heavy tails, many workers, windows, nights, retries, children, real task times.

Those of `UNSEEN` are in the held-out part only, those of `TUNE_ONLY` in the other one (`tests/stalls/parts.py`).
"""

import dataclasses
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path

from tests.stalls.histories import HOUR, MINUTE, History, Kind, Problem, Script, Work, _stall_length
from tests.stalls.pool import (
    Finish,
    at_once,
    by_day,
    exhausted,
    in_stages,
    scaled,
    shifts_of_staff,
    windows,
    with_retries,
    worked,
)

TASKS = Path(__file__).parent / "tasks.json"
"""Real task times; `tests/stalls/README.md` says where they are from."""


def run(
    kind: str,
    laws: random.Random,
    rng: random.Random,
    run_id: str,
    began: float,
    finishes: Sequence[Finish],
    *,
    hangs: float = 0.4,
    spinner: str = "",
    spinner_id: str = "",
    total_known: bool = True,
) -> History:
    """Return a run with these finishes, which hangs with some probability.

    The runtimes of half of the spinners update a run at once, the others every 5 seconds or every 5 minutes. A few tell
    no `lastProgressAt`.
    """
    updates_every = laws.choice((0.0, 0.0, 5.0, 5 * MINUTE))
    tells_last_progress = laws.random() < 0.75
    total = len(finishes)
    script = Script(
        kind,
        run_id,
        began,
        total=total if total_known else None,
        concurrency=finishes[0].running + 1,
        spinner=spinner,
        spinner_id=spinner_id,
    )
    if not tells_last_progress:
        script.omit_last_progress()
    hangs_after = rng.randrange(total) if rng.random() < hangs else total
    for finish in finishes[:hangs_after]:
        script.finish(max(began + finish.at - script.now, 0.0), failed=rng.random() < 0.01, running=finish.running)
    if hangs_after < total:
        script.hang(_stall_length(script, rng))
    else:
        script.end()
    played = script.play(updates_every=updates_every)
    return dataclasses.replace(played, work=_work(finishes, began, hangs_after))


def _work(finishes: Sequence[Finish], began: float, hangs_after: int) -> list[Work]:
    """Return when the records are worked on; those that are when the run begins to hang, hang as well."""
    work = [Work(began + each.began, began + each.at) for each in finishes[:hangs_after]]
    hangs_at = began + finishes[hangs_after - 1].at if hangs_after else began
    return work + [
        Work(began + each.began, began + each.at, hangs_at)
        for each in finishes[hangs_after:]
        if began + each.began <= hangs_at
    ]


def size(laws: random.Random, rng: random.Random, each: float, workers: int, hours: float = 6.0) -> int:
    """Return how many records a run has: 5 to 50,000, and no more than take some hours."""
    usual = 10 ** laws.uniform(math.log10(5), math.log10(50_000))
    return max(5, min(round(usual * rng.uniform(0.7, 1.4)), round(hours * HOUR * workers / each)))


def lognormal(laws: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Any size, any number of workers, records that take seconds or minutes, and some much longer."""
    workers = round(10 ** laws.uniform(0, 2))
    each, sigma = 10 ** laws.uniform(0.3, 2.7), laws.uniform(0.2, 1.4)
    mean = each * math.exp(sigma**2 / 2)
    durations = [each * rng.lognormvariate(0, sigma) for _ in range(size(laws, rng, mean, workers))]
    return run("lognormal", laws, rng, run_id, began, worked(durations, workers))


def pareto(laws: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """As above, with tails that have no typical longest."""
    workers = round(10 ** laws.uniform(0, 2))
    each, alpha = 10 ** laws.uniform(0.3, 2.0), laws.uniform(1.3, 3.0)
    mean = each * alpha / (alpha - 1)
    durations = [min(each * rng.paretovariate(alpha), 3 * HOUR) for _ in range(size(laws, rng, mean, workers, hours=4))]
    return run("pareto", laws, rng, run_id, began, worked(durations, workers))


def huge(laws: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Tens of thousands of records."""
    workers = round(10 ** laws.uniform(0.7, 2))
    hours, total = laws.uniform(1, 5), rng.randint(15_000, 50_000)
    mean = hours * HOUR * workers / total
    sigma = laws.uniform(0.3, 1.2)
    durations = [mean * rng.lognormvariate(-(sigma**2) / 2, sigma) for _ in range(total)]
    return run("huge", laws, rng, run_id, began, worked(durations, workers))


def small(laws: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """A table of a few rows."""
    workers, each, sigma = laws.randint(1, 4), 10 ** laws.uniform(1, 2.8), laws.uniform(0.2, 0.9)
    durations = [each * rng.lognormvariate(0, sigma) for _ in range(rng.randint(5, 15))]
    return run("small", laws, rng, run_id, began, worked(durations, workers))


def long_tasks(laws: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Few rounds of long records: after the first ones nothing may finish for a while."""
    workers = laws.randint(4, 30)
    each, sigma = laws.uniform(6, 45) * MINUTE, laws.uniform(0.15, 0.8)
    total = round(workers * rng.uniform(1, 5))
    durations = [each * rng.lognormvariate(0, sigma) for _ in range(total)]
    return run("long tasks", laws, rng, run_id, began, worked(durations, workers), hangs=0.3)


def tail(laws: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Hundreds of records that take about a minute; the last one or two take 20 to 40."""
    workers = laws.randint(2, 12)
    each, sigma = laws.uniform(20, 90), laws.uniform(0.2, 0.7)
    durations = [each * rng.lognormvariate(0, sigma) for _ in range(rng.randint(150, 900))]
    for _ in range(rng.randint(1, 2)):
        durations[rng.randrange(max(len(durations) - workers, 0), len(durations))] = rng.uniform(20, 40) * MINUTE
    return run("tail", laws, rng, run_id, began, worked(durations, workers), hangs=0.3)


def retries(laws: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Records are tried again after a back-off that doubles."""
    workers = laws.randint(1, 20)
    each, chance, backoff = 10 ** laws.uniform(0.5, 2), laws.uniform(0.05, 0.4), laws.uniform(5, 60)
    durations = [
        with_retries(rng, each * rng.lognormvariate(0, 0.4), chance, backoff) for _ in range(rng.randint(40, 1500))
    ]
    return run("retries", laws, rng, run_id, began, worked(durations, workers))


def rate_limited(laws: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """A provider opens a window every few minutes, which admits some records."""
    every, admitted = laws.uniform(2, 30) * MINUTE, laws.randint(5, 60)
    each = laws.uniform(1, 20)
    durations = [each * rng.lognormvariate(0, 0.5) for _ in range(admitted * rng.randint(3, 16))]
    finishes = worked(durations, laws.randint(2, 20), gate=windows(rng, every, admitted))
    return run("rate limited", laws, rng, run_id, began, finishes, hangs=0.3)


def batches(laws: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """The next batch begins when the one before is done, or some time after that."""
    workers, each, sigma = laws.randint(2, 25), 10 ** laws.uniform(0.5, 2.5), laws.uniform(0.2, 0.8)
    pause = laws.choice((0.0, laws.uniform(0.5, 15) * MINUTE))
    rows = laws.randint(10, 80)
    stages = [[each * rng.lognormvariate(0, sigma) for _ in range(rows)] for _ in range(rng.randint(2, 12))]
    finishes = in_stages(stages, [workers] * len(stages), pause=pause * rng.uniform(0.8, 1.2))
    return run("batches", laws, rng, run_id, began, finishes, total_known=laws.random() < 0.6)


def nights(laws: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """No record starts at night, since people are not to be woken; the runtime does not call that waiting."""
    workers, each = laws.randint(1, 6), laws.uniform(20, 240)
    opens = laws.uniform(6, 9) * HOUR
    closes = opens + laws.uniform(13, 15.5) * HOUR
    gate = by_day(began, opens, closes)
    since = gate(0.0)
    began += since
    durations = [each * rng.lognormvariate(0, 0.6) for _ in range(round(rng.uniform(3, 16) * HOUR * workers / each))]
    finishes = worked(durations, workers, gate=by_day(began, opens, closes))
    return run("nights", laws, rng, run_id, began, finishes, hangs=0.1)


def bursts_restarted(laws: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Works in bursts, and the exporter restarts; half of the exporters have a state file."""
    script = Script("bursts restarted", run_id, began, total=None, concurrency=4)
    idle, batches = laws.uniform(8, 25) * MINUTE, rng.randint(4, 12)
    restarted_at = None
    for batch in range(batches):
        for _ in range(rng.randint(10, 60)):
            script.finish(rng.expovariate(1 / 3))
        if batch == batches // 2:
            restarted_at = script.now - rng.uniform(1, 20)
        if batch + 1 < batches:
            script.finish(idle * rng.uniform(0.6, 1.3))
    script.end()
    problem = Problem(restarted_at=restarted_at, keeps_state=laws.random() < 0.5)
    return dataclasses.replace(script.play(), problem=problem)


def children(laws: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """The last records of a run finish when its two or three child runs end."""
    script = Script("children", run_id, began, total=None, concurrency=2)
    for _ in range(rng.randint(20, 60)):
        script.finish(rng.expovariate(1 / 10))
    script.pause()
    beside = []
    for number in range(rng.randint(2, 3)):
        child = Script(
            "children", f"{run_id}-{number}", script.now, total=None, concurrency=2, spinner="child", parent=run_id
        )
        each, until = laws.uniform(5, 60), script.now + rng.uniform(10, 50) * MINUTE
        while child.now < until:
            child.finish(rng.expovariate(1 / each))
        child.end()
        beside.append(child)
    for child in sorted(beside, key=lambda child: child.now):
        script.finish(max(child.now + 1 - script.now, 0.0))
    script.end()
    return dataclasses.replace(script.play(), beside=tuple(child.play() for child in beside))


def one_off_names(laws: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Each run has a new spinner: its name has a date."""
    workers, each, sigma = laws.randint(1, 8), 10 ** laws.uniform(0.5, 2.3), laws.uniform(0.3, 1.0)
    durations = [each * rng.lognormvariate(0, sigma) for _ in range(rng.randint(30, 800))]
    gate = windows(rng, laws.uniform(8, 30) * MINUTE, 20) if laws.random() < 0.3 else at_once
    finishes = worked(durations[:300], workers, gate=gate)
    return run("one-off names", laws, rng, run_id, began, finishes, spinner=run_id)


def drift(laws: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Records take longer and longer, up to four times as long."""
    workers, each, sigma = laws.randint(1, 20), 10 ** laws.uniform(0.5, 2.3), laws.uniform(0.2, 0.9)
    total = rng.randint(100, 1500)
    durations = [each * (1 + 3 * number / total) * rng.lognormvariate(0, sigma) for number in range(total)]
    return run("drift", laws, rng, run_id, began, worked(durations, workers))


def bimodal(laws: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Most records are skipped in a second; the others take minutes."""
    workers, share, slow = laws.randint(1, 8), laws.uniform(0.01, 0.15), laws.uniform(2, 9) * MINUTE
    durations = [
        slow * rng.lognormvariate(0, 0.4) if rng.random() < share else rng.uniform(0.5, 2)
        for _ in range(rng.randint(100, 1500))
    ]
    return run("bimodal", laws, rng, run_id, began, worked(durations, workers))


def weibull(laws: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Stretched exponential durations: between lognormal and exponential."""
    workers, each, shape = round(10 ** laws.uniform(0, 1.7)), 10 ** laws.uniform(0.5, 2.5), laws.uniform(0.4, 0.8)
    durations = [rng.weibullvariate(each, shape) for _ in range(size(laws, rng, 2 * each, workers, hours=5))]
    return run("weibull", laws, rng, run_id, began, worked(durations, workers))


def slow_hour(laws: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """For an hour a provider takes several times as long: slow, and not stalled."""
    workers, each, factor = laws.randint(1, 10), 10 ** laws.uniform(0.7, 2.2), laws.uniform(3, 8)
    total = round(rng.uniform(1.5, 4) * HOUR * workers / each)
    since = rng.uniform(0.1, 0.5) * total
    slowed = HOUR * workers / each / factor
    durations = [
        each * rng.lognormvariate(0, 0.4) * (factor if since <= number < since + slowed else 1.0)
        for number in range(total)
    ]
    return run("slow hour", laws, rng, run_id, began, worked(durations, workers), hangs=0.2)


def autoscaled(laws: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """The number of workers changes between stages."""
    each, sigma = 10 ** laws.uniform(1, 2.6), laws.uniform(0.2, 0.9)
    workers = [round(10 ** rng.uniform(0, 1.7)) for _ in range(rng.randint(2, 6))]
    stages = [[each * rng.lognormvariate(0, sigma) for _ in range(number * rng.randint(1, 10))] for number in workers]
    finishes = in_stages(stages, workers)
    return run("autoscaled", laws, rng, run_id, began, finishes)


def monthly(laws: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Runs once a month; in between the exporter restarts, with its state file."""
    began += 30 * 24 * HOUR
    workers, each, pause = laws.randint(1, 6), 10 ** laws.uniform(0.5, 2), laws.uniform(5, 30) * MINUTE
    rows = laws.randint(10, 40)
    stages = [[each * rng.lognormvariate(0, 0.5) for _ in range(rows)] for _ in range(rng.randint(3, 8))]
    history = run(
        "monthly", laws, rng, run_id, began, in_stages(stages, [workers] * len(stages), pause=pause), hangs=0.3
    )
    return dataclasses.replace(history, problem=Problem(restarted_at=began + 1, keeps_state=True))


def office_hours(laws: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Records start on weekdays in office hours only, and not at noon; some runs last several days."""
    workers, each, sigma = laws.randint(1, 10), 10 ** laws.uniform(1, 2.6), laws.uniform(0.2, 0.8)
    opens, lasts, lunch = laws.uniform(5, 10) * HOUR, laws.uniform(7, 11) * HOUR, laws.choice((0.0, 0.5, 1.0)) * HOUR
    began += shifts_of_staff(began, opens, opens + lasts, lunch)(0.0)
    gate = shifts_of_staff(began, opens, opens + lasts, lunch)
    hours = rng.choice((2, 5, 9, 14, 20))
    durations = [each * rng.lognormvariate(0, sigma) for _ in range(round(hours * HOUR * workers / each))]
    return run("office hours", laws, rng, run_id, began, worked(durations, workers, gate=gate), hangs=0.2)


def elastic(laws: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """The pool grows and shrinks in waves, as others use the same machines."""
    least, most = laws.randint(1, 3), laws.randint(4, 60)
    period, phase = laws.uniform(20, 180) * MINUTE, rng.uniform(0, math.tau)
    each, sigma = 10 ** laws.uniform(1, 2.7), laws.uniform(0.2, 1.0)

    def size_at(at: float) -> int:
        return round(least + (most - least) * (0.5 + 0.5 * math.sin(phase + math.tau * at / period)))

    count = round(rng.uniform(1, 5) * HOUR * (least + most) / 2 / each)
    durations = [each * rng.lognormvariate(0, sigma) for _ in range(max(count, 5))]
    return run("elastic", laws, rng, run_id, began, scaled(durations, size_at))


def preempted(laws: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """From some moment on the run has only one to three of its workers left."""
    workers, each, sigma = laws.randint(8, 80), 10 ** laws.uniform(1.3, 2.7), laws.uniform(0.2, 0.9)
    left, after = rng.randint(1, 3), rng.uniform(0.1, 1.5) * HOUR
    count = round(workers * after / each + rng.uniform(0.2, 2) * HOUR * left / each)
    durations = [each * rng.lognormvariate(0, sigma) for _ in range(count)]
    return run(
        "preempted", laws, rng, run_id, began, scaled(durations, lambda at: workers if at < after else left), hangs=0.3
    )


def quota(laws: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """A provider refuses everything for a while after so many requests; in some runs the exporter restarts."""
    admitted, closed = laws.randint(10, 200), 10 ** laws.uniform(0.3, 1.7) * MINUTE
    workers, each = laws.randint(1, 30), laws.uniform(0.5, 30)
    durations = [each * rng.lognormvariate(0, 0.7) for _ in range(admitted * rng.randint(2, 12) + rng.randint(1, 9))]
    finishes = worked(durations, workers, gate=exhausted(rng, admitted, closed))
    history = run("quota", laws, rng, run_id, began, finishes, hangs=0.3, total_known=laws.random() < 0.8)
    if rng.random() < 0.3:
        problem = Problem(restarted_at=began + rng.uniform(0.1, 0.9) * finishes[-1].at, keeps_state=rng.random() < 0.5)
        return dataclasses.replace(history, problem=problem)
    return history


def month_end(laws: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Runs every 28 to 92 days; in between the exporter restarts with its state file, and some spinners are renamed."""
    began += laws.choice((28, 30, 31, 61, 92)) * 24 * HOUR
    admitted, closed = laws.randint(5, 80), 10 ** laws.uniform(0.5, 1.8) * MINUTE
    workers, each = laws.randint(1, 12), laws.uniform(2, 60)
    durations = [each * rng.lognormvariate(0, 0.6) for _ in range(admitted * rng.randint(2, 7))]
    is_renamed = laws.random() < 0.5
    name = f"month end {run_id}" if is_renamed else "month end"
    finishes = worked(durations, workers, gate=exhausted(rng, admitted, closed))
    history = run(
        "month end", laws, rng, run_id, began, finishes, hangs=0.3, spinner=name, spinner_id="m1" if is_renamed else ""
    )
    return dataclasses.replace(history, problem=Problem(restarted_at=began + 1, keeps_state=True))


def stages(laws: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """Wide stages of short tasks and narrow ones of long tasks; the next begins when the one before is done."""
    workers, count = laws.randint(2, 40), laws.randint(2, 8)
    kinds = [
        (10 ** laws.uniform(0.5, 3.1), laws.choice((1, 2, 3, 20, 100)), laws.uniform(0.1, 0.6)) for _ in range(count)
    ]
    tasks = [
        [each * rng.lognormvariate(0, sigma) for _ in range(max(1, round(rows * rng.uniform(0.7, 1.4))))]
        for each, rows, sigma in kinds
    ]
    return run("stages", laws, rng, run_id, began, in_stages(tasks, [workers] * count), hangs=0.3)


def cold_start(laws: random.Random, rng: random.Random, run_id: str, began: float) -> History:
    """The first record of a run takes minutes, since something has to be loaded; the others take seconds."""
    loads, each, workers = laws.uniform(3, 35) * MINUTE, 10 ** laws.uniform(0, 1.6), laws.randint(1, 8)
    durations = [each * rng.lognormvariate(0, 0.5) for _ in range(rng.randint(50, 1500))]
    for worker in range(workers):
        durations[worker] += loads * rng.lognormvariate(0, 0.2)
    return run("cold start", laws, rng, run_id, began, worked(durations, workers))


def _spark(part: int) -> Kind:
    def spark(laws: random.Random, rng: random.Random, run_id: str, began: float) -> History:
        """Real tasks of Spark applications, at another speed."""
        tasks = list(json.loads(TASKS.read_text())["spark"].values())[part::2]
        ends = sorted(end for _, end in laws.choice(tasks))
        slower = 10 ** laws.uniform(1, 2.8)
        at = 0.0
        finishes: list[Finish] = []
        for before, end in zip([0, *ends], ends, strict=False):
            at += (end - before) / 1000 * slower * rng.lognormvariate(0, 0.25)
            finishes.append(Finish(at, min(laws.randint(2, 8), len(ends) - len(finishes) - 1)))
        return run("spark", laws, rng, run_id, began, finishes)

    return spark


def _workflow(part: int) -> Kind:
    def workflow(laws: random.Random, rng: random.Random, run_id: str, began: float) -> History:
        """Stages with the task times of real workflows; how many tasks a stage has is made up."""
        stages = laws.choice(list(json.loads(TASKS.read_text())["workflows"].values())[part::2])
        workers = laws.randint(2, 16)
        tasks = [
            [_quantile(stage, rng.random()) for _ in range(rows)]
            for stage, rows in ((stage, laws.randint(1, 60)) for stage in stages)
        ]
        return run("workflow", laws, rng, run_id, began, in_stages(tasks, [workers] * len(tasks)))

    return workflow


def _quantile(table: Sequence[float], share: float) -> float:
    """Return a quantile by linear interpolation between equidistant ones."""
    position = share * (len(table) - 1)
    below = min(int(position), len(table) - 2)
    return table[below] + (position - below) * (table[below + 1] - table[below])


HARDER: dict[str, Kind] = {
    "lognormal": lognormal,
    "pareto": pareto,
    "huge": huge,
    "small": small,
    "long tasks": long_tasks,
    "tail": tail,
    "retries": retries,
    "rate limited": rate_limited,
    "batches": batches,
    "nights": nights,
    "bursts restarted": bursts_restarted,
    "children": children,
    "one-off names": one_off_names,
    "spark": _spark(0),
    "workflow": _workflow(0),
}
"""In both parts, from different seeds; of the real tasks each part has its own."""

TUNE_ONLY: dict[str, Kind] = {
    "office hours": office_hours,
    "elastic": elastic,
    "preempted": preempted,
    "quota": quota,
    "month end": month_end,
    "stages": stages,
    "cold start": cold_start,
}
"""In the part to tune on only: they teach what is general of the kinds below, with other generators and parameters."""

UNSEEN: dict[str, Kind] = {
    "drift": drift,
    "bimodal": bimodal,
    "weibull": weibull,
    "slow hour": slow_hour,
    "autoscaled": autoscaled,
    "monthly": monthly,
    "spark": _spark(1),
    "workflow": _workflow(1),
}
"""In the held-out part only."""
