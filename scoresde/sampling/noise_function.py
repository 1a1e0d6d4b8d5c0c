r"""Noise functions $m(\rho)$, $\rho = \sigma/\alpha$: how much of the noise in x a reverse step replaces.

m must not fall with ρ. A step from τ to s keeps $\kappa = m(\rho_s)/m(\rho_\tau)$ of the noise in x and replaces the
rest, $x_s = \alpha_s\hat x_0 + \kappa\sigma_s\hat\varepsilon + \sigma_s\sqrt{1 - \kappa^2}\,z$. The marginal
distribution is the same for every m. $m = 1$ is the probability-flow ODE, $m = \rho$ the reverse SDE, whose first-order
step is DDPM's with $\tilde\beta$. A steeper m adds more noise than the reverse SDE.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from scoresde._core.annotations import CheckedArguments
from scoresde._core.checks import check_positive
from scoresde.process import ou

__all__ = ["Eta", "ExtendedNoise", "NoiseFunction", "rho"]


def rho(tau: float) -> float:
    r"""Noise-to-signal ratio $\sigma/\alpha = \sqrt{e^{2\tau} - 1}$, the σ of variance-exploding papers."""
    return math.exp(-0.5 * ou.log_snr(tau))


_MOST = 10.0  # of eta and power: beyond it the noise of a step overflows


class NoiseFunction(CheckedArguments, ABC):
    """A function m of ρ, given by log m and its slope."""

    @abstractmethod
    def log_m(self, rho: float) -> float:
        """log m(ρ)."""

    @abstractmethod
    def slope(self, rho: float) -> float:
        """d log m / d log ρ ≥ 0: the ratio of the added noise variance to that of the reverse SDE."""

    def kappa(self, tau: float, s: float) -> float:
        """κ, the fraction of the noise that a step from ``tau`` to ``s`` keeps."""
        return math.exp(self.log_m(rho(s)) - self.log_m(rho(tau)))


@dataclass(frozen=True)
class Eta(NoiseFunction):
    r"""$m = \rho^{\eta^2}$ in an interval of ρ, and no added noise outside: SA-Solver's stochasticity τ(t), constant.

    Args:
        eta: 1 is the reverse SDE; larger values add more noise. For the ODE pass no noise function.
        low, high: Interval of ρ in which noise is added.

    Raises:
        ValueError: If ``eta`` is not positive or the interval empty.

    Source: Xue et al. 2023 (SA-Solver), section 4 and appendix.
    """

    eta: float = 1.0
    low: float = 0.0
    high: float = math.inf

    def __post_init__(self) -> None:
        if not (0 < self.eta < math.inf and 0 <= self.low < self.high):
            raise ValueError(f"Eta needs eta > 0 and 0 <= low < high, got {self}; for the ODE pass noise=None.")
        if self.eta > _MOST:
            raise ValueError(f"eta must be at most {_MOST}, got {self.eta!r}; 1.0 is the default.")

    def log_m(self, rho: float) -> float:
        return self.eta**2 * math.log(min(max(rho, self.low), self.high))

    def slope(self, rho: float) -> float:
        return self.eta**2 if self.low <= rho <= self.high else 0.0


@dataclass(frozen=True)
class ExtendedNoise(NoiseFunction):
    r"""$m = e^{\rho^p} + c$: much noise far from the data, little near the data.

    Args:
        power: p.
        offset: c.

    Raises:
        ValueError: If a number is not positive.

    Source: Cui et al. 2023 (ER-SDE-Solver), section 4, the function that the paper ends with: p = .3, c = 10.
    """

    power: float = 0.3
    offset: float = 10.0

    def __post_init__(self) -> None:
        check_positive(power=self.power, offset=self.offset)
        if self.power > _MOST:
            raise ValueError(f"power must be at most {_MOST}, got {self.power!r}; 0.3 is the default.")

    def log_m(self, rho: float) -> float:
        return float(rho**self.power + math.log1p(self.offset * math.exp(-(rho**self.power))))

    def slope(self, rho: float) -> float:
        growth = rho**self.power
        return self.power * growth / (1.0 + self.offset * math.exp(-growth))
