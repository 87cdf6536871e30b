"""Reads an OpenAPI document, and finds the exporter's resources in it by the names of paths and parameters."""

import asyncio
import contextlib
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

from exporter.config import strict
from exporter.config.files import UnreadableFileError, read_bytes
from exporter.config.values import canonical_url, is_header_name, split_url
from exporter.doctor.guesses import DEPTH, SuggestError, fields_of, fold, values_in
from exporter.runtime.almost_json import document
from exporter.runtime.body import BodyError, TooLargeError, read_body
from exporter.runtime.connection_errors import reason_of
from exporter.runtime.proxies import proxy_from_environment


async def read_openapi(location: str) -> Any:
    """Return the OpenAPI document at a URL or in a file. Raises `SuggestError`."""
    is_url = location.startswith(("http://", "https://"))
    # A URL can have a token in its query.
    where = _without_secrets(location) if is_url else location
    try:
        if is_url:
            async with asyncio.timeout(READ_TIMEOUT):
                content = await _get(location)
        else:
            content = await asyncio.to_thread(read_bytes, Path(location), limit=MAX_OPENAPI, what="a document")
        return _parsed(content)
    except _UnusableUrlError:
        raise SuggestError(f"{where}: not requested (the URL, or that of its proxy, is not valid)") from None
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        raise SuggestError(f"{where}: no response ({reason_of(error)})") from None
    except UnreadableFileError as error:
        raise SuggestError(f"{where}: cannot be read: {error}") from None
    except (BodyError, _UnusableDocumentError) as error:
        raise SuggestError(f"{where}: {error}") from None


MAX_OPENAPI = 1 << 26
"""Bytes of a file with an OpenAPI document."""

READ_TIMEOUT = 60.0
"""Seconds in which a document must have been read."""

MAX_YAML = 4_000_000
"""Characters of a document in YAML, which is read slowly; a longer one must be JSON."""

MAX_VALUES = 500_000
"""Values of a document in YAML, after its aliases are expanded."""


class _UnusableUrlError(Exception):
    """The URL, or that of its proxy, is not one."""


class _UnusableDocumentError(Exception):
    """What was read is no document. The text is the reason."""


def _parsed(content: bytes) -> Any:
    with contextlib.suppress(msgspec.MsgspecError, ValueError, RecursionError):
        return document(content)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise _UnusableDocumentError("neither JSON nor YAML") from None
    if len(text) > MAX_YAML:
        raise _UnusableDocumentError(f"not JSON, and more than {MAX_YAML:,} characters; convert it to JSON")
    try:
        return strict.parse(text, most=MAX_VALUES, unique_keys=False)
    except strict.NotYamlError as error:
        raise _UnusableDocumentError(f"neither JSON nor YAML: {error}") from None


async def _get(url: str) -> bytes:
    try:
        # `trust_env` would read NO_PROXY in another way than the exporter.
        proxy = proxy_from_environment(url)
        client = httpx.AsyncClient(
            timeout=30, proxy=proxy, verify=await asyncio.to_thread(ssl.create_default_context), trust_env=False
        )
    except (ValueError, ImportError):
        raise _UnusableUrlError from None
    # Without the token: the document may be on another host.
    async with client, client.stream("GET", url, headers={"Accept-Encoding": "gzip"}) as response:
        if response.status_code != 200:
            raise _UnusableDocumentError(f"HTTP {response.status_code}")
        try:
            return await read_body(response, MAX_OPENAPI)
        except TooLargeError:
            raise _UnusableDocumentError(f"more than {MAX_OPENAPI:,} bytes") from None


def _without_secrets(url: str) -> str:
    try:
        return canonical_url(url)
    except ValueError:
        return "the URL of --openapi"


class OpenApi:
    """A document of version 3. Its methods raise `SuggestError`, or what a part that is not as expected causes."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._steps = 0

    def base_url(self, given: str | None, location: str) -> str:
        """Return the base URL: the given one, with the path of the document's server if it has none itself."""
        servers = self._document.get("servers")
        server = self._resolved(servers[0]) if isinstance(servers, list) and servers else {}
        url = str(server.get("url") or "")
        for name, variable in (server.get("variables") or {}).items():
            url = url.replace(f"{{{name}}}", str(variable.get("default", "")))
        try:
            parts = urlsplit(url)
            origin = urlsplit(location) if location.startswith(("http://", "https://")) else None
            base = given or (f"{parts.scheme}://{parts.netloc}" if parts.scheme in ("http", "https") else None)
            if base is None:
                base = (
                    f"{origin.scheme}://{origin.netloc.rpartition('@')[2]}" if origin else "https://runtime.example.com"
                )
            path = "" if urlsplit(base).path.strip("/") else parts.path.rstrip("/")
            made = base.rstrip("/") + (f"/{path.lstrip('/')}" if path else "")
            split_url(made)
        except ValueError:
            return given or "https://runtime.example.com"
        return made

    def security(self) -> dict[str, str] | None:
        """Return how the token is sent, empty for a bearer token; None if the API knows none."""
        schemes = (self._document.get("components") or {}).get("securitySchemes") or {}
        required = [name for each in self._document.get("security") or () for name in each]
        for name in [*required, *schemes]:
            scheme = self._resolved(schemes.get(name))
            kind, place, key = scheme.get("type"), scheme.get("in"), str(scheme.get("name", ""))
            if kind == "apiKey" and place == "header" and is_header_name(key):
                return {"type": "header", "header": key}
            if kind == "apiKey" and place == "cookie" and is_header_name(key):
                return {"type": "header", "header": "Cookie", "value": f"{key}={{token}}"}
            if kind == "http" and str(scheme.get("scheme")).lower() == "basic":
                return {"type": "basic", "username": "exporter"}
            if kind in ("http", "oauth2", "openIdConnect"):
                return {}
        return {} if schemes else None

    def find(self, resource: str) -> dict[str, Any] | None:
        """Return the description of the most likely path of a resource."""
        found = []
        for path, method, operation in self._operations():
            pieces = [piece for piece in path.split("/") if piece]
            searches = bool(pieces) and fold(pieces[-1]) in ("filter", "search", "query", "list")
            last = pieces[-2] if searches and len(pieces) > 1 else pieces[-1] if pieces else ""
            if fold(last) not in NOUNS[resource] or (method == "POST") != (searches and fold(pieces[-1]) != "list"):
                continue
            # Nothing says what else a path needs.
            if "{" in path and resource in ("health", "projects", "usage"):
                continue
            # Prefer what looks like executions of something, then the first noun of the list, then the list of one
            # project or of one run, then the shortest path.
            is_wide = resource in ("jobs", "records") and "{" not in path
            unlike = self._unlike_runs(operation) if resource == "jobs" else 0
            found.append((unlike, NOUNS[resource].index(fold(last)), is_wide, len(pieces), path, method, operation))
        if not found:
            return None
        *_, path, method, operation = min(found, key=lambda each: each[:5])
        return self._described(resource, path, method, operation)

    def _unlike_runs(self, operation: dict[str, Any]) -> int:
        """Return how much a list does not look like one of executions of something; 0 if nothing is known."""
        _, schema = self._list(self._schema(operation))
        example = self._example(schema)
        names = {fold(path.rpartition(".")[2]) for path, _ in values_in(example)}
        if not names:
            return 0
        fields = fields_of("jobs", [example])
        told = ("status" in fields) + ("startedAt" in fields or "createdAt" in fields) + ("endedAt" in fields)
        return 3 - told + 2 * len(names & HOUSEKEEPING)

    def one_run(self) -> dict[str, Any] | None:
        """Return the description of one run: a path that ends in a noun for runs and an id; None without one."""
        for path, method, operation in self._operations():
            pieces = path.split("/")
            if method == "GET" and len(pieces) > 2 and pieces[-1].startswith("{") and fold(pieces[-2]) in NOUNS["jobs"]:
                return {"path": self._path("job", path), **self._item_path(self._schema(operation))}
        return None

    def _described(self, resource: str, path: str, method: str, operation: dict[str, Any]) -> dict[str, Any]:
        schema = self._schema(operation)
        described: dict[str, Any] = {"path": self._path(resource, path)}
        if method == "POST":
            described["method"] = "POST"
        names = self._parameters(operation, method)
        if resource == "health":
            described["fields"] = fields_of(resource, [self._example(schema)])
            return described
        place, item = self._list(schema)
        described["items"] = place
        described |= self._paging(names, schema)
        if resource == "jobs":
            since = next((name for name in names if fold(name) in _SINCE), None)
            described["changed"] = {"query": {since: "{since}"}} if since and method == "GET" else None
            active = next((name for name in names if fold(name) == "active"), None)
            described["active"] = {"query": {active: "true"}} if active and method == "GET" else None
        if resource == "records":
            status = next((name for name in names if fold(name) in ("status", "state")), None)
            described["failed"] = {"query": {status: "failed"}} if status and method == "GET" else None
        described["fields"] = fields_of(resource, [self._example(item)])
        return described

    def _operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        for path, item in self._document["paths"].items():
            for method in ("get", "post"):
                operation = self._resolved(item).get(method) if isinstance(item, dict) else None
                if isinstance(operation, dict):
                    shared = item.get("parameters", [])
                    self._step(len(shared) + len(operation.get("parameters", [])))
                    yield (
                        str(path),
                        method.upper(),
                        {**operation, "parameters": [*shared, *operation.get("parameters", [])]},
                    )

    def _parameters(self, operation: dict[str, Any], method: str) -> list[str]:
        names = [
            str(parameter.get("name"))
            for each in operation["parameters"]
            if (parameter := self._resolved(each)).get("in") == "query"
        ]
        if method == "POST":
            content = self._resolved(operation.get("requestBody", {})).get("content", {})
            names += self._resolved(content.get("application/json", {}).get("schema", {})).get("properties", {})
        return names

    def _paging(self, names: list[str], schema: dict[str, Any]) -> dict[str, Any]:
        by_word = {fold(name): name for name in names}
        size = next(
            (by_word[word] for word in ("limit", "pagesize", "perpage", "size", "first") if word in by_word), None
        )
        sized = {"size_parameter": size, "size": 100} if size else {"size": 100}
        following = next(
            (str(name) for name in schema.get("properties", {}) if fold(name) in _NEXT),
            None,
        )
        cursor = next((by_word[word] for word in ("cursor", "pagetoken", "after", "next") if word in by_word), None)
        if cursor and following:
            return {"paging": {"style": "cursor", "parameter": cursor, "next": following, **sized}}
        for style in ("offset", "page"):
            if style in by_word:
                total = next((str(name) for name in schema.get("properties", {}) if fold(name) in _TOTAL), None)
                more = {"more": total} if total else {}
                return {"paging": {"style": style, "parameter": by_word[style], **sized, **more}}
        return {"paging": {"style": "none"}}

    def _path(self, resource: str, path: str) -> str:
        """Replace the path's parameters by those of an API description."""
        pieces = path.split("/")
        for number, piece in enumerate(pieces):
            if piece.startswith("{"):
                before = fold(pieces[number - 1])
                pieces[number] = "{run}" if before in NOUNS["jobs"] and resource in ("job", "records") else "{project}"
        return "/".join(pieces)

    def _schema(self, operation: dict[str, Any]) -> dict[str, Any]:
        for code in ("200", "2XX", "default"):
            content = self._resolved(operation.get("responses", {}).get(code, {})).get("content", {})
            schema = content.get("application/json", {}).get("schema")
            if schema is not None:
                return self._resolved(schema)
        return {}

    def _list(self, schema: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return the path of the list in a response, and the schema of its items."""
        if schema.get("type") == "array":
            return "@", self._resolved(schema.get("items", {}))
        for name, each in schema.get("properties", {}).items():
            part = self._resolved(each)
            if part.get("type") == "array":
                return name, self._resolved(part.get("items", {}))
        return "@", {}

    def _item_path(self, schema: dict[str, Any]) -> dict[str, Any]:
        properties = schema.get("properties", {})
        if len(properties) == 1:
            (name, inner), *_ = properties.items()
            if self._resolved(inner).get("properties"):
                return {"item": name}
        return {}

    def _example(self, schema: dict[str, Any], depth: int = 0) -> Any:
        """Return a value that matches a schema, in which `fields_of` finds fields."""
        schema = self._resolved(schema)
        if schema.get("properties") and depth < DEPTH:
            return {name: self._example(each, depth + 1) for name, each in schema["properties"].items()}
        if schema.get("format") == "date-time":
            return "2026-01-01T00:00:00Z"
        kinds = schema.get("type")
        kind = next((each for each in kinds if each != "null"), None) if isinstance(kinds, list) else kinds
        return {"integer": 1, "number": 1.0, "boolean": True, "string": "text"}.get(str(kind))

    def _step(self, count: int = 1) -> None:
        """Note work. Raises `SuggestError` if it is too much: a part can be referred to any number of times."""
        self._steps += count
        if self._steps > MAX_STEPS:
            raise SuggestError("the OpenAPI document has too many parts that refer to each other")

    def _resolved(self, schema: Any) -> dict[str, Any]:
        self._step()
        for _ in range(DEPTH * 4):
            if not isinstance(schema, dict):
                return {}
            if isinstance(schema.get("$ref"), str):
                schema = self._at(schema["$ref"])
            elif choices := [*schema.get("anyOf", []), *schema.get("oneOf", [])]:
                # Usually a type or null.
                self._step(len(choices))
                real = [each for each in choices if not (isinstance(each, dict) and each.get("type") == "null")]
                schema = real[0] if real else {}
            elif schema.get("allOf"):
                own = {"properties": schema.get("properties", {})}
                parts = [*(self._resolved(each) for each in schema["allOf"]), own]
                properties = {name: each for part in parts for name, each in part.get("properties", {}).items()}
                return {**parts[0], "properties": properties}
            else:
                return schema
        return {}

    def _at(self, reference: str) -> Any:
        at: Any = self._document
        for key in reference.removeprefix("#/").split("/"):
            at = at.get(key.replace("~1", "/").replace("~0", "~")) if isinstance(at, dict) else None
        return at


NOUNS: Mapping[str, tuple[str, ...]] = {
    "jobs": (
        "jobs",
        "runs",
        "executions",
        "flowruns",
        "dagruns",
        "jobruns",
        "workflowruns",
        "pipelineruns",
        "workflowexecutions",
        "builds",
        "pipelines",
        "workflows",
        "tasks",
    ),
    "records": ("records", "items", "taskruns", "taskinstances", "tasks", "activities", "contacts", "steps", "stages"),
    "projects": (
        "projects",
        "workspaces",
        "spaces",
        "namespaces",
        "teams",
        "flows",
        "dags",
        "workflows",
        "pipelines",
        "repositories",
        "repos",
    ),
    "usage": ("usage", "quota", "quotas", "limits"),
    "health": ("health", "healthz", "status", "ready"),
}
"""Names of each resource in paths."""

HOUSEKEEPING = frozenset(
    {"hostname", "unixname", "latestheartbeat", "lastheartbeat", "executorclass", "pid", "cron", "nextrun",
     "nextruntime", "concurrency", "ispaused"}
)  # fmt: skip
"""Names in items that are processes of a scheduler or definitions of what it runs, and no executions of something."""

MAX_STEPS = 500_000
"""Parts of a document that are looked at, each as often as others refer to it; large documents need some thousand."""

_SINCE = ("updatedsince", "updatedafter", "updatedatgte", "modifiedsince", "modifiedafter", "changedsince", "since")
_TOTAL = ("total", "totalcount", "totalentries", "totalelements", "totalitems", "totalpages")
_NEXT = ("nextcursor", "nextpagetoken", "next", "nextpage", "endcursor")
