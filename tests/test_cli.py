"""Commands: exit codes, one-line errors, signals."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from exporter.cli import cli
from tests.command_line import run
from tests.stack.programs import ROOT, exporter, free_port, runtime, spinner_exporter, until

COMMAND = [sys.executable, "-m", "exporter"]


def config(folder: Path, text: str = 'runtime: {base_url: "http://127.0.0.1:9"}\n') -> str:
    file = folder / "exporter.yml"
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize("command", ["serve", "once"])
def test_a_bad_config_is_one_line_and_status_2(tmp_path: Path, command: str) -> None:
    """In a separate process, unlike `tests/config/test_mistakes.py`."""
    ended = spinner_exporter(command, f"--config.file={config(tmp_path, 'runtime: {base_url: 5}')}")
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert "runtime.base_url: expected text" in ended.stderr


def test_without_settings_the_error_names_what_to_set() -> None:
    ended = run("serve")
    assert (ended.returncode, "--runtime.base-url" in ended.stderr) == (2, True)


def test_a_missing_token_file_is_one_line_and_status_1(tmp_path: Path) -> None:
    anywhere = "--web.listen-address=127.0.0.1:0"
    ended = run("serve", f"--config.file={config(tmp_path)}", "--runtime.token-file=/nowhere/token", anywhere)
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert "runtime.token_file: /nowhere/token: cannot be read" in ended.stderr


def test_check_config_says_good_or_what_is_wrong(tmp_path: Path) -> None:
    good = run("check-config", config(tmp_path))
    assert (good.returncode, good.stdout.strip().endswith("good")) == (0, True)
    bad = run("check-config", config(tmp_path, "retention: 5"))
    assert (bad.returncode, bad.stderr.count("\n")) == (2, 1)


def test_check_config_says_whether_the_folder_of_the_state_can_be_used(tmp_path: Path) -> None:
    text = 'runtime: {{base_url: "http://127.0.0.1:9"}}\nstorage: {{path: {}}}\n'
    folder = tmp_path / "state"
    good = run("check-config", config(tmp_path, text.format(folder)))
    assert (good.returncode, folder.exists()) == (0, False)
    bad = run("check-config", config(tmp_path, text.format("/proc/x")))
    assert (bad.returncode, bad.stdout) == (1, "")
    assert bad.stderr == "spinner-exporter: storage.path: /proc/x: cannot be used: No such file or directory\n"


def test_the_summary_of_each_command_fits_into_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    summaries = run("--help").stdout.partition("Commands:\n")[2].splitlines()
    assert len(summaries) == len(cli.commands)
    for line in summaries:
        assert re.fullmatch(r"  [a-z-]+ +[A-Z].{20,}[^.]\.", line), line
        assert len(line) <= 80


def test_check_config_takes_the_file_as_the_other_commands_do_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = config(tmp_path)
    says = (0, f"{file}: good\n")
    for arguments in (
        [str(file)],
        [f"--config.file={file}"],
        ["--config.file", str(file)],
        [file, f"--config.file={file}"],
    ):
        ended = run("check-config", *arguments)
        assert (ended.returncode, ended.stdout) == says, ended.stderr
    monkeypatch.setenv("SPINNER_EXPORTER_CONFIG_FILE", file)
    assert (run("check-config").returncode, run("check-config").stdout) == says
    assert run("check-config", "/nowhere.yml").returncode == 1, "the argument overrides the environment"


def test_once_prints_the_page_and_its_status_says_whether_the_api_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_api = run("once", f"--config.file={config(tmp_path)}")
    assert without_api.returncode == 1
    assert '\nspinner_api_up{runtime="127.0.0.1:9"} 0\n' in without_api.stdout
    # After five failures the others are not requested, whichever these are.
    reason = r"(health|projects|usage): no response \(connection refused\); and 2 more"
    last = without_api.stderr.splitlines()[-1]
    assert re.fullmatch(f"spinner-exporter: runtime 127.0.0.1:9 cannot be read: {reason}", last), last
    with runtime(tmp_path) as url:
        monkeypatch.setenv("SPINNER_EXPORTER_RUNTIME_BASE_URL", url)
        monkeypatch.setenv("SPINNER_EXPORTER_RUNTIME_NAME", "here")
        with_api = run("once")
    assert (with_api.returncode, "cannot be read" in with_api.stderr) == (0, False)
    assert '\nspinner_api_up{runtime="here"} 1\n' in with_api.stdout
    assert "spinner_run_progress_ratio{" in with_api.stdout


def test_metrics_doc_is_what_is_checked_in() -> None:
    assert run("metrics-doc").stdout == (ROOT / "docs" / "metrics.md").read_text(), "run `make docs`"


def test_help_lists_the_scenarios() -> None:
    assert "Scenario: a file, or one of backlog," in run("runtime", "--help").stdout


def test_the_exporter_starts_without_importing_the_demo_the_doctor_and_the_embedded_runtime() -> None:
    """They take as long to import as everything else."""
    script = "import sys, exporter.cli; print(*sys.modules)"
    imported = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    modules = set(imported.stdout.split())
    assert "exporter.service" in modules
    assert not {"exporter.demo", "exporter.doctor", "exporter.simulator"} & modules


def test_an_unknown_scenario_is_an_error_that_lists_the_known_ones() -> None:
    for command in ("runtime", "demo"):
        ended = run(command, "--scenario=hapy")
        assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
        assert "healthy" in ended.stderr


@pytest.mark.parametrize("speed", ["nan", "0.9", "inf", "fast"])
def test_another_speed_is_an_error(speed: str) -> None:
    ended = run("demo", f"--speed={speed}", "--duration=1s")
    assert (ended.returncode, "Invalid value for '--speed'" in ended.stderr) == (2, True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    port = free_port()
    log = tmp_path / "log"
    arguments = [
        "serve",
        f"--config.file={config(tmp_path)}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.format=json",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen([*COMMAND, *arguments], stderr=output, cwd=ROOT)
    try:
        until(lambda: _healthy(port), f"it responds; see {log}")
        process.send_signal(number)
        assert process.wait(timeout=15) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (listening,) = [line for line in lines if line["msg"] == "listening"]
    assert (listening["reads"], listening["first_read"]) == ("http://127.0.0.1:9", "at the first scrape or probe")
    assert '"msg": "stopped"' in log.read_text()
    assert "Traceback" not in log.read_text()


def test_hangup_reloads_and_an_invalid_config_keeps_the_previous_one(tmp_path: Path) -> None:
    with runtime(tmp_path) as runtime_url, exporter(tmp_path, runtime_url, "projects: {include: [Nobody]}\n") as url:
        file = tmp_path / "exporter.yml"
        pid = _pid_of(url)
        good = "spinner_exporter_config_last_reload_successful 1.0"
        assert "spinner_run_info{" not in _page(url)
        file.write_text("retention: soon")
        os.kill(pid, signal.SIGHUP)
        until(lambda: "spinner_exporter_config_last_reload_successful 0.0" in _page(url), "the bad reload was noted")
        file.write_text(f'runtime: {{base_url: "{runtime_url}"}}\nsync: {{min_interval: 0s}}\n')
        os.kill(pid, signal.SIGHUP)
        until(lambda: good in _page(url) and "spinner_run_info{" in _page(url), "the good reload reads every project")
    assert "retention: expected a duration" in (tmp_path / "exporter.log").read_text()


def _page(url: str) -> str:
    return httpx.get(f"{url}/metrics").text


def _healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/-/healthy").status_code == 200
    except httpx.HTTPError:
        return False


def _pid_of(url: str) -> int:
    """Return the process that listens at a URL: the one whose command line names its port."""
    port = url.rpartition(":")[2]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().decode()
            except OSError:
                continue
            if f"--web.listen-address=127.0.0.1:{port}" in command:
                return int(entry.name)
    pytest.fail(f"no process listens at {url}")
