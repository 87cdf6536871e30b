"""The format of scenario files, and how one is read. `docs/scenarios.md` says the same to those who write them.

All times are story time. Whatever a file says that makes no sense is refused here, so that the engine need not ask.
"""

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
    """A scenario cannot be played; says which file, where in it, and what was expected."""


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the file; a key that it does not know is refused."""


class Wording(_Part, frozen=True):
    """The status labels of a deployment: one for each idea."""

    queued: Name = "queued"
    running: Name = "running"
    waiting: Name = "waiting"
    completed: Name = "completed"
    partial: Name = "completed"
    """A run that completed with failed records."""
    failed: Name = "failed"
    cancelled: Name = "cancelled"


class Wait(_Part, frozen=True):
    """A person has to answer before a record goes on."""

    answer: Span
    """How long the person takes."""
    timeout: Duration
    """A person who takes longer counts as silent: the record fails with `NO_ANSWER`."""


class Step(_Part, frozen=True):
    """One step of a spinner, and its laws."""

    name: Name
    type: StepType
    latency: Span = Span(0, 0)
    """How long one attempt takes."""
    failures: dict[ErrorCode, Share] = {}
    """The chance of each error code in one attempt."""
    attempts: Annotated[int, msgspec.Meta(ge=1, le=10)] = 1
    """Attempts until a record counts as failed."""
    wait: Wait | None = None
    """Set: after the latency, a person has to answer."""

    def __post_init__(self) -> None:
        if sum(self.failures.values()) > 1:
            raise ValueError("failures: expected chances that add up to at most 1")
        if self.type == "human_call" and self.wait is None:
            raise ValueError("wait: expected for a human_call, which waits for a person")


class Retry(_Part, frozen=True):
    """Failed records are tried again in a child run."""

    after: Span
    """From the parent's end to the child's creation."""
    times: Annotated[int, msgspec.Meta(ge=1, le=10)] = 1
    """Generations of children at most."""


class Start(_Part, frozen=True):
    """When a spinner runs by itself: once, or again and again."""

    at: Duration | None = None
    """Once, then."""
    every: Duration | None = None
    """Again and again, this far apart."""
    offset: Duration | None = None
    """Of `every`: when the first comes. None: drawn from the seed, so that many do not fall on one moment."""
    trigger: Trigger = "schedule"
    records: Count | None = None
    """Instead of the spinner's `records`."""

    def __post_init__(self) -> None:
        if (self.at is None) == (self.every is None):
            raise ValueError("expected either at or every")
        if self.every is None and self.offset is not None:
            raise ValueError("offset: expected only beside every")
        if self.every is not None and self.every < 1:
            raise ValueError("every: expected 1s or more")


class Spinner(_Part, frozen=True):
    """A published pipeline."""

    name: Name
    steps: Annotated[tuple[Step, ...], msgspec.Meta(min_length=1, max_length=50)]
    id: Identifier | None = None
    """None: made from the seed."""
    records: Count = Count(50, 50)
    """Records of a run."""
    counted: bool = True
    """False: how many records a run will have is not known until it ends, and its total is null."""
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 5
    """Records of one run that are worked on at a time; those that wait for a person do not count."""
    due: Duration | None = None
    """A run should be through this long after its creation."""
    retry: Retry | None = None
    runs: tuple[Start, ...] = ()
    """When it runs by itself; a trigger over the API comes on top."""

    def __post_init__(self) -> None:
        _refuse_repeats("steps", (step.name for step in self.steps))


class Project(_Part, frozen=True):
    """A project, or many alike."""

    name: Name
    """With `copies`, `{n}` in it becomes the copy's number."""
    spinners: tuple[Spinner, ...]
    id: Identifier | None = None
    """None: made from the seed."""
    copies: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    wording: Wording | None = None
    """Instead of the scenario's."""

    def __post_init__(self) -> None:
        _refuse_repeats("spinners", (spinner.name for spinner in self.spinners))
        if self.copies == 1:
            return
        if "{n}" not in self.name:
            raise ValueError("name: expected {n} in it, since there are several copies")
        if self.id or any(spinner.id for spinner in self.spinners):
            raise ValueError("id: expected none, since there are several copies")


class Runtime(_Part, frozen=True):
    """The worker service."""

    workers: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 4
    slots: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 5
    """Runs that one worker carries at a time; one that only waits for people needs no slot."""
    pickup: Span = Span(1, 5)
    """How long a free slot takes to start a queued run."""
    heartbeat: Duration = Duration(15)
    """Time between two heartbeats."""

    def __post_init__(self) -> None:
        if self.heartbeat <= 0:
            raise ValueError("heartbeat: expected more than 0s")


class Meter(_Part, frozen=True):
    """One meter of the plan."""

    limit: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """None: unlimited."""
    used: Annotated[int, msgspec.Meta(ge=0)] = 0
    """What was used up when the story begins; the history before it is not counted again."""


class Plan(_Part, frozen=True):
    """What the organisation has bought. A new run is refused while a monthly meter is full."""

    name: Name = "pro"
    jobs_month: Meter = Meter()
    records_month: Meter = Meter()
    spinner_limit: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """How many spinners may be published; how many are follows from the projects."""


class Api(_Part, frozen=True):
    """How the HTTP API treats its callers."""

    requests_per_second: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Real seconds, not story time; more is refused with 429. None: no limit."""


class _Incident(_Part, frozen=True, tag_field="kind"):
    """Something that goes wrong at a time."""

    at: Duration
    """After the story's beginning."""


class RuntimeDown(_Incident, frozen=True, tag="runtime_down"):
    """The worker service dies while the API stays up: runs are created but never move."""

    lasts: Duration | None = None
    """None: for good."""
    unnoticed: Duration = Duration(0)
    """How long `/health` still says that the runtime is up, though its heartbeat stands still."""


class Stall(_Incident, frozen=True, tag="stall"):
    """The records of a run hang at their next step and neither end nor fail."""

    spinner: Name
    step: Name | None = None
    """Hang at this step only."""
    runs: Annotated[int, msgspec.Meta(ge=1)] = 1
    """How many runs: the first of the spinner's that come to the step from then on."""
    lasts: Duration | None = None
    """None: for good."""


class Outage(_Incident, frozen=True, tag="outage"):
    """A provider fails: attempts at a type of step end in an error."""

    step_type: StepType
    code: ErrorCode
    share: Share = 1.0
    """Of the attempts."""
    lasts: Duration | None = None
    """None: for good."""


class Slow(_Incident, frozen=True, tag="slow"):
    """A step takes longer than usual."""

    spinner: Name
    step: Name
    factor: Annotated[float, msgspec.Meta(gt=0)]
    """Times as long."""
    lasts: Duration | None = None
    """None: for good."""


class PlanLimit(_Incident, frozen=True, tag="plan_limit"):
    """A meter's limit changes, as when a plan is downgraded."""

    meter: MeterName
    limit: Annotated[int, msgspec.Meta(ge=0)]
    lasts: Duration | None = None
    """None: for good."""


class Cancel(_Incident, frozen=True, tag="cancel"):
    """A person cancels the spinner's oldest run that has not ended."""

    spinner: Name


Incident = RuntimeDown | Stall | Outage | Slow | PlanLimit | Cancel


class Scenario(_Part, frozen=True):
    """A whole story."""

    summary: Annotated[str, msgspec.Meta(min_length=1, max_length=120)]
    """One line that says what one will see."""
    projects: Annotated[tuple[Project, ...], msgspec.Meta(min_length=1)]
    name: str = ""
    """The file's name without its ending; not a key of the file."""
    expect: tuple[Alert, ...] = ()
    """The alerts that the story should cause, and no others."""
    before: Duration = Duration(0)
    """How long the world has been going when the story begins, so that it does not begin empty."""
    history: Duration = Duration(172800)
    """How long the API knows a run after its end."""
    runtime: Runtime = Runtime()
    plan: Plan = Plan()
    api: Api = Api()
    wording: Wording = Wording()
    incidents: tuple[Incident, ...] = ()

    def __post_init__(self) -> None:
        _refuse_repeats("projects", (project.name for project in self.projects))
        _refuse_repeats("id", (project.id for project in self.projects if project.id))
        spinners = [spinner for project in self.projects for spinner in project.spinners]
        _refuse_repeats("id", (spinner.id for spinner in spinners if spinner.id))
        for index, incident in enumerate(self.incidents):
            if isinstance(incident, Stall | Slow | Cancel):
                named = [spinner for spinner in spinners if spinner.name == incident.spinner]
                if not named:
                    raise ValueError(f"incidents[{index}].spinner: no spinner has the name {incident.spinner!r}")
                step = None if isinstance(incident, Cancel) else incident.step
                if step is not None and not any(step == own.name for spinner in named for own in spinner.steps):
                    raise ValueError(f"incidents[{index}].step: {incident.spinner!r} has no step {step!r}")


def _refuse_repeats(key: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{key}: {name!r} is there twice")
        seen.add(name)


def shipped_scenarios() -> dict[str, str]:
    """Return the name and summary of each scenario that comes with the package, by name."""
    return {path.stem: load_scenario(path.stem).summary for path in sorted(_SHIPPED.glob("*.yaml"))}


def load_scenario(name_or_path: str) -> Scenario:
    """Read a shipped scenario by its name, or any by the path of its file. Raises `ScenarioError`."""
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
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ScenarioError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ScenarioError(f"{path}: not YAML: nested too deeply") from None
    if not isinstance(document, dict):
        raise ScenarioError(f"{path}: expected keys and values, such as summary: and projects:")
    if "name" in document:
        raise ScenarioError(f"{path}: $.name: not a key; a scenario has the name of its file")
    try:
        return msgspec.convert({**document, "name": path.stem}, Scenario, dec_hook=_convert)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `")
        raise ScenarioError(f"{path}: {place.rstrip('`') or '$'}: {reason[:1].lower()}{reason[1:]}") from None


def _convert(wanted: type, value: Any) -> Any:
    if wanted in (Duration, Span, Count):
        return wanted.parse(value)
    raise NotImplementedError(f"no way to read a {wanted.__name__}")
