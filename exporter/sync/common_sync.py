"""Reads the runs of all projects from one list, where the runtime has one, and gives each project its slice of it.

A project of which a complete list has no run has had none since the list began: the list is one of all projects that
the token may see, and so is the list of projects. Because a list may leave out more, this is checked: the own lists of
some such projects are read at once, and in each scrape those of a few more, first of those that the list has named
longest ago. If one contradicts the list, all projects that it does not name are read by themselves.
"""

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence, Set

from exporter.config import Config
from exporter.errors import ApiError
from exporter.runs.clock import MAX_DELAY, TOLERANCE
from exporter.runs.store import Store
from exporter.runtime.client import RuntimeClient
from exporter.runtime.held import Holding
from exporter.runtime.model import ListPage, RunSnapshot
from exporter.sync.availability import Availability
from exporter.sync.problems import ProblemLog, one_read
from exporter.sync.project_list import ProjectList
from exporter.sync.project_sync import ProjectSync
from exporter.sync.run_list import ListRead, Response, RunList, Slice
from exporter.sync.together import together

LEAST_PROJECTS = 2
"""Projects for which one list of all is cheaper than the list of each."""

LEAST_SHARE = 0.25
"""The part of the runtime's projects that must be read: the list has the runs of the others too."""

FEW = 10
"""First reads that are cheaper by themselves: a first read asks for much more than the others."""

SAMPLE = 100
"""Projects that are read by themselves at once when the list names none of their runs; of more only so many are."""

FEW_REQUESTS = 4
"""Requests for runs in a scrape in which little has changed: those that the list does not need check projects."""

PROJECTS_PER_CHECK = 1_000
"""Projects for which one is checked in a scrape; of more projects several are."""

MAX_BEGUN = 2
"""First reads from the list of all that did not complete, after which each project is read by itself."""

PROJECTS_PER_SLICE = 200
"""Projects whose reads are completed in one time slice: about two milliseconds."""

MAX_LAG = 600.0
"""Seconds by which a project may have been read less far than the others: the list would be long for all of them."""


class CommonSync:
    """Reads those projects of one store that are cheaper to read together."""

    def __init__(
        self,
        client: RuntimeClient,
        store: Store,
        config: Config,
        problems: ProblemLog,
        *,
        project_sync: ProjectSync,
        project_list: ProjectList,
        monotonic: Callable[[], float],
    ) -> None:
        """`project_sync` applies slices, and reads the projects that are read by themselves."""
        self._client = client
        self._store = store
        self._config = config
        self._problems = problems
        self._project_sync = project_sync
        self._project_list = project_list
        self._monotonic = monotonic
        self._availability = Availability(
            monotonic, instead="each project is read separately again", lost=self._forget_list
        )
        self._etag: str | None = None
        self._sent_at = -math.inf
        """Our monotonic time of the last request that was answered with a list, and not with 304."""
        self._swept_at: float | None = None
        self._unread: dict[str, frozenset[str]] = {}
        """By project, the runs that are still to be read one by one in this sweep."""
        self._begun_first_reads = 0
        self._followed: dict[str, float] = {}
        """Projects whose slices are used, and our monotonic time up to which it is known that the list has them."""
        self._unchecked: dict[str, float] = {}
        """Those of which that is not known at all, and since when what the list lacks would not have been seen."""
        self._checking: set[str] = set()
        """Projects that are read by themselves in this sync, and of which the list had nothing."""
        self._left_out: set[str] = set()
        """Projects of which their own list had something then; the next list must name them."""
        self._is_doubted = False
        """Whether the list was found to leave out a project."""
        self._pages = 0
        """Pages that this sync has read."""
        self._apart: set[str] = set()
        """Projects whose slice could not be used, until they have been read by themselves."""
        self._named: set[str] = set()
        """The projects of which the list had runs when it was last read."""
        self._unknown: set[str] = set()

    async def read(self, project_ids: Sequence[str]) -> dict[str, bool]:
        """Read projects from the list; return for each of them whether it could be read.

        Those that are not among them are to be read by themselves.
        """
        self._unknown, self._checking, self._pages = set(), set(), 0
        if not self._is_usable(len(project_ids)):
            return {}
        try:
            with one_read():
                later, lagging, first = self._members(project_ids)
        except ApiError:
            # A bug: the project that has it says so when it is read by itself.
            return {}
        if not later and self._swept_at is None:
            # A first read has all runs that have not ended.
            self._swept_at = self._monotonic()
        reads = await self._try(later, self._read_later)
        reads |= await self._try(lagging, self._read_lagging)
        return reads | await self._try(first, self._read_first)

    def unseen_since(self, project_id: str) -> float | None:
        """Return since when the own list of a project is needed; None if its own last read is recent enough.

        By the runtime's clock. If the list has left it out, everything since then is news.
        """
        at = self._unchecked.get(project_id)
        if at is None and project_id in self._checking:
            at = self._followed.get(project_id)
        return None if at is None else self._store.clock.at(at)

    def note_single(self, project_id: str, *, ok: bool, at: float) -> None:
        """Note that a project was read by itself from our monotonic time `at` on, and whether it could be."""
        if ok:
            self._apart.discard(project_id)
        since = self.unseen_since(project_id)
        has_changed = self._project_sync.changed_at(project_id) > (-math.inf if since is None else since + TOLERANCE)
        has_runs = has_changed
        if project_id not in self._followed:
            # Of a run that has not ended, the list must show what changes.
            has_runs = has_runs or (ok and bool(self._store.open_runs(project_id)))
        self._followed.pop(project_id, None)
        if ok:
            self._unchecked.pop(project_id, None)
        if ok and (project_id in self._named or not has_runs):
            self._followed[project_id] = at
        elif project_id in self._checking and (has_changed if ok else self._project_sync.is_refused(project_id)):
            self._left_out.add(project_id)

    def to_check(self, reads: Mapping[str, bool]) -> list[str]:
        """Return projects of these that seem idle and are to be read by themselves as well: in each sync others.

        Otherwise a project that the list leaves out from now on would look idle for ever.
        """
        idle = (each for each in self._followed if each in reads and each not in self._named)
        left = max(FEW_REQUESTS - self._pages, 1)
        checked = list(itertools.islice(idle, min(left, 1 + len(self._followed) // PROJECTS_PER_CHECK)))
        self._checking.update(checked)
        return checked

    def found_unknown(self) -> bool:
        """Whether the list had runs of projects that the list of projects may lack; that one is read again then."""
        return self._project_list.look_for(self._unknown)

    def forget(self, project_ids: Set[str]) -> None:
        """Forget all projects but these."""
        for known in (self._apart, self._left_out):
            known.intersection_update(project_ids)
        for times in (self._followed, self._unchecked):
            for gone in times.keys() - project_ids:
                del times[gone]
        self._unread = {each: runs for each, runs in self._unread.items() if each in project_ids}

    def _is_usable(self, count: int) -> bool:
        if not self._client.can_list_all_projects:
            return False
        if not self._client.can_list_one_project:
            return True
        if count < LEAST_PROJECTS or count < LEAST_SHARE * len(self._project_list.names):
            return False
        return self._availability.may_be_asked

    def _members(self, project_ids: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
        """Return what is read from the list: projects read before, those of them that lag behind, and first reads."""
        unread, listed = self._store.unread(project_ids), self._project_list.names
        later = [each for each in project_ids if each not in unread]
        first = [each for each in project_ids if each in unread]
        is_single = self._client.can_list_one_project
        if is_single:
            later = [each for each in later if each not in self._apart and each in listed]
            if len(first) <= FEW or self._begun_first_reads >= MAX_BEGUN:
                first = []
        since = self._project_sync.since_each(later)
        earliest = max(since, default=0.0) - MAX_LAG
        if since and min(since) < earliest:
            lagging = [each for each, start in zip(later, since, strict=True) if start < earliest]
            later = [each for each, start in zip(later, since, strict=True) if start >= earliest]
            return later, [] if is_single else lagging, first
        return later, [], first

    async def _try(self, members: list[str], read: Callable[["_Group"], Awaitable[dict[str, bool]]]) -> dict[str, bool]:
        """Read a group; if the list as a whole cannot be read, say why, or leave its projects to be read alone."""
        if not members or (self._client.can_list_one_project and not self._availability.may_be_asked):
            return {}
        try:
            with one_read(), contextlib.ExitStack() as opened:
                return await read(_Group(members, opened, opened.enter_context(self._client.held.open("jobs"))))
        except ApiError as error:
            if self._client.can_list_one_project and self._availability.is_missing(error):
                return {}
            for project_id in members:
                self._project_sync.note_failure(project_id, error)
            return dict.fromkeys(members, False)

    def _forget_list(self) -> None:
        self._etag = None
        # What was not checked still is unknown: their own lists say what this one has left out.
        self._followed.clear()
        self._left_out.clear()
        self._is_doubted = False
        self._named = set()

    async def _read_later(self, group: "_Group") -> dict[str, bool]:
        """Read what changed in projects that have been read before."""
        begun_at = self._monotonic()
        is_due = self._swept_at is None or begun_at - self._swept_at >= self._config.sync.sweep_interval
        # The next sweep begins when the runs of the last one have been read.
        sweeps = is_due and not self._unread
        # What the list leaves out is known from a list only, not from the statement that it has not changed. That also
        # leaves the projects where they are, while those that are checked are read further: all others would lag.
        is_recent = begun_at - self._sent_at < MAX_LAG / 2
        etag = self._etag if not sweeps and is_recent and self._followed.keys() >= group.members.keys() else None
        self._etag = None
        common, changed = await self._read_group(group, etag, swept_at=begun_at if sweeps else None)
        if not changed.not_modified:
            self._sent_at = begun_at
            self._note_named(group.named, common)
        reads = await self._settle(group, common)
        if all(reads.values()):
            # Otherwise it would say that nothing has changed, although not everything was applied.
            self._etag = changed.etag
        if sweeps:
            self._swept_at = begun_at
        return reads

    async def _read_lagging(self, group: "_Group") -> dict[str, bool]:
        """Read what changed in projects whose last read is older than that of the others."""
        common, _ = await self._read_group(group, None, swept_at=self._monotonic())
        return await self._settle(group, common)

    async def _read_group(
        self, group: "_Group", etag: str | None, *, swept_at: float | None
    ) -> tuple[ListRead, RunList]:
        if swept_at is not None:
            await self._read_active(group)
        clock, lead, since = self._store.clock, self._store.clock.lead, self._since(group.members)
        changed = await self._read_changes(group, since, etag)
        is_set_back = lead is None or changed.lead() < lead - TOLERANCE
        if is_set_back and since > (needed := self._since(group.members, changed.lead())) + TOLERANCE:
            # The runtime's clock was set back, so what changed has earlier times than what was asked for.
            since = needed
            changed = await self._read_changes(group, since, None)
        self._availability.note_success()
        first = changed.first
        # A clock that was set back is believed when other responses agree; until then the next read asks again.
        is_behind = changed.as_of() < clock.at(first.requested_at) - MAX_DELAY
        if is_behind:
            changed.etag = None
        common = ListRead(
            first=first,
            since=since,
            watermark=min(changed.as_of(), clock.at(first.at)),
            asked_at=changed.asked_at,
            unchanged=changed.not_modified or is_behind,
            swept_at=swept_at,
        )
        return common, changed

    async def _read_first(self, group: "_Group") -> dict[str, bool]:
        """Read projects that have not been read before; nothing of them is shown until that is complete."""
        begun_at, clock = self._monotonic(), self._store.clock
        await self._read_active(group)
        history = max(self._config.history(self._project_list.name_of(each)) for each in group.members)
        # Half as much after each first read that did not complete: its list may have more than `limits.pages`, or take
        # too long.
        history = max(history * 0.5**self._begun_first_reads, self._config.retention)
        since = clock.now() - history
        changed = await self._read_changes(group, since, None, is_first=True)
        self._availability.note_success()
        common = ListRead(
            first=changed.first,
            since=since,
            horizon=clock.now() - self._config.retention,
            watermark=min(changed.as_of(), clock.at(changed.first.at)),
            asked_at=changed.asked_at,
            swept_at=begun_at,
        )
        self._note_named(self._named | group.named, common)
        self._etag = None
        reads = await self._settle(group, common)
        self._begun_first_reads = 0
        return reads

    def _since(self, members: Iterable[str], lead: float | None = None) -> float:
        return min(self._project_sync.since_each(members, lead))

    async def _read_active(self, group: "_Group") -> None:
        if not self._client.can_list_active:
            return
        async for page in self._client.all_jobs(self._project_list.names, active=True):
            self._pages += 1
            self._add(group, page)

    async def _read_changes(
        self, group: "_Group", since: float, etag: str | None, *, is_first: bool = False
    ) -> RunList:
        changed = RunList((), asked_at=self._monotonic())
        async for page in self._client.all_jobs(self._project_list.names, updated_since=since, etag=etag):
            changed.add(dataclasses.replace(page, items=()), self._monotonic())
            changed.drain()
            self._pages += 1
            self._add(group, page)
            if is_first:
                self._begun_first_reads += changed.pages == 1
            if is_first or (group.held > self._config.limits.runs and not self._client.counts_records):
                # What is not shown yet, or is more than what may be shown, is applied as it arrives, so that the whole
                # list is never in memory. The next read applies again what a read that fails has applied. Runs whose
                # records are to be counted stay until then, except those that ended before a first read counts any.
                await self._apply(group, self._store.clock.now() - self._config.retention if is_first else -math.inf)
        return changed

    def _add(self, group: "_Group", page: ListPage[RunSnapshot]) -> None:
        if page.as_of is not None:
            self._store.clock.observe(page.as_of, page.requested_at)
        group.add(page, self._monotonic())
        self._unknown.update(group.named.difference(self._project_list.names))

    async def _apply(self, group: "_Group", horizon: float) -> None:
        """Apply the slices as far as they have arrived."""
        for project_id, part in group.take_new():
            counts = self._client.counts_records and part.error is None
            ready = part.drain_ended(horizon) if counts else part.drain()
            group.release(sum(len(response.runs) for response in ready))
            if part.error is not None:
                continue
            if part.read is None:
                part.read = group.opened.enter_context(self._store.reading(project_id))
            try:
                with one_read():
                    await self._project_sync.apply(part.read, ready, horizon)
            except ApiError as error:
                part.error = error

    async def _settle(self, group: "_Group", common: ListRead) -> dict[str, bool]:
        """Complete the reads of the projects that the list can be trusted with; return which could be completed."""
        trusted = self._trusted(group, common)
        reads: dict[str, bool] = {}

        async def settle(project_id: str) -> None:
            part = group.parts.get(project_id) or Slice()
            part.unread = self._unread.pop(project_id, frozenset())
            name = self._project_list.names.get(project_id)
            reads[project_id] = ok = await self._project_sync.read(project_id, name, part, common)
            if part.unread:
                self._unread[project_id] = part.unread
            if not ok:
                self._apart.add(project_id)

        # Those for which further requests are sent do not wait for one another.
        asking: Iterable[str] = trusted
        if common.swept_at is None and not self._client.counts_records:
            asking = [each for each in trusted if each in self._unread] if self._unread else ()
        asking = [each for each in asking if self._asks(each, group.parts.get(each), common)]
        done = set(asking)
        # Nearly all: what is done for each of them is the cost of a scrape in which nothing has changed.
        unread, listed = self._store.unread(trusted), self._project_list.names
        silent = [each for each in trusted if each not in group.parts and each in listed]
        unchanged = [each for each in silent if each not in done and each not in unread]
        for start in range(0, len(unchanged), PROJECTS_PER_SLICE):
            await self._client.time_slices.next()
            self._project_sync.note_unchanged(unchanged[start : start + PROJECTS_PER_SLICE], common)
        reads |= dict.fromkeys(unchanged, True)
        done.update(unchanged)
        for place, project_id in enumerate([each for each in trusted if each not in done]):
            if place % PROJECTS_PER_SLICE == 0:
                await self._client.time_slices.next()
            await settle(project_id)
        await together(*map(settle, asking))
        return reads

    def _note_named(self, named: set[str], common: ListRead) -> None:
        """Note of which projects the list has runs now."""
        self._named = named
        for project_id in named:
            self._unchecked.pop(project_id, None)
            if self._followed.pop(project_id, None) is not None:
                # The last one in turn.
                self._followed[project_id] = common.first.requested_at

    def _trusted(self, group: "_Group", common: ListRead) -> list[str]:
        """Return the projects of a group whose slices are used; the others are read separately."""
        if not self._client.can_list_one_project:
            return list(group.members)
        if self._left_out.intersection(group.members) - self._named:
            # Twice, so that it was not a run that began in between.
            self._is_doubted = True
            for project_id in self._unchecked:
                self._followed.pop(project_id, None)
        self._left_out -= self._named
        named, followed = self._named, self._followed
        silent = [each for each in group.members if each not in named and each not in followed]
        if len(silent) > SAMPLE and not self._is_doubted:
            self._checking.update(silent[:: -(-len(silent) // SAMPLE)])
            at = common.first.requested_at
            since = at - (self._store.clock.at(at) - common.since)
            believed = {each: since for each in silent if each not in self._checking}
            self._unchecked = believed | self._unchecked
            self._followed = believed | followed
        else:
            self._checking.update(silent)
        followed = self._followed
        for project_id in group.named:
            if project_id in group.members:
                followed.setdefault(project_id, common.first.requested_at)
        return [each for each in group.members if each in followed]

    def _asks(self, project_id: str, part: Slice | None, common: ListRead) -> bool:
        """Whether a sweep needs further requests for a project: for runs that are in no list, or for records."""
        if self._client.counts_records or project_id in self._unread:
            return True
        return any(part is None or run_id not in part.seen for run_id in self._store.open_runs(project_id))


class _Group:
    """Projects that are read together, and what has arrived of them."""

    def __init__(self, members: Iterable[str], opened: contextlib.ExitStack, holding: Holding) -> None:
        """`opened` closes the reads of which a part is applied before the whole list has arrived."""
        self._holding = holding
        self.members = dict.fromkeys(members)
        self.opened = opened
        self.parts: dict[str, Slice] = {}
        self.named: set[str] = set()
        """All projects of which there were runs."""
        self.held = 0
        """Runs that have not been applied yet."""
        self._new: dict[str, Slice] = {}

    def add(self, page: ListPage[RunSnapshot], at: float) -> None:
        """Add a page, which arrived at our monotonic time `at`. Raises `ApiError` if too much is held."""
        self._holding.add(page.size)
        by_project: dict[str, list[RunSnapshot]] = {}
        for run in page.items:
            by_project.setdefault(run.project_id, []).append(run)
        self.named.update(by_project)
        requested_at = at if page.requested_at is None else page.requested_at
        for project_id, runs in by_project.items():
            if project_id not in self.members:
                continue
            part = self.parts.setdefault(project_id, Slice())
            part.responses.append(Response(runs, page.as_of, requested_at, at))
            part.seen.update(run.id for run in runs)
            self._new[project_id] = part
            self.held += len(runs)

    def take_new(self) -> Iterable[tuple[str, Slice]]:
        """Return the projects of which something was added since the last call."""
        new, self._new = self._new, {}
        return new.items()

    def release(self, runs: int) -> None:
        """Note that so many runs are not held any more."""
        self._holding.release(self._holding.size * runs // max(self.held, 1))
        self.held -= runs
