"""First room: what the operator asked for. File, then environment, then flags become frozen `Settings`.

A setting that is wrong raises `ConfigError` with the place it came from, its path and the expected form.
Values are passed on by `service`; no other room reads the environment or a file of settings.
"""

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints
from urllib.parse import urlsplit

import msgspec
import yaml

from exporter import strict
from exporter.description import Resources, merged
from exporter.errors import ConfigError
from exporter.status import Status

ENVIRONMENT_PREFIX = "SPINNER_EXPORTER_"

# The environment's own words for things that are not settings of the tree (the path of the file itself).
_NOT_SETTINGS = {"CONFIG_FILE"}


class Duration(float):
    """Seconds, written as Prometheus writes durations: `5s`, `1h30m`, `500ms`; `0.5s` is taken too."""


class Secret:
    """A value that must not be printed; `reveal()` is the only way to it."""

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


class AuthConfig(strict.Section, frozen=True):
    """How the token is shown to the API."""

    type: str = "bearer"
    """`bearer`; `header`, alone in a header of its own; or `basic`, as the password of `username`."""
    header: str = "X-Api-Key"
    username: str = ""

    def __post_init__(self) -> None:
        _one_of("type", self.type, ("bearer", "header", "basic"))
        if not re.fullmatch(r"[A-Za-z0-9-]+", self.header):
            raise ValueError("header: expected a header's name such as X-Api-Key")
        if (self.type == "basic") != bool(self.username):
            raise ValueError("username: expected with type: basic, and there alone")


class TlsConfig(strict.Section, frozen=True):
    """Whom to trust, and who we are."""

    ca_file: str | None = None
    """Certificates of the authorities to trust instead of the system's."""
    cert_file: str | None = None
    """Our certificate, where the API asks for one."""
    key_file: str | None = None
    """Its key, where it is not in `cert_file` as well."""

    def __post_init__(self) -> None:
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file: expected beside cert_file alone")


class RuntimeConfig(strict.Section, frozen=True):
    """Where the runtime is and how to be let in."""

    base_url: str
    """The API's URL without `/api/v1`."""
    resources: Resources
    """How the API is laid out; what a config does not say is the preset's."""
    preset: str = "contract"
    """The description to begin with: the name of one that comes with the package, or a file."""
    project: str = "default"
    """What the one project is called where the API has none (`resources.projects: absent`)."""
    auth: AuthConfig = msgspec.field(default_factory=AuthConfig)
    tls: TlsConfig = msgspec.field(default_factory=TlsConfig)
    proxy: str | None = None
    """URL of a proxy between us and the API."""
    headers: dict[str, str] = {}
    """Headers that every request carries."""
    query: dict[str, str] = {}
    """Query parameters that every request carries."""
    token_file: str | None = None
    """A file with the bearer token, read again when it changes."""
    token: Secret | None = None
    """The token itself; comes from the environment only, never from a file or a flag."""
    timeout: Duration = Duration(10)
    """How long one request may take."""
    heartbeat_timeout: Duration = Duration(180)
    """Without a heartbeat for so long the worker service counts as down, whatever the API says of it."""

    def __post_init__(self) -> None:
        try:
            url = urlsplit(self.base_url)
            usable = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
        except ValueError:
            usable = False  # a port beyond all, half an IPv6 address
        if not usable:
            raise ValueError("base_url: expected a URL such as http://127.0.0.1:8090")
        if url.username or url.password:
            raise ValueError("base_url: must not contain a user or password; use token_file")
        if url.query or url.fragment:
            raise ValueError("base_url: expected a URL without a query or fragment")
        if self.proxy is not None and urlsplit(self.proxy).scheme not in ("http", "https", "socks5"):
            raise ValueError("proxy: expected a URL such as http://proxy.example.com:3128")
        if any(name.casefold() in ("authorization", "cookie") for name in self.headers):
            raise ValueError("headers: a secret does not belong in this file; use token_file and auth")
        if self.timeout <= 0:
            raise ValueError("timeout: expected a duration above zero")
        if self.heartbeat_timeout <= 0:
            raise ValueError("heartbeat_timeout: expected a duration above zero")


class ProjectsConfig(strict.Section, frozen=True):
    """Which projects are read, by name; patterns match the whole name."""

    include: tuple[re.Pattern[str], ...] = ()
    """Read only projects that match one of these; empty: all."""
    exclude: tuple[re.Pattern[str], ...] = ()
    """Never read projects that match one of these."""
    on_probe: bool = False
    """Read a project when it is asked for by `/probe`, and none for `/metrics`."""

    def wanted(self, name: str) -> bool:
        """Whether a project of this name is to be read."""
        if self.include and not any(pattern.fullmatch(name) for pattern in self.include):
            return False
        return not any(pattern.fullmatch(name) for pattern in self.exclude)


class SyncConfig(strict.Section, frozen=True):
    """When and how the runtime is read. Nothing is read unless somebody scrapes."""

    min_interval: Duration = Duration(5)
    """A scrape that comes sooner than this after the last read is answered from the store."""
    stale_after: Duration = Duration(300)
    """How long the last good data of a project are shown when it cannot be read."""
    concurrency: int = 8
    """Requests under way at once, over all projects."""
    timeout_offset: Duration = Duration(0.5)
    """Taken off Prometheus's scrape timeout to leave time for the answer's way back."""
    sweep_interval: Duration = Duration(120)
    """How often every run that has not ended is read again, whatever its `updatedAt` says."""
    overlap: Duration = Duration(120)
    """How far behind its last read an incremental read starts, for changes that became visible late."""

    def __post_init__(self) -> None:
        if not 1 <= self.concurrency <= 256:
            raise ValueError("concurrency: expected a number from 1 to 256")
        if self.stale_after < self.min_interval:
            raise ValueError("stale_after: expected at least min_interval")


class LimitsConfig(strict.Section, frozen=True):
    """What keeps the page small when the runtime's lists are not."""

    runs: int = 20_000
    """Runs with series of their own; those that have not ended are kept, and of the others those that ended last."""
    failed_records_per_run: int = 10
    """Failed records named per run, the newest."""
    failed_records: int = 1_000
    """Failed records named over all runs."""
    failure_groups: int = 10
    """Pairs of step and error code named per run, the largest; the rest is `other`."""
    label_length: int = 128
    """Characters of a label value; longer names are cut."""
    projects: int = 5_000
    """Projects that are read: those that are read already, then the first of the list."""
    pages: int = 1_000
    """Pages of a list; one with more is taken for one without an end."""
    body_bytes: int = 33_554_432
    """Bytes of an answer of the API, unpacked."""

    def __post_init__(self) -> None:
        for name, least in (("runs", 1), ("failed_records_per_run", 0), ("failed_records", 0),
                            ("failure_groups", 1), ("label_length", 16), ("projects", 1),
                            ("pages", 1), ("body_bytes", 1024)):  # fmt: skip
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected a whole number, {least} or more")


class StallsConfig(strict.Section, frozen=True):
    """The least and the most silence that can count as a stall, whatever a run's pace says."""

    floor: Duration = Duration(600)
    ceiling: Duration = Duration(43200)

    def __post_init__(self) -> None:
        _floor_below_ceiling(self.floor, self.ceiling)


class SpinnerConfig(strict.Section, frozen=True):
    """What is different for some spinners; of several entries that match, the first that says a thing counts."""

    project: re.Pattern[str] | None = None
    """The entry is for projects whose whole name matches; None: for all."""
    spinner: re.Pattern[str] | None = None
    """The entry is for spinners whose whole name matches; None: for all."""
    stall_floor: Duration | None = None
    stall_ceiling: Duration | None = None
    expected_interval: Duration | None = None
    """How often the spinner should run."""

    def __post_init__(self) -> None:
        if self.stall_floor is not None and self.stall_ceiling is not None and self.stall_ceiling < self.stall_floor:
            raise ValueError("stall_ceiling: expected at least stall_floor")

    def matches(self, project: str, spinner: str) -> bool:
        """Whether the entry is for this spinner of this project."""
        if self.project is not None and not self.project.fullmatch(project):
            return False
        return self.spinner is None or self.spinner.fullmatch(spinner) is not None


class WebConfig(strict.Section, frozen=True):
    """Our own HTTP server; read at the start, not at a reload."""

    listen_address: str = ":10095"
    config_file: str | None = None
    """A file that says who is let in, in the format of Prometheus's exporter-toolkit; read again when it changes."""
    enable_lifecycle: bool = False
    """Allow `POST /-/reload`."""

    def __post_init__(self) -> None:
        try:
            split_address(self.listen_address)
        except ValueError as error:
            raise ValueError(f"listen_address: {error}") from None


class StorageConfig(strict.Section, frozen=True):
    """What outlives the process; read at the start, not at a reload."""

    path: str | None = None
    """Folder for the state files; None: a restart begins anew."""


class LogConfig(strict.Section, frozen=True):
    """Log lines, on standard error; read at the start, not at a reload."""

    level: str = "info"
    format: str = "logfmt"

    def __post_init__(self) -> None:
        _one_of("level", self.level, ("debug", "info", "warn", "error"))
        _one_of("format", self.format, ("logfmt", "json"))


class Config(strict.Section, frozen=True):
    """What holds for one runtime. Each field's meaning and default stand in `docs/configuration.md`."""

    runtime: RuntimeConfig
    projects: ProjectsConfig = msgspec.field(default_factory=ProjectsConfig)
    retention: Duration = Duration(3600)
    """How long a run keeps its series after its end."""
    sync: SyncConfig = msgspec.field(default_factory=SyncConfig)
    statuses: dict[str, str] = {}
    """Extra status labels of this deployment and the idea behind each."""
    stalls: StallsConfig = msgspec.field(default_factory=StallsConfig)
    spinners: tuple[SpinnerConfig, ...] = ()
    limits: LimitsConfig = msgspec.field(default_factory=LimitsConfig)

    def __post_init__(self) -> None:
        ideas = [status.value for status in Status if status is not Status.UNKNOWN]
        for label, idea in self.statuses.items():
            _one_of(f"statuses.{label}", idea, ideas)


class WholeConfig(Config, frozen=True):
    """Everything that a file with one runtime can say."""

    web: WebConfig = msgspec.field(default_factory=WebConfig)
    log: LogConfig = msgspec.field(default_factory=LogConfig)
    storage: StorageConfig = msgspec.field(default_factory=StorageConfig)


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """Everything that was asked for."""

    runtimes: Mapping[str, Config]
    """What holds for each runtime, by its name; the one of a file that has just one is called ``."""
    web: WebConfig
    log: LogConfig
    storage: StorageConfig


def load(
    file: Path | None,
    *,
    environ: Mapping[str, str],
    flags: Mapping[str, object] | None = None,
) -> Settings:
    """Read the file, lay the environment over it, then the flags, and decode the result.

    `flags` maps a setting's path (`web.listen_address`) to its value. Raises `ConfigError`.
    """
    settings = _Settings()
    if file is not None:
        settings.lay(strict.read(file, example=_EXAMPLE), origin=str(file))
    for path, name, value in _from_environment(environ):
        settings.put(path, value, origin=name)
    for dotted, value in (flags or {}).items():
        settings.put(tuple(dotted.split(".")), value, origin=flag_of(dotted))
    return settings.decode()


def flag_of(dotted: str) -> str:
    """Return the flag for a setting; the file of `web` is called as in every exporter of Prometheus's."""
    return {"web.config_file": "--web.config.file"}.get(dotted, "--" + dotted.replace("_", "-"))


def parse_duration(text: str) -> Duration:
    """Return the seconds of a Prometheus duration; raises `ValueError` when it is not one.

    >>> parse_duration("1h30m")
    5400.0
    """
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        raise ValueError(f"expected a duration such as 5s or 1h30m, got {text!r}")
    return Duration(sum(float(number) * _SECONDS[unit] for number, unit in re.findall(r"([\d.]+)([a-z]+)", text)))


def split_address(address: str) -> tuple[str, int]:
    """Split `host:port`, `[::1]:port` or `:port` (all interfaces, host is empty); raises `ValueError`."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535 or " " in host:
        raise ValueError(f"expected host:port or :port, got {address!r}")
    return host, int(port)


_UNITS = ("y", "w", "d", "h", "m", "s", "ms")
_SECONDS = {"y": 365 * 86400, "w": 7 * 86400, "d": 86400, "h": 3600, "m": 60, "s": 1, "ms": 0.001}
_DURATION = re.compile("0|" + "".join(rf"(?:\d+(?:\.\d+)?{unit})?" for unit in _UNITS))


class _Settings:
    """The tree of settings while it is put together; remembers where each came from."""

    def __init__(self) -> None:
        self._tree: dict[str, Any] = {}
        self._origins: dict[tuple[str, ...], str] = {}

    def lay(self, tree: dict[str, Any], *, origin: str) -> None:
        self._tree = tree
        self._origins[()] = origin
        entries = tree.get("runtimes")
        for section in (tree.get("runtime"), *(entries if isinstance(entries, list) else ())):
            if isinstance(section, dict) and "token" in section:
                raise ConfigError(
                    f"{origin}: runtime.token: a token does not belong in this file; put it into a file of its own "
                    "and name that in runtime.token_file"
                )

    def put(self, path: tuple[str, ...], value: object, *, origin: str) -> None:
        at = self._tree
        for key in path[:-1]:
            below = at.get(key)
            if not isinstance(below, dict):
                below = at[key] = {}
            at = below
        at[path[-1]] = value
        self._origins[path] = origin

    def decode(self) -> Settings:
        if "runtimes" not in self._tree:
            whole = self._convert(self._tree)
            return self._checked(Settings({"": whole}, whole.web, whole.log, whole.storage))
        shared = {key: value for key, value in self._tree.items() if key != "runtimes"}
        if "runtime" in shared:
            origins = (origin for path, origin in self._origins.items() if path[:1] == ("runtime",))
            origin = next(origins, self._origin(()))
            raise ConfigError(f"{origin}: runtime: expected either runtime or runtimes, not both")
        runtimes: dict[str, Config] = {}
        for place, entry in enumerate(self._entries()):
            name = self._name(entry, place, runtimes)
            own: dict[str, Any] = {"runtime": {}}
            for key, value in entry.items():
                (own if key in _OF_ONE_RUNTIME else own["runtime"])[key] = value
            del own["runtime"]["name"]
            whole = self._convert(merged(shared, own, depth=_MERGED_LEVELS), name, own)
            runtimes[name] = whole
        return self._checked(Settings(runtimes, whole.web, whole.log, whole.storage))

    def _checked(self, settings: Settings) -> Settings:
        if settings.storage.path is not None and any(config.projects.on_probe for config in settings.runtimes.values()):
            raise ConfigError(
                f"{self._origin(('storage', 'path'))}: storage.path: expected none with projects.on_probe: what is "
                "probed is not kept over a restart"
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
        if not isinstance(name, str) or not re.fullmatch(r"[\w.-]{1,64}", name):
            what = "is required" if name is None else f"got {name!r}"
            expected = "expected up to 64 letters, digits, dots and dashes"
            raise ConfigError(f"{self._origin(('runtimes',))}: runtimes[{place}].name: {expected}; {what}")
        if name in taken:
            raise ConfigError(f"{self._origin(('runtimes',))}: runtimes[{place}].name: {name} stands twice")
        return name

    def _convert(self, tree: dict[str, Any], name: str = "", own: Mapping[str, object] | None = None) -> WholeConfig:
        """Decode the settings of one runtime; with several its `name`, and what its entry says of its own."""
        runtime = tree.get("runtime")
        if isinstance(runtime, dict):
            preset = _preset(runtime.get("preset", "contract"), self._origin(()))
            tree = merged(preset, tree, depth=_MERGED_LEVELS)
        try:
            return strict.decode(tree, WholeConfig, _decode_value)
        except strict.MisfitError as error:
            raise ConfigError(self._explain(error, name, own or {})) from None

    def _origin(self, path: tuple[str, ...]) -> str:
        """Return where the setting at a path came from."""
        return next((self._origins[path[:n]] for n in range(len(path), -1, -1) if path[:n] in self._origins), "config")

    def _explain(self, error: strict.MisfitError, name: str, own: Mapping[str, object]) -> str:
        """Say where a setting that does not fit came from, which it is, and what is expected."""
        path, what = error.path, error.what
        if not name and what == "is required" and path in (("runtime",), ("runtime", "base_url")):
            return (
                f"{self._origin(())}: runtime.base_url: is required; name the runtime's API in the "
                "config file, in SPINNER_EXPORTER_RUNTIME_BASE_URL or with --runtime.base-url"
            )
        if len(path) == 1 and what.startswith("unknown key"):
            what = strict.unknown_key(path[0], [*strict.keys_at(WholeConfig, ()), "runtimes"])
        # The token is no key of a file, so nobody is pointed to it.
        what = what.replace(", token, ", ", ")
        origin = self._origin(path)
        if name and path and path[0] in own:
            path = ("runtimes", name, *(path[1:] if path[0] == "runtime" else path))
        return f"{origin}: {'.'.join(path) or 'the file'}: {what}"


_OF_ONE_RUNTIME = frozenset(get_type_hints(Config)) - {"runtime"}
"""What an entry of `runtimes` can say beside what `runtime` can."""


def _decode_value(kind: type, value: object) -> object:
    """Decode what msgspec has no type for: durations, patterns, secrets."""
    if kind is Duration:
        if not isinstance(value, str):
            raise ValueError(f"expected a duration such as 5s or 1h30m, got {value!r}")
        return parse_duration(value)
    if kind is Secret:
        return Secret(str(value))
    if kind == re.Pattern[str]:
        try:
            return re.compile(str(value))
        except re.error as error:
            raise ValueError(f"expected a regular expression, got {value!r}: {error}") from None
    raise NotImplementedError(kind)


def _preset(name: object, origin: str) -> dict[str, Any]:
    """Return the tree of a preset, by its name or its file."""
    shipped = {file.stem: file for file in sorted(_PRESETS.glob("*.yml"))}
    if isinstance(name, str) and name in shipped:
        return strict.read(shipped[name], example=_EXAMPLE)
    if isinstance(name, str) and Path(name).suffix in (".yml", ".yaml"):
        return strict.read(Path(name), example=_EXAMPLE)
    known = ", ".join(shipped)
    raise ConfigError(f"{origin}: runtime.preset: expected one of {known}, or the path of a .yml file; got {name!r}")


_PRESETS = Path(__file__).parent / "presets"

_EXAMPLE = 'runtime: {base_url: "http://127.0.0.1:8090"}'

# The file, runtime, resources, one resource: a key of that is taken as a whole, so that nothing of the preset's paging,
# say, is left in another.
_MERGED_LEVELS = 4


def _from_environment(environ: Mapping[str, str]) -> Iterable[tuple[tuple[str, ...], str, object]]:
    """Yield path, variable and value for each of our variables; a variable that names no setting is refused."""
    known = {ENVIRONMENT_PREFIX + "_".join(path).upper(): (path, kind) for path, kind in _leaves(WholeConfig)}
    for name, text in sorted(environ.items()):
        if not name.startswith(ENVIRONMENT_PREFIX) or name.removeprefix(ENVIRONMENT_PREFIX) in _NOT_SETTINGS:
            continue
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ConfigError(f"{name}: no such setting" + (f"; did you mean {near[0]}?" if near else ""))
        path, kind = known[name]
        yield path, name, text if kind in (str, Duration, Secret) else _yaml_value(name, text)


def _yaml_value(name: str, text: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
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


def _floor_below_ceiling(floor: float, ceiling: float) -> None:
    if floor <= 0:
        raise ValueError("floor: expected a duration above zero")
    if ceiling < floor:
        raise ValueError("ceiling: expected at least the floor")


def _one_of(key: str, value: str, allowed: Iterable[str]) -> None:
    allowed = tuple(allowed)
    if value not in allowed:
        raise ValueError(f"{key}: expected one of {', '.join(allowed)}, got {value!r}")
