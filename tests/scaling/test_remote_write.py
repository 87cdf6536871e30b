"""Remote write: a Prometheus that scrapes, and a second one that receives what the first one writes."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from exporter.metrics.catalogue import RUN_FAMILIES
from tests.scaling.test_pair import folder
from tests.stack.programs import (
    ROOT,
    exporter,
    host,
    prometheus_with,
    query,
    runtime,
    until,
    victoria_metrics,
)

EXAMPLE = ROOT / "deploy" / "scaling" / "prometheus-remote-write.yml"
RECORDED = {"project_spinner_status:spinner_runs:max", "meter:spinner_plan_used:ratio"}


def test_remote_write_sends_recorded_series_and_none_of_single_runs(tmp_path: Path) -> None:
    with (
        runtime(tmp_path, scenario="backlog", speed=60) as runtime_url,
        exporter(tmp_path, runtime_url, "sync: {min_interval: 0s}\n") as exporter_url,
        prometheus_with(folder(tmp_path, "store"), {}, "--web.enable-remote-write-receiver") as store,
        prometheus_with(folder(tmp_path, "sender"), sender(tmp_path, exporter_url, store)) as sender_url,
    ):
        # These need no more than one sample; the others need an hour of samples.
        until(lambda: names(store) >= RECORDED, f"the store has {RECORDED}; look at the sender's prometheus.log")
        until(lambda: "spinner_runs" in names(store), "the store has the series of spinners")
        of_runs = {family.name for family in RUN_FAMILIES}
        assert names(sender_url) >= {"spinner_run_status", "project_spinner_run:spinner_run_silence:ratio"}
        kept = names(store)
        assert not kept & of_runs, "series of single runs were written"
        assert not [name for name in kept if name.startswith(("spinner_exporter_", "spinner_run_"))]
        with_run = query(store, 'count({run_id!=""})')
        assert not [each for each in with_run if "alertname" not in each[0]], "a series of a single run was written"
        assert {"spinner_runs_finished_total", "spinner_plan_used", "spinner_runtime_up"} <= kept
        share = query(store, 'count({__name__=~".+"})')[0][1] / query(sender_url, 'count({__name__=~".+"})')[0][1]
        assert share < 0.5, f"{share:.0%} of all series are written; most should be of single runs"


@pytest.mark.parametrize("kind", ["prometheus", "victoriametrics"])
def test_a_pair_that_writes_to_one_store_does_not_double_its_sums(tmp_path: Path, kind: str) -> None:
    with (
        runtime(tmp_path, scenario="backlog", speed=60) as runtime_url,
        exporter(tmp_path, runtime_url, "sync: {min_interval: 0s}\n") as exporter_url,
        stores(kind, tmp_path) as store,
        prometheus_with(folder(tmp_path, "a"), sender(tmp_path, exporter_url, store, replica="a")) as first,
        prometheus_with(folder(tmp_path, "b"), sender(tmp_path, exporter_url, store, replica="b")) as second,
    ):
        for url in (first, second):
            sent = "prometheus_remote_storage_samples_total"
            until(lambda url=url, sent=sent: sum_of(url, sent) > 500, "each server writes")  # type: ignore[misc]
        until(lambda: "spinner_runs" in names(store), "the store has the series of spinners")
        assert len(query(first, "spinner_runs")) > 1
        until(
            lambda: len(query(store, "spinner_runs")) >= len(query(first, "spinner_runs")),
            "the store has all series of spinners",
        )
        per_spinner = query(store, "count by (project, spinner, status) (spinner_runs)")
        assert {count for _, count in per_spinner} == {1}, "a series is stored twice"


def sum_of(url: str, metric: str) -> float:
    """Return the sum of a metric that Prometheus exposes of itself."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(metric))


@contextlib.contextmanager
def stores(kind: str, tmp_path: Path) -> Iterator[str]:
    """Run a store as docs/scaling.md describes it for a pair."""
    if kind == "prometheus":
        config = {"storage": {"tsdb": {"out_of_order_time_window": "10m"}}}
        with prometheus_with(folder(tmp_path, "store"), config, "--web.enable-remote-write-receiver") as url:
            yield url
        return
    with victoria_metrics(tmp_path) as url:
        yield url


def sender(tmp_path: Path, exporter_url: str, store: str, replica: str = "") -> dict[str, object]:
    """The example in a config that scrapes and records every second."""
    text = EXAMPLE.read_text()
    assert "http://long-term:9090" in text
    example = yaml.safe_load(text.replace("http://long-term:9090", store))
    quick = rules()
    for group in quick["groups"]:
        group["interval"] = "1s"
    file = tmp_path / "recording.rules.yml"
    file.write_text(yaml.safe_dump(quick))
    targets = [{"targets": [host(exporter_url)]}]
    return {
        "global": {
            "scrape_interval": "1s",
            "scrape_timeout": "1s",
            "evaluation_interval": "1s",
            "external_labels": {"replica": replica} if replica else {},
        },
        "rule_files": [str(file)],
        "scrape_configs": [{"job_name": "spinner", "static_configs": targets}],
        **example,
    }


def rules() -> dict[str, list[dict[str, Any]]]:
    loaded: dict[str, list[dict[str, Any]]] = yaml.safe_load((ROOT / "alerts" / "recording.rules.yml").read_text())
    return loaded


def names(prometheus_url: str) -> set[str]:
    return set(httpx.get(f"{prometheus_url}/api/v1/label/__name__/values").json()["data"])
