"""Every scenario of the package from end to end, run by `spinner-exporter demo` with Prometheus and Alertmanager.

Each alert that the scenario expects pages once, and no other one pages.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.simulator import load_scenario, shipped_scenarios
from tests.stack.programs import ROOT, program

# Duration and speed of each scenario: until all expected pages have come, and some time longer.
RUNS = {
    "backlog": ("50m", 60),
    "endless-retries": ("45m", 60),
    "healthy": ("30m", 60),
    # Slower, because two processors must keep up with it.
    "large-org": ("15m", 12),
    "long-records": ("1h50m", 100),
    "lost-records": ("55m", 60),
    "plan-limit": ("45m", 60),
    "provider-outage": ("55m", 60),
    # The runtime is up again after two hours, which must not cause further pages.
    "runtime-down": ("2h20m", 100),
    "stalled": ("45m", 60),
}


def test_every_scenario_is_run() -> None:
    assert set(RUNS) == set(shipped_scenarios())


@pytest.mark.parametrize("name", RUNS)
def test_a_scenario_ends_in_exactly_the_pages_that_it_should_cause(name: str, tmp_path: Path) -> None:
    program("prometheus"), program("prometheus-alertmanager")  # skips where they are missing
    duration, speed = RUNS[name]
    output = demo(tmp_path, f"--scenario={name}", f"--speed={speed}", f"--duration={duration}")
    pages = re.findall(r"^PAGE (\w+): (.+)", output, re.MULTILINE)
    expected = list(load_scenario(name).expect)
    assert sorted(alert for alert, _ in pages) == sorted(expected), (
        f"{name} should page {expected} and paged {pages}; its output was\n{output}"
    )


def demo(folder: Path, *flags: str) -> str:
    """Run the demo to its end and return what it printed."""
    environ = os.environ | {"PATH": f"{ROOT / '.debian' / 'usr' / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    log = folder / "demo.txt"
    with log.open("w") as file:
        ended = subprocess.run(
            [sys.executable, "-m", "exporter", "demo", *flags], stdout=file, stderr=file, env=environ, check=False
        )
    output = log.read_text()
    assert ended.returncode == 0, f"the demo failed:\n{output}"
    return output
