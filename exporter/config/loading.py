"""Builds the config from the file, the environment and the command-line flags; each overrides those before it.

An invalid setting raises a `ConfigError` that names the source of the setting, its path and what is expected.
"""

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from exporter.config import strict
from exporter.config.api_description import merged
from exporter.config.schema import RUNTIME_NAME, RUNTIME_NAME_RULE, Config, ExporterConfig, FileConfig
from exporter.config.values import Duration, Secret, decode_value
from exporter.errors import ConfigError

Check = Callable[[Config], None]
"""Raises a `ConfigError` that begins with the path of a setting."""

ENVIRONMENT_PREFIX = "SPINNER_EXPORTER_"

# Variables that are not settings of the tree.
_NOT_SETTINGS = {"CONFIG_FILE"}


def load(
    file: Path | None,
    *,
    environ: Mapping[str, str],
    flags: Mapping[str, object] | None = None,
    check: Check | None = None,
) -> ExporterConfig:
    """Read the file, override it by the environment and then by the flags, and decode the result.

    `flags` maps a setting's path (`web.listen_address`) to its value. `check` is called with each runtime's config,
    and raises for what this package cannot know. Raises `ConfigError`.
    """
    settings = _ConfigTree(check)
    if file is not None:
        settings.add_file(read_file(file), origin=str(file))
    for path, name, value in _from_environment(environ):
        settings.put(path, value, origin=name)
    for dotted, value in (flags or {}).items():
        settings.put(tuple(dotted.split(".")), value, origin=flag_of(dotted))
    return settings.decode()


def load_tree(tree: dict[str, Any], *, check: Check | None = None) -> ExporterConfig:
    """Decode the settings of a file that is not written yet, without environment and flags. Raises `ConfigError`."""
    settings = _ConfigTree(check)
    settings.add_file(tree, origin="suggestion")
    return settings.decode()


def read_file(file: Path) -> dict[str, Any]:
    """Return the settings of a file as they are written. Raises `ConfigError`."""
    # A shell's `<(command)` is a pipe.
    return strict.read(file, example=_EXAMPLE, regular=False)


def flag_of(dotted: str) -> str:
    """Return the flag of a setting; that of `web.config_file` has the same name as in all Prometheus exporters."""
    return {"web.config_file": "--web.config.file"}.get(dotted, "--" + dotted.replace("_", "-"))


class _ConfigTree:
    """The settings while they are collected, with the source of each."""

    def __init__(self, check: Check | None) -> None:
        self._check = check
        self._tree: dict[str, Any] = {}
        self._overrides: dict[tuple[str, ...], object] = {}
        """The settings of environment and flags by their paths."""
        self._origins: dict[tuple[str, ...], str] = {}

    def add_file(self, tree: dict[str, Any], *, origin: str) -> None:
        self._tree = tree
        self._origins[()] = origin
        entries = tree.get("runtimes")
        for section in (tree.get("runtime"), *(entries if isinstance(entries, list) else ())):
            _check_no_token(section, origin)
        _check_sections(tree, origin)

    def put(self, path: tuple[str, ...], value: object, *, origin: str) -> None:
        self._overrides[path] = value
        self._origins[path] = origin

    def decode(self) -> ExporterConfig:
        if "runtimes" not in self._tree:
            whole = self._convert(self._tree)
            return self._checked(ExporterConfig({whole.runtime.label: whole}, whole.web, whole.log, whole.storage))
        shared = {key: value for key, value in self._tree.items() if key != "runtimes"}
        if "runtime" in shared or any(path[0] == "runtime" for path in self._overrides):
            origins = (origin for path, origin in self._origins.items() if path[:1] == ("runtime",))
            origin = next(origins, self._origin(()))
            raise ConfigError(f"{origin}: runtime: expected either runtime or runtimes, not both")
        runtimes: dict[str, Config] = {}
        for place, entry in enumerate(self._entries()):
            name = self._name(entry, place, runtimes)
            own: dict[str, Any] = {"runtime": {}}
            for key, value in entry.items():
                (own if key in _RUNTIME_SECTIONS else own["runtime"])[key] = value
            _check_sections(own, self._origin(()), entry=name)
            whole = self._convert(merged(shared, own, depth=_MERGED_LEVELS), name, own)
            runtimes[name] = whole
        return self._checked(ExporterConfig(runtimes, whole.web, whole.log, whole.storage))

    def _checked(self, settings: ExporterConfig) -> ExporterConfig:
        if settings.storage.path is not None and any(config.projects.on_probe for config in settings.runtimes.values()):
            raise ConfigError(
                f"{self._origin(('storage', 'path'))}: storage.path: not allowed with projects.on_probe: "
                "probed projects are not saved"
            )
        return settings

    def _entries(self) -> list[dict[str, Any]]:
        entries = self._tree["runtimes"]
        if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
            raise ConfigError(
                f"{self._origin(('runtimes',))}: runtimes: expected a list of runtimes such as "
                '[{name: eu, base_url: "http://127.0.0.1:8090"}]'
            )
        return entries

    def _name(self, entry: Mapping[str, Any], place: int, taken: Mapping[str, object]) -> str:
        name = entry.get("name")
        if not isinstance(name, str) or not RUNTIME_NAME.fullmatch(name):
            what = "is required" if name is None else f"got {name!r}"
            raise ConfigError(f"{self._origin(('runtimes',))}: runtimes[{place}].name: {RUNTIME_NAME_RULE}; {what}")
        if name in taken:
            raise ConfigError(f"{self._origin(('runtimes',))}: runtimes[{place}].name: duplicate name {name}")
        return name

    def _convert(self, tree: dict[str, Any], name: str = "", own: Mapping[str, object] | None = None) -> FileConfig:
        """Decode the settings of one runtime; `name` and `own` are those of its entry if there are several.

        Environment and flags come last, so that they override what an entry sets too.
        """
        for path, value in self._overrides.items():
            tree = _with(tree, path, value)
        preset: dict[str, Any] = {}
        file, whole = None, tree
        runtime = tree.get("runtime")
        if isinstance(runtime, dict):
            preset, file = _preset(runtime.get("preset", "contract"), self._origin(("runtime", "preset")))
            whole = merged(_without_foreign_list(preset, runtime), tree, depth=_MERGED_LEVELS)
        try:
            config = strict.decode(whole, FileConfig, decode_value)
            if self._check is not None:
                _check_with(self._check, config)
        except strict.MisfitError as error:
            if file is not None and _is_from(preset, tree, error.path):
                raise ConfigError(f"{file}: {'.'.join(error.path)}: {error.what}") from None
            raise ConfigError(self._explain(error, name, own or {})) from None
        return config

    def _origin(self, path: tuple[str, ...]) -> str:
        """Return the source of the setting at a path."""
        return next((self._origins[path[:n]] for n in range(len(path), -1, -1) if path[:n] in self._origins), "config")

    def _explain(self, error: strict.MisfitError, name: str, own: Mapping[str, object]) -> str:
        """Return the source of an invalid setting, its path, and what is expected."""
        path, what = error.path, error.what
        if not name and what == "is required" and path in (("runtime",), ("runtime", "base_url")):
            return (
                f"{self._origin(())}: runtime.base_url: is required; name the runtime's API in the "
                "config file, in SPINNER_EXPORTER_RUNTIME_BASE_URL or with --runtime.base-url"
            )
        if len(path) == 1 and what.startswith("unknown key"):
            what = strict.unknown_key(path[0], [*strict.keys_at(FileConfig, ()), "runtimes"])
        # A file must not contain the token, so it is not suggested.
        what = what.replace(", token, ", ", ").replace("did you mean token?", "did you mean token_file?")
        origin = self._origin(path)
        is_overridden = any(path[: len(each)] == each for each in self._overrides)
        if name and path and path[0] in own and not is_overridden:
            path = _in_entry(name, path)
        return f"{origin}: {'.'.join(path) or 'the file'}: {what}"


def _check_with(check: Check, config: Config) -> None:
    try:
        check(config)
    except ConfigError as error:
        path, _, what = str(error).partition(": ")
        raise strict.MisfitError(tuple(path.split(".")), what) from None


def _with(tree: Mapping[str, Any], path: tuple[str, ...], value: object) -> dict[str, Any]:
    """Return a tree with a value at a path. Aliases of YAML share mappings, so those of the tree stay as they are."""
    key, *below = path
    return {**tree, key: _with(tree.get(key) or {}, tuple(below), value) if below else value}


def _check_no_token(section: object, origin: str) -> None:
    if isinstance(section, dict) and "token" in section:
        raise ConfigError(
            f"{origin}: runtime.token: a token does not belong in this file; put it into a separate file "
            "and name that in runtime.token_file"
        )


def _check_sections(
    tree: Mapping[str, Any], origin: str, *, kind: Any = FileConfig, path: tuple[str, ...] = (), entry: str = ""
) -> None:
    """Raise for a section of a file that is no mapping, before it is merged with another, which would replace it.

    `entry` is the name of the entry of `runtimes` that the tree is of.
    """
    for key, hint in get_type_hints(kind).items():
        is_section = isinstance(hint, type) and issubclass(hint, msgspec.Struct)
        section, place = tree.get(key), (*path, key)
        if section is None or not (is_section or get_origin(hint) is dict):
            continue
        if not isinstance(section, dict):
            try:
                strict.decode(section, dict)
            except strict.MisfitError as error:
                shown = _in_entry(entry, place) if entry else place
                raise ConfigError(f"{origin}: {'.'.join(shown)}: {error.what}") from None
        elif is_section:
            _check_sections(section, origin, kind=hint, path=place, entry=entry)


def _in_entry(name: str, path: tuple[str, ...]) -> tuple[str, ...]:
    """Return the path of a setting of an entry of `runtimes`, as it is in the file."""
    return ("runtimes", name, *(path[1:] if path[0] == "runtime" else path))


_RUNTIME_SECTIONS = frozenset(get_type_hints(Config)) - {"runtime"}
"""Keys that an entry of `runtimes` can have besides those of `runtime`."""


def _preset(name: object, origin: str) -> tuple[dict[str, Any], Path | None]:
    """Return the tree of a preset by its name or path, and its file unless it is one of the package."""
    if isinstance(name, str) and (shipped := _shipped_presets().get(name)):
        return _shipped_preset(shipped), None
    if not isinstance(name, str) or Path(name).suffix not in (".yml", ".yaml"):
        known = ", ".join(_shipped_presets())
        raise ConfigError(
            f"{origin}: runtime.preset: expected one of {known}, or the path of a .yml file; got {name!r}"
        )
    file = Path(name)
    tree = strict.read(file, example=_EXAMPLE)
    known_keys = ["runtime", *sorted(_RUNTIME_SECTIONS)]
    for key in tree:
        if key not in known_keys:
            raise ConfigError(f"{file}: {key}: {strict.unknown_key(key, known_keys)}")
    _check_no_token(tree.get("runtime"), str(file))
    _check_sections(tree, str(file))
    if "preset" in (tree.get("runtime") or {}):
        raise ConfigError(f"{file}: runtime.preset: not allowed in a preset, which is the whole description")
    return tree, file


@functools.cache
def _shipped_presets() -> dict[str, Path]:
    return {file.stem: file for file in sorted(_PRESETS.glob("*.yml"))}


@functools.cache
def _shipped_preset(file: Path) -> dict[str, Any]:
    """Return a preset of the package, for all runtimes the same: reading YAML is slow. Callers do not change it."""
    return strict.read(file, example=_EXAMPLE)


def _is_from(preset: Mapping[str, Any], config: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    """Whether the setting at a path of what they are merged to is the preset's.

    Of one that neither has, what counts is the section that should have it.
    """
    # A path has its places in lists too: `include[0]`.
    keys = tuple(key.partition("[")[0] for key in path[:_MERGED_LEVELS])
    for end in range(len(keys), 0, -1):
        if _has(config, keys[:end]):
            return False
        if _has(preset, keys[:end]):
            return True
    return False


def _has(tree: object, keys: tuple[str, ...]) -> bool:
    for key in keys:
        if not isinstance(tree, Mapping) or key not in tree:
            return False
        tree = tree[key]
    return True


def _without_foreign_list(preset: dict[str, Any], runtime: Mapping[str, Any]) -> dict[str, Any]:
    """Return a preset without its lists of all projects and runs if the config describes other lists of one of them."""
    resources = runtime.get("resources")
    if not isinstance(resources, dict) or "runtime" not in preset:
        return preset
    for name in ("jobs", "records"):
        described = resources.get(name)
        if isinstance(described, dict) and not described.keys().isdisjoint(_ANOTHER_LIST):
            preset = merged(preset, {"runtime": {"resources": {name: dict.fromkeys(("across", "across_changed"))}}})
    return preset


_ANOTHER_LIST = ("path", "method", "query", "body", "changed", "active", "failed", "items", "fields")
"""Keys of `jobs` and of `records` with which it is another list than that of the preset."""

_PRESETS = Path(__file__).parent / "presets"

_EXAMPLE = 'runtime: {base_url: "http://127.0.0.1:8090"}'

# The file, runtime, resources, one resource. A key of a resource is replaced as a whole, so that, for example, the
# preset's paging is not mixed with another.
_MERGED_LEVELS = 4


def _from_environment(environ: Mapping[str, str]) -> Iterable[tuple[tuple[str, ...], str, object]]:
    """Yield path, name and value of each variable of the exporter; one that names no setting is an error.

    An empty one sets nothing: where a file sets a variable, the file that overrides it often cannot remove it.
    """
    known = {ENVIRONMENT_PREFIX + "_".join(path).upper(): (path, kind) for path, kind in _leaves(FileConfig)}
    for name, text in sorted(environ.items()):
        if not name.startswith(ENVIRONMENT_PREFIX) or name.removeprefix(ENVIRONMENT_PREFIX) in _NOT_SETTINGS:
            continue
        if name not in known and _SERVICE_LINK.fullmatch(f"{name.removeprefix(ENVIRONMENT_PREFIX)}={text}"):
            continue
        if name not in known:
            near = strict.nearest(
                name.removeprefix(ENVIRONMENT_PREFIX), (each.removeprefix(ENVIRONMENT_PREFIX) for each in known)
            )
            raise ConfigError(
                f"{name}: no such setting" + (f"; did you mean {ENVIRONMENT_PREFIX}{near}?" if near else "")
            )
        path, kind = known[name]
        if not text:
            continue
        yield path, name, text if kind in (str, Duration, Secret) else _yaml_value(name, text)


_SERVICE_LINK = re.compile(
    r"""
    (?:\w+_)?                                     # the rest of the Service's name, for one such as spinner-exporter-web
    (?: SERVICE_HOST = [0-9a-fA-F.:]+
      | SERVICE_PORT (?:_\w+)? = \d+
      | PORT (?:_\d+_(?:TCP|UDP|SCTP))? = (?:tcp|udp|sctp)://\S+
      | PORT_\d+_(?:TCP|UDP|SCTP)_ (?: PROTO=(?:tcp|udp|sctp) | PORT=\d+ | ADDR=[0-9a-fA-F.:]+ )
    )""",
    re.VERBOSE,
)
"""Variables that Kubernetes sets in each pod for a Service named spinner-exporter, without the prefix:
https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables"""


def _yaml_value(name: str, text: str) -> object:
    try:
        return strict.parse(text)
    except strict.NotYamlError:
        raise ConfigError(f"{name}: expected a YAML value such as 8, true or [a, b]") from None


def _leaves(section: type[msgspec.Struct], prefix: tuple[str, ...] = ()) -> Iterable[tuple[tuple[str, ...], object]]:
    """Yield the path and type of every setting below `section`, optional types without their None."""
    for name, hint in get_type_hints(section).items():
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            yield from _leaves(hint, (*prefix, name))
        else:
            kinds = [kind for kind in get_args(hint) if kind is not type(None)]
            optional = type(None) in get_args(hint)
            yield (*prefix, name), kinds[0] if optional and len(kinds) == 1 else hint
