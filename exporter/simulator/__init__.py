"""The embedded runtime: outside the corridor, a runtime of its own that speaks the HTTP contract.

It imports nothing from the rest of the exporter, so that it can disagree with it. Inside, from the world to its door:

    scenario    what is to happen                (file -> Scenario)
    timeline    how fast                         (story time; `agenda` is what happens next in it)
    engine      the world, and what goes wrong   (`workers` move a `run`, `faults` break it, `plan` refuses it)
    roster      the runs in the API's orders     (`ledger` is the truth about those that ended)
    api         the HTTP API                     (`wire` its JSON, `cursor` its paging; described in openapi.yaml)
"""

from exporter.simulator.api import create_app
from exporter.simulator.engine import Engine, Pulse, UnknownSpinnerError
from exporter.simulator.ledger import EndedRun
from exporter.simulator.plan import PlanLimitError
from exporter.simulator.scenario import Scenario, ScenarioError, load_scenario, shipped_scenarios
from exporter.simulator.timeline import ManualTimeline, RealTimeline, Timeline

__all__ = [
    "EndedRun",
    "Engine",
    "ManualTimeline",
    "PlanLimitError",
    "Pulse",
    "RealTimeline",
    "Scenario",
    "ScenarioError",
    "Timeline",
    "UnknownSpinnerError",
    "create_app",
    "load_scenario",
    "shipped_scenarios",
]
