"""What cannot be read, said once: when it begins, when it turns into something else, and when it is over."""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable

import structlog

log = structlog.get_logger(__name__)

QUIET = 300.0
"""Seconds for which a problem that changes its words is not news: some name another item with every read."""


class ProblemLog:
    """Collects what goes wrong in a sync; `log` says what is new of it, in a line for each kind of problem.

    A thousand projects that fail for one reason are one line, and so is an hour of failures.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._known: dict[_Key, _Problem] = {}
        self._news: dict[_Key, None] = {}
        self._over: dict[_Key, _Problem] = {}

    def report(self, what: str, error: str, *, project: str = "") -> None:
        """Take note that something could not be read; `error` has no token and nothing of a contact."""
        key, now = (what, project), self._monotonic()
        problem = self._known.get(key)
        if problem is None:
            self._known[key] = _Problem(error, now, now)
            self._news[key] = None
            return
        problem.times += 1
        if error != problem.error and now - problem.told_at >= QUIET:
            problem.error, problem.told_at = error, now
            self._news[key] = None

    def resolve(self, what: str, *, project: str = "") -> None:
        """Take note that it could be read."""
        problem = self._known.pop((what, project), None)
        if problem is not None and self._news.pop((what, project), self) is self:
            self._over[what, project] = problem

    def settle(self, what: str, errors: list[str], *, project: str) -> None:
        """Note the first of the errors of several reads, or that all went well."""
        if errors:
            self.report(what, errors[0], project=project)
        else:
            self.resolve(what, project=project)

    def forget(self, project: str) -> None:
        """Forget a project that is gone, with its problems."""
        for key in [key for key in self._known if key[1] == project]:
            del self._known[key]

    def log(self) -> None:
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
            problems = [self._over[what, project] for project in projects]
            seconds = self._monotonic() - min(problem.since for problem in problems)
            times = max(problem.times for problem in problems)
            log.info("recovered", what=what, failed_times=times, failed_seconds=round(seconds), **_whose(projects))
        self._news.clear()
        self._over.clear()


_Key = tuple[str, str]
"""What could not be read, and the project that it is of."""


@dataclasses.dataclass(slots=True)
class _Problem:
    error: str
    since: float
    told_at: float
    times: int = 1


def _whose(projects: Iterable[str]) -> dict[str, object]:
    named = sorted(filter(None, projects))
    if len(named) > 1:
        return {"projects": len(named), "such_as": named[0]}
    return {"project": named[0]} if named else {}
