"""The fake rule evaluation against promtool: both say at which minutes an alert fires."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import yaml

from tests.stack.programs import program, prometheus_with, query
from tests.unknown.remote_write import STALE, RemoteWriter, labels_of
from tests.unknown.rule_engine import RuleEngine

RULES = {
    "groups": [
        {
            "name": "all",
            "rules": [
                {"record": "x:doubled", "expr": "2 * x"},
                {"alert": "AtOnce", "expr": "x:doubled > 0", "labels": {"severity": "page"}},
                {"alert": "After", "expr": "x > 0", "for": "3m", "labels": {"severity": "page"}},
                {
                    "alert": "Kept",
                    "expr": "x > 0",
                    "for": "2m",
                    "keep_firing_for": "3m",
                    "labels": {"severity": "ticket"},
                },
            ],
        }
    ]
}

VALUES = "0 1 1 0 1 1 1 1 _ 1 0 0 1 0 0 0 0 1 1 1 stale _ _ _ _ _ _"
"""The value of x at each minute; `_`: no sample, `stale`: the end of the series."""


START = 1_767_603_600.0


@contextlib.contextmanager
def engine_with(rules: Path) -> Iterator[tuple[str, RemoteWriter, RuleEngine]]:
    with (
        prometheus_with(rules.parent, {}, "--web.enable-remote-write-receiver") as url,
        contextlib.closing(RemoteWriter(url)) as writer,
        contextlib.closing(RuleEngine(url, writer, rules)) as engine,
    ):
        yield url, writer, engine


def found(url: str, expression: str, now: float) -> list[tuple[dict[str, str], float]]:
    return query(url, f"{expression} @ {now}")


def test_alerts_fire_at_the_minutes_at_which_promtool_says(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    rules.write_text(yaml.safe_dump(RULES))
    firing, since = [], []
    with engine_with(rules) as (url, writer, engine):
        for minute, value in enumerate(VALUES.split()):
            now = START + 60 * minute
            if value != "_":
                number = STALE if value == "stale" else float(value)
                writer.add(labels_of("x", {"job": "a"}), now, number)
            writer.flush()
            engine.evaluate(now)
            firing.append({alert.name for alert in engine.firing()})
            since.append([(labels["alertname"], value) for labels, value in found(url, "ALERTS_FOR_STATE", now)])
    assert {name for names in firing for name in names} == {"AtOnce", "After", "Kept"}
    tests = [
        {
            "eval_time": f"{minute}m",
            "alertname": name,
            "exp_alerts": [{"exp_labels": {"job": "a", "severity": "ticket" if name == "Kept" else "page"}}]
            if name in names
            else [],
        }
        for minute, names in enumerate(firing)
        for name in ("AtOnce", "After", "Kept")
    ]
    began = [
        {
            "eval_time": f"{minute}m",
            "expr": "sum by (alertname) (ALERTS_FOR_STATE)",
            # The tests of promtool begin at zero.
            "exp_samples": [
                {"labels": f'{{alertname="{name}"}}', "value": value - START} for name, value in since[minute]
            ],
        }
        for minute in range(len(since))
    ]
    series = [{"series": 'x{job="a"}', "values": VALUES}]
    file = tmp_path / "test.yml"
    file.write_text(
        yaml.safe_dump(
            {
                "rule_files": [str(rules)],
                "evaluation_interval": "1m",
                "tests": [
                    {"interval": "1m", "input_series": series, "alert_rule_test": tests, "promql_expr_test": began}
                ],
            }
        )
    )
    checked = subprocess.run(
        [program("promtool"), "test", "rules", str(file)], capture_output=True, text=True, timeout=120, check=False
    )
    assert checked.returncode == 0, (
        f"promtool disagrees with tests/unknown/rule_engine.py:\n{checked.stdout}{checked.stderr}"
    )


def test_a_group_is_evaluated_once_in_its_interval(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    group = {"name": "rare", "interval": "5m", "rules": [{"record": "x:at", "expr": "vector(time())"}]}
    rules.write_text(yaml.safe_dump({"groups": [group]}))
    evaluated = []
    with engine_with(rules) as (url, _, engine):
        for minute in range(12):
            engine.evaluate(START + 60 * minute)
            ((_, at),) = found(url, "x:at", START + 60 * minute)
            evaluated.append((at - START) / 60)
    assert evaluated == [0] * 5 + [5] * 5 + [10] * 2
