r"""Flow-matching clock of the straight path: $\tau = \tfrac12\log(1 + u^2/(1-u)^2)$."""

from __future__ import annotations

from dataclasses import dataclass

from scoresde._core import elementwise as ew
from scoresde._core.elementwise import Scalar
from scoresde.process import ou
from scoresde.process.schedule.base import Schedule

__all__ = ["StraightPath"]


@dataclass(frozen=True)
class StraightPath(Schedule):
    r"""Clock of the straight path, $\tilde\alpha = 1 - u$ and $\tilde\sigma = u$.

    $\tau = \tfrac12\log(1 + u^2/(1-u)^2)$, infinite at u = 1.

    Source: Lipman et al. 2023 (Flow matching for generative modeling); Liu et al. 2023 (rectified flow).
    """

    def _tau(self, u: Scalar) -> Scalar:
        ratio = ew.div(u, 1.0 - u)  # sigma over alpha
        return 0.5 * ew.log1p(ratio * ratio)

    def _u(self, tau: Scalar) -> Scalar:
        return ou.sigma(tau) / (ou.alpha(tau) + ou.sigma(tau))

    def _rate(self, u: Scalar) -> Scalar:
        return ew.div(u, (1.0 - u) * ((1.0 - u) ** 2 + u * u))
