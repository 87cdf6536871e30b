"""The mapping from status labels, which vary between deployments, to statuses."""

import unicodedata
from typing import Any

import pytest

from exporter.runtime.statuses import DEFAULT_LABELS, MAX_SPELLINGS, StatusMap
from exporter.status import Status


@pytest.mark.parametrize(
    ("label", "status"),
    [
        ("queued", Status.QUEUED),
        ("in_progress", Status.RUNNING),
        ("In Progress", Status.RUNNING),
        ("IN-PROGRESS", Status.RUNNING),
        ("Waiting on human", Status.WAITING),
        ("paused", Status.WAITING),
        ("partial", Status.COMPLETED),
        ("Completed with errors", Status.COMPLETED),
        ("timed-out", Status.FAILED),
        ("canceled", Status.CANCELLED),
    ],
)
def test_case_spaces_and_dashes_do_not_matter(label: str, status: Status) -> None:
    assert StatusMap().status_for(label) is status


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_letters_with_accents_are_the_same_however_they_are_written(form: Any) -> None:
    label = unicodedata.normalize(form, "gepr\N{LATIN SMALL LETTER U WITH DIAERESIS}ft")
    for described in ("NFC", "NFD"):
        known = StatusMap({unicodedata.normalize(described, label): Status.COMPLETED})
        assert known.status_for(label) is Status.COMPLETED


@pytest.mark.parametrize("label", ["", "???", "teleported", "\u0000"])
def test_an_unknown_label_is_unknown(label: str) -> None:
    assert StatusMap().status_for(label) is Status.UNKNOWN


def test_configured_labels_are_added_and_override_the_defaults() -> None:
    statuses = StatusMap({"Teleported": Status.COMPLETED, "paused": Status.FAILED})
    assert statuses.status_for("TELEPORTED") is Status.COMPLETED
    assert statuses.status_for("paused") is Status.FAILED
    assert statuses.status_for("running") is Status.RUNNING


def test_every_default_label_has_one_status() -> None:
    folded = ["".join(filter(str.isalnum, label.casefold())) for labels in DEFAULT_LABELS.values() for label in labels]
    assert len(folded) == len(set(folded))


def test_the_cache_of_labels_is_limited() -> None:
    statuses = StatusMap()
    for number in range(MAX_SPELLINGS + 500):
        assert statuses.status_for(f"running{'-' * number}") is Status.RUNNING
        assert statuses.status_for(f"unknown {number}") is Status.UNKNOWN
    assert len(statuses._cache) == MAX_SPELLINGS
    assert not [label for label in statuses._cache if label.startswith("unknown")]
