"""The runtime's list of projects, and those that the config wants. An unchanged list costs one conditional request."""

from collections.abc import Callable

from exporter.runtime.client import RuntimeClient

ONLY_PROJECT = "default"
"""The id of the single project where the API has none."""


Observe = Callable[[float, float | None], None]


class ProjectList:
    """The list of projects as last read."""

    def __init__(
        self,
        client: RuntimeClient,
        *,
        wanted: Callable[[str], bool],
        only_project: str,
        sweep_interval: float,
        monotonic: Callable[[], float],
    ) -> None:
        """`wanted` returns whether a project of this name is to be read.

        `only_project` names the single project where the API has none. After `sweep_interval` seconds the list is read
        without its ETag.
        """
        self._client = client
        self._is_wanted = wanted
        self._only_project = only_project
        self._sweep_interval = sweep_interval
        self._monotonic = monotonic
        self._etag: str | None = None
        self._read_at = float("-inf")
        self.names: dict[str, str] = {}
        """All projects of the list, id to name."""
        self.wanted: dict[str, str] = {}
        """The projects that are to be read, id to a name that is unique."""

    async def refresh(self, observe: Observe = lambda as_of, requested_at: None) -> None:
        """Read the list; `observe` is called with the runtime's time of each response and our time of its request.

        Raises `ApiError`; then the list is the same as before.
        """
        if not self._client.has("projects"):
            self._set({ONLY_PROJECT: self._only_project})
            return
        now = self._monotonic()
        etag = self._etag if now - self._read_at < self._sweep_interval else None
        pages = [page async for page in self._client.projects(etag=etag)]
        for page in pages:
            if page.as_of is not None:
                observe(page.as_of, page.requested_at)
        if not pages[-1].not_modified:
            self._set({project.id: project.name for page in pages for project in page.items})
            self._etag, self._read_at = pages[-1].etag if len(pages) == 1 else None, now

    def name_of(self, project_id: str) -> str:
        """Return the name of a project; the id of one that is not in the list."""
        return self.names.get(project_id, project_id)

    def _set(self, names: dict[str, str]) -> None:
        # Computed here and not on access: every probe reads it.
        self.names = names
        self.wanted = _distinct({project_id: name for project_id, name in names.items() if self._is_wanted(name)})


def _distinct(names: dict[str, str]) -> dict[str, str]:
    """Return unique names: where several projects share a name, the id follows it."""
    uses: dict[str, int] = {}
    for name in names.values():
        uses[name] = uses.get(name, 0) + 1
    return {project_id: name if uses[name] == 1 else f"{name} ({project_id})" for project_id, name in names.items()}
