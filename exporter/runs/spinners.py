"""The spinners of one project: those with counters of their own, and the rest, which is summed as spinner `other`.

Names of spinners come and go: one with a date or an id in it runs once. So a spinner that has no more runs leaves after
a while, and the number of those with counters of their own is limited.
"""

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from exporter.config import Config
from exporter.runs.counters import Counters
from exporter.runs.names import candidates
from exporter.runs.pace import EARLIER_RUNS, SpinnerPace
from exporter.runs.run import Run
from exporter.runs.spinner import TAUGHT, Spinner, TrackedRun
from exporter.runtime.model import RunSnapshot
from exporter.status import Status

OTHER = "other"
"""The spinner that sums the rest. The runs of a spinner that is really called so are counted with it."""

ONE_OFF_RETENTION = 86400.0
"""Seconds without a run after which a spinner that ran once leaves while the limit is reached.

If it were shorter, a stream of new names would create new series all the time; if it were longer, a new spinner that
stays would have to wait longer for its slot.
"""

KEPT_PACE = 400 * 86400.0
"""Seconds for which the pace of a spinner that left is kept: one may run once a year."""

KEPT_ONE_OFFS = 100
"""Spinners of one project that ran once and left whose pace is kept: most of them have a date in their name."""

NAMESAKES = 20
"""Spinners of one project with the same name that are told apart."""

_NO_PACE = SpinnerPace()
"""The pace of a spinner that never had a slot: it never learns."""


class SpinnerSlots:
    """Counts the spinners with counters of their own, of which there are at most `limits.spinners`.

    At most as many that left have their pace kept.
    """

    def __init__(self) -> None:
        self.taken = 0
        self.kept_paces = 0


class ProjectSpinners:
    """The spinners of one project by name.

    A run is counted by the spinner of its name; by `other` while that has no slot. What was counted stays where it is:
    a spinner that gets a slot begins at zero, so that `increase()` counts nothing twice.
    """

    def __init__(self, slots: SpinnerSlots, config: Callable[[], Config], *, is_saved: bool) -> None:
        """`config` returns the current config; `is_saved`: whether changes are noted for `unsaved`."""
        self._slots = slots
        self._config = config
        self._is_saved = is_saved
        self._tracked: dict[str, Spinner] = {}
        self._ids: dict[str, str] = {}
        """The id of the spinner that has a unique name, where the runtime has ids of spinners."""
        self._other: Spinner | None = None
        self._rest: dict[str, dict[Status, int]] = {}
        """The runs that `other` has of each spinner without a slot, by status; spinners without runs are not in it."""
        self._idle: dict[str, float] = {}
        """The spinners without runs, each with the runtime's time since when; the longest first."""
        self._idle_one_offs: dict[str, float] = {}
        """Those of them that ran once."""
        self._left: dict[str, Spinner] = {}
        """The spinners that left, of which only the pace is kept; the one that left first is the first."""
        self._last_names: dict[str, str] = {}
        """By id, the last name of each spinner that has one, also of those that left."""
        self.all_paces = SpinnerPace()
        """What the project learned from the last runs of its spinners, as of the last time when that changed much."""
        self._newest_paces: dict[str, SpinnerPace] = {}
        """The paces of the spinners that learned last, the last one at the end."""
        self._unpublished: set[str] = set()
        self._not_shown = 0
        self._changed: set[str] = set()
        self._unsaved: set[str] = set()

    # -- what is shown ------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[str]:
        yield from self._tracked
        if self._other is not None:
            yield OTHER

    def __contains__(self, name: str) -> bool:
        return name in self._tracked or (name == OTHER and self._other is not None)

    @property
    def slot_count(self) -> int:
        """How many spinners have a slot."""
        return len(self._tracked)

    def shown(self, name: str) -> tuple[Counters, dict[Status, int]]:
        """Return a spinner's counters, or zeros while it is new, and its number of runs by status."""
        spinner = self._counting(name)
        return spinner.shown, spinner.present

    def is_sum(self, name: str) -> bool:
        """Whether a spinner is nothing but the sum of others: none that is called so is known to have run."""
        if name != OTHER or self._other is None:
            return False
        counters = self._other.counters
        return self._other.sums_others and counters.last_start_at is None and counters.last_success_at is None

    def pace(self, name: str) -> SpinnerPace:
        """Return what a spinner learned from its earlier runs: of one without a slot, what it knew when it lost it."""
        spinner = self._other if name == OTHER else self._tracked.get(name) or self._left.get(name)
        return _NO_PACE if spinner is None else spinner.pace

    def mark_changed(self, names: Iterable[str]) -> None:
        """Mark spinners as changed, also some that are not known."""
        self._changed.update(names)

    @property
    def has_changes(self) -> bool:
        """Whether spinners changed or left since `collect_changes`."""
        return bool(self._changed)

    def collect_changes(self) -> set[str]:
        """Return the spinners that changed or left since the last call."""
        changed, self._changed = self._changed, set()
        return changed

    # -- names --------------------------------------------------------------------------------------------

    def is_named(self, snapshot: RunSnapshot) -> bool:
        """Whether the name of a run's spinner is the unique one already."""
        return self._ids.get(snapshot.spinner, "") == snapshot.spinner_id

    def last_name(self, spinner_id: str) -> str:
        """Return the last unique name of the spinner with this id; empty for one that is not known."""
        return self._last_names.get(spinner_id, "") if spinner_id else ""

    def named(self, snapshot: RunSnapshot, label_length: int) -> RunSnapshot:
        """Return a snapshot with the unique name of its spinner, which has at most `label_length` characters."""
        if not snapshot.spinner_id:
            return snapshot
        # Whoever has a name keeps it, also if a better one is free by now.
        own = (name for name in _names(snapshot, label_length) if self._ids.get(name) == snapshot.spinner_id)
        name = next(own, None)
        if name is None:
            name = self._claimed(snapshot, label_length)
        return msgspec.structs.replace(snapshot, spinner=name)

    def _claimed(self, snapshot: RunSnapshot, label_length: int) -> str:
        """Return a name for a new spinner: the first one that is free, or the last one, which several share then."""
        names = list(_names(snapshot, label_length))
        name = next((name for name in names if name not in self._ids), names[-1])
        self._ids[name] = snapshot.spinner_id
        if name in self._tracked:
            # An earlier version saved it without its id.
            self._tracked[name].id = snapshot.spinner_id
            self._note(name)
        self.note_renamed(self._last_names.get(snapshot.spinner_id, name), name)
        self._last_names[snapshot.spinner_id] = name
        return name

    def note_renamed(self, before: str, name: str) -> None:
        """Note that a spinner has another name: what it learned is kept."""
        if before == name or name in self._left or name in self._tracked:
            return
        known = self._left.get(before) or self._tracked.get(before)
        if known is None:
            return
        since = known.last_known_at if known.idle_since is None else known.idle_since
        self._keep_pace(name, Spinner(copy.deepcopy(known.pace), id=self._ids.get(name, ""), idle_since=since))

    # -- what runs do -------------------------------------------------------------------------------------

    def publish(self) -> None:
        """Show the counts of the spinners that have shown zeros so far.

        `increase()` misses the first value of a counter that begins at 1, and so would every alert on a spinner's first
        failed run. So a new spinner shows zeros first, and its counts with the next read.
        """
        for name in self._unpublished:
            if name in self and self._counting(name).publish():
                self._note(name)
        self._unpublished.clear()

    def count(self, project: str, name: str, changed: Sequence[TrackedRun], *, at_once: bool) -> bool:
        """Count what is new about runs of one spinner that were just added or changed.

        `project` is the project's name; `at_once`: whether the counts of a new spinner are shown at once. Returns
        whether the spinner learned from them.
        """
        has_slot = self._has_slot(project, name, at_once=at_once)
        key = name if has_slot else OTHER
        spinner = self._counting(key) if has_slot else self._sum(at_once=at_once)
        if not has_slot:
            self._not_shown += sum(tracked.is_new for tracked in changed)
            present = self._rest.setdefault(name, dict.fromkeys(Status, 0))
            for tracked in changed:
                present[tracked.run.status] += 1
        learned = spinner.count(changed, is_own=has_slot)
        if learned:
            self._teach_all(name, spinner.pace)
        if at_once:
            spinner.new_states = ()
        self._note_active(key)
        self._unpublished.add(key)
        self._note(key)
        return learned

    def learn_from_history(self, project: str, run: Run, *, at_once: bool) -> bool:
        """Learn from a run that ended too long ago to be counted; return whether the pace learned from it."""
        name = run.snapshot.spinner
        if not self._has_slot(project, name, at_once=at_once):
            return False
        spinner = self._counting(name)
        learned = spinner.learn_from_history(run)
        if learned:
            self._teach_all(name, spinner.pace)
        if not any(spinner.present.values()):
            self._note_idle(name, max(run.ended_at or 0.0, spinner.idle_since or 0.0))
        self._unpublished.add(name)
        self._note(name)
        return learned

    def learn(self, tracked: TrackedRun) -> bool:
        """Learn from a run that is dropped before its end; return whether the pace learned from it."""
        tracked.counted |= TAUGHT
        name = tracked.run.snapshot.spinner
        spinner = self._tracked.get(name)
        if spinner is None or not spinner.pace.learn([tracked.pace]):
            return False
        self._teach_all(name, spinner.pace)
        self._note(name)
        return True

    def _teach_all(self, name: str, pace: SpinnerPace) -> None:
        """Let the project learn what a spinner learned; new spinners depend on it.

        Each spinner counts once, or the project would know only the one that runs most often.
        """
        self._newest_paces.pop(name, None)
        self._newest_paces[name] = pace
        if len(self._newest_paces) > EARLIER_RUNS:
            del self._newest_paces[next(iter(self._newest_paces))]
        newest = SpinnerPace.of_spinners(self._newest_paces.values())
        if newest.differs_from(self.all_paces):
            self.all_paces = newest

    def not_ahead_of(self, now: float) -> None:
        """Note that the runtime's clock was set back to `now`: what has been seen is not yet to come."""
        for name in self:
            if self._counting(name).not_ahead_of(now):
                self._note(name)

    def remove(self, name: str, status: Status) -> None:
        """Note that a run of a spinner is removed, or will be counted again with another status."""
        key = name if name in self else OTHER
        self._counting(key).present[status] -= 1
        if key != name:
            self._rest[name][status] -= 1
            if not any(self._rest[name].values()):
                del self._rest[name]
        self._changed.add(key)

    def note_dropped(self, name: str, now: float) -> None:
        """Note that a run of a spinner was dropped at the runtime's time `now`: it may have been the last one."""
        key = name if name in self else OTHER
        if key in self and not any(self._counting(key).present.values()):
            self._note_idle(key, now)
            self._note(key)

    def _has_slot(self, project: str, name: str, *, at_once: bool) -> bool:
        """Whether a spinner has counters of its own; gives it a slot if there is one, also while it has runs."""
        if name == OTHER:
            self._sum(at_once=at_once)
            return True
        if name in self._tracked:
            return True
        if self._is_full() and name not in self._config().expected_spinners(project):
            return False
        spinner = self._tracked[name] = Spinner(withheld=not at_once, id=self._ids.get(name, ""))
        self._slots.taken += 1
        if name in self._left:
            left = self._left[name]
            self._forget_pace(name)
            if not left.id or spinner.id in ("", left.id):
                # Otherwise it is another one, to which the name has gone.
                spinner.pace = left.pace
        for status, count in self._rest.pop(name, {}).items():
            spinner.present[status] += count
            self._counting(OTHER).present[status] -= count
            self._changed.add(OTHER)
        return True

    def _sum(self, *, at_once: bool) -> Spinner:
        if self._other is None:
            self._other = Spinner(withheld=not at_once)
        return self._other

    def _counting(self, key: str) -> Spinner:
        if key == OTHER and self._other is not None:
            return self._other
        return self._tracked[key]

    def _is_full(self) -> bool:
        limits = self._config().limits
        return len(self._tracked) >= limits.spinners_per_project or self._slots.taken >= limits.spinners

    def _note(self, key: str) -> None:
        self._changed.add(key)
        if self._is_saved:
            self._unsaved.add(key)

    def _note_active(self, key: str) -> None:
        spinner = self._counting(key)
        if spinner.idle_since is not None:
            spinner.idle_since = None
            self._idle.pop(key, None)
            self._idle_one_offs.pop(key, None)

    def _note_idle(self, key: str, since: float) -> None:
        spinner = self._counting(key)
        spinner.idle_since = since
        self._idle.pop(key, None)
        self._idle[key] = since
        if spinner.ran_once and key != OTHER:
            self._idle_one_offs[key] = since

    # -- what leaves --------------------------------------------------------------------------------------

    def expire(self, project: str, now: float) -> None:
        """Drop the spinners that have had no run for too long, except those that the config expects.

        `project` is the project's name, `now` the runtime's time. The project must have been read recently: whether a
        spinner has had a run is unknown otherwise.
        """
        config = self._config()
        if len(self._ids) > len(self._tracked) + len(self._rest):
            self._ids = {name: own for name, own in self._ids.items() if name in self._tracked or name in self._rest}
        if len(self._last_names) > len(self._ids) + len(self._left):
            known = {own: name for name, own in self._ids.items()}
            self._last_names = {spinner.id: name for name, spinner in self._left.items() if spinner.id} | known
        while self._left and (next(iter(self._left.values())).idle_since or 0.0) < now - KEPT_PACE:
            self._forget_pace(next(iter(self._left)))
        if self._rest:
            self._give_slots(project, (name for name in config.expected_spinners(project) if name in self._rest))
        if self._other is not None and self._other.idle_since is None and not any(self._other.present.values()):
            self._note_idle(OTHER, now)
            self._note(OTHER)
        left = self._drop_idle(self._idle, project, now, config.spinner_retention)
        if self._is_full():
            one_offs = self._drop_idle(self._idle_one_offs, project, now, ONE_OFF_RETENTION)
            self._not_shown += one_offs
            left += one_offs
        if left:
            # Otherwise the next new names would take all the slots, and one that runs regularly would get none.
            self._give_slots(project, [name for name, present in self._rest.items() if sum(present.values()) > 1])

    def evict(self, project: str, most: int, *, with_runs: bool) -> int:
        """Take their slot from at most `most` spinners and return from how many.

        Those without runs, the longest first; if `with_runs`, any that the config does not name, the least used first.
        """
        candidates: Iterable[str]
        if with_runs:
            named = self._config().expected_spinners(project)
            used = sorted(self._tracked, key=lambda name: self._tracked[name].counters.started)
            candidates = (name for name in used if name not in named)
        else:
            idle = dict.fromkeys((*self._idle_one_offs, *self._idle))
            candidates = (name for name in idle if name != OTHER and not self._is_expected(project, name))
        names = list(itertools.islice(candidates, most))
        for name in names:
            present = self._drop(name).present
            if any(present.values()):
                # Its runs are counted as `other` from now on.
                self._rest[name] = present
                other = self._sum(at_once=False)
                other.sums_others = True
                for status, count in present.items():
                    other.present[status] += count
                self._note_active(OTHER)
                self._unpublished.add(OTHER)
                self._note(OTHER)
        self._not_shown += len(names)
        return len(names)

    @property
    def has_not_shown(self) -> bool:
        """Whether `collect_not_shown` returns more than 0."""
        return self._not_shown > 0

    def collect_not_shown(self) -> int:
        """Return how many runs were counted as `other` and how many spinners lost their slot since the last call."""
        count, self._not_shown = self._not_shown, 0
        return count

    def release(self) -> None:
        """Free all slots: the project is removed."""
        self._slots.taken -= len(self._tracked)
        self._slots.kept_paces -= len(self._left)
        self._tracked, self._left = {}, {}

    def _give_slots(self, project: str, names: Iterable[str]) -> None:
        """Give slots to spinners that have runs, as long as there are any."""
        for name in names:
            if self._has_slot(project, name, at_once=False):
                self._unpublished.add(name)
                self._note(name)

    def _drop_idle(self, idle: dict[str, float], project: str, now: float, retention: float) -> int:
        """Drop the spinners of `idle`, which is one of the two, after `retention` seconds; return how many."""
        dropped = 0
        while idle:
            name, since = next(iter(idle.items()))
            if since > now - retention:
                break
            if self._is_expected(project, name):
                # Looked at again after the same time, in case the config no longer expects it.
                self._idle_one_offs.pop(name, None)
                del self._idle[name]
                self._idle[name] = now
            else:
                self._drop(name)
                dropped += 1
        return dropped

    def _drop(self, name: str) -> Spinner:
        if name == OTHER:
            spinner, self._other = self._counting(OTHER), None
        else:
            spinner = self._tracked.pop(name)
            self._slots.taken -= 1
            since = spinner.last_known_at if spinner.idle_since is None else spinner.idle_since
            self._keep_pace(name, Spinner(spinner.pace, id=spinner.id, idle_since=since))
        self._idle.pop(name, None)
        self._idle_one_offs.pop(name, None)
        self._note(name)
        return spinner

    def _keep_pace(self, name: str, spinner: Spinner) -> None:
        """Keep the pace of a spinner without series, if it knows anything and there is room.

        Where there is none, one that ran once is forgotten, the first that left: names with a date do not return.
        """
        limits = self._config().limits
        if spinner.pace.runs == 0:
            return
        one_offs = [each for each, left in self._left.items() if left.pace.runs == 1]
        is_full = len(self._left) >= limits.spinners_per_project or self._slots.kept_paces >= limits.spinners
        if self._left and (is_full or (spinner.pace.runs == 1 and len(one_offs) >= KEPT_ONE_OFFS)):
            self._forget_pace(next(iter(one_offs or self._left)))
        if self._slots.kept_paces < limits.spinners:
            spinner.has_left = True
            self._left[name] = spinner
            self._slots.kept_paces += 1
            self._note(name)

    def _forget_pace(self, name: str) -> None:
        del self._left[name]
        self._slots.kept_paces -= 1
        self._note(name)

    def _is_expected(self, project: str, name: str) -> bool:
        return not self.is_sum(name) and self._config().spinner_policy(project, name).expected_interval is not None

    # -- what is saved ------------------------------------------------------------------------------------

    def unsaved(self) -> Iterator[tuple[str, Spinner | None]]:
        """Yield name and value of what changed since `saved`; the value is None for a spinner that is forgotten."""
        for name in self._unsaved:
            yield name, self._counting(name) if name in self else self._left.get(name)

    def everything(self) -> Iterator[tuple[str, Spinner]]:
        """Yield name and value of every spinner."""
        for name in self:
            yield name, self._counting(name)
        yield from self._left.items()

    def saved(self) -> None:
        """Note that what changed is saved."""
        self._unsaved.clear()

    def restore(self, spinners: dict[str, Spinner], runs: Iterable[TrackedRun], read_as_of: float) -> None:
        """Restore what an earlier process saved: the spinners, and the runs that they have.

        `read_as_of` is the runtime's time of the last read: earlier releases did not save since when a spinner has had
        no run.
        """
        self._other = spinners.get(OTHER)
        left_first = sorted(spinners.items(), key=lambda each: each[1].idle_since or 0.0)
        self._left = {name: spinner for name, spinner in left_first if spinner.has_left}
        self._tracked = {name: spinner for name, spinner in spinners.items() if name != OTHER and not spinner.has_left}
        self._ids = {name: spinner.id for name, spinner in self._tracked.items() if spinner.id}
        self._last_names = {spinner.id: name for name, spinner in left_first if spinner.id} | {
            own: name for name, own in self._ids.items()
        }
        self._slots.taken += len(self._tracked)
        self._slots.kept_paces += len(self._left)
        last_first = sorted(spinners.items(), key=lambda each: each[1].last_known_at or each[1].idle_since or 0.0)
        for name, spinner in last_first:
            spinner.present = dict.fromkeys(Status, 0)
            if spinner.pace.runs:
                self._teach_all(name, spinner.pace)
        for run in (tracked.run for tracked in runs):
            name = run.snapshot.spinner
            if name not in self:
                self._rest.setdefault(name, dict.fromkeys(Status, 0))[run.status] += 1
            self._counting(name if name in self else OTHER).present[run.status] += 1
        self._unpublished.update(self)
        idle: dict[str, float] = {}
        for name in self:
            spinner = self._counting(name)
            if any(spinner.present.values()):
                spinner.idle_since = None
                continue
            if spinner.idle_since is None:
                spinner.idle_since = read_as_of if spinner.last_known_at is None else spinner.last_known_at
                self._note(name)
            idle[name] = spinner.idle_since
        for name in sorted(idle, key=idle.__getitem__):
            self._note_idle(name, idle[name])


def _names(snapshot: RunSnapshot, label_length: int) -> Iterator[str]:
    """Yield the names that the spinner of a run may have, the best first."""
    return itertools.islice(candidates(snapshot.spinner, snapshot.spinner_id, length=label_length), NAMESAKES)
