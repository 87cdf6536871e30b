"""Settings of every test, and which tests `make quick`, `make test` and `make test-all` run.

make quick      neither `faults` nor `programs` nor `servers` nor `slow`
make test       neither `faults` nor `servers` nor `slow`
make test-all   every test, except with the servers that take long to start, such as Airflow

`make test-servers` runs those with real servers, tests/servers.
"""

import os
from collections.abc import Iterator

import pytest
import structlog
import trustme
from hypothesis import settings

from exporter.config import ENVIRONMENT_PREFIX
from tests.stack import programs

# A deadline on each example measures how busy the machine is, not the code.
settings.register_profile("default", deadline=None)
settings.load_profile("default")

MARKS = {
    # What an API, a client, a clock or a terminal can do wrong, with real connections and processes.
    "faults": (
        "tests/demo/",
        "tests/faults/",
        "tests/stalls/test_corpus.py",
        "tests/sync/test_clock_properties.py",
        "tests/test_output.py",
    ),
    # Start Prometheus, Alertmanager, promtool or amtool.
    "programs": (
        "tests/alerts/test_activity.py",
        "tests/alerts/test_rules.py::test_promtool_",
        "tests/alerts/test_rules.py::test_each_severity_is_routed_to_its_receiver",
        "tests/alerts/test_rules.py::test_amtool_",
        "tests/dashboards/test_blind.py",
        "tests/dashboards/test_freshness.py",
        "tests/dashboards/test_numbers.py",
        "tests/dashboards/test_order.py",
        "tests/dashboards/test_queries.py",
        "tests/dashboards/test_runs.py",
        "tests/dashboards/test_variables.py::test_a_name_selects_",
        "tests/demo/test_speed.py::test_promtool_",
        "tests/scaling/test_helm.py::test_promtool_accepts_the_rendered_rules",
        "tests/scaling/test_helm.py::test_promtool_accepts_the_scrape_config_and_its_replicas_exist",
        "tests/scaling/test_lost_exporters.py",
        "tests/scaling/test_pair.py",
        "tests/scaling/test_remote_write.py",
        "tests/scaling/test_shards.py",
        "tests/stack/test_alertmanager.py",
        "tests/stack/test_messages.py",
        "tests/stack/test_prometheus.py",
        "tests/stack/test_scenarios.py::test_a_scenario_ends_",
        "tests/stalls/test_real_prometheus.py",
        "tests/test_deploy.py::test_prometheus_",
        "tests/test_deploy.py::test_alertmanager_",
        "tests/test_deploy.py::test_systemd_",
        "tests/unknown/",
        "tests/web/test_access.py::test_a_real_prometheus_",
    ),
    # Need what only `make test-all` and `make test-servers` install: Prefect, Dagster, Airflow, Helm, cosmic-ray or
    # Grafana's libraries.
    "servers": (
        "tests/dashboards/test_variables.py",
        "tests/mutants/test_equivalents.py",
        "tests/mutants/test_mutations.py",
        "tests/servers/",
        "tests/scaling/test_helm",
    ),
    # Play scenarios in real time, or take more than five seconds of processor time.
    "slow": (
        "tests/alerts/test_activity.py",
        "tests/alerts/test_rules.py::test_promtool_passes_the_rule_tests[days.yml]",
        "tests/alerts/test_rules.py::test_promtool_passes_the_rule_tests[lost-for-days.yml]",
        "tests/alerts/test_rules.py::test_promtool_passes_the_rule_tests[lost.yml]",
        "tests/alerts/test_rules.py::test_promtool_passes_the_rule_tests[recording.yml]",
        "tests/alerts/test_rules.py::test_promtool_passes_the_rule_tests[spinners.yml]",
        "tests/alerts/test_rules.py::test_promtool_passes_the_rule_tests[unknown.yml]",
        "tests/dashboards/test_numbers.py::test_numbers_are_those_of_the_api[plan-limit]",
        "tests/dashboards/test_numbers.py::test_numbers_are_those_of_the_api[stalled]",
        "tests/faults/test_hostile.py::test_a_response_that_cannot_be_decoded_costs_what_it_is_for",
        "tests/faults/test_kills.py",
        "tests/faults/test_memory.py",
        "tests/faults/test_one_off_spinners.py::test_4000_one_off_spinners_",
        "tests/faults/test_one_off_spinners.py::test_500_new_names_in_each_scrape_",
        "tests/faults/test_one_off_spinners.py::test_among_new_names_",
        "tests/faults/test_records_in_flight.py::test_what_it_costs_",
        "tests/faults/test_strangers.py::test_clients_that_never_read_hold_",
        "tests/faults/test_waiting_records.py::test_what_it_costs_",
        "tests/scaling/test_lost_exporters.py",
        "tests/scaling/test_pair.py",
        "tests/scaling/test_remote_write.py",
        "tests/scaling/test_shards.py",
        "tests/soak/",
        "tests/stack/test_scenarios.py::test_a_scenario_ends_",
        "tests/stalls/test_real_prometheus.py",
        "tests/unknown/test_alerts.py",
        "tests/unknown/test_matrix.py::test_what_is_seen_when",
        "tests/unknown/test_matrix.py::test_a_run_that_stalls_pages_although",
    ),
}
"""The marks of tests, by the beginning of their ids. A test that starts a program without its mark fails."""

CALLERS_VARIABLES = {
    *("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("COLUMNS", "FORCE_COLOR", "NO_COLOR"),
    *("MAKEFILES", "MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS"),
}
"""Environment variables, in upper case, that are removed before the first test."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark, prefixes in MARKS.items():
            if item.nodeid.startswith(prefixes):
                item.add_marker(mark)


@pytest.fixture(scope="session", autouse=True)
def few_authorities(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Trust one authority instead of the system's hundred, which takes 18 ms for each exporter and HTTP client."""
    file = tmp_path_factory.mktemp("authorities") / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(file))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(file))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_settings_of_the_caller() -> Iterator[None]:
    """Remove what commands in this process and programs would obey: the tests say what they are given.

    An exporter's settings, a proxy, colors and the width of a terminal, and the flags of the make that runs the tests.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(ENVIRONMENT_PREFIX) or name.upper() in CALLERS_VARIABLES:
                patch.delenv(name)
        yield


@pytest.fixture(autouse=True)
def logs_are_configured_as_before() -> Iterator[None]:
    """A command that runs in a test configures the logs of the whole process: later tests would see no line."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def pytest_runtest_setup(item: pytest.Item) -> None:
    programs.allowed = {mark for mark in MARKS if item.get_closest_marker(mark)}


@pytest.fixture(params=[False, True], ids=["one list per project", "one list of all projects"])
def each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run a test with scripted runtimes without and with a list of all projects, which is read for any number of them.

    Returns whether they have it.
    """
    monkeypatch.setattr("tests.scripted.ScriptedRuntime.lists_all_projects", request.param)
    if request.param:
        monkeypatch.setattr("exporter.sync.common_sync.LEAST_PROJECTS", 1)
        monkeypatch.setattr("exporter.sync.common_sync.FEW", 0)
        # It reads a project's own list as well.
        monkeypatch.setattr("exporter.sync.common_sync.CommonSync.to_check", lambda self, reads: [])
    return bool(request.param)
