"""All comparisons in one table: `python -m benchmarks`; with `connections`, `healthcheck`, `scrape` or `sync`, only those.

Writes the same as JSON to dist/benchmarks.json, for later comparisons.
"""

import sys
from pathlib import Path

from benchmarks import connections, healthcheck, scrape, sync
from benchmarks.table import machine, save, show
from exporter import logs

GROUPS = {"connections": connections.rows, "healthcheck": healthcheck.rows, "scrape": scrape.rows, "sync": sync.rows}
RESULTS = Path("dist/benchmarks.json")


def main() -> None:
    logs.configure("warn", "logfmt")
    print(", ".join(f"{name} {value}" for name, value in machine().items()), end="\n\n")
    rows = [row for name in sys.argv[1:] or GROUPS for row in GROUPS[name]()]
    show(rows)
    save(rows, RESULTS)
    missed = sum(not row.is_met for row in rows)
    print(f"\n{len(rows) - missed} of {len(rows)} targets met; {RESULTS} has the same as JSON")


if __name__ == "__main__":
    main()
