"""One read of one project on its way into the store: applied response by response, then completed."""

import math
from collections.abc import Callable, Sequence, Set

from exporter.runs.project import ProjectRuns
from exporter.runtime.model import RunSnapshot


class ProjectRead:
    """A read in progress; `Store.reading` opens it and handles one that is not completed."""

    def __init__(
        self,
        project: ProjectRuns,
        *,
        label_length: int,
        stall_floor: float,
        applied: Callable[[int], None],
        has_room: Callable[[Set[str]], bool],
        dropped: Callable[[str], None],
        monotonic: Callable[[], float],
    ) -> None:
        """Unique names of spinners have at most `label_length` characters; `stall_floor` is the least of the config.

        `applied` receives the number of snapshots of each `apply`, `dropped` the reason for each dropped run.
        """
        self._project = project
        self._label_length = label_length
        self._stall_floor = stall_floor
        self._applied = applied
        self.has_room = has_room
        """Whether these runs of the project can be tracked, which have not ended."""
        self._dropped = dropped
        self._monotonic = monotonic
        self._has_begun = False
        self._has_brought_runs = False

    def apply(self, snapshots: Sequence[RunSnapshot], seen_at: float | None, *, horizon: float = -math.inf) -> None:
        """Apply snapshots of one response, or of a part of it.

        `seen_at` is the runtime's time of the response; None when it has none. A run that ended before `horizon` and
        is not in the store is history, which is not counted; without one, what the store remembers decides.
        """
        self._begin()
        self._has_brought_runs = self._has_brought_runs or bool(snapshots)
        shared = len(self._project.shared_ids)
        self._project.apply(snapshots, seen_at, horizon, label_length=self._label_length)
        self._applied(len(snapshots))
        for _ in range(len(self._project.shared_ids) - shared):
            self._dropped("shared_id")

    @property
    def shared_ids(self) -> int:
        """How many ids are those of several runs of the project, of which only one is tracked."""
        return len(self._project.shared_ids)

    def complete(
        self,
        *,
        as_of: float,
        since: float,
        horizon: float = -math.inf,
        watermark: float | None = None,
        asked_at: float | None = None,
        at: float | None = None,
        unchanged: bool = False,
    ) -> None:
        """Complete the read of changes since the runtime's time `since`: the project is now known as of `as_of`.

        That was requested at our monotonic time `at`, by default now. `watermark` is the time up to which the list was
        read at our monotonic time `asked_at`, by default `as_of` and `at`, and `horizon` the one of a first read.
        `unchanged`: the next read starts where this one did, since the list of changes is the one of the read before
        (HTTP 304), or its time is not to be believed.
        """
        self._begin()
        at = self._monotonic() if at is None else at
        if self._has_brought_runs:
            self._project.note_overtaken(self._stall_floor)
        for _ in range(
            self._project.complete(
                as_of=as_of,
                since=since,
                horizon=horizon,
                watermark=None if unchanged else as_of if watermark is None else watermark,
                asked_at=at if asked_at is None else asked_at,
                at=at,
            )
        ):
            self._dropped("limit")

    def _begin(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._project.begin()
