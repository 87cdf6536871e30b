"""Requests a page of each resource, and suggests a config from what the responses contain.

What requests need of a project or a run comes from the fields that the config describes, and only without them from
fields that are guessed.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from exporter.config import Config
from exporter.config.api_description import FieldSource, present
from exporter.doctor.guesses import SuggestError, fields_of, like
from exporter.doctor.suggest import from_responses
from exporter.errors import ApiError, ConfigError, unforeseen
from exporter.runtime.client import RuntimeClient
from exporter.runtime.decoder import MALFORMED, Decoder
from exporter.runtime.http_client import NotFoundError
from exporter.runtime.mapping import ItemMapping
from exporter.runtime.model import Project, RunSnapshot
from exporter.service import Exporter
from exporter.status import Status
from exporter.sync.project_list import ONLY_PROJECT

PROJECTS_TRIED = 20
"""Projects whose runs are requested until one has some."""

RUNS_TRIED = 5
"""Runs whose records are requested until one has some."""


async def suggest_from_responses(config: Config, config_file: Mapping[str, Any]) -> str:
    """Return the content of a config file with fields that are guessed from responses to the described requests.

    `config` is what the file means, with environment and flags. Comments name the resources that could not be read.
    Raises `SuggestError` if that is each of them.
    """
    exporter = Exporter({config.runtime.label: config})
    try:
        (monitored,) = exporter.runtimes.values()
        survey = _Survey(config, monitored.client, monitored.decoder)
        await survey.run()
    finally:
        await exporter.close()
    reasons = [f"{resource}: {why}" for resource, why in survey.reasons.items()]
    if not survey.items:
        if survey.only_404:
            reasons.append(wrong_base(config))
        raise SuggestError(
            f"no resource responds as described: {'; '.join(reasons)}. Describe the paths under runtime.resources "
            "first, or guess them with --openapi"
        )
    runtime = config.runtime
    return from_responses(
        runtime.base_url,
        survey.items,
        config_file,
        token_file=runtime.token_file,
        described=[name for name, resource in present(runtime.resources).items() if resource.fields],
        missing=reasons,
    )


def wrong_base(config: Config) -> str:
    """Return what to check if the API has none of the paths, without what a URL can have besides its path."""
    base = urlsplit(config.runtime.base_url).path.rstrip("/")
    paths = [resource.path for resource in present(config.runtime.resources).values()]
    doubled = next((path for path in _ends(base) if any(f"{each}/".startswith(f"{path}/") for each in paths)), "")
    return "the API has none of the paths: each is base_url joined with the path of a resource; " + (
        f"both have {doubled}, so remove it from one of them" if doubled else "check runtime.base_url"
    )


def _ends(path: str) -> Iterator[str]:
    """Yield a path, then what is left of it without its first parts."""
    while path:
        yield path
        _, _, rest = path[1:].partition("/")
        path = f"/{rest}" if rest else ""


class _Identity(NamedTuple):
    """What requests need of a project or a run."""

    id: str
    name: str
    refs: tuple[tuple[str, str], ...]


class _Survey:
    def __init__(self, config: Config, client: RuntimeClient, decoder: Decoder) -> None:
        self._config = config
        self._client = client
        self._decoder = decoder
        self._described = present(config.runtime.resources)
        self.items: dict[str, list[Any]] = {}
        """By resource, the undecoded items of a response."""
        self.reasons: dict[str, str] = {}
        """By resource, why there are no items."""
        self.only_404 = True
        """Whether each request was answered with 404."""

    async def run(self) -> None:
        await self._ask("health")
        runs: list[RunSnapshot] = []
        for project in await self._projects():
            self._client.note_projects([project])
            if not await self._ask("jobs", project_id=project.id):
                break
            runs = [
                RunSnapshot(each.id, project.id, "", "", "", Status.UNKNOWN, 0.0, 0.0, refs=each.refs)
                for each in self._identities("jobs", "job", "records")
            ]
            if runs or self.items["jobs"]:
                break
        if "records" in self._described and not runs:
            self.reasons["records"] = "not requested: no run is known"
        for run in runs[:RUNS_TRIED] if "records" in self._described else ():
            if not await self._ask("records", run, project_id=run.project_id) or self.items["records"]:
                break
        await self._ask("usage")

    async def _projects(self) -> list[Project]:
        """Return the projects whose runs are requested."""
        if "projects" not in self._described:
            return [Project(ONLY_PROJECT, self._config.runtime.project)]
        listed = self._identities("projects", "jobs") if await self._ask("projects") else []
        # One whose name is not known may be one that the config reads.
        found = [Project(*each) for each in listed if not each.name or self._config.projects.wanted(each.name)]
        if not found and self._described["jobs"].lists_all_projects:
            return [Project(ONLY_PROJECT, "")]
        if not found:
            why = "the config reads none of the projects in the response" if listed else "no project's id is known"
            self.reasons["jobs"] = f"not requested: {why}"
        return found[:PROJECTS_TRIED]

    async def _ask(self, resource: str, run: RunSnapshot | None = None, *, project_id: str = ONLY_PROJECT) -> bool:
        """Request a resource, and note its items, or why there are none; return whether it could be read."""
        if resource not in self._described:
            return False
        line = self._client.request_line(resource, run, project_id=project_id)
        self.reasons.pop(resource, None)
        try:
            sample = await self._client.raw_response(resource, run, project_id=project_id)
            self.only_404 = False
            self.items[resource] = self._decoder.raw_items(resource, sample.body)
        except (ApiError, *MALFORMED) as error:
            self.only_404 &= isinstance(error, NotFoundError)
            self.reasons[resource] = f"{str(error).removeprefix(f'{resource}: ')} ({line})"
            return False
        except Exception as error:  # noqa: BLE001 - whatever it is, the other resources can be read
            self.reasons[resource] = f"{unforeseen(error)} ({line})"
            return False
        if not self.items[resource]:
            self.reasons[resource] = f"the response has no items ({line})"
        return True

    def _identities(self, resource: str, *users: str) -> list[_Identity]:
        """Return what the requests for the resources `users` need of each item; without those that have no id."""
        items = self.items[resource]
        fields: dict[str, Any] = {**fields_of(resource, items), **self._described[resource].fields}
        for place in {place for user in users if user in self._described for place in self._described[user].places}:
            if place.startswith("ref.") and place not in fields and (path := like(place.removeprefix("ref."), items)):
                fields[place] = path
        wanted = {
            field: source
            for field, source in fields.items()
            if (field in ("id", "name") or field.startswith("ref.")) and isinstance(source, str | FieldSource)
        }
        try:
            mapping = ItemMapping(resource, msgspec.structs.replace(self._described[resource], fields=wanted))
        except ConfigError:
            # A key that is no part of an expression.
            return []
        return list(_found(mapping, items))


def _found(mapping: ItemMapping, items: Sequence[Any]) -> Iterator[_Identity]:
    for item in items:
        try:
            tree = mapping(item)
        except (*MALFORMED, ArithmeticError):
            continue
        if tree.get("id"):
            yield _Identity(tree["id"], tree.get("name", ""), tuple(tree.get("ref", {}).items()))
