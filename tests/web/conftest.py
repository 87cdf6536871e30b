from collections.abc import Iterator

import pytest

from tests.web.gate import Gate


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Holds checks of passwords until the test opens it."""
    gate = Gate(monkeypatch)
    yield gate
    gate.open()
