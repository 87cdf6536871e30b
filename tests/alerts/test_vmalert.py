"""vmalert plays recorded series and the alert that depends on them, over two days in a VictoriaMetrics."""

import re
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.alerts.rule_files import RULE_FILES, alert_rule, rules
from tests.stack.programs import built_by_go, query, until, victoria_metrics

pytestmark = pytest.mark.programs

MINUTE, HOUR = 60, 3600
RECORDED = "project_spinner:spinner_records_processed_busy:rate1h"
LABELS = '{job="spinner",instance="a",project="Sales",spinner="Mails"'


@pytest.mark.parametrize(("slow_rate", "fires"), [(2, True), (10, False)])
def test_a_chain_of_recorded_series_reaches_its_alert(tmp_path: Path, *, slow_rate: int, fires: bool) -> None:
    ends = int(time.time()) // MINUTE * MINUTE
    begins = ends - 45 * HOUR
    with victoria_metrics(tmp_path) as store:
        history = history_of(begins, ends, slow_since=ends - 5 * HOUR, slow_rate=slow_rate)
        httpx.post(f"{store}/api/v1/import/prometheus", content=history, timeout=60).raise_for_status()
        httpx.get(f"{store}/internal/force_flush").raise_for_status()
        replay(store, chain("SpinnerSlowdown", tmp_path / "rules.yml"), begins, ends)
        httpx.get(f"{store}/internal/force_flush").raise_for_status()
        until(lambda: query(store, f"last_over_time({RECORDED}[2h])"), "vmalert has recorded the last hours")
        firing = query(store, 'count_over_time(ALERTS{alertname="SpinnerSlowdown",alertstate="firing"}[2h])')
        assert bool(firing) == fires, f"at {slow_rate} records a minute instead of 10, vmalert says {firing}"


def history_of(begins: int, ends: int, *, slow_since: int, slow_rate: int) -> str:
    """Return a spinner's counters and running runs, a sample a minute, in the exposition format."""
    lines, finished = [], 0
    for seconds in range(begins, ends, MINUTE):
        finished += slow_rate if seconds > slow_since else 10
        for state, value in (("completed", finished), ("failed", 0)):
            lines.append(f'spinner_records_processed_total{LABELS},state="{state}"}} {value} {seconds * 1000}')
        lines.append(f'spinner_runs{LABELS},status="running"}} 1 {seconds * 1000}')
        lines.append(f'spinner_project_up{{job="spinner",instance="a",project="Sales"}} 1 {seconds * 1000}')
    return "\n".join([*lines, ""])


def chain(alert: str, file: Path) -> Path:
    """Write the rules that an alert depends on and the alert's own, in the groups and the order in which they are."""
    recorded = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}
    needed, unread = set[str](), [alert_rule(alert)["expr"]]
    while unread:
        expression = unread.pop()
        names = {name for name in recorded if re.search(rf"(?<![\w:]){re.escape(name)}(?![\w:])", expression)} - needed
        needed |= names
        unread += [recorded[name] for name in names]
    groups: list[dict[str, Any]] = []
    # The recording rules are first: a replay plays one group after the other.
    for path in reversed(RULE_FILES):
        for group in yaml.safe_load(path.read_text())["groups"]:
            kept = [rule for rule in group["rules"] if rule.get("record") in needed or rule.get("alert") == alert]
            if kept:
                groups.append({**group, "rules": kept})
    assert len(groups) > 1, "the alert and what it reads are in one group"
    file.write_text(yaml.safe_dump({"groups": groups}))
    return file


def replay(store: str, file: Path, begins: int, ends: int) -> None:
    """Let vmalert evaluate rules at each moment of the past."""
    command = [
        built_by_go("vmalert"),
        f"-rule={file}",
        f"-datasource.url={store}",
        f"-remoteWrite.url={store}",
        "-remoteWrite.flushInterval=200ms",
        f"-replay.timeFrom={datetime.fromtimestamp(begins, UTC).isoformat()}",
        f"-replay.timeTo={datetime.fromtimestamp(ends, UTC).isoformat()}",
        "-replay.rulesDelay=2s",
        "-replay.disableProgressBar",
        "-httpListenAddr=127.0.0.1:0",
    ]
    played = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert played.returncode == 0, f"vmalert ends with {played.returncode}\n{played.stderr[-2000:]}"
