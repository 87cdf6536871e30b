"""What of a store a state file saves: rows for what changed, and the way back from rows to a store."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from exporter.runs.project import RUN, SPINNER, ProjectMetadata
from exporter.runs.projects import Projects
from exporter.runs.runtime_state import Outage, RuntimeState
from exporter.runs.spinner import Spinner, TrackedRun

Saved = ProjectMetadata | Spinner | TrackedRun | Outage
"""What can be saved: a project's metadata, a spinner, a run or its tombstone, the last outage."""

Row = tuple[str, str, str, Saved | None]
"""Kind, project, key and value; the first three are the primary key.

A value of None deletes the row; that of a project deletes all rows of the project.
"""

KINDS: dict[str, type[Saved]] = {"project": ProjectMetadata, SPINNER: Spinner, RUN: TrackedRun, "outage": Outage}


class Persistence:
    """Finds what is not saved yet of one store."""

    def __init__(self, projects: Projects, runtime: RuntimeState) -> None:
        self._projects = projects
        self._runtime = runtime
        self._saved_metadata: dict[str, ProjectMetadata] = {}
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
        for project_id, project in self._projects.items():
            if self._saved_metadata.get(project_id) != project.metadata:
                yield "project", project_id, "", project.metadata
            # After a restart the first read starts over, and would count again what this one has applied so far.
            if project.has_been_read:
                for kind, key, value in project.unsaved():
                    yield kind, project_id, key, value
        if self._runtime.outage != self._saved_outage:
            yield "outage", "", "", self._runtime.outage

    def everything(self) -> Iterator[Row]:
        """Yield all rows that a file of this store has when everything is saved."""
        for project_id, project in self._projects.items():
            yield "project", project_id, "", project.metadata
            if project.has_been_read:
                for kind, key, value in project.everything():
                    yield kind, project_id, key, value
        yield "outage", "", "", self._runtime.outage

    def saved(self) -> None:
        """Note that everything that `unsaved` or `everything` yielded is saved; nothing may have changed in between."""
        self._removed.clear()
        self._saved_metadata = {project_id: project.metadata for project_id, project in self._projects.items()}
        self._saved_outage = self._runtime.outage
        for _, project in self._projects.read():
            project.saved()

    def restore(self, rows: Iterable[Row]) -> None:
        """Restore what an earlier process saved. Until a project is read again only its counters are shown."""
        metadata: dict[str, ProjectMetadata] = {}
        spinners: dict[str, dict[str, Spinner]] = defaultdict(dict)
        runs: dict[str, list[TrackedRun]] = defaultdict(list)
        for _, project_id, key, value in rows:
            match value:
                case ProjectMetadata():
                    metadata[project_id] = value
                case Spinner():
                    spinners[project_id][key] = value
                case TrackedRun():
                    runs[project_id].append(value)
                case Outage():
                    self._runtime.outage = value
        self._projects.restore(metadata, runs, spinners)
        self.saved()
