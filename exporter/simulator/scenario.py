"""Defines and reads scenario files. `docs/scenarios.md` documents the format.

All times are scenario time. Invalid values are rejected here, so the engine does not check them again.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml

from exporter.simulator.durations import Count, Duration, Span

StepType = Literal[
    "log", "ai_agent", "function", "api_call", "tag", "whatsapp", "sms", "email", "voice", "human_call"
]  # fmt: skip
Trigger = Literal["manual", "schedule", "api"]
MeterName = Literal["jobs_month", "records_month", "spinners"]
Alert = Literal[
    "SpinnerRuntimeDown",
    "SpinnerRunStalled",
    "SpinnerRunNotPickedUp",
    "SpinnerFailedRecordsBurst",
    "SpinnerPlanLimitReached",
]

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
Identifier = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
ErrorCode = Annotated[str, msgspec.Meta(pattern="^[A-Z][A-Z0-9_]{0,63}$")]


class ScenarioError(Exception):
    """A scenario is invalid. The message names the file, the path in it and what was expected."""


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A section of the file. Unknown keys are rejected."""


class StatusLabels(_Section, frozen=True):
    """The status labels of a deployment, one per status."""

    queued: Name = "queued"
    running: Name = "running"
    waiting: Name = "waiting"
    completed: Name = "completed"
    partial: Name = "completed"
    """Label of a run that completed with failed records."""
    failed: Name = "failed"
    cancelled: Name = "cancelled"


class Wait(_Section, frozen=True):
    """A wait for the response of a person."""

    answer: Span
    """Time until the person responds."""
    timeout: Duration
    """If the person takes longer, the record fails with `NO_ANSWER`."""


class Step(_Section, frozen=True):
    """One step of a spinner."""

    name: Name
    type: StepType
    latency: Span = Span(0, 0)
    """Duration of one attempt."""
    failures: dict[ErrorCode, Share] = {}
    """Probability of each error code in one attempt."""
    attempts: Annotated[int, msgspec.Meta(ge=1, le=10)] = 1
    """Number of attempts until the record fails."""
    wait: Wait | None = None
    """If set, a person has to respond after the latency."""

    def __post_init__(self) -> None:
        if sum(self.failures.values()) > 1:
            raise ValueError("failures: expected chances that add up to at most 1")
        if self.type == "human_call" and self.wait is None:
            raise ValueError("wait: expected for a human_call, which waits for a person")


class Retry(_Section, frozen=True):
    """Retry of failed records in a child run."""

    after: Span
    """Time from the end of the parent to the creation of the child."""
    times: Annotated[int, msgspec.Meta(ge=1, le=10)] = 1
    """Largest number of generations of child runs."""


class Start(_Section, frozen=True):
    """A scheduled start of a spinner: once or repeatedly."""

    at: Duration | None = None
    """Start once, at this time."""
    every: Duration | None = None
    """Start repeatedly, at this interval."""
    offset: Duration | None = None
    """With `every`: the time of the first start. None means random, so that schedules do not coincide."""
    trigger: Trigger = "schedule"
    records: Count | None = None
    """Overrides the spinner's `records`."""

    def __post_init__(self) -> None:
        if (self.at is None) == (self.every is None):
            raise ValueError("expected either at or every")
        if self.every is None and self.offset is not None:
            raise ValueError("offset: expected only together with every")
        if self.every is not None and self.every < 1:
            raise ValueError("every: expected 1s or more")


class Spinner(_Section, frozen=True):
    """A published pipeline."""

    name: Name
    steps: Annotated[tuple[Step, ...], msgspec.Meta(min_length=1, max_length=50)]
    id: Identifier | None = None
    """None means derived from the seed."""
    records: Count = Count(50, 50)
    """Number of records of a run."""
    counted: bool = True
    """If False, the total of a run is null until it ends."""
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 5
    """Records of one run that are processed concurrently, without those that wait for a person."""
    due: Duration | None = None
    """Time from the creation of a run until it should have ended."""
    retry: Retry | None = None
    runs: tuple[Start, ...] = ()
    """Scheduled starts, in addition to triggers over the API."""

    def __post_init__(self) -> None:
        _reject_duplicates("steps", (step.name for step in self.steps))


class Project(_Section, frozen=True):
    """A project, or several copies of it."""

    name: Name
    """With `copies`, `{n}` is replaced by the number of the copy."""
    spinners: tuple[Spinner, ...]
    id: Identifier | None = None
    """None means derived from the seed."""
    copies: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    labels: StatusLabels | None = msgspec.field(default=None, name="wording")
    """Overrides the labels of the scenario."""

    def __post_init__(self) -> None:
        _reject_duplicates("spinners", (spinner.name for spinner in self.spinners))
        if self.copies == 1:
            return
        if "{n}" not in self.name:
            raise ValueError("name: expected {n} in it, since there are several copies")
        if self.id or any(spinner.id for spinner in self.spinners):
            raise ValueError("id: expected none, since there are several copies")


class Runtime(_Section, frozen=True):
    """The worker service."""

    workers: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 4
    slots: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 5
    """Runs that one worker processes concurrently. A run that only waits for persons needs no slot."""
    pickup: Span = Span(1, 5)
    """Time until a free slot starts a queued run."""
    heartbeat: Duration = Duration(15)
    """Time between two heartbeats."""

    def __post_init__(self) -> None:
        if self.heartbeat <= 0:
            raise ValueError("heartbeat: expected more than 0s")


class Meter(_Section, frozen=True):
    """One meter of the plan."""

    limit: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """None means unlimited."""
    used: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Usage at scenario time zero. The runs before it are not counted again."""


class Plan(_Section, frozen=True):
    """The plan of the organisation. New runs are refused while a monthly meter is full."""

    name: Name = "pro"
    jobs_month: Meter = Meter()
    records_month: Meter = Meter()
    spinner_limit: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """Limit of the meter of published spinners; its usage follows from the projects."""


class Api(_Section, frozen=True):
    """Limits of the HTTP API."""

    requests_per_second: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Requests per real second; more are rejected with 429. None means no limit."""


class _Incident(_Section, frozen=True, tag_field="kind"):
    """A fault or another event at a given time."""

    at: Duration
    """Scenario time at which it starts."""


class RuntimeDown(_Incident, frozen=True, tag="runtime_down"):
    """The worker service stops while the API stays up: runs are created but not processed."""

    lasts: Duration | None = None
    """None means until the end of the scenario."""
    unnoticed: Duration = Duration(0)
    """How long `/health` still reports that the runtime is up, although there are no heartbeats."""


class Stall(_Incident, frozen=True, tag="stall"):
    """The records of a run hang at their next step: they neither complete nor fail."""

    spinner: Name
    step: Name | None = None
    """The only step at which they hang; None means any step."""
    runs: Annotated[int, msgspec.Meta(ge=1)] = 1
    """Number of affected runs: the first runs of the spinner that reach the step after the start."""
    retries: Duration | None = None
    """How often a record that hangs is tried again, in vain. None means never."""
    leaks: bool = False
    """If True, a record that hangs frees its place, so that further ones begin, and hang as well."""
    lasts: Duration | None = None
    """None means until the end of the scenario."""


class Outage(_Incident, frozen=True, tag="outage"):
    """A provider fails: attempts at steps of one type end with an error."""

    step_type: StepType
    code: ErrorCode
    share: Share = 1.0
    """Ratio of attempts that fail."""
    lasts: Duration | None = None
    """None means until the end of the scenario."""


class Slow(_Incident, frozen=True, tag="slow"):
    """A step takes longer than usual."""

    spinner: Name
    step: Name
    factor: Annotated[float, msgspec.Meta(gt=0)]
    """Factor for the latency of the step."""
    lasts: Duration | None = None
    """None means until the end of the scenario."""


class PlanLimit(_Incident, frozen=True, tag="plan_limit"):
    """The limit of a meter changes, for example because of a downgrade."""

    meter: MeterName
    limit: Annotated[int, msgspec.Meta(ge=0)]
    lasts: Duration | None = None
    """None means until the end of the scenario."""


class Cancel(_Incident, frozen=True, tag="cancel"):
    """A person cancels the oldest active run of the spinner."""

    spinner: Name


Incident = RuntimeDown | Stall | Outage | Slow | PlanLimit | Cancel


class Scenario(_Section, frozen=True):
    """A scenario file."""

    summary: Annotated[str, msgspec.Meta(min_length=1, max_length=120)]
    """One line that says what happens."""
    projects: Annotated[tuple[Project, ...], msgspec.Meta(min_length=1)]
    name: str = ""
    """The name of the file without its extension; not a key of the file."""
    expect: tuple[Alert, ...] = ()
    """The exact list of alerts that the scenario must cause."""
    before: Duration = Duration(0)
    """Time that is simulated before the start, so that the scenario starts with existing runs."""
    history: Duration = Duration(172800)
    """How long the API returns a run after its end."""
    runtime: Runtime = Runtime()
    plan: Plan = Plan()
    api: Api = Api()
    labels: StatusLabels = msgspec.field(default=StatusLabels(), name="wording")
    incidents: tuple[Incident, ...] = ()

    def __post_init__(self) -> None:
        _reject_duplicates("projects", (project.name for project in self.projects))
        _reject_duplicates("id", (project.id for project in self.projects if project.id))
        spinners = [spinner for project in self.projects for spinner in project.spinners]
        _reject_duplicates("id", (spinner.id for spinner in spinners if spinner.id))
        for index, incident in enumerate(self.incidents):
            if isinstance(incident, Stall | Slow | Cancel):
                named = [spinner for spinner in spinners if spinner.name == incident.spinner]
                if not named:
                    raise ValueError(f"incidents[{index}].spinner: no spinner has the name {incident.spinner!r}")
                step = None if isinstance(incident, Cancel) else incident.step
                if isinstance(incident, Stall) and incident.retries is not None and incident.retries < 1:
                    raise ValueError(f"incidents[{index}].retries: expected 1s or more")
                if step is not None and not any(step == own.name for spinner in named for own in spinner.steps):
                    raise ValueError(f"incidents[{index}].step: {incident.spinner!r} has no step {step!r}")


def _reject_duplicates(key: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{key}: {name!r} is used twice")
        seen.add(name)


def shipped_scenarios() -> dict[str, str]:
    """Return the names and summaries of the scenarios in the package."""
    return {path.stem: load_scenario(path.stem).summary for path in sorted(_SHIPPED.glob("*.yaml"))}


def load_scenario(name_or_path: str) -> Scenario:
    """Read a scenario of the package by name, or any scenario by path. Raises `ScenarioError`."""
    shipped = _SHIPPED / f"{name_or_path}.yaml"
    is_name = name_or_path.replace("-", "").isalnum()
    path = shipped if is_name and shipped.is_file() else Path(name_or_path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        names = ", ".join(sorted(shipped.stem for shipped in _SHIPPED.glob("*.yaml")))
        hint = f"; expected a file, or one of {names}" if is_name else ""
        raise ScenarioError(f"{path}: cannot be read: {error.strerror or error}{hint}") from None
    except UnicodeDecodeError:
        raise ScenarioError(f"{path}: cannot be read: expected text in UTF-8") from None
    return _parse(text, path)


_SHIPPED = Path(__file__).parent / "scenarios"


def _parse(text: str, path: Path) -> Scenario:
    try:
        document = yaml.load(text, _Loader)  # noqa: S506, it extends the safe one
    except (yaml.YAMLError, ValueError, LookupError) as error:
        # Of the latter two are values that their tag does not fit, such as `!!int x`.
        raise ScenarioError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ScenarioError(f"{path}: not YAML: nested too deeply") from None
    if not isinstance(document, dict):
        raise ScenarioError(f"{path}: expected keys and values, such as summary: and projects:")
    if "name" in document:
        raise ScenarioError(f"{path}: $.name: unknown key; a scenario has the name of its file")
    try:
        return msgspec.convert({**document, "name": path.stem}, Scenario, dec_hook=_convert)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `")
        raise ScenarioError(f"{path}: {place.rstrip('`') or '$'}: {reason[:1].lower()}{reason[1:]}") from None


class _Loader(yaml.SafeLoader):
    """Rejects duplicate keys, of which YAML would keep the last.

    It reads as texts what YAML 1.1 takes for dates and for numbers with base 8, 16 or 60, such as 010 and 1:30.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key.value}", key.start_mark)
                seen.add(key.value)
        return node


_INT, _FLOAT, _TIMESTAMP = (f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "timestamp"))

_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_INT, _FLOAT, _TIMESTAMP)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_INT, re.compile(r"(?:0|-?[1-9][0-9]*)\Z"), list("-0123456789"))
_Loader.add_implicit_resolver(
    _FLOAT, re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)\.[0-9]*|\.[0-9]+)(?:[eE][-+][0-9]+)?\Z"), list("-+.0123456789")
)


def _convert(wanted: type, value: Any) -> Any:
    if wanted in (Duration, Span, Count):
        return wanted.parse(value)
    raise NotImplementedError(f"{wanted.__name__} cannot be read")
