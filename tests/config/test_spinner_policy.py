"""What a config says about one spinner: its own entries before the defaults of all."""

import re
import weakref
from typing import Any

import pytest

from exporter.config.schema import CACHED_POLICIES
from tests.builders import config_with


def test_without_an_entry_the_stalls_section_holds() -> None:
    policy = config_with(stalls={"floor": 300.0, "ceiling": 900.0}).spinner_policy("Sales", "welcome")
    assert (policy.stall_floor, policy.stall_ceiling, policy.expected_interval) == (300.0, 900.0, None)


def test_an_entry_holds_for_the_spinners_it_matches() -> None:
    entry = {"project": re.compile("Sales"), "spinner": re.compile("welcome.*"), "expected_interval": 60.0}
    config = config_with(spinners=[entry])
    assert config.spinner_policy("Sales", "welcome back").expected_interval == 60.0
    assert config.spinner_policy("Sales", "goodbye").expected_interval is None
    assert config.spinner_policy("Sales test", "welcome").expected_interval is None


def test_the_first_matching_entry_that_sets_a_key_counts_key_by_key() -> None:
    config = config_with(
        spinners=[
            {"spinner": re.compile("other"), "stall_floor": 1.0, "stall_ceiling": 1.0, "expected_interval": 1.0},
            {"spinner": re.compile("welcome"), "stall_floor": 60.0},
            {"stall_floor": 120.0, "stall_ceiling": 7200.0},
            {"stall_ceiling": 9999.0, "expected_interval": 86400.0},
        ]
    )
    policy = config.spinner_policy("Sales", "welcome")
    assert (policy.stall_floor, policy.stall_ceiling, policy.expected_interval) == (60.0, 7200.0, 86400.0)


@pytest.mark.parametrize(
    "entries", [[{"stall_floor": 90000.0}], [{"stall_floor": 90000.0}, {"stall_ceiling": 60.0}]], ids=len
)
def test_the_ceiling_is_at_least_the_floor(entries: list[dict[str, float]]) -> None:
    policy = config_with(spinners=entries).spinner_policy("Sales", "welcome")
    assert policy.stall_floor == policy.stall_ceiling == 90000.0


def test_policies_are_cached_and_the_cache_goes_with_its_config() -> None:
    config = config_with()
    assert config.spinner_policy("Sales", "welcome") is config.spinner_policy("Sales", "welcome")
    cache = weakref.ref(config._spinner_policies)
    del config
    assert cache() is None, "every reload would leave one behind"


def test_the_cache_of_policies_is_limited() -> None:
    config = config_with()
    for number in range(CACHED_POLICIES + 1):
        config.spinner_policy("Sales", f"made up {number}")
    cached: Any = config._spinner_policies
    assert cached.cache_info().currsize == CACHED_POLICIES


def test_the_cache_of_expectations_is_limited() -> None:
    config = config_with()
    for number in range(CACHED_POLICIES + 1):
        assert config.expected_spinners(f"made up {number}") == ()
    cached: Any = config._expectations
    assert cached.cache_info().currsize == CACHED_POLICIES


def test_false_pages_are_those_of_a_hundred_hours() -> None:
    policy = config_with(stalls={"false_pages": 0.72}).spinner_policy("Sales", "welcome")
    assert policy.false_page_rate * 100 * 3600 == pytest.approx(0.72)


def test_the_least_floor_is_that_of_any_spinner() -> None:
    stalls = {"floor": 300.0, "ceiling": 900.0}
    assert config_with(stalls=stalls).least_stall_floor == 300.0
    entries = [{"expected_interval": 5.0}, {"stall_floor": 60.0}, {"stall_floor": 400.0}]
    assert config_with(stalls=stalls, spinners=entries).least_stall_floor == 60.0
