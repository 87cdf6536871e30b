"""The runtime's list of projects, and those that the config wants.

It is read at an interval of its own. An unchanged page of it costs one conditional request.
"""

from collections.abc import Callable, Iterable, Mapping

from exporter.runs.names import unique_names
from exporter.runtime.client import PageCache, RuntimeClient
from exporter.runtime.model import ListPage, Project

ONLY_PROJECT = "default"
"""The id of the single project where the API has none."""


MAX_LOOKED_FOR = 10_000
"""Projects that are looked for although the list lacks them."""

Observe = Callable[[float, float | None], None]


class ProjectList:
    """The list of projects as last read."""

    def __init__(
        self,
        client: RuntimeClient,
        *,
        wanted: Callable[[str], bool],
        only_project: str,
        interval: float,
        sweep_interval: float,
        label_length: int,
        monotonic: Callable[[], float],
    ) -> None:
        """`wanted` returns whether a project of this name is to be read.

        `only_project` names the single project where the API has none. The list is read every `interval` seconds, and
        after `sweep_interval` seconds without its ETags. Unique names have at most `label_length` characters.
        """
        self._client = client
        self._is_wanted = wanted
        self._only_project = only_project
        self._interval = interval
        self._sweep_interval = sweep_interval
        self._label_length = label_length
        self._monotonic = monotonic
        self._cache = PageCache[Project]()
        self._swept_at = float("-inf")
        self.requested_at = float("-inf")
        """Our monotonic time at which the list was last requested with success; now where the API has none."""
        self._is_due = True
        self._missing: frozenset[str] = frozenset()
        """Projects that the last answer lacked, and the one before had: until the next one agrees they stay."""
        self.skipped = 0
        """Items of the last answer that were invalid: while there are any, no project counts as missing."""
        self._looked_for: set[str] = set()
        self.names: dict[str, str] = {}
        """All projects of the list, id to name."""
        self.wanted: dict[str, str] = {}
        """The projects that are to be read, id to a name that is unique."""

    async def refresh(
        self, observe: Observe = lambda as_of, requested_at: None, *, held: Mapping[str, str] | None = None
    ) -> None:
        """Read the list if it is due; `observe` receives the runtime's time of each response and our monotonic
        one of its request.

        `held` are the unique names that are in use, by id: those projects keep their names, and no other one gets them,
        whether they are still in the list or not. Raises `ApiError`; then the list is the same as before.
        """
        if not self._client.has("projects"):
            self.requested_at = self._monotonic()
            self._set({ONLY_PROJECT: self._only_project}, held or {})
            return
        now = self._monotonic()
        if not self._is_due and self.names and now - self.requested_at < self._interval:
            return
        sweeps = now - self._swept_at >= self._sweep_interval
        cache = PageCache[Project]() if sweeps else self._cache
        pages: list[ListPage[Project]] = []
        with self._client.held.open("projects") as holding:
            async for page in self._client.projects(cache):
                holding.add(page.size)
                pages.append(page)
        for page in pages:
            if page.as_of is not None:
                observe(page.as_of, page.requested_at)
        names = {project.id: project.name for page in pages for project in page.items}
        names = {each: name or self.names.get(each) or (held or {}).get(each) or each for each, name in names.items()}
        self.skipped = sum(page.skipped for page in pages)
        lacking = {each: name for each, name in self.names.items() if each not in names}
        if self.skipped:
            # Any of them can be the one that was skipped.
            kept, self._missing, self._is_due = lacking, frozenset(), False
        else:
            kept = {each: name for each, name in lacking.items() if each not in self._missing}
            self._missing, self._is_due = frozenset(kept), bool(kept)
        self._set(names | kept, held or {})
        self._cache, self.requested_at = cache, now
        if sweeps:
            self._swept_at = now

    def look_for(self, project_ids: Iterable[str]) -> bool:
        """Let the next `refresh` read the list if it lacks one of these; return whether it does.

        A project that the list did not have after it was looked for is not looked for again.
        """
        new = {each for each in project_ids if each not in self.names and each not in self._looked_for}
        if new and len(self._looked_for) < MAX_LOOKED_FOR:
            self._looked_for |= new
            self._is_due = True
            return True
        return False

    def look_again(self) -> None:
        """Let the next `refresh` read the list: it may lack a project that exists."""
        self._is_due = True

    def has(self, project_id: str) -> bool:
        """Whether a project is in the list."""
        return project_id in self.names

    def name_of(self, project_id: str) -> str:
        """Return the name of a project; the id of one that is not in the list."""
        return self.names.get(project_id, project_id)

    def _set(self, names: dict[str, str], held: Mapping[str, str]) -> None:
        # Computed here and not on access: every probe reads it.
        wanted = {project_id: name for project_id, name in names.items() if self._is_wanted(name)}
        self.names = names
        self.wanted = unique_names(wanted, {**self.wanted, **held}, length=self._label_length)
