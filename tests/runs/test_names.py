"""Unique names for whatever the runtime calls things."""

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.runs import spinners
from exporter.runs.names import MAX_NUMBERS, candidates, unique_names
from exporter.runs.spinners import ProjectSpinners, SpinnerSlots
from tests.builders import config_with, snapshot

LENGTH = 16
NAMES = st.sampled_from(
    ["Report", "Report (1)", "Report (2)", "Report (1) (2)", "A very long name", "A very long  (1)", "A very l (1) (2)"]
)
IDS = st.sampled_from(["1", "2", "9", "10", "a-very-long-identifier"])


@given(lists=st.lists(st.dictionaries(IDS, NAMES), min_size=1, max_size=5), keeps=st.booleans())
def test_whatever_the_names_are_they_become_unique_and_nobody_is_renamed_by_others(
    lists: list[dict[str, str]], keeps: bool
) -> None:
    held: dict[str, str] = {}
    called: dict[str, str] = {}
    for names in lists:
        found = unique_names(names, held, length=LENGTH)
        assert found.keys() == names.keys()
        shown = {**held, **found} if keeps else found
        assert len(set(shown.values())) == len(shown), "two have the same name"
        assert all(len(name) <= LENGTH for name in found.values())
        for each in names.keys() & held.keys():
            if called[each] == names[each]:
                assert found[each] == held[each], f"{each} was renamed, and is still called {names[each]}"
        held = shown
        called = {**called, **names}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"1": "Report", "2": "Report", "x": "Report (2)"}, {"1": "Report", "2": "Report (2) (2)", "x": "Report (2)"}),
        ({"10": "Report", "9": "Report"}, {"9": "Report", "10": "Report (10)"}),
        ({"1": "A very long name", "2": "A very long name"}, {"1": "A very long name", "2": "A very long  (2)"}),
        (
            {"1": "Report", "a-very-long-identifier": "Report"},
            {"1": "Report", "a-very-long-identifier": "Report (2)"},
        ),
    ],
)
def test_a_plain_name_goes_to_one_that_is_called_so(names: dict[str, str], expected: dict[str, str]) -> None:
    assert unique_names(names, {}, length=LENGTH) == expected
    assert unique_names(dict(reversed(names.items())), {}, length=LENGTH) == expected, "the order of the list decides"


def test_a_run_of_a_namesake_costs_no_more_names_than_it_has_before_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0

    def counting(name: str, own_id: str, *, length: int) -> Iterator[str]:
        nonlocal made
        for each in candidates(name, own_id, length=length):
            made += 1
            yield each

    monkeypatch.setattr(spinners, "candidates", counting)
    held = ProjectSpinners(SpinnerSlots(), config_with, is_saved=False)
    runs = [snapshot(spinner="Nightly", spinner_id=each) for each in ("a", "b", "c")]
    assert [held.named(run, 128).spinner for run in runs] == ["Nightly", "Nightly (b)", "Nightly (c)"]
    made = 0
    assert [held.named(run, 128).spinner for run in runs] == ["Nightly", "Nightly (b)", "Nightly (c)"]
    assert made == 1 + 2 + 2


def test_a_spinner_without_a_visible_name_keeps_it() -> None:
    held = ProjectSpinners(SpinnerSlots(), config_with, is_saved=False)
    runs = [snapshot(spinner="", spinner_id=each) for each in ("a", "b", "a", "b")]
    assert [held.named(run, 128).spinner for run in runs] == ["", " (b)", "", " (b)"]


def test_many_with_one_name_and_long_ids_get_names_in_linear_time() -> None:
    """Each would try the numbers of all others: 4,000 of them took 3 s, and 100,000 half an hour."""
    ids = [f"{number:0128d}" for number in range(3000)]
    found = unique_names(dict.fromkeys(ids, "Report"), {}, length=128)
    assert len(set(found.values())) == 3000
    numbered = [name for name in found.values() if name.endswith(tuple(f" ({number})" for number in range(2, 3000)))]
    assert len(numbered) == MAX_NUMBERS, "the others have a hash of their id, for which no other name is tried"
    again = unique_names(dict.fromkeys(ids, "Report"), found, length=128)
    assert again == found


@pytest.mark.parametrize(
    ("length", "second", "third"), [(14, "Report (id)", "Repor (id) (2)"), (13, "Report (2)", "Report (3)")]
)
def test_the_id_is_in_a_name_if_there_is_room_for_it_and_a_number(length: int, second: str, third: str) -> None:
    assert list(itertools.islice(candidates("Report", "id", length=length), 3)) == ["Report", second, third]


def test_the_names_after_the_first_numbers_are_those_of_earlier_releases() -> None:
    """Another name would be another series."""
    names = list(itertools.islice(candidates("Report", "id", length=40), 25))
    assert names[20:] == [
        "Report (id) (20)",
        "Report (id) (21)",
        "Report (ee19384b32f2fdd9)",
        "Report (id) (22)",
        "Report (id) (23)",
    ]
    assert list(itertools.islice(candidates("Report", "id", length=5), 22))[21] == "fdd9)"


def test_there_is_always_another_name() -> None:
    names = list(itertools.islice(candidates("Report", "a-very-long-identifier", length=LENGTH), 1000))
    assert len(set(names)) == 1000
