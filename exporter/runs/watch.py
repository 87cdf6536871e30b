"""What moved since somebody last looked, so that whoever shows runs looks at those alone."""

from collections.abc import Callable, Iterable

Key = tuple[str, str]
"""The ids of a project and of a run in it; or the id of a project and the name of a spinner in it."""


class Watch:
    """One watcher's view. What is over too is moved: it is not to be found in the store any more."""

    def __init__(self, collect: Callable[[], None]) -> None:
        """`collect` is called before each look, to note what moved."""
        self._collect = collect
        self._runs: dict[Key, None] = {}
        self._spinners: dict[Key, None] = {}

    def note(self, runs: Iterable[Key], spinners: Iterable[Key]) -> None:
        """Note that these moved."""
        self._runs.update(dict.fromkeys(runs))
        self._spinners.update(dict.fromkeys(spinners))

    def moved(self) -> tuple[list[Key], list[Key]]:
        """Return the runs and the spinners that moved since this was last asked, at first all of them."""
        self._collect()
        runs, self._runs = self._runs, {}
        spinners, self._spinners = self._spinners, {}
        return list(runs), list(spinners)
