"""The routes. Each handler reads top-down: parameters, deadline, work, response."""

import html
import math
import re
from collections.abc import Awaitable, Callable, Iterable
from importlib import resources
from string import Template

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from exporter import __version__
from exporter.errors import ConfigError, UnreadableError, UnusableError
from exporter.metrics.formats import Format
from exporter.metrics.page import MetricsPage
from exporter.service import MAX_WAIT, Exporter, ProbeTarget
from exporter.service.monitored_runtime import MonitoredRuntime
from exporter.web.browsers import is_from_another_site, policy_for
from exporter.web.negotiation import accepts_gzip, best_format

TIMEOUT_HEADER = "X-Prometheus-Scrape-Timeout-Seconds"

READY_MAX_WAIT = 0.5
"""Seconds that a readiness probe waits for the first sync: Kubernetes allows a probe one second by default."""


def create_app(exporter: Exporter, *, reload: Callable[[], Awaitable[None]] | None = None) -> Starlette:
    """Return the exporter's web application; without `reload` the lifecycle route responds with 403."""

    async def metrics(request: Request) -> Response:
        page_format = best_format(request.headers.get("Accept", ""))
        max_wait = _max_wait(request.headers.get(TIMEOUT_HEADER), exporter.timeout_offset)
        page = await exporter.page(page_format, max_wait=max_wait)
        return await _page_response(page, request, page_format)

    async def probe(request: Request) -> Response:
        runtime, project_id = (request.query_params.get(name, "") for name in ("runtime", "project"))
        if not project_id:
            return PlainTextResponse("Expected /probe?project=ID; /sd lists the projects.\n", status_code=400)
        if not runtime and len(exporter.runtimes) == 1:
            (runtime,) = exporter.runtimes
        if runtime not in exporter.runtimes:
            return PlainTextResponse("Unknown runtime.\n", status_code=404)
        page_format = best_format(request.headers.get("Accept", ""))
        max_wait = _max_wait(request.headers.get(TIMEOUT_HEADER), exporter.timeout_offset)
        try:
            page = await exporter.probe(runtime, project_id, page_format, max_wait=max_wait)
        except UnreadableError as error:
            return PlainTextResponse(f"{error}\n", status_code=503)
        if page is None:
            # Without the id: a response never repeats a part of its request.
            return PlainTextResponse("Unknown project, or the config excludes it.\n", status_code=404)
        return await _page_response(page, request, page_format)

    async def discovery(request: Request) -> Response:
        host = request.headers.get("Host", "")
        match = _HOST.fullmatch(host)
        if match is None:
            return PlainTextResponse(
                "Expected a valid Host header: it becomes the address of the targets.\n", status_code=400
            )
        try:
            targets = await exporter.projects()
        except UnreadableError as error:
            # After an error Prometheus keeps its targets.
            return PlainTextResponse(f"{error}\n", status_code=503)
        scheme = request.scope["scheme"]
        address = host if match[2] else f"{host}:{443 if scheme == 'https' else 80}"
        return JSONResponse([_target_group(target, address, scheme) for target in targets])

    async def healthy(request: Request) -> Response:
        return PlainTextResponse("spinner-exporter is healthy.\n")

    async def ready(request: Request) -> Response:
        if not exporter.ready:
            # Only requests start a read. Behind a load balancer, which sends no scrape before the exporter is ready, it
            # would never become ready otherwise.
            await exporter.refresh(READY_MAX_WAIT)
        if exporter.ready:
            return PlainTextResponse("spinner-exporter is ready.\n")
        return PlainTextResponse("The runtime's API has not been read yet.\n", status_code=503)

    async def landing(request: Request) -> Response:
        page = _landing(exporter)
        return HTMLResponse(page, headers={"Content-Security-Policy": policy_for(page)})

    async def lifecycle_reload(request: Request) -> Response:
        if reload is None:
            return PlainTextResponse(
                "The lifecycle API is disabled; --web.enable-lifecycle enables it.\n", status_code=403
            )
        if is_from_another_site(request.headers):
            return PlainTextResponse("Refused: a web page sent this request.\n", status_code=403)
        try:
            await reload()
        except UnusableError:
            # Its text names the file.
            reason = "what it names cannot be used; the log says why"
            return PlainTextResponse(f"Reload failed; keeping the previous config: {reason}\n", status_code=500)
        except ConfigError as error:
            return PlainTextResponse(f"Reload failed; keeping the previous config: {error}\n", status_code=500)
        return PlainTextResponse("Reloaded.\n")

    app = Starlette(
        routes=[
            Route("/", landing),
            Route("/metrics", metrics),
            Route("/probe", probe),
            Route("/sd", discovery),
            Route("/-/healthy", healthy),
            Route("/-/ready", ready),
            Route("/-/reload", lifecycle_reload, methods=["POST"]),
        ],
    )
    # `/-/reload/` is another path. A redirect would go to whatever host the request names.
    app.router.redirect_slashes = False
    return app


async def _page_response(page: MetricsPage, request: Request, page_format: Format) -> Response:
    headers = {"Content-Type": page_format.content_type, "Vary": "Accept, Accept-Encoding"}
    if accepts_gzip(request.headers.get("Accept-Encoding", "")):
        return Response(await page.gzip(), headers={**headers, "Content-Encoding": "gzip"})
    return PageResponse(page, headers)


_HOST = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:\d{1,5})?")
"""A Host header: a name or an address, and a port."""


def _target_group(target: ProbeTarget, address: str, scheme: str) -> dict[str, object]:
    """Return one project for Prometheus's HTTP service discovery; its target is the address of the request."""
    labels = {
        "__scheme__": scheme,
        "__metrics_path__": "/probe",
        "__param_runtime": target.runtime,
        "__param_project": target.project_id,
        "__meta_spinner_runtime": target.runtime,
        "__meta_spinner_project": target.name,
        "__meta_spinner_project_id": target.project_id,
    }
    return {"targets": [address], "labels": labels}


class PageResponse(Response):
    """Sends a page in pieces, since joining all of them would take as long as sending them."""

    def __init__(self, page: MetricsPage, headers: dict[str, str]) -> None:
        super().__init__(headers={**headers, "Content-Length": str(page.size)})
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the page."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for piece in self._page.pieces():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _max_wait(timeout: str | None, offset: float) -> float:
    """Return how many seconds a scrape waits for a sync: Prometheus's timeout less the offset, at least half of it."""
    try:
        seconds = float(timeout or "")
    except ValueError:
        return MAX_WAIT
    if not math.isfinite(seconds) or seconds <= 0:
        return MAX_WAIT
    return max(seconds - offset, seconds / 2)


def _landing(exporter: Exporter) -> str:
    rows = [row for name, monitored in exporter.runtimes.items() for row in _rows(name, monitored)]
    urls = [html.escape(monitored.config.runtime.base_url) for monitored in exporter.runtimes.values()]
    page = Template(resources.files(__package__).joinpath("landing.html").read_text(encoding="utf-8"))
    nothing = '<tr><td colspan="6">None yet: the first scrape of <a href="metrics">metrics</a> reads them.</td></tr>'
    return page.substitute(
        version=html.escape(__version__),
        runtimes=", ".join(f"<code>{url}</code>" for url in urls),
        rows="\n".join(rows) or nothing,
    )


def _rows(runtime: str, monitored: MonitoredRuntime) -> Iterable[str]:
    """Yield a row of the landing page for each project of a runtime."""
    for project in sorted(monitored.store.view.projects(), key=lambda project: project.name):
        age = monitored.store.view.seconds_since_read(project)
        still_open = sum(not held.run.ended for held in project.runs.values())
        cells = (
            ("", runtime),
            ("", project.name),
            ("age", "never" if age is None else f"{age:.0f} s ago"),
            ("count", str(still_open)),
            ("count", str(len(project.runs) - still_open)),
            ("error", project.error or ""),
        )
        state = "failing" if project.error else "fine"
        shown = (f'<td class="{kind}">{html.escape(cell)}</td>' for kind, cell in cells)
        yield f'<tr class="{state}">' + "".join(shown) + "</tr>"
