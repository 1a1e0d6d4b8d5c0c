r"""Variance-exploding clock: $\tau = \tfrac12\log(1 + \tilde\sigma^2)$ with geometric $\tilde\sigma(u)$."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scoresde._core import elementwise as ew
from scoresde._core.checks import check_increasing, check_positive
from scoresde._core.elementwise import Scalar
from scoresde.process import ou
from scoresde.process.schedule.base import Schedule

__all__ = ["GeometricSigma"]


@dataclass(frozen=True)
class GeometricSigma(Schedule):
    r"""The variance-exploding clock: $\tilde\sigma = \sigma_{min}(\sigma_{max}/\sigma_{min})^u$.

    $\tau = \tfrac12\log(1 + \tilde\sigma^2)$. It begins at data noised with ``sigma_min``.

    Args:
        sigma_min, sigma_max: $\tilde\sigma$ at u = 0 and at u = 1, in units of the data.

    Raises:
        ValueError: If a value is not positive and finite, or ``sigma_min`` is not below ``sigma_max``.

    Source: Song & Ermon 2020; Song et al. 2021, eq. 31.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        check_positive(sigma_min=self.sigma_min, sigma_max=self.sigma_max)
        check_increasing(sigma_min=self.sigma_min, sigma_max=self.sigma_max)

    @property
    def _log_variance_span(self) -> float:
        return 2.0 * math.log(self.sigma_max / self.sigma_min)

    def _log_variance(self, u: Scalar) -> Scalar:
        return 2.0 * math.log(self.sigma_min) + self._log_variance_span * u

    def _tau(self, u: Scalar) -> Scalar:
        return ou.tau_from_log_snr(-self._log_variance(u))

    def _u(self, tau: Scalar) -> Scalar:
        return (-ou.log_snr(tau) - 2.0 * math.log(self.sigma_min)) / self._log_variance_span

    def _rate(self, u: Scalar) -> Scalar:
        return 0.5 * self._log_variance_span * ew.sigmoid(self._log_variance(u))
