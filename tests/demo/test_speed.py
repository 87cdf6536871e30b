"""Rules at a higher speed: all durations are divided, and nothing else changes."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from exporter.config import load
from exporter.demo.speed import LEAST_SECONDS, at_speed
from exporter.demo.stack import exporter_config
from tests.stack.programs import ROOT, program

RULE_FILES = sorted((ROOT / "alerts").glob("*.rules.yml"))


@pytest.mark.parametrize(
    ("expression", "at_60"),
    [
        ("rate(a_total[5m])", "rate(a_total[5000ms])"),
        ("increase(a_total[1d] offset 10m)", "increase(a_total[1440000ms] offset 10000ms)"),
        ("max_over_time(a[1h30m:1m])", "max_over_time(a[90000ms:1000ms])"),
        ("time() - a > 180", "time() - a > 3"),
        ("time() - a > 86400", "time() - a > 1440"),
        ("a > 0.2 + 3 * b", "a > 0.2 + 3 * b"),
        ("histogram_quantile(0.95, a) > 10", "histogram_quantile(0.95, a) > 10"),
        ("project:a:rate5m / project:a:increase1d", "project:a:rate5m / project:a:increase1d"),
        ('label_replace(a{b="[5m] 3600"}, "c", "5m", "", "")', 'label_replace(a{b="[5m] 3600"}, "c", "5m", "", "")'),
    ],
)
def test_durations_in_expressions_are_divided_by_the_speed(expression: str, at_60: str) -> None:
    assert at_speed({"expr": expression}, 60) == {"expr": at_60}
    assert at_speed({"expr": expression}, 1) == {"expr": expression}


@pytest.mark.parametrize("speed", [1, 60, 600])
def test_the_exporter_accepts_its_config_at_speed(speed: float, tmp_path: Path) -> None:
    file = tmp_path / "exporter.yml"
    file.write_text(exporter_config("http://127.0.0.1:8090", speed, tmp_path / "state"))
    settings = load(file, environ={})
    assert list(settings.runtimes) == ["demo"]
    assert settings.storage.path == str(tmp_path / "state")


def test_waits_are_divided_by_the_speed_and_intervals_have_a_minimum() -> None:
    document = {"for": "5m", "interval": "1m", "group_wait": "0s", "routes": [{"repeat_interval": "2h"}]}
    assert at_speed(document, 60) == {
        "for": "5000ms",
        "interval": "1000ms",
        "group_wait": "0s",
        "routes": [{"repeat_interval": "120000ms"}],
    }
    assert at_speed({"interval": "15s"}, 600) == {"interval": "500ms"}


@pytest.mark.parametrize("file", RULE_FILES, ids=lambda file: file.name)
def test_large_numbers_in_the_rules_are_seconds(file: Path) -> None:
    for group in yaml.safe_load(file.read_text())["groups"]:
        for rule in group["rules"]:
            for line in rule["expr"].splitlines():
                for number in re.findall(r"(?<![\w:.])\d+(?![\w.])", re.sub(r'"[^"]*"', "", line)):
                    if int(number) >= LEAST_SECONDS:
                        # An increase is divided by the seconds of its window, which is shorter by the same factor.
                        assert re.search(r"time\(\)|_seconds|:increase1[dw] / \d+", line), (
                            f"{file.name}: {number} in {line.strip()!r} would be treated as seconds"
                        )


@pytest.mark.parametrize("speed", [60, 600])
@pytest.mark.parametrize("file", RULE_FILES, ids=lambda file: file.name)
def test_promtool_accepts_the_rules_at_speed(file: Path, speed: int, tmp_path: Path) -> None:
    fast = tmp_path / file.name
    fast.write_text(yaml.safe_dump(at_speed(yaml.safe_load(file.read_text()), speed)))
    checked = subprocess.run(
        [program("promtool"), "check", "rules", str(fast)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
