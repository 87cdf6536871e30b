"""The token: read from a file, read again when that changes, and shown to nobody."""

import os
from pathlib import Path

import pytest

from exporter.errors import ConfigError
from exporter.runtime.auth import Token


def test_a_token_is_read_again_when_its_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("cxg_first\n")
    token = Token(file=file)
    assert token.value() == "cxg_first"
    file.write_text("cxg_second_and_longer\n")
    os.utime(file, (1, 1))
    assert token.value() == "cxg_second_and_longer"


@pytest.mark.parametrize("content", ["", " \n", "two tokens", "a\x00b", "one\ntwo"])
def test_a_file_that_holds_no_single_token_is_refused_without_showing_it(tmp_path: Path, content: str) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    with pytest.raises(ConfigError, match=r"runtime\.token_file: .*token: expected one token") as error:
        Token(file=file)
    assert not content.strip() or content not in str(error.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"runtime\.token_file: /nowhere/token: cannot be read: No such file"):
        Token(file=Path("/nowhere/token"))


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(Token(value="cxg_secret"))


def test_without_file_and_value_there_is_none() -> None:
    assert Token().value() is None
