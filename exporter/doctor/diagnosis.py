"""What the checks of a connection found, and how it is shown: as text, and as JSON."""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from exporter.service import SCRAPE_INTERVAL


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """The result of one check."""

    what: str
    ok: bool | None
    """None if there was nothing to check."""
    finding: str
    warns: bool = False
    """Whether the exporter works, and the finding is something that a person should look at."""


@dataclasses.dataclass(frozen=True, slots=True)
class FieldFinding:
    """One field in the items of one response."""

    resource: str
    field: str
    found: int
    items: int
    example: str
    effect: str
    """The effect of its absence; empty if it was found, or if no item should have it."""
    instead: str = ""
    """The keys that the items have where the description looks for it; empty if it was found, or is not described."""
    nulls: int = 0
    """Items in which the key is there, and its value null; 0 if the field was found."""


@dataclasses.dataclass(frozen=True, slots=True)
class Diagnosis:
    """The result of all checks."""

    checks: list[Check]
    fields: list[FieldFinding]
    labels: dict[str, str | None]
    """Unknown status labels, each with the status that it most likely means."""
    series: int
    runs: int
    requests_per_hour: float | None
    rate_limit: str = ""
    """What headers say about the API's rate limit."""

    @property
    def ok(self) -> bool:
        """Whether the exporter could serve metrics."""
        return all(check.ok is not False for check in self.checks)

    def as_tree(self) -> dict[str, Any]:
        """Return it as values for JSON."""
        return {"ok": self.ok, **dataclasses.asdict(self)}

    def as_text(self) -> str:
        """Return it as text."""
        lines = [_line(check) for check in self.checks]
        for resource, findings in itertools.groupby(self.fields, key=lambda each: each.resource):
            lines += ["", *_table(resource, list(findings))]
        if self.labels:
            lines += ["", "Unknown status labels; check the proposals and add them to the config:", "statuses:"]
            lines += [f"  {json.dumps(label)}: {status or '# ' + STATUSES}" for label, status in self.labels.items()]
        if self.requests_per_hour is not None:
            lines += [
                "",
                f"About {self.series:,} series for {self.runs:,} runs, and {self.requests_per_hour:,.0f} API requests "
                f"per hour at a scrape interval of {SCRAPE_INTERVAL:g} s while little changes."
                + (f" The API allows {self.rate_limit}." if self.rate_limit else ""),
            ]
        return "\n".join(lines)


def as_json(diagnoses: Mapping[str, Diagnosis], own: Sequence[Check] = ()) -> str:
    """Return the diagnosis of each runtime, and the checks of the exporter's own files, as JSON."""
    trees = {name: diagnosis.as_tree() for name, diagnosis in diagnoses.items()}
    checks = [dataclasses.asdict(check) for check in own]
    return json.dumps({"ok": are_ok(diagnoses, own), "checks": checks, "runtimes": trees}, indent=2)


def as_text(diagnoses: Mapping[str, Diagnosis], own: Sequence[Check] = ()) -> str:
    """Return the same as text."""
    parts = [f"runtime {name}\n{diagnosis.as_text()}" for name, diagnosis in diagnoses.items()]
    if own:
        parts.append("\n".join(["exporter", *map(_line, own)]))
    return "\n\n".join(parts)


def are_ok(diagnoses: Mapping[str, Diagnosis], own: Sequence[Check] = ()) -> bool:
    """Whether the exporter could serve the metrics of each runtime."""
    return all(diagnosis.ok for diagnosis in diagnoses.values()) and all(check.ok is not False for check in own)


_MARKS = {True: "ok  ", False: "FAIL", None: "skip"}

STATUSES = "one of queued, running, waiting, completed, failed, cancelled"


def _line(check: Check) -> str:
    return f"{'warn' if check.warns else _MARKS[check.ok]}  {check.what}: {check.finding}"


def _table(resource: str, findings: list[FieldFinding]) -> list[str]:
    rows = [
        (
            each.field,
            f"null in all {each.items}" if each.nulls == each.items else f"{each.found} of {each.items}",
            each.example,
            each.effect,
        )
        for each in findings
    ]
    head = (resource, "found", "example", "effect when missing")
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(3)]
    # Of a field that can be missing without an effect, nobody looks for the key.
    keys = dict.fromkeys(each.instead for each in findings if each.instead and not each.effect.startswith("none"))
    return [
        *(
            "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[3]]).rstrip()
            for line in (head, *rows)
        ),
        *(f"{resource}: {each}" for each in keys),
    ]
