"""On which clocks do the views run? Variance exploding, sub-VP and the straight path."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scoresde._core import elementwise as ew
from scoresde._core.elementwise import Scalar
from scoresde.process import ou
from scoresde.process.schedule.base import Schedule, increasing, positive
from scoresde.process.schedule.vp import LinearVP

__all__ = ["GeometricSigma", "StraightPath", "SubVPClock"]


@dataclass(frozen=True)
class GeometricSigma(Schedule):
    r"""The variance-exploding clock: $\tilde\sigma = \sigma_{min}(\sigma_{max}/\sigma_{min})^u$.

    $\tau = \tfrac12\log(1 + \tilde\sigma^2)$; it begins on data that are already noised by ``sigma_min``.

    Source: Song & Ermon 2020; Song et al. 2021, eq. 31.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        positive(sigma_min=self.sigma_min, sigma_max=self.sigma_max)
        increasing("sigma_min", self.sigma_min, "sigma_max", self.sigma_max)

    @property
    def _span(self) -> float:
        return 2.0 * math.log(self.sigma_max / self.sigma_min)

    def _log_variance(self, u: Scalar) -> Scalar:
        return 2.0 * math.log(self.sigma_min) + self._span * u

    def _tau(self, u: Scalar) -> Scalar:
        return ou.tau_from_log_snr(-self._log_variance(u))

    def _u(self, tau: Scalar) -> Scalar:
        return (-ou.log_snr(tau) - 2.0 * math.log(self.sigma_min)) / self._span

    def _rate(self, u: Scalar) -> Scalar:
        return 0.5 * self._span * ew.sigmoid(self._log_variance(u))


@dataclass(frozen=True)
class SubVPClock(Schedule):
    r"""The sub-VP clock over a VP one: $\tau = \tfrac12\log(1 + 4\sinh^2\tau_0)$ with $\tau_0$ from ``inner``.

    Source: Song et al. 2021, eq. 29 ($\tilde\alpha = e^{-\tau_0}$, $\tilde\sigma = 1 - e^{-2\tau_0}$).
    """

    inner: Schedule = LinearVP()

    def __post_init__(self) -> None:
        if self.inner.tau_max == math.inf:
            raise ValueError("the inner clock must end at a finite tau, got infinity; use a clipped clock.")

    def _tau(self, u: Scalar) -> Scalar:
        odds = 2.0 * ew.sinh(self.inner._tau(u))
        return 0.5 * ew.log1p(odds * odds)

    def _u(self, tau: Scalar) -> Scalar:
        return self.inner._u(ew.asinh(0.5 * ew.sqrt(ew.expm1(2.0 * tau))))

    def _rate(self, u: Scalar) -> Scalar:
        inner = self.inner._tau(u)
        odds = 2.0 * ew.sinh(inner)
        return 2.0 * ew.sinh(2.0 * inner) / (1.0 + odds * odds) * self.inner._rate(u)


@dataclass(frozen=True)
class StraightPath(Schedule):
    r"""The straight path's clock: $\tilde\alpha = 1 - u$ and $\tilde\sigma = u$.

    $\tau = \tfrac12\log(1 + u^2/(1-u)^2)$, infinite at u = 1.

    Source: Lipman et al. 2023 (Flow matching for generative modeling); Liu et al. 2023 (rectified flow).
    """

    def _tau(self, u: Scalar) -> Scalar:
        odds = ew.div(u, 1.0 - u)
        return 0.5 * ew.log1p(odds * odds)

    def _u(self, tau: Scalar) -> Scalar:
        return ou.sigma(tau) / (ou.alpha(tau) + ou.sigma(tau))

    def _rate(self, u: Scalar) -> Scalar:
        return ew.div(u, (1.0 - u) * ((1.0 - u) ** 2 + u * u))
