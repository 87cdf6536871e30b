"""The cost of a scrape: whole requests over a real connection, compared with other servers of the same bytes.

The runs are in the exporter's store already and change between two scrapes. `sync` measures the cost of reading them.
"""

import contextlib
import http.client
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import prometheus_client
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.generated import GeneratedRuns
from benchmarks.table import Row, mb, medians, ms
from exporter.metrics.catalogue import RUN_FAMILIES, RUN_LABELS
from exporter.metrics.exporter_metrics import ExporterMetrics
from exporter.metrics.exposition import Exposition
from exporter.metrics.formats import TEXT, Format
from exporter.metrics.page import PIECE, Fragment, MetricsPage
from exporter.service import Exporter
from exporter.web.app import PageResponse, create_app
from exporter.web.server import listen, serve
from tests.builders import RUNTIME
from tests.stack import programs
from tests.stack.programs import free_port, program

RUNS = 10_000
SIZES = (1_000, 10_000, 50_000)


def rows() -> list[Row]:
    """Measure everything about a scrape."""
    return [*_against_others(), _growth()]


def _against_others() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder, _exporter(RUNS) as ours, contextlib.ExitStack() as stack:
        ours.post("/advance")
        page = ours.body("/metrics")
        node = stack.enter_context(_node_exporter(Path(folder), page))
        gateway = stack.enter_context(_pushgateway(Path(folder), page))
        time_of = medians(
            {
                "ours": ours.timed("/metrics", advance=True),
                "constant": ours.timed("/constant"),
                "constant in pieces": ours.timed("/constant-in-pieces"),
                "gzip": ours.timed("/metrics", advance=True, encoding="gzip"),
                "client": ours.timed("/prometheus-client"),
                "node_exporter": node.timed("/metrics"),
                "pushgateway": gateway.timed("/metrics"),
            }
        )
        gzip_fragment = len(ours.body("/metrics", encoding="gzip"))
    what = f"GET /metrics, steady state, {RUNS:,} runs, {mb(len(page))}"
    mine = {"ours": ms(time_of["ours"])}
    constants = {name: time_of[name] for name in ("constant", "constant in pieces")}
    return [
        Row(what, "the same bytes as a constant from the same server", time_of["ours"] / time_of["constant"], 1.6,
            {**mine, **{name: ms(each) for name, each in constants.items()}}),
        Row("the same", "prometheus-client's generate_latest over the same samples",
            time_of["ours"] / time_of["client"], 1 / 25, {**mine, "prometheus-client": ms(time_of["client"])}),
        Row("the same", "node_exporter's textfile collector", time_of["ours"] / time_of["node_exporter"], 1 / 50,
            {**mine, "node_exporter": ms(time_of["node_exporter"])}),
        Row("the same", "pushgateway", time_of["ours"] / time_of["pushgateway"], 1 / 20,
            {**mine, "pushgateway": ms(time_of["pushgateway"])}),
        Row(f"the same with Accept-Encoding: gzip, {mb(gzip_fragment)}", "without", time_of["gzip"] / time_of["ours"], 1.5,
            {**mine, "gzip": ms(time_of["gzip"])}),
    ]  # fmt: skip


def _growth() -> Row:
    with contextlib.ExitStack() as stack:
        servers = {runs: stack.enter_context(_exporter(runs)) for runs in SIZES}
        time_of = medians({str(runs): server.timed("/metrics", advance=True) for runs, server in servers.items()})
    per_run = {runs: time_of[str(runs)] / runs for runs in SIZES}
    return Row(
        f"time per run, {SIZES[-1]:,} runs",
        f"{SIZES[0]:,} runs",
        per_run[SIZES[-1]] / per_run[SIZES[0]],
        1.0,
        {f"{runs:,}": f"{each * 1e6:.2f} µs" for runs, each in per_run.items()},
    )


class _Server:
    def __init__(self, port: int) -> None:
        self._port = port
        self._buffer = memoryview(bytearray(400_000_000))

    def timed(self, path: str, *, advance: bool = False, encoding: str = "identity") -> Callable[[], float]:
        """Return a function that measures a whole request, from sending it to the last byte."""

        def measure() -> float:
            if advance:
                self.post("/advance")
            started = time.perf_counter()
            self._get(path, encoding)
            return time.perf_counter() - started

        return measure

    def body(self, path: str, *, encoding: str = "identity") -> bytes:
        return bytes(self._buffer[: self._get(path, encoding)])

    def post(self, path: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        connection.request("POST", path)
        connection.getresponse().read()

    def _get(self, path: str, encoding: str) -> int:
        # A new connection for each request.
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        connection.request("GET", path, headers={"Accept-Encoding": encoding, "Accept": "text/plain"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"{path}: HTTP {answer.status}: {answer.read()[:500]!r}")
        size = 0
        # Read without joining, because what a client does with the page is not measured.
        while count := answer.readinto(self._buffer[size:]):
            size += count
        return size


@contextlib.contextmanager
def _exporter(runs: int) -> Iterator[_Server]:
    port = free_port()
    with _running([sys.executable, "-m", "benchmarks.scrape", str(runs), str(port)], port, "/constant") as server:
        yield server


@contextlib.contextmanager
def _node_exporter(folder: Path, page: bytes) -> Iterator[_Server]:
    (folder / "runs.prom").write_bytes(_without_own(page))
    port = free_port()
    command = [
        program("prometheus-node-exporter"), "--collector.disable-defaults", "--collector.textfile",
        f"--collector.textfile.directory={folder}", "--web.disable-exporter-metrics", "--log.level=error",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with _running(command, port, "/metrics") as server:
        yield server


@contextlib.contextmanager
def _pushgateway(folder: Path, page: bytes) -> Iterator[_Server]:
    port = free_port()
    command = [program("prometheus-pushgateway"), f"--web.listen-address=127.0.0.1:{port}", "--log.level=error",
               f"--persistence.file={folder / 'pushed'}"]  # fmt: skip
    with _running(command, port, "/-/ready") as server:
        gateway = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        gateway.request("PUT", "/metrics/job/spinner", _without_own(page))
        answer = gateway.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"pushgateway: HTTP {answer.status}: {answer.read()[:500]!r}")
        yield server


def _without_own(page: bytes) -> bytes:
    """Return the page without the metrics of the exporter's process, which the other servers have too."""
    return page[: page.index(b"# HELP process_")]


@contextlib.contextmanager
def _running(command: list[str], port: int, ready: str) -> Iterator[_Server]:
    with programs.running(command, f"http://127.0.0.1:{port}", Path(os.devnull), ready=ready, timeout=60):
        yield _Server(port)


class _FakeExporter:
    """An exporter with a generated store; everything after the store is real."""

    ready = True
    timeout_offset = 0.5

    def __init__(self, generated: GeneratedRuns) -> None:
        self.generated = generated
        self._exposition = Exposition(ExporterMetrics(version="0", wall=generated.clock))
        self.last: MetricsPage | None = None

    async def page(self, page_format: Format, *, max_wait: float) -> MetricsPage:
        self.last = await self._exposition.page({RUNTIME: self.generated.now()}, page_format)
        return self.last


class _Collector:
    """The same metrics, written with prometheus-client only."""

    def __init__(self, generated: GeneratedRuns) -> None:
        self._generated = generated

    def collect(self) -> Iterator[Metric]:
        now = self._generated.now()
        runs = list(self._generated.store.view.runs())
        for family in RUN_FAMILIES:
            metric = GaugeMetricFamily(family.name, family.help, labels=(*RUN_LABELS, *family.labels))
            for shown in runs:
                samples = family.samples(shown, now)
                values = (shown.project, shown.run.snapshot.spinner, shown.run.id)
                if isinstance(samples, int | float):
                    metric.add_metric(values, samples)
                elif isinstance(samples, tuple | list):
                    for more, value in samples:
                        metric.add_metric((*values, *more), value)
            yield metric


def _serve(runs: int, port: int) -> None:
    import asyncio

    generated = GeneratedRuns(runs)
    exporter = _FakeExporter(generated)
    registry = prometheus_client.CollectorRegistry()
    registry.register(cast("Any", _Collector(generated)))

    async def advance(request: Request) -> Response:
        generated.advance()
        return Response()

    async def constant(request: Request) -> Response:
        if exporter.last is None:
            await exporter.page(TEXT, max_wait=1)
        # Built once, because only sending them is measured.
        if not constants:
            body = bytes(cast("MetricsPage", exporter.last))
            pieces = [body[start : start + PIECE] for start in range(0, len(body), PIECE)]
            constants.update(body=body, pieces=pieces)
        return Response(constants["body"])

    async def in_pieces(request: Request) -> Response:
        await constant(request)
        return PageResponse(MetricsPage([Fragment(piece) for piece in constants["pieces"]]), {})

    async def library(request: Request) -> Response:
        return Response(generate_latest(registry))

    constants: dict[str, Any] = {}
    app = create_app(cast("Exporter", exporter))
    app.routes.extend(
        [
            Route("/advance", advance, methods=["POST"]),
            Route("/constant", constant),
            Route("/constant-in-pieces", in_pieces),
            Route("/prometheus-client", library),
        ]
    )
    assert isinstance(app, Starlette)
    asyncio.run(serve(app, listen(f"127.0.0.1:{port}")))


if __name__ == "__main__":
    _serve(int(sys.argv[1]), int(sys.argv[2]))
