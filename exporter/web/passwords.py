"""Checks passwords, which takes long on purpose: a few at a time, with a short queue that addresses share.

A client that guesses passwords fills the queue, and gets 429 for the rest. A client of another address gets its turn,
so that a scraper whose password is not known yet, after a restart, does not wait behind the guesses.
"""

import asyncio
import dataclasses
import hashlib
import hmac
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import bcrypt

from exporter.web.refusals import Refusals

MAX_KNOWN = 100
"""Correct passwords that are cached as digests, so that a scraper's password is hashed once and not per scrape."""

MAX_CONCURRENT = 2
"""Passwords that are hashed concurrently: a client that guesses passwords must not keep all processors busy."""

MAX_WAITING = 16
"""Passwords that wait to be hashed."""

MAX_BYTES = 72
"""Bytes that bcrypt uses. Older versions ignore the rest, so that with it any longer password would match."""


class BusyError(Exception):
    """Too many passwords wait to be checked."""


@dataclasses.dataclass(eq=False)
class _Check:
    """A password that is hashed or waits for it, for all requests that have the same."""

    mark: bytes
    client: str
    matches: Callable[[], bool]
    result: "asyncio.Future[bool]"
    requests: int = 0


class Passwords:
    """Checks passwords, in the same time for known and unknown users."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._secret = secrets.token_bytes()
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._checks: dict[bytes, _Check] = {}
        self._waiting: list[_Check] = []
        self._running: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        # Not those of `asyncio.to_thread`, which also wait for name servers: one that does not respond takes them all.
        self._threads = ThreadPoolExecutor(MAX_CONCURRENT, "password")
        self._refusals = Refusals(
            "password checks are refused: too many at once", "password checks are no longer refused", clock
        )

    def is_known(self, user: str, password: bytes, users: Mapping[str, str]) -> bool:
        """Return whether the password was found to be correct before."""
        mark = self._mark(user, password, users)
        if mark not in self._known:
            return False
        self._known.move_to_end(mark)
        return True

    async def are_correct(self, user: str, password: bytes, users: Mapping[str, str], client: str) -> bool:
        """Return whether user and password are correct. Raises `BusyError`.

        If it is cancelled, the password is no longer checked, unless another request has the same one.
        """
        if len(password) > MAX_BYTES:
            return False
        mark = self._mark(user, password, users)
        check = self._checks.get(mark)
        if check is None:
            result: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            check = _Check(mark, client, lambda: matches(password, users.get(user), users.values()), result)
            self._admit(check)
        check.requests += 1
        try:
            # Several requests wait for it; one that is cancelled must not cancel it.
            is_correct = await asyncio.shield(check.result)
        finally:
            check.requests -= 1
            if not check.requests and check in self._waiting:
                self._waiting.remove(check)
                del self._checks[mark]
        if is_correct:
            self._known[mark] = None
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        return is_correct

    def _mark(self, user: str, password: bytes, users: Mapping[str, str]) -> bytes:
        """Return a digest of user, hash and password that nobody can compute outside this process."""
        parts = (user.encode(), users.get(user, "").encode(), password)
        text = b"".join(hashlib.sha256(part).digest() for part in parts)
        return hmac.digest(self._secret, text, hashlib.sha256)

    def _admit(self, check: _Check) -> None:
        """Start a check or let it wait, if necessary instead of another one. Raises `BusyError`."""
        self._refusals.note_calm()
        if self._running.total() >= MAX_CONCURRENT:
            if len(self._waiting) >= MAX_WAITING:
                self._make_room(check.client)
            self._waiting.append(check)
        self._checks[check.mark] = check
        if check not in self._waiting:
            self._start(check)

    def _make_room(self, newcomer: str) -> None:
        """Refuse the newest check of the client that has the most. Raises `BusyError` if that is the new one."""
        counts = Counter(each.client for each in self._waiting)
        counts[newcomer] += 1
        most = max(counts.values())
        greediest = next(client for client, count in counts.items() if count == most)
        self._refusals.note("too many wait", greediest)
        if counts[newcomer] == most:
            raise BusyError
        refused = next(each for each in reversed(self._waiting) if each.client == greediest)
        self._waiting.remove(refused)
        del self._checks[refused.mark]
        refused.result.set_exception(BusyError())

    def _start(self, check: _Check) -> None:
        self._running[check.client] += 1
        task = asyncio.create_task(self._run(check), name="password")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, check: _Check) -> None:
        try:
            # Not in the event loop's thread: bcrypt releases the interpreter's lock while it computes.
            is_correct = await asyncio.get_running_loop().run_in_executor(self._threads, check.matches)
        finally:
            self._running -= Counter((check.client,))
            self._checks.pop(check.mark, None)
            if self._waiting:
                # First clients of which none is being checked.
                following = min(self._waiting, key=lambda each: self._running[each.client])
                self._waiting.remove(following)
                self._start(following)
        if not check.result.done():
            check.result.set_result(is_correct)


def cost(hashed: str) -> int:
    """Return the cost in a bcrypt hash: the time doubles with each."""
    return int(hashed[4:6])


def matches(password: bytes, hashed: str | None, all_hashes: Iterable[str]) -> bool:
    """Return whether a password matches; None is the hash of an unknown user.

    If it does not match, this takes as long as for the dearest of all hashes, so that nobody learns who is a user.
    """
    dearest = max(all_hashes, key=cost)
    try:
        if bcrypt.checkpw(password, (hashed or dearest).encode()):
            return hashed is not None
    except ValueError:
        return False  # the same for every user: bcrypt refuses the password
    for each in range(cost(hashed or dearest), cost(dearest)):
        # A hash of each cost in between takes, in sum, what is missing: 2^10 + 2^10 + 2^11 = 2^12.
        bcrypt.hashpw(password, b"$2b$%02d$" % each + b"." * 22)
    return False
