"""What Alertmanager's webhooks send, received and written for a terminal."""

import re
from collections.abc import Callable
from typing import Literal

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

LARGEST = 1 << 20
"""Bytes of a notification that are read at most."""


class Alert(msgspec.Struct, frozen=True):
    """One alert of a notification, as much of Alertmanager's webhook format (version 4) as is shown."""

    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    annotations: dict[str, str] = {}

    def headline(self) -> str:
        """Return its first line, such as `PAGE SpinnerRunStalled: A run of Mails in Sales is stalled.`"""
        word = "RESOLVED" if self.status == "resolved" else self.labels.get("severity", "alert").upper()
        summary = self.annotations.get("summary", "")
        return _plain(f"{word} {self.labels.get('alertname', '')}" + (f": {summary}" if summary else ""))

    def details(self) -> list[tuple[str, str]]:
        """Return what follows, each with what it is; nothing of an alert that is over."""
        if self.status == "resolved":
            return []
        parts = (
            ("what", self.annotations.get("description", "")),
            ("look at", self.annotations.get("dashboard_url", "")),
            ("what to do", self.annotations.get("runbook_url", "")),
        )
        return [(name, _plain(text)) for name, text in parts if text]


class _Notification(msgspec.Struct, frozen=True):
    alerts: tuple[Alert, ...]


def create_app(receive: Callable[[Alert], None]) -> Starlette:
    """Make the receiver: a POST to `/page` or `/ticket` has each alert received; `/watchdog` is only answered."""

    async def take(request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > LARGEST:
                return PlainTextResponse("too large\n", status_code=413)
        try:
            notification = _DECODER.decode(bytes(body))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return PlainTextResponse(f"not a notification of Alertmanager: {error}\n", status_code=400)
        for alert in notification.alerts:
            receive(alert)
        return PlainTextResponse("received\n")

    async def ignore(request: Request) -> Response:
        return PlainTextResponse("received\n")

    return Starlette(
        routes=[
            Route("/page", take, methods=["POST"]),
            Route("/ticket", take, methods=["POST"]),
            Route("/watchdog", ignore, methods=["POST"]),
            Route("/-/healthy", ignore),
        ]
    )


def as_block(alert: Alert) -> str:
    """Return an alert as lines of text, the last without a line break."""
    return "\n".join([alert.headline(), *(f"    {name:<12}{text}" for name, text in alert.details())])


_DECODER = msgspec.json.Decoder(_Notification)


def _plain(text: str) -> str:
    # Names in an alert are somebody's words: no escape sequence of theirs reaches the terminal.
    return re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", " ".join(text.split()))
