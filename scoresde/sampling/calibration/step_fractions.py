r"""In which variable do times move freely? In the logarithms of the steps' shares of the range of $\sqrt\phi$."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.process import ou

__all__ = ["StepFractions"]


@dataclass(frozen=True)
class StepFractions:
    r"""Times by their places $\sqrt\phi$, from that of ``first`` down to ``low``; places by the steps' shares.

    ``theta``, ``(steps,)``, is the logarithm of the shares up to a constant. A walk to 0 ends there, but its knots stay
    above ``tau_min``: below it no network is asked.

    Attributes:
        first, last: OU times of the start and the end.
        low: Down to which place the knots go.
    """

    first: float
    last: float
    low: float

    @staticmethod
    def make(own: list[float], tau_min: float) -> StepFractions:
        """Those of a grid's ends.

        Args:
            own: The grid.
            tau_min: Of the process.
        """
        return StepFractions(own[0], own[-1], _place(own[-1] or min(tau_min, 0.5 * own[-2])))

    def time(self, place: float) -> float:
        """The time at a place."""
        return ou.tau_from_angle(place * place)

    def times(self, places: Sequence[float]) -> list[float]:
        """The times at places; the ends are kept exactly."""
        return [self.first, *(self.time(place) for place in places[1:-1]), self.last]

    def places(self, theta: Tensor) -> list[float]:
        """``steps + 1`` places, falling."""
        high = _place(self.first)
        done = torch.cumsum(torch.softmax(theta, 0), 0).tolist()
        return [high, *(high + (self.low - high) * share for share in done[:-1]), self.low]

    def theta(self, places: Sequence[float]) -> Tensor:
        """The inverse of `places`."""
        steps = [max(a - b, 1e-12) for a, b in zip(places, places[1:])]  # times near infinity share a place
        return torch.tensor(steps, dtype=torch.float64).log()

    def theta_of(self, taus: Sequence[float]) -> Tensor:
        """`theta` of times with these ends."""
        return self.theta([*map(_place, taus[:-1]), self.low])

    def slopes(self, theta: Tensor) -> Tensor:
        """Slopes of the knots' places in theta, ``(steps - 1, steps)``."""
        share = torch.softmax(theta, 0)
        done = torch.cumsum(share, 0)[:-1, None]
        before = torch.ones(len(theta), len(theta), dtype=torch.float64).tril()[:-1]
        return (self.low - _place(self.first)) * share * (before - done)

    def power(self, power: float, steps: int) -> list[float]:
        r"""Places even in $\phi^{1/power}$, ``steps + 1`` of them."""
        a, b = _place(self.first) ** (2 / power), self.low ** (2 / power)
        return [(a + (b - a) * i / steps) ** (power / 2) for i in range(steps + 1)]


def _place(tau: float) -> float:
    return math.sqrt(ou.angle(tau))
