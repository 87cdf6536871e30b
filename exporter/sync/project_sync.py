"""Reads one project into the store: the runs that changed, and all open runs at each sweep.

The pages of a read are collected and applied after the last one; a read that fails changes nothing that is shown.
"""

import contextlib
import dataclasses
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from exporter.config import Config
from exporter.errors import ApiError
from exporter.runs.clock import MAX_DELAY, TOLERANCE
from exporter.runs.read import ProjectRead
from exporter.runs.run import Run, brings_progress
from exporter.runs.store import Store
from exporter.runtime.client import RuntimeClient
from exporter.runtime.held import Holding
from exporter.runtime.http_client import NotFoundError, RefusedError
from exporter.runtime.model import ListPage, Project, RunSnapshot
from exporter.sync.budget import Budget
from exporter.sync.problems import ProblemLog, one_read
from exporter.sync.record_counter import ParentRuns, RecordCounter
from exporter.sync.run_list import ListRead, Response, RunList, Slice
from exporter.sync.together import together

RUNS_PER_SLICE = 500
"""Runs that are applied in one time slice: about two milliseconds, as long as decoding a page takes."""


class ProjectSync:
    """Reads the projects of one store, each from where its last read ended."""

    def __init__(
        self,
        client: RuntimeClient,
        store: Store,
        config: Config,
        problems: ProblemLog,
        *,
        record_readers: Sequence["RecordReader"],
        rereads: Budget,
        is_listed: Callable[[str], bool],
        listed_at: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        """`record_readers` are told of projects that are dropped; `rereads` are the runs that may be read one by one.

        `is_listed` returns whether the runtime's list of projects has a project of this id, `listed_at` our
        monotonic time at which that list was requested.
        """
        self._client = client
        self._store = store
        self._config = config
        self._problems = problems
        self._record_readers = record_readers
        self._rereads = rereads
        self._is_listed = is_listed
        self._listed_at = listed_at
        self._monotonic = monotonic
        self._cursors: dict[str, _Cursor] = {}
        self._begun_first_reads: defaultdict[str, int] = defaultdict(int)
        """How many first reads of a project received a page and did not complete."""
        self._unlisted_since: dict[str, float] = {}
        """Our monotonic time since when a project has been missing from the list of projects."""
        self._counters: dict[str, RecordCounter] = {}
        self._parents = ParentRuns()
        self._failing_since: dict[str, dict[str, float]] = {}
        """By project and run, our monotonic time since when a run that no list has cannot be read by its id."""
        self._changed_at: dict[str, float] = {}
        self._refused: set[str] = set()

    async def read(
        self,
        project_id: str,
        name: str | None,
        part: Slice | None = None,
        common: ListRead | None = None,
        *,
        since: float | None = None,
    ) -> bool:
        """Read one project; return whether it could be read. Raises for no response of the API.

        `name` is its name in the runtime's list; None when it is no longer listed. With a `part` of a `common` read,
        the project's own list is not requested. Of its own list, changes are read since the runtime's time `since` if
        that is before the end of the last read.
        """
        is_listed = name is not None
        self._refused.discard(project_id)
        unlisted_for = self._unlisted_for(project_id, is_listed=is_listed)
        if is_listed:
            self._store.withdraw(project_id, is_gone=False)
        try:
            with one_read():
                await self._read(project_id, name, part, common, since)
        except ApiError as error:
            # A 404 alone does not remove a project: it must be missing from the list of projects too. And both can be a
            # mistake for a moment, so its counters are kept for a while, and what was saved of it.
            if isinstance(error, NotFoundError) and not is_listed:
                self._store.withdraw(project_id)
                if unlisted_for >= self._config.sync.stale_after:
                    self.drop(project_id)
                return True
            self.note_failure(project_id, error)
            return False
        if unlisted_for >= self._config.sync.stale_after and not self._store.open_runs(project_id):
            self.drop(project_id)
        return True

    def note_unchanged(self, project_ids: Sequence[str], common: ListRead) -> None:
        """Note that a list of all projects had nothing of these, which are listed and have been read before."""
        self._store.note_unchanged(
            project_ids,
            as_of=self._seen_at(common.first),
            since=common.since,
            watermark=None if common.unchanged else common.watermark,
            asked_at=common.asked_at,
            at=common.first.requested_at,
        )
        for project_id in self._unlisted_since.keys() & project_ids:
            del self._unlisted_since[project_id]
        for project_id in self._problems.projects_with("project").intersection(project_ids):
            self._problems.resolve("project", project=project_id)
        if common.swept_at is not None:
            self._cursors |= dict.fromkeys(project_ids, _Cursor(None, common.swept_at))

    def note_failure(self, project_id: str, error: ApiError) -> None:
        """Note that a project could not be read."""
        self._store.fail(project_id, error.public)
        self._problems.report("project", error, project=project_id)
        if isinstance(error, RefusedError):
            self._refused.add(project_id)

    def changed_at(self, project_id: str) -> float:
        """Return the runtime's time of the last change that the project's own list had when it was last read."""
        return self._changed_at.get(project_id, -math.inf)

    def is_refused(self, project_id: str) -> bool:
        """Whether the runtime refused the last read of a project, as one that the token may not see."""
        return project_id in self._refused

    async def _read(
        self, project_id: str, name: str | None, part: Slice | None, common: ListRead | None, since: float | None
    ) -> None:
        begun = None if part is None else part.read
        with self._store.reading(project_id) if begun is None else contextlib.nullcontext(begun) as read:
            if part is None or common is None:
                with self._client.held.open("jobs") as holding:
                    gone, error = await self._read_runs(read, Project(project_id, name or ""), holding, since)
            else:
                gone, error = await self._read_slice(read, project_id, part, common)
            shared_ids = read.shared_ids
        for run_id in gone:
            self._store.drop_run(project_id, run_id)
        self._problems.note_gone(len(gone), project=project_id)
        if shared_ids:
            self._problems.report(
                "some runs", f"{shared_ids} ids are those of several runs, of which one is read", project=project_id
            )
        if error is not None:
            raise error
        self._problems.resolve("project", project=project_id)

    def _unlisted_for(self, project_id: str, *, is_listed: bool) -> float:
        """Return for how many seconds a project has been missing, as the lists of projects so far show."""
        if is_listed:
            self._unlisted_since.pop(project_id, None)
            return 0.0
        listed_at = self._listed_at()
        return listed_at - self._unlisted_since.setdefault(project_id, listed_at)

    def drop(self, project_id: str) -> None:
        """Drop a project, in the store too."""
        self._store.drop_project(project_id)
        self._problems.forget(project_id)
        for reader in self._record_readers:
            reader.forget(project_id)
        self._cursors.pop(project_id, None)
        self._begun_first_reads.pop(project_id, None)
        self._unlisted_since.pop(project_id, None)
        self._failing_since.pop(project_id, None)
        if (counter := self._counters.pop(project_id, None)) is not None:
            counter.close()
        self._changed_at.pop(project_id, None)
        self._refused.discard(project_id)

    async def _read_runs(
        self, read: ProjectRead, project: Project, holding: Holding, earlier: float | None
    ) -> tuple[list[str], ApiError | None]:
        """Read what changed, if need be since an `earlier` time.

        Returns the runs that the runtime no longer has, and the error of a project none of whose records could be read.
        """
        project_id = project.id
        cursor = self._cursors.get(project_id, _Cursor())
        swept_at = self._monotonic()
        is_due = cursor.swept_at is None or swept_at - cursor.swept_at >= self._config.sync.sweep_interval
        sweeps = is_due or bool(cursor.unread)
        open_before = self._store.open_runs(project_id) if sweeps else {}
        active = RunList(open_before, holding)
        if sweeps and self._client.can_list_active:
            async for page in self._runs_of(project, active=True):
                active.add(page, self._monotonic())
        is_first = not self._store.has_been_read(project_id)
        since, horizon = self._range(project)
        reaches_back = earlier is not None and not is_first and earlier < since
        if earlier is not None and reaches_back:
            since = earlier
        # A sweep sends no ETag: a wrong one would hide every change for ever.
        changed = await self._read_changes(
            project, active, since, None if sweeps or reaches_back else cursor.etag, read if is_first else None
        )
        if not is_first and since > (needed := self.since(project_id, changed.lead())) + TOLERANCE:
            # The runtime's clock was set back, so what changed has earlier times than what was asked for.
            since = needed
            changed = await self._read_changes(project, active, since, None, None)
        if not changed.not_modified:
            self._changed_at[project_id] = changed.changed_at
        lost = [run for run_id, run in open_before.items() if run_id in changed.unseen]
        gone, unread = list[str](), cursor.unread
        if sweeps:
            gone, unread = await self._reread(project_id, lost, cursor.unread, active)
        as_of = self._seen_at(changed.first)
        holding.check()
        responses, error = [*active.drain(), *changed.drain()], None
        if self._client.counts_records:
            responses, error = await self._count_records(project_id, responses)
        await self.apply(read, responses, horizon)
        # A clock that was set back is believed when other responses agree; until then the next read asks again.
        is_behind = not is_first and changed.as_of() < self._store.clock.at(changed.first.requested_at) - MAX_DELAY
        own = ListRead(
            first=changed.first,
            since=since,
            watermark=min(changed.as_of(), self._store.clock.at(changed.first.at)),
            asked_at=changed.asked_at,
            horizon=horizon,
            unchanged=changed.not_modified or is_behind,
        )
        _complete(read, own, as_of)
        self._begun_first_reads.pop(project_id, None)
        # A sweep is over when the last of its runs has been read; the next one is due from when it began.
        begun_at = swept_at if sweeps and not cursor.unread else cursor.swept_at
        self._cursors[project_id] = _Cursor(None if is_behind else changed.etag, begun_at, unread)
        return gone, error

    async def _read_slice(
        self, read: ProjectRead, project_id: str, part: Slice, common: ListRead
    ) -> tuple[list[str], ApiError | None]:
        """Apply what a list of all projects has of one; return the same as `_read_runs`."""
        if part.error is not None:
            raise part.error
        sweeps, is_first = common.swept_at is not None, not self._store.has_been_read(project_id)
        gone: list[str] = []
        if (sweeps and not is_first) or part.unread:
            open_before = self._store.open_runs(project_id)
            lost = [run for run_id, run in open_before.items() if run_id not in part.seen]
            singles = RunList(())
            gone, part.unread = await self._reread(project_id, lost, part.unread, singles)
            part.responses += singles.drain()
        responses, error = part.drain(), None
        if self._client.counts_records:
            responses, error = await self._count_records(project_id, responses)
        if responses:
            await self.apply(read, responses, common.horizon)
        _complete(read, common, self._seen_at(common.first))
        if is_first:
            self._begun_first_reads.pop(project_id, None)
        if sweeps:
            # Where its own list goes on if it is read by itself.
            self._cursors[project_id] = _Cursor(None, common.swept_at, part.unread)
        return gone, error

    async def _read_changes(
        self, project: Project, active: RunList, since: float, etag: str | None, first: ProjectRead | None
    ) -> RunList:
        """Read what changed since a time of the runtime's clock; `first` is the read if it is the project's first."""
        changed = RunList(active.unseen, active.holding, asked_at=self._monotonic())
        async for page in self._runs_of(project, updated_since=since, etag=etag):
            changed.add(page, self._monotonic())
            if first is not None:
                # Nothing of a project is shown or saved before its first read completes. So its pages are applied as
                # they arrive, and the whole history is never in memory.
                self._begun_first_reads[project.id] += changed.pages == 1
                _, horizon = self._range(project)
                counts = self._client.counts_records
                ready = changed.drain_ended(horizon) if counts else [*active.drain(), *changed.drain()]
                await self.apply(first, ready, horizon)
                if (holding := active.holding) is not None:
                    applied = sum(len(response.runs) for response in ready)
                    holding.release(page.size * applied // max(len(page.items), 1) if counts else None)
        return changed

    def since(self, project_id: str, lead: float | None = None) -> float:
        """Return since when changes are read of a project that has been read; `lead` as in `Store.read_up_to`."""
        return self._store.read_up_to(project_id, lead) - self._config.sync.overlap

    def since_each(self, project_ids: Iterable[str], lead: float | None = None) -> list[float]:
        """Return `since` for each of these projects."""
        overlap = self._config.sync.overlap
        return [read_up_to - overlap for read_up_to in self._store.read_up_to_each(project_ids, lead)]

    def _range(self, project: Project) -> tuple[float, float]:
        """Return since when changes are read, and the end before which a run that is not known is not counted."""
        if self._store.has_been_read(project.id):
            return self.since(project.id), -math.inf
        now = self._store.clock.now()
        # Half as much after each first read that did not complete: its list may have more than `limits.pages`, or take
        # too long.
        history = self._config.history(project.name) * 0.5 ** self._begun_first_reads[project.id]
        return now - max(history, self._config.retention), now - self._config.retention

    async def apply(self, read: ProjectRead, responses: list[Response], horizon: float) -> None:
        """Apply responses to a read in progress.

        Raises `ApiError` for more runs that have not ended than can be tracked: they are kept until they end.
        """
        if not read.has_room({run.id for response in responses for run in response.runs if not run.status.ended}):
            limit = self._config.limits.open_runs
            raise ApiError(f"jobs: there are more runs that have not ended than limits.open_runs ({limit:,})")
        for response in responses:
            for start in range(0, len(response.runs), RUNS_PER_SLICE):
                await self._client.time_slices.next()
                some = response.runs[start : start + RUNS_PER_SLICE]
                read.apply(some, self._seen_at(response), horizon=horizon)

    def _seen_at(self, response: Response) -> float:
        """Return the runtime's time of a response, as far as the others agree with it."""
        clock = self._store.clock
        if response.as_of is None:
            return clock.at(response.requested_at)
        return clock.agreed(response.as_of, response.requested_at, response.at)

    async def _count_records(
        self, project_id: str, responses: list[Response]
    ) -> tuple[list[Response], ApiError | None]:
        """Return responses with counted records, and one for each open run, whose records can change without it.

        Also returns the error of a project none of whose records could be read.
        """
        counter = self._counters.setdefault(
            project_id,
            RecordCounter(self._client, self._store.clock, overlap=self._config.sync.overlap, parents=self._parents),
        )
        known = self._store.runs_of(project_id)
        now = self._monotonic()
        unlisted = Response((), None, now, now)
        newest = {
            run.id: (run.snapshot, unlisted) for run in known.values() if not run.ended or counter.is_failing(run.id)
        }
        newest |= {snapshot.id: (snapshot, response) for response in responses for snapshot in response.runs}
        for snapshot, _ in newest.values():
            self._parents.note(snapshot)
        due = [snapshot for snapshot, _ in newest.values() if counter.is_due(snapshot, known.get(snapshot.id))]
        problems: list[ApiError] = []

        async def count(snapshot: RunSnapshot, response: Response) -> Response:
            before = known.get(snapshot.id)
            try:
                with one_read():
                    counted = await counter.count(snapshot, before)
            except ApiError as error:
                problems.append(error)
                counted = counter.uncounted(snapshot, before, stale_after=self._config.sync.stale_after)
            return dataclasses.replace(response, runs=[counted])

        counted = await together(*(count(snapshot, response) for snapshot, response in newest.values()))
        counter.keep_only(newest)
        self._problems.settle("records", problems, project=project_id)
        # What has ended may have no records any more, which says nothing about the others.
        is_refused = len(problems) == len(due) and not all(snapshot.status.ended for snapshot in due)
        error = ApiError.of(problems[0]) if is_refused else None
        return [self._with_parents(each, known) for each in counted], error

    def _with_parents(self, response: Response, known: Mapping[str, Run]) -> Response:
        """Return a response whose runs have the ids of those that started them, as far as they are known.

        A parent waits for its child, also for one of another project, so it is not silent while that goes on.
        """
        runs = [self._parents.named(run, known.get(run.id)) for run in response.runs]
        for run in runs:
            parent, moved_at = self._parents.of(run), run.ended_at or run.last_progress_at
            if parent is not None and parent[0] != run.project_id and moved_at is not None:
                self._store.excuse(*parent, moved_at, is_progress=brings_progress(run))
        return dataclasses.replace(response, runs=runs)

    async def _reread(
        self, project_id: str, lost: list[Run], unread: frozenset[str], active: RunList
    ) -> tuple[list[str], frozenset[str]]:
        """Read one by one the runs that should be open and were in no list.

        Returns those that the project no longer has, and those for which the budget did not suffice. If some of this
        sweep are `unread` already, only these are read. One that cannot be read for `sync.stale_after` loses its counts
        and its progress: they are not known any more, and would look current for ever.
        """
        if not self._client.has("job"):
            return [run.id for run in lost], frozenset()
        failing = self._failing_since.get(project_id, {})
        if not unread:
            # What was seen since begins anew.
            failing = {run.id: failing[run.id] for run in lost if run.id in failing}
        lost = [run for run in lost if run.id in unread] if unread else lost
        count = self._rereads.take_some(len(lost))
        runs, unread = lost[:count], frozenset(run.id for run in lost[count:])
        gone: list[str] = []
        problems: list[ApiError] = []

        async def read(run: Run) -> None:
            requested_at = self._monotonic()
            try:
                with one_read():
                    snapshot = await self._client.job(run.snapshot)
                failing.pop(run.id, None)
                if snapshot.project_id != project_id and self._is_listed(snapshot.project_id):
                    # It was moved, and the other project's list has it.
                    gone.append(run.id)
                else:
                    snapshot = msgspec.structs.replace(snapshot, project_id=run.snapshot.project_id)
                    active.add_single(snapshot, requested_at, self._monotonic())
            except NotFoundError:
                failing.pop(run.id, None)
                gone.append(run.id)
            except ApiError as error:
                # It keeps its last state for a while; the rest of the project is read.
                problems.append(error)
                since = failing.setdefault(run.id, requested_at)
                if requested_at - since >= self._config.sync.stale_after:
                    active.add_single(_without_counts(run.snapshot), requested_at, self._monotonic())

        await together(*map(read, runs))
        self._failing_since.pop(project_id, None)
        if failing:
            self._failing_since[project_id] = failing
        if runs or not unread:
            self._problems.settle("job", problems, project=project_id)
        return gone, unread

    async def _runs_of(
        self, project: Project, *, updated_since: float | None = None, active: bool = False, etag: str | None = None
    ) -> AsyncIterator[ListPage[RunSnapshot]]:
        """Yield the pages of a project's runs, without those of other projects; set the runtime's clock by each."""
        async for page in self._client.jobs(project, updated_since=updated_since, active=active, etag=etag):
            if page.as_of is not None:
                self._store.clock.observe(page.as_of, page.requested_at)
            if any(run.project_id != project.id for run in page.items):
                own = tuple(run for run in page.items if self._belongs_to(run, project))
                page = dataclasses.replace(page, items=own, size=page.size * len(own) // len(page.items))
            yield page

    def _belongs_to(self, run: RunSnapshot, project: Project) -> bool:
        """Whether a run of a project's list belongs to it: a list can be one of all projects, or ignore a filter."""
        if run.project_id == project.id:
            return True
        # Some APIs have another id of the project in its runs, so a run of its own list is only excluded for another.
        return not self._client.lists_all_projects and not self._is_listed(run.project_id)


class RecordReader(Protocol):
    """Reads records of runs, beside their lists."""

    def forget(self, project_id: str) -> None:
        """Forget the runs of a project that was removed."""


def _without_counts(snapshot: RunSnapshot) -> RunSnapshot:
    return msgspec.structs.replace(snapshot, records=None, failures=(), last_progress_at=None)


def _complete(read: ProjectRead, of_list: ListRead, as_of: float) -> None:
    read.complete(
        as_of=as_of,
        since=of_list.since,
        horizon=of_list.horizon,
        watermark=of_list.watermark,
        asked_at=of_list.asked_at,
        at=of_list.first.requested_at,
        unchanged=of_list.unchanged,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Cursor:
    """Where the last read of a project ended."""

    etag: str | None = None
    swept_at: float | None = None
    """Our monotonic time at which the last sweep began."""
    unread: frozenset[str] = frozenset()
    """The runs that are still to be read one by one in this sweep."""
