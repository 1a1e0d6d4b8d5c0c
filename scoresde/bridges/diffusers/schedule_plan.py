"""`Plan`: the network calls of a sampler, as the list of timesteps of a pipeline needs them in advance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scoresde.bridges.replay import call_times
from scoresde.process.parameterization import Parameterization
from scoresde.sampling import NonStationary, StepSampler, Whitened

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """The steps of a run and its network calls.

    Args:
        taus: Times of the steps, falling.
        calls: OU times of the network calls of each step.
        idle: Calls at the start whose output is not used.
    """

    taus: tuple[float, ...]
    calls: tuple[tuple[float, ...], ...]
    idle: int = 0

    @classmethod
    def of(cls, sampler: StepSampler | Whitened, taus: Sequence[float], parameterization: Parameterization) -> Plan:
        """The plan of a whole run.

        A pipeline calls the network at the first state. A sampler that does not, such as `Whitened`, leaves that call
        idle.
        """
        calls = tuple(map(tuple, call_times(sampler, taus, parameterization)))
        first = next((tau for step in calls for tau in step), math.nan)
        return cls(tuple(taus), calls, 0 if first == taus[0] else 1)

    @property
    def times(self) -> list[float]:
        """OU times of all calls, in their order."""
        return [self.taus[0]] * self.idle + [tau for step in self.calls for tau in step]

    @property
    def calls_per_step(self) -> int:
        """Network calls of every step except the last, if their number is the same; else 1."""
        numbers = {len(step) for step in self.calls[:-1]} or {len(self.calls[0])}
        return max(numbers.pop(), 1) if len(numbers) == 1 and not self.idle else 1

    def from_call(self, index: int, sampler: StepSampler | Whitened, parameterization: Parameterization) -> Plan:
        """The plan of a run that begins later, with as many calls as this one has from the call ``index`` on.

        It begins with the latest step from which these calls suffice, and leaves calls that are left over idle.

        Args:
            index: Number of calls that are left out.
            sampler, parameterization: As of this plan.

        Raises:
            ValueError: If the sampler cannot begin later.
        """
        if index == 0:
            return self
        if isinstance(sampler, Whitened) or (isinstance(sampler, NonStationary) and sampler.weights):
            raise ValueError(
                f"a calibrated sampler is fitted to whole runs, but the pipeline begins at call {index} of "
                f"{len(self.times)}; use strength=1, or another sampler such as Adams()."
            )
        count = len(self.times) - index
        if not 0 < count < len(self.times):
            raise ValueError(
                f"begin_index must lie in 0 … {len(self.times) - 1}, got {index}, after which no call is left; with a "
                "strength, take one of at least 1/num_inference_steps."
            )
        before = [sum(map(len, self.calls[:j])) for j in range(len(self.calls))]
        j = max(i for i, calls in enumerate(before) if calls + self.idle <= index)
        plan = Plan.of(sampler, self.taus[j:], parameterization)
        # one that starts with further calls takes fewer steps
        while len(plan.times) > count:
            j += 1
            if j == len(self.calls):
                raise ValueError(f"begin_index must be that of a step's first call, got {index}; see Scheduler.order.")
            plan = Plan.of(sampler, self.taus[j:], parameterization)
        while j > 0 and len(plan.times) < count:
            longer = Plan.of(sampler, self.taus[j - 1 :], parameterization)
            if len(longer.times) > count:
                break
            j, plan = j - 1, longer
        return Plan(plan.taus, plan.calls, plan.idle + count - len(plan.times))
