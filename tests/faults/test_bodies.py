"""Bodies that are compressed, or almost JSON, as servers send them: each read completely or an error, never a part."""

import gzip
import json
import random
import zlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from exporter.config.api_description import Resources
from tests.builders import Clock, resources
from tests.faults.bench import two_projects, up
from tests.faults.server import Exchange, FaultyRuntime
from tests.faults.test_transport import exporter, scrapes
from tests.metrics.test_exposition import Samples, value
from tests.scripted import ScriptedRuntime

# -- compression ----------------------------------------------------------------------------------------------------


def far_back(body: bytes) -> bytes:
    """A body whose end repeats what stands 30 kB before it: nearly as far as a compressor may refer."""
    blank = bytes(random.Random(1).choices(b" \n\t\r", k=30_000))
    return body + blank + blank


def members(body: bytes, count: int = 3) -> bytes:
    """A body as several gzip members in a row, as some proxies and `cat` write it."""
    size = -(-len(body) // count)
    return b"".join(gzip.compress(body[start : start + size]) for start in range(0, len(body), size))


def raw_deflate(body: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(body) + compressor.flush()


def stored(body: bytes) -> bytes:
    """Deflate without compression: its first bytes are not those of a zlib header, but nearly."""
    compressor = zlib.compressobj(level=0, wbits=-zlib.MAX_WBITS)
    return compressor.compress(body) + compressor.flush()


async def read(encoding: str, compress: Callable[[bytes], bytes]) -> tuple[Samples, list[Any]]:
    """Scrape a runtime that compresses the list of runs of project Sales."""
    clock = Clock()

    async def answer(exchange: Exchange) -> None:
        body = compress(exchange.response.content)
        await exchange.send(body, headers={"ETag": ""} | ({"Content-Encoding": encoding} if encoding else {}))

    runtime = two_projects(clock)
    for number in range(50):
        runtime.put(f"other-{number}")
    async with FaultyRuntime(runtime, fault=answer, path="/p1/jobs").serving() as url:
        made = exporter(url, clock)
        found, lines = await scrapes(made, clock)
        await made.close()
    return found, lines


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("X-GZip", gzip.compress),
        ("gzip, identity", gzip.compress),
        ("gzip", members),
        ("gzip", lambda body: members(body, len(body))),
        ("gzip", lambda body: gzip.compress(far_back(body))),
        ("deflate", lambda body: zlib.compress(far_back(body))),
        ("deflate", lambda body: raw_deflate(far_back(body))),
        ("gzip", lambda body: gzip.compress(b"") + gzip.compress(body) + gzip.compress(b"")),
        ("deflate", zlib.compress),
        ("deflate", lambda body: zlib.compress(body, level=0)),
        ("deflate", raw_deflate),
        ("deflate", stored),
        ("identity", bytes),
        ("", bytes),
    ],
)
async def test_a_compressed_body_is_read_whole(encoding: str, compress: Callable[[bytes], bytes]) -> None:
    found, lines = await read(encoding, compress)
    assert (up(found), lines) == ((1, 1, 1), [])
    assert value(found, "spinner_run_records", run_id="run-1", state="completed") == 5
    assert value(found, "spinner_run_status", run_id="other-49") == 1


@pytest.mark.parametrize(
    ("encoding", "compress", "reason"),
    [
        ("gzip", lambda body: gzip.compress(body) + b"<html>", "has trailing data after its gzip stream"),
        ("gzip", lambda body: gzip.compress(body) + b"\0", "has trailing data after its gzip stream"),
        ("gzip", lambda body: gzip.compress(body) + gzip.compress(body)[:9], "is truncated"),
        ("gzip", lambda body: members(body)[:-5], "is truncated"),
        ("gzip", lambda body: gzip.compress(body)[:-9] + b"\0" * 9, "is not valid gzip"),
        ("deflate", lambda body: zlib.compress(body) + b"x", "has trailing data after its deflate stream"),
        ("deflate", lambda body: raw_deflate(body) + b"x", "has trailing data after its deflate stream"),
        ("deflate", lambda body: zlib.compress(body)[:-6], "is truncated"),
        ("deflate", lambda body: raw_deflate(body)[:-6], "is truncated"),
        ("deflate", bytes, "is not valid deflate"),
        ("br", bytes, "encoding that was not requested: br"),
        ("zstd", bytes, "encoding that was not requested: zstd"),
        ("gzip", lambda body: gzip.compress(body) + gzip.compress(b"") * 1_000_000, "consists of empty gzip members"),
        ("gzip, deflate", lambda body: zlib.compress(gzip.compress(body)), "not requested: gzip, deflate"),
        ("'; DROP TABLE runs", bytes, "encoding that was not requested"),
    ],
)
async def test_a_body_that_is_not_whole_is_an_error(
    encoding: str, compress: Callable[[bytes], bytes], reason: str
) -> None:
    found, lines = await read(encoding, compress)
    assert up(found) == (1, 0, 1)
    assert len(lines) == 1, lines
    assert reason in lines[0]["error"]
    assert "DROP" not in str(lines)


BOMB = bytes(100_000_000)


@pytest.mark.parametrize(
    ("encoding", "bomb"),
    [
        ("gzip", lambda: gzip.compress(BOMB)),
        ("gzip", lambda: gzip.compress(bytes(1_000_000)) * 100),
        ("deflate", lambda: zlib.compress(BOMB)),
        ("deflate", lambda: raw_deflate(BOMB)),
        ("deflate", lambda: b"\0\0\0\xff\xff" * 12_000_000),
    ],
)
async def test_a_decompression_bomb_of_any_kind_is_an_error(encoding: str, bomb: Callable[[], bytes]) -> None:
    body = bomb()
    found, lines = await read(encoding, lambda _: body)
    assert up(found) == (1, 0, 1)
    assert "larger than limits.body_bytes" in str(lines)


# -- almost JSON ------------------------------------------------------------------------------------------------------

PATHS = ("/health", "/projects", "/p1/jobs", "/jobs/lost", "/records", "/usage")


def spoil(how: str, body: bytes) -> bytes:
    """Write the same document as some servers do."""
    match how:
        case "a byte order mark":
            return b"\xef\xbb\xbf" + body
        case "UTF-16":
            return body.decode().encode("utf-16")
    text = {
        "NaN": "NaN",
        "Infinity": "-Infinity",
        "1e400": "1e400",
        "a lone surrogate": '"a\\ud800b"',
    }[how]
    # At the beginning and in each item, as a field that nothing reads.
    spoilt = body.replace(b"{", b'{"load": @, ').replace(b", }", b"}")
    return spoilt.replace(b"@", text.encode())


def described(style: str) -> Resources:
    """The contract's API, as it is or described by fields of the same names."""
    contract = resources()
    if style == "contract":
        return contract
    fields: dict[str, Any] = {
        "health": {"runtime.status": "runtime.status", "runtime.lastHeartbeatAt": "runtime.lastHeartbeatAt"},
        "projects": {"id": "id", "name": "name"},
        "jobs": {
            name: name
            for name in ("id", "spinnerName", "status", "createdAt", "updatedAt", "records.completed", "records.failed")
        },
        "records": {"id": "id", "status": "status", "failedStep.name": "failedStep.name"},
        "usage": {"name": "name", "used": "used", "limit": "limit"},
    }
    changed = {name: msgspec.structs.replace(getattr(contract, name), fields=named) for name, named in fields.items()}
    return msgspec.structs.replace(contract, **changed)


@pytest.mark.parametrize("style", ["contract", "described"])
@pytest.mark.parametrize("how", ["a byte order mark", "UTF-16", "NaN", "Infinity", "1e400", "a lone surrogate"])
async def test_almost_json_is_read_alike_in_every_response(how: str, style: str) -> None:
    clock = Clock()
    runtime = two_projects(clock)
    runtime.put("lost", records={"total": 10, "completed": 1})
    runtime.put("failing", records={"total": 10, "completed": 1, "failed": 1})
    runtime.failed_records["failing"] = [{"id": "r1", "status": "failed", "failedStep": {"name": "Mail"}}]
    hide_lost = False
    spoilt: set[str] = set()

    async def answer(exchange: Exchange) -> None:
        document = exchange.document if exchange.response.content else {}
        path = exchange.request.url.path
        if hide_lost and path.endswith("/p1/jobs"):
            document["items"] = [item for item in document["items"] if item["id"] != "lost"]
        if path.endswith("/usage"):
            document["meters"] = [{"name": "spinners", "used": 3, "limit": 4}]
        spoilt.update(each for each in PATHS if each in path)
        await exchange.send(spoil(how, json.dumps(document).encode()), headers={"ETag": ""})

    async with FaultyRuntime(runtime, fault=answer).serving() as url:
        made = exporter(url, clock, resources=described(style))
        await scrapes(made, clock)
        hide_lost = True
        runtime.put("lost", records={"total": 10, "completed": 7})
        clock.advance(120)  # a sweep is due, which reads the run by its id
        found, lines = await scrapes(made, clock, times=1)
        await made.close()
    assert spoilt == set(PATHS)
    assert (up(found), lines) == ((1, 1, 1), [])
    assert value(found, "spinner_runtime_up") == 1
    assert value(found, "spinner_run_records", run_id="lost", state="completed") == 7
    assert value(found, "spinner_run_failed_record_info", run_id="failing", step="Mail") == 1
    assert value(found, "spinner_plan_used", meter="spinners") == 3


async def health(body: bytes) -> tuple[Samples, list[Any]]:
    clock = Clock()

    async def answer(exchange: Exchange) -> None:
        await exchange.send(body.replace(b"NOW", exchange.document["runtime"]["lastHeartbeatAt"].encode()))

    async with FaultyRuntime(ScriptedRuntime(clock), fault=answer, path="/health").serving() as url:
        made = exporter(url, clock)
        found, lines = await scrapes(made, clock, times=1)
        await made.close()
    return found, lines


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity"])
async def test_a_number_of_workers_that_is_none_is_unknown(number: bytes) -> None:
    found, lines = await health(
        b'{"status": "ok", "runtime": {"status": "up", "lastHeartbeatAt": "NOW", "workers": ' + number + b"}}"
    )
    assert (value(found, "spinner_api_up"), value(found, "spinner_runtime_up"), lines) == (1, 1, [])
    assert value(found, "spinner_runtime_workers") is None


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e400"])
@pytest.mark.parametrize("field", ["used", "limit"])
async def test_a_meter_with_a_number_that_is_none_is_skipped(field: str, number: bytes) -> None:
    clock = Clock()
    meters = [{"name": "spinners", "used": 3, "limit": 4}, {"name": "jobs_month", "used": 1, "limit": 2, field: "@"}]

    async def answer(exchange: Exchange) -> None:
        await exchange.send(json.dumps({"meters": meters}).encode().replace(b'"@"', number))

    async with FaultyRuntime(ScriptedRuntime(clock), fault=answer, path="/usage").serving() as url:
        made = exporter(url, clock)
        found, _ = await scrapes(made, clock, times=1)
        await made.close()
    assert value(found, "spinner_plan_used", meter="spinners") == 3
    assert value(found, "spinner_plan_used", meter="jobs_month") is None
    assert value(found, "spinner_exporter_invalid_items_total", kind="meter") == 1


@pytest.mark.parametrize("how", ["a byte order mark", "NaN", "a lone surrogate"])
async def test_the_code_of_an_error_is_read_from_almost_json_too(how: str) -> None:
    clock = Clock()

    async def refuse(exchange: Exchange) -> None:
        await exchange.send(spoil(how, b'{"errorCode": "PLAN_LIMIT"}'), status=403)

    async with FaultyRuntime(two_projects(clock), fault=refuse, path="/p1/jobs").serving() as url:
        made = exporter(url, clock)
        found, lines = await scrapes(made, clock, times=1)
        await made.close()
    assert up(found) == (1, 0, 1)
    assert "the plan is full (PLAN_LIMIT)" in str(lines)
