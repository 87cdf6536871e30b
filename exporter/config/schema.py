"""The sections of a config file as frozen structs: keys, defaults, meanings, and the checks of each section.

`loading` builds them; everything after this package receives them and never reads a file or the environment.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import urlsplit

import msgspec

from exporter.config import strict
from exporter.config.api_description import Resources
from exporter.config.values import Duration, Secret, split_address
from exporter.status import Status


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


@dataclasses.dataclass(frozen=True, slots=True)
class SpinnerPolicy:
    """What the config says about one spinner. Times are seconds."""

    stall_floor: float
    """The least silence that can count as a stall."""
    stall_ceiling: float
    """The silence that always counts as a stall; at least the floor."""
    expected_interval: float | None
    """How often the spinner should run; None: the config does not say."""


class Config(strict.Section, frozen=True, dict=True):
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

    def spinner_policy(self, project: str, spinner: str) -> SpinnerPolicy:
        """Return what holds for a spinner, by the name of its project and its own."""
        return self._spinner_policies(project, spinner)

    @functools.cached_property
    def _spinner_policies(self) -> Callable[[str, str], SpinnerPolicy]:
        # The policy is read for every run of every page. The cache refers to two sections and not to the config, so
        # that both are freed with the last reference to the config.
        entries, stalls = self.spinners, self.stalls

        @functools.lru_cache(maxsize=CACHED_POLICIES)
        def policy(project: str, spinner: str) -> SpinnerPolicy:
            matching = [entry for entry in entries if entry.matches(project, spinner)]
            floor = next((e.stall_floor for e in matching if e.stall_floor is not None), stalls.floor)
            ceiling = next((e.stall_ceiling for e in matching if e.stall_ceiling is not None), stalls.ceiling)
            interval = next((e.expected_interval for e in matching if e.expected_interval is not None), None)
            return SpinnerPolicy(floor, max(ceiling, floor), interval)

        return policy


CACHED_POLICIES = 10_000
"""Spinners whose policy a config caches."""


class FileConfig(Config, frozen=True):
    """Everything that a file with one runtime can say."""

    web: WebConfig = msgspec.field(default_factory=WebConfig)
    log: LogConfig = msgspec.field(default_factory=LogConfig)
    storage: StorageConfig = msgspec.field(default_factory=StorageConfig)


@dataclasses.dataclass(frozen=True, slots=True)
class ExporterConfig:
    """Everything that was asked for."""

    runtimes: Mapping[str, Config]
    """What holds for each runtime, by its name; the one of a file that has just one is called ``."""
    web: WebConfig
    log: LogConfig
    storage: StorageConfig


def _floor_below_ceiling(floor: float, ceiling: float) -> None:
    if floor <= 0:
        raise ValueError("floor: expected a duration above zero")
    if ceiling < floor:
        raise ValueError("ceiling: expected at least the floor")


def _one_of(key: str, value: str, allowed: Iterable[str]) -> None:
    allowed = tuple(allowed)
    if value not in allowed:
        raise ValueError(f"{key}: expected one of {', '.join(allowed)}, got {value!r}")
