"""`python -m tests.mutants`: changes one place of the exporter at a time, and shows which changes no test notices."""

import ast
import contextlib
import gc
import importlib
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from tests.mutants.children import run_all
from tests.mutants.mutations import Mutant, mutants, one_line, places, sample
from tests.mutants.tests_of_lines import LineMap, measured_map
from tests.mutants.trial import Trial, outcome, stages

ROOT = Path(__file__).parents[2]
PACKAGES = ("runs", "sync", "metrics", "runtime", "config")
OUTCOMES = ("killed", "survived", "timeout", "equivalent", "error")
LIMIT = 0.05
"""The share of mutants that may survive."""


@dataclass(frozen=True)
class Equivalent:
    """A mutation that changes nothing that a user could notice, and why."""

    module: str
    original: str
    mutated: str
    reason: str

    def matches(self, mutant: Mutant) -> bool:
        return (self.module, one_line([self.original]), one_line([self.mutated])) == (
            mutant.place.file,
            mutant.original,
            mutant.mutated,
        )


@click.command()
@click.option("--sample", "count", default=300, show_default=True, help="How many places to mutate.")
@click.option("--seed", default=1, show_default=True, help="Which places, and which mutation of each.")
@click.option("--package", "packages", multiple=True, default=PACKAGES, type=click.Choice(PACKAGES))
@click.option("--workers", default=2, show_default=True)
def main(count: int, seed: int, packages: tuple[str, ...], workers: int) -> None:
    """Mutate the exporter and run the tests that reach each mutation."""
    import_libraries()
    equivalents = read_equivalents(ROOT / "tests" / "mutants" / "equivalent.toml")
    line_map = measured_map(ROOT, workers, click.echo)
    files = [str(path.relative_to(ROOT)) for name in packages for path in modules(ROOT / "exporter" / name)]
    drawn = sample(ROOT, files, count, seed)
    click.echo(f"{len(drawn)} mutants of {', '.join(packages)}, seed {seed}")
    counts: Counter[tuple[str, str]] = Counter()
    for mutant, result in try_all(drawn, equivalents, line_map, workers):
        counts[package(mutant), result] += 1
        if result == "survived":
            click.echo(f"\n{mutant.place.file}:{mutant.place.line}\n- {mutant.original}\n+ {mutant.mutated}")
        elif sum(counts.values()) % 25 == 0:
            click.echo(f"{sum(counts.values())} of {len(drawn)}", err=True)
    click.echo(f"\n{table(counts, packages)}")
    survived, errors = (sum(n for (_, r), n in counts.items() if r == result) for result in ("survived", "error"))
    if errors:
        raise SystemExit("pytest cannot run the tests of some mutants; see above")
    sys.exit(survived > LIMIT * len(drawn))


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


def read_equivalents(path: Path) -> list[Equivalent]:
    """Read the list. Raises SystemExit if an entry is no mutation of the source as it is."""
    entries = [Equivalent(**entry) for entry in tomllib.loads(path.read_text()).get("equivalent", [])]
    for entry in entries:
        if not (ROOT / entry.module).is_file() or not any(map(entry.matches, candidates(entry))):
            raise SystemExit(
                f"{path.name}: no mutation of {entry.module} turns {entry.original!r} into {entry.mutated!r}"
            )
    return entries


def candidates(entry: Equivalent) -> Iterator[Mutant]:
    """Apply every mutation of the lines that the entry could mean."""
    lines = (ROOT / entry.module).read_text().splitlines()
    original = one_line([entry.original])
    for place in places(ROOT, entry.module):
        if any(lines[number - 1].strip() and one_line([lines[number - 1]]) in original for number in place.lines):
            yield from mutants(ROOT, place)


def try_all(
    drawn: list[Mutant], equivalents: list[Equivalent], line_map: LineMap, workers: int
) -> Iterator[tuple[Mutant, str]]:
    """Yield what became of each mutant, in the order in which their tests end."""
    jobs = {}
    for mutant in drawn:
        tests = tests_of(mutant, line_map)
        if any(entry.matches(mutant) for entry in equivalents):
            yield mutant, "equivalent"
        elif not tests:
            yield mutant, "survived"
        else:
            ordered = stages(tests, line_map.seconds, package(mutant))
            trial = Trial(ROOT, mutant.module, mutant.place.file, mutant.source, ordered)
            jobs[trial.job(line_map.seconds)] = mutant
    for ended in run_all(jobs, workers):
        mutant, result = jobs[ended.job], outcome(ended)
        if result == "error":
            click.echo(f"{mutant.place.file}:{mutant.place.line}: {mutant.mutated}\n{ended.output[-2000:]}")
        yield mutant, result


def tests_of(mutant: Mutant, line_map: LineMap) -> set[str]:
    """Return the tests of its lines; for what the import of the module runs, all tests of the module."""
    if mutant.place.in_function:
        return line_map.of_lines(mutant.place.file, mutant.place.lines)
    return line_map.of_module(mutant.place.file)


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
