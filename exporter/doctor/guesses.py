"""Guesses what fields of items mean, by their names and by their values."""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from exporter.errors import ExporterError
from exporter.runtime.codes import is_code
from exporter.runtime.times import EPOCH_MS, is_time


class SuggestError(ExporterError):
    """There is no basis for a suggestion."""


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
        "waitingUntil": ("waitinguntil", "waituntil", "resumesat", "resumeat", "wakeat"),
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

COUNTS = {field for fields in WORDS.values() for field in fields if field.startswith("records.")} | {"runtime.workers"}
"""Fields that are numbers of something."""

TIMES = {field for fields in WORDS.values() for field in fields if is_time(field)}


CODES = ("errorCode", "trigger")
"""Fields that become labels, and for which some APIs have sentences: with names and addresses of people."""


def fields_of(resource: str, items: Iterable[Any]) -> dict[str, Any]:
    """Return the fields that items seem to have, each with a JMESPath, or with that and a converter."""
    leaves: dict[str, Any] = {}
    not_codes: set[str] = set()
    known = [dict(values_in(item)) for item in items]
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


def _most_likely(words: tuple[str, ...], leaves: Mapping[str, Any], *, is_time: bool) -> str | None:
    ranked = []
    for path, value in leaves.items():
        whole, last = fold(path), fold(path.rsplit(".", 1)[-1])
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


def like(name: str, items: Iterable[Any]) -> str | None:
    """Return the path of a value whose name is like another name, or contains it; None without one."""
    paths = [path for path in names_in(items) if fold(name) in fold(path)]
    return min(paths, key=len, default=None)


def names_in(items: Iterable[Any]) -> list[str]:
    """Return the paths of all values in some items, each once."""
    return list(dict.fromkeys(path for item in items for path, _ in values_in(item)))


def values_in(item: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield each single value in an item, with its JMESPath."""
    if isinstance(item, dict) and depth < DEPTH:
        for key, value in item.items():
            if not is_code("".join(each if each.isprintable() else "?" for each in str(key))):
                # The key can be data itself, such as an address.
                continue
            name = str(key) if re.fullmatch(r"[A-Za-z_]\w*", str(key)) else '"' + str(key).replace('"', '\\"') + '"'
            yield from values_in(value, f"{path}.{name}" if path else name, depth + 1)
    elif path and not isinstance(item, dict | list):
        yield path, item


DEPTH = 4
"""Levels of an item in which fields are looked for."""


def fold(name: str) -> str:
    """Return the letters and digits of a name, in lower case."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())
