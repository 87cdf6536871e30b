"""Receives Alertmanager's webhook notifications and formats them for a terminal."""

import re
import time
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


WATCHDOG_MISSING = 660.0
"""Seconds without the watchdog after which no page can come in: twice its `repeat_interval`, and a minute."""


def create_app(receive: Callable[[Alert], None], monotonic: Callable[[], float] = time.monotonic) -> Starlette:
    """Return the receiver. It passes alerts from `/page` and `/ticket` to `receive`.

    `/watchdog` takes the alert that always fires. `/-/receiving` responds with 503 if it has not come for longer than
    `WATCHDOG_MISSING`, or never: then Prometheus, Alertmanager or the way here is broken.
    """
    arrived = float("-inf")

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

    async def watchdog(request: Request) -> Response:
        nonlocal arrived
        arrived = monotonic()
        return PlainTextResponse("received\n")

    async def receiving(request: Request) -> Response:
        if monotonic() - arrived > WATCHDOG_MISSING:
            return PlainTextResponse("no watchdog: no page can come in\n", status_code=503)
        return PlainTextResponse("receiving\n")

    async def healthy(request: Request) -> Response:
        return PlainTextResponse("healthy\n")

    return Starlette(
        routes=[
            Route("/page", notify, methods=["POST"]),
            Route("/ticket", notify, methods=["POST"]),
            Route("/watchdog", watchdog, methods=["POST"]),
            Route("/-/receiving", receiving),
            Route("/-/healthy", healthy),
        ]
    )


def as_block(alert: Alert) -> str:
    """Return an alert as lines of text, without a final line break."""
    return "\n".join([alert.headline(), *(f"    {name:<12}{text}" for name, text in alert.details())])


_DECODER = msgspec.json.Decoder(_Notification)


def _plain(text: str) -> str:
    # Names in alerts come from users, so escape sequences are removed.
    return re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", " ".join(text.split()))
