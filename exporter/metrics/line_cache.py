"""The lines of one runtime, kept from one page to the next: rendered when something changes, and not before.

Runs under way have their lines apart, since some of them move with time alone. A run that has ended stays as it is:
it is packed with others into one text for each family, and packs into shelves, so that neither joining nor compressing
a page goes run by run. What the store says has moved is taken out of its pack.
"""

from collections.abc import Callable, Iterable, Sequence

from exporter.metrics.catalogue import (
    RUN_FAMILIES,
    RUN_LABELS,
    RUNTIME_LABEL,
    SPINNER_FAMILIES,
    SPINNER_LABELS,
    Family,
    Samples,
    ScrapeContext,
)
from exporter.metrics.lines import NUMBERS, encode, join, lines, number, pairs_of
from exporter.metrics.page import Part
from exporter.runs.store import ShownRun, ShownSpinner, Store
from exporter.runs.watch import Key, Watch

PACK = 128
"""Runs in a pack: when one of them leaves, the others are rendered anew."""

SHELF = 16
"""Packs on a shelf, which are compressed as one."""

_Step = tuple[int, str, Callable[[ShownRun, ScrapeContext], Samples], Family[ShownRun]]

_ALL: tuple[_Step, ...] = tuple(
    (place, family.name, family.samples, family) for place, family in enumerate(RUN_FAMILIES)
)
_LIVE = tuple(step for step in _ALL if step[3].live)
_STILL = tuple(step for step in _ALL if not step[3].live)
_PLACES = range(len(RUN_FAMILIES))


class LineCache:
    """All lines of one runtime's runs and spinners."""

    def __init__(self, runtime: str) -> None:
        """`runtime` is the name that every series carries first, unless it is empty."""
        self.runtime = runtime
        self.labels = pairs_of((RUNTIME_LABEL,), (runtime,)) if runtime else ""
        """What stands between the braces of every series, first."""
        self._store: Store | None = None
        self._watch: Watch | None = None
        self._offset = 0.0
        self._runs = _Runs(self.labels)
        self._spinners = _Spinners(self.labels)

    @property
    def count(self) -> int:
        """Runs that are shown."""
        return self._runs.count

    def look(self, now: ScrapeContext) -> None:
        """Take note of what moved."""
        if now.store is not self._store or now.clock.offset != self._offset or self._watch is None:
            # Seldom: what was corrected for the old difference between the clocks is wrong now.
            self._store, self._offset = now.store, now.clock.offset
            self._watch = now.store.watch()
            self._runs, self._spinners = _Runs(self.labels), _Spinners(self.labels)
        runs, spinners = self._watch.moved()
        self._runs.look(runs, now)
        self._spinners.look(spinners)

    def catch_up(self, now: ScrapeContext, most: int, *, openmetrics: bool) -> bool:
        """Render anew what moved, about `most` runs and spinners of it; return whether that was all."""
        return self._runs.catch_up(now, most) and self._spinners.catch_up(now, most, openmetrics=openmetrics)

    def run_lines(self, now: ScrapeContext) -> "RunLines":
        """Render what moves with time; return everything of runs. All has to be caught up with."""
        return self._runs.lines(now)

    def spinner_lines(self, place: int, *, openmetrics: bool) -> list[Part]:
        """Return the lines of one family of spinners."""
        return self._spinners.column(place, openmetrics=openmetrics)


class RunLines:
    """Of runs, the lines of each family: single ones and what stays."""

    def __init__(self, blocks: Sequence["_Block"], shelves: Sequence["_Shelf"]) -> None:
        self._single = [*map("".join, zip(*[block.lines for block in blocks], strict=True))] or [""] * len(_ALL)
        self._columns = [shelf.columns for shelf in shelves]

    def single(self, place: int) -> str:
        """Return those that may be others with the next page."""
        return self._single[place]

    def packed(self, place: int) -> list[Part]:
        """Return those of runs that ended."""
        return [column[place] for column in self._columns]


class _Runs:
    def __init__(self, labels: str) -> None:
        self._labels = labels
        self._moved: list[Key] = []
        self._open: dict[Key, _Block] = {}
        self._recent: dict[Key, _Block] = {}
        self._packs: dict[Key, _Pack] = {}
        self._shelves: list[_Shelf] = []

    @property
    def count(self) -> int:
        return len(self._open) + len(self._recent) + len(self._packs)

    def look(self, moved: list[Key], now: ScrapeContext) -> None:
        if len(moved) > PACK:
            # Runs leave in the order of their ends, and so from one pack.
            moved.sort(key=lambda key: now.store.ended_at(key) or 0.0, reverse=True)
        self._moved += moved

    def catch_up(self, now: ScrapeContext, most: int) -> bool:
        while self._moved and most > 0:
            key = self._moved.pop()
            pack = self._packs.pop(key, None)
            if pack is not None:
                pack.thin(key)
            self._take(key, now)
            most -= 1
            if len(self._recent) >= PACK:
                self._pack(self._recent)
                self._recent = {}
        for shelf in self._shelves:
            for pack in shelf.thinned():
                if most <= 0:
                    return False
                most -= PACK
                self._repack(shelf, pack, now)
        self._shelves = [shelf for shelf in self._shelves if shelf.packs]
        if self._moved:
            return False
        for shelf in self._shelves:
            if not shelf.columns:
                if most <= 0:
                    return False
                most -= PACK
                shelf.join()
        return True

    def lines(self, now: ScrapeContext) -> RunLines:
        for block in self._open.values():
            block.move(now)
        return RunLines([*self._open.values(), *self._recent.values()], self._shelves)

    def _take(self, key: Key, now: ScrapeContext) -> None:
        block = self._open.pop(key, None) or self._recent.pop(key, None)
        shown = now.store.run(key)
        if shown is None:
            return
        if block is None or not block.is_of(shown):
            block = _Block(self._labels, shown)
        block.render(shown, now)
        (self._recent if shown.run.ended else self._open)[key] = block

    def _pack(self, blocks: dict[Key, "_Block"]) -> None:
        if not self._shelves or len(self._shelves[-1].packs) >= SHELF:
            self._shelves.append(_Shelf())
        pack = _Pack(blocks)
        shelf = self._shelves[-1]
        shelf.add(pack)
        self._packs.update(dict.fromkeys(blocks, pack))
        if len(shelf.packs) == SHELF:
            shelf.join()  # at once: the memory of what was joined is the next shelf's

    def _repack(self, shelf: "_Shelf", pack: "_Pack", now: ScrapeContext) -> None:
        """Render a pack anew that runs have left, or do without it when there are few left."""
        blocks = {}
        for key in pack.keys:
            del self._packs[key]
            shown = now.store.run(key)
            if shown is not None and shown.run.ended:
                blocks[key] = _Block(self._labels, shown)
                blocks[key].render(shown, now)
        if len(blocks) >= PACK // 4:
            thinner = _Pack(blocks)
            shelf.replace(pack, thinner)
            self._packs.update(dict.fromkeys(blocks, thinner))
        else:
            shelf.replace(pack, None)
            self._recent |= blocks


class _Block:
    """One run's lines, by family."""

    __slots__ = ("_labels", "_samples", "_shown", "lines")

    def __init__(self, runtime: str, shown: ShownRun) -> None:
        self._shown = shown
        self._labels = join(runtime, pairs_of(RUN_LABELS, (shown.project, shown.run.snapshot.spinner, shown.run.id)))
        self._samples: list[Samples] = [None] * len(RUN_FAMILIES)
        self.lines = [""] * len(RUN_FAMILIES)

    def is_of(self, shown: ShownRun) -> bool:
        """Whether the labels are those of this run."""
        mine = self._shown
        return mine.project == shown.project and mine.run.snapshot.spinner == shown.run.snapshot.spinner

    def render(self, shown: ShownRun, now: ScrapeContext) -> None:
        """Render what is not as it was; of a run under way without what moves with time alone."""
        self._shown = shown
        self._render(_ALL if shown.run.ended_at is not None else _STILL, now)

    def move(self, now: ScrapeContext) -> None:
        """Render what moves with time alone, of a run under way."""
        self._render(_LIVE, now)

    def _render(self, families: Sequence[_Step], now: ScrapeContext) -> None:
        shown, before, made, labels = self._shown, self._samples, self.lines, self._labels
        for place, name, samples_of, family in families:
            samples = samples_of(shown, now)
            if samples != before[place]:
                before[place] = samples
                # Most are numbers, and this is where a page's time goes: without a call for them.
                if isinstance(samples, NUMBERS):
                    made[place] = f"{name}{{{labels}}} {number(samples)}\n"
                else:
                    made[place] = lines(family, labels, samples)


class _Pack:
    """Runs that ended, each family's lines in one."""

    def __init__(self, blocks: dict[Key, _Block]) -> None:
        self.keys = dict.fromkeys(blocks)
        self.is_thinned = False
        self.columns = [Part(encode("".join([block.lines[place] for block in blocks.values()]))) for place in _PLACES]

    def thin(self, key: Key) -> None:
        """Note that a run is not of it any more."""
        del self.keys[key]
        self.is_thinned = True


class _Shelf:
    """Some packs, each family's lines in one."""

    def __init__(self) -> None:
        self.packs: list[_Pack] = []
        self.columns: list[Part] = []
        """By family; empty while they have to be joined anew."""

    def thinned(self) -> list[_Pack]:
        """Return the packs that runs have left."""
        return [pack for pack in self.packs if pack.is_thinned]

    def add(self, pack: _Pack) -> None:
        self.packs.append(pack)
        self.columns = []

    def replace(self, pack: _Pack, by: _Pack | None) -> None:
        place = self.packs.index(pack)
        self.packs[place : place + 1] = [] if by is None else [by]
        self.columns = []

    def join(self) -> None:
        self.columns = [Part.joined([pack.columns[place] for pack in self.packs]) for place in _PLACES]


class _Spinners:
    def __init__(self, labels: str) -> None:
        self._labels = labels
        self._moved: dict[bool, dict[Key, None]] = {False: {}, True: {}}
        self._groups: list[_Group] = []
        self._group_of: dict[Key, _Group] = {}

    def look(self, moved: Iterable[Key]) -> None:
        for waiting in self._moved.values():
            waiting.update(dict.fromkeys(moved))

    def catch_up(self, now: ScrapeContext, most: int, *, openmetrics: bool) -> bool:
        moved = self._moved[openmetrics]
        while moved and most > 0:
            key, _ = moved.popitem()
            shown = now.store.spinner(key)
            if shown is None:
                group = self._group_of.pop(key, None)
                if group is not None:
                    group.drop(key)
            else:
                self._place(key).put(key, self._render(shown, now, openmetrics=openmetrics), openmetrics=openmetrics)
            most -= 1
        return not moved

    def column(self, place: int, *, openmetrics: bool) -> list[Part]:
        return [group.columns(openmetrics=openmetrics)[place] for group in self._groups]

    def _place(self, key: Key) -> "_Group":
        group = self._group_of.get(key)
        if group is None:
            group = next((each for each in self._groups if each.has_room), None)
            if group is None:
                group = _Group()
                self._groups.append(group)
            self._group_of[key] = group
        return group

    def _render(self, shown: ShownSpinner, now: ScrapeContext, *, openmetrics: bool) -> list[str]:
        labels = join(self._labels, pairs_of(SPINNER_LABELS, (shown.project, shown.spinner)))
        return [
            lines(family, labels, family.samples(shown, now), openmetrics=openmetrics) for family in SPINNER_FAMILIES
        ]


class _Group:
    """Some spinners, in each of the two formats, since histograms differ; remade when one of them moves."""

    def __init__(self) -> None:
        self._lines: dict[bool, dict[Key, list[str]]] = {False: {}, True: {}}
        self._columns: dict[bool, list[Part]] = {}

    @property
    def has_room(self) -> bool:
        return max(map(len, self._lines.values())) < PACK

    def put(self, key: Key, made: list[str], *, openmetrics: bool) -> None:
        self._lines[openmetrics][key] = made
        self._columns.pop(openmetrics, None)

    def drop(self, key: Key) -> None:
        for each in self._lines.values():
            each.pop(key, None)
        self._columns.clear()

    def columns(self, *, openmetrics: bool) -> list[Part]:
        if openmetrics not in self._columns:
            of_all = self._lines[openmetrics].values()
            self._columns[openmetrics] = [
                Part(encode("".join([each[place] for each in of_all]))) for place in range(len(SPINNER_FAMILIES))
            ]
        return self._columns[openmetrics]
