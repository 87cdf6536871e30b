"""The lines of one runtime, cached from one page to the next and rendered only when something changes.

Each run that has not ended has its own lines, because some of them change with time. The lines of a run that has ended
stay the same: those of many runs are joined into a chunk, one text per family, and chunks into groups, so that neither
joining nor compressing a page goes run by run. A run that the store reports as changed is taken out of its chunk.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence

from exporter.metrics.catalogue import (
    PROJECT_FAMILIES,
    RUN_FAMILIES,
    RUN_LABELS,
    RUNTIME_LABEL,
    SPINNER_FAMILIES,
    SPINNER_LABELS,
    Family,
    Samples,
    ScrapeContext,
)
from exporter.metrics.formats import FORMATS, Format
from exporter.metrics.lines import NUMBERS, encode, join, lines, number, pairs_of
from exporter.metrics.page import Fragment
from exporter.runs.store import Store
from exporter.runs.view import ShownRun
from exporter.runs.watch import Key, Watch

RUNS_PER_CHUNK = 128
"""When one run leaves its chunk, the others are rendered again."""

CHUNKS_PER_GROUP = 16
"""The chunks of a group are joined and compressed as one."""

MIN_CHANGED = 10_000
"""Changed spinners of a format from which on it is looked whether there still are such."""

_Renderer = tuple[int, str, Callable[[ShownRun, ScrapeContext], Samples], Family[ShownRun]]

_ALL: tuple[_Renderer, ...] = tuple(
    (place, family.name, family.samples, family) for place, family in enumerate(RUN_FAMILIES)
)
_LIVE = tuple(renderer for renderer in _ALL if renderer[3].live)
_NOT_LIVE = tuple(renderer for renderer in _ALL if not renderer[3].live)
_PLACES = range(len(RUN_FAMILIES))


class LineCache:
    """The lines of one runtime's runs and spinners."""

    def __init__(self, runtime: str) -> None:
        """`runtime` is the first label of every series."""
        self.runtime = runtime
        self.labels = pairs_of((RUNTIME_LABEL,), (runtime,))
        """The first labels of every series, rendered."""
        self._store: Store | None = None
        self._watch: Watch | None = None
        self._offset: float | None = None
        self._clear()

    @property
    def count(self) -> int:
        """Runs that are shown."""
        return self._runs.count

    def observe(self, context: ScrapeContext) -> None:
        """Collect what changed in the store."""
        if context.store is not self._store or context.clock.offset != self._offset or self._watch is None:
            # Rare. Lines that were rendered with another difference between the clocks are wrong.
            self._store, self._offset = context.store, context.clock.offset
            self._watch = context.store.view.watch()
            self._clear()
        runs, spinners = self._watch.changed()
        self._runs.observe(runs, context)
        for cached in self._spinners.values():
            cached.observe(spinners, context)

    def update(self, context: ScrapeContext, page_format: Format, limit: int) -> bool:
        """Render about `limit` of the changed runs and spinners; return whether those were all."""
        with self._rendered_again_after_an_error():
            return self._runs.update(context, limit) and self._spinners[page_format].update(context, limit)

    def lines(self, context: ScrapeContext, page_format: Format) -> "CachedLines":
        """Return all lines, after rendering those that change with time; everything else must be up to date."""
        with self._rendered_again_after_an_error():
            return CachedLines(*self._runs.lines(context), self._spinners[page_format])

    def projects(self, context: ScrapeContext) -> list[Fragment]:
        """Return the lines of each family of projects, rendered again only when one of its samples is different."""
        with self._rendered_again_after_an_error():
            for place, family in enumerate(PROJECT_FAMILIES):
                samples = family.samples(context.store.view, context)
                if samples != self._project_samples[place]:
                    self._project_samples[place] = samples
                    self._projects[place] = Fragment(encode(lines(family, self.labels, samples)))
            return self._projects

    @contextlib.contextmanager
    def _rendered_again_after_an_error(self) -> Iterator[None]:
        """If the block raises, let the next page render everything again.

        Some of what changed would otherwise count as rendered, and that page would lack it and look complete. A page
        without the run that cannot be rendered would too, so that one run takes the page away, which alerts.
        """
        try:
            yield
        except Exception:
            self._watch = None
            raise

    def _clear(self) -> None:
        self._project_samples: list[Samples] = [None for _ in PROJECT_FAMILIES]
        self._projects = [Fragment(b"") for _ in PROJECT_FAMILIES]
        self._runs = _RunCache(self.labels)
        # Only histograms differ between the formats, and only spinners have them.
        self._spinners = {each: _SpinnerCache(self.labels, each) for each in FORMATS}


class CachedLines:
    """The lines of a runtime for one page. `place` is the position of a family in its tuple of the catalogue."""

    def __init__(self, runs: Sequence["_RunLines"], groups: Sequence["_ChunkGroup"], spinners: "_SpinnerCache") -> None:
        self._live = [*map("".join, zip(*[run.lines for run in runs], strict=True))] or [""] * len(_ALL)
        self._ended = [group.columns for group in groups]
        self._spinners = spinners

    def live(self, place: int) -> str:
        """Return the lines of runs that are not in a chunk and may be different on the next page."""
        return self._live[place]

    def ended(self, place: int) -> list[Fragment]:
        """Return the lines of runs that are in a chunk."""
        return [columns[place] for columns in self._ended]

    def spinners(self, place: int) -> list[Fragment]:
        """Return the lines of one family of spinners."""
        return self._spinners.column(place)


class _RunCache:
    def __init__(self, labels: str) -> None:
        self._labels = labels
        self._changed: list[Key] = []
        self._open: dict[Key, _RunLines] = {}
        self._recent: dict[Key, _RunLines] = {}
        """Runs that have ended and are not in a chunk yet."""
        self._chunks: dict[Key, _Chunk] = {}
        self._groups: list[_ChunkGroup] = []

    @property
    def count(self) -> int:
        return len(self._open) + len(self._recent) + len(self._chunks)

    def observe(self, changed: list[Key], context: ScrapeContext) -> None:
        if len(changed) > RUNS_PER_CHUNK:
            # Runs expire in the order of their ends: sorted, those that expire together share a chunk.
            changed.sort(key=lambda key: context.store.view.ended_at(key) or 0.0, reverse=True)
        self._changed += changed

    def update(self, context: ScrapeContext, limit: int) -> bool:
        while self._changed and limit > 0:
            key = self._changed.pop()
            chunk = self._chunks.pop(key, None)
            if chunk is not None:
                chunk.remove(key)
            self._render(key, context)
            limit -= 1
            if len(self._recent) >= RUNS_PER_CHUNK:
                self._add_chunk(self._recent)
                self._recent = {}
        for group in self._groups:
            for chunk in group.stale_chunks():
                if limit <= 0:
                    return False
                limit -= RUNS_PER_CHUNK
                self._rebuild(group, chunk, context)
        self._groups = [group for group in self._groups if group.chunks]
        if self._changed:
            return False
        for group in self._groups:
            if not group.columns:
                if limit <= 0:
                    return False
                limit -= RUNS_PER_CHUNK
                group.join()
        return True

    def lines(self, context: ScrapeContext) -> tuple[list["_RunLines"], list["_ChunkGroup"]]:
        for run in self._open.values():
            run.render_live(context)
        return [*self._open.values(), *self._recent.values()], self._groups

    def _render(self, key: Key, context: ScrapeContext) -> None:
        run = self._open.pop(key, None) or self._recent.pop(key, None)
        shown = context.store.view.run(key)
        if shown is None:
            return
        if run is None or not run.has_labels_of(shown):
            run = _RunLines(self._labels, shown)
        run.render(shown, context)
        (self._recent if shown.run.ended else self._open)[key] = run

    def _add_chunk(self, runs: dict[Key, "_RunLines"]) -> None:
        if not self._groups or len(self._groups[-1].chunks) >= CHUNKS_PER_GROUP:
            self._groups.append(_ChunkGroup())
        chunk = _Chunk(runs)
        group = self._groups[-1]
        group.add(chunk)
        self._chunks.update(dict.fromkeys(runs, chunk))
        if len(group.chunks) == CHUNKS_PER_GROUP:
            # Joined immediately, so that the next group can use the memory of the chunks.
            group.join()

    def _rebuild(self, group: "_ChunkGroup", stale: "_Chunk", context: ScrapeContext) -> None:
        """Render the remaining runs of a chunk again, or dissolve it when few remain."""
        runs = {}
        for key in stale.keys:
            del self._chunks[key]
            shown = context.store.view.run(key)
            if shown is not None and shown.run.ended:
                runs[key] = _RunLines(self._labels, shown)
                runs[key].render(shown, context)
        if len(runs) >= RUNS_PER_CHUNK // 4:
            chunk = _Chunk(runs)
            group.replace(stale, chunk)
            self._chunks.update(dict.fromkeys(runs, chunk))
        else:
            group.replace(stale, None)
            self._recent |= runs


class _RunLines:
    """One run's lines by family."""

    __slots__ = ("_labels", "_samples", "_shown", "lines")

    def __init__(self, runtime: str, shown: ShownRun) -> None:
        self._shown = shown
        self._labels = join(runtime, pairs_of(RUN_LABELS, (shown.project, shown.run.snapshot.spinner, shown.run.id)))
        self._samples: list[Samples] = [None] * len(RUN_FAMILIES)
        self.lines = [""] * len(RUN_FAMILIES)

    def has_labels_of(self, shown: ShownRun) -> bool:
        """Whether the labels still are the run's."""
        mine = self._shown
        return mine.project == shown.project and mine.run.snapshot.spinner == shown.run.snapshot.spinner

    def render(self, shown: ShownRun, context: ScrapeContext) -> None:
        """Render what changed; `render_live` does the live families of a run that has not ended."""
        self._shown = shown
        self._render(_ALL if shown.run.ended_at is not None else _NOT_LIVE, context)

    def render_live(self, context: ScrapeContext) -> None:
        """Render what changes with time, of a run that has not ended."""
        self._render(_LIVE, context)

    def _render(self, renderers: Sequence[_Renderer], context: ScrapeContext) -> None:
        shown, previous, rendered, labels = self._shown, self._samples, self.lines, self._labels
        for place, name, samples_of, family in renderers:
            samples = samples_of(shown, context)
            if samples != previous[place]:
                previous[place] = samples
                # Most samples are numbers, and most of a page's time is spent here: save them a call.
                if isinstance(samples, NUMBERS):
                    rendered[place] = f"{name}{{{labels}}} {number(samples)}\n"
                else:
                    rendered[place] = lines(family, labels, samples)


class _Chunk:
    """Runs that have ended; the lines of each family are joined."""

    def __init__(self, runs: dict[Key, _RunLines]) -> None:
        self.keys = dict.fromkeys(runs)
        self.is_stale = False
        self.columns = [Fragment(encode("".join([run.lines[place] for run in runs.values()]))) for place in _PLACES]

    def remove(self, key: Key) -> None:
        """Remove a run; the chunk is stale until it is rebuilt."""
        del self.keys[key]
        self.is_stale = True


class _ChunkGroup:
    """Some chunks; the lines of each family are joined."""

    def __init__(self) -> None:
        self.chunks: list[_Chunk] = []
        self.columns: list[Fragment] = []
        """By family; empty until the chunks are joined."""

    def stale_chunks(self) -> list[_Chunk]:
        return [chunk for chunk in self.chunks if chunk.is_stale]

    def add(self, chunk: _Chunk) -> None:
        self.chunks.append(chunk)
        self.columns = []

    def replace(self, chunk: _Chunk, by: _Chunk | None) -> None:
        place = self.chunks.index(chunk)
        self.chunks[place : place + 1] = [] if by is None else [by]
        self.columns = []

    def join(self) -> None:
        self.columns = [Fragment.joined([chunk.columns[place] for chunk in self.chunks]) for place in _PLACES]


class _SpinnerCache:
    """The lines of all spinners in one format."""

    def __init__(self, labels: str, page_format: Format) -> None:
        self._labels = labels
        self._exemplar = page_format.exemplar
        self._changed: dict[Key, None] = {}
        self._most_changed = MIN_CHANGED
        self._groups: list[_SpinnerGroup] = []
        self._group_of: dict[Key, _SpinnerGroup] = {}

    def observe(self, changed: Iterable[Key], context: ScrapeContext) -> None:
        self._changed.update(dict.fromkeys(changed))
        if len(self._changed) > self._most_changed:
            # Nobody requests this format, and spinners have left in the meantime.
            for key in [key for key in self._changed if context.store.view.spinner(key) is None]:
                del self._changed[key]
                self._remove(key)
            self._most_changed = max(2 * len(self._changed), MIN_CHANGED)

    def update(self, context: ScrapeContext, limit: int) -> bool:
        while self._changed and limit > 0:
            key, _ = self._changed.popitem()
            shown = context.store.view.spinner(key)
            if shown is None:
                self._remove(key)
            else:
                labels = join(self._labels, pairs_of(SPINNER_LABELS, (shown.project, shown.spinner)))
                offset = context.clock.offset or 0.0
                self._group_for(key)[key] = [
                    lines(family, labels, family.samples(shown, context), self._exemplar, offset)
                    for family in SPINNER_FAMILIES
                ]
            limit -= 1
        return not self._changed

    def column(self, place: int) -> list[Fragment]:
        return [group.columns()[place] for group in self._groups]

    def _remove(self, key: Key) -> None:
        group = self._group_of.pop(key, None)
        if group is not None:
            group.remove(key)

    def _group_for(self, key: Key) -> "_SpinnerGroup":
        group = self._group_of.get(key)
        if group is None:
            group = next((each for each in self._groups if not each.is_full), None)
            if group is None:
                group = _SpinnerGroup()
                self._groups.append(group)
            self._group_of[key] = group
        return group


class _SpinnerGroup:
    """Some spinners; the lines of each family are joined again when one of the spinners changes."""

    def __init__(self) -> None:
        self._lines: dict[Key, list[str]] = {}
        self._columns: list[Fragment] = []

    @property
    def is_full(self) -> bool:
        return len(self._lines) >= RUNS_PER_CHUNK

    def __setitem__(self, key: Key, by_family: list[str]) -> None:
        self._lines[key] = by_family
        self._columns = []

    def remove(self, key: Key) -> None:
        self._lines.pop(key, None)
        self._columns = []

    def columns(self) -> list[Fragment]:
        if not self._columns:
            self._columns = [
                Fragment(encode("".join([each[place] for each in self._lines.values()])))
                for place in range(len(SPINNER_FAMILIES))
            ]
        return self._columns
