"""The token: it is read from a file, read again when the file changes, and never shown."""

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
def test_a_file_without_exactly_one_token_is_rejected_and_not_quoted(tmp_path: Path, content: str) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    with pytest.raises(ConfigError, match=r"runtime\.token_file: .*token: (is empty; )?expected one token") as error:
        Token(file=file)
    assert not content.strip() or content not in str(error.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"runtime\.token_file: /nowhere/token: cannot be read: No such file"):
        Token(file=Path("/nowhere/token"))


def test_the_repr_of_a_token_does_not_contain_it() -> None:
    assert "secret" not in repr(Token(value="cxg_secret"))


def test_without_file_and_value_there_is_no_token() -> None:
    assert Token().value() is None
