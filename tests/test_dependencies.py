"""What we rely on in libraries beyond their documentation: an upgrade that changes it fails here, by name."""

import inspect
from typing import Any

import msgspec
import pytest
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    number: int

    def __post_init__(self) -> None:
        if self.number < 0:
            raise ValueError("number: expected 0 or more")


class Outer(msgspec.Struct):
    inner: Inner
    items: list[Inner] = []


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"inner": {"number": "1"}}, "Expected `int`, got `str` - at `$.inner.number`"),
        ({"inner": {"number": 1, "odd": 2}}, "Object contains unknown field `odd` - at `$.inner`"),
        ({}, "Object missing required field `inner`"),
        ({"inner": {"number": 1}, "items": [{}]}, "Object missing required field `number` - at `$.items[0]`"),
        ({"inner": {"number": -1}}, "number: expected 0 or more - at `$.inner`"),
        ({"inner": None}, "Expected `object`, got `null` - at `$.inner`"),
    ],
)
def test_msgspec_says_what_is_wrong_in_the_words_that_config_strict_parses(tree: Any, message: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(tree, Outer)
    found = str(caught.value).replace("[...]", "[0]")
    assert found == message, "msgspec words this error otherwise: look at `_misfit` in exporter/config/strict.py"


def test_uvicorn_s_protocol_has_what_web_server_extends() -> None:
    where = "look at `_Protocol` in exporter/web/server.py"
    for name in ("connection_made", "connection_lost", "on_response_complete", "pause_writing", "resume_writing"):
        assert callable(getattr(H11Protocol, name, None)), f"H11Protocol has no {name}: {where}"
    source = inspect.getsource(H11Protocol.__init__)
    for name in ("cycle", "transport", "loop"):
        assert f"self.{name}" in source, f"H11Protocol sets no {name}: {where}"


def test_uvicorn_s_server_has_what_web_server_overrides() -> None:
    where = "look at `_Server` and `_server` in exporter/web/server.py"
    assert callable(getattr(uvicorn.Server, "capture_signals", None)), f"uvicorn.Server has no capture_signals: {where}"
    server = uvicorn.Server(uvicorn.Config("none:app"))
    assert server.should_exit is False, f"uvicorn.Server has no should_exit: {where}"
    assert callable(getattr(server.config, "load", None)), f"uvicorn.Config has no load: {where}"
