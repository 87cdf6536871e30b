"""The rules as files: they read only what the exporter has, say what a sleepy person needs, and are tested each."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from exporter.metrics import catalogue
from exporter.status import Status
from tests.stack.programs import ROOT, program

ALERTS = ROOT / "alerts"
RULE_FILES = sorted(ALERTS.glob("*.rules.yml"))
TEST_FILES = sorted((ALERTS / "tests").glob("*.yml"))


def rules() -> Iterator[dict[str, Any]]:
    for file in RULE_FILES:
        for group in yaml.safe_load(file.read_text())["groups"]:
            yield from group["rules"]


ALERT_RULES = [rule for rule in rules() if "alert" in rule]
RECORDED = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}

# What Prometheus and the scrape add to every series.
COMMON = {"job", "instance", "pod"}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ALERTS)


def test_promtool_accepts_the_rules() -> None:
    checked = run(program("promtool"), "check", "rules", *map(str, RULE_FILES))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "duplicate" not in checked.stdout + checked.stderr


@pytest.mark.parametrize("file", TEST_FILES, ids=lambda file: file.name)
def test_promtool_s_rule_tests_pass(file: Path) -> None:
    tested = run(program("promtool"), "test", "rules", str(file))
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule.get("alert") or rule["record"]) for rule in rules()])
def test_an_expression_reads_only_metrics_and_labels_that_there_are(rule: dict[str, Any]) -> None:
    known = catalogue.names()
    for selector in selectors(promql_parser.parse(rule["expr"])):
        labels = labels_of(selector.name)
        for matcher in selector.matchers.matchers:
            assert matcher.name in labels, f"{selector.name} has no label {matcher.name}"
            if matcher.name == "status":
                assert set(matcher.value.split("|")) <= {status.value for status in Status}
    grouping = {name for group in groupings(promql_parser.parse(rule["expr"])) for name in group}
    every = {name for labels in known.values() for name in labels} | COMMON | {"le"}
    assert grouping <= every, f"grouped by labels that nothing has: {grouping - every}"


@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule.get("alert") or rule["record"]) for rule in rules()])
def test_what_is_said_of_one_runtime_stays_apart_from_the_others(rule: dict[str, Any]) -> None:
    """With several runtimes in one exporter one that is down would else hide or excuse what is wrong with another."""
    for node in nodes(promql_parser.parse(rule["expr"])):
        if type(node).__name__ == "AggregateExpr":
            modifier = node.modifier
            assert modifier, f"{rule['expr']} aggregates all runtimes into one"
            if str(modifier.type).endswith("By"):
                assert "runtime" in modifier.labels
            else:
                assert "runtime" not in modifier.labels
        matching = getattr(getattr(node, "modifier", None), "matching", None)
        if matching is not None and str(matching.type).endswith("Include"):
            assert "runtime" in matching.labels, f"{rule['expr']} matches runs of one runtime with those of another"


def labels_of(metric: str) -> set[str]:
    """Return the labels that a metric can have; fails for a name that neither the catalogue nor a rule has."""
    known = catalogue.names()
    family = re.sub(r"_(bucket|sum|count)$", "", metric)
    if metric in known:
        return {*known[metric], *COMMON}
    if family in known:
        return {*known[family], *COMMON, "le"}
    assert metric in RECORDED, f"{metric} is in no catalogue and no recording rule"
    return set.union(*(labels_of(selector.name) for selector in selectors(promql_parser.parse(RECORDED[metric]))))


def nodes(node: Any) -> Iterator[Any]:
    yield node
    for child in children(node):
        yield from nodes(child)


def selectors(node: Any) -> Iterator[Any]:
    return (each for each in nodes(node) if type(each).__name__ == "VectorSelector")


def groupings(node: Any) -> Iterator[list[str]]:
    for each in nodes(node):
        modifier = getattr(each, "modifier", None)
        matching = getattr(modifier, "matching", modifier)
        if matching is not None:
            yield list(matching.labels)


def children(node: Any) -> Iterator[Any]:
    for name in ("lhs", "rhs", "expr", "param", "vector_selector"):
        child = getattr(node, name, None)
        if child is not None:
            yield child
    yield from getattr(node, "args", ())


@pytest.mark.parametrize("record", RECORDED)
def test_a_recording_rule_is_named_level_metric_operation(record: str) -> None:
    level, metric, operation = record.split(":")
    assert set(level.split("_")) <= {"project", "spinner", "run", "state", "status", "step", "meter"}, level
    assert metric.startswith("spinner_"), metric
    assert operation


@pytest.mark.parametrize("rule", ALERT_RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_where_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket", "none")
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert annotations["runbook_url"].endswith(f"/{rule['alert']}.md")
    assert "/d/spinner-jobs" in annotations["dashboard_url"]


@pytest.mark.parametrize("rule", ALERT_RULES, ids=lambda rule: rule["alert"])
def test_an_alert_has_a_runbook_with_every_part(rule: dict[str, Any]) -> None:
    text = (ALERTS / "runbooks" / f"{rule['alert']}.md").read_text()
    assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE) == ["Meaning", "Impact", "Look first", "Fix", "Silence"]
    assert re.findall(r"^(\d)\. ", text, flags=re.MULTILINE) == ["1", "2", "3"]


def test_no_runbook_outlives_its_alert() -> None:
    assert {file.stem for file in (ALERTS / "runbooks").glob("*.md")} == {rule["alert"] for rule in ALERT_RULES}


@pytest.mark.parametrize("rule", ALERT_RULES, ids=lambda rule: rule["alert"])
def test_an_alert_is_tested_to_fire_to_stay_silent_and_to_say_its_words(rule: dict[str, Any]) -> None:
    name = rule["alert"]
    tests = [test for file in TEST_FILES for test in yaml.safe_load(file.read_text())["tests"]]
    worded = {each["alertname"] for test in tests for each in test.get("alert_rule_test", ()) if each["exp_alerts"]}
    assert name in worded
    if name == "SpinnerWatchdog":
        return  # it has nothing else to do than to fire
    looks = [
        {sample["labels"] for sample in look["exp_samples"]}
        for test in tests
        for look in test.get("promql_expr_test", ())
    ]
    fires = [f'{{alertname="{name}"}}' in look for look in looks]
    assert any(fires), f"no test in alerts/tests sees {name} fire"
    assert not all(fires), f"no test in alerts/tests sees {name} silent"


def test_a_series_outlives_every_for_that_waits_for_it() -> None:
    """A series that leaves before its alert's `for` is over makes an alert that can never fire."""
    retention = 3600.0
    for rule in ALERT_RULES:
        if "spinner_run_end_timestamp_seconds" in rule["expr"]:
            assert seconds(rule.get("for", "0s")) + 120 < retention, rule["alert"]


def seconds(duration: str) -> float:
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]


@pytest.mark.parametrize(
    ("severity", "receiver"), [("page", "page"), ("ticket", "ticket"), ("none", "watchdog"), ("other", "ticket")]
)
def test_each_severity_reaches_its_receiver(severity: str, receiver: str) -> None:
    routed = run(
        program("amtool"), "config", "routes", "test", "--config.file=alertmanager.yml", f"severity={severity}"
    )
    assert routed.stdout.strip() == receiver, routed.stdout + routed.stderr


def test_amtool_accepts_the_config_and_its_templates() -> None:
    checked = run(program("amtool"), "check-config", "alertmanager.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "1 templates" in checked.stdout, "the templates are not found"


@pytest.mark.parametrize("template", ["spinner.title", "spinner.text", "spinner.slack.text", "spinner.email.html"])
def test_a_message_says_what_happened_and_where_to_look(tmp_path: Path, template: str) -> None:
    alert = {
        "status": "firing",
        "labels": {"alertname": "SpinnerRunStalled", "severity": "page"},
        "annotations": {
            "summary": "A run of Mails in Sales is stalled.",
            "description": "Stuck for 23m.",
            "dashboard_url": "https://grafana.example.com/d/spinner-jobs",
            "runbook_url": "https://runbooks.example.com/SpinnerRunStalled.md",
        },
    }
    message = {"status": "firing", "commonLabels": alert["labels"], "alerts": [alert]}
    file = tmp_path / "message.json"
    file.write_text(json.dumps(message))
    text = f'{{{{ template "{template}" . }}}}'
    rendered = run(
        *(program("amtool"), "template", "render", "--template.glob=templates/*.tmpl"),
        *(f"--template.text={text}", f"--template.data={file}"),
    )
    assert rendered.returncode == 0, rendered.stderr
    assert "A run of Mails in Sales is stalled." in rendered.stdout
    if template != "spinner.title":
        assert "Stuck for 23m." in rendered.stdout
        assert "https://runbooks.example.com/SpinnerRunStalled.md" in rendered.stdout
    else:
        assert rendered.stdout.strip() == "PAGE: A run of Mails in Sales is stalled."


def test_every_receiver_that_the_documentation_shows_is_a_good_config(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "alerting.md").read_text()
    examples = re.findall(r"```yaml\n(receivers:.+?)```", page, flags=re.DOTALL)
    assert len(examples) >= 3, "PagerDuty, Slack and email are shown"
    for example in examples:
        config = yaml.safe_load((ALERTS / "alertmanager.yml").read_text())
        shown = {each["name"]: each for each in yaml.safe_load(example)["receivers"]}
        config["receivers"] = [shown.get(each["name"], each) for each in config["receivers"]]
        config["templates"] = [str(ALERTS / "templates" / "*.tmpl")]
        file = tmp_path / "alertmanager.yml"
        file.write_text(yaml.safe_dump(config))
        checked = run(program("amtool"), "check-config", str(file))
        assert checked.returncode == 0, f"{example}\n{checked.stdout}{checked.stderr}"
