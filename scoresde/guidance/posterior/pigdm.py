r"""ΠGDM: $\Delta = V A^T(\Gamma + r^2 A A^T)^{-1} r$, with an isotropic covariance $r^2$ in the weight."""

from __future__ import annotations

from dataclasses import dataclass

from scoresde._core.checks import check_positive
from scoresde.guidance.posterior.base import PosteriorMethod, Problem, Shift

__all__ = ["PiGDM"]


@dataclass(frozen=True)
class PiGDM(PosteriorMethod):
    r"""$\Delta = V A^T(\Gamma + r^2 A A^T)^{-1} r$, $r^2 = c\,\sigma^2/(\sigma^2 + c\,\alpha^2)$, c the prior variance.

    Two network evaluations. With c = 1 this is the published $r^2 = \sigma_{VE}^2/(1 + \sigma_{VE}^2) = \sigma^2$.
    Exact for data N(m, c I). The factor $r^2$ with which the published algorithm multiplies the step is left out: it
    belongs to its sampler, not to the score.

    Args:
        prior_variance: c, variance of each element of the data in model units.

    Raises:
        ValueError: If ``prior_variance`` is not positive and finite.

    Source: Song et al. 2023, "Pseudoinverse-guided diffusion models for inverse problems", eqs. 5-8.
    """

    prior_variance: float = 1.0

    def __post_init__(self) -> None:
        check_positive(prior_variance=self.prior_variance)

    def jacobian_products(self, measured: int) -> int:
        return 1

    def shift(self, problem: Problem) -> Shift:
        c, alpha, sigma = self.prior_variance, problem.alpha, problem.sigma
        solution = problem.solve(c * sigma * sigma / (sigma * sigma + c * alpha * alpha))
        return Shift(problem.covariance(problem.adjoint(solution.value)), solution.residual)
