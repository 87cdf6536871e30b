"""Browsers: headers of each response, and requests that somebody else's page sends."""

import base64
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.datastructures import Headers

from exporter.web.app import create_app
from exporter.web.browsers import is_from_another_site
from exporter.web.server import listen, running_server, url_of
from tests.builders import Clock
from tests.scripted import ScriptedRuntime, exporter_of


@contextlib.asynccontextmanager
async def serving(reloads: list[str]) -> AsyncIterator[httpx.AsyncClient]:
    runtime = ScriptedRuntime(Clock())
    runtime.put()
    exporter = exporter_of(runtime)

    async def reload() -> None:
        reloads.append("reloaded")

    listener = listen("127.0.0.1:0")
    async with (
        running_server(create_app(exporter, reload=reload), listener),
        httpx.AsyncClient(base_url=url_of(listener)) as client,
    ):
        yield client
    await exporter.close()


@pytest.mark.parametrize("path", ["/", "/metrics", "/sd", "/probe", "/-/healthy", "/-/ready", "/-/reload", "/nowhere"])
async def test_a_response_is_not_sniffed_framed_cached_or_used_by_other_sites(path: str) -> None:
    async with serving([]) as client:
        for method in ("GET", "POST"):
            headers = (await client.request(method, path)).headers
            assert headers.get_list("X-Content-Type-Options") == ["nosniff"]
            assert headers.get_list("X-Frame-Options") == ["DENY"]
            assert headers.get_list("Cache-Control") == ["no-store"]
            assert headers.get_list("Cross-Origin-Resource-Policy") == ["same-origin"]
            assert headers.get_list("Referrer-Policy") == ["no-referrer"]
            (policy,) = headers.get_list("Content-Security-Policy")
            for rule in ("default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"):
                assert rule in policy


async def test_the_landing_page_may_use_its_own_styles_and_nothing_else() -> None:
    async with serving([]) as client:
        answer = await client.get("/")
    (style,) = re.findall(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    allowed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    rules = answer.headers["Content-Security-Policy"].split("; ")
    assert f"style-src 'sha256-{allowed}'" in rules
    assert not [rule for rule in rules if "unsafe" in rule or "script" in rule]
    for loaded in ("<script", "<link", "<img", "style=", "onclick", "@import", "url("):
        assert loaded not in answer.text, f"the policy does not allow {loaded}"


HERE = "127.0.0.1:10095"


@pytest.mark.parametrize(
    ("headers", "is_refused"),
    [
        ({}, False),
        ({"Sec-Fetch-Site": "cross-site"}, True),
        ({"Sec-Fetch-Site": "same-site"}, True),
        ({"Sec-Fetch-Site": "same-origin"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Sec-Fetch-Site": "new"}, True),
        ({"Origin": "https://example.org"}, True),
        ({"Origin": "null"}, True),
        ({"Origin": "http://[broken"}, True),
        ({"Origin": ""}, True),
        ({"Origin": f"http://{HERE}"}, False),
        ({"Origin": f"https://{HERE}"}, False),  # TLS ends at a proxy
        ({"Origin": "http://127.0.0.1:8090"}, True),
        ({"Origin": f"http://{HERE}", "Sec-Fetch-Site": "cross-site"}, True),
        ({"Origin": "https://example.org", "Sec-Fetch-Site": "same-origin"}, True),
        # DNS rebinding: the browser believes that the page is from here.
        (
            {"Host": "rebound.test", "Origin": "http://rebound.test", "Sec-Fetch-Site": "same-origin"},
            True,
        ),
        ({"Host": "rebound.test", "Sec-Fetch-Site": "same-origin"}, True),
        ({"Host": "localhost:10095", "Origin": "http://localhost:10095"}, False),
        ({"Host": "[::1]:10095", "Origin": "http://[::1]:10095"}, False),
        ({"Host": "exporter.example.com"}, False),
    ],
)
def test_only_programs_and_pages_of_the_exporter_itself_are_obeyed(headers: dict[str, str], is_refused: bool) -> None:
    assert is_from_another_site(Headers({"Host": HERE, **headers})) == is_refused


async def test_a_page_of_another_site_cannot_reload() -> None:
    reloads: list[str] = []
    async with serving(reloads) as client:
        for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://example.org"}):
            assert (await client.post("/-/reload", headers=headers)).status_code == 403
        assert reloads == []
        assert (await client.post("/-/reload")).status_code == 200
        assert reloads == ["reloaded"]


@pytest.mark.parametrize("path", ["/-/reload/", "/metrics/", "/sd/", "//example.org/"])
async def test_no_path_redirects(path: str) -> None:
    async with serving([]) as client:
        for method in ("GET", "POST"):
            answer = await client.request(method, f"{client.base_url}{path}", headers={"Host": "example.org"})
            assert (answer.status_code, answer.headers.get("Location")) == (404, None)
