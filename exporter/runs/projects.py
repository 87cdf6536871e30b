"""The projects of one runtime by id: which there are, and what each was called last."""

from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, Sequence, ValuesView

import msgspec

from exporter.config import Config
from exporter.runs.clock import RuntimeClock
from exporter.runs.project import CommonRead, ProjectMetadata, ProjectRuns
from exporter.runs.spinner import Spinner, TrackedRun
from exporter.runs.spinners import ProjectSpinners, SpinnerSlots


class Projects(Mapping[str, ProjectRuns]):
    """Owns every `ProjectRuns` of a store."""

    def __init__(
        self, clock: RuntimeClock, slots: SpinnerSlots, config: Callable[[], Config], *, is_saved: bool
    ) -> None:
        """`slots` are those of all spinners, `config` returns the current config.

        `is_saved`: whether the projects note their changes for a state file.
        """
        self._clock = clock
        self.slots = slots
        self._config = config
        self._is_saved = is_saved
        self._by_id: dict[str, ProjectRuns] = {}
        self._listed = False
        self.common: CommonRead | None = None
        """When the list of all projects was last read, if there is one."""

    def __getitem__(self, project_id: str) -> ProjectRuns:
        return self._by_id[project_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_id)

    def __len__(self) -> int:
        return len(self._by_id)

    # Those of a mapping look up one project at a time, which would be a good part of a scrape of thousands.

    def items(self) -> ItemsView[str, ProjectRuns]:
        """Return the projects with their ids."""
        return self._by_id.items()

    def values(self) -> ValuesView[ProjectRuns]:
        """Return the projects."""
        return self._by_id.values()

    def of(self, project_ids: Iterable[str]) -> list[ProjectRuns]:
        """Return the projects of these ids, in their order."""
        by_id = self._by_id
        return [by_id[project_id] for project_id in project_ids]

    def read(self) -> Iterator[tuple[str, ProjectRuns]]:
        """Yield the projects that have been read, each with its id."""
        for project_id, project in self._by_id.items():
            if project.has_been_read:
                yield project_id, project

    def name(self, names: Mapping[str, str]) -> None:
        """Add the projects of a list, id to name, and rename those that are known; none is removed."""
        for project_id, name in names.items():
            known = self._by_id.get(project_id)
            if known is None:
                self._add(project_id, ProjectMetadata(name, history=not self._listed))
            elif known.name != name:
                known.metadata = msgspec.structs.replace(known.metadata, name=name)
                known.mark_all_changed()
        self._listed = True

    def note_common(self, project_ids: Sequence[str], as_of: float, *, is_unchanged: bool) -> None:
        """Note when a list of all projects was read that had nothing of these, by the runtime's time `as_of`.

        With `is_unchanged` they have been read up to the same times as before, which are not the same for all of them.
        """
        if project_ids and not is_unchanged:
            metadata = self._by_id[project_ids[0]].metadata
            self.common = CommonRead(metadata.read_as_of, metadata.watermark, metadata.read_at)
        elif self.common is not None:
            self.common = msgspec.structs.replace(self.common, read_as_of=as_of)

    def discard_first_read(self, project_id: str) -> None:
        """Discard what a first read has applied. Why it failed stays, since it is known before the read is closed."""
        discarded = self._by_id[project_id]
        discarded.spinners.release()
        self._add(project_id, discarded.metadata)
        self._by_id[project_id].error = discarded.error

    def remove(self, project_id: str) -> ProjectRuns:
        """Remove a project and return it."""
        project = self._by_id.pop(project_id)
        project.spinners.release()
        return project

    def restore(
        self,
        metadata: Mapping[str, ProjectMetadata],
        runs: Mapping[str, Iterable[TrackedRun]],
        spinners: Mapping[str, dict[str, Spinner]],
    ) -> None:
        """Add projects that an earlier process saved, each with its runs and spinners."""
        for project_id, each in metadata.items():
            self._add(project_id, each)
            self._by_id[project_id].restore(runs.get(project_id, ()), spinners.get(project_id, {}))
        self._listed = bool(metadata)

    def _add(self, project_id: str, metadata: ProjectMetadata) -> None:
        spinners = ProjectSpinners(self.slots, self._config, is_saved=self._is_saved)
        self._by_id[project_id] = ProjectRuns(metadata, spinners, self._clock, is_saved=self._is_saved)
