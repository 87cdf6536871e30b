"""A double of Temporal's HTTP API: not Temporal, but answers in exactly its shape.

The shape is that of openapi/openapiv3.yaml and temporal/api/workflow/v1/message.proto of github.com/temporalio/api
(commit 004f9c2a), as proto3 JSON: enums are strings, 64-bit numbers too, times have nanoseconds, bytes are base64, and
what is empty is left out. An unknown query is refused, so that nothing passes because a filter was ignored.
"""

import base64
import re
from datetime import UTC, datetime
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

PREFIX = "WORKFLOW_EXECUTION_STATUS_"


class Temporal:
    """Namespaces with workflow executions."""

    def __init__(self, *namespaces: str) -> None:
        self.namespaces: dict[str, list[dict[str, Any]]] = {each: [] for each in ("temporal-system", *namespaces)}
        self.queries: list[str] = []
        """Of each request for a list of executions."""
        self.page_size = 1000
        """At most so many items on a page, however many are requested."""
        self.instead: Any = None
        """What every list of executions answers, with status 200."""

    def put(self, namespace: str, run_id: str, type_: str, status: str, start: float, **more: Any) -> None:
        """Add an execution, or replace it; `close` is when it ended, `parent` the run that started it."""
        close, parent, schedule = (more.pop(key, None) for key in ("close", "parent", "schedule"))
        execution = {
            "execution": {"workflowId": f"{type_}/{run_id}", "runId": run_id},
            "type": {"name": type_},
            "startTime": time(start),
            "closeTime": None if close is None else time(close),
            "status": status,
            "historyLength": "11",
            "executionTime": time(start),
            "parentExecution": None if parent is None else {"workflowId": "w", "runId": parent},
            "memo": {},
            "searchAttributes": None if schedule is None else {"indexedFields": {"TemporalScheduledById": _payload()}},
            "taskQueue": "queue",
            "stateTransitionCount": "7",
            **more,
        }
        runs = self.namespaces[namespace]
        runs[:] = [each for each in runs if each["execution"]["runId"] != run_id]
        runs.append({key: value for key, value in execution.items() if value is not None})

    def app(self) -> Starlette:
        async def namespaces(request: Request) -> Response:
            items = [
                {
                    "namespaceInfo": {"name": name, "state": "NAMESPACE_STATE_REGISTERED", "id": f"id of {name}"},
                    "config": {"workflowExecutionRetentionTtl": "259200s"},
                    "replicationConfig": {"activeClusterName": "active", "clusters": [{"clusterName": "active"}]},
                }
                for name in self.namespaces
            ]
            return self._page(request, "namespaces", items)

        async def workflows(request: Request) -> Response:
            query = request.query_params.get("query", "")
            self.queries.append(query)
            if self.instead is not None:
                return JSONResponse(self.instead)
            runs = self.namespaces.get(request.path_params["namespace"])
            if runs is None:
                return _error(404, 5, "Namespace is not found.")
            try:
                return self._page(request, "executions", [each for each in runs if _matches(each, query)])
            except ValueError:
                return _error(400, 3, f"invalid query: {query}")

        return Starlette(
            routes=[
                Route("/api/v1/namespaces", namespaces),
                Route("/api/v1/namespaces/{namespace}/workflows", workflows),
            ]
        )

    def _page(self, request: Request, key: str, items: list[dict[str, Any]]) -> Response:
        first = int(base64.b64decode(request.query_params.get("nextPageToken", "")) or 0)
        after = first + min(int(request.query_params.get("pageSize", 1000)), self.page_size)
        page: dict[str, Any] = {key: items[first:after]} if items[first:after] else {}
        if after < len(items):
            page["nextPageToken"] = base64.b64encode(str(after).encode()).decode()
        return JSONResponse(page)


def _matches(execution: dict[str, Any], query: str) -> bool:
    """Whether an execution fits one of the queries that are known here. Raises `ValueError` for another one."""
    if found := re.fullmatch(r'ExecutionStatus = "(\w+)"', query):
        status = str(execution["status"]).removeprefix(PREFIX).replace("_", "")
        return status.lower() == found[1].lower()
    if found := re.fullmatch(r'CloseTime > "([^"]+)"', query):
        since = datetime.fromisoformat(found[1])
        return "closeTime" in execution and datetime.fromisoformat(execution["closeTime"]) > since
    if found := re.fullmatch(r'RunId = "([^"]+)"', query):
        return bool(execution["execution"]["runId"] == found[1])
    raise ValueError(query)


def time(seconds: float) -> str:
    """Return a time as proto3 JSON has it, with nanoseconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "485Z"


def _payload() -> dict[str, Any]:
    encoded = {"encoding": base64.b64encode(b"json/plain").decode()}
    return {"metadata": encoded, "data": base64.b64encode(b'"nightly"').decode()}


def _error(status: int, code: int, message: str) -> Response:
    return JSONResponse({"code": code, "message": message, "details": []}, status_code=status)
