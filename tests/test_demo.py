"""The demo: what its table shows, and that nothing of it is left running."""

import io
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from exporter.demo import _human, _table, rows_of
from tests.stack.programs import until

PAGE = (Path(__file__).parent / "golden" / "page.prom").read_text()


def test_the_table_shows_the_runs_of_a_page_those_under_way_first() -> None:
    rows = {row.run_id: row for row in rows_of(PAGE)}
    assert [row.ended for row in rows.values()] == [False, False, False, True]
    assert (rows["run-1"].status, rows["run-1"].progress, rows["run-1"].duration, rows["run-1"].failed) == (
        "running",
        0.5,
        55,
        1,
    )
    assert rows["run-3"].duration is None, "a queued run has none"
    assert rows["run-4"].progress is None, "of an unknown total there is no share"


def test_eighty_columns_have_room_for_the_whole_table() -> None:
    from rich.console import Console

    console = Console(width=80, file=io.StringIO())
    console.print(_table(rows_of(PAGE), 10, 80))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for word in ("failed", "duration", "completed", "total unknown", "█████░░░░░  50%"):
        assert word in text, f"{word!r} is cut off:\n{text}"


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0s"), (61, "1m01s"), (7200, "2h00m"), (273600, "3d04h")])
def test_durations_are_written_as_people_do(seconds: float, text: str) -> None:
    assert _human(seconds) == text


def test_ctrl_c_ends_everything_that_the_demo_started(tmp_path: Path) -> None:
    output = tmp_path / "demo.txt"
    with output.open("wb") as file:
        demo = subprocess.Popen([sys.executable, "-m", "exporter", "demo", "--speed", "600"], stdout=file, stderr=file)
    try:

        def shows_runs() -> bool:
            assert demo.poll() is None, f"the demo ended:\n{output.read_text()}"
            return "runs under way" in output.read_text()

        until(shows_runs, f"the demo showed its table; see {output}")
        urls = re.findall(r"http://localhost:(\d+)", output.read_text())
        assert len(urls) >= 2
        assert all(_answers(port) for port in urls)
        demo.send_signal(signal.SIGINT)
        assert demo.wait(timeout=20) == 0
    finally:
        demo.kill()
        demo.wait()
    assert "nothing is left running" in output.read_text()
    assert not any(_answers(port) for port in urls), "a program of the demo outlived it"


def _answers(port: str) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/")
    except httpx.HTTPError:
        return False
    return True
