"""Receives Alertmanager's webhook notifications and formats them for a terminal."""

import re
from collections.abc import Callable
from typing import Literal

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

LARGEST = 1 << 20
"""Largest size of a notification, in bytes."""


class Alert(msgspec.Struct, frozen=True):
    """One alert of a notification, with the fields of Alertmanager's webhook format (version 4) that are printed."""

    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    annotations: dict[str, str] = {}

    def headline(self) -> str:
        """Return the first line, such as `PAGE SpinnerRunStalled: A run of Mails in Sales is stalled.`"""
        kind = "RESOLVED" if self.status == "resolved" else self.labels.get("severity", "alert").upper()
        summary = self.annotations.get("summary", "")
        return _plain(f"{kind} {self.labels.get('alertname', '')}" + (f": {summary}" if summary else ""))

    def details(self) -> list[tuple[str, str]]:
        """Return the other lines as names and texts; none for a resolved alert."""
        if self.status == "resolved":
            return []
        dashboard = self.annotations.get("dashboard_url", "")
        parts = (
            ("do", self.annotations.get("action", "")),
            ("what", self.annotations.get("description", "")),
            ("progress", self.annotations.get("progress", "")),
            # Without the external label `grafana_url` it is a path, which cannot be opened.
            ("dashboard", "" if dashboard.startswith("/") else dashboard),
            ("runbook", self.annotations.get("runbook_url", "")),
        )
        return [(name, _plain(text)) for name, text in parts if text]


class _Notification(msgspec.Struct, frozen=True):
    alerts: tuple[Alert, ...]


def create_app(receive: Callable[[Alert], None]) -> Starlette:
    """Return the receiver. It passes alerts from `/page` and `/ticket` to `receive` and ignores `/watchdog`."""

    async def notify(request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > LARGEST:
                return PlainTextResponse("too large\n", status_code=413)
        try:
            notification = _DECODER.decode(bytes(body))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return PlainTextResponse(f"not an Alertmanager notification: {error}\n", status_code=400)
        for alert in notification.alerts:
            receive(alert)
        return PlainTextResponse("received\n")

    async def ignore(request: Request) -> Response:
        return PlainTextResponse("received\n")

    return Starlette(
        routes=[
            Route("/page", notify, methods=["POST"]),
            Route("/ticket", notify, methods=["POST"]),
            Route("/watchdog", ignore, methods=["POST"]),
            Route("/-/healthy", ignore),
        ]
    )


def as_block(alert: Alert) -> str:
    """Return an alert as lines of text, without a final line break."""
    return "\n".join([alert.headline(), *(f"    {name:<12}{text}" for name, text in alert.details())])


_DECODER = msgspec.json.Decoder(_Notification)


def _plain(text: str) -> str:
    # Names in alerts come from users, so escape sequences are removed.
    return re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", " ".join(text.split()))
