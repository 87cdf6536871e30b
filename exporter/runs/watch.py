"""The changes since a reader's last call, so that it need not iterate over all runs."""

from collections.abc import Callable, Iterable

Key = tuple[str, str]
"""The ids of a project and of a run in it; or the id of a project and the name of a spinner in it."""


class Watch:
    """The changes that one reader has not seen yet. A run or spinner that was removed has changed too."""

    def __init__(self, collect: Callable[[], None]) -> None:
        """`collect` is called before the changes are returned, so that the latest are noted."""
        self._collect = collect
        self._runs: dict[Key, None] = {}
        self._spinners: dict[Key, None] = {}

    def note(self, runs: Iterable[Key], spinners: Iterable[Key]) -> None:
        """Note that these changed."""
        self._runs.update(dict.fromkeys(runs))
        self._spinners.update(dict.fromkeys(spinners))

    def changed(self) -> tuple[list[Key], list[Key]]:
        """Return the runs and the spinners that changed since the last call; the first call returns all."""
        self._collect()
        runs, self._runs = self._runs, {}
        spinners, self._spinners = self._spinners, {}
        return list(runs), list(spinners)
