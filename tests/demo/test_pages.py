"""The receiver that prints pages, called over HTTP as Alertmanager does."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from exporter.config import parse_duration
from exporter.demo.pages import LARGEST, WATCHDOG_MISSING, create_app
from tests.stack.programs import ROOT, free_port, running, until

FIRING = {
    "status": "firing",
    "labels": {"alertname": "SpinnerRunStalled", "severity": "page", "project": "Sales"},
    "annotations": {
        "summary": "A run of Mails in Sales is stalled.",
        "action": "Check the step.",
        "description": "Run r1 has finished no record for 20m.\nLook.",
        "progress": "4210 of 10000 records are finished",
        "runbook_url": "https://wiki.example.com/SpinnerRunStalled.md",
    },
    "startsAt": "2026-01-01T00:00:00Z",
}


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    log = tmp_path_factory.mktemp("pages") / "pages.txt"
    port = free_port()
    command = [sys.executable, "-m", "exporter", "pages", f"--web.listen-address=127.0.0.1:{port}"]
    with running(command, f"http://127.0.0.1:{port}", log, ready="/-/healthy") as url:
        yield url, log


def send(url: str, *alerts: dict[str, Any], to: str = "page") -> httpx.Response:
    return httpx.post(f"{url}/{to}", json={"version": "4", "status": "firing", "alerts": alerts})


def test_a_page_is_printed_with_what_to_do_description_progress_and_runbook(receiver: tuple[str, Path]) -> None:
    url, log = receiver
    assert send(url, FIRING).status_code == 200
    block = """\
PAGE SpinnerRunStalled: A run of Mails in Sales is stalled.
    do          Check the step.
    what        Run r1 has finished no record for 20m. Look.
    progress    4210 of 10000 records are finished
    runbook     https://wiki.example.com/SpinnerRunStalled.md
"""
    until(lambda: block in log.read_text(), f"the page is printed; the output is\n{log.read_text()}")


def test_a_link_to_the_dashboard_is_printed_if_it_is_absolute(receiver: tuple[str, Path]) -> None:
    url, log = receiver
    for number, link in enumerate(("/d/spinner-jobs?var-run=", "https://grafana.example.com/d/spinner-jobs?var-run=")):
        annotations = {"summary": f"Page {number}.", "dashboard_url": f"{link}{number}"}
        send(url, {**FIRING, "annotations": annotations})
    until(lambda: "https://grafana.example.com/d/spinner-jobs?var-run=1" in log.read_text(), "the second is printed")
    assert "Page 0." in log.read_text()
    assert "var-run=0" not in log.read_text()


def test_a_resolved_alert_is_printed_in_one_line(receiver: tuple[str, Path]) -> None:
    url, log = receiver
    send(url, {**FIRING, "status": "resolved"})
    until(
        lambda: "RESOLVED SpinnerRunStalled: A run of Mails in Sales is stalled.\n" in log.read_text(), "it is printed"
    )


def test_a_ticket_is_printed_and_the_watchdog_is_not(receiver: tuple[str, Path]) -> None:
    url, log = receiver
    assert send(url, {**FIRING, "labels": {"alertname": "SpinnerWatchdog"}}, to="watchdog").status_code == 200
    send(url, {**FIRING, "labels": {"alertname": "SpinnerSlowdown", "severity": "ticket"}}, to="ticket")
    until(lambda: "TICKET SpinnerSlowdown: " in log.read_text(), "the ticket is printed")
    assert "Watchdog" not in log.read_text()


def test_no_escape_sequence_reaches_the_terminal(receiver: tuple[str, Path]) -> None:
    url, log = receiver
    send(url, {**FIRING, "annotations": {"summary": "\x1b[2Jgone\x07\u009b1m"}})
    until(lambda: "[2Jgone" in log.read_text(), "the page is printed")
    assert not any(character in log.read_text() for character in "\x1b\x07\u009b")


@pytest.mark.parametrize("body", [b"", b"{", b'{"alerts": [{"labels": {}}]}', b"\xff\xfe", b"[" * 100_000])
def test_an_invalid_notification_is_rejected(receiver: tuple[str, Path], body: bytes) -> None:
    url, _ = receiver
    response = httpx.post(f"{url}/page", content=body)
    assert response.status_code == 400
    assert response.text.startswith("not an Alertmanager notification")


def test_a_notification_that_is_too_large_is_rejected(receiver: tuple[str, Path]) -> None:
    url, _ = receiver
    with contextlib.suppress(httpx.WriteError):  # the server may close the connection before the whole body is sent
        assert httpx.post(f"{url}/page", content=b" " * (LARGEST + 1)).status_code == 413
    assert httpx.get(f"{url}/-/healthy").status_code == 200


def test_the_receiver_ends_after_sigterm() -> None:
    port = free_port()
    command = [sys.executable, "-m", "exporter", "pages", f"--web.listen-address=127.0.0.1:{port}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: _healthy(port), "it listens")
        process.terminate()
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()


def _healthy(port: int) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"http://127.0.0.1:{port}/-/healthy").status_code == 200
    return False


async def test_it_is_receiving_only_while_the_watchdog_arrives() -> None:
    now = 1000.0
    app = create_app(lambda alert: None, lambda: now)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://pages") as client:
        assert (await client.get("/-/receiving")).status_code == 503, "no watchdog has ever arrived"
        await client.post("/page", json={"alerts": []})
        assert (await client.get("/-/receiving")).status_code == 503, "a page is no watchdog"
        await client.post("/watchdog", json={"alerts": []})
        now += WATCHDOG_MISSING
        assert (await client.get("/-/receiving")).status_code == 200
        now += 1
        assert (await client.get("/-/receiving")).status_code == 503
        assert (await client.get("/-/healthy")).status_code == 200


def test_two_notifications_of_the_watchdog_may_be_missed() -> None:
    config = yaml.safe_load((ROOT / "alerts" / "alertmanager.yml").read_text())
    (route,) = (each for each in config["route"]["routes"] if each["receiver"] == "watchdog")
    assert 2 * parse_duration(route["repeat_interval"]) < WATCHDOG_MISSING
