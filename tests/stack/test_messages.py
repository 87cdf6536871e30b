"""What a person reads in PagerDuty, Slack and email, as a real Alertmanager sends it with the project's config."""

import contextlib
import copy
import re
from collections.abc import Iterator, Mapping
from email.message import EmailMessage
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote_plus

import httpx
import pytest
import yaml

from tests.alerts.rule_files import rule_tests
from tests.stack.programs import ROOT, until
from tests.stack.receivers import OURS, Arrived, receiving

Alert = dict[str, Any]

STARTED = "2025-03-01T03:12:09Z"
ENDED = "2025-03-01T03:40:51Z"

HOSTILE = [
    "Offer <!channel>",
    "<http://evil.example|approval>",
    "R&D <b>now</b> &lt;!here&gt;",
    "*Offer* _to_ ~all~ `now`",
    "Offer\n\nRunbook: <http://evil.example|here>",
    '" onmouseover="alert(1)',
    "{{ .ExternalURL }}",
    "a: b{{ .ExternalURL }}",
    "- [x, {y: z}] # {{",
    "Grüße an «Köln» 🎉",
]
"""Names that mean something to a receiver, or to a template."""


class Alertmanager:
    """A real Alertmanager and what arrives at the receivers that it notifies."""

    def __init__(self, url: str, arrived: Arrived) -> None:
        self._url = url
        self._arrived = arrived

    def send(self, *alerts: Alert, title: str = "") -> Arrived:
        """Send alerts of one group, and return each receiver's next message, or the one with this text in its title.

        Alertmanager may send the first of several alerts before the others.
        """
        seen = {name: len(getattr(self._arrived, name)) for name in OURS}
        httpx.post(f"{self._url}/api/v2/alerts", json=list(alerts)).raise_for_status()
        found: dict[str, list[Any]] = {}

        def arrived() -> bool:
            for name in seen.keys() - found.keys():
                for message in getattr(self._arrived, name)[seen[name] :]:
                    seen[name] += 1
                    if title in as_read(name, message).splitlines()[0]:
                        found[name] = [message]
                        break
            return len(found) == len(OURS)

        until(arrived, f"each of {', '.join(OURS)} receives a message {title}")
        return Arrived(**found)


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    with receiving(tmp_path_factory.mktemp("messages")) as (url, arrived):
        yield Alertmanager(url, arrived)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_only_text_in_slack(alertmanager: Alertmanager, name: str) -> None:
    alert = stall(spinner=name, project=name, run_id=name)
    check_slack(alertmanager.send(alert).first("slack"), name)
    check_slack(alertmanager.send(resolved(alert)).first("slack"), name)


def check_slack(message: Mapping[str, Any], name: str) -> None:
    (attachment,) = message["attachments"]
    shown = one_line(name)
    assert f"A run of {shown} in {shown} is stalled." in html_unescaped(attachment["title"])
    assert f"Run {shown}" in html_unescaped(attachment["text"])
    for field in ("title", "text", "fallback", "pretext", "footer"):
        text = attachment.get(field, "")
        without_links = re.sub(r"<https://(?:grafana|runbooks)\.example\.com/[^<>|]+\|(?:Dashboard|Runbook)>", "", text)
        assert not re.search(r"[<>]|&(?!(?:amp|lt|gt);)", without_links), f"{field} is not escaped: {text}"
    assert not {"title", "text", "fallback", "fields"} & set(attachment["mrkdwn_in"]), "a name may contain * and _"
    assert "link_names" not in message, "a name may contain @here"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_only_text_in_an_email(alertmanager: Alertmanager, name: str) -> None:
    (message,) = alertmanager.send(stall(spinner=name, project=f"of {name}")).email
    shown = one_line(name)
    title = f"PAGE: A run of {shown} in of {shown} is stalled."
    assert message["Subject"] == title
    for line in plain(message).splitlines():
        assert "evil.example" not in line or line.startswith("Dashboard: https://grafana.example.com/")
    part = message.get_body(("html",))
    assert part is not None
    page = Page()
    page.feed(part.get_content())
    assert title in page.text
    assert page.tags == {"html", "body", "h3", "p", "b", "br", "a"}
    assert {attribute for attribute, _ in page.attributes} == {"style", "href"}
    for attribute, value in page.attributes:
        assert attribute == "style" or value.startswith(
            ("https://grafana.example.com/", "https://runbooks.example.com/")
        )


class Page(HTMLParser):
    """The text, the tags and the attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("name", HOSTILE)
def test_pagerduty_knows_project_and_spinner(alertmanager: Alertmanager, name: str) -> None:
    alert = stall(spinner=name, project=f"For {name}", run_id=name)
    event = alertmanager.send(alert).first("pagerduty")
    check_that_details_are_text(event)
    check_that_details_are_text(alertmanager.send(resolved(alert)).first("pagerduty"))
    payload = event["payload"]
    assert payload["summary"] == f"A run of {one_line(name)} in For {one_line(name)} is stalled."
    assert payload["class"] == "SpinnerRunStalled"
    assert payload["group"] == one_line(f"For {name}")
    assert payload["component"] == one_line(name)


def check_that_details_are_text(event: Mapping[str, Any]) -> None:
    """Newer Alertmanagers read each detail as YAML, and what is then no text once more as templates."""
    for name, text in event["payload"]["custom_details"].items():
        with contextlib.suppress(yaml.YAMLError):
            assert isinstance(yaml.safe_load(text), str | int | None), f"{name} is not only text: {text}"


@pytest.mark.parametrize("name", ["SpinnerExporterDown", "SpinnerApiDown", "SpinnerRuntimeDown", "SpinnerRunMissing"])
def test_the_details_of_an_alert_about_no_run_are_text(alertmanager: Alertmanager, name: str) -> None:
    alert = example(name)
    alert["labels"]["runtime"] = "text"
    check_that_details_are_text(alertmanager.send(alert).first("pagerduty"))
    check_that_details_are_text(alertmanager.send(resolved(alert)).first("pagerduty"))


@pytest.mark.parametrize(
    ("severity", "shown"), [("page", "critical"), ("ticket", "warning"), ("none", "info"), ("other", "error")]
)
def test_pagerduty_shows_how_urgent_it_is(alertmanager: Alertmanager, severity: str, shown: str) -> None:
    (event,) = alertmanager.send(stall(spinner=f"Severity {severity}", severity=severity)).pagerduty
    assert event["payload"]["severity"] == shown


def test_pagerduty_links_to_the_dashboard_and_the_runbook(alertmanager: Alertmanager) -> None:
    (event,) = alertmanager.send(stall(spinner="Links")).pagerduty
    assert event["links"] == [
        {
            "href": "https://grafana.example.com/d/spinner-jobs?var-project=Sales&var-spinner=Links&var-run=r1",
            "text": "Dashboard",
        },
        {"href": "https://runbooks.example.com/SpinnerRunStalled.md", "text": "Runbook"},
    ]


def test_a_link_that_nobody_can_open_is_not_a_link(alertmanager: Alertmanager) -> None:
    """As when Prometheus has neither of the external labels grafana_url and runbooks_url."""
    alert = stall(spinner="Relative")
    for key in ("dashboard_url", "runbook_url"):
        alert["annotations"][key] = re.sub(r"https://(grafana|runbooks).example.com", "", alert["annotations"][key])
    arrived = alertmanager.send(alert)
    assert arrived.pagerduty[0].get("links", []) == []
    assert "<" not in arrived.slack[0]["attachments"][0]["text"]
    assert not arrived.slack[0]["attachments"][0].get("title_link")
    page = arrived.email[0].get_body(("html",))
    assert page is not None
    assert "href" not in page.get_content()
    for name in OURS:
        assert "/SpinnerRunStalled.md" in as_read(name, arrived.first(name)), f"{name} does not name the runbook"


@pytest.mark.parametrize("receiver", OURS)
def test_the_first_line_says_what_to_do(alertmanager: Alertmanager, receiver: str) -> None:
    title, first, *_ = as_read(
        receiver, alertmanager.send(stall(spinner=f"First in {receiver}")).first(receiver)
    ).splitlines()
    assert f"A run of First in {receiver} in Sales is stalled." in title
    assert first == "Check the step at which it hangs and that step's provider."


@pytest.mark.parametrize("receiver", OURS)
@pytest.mark.parametrize("progress", [None, "unknown"])
def test_a_message_says_since_when_and_how_far_the_run_is(
    alertmanager: Alertmanager, receiver: str, progress: str | None
) -> None:
    alert = stall(spinner=f"Far in {receiver}, {progress}")
    if progress is not None:
        alert["annotations"]["progress"] = progress
    text = as_read(receiver, alertmanager.send(alert).first(receiver))
    assert "Firing since 2025-03-01 03:12 UTC" in text
    assert f"Progress: {progress or '4210 of 10000 records are finished'}" in text


@pytest.mark.parametrize("receiver", OURS)
def test_a_message_about_no_run_says_nothing_of_progress(alertmanager: Alertmanager, receiver: str) -> None:
    alert = example("SpinnerApiDown")
    alert["labels"]["runtime"] = f"no-run-{receiver}"
    assert "rogress" not in as_read(receiver, alertmanager.send(alert).first(receiver))


@pytest.mark.parametrize("receiver", OURS)
def test_a_message_says_which_of_several_are_over(alertmanager: Alertmanager, receiver: str) -> None:
    spinner = f"Several in {receiver}"
    runs = [stall(spinner=spinner, run_id=run) for run in ("run-a", "run-b", "run-c")]
    alertmanager.send(*runs, title="(3 firing)")
    text = as_read(receiver, alertmanager.send(resolved(runs[1]), title="(2 firing, 1 resolved)").first(receiver))
    firing, over = re.split(r"^Resolved \(1\)$", text, flags=re.MULTILINE)
    assert ("run-a" in firing, "run-b" in firing, "run-c" in firing) == (True, False, True)
    assert "Run run-b fired from 2025-03-01 03:12 UTC to 2025-03-01 03:40 UTC" in over
    assert ("run-a" in over, "run-c" in over) == (False, False)


@pytest.mark.parametrize("receiver", OURS)
def test_a_message_about_what_is_over_does_not_say_what_to_do(alertmanager: Alertmanager, receiver: str) -> None:
    alert = stall(spinner=f"Over in {receiver}")
    alertmanager.send(alert)
    arrived = alertmanager.send(resolved(alert))
    text = as_read(receiver, arrived.first(receiver))
    assert "fired from 2025-03-01 03:12 UTC to 2025-03-01 03:40 UTC" in text
    assert "Check" not in text
    assert "has made no progress" not in text, "it is over, or nothing is known"
    if receiver == "pagerduty":
        assert arrived.pagerduty[0]["event_action"] == "resolve"
    else:
        assert text.startswith(f"Resolved: A run of Over in {receiver} in Sales is stalled.")


@pytest.mark.parametrize(
    ("letter", "length"), [("x", 128), ("&", 128), ("ü", 128), ("🎉", 128), ("x ", 128), ("y", 999)]
)
def test_a_message_with_many_long_names_fits(alertmanager: Alertmanager, letter: str, length: int) -> None:
    """Names as long as limits.label_length allows by default, and longer; receivers cut or refuse what does not fit."""
    name = (letter * length)[:length].strip()
    runs = [stall(spinner=name, project=name, run_id=f"{number:03}" * 42) for number in range(60)]
    arrived = alertmanager.send(*runs, title="(60 firing)")
    (attachment,) = arrived.slack[0]["attachments"]
    assert len(attachment["title"]) <= 1024
    assert not re.search(r"&(?!(?:amp|lt|gt);)", attachment["title"]), "it is cut in the middle of an escape"
    assert len(attachment["text"]) <= 3000
    summary = arrived.pagerduty[0]["payload"]["summary"]
    assert len(summary) <= 1024
    assert summary.endswith(" is stalled. (60 firing)")
    assert html_unescaped(attachment["title"]).endswith(" is stalled. (60 firing)")
    for text in arrived.pagerduty[0]["payload"]["custom_details"].values():
        assert len(text) <= 3000
    for line in arrived.email[0].as_bytes().splitlines():
        assert len(line) <= 998, "RFC 5322 allows no longer line"
    for receiver in OURS:
        assert "and 55 more" in as_read(receiver, arrived.first(receiver))
    both = alertmanager.send(*map(resolved, runs[:30]), title="(30 firing, 30 resolved)")
    assert len(both.slack[0]["attachments"][0]["text"]) <= 3000
    for receiver in OURS:
        assert as_read(receiver, both.first(receiver)).count("and 25 more") == 2


@pytest.mark.parametrize("receiver", OURS)
def test_the_description_of_a_single_run_is_not_cut(alertmanager: Alertmanager, receiver: str) -> None:
    """It says what the threshold was learned from, and at its end what the run works on."""
    alert = stall(spinner=f"Alone in {receiver}")
    alert["annotations"]["description"] += (
        " 1 record is in progress, the oldest for 20m 0s at step 2 Send. "
        "A record last began or moved to its next step 20m 0s ago."
    )
    assert len(alert["annotations"]["description"]) > 300
    assert alert["annotations"]["description"] in as_read(receiver, alertmanager.send(alert).first(receiver))


def test_alerts_with_different_summaries_each_show_theirs(alertmanager: Alertmanager) -> None:
    meters = [example("SpinnerPlanLimitReached") for _ in range(3)]
    for meter, alert in zip(("jobs & <!here>", "records", "calls"), meters, strict=True):
        alert["labels"]["meter"] = meter
        alert["annotations"]["summary"] = f"The plan's {meter} is used up: new runs are refused."
    alertmanager.send(*meters, title="SpinnerPlanLimitReached (3 firing)")
    arrived = alertmanager.send(resolved(meters[2]), title="SpinnerPlanLimitReached (2 firing, 1 resolved)")
    for receiver in OURS:
        firing, over = as_read(receiver, arrived.first(receiver)).split("Resolved (1)")
        assert meters[0]["annotations"]["summary"] in firing
        assert meters[1]["annotations"]["summary"] in firing
        assert meters[2]["annotations"]["summary"] in over
    assert "<!here>" not in str(arrived.slack)


def test_the_dashboard_of_several_runs_shows_all(alertmanager: Alertmanager) -> None:
    runs = [stall(spinner="All", run_id=run) for run in ("run-a", "run-b")]
    arrived = alertmanager.send(*runs, title="(2 firing)")
    link = "https://grafana.example.com/d/spinner-jobs?var-project=Sales&var-spinner=All"
    assert arrived.pagerduty[0]["links"][0]["href"] == link
    assert arrived.slack[0]["attachments"][0]["title_link"] == link
    assert f"<{link.replace('&', '&amp;')}|Dashboard>" in arrived.slack[0]["attachments"][0]["text"]
    assert f"Dashboard: {link}\n" in plain(arrived.email[0])
    part = arrived.email[0].get_body(("html",))
    assert part is not None
    page = Page()
    page.feed(part.get_content())
    assert ("href", link) in page.attributes


def test_the_documentation_shows_what_arrives(alertmanager: Alertmanager) -> None:
    """Copy what this test prints into docs/alerting.md."""
    page = (ROOT / "docs" / "alerting.md").read_text()
    shown = dict(
        re.findall(r"^### (PagerDuty|Slack|Email)\n.*?^```text\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    )
    alert, other = [example("SpinnerRunStalled", runtime="runtime.example.com") for _ in range(2)]
    arrived = alertmanager.send(alert)
    assert shown["PagerDuty"] == pagerduty_in_full(arrived.pagerduty[0])
    assert shown["Slack"] == slack_as_read(arrived.slack[0]) + "\n"
    other["labels"]["run_id"] = "r2"
    other["annotations"]["description"] = other["annotations"]["description"].replace("r1", "r2")
    alertmanager.send(other, title="(2 firing)")
    arrived = alertmanager.send(resolved(alert), title="(1 firing, 1 resolved)")
    assert shown["Email"] == f"Subject: {email_as_read(arrived.email[0])}\n"


def pagerduty_in_full(event: Mapping[str, Any]) -> str:
    """Return every field that a person sees, as in the documentation."""
    payload = event["payload"]
    fields = {key: payload[key] for key in ("severity", "class", "group", "component")} | payload["custom_details"]
    fields |= {f"link {link['text']}": link["href"] for link in event["links"]}
    lines = [payload["summary"]]
    for key, value in fields.items():
        first, *more = str(value).strip().splitlines() or [""]
        lines += [f"{key:<16}{first}".rstrip(), *(" " * 16 + line for line in more)]
    return "\n".join(lines) + "\n"


def stall(*, spinner: str, project: str = "Sales", run_id: str = "r1", severity: str = "page") -> Alert:
    """An alert of a stalled run, with the texts that the rule tests expect of the rule, and these names."""
    alert = example("SpinnerRunStalled")
    old, new = alert["labels"], alert["labels"] | {"spinner": spinner, "project": project, "run_id": run_id}
    texts = alert["annotations"]
    texts["summary"] = f"A run of {spinner} in {project} is stalled."
    texts["description"] = texts["description"].replace(f"Run {old['run_id']} ", f"Run {run_id} ")
    for label, parameter in (("spinner", "spinner"), ("project", "project"), ("run_id", "run")):
        texts["dashboard_url"] = texts["dashboard_url"].replace(
            f"var-{parameter}={old[label]}", f"var-{parameter}={quote_plus(new[label])}"
        )
    return alert | {"labels": new | {"severity": severity}}


def example(name: str, **labels: str) -> Alert:
    """A firing alert with the labels and texts that alerts/tests expect of its rule; the first with these labels."""
    texts = (each for test in rule_tests(ROOT / "alerts" / "tests" / "texts.yml") for each in test["alert_rule_test"])
    alerts = (each["exp_alerts"][0] for each in texts if each["alertname"] == name)
    expected = next(alert for alert in alerts if labels.items() <= alert["exp_labels"].items())
    return {
        "labels": {"alertname": name} | expected["exp_labels"],
        "annotations": dict(expected["exp_annotations"]),
        "startsAt": STARTED,
        # Until then it fires, however long the tests take.
        "endsAt": "2999-01-01T00:00:00Z",
    }


def resolved(alert: Alert) -> Alert:
    return copy.deepcopy(alert) | {"endsAt": ENDED}


def as_read(receiver: str, message: Any) -> str:
    """A message as a person reads it, the title first."""
    text: str = _READ[receiver](message)
    return text


def slack_as_read(message: Mapping[str, Any]) -> str:
    (attachment,) = message["attachments"]
    text = re.sub(r"<([^|>]+)\|([^>]+)>", r"\2", attachment["text"])
    return html_unescaped(f"{attachment['title']}\n{text}").strip()


def pagerduty_as_read(event: Mapping[str, Any]) -> str:
    """The summary and the details, which PagerDuty shows in the order of their names."""
    payload = event["payload"]
    details = [payload["custom_details"][key] for key in sorted(payload["custom_details"])]
    return "\n".join([payload["summary"], *(text for text in details if text)])


def email_as_read(message: EmailMessage) -> str:
    return f"{message['Subject']}\n{plain(message)}".strip()


_READ: Mapping[str, Any] = {"pagerduty": pagerduty_as_read, "slack": slack_as_read, "email": email_as_read}


def plain(message: EmailMessage) -> str:
    part = message.get_body(("plain",))
    assert part is not None, "the message has no plain-text part"
    text: str = part.get_content()
    return text.replace("\r\n", "\n")


def html_unescaped(text: str) -> str:
    """Undo what Slack asks to escape."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def one_line(text: str) -> str:
    return " ".join(text.split())
