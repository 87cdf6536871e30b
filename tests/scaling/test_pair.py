"""Pairs of exporters, Prometheus and Alertmanager servers: a stall is one page, also if one of each is killed."""

import contextlib
import functools
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.stack.programs import (
    ROOT,
    alertmanager,
    exporter,
    free_port,
    host,
    kill,
    prometheus_with,
    query,
    runtime,
    until,
)
from tests.stack.test_alertmanager import HANG, at_sixty_times_the_speed, firing, pager, resolved, write_routes

EXAMPLE = ROOT / "deploy" / "scaling" / "prometheus-pair.yml"


@pytest.mark.parametrize("killed", [False, True], ids=["all-live", "one-of-each-killed"])
def test_a_stall_is_one_page(tmp_path: Path, killed: bool) -> None:
    scenario = tmp_path / "hang.yaml"
    # Half a minute after the start: all programs run before it, also on a busy machine.
    scenario.write_text(HANG.replace("at: 5m", "at: 30m").replace("records: 300", "records: 1000"))
    with (
        pager() as (messages, pager_url),
        pair_of_alertmanagers(tmp_path, pager_url) as alertmanagers,
        runtime(tmp_path, scenario=scenario, speed=60) as runtime_url,
        contextlib.ExitStack() as stack,
    ):
        settings = "sync: {min_interval: 0s}\nstalls: {floor: 4s, ceiling: 6s}\n"
        exporters = [stack.enter_context(exporter(folder(tmp_path, n), runtime_url, settings)) for n in "ab"]
        servers = [
            stack.enter_context(prometheus_with(folder(tmp_path, n), config(tmp_path, n, exporters, alertmanagers)))
            for n in "ab"
        ]
        for server in servers:
            until(functools.partial(sees_both, server), "each Prometheus has scraped both exporters")
        assert not firing(messages), (
            "the page came before anything was killed: this machine is too slow for the scenario"
        )
        if killed:
            for first in (exporters[0], servers[0], alertmanagers[0]):
                kill(first)
        until(lambda: firing(messages), "the stall is paged; look at the logs of the second of each pair")
        until(lambda: resolved(messages), "the page is resolved after the run continued")
    pages = [(page["labels"]["alertname"], page["labels"]["run_id"]) for page in firing(messages)]
    assert len(pages) == 1, f"one stall was paged {len(pages)} times: {pages}"
    assert "replica" not in firing(messages)[0]["labels"]


def sees_both(server: str) -> bool:
    return len(query(server, "up == 1")) == 2


def config(tmp_path: Path, name: str, exporters: list[str], alertmanagers: list[str]) -> dict[str, object]:
    """The example with the addresses of this test, at sixty times the speed."""
    addresses = {f"exporter-{n}:10095": url for n, url in enumerate(exporters)}
    addresses |= {f"alertmanager-{n}:9093": url for n, url in enumerate(alertmanagers)}
    text = EXAMPLE.read_text().replace("15s", "1s").replace("10s", "1s").replace("replica: a", f"replica: {name}")
    for example, url in addresses.items():
        assert example in text
        text = text.replace(example, host(url))
    rules = tmp_path / "alerts.rules.yml"
    rules.write_text(at_sixty_times_the_speed((ROOT / "alerts" / "alerts.rules.yml").read_text()))
    made: dict[str, object] = yaml.safe_load(text)
    return made | {"rule_files": [str(rules)]}


@contextlib.contextmanager
def pair_of_alertmanagers(tmp_path: Path, pager_url: str) -> Iterator[list[str]]:
    # As in production, longer than the second one waits for the first (programs.py). Otherwise both would notify.
    routes = write_routes(tmp_path, pager_url, group_interval="5s")
    first_port, second_port = free_cluster_port(), free_cluster_port()
    with (
        alertmanager(folder(tmp_path, "a"), routes, cluster_port=first_port) as first,
        alertmanager(folder(tmp_path, "b"), routes, cluster_port=second_port, peer=first_port) as second,
    ):
        yield [first, second]


def free_cluster_port() -> int:
    """Return a port that is free for TCP and UDP: the cluster uses both."""
    while True:
        port = free_port()
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", port))
            return port


def folder(tmp_path: Path, name: str) -> Path:
    made = tmp_path / name
    made.mkdir(exist_ok=True)
    return made
