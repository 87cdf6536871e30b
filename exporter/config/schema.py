"""The sections of a config file as frozen structs: keys, defaults, meanings, and the checks of each section.

`loading` builds them; everything after this package receives them and never reads a file or the environment.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import SplitResult

import msgspec

from exporter.config import strict
from exporter.config.api_description import Resources
from exporter.config.values import (
    Duration,
    Secret,
    host_and_path,
    is_header_name,
    is_header_value,
    literal,
    parse_duration,
    split_address,
    split_url,
)
from exporter.status import Status


class LoginConfig(strict.Section, frozen=True):
    """A POST request whose response has the token; it is sent again before the token expires, and after a 401."""

    path: str
    """Path below `base_url`."""
    body_file: str
    """File that contains the body, with its secrets: a JSON document, or form data. Read again when it changes."""
    token: str = "access_token"  # noqa: S105
    """JMESPath from the response to the token."""
    lifetime: str | None = None
    """A duration, or the JMESPath from the response to the seconds for which the token is valid."""
    expires: str | None = None
    """JMESPath from the response to the time at which the token expires."""

    def __post_init__(self) -> None:
        if not self.path.startswith("/") or not self.path.isprintable():
            raise ValueError("path: expected a path that begins with /")
        if self.lifetime is not None and self.expires is not None:
            raise ValueError("expires: not allowed together with lifetime")
        try:
            too_short = self.fixed_lifetime is not None and self.fixed_lifetime <= 0
        except ValueError as error:
            raise ValueError(f"lifetime: {error}, or a JMESPath such as expires_in") from None
        if too_short:
            raise ValueError("lifetime: expected a duration above zero")

    @property
    def fixed_lifetime(self) -> Duration | None:
        """The duration in `lifetime`; None if there is none. No JMESPath begins with a digit."""
        return parse_duration(self.lifetime) if self.lifetime and self.lifetime[0].isdigit() else None


class AuthConfig(strict.Section, frozen=True):
    """How requests carry the token, and where it comes from if no file has it."""

    type: str = "bearer"
    """`bearer`; `header`: as the value of `header`; or `basic`: as the password of `username`."""
    header: str = "X-Api-Key"
    username: str = ""
    value: str | None = None
    """The value of the header, with `{token}`; None: `Bearer {token}`, or with `header` the token alone."""
    login: LoginConfig | None = None
    """The request for a token; None: it is in a file or in the environment."""

    def __post_init__(self) -> None:
        if self.value is not None:
            if self.type == "basic":
                raise ValueError("value: not allowed with type: basic")
            if re.findall(r"\{\w*\}", self.value) != ["{token}"] or not is_header_value(self.value):
                raise ValueError(
                    "value: expected one line of ASCII text that contains {token} once, such as Token {token}"
                )
        _one_of("type", self.type, ("bearer", "header", "basic"))
        if not is_header_name(self.header) or self.header.casefold() in _FRAMING:
            raise ValueError("header: expected the name of a header such as X-Api-Key")
        if (self.type == "basic") != bool(self.username):
            raise ValueError("username: required with type: basic, and not allowed otherwise")
        if ":" in self.username or not self.username.isprintable():
            raise ValueError("username: expected one line of text without a colon")


_FRAMING = frozenset({"connection", "content-length", "host", "te", "transfer-encoding", "upgrade"})
"""Headers that say where a request goes or ends, which the HTTP client writes by itself."""

_SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})


class TlsConfig(strict.Section, frozen=True):
    """Certificates: the authorities to trust, and a client certificate."""

    ca_file: str | None = None
    """Certificates of authorities to trust instead of the system's."""
    cert_file: str | None = None
    """Client certificate, if the API requires one."""
    key_file: str | None = None
    """Its key, if `cert_file` does not contain it."""

    def __post_init__(self) -> None:
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file: requires cert_file")


DIRECT = "none"
"""The value of `runtime.proxy` that turns off the proxy of the environment."""

RUNTIME_NAME = re.compile(r"[\w.:/\[\]-]{1,64}")
"""Also matches most default names, so that a runtime can keep its label when its URL changes."""

RUNTIME_NAME_RULE = "expected up to 64 letters, digits and characters of .-_:/[]"


class RuntimeConfig(strict.Section, frozen=True):
    """The runtime's API: its URL, description and authentication."""

    base_url: str
    """The API's URL without `/api/v1`."""
    resources: Resources
    """The description of the API; what a config does not set comes from the preset."""
    name: str | None = None
    """Value of the label `runtime`; None: the URL without its scheme."""
    preset: str = "contract"
    """The description to start from: the name of one in this package, or a file."""
    project: str = "default"
    """Name of the single project if the API has none (`resources.projects: absent`)."""
    auth: AuthConfig = msgspec.field(default_factory=AuthConfig)
    tls: TlsConfig = msgspec.field(default_factory=TlsConfig)
    proxy: str | None = None
    """URL of a proxy for requests to the API; `none`: no proxy; None: the one that the environment names."""
    headers: dict[str, str] = {}
    """Headers of every request."""
    query: dict[str, str] = {}
    """Query parameters of every request."""
    token_file: str | None = None
    """File that contains the token; read again when it changes."""
    token: Secret | None = None
    """The token, from the environment only."""
    timeout: Duration = Duration(10)
    """Timeout of one request."""
    heartbeat_timeout: Duration = Duration(180)
    """Time without a heartbeat after which the worker service counts as down, whatever status the API reports."""

    def __post_init__(self) -> None:
        url = _url(self.base_url, ("http", "https"))
        if url is None:
            raise ValueError("base_url: expected a URL such as http://127.0.0.1:8090, without spaces")
        if url.username or url.password:
            raise ValueError("base_url: must not contain a user or password; use token_file")
        if url.query or url.fragment:
            raise ValueError("base_url: expected a URL without a query or fragment")
        if self.proxy not in (None, DIRECT) and _url(self.proxy, ("http", "https", "socks5", "socks5h")) is None:
            raise ValueError("proxy: expected a URL such as http://proxy.example.com:3128, or none")
        _check_headers(self.headers)
        if self.auth.login is not None and (self.token is not None or self.token_file is not None):
            raise ValueError("auth.login: not allowed together with a token or token_file")
        if self.token is not None:
            _check_token(self.token.reveal(), self.auth.type)
        _above_zero("timeout", self.timeout)
        _above_zero("heartbeat_timeout", self.heartbeat_timeout)
        if self.name is not None and not RUNTIME_NAME.fullmatch(self.name):
            raise ValueError(f"name: {RUNTIME_NAME_RULE}; got {self.name!r}")

    @property
    def label(self) -> str:
        """The value of the label `runtime`."""
        return self.name or host_and_path(self.base_url)


class ProjectsConfig(strict.Section, frozen=True):
    """The projects that are read, by name; patterns match the whole name."""

    include: tuple[re.Pattern[str], ...] = ()
    """Read only projects that match one of these; empty: all projects."""
    exclude: tuple[re.Pattern[str], ...] = ()
    """Never read projects that match one of these."""
    on_probe: bool = False
    """Read projects only for `/probe`, and none for `/metrics`."""

    def wanted(self, name: str) -> bool:
        """Return whether a project of this name is read."""
        if self.include and not any(pattern.fullmatch(name) for pattern in self.include):
            return False
        return not any(pattern.fullmatch(name) for pattern in self.exclude)


class SyncConfig(strict.Section, frozen=True):
    """When and how the runtime is read. Only scrapes and probes start a read."""

    min_interval: Duration = Duration(5)
    """A scrape within this time after the last read is answered from the store."""
    stale_after: Duration = Duration(300)
    """How long the last data of a project that cannot be read are shown."""
    concurrency: int = 8
    """Concurrent requests, over all projects."""
    timeout_offset: Duration = Duration(0.5)
    """Subtracted from Prometheus's scrape timeout, to leave time to send the response."""
    sweep_interval: Duration = Duration(120)
    """How often all runs that have not ended are read again, whatever their `updatedAt`."""
    projects_interval: Duration = Duration(60)
    """How often the list of projects is read; also at once when a run or a probe names a project that it lacks."""
    overlap: Duration = Duration(120)
    """How long before the previous read an incremental read starts, for changes that become visible late."""

    def __post_init__(self) -> None:
        if not 1 <= self.concurrency <= 256:
            raise ValueError("concurrency: expected a number from 1 to 256")
        if self.stale_after < LEAST_STALE_AFTER:
            raise ValueError("stale_after: expected a duration of at least 1s: no read of everything may take longer")
        if self.stale_after < self.min_interval:
            raise ValueError("stale_after: expected at least min_interval")


LEAST_STALE_AFTER = 1.0
"""Seconds of `sync.stale_after` at least: a read that takes longer is given up, so with less every read would be."""


class LimitsConfig(strict.Section, frozen=True):
    """Limits of what is read, kept and shown."""

    runs: int = 20_000
    """Runs that have their own series. Runs that have not ended are kept first, then those that ended last."""
    open_runs: int = 100_000
    """Runs that have not ended and are tracked; a read that brings more fails."""
    spinners: int = 10_000
    """Spinners that have their own series; the runs of others are counted as spinner `other` of their project."""
    spinners_per_project: int = 1_000
    """The same for each project."""
    failed_records_per_run: int = 10
    """Failed records named per run: the newest."""
    failed_records: int = 1_000
    """Failed records named over all runs."""
    failed_record_requests: int = 50
    """Requests for failed records in one sync, of all projects together."""
    record_in_flight_requests: int = 20
    """Requests for records in flight of silent runs in one sync, of all projects together."""
    waiting_record_requests: int = 10
    """Requests for waiting records in one sync, of all projects together."""
    rereads: int = 200
    """Runs that one sync reads one by one, because they should be in a list and are not."""
    failure_groups: int = 10
    """Pairs of step and error code named per run: the largest; the rest is summed as `other`."""
    label_length: int = 128
    """Characters of a label value; longer names are truncated."""
    projects: int = 5_000
    """Projects that are read: first those that are read already, then in the order of the list."""
    pages: int = 1_000
    """Pages of a list; a longer list counts as endless."""
    body_bytes: int = 33_554_432
    """Decompressed bytes of one response."""
    read_bytes: int = 134_217_728
    """Bytes that all reads of a runtime may hold in memory until they are applied."""
    meters: int = 1_000
    """Meters of the plan; more are an error."""

    def __post_init__(self) -> None:
        for name, least in LEAST_LIMITS.items():
            if not least <= getattr(self, name) <= MAX_LIMIT:
                raise ValueError(f"{name}: expected a whole number, {least:,} to {MAX_LIMIT:,}")


class StallsConfig(strict.Section, frozen=True):
    """Bounds of the stall threshold, whatever the pace of a run."""

    floor: Duration = Duration(600)
    ceiling: Duration = Duration(43200)
    false_pages: float = 0.4
    """False pages that are acceptable per 100 hours of runs: with fewer, stalls are found later."""

    def __post_init__(self) -> None:
        _above_zero("floor", self.floor)
        _above_zero("ceiling", self.ceiling)
        if self.ceiling < self.floor:
            raise ValueError("ceiling: expected at least the floor")
        if not 0.01 <= self.false_pages <= 100:
            raise ValueError("false_pages: expected a number from 0.01 to 100")


class SpinnerConfig(strict.Section, frozen=True):
    """Settings of some spinners; for each setting, the first entry that matches and has it applies."""

    project: re.Pattern[str] | None = None
    """Pattern of the project's whole name; None matches all."""
    spinner: re.Pattern[str] | None = None
    """Pattern of the spinner's whole name; None matches all."""
    stall_floor: Duration | None = None
    stall_ceiling: Duration | None = None
    expected_interval: Duration | None = None
    """How often the spinner should run."""

    def __post_init__(self) -> None:
        for key in ("stall_floor", "stall_ceiling", "expected_interval"):
            _above_zero(key, getattr(self, key))
        if self.stall_floor is not None and self.stall_ceiling is not None and self.stall_ceiling < self.stall_floor:
            raise ValueError("stall_ceiling: expected at least stall_floor")

    def matches(self, project: str, spinner: str) -> bool:
        """Return whether the entry applies to this spinner of this project."""
        return self.matches_project(project) and (self.spinner is None or self.spinner.fullmatch(spinner) is not None)

    def matches_project(self, project: str) -> bool:
        """Return whether the entry can apply to spinners of this project."""
        return self.project is None or self.project.fullmatch(project) is not None

    def named_in(self, project: str) -> str | None:
        """Return the spinner that the entry names in this project; None if project or spinner are not one name."""
        if self.project is None or self.spinner is None or literal(self.project) != project:
            return None
        return literal(self.spinner)


class WebConfig(strict.Section, frozen=True):
    """The exporter's HTTP server; read at the start, not at a reload."""

    listen_address: str = ":10095"
    config_file: str | None = None
    """File with TLS and authentication, in the format of Prometheus's exporter-toolkit; read again when it changes."""
    enable_lifecycle: bool = False
    """Allow `POST /-/reload`."""

    def __post_init__(self) -> None:
        try:
            split_address(self.listen_address)
        except ValueError as error:
            raise ValueError(f"listen_address: {error}") from None


class StorageConfig(strict.Section, frozen=True):
    """State that survives a restart; read at the start, not at a reload."""

    path: str | None = None
    """Folder for the state files; None: a restart resets all counters."""


class LogConfig(strict.Section, frozen=True):
    """Logging to standard error; read at the start, not at a reload."""

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
    false_pages: float = 0.4
    """False pages that are acceptable per 100 hours of runs."""

    @property
    def false_page_rate(self) -> float:
        """False pages that are acceptable per second of a run."""
        return self.false_pages / 360_000


class Config(strict.Section, frozen=True, dict=True):
    """The settings of one runtime. `docs/configuration.md` documents each key and its default."""

    runtime: RuntimeConfig
    projects: ProjectsConfig = msgspec.field(default_factory=ProjectsConfig)
    retention: Duration = Duration(3600)
    """How long a run keeps its series after its end."""
    spinner_retention: Duration = Duration(30 * 86400)
    """How long a spinner keeps its series and counters after its last run left."""
    sync: SyncConfig = msgspec.field(default_factory=SyncConfig)
    statuses: dict[str, str] = {}
    """The status of further status labels of this deployment."""
    stalls: StallsConfig = msgspec.field(default_factory=StallsConfig)
    spinners: tuple[SpinnerConfig, ...] = ()
    limits: LimitsConfig = msgspec.field(default_factory=LimitsConfig)

    def __post_init__(self) -> None:
        _above_zero("spinner_retention", self.spinner_retention)
        known = [status.value for status in Status if status is not Status.UNKNOWN]
        for label, status in self.statuses.items():
            _one_of(f"statuses.{label}", status, known)

    @functools.cached_property
    def least_stall_floor(self) -> float:
        """The least silence that can count as a stall, of all spinners."""
        floors = (entry.stall_floor for entry in self.spinners)
        return min([self.stalls.floor, *(floor for floor in floors if floor is not None)])

    def spinner_policy(self, project: str, spinner: str) -> SpinnerPolicy:
        """Return what holds for a spinner, by the name of its project and its own."""
        return self._spinner_policies(project, spinner)

    def expected_spinners(self, project: str) -> tuple[str, ...]:
        """Return the spinners of a project that the config names and expects to run, whether they ever ran or not."""
        return self._expectations(project)[0]

    def history(self, project: str) -> float:
        """Return how many seconds of runs the first read of a project asks for.

        So far that the last start and the last success of every spinner that should run are among them, if they are not
        overdue already.
        """
        return self._expectations(project)[1]

    @functools.cached_property
    def _expectations(self) -> Callable[[str], tuple[tuple[str, ...], float]]:
        # Without a reference to the config, as below.
        entries, retention, policy = self.spinners, self.retention, self._spinner_policies

        @functools.lru_cache(maxsize=CACHED_POLICIES)
        def expectations(project: str) -> tuple[tuple[str, ...], float]:
            named = dict.fromkeys(name for entry in entries if (name := entry.named_in(project)))
            expected = tuple(name for name in named if policy(project, name).expected_interval is not None)
            intervals = (entry.expected_interval or 0.0 for entry in entries if entry.matches_project(project))
            longest = min(EXPECTED_INTERVALS_READ * max(intervals, default=0.0), MAX_HISTORY)
            return expected, max(longest, retention)

        return expectations

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
            return SpinnerPolicy(floor, max(ceiling, floor), interval, stalls.false_pages)

        return policy


LEAST_LIMITS: Mapping[str, int] = {
    **dict.fromkeys(("runs", "open_runs", "spinners", "spinners_per_project", "failed_record_requests", "rereads"), 1),
    **dict.fromkeys(("failure_groups", "projects", "pages", "meters"), 1),
    **dict.fromkeys(("failed_records_per_run", "failed_records"), 0),
    **dict.fromkeys(("record_in_flight_requests", "waiting_record_requests"), 0),
    **dict.fromkeys(("body_bytes", "read_bytes"), 1024),
    "label_length": 16,
}
"""The smallest number that each limit can be."""

MAX_LIMIT = 10**12
"""The largest number that a limit can be."""

MAX_TOKEN = 65_536
"""Bytes of a token and of its file: servers accept far less in a header."""

CACHED_POLICIES = 10_000
"""Spinners whose policy a config caches, and projects whose expected spinners."""

EXPECTED_INTERVALS_READ = 2.5
"""Expected intervals of history that a first read asks for: alerts/alerts.rules.yml waits so long for a success."""

MAX_HISTORY = 8 * 86400.0
"""Seconds of history that a first read asks for at most, unless `retention` is longer: a week and a day."""


class FileConfig(Config, frozen=True):
    """All settings of a file with one runtime."""

    web: WebConfig = msgspec.field(default_factory=WebConfig)
    log: LogConfig = msgspec.field(default_factory=LogConfig)
    storage: StorageConfig = msgspec.field(default_factory=StorageConfig)


@dataclasses.dataclass(frozen=True, slots=True)
class ExporterConfig:
    """All settings of the exporter."""

    runtimes: Mapping[str, Config]
    """The config of each runtime by the value of its label `runtime`."""
    web: WebConfig
    log: LogConfig
    storage: StorageConfig


def _url(text: str, schemes: Iterable[str]) -> SplitResult | None:
    try:
        url = split_url(text)
    except ValueError:
        return None
    return url if url.scheme in schemes else None


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not is_header_name(name):
            raise ValueError(f"headers: expected the name of a header such as X-Tenant, got {name!r}")
        if name.casefold() in _SECRET_HEADERS:
            raise ValueError("headers: a secret does not belong in this file; use token_file and auth")
        if name.casefold() in _FRAMING:
            raise ValueError(f"headers: {name} is not allowed: the exporter sets it itself")
        if not is_header_value(value):
            # Without the value, which may be a secret nevertheless.
            raise ValueError(f"headers: {name}: expected one line of printable ASCII text")


def _check_token(token: str, auth_type: str) -> None:
    """Check a token of the environment. A password is encoded before it is sent, so it may have any printable text."""
    if len(token) > MAX_TOKEN:
        raise ValueError(f"token: expected at most {MAX_TOKEN:,} characters")
    if not token.isprintable():
        raise ValueError("token: expected one token, without line breaks and control characters")
    if auth_type != "basic" and not is_header_value(token):
        raise ValueError("token: expected a token of ASCII characters, without spaces at its ends")
    if auth_type == "bearer" and " " in token:
        raise ValueError("token: expected one token, without spaces")


def _above_zero(key: str, seconds: float | None) -> None:
    if seconds is not None and seconds <= 0:
        raise ValueError(f"{key}: expected a duration above zero")


def _one_of(key: str, value: str, allowed: Iterable[str]) -> None:
    allowed = tuple(allowed)
    if value not in allowed:
        raise ValueError(f"{key}: expected one of {', '.join(allowed)}, got {value!r}")
