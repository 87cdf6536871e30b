"""The mapping from status labels to statuses. Labels vary between deployments, statuses do not."""

import difflib
import unicodedata
from collections.abc import Mapping

from exporter.status import Status

MAX_SPELLINGS = 1000
"""Maximum number of spellings in a map's cache."""

# The vendor documents the statuses and says that exact labels can vary. These are the labels of known job systems;
# a deployment adds its own under `statuses:` in its config.
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
    """Maps a label to its status; case, spaces, dashes and underscores in a label do not matter.

    >>> StatusMap({"Parked": Status.WAITING}).status_for("in-progress")
    <Status.RUNNING: 'running'>
    """

    def __init__(self, extra: Mapping[str, Status] | None = None) -> None:
        self._extra = dict(extra or {})
        self._statuses = {_fold(label): status for status, labels in DEFAULT_LABELS.items() for label in labels}
        self._statuses.update({_fold(label): status for label, status in self._extra.items()})
        # The same few spellings arrive a million times, and folding one costs more than a look-up.
        self._cache: dict[str, Status] = {}

    def extended(self, extra: Mapping[str, Status]) -> "StatusMap":
        """Return a map in which these labels are added or replaced."""
        return StatusMap({**self._extra, **extra})

    def status_for(self, label: str) -> Status:
        """Return the status for `label`, or `Status.UNKNOWN` if no mapping has it."""
        known = self._cache.get(label)
        if known is not None:
            return known
        status = self._statuses.get(_fold(label), Status.UNKNOWN)
        # Only known labels, and not too many, so that a runtime that makes up labels cannot fill memory.
        if status is not Status.UNKNOWN and len(self._cache) < MAX_SPELLINGS:
            self._cache[label] = status
        return status


def propose(label: str) -> Status | None:
    """Guess the status for an unmapped label; None without a guess."""
    statuses = {_fold(known): status for status, labels in DEFAULT_LABELS.items() for known in labels}
    folded = _fold(label)
    # A misspelt label begins like the known one: "runing" is running, but "shipped" is not skipped.
    alike = [known for known in statuses if known[:2] == folded[:2]]
    near = difflib.get_close_matches(folded, alike, cutoff=0.75)
    if near:
        return statuses[near[0]]
    # The longest known label within it decides: "step_failed_hard" has failed.
    parts = [known for known in statuses if len(known) > 3 and known in folded]
    return statuses[max(parts, key=len)] if parts else None


def _fold(label: str) -> str:
    composed = unicodedata.normalize("NFC", label)
    return "".join(character for character in composed.casefold() if character.isalnum())
