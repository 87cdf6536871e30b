"""The JSON Schema of a config file, for editors, made from the structs that a config is decoded into.

It accepts what `check-config` accepts. What it cannot say, such as whether a file exists or a JMESPath is valid, only
`check-config` finds.
"""

import ast
import functools
import inspect
import itertools
import re
import sys
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from exporter.config.api_description import KEYS_OF_SOME, FieldSource, Paging, Resource, Resources
from exporter.config.schema import (
    LEAST_LIMITS,
    MAX_LIMIT,
    RUNTIME_NAME,
    AuthConfig,
    Config,
    FileConfig,
    LimitsConfig,
    LogConfig,
    LoginConfig,
    RuntimeConfig,
    SpinnerConfig,
    StallsConfig,
    SyncConfig,
    TlsConfig,
)
from exporter.config.values import DURATION, Duration
from exporter.status import Status

_STATUSES = {"additionalProperties": {"enum": [each.value for each in Status if each is not Status.UNKNOWN]}}
_PATH = {"pattern": "^/"}
_ABOVE_ZERO = {"not": {"pattern": r"^(0|(0+(\.0+)?[a-z]+)+)$"}}

_NARROWER: Mapping[tuple[type, str], dict[str, Any]] = {
    (RuntimeConfig, "base_url"): {"pattern": r"^https?://[^\s?#@]+$"},
    (RuntimeConfig, "name"): {"pattern": f"^{RUNTIME_NAME.pattern}$"},
    (RuntimeConfig, "proxy"): {"pattern": r"^(none|(https?|socks5h?)://\S+)$"},
    (RuntimeConfig, "timeout"): _ABOVE_ZERO,
    (RuntimeConfig, "heartbeat_timeout"): _ABOVE_ZERO,
    (AuthConfig, "type"): {"enum": ["bearer", "header", "basic"]},
    (AuthConfig, "header"): {"pattern": r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"},
    (AuthConfig, "username"): {"pattern": "^[^:]*$"},
    (AuthConfig, "value"): {"pattern": r"^[^{}]*\{token\}[^{}]*$"},
    (LoginConfig, "path"): _PATH,
    (SyncConfig, "concurrency"): {"minimum": 1, "maximum": 256},
    (SyncConfig, "stale_after"): _ABOVE_ZERO,
    (StallsConfig, "floor"): _ABOVE_ZERO,
    (StallsConfig, "ceiling"): _ABOVE_ZERO,
    (StallsConfig, "false_pages"): {"minimum": 0.01, "maximum": 100},
    **{(SpinnerConfig, key): _ABOVE_ZERO for key in ("stall_floor", "stall_ceiling", "expected_interval")},
    (LogConfig, "level"): {"enum": ["debug", "info", "warn", "error"]},
    (LogConfig, "format"): {"enum": ["logfmt", "json"]},
    (Config, "statuses"): _STATUSES,
    (Config, "spinner_retention"): _ABOVE_ZERO,
    (Paging, "size"): {"minimum": 1},
    (Paging, "first"): {"minimum": 0},
    (Resource, "path"): _PATH,
    (Resource, "accept"): {"minItems": 1, "items": {"type": "integer", "minimum": 100, "maximum": 599}},
    (Resource, "across"): {"pattern": "^/[^{]*$"},
    (Resource, "statuses"): _STATUSES,
    **{(LimitsConfig, name): {"minimum": least, "maximum": MAX_LIMIT} for name, least in LEAST_LIMITS.items()},
}
"""What the checks of a section allow for one key, besides its type."""


def _if(key: str, values: list[Any], then: dict[str, Any], otherwise: dict[str, Any] | None = None) -> dict[str, Any]:
    condition = {"if": {"required": [key], "properties": {key: {"enum": values}}}, "then": then}
    return condition if otherwise is None else {**condition, "else": otherwise}


def _with(*keys: str) -> dict[str, Any]:
    """Return what holds if each of these keys has a value."""
    return {"required": list(keys), "properties": {key: {"not": {"enum": [None, ""]}} for key in keys}}


def _told(key: str) -> dict[str, Any]:
    """Return what holds if a key has a value, which can be empty."""
    return {"required": [key], "properties": {key: {"not": {"type": "null"}}}}


def _without(*keys: str) -> dict[str, Any]:
    """Return what holds if none of these keys has a value."""
    return {"properties": {key: {"type": "null"} for key in keys}}


_TOGETHER: Mapping[type, list[dict[str, Any]]] = {
    AuthConfig: [
        _if(
            "type",
            ["basic"],
            {"required": ["username"], **_without("value")},
            {"properties": {"username": {"const": ""}}},
        )
    ],
    LoginConfig: [{"anyOf": [_without("lifetime"), _without("expires")]}],
    TlsConfig: [{"if": _told("key_file"), "then": _told("cert_file")}],
    FieldSource: [
        {"oneOf": [_told("path"), _told("value")]},
        {"if": _told("pattern"), "then": _told("path")},
        _if("convert", ["seconds", "milliseconds", "clock"], _told("after"), _without("after")),
    ],
    Paging: [
        _if("style", ["cursor", "page", "offset"], _with("parameter")),
        _if("style", ["cursor"], _told("next")),
        _if("style", ["page", "offset"], {}, _without("first")),
        _if("style", ["cursor", "page", "offset", "link"], {}, _without("parameter", "next")),
    ],
}
"""What the checks of a section say about several keys."""


def json_schema() -> dict[str, Any]:
    """Return the schema of a file with one runtime or several."""
    made = _Schemas()
    whole = made.struct(FileConfig)
    runtime = made.struct(RuntimeConfig)
    # It comes from the environment only.
    del runtime["properties"]["token"]
    sections = {key: each for key, each in whole["properties"].items() if key in get_type_hints(Config)}
    del sections["runtime"]
    named = {"type": "string", **_NARROWER[RuntimeConfig, "name"]}
    entry = {
        "type": "object",
        "properties": {**sections, **runtime["properties"], "name": named},
        "required": ["name", *runtime["required"]],
        "additionalProperties": False,
    }
    whole["properties"] = {"runtime": runtime, **whole["properties"]}
    whole["properties"]["runtime"] = runtime
    whole["properties"]["runtimes"] = {"type": "array", "items": entry, "minItems": 1}
    whole["oneOf"] = [{"required": ["runtime"]}, {"required": ["runtimes"]}]
    del whole["required"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Config file of spinner-exporter",
        **whole,
        "$defs": made.definitions,
    }


_KEPT = ("base_url", "resources", "path")
"""Keys that cannot be removed."""


class _Schemas:
    def __init__(self) -> None:
        self.definitions: dict[str, Any] = {}
        """The schemas of structs that occur repeatedly, by their names."""

    def struct(self, kind: type[msgspec.Struct]) -> dict[str, Any]:
        """Return the schema of a section."""
        texts = _documented(kind)
        properties = {
            name: self._property(kind, name, hint) | ({"description": texts[name]} if name in texts else {})
            for name, hint in get_type_hints(kind).items()
        }
        required = [field.name for field in msgspec.structs.fields(kind) if field.required]
        if kind is Resources:
            properties = {name: self._resource(name, each) for name, each in properties.items()}
            required = []
        if kind in (RuntimeConfig, Resource):
            # The preset has the rest of it.
            required = [name for name in required if name not in ("resources", "path")]
        schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
        if required:
            schema["required"] = required
        if kind in _TOGETHER:
            schema["allOf"] = _TOGETHER[kind]
        return schema

    def _property(self, kind: type, name: str, hint: Any) -> dict[str, Any]:
        owner = next((each for each in kind.__mro__ if (each, name) in _NARROWER), kind)
        schema = self._type(hint)
        narrower = _NARROWER.get((owner, name))
        if narrower is not None:
            if "anyOf" in schema:
                schema["anyOf"][0] |= narrower
            else:
                schema |= narrower
        if (kind in (RuntimeConfig, Resource) and name not in _KEPT) or (kind is FileConfig and name != "runtime"):
            # It removes what the preset has.
            schema = schema if {"type": "null"} in schema.get("anyOf", ()) else {"anyOf": [schema, {"type": "null"}]}
        return schema

    def _resource(self, name: str, schema: dict[str, Any]) -> dict[str, Any]:
        others = [key for key, names in KEYS_OF_SOME.items() if name not in names]
        return {"anyOf": [schema, {"type": "null"}]} if name == "counts" else {**schema, **_without(*others)}

    def _type(self, hint: Any) -> dict[str, Any]:
        origin, arguments = get_origin(hint), get_args(hint)
        if origin in (Union, UnionType):
            return {"anyOf": [self._type(each) for each in arguments]}
        if origin is Literal:
            return {"enum": list(arguments)}
        if origin is dict:
            return {"type": "object", "additionalProperties": self._type(arguments[1])}
        if origin is tuple:
            return {"type": "array", "items": self._type(arguments[0])}
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            if hint.__name__ not in self.definitions:
                self.definitions[hint.__name__] = {}
                self.definitions[hint.__name__] = self.struct(hint)
            return {"$ref": f"#/$defs/{hint.__name__}"}
        if hint is Duration:
            return {"type": "string", "pattern": f"^(?=.)({DURATION.pattern})$"}
        return dict(_SIMPLE.get(hint, {}))


_SIMPLE: Mapping[Any, dict[str, Any]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    NoneType: {"type": "null"},
    re.Pattern[str]: {"type": ["string", "integer"]},
}


def _documented(kind: type) -> dict[str, str]:
    """Return what is written below each key of a section and of those that it extends."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if not issubclass(each, msgspec.Struct) or not each.__module__.startswith("exporter."):
            continue
        for before, after in itertools.pairwise(_classes(each.__module__)[each.__name__].body):
            text = after.value if isinstance(after, ast.Expr) else None
            if (
                isinstance(before, ast.AnnAssign)
                and isinstance(before.target, ast.Name)
                and isinstance(text, ast.Constant)
            ):
                found[before.target.id] = " ".join(str(text.value).split())
    return found


@functools.cache
def _classes(module: str) -> dict[str, ast.ClassDef]:
    """Return the classes of a module by name. Parsed once: `inspect.getsource` parses it again for each class."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {each.name: each for each in tree.body if isinstance(each, ast.ClassDef)}
