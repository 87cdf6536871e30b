"""Checks the state of the worker service, as the exporter would understand it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from exporter.config import Config
from exporter.doctor.diagnosis import Check
from exporter.doctor.effects import REQUIRED
from exporter.doctor.examples import example
from exporter.runs.runtime_state import counts_as_down, is_ahead
from exporter.runtime.client import RawResponse
from exporter.runtime.decoder import Decoder
from exporter.runtime.model import Health


def examine_health(config: Config, decoder: Decoder, sample: RawResponse, items: Sequence[Mapping[str, Any]]) -> Check:
    """Check whether health can be used. Without its required field the runtime is always down.

    That the runtime says that it is down is no failure: the exporter can be connected, and shows it.
    """
    if not any(items):
        nothing = "responds with none of the fields, so that it is not known whether the runtime is up"
        return Check("health", False, nothing)
    health = decoder.health(sample.body, sample.date)
    missing = [field for field in REQUIRED["health"] if not any(field in item for item in items)]
    if missing:
        return Check("health", False, f"responds without {', '.join(missing)}, so the runtime counts as down")
    told = {str(item["runtime.status"]) for item in items if "runtime.status" in item}
    if unknown := sorted(told - {"up", "down"}):
        shown = json.dumps(example("runtime.status", unknown), ensure_ascii=False)
        return Check(
            "health",
            False,
            f"responds; runtime.status is {shown}, neither up nor down, so the runtime counts as down: add labels, "
            f"such as {{{shown}: up}}",
        )
    says_up = told == {"up"} and not any(item.get("status") == "down" for item in items)
    timeout, now = config.runtime.heartbeat_timeout, sample.time
    heartbeat = _heartbeat(health, now, is_told=any("runtime.lastHeartbeatAt" in item for item in items))
    if not counts_as_down(health, now, heartbeat_timeout=timeout):
        warns = health.last_heartbeat_at is not None and is_ahead(health.last_heartbeat_at, now)
        return Check("health", True, f"responds; the runtime is up{heartbeat}", warns)
    if not says_up:
        return Check(
            "health",
            True,
            f"responds; the runtime says that it is down{heartbeat}; if it is up, the description of health is wrong, "
            "such as the labels of runtime.status",
            warns=True,
        )
    return Check(
        "health",
        False,
        f"responds; the runtime says that it is up{heartbeat}; after {timeout:g} s without a heartbeat "
        "(runtime.heartbeat_timeout) it counts as down: the worker service has stopped, or the description of "
        "runtime.lastHeartbeatAt is wrong, such as its zone",
    )


def _heartbeat(health: Health, now: float, *, is_told: bool) -> str:
    """Return what to say of the last heartbeat; empty if none is described. `now` is the runtime's time."""
    if not health.beats:
        return ""
    if health.last_heartbeat_at is None:
        return f"; runtime.lastHeartbeatAt {'cannot be right and is ignored' if is_told else 'is missing'}"
    age = f"; its last heartbeat is {_age(now - health.last_heartbeat_at)}"
    if is_ahead(health.last_heartbeat_at, now):
        return f"{age}, so how old it is is not known: check the zone and the unit of runtime.lastHeartbeatAt"
    return age


def _age(seconds: float) -> str:
    """Return when something was, such as `12 s ago` or `5.5 h in the future`."""
    size, unit = next(((size, unit) for size, unit in _UNITS if abs(seconds) >= 2 * size), (1.0, "s"))
    number = round(abs(seconds) / size, 1 if size >= 3600 else None)
    return f"{number:g} {unit} {'in the future' if seconds < 0 and number else 'ago'}"


_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))
