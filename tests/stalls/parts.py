"""The two parts of the histories: one to tune the rule on, and one that is held out."""

import dataclasses
from collections.abc import Iterator, Mapping

from tests.stalls.harder import HARDER, TUNE_ONLY, UNSEEN
from tests.stalls.histories import KINDS, History, Kind, corpus

RUNS = (1, 3, 1, 6, 2)
"""How many runs the first spinners of a kind have, in turn: most are young, as on an exporter's first days."""


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """A part of the histories."""

    name: str
    seed: int
    kinds: Mapping[str, Kind]

    def spinners(self, count: int) -> Iterator[list[History]]:
        """Yield the runs of `count` spinners of each kind."""
        return corpus(self.seed, count, RUNS, self.kinds)


TUNE = Part("tune", 1, KINDS | HARDER | TUNE_ONLY)
"""The constants of exporter/runs/pace.py were chosen on it."""

HELD_OUT = Part("held out", 2_000, KINDS | HARDER | UNSEEN)
"""Other seeds, and some kinds of its own. Look at it only to report, never to choose a constant."""
