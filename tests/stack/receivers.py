"""Fake PagerDuty, Slack and mail server, which store what a real Alertmanager sends them."""

import contextlib
import email
import email.policy
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.stack.programs import ROOT, alertmanager, free_port

CONFIG = ROOT / "alerts" / "alertmanager.yml"

OURS = ("pagerduty", "slack", "email")
"""The receivers of alerts/alertmanager.yml that people read, all of which get every alert here."""


@dataclass
class Arrived:
    """What arrived, oldest first."""

    pagerduty: list[dict[str, Any]] = field(default_factory=list)
    slack: list[dict[str, Any]] = field(default_factory=list)
    email: list[EmailMessage] = field(default_factory=list)

    def first(self, receiver: str) -> Any:
        """Return the first message of a receiver, which is one of `OURS`."""
        return getattr(self, receiver)[0]


@contextlib.contextmanager
def receiving(folder: Path) -> Iterator[tuple[str, Arrived]]:
    """Run Alertmanager with the project's receivers, sent to fakes; yields its URL and what arrives."""
    arrived = Arrived()
    mail = Controller(_Mailbox(arrived), hostname="127.0.0.1", port=free_port())
    with _http(arrived) as url:
        mail.start()
        try:
            config = folder / "alertmanager.yml"
            config.write_text(yaml.safe_dump(_config(folder, url, f"127.0.0.1:{mail.port}")))
            with alertmanager(folder, config) as alertmanager_url:
                yield alertmanager_url, arrived
        finally:
            mail.stop()


def _config(folder: Path, url: str, smarthost: str) -> dict[str, Any]:
    """Return the project's config with the addresses of the fakes; nothing of what is sent is changed."""
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    receivers = {each["name"]: each for each in config["receivers"] if each["name"] in OURS}
    (pagerduty,) = receivers["pagerduty"]["pagerduty_configs"]
    (slack,) = receivers["slack"]["slack_configs"]
    (mail,) = receivers["email"]["email_configs"]
    secrets = {"routing_key_file": "key", "api_url_file": f"{url}/slack"}
    for receiver, key in ((pagerduty, "routing_key_file"), (slack, "api_url_file")):
        receiver[key] = str(folder / key)
        (folder / key).write_text(secrets[key])
    pagerduty["url"] = f"{url}/pagerduty"
    mail |= {"smarthost": smarthost, "require_tls": False}
    for key in ("auth_username", "auth_password_file"):
        mail.pop(key)
    route = config["route"] | {"receiver": OURS[-1], "group_wait": "1s", "group_interval": "1s"}
    route["routes"] = [{"receiver": name, "continue": True} for name in OURS]
    return {
        "templates": [str(CONFIG.parent / pattern) for pattern in config["templates"]],
        "route": route,
        "receivers": list(receivers.values()),
    }


@contextlib.contextmanager
def _http(arrived: Arrived) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            getattr(arrived, self.path.strip("/")).append(body)
            self.send_response(202 if self.path == "/pagerduty" else 200)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its signature
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class _Mailbox:
    def __init__(self, arrived: Arrived) -> None:
        self._arrived = arrived

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - its name
        content = envelope.content
        assert isinstance(content, bytes)
        message = email.message_from_bytes(content, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        self._arrived.email.append(message)
        return "250 OK"
