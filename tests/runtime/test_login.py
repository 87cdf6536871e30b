"""When a login is sent, and what of its response is used. `tests/connecting/test_login.py` runs whole exporters."""

import asyncio
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from exporter.config import LoginConfig
from exporter.errors import ApiError
from exporter.runtime.connections import Connections
from exporter.runtime.http_client import HttpClient, PausedError
from exporter.runtime.login import Login
from tests.builders import NOON, Clock, runtime_config
from tests.runtime.test_client import Observed
from tests.transport import FakeTransport


class Server:
    """Responds to each login with the next token; notes when."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.times: list[float] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self.more: dict[str, Any] = {"lifetime": 600}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.times.append(self.clock.now - NOON)
        token = f"t{len(self.times)}"
        return httpx.Response(self.status, json={"access_token": token, **self.more}, headers=self.headers)


@pytest.fixture
def clock() -> Clock:
    return Clock(NOON)


@pytest.fixture
def server(clock: Clock) -> Server:
    return Server(clock)


@pytest.fixture
def made(server: Server, tmp_path: Path) -> Callable[..., Login]:
    def login(**keys: Any) -> Login:
        file = tmp_path / "body"
        file.write_text(json.dumps({"user": "exporter"}))
        http_client = HttpClient(
            Connections(runtime_config(), concurrency=8, transport=FakeTransport(server)),
            timeout=10,
            max_body=1_000_000,
            observer=Observed(),
            monotonic=server.clock,
            sleep=asyncio.sleep,
        )
        config = LoginConfig(path="/login", body_file=str(file), **keys)
        return Login(config, http_client, "http://runtime.test/", monotonic=server.clock, wall=server.clock)

    return login


@pytest.mark.parametrize(("more", "seconds"), [({}, 540), ({"lifetime": 100}, 80)], ids=["a minute", "a fifth of it"])
async def test_a_token_is_renewed_a_minute_before_its_end_or_a_fifth_of_its_lifetime_and_not_earlier(
    made: Callable[..., Login], server: Server, clock: Clock, more: dict[str, int], seconds: float
) -> None:
    server.more |= more
    login = made(lifetime="lifetime")
    assert await login.current() == "t1"
    clock.advance(seconds - 0.1)
    assert await login.current() == "t1"
    clock.advance(0.1)
    assert await login.current() == "t2"


async def test_a_login_that_fails_while_the_token_is_valid_is_a_warning(
    made: Callable[..., Login], server: Server, clock: Clock, tmp_path: Path
) -> None:
    login = made(lifetime="lifetime")
    await login.current()
    server.status = 403
    clock.advance(540)
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            assert await login.current() == "t1"
    assert lines == [
        {
            "event": "login failed; the token that is still valid stays in use",
            "log_level": "warning",
            "error": f"login: HTTP 403: refused; check runtime.auth.login.body_file: {tmp_path}/body",
        }
    ]


async def test_a_token_is_not_used_at_its_end(made: Callable[..., Login], server: Server, clock: Clock) -> None:
    login = made(lifetime="lifetime")
    await login.current()
    server.status = 403
    clock.advance(599.9)
    assert await login.current() == "t1"
    clock.advance(0.1)
    with pytest.raises(ApiError, match="login: HTTP 403: refused"):
        await login.current()


async def test_logins_that_are_refused_wait_twice_as_long_each_time_up_to_ten_minutes(
    made: Callable[..., Login], server: Server, clock: Clock
) -> None:
    login, server.status = made(), 422
    for _ in range(2800):
        with pytest.raises(ApiError, match=r"login: HTTP 422: refused; check runtime\.auth\.login\.body_file"):
            await login.current()
        clock.advance(1)
    assert server.times == [0, 30, 90, 210, 450, 930, 1530, 2130, 2730]
    server.status = 200
    clock.advance(600)
    assert await login.current() == "t10"
    server.status = 401
    assert await login.renewed("other") == "t10", "another request had it renewed"
    with pytest.raises(ApiError, match="login: HTTP 401"):
        await login.renewed("t10")
    clock.advance(30)
    server.status = 200
    assert await login.renewed("t10") == "t12", "after a success it begins with the shortest wait"


async def test_logins_that_are_not_answered_are_repeated_every_half_minute(
    made: Callable[..., Login], server: Server, clock: Clock
) -> None:
    login, server.status = made(), 500
    for _ in range(100):
        with pytest.raises(ApiError, match="login: HTTP 500"):
            await login.current()
        clock.advance(1)
    assert server.times == [0, 30, 60, 90]


async def test_renewed_tokens_that_are_refused_wait_until_one_is_accepted(
    made: Callable[..., Login], server: Server, clock: Clock
) -> None:
    login = made()
    token = await login.current()
    for wait in (30, 60, 120):
        renewed = await login.renewed(token)
        assert renewed is not None
        token = renewed
        login.confirm(token, accepted=False)
        clock.advance(wait - 1)
        assert await login.renewed(token) is None
        clock.advance(1)
    for _ in range(2):
        renewed = await login.renewed(token)
        assert renewed is not None
        login.confirm(renewed, accepted=True)
        token = renewed
    login.confirm(token, accepted=False)
    clock.advance(29)
    assert await login.renewed(token) is None
    clock.advance(1)
    assert await login.renewed(token) is not None


async def test_another_body_is_tried_at_once_after_tokens_that_were_refused(
    made: Callable[..., Login], server: Server, tmp_path: Path
) -> None:
    login = made()
    await login.current()
    login.confirm("t1", accepted=False)
    assert await login.renewed("t1") is None
    (tmp_path / "body").write_text("user=another&password=x")
    assert await login.renewed("t1") == "t2"


async def test_a_lifetime_of_a_second_is_one(made: Callable[..., Login], server: Server, clock: Clock) -> None:
    server.more = {"lifetime": 1}
    login = made(lifetime="lifetime")
    assert await login.current() == "t1"
    clock.advance(1)
    assert await login.current() == "t2"


@pytest.mark.parametrize("seconds", [100 * 365 * 86400, -100 * 365 * 86400])
async def test_a_lifetime_of_a_hundred_years_is_one(made: Callable[..., Login], server: Server, seconds: float) -> None:
    server.more = {"lifetime": seconds}
    login = made(lifetime="lifetime")
    assert await login.current() == "t1"
    server.more = {"lifetime": seconds + math.copysign(1, seconds)}
    with pytest.raises(ApiError, match="login: expected a number of seconds"):
        await login.renewed("t1")


@pytest.mark.parametrize(("status", "is_usable"), [(200, True), (299, True), (300, False)])
async def test_a_login_is_answered_with_a_status_of_success(
    made: Callable[..., Login], server: Server, status: int, is_usable: bool
) -> None:
    server.status = status
    if is_usable:
        assert await made().current() == "t1"
    else:
        with pytest.raises(ApiError, match=f"login: HTTP {status}"):
            await made().current()


@pytest.mark.parametrize("status", [400, 401, 403, 422])
async def test_a_login_that_is_refused_names_the_key_and_the_file_of_its_body(
    made: Callable[..., Login], server: Server, status: int
) -> None:
    server.status = status
    with pytest.raises(
        ApiError, match=rf"^login: HTTP {status}: refused; check runtime\.auth\.login\.body_file: .*/body$"
    ):
        await made().current()


async def test_a_login_that_failed_while_others_waited_for_it_is_not_repeated_for_them(
    made: Callable[..., Login], server: Server, tmp_path: Path
) -> None:
    login = made()
    await login.current()
    server.status = 403
    found = await asyncio.gather(*(login.renewed("t1") for _ in range(3)), return_exceptions=True)
    refused = f"login: HTTP 403: refused; check runtime.auth.login.body_file: {tmp_path}/body"
    assert {str(error) for error in found} == {refused}
    assert len(server.times) == 2


async def test_a_login_that_a_pause_prevents_is_sent_as_soon_as_the_pause_is_over(
    made: Callable[..., Login], server: Server, clock: Clock
) -> None:
    login = made()
    server.status, server.headers = 429, {"Retry-After": "40"}
    with pytest.raises(ApiError, match="login: HTTP 429"):
        await login.current()
    clock.advance(30)
    with pytest.raises(PausedError):
        await login.current()
    server.status = 200
    clock.advance(10)
    assert await login.current() == "t2"


async def test_a_body_that_cannot_be_read_any_more_is_an_error_until_it_is_back(
    made: Callable[..., Login], server: Server, tmp_path: Path
) -> None:
    login = made()
    (tmp_path / "body").rename(tmp_path / "moved")
    for _ in range(2):
        with pytest.raises(ApiError, match=r"runtime\.auth\.login\.body_file: .*/body: cannot be read: No such file"):
            await login.current()
    assert server.times == []
    (tmp_path / "moved").rename(tmp_path / "body")
    assert await login.current() == "t1"


@pytest.mark.parametrize("expires", ["soon", True, [], "NaN", "1e400"])
async def test_an_end_of_a_token_that_is_no_time_is_an_error(
    made: Callable[..., Login], server: Server, expires: Any
) -> None:
    server.more = {"expires": expires}
    with pytest.raises(ApiError, match=r"login: expected a time where runtime\.auth\.login\.expires points"):
        await made(expires="expires").current()


@pytest.mark.parametrize("lifetime", ["soon", True, [], "NaN", "1e400", 4e9, -4e9])
async def test_a_lifetime_that_is_no_number_of_seconds_is_an_error(
    made: Callable[..., Login], server: Server, lifetime: Any
) -> None:
    server.more = {"lifetime": lifetime}
    with pytest.raises(
        ApiError, match=r"login: expected a number of seconds where runtime\.auth\.login\.lifetime points"
    ):
        await made(lifetime="lifetime").current()


async def test_an_expression_that_does_not_fit_the_response_finds_no_token(made: Callable[..., Login]) -> None:
    with pytest.raises(ApiError, match=r"login: no token in the response at sum\(access_token\)"):
        await made(token="sum(access_token)").current()


@pytest.mark.parametrize(("length", "is_usable"), [(65_536, True), (65_537, False)])
async def test_a_token_has_a_greatest_length(
    made: Callable[..., Login], server: Server, length: int, is_usable: bool
) -> None:
    server.more = {"access_token": "x" * length}
    if is_usable:
        assert await made().current() == "x" * length
    else:
        with pytest.raises(ApiError, match="login: no token in the response at access_token"):
            await made().current()


def test_the_repr_of_a_login_tells_nothing(made: Callable[..., Login]) -> None:
    assert repr(made()) == "Login(***)"
