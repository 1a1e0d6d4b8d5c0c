r"""Grids evenly spaced in one coordinate f: $f(\tau_i) = f(\tau_0) + (f(\tau_{min}) - f(\tau_0))\,i/n$."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from scoresde._core import elementwise as ew
from scoresde._core.checks import check_positive
from scoresde.process import ou
from scoresde.process.base import Process
from scoresde.sampling.grid.base import Grid

__all__ = ["Karras", "PowerU", "UniformAngle", "UniformLogSNR", "UniformTau", "UniformU"]


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

    def knots(self, sde: Process, steps: int, start: float) -> list[float]:
        clock = sde.schedule
        return _evenly_spaced(lambda v: float(clock.u(v)), lambda v: float(clock.tau(v)), start, sde.tau_min, steps)


@dataclass(frozen=True)
class UniformTau(Grid):
    """Even in OU time, from the start down to ``tau_min``."""

    def knots(self, sde: Process, steps: int, start: float) -> list[float]:
        return _evenly_spaced(float, float, start, sde.tau_min, steps)


@dataclass(frozen=True)
class UniformLogSNR(Grid):
    """Even in log-SNR, from the start down to ``tau_min``; needs a start with some signal left."""

    def knots(self, sde: Process, steps: int, start: float) -> list[float]:
        _check_signal(self, steps, start)
        return _evenly_spaced(
            lambda v: float(ou.log_snr(v)), lambda v: float(ou.tau_from_log_snr(v)), start, sde.tau_min, steps
        )


@dataclass(frozen=True)
class UniformAngle(Grid):
    """Even in the angle φ = atan(σ/α), from the start down to ``tau_min``."""

    def knots(self, sde: Process, steps: int, start: float) -> list[float]:
        return _evenly_spaced(
            lambda v: float(ou.angle(v)), lambda v: float(ou.tau_from_angle(v)), start, sde.tau_min, steps
        )


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

    def knots(self, sde: Process, steps: int, start: float) -> list[float]:
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

    def knots(self, sde: Process, steps: int, start: float) -> list[float]:
        _check_signal(self, steps, start)
        rho = 2.0 * self.rho  # log-SNR is the logarithm of a ratio of squares
        return _evenly_spaced(
            lambda v: ew.exp(-ou.log_snr(v) / rho),
            lambda v: ou.tau_from_log_snr(-rho * ew.log(v)),
            start,
            sde.tau_min,
            steps,
        )
