"""Two weeks of a busy organisation in some minutes, with a truth to compare with.

    python -m tests.soak [--days 14] [--seed 1]

Prints a row for each day, for docs/performance.md. The exit status is 1 when a bound is exceeded; then it says which.
"""

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from pathlib import Path

import structlog

from tests.soak.life import days
from tests.soak.report import HEADER, Day, passed


async def live(count: int, *, seed: int, projects: int, runs_per_day: int) -> list[str]:
    """Live through days and print them; return the bounds that were exceeded."""
    lived: list[Day] = []
    exceeded: dict[str, str] = {}
    _say(HEADER)
    with tempfile.TemporaryDirectory() as folder:
        async for day in days(Path(folder), count=count, seed=seed, projects=projects, runs_per_day=runs_per_day):
            lived.append(day)
            _say(day.row())
            # Each bound once: what has grown too much often stays so.
            exceeded = {found.partition(":")[0]: found for found in passed(lived)} | exceeded
            for each in day.wrong[:5]:
                sys.stderr.write(f"  {each}\n")
    return [*exceeded.values()]


def main() -> int:
    """Parse the flags and live."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--projects", type=int, default=50)
    parser.add_argument("--runs-per-day", type=int, default=20_000)
    flags = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    began = time.monotonic()
    exceeded = asyncio.run(live(flags.days, seed=flags.seed, projects=flags.projects, runs_per_day=flags.runs_per_day))
    _say(f"\n{flags.days} days in {time.monotonic() - began:.0f} s")
    for each in exceeded:
        sys.stderr.write(f"{each}\n")
    return 1 if exceeded else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
