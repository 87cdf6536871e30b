"""Log lines about what cannot be read: one when a problem begins, one when it changes, one when it is over.

And one for the runs that a sync found gone.
"""

import contextlib
import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

import structlog

from exporter.errors import ApiError, unforeseen

log = structlog.get_logger(__name__)

QUIET = 300.0
"""Seconds for which a changed error of a known problem is not logged: some errors name another item each time."""


class UnforeseenError(ApiError):
    """A bug, or an error that no code handles; its `__cause__` is the original."""


@contextlib.contextmanager
def one_read() -> Iterator[None]:
    """Raise whatever a read raises as `ApiError`, so that it costs this read alone and never the others of its sync."""
    try:
        yield
    except ApiError:
        raise
    except Exception as error:
        # Whatever it is, the other reads of the sync go on.
        raise UnforeseenError(unforeseen(error)) from error


class ProblemLog:
    """Collects the problems of a sync; `log` writes one line for each kind of problem that is new.

    A thousand projects that fail for the same reason are one line, and so is an hour of failures.
    """

    def __init__(self, monotonic: Callable[[], float], *, name_of: Callable[[str], str]) -> None:
        """`name_of` returns a project's name for its id."""
        self._monotonic = monotonic
        self._name_of = name_of
        self._known: dict[_Key, _Problem] = {}
        self._new: dict[_Key, None] = {}
        self._resolved: dict[_Key, _Problem] = {}
        self._gone: Counter[str] = Counter()
        self._causes: dict[str, BaseException | None] = {}
        """Of each unforeseen error, the original until its traceback is logged."""

    def report(self, what: str, reason: str | ApiError, *, project: str = "") -> None:
        """Note that something could not be read; `reason` must not contain a token or data about a contact."""
        key, now, error = (what, project), self._monotonic(), str(reason)
        if isinstance(reason, UnforeseenError):
            self._causes.setdefault(error, reason.__cause__)
        problem = self._known.get(key)
        if problem is None:
            self._known[key] = _Problem(error, now, now)
            self._new[key] = None
            return
        problem.times += 1
        if error != problem.error and now - problem.logged_at >= QUIET:
            problem.error, problem.logged_at = error, now
            self._new[key] = None

    @property
    def reasons(self) -> tuple[str, ...]:
        """What cannot be read now and why, each reason once: causes first, and of these what most depends on."""

        def order(key: _Key) -> tuple[bool, int]:
            is_follower = ": not requested: " in self._known[key].error
            return is_follower, _FIRST.index(key[0]) if key[0] in _FIRST else len(_FIRST)

        return tuple(dict.fromkeys(self._known[key].error for key in sorted(self._known, key=order)))

    def resolve(self, what: str, *, project: str = "") -> None:
        """Note that it could be read."""
        problem = self._known.pop((what, project), None)
        if problem is not None and self._new.pop((what, project), self) is self:
            self._resolved[what, project] = problem

    def projects_with(self, what: str) -> set[str]:
        """Return the ids of the projects that have a problem of a kind."""
        return {project for known, project in self._known if known == what}

    def settle(self, what: str, errors: Sequence[str | ApiError], *, project: str) -> None:
        """Report the first error of several reads, or resolve the problem when there is none."""
        if errors:
            self.report(what, errors[0], project=project)
        else:
            self.resolve(what, project=project)

    def note_gone(self, runs: int, *, project: str) -> None:
        """Note that the runtime no longer has so many runs of a project."""
        if runs:
            self._gone[project] += runs

    def forget(self, project: str) -> None:
        """Forget the problems of a project that was removed."""
        for key in [key for key in self._known if key[1] == project]:
            del self._known[key]

    def log(self) -> None:
        """Log what is new since the last call."""
        alike: dict[tuple[str, str], list[str]] = defaultdict(list)
        for what, project in self._new:
            if (what, project) in self._known:
                alike[what, self._known[what, project].error].append(project)
        for (what, error), projects in alike.items():
            fields = self._project_fields(projects)
            if (cause := self._causes.get(error)) is not None:
                fields["exc_info"], self._causes[error] = cause, None
            log.warning("cannot read", what=what, error=error, **fields)
        recovered: dict[str, list[str]] = defaultdict(list)
        for what, project in self._resolved:
            recovered[what].append(project)
        for what, projects in recovered.items():
            problems = [self._resolved[what, project] for project in projects]
            seconds = self._monotonic() - min(problem.since for problem in problems)
            times = max(problem.times for problem in problems)
            log.info(
                "recovered",
                what=what,
                failed_times=times,
                failed_seconds=round(seconds),
                **self._project_fields(projects),
            )
        if self._gone:
            log.info("runs are gone", runs=self._gone.total(), **self._project_fields(self._gone))
        self._new.clear()
        self._resolved.clear()
        self._gone.clear()

    def _project_fields(self, projects: Iterable[str]) -> dict[str, object]:
        named = sorted(self._name_of(project_id) for project_id in projects if project_id)
        if len(named) > 1:
            return {"projects": len(named), "such_as": named[0]}
        return {"project": named[0]} if named else {}


_FIRST = ("everything", "health", "projects")

_Key = tuple[str, str]
"""What could not be read, and the id of its project."""


@dataclasses.dataclass(slots=True)
class _Problem:
    error: str
    since: float
    logged_at: float
    times: int = 1
