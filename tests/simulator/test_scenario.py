"""Scenario files: their format, and the errors for invalid ones."""

import re
from pathlib import Path

import msgspec
import pytest

from exporter.simulator import ScenarioError, load_scenario, shipped_scenarios
from exporter.simulator import scenario as format_of_files
from exporter.simulator.durations import Count, Duration, Span

MINIMAL = """
summary: A test
projects:
  - name: Shop
    spinners:
      - name: Mail
        steps: [{name: Send, type: email}]
"""


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("1h30m", 5400), ("2d", 172800), ("1w", 604800), ("250ms", 0.25), ("0s", 0)]
)
def test_durations_have_the_format_of_prometheus(text: str, seconds: float) -> None:
    assert Duration.parse(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "1m1h", "-1s", "1.5h", " 5s", "5 s", "٣s", 5, None])
def test_other_durations_are_rejected(text: object) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        Duration.parse(text)


def test_spans_and_counts_include_both_ends() -> None:
    assert [Span.parse("2s..30s").at(share) for share in (0, 1)] == [2, 30]
    assert Span.parse("5s").at(0.7) == 5
    assert [Count.parse("3..5").at(share) for share in (0, 0.5, 0.999)] == [3, 4, 5]
    assert Count.parse(7).at(0.9) == 7


def rejection(folder: Path, text: str) -> str:
    path = folder / "scenario.yaml"
    path.write_text(text)
    with pytest.raises(ScenarioError) as raised:
        load_scenario(str(path))
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected keys and values, such as summary: and projects:"),
        ("a: [", "not YAML: "),
        ("a: " + "[" * 5000, "not YAML: nested too deeply"),
        (MINIMAL + "before: !!int x", "not YAML: "),
        (MINIMAL + "before: 1h\nbefore: 2h", "not YAML: duplicate key before in "),
        (MINIMAL + "before: !!bool x", "not YAML: "),
        (MINIMAL + "before: 2026-02-30", "$.before: expected a duration such as 90s, 1h30m or 2d, got '2026-02-30'"),
        (MINIMAL + "before: 1:30", "$.before: expected a duration such as 90s, 1h30m or 2d, got '1:30'"),
        (MINIMAL + "runtime: {workers: 010}", "$.runtime.workers: expected `int`, got `str`"),
        (MINIMAL + "surprise: 1", "$: object contains unknown field `surprise`"),
        (MINIMAL + "name: other", "$.name: unknown key"),
        (MINIMAL + "before: 10", "$.before: expected a duration such as 90s, 1h30m or 2d, got 10"),
        (MINIMAL + "expect: [Nothing]", "$.expect[0]: invalid enum value 'Nothing'"),
        (MINIMAL + "runtime: {heartbeat: 0s}", "$.runtime: heartbeat: expected more than 0s"),
        (MINIMAL + "incidents: [{kind: flood, at: 1s}]", "$.incidents[0].kind: invalid value 'flood'"),
        (MINIMAL + "incidents: [{kind: stall, at: 1s, spinner: Post}]", "$: incidents[0].spinner: no spinner has"),
        (MINIMAL + "incidents: [{kind: slow, at: 1s, spinner: Mail, step: Go, factor: 2}]", "$: incidents[0].step: "),
        (MINIMAL.replace("email}", "email, latency: 9s..1s}"), "$.projects[0].spinners[0].steps[0].latency: expected"),
        (MINIMAL.replace("email}", "human_call}"), "$.projects[0].spinners[0].steps[0]: wait: expected for a human"),
        (MINIMAL.replace("email}", "email, failures: {A: 0.6, B: 0.6}}"), "$.projects[0].spinners[0].steps[0]: failur"),
        (MINIMAL.replace("name: Shop", "{name: Shop, copies: 2}").replace("{name: Shop", "name: Shop", 1), "not YAML"),
        (MINIMAL.replace("name: Shop", "name: Shop\n    copies: 2"), "$.projects[0]: name: expected {n} in it"),
        (
            MINIMAL.replace("name: Mail", "name: Mail\n        runs: [{}]"),
            "$.projects[0].spinners[0].runs[0]: expected",
        ),
        (MINIMAL.replace("[{name: Send", "[{name: Send, type: log}, {name: Send"), "$.projects[0].spinners[0]: steps:"),
    ],
)
def test_an_error_names_the_file_the_path_and_what_was_expected(tmp_path: Path, text: str, message: str) -> None:
    assert rejection(tmp_path, text).startswith(message)


def test_the_error_for_an_unknown_name_lists_the_scenarios() -> None:
    with pytest.raises(ScenarioError, match=r"^helthy: cannot be read: .*; expected a file, or one of .*healthy"):
        load_scenario("helthy")


def test_every_scenario_of_the_package_loads_and_has_a_summary_and_a_name() -> None:
    shipped = shipped_scenarios()
    assert {"healthy", "stalled", "runtime-down", "provider-outage", "plan-limit", "large-org"} <= shipped.keys()
    for name, summary in shipped.items():
        assert load_scenario(name).name == name
        assert summary == load_scenario(name).summary


def test_every_expected_alert_is_caused_by_a_scenario() -> None:
    expected = {alert for name in shipped_scenarios() for alert in load_scenario(name).expect}
    assert expected == {
        "SpinnerRuntimeDown",
        "SpinnerRunStalled",
        "SpinnerRunNotPickedUp",
        "SpinnerFailedRecordsBurst",
        "SpinnerPlanLimitReached",
    }


DOCUMENT = (Path(__file__).parents[2] / "docs" / "scenarios.md").read_text()


def test_the_example_in_the_documentation_loads(tmp_path: Path) -> None:
    example = re.search(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
    assert example is not None
    path = tmp_path / "example.yaml"
    path.write_text(example[1])
    assert load_scenario(str(path)).before == Duration(3600)


def test_the_documentation_has_every_key_incident_and_scenario() -> None:
    classes = [each for each in vars(format_of_files).values() if isinstance(each, type)]
    sections = [each for each in classes if issubclass(each, msgspec.Struct) and not each.__name__.startswith("_")]
    keys = {key for section in sections for key in section.__struct_encode_fields__}
    kinds = {section.__struct_config__.tag for section in sections} - {None}
    words = set(re.findall(r"[a-z_][a-z_-]*", " ".join(re.findall(r"`([^`\n]+)`", DOCUMENT))))
    assert keys | kinds | shipped_scenarios().keys() <= words
