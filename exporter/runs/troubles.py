"""What cannot be read, said once: when it begins, when it turns into something else, and when it is over."""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable

import structlog

log = structlog.get_logger(__name__)

QUIET = 300.0
"""Seconds for which a trouble that changes its words is not news: some name another item with every read."""


class Troubles:
    """Collects what goes wrong in a sync; `tell` says what is new of it, in a line for each kind of trouble.

    A thousand projects that fail for one reason are one line, and so is an hour of failures.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._known: dict[_Key, _Trouble] = {}
        self._news: dict[_Key, None] = {}
        self._over: dict[_Key, _Trouble] = {}

    def note(self, what: str, error: str, *, project: str = "") -> None:
        """Take note that something could not be read; `error` has no token and nothing of a contact."""
        key, now = (what, project), self._monotonic()
        trouble = self._known.get(key)
        if trouble is None:
            self._known[key] = _Trouble(error, now, now)
            self._news[key] = None
            return
        trouble.times += 1
        if error != trouble.error and now - trouble.told_at >= QUIET:
            trouble.error, trouble.told_at = error, now
            self._news[key] = None

    def clear(self, what: str, *, project: str = "") -> None:
        """Take note that it could be read."""
        trouble = self._known.pop((what, project), None)
        if trouble is not None and self._news.pop((what, project), self) is self:
            self._over[what, project] = trouble

    def settle(self, what: str, errors: list[str], *, project: str) -> None:
        """Note the first of the errors of several reads, or that all went well."""
        if errors:
            self.note(what, errors[0], project=project)
        else:
            self.clear(what, project=project)

    def forget(self, project: str) -> None:
        """Forget a project that is gone, with its troubles."""
        for key in [key for key in self._known if key[1] == project]:
            del self._known[key]

    def tell(self) -> None:
        """Log what is new since the last time."""
        alike: dict[tuple[str, str], list[str]] = defaultdict(list)
        for what, project in self._news:
            if (what, project) in self._known:
                alike[what, self._known[what, project].error].append(project)
        for (what, error), projects in alike.items():
            log.warning("cannot read", what=what, error=error, **_whose(projects))
        healed: dict[str, list[str]] = defaultdict(list)
        for what, project in self._over:
            healed[what].append(project)
        for what, projects in healed.items():
            troubles = [self._over[what, project] for project in projects]
            seconds = self._monotonic() - min(trouble.since for trouble in troubles)
            times = max(trouble.times for trouble in troubles)
            log.info("reads again", what=what, failed_times=times, failed_seconds=round(seconds), **_whose(projects))
        self._news.clear()
        self._over.clear()


_Key = tuple[str, str]
"""What could not be read, and the project that it is of."""


@dataclasses.dataclass(slots=True)
class _Trouble:
    error: str
    since: float
    told_at: float
    times: int = 1


def _whose(projects: Iterable[str]) -> dict[str, object]:
    named = sorted(filter(None, projects))
    if len(named) > 1:
        return {"projects": len(named), "such_as": named[0]}
    return {"project": named[0]} if named else {}
