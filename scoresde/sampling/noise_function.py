r"""How much fresh noise does a step bring? Between the ODE, which brings none, and more than the reverse SDE.

A noise function is $m(\rho)$ of $\rho = \sigma/\alpha$, not falling. A step from τ to s keeps
$\kappa = m(\rho_s)/m(\rho_\tau)$ of the noise in x and replaces the rest,
$x_s = \alpha_s\hat x_0 + \kappa\sigma_s\hat\varepsilon + \sigma_s\sqrt{1 - \kappa^2}\,z$: the marginal law is the same
whatever m. $m = 1$ is the probability-flow ODE, $m = \rho$ the reverse SDE, whose step to first order is DDPM's with
$\tilde\beta$.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from scoresde.process import ou

__all__ = ["Eta", "ExtendedNoise", "NoiseFunction", "rho"]


def rho(tau: float) -> float:
    r"""Noise-to-signal ratio $\sigma/\alpha = \sqrt{e^{2\tau} - 1}$, the σ of variance-exploding papers."""
    return math.exp(-0.5 * ou.log_snr(tau))


class NoiseFunction(ABC):
    """A function m of ρ, by its logarithm and that one's slope."""

    @abstractmethod
    def log_m(self, rho: float) -> float:
        """log m(ρ)."""

    @abstractmethod
    def slope(self, rho: float) -> float:
        """d log m / d log ρ ≥ 0: the variance of fresh noise per that of the reverse SDE."""

    def kept(self, tau: float, s: float) -> float:
        """κ, the share of the noise that a step from ``tau`` to ``s`` keeps."""
        return math.exp(self.log_m(rho(s)) - self.log_m(rho(tau)))


@dataclass(frozen=True)
class Eta(NoiseFunction):
    r"""$m = \rho^{\eta^2}$ for ρ in an interval, and no fresh noise outside: SA-Solver's stochasticity τ(t), constant.

    Args:
        eta: 1 is the reverse SDE; larger brings more noise than that. For the ODE take no noise function.
        low, high: Interval of ρ in which noise is brought.

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

    def log_m(self, rho: float) -> float:
        """See the class."""
        return self.eta**2 * math.log(min(max(rho, self.low), self.high))

    def slope(self, rho: float) -> float:
        """See the class."""
        return self.eta**2 if self.low <= rho <= self.high else 0.0


@dataclass(frozen=True)
class ExtendedNoise(NoiseFunction):
    r"""$m = e^{\rho^p} + c$: much noise far from the data, little near them.

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
        if not (self.power > 0 and self.offset > 0):
            raise ValueError(f"ExtendedNoise needs a positive power and offset, got {self}.")

    def log_m(self, rho: float) -> float:
        """See the class."""
        return float(rho**self.power + math.log1p(self.offset * math.exp(-(rho**self.power))))

    def slope(self, rho: float) -> float:
        """See the class."""
        growth = rho**self.power
        return self.power * growth / (1.0 + self.offset * math.exp(-growth))
