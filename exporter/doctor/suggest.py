"""A first config, guessed from an OpenAPI document or from responses by the names of their fields.

The result can be wrong: it is meant to be reviewed, corrected and checked with the doctor.
"""

import asyncio
import contextlib
import copy
import re
import ssl
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import yaml

from exporter.config import load_tree, strict
from exporter.config.files import UnreadableFileError, read_bytes
from exporter.config.values import canonical_url, is_header_name, split_url
from exporter.errors import ConfigError, ExporterError
from exporter.runtime.almost_json import document
from exporter.runtime.body import BodyError, TooLargeError, read_body
from exporter.runtime.codes import is_code
from exporter.runtime.connection_errors import reason_of
from exporter.runtime.description import check_description
from exporter.runtime.proxies import proxy_from_environment
from exporter.runtime.times import EPOCH_MS

WORDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "health": {
        "runtime.status": ("runtimestatus", "workerstatus", "schedulerstatus", "status", "state", "alive"),
        "runtime.lastHeartbeatAt": ("lastheartbeatat", "lastheartbeat", "heartbeat", "lastseen", "beat"),
        "runtime.workers": ("workers", "workercount", "count"),
    },
    "projects": {
        "id": ("id", "projectid", "dagid", "workflowid", "pipelineid", "key", "uid", "uuid", "slug", "fullname"),
        "name": ("name", "displayname", "dagdisplayname", "title", "label", "slug", "fullname", "dagid"),
    },
    "jobs": {
        "id": (
            "id", "jobid", "runid", "executionid", "dagrunid", "buildid", "workflowexecutionid", "pipelinerunid", "uid",
            "uuid", "key", "executionrunid", "number", "buildnumber",
        ),
        "spinnerName": (
            "spinnername", "pipelinename", "workflowname", "flowname", "jobname", "workflowtypename", "workflowtype",
            "typename", "dagdisplayname", "dagid", "pipeline", "workflow", "definitionname", "taskname", "flowtitle",
            "pipelineid", "workflowid", "flowid", "name", "title",
        ),
        "status": ("status", "statetype", "state", "phase", "result"),
        "trigger": ("trigger", "triggertype", "runtype", "triggeredby", "source"),
        "parentJobId": ("parentjobid", "parentrunid", "parentid", "retryof"),
        "createdAt": (
            "createdat", "created", "createtime", "creationtime", "createddate", "queuedat", "queued", "queuetime",
            "submittedat", "scheduledat", "scheduledtime", "received",
        ),
        "startedAt": (
            "startedat", "started", "starttime", "startdate", "executiontime", "begunat", "begun", "beganat", "began",
        ),
        "endedAt": (
            "endedat", "ended", "endtime", "enddate", "finishedat", "finished", "finishtime", "finishdate", "closetime",
            "completedat", "completiontime", "stoppedat",
        ),
        "updatedAt": ("updatedat", "updated", "updatetime", "modifiedat", "lastmodified", "touched"),
        "lastProgressAt": ("lastprogressat", "lastprogress", "lastactivityat", "lastactivity"),
        "records.total": ("recordstotal", "total", "totalcount", "itemcount"),
        "records.pending": ("recordspending", "pending", "pendingcount"),
        "records.running": ("recordsrunning", "running", "runningcount"),
        "records.waiting": ("recordswaiting", "waiting", "waitingcount"),
        "records.completed": ("recordscompleted", "completed", "succeeded", "completedcount", "successcount", "done"),
        "records.failed": ("recordsfailed", "failed", "failedcount", "errorcount"),
        "projectId": ("projectid", "workspaceid", "namespaceid", "teamid"),
    },
    "records": {
        "id": ("id", "recordid", "taskinstanceid", "taskrunid", "taskid", "activityid", "stepid", "key", "uid",
               "number"),
        "status": ("status", "statetype", "state", "phase"),
        "endedAt": ("endedat", "endtime", "enddate", "finishedat", "done"),
        "failedStep.name": ("failedstepname", "stepname", "taskkey", "step", "taskid", "taskname", "activitytype"),
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

COUNTS = {field for fields in WORDS.values() for field in fields if field.startswith("records.")} | {"runtime.workers"}
"""Fields that are numbers of something."""

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
    except _UnusableUrlError:
        raise SuggestError(f"{where}: not requested (the URL, or that of its proxy, is not valid)") from None
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        raise SuggestError(f"{where}: no response ({reason_of(error)})") from None
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


def from_openapi(
    document: Any,
    base_url: str | None,
    config_file: Mapping[str, Any] | None = None,
    *,
    token_file: str | None = None,
    location: str = "",
    origin: str = "the config",
) -> str:
    """Return a config for an API that an OpenAPI document (version 3) describes. Raises `SuggestError`.

    What `config_file` says is kept, unless `base_url` or `token_file` override it. If it cannot be loaded whatever is
    guessed, raises a `ConfigError` that begins with `origin`, the file's path. Without a `base_url` that of the file is
    used, or of the document, which was read from a `location`.
    """
    given, kept = _said(config_file or {}, origin)
    try:
        runtime = _from_openapi(document, base_url, given, kept, location)
    except RecursionError:
        raise SuggestError("not an OpenAPI document: it is nested too deeply") from None
    except (TypeError, AttributeError, ValueError, LookupError) as error:
        kind = type(error).__name__
        raise SuggestError(f"not an OpenAPI document: a part of it is not as expected ({kind})") from None
    if token_file is not None:
        runtime["token_file"] = token_file
    tree, comments = _loadable({**(config_file or {}), "runtime": runtime}, kept, origin)
    return _as_yaml(tree, comments)


def _said(config_file: Mapping[str, Any], origin: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a file says of the runtime, and of its resources, without those that have no value.

    Raises `ConfigError`.
    """
    given = config_file.get("runtime") or {}
    kept = (given.get("resources") or {}) if isinstance(given, dict) else {}
    for section, place in ((given, "runtime"), (kept, "runtime.resources")):
        if not isinstance(section, dict):
            raise ConfigError(f"{origin}: {place}: expected a mapping of keys")
    return given, {name: resource for name, resource in kept.items() if resource is not None}


def _with_own(guess: Mapping[str, Any], own: Mapping[str, Any], *nulls: str) -> dict[str, Any]:
    """Return a guess with what the file says instead; for the keys in `nulls`, a null says nothing."""
    return {**guess, **{key: value for key, value in own.items() if value is not None or key not in nulls}}


def _from_openapi(
    document: Any, base_url: str | None, given: Mapping[str, Any], kept: Mapping[str, Any], location: str
) -> dict[str, Any]:
    """Return the section `runtime` with what is guessed."""
    if not isinstance(document, dict) or not isinstance(document.get("paths"), dict):
        raise SuggestError("not an OpenAPI document: it has no paths")
    api = _OpenApi(document)
    resources = {
        name: found
        for name in ("health", "projects", "jobs", "records", "usage")
        if kept.get(name) != "absent" and (found := api.find(name))
    }
    own_jobs = kept.get("jobs")
    if "jobs" not in resources and not (isinstance(own_jobs, dict) and "path" in own_jobs):
        nouns = ", ".join(NOUNS["jobs"])
        raise SuggestError(f"no list of runs found: expected a path that ends in one of {nouns}")
    if job := api.one_run():
        resources["job"] = job
    missing = [name for name in ("health", "projects", "job", "records", "usage") if name not in resources]
    guessed = {name: _without_empty(resource) for name, resource in resources.items()}
    described = {**guessed, **dict.fromkeys(missing, "absent")}
    for name, own in kept.items():
        # Of another path, the document says nothing.
        guess = guessed.get(name, {})
        is_same = isinstance(own, dict) and own.get("path", guess.get("path")) == guess.get("path")
        described[name] = _with_own(guess, own, "fields") if is_same else own
    security, auth = api.security(), given.get("auth")
    needs_token = security is not None and not (isinstance(auth, dict) and "login" in auth)
    guess = {
        "base_url": api.base_url(base_url or given.get("base_url"), location),
        **({"token_file": "/run/secrets/token"} if needs_token else {}),
        **({"auth": security} if security else {}),
    }
    runtime = {**_with_own(guess, given, *guess), "resources": described}
    if base_url is not None:
        runtime["base_url"] = api.base_url(base_url, location)
    return runtime


def from_responses(
    base_url: str,
    responses: Mapping[str, Iterable[Any]],
    config_file: Mapping[str, Any],
    *,
    token_file: str | None = None,
    described: Collection[str] = (),
    missing: Sequence[str] = (),
) -> str:
    """Return the content of a config file with the fields that raw items seem to have, by resource.

    What the file says is kept, its own fields too, except that `base_url` is the URL that was read, with the token in
    `token_file` if that is not None. Nothing is guessed for the resources in `described` that have no fields in the
    file: a preset has them. Comments say what is `missing`, and list the names that are left on both sides, for a
    person to match. Raises `SuggestError` if there are none.
    """
    if not any(map(_names, responses.values())):
        raise SuggestError("; ".join(["the responses contain no items to guess fields from", *missing]))
    given, kept = _said(config_file, "the config")
    own = {name for name, resource in kept.items() if isinstance(resource, dict) and resource.get("fields")}
    found = {name: fields_of(name, items) for name, items in responses.items() if name in own or name not in described}
    resources = copy.deepcopy(kept)
    runtime = {**copy.deepcopy(given), "base_url": base_url, "resources": resources}
    if token_file is not None:
        runtime["token_file"] = token_file
    tree = {**copy.deepcopy(dict(config_file)), "runtime": runtime}
    was_good = _problem_of(tree) is None
    left: list[str] = []
    for name, fields in found.items():
        if fields:
            resource = resources.setdefault(name, {})
            resource["fields"] = {**fields, **(resource.get("fields") or {})}
        left += _left(name, responses[name], resources.get(name, {}).get("fields") or {})
    for reference in _references(resources.get("jobs")):
        _refer(reference, resources, responses, "projects")
    for reference in (each for user in ("job", "records") for each in _references(resources.get(user))):
        _refer(reference, resources, responses, "jobs", unless="projects")
    # Of a config that cannot be loaded itself, nothing says what is wrong with it.
    tree, comments = _loadable(tree, kept) if was_good else (tree, [])
    return _as_yaml(tree, [*comments, *(f"{each}; nothing suggested" for each in missing), *left])


def _refer(
    reference: str, resources: Mapping[str, Any], responses: Mapping[str, Iterable[Any]], owner: str, unless: str = ""
) -> None:
    """Guess a reference among the fields of a resource, its owner, if it has any; not if those of another have it."""
    fields, others = (_fields_in(resources, each) for each in (owner, unless))
    if fields and reference not in fields and reference not in others:
        name = reference.removeprefix("ref.")
        fields[reference] = like(name, responses.get(owner, ())) or fields.get("id", "id")


def _fields_in(resources: Mapping[str, Any], name: str) -> dict[str, Any]:
    resource = resources.get(name)
    return (resource.get("fields") or {}) if isinstance(resource, dict) else {}


def _references(resource: Any) -> list[str]:
    return re.findall(r"\{(ref\.\w+)", str(resource.get("path", ""))) if isinstance(resource, dict) else []


def like(name: str, items: Iterable[Any]) -> str | None:
    """Return the path of a value whose name is like another name, or contains it; None without one."""
    paths = [path for path in _names(items) if _fold(name) in _fold(path)]
    return min(paths, key=len, default=None)


def _loadable(
    tree: dict[str, Any], kept: Mapping[str, Any], origin: str = "the config"
) -> tuple[dict[str, Any], list[str]]:
    """Return a config that can be loaded, and why parts of the guess were left out; `kept` are the given resources.

    Raises `ConfigError` if the problem is not one of the guess.
    """
    tree = copy.deepcopy(tree)
    comments: list[str] = []
    while (problem := _problem_of(tree)) is not None:
        if not _leave_out(tree["runtime"]["resources"], problem, kept):
            raise ConfigError(f"{origin}: {problem}")
        comment = f"Left out what did not fit together: {problem.removeprefix(_RESOURCES)}"
        if comment not in comments:
            comments.append(comment)
    return tree, comments


_RESOURCES = "runtime.resources."


def _problem_of(tree: Mapping[str, Any]) -> str | None:
    """Return why a config cannot be loaded, after the path of the setting; None if it can.

    Whether its files exist is not looked at.
    """
    try:
        load_tree(copy.deepcopy(dict(tree)), check=check_description)
    except ConfigError as error:
        return str(error).removeprefix("suggestion: ")
    return None


def _leave_out(resources: dict[str, Any], problem: str, kept: Mapping[str, Any]) -> bool:
    """Remove the part of the guess that a problem is about; return whether there was one."""
    path = problem.partition(":")[0]
    if not path.startswith(_RESOURCES):
        return False
    name, *keys = re.split(r"\W", path.removeprefix(_RESOURCES))

    def remove(resource: str, *of: str) -> bool:
        own = kept.get(resource)
        mapping = resources.get(resource)
        for key in of:
            is_guessed = not (isinstance(own, dict) and own.get(key) is not None)
            if isinstance(mapping, dict) and is_guessed and mapping.get(key) is not None:
                # Without the key, what the contract has would be used.
                mapping[key] = None
                return True
        return False

    if "the request contains {ref." in problem:
        # Without fields, `doctor` says what a run or a project lacks.
        return remove("jobs", "fields") or remove("projects", "fields")
    if "is required if jobs has changed" in problem:
        return remove("jobs", "changed")
    if keys == ["fields", "projectId"] and "projects" not in kept and resources.get("projects") != "absent":
        resources["projects"] = "absent"
        return True
    if remove(name, *keys[:1], "changed", "active", "failed", "paging", "fields"):
        return True
    if name != "jobs" and name not in kept and isinstance(resources.get(name), dict):
        resources[name] = "absent"
        return True
    return any(remove(each, "fields") for each in resources)


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
    known = [dict(_leaves(item)) for item in items]
    for item in known:
        for path, value in item.items():
            if leaves.get(path) is None:
                leaves[path] = value
            if isinstance(value, str) and not is_code(value):
                not_codes.add(path)
    fields: dict[str, Any] = {}
    for field, words in WORDS[resource].items():
        usable = leaves
        if field in CODES:
            usable = {path: value for path, value in leaves.items() if path not in not_codes}
        elif field in COUNTS:
            usable = {path: value for path, value in leaves.items() if _is_count(value)}
        elif field == "id" and resource in ("jobs", "records", "projects"):
            usable = {path: value for path, value in leaves.items() if _is_unique(path, known)}
            usable = usable if _most_likely(words, usable, is_time=False) is not None else leaves
        found = _most_likely(words, usable, is_time=field in TIMES)
        if found is not None:
            convert = _converter(leaves[found]) if field in TIMES else None
            fields[field] = {"path": found, **convert} if convert else found
    if resource == "health" and (state := fields.get("runtime.status")) and (labels := _up_or_down(leaves[state])):
        fields["runtime.status"] = {"path": state, "labels": labels}
    if resource == "jobs" and isinstance(fields.get("id"), str) and not _is_unique(fields["id"], known):
        fields = _with_unique_id(fields, known)
    return fields


def _up_or_down(value: Any) -> dict[Any, str]:
    """Return the labels of a state of which one value is known; empty if they are not needed or not known."""
    if isinstance(value, bool):
        return {True: "up", False: "down"}
    if isinstance(value, str) and value.lower() in _UP:
        return {value: "up", "*": "down"}
    return {value: "down"} if isinstance(value, str) and value.lower() in _DOWN else {}


_UP = (
    "ok",
    "healthy",
    "alive",
    "running",
    "ready",
    "pass",
    "passing",
    "green",
    "serving",
    "available",
    "online",
    "active",
)
_DOWN = (
    "unhealthy",
    "dead",
    "stopped",
    "fail",
    "failing",
    "failed",
    "red",
    "not_serving",
    "unavailable",
    "offline",
    "error",
)


def _is_count(value: Any) -> bool:
    """Whether a value can be a number of records: no time, and no share of something."""
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return is_whole and not isinstance(value, bool) and _converter(value) is None


def _is_unique(path: str, items: list[dict[str, Any]]) -> bool:
    values = [item[path] for item in items if item.get(path) is not None]
    return len(values) == len({str(value) for value in values})


def _with_unique_id(fields: dict[str, Any], items: list[dict[str, Any]]) -> dict[str, Any]:
    """Return fields whose id is made of two, where numbers start anew for each spinner; unchanged if that is not it."""
    number = fields["id"]
    for path in (each for each in (fields.get("projectId"), fields.get("spinnerName")) if isinstance(each, str)):
        pairs = [(str(item[path]), str(item[number])) for item in items if path in item and number in item]
        if len(pairs) == len(items) == len(set(pairs)):
            return {**fields, "id": f"join('/', [to_string({path}), to_string({number})])", "ref.number": number}
    return fields


class _OpenApi:
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
            searches = bool(pieces) and _fold(pieces[-1]) in ("filter", "search", "query", "list")
            last = pieces[-2] if searches and len(pieces) > 1 else pieces[-1] if pieces else ""
            if _fold(last) not in NOUNS[resource] or (method == "POST") != (searches and _fold(pieces[-1]) != "list"):
                continue
            # Nothing says what else a path needs.
            if "{" in path and resource in ("health", "projects", "usage"):
                continue
            # Prefer what looks like executions of something, then the first noun of the list, then the list of one
            # project or of one run, then the shortest path.
            is_wide = resource in ("jobs", "records") and "{" not in path
            unlike = self._unlike_runs(operation) if resource == "jobs" else 0
            found.append((unlike, NOUNS[resource].index(_fold(last)), is_wide, len(pieces), path, method, operation))
        if not found:
            return None
        *_, path, method, operation = min(found, key=lambda each: each[:5])
        return self._described(resource, path, method, operation)

    def _unlike_runs(self, operation: dict[str, Any]) -> int:
        """Return how much a list does not look like one of executions of something; 0 if nothing is known."""
        _, schema = self._list(self._schema(operation))
        example = self._example(schema)
        names = {_fold(path.rpartition(".")[2]) for path, _ in _leaves(example)}
        if not names:
            return 0
        fields = fields_of("jobs", [example])
        told = ("status" in fields) + ("startedAt" in fields or "createdAt" in fields) + ("endedAt" in fields)
        return 3 - told + 2 * len(names & HOUSEKEEPING)

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
                total = next((str(name) for name in schema.get("properties", {}) if _fold(name) in _TOTAL), None)
                more = {"more": total} if total else {}
                return {"paging": {"style": style, "parameter": by_word[style], **sized, **more}}
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
_TOTAL = ("total", "totalcount", "totalentries", "totalelements", "totalitems", "totalpages")
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
        if value > EPOCH_MS:
            return {"convert": "epoch_ms"}
        return {"convert": "epoch_s"} if value > _EPOCH_S else None
    try:
        zone = datetime.fromisoformat(str(value)).tzinfo
    except ValueError:
        return None
    return {"convert": "rfc3339"} if zone else {"convert": "local", "zone": "UTC"}


_EPOCH_S = 1e9


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
