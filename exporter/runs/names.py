"""Unique names for what the runtime may call the same: projects, and the spinners of a project.

A name is a label, and two things with the same labels would be one series, for which Prometheus refuses the whole page.
Who has a name keeps it; whoever comes later and is called the same has its id behind the name.
"""

import hashlib
import itertools
from collections.abc import Iterator, Mapping


def unique_names(names: Mapping[str, str], held: Mapping[str, str], *, length: int) -> dict[str, str]:
    """Return a unique name for each id of `names`, of at most `length` characters.

    `held` has the unique names that are in use, by id, also of ids that are not in `names`. Of several new ids with the
    same name, the one that sorts first has it, so that several exporters agree.
    """
    taken = {name for each, name in held.items() if each not in names}
    found: dict[str, str] = {}
    for each, name in names.items():
        current = held.get(each)
        if current is not None and current not in taken and is_for(current, name, each, length=length):
            found[each] = current
            taken.add(current)
    new = sorted(names.keys() - found.keys(), key=_order)
    # A plain name goes first to one that is called so, and not to one that would only be called so with its id.
    for each in new:
        if names[each] not in taken:
            found[each] = names[each]
            taken.add(names[each])
    for each in new:
        if each not in found:
            found[each] = next(name for name in candidates(names[each], each, length=length) if name not in taken)
            taken.add(found[each])
    return {each: found[each] for each in names}


def candidates(name: str, own_id: str, *, length: int) -> Iterator[str]:
    """Yield names for something with this name and id without end, the best first."""
    yield name
    with_id = f" ({own_id})"
    if len(with_id) + ROOM_FOR_NUMBERS < length:
        yield _cut(name, with_id, length)
    else:
        with_id = ""
    for number in range(2, 2 + MAX_NUMBERS):
        yield _cut(name, f"{with_id} ({number})", length)
    # A hundred thousand of one name would each try the numbers of all others.
    short = hashlib.blake2b(own_id.encode(errors="surrogatepass"), digest_size=8).hexdigest()
    yield _cut(name, f" ({short})"[-length:], length)
    for number in itertools.count(2 + MAX_NUMBERS):
        yield _cut(name, f"{with_id} ({number})", length)


def is_for(candidate: str, name: str, own_id: str, *, length: int) -> bool:
    """Whether a unique name was made of this name and id."""
    return candidate in itertools.islice(candidates(name, own_id, length=length), MAX_NAMESAKES)


ROOM_FOR_NUMBERS = 8
"""Characters that a number behind the id can need."""

MAX_NUMBERS = 20
"""Numbers behind a name that are tried before a hash of the id."""

MAX_NAMESAKES = 100
"""Names that are tried when a unique name is recognised."""


def _cut(name: str, suffix: str, length: int) -> str:
    return name[: max(length - len(suffix), 0)] + suffix


def _order(own_id: str) -> tuple[int, str]:
    """Sort 9 before 10: where ids are numbers, the older one keeps the name."""
    return len(own_id), own_id
