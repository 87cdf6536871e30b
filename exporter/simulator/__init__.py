"""The embedded runtime: a separate runtime that runs scenarios and implements the HTTP contract.

It imports nothing from the rest of the exporter, so that it can disagree with it. Its modules:

    scenario    reads a scenario file (`durations` are its units)
    timeline    scenario time and its speed (`event_queue` holds the events that are due next)
    engine      runs a scenario (`workers` process a `run`, `faults` break it, `plan` limits it, `randomness` decides)
    run_index   the runs in the orders of the API's lists (`ledger` keeps the results of all ended runs)
    api         the HTTP API of openapi.yaml (`middleware` checks requests, `query` reads parameters, `cursor` pages
                lists, `wire` writes JSON)
"""

from exporter.simulator.api import create_app
from exporter.simulator.engine import Engine, Heartbeat, UnknownSpinnerError
from exporter.simulator.ledger import EndedRun
from exporter.simulator.plan import PlanLimitError
from exporter.simulator.scenario import Scenario, ScenarioError, load_scenario, shipped_scenarios
from exporter.simulator.timeline import ManualTimeline, RealTimeline, Timeline

__all__ = [
    "EndedRun",
    "Engine",
    "Heartbeat",
    "ManualTimeline",
    "PlanLimitError",
    "RealTimeline",
    "Scenario",
    "ScenarioError",
    "Timeline",
    "UnknownSpinnerError",
    "create_app",
    "load_scenario",
    "shipped_scenarios",
]
