"""The documentation says what the code does; where it can be checked, it is."""

import re
from pathlib import Path

import pytest

from exporter.config import FileConfig, load
from exporter.config.loading import _leaves

ROOT = Path(__file__).parents[1]
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()
DEFAULTS = load(None, environ={"SPINNER_EXPORTER_RUNTIME_BASE_URL": "http://127.0.0.1:8090"}).runtimes[""]

KEYS = {".".join(path) for path, _ in _leaves(FileConfig) if path[:2] != ("runtime", "resources")} - {"runtime.token"}
NONE_BY_DEFAULT = {
    "runtime.base_url", "runtime.token_file", "runtime.proxy", "runtime.tls.ca_file", "runtime.tls.cert_file",
    "runtime.tls.key_file", "runtime.auth.username", "projects.include", "projects.exclude",
    "storage.path", "web.config_file",
}  # fmt: skip


def documented() -> dict[str, str]:
    rows = re.findall(r"^\| `([\w.]+)` \| (.+?) \| .+ \|$", CONFIGURATION, flags=re.MULTILINE)
    return dict(rows)


def test_every_key_is_documented_and_nothing_else_is() -> None:
    assert set(documented()) == KEYS, "docs/configuration.md and exporter/config.py do not name the same keys"


@pytest.mark.parametrize("key", sorted(KEYS - NONE_BY_DEFAULT))
def test_a_documented_default_is_the_default(key: str) -> None:
    actual: object = DEFAULTS
    for name in key.split("."):
        actual = getattr(actual, name)
    written = documented()[key].strip("`")
    env = {"SPINNER_EXPORTER_RUNTIME_BASE_URL": "http://127.0.0.1:8090", _variable(key): written}
    again: object = load(None, environ=env).runtimes[""]
    for name in key.split("."):
        again = getattr(again, name)
    assert again == actual, f"docs/configuration.md gives {written} as the default of {key}"


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_a_page_opens_with_who_it_is_for(page: Path) -> None:
    opening = page.read_text().split("\n\n")[1]
    assert opening.startswith("For "), f"{page}: the first paragraph says who the page is for"


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page} links to {target}, which is not there"


def test_every_promise_names_a_test_that_there_is() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert len(named) > 30
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(), f"docs/reliability.md promises by {file}::{test}"
    promises = re.findall(r"^\| (?!promise|---)(.+?) \| (.+) \|$", page, flags=re.MULTILINE)
    assert all("tests/" in by or "the same" in by for _, by in promises), "a promise without a test"


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
