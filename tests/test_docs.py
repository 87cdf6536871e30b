"""The documentation agrees with the code, as far as tests can check it."""

import importlib
import json
import re
import tomllib
from pathlib import Path

import click
import msgspec
import pytest

from exporter.cli import cli
from exporter.config import FileConfig, load
from exporter.config.api_description import FieldSource, Paging, Resource, Resources
from exporter.config.loading import _leaves
from exporter.metrics import catalogue
from exporter.runtime.mapping import FIELDS
from exporter.runtime.statuses import DEFAULT_LABELS
from tests.builders import only_runtime

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", *DOCS]
PRESETS = [file.stem for file in (ROOT / "exporter" / "config" / "presets").glob("*.yml")]
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()
DEFAULTS = only_runtime(load(None, environ={"SPINNER_EXPORTER_RUNTIME_BASE_URL": "http://127.0.0.1:8090"}))

KEYS = {".".join(path) for path, _ in _leaves(FileConfig) if path[:2] != ("runtime", "resources")} - {"runtime.token"}
NONE_BY_DEFAULT = {
    "runtime.base_url", "runtime.name", "runtime.token_file", "runtime.proxy", "runtime.tls.ca_file",
    "runtime.tls.cert_file", "runtime.tls.key_file", "runtime.auth.username",
    "runtime.auth.value", "runtime.auth.login", "projects.include", "projects.exclude",
    "storage.path", "web.config_file",
}  # fmt: skip


def documented() -> dict[str, str]:
    rows = re.findall(r"^\| `([\w.]+)` \| (.+?) \| .+ \|$", CONFIGURATION, flags=re.MULTILINE)
    return dict(rows)


def test_every_key_is_documented_and_nothing_else_is() -> None:
    assert set(documented()) == KEYS, "docs/configuration.md and exporter/config/schema.py do not have the same keys"


@pytest.mark.parametrize("key", sorted(KEYS - NONE_BY_DEFAULT))
def test_a_documented_default_is_the_default(key: str) -> None:
    actual: object = DEFAULTS
    for name in key.split("."):
        actual = getattr(actual, name)
    written = documented()[key].strip("`")
    env = {"SPINNER_EXPORTER_RUNTIME_BASE_URL": "http://127.0.0.1:8090", _variable(key): written}
    again: object = only_runtime(load(None, environ=env))
    for name in key.split("."):
        again = getattr(again, name)
    assert again == actual, f"docs/configuration.md gives {written} as the default of {key}"


def test_every_benchmark_has_its_figures_in_the_documentation() -> None:
    """Of those whose names are fixed."""
    text = (ROOT / "docs" / "performance.md").read_text()
    sources = [file.read_text() for file in (ROOT / "benchmarks").glob("*.py")]
    rows = [row for source in sources for row in re.findall(r'Row\(\s*"([^"]+)",\s*"([^"]+)"', source)]
    assert len(rows) >= 10
    assert not [f"{what}, {against}" for what, against in rows if f"| {what} | {against} |" not in text]


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_a_page_begins_with_one_sentence_that_says_what_it_is_for(page: Path) -> None:
    opening = page.read_text().split("\n\n")[1].replace("\n", " ")
    assert re.match(r"[A-Z]", opening), f"{page.name}: expected a sentence below the title, got {opening[:40]!r}"
    assert len(re.split(r"[.:] ", opening)[0]) <= 160, f"{page.name}: the first sentence is too long to say it plainly"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_or_a_heading_resolves(page: Path) -> None:
    for file, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", prose(page.read_text())):
        target = page.parent / file if file else page
        assert target.exists(), f"{page.name} links to {file}, which does not exist"
        if anchor:
            assert anchor in anchors(target.read_text()), f"{page.name} links to {file}#{anchor}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    missing = make_targets(page.read_text()) - targets
    assert not missing, f"{page.name} names make targets that do not exist: {', '.join(sorted(missing))}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_of_the_project_exists(page: Path) -> None:
    missing = [path for path in project_paths(page.read_text()) if not list(ROOT.glob(path.rstrip("/")))]
    assert not missing, f"{page.name} names files that do not exist: {', '.join(missing)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_flag_of_our_commands_exists(page: Path) -> None:
    for command, flags in commands(page.read_text()):
        assert command in cli.commands, f"{page.name} names spinner-exporter {command}: no such command"
        known = {flag for each in cli.commands[command].params if isinstance(each, click.Option) for flag in each.opts}
        unknown = set(flags) - known - {"--help"}
        assert not unknown, f"{page.name}: spinner-exporter {command} has no {', '.join(sorted(unknown))}"


def test_configuration_names_exactly_the_flags_that_override_keys() -> None:
    line = CONFIGURATION[CONFIGURATION.index("\nFlags: ") :].split("\n\n")[0]
    options = [each for each in cli.commands["serve"].params if isinstance(each, click.Option)]
    assert set(re.findall(r"`(--[\w.-]+)`", line)) == {flag for each in options for flag in each.opts}


def test_diagrams_are_mermaid() -> None:
    assert diagrams(ROOT / "README.md") == ["flowchart"]
    assert diagrams(ROOT / "docs" / "architecture.md") == ["flowchart", "sequenceDiagram"]
    for page in PAGES:
        assert not re.search("[┌┐└┘►◄▼]", page.read_text()), f"{page.name} contains a diagram in text art"


def test_architecture_has_every_package_in_its_table_and_every_layer_in_its_graph() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    packages = {file.parent.name for file in (ROOT / "exporter").glob("*/__init__.py")}
    assert set(re.findall(r"^\| `exporter\.(\w+)` \|", page, flags=re.MULTILINE)) == packages
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [re.findall(r"exporter\.(\w+)", layer) for layer in contracts[0]["layers"]]
    height = {name: -place for place, names in enumerate(layers) for name in names}
    arrows = re.findall(r"^    (\w+) --> (\w+)$", page, flags=re.MULTILINE)
    assert {name for arrow in arrows for name in arrow} == height.keys() | {"simulator"}
    upward = [arrow for arrow in arrows if arrow[1] != "simulator" and height[arrow[0]] <= height[arrow[1]]]
    assert not upward, f"the graph in architecture.md has arrows that the contracts forbid: {upward}"


def test_architecture_names_classes_in_the_files_that_have_them() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"`(exporter/[\w/]+\.py)`, `([A-Z]\w+)", page)
    assert len(named) >= 8
    for file, owner in named:
        code = (ROOT / file).read_text()
        assert re.search(rf"^class {owner}\b", code, flags=re.MULTILINE), f"architecture.md names {owner} in {file}"


def test_architecture_names_members_that_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    code = {file: file.read_text() for file in (ROOT / "exporter").rglob("*.py")}
    members = set(re.findall(r"`([A-Z][a-z]\w+)\.([a-z_]+)`", page))
    assert len(members) > 10
    for owner, member in members:
        texts = [text for text in code.values() if re.search(rf"^class {owner}\b", text, flags=re.MULTILINE)]
        assert texts, f"architecture.md names {owner}, which does not exist"
        defines = re.compile(rf"^    (async def |def )?{member}\b|self\.{member}\b", flags=re.MULTILINE)
        assert any(defines.search(text) for text in texts), f"architecture.md names {owner}.{member}: no such member"


def test_architecture_names_owners_of_state_that_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    owners = set(re.findall(r"`(\w+(?:\.\w+)*)\.([A-Z]\w+)(?:\.\w+)?`", page))
    assert len(owners) > 10
    for module, owner in owners:
        assert hasattr(importlib.import_module(f"exporter.{module}"), owner), (
            f"architecture.md names {module}.{owner}, which does not exist"
        )


def test_connecting_lists_exactly_the_fields_that_a_description_can_map() -> None:
    section = (ROOT / "docs" / "connecting.md").read_text().split("## Fields that the exporter uses")[1]
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (.+) \|$", section.split("Effect when missing")[0], re.MULTILINE)
    documented = {name: fields for names, fields in rows for name in re.findall(r"`(\w+)`", names)}
    assert documented.keys() == FIELDS.keys()
    for name, fields in FIELDS.items():
        # `records.total`, `.pending` means records.pending; values and parts of a field are in brackets.
        words = re.findall(r"`([\w.]+)`", re.sub(r"\(.*?\)", "", documented[name]))
        listed = {f"records{word}" if word.startswith(".") else word for word in words} - {"ref.NAME"}
        assert listed == fields, f"docs/connecting.md and exporter/runtime/mapping.py differ in the fields of {name}"


DESCRIPTIONS: dict[str, type[msgspec.Struct]] = {"": Resource, "paging.": Paging, "fields.": FieldSource}
"""What the tables of keys in docs/connecting.md document, and how the names of its keys begin."""


def test_connecting_documents_every_key_of_a_description_and_its_default() -> None:
    page = (ROOT / "docs" / "connecting.md").read_text()
    section = page.split("\n### Keys of `runtime.resources`\n")[1].split("\n### ")[0]
    of_resource, of_field = section.split("| key of a field |")
    rows = [
        (prefix + name, default.strip("`"))
        for prefix, table in (("", of_resource), ("fields.", of_field))
        for name, default in re.findall(r"^\| `([\w.]+)` \| (.+?) \| .+ \|$", table, flags=re.MULTILINE)
    ]
    keys = {
        prefix + field.encode_name: _default(field)
        for prefix, of in DESCRIPTIONS.items()
        for field in msgspec.structs.fields(of)
    }
    del keys["paging"]  # each of its keys is a row
    assert len(rows) == len(dict(rows)), "a key has two rows"
    assert dict(rows) == keys
    first = section.split("\n\n| key")[0]
    assert {field.encode_name for field in msgspec.structs.fields(Resources)} <= set(re.findall(r"`(\w+)`", first))


def _default(field: msgspec.structs.FieldInfo) -> str:
    """A default as the tables have it."""
    if field.default_factory is not msgspec.NODEFAULT:
        return json.dumps(msgspec.to_builtins(field.default_factory()))
    if field.default is msgspec.NODEFAULT:
        return "required"
    if isinstance(field.default, str | None):
        return field.default or "none"
    return json.dumps(msgspec.to_builtins(field.default))


def test_connecting_lists_the_status_labels_that_need_no_mapping() -> None:
    section = (ROOT / "docs" / "connecting.md").read_text().split("\n### Status labels\n")[1].split("\n### ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", section, flags=re.MULTILINE)
    documented = {status: tuple(re.findall(r"`([^`]+)`", labels)) for status, labels in rows}
    assert documented == {status.value: labels for status, labels in DEFAULT_LABELS.items()}


WITHOUT_SERVER = {"temporal": ROOT / "tests" / "connecting" / "test_temporal.py"}
"""Presets of servers that tests cannot have, and the tests with a double that is used instead."""


@pytest.mark.parametrize("preset", sorted(set(PRESETS) - {"contract"}))
def test_a_preset_is_documented_and_tested_with_its_server(preset: str) -> None:
    assert f"| `{preset}` |" in (ROOT / "docs" / "connecting.md").read_text(), "docs/connecting.md has no row for it"
    if preset in WITHOUT_SERVER:
        assert WITHOUT_SERVER[preset].exists()
        return
    for file in (f"{preset}.in", f"{preset}.lock", f"test_{preset}.py"):
        assert (ROOT / "tests" / "servers" / file).exists(), f"tests/servers/{file} does not exist"
    servers = re.search(r"^SERVERS := (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert servers is not None
    assert preset in servers[1].split(), "SERVERS in the Makefile does not name it"


def test_every_guarantee_has_tests_that_exist() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text()
    page = re.sub("<!-- The table is generated.+<!-- End of the table -->", "", page, flags=re.DOTALL)
    guarantees = re.findall(r"^\| (?!no\.|---)(.+?) \| .+ \|$", page, flags=re.MULTILINE)
    checks = (ROOT / "docs" / "reliability-tests.md").read_text()
    tests = re.findall(r"^\| (?!no\.|---)(.+?) \| (.+) \|$", checks, flags=re.MULTILINE)
    assert len(guarantees) > 30
    assert len(set(guarantees)) == len(guarantees), "two guarantees have the same number"
    assert guarantees == [number for number, _ in tests]
    for number, by in tests:
        assert re.fullmatch(r"[A-Z]\d+", number), f"{number} is no number of a guarantee"
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", by)
        assert named, f"{number}: a guarantee without a test"
        for file, test in named:
            assert f"def {test}(" in (ROOT / file).read_text(), f"{number} cites {file}::{test}"


def test_alerting_gives_how_long_the_condition_of_an_alert_holds() -> None:
    """In the row of the alert, or below the table."""
    page = (ROOT / "docs" / "alerting.md").read_text()
    (sentence,) = re.findall(r"^Where the table gives no time.+?`for`: (.+?)\.\s", page, flags=re.MULTILINE | re.DOTALL)
    documented = {
        alert: f"{number}{unit[0]}"
        for number, unit, alerts in re.findall(r"(\d+) (minute|hour)s? for ([^;]+)", sentence)
        for alert in re.findall(r"Spinner\w+", alerts)
    }
    rules = (ROOT / "alerts" / "alerts.rules.yml").read_text()
    actual = dict(re.findall(r"- alert: (\w+)(?:(?!- alert:).)*?\n +for: (\w+)\n", rules, flags=re.DOTALL))
    rows = dict(re.findall(r"^\| (Spinner\w+) \| \w+ \| (.+) \|$", page, flags=re.MULTILINE))
    words = {"1h": "an hour", "10m": "(10|ten) minutes"}
    for alert, time in actual.items():
        if alert in documented:
            assert documented[alert] == time
        else:
            assert re.search(words.get(time, f"{time[:-1]} minutes"), rows[alert]), f"the row of {alert} lacks {time}"
    assert documented.keys() <= actual.keys()


def test_what_scaling_drops_is_in_no_rule_and_in_one_column_of_a_dashboard() -> None:
    (dropped,) = re.findall(r"regex: (\w+), action: drop", (ROOT / "docs" / "scaling.md").read_text())
    assert dropped in catalogue.names()
    rules = list((ROOT / "alerts").glob("*.rules.yml"))
    boards = {file.stem: json.loads(file.read_text()) for file in (ROOT / "dashboards" / "dist").glob("*.json")}
    assert rules
    assert [str(each) for each in rules if re.search(rf"\b{dropped}\b", each.read_text())] == []
    users = [
        (uid, panel["title"], target["refId"])
        for uid, board in boards.items()
        for panel in board["panels"]
        for target in panel["targets"]
        if re.search(rf"\b{dropped}\b", target["expr"])
    ]
    assert users == [("spinner-jobs", "Runs", "I")]


def test_every_example_config_is_a_good_config(tmp_path: Path) -> None:
    pages = "\n".join(page.read_text() for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    examples = re.findall(r"echo '(runtime: .+?)'", pages) + re.findall(
        r"```yaml\n(runtimes?:.+?)```", pages, flags=re.DOTALL
    )
    assert len(examples) >= 2, "the examples are not found; look at the patterns above"
    for example in examples:
        file = tmp_path / "example.yml"
        file.write_text(example)
        load(file, environ={})


def _variable(key: str) -> str:
    return "SPINNER_EXPORTER_" + key.replace(".", "_").upper()


def prose(text: str) -> str:
    """The text without its code blocks."""
    return re.sub(r"^( *)```.*?^\1```", "", text, flags=re.MULTILINE | re.DOTALL)


def code(text: str) -> list[str]:
    """Every code block and every piece of inline code."""
    blocks = re.findall(r"^ *```(\w*)\n(.*?)^ *```", text, flags=re.MULTILINE | re.DOTALL)
    return [*(block for kind, block in blocks if kind != "mermaid"), *re.findall(r"`([^`\n]+)`", prose(text))]


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def make_targets(text: str) -> set[str]:
    """The targets of every `make` command line."""
    lines = [line.split("#")[0] for each in code(text) for line in each.splitlines()]
    calls = [line.split()[1:] for line in lines if line.lstrip("$ ").startswith("make ")]
    return {word for words in calls for word in words if re.fullmatch(r"[a-z][a-z-]*", word)}


def project_paths(text: str) -> list[str]:
    """Every path in code that begins with a folder of the project; placeholders in capitals are skipped."""
    folders = "alerts|benchmarks|dashboards|deploy|docs|exporter|tests"
    words = [word for each in code(text) for word in re.split(r"[\s\"'`]+", each)]
    found = [match[0] for word in words if (match := re.match(rf"({folders})/[\w./*-]*", word))]
    return [path for path in found if not re.search(r"[A-Z]{4,}(?!\w*[a-z])", path)]


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Every call of spinner-exporter: its command and its flags."""
    lines = [line.split("#")[0] for each in code(text) for line in each.splitlines()]
    calls = [found for line in lines if (found := re.search(r"spinner-exporter (\w[\w-]*)(?=\s|$)(.*)", line))]
    return [
        (call[1], re.findall(r"(--[\w.-]+)", call[2]))
        for call in calls
        if re.match(r"[\s$]*(\S*/)?spinner-exporter ", call.string)
    ]


def diagrams(page: Path) -> list[str]:
    """The kinds of a page's Mermaid diagrams."""
    return re.findall(r"^```mermaid\n(\w+)", page.read_text(), flags=re.MULTILINE)
