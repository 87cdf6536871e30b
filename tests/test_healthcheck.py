"""`spinner-exporter healthcheck`, against real servers."""

import subprocess
import sys
from pathlib import Path

import pytest

from exporter.healthcheck import check, main
from tests.stack.programs import ROOT, exporter_with, free_port

CONFIG = 'runtime: {base_url: "http://127.0.0.1:1"}\n'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "exporter.yml"
    file.write_text(CONFIG)
    return file


def test_a_running_exporter_is_healthy_and_another_path_is_not(config: Path) -> None:
    with exporter_with(config, ready="/-/healthy") as url:
        assert check(f"{url}/-/healthy") == ""
        assert main([f"{url}/-/healthy"]) == 0
        assert "404" in check(f"{url}/nothing")
        # A runtime that cannot be read does not make the exporter unhealthy.
        assert main([f"{url}/-/ready"]) == 1


def test_a_server_that_does_not_run_is_not_healthy(capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://127.0.0.1:{free_port()}/-/healthy"
    assert main([url]) == 1
    assert url in capsys.readouterr().err


@pytest.mark.parametrize("url", ["127.0.0.1:10095", "ftp://127.0.0.1:1/", "http://127.0.0.1/", "http://:80/", ""])
def test_an_address_that_is_no_url_is_a_mistake(url: str) -> None:
    assert "expected a URL such as http://127.0.0.1:10095/-/healthy" in check(url)


@pytest.mark.parametrize("arguments", [["a", "b"], ["--timeout=3"]])
def test_other_arguments_are_a_mistake(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "Usage: spinner-exporter healthcheck [URL]" in capsys.readouterr().err


def test_it_imports_next_to_nothing() -> None:
    script = (
        "import sys; sys.argv[1:] = ['healthcheck', 'http://127.0.0.1:1/']\n"
        "from exporter.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code, *sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    status, *modules = ended.stdout.split()
    assert status == "1"
    assert "exporter.healthcheck" in modules
    assert not {"exporter.cli", "click", "ssl", "urllib.request", "http.client", "asyncio", "yaml"} & set(modules)


def test_help_is_that_of_the_other_commands() -> None:
    command = [sys.executable, "-m", "exporter", "healthcheck", "--help"]
    helped = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "Usage: spinner-exporter healthcheck" in helped.stdout.replace("python -m exporter", "spinner-exporter")
