"""What is broken just now: outages, slow steps, stalls. When they come and go is the engine's to say."""

import dataclasses

from exporter.simulator import scenario
from exporter.simulator.run import Run


class Faults:
    """The faults that are in force."""

    def __init__(self) -> None:
        self._outages: list[scenario.Outage] = []
        self._slow: list[scenario.Slow] = []
        self._stalls: list[_Stall] = []

    def strike(self, incident: scenario.Outage | scenario.Slow | scenario.Stall) -> None:
        """Let a fault come into force."""
        match incident:
            case scenario.Outage():
                self._outages.append(incident)
            case scenario.Slow():
                self._slow.append(incident)
            case scenario.Stall():
                self._stalls.append(_Stall(incident))

    def heal(self, incident: scenario.Outage | scenario.Slow | scenario.Stall) -> None:
        """Let it go."""
        match incident:
            case scenario.Outage():
                self._outages.remove(incident)
            case scenario.Slow():
                self._slow.remove(incident)
            case scenario.Stall():
                self._stalls = [stall for stall in self._stalls if stall.incident is not incident]

    def hangs(self, run: Run, step: scenario.Step) -> bool:
        """Whether a record of the run that comes to the step hangs there."""
        return any(stall.holds(run, step) for stall in self._stalls)

    def error_code(self, step: scenario.Step, draw: float) -> str | None:
        """Return the error in which an attempt at the step ends, if a provider is out."""
        for outage in self._outages:
            if outage.step_type == step.type and draw < outage.share:
                return outage.code
        return None

    def slowness(self, run: Run, step: scenario.Step) -> float:
        """Return how many times as long as usual an attempt at the step takes."""
        factor = 1.0
        for slow in self._slow:
            if slow.spinner == run.spinner.name and slow.step == step.name:
                factor *= slow.factor
        return factor


@dataclasses.dataclass(slots=True)
class _Stall:
    """A stall takes hold of the first runs that come to its step, and of no others later."""

    incident: scenario.Stall
    run_ids: set[str] = dataclasses.field(default_factory=set)

    def holds(self, run: Run, step: scenario.Step) -> bool:
        if run.spinner.name != self.incident.spinner or self.incident.step not in (None, step.name):
            return False
        if run.id not in self.run_ids and len(self.run_ids) < self.incident.runs:
            self.run_ids.add(run.id)
        return run.id in self.run_ids
