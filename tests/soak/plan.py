"""What goes wrong on which day: outages, steps of either clock, kills, a full disk, two servers, reloads."""

import dataclasses
from collections.abc import Awaitable, Callable

from tests.soak.organisation import HOUR
from tests.soak.world import World

Action = Callable[[World], Awaitable[None] | None]


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """Something that happens at an hour of a day."""

    hour: float
    what: str
    action: Action


def fails(path: str, what: str, begins: float, ends: float) -> list[Event]:
    """The API fails for some hours, for paths that contain `path`."""

    def begin(world: World) -> None:
        world.organisation.fails = lambda requested: path in requested

    def end(world: World) -> None:
        world.organisation.fails = lambda requested: False

    return [Event(begins, f"{what} for {ends - begins:g} h", begin), Event(ends, "", end)]


def runtime_clock(hour: float, hours: float) -> list[Event]:
    """The runtime's clock is set."""

    def step(world: World) -> None:
        world.organisation.ahead += hours * HOUR

    return [Event(hour, f"runtime's clock {hours:+g} h", step)]


def own_clock(hour: float, hours: float) -> list[Event]:
    """The exporter's clock is set."""
    return [Event(hour, f"own clock {hours:+g} h", lambda world: world.wall.advance(hours * HOUR))]


def kill(*hours: float) -> list[Event]:
    """The exporter is killed and starts again."""
    return [Event(hour, "kill", World.kill) for hour in hours]


def reloads(*hours: float) -> list[Event]:
    """Another config is loaded."""
    return [Event(hour, "reload", World.reload) for hour in hours]


def full_disk(begins: float, ends: float) -> list[Event]:
    """Nothing can be written to the state file for some hours."""
    return [
        Event(begins, f"disk full for {ends - begins:g} h", lambda world: world.fill_disk(is_full=True)),
        Event(ends, "", lambda world: world.fill_disk(is_full=False)),
    ]


def list_of_all(hour: float, *, exists: bool) -> list[Event]:
    """From now on there is a list of the runs of all projects, or there is none."""

    def begin(world: World) -> None:
        world.organisation.lists_all = exists

    return [Event(hour, "a list of all projects" if exists else "no list of all projects", begin)]


def two_servers(hour: float, seconds: float) -> list[Event]:
    """From now on two servers answer whose clocks differ; one if by 0 s."""

    def begin(world: World) -> None:
        world.organisation.apart = seconds

    return [Event(hour, f"two servers {seconds:g} s apart" if seconds else "one server", begin)]


DAYS: tuple[list[Event], ...] = (
    [*fails("/api/v1", "API down", 3, 11), *kill(15), *reloads(18)],
    [*runtime_clock(4, 2), *own_clock(9, -1), *full_disk(12, 20), *kill(22)],
    [*list_of_all(1, exists=True), *reloads(2, 14), *kill(6, 18)],
    [*fails("/p1", "p1 and p10 to p19 fail", 2, 12), *kill(7, 20)],
    [*runtime_clock(5, -2), *own_clock(15, 24)],
    [*two_servers(1, 3), *fails("/api/v1", "API down", 6, 15), *kill(9)],
    [*two_servers(1, 0), *own_clock(6, -23), *runtime_clock(12, -8), *reloads(18)],
    [*full_disk(1, 21), *reloads(22)],
    [*fails("/api/v1", "API down", 2, 4), *own_clock(3, 0.1), *runtime_clock(14, 8)],
    [*two_servers(4, 20), *kill(8), *two_servers(16, 0)],
    [*fails("/jobs", "lists fail", 1, 9), *runtime_clock(5, 1), *kill(14), *list_of_all(16, exists=False)],
    [],
    [*kill(2, 6, 10, 14, 18, 22), *reloads(4, 8, 12, 16, 20)],
    [*fails("/api/v1", "API down", 1, 21)],
)
"""The events of each day; after the last day they begin again."""
