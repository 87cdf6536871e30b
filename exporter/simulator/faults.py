"""The active faults: outages, slow steps and stalls. The engine starts and ends them."""

import dataclasses

from exporter.simulator import scenario
from exporter.simulator.run import Run


class Faults:
    """The active faults, and their effect on attempts."""

    def __init__(self) -> None:
        self._outages: list[scenario.Outage] = []
        self._slow: list[scenario.Slow] = []
        self._stalls: list[_Stall] = []

    def start(self, incident: scenario.Outage | scenario.Slow | scenario.Stall) -> None:
        """Start a fault."""
        match incident:
            case scenario.Outage():
                self._outages.append(incident)
            case scenario.Slow():
                self._slow.append(incident)
            case scenario.Stall():
                self._stalls.append(_Stall(incident))

    def end(self, incident: scenario.Outage | scenario.Slow | scenario.Stall) -> None:
        """End a fault."""
        match incident:
            case scenario.Outage():
                self._outages.remove(incident)
            case scenario.Slow():
                self._slow.remove(incident)
            case scenario.Stall():
                self._stalls = [stall for stall in self._stalls if stall.incident is not incident]

    def stall(self, run: Run, step: scenario.Step) -> scenario.Stall | None:
        """Return the stall that makes a record of the run hang at the step; None without one."""
        return next((stall.incident for stall in self._stalls if stall.affects(run, step)), None)

    def error_code(self, step: scenario.Step, draw: float) -> str | None:
        """Return the error code of an attempt at the step during an outage, or None. `draw` is a random number."""
        for outage in self._outages:
            if outage.step_type == step.type and draw < outage.share:
                return outage.code
        return None

    def latency_factor(self, run: Run, step: scenario.Step) -> float:
        """Return the factor by which an attempt at the step takes longer than usual."""
        factor = 1.0
        for slow in self._slow:
            if slow.spinner == run.spinner.name and slow.step == step.name:
                factor *= slow.factor
        return factor


@dataclasses.dataclass(slots=True)
class _Stall:
    """A stall, which affects only the first runs that reach its step."""

    incident: scenario.Stall
    run_ids: set[str] = dataclasses.field(default_factory=set)

    def affects(self, run: Run, step: scenario.Step) -> bool:
        if run.spinner.name != self.incident.spinner or self.incident.step not in (None, step.name):
            return False
        if run.id not in self.run_ids and len(self.run_ids) < self.incident.runs:
            self.run_ids.add(run.id)
        return run.id in self.run_ids
