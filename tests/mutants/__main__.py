"""`python -m tests.mutants`: changes one place of the exporter at a time, and shows which changes no test notices."""

import ast
import contextlib
import gc
import importlib
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import click
import pytest

from tests.mutants.children import Ended, Job, run_all
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

    def done(mutant: Mutant, result: str, detail: str) -> None:
        results[mutant] = result
        if result in {"survived", "timeout", "error"}:
            click.echo(f"\n{described(mutant)}\n# {result}: {detail}")
        if len(results) % 25 == 0:
            click.echo(f"{len(results)} of {len(drawn)}", err=True)

    try_all(drawn, equivalents, line_map, workers, done)
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


def try_all(drawn: list[Mutant], equivalents: list[Equivalent], line_map: LineMap, workers: int, done: Done) -> None:
    """Call `done` for each mutant, in the order in which their tests end."""
    swapped: dict[Mutant, list[str]] = {}
    imported: dict[Job, tuple[Mutant, int]] = {}
    for mutant in drawn:
        tests = tests_of(mutant, line_map)
        ordered = stages(tests, line_map, package(mutant))
        if any(entry.matches(mutant) for entry in equivalents):
            done(mutant, "equivalent", "")
        elif not tests:
            done(mutant, "survived", "no test runs it")
        elif runs_at_import(mutant, line_map):
            trial = Trial(ROOT, mutant.module, mutant.place.file, mutant.source, ordered)
            imported[trial.job(line_map.seconds)] = mutant, sum(map(len, ordered))
        else:
            swapped[mutant] = [test for stage in ordered for test in stage]
    killers: dict[Mutant, str] = {}

    def note(mutant: Mutant, count: int, ended: Ended) -> None:
        result = outcome(ended)
        if result == "killed":
            killers[mutant] = ended.step
        else:
            detail = {"survived": f"{count} tests pass", "error": ended.output[-2000:]}.get(result, ended.step)
            done(mutant, result, detail)

    for ended in run_all(imported, workers):
        note(*imported[ended.job], ended)

    def in_collected(items: Mapping[str, pytest.Item]) -> None:
        """Try the mutants whose code can be swapped; then run every test that killed one, without a mutation."""
        jobs = {
            SwapTrial([items[test] for test in tests], mutant.module, mutant.source).job(line_map.seconds): mutant
            for mutant, tests in swapped.items()
        }
        for ended in run_all(jobs, workers):
            note(jobs[ended.job], len(swapped[jobs[ended.job]]), ended)
        alone = {SwapTrial([items[test]]).job(line_map.seconds): test for test in set(killers.values()) & items.keys()}
        unfit = {alone[ended.job] for ended in run_all(alone, workers) if outcome(ended) != "survived"}
        for mutant, test in killers.items():
            if test in unfit:
                done(mutant, "error", f"{test} fails without a mutation too")
            else:
                done(mutant, "killed", test)

    files = sorted({test.partition("::")[0] for test in line_map.seconds})
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        run_pytest(ROOT, Path(folder), files, Collected(in_collected))


def runs_at_import(mutant: Mutant, line_map: LineMap) -> bool:
    place = mutant.place
    return not place.in_function or not line_map.at_import[place.file].isdisjoint(place.lines)


def tests_of(mutant: Mutant, line_map: LineMap) -> set[str]:
    """Return the tests that could see the mutation: those that run its lines.

    What runs while modules are imported, such as a constant or a default, concerns every test of the module and of
    those that import it.
    """
    file = mutant.place.file
    if runs_at_import(mutant, line_map):
        return line_map.of_modules({file, *importers(ROOT, file)})
    return line_map.of_lines(file, mutant.place.lines)


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
