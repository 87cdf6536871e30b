"""200 projects, discovered by Prometheus and divided between two servers and two exporters: each is scraped once."""

import contextlib
import functools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.metrics.test_exposition import samples, value
from tests.scaling.test_lost_exporters import rules
from tests.scaling.test_pair import folder
from tests.stack.programs import ROOT, exporter, host, kill, prometheus_with, query, runtime, until

EXAMPLE = ROOT / "deploy" / "scaling" / "prometheus-sharded.yml"
PROJECTS = 200


def test_each_project_is_scraped_exactly_once(tmp_path: Path) -> None:
    with large_org(tmp_path) as (exporters, servers, runtime_url):
        listed = {project["id"] for project in httpx.get(f"{runtime_url}/api/v1/projects?limit=500").json()["items"]}
        assert len(listed) == PROJECTS
        scraped: Counter[str] = Counter()
        for server in servers:
            until(functools.partial(probes_are_up, server), "every project of a shard is scraped without an error")
            found = targets(server)
            scraped.update(target["labels"]["instance"].rpartition("/")[2] for target in found)
            addresses = Counter(target["scrapeUrl"].partition("/probe")[0] for target in found)
            assert len(found) > PROJECTS / 4, f"a shard has {len(found)} of {PROJECTS} projects"
            assert min(addresses[url] for url in exporters) > PROJECTS / 10, (
                f"one exporter has almost all projects: {addresses}"
            )
        assert set(scraped) == listed
        assert set(scraped.values()) == {1}, "a project is scraped by both shards"
        # On a busy machine the first scrape of a project can end before its first read.
        until(
            lambda: sum(len(shown(server)) for server in servers) >= PROJECTS,
            f"each of {PROJECTS} projects is shown as read (spinner_project_up) by one of the servers",
        )
        assert not set.intersection(*map(shown, servers)), "a project is shown by both shards"
        # Each shard has the series of the runtime that rules on runs need.
        for server in servers:
            assert query(server, "max(spinner_runtime_up)")[0][1] == 1
            assert query(server, "count(spinner_run_status)")[0][1] > 100
        held = [
            value(samples(httpx.get(f"{url}/metrics").text), "spinner_exporter_projects_probed") or 0
            for url in exporters
        ]
        assert sum(held) == PROJECTS, f"the exporters have {held} projects: some are in both"


def test_a_dead_exporter_pages_for_its_projects_in_each_shard(tmp_path: Path) -> None:
    """The first exporter is also the first one that lists the projects."""
    with large_org(tmp_path) as (exporters, servers, _):
        for server in servers:
            until(functools.partial(probes_are_up, server), "every project of a shard is scraped without an error")
        shares = [sum(target["scrapeUrl"].startswith(exporters[0]) for target in targets(server)) for server in servers]
        kill(exporters[0])
        for server, share in zip(servers, shares, strict=True):
            expected = {"SpinnerProjectsNotScraped", "SpinnerTargetDown"}
            until(
                lambda server=server, expected=expected: firing(server) >= expected,  # type: ignore[misc]
                "the projects page, and the exporter opens a ticket",
            )
            assert firing(server) == {*expected, "SpinnerWatchdog"}
            assert query(server, "count(project:spinner_project_up:not_scraped)")[0][1] == share


def firing(server: str) -> set[str]:
    """Return the names of the alerts on missing data that fire; others depend on the scenario.

    A busy machine evaluates the recording rules of so many projects late at this speed, which has an alert of its own.
    """
    names = {labels["alertname"] for labels, _ in query(server, 'ALERTS{alertstate="firing"}')}
    return {name for name in names if not name.startswith("SpinnerRun")} - {"SpinnerRecordingRulesMissing"}


def probes_are_up(server: str) -> bool:
    found = targets(server)
    return bool(found) and all(target["health"] == "up" for target in found)


def shown(server: str) -> set[str]:
    """Return the projects that were read, according to a server."""
    return {labels["project"] for labels, _ in query(server, "spinner_project_up == 1")}


def targets(server: str) -> list[dict[str, Any]]:
    answer = httpx.get(f"{server}/api/v1/targets", params={"state": "active"}).json()
    return [target for target in answer["data"]["activeTargets"] if "/probe" in target["scrapeUrl"]]


@contextlib.contextmanager
def large_org(tmp_path: Path) -> Iterator[tuple[list[str], list[str], str]]:
    """Two exporters of one large runtime, and the example's two Prometheus servers."""
    with runtime(tmp_path, scenario="large-org", speed=1) as runtime_url, contextlib.ExitStack() as stack:
        settings = "projects: {on_probe: true}\n"
        exporters = [stack.enter_context(exporter(folder(tmp_path, n), runtime_url, settings)) for n in "ab"]
        servers = [
            stack.enter_context(
                prometheus_with(folder(tmp_path, f"shard-{shard}"), config(shard, exporters, rules(tmp_path)))
            )
            for shard in (0, 1)
        ]
        yield exporters, servers, runtime_url


def config(shard: int, exporters: list[str], rules: Path) -> dict[str, object]:
    """The example with the addresses of this test, for one of the shards."""
    text = EXAMPLE.read_text()
    assert 'regex: "0"}  # shard' in text
    text = text.replace('regex: "0"}  # shard', f'regex: "{shard}"}}')
    # Here the exporters are on one machine and differ in the port, so one rule for each replaces the pattern.
    rule = '      - {source_labels: [__tmp_exporter], regex: "%d", target_label: __address__, replacement: "%s"}'
    lookup = "\n".join(rule % (n, host(url)) for n, url in enumerate(exporters))
    by_name = next(line for line in text.splitlines() if "exporter-${1}" in line)
    text = text.replace(by_name, lookup)
    for n, url in enumerate(exporters):
        text = text.replace(f"exporter-{n}:10095", host(url))
    # Shorter than in production, but not so short that a busy machine cannot scrape 200 projects in time.
    made: dict[str, object] = yaml.safe_load(text.replace("15s", "5s").replace("10s", "5s"))
    del made["alerting"]
    return made | {"rule_files": [str(rules)]}


@pytest.mark.parametrize("name", ["prometheus-sharded.yml", "prometheus-pair.yml"])
def test_an_example_is_a_complete_config(name: str) -> None:
    made = yaml.safe_load((EXAMPLE.parent / name).read_text())
    assert {"global", "rule_files", "alerting", "scrape_configs"} <= set(made)
