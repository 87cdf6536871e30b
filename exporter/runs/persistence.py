"""What of a store a state file saves: rows for what changed, and the way back from rows to a store."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

import msgspec

from exporter.runs.project import RUN, SPINNER, CommonRead, ProjectMetadata
from exporter.runs.projects import Projects
from exporter.runs.runtime_state import Outage, RuntimeState
from exporter.runs.spinner import Spinner, TrackedRun

Saved = ProjectMetadata | Spinner | TrackedRun | Outage | CommonRead
"""What can be saved: a project's metadata, a spinner, a run or its tombstone, the last outage and common read."""

Row = tuple[str, str, str, Saved | None]
"""Kind, project, key and value; the first three are the primary key.

A value of None deletes the row; that of a project deletes all rows of the project.
"""

KINDS: dict[str, type[Saved]] = {
    "project": ProjectMetadata,
    SPINNER: Spinner,
    RUN: TrackedRun,
    "outage": Outage,
    "common": CommonRead,
}


class Persistence:
    """Finds what is not saved yet of one store."""

    def __init__(self, projects: Projects, runtime: RuntimeState) -> None:
        self._projects = projects
        self._runtime = runtime
        self._saved_metadata: dict[str, ProjectMetadata] = {}
        """By project, as in the file."""
        self._saved_common: CommonRead | None = None
        self._saved_outage = runtime.outage
        self._removed: set[str] = set()

    def project_removed(self, project_id: str) -> None:
        """Note that a project was removed, which also deletes what was saved of it."""
        if project_id in self._saved_metadata:
            self._removed.add(project_id)

    def unsaved(self) -> Iterator[Row]:
        """Yield what changed since the last `saved`."""
        for project_id in self._removed:
            yield "project", project_id, "", None
        if self._projects.common != self._saved_common:
            yield "common", "", "", self._projects.common
        for project_id, project in self._projects.items():
            metadata = self._as_saved(project_id, project.metadata)
            if metadata is not self._saved_metadata.get(project_id):
                yield "project", project_id, "", metadata
            # After a restart the first read starts over, and would count again what this one has applied so far.
            if project.has_been_read:
                for kind, key, value in project.unsaved():
                    yield kind, project_id, key, value
        if self._runtime.outage != self._saved_outage:
            yield "outage", "", "", self._runtime.outage

    def everything(self) -> Iterator[Row]:
        """Yield all rows that a file of this store has when everything is saved."""
        yield "common", "", "", self._projects.common
        for project_id, project in self._projects.items():
            yield "project", project_id, "", self._as_saved(project_id, project.metadata)
            if project.has_been_read:
                for kind, key, value in project.everything():
                    yield kind, project_id, key, value
        yield "outage", "", "", self._runtime.outage

    def saved(self) -> None:
        """Note that everything that `unsaved` or `everything` yielded is saved; nothing may have changed in between."""
        self._removed.clear()
        self._saved_metadata = {
            project_id: self._as_saved(project_id, project.metadata) for project_id, project in self._projects.items()
        }
        self._saved_common = self._projects.common
        self._saved_outage = self._runtime.outage
        for _, project in self._projects.read():
            project.saved()

    def _as_saved(self, project_id: str, metadata: ProjectMetadata) -> ProjectMetadata:
        """Return the row of a project: the same object if what is saved of it is still right.

        When it was read, which changes with every read, is not written for each project that was read with all others.
        """
        saved, common = self._saved_metadata.get(project_id), self._projects.common
        if common is None or not common.is_that_of(metadata):
            return saved if saved is not None and saved == metadata else metadata
        if saved is not None and saved.is_common and _same_besides_read(saved, metadata):
            return saved
        return msgspec.structs.replace(metadata, is_common=True)

    def restore(self, rows: Iterable[Row]) -> None:
        """Restore what an earlier process saved. Until a project is read again only its counters are shown."""
        metadata: dict[str, ProjectMetadata] = {}
        spinners: dict[str, dict[str, Spinner]] = defaultdict(dict)
        runs: dict[str, list[TrackedRun]] = defaultdict(list)
        common: CommonRead | None = None
        for _, project_id, key, value in rows:
            match value:
                case CommonRead():
                    common = value
                case ProjectMetadata():
                    metadata[project_id] = value
                case Spinner():
                    spinners[project_id][key] = value
                case TrackedRun():
                    runs[project_id].append(value)
                case Outage():
                    self._runtime.outage = value
        self._projects.common = common
        self._projects.restore({each: _restored(saved, common) for each, saved in metadata.items()}, runs, spinners)
        self.saved()


def _same_besides_read(one: ProjectMetadata, other: ProjectMetadata) -> bool:
    return (
        one.name == other.name
        and one.history == other.history
        and one.watched_since == other.watched_since
        and one.remembered_since == other.remembered_since
    )


def _restored(saved: ProjectMetadata, common: CommonRead | None) -> ProjectMetadata:
    if not saved.is_common:
        return saved
    if common is None:
        # Only in a file that was changed by hand: its own times are earlier, and what happened since is read again.
        return msgspec.structs.replace(saved, is_common=False)
    return msgspec.structs.replace(
        saved, is_common=False, read_as_of=common.read_as_of, watermark=common.watermark, read_at=common.read_at
    )
