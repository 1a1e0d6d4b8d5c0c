"""Which grids are even in a coordinate of their own? Those whose last time is ``tau_min``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scoresde._core import elementwise as ew
from scoresde.process import ou
from scoresde.process.schedule.base import positive
from scoresde.process.sde import SDE
from scoresde.sampling.grid.base import Grid

__all__ = ["DenseEnds", "Karras", "PowerU", "UniformAngle", "UniformLogSNR", "UniformTau", "UniformU"]

_TABLE, _NEWTON = 33, 4


def _even(
    to: Callable[[float], float], back: Callable[[float], float], start: float, end: float, steps: int
) -> list[float]:
    """Evenly spaced in ``to(tau)``; the two ends are kept exactly."""
    a, b = to(start), to(end)
    return [start, *(back(a + (b - a) * i / steps) for i in range(1, steps)), end]


def _check_signal(grid: Grid, steps: int, start: float) -> None:
    if steps > 1 and start == math.inf:
        raise ValueError(
            f"{grid} needs a start with some signal left, got tau = inf; use a clipped clock, start=, or UniformAngle()."
        )


@dataclass(frozen=True)
class UniformU(Grid):
    """Even in the clock's u, from the start down to ``tau_min``."""

    def place(self, sde: SDE, steps: int, start: float) -> list[float]:
        """See the class."""
        clock = sde.schedule
        return _even(lambda v: float(clock.u(v)), lambda v: float(clock.tau(v)), start, sde.tau_min, steps)


@dataclass(frozen=True)
class UniformTau(Grid):
    """Even in OU time, from the start down to ``tau_min``."""

    def place(self, sde: SDE, steps: int, start: float) -> list[float]:
        """See the class."""
        return _even(float, float, start, sde.tau_min, steps)


@dataclass(frozen=True)
class UniformLogSNR(Grid):
    """Even in log-SNR, from the start down to ``tau_min``; needs a start with some signal left."""

    def place(self, sde: SDE, steps: int, start: float) -> list[float]:
        """See the class."""
        _check_signal(self, steps, start)
        return _even(lambda v: float(ou.log_snr(v)), lambda v: float(ou.tau_from_log_snr(v)), start, sde.tau_min, steps)


@dataclass(frozen=True)
class UniformAngle(Grid):
    """Even in the angle φ = atan(σ/α), from the start down to ``tau_min``."""

    def place(self, sde: SDE, steps: int, start: float) -> list[float]:
        """See the class."""
        return _even(lambda v: float(ou.angle(v)), lambda v: float(ou.tau_from_angle(v)), start, sde.tau_min, steps)


@dataclass(frozen=True)
class DenseEnds(Grid):
    r"""Even in $\phi^{1/power} - pull\,\log(\pi/2 + slack - \phi)$, φ = atan(σ/α).

    The default of the multistep samplers. Steps are short near the data, as on `Karras`, and again near pure noise,
    where the large parts of the data are told apart: a path that goes wrong there ends at another mode. It asks nothing
    of the clock, hardly notices where it ends and knows τ = ∞. The three numbers were chosen on two exact models
    (``tests/benchmarks/samplers.py``).

    Args:
        power: Of φ near the data; above 0.
        pull: Weight of the end of pure noise; 0 or above.
        slack: How near to that end it pulls, radians; above 0.
    """

    power: float = 3.0
    pull: float = 0.115
    slack: float = 0.05

    def __post_init__(self) -> None:
        positive(power=self.power, slack=self.slack)
        if not 0 <= self.pull < math.inf:
            raise ValueError(f"pull must be 0 or positive and finite, got {self.pull!r}.")

    def place(self, sde: SDE, steps: int, start: float) -> list[float]:
        """See the class; the coordinate is inverted by Newton's method from a table."""
        low, high, root = ou.angle(sde.tau_min), ou.angle(start), 1.0 / self.power
        end = 0.5 * math.pi + self.slack
        # even in both parts of the coordinate, so that every place has near neighbors; the ends are met exactly
        near = np.linspace(low**root, high**root, _TABLE) ** self.power
        far = end - np.exp(np.linspace(math.log(end - low), math.log(end - high), _TABLE))
        table = np.sort(np.concatenate([near, far.clip(low, high)]))
        known = self._coordinate(table)
        wanted = known[-1] + (known[0] - known[-1]) * np.arange(1, steps) / steps
        phi = np.interp(wanted, known, table)
        for _ in range(_NEWTON):
            slope = root * phi ** (root - 1.0) + self.pull / (end - phi)
            phi = phi - (self._coordinate(phi) - wanted) / slope
        return [start, *map(ou.tau_from_angle, phi.tolist()), sde.tau_min]

    def _coordinate(self, phi: np.ndarray) -> np.ndarray:
        return phi ** (1.0 / self.power) - self.pull * np.log(0.5 * math.pi + self.slack - phi)


@dataclass(frozen=True)
class PowerU(Grid):
    r"""Even in $u^{1/power}$, from the start down to ``tau_min``: the closer to the data, the shorter the steps.

    Args:
        power: 2 is the quadratic grid, 1 is `UniformU`; above 0.

    Source: Song, Meng & Ermon 2021, appendix D.2 (quadratic); Zhang & Chen 2023 (DEIS), appendix H.3, "power in t".
    """

    power: float = 2.0

    def __post_init__(self) -> None:
        positive(power=self.power)

    def place(self, sde: SDE, steps: int, start: float) -> list[float]:
        """See the class."""
        clock, power = sde.schedule, self.power
        return _even(
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
        rho: ρ, above 0; 1 is even in σ/α, and infinity would be `UniformLogSNR`.

    Source: Karras et al. 2022, eq. 5, whose σ is our σ/α; DEIS's "power in ρ".
    """

    rho: float = 7.0

    def __post_init__(self) -> None:
        positive(rho=self.rho)

    def place(self, sde: SDE, steps: int, start: float) -> list[float]:
        """See the class."""
        _check_signal(self, steps, start)
        rho = 2.0 * self.rho  # log-SNR is that of the squares
        return _even(
            lambda v: ew.exp(-ou.log_snr(v) / rho),
            lambda v: ou.tau_from_log_snr(-rho * ew.log(v)),
            start,
            sde.tau_min,
            steps,
        )
