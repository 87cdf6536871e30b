"""What servers and the proxies in front of them do with HTTP and its connections, each over a real one.

Where a public report of the same kind exists, a comment names it.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator

import pytest
import trustme

from exporter.config import SyncConfig, TlsConfig
from exporter.runtime.connections import MAX_AGE
from tests.builders import Clock
from tests.faults.bench import Bench, bench, configured, two_projects, up
from tests.faults.server import Exchange, Fault, FaultyRuntime
from tests.metrics.test_exposition import Samples, value

CA = trustme.CA()

SWEEP = SyncConfig().sweep_interval

FIRST_SCRAPE = 7
"""Requests of the first scrape of two projects: health, plan, projects, and two lists of runs for each."""


def completed(found: Samples) -> float | None:
    return value(found, "spinner_run_records", run_id="run-1", state="completed")


# -- kept connections --------------------------------------------------------------------------------------


def behind(sent: bytes, *, status: int | None = None) -> Fault:
    """More than the response: behind each one, or behind those of one status."""

    async def fault(exchange: Exchange) -> None:
        await exchange.send(behind=sent if status in (None, exchange.response.status_code) else b"")

    return fault


SECOND = b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"items":[]}'


@pytest.mark.parametrize(
    "fault",
    [
        behind(SECOND),  # projectdiscovery/nuclei#7671
        behind(b"\r\n"),
        behind(b'{"items": []}', status=304),  # varnishcache/varnish-cache#1221
        behind(SECOND, status=304),
    ],
    ids=["a second response", "a line break", "a body of 304", "a second response to 304"],
)
@pytest.mark.parametrize("tls", [False, True])
async def test_what_follows_a_response_is_not_taken_for_the_next_one(fault: Fault, tls: bool) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA.issue_cert("localhost").configure_cert(context)
    with CA.cert_pem.tempfile() as ca_file:
        settings = {"runtime": configured(tls=TlsConfig(ca_file=ca_file)), "tls": context} if tls else {}
        async with bench(two_projects(Clock()), keeps=True, fault=fault, **settings) as made:
            for done in (5, 6, 6, 7):
                if done != 5:
                    made.runtime.put("run-1", records={"total": 10, "completed": done})
                before = made.faulty.requests
                found = await made.next(15)
                assert (up(found), completed(found)) == ((1, 1, 1), done)
                assert made.faulty.requests - before <= FIRST_SCRAPE, "a request was sent again"
    assert made.problems == []


async def test_a_kept_connection_without_anything_behind_its_responses_stays_in_use() -> None:
    async with bench(two_projects(Clock()), keeps=True) as made:
        for _ in range(4):
            await made.next(15)
    # As many as there are requests at the same time in the first scrape.
    assert made.faulty.connections <= FIRST_SCRAPE < made.faulty.requests // 2


async def test_a_408_for_a_connection_that_was_idle_is_no_answer() -> None:
    """A load balancer gives up an idle connection when a request is on its way (notroj/neon#128)."""

    async def give_up(exchange: Exchange) -> None:
        if exchange.number > 1:
            exchange.keeps = False
            await exchange.send(b"", status=408)
            exchange.writer.close()
        else:
            await exchange.send()

    async with bench(two_projects(Clock()), keeps=True, fault=give_up) as made:
        for _ in range(3):
            assert up(await made.next(15)) == (1, 1, 1)
    assert made.problems == []


NAMES = ("runtime.test", b"runtime.test", "runtime.test.", b"runtime.test.")


@contextlib.contextmanager
def names(monkeypatch: pytest.MonkeyPatch, addresses: list[str]) -> Iterator[str]:
    """A name that leads to the first of the addresses, also as a complete one, with a dot at its end."""
    loop = asyncio.get_running_loop()
    resolve = loop.getaddrinfo

    async def answer(host: object, *args: object, **kwargs: object) -> object:
        return await resolve(addresses[0] if host in NAMES else host, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "getaddrinfo", answer)
    yield "runtime.test"


@pytest.mark.parametrize("interval", [15, 60])
async def test_a_runtime_that_has_moved_is_followed_although_its_old_address_answers(
    monkeypatch: pytest.MonkeyPatch, interval: int
) -> None:
    """golang/go#23427: a connection that is in use is never idle, and a name is resolved for a new one only."""
    clock = Clock()
    old, new = (FaultyRuntime(two_projects(clock), keeps=True) for _ in range(2))
    new.runtime.put("run-1", records={"total": 10, "completed": 9})
    addresses = ["127.0.0.1", "127.0.0.2"]
    async with old.serving() as url, new.serving(host="127.0.0.2", port=int(url.rpartition(":")[2])):
        with names(monkeypatch, addresses) as name:
            made = Bench.reading(old, url.replace("localhost", name))
            assert completed(await made.next(interval)) == 5
            del addresses[0]
            for _ in range(int(MAX_AGE / interval)):
                await made.next(interval)
            requests = old.requests
            for _ in range(int(SWEEP / interval)):
                found = await made.next(interval)
            assert old.requests == requests
            assert completed(found) == 9
            await made.exporter.close()
    assert made.problems == []


@contextlib.asynccontextmanager
async def tunnelling(target: int) -> AsyncIterator[int]:
    """A proxy whose tunnels all lead to one port of this machine; yields its port."""

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65536):
                writer.write(chunk)
        writer.close()

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        from_target, to_target = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(forward(reader, to_target), forward(from_target, writer))

    async with await asyncio.start_server(tunnel, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("by_proxy", [False, True])
async def test_a_complete_name_is_verified_and_sent_without_its_dot(
    monkeypatch: pytest.MonkeyPatch, by_proxy: bool
) -> None:
    """encode/httpcore#1063: `https://runtime.test.` spares the name service its search, and no certificate has it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA.issue_cert("runtime.test").configure_cert(context)
    hosts = set()

    async def note(exchange: Exchange) -> None:
        hosts.add(exchange.request.headers["Host"])
        await exchange.send()

    faulty = FaultyRuntime(two_projects(Clock()), note)
    with CA.cert_pem.tempfile() as ca_file, names(monkeypatch, ["127.0.0.1"]) as name:
        async with faulty.serving(context) as url, tunnelling(int(url.rpartition(":")[2])) as proxy:
            settings = {"proxy": f"http://127.0.0.1:{proxy}"} if by_proxy else {}
            config = configured(tls=TlsConfig(ca_file=ca_file), **settings)
            made = Bench.reading(faulty, url.replace("localhost", f"{name}."), config)
            assert up(await made.next()) == (1, 1, 1), made.problems
            await made.exporter.close()
    assert hosts == {url.removeprefix("https://").replace("localhost", name)}


# -- responses ---------------------------------------------------------------------------------------------


def raw(head: bytes) -> Fault:
    """The correct body behind these lines; `@` is its length."""

    async def fault(exchange: Exchange) -> None:
        body = exchange.response.content
        exchange.writer.write(head.replace(b"@", str(len(body)).encode()) + body)
        await exchange.writer.drain()

    return fault


LENGTH = b"Content-Length: @\r\nConnection: close\r\n"
OK = b"HTTP/1.1 200 OK\r\n" + LENGTH


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 103 Early Hints\r\nLink: </x?cursor=9>; rel=next\r\n\r\n" + OK + b"\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + OK + b"\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200\r\n" + LENGTH + b"\r\n",
        (OK + b"\r\n").replace(b"\r\n", b"\n"),
        OK + b"Content-Length: @\r\n\r\n",
        OK + b"X-Name: J\xc3\xbcrgen \xe9\r\n\r\n",
        OK + b"X-Long: a\r\n  b\r\n\r\n",
        OK + b"Content-Security-Policy: " + b"x" * 90_000 + b"\r\n\r\n",
        OK + b"Set-Cookie: a=b\r\n" * 2000 + b"\r\n",
        OK + b"Content-Type: text/html\r\n\r\n",
        OK + b"Date: Mon, 24 Nov 2025 16:00:00 GMT\r\nDate: Mon, 24 Nov 2025 16:00:00 GMT\r\n\r\n",
    ],
    ids=[
        "early hints", "several answers before the last", "HTTP/1.0 without a length", "no reason", "line feeds",
        "two lengths", "no ASCII", "a folded line", "90 kB in a header", "2,000 cookies", "another type", "two dates",
    ],
)  # fmt: skip
async def test_an_unusual_but_valid_response_is_read(head: bytes) -> None:
    """snoyberg/http-client#521: an informational response was taken for the final one."""
    async with bench(two_projects(Clock()), fault=raw(head), path="/jobs") as made:
        for done in (6, 7):
            made.runtime.put("run-1", records={"total": 10, "completed": done})
            found = await made.next(125)
            assert (up(found), completed(found)) == ((1, 1, 1), done)
    assert made.problems == []


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n", "the response is not HTTP"),
        (b"\x15\x03\x01\x00\x02\x02\x46\r\n\r\n", "the response is not HTTP"),
        (OK + b"X-Space : a\r\n\r\n", "a header is invalid"),
        (OK + b"X-Large: " + b"x" * 200_000 + b"\r\n\r\n", "the headers are too large"),
        (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "the transfer encoding is not supported"),
        (OK + b"Content-Length: 7\r\n\r\n", "the length is contradictory"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "the chunked encoding is invalid"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", "the response is truncated"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", "the server switched protocols"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_the_log_says_why_a_response_is_none(head: bytes, reason: str) -> None:
    async with bench(two_projects(Clock()), fault=raw(head), path="/p1/jobs") as made:
        found = await made.next(15)
    assert up(found) == (1, 0, 1)
    assert len(made.problems) == 1
    assert f"no response ({reason})" in made.problems[0]


# -- what is not reached -----------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def answering(response: bytes) -> AsyncIterator[int]:
    """A server that sends the same to everybody; yields its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(response)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:1", "connection refused"),
        ("http://localhost:1", "connection refused"),
        ("http://[::1]:1", "connection refused"),
        ("http://no-such-host.invalid", "the name cannot be resolved: "),
    ],
)
async def test_the_log_says_why_there_is_no_connection(url: str, reason: str) -> None:
    """httpx has one text for all of it (searxng/searxng-docker#53)."""
    made = Bench.reading(FaultyRuntime(two_projects(Clock())), url)
    found = await made.next()
    await made.exporter.close()
    assert value(found, "spinner_api_up") == 0
    assert f"no response ({reason}" in made.problems[0]


@pytest.mark.parametrize("status", [407, 502, 503])
async def test_the_log_says_how_a_proxy_refused_a_tunnel(status: int) -> None:
    """cubewise-code/tm1py#531: only the status says that the proxy requires a password."""
    async with answering(f"HTTP/1.1 {status} cxg_secret\r\nContent-Length: 0\r\n\r\n".encode()) as port:
        config = configured(proxy=f"http://user:password@127.0.0.1:{port}")
        made = Bench.reading(FaultyRuntime(two_projects(Clock())), "https://runtime.test", config)
        await made.next()
        await made.exporter.close()
    assert f"no response (the proxy refused: HTTP {status})" in made.problems[0]
    assert "password" not in str(made.lines)
    assert "secret" not in str(made.lines)


# -- statuses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 425, 520, 521, 522, 523, 524, 529, 530])
async def test_a_status_that_passes_is_retried(status: int) -> None:
    """sindresorhus/got#991, PaddleHQ/paddle-python-sdk#157: 500 to 504 are not the only ones."""
    asked = 0

    async def twice(exchange: Exchange) -> None:
        nonlocal asked
        asked += 1
        await exchange.send(status=status if asked <= 2 else None)

    async with bench(two_projects(Clock()), fault=twice, path="/p1/jobs") as made:
        assert up(await made.next()) == (1, 1, 1)
    assert made.problems == []


async def test_a_runtime_that_its_delivery_network_cannot_reach_gets_one_request_per_scrape() -> None:
    async with bench(two_projects(Clock()), fault=lambda exchange: exchange.send(b"", status=521)) as made:
        made.runtime.projects |= {f"q{number}": f"Project {number}" for number in range(20)}
        for _ in range(3):
            await made.next()
        before = made.faulty.requests
        for _ in range(3):
            await made.next()
    assert made.faulty.requests - before == 3


@pytest.mark.parametrize("status", [501, 505, 511])
async def test_a_status_that_stays_is_not_retried(status: int) -> None:
    async with bench(
        two_projects(Clock()), fault=lambda exchange: exchange.send(b"", status=status), path="/usage"
    ) as made:
        await made.next()
    assert [request.url.path for request in made.runtime.requests].count("/api/v1/usage") == 1


async def test_a_server_that_is_busy_is_left_alone_for_as_long_as_it_says() -> None:
    """Not only 503 has Retry-After: delivery networks and APIs under load send it with other statuses."""
    async with bench(
        two_projects(Clock()), fault=lambda exchange: exchange.send(b"", status=529, headers={"Retry-After": "60"})
    ) as made:
        await made.next()
        before = made.faulty.requests
        await made.next(15)
        assert made.faulty.requests == before
        made.faulty.fault = None
        assert up(await made.next(60)) == (1, 1, 1)
