"""`python -m tests.stalls.in_flight`: what it changes to read what silent runs work on, on the part to tune on.

A record has one to five steps of random lengths, the same number for all records of a spinner. Of histories without the
times of their records nothing is read.
"""

import random
import sys
import zlib

from exporter.runs.activity import Seen
from exporter.runtime.model import OpenRecord
from tests.stalls.histories import Work
from tests.stalls.parts import TUNE
from tests.stalls.replay import HEAD, OURS, Scrape, by_kind, overall, score

SPINNERS = 10
"""Spinners of each kind."""


class Reader:
    """Reads what silent runs work on, as `sync.records_in_flight` does at each scrape."""

    def __init__(self) -> None:
        self._seen: dict[str, Seen] = {}

    def __call__(self, scrape: Scrape) -> None:
        """Read it into the store."""
        history = scrape.history
        if not history.work:
            return
        for silent in scrape.store.view.silent_runs("p1"):
            if silent.run.id != history.run_id:
                continue
            steps = 1 + zlib.crc32(silent.run.snapshot.spinner.encode()) % 5
            records = [
                in_flight(index, work, scrape.now, steps)
                for index, work in enumerate(history.work)
                if work.began <= scrape.now and (work.until > scrape.now or work.hangs_at <= scrape.now)
            ]
            seen = self._seen.get(silent.run.id, Seen())
            activity = seen.activity_until(records, scrape.now, silent.since, is_whole=True)
            self._seen = {silent.run.id: seen.followed_by(records, is_whole=True)}
            scrape.store.keep_activity(("p1", silent.run.id), activity)
            scrape.store.keep_listed("in flight", ("p1", silent.run.id), records, is_whole=True)


def in_flight(index: int, work: Work, now: float, steps: int) -> OpenRecord:
    """Return a record as it is at a time."""
    rng = random.Random(index)
    ends = sorted(rng.random() for _ in range(steps - 1))
    share = (min(now, work.hangs_at) - work.began) / max(work.until - work.began, 1e-9)
    done = sum(end <= share for end in ends)
    reached = work.began + (work.until - work.began) * (ends[done - 1] if done else 0.0)
    return OpenRecord(f"rec-{index}", f"step {done + 1}", done + 1, work.began, reached, 1)


def main() -> None:
    """Print the scores without and with it, of all kinds, and of those that differ."""
    (without,) = score(TUNE.spinners(SPINNERS), (OURS,))
    (with_it,) = score(TUNE.spinners(SPINNERS), (OURS,), reads_more=Reader())
    lines = [HEAD, overall(without).row("without records in flight"), overall(with_it).row("with them")]
    kinds = by_kind(with_it)
    for kind, before in by_kind(without).items():
        if before.row("") != kinds[kind].row(""):
            lines += ["", before.row(kind), kinds[kind].row("")]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
