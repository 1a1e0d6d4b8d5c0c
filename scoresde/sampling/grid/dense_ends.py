r"""The default grid: steps that are short near the data and short again near pure noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from scoresde._core.checks import check_positive
from scoresde.model import Model
from scoresde.process import ou
from scoresde.process.sde import SDE
from scoresde.sampling.grid.base import Grid

__all__ = ["DenseEnds"]

_TABLE_SIZE, _NEWTON_STEPS = 33, 4

# from this number of steps on: power, noise_weight, noise_offset
_SETTINGS = {
    1: (2.2, 0.22, 0.13),
    12: (3.5, 0.15, 0.03),
    18: (3.3, 0.14, 0.04),
    40: (3.5, 0.13, 0.022),
}
_SETTINGS_FOR_NOISE_ESTIMATES = {1: (2.0, 0.15, 0.02), 12: (8.0, 0.1, 0.004), 18: (20.0, 0.05, 0.002)}


@dataclass(frozen=True)
class DenseEnds(Grid):
    r"""Even in $\phi^{1/power} - noise\_weight\,\log(\pi/2 + noise\_offset - \phi)$, φ = atan(σ/α).

    The default of the multistep samplers. Steps are short near the data, as on `Karras`. They are short again near pure
    noise, where the large-scale features of a sample are decided: an error there leads to another mode. The grid does
    not use the clock, depends little on ``tau_min``, and allows a start at τ = ∞.

    Numbers that are None depend on the number of steps and on what the network estimates. A noise estimate has an error
    that is $1/\alpha$ times as large in v and that varies over about one unit of log-SNR. It can be followed from about
    12 steps on, on a grid that is nearly even in log-SNR. The numbers were chosen on two exact models
    (``tests/benchmarks/samplers.py``) and on the networks of ``CHOSEN_ON`` (``tests/benchmarks/networks.py``).

    Args:
        power: Power of φ near the data; above 0.
        noise_weight: Weight of the logarithm, which shortens the steps near pure noise; 0 or above.
        noise_offset: Distance of the logarithm's pole beyond pure noise (φ = π/2), radians; above 0.
        noise_estimate: Whether the network estimates noise or a score. None: `sample` sets what the model states
            (`Model.amplifies_at_noise`); elsewhere it means False.

    Raises:
        ValueError: If a number is out of its range.
    """

    power: float | None = None
    noise_weight: float | None = None
    noise_offset: float | None = None
    noise_estimate: bool | None = None

    def __post_init__(self) -> None:
        given = {"power": self.power, "noise_offset": self.noise_offset}
        check_positive(**{name: value for name, value in given.items() if value is not None})
        if self.noise_weight is not None and not 0 <= self.noise_weight < math.inf:
            raise ValueError(f"noise_weight must be 0 or positive and finite, got {self.noise_weight!r}.")

    def for_model(self, model: Model) -> DenseEnds:
        if self.noise_estimate is None and model.amplifies_at_noise():
            return replace(self, noise_estimate=True)
        return self

    def knots(self, sde: SDE, steps: int, start: float) -> list[float]:
        """Evenly spaced values of the coordinate, inverted by Newton's method from a table."""
        power, weight, offset = self._numbers(steps)
        low, high, exponent = ou.angle(sde.tau_min), ou.angle(start), 1.0 / power
        pole = 0.5 * math.pi + offset

        def coordinate(phi: np.ndarray) -> np.ndarray:
            return phi**exponent - weight * np.log(pole - phi)

        # even in both terms of the coordinate, so that every target has a table entry near it; the ends are exact
        near_data = np.linspace(low**exponent, high**exponent, _TABLE_SIZE) ** power
        near_noise = pole - np.exp(np.linspace(math.log(pole - low), math.log(pole - high), _TABLE_SIZE))
        table = np.sort(np.concatenate([near_data, near_noise.clip(low, high)]))
        values = coordinate(table)
        targets = values[-1] + (values[0] - values[-1]) * np.arange(1, steps) / steps
        phi = np.interp(targets, values, table)
        for _ in range(_NEWTON_STEPS):
            slope = exponent * phi ** (exponent - 1.0) + weight / (pole - phi)
            phi = phi - (coordinate(phi) - targets) / slope
        return [start, *map(ou.tau_from_angle, phi.tolist()), sde.tau_min]

    def _numbers(self, steps: int) -> tuple[float, float, float]:
        """Power, weight and offset for a number of steps."""
        table = _SETTINGS_FOR_NOISE_ESTIMATES if self.noise_estimate else _SETTINGS
        power, weight, offset = table[max(least for least in table if least <= steps)]
        return (
            power if self.power is None else self.power,
            weight if self.noise_weight is None else self.noise_weight,
            offset if self.noise_offset is None else self.noise_offset,
        )
