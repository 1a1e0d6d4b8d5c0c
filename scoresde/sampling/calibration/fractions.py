r"""Grids with fixed ends, parameterized by the fractions that the steps take of the range of $\sqrt\phi$.

φ is the angle. The fractions are the softmax of unconstrained logits, so every vector of logits is a decreasing grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scoresde.process import ou

__all__ = ["StepFractions"]

_TABLE_SIZE, _LEAST_LOG_SNR = 400, -12.0


@dataclass(frozen=True)
class StepFractions:
    r"""Grids with fixed ends, by positions $\sqrt\phi$ of their times, or by logits of the steps' fractions.

    A grid of n steps has n + 1 decreasing positions and n logits, which are determined up to a constant. If the last
    time is 0 it stays 0, but the position of the end, and so all interior times, stay above ``tau_min``: the network is
    not called below it.

    Attributes:
        first, last: OU times of the start and the end.
        last_position: Position that the fractions add up to.
    """

    first: float
    last: float
    last_position: float

    @staticmethod
    def from_grid(taus: Sequence[float], tau_min: float) -> StepFractions:
        """The parameterization of grids with the ends of ``taus``.

        Args:
            taus: A decreasing grid of times.
            tau_min: The smallest time of the process at which the network is called.
        """
        return StepFractions(taus[0], taus[-1], _position(taus[-1] or min(tau_min, 0.5 * taus[-2])))

    def time(self, position: float) -> float:
        """The OU time at a position."""
        return ou.tau_from_angle(position * position)

    def times(self, positions: Sequence[float]) -> list[float]:
        """The OU times at positions; the first and the last time are exact."""
        return [self.first, *(self.time(position) for position in positions[1:-1]), self.last]

    def positions(self, logits: Tensor) -> list[float]:
        """The ``steps + 1`` decreasing positions of logits ``(steps,)``."""
        high = _position(self.first)
        cumulative = torch.cumsum(torch.softmax(logits, 0), 0).tolist()
        interior = (high + (self.last_position - high) * fraction for fraction in cumulative[:-1])
        return [high, *interior, self.last_position]

    def logits(self, positions: Sequence[float]) -> Tensor:
        """The inverse of `positions`, float64."""
        # times near infinity have the same position in float64; the bound keeps the logarithm finite
        steps = [max(a - b, 1e-12) for a, b in zip(positions, positions[1:])]
        return torch.tensor(steps, dtype=torch.float64).log()

    def of_times(self, taus: Sequence[float]) -> list[float]:
        """The positions of a grid with these ends."""
        return [*map(_position, taus[:-1]), self.last_position]

    def logits_of_times(self, taus: Sequence[float]) -> Tensor:
        """The logits of a grid with these ends."""
        return self.logits(self.of_times(taus))

    def jacobian(self, logits: Tensor) -> Tensor:
        """Derivatives of the interior positions in the logits, ``(steps - 1, steps)``."""
        fractions = torch.softmax(logits, 0)
        cumulative = torch.cumsum(fractions, 0)[:-1, None]
        included = torch.ones(len(logits), len(logits), dtype=torch.float64).tril()[:-1]
        return (self.last_position - _position(self.first)) * fractions * (included - cumulative)

    def power_positions(self, power: float, steps: int) -> list[float]:
        r"""The ``steps + 1`` positions of a grid that is uniform in $\phi^{1/power}$."""
        a, b = _position(self.first) ** (2 / power), self.last_position ** (2 / power)
        return [(a + (b - a) * i / steps) ** (power / 2) for i in range(steps + 1)]

    def log_snr_positions(self, steps: int) -> list[float]:
        """The ``steps + 1`` positions of a grid that is uniform in log-SNR; the start must have some signal."""
        low, high = (float(ou.log_snr(tau)) for tau in (self.first, self.time(self.last_position)))
        log_snr = np.linspace(low, high, steps + 1)[1:-1].tolist()
        interior = [_position(ou.tau_from_log_snr(value)) for value in log_snr]
        return [_position(self.first), *interior, self.last_position]

    def mixed_positions(self, weight: float, steps: int) -> list[float]:
        r"""The ``steps + 1`` positions of a grid that is uniform in a mixture of log-SNR and $\phi^{2/3}$.

        Log-SNR is dense near the data, where rough networks and distributions near a surface need many steps. The power
        is dense where smooth distributions need them.

        Args:
            weight: Share of log-SNR, 0 to 1; both coordinates are scaled to the same range.
            steps: Number of steps.
        """
        high, low = _position(self.first), self.last_position
        # even in both coordinates, so that each is resolved; log-SNR is infinite at pure noise and bounded there
        log_snr = np.linspace(self._log_snr(high), self._log_snr(low), _TABLE_SIZE)
        even = [_position(ou.tau_from_log_snr(float(value))) for value in log_snr]
        power = np.linspace(high ** (4 / 3), low ** (4 / 3), _TABLE_SIZE) ** 0.75
        table = np.unique(np.clip([*even, *power, high, low], low, high))[::-1]
        coordinates = [np.array([self._log_snr(position) for position in table]), -(table ** (4 / 3))]
        scaled = [(each - each[0]) / (each[-1] - each[0]) for each in coordinates]
        mixture = weight * scaled[0] + (1.0 - weight) * scaled[1]
        interior = np.interp(np.arange(1, steps) / steps, mixture, table)
        return [high, *interior.tolist(), low]

    def _log_snr(self, position: float) -> float:
        tau = self.time(position)
        return max(float(ou.log_snr(tau)), _LEAST_LOG_SNR) if math.isfinite(tau) else _LEAST_LOG_SNR


def _position(tau: float) -> float:
    return math.sqrt(ou.angle(tau))
