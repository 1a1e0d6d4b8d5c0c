r"""Grids evenly spaced in one coordinate f: $f(\tau_i) = f(\tau_0) + (f(\tau_{min}) - f(\tau_0))\,i/n$."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scoresde._core import elementwise as ew
from scoresde._core.checks import check_positive
from scoresde.process import ou
from scoresde.process.sde import SDE
from scoresde.sampling.grid.base import Grid

__all__ = ["DenseEnds", "Karras", "PowerU", "UniformAngle", "UniformLogSNR", "UniformTau", "UniformU"]

_TABLE_SIZE, _NEWTON_STEPS = 33, 4


def _evenly_spaced(
    coordinate: Callable[[float], float], inverse: Callable[[float], float], start: float, end: float, steps: int
) -> list[float]:
    """Times evenly spaced in ``coordinate(tau)``; ``start`` and ``end`` themselves are exact."""
    a, b = coordinate(start), coordinate(end)
    return [start, *(inverse(a + (b - a) * i / steps) for i in range(1, steps)), end]


def _check_signal(grid: Grid, steps: int, start: float) -> None:
    if steps > 1 and start == math.inf:
        raise ValueError(
            f"{grid} needs a start with some signal left, got tau = inf; use a clipped clock, start=, or "
            "UniformAngle()."
        )


@dataclass(frozen=True)
class UniformU(Grid):
    """Even in the clock's u, from the start down to ``tau_min``."""

    def knots(self, sde: SDE, steps: int, start: float) -> list[float]:
        clock = sde.schedule
        return _evenly_spaced(lambda v: float(clock.u(v)), lambda v: float(clock.tau(v)), start, sde.tau_min, steps)


@dataclass(frozen=True)
class UniformTau(Grid):
    """Even in OU time, from the start down to ``tau_min``."""

    def knots(self, sde: SDE, steps: int, start: float) -> list[float]:
        return _evenly_spaced(float, float, start, sde.tau_min, steps)


@dataclass(frozen=True)
class UniformLogSNR(Grid):
    """Even in log-SNR, from the start down to ``tau_min``; needs a start with some signal left."""

    def knots(self, sde: SDE, steps: int, start: float) -> list[float]:
        _check_signal(self, steps, start)
        return _evenly_spaced(
            lambda v: float(ou.log_snr(v)), lambda v: float(ou.tau_from_log_snr(v)), start, sde.tau_min, steps
        )


@dataclass(frozen=True)
class UniformAngle(Grid):
    """Even in the angle φ = atan(σ/α), from the start down to ``tau_min``."""

    def knots(self, sde: SDE, steps: int, start: float) -> list[float]:
        return _evenly_spaced(
            lambda v: float(ou.angle(v)), lambda v: float(ou.tau_from_angle(v)), start, sde.tau_min, steps
        )


@dataclass(frozen=True)
class DenseEnds(Grid):
    r"""Even in $\phi^{1/power} - noise\_weight\,\log(\pi/2 + noise\_offset - \phi)$, φ = atan(σ/α).

    The default of the multistep samplers. Steps are short near the data, as on `Karras`. They are short again near pure
    noise, where the large-scale features of a sample are decided: an error there leads to another mode. The grid does
    not use the clock, depends little on ``tau_min``, and allows a start at τ = ∞. The three numbers were chosen on two
    exact models (``tests/benchmarks/samplers.py``).

    Args:
        power: Power of φ near the data; above 0.
        noise_weight: Weight of the logarithm, which shortens the steps near pure noise; 0 or above.
        noise_offset: Distance of the logarithm's pole beyond pure noise (φ = π/2), radians; above 0.

    Raises:
        ValueError: If a number is out of its range.
    """

    power: float = 3.0
    noise_weight: float = 0.115
    noise_offset: float = 0.05

    def __post_init__(self) -> None:
        check_positive(power=self.power, noise_offset=self.noise_offset)
        if not 0 <= self.noise_weight < math.inf:
            raise ValueError(f"noise_weight must be 0 or positive and finite, got {self.noise_weight!r}.")

    def knots(self, sde: SDE, steps: int, start: float) -> list[float]:
        """Evenly spaced values of the coordinate, inverted by Newton's method from a table."""
        low, high, exponent = ou.angle(sde.tau_min), ou.angle(start), 1.0 / self.power
        pole = 0.5 * math.pi + self.noise_offset
        # even in both terms of the coordinate, so that every target has a table entry near it; the ends are exact
        near_data = np.linspace(low**exponent, high**exponent, _TABLE_SIZE) ** self.power
        near_noise = pole - np.exp(np.linspace(math.log(pole - low), math.log(pole - high), _TABLE_SIZE))
        table = np.sort(np.concatenate([near_data, near_noise.clip(low, high)]))
        values = self._coordinate(table)
        targets = values[-1] + (values[0] - values[-1]) * np.arange(1, steps) / steps
        phi = np.interp(targets, values, table)
        for _ in range(_NEWTON_STEPS):
            slope = exponent * phi ** (exponent - 1.0) + self.noise_weight / (pole - phi)
            phi = phi - (self._coordinate(phi) - targets) / slope
        return [start, *map(ou.tau_from_angle, phi.tolist()), sde.tau_min]

    def _coordinate(self, phi: np.ndarray) -> np.ndarray:
        return phi ** (1.0 / self.power) - self.noise_weight * np.log(0.5 * math.pi + self.noise_offset - phi)


@dataclass(frozen=True)
class PowerU(Grid):
    r"""Even in $u^{1/power}$, from the start down to ``tau_min``: the nearer to the data, the shorter the steps.

    Args:
        power: 2 is the quadratic grid, 1 is `UniformU`; above 0.

    Raises:
        ValueError: If ``power`` is not positive and finite.

    Source: Song, Meng & Ermon 2021, appendix D.2 (quadratic); Zhang & Chen 2023 (DEIS), appendix H.3, "power in t".
    """

    power: float = 2.0

    def __post_init__(self) -> None:
        check_positive(power=self.power)

    def knots(self, sde: SDE, steps: int, start: float) -> list[float]:
        clock, power = sde.schedule, self.power
        return _evenly_spaced(
            lambda v: float(clock.u(v)) ** (1.0 / power),
            lambda v: float(clock.tau(min(v**power, 1.0))),
            start,
            sde.tau_min,
            steps,
        )


@dataclass(frozen=True)
class Karras(Grid):
    r"""Even in $(\sigma/\alpha)^{1/\rho}$, from the start down to ``tau_min``; needs a start with some signal left.

    Args:
        rho: ρ, above 0; 1 is even in σ/α, and the limit ρ → ∞ is `UniformLogSNR`.

    Raises:
        ValueError: If ``rho`` is not positive and finite.

    Source: Karras et al. 2022, eq. 5, whose σ is our σ/α; DEIS's "power in ρ".
    """

    rho: float = 7.0

    def __post_init__(self) -> None:
        check_positive(rho=self.rho)

    def knots(self, sde: SDE, steps: int, start: float) -> list[float]:
        _check_signal(self, steps, start)
        rho = 2.0 * self.rho  # log-SNR is the logarithm of a ratio of squares
        return _evenly_spaced(
            lambda v: ew.exp(-ou.log_snr(v) / rho),
            lambda v: ou.tau_from_log_snr(-rho * ew.log(v)),
            start,
            sde.tau_min,
            steps,
        )
