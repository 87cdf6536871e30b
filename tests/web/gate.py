"""Checks of passwords that end only when a test lets them, so that nothing depends on how fast the machine is."""

import threading

import bcrypt
import pytest

from exporter.web.passwords import Passwords

RIGHT = b"correct horse"


class Gate:
    """Replaces bcrypt's check."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started: list[bytes] = []
        """Passwords whose checks have started."""
        self._permits = threading.Semaphore(0)
        self._made: list[Passwords] = []
        real = Passwords.__init__
        made = self._made

        def noting(self: Passwords, *arguments: object) -> None:
            real(self, *arguments)  # type: ignore[arg-type]
            made.append(self)

        monkeypatch.setattr(Passwords, "__init__", noting)
        monkeypatch.setattr(bcrypt, "checkpw", self._check)

    @property
    def waiting(self) -> int:
        """How many passwords wait for their check."""
        return sum(len(each._waiting) for each in self._made)

    def has_waiting(self, client: str) -> bool:
        """Whether a password of a client waits."""
        return any(check.client == client for each in self._made for check in each._waiting)

    def open(self, count: int = 10_000) -> None:
        """Let that many checks end."""
        self._permits.release(count)

    def _check(self, password: bytes, hashed: bytes) -> bool:
        self.started.append(password)
        assert self._permits.acquire(timeout=20)
        return password == RIGHT
