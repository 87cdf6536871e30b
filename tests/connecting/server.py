"""A runtime whose API differs from the contract in everything but its concepts; docs/connecting.md describes it.

A fake for deployments that tests cannot use; its data is made up.
"""

import contextlib
import threading
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.stack.programs import free_port, until

TOKEN = "key-0123456789"
EPOCH = 1_764_000_000
"""2025-11-24T16:00:00Z, 17:00 in Berlin."""

NOW = EPOCH + 3600
"""Its time, which does not advance."""


class OddRuntime:
    """Its state, which tests change, and the requests that it received."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, Any]] = []
        self.fails_from_page: int | None = None
        """The number of the first page of runs, from 0, that responds with 403; None: no page fails."""
        self.next_link: str | None = None
        """What the list of runs has as the key `next`."""
        self.workspaces = [{"key": f"w{n}", "title": f"Workspace {n}"} for n in range(1, 6)]
        self.executions = [
            execution(1, "RUN"),
            execution(2, "HUMAN"),
            execution(3, "WAIT", begun=None),
            execution(4, "OK", took="0:10:00"),
            execution(5, "NOK", begun="2025-11-23T17:00:10", took="1 day, 0:00:30.5"),
        ]
        self.contacts: dict[str, list[dict[str, Any]]] = {
            "e/1": [
                contact(1, "fine", done="2025-11-24T16:05:00Z"),
                contact(2, "broken", done="2025-11-24T16:06:00+00:00", broke={"at": "Send", "why": "TIMEOUT"}),
                contact(3, "moving"),
                contact(4, "asked"),
                contact(5, "open"),
            ],
            "e/2": [contact(6, "asked")],
            "e/3": [contact(7, "open")],
            "e/4": [contact(8, "fine", done="2025-11-24T16:10:00Z")],
            "e/5": [contact(9, "broken", done="2025-11-24T16:30:00Z", broke={"at": "Call", "why": "BUSY"})],
        }

    def app(self) -> Starlette:
        async def status(request: Request) -> Response:
            self._note(request, None)
            return JSONResponse({"worker": {"alive": True, "beat": NOW - 5, "count": 3}})

        async def workspaces(request: Request) -> Response:
            self._note(request, None)
            page, size = int(request.query_params["page"]), int(request.query_params["per_page"])
            return JSONResponse({"workspaces": self.workspaces[(page - 1) * size : page * size]})

        async def search(request: Request) -> Response:
            body = await request.json()
            self._note(request, body)
            found = self.executions if body["workspace"] == "w1" else []
            states = body["filter"].get("states")
            found = [each for each in found if states is None or each["state"] in states]
            after = body["filter"].get("touchedAfter", 0)
            assert isinstance(after, int), "since is a number of milliseconds"
            found = [each for each in found if each["t"]["touched"] * 1000 >= after]
            page = body.get("page", {"skip": 0, "take": 2})
            if self.fails_from_page is not None and page["skip"] >= 2 * self.fails_from_page:
                return Response(status_code=403)
            rows = found[page["skip"] : page["skip"] + page["take"]]
            return JSONResponse({"result": {"rows": rows}, "next": self.next_link})

        async def one(request: Request) -> Response:
            self._note(request, None)
            found = [each for each in self.executions if each["uid"] == _id(request, "uid")]
            if not found or _id(request, "shard") != "s/1":
                return Response(status_code=404)
            return JSONResponse({"execution": found[0]})

        async def contacts(request: Request) -> Response:
            self._note(request, None)
            assert _id(request, "shard") == "s/1"
            records = self.contacts[_id(request, "uid")]
            start = int(request.query_params.get("from", 0))
            headers = {}
            if start + 2 < len(records):
                headers["Link"] = f'<https://elsewhere.example.com/?from={start + 2}&region=eu>; rel="next"'
            return JSONResponse(records[start : start + 2], headers=headers)

        return Starlette(
            routes=[
                Route("/automation/status", status),
                Route("/automation/workspaces", workspaces),
                Route("/automation/executions/search", search, methods=["POST"]),
                Route("/automation/executions/{shard}/{uid}", one),
                Route("/automation/executions/{shard}/{uid}/contacts", contacts),
            ]
        )

    def _note(self, request: Request, body: Any) -> None:
        assert request.headers["x-api-key"] == TOKEN, "the header contains the token and nothing else"
        assert request.headers["x-tenant"] == "acme"
        assert request.query_params["region"] == "eu"
        self.requests.append((request.url.path, body))


def _id(request: Request, name: str) -> str:
    text: str = request.path_params[name]
    return text.replace("\N{DIVISION SLASH}", "/")


def execution(number: int, state: str, *, begun: str | None = "2025-11-24T17:00:10", took: str | None = None) -> Any:
    """One run; `begun` is local time in Berlin."""
    return {
        "uid": f"e/{number}",
        "flow": {"title": f"Flow {number}"},
        "state": state,
        "shard": "s/1",
        "t": {"queued": EPOCH * 1000, "begun": begun, "took": took, "touched": EPOCH + 60 * number},
    }


def contact(number: int, phase: str, **more: Any) -> dict[str, Any]:
    return {"number": number, "phase": phase, **more}


@contextlib.contextmanager
def serving(app: Starlette) -> Iterator[str]:
    """Serve an application on a free port; yields its URL."""
    port = free_port()
    config = uvicorn.Config(_Encoded(app), port=port, log_config=None, headers=[("Date", formatdate(NOW, usegmt=True))])
    config.date_header = False
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        until(lambda: server.started, "the server listens")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


class _Encoded:
    """Routes requests by the raw path, in which the slash of an id is still encoded."""

    def __init__(self, app: Starlette) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope["path"] = scope["raw_path"].decode().replace("%2F", "\N{DIVISION SLASH}")
        await self._app(scope, receive, send)
