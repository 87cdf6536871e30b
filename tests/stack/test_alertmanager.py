"""Real Alertmanager: inhibition, and one stall from the hanging record to the page and its resolution."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.alerts.rule_files import alert_rule
from tests.stack.programs import ROOT, alertmanager, exporter, prometheus, runtime, until

CONFIG = ROOT / "alerts" / "alertmanager.yml"

RUN = {"project": "Sales", "spinner": "Mails", "run_id": "r1"}
MAILS = {"project": "Sales", "spinner": "Mails"}
NO_START = {"missing": "start"}
OTHER_RUN = {"project": "Sales", "spinner": "Mails", "run_id": "r2"}
EU = {"runtime": "eu"}
US = {"runtime": "us"}
SALES = {"runtime": "eu", "project": "Sales"}
CLINIC = {"runtime": "eu", "project": "Clinic"}


@pytest.fixture(scope="module")
def alertmanager_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with alertmanager(tmp_path_factory.mktemp("alertmanager"), CONFIG) as url:
        yield url


@pytest.mark.parametrize(
    ("source", "target", "inhibited"),
    [
        (("SpinnerRuntimeDown", {}), ("SpinnerRunStalled", RUN), True),
        (("SpinnerRuntimeDown", {}), ("SpinnerRunNotPickedUp", RUN), True),
        (("SpinnerRuntimeDown", {}), ("SpinnerRunFailed", RUN), False),
        (("SpinnerRuntimeDown", {}), ("SpinnerApiDown", {}), False),
        # These start only with data, as when only the health cannot be read.
        (("SpinnerApiDown", {}), ("SpinnerRuntimeDown", {}), False),
        (("SpinnerApiDown", EU), ("SpinnerProjectUnreadable", SALES), False),
        (("SpinnerApiDown", EU), ("SpinnerPlanLimitReached", {**EU, "meter": "jobs_month"}), False),
        # A stall starts only with data, so it is never based on old data.
        (("SpinnerApiDown", EU), ("SpinnerRunStalled", {**RUN, **EU}), False),
        (("SpinnerApiDown", EU), ("SpinnerRunNotPickedUp", {**RUN, **EU}), False),
        (("SpinnerApiDown", EU), ("SpinnerRunFailed", {**RUN, **EU}), True),
        (("SpinnerApiDown", EU), ("SpinnerRunFailed", {**RUN, **US}), False),
        (("SpinnerApiDown", EU), ("SpinnerDataStale", SALES), True),
        (("SpinnerApiDown", EU), ("SpinnerProjectsNotScraped", EU), True),
        (("SpinnerApiDown", EU), ("SpinnerInvalidItems", {**EU, "kind": "job"}), True),
        (("SpinnerApiDown", EU), ("SpinnerExporterDown", EU), False),
        (("SpinnerApiDown", EU), ("SpinnerTargetDown", {"job": "spinner"}), False),
        (("SpinnerRuntimeDown", EU), ("SpinnerRunStalled", {**RUN, **US}), False),
        (("SpinnerRunStalled", {**RUN, **EU}), ("SpinnerRunOverdue", {**RUN, **US}), False),
        (("SpinnerExporterDown", EU), ("SpinnerRunStalled", {**RUN, **EU}), False),
        (("SpinnerExporterDown", EU), ("SpinnerRunStalled", {**RUN, **US}), False),
        (("SpinnerExporterDown", EU), ("SpinnerRunNotPickedUp", {**RUN, **EU}), False),
        (("SpinnerExporterDown", EU), ("SpinnerApiDown", EU), True),
        (("SpinnerExporterDown", EU), ("SpinnerApiDown", US), False),
        (("SpinnerExporterDown", EU), ("SpinnerRuntimeDown", US), False),
        (("SpinnerExporterDown", EU), ("SpinnerRunFailed", {**RUN, **EU}), True),
        (("SpinnerExporterDown", EU), ("SpinnerRunFailed", {**RUN, **US}), False),
        (("SpinnerExporterDown", EU), ("SpinnerTargetDown", {"job": "spinner"}), False),
        (("SpinnerExporterDown", EU), ("SpinnerWatchdog", {}), False),
        # Nothing is known about any runtime.
        (("SpinnerExporterDown", {}), ("SpinnerRunStalled", {**RUN, **US}), False),
        (("SpinnerExporterDown", {}), ("SpinnerTargetDown", {"job": "spinner"}), True),
        (("SpinnerExporterDown", {}), ("SpinnerWatchdog", {}), False),
        (("SpinnerProjectsNotScraped", EU), ("SpinnerTargetDown", {"job": "spinner"}), True),
        (("SpinnerProjectsNotScraped", EU), ("SpinnerRunStalled", {**RUN, **EU}), False),
        (("SpinnerProjectsNotScraped", EU), ("SpinnerRunFailed", {**RUN, **EU}), False),
        (("SpinnerProjectUnreadable", SALES), ("SpinnerDataStale", {**SALES, "stale": "project"}), True),
        (("SpinnerProjectUnreadable", SALES), ("SpinnerDataStale", {**CLINIC, "stale": "project"}), False),
        (("SpinnerProjectUnreadable", SALES), ("SpinnerDataStale", {**EU, "stale": "plan"}), False),
        (("SpinnerProjectUnreadable", SALES), ("SpinnerRunStalled", {**RUN, **SALES}), False),
        # A run that the runtime has accepted does not wait for the plan.
        (("SpinnerPlanLimitReached", {"meter": "jobs_month"}), ("SpinnerRunNotPickedUp", RUN), False),
        (("SpinnerPlanLimitReached", {"meter": "jobs_month"}), ("SpinnerRunMissing", {**MAILS, **NO_START}), True),
        (("SpinnerPlanLimitReached", {"meter": "jobs"}), ("SpinnerPlanLimitSoon", {"meter": "jobs"}), True),
        (("SpinnerPlanLimitReached", {"meter": "jobs"}), ("SpinnerPlanLimitSoon", {"meter": "records"}), False),
        (("SpinnerPlanLimitReached", {"meter": "jobs_month"}), ("SpinnerRunStalled", RUN), False),
        (("SpinnerRunStalled", RUN), ("SpinnerRunOverdue", RUN), True),
        (("SpinnerRunStalled", RUN), ("SpinnerRunOverdue", OTHER_RUN), False),
        (("SpinnerRunStalled", RUN), ("SpinnerRunStraggling", RUN), True),
        (("SpinnerRunStalled", RUN), ("SpinnerRunStraggling", OTHER_RUN), False),
        (("SpinnerRunStraggling", RUN), ("SpinnerRunStalled", RUN), False),
        (("SpinnerRunStraggling", RUN), ("SpinnerRunOverdue", RUN), True),
        (("SpinnerRunStraggling", RUN), ("SpinnerRunOverdue", OTHER_RUN), False),
        (("SpinnerRunNotPickedUp", RUN), ("SpinnerRunWaitingLong", RUN), True),
        (("SpinnerRunNotPickedUp", RUN), ("SpinnerRunWaitingLong", OTHER_RUN), False),
        (("SpinnerRuntimeDown", {}), ("SpinnerRunStraggling", RUN), True),
        (("SpinnerRunStalled", RUN), ("SpinnerSlowdown", MAILS), True),
        (("SpinnerRunStalled", RUN), ("SpinnerRunMissing", {**MAILS, "missing": "success"}), True),
        (("SpinnerRunStalled", RUN), ("SpinnerRunMissing", {**MAILS, **NO_START}), False),
        (("SpinnerRunStalled", RUN), ("SpinnerSlowdown", {"project": "Sales", "spinner": "Calls"}), False),
        (("SpinnerFailedRecordsBurst", {"project": "Sales"}), ("SpinnerRunFailedRecords", RUN), True),
        (("SpinnerFailedRecordsBurst", {"project": "Support"}), ("SpinnerRunFailedRecords", RUN), False),
    ],
    ids=lambda value: value if isinstance(value, bool) else "-".join([value[0], *value[1].values()]),
)
def test_one_cause_is_one_page(
    alertmanager_url: str, source: tuple[str, dict[str, str]], target: tuple[str, dict[str, str]], inhibited: bool
) -> None:
    post(alertmanager_url, [labels_of(*source), labels_of(*target)], firing=True)
    # Alertmanager learns of sources one after another, so when these two inhibit it knows the source of the case too.
    last = {"runtime": "last"}
    post(alertmanager_url, [labels_of(name, last) for name in ("SpinnerRuntimeDown", "SpinnerRunStalled")], firing=True)
    try:
        until(
            lambda: inhibited_by(alertmanager_url, "SpinnerRunStalled", last),
            "Alertmanager knows all alerts; look at the inhibition of SpinnerRunStalled by SpinnerRuntimeDown",
        )
        assert bool(inhibited_by(alertmanager_url, *target)) == inhibited, alerts(alertmanager_url)
        both = inhibited and inhibited_by(alertmanager_url, *source)
        assert not both, "two alerts inhibit each other: none would page"
    finally:
        post(alertmanager_url, [each["labels"] for each in alerts(alertmanager_url)], firing=False)
        until(lambda: not alerts(alertmanager_url), "Alertmanager has removed the alerts of this case")


def test_a_stall_pages_once_with_the_run_and_is_resolved_when_the_run_continues(tmp_path: Path) -> None:
    scenario = tmp_path / "hang.yaml"
    scenario.write_text(HANG)
    rules = tmp_path / "alerts.rules.yml"
    rules.write_text(at_sixty_times_the_speed((ROOT / "alerts" / "alerts.rules.yml").read_text()))
    with (
        pager() as (messages, pager_url),
        alertmanager(tmp_path, write_routes(tmp_path, pager_url)) as alertmanager_url,
        runtime(tmp_path, scenario=scenario, speed=60) as runtime_url,
        exporter(tmp_path, runtime_url, "sync: {min_interval: 0s}\nstalls: {floor: 4s, ceiling: 6s}\n") as exporter_url,
        prometheus(tmp_path, exporter_url, rules=rules, alertmanager_url=alertmanager_url),
    ):
        until(lambda: firing(messages), "the stalled run pages; look at spinner_run_stall_threshold_seconds")
        hangs = [
            job["id"]
            for job in httpx.get(f"{runtime_url}/api/v1/projects/clinic/jobs", params={"active": "true"}).json()[
                "items"
            ]
            if job["spinnerName"] == "Hangs"
        ]
        until(lambda: resolved(messages), "the page is resolved after the run continued")
    (page,) = firing(messages)
    assert [page["labels"]["run_id"]] == hangs
    assert page["labels"]["severity"] == "page"
    assert re.fullmatch(
        r"Run \S+ has finished no record for .+s; usually one finishes every .+s, "
        r"and the longest of \d+ gaps was .+s\. "
        r"Its stall threshold is .+s: [a-z ,]+; (no|\d) earlier runs? (is|are) known\. "
        r"5 records are in progress, the oldest for .+s at step 1 Send\.",
        page["annotations"]["description"],
    ), page["annotations"]["description"]
    assert page["annotations"]["action"] == "Check step 1 Send and its provider."
    assert re.fullmatch(r"\d+ of 300 records are finished", page["annotations"]["progress"]), page["annotations"]
    (resolution,) = resolved(messages)
    assert resolution["labels"] == page["labels"]


HANG = """
summary: At minute 5 one run hangs for 15 minutes; another one continues.
projects:
  - name: Clinic
    id: clinic
    spinners:
      - name: Hangs
        id: hangs
        records: 300
        runs: [{at: 0s}]
        steps: [{name: Send, type: whatsapp, latency: 10s..20s}]
      - name: Continues
        id: continues
        records: 300
        runs: [{at: 0s}]
        steps: [{name: Send, type: email, latency: 10s..20s}]
incidents:
  - {kind: stall, at: 5m, spinner: Hangs, lasts: 15m}
"""


def at_sixty_times_the_speed(rules: str) -> str:
    """Divide the waits of SpinnerRunStalled by the speed; its thresholds are in the exporter's config.

    The other rules are unchanged: with waits of seconds, alerts such as SpinnerApiDown would fire on a busy machine.
    """
    document = yaml.safe_load(rules)
    (rule,) = (
        each for group in document["groups"] for each in group["rules"] if each.get("alert") == "SpinnerRunStalled"
    )
    for key in ("for", "keep_firing_for"):
        assert rule[key].endswith("m"), f"{key} of SpinnerRunStalled is no longer minutes: {rule[key]}"
        rule[key] = rule[key].replace("m", "s")
    return yaml.safe_dump(document)


def write_routes(folder: Path, pager_url: str, *, group_interval: str = "1s") -> Path:
    """The project's routes and inhibitions, with short waits and the test's pager as receiver."""
    config = yaml.safe_load(CONFIG.read_text())
    config["templates"] = [str(CONFIG.parent / "templates" / "*.tmpl")]
    for route in (config["route"], *config["route"]["routes"]):
        route |= {"group_wait": "1s", "group_interval": group_interval}
    config["receivers"] = [each for each in config["receivers"] if "webhook_configs" in each]
    for receiver in config["receivers"]:
        receiver["webhook_configs"][0]["url"] = f"{pager_url}/{receiver['name']}"
    file = folder / "alertmanager.yml"
    file.write_text(yaml.safe_dump(config))
    return file


class pager:  # noqa: N801 - used as a context manager
    """A webhook receiver that stores every alert of every notification, with its path."""

    def __enter__(self) -> tuple[list[dict[str, Any]], str]:
        messages: list[dict[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                messages.extend(alert | {"receiver": self.path.strip("/")} for alert in body["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its signature
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return messages, f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def firing(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for each in messages if each["receiver"] == "page" and each["status"] == "firing"]


def resolved(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for each in messages if each["receiver"] == "page" and each["status"] == "resolved"]


def post(url: str, labels: list[dict[str, str]], *, firing: bool) -> None:
    body = [{"labels": each} | ({} if firing else {"endsAt": "2020-01-01T00:00:00Z"}) for each in labels]
    if not firing:
        for each in body:
            each["startsAt"] = "2019-01-01T00:00:00Z"
    httpx.post(f"{url}/api/v2/alerts", json=body).raise_for_status()


def labels_of(name: str, more: dict[str, str]) -> dict[str, str]:
    return {"alertname": name, "severity": alert_rule(name)["labels"]["severity"], **more}


def inhibited_by(url: str, name: str, more: dict[str, str]) -> list[str]:
    """Return the alerts that inhibit this one."""
    (found,) = (alert for alert in alerts(url) if alert["labels"] == labels_of(name, more))
    names: list[str] = found["status"]["inhibitedBy"]
    return names


def alerts(url: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"{url}/api/v2/alerts").raise_for_status().json()
    return found
