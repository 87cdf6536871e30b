"""Exporters that die, restart under another name, or are reconfigured: who is paged, in real programs.

All durations of the rules are divided by SPEED, and what the rules look back for is shorter still, so that a minute is
longer than all of it.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from exporter.demo.speed import at_speed
from tests.scaling.test_pair import folder
from tests.stack.programs import (
    ROOT,
    alertmanager,
    exporter_with,
    host,
    kill,
    number,
    prometheus_with,
    query,
    runtime,
    until,
)
from tests.stack.test_alertmanager import firing, pager, resolved, write_routes

SPEED = 20

FIRING = 'ALERTS{alertname="SpinnerExporterDown",alertstate="firing"}'

LOOKED_BACK = 60.0
"""Seconds that the rules look back at most, in this test."""

QUIET = """
summary: Two projects at work; nothing goes wrong.
projects:
  - name: Clinic
    id: clinic
    spinners:
      - name: Reminders
        id: reminders
        records: 30000
        runs: [{at: 0s}]
        steps: [{name: Send, type: email, latency: 10s..20s}]
  - name: Sales
    id: sales
    spinners:
      - name: Newsletter
        id: newsletter
        records: 30000
        runs: [{at: 0s}]
        steps: [{name: Send, type: email, latency: 10s..20s}]
"""

HANGS = """
summary: One run hangs at second 5, as it appears at 60 times the speed, and does not continue.
projects:
  - name: Clinic
    id: clinic
    spinners:
      - name: Hangs
        id: hangs
        records: 300
        runs: [{at: 0s}]
        steps: [{name: Send, type: whatsapp, latency: 10s..20s}]
incidents:
  - {kind: stall, at: 5m, spinner: Hangs, lasts: 1d}
"""


def rules(folder: Path) -> Path:
    """Write the alert rules with shorter durations."""
    text = (ROOT / "alerts" / "alerts.rules.yml").read_text()
    for looked_back, shorter in {"[1d]": "[20m]", "[1h]": "[20m]", "time() - 86400": "time() - 1200"}.items():
        assert looked_back in text, f"the rules no longer look back for {looked_back}"
        text = text.replace(looked_back, shorter)
    file = folder / "alerts.rules.yml"
    file.write_text(yaml.safe_dump(at_speed(yaml.safe_load(text), SPEED)))
    return file


@dataclass
class World:
    """A Prometheus with an Alertmanager, and the exporters that it scrapes."""

    folder: Path
    stack: contextlib.ExitStack
    messages: list[dict[str, Any]]
    prometheus: str = ""
    began: float = 0.0
    """Unix time since when pages count. Until then, an exporter that starts on a busy machine may time out and page."""

    def exporter(self, name: str, settings: dict[str, Any]) -> str:
        """Start an exporter."""
        folder(self.folder, name)
        file = self._write(name, settings)
        return self.stack.enter_context(exporter_with(file, flags=["--web.enable-lifecycle"]))

    def reload(self, name: str, url: str, settings: dict[str, Any]) -> None:
        """Give a running exporter another config."""
        self._write(name, settings)
        httpx.post(f"{url}/-/reload").raise_for_status()

    def scrape(self, *urls: str) -> None:
        """Write the list of targets, as service discovery does."""
        file = self.folder / "targets.json"
        file.with_suffix(".new").write_text(json.dumps([{"targets": [host(url) for url in urls]}]))
        file.with_suffix(".new").rename(file)

    def config(self, alertmanager_url: str) -> dict[str, Any]:
        return {
            # On a busy machine, a scrape of an exporter that lives takes more than a second.
            "global": {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "1s"},
            "rule_files": [str(rules(self.folder))],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [host(alertmanager_url)]}]}]},
            "scrape_configs": [
                {"job_name": "spinner", "file_sd_configs": [{"files": [str(self.folder / "targets.json")]}]}
            ],
        }

    def pages(self) -> set[tuple[str, str]]:
        """Return name and runtime of everything that paged."""
        return {(each["labels"]["alertname"], each["labels"].get("runtime", "")) for each in self.since(firing)}

    def resolved(self) -> list[dict[str, Any]]:
        return self.since(resolved)

    def since(self, kind: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """Return the messages of a kind about alerts that began since pages count."""
        return [
            each for each in kind(self.messages) if datetime.fromisoformat(each["startsAt"]).timestamp() > self.began
        ]

    def tickets(self) -> set[str]:
        return {each["labels"]["alertname"] for each in self.messages if each["receiver"] == "ticket"}

    def up(self) -> int:
        return len(query(self.prometheus, "up == 1"))

    def _write(self, name: str, settings: dict[str, Any]) -> Path:
        file = self.folder / name / "exporter.yml"
        file.write_text(yaml.safe_dump({"sync": {"min_interval": "0s"}, **settings}))
        return file


def reads(*names: str, url: str, **more: Any) -> dict[str, Any]:
    return {"runtimes": [{"name": name, "base_url": url} for name in names], **more}


def test_an_exporter_that_dies_pages_for_its_runtime_and_nothing_else_does(tmp_path: Path) -> None:
    """One test, since everything happens at the same time: the page that is expected ends the wait for all others.

    An exporter that is killed, one of a pair, a rollout under another name, a reload that removes a runtime, a project
    that is excluded, and a run that stalls and that an exporter sees that lives.
    """
    (tmp_path / "quiet.yaml").write_text(QUIET)
    (tmp_path / "hangs.yaml").write_text(HANGS)
    with pager() as (messages, pager_url), contextlib.ExitStack() as stack:
        made = World(tmp_path, stack, messages)
        url = stack.enter_context(runtime(folder(tmp_path, "quiet"), scenario=tmp_path / "quiet.yaml", speed=60))
        killed = made.exporter("killed", reads("eu", url=url))
        reloaded = made.exporter("reloaded", reads("us", "removed-by-reload", url=url))
        pair = [made.exporter(f"pair-{n}", reads("pair", url=url)) for n in (0, 1)]
        old = made.exporter("old", reads("rolled-out", "removed-by-rollout", url=url))
        made.scrape(killed, reloaded, *pair, old)
        alertmanager_url = stack.enter_context(alertmanager(tmp_path, write_routes(tmp_path, pager_url)))
        made.prometheus = stack.enter_context(prometheus_with(tmp_path, made.config(alertmanager_url)))
        until(lambda: made.up() == 5, "Prometheus scrapes all exporters")
        # Longer ago than the rules compare the number of exporters with.
        settled = f"count(spinner_exporter_build_info offset {2 * 600 // SPEED}s)"
        until(lambda: number(made.prometheus, settled) == 5, "the exporters have been up for a while")
        # A page is right if a busy machine made scrapes time out.
        assert not made.pages() or query(made.prometheus, "min_over_time(up[5m]) == 0"), made.pages()
        new = made.exporter("new", reads("rolled-out", url=url))
        made.scrape(killed, reloaded, *pair, old, new)
        until(lambda: made.up() == 6, "Prometheus scrapes the new exporter")
        made.scrape(killed, reloaded, *pair, new)
        made.reload("reloaded", reloaded, reads("us", url=url, projects={"exclude": ["Sales"]}))
        until(lambda: not query(made.prometheus, FIRING), "no exporter counts as down before any is")
        made.began = time.time()
        kill(killed)
        kill(pair[0])
        until(lambda: made.pages(), "the dead exporter of a runtime pages")

        hangs_url = stack.enter_context(runtime(folder(tmp_path, "hangs"), scenario=tmp_path / "hangs.yaml", speed=60))
        stalls = {"stalls": {"floor": "4s", "ceiling": "6s"}}
        late = made.exporter("late", reads("stalls", url=hangs_url, **stalls))
        made.scrape(killed, reloaded, *pair, new, late)
        until(lambda: len(made.pages()) > 1, "the stalled run pages")
        down_for = "time() - max(instance:spinner_target:down_since)"
        until(
            lambda: (number(made.prometheus, down_for) or 0) > LOOKED_BACK + 10,
            "the exporter is dead for longer than the rules look back",
        )
        assert made.pages() == {("SpinnerExporterDown", "eu"), ("SpinnerRunStalled", "stalls")}
        assert not made.resolved(), "the page continues while the exporter is dead"
        continues = 'ALERTS{alertname="SpinnerExporterDown",alertstate="firing",runtime="eu"}'
        assert number(made.prometheus, continues) == 1
        assert "SpinnerTargetDown" in made.tickets(), "a dead exporter of a pair opens a ticket"
        (ticket, *_) = (each for each in messages if each["labels"]["alertname"] == "SpinnerTargetDown")
        assert ticket["annotations"]["summary"] == "Prometheus cannot scrape a target of the job spinner."


def test_a_restart_of_prometheus_does_not_resolve_a_page(tmp_path: Path) -> None:
    """With the flag that docs/alerting.md names: by default, alerts with a short `for` start to wait again."""
    # An alert that Prometheus does not send again ends after four times the delay.
    ends_after = 4 * 3
    flags = (f"--rules.alert.for-grace-period={60 // SPEED}s", f"--rules.alert.resend-delay={ends_after // 4}s")
    began = 'ALERTS_FOR_STATE{alertname="SpinnerExporterDown",runtime="eu"}'
    with two_exporters(tmp_path) as (made, alertmanager_url, killed, _):
        with prometheus_with(tmp_path, made.config(alertmanager_url), *flags) as made.prometheus:
            until(lambda: made.up() == 2, "Prometheus scrapes both exporters")
            kill(killed)
            until(lambda: made.pages(), "the dead exporter pages")
            before = number(made.prometheus, began)
            assert before is not None
        stopped = time.time()
        with prometheus_with(tmp_path, made.config(alertmanager_url), *flags) as made.prometheus:
            fires_again = f"timestamp({FIRING}) > {stopped}"
            until(lambda: query(made.prometheus, fires_again), "the alert fires again")
            fires = time.time()
            assert number(made.prometheus, began) == pytest.approx(before, abs=2), "it started to wait again"
            until(lambda: time.time() > fires + ends_after + 5, "an alert that is not sent again would have ended")
            assert made.pages() == {("SpinnerExporterDown", "eu")}
            # On a busy machine, the restart itself may take longer.
            assert not resolved(made.messages) or fires - stopped > ends_after - 5


def test_exporters_that_die_before_and_during_an_outage_of_prometheus_page_after_it(tmp_path: Path) -> None:
    lookback = 5.0
    flags = (f"--query.lookback-delta={lookback:.0f}s",)
    with two_exporters(tmp_path) as (made, alertmanager_url, killed_before, killed_meanwhile):
        with prometheus_with(tmp_path, made.config(alertmanager_url), *flags) as made.prometheus:
            until(lambda: made.up() == 2, "Prometheus scrapes both exporters")
            kill(killed_before)
            lost = 'instance_runtime:spinner_api_up:lost{runtime="eu"}'
            until(lambda: number(made.prometheus, lost) == 1, "Prometheus notices it")
        kill(killed_meanwhile)
        stopped = time.monotonic()
        until(lambda: time.monotonic() > stopped + lookback + 1, "Prometheus is down for longer than it looks back")
        with prometheus_with(tmp_path, made.config(alertmanager_url), *flags) as made.prometheus:
            expected = {("SpinnerExporterDown", "eu"), ("SpinnerExporterDown", "us")}
            until(lambda: made.pages() >= expected, "both exporters page")
            assert made.pages() == expected


@contextlib.contextmanager
def two_exporters(tmp_path: Path) -> Iterator[tuple[World, str, str, str]]:
    """Yield a world without a Prometheus, and the URLs of Alertmanager and of the exporters of `eu` and `us`."""
    (tmp_path / "quiet.yaml").write_text(QUIET)
    with pager() as (messages, pager_url), contextlib.ExitStack() as stack:
        made = World(tmp_path, stack, messages)
        url = stack.enter_context(runtime(folder(tmp_path, "quiet"), scenario=tmp_path / "quiet.yaml", speed=60))
        eu, us = (made.exporter(name, reads(name, url=url)) for name in ("eu", "us"))
        made.scrape(eu, us)
        yield made, stack.enter_context(alertmanager(tmp_path, write_routes(tmp_path, pager_url))), eu, us
