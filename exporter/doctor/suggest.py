"""A first config, guessed from an OpenAPI document or from responses by the names of their fields.

The result can be wrong: it is meant to be reviewed, corrected and checked with the doctor.
"""

import copy
import re
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import yaml

from exporter.config import load_tree
from exporter.doctor.guesses import WORDS, SuggestError, fields_of, like, names_in
from exporter.doctor.openapi import NOUNS, OpenApi
from exporter.errors import ConfigError
from exporter.runtime.description import check_description


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
    api = OpenApi(document)
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
    if not any(map(names_in, responses.values())):
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
    unused = [name for name in names_in(items) if not re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", sources)]
    missing = [field for field in WORDS[resource] if field not in fields]
    if not unused or not missing:
        return []
    return [f"{resource}: not found: {', '.join(missing)}", f"{resource}: not used: {', '.join(unused)}"]


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
