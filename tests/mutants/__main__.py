"""`python -m tests.mutants`: changes one place of the exporter at a time, and shows which changes no test notices."""

import ast
import contextlib
import gc
import importlib
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from tests.mutants.children import Job, run_all
from tests.mutants.equivalents import Equivalent, ListError, read_equivalents
from tests.mutants.mutations import Mutant, sample
from tests.mutants.swap import Collected, SwapTrial
from tests.mutants.tests_of_lines import LineMap, importers, measured_map, run_pytest
from tests.mutants.trial import Trial, outcome, stages

ROOT = Path(__file__).parents[2]
PACKAGES = ("runs", "sync", "metrics", "runtime", "config")
OUTCOMES = ("killed", "survived", "timeout", "equivalent", "error")
LIMIT = 0.05
"""The share of mutants that may survive."""


@click.command()
@click.option("--sample", "count", default=300, show_default=True, help="How many places to mutate.")
@click.option("--seed", default=1, show_default=True, help="Which places, and which mutation of each.")
@click.option("--package", "packages", multiple=True, default=PACKAGES, type=click.Choice(PACKAGES))
@click.option("--module", "wanted", multiple=True, help="Only this module, such as runs/pace.py.")
@click.option(
    "--seconds",
    default=240.0,
    show_default=True,
    help="How much processor time the tests of a mutant may take, the fastest first. Slower ones may kill more.",
)
@click.option("--workers", default=2, show_default=True)
def main(
    count: int, seed: int, packages: tuple[str, ...], wanted: tuple[str, ...], seconds: float, workers: int
) -> None:
    """Mutate the exporter and run the tests that reach each mutation."""
    import_libraries()
    try:
        equivalents = read_equivalents(ROOT, ROOT / "tests" / "mutants" / "equivalent.toml")
    except ListError as error:
        raise SystemExit(str(error)) from None
    line_map = measured_map(ROOT, workers, click.echo)
    files = [str(path.relative_to(ROOT)) for name in packages for path in modules(ROOT / "exporter" / name)]
    if wanted:
        files = [file for file in files if file.removeprefix("exporter/") in wanted]
        if len(files) < len(set(wanted)):
            raise click.UsageError(f"--module: expected modules of {', '.join(packages)}, such as runs/pace.py")
    drawn = sample(ROOT, files, count, seed)
    click.echo(f"{len(drawn)} mutants of {', '.join(packages)}, seed {seed}")
    began = time.monotonic()
    results: dict[Mutant, str] = {}

    def done(mutant: Mutant, result: str, detail: str) -> None:
        results[mutant] = result
        if result in {"survived", "timeout", "error"}:
            click.echo(f"\n{described(mutant)}\n# {result}: {detail}")

    try_all(drawn, equivalents, line_map, seconds, workers, done)
    counts = Counter((package(mutant), result) for mutant, result in results.items())
    click.echo(f"\n{table(counts, packages)}")
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    click.echo(f"{(time.monotonic() - began) / 60:.0f} minutes with {workers} workers; load average now {load}")
    survived, errors = (list(results.values()).count(result) for result in ("survived", "error"))
    if errors:
        raise SystemExit("the tests of some mutants say nothing; see above")
    sys.exit(survived > LIMIT * len(drawn))


def described(mutant: Mutant) -> str:
    """Show a mutant with what an entry of the list of equivalents needs."""
    where = f"{mutant.place.file}:{mutant.place.line} {mutant.place.function}".rstrip()
    return f"{where}\n- {mutant.original}\n+ {mutant.mutated}"


def import_libraries() -> None:
    """Import what tests and exporter import, except the project itself, so that no child has to."""
    for file in [*(ROOT / "exporter").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for name in names:
                if name.partition(".")[0] not in {"exporter", "tests", "dashboards", "benchmarks"}:
                    with contextlib.suppress(ImportError):
                        importlib.import_module(name)
    gc.freeze()


def modules(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def package(mutant: Mutant) -> str:
    return mutant.module.split(".")[1]


Done = Callable[[Mutant, str, str], None]
"""Receives a mutant, what became of it, and why or by which test."""


@dataclass(frozen=True)
class Tried:
    """What the tests of a mutant said."""

    outcome: str
    step: str
    """The last test that ran."""
    output: str = ""


def try_all(
    drawn: list[Mutant], equivalents: list[Equivalent], line_map: LineMap, most: float, workers: int, done: Done
) -> None:
    """Call `done` for each mutant, in the order in which their tests end.

    Importing a mutated module costs seconds, swapping the code of its functions milliseconds. So code is swapped where
    that is possible, and a mutated function that the import of tests runs as well is imported if it survives that.

    The tests of a mutant take at most `most` seconds of processor time.
    """
    swapped: dict[Mutant, list[str]] = {}
    imported: dict[Mutant, list[list[str]]] = {}

    def note(mutant: Mutant, tried: Tried, tests: int) -> None:
        detail = {"survived": f"{tests} tests pass", "error": tried.output}.get(tried.outcome, tried.step)
        done(mutant, tried.outcome, detail)

    for mutant in drawn:
        called = line_map.of_lines(mutant.place.file, mutant.place.lines)
        if any(entry.matches(mutant) for entry in equivalents):
            done(mutant, "equivalent", "")
        elif mutant.place.in_function and called:
            swapped[mutant] = [test for stage in stages(called, line_map, package(mutant), most) for test in stage]
        elif tests := tests_of_import(mutant, line_map):
            imported[mutant] = stages(tests, line_map, package(mutant), most)
        else:
            done(mutant, "survived", "no test runs it")
    for mutant, tried in swap_all(swapped, line_map, workers):
        if tried.outcome in {"survived", "error"} and (tests := tests_of_import(mutant, line_map)):
            imported[mutant] = stages(tests, line_map, package(mutant), most)
        else:
            note(mutant, tried, len(swapped[mutant]))
    trials = {mutant: import_trial(mutant, mutant.source, ordered) for mutant, ordered in imported.items()}
    for mutant, tried in import_all(trials, line_map, workers):
        note(mutant, tried, sum(map(len, imported[mutant])))


def tests_of_import(mutant: Mutant, line_map: LineMap) -> set[str]:
    """Return the tests that could see a mutation of what runs while they are imported; none if that does not run it.

    What runs outside of functions, such as a constant or a default, concerns every test of the module and of those that
    import it; what a function does at import, every test of the files that call it there.
    """
    place = mutant.place
    if not place.in_function:
        return line_map.of_modules({place.file, *importers(ROOT, place.file)})
    files = line_map.at_import(place.file, place.lines)
    return line_map.of_files(files) | line_map.of_lines(place.file, place.lines) if files else set()


def import_trial(mutant: Mutant, source: str, ordered: list[list[str]]) -> Trial:
    return Trial(ROOT, mutant.module, mutant.place.file, source, ordered)


def import_all(trials: Mapping[Mutant, Trial], line_map: LineMap, workers: int) -> Iterator[tuple[Mutant, Tried]]:
    jobs = {trial.job(line_map.seconds): mutant for mutant, trial in trials.items()}

    def alone(mutant: Mutant, test: str) -> Job:
        unchanged = (ROOT / mutant.place.file).read_text()
        return import_trial(mutant, unchanged, [[test]]).job(line_map.seconds)

    return checked(jobs, alone, workers)


def checked(
    jobs: Mapping[Job, Mutant], alone: Callable[[Mutant, str], Job], workers: int
) -> Iterator[tuple[Mutant, Tried]]:
    """Run jobs; when all have ended, run every test that killed a mutant without a mutation: it must pass.

    `alone` makes the job of such a test.
    """
    killed: list[tuple[Mutant, Tried]] = []
    for number, ended in enumerate(run_all(jobs, workers), 1):
        if number % 25 == 0:
            click.echo(f"{number} of {len(jobs)}", err=True)
        tried = Tried(outcome(ended), ended.step, ended.output[-2000:])
        if tried.outcome == "killed":
            killed.append((jobs[ended.job], tried))
        else:
            yield jobs[ended.job], tried
    killers = {tried.step: mutant for mutant, tried in killed if "::" in tried.step}
    unchanged = {alone(mutant, test): test for test, mutant in killers.items()}
    unfit = {unchanged[ended.job] for ended in run_all(unchanged, workers) if outcome(ended) != "survived"}
    for mutant, tried in killed:
        error = Tried("error", tried.step, f"{tried.step} fails without a mutation too")
        yield mutant, error if tried.step in unfit else tried


def swap_all(swapped: Mapping[Mutant, list[str]], line_map: LineMap, workers: int) -> Iterator[tuple[Mutant, Tried]]:
    """Try mutants in forks of one process, which has collected all tests.

    It is not this process: here, the exporter must not be imported before its mutants are.
    """
    mutants = list(swapped)
    numbers = {mutant: number for number, mutant in enumerate(mutants)}
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def in_collected(items: Mapping[str, pytest.Item]) -> None:
        jobs = {
            SwapTrial([items[test] for test in tests], mutant.module, mutant.source).job(line_map.seconds): mutant
            for mutant, tests in swapped.items()
        }
        for mutant, tried in checked(jobs, lambda _, test: SwapTrial([items[test]]).job(line_map.seconds), workers):
            sender.send((numbers[mutant], tried))

    def collect() -> None:
        files = sorted({test.partition("::")[0] for tests in swapped.values() for test in tests})
        with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
            run_pytest(ROOT, Path(folder), files, Collected(in_collected))

    process = multiprocessing.get_context("fork").Process(target=collect)
    process.start()
    sender.close()
    left = set(mutants)
    try:
        while True:
            number, tried = receiver.recv()
            left.remove(mutants[number])
            yield mutants[number], tried
    except EOFError:
        process.join()
    if left:
        raise SystemExit(f"{len(left)} mutants were not tried: their tests could not be collected")


def table(counts: Counter[tuple[str, str]], packages: tuple[str, ...]) -> str:
    """Show the outcomes of each package."""
    rows = [f"{'package':10}{'mutants':>10}" + "".join(f"{name:>12}" for name in OUTCOMES)]
    for name in (*packages, "total"):
        numbers = [
            sum(n for (p, r), n in counts.items() if r == result and name in {p, "total"}) for result in OUTCOMES
        ]
        rows.append(f"{name:10}{sum(numbers):>10}" + "".join(f"{number:>12}" for number in numbers))
    return "\n".join(rows)


if __name__ == "__main__":
    main()
