"""Checks of the rule files: existing metrics in expressions, texts and runbooks for alerts, tests for every rule."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest

from exporter.config import parse_duration
from exporter.metrics import catalogue
from exporter.status import Status
from tests.alerts.rule_files import RULE_FILES, alert_rule, rule_tests, rules
from tests.stack.programs import ROOT, program
from tests.yaml_files import read_yaml

ALERTS = ROOT / "alerts"
TEST_FILES = sorted((ALERTS / "tests").glob("*.yml"))


EXPLAINED_BY = {
    "SpinnerPlanLimitSoon": "capacity",
    "SpinnerPlanLimitReached": "capacity",
    "SpinnerSlowdown": "health",
    "SpinnerRunsDropped": "exporter",
    "SpinnerInvalidItems": "exporter",
    "SpinnerExporterDown": "exporter",
    "SpinnerTargetDown": "exporter",
    "SpinnerProjectsNotScraped": "exporter",
    "SpinnerHistogramsConverted": "exporter",
    "SpinnerRecordingRulesMissing": "exporter",
}
"""The dashboard that explains an alert, where it is not Jobs."""

ALERT_RULES = [rule for rule in rules() if "alert" in rule]
RECORDED = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}

# Labels that Prometheus and service discovery add to every series.
COMMON = {"job", "instance", "pod"}

# Series that Prometheus makes itself.
OF_PROMETHEUS = {
    "up": frozenset(COMMON),
    # A native histogram.
    "spinner_exporter_upstream_request_duration_seconds": frozenset({*COMMON, "runtime", "resource"}),
    "ALERTS": frozenset({"alertname", "alertstate", "severity", "job", "runtime", "project", "spinner", "run_id"}),
}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ALERTS)


def test_promtool_accepts_the_rules() -> None:
    checked = run(program("promtool"), "check", "rules", *map(str, RULE_FILES))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "duplicate" not in checked.stdout + checked.stderr


@pytest.mark.parametrize("file", TEST_FILES, ids=lambda file: file.name)
def test_promtool_passes_the_rule_tests(file: Path) -> None:
    tested = run(program("promtool"), "test", "rules", str(file))
    assert tested.returncode == 0, tested.stdout + tested.stderr


RARELY = "4m"
"""The longest interval of a group."""


@pytest.mark.parametrize("file", RULE_FILES, ids=lambda file: file.name)
def test_each_result_is_found_until_the_next_is_stored(file: Path) -> None:
    """Prometheus looks back five minutes from the time of an evaluation, and evaluates large groups for seconds.

    With an interval of five minutes, a rule that is evaluated meanwhile finds neither the last result nor the next. It
    is evaluated at the same moment of each interval: no alert with a longer `for` would ever fire.
    """
    for group in read_yaml(file)["groups"]:
        assert parse_duration(group.get("interval", "0s")) <= parse_duration(RARELY), group["name"]


@pytest.mark.parametrize("file", RULE_FILES, ids=lambda file: file.name)
def test_no_rule_of_a_rare_group_reads_what_its_own_group_records(file: Path) -> None:
    """vmalert stores the results of a group after all of its rules: a rule reads those of the evaluation before.

    With an interval of minutes they are nearly as old as a query looks back, and the rule follows late. A rule may
    continue its own series: within the lookback, or over a range.
    """
    for group in read_yaml(file)["groups"]:
        if "recording" not in file.name and group.get("interval") != RARELY:
            continue  # alerts that are evaluated often follow one evaluation later
        recorded = {rule["record"] for rule in group["rules"] if "record" in rule}
        for rule in group["rules"]:
            read = {selector.name for selector in selectors(promql_parser.parse(rule["expr"]))}
            own = rule.get("record", "")
            if group.get("interval") != RARELY or len(re.findall(rf"{own}(?:{{[^}}]*}})?\[1d\]", rule["expr"])):
                read -= {own}
            assert not read & recorded, (
                f"{group['name']}: {rule.get('record') or rule['alert']} reads {read & recorded}"
            )


@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule.get("alert") or rule["record"]) for rule in rules()])
def test_an_expression_uses_only_existing_metrics_and_labels(rule: dict[str, Any]) -> None:
    known = catalogue.names()
    for selector in selectors(promql_parser.parse(rule["expr"])):
        labels = labels_of(selector.name)
        for matcher in selector.matchers.matchers:
            assert matcher.name in labels, f"{selector.name} has no label {matcher.name}"
            if matcher.name == "status":
                assert set(matcher.value.split("|")) <= {status.value for status in Status}
    grouping = {name for group in groupings(promql_parser.parse(rule["expr"])) for name in group}
    every = {name for labels in known.values() for name in labels} | COMMON | OF_PROMETHEUS["ALERTS"] | {"le"}
    assert grouping <= every, f"grouped by labels that no metric has: {grouping - every}"


@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule.get("alert") or rule["record"]) for rule in rules()])
def test_an_expression_never_mixes_runtimes(rule: dict[str, Any]) -> None:
    """Otherwise a runtime that is down would hide or suppress the problems of another one in the same exporter."""
    for node in nodes(promql_parser.parse(rule["expr"])):
        if type(node).__name__ == "AggregateExpr" and "runtime" in result_labels(node.expr):
            assert "runtime" in result_labels(node) or counts_targets(node), f"{node} aggregates all runtimes into one"
        matching = getattr(getattr(node, "modifier", None), "matching", None)
        if matching is not None and "runtime" in result_labels(node.lhs) & result_labels(node.rhs):
            assert {"runtime"} <= set(matching.labels) or {"job", "instance"} <= set(matching.labels), (
                f"{node} matches series of one runtime with those of another"
            )


def counts_targets(node: Any) -> bool:
    """Whether an aggregation is about targets, each of which may expose several runtimes."""
    return str(node.op) == "group" and set(node.modifier.labels) == {"job", "instance"}


@pytest.mark.parametrize("rule", ALERT_RULES, ids=lambda rule: rule["alert"])
def test_a_link_to_a_dashboard_has_no_empty_variable_and_names_the_runtime(rule: dict[str, Any]) -> None:
    """Grafana takes an empty variable for a project without a name, of which every panel is empty."""
    url, expression = rule["annotations"]["dashboard_url"], promql_parser.parse(rule["expr"])
    unguarded = re.findall(r"=\{\{ *\$labels\.(\w+)", url)
    assert set(unguarded) <= certain_labels(expression), "an alert without this label has an empty variable"
    if "runtime" in result_labels(expression):
        assert "{{ with $labels.runtime }}" in url
        assert "var-runtime=" in url


def certain_labels(node: Any) -> set[str]:
    """Return the labels that each result of an expression has."""
    kind = type(node).__name__
    if kind == "ParenExpr":
        return certain_labels(node.expr)
    if kind == "BinaryExpr" and str(node.op) == "or":
        return certain_labels(node.lhs) & certain_labels(node.rhs)
    if kind == "BinaryExpr" and str(node.op) in ("and", "unless"):
        return certain_labels(node.lhs)
    return result_labels(node)


def test_labels_that_each_result_has_are_known() -> None:
    """The check above relies on it."""
    some = promql_parser.parse("project:spinner_project_up:unreadable and up or spinner_api_up")
    assert certain_labels(some) == {"runtime"}


def test_labels_of_an_expression_are_known() -> None:
    """The check above relies on it."""
    labels = {
        "spinner_api_up": {"runtime", *COMMON},
        "max by (runtime) (spinner_api_up)": {"runtime"},
        "max without (instance) (spinner_api_up)": {"runtime", "job", "pod"},
        "up == 0 and on (job) spinner_api_up": COMMON,
        "up * on (job, instance) group_right () instance_runtime:spinner_api_up:lost": {"runtime", *COMMON},
        "up or spinner_api_up": {"runtime", *COMMON},
        "absent(spinner_api_up)": set(),
        "max_over_time(timestamp(spinner_api_up)[1h:1m])": {"runtime", *COMMON},
        'label_replace(up, "kind", "", "", "")': {"kind", *COMMON},
        "time() * instance:spinner_target:down_since": {"job", "instance"},
    }
    assert {text: result_labels(promql_parser.parse(text)) for text in labels} == labels


def labels_of(metric: str) -> set[str]:
    """Return the labels that a metric can have. Fails if neither the catalogue nor a recording rule defines it."""
    known = catalogue.names()
    family = re.sub(r"_(bucket|sum|count)$", "", metric)
    if metric in OF_PROMETHEUS:
        return set(OF_PROMETHEUS[metric])
    if metric in known:
        return {*known[metric], *COMMON}
    if family in known:
        return {*known[family], *COMMON, "le"}
    assert metric in RECORDED, f"{metric} is neither in the catalogue nor a recording rule"
    return recorded_labels(metric)


recording: set[str] = set()
"""The recorded metrics whose labels are being determined: a rule may continue its own series."""


def recorded_labels(metric: str) -> set[str]:
    if metric in recording:
        return set()
    recording.add(metric)
    try:
        return result_labels(promql_parser.parse(RECORDED[metric]))
    finally:
        recording.remove(metric)


def result_labels(node: Any) -> set[str]:
    """Return the labels that the result of an expression can have."""
    kind = type(node).__name__
    if kind == "VectorSelector":
        return labels_of(node.name)
    if kind == "AggregateExpr":
        inner, modifier = result_labels(node.expr), node.modifier
        if modifier is None:
            return set()
        return set(modifier.labels) if str(modifier.type).endswith("By") else inner - set(modifier.labels)
    if kind == "BinaryExpr" and str(node.op) in ("and", "unless"):
        return result_labels(node.lhs)
    if kind == "Call" and node.func.name == "absent":
        return set()
    more = {node.args[1].val} if kind == "Call" and node.func.name == "label_replace" else set()
    return set.union(more, *(result_labels(child) for child in children(node)))


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
    levels = {"instance", "runtime", "project", "spinner", "run", "state", "status", "step", "error", "meter"}
    assert set(level.split("_")) <= levels, level
    assert metric.startswith("spinner_"), metric
    assert operation


@pytest.mark.parametrize("rule", ALERT_RULES, ids=lambda rule: rule["alert"])
def test_an_alert_has_a_severity_texts_and_links(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket", "none")
    annotations = rule["annotations"]
    of_run = {"progress"} if "run_id" in annotations["description"] else set()
    assert set(annotations) == {"summary", "action", "description", "runbook_url", "dashboard_url"} | of_run
    assert annotations["runbook_url"].endswith(f"/{rule['alert']}.md")
    assert f"/d/spinner-{EXPLAINED_BY.get(rule['alert'], 'jobs')}" in annotations["dashboard_url"]
    for url in (annotations["dashboard_url"], annotations["runbook_url"]):
        # What is encoded is either printed itself, or as the dot of a `with`.
        for printed in re.findall(r"\{\{ *([$.][^}]*?) *\}\}", url.partition("}}{{ . }}")[2]):
            assert printed.endswith("| urlquery"), f"a label can add a part to {url}"


@pytest.mark.parametrize("rule", ALERT_RULES, ids=lambda rule: rule["alert"])
def test_an_alert_has_a_runbook_with_all_sections(rule: dict[str, Any]) -> None:
    text = (ALERTS / "runbooks" / f"{rule['alert']}.md").read_text()
    sections = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    assert sections[0].strip() == f"# {rule['alert']}"
    assert sections[1::2] == ["Meaning", "Impact", "Diagnosis", "Mitigation"]
    assert all(body.strip() for body in sections[2::2]), "a section is empty"
    diagnosis, mitigation = sections[6], sections[8]
    assert re.findall(r"^(\d)\. ", diagnosis, flags=re.MULTILINE) == ["1", "2", "3"]
    assert re.search(r"^- ", mitigation, flags=re.MULTILINE)
    if rule["alert"] != "SpinnerWatchdog":
        assert f"amtool silence add alertname={rule['alert']} " in mitigation
        # amtool and the shell need both quotes for a value with a space.
        assert not re.findall(r"(?<!['\w])\w+=\"?[A-Z_]+\"? ", mitigation), "a placeholder is not quoted"


NO_QUERIES = {"spinner_limit", "spinner_recording_"}
"""A reason, and how the names of groups begin."""


@pytest.mark.parametrize("rule", ALERT_RULES, ids=lambda rule: rule["alert"])
def test_the_queries_of_a_runbook_name_existing_metrics_and_labels(rule: dict[str, Any]) -> None:
    text = (ALERTS / "runbooks" / f"{rule['alert']}.md").read_text()
    for query in set(re.findall(r"`([^`\n]*\bspinner_[^`\n]*)`", text)) - NO_QUERIES:
        parsed = promql_parser.parse(query)
        for selector in selectors(parsed):
            labels = labels_of(selector.name)
            for matcher in selector.matchers.matchers:
                assert matcher.name in labels, f"{selector.name} has no label {matcher.name}"
        for node in nodes(parsed):
            if type(node).__name__ == "AggregateExpr" and node.modifier is not None:
                assert set(node.modifier.labels) <= result_labels(node.expr), f"{query} groups by what it does not have"


@pytest.mark.parametrize("rule", ALERT_RULES, ids=lambda rule: rule["alert"])
def test_the_silence_of_a_runbook_names_what_the_alert_is_about_and_no_more(rule: dict[str, Any]) -> None:
    """A silence without the runtime or the project silences those of others, which may have runs of the same name."""
    text = (ALERTS / "runbooks" / f"{rule['alert']}.md").read_text()
    for silence in re.findall(r"^amtool silence add alertname=\w+ (.*)--duration", text, flags=re.MULTILINE):
        named, expression = set(re.findall(r"'(\w+)=", silence)), promql_parser.parse(rule["expr"])
        assert named <= result_labels(expression), "the alert does not have this label"
        about = {"runtime", "project", "run_id"} & certain_labels(expression)
        about |= set() if "run_id" in about else {"spinner"} & certain_labels(expression)
        assert about <= named, "it silences more than this alert"


def test_every_runbook_belongs_to_an_alert() -> None:
    assert {file.stem for file in (ALERTS / "runbooks").glob("*.md")} == {rule["alert"] for rule in ALERT_RULES}


@pytest.mark.parametrize("rule", ALERT_RULES, ids=lambda rule: rule["alert"])
def test_rule_tests_cover_that_an_alert_fires_stays_silent_and_has_its_texts(rule: dict[str, Any]) -> None:
    name = rule["alert"]
    tests = [test for file in TEST_FILES for test in rule_tests(file)]
    with_texts = {each["alertname"] for test in tests for each in test.get("alert_rule_test", ()) if each["exp_alerts"]}
    assert name in with_texts
    if name == "SpinnerWatchdog":
        return  # it always fires
    evaluations = [
        {
            alertname
            for sample in evaluation["exp_samples"]
            for alertname in re.findall(r'alertname="(\w+)"', sample["labels"])
        }
        for test in tests
        for evaluation in test.get("promql_expr_test", ())
    ]
    fires = [name in evaluation for evaluation in evaluations]
    assert any(fires), f"no test in alerts/tests expects {name} to fire"
    assert not all(fires), f"no test in alerts/tests expects {name} not to fire"


def inhibited_pages() -> Iterator[tuple[str, str]]:
    """Which page inhibits which other, by alerts/alertmanager.yml."""
    pages = [rule["alert"] for rule in ALERT_RULES if rule["labels"]["severity"] == "page"]
    for inhibition in read_yaml(ALERTS / "alertmanager.yml")["inhibit_rules"]:
        for source in pages:
            for target in pages:
                if source != target and all(
                    matches(matcher, {"alertname": name, "severity": "page"})
                    for name, matchers in ((source, "source_matchers"), (target, "target_matchers"))
                    for matcher in inhibition[matchers]
                ):
                    yield source, target


def matches(matcher: str, labels: dict[str, str]) -> bool:
    label, operator, pattern = re.fullmatch(r'(\w+)(=~|!~|!=|=)"(.*)"', matcher).groups()  # type: ignore[union-attr]
    found = re.fullmatch(pattern if "~" in operator else re.escape(pattern), labels.get(label, ""))
    return bool(found) != operator.startswith("!")


def test_pages_that_inhibit_each_other_are_found() -> None:
    """The check below relies on it."""
    pairs = set(inhibited_pages())
    assert ("SpinnerRuntimeDown", "SpinnerRunStalled") in pairs
    assert ("SpinnerExporterDown", "SpinnerRuntimeDown") in pairs
    assert ("SpinnerExporterDown", "SpinnerRunStalled") not in pairs
    assert not {source for source, _ in pairs} - {"SpinnerExporterDown", "SpinnerApiDown", "SpinnerRuntimeDown"}


@pytest.mark.parametrize(("source", "target"), sorted(set(inhibited_pages())), ids="-".join)
def test_a_page_that_another_inhibits_lasts_until_the_other_has_ended(source: str, target: str) -> None:
    """Alertmanager mutes the resolution of an inhibited alert and forgets it: the incident would stay open for ever."""
    rule = alert_rule(target)
    read = [
        {each.name: each.value for each in selector.matchers.matchers}
        for selector in selectors(promql_parser.parse(rule["expr"]))
        if selector.name == "ALERTS"
    ]
    for name in (source, target):
        assert any(re.fullmatch(each["alertname"], name) and each["alertstate"] == "firing" for each in read), (
            f"{target} does not continue while {source} fires"
        )
    assert parse_duration(rule["keep_firing_for"]) > parse_duration(alert_rule(source)["for"]), (
        f"{target} ends before {source} fires"
    )


@pytest.mark.parametrize("rule", ALERT_RULES, ids=lambda rule: rule["alert"])
def test_rule_tests_cover_that_what_an_alert_reads_becomes_unknown(rule: dict[str, Any]) -> None:
    """Fails if no test in these files expects the alert to fire."""
    name = rule["alert"]
    if name == "SpinnerWatchdog":
        return  # it reads nothing
    files = ("unknown.yml", "lost.yml", "lost-for-days.yml", "clocks.yml")
    texts = [sample["labels"] for file in files for sample in expected_samples(ALERTS / "tests" / file)]
    assert any(f'alertname="{name}"' in text for text in texts)


def expected_samples(file: Path) -> Iterator[dict[str, Any]]:
    for test in rule_tests(file):
        for evaluation in test.get("promql_expr_test", ()):
            yield from evaluation["exp_samples"]


def test_series_of_ended_runs_exist_for_longer_than_any_for() -> None:
    """An alert can never fire if its series disappear before its `for` has passed."""
    retention = 3600.0
    for rule in ALERT_RULES:
        if "spinner_run_end_timestamp_seconds" in rule["expr"]:
            assert parse_duration(rule.get("for", "0s")) + 120 < retention, rule["alert"]


@pytest.mark.parametrize(
    ("severity", "receiver"), [("page", "page"), ("ticket", "ticket"), ("none", "watchdog"), ("other", "ticket")]
)
def test_each_severity_is_routed_to_its_receiver(severity: str, receiver: str) -> None:
    routed = run(
        program("amtool"), "config", "routes", "test", "--config.file=alertmanager.yml", f"severity={severity}"
    )
    assert routed.stdout.strip() == receiver, routed.stdout + routed.stderr


def test_amtool_accepts_the_config_and_its_templates() -> None:
    checked = run(program("amtool"), "check-config", "alertmanager.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "1 templates" in checked.stdout, "amtool does not find the templates"
