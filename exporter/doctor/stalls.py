"""Says for which runs stalls can be detected."""

from collections.abc import Sequence

from exporter.doctor.diagnosis import Check
from exporter.runtime.model import RunSnapshot


def stall_detection(runs: Sequence[RunSnapshot]) -> Check:
    """Say for which runs nothing shows whether they make progress."""
    # What a queued run does not show it may show once it has started.
    blind = [run for run in runs if not _shows_progress(run) and run.started_at is not None]
    if not blind and not any(_shows_progress(run) or run.started_at is not None for run in runs):
        return Check("stall detection", None, "no run in the first response has started")
    if not blind:
        return Check("stall detection", True, "possible")
    names = sorted({run.spinner for run in blind})
    more = f" and {len(names) - NAMED_SPINNERS} more" if len(names) > NAMED_SPINNERS else ""
    spinners = ", ".join(names[:NAMED_SPINNERS]) + more
    finding = (
        f"no record counts: no progress and no stall detection for {len(blind)} of {len(runs)} runs in the first "
        f"response, of {spinners}; their status, duration and expected interval are watched"
    )
    return Check("stall detection", True, finding, warns=True)


def _shows_progress(run: RunSnapshot) -> bool:
    return run.last_progress_at is not None or bool(run.records and run.records.finished is not None)


NAMED_SPINNERS = 3
"""Spinners that a finding names."""
