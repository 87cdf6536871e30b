"""Status labels and the ideas behind them. Wording varies between deployments, the ideas do not."""

import difflib
from collections.abc import Mapping

from exporter.status import Status

# The vendor documents the ideas and says that exact labels can vary. These are the wordings of job systems
# that we know of; a deployment with another one adds it under `statuses:` in its config.
DEFAULT_LABELS: Mapping[Status, tuple[str, ...]] = {
    Status.QUEUED: ("queued", "created", "pending", "scheduled", "new", "submitted", "accepted", "ready", "starting"),
    Status.RUNNING: (
        "running", "in progress", "active", "started", "processing", "executing", "working", "retrying",
        "resuming", "cancelling", "canceling", "stopping",
    ),
    Status.WAITING: (
        "waiting", "paused", "on hold", "held", "suspended", "blocked", "sleeping", "deferred", "waiting on human",
        "waiting for human", "waiting on person", "waiting for input", "awaiting input", "awaiting human",
        "awaiting reply", "waiting external", "waiting on external", "waiting for external",
    ),
    Status.COMPLETED: (
        "completed", "complete", "done", "success", "successful", "succeeded", "finished", "ok", "passed", "partial",
        "partially completed", "partial success", "completed with errors", "completed with failures",
        "finished with errors",
    ),
    Status.FAILED: (
        "failed", "failure", "error", "errored", "crashed", "aborted", "timed out", "timeout", "expired", "dead",
    ),
    Status.CANCELLED: ("cancelled", "canceled", "stopped", "killed", "terminated", "revoked", "skipped"),
}  # fmt: skip


class StatusMap:
    """Maps a status label to its idea; case, spaces, dashes and underscores in a label do not matter.

    >>> StatusMap({"Parked": Status.WAITING}).status_for("in-progress")
    <Status.RUNNING: 'running'>
    """

    def __init__(self, extra: Mapping[str, Status] | None = None) -> None:
        self._extra = dict(extra or {})
        self._ideas = {_fold(label): idea for idea, labels in DEFAULT_LABELS.items() for label in labels}
        self._ideas.update({_fold(label): idea for label, idea in self._extra.items()})
        # Labels come in a handful of spellings and a million times: remember each spelling as it came.
        self._seen: dict[str, Status] = {}

    def extended(self, extra: Mapping[str, Status]) -> "StatusMap":
        """Return a map that knows these labels as well, or otherwise."""
        return StatusMap({**self._extra, **extra})

    def status_for(self, label: str) -> Status:
        """Return the idea behind `label`, or `Status.UNKNOWN` when no mapping knows it."""
        known = self._seen.get(label)
        if known is not None:
            return known
        idea = self._ideas.get(_fold(label), Status.UNKNOWN)
        # Only labels that we know are kept, so that a runtime that makes up labels cannot fill memory.
        if idea is not Status.UNKNOWN and len(self._seen) < 1000:
            self._seen[label] = idea
        return idea


def propose(label: str) -> Status | None:
    """Return the idea that a label that nobody knows most likely stands for; None without a guess."""
    words = {_fold(known): idea for idea, labels in DEFAULT_LABELS.items() for known in labels}
    near = difflib.get_close_matches(_fold(label), words, n=1, cutoff=0.75)
    if near:
        return words[near[0]]
    # The longest word that is part of it says most: "step_failed_hard" has failed.
    parts = [known for known in words if len(known) > 3 and known in _fold(label)]
    return words[max(parts, key=len)] if parts else None


def _fold(label: str) -> str:
    return "".join(character for character in label.casefold() if character.isalnum())
