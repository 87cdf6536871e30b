"""Guessing passwords costs the guesser: others get their turn, the queue is short, and nobody learns who is a user."""

import asyncio
import threading

import bcrypt
import pytest
import structlog

from exporter.web import passwords
from exporter.web.passwords import MAX_CONCURRENT, MAX_WAITING, BusyError, Passwords
from tests.builders import Clock
from tests.web.gate import RIGHT, Gate

HASH = bcrypt.hashpw(RIGHT, bcrypt.gensalt(4)).decode()
USERS = {"prometheus": HASH}


async def settled(gate: Gate, count: int) -> None:
    """Wait until that many checks have started."""
    async with asyncio.timeout(20):
        while len(gate.started) < count:  # noqa: ASYNC110 - threads set no event of the loop
            await asyncio.sleep(0.001)


def guesses(checked: Passwords, count: int, client: str = "stranger") -> list["asyncio.Task[bool]"]:
    return [
        asyncio.create_task(checked.are_correct("prometheus", b"%s %d" % (client.encode(), each), USERS, client))
        for each in range(count)
    ]


async def test_a_right_password_is_next_although_900_guesses_came_before(gate: Gate) -> None:
    checked = Passwords()
    guessed = guesses(checked, 900)
    await settled(gate, MAX_CONCURRENT)
    right = asyncio.create_task(checked.are_correct("prometheus", RIGHT, USERS, "scraper"))
    await asyncio.sleep(0)
    gate.open(1)
    await settled(gate, MAX_CONCURRENT + 1)
    assert gate.started[-1] == RIGHT
    gate.open()
    assert await right
    results = await asyncio.gather(*guessed, return_exceptions=True)
    refused = [each for each in results if isinstance(each, BusyError)]
    assert len(refused) == 900 - MAX_CONCURRENT - MAX_WAITING + 1, "and one guess made room for the right password"
    assert results.count(False) == 900 - len(refused)


async def test_in_a_full_queue_the_client_with_most_checks_makes_room(gate: Gate) -> None:
    checked = Passwords()
    first = guesses(checked, MAX_CONCURRENT + MAX_WAITING)
    await settled(gate, MAX_CONCURRENT)
    with pytest.raises(BusyError):
        await checked.are_correct("prometheus", b"one more", USERS, "stranger")
    others = guesses(checked, 3, "other")
    await asyncio.sleep(0)
    gate.open()
    assert await asyncio.gather(*others) == [False] * 3
    results = await asyncio.gather(*first, return_exceptions=True)
    assert [type(each) for each in results[-3:]] == [BusyError] * 3, "its newest checks"
    assert results[:-3] == [False] * (len(first) - 3)


async def test_a_check_whose_clients_have_left_is_skipped(gate: Gate) -> None:
    checked = Passwords()
    gone = guesses(checked, MAX_CONCURRENT + MAX_WAITING)
    await settled(gate, MAX_CONCURRENT)
    for each in gone[MAX_CONCURRENT:]:
        each.cancel()
    await asyncio.sleep(0)
    still = guesses(checked, 1, "other")
    await asyncio.sleep(0)
    gate.open()
    assert await asyncio.gather(*still) == [False]
    assert len(gate.started) == MAX_CONCURRENT + 1


async def test_the_same_password_is_checked_once_for_all_who_wait(gate: Gate) -> None:
    """After a restart, all projects of a scraper are probed with the same password that is not known yet."""
    checked = Passwords()
    probes = [
        asyncio.create_task(checked.are_correct("prometheus", RIGHT, USERS, "scraper"))
        for _ in range(MAX_WAITING + MAX_CONCURRENT + 10)
    ]
    await settled(gate, 1)
    probes.pop().cancel()
    gate.open()
    assert all(await asyncio.gather(*probes))
    assert gate.started == [RIGHT]
    assert checked.is_known("prometheus", RIGHT, USERS)
    assert not checked.is_known("prometheus", b"other", USERS)
    assert not checked.is_known("prometheus", RIGHT, {"prometheus": HASH[:-1]}), "the password was changed"
    assert not checked.is_known("prometheus", RIGHT, {}), "the user was removed"


async def test_refusals_are_one_line_in_the_log(gate: Gate) -> None:
    clock = Clock()
    checked = Passwords(clock)
    with structlog.testing.capture_logs() as lines:
        guessed = guesses(checked, 200)
        await settled(gate, MAX_CONCURRENT)
        gate.open()
        await asyncio.gather(*guessed, return_exceptions=True)
        clock.advance(60)
        await checked.are_correct("prometheus", RIGHT, USERS, "scraper")
    assert [(line["event"], line.get("top_client"), line.get("times")) for line in lines] == [
        ("password checks are refused: too many at once", "stranger", None),
        ("password checks are no longer refused", None, 200 - MAX_CONCURRENT - MAX_WAITING),
    ]


async def test_a_password_that_bcrypt_would_cut_off_never_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    """bcrypt before 5.0 ignores what is behind 72 bytes, so that a right password with anything behind it matches."""
    monkeypatch.setattr(bcrypt, "checkpw", lambda password, hashed: real(password[:72], hashed))
    long = b"x" * 72
    users = {"prometheus": bcrypt.hashpw(long, bcrypt.gensalt(4)).decode()}
    assert await Passwords().are_correct("prometheus", long, users, "scraper")
    assert not await Passwords().are_correct("prometheus", long + b"anything", users, "stranger")


real = bcrypt.checkpw


def test_a_wrong_password_takes_as_long_for_everybody_as_with_the_dearest_hash(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not measured, which would be luck: bcrypt's time is 2 to the power of the cost."""
    users = {str(cost): f"$2b${cost:02d}$" + "." * 53 for cost in (4, 10, 12)}
    spent = 0

    def check(password: bytes, hashed: bytes) -> bool:
        nonlocal spent
        spent += 2 ** int(hashed[4:6])
        return False

    def compute(password: bytes, salt: bytes) -> bytes:
        check(password, salt)
        return b""

    monkeypatch.setattr(bcrypt, "checkpw", check)
    monkeypatch.setattr(bcrypt, "hashpw", compute)
    for user in ("4", "10", "12", "stranger"):
        spent = 0
        assert not passwords.matches(b"wrong", users.get(user), users.values())
        assert spent == 2**12, user


def test_the_missing_time_is_spent_on_hashes_that_bcrypt_knows() -> None:
    dear = bcrypt.hashpw(b"other", bcrypt.gensalt(6)).decode()
    assert passwords.matches(RIGHT, HASH, [HASH, dear])
    assert not passwords.matches(b"wrong", HASH, [HASH, dear])
    assert not passwords.matches(b"other", None, [HASH, dear]), "a stranger with a user's password"


async def test_the_event_loop_runs_while_a_password_is_hashed() -> None:
    dear = bcrypt.hashpw(RIGHT, bcrypt.gensalt(11)).decode()
    check = asyncio.create_task(Passwords().are_correct("prometheus", b"wrong", {"prometheus": dear}, "stranger"))
    iterations = 0
    while not check.done():
        await asyncio.sleep(0)
        iterations += 1
    assert iterations > 20, "bcrypt blocks the event loop"


async def test_a_password_is_checked_while_all_other_threads_wait() -> None:
    """As for a name server that does not respond: a scraper would be timed out, and its exporter count as down."""
    responds, most = threading.Event(), 32 + 4
    waiting = [asyncio.create_task(asyncio.to_thread(responds.wait, 60)) for _ in range(most)]
    try:
        async with asyncio.timeout(20):
            assert await Passwords().are_correct("prometheus", RIGHT, USERS, "127.0.0.1")
    finally:
        responds.set()
        await asyncio.gather(*waiting)
