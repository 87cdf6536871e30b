"""A first config, guessed from an OpenAPI document or from responses by the names of their fields.

The result can be wrong: it is meant to be reviewed, corrected and checked with the doctor.
"""

import asyncio
import contextlib
import copy
import re
import ssl
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import yaml

from exporter.config import strict
from exporter.config.files import UnreadableFileError, read_bytes
from exporter.config.values import canonical_url
from exporter.errors import ExporterError
from exporter.runtime.almost_json import document
from exporter.runtime.body import BodyError, TooLargeError, read_body
from exporter.runtime.codes import is_code
from exporter.runtime.connection_errors import kind_of
from exporter.runtime.proxies import proxy_from_environment

WORDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "health": {
        "runtime.status": ("runtimestatus", "workerstatus", "schedulerstatus", "status", "state", "alive"),
        "runtime.lastHeartbeatAt": ("lastheartbeatat", "lastheartbeat", "heartbeat", "lastseen", "beat"),
        "runtime.workers": ("workers", "workercount", "count"),
    },
    "projects": {"id": ("id", "projectid", "key", "uid", "uuid", "slug"), "name": ("name", "title", "label", "slug")},
    "jobs": {
        "id": ("id", "jobid", "runid", "executionid", "dagrunid", "uid", "uuid", "key"),
        "spinnerName": (
            "spinnername", "pipelinename", "workflowname", "flowname", "jobname", "pipeline", "workflow", "dagid",
            "flowtitle", "name", "title",
        ),
        "status": ("status", "statetype", "state", "phase", "result"),
        "trigger": ("trigger", "triggertype", "runtype", "triggeredby", "source"),
        "parentJobId": ("parentjobid", "parentrunid", "parentid", "retryof"),
        "createdAt": ("createdat", "created", "createtime", "creationtime", "queuedat", "queued", "submittedat"),
        "startedAt": ("startedat", "started", "starttime", "startdate", "begunat", "begun", "beganat", "began"),
        "endedAt": ("endedat", "ended", "endtime", "enddate", "finishedat", "finished", "completedat", "stoppedat"),
        "updatedAt": ("updatedat", "updated", "updatetime", "modifiedat", "lastmodified", "touched"),
        "lastProgressAt": ("lastprogressat", "lastprogress", "lastactivityat", "lastactivity"),
        "records.total": ("recordstotal", "total", "totalcount", "itemcount"),
        "records.pending": ("recordspending", "pending", "pendingcount"),
        "records.running": ("recordsrunning", "running", "runningcount"),
        "records.waiting": ("recordswaiting", "waiting", "waitingcount"),
        "records.completed": ("recordscompleted", "completed", "succeeded", "completedcount", "successcount", "done"),
        "records.failed": ("recordsfailed", "failed", "failedcount", "errorcount"),
    },
    "records": {
        "id": ("id", "recordid", "taskid", "key", "uid", "number"),
        "status": ("status", "statetype", "state", "phase"),
        "endedAt": ("endedat", "endtime", "enddate", "finishedat", "done"),
        "failedStep.name": ("failedstepname", "stepname", "taskkey", "step"),
        "errorCode": ("errorcode", "error", "reason", "statename"),
    },
    "usage": {
        "name": ("name", "meter", "key"),
        "used": ("used", "usage", "current", "count"),
        "limit": ("limit", "quota", "max"),
        "resetsAt": ("resetsat", "resetat", "periodend"),
    },
}  # fmt: skip
"""Names of each field in other APIs, as lower-case letters and digits; the most likely name first."""

NOUNS: Mapping[str, tuple[str, ...]] = {
    "jobs": ("jobs", "runs", "executions", "flowruns", "dagruns", "jobruns", "workflowruns", "pipelineruns"),
    "records": ("records", "items", "taskruns", "taskinstances", "tasks", "contacts", "steps"),
    "projects": ("projects", "workspaces", "spaces", "namespaces", "teams", "flows"),
    "usage": ("usage", "quota", "quotas", "limits"),
    "health": ("health", "healthz", "status", "ready"),
}
"""Names of each resource in paths."""

TIMES = {field for fields in WORDS.values() for field in fields if field.endswith("At")}


CODES = ("errorCode", "trigger")
"""Fields that become labels, and for which some APIs have sentences: with names and addresses of people."""

MAX_OPENAPI = 1 << 26
"""Bytes of a file with an OpenAPI document."""


class SuggestError(ExporterError):
    """There is no basis for a suggestion."""


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
    except (httpx.HTTPError, httpx.InvalidURL, _UnusableUrlError, TimeoutError) as error:
        raise SuggestError(f"{where}: no response ({kind_of(error)})") from None
    except UnreadableFileError as error:
        raise SuggestError(f"{where}: cannot be read: {error}") from None
    except (BodyError, _UnusableDocumentError) as error:
        raise SuggestError(f"{where}: {error}") from None


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


def from_openapi(document: Any, base_url: str) -> str:
    """Return a config for an API that an OpenAPI document (version 3) describes. Raises `SuggestError`."""
    try:
        return _from_openapi(document, base_url)
    except RecursionError:
        raise SuggestError("not an OpenAPI document: it is nested too deeply") from None
    except (TypeError, AttributeError, ValueError, LookupError) as error:
        kind = type(error).__name__
        raise SuggestError(f"not an OpenAPI document: a part of it is not as expected ({kind})") from None


def _from_openapi(document: Any, base_url: str) -> str:
    if not isinstance(document, dict) or not isinstance(document.get("paths"), dict):
        raise SuggestError("not an OpenAPI document: it has no paths")
    api = _OpenApi(document)
    resources = {
        name: found for name in ("health", "projects", "jobs", "records", "usage") if (found := api.find(name))
    }
    if "jobs" not in resources:
        nouns = ", ".join(NOUNS["jobs"])
        raise SuggestError(f"no list of runs found: expected a path that ends in one of {nouns}")
    if job := api.one_run():
        resources["job"] = job
    missing = [name for name in ("health", "projects", "job", "records", "usage") if name not in resources]
    described = {name: _without_empty(resource) for name, resource in resources.items()}
    runtime = {
        "base_url": base_url,
        "token_file": "/run/secrets/token",
        "resources": {**described, **dict.fromkeys(missing, "absent")},
    }
    return _as_yaml({"runtime": runtime})


def from_responses(base_url: str, responses: Mapping[str, Iterable[Any]], config_file: Mapping[str, Any]) -> str:
    """Return the content of a config file with the fields that raw items seem to have, by resource.

    What the file says is kept, its own fields too. Comments list the names that are left on both sides, for a person to
    match. Raises `SuggestError` if there are none.
    """
    if not any(map(_names, responses.values())):
        raise SuggestError("the responses contain no items to guess fields from")
    found = {name: fields_of(name, items) for name, items in responses.items()}
    tree = copy.deepcopy(dict(config_file))
    runtime = tree.setdefault("runtime", {})
    runtime.setdefault("base_url", base_url)
    resources = runtime.setdefault("resources", {})
    left: list[str] = []
    for name, fields in found.items():
        if fields:
            resource = resources.setdefault(name, {})
            resource["fields"] = {**fields, **resource.get("fields", {})}
        left += _left(name, responses[name], resources.get(name, {}).get("fields", {}))
    return _as_yaml(tree, left)


def _left(resource: str, items: Iterable[Any], fields: Mapping[str, Any]) -> list[str]:
    """Return comments with the fields that were not found, and the names in the responses that no field uses."""
    sources = " ".join(str(each.get("path", "") if isinstance(each, dict) else each) for each in fields.values())
    unused = [name for name in _names(items) if not re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", sources)]
    missing = [field for field in WORDS[resource] if field not in fields]
    if not unused or not missing:
        return []
    return [f"{resource}: not found: {', '.join(missing)}", f"{resource}: not used: {', '.join(unused)}"]


def _names(items: Iterable[Any]) -> list[str]:
    """Return the paths of all values in some items, each once."""
    return list(dict.fromkeys(path for item in items for path, _ in _leaves(item)))


def fields_of(resource: str, items: Iterable[Any]) -> dict[str, Any]:
    """Return the fields that items seem to have, each with a JMESPath, or with that and a converter."""
    leaves: dict[str, Any] = {}
    not_codes: set[str] = set()
    for item in items:
        for path, value in _leaves(item):
            if leaves.get(path) is None:
                leaves[path] = value
            if isinstance(value, str) and not is_code(value):
                not_codes.add(path)
    fields: dict[str, Any] = {}
    for field, words in WORDS[resource].items():
        usable = leaves
        if field in CODES:
            usable = {path: value for path, value in leaves.items() if path not in not_codes}
        found = _most_likely(words, usable, is_time=field in TIMES)
        if found is not None:
            convert = _converter(leaves[found]) if field in TIMES else None
            fields[field] = {"path": found, **convert} if convert else found
    return fields


class _OpenApi:
    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._steps = 0

    def find(self, resource: str) -> dict[str, Any] | None:
        """Return the description of the most likely path of a resource."""
        found = []
        for path, method, operation in self._operations():
            pieces = [piece for piece in path.split("/") if piece]
            searches = bool(pieces) and _fold(pieces[-1]) in ("filter", "search", "query")
            last = pieces[-2] if searches and len(pieces) > 1 else pieces[-1] if pieces else ""
            if _fold(last) not in NOUNS[resource] or (method == "POST") != searches:
                continue
            # Prefer the first noun of the list, then the list of one project or of one run, then the shortest path.
            is_wide = resource in ("jobs", "records") and "{" not in path
            found.append((NOUNS[resource].index(_fold(last)), is_wide, len(pieces), path, method, operation))
        if not found:
            return None
        *_, path, method, operation = min(found, key=lambda each: each[:4])
        return self._described(resource, path, method, operation)

    def one_run(self) -> dict[str, Any] | None:
        """Return the description of one run: a path that ends in a noun for runs and an id; None without one."""
        for path, method, operation in self._operations():
            pieces = path.split("/")
            if (
                method == "GET"
                and len(pieces) > 2
                and pieces[-1].startswith("{")
                and _fold(pieces[-2]) in NOUNS["jobs"]
            ):
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
            since = next((name for name in names if _fold(name) in _SINCE), None)
            described["changed"] = {"query": {since: "{since}"}} if since and method == "GET" else None
            active = next((name for name in names if _fold(name) == "active"), None)
            described["active"] = {"query": {active: "true"}} if active and method == "GET" else None
        if resource == "records":
            status = next((name for name in names if _fold(name) in ("status", "state")), None)
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
        by_word = {_fold(name): name for name in names}
        size = next(
            (by_word[word] for word in ("limit", "pagesize", "perpage", "size", "first") if word in by_word), None
        )
        sized = {"size_parameter": size, "size": 100} if size else {"size": 100}
        following = next(
            (str(name) for name in schema.get("properties", {}) if _fold(name) in _NEXT),
            None,
        )
        cursor = next((by_word[word] for word in ("cursor", "pagetoken", "after", "next") if word in by_word), None)
        if cursor and following:
            return {"paging": {"style": "cursor", "parameter": cursor, "next": following, **sized}}
        for style in ("offset", "page"):
            if style in by_word:
                return {"paging": {"style": style, "parameter": by_word[style], **sized}}
        return {"paging": {"style": "none"}}

    def _path(self, resource: str, path: str) -> str:
        """Replace the path's parameters by those of an API description."""
        pieces = path.split("/")
        for number, piece in enumerate(pieces):
            if piece.startswith("{"):
                before = _fold(pieces[number - 1])
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
        if schema.get("properties") and depth < _DEPTH:
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
        for _ in range(_DEPTH * 4):
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


_DEPTH = 4

MAX_STEPS = 500_000
"""Parts of a document that are looked at, each as often as others refer to it; large documents need some thousand."""

_SINCE = ("updatedsince", "updatedafter", "updatedatgte", "modifiedsince", "modifiedafter", "changedsince", "since")
_NEXT = ("nextcursor", "nextpagetoken", "next", "nextpage", "endcursor")


def _as_yaml(tree: Mapping[str, Any], comments: Iterable[str] = ()) -> str:
    head = (
        "Guessed. Review and correct it, then check it: spinner-exporter doctor --config.file=THIS",
        "docs/connecting.md explains each key.",
    )
    # Names come from responses, so control characters are removed.
    printable = ("".join(each if each.isprintable() else "?" for each in comment) for comment in comments)
    lines = [
        line
        for comment in (*head, *printable)
        for line in textwrap.wrap(
            comment, 108, initial_indent="# ", subsequent_indent="#   ", break_long_words=False, break_on_hyphens=False
        )
    ]
    return "\n".join(lines) + "\n" + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=110)


def _without_empty(resource: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in resource.items() if value not in ({}, [])}


def _most_likely(words: tuple[str, ...], leaves: Mapping[str, Any], *, is_time: bool) -> str | None:
    ranked = []
    for path, value in leaves.items():
        whole, last = _fold(path), _fold(path.rsplit(".", 1)[-1])
        for rank, word in enumerate(words):
            if word in (whole, last) and (not is_time or value is None or _converter(value) is not None):
                ranked.append((rank, path.count("."), path))
                break
    return min(ranked)[2] if ranked else None


def _converter(value: Any) -> dict[str, str] | None:
    """Return the converter of a time; None for a value that is not a time."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        if value > _EPOCH_MS:
            return {"convert": "epoch_ms"}
        return {"convert": "epoch_s"} if value > _EPOCH_S else None
    try:
        zone = datetime.fromisoformat(str(value)).tzinfo
    except ValueError:
        return None
    return {"convert": "rfc3339"} if zone else {"convert": "local", "zone": "UTC"}


_EPOCH_S = 1e9
_EPOCH_MS = 1e11
"""As seconds since 1970 this would be the year 5138, so larger numbers are milliseconds."""


def _leaves(item: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    if isinstance(item, dict) and depth < _DEPTH:
        for key, value in item.items():
            if not is_code("".join(each if each.isprintable() else "?" for each in str(key))):
                # The key can be data itself, such as an address.
                continue
            name = str(key) if re.fullmatch(r"[A-Za-z_]\w*", str(key)) else '"' + str(key).replace('"', '\\"') + '"'
            yield from _leaves(value, f"{path}.{name}" if path else name, depth + 1)
    elif path and not isinstance(item, dict | list):
        yield path, item


def _fold(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())
