"""The routes: what scrapers, probes and browsers receive."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import structlog

from exporter.config import AuthConfig, LoginConfig
from exporter.errors import ConfigError, UnusableError
from exporter.metrics.formats import OPENMETRICS, TEXT, Format
from exporter.service import Exporter
from exporter.web.app import create_app
from tests.builders import RUNTIME, Clock
from tests.scripted import ScriptedRuntime, exporter_of
from tests.transport import FakeTransport


@asynccontextmanager
async def browser(exporter: Exporter, **options: object) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(exporter, **options)  # type: ignore[arg-type]
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://exporter.test") as client:
        yield client
    await exporter.close()


class SlowRuntime(ScriptedRuntime):
    """Responds to the request for projects when the test opens the gate."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.gate = asyncio.Event()

    def transport(self) -> FakeTransport:
        async def answer(request: httpx.Request) -> httpx.Response:
            if request.url.path == "/api/v1/projects":
                await self.gate.wait()
            return self._answer(request)

        return FakeTransport(answer)


@pytest.mark.parametrize(
    ("accept", "page_format"),
    [
        (None, TEXT),
        ("application/openmetrics-text;version=1.0.0", OPENMETRICS),
        ("application/openmetrics-text;version=x;q=y", TEXT),
    ],
)
async def test_metrics_have_the_requested_format(accept: str | None, page_format: Format) -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.put()
    async with browser(exporter_of(runtime)) as client:
        answer = await client.get("/metrics", headers={"Accept": accept} if accept else {})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == page_format.content_type
    assert ('run_id="run-1"' in answer.text, answer.text.endswith("# EOF\n")) == (True, page_format == OPENMETRICS)


@pytest.mark.parametrize(
    ("accepts", "compressed"), [("gzip", True), ("br, gzip;q=0.5", True), ("gzip;q=0", False), ("br", False)]
)
async def test_a_page_is_compressed_if_the_client_accepts_it(accepts: str, compressed: bool) -> None:
    async with browser(exporter_of(ScriptedRuntime(Clock()))) as client:
        request = client.build_request("GET", "/metrics", headers={"Accept-Encoding": accepts})
        answer = await client.send(request, stream=True)
        raw = b"".join([part async for part in answer.aiter_raw()])
    assert (answer.headers.get("Content-Encoding") == "gzip") is compressed
    assert b'spinner_api_up{runtime="runtime.test"} 1' in (gzip.decompress(raw) if compressed else raw)


async def test_head_is_supported_and_unknown_paths_and_methods_are_errors() -> None:
    async with browser(exporter_of(ScriptedRuntime(Clock()))) as client:
        assert (await client.head("/metrics")).status_code == 200
        assert (await client.get("/nowhere")).status_code == 404
        assert (await client.delete("/metrics")).status_code == 405


async def test_a_scrape_of_a_slow_runtime_ends_in_time_and_the_sync_continues() -> None:
    clock = Clock()
    runtime = SlowRuntime(clock)
    runtime.put()
    exporter = exporter_of(runtime)
    async with browser(exporter) as client:
        hurried = {"X-Prometheus-Scrape-Timeout-Seconds": "0.02"}
        first = await client.get("/metrics", headers=hurried)
        assert first.status_code == 200
        assert '\nspinner_api_up{runtime="runtime.test"} 0\n' in first.text
        runtime.gate.set()
        second = await client.get("/metrics")
        assert '\nspinner_api_up{runtime="runtime.test"} 1\n' in second.text
        assert 'run_id="run-1"' in second.text
        assert runtime.paths().count("/api/v1/projects") == 1, "the sync of the first scrape served the second"
        # And again, with data to fall back on.
        runtime.gate.clear()
        clock.advance(10)
        third = await client.get("/metrics", headers=hurried)
        assert '\nspinner_api_up{runtime="runtime.test"} 0\n' in third.text
        assert 'run_id="run-1"' in third.text, "the last good data are shown"
        runtime.gate.set()


async def test_overlapping_scrapes_and_one_soon_after_share_one_read() -> None:
    runtime = SlowRuntime(Clock())
    async with browser(exporter_of(runtime, sync={"min_interval": 5.0})) as client:
        scrapes = [asyncio.create_task(client.get("/metrics")) for _ in range(50)]
        await asyncio.sleep(0)
        runtime.gate.set()
        answers = await asyncio.gather(*scrapes)
        await client.get("/metrics")
    assert {answer.status_code for answer in answers} == {200}
    assert runtime.paths().count("/api/v1/projects") == 1


@pytest.mark.parametrize("header", ["", "abc", "-1", "nan", "inf", "0"])
async def test_an_invalid_timeout_is_ignored(header: str) -> None:
    async with browser(exporter_of(ScriptedRuntime(Clock()))) as client:
        answer = await client.get("/metrics", headers={"X-Prometheus-Scrape-Timeout-Seconds": header})
    assert '\nspinner_api_up{runtime="runtime.test"} 1\n' in answer.text


async def test_the_exporter_is_ready_from_its_first_successful_read_on() -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    runtime.interfere = lambda request: httpx.Response(500)
    async with browser(exporter_of(runtime)) as client:
        assert (await client.get("/-/healthy")).status_code == 200
        assert (await client.get("/-/ready")).status_code == 503
        runtime.interfere = lambda request: None
        clock.advance(10)
        assert (await client.get("/-/ready")).status_code == 200, "the probe itself must start a read"
        runtime.interfere = lambda request: httpx.Response(500)
        clock.advance(10)
        assert (await client.get("/-/ready")).status_code == 200


async def test_the_landing_page_shows_escaped_names_and_errors_of_projects() -> None:
    runtime = ScriptedRuntime(Clock())
    runtime.projects = {"p1": "<script>alert(1)</script>", "p2": "Support"}
    runtime.interfere = lambda request: httpx.Response(503) if "/p2/" in request.url.path else None
    async with browser(exporter_of(runtime)) as client:
        assert "None yet" in (await client.get("/")).text
        await client.get("/metrics")
        page = (await client.get("/")).text
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "jobs: HTTP 503" in page
    assert "never" in page


@pytest.mark.parametrize(
    "refuses", ["the list of projects", "one project", "the file", "the login", "the login's file"]
)
async def test_no_page_names_the_file_of_the_token(tmp_path: Path, refuses: str) -> None:
    clock, is_refused = Clock(), False
    runtime = ScriptedRuntime(clock)
    secret = tmp_path / "secret"
    secret.write_text("user=exporter&password=x" if "login" in refuses else "hunter2")

    def answer(request: httpx.Request) -> httpx.Response | None:
        if request.url.path == "/login":
            return httpx.Response(401) if is_refused else httpx.Response(200, json={"access_token": str(clock())})
        if is_refused and refuses in ("the list of projects", "the login", "the login's file"):
            return httpx.Response(401)
        return httpx.Response(403) if is_refused and "/p1/" in request.url.path else None

    runtime.interfere = answer
    login = AuthConfig(login=LoginConfig(path="/login", body_file=str(secret)))
    described = {"auth": login} if "login" in refuses else {"token_file": str(secret)}
    async with browser(exporter_of(runtime, described=described)) as client:
        await client.get("/metrics")
        is_refused = True
        if refuses in ("the file", "the login's file"):
            secret.unlink()
        clock.advance(10)
        with structlog.testing.capture_logs() as lines:
            metrics = (await client.get("/metrics")).text
        page = (await client.get("/")).text
    assert str(secret) in str(lines)
    assert str(tmp_path) not in page + metrics
    assert SAYS[refuses] in page


SAYS = {
    "the list of projects": "projects: HTTP 401: the token is missing, wrong or expired</td>",
    "one project": "jobs: HTTP 403: the token may not read this</td>",
    "the file": "the token cannot be used; the log says why</td>",
    "the login": "login: HTTP 401: refused</td>",
    "the login's file": "login: its body cannot be used; the log says why</td>",
}


async def test_reload_is_disabled_by_default_and_reports_an_invalid_config() -> None:
    runtime = ScriptedRuntime(Clock())
    async with browser(exporter_of(runtime)) as client:
        assert (await client.post("/-/reload")).status_code == 403
        assert (await client.get("/-/reload")).status_code == 405

    async def reload() -> None:
        raise ConfigError("exporter.yml: retention: expected a duration")

    async with browser(exporter_of(runtime), reload=reload) as client:
        refused = await client.post("/-/reload")
    assert (refused.status_code, "retention: expected a duration" in refused.text) == (500, True)

    async def reload_without_file() -> None:
        raise UnusableError("runtime.token_file: /run/secrets/token: cannot be read: No such file or directory")

    async with browser(exporter_of(runtime), reload=reload_without_file) as client:
        refused = await client.post("/-/reload")
    assert (refused.status_code, "the log says why" in refused.text) == (500, True)
    assert "/run/secrets" not in refused.text


async def test_a_reload_keeps_runs_and_counts_and_applies_the_new_settings() -> None:
    clock = Clock()
    runtime = ScriptedRuntime(clock)
    runtime.put(status="teleported")
    runtime.put("done", status="completed", endedAt=clock())
    exporter = exporter_of(runtime)
    await exporter.refresh()
    changed = exporter_of(runtime, statuses={"teleported": "waiting"}).runtimes[RUNTIME].config
    await exporter.reload({RUNTIME: changed})
    assert exporter.ready
    runtime.put(status="teleported")
    clock.advance(1)
    page = str(await exporter.page())
    assert 'run_id="run-1",status="waiting"} 1' in page
    assert (
        'spinner_runs_finished_total{runtime="runtime.test",project="Sales",spinner="welcome",status="completed"} 1'
        in page
    )
