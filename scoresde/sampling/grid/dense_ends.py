r"""The default grid: steps that are short near the data and short again near pure noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from scoresde._core.checks import check_integer, check_positive
from scoresde._core.elementwise import Scalar
from scoresde.model import Model
from scoresde.process import ou
from scoresde.process.base import Process
from scoresde.sampling.grid.base import Grid

__all__ = ["DenseEnds"]

_Row = TypeVar("_Row")
_TABLE_SIZE, _NEWTON_STEPS = 33, 4
_MANY_VALUES = 256
_FIRST_SIGNAL, _FOLLOWED_FROM, _LEAST_OFFSET = 5.1, 40, 0.16

# from this number of steps on: power, noise_weight, noise_offset
_SETTINGS = {
    1: (2.2, 0.22, 0.13),
    12: (6.0, 0.14, 0.05),
    18: (4.0, 0.13, 0.035),
    40: (3.5, 0.13, 0.022),
}
_SETTINGS_FOR_NOISE_ESTIMATES = {
    1: (50.0, 0.06, 0.006),
    6: (50.0, 0.03, 0.001),
    18: (70.0, 0.025, 0.001),
    40: (30.0, 0.04, 0.0015),
}
# from this number of steps on: d0 and exponent of m = (d/d0)^exponent, least and largest d that count
_UNITS = {1: (105, 0.125, 16, 64), 6: (64, 0.25, 16, 16384), 12: (64, 0.125, 64, 16384)}


@dataclass(frozen=True)
class DenseEnds(Grid):
    r"""Even in $\phi^{1/power} - noise\_weight\,\log(\pi/2 + noise\_offset - \phi)$, φ = atan(σ/α).

    The default of the multistep samplers. Steps are short near the data, as on `Karras`. They are short again near pure
    noise, where the large-scale features of a sample are decided: an error there leads to another mode. The grid does
    not use the clock, depends little on ``tau_min``, and allows a start at τ = ∞.

    Numbers that are None depend on the number of steps and on what the network estimates. For a noise estimate, whose
    error varies over about one unit of log-SNR, the grid is nearly even in log-SNR and about 1.5 times as dense near
    noise as near the data. The numbers were chosen on two exact models (``tests/benchmarks/samplers.py``) and on the
    networks of ``CHOSEN_ON`` (``tests/benchmarks/networks.py``).

    A noise estimate at a log-SNR below -10.2 (τ > 5.1) carries hardly any information on the data, and its error is
    above 160 times as large in x₀. With fewer than 40 steps there is one step to there, in which `Adams` does not use
    the prediction and leaves x as it is. From 40 steps on the grid is nearly even in log-SNR from the start.

    σ/α is measured in units of m, which grows with the number d of values of an event, because modes of d values
    separate at a noise that grows with d. $m = (d/64)^{1/8}$, with d between 64 and 16384; from 6 to 11 steps
    $m = (d/64)^{1/4}$, with d from 16 on; up to 5 steps $m = (d/105)^{1/8}$, with d between 16 and 64, but events of
    256 values or more have the settings of 6 steps there. Not so for a noise estimate, nor if a number is given.

    Args:
        power: Power of φ near the data; above 0.
        noise_weight: Weight of the logarithm, which shortens the steps near pure noise; 0 or above.
        noise_offset: Distance of the logarithm's pole beyond pure noise (φ = π/2), radians; above 0.
        noise_estimate: Whether the network estimates noise or a score. None: `sample` sets what the model states
            (`Model.amplifies_at_noise`); elsewhere it means False.
        dimension: Number of values of an event. None: `sample` sets the model's; elsewhere m is 1.

    Raises:
        ValueError: If a number is out of its range.

    Source: Hoogeboom et al. 2023 and Esser et al. 2024, for the growth of the decisive noise with the resolution. Their
    exponents for d are 1/2; here those of the table were best between 2 and 784 values.
    """

    power: float | None = None
    noise_weight: float | None = None
    noise_offset: float | None = None
    noise_estimate: bool | None = None
    dimension: int | None = None

    def __post_init__(self) -> None:
        given = {"power": self.power, "noise_offset": self.noise_offset}
        check_positive(**{name: value for name, value in given.items() if value is not None})
        if self.noise_weight is not None and not 0 <= self.noise_weight < math.inf:
            raise ValueError(f"noise_weight must be 0 or positive and finite, got {self.noise_weight!r}.")
        if self.dimension is not None:
            check_integer("dimension", self.dimension)

    def for_model(self, model: Model) -> DenseEnds:
        if self.noise_estimate is None and model.amplifies_at_noise():
            return replace(self, noise_estimate=True)
        if self.dimension is None and self._adapts_to_dimension and model.event_shape is not None:
            return replace(self, dimension=math.prod(model.event_shape))
        return self

    def knots(self, sde: Process, steps: int, start: float) -> list[float]:
        """Evenly spaced values of the coordinate, inverted by Newton's method from a table."""
        if self.skips(start, steps):
            return [start, *self.knots(sde, steps - 1, _FIRST_SIGNAL)]
        power, weight, offset = self._numbers(steps)
        if self.noise_estimate and start > _FIRST_SIGNAL and self.noise_offset is None:
            offset = min(offset, max(_LEAST_OFFSET * (0.5 * math.pi - ou.angle(start)), 1e-9))
        unit = self._unit(steps)
        low, high, exponent = _in_units(ou.angle(sde.tau_min), unit), _in_units(ou.angle(start), unit), 1.0 / power
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
        return [start, *(ou.tau_from_angle(_in_units(angle, 1.0 / unit)) for angle in phi.tolist()), sde.tau_min]

    @property
    def _adapts_to_dimension(self) -> bool:
        given = (self.power, self.noise_weight, self.noise_offset)
        return given == (None, None, None) and not self.noise_estimate

    def settings_steps(self, steps: int) -> int:
        """The number of steps whose settings hold for ``steps`` steps: at least 6 for events of many values."""
        many = self.dimension is not None and self.dimension >= _MANY_VALUES
        return max(steps, 6) if many and self._adapts_to_dimension else steps

    def skips(self, tau: Scalar, steps: int) -> bool:
        """Whether the step from ``tau`` treats the data as standard normal, where a noise estimate has no signal."""
        return bool(self.noise_estimate and 1 < steps < _FOLLOWED_FROM and tau > _FIRST_SIGNAL)

    def _unit(self, steps: int) -> float:
        """m, the unit of σ/α."""
        if self.dimension is None or not self._adapts_to_dimension:
            return 1.0
        unshifted, exponent, least, most = _row(_UNITS, self.settings_steps(steps))
        return (min(max(self.dimension, least), most) / unshifted) ** exponent

    def _numbers(self, steps: int) -> tuple[float, float, float]:
        """Power, weight and offset for a number of steps."""
        table = _SETTINGS_FOR_NOISE_ESTIMATES if self.noise_estimate else _SETTINGS
        power, weight, offset = _row(table, self.settings_steps(steps))
        return (
            power if self.power is None else self.power,
            weight if self.noise_weight is None else self.noise_weight,
            offset if self.noise_offset is None else self.noise_offset,
        )


def _in_units(angle: float, unit: float) -> float:
    """The angle whose tangent is 1/unit times as large, between 0 and π/2."""
    return math.atan2(math.sin(angle), unit * math.cos(angle))


def _row(table: Mapping[int, _Row], steps: int) -> _Row:
    return table[max(least for least in table if least <= steps)]
