"""Tokens from a login: renewed in time and after a 401, one login for all requests, and no secret anywhere."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from exporter.config import load
from exporter.errors import ConfigError
from exporter.runtime import login
from exporter.service import Exporter
from exporter.service.monitored_runtime import Dependencies
from tests.builders import Clock
from tests.command_line import run
from tests.connecting.server import NOW, serving

PASSWORD = "pass-0123456789"
LOGIN = {"path": "/auth/token", "token": "data.jwt", "lifetime": "data.valid_for"}


class Guarded:
    """An API that accepts the tokens of its logins only."""

    def __init__(self) -> None:
        self.logins: list[tuple[str, str]] = []
        """Media type and body of each."""
        self.valid = {"none"}
        self.answer: Any = None
        """What a login responds with instead of a token."""
        self.status = 201
        self.more: dict[str, Any] = {"valid_for": 600}
        self.refuses_jobs = False
        self.refusal = 401
        """The status of the responses that refuse."""
        self.seen: list[str] = []
        """The header of each request for runs that was accepted."""
        self.refused = 0
        self.slow = 0.0

    def app(self) -> Starlette:
        async def token(request: Request) -> Response:
            self.logins.append((request.headers["content-type"], (await request.body()).decode()))
            await asyncio.sleep(self.slow)
            if isinstance(self.answer, Response):
                return self.answer
            if self.answer is not None or self.status >= 400:
                return JSONResponse(self.answer or {"error": PASSWORD}, self.status)
            self.valid = {f"jwt-{len(self.logins)}"}
            return JSONResponse({"data": {"jwt": f"jwt-{len(self.logins)}", **self.more}}, self.status)

        async def listing(request: Request) -> Response:
            sent = request.headers.get("authorization", request.headers.get("x-session", ""))
            if sent.rpartition(" ")[2] not in self.valid or (self.refuses_jobs and request.url.path.endswith("runs")):
                self.refused += 1
                return JSONResponse({"error": sent}, self.refusal)
            self.seen.append(sent)
            items = [{"id": "a", "name": "A"}, {"id": "b", "name": "B"}] if "teams" in request.url.path else []
            return JSONResponse({"items": items})

        return Starlette(
            routes=[
                Route("/auth/token", token, methods=["POST"]),
                Route("/teams", listing),
                Route("/{team}/runs", listing),
            ]
        )


@pytest.fixture
def guarded() -> Guarded:
    return Guarded()


@pytest.fixture
def body_file(tmp_path: Path) -> Path:
    file = tmp_path / "login"
    file.write_text(json.dumps({"user": "exporter", "password": PASSWORD}) + "\n")
    return file


def config_of(folder: Path, url: str, **auth: Any) -> Path:
    auth = {"login": {**LOGIN, "body_file": str(folder / "login")}, **auth}
    resources = {
        "projects": {"path": "/teams"},
        "jobs": {"path": "/{project}/runs", "changed": None, "active": None},
        **dict.fromkeys(("health", "job", "records", "usage"), "absent"),
    }
    tree = {
        "runtime": {"base_url": url, "auth": auth, "resources": resources},
        "sync": {"min_interval": "0s", "projects_interval": "0s"},
    }
    (folder / "exporter.yml").write_text(yaml.safe_dump(tree))
    return folder / "exporter.yml"


@contextlib.asynccontextmanager
async def exporter(
    guarded: Guarded, folder: Path, clock: Clock, *, wall: float = NOW, **auth: Any
) -> AsyncIterator[Exporter]:
    with serving(guarded.app()) as url:
        made = Exporter(
            load(config_of(folder, url, **auth), environ={}).runtimes, Dependencies(wall=lambda: wall, monotonic=clock)
        )
        yield made
        await made.close()


def with_login(body_file: Path, **keys: Any) -> dict[str, Any]:
    return {"login": {**LOGIN, "body_file": str(body_file), **keys}}


async def test_one_login_serves_all_requests_until_its_token_is_about_to_expire(
    guarded: Guarded, tmp_path: Path, body_file: Path
) -> None:
    clock = Clock()
    async with exporter(guarded, tmp_path, clock) as made:
        assert await made.refresh()
        assert guarded.logins == [("application/json", body_file.read_text().strip())]
        clock.now += 600 - login.MARGIN - 1
        assert await made.refresh()
        assert len(guarded.logins) == 1
        clock.now += 2
        assert await made.refresh()
        assert len(guarded.logins) == 2
    assert guarded.refused == 0
    assert {*guarded.seen} == {"Bearer jwt-1", "Bearer jwt-2"}


@pytest.mark.parametrize(
    ("keys", "more", "lifetime"),
    [
        ({"lifetime": "5m"}, {}, 300.0),
        ({"lifetime": "data.valid_for"}, {"valid_for": "300"}, 300.0),
        ({"lifetime": None, "expires": "data.until"}, {"until": NOW + 300}, 300.0),
        ({"lifetime": None, "expires": "data.until"}, {"until": (NOW + 300) * 1000}, 300.0),
        ({"lifetime": None, "expires": "data.until"}, {"until": "2025-11-24T18:05:00+01:00"}, 300.0),
        ({"lifetime": "data.valid_for"}, {"valid_for": 10}, 10.0),
        ({"lifetime": "data.valid_for"}, {"valid_for": 0}, None),
        ({"lifetime": "data.valid_for"}, {"valid_for": None}, None),
        ({"lifetime": None, "expires": "data.until"}, {"until": None}, None),
        ({"lifetime": None}, {}, None),
    ],
)
async def test_a_lifetime_can_be_given_in_several_ways(
    guarded: Guarded, tmp_path: Path, body_file: Path, keys: dict[str, Any], more: Any, lifetime: float | None
) -> None:
    clock = Clock()
    guarded.more = more
    keys = {key: value for key, value in {**LOGIN, **keys, "body_file": str(body_file)}.items() if value is not None}
    async with exporter(guarded, tmp_path, clock, login=keys) as made:
        assert await made.refresh()
        for seconds, logins in ((lifetime or 1e6) * 0.75, 1), ((lifetime or 1e6) * 0.25, 1 if lifetime is None else 2):
            clock.now += seconds
            assert await made.refresh()
            assert len(guarded.logins) == logins
    assert guarded.refused == 0


@pytest.mark.parametrize("ahead", [-86400, 86400])
async def test_a_token_expires_by_the_clock_of_the_server(
    guarded: Guarded, tmp_path: Path, body_file: Path, ahead: float
) -> None:
    clock = Clock()
    guarded.more = {"until": NOW + 300}
    keys = {"path": "/auth/token", "body_file": str(body_file), "token": "data.jwt", "expires": "data.until"}
    async with exporter(guarded, tmp_path, clock, wall=NOW + ahead, login=keys) as made:
        assert await made.refresh()
        clock.now += 200
        assert await made.refresh()
        assert len(guarded.logins) == 1
        clock.now += 100
        assert await made.refresh()
        assert len(guarded.logins) == 2


async def test_after_a_401_one_login_serves_all_requests_that_wait(
    guarded: Guarded, tmp_path: Path, body_file: Path
) -> None:
    async with exporter(guarded, tmp_path, Clock()) as made:
        assert await made.refresh()
        guarded.valid, guarded.slow = set(), 0.1
        (monitored,) = made.runtimes.values()
        tokens = monitored.client._credentials.source
        found = await asyncio.gather(*(tokens.renewed("jwt-1") for _ in range(20)))
        assert found == ["jwt-2"] * 20
        assert await made.refresh()
    assert len(guarded.logins) == 2


async def test_a_session_that_ends_early_costs_one_request_and_one_login(
    guarded: Guarded, tmp_path: Path, body_file: Path
) -> None:
    async with exporter(guarded, tmp_path, Clock()) as made:
        assert await made.refresh()
        guarded.valid = set()
        assert await made.refresh()
    assert (len(guarded.logins), guarded.refused) == (2, 1)


async def test_a_resource_that_refuses_every_token_does_not_log_in_again_and_again(
    guarded: Guarded, tmp_path: Path, body_file: Path
) -> None:
    clock = Clock()
    guarded.refuses_jobs = True
    async with exporter(guarded, tmp_path, clock) as made:
        for _ in range(80):
            await made.refresh()
            clock.now += 15
    assert 2 < len(guarded.logins) < 12, "20 minutes"
    assert len(guarded.seen) == 80, "the list of projects is read in each scrape"


@pytest.mark.parametrize("status", [302, 400, 403, 404])
async def test_what_is_refused_for_another_reason_than_the_token_costs_no_login(
    guarded: Guarded, tmp_path: Path, body_file: Path, status: int
) -> None:
    guarded.refuses_jobs, guarded.refusal = True, status
    async with exporter(guarded, tmp_path, Clock()) as made:
        for _ in range(3):
            assert not await made.refresh()
    assert len(guarded.logins) == 1


@pytest.mark.parametrize(
    ("status", "answer", "says"),
    [
        (401, None, "login: HTTP 401: refused; check runtime.auth.login.body_file"),
        (404, None, "login: HTTP 404: not found"),
        (200, {"jwt": PASSWORD}, "login: no token in the response at data.jwt"),
        (200, {"data": {"jwt": "a\nb"}}, "login: the token has characters that a header cannot contain"),
        (200, {"data": {"jwt": "t", "valid_for": "soon"}}, "login: expected a number of seconds where"),
        (200, Response(f"<html>{PASSWORD}", 200), "login: the response is not JSON"),
    ],
)
async def test_logins_that_fail_are_repeated_ever_more_rarely_and_shown_without_secrets(
    guarded: Guarded, tmp_path: Path, body_file: Path, status: int, answer: Any, says: str
) -> None:
    clock = Clock()
    guarded.status, guarded.answer = status, answer
    async with exporter(guarded, tmp_path, clock) as made:
        with structlog.testing.capture_logs() as lines:
            for _ in range(80):
                page = str(await made.page())
                clock.now += 15
    assert says in str(lines)
    assert len(lines) <= 2, "one problem, and not one for each scrape"
    for text in (str(lines), page, repr(made), repr(made.runtimes)):
        assert PASSWORD not in text
    assert 3 < len(guarded.logins) < 9, "20 minutes"


async def test_a_login_that_is_refused_works_again_as_soon_as_its_file_changes(
    guarded: Guarded, tmp_path: Path, body_file: Path
) -> None:
    guarded.status = 401
    async with exporter(guarded, tmp_path, Clock()) as made:
        assert not await made.refresh()
        assert not await made.refresh()
        assert len(guarded.logins) == 1
        guarded.status = 200
        body_file.write_text("grant_type=client_credentials&client_secret=x%20y\n")
        os.utime(body_file, (1, 1))
        assert await made.refresh()
    assert guarded.logins[1:] == [
        ("application/x-www-form-urlencoded", "grant_type=client_credentials&client_secret=x%20y")
    ]


async def test_a_token_that_is_valid_stays_in_use_while_logins_fail(
    guarded: Guarded, tmp_path: Path, body_file: Path
) -> None:
    clock = Clock()
    async with exporter(guarded, tmp_path, clock) as made:
        assert await made.refresh()
        guarded.status = 403
        clock.now += 590
        assert await made.refresh()
        assert await made.refresh()
        assert len(guarded.logins) == 2
        clock.now += 11
        assert not await made.refresh()


async def test_a_redirect_of_a_login_is_not_followed(guarded: Guarded, tmp_path: Path, body_file: Path) -> None:
    other = Guarded()
    with serving(other.app()) as elsewhere:
        guarded.answer = RedirectResponse(f"{elsewhere}/auth/token", 307)
        async with exporter(guarded, tmp_path, Clock()) as made:
            assert not await made.refresh()
    assert len(guarded.logins) == 1
    assert other.logins == []


async def test_a_reload_logs_in_as_its_config_says(guarded: Guarded, tmp_path: Path, body_file: Path) -> None:
    (tmp_path / "other").write_text("user=other&password=x")
    async with exporter(guarded, tmp_path, Clock()) as made:
        assert await made.refresh()
        (config,) = made.runtimes.values()
        other = with_login(tmp_path / "other")
        file = config_of(tmp_path, config.config.runtime.base_url, **other, value="Session {token}")
        await made.reload(load(file, environ={}).runtimes)
        guarded.seen.clear()
        assert await made.refresh()
    assert guarded.logins[1:] == [("application/x-www-form-urlencoded", "user=other&password=x")]
    assert {*guarded.seen} == {"Session jwt-2"}


async def test_the_token_of_a_login_is_sent_as_auth_says(guarded: Guarded, tmp_path: Path, body_file: Path) -> None:
    async with exporter(
        guarded, tmp_path, Clock(), type="header", header="X-Session", value="id {token}", **with_login(body_file)
    ) as made:
        assert await made.refresh()
    assert {*guarded.seen} == {"id jwt-1"}


def test_a_login_goes_through_the_doctor(guarded: Guarded, tmp_path: Path, body_file: Path) -> None:
    with serving(guarded.app()) as url:
        ended = run("doctor", f"--config.file={config_of(tmp_path, url)}")
        assert "projects: 2 items" in ended.stdout
        guarded.status = 401
        ended = run("doctor", f"--config.file={config_of(tmp_path, url)}")
    assert "login: HTTP 401: refused" in ended.stdout
    assert PASSWORD not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("auth", "says"),
    [
        ({"value": "Token"}, "runtime.auth.value: expected one line of ASCII text that contains {token} once"),
        ({"value": "{token} {tokn}"}, "runtime.auth.value: expected one line"),
        ({"value": "a\n{token}"}, "runtime.auth.value: expected one line"),
        ({"value": "T {token}", "type": "basic", "username": "u"}, "runtime.auth.value: not allowed with type: basic"),
        ({"login": {"path": "/a"}}, "runtime.auth.login.body_file: is required"),
        ({"login": {"path": "a", "body_file": "b"}}, "runtime.auth.login.path: expected a path that begins with /"),
        ({"login": {"path": "/a", "body_file": "/nowhere"}}, "runtime.auth.login.body_file: /nowhere: cannot be read"),
        ({"login": {"path": "/a", "body_file": "BODY", "token": "a.["}}, "runtime.auth.login.token: invalid JMESPath"),
        ({"login": {"path": "/a", "body_file": "BODY", "lifetime": "5 minutes"}}, "runtime.auth.login.lifetime: "),
        ({"login": {"path": "/a", "body_file": "BODY", "lifetime": "0s"}}, "runtime.auth.login.lifetime: expected a"),
        (
            {"login": {"path": "/a", "body_file": "BODY", "lifetime": "a", "expires": "b"}},
            "runtime.auth.login.expires: not allowed together with lifetime",
        ),
        ({"login": {"path": "/a", "body_file": "BAD"}}, "expected a JSON document, or form data such as"),
        ({"login": {"path": "/a", "body_file": "HALF"}}, "expected a JSON document, or form data such as"),
    ],
)
def test_an_auth_that_cannot_work_is_one_line(tmp_path: Path, body_file: Path, auth: Any, says: str) -> None:
    (tmp_path / "bad").write_text(f"{PASSWORD} is the password")
    text = json.dumps(auth).replace("BODY", str(body_file)).replace("BAD", str(tmp_path / "bad"))
    (tmp_path / "half").write_text(f'{{"password": "{PASSWORD}"')
    text = text.replace("HALF", str(tmp_path / "half"))
    (tmp_path / "x.yml").write_text(f'{{"runtime": {{"base_url": "http://localhost", "auth": {text}}}}}')
    ended = run("check-config", str(tmp_path / "x.yml"))
    is_the_file = auth.get("login", {}).get("body_file") in ("/nowhere", "BAD", "HALF")
    assert (ended.returncode, ended.stderr.count("\n")) == (1 if is_the_file else 2, 1)
    assert says in ended.stderr
    assert PASSWORD not in ended.stderr


def test_a_login_and_a_token_exclude_each_other(tmp_path: Path, body_file: Path) -> None:
    file = config_of(tmp_path, "http://localhost")
    with pytest.raises(ConfigError, match=r"runtime\.auth\.login: not allowed together with a token or token_file"):
        load(file, environ={"SPINNER_EXPORTER_RUNTIME_TOKEN": "t"})
