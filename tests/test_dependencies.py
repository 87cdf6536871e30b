"""Undocumented behaviour of libraries that the exporter relies on: where an upgrade changes it, a test here fails."""

import inspect
import time
from collections.abc import Mapping
from typing import Any

import httpcore
import httpx
import msgspec
import pytest
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from exporter.runtime.connections import _has_unread_data


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
def test_msgspec_s_errors_have_the_texts_that_config_strict_parses(tree: Any, message: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(tree, Outer)
    found = str(caught.value).replace("[...]", "[0]")
    assert found == message, (
        "msgspec has changed the text of this error: look at `_misfit` in exporter/config/strict.py"
    )


def test_uvicorn_s_protocol_has_what_web_server_extends() -> None:
    where = "look at `_Protocol` in exporter/web/server.py"
    for name in (
        "connection_made",
        "connection_lost",
        "data_received",
        "handle_events",
        "on_response_complete",
        "pause_writing",
        "resume_writing",
        "_should_upgrade",
        "_unset_keepalive_if_required",
    ):
        assert callable(getattr(H11Protocol, name, None)), f"H11Protocol has no {name}: {where}"
    source = inspect.getsource(H11Protocol.__init__)
    for name in ("conn", "cycle", "transport", "loop", "flow"):
        assert f"self.{name}" in source, f"H11Protocol sets no {name}: {where}"
    assert list(inspect.signature(H11Protocol).parameters)[:3] == ["config", "server_state", "app_state"]
    assert "self.response_complete" in inspect.getsource(RequestResponseCycle.__init__), where
    assert "self.write_paused" in inspect.getsource(FlowControl.__init__), where


def test_uvicorn_s_server_has_what_web_server_overrides() -> None:
    where = "look at `_Server` and `_server` in exporter/web/server.py"
    for name in ("capture_signals", "startup", "shutdown"):
        assert callable(getattr(uvicorn.Server, name, None)), f"uvicorn.Server has no {name}: {where}"
    server = uvicorn.Server(uvicorn.Config("none:app"))
    assert server.server_state.connections == set(), f"uvicorn.Server has no server_state: {where}"
    assert server.should_exit is False, f"uvicorn.Server has no should_exit: {where}"
    assert callable(getattr(server.config, "load", None)), f"uvicorn.Config has no load: {where}"


@pytest.mark.parametrize("more", [b"", b"more"])
async def test_httpcore_s_connections_show_what_follows_a_response(more: bytes) -> None:
    backend = httpcore.AsyncMockBackend([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}" + more])
    transport = httpx.AsyncHTTPTransport()
    transport._pool = httpcore.AsyncConnectionPool(network_backend=backend)
    await (await transport.handle_async_request(httpx.Request("GET", "http://runtime.test/"))).aread()
    assert _has_unread_data(transport) == bool(more), (
        "httpcore or httpx has changed: look at `_has_unread_data` in exporter/runtime/connections.py"
    )
    await transport.aclose()


CONNECT, SEND = "connection.connect_tcp.started", "http11.send_request_headers.started"


async def events_of_a_request(pool: httpcore.AsyncConnectionPool) -> list[str]:
    """Send a request and return httpcore's trace events for connecting and for sending its headers."""
    events: list[str] = []

    async def trace(event: str, details: Mapping[str, Any]) -> None:
        events.append(event)

    await pool.request("GET", "http://runtime.test/", extensions={"trace": trace})
    return [event for event in events if event in (CONNECT, SEND)]


async def test_httpcore_s_trace_events_show_whether_a_connection_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"] * 3
    pool = httpcore.AsyncConnectionPool(keepalive_expiry=75.0, network_backend=httpcore.AsyncMockBackend(answers))
    where = "look at `_Trace` in exporter/runtime/connections.py"
    assert await events_of_a_request(pool) == [CONNECT, SEND], (
        f"httpcore traces a new connection with other events: {where}"
    )
    assert await events_of_a_request(pool) == [SEND], f"httpcore traces a kept connection with other events: {where}"
    monotonic = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + 76.0)
    assert await events_of_a_request(pool) == [CONNECT, SEND], (
        "httpcore measures how long a connection is idle by another clock than time.monotonic: look at"
        " test_a_connection_is_kept_for_longer_than_a_scrape_interval in tests/runtime/test_connections.py"
    )
    monkeypatch.undo()
    await pool.aclose()
