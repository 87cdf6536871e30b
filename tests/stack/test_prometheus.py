"""A running scenario, an exporter that reads it over HTTP, and a real Prometheus that stores the samples."""

import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.stack.programs import exporter, number, program, prometheus, query, runtime, until

SETTINGS = "sync: {min_interval: 0s}\n"


def ended_jobs(runtime_url: str) -> dict[str, dict[str, Any]]:
    """Request every ended job from the runtime."""
    jobs: dict[str, dict[str, Any]] = {}
    for project in httpx.get(f"{runtime_url}/api/v1/projects").json()["items"]:
        cursor: str | None = ""
        while cursor is not None:
            parameters = {"limit": "500"} | ({"cursor": cursor} if cursor else {})
            page = httpx.get(f"{runtime_url}/api/v1/projects/{project['id']}/jobs", params=parameters).json()
            jobs |= {job["id"]: job for job in page["items"] if job["endedAt"]}
            cursor = page["nextCursor"]
    return jobs


def test_prometheus_stores_the_same_values_as_the_runtime_has(tmp_path: Path) -> None:
    with (
        runtime(tmp_path, speed=120) as runtime_url,
        exporter(tmp_path, runtime_url, SETTINGS) as exporter_url,
        prometheus(tmp_path, exporter_url) as prometheus_url,
    ):
        until(lambda: number(prometheus_url, "spinner_api_up") == 1, "Prometheus has stored that the API is up")
        before = set(ended_jobs(runtime_url))

        def a_run_ended_since() -> set[str]:
            return set(ended_jobs(runtime_url)) - before

        until(a_run_ended_since, "the runtime ended a run; look at the scenario `healthy`")
        ended = next(iter(a_run_ended_since()))
        job = ended_jobs(runtime_url)[ended]

        def last_state() -> float | None:
            return number(prometheus_url, f'spinner_run_end_timestamp_seconds{{run_id="{ended}"}}')

        until(last_state, f"Prometheus has stored the end of {ended}")
        duration = number(prometheus_url, f'spinner_run_duration_seconds{{run_id="{ended}"}}')
        failed = number(prometheus_url, f'spinner_run_failed_records{{run_id="{ended}"}}')
        assert failed == job["records"]["failed"]
        assert duration == pytest.approx(_seconds(job["endedAt"]) - _seconds(job["startedAt"]))
        ((_, one),) = query(prometheus_url, f'spinner_run_status{{run_id="{ended}"}}')
        assert one == 1, "a run has one status at a time"
        spinner = f'spinner="{job["spinnerName"]}"'
        counted = f"sum(increase(spinner_runs_finished_total{{{spinner}}}[5m]))"
        until(lambda: (number(prometheus_url, counted) or 0) > 0, f"{counted} shows the end of {ended}")

        def moved() -> bool:
            return bool(query(prometheus_url, "changes(spinner_run_progress_ratio[1m]) > 0"))

        until(moved, "the progress of a run changed")
        assert number(prometheus_url, "up") == 1
        assert number(prometheus_url, "sum(spinner_project_up == bool 0)") == 0
        exemplars = httpx.get(
            f"{prometheus_url}/api/v1/query_exemplars",
            params={"query": "spinner_run_finished_duration_seconds_bucket", "start": "0", "end": "9999999999"},
        ).json()
        assert exemplars["data"], "there are no exemplars although Prometheus requests OpenMetrics"


def test_promtool_accepts_the_page(tmp_path: Path) -> None:
    with runtime(tmp_path, speed=600) as runtime_url, exporter(tmp_path, runtime_url, SETTINGS) as exporter_url:
        page = httpx.get(f"{exporter_url}/metrics").content
    checked = subprocess.run([program("promtool"), "check", "metrics"], input=page, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_two_prometheus_servers_store_the_same_and_cause_one_read(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with (
        runtime(tmp_path, speed=60) as runtime_url,
        exporter(tmp_path, runtime_url, "sync: {min_interval: 1h, stale_after: 1h}\n") as exporter_url,
        prometheus(first, exporter_url) as one,
        prometheus(second, exporter_url) as other,
    ):
        until(lambda: number(one, "spinner_api_up") == 1, "the first Prometheus scraped")
        until(lambda: number(other, "spinner_api_up") == 1, "the second Prometheus scraped")
        reads = 'sum(spinner_exporter_upstream_requests_total{resource="projects"})'
        assert number(one, reads) == number(other, reads) == 1
        assert {m["run_id"] for m, _ in query(one, "spinner_run_info")} == {
            m["run_id"] for m, _ in query(other, "spinner_run_info")
        }


def _seconds(time: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(time).timestamp()
