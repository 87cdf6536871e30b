"""`python -m tests.mutants`: changes one place of the exporter at a time, and shows which changes no test notices."""

import ast
import contextlib
import gc
import importlib
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from tests.mutants.children import run_all
from tests.mutants.equivalents import Equivalent, ListError, read_equivalents
from tests.mutants.mutations import Mutant, sample
from tests.mutants.tests_of_lines import LineMap, importers, measured_map
from tests.mutants.trial import COLLECTING, Trial, outcome, stages

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
@click.option("--workers", default=2, show_default=True)
def main(count: int, seed: int, packages: tuple[str, ...], wanted: tuple[str, ...], workers: int) -> None:
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
    killers: dict[Mutant, str] = {}
    for mutant, result, test in try_all(drawn, equivalents, line_map, workers):
        results[mutant] = result
        if result == "killed":
            killers[mutant] = test
        if result in {"survived", "timeout"}:
            click.echo(f"\n{described(mutant)}\n# {result}: {test}")
        if len(results) % 25 == 0:
            click.echo(f"{len(results)} of {len(drawn)}", err=True)
    unfit = failing_without_a_mutation(set(killers.values()) - {"", COLLECTING}, workers)
    for mutant, test in killers.items():
        if test in unfit:
            results[mutant] = "error"
            click.echo(f"\n{described(mutant)}\n# error: {test} fails without a mutation too")
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


def try_all(
    drawn: list[Mutant], equivalents: list[Equivalent], line_map: LineMap, workers: int
) -> Iterator[tuple[Mutant, str, str]]:
    """Yield each mutant with what became of it and the last test that ran, in the order in which their tests end."""
    jobs = {}
    for mutant in drawn:
        tests = tests_of(mutant, line_map)
        if any(entry.matches(mutant) for entry in equivalents):
            yield mutant, "equivalent", ""
        elif not tests:
            yield mutant, "survived", "no test runs it"
        else:
            ordered = stages(tests, line_map.seconds, package(mutant))
            trial = Trial(ROOT, mutant.module, mutant.place.file, mutant.source, ordered)
            jobs[trial.job(line_map.seconds)] = mutant, len(tests)
    for ended in run_all(jobs, workers):
        (mutant, count), result = jobs[ended.job], outcome(ended)
        if result == "error":
            click.echo(f"\n{described(mutant)}\n{ended.output[-2000:]}")
        yield mutant, result, f"{count} tests pass" if result == "survived" else ended.step


def tests_of(mutant: Mutant, line_map: LineMap) -> set[str]:
    """Return the tests that could see the mutation: those that run its lines.

    What runs while modules are imported, such as a constant or a default, concerns every test of the module and of
    those that import it.
    """
    file, lines = mutant.place.file, mutant.place.lines
    if mutant.place.in_function and line_map.at_import[file].isdisjoint(lines):
        return line_map.of_lines(file, lines)
    return line_map.of_modules({file, *importers(ROOT, file)})


def failing_without_a_mutation(tests: Iterable[str], workers: int) -> set[str]:
    """Return those of the tests that fail in the runner for another reason than a mutation."""
    module, file = "exporter.errors", "exporter/errors.py"
    source = (ROOT / file).read_text()
    waiting = sorted(tests)
    failing: set[str] = set()
    while waiting:
        by_file: dict[str, list[str]] = {}
        for test in waiting:
            by_file.setdefault(test.partition("::")[0], []).append(test)
        jobs = {Trial(ROOT, module, file, source, [each]).job({}): each for each in by_file.values()}
        waiting = []
        for ended in run_all(jobs, workers):
            if outcome(ended) != "survived":
                # The first failure ends the others of its file.
                own = jobs[ended.job]
                failed = {ended.step} & set(own) or set(own)
                failing |= failed
                waiting += [test for test in own if test not in failed]
    return failing


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
